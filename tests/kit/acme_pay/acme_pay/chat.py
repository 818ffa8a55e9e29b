"""Acme Chat: sends a text, and reads Acme's signed callbacks. Stores nothing.

Source: the API of Acme Chat, version 1, as checks/fake_acme.py answers it (Acme is invented).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final

import httpx2

from integrations.base import (
    Channel,
    ChannelKind,
    ChannelLimits,
    ChannelWebhook,
    DeliveryStatus,
    Environment,
    InboundMessage,
    IntegrationError,
    OutboundMessage,
    PayloadInvalid,
    SendResult,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
)
from integrations.sms import opt_out_word

NAME: Final = "acme_chat"
ADDRESS: Final = "https://api.acme-chat.example"
SIGNATURE_HEADER: Final = "acme-signature"
LONGEST: Final = 500

STATES: Final[Mapping[str, DeliveryStatus]] = {
    "taken": DeliveryStatus.SENT,
    "arrived": DeliveryStatus.DELIVERED,
    "seen": DeliveryStatus.READ,
    "lost": DeliveryStatus.FAILED,
}
REFUSALS: Final[Mapping[int, tuple[str, bool]]] = {  # HTTP status -> reason, retryable
    401: ("authentication_failed", False),
    403: ("opted_out", False),
    404: ("recipient_unavailable", False),
    429: ("rate_limited", True),
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """`bot` is its public name at Acme."""

    bot: str
    token: str = field(repr=False)
    signing_secret: str = field(repr=False)


class AcmeChat(Channel):
    """One bot of Acme Chat."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Acme Chat"
    kinds: ClassVar[tuple[ChannelKind, ...]] = (ChannelKind.CUSTOM,)
    credentials: ClassVar[type[Any]] = Credentials

    def __init__(self, credentials: Credentials, *, kind: ChannelKind, environment: Environment) -> None:
        if kind not in self.kinds:
            raise ValueError(f"{NAME} does not serve {kind}")
        self._credentials = credentials
        self._timeout_s = environment.timeout_s
        self._base = environment.base_addresses.get(NAME, ADDRESS)
        self._headers = {"authorization": f"Bearer {credentials.token}", "content-type": "application/json"}
        self._client = httpx2.AsyncClient(timeout=environment.timeout_s, trust_env=False)

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        """500 characters; written to within two days of the contact's last message; twenty a second."""
        return ChannelLimits(max_length=LONGEST, window_hours=48, messages_per_s=20)

    # ------------------------------------------------------------------------------------------------------- calls
    async def check(self) -> str | None:
        """The bot whose token it is."""
        return str((await self._call("GET", "/v1/me", reading=True))["bot"])

    async def send(self, message: OutboundMessage) -> SendResult:
        """One call, at most once. Acme keeps our attempt's id, so that `look_up` finds it."""
        if not message.body.strip():
            raise IntegrationError(NAME, "empty_message", "The text is empty.")
        if len(message.body) > LONGEST:
            raise IntegrationError(NAME, "too_long", f"Over {LONGEST} characters.")
        body = {"to": message.to, "text": message.body, "mark": message.attempt_id}
        made = await self._call("POST", "/v1/messages", body=body)
        return SendResult(external_id=str(made["id"]), status=STATES[made["state"]])

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """The message that an attempt without an answer made, if it made one."""
        found = (await self._call("GET", f"/v1/messages?mark={message.attempt_id}", reading=True))["messages"]
        if len(found) != 1:
            return None
        return StatusUpdate(external_id=str(found[0]["id"]), status=STATES[found[0]["state"]])

    async def aclose(self) -> None:
        """Close the connections to Acme."""
        await self._client.aclose()

    async def _call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, reading: bool = False
    ) -> dict[str, Any]:
        content = json.dumps(body).encode() if body is not None else None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.request(method, self._base + path, headers=self._headers, content=content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # Nothing left us.
            raise IntegrationError(NAME, "connection", type(error).__name__, retryable=True) from error
        except (TimeoutError, httpx2.HTTPError) as error:
            raise IntegrationError(NAME, "timeout", retryable=reading, ambiguous=not reading) from error
        if answer.status_code >= 500:
            raise IntegrationError(NAME, "server_error", retryable=reading, ambiguous=not reading)
        if answer.status_code >= 400:
            reason, retryable = REFUSALS.get(answer.status_code, ("refused", False))
            raise IntegrationError(NAME, reason, retryable=retryable, code=str(answer.status_code))
        try:
            return dict(json.loads(answer.content))
        except (TypeError, ValueError) as error:
            raise IntegrationError(NAME, "unexpected_answer", ambiguous=not reading) from error

    # --------------------------------------------------------------------------------------------------- callbacks
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Verify the HMAC-SHA256 over the raw body, then parse. Acme signs no time."""
        expected = sign(self._credentials.signing_secret, request.body).encode()
        if not hmac.compare_digest(expected, request.headers.get(SIGNATURE_HEADER, "").encode()):
            raise SignatureInvalid(NAME)
        try:
            told = json.loads(request.body)
            if told["type"] == "state":
                return ChannelWebhook(statuses=(_status(told),))
            if told["type"] == "text":
                return ChannelWebhook(messages=(_inbound(told),))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PayloadInvalid(NAME, "unexpected_shape", type(error).__name__) from error
        raise PayloadInvalid(NAME, "unknown_type")


def sign(secret: str, body: bytes) -> str:
    """The signature header's value."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _status(told: Mapping[str, Any]) -> StatusUpdate:
    status = STATES[told["state"]]
    failed = status is DeliveryStatus.FAILED
    return StatusUpdate(
        external_id=_text(told, "id"),
        status=status,
        error_code=_text(told, "reason") if failed else None,
        error_message="Acme could not deliver it." if failed else None,
        occurred_at=datetime.fromisoformat(told["at"]),
    )


def _inbound(told: Mapping[str, Any]) -> InboundMessage:
    text = _text(told, "text")
    return InboundMessage(
        external_id=_text(told, "id"),
        sender=_text(told, "from"),
        body=text,
        opt_out=opt_out_word(text),
        occurred_at=datetime.fromisoformat(told["at"]),
    )


def _text(thing: Mapping[str, Any], name: str) -> str:
    value = thing[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not a text")
    return value
