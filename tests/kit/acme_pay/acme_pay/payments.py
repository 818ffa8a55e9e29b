"""Acme Pay, an invented vendor. Source: the API of Acme Pay, version 1, as checks/fake_acme.py answers it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any, ClassVar, Final

import httpx2

from integrations.base import (
    AmountLimits,
    Capabilities,
    Checkout,
    CheckoutOrder,
    CheckoutStatus,
    Environment,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    MoneyStatement,
    PayloadInvalid,
    Processor,
    ProcessorWebhook,
    RefundOrder,
    SignatureInvalid,
    retry_after,
)

NAME: Final = "acme_pay"
ADDRESS: Final = "https://api.acme-pay.example"
SIGNATURE_HEADER: Final = "acme-signature"
TOLERANCE_S: Final = 300  # of a webhook's time, either way
DECIMALS: Final[Mapping[str, int]] = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}  # of the currencies that Acme accepts
MAXIMUM_MINOR: Final = 99_999_999

STATUS: Final[Mapping[str, CheckoutStatus]] = {  # order.state
    "open": CheckoutStatus.OPEN,
    "clearing": CheckoutStatus.PROCESSING,
    "part_paid": CheckoutStatus.OPEN,  # the rest is due
    "paid": CheckoutStatus.COMPLETED,
    "bounced": CheckoutStatus.FAILED,
    "canceled": CheckoutStatus.EXPIRED,
    "lapsed": CheckoutStatus.EXPIRED,
}
OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # payment.state, refund.state
    "clearing": MoneyOutcome.PENDING,
    "done": MoneyOutcome.SUCCEEDED,
    "declined": MoneyOutcome.FAILED,
    "bounced": MoneyOutcome.FAILED,
}
DISPUTE: Final[Mapping[str, MoneyOutcome]] = {  # dispute.state
    "open": MoneyOutcome.PENDING,  # awaits the business's response
    "lost": MoneyOutcome.SUCCEEDED,  # the money has moved
    "won": MoneyOutcome.FAILED,  # also after "lost": Acme returns the money
}
KINDS: Final[Mapping[str, MoneyKind]] = {  # type of an event's object
    "payment": MoneyKind.CHARGE,
    "refund": MoneyKind.REFUND,
    "dispute": MoneyKind.DISPUTE,
}
REFUSALS: Final[Mapping[int, tuple[str, bool]]] = {  # HTTP status -> reason, retryable
    400: ("invalid_request", False),
    401: ("authentication_failed", False),
    404: ("not_found", False),
    409: ("conflict", False),
    422: ("refused", False),
    429: ("rate_limited", True),
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """`webhook_secret` may hold several, comma-separated, while one is rotated."""

    api_key: str = field(repr=False)
    webhook_secret: str = field(repr=False, default="")


class AcmePay(Processor):
    """One merchant of Acme Pay."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Acme Pay"
    credentials: ClassVar[type[Any]] = Credentials
    checkout_origins: ClassVar[tuple[str, ...]] = ("https://pay.acme-pay.example",)
    session_life_s: ClassVar[int] = 12 * 3600
    capabilities: ClassVar[Capabilities] = Capabilities(pending_refunds=True, key_life_s=3600)

    def __init__(self, credentials: Credentials, *, environment: Environment, webhook_url: str | None = None) -> None:
        secrets = (secret.strip() for secret in credentials.webhook_secret.split(","))
        self._secrets = [secret for secret in secrets if secret]
        self._webhook_url = webhook_url  # Acme gets the webhook's address with each order
        self._timeout_s = environment.timeout_s
        self._base = environment.base_addresses.get(NAME, ADDRESS)
        self._headers = {"authorization": f"Bearer {credentials.api_key}", "content-type": "application/json"}
        self._client = httpx2.AsyncClient(timeout=environment.timeout_s, trust_env=False)

    def amount_limits(self, currency: str) -> AmountLimits | None:
        return AmountLimits(maximum_minor=MAXIMUM_MINOR) if currency in DECIMALS else None

    # ------------------------------------------------------------------------------------------------------- calls
    async def check(self) -> str | None:
        """The merchant's id."""
        return _text(await self._call("GET", "/v1/me", reading=True), "merchant")

    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        """Open an order. The same key returns the same order; Acme refuses other content for it (422)."""
        body = {
            "reference": order.request_reference,
            "title": order.product_name,
            "total": _decimal(order.amount_minor, order.currency),
            "currency": order.currency,
            "lives_s": self.session_life_s,
            "return_url": order.success_url,
            "notify_url": self._webhook_url,
        }
        return _checkout(await self._call("POST", "/v1/orders", body=body, key=order.idempotency_key), [])

    async def read_checkout(self, external_id: str) -> Checkout:
        """The order with its payments, their refunds and their disputes."""
        order = await self._call("GET", f"/v1/orders/{_id(external_id)}", reading=True)
        return _checkout(order, await self._refunds(external_id))

    async def expire_checkout(self, external_id: str) -> Checkout:
        """Cancel the order. If that is no longer possible, read it."""
        try:
            return _checkout(await self._call("POST", f"/v1/orders/{_id(external_id)}/cancel"), [])
        except IntegrationError as error:
            if error.reason != "conflict":
                raise
        return await self.read_checkout(external_id)

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        """Refund a payment in full or in part. The same key returns the same refund."""
        body = {"total": _decimal(order.amount_minor, order.currency), "currency": order.currency}
        path = f"/v1/payments/{_id(order.charge_external_id)}/refunds"
        return _money(await self._call("POST", path, body=body, key=order.idempotency_key), MoneyKind.REFUND)

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        return _money(await self._call("GET", f"/v1/refunds/{_id(external_id)}", reading=True), MoneyKind.REFUND)

    async def _refunds(self, order_id: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        path: str | None = f"/v1/orders/{_id(order_id)}/refunds"
        while path is not None:
            answer = await self._call("GET", path, reading=True)
            try:
                found += answer["refunds"]
                path = answer["next"]
            except (KeyError, TypeError) as error:
                raise IntegrationError(NAME, "unexpected_answer", type(error).__name__) from error
        return found

    async def aclose(self) -> None:
        await self._client.aclose()

    # ---------------------------------------------------------------------------------------------------- webhooks
    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Verify `t=…,v1=…`, the HMAC-SHA256 over "{t}.{raw body}", then parse."""
        if not self._secrets:
            raise SignatureInvalid(NAME, "no_webhook_secret")
        given = re.fullmatch(r"t=(\d{1,12}),v1=([0-9a-f]{64})", headers.get(SIGNATURE_HEADER, ""), re.ASCII)
        if given is None:
            raise SignatureInvalid(NAME, "signature_malformed")
        if not any(hmac.compare_digest(sign(secret, given[1], body), given[2]) for secret in self._secrets):
            raise SignatureInvalid(NAME)
        if abs(now.timestamp() - int(given[1])) > TOLERANCE_S:
            raise SignatureInvalid(NAME, "signature_stale")
        return self.parse(body)

    def parse(self, body: bytes) -> ProcessorWebhook:
        """Parse an event: the order's current state, and the payment, refund or dispute."""
        try:
            event = json.loads(body)
            order = event["order"]
            about = [(event.get(kind), kind) for kind in KINDS]
            return ProcessorWebhook(
                external_id=_text(event, "id"),
                type=_text(event, "type"),
                created_at=_time(event["at"]),
                decides=True,
                money=tuple(_statement(one, KINDS[kind], order) for one, kind in about if one is not None),
                checkout_external_id=_text(order, "id"),
                checkout_status=STATUS[order["state"]],
                request_reference=_text(order, "reference"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PayloadInvalid(NAME, "unexpected_shape", type(error).__name__) from error

    # -------------------------------------------------------------------------------------------------------- HTTP
    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
        reading: bool = False,
    ) -> dict[str, Any]:
        # Never repeated here. Without a response, a call that may have changed something is ambiguous.
        headers = self._headers | ({"idempotency-key": key} if key is not None else {})
        content = json.dumps(body).encode() if body is not None else None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.request(method, self._base + path, headers=headers, content=content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # The request was never sent.
            raise IntegrationError(NAME, "connection", type(error).__name__, retryable=True) from error
        except (TimeoutError, httpx2.HTTPError) as error:
            raise IntegrationError(NAME, "timeout", retryable=True, ambiguous=not reading) from error
        if answer.status_code >= 500:
            raise IntegrationError(NAME, "server_error", retryable=True, ambiguous=not reading)
        if answer.status_code >= 400:
            reason, retryable = REFUSALS.get(answer.status_code, ("refused", False))
            wait_s = retry_after(answer.headers.get("retry-after"))
            raise IntegrationError(NAME, reason, retryable=retryable, retry_after_s=wait_s)
        try:
            return dict(json.loads(answer.content))
        except (TypeError, ValueError) as error:
            raise IntegrationError(NAME, "unexpected_answer", ambiguous=not reading) from error


def sign(secret: str, timestamp: str, body: bytes) -> str:
    """The hexadecimal digest of a webhook's signature."""
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def _decimal(amount_minor: int, currency: str) -> str:
    return str(Decimal(amount_minor).scaleb(-DECIMALS[currency]))


def _minor(total: str, currency: str) -> int:
    """ "125.00" USD -> 12500, without floats. Raises: ValueError."""
    try:
        amount = Decimal(total).scaleb(DECIMALS[currency])
    except InvalidOperation as error:
        raise ValueError("not an amount") from error
    if amount != int(amount) or amount <= 0:
        raise ValueError("not a positive number of the smallest unit")
    return int(amount)


def _checkout(order: Mapping[str, Any], refunds: list[dict[str, Any]]) -> Checkout:
    try:
        status = STATUS[order["state"]]
        charges = [_statement(one, MoneyKind.CHARGE, order) for one in order["payments"]]
        given_back = [_statement(one, MoneyKind.REFUND, order) for one in refunds]
        disputed = [one["dispute"] for one in order["payments"] if one["dispute"] is not None]
        disputes = [_statement(one, MoneyKind.DISPUTE, order) for one in disputed]
        return Checkout(
            external_id=_text(order, "id"),
            status=status,
            url=_text(order, "pay_url") if status is CheckoutStatus.OPEN else None,
            expires_at=_time(order["lapses_at"]),
            request_reference=_text(order, "reference"),
            money=(*charges, *given_back, *disputes),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrationError(NAME, "unexpected_answer", type(error).__name__, ambiguous=True) from error


def _money(answer: Mapping[str, Any], kind: MoneyKind) -> MoneyStatement:
    try:
        return _statement(answer, kind, None)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrationError(NAME, "unexpected_answer", type(error).__name__, ambiguous=True) from error


def _statement(money: Mapping[str, Any], kind: MoneyKind, order: Mapping[str, Any] | None) -> MoneyStatement:
    outcome = (DISPUTE if kind is MoneyKind.DISPUTE else OUTCOME)[money["state"]]
    charge = kind is MoneyKind.CHARGE
    return MoneyStatement(
        kind=kind,
        external_id=_text(money, "id"),
        outcome=outcome,
        amount_minor=_minor(money["total"], money["currency"]),
        currency=_text(money, "currency"),
        checkout_external_id=_text(order, "id") if order else None,
        request_reference=_text(order, "reference") if order else None,
        charge_external_id=None if charge else _text(money, "payment"),
        fee_minor=_minor(money["fee"], money["currency"]) if charge and money["fee"] else None,
        method_summary=money.get("method"),
        failure_code=_text(money, "reason") if charge and outcome is MoneyOutcome.FAILED else None,
        dispute_reason=money.get("reason") if kind is MoneyKind.DISPUTE else None,
        occurred_at=_time(money["at"]),  # of a dispute: the time of its latest change
    )


def _id(external_id: str) -> str:
    # Checked, because it becomes part of a path.
    if not re.fullmatch(r"[a-z0-9_]{1,40}", external_id, re.ASCII):
        raise IntegrationError(NAME, "not_found", "not an id of Acme")
    return external_id


def _text(thing: Mapping[str, Any], name: str) -> str:
    value = thing[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not a text")
    return value


def _time(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without a zone")
    return moment
