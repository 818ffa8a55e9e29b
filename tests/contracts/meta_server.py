"""A stateful fake of Meta's Graph API, checked by a contract, and the signed events that Meta posts."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from tests.contracts.openapi import Answer, Call, Contract, ContractServer, vendor_file

PAGE_ID = "100000000000001"
INSTAGRAM_ID = "17841400000000001"
ACCESS_TOKEN = "test-access-token-not-real"
APP_SECRET = "test-app-secret-not-real"
VERIFY_TOKEN = "test-verify-token"
VENDOR_FILE = "meta-messenger-instagram.assembled.openapi.json"

WINDOW = "(#10) This message is sent outside of allowed window."


def our_contract() -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(Path(__file__).with_name("meta.json").read_bytes()))


def contracts() -> list[Contract]:
    """Our contract, and the vendor's where it is present (it covers only the Send API)."""
    theirs = vendor_file(VENDOR_FILE)
    return [Contract(our_contract(), name="ours"), *([Contract(theirs, name="meta's")] if theirs else [])]


def signature(body: bytes, *, secret: str = APP_SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def signed(payload: Mapping[str, Any], *, secret: str = APP_SECRET) -> tuple[bytes, dict[str, str]]:
    """A webhook as (raw body, lower-case headers); the body escapes Unicode, as Meta does."""
    body = json.dumps(payload, separators=(",", ":")).encode()
    return body, {"content-type": "application/json", "x-hub-signature-256": signature(body, secret=secret)}


class MetaServer(ContractServer):
    """One app with a page and an Instagram account."""

    def __init__(self, contract: Contract, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__(contract)
        self.messages: list[dict[str, Any]] = []
        self.blocked: set[str] = set()  # people who don't want to hear from us
        self.people: dict[str, dict[str, str]] = {}  # profiles that people let us see
        self.next_token = "next-access-token-not-real"
        self.tokens = {ACCESS_TOKEN}  # a renewed token stays valid until it expires
        self.unknown: set[str] = set()  # ids that belong to no person
        self.last_wrote: dict[str, datetime] = {}  # who is not in here wrote just now
        self.human_agent = False  # whether the app has been granted the feature
        self._now = now
        self._inbound = 0

    # ------------------------------------------------------------------------------------------------------- answers
    def error(self, status: int, reason: str, sentences: Sequence[str], call: Call) -> Answer:
        code = {"server_error": 2, "rate_limit": 613}.get(reason, 100)
        return self._refuse(status, code, "; ".join(sentences) or reason)

    def _refuse(self, status: int, code: int, words: str, subcode: int | None = None) -> Answer:
        named = {} if subcode is None else {"error_subcode": subcode}
        error = {"message": words, "type": "OAuthException", "code": code, **named, "fbtrace_id": "AbCdEfGhIjK"}
        return Answer(status, {"error": error})

    async def handle(self, call: Call) -> Answer:
        operation = call.operation
        assert operation is not None
        token = call.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self.tokens:
            return self._refuse(401, 190, "Error validating access token")
        proof = hmac.new(APP_SECRET.encode(), token.encode(), hashlib.sha256).hexdigest()
        if operation.query.get("appsecret_proof", proof) != proof:
            return self._refuse(400, 100, "Invalid appsecret_proof provided in the API argument")
        if operation.operation_id == "whoAmI":
            known = {"id": PAGE_ID, "user_id": INSTAGRAM_ID, "instagram_business_account": {"id": INSTAGRAM_ID}}
            return Answer(200, {name: known[name] for name in operation.query["fields"].split(",")})
        if operation.operation_id == "readProfile":
            return self._profile(operation.path_params["person_id"], operation.query["fields"].split(","))
        if operation.operation_id == "renewToken":
            self.tokens.add(self.next_token)
            return Answer(200, {"access_token": self.next_token, "token_type": "bearer", "expires_in": 5184000})
        if operation.path_params["sender_id"] not in (PAGE_ID, INSTAGRAM_ID):
            return self._refuse(400, 100, "Unsupported post request. Object does not exist", 33)
        if operation.operation_id == "listConversations":
            return self._conversations(operation.query)
        return self._send(operation.path_params["sender_id"], operation.body)

    def _profile(self, person: str, fields: Sequence[str]) -> Answer:
        if person not in self.people:
            return self._refuse(400, 100, f"Unsupported get request. Object with ID '{person}' does not exist", 33)
        known = {**self.people[person], "id": person}
        return Answer(200, {name: known[name] for name in (*fields, "id") if name in known})

    def _send(self, sender: str, body: Mapping[str, Any]) -> Answer:
        to = body["recipient"]["id"]
        attachment = body["message"].get("attachment")
        text = body["message"].get("text") or attachment["payload"]["text"]
        age = self._now() - self.last_wrote.get(to, self._now())
        tagged = body.get("messaging_type") == "MESSAGE_TAG" and body.get("tag") == "HUMAN_AGENT"
        if to in self.unknown:
            return self._refuse(400, 100, f"(#100) No matching user found: {to}", 2018001)
        if to in self.blocked:
            return self._refuse(400, 551, "(#551) This person isn't available right now.", 1545041)
        if sender == INSTAGRAM_ID and len(text.encode()) > 1000:
            return self._refuse(400, 100, "(#100) Length of param message[text] must be less than or equal to 1000")
        if tagged and not self.human_agent:
            return self._refuse(403, 10, "(#10) This tag needs the Human Agent permission.")
        if age >= (timedelta(days=7) if tagged else timedelta(hours=24)):
            return self._refuse(403, 10, WINDOW, 2018278)
        message = self.add(to=to, text=text, sender=sender, metadata=body["message"].get("metadata"), body=body)
        return Answer(200, {"recipient_id": to, "message_id": message["mid"]})

    def _conversations(self, query: Mapping[str, str]) -> Answer:
        user = query["user_id"]
        found = [
            {
                "id": message["mid"],
                "created_time": message["at"].strftime("%Y-%m-%dT%H:%M:%S+0000"),
                "from": {"id": message["from"]},
                "message": message["text"],
            }
            for message in reversed(self.messages)
            if user in (message["to"], message["from"])
        ]
        threads = [{"id": f"t_{user}", "messages": {"data": found[:20]}}] if found else []
        return Answer(200, {"data": threads})

    # ----------------------------------------------------------------------------------------------- state for tests
    def add(
        self,
        *,
        to: str,
        text: str,
        sender: str = PAGE_ID,
        metadata: str | None = None,
        body: Mapping[str, Any] | None = None,
        at: datetime | None = None,
    ) -> dict[str, Any]:
        # Instagram's ids are long.
        head = "aWdfZAG1f" * 18 if INSTAGRAM_ID in (sender, to) else "m_test_"
        message = {
            "mid": f"{head}{len(self.messages) + 1:06d}",
            "from": sender,
            "to": to,
            "text": text,
            "metadata": metadata,
            "body": body,
            "at": at or self._now(),
        }
        self.messages.append(message)
        return message

    # ------------------------------------------------------------------------------------------------ events for us
    def _events(self, account: str, *events: Mapping[str, Any]) -> tuple[bytes, dict[str, str]]:
        kind = "instagram" if account == INSTAGRAM_ID else "page"
        entry = {"id": account, "time": self._milliseconds(), "messaging": list(events)}
        return signed({"object": kind, "entry": [entry]})

    def _milliseconds(self) -> int:
        return int(self._now().timestamp() * 1000)

    def _event(self, account: str, contact: str, **more: Any) -> dict[str, Any]:
        people = {"sender": {"id": contact}, "recipient": {"id": account}}
        return {**people, "timestamp": self._milliseconds(), **more}

    def status(self, message: Mapping[str, Any], word: str) -> tuple[bytes, dict[str, str]]:
        """The event of one of our messages: "echo", "delivery" or "read"."""
        account, contact = message["from"], message["to"]
        if word == "echo":
            echo = {"mid": message["mid"], "is_echo": True, "app_id": 1234567890, "text": message["text"]}
            echo |= {"metadata": message["metadata"]} if message["metadata"] else {}
            return self._events(account, {**self._event(contact, account), "message": echo})
        mids: dict[str, Any] = {"watermark": self._milliseconds()}
        if word == "delivery":
            mids["mids"] = [message["mid"]]
        elif account == INSTAGRAM_ID:
            mids = {"mid": message["mid"]}
        return self._events(account, self._event(account, contact, **{word: mids}))

    def inbound(self, account: str, contact: str, text: str, **more: Any) -> tuple[bytes, dict[str, str]]:
        self._inbound += 1
        self.last_wrote[contact] = self._now()
        message = {"mid": f"m_in_{self._inbound:06d}", "text": text, **more}
        return self._events(account, self._event(account, contact, message=message))
