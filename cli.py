"""The command line: parses, calls one service, prints. `python cli.py --help` lists the commands."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import click
from pydantic import ValidationError

from settings import Settings

if TYPE_CHECKING:
    from models.tables import User
    from services.core.permissions import Actor
    from services.payments.reconciliation import Reconciled

# The application is imported where it is used: `migrate` and `--help` answer without loading the GraphQL schema.

SCHEMA_FILE = Path(__file__).parent / "schema" / "schema.graphql"
VISITOR_SCHEMA_FILE = SCHEMA_FILE.with_name("visitor.graphql")

T = TypeVar("T")


def _settings(**overrides: Any) -> Settings:
    """The environment's settings; what was said on the command line wins."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        # Only our own sentences: pydantic's text would print the values, and some of them are secrets.
        sentences = [f"{'.'.join(map(str, e['loc'])) or 'settings'}: {e['msg']}" for e in error.errors()]
        raise click.ClickException("\n".join(sentences)) from None


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; a refusal becomes one line on stderr."""
    from models.errors import Refusal

    try:
        return asyncio.run(work)
    except Refusal as refusal:
        field = f" ({'.'.join(refusal.field)})" if refusal.field else ""
        raise click.ClickException(f"{refusal.message}{field}") from None


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[None]:
    """Services configured and the database open, without server, bus and jobs."""
    import app
    from services.connections import providers

    app.configure(settings)
    async with app.opened(settings):
        try:
            yield
        finally:
            await providers.aclose()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Paythread: request payment from a contact without leaving the conversation."""


# -------------------------------------------------------------------------------------------------------------- serve
@cli.command()
@click.option("--demo", is_flag=True, help="Migrate, make the demo account, print how to sign in.")
@click.option("--host", help="Address to listen on. Default: HOST.")
@click.option("--port", type=int, help="Port to listen on. Default: PORT.")
def serve(demo: bool, host: str | None, port: int | None) -> None:
    """Serve the API, the pages and (unless RUN_JOBS=false) the jobs."""
    settings = _settings(host=host, port=port)
    from app import create_app
    from models.database import dialect_of
    from models.migrate import MigrationError, migrate
    from resolvers.transport.server import Server, listen, server_config

    try:
        # The port first: a taken one should be said before anything is changed.
        listener = listen(settings.host, settings.port)
    except OSError as error:
        raise click.ClickException(
            f"Can't listen on {settings.host}:{settings.port} ({error.strerror}); try --port."
        ) from None
    with contextlib.closing(listener):
        try:
            if demo or dialect_of(settings.database_url) == "sqlite":
                asyncio.run(migrate(settings.database_url))
        except MigrationError as error:
            raise click.ClickException(str(error)) from None
        app = create_app(settings)
        if demo:
            app.state.demo = _run(_seed(settings))
        _greet(settings, app.state.demo if demo else None)
        # A collection stops the loop. What lives as long as the process is left out, and the rest is collected in small portions.
        gc.collect()
        gc.freeze()
        gc.set_threshold(700, 5, 4)
        config = server_config(app, host=settings.host, port=settings.port, log_config=None)
        server = Server(config, before_shutdown=app.state.before_shutdown)
        server.run(sockets=[listener])
    if not server.started:
        sys.exit(3)


async def _seed(settings: Settings) -> Any:
    from services.demo import seed

    try:
        async with _opened(settings):
            return await seed.seed(settings)
    except seed.DemoClosed as error:
        raise click.ClickException(str(error)) from None


def _greet(settings: Settings, access: Any) -> None:
    """Where everything is. The demo's password and key are printed in development only."""
    lines = [("Paythread", f"{settings.base_url}/")]
    lines.append(("GraphQL", f"{settings.base_url}/graphql"))
    if settings.graphiql_open:
        lines.append(("GraphiQL", f"{settings.base_url}/graphiql"))
    if settings.demo_open:
        lines.append(("phone", f"{settings.base_url}/demo/phone"))
        lines.append(("site", f"{settings.base_url}/demo/site"))
    if access is not None and settings.environment == "development":
        lines.append(("sign in", f"{access.email} / {access.password}"))
        lines.append(("API key", access.api_key))
    width = max(len(name) for name, _ in lines)
    click.echo("\n" + "\n".join(f"  {name:<{width}}  {value}" for name, value in lines) + "\n")
    sys.stdout.flush()


