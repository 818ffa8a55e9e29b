"""Settings → Payments: connect a processor, test its credentials, disconnect it. `connections.py` reads the connections."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog

from integrations import registry
from integrations.base import IntegrationError, Processor
from integrations.registry import UnknownProvider
from models import vault
from models.errors import Invalid, NotFound, ProcessorRejected, ProcessorUnavailable, Refusal, Refusals
from models.ids import public_id, uuid7
from models.tables import Account, ProcessorConnection
from services import audit, connections, text
from services.actors import Actor
from services.changes import change

log = structlog.get_logger(__name__)

NAME_LIMIT: Final = 120
SECRET_LIMIT: Final = 1000
MODE: Final = (
    "mode"  # the credential of a provider whose keys don't tell whether they move real money: "test" or "live"
)


# ----------------------------------------------------------------------------------------------- configure a processor
def built_in(kind: str) -> str | None:
    """The provider's name of a kind (STRIPE …); None of kind CUSTOM."""
    return next((name for name, known in connections.KINDS.items() if known == kind), None)


def provider_of(kind: str, provider: str | None) -> str:
    """The provider's name of a kind (STRIPE …); of kind CUSTOM the plug-in's, which `provider` names. Raises: Invalid."""
    own = built_in(kind)
    if own is None:
        if provider is None:
            raise Invalid("Name the plug-in that kind CUSTOM shall use.", field="provider")
        if provider in connections.KINDS:
            raise Invalid("This processor is built in: choose its own kind.", field="provider")
        if provider not in registry.processor_names():
            raise Invalid("No plug-in of this name is installed.", field="provider")
        return provider
    if provider not in (None, own):
        raise Invalid(f"Kind {kind} is the provider {own}: leave this out, or choose kind CUSTOM.", field="provider")
    return own


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A checked input of `configure_processor`. `mode`: test (True) or live; `row`: the connection that it changes."""

    cls: type[Processor]
    name: str | None
    given: dict[str, str]
    mode: bool | None
    row: ProcessorConnection | None


async def check(
    actor: Actor,
    *,
    processor: str | None,
    connection_id: UUID | None = None,
    display_name: str | None = None,
    test_mode: bool | None = None,
    credentials: Mapping[str, str] | None = None,
) -> Wanted | None:
    """What can be said of the input without asking the vendor; None for a `processor` that is refused already.

    Raises: Forbidden, NotFound, Invalid, TooLong, of every wrong field.
    """
    actor.require("settings")
    refusals = Refusals()
    cls = registry.processor_class(processor) if processor in registry.processor_names() else None
    given: dict[str, str] = {}
    mode: bool | None = None
    row: ProcessorConnection | None = None
    whole = settled = False
    with refusals:
        if processor is not None and cls is None:
            raise Invalid("This processor is not installed.", field="kind")
        if processor in connections.STAND_INS and not connections.stand_ins_open():
            raise Invalid("The sandbox is closed here; connect a real processor.", field="kind")
    with refusals:
        name = text.optional(display_name, limit=NAME_LIMIT, field="displayName")
    with refusals:
        if connection_id is not None:
            row = await connections.processor_connection(connection_id, actor.account_id)
    with refusals:
        if cls is not None and row is not None and row.processor != cls.name:
            cls = None  # for which of the two the rest is meant can't be said
            raise NotFound(field="connectionId")
    if cls is not None:
        with refusals:
            given = _given(cls, credentials or {})
            if given and cls.name in connections.SELF_ISSUED:
                raise Invalid(
                    f"{cls.display_name} makes its own keys: leave this out.", field=("credentials", min(given))
                )
            whole = row is not None or connection_id is None
        with refusals:
            mode = _mode(cls, given, test_mode)
            if row is None and connection_id is None:
                row = await _existing(actor.account_id, cls.name, mode)
            if row is not None and mode is not None and row.test_mode != mode:
                raise Invalid("A connection keeps its mode; connect the other mode beside it.", field="testMode")
            settled = True
        with refusals:
            if whole and settled:  # what is missing, beside what is stored
                _merged(cls, row, given, row.test_mode if row is not None else mode)
    refusals.raise_any()
    if cls is None:
        return None
    return Wanted(cls=cls, name=name, given=given, mode=mode, row=row)


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
    wanted = await check(
        actor,
        processor=processor,
        connection_id=connection_id,
        display_name=display_name,
        test_mode=test_mode,
        credentials=credentials,
    )
    assert wanted is not None  # noqa: S101 (the processor was named)
    cls, name, given, row = wanted.cls, wanted.name, wanted.given, wanted.row
    mode = row.test_mode if row is not None else wanted.mode

    new_id = uuid7()

    def address() -> str:
        return connections.webhook_address(processor, row.id if row is not None else new_id)

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
        if not any(merged.get(field) for field in connections.webhook_secret_fields(cls)):
            found, problem = await _register_webhook(cls, merged, address())
            merged, registered = {**merged, **found}, bool(found)
    if row is not None and row.webhook_registered and not registered:
        # Until a person gives the secret of another: then what we know of ours is of no use.
        held = connections.readable(row)
        registered = all(merged.get(field) == held.get(field) for field in connections.webhook_secret_fields(cls))
        merged = merged if registered else {k: v for k, v in merged.items() if k not in _kept(cls) or k == MODE}

    async with change(actor.account_id, actor_id=actor.user_id) as changed:
        await Account.filter(id=actor.account_id).select_for_update(no_key=True).get()  # serialises who is the default
        defaults = ProcessorConnection.filter(account_id=actor.account_id, is_default=True, connected=True)
        is_test = (
            row.test_mode if row is not None else mode if mode is not None else processor in connections.SELF_ISSUED
        )
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
            "credentials": connections.sealed(actor.account_id, merged),
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
        changed.event("processor.updated")
        fields = sorted({*given, *(["display_name"] if name else [])})
        await audit.record(
            actor,
            "processor.configured",
            public_id("prc", made.id),
            {"processor": processor, "test_mode": made.test_mode, "default": made.is_default, "changed": fields},
        )
    return made


async def test_processor(actor: Actor, connection_id: UUID) -> tuple[ProcessorConnection, Refusal | None]:
    """Ask the vendor again with the stored credentials; what it refuses is the connection's `last_error`.

    When it refuses nothing, that is cleared, or says that webhooks can't arrive. Raises: Forbidden, NotFound.
    """
    actor.require("settings")
    row = await connections.processor_connection(connection_id, actor.account_id)
    refusal: Refusal | None = None
    try:
        if not connections.allowed(row):
            raise ProcessorUnavailable("The sandbox is closed here.")
        vendor_account = await _checked(
            registry.processor_class(row.processor), connections.credentials_of(row), connections.webhook_url(row), {}
        )
        if row.vendor_account not in (None, vendor_account):
            raise ProcessorRejected("The stored credentials now belong to another account at the processor.")
    except (Invalid, ProcessorRejected, ProcessorUnavailable) as refused:
        refusal = type(refused)(refused.message)  # about what is stored, so about no field of the input
    except UnknownProvider:
        refusal = ProcessorUnavailable("The plug-in of this processor is not installed.")
    except vault.VaultError:
        refusal = ProcessorUnavailable(connections.UNREADABLE)
    async with change(actor.account_id, actor_id=actor.user_id) as changed:
        problem = (
            refusal.message[: connections.ERROR_LIMIT] if refusal is not None else connections.webhook_problem(row)
        )
        await ProcessorConnection.filter(id=row.id).update(last_error=problem)
        if row.last_error != problem:
            changed.event("processor.updated")
        await audit.record(actor, "processor.tested", public_id("prc", row.id), {"passed": refusal is None})
        return await connections.processor_connection(connection_id, actor.account_id), refusal


# ------------------------------------------------------------------------------------------- a processor's credentials
def _fields(cls: type[Processor]) -> list[str]:
    return [f.name for f in dataclasses.fields(cls.credentials)]


def _kept(cls: type[Processor]) -> list[str]:
    """The credentials that nobody types: the mode, and what `register_webhook` wants to know again."""
    return [
        name
        for name in _fields(cls)
        if name == MODE or (name.startswith("webhook") and name not in connections.webhook_secret_fields(cls))
    ]


def _given(cls: type[Processor], credentials: Mapping[str, str]) -> dict[str, str]:
    """What a person gave, trimmed. Raises: Invalid, TooLong."""
    taken = [name for name in _fields(cls) if name not in _kept(cls)]
    found: dict[str, str] = {}
    refusals = Refusals()
    for name, value in credentials.items():
        with refusals:
            if name == MODE and MODE in _fields(cls):
                raise Invalid("`mode` follows from testMode: give that.", field=("credentials", MODE))
            if name not in taken:
                raise Invalid(
                    f"{cls.display_name} takes these credentials only: {', '.join(taken)}.", field="credentials"
                )
            found[name] = text.optional(value, limit=SECRET_LIMIT, field=("credentials", name)) or ""
    refusals.raise_any()
    return found


def _merged(
    cls: type[Processor], row: ProcessorConnection | None, given: Mapping[str, str], mode: bool | None
) -> dict[str, str]:
    """The stored credentials with the given ones, complete. Raises: Invalid."""
    merged = {**connections.readable(row), **given}
    if cls.name in connections.SELF_ISSUED:
        merged = connections.issued_keys(cls.name, _fields(cls), merged)
    if MODE in _fields(cls):
        if mode is None:
            raise Invalid("Say whether these are test or live credentials: they don't tell.", field="testMode")
        merged[MODE] = "test" if mode else "live"
    refusals = Refusals()
    for field in dataclasses.fields(cls.credentials):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        with refusals:
            if needed and not merged.get(field.name):
                raise Invalid(f"{cls.display_name} needs {field.name}.", field=("credentials", field.name))
    refusals.raise_any()
    return merged


def _mode(cls: type[Processor], given: Mapping[str, str], wanted: bool | None) -> bool | None:
    """Test (True) or live, from what was said and what the key says of itself; None: nothing was said."""
    if cls.name in connections.SELF_ISSUED:
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


async def _existing(account_id: UUID, processor: str, mode: bool | None) -> ProcessorConnection | None:
    """The connection that is meant where none is named."""
    found = ProcessorConnection.filter(account_id=account_id, processor=processor)
    if mode is not None:
        found = found.filter(test_mode=mode)
    return await found.order_by("-connected", "-is_default", "id").first()


def _hint(cls: type[Processor], credentials: Mapping[str, str]) -> str | None:
    """A masked key, such as sk_…4242: the last four characters of the first secret that is long enough to keep the rest."""
    key = next(
        (credentials[name] for name in connections.secret_fields(cls) if len(credentials.get(name, "")) >= 16), None
    )
    if key is None:
        return None
    head = key.partition("_")[0]
    return f"{head}_…{key[-4:]}" if "_" in key and len(head) <= 8 else f"…{key[-4:]}"


# ----------------------------------------------------------------------------------------------- asking the processor
@contextlib.asynccontextmanager
async def _probe(cls: type[Processor], credentials: Mapping[str, str], url: str) -> AsyncIterator[Processor]:
    """A processor of its own for one question: a live one may hold a token that the vendor has withdrawn since."""
    probe = connections.make_processor(cls.name, credentials, url)
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
        field, sentence = connections.ADVICE.get(error.reason, (None, "{name} refuses these credentials ({reason})."))
        mode = f" in {credentials[MODE]} mode" if credentials.get(MODE) else ""
        raise ProcessorRejected(
            sentence.format(name=cls.display_name, mode=mode, reason=error.reason, url=url),
            field=("credentials", field) if field in _fields(cls) and field else _blamed(cls, given),
        ) from error


def _blamed(cls: type[Processor], given: Mapping[str, str]) -> tuple[str, ...]:
    """The first secret that was given: which of several a vendor means it does not say."""
    first = next((name for name in connections.secret_fields(cls) if name in given), None)
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
        async with _probe(
            registry.processor_class(row.processor), connections.credentials_of(row), connections.webhook_url(row)
        ) as probe:
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
    async with change(actor.account_id, actor_id=actor.user_id) as changed:
        await Account.filter(id=actor.account_id).select_for_update(no_key=True).get()
        row = await connections.processor_connection(connection_id, actor.account_id)
        was_connected = row.connected
        if was_connected:
            await connections.put_away(row)
            changed.event("processor.updated")
            await audit.record(actor, "processor.disconnected", public_id("prc", row.id))
        row = await connections.processor_connection(connection_id, actor.account_id)
    if was_connected and row.webhook_registered and await _unregister_webhook(row):
        left = {
            name: value for name, value in connections.credentials_of(row).items() if not name.startswith("webhook")
        }
        # Only if nobody has connected it again in the meantime.
        await ProcessorConnection.filter(id=row.id, version=row.version).update(
            credentials=connections.sealed(row.account_id, left), webhook_registered=False, version=row.version + 1
        )
    return await connections.processor_connection(connection_id, actor.account_id)
