"""A channel shaped like Telegram's bot API, its fake and its harness."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote

import httpx2

from integrations.base import (
    Blocking,
    Channel,
    ChannelKind,
    ChannelLimits,
    ChannelWebhook,
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
    WebhookRequest,
)
from integrations.kit import channel_bench as kit
from integrations.kit.vendor import Answer, Call, FailureMode, FakeVendor
from integrations.sms import opt_out_word

NAME: Final = "bot_chat"
HEADER: Final = "x-bot-api-secret-token"
LIMITS: Final = ChannelLimits(
    max_length=4096, length_unit=LengthUnit.UTF16_UNITS, messages_per_s=30, recipient_messages_per_s=1
)
MALFORMED: Final = (KeyError, TypeError, ValueError, AttributeError, OverflowError, OSError)


# ---------------------------------------------------------------------------------------------------------- the channel
@dataclass(frozen=True, slots=True)
class Credentials:
    username: str
    token: str = field(repr=False)
    webhook_secret: str = field(repr=False, default="")


class BotChat(Channel):
    """One bot."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Bot chat"
    kinds: ClassVar[tuple[ChannelKind, ...]] = (ChannelKind.CUSTOM,)
    credentials: ClassVar[type[Any]] = Credentials
    features: ClassVar[frozenset[Feature]] = frozenset(
        {
            Feature.OTHER_EVENTS,
            Feature.REGISTRATION,
            Feature.FILES,
            Feature.CAPTIONS,
            Feature.OTHER_CONTENT,
            Feature.EDITS,
            Feature.BLOCKS,
            Feature.DEEP_LINKS,
        }
    )

    def __init__(self, credentials: Credentials, *, kind: ChannelKind, environment: Environment) -> None:
        if kind not in self.kinds:
            raise ValueError(f"{NAME} does not serve {kind}")
        self._credentials = credentials
        self._timeout_s = environment.timeout_s
        self._base = environment.base_addresses.get(NAME, "https://api.bot-chat.example")
        self._client = httpx2.AsyncClient(timeout=environment.timeout_s, trust_env=False)

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        return LIMITS

    async def check(self) -> str | None:
        return str((await self._call("getMe", {}, reading=True))["id"])

    async def send(self, message: OutboundMessage) -> SendResult:
        """sendMessage, once, as plain text."""
        if not message.body.strip():
            raise IntegrationError(NAME, "empty_message", "The text is empty.")
        if LIMITS.length_of(message.body) > 4096:
            raise IntegrationError(NAME, "too_long", "Over 4096 characters.")
        made = await self._call("sendMessage", {"chat_id": message.to, "text": message.body})
        try:
            return SendResult(external_id=_id(made))
        except MALFORMED as error:
            raise IntegrationError(NAME, "unexpected_answer", ambiguous=True) from error

    async def register_webhook(self, url: str) -> Mapping[str, str] | None:
        """setWebhook, with a secret that comes back as a header."""
        secret = self._credentials.webhook_secret or secrets.token_urlsafe(32)
        await self._call("setWebhook", {"url": url, "secret_token": secret}, reading=True)
        return {"webhook_secret": secret}

    def deep_link(self, token: str) -> str | None:
        """The bot's chat with a start button."""
        return f"https://bot-chat.example/{quote(self._credentials.username)}?start={token}"

    async def media_url(self, media_id: str) -> str:
        """getFile; the address has the token in it."""
        path = (await self._call("getFile", {"file_id": media_id}, reading=True))["file_path"]
        return f"{self._base}/file/bot{self._credentials.token}/{path}"

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _call(self, method: str, given: Mapping[str, Any], *, reading: bool = False) -> Any:
        lost: Any = {"retryable": reading, "ambiguous": not reading}
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.post(f"{self._base}/bot{self._credentials.token}/{method}", json=given)
            said = json.loads(answer.content)
            if answer.status_code < 500 and said["ok"] is True:
                return said["result"]
            wait = said.get("parameters", {}).get("retry_after")
        # The address contains the token, and the client's exceptions may quote it.
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise IntegrationError(NAME, "connection", retryable=True) from None
        except (TimeoutError, httpx2.HTTPError):
            raise IntegrationError(NAME, "timeout", **lost) from None
        except MALFORMED:
            raise IntegrationError(NAME, "unexpected_answer", **lost) from None
        if answer.status_code >= 500:
            raise IntegrationError(NAME, "server_error", **lost)
        if answer.status_code == 429:
            raise IntegrationError(NAME, "rate_limited", retryable=True, code="429", retry_after_s=float(wait or 5))
        reason = {401: "authentication_failed", 403: "opted_out"}.get(answer.status_code, "refused")
        raise IntegrationError(NAME, reason, code=str(answer.status_code))

    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Compare the secret, then read one update."""
        secret, given = self._credentials.webhook_secret, request.headers.get(HEADER, "")
        if not secret or not hmac.compare_digest(secret.encode(), given.encode()):
            raise SignatureInvalid(NAME)
        try:
            update = json.loads(request.body)
            int(update["update_id"])
            return _read(update)
        except (*MALFORMED, RecursionError) as error:
            raise PayloadInvalid(NAME, "unexpected_shape", type(error).__name__) from error


def _read(update: Mapping[str, Any]) -> ChannelWebhook:
    if "message" in update:
        return ChannelWebhook(messages=(_message(update["message"]),))
    if "edited_message" in update:
        edited = _message(update["edited_message"])
        at = _at(update["edited_message"]["edit_date"])
        change = MessageChange(external_id=edited.external_id, body=edited.body, opt_out=edited.opt_out, occurred_at=at)
        return ChannelWebhook(changes=(change,))
    if "my_chat_member" in update:
        member = update["my_chat_member"]
        blocked = member["new_chat_member"]["status"] == "kicked"
        blocking = Blocking(address=_chat(member), blocked=blocked, occurred_at=_at(member["date"]))
        return ChannelWebhook(blockings=(blocking,))
    return ChannelWebhook()  # polls, reactions, channels: answered 200, else they come again and again


def _message(message: Mapping[str, Any]) -> InboundMessage:
    text = message.get("text", message.get("caption", ""))
    if not isinstance(text, str):
        raise TypeError("text")
    command, _, token = text.partition(" ")
    started = token.strip() if command == "/start" else ""
    document = message.get("document")
    if "sticker" in message:
        text = _text(message["sticker"].get("emoji", "[sticker]"))
    files = [] if document is None else [{"id": _text(document["file_id"]), "name": _text(document["file_name"])}]
    return InboundMessage(
        external_id=_id(message),
        sender=_chat(message),
        body="/start" if started else text,
        opt_out=opt_out_word(text, by_phone=False),
        occurred_at=_at(message["date"]),
        attachments=files,
        link_token=started or None,
    )


def _id(message: Mapping[str, Any]) -> str:
    return f"{_chat(message)}:{int(message['message_id'])}"


def _chat(message: Mapping[str, Any]) -> str:
    return str(int(message["chat"]["id"]))


def _at(seconds: object) -> datetime:
    if not isinstance(seconds, int):
        raise TypeError("date")
    return datetime.fromtimestamp(seconds, UTC)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("not a text")
    return value


# ------------------------------------------------------------------------------------------------------------- the fake
class FakeBotChat(FakeVendor):
    """One bot's API."""

    TOKEN = "123456:bot-token-0001"

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.webhook = {"url": "", "secret_token": "bot-webhook-secret-0001"}
        self.file = b""

    def error(self, status: int) -> Answer:
        more = {"parameters": {"retry_after": 11}} if status == 429 else {}
        return Answer(status, json.dumps({"ok": False, "error_code": status, **more}).encode())

    async def handle(self, call: Call) -> Answer:
        if call.path == f"/file/bot{self.TOKEN}/documents/f1":
            return Answer(200, self.file)
        token, _, method = call.path.removeprefix("/bot").partition("/")
        if token != self.TOKEN:
            return self.error(401)
        given = json.loads(call.body)
        result: object = True
        match method:
            case "getMe":
                result = {"id": 123456, "username": "acme_bot"}
            case "setWebhook":
                self.webhook = given
            case "getFile":
                result = {"file_path": "documents/f1"}
            case "sendMessage" if given["chat_id"] == "666":
                return self.error(403)
            case "sendMessage" if len(given["text"].encode("utf-16-le")) > 8192:
                return self.error(400)
            case "sendMessage":
                self.texts.append(given["text"])
                result = {"message_id": len(self.texts), "chat": {"id": int(given["chat_id"])}, "date": 1}
        return Answer(200, json.dumps({"ok": True, "result": result}).encode())


