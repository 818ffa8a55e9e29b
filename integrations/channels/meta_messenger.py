"""Messenger and Instagram DM through Meta's Send API.

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

_Item = TypeVar("_Item")

NAME = "meta_messenger"
API_VERSION = "v26.0"
FACEBOOK = "https://graph.facebook.com"
INSTAGRAM = "https://graph.instagram.com"

# Events about our messages. Meta reports no failed delivery.
STATES: Mapping[str, DeliveryStatus] = {
    "echo": DeliveryStatus.SENT,
    "delivery": DeliveryStatus.DELIVERED,
    "read": DeliveryStatus.READ,
}

# Meta's error codes to our reasons. Subcodes come first.
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
_UNCERTAIN = frozenset({1, 2, 1200})  # "try again later": the message may have been sent
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
_LISTED = 20  # the most recent messages that Meta lets us read
_MAX_EVENTS = 1000
_MAX_ATTACHMENTS = 100
_MAX_DIGITS = 100
_MAX_RAW_TEXT = 2000
_UNSHOWN = "[message that can't be shown here: open it in Messenger or Instagram]"
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
_ID = re.compile(r"\d{1,100}")
_OUR_ID = re.compile(r"msg_[A-Za-z0-9]{1,60}")
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{1,256}")
_NUMBER = re.compile(r"\d{6,}")
# Attachments that are files. Others (posts, places) become a line of text with a link.
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
    "ephemeral": "disappearing photo",
    "like_heart": "heart",
}
_DASHBOARD = "0"  # the account id in events of the dashboard's "Test" button
_TEST_NAME = "Meta's test event"
_INBOX = "Meta inbox"
_LINK_LIMIT = 2000


@dataclass(frozen=True, slots=True)
class Credentials:
    """One page or Instagram account, and the app with access to it."""

    account_id: str  # entry.id in webhooks: of the page, or of the Instagram professional account
    access_token: str = field(repr=False)
    app_secret: str = field(repr=False)  # signs webhooks
    verify_token: str = field(repr=False)  # chosen by the business and entered in Meta's webhook form
    page_id: str = ""  # Instagram only: the connected page; empty: Instagram's own login
    human_agent: str = ""  # "yes": Meta has granted the app the Human Agent feature
    token_ends: str = ""  # set by `renewed`: a hash of the token and its expiry


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
        if kind not in self.kinds:
            raise ValueError(f"{NAME} does not serve {kind}")
        for given_id in (credentials.account_id, credentials.page_id or "0"):
            if not _ID.fullmatch(given_id):
                raise IntegrationError(NAME, "credentials_invalid", "account_id and page_id must be numbers.")
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
        limits = LIMITS[kind]
        return replace(limits, person_window_hours=PERSON_WINDOW_HOURS) if self._human_agent else limits

    # --------------------------------------------------------------------------------------------------- calls out
    async def send(self, message: OutboundMessage) -> SendResult:
        """Send once; Meta takes no idempotency key. A text with a payment link becomes a button template if it fits.

        Raises: IntegrationError; `ambiguous` after a timeout, a cut connection, a 5xx or an answer without an id.
        """
        body: dict[str, Any] = {"recipient": {"id": message.to}, **self._permission(message)}
        body["message"] = self._content(message)
        if self._kind is ChannelKind.MESSENGER:
            body["message"]["metadata"] = message.message_id  # returned in the echo: resolves a lost answer
        answer = await self._call("POST", f"/{self._sender}/messages", body=body)
        mid = answer.get("message_id")
        if not isinstance(mid, str) or not mid:
            raise IntegrationError(
                NAME, "no_answer", "Meta accepted the message, but its answer contains no id.", ambiguous=True
            )
        return SendResult(external_id=external_id(mid), status=DeliveryStatus.SENT)

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """Find the message in the conversation if exactly one that we sent since `sent_after` has its text.

        Raises: IntegrationError.
        """
        since = sent_after.astimezone(UTC).replace(microsecond=0)  # Meta's times have whole seconds
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
            raise IntegrationError(NAME, "no_answer", "Meta's answer is not readable.", retryable=True) from error

    async def check(self) -> str | None:
        """Raises: IntegrationError (`wrong_account` if the token belongs to another account)."""
        field_names = "user_id" if not self._by_page else "id"
        if self._kind is ChannelKind.INSTAGRAM_DM and self._by_page:
            field_names = "id,instagram_business_account"
        answer = await self._call("GET", "/me", query={"fields": field_names})
        found = answer.get(field_names.partition(",")[0])
        if self._kind is ChannelKind.INSTAGRAM_DM and self._by_page:
            account = answer.get("instagram_business_account")
            found = account.get("id") if isinstance(account, dict) else None
        if str(found) != self._credentials.account_id:
            raise IntegrationError(NAME, "wrong_account", "The token belongs to another account.")
        return self._credentials.account_id

    async def name_of(self, address: str) -> str | None:
        """Read the profile, which Meta shows only of people who have written. Raises: IntegrationError."""
        if not _ID.fullmatch(address):
            return None
        wanted = ("name", "first_name", "last_name") if self._kind is ChannelKind.MESSENGER else ("name", "username")
        answer = await self._call("GET", f"/{address}", query={"fields": ",".join(wanted)})
        names = {name: value.strip() for name in wanted if isinstance(value := answer.get(name), str)}
        full_name = f"{names.get('first_name', '')} {names.get('last_name', '')}".strip()
        return names.get("name") or full_name or names.get("username") or None

    async def renewed(self, *, now: datetime) -> Mapping[str, str] | None:
        """Renew the token of an Instagram login halfway through its 60 days. Raises: IntegrationError."""
        if self._by_page:  # page tokens do not expire
            return None
        token = self._credentials.access_token
        mark, _, ends = self._credentials.token_ends.partition(" ")
        try:
            known = datetime.fromisoformat(ends) if mark == _token_mark(token) else None  # else: a new token
        except ValueError:
            known = None
        if known is not None and known.tzinfo is not None and known - now > _RENEW_BEFORE:
            return None
        # Meta renews a token that is at least a day old and has not expired.
        query = {"grant_type": "ig_refresh_token", "access_token": token}
        answer = await self._call("GET", "/refresh_access_token", query=query, base=self._host)
        fresh, life_s = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(fresh, str) or not fresh or isinstance(life_s, bool) or not isinstance(life_s, int):
            raise IntegrationError(NAME, "no_answer", "Meta's answer contains no token.", retryable=True)
        until = now + timedelta(seconds=min(max(life_s, 0), 10**8))
        return {"access_token": fresh, "token_ends": f"{_token_mark(fresh)} {until.isoformat(timespec='seconds')}"}

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _permission(self, message: OutboundMessage) -> dict[str, str]:
        last_inbound_at = message.last_inbound_at
        if last_inbound_at is None:  # unknown: let Meta decide
            return {"messaging_type": "RESPONSE"}
        age = datetime.now(UTC) - last_inbound_at
        if age < timedelta(hours=24):
            return {"messaging_type": "RESPONSE"}
        by_person = message.author is Author.PERSON
        if by_person and self._human_agent and age < timedelta(hours=PERSON_WINDOW_HOURS):
            return {"messaging_type": "MESSAGE_TAG", "tag": "HUMAN_AGENT"}
        raise IntegrationError(
            NAME, "window_closed", "The contact's last message is outside the window.", code="window_closed"
        )

    def _content(self, message: OutboundMessage) -> dict[str, Any]:
        limits = LIMITS[self._kind]
        link = payment_link(message, public_url=self._environment.public_url)
        # The link stays in the text: Instagram on the web shows no buttons.
        text = message.body if link is None or link in message.body else f"{message.body}\n{link}"
        if not message.body.strip():
            raise IntegrationError(NAME, "empty_message", "The message is empty.", code="empty_message")
        length = limits.length_of(text)
        if limits.max_length is not None and length > limits.max_length:
            raise IntegrationError(
                NAME, "too_long", f"The message is longer than {limits.max_length}.", code="too_long"
            )
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
        writes = method == "POST"
        params = dict(query or {})
        token = self._credentials.access_token
        if self._by_page:
            # Apps can require this proof of the secret with every call.
            secret = self._credentials.app_secret.encode()
            params["appsecret_proof"] = hmac.new(secret, token.encode(), hashlib.sha256).hexdigest()
        try:
            # The token goes into a header, since URLs end up in logs.
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
            raise _lost_answer("timeout", "Meta did not answer.", writes=writes) from error
        except httpx2.HTTPError as error:
            raise _lost_answer("connection_lost", "The connection to Meta was lost.", writes=writes) from error
        return _parsed(answer, writes=writes)

    def _open(self) -> httpx2.AsyncClient:
        if self._client is None:  # no await here, so two tasks cannot both open a client
            self._client = httpx2.AsyncClient(timeout=self._environment.timeout_s, trust_env=False)
        return self._client

    # ---------------------------------------------------------------------------------------------------- calls in
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Answer Meta's check of the address (GET), or verify and read the events of this account (POST).

        Events of the app's other accounts are listed in `others`. Raises: SignatureInvalid, PayloadInvalid.
        """
        if request.method == "GET":
            return self._verified_address(request.query)
        self._verify(request)  # the signature has no timestamp: message ids detect repeats
        try:
            # One malformed character or number must not lose the batch.
            payload = json.loads(request.body.decode("utf-8-sig", "replace"), parse_int=_integer)
        except (ValueError, RecursionError) as error:
            raise PayloadInvalid(NAME, "payload_invalid", type(error).__name__) from error
        kind = payload.get("object") if isinstance(payload, dict) else None
        if kind not in _OBJECTS.values():
            raise PayloadInvalid(NAME, "unknown_object", "The callback's object is unknown.")
        if kind != _OBJECTS[self._kind]:
            raise PayloadInvalid(NAME, "channel_mismatch", "The callback is for another kind of channel.")
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
            raise PayloadInvalid(NAME, "challenge_invalid", "The challenge is not valid.")
        return ChannelWebhook(answer_body=challenge)

    def _verify(self, request: WebhookRequest) -> None:
        header = request.headers.get("x-hub-signature-256", "")
        if not header:
            raise SignatureInvalid(NAME, "signature_missing")
        if not self._credentials.app_secret:  # anyone can sign with an empty secret
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
        # Skip unreadable events: Meta repeats a refused request for hours, including its readable messages.
        # Refuse a request only if nothing in it is readable.
        unreadable: list[Exception] = []
        for entry in entries:
            try:
                account = str(entry["id"])
                events = self._events(entry)
            except _MALFORMED as error:
                log.warning("entry_not_understood", provider=NAME, error=type(error).__name__)
                unreadable.append(error)
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
                statuses += _read_event(_statuses, event)
                written = _read_event(_messages, event)
                messages += (
                    [replace(one, sender_name=_TEST_NAME) for one in written] if account == _DASHBOARD else written
                )
                elsewhere += _read_event(_elsewhere, event)
                changes += _read_event(partial(_changes, account_id=self._credentials.account_id), event)
        if unreadable and len(unreadable) == len(entries):
            raise unreadable[0]
        return ChannelWebhook(
            statuses=tuple(statuses),
            messages=tuple(messages),
            elsewhere=tuple(elsewhere),
            changes=tuple(changes),
            others=tuple(dict.fromkeys(others)),
            answer_body="EVENT_RECEIVED",
        )

    def _events(self, entry: Mapping[str, Any]) -> list[Any]:
        events = entry.get("messaging", [])
        if not isinstance(events, list):
            raise TypeError("not a list of events")
        # The dashboard's "Test" button puts its event here. Other changes are public comments. `standby` and opt-ins are ignored.
        changes = entry.get("changes", [])
        test_events = [
            change["value"]
            for change in (changes if isinstance(changes, list) else [])
            if isinstance(change, dict) and change.get("field") == "messages" and isinstance(change.get("value"), dict)
        ]
        return [*events, *test_events]


