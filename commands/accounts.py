"""`account` and `key`: accounts and API keys."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from commands.context import account_id_of, load_settings, run, services_open, typed_password

ROLE = click.Choice(["OWNER", "ADMIN", "AGENT", "VIEWER"])


@click.group()
def account() -> None:
    """Accounts (tenants)."""


@account.command("create")
@click.option("--name", required=True, help="Name of the business.")
@click.option("--currency", required=True, help="Default currency, ISO 4217.")
@click.option("--email", required=True, help="Email address of the owner.")
@click.option("--user-name", required=True, help="Name of the owner.")
@click.option("--locale", default="en-US", show_default=True, help="Language and country.")
@click.option("--time-zone", default="UTC", show_default=True, help="IANA name.")
def account_create(name: str, currency: str, email: str, user_name: str, locale: str, time_zone: str) -> None:
    """Create an account and its owner. Password: PAYTHREAD_PASSWORD, standard input or a prompt."""
    settings = load_settings()
    password = os.environ.get("PAYTHREAD_PASSWORD") or typed_password()
    from models.ids import public_id

    async def work() -> Any:
        from services.accounts import accounts

        async with services_open(settings):
            return await accounts.create_account(
                name=name,
                currency=currency,
                email=email,
                password=password,
                user_name=user_name,
                locale=locale,
                time_zone=time_zone,
            )

    made, user = run(work())
    click.echo(f"account  {public_id('acc', made.id)}")
    click.echo(f"owner    {user.email}")


@click.group()
def key() -> None:
    """API keys."""


@key.command("create")
@click.option("--account", "account_id", required=True, help="acc_… of the account.")
@click.option("--name", required=True, help="What it is for.")
@click.option(
    "--role",
    type=ROLE,
    default="AGENT",
    show_default=True,
    help="What it may do.",
)
@click.option("--days", type=click.IntRange(1, 730), default=365, show_default=True, help="Days until it expires.")
@click.option("--manages-keys", is_flag=True, help="Allow it to create and revoke keys (role OWNER).")
def key_create(account_id: str, name: str, role: str, days: int, manages_keys: bool) -> None:
    """Create an API key and print it once."""
    settings = load_settings()

    async def work() -> str:
        from services.accounts import api_keys
        from services.core import permissions

        async with services_open(settings):
            found = await account_id_of(account_id)
            _, token = await api_keys.create(
                permissions.system_actor(found),
                name=name,
                role=role,
                expires_at=datetime.now(UTC) + timedelta(days=days),
                manages_keys=manages_keys,
            )
            return token

    click.echo(run(work()))
