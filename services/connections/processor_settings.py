"""Settings → Payments: connect a processor, test its credentials, disconnect it. `connections.py` reads the connections."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog
from tortoise.expressions import F, Q

from integrations import registry
from integrations.base import IntegrationError, Processor
from integrations.registry import UnknownProvider
from models import database, vault
from models.errors import Invalid, NotFound, ProcessorRejected, ProcessorUnavailable, Refusal, Refusals
from models.ids import public_id, uuid7
from models.tables import Account, ProcessorConnection
from services.connections import processor_health, providers
from services.core import audit_log, configuration, validation
from services.core.permissions import Actor
from services.core.unit_of_work import change

log = structlog.get_logger(__name__)

NAME_LIMIT: Final = 120
SECRET_LIMIT: Final = 1000
ROUNDS: Final = 5  # how often the vendor is asked when others change the connection meanwhile
CLAIM: Final = timedelta(minutes=3)  # longer than the calls of one registration take
MODE: Final = (
    "mode"  # the credential of a provider whose keys don't tell whether they move real money: "test" or "live"
)


# ----------------------------------------------------------------------------------------------- configure a processor
def built_in(kind: str) -> str | None:
    """The provider's name of a kind (STRIPE …); None of kind CUSTOM."""
    return next((name for name, known in providers.KINDS.items() if known == kind), None)


