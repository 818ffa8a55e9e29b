"""A channel of any kind without a vendor: accepts messages and verifies its own signed callbacks.

Magic recipients, by the last characters of the address (of an email address: of its local part):

    …9901   accepted, then reported undelivered
    …9902   refused: the recipient has opted out
    …9903   accepted, never reported
    …9904   accepted, but the answer is lost (ambiguous); `look_up` finds the message

Source: none, there is no vendor; the limits are those of the channels that it simulates.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

from integrations import http_clients
from integrations.base import (
    Channel,
    ChannelKind,
    ChannelLimits,
    ChannelWebhook,
    DeliveryStatus,
    Environment,
    Feature,
    InboundMessage,
    IntegrationError,
    LengthUnit,
    OutboundMessage,
    PayloadInvalid,
    SendResult,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
)
from integrations.sms import opt_out_word

NAME = "simulated"
SIGNATURE_HEADER = "Paythread-Simulator-Signature"
TOLERANCE_S = 300

STATES: Mapping[str, DeliveryStatus] = {
    "accepted": DeliveryStatus.SENT,
    "sent": DeliveryStatus.SENT,
    "delivered": DeliveryStatus.DELIVERED,
    "read": DeliveryStatus.READ,
    "undelivered": DeliveryStatus.FAILED,
}
_WORDS: Mapping[DeliveryStatus, str] = {
    DeliveryStatus.SENT: "sent",
    DeliveryStatus.DELIVERED: "delivered",
    DeliveryStatus.READ: "read",
    DeliveryStatus.FAILED: "undelivered",
}

UNDELIVERABLE = "9901"
OPTED_OUT = "9902"
SILENT = "9903"
ANSWER_LOST = "9904"

# The real channels' limits, so that what is accepted here fits them too.
LIMITS: Mapping[ChannelKind, ChannelLimits] = {
    ChannelKind.SMS: ChannelLimits(max_length=1600),
    ChannelKind.EMAIL: ChannelLimits(needs_subject=True, max_cc=20),
    ChannelKind.WHATSAPP: ChannelLimits(max_length=1600, window_hours=24, link_preview=True, templates=True),
    ChannelKind.INSTAGRAM_DM: ChannelLimits(
        max_length=1000, length_unit=LengthUnit.BYTES, window_hours=24, link_preview=True
    ),
    ChannelKind.MESSENGER: ChannelLimits(max_length=2000, window_hours=24, link_preview=True),
    ChannelKind.WEB_CHAT: ChannelLimits(max_length=4000),
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The secret that signs this connection's callbacks."""

    secret: str = field(repr=False)


class Simulated(Channel):
    """One simulated connection of one kind."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Simulator"
    kinds: ClassVar[tuple[ChannelKind, ...]] = tuple(LIMITS)
    credentials: ClassVar[type[Any]] = Credentials
    features: ClassVar[frozenset[Feature]] = frozenset(
        {Feature.SIGNED_BODY, Feature.DELIVERED, Feature.READ, Feature.FAILED, Feature.LOOK_UP}
    )

    def __init__(self, credentials: Credentials, *, kind: ChannelKind, environment: Environment) -> None:
        if kind not in self.kinds:
            raise ValueError(f"{NAME} does not serve {kind}")
        self._credentials = credentials
        self._kind = kind

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        return LIMITS[kind]

    async def send(self, message: OutboundMessage) -> SendResult:
        """Raises: IntegrationError (too_long, empty_message, subject_required, opted_out, or ambiguous)."""
        limits = self.limits(self._kind)
        if not message.body.strip():
            raise IntegrationError(NAME, "empty_message", "The message is empty.", code="empty_message")
        if limits.max_length is not None and limits.length_of(message.body) > limits.max_length:
            raise IntegrationError(
                NAME, "too_long", f"The message is longer than {limits.max_length}.", code="too_long"
            )
        if limits.needs_subject and not message.subject:
            raise IntegrationError(NAME, "subject_required", "An email needs a subject.", code="subject_required")
        ending = _ending(message.to)
        if ending == OPTED_OUT:
            raise IntegrationError(NAME, "opted_out", "The recipient has opted out.", code="opted_out")
        if ending == ANSWER_LOST:
            raise IntegrationError(NAME, "timeout", "The simulated answer was lost.", ambiguous=True)
        return SendResult(external_id=external_id_of(message.attempt_id), status=STATES["accepted"])

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        if _ending(message.to) == OPTED_OUT:
            return None
        return StatusUpdate(external_id=external_id_of(message.attempt_id), status=STATES["accepted"])

    async def check(self) -> str | None:
        return None

    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Verify and parse one callback. Raises: SignatureInvalid, PayloadInvalid.

        Status: `{"type": "message.status", "message_id", "to", "status", "error_code", "occurred_at"}`.
        Inbound: `{"type": "message.received", "message_id", "from", "text", "occurred_at"}`.
        """
        self._verify(request)
        try:
            payload = json.loads(request.body)
            kind = payload["type"]
            if kind == "message.status":
                return ChannelWebhook(statuses=(_status(payload),))
            if kind == "message.received":
                return ChannelWebhook(messages=(_inbound(payload, by_phone=self._kind in _PHONES),))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise PayloadInvalid(NAME, "payload_invalid", type(error).__name__) from error
        raise PayloadInvalid(NAME, "unknown_type", "The callback's type is unknown.")

    def _verify(self, request: WebhookRequest) -> None:
        header = request.headers.get(SIGNATURE_HEADER.lower(), "")
        if not header:
            raise SignatureInvalid(NAME, "signature_missing")
        if not self._credentials.secret:  # anyone can sign with an empty secret
            raise SignatureInvalid(NAME, "no_secret")
        parts = [part.strip().partition("=") for part in header.split(",")]
        times = [value for key, _, value in parts if key == "t"]
        given = [value for key, _, value in parts if key == "v1"]
        if len(times) != 1 or not times[0].isascii() or not times[0].isdecimal() or len(times[0]) > 12:
            raise SignatureInvalid(NAME)
        expected = _digest(self._credentials.secret, times[0], request.body).encode()
        if not any(hmac.compare_digest(expected, value.encode()) for value in given):
            raise SignatureInvalid(NAME)
        if abs(request.now.timestamp() - int(times[0])) > TOLERANCE_S:
            raise SignatureInvalid(NAME, "signature_stale")


