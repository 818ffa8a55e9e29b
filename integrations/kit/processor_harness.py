"""The author's harness, the suite's fixtures, and the report of untested parts."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal, TypeVar

import pytest
import pytest_asyncio

from integrations.base import (
    Capabilities,
    Checkout,
    CheckoutOrder,
    Environment,
    IntegrationError,
    MoneyKind,
    MoneyStatement,
    Processor,
    ProcessorWebhook,
    RefundOrder,
    RefundReason,
)
from integrations.kit.vendor import FailureMode

Outcome = Literal["pay", "decline", "delay", "settle", "fail"]
# Raw body, headers with lower-case names, and the address's parameters where the vendor sends any.
Delivery = tuple[bytes, dict[str, str]] | tuple[bytes, dict[str, str], dict[str, str]]
REFERENCE = "pr_01hzx5p4qk8v6m2n3c7t9w0yfd"
RETURN_URL = "https://pay.example.test/p/token/return"
EMAIL = "dana+pay@example.test"
USUAL_MINOR = 12500
BLOCKED_S = 20  # after this time without a turn, the event loop counts as blocked
# Currencies with every number of decimals, and those for which vendors deviate from ISO 4217.
_TRIED = (
    "USD EUR GBP JPY KWD ISK UGX MGA HUF TWD XOF CHF BRL AUD CAD INR MXN KRW CLP VND BHD TND PLN SEK NGN ZAR IDR AED ARS BDT"
    " COP CZK DKK EGP GHS HKD ILS KES MAD MYR NOK NZD OMR PEN PHP PKR QAR RON SAR SGD THB TRY TZS UAH UYU"
)
TRIED = tuple(_TRIED.split())
TRIED_AT_MOST = 12


class NotPayable(Exception):
    """Raised by a harness: this checkout can no longer be paid."""


class NotSupplied(Exception):
    """The harness does not supply this."""


class LoopBlocked(Exception):
    """The provider blocked the event loop."""


class ProcessorHarness(ABC):
    """A fake vendor of one connection, with its payers and banks."""

    processor: ClassVar[type[Processor]]  # the class under test
    public: ClassVar[frozenset[str]] = frozenset()  # fields of its credentials that are not secret

    secret = ""  # signs the webhooks of `act` and `refund`
    rolled_secret = "new-secret-0001"
    signature_header = ""
    origin: str  # of the hosted page
    checks_key = True  # whether check() calls the vendor
    known_shape = "cs_1"  # an id in the vendor's format
    unknown_id = "cs_unknown"  # an id that the vendor never issued
    method = "•••• 4242"  # the end of a payment's `method_summary`
    checks_any_body = True  # a signature over a body that is not JSON can be verified
    currencies: Sequence[str] | None = None  # None: up to twelve that `amount_limits` accepts
    page_size: int | None = None  # refunds per page, if the vendor's list has pages
    test_keys: ClassVar[Mapping[str, str]] = {}  # credentials in the vendor's format, for each mode
    live_keys: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    async def start(self, stack: AsyncExitStack) -> None: ...

    @abstractmethod
    def provider(
        self, *, secret_key: str | None = None, webhook_secret: str | None = None, timeout_s: float = 10
    ) -> Processor: ...  # None: the right secret

    @abstractmethod
    def unreachable(self) -> Processor:
        """A provider whose vendor refuses connections."""

    @abstractmethod
    def fail_next(self, mode: FailureMode) -> None:
        """Make the next call fail that is neither for a token nor a look-up."""

    @abstractmethod
    async def checkouts(self) -> int:
        """The number of checkouts."""

    @abstractmethod
    async def act(self, external_id: str, outcome: Outcome) -> Delivery:
        """Act as the payer (pay, decline, delay) or bank (settle, fail). Raises: NotPayable."""

    @abstractmethod
    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        """Refund in the vendor's dashboard."""

    def will_fail(self) -> None:  # noqa: B027 (optional to override)
        """Announce that the next delayed payment will fail."""

    # ------------------------------------------------------------- needed for what the class declares
    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        """Needed with a `webhook_proof`."""
        raise NotSupplied("sign")

    def signed(self, body: bytes, secret: str, at: datetime) -> tuple[bytes, dict[str, str]]:
        """Override this if the body contains the signature."""
        return body, self.sign(body, secret, at)

    def forged(self, delivery: Delivery) -> list[Delivery]:
        """Override this if the body contains the signature."""
        body, headers, *query = delivery
        return [(body, broken, query[0]) if query else (body, broken) for broken in self.forgeries(headers)]

    def unsigned(self, delivery: Delivery) -> list[Delivery]:
        body, headers, *query = delivery
        others = {name: value for name, value in headers.items() if name != self.signature_header}
        bare: list[dict[str, str]] = [{}, others, {**others, "authorization": "Bearer x"}]
        return [(body, without, query[0]) if query else (body, without) for without in bare]

    def calls(self) -> int:
        """The number of requests. Needed without a `webhook_proof`."""
        raise NotSupplied("calls")

    def points_at(self, external_id: str) -> Delivery:
        """An unsigned webhook that names this id. Needed without a `webhook_proof`."""
        raise NotSupplied("points_at")

    def batch(self, deliveries: Sequence[Delivery]) -> Delivery:
        """One webhook with these events. Needed for `webhook_batches`."""
        raise NotSupplied("batch")

    def odd_event(self) -> Delivery:
        """A genuine but unreadable event. Optional."""
        raise NotSupplied("odd_event")

    async def delay_refunds(self) -> None:
        """Keep refunds pending. Needed for `pending_refunds`."""
        raise NotSupplied("delay_refunds")

    async def settle_refund(self, refund_id: str, *, arrives: bool) -> Delivery:
        """Needed for `pending_refunds`."""
        raise NotSupplied("settle_refund")

    async def dispute(self, external_id: str) -> Delivery:
        """Needed for `disputes`."""
        raise NotSupplied("dispute")

    async def end_dispute(self, external_id: str, *, won: bool) -> Delivery:
        """Needed for `disputes`."""
        raise NotSupplied("end_dispute")

    async def pay_in_parts(self, external_id: str, amounts_minor: Sequence[int]) -> Delivery:
        """Needed for `partial_captures`: called for a part of the amount, then for the rest."""
        raise NotSupplied("pay_in_parts")

    # ------------------------------------------------------------- optional: each finds more mistakes
    async def lapse(self, external_id: str) -> None:
        """Let an open checkout expire."""
        raise NotSupplied("lapse")

    def give_tokens(self, life_s: float) -> None:
        """Set the life of new tokens."""
        raise NotSupplied("give_tokens")

    def fail_next_token(self, mode: FailureMode) -> None:
        raise NotSupplied("fail_next_token")

    def secrets(self) -> Sequence[str]:
        """Further texts that no error or log may contain, such as tokens."""
        return ()

    def age_keys(self, seconds: float) -> None:
        """Needed with `key_life_s`."""
        raise NotSupplied("age_keys")

    async def strange(self, external_id: str) -> Delivery:
        """Give a paid checkout an undocumented state."""
        raise NotSupplied("strange")

    def sent(self) -> str:
        """All that the provider has sent."""
        raise NotSupplied("sent")

    def forgeries(self, headers: dict[str, str]) -> list[dict[str, str]]:
        """Broken headers for a good body."""
        good = headers[self.signature_header]
        if ",v1=" not in good:
            values = [
                "",
                good[:-1],
                good[1:],
                "é" + good[1:],
                f"{good}{good}",
                "0" * len(good),
                good.swapcase(),
                "\x00",
            ]
            return [headers | {self.signature_header: value} for value in [*values, "A" * 5000, f"sha256={good}"]]
        stamp, digest = good.split(",v1=")
        values = [
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
        ]
        return [headers | {self.signature_header: value} for value in values]

    # ------------------------------------------------------------- for the suite and for authors
    @property
    def can(self) -> Capabilities:
        return self.processor.capabilities

    def environment(self, url: str, timeout_s: float = 10) -> Environment:
        addresses = {self.processor.name: url}
        return Environment(public_url=url, sandbox_url=url, base_addresses=addresses, timeout_s=timeout_s)


