"""Acme Pay of a third shape: one webhook tells several notifications, each signed inside the body over a few of its fields."""

from __future__ import annotations

import dataclasses
import hmac
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar

from acme_pay.payments import TOLERANCE_S, AcmePay, sign
from integrations.base import Capabilities, PayloadInvalid, ProcessorWebhook, SignatureInvalid, WebhookProof


class AcmeBatches(AcmePay):
    """One merchant of Acme Pay, of that shape."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        webhook_proof=WebhookProof.PARTS,
        webhook_batches=True,
        webhooks_decide=False,
        pending_refunds=True,
        key_life_s=3600,
    )

    async def verify_webhook(
        self, body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str] | None = None
    ) -> list[ProcessorWebhook]:
        """Each notification with its own signature. One that can't be read is left out, one that is forged refuses all."""
        if not self._secrets:
            raise SignatureInvalid(self.name, "no_webhook_secret")
        try:
            notifications = json.loads(body)["notifications"]
            signed = [(one, signed_part(one), re.fullmatch(r"[0-9a-f]{64}", one["signature"])) for one in notifications]
        except (KeyError, TypeError, ValueError) as error:
            raise SignatureInvalid(self.name, "signature_malformed") from error
        told: list[ProcessorWebhook] = []
        for one, part, given in signed:
            stamp = str(one["sent_at"])
            if given is None or not any(hmac.compare_digest(sign(key, stamp, part), given[0]) for key in self._secrets):
                raise SignatureInvalid(self.name)
            if abs(now.timestamp() - int(stamp)) > TOLERANCE_S:
                raise SignatureInvalid(self.name, "signature_stale")
            raw = json.dumps(one).encode()
            try:
                told.append(dataclasses.replace(self.parse(raw), raw=raw))
            except PayloadInvalid:
                continue
        return told

    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Nothing: a body has several."""
        raise SignatureInvalid(self.name, "ask_verify_webhook")

    def parse(self, body: bytes) -> ProcessorWebhook:
        """One notification: which order to read. Its state and its number are not signed."""
        try:
            one = json.loads(body)
            if not re.fullmatch(r"ord_\d+", one["order"]):
                raise PayloadInvalid(self.name, "unexpected_shape")
            return ProcessorWebhook(external_id=None, type="order", checkout_external_id=one["order"])
        except (KeyError, TypeError, ValueError) as error:
            raise PayloadInvalid(self.name, "unexpected_shape", type(error).__name__) from error


def signed_part(notification: Mapping[str, Any]) -> bytes:
    """What is signed beside the time. Raises: KeyError, ValueError."""
    if type(notification["sent_at"]) is not int or not isinstance(notification["order"], str):
        raise ValueError("not a notification")
    return notification["order"].encode()
