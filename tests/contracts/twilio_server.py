"""A stateful fake of Twilio's Messages API, checked by a contract, and the signed requests that Twilio sends."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from integrations.sms import segments
from tests.contracts.openapi import Answer, Call, Contract, ContractServer, vendor_file

ACCOUNT_SID = "AC00000000000000000000000000000001"
AUTH_TOKEN = "test-auth-token-not-real"
FROM_NUMBER = "+14155550100"
SERVICE_SID = "MG00000000000000000000000000000001"
API_KEY_SID = "SK00000000000000000000000000000001"
API_KEY_SECRET = "test-api-key-secret-not-real"
VENDOR_FILE = "twilio-api-v2010.openapi.json"

WHATSAPP = "whatsapp:"
TEMPLATE_SID = "HX00000000000000000000000000000001"

_ADDRESS = re.compile(r"(whatsapp:)?\+[1-9]\d{6,14}")
_DEFAULT_PAGE = 50
_MESSAGES = {
    20001: "Invalid parameter",
    20003: "Authenticate",
    20404: "The requested resource was not found",
    20429: "Too Many Requests",
    20500: "An internal server error has occurred",
    21211: "The 'To' number {to} is not a valid phone number.",
    21602: "Message body is required.",
    21603: "A 'From' phone number is required.",
    21606: "The 'From' phone number {sender} is not a valid, SMS-capable inbound phone number for your account.",
    21609: "The 'StatusCallback' URL is not a valid URL.",
    21610: "Attempt to send to unsubscribed recipient {to}",
    21614: "'To' number {to} is not a valid mobile number",
    21617: "The concatenated message body exceeds the 1600 character limit.",
    21655: "The ContentSid is invalid.",
    21656: "The ContentVariables Parameter is invalid.",
    63007: "Twilio could not find a Channel with the specified From address",
}


def our_contract() -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(Path(__file__).with_name("twilio.json").read_bytes()))


def contracts() -> list[Contract]:
    theirs = vendor_file(VENDOR_FILE)
    return [Contract(our_contract(), name="ours"), *([Contract(theirs, name="twilio's")] if theirs else [])]


def signature(url: str, params: Mapping[str, str | Sequence[str]], *, secret: str, algorithm: str = "HMAC_SHA1") -> str:
    """Twilio's signature, computed from its documentation, not by its SDK."""
    text = url
    for name in sorted(params):
        given = params[name]
        for value in sorted({given} if isinstance(given, str) else set(given)):
            text += name + value
    digest = hashlib.sha256 if algorithm == "HMAC_SHA256" else hashlib.sha1
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), digest).digest()).decode()


def signed(
    url: str,
    params: Mapping[str, str | Sequence[str]],
    *,
    secret: str = AUTH_TOKEN,
    algorithm: str | None = None,
) -> tuple[bytes, dict[str, str]]:
    """A webhook request as (raw body, lower-case headers), signed for this public URL."""
    headers = {
        "content-type": "application/x-www-form-urlencoded; charset=UTF-8",
        "x-twilio-signature": signature(url, params, secret=secret, algorithm=algorithm or "HMAC_SHA1"),
    }
    if algorithm is not None:
        headers["x-twilio-webhooks-signature-settings"] = f"key=webhooks_sharedkey_1,algorithm={algorithm}"
    return urlencode(params, doseq=True).encode(), headers


def _variables(text: str) -> dict[str, str] | None:
    try:
        given = json.loads(text or "{}")
    except ValueError:
        return None
    fits = isinstance(given, dict) and all(isinstance(value, str) for value in given.values())
    return given if fits else None


