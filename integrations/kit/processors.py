"""The suite that every processor must pass: the promises of `integrations.base.Processor`, against a running fake of its vendor.

An author's test module says `from integrations.kit.processors import *` and gives the fixture `harness`.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

import pytest
import pytest_asyncio

from integrations import registry
from integrations.base import (
    Checkout,
    CheckoutOrder,
    CheckoutStatus,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    MoneyStatement,
    PayloadInvalid,
    Processor,
    ProcessorWebhook,
    RefundOrder,
    RefundReason,
    SignatureInvalid,
)
from integrations.kit.vendor import FailureMode

Outcome = Literal["pay", "decline", "delay", "settle", "fail"]
Delivery = tuple[bytes, dict[str, str]]  # raw body, headers with lower-case names
REFERENCE = "pr_01hzx5p4qk8v6m2n3c7t9w0yfd"


class NotPayable(Exception):
    """A harness raises it when its payer meets a checkout that can't be paid any more."""


def order(**changes: Any) -> CheckoutOrder:
    """What the suite asks for, with changes."""
    values: dict[str, Any] = {
        "idempotency_key": "pr_01hzx5p4qk8v6m2n3c7t9w0yfd:1",
        "request_reference": REFERENCE,
        "number": "PR-0000042",
        "product_name": "Boiler repair",
        "description": "Parts & labour, 50 % off",
        "amount_minor": 12500,
        "currency": "USD",
        "success_url": "https://pay.example.test/p/token/return",
        "cancel_url": "https://pay.example.test/p/token",
        "customer_email": "dana+pay@example.test",
        "locale": "en-US",
    }
    return CheckoutOrder(**values | changes)


class ProcessorHarness(ABC):
    """The other side of one connection: what a processor's author supplies to be tested.

    The switches say what a vendor does otherwise than most; what we promise all the same is in the tests.
    """

    processor: ClassVar[type[Processor]]  # the class under test
    public: ClassVar[frozenset[str]] = frozenset()  # fields of its credentials that are no secret

    secret: str  # signs the webhooks of `act` and `refund`
    rolled_secret = "new-secret-0001"
    signature_header: str
    origin: str  # where its hosted page is
    checks_key = True  # whether check() asks the vendor
    known_shape = "cs_1"  # an id as the vendor makes them
    unknown_id = "cs_unknown"  # an id that the vendor has never made
    lives = True  # a checkout ends by itself
    names_checkout = True  # the webhook of a payment names its checkout, so it decides
    amount = b"12500"  # 125 dollars in an event
    holds = "data"  # the field of an event that holds its object
    signs_time = True
    refuses_old = True  # what is signed over 300 s ago is refused; else it only never decides
    checks_any_body = True  # a signature can be checked over what is no JSON
    decline = "open"  # a declined payment leaves the checkout open, and the reading tells it; "ended"; "untold"
    method = "•••• 4242"
    currencies: tuple[str, ...] = ("USD", "EUR", "JPY", "KWD", "ISK", "UGX", "MGA", "HUF", "TWD", "XOF")

    @abstractmethod
    async def start(self, stack: AsyncExitStack) -> None:
        """Start the vendor."""

    @abstractmethod
    def provider(
        self, *, secret_key: str | None = None, webhook_secret: str | None = None, timeout_s: float = 10
    ) -> Processor:
        """A provider connected to it."""

    @abstractmethod
    def unreachable(self) -> Processor:
        """A provider whose vendor does not answer at all."""

    @abstractmethod
    def fail_next(self, mode: FailureMode) -> None:
        """Let the next call fail."""

    @abstractmethod
    async def checkouts(self) -> int:
        """How many checkouts the vendor holds."""

    @abstractmethod
    async def act(self, external_id: str, outcome: Outcome) -> Delivery:
        """What a payer does (pay, decline, delay) or a bank (settle, fail); the webhook that tells it. Raises: NotPayable."""

    def will_fail(self) -> None:  # noqa: B027 (optional to override)
        """Told before a payment is delayed that it will end with "fail", for vendors who must know that first."""

    @abstractmethod
    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        """The business gives money back in the vendor's own pages; the webhook that tells it."""

    @abstractmethod
    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        """The signature's headers, computed as the vendor does."""

    def forgeries(self, headers: dict[str, str]) -> list[dict[str, str]]:
        """Broken headers beside a good body. This form is the one of `t=…,v1=…`."""
        stamp, digest = headers[self.signature_header].split(",v1=")
        values = (
            "",
            "t=,v1=",
            stamp,
            f"v1={digest}",
            f"{stamp},v1=",
            f"{stamp},v1={'0' * 64}",
            f"{stamp},v0={digest}",
            f"{stamp},v1={digest[:-1]}",
            f"t={int(stamp[2:]) + 1},v1={digest}",
            f"t=-1,v1={digest}",
            f"t=9e9,v1={digest}",
            f"t=9{'9' * 40},v1={digest}",
            f"{stamp},v1=é{digest[1:]}",
            "\x00",
            "t=1" * 5000,
        )
        return [{self.signature_header: value} for value in values]


