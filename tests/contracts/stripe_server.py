"""A fake Stripe: sessions, payments, events and idempotency over HTTP, checked by Stripe's contract."""

from __future__ import annotations

import copy
import hashlib
import hmac
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from integrations.kit.processors import NotPayable
from tests.contracts.openapi import Answer, Call, Contract, ContractServer

API_VERSION = "2026-10-28.endive"
SECRET_KEY = "sk_test_contract_server"
LIVE_KEY = "sk_live_contract_server"
RESTRICTED_KEY = "rk_test_no_balance"  # may not read balance transactions, nor touch webhook endpoints
ACCOUNT_ID = "acct_1ContractServer"
CONNECTED_ID = "acct_1Connected"
WEBHOOK_SECRET = "whsec_contract_server"
EVENTS_FILE = "fixtures/stripe-events.assembled.json"  # of the vendors' specs
THREE_DECIMALS = {"bhd", "jod", "kwd", "omr", "tnd"}
# Written from docs.stripe.com/currencies#minimum-and-maximum-charge-amounts, in the currency's own numbers.
_MINIMUMS = [
    "usd",
    "0.50",
    "aed",
    "2",
    "aud",
    "0.50",
    "brl",
    "0.50",
    "cad",
    "0.50",
    "chf",
    "0.50",
    "czk",
    "15",
    "dkk",
    "2.50",
    "eur",
    "0.50",
    "gbp",
    "0.30",
    "hkd",
    "4",
    "huf",
    "175",
    "inr",
    "0.50",
    "jpy",
    "50",
    "mxn",
    "10",
    "myr",
    "2",
    "nok",
    "3",
    "nzd",
    "0.50",
    "pln",
    "2",
    "ron",
    "2",
    "sek",
    "3",
    "sgd",
    "0.50",
    "thb",
    "10",
]
MINIMUMS = {
    currency: round(float(value) * (1 if currency == "jpy" else 100))
    for currency, value in zip(_MINIMUMS[::2], _MINIMUMS[1::2], strict=True)
}
# Stripe takes ASCII only, no empty part between dots, and no label that begins or ends with a hyphen.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
EMAIL = re.compile(
    rf"{_ATOM}(\.{_ATOM})*@([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])"
)
VOUCHERS = {  # next_action of an intent -> the way to pay
    "oxxo_display_details": "oxxo",
    "boleto_display_details": "boleto",
    "display_bank_transfer_instructions": "customer_balance",
}
_EXPANDABLE = {
    "payment_intent": "payment_intent",
    "latest_charge": "charge",
    "balance_transaction": "balance_transaction",
}


def small_events() -> dict[str, Any]:
    """Thirteen short events, for a clone without the vendors' specs; EVENTS_FILE has them in full."""

    def event(n: int, kind: str, thing: dict[str, Any], **more: Any) -> dict[str, Any]:
        return {"id": f"evt_1PayRequest{n:04d}", "object": "event", "type": kind, "created": 1795392000 + n} | {
            "data": {"object": {"metadata": {"payment_request_id": "pr_0001"}, "currency": "usd", **thing}},
            **more,
        }

    session = {
        "id": "cs_test_a1PayRequest0001",
        "amount_total": 2500,
        "payment_intent": "pi_3PayRequest0001",
        "client_reference_id": "pr_0001",
    }
    paid, unpaid = session | {"payment_status": "paid"}, session | {"payment_status": "unpaid"}
    intent = {
        "id": "pi_3PayRequest0001",
        "amount": 2500,
        "amount_received": 2500,
        "latest_charge": "ch_3PayRequest0001",
    }
    charge = {"id": "ch_3PayRequest0001", "amount": 2500, "payment_intent": intent["id"], "status": "succeeded"}
    refund = {"id": "re_3PayRequest0001", "amount": 1000, "status": "succeeded", "payment_intent": intent["id"]}
    dispute = {"id": "dp_1PayRequest0001", "amount": 2500, "payment_intent": intent["id"], "reason": "fraudulent"}
    completed = "checkout.session.completed"
    events = [
        event(1, completed, paid),
        event(2, completed, unpaid),
        event(3, "checkout.session.async_payment_succeeded", paid),
        event(4, "checkout.session.async_payment_failed", unpaid),
        event(5, "checkout.session.expired", unpaid | {"payment_intent": None}),
        event(6, "payment_intent.succeeded", intent | {"status": "succeeded"}),
        event(7, "payment_intent.payment_failed", intent | {"status": "requires_payment_method"}),
        event(8, "charge.refunded", charge | {"amount_refunded": 1000}),
        event(9, "charge.refunded", charge | {"amount_refunded": 2500}),
        event(10, "refund.created", refund),
        event(11, "charge.dispute.created", dispute | {"status": "needs_response"}),
        event(12, "charge.dispute.closed", dispute | {"status": "lost"}),
        event(13, completed, paid, account="acct_1Connected0001"),
    ]
    return {"events": events, "signatures": []}


