"""Registers and deletes webhooks at processors."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from tortoise.expressions import F, Q

from integrations import registry
from integrations.base import IntegrationError, Processor
from integrations.registry import UnknownProvider
from models import database
from models.tables import ProcessorConnection
from services.connections import processor_credentials, providers
from services.core.permissions import Actor
from services.core.unit_of_work import change

log = structlog.get_logger(__name__)

CLAIM: Final = timedelta(minutes=3)  # longer than the calls of one registration take


async def ensure(actor: Actor, row: ProcessorConnection) -> ProcessorConnection:
    """Register a webhook unless the connection has a webhook secret."""
    cls = registry.processor_class(row.processor)
    held = providers.readable(row)
    if any(held.get(field) for field in providers.webhook_secret_fields(cls)):
        return row
    now = datetime.now(UTC)
    free = Q(webhook_claimed_until=None) | Q(webhook_claimed_until__lt=now)
    claimed = ProcessorConnection.filter(free, id=row.id, connected=True)
    if not await claimed.update(webhook_claimed_until=now + CLAIM):
        return await ProcessorConnection.get(id=row.id)
    # Read again under the claim: another call may have registered a webhook, which a second registration would delete.
    row = await ProcessorConnection.get(id=row.id)
    held = providers.readable(row)
    if any(held.get(field) for field in providers.webhook_secret_fields(cls)):
        await ProcessorConnection.filter(id=row.id).update(webhook_claimed_until=None)
        return await ProcessorConnection.get(id=row.id)
    found, problem = await _register(cls, held, providers.webhook_url(row))
    async with change(actor.account_id, actor=actor.ref) as changed:
        current = await providers.lock_processor(row.account_id, row.id) or row
        held = providers.readable(current)
        given = any(held.get(field) for field in providers.webhook_secret_fields(cls))
        wanted = current.connected and not given  # not disconnected, and no secret given meanwhile
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
        await unregister(row, {**held, **found})
    return await ProcessorConnection.get(id=row.id)


async def _register(
    cls: type[Processor], credentials: Mapping[str, str], url: str
) -> tuple[Mapping[str, str], str | None]:
    if not url.startswith("https://"):
        return {}, None  # vendors can't, or should not, deliver to it
    try:
        async with processor_credentials.probe(cls, credentials, url) as probe:
            return await probe.register_webhook() or {}, None
    except IntegrationError as error:
        log.warning("webhook_registration_failed", provider=error.provider, reason=error.reason)
        return {}, (
            f"{cls.display_name} did not take the webhook's address ({error.reason}): add it there and give its"
            " secret here. Until then payments are noticed late."
        )


async def unregister(row: ProcessorConnection, credentials: Mapping[str, str]) -> bool:
    try:
        async with processor_credentials.probe(
            registry.processor_class(row.processor), credentials, providers.webhook_url(row)
        ) as probe:
            await probe.unregister_webhook()
    except (IntegrationError, UnknownProvider) as error:
        log.warning("webhook_removal_failed", provider=row.processor, reason=getattr(error, "reason", "not_installed"))
        return False
    return True


async def forget(row: ProcessorConnection) -> None:
    async with database.transaction():
        current = await providers.lock_processor(row.account_id, row.id) or row
        taken, held = processor_credentials.webhook_part(row), providers.readable(current)
        if current.webhook_registered and processor_credentials.webhook_part(current) == taken:
            left = {name: value for name, value in held.items() if name not in taken}
            await ProcessorConnection.filter(id=row.id).update(
                credentials=providers.sealed(row.account_id, left), webhook_registered=False, version=F("version") + 1
            )
