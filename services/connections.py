"""Connected processors and channels: their rows, their credentials, their live provider objects. What they are used for stands elsewhere.

Provider objects are cached per row and version; a changed row gets a new one, and the old one is closed when the process stops,
because another task may still be using it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from integrations import registry
from integrations.base import Channel, ChannelKind, Environment, IntegrationError, Processor
from integrations.channels import web_chat
from integrations.registry import UnknownProvider
from models import database, vault
from models.errors import Invalid, NotFound, ProcessorRejected, ProcessorUnavailable, Refusal
from models.ids import public_id, uuid7
from models.tables import Account, ChannelConnection, ProcessorConnection
from services import audit, origins, text
from services.actors import Actor

log = structlog.get_logger(__name__)

NAME_LIMIT: Final = 120
SECRET_LIMIT: Final = 1000
ERROR_LIMIT: Final = 300
MODE: Final = (
    "mode"  # the credential of a provider whose keys don't tell whether they move real money: "test" or "live"
)
# Stand-ins for vendors, closed by a setting. Their keys are made here.
STAND_INS: Final = frozenset({"sandbox", "simulated"})
# Without a vendor, so that their keys are made here.
SELF_ISSUED: Final = STAND_INS | {web_chat.NAME}
KINDS: Final = {"sandbox": "SANDBOX", "stripe": "STRIPE", "paypal": "PAYPAL", "square": "SQUARE"}
UNREADABLE: Final = (
    "The stored credentials can't be decrypted: give them again, or put their key back into SECRET_KEYS."
)
# A processor's reason to refuse -> the credential that it is about (None: which one it does not say), and what to do.
ADVICE: Final[Mapping[str, tuple[str | None, str]]] = {
    "authentication_failed": (
        None,
        "{name} does not accept these credentials{mode}: copy them again, and see that all are of one application and mode.",
    ),
    "permission_denied": (
        None,
        "{name} accepts these credentials but they lack a permission: see docs/howto/connect-processors.md for those needed.",
    ),
    "not_found": (None, "{name} does not know what these credentials name{mode}: copy them again."),
    "webhook_unknown": (
        "webhook_id",
        "{name} has no webhook of this id{mode}: copy the id of the webhook whose address is {url}.",
    ),
    "location_unknown": (
        "location_id",
        "{name} has no active location of this id for this access token{mode}: copy the location's id.",
    ),
    "location_currency_differs": (
        "currency",
        "At {name} this location takes another currency{mode}: give the one that its settings show, or leave it out.",
    ),
}
REFUSED: Final = frozenset({"authentication_failed", "permission_denied"})  # reasons that concern the credentials

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
    """What a new request uses unless it names another; None: there is none, or one has to be chosen. See `first_choice`."""
    return first_choice(await ProcessorConnection.filter(account_id=account_id))


async def can_ask(account_id: UUID, *, named: Collection[UUID] = ()) -> bool:
    """Whether money can be asked for now: there is a default, or what was `named` in its place can be used."""
    rows = await ProcessorConnection.filter(account_id=account_id)
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
    return _sandbox_open or name not in STAND_INS


def processor_kind(row: ProcessorConnection) -> str:
    """SANDBOX, STRIPE, PAYPAL, SQUARE or CUSTOM (a plug-in)."""
    return KINDS.get(row.processor, "CUSTOM")


def webhook_url(row: ProcessorConnection) -> str:
    """Where this processor sends its events."""
    return _address(row.processor, row.id)


def inbound_url(row: ChannelConnection) -> str:
    """Where this channel's provider sends statuses and inbound messages."""
    return f"{environment().public_url}/inbound/{row.provider}/{public_id('chn', row.id)}"


def widget_snippet(row: ChannelConnection) -> str | None:
    """The element that shows this web chat on a page; None for every other channel."""
    if row.provider != web_chat.NAME:
        return None
    return f'<script async src="{environment().public_url}/widget.js" data-key="{public_id("chn", row.id)}"></script>'


def credentials_of(row: ProcessorConnection | ChannelConnection) -> dict[str, str]:
    """The decrypted credentials. Raises: VaultError."""
    found: dict[str, str] = orjson.loads(vault.unseal(row.account_id, row.credentials))
    return found