@pytest_asyncio.fixture
async def vendor(harness: ProcessorHarness) -> AsyncIterator[ProcessorHarness]:
    """The vendor, running."""
    async with AsyncExitStack() as stack:
        await harness.start(stack)
        yield harness


@pytest_asyncio.fixture
async def processor(vendor: ProcessorHarness) -> AsyncIterator[Processor]:
    """A provider connected to the vendor."""
    made = vendor.provider()
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def hasty(vendor: ProcessorHarness) -> AsyncIterator[Processor]:
    """A provider that waits for one second only."""
    made = vendor.provider(timeout_s=1)
    yield made
    await made.aclose()


async def receive(processor: Processor, delivery: Delivery, *, late_s: float = 0) -> ProcessorWebhook:
    """What the door does with a delivery that comes so late."""
    return await processor.verify_webhook(*delivery, now=datetime.now(UTC) + timedelta(seconds=late_s))


def charge(checkout: Checkout | ProcessorWebhook) -> tuple[Any, ...]:
    """The one charge that is told: outcome, amount, currency, our reference."""
    (money,) = checkout.money
    assert money.kind is MoneyKind.CHARGE
    return money.outcome, money.amount_minor, money.currency, money.request_reference


# ---------------------------------------------------------------------------------------------------------- the class
def test_the_registry_takes_the_class_under_its_name(harness: ProcessorHarness) -> None:
    cls = harness.processor
    assert registry.why_not("processors", cls.name, cls) is None
    assert (bool(cls.display_name), inspect.isabstract(cls)) == (True, False)
    assert 30 * 60 <= cls.session_life_s <= 24 * 3600


def test_credentials_do_not_show_their_secrets(harness: ProcessorHarness) -> None:
    cls = harness.processor.credentials
    names = {field.name for field in dataclasses.fields(cls)}
    assert harness.public < names
    shown = repr(
        cls(**dict.fromkeys(names - harness.public, "planted-secret"), **dict.fromkeys(harness.public, "shown"))
    )
    assert "planted" not in shown


# ------------------------------------------------------------------------------------------------------------- create
async def test_a_new_checkout_is_open_and_leads_to_the_hosted_page(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order())
    assert (made.status, made.request_reference, tuple(made.money)) == (CheckoutStatus.OPEN, REFERENCE, ())
    assert made.url is not None
    assert made.url.startswith(vendor.origin + "/")
    assert (made.expires_at is not None, made.awaits_completion) == (vendor.lives, False)
    if made.expires_at is not None:
        left = made.expires_at - datetime.now(UTC)
        assert timedelta(minutes=30) < left <= timedelta(seconds=processor.session_life_s + 2)
    assert await processor.read_checkout(made.external_id) == made