def _read_event(read: Callable[[Mapping[str, Any]], Iterator[_Item]], event: Mapping[str, Any]) -> list[_Item]:
    try:
        return [*read(event)]
    except _MALFORMED as error:
        log.warning("event_not_understood", provider=NAME, error=type(error).__name__)
        return []


def _statuses(event: Mapping[str, Any]) -> Iterator[StatusUpdate]:
    message = _object(event.get("message"))
    if _is_true(message.get("is_echo")) and not _is_true(message.get("is_deleted")):
        metadata = message.get("metadata")
        ours = metadata if isinstance(metadata, str) and _OUR_ID.fullmatch(metadata) else None
        yield StatusUpdate(external_id=_mid(message["mid"]), status=STATES["echo"], message_id=ours)
    for word in ("delivery", "read"):
        receipt = event.get(word)
        if not receipt:
            continue
        mids = receipt.get("mids") or ([receipt["mid"]] if "mid" in receipt else [])
        at = _moment(receipt["watermark"]) if "watermark" in receipt else _moment(event["timestamp"])
        for mid in mids:
            yield StatusUpdate(external_id=_mid(mid), status=STATES[word], occurred_at=at)
        if not mids:  # Messenger reports reads up to a moment, without message ids
            address = _account_id(event["sender"])
            yield StatusUpdate(external_id="", status=STATES[word], occurred_at=at, address=address, up_to=at)


