"""Connected processors and channels: their rows, their credentials, their live provider objects. What they are used for stands elsewhere.

Provider objects are cached per row and version; a changed row gets a new one, and the old one is closed when the process stops,
because another task may still be using it.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from integrations import registry
from integrations.base import Channel, ChannelKind, Environment, IntegrationError, Processor
from integrations.registry import UnknownProvider
from models import database, vault
from models.errors import Invalid, NotFound, ProcessorRejected, ProcessorUnavailable, Refusal
from models.ids import public_id, uuid7
from models.tables import Account, ChannelConnection, ProcessorConnection
from services import audit, text
from services.actors import Actor

log = structlog.get_logger(__name__)

NAME_LIMIT: Final = 120
SECRET_LIMIT: Final = 1000
# Ours, without a vendor: their keys are made here, and a setting may close them.
SELF_ISSUED: Final = frozenset({"sandbox", "simulated"})
KINDS: Final = {"sandbox": "SANDBOX", "stripe": "STRIPE", "paypal": "PAYPAL", "square": "SQUARE"}

_environment: Environment | None = None
_sandbox_open = False
_processors: dict[UUID, tuple[int, Processor]] = {}
_channels: dict[UUID, tuple[int, Channel]] = {}
_replaced: list[Processor | Channel] = []


def configure(environment: Environment, *, sandbox_open: bool) -> None:
    """Set where providers run, and whether the sandbox and the simulator may be used. Call at start."""
    global _environment, _sandbox_open
    _environment, _sandbox_open = environment, sandbox_open
    _processors.clear()
    _channels.clear()
    _replaced.clear()


async def aclose() -> None:
    """Close every provider's HTTP clients. Call at stop, after the last job."""
    opened: list[Processor | Channel] = [
        *(entry[1] for entry in _processors.values()),
        *(entry[1] for entry in _channels.values()),
        *_replaced,
    ]
    _processors.clear()
    _channels.clear()
    _replaced.clear()
    for provider in opened:
        await provider.aclose()


def environment() -> Environment:
    """Where providers run, as `configure` was told."""
    if _environment is None:
        raise RuntimeError("call connections.configure first")
    return _environment


# --------------------------------------------------------------------------------------------------------------- rows
async def processor_connection(connection_id: UUID, account_id: UUID | None = None) -> ProcessorConnection:
    """The row, connected or not. Without `account_id` only for webhooks and jobs, whose id is ours. Raises: NotFound."""
    scope: dict[str, Any] = {} if account_id is None else {"account_id": account_id}
    row = await ProcessorConnection.get_or_none(id=connection_id, **scope)
    if row is None:
        raise NotFound
    return row


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
    """The account's default among its connected processors, else the oldest; the sandbox counts only where it is open."""
    rows = await ProcessorConnection.filter(account_id=account_id, connected=True).order_by("-is_default", "id")
    return next((row for row in rows if usable(row)), None)


def usable(row: ProcessorConnection | ChannelConnection) -> bool:
    """Whether the row is connected, and allowed by the settings of this process."""
    return row.connected and allowed(row)


def allowed(row: ProcessorConnection | ChannelConnection) -> bool:
    """Whether this process's settings allow the provider: sandbox and simulator may be closed."""
    name = row.processor if isinstance(row, ProcessorConnection) else row.provider
    return _sandbox_open or name not in SELF_ISSUED


def processor_kind(row: ProcessorConnection) -> str:
    """SANDBOX, STRIPE, PAYPAL, SQUARE or CUSTOM (a plug-in)."""
    return KINDS.get(row.processor, "CUSTOM")


def webhook_url(row: ProcessorConnection) -> str:
    """Where this processor sends its events."""
    return f"{environment().public_url}/webhooks/{row.processor}/{public_id('prc', row.id)}"


def inbound_url(row: ChannelConnection) -> str:
    """Where this channel's provider sends statuses and inbound messages."""
    return f"{environment().public_url}/inbound/{row.provider}/{public_id('chn', row.id)}"


def credentials_of(row: ProcessorConnection | ChannelConnection) -> dict[str, str]:
    """The decrypted credentials. Raises: VaultError."""
    found: dict[str, str] = orjson.loads(vault.unseal(row.account_id, row.credentials))
    return found


def _sealed(account_id: UUID, credentials: Mapping[str, str]) -> str:
    return vault.seal(account_id, orjson.dumps(dict(credentials)).decode())


