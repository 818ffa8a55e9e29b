"""Inputs that sign in and out, and make API keys."""

from __future__ import annotations

from datetime import datetime

import strawberry

from schema.describe import limited
from schema.inputs.descriptions import OPTIONAL_KEY
from schema.scalars import (
    Role,
)
from services.accounts import api_keys, login, sessions
from services.core import validation


@strawberry.input(description="Who signs in.")
class SignInInput:
    email: str = strawberry.field(description=limited("The user's email address.", validation.EMAIL_LIMIT))
    password: str = strawberry.field(description=limited("The password.", login.PASSWORD_LIMIT))


@strawberry.input(description="A refresh token.")
class RefreshSessionInput:
    refresh_token: str = strawberry.field(
        description=limited("The newest refresh token; each works once.", sessions.TOKEN_LIMIT)
    )


@strawberry.input(description="What to sign out.")
class SignOutInput:
    refresh_token: str | None = strawberry.field(
        default=None, description=limited("A further sign-in of the same user to end.", sessions.TOKEN_LIMIT)
    )
    everywhere: bool = strawberry.field(default=False, description="End every sign-in of the user, on all devices.")


@strawberry.input(description="A new credential for programs.")
class CreateApiKeyInput:
    idempotency_key: str | None = strawberry.field(default=None, description=OPTIONAL_KEY)
    name: str = strawberry.field(description=limited("What it is for.", api_keys.KEY_NAME_LIMIT))
    role: Role = strawberry.field(description="Its role.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends: two years from now at most. Left out or null: in a year."
    )
    manages_keys: bool = strawberry.field(
        default=False,
        description="Whether this key, of role OWNER, may create and revoke keys. Only a signed-in user can allow it.",
    )


@strawberry.input(description="The API key to revoke.")
class RevokeApiKeyInput:
    api_key_id: strawberry.ID = strawberry.field(description="The key.")
