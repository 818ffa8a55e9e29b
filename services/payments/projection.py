"""Applies facts to a request: status, totals, cards, notifications, events, jobs. Only the recorder calls `apply`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from models import ledger, rows
from models.ledger import CardKind, Facet, Standing, Status
from models.tables import ActivityCard, CheckoutSession, Contact, MoneyFact, PaymentRequest, Refund
from services.core import actors, jobs
from services.core.unit_of_work import Change
from services.payments import checkout_closing, payment_views
from services.thread import activity_cards, contact_totals, notifications, request_rows

# Until a payment not called delayed may be released; longer than any card check.
HELD_FOR: Final = timedelta(hours=1)
# Then the team is notified of a partly paid checkout.
REST_WITHIN: Final = timedelta(seconds=60)
# Facts of the team's decisions.
DECISIONS: Final = ("ACCEPTANCE", "WAIVER")

WRITTEN: Final = (
    *request_rows.SENT_COLUMNS,
    "amount_paid_minor",
    "refunded_minor",
    "excess_minor",
    "late_minor",
    "waived_minor",
    "unresolved",
    "refund_state",
    "dispute_state",
    "paid_at",
    "void_requested_at",
    "releasable_at",
    "released_at",
    "last_attempt_status",
    "last_attempt_code",
    "last_attempt_message",
    "last_attempt_at",
    "version",
)

_FACETS: Final = {
    "sent_at": Facet.DELIVERY,
    "sent_via": Facet.DELIVERY,
    "amount_paid_minor": Facet.PAYMENTS,
    "excess_minor": Facet.PAYMENTS,
    "late_minor": Facet.PAYMENTS,
    "waived_minor": Facet.PAYMENTS,
    "unresolved": Facet.MISMATCH,
    "refunded_minor": Facet.REFUNDS,
    "refund_state": Facet.REFUNDS,
    "dispute_state": Facet.DISPUTES,
    "void_requested_at": Facet.VOID,
    "releasable_at": Facet.LINK,
    "released_at": Facet.LINK,
    "last_attempt_status": Facet.ATTEMPT,
    "last_attempt_code": Facet.ATTEMPT,
    "last_attempt_message": Facet.ATTEMPT,
    "last_attempt_at": Facet.ATTEMPT,
}
_FACETS_OF_FACTS: Final = {"REFUND": Facet.REFUNDS, "DISPUTE": Facet.DISPUTES}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Before:
    status: str
    is_released: bool
    visible: tuple[object, ...]
    values: dict[str, object]  # of the columns that may be written


async def apply(
    changed: Change,
    request: PaymentRequest,
    sessions: list[CheckoutSession],
    fresh: list[MoneyFact],
) -> list[ActivityCard]:
    """Recompute a locked request from its facts, save it and announce changes; return the new cards."""
    contact = await contact_totals.lock_contact(request.account_id, request.contact_id)
    (found,) = await changed.load(
        request.id, rows.query(MoneyFact, "WHERE payment_request_id = ? ORDER BY id", request.id)
    )
    facts = [rows.from_record(MoneyFact, record) for record in found]
    fact_set = _FactSet(facts, fresh, sessions, changed.now)
    before = _Before(
        status=request.status,
        is_released=request.released_at is not None,
        visible=_visible_state(request),
        values=_values(request),
    )
    cards: list[ActivityCard] = []
    await _mark_sent(changed, cards, request, fact_set)
    _derive(changed, request, fact_set)
    await _announce(changed, cards, request, fact_set, before)
    if fresh or before.visible != _visible_state(request):
        await _tag_customer(contact, fresh)
        request.version += 1
        changed_columns = [name for name, value in _values(request).items() if before.values[name] != value]
        await rows.update(request, [*changed_columns, "updated_at"])
        await contact_totals.update_locked(contact)
        _log_events(changed, request, cards, before.status, _facets(changed_columns, fresh))
    await _enqueue_follow_ups(request, fact_set)
    return cards


async def _mark_sent(changed: Change, cards: list[ActivityCard], request: PaymentRequest, fact_set: _FactSet) -> None:
    if request.sent_at is None and request.voided_at is None and (fact_set.charges or fact_set.under_way):
        # Never sent, yet tried or paid: the link was pasted elsewhere. The request's card comes first.
        card = await request_rows.mark_sent(changed, request, via="LINK_COPIED")
        cards += [card] if card is not None else []


def _derive(changed: Change, request: PaymentRequest, fact_set: _FactSet) -> None:
    at = standing_of(request, fact_set.facts, fact_set.sessions)
    request.status = at.status.value
    request.released_at = (request.released_at or changed.now) if at.released else None
    request.releasable_at = _releasable_at(request, fact_set.facts, fact_set.sessions)
    request.amount_paid_minor = at.settled_minor
    request.refunded_minor = at.refunded_minor
    request.excess_minor = at.excess_minor
    request.late_minor = at.late_minor
    request.waived_minor = at.waived_minor
    request.unresolved = bool(at.unresolved)
    request.refund_state = at.refund_state
    request.dispute_state = at.dispute_state
    if at.status == Status.PAID and request.paid_at is None:
        request.paid_at = fact_set.paid_at()
        request.void_requested_at = None  # the payment won
    elif at.status != Status.PAID:
        request.paid_at = None  # a manual record was undone
    if attempts := [fact for fact in fact_set.charges if not _is_manual(fact)]:
        last = max(attempts, key=lambda f: (f.occurred_at, ledger.CHARGE_RANK[f.outcome], f.id))
        request.last_attempt_status = last.outcome
        request.last_attempt_code = last.failure_code
        request.last_attempt_message = last.failure_message
        request.last_attempt_at = last.occurred_at


async def _announce(
    changed: Change, cards: list[ActivityCard], request: PaymentRequest, fact_set: _FactSet, before: _Before
) -> None:
    for fact in fact_set.fresh:
        if fact.kind == "REFUND":
            await _update_refund(fact, fact_set.facts)
        await _announce_fact(changed, cards, request, fact, fact_set, before.status)
    under_way, is_released = fact_set.under_way, request.released_at is not None
    starts = before.status != Status.PROCESSING or before.is_released
    if request.status == Status.PROCESSING and not is_released and starts:
        text = activity_cards.processing(request, await changed.locale())
        key = str(under_way.id if under_way else request.id)
        await _log_card(changed, cards, request, CardKind.PAYMENT_PROCESSING, text, key=key)
    if is_released and not before.is_released and under_way is not None:
        text = activity_cards.released(request, under_way.delayed_method, await changed.locale())
        await _log_card(
            changed, cards, request, CardKind.PAYMENT_PROCESSING, text, key=f"released:{under_way.id}", by=changed.actor
        )
    # A failed charge has its own card.
    announced = {fact.checkout_session_id for fact in fact_set.charges if fact.outcome in ("FAILED", "CANCELED")}
    failed = [s for s in fact_set.sessions if s.status == "FAILED" and s.id not in announced]
    open_again = request.status in ledger.PAYABLE or is_released
    if before.status == Status.PROCESSING and open_again and failed:
        text = activity_cards.attempt_failed(request, await changed.locale())
        await _log_card(changed, cards, request, CardKind.PAYMENT_FAILED, text, key=str(failed[-1].id), notify=True)


async def _tag_customer(contact: Contact, fresh: list[MoneyFact]) -> None:
    if "customer" not in contact.tags and any(f.kind == "CHARGE" and f.outcome == "SUCCEEDED" for f in fresh):
        contact.tags = [*contact.tags, "customer"]
        contact.version += 1
        await rows.update(contact, ("tags", "version", "updated_at"))


def _values(request: PaymentRequest) -> dict[str, object]:
    return {name: getattr(request, name) for name in WRITTEN}


def _is_manual(fact: MoneyFact) -> bool:
    return fact.processor_connection_id is None


def _visible_state(request: PaymentRequest) -> tuple[object, ...]:
    return (request.status, request.sent_at, request.void_requested_at, request.releasable_at, request.released_at)


def is_releasable(request: PaymentRequest) -> bool:
    """Whether a delayed payment holds the link and may be released."""
    held = request.status == Status.PROCESSING and request.released_at is None and request.void_requested_at is None
    return held and request.releasable_at is not None and request.releasable_at <= datetime.now(UTC)


def _releasable_at(
    request: PaymentRequest, facts: list[MoneyFact], sessions: Iterable[CheckoutSession]
) -> datetime | None:
    held = [session for session in sessions if session.status == "PROCESSING" and session.released_at is None]
    if request.status != Status.PROCESSING or not held:
        return None
    decided = {fact.external_id for fact in facts if fact.kind == "CHARGE" and fact.outcome != "PENDING"}
    known = {session.id for session in sessions if session.status == "PROCESSING"}
    for fact in facts:
        pending = fact.kind == "CHARGE" and fact.counted and fact.external_id not in decided
        if pending and fact.checkout_session_id not in known:
            return None
    since = [(one.processing_at or one.updated_at, one.delayed) for one in held]
    return max(at if delayed else at + HELD_FOR for at, delayed in since)


def standing_of(request: PaymentRequest, facts: list[MoneyFact], sessions: Iterable[CheckoutSession]) -> Standing:
    """What the facts of a request add up to."""
    under_way = [session for session in sessions if session.status == "PROCESSING"]
    released = {session.id for session in sessions if session.released_at is not None}
    return ledger.standing(
        payment_views.as_ledger(facts, released=released),
        amount_minor=request.amount_minor,
        currency=request.currency,
        sent=request.sent_at is not None,
        voided=request.voided_at is not None,
        checkout_processing=any(session.released_at is None for session in under_way),
        checkout_released=any(session.released_at is not None for session in under_way),
    )


def _payment_key(fact: MoneyFact) -> ledger.PaymentKey:
    return fact.processor_connection_id, fact.external_id


class _FactSet:
    def __init__(
        self, facts: list[MoneyFact], fresh: list[MoneyFact], sessions: list[CheckoutSession], now: datetime
    ) -> None:
        self.facts, self.fresh, self.sessions, self.now = facts, fresh, sessions, now
        self.charges = [fact for fact in facts if fact.kind == "CHARGE"]
        self.under_way = next((s for s in reversed(sessions) if s.status == "PROCESSING"), None)
        final = ledger.final(payment_views.as_ledger(facts))
        self.counting = ledger.counting(final)
        self._unresolved = ledger.unresolved(final, self.counting.charges)

    def paid_at(self) -> datetime:
        undone = {fact.external_id for fact in self.charges if _is_manual(fact) and fact.outcome == "CANCELED"}
        times = [
            f.occurred_at
            for f in self.charges
            if f.outcome == "SUCCEEDED"
            and _payment_key(f) in self.counting.charges
            and not f.after_void
            and f.external_id not in undone
        ]
        return max([*times, *(f.occurred_at for f in self.facts if f.kind in DECISIONS)])

    def is_announced_by_another(self, fact: MoneyFact) -> bool:
        # The card of the last tender or acceptance covers the others.
        if fact.kind == "CHARGE" and fact.outcome == "SUCCEEDED":
            return fact.id != max((one.id for one in self.tenders(fact) if one in self.fresh), default=fact.id)
        if fact.kind == "ACCEPTANCE":
            return fact.id != max(one.id for one in self.fresh if one.kind == "ACCEPTANCE")
        return fact.kind == "WAIVER"

    def tenders(self, fact: MoneyFact) -> list[MoneyFact]:
        if _payment_key(fact) not in self.counting.parts:
            return [fact]
        # Without charges that the team accepted before, or across a void.
        accepted = {_payment_key(one) for one in self.facts if one.kind == "ACCEPTANCE"} - {_payment_key(fact)}
        announced = self.counting.parts - accepted
        arrived = self._arrived_on(fact.checkout_session_id)
        return [one for one in arrived if _payment_key(one) in announced and one.after_void == fact.after_void]

    def awaits_rest(self, session: CheckoutSession | None) -> bool:
        if session is None or session.status not in ("OPEN", "PROCESSING"):
            return False
        parts = self._arrived_on(session.id)
        return (
            bool(parts)
            and all(one.asked_minor and self._unresolved.get(_payment_key(one)) == one.amount_minor for one in parts)
            and sum(one.amount_minor for one in parts) < session.amount_minor
            and max(one.recorded_at for one in parts) > self.now - REST_WITHIN
        )

    def _arrived_on(self, session_id: UUID | None) -> list[MoneyFact]:
        charges = [one for one in self.facts if one.kind == "CHARGE" and one.outcome == "SUCCEEDED"]
        return [one for one in charges if one.checkout_session_id == session_id]


async def _requester(fact: MoneyFact) -> actors.ActorRef | None:
    """Of a refund that the team asked for, also before the response that names its id is stored."""
    asked = await Refund.filter(payment_request_id=fact.payment_request_id).order_by("id")
    about = (fact.processor_connection_id, fact.charge_external_id, fact.amount_minor, fact.currency)
    for row in asked:
        if (row.processor_connection_id, row.external_id) == (fact.processor_connection_id, fact.external_id):
            return actors.of_refund(row.requested_by, row.requested_by_id)
    for row in asked:
        same = (row.processor_connection_id, row.charge_external_id, row.amount_minor, row.currency) == about
        if same and row.external_id is None and row.status in ("PENDING", "UNKNOWN") and row.id < fact.id:
            return actors.of_refund(row.requested_by, row.requested_by_id)
    return None


async def _update_refund(fact: MoneyFact, facts: list[MoneyFact]) -> None:
    same = [f for f in facts if f.kind == "REFUND" and f.external_id == fact.external_id]
    best = max(same, key=payment_views.rank)
    await Refund.filter(processor_connection_id=fact.processor_connection_id, external_id=fact.external_id).update(
        status=best.outcome, failure_reason=best.failure_message or best.failure_code
    )


async def _announce_fact(
    changed: Change,
    cards: list[ActivityCard],
    request: PaymentRequest,
    fact: MoneyFact,
    fact_set: _FactSet,
    before: str,
) -> None:
    same = [f for f in fact_set.facts if f.kind == fact.kind and f.external_id == fact.external_id]
    if any(payment_views.rank(f) > payment_views.rank(fact) for f in same):
        return
    if fact.kind == "DISPUTE" and (earlier := [f for f in same if f.id != fact.id]):
        await _announce_dispute_change(changed, cards, request, fact, earlier)
        return
    counted = fact.kind != "CHARGE" or _payment_key(fact) in fact_set.counting.charges
    if fact.kind == "CHARGE" and fact.outcome == "SUCCEEDED":
        session = next((one for one in fact_set.sessions if one.id == fact.checkout_session_id), None)
        if not counted and fact_set.awaits_rest(session):
            await _check_rest_later(changed, request, fact)
            return
    if fact_set.is_announced_by_another(fact):
        return
    named = any(card.kind in (CardKind.PAYMENT_RECEIVED, CardKind.PARTIAL_PAYMENT) for card in cards)
    settles = request.status == Status.PAID and before != Status.PAID and not named
    # It was PAID before a manual record was undone. PAYMENT_RECEIVED is logged once; this payment gets another card.
    again = settles and changed.has_card(request.id, CardKind.PAYMENT_RECEIVED)
    news = _card_of(request, fact, fact_set, await changed.locale(), counted=counted, settles=settles, again=again)
    if news is not None:
        kind, text = news
        key = str(request.id if kind == CardKind.PAYMENT_RECEIVED else fact.id)
        title = "Payment accepted" if fact.kind == "ACCEPTANCE" else None
        if kind == CardKind.PAYMENT_MISMATCH and not fact.confirmed:
            title = activity_cards.NOT_CONFIRMED
        by = await _requester(fact) if kind == CardKind.REFUND_ISSUED else None
        await _log_card(
            changed, cards, request, kind, text, key=key, money_fact_id=fact.id, notify=True, title=title, by=by
        )


def _card_of(
    request: PaymentRequest,
    fact: MoneyFact,
    fact_set: _FactSet,
    locale: str,
    *,
    counted: bool,
    settles: bool,
    again: bool,
) -> tuple[CardKind, str] | None:
    if fact.kind == "ACCEPTANCE":
        accepted = [one for one in fact_set.fresh if one.kind == "ACCEPTANCE"]
        return activity_cards.accepted(request, accepted, locale, settles=settles, settles_again=again)
    return activity_cards.about(
        request,
        fact,
        locale,
        counted=counted,
        money_minor=sum(one.amount_minor for one in fact_set.tenders(fact)),
        first_settling=settles and not again,
        settles_again=again,
    )


async def _check_rest_later(changed: Change, request: PaymentRequest, fact: MoneyFact) -> None:
    await jobs.enqueue(
        "mismatch.judge",
        {"fact_id": str(fact.id)},
        account_id=request.account_id,
        key=f"mismatch.judge:{fact.id}",
        due_at=changed.now + REST_WITHIN,
    )


async def announce_mismatch(changed: Change, request: PaymentRequest, fact: MoneyFact) -> None:
    """Notify the team once of money that does not count, under the request's lock."""
    cards: list[ActivityCard] = []
    kind, text = activity_cards.mismatch(request, fact, await changed.locale())
    await _log_card(changed, cards, request, kind, text, key=str(fact.id), money_fact_id=fact.id, notify=True)
    if cards:
        request.version += 1
        await rows.update(request, ("version", "updated_at"))
        _log_events(changed, request, cards, request.status, {Facet.MISMATCH})


