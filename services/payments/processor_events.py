"""Handles stored events: records what is certain, reads the rest, repeats failures."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog
from tortoise.expressions import F, Q

from integrations.base import (
    IntegrationError,
    MoneyKind,
    MoneyStatement,
    ProcessorWebhook,
)
from models.ids import public_id
from models.ledger import CardKind
from models.tables import (
    Account,
    AuditEntry,
    Job,
    ProcessorConnection,
    ProcessorEvent,
)
from services.connections import processor_health, providers
from services.core import jobs
from services.core.actors import processor
from services.core.unit_of_work import Change, change
from services.payments import captures, event_reads, event_trust, recorder
from services.thread import activity_cards, notifications, request_rows

log = structlog.get_logger(__name__)


CLOCKS_DIFFER = timedelta(minutes=1)  # this server's and a vendor's, at most
LOOK_AGAIN_FIRST = timedelta(minutes=1)  # doubled each time
LOOK_AGAIN_FOR = timedelta(days=3)  # vendors resend as long
AGAIN_AT_LEAST, AGAIN_AT_MOST = timedelta(seconds=60), timedelta(days=1)  # between two tries
NOTICE_AFTER = timedelta(days=7)  # then the team is notified
HINT = "hint:"  # stored id prefix of an event without an id
HINTS_TOGETHER = timedelta(seconds=5)  # hints at one object share a read
MAY_LAG = timedelta(minutes=5)  # a vendor's checkout may name a payment later than its event


async def record_or_postpone(
    changed: Change,
    connection: ProcessorConnection,
    event: ProcessorWebhook,
    row: ProcessorEvent,
    matching: UUID | None = None,
) -> None:
    """Record an event that decides and matches; queue a job if its object must be read.

    `matching`: the request of `event_trust.matching_request`, if one was found; a checkout never changes its request or amount.
    """
    if event.disconnected and event.decides:
        await _disconnect(changed, connection, event, row)
    elif event.disconnected:
        await postpone(row)
    elif event.external_id is None or (event.charge_external_id is not None and not event.decides):
        # Further hints at the same object share one read.
        last = await Job.filter(key=_job_key(row)).first()
        again = last is not None and abs(row.received_at - last.created_at) < HINTS_TOGETHER
        await postpone(row, due_at=row.received_at + HINTS_TOGETHER if again else None)
    elif not event.money and event.checkout_external_id is None:
        await ProcessorEvent.filter(id=row.id).update(handled_at=row.received_at, result="ignored")
    elif event.decides and (request_id := matching or await event_trust.matching_request(connection, event)):
        report = recorder.CheckoutReport(
            external_id=event.checkout_external_id or "", status=event.checkout_status, delay=event.delay
        )
        await recorder.record(
            connection,
            event.money,
            source="webhook",
            checkout=report,
            event=row,
            event_locked=True,
            known_request_id=request_id,
        )
    elif (
        await recorder.find_request_id(connection, event.money, event.checkout_external_id, event.request_reference)
        is None
    ):
        # From another program on the same processor account: stored, no effect.
        await _record(connection, event, row, (), None)
        if later := _look_again_after(event, row, row.received_at):
            await postpone(row, due_at=row.received_at + later)
    else:
        # Does not decide or match: read the object first.
        await postpone(row)


async def postpone(row: ProcessorEvent, *, due_at: datetime | None = None) -> None:
    """Queue the event's job."""
    await jobs.enqueue(
        "processor_event.handle",
        {"event_id": str(row.id)},
        account_id=row.account_id,
        key=_job_key(row),
        due_at=due_at,
        again=True,
    )


def _job_key(row: ProcessorEvent) -> str:
    return f"processor_event:{row.id}"