def _readable(row: ProcessorConnection | ChannelConnection | None) -> dict[str, str]:
    """The credentials, as far as there are any that can be decrypted: whose key is lost is given again."""
    try:
        return credentials_of(row) if row is not None else {}
    except vault.VaultError:
        return {}


def _sealed(account_id: UUID, credentials: Mapping[str, str]) -> str:
    return vault.seal(account_id, orjson.dumps(dict(credentials)).decode())


# ---------------------------------------------------------------------------------------------------- provider objects
def processor(row: ProcessorConnection) -> Processor:
    """The live processor of a row. Raises: ProcessorUnavailable (closed by the settings, no such plug-in, unreadable)."""
    if row.processor in STAND_INS and not _sandbox_open:
        raise ProcessorUnavailable("The sandbox is closed here.")
    known = _processors.get(row.id)
    if known is not None and known[0] == row.version:
        return known[1]
    try:
        made = _make_processor(row.processor, credentials_of(row), webhook_url(row))
    except (UnknownProvider, IntegrationError) as error:
        raise ProcessorUnavailable("The connection of this processor is not complete.") from error
    except vault.VaultError as error:
        log.error("credentials_unreadable", provider=row.processor, connection_id=str(row.id))
        raise ProcessorUnavailable("Its credentials can't be read with this server's SECRET_KEYS.") from error
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


def usable_channel(row: ChannelConnection) -> Channel | None:
    """As `channel`; None, with a log line, if it can't be used: an unknown provider, credentials incomplete or not readable."""
    try:
        return channel(row)
    except (UnknownProvider, IntegrationError, vault.VaultError, ValueError) as error:
        log.error("channel_unavailable", connection=str(row.id), error=type(error).__name__)
        return None


async def note_channel(row: ChannelConnection, problem: str | None) -> None:
    """Keep what last went wrong on a channel, for Settings → Channels; None: it works. Safe to repeat."""
    kept = problem[:ERROR_LIMIT] if problem else None
    if row.last_error != kept:
        await ChannelConnection.filter(id=row.id).update(last_error=kept)


async def note_refused(connection_id: UUID, error: IntegrationError) -> None:
    """Keep for Settings → Payments that a vendor takes the stored credentials no more, until they work again. Safe to repeat."""
    if error.reason not in REFUSED:
        return
    row = await processor_connection(connection_id)
    said = _advice(row, error.reason)
    if row.last_error != said:
        await ProcessorConnection.filter(id=row.id).update(last_error=said)


async def note_working(row: ProcessorConnection) -> None:
    """The vendor has answered as it should: forget what went wrong before. Costs nothing where nothing had.

    Not what no such answer mends: a permission that is missing for other calls, and webhooks that can't arrive. `row` is as it was
    read before the call, so that what has gone wrong since stays.
    """
    if row.last_error is None or row.last_error == _advice(row, "permission_denied"):
        return
    left = webhook_problem(row)
    if left != row.last_error:
        await ProcessorConnection.filter(id=row.id, last_error=row.last_error).update(last_error=left)


def webhook_problem(row: ProcessorConnection) -> str | None:
    """Why a connected processor's webhooks can't arrive: nobody has told the vendor where to. None: they can, or did once."""
    cls = registry.processor_class(row.processor)
    url = webhook_url(row)
    told = row.webhook_registered or row.last_webhook_at is not None or not row.connected
    registers = cls.register_webhook is not Processor.register_webhook and url.startswith("https://")
    if told or not registers or any(_readable(row).get(field) for field in _webhook_secrets(cls)):
        return None
    return (
        f"{cls.display_name} does not know where to send webhooks: add {url} there and give its secret here, or give the"
        " credentials again to have it added. Until then payments are noticed late."
    )[:ERROR_LIMIT]


def _advice(row: ProcessorConnection, reason: str) -> str:
    name = registry.processor_class(row.processor).display_name
    return ADVICE[reason][1].format(name=name, mode="")[:ERROR_LIMIT]


