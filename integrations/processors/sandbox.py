"""The sandbox processor for demos and tests. No money moves. Source: docs/decisions/0005-sandbox-is-a-vendor.md."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Final

import httpx2
import orjson

from integrations.base import (
    AmountLimits,
    Checkout,
    CheckoutOrder,
    CheckoutStatus,
    Delay,
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

NAME: Final = "sandbox"
TOLERANCE_S: Final = 300  # of a webhook's time, in both directions
SIGNATURE_HEADER: Final = "paythread-sandbox-signature"
CHECKOUTS: Final = "/sandbox/v1/checkouts"
REFUNDS: Final = "/sandbox/v1/refunds"
MAXIMUM_MINOR: Final = 99_999_999_999

CHECKOUT_STATUS: Final[Mapping[str, CheckoutStatus]] = {
    "open": CheckoutStatus.OPEN,
    "processing": CheckoutStatus.PROCESSING,
    "completed": CheckoutStatus.COMPLETED,
    "failed": CheckoutStatus.FAILED,
    "expired": CheckoutStatus.EXPIRED,
}
PAYMENT_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {
    "pending": MoneyOutcome.PENDING,
    "succeeded": MoneyOutcome.SUCCEEDED,
    "failed": MoneyOutcome.FAILED,
    "canceled": MoneyOutcome.CANCELED,
}
DISPUTE_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {
    "needs_response": MoneyOutcome.PENDING,
    "lost": MoneyOutcome.SUCCEEDED,  # the money is gone
    "won": MoneyOutcome.FAILED,
}
# HTTP status -> reason, retryable
REFUSALS: Final[Mapping[int, tuple[str, bool]]] = {
    400: ("invalid_request", False),
    401: ("authentication_failed", False),
    404: ("not_found", False),
    409: ("conflict", False),
    429: ("rate_limited", True),
}


@dataclass(frozen=True, slots=True)
class Credentials:
    secret_key: str = field(repr=False)
    webhook_secret: str = field(repr=False, default="")  # several, comma-separated


class Sandbox(Processor):
    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Sandbox"
    credentials: ClassVar[type[Any]] = Credentials

    def __init__(
        self,
        credentials: Credentials,
        *,
        environment: Environment,
        webhook_url: str | None = None,
        client: httpx2.AsyncClient | None = None,
    ) -> None:
        self._secrets = [part for part in (s.strip() for s in credentials.webhook_secret.split(",")) if part]
        self._webhook_url = webhook_url
        self._timeout_s = environment.timeout_s
        self._base = environment.base_addresses.get(NAME, environment.sandbox_url).rstrip("/")
        # The webhook's address ends with the connection's public id, which identifies the account in the sandbox.
        account = (webhook_url or "").rpartition("/")[2]
        self._headers = {"authorization": f"Bearer {credentials.secret_key}", "paythread-sandbox-account": account}
        self._client = client or httpx2.AsyncClient(timeout=environment.timeout_s, trust_env=False)
        self._owned = client is None

    def amount_limits(self, currency: str) -> AmountLimits | None:
        if not re.fullmatch(r"[A-Z]{3}", currency):
            return None
        return AmountLimits(maximum_minor=MAXIMUM_MINOR)

    async def check(self) -> str | None:
        # No call: the sandbox does not know the new keys yet.
        return None

    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        body = {
            "amount_minor": order.amount_minor,
            "currency": order.currency,
            "request_reference": order.request_reference,
            "number": order.number,
            "product_name": order.product_name,
            "description": order.description,
            "success_url": order.success_url,
            "cancel_url": order.cancel_url,
            "webhook_url": self._webhook_url,
        }
        return _checkout(await self._call("POST", CHECKOUTS, body=body, key=order.idempotency_key))

    async def read_checkout(self, external_id: str) -> Checkout:
        return _checkout(await self._call("GET", f"{CHECKOUTS}/{_path_part(external_id)}", reading=True))

    async def expire_checkout(self, external_id: str) -> Checkout:
        try:
            return _checkout(await self._call("POST", f"{CHECKOUTS}/{_path_part(external_id)}/expire"))
        except IntegrationError as error:
            if error.code == "not_open":
                return await self.read_checkout(external_id)
            raise

    async def cancel_delayed(self, external_id: str) -> Checkout:
        try:
            return _checkout(await self._call("POST", f"{CHECKOUTS}/{_path_part(external_id)}/cancel"))
        except IntegrationError as error:
            if error.code == "not_cancelable":
                return await self.read_checkout(external_id)
            raise

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        if order.checkout_external_id is None:
            raise IntegrationError(NAME, "invalid_request", "the charge's checkout is not known")
        body = {"payment": order.charge_external_id, "amount_minor": order.amount_minor}
        path = f"{CHECKOUTS}/{_path_part(order.checkout_external_id)}/refunds"
        answer = await self._call("POST", path, body=body, key=order.idempotency_key)
        return _answered_refund(answer, reference=order.request_reference, ambiguous=True)

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        return _answered_refund(await self._call("GET", f"{REFUNDS}/{_path_part(external_id)}", reading=True))

    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """The signature is `t=…,v1=…`: HMAC-SHA256 over "{t}.{raw body}"."""
        if not self._secrets:
            raise SignatureInvalid(NAME, "no_webhook_secret")
        header = headers.get(SIGNATURE_HEADER, "")
        match = re.fullmatch(r"t=(\d{1,12}),v1=([0-9a-f]{64})", header, re.ASCII)
        if match is None:
            raise SignatureInvalid(NAME, "signature_malformed" if header else "signature_missing")
        expected = [sign(secret, match.group(1), body) for secret in self._secrets]
        if not any(hmac.compare_digest(one, match.group(2)) for one in expected):
            raise SignatureInvalid(NAME)
        if abs(now.timestamp() - int(match.group(1))) > TOLERANCE_S:
            raise SignatureInvalid(NAME, "signature_stale")
        return self.parse(body)

    def parse(self, body: bytes) -> ProcessorWebhook:
        try:
            event = orjson.loads(body)
            checkout, payment = event["data"]["checkout"], event["data"]["payment"]
            refund = event["data"].get("refund")
            money = [_statement(checkout, payment)] if payment is not None else []
            money += [_refund(refund, checkout)] if refund is not None else []
            dispute = event["data"].get("dispute")
            money += [_dispute(dispute, checkout)] if dispute is not None else []
            return ProcessorWebhook(
                external_id=_text(event, "id"),
                type=_text(event, "type"),
                created_at=_time(event["created_at"]),
                decides=True,
                money=tuple(money),
                checkout_external_id=_text(checkout, "id"),
                checkout_status=CHECKOUT_STATUS[checkout["status"]],
                delay=_delay([payment] if payment is not None else []),
                request_reference=_text(checkout, "request_reference"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PayloadInvalid(NAME, "unexpected_shape", type(error).__name__) from error

    async def aclose(self) -> None:
        if self._owned:
            await self._client.aclose()

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
        headers = dict(self._headers)
        if key is not None:
            headers["idempotency-key"] = key
        if body is not None:
            headers["content-type"] = "application/json"
        async with self._edge(reading=reading):
            answer = await self._client.request(
                method, self._base + path, headers=headers, content=orjson.dumps(body) if body is not None else None
            )
        if answer.status_code >= 500:
            raise IntegrationError(
                NAME,
                "server_error",
                f"HTTP {answer.status_code}",
                retryable=True,
                ambiguous=not reading,
                code=str(answer.status_code),
            )
        try:
            payload = orjson.loads(answer.content)
            if answer.status_code < 400 and isinstance(payload, dict):
                return payload
            error = payload["error"]
            code, message = str(error["code"]), str(error["message"])[:300]
        except (KeyError, TypeError, ValueError) as broken:
            raise IntegrationError(
                NAME, "unexpected_answer", f"HTTP {answer.status_code}", ambiguous=not reading
            ) from broken
        reason, retryable = REFUSALS.get(answer.status_code, ("refused", False))
        wait_s = retry_after(answer.headers.get("retry-after")) if answer.status_code == 429 else None
        raise IntegrationError(NAME, reason, message, retryable=retryable, code=code, retry_after_s=wait_s)

    @contextlib.asynccontextmanager
    async def _edge(self, *, reading: bool) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # The request was never sent, so the same call may be repeated.
            raise IntegrationError(NAME, "connection", type(error).__name__, retryable=True) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise IntegrationError(NAME, "timeout", retryable=True, ambiguous=not reading) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise IntegrationError(
                NAME, "connection", type(error).__name__, retryable=True, ambiguous=not reading
            ) from error


def sign(secret: str, timestamp: str, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def _path_part(external_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_]{1,60}", external_id):
        raise IntegrationError(NAME, "not_found", "not a sandbox id")
    return external_id


def _text(thing: Any, name: str) -> str:
    value = thing[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not a non-empty string")
    return value


def _time(value: Any) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return moment


def _statement(checkout: Mapping[str, Any], payment: Mapping[str, Any]) -> MoneyStatement:
    amount = payment["amount_minor"]
    if type(amount) is not int or amount <= 0:
        raise ValueError("the amount is not a positive integer")
    return MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id=_text(payment, "id"),
        outcome=PAYMENT_OUTCOME[payment["status"]],
        amount_minor=amount,
        currency=_text(payment, "currency"),
        checkout_external_id=_text(checkout, "id"),
        request_reference=_text(checkout, "request_reference"),
        fee_minor=payment.get("fee_minor"),
        method_summary=payment.get("method"),
        failure_code=payment.get("failure_code"),
        failure_message=payment.get("failure_message"),
        occurred_at=_time(payment["created_at"]),
    )


def _refund(
    refund: Mapping[str, Any], checkout: Mapping[str, Any] | None = None, *, reference: str | None = None
) -> MoneyStatement:
    amount = refund["amount_minor"]
    if type(amount) is not int or amount <= 0:
        raise ValueError("the amount is not a positive integer")
    return MoneyStatement(
        kind=MoneyKind.REFUND,
        external_id=_text(refund, "id"),
        outcome=PAYMENT_OUTCOME[refund["status"]],
        amount_minor=amount,
        currency=_text(refund, "currency"),
        checkout_external_id=_text(checkout, "id") if checkout else None,
        request_reference=_text(checkout, "request_reference") if checkout else reference,
        charge_external_id=_text(refund, "payment"),
        occurred_at=_time(refund["created_at"]),
    )


def _dispute(dispute: Mapping[str, Any], checkout: Mapping[str, Any]) -> MoneyStatement:
    amount = dispute["amount_minor"]
    if type(amount) is not int or amount <= 0:
        raise ValueError("the amount is not a positive integer")
    return MoneyStatement(
        kind=MoneyKind.DISPUTE,
        external_id=_text(dispute, "id"),
        outcome=DISPUTE_OUTCOME[dispute["status"]],
        amount_minor=amount,
        currency=_text(dispute, "currency"),
        checkout_external_id=_text(checkout, "id"),
        request_reference=_text(checkout, "request_reference"),
        charge_external_id=_text(dispute, "payment"),
        occurred_at=_time(dispute["created_at"]),
        dispute_reason=dispute.get("reason"),
        response_due_at=_time(dispute["respond_by"])
        if dispute["status"] == "needs_response" and dispute.get("respond_by")
        else None,
    )


def _answered_refund(
    answer: Mapping[str, Any], *, reference: str | None = None, ambiguous: bool = False
) -> MoneyStatement:
    try:
        return _refund(answer, reference=reference)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrationError(NAME, "unexpected_answer", type(error).__name__, ambiguous=ambiguous) from error


def _delay(payments: Sequence[Mapping[str, Any]]) -> Delay | None:
    # Only debits and vouchers are ever pending.
    pending = next((payment for payment in reversed(payments) if payment["status"] == "pending"), None)
    if pending is None:
        return None
    until = pending.get("until")
    method = str(pending.get("method") or "").partition(" •")[0]
    return Delay(method=method or None, until=_time(until) if until else None)


def _checkout(answer: dict[str, Any]) -> Checkout:
    try:
        status = CHECKOUT_STATUS[answer["status"]]
        payments = answer["payments"]
        return Checkout(
            external_id=_text(answer, "id"),
            status=status,
            url=_text(answer, "url") if status is CheckoutStatus.OPEN else None,
            expires_at=_time(answer["expires_at"]),
            request_reference=_text(answer, "request_reference"),
            delay=_delay(payments),
            money=(
                *(_statement(answer, payment) for payment in payments),
                *(_refund(refund, answer) for payment in payments for refund in payment.get("refunds") or ()),
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrationError(NAME, "unexpected_answer", type(error).__name__, ambiguous=True) from error


provider = Sandbox