def provider_of(kind: str, provider: str | None) -> str:
    """The provider's name of a kind (STRIPE …); of kind CUSTOM the plug-in's, which `provider` names. Raises: Invalid."""
    own = built_in(kind)
    if own is None:
        if provider is None:
            raise Invalid("Name the plug-in that kind CUSTOM shall use.", field="provider")
        if provider in providers.KINDS:
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
        if processor in providers.STAND_INS and not configuration.current().sandbox_open:
            raise Invalid("The sandbox is closed here; connect a real processor.", field="kind")
    with refusals:
        name = validation.optional(display_name, limit=NAME_LIMIT, field="displayName")
    with refusals:
        if connection_id is not None:
            row = await providers.processor_connection(connection_id, actor.account_id)
    with refusals:
        if cls is not None and row is not None and row.processor != cls.name:
            cls = None  # for which of the two the rest is meant can't be said
            raise NotFound(field="connectionId")
    if cls is not None:
        with refusals:
            given = _given(cls, credentials or {})
            if given and cls.name in providers.SELF_ISSUED:
                raise Invalid(
                    f"{cls.display_name} makes its own keys: leave this out.", field=("credentials", min(given))
                )
            whole = row is not None or connection_id is None
        with refusals:
            mode = _mode(cls, given, test_mode)
            if row is None and connection_id is None:
                row = await _existing(actor.account_id, None, cls.name, mode)
            if row is not None and mode is not None and row.test_mode != mode:
                raise Invalid("A connection keeps its mode; connect the other mode beside it.", field="testMode")
            settled = True
        with refusals:
            if whole and settled:  # what is missing, beside what is stored
                _merged(cls, row, given, row.test_mode if row is not None else mode)
                if row is None and mode is None:
                    raise Invalid("Say whether these are test or live credentials: they don't tell.", field="testMode")
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
    new_id = uuid7()
    for _ in range(ROUNDS):
        asked = await _ask(actor.account_id, wanted, named=connection_id is not None, new_id=new_id)
        stored = await _store(actor, wanted, asked, new_id=new_id, make_default=make_default)
        if stored is not None:
            return await _ensure_webhook(actor, stored) if asked.changes_credentials else stored
        row = await _existing(actor.account_id, connection_id, processor, wanted.mode)
        wanted = dataclasses.replace(wanted, row=row)
    raise ProcessorUnavailable("Others are changing this connection at the moment: try again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the vendor said of `credentials`, the stored ones with the given ones.

    `row`: the connection as it was read before the vendor was asked; None: a new one.
    """

    row: ProcessorConnection | None
    credentials: dict[str, str]
    vendor_account: str | None
    changes_credentials: bool


async def _ask(account_id: UUID, wanted: Wanted, *, named: bool, new_id: UUID) -> _Asked:
    """Ask the vendor whose credentials these are, if this call connects or changes them; choose the connection by the answer.

    Raises: Invalid, ProcessorRejected, ProcessorUnavailable.
    """
    cls, given, row = wanted.cls, wanted.given, wanted.row
    mode = row.test_mode if row is not None else wanted.mode
    credentials = _merged(cls, row, given, mode)
    if row is not None and row.connected and not given and credentials == providers.readable(row):
        return _Asked(row=row, credentials=credentials, vendor_account=row.vendor_account, changes_credentials=False)
    url = providers.webhook_address(cls.name, row.id if row is not None else new_id)
    vendor_account = await _checked(cls, credentials, url, given)
    if row is not None and row.vendor_account != vendor_account:
        other = await _of_vendor_account(account_id, cls.name, row.test_mode, vendor_account)
        if other is not None or row.vendor_account is not None:
            if named:
                raise ProcessorRejected(
                    "These credentials belong to another account there: connect it beside this one, without processorId.",
                    field=_blamed(cls, given),
                )
            # Another connection, whose own secrets alone may go along.
            row = other
            credentials = _merged(cls, row, given, mode)
            url = providers.webhook_address(cls.name, row.id if row is not None else new_id)
            vendor_account = await _checked(cls, credentials, url, given)
    return _Asked(row=row, credentials=credentials, vendor_account=vendor_account, changes_credentials=True)


async def _store(
    actor: Actor, wanted: Wanted, asked: _Asked, *, new_id: UUID, make_default: bool | None
) -> ProcessorConnection | None:
    """Write what this call changes, under the locks of account and row; None: ask again, for the connection has changed since.

    So no credentials are stored that the vendor has not seen together, and two calls for one new vendor account make one connection.
    """
    cls, processor = wanted.cls, wanted.cls.name
    row_id = asked.row.id if asked.row is not None else new_id
    async with change(actor.account_id, actor_id=actor.user_id) as changed:
        row = await _locked(actor.account_id, row_id)
        mode = row.test_mode if row is not None else wanted.mode
        is_test = mode if mode is not None else processor in providers.SELF_ISSUED
        if asked.changes_credentials and await _changed_since(actor.account_id, processor, is_test, asked, row):
            return None
        values: dict[str, Any] = {} if wanted.name is None else {"display_name": wanted.name}
        if asked.changes_credentials:
            values |= _credential_values(actor.account_id, cls, row, asked)
        if row is None or row.connected or asked.changes_credentials:
            values["is_default"] = await _becomes_default(actor.account_id, row_id, row, is_test, make_default)
        if row is None:
            made = await ProcessorConnection.create(
                id=row_id,
                account_id=actor.account_id,
                processor=processor,
                test_mode=is_test,
                **{"display_name": cls.display_name} | values,
            )
        else:
            await ProcessorConnection.filter(id=row.id).update(**values, version=F("version") + 1)
            made = await ProcessorConnection.get(id=row.id)
        changed.event("processor.updated")
        fields = sorted({*wanted.given, *(["display_name"] if wanted.name else [])})
        await audit_log.record(
            actor,
            processor_health.CONFIGURED,
            public_id("prc", made.id),
            {"processor": processor, "test_mode": made.test_mode, "default": made.is_default, "changed": fields},
        )
    return made


async def _locked(account_id: UUID, row_id: UUID) -> ProcessorConnection | None:
    """The row, locked, and before it the account: that serialises who is the default, and every change takes both in this order."""
    await Account.filter(id=account_id).select_for_update(no_key=True).get()
    return (
        await ProcessorConnection.filter(id=row_id, account_id=account_id).select_for_update(no_key=True).get_or_none()
    )


async def _changed_since(
    account_id: UUID, processor: str, is_test: bool, asked: _Asked, row: ProcessorConnection | None
) -> bool:
    """Whether the locked `row` is no longer as the vendor was asked for it, or another row has its vendor account."""
    if row is None or row.vendor_account != asked.vendor_account:
        other = await _of_vendor_account(account_id, processor, is_test, asked.vendor_account)
        if other is not None and other != row:
            return True
    if row is None or asked.row is None:
        return row is not asked.row
    return row.connected != asked.row.connected or not providers.same_credentials(row, asked.row)


def _credential_values(
    account_id: UUID, cls: type[Processor], row: ProcessorConnection | None, asked: _Asked
) -> dict[str, Any]:
    """The columns of new credentials. What is known of a registered webhook goes when a person gives the secret of another."""
    credentials = asked.credentials
    held = providers.readable(row)
    registered = (
        row is not None
        and row.webhook_registered
        and all(credentials.get(field) == held.get(field) for field in providers.webhook_secret_fields(cls))
    )
    if row is not None and row.webhook_registered and not registered:
        credentials = {k: v for k, v in credentials.items() if k not in _kept(cls) or k == MODE}
    return {
        "credentials": providers.sealed(account_id, credentials),
        "key_hint": _hint(cls, credentials),
        "vendor_account": asked.vendor_account,
        "connected": True,
        "last_error": None,
        "webhook_registered": registered,
    }


async def _becomes_default(
    account_id: UUID, row_id: UUID, row: ProcessorConnection | None, is_test: bool, wanted: bool | None
) -> bool:
    """Whether the connection is the default from now on; then no other one is. The caller holds the account's lock."""
    others = ProcessorConnection.filter(account_id=account_id, is_default=True, connected=True).exclude(id=row_id)
    is_default = bool(wanted)
    if not await others.exists():
        # Test money only where there has been no other, or somebody says so: see first_choice.
        had_live = ProcessorConnection.filter(account_id=account_id, test_mode=False)
        is_default = is_default or not is_test or not await had_live.exists()
    if row is not None and wanted is None:
        is_default = is_default or row.is_default
    if is_default:
        await others.update(is_default=False)
    return is_default


async def test_processor(actor: Actor, connection_id: UUID) -> tuple[ProcessorConnection, Refusal | None]:
    """Ask the vendor again with the stored credentials; what it refuses is the connection's `last_error`.

    When it refuses nothing, that is cleared, or says that webhooks can't arrive. Raises: Forbidden, NotFound.
    """
    actor.require("settings")
    row = await providers.processor_connection(connection_id, actor.account_id)
    refusal: Refusal | None = None
    try:
        if not providers.allowed(row):
            raise ProcessorUnavailable("The sandbox is closed here.")
        vendor_account = await _checked(
            registry.processor_class(row.processor), providers.credentials_of(row), providers.webhook_url(row), {}
        )
        if row.vendor_account not in (None, vendor_account):
            raise ProcessorRejected("The stored credentials now belong to another account at the processor.")
    except (Invalid, ProcessorRejected, ProcessorUnavailable) as refused:
        refusal = type(refused)(refused.message)  # about what is stored, so about no field of the input
    except UnknownProvider:
        refusal = ProcessorUnavailable("The plug-in of this processor is not installed.")
    except vault.VaultError:
        refusal = ProcessorUnavailable(providers.UNREADABLE)
    else:
        await processor_health.answered(row)
    async with change(actor.account_id, actor_id=actor.user_id) as changed:
        now = await _locked(actor.account_id, row.id) or row
        problem = now.last_error
        if providers.same_credentials(now, row):  # else the answer is about credentials that are stored no more
            if refusal is not None:
                problem = refusal.message[: providers.ERROR_LIMIT]
            elif now.last_error == row.last_error:  # what went wrong since stays
                problem = providers.webhook_problem(now)
        if now.last_error != problem:
            await ProcessorConnection.filter(id=row.id).update(last_error=problem)
            changed.event("processor.updated")
        await audit_log.record(actor, "processor.tested", public_id("prc", row.id), {"passed": refusal is None})
        return await providers.processor_connection(connection_id, actor.account_id), refusal


# ------------------------------------------------------------------------------------------- a processor's credentials
def _fields(cls: type[Processor]) -> list[str]:
    return [f.name for f in dataclasses.fields(cls.credentials)]


def _kept(cls: type[Processor]) -> list[str]:
    """The credentials that nobody types: the mode, and what `register_webhook` wants to know again."""
    return [
        name
        for name in _fields(cls)
        if name == MODE or (name.startswith("webhook") and name not in providers.webhook_secret_fields(cls))
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
            found[name] = validation.optional(value, limit=SECRET_LIMIT, field=("credentials", name)) or ""
    refusals.raise_any()
    return found


def _merged(
    cls: type[Processor], row: ProcessorConnection | None, given: Mapping[str, str], mode: bool | None
) -> dict[str, str]:
    """The stored credentials with the given ones, complete. Raises: Invalid."""
    held = providers.readable(row)
    if row is not None and row.webhook_registered and not row.connected:
        # The vendor may have lost our webhook while disconnected: another one is registered.
        held = {name: value for name, value in held.items() if name not in _webhook_part(row)}
    merged = {**held, **given}
    if cls.name in providers.SELF_ISSUED:
        merged = providers.issued_keys(cls.name, _fields(cls), merged)
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
    if cls.name in providers.SELF_ISSUED:
        if wanted is False:
            raise Invalid("The sandbox has no live mode.", field="testMode")
        return True
    try:
        mode = cls.mode_of(given)
    except IntegrationError as error:
        raise Invalid("Some of these keys are of test mode, others of live mode.", field="credentials") from error
    said = None if mode is None else mode == "test"
    if said is not None and wanted is not None and said != wanted:
        raise Invalid("This key belongs to the other mode.", field="testMode")
    return said if said is not None else wanted


async def _existing(
    account_id: UUID, connection_id: UUID | None, processor: str, mode: bool | None
) -> ProcessorConnection | None:
    """The connection that is named, else the one of this processor and mode that comes first. Raises: NotFound."""
    if connection_id is not None:
        return await providers.processor_connection(connection_id, account_id)
    found = ProcessorConnection.filter(account_id=account_id, processor=processor)
    if mode is not None:
        found = found.filter(test_mode=mode)
    return await found.order_by("-connected", "-is_default", "id").first()


async def _of_vendor_account(
    account_id: UUID, processor: str, test_mode: bool, vendor_account: str | None
) -> ProcessorConnection | None:
    """The connection to this account at the vendor; of connections that a vendor names no account for the first."""
    found = ProcessorConnection.filter(account_id=account_id, processor=processor, test_mode=test_mode)
    found = found.filter(vendor_account=vendor_account) if vendor_account else found.filter(vendor_account__isnull=True)
    return await found.order_by("is_duplicate", "id").first()


def _hint(cls: type[Processor], credentials: Mapping[str, str]) -> str | None:
    """A masked key, such as sk_…4242: the last four characters of the first secret that is long enough to keep the rest."""
    key = next(
        (credentials[name] for name in providers.secret_fields(cls) if len(credentials.get(name, "")) >= 16), None
    )
    if key is None:
        return None
    head = key.partition("_")[0]
    return f"{head}_…{key[-4:]}" if "_" in key and len(head) <= 8 else f"…{key[-4:]}"


# ----------------------------------------------------------------------------------------------- asking the processor
@contextlib.asynccontextmanager
async def _probe(cls: type[Processor], credentials: Mapping[str, str], url: str) -> AsyncIterator[Processor]:
    """A processor of its own for one question: a live one may hold a token that the vendor has withdrawn since."""
    probe = providers.make_processor(cls.name, credentials, url)
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
        field, sentence = providers.advice_of(cls, error.reason)
        mode = f" in {credentials[MODE]} mode" if credentials.get(MODE) else ""
        raise ProcessorRejected(
            sentence.format(name=cls.display_name, mode=mode, reason=error.reason, url=url),
            field=("credentials", field) if field in _fields(cls) and field else _blamed(cls, given),
        ) from error


def _blamed(cls: type[Processor], given: Mapping[str, str]) -> tuple[str, ...]:
    """The first secret that was given: which of several a vendor means it does not say."""
    first = next((name for name in providers.secret_fields(cls) if name in given), None)
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


async def _unregister_webhook(row: ProcessorConnection, credentials: Mapping[str, str]) -> bool:
    """Take back the webhook that these credentials name; whether that was done. Nothing depends on it."""
    try:
        async with _probe(registry.processor_class(row.processor), credentials, providers.webhook_url(row)) as probe:
            await probe.unregister_webhook()
    except (IntegrationError, UnknownProvider) as error:
        log.warning("webhook_removal_failed", provider=row.processor, reason=getattr(error, "reason", "not_installed"))
        return False
    return True


async def _ensure_webhook(actor: Actor, row: ProcessorConnection) -> ProcessorConnection:
    """Register the webhook of a stored connection that has no secret of one; the connection afterwards.

    One call at a time does it, by a claim in the row: two would leave a webhook at the vendor whose secret is stored nowhere. A claim
    whose process died ends by itself, and the next registration deletes what it left at the vendor.
    """
    cls = registry.processor_class(row.processor)
    held = providers.readable(row)
    if any(held.get(field) for field in providers.webhook_secret_fields(cls)):
        return row
    now = datetime.now(UTC)
    free = Q(webhook_claimed_until=None) | Q(webhook_claimed_until__lt=now)
    claimed = ProcessorConnection.filter(free, id=row.id, connected=True)
    if not await claimed.update(webhook_claimed_until=now + CLAIM):
        return await ProcessorConnection.get(id=row.id)
    # Under the claim: another call may have registered it since `row` was read, and a second one would delete the first.
    row = await ProcessorConnection.get(id=row.id)
    held = providers.readable(row)
    if any(held.get(field) for field in providers.webhook_secret_fields(cls)):
        await ProcessorConnection.filter(id=row.id).update(webhook_claimed_until=None)
        return await ProcessorConnection.get(id=row.id)
    found, problem = await _register_webhook(cls, held, providers.webhook_url(row))
    async with change(actor.account_id, actor_id=actor.user_id) as changed:
        current = await _locked(row.account_id, row.id) or row
        held = providers.readable(current)
        given = any(held.get(field) for field in providers.webhook_secret_fields(cls))
        wanted = current.connected and not given  # nobody has disconnected it or given a secret meanwhile
        values: dict[str, Any] = {"webhook_claimed_until": None}
        if wanted and found:
            sealed = providers.sealed(row.account_id, {**held, **found})
            values |= {"credentials": sealed, "webhook_registered": True, "version": F("version") + 1}
        elif wanted and problem:
            values["last_error"] = problem[: providers.ERROR_LIMIT]
        await ProcessorConnection.filter(id=row.id).update(**values)
        if len(values) > 1:
            changed.event("processor.updated")
    if found and not wanted:
        await _unregister_webhook(row, {**held, **found})
    return await ProcessorConnection.get(id=row.id)


async def _forget_webhook(row: ProcessorConnection) -> None:
    """Drop the credentials of the webhook that was taken back at the vendor, unless others have replaced them."""
    async with database.transaction():
        current = await _locked(row.account_id, row.id) or row
        taken, held = _webhook_part(row), providers.readable(current)
        if current.webhook_registered and _webhook_part(current) == taken:
            left = {name: value for name, value in held.items() if name not in taken}
            await ProcessorConnection.filter(id=row.id).update(
                credentials=providers.sealed(row.account_id, left), webhook_registered=False, version=F("version") + 1
            )


def _webhook_part(row: ProcessorConnection) -> dict[str, str]:
    return {name: value for name, value in providers.readable(row).items() if name.startswith("webhook")}


async def disconnect_processor(actor: Actor, connection_id: UUID) -> ProcessorConnection:
    """Offer it no more. Its credentials stay: money that is still under way must be verified and read. Safe to repeat.

    The default passes to the oldest that is left, of the same mode if there is one; never from a live one to one of test mode, where
    no default is left until one is chosen: nobody shall ask for test money unawares. A webhook that was registered for the user is
    taken back afterwards, its secret with it, as far as the vendor answers: from then on the sweeper alone asks about what is open.
    Raises: Forbidden, NotFound.
    """
    actor.require("settings")
    async with change(actor.account_id, actor_id=actor.user_id) as changed:
        held = await _locked(actor.account_id, connection_id)
        if held is None:
            raise NotFound
        row = held
        was_connected = row.connected
        if was_connected:
            await providers.put_away(row)
            changed.event("processor.updated")
            await audit_log.record(actor, processor_health.DISCONNECTED, public_id("prc", row.id))
        row = await providers.processor_connection(connection_id, actor.account_id)
    if was_connected and row.webhook_registered and await _unregister_webhook(row, providers.readable(row)):
        await _forget_webhook(row)
        row = await providers.processor_connection(connection_id, actor.account_id)
        if row.connected:  # somebody has connected it again meanwhile
            return await _ensure_webhook(actor, row)
    return await providers.processor_connection(connection_id, actor.account_id)