def _make_processor(name: str, credentials: Mapping[str, str], url: str) -> Processor:
    cls: Any = registry.processor_class(name)
    made: Processor = cls(registry.read_credentials(cls, credentials), environment=environment(), webhook_url=url)
    return made


def _make_channel(name: str, kind: str, credentials: Mapping[str, str]) -> Channel:
    cls: Any = registry.channel_class(name)
    made: Channel = cls(registry.read_credentials(cls, credentials), kind=ChannelKind(kind), environment=environment())
    return made


# ----------------------------------------------------------------------------------------------- configure a processor
def provider_of(kind: str, provider: str | None) -> str:
    """The provider's name of a kind (STRIPE …); of kind CUSTOM the plug-in's, which `provider` names. Raises: Invalid."""
    own = next((name for name, known in KINDS.items() if known == kind), None)
    if own is None:
        if provider is None:
            raise Invalid("Name the plug-in that kind CUSTOM shall use.", field="provider")
        if provider in KINDS:
            raise Invalid("This processor is built in: choose its own kind.", field="provider")
        if provider not in registry.processor_names():
            raise Invalid("No plug-in of this name is installed.", field="provider")
        return provider
    if provider not in (None, own):
        raise Invalid(f"Kind {kind} is the provider {own}: leave this out, or choose kind CUSTOM.", field="provider")
    return own


async def configure_processor(
    actor: Actor,
    *,
    processor: str,
    connection_id: UUID | None = None,
    display_name: str | None = None,
    test_mode: bool | None = None,
    credentials: Mapping[str, str] | None = None,
    make_default: bool | None = None,
) -> ProcessorConnection:
    """Connect a processor or change its connection; None leaves a value, `credentials` replace single ones of the old.

    `processor` is the provider's name ("stripe"). The vendor is asked before anything is stored, and its webhook is registered
    where it allows that and nobody has given a secret of one. Without `connection_id` the connection of the same processor and
    mode is meant, if the credentials belong to the same vendor account; another vendor account makes another connection, because
    the open checkouts of the old one can be read with its credentials only.
    Raises: Forbidden, NotFound, Invalid, TooLong, ProcessorRejected, ProcessorUnavailable.
    """
    actor.require("settings")
    if processor not in registry.processor_names():
        raise Invalid("This processor is not installed.", field="kind")
    if processor in STAND_INS and not _sandbox_open:
        raise Invalid("The sandbox is closed here; connect a real processor.", field="kind")
    cls = registry.processor_class(processor)
    name = text.optional(display_name, limit=NAME_LIMIT, field="displayName")
    given = _given(cls, credentials or {})
    mode = _mode(cls, given, test_mode)
    row = await _existing(actor.account_id, processor, connection_id, mode)
    if row is not None and mode is not None and row.test_mode != mode:
        raise Invalid("A connection keeps its mode; connect the other mode beside it.", field="testMode")
    if given and processor in SELF_ISSUED:
        raise Invalid(f"{cls.display_name} makes its own keys: leave this out.", field=("credentials", min(given)))
    mode = row.test_mode if row is not None else mode

    new_id = uuid7()

    def address() -> str:
        return _address(processor, row.id if row is not None else new_id)

    merged = _merged(cls, row, given, mode)
    vendor_account, problem, registered = row.vendor_account if row is not None else None, None, False
    if row is None or not row.connected or given:
        vendor_account = await _checked(cls, merged, address(), given)
        if row is not None and row.vendor_account not in (None, vendor_account):
            if connection_id is not None:
                raise ProcessorRejected(
                    "These credentials belong to another account there: connect it beside this one, without processorId.",
                    field=_blamed(cls, given),
                )
            # Another connection, whose own secrets alone may go along.
            row = await ProcessorConnection.filter(
                account_id=actor.account_id, processor=processor, test_mode=row.test_mode, vendor_account=vendor_account
            ).first()
            merged = _merged(cls, row, given, mode)
            vendor_account = await _checked(cls, merged, address(), given)
        if not any(merged.get(field) for field in _webhook_secrets(cls)):
            found, problem = await _register_webhook(cls, merged, address())
            merged, registered = {**merged, **found}, bool(found)
    if row is not None and row.webhook_registered and not registered:
        # Until a person gives the secret of another: then what we know of ours is of no use.
        held = _readable(row)
        registered = all(merged.get(field) == held.get(field) for field in _webhook_secrets(cls))
        merged = merged if registered else {k: v for k, v in merged.items() if k not in _kept(cls) or k == MODE}

    async with database.transaction():
        await Account.filter(id=actor.account_id).select_for_update(no_key=True).get()  # serialises who is the default
        defaults = ProcessorConnection.filter(account_id=actor.account_id, is_default=True, connected=True)
        is_test = row.test_mode if row is not None else mode if mode is not None else processor in SELF_ISSUED
        is_default = bool(make_default)
        if not await defaults.exclude(id=row.id if row is not None else new_id).exists():
            # Test money only where there has been no other, or somebody says so: see first_choice.
            had_live = ProcessorConnection.filter(account_id=actor.account_id, test_mode=False)
            is_default = is_default or not is_test or not await had_live.exists()
        if row is not None and make_default is None:
            is_default = is_default or row.is_default
        if is_default:
            await defaults.exclude(id=row.id if row is not None else new_id).update(is_default=False)
        values: dict[str, Any] = {
            "credentials": _sealed(actor.account_id, merged),
            "key_hint": _hint(cls, merged),
            "vendor_account": vendor_account,
            "connected": True,
            "is_default": is_default,
            "last_error": problem,
            "webhook_registered": registered,
        }
        if row is None:
            made = await ProcessorConnection.create(
                id=new_id,
                account_id=actor.account_id,
                processor=processor,
                display_name=name or cls.display_name,
                test_mode=is_test,
                **values,
            )
        else:
            await ProcessorConnection.filter(id=row.id).update(
                display_name=name or row.display_name, version=row.version + 1, **values
            )
            made = await ProcessorConnection.get(id=row.id)
        changed = sorted({*given, *(["display_name"] if name else [])})
        await audit.record(
            actor,
            "processor.configured",
            public_id("prc", made.id),
            {"processor": processor, "test_mode": made.test_mode, "default": made.is_default, "changed": changed},
        )
    return made


