"""Rows, credentials and cached objects of connected providers."""

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
from models import database, rows, vault
from models.errors import NotFound, ProcessorUnavailable
from models.ids import public_id
from models.tables import Account, ChannelConnection, ProcessorConnection
from services.core.configuration import Derived, current

log = structlog.get_logger(__name__)

ERROR_LIMIT: Final = 300
CALL_LASTS: Final = timedelta(seconds=30)  # a call to a vendor, at most, including waits
# Simulated vendors, closed by a setting.
STAND_INS: Final = frozenset({"sandbox", "simulated"})
# Without a vendor: their keys are generated here.
SELF_ISSUED: Final = STAND_INS | {web_chat.NAME}
KINDS: Final = {"sandbox": "SANDBOX", "stripe": "STRIPE", "paypal": "PAYPAL", "square": "SQUARE"}
UNREADABLE: Final = "The stored credentials can't be decrypted: enter them again, or restore their key in SECRET_KEYS."
# Reason of a refusal -> the credential that it is about (None: unknown), and what to do. For every processor; a processor's own
# reasons are in its `advice`. Those of REFUSED are stored and compared as `last_error`: rows of older releases hold the old text.
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
    "not_found": (None, "{name} found no account for these credentials{mode}. Copy them again."),
}
# Reasons that concern the credentials, or the account behind them.
REFUSED: Final = frozenset({"authentication_failed", "access_revoked", "permission_denied", "account_restricted"})


class Live:
    def __init__(self, environment: Environment) -> None:
        self.processors: dict[UUID, tuple[str, Processor]] = {}
        self.channels: dict[UUID, tuple[str, Channel]] = {}
        self.replaced: list[Processor | Channel] = []  # closed at stop: another task may still use them


live = Derived(lambda c: c.environment, Live)


async def aclose() -> None:
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
    """Omit `account_id` in webhooks and jobs only. Raises: NotFound."""
    row = await rows.first(ProcessorConnection, "WHERE id = ?", connection_id)
    if row is None or account_id not in (None, row.account_id):
        raise NotFound
    await registry.load("processors", row.processor)
    return row


async def lock_processor(account_id: UUID, connection_id: UUID) -> ProcessorConnection | None:
    """Lock the account, then the connection."""
    await Account.filter(id=account_id).select_for_update(no_key=True).get()
    rows = ProcessorConnection.filter(id=connection_id, account_id=account_id)
    return await rows.select_for_update(no_key=True).get_or_none()


async def channel_connection(connection_id: UUID, account_id: UUID | None = None) -> ChannelConnection:
    row = await rows.first(ChannelConnection, "WHERE id = ?", connection_id)
    if row is None or account_id not in (None, row.account_id):
        raise NotFound(field="channelId")
    await registry.load("channels", row.provider)
    return row


async def load_connected() -> None:
    """Import the providers of all connections."""
    for name in await ProcessorConnection.filter(connected=True).distinct().values_list("processor", flat=True):
        await registry.load("processors", str(name))
    for name in await ChannelConnection.filter(connected=True).distinct().values_list("provider", flat=True):
        await registry.load("channels", str(name))


async def connection_to(row: ChannelConnection, vendor_account: str) -> ChannelConnection | None:
    """Another connection to this vendor account, preferably connected."""
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
    return first_choice(await rows.find(ProcessorConnection, "WHERE account_id = ?", account_id))


async def can_ask(account_id: UUID, *, named: Collection[UUID] = ()) -> bool:
    return can_ask_with(await rows.find(ProcessorConnection, "WHERE account_id = ?", account_id), named)


async def ended(account_id: UUID) -> ProcessorConnection | None:
    lost = ProcessorConnection.filter(account_id=account_id, connected=False, last_error__not_isnull=True)
    return await lost.order_by("-id").first()


def can_ask_with(connections: Sequence[ProcessorConnection], named: Collection[UUID] = ()) -> bool:
    chosen = [row for row in connections if row.id in named]
    return first_choice(connections) is not None or (bool(chosen) and all(_ready(row) for row in chosen))


def first_choice(connections: Sequence[ProcessorConnection]) -> ProcessorConnection | None:
    """The ready default, else the oldest ready one. After a live one, a test one must be the default."""
    only_test = all(row.test_mode for row in connections)
    offered = [row for row in connections if row.is_default or only_test or not row.test_mode]
    return next((row for row in sorted(offered, key=lambda row: (not row.is_default, row.id)) if _ready(row)), None)