def external_id_of(attempt_id: str) -> str:
    return "sim_" + hashlib.sha256(attempt_id.encode()).hexdigest()[:32]


def outcome_of(address: str) -> DeliveryStatus | None:
    """The final status of messages to this address; None if it is never reported."""
    return {
        UNDELIVERABLE: DeliveryStatus.FAILED,
        OPTED_OUT: DeliveryStatus.FAILED,
        SILENT: None,
    }.get(_ending(address), DeliveryStatus.DELIVERED)


def sign(secret: str, body: bytes, *, at: datetime) -> str:
    """The signature header: `t=<unix seconds>,v1=<hex>`, HMAC-SHA256 over `{t}.{raw body}`."""
    time = str(int(at.timestamp()))
    return f"t={time},v1={_digest(secret, time, body)}"


def status_body(external_id: str, to: str, status: DeliveryStatus, *, at: datetime) -> bytes:
    return _json(
        {
            "type": "message.status",
            "message_id": external_id,
            "to": to,
            "status": _WORDS[status],
            "error_code": UNDELIVERABLE if status is DeliveryStatus.FAILED else None,
            "occurred_at": at.astimezone(UTC).isoformat(),
        }
    )


def inbound_body(sender: str, text: str, *, at: datetime, external_id: str) -> bytes:
    return _json(
        {
            "type": "message.received",
            "message_id": external_id,
            "from": sender,
            "text": text,
            "occurred_at": at.astimezone(UTC).isoformat(),
        }
    )


async def call_back(*, environment: Environment, connection: str, secret: str, body: bytes, at: datetime) -> None:
    """Post a signed callback, as a vendor would. Safe to repeat.

    Raises: IntegrationError; not retryable after a 4xx.
    """
    url = f"{environment.sandbox_url}/inbound/{NAME}/{connection}"
    headers = {"Content-Type": "application/json", SIGNATURE_HEADER: sign(secret, body, at=at)}
    await asyncio.to_thread(http_clients.load_httpx2)  # for the simulator only
    import httpx2

    try:
        async with httpx2.AsyncClient(timeout=environment.timeout_s, trust_env=False) as client:
            answer = await client.post(url, content=body, headers=headers)
    except httpx2.HTTPError as error:
        raise IntegrationError(NAME, "callback_lost", type(error).__name__, retryable=True) from error
    if not answer.is_success:
        retryable = answer.status_code >= 500 or answer.status_code == 429
        raise IntegrationError(NAME, "callback_refused", f"HTTP {answer.status_code}", retryable=retryable)


def _ending(address: str) -> str:
    return address.partition("@")[0][-4:]


def _digest(secret: str, time: str, body: bytes) -> str:
    return hmac.new(secret.encode(), time.encode() + b"." + body, hashlib.sha256).hexdigest()


def _json(payload: Mapping[str, object]) -> bytes:
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def _text(payload: Mapping[str, Any], name: str) -> str:
    value = payload[name]
    if not isinstance(value, str) or not value:
        raise ValueError(name)
    return value


def _moment(payload: Mapping[str, Any]) -> datetime:
    moment = datetime.fromisoformat(_text(payload, "occurred_at"))
    if moment.tzinfo is None:
        raise ValueError("occurred_at")
    return moment


def _status(payload: Mapping[str, Any]) -> StatusUpdate:
    status = STATES[_text(payload, "status")]
    failed = status is DeliveryStatus.FAILED
    return StatusUpdate(
        external_id=_text(payload, "message_id"),
        status=status,
        error_code=_text(payload, "error_code") if failed else None,
        error_message="The simulated handset could not be reached." if failed else None,
        occurred_at=_moment(payload),
    )


_PHONES = frozenset({ChannelKind.SMS, ChannelKind.WHATSAPP})


def _inbound(payload: Mapping[str, Any], *, by_phone: bool) -> InboundMessage:
    text = payload["text"]
    if not isinstance(text, str):
        raise TypeError("text")
    return InboundMessage(
        external_id=_text(payload, "message_id"),
        sender=_text(payload, "from"),
        body=text,
        opt_out=opt_out_word(text, by_phone=by_phone),
        occurred_at=_moment(payload),
    )


provider = Simulated
