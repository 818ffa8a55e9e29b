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
    PayloadInvalid,
    Processor,
    ProcessorWebhook,
    SignatureInvalid,
)
from integrations.processors import sandbox, stripe
from models.database import open_database
from services import sandbox as sandbox_vendor
from tests.contracts import sandbox_home, stripe_contract, stripe_server
from tests.contracts.openapi import FailureMode

Outcome = Literal["pay", "decline", "delay", "settle", "fail"]
Delivery = tuple[bytes, dict[str, str]]
REFERENCE = "pr_01hzx5p4qk8v6m2n3c7t9w0yfd"


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
    """The other side of one connection: what a processor's author supplies to be tested."""

    secret: str
    signature_header: str
    origin: str  # where its hosted page is
    checks_key = True  # whether check() asks the vendor

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
    def sign(self, body: bytes, secret: str, at: datetime) -> str:
        """The signature header's value, computed as the vendor does."""


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

    def sign(self, body: bytes, secret: str, at: datetime) -> str:
        return stripe_server.sign(body, secret, int(at.timestamp()))


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

    def sign(self, body: bytes, secret: str, at: datetime) -> str:
        return sandbox_vendor.signed(secret, body, at=at)


VENDORS: dict[str, type[Vendor]] = {"sandbox": SandboxVendor, "stripe": StripeVendor}


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


def receive(processor: Processor, delivery: Delivery, *, late_s: float = 0) -> ProcessorWebhook:
    return processor.receive(*delivery, now=datetime.now(UTC) + timedelta(seconds=late_s))


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
    shown = repr(registry.processor_class(name).credentials("planted-secret-key", "planted-webhook-secret"))
    assert "planted" not in shown