def _ready(row: ProcessorConnection) -> bool:
    if not usable(row):
        return False
    try:
        processor(row)
    except ProcessorUnavailable:
        return False
    return True


def usable(row: ProcessorConnection | ChannelConnection) -> bool:
    return row.connected and allowed(row)


def allowed(row: ProcessorConnection | ChannelConnection) -> bool:
    name = row.processor if isinstance(row, ProcessorConnection) else row.provider
    return current().sandbox_open or name not in STAND_INS


def processor_kind(row: ProcessorConnection) -> str:
    return kind_of(row.processor)


def kind_of(processor: str) -> str:
    return KINDS.get(processor, "CUSTOM")


def webhook_url(row: ProcessorConnection) -> str:
    return webhook_address(row.processor, row.id)


def inbound_url(row: ChannelConnection) -> str:
    return f"{current().environment.public_url}/inbound/{row.provider}/{public_id('chn', row.id)}"


def widget_snippet(row: ChannelConnection) -> str | None:
    if row.provider != web_chat.NAME:
        return None
    return f'<script async src="{current().environment.public_url}/widget.js" data-key="{public_id("chn", row.id)}"></script>'


def credentials_of(row: ProcessorConnection | ChannelConnection) -> dict[str, str]:
    found: dict[str, str] = orjson.loads(vault.unseal(row.account_id, row.credentials))
    return found


def readable(row: ProcessorConnection | ChannelConnection | None) -> dict[str, str]:
    try:
        return credentials_of(row) if row is not None else {}
    except vault.VaultError:
        return {}


def same_credentials(
    one: ProcessorConnection | ChannelConnection, other: ProcessorConnection | ChannelConnection
) -> bool:
    """Compares the decrypted values."""
    return one.credentials == other.credentials or (bool(readable(one)) and readable(one) == readable(other))


def sealed(account_id: UUID, credentials: Mapping[str, str]) -> str:
    return vault.seal(account_id, orjson.dumps(dict(credentials)).decode())


# ---------------------------------------------------------------------------------------------------- provider objects
def cache_key(row: ProcessorConnection | ChannelConnection) -> str:
    """Sealed credentials never repeat; row versions may."""
    if isinstance(row, ProcessorConnection):
        return f"{row.processor}:{row.test_mode}:{row.credentials}"
    return f"{row.provider}:{row.kind}:{row.credentials}"


def processor(row: ProcessorConnection) -> Processor:
    """Raises: ProcessorUnavailable."""
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
    """How long a call may be repeated with its idempotency key. Zero: never."""
    declared = made.capabilities.key_life_s
    if declared is None:
        return at_most
    return min(at_most, max(timedelta(0), timedelta(seconds=declared) - CALL_LASTS))


def channel(row: ChannelConnection) -> Channel:
    """Raises: IntegrationError, UnknownProvider, VaultError."""
    known = live.get().channels.get(row.id)
    if known is not None and known[0] == cache_key(row):
        return known[1]
    made = make_channel(row.provider, row.kind, credentials_of(row))
    if known is not None:
        live.get().replaced.append(known[1])
    live.get().channels[row.id] = (cache_key(row), made)
    return made


def usable_channel(row: ChannelConnection) -> Channel | None:
    try:
        return channel(row)
    except (UnknownProvider, IntegrationError, vault.VaultError, ValueError) as error:
        log.error("channel_unavailable", connection=str(row.id), error=type(error).__name__)
        return None


async def note_channel(row: ChannelConnection, problem: str | None) -> None:
    """Store a problem; None clears that of `row`. Skipped if credentials changed."""
    kept = problem[:ERROR_LIMIT] if problem else None
    if row.last_error == kept:
        return
    current = ChannelConnection.filter(id=row.id, credentials=row.credentials)
    if kept is None:
        current = current.filter(last_error=row.last_error)
    await current.update(last_error=kept)


async def note_webhook(row: ProcessorConnection | ChannelConnection, now: datetime) -> None:
    """Store when a webhook arrived; skipped while the row is locked."""
    table = row._meta.db_table
    free = "FOR NO KEY UPDATE SKIP LOCKED" if database.dialect() == "postgres" else ""
    await database.execute(
        f"UPDATE {table} SET last_webhook_at = ? WHERE id IN (SELECT id FROM {table} WHERE id = ? {free})",  # noqa: S608 (only constants are put in)
        now,
        row.id,
    )


