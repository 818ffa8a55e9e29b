"""Every built-in processor passes the kit's suite; here are the fake vendors."""

from __future__ import annotations

import base64
import inspect
import json
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from integrations import registry
from integrations.base import (
    CheckoutStatus,
    Environment,
    Processor,
)
from integrations.kit.processors import *  # noqa: F403 (the suite)
from integrations.kit.processors import REFERENCE, Delivery, NotPayable, Outcome, ProcessorHarness
from integrations.kit.vendor import FailureMode
from integrations.processors import paypal, sandbox, square, stripe
from models.database import open_database
from models.tables import SandboxCheckout
from services.sandbox import refunds
from services.sandbox import webhooks as sandbox_webhooks
from tests.contracts import paypal_server, sandbox_home, square_server, stripe_contract, stripe_server


class Vendor(ProcessorHarness):
    def __init__(self, database: Path) -> None:
        self._database = database


class StripeVendor(Vendor):
    processor = stripe.Stripe
    public = frozenset({"account", "webhook_endpoint_id"})
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

    async def delay_refunds(self) -> None:
        self.server.refund_status = "pending"

    async def settle_refund(self, refund_id: str, *, arrives: bool) -> Delivery:
        return self.server.webhook(self.server.settle_refund(refund_id, status="succeeded" if arrives else "failed"))

    async def dispute(self, external_id: str) -> Delivery:
        return self.server.webhook(self.server.dispute(external_id))

    async def end_dispute(self, external_id: str, *, won: bool) -> Delivery:
        return self.server.webhook(self.server.dispute(external_id, status="won" if won else "lost"))

    async def lapse(self, external_id: str) -> None:
        self.server.expire(external_id)

    def sent(self) -> str:
        return "".join(call.raw_body.decode() for call in self.server.calls)

    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        return {self.signature_header: stripe_server.sign(body, secret, int(at.timestamp()))}


class SandboxVendor(Vendor):
    processor = sandbox.Sandbox
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
            if (await self.home.press(external_id, action)).status_code != 303:
                raise NotPayable(external_id)
        (delivery,) = await self.home.deliver()
        return delivery

    delayed = "pay_later"
    made = 0

    def will_fail(self) -> None:
        self.delayed = "pay_later_fail"

    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        row = await SandboxCheckout.get(external_id=external_id)
        body = {"payment": row.payments[-1]["id"], "amount_minor": amount_minor}
        self.made += 1
        await refunds.refund(self.home.connection, external_id, f"made-by-hand-{self.made}", body)
        (delivery,) = await self.home.deliver()
        return delivery

    async def dispute(self, external_id: str) -> Delivery:
        return await self.disputed(external_id, "needs_response")

    async def end_dispute(self, external_id: str, *, won: bool) -> Delivery:
        return await self.disputed(external_id, "won" if won else "lost")

    async def disputed(self, external_id: str, status: str) -> Delivery:
        row = await SandboxCheckout.get(external_id=external_id)
        payment = row.payments[-1]
        money = {name: payment[name] for name in ("amount_minor", "currency")}
        money["created_at"] = datetime.now(UTC).isoformat()
        dispute = {"id": "sbx_dp_1", "payment": payment["id"], "status": status, **money}
        event = {"id": f"sbx_evt_{status}", "type": "dispute", "created_at": payment["created_at"]}
        checkout = {"id": external_id, "status": "completed", "request_reference": row.request_reference}
        body = json.dumps(event | {"data": {"checkout": checkout, "payment": None, "dispute": dispute}}).encode()
        return body, self.sign(body, self.secret, datetime.now(UTC))

    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        return {self.signature_header: sandbox_webhooks.signed(secret, body, at=at)}