@cli.command()
def worker() -> None:
    """Run the jobs alone, beside servers with RUN_JOBS=false. Its health is at WORKER_PORT."""
    settings = _settings()
    from resolvers.transport.server import listen

    try:
        listener = listen(settings.host, settings.worker_port) if settings.worker_port else None
    except OSError as error:
        raise click.ClickException(
            f"Can't listen on {settings.host}:{settings.worker_port} ({error.strerror}); set WORKER_PORT (0: none)."
        ) from None
    with contextlib.closing(listener) if listener is not None else contextlib.nullcontext():
        asyncio.run(_work(settings, listener))


async def _work(settings: Settings, listener: socket.socket | None) -> None:
    import app
    from resolvers.transport.server import served
    from web import logging

    logging.configure(settings.log_level)
    app.configure(settings)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with contextlib.AsyncExitStack() as stack:
        hub = await stack.enter_async_context(app.running(settings, jobs_too=True))
        if listener is not None:
            await stack.enter_async_context(served(app.health_app(settings, hub), listener))
        click.echo("Paythread worker: running jobs")
        sys.stdout.flush()
        await stop.wait()


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; the line is trusted.")
@click.option("--port", type=int, default=2424, show_default=True, help="Port to listen on.")
def lmtp(host: str, port: int) -> None:
    """Take in letters from our own mail server by LMTP, for e-mail channels (chn_…@anything)."""
    settings = _settings()
    try:
        asyncio.run(_take_letters(settings, host, port))
    except OSError as error:
        raise click.ClickException(f"Can't listen on {host}:{port} ({error.strerror}); try --port.") from None


async def _take_letters(settings: Settings, host: str, port: int) -> None:
    import app
    from web import lmtp, logging

    logging.configure(settings.log_level)
    app.configure(settings)
    stop = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stop.set)
    async with app.running(settings, jobs_too=False), await lmtp.listen(host, port):
        click.echo(f"Paythread LMTP: {host}:{port}")
        sys.stdout.flush()
        await stop.wait()


