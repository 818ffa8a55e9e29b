"""A fake Square: payment links, orders, payments, refunds and signed webhooks over HTTP, checked by a contract."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from integrations.kit.processors import NotPayable
from tests.contracts.openapi import Answer, Call, Contract, ContractServer, vendor_file

ACCESS_TOKEN = "EAAA_contract_server"
LOCATION_ID = "L88917AVBK2S5"
MERCHANT_ID = "3MYCJG5GVYQ8Q"
SIGNATURE_KEY = "signature_key_of_the_contract_server"
WEBHOOK_URL = "https://pay.example.test/webhooks/square/prc_1"
VENDOR_FILE = "square-v2.openapi.json"
_CATEGORIES = {401: "AUTHENTICATION_ERROR", 429: "RATE_LIMIT_ERROR", 500: "API_ERROR"}


def our_contract() -> Contract:
    """Our compact contract."""
    return Contract(cast(dict[str, Any], json.loads(Path(__file__).with_name("square.json").read_bytes())), name="ours")


def contracts() -> list[Contract]:
    """Our contract, and Square's where it is present, plus the deletion of a subscription, which its excerpt lacks."""
    ours, theirs = our_contract(), vendor_file(VENDOR_FILE)
    if theirs is None:
        return [ours]
    deletion = "/v2/webhooks/subscriptions/{subscription_id}"
    theirs["paths"].setdefault(deletion, ours.spec["paths"][deletion])
    return [ours, Contract(theirs, name="square's")]


def sign(body: bytes, key: str = SIGNATURE_KEY, url: str = WEBHOOK_URL) -> str:
    """The `x-square-hmacsha256-signature` header, written from Square's documentation."""
    return base64.b64encode(hmac.new(key.encode(), url.encode() + body, hashlib.sha256).digest()).decode()


def small_events() -> list[dict[str, Any]]:
    """Nine events in the documented shape; Square publishes no complete examples."""

    def event(n: int, kind: str, name: str, thing: dict[str, Any]) -> dict[str, Any]:
        return {
            "merchant_id": MERCHANT_ID,
            "type": kind,
            "event_id": f"13b867cf-db3d-4b1c-90b6-2f32a9d7{n:04d}",
            "created_at": "2026-11-23T12:00:00.000Z",
            "data": {"type": name, "id": thing["id"], "object": {name: thing}},
        }

    def money(amount: int) -> dict[str, Any]:
        return {"amount": amount, "currency": "USD"}

    payment = {
        "id": "hYy9pRFVxpDsO1FB05SunFWUe9JZY",
        "order_id": "03O3USaPaAaFnI6kkwB1JxGgBsUZY",
        "location_id": LOCATION_ID,
        "created_at": "2026-11-23T11:59:58.000Z",
        "amount_money": money(2500),
        "total_money": money(2500),
        "source_type": "CARD",
        "note": "pr_0001",
        "card_details": {"status": "CAPTURED", "card": {"card_brand": "MASTERCARD", "last_4": "9029"}},
    }
    declined = {"status": "FAILED", "errors": [{"category": "PAYMENT_METHOD_ERROR", "code": "INSUFFICIENT_FUNDS"}]}
    refund = {
        "id": "hYy9pRFVxpDsO1FB05SunFWUe9JZY_xJ0H6HQlkaCTnqhpEXwJsm",
        "payment_id": payment["id"],
        "order_id": payment["order_id"],
        "location_id": LOCATION_ID,
        "created_at": "2026-11-23T11:59:59.000Z",
    }
    dispute = {
        "id": "bVTprrwk0gygTLZ96VX1oB",
        "amount_money": money(2500),
        "reason": "NO_KNOWLEDGE",
        "due_at": "2026-12-07T00:00:00.000Z",
        "disputed_payment": {"payment_id": payment["id"]},
        "location_id": LOCATION_ID,
    }
    return [
        event(1, "payment.updated", "payment", payment | {"status": "COMPLETED"}),
        event(2, "payment.updated", "payment", payment | {"status": "APPROVED"}),
        event(3, "payment.updated", "payment", payment | {"status": "FAILED", "card_details": declined}),
        event(4, "refund.updated", "refund", refund | {"status": "COMPLETED", "amount_money": money(1000)}),
        event(5, "refund.updated", "refund", refund | {"status": "COMPLETED", "amount_money": money(2500)}),
        event(6, "refund.updated", "refund", refund | {"status": "REJECTED", "amount_money": money(1000)}),
        event(7, "dispute.created", "dispute", dispute | {"state": "EVIDENCE_REQUIRED"}),
        event(8, "dispute.state.updated", "dispute", dispute | {"state": "WON"}),
        event(9, "dispute.state.updated", "dispute", dispute | {"state": "LOST"}),
    ]


