"""The processors' webhooks: verify, keep the raw event under its unique key, record, in one short transaction. Then 2xx.

What can't be recorded at once is kept unhandled with its job; a repeat of an unhandled event is queued again. The body is never logged.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID

import orjson
import structlog
from tortoise.expressions import F, Q

from integrations.base import (
    Checkout,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    MoneyStatement,
    PayloadInvalid,
    Processor,
    ProcessorWebhook,
    SignatureInvalid,
    WebhookProof,
)
from integrations.base import external_id as stored_id
from models import database, database_errors, errors
from models.ids import public_id, uuid7
from models.ledger import CardKind
from models.tables import (
    Account,
    AuditEntry,
    CheckoutSession,
    Job,
    MoneyFact,
    PaymentRequest,
    ProcessorConnection,
    ProcessorEvent,
)
from services.connections import processor_health, providers
from services.core import jobs, turns, webhooks
from services.core.rate_limits import RateLimiter
from services.core.unit_of_work import Change, change
from services.payments import captures, recorder
from services.thread import activity_cards, notifications, payment_links

log = structlog.get_logger(__name__)

CLOCKS_DIFFER = timedelta(minutes=1)  # at most, ours and a vendor's
SEEN_EVERY = timedelta(seconds=30)  # how exactly `last_webhook_at` is kept
LOOK_AGAIN_FIRST = timedelta(minutes=1)  # then each time twice as late
LOOK_AGAIN_FOR = timedelta(days=3)  # vendors resend for so long
AGAIN_AT_LEAST, AGAIN_AT_MOST = timedelta(seconds=60), timedelta(days=1)  # between two tries of what can't be handled
NOTICE_AFTER = timedelta(days=7)  # unhandled for so long: the team is told
HINT = "hint:"  # how the stored id of a webhook begins whose vendor gives it none
HINTS_TOGETHER = timedelta(seconds=5)  # hints at one object within this time cause one read
OPENED_LATELY = timedelta(hours=1)
UNKNOWN_PER_S, UNKNOWN_AT_ONCE = 0.1, 10  # hints at unknown charges that are read, of one connection
UNSIGNED_TOGETHER = 100  # events of one unsigned webhook that are taken: anybody may send it
INSTEAD_EVERY_S = 60  # how often open checkouts are read in place of more of them
NAME_LENGTH, NAMES = 200, 2000  # how long the ids are, and how many, that an event not understood is searched for
MAY_LAG = timedelta(minutes=5)  # a vendor's checkout may name a payment so much later than its event
CANNOT_VERIFY = "no_webhook_secret"  # a provider's reason where its connection can verify nothing


_unknown_charge_reads = RateLimiter(UNKNOWN_PER_S, UNKNOWN_AT_ONCE)
_recent_reads = RateLimiter(1 / INSTEAD_EVERY_S, 1)


async def receive(
    processor: str,
    connection_id: UUID,
    body: bytes,
    headers: Mapping[str, str],
    query: Mapping[str, str] | None = None,
) -> None:
    """Take one webhook. `headers` has lower-case names. Returns after the commit.

    One webhook may tell several events: each is kept and handled by itself, and one that fails holds up no other.

    Raises: NotFound (also where the connection has nothing to verify with), BadSignature, BadPayload, NotVerifiable.
    """
    connection = await ProcessorConnection.get_or_none(id=connection_id, processor=processor)
    if connection is None:
        raise errors.NotFound
    try:
        live = providers.processor(connection)
    except errors.ProcessorUnavailable as error:
        if providers.allowed(connection):  # its package is gone or broken, perhaps for a while
            raise webhooks.NotVerifiable("provider_unavailable") from error
        raise errors.NotFound from error  # closed by the settings of this process
    now = datetime.now(UTC)
    try:
        told = await live.verify_webhook(body, headers, now=now, query=query or {})
    except SignatureInvalid as error:
        if error.reason == CANNOT_VERIFY:
            raise errors.NotFound from error
        raise webhooks.BadSignature(error.reason) from error
    except PayloadInvalid as error:
        # Signed, and not understood: another program's objects on the same vendor account have any shape.
        if await _is_unmatched(connection, body):
            log.info("processor_event_foreign", provider=connection.processor, reason=error.reason)
            return
        raise webhooks.BadPayload(error.reason) from error
    except IntegrationError as error:
        await processor_health.refused(connection, error)  # of vendors who check their signatures themselves
        raise webhooks.NotVerifiable(error.reason) from error
    await _take_all(connection, live, [told] if isinstance(told, ProcessorWebhook) else told, body, now)
    if connection.last_webhook_at is None or abs(now - connection.last_webhook_at) > SEEN_EVERY:
        # Apart and seldom: in the transaction it would make all webhooks of the connection wait for each other.
        await providers.note_webhook(connection, now)


async def _is_unmatched(connection: ProcessorConnection, body: bytes) -> bool:
    """Whether a signed body is a JSON object that names no request, no checkout and no money of this connection."""
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
    """Every text of a JSON value."""
    waiting = [thing]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        else:
            waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()


async def take_listed(connection: ProcessorConnection, event: ProcessorWebhook, now: datetime) -> None:
    """Take an event from the vendor's own list of undelivered ones, as if it had arrived."""
    await _take(connection, event, event.raw.decode(), now)


