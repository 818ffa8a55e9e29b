"""One suite over every processor that is found: the promises of `integrations.base.Processor`."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from integrations import registry
from integrations.base import (
    Checkout,
    CheckoutOrder,
    CheckoutStatus,
    Environment,
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
from integrations.processors import paypal, sandbox, square, stripe
from models.database import open_database
from models.tables import SandboxCheckout
from services import sandbox as sandbox_vendor
from tests.contracts import paypal_server, sandbox_home, square_server, stripe_contract, stripe_server
from tests.contracts.openapi import FailureMode

Outcome = Literal["pay", "decline", "delay", "settle", "fail"]
Delivery = tuple[bytes, dict[str, str]]
REFERENCE = "pr_01hzx5p4qk8v6m2n3c7t9w0yfd"
PUBLIC = {"stripe_account", "location_id", "mode"}  # fields of credentials that are no secret


def order(**changes: Any) -> CheckoutOrder:
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


class Vendor(ABC):
    """The other side of one connection: what a processor's author supplies to be tested.

    The switches say what a vendor does otherwise than most; what we promise all the same is in the tests.
    """

    secret: str
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

    def __init__(self, database: Path) -> None:
        self._database = database

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
        """What a payer or a bank does; the webhook that tells it."""

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


class StripeVendor(Vendor):
    secret = stripe_server.WEBHOOK_SECRET
    signature_header = "stripe-signature"
    origin = "https://checkout.stripe.com"

    async def start(self, stack: AsyncExitStack) -> None:
        self.server = stripe_server.StripeServer(stripe_contract.derived_contract())
        await stack.enter_async_context(self.server)

    def _environment(self, url: str, timeout_s: float = 10) -> Environment:
        return Environment(public_url=url, sandbox_url=url, base_addresses={"stripe": url}, timeout_s=timeout_s)

    def provider(
        self, *, secret_key: str | None = None, webhook_secret: str | None = None, timeout_s: float = 10
    ) -> Processor:
        credentials = stripe.Credentials(secret_key or stripe_server.SECRET_KEY, webhook_secret or self.secret)
        return stripe.Stripe(credentials, environment=self._environment(self.server.url, timeout_s))

    def unreachable(self) -> Processor:
        return stripe.Stripe(
            stripe.Credentials(stripe_server.SECRET_KEY, self.secret),
            environment=self._environment("http://127.0.0.1:9"),
        )

    def fail_next(self, mode: FailureMode) -> None:
        self.server.fail_next(mode)

    async def checkouts(self) -> int:
        return len(self.server.sessions)

    async def act(self, external_id: str, outcome: Outcome) -> Delivery:
        actions: dict[str, Callable[[str], dict[str, Any]]] = {
            "pay": self.server.pay,
            "decline": self.server.decline,
            "delay": self.server.pay_async,
            "settle": self.server.async_succeed,
            "fail": self.server.async_fail,
        }
        return self.server.webhook(actions[outcome](external_id))

    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        return self.server.webhook(self.server.refund(external_id, amount=amount_minor))

    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        return {self.signature_header: stripe_server.sign(body, secret, int(at.timestamp()))}


class SandboxVendor(Vendor):
    secret = sandbox_home.WEBHOOK_SECRET
    signature_header = sandbox.SIGNATURE_HEADER
    checks_key = False

    async def start(self, stack: AsyncExitStack) -> None:
        await stack.enter_async_context(open_database(f"sqlite:///{self._database}", synchronous="OFF"))
        self.home = await stack.enter_async_context(sandbox_home.SandboxHome())
        self.origin = self.home.server.url

    def provider(
        self, *, secret_key: str | None = None, webhook_secret: str | None = None, timeout_s: float = 10
    ) -> Processor:
        key = secret_key or sandbox_home.SECRET_KEY
        return self.home.provider(secret_key=key, webhook_secret=webhook_secret, timeout_s=timeout_s)

    def unreachable(self) -> Processor:
        nowhere = "http://127.0.0.1:9"
        return sandbox.Sandbox(
            sandbox.Credentials(sandbox_home.SECRET_KEY, self.secret),
            environment=Environment(public_url=nowhere, sandbox_url=nowhere),
        )

    def fail_next(self, mode: FailureMode) -> None:
        self.home.fail_next(mode)

    async def checkouts(self) -> int:
        return await self.home.checkouts()

    async def act(self, external_id: str, outcome: Outcome) -> Delivery:
        if outcome == "settle" or outcome == "fail":
            await self.home.settle()
        else:
            action = {"pay": "pay", "decline": "decline", "delay": self.delayed}[outcome]
            assert (await self.home.press(external_id, action)).status_code == 303
        (delivery,) = await self.home.deliver()
        return delivery

    delayed = "pay_later"

    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        row = await SandboxCheckout.get(external_id=external_id)
        body = {"payment": row.payments[-1]["id"], "amount_minor": amount_minor}
        await sandbox_vendor.refund(self.home.connection, external_id, "made-by-hand", body)
        (delivery,) = await self.home.deliver()
        return delivery

    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        return {self.signature_header: sandbox_vendor.signed(secret, body, at=at)}


class PayPalVendor(Vendor):
    secret = paypal_server.WEBHOOK_ID
    rolled_secret = paypal_server.OTHER_WEBHOOK_ID
    signature_header = "paypal-transmission-sig"
    origin = "https://www.sandbox.paypal.com"
    known_shape = "5O190127TN364715T"
    amount = b"125.00"
    holds = "resource"
    refuses_old = False
    checks_any_body = False
    decline = "ended"
    method = "PayPal"
    currencies = ("USD", "EUR", "GBP", "JPY", "HUF", "TWD", "BRL", "CHF")

    async def start(self, stack: AsyncExitStack) -> None:
        self.server = paypal_server.PayPalServer(paypal_server.our_contract())
        await stack.enter_async_context(self.server)
        self.buyer = self.provider()  # the page that the payer comes back to
        stack.push_async_callback(self.buyer.aclose)

    def _made(self, url: str, secret: str, webhook_id: str, timeout_s: float = 10) -> Processor:
        credentials = paypal.Credentials(paypal_server.CLIENT_ID, secret, webhook_id, "test")
        environment = Environment(public_url=url, sandbox_url=url, base_addresses={"paypal": url}, timeout_s=timeout_s)
        return paypal.PayPal(credentials, environment=environment)

    def provider(
        self, *, secret_key: str | None = None, webhook_secret: str | None = None, timeout_s: float = 10
    ) -> Processor:
        secret = secret_key or paypal_server.CLIENT_SECRET
        return self._made(self.server.url, secret, webhook_secret or self.secret, timeout_s)

    def unreachable(self) -> Processor:
        return self._made("http://127.0.0.1:9", paypal_server.CLIENT_SECRET, self.secret)

    def fail_next(self, mode: FailureMode) -> None:
        self.server.fail_next(mode, match=lambda call: call.path != paypal_server.TOKEN_PATH)

    async def checkouts(self) -> int:
        return len(self.server.orders)

    async def act(self, external_id: str, outcome: Outcome) -> Delivery:
        captures: dict[str, tuple[paypal_server.Captured, CheckoutStatus]] = {
            "pay": ("COMPLETED", CheckoutStatus.COMPLETED),
            "decline": ("DECLINED", CheckoutStatus.FAILED),
            "delay": ("PENDING", CheckoutStatus.PROCESSING),
        }
        if outcome not in captures:
            settle = self.server.settle if outcome == "settle" else self.server.deny
            return self.server.webhook(settle(external_id))
        self.server.approve(external_id)
        self.server.outcome, status = captures[outcome]
        waiting = await self.buyer.read_checkout(external_id)
        done = await self.buyer.complete_checkout(external_id, idempotency_key=f"{external_id}:capture")
        assert (waiting.awaits_completion, done.status) == (True, status)
        return self.server.webhook(self.server.told(external_id))

    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        amount = {"currency_code": "USD", "value": f"{amount_minor // 100}.{amount_minor % 100:02d}"}
        refund = self.server.refund_now(external_id, amount, custom_id=REFERENCE)
        return self.server.webhook(self.server.event("PAYMENT.CAPTURE.REFUNDED", "refund", refund))

    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        return paypal_server.transmission(body, webhook_id=secret, at=at)

    def forgeries(self, headers: dict[str, str]) -> list[dict[str, str]]:
        sig, time = headers[self.signature_header], headers["paypal-transmission-time"]
        changes = (
            {self.signature_header: ""},
            {self.signature_header: sig[:-1]},
            {self.signature_header: "s" + "0" * 64},
            {self.signature_header: "é" + sig[1:]},
            {self.signature_header: sig + '","webhook_id":"x'},
            {self.signature_header: "s" * 5000},
            {"paypal-transmission-time": ""},
            {"paypal-transmission-time": "soon" * 8},
            {"paypal-transmission-time": time[:-1]},  # without a zone
            {"paypal-transmission-time": "9" + time[1:]},
            {"paypal-transmission-time": "2026-11-23T00:00:00Z"},
            {"paypal-transmission-id": "another"},
            {"paypal-auth-algo": "none "},
            {"paypal-cert-url": "https://paypal.com.attacker.test/cert"},
            {"paypal-cert-url": "http://api.paypal.com/cert"},
        )
        return [headers | change for change in changes]


class SquareVendor(Vendor):
    secret = square_server.SIGNATURE_KEY
    rolled_secret = "rolled_signature_key"
    signature_header = square.SIGNATURE_HEADER
    origin = "https://sandbox.square.link"
    known_shape = "PKVT6XGJZXYUP3NZ.o4b7saqp4HzhNttf5AJxC0Srjd4F"
    unknown_id = "unknown.unknown"
    lives = False
    names_checkout = False
    signs_time = False
    refuses_old = False
    decline = "untold"
    currencies = ("USD", "EUR", "GBP", "JPY", "AUD", "CAD")

    async def start(self, stack: AsyncExitStack) -> None:
        self.server = square_server.SquareServer(square_server.our_contract())
        await stack.enter_async_context(self.server)

    def _made(self, url: str, token: str, key: str, timeout_s: float = 10) -> Processor:
        environment = Environment(public_url=url, sandbox_url=url, base_addresses={"square": url}, timeout_s=timeout_s)
        return square.Square(
            square.Credentials(token, square_server.LOCATION_ID, key, "test"),
            environment=environment,
            webhook_url=square_server.WEBHOOK_URL,
        )

    def provider(
        self, *, secret_key: str | None = None, webhook_secret: str | None = None, timeout_s: float = 10
    ) -> Processor:
        token = secret_key or square_server.ACCESS_TOKEN
        return self._made(self.server.url, token, webhook_secret or self.secret, timeout_s)

    def unreachable(self) -> Processor:
        return self._made("http://127.0.0.1:9", square_server.ACCESS_TOKEN, self.secret)

    def fail_next(self, mode: FailureMode) -> None:
        self.server.fail_next(mode)

    async def checkouts(self) -> int:
        return len(self.server.orders)

    async def act(self, external_id: str, outcome: Outcome) -> Delivery:
        link_id, order_id = external_id.split(".")
        if outcome in ("settle", "fail"):
            status = "COMPLETED" if outcome == "settle" else "FAILED"
            return self.server.webhook(self.server.settle(order_id, status=status))
        status = {"pay": "COMPLETED", "decline": "FAILED", "delay": "PENDING"}[outcome]
        return self.server.webhook(self.server.pay(link_id, status=status))

    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        payment = self.server.payment_of(external_id.split(".")[1])
        refund = self.server.refund_now(payment["id"], amount_minor)
        return self.server.webhook(self.server.settle_refund(refund["id"]))

    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        return {self.signature_header: square_server.sign(body, secret)}

    def forgeries(self, headers: dict[str, str]) -> list[dict[str, str]]:
        good = headers[self.signature_header]
        values = ("", good[:-1], good[1:], "A" * 43 + "=", good.swapcase(), "é" + good[1:], f"{good}, {good}")
        more = (good + "\n", " " + good, "\x00", "=" * 44, "A" * 5000, f"sha256={good}", good.rstrip("=") + "==", "v1")
        return [{self.signature_header: value} for value in (*values, *more)]


VENDORS: dict[str, type[Vendor]] = {
    "paypal": PayPalVendor,
    "sandbox": SandboxVendor,
    "square": SquareVendor,
    "stripe": StripeVendor,
}


@pytest.fixture
def database_file(sqlite_template: Path, tmp_path: Path) -> Path:
    """A migrated database for a vendor of ours."""
    return Path(shutil.copyfile(sqlite_template, tmp_path / "vendor.db"))


@pytest.fixture(params=registry.processor_names())
async def vendor(request: pytest.FixtureRequest, database_file: Path) -> AsyncIterator[Vendor]:
    """Each processor's vendor, running."""
    made = VENDORS[request.param](database_file)
    async with AsyncExitStack() as stack:
        await made.start(stack)
        yield made


