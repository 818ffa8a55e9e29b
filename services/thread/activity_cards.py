"""The texts of activity cards and notifications, and their event names."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from models.ledger import CardKind, is_payable
from models.money import Money
from models.tables import MoneyFact, PaymentRequest

NAME_SHOWN: Final = 80  # characters of a name within a longer sentence

# Titles of notifications. A kind that is missing here notifies no one.
TITLES: Final = {
    CardKind.PAYMENT_RECEIVED: "Payment received",
    CardKind.PARTIAL_PAYMENT: "Part payment received",
    CardKind.PAYMENT_FAILED: "Payment failed",
    CardKind.PAYMENT_MISMATCH: "Unexpected amount received",
    CardKind.LATE_PAYMENT: "Payment after void",
    CardKind.EXCESS_PAYMENT: "Paid more than asked",
    CardKind.REFUND_ISSUED: "Refund issued",
    CardKind.REFUND_FAILED: "Refund failed",
    CardKind.DISPUTE_OPENED: "Payment disputed",
    CardKind.DISPUTE_CLOSED: "Dispute closed",
    CardKind.DELIVERY_FAILED: "Message not delivered",
    CardKind.CHECKOUT_REFUSED: "Payment refused by the processor",
    CardKind.PROCESSOR_DISCONNECTED: "Processor disconnected",
}

NOT_CONFIRMED: Final = "Payment not confirmed"  # title of a PAYMENT_MISMATCH that the processor does not confirm

# The event `payment_request.{name}` of a card.
EVENTS: Final = {
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
    CardKind.DELIVERY_FAILED: "delivery_failed",
    CardKind.CHECKOUT_REFUSED: "checkout_refused",
}


# What the contact causes by paying, unless a person of the team records or decides it.
OF_PAYERS: Final = frozenset(
    {
        CardKind.PAYMENT_RECEIVED,
        CardKind.PARTIAL_PAYMENT,
        CardKind.PAYMENT_PROCESSING,
        CardKind.PAYMENT_FAILED,
        CardKind.PAYMENT_MISMATCH,
        CardKind.LATE_PAYMENT,
        CardKind.EXCESS_PAYMENT,
    }
)


def event_of(kind: CardKind, status: str, previous: str) -> str:
    if kind != CardKind.RECORDED_OUTSIDE:
        return "paid" if (kind, status) == (CardKind.PARTIAL_PAYMENT, "PAID") else EVENTS[kind]
    named = {"PAID": "paid", "PARTIALLY_PAID": "partially_paid"}
    return named.get(status, "updated") if status != previous else "updated"


def amount_text(request: PaymentRequest, locale: str) -> str:
    return Money(request.amount_minor, request.currency).formatted(locale)


def _time_text(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at:%B} {at.day}, {at.year}, {at:%H:%M} UTC"


def asked(request: PaymentRequest, locale: str) -> str:
    return f"Payment request {request.number}: {amount_text(request, locale)} for {request.product_name}."


def processing(request: PaymentRequest, locale: str) -> str:
    waits = request.last_attempt_message if request.last_attempt_status == "PENDING" else None
    text = f"A payment of {amount_text(request, locale)} for {request.product_name} is being processed."
    return f"{text} {waits}" if waits else text


def released(request: PaymentRequest, method: str | None, locale: str) -> str:
    by = f" by {method}" if method else ""
    what = f"A payment of {amount_text(request, locale)} for {request.product_name}{by} is still under way"
    if request.unresolved:
        return f"{what}. It no longer holds the link, but money that arrived waits for your decision first."
    return f"{what}, and the link can be paid another way. If both arrive, the second one can be refunded."


def voided(request: PaymentRequest) -> str:
    why = f" Reason: {request.void_reason}" if request.void_reason else ""
    return f"Payment request {request.number} was voided.{why}"


def undelivered(request: PaymentRequest, *, window_closed: bool = False) -> str:
    why = ": the time to answer the contact's last message on this channel is over" if window_closed else ""
    return f"The message with the link of {request.number} could not be delivered{why}. The link still works."


def checkout_refused(contact: str, request: PaymentRequest, processor: str, why: str) -> str:
    """Text of CHECKOUT_REFUSED. `why`: sentences for the team, with what to do."""
    who, what = _short(contact), _short(request.product_name)  # so that the card never cuts off what to do
    return f"{who} pressed Pay for {what}, but {processor} refused: {why}"


def _short(name: str) -> str:
    return name if len(name) <= NAME_SHOWN else f"{name[: NAME_SHOWN - 1]}…"


def attempt_failed(request: PaymentRequest, locale: str, *, reason: str | None = None, code: str | None = None) -> str:
    """Text of PAYMENT_FAILED. `reason`: a sentence for the team; it replaces the processor's `code`."""
    why = f" ({code})" if code and not reason else ""
    words = f" {reason}" if reason else ""
    what = f"A payment of {amount_text(request, locale)} for {request.product_name} did not go through"
    return f"{what}{why}.{words}{' The link still works.' if _is_payable(request) else ''}"