def _messages(event: Mapping[str, Any]) -> Iterator[InboundMessage]:
    message, postback = event.get("message"), event.get("postback")
    given = _object(message)
    if _is_true(given.get("is_echo")) or _is_true(given.get("is_deleted")) or not (message or postback):
        return
    sender = _account_id(event["sender"])
    mid = given.get("mid") or _object(postback).get("mid")
    if not (mid or message) and "timestamp" in event:  # a pressed button may have no id
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
        external_id=_mid_or_hash(mid, event),
        sender=sender,
        recipient=_recipient(event),
        body=body,
        opt_out=opt_out,
        occurred_at=_when(event),
        attachments=found,
        in_reply_to=answered,
    )


def _elsewhere(event: Mapping[str, Any]) -> Iterator[WrittenElsewhere]:
    # An echo without our id was written in Meta's own inbox or app.
    message = _object(event.get("message"))
    metadata = message.get("metadata")
    ours = isinstance(metadata, str) and _OUR_ID.fullmatch(metadata)
    if not _is_true(message.get("is_echo")) or _is_true(message.get("is_deleted")) or ours:
        return
    body, found, answered = _content(message)
    kinds = {str(one.get("type")) for one in _objects(message.get("attachments"))}
    yield WrittenElsewhere(
        external_id=_mid(message["mid"]),
        recipient=_account_id(event["recipient"]),
        body=body,
        author=_INBOX,
        occurred_at=_when(event),
        attachments=found,
        in_reply_to=answered,
        template=kinds == {"template"} and not message.get("text"),
    )


