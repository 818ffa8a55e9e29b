"""Merges and checks a processor's credentials."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping
from typing import Final

import structlog

from integrations.base import IntegrationError, Processor
from models.errors import Invalid, ProcessorRejected, ProcessorUnavailable, Refusals
from models.tables import ProcessorConnection
from services.connections import providers
from services.core import validation

log = structlog.get_logger(__name__)

SECRET_LIMIT: Final = 1000
# The credential ("test" or "live") of a provider whose keys don't show whether they move real money.
MODE: Final = "mode"


def fields_of(cls: type[Processor]) -> list[str]:
    return [f.name for f in dataclasses.fields(cls.credentials)]


def hidden_fields(cls: type[Processor]) -> list[str]:
    """Credentials that people do not enter."""
    return [
        name
        for name in fields_of(cls)
        if name == MODE or (name.startswith("webhook") and name not in providers.webhook_secret_fields(cls))
    ]


def given_of(cls: type[Processor], credentials: Mapping[str, str]) -> dict[str, str]:
    taken = [name for name in fields_of(cls) if name not in hidden_fields(cls)]
    found: dict[str, str] = {}
    refusals = Refusals()
    for name, value in credentials.items():
        with refusals:
            if name == MODE and MODE in fields_of(cls):
                raise Invalid("Set testMode instead of `mode`.", field=("credentials", MODE, "name"))
            if name not in taken:
                raise Invalid(
                    f"{cls.display_name} takes these credentials only: {', '.join(taken)}.",
                    field=("credentials", name, "name"),
                )
        with refusals:
            found[name] = validation.optional(value, limit=SECRET_LIMIT, field=("credentials", name, "value")) or ""
    refusals.raise_any()
    return found


def merged(
    cls: type[Processor], row: ProcessorConnection | None, given: Mapping[str, str], mode: bool | None
) -> dict[str, str]:
    held = providers.readable(row)
    if row is not None and row.webhook_registered and not row.connected:
        # The vendor may have deleted our webhook while disconnected: register a new one.
        held = {name: value for name, value in held.items() if name not in webhook_part(row)}
    merged = {**held, **given}
    if cls.name in providers.SELF_ISSUED:
        merged = providers.issued_keys(cls.name, fields_of(cls), merged)
    if MODE in fields_of(cls):
        if mode is None:
            raise Invalid("Set testMode: these credentials don't show whether they are test or live.", field="testMode")
        merged[MODE] = "test" if mode else "live"
    refusals = Refusals()
    for field in dataclasses.fields(cls.credentials):
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        with refusals:
            if needed and not merged.get(field.name):
                raise Invalid(f"{cls.display_name} needs {field.name}.", field=("credentials", field.name))
    refusals.raise_any()
    return merged


def mode_of(cls: type[Processor], given: Mapping[str, str], wanted: bool | None) -> bool | None:
    """True for test, False for live, None if unknown. Raises: Invalid."""
    if cls.name in providers.SELF_ISSUED:
        if wanted is False:
            raise Invalid("The sandbox has no live mode.", field="testMode")
        return True
    try:
        mode = cls.mode_of(given)
    except IntegrationError as error:
        raise Invalid("Some of these keys are of test mode, others of live mode.", field="credentials") from error
    from_keys = None if mode is None else mode == "test"
    if from_keys is not None and wanted is not None and from_keys != wanted:
        raise Invalid("This key belongs to the other mode.", field="testMode")
    return from_keys if from_keys is not None else wanted


def hint(cls: type[Processor], credentials: Mapping[str, str]) -> str | None:
    key = next(
        (credentials[name] for name in providers.secret_fields(cls) if len(credentials.get(name, "")) >= 16), None
    )
    if key is None:
        return None
    head = key.partition("_")[0]
    return f"{head}_…{key[-4:]}" if "_" in key and len(head) <= 8 else f"…{key[-4:]}"


@contextlib.asynccontextmanager
async def probe(cls: type[Processor], credentials: Mapping[str, str], url: str) -> AsyncIterator[Processor]:
    """A fresh processor: a cached one may hold a revoked token."""
    made = providers.make_processor(cls.name, credentials, url)
    try:
        yield made
    finally:
        await made.aclose()


async def verify(
    cls: type[Processor], credentials: Mapping[str, str], url: str, given: Mapping[str, str]
) -> str | None:
    try:
        async with probe(cls, credentials, url) as asked:
            return await asked.check()
    except IntegrationError as error:
        log.warning("processor_check_failed", provider=error.provider, reason=error.reason)
        if error.retryable or error.ambiguous:
            raise ProcessorUnavailable(field=blamed_field(cls, given)) from error
        field, sentence = providers.advice_of(cls, error.reason)
        mode = f" in {credentials[MODE]} mode" if credentials.get(MODE) else ""
        raise ProcessorRejected(
            sentence.format(name=cls.display_name, mode=mode, reason=error.reason, url=url),
            field=("credentials", field) if field in fields_of(cls) and field else blamed_field(cls, given),
        ) from error


def blamed_field(cls: type[Processor], given: Mapping[str, str]) -> tuple[str, ...]:
    first = next((name for name in providers.secret_fields(cls) if name in given), None)
    return ("credentials", first) if first is not None else ("credentials",)


def webhook_part(row: ProcessorConnection) -> dict[str, str]:
    return {name: value for name, value in providers.readable(row).items() if name.startswith("webhook")}
