"""A fake PayPal: orders, captures, refunds, tokens and signed webhooks over HTTP, checked by a contract."""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import itertools
import json
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast

from tests.contracts.openapi import Answer, Call, Contract, ContractServer, vendor_file

CLIENT_ID = "AClientOfTheContractServer"
CLIENT_SECRET = "EClientSecretOfTheContractServer"
WEBHOOK_ID = "1JE4291016473214C"
OTHER_WEBHOOK_ID = "0AB4291016473214X"
CERT_URL = "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594-7a93be2d"
TOKEN_PATH = "/v1/oauth2/token"
FILES = {
    "orders": "paypal-checkout-orders-v2.openapi.json",
    "payments": "paypal-payments-v2.openapi.json",
    "webhooks": "paypal-webhooks-v1.openapi.json",
}
EVENTS_FILE = "fixtures/paypal-events.assembled.json"  # of the vendors' specs
_SIGNING_KEY = b"stands for the private key of PayPal's certificate"
_WHOLE = {"HUF", "JPY", "TWD"}
_TWO = "AUD BRL CAD CHF CNY CZK DKK EUR GBP HKD ILS MXN MYR NOK NZD PHP PLN SEK SGD THB USD"
_CURRENCIES = _WHOLE | set(_TWO.split())
_WORDS = {
    400: ("INVALID_REQUEST", "Request is not well-formed, syntactically incorrect, or violates schema."),
    403: ("NOT_AUTHORIZED", "Authorization failed due to insufficient permissions."),
    401: (
        "AUTHENTICATION_FAILURE",
        "Authentication failed due to missing authorization header, or invalid authentication credentials.",
    ),
    404: ("RESOURCE_NOT_FOUND", "The specified resource does not exist."),
    409: ("RESOURCE_CONFLICT", "The server has detected a conflict while processing this request."),
    422: (
        "UNPROCESSABLE_ENTITY",
        "The requested action could not be performed, semantically incorrect, or failed business validation.",
    ),
    429: ("RATE_LIMIT_REACHED", "Too many requests. Blocked due to rate limiting."),
    500: ("INTERNAL_SERVER_ERROR", "An internal server error has occurred."),
}
Captured = Literal["COMPLETED", "PENDING", "DECLINED", "INSTRUMENT_DECLINED"]


def our_contract() -> Contract:
    """Our compact contract."""
    return Contract(_ours(), name="ours")


def contracts() -> list[Contract]:
    """Our contract, and PayPal's three files as one where they are present."""
    files = {name: vendor_file(file) for name, file in FILES.items()}
    if None in files.values():
        return [our_contract()]
    paths: dict[str, Any] = {TOKEN_PATH: _ours()["paths"][TOKEN_PATH]}  # PayPal describes it in no file
    components: dict[str, dict[str, Any]] = {}
    for name, spec in files.items():
        # The files use one name for different schemas, so each file's names get a prefix.
        text = re.sub(r'"#/components/(\w+)/', rf'"#/components/\1/{name}.', json.dumps(spec))
        prefixed = cast(dict[str, Any], json.loads(text))
        paths |= prefixed["paths"]
        for kind, things in prefixed["components"].items():
            components.setdefault(kind, {}).update({f"{name}.{key}": thing for key, thing in things.items()})
    return [our_contract(), Contract({"openapi": "3.0.3", "paths": paths, "components": components}, name="paypal's")]


def _ours() -> dict[str, Any]:
    return cast(dict[str, Any], json.loads(Path(__file__).with_name("paypal.json").read_bytes()))


