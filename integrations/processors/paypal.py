"""PayPal through Orders v2. Sources: developer.paypal.com/docs/api/orders/v2, .../payments/v2, .../webhooks/v1, /api/rest."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final
from urllib.parse import quote

import httpx2  # PayPal's SDK is synchronous and has no webhooks
import orjson

from integrations.base import (
    AmountLimits,
    Capabilities,
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
from integrations.declines import Decline, by_reason, sentence

NAME: Final = "paypal"
ADDRESSES: Final = {"live": "https://api-m.paypal.com", "test": "https://api-m.sandbox.paypal.com"}
ORDERS: Final = "/v2/checkout/orders"
WEBHOOKS: Final = "/v1/notifications/webhooks"
TOLERANCE_S: Final = 300  # of a webhook's time; older ones are hints
# PayPal retries for three days, perhaps with the first signing time.
RESENT_FOR_S: Final = 4 * 24 * 3600
APPROVAL_LIFE: Final = timedelta(hours=3)  # from creation until the payer must approve
FORGOTTEN_AFTER: Final = 2 * APPROVAL_LIFE  # the same again until the capture
# PayPal cannot cancel an order. This prefix of its invoice id marks it as closed; a marked order is never captured.
CLOSED: Final = "closed-"
TOKEN_MARGIN_S: Final = 60
VERIFIES_AT_ONCE: Final = 8  # concurrent calls that webhooks, also forged ones, may cause

# ------------------------------------------------------------------------------------------------------------- money
_TWO = "AUD BRL CAD CHF CNY CZK DKK EUR GBP HKD ILS MXN MYR NOK NZD PHP PLN SEK SGD THB USD"  # some only for accounts of their country
WHOLE_UNITS: Final = frozenset({"HUF", "TWD"})  # two decimals in ISO 4217, none at PayPal
NO_MINOR_UNIT: Final = frozenset({"JPY"})
SUPPORTED: Final = frozenset(_TWO.split()) | WHOLE_UNITS | NO_MINOR_UNIT
MAXIMUM: Final = 9_999_999  # whole units; a hint, since the real maximum depends on the account


def to_vendor(amount_minor: int, currency: str) -> str:
    """PayPal's decimal text for minor units. Raises: IntegrationError if PayPal cannot represent the amount."""
    if currency in NO_MINOR_UNIT:
        return str(amount_minor)
    whole, part = divmod(amount_minor, 100)
    if currency not in WHOLE_UNITS:
        return f"{whole}.{part:02d}"
    if part:
        raise IntegrationError(NAME, "amount_not_representable", f"{currency} takes no decimals at PayPal")
    return str(whole)


def from_vendor(value: str, currency: str) -> int:
    """Minor units of PayPal's decimal text. Raises: ValueError."""
    match = re.fullmatch(r"(\d{1,15})(?:\.(\d+))?", value, re.ASCII)
    decimals = 0 if currency in NO_MINOR_UNIT else 2
    part = (match[2] or "") if match else ""
    if match is None or part[decimals:].strip("0"):
        raise ValueError("not an amount")
    return int(match[1] + part[:decimals].ljust(decimals, "0"))