async def test_the_least_and_the_most_that_an_order_may_say_are_taken(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    least = order(description=None, customer_email=None, locale=None)
    most = order(
        idempotency_key="k" * 70, product_name="€" * 255, description="x\r\n" * 300, locale="xx-unknown", currency="JPY"
    )
    assert (await processor.create_checkout(least)).status is CheckoutStatus.OPEN
    assert (await processor.create_checkout(most)).status is CheckoutStatus.OPEN
    assert await vendor.checkouts() == 2


async def test_the_same_key_gives_the_same_checkout(vendor: ProcessorHarness, processor: Processor) -> None:
    other_process = vendor.provider()
    made = await processor.create_checkout(order())
    again = await other_process.create_checkout(order())
    await other_process.aclose()
    assert again == made
    assert await vendor.checkouts() == 1


async def test_calls_with_one_key_at_once_make_one_checkout(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await asyncio.gather(*(processor.create_checkout(order()) for _ in range(5)))
    assert len({checkout.external_id for checkout in made}) == 1
    assert await vendor.checkouts() == 1


async def test_the_same_key_with_another_amount_is_refused(vendor: ProcessorHarness, processor: Processor) -> None:
    await processor.create_checkout(order())
    with pytest.raises(IntegrationError) as refused:
        await processor.create_checkout(order(amount_minor=12501))
    assert (refused.value.retryable, refused.value.ambiguous) == (False, False)
    assert await vendor.checkouts() == 1


@pytest.mark.parametrize("mode", ["hang", "drop"])
async def test_a_lost_answer_is_ambiguous_and_the_key_finds_the_checkout(
    vendor: ProcessorHarness, hasty: Processor, mode: FailureMode
) -> None:
    vendor.fail_next(mode)
    with pytest.raises(IntegrationError) as lost:
        await hasty.create_checkout(order())
    assert (lost.value.provider, lost.value.ambiguous, lost.value.retryable) == (hasty.name, True, True)
    assert await vendor.checkouts() == 1
    assert (await hasty.create_checkout(order())).status is CheckoutStatus.OPEN
    assert await vendor.checkouts() == 1


async def test_a_500_after_acceptance_is_ambiguous_and_nothing_is_repeated(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    vendor.fail_next("accept_then_500")
    with pytest.raises(IntegrationError) as lost:
        await processor.create_checkout(order())
    assert (lost.value.reason, lost.value.ambiguous) == ("server_error", True)
    assert await vendor.checkouts() == 1


async def test_a_rate_limit_may_be_retried_and_made_nothing(vendor: ProcessorHarness, processor: Processor) -> None:
    vendor.fail_next("rate_limit")
    with pytest.raises(IntegrationError) as refused:
        await processor.create_checkout(order())
    assert (refused.value.reason, refused.value.retryable, refused.value.ambiguous) == ("rate_limited", True, False)
    assert await vendor.checkouts() == 0


async def test_a_vendor_that_is_away_is_an_integration_error(vendor: ProcessorHarness) -> None:
    processor = vendor.unreachable()
    for call in (
        processor.create_checkout(order()),
        processor.read_checkout(vendor.known_shape),
        processor.expire_checkout(vendor.known_shape),
        processor.complete_checkout(vendor.known_shape, idempotency_key="1"),
    ):
        with pytest.raises(IntegrationError) as away:
            await call
        assert (away.value.reason, away.value.retryable) == ("connection", True)
    await processor.aclose()


async def test_a_wrong_key_is_refused_for_good(vendor: ProcessorHarness) -> None:
    processor = vendor.provider(secret_key="sk_test_of_somebody_else")
    with pytest.raises(IntegrationError) as refused:
        await processor.create_checkout(order())
    if vendor.checks_key:
        with pytest.raises(IntegrationError):
            await processor.check()
    await processor.aclose()
    assert (refused.value.reason, refused.value.retryable, refused.value.ambiguous) == (
        "authentication_failed",
        False,
        False,
    )
    assert "somebody_else" not in str(refused.value)
    assert await vendor.checkouts() == 0


async def test_an_unknown_checkout_is_not_found(vendor: ProcessorHarness, processor: Processor) -> None:
    for call in (
        processor.read_checkout(vendor.unknown_id),
        processor.expire_checkout(vendor.unknown_id),
        processor.complete_checkout(vendor.unknown_id, idempotency_key="1"),
    ):
        with pytest.raises(IntegrationError) as refused:
            await call
        assert (refused.value.reason, refused.value.ambiguous) == ("not_found", False)


@pytest.mark.parametrize("mode", ["before_500", "hang", "drop"])
async def test_a_failed_read_is_never_ambiguous(vendor: ProcessorHarness, hasty: Processor, mode: FailureMode) -> None:
    made = await hasty.create_checkout(order())
    vendor.fail_next(mode)
    with pytest.raises(IntegrationError) as lost:
        await hasty.read_checkout(made.external_id)
    assert (lost.value.ambiguous, lost.value.retryable) == (False, True)


# -------------------------------------------------------------------------------------------------------------- money
async def test_a_payment_is_told_alike_by_webhook_and_by_reading(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order())
    told = await receive(processor, await vendor.act(made.external_id, "pay"))
    read = await processor.read_checkout(made.external_id)
    assert charge(told) == charge(read) == (MoneyOutcome.SUCCEEDED, 12500, "USD", REFERENCE)
    assert told.money[0].external_id == read.money[0].external_id != told.external_id
    named = (made.external_id, CheckoutStatus.COMPLETED) if vendor.names_checkout else (None, None)
    assert (told.decides, told.request_reference) == (vendor.names_checkout, REFERENCE)
    assert (told.checkout_external_id, told.checkout_status) == named
    assert (read.status, read.url) == (CheckoutStatus.COMPLETED, None)
    assert read.money[0].method_summary is not None
    assert read.money[0].method_summary.endswith(vendor.method)


async def test_a_decline_takes_no_money_and_leaves_no_wrong_state(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order())
    told = await receive(processor, await vendor.act(made.external_id, "decline"))
    read = await processor.read_checkout(made.external_id)
    failed = (MoneyOutcome.FAILED, 12500, "USD", REFERENCE)
    assert (charge(told), bool(told.money[0].failure_code)) == (failed, True)
    if vendor.decline == "untold":
        assert tuple(read.money) == ()
    else:
        assert (charge(read), bool(read.money[0].failure_code)) == (failed, True)
    if vendor.decline == "ended":
        assert (read.status, read.url) == (CheckoutStatus.FAILED, None)
        return
    assert (read.status, read.url) == (CheckoutStatus.OPEN, made.url)
    await vendor.act(made.external_id, "pay")
    after = await processor.read_checkout(made.external_id)
    assert after.status is CheckoutStatus.COMPLETED
    assert [m.outcome for m in after.money].count(MoneyOutcome.SUCCEEDED) == 1


async def test_a_delayed_payment_is_pending_until_it_arrives(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    told = await receive(processor, await vendor.act(made.external_id, "delay"))
    read = await processor.read_checkout(made.external_id)
    assert charge(told) == charge(read) == (MoneyOutcome.PENDING, 12500, "USD", REFERENCE)
    told_status = CheckoutStatus.PROCESSING if vendor.names_checkout else None
    assert (told.checkout_status, read.status) == (told_status, CheckoutStatus.PROCESSING)
    later = await receive(processor, await vendor.act(made.external_id, "settle"))
    read = await processor.read_checkout(made.external_id)
    assert charge(later) == charge(read) == (MoneyOutcome.SUCCEEDED, 12500, "USD", REFERENCE)
    assert told.money[0].external_id == later.money[0].external_id == read.money[0].external_id
    told_status = CheckoutStatus.COMPLETED if vendor.names_checkout else None
    assert (later.checkout_status, read.status) == (told_status, CheckoutStatus.COMPLETED)


async def test_a_delayed_payment_may_fail(vendor: ProcessorHarness, processor: Processor) -> None:
    vendor.will_fail()
    made = await processor.create_checkout(order())
    await vendor.act(made.external_id, "delay")
    told = await receive(processor, await vendor.act(made.external_id, "fail"))
    read = await processor.read_checkout(made.external_id)
    assert charge(told) == charge(read) == (MoneyOutcome.FAILED, 12500, "USD", REFERENCE)
    told_status = CheckoutStatus.FAILED if vendor.names_checkout else None
    assert (told.checkout_status, read.status) == (told_status, CheckoutStatus.FAILED)


async def test_completing_what_does_not_wait_only_reads(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    assert await processor.complete_checkout(made.external_id, idempotency_key="1") == made
    await vendor.act(made.external_id, "pay")
    paid = await processor.read_checkout(made.external_id)
    for key in ("1", "2"):
        assert await processor.complete_checkout(made.external_id, idempotency_key=key) == paid
    assert (paid.status, paid.awaits_completion, len(paid.money)) == (CheckoutStatus.COMPLETED, False, 1)


# ------------------------------------------------------------------------------------------------------------- refund
@pytest_asyncio.fixture
async def paid(vendor: ProcessorHarness, processor: Processor) -> Checkout:
    """A checkout over 125 dollars that is paid."""
    made = await processor.create_checkout(order())
    await vendor.act(made.external_id, "pay")
    return await processor.read_checkout(made.external_id)


def refund_order(paid: Checkout, amount_minor: int, *, key: str = f"{REFERENCE}:refund:1") -> RefundOrder:
    """Give so much of it back."""
    return RefundOrder(
        idempotency_key=key,
        request_reference=REFERENCE,
        charge_external_id=paid.money[0].external_id,
        checkout_external_id=paid.external_id,
        amount_minor=amount_minor,
        currency="USD",
        reason=RefundReason.REQUESTED_BY_CONTACT,
    )


async def refunds_of(processor: Processor, checkout: Checkout) -> list[MoneyStatement]:
    """The refunds that a reading tells, the smallest first."""
    money = (await processor.read_checkout(checkout.external_id)).money
    return sorted((m for m in money if m.kind is MoneyKind.REFUND), key=lambda m: m.amount_minor)


async def test_a_charge_is_given_back_in_parts(processor: Processor, paid: Checkout) -> None:
    made = [await processor.refund(refund_order(paid, amount, key=f"refund:{amount}")) for amount in (2500, 10000)]
    charged = paid.money[0].external_id
    for one, amount in zip(made, (2500, 10000), strict=True):
        assert (one.kind, one.amount_minor, one.currency) == (MoneyKind.REFUND, amount, "USD")
        assert (one.charge_external_id, one.external_id != charged) == (charged, True)
        assert one.outcome in (MoneyOutcome.PENDING, MoneyOutcome.SUCCEEDED)
        assert (await processor.read_refund(one.external_id)).amount_minor == amount
    listed = await refunds_of(processor, paid)
    assert [(m.external_id, m.charge_external_id) for m in listed] == [(m.external_id, charged) for m in made]
    after = await processor.read_checkout(paid.external_id)
    assert (after.status, charge_only(after)) == (CheckoutStatus.COMPLETED, charge_only(paid))


def charge_only(checkout: Checkout) -> list[tuple[str, MoneyOutcome, int]]:
    """Its charges without their refunds."""
    return [(m.external_id, m.outcome, m.amount_minor) for m in checkout.money if m.kind is MoneyKind.CHARGE]


async def test_the_same_key_gives_one_refund(processor: Processor, paid: Checkout) -> None:
    made = [await processor.refund(refund_order(paid, 2500)) for _ in range(3)]
    assert len({one.external_id for one in made}) == 1
    assert [m.external_id for m in await refunds_of(processor, paid)] == [made[0].external_id]


async def test_more_than_what_is_left_is_refused_for_good(processor: Processor, paid: Checkout) -> None:
    await processor.refund(refund_order(paid, 12000, key="first"))
    for amount in (501, 12500):
        with pytest.raises(IntegrationError) as refused:
            await processor.refund(refund_order(paid, amount, key=f"more:{amount}"))
        assert (refused.value.retryable, refused.value.ambiguous) == (False, False)
    assert len(await refunds_of(processor, paid)) == 1


@pytest.mark.parametrize("mode", ["accept_then_500", "drop", "hang"])
async def test_a_refund_without_an_answer_is_ambiguous_and_found_by_reading(
    vendor: ProcessorHarness, hasty: Processor, paid: Checkout, mode: FailureMode
) -> None:
    await hasty.read_checkout(paid.external_id)
    vendor.fail_next(mode)
    with pytest.raises(IntegrationError) as lost:
        await hasty.refund(refund_order(paid, 2500))
    assert lost.value.ambiguous
    assert [m.amount_minor for m in await refunds_of(hasty, paid)] == [2500]


async def test_a_refund_of_unknown_money_is_refused(processor: Processor, paid: Checkout) -> None:
    unknown = dataclasses.replace(refund_order(paid, 100), charge_external_id="unknown_0001")
    for call in (processor.refund(unknown), processor.read_refund("unknown_0001")):
        with pytest.raises(IntegrationError) as refused:
            await call
        assert (refused.value.retryable, refused.value.ambiguous) == (False, False)
    assert await refunds_of(processor, paid) == []


async def test_a_refund_made_at_the_vendor_is_told_with_its_charge(
    vendor: ProcessorHarness, processor: Processor, paid: Checkout
) -> None:
    told = await receive(processor, await vendor.refund(paid.external_id, 700))
    (money,) = told.money
    assert (money.kind, money.amount_minor, money.currency) == (MoneyKind.REFUND, 700, "USD")
    assert money.charge_external_id == paid.money[0].external_id
    assert [m.external_id for m in await refunds_of(processor, paid)] == [money.external_id]


# ------------------------------------------------------------------------------------------------------------- expire
async def test_an_open_checkout_is_expired_once_and_for_all(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    for _ in range(2):
        closed = await processor.expire_checkout(made.external_id)
        assert (closed.status, closed.url, tuple(closed.money)) == (CheckoutStatus.EXPIRED, None, ())
    with pytest.raises(NotPayable):
        await vendor.act(made.external_id, "pay")
    assert (await processor.read_checkout(made.external_id)).status is CheckoutStatus.EXPIRED


@pytest.mark.parametrize(
    ("before", "status", "outcome"),
    [
        ("pay", CheckoutStatus.COMPLETED, MoneyOutcome.SUCCEEDED),
        ("delay", CheckoutStatus.PROCESSING, MoneyOutcome.PENDING),
    ],
)
async def test_expiring_too_late_tells_what_won(
    vendor: ProcessorHarness, processor: Processor, before: Outcome, status: CheckoutStatus, outcome: MoneyOutcome
) -> None:
    made = await processor.create_checkout(order())
    await vendor.act(made.external_id, before)
    closed = await processor.expire_checkout(made.external_id)
    assert (closed.status, charge(closed)[0]) == (status, outcome)


@pytest.mark.parametrize("mode", ["accept_then_500", "hang", "drop"])
async def test_an_expiry_without_an_answer_may_be_repeated(
    vendor: ProcessorHarness, hasty: Processor, mode: FailureMode
) -> None:
    made = await hasty.create_checkout(order())
    vendor.fail_next(mode)
    with pytest.raises(IntegrationError) as lost:
        await hasty.expire_checkout(made.external_id)
    assert lost.value.ambiguous
    assert (await hasty.expire_checkout(made.external_id)).status is CheckoutStatus.EXPIRED


# ----------------------------------------------------------------------------------------------------------- webhooks
@pytest_asyncio.fixture
async def delivery(vendor: ProcessorHarness, processor: Processor) -> Delivery:
    """The webhook of a payment."""
    made = await processor.create_checkout(order())
    return await vendor.act(made.external_id, "pay")


def forge(vendor: ProcessorHarness, body: bytes, *, secret: str | None = None, age_s: float = 0) -> Delivery:
    """The body under a signature of our own making."""
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    return body, vendor.sign(body, secret or vendor.secret, at)


async def test_no_forged_webhook_is_accepted(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    body, headers = delivery
    forged: list[Delivery] = [
        (body, {}),
        *((body, broken) for broken in vendor.forgeries(headers)),
        (body + b" ", headers),
        (body.replace(vendor.amount, vendor.amount[:-1] + b"1"), headers),
        (b"", headers),
        (b"\xff\xfe" + body, headers),
        (json.dumps(json.loads(body)).encode() + b"\n", headers),
        forge(vendor, body, secret="another0secret"),
    ]
    if vendor.refuses_old:
        forged.append(forge(vendor, body, age_s=302))
    if vendor.signs_time:
        forged.append(forge(vendor, body, age_s=-302))
    assert (len(forged) >= 20, vendor.amount in body) == (True, True)
    for one in forged:
        with pytest.raises(SignatureInvalid):
            await receive(processor, one)


async def test_a_webhook_is_good_for_300_seconds_either_way(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    told = await receive(processor, delivery)
    for age in (-298, -60, 0, 60, 298):
        assert await receive(processor, forge(vendor, delivery[0], age_s=age)) == told
    await receive(processor, delivery, late_s=290)
    if vendor.refuses_old:
        with pytest.raises(SignatureInvalid):
            await receive(processor, delivery, late_s=310)
        return
    # Resent under its old time: never lost, and never believed without reading.
    for late_s in (310, 3 * 24 * 3600):
        late = await receive(processor, delivery, late_s=late_s)
        assert late == dataclasses.replace(told, decides=False)
    with pytest.raises(SignatureInvalid):
        await receive(processor, delivery, late_s=5 * 24 * 3600)


async def test_two_secrets_are_live_while_one_is_rolled(vendor: ProcessorHarness, delivery: Delivery) -> None:
    rolled = vendor.rolled_secret
    rolling = vendor.provider(webhook_secret=f"{rolled}, {vendor.secret}")
    told = await receive(rolling, delivery)
    assert told.money
    assert await receive(rolling, forge(vendor, delivery[0], secret=rolled)) == told
    with pytest.raises(SignatureInvalid):
        await receive(rolling, forge(vendor, delivery[0], secret=f"{rolled}, {vendor.secret}"))
    await rolling.aclose()


async def test_without_a_webhook_secret_nothing_is_accepted(vendor: ProcessorHarness, delivery: Delivery) -> None:
    for none in (" ", ",", " , "):
        processor = vendor.provider(webhook_secret=none)
        signed = [forge(vendor, delivery[0], secret=secret) for secret in (vendor.secret, none, none.strip() or "x")]
        for one in (*signed, (b"", {})):
            with pytest.raises(SignatureInvalid) as refused:
                await receive(processor, one)
            assert refused.value.reason == "no_webhook_secret"  # the door answers 404, as for no connection
        await processor.aclose()


async def test_signed_nonsense_is_invalid_payload(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    event = json.loads(delivery[0])
    broken: list[Any] = [[], "text", None, 5, {}, event | {vendor.holds: None}, event | {vendor.holds: {}}]
    bodies = [b"", b"{", b"not json", *(json.dumps(b).encode() for b in broken)]
    for body in bodies:
        # Where the vendor itself is asked, what can't be put into the question counts as unsigned.
        with pytest.raises(PayloadInvalid if vendor.checks_any_body else (PayloadInvalid, SignatureInvalid)):
            await receive(processor, forge(vendor, body))


async def test_a_stored_body_reads_as_it_did_when_it_came(processor: Processor, delivery: Delivery) -> None:
    assert processor.parse(delivery[0]) == await receive(processor, delivery)


# --------------------------------------------------------------------------------------------------------- currencies
@pytest.mark.parametrize("currency", ["", "usd", "US", "USDX", "£", "XXXX"])
async def test_no_limits_for_what_is_no_currency(processor: Processor, currency: str) -> None:
    assert processor.amount_limits(currency) is None


async def test_the_smallest_amount_of_a_currency_can_be_asked_and_comes_back_exact(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    for currency in vendor.currencies:
        limits = processor.amount_limits(currency)
        assert limits is not None
        assert limits.maximum_minor is not None
        for amount in (limits.minimum_minor, limits.maximum_minor):
            made = await processor.create_checkout(
                order(idempotency_key=f"{currency}{amount}", amount_minor=amount, currency=currency)
            )
            told = await receive(processor, await vendor.act(made.external_id, "pay"))
            read = await processor.read_checkout(made.external_id)
            assert charge(told)[1:3] == charge(read)[1:3] == (amount, currency)


async def test_events_that_the_vendor_lists_are_as_those_that_it_sends(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order())
    sent = await receive(processor, await vendor.act(made.external_id, "pay"))
    listed = await processor.list_events(datetime.now(UTC) - timedelta(days=1))
    for event in listed:
        assert processor.parse(event.raw) == dataclasses.replace(event, raw=b"")
    assert [dataclasses.replace(e, raw=b"") for e in listed if e.external_id == sent.external_id] in ([], [sent])