def _is_payable(request: PaymentRequest) -> bool:
    closing = request.unresolved or request.void_requested_at is not None
    return is_payable(request.status, released=request.released_at is not None) and not closing


def refund_failed(request: PaymentRequest, money: Money, locale: str) -> str:
    return f"A refund of {money.formatted(locale)} for {request.product_name} failed."


def refund_unconfirmed(request: PaymentRequest, money: Money, locale: str) -> str:
    amount = money.formatted(locale)
    return f"The processor has not confirmed a refund of {amount} for {request.product_name}. Please check there."


def capture_unconfirmed(request: PaymentRequest, locale: str) -> str:
    return f"The processor has not confirmed a payment of {amount_text(request, locale)} for {request.product_name}. Please check there."


def event_unhandled(request: PaymentRequest) -> str:
    return f"Paythread could not process an event about {request.number} from the processor. Please check there."


def unconfirmed(request: PaymentRequest, *, state: str) -> str:
    """Text of PAYMENT_MISMATCH for an unconfirmed webhook."""
    return f"The processor reported {request.number} as paid, but its checkout is {state.lower()}. Please check there."


def _dispute_reason(fact: MoneyFact) -> str:
    why = f": {fact.dispute_reason.replace('_', ' ').lower()}" if fact.dispute_reason else ""
    due = f" Answer by {_time_text(fact.response_due_at)}." if fact.response_due_at else ""
    return f"{why}.{due}"


def mismatch(request: PaymentRequest, fact: MoneyFact, locale: str) -> tuple[CardKind, str]:
    money = Money(fact.amount_minor, fact.currency).formatted(locale)
    if not fact.confirmed:
        said = f"{money} was reported for {request.product_name}. It is not counted."
        return CardKind.PAYMENT_MISMATCH, f"{said} The processor does not confirm it; please check there."
    wanted = f"{amount_text(request, locale)} was asked for {request.product_name}"
    advice = "The request is void: refund it." if request.status == "VOID" else "Accept it or refund it."
    return CardKind.PAYMENT_MISMATCH, f"{money} arrived, but {wanted}. It is not counted yet. {advice}"


def accepted(
    request: PaymentRequest, facts: Sequence[MoneyFact], locale: str, *, settles: bool, settles_again: bool
) -> tuple[CardKind, str]:
    sums: dict[str, int] = {}
    for fact in facts:
        sums[fact.currency] = sums.get(fact.currency, 0) + fact.amount_minor
    money = " and ".join(Money(minor, currency).formatted(locale) for currency, minor in sorted(sums.items()))
    wanted = f"{amount_text(request, locale)} was asked for {request.product_name}"
    note = f" {facts[0].note}" if facts[0].note else ""
    was = "was" if len(sums) == 1 else "were"
    if settles or request.status != "PAID":
        kind = CardKind.PAYMENT_RECEIVED if settles and not settles_again else CardKind.PARTIAL_PAYMENT
        how = "payment in full" if settles else "part payment"
        return kind, f"{money} {was} accepted as {how}; {wanted}.{note}"
    words = f"{money} {was} accepted for {request.product_name}, which was paid already.{note}"
    return CardKind.EXCESS_PAYMENT, words


def about(
    request: PaymentRequest,
    fact: MoneyFact,
    locale: str,
    *,
    first_settling: bool,
    settles_again: bool = False,
    counted: bool = True,
    money_minor: int | None = None,
) -> tuple[CardKind, str] | None:
    """The card of a final fact, or None; `request` has its new status.

    `money_minor`: the sum of the checkout's tenders, if several. `settles_again`: PAID again after a manual record was undone.
    """
    money = Money(fact.amount_minor if money_minor is None else money_minor, fact.currency).formatted(locale)
    if fact.source == "manual":
        return _recorded_outside(request, fact, money)
    if fact.kind != "CHARGE":
        return _after_payment(request, fact, money)
    if fact.outcome == "SUCCEEDED" and not counted:
        return mismatch(request, fact, locale)
    if fact.outcome == "SUCCEEDED":
        return _charged(request, fact, money, first_settling=first_settling, settles_again=settles_again)
    if fact.outcome in ("FAILED", "CANCELED") and request.status not in ("PAID", "VOID"):
        text = attempt_failed(request, locale, reason=fact.failure_message, code=fact.failure_code)
        return CardKind.PAYMENT_FAILED, text
    return None