# ---------------------------------------------------------------------------------------------------------- the harness
class BotChatHarness(kit.ChannelHarness):
    channel = BotChat
    public = frozenset({"username"})
    signing = ("webhook_secret",)
    signature_header = HEADER
    documented = ChannelLimits(
        max_length=4096, length_unit=LengthUnit.UTF16_UNITS, messages_per_s=30, recipient_messages_per_s=1
    )
    rate_limit_s = 11.0
    credentials = {
        "username": "acme_bot",
        "token": FakeBotChat.TOKEN,
        "webhook_secret": "bot-webhook-secret-0001",
    }
    account = "123456"
    address = "7001"
    refused = "666"

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        self.bot = await stack.enter_async_context(FakeBotChat())
        return {NAME: self.bot.url}

    def fail_next(self, mode: FailureMode) -> None:
        self.bot.fail_next(mode)

    def texts(self) -> list[str]:
        return self.bot.texts

    def registered(self) -> str:
        return self.bot.webhook["url"]

    def signed(self, body: bytes) -> kit.Callback:
        return self.url, body, {HEADER: self.bot.webhook["secret_token"]}

    def tell(self, *events: kit.Event) -> kit.Callback:
        (event,) = events
        return self.signed(json.dumps({"update_id": 10_000, **self.update(event)}).encode())

    def update(self, event: kit.Event) -> dict[str, Any]:
        date = int(event.at.timestamp())
        match event:
            case kit.WroteToAnother():
                raise kit.NotOffered
            case kit.Wrote(sender=chat, number=number, text=text):
                message = {"message_id": number, "chat": {"id": int(chat)}, "date": date, "text": text}
                if isinstance(event, kit.SentFile):
                    self.bot.file = event.content
                    message |= {"document": {"file_id": "f1", "file_name": event.name}}
                    message |= {"caption": message.pop("text")}
                if isinstance(event, kit.SentOther):
                    message |= {"sticker": {"emoji": "👍"}}
                if isinstance(event, kit.OpenedLink):
                    message |= {"text": f"/start {event.token}"}
                if isinstance(event, kit.Edited):
                    return {"edited_message": {**message, "edit_date": date}}
                return {"message": message}
            case kit.Blocked(sender=chat, blocked=blocked):
                status = {"status": "kicked" if blocked else "member"}
                return {"my_chat_member": {"chat": {"id": int(chat)}, "date": date, "new_chat_member": status}}
            case kit.Odd():
                return {"poll": {"id": "1"}}
        raise kit.NotOffered
