"""Giving money back: the promise is committed with its key before the processor is called; what comes of it, the recorder writes.

An answer that was lost leaves UNKNOWN: repeated with the same key while the vendor still knows it, later only read. Refunds that
are made at the processor come in as facts like any money (recorder.py); money recorded by hand is undone in outside_payments.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import structlog

from integrations.base import IntegrationError, MoneyKind, MoneyOutcome, MoneyStatement, RefundOrder, RefundReason
from models import database, errors
from models.ids import public_id, uuid7
from models.ledger import CardKind
from models.money import MOST_DECIMALS, InvalidAmount, Money
from models.tables import (
    Account,
    ActivityCard,
    CheckoutSession,
    Message,
    MoneyFact,
    PaymentRequest,
    ProcessorConnection,
    Refund,
)
from services.connections import availability, processor_health, providers
from services.core import idempotency, jobs, merged_rows
from services.core.permissions import Actor, system_actor
from services.core.unit_of_work import Change, change
from services.messaging import messages
from services.payments import payment_views, recorder
from services.payments.payment_views import PaymentView
from services.thread import activity_cards, notifications, payment_links

log = structlog.get_logger(__name__)

UNDECIDED: Final = ("PENDING", "UNKNOWN")
KEY_LIFE: Final = timedelta(
    hours=5
)  # PayPal forgets keys after 6 hours; after that the same key would make a second refund
FIRST_CHECK: Final = timedelta(seconds=60)  # longer than the call takes
CHECKS_S: Final = (300, 3600, *[86_400] * 5)  # promises.md, 1.6
ANSWER_WITHIN_S: Final = 7.0  # below what a GraphQL operation may take: who asked is told UNKNOWN, not nothing
AFTER_DEATH: Final = timedelta(hours=1)  # when a job that died goes on
CLOCK_SKEW: Final = timedelta(minutes=5)  # between us and a vendor


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded:
    """A refund as it stands. `payment`: its entry in the ledger; None while the processor has not told its id."""

    request: PaymentRequest
    refund: Refund
    payment: PaymentView | None
    card: ActivityCard | None
    message: Message | None


# ------------------------------------------------------------------------------------------------------------ refund
async def refund(
    actor: Actor,
    *,
    payment_id: UUID,
    amount: str | None,
    reason: str,
    tell_contact_on: UUID | None,
    idempotency_key: str,
) -> Refunded:
    """Give back a charge, or a part of it. `amount` is a decimal text in the charge's currency; None: all that is left of it.

    Safe to repeat with the same idempotency key. Raises: Forbidden, NotFound, NotRefundable, RefundExceedsPayment, Invalid,
    AmountTooSmall, ProcessorRejected, ProcessorUnavailable, and the refusals of capability.py for the contact's channel.
    """
    actor.require("refund")
    given = {"payment": payment_id, "amount": amount, "reason": reason, "channel": tell_contact_on}

    async def run(save: idempotency.Save) -> Refunded:
        row = await _promise(actor, payment_id, amount, RefundReason(reason), tell_contact_on, save)
        await _ask(row, actor, now=True)
        return await _shown(row.id, actor)

    async def rebuild(ids: dict[str, Any]) -> Refunded:
        return await _shown(UUID(ids["refund"]), actor)

    return await idempotency.once(actor, "refundPayment", idempotency_key, given, run, rebuild)


async def _promise(
    actor: Actor,
    payment_id: UUID,
    amount: str | None,
    reason: RefundReason,
    channel_id: UUID | None,
    save: idempotency.Save,
) -> Refund:
    """Commit the refund with its key and its job, under the request's lock: the sum of refunds never exceeds the charge."""
    fact = await MoneyFact.get_or_none(id=payment_id, account_id=actor.account_id)
    rows = [fact.payment_request_id] if fact is not None else []
    async with change(actor.account_id, actor_id=actor.user_id, rows=rows) as changed:
        request: PaymentRequest | None = None
        charge: PaymentView | None = None
        left = 0
        refusals = errors.Refusals()
        with refusals:
            if fact is None:
                raise errors.NotFound(field="paymentId")
            request = await _locked(fact.payment_request_id)
            views = (await payment_views.payments(actor.account_id, [request.id]))[request.id]
            charge = next((view for view in views if view.id == payment_id), None)
            if charge is None:
                raise errors.NotFound(field="paymentId")
            _refuse_kind(charge)
            left = (await refundable(actor.account_id, {request.id: views}))[request.id].get(payment_id, 0)
            if left <= 0:
                raise errors.NotRefundable(
                    "Nothing is left of this payment that could be given back.", field="paymentId"
                )
        with refusals:
            amount_minor = _amount(amount, charge, left, await changed.locale())
        with refusals:
            if channel_id is not None:
                await _refuse_channel(actor, request, channel_id, changed.now)
        refusals.raise_any()
        assert fact is not None and request is not None and charge is not None  # noqa: S101, PT018 (refused above)
        row = await promise(changed, actor, request, charge, amount_minor, reason, channel_id=channel_id)
        _tell_refundable(changed, request)
        await save({"refund": str(row.id)})
    return row


