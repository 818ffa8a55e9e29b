"""A processor whose vendor signs an id in the webhook's address but not the body, and accepts partial payments."""

import dataclasses
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from acme_pay.payments import TOLERANCE_S, AcmePay, sign
from fake_acme import WEBHOOK_SECRET
from test_acme_pay import AcmePayHarness

from integrations.base import Capabilities, PayloadInvalid, ProcessorWebhook, SignatureInvalid, WebhookProof
from integrations.kit.processor_harness import *  # noqa: F403 (its fixtures)
from integrations.kit.processor_harness import Delivery, Outcome
from integrations.kit.processor_money import test_a_checkout_paid_in_parts_tells_each_part_and_all_of_them  # noqa: F401
from integrations.kit.processor_webhooks import *  # noqa: F403 (this part of the suite)

HEADER = "acme-id-signature"


class AcmeParts(AcmePay):
    capabilities: ClassVar[Capabilities] = Capabilities(
        webhook_proof=WebhookProof.PARTS,
        webhooks_decide=False,
        partial_captures=True,
        pending_refunds=True,
        key_life_s=3600,
    )

    async def verify_webhook(
        self, body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str] | None = None
    ) -> ProcessorWebhook:
        """Verify the address's id and the time. The body is not used."""
        named = (query or {}).get("order", "")
        if not self._secrets:
            raise SignatureInvalid(self.name, "no_webhook_secret")
        given = re.fullmatch(r"t=(\d{1,12}),v1=([0-9a-f]{64})", headers.get(HEADER, ""), re.ASCII)
        if given is None or abs(now.timestamp() - int(given[1])) > TOLERANCE_S:
            raise SignatureInvalid(self.name)
        if not any(hmac.compare_digest(sign(one, given[1], named.encode()), given[2]) for one in self._secrets):
            raise SignatureInvalid(self.name)
        raw = json.dumps({"order": named}).encode()
        return dataclasses.replace(self.parse(raw), raw=raw)

    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Nothing without the address."""
        raise SignatureInvalid(self.name, "ask_verify_webhook")

    def parse(self, body: bytes) -> ProcessorWebhook:
        """Parse the `raw` of `verify_webhook`."""
        try:
            named = json.loads(body)["order"]
        except (ValueError, KeyError, TypeError) as error:
            raise PayloadInvalid(self.name, "unexpected_shape") from error
        return ProcessorWebhook(external_id=None, type="order", checkout_external_id=named)


class AcmePartsHarness(AcmePayHarness):
    processor = AcmeParts
    signature_header = HEADER
    checks_any_body = False
    named = ""

    def at(self, external_id: str) -> Delivery:
        self.named = external_id
        return b"{}", self.sign(b"{}", WEBHOOK_SECRET, datetime.now(UTC)), {"order": external_id}

    def sign(self, body: bytes, secret: str, at: datetime) -> dict[str, str]:
        stamp = str(int(at.timestamp()))
        return {HEADER: f"t={stamp},v1={sign(secret, stamp, self.named.encode())}"}

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

    async def pay_in_parts(self, external_id: str, amounts_minor: Sequence[int]) -> Delivery:
        for amount in amounts_minor:
            self.acme.pay(external_id, "done", total=f"{amount // 100}.{amount % 100:02d}")
        return self.at(external_id)


@pytest.fixture
def harness() -> AcmePartsHarness:
    return AcmePartsHarness()
