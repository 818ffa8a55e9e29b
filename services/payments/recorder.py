"""The only writer of what processors report: stores each fact once and recomputes the request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from integrations.base import CheckoutStatus, Delay, MoneyKind, MoneyOutcome, MoneyStatement
from models import database, rows
from models.ids import parse_public_id, uuid7
from models.tables import ActivityCard, CheckoutSession, MoneyFact, PaymentRequest, ProcessorConnection, ProcessorEvent
from services.core.actors import processor
from services.core.unit_of_work import Change, change
from services.payments import payment_views, projection
from services.thread import payment_links, request_rows

# A checkout's state only moves up in rank. Only money makes it COMPLETED.
SESSION_RANK = {"OPENING": 0, "OPEN": 1, "PROCESSING": 2, "ABANDONED": 3, "EXPIRED": 3, "FAILED": 3, "COMPLETED": 4}
# Ages at which a paid checkout is read again: webhooks of later refunds and disputes may be lost.
READ_AGAIN_AFTER: Final = tuple(timedelta(days=days) for days in (1, 7, 30, 90))
# Stored result of an event that matches no request.
UNMATCHED: Final = "foreign"
_OURS: Final = "processor_connection_id = ? AND account_id = ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutReport:
    external_id: str
    status: CheckoutStatus | None = None
    expires_at: datetime | None = None
    delay: Delay | None = None


@dataclass(slots=True)
class Recorded:
    request: PaymentRequest | None = None  # None: unmatched
    session: CheckoutSession | None = None  # of the reported checkout
    cards: list[ActivityCard] = field(default_factory=list)
    previous_status: str | None = None
    fresh: bool = False  # something was not known before


async def record(
    connection: ProcessorConnection,
    statements: Sequence[MoneyStatement],
    *,
    source: str,
    checkout: CheckoutReport | None = None,
    request_reference: str | None = None,
    event: ProcessorEvent | None = None,
    confirmed: bool = True,
    event_locked: bool = False,
    known_request_id: UUID | None = None,
) -> Recorded:
    """Record what a processor reports; a repeat changes nothing.

    `event` is marked handled in the same transaction. `confirmed=False`: the charges are shown and do not count.
    `event_locked`: the caller holds its lock and saw that it is unhandled. `known_request_id`: found by the caller.
    """
    account_id, external_id = connection.account_id, checkout.external_id if checkout else None
    known = None  # inside a transaction the caller has the turn
    if not database.in_transaction():
        known = await find_request_id(connection, statements, external_id, request_reference)
    by, rows_locked = processor(connection.display_name), [known] if known is not None else []
    async with change(account_id, actor=by, queue_on=rows_locked) as changed:
        # Lock order: the event before the request, in every transaction.
        if event is not None and not event_locked and await _is_handled(event):
            return Recorded()
        request_id = known_request_id
        if request_id is None:
            request_id = await find_request_id(connection, statements, external_id, request_reference)
        if request_id is None:
            if event is not None:
                await database.write_together(_handled(event, UNMATCHED, changed.now))
            return Recorded()
        request = await request_rows.lock(account_id, request_id)
        report = _Report(connection=connection, request=request, source=source, now=changed.now, confirmed=confirmed)
        recorded = Recorded(request=request, previous_status=request.status)
        sessions = await _sessions_of(request)
        moved = False
        writes: list[database.Statement] = []
        if checkout is not None:
            recorded.session = await _find_or_adopt_session(connection, request, sessions, checkout, changed.now)
            moved, written = _update_session(recorded.session, checkout, statements, changed.now)
            writes.append(rows.assignment(recorded.session, written))
        fresh = await _store_facts(report, statements, sessions, recorded.session)
        if event is not None:
            writes.append(_handled(event, "recorded" if fresh or moved else "repeated", changed.now))
        await database.write_together(*writes)
        if fresh or moved:
            recorded.cards, recorded.fresh = await projection.apply(changed, request, sessions, fresh), True
        return recorded


async def record_manual(changed: Change, request: PaymentRequest, *facts: MoneyFact) -> Recorded:
    """Record a manual payment or a decision, under the request's lock; a repeat changes nothing."""
    recorded = Recorded(request=request, previous_status=request.status)
    fresh = [fact for fact in facts if await _insert(fact)]
    if fresh:
        sessions = await _sessions_of(request)
        recorded.cards = await projection.apply(changed, request, sessions, fresh)
    return recorded