async def note_processor(row: ProcessorConnection, problem: str) -> bool:
    """Return whether the problem is new. Skipped if credentials changed."""
    kept = problem[:ERROR_LIMIT]
    if row.last_error == kept:
        return False
    current = ProcessorConnection.filter(
        Q(last_error=None) | ~Q(last_error=kept), id=row.id, credentials=row.credentials
    )
    return bool(await current.update(last_error=kept))


async def note_working(row: ProcessorConnection) -> bool:
    """Clear a problem that a successful call disproves; return whether there was one."""
    if row.last_error is None or row.last_error == advice(row, "permission_denied"):
        return False
    left = webhook_problem(row)
    if left == row.last_error:
        return False
    return bool(await ProcessorConnection.filter(id=row.id, last_error=row.last_error).update(last_error=left))


async def end_connection(row: ProcessorConnection, *, last_error: str | None = None) -> None:
    """Disconnect and pass the default on. The caller holds the account's lock."""
    values = {"last_error": last_error} if last_error is not None else {}
    await ProcessorConnection.filter(id=row.id).update(
        connected=False, is_default=False, version=F("version") + 1, **values
    )
    if not row.is_default:
        return
    others = await ProcessorConnection.filter(account_id=row.account_id, connected=True).order_by("id")
    candidates = [one for one in others if row.test_mode or not one.test_mode]
    successor = min(candidates, key=lambda one: (not allowed(one), one.test_mode != row.test_mode), default=None)
    if successor is not None:
        await ProcessorConnection.filter(id=successor.id).update(is_default=True)


def webhook_problem(row: ProcessorConnection) -> str | None:
    """Why webhooks can't arrive, or None."""
    cls = registry.processor_class(row.processor)
    url = webhook_url(row)
    known = row.webhook_registered or row.last_webhook_at is not None or not row.connected
    registers = cls.register_webhook is not Processor.register_webhook and url.startswith("https://")
    if known or not registers or any(readable(row).get(field) for field in webhook_secret_fields(cls)):
        return None
    return (
        f"{cls.display_name} does not know where to send webhooks: add {url} there and enter its secret here, or enter the"
        " credentials again to have it added. Until then payments are noticed late."
    )[:ERROR_LIMIT]


def advice_of(cls: type[Processor], reason: str) -> tuple[str | None, str]:
    """The credential to correct and the advice, with {name}, {mode}, {reason} and {url}."""
    known: Mapping[str, tuple[str | None, str]] = {**ADVICE, **cls.advice}
    return known.get(reason, (None, "{name} refuses these credentials ({reason})."))


def advice(row: ProcessorConnection, reason: str) -> str:
    return ADVICE[reason][1].format(name=processor_name(row), mode="")[:ERROR_LIMIT]


def processor_name(row: ProcessorConnection) -> str:
    try:
        return registry.processor_class(row.processor).display_name
    except UnknownProvider:
        return row.display_name


def make_processor(name: str, credentials: Mapping[str, str], url: str) -> Processor:
    cls: Any = registry.processor_class(name)
    made: Processor = cls(
        registry.read_credentials(cls, credentials), environment=current().environment, webhook_url=url
    )
    return made


def make_channel(name: str, kind: str, credentials: Mapping[str, str]) -> Channel:
    cls: Any = registry.channel_class(name)
    made: Channel = cls(
        registry.read_credentials(cls, credentials), kind=ChannelKind(kind), environment=current().environment
    )
    return made


def webhook_address(processor: str, connection_id: UUID) -> str:
    return f"{current().environment.public_url}/webhooks/{processor}/{public_id('prc', connection_id)}"


def issued_keys(provider: str, fields: list[str], known: Mapping[str, str]) -> dict[str, str]:
    return {name: known.get(name) or f"{provider}_{name}_{secrets.token_urlsafe(24)}" for name in fields}


# --------------------------------------------------------------------------------------- credential fields
def secret_fields(cls: type[Processor]) -> list[str]:
    return [f.name for f in dataclasses.fields(cls.credentials) if not f.repr]


def webhook_secret_fields(cls: type[Processor]) -> list[str]:
    return [name for name in secret_fields(cls) if name.startswith("webhook")]