_harness: list[ProcessorHarness] = []  # of the running test


def taken(processor: Processor) -> list[str]:
    """The currencies that the suite tests."""
    chosen = _harness[-1].currencies
    found = [one for one in chosen or TRIED if processor.amount_limits(one) is not None]
    return found if chosen else found[:TRIED_AT_MOST]


def usual(processor: Processor) -> tuple[int, str]:
    """The usual amount in minor units, and its currency."""
    tried = taken(processor)
    assert tried, "amount_limits accepts none of the usual currencies: list accepted ones in the harness's `currencies`"
    currency = tried[0]
    limits = processor.amount_limits(currency)
    assert limits is not None
    amount = max(USUAL_MINOR, limits.minimum_minor * 20)
    return min(amount, limits.maximum_minor or amount), currency


def order(processor: Processor | None = None, **changes: Any) -> CheckoutOrder:
    amount_minor, currency = usual(processor) if processor is not None else (USUAL_MINOR, "USD")
    values: dict[str, Any] = {
        "idempotency_key": "pr_01hzx5p4qk8v6m2n3c7t9w0yfd:1",
        "request_reference": REFERENCE,
        "number": "PR-0000042",
        "product_name": "Boiler repair",
        "description": "Parts & labour, 50 % off",
        "amount_minor": amount_minor,
        "currency": currency,
        "success_url": RETURN_URL,
        "cancel_url": "https://pay.example.test/p/token",
        "customer_email": EMAIL,
        "locale": "en-US",
    }
    return CheckoutOrder(**values | changes)


