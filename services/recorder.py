"""The one recorder: webhook, return page, sweeper and void all say here what a processor says about money. Nothing else writes a status.

It stores each fact once, recomputes the request from the set of its facts under a row lock, and in the same transaction appends the
cards, the contact's totals, the notifications, the log and the jobs. It calls no vendor. Safe to call again with anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from integrations.base import CheckoutStatus, MoneyKind, MoneyOutcome, MoneyStatement
from models import database, ledger
from models.ids import parse_public_id, public_id, uuid7
from models.ledger import CardKind, Status
from models.money import Money
from models.tables import ActivityCard, CheckoutSession, MoneyFact, PaymentRequest, ProcessorConnection, ProcessorEvent
from services import jobs, links, notifications, summaries
from services.changes import Change, change

log = structlog.get_logger(__name__)

# A checkout's state only moves down this list, but for COMPLETED, which money alone decides.
SESSION_RANK = {"OPENING": 0, "OPEN": 1, "PROCESSING": 2, "ABANDONED": 3, "EXPIRED": 3, "FAILED": 3, "COMPLETED": 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutReport:
    """What is known of the checkout that the statements belong to."""

    external_id: str
    status: CheckoutStatus | None = None
    expires_at: datetime | None = None


@dataclass(slots=True)
class Recorded:
    """What recording changed."""

    request: PaymentRequest | None = None  # None: nothing of ours
    cards: list[ActivityCard] = field(default_factory=list)
    previous_status: str | None = None


async def record(
    connection: ProcessorConnection,
    statements: Sequence[MoneyStatement],
    *,
    source: str,
    checkout: CheckoutReport | None = None,
    request_reference: str | None = None,
    event: ProcessorEvent | None = None,
) -> Recorded:
    """Record what `connection`'s processor says. `event` is marked handled in the same transaction.

    Keys that make a repeat harmless: (connection, kind, money id, outcome) of a fact, (account, key) of a card and a notification.
    """
    account_id = connection.account_id
    async with change(account_id) as changed:
        request_id = await _owner(connection, statements, checkout, request_reference)
        if request_id is None:
            if event is not None:
                await _handled(event, "foreign", changed.now)
            return Recorded()
        # Read again inside the lock: what was known before it may be old.
        request = await PaymentRequest.filter(id=request_id, account_id=account_id).select_for_update().get()
        recorded = Recorded(request=request, previous_status=request.status)
        if event is not None:
            await _handled(event, "recorded", changed.now)
        sessions = await CheckoutSession.filter(payment_request_id=request.id).order_by("n")
        moved = await _move_session(connection, request, sessions, checkout, statements, changed.now)
        fresh = [
            fact
            for statement in statements
            if (fact := await _store(connection, request, sessions, statement, source, changed.now)) is not None
        ]
        if not fresh and not moved:
            if event is not None:
                await ProcessorEvent.filter(id=event.id).update(result="repeated")
            return recorded
        await _settle(changed, request, sessions, fresh, recorded)
        return recorded


async def resettle(changed: Change, request: PaymentRequest) -> Recorded:
    """Recompute a locked request after a session of it changed or the void was decided. No new fact."""
    recorded = Recorded(request=request, previous_status=request.status)
    sessions = await CheckoutSession.filter(payment_request_id=request.id).order_by("n")
    await _settle(changed, request, sessions, [], recorded)
    return recorded


# ------------------------------------------------------------------------------------------------------- whose it is
async def _owner(
    connection: ProcessorConnection,
    statements: Sequence[MoneyStatement],
    checkout: CheckoutReport | None,
    request_reference: str | None,
) -> UUID | None:
    """The request that the statements concern: by checkout, by our reference on the vendor's object, by the charge."""
    known = [s.checkout_external_id for s in statements if s.checkout_external_id]
    if checkout is not None:
        known.append(checkout.external_id)
    if known:
        session = await CheckoutSession.filter(
            processor_connection_id=connection.id, external_id__in=known, account_id=connection.account_id
        ).first()
        if session is not None:
            return session.payment_request_id
    references = [s.request_reference for s in statements if s.request_reference]
    for reference in [request_reference, *references]:
        request_id = parse_public_id(reference, "pr") if reference else None
        if request_id is not None and await PaymentRequest.exists(
            id=request_id, account_id=connection.account_id, processor_connection_id=connection.id
        ):
            return request_id
    charges = [s.charge_external_id for s in statements if s.charge_external_id]
    charges += [s.external_id for s in statements]
    fact = await MoneyFact.filter(
        processor_connection_id=connection.id, account_id=connection.account_id, external_id__in=charges
    ).first()
    return fact.payment_request_id if fact is not None else None