# ------------------------------------------------------------------------------------------------------------- create
async def test_a_new_checkout_is_open_and_leads_to_the_hosted_page(vendor: Vendor, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    assert (made.status, made.request_reference, tuple(made.money)) == (CheckoutStatus.OPEN, REFERENCE, ())
    assert made.url is not None
    assert made.url.startswith(vendor.origin + "/")
    assert made.expires_at is not None
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
        processor.read_checkout("cs_1"),
        processor.expire_checkout("cs_1"),
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


async def test_an_unknown_checkout_is_not_found(processor: Processor) -> None:
    for call in (processor.read_checkout("cs_unknown"), processor.expire_checkout("cs_unknown")):
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
    told = receive(processor, await vendor.act(made.external_id, "pay"))
    read = await processor.read_checkout(made.external_id)
    assert charge(told) == charge(read) == (MoneyOutcome.SUCCEEDED, 12500, "USD", REFERENCE)
    assert told.money[0].external_id == read.money[0].external_id != told.external_id
    assert (told.decides, told.checkout_external_id, told.checkout_status, told.request_reference) == (
        True,
        made.external_id,
        CheckoutStatus.COMPLETED,
        REFERENCE,
    )
    assert (read.status, read.url) == (CheckoutStatus.COMPLETED, None)
    assert read.money[0].method_summary is not None
    assert read.money[0].method_summary.endswith("•••• 4242")


async def test_a_decline_leaves_the_checkout_open(vendor: Vendor, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    told = receive(processor, await vendor.act(made.external_id, "decline"))
    read = await processor.read_checkout(made.external_id)
    assert charge(told) == charge(read) == (MoneyOutcome.FAILED, 12500, "USD", REFERENCE)
    assert (read.status, read.url) == (CheckoutStatus.OPEN, made.url)
    assert read.money[0].failure_code
    await vendor.act(made.external_id, "pay")
    after = await processor.read_checkout(made.external_id)
    assert after.status is CheckoutStatus.COMPLETED
    assert [m.outcome for m in after.money].count(MoneyOutcome.SUCCEEDED) == 1


async def test_a_delayed_payment_is_pending_until_it_arrives(vendor: Vendor, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    told = receive(processor, await vendor.act(made.external_id, "delay"))
    read = await processor.read_checkout(made.external_id)
    assert charge(told) == charge(read) == (MoneyOutcome.PENDING, 12500, "USD", REFERENCE)
    assert (told.checkout_status, read.status) == (CheckoutStatus.PROCESSING, CheckoutStatus.PROCESSING)
    later = receive(processor, await vendor.act(made.external_id, "settle"))
    read = await processor.read_checkout(made.external_id)
    assert charge(later) == charge(read) == (MoneyOutcome.SUCCEEDED, 12500, "USD", REFERENCE)
    assert told.money[0].external_id == later.money[0].external_id == read.money[0].external_id
    assert (later.checkout_status, read.status) == (CheckoutStatus.COMPLETED, CheckoutStatus.COMPLETED)


async def test_a_delayed_payment_may_fail(vendor: Vendor, processor: Processor) -> None:
    if isinstance(vendor, SandboxVendor):
        vendor.delayed = "pay_later_fail"
    made = await processor.create_checkout(order())
    await vendor.act(made.external_id, "delay")
    told = receive(processor, await vendor.act(made.external_id, "fail"))
    read = await processor.read_checkout(made.external_id)
    assert charge(told) == charge(read) == (MoneyOutcome.FAILED, 12500, "USD", REFERENCE)
    assert (told.checkout_status, read.status) == (CheckoutStatus.FAILED, CheckoutStatus.FAILED)


# ------------------------------------------------------------------------------------------------------------- expire
async def test_an_open_checkout_is_expired_once_and_for_all(vendor: Vendor, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    for _ in range(2):
        closed = await processor.expire_checkout(made.external_id)
        assert (closed.status, closed.url, tuple(closed.money)) == (CheckoutStatus.EXPIRED, None, ())
    with pytest.raises((stripe_server.NotPayable, AssertionError)):
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
    return body, {vendor.signature_header: vendor.sign(body, secret or vendor.secret, at)}


async def test_no_forged_webhook_is_accepted(vendor: Vendor, processor: Processor, delivery: Delivery) -> None:
    body, headers = delivery
    good = headers[vendor.signature_header]
    stamp, digest = good.split(",v1=")
    forged: list[Delivery] = [
        (body, {}),
        *(
            (body, {vendor.signature_header: value})
            for value in (
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
        ),
        (body + b" ", headers),
        (body.replace(b"12500", b"12501"), headers),
        (b"", headers),
        (b"\xff\xfe" + body, headers),
        (json.dumps(json.loads(body)).encode() + b"\n", headers),
        forge(vendor, body, secret="another-secret"),
        forge(vendor, body, age_s=302),
        forge(vendor, body, age_s=-302),
    ]
    assert len(forged) == 24
    for one in forged:
        with pytest.raises(SignatureInvalid):
            receive(processor, one)


async def test_a_webhook_is_good_for_300_seconds_either_way(
    vendor: Vendor, processor: Processor, delivery: Delivery
) -> None:
    for age in (-298, -60, 0, 60, 298):
        assert receive(processor, forge(vendor, delivery[0], age_s=age)).decides
    receive(processor, delivery, late_s=290)
    with pytest.raises(SignatureInvalid):
        receive(processor, delivery, late_s=310)


async def test_two_secrets_are_live_while_one_is_rolled(vendor: Vendor, delivery: Delivery) -> None:
    rolling = vendor.provider(webhook_secret=f"new-secret-0001, {vendor.secret}")
    assert receive(rolling, delivery).decides
    assert receive(rolling, forge(vendor, delivery[0], secret="new-secret-0001")).decides
    with pytest.raises(SignatureInvalid):
        receive(rolling, forge(vendor, delivery[0], secret=f"new-secret-0001, {vendor.secret}"))
    await rolling.aclose()


async def test_without_a_webhook_secret_nothing_is_accepted(vendor: Vendor, delivery: Delivery) -> None:
    for none in (" ", ",", " , "):
        processor = vendor.provider(webhook_secret=none)
        for secret in (vendor.secret, none, none.strip() or "x"):
            with pytest.raises(SignatureInvalid):
                receive(processor, forge(vendor, delivery[0], secret=secret))
        await processor.aclose()


async def test_signed_nonsense_is_invalid_payload(vendor: Vendor, processor: Processor, delivery: Delivery) -> None:
    event = json.loads(delivery[0])
    broken: list[Any] = [[], "text", None, 5, {}, event | {"data": None}, event | {"data": {}}, event | {"id": None}]
    bodies = [b"", b"{", b"not json", *(json.dumps(b).encode() for b in broken[:-1])]
    for body in bodies:
        with pytest.raises(PayloadInvalid):
            receive(processor, forge(vendor, body))


async def test_a_stored_body_reads_as_it_did_when_it_came(processor: Processor, delivery: Delivery) -> None:
    assert processor.parse(delivery[0]) == receive(processor, delivery)


# --------------------------------------------------------------------------------------------------------- currencies
@pytest.mark.parametrize("currency", ["", "usd", "US", "USDX", "£", "XXXX"])
async def test_no_limits_for_what_is_no_currency(processor: Processor, currency: str) -> None:
    assert processor.amount_limits(currency) is None


async def test_the_smallest_amount_of_a_currency_can_be_asked_and_comes_back_exact(
    vendor: Vendor, processor: Processor
) -> None:
    for currency in ("USD", "EUR", "JPY", "KWD", "ISK", "UGX", "MGA", "HUF", "TWD", "XOF"):
        limits = processor.amount_limits(currency)
        assert limits is not None
        assert limits.maximum_minor is not None
        for amount in (limits.minimum_minor, limits.maximum_minor):
            made = await processor.create_checkout(
                order(idempotency_key=f"{currency}{amount}", amount_minor=amount, currency=currency)
            )
            told = receive(processor, await vendor.act(made.external_id, "pay"))
            read = await processor.read_checkout(made.external_id)
            assert charge(told)[1:3] == charge(read)[1:3] == (amount, currency)


async def test_events_that_the_vendor_lists_are_as_those_that_it_sends(vendor: Vendor, processor: Processor) -> None:
    made = await processor.create_checkout(order())
    sent = receive(processor, await vendor.act(made.external_id, "pay"))
    listed = await processor.list_events(datetime.now(UTC) - timedelta(days=1))
    for event in listed:
        assert processor.parse(event.raw) == dataclasses.replace(event, raw=b"")
    assert [dataclasses.replace(e, raw=b"") for e in listed if e.external_id == sent.external_id] in ([], [sent])
