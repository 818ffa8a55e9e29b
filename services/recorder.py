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

from integrations.base import CheckoutStatus, MoneyKind, MoneyOutcome, MoneyStatement
from models import database, ledger
from models.ids import parse_public_id, uuid7
from models.ledger import CardKind, Position, Status
from models.tables import ActivityCard, CheckoutSession, MoneyFact, PaymentRequest, ProcessorConnection, ProcessorEvent
from services import cards, jobs, links, notifications, summaries
from services.changes import Change, change

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
    """Record what `connection`'s processor says. `event` is marked handled in the same transaction; a handled one changes nothing.

    Keys that make a repeat harmless: (connection, kind, money id, outcome) of a fact, (account, key) of a card and a notification.
    """
    account_id = connection.account_id
    async with change(account_id) as changed:
        # The event before the request, in every transaction: a repeat of it may be waiting for the one while it holds the other.
        if event is not None and await _is_recorded(event):
            return Recorded()
        request_id = await owner_of(
            connection, statements, checkout.external_id if checkout else None, request_reference
        )
        if request_id is None:
            await _handled(event, "foreign", changed.now)
            return Recorded()
        # Read again inside the lock: what was known before it may be old.
        request = await PaymentRequest.filter(id=request_id, account_id=account_id).select_for_update(no_key=True).get()
        recorded = Recorded(request=request, previous_status=request.status)
        sessions = await CheckoutSession.filter(payment_request_id=request.id).order_by("n")
        session, moved = None, False
        if checkout is not None:
            session = await _session_of(connection, request, sessions, checkout, changed.now)
            moved = await _move(session, checkout, statements)
        fresh: list[MoneyFact] = []
        for statement in statements:
            of = next(
                (s for s in sessions if s.external_id and s.external_id == statement.checkout_external_id), session
            )
            fresh += await _store(connection, request, of, statement, source, changed.now)
        if session is not None and session.status in ("FAILED", "EXPIRED"):
            for statement in await _given_up(session):
                fresh += await _store(connection, request, session, statement, source, changed.now)
        await _handled(event, "recorded" if fresh or moved else "repeated", changed.now)
        if fresh or moved:
            await _settle(changed, request, sessions, fresh, recorded)
        return recorded


async def _is_recorded(event: ProcessorEvent) -> bool:
    """Lock the stored event and read it again. A foreign one may be looked at again: it may concern money that we learnt of since."""
    stored = await ProcessorEvent.filter(id=event.id).select_for_update(no_key=True).get()
    return stored.handled_at is not None and stored.result != "foreign"


async def _handled(event: ProcessorEvent | None, result: str, now: datetime) -> None:
    if event is not None:
        await ProcessorEvent.filter(id=event.id).update(handled_at=now, result=result, error=None)


# ------------------------------------------------------------------------------------------------------- whose it is
async def owner_of(
    connection: ProcessorConnection,
    statements: Sequence[MoneyStatement],
    checkout_external_id: str | None,
    request_reference: str | None,
) -> UUID | None:
    """The request that the statements concern: by checkout, by our reference on the vendor's object, by the charge. None: foreign."""
    ours: dict[str, Any] = {"processor_connection_id": connection.id, "account_id": connection.account_id}
    known = [s.checkout_external_id for s in statements if s.checkout_external_id]
    if checkout_external_id is not None:
        known.append(checkout_external_id)
    if known and (session := await CheckoutSession.filter(external_id__in=known, **ours).first()):
        return session.payment_request_id
    for reference in [request_reference, *(s.request_reference for s in statements)]:
        request_id = parse_public_id(reference, "pr") if reference else None
        if request_id is not None and await PaymentRequest.exists(id=request_id, **ours):
            return request_id
    moneys = [s.charge_external_id for s in statements if s.charge_external_id] + [s.external_id for s in statements]
    if moneys and (fact := await MoneyFact.filter(external_id__in=moneys, **ours).first()):
        return fact.payment_request_id
    return None


# ---------------------------------------------------------------------------------------------------- checkouts, facts
async def _session_of(
    connection: ProcessorConnection,
    request: PaymentRequest,
    sessions: list[CheckoutSession],
    checkout: CheckoutReport,
    now: datetime,
) -> CheckoutSession:
    """The row of a checkout. One that we do not know is adopted: somebody died between the vendor's answer and our commit."""
    session = next((s for s in sessions if s.external_id == checkout.external_id), None)
    if session is not None:
        return session
    unanswered = [s for s in sessions if s.external_id is None and s.status == "OPENING"]
    if unanswered:
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
        idempotency_key=f"{links.reference(request)}:{n}",
        amount_minor=request.amount_minor,
        currency=request.currency,
        status="OPENING",
        external_id=checkout.external_id,
        next_check_at=now,
    )
    await session.save(force_create=True)
    sessions.append(session)
    return session