# ------------------------------------------------------------------------------------------------------------ states
CAPTURE_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # Capture.status
    "COMPLETED": MoneyOutcome.SUCCEEDED,
    "PARTIALLY_REFUNDED": MoneyOutcome.SUCCEEDED,  # the refund is a movement of its own
    "REFUNDED": MoneyOutcome.SUCCEEDED,
    "PENDING": MoneyOutcome.PENDING,
    "DECLINED": MoneyOutcome.FAILED,
    "DENIED": MoneyOutcome.FAILED,  # a pending capture that was refused; only in events
    "FAILED": MoneyOutcome.FAILED,
}
REFUND_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # Refund.status
    "COMPLETED": MoneyOutcome.SUCCEEDED,
    "PENDING": MoneyOutcome.PENDING,
    "FAILED": MoneyOutcome.FAILED,
    "CANCELLED": MoneyOutcome.CANCELED,
}
DISPUTE_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # outcome_code; SUCCEEDED = the money is gone for good
    "RESOLVED_BUYER_FAVOUR": MoneyOutcome.SUCCEEDED,
    "ACCEPTED": MoneyOutcome.SUCCEEDED,
    "RESOLVED_SELLER_FAVOUR": MoneyOutcome.FAILED,
    "RESOLVED_WITH_PAYOUT": MoneyOutcome.FAILED,  # PayPal pays the buyer, the seller keeps the money
    "DENIED": MoneyOutcome.FAILED,
    "CANCELED_BY_BUYER": MoneyOutcome.CANCELED,
    "NONE": MoneyOutcome.CANCELED,
}
UNPAID_ORDER: Final = frozenset({"CREATED", "SAVED", "PAYER_ACTION_REQUIRED", "APPROVED"})
CHECKOUT_BY_CHARGE: Final[Mapping[MoneyOutcome, CheckoutStatus]] = {
    MoneyOutcome.SUCCEEDED: CheckoutStatus.COMPLETED,
    MoneyOutcome.PENDING: CheckoutStatus.PROCESSING,
    MoneyOutcome.FAILED: CheckoutStatus.FAILED,
}
ORDER_EVENTS: Final = frozenset({"CHECKOUT.ORDER.APPROVED", "CHECKOUT.ORDER.COMPLETED", "CHECKOUT.ORDER.VOIDED"})
# PayPal reversed an approval that was not captured in time. Its object names the order.
APPROVAL_EVENTS: Final = frozenset({"CHECKOUT.PAYMENT-APPROVAL.REVERSED"})
CAPTURE_EVENTS: Final = frozenset(
    {
        "PAYMENT.CAPTURE.COMPLETED",
        "PAYMENT.CAPTURE.PENDING",
        "PAYMENT.CAPTURE.DECLINED",
        "PAYMENT.CAPTURE.DENIED",
    }
)
# A reversal, such as a chargeback, is a refund with its own id.
REFUND_EVENTS: Final = frozenset({"PAYMENT.CAPTURE.REFUNDED", "PAYMENT.CAPTURE.REVERSED"})
DISPUTE_EVENTS: Final = frozenset({"CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.UPDATED", "CUSTOMER.DISPUTE.RESOLVED"})
# The event does not name the merchant.
CONSENT_EVENTS: Final = frozenset({"MERCHANT.PARTNER-CONSENT.REVOKED"})
OLD_CONSENT_EVENTS: Final = frozenset({"IDENTITY.AUTHORIZATION-CONSENT.REVOKED"})  # not subscribed to, but understood
EVENTS: Final = ORDER_EVENTS | APPROVAL_EVENTS | CAPTURE_EVENTS | REFUND_EVENTS | DISPUTE_EVENTS | CONSENT_EVENTS
# The payer may approve again with another payment method.
DECLINED: Final = frozenset(
    {
        "COMPLIANCE_VIOLATION",
        "DOMESTIC_TRANSACTION_REQUIRED",
        "INSTRUMENT_DECLINED",
        "MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED",
        "PAYEE_BLOCKED_TRANSACTION",
        "PAYER_ACCOUNT_LOCKED_OR_CLOSED",
        "PAYER_ACCOUNT_RESTRICTED",
        "PAYER_CANNOT_PAY",
        "REDIRECT_PAYER_FOR_ALTERNATE_FUNDING",
        "TRANSACTION_BLOCKED_BY_PAYEE",
        "TRANSACTION_LIMIT_EXCEEDED",
        "TRANSACTION_RECEIVING_LIMIT_EXCEEDED",
        "TRANSACTION_REFUSED",
    }
)
# Reasons and states of failed captures, and the issues above.
DECLINES: Final = by_reason(
    {
        Decline.NOT_CARRIED_OUT: "ECHECK DECLINED DENIED FAILED",
        Decline.FRAUD: "PENDING_REVIEW DECLINED_BY_RISK_FRAUD_FILTERS TRANSACTION_REFUSED",
        Decline.REVOKED: "BUYER_COMPLAINT CHARGEBACK REFUNDED",
        Decline.NOT_SUPPORTED: "INTERNATIONAL_WITHDRAWAL DOMESTIC_TRANSACTION_REQUIRED",
        Decline.OUR_RULES: (
            "RECEIVING_PREFERENCE_MANDATES_MANUAL_ACTION UNILATERAL VERIFICATION_REQUIRED COMPLIANCE_VIOLATION"
            " PAYEE_BLOCKED_TRANSACTION TRANSACTION_BLOCKED_BY_PAYEE TRANSACTION_RECEIVING_LIMIT_EXCEEDED"
        ),
        Decline.INSUFFICIENT_FUNDS: "TRANSACTION_APPROVED_AWAITING_FUNDING",
        Decline.ANOTHER_WAY: "INSTRUMENT_DECLINED REDIRECT_PAYER_FOR_ALTERNATE_FUNDING",
        Decline.TOO_MANY_TRIES: "MAX_NUMBER_OF_PAYMENT_ATTEMPTS_EXCEEDED",
        Decline.PAYER_ACCOUNT: "PAYER_ACCOUNT_LOCKED_OR_CLOSED PAYER_ACCOUNT_RESTRICTED PAYER_CANNOT_PAY",
        Decline.OVER_LIMIT: "TRANSACTION_LIMIT_EXCEEDED",
    }
)
_WAITS_FOR_YOU = "PayPal waits for you: accept the payment, or complete what it asks, in your account there."
PENDING: Final[Mapping[str, str]] = {  # reason of a PENDING capture -> what it waits for, for the team
    "ECHECK": "It is an eCheck: the payer's bank takes some days.",
    "PENDING_REVIEW": "PayPal reviews the payment first.",
    "TRANSACTION_APPROVED_AWAITING_FUNDING": "The payer's money has not arrived at PayPal yet.",
    "INTERNATIONAL_WITHDRAWAL": _WAITS_FOR_YOU,
    "RECEIVING_PREFERENCE_MANDATES_MANUAL_ACTION": _WAITS_FOR_YOU,
    "UNILATERAL": _WAITS_FOR_YOU,
    "VERIFICATION_REQUIRED": _WAITS_FOR_YOU,
}
# Payment methods that take days; other PENDING captures wait for a review.
DELAYS: Final[Mapping[str, str | None]] = {"ECHECK": "eCheck", "TRANSACTION_APPROVED_AWAITING_FUNDING": None}
LOOK_AGAIN: Final = frozenset({"ORDER_ALREADY_CAPTURED", "ORDER_NOT_APPROVED", "PAYER_ACTION_REQUIRED"})
IN_PROGRESS: Final = frozenset({"ORDER_COMPLETION_IN_PROGRESS", "PREVIOUS_REQUEST_IN_PROGRESS"})
# Issue -> reason. Source: developer.paypal.com/docs/api/orders/v2/errors.
ISSUES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("CANNOT_BE_ZERO_OR_NEGATIVE", "REFUND_AMOUNT_TOO_LOW"), "amount_too_small"),
    **dict.fromkeys(("MAX_VALUE_EXCEEDED", "REFUND_AMOUNT_EXCEEDED", "CAPTURE_FULLY_REFUNDED"), "amount_too_large"),
    "DECIMAL_PRECISION": "amount_not_representable",
    "INVALID_CURRENCY_CODE": "currency_not_supported",
    "CURRENCY_NOT_SUPPORTED": "currency_not_supported",
    **dict.fromkeys(
        (
            "INVALID_ACCOUNT_STATUS",
            "PAYEE_ACCOUNT_INVALID",
            "PAYEE_ACCOUNT_LOCKED_OR_CLOSED",
            "PAYEE_ACCOUNT_NOT_SUPPORTED",
            "PAYEE_ACCOUNT_NOT_VERIFIED",
            "PAYEE_ACCOUNT_RESTRICTED",
        ),
        "account_restricted",
    ),
}
FIELDS: Final[Mapping[str, str]] = {  # end of the pointer to a field of a new order -> the order's field
    "locale": "locale",
    "email_address": "customer_email",
}
REFUSALS: Final[Mapping[int, str]] = {
    400: "invalid_request",
    401: "authentication_failed",
    403: "permission_denied",
    404: "not_found",
}
_LOCALES = (
    "da-DK de-AT de-CH de-DE en-AU en-CA en-GB en-IE en-IN en-NZ en-US es-ES es-MX fr-BE fr-CA fr-CH fr-FR he-IL "
    "id-ID it-IT ja-JP nl-BE nl-NL no-NO pl-PL pt-BR pt-PT ru-RU sv-SE th-TH zh-CN zh-HK zh-TW"
)
LOCALES: Final = frozenset(_LOCALES.split())
# A webhook's header, its field in the verification call, its allowed form.
_SIGNED: Final = (
    ("paypal-auth-algo", "auth_algo", r"[A-Z][A-Za-z0-9]{1,99}"),
    ("paypal-cert-url", "cert_url", r"https://(?:[a-z0-9-]+\.)+paypal\.com/[A-Za-z0-9/._-]{1,400}"),
    ("paypal-transmission-id", "transmission_id", r"(?!\d+$)[A-Za-z0-9_][A-Za-z0-9_.-]{1,49}"),
    ("paypal-transmission-sig", "transmission_sig", r"[A-Za-z0-9+/=]{16,500}"),
    ("paypal-transmission-time", "transmission_time", r"[0-9T:.Z+-]{20,40}"),
)


