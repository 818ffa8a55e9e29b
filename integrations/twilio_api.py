"""Twilio's Messages API, shared by the SMS and WhatsApp channels.

Source: www.twilio.com/docs/messaging/api/message-resource (API 2010-04-01), /docs/messaging/guides/webhook-request,
/docs/messaging/guides/outbound-message-status-in-status-callbacks, /docs/usage/webhooks/webhooks-security.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import aiohttp
from twilio.base.exceptions import (  # type: ignore[import-untyped]
    TwilioException,
    TwilioRestException,
    TwilioServiceException,
)
from twilio.http.async_http_client import AsyncTwilioHttpClient  # type: ignore[import-untyped]
from twilio.request_validator import (  # type: ignore[import-untyped]
    HMAC_SHA1,
    HMAC_SHA256,
    RequestValidator,
    get_signature_algorithm,
)
from twilio.rest import Client  # type: ignore[import-untyped]

from integrations.base import (
    Channel,
    ChannelKind,
    ChannelWebhook,
    DeliveryStatus,
    Environment,
    Feature,
    InboundMessage,
    IntegrationError,
    OutboundMessage,
    PayloadInvalid,
    SendResult,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
    retry_after,
)
from integrations.sms import asks_help, opt_out_word
from integrations.twilio_errors import CANCELED, explanation_of, reason_of

# SENT includes Twilio's own queue: we would send a QUEUED or SENDING message again.
STATES: Mapping[str, DeliveryStatus] = {
    "accepted": DeliveryStatus.SENT,
    "scheduled": DeliveryStatus.SENT,
    "queued": DeliveryStatus.SENT,
    "sending": DeliveryStatus.SENT,
    "sent": DeliveryStatus.SENT,
    "delivered": DeliveryStatus.DELIVERED,
    "partially_delivered": DeliveryStatus.DELIVERED,
    "read": DeliveryStatus.READ,
    "undelivered": DeliveryStatus.FAILED,
    "failed": DeliveryStatus.FAILED,
    "canceled": DeliveryStatus.FAILED,
}
INBOUND_STATES = frozenset({"receiving", "received"})

_OPTED_OUT = "21610"
_STATUS_REASONS: Mapping[int, str] = {401: "unauthorized", 403: "unauthorized", 404: "not_found", 429: "rate_limited"}

_SID = re.compile(r"(SM|MM)[0-9a-fA-F]{32}")
_NUMBER = re.compile(r"\+?\d{6,}")
# Hosts by region. Data, auth tokens and API keys are separate in each.
# Source: www.twilio.com/docs/global-infrastructure/using-the-twilio-rest-api-in-a-non-us-region.
HOSTS: Mapping[str, str] = {
    "us1": "https://api.twilio.com",
    "ie1": "https://api.dublin.ie1.twilio.com",
    "au1": "https://api.sydney.au1.twilio.com",
}
# On short codes outside messaging services, Twilio answers neither HELP nor STOP.
# Source: help.twilio.com, "Customizing HELP & STOP messages for SMS filtering".
_SHORT_CODE = re.compile(r"\d{3,8}")
_COORDINATE = re.compile(r"-?\d{1,3}(\.\d{1,20})?")
_MAX_FIELDS = 500
_MAX_MEDIA = 100
_OPT_OUTS: Mapping[str, bool | None] = {"STOP": True, "START": False, "HELP": None}
_LOOK_UP_LIMIT = 100

# The SDK logs phone numbers at INFO: discard its log.
_SILENT = logging.Logger("twilio_api.sdk", level=logging.CRITICAL + 1)

# Of the task's running call, since the SDK's exceptions have no headers.
_retry_after: ContextVar[str | None] = ContextVar("twilio_retry_after", default=None)


@dataclass(frozen=True, slots=True)
class Credentials:
    """One Twilio account, and a number or a messaging service (which takes precedence)."""

    account_sid: str
    auth_token: str = field(repr=False)  # signs webhooks; also authenticates calls without an API key
    from_number: str = ""
    messaging_service_sid: str = ""
    api_key_sid: str = ""
    api_key_secret: str = field(default="", repr=False)
    secondary_auth_token: str = field(default="", repr=False)  # accepted on webhooks during token rotation
    shared_key: str = field(default="", repr=False)  # signs webhooks with algorithm=HMAC_SHA256
    answer_help: str = ""  # "yes": answer HELP, since Twilio's own handling is disabled for this number
    region: str = ""  # "us1" (default), "ie1" or "au1"


class _BasicAuth:  # the SDK's own uses aiohttp's deprecated BasicAuth
    def __init__(self, user: str, password: str) -> None:
        self._header = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def to_auth_strategy(self) -> _BasicAuth:
        return self

    def get_auth_string(self) -> str:
        return self._header


class _Http(AsyncTwilioHttpClient):  # type: ignore[misc]
    # Never set max_retries: it sends messages again.
    async def request(self, *args: Any, **kwargs: Any) -> Any:
        _retry_after.set(None)
        response = await super().request(*args, **kwargs)
        _retry_after.set(response.headers.get("Retry-After"))
        return response


class _Form(dict[str, list[str]]):
    def getlist(self, name: str) -> list[str]:
        return self[name]

    def first(self, name: str) -> str:
        return self.get(name, [""])[0]


class TwilioMessages(Channel):
    """Base class of Twilio's channels."""

    credentials: ClassVar[type[Any]] = Credentials
    features: ClassVar[frozenset[Feature]] = frozenset(
        {
            Feature.SIGNED_BODY,
            Feature.DELIVERED,
            Feature.READ,
            Feature.FAILED,
            Feature.LOOK_UP,
            Feature.SHARED_CALLBACKS,
            Feature.FILES,
            Feature.CAPTIONS,
        }
    )
    prefix: ClassVar[str] = ""  # of numbers in Twilio's From and To
    inbound_prefixes: ClassVar[tuple[str, ...]] = ()  # of other networks that reach the same sender
    answers_help: ClassVar[bool] = False  # whether Twilio answers HELP by default

    def __init__(self, credentials: Credentials, *, kind: ChannelKind, environment: Environment) -> None:
        if kind not in self.kinds:
            raise ValueError(f"{self.name} does not serve {kind}")
        region = credentials.region.strip().lower() or "us1"
        if region not in HOSTS:
            raise IntegrationError(self.name, "credentials_invalid", f"region must be one of {', '.join(HOSTS)}.")
        self._base = environment.base_addresses.get("twilio", HOSTS[region]).rstrip("/")
        self._credentials = credentials
        self._environment = environment
        self._client: Any = None
        self._answers_help = self.answers_help and credentials.answer_help.strip().lower() != "yes"

    # --------------------------------------------------------------------------------------------------- calls out
    async def send(self, message: OutboundMessage) -> SendResult:
        """Send once, never retry: Twilio takes no idempotency key.

        Raises: IntegrationError; `ambiguous` after a timeout, a cut connection, a 5xx or an answer without an id.
        """
        if message.template_id is None and not message.body.strip():
            raise IntegrationError(self.name, "empty_message", "The message is empty.", code="21602")
        arguments = {"to": self._address(message.to), **self._content(message), **self._sender()}
        if message.status_url:
            arguments["status_callback"] = message.status_url
        async with self._calling(writes=True) as client:
            sent = await client.messages.create_async(**arguments)
        if not isinstance(sent.sid, str) or not _SID.fullmatch(sent.sid):
            raise IntegrationError(
                self.name, "no_answer", "Twilio accepted the message, but its answer contains no id.", ambiguous=True
            )
        return SendResult(external_id=sent.sid, status=STATES.get(str(sent.status), DeliveryStatus.SENT))

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        """Find the only message to this address since `sent_after` with this text. Raises: IntegrationError."""
        since = sent_after.astimezone(UTC).replace(microsecond=0)
        async with self._calling(writes=False) as client:
            # One second earlier: whether the bound is inclusive is undocumented.
            listed = await client.messages.list_async(
                to=self._address(message.to), date_sent_after=since - timedelta(seconds=1), limit=_LOOK_UP_LIMIT
            )
        if len(listed) >= _LOOK_UP_LIMIT:
            return None  # there may be more matches
        fitting = [candidate for candidate in listed if self._matches(candidate, message, since)]
        if len(fitting) != 1 or str(fitting[0].status) not in STATES:
            return None
        found = fitting[0]
        code = None if found.error_code is None else str(found.error_code)
        return _status(found.sid, str(found.status), code, occurred_at=found.date_updated)

    async def check(self) -> str | None:
        """Raises: IntegrationError, also if the account is suspended or closed."""
        self._sender()
        async with self._calling(writes=False) as client:
            account = await client.api.v2010.accounts(self._credentials.account_sid).fetch_async()
        if str(account.status) != "active":
            raise IntegrationError(self.name, "account_inactive", f"The account is {account.status}.")
        return str(account.sid)

    async def aclose(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.http_client.close()

    def _address(self, number: str) -> str:
        return self.prefix + number.removeprefix(self.prefix)

    def _content(self, message: OutboundMessage) -> dict[str, str]:
        return {"body": message.body}

    def _has_content(self, listed: str, message: OutboundMessage) -> bool:
        return listed.strip() == message.body.strip()

    def _sender(self) -> dict[str, str]:
        if self._credentials.messaging_service_sid:
            return {"messaging_service_sid": self._credentials.messaging_service_sid}
        if self._credentials.from_number:
            return {"from_": self._address(self._credentials.from_number)}
        raise IntegrationError(self.name, "invalid_sender", "Configure a number or a messaging service.")

    def _matches(self, candidate: Any, message: OutboundMessage, since: datetime) -> bool:
        if not str(candidate.direction).startswith("outbound"):
            return False
        if candidate.to != self._address(message.to) or not self._has_content(candidate.body or "", message):
            return False
        sender = self._credentials.messaging_service_sid
        if sender:
            if candidate.messaging_service_sid != sender:
                return False
        elif candidate.from_ != self._address(self._credentials.from_number):
            return False
        return candidate.date_created is not None and candidate.date_created >= since

    def _open(self) -> Any:
        if self._client is None:  # no await here, so two tasks cannot both open a client
            credentials = self._credentials
            self._client = Client(
                account_sid=credentials.account_sid,
                credential_provider=self._auth(),
                http_client=_Http(logger=_SILENT),
                # Ignore the process's TWILIO_EDGE and TWILIO_REGION, which change the host.
                environment={"TWILIO_EDGE": "", "TWILIO_REGION": ""},
            )
            self._client.api.base_url = self._base
        return self._client

    def _auth(self) -> _BasicAuth:
        credentials = self._credentials
        return _BasicAuth(
            credentials.api_key_sid or credentials.account_sid,
            credentials.api_key_secret if credentials.api_key_sid else credentials.auth_token,
        )

    @asynccontextmanager
    async def _calling(self, *, writes: bool) -> AsyncIterator[Any]:
        try:
            # The SDK's timeout has no effect on its asynchronous client.
            async with asyncio.timeout(self._environment.timeout_s):
                yield self._open()
        except TwilioException as error:
            raise self._mapped_error(error, writes=writes) from error
        except aiohttp.ClientConnectorError as error:  # nothing was sent
            raise IntegrationError(self.name, "unreachable", "No connection to Twilio.", retryable=True) from error
        except TimeoutError as error:  # before ClientError: aiohttp's timeouts are both
            raise self._lost_answer("timeout", "Twilio did not answer.", writes=writes) from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._lost_answer("connection_lost", "The connection to Twilio was lost.", writes=writes) from error
        except (ValueError, TypeError, AttributeError) as error:  # a 2xx without a JSON object
            raise self._lost_answer("no_answer", "Twilio's answer is not readable.", writes=writes) from error

    def _lost_answer(self, reason: str, words: str, *, writes: bool, code: str | None = None) -> IntegrationError:
        return IntegrationError(self.name, reason, words, ambiguous=writes, retryable=not writes, code=code)

    def _mapped_error(self, error: TwilioException, *, writes: bool) -> IntegrationError:
        if isinstance(error, TwilioRestException):
            # Twilio's messages quote the phone number; tracebacks print them.
            error.msg = _masked(error.msg)
            status, code, words = error.status, error.code, error.msg
        elif isinstance(error, TwilioServiceException):
            error.title, error.detail = _masked(error.title), _masked(error.detail)
            status, code, words = error.status, error.code, error.title
        else:  # list pages: the SDK only passes the response
            response = error.args[1] if len(error.args) > 1 else None
            status, code, words = getattr(response, "status_code", 0), None, str(error.args[0]) if error.args else ""
        # Without a code, the SDK repeats the HTTP status.
        vendor_code = None if code is None or code == status else str(code)
        if status == 429 or vendor_code == "20429":
            wait = retry_after(_retry_after.get())
            return IntegrationError(
                self.name, "rate_limited", words, retryable=True, code=vendor_code, retry_after_s=wait
            )
        if status >= 500 or status in (0, 408):
            return self._lost_answer("server_error", f"HTTP {status}", writes=writes, code=vendor_code)
        reason = reason_of(vendor_code) or _STATUS_REASONS.get(status, "refused")
        return IntegrationError(
            self.name, reason, words or (explanation_of(vendor_code) if vendor_code else ""), code=vendor_code
        )

    def media_headers(self, url: str) -> Mapping[str, str]:
        """Credentials for this account's media at Twilio only.

        Source: www.twilio.com/docs/messaging/api/media-resource (HTTP basic authentication for media URLs).
        """
        if not url.startswith(f"{self._base}/2010-04-01/Accounts/{self._credentials.account_sid}/"):
            return {}
        return {"Authorization": self._auth().get_auth_string()}

    # ---------------------------------------------------------------------------------------------------- calls in
    def receive(self, request: WebhookRequest) -> ChannelWebhook:
        """Verify and read a status callback or an inbound message. Raises: SignatureInvalid, PayloadInvalid."""
        form = self._verified_form(request)  # the signature has no timestamp: MessageSid detects repeats
        if form.first("AccountSid") != self._credentials.account_sid:
            raise PayloadInvalid(self.name, "foreign_account", "The callback belongs to another account.")
        external_id = form.first("MessageSid") or form.first("SmsSid")
        if not _SID.fullmatch(external_id):
            raise PayloadInvalid(self.name, "no_message_id", "The callback contains no message id.")
        state = form.first("MessageStatus") or form.first("SmsStatus")
        if state in INBOUND_STATES or (not state and "Body" in form):
            return _webhook(messages=(self._inbound(form, external_id),))
        if state not in STATES:
            raise PayloadInvalid(self.name, "unknown_status", "The callback's status is unknown.")
        code, words = form.first("ErrorCode") or None, form.first("ErrorMessage") or None
        return _webhook(statuses=(_status(external_id, state, code, words),))

    def _inbound(self, form: _Form, external_id: str) -> InboundMessage:
        sender = form.first("From")
        prefixes = [known for known in (*self.inbound_prefixes, self.prefix) if sender.startswith(known)]
        number = sender.removeprefix(prefixes[0]) if prefixes else ""
        if not number or ":" in number:
            raise PayloadInvalid(self.name, "channel_mismatch", "The sender's address is for another kind of channel.")
        media = _media_count(form)
        body = _text(form, media=media)
        # With Advanced Opt-Out, Twilio interprets the word in the contact's language.
        kind = form.first("OptOutType").upper()
        opt_out = _OPT_OUTS[kind] if kind in _OPT_OUTS else _opt_out(form, body)
        unanswered_by_twilio = (
            bool(_SHORT_CODE.fullmatch(form.first("To"))) and not form.first("MessagingServiceSid") and not kind
        )
        return InboundMessage(
            external_id=external_id,
            sender=number,
            body=body,
            recipient=form.first("To").removeprefix(self.prefix) or None,
            sender_name=form.first("ProfileName") or None,
            opt_out=opt_out,
            in_reply_to=form.first("OriginalRepliedMessageSid") or None,
            help_answered=kind == "HELP" or (self._answers_help and asks_help(body) and not unanswered_by_twilio),
            stop_unanswered=opt_out is True and unanswered_by_twilio,
            attachments=[
                {"url": form.first(f"MediaUrl{i}"), "content_type": form.first(f"MediaContentType{i}")}
                for i in range(media)
            ],
        )

    def _verified_form(self, request: WebhookRequest) -> _Form:
        signature = request.headers.get("x-twilio-signature", "")
        if not signature:  # RequestValidator raises TypeError on None
            raise SignatureInvalid(self.name, "signature_missing")
        algorithm = get_signature_algorithm(request.headers.get("x-twilio-webhooks-signature-settings", "")).upper()
        form = _Form()
        try:
            text = request.body.decode("utf-8")
            # Blank values are signed too.
            for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS):
                form.setdefault(name, []).append(value)
            verified = any(
                RequestValidator(secret).validate(request.public_url, form, signature, algorithm)
                for secret in self._secrets(algorithm)
            )
        except ValueError as error:  # not UTF-8, too many fields, or an invalid URL
            raise SignatureInvalid(self.name) from error
        if not verified:
            raise SignatureInvalid(self.name)
        return form

    def _secrets(self, algorithm: str) -> list[str]:
        # Never an empty secret: anyone could sign with it.
        credentials = self._credentials
        if algorithm == HMAC_SHA256:
            candidates = [credentials.shared_key or credentials.auth_token]
        elif algorithm == HMAC_SHA1:
            candidates = [credentials.auth_token, credentials.secondary_auth_token]
        else:
            candidates = []
        return [secret for secret in candidates if secret]