@pytest.fixture
async def processor(vendor: Vendor) -> AsyncIterator[Processor]:
    """A provider connected to the vendor."""
    made = vendor.provider()
    yield made
    await made.aclose()


@pytest.fixture
async def hasty(vendor: Vendor) -> AsyncIterator[Processor]:
    """A provider that waits for one second only."""
    made = vendor.provider(timeout_s=1)
    yield made
    await made.aclose()


async def receive(processor: Processor, delivery: Delivery, *, late_s: float = 0) -> ProcessorWebhook:
    return await processor.verify_webhook(*delivery, now=datetime.now(UTC) + timedelta(seconds=late_s))


def charge(checkout: Checkout | ProcessorWebhook) -> tuple[Any, ...]:
    (money,) = checkout.money
    assert money.kind is MoneyKind.CHARGE
    return money.outcome, money.amount_minor, money.currency, money.request_reference


# ----------------------------------------------------------------------------------------------------------- the file
def test_every_processor_has_a_vendor_to_be_tested_against() -> None:
    assert sorted(VENDORS) == registry.processor_names()


@pytest.mark.parametrize("name", registry.processor_names())
def test_a_processor_says_who_it_is_and_where_its_facts_come_from(name: str) -> None:
    cls = registry.processor_class(name)
    assert (cls.name, bool(cls.display_name), inspect.isabstract(cls)) == (name, True, False)
    module = inspect.getmodule(cls)
    assert module is not None
    assert module.__name__ == f"integrations.processors.{name}"
    assert dataclasses.is_dataclass(cls.credentials)
    assert 30 * 60 <= cls.session_life_s <= 24 * 3600


