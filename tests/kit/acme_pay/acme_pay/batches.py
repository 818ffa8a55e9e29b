"""A variant of Acme Pay: short-lived tokens, partial payments, and webhooks with several signed notifications."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hmac
import json
import re
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any, ClassVar, Final

from acme_pay.payments import DECIMALS, TOLERANCE_S, AcmePay, Credentials, sign
from integrations.base import (
    AmountLimits,
    Capabilities,
    Environment,
    IntegrationError,
    PayloadInvalid,
    ProcessorWebhook,
    SignatureInvalid,
    WebhookProof,
)

MARGIN_S: Final = 60  # a token that ends sooner is not used any more


class AcmeBatches(AcmePay):
    """One merchant of Acme Pay, with webhooks of several events."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        webhook_proof=WebhookProof.PARTS,
        webhook_batches=True,
        webhooks_decide=False,
        partial_captures=True,
        pending_refunds=True,
        key_life_s=3600,
    )

    def __init__(self, credentials: Credentials, *, environment: Environment, webhook_url: str | None = None) -> None:
        super().__init__(credentials, environment=environment, webhook_url=webhook_url)
        self._basic = "Basic " + base64.b64encode(f"shop:{credentials.api_key}".encode()).decode()
        self._token_ends = 0.0  # time.monotonic()
        self._renewing = asyncio.Lock()

    def amount_limits(self, currency: str) -> AmountLimits | None:
        return AmountLimits() if currency in DECIMALS else None

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
        reading: bool = False,
    ) -> dict[str, Any]:
        async with self._renewing:  # one renews it for all
            if time.monotonic() >= self._token_ends:
                self._headers["authorization"] = self._basic
                # What fails here has made nothing, whatever the call itself would do.
                token = await super()._call("POST", "/v1/token", reading=True)
                try:
                    lives_s, bearer = float(token["expires_in"]), f"Bearer {token['token']}"
                except (KeyError, TypeError, ValueError) as error:
                    raise IntegrationError(self.name, "unexpected_answer", type(error).__name__) from error
                self._headers["authorization"] = bearer
                self._token_ends = time.monotonic() + lives_s - min(MARGIN_S, lives_s / 2)
        return await super()._call(method, path, body=body, key=key, reading=reading)

    async def verify_webhook(
        self, body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str] | None = None
    ) -> list[ProcessorWebhook]:
        """Verify each notification. An unreadable one is omitted; a forged one refuses the whole webhook."""
        if not self._secrets:
            raise SignatureInvalid(self.name, "no_webhook_secret")
        try:
            notifications = json.loads(body)["notifications"]
            signed = [(one, signed_part(one), re.fullmatch(r"[0-9a-f]{64}", one["signature"])) for one in notifications]
        except (KeyError, TypeError, ValueError) as error:
            raise SignatureInvalid(self.name, "signature_malformed") from error
        events: list[ProcessorWebhook] = []
        for one, part, given in signed:
            stamp = str(one["sent_at"])
            if given is None or not any(hmac.compare_digest(sign(key, stamp, part), given[0]) for key in self._secrets):
                raise SignatureInvalid(self.name)
            if abs(now.timestamp() - int(stamp)) > TOLERANCE_S:
                raise SignatureInvalid(self.name, "signature_stale")
            raw = json.dumps(one).encode()
            try:
                events.append(dataclasses.replace(self.parse(raw), raw=raw))
            except PayloadInvalid:
                continue
        return events

    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Unused: a body holds several events."""
        raise SignatureInvalid(self.name, "ask_verify_webhook")

    def parse(self, body: bytes) -> ProcessorWebhook:
        """One notification, which names the order to read. Its state and number are not signed."""
        try:
            one = json.loads(body)
            if not re.fullmatch(r"ord_\d+", one["order"]):
                raise PayloadInvalid(self.name, "unexpected_shape")
            return ProcessorWebhook(external_id=None, type="order", checkout_external_id=one["order"])
        except (KeyError, TypeError, ValueError) as error:
            raise PayloadInvalid(self.name, "unexpected_shape", type(error).__name__) from error


def signed_part(notification: Mapping[str, Any]) -> bytes:
    """The signed part beside the time. Raises: KeyError, ValueError."""
    if type(notification["sent_at"]) is not int or not isinstance(notification["order"], str):
        raise ValueError("not a notification")
    return notification["order"].encode()