async def _announce_dispute_change(
    changed: Change, cards: list[ActivityCard], request: PaymentRequest, fact: MoneyFact, known: list[MoneyFact]
) -> None:
    was, now = (ledger.dispute_state(f.outcome) for f in (max(known, key=payment_views.rank), fact))
    began = now == "NEEDS_RESPONSE" and not fact.inquiry and all(f.inquiry and f.outcome == "PENDING" for f in known)
    if was == now and not began:
        return
    kind, text = activity_cards.dispute_again(request, fact, await changed.locale(), began=began)
    await _log_card(changed, cards, request, kind, text, key=str(fact.id), money_fact_id=fact.id, notify=True)


async def _log_card(
    changed: Change,
    cards: list[ActivityCard],
    request: PaymentRequest,
    kind: CardKind,
    text: str,
    *,
    key: str,
    money_fact_id: UUID | None = None,
    notify: bool = False,
    title: str | None = None,
    by: actors.ActorRef | None = None,
) -> None:
    if by is None and kind in activity_cards.OF_PAYERS and changed.actor.kind not in ("USER", "API_KEY"):
        by = actors.contact(request.contact_id)
    card = await changed.log_card(request, kind, text=text, key=key, money_fact_id=money_fact_id, actor=by)
    if card is None:
        return
    cards.append(card)
    if notify and kind in activity_cards.TITLES:
        title = title or activity_cards.TITLES[kind]
        await notifications.notify(changed, request, kind, title=title, body=text, cause_key=f"{kind}:{key}")


