"""Ends connections with refused credentials and restores them after a successful call."""

from __future__ import annotations

from typing import Final

import structlog
from tortoise.expressions import F

from integrations.base import IntegrationError
from models.ids import public_id
from models.ledger import CardKind
from models.tables import AuditEntry, ProcessorConnection
from services.connections import providers
from services.core import audit_log
from services.core.actors import processor
from services.core.permissions import system_actor
from services.core.unit_of_work import Change, change
from services.thread import notifications

log = structlog.get_logger(__name__)

CONFIGURED: Final = "processor.configured"
DISCONNECTED: Final = "processor.disconnected"
RECONNECTED: Final = "processor.reconnected"
# No call with these credentials can succeed: new requests must not use them.
REVOKED: Final = frozenset({"authentication_failed", "access_revoked"})


async def refused(connection: ProcessorConnection, error: IntegrationError) -> bool:
    """Record refused credentials unless they were replaced; return whether that is new."""
    if error.retryable or error.ambiguous or error.reason not in providers.REFUSED:
        return False
    async with change(connection.account_id, actor=processor(connection.display_name)) as changed:
        locked = await providers.lock_processor(connection.account_id, connection.id) or connection
        advice = providers.advice(locked, error.reason)
        if not providers.same_credentials(locked, connection):
            return False
        if error.reason in REVOKED and locked.connected:
            await disconnect(changed, locked, advice=advice)
            return True
        if locked.last_error == advice:
            return False
        await ProcessorConnection.filter(id=locked.id).update(last_error=advice)
        changed.event("processor.updated")
        return True


async def disconnect(changed: Change, row: ProcessorConnection, *, advice: str) -> None:
    """The caller holds the locks of account and row."""
    name = providers.processor_name(row)
    await providers.end_connection(row, last_error=advice)
    changed.event("processor.updated")
    await audit_log.record(
        system_actor(row.account_id), DISCONNECTED, public_id("prc", row.id), {"processor": row.processor}
    )
    await notifications.notify_admins(
        changed,
        CardKind.PROCESSOR_DISCONNECTED,
        title=f"{name} is disconnected",
        body=advice,
        cause_key=f"disconnected:{row.id}:{row.version}",
    )
    log.warning("processor_disconnected_by_vendor", provider=row.processor)


async def note(connection: ProcessorConnection, problem: str) -> bool:
    """Store another problem; return whether it is new."""
    if connection.last_error == problem[: providers.ERROR_LIMIT]:
        return False
    async with change(connection.account_id, actor=processor(connection.display_name)) as changed:
        news = await providers.note_processor(connection, problem)
        if news:
            changed.event("processor.updated")
        return news


async def works(connection: ProcessorConnection) -> None:
    if connection.last_error is None:
        return
    await answered(connection)
    async with change(connection.account_id, actor=processor(connection.display_name)) as changed:
        if await providers.note_working(connection):
            changed.event("processor.updated")


async def answered(connection: ProcessorConnection) -> None:
    """Restore a connection that a refusal ended, not one disconnected by a person."""
    ended_by = {providers.advice(connection, reason) for reason in REVOKED}
    if connection.connected or connection.last_error not in ended_by:
        return
    async with change(connection.account_id, actor=processor(connection.display_name)) as changed:
        locked = await providers.lock_processor(connection.account_id, connection.id) or connection
        subject = public_id("prc", locked.id)
        turns = AuditEntry.filter(account_id=locked.account_id, subject=subject, action__in=[CONFIGURED, DISCONNECTED])
        newest = await turns.order_by("-id").first()
        by_vendor = newest is not None and newest.action == DISCONNECTED and newest.actor_kind == "system"
        if locked.connected or not by_vendor or not providers.same_credentials(locked, connection):
            return
        others = ProcessorConnection.filter(account_id=locked.account_id)
        chosen = await others.filter(is_default=True, connected=True).exists()
        # As first_choice: no test connection after a live one.
        wanted = not locked.test_mode or not await others.filter(test_mode=False).exists()
        await ProcessorConnection.filter(id=locked.id).update(
            connected=True, is_default=wanted and not chosen, last_error=None, version=F("version") + 1
        )
        changed.event("processor.updated")
        await audit_log.record(system_actor(locked.account_id), RECONNECTED, subject, {"processor": locked.processor})
        log.info("processor_reconnected", provider=locked.processor)