async def promise(
    changed: Change,
    actor: Actor,
    request: PaymentRequest,
    charge: PaymentView,
    amount_minor: int,
    reason: RefundReason,
    *,
    channel_id: UUID | None = None,
) -> Refund:
    """Store a refund with its key and its job; `make` asks for it after the commit. The caller holds the request's lock and has seen
    that so much is left of the charge. Raises: ProcessorUnavailable.
    """
    assert charge.connection_id is not None  # noqa: S101 (what a person recorded is refused before)
    providers.processor(await providers.processor_connection(charge.connection_id, actor.account_id))
    row_id = uuid7()
    row = await Refund.create(
        id=row_id,
        account_id=actor.account_id,
        payment_request_id=request.id,
        money_fact_id=charge.id,
        charge_external_id=charge.processor_reference,
        processor_connection_id=charge.connection_id,
        idempotency_key=public_id("rfd", row_id),
        amount_minor=amount_minor,
        currency=charge.currency,
        reason=reason.value,
        requested_by_id=actor.user_id,
        channel_connection_id=channel_id,
        created_at=changed.now,
        updated_at=changed.now,
    )
    await _settle_later(row, changed.now + FIRST_CHECK)  # for a lost answer, or a process that dies in between
    return row


def _tell_refundable(changed: Change, request: PaymentRequest) -> None:
    """What can still be given back of its charges is another amount now, though the request itself stays."""
    changed.request_event("updated", request, previous_status=request.status)


def _refuse_kind(charge: PaymentView) -> None:
    if charge.kind != "CHARGE" or charge.status != "SUCCEEDED":
        raise errors.NotRefundable(field="paymentId")
    if charge.connection_id is None:
        raise errors.NotRefundable("This payment was recorded by hand: undo its record instead.", field="paymentId")


def _amount(amount: str | None, charge: PaymentView | None, left: int, locale: str) -> int:
    """In minor units; None: all that is `left`. Without a charge only what is no amount in any currency is refused.

    Raises: AmountTooSmall, Invalid, RefundExceedsPayment.
    """
    if amount is None:
        return left
    try:
        money = Money.from_decimal(amount, charge.currency if charge is not None else MOST_DECIMALS)
    except InvalidAmount as error:
        if amount.strip().startswith("-"):
            raise errors.AmountTooSmall(field="amount") from error
        raise errors.Invalid(
            "Give the amount as a decimal number with the currency's number of decimals.", field="amount"
        ) from error
    if money.amount_minor <= 0:
        raise errors.AmountTooSmall(field="amount")
    if 0 < left < money.amount_minor:  # nothing left: that is refused already
        most = Money(left, money.currency).formatted(locale)
        raise errors.RefundExceedsPayment(f"At most {most} is left of this payment.", field="amount")
    return money.amount_minor


async def refundable(account_id: UUID, payments: Mapping[UUID, Sequence[PaymentView]]) -> dict[UUID, dict[UUID, int]]:
    """What can still be given back of each charge, by request and payment id: above 0, in minor units. One query at most.

    As the ledger says, less the refunds under way that it does not know yet; those whose id we know, it knows.
    """
    found = {request_id: payment_views.refundable(views) for request_id, views in payments.items()}
    asked = [request_id for request_id, left in found.items() if left]
    rows = Refund.filter(account_id=account_id, payment_request_id__in=asked, status__in=UNDECIDED, external_id=None)
    for row in await rows if asked else ():
        left = found[row.payment_request_id]
        if row.money_fact_id in left:
            left[row.money_fact_id] -= row.amount_minor
    return {request_id: {id: rest for id, rest in left.items() if rest > 0} for request_id, left in found.items()}


