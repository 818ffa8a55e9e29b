"""The processors' webhooks: verify, keep the raw event under its unique key, record, in one short transaction. Then 2xx.

What can't be recorded at once is kept unhandled with its job; a repeat of an unhandled event is queued again. The body is never logged.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

import structlog

from integrations.base import IntegrationError, PayloadInvalid, ProcessorWebhook, SignatureInvalid
from models import errors
from models.ids import uuid7
from models.tables import CheckoutSession, ProcessorConnection, ProcessorEvent
from services import connections, jobs, recorder
from services.changes import change

log = structlog.get_logger(__name__)


class BadSignature(Exception):
    """The webhook is not from the processor, or too old or too far ahead: 400, nothing is stored."""


class BadPayload(Exception):
    """Signed, but not what the vendor's contract says: 400; kept out of the ledger."""


async def receive(processor: str, connection_id: UUID, body: bytes, headers: Mapping[str, str]) -> None:
    """Take one webhook. `headers` has lower-case names. Returns after the commit. Raises: NotFound, BadSignature, BadPayload."""
    connection = await ProcessorConnection.get_or_none(id=connection_id, processor=processor)
    if connection is None or not connections.credentials_of(connection).get("webhook_secret"):
        raise errors.NotFound
    now = datetime.now(UTC)
    try:
        event = connections.processor(connection).receive(body, headers, now=now)
    except SignatureInvalid as error:
        raise BadSignature(error.reason) from error
    except PayloadInvalid as error:
        raise BadPayload(error.reason) from error
    if event.vendor_account is not None and event.vendor_account != connection.vendor_account:
        raise BadPayload("another vendor account")
    await _store_and_record(connection, event, body.decode(), now)


async def take_listed(connection: ProcessorConnection, event: ProcessorWebhook, now: datetime) -> None:
    """Take an event from the vendor's own list of undelivered ones, as if it had arrived."""
    await _store_and_record(connection, event, event.raw.decode(), now)


async def _store_and_record(connection: ProcessorConnection, event: ProcessorWebhook, body: str, now: datetime) -> None:
    async with change(connection.account_id):
        row = ProcessorEvent(
            id=uuid7(),
            account_id=connection.account_id,
            processor_connection_id=connection.id,
            external_id=event.external_id,
            type=event.type[:120],
            body=body,
            received_at=now,
        )
        await ProcessorEvent.bulk_create([row], ignore_conflicts=True)
        stored = (
            await ProcessorEvent.filter(processor_connection_id=connection.id, external_id=event.external_id)
            .select_for_update()
            .get()
        )
        await ProcessorConnection.filter(id=connection.id).update(last_webhook_at=now)
        if stored.handled_at is not None:
            return  # a repeat: one fact, one card
        if event.decides and await _fits(connection, event):
            await _record(connection, event, stored)
        elif not event.money and event.checkout_external_id is None:
            await ProcessorEvent.filter(id=stored.id).update(handled_at=now, result="ignored")
        else:
            # A hint (or something that does not fit what we stored): the object is fetched before anything is decided.
            await jobs.enqueue(
                "processor_event.handle",
                {"event_id": str(stored.id)},
                account_id=connection.account_id,
                key=f"processor_event:{stored.id}:{stored.attempts}",
            )


async def _fits(connection: ProcessorConnection, event: ProcessorWebhook) -> bool:
    """A full event whose connection, checkout, amount and currency all fit may be recorded as it stands."""
    if event.checkout_external_id is None:
        return not event.money
    session = await CheckoutSession.get_or_none(
        processor_connection_id=connection.id, external_id=event.checkout_external_id
    )
    if session is None:
        return False
    return all((s.amount_minor, s.currency) == (session.amount_minor, session.currency) for s in event.money)


async def _record(connection: ProcessorConnection, event: ProcessorWebhook, row: ProcessorEvent) -> None:
    report = (
        recorder.CheckoutReport(external_id=event.checkout_external_id, status=event.checkout_status)
        if event.checkout_external_id
        else None
    )
    await recorder.record(
        connection,
        event.money,
        source="webhook",
        checkout=report,
        request_reference=event.request_reference,
        event=row,
    )


@jobs.handler("processor_event.handle")
async def handle_job(job: jobs.JobContext) -> None:
    """Read what the event points at, then record. Key: the stored event; a handled one is left alone."""
    row = await ProcessorEvent.get(id=UUID(job.payload["event_id"]))
    if row.handled_at is not None:
        return
    connection = await connections.processor_connection(row.processor_connection_id, row.account_id)
    await ProcessorEvent.filter(id=row.id).update(attempts=row.attempts + 1)
    try:
        await handle(connection, row)
    except IntegrationError as error:
        await ProcessorEvent.filter(id=row.id).update(error=f"{error.reason}: {error.message}"[:300])
        raise


async def handle(connection: ProcessorConnection, row: ProcessorEvent) -> None:
    """Record a stored event after reading its checkout at the processor. Raises: IntegrationError."""
    processor = connections.processor(connection)
    event = processor.parse(row.body.encode())
    money = list(event.money)
    report = None
    reference = event.request_reference
    if event.checkout_external_id is not None:
        state = await processor.read_checkout(event.checkout_external_id)
        seen = {(s.kind, s.external_id, s.outcome) for s in state.money}
        # What the signed event alone says (a decline, say) is kept beside what the object says now; for money that is there, the object.
        ids = {s.external_id for s in state.money}
        money = [s for s in money if (s.kind, s.external_id, s.outcome) not in seen and s.external_id not in ids]
        money = [*money, *state.money]
        report = recorder.CheckoutReport(
            external_id=state.external_id, status=state.status, expires_at=state.expires_at
        )
        reference = reference or state.request_reference
    await recorder.record(connection, money, source="webhook", checkout=report, request_reference=reference, event=row)
