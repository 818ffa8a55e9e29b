"""`user`: an account's users."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import click

from commands.accounts import ROLE
from commands.context import account_id_of, load_settings, run, services_open, typed_password

if TYPE_CHECKING:
    from models.tables import User
    from services.core.permissions import Actor


_of_account = click.option("--account", "account_id", help="acc_… of the account. Required when there are several.")
_generated = click.option("--generate", is_flag=True, help="Generate a password and print it once.")


async def _actor_of(public: str | None) -> Actor:
    from models.ids import public_id
    from models.tables import Account
    from services.core.permissions import system_actor

    if public is not None:
        return system_actor(await account_id_of(public))
    found = await Account.all().order_by("id").limit(20)
    if len(found) != 1:
        known = "".join(f"\n  {public_id('acc', one.id)}  {one.name}" for one in found)
        raise click.ClickException(f"Choose the account with --account:{known}" if known else "There is no account.")
    return system_actor(found[0].id)


def _change(account_id: str | None, email: str, name: str, *arguments: str) -> None:
    settings = load_settings()

    async def work() -> User:
        from services.accounts import users

        async with services_open(settings):
            actor = await _actor_of(account_id)
            changed: User = await getattr(users, name)(actor, (await users.find(actor, email)).id, *arguments)
            return changed

    click.echo(_line_of(run(work())))


def _line_of(user: User) -> str:
    state = f"disabled {user.disabled_at:%Y-%m-%d}" if user.disabled_at else "active"
    return f"{user.email}  {user.role}  {state}  {user.name}"


@click.group()
def user() -> None:
    """An account's users."""


@user.command("add")
@_of_account
@click.option("--email", required=True, help="The address to sign in with.")
@click.option("--name", required=True, help="The person's name.")
@click.option("--role", type=ROLE, default="AGENT", show_default=True, help="What the person may do.")
@_generated
def user_add(account_id: str | None, email: str, name: str, role: str, generate: bool) -> None:
    """Add a user. Password: prompt or standard input."""
    settings = load_settings()
    password = secrets.token_urlsafe(15) if generate else typed_password()

    async def work() -> User:
        from services.accounts import users

        async with services_open(settings):
            actor = await _actor_of(account_id)
            return await users.add(actor, email=email, name=name, role=role, password=password)

    click.echo(_line_of(run(work())))
    if generate:
        click.echo(f"password  {password}")


@user.command("invite")
@_of_account
@click.option("--email", required=True, help="The address to sign in with.")
@click.option("--name", help="The person's name. Default: the person gives it.")
@click.option("--role", type=ROLE, default="AGENT", show_default=True, help="What the person may do.")
def user_invite(account_id: str | None, email: str, name: str | None, role: str) -> None:
    """Invite a user. Prints the link, unless SMTP_HOST is set: then a job emails it."""
    settings = load_settings()

    async def work() -> str | None:
        from services.team import invitations

        async with services_open(settings):
            invited = await invitations.invite(await _actor_of(account_id), email=email, name=name, role=role)
            return invited.link

    click.echo(run(work()) or f"The link goes to {email} by email.")


@user.command("reset-link")
@_of_account
@click.argument("email")
def user_reset_link(account_id: str | None, email: str) -> None:
    """Print a link to choose a new password; it works once, for an hour."""
    settings = load_settings()

    async def work() -> str:
        from services.accounts import users
        from services.team import passwords

        async with services_open(settings):
            actor = await _actor_of(account_id)
            return await passwords.reset_link(actor, (await users.find(actor, email)).id)

    click.echo(run(work()))


@user.command("list")
@_of_account
def user_list(account_id: str | None) -> None:
    """List the users, including disabled ones."""
    settings = load_settings()

    async def work() -> list[User]:
        from services.accounts import users

        async with services_open(settings):
            return await users.listed(await _actor_of(account_id))

    for one in run(work()):
        click.echo(_line_of(one))


@user.command("role")
@_of_account
@click.argument("email")
@click.argument("role", type=ROLE)
def user_role(account_id: str | None, email: str, role: str) -> None:
    """Give the user with EMAIL a ROLE."""
    _change(account_id, email, "set_role", role)


@user.command("disable")
@_of_account
@click.argument("email")
def user_disable(account_id: str | None, email: str) -> None:
    """Disable the user and sign them out everywhere."""
    _change(account_id, email, "disable")


@user.command("enable")
@_of_account
@click.argument("email")
def user_enable(account_id: str | None, email: str) -> None:
    """Let a disabled user sign in again."""
    _change(account_id, email, "enable")


@user.command("password")
@_of_account
@click.argument("email")
@_generated
def user_password(account_id: str | None, email: str, generate: bool) -> None:
    """Set a user's password and sign them out everywhere."""
    password = secrets.token_urlsafe(15) if generate else typed_password()
    _change(account_id, email, "set_password", password)
    if generate:
        click.echo(f"password  {password}")