def refund_order(paid: Checkout, amount_minor: int, *, key: str = f"{REFERENCE}:refund:1") -> RefundOrder:
    return RefundOrder(
        idempotency_key=key,
        request_reference=REFERENCE,
        charge_external_id=paid.money[0].external_id,
        checkout_external_id=paid.external_id,
        amount_minor=amount_minor,
        currency=paid.money[0].currency,
        reason=RefundReason.REQUESTED_BY_CONTACT,
    )


def refundable(processor: Processor) -> int:
    """A fifth of the usual charge, or all of it without `partial_refunds`."""
    return usual(processor)[0] // (5 if processor.capabilities.partial_refunds else 1)


async def error_of(call: Awaitable[object]) -> IntegrationError:
    with pytest.raises(IntegrationError) as caught:
        await call
    return caught.value


async def receive_all(processor: Processor, delivery: Delivery, *, late_s: float = 0) -> list[ProcessorWebhook]:
    """Verify a delivery as the webhook route does."""
    body, headers, *query = delivery
    now = datetime.now(UTC) + timedelta(seconds=late_s)
    events = await processor.verify_webhook(body, headers, now=now, query=query[0] if query else {})
    return [events] if isinstance(events, ProcessorWebhook) else list(events)


async def receive(processor: Processor, delivery: Delivery, *, late_s: float = 0) -> ProcessorWebhook:
    """As `receive_all`, for one event."""
    events = await receive_all(processor, delivery, late_s=late_s)
    assert len(events) == 1, "this delivery holds one event"
    return events[0]


async def learned(processor: Processor, delivery: Delivery, checkout: Checkout) -> list[MoneyStatement]:
    """The money known after this delivery and any read."""
    event = await receive(processor, delivery)
    if event.decides and event.checkout_external_id is not None:
        return list(event.money)
    read = await processor.read_checkout(checkout.external_id)
    known = {money.external_id for money in read.money}
    return [*read.money, *(money for money in event.money if money.external_id not in known)]


def charge(checkout: Checkout | ProcessorWebhook | Sequence[MoneyStatement]) -> tuple[Any, ...]:
    """The only charge: outcome, amount, currency, reference."""
    money = checkout if isinstance(checkout, Sequence) else checkout.money
    (only,) = (statement for statement in money if statement.kind is MoneyKind.CHARGE)
    return only.outcome, only.amount_minor, only.currency, only.request_reference


def charge_only(checkout: Checkout) -> list[tuple[str, Any, int]]:
    return [(m.external_id, m.outcome, m.amount_minor) for m in checkout.money if m.kind is MoneyKind.CHARGE]


