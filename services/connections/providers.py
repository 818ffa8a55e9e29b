"""Connected processors and channels: rows, credentials, live provider objects.

`processor_settings.py` and `channel_settings.py` change them.

Provider objects are cached by the sealed credentials of their row. Changed credentials get a new object, and the old one is closed
when the process stops, because another task may still be using it.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import structlog
from tortoise.expressions import F, Q

from integrations import registry
from integrations.base import Channel, ChannelKind, Environment, IntegrationError, Processor
from integrations.channels import web_chat
from integrations.registry import UnknownProvider
from models import database, vault
from models.errors import NotFound, ProcessorUnavailable
from models.ids import public_id
from models.tables import Account, ChannelConnection, ProcessorConnection
from services.core.configuration import Derived, current

log = structlog.get_logger(__name__)

ERROR_LIMIT: Final = 300
# Stand-ins for vendors, closed by a setting. Their keys are made here.
CALL_LASTS: Final = timedelta(seconds=30)  # a call to a vendor, at most, with what it waits for
STAND_INS: Final = frozenset({"sandbox", "simulated"})
# Without a vendor, so that their keys are made here.
SELF_ISSUED: Final = STAND_INS | {web_chat.NAME}
KINDS: Final = {"sandbox": "SANDBOX", "stripe": "STRIPE", "paypal": "PAYPAL", "square": "SQUARE"}
UNREADABLE: Final = (
    "The stored credentials can't be decrypted: give them again, or put their key back into SECRET_KEYS."
)
# Any processor's reason to refuse -> the credential that it is about (None: which one it does not say), and what to do.
# Those of one processor only are its own `advice`.
ADVICE: Final[Mapping[str, tuple[str | None, str]]] = {
    "authentication_failed": (
        None,
        "{name} does not accept these credentials{mode}: copy them again, and see that all are of one application and mode.",
    ),
    "permission_denied": (
        None,
        "{name} accepts these credentials but they lack a permission: see docs/howto/connect-processors.md for those needed.",
    ),
    "access_revoked": (
        "account",
        "{name} does not let these credentials act for this account{mode}: its owner has to allow it again.",
    ),
    "account_restricted": (
        None,
        "Your account at {name} may not take payments at the moment{mode}: see what is asked of you there.",
    ),
    "not_found": (None, "{name} does not know what these credentials name{mode}: copy them again."),
}
# Reasons that concern the credentials, or the account behind them.
REFUSED: Final = frozenset({"authentication_failed", "access_revoked", "permission_denied", "account_restricted"})


class Live:
    """The provider objects of one environment, by connection, each with the `cache_key` that it was made for."""

    def __init__(self, environment: Environment) -> None:
        self.processors: dict[UUID, tuple[str, Processor]] = {}
        self.channels: dict[UUID, tuple[str, Channel]] = {}
        self.replaced: list[Processor | Channel] = []


live = Derived(lambda c: c.environment, Live)


async def aclose() -> None:
    """Close every provider's HTTP clients. Call at stop, after the last job."""
    made = live.existing()
    if made is None:
        return
    opened: list[Processor | Channel] = [
        *(entry[1] for entry in made.processors.values()),
        *(entry[1] for entry in made.channels.values()),
        *made.replaced,
    ]
    made.processors.clear()
    made.channels.clear()
    made.replaced.clear()
    for provider in opened:
        await provider.aclose()


# --------------------------------------------------------------------------------------------------------------- rows
async def processor_connection(connection_id: UUID, account_id: UUID | None = None) -> ProcessorConnection:
    """The row, connected or not. Without `account_id` only for webhooks and jobs, whose id is ours. Raises: NotFound."""
    scope: dict[str, Any] = {} if account_id is None else {"account_id": account_id}
    row = await ProcessorConnection.get_or_none(id=connection_id, **scope)
    if row is None:
        raise NotFound
    return row


async def lock_processor(account_id: UUID, connection_id: UUID) -> ProcessorConnection | None:
    """Lock the account, then the connection; every change of processor connections locks in this order."""
    await Account.filter(id=account_id).select_for_update(no_key=True).get()
    rows = ProcessorConnection.filter(id=connection_id, account_id=account_id)
    return await rows.select_for_update(no_key=True).get_or_none()


async def channel_connection(connection_id: UUID, account_id: UUID | None = None) -> ChannelConnection:
    """The row, connected or not. Without `account_id` only for webhooks and jobs, whose id is ours. Raises: NotFound."""
    scope: dict[str, Any] = {} if account_id is None else {"account_id": account_id}
    row = await ChannelConnection.get_or_none(id=connection_id, **scope)
    if row is None:
        raise NotFound(field="channelId")
    return row