async def record_release(changed: Change, request: PaymentRequest) -> Recorded:
    """Mark payments under way as no longer holding the link, under the request's lock."""
    recorded = Recorded(request=request, previous_status=request.status)
    sessions = await _sessions_of(request)
    held = [session for session in sessions if session.status == "PROCESSING" and session.released_at is None]
    for session in held:
        session.released_at = changed.now
        await rows.update(session, ("released_at", "updated_at"))
    if held:
        recorded.cards = await projection.apply(changed, request, sessions, [])
    return recorded


async def _sessions_of(request: PaymentRequest) -> list[CheckoutSession]:
    return await rows.find(CheckoutSession, "WHERE payment_request_id = ? ORDER BY n", request.id)


async def _is_handled(event: ProcessorEvent) -> bool:
    # An unmatched event is tried again: its payment may be known by now.
    stored = await rows.first(ProcessorEvent, "WHERE id = ?", event.id, lock=True)
    return stored is None or (stored.handled_at is not None and stored.result != UNMATCHED)


def _handled(event: ProcessorEvent, result: str, now: datetime) -> database.Statement:
    sql = "UPDATE processor_event SET handled_at = ?, result = ?, error = NULL WHERE id = ?"
    return sql, [now, result, event.id]


# ---------------------------------------------------------------------------------------------------- its request
async def find_request_id(
    connection: ProcessorConnection,
    statements: Sequence[MoneyStatement],
    checkout_external_id: str | None,
    request_reference: str | None,
) -> UUID | None:
    """The request by checkout, our reference or charge; None: unmatched."""
    own = (connection.id, connection.account_id)
    known = [s.checkout_external_id for s in statements if s.checkout_external_id]
    if checkout_external_id is not None:
        known.append(checkout_external_id)
    if found := await _request_of("checkout_session", own, known):
        return found
    for reference in [request_reference, *(s.request_reference for s in statements)]:
        request_id = parse_public_id(reference, "pr") if reference else None
        if request_id is not None and await database.records(
            f"SELECT id FROM payment_request WHERE id = ? AND {_OURS}",  # noqa: S608 (constant)
            request_id,
            *own,
        ):
            return request_id
    external_ids = [s.charge_external_id for s in statements if s.charge_external_id]
    return await _request_of("money_fact", own, external_ids + [s.external_id for s in statements])


async def _request_of(table: str, own: tuple[UUID, UUID], external_ids: list[str]) -> UUID | None:
    if not external_ids:
        return None
    wanted = list(dict.fromkeys(external_ids))
    found = await database.records(
        f"SELECT payment_request_id FROM {table} WHERE external_id IN ({database.placeholders(len(wanted))})"  # noqa: S608 (only constants are put in)
        f" AND {_OURS} LIMIT 1",
        *wanted,
        *own,
    )
    return database.to_uuid(found[0][0]) if found else None


# ---------------------------------------------------------------------------------------------------- checkouts, facts
async def _find_or_adopt_session(
    connection: ProcessorConnection,
    request: PaymentRequest,
    sessions: list[CheckoutSession],
    checkout: CheckoutReport,
    now: datetime,
) -> CheckoutSession:
    session = next((s for s in sessions if s.external_id == checkout.external_id), None)
    if session is not None:
        return session
    unanswered = [s for s in sessions if s.external_id is None and s.status == "OPENING"]
    if unanswered:  # the process died between the vendor's answer and the commit
        session = unanswered[0]
        session.external_id = checkout.external_id
        return session
    n = max((s.n for s in sessions), default=0) + 1
    session = CheckoutSession(
        id=uuid7(),
        account_id=request.account_id,
        payment_request_id=request.id,
        processor_connection_id=connection.id,
        n=n,
        idempotency_key=f"{payment_links.reference(request)}:{n}",
        amount_minor=request.amount_minor,
        currency=request.currency,
        status="OPENING",
        external_id=checkout.external_id,
        next_check_at=now,
    )
    await rows.add([session])
    sessions.append(session)
    return session