async def repeat_unhandled(now: datetime, limit: int) -> int:
    """Queue unhandled events that have no job; return how many."""
    # A receipt time in the future means that the clock was set back.
    old = Q(received_at__lte=now - timedelta(seconds=60)) | Q(received_at__gt=now + timedelta(seconds=60))
    stuck = ProcessorEvent.filter(old, handled_at=None)
    rows = await stuck.order_by("attempts", "received_at").limit(limit)
    jobs_of = await Job.filter(key__in=[_job_key(row) for row in rows]).only("id", "key", "status")
    state = {job.key: job.status for job in jobs_of}
    left = [row for row in rows if state.get(_job_key(row)) not in ("queued", "running")]
    for row in left:
        # Its process died at every try and may die again.
        dead = state.get(_job_key(row)) == "dead"
        await postpone(row, due_at=now + _again_after(row, now) if dead else None)
    return len(left)


@jobs.handler("processor_event.handle", on_dead="sweeper.events queues every unhandled event again")
async def handle_job(job: jobs.JobContext) -> None:
    """Read the object that an event names, then record it."""
    row = await ProcessorEvent.get(id=UUID(job.payload["event_id"]))
    if row.handled_at is not None and row.external_id.startswith(HINT):
        # The hint was repeated during the read, which may be outdated.
        await ProcessorEvent.filter(id=row.id).update(handled_at=None, result=None)
        row.handled_at = None
    if row.handled_at is not None and row.result != recorder.UNMATCHED:
        return
    connection = await providers.processor_connection(row.processor_connection_id, row.account_id)
    await ProcessorEvent.filter(id=row.id).update(attempts=F("attempts") + 1)
    event: ProcessorWebhook | None = None
    try:
        live = providers.processor(connection)
        event = event_trust.trusted_part(live, live.parse(row.body.encode()))
        recorded = await _handle(connection, event, row)
    except Exception as error:  # (top of the loop: the event is retried whatever fails)
        if isinstance(error, IntegrationError):
            await processor_health.refused(connection, error)
        await ProcessorEvent.filter(id=row.id).update(error=_error_text(error))
        if row.handled_at is not None:
            raise  # unmatched so far: nothing depends on it
        now = datetime.now(UTC)
        if now - row.received_at > NOTICE_AFTER:
            await _notify_unhandled(connection, event, row)
        elif not job.last_attempt:
            raise
        log.warning("processor_event_waits", provider=connection.processor, event_type=row.type, error=_reason(error))
        raise jobs.Later(_again_after(row, now).total_seconds()) from error
    if recorded.request is None and event.external_id is None:  # anyone may have sent it: keep nothing
        await ProcessorEvent.filter(id=row.id, result=recorder.UNMATCHED).delete()
        return
    later = _look_again_after(event, row, datetime.now(UTC)) if recorded.request is None else None
    if later is not None:
        raise jobs.Later(later.total_seconds())


async def _handle(connection: ProcessorConnection, event: ProcessorWebhook, row: ProcessorEvent) -> recorder.Recorded:
    if event_trust.is_other_mode(connection, event):  # stored by an older version
        return await _record(connection, dataclasses.replace(event, request_reference=None), row, (), None)
    if event.disconnected:
        if not event.decides and not await _is_access_revoked(connection):
            return await _record(connection, event, row, (), None)
        async with change(connection.account_id, actor=processor(connection.display_name)) as changed:
            await _disconnect(changed, connection, event, row)
        return recorder.Recorded()
    state, money_read, confirmed = await event_reads.read(connection, event)
    if not confirmed and datetime.now(UTC) - row.received_at < MAY_LAG:
        # Facts never change: stored unconfirmed, it would never count. Its checkout may name it soon.
        raise IntegrationError(connection.processor, "not_confirmed_yet", retryable=True)
    if state is None:
        *others, own = await _by_request(connection, event, money_read)
        for money in others:
            await recorder.record(connection, money, source="webhook", confirmed=confirmed)
        return await _record(connection, event, row, own, None, confirmed=confirmed)
    # Add what only the signed event reports, such as a decline; otherwise the object is current.
    ids = {s.external_id for s in state.money}
    money = [*(s for s in event.money if s.external_id not in ids), *state.money]
    read = await captures.record_read(
        connection, state, source="webhook", money=money, request_reference=event.request_reference, event=row
    )
    return read.recorded