async def _refuse_channel(actor: Actor, request: PaymentRequest | None, channel_id: UUID, now: datetime) -> None:
    """Raises: NotFound, and for the contact of a known request the refusals of capability.py."""
    connection = await providers.channel_connection(channel_id, actor.account_id)
    if request is None:
        return
    conversation = await merged_rows.conversation_of(request.account_id, request.conversation_id)
    availability.refuse(await availability.capability(actor, conversation, connection, payment_request=False, now=now))


async def _locked(request_id: UUID) -> PaymentRequest:
    return await PaymentRequest.filter(id=request_id).select_for_update(no_key=True).get()


async def _shown(refund_id: UUID, actor: Actor) -> Refunded:
    """The refund as it stands. Raises: ProcessorRejected for one that the processor would not even begin."""
    row = await Refund.get(id=refund_id, account_id=actor.account_id)
    if row.status == "FAILED" and row.external_id is None:
        raise errors.ProcessorRejected(row.failure_reason, field="paymentId")
    request = await PaymentRequest.get(id=row.payment_request_id)
    views = (await payment_views.payments(row.account_id, [request.id]))[request.id]
    mine = (row.processor_connection_id, "REFUND", row.external_id)
    payment = next((v for v in views if (v.connection_id, v.kind, v.processor_reference) == mine), None)
    facts = [fact.id for fact in await _facts(row)]
    card = await ActivityCard.filter(account_id=row.account_id, money_fact_id__in=facts).order_by("-seq").first()
    message = await Message.get_or_none(id=row.message_id) if row.message_id is not None else None
    return Refunded(request=request, refund=row, payment=payment, card=card, message=message)


async def _facts(row: Refund) -> list[MoneyFact]:
    """What the ledger has of this refund, oldest first."""
    if row.external_id is None:
        return []
    return await MoneyFact.filter(
        processor_connection_id=row.processor_connection_id, kind="REFUND", external_id=row.external_id
    ).order_by("id")


async def make(row: Refund, actor: Actor) -> None:
    """Ask the processor for a refund of `promise`. A card and a notification report a refusal."""
    await _ask(row, actor, now=False)


# ------------------------------------------------------------------------------------------------------ the processor
async def _ask(row: Refund, actor: Actor, *, now: bool) -> None:
    """Call the processor with the stored key and record its answer. `now`: somebody waits for it, and is told by the answer."""
    connection = await providers.processor_connection(row.processor_connection_id, row.account_id)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            statement = await providers.processor(connection).refund(await _order(row))
    except TimeoutError:
        log.warning("refund_unanswered", provider=connection.processor)
        await Refund.filter(id=row.id, status="PENDING", external_id=None).update(status="UNKNOWN")
        return
    except errors.ProcessorUnavailable:
        log.warning("refund_postponed", provider=connection.processor)  # closed by the settings of this process
        return
    except IntegrationError as error:
        log.warning("refund_failed", provider=error.provider, reason=error.reason, ambiguous=error.ambiguous)
        await processor_health.refused(connection, error)
        if error.ambiguous:
            await Refund.filter(id=row.id, status="PENDING", external_id=None).update(status="UNKNOWN")
        elif not error.retryable:
            # Only the first call's no says that nothing was made: whoever called before may have died before the answer.
            fresh = await Refund.get(id=row.id)
            if now or (await _look(fresh, connection)) is False:
                await _give_up(fresh, _words(error), tell=not now)
        # What surely never left stays PENDING: its job repeats it.
        return
    await _record(row, connection, statement, actor)


def _words(error: IntegrationError) -> str:
    return (error.message or error.reason)[:300]


async def _order(row: Refund) -> RefundOrder:
    request = await PaymentRequest.get(id=row.payment_request_id)
    return RefundOrder(
        idempotency_key=row.idempotency_key,
        request_reference=payment_links.reference(request),
        charge_external_id=row.charge_external_id,
        checkout_external_id=await _checkout_of(row),
        amount_minor=row.amount_minor,
        currency=row.currency,
        reason=RefundReason(row.reason),
    )


async def _checkout_of(row: Refund) -> str | None:
    """The vendor's id of the checkout on which the charge was paid."""
    fact = await MoneyFact.get(id=row.money_fact_id)
    if fact.checkout_session_id is None:
        return None
    return (await CheckoutSession.get(id=fact.checkout_session_id)).external_id