def _update_session(
    session: CheckoutSession, checkout: CheckoutReport, statements: Sequence[MoneyStatement], now: datetime
) -> tuple[bool, list[str]]:  # whether it moved, columns to store
    arrived = [s for s in statements if s.kind == MoneyKind.CHARGE and s.outcome == MoneyOutcome.SUCCEEDED]
    # A part payment does not end a checkout that still takes the rest.
    goes_on = checkout.status in (CheckoutStatus.OPEN, CheckoutStatus.PROCESSING)
    paid = bool(arrived) and not (goes_on and sum(s.amount_minor for s in arrived) < session.amount_minor)
    new_status = "COMPLETED" if paid else checkout.status.value if checkout.status else session.status
    written = ["external_id", "updated_at"]
    moved = SESSION_RANK[new_status] > SESSION_RANK[session.status] and (paid or new_status != "COMPLETED")
    if moved:
        session.status = new_status
        written.append("status")
        if SESSION_RANK[new_status] >= SESSION_RANK["ABANDONED"]:
            written.append("next_check_at")
            session.next_check_at = now + READ_AGAIN_AFTER[0] if new_status == "COMPLETED" else None
    if session.status == "PROCESSING" and (learned := _update_delay(session, checkout.delay, now)):
        written += learned
        moved = True
    if checkout.expires_at is not None:
        session.expires_at = checkout.expires_at
        written.append("expires_at")
    # Only these columns: pages write `read_at` without a lock.
    return moved, written


def _update_delay(session: CheckoutSession, delay: Delay | None, now: datetime) -> list[str]:
    reported_delay: dict[str, Any] = {}
    if session.processing_at is None:
        reported_delay["processing_at"] = now
    if delay is not None:
        reported_delay["delayed"] = True
        reported_delay["delayed_method"] = (delay.method or "")[:60] or session.delayed_method
        reported_delay["delayed_until"] = delay.until or session.delayed_until
    fresh = [name for name, value in reported_delay.items() if getattr(session, name) != value]
    for name in fresh:
        setattr(session, name, reported_delay[name])
    return fresh


@dataclass(frozen=True, slots=True, kw_only=True)
class _Report:
    connection: ProcessorConnection
    request: PaymentRequest
    source: str
    now: datetime
    confirmed: bool


async def _store_facts(
    report: _Report,
    statements: Sequence[MoneyStatement],
    sessions: Sequence[CheckoutSession],
    reported: CheckoutSession | None,
) -> list[MoneyFact]:
    fresh: list[MoneyFact] = []
    for statement in statements:
        session = next(
            (s for s in sessions if s.external_id and s.external_id == statement.checkout_external_id), reported
        )
        fresh += await _store_fact(report, session, statement)
    if reported is not None and reported.status in ("FAILED", "EXPIRED"):
        for statement in await _failed_charges(reported):
            fresh += await _store_fact(replace(report, confirmed=True), reported, statement)
    return fresh


async def _store_fact(report: _Report, session: CheckoutSession | None, statement: MoneyStatement) -> list[MoneyFact]:
    fact = _fact_of(report, session, statement)
    if statement.kind == MoneyKind.DISPUTE and statement.occurred_at is None and await _is_latest_outcome(fact):
        return []
    if await _insert(fact):
        return [fact]
    if statement.kind == MoneyKind.DISPUTE:
        return await _store_dispute_details(fact)
    if statement.kind == MoneyKind.CHARGE and statement.outcome == MoneyOutcome.SUCCEEDED:
        return await _store_charge_details(fact)
    return []


def _fact_of(report: _Report, session: CheckoutSession | None, statement: MoneyStatement) -> MoneyFact:
    request, connection, confirmed = report.request, report.connection, report.confirmed
    return rows.new(
        MoneyFact,
        id=uuid7(),
        account_id=request.account_id,
        payment_request_id=request.id,
        contact_id=request.contact_id,
        checkout_session_id=session.id if session else None,
        processor_connection_id=connection.id,
        processor=connection.processor,
        kind=statement.kind.value,
        external_id=statement.external_id,
        outcome=statement.outcome.value,
        amount_minor=statement.amount_minor,
        currency=statement.currency,
        counted=(confirmed or statement.kind != MoneyKind.CHARGE) and _matches_checkout(request, session, statement),
        confirmed=confirmed,
        asked_minor=_asked_minor(session, statement) if confirmed else None,
        after_void=request.voided_at is not None,
        charge_external_id=statement.charge_external_id,
        fee_minor=statement.fee_minor,
        method_summary=(statement.method_summary or "")[:80] or None,
        failure_code=(statement.failure_code or "")[:80] or None,
        failure_message=(statement.failure_message or "")[:300] or None,
        response_due_at=statement.response_due_at,
        dispute_reason=(statement.dispute_reason or "")[:80] or None,
        inquiry=statement.inquiry,
        reversal=statement.reversal,
        test_mode=connection.test_mode,
        source=report.source,
        # In UTC: the unique key compares times of disputes, on SQLite as text.
        occurred_at=(statement.occurred_at or report.now).astimezone(UTC),
        recorded_at=report.now,
    )


