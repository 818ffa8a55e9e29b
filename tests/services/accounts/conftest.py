"""A user who can sign in."""

from __future__ import annotations

import pytest

from models.tables import User
from services.accounts import login, sessions
from settings import Settings
from tests import factories

ADDRESS = "203.0.113.7"


@pytest.fixture
async def user(configured: Settings) -> User:
    return await factories.user(await factories.account(), email="sam@example.test", name="Sam", role="ADMIN")


async def tokens_of(user: User) -> sessions.Tokens:
    return await login.sign_in(user.email, factories.PASSWORD, client_address=None)