async def refunds_of(processor: Processor, checkout: Checkout) -> list[MoneyStatement]:
    """The smallest first."""
    money = (await processor.read_checkout(checkout.external_id)).money
    return sorted((m for m in money if m.kind is MoneyKind.REFUND), key=lambda m: m.amount_minor)


# ------------------------------------------------------------------------------------------------------------- report
class Report:
    """Lists what was not tested."""

    def __init__(self) -> None:
        self.lines: dict[str, set[str]] = {}

    def add(self, why: str, test: str) -> None:
        self.lines.setdefault(why, set()).add(test)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if self.lines:
            terminalreporter.section("Paythread's kit: not tested")
        for why, tests in sorted(self.lines.items()):
            terminalreporter.write_line(f"{why}: {', '.join(sorted(tests))}")


REPORT = Report()
Test = TypeVar("Test", bound=Callable[..., Awaitable[None]])


def _is(declared: object, wanted: object) -> bool:
    return declared in wanted if isinstance(wanted, tuple) else declared == wanted


def needs(*names: str, **values: object) -> Callable[[Test], Test]:
    """Skip and report the test unless these capabilities are declared; a tuple means any value."""

    def wrap(test: Test) -> Test:
        @functools.wraps(test)
        async def run(*args: Any, **kwargs: Any) -> None:
            harness = _harness[-1]
            name = harness.processor.name
            wanted = dict.fromkeys(names, True) | values
            lacking = [one for one, value in wanted.items() if not _is(getattr(harness.can, one), value)]
            if lacking:
                declared = (f"{one}={getattr(harness.can, one)}" for one in lacking)
                REPORT.add(f"{name} declares {', '.join(declared)}", test.__name__)
                return
            try:
                await test(*args, **kwargs)
            except NotSupplied as missing:
                if str(missing) in REQUIRED:
                    raise
                REPORT.add(f"{name}: the harness does not supply {missing}", test.__name__)

        return run  # type: ignore[return-value]  # functools.wraps keeps the signature, which pytest reads

    return wrap


# Methods that a harness must supply if its class declares the capability.
REQUIRED = frozenset(
    {"sign", "calls", "points_at", "batch", "delay_refunds", "settle_refund", "dispute", "end_dispute", "pay_in_parts"}
)


# ----------------------------------------------------------------------------------------------------------- fixtures
async def _beat() -> None:
    while True:
        signal.setitimer(signal.ITIMER_REAL, BLOCKED_S)
        await asyncio.sleep(1)


@contextlib.asynccontextmanager
async def _watched() -> AsyncIterator[None]:
    def blocked(*_: object) -> None:
        raise LoopBlocked(f"the event loop had no turn for {BLOCKED_S} s: the provider makes a blocking call")

    if signal.getitimer(signal.ITIMER_REAL)[0]:  # pytest-timeout's
        yield
        return
    before = signal.signal(signal.SIGALRM, blocked)
    beat = asyncio.create_task(_beat())
    try:
        yield
    finally:
        beat.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest_asyncio.fixture
async def vendor(harness: ProcessorHarness, request: pytest.FixtureRequest) -> AsyncIterator[ProcessorHarness]:
    if not request.config.pluginmanager.is_registered(REPORT):
        request.config.pluginmanager.register(REPORT)
    _harness.append(harness)
    try:
        async with AsyncExitStack() as stack, _watched():
            await harness.start(stack)
            yield harness
    finally:
        _harness.pop()


@pytest_asyncio.fixture
async def processor(vendor: ProcessorHarness) -> AsyncIterator[Processor]:
    made = vendor.provider()
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def hasty(vendor: ProcessorHarness) -> AsyncIterator[Processor]:
    """A provider with a time-out of one second."""
    made = vendor.provider(timeout_s=1)
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def paid(vendor: ProcessorHarness, processor: Processor) -> Checkout:
    made = await processor.create_checkout(order(processor))
    await vendor.act(made.external_id, "pay")
    return await processor.read_checkout(made.external_id)


@pytest_asyncio.fixture
async def delivery(vendor: ProcessorHarness, processor: Processor) -> Delivery:
    """The webhook of a paid checkout."""
    made = await processor.create_checkout(order(processor))
    return await vendor.act(made.external_id, "pay")