@pytest.mark.parametrize("name", registry.processor_names())
def test_credentials_do_not_show_their_secrets(name: str) -> None:
    cls = registry.processor_class(name).credentials
    names = [field.name for field in dataclasses.fields(cls) if field.name not in PUBLIC]
    others = dict.fromkeys((field.name for field in dataclasses.fields(cls) if field.name in PUBLIC), "shown")
    shown = repr(cls(**dict.fromkeys(names, "planted-secret"), **others))
    assert (len(names) >= 2, "planted" in shown) == (True, False)


# ------------------------------------------------------------------------------------------------------------- create
async def test_a_new_checkout_is_open_and_leads_to_the_hosted_page(vendor: Vendor, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    assert (made.status, made.request_reference, tuple(made.money)) == (CheckoutStatus.OPEN, REFERENCE, ())
    assert made.url is not None
    assert made.url.startswith(vendor.origin + "/")
    assert (made.expires_at is not None, made.awaits_completion) == (vendor.lives, False)
    if made.expires_at is not None:
        left = made.expires_at - datetime.now(UTC)
        assert timedelta(minutes=30) < left <= timedelta(seconds=processor.session_life_s + 2)
    assert await processor.read_checkout(made.external_id) == made


async def test_the_least_and_the_most_that_an_order_may_say_are_taken(vendor: Vendor, processor: Processor) -> None:
    least = order(description=None, customer_email=None, locale=None)
    most = order(
        idempotency_key="k" * 70, product_name="€" * 255, description="x\r\n" * 300, locale="xx-unknown", currency="JPY"
    )
    assert (await processor.create_checkout(least)).status is CheckoutStatus.OPEN
    assert (await processor.create_checkout(most)).status is CheckoutStatus.OPEN
    assert await vendor.checkouts() == 2


async def test_the_same_key_gives_the_same_checkout(vendor: Vendor, processor: Processor) -> None:
    other_process = vendor.provider()
    made = await processor.create_checkout(order())
    again = await other_process.create_checkout(order())
    await other_process.aclose()
    assert again == made
    assert await vendor.checkouts() == 1


async def test_calls_with_one_key_at_once_make_one_checkout(vendor: Vendor, processor: Processor) -> None:
    made = await asyncio.gather(*(processor.create_checkout(order()) for _ in range(5)))
    assert len({checkout.external_id for checkout in made}) == 1
    assert await vendor.checkouts() == 1


async def test_the_same_key_with_another_amount_is_refused(vendor: Vendor, processor: Processor) -> None:
    await processor.create_checkout(order())
    with pytest.raises(IntegrationError) as refused:
        await processor.create_checkout(order(amount_minor=12501))
    assert (refused.value.retryable, refused.value.ambiguous) == (False, False)
    assert await vendor.checkouts() == 1


@pytest.mark.parametrize("mode", ["hang", "drop"])
async def test_a_lost_answer_is_ambiguous_and_the_key_finds_the_checkout(
    vendor: Vendor, hasty: Processor, mode: FailureMode
) -> None:
    vendor.fail_next(mode)
    with pytest.raises(IntegrationError) as lost:
        await hasty.create_checkout(order())
    assert (lost.value.provider, lost.value.ambiguous, lost.value.retryable) == (hasty.name, True, True)
    assert await vendor.checkouts() == 1
    assert (await hasty.create_checkout(order())).status is CheckoutStatus.OPEN
    assert await vendor.checkouts() == 1


async def test_a_500_after_acceptance_is_ambiguous_and_nothing_is_repeated(
    vendor: Vendor, processor: Processor
) -> None:
    vendor.fail_next("accept_then_500")
    with pytest.raises(IntegrationError) as lost:
        await processor.create_checkout(order())
    assert (lost.value.reason, lost.value.ambiguous) == ("server_error", True)
    assert await vendor.checkouts() == 1


async def test_a_rate_limit_may_be_retried_and_made_nothing(vendor: Vendor, processor: Processor) -> None:
    vendor.fail_next("rate_limit")
    with pytest.raises(IntegrationError) as refused:
        await processor.create_checkout(order())
    assert (refused.value.reason, refused.value.retryable, refused.value.ambiguous) == ("rate_limited", True, False)
    assert await vendor.checkouts() == 0


async def test_a_vendor_that_is_away_is_an_integration_error(vendor: Vendor) -> None:
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


async def test_a_wrong_key_is_refused_for_good(vendor: Vendor) -> None:
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


async def test_an_unknown_checkout_is_not_found(vendor: Vendor, processor: Processor) -> None:
    for call in (
        processor.read_checkout(vendor.unknown_id),
        processor.expire_checkout(vendor.unknown_id),
        processor.complete_checkout(vendor.unknown_id, idempotency_key="1"),
    ):
        with pytest.raises(IntegrationError) as refused:
            await call
        assert (refused.value.reason, refused.value.ambiguous) == ("not_found", False)


@pytest.mark.parametrize("mode", ["before_500", "hang", "drop"])
async def test_a_failed_read_is_never_ambiguous(vendor: Vendor, hasty: Processor, mode: FailureMode) -> None:
    made = await hasty.create_checkout(order())
    vendor.fail_next(mode)
    with pytest.raises(IntegrationError) as lost:
        await hasty.read_checkout(made.external_id)
    assert (lost.value.ambiguous, lost.value.retryable) == (False, True)


# -------------------------------------------------------------------------------------------------------------- money
async def test_a_payment_is_told_alike_by_webhook_and_by_reading(vendor: Vendor, processor: Processor) -> None:
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


async def test_a_decline_takes_no_money_and_leaves_no_wrong_state(vendor: Vendor, processor: Processor) -> None:
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


async def test_a_delayed_payment_is_pending_until_it_arrives(vendor: Vendor, processor: Processor) -> None:
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


async def test_a_delayed_payment_may_fail(vendor: Vendor, processor: Processor) -> None:
    if isinstance(vendor, SandboxVendor):
        vendor.delayed = "pay_later_fail"
    made = await processor.create_checkout(order())
    await vendor.act(made.external_id, "delay")
    told = await receive(processor, await vendor.act(made.external_id, "fail"))
    read = await processor.read_checkout(made.external_id)
    assert charge(told) == charge(read) == (MoneyOutcome.FAILED, 12500, "USD", REFERENCE)
    told_status = CheckoutStatus.FAILED if vendor.names_checkout else None
    assert (told.checkout_status, read.status) == (told_status, CheckoutStatus.FAILED)


async def test_completing_what_does_not_wait_only_reads(vendor: Vendor, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    assert await processor.complete_checkout(made.external_id, idempotency_key="1") == made
    await vendor.act(made.external_id, "pay")
    paid = await processor.read_checkout(made.external_id)
    for key in ("1", "2"):
        assert await processor.complete_checkout(made.external_id, idempotency_key=key) == paid
    assert (paid.status, paid.awaits_completion, len(paid.money)) == (CheckoutStatus.COMPLETED, False, 1)


# ------------------------------------------------------------------------------------------------------------- refund
@pytest.fixture
async def paid(vendor: Vendor, processor: Processor) -> Checkout:
    """A checkout over 125 dollars that is paid."""
    made = await processor.create_checkout(order())
    await vendor.act(made.external_id, "pay")
    return await processor.read_checkout(made.external_id)


def refund_order(paid: Checkout, amount_minor: int, *, key: str = f"{REFERENCE}:refund:1") -> RefundOrder:
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
    vendor: Vendor, hasty: Processor, paid: Checkout, mode: FailureMode
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
    vendor: Vendor, processor: Processor, paid: Checkout
) -> None:
    told = await receive(processor, await vendor.refund(paid.external_id, 700))
    (money,) = told.money
    assert (money.kind, money.amount_minor, money.currency) == (MoneyKind.REFUND, 700, "USD")
    assert money.charge_external_id == paid.money[0].external_id
    assert [m.external_id for m in await refunds_of(processor, paid)] == [money.external_id]


# ------------------------------------------------------------------------------------------------------------- expire
async def test_an_open_checkout_is_expired_once_and_for_all(vendor: Vendor, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    for _ in range(2):
        closed = await processor.expire_checkout(made.external_id)
        assert (closed.status, closed.url, tuple(closed.money)) == (CheckoutStatus.EXPIRED, None, ())
    with pytest.raises((stripe_server.NotPayable, square_server.NotPayable, AssertionError)):
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
    vendor: Vendor, processor: Processor, before: Outcome, status: CheckoutStatus, outcome: MoneyOutcome
) -> None:
    made = await processor.create_checkout(order())
    await vendor.act(made.external_id, before)
    closed = await processor.expire_checkout(made.external_id)
    assert (closed.status, charge(closed)[0]) == (status, outcome)


@pytest.mark.parametrize("mode", ["accept_then_500", "hang", "drop"])
async def test_an_expiry_without_an_answer_may_be_repeated(vendor: Vendor, hasty: Processor, mode: FailureMode) -> None:
    made = await hasty.create_checkout(order())
    vendor.fail_next(mode)
    with pytest.raises(IntegrationError) as lost:
        await hasty.expire_checkout(made.external_id)
    assert lost.value.ambiguous
    assert (await hasty.expire_checkout(made.external_id)).status is CheckoutStatus.EXPIRED


# ----------------------------------------------------------------------------------------------------------- webhooks
@pytest.fixture
async def delivery(vendor: Vendor, processor: Processor) -> Delivery:
    """The webhook of a payment."""
    made = await processor.create_checkout(order())
    return await vendor.act(made.external_id, "pay")


def forge(vendor: Vendor, body: bytes, *, secret: str | None = None, age_s: float = 0) -> Delivery:
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    return body, vendor.sign(body, secret or vendor.secret, at)


async def test_no_forged_webhook_is_accepted(vendor: Vendor, processor: Processor, delivery: Delivery) -> None:
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
    vendor: Vendor, processor: Processor, delivery: Delivery
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


async def test_two_secrets_are_live_while_one_is_rolled(vendor: Vendor, delivery: Delivery) -> None:
    rolled = vendor.rolled_secret
    rolling = vendor.provider(webhook_secret=f"{rolled}, {vendor.secret}")
    told = await receive(rolling, delivery)
    assert told.money
    assert await receive(rolling, forge(vendor, delivery[0], secret=rolled)) == told
    with pytest.raises(SignatureInvalid):
        await receive(rolling, forge(vendor, delivery[0], secret=f"{rolled}, {vendor.secret}"))
    await rolling.aclose()


async def test_without_a_webhook_secret_nothing_is_accepted(vendor: Vendor, delivery: Delivery) -> None:
    for none in (" ", ",", " , "):
        processor = vendor.provider(webhook_secret=none)
        signed = [forge(vendor, delivery[0], secret=secret) for secret in (vendor.secret, none, none.strip() or "x")]
        for one in (*signed, (b"", {})):
            with pytest.raises(SignatureInvalid) as refused:
                await receive(processor, one)
            assert refused.value.reason == "no_webhook_secret"  # the door answers 404, as for no connection
        await processor.aclose()


async def test_signed_nonsense_is_invalid_payload(vendor: Vendor, processor: Processor, delivery: Delivery) -> None:
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
    vendor: Vendor, processor: Processor
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


async def test_events_that_the_vendor_lists_are_as_those_that_it_sends(vendor: Vendor, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    sent = await receive(processor, await vendor.act(made.external_id, "pay"))
    listed = await processor.list_events(datetime.now(UTC) - timedelta(days=1))
    for event in listed:
        assert processor.parse(event.raw) == dataclasses.replace(event, raw=b"")
    assert [dataclasses.replace(e, raw=b"") for e in listed if e.external_id == sent.external_id] in ([], [sent])