@dataclass(frozen=True, slots=True)
class Credentials:
    client_id: str = field(repr=False)
    client_secret: str = field(repr=False)
    webhook_id: str = field(repr=False, default="")  # several, comma-separated, while one is replaced
    mode: str = "live"  # or "test", PayPal's sandbox; the keys do not show it


class PayPal(Processor):
    """One REST app of a PayPal account."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "PayPal"
    credentials: ClassVar[type[Any]] = Credentials
    checkout_origins: ClassVar[tuple[str, ...]] = ("https://www.paypal.com", "https://www.sandbox.paypal.com")
    session_life_s: ClassVar[int] = int(APPROVAL_LIFE.total_seconds())
    capabilities: ClassVar[Capabilities] = Capabilities(
        webhooks_expire=False, declines_end_checkouts=True, pending_refunds=True
    )
    advice: ClassVar[Mapping[str, tuple[str, str]]] = {
        "webhook_unknown": (
            "webhook_id",
            "{name} has no webhook of this id{mode}: copy the id of the webhook whose address is {url}.",
        )
    }

    def __init__(self, credentials: Credentials, *, environment: Environment, webhook_url: str | None = None) -> None:
        if credentials.mode not in ADDRESSES:
            raise IntegrationError(NAME, "credentials_invalid", "mode must be live or test")
        self._client_id = credentials.client_id
        pair = f"{credentials.client_id}:{credentials.client_secret}".encode()
        self._basic = "Basic " + base64.b64encode(pair).decode()
        self._webhook_url = webhook_url or ""
        self._webhook_ids = [part for part in (i.strip() for i in credentials.webhook_id.split(",")) if part]
        self._base = environment.base_addresses.get(NAME, ADDRESSES[credentials.mode]).rstrip("/")
        self._timeout_s = environment.timeout_s
        self._client = httpx2.AsyncClient(timeout=environment.timeout_s, trust_env=False)
        self._token = ""
        self._token_until = 0.0
        self._token_lock = asyncio.Lock()
        self._verifying = asyncio.Semaphore(VERIFIES_AT_ONCE)

    def amount_limits(self, currency: str) -> AmountLimits | None:
        """The maximum is a hint. Source: developer.paypal.com/api/rest/reference/currency-codes."""
        if currency not in SUPPORTED:
            return None
        unit = 1 if currency in NO_MINOR_UNIT else 100
        step = unit if currency in WHOLE_UNITS else 1
        return AmountLimits(minimum_minor=step, maximum_minor=MAXIMUM * unit, step_minor=step)

    # ------------------------------------------------------------------------------------------------------- calls
    async def check(self) -> str | None:
        """Verify the keys and webhook ids; return a digest of the client id. Source: developer.paypal.com/api/rest/authentication."""
        await self._access_token()
        for webhook_id in self._webhook_ids:
            try:
                await self._call("GET", f"{WEBHOOKS}/{quote(webhook_id, safe='')}", reading=True)
            except IntegrationError as error:
                if error.reason == "not_found":
                    raise IntegrationError(NAME, "webhook_unknown", "PayPal has no webhook with this id") from error
                raise
        # Only the app that created an order can read it, so the app is the account.
        return "app_" + hashlib.sha256(self._client_id.encode()).hexdigest()[:24]

    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        """Within 6 hours, the same key returns the same order. Source: developer.paypal.com/docs/api/orders/v2/#orders_create."""
        experience: dict[str, str] = {
            "return_url": order.success_url,
            "cancel_url": order.cancel_url,
            "user_action": "PAY_NOW",
            "shipping_preference": "NO_SHIPPING",
        }
        if order.locale in LOCALES:
            experience["locale"] = order.locale
        amount = {"currency_code": order.currency, "value": to_vendor(order.amount_minor, order.currency)}
        body = {
            "intent": "CAPTURE",
            "purchase_units": [
                {
                    "amount": amount,
                    # No invoice id: PayPal refuses duplicates.
                    "custom_id": order.request_reference,
                    "description": _cut(f"{order.number} {order.product_name}", 127),
                }
            ],
            "payment_source": {"paypal": {"experience_context": experience}},
        }
        answer = await self._call("POST", ORDERS, body=body, key=order.idempotency_key)
        made = _checkout(answer, ambiguous=True)
        with _expected(ambiguous=True):
            unit = answer["purchase_units"][0]
            answered = unit["amount"]["currency_code"], from_vendor(unit["amount"]["value"], order.currency)
            if made.status is CheckoutStatus.OPEN and made.url is None and not made.awaits_completion:
                raise ValueError("no link to approve")
        # PayPal does not document that it refuses a key with another amount.
        if (*answered, made.request_reference) != (order.currency, order.amount_minor, order.request_reference):
            raise IntegrationError(NAME, "idempotency_conflict", "the key belongs to another order")
        return made

    async def read_checkout(self, external_id: str) -> Checkout:
        """Source: developer.paypal.com/docs/api/orders/v2/#orders_get."""
        try:
            return _checkout(await self._order(external_id))
        except IntegrationError as error:
            if error.reason != "not_found" or not _is_id(external_id):
                raise
            # PayPal forgets unpaid orders, and only Paythread could capture this one.
            return Checkout(external_id=external_id, status=CheckoutStatus.EXPIRED)

    async def expire_checkout(self, external_id: str) -> Checkout:
        """Mark the order as closed, since PayPal cannot cancel one. Source: developer.paypal.com/docs/api/orders/v2/#orders_patch."""
        patch = {
            "op": "add",
            "path": "/purchase_units/@reference_id=='default'/invoice_id",
            "value": CLOSED + external_id,
        }
        try:
            await self._call("PATCH", f"{ORDERS}/{_path_part(external_id)}", body=[patch])
        except IntegrationError as error:
            # The order is captured, or its state allows no patch: read it.
            left = ("refused", "invalid_request", "not_found", "account_restricted")
            if error.reason not in left or not _is_id(external_id):
                raise
        state = await self.read_checkout(external_id)
        if state.status is not CheckoutStatus.OPEN:
            return state
        # EXPIRED even if PayPal refused the mark: only Paythread's call moves money.
        return dataclasses.replace(state, status=CheckoutStatus.EXPIRED, url=None, awaits_completion=False)

    async def complete_checkout(self, external_id: str, *, idempotency_key: str) -> Checkout:
        """Capture an approved order; a decline returns OPEN with a FAILED charge.

        The next attempt needs another key. Source: developer.paypal.com/docs/api/orders/v2/#orders_capture.
        """
        try:
            order = await self._order(external_id)
        except IntegrationError as error:
            if error.reason == "not_found":
                return await self.read_checkout(external_id)
            raise
        state = _checkout(order)
        if not state.awaits_completion:
            return state
        try:
            answer = await self._call("POST", f"{ORDERS}/{external_id}/capture", body={}, key=idempotency_key)
        except IntegrationError as error:
            if error.code in DECLINED:
                failed = _declined(order, state, idempotency_key, error.code)
                return dataclasses.replace(state, awaits_completion=False, money=(*state.money, failed))
            if error.code in LOOK_AGAIN or error.reason == "not_found":
                return await self.read_checkout(external_id)
            raise
        return _checkout(answer, ambiguous=True)

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        """PayPal keeps the key for 45 days. Source: developer.paypal.com/docs/api/payments/v2/#captures_refund."""
        body = {
            "amount": {"currency_code": order.currency, "value": to_vendor(order.amount_minor, order.currency)},
            "custom_id": order.request_reference,
        }
        path = f"/v2/payments/captures/{_path_part(order.charge_external_id)}/refund"
        answer = await self._call("POST", path, body=body, key=order.idempotency_key)
        with _expected(ambiguous=True):
            made = _refund(answer, charge=order.charge_external_id, reference=order.request_reference)
        if (made.amount_minor, made.currency) != (order.amount_minor, order.currency):
            raise IntegrationError(NAME, "idempotency_conflict", "the key belongs to another refund")
        return made

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        """Source: developer.paypal.com/docs/api/payments/v2/#refunds_get."""
        answer = await self._call("GET", f"/v2/payments/refunds/{_path_part(external_id)}", reading=True)
        with _expected():
            return _refund(answer)

    async def read_charge(self, external_id: str) -> MoneyStatement | None:
        """Source: developer.paypal.com/docs/api/payments/v2/#captures_get."""
        try:
            answer = await self._call("GET", f"/v2/payments/captures/{_path_part(external_id)}", reading=True)
        except IntegrationError as error:
            if error.reason == "not_found":
                return None
            raise
        with _expected():
            return _charge(answer, checkout=_order_of(answer), reference=None, method=None)
        raise AssertionError("the block above returns or raises")

    async def register_webhook(self) -> Mapping[str, str] | None:
        """Replace this address's webhook; None without https or permission.

        Source: developer.paypal.com/docs/api/webhooks/v1/#webhooks_post.
        """
        if not self._webhook_url.startswith("https://"):
            return None
        body = {"url": self._webhook_url, "event_types": [{"name": name} for name in sorted(EVENTS)]}
        try:
            await self._delete(await self._webhooks_of_this_address())
            answer = await self._call("POST", WEBHOOKS, body=body)
        except IntegrationError as error:
            if error.reason == "permission_denied":
                return None
            raise
        with _expected(ambiguous=True):
            return {"webhook_id": _text(answer, "id")}
        raise AssertionError("the block above returns or raises")

    async def unregister_webhook(self) -> None:
        """Source: developer.paypal.com/docs/api/webhooks/v1/#webhooks_delete."""
        await self._delete(self._webhook_ids)

    async def _webhooks_of_this_address(self) -> list[str]:
        answer = await self._call("GET", WEBHOOKS, reading=True)
        with _expected():
            return [_text(one, "id") for one in answer.get("webhooks") or () if one["url"] == self._webhook_url]
        raise AssertionError("the block above returns or raises")

    async def _delete(self, webhook_ids: Iterable[str]) -> None:
        for webhook_id in webhook_ids:
            try:
                await self._call("DELETE", f"{WEBHOOKS}/{quote(webhook_id, safe='')}")
            except IntegrationError as error:
                if error.reason != "not_found":
                    raise

    async def aclose(self) -> None:
        await self._client.aclose()

    # ---------------------------------------------------------------------------------------------------- webhooks
    async def verify_webhook(
        self, body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str] | None = None
    ) -> ProcessorWebhook:
        """PayPal verifies the signature. Source: developer.paypal.com/docs/api/webhooks/v1/#verify-webhook-signature_post."""
        if not self._webhook_ids:
            raise SignatureInvalid(NAME, "no_webhook_secret")
        fields = {}
        for header, name, allowed in _SIGNED:
            value = headers.get(header, "")
            if not re.fullmatch(allowed, value, re.ASCII):
                raise SignatureInvalid(NAME, "signature_malformed" if value else "signature_missing")
            fields[name] = value
        try:
            age_s = (now - _time(fields["transmission_time"])).total_seconds()
        except ValueError as error:
            raise SignatureInvalid(NAME, "signature_malformed") from error
        if not -TOLERANCE_S <= age_s <= RESENT_FOR_S:
            raise SignatureInvalid(NAME, "signature_stale")
        # Other JSON could inject fields into the verification call.
        try:
            whole = isinstance(orjson.loads(body), dict)
        except orjson.JSONDecodeError:
            whole = False
        if not whole:
            raise SignatureInvalid(NAME, "body_not_json")
        async with self._verifying:
            for webhook_id in self._webhook_ids:
                if await self._is_signed(fields | {"webhook_id": webhook_id}, body):
                    break
            else:
                raise SignatureInvalid(NAME)
        event = self.parse(body)
        return event if age_s <= TOLERANCE_S else dataclasses.replace(event, decides=False)

    async def _is_signed(self, fields: Mapping[str, str], body: bytes) -> bool:
        # Byte for byte: re-encoding would change the checksum.
        question = orjson.dumps(dict(fields))[:-1] + b',"webhook_event":' + body + b"}"
        try:
            answer = await self._call(
                "POST", "/v1/notifications/verify-webhook-signature", content=question, reading=True
            )
        except IntegrationError as error:
            if error.reason in ("invalid_request", "refused"):
                return False  # the body does not have the form of a signed event
            raise
        return answer.get("verification_status") == "SUCCESS"

    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """Always refused: only PayPal can verify. Raises: SignatureInvalid."""
        raise SignatureInvalid(NAME, "ask_verify_webhook")

    def parse(self, body: bytes) -> ProcessorWebhook:
        try:
            return _event(orjson.loads(body))
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PayloadInvalid(NAME, "unexpected_shape", type(error).__name__) from error

    # -------------------------------------------------------------------------------------------------------- HTTP
    async def _order(self, external_id: str) -> dict[str, Any]:
        return await self._call("GET", f"{ORDERS}/{_path_part(external_id)}", reading=True)

    async def _access_token(self, refused: str = "") -> str:
        async with self._token_lock:
            if self._token in ("", refused) or time.monotonic() >= self._token_until:
                answer = await self._send(
                    "POST",
                    "/v1/oauth2/token",
                    {"authorization": self._basic, "content-type": "application/x-www-form-urlencoded"},
                    b"grant_type=client_credentials",
                    reading=True,
                )
                payload = _read(answer, reading=True)
                with _expected():
                    self._token = str(payload["access_token"])
                    self._token_until = time.monotonic() + int(payload["expires_in"]) - TOKEN_MARGIN_S
            return self._token

    async def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: bytes | None = None,
        key: str | None = None,
        reading: bool = False,
    ) -> dict[str, Any]:
        headers = {"content-type": "application/json", "prefer": "return=representation"}
        if key is not None:
            headers["paypal-request-id"] = key
        if body is not None:
            content = orjson.dumps(body)
        token = await self._access_token()
        answer = await self._send(
            method, path, headers | {"authorization": f"Bearer {token}"}, content, reading=reading
        )
        if answer.status_code == 401:
            # The token was revoked early. A 401 carries out nothing.
            token = await self._access_token(refused=token)
            again = headers | {"authorization": f"Bearer {token}"}
            answer = await self._send(method, path, again, content, reading=reading)
        return _read(answer, reading=reading)

    async def _send(
        self, method: str, path: str, headers: Mapping[str, str], content: bytes | None, *, reading: bool
    ) -> httpx2.Response:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._client.request(method, self._base + path, headers=dict(headers), content=content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # The request was never sent, so the same call may be repeated.
            raise IntegrationError(NAME, "connection", type(error).__name__, retryable=True) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise IntegrationError(NAME, "timeout", retryable=True, ambiguous=not reading) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise IntegrationError(
                NAME, "connection", type(error).__name__, retryable=True, ambiguous=not reading
            ) from error


def _read(answer: httpx2.Response, *, reading: bool) -> dict[str, Any]:
    # developer.paypal.com/api/rest/responses, .../orders/v2/errors
    status = answer.status_code
    if status == 204:
        return {}
    try:
        payload = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        payload = None
    if status < 400:
        if isinstance(payload, dict):
            return payload
        raise IntegrationError(NAME, "unexpected_answer", f"HTTP {status}", ambiguous=not reading)
    if status >= 500:
        raise IntegrationError(
            NAME, "server_error", f"HTTP {status}", retryable=True, ambiguous=not reading, code=str(status)
        )
    code, field = _issue(payload) or str(status), _refused_field(payload)
    if status == 429:
        wait = retry_after(answer.headers.get("retry-after"))
        raise IntegrationError(NAME, "rate_limited", code, retryable=True, code=code, retry_after_s=wait)
    if status == 409 or code in IN_PROGRESS:
        raise IntegrationError(NAME, "in_progress", code, retryable=True, ambiguous=not reading, code=code)
    reason = ISSUES.get(code) or REFUSALS.get(status, "refused")
    raise IntegrationError(NAME, reason, f"HTTP {status} {code}", code=code, field=field)


def _issue(payload: Any) -> str | None:
    # PayPal's messages may repeat sent data.
    if not isinstance(payload, Mapping):
        return None
    details = payload.get("details")
    first = details[0] if isinstance(details, list) and details else None
    found = first.get("issue") if isinstance(first, Mapping) else None
    found = found or payload.get("name") or payload.get("error")
    return found[:80] if isinstance(found, str) else None


def _refused_field(payload: Any) -> str | None:
    details = payload.get("details") if isinstance(payload, Mapping) else None
    first = details[0] if isinstance(details, list) and details else None
    pointer = first.get("field") if isinstance(first, Mapping) else None
    return FIELDS.get(pointer.rpartition("/")[2]) if isinstance(pointer, str) else None


@contextlib.contextmanager
def _expected(*, ambiguous: bool = False) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IntegrationError(NAME, "unexpected_answer", type(error).__name__, ambiguous=ambiguous) from error


# ----------------------------------------------------------------------------------------------------------- parsing
def _is_id(external_id: str) -> bool:
    return re.fullmatch(r"[A-Z0-9]{1,36}", external_id, re.ASCII) is not None


def _path_part(external_id: str) -> str:
    if not _is_id(external_id):
        raise IntegrationError(NAME, "not_found", "not a PayPal id")
    return external_id


def _cut(text: str, length: int) -> str:
    # PayPal counts some characters as more than one.
    return text.encode()[:length].decode(errors="ignore")


def _time(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return moment


def _now() -> datetime:
    return datetime.now(UTC)


def _text(thing: Mapping[str, Any], name: str) -> str:
    value = thing[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not a non-empty string")
    return value


def _amount(money: Mapping[str, Any]) -> tuple[int, str]:
    currency = _text(money, "currency_code")
    return from_vendor(_text(money, "value"), currency), currency


def _checkout(order: Mapping[str, Any], *, ambiguous: bool = False) -> Checkout:
    with _expected(ambiguous=ambiguous):
        external_id, unit = _text(order, "id"), order["purchase_units"][0]
        reference = unit.get("custom_id")
        payments = unit.get("payments") or {}
        method = _method(order.get("payment_source"))
        charges = [
            _charge(c, checkout=external_id, reference=reference, method=method) for c in payments.get("captures") or ()
        ]
        # One unit is captured in full, so every refund is of that capture.
        of = charges[0].external_id if charges else None
        refunds = [_refund(r, charge=of, reference=reference) for r in payments.get("refunds") or ()]
        created = _time(order["create_time"]) if order.get("create_time") else None
        status = _status(order, unit, charges, created)
        is_open = status is CheckoutStatus.OPEN
        return Checkout(
            external_id=external_id,
            status=status,
            url=_link(order, "payer-action", "approve") if is_open else None,
            expires_at=created + APPROVAL_LIFE if created else None,
            request_reference=reference,
            delay=_delay(payments.get("captures") or ()) if status is CheckoutStatus.PROCESSING else None,
            money=(*charges, *refunds),
            awaits_completion=is_open and order["status"] == "APPROVED",
        )
    raise AssertionError("the block above returns or raises")


def _delay(captures: Iterable[Mapping[str, Any]]) -> Delay | None:
    reasons = [(one.get("status_details") or {}).get("reason") for one in captures if one["status"] == "PENDING"]
    return next((Delay(method=DELAYS[str(reason)]) for reason in reasons if reason in DELAYS), None)


def _status(
    order: Mapping[str, Any], unit: Mapping[str, Any], charges: list[MoneyStatement], created: datetime | None
) -> CheckoutStatus:
    outcomes = {charge.outcome for charge in charges}
    for outcome, status in CHECKOUT_BY_CHARGE.items():
        if outcome in outcomes:
            return status
    state = order["status"]
    closed = str(unit.get("invoice_id") or "").startswith(CLOSED)
    if state == "VOIDED" or (closed and state in UNPAID_ORDER):
        return CheckoutStatus.EXPIRED
    if state not in UNPAID_ORDER:
        raise ValueError("an order in an unknown state, or paid without a capture")
    too_old = created is not None and _now() > created + FORGOTTEN_AFTER
    return CheckoutStatus.EXPIRED if too_old else CheckoutStatus.OPEN


def _charge(
    capture: Mapping[str, Any], *, checkout: str | None, reference: str | None, method: str | None
) -> MoneyStatement:
    # developer.paypal.com/docs/api/payments/v2/#captures_get
    amount, currency = _amount(capture["amount"])
    outcome = CAPTURE_OUTCOME[capture["status"]]
    code = (capture.get("status_details") or {}).get("reason") or capture["status"]
    failed = outcome is MoneyOutcome.FAILED
    pending = PENDING.get(code) if outcome is MoneyOutcome.PENDING else None
    fee = (capture.get("seller_receivable_breakdown") or {}).get("paypal_fee")
    fee_minor, fee_currency = _amount(fee) if fee else (None, None)
    return MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id=_text(capture, "id"),
        outcome=outcome,
        amount_minor=amount,
        currency=currency,
        checkout_external_id=checkout,
        request_reference=capture.get("custom_id") or reference,
        fee_minor=fee_minor if fee_currency == currency else None,
        method_summary=method,
        failure_code=code if failed else None,
        failure_message=sentence(code, DECLINES) if failed else pending,
        occurred_at=_time(capture["create_time"]) if capture.get("create_time") else None,
    )


def _declined(order: Mapping[str, Any], state: Checkout, key: str, code: str | None) -> MoneyStatement:
    # PayPal gives a declined attempt no id.
    with _expected():
        amount, currency = _amount(order["purchase_units"][0]["amount"])
    return MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id=f"{state.external_id}.{hashlib.sha256(key.encode()).hexdigest()[:12]}",
        outcome=MoneyOutcome.FAILED,
        amount_minor=amount,
        currency=currency,
        checkout_external_id=state.external_id,
        request_reference=state.request_reference,
        method_summary=_method(order.get("payment_source")),
        failure_code=code,
        failure_message=sentence(code, DECLINES),
        occurred_at=_now(),
    )


def _refund(refund: Mapping[str, Any], *, charge: str | None = None, reference: str | None = None) -> MoneyStatement:
    # developer.paypal.com/docs/api/payments/v2/#refunds_get
    amount, currency = _amount(refund["amount"])
    outcome = REFUND_OUTCOME[refund["status"]]
    up = re.search(r"/captures/([A-Z0-9]{1,36})$", _link(refund, "up") or "")
    return MoneyStatement(
        kind=MoneyKind.REFUND,
        external_id=_text(refund, "id"),
        outcome=outcome,
        amount_minor=amount,
        currency=currency,
        request_reference=refund.get("custom_id") or reference,
        charge_external_id=up[1] if up else charge,
        failure_code=(refund.get("status_details") or {}).get("reason") if outcome is MoneyOutcome.FAILED else None,
        occurred_at=_time(refund["create_time"]) if refund.get("create_time") else None,
    )


def _disputes(dispute: Mapping[str, Any], occurred_at: datetime) -> list[MoneyStatement]:
    # developer.paypal.com/docs/api/customer-disputes/v1
    case = _text(dispute, "dispute_id")
    total, currency = _amount(dispute["dispute_amount"])
    code = (dispute.get("dispute_outcome") or {}).get("outcome_code")
    resolved = dispute["status"] == "RESOLVED"
    transactions = dispute.get("disputed_transactions") or [{}]
    due = dispute.get("seller_response_due_date")
    found = []
    for transaction in transactions:
        charge, amount = transaction.get("seller_transaction_id"), total
        if len(transactions) > 1:
            gross, gross_currency = _amount(transaction["gross_amount"]) if transaction.get("gross_amount") else (0, "")
            amount = min(total, gross) if gross_currency == currency else total
        found.append(
            MoneyStatement(
                kind=MoneyKind.DISPUTE,
                external_id=case if len(transactions) == 1 else f"{case}.{charge}",
                outcome=DISPUTE_OUTCOME.get(str(code), MoneyOutcome.PENDING) if resolved else MoneyOutcome.PENDING,
                amount_minor=amount,
                currency=currency,
                charge_external_id=charge,
                response_due_at=_time(due) if due and not resolved else None,
                dispute_reason=dispute.get("reason"),
                inquiry=dispute.get("dispute_life_cycle_stage") == "INQUIRY",
                occurred_at=_time(dispute["update_time"]) if dispute.get("update_time") else occurred_at,
            )
        )
    return found


def _order_of(capture: Mapping[str, Any]) -> str | None:
    found = ((capture.get("supplementary_data") or {}).get("related_ids") or {}).get("order_id")
    return str(found) if found else None


def _link(thing: Mapping[str, Any], *names: str) -> str | None:
    links = {link["rel"]: str(link["href"]) for link in thing.get("links") or ()}
    return next((links[name] for name in names if name in links), None)


def _method(source: Any) -> str | None:
    # Never the payer's account.
    if not isinstance(source, Mapping) or not source:
        return None
    kind, details = next(iter(source.items()))
    if kind == "card" and isinstance(details, Mapping):
        label, last4 = str(details.get("brand") or "Card").replace("_", " ").title(), str(details.get("last_digits"))
        return f"{label} •••• {last4[-4:]}" if re.fullmatch(r"\d{2,4}", last4, re.ASCII) else label
    return "PayPal" if kind == "paypal" else str(kind).replace("_", " ").title()


def _event(event: dict[str, Any]) -> ProcessorWebhook:
    # developer.paypal.com/api/rest/webhooks/event-names
    kind, thing = _text(event, "event_type"), event["resource"]
    created = _time(_text(event, "create_time"))
    empty = ProcessorWebhook(external_id=_text(event, "id"), type=kind, created_at=created)
    if kind in ORDER_EVENTS or kind in APPROVAL_EVENTS:
        # An approval is not a payment: the order is read.
        unit = (thing.get("purchase_units") or [{}])[0]
        order_id = _text(thing, "id" if kind in ORDER_EVENTS else "order_id")
        return dataclasses.replace(empty, checkout_external_id=order_id, request_reference=unit.get("custom_id"))
    if kind in CAPTURE_EVENTS:
        checkout = _order_of(thing)
        charge = _charge(thing, checkout=checkout, reference=None, method=None)
        return dataclasses.replace(
            empty,
            decides=True,
            money=(charge,),
            checkout_external_id=checkout,
            checkout_status=CHECKOUT_BY_CHARGE[charge.outcome],
            delay=_delay([thing]),
            request_reference=charge.request_reference,
        )
    if kind in CONSENT_EVENTS or kind in OLD_CONSENT_EVENTS:
        return dataclasses.replace(
            empty, disconnected=True
        )  # does not decide: `check` shows whether the keys still work
    if kind in REFUND_EVENTS or kind in DISPUTE_EVENTS:
        if kind in REFUND_EVENTS:
            money = [dataclasses.replace(_refund(thing), reversal=kind == "PAYMENT.CAPTURE.REVERSED")]
        else:
            money = _disputes(thing, created)
        return dataclasses.replace(empty, decides=True, money=money, request_reference=money[0].request_reference)
    return empty


provider = PayPal