async def _take_all(
    connection: ProcessorConnection, live: Processor, events: Sequence[ProcessorWebhook], body: bytes, now: datetime
) -> None:
    """Take each event of a webhook. If one can't be kept, the others are, and the vendor sends all of them again."""
    if live.capabilities.webhook_proof is WebhookProof.NONE and len(events) > UNSIGNED_TOGETHER:
        log.warning("processor_hints_many", provider=connection.processor, count=len(events))
        events = events[:UNSIGNED_TOGETHER]
    failure: Exception | None = None
    ends = time.monotonic() + webhooks.VENDOR_WAITS_S
    for event in events:
        if event.vendor_account is not None and event.vendor_account != connection.vendor_account:
            # A platform's endpoint gets the events of all its accounts, and given up by the vendor if it refuses: taken, and nothing kept.
            log.info("processor_event_of_another_account", provider=connection.processor, event_type=event.type)
            continue
        kept = (event.raw or body).decode(errors="replace")
        try:
            await _take(connection, _trusted_part(live, event), kept, now, patience_s=max(0.0, ends - time.monotonic()))
        except Exception as error:  # (the loop's top of a batch; raised at its end)
            log.exception("processor_event_not_kept", provider=connection.processor, event_type=event.type)
            failure = failure or error
    if failure is not None:
        raise failure


async def _take(
    connection: ProcessorConnection,
    event: ProcessorWebhook,
    body: str,
    now: datetime,
    *,
    patience_s: float = webhooks.VENDOR_WAITS_S,
) -> None:
    """Keep one event, and handle it unless no turn at its request comes within `patience_s`: then later."""
    if _is_other_mode(connection, event):
        # Test money never settles a live request, nor the reverse: a vendor's live endpoint may be told of both.
        log.info("processor_event_of_other_mode", provider=connection.processor, event_type=event.type)
        return
    try:
        owner = await _owner(connection, event)
        if event.external_id is None and owner is None and not await _may_ask(connection, event):
            return  # not ours, as far as may be asked
        if patience_s <= 0:
            raise turns.Busy(turns.Busy.__doc__)
        with turns.patience(patience_s):
            async with change(connection.account_id, rows=[owner] if owner is not None else []) as changed:
                row = await _keep(connection, event, body, now)
                if row.handled_at is None:
                    await _record_or_postpone(changed, connection, event, row)
    except Exception as error:  # (the loop's top of webhooks: whatever fails, the event is kept)
        if database_errors.is_transient(error):  # a held row, most often: kept without it, handled later
            log.warning("processor_event_postponed", provider=connection.processor, error=type(error).__name__)
        else:
            log.exception("processor_event_failed", provider=connection.processor, event_type=event.type)
        # No turn and no `change`: this waits for nothing but the event's own row. If it fails, too, the vendor sends it again.
        async with database.transaction():
            row = await _keep(connection, event, body, now)
            if row.handled_at is None:
                await ProcessorEvent.filter(id=row.id).update(error=type(error).__name__)
                await _postpone(
                    row, due_at=datetime.now(UTC) + webhooks.HELD_AGAIN if database_errors.is_transient(error) else None
                )


