"""A processor whose vendor puts several notifications into one webhook passes the suite."""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import count
from typing import Any

import pytest
from acme_pay.batches import AcmeBatches
from acme_pay.payments import sign
from fake_acme import API_KEY, BASIC, WEBHOOK_SECRET
from test_acme_pay import AcmePayHarness

from integrations.kit.processors import *  # noqa: F403 (the suite)
from integrations.kit.processors import Delivery, Outcome
from integrations.kit.vendor import FailureMode


class AcmeBatchesHarness(AcmePayHarness):
    processor = AcmeBatches
    checks_any_body = False
    currencies = ("USD",)
    numbers = count(1)

    def at(self, external_id: str) -> Delivery:
        one = {"number": next(self.numbers), "order": external_id, "sent_at": 0, "state": "changed"}
        return self.signed(json.dumps({"notifications": [one]}).encode(), WEBHOOK_SECRET, datetime.now(UTC))

    def signed(self, body: bytes, secret: str, at: datetime) -> tuple[bytes, dict[str, str]]:
        payload: dict[str, Any] = json.loads(body)
        signed_part = sys.modules[self.processor.__module__].signed_part  # as the author thinks that Acme signs
        notifications = payload.get("notifications")
        for one in notifications if isinstance(notifications, list) else []:
            stamp = int(at.timestamp())
            one |= {"sent_at": stamp}
            one["signature"] = sign(secret, str(stamp), signed_part(one))
        return json.dumps(payload).encode(), {}

    def with_signature(self, delivery: Delivery, *signatures: Any) -> list[Delivery]:
        found: list[Delivery] = []
        for signature in signatures:
            payload = json.loads(delivery[0])
            payload["notifications"][0]["signature"] = signature
            found.append((json.dumps(payload).encode(), {}))
        return found

    def forged(self, delivery: Delivery) -> list[Delivery]:
        good = json.loads(delivery[0])["notifications"][0]["signature"]
        return self.with_signature(delivery, "0" * 64, good[:-1], good + "0", good.upper() + "x", "é" + good[1:])

    def unsigned(self, delivery: Delivery) -> list[Delivery]:
        return self.with_signature(delivery, None, "", 7, [])

    def batch(self, deliveries: Sequence[Delivery]) -> Delivery:
        notifications = [one for delivery in deliveries for one in json.loads(delivery[0])["notifications"]]
        return json.dumps({"notifications": notifications}).encode(), {}

    def odd_event(self) -> Delivery:
        return self.at("subscription_77")

    async def pay_in_parts(self, external_id: str, amounts_minor: Sequence[int]) -> Delivery:
        for amount in amounts_minor:
            self.acme.pay(external_id, "done", total=f"{amount // 100}.{amount % 100:02d}")
        return self.at(external_id)

    def give_tokens(self, life_s: float) -> None:
        self.acme.token_life_s = life_s

    def fail_next_token(self, mode: FailureMode) -> None:
        self.acme.fail_next(mode, match=self.acme.is_prelude)

    def secrets(self) -> list[str]:
        return [BASIC, API_KEY, *self.acme.tokens]

    async def act(self, external_id: str, outcome: Outcome) -> Delivery:
        await super().act(external_id, outcome)
        return self.at(external_id)

    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        await super().refund(external_id, amount_minor)
        return self.at(external_id)

    async def settle_refund(self, refund_id: str, *, arrives: bool) -> Delivery:
        await super().settle_refund(refund_id, arrives=arrives)
        return self.at(next(iter(self.acme.orders)))

    async def dispute(self, external_id: str) -> Delivery:
        await super().dispute(external_id)
        return self.at(external_id)

    async def end_dispute(self, external_id: str, *, won: bool) -> Delivery:
        await super().end_dispute(external_id, won=won)
        return self.at(external_id)

    async def strange(self, external_id: str) -> Delivery:
        await super().strange(external_id)
        return self.at(external_id)


@pytest.fixture
def harness() -> AcmeBatchesHarness:
    return AcmeBatchesHarness()