def _facets(columns: Iterable[str], fresh: list[MoneyFact]) -> set[Facet]:
    facets = {_FACETS[name] for name in columns if name in _FACETS}
    for fact in fresh:
        facets |= {Facet.PAYMENTS, _FACETS_OF_FACTS.get(fact.kind, Facet.PAYMENTS)}
        if fact.kind == "ADJUSTMENT" and fact.charge_external_id != fact.external_id:
            facets.add(Facet.DISPUTES)  # more details of one
    return facets


def _log_events(
    changed: Change, request: PaymentRequest, cards: list[ActivityCard], before: str, facets: set[Facet]
) -> None:
    previous = before
    for card in cards:
        name = activity_cards.event_of(CardKind(card.kind), card.status, previous)
        changed.request_event(
            name,
            request,
            previous_status=previous,
            facets=facets,
            card_id=card.id,
            payment_id=card.money_fact_id,
        )
        previous = card.status
    if not cards:
        changed.request_event("updated", request, previous_status=before, facets=facets)
    changed.event("contact.updated", conversation_id=request.conversation_id, contact_id=request.contact_id)


async def _enqueue_follow_ups(request: PaymentRequest, fact_set: _FactSet) -> None:
    # After a manual record, open checkouts ask for the wrong amount.
    has_manual = any(_is_manual(fact) or fact.kind in DECISIONS for fact in fact_set.fresh)
    closed = request.status in (Status.PAID, Status.VOID)
    for session in fact_set.sessions:
        if session.status not in ("OPENING", "OPEN"):
            continue
        if closed or ((has_manual or request.unresolved) and not fact_set.awaits_rest(session)):
            await checkout_closing.expire_later(session)
    for fact in fact_set.fresh:
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