def _is_other_mode(connection: ProcessorConnection, told: ProcessorWebhook | Checkout) -> bool:
    return told.test_mode is not None and told.test_mode != connection.test_mode


def _trusted_part(processor: Processor, event: ProcessorWebhook) -> ProcessorWebhook:
    """What an event may tell by its proof: without a signature over its body it only names what is to be read."""
    if processor.capabilities.webhook_proof is not WebhookProof.BODY:
        charges = [s.external_id for s in event.money if s.kind == MoneyKind.CHARGE]
        charge = event.charge_external_id or next(iter(charges), None)
        # Whose the object is, the object says, or a body could give the payment of one request to another.
        alone = event.checkout_external_id is None and charge is None
        unsigned = processor.capabilities.webhook_proof is WebhookProof.NONE
        return dataclasses.replace(
            event,
            # What anybody can invent makes no event: else each invented one would be kept and read.
            external_id=None if unsigned else event.external_id,
            decides=False,
            disconnected=False,
            money=(),
            checkout_status=None,
            charge_external_id=charge,
            request_reference=event.request_reference if alone else None,
        )
    return dataclasses.replace(event, decides=False) if event.external_id is None else event


async def _owner(connection: ProcessorConnection, event: ProcessorWebhook) -> UUID | None:
    """The request that an event concerns, as far as is known without asking the vendor."""
    owner = await recorder.find_request_id(connection, event.money, event.checkout_external_id, event.request_reference)
    if owner is None and event.charge_external_id is not None:
        known = MoneyFact.filter(processor_connection_id=connection.id, external_id=event.charge_external_id)
        fact = await known.first()
        owner = fact.payment_request_id if fact is not None else None
    return owner


async def _may_ask(connection: ProcessorConnection, event: ProcessorWebhook) -> bool:
    """Whether a hint at something unknown is read. Anybody can send one where webhooks are not signed.

    Checkouts are known before they are paid. An unknown charge may be the payment of one: some are read, and in place of
    more of them the checkouts that contacts have opened lately.
    """
    if event.charge_external_id is None:
        return False
    proof = providers.processor(connection).capabilities.webhook_proof
    if proof is not WebhookProof.NONE:
        return True
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
    """The id that an event is stored under. Hints at one object share a row, so that many of them cause few reads."""
    if event.external_id is not None:
        return stored_id(event.external_id)
    return stored_id(f"{HINT}{event.checkout_external_id or event.charge_external_id or event.request_reference}")


async def _keep(connection: ProcessorConnection, event: ProcessorWebhook, body: str, now: datetime) -> ProcessorEvent:
    """Store the event once, raw but for our links' tokens; the row, locked. A hint that comes again is unhandled again."""
    external_id = _key_of(event)
    row = ProcessorEvent(
        id=uuid7(),
        account_id=connection.account_id,
        processor_connection_id=connection.id,
        external_id=external_id,
        type=event.type[:120],
        body=payment_links.hidden(body),
        received_at=now,
    )
    await ProcessorEvent.bulk_create([row], ignore_conflicts=True)
    kept = (
        await ProcessorEvent.filter(processor_connection_id=connection.id, external_id=external_id)
        .select_for_update(no_key=True)
        .get()
    )
    if event.external_id is None and kept.handled_at is not None:
        kept.body, kept.received_at, kept.handled_at, kept.result = row.body, now, None, None
        await kept.save(update_fields=["body", "received_at", "handled_at", "result"])
    return kept


async def _disconnect(
    changed: Change, connection: ProcessorConnection, event: ProcessorWebhook, row: ProcessorEvent
) -> None:
    """The business took our rights back at the vendor: offer the connection no more, and tell who can connect it again."""
    await Account.filter(id=connection.account_id).select_for_update(no_key=True).get()
    now = await providers.processor_connection(connection.id, connection.account_id)
    configured = AuditEntry.filter(
        account_id=now.account_id, action=processor_health.CONFIGURED, subject=public_id("prc", now.id)
    )
    newest = await configured.order_by("-id").first()
    told_at = event.created_at
    before = newest is not None and told_at is not None and told_at < newest.occurred_at - CLOCKS_DIFFER
    if not now.connected or before:  # connected again since
        await ProcessorEvent.filter(id=row.id).update(handled_at=row.received_at, result="ignored")
        return
    name = providers.processor_name(now)
    said = f"{name} no longer allows Paythread on this account. Connect it again under Settings → Payments."
    await processor_health.disconnect(changed, now, advice=said)
    await ProcessorEvent.filter(id=row.id).update(handled_at=row.received_at, result="recorded")