class SquareError(Exception):
    """A refusal in Square's shape."""

    def __init__(self, status: int, code: str, category: str | None = None, *, field: str | None = None) -> None:
        super().__init__(code)
        self.answer = _error(status, code, category, field)


def _error(status: int, code: str, category: str | None = None, field: str | None = None) -> Answer:
    kind = category or _CATEGORIES.get(status, "INVALID_REQUEST_ERROR")
    error = {"category": kind, "code": code, "detail": "a sentence of Square's"} | ({"field": field} if field else {})
    return Answer(status, {"errors": [error]})


class SquareServer(ContractServer):
    """One business with one location that takes every currency. The clock may be replaced: `server.now`."""

    def __init__(self, contract: Contract, *, now: Callable[[], datetime] | None = None) -> None:
        super().__init__(contract)
        self.now = now or (lambda: datetime.now(UTC))
        self.links: dict[str, dict[str, Any]] = {}
        self.orders: dict[str, dict[str, Any]] = {}
        self.payments: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.location: dict[str, Any] = {"id": LOCATION_ID, "merchant_id": MERCHANT_ID, "status": "ACTIVE"}
        self.subscriptions: dict[str, dict[str, Any]] = {}
        self.may_subscribe = True  # whether the token is the application's own
        self.cancels = True  # whether deleting a link cancels its order at once
        self.revoked = False  # whether the seller took the token back
        self.refused: tuple[int, str] | None = (
            None  # status and code of what Square has against new links of this seller
        )
        self.bad_note = ""  # words that Square takes in no note
        self.page = 100  # how many a list shows at once
        self._keys: dict[str, tuple[str, Answer]] = {}
        self._numbers = itertools.count(1)

    def error(self, status: int, reason: str, sentences: Sequence[str], call: Call) -> Answer:
        """Square's error body."""
        codes = {"not_found": "NOT_FOUND", "server_error": "INTERNAL_SERVER_ERROR", "rate_limit": "RATE_LIMITED"}
        answer = _error(status, codes.get(reason, "BAD_REQUEST"))
        answer.headers |= {"Retry-After": "7"} if reason == "rate_limit" else {}
        return answer

    # ------------------------------------------------------------------------------------------------------- calls
    async def handle(self, call: Call) -> Answer:
        """Authenticate, replay a known key, then do it."""
        if self.revoked:
            return _error(401, "ACCESS_TOKEN_REVOKED")
        if call.headers.get("authorization") != f"Bearer {ACCESS_TOKEN}":
            return _error(401, "UNAUTHORIZED")
        try:
            return self._dispatch(call)
        except SquareError as refused:
            return refused.answer

    def _dispatch(self, call: Call) -> Answer:
        assert call.operation is not None
        params, body = call.operation.path_params, call.operation.body
        match call.operation.operation_id:
            case "ListLocations":
                return Answer(200, {"locations": [self.location]})
            case "CreatePaymentLink":
                return self._once(call, lambda: self._create(body))
            case "ListPaymentLinks":
                return self._listed(list(self.links.values()), "payment_links", call.operation.query)
            case "RetrievePaymentLink":
                return Answer(200, {"payment_link": self._found(self.links, params["id"])})
            case "DeletePaymentLink":
                return self._delete(params["id"])
            case "RetrieveOrder":
                return Answer(200, {"order": self._found(self.orders, params["order_id"])})
            case "GetPayment":
                return Answer(200, {"payment": self._found(self.payments, params["payment_id"])})
            case "RefundPayment":
                return self._once(call, lambda: self._refund(body))
            case "GetPaymentRefund":
                return Answer(200, {"refund": self._found(self.refunds, params["refund_id"])})
            case _ if not self.may_subscribe:
                raise SquareError(403, "INSUFFICIENT_SCOPES", "AUTHENTICATION_ERROR")
            case "ListWebhookSubscriptions":
                return self._listed(list(self.subscriptions.values()), "subscriptions", call.operation.query)
            case "CreateWebhookSubscription":
                return self._subscribe(body["subscription"])
            case "DeleteWebhookSubscription":
                self._found(self.subscriptions, params["subscription_id"])
                del self.subscriptions[params["subscription_id"]]
                return Answer(200, {})
        raise AssertionError(call.operation.operation_id)

    def _listed(self, things: list[dict[str, Any]], name: str, query: Mapping[str, Any]) -> Answer:
        start = int(query.get("cursor") or 0)
        end = start + min(query.get("limit", self.page), self.page)  # "the limit is advisory"
        shown = [{k: v for k, v in thing.items() if k != "signature_key"} for thing in things[start:end]]
        return Answer(200, {name: shown} | ({"cursor": str(end)} if end < len(things) else {}))

    def _subscribe(self, wanted: dict[str, Any]) -> Answer:
        if not wanted.get("notification_url", "").startswith("https://"):
            raise SquareError(400, "INVALID_VALUE")
        number = next(self._numbers)
        made = wanted | {"id": f"wbhk_{number:032x}", "enabled": True, "signature_key": f"key_{number:018d}"}
        self.subscriptions[made["id"]] = made
        return Answer(200, {"subscription": made})

    def _found(self, book: Mapping[str, dict[str, Any]], key: str) -> dict[str, Any]:
        if key not in book:
            raise SquareError(404, "NOT_FOUND")
        return copy.deepcopy(book[key])

    def _once(self, call: Call, make: Callable[[], dict[str, Any]]) -> Answer:
        assert call.operation is not None
        key, print_ = call.operation.body["idempotency_key"], hashlib.sha256(call.raw_body).hexdigest()
        if key in self._keys:
            if self._keys[key][0] != print_:
                raise SquareError(400, "IDEMPOTENCY_KEY_REUSED")
            return copy.deepcopy(self._keys[key][1])
        answer = Answer(200, make())
        self._keys[key] = (print_, copy.deepcopy(answer))
        return answer

    def _create(self, body: dict[str, Any]) -> dict[str, Any]:
        """Rules beyond the contract. Source: developer.squareup.com/docs/checkout-api/square-order-checkout."""
        order = body["order"]
        if order["location_id"] != LOCATION_ID:
            raise SquareError(404, "NOT_FOUND")
        (item,) = order["line_items"]
        money = item["base_price_money"]
        if money["amount"] < 1:
            raise SquareError(400, "VALUE_TOO_LOW")
        if self.refused is not None:
            raise SquareError(*self.refused)
        if self.bad_note and self.bad_note in item.get("note", ""):
            raise SquareError(400, "INVALID_VALUE", field="order.line_items[0].note")
        number = next(self._numbers)
        link_id, order_id = f"PKVT6XGJZ{number:07d}", f"o4b7saqp4HzhNttf5AJxC{number:07d}"
        self.orders[order_id] = {
            "id": order_id,
            "location_id": LOCATION_ID,
            "reference_id": order.get("reference_id"),
            "line_items": [item],
            "state": "DRAFT",
            "version": 1,
            "created_at": self._stamp(),
            "total_money": dict(money),
        }
        self.links[link_id] = {
            "id": link_id,
            "version": 1,
            "order_id": order_id,
            "url": f"https://sandbox.square.link/u/{link_id}",
            "long_url": f"https://checkout.square.site/{link_id}",
            "created_at": self._stamp(),
            "payment_note": body.get("payment_note", ""),
        }
        return {"payment_link": self.links[link_id], "related_resources": {"orders": [self.orders[order_id]]}}

    def _delete(self, link_id: str) -> Answer:
        order_id = self._found(self.links, link_id)["order_id"]
        del self.links[link_id]
        if self.cancels and not self.orders[order_id].get("tenders"):
            self.orders[order_id]["state"] = "CANCELED"
        return Answer(200, {"id": link_id, "cancelled_order_id": order_id})

    def _refund(self, body: dict[str, Any]) -> dict[str, Any]:
        payment = self._found(self.payments, body.get("payment_id", ""))
        if len(body["idempotency_key"]) > 45:
            raise SquareError(400, "VALUE_TOO_LONG")
        return {"refund": self.refund_now(payment["id"], body["amount_money"]["amount"], reason=body.get("reason"))}

    def refund_now(self, payment_id: str, amount: int, *, reason: str | None = None) -> dict[str, Any]:
        """Refund a payment, by our call or in Square's own pages; PENDING until `settle_refund`. Raises SquareError."""
        payment = self.payments[payment_id]
        if payment["status"] != "COMPLETED":
            raise SquareError(400, "REFUND_ERROR_PAYMENT_NEEDS_COMPLETION", "REFUND_ERROR")
        given = payment["refunded_money"]["amount"]
        if given + amount > payment["total_money"]["amount"]:
            raise SquareError(400, "REFUND_AMOUNT_INVALID", "REFUND_ERROR")
        payment["refunded_money"]["amount"] = given + amount
        refund_id = f"{payment_id}_{next(self._numbers):06d}"
        payment["refund_ids"] = [*payment.get("refund_ids", []), refund_id]
        refund = {
            "id": refund_id,
            "status": "PENDING",
            "amount_money": {"amount": amount, "currency": payment["total_money"]["currency"]},
            "payment_id": payment_id,
            "order_id": payment["order_id"],
            "location_id": LOCATION_ID,
            "created_at": self._stamp(),
        } | ({"reason": reason} if reason else {})
        self.refunds[refund_id] = refund
        return copy.deepcopy(refund)

    def refund_unlinked(self, amount: int) -> dict[str, Any]:
        """The seller sends money to a card, of no payment; returns `refund.created`. Source: .../refunds-api/unlinked-refunds."""
        refund = {
            "id": f"unlinked_{next(self._numbers):06d}",
            "status": "PENDING",
            "unlinked": True,
            "destination_type": "CARD",
            "amount_money": {"amount": amount, "currency": "USD"},
            "location_id": LOCATION_ID,
            "created_at": self._stamp(),
        }
        return self.event("refund.created", "refund", refund)

    # ------------------------------------------------------------------------------------------- actions of a payer
    def pay(
        self, link_id: str, *, status: str = "COMPLETED", amount: int | None = None, currency: str | None = None
    ) -> dict[str, Any]:
        """Pay on Square's page; returns `payment.updated`. FAILED leaves no tender. `amount`, `currency` forge what arrived."""
        if link_id in self.links and self.orders[self.links[link_id]["order_id"]].get("tenders"):
            raise NotPayable("the order has its payment")
        order = self._payable(link_id)
        forged = {"amount": amount, "currency": currency}
        money = order["total_money"] | {name: value for name, value in forged.items() if value is not None}
        payment = self._paid(link_id, money, status=status)
        if status == "COMPLETED":
            self._settled(payment)
        return self.payment_event(payment["id"])

    def pay_part(
        self, link_id: str, amount: int, *, status: str = "COMPLETED", gift_card: bool = False
    ) -> dict[str, Any]:
        """One of several tenders of an order; returns `payment.updated`. The order is completed by the one that completes its sum."""
        order = self._payable(link_id)
        payment = self._paid(link_id, order["total_money"] | {"amount": amount}, status=status)
        if gift_card:
            payment["card_details"]["card"] = {"card_brand": "SQUARE_GIFT_CARD", "last_4": "0018"}
        if status == "COMPLETED":
            self._settled(payment)
            come = sum(self.payments[tender["payment_id"]]["total_money"]["amount"] for tender in order["tenders"])
            order["state"] = "COMPLETED" if come >= order["total_money"]["amount"] else "OPEN"
        return self.payment_event(payment["id"])

    def _payable(self, link_id: str) -> dict[str, Any]:
        """The link's order. Raises: NotPayable."""
        if link_id not in self.links:
            raise NotPayable("the link is deleted")
        order = self.orders[self.links[link_id]["order_id"]]
        if order["state"] not in ("DRAFT", "OPEN"):
            raise NotPayable(order["state"])
        return order

    def _paid(self, link_id: str, money: Mapping[str, Any], *, status: str) -> dict[str, Any]:
        """A payment of the link's order, and its tender."""
        link = self.links[link_id]
        order = self.orders[link["order_id"]]
        payment: dict[str, Any] = {
            "id": f"bP9mAsEMYPUGjjGNaNO5{next(self._numbers):08d}",
            "status": status,
            "created_at": self._stamp(),
            "amount_money": dict(money),
            "total_money": dict(money),
            "refunded_money": dict(money) | {"amount": 0},
            "source_type": "CARD",
            "location_id": LOCATION_ID,
            "order_id": order["id"],
            "note": link["payment_note"],
            "card_details": {
                "status": "FAILED" if status == "FAILED" else "CAPTURED",
                "card": {"card_brand": "VISA", "last_4": "4242"},
            },
        }
        self.payments[payment["id"]] = payment
        if status == "FAILED":
            payment["card_details"]["errors"] = [{"category": "PAYMENT_METHOD_ERROR", "code": "GENERIC_DECLINE"}]
            return payment
        tender = {"id": payment["id"], "payment_id": payment["id"], "type": "CARD", "amount_money": dict(money)}
        order["tenders"] = [*order.get("tenders", ()), tender]
        order["state"] = "OPEN"
        return payment

    def _settled(self, payment: dict[str, Any]) -> None:
        fee = {"amount": 392, "currency": payment["total_money"]["currency"]}
        payment |= {"status": "COMPLETED", "processing_fee": [{"type": "INITIAL", "amount_money": fee}]}
        self.orders[payment["order_id"]]["state"] = "COMPLETED"

    def payment_of(self, order_id: str) -> dict[str, Any]:
        """The newest payment of an order."""
        return [payment for payment in self.payments.values() if payment["order_id"] == order_id][-1]

    def settle(self, order_id: str, *, status: str = "COMPLETED") -> dict[str, Any]:
        """A pending payment arrives, or fails; returns `payment.updated`."""
        payment = self.payment_of(order_id)
        if status == "COMPLETED":
            self._settled(payment)
        payment["status"] = status
        return self.payment_event(payment["id"])

    def settle_refund(self, refund_id: str, *, status: str = "COMPLETED") -> dict[str, Any]:
        """A pending refund arrives, or fails; returns `refund.updated`."""
        self.refunds[refund_id]["status"] = status
        return self.event("refund.updated", "refund", self.refunds[refund_id])

    def payment_event(self, payment_id: str) -> dict[str, Any]:
        """The `payment.updated` event of a payment in its current state."""
        return self.event("payment.updated", "payment", self.payments[payment_id])

    def event(self, kind: str, name: str, thing: Mapping[str, Any]) -> dict[str, Any]:
        """An event as Square sends it."""
        schema = {"payment": "Payment", "refund": "PaymentRefund"}.get(name)
        if schema is not None:
            self.contract.check_value(self.contract.schema(schema), thing, subject=kind)
        return {
            "merchant_id": MERCHANT_ID,
            "type": kind,
            "event_id": f"6a8f5f28-54a1-4eb0-a98a-{next(self._numbers):012d}",
            "created_at": self._stamp(),
            "data": {"type": name, "id": thing["id"], "object": {name: copy.deepcopy(dict(thing))}},
        }

    def webhook(self, event: Mapping[str, Any], key: str = SIGNATURE_KEY) -> tuple[bytes, dict[str, str]]:
        """The delivery of an event: raw body and headers with lower-case names."""
        body = json.dumps(event).encode()
        return body, {"content-type": "application/json", "x-square-hmacsha256-signature": sign(body, key)}

    def _stamp(self) -> str:
        return self.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
