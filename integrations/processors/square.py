"""Square through payment links. Sources: developer.squareup.com/reference/square, developer.squareup.com/docs/webhooks."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final
from urllib.parse import urlencode

import httpx2  # Square's SDK would add its own retries
import orjson
import structlog

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

log = structlog.get_logger(__name__)

NAME: Final = "square"
API_VERSION: Final = "2025-08-20"
ADDRESSES: Final = {"live": "https://connect.squareup.com", "test": "https://connect.squareupsandbox.com"}
LINKS: Final = "/v2/online-checkout/payment-links"
SUBSCRIPTIONS: Final = "/v2/webhooks/subscriptions"
PAGES: Final = 50  # read at most per list
LINKS_PER_PAGE: Final = 1000  # paid links stay listed and cannot be filtered by age, so there may be many
SIGNATURE_HEADER: Final = "x-square-hmacsha256-signature"
TOLERANCE_S: Final = 300  # of an event's time; older ones are hints
# Only the event's time is signed, and retries keep it.
RESENT_FOR_S: Final = 4 * 24 * 3600
CURRENCIES: Final = frozenset({"AUD", "CAD", "EUR", "GBP", "JPY", "USD"})  # a location accepts only its country's
MAXIMUM_MINOR: Final = 99_999_999  # a hint; Square decides
REFUND_KEY_LENGTH: Final = 45

PAYMENT_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # Payment.status
    "COMPLETED": MoneyOutcome.SUCCEEDED,
    "APPROVED": MoneyOutcome.PENDING,  # authorised, not captured
    "PENDING": MoneyOutcome.PENDING,
    "CANCELED": MoneyOutcome.CANCELED,
    "FAILED": MoneyOutcome.FAILED,
}
REFUND_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # PaymentRefund.status
    "PENDING": MoneyOutcome.PENDING,
    "COMPLETED": MoneyOutcome.SUCCEEDED,
    "REJECTED": MoneyOutcome.FAILED,
    "FAILED": MoneyOutcome.FAILED,
}
DISPUTE_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # Dispute.state; SUCCEEDED = the money is gone for good
    "LOST": MoneyOutcome.SUCCEEDED,
    "ACCEPTED": MoneyOutcome.SUCCEEDED,
    "WON": MoneyOutcome.FAILED,
    "INQUIRY_CLOSED": MoneyOutcome.CANCELED,
}
# Errors of a card's payment. Source: developer.squareup.com/reference/square/enums/ErrorCode, /docs/payments-api/error-codes.
DECLINES: Final = by_reason(
    {
        Decline.INSUFFICIENT_FUNDS: "INSUFFICIENT_FUNDS GIFT_CARD_AVAILABLE_AMOUNT",
        Decline.OVER_LIMIT: "TRANSACTION_LIMIT PAYMENT_LIMIT_EXCEEDED AMOUNT_TOO_HIGH",
        Decline.TOO_MANY_TRIES: "ALLOWABLE_PIN_TRIES_EXCEEDED",
        Decline.EXPIRED: "CARD_EXPIRED",
        Decline.WRONG_NUMBER: "PAN_FAILURE INVALID_CARD",
        Decline.WRONG_EXPIRY: "INVALID_EXPIRATION BAD_EXPIRATION EXPIRATION_FAILURE INVALID_EXPIRATION_DATE INVALID_EXPIRATION_YEAR",
        Decline.WRONG_CVC: "CVV_FAILURE VERIFY_CVV_FAILURE",
        Decline.WRONG_PIN: "INVALID_PIN",
        Decline.WRONG_ADDRESS: "ADDRESS_VERIFICATION_FAILURE VERIFY_AVS_FAILURE INVALID_POSTAL_CODE",
        Decline.WRONG_DETAILS: "INVALID_CARD_DATA",
        Decline.NO_ACCOUNT: "INVALID_ACCOUNT",
        Decline.NOT_SUPPORTED: "CARD_NOT_SUPPORTED MANUALLY_ENTERED_PAYMENT_NOT_SUPPORTED UNSUPPORTED_CARD_BRAND CARD_MISMATCH",
        Decline.WRONG_CURRENCY: "CURRENCY_MISMATCH UNSUPPORTED_CURRENCY",
        Decline.NOT_AUTHENTICATED: "CARD_DECLINED_VERIFICATION_REQUIRED CARDHOLDER_INSUFFICIENT_PERMISSIONS",
        Decline.ASK_THE_BANK: "GENERIC_DECLINE CARD_DECLINED CARD_DECLINED_CALL_ISSUER VOICE_FAILURE",
        Decline.ABANDONED: "BUYER_REFUSED_PAYMENT DELAYED_TRANSACTION_CANCELED DELAYED_TRANSACTION_EXPIRED",
        Decline.TRY_AGAIN: "TEMPORARY_ERROR GATEWAY_TIMEOUT",
        Decline.NOT_CARRIED_OUT: "FAILED",  # our code for a payment that failed without an error
        Decline.OUR_RULES: "CARD_PROCESSING_NOT_ENABLED INSUFFICIENT_PERMISSIONS INVALID_LOCATION",
    }
)
EVENTS: Final[Mapping[str, str]] = {  # event type -> what its object holds
    "payment.created": "payment",
    "payment.updated": "payment",
    "refund.created": "refund",
    "refund.updated": "refund",
    "dispute.created": "dispute",
    "dispute.state.updated": "dispute",
    "oauth.authorization.revoked": "revocation",
}
# A manual subscription may send it.
OLD_EVENTS: Final[Mapping[str, str]] = {"dispute.state.changed": "dispute"}
# Square's code, else its HTTP status -> reason, retryable
REFUSALS: Final[Mapping[str, tuple[str, bool]]] = {
    "IDEMPOTENCY_KEY_REUSED": ("idempotency_conflict", False),
    "VALUE_TOO_LOW": ("amount_too_small", False),
    "VALUE_TOO_HIGH": ("amount_too_large", False),
    "AMOUNT_TOO_HIGH": ("amount_too_large", False),
    "REFUND_AMOUNT_INVALID": ("amount_too_large", False),
    "UNSUPPORTED_CURRENCY": ("currency_not_supported", False),
    "CURRENCY_MISMATCH": ("currency_not_supported", False),
    "CARD_PROCESSING_NOT_ENABLED": ("account_restricted", False),
    "MERCHANT_SUBSCRIPTION_NOT_FOUND": ("account_restricted", False),
    "ACCESS_TOKEN_REVOKED": ("authentication_failed", False),
    "ACCESS_TOKEN_EXPIRED": ("authentication_failed", False),
    "CLIENT_DISABLED": ("authentication_failed", False),
    "APPLICATION_DISABLED": ("authentication_failed", False),
    "400": ("invalid_request", False),
    "401": ("authentication_failed", False),
    "403": ("permission_denied", False),
    "404": ("not_found", False),
    "429": ("rate_limited", True),
}


FIELDS: Final[Mapping[str, str]] = {  # field of a new link -> the order's
    "order.line_items[0].note": "description",
    "order.line_items[0].name": "product_name",
    "pre_populated_data.buyer_email": "customer_email",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    access_token: str = field(repr=False)
    location_id: str  # receives the money and determines the currency
    webhook_signature_key: str = field(repr=False, default="")  # several, comma-separated, while one is rotated
    mode: str = "live"  # or "test", Square's sandbox; the token does not show it
    webhook_subscription_id: str = ""  # created by `register_webhook`; empty: a person entered the key
    currency: str = ""  # the location's, verified by `check`; empty: only Square refuses other currencies


class Square(Processor):
    """One location of a Square account; a checkout's id is `link.order`."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Square"
    credentials: ClassVar[type[Any]] = Credentials
    checkout_origins: ClassVar[tuple[str, ...]] = (
        "https://square.link",
        "https://checkout.square.site",
        "https://sandbox.square.link",
        "https://connect.squareupsandbox.com",
    )
    capabilities: ClassVar[Capabilities] = Capabilities(
        webhooks_decide=False,  # a payment's event names its order, never the link
        webhooks_expire=False,
        webhooks_signed_at=False,
        checkouts_end=False,  # Source: developer.squareup.com/forums/t/8048
        reads_declines=False,
        pending_refunds=True,
    )
    advice: ClassVar[Mapping[str, tuple[str, str]]] = {
        "location_unknown": (
            "location_id",
            "{name} has no active location with this id for this access token{mode}: copy the location's id.",
        ),
        "location_currency_differs": (
            "currency",
            "At {name}, this location uses another currency{mode}: enter the one that its settings show, or leave it out.",
        ),
    }

    def __init__(self, credentials: Credentials, *, environment: Environment, webhook_url: str | None = None) -> None:
        if credentials.mode not in ADDRESSES:
            raise IntegrationError(NAME, "credentials_invalid", "mode must be live or test")
        if credentials.currency and credentials.currency not in CURRENCIES:
            raise IntegrationError(NAME, "credentials_invalid", "currency must be one that Square accepts: USD, EUR …")
        self._location_id = credentials.location_id
        self._currencies = frozenset({credentials.currency}) if credentials.currency else CURRENCIES
        keys = (key.strip() for key in credentials.webhook_signature_key.split(","))
        self._keys = [key for key in keys if key]
        self._webhook_url = webhook_url or ""
        self._subscription_id = credentials.webhook_subscription_id
        self._timeout_s = environment.timeout_s
        self._base = environment.base_addresses.get(NAME, ADDRESSES[credentials.mode]).rstrip("/")
        self._headers = {"authorization": f"Bearer {credentials.access_token}", "square-version": API_VERSION}
        self._client = httpx2.AsyncClient(timeout=environment.timeout_s, trust_env=False)

    def amount_limits(self, currency: str) -> AmountLimits | None:
        """Source: developer.squareup.com/docs/payment-minimums."""
        return AmountLimits(maximum_minor=MAXIMUM_MINOR) if currency in self._currencies else None

    # ------------------------------------------------------------------------------------------------------- calls
    async def check(self) -> str | None:
        """The merchant's id, if the location is active and uses the stated currency. Source: developer.squareup.com/docs/locations-api."""
        answer = await self._call("GET", "/v2/locations", reading=True)
        with _expected():
            found = {str(one["id"]): one for one in answer.get("locations") or ()}
            location = found.get(self._location_id)
            if location is None or location.get("status") != "ACTIVE":
                raise IntegrationError(NAME, "location_unknown", "the token has no active location with this id")
            if location.get("currency", "") not in ("", *self._currencies):
                raise IntegrationError(NAME, "location_currency_differs", "the location uses another currency")
            return _text(location, "merchant_id")
        raise AssertionError("the block above returns or raises")

    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        """Create an order with its link. Source: .../checkout-api/create-payment-link."""
        money = {"amount": order.amount_minor, "currency": order.currency}
        item: dict[str, Any] = {"name": order.product_name, "quantity": "1", "base_price_money": money}
        if order.description:
            item["note"] = order.description[:2000]
        body = {
            "idempotency_key": order.idempotency_key,
            "order": {
                "location_id": self._location_id,
                "reference_id": order.request_reference,
                "line_items": [item],
            },
            "checkout_options": {"redirect_url": order.success_url, "allow_tipping": False},
            # Square copies the note to the payment.
            "payment_note": order.request_reference,
        }
        answer = await self._call("POST", LINKS, body=body)
        with _expected(ambiguous=True):
            link, made = answer["payment_link"], answer["related_resources"]["orders"][0]
            reference, total = made.get("reference_id"), _money(made["total_money"])
            if total != (order.amount_minor, order.currency) or reference != order.request_reference:
                raise IntegrationError(NAME, "idempotency_conflict", "the key belongs to another order")
            return Checkout(
                external_id=f"{_id(link)}.{_id(made)}",
                status=CheckoutStatus.OPEN,
                url=_text(link, "url"),
                request_reference=reference,
            )
        raise AssertionError("the block above returns or raises")

    async def read_checkout(self, external_id: str) -> Checkout:
        """Read the order; after a failed payment, delete its link.

        An order paid in part stays OPEN while its link exists. Source: .../orders-api/retrieve-order.
        """
        link_id, order_id = _parts(external_id)
        order, money, delay = await self._order(external_id, order_id)
        state = Checkout(
            external_id=external_id,
            status=CheckoutStatus.OPEN,
            request_reference=order.get("reference_id"),
            money=money,
        )
        outcomes = {one.outcome for one in money if one.kind is MoneyKind.CHARGE}
        in_part = MoneyOutcome.SUCCEEDED in outcomes and _is_paid_in_part(order, money)
        if MoneyOutcome.SUCCEEDED in outcomes and not in_part:
            return dataclasses.replace(state, status=CheckoutStatus.COMPLETED)
        if MoneyOutcome.PENDING in outcomes:
            return dataclasses.replace(state, status=CheckoutStatus.PROCESSING, delay=delay)
        if in_part:
            if outcomes & {MoneyOutcome.FAILED, MoneyOutcome.CANCELED}:  # the pending rest did not arrive
                await self._delete(link_id, reading=True)
            url = await self._url(link_id)
            return dataclasses.replace(state, status=CheckoutStatus.OPEN if url else CheckoutStatus.COMPLETED, url=url)
        if outcomes:
            await self._delete(link_id, reading=True)  # FAILED must mean that it can no longer be paid
            return dataclasses.replace(state, status=CheckoutStatus.FAILED)
        if order.get("state") == "CANCELED":
            return dataclasses.replace(state, status=CheckoutStatus.EXPIRED)
        if order.get("state") not in ("OPEN", "DRAFT"):
            raise IntegrationError(NAME, "unexpected_answer", "an order in an unknown state, or paid without a payment")
        # Without its link, Square cancels the order later; until then it may still be paid.
        return dataclasses.replace(state, url=await self._url(link_id))

    async def expire_checkout(self, external_id: str) -> Checkout:
        """Delete the link, which cancels its order. Source: .../checkout-api/delete-payment-link."""
        await self._delete(_parts(external_id)[0])
        return await self.read_checkout(external_id)

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        """Mostly PENDING at first. Source: .../refunds-api/refund-payment."""
        key = order.idempotency_key
        if len(key.encode()) > REFUND_KEY_LENGTH:
            key = hashlib.sha256(key.encode()).hexdigest()[:REFUND_KEY_LENGTH]
        body: dict[str, Any] = {
            "idempotency_key": key,
            "payment_id": order.charge_external_id,
            "amount_money": {"amount": order.amount_minor, "currency": order.currency},
        }
        if order.reason is not None:
            body["reason"] = order.reason.value.replace("_", " ").capitalize()
        answer = await self._call("POST", "/v2/refunds", body=body)
        with _expected(ambiguous=True):
            made = dataclasses.replace(_refund(answer["refund"]), request_reference=order.request_reference)
        if (made.amount_minor, made.currency) != (order.amount_minor, order.currency):
            raise IntegrationError(NAME, "idempotency_conflict", "the key belongs to another refund")
        return made

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        """Source: .../refunds-api/get-payment-refund."""
        answer = await self._call("GET", f"/v2/refunds/{_path_part(external_id)}", reading=True)
        with _expected():
            return _refund(answer["refund"])
        raise AssertionError("the block above returns or raises")

    async def read_charge(self, external_id: str) -> MoneyStatement | None:
        """Source: .../payments-api/get-payment."""
        try:
            answer = await self._call("GET", f"/v2/payments/{_path_part(external_id)}", reading=True)
        except IntegrationError as error:
            if error.reason == "not_found":
                return None
            raise
        with _expected():
            charge, order_id = _charge(answer["payment"], reference=None), answer["payment"].get("order_id")
        links = await self._listed(LINKS, "payment_links", limit=LINKS_PER_PAGE) if order_id else []
        with _expected():
            found = next((f"{_id(link)}.{order_id}" for link in links if link.get("order_id") == order_id), None)
        return dataclasses.replace(charge, checkout_external_id=found)

    async def list_checkouts(self, since: datetime) -> Sequence[Checkout]:
        """The links that are not deleted, always OPEN and without money. Source: .../checkout-api/list-payment-links."""
        links = await self._listed(LINKS, "payment_links", limit=LINKS_PER_PAGE)
        found: list[tuple[datetime, Checkout]] = []
        with _expected():
            for link in links:
                reference, made_at = _reference({"note": link.get("payment_note")}), _time(_text(link, "created_at"))
                if reference is None or made_at < since:
                    continue
                checkout = Checkout(
                    external_id=f"{_id(link)}.{_id({'id': link['order_id']})}",
                    status=CheckoutStatus.OPEN,
                    url=_text(link, "url"),
                    request_reference=reference,
                )
                found.append((made_at, checkout))
        return [checkout for _, checkout in sorted(found, key=lambda one: one[0])]

    async def _listed(self, path: str, name: str, **query: str | int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        cursor = ""
        for _ in range(PAGES):
            asked = query | ({"cursor": cursor} if cursor else {})
            answer = await self._call("GET", f"{path}?{urlencode(asked)}", reading=True)
            found += answer.get(name) or ()
            cursor = str(answer.get("cursor") or "")
            if not cursor:
                break
        else:
            log.warning("square_list_cut", path=path, pages=PAGES)
        return found

    async def register_webhook(self) -> Mapping[str, str] | None:
        """Replace this address's subscriptions. None without https or the application's own token.

        Source: developer.squareup.com/docs/webhooks/webhook-subscriptions-api.
        """
        if not self._webhook_url.startswith("https://"):
            return None
        wanted = {
            "name": "Paythread",
            "notification_url": self._webhook_url,
            "event_types": sorted(EVENTS),
            "api_version": API_VERSION,
        }
        try:
            older = await self._subscriptions()
            answer = await self._call("POST", SUBSCRIPTIONS, body={"subscription": wanted})
        except IntegrationError as error:
            if error.reason == "permission_denied":
                return None
            raise
        with _expected(ambiguous=True):
            made = answer["subscription"]
            created = {"webhook_signature_key": _text(made, "signature_key"), "webhook_subscription_id": _id(made)}
        for subscription_id in older:
            try:
                await self._unsubscribe(subscription_id)
            except IntegrationError as error:
                # The new key must not be lost.
                log.warning("square_subscription_left", subscription_id=subscription_id, reason=error.reason)
        return created

    async def unregister_webhook(self) -> None:
        """Source: .../webhook-subscriptions-api/delete-webhook-subscription."""
        if self._subscription_id:
            await self._unsubscribe(self._subscription_id)

    async def _subscriptions(self) -> list[str]:
        listed = await self._listed(SUBSCRIPTIONS, "subscriptions", include_disabled="true")
        with _expected():
            return [_id(one) for one in listed if one.get("notification_url") == self._webhook_url]
        raise AssertionError("the block above returns or raises")

    async def _unsubscribe(self, subscription_id: str) -> None:
        try:
            await self._call("DELETE", f"{SUBSCRIPTIONS}/{_path_part(subscription_id)}")
        except IntegrationError as error:
            if error.reason != "not_found":
                raise

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _order(
        self, external_id: str, order_id: str
    ) -> tuple[dict[str, Any], Sequence[MoneyStatement], Delay | None]:
        delay: Delay | None = None
        answer = await self._call("GET", f"/v2/orders/{order_id}", reading=True)
        with _expected():
            order = dict(answer["order"])
            payment_ids = [str(t.get("payment_id") or t["id"]) for t in order.get("tenders") or ()]
        money: list[MoneyStatement] = []
        for payment_id in payment_ids:
            read = await self._call("GET", f"/v2/payments/{_path_part(payment_id)}", reading=True)
            with _expected():
                payment = read["payment"]
                charge = _charge(payment, reference=order.get("reference_id"))
                refund_ids = [str(one) for one in payment.get("refund_ids") or ()]
                if payment["status"] == "PENDING" and payment.get("source_type") == "BANK_ACCOUNT":
                    delay = Delay(method="ACH")
            money.append(dataclasses.replace(charge, checkout_external_id=external_id))
            for refund_id in refund_ids:
                money.append(
                    dataclasses.replace(await self.read_refund(refund_id), request_reference=order.get("reference_id"))
                )
        return order, tuple(money), delay

    async def _url(self, link_id: str) -> str | None:
        try:
            answer = await self._call("GET", f"{LINKS}/{link_id}", reading=True)
        except IntegrationError as error:
            if error.reason == "not_found":
                return None
            raise
        with _expected():
            return _text(answer["payment_link"], "url")
        raise AssertionError("the block above returns or raises")

    async def _delete(self, link_id: str, *, reading: bool = False) -> None:
        try:
            await self._call("DELETE", f"{LINKS}/{link_id}", reading=reading)
        except IntegrationError as error:
            if error.reason not in ("not_found", "invalid_request", "refused"):
                raise

    # ---------------------------------------------------------------------------------------------------- webhooks
    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """HMAC-SHA256 over the registered URL and the raw body. Source: developer.squareup.com/docs/webhooks/step3validate."""
        if not self._keys or not self._webhook_url:
            raise SignatureInvalid(NAME, "no_webhook_secret")
        header = headers.get(SIGNATURE_HEADER, "")
        if not re.fullmatch(r"[A-Za-z0-9+/]{43}=", header, re.ASCII):
            raise SignatureInvalid(NAME, "signature_malformed" if header else "signature_missing")
        expected = [sign(key, self._webhook_url, body) for key in self._keys]
        if not any(hmac.compare_digest(one, header) for one in expected):
            raise SignatureInvalid(NAME)
        event = self.parse(body)
        assert event.created_at is not None  # noqa: S101 (parse has read it)
        age_s = (now - event.created_at).total_seconds()
        if not -TOLERANCE_S <= age_s <= RESENT_FOR_S:
            raise SignatureInvalid(NAME, "signature_stale")
        environment = headers.get("square-environment", "").lower()
        test_mode = {"sandbox": True, "production": False}.get(environment)
        return dataclasses.replace(event, decides=event.decides and age_s <= TOLERANCE_S, test_mode=test_mode)

    def parse(self, body: bytes) -> ProcessorWebhook:
        try:
            return _event(orjson.loads(body))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PayloadInvalid(NAME, "unexpected_shape", type(error).__name__) from error

    # -------------------------------------------------------------------------------------------------------- HTTP
    async def _call(
        self, method: str, path: str, *, body: Mapping[str, Any] | None = None, reading: bool = False
    ) -> dict[str, Any]:
        headers = self._headers | ({"content-type": "application/json"} if body is not None else {})
        content = orjson.dumps(body) if body is not None else None
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.request(method, self._base + path, headers=headers, content=content)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            # The request was never sent, so the same call may be repeated.
            raise IntegrationError(NAME, "connection", type(error).__name__, retryable=True) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise IntegrationError(NAME, "timeout", retryable=True, ambiguous=not reading) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise IntegrationError(
                NAME, "connection", type(error).__name__, retryable=True, ambiguous=not reading
            ) from error
        return _read(answer, reading=reading)


def _read(answer: httpx2.Response, *, reading: bool) -> dict[str, Any]:
    # developer.squareup.com/docs/build-basics/handling-errors
    status = str(answer.status_code)
    if answer.status_code >= 500:
        raise IntegrationError(
            NAME, "server_error", f"HTTP {status}", retryable=True, ambiguous=not reading, code=status
        )
    try:
        payload = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        payload = None
    if answer.status_code < 400:
        if isinstance(payload, dict):
            return payload
        raise IntegrationError(NAME, "unexpected_answer", f"HTTP {status}", ambiguous=not reading)
    code, field = _code(payload, "code") or status, _code(payload, "field")
    reason, retryable = REFUSALS.get(code) or REFUSALS.get(status, ("refused", False))
    wait = retry_after(answer.headers.get("retry-after")) if reason == "rate_limited" else None
    # Only the code: Square's messages may repeat sent data.
    raise IntegrationError(
        NAME,
        reason,
        f"HTTP {status} {code}",
        retryable=retryable,
        code=code,
        retry_after_s=wait,
        field=FIELDS.get(field or ""),
    )


def _code(payload: Any, name: str) -> str | None:
    errors = payload.get("errors") if isinstance(payload, Mapping) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    found = first.get(name) if isinstance(first, Mapping) else None
    return found[:80] if isinstance(found, str) else None


@contextlib.contextmanager
def _expected(*, ambiguous: bool = False) -> Iterator[None]:
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IntegrationError(NAME, "unexpected_answer", type(error).__name__, ambiguous=ambiguous) from error


def sign(key: str, webhook_url: str, body: bytes) -> str:
    digest = hmac.new(key.encode(), webhook_url.encode() + body, hashlib.sha256).digest()
    return base64.b64encode(digest).decode()


# ----------------------------------------------------------------------------------------------------------- parsing
def _path_part(external_id: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", external_id, re.ASCII):
        raise IntegrationError(NAME, "not_found", "not a Square id")
    return external_id


def _parts(external_id: str) -> tuple[str, str]:
    link_id, _, order_id = external_id.partition(".")
    return _path_part(link_id), _path_part(order_id)


def _time(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time without a time zone")
    return moment


def _text(thing: Mapping[str, Any], name: str) -> str:
    value = thing[name]
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is not a non-empty string")
    return value


def _id(thing: Mapping[str, Any]) -> str:
    # Must fit into `link.order`.
    found = _text(thing, "id")
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,99}", found, re.ASCII):
        raise ValueError("an id of another form")
    return found


def _money(money: Mapping[str, Any]) -> tuple[int, str]:
    amount = money["amount"]
    if type(amount) is not int or amount < 0:
        raise ValueError("the amount is not a whole number of the smallest unit")
    return amount, _text(money, "currency")


def _is_paid_in_part(order: Mapping[str, Any], money: Sequence[MoneyStatement]) -> bool:
    with _expected():
        total, currency = _money(order["total_money"])
    arrived = [s for s in money if s.kind is MoneyKind.CHARGE and s.outcome is MoneyOutcome.SUCCEEDED]
    fits = all(one.currency == currency for one in arrived)
    return order.get("state") != "COMPLETED" and fits and sum(one.amount_minor for one in arrived) < total


def _charge(payment: Mapping[str, Any], *, reference: str | None) -> MoneyStatement:
    # .../objects/Payment
    amount, currency = _money(payment.get("total_money") or payment["amount_money"])
    outcome = PAYMENT_OUTCOME[payment["status"]]
    card = payment.get("card_details") or {}
    errors = card.get("errors") or [{}]
    fees = [_fee(fee["amount_money"]) for fee in payment.get("processing_fee") or () if fee.get("amount_money")]
    failed = outcome is MoneyOutcome.FAILED
    code = str(errors[0].get("code") or "FAILED")[:80]
    return MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id=_text(payment, "id"),
        outcome=outcome,
        amount_minor=amount,
        currency=currency,
        request_reference=reference or _reference(payment),
        fee_minor=sum(fee for fee, _ in fees) if fees and {of for _, of in fees} == {currency} else None,
        method_summary=_method(payment, card.get("card") or {}),
        failure_code=code if failed else None,
        failure_message=sentence(code, DECLINES) if failed else None,
        occurred_at=_time(payment["created_at"]) if payment.get("created_at") else None,
    )


def _fee(money: Mapping[str, Any]) -> tuple[int, str]:
    # Returned fees are negative.
    return int(money["amount"]), _text(money, "currency")


def _reference(payment: Mapping[str, Any]) -> str | None:
    # Other programs' notes do not count.
    found = payment.get("reference_id") or payment.get("note") or ""
    return found if re.fullmatch(r"[A-Za-z0-9_]{1,60}", found, re.ASCII) else None


def _method(payment: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    label = str(card.get("card_brand") or payment.get("source_type") or "Card").replace("_", " ").title()
    last4 = str(card.get("last_4") or "")
    return f"{label} •••• {last4}" if re.fullmatch(r"\d{4}", last4, re.ASCII) else label


def _refund(refund: Mapping[str, Any]) -> MoneyStatement:
    # .../objects/PaymentRefund
    amount, currency = _money(refund["amount_money"])
    outcome = REFUND_OUTCOME[refund["status"]]
    return MoneyStatement(
        kind=MoneyKind.REFUND,
        external_id=_text(refund, "id"),
        outcome=outcome,
        amount_minor=amount,
        currency=currency,
        charge_external_id=_text(refund, "payment_id"),
        failure_code=str(refund["status"]) if outcome is MoneyOutcome.FAILED else None,
        occurred_at=_time(refund["created_at"]) if refund.get("created_at") else None,
    )


def _dispute(dispute: Mapping[str, Any], occurred_at: datetime) -> MoneyStatement:
    # .../objects/Dispute
    amount, currency = _money(dispute["amount_money"])
    outcome = DISPUTE_OUTCOME.get(str(dispute["state"]), MoneyOutcome.PENDING)
    due = dispute.get("due_at")
    updated_at = _time(dispute["updated_at"]) if dispute.get("updated_at") else occurred_at
    version = dispute.get("version")
    return MoneyStatement(
        kind=MoneyKind.DISPUTE,
        external_id=str(dispute.get("id") or dispute["dispute_id"]),
        outcome=outcome,
        amount_minor=amount,
        currency=currency,
        charge_external_id=(dispute.get("disputed_payment") or {}).get("payment_id"),
        response_due_at=_time(due) if due and outcome is MoneyOutcome.PENDING else None,
        dispute_reason=dispute.get("reason"),
        inquiry=str(dispute["state"]).startswith("INQUIRY_"),
        # Two changes may have the same time; the higher version is the later.
        occurred_at=updated_at + timedelta(microseconds=version if type(version) is int and 0 < version < 1000 else 0),
    )


def _event(event: dict[str, Any]) -> ProcessorWebhook:
    # .../docs/webhooks/v2webhook-events-tech-ref
    created = _time(_text(event, "created_at"))
    empty = ProcessorWebhook(
        external_id=_text(event, "event_id"),
        type=_text(event, "type"),
        created_at=created,
        vendor_account=_text(event, "merchant_id"),
    )
    found = EVENTS.get(empty.type) or OLD_EVENTS.get(empty.type)
    if found is None:
        return empty
    if found == "revocation":
        return dataclasses.replace(empty, disconnected=True, decides=True)
    thing = event["data"]["object"][found]
    if found == "payment":
        charge = _charge(thing, reference=None)
        return dataclasses.replace(empty, money=(charge,), request_reference=charge.request_reference)
    if found == "refund" and not thing.get("payment_id"):
        return empty  # an unlinked refund, which belongs to no payment
    money = _refund(thing) if found == "refund" else _dispute(thing, created)
    return dataclasses.replace(empty, decides=True, money=(money,))


provider = Square