async def _record_or_postpone(
    changed: Change, connection: ProcessorConnection, event: ProcessorWebhook, row: ProcessorEvent
) -> None:
    if event.disconnected and event.decides:
        await _disconnect(changed, connection, event, row)
    elif event.disconnected:
        await _postpone(row)
    elif event.external_id is None or (event.charge_external_id is not None and not event.decides):
        # Later, so that further hints at the same object cause one read together.
        last = await Job.filter(key=_job_key(row)).first()
        again = last is not None and abs(row.received_at - last.created_at) < HINTS_TOGETHER
        await _postpone(row, due_at=row.received_at + HINTS_TOGETHER if again else None)
    elif not event.money and event.checkout_external_id is None:
        await ProcessorEvent.filter(id=row.id).update(handled_at=row.received_at, result="ignored")
    elif event.decides and await _fits(connection, event):
        report = recorder.CheckoutReport(
            external_id=event.checkout_external_id or "", status=event.checkout_status, delay=event.delay
        )
        await _record(connection, event, row, event.money, report)
    elif (
        await recorder.find_request_id(connection, event.money, event.checkout_external_id, event.request_reference)
        is None
    ):
        # Another program uses the same processor account: kept, no effect.
        await _record(connection, event, row, (), None)
        if later := _look_again_after(event, row, row.received_at):
            await _postpone(row, due_at=row.received_at + later)
    else:
        # A hint (or something that does not fit what we stored): the object is fetched before anything is decided.
        await _postpone(row)


async def _postpone(row: ProcessorEvent, *, due_at: datetime | None = None) -> None:
    """Have a stored event handled by its job. Key: the event."""
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
    """Queue again what was received over a minute ago, is not handled and waits for no job; return how many. Key: the event."""
    # What came in the future came before the clock was set back.
    old = Q(received_at__lte=now - timedelta(seconds=60)) | Q(received_at__gt=now + timedelta(seconds=60))
    stuck = ProcessorEvent.filter(old, handled_at=None)
    rows = await stuck.order_by("attempts", "received_at").limit(limit)
    jobs_of = await Job.filter(key__in=[_job_key(row) for row in rows]).only("id", "key", "status")
    state = {job.key: job.status for job in jobs_of}
    left = [row for row in rows if state.get(_job_key(row)) not in ("queued", "running")]
    for row in left:
        # Dead: its process died at every try. It may do so again.
        dead = state.get(_job_key(row)) == "dead"
        await _postpone(row, due_at=now + _again_after(row, now) if dead else None)
    return len(left)


def _again_after(row: ProcessorEvent, now: datetime) -> timedelta:
    """How long an event that can't be handled waits for its next try: the longer, the older it is."""
    age = now - row.received_at
    return AGAIN_AT_MOST if age > NOTICE_AFTER else min(max(AGAIN_AT_LEAST, age / 10), AGAIN_AT_MOST)


async def _fits(connection: ProcessorConnection, event: ProcessorWebhook) -> bool:
    """A full event whose connection, request, checkout, amount and currency all fit may be recorded as it stands."""
    if event.checkout_external_id is None:
        return False
    session = await CheckoutSession.get_or_none(
        processor_connection_id=connection.id, external_id=event.checkout_external_id
    )
    if session is None or event.request_reference not in (None, public_id("pr", session.payment_request_id)):
        return False
    return all((s.amount_minor, s.currency) == (session.amount_minor, session.currency) for s in event.money)


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


def _look_again_after(event: ProcessorWebhook, row: ProcessorEvent, now: datetime) -> timedelta | None:
    """A refund or dispute may be told before its charge: when to look again at one that nobody knows; None: it stays unmatched."""
    age = now - row.received_at
    if age > LOOK_AGAIN_FOR or all(s.kind == MoneyKind.CHARGE for s in event.money):
        return None
    return max(LOOK_AGAIN_FIRST, age)