async def test_processor(actor: Actor, connection_id: UUID) -> tuple[ProcessorConnection, Refusal | None]:
    """Ask the vendor again with the stored credentials; what it refuses is the connection's `last_error`.

    When it refuses nothing, that is cleared, or says that webhooks can't arrive. Raises: Forbidden, NotFound.
    """
    actor.require("settings")
    row = await processor_connection(connection_id, actor.account_id)
    refusal: Refusal | None = None
    try:
        if not allowed(row):
            raise ProcessorUnavailable("The sandbox is closed here.")
        vendor_account = await _checked(
            registry.processor_class(row.processor), credentials_of(row), webhook_url(row), {}
        )
        if row.vendor_account not in (None, vendor_account):
            raise ProcessorRejected("The stored credentials now belong to another account at the processor.")
    except (Invalid, ProcessorRejected, ProcessorUnavailable) as refused:
        refusal = type(refused)(refused.message)  # about what is stored, so about no field of the input
    except UnknownProvider:
        refusal = ProcessorUnavailable("The plug-in of this processor is not installed.")
    except vault.VaultError:
        refusal = ProcessorUnavailable(UNREADABLE)
    async with database.transaction():
        problem = refusal.message[:ERROR_LIMIT] if refusal is not None else webhook_problem(row)
        await ProcessorConnection.filter(id=row.id).update(last_error=problem)
        await audit.record(actor, "processor.tested", public_id("prc", row.id), {"passed": refusal is None})
        return await processor_connection(connection_id, actor.account_id), refusal


# ------------------------------------------------------------------------------------------- a processor's credentials
def _fields(cls: type[Processor]) -> list[str]:
    return [f.name for f in dataclasses.fields(cls.credentials)]


def _secrets(cls: type[Processor]) -> list[str]:
    """The credentials that no `repr` shows."""
    return [f.name for f in dataclasses.fields(cls.credentials) if not f.repr]