async def _handled(event: ProcessorEvent, result: str, now: datetime) -> None:
    await ProcessorEvent.filter(id=event.id).update(handled_at=now, result=result, error=None)


# ---------------------------------------------------------------------------------------------------- facts, sessions
async def _move_session(
    connection: ProcessorConnection,
    request: PaymentRequest,
    sessions: list[CheckoutSession],
    checkout: CheckoutReport | None,
    statements: Sequence[MoneyStatement],
    now: datetime,
) -> bool:
    """Take over the checkout's state; adopt one that we do not know (we died between the vendor's answer and our commit)."""
    if checkout is None:
        return False
    session = next((s for s in sessions if s.external_id == checkout.external_id), None)
    if session is None:
        session = next((s for s in sessions if s.status == "OPENING" and s.external_id is None), None)
        if session is not None:
            session.external_id = checkout.external_id
        else:
            n = max((s.n for s in sessions), default=0) + 1
            session = CheckoutSession(
                id=uuid7(),
                account_id=request.account_id,
                payment_request_id=request.id,
                processor_connection_id=connection.id,
                n=n,
                idempotency_key=f"{public_id('pr', request.id)}:{n}",
                amount_minor=request.amount_minor,
                currency=request.currency,
                status="OPENING",
                external_id=checkout.external_id,
                next_check_at=now,
            )
            await session.save(force_create=True)
            sessions.append(session)
    if checkout.expires_at is not None:
        session.expires_at = checkout.expires_at
    paid = any(s.kind == MoneyKind.CHARGE and s.outcome == MoneyOutcome.SUCCEEDED for s in statements)
    status = "COMPLETED" if paid else checkout.status.value if checkout.status else session.status
    if SESSION_RANK[status] <= SESSION_RANK[session.status] and session.status != "OPENING":
        return False
    if status == "COMPLETED" and not paid:
        status = session.status  # only money completes a checkout
    moved = status != session.status
    session.status = status
    if SESSION_RANK[status] >= SESSION_RANK["ABANDONED"]:
        session.next_check_at = None
    await session.save()
    return moved


async def _store(
    connection: ProcessorConnection,
    request: PaymentRequest,
    sessions: list[CheckoutSession],
    statement: MoneyStatement,
    source: str,
    now: datetime,
) -> MoneyFact | None:
    """Insert the fact; None when it was known."""
    session = next((s for s in sessions if s.external_id and s.external_id == statement.checkout_external_id), None)
    counted = await _counts(request, session, statement)
    fact = MoneyFact(
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
        counted=counted,
        after_void=request.voided_at is not None,
        charge_external_id=statement.charge_external_id,
        fee_minor=statement.fee_minor,
        method_summary=(statement.method_summary or "")[:80] or None,
        failure_code=(statement.failure_code or "")[:80] or None,
        failure_message=(statement.failure_message or "")[:300] or None,
        test_mode=connection.test_mode,
        source=source,
        occurred_at=statement.occurred_at or now,
        recorded_at=now,
    )
    known = await MoneyFact.exists(
        processor_connection_id=connection.id,
        kind=fact.kind,
        external_id=fact.external_id,
        outcome=fact.outcome,
    )
    if known:
        return None
    # The unique key is the promise; the look before it keeps this transaction usable on PostgreSQL.
    await MoneyFact.bulk_create([fact], ignore_conflicts=True)
    stored = await database.rows("SELECT 1 AS found FROM money_fact WHERE id = ?", fact.id)
    return fact if stored else None


async def _counts(request: PaymentRequest, session: CheckoutSession | None, statement: MoneyStatement) -> bool:
    """A charge counts only if amount and currency equal what was stored before the processor was called; a refund as its charge."""
    if statement.kind == MoneyKind.CHARGE:
        asked = (session.amount_minor, session.currency) if session else (request.amount_minor, request.currency)
        return (statement.amount_minor, statement.currency) == asked
    charge = await MoneyFact.filter(
        payment_request_id=request.id, kind="CHARGE", external_id=statement.charge_external_id or ""
    ).first()
    return charge is not None and charge.counted


