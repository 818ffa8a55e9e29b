"""Acme Chat, an invented vendor. Source: the API of Acme Chat, version 1, as checks/fake_acme.py answers it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote

import httpx2

from integrations.base import (
    Blocking,
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
    MessageChange,
    OutboundMessage,
    PayloadInvalid,
    SendResult,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
    retry_after,
)
from integrations.sms import opt_out_word

NAME: Final = "acme_chat"
ADDRESS: Final = "https://api.acme-chat.example"
SIGNATURE_HEADER: Final = "acme-signature"

TAKEN_BEFORE: Final = 409  # the mark is known: the answer is the message that it made

STATES: Final[Mapping[str, DeliveryStatus]] = {
    "taken": DeliveryStatus.SENT,
    "arrived": DeliveryStatus.DELIVERED,
    "seen": DeliveryStatus.READ,
    "lost": DeliveryStatus.FAILED,
}
OTHER_CONTENT: Final = {"place": "[a place on the map]", "sticker": "[a sticker]"}
REFUSALS: Final[Mapping[int, tuple[str, bool]]] = {  # HTTP status -> reason, retryable
    401: ("authentication_failed", False),
    403: ("opted_out", False),
    404: ("recipient_unavailable", False),
    429: ("rate_limited", True),
}
LIMITS: Final = ChannelLimits(
    max_length=500,
    length_unit=LengthUnit.UTF16_UNITS,
    window_hours=48,
    messages_per_s=20,
    recipient_messages_per_s=1,
)


@dataclass(frozen=True, slots=True)
class Credentials:
    bot: str
    token: str = field(repr=False)
    signing_secret: str = field(repr=False, default="")


class AcmeChat(Channel):
    """One bot of Acme Chat."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Acme Chat"
    kinds: ClassVar[tuple[ChannelKind, ...]] = (ChannelKind.CUSTOM,)
    credentials: ClassVar[type[Any]] = Credentials
    features: ClassVar[frozenset[Feature]] = frozenset(
        {
            Feature.SIGNED_BODY,
            Feature.DELIVERED,
            Feature.READ,
            Feature.FAILED,
            Feature.LOOK_UP,
            Feature.BATCHES,
            Feature.OTHER_EVENTS,
            Feature.SHARED_CALLBACKS,
            Feature.REGISTRATION,
            Feature.FILES,
            Feature.CAPTIONS,
            Feature.GROUPS,
            Feature.ANSWERS,
            Feature.OTHER_CONTENT,
            Feature.EDITS,
            Feature.REMOVALS,
            Feature.ECHOES,
            Feature.BLOCKS,
            Feature.DEEP_LINKS,
        }
    )

    def __init__(self, credentials: Credentials, *, kind: ChannelKind, environment: Environment) -> None:
        if kind not in self.kinds:
            raise ValueError(f"{NAME} does not serve {kind}")
        self._credentials = credentials
        self._timeout_s = environment.timeout_s
        self._base = environment.base_addresses.get(NAME, ADDRESS)
        self._headers = {"authorization": f"Bearer {credentials.token}", "content-type": "application/json"}
        self._client = httpx2.AsyncClient(timeout=environment.timeout_s, trust_env=False)

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        return LIMITS

    # ------------------------------------------------------------------------------------------------------- calls
    async def check(self) -> str | None:
        """The id of the token's bot."""
        return str((await self._call("GET", "/v1/me", reading=True)).get("bot"))

    async def send(self, message: OutboundMessage) -> SendResult:
        """Make one call. Acme stores the attempt's id, which `look_up` uses."""
        if not message.body.strip():
            raise IntegrationError(NAME, "empty_message", "The text is empty.")
        if LIMITS.length_of(message.body) > (LIMITS.max_length or 0):
            raise IntegrationError(NAME, "too_long", f"Over {LIMITS.max_length} characters.")
        body = {"chat": message.to, "text": message.body, "mark": message.attempt_id}
        made = await self._call("POST", "/v1/messages", body=body)
        if not isinstance(made.get("id"), str):
            raise IntegrationError(NAME, "unexpected_answer", "Taken, but the answer names no message.", ambiguous=True)
        return SendResult(external_id=made["id"], status=STATES.get(made.get("state", ""), DeliveryStatus.SENT))

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """The message of an attempt whose response was lost."""
        found = (await self._call("GET", f"/v1/messages?mark={message.attempt_id}", reading=True))["messages"]
        if len(found) != 1 or found[0]["chat"] != message.to:
            return None
        return StatusUpdate(external_id=str(found[0]["id"]), status=STATES[found[0]["state"]])

    async def register_webhook(self, url: str) -> Mapping[str, str] | None:
        """Acme signs with the newest secret, so an existing one is kept."""
        secret = self._credentials.signing_secret or secrets.token_urlsafe(32)
        await self._call("PUT", "/v1/webhook", body={"url": url, "secret": secret}, reading=True)
        return {"signing_secret": secret}

    def deep_link(self, token: str) -> str | None:
        """Open the bot; the chat's first event returns the token."""
        return f"https://acme-chat.example/{self._credentials.bot}?start={token}"

    async def media_url(self, media_id: str) -> str:
        """The file's address, which expires after an hour."""
        found = await self._call("GET", f"/v1/files/{quote(media_id, safe='')}", reading=True)
        return self._base + str(found["path"])

    def media_headers(self, url: str) -> Mapping[str, str]:
        """The token, for Acme's own address only."""
        return {"authorization": self._headers["authorization"]} if url.startswith(f"{self._base}/") else {}

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, reading: bool = False
    ) -> dict[str, Any]:
        content = json.dumps(body).encode() if body is not None else None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.request(method, self._base + path, headers=self._headers, content=content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # The request was never sent.
            raise IntegrationError(NAME, "connection", type(error).__name__, retryable=True) from error
        except (TimeoutError, httpx2.HTTPError) as error:
            raise IntegrationError(NAME, "timeout", retryable=reading, ambiguous=not reading) from error
        if answer.status_code >= 500:
            raise IntegrationError(NAME, "server_error", retryable=reading, ambiguous=not reading)
        if answer.status_code >= 400 and answer.status_code != TAKEN_BEFORE:
            reason, retryable = REFUSALS.get(answer.status_code, ("refused", False))
            wait = retry_after(answer.headers.get("retry-after"))
            code = str(answer.status_code)
            raise IntegrationError(NAME, reason, retryable=retryable, code=code, retry_after_s=wait)
        try:
            return dict(json.loads(answer.content))
        except (TypeError, ValueError) as error:
            raise IntegrationError(NAME, "unexpected_answer", ambiguous=not reading) from error

    # --------------------------------------------------------------------------------------------------- callbacks
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Verify the HMAC-SHA256 over the raw body, then read every event. Acme signs no time."""
        secret = self._credentials.signing_secret
        expected = sign(secret, request.body).encode()
        if not secret or not hmac.compare_digest(expected, request.headers.get(SIGNATURE_HEADER, "").encode()):
            raise SignatureInvalid(NAME)
        try:
            payload = json.loads(request.body)
            bot, events = payload["bot"], list(payload["events"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise PayloadInvalid(NAME, "unexpected_shape", type(error).__name__) from error
        if bot != self._credentials.bot:
            return ChannelWebhook()  # Acme has one address per app
        return _read(events)


def sign(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def _read(events: Sequence[Any]) -> ChannelWebhook:
    statuses: list[StatusUpdate] = []
    messages: list[InboundMessage] = []
    changes: list[MessageChange] = []
    blockings: list[Blocking] = []
    for event in events:
        try:
            match event["type"]:
                case _ if "group" in event:
                    pass  # others read it, too
                case "text" | "file" | "place" | "sticker":
                    messages.append(_inbound(event))
                case "edit" | "unsend":
                    changes.append(_change(event))
                case "block" | "unblock":
                    blocked = event["type"] == "block"
                    blockings.append(Blocking(address=_chat(event), blocked=blocked, occurred_at=_at(event)))
                case "state" if _text(event, "state") in STATES:
                    statuses.append(_status(event))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            continue  # one event that can't be read; those beside it are people's words
    return ChannelWebhook(statuses=statuses, messages=messages, changes=changes, blockings=blockings)


def _status(event: Mapping[str, Any]) -> StatusUpdate:
    status = STATES[event["state"]]
    failed = status is DeliveryStatus.FAILED
    return StatusUpdate(
        external_id=_text(event, "id"),
        status=status,
        error_code=_text(event, "reason") if failed else None,
        error_message="Acme could not deliver it." if failed else None,
        occurred_at=_at(event),
    )


def _inbound(event: Mapping[str, Any]) -> InboundMessage:
    text = OTHER_CONTENT.get(event["type"]) or event.get("text") or ""
    if not isinstance(text, str):
        raise TypeError("text")
    return InboundMessage(
        external_id=_id(event),
        sender=_chat(event),
        body=text,
        sender_name=_text(event, "name") if "name" in event else None,
        opt_out=opt_out_word(text, by_phone=False),
        occurred_at=_at(event),
        attachments=[_file(event["file"])] if event["type"] == "file" else (),
        in_reply_to=_text(event, "answers") if "answers" in event else None,
        link_token=_text(event, "start") if "start" in event else None,
    )


def _file(file: Mapping[str, Any]) -> Mapping[str, str]:
    return {"id": _text(file, "id"), "name": _text(file, "name"), "content_type": _text(file, "mime")}


def _change(event: Mapping[str, Any]) -> MessageChange:
    if event["type"] == "unsend":
        return MessageChange(external_id=_id(event), removed=True, occurred_at=_at(event))
    text = _text(event, "text")
    return MessageChange(
        external_id=_id(event), body=text, opt_out=opt_out_word(text, by_phone=False), occurred_at=_at(event)
    )


def _id(event: Mapping[str, Any]) -> str:
    # Acme numbers the messages of each chat from 1.
    return f"{_chat(event)}:{int(event['number'])}"


def _chat(event: Mapping[str, Any]) -> str:
    # Acme writes a chat's name as its owner types it, in capitals or not.
    return _text(event, "chat").lower()


def _at(event: Mapping[str, Any]) -> datetime:
    moment = datetime.fromisoformat(_text(event, "at"))
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment


def _text(thing: Mapping[str, Any], name: str) -> str:
    value = thing[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not a text")
    return value
