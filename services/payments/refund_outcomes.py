"""Asks the processor for stored refunds and determines their outcome; the recorder writes it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from integrations.base import IntegrationError, MoneyKind, MoneyOutcome, MoneyStatement, RefundOrder, RefundReason
from models import database, errors
from models.ledger import CardKind, Facet
from models.money import Money
from models.tables import (
    Account,
    CheckoutSession,
    MoneyFact,
    PaymentRequest,
    ProcessorConnection,
    Refund,
)
from services.connections import processor_health, providers
from services.core import actors, jobs
from services.core.permissions import Actor, system_actor
from services.core.unit_of_work import Change, change
from services.messaging import messages
from services.payments import payment_views, recorder
from services.thread import activity_cards, notifications, payment_links, request_rows

log = structlog.get_logger(__name__)


UNDECIDED: Final = ("PENDING", "UNKNOWN")
KEY_LIFE: Final = timedelta(hours=5)  # PayPal forgets keys after 6 hours: then a repeat would refund again
FIRST_CHECK: Final = timedelta(seconds=60)  # longer than the call takes
CHECKS_S: Final = (300, 3600, *[86_400] * 5)  # after each of these delays
ANSWER_WITHIN_S: Final = 7.0  # below the GraphQL time limit, so that the caller gets UNKNOWN
AFTER_DEATH: Final = timedelta(hours=1)  # until a dead job continues
CLOCK_SKEW: Final = timedelta(minutes=5)  # between this server and a vendor


async def facts_of(row: Refund) -> list[MoneyFact]:
    if row.external_id is None:
        return []
    return await MoneyFact.filter(
        processor_connection_id=row.processor_connection_id, kind="REFUND", external_id=row.external_id
    ).order_by("id")


async def ask(row: Refund, actor: Actor, *, caller_reports: bool) -> None:
    """Call the processor with the stored key and record its answer; `caller_reports`: it reports a refusal to the team itself."""
    connection = await providers.processor_connection(row.processor_connection_id, row.account_id)
    try:
        async with asyncio.timeout(ANSWER_WITHIN_S):
            statement = await providers.processor(connection).refund(await _order(row))
    except TimeoutError:
        log.warning("refund_unanswered", provider=connection.processor)
        await _mark_unknown(row)
        return
    except errors.ProcessorUnavailable:
        log.warning("refund_postponed", provider=connection.processor)  # closed by the settings of this process
        return
    except IntegrationError as error:
        log.warning("refund_failed", provider=error.provider, reason=error.reason, ambiguous=error.ambiguous)
        await processor_health.refused(connection, error)
        if error.ambiguous:
            await _mark_unknown(row)
        elif not error.retryable:
            # Only the first call's refusal proves that no refund was made.
            fresh = await Refund.get(id=row.id)
            if caller_reports or (await _find_at_processor(fresh, connection)) is False:
                await _mark_failed(fresh, _error_text(error), notify=not caller_reports)
        # A call that was never sent stays PENDING; its job repeats it.
        return
    await _record(row, connection, statement, actor)


async def _mark_unknown(row: Refund) -> None:
    async with change(row.account_id, queue_on=[row.payment_request_id]) as changed:
        request = await request_rows.lock(row.account_id, row.payment_request_id)
        if await Refund.filter(id=row.id, status="PENDING", external_id=None).update(status="UNKNOWN"):
            announce(changed, request)


def announce(changed: Change, request: PaymentRequest) -> None:
    """Report that a refund of a request has changed, without a new fact."""
    changed.request_event("updated", request, previous_status=request.status, facets=(Facet.REFUNDS,))


def _error_text(error: IntegrationError) -> str:
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
    fact = await MoneyFact.get(id=row.money_fact_id)
    if fact.checkout_session_id is None:
        return None
    return (await CheckoutSession.get(id=fact.checkout_session_id)).external_id


async def _record(row: Refund, connection: ProcessorConnection, statement: MoneyStatement, actor: Actor) -> None:
    request = await PaymentRequest.get(id=row.payment_request_id)
    refunded = replace(statement, charge_external_id=row.charge_external_id)
    by = actors.of_refund(row.requested_by, row.requested_by_id)
    async with change(row.account_id, actor=by, queue_on=[request.id]) as changed:
        locked = await request_rows.lock(request.account_id, request.id)
        recorded = await recorder.record(
            connection, [refunded], source="refund", request_reference=payment_links.reference(request)
        )
        if not recorded.fresh and row.external_id is None:
            announce(changed, locked)  # known from a webhook, and perhaps as another refund of the same amount
        row.external_id = refunded.external_id
        best = max(await facts_of(row), key=payment_views.rank)  # a webhook may have reported more already
        await Refund.filter(id=row.id).update(
            external_id=refunded.external_id,
            status=best.outcome,
            failure_reason=best.failure_message or best.failure_code,
        )
    await _message_contact(row.id, actor)


async def _find_at_processor(row: Refund, connection: ProcessorConnection) -> bool | None:
    # None: not readable; True: found and recorded.
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
        statement
        for statement in state.money
        if statement.kind == MoneyKind.REFUND
        and statement.charge_external_id == row.charge_external_id
        and (statement.amount_minor, statement.currency) == (row.amount_minor, row.currency)
        and statement.external_id not in taken
        and (statement.occurred_at is None or statement.occurred_at > row.created_at - CLOCK_SKEW)
    ]
    if not fitting:
        return False
    # Vendors list failed refunds too; one that did not fail is more likely this one.
    failed = (MoneyOutcome.FAILED, MoneyOutcome.CANCELED)
    likeliest = min(
        fitting, key=lambda statement: (statement.outcome in failed, statement.occurred_at or row.created_at)
    )
    await _record(row, connection, likeliest, system_actor(row.account_id))
    return True


async def _mark_failed(row: Refund, why: str, *, notify: bool) -> None:
    connection = await providers.processor_connection(row.processor_connection_id, row.account_id)
    by = actors.processor(connection.display_name)
    async with change(row.account_id, actor=by, queue_on=[row.payment_request_id]) as changed:
        request = await request_rows.lock(row.account_id, row.payment_request_id)
        ended = await Refund.filter(id=row.id, status__in=UNDECIDED, external_id=None).update(
            status="FAILED", failure_reason=why
        )
        if not ended:
            return
        if not notify:
            announce(changed, request)
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
        name, before, logged = activity_cards.EVENTS[kind], request.status, card.id if card else None
        changed.request_event(name, request, previous_status=before, facets=(Facet.REFUNDS,), card_id=logged)


async def _notify_unconfirmed(row: Refund) -> None:
    log.error("refund_unresolved", refund_id=str(row.id))
    async with change(row.account_id, queue_on=[row.payment_request_id]) as changed:
        request = await request_rows.lock(row.account_id, row.payment_request_id)
        kind, text = (
            CardKind.REFUND_FAILED,
            activity_cards.refund_unconfirmed(request, Money(row.amount_minor, row.currency), await changed.locale()),
        )
        await notifications.notify(
            changed, request, kind, title="Refund not confirmed", body=text, cause_key=f"refund_unconfirmed:{row.id}"
        )


async def _message_contact(refund_id: UUID, actor: Actor) -> None:
    row = await Refund.get(id=refund_id)
    if row.channel_connection_id is None or row.message_id is not None or row.status not in ("PENDING", "SUCCEEDED"):
        return
    try:
        async with database.transaction():
            request = await request_rows.lock(row.account_id, row.payment_request_id)
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
        # Such as a closed window; the refund is unaffected.
        log.warning("refund_not_told", refund_id=str(refund_id), reason=refusal.code)


async def _check_died(job: jobs.JobContext, error: str) -> None:
    row = await Refund.get_or_none(id=UUID(job.payload["refund_id"]))
    if row is not None and row.status in UNDECIDED:
        await _notify_unconfirmed(row)
        raise jobs.Later(AFTER_DEATH.total_seconds())


async def sweep_stranded() -> None:
    """Queue undecided refunds that have no job."""
    undecided = f"t.status IN ('PENDING', 'UNKNOWN') AND t.checks <= {len(CHECKS_S)}"
    for id in await jobs.without_job("refund", undecided, "refund.settle:"):
        log.warning("refund_without_job", refund_id=str(id))
        await check_later(await Refund.get(id=id), datetime.now(UTC), again=True)


async def check_later(row: Refund, due_at: datetime, *, again: bool = False) -> None:
    await jobs.enqueue(
        "refund.settle",
        {"refund_id": str(row.id)},
        account_id=row.account_id,
        key=f"refund.settle:{row.id}",
        due_at=due_at,
        again=again,
    )


# The kind keeps its name: queued jobs carry it.
@jobs.handler("refund.settle", on_dead=_check_died)
async def _check_job(job: jobs.JobContext) -> None:
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
                await _notify_unconfirmed(row)
    await _message_contact(row.id, system_actor(row.account_id))


def _key_life(connection: ProcessorConnection) -> timedelta:
    try:
        return providers.key_life(providers.processor(connection), at_most=KEY_LIFE)
    except errors.ProcessorUnavailable:
        return KEY_LIFE  # no call is made


async def _check(row: Refund) -> None:
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
    # A creation time in the future: the clock was set back, and the key may be forgotten.
    if -CLOCK_SKEW < datetime.now(UTC) - row.created_at < _key_life(connection):
        await ask(row, system, caller_reports=False)
        row = await Refund.get(id=row.id)
        if row.status not in UNDECIDED or row.external_id is not None:
            return
    found = await _find_at_processor(row, connection)
    if found is False and row.checks >= len(CHECKS_S):
        # FAILED by age only if the processor never named it.
        await _mark_failed(row, "The processor does not know this refund.", notify=True)