# ---------------------------------------------------------------------------------------------------- provider objects
def processor(row: ProcessorConnection) -> Processor:
    """The live processor of a row. Raises: ProcessorUnavailable (closed by the settings, no such plug-in), VaultError."""
    if row.processor in SELF_ISSUED and not _sandbox_open:
        raise ProcessorUnavailable("The sandbox is closed here.")
    known = _processors.get(row.id)
    if known is not None and known[0] == row.version:
        return known[1]
    try:
        made = _make_processor(row.processor, credentials_of(row), webhook_url(row))
    except (UnknownProvider, IntegrationError) as error:
        raise ProcessorUnavailable("The connection of this processor is not complete.") from error
    if known is not None:
        _replaced.append(known[1])
    _processors[row.id] = (row.version, made)
    return made


def channel(row: ChannelConnection) -> Channel:
    """The live channel of a row. Raises: IntegrationError (incomplete), UnknownProvider, VaultError."""
    known = _channels.get(row.id)
    if known is not None and known[0] == row.version:
        return known[1]
    made = _make_channel(row.provider, row.kind, credentials_of(row))
    if known is not None:
        _replaced.append(known[1])
    _channels[row.id] = (row.version, made)
    return made


def _make_processor(name: str, credentials: Mapping[str, str], url: str) -> Processor:
    cls: Any = registry.processor_class(name)
    made: Processor = cls(registry.read_credentials(cls, credentials), environment=environment(), webhook_url=url)
    return made


def _make_channel(name: str, kind: str, credentials: Mapping[str, str]) -> Channel:
    cls: Any = registry.channel_class(name)
    made: Channel = cls(registry.read_credentials(cls, credentials), kind=ChannelKind(kind), environment=environment())
    return made


# ----------------------------------------------------------------------------------------------- configure a processor
async def configure_processor(
    actor: Actor,
    *,
    processor: str,
    connection_id: UUID | None = None,
    display_name: str | None = None,
    test_mode: bool | None = None,
    secret_key: str | None = None,
    webhook_secret: str | None = None,
    make_default: bool | None = None,
) -> ProcessorConnection:
    """Connect a processor or change its connection; None leaves a value. `processor` is the provider's name ("stripe").

    The vendor is asked with the new key before anything is stored. Without `connection_id` the connection of the same processor and
    mode is meant, if the key belongs to the same vendor account; another vendor account makes another connection, because the
    open checkouts of the old one can be read with its key only.
    Raises: Forbidden, NotFound, Invalid, ProcessorRejected, ProcessorUnavailable.
    """
    actor.require("settings")
    if processor not in registry.processor_names():
        raise Invalid("This processor is not installed.", field="kind")
    if processor in SELF_ISSUED and not _sandbox_open:
        raise Invalid("The sandbox is closed here; connect a real processor.", field="kind")
    cls = registry.processor_class(processor)
    name = text.optional(display_name, limit=NAME_LIMIT, field="displayName")
    key = text.optional(secret_key, limit=SECRET_LIMIT, field="secretKey")
    signing = text.optional(webhook_secret, limit=SECRET_LIMIT, field="webhookSecret")
    mode = _mode(processor, key, test_mode)
    row = await _existing(actor.account_id, processor, connection_id, mode)
    if row is not None and mode is not None and row.test_mode != mode:
        raise Invalid("A connection keeps its mode; connect the other mode beside it.", field="testMode")

    credentials = credentials_of(row) if row is not None else {}
    fields = [f.name for f in dataclasses.fields(cls.credentials)]
    for field, api_field, value in (("secret_key", "secretKey", key), ("webhook_secret", "webhookSecret", signing)):
        if value is not None and field not in fields:
            raise Invalid("This processor has no such secret.", field=api_field)
        if value is not None:
            credentials[field] = value
    if processor in SELF_ISSUED:
        credentials = _issue(processor, fields, credentials)
    new_id = uuid7()
    url = f"{environment().public_url}/webhooks/{processor}/{public_id('prc', row.id if row is not None else new_id)}"
    vendor_account = row.vendor_account if row is not None else None
    if row is None or not row.connected or key is not None:
        vendor_account = await _checked(processor, credentials, url)
        if row is not None and row.vendor_account not in (None, vendor_account):
            if connection_id is not None:
                raise ProcessorRejected("This key belongs to another vendor account.", field="secretKey")
            row = None
    elif signing is not None:
        _complete(processor, credentials, url)

    async with database.transaction():
        await Account.filter(id=actor.account_id).select_for_update(no_key=True).get()  # serialises who is the default
        defaults = ProcessorConnection.filter(account_id=actor.account_id, is_default=True, connected=True)
        is_default = bool(make_default) or not await defaults.exclude(id=row.id if row is not None else new_id).exists()
        if row is not None and make_default is None:
            is_default = is_default or row.is_default
        if is_default:
            await defaults.exclude(id=row.id if row is not None else new_id).update(is_default=False)
        values: dict[str, Any] = {
            "credentials": _sealed(actor.account_id, credentials),
            "key_hint": _hint(credentials),
            "vendor_account": vendor_account,
            "connected": True,
            "is_default": is_default,
            "last_error": None,
        }
        if row is None:
            made = await ProcessorConnection.create(
                id=new_id,
                account_id=actor.account_id,
                processor=processor,
                display_name=name or cls.display_name,
                test_mode=mode if mode is not None else processor in SELF_ISSUED,
                **values,
            )
        else:
            await ProcessorConnection.filter(id=row.id).update(
                display_name=name or row.display_name, version=row.version + 1, **values
            )
            made = await ProcessorConnection.get(id=row.id)
        changed = [n for n, v in (("secret_key", key), ("webhook_secret", signing), ("display_name", name)) if v]
        await audit.record(
            actor,
            "processor.configured",
            public_id("prc", made.id),
            {"processor": processor, "test_mode": made.test_mode, "default": made.is_default, "changed": changed},
        )
    return made


