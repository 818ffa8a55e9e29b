"""A fake of Acme Pay's orders and Acme Chat's messages over real HTTP, with Acme's rules."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from urllib.parse import quote

from acme_pay import payments

from integrations.kit.processors import NotPayable
from integrations.kit.vendor import Answer, Call, FakeVendor

API_KEY = "acme_key_0001"
TOKEN = "acme_chat_token_0001"
WEBHOOK_SECRET = "acme_webhook_secret_0001"
SIGNING_SECRET = "acme_chat_secret_0001"
BOT = "acme_bot"
BLOCKED = "visitor-who-left"
PLACES = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}


KEYS_LIVE_S = 3600
BASIC = "Basic " + base64.b64encode(f"shop:{API_KEY}".encode()).decode()
PAGE = 5  # refunds in one answer


class Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def now() -> str:
    return datetime.now(UTC).isoformat()


class FakeAcmePay(FakeVendor):
    """One merchant."""

    def __init__(self) -> None:
        super().__init__()
        self.orders: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, list[dict[str, Any]]] = {}  # by payment
        self.cancels = True
        self.tokens: dict[str, float] = {}  # when each ends
        self.token_life_s = 600.0
        self.slow_refunds = False  # they are "clearing" until `settle_refund`
        self._made: dict[tuple[str, str], tuple[bytes, dict[str, Any]]] = {}  # (path, key) -> what was said and made
        self._keys_age_s = 0.0
        self._numbers = count(1)

    async def handle(self, call: Call) -> Answer:
        given = call.headers.get("authorization", "")
        if call.path == "/v1/token" and given == BASIC:
            return self._token()
        if given != f"Bearer {API_KEY}" and self.tokens.get(given.removeprefix("Bearer "), 0) < time.monotonic():
            return self.error(401)
        try:
            return Answer(200, json.dumps(self._answer(call)).encode())
        except Refused as refused:
            return self.error(refused.status)

    def is_prelude(self, call: Call) -> bool:
        return call.path == "/v1/token"

    def _token(self) -> Answer:
        token = f"token-{next(self._numbers)}-of-acme"
        self.tokens[token] = time.monotonic() + self.token_life_s
        return Answer(200, json.dumps({"token": token, "expires_in": self.token_life_s}).encode())

    def _answer(self, call: Call) -> dict[str, Any]:
        match call.method, call.path.removeprefix("/v1/").split("/"):
            case "GET", ["me"]:
                return {"merchant": "acme_merchant_1"}
            case "POST", ["orders"]:
                return self._once(call, self._open)
            case "GET", ["orders", order]:
                return self._order(order)
            case "POST", ["orders", order, "cancel"]:
                return self._cancel(self._order(order))
            case "GET", ["orders", order, "refunds"]:
                return self._page(self._order(order), int(call.query.get("from", "0")))
            case "POST", ["payments", payment, "refunds"]:
                return self._once(call, lambda body: self._refund(payment, body))
            case "GET", ["refunds", refund]:
                for made in self._refunds():
                    if made["id"] == refund:
                        return made
        raise Refused(404)

    def _once(self, call: Call, make: Any) -> dict[str, Any]:
        """The same key creates nothing twice; other content for it is refused."""
        key = call.path, call.headers.get("idempotency-key", "")
        if not key[1]:
            raise Refused(400)
        if key not in self._made:
            self._made[key] = call.body, make(json.loads(call.body))
        said, made = self._made[key]
        if said != call.body:
            raise Refused(422)
        return made

    def age_keys(self, seconds: float) -> None:
        """Acme forgets keys after an hour."""
        self._keys_age_s += seconds
        if self._keys_age_s > KEYS_LIVE_S:
            self._made.clear()

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):06d}"

    def _amount(self, body: Mapping[str, Any]) -> Decimal:
        places = PLACES.get(body["currency"])
        amount = Decimal(body["total"])
        if places is None or amount <= 0 or -int(amount.as_tuple().exponent) != places:
            raise Refused(422)  # 12.5 and 12.500 dollars are no amounts
        return amount

    def _open(self, body: Mapping[str, Any]) -> dict[str, Any]:
        self._amount(body)
        order = {
            "id": self._id("ord"),
            "reference": body["reference"],
            "state": "open",
            "total": body["total"],
            "currency": body["currency"],
            "notify_url": body["notify_url"],
            "lapses_at": (datetime.now(UTC) + timedelta(seconds=body["lives_s"])).isoformat(),
            "payments": [],
        }
        order["pay_url"] = f"https://pay.acme-pay.example/{order['id']}"
        self.orders[order["id"]] = order
        return order

    def _order(self, order_id: str) -> dict[str, Any]:
        if order_id not in self.orders:
            raise Refused(404)
        return self.orders[order_id]

    def _cancel(self, order: dict[str, Any]) -> dict[str, Any]:
        if order["state"] not in ("open", "canceled") or not self.cancels:
            raise Refused(409)
        order["state"] = "canceled"
        return order

    def _payments(self) -> list[dict[str, Any]]:
        return [payment for order in self.orders.values() for payment in order["payments"]]

    def _refunds(self) -> list[dict[str, Any]]:
        return [refund for refunds in self.refunds.values() for refund in refunds]

    def _page(self, order: Mapping[str, Any], start: int) -> dict[str, Any]:
        found = [refund for payment in order["payments"] for refund in self.refunds[payment["id"]]]
        more = len(found) > start + PAGE
        following = f"/v1/orders/{order['id']}/refunds?from={start + PAGE}" if more else None
        return {"refunds": found[start : start + PAGE], "next": following}

    def _refund(self, payment_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        paid = [one for one in self._payments() if (one["id"], one["state"]) == (payment_id, "done")]
        if not paid:
            raise Refused(404)
        made = (Decimal(one["total"]) for one in self.refunds[payment_id] if one["state"] != "bounced")
        left = Decimal(paid[0]["total"]) - sum(made, Decimal(0))
        amount = self._amount(body)
        if body.get("at_most"):
            amount = min(amount, left)
        if body["currency"] != paid[0]["currency"] or not 0 < amount <= left:
            raise Refused(422)
        refund = {"id": self._id("ref"), "payment": payment_id, "total": str(amount), "at": now()}
        refund["state"] = "clearing" if self.slow_refunds else "done"
        refund["currency"] = body["currency"]
        self.refunds[payment_id].append(refund)
        return refund

    # ------------------------------------------------------------------------------------------------------- events
    def pay(
        self, order_id: str, state: str, reason: str | None = None, total: str | None = None
    ) -> tuple[bytes, dict[str, str]]:
        """Pay by card ("done", "declined", "clearing"); return the webhook. Raises: NotPayable."""
        order = self.orders[order_id]
        if order["state"] not in ("open", "part_paid"):
            raise NotPayable(order["state"])
        payment = {
            "id": self._id("pay"),
            "state": state,
            "total": total or order["total"],
            "currency": order["currency"],
            "method": "Acme Card •••• 4242",
            "reason": reason,
            "at": now(),
            "fee": None,
            "dispute": None,
        }
        if state == "done":
            payment["fee"] = str((Decimal(order["total"]) / 50).quantize(Decimal(1).scaleb(-PLACES[order["currency"]])))
            payment["fee"] = payment["fee"] if Decimal(payment["fee"]) else None
        self.refunds[payment["id"]] = []
        order["payments"].append(payment)
        order["state"] = {"done": "paid", "clearing": "clearing"}.get(state, "open")
        paid = sum((Decimal(one["total"]) for one in order["payments"] if one["state"] == "done"), Decimal(0))
        if state == "done" and paid < Decimal(order["total"]):
            order["state"] = "part_paid"
        return self._event(f"payment.{state}", order, payment=payment)

    def settle(self, order_id: str, state: str) -> tuple[bytes, dict[str, str]]:
        """End a clearing payment ("done", "bounced"); return the webhook."""
        order = self.orders[order_id]
        payment = order["payments"][-1]
        payment.update(state=state, reason="no_funds" if state == "bounced" else None)
        order["state"] = "paid" if state == "done" else "bounced"
        return self._event(f"payment.{state}", order, payment=payment)

    def refund_by_hand(self, order_id: str, total: str) -> tuple[bytes, dict[str, str]]:
        """Refund in Acme's dashboard; return the webhook."""
        order = self.orders[order_id]
        payment = order["payments"][-1]
        refund = self._refund(payment["id"], {"total": total, "currency": order["currency"]})
        return self._event("refund.done", order, refund=refund)

    def settle_refund(self, refund_id: str, state: str) -> tuple[bytes, dict[str, str]]:
        """End a clearing refund ("done", "bounced"); return the webhook."""
        (refund,) = (one for one in self._refunds() if one["id"] == refund_id)
        refund["state"] = state
        return self._event(f"refund.{state}", self._order_of(refund["payment"]), refund=refund)

    def _order_of(self, payment_id: str) -> dict[str, Any]:
        return next(one for one in self.orders.values() if payment_id in {pay["id"] for pay in one["payments"]})

    def dispute(self, order_id: str, state: str) -> tuple[bytes, dict[str, str]]:
        """Open or decide a dispute ("open", "won", "lost"); return the webhook."""
        order = self.orders[order_id]
        payment = order["payments"][-1]
        made = payment["dispute"] or {"id": self._id("dis"), "payment": payment["id"], "reason": "not_received"}
        money = {"total": payment["total"], "currency": payment["currency"]}
        payment["dispute"] = {**made, **money, "state": state, "at": now()}
        return self._event(f"dispute.{state}", order, dispute=payment["dispute"])

    def _event(self, kind: str, order: Mapping[str, Any], **about: Any) -> tuple[bytes, dict[str, str]]:
        event = {"id": self._id("evt"), "type": kind, "at": now(), "order": order, **about}
        body = json.dumps(event).encode()
        return body, signed(body)