def small_events() -> dict[str, Any]:
    """Six short events, for a clone without the vendors' specs; EVENTS_FILE has them in full."""

    def event(n: int, kind: str, thing: dict[str, Any]) -> dict[str, Any]:
        about = {"id": f"WH-PAYREQUEST{n:04d}-TEST", "create_time": "2026-11-23T00:10:00.000Z", "event_type": kind}
        return about | {"resource": {"custom_id": "pr_0001", "create_time": "2026-11-23T00:09:58Z"} | thing}

    def money(value: str) -> dict[str, Any]:
        return {"amount": {"currency_code": "USD", "value": value}}

    capture = money("25.00") | {
        "id": "3C679366HH908993F",
        "supplementary_data": {"related_ids": {"order_id": "5O190127TN364715T"}},
    }
    up = {"links": [{"rel": "up", "href": "https://api-m.sandbox.paypal.com/v2/payments/captures/3C679366HH908993F"}]}
    done = {"status": "COMPLETED"}
    order_ = {"id": "5O190127TN364715T", "status": "APPROVED", "purchase_units": [{"custom_id": "pr_0001"}]}
    return {
        "events": [
            event(1, "CHECKOUT.ORDER.APPROVED", order_),
            event(2, "PAYMENT.CAPTURE.COMPLETED", capture | done),
            event(3, "PAYMENT.CAPTURE.PENDING", capture | {"status": "PENDING"}),
            event(4, "PAYMENT.CAPTURE.DECLINED", capture | {"status": "DECLINED"}),
            event(5, "PAYMENT.CAPTURE.REFUNDED", money("10.00") | done | up | {"id": "1JU08902781691411"}),
            event(6, "PAYMENT.CAPTURE.REVERSED", money("25.00") | done | up | {"id": "9AB08902781691411"}),
        ]
    }


class NotApproved(Exception):
    """PayPal's page would not offer this approval."""


class PayPalError(Exception):
    """A refusal in PayPal's shape."""

    def __init__(self, status: int, issue: str | None = None, *, field: str | None = None) -> None:
        super().__init__(issue or status)
        self.answer = _error(status, issue, field)


def _error(status: int, issue: str | None = None, field: str | None = None) -> Answer:
    name, message = _WORDS[status]
    body: dict[str, Any] = {"name": name, "message": message, "debug_id": "f17c0ntr4ct"}
    detail = {"issue": issue} | ({"field": field} if field else {})
    return Answer(status, body | ({"details": [detail]} if issue else {}))


def transmission(
    body: bytes,
    *,
    webhook_id: str = WEBHOOK_ID,
    at: datetime | None = None,
    transmission_id: str = "69cd13f0-d67a-11e5-baa3-778b53f4ae55",
) -> dict[str, str]:
    """The headers of a delivery. The signed text is PayPal's; an HMAC replaces the RSA signature, which only PayPal checks."""
    time = (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "paypal-auth-algo": "SHA256withRSA",
        "paypal-cert-url": CERT_URL,
        "paypal-transmission-id": transmission_id,
        "paypal-transmission-time": time,
        "paypal-transmission-sig": _signature(transmission_id, time, webhook_id, body),
    }


def _signature(transmission_id: str, time: str, webhook_id: str, body: bytes) -> str:
    text = f"{transmission_id}|{time}|{webhook_id}|{zlib.crc32(body)}"
    return "s" + hmac.new(_SIGNING_KEY, text.encode(), hashlib.sha256).hexdigest()