# ----------------------------------------------------------------------------------------------------------- database
@cli.command()
def migrate() -> None:
    """Apply pending migrations to DATABASE_URL."""
    settings = _settings()
    from models.migrate import MigrationError
    from models.migrate import migrate as apply

    try:
        applied = asyncio.run(apply(settings.database_url))
    except MigrationError as error:
        raise click.ClickException(str(error)) from None
    click.echo("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


@cli.command("rotate-keys")
def rotate_keys() -> None:
    """Seal every stored secret with the first of SECRET_KEYS. Afterwards older keys can be taken out."""
    settings = _settings()

    async def work() -> dict[str, int]:
        from services.accounts import key_rotation

        async with _opened(settings):
            return await key_rotation.rotate()

    from models.vault import VaultError

    try:
        counts = _run(work())
    except VaultError as error:
        raise click.ClickException(f"A secret is {error}; add its key to SECRET_KEYS.") from None
    for table, count in counts.items():
        click.echo(f"{table}: {count}")


# -------------------------------------------------------------------------------------------------------------- jobs
@cli.group("jobs")
def jobs_() -> None:
    """Dead jobs: work that failed at every try."""


_JOB_IDS = click.argument("ids", nargs=-1, type=click.UUID)
_JOB_KIND = click.option("--kind", help="All dead jobs of this kind, as `jobs list` prints it.")


@jobs_.command("list")
@click.option("--kind", help="Of this kind only.")
def jobs_list(kind: str | None) -> None:
    """Print the dead jobs, newest first: id, when it was queued, kind, attempts, last error."""
    settings = _settings()

    async def work() -> list[str]:
        from services.core import jobs

        async with _opened(settings):
            return [
                f"{job.id}  {job.created_at:%Y-%m-%d %H:%M}  {job.kind}  {job.attempts}  {job.last_error or ''}".rstrip()
                for job in await jobs.dead(kind)
            ]

    click.echo("\n".join(_run(work())) or "no dead jobs")


@jobs_.command("requeue")
@_JOB_IDS
@_JOB_KIND
def jobs_requeue(ids: tuple[UUID, ...], kind: str | None) -> None:
    """Run dead jobs again, by their IDS or by --kind. Work that was done meanwhile is not done again."""
    click.echo(f"queued {_on_dead_jobs('requeue', ids, kind)}")


@jobs_.command("drop")
@_JOB_IDS
@_JOB_KIND
def jobs_drop(ids: tuple[UUID, ...], kind: str | None) -> None:
    """Forget dead jobs, by their IDS or by --kind."""
    click.echo(f"dropped {_on_dead_jobs('drop', ids, kind)}")


def _on_dead_jobs(name: str, ids: tuple[UUID, ...], kind: str | None) -> int:
    """Call this function of the jobs service with the dead jobs that are meant; how many it changed."""
    if bool(ids) == bool(kind):
        raise click.UsageError("Give the ids of dead jobs, or --kind.")
    settings = _settings()

    async def work() -> int:
        from services.core import jobs

        async with _opened(settings):
            chosen = list(ids) or [job.id for job in await jobs.dead(kind)]
            changed: int = await getattr(jobs, name)(chosen)
            return changed

    return _run(work())


# ------------------------------------------------------------------------------------------------------------ ledger
async def _account_id(public: str) -> UUID:
    """The account that is named. Raises: NotFound."""
    from models.errors import NotFound
    from models.ids import parse_public_id
    from models.tables import Account

    found = parse_public_id(public, "acc")
    if found is None or not await Account.exists(id=found):
        raise NotFound(field="account")
    return found


@cli.command()
@click.option("--account", "account_id", help="acc_… of the account. Default: all.")
def audit(account_id: str | None) -> None:
    """Work out statuses, totals and log numbers again from the facts and print what differs; exit 1 if anything does."""
    settings = _settings()

    async def work() -> list[str]:
        from services.payments import integrity_check

        async with _opened(settings):
            one = await _account_id(account_id) if account_id else None
            return [str(difference) for difference in await integrity_check.audit(one)]

    differences = _run(work())
    click.echo("\n".join(differences) or "nothing differs")
    if differences:
        sys.exit(1)


@cli.command()
@click.option("--account", "account_id", required=True, help="acc_… of the account.")
@click.option(
    "--since",
    required=True,
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    help="Checkouts made from this time on, UTC.",
)
def reconcile(account_id: str, since: datetime) -> None:
    """Read every checkout again at its processor, record what it says, and print what differed; exit 1 if one can't be read."""
    settings = _settings()

    async def work() -> Reconciled:
        from services.payments import reconciliation

        async with _opened(settings):
            return await reconciliation.reconcile(await _account_id(account_id), since.replace(tzinfo=UTC))

    found = _run(work())
    for line in (*found.differed, *found.unread):
        click.echo(line)
    click.echo(f"read {found.read}, differed {len(found.differed)}, not read {len(found.unread)}")
    if found.unread:
        sys.exit(1)


# ----------------------------------------------------------------------------------------------------------- accounts
@cli.group()
def account() -> None:
    """Accounts (tenants)."""


@account.command("create")
@click.option("--name", required=True, help="Name of the business.")
@click.option("--currency", required=True, help="Default currency, ISO 4217.")
@click.option("--email", required=True, help="E-mail address of the owner.")
@click.option("--user-name", required=True, help="Name of the owner.")
@click.option("--locale", default="en-US", show_default=True, help="Language and country.")
@click.option("--time-zone", default="UTC", show_default=True, help="IANA name.")
def account_create(name: str, currency: str, email: str, user_name: str, locale: str, time_zone: str) -> None:
    """Make an account and its owner. The password comes from PAYTHREAD_PASSWORD, from the standard input or a prompt."""
    settings = _settings()
    password = os.environ.get("PAYTHREAD_PASSWORD") or _typed_password()
    from models.ids import public_id

    async def work() -> Any:
        from services.accounts import accounts

        async with _opened(settings):
            return await accounts.create_account(
                name=name,
                currency=currency,
                email=email,
                password=password,
                user_name=user_name,
                locale=locale,
                time_zone=time_zone,
            )

    made, user = _run(work())
    click.echo(f"account  {public_id('acc', made.id)}")
    click.echo(f"owner    {user.email}")


# -------------------------------------------------------------------------------------------------------------- users
ROLE = click.Choice(["OWNER", "ADMIN", "AGENT", "VIEWER"])
_of_account = click.option("--account", "account_id", help="acc_… of the account. Needed where there are several.")
_generated = click.option("--generate", is_flag=True, help="Make a password and print it, this once.")


def _typed_password() -> str:
    """A password from a prompt, or the first line of a piped standard input; never from an argument, which `ps` shows."""
    if sys.stdin.isatty():
        typed: str = click.prompt("Password", hide_input=True, confirmation_prompt=True)
        return typed
    return sys.stdin.readline().rstrip("\r\n")


async def _actor_of(public: str | None) -> Actor:
    """The program, acting in the account that is named, or in the only one there is. Raises: NotFound."""
    from models.ids import public_id
    from models.tables import Account
    from services.core.permissions import system_actor

    if public is not None:
        return system_actor(await _account_id(public))
    found = await Account.all().order_by("id").limit(20)
    if len(found) != 1:
        known = "".join(f"\n  {public_id('acc', one.id)}  {one.name}" for one in found)
        raise click.ClickException(f"Choose the account with --account:{known}" if known else "There is no account.")
    return system_actor(found[0].id)


def _on_user(account_id: str | None, email: str, work: Callable[[Actor, UUID], Coroutine[Any, Any, User]]) -> None:
    """Do something with the user of this address and print how it is afterwards."""
    settings = _settings()

    async def found() -> User:
        from services.accounts import users

        async with _opened(settings):
            actor = await _actor_of(account_id)
            return await work(actor, (await users.find(actor, email)).id)

    click.echo(_line_of(_run(found())))


def _line_of(user: User) -> str:
    state = f"disabled {user.disabled_at:%Y-%m-%d}" if user.disabled_at else "active"
    return f"{user.email}  {user.role}  {state}  {user.name}"


@cli.group()
def user() -> None:
    """The people of an account."""


@user.command("add")
@_of_account
@click.option("--email", required=True, help="The address to sign in with.")
@click.option("--name", required=True, help="The person's name.")
@click.option("--role", type=ROLE, default="AGENT", show_default=True, help="What the person may do.")
@_generated
def user_add(account_id: str | None, email: str, name: str, role: str, generate: bool) -> None:
    """Add a user. The password is asked for, or read from the standard input."""
    settings = _settings()
    password = secrets.token_urlsafe(15) if generate else _typed_password()

    async def work() -> User:
        from services.accounts import users

        async with _opened(settings):
            actor = await _actor_of(account_id)
            return await users.add(actor, email=email, name=name, role=role, password=password)

    click.echo(_line_of(_run(work())))
    if generate:
        click.echo(f"password  {password}")


@user.command("list")
@_of_account
def user_list(account_id: str | None) -> None:
    """List the users, disabled ones too."""
    settings = _settings()

    async def work() -> list[User]:
        from services.accounts import users

        async with _opened(settings):
            return await users.listed(await _actor_of(account_id))

    for one in _run(work()):
        click.echo(_line_of(one))


@user.command("role")
@_of_account
@click.argument("email")
@click.argument("role", type=ROLE)
def user_role(account_id: str | None, email: str, role: str) -> None:
    """Give the user with EMAIL a ROLE."""

    async def work(actor: Actor, user_id: UUID) -> User:
        from services.accounts import users

        return await users.set_role(actor, user_id, role)

    _on_user(account_id, email, work)


@user.command("disable")
@_of_account
@click.argument("email")
def user_disable(account_id: str | None, email: str) -> None:
    """Sign the user with EMAIL out everywhere, for good until enabled."""

    async def work(actor: Actor, user_id: UUID) -> User:
        from services.accounts import users

        return await users.disable(actor, user_id)

    _on_user(account_id, email, work)


@user.command("enable")
@_of_account
@click.argument("email")
def user_enable(account_id: str | None, email: str) -> None:
    """Let a disabled user sign in again."""

    async def work(actor: Actor, user_id: UUID) -> User:
        from services.accounts import users

        return await users.enable(actor, user_id)

    _on_user(account_id, email, work)


@user.command("password")
@_of_account
@click.argument("email")
@_generated
def user_password(account_id: str | None, email: str, generate: bool) -> None:
    """Give the user with EMAIL another password, asked for or read from the standard input, and sign them out everywhere."""
    password = secrets.token_urlsafe(15) if generate else _typed_password()

    async def work(actor: Actor, user_id: UUID) -> User:
        from services.accounts import users

        return await users.set_password(actor, user_id, password)

    _on_user(account_id, email, work)
    if generate:
        click.echo(f"password  {password}")


@cli.group()
def key() -> None:
    """API keys."""


@key.command("create")
@click.option("--account", "account_id", required=True, help="acc_… of the account.")
@click.option("--name", required=True, help="What it is for.")
@click.option(
    "--role",
    type=click.Choice(["OWNER", "ADMIN", "AGENT", "VIEWER"]),
    default="AGENT",
    show_default=True,
    help="What it may do.",
)
@click.option(
    "--days", type=click.IntRange(1, 730), default=365, show_default=True, help="After how many days it ends."
)
@click.option("--manages-keys", is_flag=True, help="Let it make and revoke keys (role OWNER).")
def key_create(account_id: str, name: str, role: str, days: int, manages_keys: bool) -> None:
    """Make an API key and print it, this once."""
    settings = _settings()

    async def work() -> str:
        from services.accounts import authentication
        from services.core import permissions

        async with _opened(settings):
            found = await _account_id(account_id)
            _, token = await authentication.create_api_key(
                permissions.system_actor(found),
                name=name,
                role=role,
                expires_at=datetime.now(UTC) + timedelta(days=days),
                manages_keys=manages_keys,
            )
            return token

    click.echo(_run(work()))


# ------------------------------------------------------------------------------------------------------------- schema
@cli.command()
@click.option("--check", is_flag=True, help="Compare with the committed files; fail if one differs.")
@click.option("--write", is_flag=True, help="Write schema/schema.graphql and schema/visitor.graphql.")
@click.option("--visitor", is_flag=True, help="Print the chat widget's schema in place of the team's.")
def schema(check: bool, write: bool, visitor: bool) -> None:
    """Print a GraphQL schema, compare both with the committed files, or write those files."""
    from resolvers.assemble import build_schema
    from resolvers.visitor.assemble import build_visitor_schema

    texts = {
        SCHEMA_FILE: build_schema(production=False, introspection=True).as_str().rstrip() + "\n",
        VISITOR_SCHEMA_FILE: build_visitor_schema(production=False, introspection=True).as_str().rstrip() + "\n",
    }
    if not write and not check:
        click.echo(texts[VISITOR_SCHEMA_FILE if visitor else SCHEMA_FILE], nl=False)
        return
    for file, text in texts.items():
        if write:
            file.write_text(text, encoding="utf-8")
            click.echo(f"wrote {file.name}")
        elif not file.exists() or file.read_text(encoding="utf-8") != text:
            raise click.ClickException(f"schema/{file.name} differs from the code: run `python cli.py schema --write`.")
        else:
            click.echo(f"schema/{file.name} is up to date")


# ----------------------------------------------------------------------------------------------------------- simulate
@cli.command()
@click.argument("contact")
@click.argument("kind", type=click.Choice(["SMS", "EMAIL", "WHATSAPP", "INSTAGRAM_DM", "MESSENGER", "WEB_CHAT"]))
@click.argument("text")
def simulate(contact: str, kind: str, text: str) -> None:
    """Let CONTACT (cnt_… or an e-mail address) write TEXT on a simulated channel of the running server."""
    settings = _settings()
    if not settings.sandbox_open:
        raise click.ClickException("The simulator is closed by the settings.")
    from integrations.base import IntegrationError
    from models.ids import parse_public_id
    from models.tables import ChannelConnection, Contact, ContactAddress

    async def work() -> str:
        from services.core import merged_rows
        from services.sandbox import channels

        async with _opened(settings):
            contact_id = parse_public_id(contact, "cnt")
            found = Contact.filter(id=contact_id) if contact_id else Contact.filter(email=contact.lower())
            known = await found.first()
            who = await merged_rows.contact(known.account_id, known.id) if known is not None else None
            if who is None:
                raise click.ClickException("No such contact.")
            address = await ContactAddress.get_or_none(contact_id=who.id, kind=kind, in_use=True)
            row = await ChannelConnection.filter(
                account_id=who.account_id, kind=kind, provider="simulated", connected=True
            ).first()
            if address is None or row is None:
                raise click.ClickException("This contact can't be simulated on this channel.")
            try:
                return await channels.contact_writes(row.id, address.address, text)
            except IntegrationError as error:
                raise click.ClickException(f"Is the server running on {settings.base_url}? ({error.reason})") from None

    click.echo(_run(work()))


if __name__ == "__main__":
    cli()