@jobs.handler("processor_event.handle", on_dead="sweeper.events queues every unhandled event again")
async def handle_job(job: jobs.JobContext) -> None:
    """Read what the event points at, then record. Key: the stored event; a handled one is left alone.

    What fails is tried again soon, as every job; when those tries are used up, less and less often, for as long as it is unhandled.
    """
    row = await ProcessorEvent.get(id=UUID(job.payload["event_id"]))
    if row.handled_at is not None and row.external_id.startswith(HINT):
        # It came once more while it was being read: what was read may be older.
        await ProcessorEvent.filter(id=row.id).update(handled_at=None, result=None)
        row.handled_at = None
    if row.handled_at is not None and row.result != recorder.UNMATCHED:
        return
    connection = await providers.processor_connection(row.processor_connection_id, row.account_id)
    await ProcessorEvent.filter(id=row.id).update(attempts=F("attempts") + 1)
    event: ProcessorWebhook | None = None
    try:
        live = providers.processor(connection)
        event = _trusted_part(live, live.parse(row.body.encode()))
        recorded = await _handle(connection, event, row)
    except Exception as error:  # (the loop's top of stored events: whatever fails, the event is tried again)
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
    if recorded.request is None and event.external_id is None:  # anybody may have sent it: nothing of it is kept
        await ProcessorEvent.filter(id=row.id, result=recorder.UNMATCHED).delete()
        return
    later = _look_again_after(event, row, datetime.now(UTC)) if recorded.request is None else None
    if later is not None:
        raise jobs.Later(later.total_seconds())


def _error_text(error: Exception) -> str:
    return f"{error.reason}: {error.message}"[:300] if isinstance(error, IntegrationError) else type(error).__name__


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, IntegrationError) else type(error).__name__


async def _notify_unhandled(
    connection: ProcessorConnection, event: ProcessorWebhook | None, row: ProcessorEvent
) -> None:
    """Ask the team to look at the processor, once per event; whose request is not known is told to the operator only."""
    log.error("processor_event_unhandled", provider=connection.processor, event_type=row.type)
    if event is None:
        return
    owner = await recorder.find_request_id(connection, event.money, event.checkout_external_id, event.request_reference)
    if owner is None:
        return
    async with change(connection.account_id, rows=[owner]) as changed:
        request = await PaymentRequest.filter(id=owner).select_for_update(no_key=True).get()
        await notifications.notify(
            changed,
            request,
            CardKind.PAYMENT_MISMATCH,
            title="Processor's event not recorded",
            body=activity_cards.event_unhandled(request),
            cause_key=f"event_unhandled:{row.id}",
        )


async def _handle(connection: ProcessorConnection, event: ProcessorWebhook, row: ProcessorEvent) -> recorder.Recorded:
    """Record a stored event after reading its checkout at the processor. Raises: IntegrationError, ProcessorUnavailable."""
    if _is_other_mode(connection, event):  # stored by an older version
        return await _record(connection, dataclasses.replace(event, request_reference=None), row, (), None)
    if event.disconnected:
        if not event.decides and not await _is_access_revoked(connection):
            return await _record(connection, event, row, (), None)
        async with change(connection.account_id) as changed:
            await _disconnect(changed, connection, event, row)
        return recorder.Recorded()
    state, money_read, confirmed = await _read(connection, event)
    if not confirmed and datetime.now(UTC) - row.received_at < MAY_LAG:
        # Once it is stored as unconfirmed it never counts, for no fact is changed: its checkout may name it soon.
        raise IntegrationError(connection.processor, "not_confirmed_yet", retryable=True)
    if state is None:
        *others, own = await _by_request(connection, event, money_read)
        for money in others:
            await recorder.record(connection, money, source="webhook", confirmed=confirmed)
        return await _record(connection, event, row, own, None, confirmed=confirmed)
    # Beside what the object says now, what only the signed event says (a decline, say); for money that is in both, the object.
    ids = {s.external_id for s in state.money}
    money = [*(s for s in event.money if s.external_id not in ids), *state.money]
    read = await captures.record_read(
        connection, state, source="webhook", money=money, request_reference=event.request_reference, event=row
    )
    return read.recorded


async def _is_access_revoked(connection: ProcessorConnection) -> bool:
    """Whether the vendor refuses these credentials now. Raises: IntegrationError (it does not answer), ProcessorUnavailable."""
    try:
        await providers.processor(connection).check()
    except IntegrationError as error:
        if error.reason not in processor_health.REVOKED:
            raise
        return True
    return False