def _mode(processor: str, key: str | None, wanted: bool | None) -> bool | None:
    """Test (True) or live, from what was said and what the key says of itself; None: nothing was said."""
    if processor in SELF_ISSUED:
        if wanted is False:
            raise Invalid("The sandbox has no live mode.", field="testMode")
        return True
    said = True if key and "_test_" in key else False if key and "_live_" in key else None
    if said is not None and wanted is not None and said != wanted:
        raise Invalid("This key belongs to the other mode.", field="testMode")
    return said if said is not None else wanted


async def _existing(
    account_id: UUID, processor: str, connection_id: UUID | None, mode: bool | None
) -> ProcessorConnection | None:
    if connection_id is not None:
        row = await processor_connection(connection_id, account_id)
        if row.processor != processor:
            raise NotFound(field="connectionId")
        return row
    found = ProcessorConnection.filter(account_id=account_id, processor=processor)
    if mode is not None:
        found = found.filter(test_mode=mode)
    return await found.order_by("-connected", "-is_default", "id").first()


def _issue(provider: str, fields: list[str], known: Mapping[str, str]) -> dict[str, str]:
    """Keys of a provider of ours, made where there are none."""
    return {name: known.get(name) or f"{provider}_{name}_{secrets.token_urlsafe(24)}" for name in fields}


def _complete(processor: str, credentials: Mapping[str, str], url: str) -> Processor:
    try:
        return _make_processor(processor, credentials, url)
    except IntegrationError as error:
        raise Invalid("A secret of this processor is missing.", field="secretKey") from error


async def _checked(processor: str, credentials: Mapping[str, str], url: str) -> str | None:
    """Ask the vendor whose key it is. Raises: Invalid, ProcessorRejected, ProcessorUnavailable."""
    probe = _complete(processor, credentials, url)
    try:
        return await probe.check()
    except IntegrationError as error:
        log.warning("processor_check_failed", provider=error.provider, reason=error.reason)
        refusal: Refusal = (
            ProcessorUnavailable(field="secretKey")
            if error.retryable or error.ambiguous
            else ProcessorRejected("The processor does not accept this key.", field="secretKey")
        )
        raise refusal from error
    finally:
        await probe.aclose()


def _hint(credentials: Mapping[str, str]) -> str | None:
    """A masked key, such as sk_…4242: its last four characters, if it is long enough to keep a secret."""
    key = credentials.get("secret_key") or credentials.get("api_key") or ""
    if len(key) < 16:
        return None
    head = key.partition("_")[0]
    return f"{head}_…{key[-4:]}" if "_" in key and len(head) <= 8 else f"…{key[-4:]}"