async def beside(row: ChannelConnection, vendor_account: str) -> ChannelConnection | None:
    """The same account's connection of this provider and kind to another account at the vendor: the newest, connected before not.

    The vendor's account stands in the credentials, as `account_id`.
    """
    rows = ChannelConnection.filter(account_id=row.account_id, provider=row.provider, kind=row.kind)
    for other in await rows.exclude(id=row.id).order_by("-connected", "-id"):
        try:
            held = credentials_of(other).get("account_id")
        except vault.VaultError:
            continue
        if held == vendor_account:
            return other
    return None


async def default_processor(account_id: UUID) -> ProcessorConnection | None:
    """What a new request uses unless it names another; None: there is none, or one has to be chosen. See `first_choice`."""
    return first_choice(await ProcessorConnection.filter(account_id=account_id))


async def can_ask(account_id: UUID, *, named: Collection[UUID] = ()) -> bool:
    """Whether money can be asked for now: there is a default, or what was `named` in its place can be used."""
    return askable(await ProcessorConnection.filter(account_id=account_id), named)


async def ended(account_id: UUID) -> ProcessorConnection | None:
    """Of the connections that are offered no more because of an error, the newest."""
    lost = ProcessorConnection.filter(account_id=account_id, connected=False, last_error__not_isnull=True)
    return await lost.order_by("-id").first()


def askable(rows: Sequence[ProcessorConnection], named: Collection[UUID] = ()) -> bool:
    """`can_ask`, of all connections of an account."""
    chosen = [row for row in rows if row.id in named]
    return first_choice(rows) is not None or (bool(chosen) and all(_ready(row) for row in chosen))


def first_choice(rows: Sequence[ProcessorConnection]) -> ProcessorConnection | None:
    """Of an account's connections, disconnected ones too: the default if it can be used now, else the oldest that can.

    Where there has ever been a live one, a test connection counts only if it was made the default: nobody shall ask for test
    money unawares because a live connection is gone, or can't be used at the moment.
    """
    only_test = all(row.test_mode for row in rows)
    offered = [row for row in rows if row.is_default or only_test or not row.test_mode]
    return next((row for row in sorted(offered, key=lambda row: (not row.is_default, row.id)) if _ready(row)), None)


def _ready(row: ProcessorConnection) -> bool:
    """Whether the row is usable, and its live processor can be made: its plug-in is installed, its credentials are readable."""
    if not usable(row):
        return False
    try:
        processor(row)
    except ProcessorUnavailable:
        return False
    return True


def usable(row: ProcessorConnection | ChannelConnection) -> bool:
    """Whether the row is connected, and allowed by the settings of this process."""
    return row.connected and allowed(row)


def allowed(row: ProcessorConnection | ChannelConnection) -> bool:
    """Whether this process's settings allow the provider: sandbox and simulator may be closed."""
    name = row.processor if isinstance(row, ProcessorConnection) else row.provider
    return current().sandbox_open or name not in STAND_INS


def processor_kind(row: ProcessorConnection) -> str:
    """SANDBOX, STRIPE, PAYPAL, SQUARE or CUSTOM (a plug-in)."""
    return KINDS.get(row.processor, "CUSTOM")


def webhook_url(row: ProcessorConnection) -> str:
    """Where this processor sends its events."""
    return webhook_address(row.processor, row.id)


def inbound_url(row: ChannelConnection) -> str:
    """Where this channel's provider sends statuses and inbound messages."""
    return f"{current().environment.public_url}/inbound/{row.provider}/{public_id('chn', row.id)}"


def widget_snippet(row: ChannelConnection) -> str | None:
    """The element that shows this web chat on a page; None for every other channel."""
    if row.provider != web_chat.NAME:
        return None
    return f'<script async src="{current().environment.public_url}/widget.js" data-key="{public_id("chn", row.id)}"></script>'


def credentials_of(row: ProcessorConnection | ChannelConnection) -> dict[str, str]:
    """The decrypted credentials. Raises: VaultError."""
    found: dict[str, str] = orjson.loads(vault.unseal(row.account_id, row.credentials))
    return found


def readable(row: ProcessorConnection | ChannelConnection | None) -> dict[str, str]:
    """The credentials, as far as there are any that can be decrypted: whose key is lost is given again."""
    try:
        return credentials_of(row) if row is not None else {}
    except vault.VaultError:
        return {}


def same_credentials(
    one: ProcessorConnection | ChannelConnection, other: ProcessorConnection | ChannelConnection
) -> bool:
    """Whether two readings of a row hold the same credentials, perhaps sealed with another key."""
    return one.credentials == other.credentials or (bool(readable(one)) and readable(one) == readable(other))