async def _record(
    connection: ProcessorConnection,
    event: ProcessorWebhook,
    row: ProcessorEvent,
    money: Sequence[MoneyStatement],
    report: recorder.CheckoutReport | None,
    *,
    confirmed: bool = True,
) -> recorder.Recorded:
    return await recorder.record(
        connection,
        money,
        source="webhook",
        checkout=report,
        request_reference=event.request_reference,
        event=row,
        confirmed=confirmed,
    )


async def _by_request(
    connection: ProcessorConnection, event: ProcessorWebhook, money: Sequence[MoneyStatement]
) -> list[Sequence[MoneyStatement]]:
    if len(money) < 2 or event.request_reference is not None:
        return [money]
    # A vendor's case may concern several requests.
    owned: dict[UUID, list[MoneyStatement]] = {}
    for statement in money:
        owner = await recorder.find_request_id(connection, [statement], None, None)
        if owner is not None:
            owned.setdefault(owner, []).append(statement)
    return list(owned.values()) or [()]


def _look_again_after(event: ProcessorWebhook, row: ProcessorEvent, now: datetime) -> timedelta | None:
    age = now - row.received_at
    # Only a refund or dispute may arrive before its charge.
    if age > LOOK_AGAIN_FOR or all(s.kind == MoneyKind.CHARGE for s in event.money):
        return None
    return max(LOOK_AGAIN_FIRST, age)


def _again_after(row: ProcessorEvent, now: datetime) -> timedelta:
    age = now - row.received_at
    return AGAIN_AT_MOST if age > NOTICE_AFTER else min(max(AGAIN_AT_LEAST, age / 10), AGAIN_AT_MOST)


async def _disconnect(
    changed: Change, connection: ProcessorConnection, event: ProcessorWebhook, row: ProcessorEvent
) -> None:
    await Account.filter(id=connection.account_id).select_for_update(no_key=True).get()
    fresh = await providers.processor_connection(connection.id, connection.account_id)
    configured = AuditEntry.filter(
        account_id=fresh.account_id, action=processor_health.CONFIGURED, subject=public_id("prc", fresh.id)
    )
    newest = await configured.order_by("-id").first()
    reported_at = event.created_at
    before = newest is not None and reported_at is not None and reported_at < newest.occurred_at - CLOCKS_DIFFER
    if not fresh.connected or before:  # connected again since
        await ProcessorEvent.filter(id=row.id).update(handled_at=row.received_at, result="ignored")
        return
    name = providers.processor_name(fresh)
    advice = f"{name} no longer allows Paythread on this account. Connect it again under Settings → Payments."
    await processor_health.disconnect(changed, fresh, advice=advice)
    await ProcessorEvent.filter(id=row.id).update(handled_at=row.received_at, result="recorded")


async def _is_access_revoked(connection: ProcessorConnection) -> bool:
    try:
        await providers.processor(connection).check()
    except IntegrationError as error:
        if error.reason not in processor_health.REVOKED:
            raise
        return True
    return False


async def _notify_unhandled(
    connection: ProcessorConnection, event: ProcessorWebhook | None, row: ProcessorEvent
) -> None:
    log.error("processor_event_unhandled", provider=connection.processor, event_type=row.type)
    if event is None:
        return
    owner = await recorder.find_request_id(connection, event.money, event.checkout_external_id, event.request_reference)
    if owner is None:
        return
    by = processor(connection.display_name)
    async with change(connection.account_id, actor=by, queue_on=[owner]) as changed:
        request = await request_rows.lock(connection.account_id, owner)
        await notifications.notify(
            changed,
            request,
            CardKind.PAYMENT_MISMATCH,
            title="Processor's event not recorded",
            body=activity_cards.event_unhandled(request),
            cause_key=f"event_unhandled:{row.id}",
        )


def _error_text(error: Exception) -> str:
    return f"{error.reason}: {error.message}"[:300] if isinstance(error, IntegrationError) else type(error).__name__


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, IntegrationError) else type(error).__name__