def _webhook_secrets(cls: type[Processor]) -> list[str]:
    """The credentials that verify webhooks: secrets whose names begin with `webhook`."""
    return [name for name in _secrets(cls) if name.startswith("webhook")]


def _kept(cls: type[Processor]) -> list[str]:
    """The credentials that nobody types: the mode, and what `register_webhook` wants to know again."""
    return [
        name
        for name in _fields(cls)
        if name == MODE or (name.startswith("webhook") and name not in _webhook_secrets(cls))
    ]


def _given(cls: type[Processor], credentials: Mapping[str, str]) -> dict[str, str]:
    """What a person gave, trimmed. Raises: Invalid, TooLong."""
    taken = [name for name in _fields(cls) if name not in _kept(cls)]
    if MODE in credentials and MODE in _fields(cls):
        raise Invalid("`mode` follows from testMode: give that.", field=("credentials", MODE))
    if any(name not in taken for name in credentials):
        raise Invalid(f"{cls.display_name} takes these credentials only: {', '.join(taken)}.", field="credentials")
    return {
        name: text.optional(value, limit=SECRET_LIMIT, field=("credentials", name)) or ""
        for name, value in credentials.items()
    }


def _merged(
    cls: type[Processor], row: ProcessorConnection | None, given: Mapping[str, str], mode: bool | None
) -> dict[str, str]:
    """The stored credentials with the given ones, complete. Raises: Invalid."""
    merged = {**_readable(row), **given}
    if cls.name in SELF_ISSUED:
        merged = _issue(cls.name, _fields(cls), merged)
    if MODE in _fields(cls):
        if mode is None:
            raise Invalid("Say whether these are test or live credentials: they don't tell.", field="testMode")
        merged[MODE] = "test" if mode else "live"
    for field in dataclasses.fields(cls.credentials):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and not merged.get(field.name):
            raise Invalid(f"{cls.display_name} needs {field.name}.", field=("credentials", field.name))
    return merged


def _mode(cls: type[Processor], given: Mapping[str, str], wanted: bool | None) -> bool | None:
    """Test (True) or live, from what was said and what the key says of itself; None: nothing was said."""
    if cls.name in SELF_ISSUED:
        if wanted is False:
            raise Invalid("The sandbox has no live mode.", field="testMode")
        return True
    if MODE in _fields(cls):
        return wanted
    key = given.get("secret_key", "")
    said = True if "_test_" in key else False if "_live_" in key else None
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


def _hint(cls: type[Processor], credentials: Mapping[str, str]) -> str | None:
    """A masked key, such as sk_…4242: the last four characters of the first secret that is long enough to keep the rest."""
    key = next((credentials[name] for name in _secrets(cls) if len(credentials.get(name, "")) >= 16), None)
    if key is None:
        return None
    head = key.partition("_")[0]
    return f"{head}_…{key[-4:]}" if "_" in key and len(head) <= 8 else f"…{key[-4:]}"


# ----------------------------------------------------------------------------------------------- asking the processor
def _address(processor: str, connection_id: UUID) -> str:
    """Where the events of a connection arrive: known before its row is."""
    return f"{environment().public_url}/webhooks/{processor}/{public_id('prc', connection_id)}"


@contextlib.asynccontextmanager
async def _probe(cls: type[Processor], credentials: Mapping[str, str], url: str) -> AsyncIterator[Processor]:
    """A processor of its own for one question: a live one may hold a token that the vendor has withdrawn since."""
    probe = _make_processor(cls.name, credentials, url)
    try:
        yield probe
    finally:
        await probe.aclose()


