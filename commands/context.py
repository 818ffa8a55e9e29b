"""Settings, services and errors of commands."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar
from uuid import UUID

import click
from pydantic import ValidationError

from settings import Settings

T = TypeVar("T")


def load_settings(**overrides: Any) -> Settings:
    """Raises: ClickException."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        # Pydantic's full text would print the values, and some of them are secrets.
        sentences = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise click.ClickException("\n".join(sentences)) from None


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; print a refusal on stderr."""
    from models.errors import Refusal

    try:
        return asyncio.run(work)
    except Refusal as refusal:
        field = f" ({'.'.join(refusal.field)})" if refusal.field else ""
        raise click.ClickException(f"{refusal.message}{field}") from None


@contextlib.asynccontextmanager
async def services_open(settings: Settings) -> AsyncIterator[None]:
    """Without server, bus and jobs."""
    import app
    from services.connections import providers
    from web import log_setup

    log_setup.configure(settings.log_level)
    app.configure(settings)
    async with app.opened(settings):
        try:
            yield
        finally:
            await providers.aclose()


async def account_id_of(public: str) -> UUID:
    """Raises: NotFound."""
    from models.errors import NotFound
    from models.ids import parse_public_id
    from models.tables import Account

    found = parse_public_id(public, "acc")
    if found is None or not await Account.exists(id=found):
        raise NotFound(field="account")
    return found


def typed_password() -> str:
    """From a prompt or standard input; `ps` would show an argument."""
    if sys.stdin.isatty():
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return typed
    return sys.stdin.readline().rstrip("\r\n")
