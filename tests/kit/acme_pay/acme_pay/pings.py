"""A variant of Acme Pay: unsigned webhooks that only name an order; orders live 15 minutes and cannot be canceled."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar
from urllib.parse import parse_qs

from acme_pay.payments import AcmePay
from integrations.base import Capabilities, Checkout, PayloadInvalid, ProcessorWebhook, WebhookProof


class AcmePings(AcmePay):
    """One merchant of Acme Pay, with unsigned webhooks."""

    session_life_s: ClassVar[int] = 15 * 60
    capabilities: ClassVar[Capabilities] = Capabilities(
        webhook_proof=WebhookProof.NONE,
        webhooks_decide=False,
        cancels_checkouts=False,
        delayed_payments=False,
        method_summaries=False,
        partial_refunds=False,
        pending_refunds=True,
        key_life_s=3600,
    )

    async def expire_checkout(self, external_id: str) -> Checkout:
        """Only read the order: Acme cannot cancel it."""
        return await self.read_checkout(external_id)

    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Anyone can send it, so nothing is verified or fetched, and only the id is used."""
        return self.parse(body)

    def parse(self, body: bytes) -> ProcessorWebhook:
        """Parse `id=ord_000001`, the order to read. The event has no id, so a repeat is also a hint."""
        given = parse_qs(body.decode("ascii", "replace")).get("id", [])
        if len(given) != 1 or not given[0].startswith("ord_"):
            raise PayloadInvalid(self.name, "unexpected_shape")
        return ProcessorWebhook(external_id=None, type="order", checkout_external_id=given[0])