async def _checked(
    cls: type[Processor], credentials: Mapping[str, str], url: str, given: Mapping[str, str]
) -> str | None:
    """Ask the vendor whose credentials these are. Raises: ProcessorRejected, ProcessorUnavailable, about what was `given`."""
    try:
        async with _probe(cls, credentials, url) as probe:
            return await probe.check()
    except IntegrationError as error:
        log.warning("processor_check_failed", provider=error.provider, reason=error.reason)
        if error.retryable or error.ambiguous:
            raise ProcessorUnavailable(field=_blamed(cls, given)) from error
        field, sentence = ADVICE.get(error.reason, (None, "{name} refuses these credentials ({reason})."))
        mode = f" in {credentials[MODE]} mode" if credentials.get(MODE) else ""
        raise ProcessorRejected(
            sentence.format(name=cls.display_name, mode=mode, reason=error.reason, url=url),
            field=("credentials", field) if field in _fields(cls) and field else _blamed(cls, given),
        ) from error


def _blamed(cls: type[Processor], given: Mapping[str, str]) -> tuple[str, ...]:
    """The first secret that was given: which of several a vendor means it does not say."""
    first = next((name for name in _secrets(cls) if name in given), None)
    return ("credentials", first) if first is not None else ("credentials",)


async def _register_webhook(
    cls: type[Processor], credentials: Mapping[str, str], url: str
) -> tuple[Mapping[str, str], str | None]:
    """The credentials of a webhook that was registered for the user, none where a person has to; and what went wrong."""
    if not url.startswith("https://"):
        return {}, None  # no vendor can, or should, deliver there
    try:
        async with _probe(cls, credentials, url) as probe:
            return await probe.register_webhook() or {}, None
    except IntegrationError as error:
        log.warning("webhook_registration_failed", provider=error.provider, reason=error.reason)
        return {}, (
            f"{cls.display_name} did not take the webhook's address ({error.reason}): add it there by hand and give its"
            " secret here. Until then payments are noticed late."
        )


async def _unregister_webhook(row: ProcessorConnection) -> bool:
    """Take back a webhook that was registered for the user; whether that was done. Nothing depends on it."""
    try:
        async with _probe(registry.processor_class(row.processor), credentials_of(row), webhook_url(row)) as probe:
            await probe.unregister_webhook()
    except (IntegrationError, UnknownProvider, vault.VaultError) as error:
        log.warning("webhook_removal_failed", provider=row.processor, reason=getattr(error, "reason", "unreadable"))
        return False
    return True


async def disconnect_processor(actor: Actor, connection_id: UUID) -> ProcessorConnection:
    """Offer it no more. Its credentials stay: money that is still under way must be verified and read. Safe to repeat.

    The default passes to the oldest that is left, of the same mode if there is one; never from a live one to one of test mode, where
    no default is left until one is chosen: nobody shall ask for test money unawares. A webhook that was registered for the user is
    taken back afterwards, its secret with it, as far as the vendor answers: from then on the sweeper alone asks about what is open.
    Raises: Forbidden, NotFound.
    """
    actor.require("settings")
    async with database.transaction():
        await Account.filter(id=actor.account_id).select_for_update(no_key=True).get()
        row = await processor_connection(connection_id, actor.account_id)
        was_connected = row.connected
        if was_connected:
            await ProcessorConnection.filter(id=row.id).update(
                connected=False, is_default=False, version=row.version + 1
            )
            if row.is_default:
                others = await ProcessorConnection.filter(account_id=actor.account_id, connected=True).order_by("id")
                heirs = [one for one in others if row.test_mode or not one.test_mode]
                heir = min(heirs, key=lambda one: (not allowed(one), one.test_mode != row.test_mode), default=None)
                if heir is not None:
                    await ProcessorConnection.filter(id=heir.id).update(is_default=True)
            await audit.record(actor, "processor.disconnected", public_id("prc", row.id))
        row = await processor_connection(connection_id, actor.account_id)
    if was_connected and row.webhook_registered and await _unregister_webhook(row):
        left = {name: value for name, value in credentials_of(row).items() if not name.startswith("webhook")}
        # Only if nobody has connected it again in the meantime.
        await ProcessorConnection.filter(id=row.id, version=row.version).update(
            credentials=_sealed(row.account_id, left), webhook_registered=False, version=row.version + 1
        )
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
    allowed_origins: Sequence[str] | None = None,
) -> ChannelConnection:
    """Connect a channel, or change its connection. New credentials replace single fields of the old.

    `allowed_origins`: the sites that may show a chat widget; None leaves them, none at all is the beginning.
    The vendor is asked before anything is stored. Raises: Forbidden, NotFound, Invalid, TooLong.
    """
    actor.require("settings")
    if provider not in registry.channel_names():
        raise Invalid("This provider is not installed.", field="provider")
    if provider in STAND_INS and not _sandbox_open:
        raise Invalid("The simulator is closed here; connect a real provider.", field="provider")
    cls = registry.channel_class(provider)
    if kind not in {k.value for k in cls.kinds}:
        raise Invalid("This provider does not serve this kind of channel.", field="kind")
    name = text.optional(display_name, limit=NAME_LIMIT, field="displayName")
    address = text.optional(sender, limit=254, field="sender")
    if allowed_origins and provider != web_chat.NAME:
        raise Invalid("Only our own web chat is shown on sites.", field="allowedOrigins")
    sites = None if allowed_origins is None else origins.checked(allowed_origins)
    row = await channel_connection(connection_id, actor.account_id) if connection_id is not None else None
    if row is not None and (row.provider != provider or row.kind != kind):
        raise NotFound(field="connectionId")
    if credentials and provider in SELF_ISSUED:
        raise Invalid(f"{cls.display_name} makes its own keys: leave this out.", field="credentials")
    merged = _readable(row)
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
                allowed_origins=sites or [],
            )
        else:
            await ChannelConnection.filter(id=row.id).update(
                display_name=name or row.display_name,
                sender=row.sender if sender is None else address or "",
                credentials=sealed,
                allowed_origins=row.allowed_origins if sites is None else sites,
                connected=True,
                last_error=None,
                version=row.version + 1,
            )
            made = await ChannelConnection.get(id=row.id)
        await audit.record(
            actor,
            "channel.connected",
            public_id("chn", made.id),
            {
                "provider": provider,
                "kind": kind,
                "changed": sorted([*(credentials or {}), *(["allowed_origins"] if sites is not None else [])]),
            },
        )
    return made


