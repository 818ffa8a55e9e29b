"""Messenger and Instagram DM by Meta's Send API: messages with a button, delivery and read events, what people write.

The contact must have written first. Within 24 hours of their last message anything may be answered; then, up to seven days, only
what a person wrote (tag HUMAN_AGENT, which Meta grants to an app after review: credential `human_agent`).
A message is one call. Meta takes no idempotency key: a lost answer is ambiguous, and is resolved by the echo of the message
(Messenger hands our id back in `metadata`) or by reading the conversation.
An echo of a message that is not ours was written in Meta's own inbox or app. Left out on purpose: `standby` (another app has the
thread), comments and other `changes` (they are public, not messages), referrals and opt-ins (they say nothing of a message).

Source: developers.facebook.com/docs/messenger-platform/reference/send-api (v26.0), .../messenger-platform/webhooks,
.../messenger-platform/send-messages/template/button, .../messenger-platform/conversations, .../docs/messenger-platform/policy,
.../docs/instagram-platform/instagram-api-with-instagram-login/messaging-api, .../docs/graph-api/guides/error-handling,
.../messenger-platform/identity/user-profile, .../docs/instagram-platform/reference/refresh_access_token.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, ClassVar, TypeVar

import httpx2
import structlog

from integrations.base import (
    Author,
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
    WrittenElsewhere,
    external_id,
    retry_after,
)
from integrations.links import DEFAULT_LABEL, payment_link
from integrations.sms import opt_out_word

log = structlog.get_logger(__name__)

_Told = TypeVar("_Told")

NAME = "meta_messenger"
API_VERSION = "v26.0"
FACEBOOK = "https://graph.facebook.com"
INSTAGRAM = "https://graph.instagram.com"

# The events about a message of ours. Meta tells of no failed delivery.
STATES: Mapping[str, DeliveryStatus] = {
    "echo": DeliveryStatus.SENT,
    "delivery": DeliveryStatus.DELIVERED,
    "read": DeliveryStatus.READ,
}

# Meta's error code, or its subcode, to our word; subcodes are looked at first.
SUBCODES: Mapping[int, str] = {
    2018278: "window_closed",
    2534022: "window_closed",
    2018001: "invalid_recipient",
    1545041: "recipient_unavailable",
    2018108: "recipient_unavailable",
}
CODES: Mapping[int, str] = {
    10: "forbidden",
    190: "unauthorized",
    102: "unauthorized",
    200: "forbidden",
    230: "forbidden",
    551: "recipient_unavailable",
}
RATE_LIMITS = frozenset({4, 17, 32, 613, 80006, 80007})
_UNCERTAIN = frozenset({1, 2, 1200})  # "try again later": not said whether something was sent
_STATUS_REASONS: Mapping[int, str] = {401: "unauthorized", 403: "forbidden", 404: "not_found"}

LIMITS: Mapping[ChannelKind, ChannelLimits] = {
    ChannelKind.MESSENGER: ChannelLimits(max_length=2000, window_hours=24, link_preview=True, link_button=True),
    ChannelKind.INSTAGRAM_DM: ChannelLimits(
        max_length=1000, length_unit=LengthUnit.BYTES, window_hours=24, link_preview=True, link_button=True
    ),
}
PERSON_WINDOW_HOURS = 7 * 24
_RENEW_BEFORE = timedelta(days=30)

_OBJECTS: Mapping[ChannelKind, str] = {ChannelKind.MESSENGER: "page", ChannelKind.INSTAGRAM_DM: "instagram"}
_PLATFORMS: Mapping[ChannelKind, str] = {ChannelKind.MESSENGER: "messenger", ChannelKind.INSTAGRAM_DM: "instagram"}
_BUTTON_TEXT = 640
_BUTTON_TITLE = 20
_LISTED = 20
_MAX_EVENTS = 1000
_MAX_ATTACHMENTS = 100
_MAX_DIGITS = 100
_MAX_ODD_TEXT = 2000
_UNSHOWN = "[message that can't be shown here: open it in the app of Messenger or Instagram]"
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
_ID = re.compile(r"\d{1,100}")
_OUR_ID = re.compile(r"msg_[A-Za-z0-9]{1,60}")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{1,256}")
_NUMBER = re.compile(r"\d{6,}")
# Attachments that are files. All others are pages and posts of somebody: words and a link, and nothing is fetched.
_MEDIA: Mapping[str, str] = {
    "image": "image/*",
    "audio": "audio/*",
    "video": "video/*",
    "file": "application/octet-stream",
    "sticker": "image/*",
    "animated_image": "image/*",
}
_SHARED: Mapping[str, str] = {
    "story_mention": "mentioned you in a story",
    "ig_story": "shared a story",
    "share": "shared a post",
    "post": "shared a post",
    "ig_post": "shared a post",
    "reel": "shared a reel",
    "ig_reel": "shared a reel",
    "fallback": "shared a link",
    "template": "card",
    "location": "location",
    "ephemeral": "photo that disappears",
    "like_heart": "heart",
}
_DASHBOARD = "0"  # the account that the "Test" button of Meta's dashboard speaks of
_TEST_NAME = "Meta's test event"
_INBOX = "Meta inbox"
_LINK_LIMIT = 2000


@dataclass(frozen=True, slots=True)
class Credentials:
    """One page or one Instagram account, and the app that it has given access to."""

    account_id: str  # the page's id; of Instagram the professional account's: what webhooks call entry.id
    access_token: str = field(repr=False)
    app_secret: str = field(repr=False)  # signs webhooks
    verify_token: str = field(repr=False)  # of our choosing, typed into Meta's webhook form
    page_id: str = ""  # Instagram only: the page it is connected to; empty: Instagram's own login
    human_agent: str = ""  # "yes": Meta has granted the app the Human Agent feature
    token_ends: str = ""  # kept by `renewed`: which token of an Instagram login ends when


class MetaMessenger(Channel):
    """Messenger of one page, or direct messages of one Instagram account."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Meta (Messenger, Instagram)"
    kinds: ClassVar[tuple[ChannelKind, ...]] = tuple(LIMITS)
    credentials: ClassVar[type[Any]] = Credentials
    features: ClassVar[frozenset[Feature]] = frozenset(
        {
            Feature.SIGNED_BODY,
            Feature.DELIVERED,
            Feature.READ,
            Feature.LOOK_UP,
            Feature.BATCHES,
            Feature.OTHER_EVENTS,
            Feature.SHARED_CALLBACKS,
            Feature.HANDSHAKE,
            Feature.FILES,
            Feature.CAPTIONS,
            Feature.ANSWERS,
            Feature.OTHER_CONTENT,
            Feature.EDITS,
            Feature.REMOVALS,
            Feature.ECHOES,
        }
    )

    def __init__(self, credentials: Credentials, *, kind: ChannelKind, environment: Environment) -> None:
        """Raises: ValueError for another kind; IntegrationError (`credentials_invalid`)."""
        if kind not in self.kinds:
            raise ValueError(f"{NAME} does not serve {kind}")
        for given in (credentials.account_id, credentials.page_id or "0"):
            if not _ID.fullmatch(given):
                raise IntegrationError(NAME, "credentials_invalid", "account_id and page_id are numbers.")
        self._credentials = credentials
        self._environment = environment
        self._kind = kind
        self._client: httpx2.AsyncClient | None = None
        self._by_page = kind is ChannelKind.MESSENGER or bool(credentials.page_id)
        self._human_agent = credentials.human_agent.strip().lower() == "yes"
        self._sender = credentials.page_id or credentials.account_id
        own = FACEBOOK if self._by_page else INSTAGRAM
        self._host = environment.base_addresses.get("meta", own).rstrip("/")
        self._base = f"{self._host}/{API_VERSION}"

    def limits(self, kind: ChannelKind) -> ChannelLimits:
        """2,000 characters or 1,000 bytes; 24 hours, or seven days for what a person writes."""
        limits = LIMITS[kind]
        return replace(limits, person_window_hours=PERSON_WINDOW_HOURS) if self._human_agent else limits

    # --------------------------------------------------------------------------------------------------- calls out
    async def send(self, message: OutboundMessage) -> SendResult:
        """POST messages once, never repeated. A text with a payment link goes as a button template while it fits in one.

        Raises: IntegrationError; `ambiguous` after a time-out, a cut connection, a 5xx or an answer without an id.
        """
        body: dict[str, Any] = {"recipient": {"id": message.to}, **self._permission(message)}
        body["message"] = self._content(message)
        if self._kind is ChannelKind.MESSENGER:
            body["message"]["metadata"] = message.message_id  # comes back in the echo
        answer = await self._call("POST", f"/{self._sender}/messages", body=body)
        mid = answer.get("message_id")
        if not isinstance(mid, str) or not mid:
            raise IntegrationError(NAME, "no_answer", "Accepted, but the answer names no message.", ambiguous=True)
        return SendResult(external_id=external_id(mid), status=DeliveryStatus.SENT)

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """Read the conversation; the message is found if exactly one of ours since `sent_after` has its text.

        Meta's times have whole seconds, and only the last 20 messages can be read. Raises: IntegrationError.
        """
        since = sent_after.astimezone(UTC).replace(microsecond=0)
        query = {
            "platform": _PLATFORMS[self._kind],
            "user_id": message.to,
            "fields": f"messages.limit({_LISTED}){{id,created_time,from,message}}",
        }
        answer = await self._call("GET", f"/{self._sender}/conversations", query=query)
        try:
            listed = [one for thread in answer["data"] for one in thread["messages"]["data"]]
            fitting = [
                one
                for one in listed
                if one["from"]["id"] != message.to
                and one.get("message", "").strip() == message.body.strip()
                and datetime.strptime(one["created_time"], "%Y-%m-%dT%H:%M:%S%z") >= since
            ]
            if len(fitting) != 1:
                return None
            return StatusUpdate(external_id=external_id(str(fitting[0]["id"])), status=DeliveryStatus.SENT)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrationError(NAME, "no_answer", "The answer cannot be read.", retryable=True) from error

    async def check(self) -> str | None:
        """Ask whose token it is. Raises: IntegrationError (`wrong_account` if it is another's)."""
        asked = "user_id" if not self._by_page else "id"
        if self._kind is ChannelKind.INSTAGRAM_DM and self._by_page:
            asked = "id,instagram_business_account"
        answer = await self._call("GET", "/me", query={"fields": asked})
        found = answer.get(asked.partition(",")[0])
        if self._kind is ChannelKind.INSTAGRAM_DM and self._by_page:
            account = answer.get("instagram_business_account")
            found = account.get("id") if isinstance(account, dict) else None
        if str(found) != self._credentials.account_id:
            raise IntegrationError(NAME, "wrong_account", "The token belongs to another account.")
        return self._credentials.account_id

    async def name_of(self, address: str) -> str | None:
        """Read the person's profile, which Meta allows for who has written. Raises: IntegrationError."""
        if not _ID.fullmatch(address):
            return None
        wanted = ("name", "first_name", "last_name") if self._kind is ChannelKind.MESSENGER else ("name", "username")
        answer = await self._call("GET", f"/{address}", query={"fields": ",".join(wanted)})
        told = {name: value.strip() for name in wanted if isinstance(value := answer.get(name), str)}
        whole = f"{told.get('first_name', '')} {told.get('last_name', '')}".strip()
        return told.get("name") or whole or told.get("username") or None

    async def renewed(self, *, now: datetime) -> Mapping[str, str] | None:
        """Renew the token of an Instagram login, which lives for 60 days, when half of them are over. Pages' tokens do not end.

        Meta renews a token that is at least a day old and has not ended. Raises: IntegrationError.
        """
        if self._by_page:
            return None
        token = self._credentials.access_token
        mark, _, ends = self._credentials.token_ends.partition(" ")
        try:
            known = datetime.fromisoformat(ends) if mark == _token_mark(token) else None  # a new token was pasted
        except ValueError:
            known = None
        if known is not None and known.tzinfo is not None and known - now > _RENEW_BEFORE:
            return None
        query = {"grant_type": "ig_refresh_token", "access_token": token}
        answer = await self._call("GET", "/refresh_access_token", query=query, base=self._host)
        fresh, life_s = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(fresh, str) or not fresh or isinstance(life_s, bool) or not isinstance(life_s, int):
            raise IntegrationError(NAME, "no_answer", "The answer names no token.", retryable=True)
        until = now + timedelta(seconds=min(max(life_s, 0), 10**8))
        return {"access_token": fresh, "token_ends": f"{_token_mark(fresh)} {until.isoformat(timespec='seconds')}"}

    async def aclose(self) -> None:
        """Close the HTTP connections, if any were opened."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _permission(self, message: OutboundMessage) -> dict[str, str]:
        """Why Meta should let it through: an answer in the window, or a person's within seven days."""
        heard = message.last_inbound_at
        if heard is None:  # not known here: Meta decides
            return {"messaging_type": "RESPONSE"}
        age = datetime.now(UTC) - heard
        if age < timedelta(hours=24):
            return {"messaging_type": "RESPONSE"}
        by_person = message.author is Author.PERSON
        if by_person and self._human_agent and age < timedelta(hours=PERSON_WINDOW_HOURS):
            return {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}
        raise IntegrationError(NAME, "window_closed", "The contact's last message is too old.", code="window_closed")

    def _content(self, message: OutboundMessage) -> dict[str, Any]:
        """The link stays in the text: Instagram on the web shows no buttons. Raises: IntegrationError."""
        limits = LIMITS[self._kind]
        link = payment_link(message, public_url=self._environment.public_url)
        text = message.body if link is None or link in message.body else f"{message.body}\n{link}"
        if not message.body.strip():
            raise IntegrationError(NAME, "empty_message", "The text is empty.", code="empty_message")
        length = limits.length_of(text)
        if limits.max_length is not None and length > limits.max_length:
            raise IntegrationError(NAME, "too_long", f"Over {limits.max_length}.", code="too_long")
        if link is None or len(text) > _BUTTON_TEXT:
            return {"text": text}
        title = (message.link_label or DEFAULT_LABEL)[:_BUTTON_TITLE]
        button = {"type": "web_url", "url": link, "title": title}
        payload = {"template_type": "button", "text": text, "buttons": [button]}
        return {"attachment": {"type": "template", "payload": payload}}

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        base: str | None = None,
    ) -> dict[str, Any]:
        """One call: bounded in time, never repeated. Only a POST can be ambiguous."""
        writes = method == "POST"
        params = dict(query or {})
        token = self._credentials.access_token
        if self._by_page:
            # Lets an app require that its secret stands behind every call.
            secret = self._credentials.app_secret.encode()
            params["appsecret_proof"] = hmac.new(secret, token.encode(), hashlib.sha256).hexdigest()
        try:
            # The token goes in a header: addresses end up in logs.
            async with asyncio.timeout(self._environment.timeout_s):
                answer = await self._open().request(
                    method,
                    (base or self._base) + path,
                    params=params,
                    json=body,
                    headers={"Authorization": f"Bearer {token}"},
                )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise IntegrationError(NAME, "unreachable", "No connection to Meta.", retryable=True) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise _lost("timeout", "Meta did not answer.", writes=writes) from error
        except httpx2.HTTPError as error:
            raise _lost("connection_lost", "The connection was cut.", writes=writes) from error
        return _answered(answer, writes=writes)

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:  # no await in here: two tasks cannot both open one
            self._client = httpx2.AsyncClient(timeout=self._environment.timeout_s, trust_env=False)
        return self._client

    # ---------------------------------------------------------------------------------------------------- calls in
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """GET: the check of the address. POST: verify over the raw body, then read every event of this account.

        Meta puts no time into its signature: a repeated request is recognised by its message ids. Events of other accounts of
        the same app are left to their connections (`others`). Raises: SignatureInvalid, PayloadInvalid.
        """
        if request.method == "GET":
            return self._verified_address(request.query)
        self._verify(request)
        try:
            # One odd character or number does not cost the batch.
            payload = json.loads(request.body.decode("utf-8-sig", "replace"), parse_int=_integer)
        except (ValueError, RecursionError) as error:
            raise PayloadInvalid(NAME, "payload_invalid", type(error).__name__) from error
        kind = payload.get("object") if isinstance(payload, dict) else None
        if kind not in _OBJECTS.values():
            raise PayloadInvalid(NAME, "unknown_object", "The callback's object is not known.")
        if kind != _OBJECTS[self._kind]:
            raise PayloadInvalid(NAME, "channel_mismatch", "The callback is of another kind of channel.")
        try:
            return self._read(payload)
        except _MALFORMED as error:
            raise PayloadInvalid(NAME, "payload_invalid", type(error).__name__) from error

    def _verified_address(self, query: Mapping[str, str]) -> ChannelWebhook:
        token, challenge = query.get("hub.verify_token", ""), query.get("hub.challenge", "")
        expected = self._credentials.verify_token
        if query.get("hub.mode") != "subscribe" or not expected:
            raise SignatureInvalid(NAME, "verify_token_wrong")
        if not hmac.compare_digest(expected.encode(), token.encode("utf-8", "surrogatepass")):
            raise SignatureInvalid(NAME, "verify_token_wrong")
        if not _CHALLENGE.fullmatch(challenge):
            raise PayloadInvalid(NAME, "challenge_invalid", "The challenge is not one.")
        return ChannelWebhook(answer_body=challenge)

    def _verify(self, request: WebhookRequest) -> None:
        header = request.headers.get("x-hub-signature-256", "")
        if not header:
            raise SignatureInvalid(NAME, "signature_missing")
        if not self._credentials.app_secret:  # anybody can sign with an empty secret
            raise SignatureInvalid(NAME, "no_secret")
        digest = hmac.new(self._credentials.app_secret.encode(), request.body, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(f"sha256={digest}".encode(), header.encode()):
            raise SignatureInvalid(NAME)

    def _read(self, payload: Mapping[str, Any]) -> ChannelWebhook:
        statuses: list[StatusUpdate] = []
        messages: list[InboundMessage] = []
        others: list[str] = []
        count = 0
        elsewhere: list[WrittenElsewhere] = []
        changes: list[MessageChange] = []
        entries = payload["entry"]
        if not isinstance(entries, list):
            raise TypeError("not a list of entries")
        # What can't be read is left out: Meta repeats a refused request for hours, and with it all that others wrote beside.
        # A request of which nothing can be read is refused.
        odd: list[Exception] = []
        for entry in entries:
            try:
                account = str(entry["id"])
                events = self._events(entry)
            except _MALFORMED as error:
                log.warning("entry_not_understood", provider=NAME, error=type(error).__name__)
                odd.append(error)
                continue
            if account not in (self._credentials.account_id, _DASHBOARD):
                others.append(account)
                continue
            for event in events:
                count += 1
                if count > _MAX_EVENTS:
                    raise ValueError("too many events")
                if not isinstance(event, dict):
                    log.warning("event_not_understood", provider=NAME, error="TypeError")
                    continue
                statuses += _understood(_statuses, event)
                written = _understood(_messages, event)
                messages += (
                    [replace(one, sender_name=_TEST_NAME) for one in written] if account == _DASHBOARD else written
                )
                elsewhere += _understood(_elsewhere, event)
                changes += _understood(partial(_changes, account_id=self._credentials.account_id), event)
        if odd and len(odd) == len(entries):
            raise odd[0]
        return ChannelWebhook(
            statuses=tuple(statuses),
            messages=tuple(messages),
            elsewhere=tuple(elsewhere),
            changes=tuple(changes),
            others=tuple(dict.fromkeys(others)),
            answer_body="EVENT_RECEIVED",
        )

    def _events(self, entry: Mapping[str, Any]) -> list[Any]:
        """The messaging events of an entry; the dashboard's "Test" button puts one into `changes`."""
        events = entry.get("messaging", [])
        if not isinstance(events, list):
            raise TypeError("not a list of events")
        told = entry.get("changes", [])
        tested = [
            one["value"]
            for one in (told if isinstance(told, list) else [])
            if isinstance(one, dict) and one.get("field") == "messages" and isinstance(one.get("value"), dict)
        ]
        return [*events, *tested]


def _understood(read: Callable[[Mapping[str, Any]], Iterator[_Told]], event: Mapping[str, Any]) -> list[_Told]:
    """What one reader finds in an event; nothing, and a line in the log, if it can't be read."""
    try:
        return [*read(event)]
    except _MALFORMED as error:
        log.warning("event_not_understood", provider=NAME, error=type(error).__name__)
        return []


def _statuses(event: Mapping[str, Any]) -> Iterator[StatusUpdate]:
    """What an event says about messages of ours. Raises KeyError, TypeError, ValueError."""
    message = _object(event.get("message"))
    if _said(message.get("is_echo")) and not _said(message.get("is_deleted")):
        metadata = message.get("metadata")
        ours = metadata if isinstance(metadata, str) and _OUR_ID.fullmatch(metadata) else None
        yield StatusUpdate(external_id=_mid(message["mid"]), status=STATES["echo"], message_id=ours)
    for word in ("delivery", "read"):
        told = event.get(word)
        if not told:
            continue
        mids = told.get("mids") or ([told["mid"]] if "mid" in told else [])
        at = _moment(told["watermark"]) if "watermark" in told else _moment(event["timestamp"])
        for mid in mids:
            yield StatusUpdate(external_id=_mid(mid), status=STATES[word], occurred_at=at)
        if not mids:  # everything up to a moment: Messenger names no messages that were read
            address = _account(event["sender"])
            yield StatusUpdate(external_id="", status=STATES[word], occurred_at=at, address=address, up_to=at)


def _messages(event: Mapping[str, Any]) -> Iterator[InboundMessage]:
    """What the contact wrote, or the button that they pressed. Only who wrote must be known. Raises KeyError, TypeError, ValueError."""
    message, postback = event.get("message"), event.get("postback")
    given = _object(message)
    if _said(given.get("is_echo")) or _said(given.get("is_deleted")) or not (message or postback):
        return
    sender = _account(event["sender"])
    mid = given.get("mid") or _object(postback).get("mid")
    if not (mid or message) and "timestamp" in event:  # a pressed button may come without an id of its own
        mid = f"postback:{sender}:{event['timestamp']}"
    if given:
        body, found, answered = _content(given)
        opt_out = opt_out_word(_text(given.get("text")), by_phone=False)
    elif message:
        body, found, answered, opt_out = _UNSHOWN, [], None, None
    else:
        body, found, answered = _text(_object(postback).get("title") or _object(postback).get("payload")), [], None
        opt_out = opt_out_word(body, by_phone=False)
    yield InboundMessage(
        external_id=_named(mid, event),
        sender=sender,
        recipient=_recipient(event),
        body=body,
        opt_out=opt_out,
        occurred_at=_when(event),
        attachments=found,
        in_reply_to=answered,
    )


def _elsewhere(event: Mapping[str, Any]) -> Iterator[WrittenElsewhere]:
    """An echo of what a colleague wrote in Meta's own inbox or app. Raises KeyError, TypeError, ValueError."""
    message = _object(event.get("message"))
    metadata = message.get("metadata")
    ours = isinstance(metadata, str) and _OUR_ID.fullmatch(metadata)
    if not _said(message.get("is_echo")) or _said(message.get("is_deleted")) or ours:
        return
    body, found, answered = _content(message)
    kinds = {str(one.get("type")) for one in _objects(message.get("attachments"))}
    yield WrittenElsewhere(
        external_id=_mid(message["mid"]),
        recipient=_account(event["recipient"]),
        body=body,
        author=_INBOX,
        occurred_at=_when(event),
        attachments=found,
        in_reply_to=answered,
        template=kinds == {"template"} and not message.get("text"),
    )


def _changes(event: Mapping[str, Any], account_id: str) -> Iterator[MessageChange]:
    """What people did with a message that stands already. Raises KeyError, TypeError, ValueError."""
    message, edit, reaction = (_object(event.get(name)) for name in ("message", "message_edit", "reaction"))
    if _said(message.get("is_deleted")):
        yield MessageChange(external_id=_mid(message["mid"]), removed=True, occurred_at=_when(event))
    if edit and edit.get("text") is not None:
        text = _text(edit["text"])
        yield MessageChange(
            external_id=_mid(edit["mid"]),
            body=text,
            opt_out=opt_out_word(text, by_phone=False),
            occurred_at=_when(event),
        )
    if reaction and _account(event["sender"]) != account_id:
        taken_back = reaction.get("action") == "unreact"
        emoji = "" if taken_back else _text(reaction.get("emoji") or reaction.get("reaction"))
        yield MessageChange(external_id=_mid(reaction["mid"]), reaction=emoji, occurred_at=_when(event))


def _content(message: Mapping[str, Any]) -> tuple[str, list[dict[str, str]], str | None]:
    """The words of a message, its files, and the id of the message that it answers."""
    lines = [_text(message.get("text") or _object(message.get("quick_reply")).get("payload"))]
    files: list[dict[str, str]] = []
    for given in _objects(message.get("attachments"))[:_MAX_ATTACHMENTS]:
        kind = str(given.get("type") or "attachment")
        if kind in _MEDIA:
            url = _inside(given).get("url")
            files.append({"content_type": _MEDIA[kind], **({"url": url} if isinstance(url, str) else {})})
        else:
            lines.append(_shared(kind, given))
    answered = message.get("reply_to")
    answered = answered if isinstance(answered, dict) else {}
    story = answered.get("story")
    if isinstance(story, dict):
        lines.append(f"[answer to your story] {_link(story)}")
    if _said(message.get("is_unsupported")):
        lines.append(_UNSHOWN)
    mid = answered.get("mid")
    return "\n".join(line.strip() for line in lines if line.strip()), files, _mid(mid) if mid else None


def _shared(kind: str, given: Mapping[str, Any]) -> str:
    """An attachment that is no file, in words: what it is, its title, its link unless the text names it."""
    inside = _inside(given)
    product = inside.get("product")
    elements = inside.get("elements") or (product.get("elements") if isinstance(product, dict) else None)
    first = elements[0] if isinstance(elements, list) and elements and isinstance(elements[0], dict) else {}
    titles = (given.get("title"), inside.get("title"), inside.get("text"), first.get("title"))
    title = next((one.strip() for one in titles if isinstance(one, str) and one.strip()), "")
    place = inside.get("coordinates")
    if isinstance(place, dict):
        title = f"{title} {place.get('lat')}, {place.get('long')}".strip()
    link = next((found for found in (_link(inside), _link(given), _link(first)) if found), "")
    name = _SHARED.get(kind) or f"{kind[:40]} that can't be shown here"
    return " ".join(part for part in (f"[{name}]", title[:300], link) if part)


def _inside(given: Mapping[str, Any]) -> Mapping[str, Any]:
    payload = given.get("payload")
    return payload if isinstance(payload, dict) else {}


def _link(given: Mapping[str, Any]) -> str:
    url = given.get("url") or given.get("item_url")
    return url if isinstance(url, str) and url.startswith(("https://", "http://")) and len(url) <= _LINK_LIMIT else ""


def _token_mark(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _said(flag: Any) -> bool:
    """Meta writes its flags as true, and as "true"."""
    return flag is True or flag == 1 or str(flag).lower() == "true"


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> Sequence[Mapping[str, Any]]:
    """The objects of a list; what is none becomes one that says nothing."""
    if not value:
        return []
    return [one if isinstance(one, dict) else {} for one in (value if isinstance(value, list) else [value])]


def _account(value: Any) -> str:
    found = value["id"]
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise ValueError("id")
    return found


def _recipient(event: Mapping[str, Any]) -> str | None:
    try:
        return _account(event["recipient"])
    except _MALFORMED:
        return None


def _mid(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ValueError("mid")
    return external_id(value)


def _named(mid: Any, event: Mapping[str, Any]) -> str:
    """A message's id; of one that has none an id that follows from its event."""
    try:
        return _mid(mid)
    except ValueError:
        content = json.dumps(event, sort_keys=True, default=str)
        return f"event:{hashlib.sha256(content.encode()).hexdigest()}"


def _text(value: Any) -> str:
    """A text; what Meta gives in place of one as it is written in JSON."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)[:_MAX_ODD_TEXT]


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= _MAX_DIGITS else None


def _when(event: Mapping[str, Any]) -> datetime | None:
    """When something happened; None: not told, or not in a way that can be read."""
    try:
        return _moment(event["timestamp"])
    except (*_MALFORMED, OSError):
        return None


def _moment(value: Any) -> datetime:
    """Milliseconds since 1970; the dashboard's test event has seconds, as a text."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 13:
        return datetime.fromtimestamp(int(value) / (1000 if len(value) > 10 else 1), UTC)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("timestamp")
    return datetime.fromtimestamp(value / 1000, UTC)


# ------------------------------------------------------------------------------------------------------------- errors
def _lost(reason: str, words: str, *, writes: bool, code: str | None = None) -> IntegrationError:
    """A lost answer: of a write the outcome is unknown, a read can simply be repeated."""
    return IntegrationError(NAME, reason, words, ambiguous=writes, retryable=not writes, code=code)


def _answered(answer: httpx2.Response, *, writes: bool) -> dict[str, Any]:
    """The answer's object, or its refusal in our words."""
    try:
        payload = json.loads(answer.content)
    except (ValueError, RecursionError):
        payload = None
    error = payload.get("error") if isinstance(payload, dict) else None
    if answer.is_success and isinstance(payload, dict) and error is None:
        return payload
    if not isinstance(error, dict):
        error = {}
    code, subcode = (
        value if isinstance(value, int) else None for value in (error.get("code"), error.get("error_subcode"))
    )
    named = f"{code}" if subcode is None else f"{code}/{subcode}"
    told = None if code is None else named[:40]
    status = answer.status_code
    if code in RATE_LIMITS or status == 429:
        wait = retry_after(answer.headers.get("retry-after")) or _regained(
            answer.headers.get("x-business-use-case-usage")
        )
        raise IntegrationError(NAME, "rate_limited", "Too many calls.", retryable=True, code=told, retry_after_s=wait)
    if status >= 500 or status == 408 or code in _UNCERTAIN:
        raise _lost("server_error", f"HTTP {status}", writes=writes, code=told)
    if answer.is_success and code is None:
        raise _lost("no_answer", "The answer cannot be read.", writes=writes)
    reason = SUBCODES.get(subcode) if subcode is not None else None
    if reason is None and code == 10 and "outside of allowed window" in str(error.get("message")):
        reason = "window_closed"
    if reason is None and code is not None:
        reason = CODES.get(code)
    reason = reason or (_STATUS_REASONS.get(status, "refused") if code is None else "refused")
    # Meta's sentences may name people by their ids.
    raise IntegrationError(NAME, reason, _NUMBER.sub("…", str(error.get("message") or ""))[:300], code=told)


def _regained(usage: str | None) -> float | None:
    """Seconds until Meta takes calls again, by its usage header: {business: [{estimated_time_to_regain_access: minutes}]}."""
    try:
        told = [
            one.get("estimated_time_to_regain_access", 0) for many in json.loads(usage or "{}").values() for one in many
        ]
        return max((float(minutes) * 60 for minutes in told if minutes > 0), default=None)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None  # not what Meta's page describes: a pause of our own choosing will do


provider = MetaMessenger