def _webhook(*, statuses: tuple[StatusUpdate, ...] = (), messages: tuple[InboundMessage, ...] = ()) -> ChannelWebhook:
    return ChannelWebhook(statuses=statuses, messages=messages, answer_body="<Response/>", answer_type="text/xml")


def _media_count(form: _Form) -> int:
    stated = form.first("NumMedia")
    count = int(stated) if stated.isascii() and stated.isdecimal() and len(stated) < 4 else 0
    named = [int(name[8:]) + 1 for name in form if re.fullmatch(r"MediaUrl\d{1,2}", name)]
    return min(max([count, *named]), _MAX_MEDIA)


def _opt_out(form: _Form, body: str) -> bool | None:
    found = opt_out_word(body)
    # ButtonPayload: a template's "Stop promotions" button.
    return opt_out_word(form.first("ButtonPayload"), by_phone=False) if found is None else found


def _text(form: _Form, *, media: int) -> str:
    body = form.first("Body")
    latitude, longitude = form.first("Latitude").strip(), form.first("Longitude").strip()
    named = [known for name in ("Label", "Address") if (known := form.first(name).strip())]
    located = _COORDINATE.fullmatch(latitude) and _COORDINATE.fullmatch(longitude)
    if located or named:
        place = ", ".join(dict.fromkeys([*named, *([f"{latitude}, {longitude}"] if located else [])]))
        rest = "" if body.strip() in named else body  # Twilio repeats the place's name or address as the text
        return f"{rest}\nLocation: {place}".strip()
    if body.strip():
        return body
    # FlowData and InteractiveData are JSON forms.
    for name in ("ButtonText", "ListTitle", "FlowData", "InteractiveData", "ButtonPayload", "ListId"):
        if form.first(name).strip():
            return form.first(name)
    types = [form.first(f"MediaContentType{i}").partition(";")[0].strip().lower() for i in range(media)]
    if types and all(one in ("text/vcard", "text/x-vcard") for one in types):
        return "[contact card]" if len(types) == 1 else f"[{len(types)} contact cards]"
    kind = form.first("MessageType").strip().lower()
    if not media and kind not in ("", "text"):
        return f"[{kind[:40]} message that can't be shown here]"
    return body


def _status(
    sid: str, state: str, code: str | None, words: str | None = None, *, occurred_at: datetime | None = None
) -> StatusUpdate:
    failed = STATES[state] is DeliveryStatus.FAILED
    explanation = explanation_of(code, _masked(words)) if code else None
    return StatusUpdate(
        external_id=sid,
        status=STATES[state],
        error_code=code,
        error_message=explanation or ((CANCELED if state == "canceled" else explanation_of(None)) if failed else None),
        occurred_at=occurred_at,
        reason=reason_of(code) if failed else None,
        opted_out=code == _OPTED_OUT,
    )


def _masked(words: object) -> str:
    return _NUMBER.sub("…", str(words or ""))