class TwilioServer(ContractServer):
    """Keeps messages and signs callbacks."""

    def __init__(self, contract: Contract, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(contract)
        self.messages: list[dict[str, Any]] = []
        self.opted_out: set[str] = set()
        self.numbers = {FROM_NUMBER}  # the account's own
        self.landlines: set[str] = set()
        self.account_status = "active"
        self.templates = {TEMPLATE_SID: "Your payment link: {{1}}. Thank you, {{2}}!"}
        self.media: dict[str, tuple[str, bytes]] = {}  # sid -> content type, bytes
        self.media_asked: list[tuple[str, str]] = []  # (path, authorization) of each GET of a file
        self.media_failures: list[int] = []  # statuses of the next answers of the storage
        self._callbacks: dict[str, str] = {}
        self._now = now

    # ------------------------------------------------------------------------------------------------------- answers
    def error(self, status: int, reason: str, sentences: Sequence[str], call: Call) -> Answer:
        code = {"not_found": 20404, "server_error": 20500, "rate_limit": 20429}.get(reason, 20001)
        return self._refuse(status, code)

    def _refuse(self, status: int, code: int, **words: str) -> Answer:
        payload = {
            "code": code,
            "message": _MESSAGES[code].format(**words),
            "more_info": f"https://www.twilio.com/docs/errors/{code}",
            "status": status,
        }
        return Answer(status, payload)

    def extra_routes(self) -> list[Route]:
        """A message's files, by a redirect to a storage.

        Source: www.twilio.com/docs/messaging/api/media-resource.
        """
        media = "/2010-04-01/Accounts/{account}/Messages/{message}/Media/{media}"
        return [Route(media, self._media), Route("/storage/{media}", self._storage)]

    async def _media(self, request: Request) -> Response:
        given = request.headers.get("authorization", "")
        self.media_asked.append((request.url.path, given))
        pair = f"{ACCOUNT_SID}:{AUTH_TOKEN}"
        if given != "Basic " + base64.b64encode(pair.encode()).decode():
            return Response(status_code=401)
        return RedirectResponse(f"/storage/{request.path_params['media']}", 307)

    async def _storage(self, request: Request) -> Response:
        self.media_asked.append((request.url.path, request.headers.get("authorization", "")))
        if self.media_failures:
            return Response(status_code=self.media_failures.pop(0))
        content_type, content = self.media[request.path_params["media"]]
        return Response(content, media_type=content_type)

    async def handle(self, call: Call) -> Answer:
        assert call.operation is not None
        if not self._authenticated(call):
            return self._refuse(401, 20003)
        operation = call.operation
        account = operation.path_params.get("AccountSid") or operation.path_params["Sid"]
        if account != ACCOUNT_SID:
            return self._refuse(404, 20404)
        match operation.operation_id:
            case "CreateMessage":
                return self._create(operation.body)
            case "ListMessage":
                return self._list(operation.query)
            case "FetchMessage":
                return self._fetch(operation.path_params["Sid"])
            case "FetchAccount":
                return Answer(200, self._account())
            case _:
                return self._refuse(404, 20404)

    def _authenticated(self, call: Call) -> bool:
        scheme, _, given = call.headers.get("authorization", "").partition(" ")
        pairs = (f"{ACCOUNT_SID}:{AUTH_TOKEN}", f"{API_KEY_SID}:{API_KEY_SECRET}")
        return scheme == "Basic" and given in [base64.b64encode(pair.encode()).decode() for pair in pairs]

    def _create(self, form: Mapping[str, str]) -> Answer:
        to, sender, service = form["To"], form.get("From", ""), form.get("MessagingServiceSid", "")
        callback, body = form.get("StatusCallback", ""), form.get("Body", "")
        whatsapp = to.startswith(WHATSAPP)
        ours = {WHATSAPP + number if whatsapp else number for number in self.numbers}
        template, variables = form.get("ContentSid", ""), _variables(form.get("ContentVariables", ""))
        refusals = (
            (not _ADDRESS.fullmatch(to), 21211),
            (not sender and not service, 21603),
            (bool(sender) and sender not in ours, 63007 if whatsapp else 21606),
            ((service or SERVICE_SID) != SERVICE_SID, 63007 if whatsapp else 21606),
            (bool(template) and (bool(body) or template not in self.templates), 21655),
            (variables is None, 21656),
            (not body and not template, 21602),
            (len(body) > 1600, 21617),
            (bool(callback) and urlsplit(callback).scheme not in ("http", "https"), 21609),
            (to in self.landlines, 21614),
            (to in self.opted_out, 21610),
        )
        for broken, code in refusals:
            if broken:
                return self._refuse(400, code, to=to, sender=sender)
        if template:
            body = self.templates[template]
            for name, value in (variables or {}).items():
                body = body.replace("{{" + name + "}}", value)
        message = self.add(to=to, body=body, sender=sender or None, service=service or None)
        if callback:
            self._callbacks[message["sid"]] = callback
        return Answer(201, message)

    def _list(self, query: Mapping[str, Any]) -> Answer:
        since = query.get("DateSent>")
        bound = datetime.strptime(since, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) if since else None
        chosen = [
            message
            for message in reversed(self.messages)
            if query.get("To") in (None, message["to"])
            and (bound is None or parsedate_to_datetime(message["date_sent"]) >= bound)
        ]
        size, page = query.get("PageSize", _DEFAULT_PAGE), query.get("Page", 0)
        first = f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages.json?PageSize={size}"
        for name in ("To", "DateSent>"):
            if name in query:
                first += f"&{quote(name)}={quote(query[name])}"
        start, end = page * size, (page + 1) * size
        payload = {
            "messages": chosen[start:end],
            "first_page_uri": f"{first}&Page=0",
            "next_page_uri": f"{first}&Page={page + 1}&PageToken=PT{page + 1}" if len(chosen) > end else None,
            "previous_page_uri": f"{first}&Page={page - 1}" if page else None,
            "page": page,
            "page_size": size,
            "start": start,
            "end": max(start, min(end, len(chosen)) - 1),
            "uri": f"{first}&Page={page}",
        }
        return Answer(200, payload)

    def _fetch(self, sid: str) -> Answer:
        found = [message for message in self.messages if message["sid"] == sid]
        return Answer(200, found[0]) if found else self._refuse(404, 20404)

    def _account(self) -> dict[str, Any]:
        return {
            "sid": ACCOUNT_SID,
            "owner_account_sid": ACCOUNT_SID,
            "friendly_name": "Acme Cleaning",
            "auth_token": AUTH_TOKEN,
            "status": self.account_status,
            "type": "Full",
            "date_created": format_datetime(self._now()),
            "date_updated": format_datetime(self._now()),
            "uri": f"/2010-04-01/Accounts/{ACCOUNT_SID}.json",
            "subresource_uris": {},
        }

    # ----------------------------------------------------------------------------------------------- state for tests
    def add(
        self,
        *,
        to: str,
        body: str,
        sender: str | None = FROM_NUMBER,
        service: str | None = None,
        direction: str = "outbound-api",
        at: datetime | None = None,
    ) -> dict[str, Any]:
        sid = f"SM{len(self.messages) + 1:032x}"
        when = format_datetime(at or self._now())
        message = {
            "sid": sid,
            "account_sid": ACCOUNT_SID,
            "messaging_service_sid": service,
            "status": "accepted" if service else "queued",
            "direction": direction,
            "from": sender,
            "to": to,
            "body": body,
            # With a service no sender is chosen yet, and so no segments are counted.
            "num_segments": "0" if service else str(segments(body).count),
            "num_media": "0",
            "date_created": when,
            "date_sent": when,
            "date_updated": when,
            "error_code": None,
            "error_message": None,
            "price": None,
            "price_unit": None,
            "api_version": "2010-04-01",
            "uri": f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{sid}.json",
            "subresource_uris": {"media": f"/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{sid}/Media.json"},
        }
        self.messages.append(message)
        return message

    def status_callback(
        self, sid: str, status: str, *, error_code: int | None = None, algorithm: str | None = None
    ) -> tuple[str, bytes, dict[str, str]]:
        """Change a message's state; returns its callback as (URL, raw body, lower-case headers)."""
        message = next(message for message in self.messages if message["sid"] == sid)
        message.update(status=status, error_code=error_code, date_updated=format_datetime(self._now()))
        url = self._callbacks[sid]
        params = {
            "MessageSid": sid,
            "SmsSid": sid,
            "AccountSid": ACCOUNT_SID,
            "ApiVersion": "2010-04-01",
            "From": message["from"] or FROM_NUMBER,
            "To": message["to"],
            "MessageStatus": status,
            "SmsStatus": status,
            **({"ErrorCode": str(error_code)} if error_code else {}),
            **({"RawDlrDoneDate": "2611230012"} if status == "delivered" else {}),
        }
        if message["to"].startswith(WHATSAPP):
            params |= {"From": WHATSAPP + FROM_NUMBER, "ChannelPrefix": "whatsapp", "ChannelToAddress": "+14155550XXX"}
            params |= {"EventType": "READ"} if status == "read" else {}
        return (url, *signed(url, params, algorithm=algorithm))

    def mms(
        self, url: str, *, sender: str, files: Sequence[tuple[str, bytes]], body: str = ""
    ) -> tuple[bytes, dict[str, str]]:
        """Like `inbound`, with files as (content type, bytes)."""
        more = {"NumMedia": str(len(files))}
        for n, (content_type, content) in enumerate(files):
            sid = f"ME{len(self.media) + 1:032x}"
            self.media[sid] = content_type, content
            message = f"MM{len(self.messages) + 1:032x}"
            more[f"MediaUrl{n}"] = f"{self.url}/2010-04-01/Accounts/{ACCOUNT_SID}/Messages/{message}/Media/{sid}"
            more[f"MediaContentType{n}"] = content_type
        return self.inbound(url, sender=sender, body=body, **more)

    def inbound(
        self, url: str, *, sender: str, body: str, algorithm: str | None = None, **more: str
    ) -> tuple[bytes, dict[str, str]]:
        """Twilio's request for a message to our number: (raw body, lower-case headers).

        STOP and START change the opt-out list, as at Twilio.
        """
        if body.strip().upper() == "STOP":
            self.opted_out.add(sender)
        elif body.strip().upper() == "START":
            self.opted_out.discard(sender)
        prefix = WHATSAPP if sender.startswith(WHATSAPP) else ""
        message = self.add(to=prefix + FROM_NUMBER, body=body, sender=sender, direction="inbound")
        message["status"] = "received"
        params = {
            "MessageSid": message["sid"],
            "SmsSid": message["sid"],
            "SmsMessageSid": message["sid"],
            "AccountSid": ACCOUNT_SID,
            "ApiVersion": "2010-04-01",
            "From": sender,
            "To": message["to"],
            "Body": body,
            "NumMedia": "0",
            "NumSegments": "1",
            "SmsStatus": "received",
        }
        if prefix:
            params |= {"ProfileName": "Dana Diaz", "WaId": sender.removeprefix("whatsapp:+"), "ButtonText": ""}
        else:
            params |= {"FromCity": "SAN FRANCISCO", "FromState": "CA", "FromCountry": "US", "ToCity": "", "ToZip": ""}
        params |= more
        return signed(url, params, algorithm=algorithm)