# ------------------------------------------------------------------------------------------------------------ settle
async def _settle(
    changed: Change,
    request: PaymentRequest,
    sessions: list[CheckoutSession],
    fresh: list[MoneyFact],
    recorded: Recorded,
) -> None:
    """Derive the status from all facts, write it, and say what happened."""
    rows = await MoneyFact.filter(payment_request_id=request.id).order_by("id")
    before = request.status
    at = ledger.position(
        [
            ledger.Fact(
                connection=row.processor_connection_id,
                kind=row.kind,
                external_id=row.external_id,
                outcome=row.outcome,
                amount_minor=row.amount_minor,
                counted=row.counted,
                after_void=row.after_void,
                occurred_at=row.occurred_at,
            )
            for row in rows
            if row.kind in ledger.RANKS
        ],
        amount_minor=request.amount_minor,
        sent=request.sent_at is not None,
        voided=request.voided_at is not None,
        checkout_processing=any(s.status == "PROCESSING" for s in sessions),
    )
    contact = await summaries.lock_contact(request.account_id, request.contact_id)
    if request.sent_at is None and at.status in (Status.PAID, Status.PARTIALLY_PAID, Status.PROCESSING):
        # Paid though never sent (the link was pasted elsewhere): the first card still comes first.
        request.sent_at, request.sent_via = changed.now, "LINK_COPIED"
        request.status = Status.SENT.value
        await _card(
            changed,
            recorded,
            request,
            CardKind.PAYMENT_REQUEST,
            links.asked_text(request),
            key=str(request.id),
            actor_id=None,
        )
    request.status = at.status.value
    request.amount_paid_minor = at.settled_minor
    request.refunded_minor = at.refunded_minor
    request.excess_minor = at.excess_minor
    request.late_minor = at.late_minor
    request.refund_state = at.refund_state
    request.dispute_state = at.dispute_state
    if at.status == Status.PAID and request.paid_at is None:
        request.paid_at = max((f.occurred_at for f in fresh if f.kind == "CHARGE"), default=changed.now)
        request.void_requested_at = None  # the payment won
    request.version += 1

    for fact in fresh:
        await _say(changed, recorded, request, fact, before)
        if fact.kind == "CHARGE" and fact.outcome in ("FAILED", "CANCELED", "SUCCEEDED", "PENDING"):
            request.last_attempt_status = fact.outcome
            request.last_attempt_code = fact.failure_code
            request.last_attempt_message = fact.failure_message
            request.last_attempt_at = fact.occurred_at
    if request.status == Status.PROCESSING and before != Status.PROCESSING:
        processing = next((s for s in reversed(sessions) if s.status == "PROCESSING"), None)
        await _card(
            changed,
            recorded,
            request,
            CardKind.PAYMENT_PROCESSING,
            f"A payment of {links.amount_text(request)} is being processed.",
            key=str(processing.id if processing else request.id),
        )
    told = {row.checkout_session_id for row in rows if row.kind == "CHARGE" and row.outcome in ("FAILED", "CANCELED")}
    failed = [s for s in sessions if s.status == "FAILED" and s.id not in told]  # a failed charge has its own card
    if before == Status.PROCESSING and request.status in ledger.OPEN and failed:
        await _card(
            changed,
            recorded,
            request,
            CardKind.PAYMENT_FAILED,
            f"The payment of {links.amount_text(request)} did not go through. The link still works.",
            key=str(failed[-1].id),
        )
    await request.save()
    await _after(changed, request, sessions, contact, fresh, before, recorded)


async def _say(changed: Change, recorded: Recorded, request: PaymentRequest, fact: MoneyFact, before: str) -> None:
    """The card and the notification of one new fact."""
    money = Money(fact.amount_minor, fact.currency).formatted("en-US")
    name = request.product_name
    kind: CardKind | None = None
    key = str(fact.id)
    text = ""
    received = any(card.kind == CardKind.PAYMENT_RECEIVED for card in recorded.cards)
    match fact.kind, fact.outcome:
        case "CHARGE", "SUCCEEDED" if not fact.counted:
            kind = CardKind.PAYMENT_MISMATCH
            text = f"{money} arrived, but {links.amount_text(request)} was asked for {name}. It is not counted; please check."
        case "CHARGE", "SUCCEEDED" if fact.after_void:
            kind = CardKind.LATE_PAYMENT
            text = f"{money} arrived for {name} after the request had been voided."
        case "CHARGE", "SUCCEEDED" if request.status == Status.PAID and before != Status.PAID and not received:
            kind, key = CardKind.PAYMENT_RECEIVED, str(request.id)
            text = f"Payment received: {money} for {name}."
        case "CHARGE", "SUCCEEDED" if request.excess_minor:
            kind = CardKind.EXCESS_PAYMENT
            text = f"{money} arrived for {name} a second time."
        case "CHARGE", "SUCCEEDED":
            kind = CardKind.PARTIAL_PAYMENT
            text = f"Part payment received: {money} for {name}."
        case "CHARGE", "FAILED" | "CANCELED":
            kind = CardKind.PAYMENT_FAILED
            why = f" ({fact.failure_code})" if fact.failure_code else ""
            text = f"A payment of {money} for {name} did not go through{why}. The link still works."
        case "REFUND", "SUCCEEDED":
            kind, text = CardKind.REFUND_ISSUED, f"{money} was refunded for {name}."
        case "REFUND", "FAILED" | "CANCELED":
            kind, text = CardKind.REFUND_FAILED, f"A refund of {money} for {name} failed."
        case "DISPUTE", "PENDING":
            kind, text = CardKind.DISPUTE_OPENED, f"The contact's bank disputes {money} for {name}."
        case "DISPUTE", _:
            outcome = "lost" if fact.outcome == "SUCCEEDED" else "won"
            kind, text = CardKind.DISPUTE_CLOSED, f"The dispute over {money} for {name} was {outcome}."
    if kind is not None:
        await _card(changed, recorded, request, kind, text, key=key, money_fact_id=fact.id, notify=True)