async def _record(row: Refund, connection: ProcessorConnection, statement: MoneyStatement, actor: Actor) -> None:
    """Hand the processor's word to the recorder and note its id, in one transaction; then tell the contact if that was asked."""
    request = await PaymentRequest.get(id=row.payment_request_id)
    said = replace(statement, charge_external_id=row.charge_external_id)
    async with change(row.account_id, actor_id=actor.user_id, rows=[request.id]):
        await _locked(request.id)
        await recorder.record(connection, [said], source="refund", request_reference=payment_links.reference(request))
        row.external_id = said.external_id
        best = max(await _facts(row), key=payment_views.rank)  # a webhook may have told more already
        await Refund.filter(id=row.id).update(
            external_id=said.external_id, status=best.outcome, failure_reason=best.failure_message or best.failure_code
        )
    await _tell_contact(row.id, actor)


async def _look(row: Refund, connection: ProcessorConnection) -> bool | None:
    """Search the charge's checkout for a refund that can only be this one. None: it can't be read; True: found and recorded."""
    checkout = await _checkout_of(row)
    if checkout is None:
        return None
    try:
        state = await providers.processor(connection).read_checkout(checkout)
    except (IntegrationError, errors.ProcessorUnavailable):
        return None
    of_others = await Refund.filter(
        processor_connection_id=row.processor_connection_id, external_id__not_isnull=True
    ).filter(charge_external_id=row.charge_external_id)
    taken = {other.external_id for other in of_others}
    fitting = [
        said
        for said in state.money
        if said.kind == MoneyKind.REFUND
        and said.charge_external_id == row.charge_external_id
        and (said.amount_minor, said.currency) == (row.amount_minor, row.currency)
        and said.external_id not in taken
        and (said.occurred_at is None or said.occurred_at > row.created_at - CLOCK_SKEW)
    ]
    if not fitting:
        return False
    # Vendors list refunds that failed as well: one that did not is more likely ours.
    failed = (MoneyOutcome.FAILED, MoneyOutcome.CANCELED)
    likeliest = min(fitting, key=lambda said: (said.outcome in failed, said.occurred_at or row.created_at))
    await _record(row, connection, likeliest, system_actor(row.account_id))
    return True


async def _give_up(row: Refund, why: str, *, tell: bool) -> None:
    """No money has moved and none will: FAILED. `tell`: by card and notification, for nobody waits for the answer any more."""
    async with change(row.account_id, rows=[row.payment_request_id]) as changed:
        request = await _locked(row.payment_request_id)
        ended = await Refund.filter(id=row.id, status__in=UNDECIDED, external_id=None).update(
            status="FAILED", failure_reason=why
        )
        if not ended:
            return
        if not tell:
            _tell_refundable(changed, request)
            return
        kind, text = (
            CardKind.REFUND_FAILED,
            activity_cards.refund_failed(request, Money(row.amount_minor, row.currency), await changed.locale()),
        )
        card = await changed.log_card(request, kind, text=text, key=f"refund:{row.id}")
        key = f"refund:{row.id}"
        await notifications.notify(changed, request, kind, title=activity_cards.TITLES[kind], body=text, cause_key=key)
        request.version += 1
        await request.save(update_fields=["version", "updated_at"])
        changed.request_event(
            activity_cards.EVENTS[kind], request, previous_status=request.status, card_id=card.id if card else None
        )


async def _notice(row: Refund) -> None:
    """Nothing can be found out from here: the team is asked to look at the processor. The amount stays reserved."""
    log.error("refund_unresolved", refund_id=str(row.id))
    async with change(row.account_id, rows=[row.payment_request_id]) as changed:
        request = await _locked(row.payment_request_id)
        kind, text = (
            CardKind.REFUND_FAILED,
            activity_cards.refund_unconfirmed(request, Money(row.amount_minor, row.currency), await changed.locale()),
        )
        await notifications.notify(
            changed, request, kind, title="Refund not confirmed", body=text, cause_key=f"refund_unconfirmed:{row.id}"
        )


