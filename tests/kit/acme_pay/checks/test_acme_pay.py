"""Acme Pay passes Paythread's suite for processors."""

from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

import pytest
from acme_pay.payments import SIGNATURE_HEADER, AcmePay
from fake_acme import API_KEY, PAGE, WEBHOOK_SECRET, FakeAcmePay, signed

from integrations.base import Processor
from integrations.kit.processors import *  # noqa: F403 (the suite)
from integrations.kit.processors import Delivery, Outcome, ProcessorHarness
from integrations.kit.vendor import FailureMode


class AcmePayHarness(ProcessorHarness):
    processor = AcmePay
    secret = WEBHOOK_SECRET
    signature_header = SIGNATURE_HEADER
    origin = "https://pay.acme-pay.example"
    known_shape = "ord_000001"
    unknown_id = "ord_999999"
    page_size = PAGE
    test_keys = {"api_key": "acme_test_0001"}
    live_keys = {"api_key": "acme_live_0001"}

    async def start(self, stack: AsyncExitStack) -> None:
        self.acme = await stack.enter_async_context(FakeAcmePay())

    def made(self, url: str, key: str, secret: str, timeout_s: float) -> Processor:
        cls: Any = self.processor
        environment = self.environment(url, timeout_s)
        webhook_url = "https://x.test/webhooks/acme_pay/1"
        return cls(cls.credentials(key, secret), environment=environment, webhook_url=webhook_url)  # type: ignore[no-any-return]

    def provider(
        self, *, secret_key: str | None = None, webhook_secret: str | None = None, timeout_s: float = 10
    ) -> Processor:
        return self.made(self.acme.url, secret_key or API_KEY, webhook_secret or self.secret, timeout_s)

    def unreachable(self) -> Processor:
        return self.made("http://127.0.0.1:9", API_KEY, self.secret, 10)

    def fail_next(self, mode: FailureMode) -> None:
        self.acme.fail_next(mode)

    async def checkouts(self) -> int:
        return len(self.acme.orders)

    async def act(self, external_id: str, outcome: Outcome) -> Delivery:
        match outcome:
            case "pay":
                return self.acme.pay(external_id, "done")
            case "decline":
                return self.acme.pay(external_id, "declined", reason="card_expired")
            case "delay":
                return self.acme.pay(external_id, "clearing")
            case "settle":
                return self.acme.settle(external_id, "done")
            case "fail":
                return self.acme.settle(external_id, "bounced")

    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        return self.acme.refund_by_hand(external_id, f"{amount_minor // 100}.{amount_minor % 100:02d}")

    async def delay_refunds(self) -> None:
        self.acme.slow_refunds = True

    async def settle_refund(self, refund_id: str, *, arrives: bool) -> Delivery:
        return self.acme.settle_refund(refund_id, "done" if arrives else "bounced")

    async def dispute(self, external_id: str) -> Delivery:
        return self.acme.dispute(external_id, "open")

    async def end_dispute(self, external_id: str, *, won: bool) -> Delivery:
        return self.acme.dispute(external_id, "won" if won else "lost")

    async def lapse(self, external_id: str) -> None:
        self.acme.orders[external_id]["state"] = "lapsed"

    def age_keys(self, seconds: float) -> None:
        self.acme.age_keys(seconds)

    async def strange(self, external_id: str) -> Delivery:
        return self.acme.pay(external_id, "held_for_review")

    def sent(self) -> str:
        return "".join(f"{call.path} {call.body.decode()}" for call in self.acme.calls)

    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        return signed(body, secret, at)


@pytest.fixture
def harness() -> AcmePayHarness:
    return AcmePayHarness()