async def _card(
    changed: Change,
    recorded: Recorded,
    request: PaymentRequest,
    kind: CardKind,
    text: str,
    *,
    key: str,
    money_fact_id: UUID | None = None,
    actor_id: UUID | None = None,
    notify: bool = False,
) -> None:
    card = await changed.log_card(request, kind, text=text, key=key, money_fact_id=money_fact_id, actor_id=actor_id)
    if card is None:
        return
    recorded.cards.append(card)
    if notify:
        await notifications.notify(changed, request, kind, title=_TITLES[kind], body=text, cause_key=f"{kind}:{key}")


_TITLES = {
    CardKind.PAYMENT_RECEIVED: "Payment received",
    CardKind.PARTIAL_PAYMENT: "Part payment received",
    CardKind.PAYMENT_FAILED: "Payment failed",
    CardKind.PAYMENT_MISMATCH: "Unexpected amount received",
    CardKind.LATE_PAYMENT: "Payment after void",
    CardKind.EXCESS_PAYMENT: "Paid twice",
    CardKind.REFUND_ISSUED: "Refund issued",
    CardKind.REFUND_FAILED: "Refund failed",
    CardKind.DISPUTE_OPENED: "Payment disputed",
    CardKind.DISPUTE_CLOSED: "Dispute closed",
}

_EVENTS = {
    CardKind.PAYMENT_REQUEST: "sent",
    CardKind.PAYMENT_RECEIVED: "paid",
    CardKind.PARTIAL_PAYMENT: "partially_paid",
    CardKind.PAYMENT_PROCESSING: "processing",
    CardKind.PAYMENT_FAILED: "payment_failed",
    CardKind.PAYMENT_MISMATCH: "payment_mismatch",
    CardKind.REQUEST_VOIDED: "voided",
    CardKind.REFUND_ISSUED: "refunded",
    CardKind.REFUND_FAILED: "refund_failed",
    CardKind.DISPUTE_OPENED: "dispute_opened",
    CardKind.DISPUTE_CLOSED: "dispute_closed",
    CardKind.LATE_PAYMENT: "late_payment",
    CardKind.EXCESS_PAYMENT: "excess_payment",
}


async def _after(
    changed: Change,
    request: PaymentRequest,
    sessions: list[CheckoutSession],
    contact: Any,
    fresh: list[MoneyFact],
    before: str,
    recorded: Recorded,
) -> None:
    """The contact's record, the log and the jobs."""
    first_payment = any(f.kind == "CHARGE" and f.outcome == "SUCCEEDED" for f in fresh)
    if first_payment and "customer" not in contact.tags:
        contact.tags = [*contact.tags, "customer"]
        contact.version += 1
        await contact.save()
    await summaries.update(request.account_id, request.contact_id)
    status = before
    for card in recorded.cards:
        name = _EVENTS.get(CardKind(card.kind))
        if name is not None:
            changed.request_event(name, request, previous_status=status, card_id=card.id, payment_id=card.money_fact_id)
            status = request.status
    if not recorded.cards:
        changed.request_event("updated", request, previous_status=before)
    if fresh or before != request.status:
        changed.event("contact.updated", conversation_id=request.conversation_id, contact_id=request.contact_id)
    if request.status in (Status.PAID, Status.VOID):
        for session in sessions:
            if session.status in ("OPENING", "OPEN"):
                await jobs.enqueue(
                    "checkout.expire",
                    {"session_id": str(session.id)},
                    account_id=request.account_id,
                    key=f"checkout.expire:{session.id}",
                )
    for fact in fresh:
        if (
            fact.kind == "CHARGE"
            and fact.outcome == "SUCCEEDED"
            and fact.source == "webhook"
            and fact.checkout_session_id
        ):
            await jobs.enqueue(
                "checkout.read_back",
                {"session_id": str(fact.checkout_session_id)},
                account_id=request.account_id,
                key=f"checkout.read_back:{fact.id}",
            )