async def _tell_contact(refund_id: UUID, actor: Actor) -> None:
    """Send the message that was asked for, once the processor has taken the refund. Key: the refund's message."""
    row = await Refund.get(id=refund_id)
    if row.channel_connection_id is None or row.message_id is not None or row.status not in ("PENDING", "SUCCEEDED"):
        return
    try:
        async with database.transaction():
            request = await _locked(row.payment_request_id)
            row = await Refund.filter(id=refund_id).select_for_update().get()
            if row.message_id is not None or row.channel_connection_id is None:
                return
            channel = await providers.channel_connection(row.channel_connection_id, row.account_id)
            account = await Account.get(id=row.account_id)
            money = Money(row.amount_minor, row.currency)
            amount = money.sms_text(account.locale) if channel.kind == "SMS" else money.formatted(account.locale)
            sent = await messages.send_message(
                actor,
                conversation_id=request.conversation_id,
                channel_id=channel.id,
                body=f"{account.name}: we have refunded {amount} for {request.product_name}."
                " It can take some days to arrive.",
                subject=f"{account.name}: refund for {request.product_name}"[: messages.SUBJECT_LIMIT],
            )
            await Refund.filter(id=row.id).update(message_id=sent.message.id)
    except errors.Refusal as refusal:
        # The window has closed, say. The refund stands; the thread shows that no message went out.
        log.warning("refund_not_told", refund_id=str(refund_id), reason=refusal.code)


# ---------------------------------------------------------------------------------------------------------------- job
async def _settle_died(job: jobs.JobContext, error: str) -> None:
    """The team is asked to look at the processor, and the job goes on: a refund has to be decided. Safe to repeat."""
    row = await Refund.get_or_none(id=UUID(job.payload["refund_id"]))
    if row is not None and row.status in UNDECIDED:
        await _notice(row)
        raise jobs.Later(AFTER_DEATH.total_seconds())


async def sweep_stranded() -> None:
    """Give refunds that are not decided and that no job moves on a job again. Key: the refund."""
    undecided = f"t.status IN ('PENDING', 'UNKNOWN') AND t.checks <= {len(CHECKS_S)}"
    for id in await jobs.without_job("refund", undecided, "refund.settle:"):
        log.warning("refund_without_job", refund_id=str(id))
        await _settle_later(await Refund.get(id=id), datetime.now(UTC), again=True)


async def _settle_later(row: Refund, due_at: datetime, *, again: bool = False) -> None:
    """Have it found out what became of a refund. Key: the refund."""
    await jobs.enqueue(
        "refund.settle",
        {"refund_id": str(row.id)},
        account_id=row.account_id,
        key=f"refund.settle:{row.id}",
        due_at=due_at,
        again=again,
    )


@jobs.handler("refund.settle", on_dead=_settle_died)
async def _settle_job(job: jobs.JobContext) -> None:
    """Find out what became of a refund that is not decided. Key: the refund, and its own key at the processor."""
    row = await Refund.get(id=UUID(job.payload["refund_id"]), account_id=job.account_id)
    if row.status in UNDECIDED:
        await _check(row)
        row = await Refund.get(id=row.id)
        if row.status in UNDECIDED:
            checks = row.checks + 1
            await Refund.filter(id=row.id).update(checks=checks)
            if checks <= len(CHECKS_S):
                raise jobs.Later(CHECKS_S[checks - 1])
            if row.external_id is None:
                await _notice(row)
    await _tell_contact(row.id, system_actor(row.account_id))


def _key_life(connection: ProcessorConnection) -> timedelta:
    try:
        return providers.key_life(providers.processor(connection), at_most=KEY_LIFE)
    except errors.ProcessorUnavailable:
        return KEY_LIFE  # nothing is called


async def _check(row: Refund) -> None:
    """One try to find out."""
    connection = await providers.processor_connection(row.processor_connection_id, row.account_id)
    system = system_actor(row.account_id)
    if row.external_id is not None:
        try:
            statement = await providers.processor(connection).read_refund(
                row.external_id, charge_external_id=row.charge_external_id
            )
        except (IntegrationError, errors.ProcessorUnavailable) as error:
            log.warning("refund_read_failed", error=type(error).__name__, reason=getattr(error, "reason", None))
            if isinstance(error, IntegrationError):
                await processor_health.refused(connection, error)
        else:
            await _record(row, connection, statement, system)
        return
    # A refund of the future was made before the clock was set back: its age is not known, and its key may be forgotten.
    if -CLOCK_SKEW < datetime.now(UTC) - row.created_at < _key_life(connection):
        await _ask(row, system, now=False)
        row = await Refund.get(id=row.id)
        if row.status not in UNDECIDED or row.external_id is not None:
            return
    found = await _look(row, connection)
    if found is False and row.checks >= len(CHECKS_S):
        # Failed by time only if no id and no object was ever found.
        await _give_up(row, "The processor knows of no such refund.", tell=True)