async def _by_request(
    connection: ProcessorConnection, event: ProcessorWebhook, money: Sequence[MoneyStatement]
) -> list[Sequence[MoneyStatement]]:
    """The money of each request apart, at least one list: a case at the vendor may concern several payments, not all of them ours."""
    if len(money) < 2 or event.request_reference is not None:
        return [money]
    owned: dict[UUID, list[MoneyStatement]] = {}
    for said in money:
        owner = await recorder.find_request_id(connection, [said], None, None)
        if owner is not None:
            owned.setdefault(owner, []).append(said)
    return list(owned.values()) or [()]


Reading = tuple[Checkout | None, Sequence[MoneyStatement], bool]


async def _read(connection: ProcessorConnection, event: ProcessorWebhook) -> Reading:
    """The checkout that the event is about, as it stands now; or None, the money to record, and whether it counts."""
    processor = providers.processor(connection)
    if event.checkout_external_id is not None:
        return await processor.read_checkout(event.checkout_external_id), (), True
    if event.charge_external_id is not None and not event.money:
        return await _charge_read(processor, event.charge_external_id)
    charges = {s.external_id for s in event.money if s.kind == MoneyKind.CHARGE}
    if not charges and event.external_id is None:
        return await _newest_read(connection, event)
    owner = await recorder.find_request_id(connection, event.money, None, event.request_reference)
    if not charges or owner is None:
        return None, event.money, True
    # A payment that does not name its checkout: it is the one that knows this money.
    sessions = CheckoutSession.filter(payment_request_id=owner, processor_connection_id=connection.id)
    for session in await sessions.filter(external_id__not_isnull=True).order_by("-n"):
        state = await processor.read_checkout(session.external_id or "")
        if charges & {s.external_id for s in state.money}:
            return state, (), True
    return await _confirmed(connection, event)


async def _charge_read(processor: Processor, external_id: str) -> Reading:
    """What a hint at a charge leads to: its checkout, else the charge alone."""
    try:
        charge = await processor.read_charge(external_id)
    except IntegrationError as error:
        if error.retryable or error.ambiguous or error.reason in providers.REFUSED:
            raise
        charge = None  # a definite no, as for any id that is made up
    if charge is None:
        return None, (), True
    if charge.checkout_external_id is None:
        return None, [charge], True
    state = await processor.read_checkout(charge.checkout_external_id)
    if any(s.external_id == charge.external_id for s in state.money):
        return state, (), True
    return dataclasses.replace(state, money=(*state.money, charge)), (), True


async def _newest_read(connection: ProcessorConnection, event: ProcessorWebhook) -> Reading:
    """What a hint that names our request alone leads to: its newest checkout."""
    owner = await _owner(connection, event)
    sessions = CheckoutSession.filter(payment_request_id=owner, processor_connection_id=connection.id)
    session = await sessions.filter(external_id__not_isnull=True).order_by("-n").first()
    if session is None:
        return None, (), True
    return await providers.processor(connection).read_checkout(session.external_id or ""), (), True


async def _confirmed(connection: ProcessorConnection, event: ProcessorWebhook) -> Reading:
    """Money that names a request of ours and none of its known checkouts, as the vendor itself knows it.

    Our reference alone proves nothing: a copy of this system under other keys uses the same ones. What these credentials
    can't see is not ours. Where the vendor can't be asked, it is shown to the team and does not count.
    """
    processor = providers.processor(connection)
    money: list[MoneyStatement] = []
    for said in event.money:
        read: MoneyStatement | None = said
        # A decline moves no money, and its payment may have gone on to another attempt since.
        if said.kind == MoneyKind.CHARGE and said.outcome != MoneyOutcome.FAILED:
            try:
                read = await processor.read_charge(said.external_id)
            except IntegrationError as error:
                if error.reason == "unsupported":
                    return None, event.money, False
                raise
        if read is None:
            log.warning("processor_money_not_confirmed", provider=connection.processor, event_type=event.type)
        elif read.checkout_external_id is not None:
            return await processor.read_checkout(read.checkout_external_id), (), True
        else:
            money.append(read)
    return None, money, True