def _recorded_outside(request: PaymentRequest, fact: MoneyFact, money: str) -> tuple[CardKind, str]:
    method, name = (fact.method_summary or "").lower(), request.product_name
    if fact.outcome == "CANCELED":
        return CardKind.RECORDED_OUTSIDE, f"The record of {money} ({method}) for {name} was undone."
    note = f" {fact.note}" if fact.note else ""
    return CardKind.RECORDED_OUTSIDE, f"{money} for {name} was received outside ({method}).{note}"


def _charged(
    request: PaymentRequest, fact: MoneyFact, money: str, *, first_settling: bool, settles_again: bool
) -> tuple[CardKind, str]:
    name = request.product_name
    if fact.after_void:
        return CardKind.LATE_PAYMENT, f"{money} arrived for {name} after the request had been voided."
    if first_settling:
        return CardKind.PAYMENT_RECEIVED, f"Payment received: {money} for {name}."
    if settles_again:
        # PAYMENT_RECEIVED is logged once per request.
        return CardKind.PARTIAL_PAYMENT, f"Payment received: {money} for {name}. The request is paid in full again."
    if request.status == "PAID":
        return CardKind.EXCESS_PAYMENT, f"{money} arrived for {name}, which was paid already."
    return CardKind.PARTIAL_PAYMENT, f"Part payment received: {money} for {name}."


def _after_payment(request: PaymentRequest, fact: MoneyFact, money: str) -> tuple[CardKind, str] | None:
    name = request.product_name
    match fact.kind, fact.outcome:
        case "REFUND", "SUCCEEDED":
            return CardKind.REFUND_ISSUED, f"{money} was refunded for {name}."
        case "REFUND", "FAILED" | "CANCELED":
            why = f" {fact.failure_message}" if fact.failure_message else ""
            return CardKind.REFUND_FAILED, f"A refund of {money} for {name} failed.{why}"
        case "DISPUTE", "PENDING" if fact.inquiry:
            words = f"The contact's bank asks about {money} for {name}{_dispute_reason(fact)} A refund closes it."
            return CardKind.DISPUTE_OPENED, words
        case "ADJUSTMENT", "SUCCEEDED" if fact.charge_external_id != fact.external_id:
            return CardKind.DISPUTE_OPENED, _inquiry_disputed(request, fact)
        case "DISPUTE", "PENDING":
            return CardKind.DISPUTE_OPENED, f"The contact's bank disputes {money} for {name}{_dispute_reason(fact)}"
        case "DISPUTE", _:
            return CardKind.DISPUTE_CLOSED, _dispute_ended(request, fact, money)
    return None


def _inquiry_disputed(request: PaymentRequest, fact: MoneyFact) -> str:
    return f"What the contact's bank asked about {request.product_name} is now a dispute{_dispute_reason(fact)}"


def _dispute_ended(request: PaymentRequest, fact: MoneyFact, money: str) -> str:
    name = request.product_name
    if fact.outcome == "SUCCEEDED":
        return f"The dispute over {money} for {name} was lost. The money goes back to the contact."
    if fact.inquiry:
        return f"The bank's question about {money} for {name} is closed. It took no money."
    return f"The dispute over {money} for {name} was won. The money stays."


def dispute_again(request: PaymentRequest, fact: MoneyFact, locale: str, *, began: bool) -> tuple[CardKind, str]:
    """The card of a later report about a known dispute. `began`: so far the bank only asked."""
    if began:
        return CardKind.DISPUTE_OPENED, _inquiry_disputed(request, fact)
    money, name = Money(fact.amount_minor, fact.currency).formatted(locale), request.product_name
    if fact.outcome == "PENDING":
        return CardKind.DISPUTE_OPENED, f"The dispute over {money} for {name} is open again{_dispute_reason(fact)}"
    return CardKind.DISPUTE_CLOSED, _dispute_ended(request, fact, money)