class StripeError(Exception):
    """A refusal in Stripe's shape."""

    def __init__(
        self, status: int, kind: str, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.answer = _error(status, kind, message, code=code, param=param)


def _error(status: int, kind: str, message: str, *, code: str | None = None, param: str | None = None) -> Answer:
    body = {"type": kind, "message": message, "code": code, "param": param}
    return Answer(status, {"error": {k: v for k, v in body.items() if v is not None}}, {"Request-Id": "req_contract"})


def sign(body: bytes, secret: str, timestamp: int) -> str:
    """The `Stripe-Signature` header as Stripe makes it."""
    digest = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


def skeleton(contract: Contract, schema: Mapping[str, Any]) -> Any:
    """The smallest value that a schema allows: every required field, null for every other that may be null."""
    if "$ref" in schema:
        return skeleton(contract, contract.spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if schema.get("nullable"):
        return None
    if schema.get("enum"):
        return schema["enum"][0]
    for word in ("anyOf", "oneOf", "allOf"):
        if schema.get(word):
            return skeleton(contract, schema[word][0])
    kind = schema.get("type")
    if kind == "object" or "properties" in schema:
        required = schema.get("required", [])
        return {
            name: skeleton(contract, sub)
            for name, sub in schema.get("properties", {}).items()
            if name in required or sub.get("nullable")
        }
    simple: dict[Any, Any] = {"string": "", "integer": 0, "number": 0, "boolean": False, "array": []}
    return copy.copy(simple.get(kind, {}))


class StripeServer(ContractServer):
    """One Stripe account in test mode, with one connected account. The clock may be replaced: `server.now`."""

    def __init__(self, contract: Contract, *, now: Callable[[], datetime] | None = None) -> None:
        super().__init__(contract)
        self.now = now or (lambda: datetime.now(UTC))
        self.sessions: dict[str, dict[str, Any]] = {}
        self.intents: dict[str, dict[str, Any]] = {}
        self.charges: dict[str, dict[str, Any]] = {}
        self.balances: dict[str, dict[str, Any]] = {}
        self.refunds: dict[str, dict[str, Any]] = {}
        self.refund_status: Literal["pending", "succeeded", "failed", "canceled"] = (
            "succeeded"  # of refunds made by our calls
        )
        self.events: list[dict[str, Any]] = []
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.live = False  # whether what it makes is live money
        self.domain = "https://checkout.stripe.com"  # or one that the account has for its checkouts
        # Whether an intent of a session may be canceled: Stripe's reference says no for all but requires_capture.
        self.cancels_intents = False
        self.takes_address = True  # whether webhook addresses are public enough
        self.revoked = False  # whether the account has rolled its keys
        self.deauthorized: set[str] = set()  # connected accounts that took their permission back
        self.restricted = ""  # why the account may not take money at the moment: Stripe's sentence
        self.settles: tuple[str, Mapping[str, float]] = ("usd", {})  # currency, and what one unit of others is in it
        self.delivered: set[str] = set()
        self._keys: dict[tuple[str, str], tuple[str, Answer]] = {}
        self._numbers = itertools.count(1)

    # -------------------------------------------------------------------------------------------------- shape of it
    def _new(self, schema: str, **fields: Any) -> dict[str, Any]:
        out: dict[str, Any] = skeleton(self.contract, {"$ref": f"#/components/schemas/{schema}"})
        return out | {"object": schema, "livemode": self.live} | fields

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers):06d}"

    def _unix(self) -> int:
        return int(self.now().timestamp())

    def error(self, status: int, reason: str, sentences: Sequence[str], call: Call) -> Answer:
        """Stripe's error body."""
        if reason == "rate_limit":
            answer = _error(429, "invalid_request_error", "Too many requests", code="rate_limit")
            answer.headers["Retry-After"] = "7"
            return answer
        if reason == "server_error":
            return _error(500, "api_error", "An unknown error occurred")
        if reason == "not_found":
            return _error(404, "invalid_request_error", f"Unrecognized request URL ({call.method}: {call.path}).")
        return _error(400, "invalid_request_error", "; ".join(sentences), code="parameter_unknown")

    # ------------------------------------------------------------------------------------------------------- calls
    async def handle(self, call: Call) -> Answer:
        """Authenticate, replay a known key, then do it."""
        try:
            self._authenticate(call)
            replay = self._replay(call)
            if replay is not None:
                return replay
            assert call.operation is not None
            return self._dispatch(call)
        except StripeError as refused:
            return refused.answer

    def _authenticate(self, call: Call) -> None:
        key = call.headers.get("authorization", "").removeprefix("Bearer ")
        if self.revoked:
            raise StripeError(
                401, "invalid_request_error", "Expired API Key provided: sk_test_****", code="api_key_expired"
            )
        if key not in (LIVE_KEY if self.live else SECRET_KEY, RESTRICTED_KEY):
            raise StripeError(401, "invalid_request_error", "Invalid API Key provided: sk_test_****")
        if call.headers.get("stripe-version") != API_VERSION:
            raise StripeError(400, "invalid_request_error", "Invalid Stripe API version")
        account = call.headers.get("stripe-account")
        if account not in (None, ACCOUNT_ID, CONNECTED_ID) or account in self.deauthorized:
            words = "The provided key does not have access to this account. Application access may have been revoked."
            raise StripeError(403, "invalid_request_error", words, code="account_invalid")

    def _scope(self, call: Call) -> str:
        return call.headers.get("stripe-account") or ACCOUNT_ID

    def _replay(self, call: Call) -> Answer | None:
        key = call.headers.get("idempotency-key")
        if key is None or call.method != "POST":
            return None
        if len(key) > 255:
            raise StripeError(400, "idempotency_error", "Idempotency keys have at most 255 characters")
        if (known := self._keys.get((self._scope(call), key))) is None:
            return None
        if known[0] != self._fingerprint(call):
            raise StripeError(
                400, "idempotency_error", "Keys for idempotent requests can only be used with the same parameters."
            )
        return Answer(known[1].status, copy.deepcopy(known[1].payload), {"Idempotent-Replayed": "true"})

    def _fingerprint(self, call: Call) -> str:
        return hashlib.sha256(call.path.encode() + b"\n" + call.raw_body).hexdigest()

    def finish(self, call: Call, answer: Answer) -> Answer:
        """Store the response for its key, even a 500; refused parameters are not stored."""
        key = call.headers.get("idempotency-key")
        if call.method == "POST" and key is not None and (answer.status < 400 or answer.status >= 500):
            kept = (self._fingerprint(call), Answer(answer.status, copy.deepcopy(answer.payload)))
            self._keys.setdefault((self._scope(call), key), kept)
        return answer

    def _dispatch(self, call: Call) -> Answer:
        assert call.operation is not None
        method, path = call.operation.method, call.operation.path
        body = call.operation.body or {}
        query = call.operation.query
        session = call.operation.path_params.get("session", "")
        if (method, path) == ("POST", "/v1/checkout/sessions"):
            return self._create(call, body)
        if (method, path) == ("GET", "/v1/checkout/sessions"):
            return self._list_sessions(call, query)
        if (method, path) == ("GET", "/v1/checkout/sessions/{session}"):
            found = self._find(call, session)
            return Answer(200, self._expanded(found, query.get("expand", []), restricted=_restricted(call)))
        if (method, path) == ("POST", "/v1/checkout/sessions/{session}/expire"):
            found = self._find(call, session)
            if found["status"] != "open":
                raise StripeError(
                    400,
                    "invalid_request_error",
                    f'Only Checkout Sessions with a status in ["open"] can be expired. This Checkout Session has a '
                    f"status of `{found['status']}`.",
                )
            self._expire(found)
            return Answer(200, copy.deepcopy(found))
        if (method, path) == ("GET", "/v1/refunds"):
            listed = self._refunds_of(self.intents[query["payment_intent"]]["latest_charge"])
            return Answer(200, self._page(listed[::-1], query, "/v1/refunds"))
        if (method, path) == ("POST", "/v1/payment_intents/{intent}/cancel"):
            return self._cancel(call, call.operation.path_params["intent"])
        if (method, path) == ("POST", "/v1/refunds"):
            return self._create_refund(call, body)
        if (method, path) == ("GET", "/v1/refunds/{refund}"):
            refund = self.refunds.get(call.operation.path_params["refund"])
            if refund is None:
                raise StripeError(404, "invalid_request_error", "No such refund", code="resource_missing", param="id")
            return Answer(200, copy.deepcopy(refund))
        if (method, path) == ("GET", "/v1/payment_intents/{intent}"):
            intent = self.intents.get(call.operation.path_params["intent"])
            accounts = [s["_account"] for s in self.sessions.values() if intent and s["payment_intent"] == intent["id"]]
            if intent is None or accounts not in ([], [self._scope(call)]):
                raise StripeError(404, "invalid_request_error", "No such payment_intent", code="resource_missing")
            return Answer(200, self._expanded(intent, query.get("expand", []), restricted=_restricted(call)))
        if (method, path) == ("GET", "/v1/events"):
            return self._list_events(query)
        if (method, path) == ("GET", "/v1/account"):
            return Answer(200, self._new("account", id=self._scope(call)))
        if path.startswith("/v1/webhook_endpoints"):
            return self._webhook_endpoints(call, body, query)
        raise StripeError(404, "invalid_request_error", "This fake does not serve this call")

    def _find(self, call: Call, session_id: str) -> dict[str, Any]:
        found = self.sessions.get(session_id)
        if found is None or found["_account"] != self._scope(call):
            raise StripeError(
                404,
                "invalid_request_error",
                f"No such checkout.session: {session_id}",
                code="resource_missing",
                param="session",
            )
        if found["status"] == "open" and self._unix() >= found["expires_at"]:
            self._expire(found)
        return found

    def _list_sessions(self, call: Call, query: Mapping[str, Any]) -> Answer:
        since = query.get("created", {}).get("gte", 0)
        mine = [s for s in self.sessions.values() if s["_account"] == self._scope(call) and s["created"] >= since]
        if "payment_intent" in query:
            mine = [s for s in mine if s["payment_intent"] == query["payment_intent"]]
        expand = [path.removeprefix("data.") for path in query.get("expand", [])]
        page = self._page(mine[::-1], query, "/v1/checkout/sessions")
        page["data"] = [self._expanded(one, expand, restricted=_restricted(call)) for one in page["data"]]
        return Answer(200, page)

    def _page(self, things: list[dict[str, Any]], query: Mapping[str, Any], url: str) -> dict[str, Any]:
        """One page of a list, newest first."""
        ids = [one["id"] for one in things]
        start = ids.index(query["starting_after"]) + 1 if "starting_after" in query else 0
        end = start + query.get("limit", 10)
        return {"object": "list", "url": url, "has_more": end < len(things), "data": copy.deepcopy(things[start:end])}

    def _create(self, call: Call, body: dict[str, Any]) -> Answer:
        """Rules beyond the contract. Source: docs.stripe.com/api/checkout/sessions/create, /currencies."""
        if body.get("mode") != "payment":
            raise StripeError(400, "invalid_request_error", "You must provide mode=payment", param="mode")
        if not body.get("line_items"):
            raise StripeError(
                400, "invalid_request_error", "`line_items` is required in payment mode.", param="line_items"
            )
        if not body.get("success_url"):
            raise StripeError(400, "invalid_request_error", "Missing required param: success_url.", param="success_url")
        total, currency = 0, ""
        for item in body["line_items"]:
            price = item.get("price_data") or {}
            currency, amount = price.get("currency", ""), price.get("unit_amount", 0) * item.get("quantity", 1)
            if not currency.islower() or len(currency) != 3:
                raise StripeError(400, "invalid_request_error", f"Invalid currency: {currency}", param="currency")
            if not (price.get("product_data") or {}).get("name"):
                raise StripeError(400, "invalid_request_error", "Missing required param: product_data[name].")
            if currency in THREE_DECIMALS and amount % 10:
                raise StripeError(400, "invalid_request_error", "Invalid amount: the last digit must be 0")
            total += amount
        digits = 12 if currency == "idr" else 8
        if len(str(total)) > digits:
            words = f"The total must be at most {digits} digits"
            raise StripeError(400, "invalid_request_error", words, code="amount_too_large")
        settled, rates = self.settles
        converted = total if currency == settled else total * rates.get(currency, 1)
        if total < MINIMUMS.get(currency, 1) or converted < (MINIMUMS[settled] if currency in rates else 0):
            raise StripeError(
                400, "invalid_request_error", "The total is below the minimum charge amount", code="amount_too_small"
            )
        if self.restricted:
            raise StripeError(403, "invalid_request_error", self.restricted)
        address = body.get("customer_email")
        if address is not None and (EMAIL.fullmatch(address) is None or len(address) > 254):
            words = f"Invalid email address: {address}"
            raise StripeError(400, "invalid_request_error", words, code="email_invalid", param="customer_email")
        expires = body.get("expires_at", self._unix() + 24 * 3600)
        if not self._unix() + 30 * 60 - 5 <= expires <= self._unix() + 24 * 3600:
            raise StripeError(
                400, "invalid_request_error", "`expires_at` must be 30 minutes to 24 hours ahead", param="expires_at"
            )
        external_id = self._id("cs_test")
        session = self._new(
            "checkout.session",
            id=external_id,
            mode="payment",
            status="open",
            payment_status="unpaid",
            amount_subtotal=total,
            amount_total=total,
            currency=currency,
            client_reference_id=body.get("client_reference_id"),
            metadata=body.get("metadata", {}),
            customer_email=body.get("customer_email"),
            success_url=body["success_url"],
            cancel_url=body.get("cancel_url"),
            created=self._unix(),
            expires_at=expires,
            url=f"{self.domain}/c/pay/{external_id}",
            payment_intent=None,
        )
        session["_intent"] = body.get("payment_intent_data") or {}
        session["_account"] = self._scope(call)
        self.sessions[external_id] = session
        return Answer(200, copy.deepcopy(session))

    def _create_refund(self, call: Call, body: dict[str, Any]) -> Answer:
        """Rules beyond the contract. Source: docs.stripe.com/api/refunds/create."""
        wanted = body.get("payment_intent")
        sessions = (s for s in self.sessions.values() if s["_account"] == self._scope(call))
        session = next((s for s in sessions if wanted and s["payment_intent"] == wanted), None)
        if session is None:
            raise StripeError(404, "invalid_request_error", "No such payment_intent", code="resource_missing")
        intent = self.intents[session["payment_intent"]]
        given = [r for r in self._refunds_of(intent["latest_charge"]) if r["status"] not in ("failed", "canceled")]
        left = intent["amount_received"] - sum(r["amount"] for r in given)
        if left == 0:
            raise StripeError(400, "invalid_request_error", "Already refunded.", code="charge_already_refunded")
        if body.get("amount", left) > left:
            raise StripeError(400, "invalid_request_error", "Refund amount is greater than unrefunded amount")
        amount = body.get("amount", left)
        self.refund(session["id"], amount=amount, metadata=body.get("metadata"), status=self.refund_status)
        return Answer(200, copy.deepcopy(list(self.refunds.values())[-1]))

    def _webhook_endpoints(self, call: Call, body: dict[str, Any], query: Mapping[str, Any]) -> Answer:
        """The account's own endpoints. Source: docs.stripe.com/api/webhook_endpoints."""
        assert call.operation is not None
        if _restricted(call):
            raise StripeError(403, "invalid_request_error", "The provided key lacks rak_webhook_write.")
        mine = {k: v for k, v in self.endpoints.items() if v["_account"] == self._scope(call)}
        if call.method == "GET":
            shown = [{k: v for k, v in one.items() if k != "secret"} for one in reversed(mine.values())]
            return Answer(200, self._page(shown, query, "/v1/webhook_endpoints"))
        if call.method == "POST":
            if not self.takes_address:
                raise StripeError(400, "invalid_request_error", "Invalid URL", code="url_invalid", param="url")
            made = self._new(
                "webhook_endpoint",
                id=self._id("we"),
                url=body["url"],
                enabled_events=body["enabled_events"],
                api_version=body.get("api_version"),
                description=body.get("description"),
                secret=f"whsec_{next(self._numbers):06d}",
                status="enabled",
                created=self._unix(),
                metadata={},
            )
            made |= {"_account": self._scope(call), "_connect": body.get("connect", False)}
            self.endpoints[made["id"]] = made
            return Answer(200, copy.deepcopy(made))
        endpoint_id = call.operation.path_params["webhook_endpoint"]
        if endpoint_id not in mine:
            raise StripeError(404, "invalid_request_error", "No such webhook endpoint", code="resource_missing")
        return Answer(200, self.endpoints.pop(endpoint_id) | {"deleted": True})

    def _refunds_of(self, charge_id: str) -> list[dict[str, Any]]:
        """All refunds of a charge, also failed ones, oldest first."""
        return [r for r in self.refunds.values() if r["charge"] == charge_id]

    def _cancel(self, call: Call, intent_id: str) -> Answer:
        """Rules beyond the contract. Source: docs.stripe.com/api/payment_intents/cancel."""
        intent = self.intents.get(intent_id)
        session = next((s for s in self.sessions.values() if s["payment_intent"] == intent_id), None)
        if intent is None or (session is not None and session["_account"] != self._scope(call)):
            raise StripeError(404, "invalid_request_error", "No such payment_intent", code="resource_missing")
        waits = intent["status"] in ("requires_payment_method", "requires_confirmation", "requires_action")
        if not waits or (session is not None and not self.cancels_intents):
            raise StripeError(
                400,
                "invalid_request_error",
                f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}.",
                code="payment_intent_unexpected_state",
            )
        return Answer(200, copy.deepcopy(self.cancel_intent(intent_id)["data"]["object"]))

    def _expire(self, session: dict[str, Any]) -> None:
        session["status"], session["url"] = "expired", None
        self.event("checkout.session.expired", session)

    def _expanded(self, thing: Mapping[str, Any], expand: Sequence[str], *, restricted: bool) -> dict[str, Any]:
        out = copy.deepcopy(dict(thing))
        books = {"payment_intent": self.intents, "charge": self.charges, "balance_transaction": self.balances}
        for path in expand:
            node: Any = out
            for step in path.split("."):
                if node is None:
                    break  # an intent without a payment attempt has no charge
                if step == "refunds" and node["object"] == "charge":
                    data = [copy.deepcopy(r) for r in reversed(self._refunds_of(node["id"]))]
                    node[step] = {"object": "list", "data": data[:10], "has_more": len(data) > 10, "url": "/v1/refunds"}
                    break
                if step not in (*_EXPANDABLE, "refunds"):
                    raise StripeError(400, "invalid_request_error", f"This property cannot be expanded ({path}).")
                if step == "balance_transaction" and restricted:
                    raise StripeError(403, "invalid_request_error", "The provided key lacks rak_balance_read.")
                schema = _EXPANDABLE[step]
                if not self._may_expand(node["object"], step):
                    break
                if isinstance(node.get(step), str):
                    node[step] = copy.deepcopy(books[schema][node[step]])
                node = node.get(step)
        return out

    def _may_expand(self, owner: str, field: str) -> bool:
        """Whether this contract has the object there; a shortened one may have only the id."""
        properties = self.contract.spec["components"]["schemas"][owner]["properties"]
        return "$ref" in json.dumps(properties[field])

    def _list_events(self, query: Mapping[str, Any]) -> Answer:
        created = query.get("created", {})
        since = created.get("gte", 0) if isinstance(created, Mapping) else created
        found = [
            event
            for event in reversed(self.events)
            if event["created"] >= since
            and (not query.get("types") or event["type"] in query["types"])
            and query.get("delivery_success") in (None, event["id"] in self.delivered)
        ]
        return Answer(200, self._page(found, query, "/v1/events"))

    def _encode(self, answer: Answer) -> Any:
        """Leave out private notes (names with an underscore)."""
        return super()._encode(Answer(answer.status, _public(answer.payload), answer.headers))

    # ------------------------------------------------------------------------------------------- actions of a payer
    def pay(self, session_id: str, *, amount: int | None = None, currency: str | None = None) -> dict[str, Any]:
        """Pay by card; returns the `checkout.session.completed` event. `amount` and `currency` forge what arrived."""
        session = self._payable(session_id)
        if amount is not None:
            session["amount_total"] = amount
        if currency is not None:
            session["currency"] = currency
        intent = self._attempt(session, "succeeded")
        self.event("payment_intent.succeeded", intent)
        return self._complete(session, "paid")

    def pay_async(self, session_id: str) -> dict[str, Any]:
        """Submit a bank debit; returns `checkout.session.completed` with `payment_status=unpaid`."""
        session = self._payable(session_id)
        self._attempt(session, "processing", method="sepa_debit")
        return self._complete(session, "unpaid")

    def take_voucher(self, session_id: str, *, kind: str = "oxxo", until: datetime | None = None) -> dict[str, Any]:
        """Choose a voucher (or a bank transfer), to be paid elsewhere; returns `checkout.session.completed`, unpaid."""
        session = self._payable(session_id)
        intent = self._attempt(session, "requires_action", method=kind)
        del self.charges[intent["latest_charge"]]  # there is no charge before the payer has paid
        ends = int(until.timestamp()) if until else self._unix() + 3 * 24 * 3600
        action = next(name for name, of in VOUCHERS.items() if of == kind)
        details: dict[str, Any] = {
            "oxxo": {"expires_after": ends, "number": "93000262280678"},
            "boleto": {"expires_at": ends, "number": "01010101010101"},
            "customer_balance": {"amount_remaining": intent["amount"], "type": "eu_bank_transfer"},
        }[kind]
        intent |= {"latest_charge": None, "next_action": {"type": action, action: details}}
        self.event("payment_intent.requires_action", intent)
        return self._complete(session, "unpaid")

    def fund_in_part(self, session_id: str, amount: int) -> dict[str, Any]:
        """A part of a bank transfer arrived; returns `payment_intent.partially_funded`."""
        intent = self.intents[self.sessions[session_id]["payment_intent"]]
        intent["next_action"]["display_bank_transfer_instructions"]["amount_remaining"] -= amount
        return self.event("payment_intent.partially_funded", intent)

    def cancel_intent(self, intent_id: str) -> dict[str, Any]:
        """The business cancels a payment at Stripe; returns `payment_intent.canceled`."""
        intent = self.intents[intent_id]
        intent |= {"status": "canceled", "canceled_at": self._unix(), "next_action": None}
        return self.event("payment_intent.canceled", intent)

    def _charge_voucher(self, session: dict[str, Any], intent: dict[str, Any]) -> None:
        if intent["latest_charge"] is None:
            kind = VOUCHERS[intent["next_action"]["type"]]
            intent["next_action"] = None
            self._attempt(session, "processing", method=kind)

    def async_succeed(self, session_id: str) -> dict[str, Any]:
        """The debit or voucher arrived; returns `checkout.session.async_payment_succeeded`."""
        session = self.sessions[session_id]
        intent = self.intents[session["payment_intent"]]
        self._charge_voucher(session, intent)
        intent |= {"status": "succeeded", "amount_received": intent["amount"]}
        self.charges[intent["latest_charge"]] |= {"status": "succeeded", "paid": True}
        session["payment_status"] = "paid"
        self.event("payment_intent.succeeded", intent)
        return self.event("checkout.session.async_payment_succeeded", session)

    def async_fail(self, session_id: str) -> dict[str, Any]:
        """The debit failed, or the voucher ended unpaid; returns `checkout.session.async_payment_failed`."""
        session = self.sessions[session_id]
        intent = self.intents[session["payment_intent"]]
        failure = {"code": "payment_method_provider_decline", "message": "The bank refused the debit."}
        kind = "sepa_debit"
        if intent["latest_charge"] is None:
            failure = {"code": "payment_intent_payment_attempt_expired", "message": "The voucher has expired."}
            kind = VOUCHERS[intent["next_action"]["type"]]
        error = {"type": "card_error", "payment_method": self.payment_method(kind), **failure}
        if intent["latest_charge"] is not None:
            error["charge"] = intent["latest_charge"]
            self.charges[intent["latest_charge"]] |= {
                "status": "failed",
                "failure_code": failure["code"],
                "failure_message": failure["message"],
            }
        intent |= {"status": "requires_payment_method", "last_payment_error": error, "next_action": None}
        self.event("payment_intent.payment_failed", intent)
        return self.event("checkout.session.async_payment_failed", session)

    def decline(self, session_id: str, *, decline_code: str = "insufficient_funds") -> dict[str, Any]:
        """Try a card that is declined; the session stays open. Returns `payment_intent.payment_failed`."""
        session = self._payable(session_id)
        intent = self._attempt(session, "requires_payment_method")
        intent["last_payment_error"] = {
            "type": "card_error",
            "code": "card_declined",
            "decline_code": decline_code,
            "message": "Your card has insufficient funds.",
            "charge": intent["latest_charge"],
            "payment_method": self.payment_method("card"),
        }
        return self.event("payment_intent.payment_failed", intent)

    def payment_method(self, kind: str) -> dict[str, Any]:
        """A payer's way to pay, as an error of an intent names it."""
        named = {"id": self._id("pm"), "type": kind}
        if "payment_method" not in self.contract.spec["components"]["schemas"]:
            return named
        return self._new("payment_method", created=self._unix(), **named)

    def expire(self, session_id: str) -> dict[str, Any]:
        """Let the session's time run out; returns `checkout.session.expired`."""
        self._expire(self._payable(session_id))
        return self.events[-1]

    def refund(
        self,
        session_id: str,
        *,
        amount: int | None = None,
        status: Literal["pending", "succeeded", "failed", "canceled"] = "succeeded",
        metadata: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Refund at Stripe's dashboard; returns `refund.created`."""
        intent = self.intents[self.sessions[session_id]["payment_intent"]]
        refund = self._new(
            "refund",
            id=self._id("re"),
            amount=amount or intent["amount"],
            currency=intent["currency"],
            payment_intent=intent["id"],
            charge=intent["latest_charge"],
            created=self._unix(),
            status=status,
            metadata=dict(metadata or {}),
        )
        del refund["livemode"]  # a refund has none
        self.refunds[refund["id"]] = refund
        return self.event("refund.created", refund)

    def settle_refund(self, refund_id: str, *, status: Literal["succeeded", "failed"]) -> dict[str, Any]:
        """A pending refund arrives, or fails; returns `refund.updated` or `refund.failed`."""
        self.refunds[refund_id]["status"] = status
        return self.event("refund.failed" if status == "failed" else "refund.updated", self.refunds[refund_id])

    def dispute(
        self, session_id: str, *, status: str = "needs_response", due_by: datetime | None = None
    ) -> dict[str, Any]:
        """The contact's bank disputes the charge; returns `charge.dispute.created`, or `.closed` for a final status."""
        intent = self.intents[self.sessions[session_id]["payment_intent"]]
        dispute = self._new(
            "dispute",
            id=f"dp_{intent['id']}",
            amount=intent["amount"],
            currency=intent["currency"],
            payment_intent=intent["id"],
            charge=intent["latest_charge"],
            created=self._unix(),
            status=status,
            reason="fraudulent",
        )
        dispute["evidence_details"]["due_by"] = int(due_by.timestamp()) if due_by else None
        final = status in ("won", "lost", "warning_closed", "prevented")
        return self.event("charge.dispute.closed" if final else "charge.dispute.created", dispute)

    def webhook(
        self, event: Mapping[str, Any], secret: str = WEBHOOK_SECRET, *, timestamp: int | None = None
    ) -> tuple[bytes, dict[str, str]]:
        """The delivery of an event as Stripe posts it: raw body and headers with lower-case names."""
        body = json.dumps(_public(event), indent=2).encode()  # Stripe sends it indented: the raw bytes count
        at = self._unix() if timestamp is None else timestamp
        return body, {"content-type": "application/json; charset=utf-8", "stripe-signature": sign(body, secret, at)}

    def mark_delivered(self, event_id: str) -> None:
        """Every endpoint answered 2xx: the event leaves the list of undelivered ones."""
        self.delivered.add(event_id)

    # --------------------------------------------------------------------------------------------------- machinery
    def _payable(self, session_id: str) -> dict[str, Any]:
        session = self.sessions[session_id]
        if session["status"] == "open" and self._unix() >= session["expires_at"]:
            self._expire(session)
        if session["status"] != "open":
            raise NotPayable(session["status"])
        return session

    def _attempt(self, session: dict[str, Any], status: str, *, method: str = "card") -> dict[str, Any]:
        amount, currency = session["amount_total"], session["currency"]
        if session["payment_intent"] is None:
            intent = self._new("payment_intent", id=self._id("pi"), created=self._unix())
            self.intents[intent["id"]] = intent
            session["payment_intent"] = intent["id"]
        intent = self.intents[session["payment_intent"]]
        charge_id = self._id("ch")
        succeeded = status == "succeeded"
        intent |= {
            "amount": amount,
            "amount_received": amount if succeeded else 0,
            "currency": currency,
            "status": status,
            "latest_charge": charge_id,
            "last_payment_error": None,
            "metadata": session["_intent"].get("metadata", {}),
        }
        details = {"card": {"brand": "visa", "last4": "4242"}, "sepa_debit": {"last4": "3000"}}.get(method, {})
        charge = self._new("charge", id=charge_id, created=self._unix())
        method_schema = self.contract.spec["components"]["schemas"]["charge"]["properties"]["payment_method_details"]
        full = skeleton(self.contract, {**method_schema, "nullable": False}) or {}
        sub = (self._details_schema(method_schema).get("properties") or {}).get(method, {"type": "object"})
        full |= {"type": method, method: skeleton(self.contract, {**sub, "nullable": False}) | details}
        charge |= {
            "amount": amount,
            "amount_captured": amount if succeeded else 0,
            "currency": currency,
            "status": {"succeeded": "succeeded", "processing": "pending", "requires_action": "pending"}.get(
                status, "failed"
            ),
            "paid": succeeded,
            "captured": True,
            "payment_intent": intent["id"],
            "payment_method_details": full,
            "metadata": intent["metadata"],
        }
        if succeeded:
            balance = {"amount": amount, "fee": round(amount * 0.029) + 30, "currency": currency, "type": "charge"}
            balance_id = self._id("txn")
            self.balances[balance_id] = {"id": balance_id, **balance}
            if "balance_transaction" in self.contract.spec["components"]["schemas"]:
                self.balances[balance_id] = self._new("balance_transaction", **self.balances[balance_id])
            charge["balance_transaction"] = balance_id
        self.charges[charge_id] = charge
        return intent

    def _details_schema(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        while "properties" not in schema:
            ref = schema.get("$ref") or schema["anyOf"][0].get("$ref")
            if ref is None:
                return schema["anyOf"][0] if "anyOf" in schema else schema
            schema = self.contract.spec["components"]["schemas"][ref.rpartition("/")[2]]
        return schema

    def _complete(self, session: dict[str, Any], payment_status: str) -> dict[str, Any]:
        session |= {"status": "complete", "payment_status": payment_status, "url": None}
        return self.event("checkout.session.completed", session)

    def event(self, kind: str, thing: Mapping[str, Any]) -> dict[str, Any]:
        """Create an event of this object's current state and add it to the list of events."""
        account = thing.get("_account")
        event = self._new(
            "event",
            id=self._id("evt"),
            api_version=API_VERSION,
            created=self._unix(),
            type=kind,
            data={"object": copy.deepcopy(_public(thing))},
            pending_webhooks=1,
        )
        if account not in (None, ACCOUNT_ID):
            event["account"] = account
        elif "account" in event:
            del event["account"]
        self.contract.check_value(self.contract.schema("event"), event, subject=kind)
        name = str(thing["object"])
        self.contract.check_value(self.contract.schema(name), event["data"]["object"], subject=f"{kind}: {name}")
        self.events.append(event)
        return event


def _restricted(call: Call) -> bool:
    return RESTRICTED_KEY in call.headers.get("authorization", "")


def _public(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _public(v) for k, v in value.items() if not str(k).startswith("_")}
    if isinstance(value, list):
        return [_public(item) for item in value]
    return value
