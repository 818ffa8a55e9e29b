"""Receives processors' webhooks: verifies, stores each event once, records it. The body is never logged."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

import orjson
import structlog
from tortoise.exceptions import DoesNotExist
from tortoise.expressions import Q

from integrations.base import (
    IntegrationError,
    PayloadInvalid,
    Processor,
    ProcessorWebhook,
    SignatureInvalid,
    WebhookProof,
)
from integrations.base import external_id as stored_id
from models import database, database_errors, errors, rows
from models.ids import uuid7
from models.tables import (
    CheckoutSession,
    MoneyFact,
    ProcessorConnection,
    ProcessorEvent,
)
from services.connections import processor_health, providers
from services.core import group_commit, turns, webhooks
from services.core.actors import processor
from services.core.rate_limits import RateLimiter
from services.core.unit_of_work import change
from services.payments import event_trust, processor_events, recorder
from services.thread import payment_links

log = structlog.get_logger(__name__)


SEEN_EVERY = timedelta(seconds=30)  # precision of `last_webhook_at`
OPENED_LATELY = timedelta(hours=1)
UNKNOWN_PER_S, UNKNOWN_AT_ONCE = 0.1, 10  # reads of unknown charges per connection
UNSIGNED_TOGETHER = 100  # events taken from one unsigned webhook, which anyone can send
INSTEAD_EVERY_S = 60  # between reads of recent checkouts instead
NAME_LENGTH, NAMES = 200, 2000  # limits of ids to look up
_BY_KEY = "WHERE processor_connection_id = ? AND external_id = ?"
CANNOT_VERIFY = "no_webhook_secret"  # a provider's reason if the connection has no secret
_unknown_charge_reads = RateLimiter(UNKNOWN_PER_S, UNKNOWN_AT_ONCE)
_recent_reads = RateLimiter(1 / INSTEAD_EVERY_S, 1)


async def receive(
    processor: str,
    connection_id: UUID,
    body: bytes,
    headers: Mapping[str, str],
    query: Mapping[str, str] | None = None,
) -> None:
    """Take one webhook and return after the commit; header names are lower-case.

    Raises: NotFound, BadSignature, BadPayload, NotVerifiable.
    """
    connection = await rows.first(ProcessorConnection, "WHERE id = ? AND processor = ?", connection_id, processor)
    if connection is None:
        raise errors.NotFound
    try:
        live = providers.processor(connection)
    except errors.ProcessorUnavailable as error:
        if providers.allowed(connection):  # its package is missing or broken, perhaps temporarily
            raise webhooks.NotVerifiable("provider_unavailable") from error
        raise errors.NotFound from error  # closed by the settings of this process
    now = datetime.now(UTC)
    try:
        verified = await live.verify_webhook(body, headers, now=now, query=query or {})
    except SignatureInvalid as error:
        if error.reason == CANNOT_VERIFY:
            raise errors.NotFound from error
        raise webhooks.BadSignature(error.reason) from error
    except PayloadInvalid as error:
        # Signed but unreadable: perhaps from another program on the same vendor account.
        if await _is_unmatched(connection, body):
            log.info("processor_event_foreign", provider=connection.processor, reason=error.reason)
            return
        raise webhooks.BadPayload(error.reason) from error
    except IntegrationError as error:
        await processor_health.refused(connection, error)  # a vendor that verifies its own signatures
        raise webhooks.NotVerifiable(error.reason) from error
    await _take_events(connection, live, [verified] if isinstance(verified, ProcessorWebhook) else verified, body, now)
    if connection.last_webhook_at is None or abs(now - connection.last_webhook_at) > SEEN_EVERY:
        # Outside the transaction: inside, it would serialize the connection's webhooks.
        await providers.note_webhook(connection, now)


async def _is_unmatched(connection: ProcessorConnection, body: bytes) -> bool:
    try:
        event = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(event, dict):
        return False
    found = dict.fromkeys(_all_texts(event))
    names = list(islice((text for text in found if 0 < len(text) <= NAME_LENGTH), NAMES))
    for text in names:
        if text.startswith("pr_") and await recorder.find_request_id(connection, (), None, text) is not None:
            return False
    ours: dict[str, Any] = {"processor_connection_id": connection.id, "account_id": connection.account_id}
    return not (
        await CheckoutSession.exists(external_id__in=names, **ours)
        or await MoneyFact.exists(external_id__in=names, **ours)
    )


def _all_texts(thing: object) -> Iterator[str]:
    waiting = [thing]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        else:
            waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


async def take_listed(connection: ProcessorConnection, event: ProcessorWebhook, now: datetime) -> None:
    """Take an event from the vendor's list of undelivered events."""
    await _take_event(connection, event, event.raw.decode(), now)