def sealed(account_id: UUID, credentials: Mapping[str, str]) -> str:
    """Credentials as they are stored."""
    return vault.seal(account_id, orjson.dumps(dict(credentials)).decode())


# ---------------------------------------------------------------------------------------------------- provider objects
def cache_key(row: ProcessorConnection | ChannelConnection) -> str:
    """What the live object of a row depends on: provider, mode and sealed credentials. Versions may be counted twice, these not."""
    if isinstance(row, ProcessorConnection):
        return f"{row.processor}:{row.test_mode}:{row.credentials}"
    return f"{row.provider}:{row.kind}:{row.credentials}"


def processor(row: ProcessorConnection) -> Processor:
    """The live processor of a row. Raises: ProcessorUnavailable (closed by the settings, no such plug-in, unreadable)."""
    if row.processor in STAND_INS and not current().sandbox_open:
        raise ProcessorUnavailable("The sandbox is closed here.")
    known = live.get().processors.get(row.id)
    if known is not None and known[0] == cache_key(row):
        return known[1]
    try:
        made = make_processor(row.processor, credentials_of(row), webhook_url(row))
    except (UnknownProvider, IntegrationError) as error:
        raise ProcessorUnavailable("The connection of this processor is not complete.") from error
    except vault.VaultError as error:
        log.error("credentials_unreadable", provider=row.processor, connection_id=str(row.id))
        raise ProcessorUnavailable("Its credentials can't be read with this server's SECRET_KEYS.") from error
    if known is not None:
        live.get().replaced.append(known[1])
    live.get().processors[row.id] = (cache_key(row), made)
    return made


def key_life(made: Processor | type[Processor], *, at_most: timedelta) -> timedelta:
    """For how long after its first use a call may be repeated with its idempotency key. Zero: never."""
    declared = made.capabilities.key_life_s
    if declared is None:
        return at_most
    return min(at_most, max(timedelta(0), timedelta(seconds=declared) - CALL_LASTS))


def channel(row: ChannelConnection) -> Channel:
    """The live channel of a row. Raises: IntegrationError (incomplete), UnknownProvider, VaultError."""
    known = live.get().channels.get(row.id)
    if known is not None and known[0] == cache_key(row):
        return known[1]
    made = make_channel(row.provider, row.kind, credentials_of(row))
    if known is not None:
        live.get().replaced.append(known[1])
    live.get().channels[row.id] = (cache_key(row), made)
    return made


def usable_channel(row: ChannelConnection) -> Channel | None:
    """As `channel`; None, with a log line, if it can't be used: an unknown provider, credentials incomplete or not readable."""
    try:
        return channel(row)
    except (UnknownProvider, IntegrationError, vault.VaultError, ValueError) as error:
        log.error("channel_unavailable", connection=str(row.id), error=type(error).__name__)
        return None


async def note_channel(row: ChannelConnection, problem: str | None) -> None:
    """Keep what last went wrong on a channel, for Settings → Channels; None: it works. Safe to repeat.

    `row` is as it was read before the call: nothing is noted about credentials that were replaced since, and None clears only what
    was known then.
    """
    kept = problem[:ERROR_LIMIT] if problem else None
    if row.last_error == kept:
        return
    current = ChannelConnection.filter(id=row.id, credentials=row.credentials)
    if kept is None:
        current = current.filter(last_error=row.last_error)
    await current.update(last_error=kept)


async def note_webhook(row: ProcessorConnection | ChannelConnection, now: datetime) -> None:
    """Note when a webhook came last; not while somebody else holds the row: the webhook must not wait for its settings."""
    table = row._meta.db_table
    free = "FOR NO KEY UPDATE SKIP LOCKED" if database.dialect() == "postgres" else ""
    await database.execute(
        f"UPDATE {table} SET last_webhook_at = ? WHERE id IN (SELECT id FROM {table} WHERE id = ? {free})",  # noqa: S608 (only constants are put in)
        now,
        row.id,
    )


async def note_processor(row: ProcessorConnection, problem: str) -> bool:
    """Keep what went wrong with a processor, unless its credentials were replaced since `row` was read; whether that is news."""
    kept = problem[:ERROR_LIMIT]
    if row.last_error == kept:
        return False
    current = ProcessorConnection.filter(
        Q(last_error=None) | ~Q(last_error=kept), id=row.id, credentials=row.credentials
    )
    return bool(await current.update(last_error=kept))