async def _store_charge_details(fact: MoneyFact) -> list[MoneyFact]:
    # A webhook often lacks fee and method; the object read later has them. Facts are never updated: add a row.
    known = await rows.find(
        MoneyFact,
        "WHERE processor_connection_id = ? AND external_id = ? AND kind IN ('CHARGE', 'ADJUSTMENT')",
        fact.processor_connection_id,
        fact.external_id,
    )
    new_fee = fact.fee_minor is not None and all(row.fee_minor is None for row in known)
    new_method = fact.method_summary is not None and all(row.method_summary is None for row in known)
    if not new_fee and not new_method:
        return []
    fact.id, fact.kind, fact.amount_minor, fact.charge_external_id = uuid7(), "ADJUSTMENT", 0, fact.external_id
    fact.outcome = "SUCCEEDED" if fact.fee_minor is not None else "PENDING"  # the fee may still come
    fact.fee_minor = fact.fee_minor if new_fee else None
    return [fact] if await _insert(fact) else []


async def _is_latest_outcome(fact: MoneyFact) -> bool:
    # Without a time, the unique key cannot detect the repeat.
    known = await MoneyFact.filter(
        processor_connection_id=fact.processor_connection_id, external_id=fact.external_id, kind="DISPUTE"
    )
    return bool(known) and max(known, key=payment_views.rank).outcome == fact.outcome


async def _store_dispute_details(fact: MoneyFact) -> list[MoneyFact]:
    known = await MoneyFact.filter(
        processor_connection_id=fact.processor_connection_id,
        external_id=fact.external_id,
        kind__in=["DISPUTE", "ADJUSTMENT"],
    )
    escalated = not fact.inquiry and all(row.inquiry and row.outcome == "PENDING" for row in known)
    due = fact.response_due_at is not None and all(row.response_due_at is None for row in known)
    if fact.outcome != "PENDING" or not (escalated or due):
        return []
    fact.id, fact.kind, fact.amount_minor = uuid7(), "ADJUSTMENT", 0
    fact.outcome = "SUCCEEDED" if escalated else "PENDING"  # its own row, beside a due date's
    return [fact] if await _insert(fact) else []


async def _insert(fact: MoneyFact) -> bool:
    # Key: connection, kind, external id, outcome.
    return await rows.add_unless_known(fact)


def _matches_checkout(request: PaymentRequest, session: CheckoutSession | None, statement: MoneyStatement) -> bool:
    asked = (session.amount_minor, session.currency) if session else (request.amount_minor, request.currency)
    return statement.kind != MoneyKind.CHARGE or (statement.amount_minor, statement.currency) == asked


def _asked_minor(session: CheckoutSession | None, statement: MoneyStatement) -> int | None:
    if session is None or statement.kind != MoneyKind.CHARGE or session.currency != statement.currency:
        return None
    return session.amount_minor


async def _failed_charges(session: CheckoutSession) -> list[MoneyStatement]:
    outcomes: dict[str, list[MoneyFact]] = {}
    for fact in await MoneyFact.filter(checkout_session_id=session.id, kind="CHARGE"):
        outcomes.setdefault(fact.external_id, []).append(fact)
    # They failed, even if the vendor no longer names them.
    return [
        MoneyStatement(
            kind=MoneyKind.CHARGE,
            external_id=external_id,
            outcome=MoneyOutcome.FAILED,
            amount_minor=facts[0].amount_minor,
            currency=facts[0].currency,
        )
        for external_id, facts in outcomes.items()
        if all(fact.outcome == "PENDING" for fact in facts)
    ]