def signed(body: bytes, secret: str = WEBHOOK_SECRET, at: datetime | None = None) -> dict[str, str]:
    """Acme Pay's signature header."""
    stamp = str(int((at or datetime.now(UTC)).timestamp()))
    return {payments.SIGNATURE_HEADER: f"t={stamp},v1={payments.sign(secret, stamp, body)}"}


class FakeAcmeChat(FakeVendor):
    """One bot."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        self.webhook: dict[str, str] = {"url": "", "secret": SIGNING_SECRET}
        self._numbers = count(1)

    async def handle(self, call: Call) -> Answer:
        if call.headers.get("authorization") != f"Bearer {TOKEN}":
            return self.error(401)
        match call.method, call.path.removeprefix("/v1/").split("/"):
            case "GET", ["me"]:
                return self._says({"bot": BOT})
            case "GET", ["messages"]:
                found = [one for one in self.messages if one["mark"] == call.query["mark"]]
                return self._says({"messages": found})
            case "POST", ["messages"]:
                return self._take(json.loads(call.body))
            case "PUT", ["webhook"]:
                self.webhook = json.loads(call.body)
                return self._says({})
            case "GET", ["files", file] if file in self.files:
                return self._says({"path": f"/v1/content/{quote(file)}"})
            case "GET", ["content", file] if file in self.files:
                return Answer(200, self.files[file], {"content-type": "application/octet-stream"})
        return self.error(404)

    def _take(self, said: dict[str, Any]) -> Answer:
        if said["chat"] == BLOCKED:
            return self.error(403)
        if len(said["text"].encode("utf-16-le")) > 1000:  # 500 units
            return self.error(422)
        for made in self.messages:
            if made["mark"] == said["mark"]:
                return Answer(409, json.dumps(made).encode())
        self.messages.append({"id": f"msg{next(self._numbers)}", "state": "taken", **said})
        return self._says(self.messages[-1])

    def _says(self, payload: Mapping[str, Any]) -> Answer:
        return Answer(200, json.dumps(payload).encode())

    def signed(self, body: bytes) -> tuple[bytes, dict[str, str]]:
        digest = hmac.new(self.webhook["secret"].encode(), body, hashlib.sha256).hexdigest()
        return body, {"acme-signature": digest}

    def callback(self, *events: Mapping[str, Any], bot: str = BOT, **event: Any) -> tuple[bytes, dict[str, str]]:
        """A callback with one event or these events."""
        reported = [{"at": now(), **one} for one in events or ((event,) if event else ())]
        return self.signed(json.dumps({"bot": bot, "events": reported}).encode())

    def writes(self, sender: str, text: str) -> tuple[bytes, dict[str, str]]:
        """The callback of a person's message to the bot."""
        return self.callback(type="text", chat=sender, number=next(self._numbers), text=text)