async def _take_events(
    connection: ProcessorConnection, live: Processor, events: Sequence[ProcessorWebhook], body: bytes, now: datetime
) -> None:
    if live.capabilities.webhook_proof is WebhookProof.NONE and len(events) > UNSIGNED_TOGETHER:
        log.warning("processor_hints_many", provider=connection.processor, count=len(events))
        events = events[:UNSIGNED_TOGETHER]
    failure: Exception | None = None
    ends = time.monotonic() + webhooks.VENDOR_WAITS_S
    for event in events:
        if event.vendor_account is not None and event.vendor_account != connection.vendor_account:
            # A platform's endpoint receives events of all its accounts; the vendor disables it if it refuses them.
            log.info("processor_event_of_another_account", provider=connection.processor, event_type=event.type)
            continue
        kept = (event.raw or body).decode(errors="replace")
        try:
            await _take_event(
                connection,
                event_trust.trusted_part(live, event),
                kept,
                now,
                patience_s=max(0.0, ends - time.monotonic()),
            )
        except Exception as error:  # (the loop's top of a batch; raised at its end)
            log.exception("processor_event_not_kept", provider=connection.processor, event_type=event.type)
            failure = failure or error
    if failure is not None:
        raise failure


async def _take_event(
    connection: ProcessorConnection,
    event: ProcessorWebhook,
    body: str,
    now: datetime,
    *,
    patience_s: float = webhooks.VENDOR_WAITS_S,
) -> None:
    if event_trust.is_other_mode(connection, event):
        # Test money never pays a live request, nor the reverse. Some vendors send both modes to one endpoint.
        log.info("processor_event_of_other_mode", provider=connection.processor, event_type=event.type)
        return
    try:
        matching = await event_trust.matching_request(connection, event)
        owner = matching or await event_trust.find_request_id(connection, event)
        if event.external_id is None and owner is None and not await _may_read(connection, event):
            return  # unmatched, and not to be read
        if patience_s <= 0:
            raise turns.Busy(turns.Busy.__doc__)

        async def record() -> None:
            by, rows_locked = processor(connection.display_name), [owner] if owner is not None else []
            async with change(connection.account_id, actor=by, queue_on=rows_locked) as changed:
                row = await _store_event(connection, event, body, now)
                if row.handled_at is None:
                    await processor_events.record_or_postpone(changed, connection, event, row, matching)

        with turns.patience(patience_s):
            try:
                await group_commit.run(record)
            except group_commit.Abandoned:
                await record()
    except Exception as error:  # (top of the loop: the event is stored whatever fails)
        if database_errors.is_transient(error):  # usually a locked row: store now, handle later
            log.warning("processor_event_postponed", provider=connection.processor, error=type(error).__name__)
        else:
            log.exception("processor_event_failed", provider=connection.processor, event_type=event.type)
        # Waits only for the event's own row. If this fails too, the vendor resends.
        async with database.transaction():
            row = await _store_event(connection, event, body, now)
            if row.handled_at is None:
                await ProcessorEvent.filter(id=row.id).update(error=type(error).__name__)
                await processor_events.postpone(
                    row, due_at=datetime.now(UTC) + webhooks.HELD_AGAIN if database_errors.is_transient(error) else None
                )


async def _may_read(connection: ProcessorConnection, event: ProcessorWebhook) -> bool:
    if event.charge_external_id is None:
        return False
    proof = providers.processor(connection).capabilities.webhook_proof
    if proof is not WebhookProof.NONE:
        return True
    # Anyone can send an unsigned hint: read a few, then recently opened checkouts instead.
    if _unknown_charge_reads.take(str(connection.id)):
        return True
    if _recent_reads.take(str(connection.id)):
        now = datetime.now(UTC)
        lately = Q(created_at__gt=now - OPENED_LATELY) | Q(returned_at__gt=now - OPENED_LATELY)
        waiting = CheckoutSession.filter(lately, processor_connection_id=connection.id)
        await waiting.filter(status__in=["OPEN", "PROCESSING"], next_check_at__gt=now).update(next_check_at=now)
        log.warning("processor_hints_many", provider=connection.processor, connection_id=str(connection.id))
    return False


def _key_of(event: ProcessorWebhook) -> str:
    if event.external_id is not None:
        return stored_id(event.external_id)
    return stored_id(
        f"{processor_events.HINT}{event.checkout_external_id or event.charge_external_id or event.request_reference}"
    )


async def _store_event(
    connection: ProcessorConnection, event: ProcessorWebhook, body: str, now: datetime
) -> ProcessorEvent:
    external_id = _key_of(event)
    row = rows.new(
        ProcessorEvent,
        id=uuid7(),
        account_id=connection.account_id,
        processor_connection_id=connection.id,
        external_id=external_id,
        type=event.type[:120],
        body=payment_links.hidden(body),
        received_at=now,
    )
    if await rows.add_unless_known(row):
        return row  # an inserted row is locked
    kept = await rows.first(ProcessorEvent, _BY_KEY, connection.id, external_id, lock=True)
    if kept is None:
        raise DoesNotExist(ProcessorEvent)
    # A repeated hint becomes unhandled again.
    if event.external_id is None and kept.handled_at is not None:
        kept.body, kept.received_at, kept.handled_at, kept.result = row.body, now, None, None
        await kept.save(update_fields=["body", "received_at", "handled_at", "result"])
    return kept