async def disconnect_processor(actor: Actor, connection_id: UUID) -> ProcessorConnection:
    """Offer it no more. Its credentials stay: money that is still under way must be verified and read. Safe to repeat.

    The default passes to the oldest that is left. Raises: Forbidden, NotFound.
    """
    actor.require("settings")
    async with database.transaction():
        await Account.filter(id=actor.account_id).select_for_update(no_key=True).get()
        row = await processor_connection(connection_id, actor.account_id)
        if row.connected:
            await ProcessorConnection.filter(id=row.id).update(
                connected=False, is_default=False, version=row.version + 1
            )
            if row.is_default:
                heir = (
                    await ProcessorConnection.filter(account_id=actor.account_id, connected=True).order_by("id").first()
                )
                if heir is not None:
                    await ProcessorConnection.filter(id=heir.id).update(is_default=True)
            await audit.record(actor, "processor.disconnected", public_id("prc", row.id))
        return await processor_connection(connection_id, actor.account_id)


# --------------------------------------------------------------------------------------------------- connect a channel
async def connect_channel(
    actor: Actor,
    *,
    kind: str,
    provider: str,
    connection_id: UUID | None = None,
    display_name: str | None = None,
    sender: str | None = None,
    credentials: Mapping[str, str] | None = None,
) -> ChannelConnection:
    """Connect a channel, or change its connection. New credentials replace single fields of the old.

    The vendor is asked before anything is stored. Raises: Forbidden, NotFound, Invalid.
    """
    actor.require("settings")
    if provider not in registry.channel_names():
        raise Invalid("This provider is not installed.", field="provider")
    if provider in SELF_ISSUED and not _sandbox_open:
        raise Invalid("The simulator is closed here; connect a real provider.", field="provider")
    cls = registry.channel_class(provider)
    if kind not in {k.value for k in cls.kinds}:
        raise Invalid("This provider does not serve this kind of channel.", field="kind")
    name = text.optional(display_name, limit=NAME_LIMIT, field="displayName")
    address = text.optional(sender, limit=254, field="sender")
    row = await channel_connection(connection_id, actor.account_id) if connection_id is not None else None
    if row is not None and (row.provider != provider or row.kind != kind):
        raise NotFound(field="connectionId")
    merged = credentials_of(row) if row is not None else {}
    for field, value in (credentials or {}).items():
        merged[field] = text.optional(value, limit=SECRET_LIMIT, field="credentials") or ""
    if provider in SELF_ISSUED:
        merged = _issue(provider, [f.name for f in dataclasses.fields(cls.credentials)], merged)
    await _check_channel(provider, kind, merged)
    async with database.transaction():
        sealed = _sealed(actor.account_id, merged)
        if row is None:
            made = await ChannelConnection.create(
                id=uuid7(),
                account_id=actor.account_id,
                kind=kind,
                provider=provider,
                display_name=name or cls.display_name,
                sender=address or "",
                credentials=sealed,
            )
        else:
            await ChannelConnection.filter(id=row.id).update(
                display_name=name or row.display_name,
                sender=row.sender if sender is None else address or "",
                credentials=sealed,
                connected=True,
                last_error=None,
                version=row.version + 1,
            )
            made = await ChannelConnection.get(id=row.id)
        await audit.record(
            actor,
            "channel.connected",
            public_id("chn", made.id),
            {"provider": provider, "kind": kind, "changed": sorted(credentials or {})},
        )
    return made


async def _check_channel(provider: str, kind: str, credentials: Mapping[str, str]) -> None:
    try:
        probe = _make_channel(provider, kind, credentials)
    except IntegrationError as error:
        raise Invalid(error.message or "The credentials are not complete.", field="credentials") from error
    try:
        await probe.check()
    except IntegrationError as error:
        log.warning("channel_check_failed", provider=error.provider, reason=error.reason)
        waits = error.retryable or error.ambiguous
        raise Invalid(
            "The provider does not answer at the moment; try again."
            if waits
            else "The provider refuses these credentials.",
            field="credentials",
        ) from error
    finally:
        await probe.aclose()


async def disconnect_channel(actor: Actor, connection_id: UUID) -> ChannelConnection:
    """Send nothing more through it; what still comes in (a STOP, a status) is taken. Safe to repeat. Raises: Forbidden, NotFound."""
    actor.require("settings")
    async with database.transaction():
        row = await channel_connection(connection_id, actor.account_id)
        if row.connected:
            await ChannelConnection.filter(id=row.id).update(connected=False, version=row.version + 1)
            await audit.record(actor, "channel.disconnected", public_id("chn", row.id))
        return await channel_connection(connection_id, actor.account_id)