def _changes(event: Mapping[str, Any], account_id: str) -> Iterator[MessageChange]:
    message, edit, reaction = (_object(event.get(name)) for name in ("message", "message_edit", "reaction"))
    if _is_true(message.get("is_deleted")):
        yield MessageChange(external_id=_mid(message["mid"]), removed=True, occurred_at=_when(event))
    if edit and edit.get("text") is not None:
        text = _text(edit["text"])
        yield MessageChange(
            external_id=_mid(edit["mid"]),
            body=text,
            opt_out=opt_out_word(text, by_phone=False),
            occurred_at=_when(event),
        )
    if reaction and _account_id(event["sender"]) != account_id:
        taken_back = reaction.get("action") == "unreact"
        emoji = "" if taken_back else _text(reaction.get("emoji") or reaction.get("reaction"))
        yield MessageChange(external_id=_mid(reaction["mid"]), reaction=emoji, occurred_at=_when(event))


def _content(message: Mapping[str, Any]) -> tuple[str, list[dict[str, str]], str | None]:
    lines = [_text(message.get("text") or _object(message.get("quick_reply")).get("payload"))]
    files: list[dict[str, str]] = []
    for given in _objects(message.get("attachments"))[:_MAX_ATTACHMENTS]:
        kind = str(given.get("type") or "attachment")
        if kind in _MEDIA:
            url = _payload(given).get("url")
            files.append({"content_type": _MEDIA[kind], **({"url": url} if isinstance(url, str) else {})})
        else:
            lines.append(_shared(kind, given))
    answered = message.get("reply_to")
    answered = answered if isinstance(answered, dict) else {}
    story = answered.get("story")
    if isinstance(story, dict):
        lines.append(f"[reply to your story] {_link(story)}")
    if _is_true(message.get("is_unsupported")):
        lines.append(_UNSHOWN)
    mid = answered.get("mid")
    return "\n".join(line.strip() for line in lines if line.strip()), files, _mid(mid) if mid else None


