"""Connects, tests and disconnects processors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from tortoise.expressions import F

from integrations import registry
from integrations.base import Processor
from integrations.registry import UnknownProvider
from models import vault
from models.errors import Invalid, NotFound, ProcessorRejected, ProcessorUnavailable, Refusal, Refusals
from models.ids import public_id, uuid7
from models.tables import ProcessorConnection
from services.connections import processor_credentials, processor_health, providers, webhook_registration
from services.core import audit_log, configuration, validation
from services.core.permissions import Actor
from services.core.unit_of_work import change

NAME_LIMIT: Final = 120
ROUNDS: Final = 5  # attempts while concurrent changes interfere


# ----------------------------------------------------------------------------------------------- configure a processor
def built_in(kind: str) -> str | None:
    return next((name for name, known in providers.KINDS.items() if known == kind), None)


async def provider_of(kind: str, provider: str | None) -> str:
    """For CUSTOM, the plug-in that `provider` names. Raises: Invalid."""
    own = built_in(kind)
    if own is not None:
        if provider not in (None, own):
            raise Invalid(f"Kind {kind} is the provider {own}.", field="provider")
        return own
    if provider in providers.KINDS:
        raise Invalid("This processor is built in: give its own credentials.", field="provider")
    if provider is None or await registry.load("processors", provider) is None:
        raise Invalid("No plug-in of this name is installed.", field="provider")
    return provider


async def processor_of(actor: Actor, connection_id: UUID) -> str:
    """Raises: Forbidden, NotFound."""
    actor.require("settings")
    return (await providers.processor_connection(connection_id, actor.account_id)).processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
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
    """Check the input without the vendor. Raises: Forbidden, NotFound, Invalid, TooLong."""
    actor.require("settings")
    refusals = Refusals()
    cls: type[Processor] | None = None if processor is None else await registry.load("processors", processor)
    row: ProcessorConnection | None = None
    given: dict[str, str] = {}
    mode: bool | None = None
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
            cls = None  # the credentials can't be checked: they may be meant for either processor
            raise NotFound(field="connectionId")
    with refusals:
        if cls is not None:
            given, mode, row = await _check_credentials(
                actor, cls, row, connection_id=connection_id, credentials=credentials or {}, test_mode=test_mode
            )
    refusals.raise_any()
    if cls is None:
        return None
    return Wanted(cls=cls, name=name, given=given, mode=mode, row=row)


async def _check_credentials(
    actor: Actor,
    cls: type[Processor],
    row: ProcessorConnection | None,
    *,
    connection_id: UUID | None,
    credentials: Mapping[str, str],
    test_mode: bool | None,
) -> tuple[dict[str, str], bool | None, ProcessorConnection | None]:
    refusals = Refusals()
    given: dict[str, str] = {}
    mode: bool | None = None
    complete = mode_known = False
    with refusals:
        given = processor_credentials.given_of(cls, credentials)
        if given and cls.name in providers.SELF_ISSUED:
            raise Invalid(
                f"{cls.display_name} makes its own keys: leave this out.", field=("credentials", min(given), "name")
            )
        complete = row is not None or connection_id is None
    with refusals:
        mode = processor_credentials.mode_of(cls, given, test_mode)
        if row is None and connection_id is None:
            row = await _existing(actor.account_id, None, cls.name, mode)
        if row is not None and mode is not None and row.test_mode != mode:
            raise Invalid("A connection keeps its mode; connect the other mode separately.", field="testMode")
        mode_known = True
    with refusals:
        if complete and mode_known:
            processor_credentials.merged(cls, row, given, row.test_mode if row is not None else mode)
            if row is None and mode is None:
                raise Invalid(
                    "Set testMode: these credentials don't show whether they are test or live.", field="testMode"
                )
    refusals.raise_any()
    return given, mode, row


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
    """None keeps a value; `credentials` replace single fields.

    Without `connection_id`, another vendor account makes a new connection.
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
        verified = await _verify_at_vendor(actor.account_id, wanted, named=connection_id is not None, new_id=new_id)
        stored = await _store(actor, wanted, verified, new_id=new_id, make_default=make_default)
        if stored is not None:
            return await webhook_registration.ensure(actor, stored) if verified.changes_credentials else stored
        row = await _existing(actor.account_id, connection_id, processor, wanted.mode)
        wanted = dataclasses.replace(wanted, row=row)
    raise ProcessorUnavailable("This connection is being changed by another request: try again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verified:
    row: ProcessorConnection | None
    credentials: dict[str, str]
    vendor_account: str | None
    changes_credentials: bool


async def _verify_at_vendor(account_id: UUID, wanted: Wanted, *, named: bool, new_id: UUID) -> _Verified:
    cls, given, row = wanted.cls, wanted.given, wanted.row
    mode = row.test_mode if row is not None else wanted.mode
    credentials = processor_credentials.merged(cls, row, given, mode)
    if row is not None and row.connected and not given and credentials == providers.readable(row):
        return _Verified(row=row, credentials=credentials, vendor_account=row.vendor_account, changes_credentials=False)
    url = providers.webhook_address(cls.name, row.id if row is not None else new_id)
    vendor_account = await processor_credentials.verify(cls, credentials, url, given)
    if row is not None and row.vendor_account != vendor_account:
        other = await _find_by_vendor_account(account_id, cls.name, row.test_mode, vendor_account)
        if other is not None or row.vendor_account is not None:
            if named:
                raise ProcessorRejected(
                    "These credentials belong to another account there: connect it separately, without processorId.",
                    field=processor_credentials.blamed_field(cls, given),
                )
            # Another connection: merge the given credentials with its own stored ones.
            row = other
            credentials = processor_credentials.merged(cls, row, given, mode)
            url = providers.webhook_address(cls.name, row.id if row is not None else new_id)
            vendor_account = await processor_credentials.verify(cls, credentials, url, given)
    return _Verified(row=row, credentials=credentials, vendor_account=vendor_account, changes_credentials=True)


async def _store(
    actor: Actor, wanted: Wanted, verified: _Verified, *, new_id: UUID, make_default: bool | None
) -> ProcessorConnection | None:
    # None: changed since the vendor checked these credentials.
    cls, processor = wanted.cls, wanted.cls.name
    row_id = verified.row.id if verified.row is not None else new_id
    async with change(actor.account_id, actor=actor.ref) as changed:
        row = await providers.lock_processor(actor.account_id, row_id)
        mode = row.test_mode if row is not None else wanted.mode
        is_test = mode if mode is not None else processor in providers.SELF_ISSUED
        if verified.changes_credentials and await _changed_since(actor.account_id, processor, is_test, verified, row):
            return None
        values: dict[str, Any] = {} if wanted.name is None else {"display_name": wanted.name}
        if verified.changes_credentials:
            values |= _credential_values(actor.account_id, cls, row, verified)
        if row is None or row.connected or verified.changes_credentials:
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


async def _changed_since(
    account_id: UUID, processor: str, is_test: bool, verified: _Verified, row: ProcessorConnection | None
) -> bool:
    if row is None or row.vendor_account != verified.vendor_account:
        other = await _find_by_vendor_account(account_id, processor, is_test, verified.vendor_account)
        if other is not None and other != row:
            return True
    if row is None or verified.row is None:
        return row is not verified.row
    return row.connected != verified.row.connected or not providers.same_credentials(row, verified.row)


def _credential_values(
    account_id: UUID, cls: type[Processor], row: ProcessorConnection | None, verified: _Verified
) -> dict[str, Any]:
    # Another webhook's secret replaces the registered one.
    credentials = verified.credentials
    held = providers.readable(row)
    registered = (
        row is not None
        and row.webhook_registered
        and all(credentials.get(field) == held.get(field) for field in providers.webhook_secret_fields(cls))
    )
    if row is not None and row.webhook_registered and not registered:
        of_webhook = set(processor_credentials.hidden_fields(cls)) - {processor_credentials.MODE}
        credentials = {name: value for name, value in credentials.items() if name not in of_webhook}
    return {
        "credentials": providers.sealed(account_id, credentials),
        "key_hint": processor_credentials.hint(cls, credentials),
        "vendor_account": verified.vendor_account,
        "connected": True,
        "last_error": None,
        "webhook_registered": registered,
    }


async def _becomes_default(
    account_id: UUID, row_id: UUID, row: ProcessorConnection | None, is_test: bool, wanted: bool | None
) -> bool:
    others = ProcessorConnection.filter(account_id=account_id, is_default=True, connected=True).exclude(id=row_id)
    is_default = bool(wanted)
    if not await others.exists():
        # As first_choice: no test connection after a live one.
        had_live = ProcessorConnection.filter(account_id=account_id, test_mode=False)
        is_default = is_default or not is_test or not await had_live.exists()
    if row is not None and wanted is None:
        is_default = is_default or row.is_default
    if is_default:
        await others.update(is_default=False)
    return is_default


async def check_processor(actor: Actor, connection_id: UUID) -> tuple[ProcessorConnection, Refusal | None]:
    """Store the result as `last_error`. Raises: Forbidden, NotFound."""
    actor.require("settings")
    row = await providers.processor_connection(connection_id, actor.account_id)
    refusal: Refusal | None = None
    try:
        if not providers.allowed(row):
            raise ProcessorUnavailable("The sandbox is closed here.")
        vendor_account = await processor_credentials.verify(
            registry.processor_class(row.processor), providers.credentials_of(row), providers.webhook_url(row), {}
        )
        if row.vendor_account not in (None, vendor_account):
            raise ProcessorRejected("The stored credentials now belong to another account at the processor.")
    except (Invalid, ProcessorRejected, ProcessorUnavailable) as refused:
        refusal = type(refused)(refused.message)  # without a field: it is about stored values
    except UnknownProvider:
        refusal = ProcessorUnavailable("The plug-in of this processor is not installed.")
    except vault.VaultError:
        refusal = ProcessorUnavailable(providers.UNREADABLE)
    else:
        await processor_health.answered(row)
    async with change(actor.account_id, actor=actor.ref) as changed:
        locked = await providers.lock_processor(actor.account_id, row.id) or row
        problem = locked.last_error
        if providers.same_credentials(locked, row):  # else the answer is about replaced credentials
            if refusal is not None:
                problem = refusal.message[: providers.ERROR_LIMIT]
            elif locked.last_error == row.last_error:  # a newer error stays
                problem = providers.webhook_problem(locked)
        if locked.last_error != problem:
            await ProcessorConnection.filter(id=row.id).update(last_error=problem)
            changed.event("processor.updated")
        await audit_log.record(actor, "processor.tested", public_id("prc", row.id), {"passed": refusal is None})
        return await providers.processor_connection(connection_id, actor.account_id), refusal


async def _existing(
    account_id: UUID, connection_id: UUID | None, processor: str, mode: bool | None
) -> ProcessorConnection | None:
    if connection_id is not None:
        return await providers.processor_connection(connection_id, account_id)
    found = ProcessorConnection.filter(account_id=account_id, processor=processor)
    if mode is not None:
        found = found.filter(test_mode=mode)
    return await found.order_by("-connected", "-is_default", "id").first()


async def _find_by_vendor_account(
    account_id: UUID, processor: str, test_mode: bool, vendor_account: str | None
) -> ProcessorConnection | None:
    found = ProcessorConnection.filter(account_id=account_id, processor=processor, test_mode=test_mode)
    found = found.filter(vendor_account=vendor_account) if vendor_account else found.filter(vendor_account__isnull=True)
    return await found.order_by("is_duplicate", "id").first()


async def disconnect_processor(actor: Actor, connection_id: UUID) -> ProcessorConnection:
    """The credentials stay for pending payments. Raises: Forbidden, NotFound."""
    actor.require("settings")
    async with change(actor.account_id, actor=actor.ref) as changed:
        held = await providers.lock_processor(actor.account_id, connection_id)
        if held is None:
            raise NotFound
        row = held
        was_connected = row.connected
        if was_connected:
            await providers.end_connection(row)
            changed.event("processor.updated")
            await audit_log.record(actor, processor_health.DISCONNECTED, public_id("prc", row.id))
        row = await providers.processor_connection(connection_id, actor.account_id)
    if was_connected and row.webhook_registered and await webhook_registration.unregister(row, providers.readable(row)):
        await webhook_registration.forget(row)
        row = await providers.processor_connection(connection_id, actor.account_id)
        if row.connected:  # connected again meanwhile
            return await webhook_registration.ensure(actor, row)
    return await providers.processor_connection(connection_id, actor.account_id)