async def _move(session: CheckoutSession, checkout: CheckoutReport, statements: Sequence[MoneyStatement]) -> bool:
    """Take over the checkout's state; whether it changed."""
    paid = any(s.kind == MoneyKind.CHARGE and s.outcome == MoneyOutcome.SUCCEEDED for s in statements)
    said = "COMPLETED" if paid else checkout.status.value if checkout.status else session.status
    moved = SESSION_RANK[said] > SESSION_RANK[session.status] and (paid or said != "COMPLETED")
    if moved:
        session.status = said
        if SESSION_RANK[said] >= SESSION_RANK["ABANDONED"]:
            session.next_check_at = None
    if checkout.expires_at is not None:
        session.expires_at = checkout.expires_at
    await session.save()
    return moved


async def _store(
    connection: ProcessorConnection,
    request: PaymentRequest,
    session: CheckoutSession | None,
    statement: MoneyStatement,
    source: str,
    now: datetime,
) -> list[MoneyFact]:
    """Insert the fact; nothing when it was known, or what was not known of it yet (its fee, how it was paid)."""
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
        counted=_counts(request, session, statement),
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
    if await _insert(fact):
        return [fact]
    if statement.kind != MoneyKind.CHARGE or statement.outcome != MoneyOutcome.SUCCEEDED:
        return []
    # A webhook often comes without fee and method; the object that is read afterwards has them. Facts are never updated: a further row.
    known = await MoneyFact.filter(
        processor_connection_id=connection.id, external_id=fact.external_id, kind__in=["CHARGE", "ADJUSTMENT"]
    )
    new_fee = fact.fee_minor is not None and all(row.fee_minor is None for row in known)
    new_method = fact.method_summary is not None and all(row.method_summary is None for row in known)
    if not new_fee and not new_method:
        return []
    fact.id, fact.kind, fact.amount_minor, fact.charge_external_id = uuid7(), "ADJUSTMENT", 0, fact.external_id
    fact.outcome = "SUCCEEDED" if fact.fee_minor is not None else "PENDING"  # the fee may still come
    fact.fee_minor = fact.fee_minor if new_fee else None
    return [fact] if await _insert(fact) else []


async def _insert(fact: MoneyFact) -> bool:
    """Whether the fact is new. The unique key is the promise; on a conflict the transaction stays usable on both databases."""
    await MoneyFact.bulk_create([fact], ignore_conflicts=True)
    return bool(await database.rows("SELECT 1 AS found FROM money_fact WHERE id = ?", fact.id))


def _counts(request: PaymentRequest, session: CheckoutSession | None, statement: MoneyStatement) -> bool:
    """A charge counts only if amount and currency equal what was stored before the processor was called.

    Whether a refund or dispute counts follows from its charge, which may be told later: that is asked when the facts are added up.
    """
    asked = (session.amount_minor, session.currency) if session else (request.amount_minor, request.currency)
    return statement.kind != MoneyKind.CHARGE or (statement.amount_minor, statement.currency) == asked


async def _given_up(session: CheckoutSession) -> list[MoneyStatement]:
    """The money of a checkout that ended without any: what was PENDING there did not arrive, even if the vendor names it no more."""
    outcomes: dict[str, list[MoneyFact]] = {}
    for fact in await MoneyFact.filter(checkout_session_id=session.id, kind="CHARGE"):
        outcomes.setdefault(fact.external_id, []).append(fact)
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


# ------------------------------------------------------------------------------------------------------------ settle
async def _settle(
    changed: Change,
    request: PaymentRequest,
    sessions: list[CheckoutSession],
    fresh: list[MoneyFact],
    recorded: Recorded,
) -> None:
    """Derive the status from all facts, write it, and say what happened."""
    contact = await summaries.lock_contact(request.account_id, request.contact_id)
    facts = await MoneyFact.filter(payment_request_id=request.id).order_by("id")
    charges = [fact for fact in facts if fact.kind == "CHARGE"]
    before, shown = request.status, _shown(request)
    under_way = next((s for s in reversed(sessions) if s.status == "PROCESSING"), None)
    if request.sent_at is None and request.voided_at is None and (charges or under_way):
        # Tried or paid though never sent (the link was pasted elsewhere): the first card still comes first.
        request.sent_at, request.sent_via = changed.now, "LINK_COPIED"
        request.status = Status.SENT.value
        await _say(changed, recorded, request, CardKind.PAYMENT_REQUEST, cards.asked(request), key=str(request.id))
    at = _position(request, facts, processing=under_way is not None)
    request.status = at.status.value
    request.amount_paid_minor = at.settled_minor
    request.refunded_minor = at.refunded_minor
    request.excess_minor = at.excess_minor
    request.late_minor = at.late_minor
    request.refund_state = at.refund_state
    request.dispute_state = at.dispute_state
    if at.status == Status.PAID and request.paid_at is None:
        settling = [f.occurred_at for f in charges if f.outcome == "SUCCEEDED" and f.counted and not f.after_void]
        request.paid_at = max(settling)
        request.void_requested_at = None  # the payment won
    if charges:
        last = max(charges, key=lambda f: (f.occurred_at, ledger.CHARGE_RANK[f.outcome], f.id))
        request.last_attempt_status = last.outcome
        request.last_attempt_code = last.failure_code
        request.last_attempt_message = last.failure_message
        request.last_attempt_at = last.occurred_at

    for fact in fresh:
        await _say_fact(changed, recorded, request, fact, facts, before)
    if request.status == Status.PROCESSING and before != Status.PROCESSING:
        key = str(under_way.id if under_way else request.id)
        await _say(changed, recorded, request, CardKind.PAYMENT_PROCESSING, cards.processing(request), key=key)
    told = {fact.checkout_session_id for fact in charges if fact.outcome in ("FAILED", "CANCELED")}
    failed = [s for s in sessions if s.status == "FAILED" and s.id not in told]  # a failed charge has its own card
    if before == Status.PROCESSING and request.status in ledger.OPEN and failed:
        text = cards.attempt_failed(request)
        await _say(changed, recorded, request, CardKind.PAYMENT_FAILED, text, key=str(failed[-1].id), notify=True)
    if fresh or shown != _shown(request):
        if "customer" not in contact.tags and any(f.kind == "CHARGE" and f.outcome == "SUCCEEDED" for f in fresh):
            contact.tags = [*contact.tags, "customer"]
            contact.version += 1
            await contact.save()
        request.version += 1
        await request.save()
        await summaries.update(request.account_id, request.contact_id)
        _log(changed, request, recorded, before)
    await _enqueue(request, sessions, fresh)