def _shared(kind: str, given: Mapping[str, Any]) -> str:
    inside = _payload(given)
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


def _payload(given: Mapping[str, Any]) -> Mapping[str, Any]:
    payload = given.get("payload")
    return payload if isinstance(payload, dict) else {}


def _link(given: Mapping[str, Any]) -> str:
    url = given.get("url") or given.get("item_url")
    return url if isinstance(url, str) and url.startswith(("https://", "http://")) and len(url) <= _LINK_LIMIT else ""


def _token_mark(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _is_true(flag: Any) -> bool:
    return flag is True or flag == 1 or str(flag).lower() == "true"


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> Sequence[Mapping[str, Any]]:
    if not value:
        return []
    return [one if isinstance(one, dict) else {} for one in (value if isinstance(value, list) else [value])]


def _account_id(value: Any) -> str:
    found = value["id"]
    if isinstance(found, int) and not isinstance(found, bool):
        found = str(found)
    if not isinstance(found, str) or not _ID.fullmatch(found):
        raise ValueError("id")
    return found


def _recipient(event: Mapping[str, Any]) -> str | None:
    try:
        return _account_id(event["recipient"])
    except _MALFORMED:
        return None


def _mid(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise ValueError("mid")
    return external_id(value)


def _mid_or_hash(mid: Any, event: Mapping[str, Any]) -> str:
    try:
        return _mid(mid)
    except ValueError:  # no id: a hash of the event, so that a repeat has the same
        content = json.dumps(event, sort_keys=True, default=str)
        return f"event:{hashlib.sha256(content.encode()).hexdigest()}"


def _text(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value, ensure_ascii=False, default=str)[:_MAX_RAW_TEXT]


def _integer(text: str) -> int | None:
    return int(text) if len(text) <= _MAX_DIGITS else None


def _when(event: Mapping[str, Any]) -> datetime | None:
    try:
        return _moment(event["timestamp"])
    except (*_MALFORMED, OSError):
        return None


def _moment(value: Any) -> datetime:
    # The test event has seconds, as a string; all others milliseconds.
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 13:
        return datetime.fromtimestamp(int(value) / (1000 if len(value) > 10 else 1), UTC)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("timestamp")
    return datetime.fromtimestamp(value / 1000, UTC)


# ------------------------------------------------------------------------------------------------------------- errors
def _lost_answer(reason: str, message: str, *, writes: bool, code: str | None = None) -> IntegrationError:
    return IntegrationError(NAME, reason, message, ambiguous=writes, retryable=not writes, code=code)


def _parsed(answer: httpx2.Response, *, writes: bool) -> dict[str, Any]:
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
    vendor_code = None if code is None else named[:40]
    status = answer.status_code
    if code in RATE_LIMITS or status == 429:
        wait = retry_after(answer.headers.get("retry-after")) or _wait_from_usage(
            answer.headers.get("x-business-use-case-usage")
        )
        raise IntegrationError(
            NAME, "rate_limited", "Meta's rate limit is reached.", retryable=True, code=vendor_code, retry_after_s=wait
        )
    if status >= 500 or status == 408 or code in _UNCERTAIN:
        raise _lost_answer("server_error", f"HTTP {status}", writes=writes, code=vendor_code)
    if answer.is_success and code is None:
        raise _lost_answer("no_answer", "Meta's answer is not readable.", writes=writes)
    reason = SUBCODES.get(subcode) if subcode is not None else None
    if reason is None and code == 10 and "outside of allowed window" in str(error.get("message")):
        reason = "window_closed"
    if reason is None and code is not None:
        reason = CODES.get(code)
    reason = reason or (_STATUS_REASONS.get(status, "refused") if code is None else "refused")
    # Meta's messages may contain people's ids.
    raise IntegrationError(NAME, reason, _NUMBER.sub("…", str(error.get("message") or ""))[:300], code=vendor_code)


def _wait_from_usage(usage: str | None) -> float | None:
    try:
        minutes = [
            one.get("estimated_time_to_regain_access", 0) for many in json.loads(usage or "{}").values() for one in many
        ]
        return max((float(wait) * 60 for wait in minutes if wait > 0), default=None)
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None  # undocumented format: use our own pause


provider = MetaMessenger