async def note_working(row: ProcessorConnection) -> bool:
    """The vendor has answered as it should: forget what went wrong before; whether there was something.

    Not what no such answer mends: a permission that is missing for other calls, and webhooks that can't arrive. `row` is as it was
    read before the call, so that what has gone wrong since stays.
    """
    if row.last_error is None or row.last_error == advice(row, "permission_denied"):
        return False
    left = webhook_problem(row)
    if left == row.last_error:
        return False
    return bool(await ProcessorConnection.filter(id=row.id, last_error=row.last_error).update(last_error=left))


async def put_away(row: ProcessorConnection, *, last_error: str | None = None) -> None:
    """Offer a connection no more; the default passes on. The account's row is locked by the caller.

    The heir is the oldest that is left, of the same mode if there is one; never a test one of a live one: nobody shall ask for test
    money unawares.
    """
    said = {"last_error": last_error} if last_error is not None else {}
    await ProcessorConnection.filter(id=row.id).update(
        connected=False, is_default=False, version=F("version") + 1, **said
    )
    if not row.is_default:
        return
    others = await ProcessorConnection.filter(account_id=row.account_id, connected=True).order_by("id")
    heirs = [one for one in others if row.test_mode or not one.test_mode]
    heir = min(heirs, key=lambda one: (not allowed(one), one.test_mode != row.test_mode), default=None)
    if heir is not None:
        await ProcessorConnection.filter(id=heir.id).update(is_default=True)


def webhook_problem(row: ProcessorConnection) -> str | None:
    """Why a connected processor's webhooks can't arrive: nobody has told the vendor where to. None: they can, or did once."""
    cls = registry.processor_class(row.processor)
    url = webhook_url(row)
    told = row.webhook_registered or row.last_webhook_at is not None or not row.connected
    registers = cls.register_webhook is not Processor.register_webhook and url.startswith("https://")
    if told or not registers or any(readable(row).get(field) for field in webhook_secret_fields(cls)):
        return None
    return (
        f"{cls.display_name} does not know where to send webhooks: add {url} there and give its secret here, or give the"
        " credentials again to have it added. Until then payments are noticed late."
    )[:ERROR_LIMIT]


def advice_of(cls: type[Processor], reason: str) -> tuple[str | None, str]:
    """The credential that a refusal is about, where that is known, and what to do, with {name}, {mode}, {reason} and {url}."""
    known: Mapping[str, tuple[str | None, str]] = {**ADVICE, **cls.advice}
    return known.get(reason, (None, "{name} refuses these credentials ({reason})."))


def advice(row: ProcessorConnection, reason: str) -> str:
    """What the team reads of a refusal for a reason of ADVICE, as `last_error`."""
    return ADVICE[reason][1].format(name=processor_name(row), mode="")[:ERROR_LIMIT]


def processor_name(row: ProcessorConnection) -> str:
    """The vendor's name; the connection's own while its provider is not installed."""
    try:
        return registry.processor_class(row.processor).display_name
    except UnknownProvider:
        return row.display_name


def make_processor(name: str, credentials: Mapping[str, str], url: str) -> Processor:
    """A processor with these credentials, which the caller closes. Raises: UnknownProvider, IntegrationError (incomplete)."""
    cls: Any = registry.processor_class(name)
    made: Processor = cls(
        registry.read_credentials(cls, credentials), environment=current().environment, webhook_url=url
    )
    return made


def make_channel(name: str, kind: str, credentials: Mapping[str, str]) -> Channel:
    """A channel with these credentials, which the caller closes. Raises: UnknownProvider, IntegrationError (incomplete)."""
    cls: Any = registry.channel_class(name)
    made: Channel = cls(
        registry.read_credentials(cls, credentials), kind=ChannelKind(kind), environment=current().environment
    )
    return made


def webhook_address(processor: str, connection_id: UUID) -> str:
    """Where the events of a connection arrive: known before its row is."""
    return f"{current().environment.public_url}/webhooks/{processor}/{public_id('prc', connection_id)}"


def issued_keys(provider: str, fields: list[str], known: Mapping[str, str]) -> dict[str, str]:
    """Keys of a provider of ours, made where there are none."""
    return {name: known.get(name) or f"{provider}_{name}_{secrets.token_urlsafe(24)}" for name in fields}


# --------------------------------------------------------------------------------------- a processor's credential fields
def secret_fields(cls: type[Processor]) -> list[str]:
    """The credentials that no `repr` shows."""
    return [f.name for f in dataclasses.fields(cls.credentials) if not f.repr]


def webhook_secret_fields(cls: type[Processor]) -> list[str]:
    """The credentials that verify webhooks: secrets whose names begin with `webhook`."""
    return [name for name in secret_fields(cls) if name.startswith("webhook")]