class PayPalVendor(Vendor):
    processor = paypal.PayPal
    public = frozenset({"mode"})
    secret = paypal_server.WEBHOOK_ID
    rolled_secret = paypal_server.OTHER_WEBHOOK_ID
    signature_header = "paypal-transmission-sig"
    origin = "https://www.sandbox.paypal.com"
    known_shape = "5O190127TN364715T"
    checks_any_body = False
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

    def fail_next_token(self, mode: FailureMode) -> None:
        self.server.fail_next(mode, match=lambda call: call.path == paypal_server.TOKEN_PATH)

    def secrets(self) -> list[str]:
        basic = base64.b64encode(f"{paypal_server.CLIENT_ID}:{paypal_server.CLIENT_SECRET}".encode()).decode()
        return [basic, paypal_server.CLIENT_SECRET, *self.server.tokens]

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
        if waiting.status is not CheckoutStatus.OPEN:
            raise NotPayable(external_id)
        done = await self.buyer.complete_checkout(external_id, idempotency_key=f"{external_id}:capture")
        assert (waiting.awaits_completion, done.status) == (True, status)
        return self.server.webhook(self.server.capture_event(external_id))

    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        amount = {"currency_code": "USD", "value": f"{amount_minor // 100}.{amount_minor % 100:02d}"}
        refund = self.server.refund_now(external_id, amount, custom_id=REFERENCE)
        return self.server.webhook(self.server.event("PAYMENT.CAPTURE.REFUNDED", "refund", refund))

    async def delay_refunds(self) -> None:
        self.server.refund_status = "PENDING"

    async def settle_refund(self, refund_id: str, *, arrives: bool) -> Delivery:
        refund = self.server.refunds[refund_id]
        refund["status"] = "COMPLETED" if arrives else "FAILED"
        return self.server.webhook(self.server.event("PAYMENT.CAPTURE.REFUNDED", "refund", refund))

    async def dispute(self, external_id: str) -> Delivery:
        return self.disputed(external_id, "WAITING_FOR_SELLER_RESPONSE", {})

    async def end_dispute(self, external_id: str, *, won: bool) -> Delivery:
        code = "RESOLVED_SELLER_FAVOUR" if won else "RESOLVED_BUYER_FAVOUR"
        return self.disputed(external_id, "RESOLVED", {"dispute_outcome": {"outcome_code": code}})

    def disputed(self, external_id: str, status: str, more: dict[str, Any]) -> Delivery:
        capture = self.server.capture_of(external_id)
        dispute = {
            "dispute_id": "PP-D-27803",
            "disputed_transactions": [{"seller_transaction_id": capture["id"]}],
            "reason": "UNAUTHORISED",
            "status": status,
            "dispute_amount": capture["amount"],
            "update_time": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        return self.server.webhook(self.server.event("CUSTOMER.DISPUTE.UPDATED", "dispute", dispute | more))

    def sent(self) -> str:
        return "".join(call.raw_body.decode() for call in self.server.calls)

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
    processor = square.Square
    public = frozenset({"location_id", "mode", "webhook_subscription_id", "currency"})
    secret = square_server.SIGNATURE_KEY
    rolled_secret = "rolled_signature_key"
    signature_header = square.SIGNATURE_HEADER
    origin = "https://sandbox.square.link"
    known_shape = "PKVT6XGJZXYUP3NZ.o4b7saqp4HzhNttf5AJxC0Srjd4F"
    unknown_id = "unknown.unknown"
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

    async def delay_refunds(self) -> None: ...

    async def settle_refund(self, refund_id: str, *, arrives: bool) -> Delivery:
        status = "COMPLETED" if arrives else "FAILED"
        return self.server.webhook(self.server.settle_refund(refund_id, status=status))

    async def dispute(self, external_id: str) -> Delivery:
        return self.disputed(external_id, "EVIDENCE_REQUIRED")

    async def end_dispute(self, external_id: str, *, won: bool) -> Delivery:
        return self.disputed(external_id, "WON" if won else "LOST")

    def disputed(self, external_id: str, state: str) -> Delivery:
        payment = self.server.payment_of(external_id.split(".")[1])
        dispute = {
            "id": "bVTprrwk0gygTLZ96VX1oB",
            "amount_money": payment["total_money"],
            "reason": "NO_KNOWLEDGE",
            "state": state,
            "updated_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "disputed_payment": {"payment_id": payment["id"]},
        }
        return self.server.webhook(self.server.event("dispute.state.updated", "dispute", dispute))

    def sent(self) -> str:
        return "".join(call.raw_body.decode() for call in self.server.calls)

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
    return Path(shutil.copyfile(sqlite_template, tmp_path / "vendor.db"))


@pytest.fixture(params=registry.built_in("processors"))
def harness(request: pytest.FixtureRequest, database_file: Path) -> Vendor:
    return VENDORS[request.param](database_file)


def test_every_processor_has_a_vendor_to_be_tested_against() -> None:
    assert sorted(VENDORS) == registry.built_in("processors")


@pytest.mark.parametrize("name", registry.built_in("processors"))
def test_a_processor_stands_in_the_file_of_its_name(name: str) -> None:
    module = inspect.getmodule(registry.processor_class(name))
    assert module is not None
    assert module.__name__ == f"integrations.processors.{name}"
    assert VENDORS[name].processor is registry.processor_class(name)
