"""An account with an owner, and the installation's mail server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from argon2 import PasswordHasher

from models import vault
from models.tables import Job, User
from services.accounts import accounts, login
from services.core import jobs
from services.core.permissions import Actor
from settings import DEMO_KEY, Settings
from tests.configured import configure
from tests.contracts.smtp_server import MailServer

PASSWORD = "long-enough-1"
BASE = "https://pay.example.test"


def settings(**more: Any) -> Settings:
    given: dict[str, Any] = {"login_limit": "1000/minute", "token_limit": "1000/minute", "public_url": BASE, **more}
    return Settings(_env_file=None, environment="test", **given)  # type: ignore[call-arg]  # pydantic's plug-in does not know it


def actor_of(user: User) -> Actor:
    return Actor(
        account_id=user.account_id,
        role=user.role,
        user_id=user.id,
        name=user.name,
        kind="user",
        credential=str(user.id),
    )


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
async def owner(database: str) -> User:
    """Without a mail server."""
    vault.open_vault([DEMO_KEY])
    configure(settings())
    _, user = await accounts.create_account(
        name="Acme", currency="USD", email="olga@acme.test", password=PASSWORD, user_name="Olga"
    )
    return user


@pytest.fixture
async def mail(owner: User) -> AsyncIterator[MailServer]:
    async with MailServer() as server:
        configure(with_mail(server))
        yield server


def with_mail(server: MailServer, **more: Any) -> Settings:
    here = {"smtp_host": "127.0.0.1", "smtp_port": server.port, "smtp_security": "none"}
    return settings(**here, smtp_from="Paythread <desk@installation.test>", **more)


async def run_jobs(*, last_attempt: bool = False) -> list[str]:
    """Run each queued job that is no periodic one, once; return the errors' names."""
    errors = []
    for row in await Job.filter(status="queued").order_by("id"):
        if row.kind in jobs.periods:
            continue
        context = jobs.JobContext(
            job_id=row.id,
            kind=row.kind,
            payload=row.payload,
            account_id=row.account_id,
            attempt=1,
            last_attempt=last_attempt,
            sealed=row.sealed,
        )
        try:
            await jobs.handlers[row.kind](context)
        except Exception as error:  # noqa: BLE001 (the test looks at it)
            errors.append(type(error).__name__)
            dead = jobs.dead_handlers[row.kind]
            if (last_attempt or isinstance(error, jobs.Permanent)) and not isinstance(dead, str):
                await dead(context, "refused")
                await Job.filter(id=row.id).update(status="dead")
        else:
            await Job.filter(id=row.id).update(status="done")
    return errors


def token_in(server: MailServer) -> str:
    """Of the newest email."""
    text = server.letters[-1].message.get_content()
    (line,) = [line for line in text.splitlines() if line.startswith(BASE)]
    return str(line).partition("#")[2]