class PayPalServer(ContractServer):
    """One REST app of one business. The clock may be replaced: `server.now`."""

    def __init__(self, contract: Contract, *, now: Callable[[], datetime] | None = None) -> None:
        super().__init__(contract)
        self.now = now or (lambda: datetime.now(UTC))
        self.orders: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.refund_status = "COMPLETED"  # of refunds made by our calls
        self.webhook_ids = {WEBHOOK_ID, OTHER_WEBHOOK_ID}
        self.webhooks: dict[str, dict[str, Any]] = {}  # made by calls
        self.may_register = True
        self.outcome: Captured = "COMPLETED"  # of the next capture
        self.patchable = True
        self.revoked = False  # whether the app's secret was replaced
        self.refused: tuple[int, str] | None = (
            None  # status and issue of what PayPal has against new orders of this payee
        )
        self.bad_locale = ""  # one that PayPal does not take any more
        self.token_life_s = 31668
        self.tokens: list[str] = []
        self.withdrawn: set[str] = set()
        self._keys: dict[tuple[str, str], str] = {}
        self._numbers = itertools.count(1)

    def error(self, status: int, reason: str, sentences: Sequence[str], call: Call) -> Answer:
        """PayPal's error body."""
        answer = _error(status)
        answer.headers |= {"Retry-After": "7"} if reason == "rate_limit" else {}
        return answer

    def _checked(self, call: Call, answer: Answer) -> Any:
        """No file describes the body of a 429, and the default response excludes it."""
        return self._encode(answer) if answer.status == 429 else super()._checked(call, answer)

    # ------------------------------------------------------------------------------------------------------- calls
    async def handle(self, call: Call) -> Answer:
        """Authenticate, then do it."""
        assert call.operation is not None
        if call.path == TOKEN_PATH:
            return self._token(call)
        bearer = call.headers.get("authorization", "").removeprefix("Bearer ")
        if self.revoked or bearer not in self.tokens or bearer in self.withdrawn:
            return _error(401)
        try:
            return self._dispatch(call)
        except PayPalError as refused:
            return refused.answer

    def _token(self, call: Call) -> Answer:
        good = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if self.revoked or call.headers.get("authorization") != f"Basic {good}":
            return Answer(401, {"error": "invalid_client", "error_description": "Client Authentication failed"})
        self.tokens.append(f"A21AA{next(self._numbers):06d}")
        return Answer(200, {"access_token": self.tokens[-1], "token_type": "Bearer", "expires_in": self.token_life_s})

    def _dispatch(self, call: Call) -> Answer:
        assert call.operation is not None
        params, body = call.operation.path_params, call.operation.body
        match call.operation.operation_id:
            case "orders.create":
                return self._create(call, body)
            case "orders.get":
                return Answer(200, self._shown(params["id"]))
            case "orders.patch":
                return self._patch(params["id"], body)
            case "orders.capture":
                return self._capture(call, params["id"])
            case "captures.refund":
                return self._refund(call, params["capture_id"], body or {})
            case "captures.get":
                found = [o for o in self.orders if self._has(o, params["capture_id"])]
                if not found:
                    raise PayPalError(404, "INVALID_RESOURCE_ID")
                return Answer(200, copy.deepcopy(self.capture_of(found[0])))
            case "refunds.get":
                if params["refund_id"] not in self.refunds:
                    raise PayPalError(404, "INVALID_RESOURCE_ID")
                return Answer(200, copy.deepcopy(self.refunds[params["refund_id"]]))
            case "webhooks.get":
                if params["webhook_id"] not in self.webhook_ids:
                    return Answer(404, {"name": "INVALID_RESOURCE_ID", "message": "not found", "debug_id": "f17"})
                events = [{"name": "*"}]
                return Answer(
                    200, {"id": params["webhook_id"], "url": "https://x.example.test/", "event_types": events}
                )
            case "webhooks.list" | "webhooks.post" | "webhooks.delete" if not self.may_register:
                return Answer(403, {"name": "NOT_AUTHORIZED", "message": "insufficient permissions", "debug_id": "f17"})
            case "webhooks.list":
                return Answer(200, {"webhooks": list(self.webhooks.values())})
            case "webhooks.post":
                return self._subscribe(body)
            case "webhooks.delete":
                if self.webhooks.pop(params["webhook_id"], None) is None:
                    return Answer(404, {"name": "INVALID_RESOURCE_ID", "message": "not found", "debug_id": "f17"})
                self.webhook_ids.remove(params["webhook_id"])
                return Answer(204)
            case "verify-webhook-signature.post":
                return self._verify(call, body)
        raise AssertionError(call.operation.operation_id)

    def _subscribe(self, body: dict[str, Any]) -> Answer:
        """Rules beyond the contract. Source: developer.paypal.com/api/rest/webhooks/rest."""
        if not body["url"].startswith("https://"):
            return Answer(400, {"name": "VALIDATION_ERROR", "message": "not a valid webhook URL", "debug_id": "f17"})
        if any(one["url"] == body["url"] for one in self.webhooks.values()):
            return Answer(400, {"name": "WEBHOOK_URL_ALREADY_EXISTS", "message": "exists", "debug_id": "f17"})
        webhook_id = f"9XY4291{next(self._numbers):010d}"
        self.webhooks[webhook_id] = {"id": webhook_id, **body}
        self.webhook_ids.add(webhook_id)
        return Answer(201, self.webhooks[webhook_id])

    def _order(self, order_id: str) -> dict[str, Any]:
        if order_id not in self.orders:
            raise PayPalError(404, "INVALID_RESOURCE_ID")
        return self.orders[order_id]

    def _shown(self, order_id: str) -> dict[str, Any]:
        return copy.deepcopy(self._order(order_id))

    def _known(self, call: Call) -> str | None:
        """The result stored for this key; PayPal returns it again, whatever the repeated request contains."""
        key = call.headers.get("paypal-request-id", "")
        return self._keys.get((call.path, key)) if key else None

    def _keep(self, call: Call, made: str) -> None:
        if key := call.headers.get("paypal-request-id"):
            self._keys[call.path, key] = made

    def _amount(self, money: Mapping[str, str]) -> float:
        currency, value = money["currency_code"], money["value"]
        if currency not in _CURRENCIES:
            raise PayPalError(422, "INVALID_CURRENCY_CODE")
        decimals = len(value.partition(".")[2])
        if decimals > (0 if currency in _WHOLE else 2):
            raise PayPalError(422, "DECIMAL_PRECISION")
        if float(value) <= 0:
            raise PayPalError(422, "CANNOT_BE_ZERO_OR_NEGATIVE")
        if float(value) > 9_999_999.99:
            raise PayPalError(422, "MAX_VALUE_EXCEEDED")
        return float(value)

    def _create(self, call: Call, body: dict[str, Any]) -> Answer:
        """Rules beyond the contract. Source: developer.paypal.com/docs/api/orders/v2/errors/#create-order."""
        if call.headers.get("prefer") != "return=representation":
            raise AssertionError("the provider reads the whole order")
        if (known := self._known(call)) is not None:
            return Answer(200, self._shown(known))
        self._amount(body["purchase_units"][0]["amount"])
        if self.refused is not None:
            raise PayPalError(*self.refused)
        locale = body["payment_source"]["paypal"]["experience_context"].get("locale")
        if self.bad_locale and locale == self.bad_locale:
            where = "/payment_source/paypal/experience_context/locale"
            raise PayPalError(400, "INVALID_PARAMETER_SYNTAX", field=where)
        order_id = f"5O19{next(self._numbers):012d}T"
        order = {
            "id": order_id,
            "intent": body["intent"],
            "status": "PAYER_ACTION_REQUIRED",
            "payment_source": {"paypal": {}},
            "purchase_units": [{"reference_id": "default", **copy.deepcopy(body["purchase_units"][0])}],
            "create_time": self._stamp(),
        }
        self.orders[order_id] = order
        self._link(order, payable=True)
        self._keep(call, order_id)
        return Answer(201, copy.deepcopy(order))

    def _link(self, order: dict[str, Any], *, payable: bool) -> None:
        address = f"https://api-m.sandbox.paypal.com/v2/checkout/orders/{order['id']}"
        order["links"] = [{"href": address, "rel": "self", "method": "GET"}]
        if payable:
            page = f"https://www.sandbox.paypal.com/checkoutnow?token={order['id']}"
            order["links"].append({"href": page, "rel": "payer-action", "method": "GET"})

    def _patch(self, order_id: str, body: list[dict[str, Any]]) -> Answer:
        order = self._order(order_id)
        if order["status"] == "COMPLETED":
            raise PayPalError(422, "ORDER_ALREADY_COMPLETED")
        if not self.patchable:
            raise PayPalError(422, "NOT_PATCHABLE")
        for patch in body:
            if (patch["op"], patch["path"]) != ("add", "/purchase_units/@reference_id=='default'/invoice_id"):
                raise PayPalError(422, "INVALID_JSON_POINTER_FORMAT")
            order["purchase_units"][0]["invoice_id"] = patch["value"]
        return Answer(204)

    def _capture(self, call: Call, order_id: str) -> Answer:
        order = self._order(order_id)
        if self._known(call) is not None:
            return Answer(200, self._shown(order_id))
        if order["status"] == "COMPLETED":
            raise PayPalError(422, "ORDER_ALREADY_CAPTURED")
        if order["status"] != "APPROVED":
            raise PayPalError(422, "ORDER_NOT_APPROVED")
        if self.outcome == "INSTRUMENT_DECLINED":
            order["status"] = "PAYER_ACTION_REQUIRED"
            self._link(order, payable=True)
            raise PayPalError(422, "INSTRUMENT_DECLINED")
        self.capture_now(order_id, self.outcome)
        self._keep(call, order_id)
        return Answer(201, self._shown(order_id))

    def capture_now(
        self, order_id: str, outcome: str = "COMPLETED", *, value: str | None = None, currency: str | None = None
    ) -> None:
        """What the capture call does at PayPal. `value` and `currency` forge what arrived."""
        order = self.orders[order_id]
        unit = order["purchase_units"][0]
        forged = {"value": value, "currency_code": currency}
        amount = copy.deepcopy(unit["amount"]) | {name: said for name, said in forged.items() if said is not None}
        capture_id = f"3C67{next(self._numbers):012d}F"
        capture = {
            "id": capture_id,
            "status": outcome,
            "amount": amount,
            "final_capture": True,
            "custom_id": unit["custom_id"],
            "supplementary_data": {"related_ids": {"order_id": order_id}},
            "create_time": self._stamp(),
            "update_time": self._stamp(),
            "links": [{"href": f"https://api-m.sandbox.paypal.com/v2/payments/captures/{capture_id}", "rel": "self"}],
        }
        if outcome == "PENDING":
            capture["status_details"] = {"reason": "ECHECK"}
        order["status"] = "COMPLETED"
        unit["payments"] = {"captures": [capture]}
        if outcome == "COMPLETED":
            self._settled(capture)

    def _settled(self, capture: dict[str, Any]) -> None:
        currency = capture["amount"]["currency_code"]
        fee = "1" if currency in _WHOLE else "0.95"
        capture |= {"status": "COMPLETED", "update_time": self._stamp()}
        capture.pop("status_details", None)
        capture["seller_receivable_breakdown"] = {
            "gross_amount": dict(capture["amount"]),
            "paypal_fee": {"currency_code": currency, "value": fee},
        }

    def capture_of(self, order_id: str) -> dict[str, Any]:
        """The order's capture."""
        return cast(dict[str, Any], self.orders[order_id]["purchase_units"][0]["payments"]["captures"][0])

    def _refund(self, call: Call, capture_id: str, body: dict[str, Any]) -> Answer:
        if (known := self._known(call)) is not None:
            return Answer(201, copy.deepcopy(self.refunds[known]))
        order_id = next((o for o in self.orders if self._has(o, capture_id)), None)
        if order_id is None:
            raise PayPalError(404, "INVALID_RESOURCE_ID")
        made = self.refund_now(order_id, body.get("amount"), custom_id=body.get("custom_id"), status=self.refund_status)
        self._keep(call, made["id"])
        return Answer(201, copy.deepcopy(made))

    def _has(self, order_id: str, capture_id: str) -> bool:
        payments = self.orders[order_id]["purchase_units"][0].get("payments")
        return bool(payments) and payments["captures"][0]["id"] == capture_id

    def refund_now(
        self,
        order_id: str,
        amount: Mapping[str, str] | None = None,
        *,
        custom_id: str | None = None,
        status: str = "COMPLETED",
    ) -> dict[str, Any]:
        """Refund the order's capture, by our call or in PayPal's own pages. Raises PayPalError."""
        capture, unit = self.capture_of(order_id), self.orders[order_id]["purchase_units"][0]
        amount = dict(amount or capture["amount"])
        value = self._amount(amount)
        if capture["status"] == "PENDING":
            raise PayPalError(422, "PENDING_CAPTURE")
        if amount["currency_code"] != capture["amount"]["currency_code"]:
            raise PayPalError(422, "REFUND_CAPTURE_CURRENCY_MISMATCH")
        given = sum(float(r["amount"]["value"]) for r in unit["payments"].get("refunds", ()))
        left = float(capture["amount"]["value"]) - given
        if value > left + 0.001:
            raise PayPalError(422, "REFUND_AMOUNT_EXCEEDED" if left else "CAPTURE_FULLY_REFUNDED")
        refund_id = f"1JU0{next(self._numbers):013d}"
        base = "https://api-m.sandbox.paypal.com/v2/payments"
        refund = {
            "id": refund_id,
            "status": status,
            "amount": amount,
            "create_time": self._stamp(),
            "links": [
                {"href": f"{base}/refunds/{refund_id}", "rel": "self", "method": "GET"},
                {"href": f"{base}/captures/{capture['id']}", "rel": "up", "method": "GET"},
            ],
        } | ({"custom_id": custom_id} if custom_id else {})
        unit["payments"].setdefault("refunds", []).append(refund)
        capture["status"] = "REFUNDED" if value >= left - 0.001 else "PARTIALLY_REFUNDED"
        self.refunds[refund_id] = refund
        return refund

    def _verify(self, call: Call, body: dict[str, Any]) -> Answer:
        text = call.raw_body.decode()
        # The exact bytes of the event inside the request.
        start = text.index('"webhook_event":') + len('"webhook_event":')
        _, end = json.JSONDecoder().raw_decode(text, start + len(text[start:]) - len(text[start:].lstrip()))
        while text[end] not in ",}":
            end += 1
        good = _signature(
            body["transmission_id"], body["transmission_time"], body["webhook_id"], text[start:end].encode()
        )
        known = body["webhook_id"] in self.webhook_ids and body["cert_url"] == CERT_URL
        fits = known and hmac.compare_digest(good, body["transmission_sig"])
        return Answer(200, {"verification_status": "SUCCESS" if fits else "FAILURE"})

    # ------------------------------------------------------------------------------------------- actions of a payer
    def approve(self, order_id: str) -> dict[str, Any]:
        """The payer approves on PayPal's page; returns `CHECKOUT.ORDER.APPROVED`. No money moves."""
        order = self.orders[order_id]
        if order["status"] not in ("CREATED", "PAYER_ACTION_REQUIRED"):
            raise NotApproved(order["status"])
        order["status"] = "APPROVED"
        order["payment_source"] = {"paypal": {"email_address": "payer@example.test"}}
        self._link(order, payable=False)
        return self.event("CHECKOUT.ORDER.APPROVED", "checkout-order", order)

    def capture_event(self, order_id: str) -> dict[str, Any]:
        """The event of the order's capture in its current state."""
        capture = self.capture_of(order_id)
        return self.event(f"PAYMENT.CAPTURE.{capture['status']}", "capture", capture)

    def settle(self, order_id: str) -> dict[str, Any]:
        """Complete a pending capture; returns `PAYMENT.CAPTURE.COMPLETED`."""
        self._settled(self.capture_of(order_id))
        return self.capture_event(order_id)

    def deny(self, order_id: str) -> dict[str, Any]:
        """Deny a pending capture; returns `PAYMENT.CAPTURE.DENIED`."""
        capture = self.capture_of(order_id)
        capture |= {"status": "DECLINED", "status_details": {"reason": "ECHECK"}}
        return self.event("PAYMENT.CAPTURE.DENIED", "capture", capture)

    def event(self, kind: str, resource_type: str, resource: Mapping[str, Any]) -> dict[str, Any]:
        """An event as PayPal sends it."""
        event = {
            "id": f"WH-{next(self._numbers):017d}-TEST",
            "event_version": "1.0",
            "create_time": self._stamp(),
            "resource_type": resource_type,
            "resource_version": "2.0",
            "event_type": kind,
            "summary": kind.replace(".", " ").capitalize(),
            "resource": copy.deepcopy(dict(resource)),
        }
        prefix = "webhooks." if "webhooks.event" in self.contract.spec["components"]["schemas"] else ""
        self.contract.check_value(self.contract.schema(f"{prefix}event"), event, subject=kind)
        return event

    def webhook(
        self, event: Mapping[str, Any], *, webhook_id: str = WEBHOOK_ID, at: datetime | None = None
    ) -> tuple[bytes, dict[str, str]]:
        """The delivery of an event: raw body and headers with lower-case names."""
        text = json.dumps(event, ensure_ascii=False)
        # Half a surrogate pair can only travel as an escape.
        body = text.encode("ascii", "backslashreplace") if re.search("[\ud800-\udfff]", text) else text.encode()
        return body, transmission(body, webhook_id=webhook_id, at=at or self.now())

    def _stamp(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
