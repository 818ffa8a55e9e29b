"""Tests of charges, refunds and disputes."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from integrations.base import (
    Checkout,
    CheckoutStatus,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    MoneyStatement,
    Processor,
    ProcessorWebhook,
)
from integrations.kit.processor_calls import nearly_the_life_of_a_key
from integrations.kit.processor_harness import (
    REFERENCE,
    NotSupplied,
    ProcessorHarness,
    charge,
    charge_only,
    error_of,
    learned,
    needs,
    order,
    receive,
    refund_order,
    refundable,
    refunds_of,
    taken,
    usual,
)
from integrations.kit.vendor import FailureMode

# Amounts that lose a cent as a float, or a trailing zero as text.
CENTS = (1999, 1990, 2900, 435 + 1000, 2903, 1157)


def of_kind(money: Sequence[MoneyStatement], kind: MoneyKind) -> list[MoneyStatement]:
    return [one for one in money if one.kind is kind]


# ------------------------------------------------------------------------------------------------------------ charges
async def test_a_payment_is_told_alike_by_webhook_and_by_reading(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor))
    received = await receive(processor, await vendor.act(made.external_id, "pay"))
    read = await processor.read_checkout(made.external_id)
    expected = (MoneyOutcome.SUCCEEDED, *usual(processor), REFERENCE)
    assert charge(read) == expected
    assert (read.status, read.url) == (CheckoutStatus.COMPLETED, None)
    if received.money:
        assert charge(received) == expected
        assert received.money[0].external_id == read.money[0].external_id != received.external_id
        assert received.request_reference == REFERENCE
    if vendor.can.webhooks_decide:
        named = (True, made.external_id, CheckoutStatus.COMPLETED)
        assert (received.decides, received.checkout_external_id, received.checkout_status) == named
        assert received.money


@needs("method_summaries")
async def test_a_payment_tells_how_it_was_paid_and_no_more_of_the_card(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    summary = paid.money[0].method_summary
    assert summary is not None
    assert summary.endswith(vendor.method)
    assert not re.search(r"\d{7}", summary)


async def test_amounts_are_exact_whatever_their_cents(vendor: ProcessorHarness, processor: Processor) -> None:
    currency = usual(processor)[1]
    limits = processor.amount_limits(currency)
    assert limits is not None
    for amount in CENTS:
        if not limits.minimum_minor <= amount <= (limits.maximum_minor or amount) or amount % limits.step_minor:
            continue
        made = await processor.create_checkout(order(processor, idempotency_key=f"cents:{amount}", amount_minor=amount))
        known = await learned(processor, await vendor.act(made.external_id, "pay"), made)
        read = await processor.read_checkout(made.external_id)
        assert [type(one.amount_minor) for one in (*known, *read.money)] == [int] * (len(known) + len(read.money))
        assert charge(known)[1:3] == charge(read)[1:3] == (amount, currency)


async def test_the_smallest_and_the_largest_amount_of_a_currency_come_back_exact(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    for currency in taken(processor):
        limits = processor.amount_limits(currency)
        assert limits is not None
        for amount in dict.fromkeys((limits.minimum_minor, limits.maximum_minor or limits.minimum_minor)):
            asked = order(processor, idempotency_key=f"{currency}{amount}", amount_minor=amount, currency=currency)
            made = await processor.create_checkout(asked)
            known = await learned(processor, await vendor.act(made.external_id, "pay"), made)
            read = await processor.read_checkout(made.external_id)
            assert charge(known)[1:3] == charge(read)[1:3] == (amount, currency)


async def test_a_declined_charge_is_told_and_takes_no_money(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    known = await learned(processor, await vendor.act(made.external_id, "decline"), made)
    read = await processor.read_checkout(made.external_id)
    failed = (MoneyOutcome.FAILED, *usual(processor), REFERENCE)
    (said,) = of_kind(known, MoneyKind.CHARGE)
    assert (charge(known), bool(said.failure_code)) == (failed, True)
    if not vendor.can.reads_declines:
        assert tuple(read.money) == ()
    else:
        assert (charge(read), bool(read.money[0].failure_code)) == (failed, True)
    if vendor.can.declines_end_checkouts:
        assert (read.status, read.url) == (CheckoutStatus.FAILED, None)
        return
    assert (read.status, read.url) == (CheckoutStatus.OPEN, made.url)
    await vendor.act(made.external_id, "pay")
    after = await processor.read_checkout(made.external_id)
    assert after.status is CheckoutStatus.COMPLETED
    assert [m.outcome for m in after.money].count(MoneyOutcome.SUCCEEDED) == 1
    assert len({m.external_id for m in after.money}) == len(after.money)


@needs("delayed_payments")
async def test_a_delayed_payment_is_pending_until_it_arrives(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    sent = await vendor.act(made.external_id, "delay")
    known, read = await learned(processor, sent, made), await processor.read_checkout(made.external_id)
    assert charge(known) == charge(read) == (MoneyOutcome.PENDING, *usual(processor), REFERENCE)
    assert read.status is CheckoutStatus.PROCESSING
    first = read.money[0].external_id
    settled = await vendor.act(made.external_id, "settle")
    known, read = await learned(processor, settled, made), await processor.read_checkout(made.external_id)
    assert charge(known) == charge(read) == (MoneyOutcome.SUCCEEDED, *usual(processor), REFERENCE)
    assert {first} == {one.external_id for one in (*known, *read.money)}
    assert read.status is CheckoutStatus.COMPLETED
    if vendor.can.webhooks_decide:
        statuses = [(await receive(processor, one)).checkout_status for one in (sent, settled)]
        assert statuses == [CheckoutStatus.PROCESSING, CheckoutStatus.COMPLETED]


@needs("delayed_payments")
async def test_a_delayed_payment_may_fail(vendor: ProcessorHarness, processor: Processor) -> None:
    vendor.will_fail()
    made = await processor.create_checkout(order(processor))
    await vendor.act(made.external_id, "delay")
    known = await learned(processor, await vendor.act(made.external_id, "fail"), made)
    read = await processor.read_checkout(made.external_id)
    assert charge(known) == charge(read) == (MoneyOutcome.FAILED, *usual(processor), REFERENCE)
    assert read.status is CheckoutStatus.FAILED


@needs("delayed_payments")
async def test_a_delayed_payment_is_canceled_for_good_or_goes_on(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor))
    await vendor.act(made.external_id, "delay")
    after = await processor.cancel_delayed(made.external_id)
    read = await processor.read_checkout(made.external_id)
    assert after.status is read.status
    if read.status is CheckoutStatus.PROCESSING:
        await vendor.act(made.external_id, "settle")
        arrived = await processor.cancel_delayed(made.external_id)
        assert (arrived.status, charge(arrived)[0]) == (CheckoutStatus.COMPLETED, MoneyOutcome.SUCCEEDED)
    else:
        assert read.status in (CheckoutStatus.FAILED, CheckoutStatus.EXPIRED)
        assert {m.outcome for m in read.money} <= {MoneyOutcome.FAILED, MoneyOutcome.CANCELED}


@needs("partial_captures")
async def test_a_checkout_paid_in_parts_tells_each_part_and_all_of_them(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor))
    total = usual(processor)[0]
    parts = [total // 4, total - total // 4]
    await vendor.pay_in_parts(made.external_id, parts[:1])
    between = await processor.read_checkout(made.external_id)
    assert charge(between)[:2] == (MoneyOutcome.SUCCEEDED, parts[0])
    assert between.status in (CheckoutStatus.OPEN, CheckoutStatus.PROCESSING), "it is COMPLETED with its last part"
    known = await learned(processor, await vendor.pay_in_parts(made.external_id, parts[1:]), made)
    read = await processor.read_checkout(made.external_id)
    assert sorted(m.amount_minor for m in read.money) == sorted(parts)
    assert len({m.external_id for m in read.money}) == 2
    assert {m.outcome for m in read.money} == {MoneyOutcome.SUCCEEDED}
    assert read.status is CheckoutStatus.COMPLETED
    assert {m.external_id for m in known} <= {m.external_id for m in read.money}


@needs()
async def test_an_unknown_state_is_an_error_and_not_a_payment(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    sent = await vendor.strange(made.external_id)
    try:
        event = await receive(processor, sent)
    except IntegrationError:
        pass  # refused, so that the vendor retries
    else:
        assert (event.decides, tuple(event.money)) == (False, ())
    with pytest.raises(IntegrationError):
        await processor.read_checkout(made.external_id)


# ------------------------------------------------------------------------------------------------ what all money has
async def story(vendor: ProcessorHarness, processor: Processor) -> tuple[list[ProcessorWebhook], list[Checkout]]:
    """The events and reads of a paid, refunded and disputed checkout."""
    made = await processor.create_checkout(order(processor))
    received = [await receive(processor, await vendor.act(made.external_id, "pay"))]
    read = [made, await processor.read_checkout(made.external_id)]
    part = refundable(processor)
    received.append(await receive(processor, await vendor.refund(made.external_id, part)))
    if vendor.can.disputes:
        received.append(await receive(processor, await vendor.dispute(made.external_id)))
    read.append(await processor.read_checkout(made.external_id))
    return received, read


def money_in(received: Sequence[ProcessorWebhook], read: Sequence[Checkout]) -> list[MoneyStatement]:
    return [one for event in received for one in event.money] + [one for checkout in read for one in checkout.money]


async def test_every_time_has_a_zone_and_is_about_now(vendor: ProcessorHarness, processor: Processor) -> None:
    received, read = await story(vendor, processor)
    money = money_in(received, read)
    made = [at for event in received if (at := event.created_at) is not None]
    moments = list(made)
    moments += [at for checkout in read if (at := checkout.expires_at) is not None]
    moments += [at for one in money for at in (one.occurred_at, one.response_due_at) if at is not None]
    assert [at for at in moments if at.tzinfo is None] == []
    for at in made:
        assert abs(at - datetime.now(UTC)) < timedelta(days=1)


async def test_currencies_are_told_in_capital_letters_as_they_were_asked(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    received, read = await story(vendor, processor)
    assert {one.currency for one in money_in(received, read)} == {usual(processor)[1]}


async def test_a_fee_is_a_positive_part_of_its_charge(vendor: ProcessorHarness, processor: Processor) -> None:
    received, read = await story(vendor, processor)
    for one in (one for one in money_in(received, read) if one.fee_minor is not None):
        assert type(one.fee_minor) is int
        assert 0 <= one.fee_minor <= one.amount_minor


async def test_refunds_and_disputes_have_ids_of_their_own_and_name_their_charge(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    received, read = await story(vendor, processor)
    money = money_in(received, read)
    (charged,) = {one.external_id for one in money if one.kind is MoneyKind.CHARGE}
    others = [one for one in money if one.kind is not MoneyKind.CHARGE]
    assert others
    for one in others:
        assert one.charge_external_id == charged != one.external_id
        assert one.amount_minor > 0
    assert len({(one.kind, one.external_id) for one in others}) == (2 if vendor.can.disputes else 1)


async def test_our_reference_comes_back_with_the_money(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    known = await learned(processor, await vendor.act(made.external_id, "pay"), made)
    read = await processor.read_checkout(made.external_id)
    for money in (*of_kind(known, MoneyKind.CHARGE), *of_kind(read.money, MoneyKind.CHARGE)):
        assert money.request_reference == REFERENCE


async def test_test_money_is_not_told_as_live(vendor: ProcessorHarness, processor: Processor) -> None:
    received, read = await story(vendor, processor)
    assert {one.test_mode for one in received} | {one.test_mode for one in read} <= {True, None}


@needs()
async def test_a_charge_that_can_be_read_is_told_as_its_checkout_tells_it(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    if type(processor).read_charge is Processor.read_charge:
        raise NotSupplied("read_charge")
    read = await processor.read_charge(paid.money[0].external_id)
    assert await processor.read_charge(vendor.unknown_id) is None
    assert read is not None
    known = paid.money[0]
    assert (read.external_id, read.outcome, read.amount_minor, read.currency) == (
        known.external_id,
        known.outcome,
        known.amount_minor,
        known.currency,
    )
    assert paid.external_id == read.checkout_external_id or read.request_reference == REFERENCE


# ------------------------------------------------------------------------------------------------------------ refunds
@needs("refunds", "partial_refunds")
async def test_a_charge_is_given_back_in_parts(vendor: ProcessorHarness, processor: Processor, paid: Checkout) -> None:
    total, currency = usual(processor)
    parts = [total // 5, total - total // 5]
    made = [await processor.refund(refund_order(paid, amount, key=f"refund:{amount}")) for amount in parts]
    charged = paid.money[0].external_id
    for one, amount in zip(made, parts, strict=True):
        assert (one.kind, one.amount_minor, one.currency) == (MoneyKind.REFUND, amount, currency)
        assert (one.charge_external_id, one.external_id != charged) == (charged, True)
        assert one.outcome in (MoneyOutcome.PENDING, MoneyOutcome.SUCCEEDED)
        assert (await processor.read_refund(one.external_id, charge_external_id=charged)).amount_minor == amount
    listed = await refunds_of(processor, paid)
    assert [(m.external_id, m.charge_external_id) for m in listed] == [(m.external_id, charged) for m in made]
    after = await processor.read_checkout(paid.external_id)
    assert (after.status, charge_only(after)) == (CheckoutStatus.COMPLETED, charge_only(paid))


@needs("refunds")
async def test_a_charge_that_is_given_back_whole_stays_a_charge(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    made = await processor.refund(refund_order(paid, usual(processor)[0]))
    assert (made.kind, made.amount_minor) == (MoneyKind.REFUND, usual(processor)[0])
    after = await processor.read_checkout(paid.external_id)
    assert (after.status, charge_only(after)) == (CheckoutStatus.COMPLETED, charge_only(paid))


@needs("refunds", "knows_keys")
async def test_the_same_key_gives_one_refund(vendor: ProcessorHarness, processor: Processor, paid: Checkout) -> None:
    part = refundable(processor)
    made = [await processor.refund(refund_order(paid, part)) for _ in range(3)]
    assert len({one.external_id for one in made}) == 1
    assert [m.external_id for m in await refunds_of(processor, paid)] == [made[0].external_id]


@needs("refunds", "knows_keys")
async def test_a_refunds_key_is_known_for_its_declared_life(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    part = refundable(processor)
    made = await processor.refund(refund_order(paid, part))
    vendor.age_keys(nearly_the_life_of_a_key(vendor))
    try:
        again = await processor.refund(refund_order(paid, part))
    finally:
        listed = await refunds_of(processor, paid)
    assert [one.external_id for one in listed] == [made.external_id], (
        "declare key_life_s, or look up what the key created"
    )
    assert again.external_id == made.external_id


@needs("refunds", "partial_refunds")
async def test_more_than_what_is_left_is_refused_for_good(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    total = usual(processor)[0]
    first = total * 24 // 25
    await processor.refund(refund_order(paid, first, key="first"))
    for amount in (total - first + 1, total):
        refused = await error_of(processor.refund(refund_order(paid, amount, key=f"more:{amount}")))
        assert (refused.retryable, refused.ambiguous) == (False, False)
    assert len(await refunds_of(processor, paid)) == 1


@pytest.mark.parametrize("mode", ["accept_then_500", "drop", "hang"])
@needs("refunds")
async def test_a_refund_without_an_answer_is_ambiguous_and_found_by_reading(
    vendor: ProcessorHarness, hasty: Processor, paid: Checkout, mode: FailureMode
) -> None:
    part = refundable(hasty)
    await hasty.read_checkout(paid.external_id)
    vendor.fail_next(mode)
    lost = await error_of(hasty.refund(refund_order(paid, part)))
    assert lost.ambiguous
    assert [m.amount_minor for m in await refunds_of(hasty, paid)] == [part]


@needs("refunds")
async def test_a_refund_of_unknown_money_is_refused(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    unknown = dataclasses.replace(refund_order(paid, 100), charge_external_id="unknown_0001")
    for call in (processor.refund(unknown), processor.read_refund("unknown_0001", charge_external_id="unknown_0001")):
        refused = await error_of(call)
        assert (refused.retryable, refused.ambiguous) == (False, False)
    assert await refunds_of(processor, paid) == []


@needs(refunds=False)
async def test_refunds_that_are_not_declared_are_refused(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    refused = await error_of(processor.refund(refund_order(paid, usual(processor)[0])))
    assert refused.reason == "unsupported"


@needs("refunds", "pending_refunds")
async def test_a_refund_under_way_is_not_told_as_done(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    charged = paid.money[0].external_id
    await vendor.delay_refunds()
    part = refundable(processor)
    made = await processor.refund(refund_order(paid, part))

    async def outcomes() -> set[MoneyOutcome]:
        read = await processor.read_refund(made.external_id, charge_external_id=charged)
        listed = await refunds_of(processor, paid)
        assert {m.external_id for m in (read, *listed)} == {made.external_id}
        return {m.outcome for m in (read, *listed)}

    assert {made.outcome, *await outcomes()} == {MoneyOutcome.PENDING}
    known = await learned(processor, await vendor.settle_refund(made.external_id, arrives=True), paid)
    assert await outcomes() == {m.outcome for m in of_kind(known, MoneyKind.REFUND)} == {MoneyOutcome.SUCCEEDED}


@needs("refunds", "pending_refunds")
async def test_a_refund_that_fails_is_told_as_failed(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    charged = paid.money[0].external_id
    await vendor.delay_refunds()
    part = refundable(processor)
    made = await processor.refund(refund_order(paid, part))
    known = await learned(processor, await vendor.settle_refund(made.external_id, arrives=False), paid)
    read = await processor.read_refund(made.external_id, charge_external_id=charged)
    failed = {MoneyOutcome.FAILED, MoneyOutcome.CANCELED}
    assert {read.outcome, *(m.outcome for m in of_kind(known, MoneyKind.REFUND))} <= failed
    assert of_kind(known, MoneyKind.REFUND)


@needs()
async def test_a_refund_made_at_the_vendor_is_told_with_its_charge(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    amount = refundable(processor)
    known = await learned(processor, await vendor.refund(paid.external_id, amount), paid)
    (money,) = of_kind(known, MoneyKind.REFUND)
    assert (money.amount_minor, money.currency) == (amount, usual(processor)[1])
    assert money.charge_external_id == paid.money[0].external_id
    assert [m.external_id for m in await refunds_of(processor, paid)] == [money.external_id]


@needs("partial_refunds")
async def test_all_refunds_are_told_and_not_only_a_first_page(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    many = (vendor.page_size or 11) + 1
    each = usual(processor)[0] // (many + 1)
    for _ in range(many):
        await vendor.refund(paid.external_id, each)
    listed = await refunds_of(processor, paid)
    assert [m.amount_minor for m in listed] == [each] * many
    assert len({m.external_id for m in listed}) == many


# ----------------------------------------------------------------------------------------------------------- disputes
@needs("disputes")
async def test_a_dispute_is_told_with_its_charge(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    known = await learned(processor, await vendor.dispute(paid.external_id), paid)
    (money,) = of_kind(known, MoneyKind.DISPUTE)
    assert money.charge_external_id == paid.money[0].external_id
    assert money.outcome in (MoneyOutcome.PENDING, MoneyOutcome.SUCCEEDED)
    assert 0 < money.amount_minor <= usual(processor)[0]
    assert charge_only(await processor.read_checkout(paid.external_id)) == charge_only(paid)


@pytest.mark.parametrize("won", [True, False])
@needs("disputes")
async def test_the_end_of_a_dispute_is_told_under_its_id(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout, won: bool
) -> None:
    known = await learned(processor, await vendor.dispute(paid.external_id), paid)
    (begun,) = of_kind(known, MoneyKind.DISPUTE)
    known = await learned(processor, await vendor.end_dispute(paid.external_id, won=won), paid)
    (ended,) = of_kind(known, MoneyKind.DISPUTE)
    outcomes = {MoneyOutcome.FAILED, MoneyOutcome.CANCELED} if won else {MoneyOutcome.SUCCEEDED}
    assert (ended.external_id, ended.outcome in outcomes) == (begun.external_id, True)


@needs("disputes")
async def test_a_dispute_that_is_won_after_it_was_lost_is_told_with_a_later_time(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    await vendor.dispute(paid.external_id)
    known = await learned(processor, await vendor.end_dispute(paid.external_id, won=False), paid)
    (lost,) = of_kind(known, MoneyKind.DISPUTE)
    await asyncio.sleep(1.1)  # some vendors use whole seconds
    known = await learned(processor, await vendor.end_dispute(paid.external_id, won=True), paid)
    (won,) = of_kind(known, MoneyKind.DISPUTE)
    assert (won.external_id, won.outcome is not lost.outcome) == (lost.external_id, True)
    # The latest change wins. With equal times, the loss would always outrank it.
    assert lost.occurred_at is not None
    assert won.occurred_at is not None
    assert lost.occurred_at < won.occurred_at