def _shown(request: PaymentRequest) -> tuple[object, ...]:
    """What a client could see change when a checkout moves and no money does."""
    return (request.status, request.sent_at, request.void_requested_at)


def _position(request: PaymentRequest, facts: list[MoneyFact], *, processing: bool) -> Position:
    counted = {(f.processor_connection_id, f.external_id) for f in facts if f.kind == "CHARGE" and f.counted}
    return ledger.position(
        [
            ledger.Fact(
                connection=fact.processor_connection_id,
                kind=fact.kind,
                external_id=fact.external_id,
                outcome=fact.outcome,
                amount_minor=fact.amount_minor,
                counted=fact.counted
                if fact.kind == "CHARGE"
                else (fact.processor_connection_id, fact.charge_external_id) in counted,
                after_void=fact.after_void,
                occurred_at=fact.occurred_at,
                charge_external_id=fact.charge_external_id,
            )
            for fact in facts
            if fact.kind in ledger.RANKS
        ],
        amount_minor=request.amount_minor,
        sent=request.sent_at is not None,
        voided=request.voided_at is not None,
        checkout_processing=processing,
    )


async def _say_fact(
    changed: Change,
    recorded: Recorded,
    request: PaymentRequest,
    fact: MoneyFact,
    facts: list[MoneyFact],
    before: str,
) -> None:
    """The card of one new fact; none if a higher outcome of the same money is known (it came late)."""
    ranks = ledger.RANKS.get(fact.kind, {})
    same = [f for f in facts if f.kind == fact.kind and f.external_id == fact.external_id]
    if any(ranks.get(f.outcome, 0) > ranks.get(fact.outcome, 0) for f in same):
        return
    named = any(card.kind == CardKind.PAYMENT_RECEIVED for card in recorded.cards)
    first = request.status == Status.PAID and before != Status.PAID and not named
    said = cards.about(request, fact, first_settling=first)
    if said is not None:
        kind, text = said
        key = str(request.id if kind == CardKind.PAYMENT_RECEIVED else fact.id)
        await _say(changed, recorded, request, kind, text, key=key, money_fact_id=fact.id, notify=True)


async def _say(
    changed: Change,
    recorded: Recorded,
    request: PaymentRequest,
    kind: CardKind,
    text: str,
    *,
    key: str,
    money_fact_id: UUID | None = None,
    notify: bool = False,
) -> None:
    card = await changed.log_card(request, kind, text=text, key=key, money_fact_id=money_fact_id)
    if card is None:
        return
    recorded.cards.append(card)
    if notify:
        title = cards.TITLES[kind]
        await notifications.notify(changed, request, kind, title=title, body=text, cause_key=f"{kind}:{key}")


def _log(changed: Change, request: PaymentRequest, recorded: Recorded, before: str) -> None:
    """One event per card, each with the status before it; one `updated` if there is no card."""
    previous = before
    for card in recorded.cards:
        name = cards.EVENTS[CardKind(card.kind)]
        changed.request_event(name, request, previous_status=previous, card_id=card.id, payment_id=card.money_fact_id)
        previous = card.status
    if not recorded.cards:
        changed.request_event("updated", request, previous_status=before)
    changed.event("contact.updated", conversation_id=request.conversation_id, contact_id=request.contact_id)


async def _enqueue(request: PaymentRequest, sessions: list[CheckoutSession], fresh: list[MoneyFact]) -> None:
    """Close what must not be paid any more; read back what only a webhook has said."""
    if request.status in (Status.PAID, Status.VOID):
        for session in sessions:
            if session.status in ("OPENING", "OPEN"):
                await jobs.enqueue(
                    "checkout.expire",
                    {"session_id": str(session.id)},
                    account_id=request.account_id,
                    key=f"checkout.expire:{session.id}",
                    again=True,
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
                {"session_id": str(fact.checkout_session_id), "fact_id": str(fact.id)},
                account_id=request.account_id,
                key=f"checkout.read_back:{fact.id}",
            )