async def test_channel(actor: Actor, connection_id: UUID) -> tuple[ChannelConnection, Refusal | None]:
    """Ask the vendor again with the stored credentials; what it refuses is the connection's `last_error`, else that is cleared.

    Raises: Forbidden, NotFound.
    """
    actor.require("settings")
    row = await channel_connection(connection_id, actor.account_id)
    refusal: Refusal | None = None
    try:
        if not allowed(row):
            raise Invalid("The simulator is closed here.")
        await _check_channel(row.provider, row.kind, credentials_of(row))
    except Invalid as refused:
        refusal = Invalid(refused.message)  # about what is stored, so about no field of the input
    except UnknownProvider:
        refusal = Invalid("The plug-in of this channel is not installed.")
    except vault.VaultError:
        refusal = Invalid(UNREADABLE)
    async with database.transaction():
        await ChannelConnection.filter(id=row.id).update(last_error=refusal and refusal.message[:ERROR_LIMIT])
        await audit.record(actor, "channel.tested", public_id("chn", row.id), {"passed": refusal is None})
        return await channel_connection(connection_id, actor.account_id), refusal


async def rotate_identity_secret(actor: Actor, connection_id: UUID) -> tuple[ChannelConnection, str]:
    """A new secret to sign visitors' identities with, shown this once; the old one counts no more. Raises: Forbidden, NotFound, Invalid."""
    actor.require("settings")
    async with database.transaction():
        row = (
            await ChannelConnection.filter(id=connection_id, account_id=actor.account_id)
            .select_for_update(no_key=True)
            .get_or_none()
        )
        if row is None:
            raise NotFound(field="channelId")
        if row.provider != web_chat.NAME:
            raise Invalid("Only a web chat has an identity secret.", field="channelId")
        issued = _issue(row.provider, ["identity_secret"], {})
        await ChannelConnection.filter(id=row.id).update(
            credentials=_sealed(actor.account_id, issued), version=row.version + 1
        )
        await audit.record(actor, "channel.identity_secret_rotated", public_id("chn", row.id))
        return await channel_connection(connection_id, actor.account_id), issued["identity_secret"]


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
