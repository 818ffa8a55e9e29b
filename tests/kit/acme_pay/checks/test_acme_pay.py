"""Acme Pay passes Paythread's suite for processors."""

from contextlib import AsyncExitStack
from datetime import datetime

import pytest
from acme_pay.payments import SIGNATURE_HEADER, AcmePay, Credentials
from fake_acme import API_KEY, WEBHOOK_SECRET, FakeAcmePay, signed

from integrations.base import Environment, Processor
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
    amount = b"125.00"
    holds = "order"
    currencies = ("USD", "EUR", "JPY", "KWD")

    async def start(self, stack: AsyncExitStack) -> None:
        self.acme = await stack.enter_async_context(FakeAcmePay())

    def made(self, url: str, key: str, secret: str, timeout_s: float) -> Processor:
        addresses = {"acme_pay": url}
        environment = Environment(public_url=url, sandbox_url=url, base_addresses=addresses, timeout_s=timeout_s)
        return AcmePay(
            Credentials(key, secret), environment=environment, webhook_url="https://x.test/webhooks/acme_pay/1"
        )

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

    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        return signed(body, secret, at)


@pytest.fixture
def harness() -> AcmePayHarness:
    return AcmePayHarness()
