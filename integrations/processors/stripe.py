"""Stripe through Checkout Sessions. Sources: docs.stripe.com/api, docs.stripe.com/checkout/fulfillment, docs.stripe.com/webhooks."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

import httpx
import orjson
import stripe
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
    RefundReason,
    SignatureInvalid,
    retry_after,
)
from integrations.declines import Decline, by_reason, sentence

if TYPE_CHECKING:
    from stripe.params._event_list_params import EventListParams
    from stripe.params._refund_create_params import RefundCreateParams
    from stripe.params._refund_list_params import RefundListParams
    from stripe.params._webhook_endpoint_create_params import WebhookEndpointCreateParams
    from stripe.params._webhook_endpoint_list_params import WebhookEndpointListParams
    from stripe.params.checkout._session_create_params import SessionCreateParams
    from stripe.params.checkout._session_list_params import SessionListParams

log = structlog.get_logger(__name__)

NAME: Final = "stripe"
API_VERSION: Final = "2026-10-28.endive"  # pinned by stripe 16.1.0
TOLERANCE_S: Final = 300  # of a webhook's time, either way
REFERENCE_KEY: Final = "payment_request_id"  # in the metadata of the session and of its payment intent
LIST_PAGES: Final = 200  # of 100 events or sessions each: read at most per list
REFUND_PAGES: Final = 20  # of 100 refunds of one charge each
ENDPOINT_PAGES: Final = 5  # of 100 webhook endpoints; Stripe allows an account some tens

# ------------------------------------------------------------------------------------------------------------- money
_SUPPORTED = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BHD BIF BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CLP CNY "
    "COP CRC CVE CZK DJF DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR "
    "ISK JMD JOD JPY KES KGS KHR KMF KRW KWD KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR MVR MWK "
    "MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SEK SGD "
    "SHP SLE SOS SRD SVC SZL THB TJS TND TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VND VUV WST XAF XCD XCG XOF XPF "
    "YER ZAR ZMW"
)
SUPPORTED: Final = frozenset(_SUPPORTED.split())
# Where Stripe's unit is not the ISO 4217 minor unit: (ISO units, Stripe's units) of the same amount.
UNITS: Final[Mapping[str, tuple[int, int]]] = {"ISK": (1, 100), "UGX": (1, 100), "MGA": (100, 1)}
# The last of three decimals must be 0 (5.124 KWD is charged as 5120 or 5130).
THREE_DECIMALS: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})
# In Stripe's units. Source: docs.stripe.com/currencies#minimum-and-maximum-charge-amounts.
MAXIMUM: Final = 99_999_999
MAXIMUMS: Final[Mapping[str, int]] = {"IDR": 999_999_999_999}
# In Stripe's units. The settlement currency's minimum also applies, which only `amount_too_small` shows.
MINIMUMS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("AUD", "BRL", "CAD", "CHF", "EUR", "INR", "JPY", "NZD", "SGD", "USD"), 50),
    **dict.fromkeys(("AED", "MYR", "PLN", "RON"), 200),
    **dict.fromkeys(("MXN", "THB"), 1000),
    **dict.fromkeys(("NOK", "SEK"), 300),
    "GBP": 30,
    "DKK": 250,
    "HKD": 400,
    "CZK": 1500,
    "HUF": 17_500,
}


def to_vendor(amount_minor: int, currency: str) -> int:
    """Stripe's integer for minor units. Raises: IntegrationError if Stripe cannot represent the amount."""
    ours, theirs = UNITS.get(currency, (1, 1))
    if amount_minor % ours:
        raise IntegrationError(NAME, "amount_not_representable", f"{currency} takes no decimals at Stripe")
    return amount_minor // ours * theirs


def from_vendor(amount: int, currency: str) -> int:
    """Minor units of Stripe's integer (`currency` in upper case). Raises: PayloadInvalid for a fraction of a unit."""
    ours, theirs = UNITS.get(currency, (1, 1))
    if amount % theirs:
        raise PayloadInvalid(NAME, "amount_not_whole", f"a fraction of the minor unit of {currency}")
    return amount // theirs * ours


# ------------------------------------------------------------------------------------------------------------ states
PAYMENT_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # PaymentIntent.status
    "succeeded": MoneyOutcome.SUCCEEDED,
    "processing": MoneyOutcome.PENDING,
    "canceled": MoneyOutcome.CANCELED,
    "requires_payment_method": MoneyOutcome.FAILED,
}
# Payment methods that take days. Such an attempt keeps the intent's id.
# Source: docs.stripe.com/payments/payment-methods/payment-method-support#additional-api-supportability.
DELAYED: Final[Mapping[str, str | None]] = {  # the name that payers know; None: it differs by language
    "acss_debit": "Pre-authorized debit",
    "au_becs_debit": "BECS Direct Debit",
    "bacs_debit": "Bacs Direct Debit",
    "boleto": "Boleto",
    "customer_balance": None,
    "konbini": "Konbini",
    "multibanco": "Multibanco",
    "nz_bank_account": "BECS Direct Debit",
    "oxxo": "OXXO",
    "payto": "PayTo",
    "sepa_debit": "SEPA Direct Debit",
    "sofort": "Sofort",
    "us_bank_account": "ACH Direct Debit",
}
# PaymentIntent.next_action.type -> the payment method that awaits its payer.
WAITS_FOR: Final[Mapping[str, str]] = {
    "boleto_display_details": "boleto",
    "display_bank_transfer_instructions": "customer_balance",
    "konbini_display_details": "konbini",
    "multibanco_display_details": "multibanco",
    "oxxo_display_details": "oxxo",
    "verify_with_microdeposits": "us_bank_account",
}
# States of an intent for which no money is pending. Source: docs.stripe.com/api/payment_intents/cancel.
CANCELABLE: Final = frozenset({"requires_payment_method", "requires_confirmation", "requires_action"})
REFUND_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # Refund.status
    "pending": MoneyOutcome.PENDING,
    "requires_action": MoneyOutcome.PENDING,
    "succeeded": MoneyOutcome.SUCCEEDED,
    "failed": MoneyOutcome.FAILED,
    "canceled": MoneyOutcome.CANCELED,
}
DISPUTE_OUTCOME: Final[Mapping[str, MoneyOutcome]] = {  # Dispute.status; SUCCEEDED = the money is gone for good
    "lost": MoneyOutcome.SUCCEEDED,
    "won": MoneyOutcome.FAILED,
    "warning_closed": MoneyOutcome.CANCELED,
    "prevented": MoneyOutcome.CANCELED,
}
# Decline codes of cards, and error codes of other payment methods. Source: docs.stripe.com/declines/codes, /error-codes.
DECLINES: Final = by_reason(
    {
        Decline.INSUFFICIENT_FUNDS: "insufficient_funds",
        Decline.OVER_LIMIT: (
            "card_velocity_exceeded withdrawal_count_limit_exceeded charge_exceeds_source_limit"
            " charge_exceeds_transaction_limit amount_too_large"
        ),
        Decline.TOO_MANY_TRIES: "pin_try_exceeded card_decline_rate_limit_exceeded",
        Decline.EXPIRED: "expired_card expired_payment_method",
        Decline.WRONG_NUMBER: "incorrect_number invalid_number",
        Decline.WRONG_EXPIRY: "invalid_expiry_month invalid_expiry_year",
        Decline.WRONG_CVC: "incorrect_cvc invalid_cvc",
        Decline.WRONG_PIN: "incorrect_pin invalid_pin offline_pin_required online_or_offline_pin_required",
        Decline.WRONG_ADDRESS: "incorrect_address incorrect_zip incorrect_postal_code postal_code_invalid",
        Decline.WRONG_DETAILS: "bank_account_unusable bank_account_unverified account_number_invalid routing_number_invalid",
        Decline.NO_ACCOUNT: "invalid_account account_closed no_account new_account_information_available",
        Decline.NOT_SUPPORTED: (
            "card_not_supported service_not_allowed transaction_not_allowed not_permitted restricted_card invalid_card_type"
            " sepa_unsupported_account bank_account_restricted payment_method_not_available payment_method_restricted"
        ),
        Decline.WRONG_CURRENCY: "currency_not_supported payment_method_currency_mismatch",
        Decline.NOT_AUTHENTICATED: (
            "authentication_required authentication_not_handled authentication_failure"
            " mobile_device_authentication_required payment_intent_authentication_failure"
            " three_d_secure_authentication_not_supported"
        ),
        Decline.LOST_OR_STOLEN: "lost_card stolen_card pickup_card",
        Decline.FRAUD: "fraudulent merchant_blacklist security_violation",
        Decline.ASK_THE_BANK: (
            "approve_with_id call_issuer card_declined do_not_honor do_not_try_again generic_decline no_action_taken"
            " previously_declined_do_not_retry invalid_amount refer_to_customer"
        ),
        Decline.REVOKED: (
            "revocation_of_authorization revocation_of_all_authorizations stop_payment_order debit_not_authorized"
            " payment_intent_mandate_invalid"
        ),
        Decline.ABANDONED: "payment_intent_payment_attempt_expired payment_method_customer_decline",
        Decline.DUPLICATE: "duplicate_transaction",
        Decline.TRY_AGAIN: (
            "issuer_not_available processing_error reenter_transaction try_again_later payment_method_provider_timeout"
            " three_d_secure_authentication_upstream_error"
        ),
        Decline.NOT_CARRIED_OUT: (
            "async_payment_failed bank_account_declined payment_method_provider_decline"
            " payment_intent_payment_attempt_failed payment_method_bank_account_blocked"
        ),
        Decline.OUR_RULES: "request_blocked",
        Decline.TEST_CARD: "testmode_decline live_mode_test_card test_mode_live_card testmode_charges_only",
    }
)
REFUND_FAILURES: Final[Mapping[str, str]] = {  # Refund.failure_reason -> a sentence for the team
    "charge_for_pending_refund_disputed": "The payment was disputed while the refund was under way.",
    "declined": "The contact's bank refused it.",
    "expired_or_canceled_card": "The card has expired or was canceled.",
    "insufficient_funds": "Your balance at the processor does not cover it.",
    "lost_or_stolen_card": "The card was reported lost or stolen.",
    "merchant_request": "It was canceled at the processor.",
    "unknown": "The contact's bank gave no reason.",
}
# Other reasons are not sent. "fraudulent" adds the card and email address to Stripe's block lists, as intended.
REFUND_REASON: Final[Mapping[RefundReason, str]] = {
    RefundReason.DUPLICATE: "duplicate",
    RefundReason.FRAUDULENT: "fraudulent",
    RefundReason.REQUESTED_BY_CONTACT: "requested_by_customer",
}
_PRODUCT: Final = "line_items[0][price_data][product_data]"
FIELDS: Final[Mapping[str, str]] = {  # parameter of a new session -> the order's field
    "customer_email": "customer_email",
    "locale": "locale",
    f"{_PRODUCT}[description]": "description",
    f"{_PRODUCT}[name]": "product_name",
}
# The account cannot accept payments. Source: docs.stripe.com/error-codes.
RESTRICTED: Final = frozenset({"country_unsupported", "testmode_charges_only"})
RESTRICTED_WORDS: Final = "Your account cannot currently make"
SESSION_EVENTS: Final = frozenset(
    {
        "checkout.session.completed",
        "checkout.session.async_payment_succeeded",
        "checkout.session.async_payment_failed",
        "checkout.session.expired",
    }
)
PAYMENT_EVENTS: Final = frozenset(
    {
        "payment_intent.succeeded",
        "payment_intent.payment_failed",
        "payment_intent.canceled",
        "payment_intent.processing",
        "payment_intent.partially_funded",
    }
)
REFUND_EVENTS: Final = frozenset({"refund.created", "refund.updated", "refund.failed"})
# API versions before 2024-10-28 report a refund's later outcome only by this event.
OLD_REFUND_EVENTS: Final = frozenset({"charge.refund.updated"})
DISPUTE_EVENTS: Final = frozenset({"charge.dispute.created", "charge.dispute.updated", "charge.dispute.closed"})
# A Connect account revokes the platform's access.
DEAUTHORIZED: Final = "account.application.deauthorized"
EVENTS: Final = SESSION_EVENTS | PAYMENT_EVENTS | REFUND_EVENTS | DISPUTE_EVENTS | {DEAUTHORIZED}
# A manual endpoint may send it. It has only a running total, so the charge is read.
HINTS: Final = frozenset({"charge.refunded"})
READABLE: Final = EVENTS | HINTS | OLD_REFUND_EVENTS
THIN: Final = "v2.core.event"
THIN_OBJECTS: Final[Mapping[str, str]] = {  # type of a thin event's object -> its path
    "checkout.session": "/v1/checkout/sessions",
    "payment_intent": "/v1/payment_intents",
    "charge": "/v1/charges",
    "refund": "/v1/refunds",
    "dispute": "/v1/disputes",
}
_LOCALES = (
    "bg cs da de el en en-GB es es-419 et fi fil fr fr-CA hr hu id it ja ko lt lv ms mt nb nl pl pt pt-BR ro ru "
    "sk sl sv th tr vi zh zh-HK zh-TW"
)
LOCALES: Final = frozenset(_LOCALES.split())
# A restricted key may lack the right to read balance transactions or refunds.
_CHARGE = "payment_intent.latest_charge"
EXPANSIONS: Final = ((f"{_CHARGE}.balance_transaction", f"{_CHARGE}.refunds"), (f"{_CHARGE}.refunds",), (_CHARGE,))


@dataclass(frozen=True, slots=True)
class Credentials:
    secret_key: str = field(repr=False)
    webhook_secret: str = field(repr=False, default="")  # several, comma-separated, while one is rotated
    account: str = ""  # Connect: the account (acct_…) for which the platform's key acts
    webhook_endpoint_id: str = ""  # created by `register_webhook`; empty: a person entered the secret


# The SDK imports a class at its first use: these here, where `registry.load` imports, and not on the event loop.
_Client, _Signature = stripe.StripeClient, stripe.WebhookSignature


class _HttpClient(stripe.HTTPXClient):
    def _get_request_args_kwargs(self, method: str, url: str, headers: Mapping[str, str], post_data: Any) -> list[Any]:
        where, options = super()._get_request_args_kwargs(method, url, headers, post_data)
        data = options.pop("data")
        return [where, options | {"content": data or None}]  # httpx deprecates text as `data`


class Stripe(Processor):
    """One Stripe account."""

    name: ClassVar[str] = NAME
    display_name: ClassVar[str] = "Stripe"
    credentials: ClassVar[type[Any]] = Credentials
    checkout_origins: ClassVar[tuple[str, ...]] = ("https://checkout.stripe.com",)
    session_life_s: ClassVar[int] = 24 * 3600
    capabilities: ClassVar[Capabilities] = Capabilities(pending_refunds=True)

    def __init__(self, credentials: Credentials, *, environment: Environment, webhook_url: str | None = None) -> None:
        if credentials.account and not re.fullmatch(r"acct_[A-Za-z0-9]{1,64}", credentials.account, re.ASCII):
            raise IntegrationError(NAME, "credentials_invalid", "account is the id of a Connect account: acct_…")
        self._account = credentials.account or None
        self._secrets = [part for part in (s.strip() for s in credentials.webhook_secret.split(",")) if part]
        self._webhook_url = webhook_url or ""
        self._webhook_endpoint_id = credentials.webhook_endpoint_id
        self._timeout_s = environment.timeout_s
        self._http = _HttpClient(timeout=environment.timeout_s)
        address = environment.base_addresses.get(NAME)

        def client(account: str | None) -> stripe.StripeClient:
            return _Client(
                credentials.secret_key,
                stripe_account=account,
                stripe_version=API_VERSION,
                base_addresses={"api": address} if address else None,
                http_client=self._http,
                # The caller decides on retries: it knows the stored key and may have to read first.
                max_network_retries=0,
            )

        self._client = client(self._account)
        # A platform's webhook endpoints belong to the key's own account.
        self._owner = client(None) if self._account else self._client

    def amount_limits(self, currency: str) -> AmountLimits | None:
        """The minimum is a hint. Source: docs.stripe.com/currencies."""
        if currency not in SUPPORTED:
            return None
        ours, theirs = UNITS.get(currency, (1, 1))
        step = 10 if currency in THREE_DECIMALS else ours
        # Round the minimum up and the maximum down to chargeable amounts.
        smallest = -(-MINIMUMS.get(currency, 1) * ours // theirs)
        largest = MAXIMUMS.get(currency, MAXIMUM) * ours // theirs
        return AmountLimits(
            minimum_minor=-(-smallest // step) * step, maximum_minor=largest // step * step, step_minor=step
        )

    # ------------------------------------------------------------------------------------------------------- calls
    async def check(self) -> str | None:
        """Source: docs.stripe.com/api/accounts."""
        async with self._edge(reading=True):
            account = await self._client.v1.accounts.retrieve_current_async()
        return str(account.id)

    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        """Within 24 hours, the same key and order return the same session. Source: docs.stripe.com/api/checkout/sessions/create."""
        metadata = {REFERENCE_KEY: order.request_reference, "payment_request_number": order.number}
        product: dict[str, str] = {"name": order.product_name}
        if order.description:
            product["description"] = order.description
        params: dict[str, Any] = {
            "mode": "payment",
            "line_items": [
                {
                    "quantity": 1,
                    "price_data": {
                        "currency": order.currency.lower(),
                        "unit_amount": to_vendor(order.amount_minor, order.currency),
                        "product_data": product,
                    },
                }
            ],
            "client_reference_id": order.request_reference,
            "metadata": metadata,
            # Stripe does not copy the session's metadata to the payment intent.
            "payment_intent_data": {"metadata": metadata, "description": f"{order.number} {order.product_name}"},
            "success_url": order.success_url,
            "cancel_url": order.cancel_url,
            # No expires_at: after a crash, another time would conflict with the key.
        }
        if order.customer_email:
            params["customer_email"] = order.customer_email
        if locale := _locale(order.locale):
            params["locale"] = locale
        async with self._edge():
            session = await self._client.v1.checkout.sessions.create_async(
                cast("SessionCreateParams", params), {"idempotency_key": order.idempotency_key}
            )
        return _checkout(session.to_dict())

    async def read_checkout(self, external_id: str) -> Checkout:
        """Source: docs.stripe.com/api/checkout/sessions/retrieve."""
        return _checkout(await self._session(external_id))

    async def cancel_delayed(self, external_id: str) -> Checkout:
        """Cancel a voucher or transfer that awaits its payer; a pending debit is only read.

        Stripe refuses most cancellations, which leaves the checkout PROCESSING. Source: docs.stripe.com/api/payment_intents/cancel.
        """
        session = await self._session(external_id)
        state, intent = _checkout(session), session.get("payment_intent")
        if state.status is not CheckoutStatus.PROCESSING or not isinstance(intent, Mapping):
            return state
        if intent.get("status") not in CANCELABLE:
            return state
        try:
            async with self._edge():
                await self._client.v1.payment_intents.cancel_async(
                    str(intent["id"]), {"cancellation_reason": "abandoned"}
                )
        except IntegrationError as error:
            if error.ambiguous or error.retryable:
                raise
            log.info("stripe_intent_not_canceled", reason=error.reason)
        return await self.read_checkout(external_id)

    async def _session(self, external_id: str) -> dict[str, Any]:
        for expansion in EXPANSIONS:
            try:
                async with self._edge(reading=True):
                    session = await self._client.v1.checkout.sessions.retrieve_async(
                        external_id, {"expand": list(expansion)}
                    )
            except IntegrationError as error:
                if error.reason == "permission_denied" and expansion != EXPANSIONS[-1]:
                    continue
                raise
            found = session.to_dict()
            await self._complete_refunds(found)
            return found
        raise AssertionError("the last expansion returns or raises")

    async def _complete_refunds(self, session: Mapping[str, Any]) -> None:
        # A session includes only the newest ten.
        listed = _listed_refunds(session)
        if not listed.get("has_more") or not listed.get("data"):
            return
        found: list[dict[str, Any]] = listed["data"]
        params: dict[str, Any] = {"payment_intent": _id(session.get("payment_intent")), "limit": 100}
        for _ in range(REFUND_PAGES):
            params["starting_after"] = found[-1]["id"]
            async with self._edge(reading=True):
                page = await self._client.v1.refunds.list_async(cast("RefundListParams", params))
            found += [refund.to_dict() for refund in page.data]
            if not page.has_more or not page.data:
                return
        log.warning("stripe_refund_list_cut", pages=REFUND_PAGES)

    async def expire_checkout(self, external_id: str) -> Checkout:
        """Source: docs.stripe.com/api/checkout/sessions/expire."""
        try:
            async with self._edge():
                session = await self._client.v1.checkout.sessions.expire_async(external_id)
        except IntegrationError as error:
            if error.reason == "invalid_request":
                # The session is no longer open: read its state.
                return await self.read_checkout(external_id)
            raise
        return _checkout(session.to_dict())

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        """Stripe keeps the key for 24 hours. Source: docs.stripe.com/api/refunds/create."""
        params: dict[str, Any] = {
            "payment_intent": order.charge_external_id,
            "amount": to_vendor(order.amount_minor, order.currency),
            "metadata": {REFERENCE_KEY: order.request_reference},
        }
        if order.reason is not None and order.reason in REFUND_REASON:
            params["reason"] = REFUND_REASON[order.reason]
        async with self._edge():
            made = await self._client.v1.refunds.create_async(
                cast("RefundCreateParams", params), {"idempotency_key": order.idempotency_key}
            )
        return _answered_refund(made.to_dict(), ambiguous=True)

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        """Source: docs.stripe.com/api/refunds/retrieve."""
        async with self._edge(reading=True):
            refund = await self._client.v1.refunds.retrieve_async(external_id)
        return _answered_refund(refund.to_dict())

    async def read_charge(self, external_id: str) -> MoneyStatement | None:
        """The id is a payment intent's. Source: docs.stripe.com/api/payment_intents/retrieve."""
        try:
            async with self._edge(reading=True):
                read = await self._client.v1.payment_intents.retrieve_async(external_id, {"expand": ["latest_charge"]})
                sessions = await self._client.v1.checkout.sessions.list_async(
                    {"payment_intent": external_id, "limit": 1}
                )
        except IntegrationError as error:
            if error.reason == "not_found":
                return None
            raise
        intent = read.to_dict()
        try:
            money = _charge_of(intent)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise IntegrationError(NAME, "unexpected_answer", type(error).__name__) from error
        session = sessions.data[0]["id"] if sessions.data else None
        return dataclasses.replace(money, checkout_external_id=session) if money else None

    async def list_checkouts(self, since: datetime) -> Sequence[Checkout]:
        """Source: docs.stripe.com/api/checkout/sessions/list."""
        params: dict[str, Any] = {
            "created": {"gte": int(since.timestamp())},
            "expand": ["data.payment_intent"],
            "limit": 100,
        }
        found: list[Checkout] = []
        for _ in range(LIST_PAGES):
            async with self._edge(reading=True):
                page = await self._client.v1.checkout.sessions.list_async(cast("SessionListParams", params))
            sessions = [session.to_dict() for session in page.data]
            # Other programs' sessions may have any shape.
            found += [_checkout(one) for one in sessions if REFERENCE_KEY in (one.get("metadata") or {})]
            if not page.has_more or not sessions:
                break
            params["starting_after"] = sessions[-1]["id"]
        else:
            log.warning("stripe_session_list_cut", pages=LIST_PAGES)
        return found[::-1]

    async def list_events(self, since: datetime) -> Sequence[ProcessorWebhook]:
        """Stripe keeps events for 30 days. Source: docs.stripe.com/webhooks/process-undelivered-events."""
        params: dict[str, Any] = {
            "delivery_success": False,
            "created": {"gte": int(since.timestamp())},
            "types": sorted(EVENTS),
            "limit": 100,
        }
        found: list[ProcessorWebhook] = []
        for _ in range(LIST_PAGES):
            async with self._edge(reading=True):
                page = await self._client.v1.events.list_async(cast("EventListParams", params))
            events = [event.to_dict(for_json=True) for event in page.data]
            for event in events:
                try:
                    found.append(dataclasses.replace(self._parse(event), raw=orjson.dumps(event)))
                except PayloadInvalid as error:
                    # The sweeper still reads its checkout.
                    log.warning("stripe_event_unreadable", event_id=event.get("id"), reason=error.reason)
            if not page.has_more or not events:
                break
            params["starting_after"] = events[-1]["id"]
        else:
            log.warning("stripe_event_list_cut", pages=LIST_PAGES)
        return found[::-1]

    async def register_webhook(self) -> Mapping[str, str] | None:
        """Replace this address's endpoint. None if Stripe refuses the key or the address.

        A Connect account uses the platform's endpoint. Source: docs.stripe.com/api/webhook_endpoints/create.
        """
        if not self._webhook_url:
            return None
        params: dict[str, Any] = {
            "url": self._webhook_url,
            "enabled_events": sorted(EVENTS),
            "api_version": API_VERSION,
            "description": "Paythread",
        }
        if self._account:
            params["connect"] = True
        try:
            # An existing endpoint cannot be reused: Stripe shows its secret only at creation.
            older = [one["id"] for one in await self._endpoints() if one["url"] == self._webhook_url]
            async with self._edge():
                made = await self._owner.v1.webhook_endpoints.create_async(cast("WebhookEndpointCreateParams", params))
                created = {"webhook_secret": str(made["secret"]), "webhook_endpoint_id": str(made["id"])}
        except IntegrationError as error:
            if error.reason in ("permission_denied", "address_refused"):
                return None
            raise
        for endpoint_id in older:
            try:
                await self._delete_endpoint(endpoint_id)
            except IntegrationError as error:
                # The new secret must not be lost.
                log.warning("stripe_endpoint_left", endpoint_id=endpoint_id, reason=error.reason)
        return created

    async def unregister_webhook(self) -> None:
        """Source: docs.stripe.com/api/webhook_endpoints/delete."""
        if self._webhook_endpoint_id:
            await self._delete_endpoint(self._webhook_endpoint_id)

    async def _endpoints(self) -> list[dict[str, Any]]:
        params: dict[str, Any] = {"limit": 100}
        found: list[dict[str, Any]] = []
        for _ in range(ENDPOINT_PAGES):
            async with self._edge(reading=True):
                page = await self._owner.v1.webhook_endpoints.list_async(cast("WebhookEndpointListParams", params))
            found += [one.to_dict() for one in page.data]
            if not page.has_more or not page.data:
                break
            params["starting_after"] = found[-1]["id"]
        else:
            log.warning("stripe_endpoint_list_cut", pages=ENDPOINT_PAGES)
        return found

    async def _delete_endpoint(self, endpoint_id: str) -> None:
        try:
            async with self._edge():
                await self._owner.v1.webhook_endpoints.delete_async(endpoint_id)
        except IntegrationError as error:
            if error.reason != "not_found":
                raise

    async def aclose(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]  # the SDK does not type it

    # ---------------------------------------------------------------------------------------------------- webhooks
    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        """An event of another Connect account has only its `vendor_account`. Source: docs.stripe.com/webhooks."""
        self._verify(body, headers.get("stripe-signature", ""), now)
        return self.parse(body)

    async def verify_webhook(
        self, body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str] | None = None
    ) -> ProcessorWebhook:
        """As `receive`; a thin event's object is read. Source: docs.stripe.com/event-destinations#thin-events."""
        event = self.receive(body, headers, now=now)
        if THIN.encode() not in body or event.type not in READABLE or not self._concerns(event):
            return event
        thin = orjson.loads(body)
        if thin.get("object") != THIN:
            return event
        related = thin.get("related_object") or {}
        path = THIN_OBJECTS.get(str(related.get("type")))
        if path is None or not re.fullmatch(r"[A-Za-z0-9_]{1,200}", str(related.get("id")), re.ASCII):
            return event
        try:
            async with self._edge(reading=True):
                answer = await self._client.raw_request_async("get", f"{path}/{related['id']}")
                thing = orjson.loads(answer.body)
        except IntegrationError as error:
            if error.reason == "not_found":
                return event
            raise
        whole: dict[str, Any] = {
            "object": "event",
            "id": event.external_id,
            "type": event.type,
            "data": {"object": thing},
        }
        assert event.created_at is not None  # noqa: S101 (receive has read it)
        whole |= {"created": int(event.created_at.timestamp()), "livemode": thin.get("livemode")}
        if event.vendor_account is not None:
            whole["account"] = event.vendor_account
        return dataclasses.replace(self._parse(whole), raw=orjson.dumps(whole))

    def _concerns(self, event: ProcessorWebhook) -> bool:
        return event.vendor_account is None or event.vendor_account == self._account

    def parse(self, body: bytes) -> ProcessorWebhook:
        try:
            event = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise PayloadInvalid(NAME, "not_json") from error
        return self._parse(event)

    def _verify(self, body: bytes, header: str, now: datetime) -> None:
        if not self._secrets:
            raise SignatureInvalid(NAME, "no_webhook_secret")
        # The SDK compares text, so a header that is not ASCII would raise TypeError.
        sent = re.search(r"(?:^|,)t=(\d{1,12})(?:,|$)", header, re.ASCII) if header.isascii() else None
        if sent is None or len(header) > 4096 or header.count("t=") != 1:
            raise SignatureInvalid(NAME, "signature_missing" if not header else "signature_malformed")
        for secret in self._secrets:
            try:
                _Signature.verify_header(body, header, secret, None)
                break
            except (stripe.SignatureVerificationError, UnicodeDecodeError):
                continue
        else:
            raise SignatureInvalid(NAME)
        # The SDK refuses only old signatures; one from the future would stay valid until its time.
        if abs(now.timestamp() - int(sent.group(1))) > TOLERANCE_S:
            raise SignatureInvalid(NAME, "signature_stale")

    def _parse(self, event: Any) -> ProcessorWebhook:
        try:
            return self._parse_event(event)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise PayloadInvalid(NAME, "unexpected_shape", type(error).__name__) from error

    def _parse_event(self, event: dict[str, Any]) -> ProcessorWebhook:
        if event["object"] == THIN:
            return _thin(event)
        if event["object"] != "event":
            raise PayloadInvalid(NAME, "not_an_event", str(event["object"])[:40])
        kind, thing = str(event["type"]), event["data"]["object"]
        created = _time(event["created"])
        account = event.get("account")
        empty = ProcessorWebhook(
            external_id=str(event["id"]),
            type=kind,
            created_at=created,
            vendor_account=account,
            test_mode=_test_mode(event),
        )
        # Only a Connect endpoint's events name the account.
        if account is not None and account != self._account:
            return empty
        if kind == DEAUTHORIZED:
            # An account's own key does not depend on applications.
            return dataclasses.replace(empty, disconnected=account is not None, decides=account is not None)
        if kind in SESSION_EVENTS:
            return _session_event(empty, thing)
        if kind == "payment_intent.canceled":
            return _canceled(empty, thing)
        if kind == "payment_intent.partially_funded":
            return _partially_funded(empty, thing)
        if kind in PAYMENT_EVENTS:
            money = _charge_of(thing, occurred_at=created)
            return _with_money(empty, money, reference=_reference(thing))
        if kind in HINTS:
            return _hint(empty, thing)
        if kind in REFUND_EVENTS or kind in OLD_REFUND_EVENTS:
            return _with_money(empty, _refund(thing, created), reference=_reference(thing))
        if kind in DISPUTE_EVENTS:
            return _with_money(empty, _dispute(thing, created), reference=_reference(thing))
        return empty

    # ------------------------------------------------------------------------------------------------------ errors
    @contextlib.asynccontextmanager
    async def _edge(self, *, reading: bool = False) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except TimeoutError as error:
            raise IntegrationError(NAME, "timeout", retryable=True, ambiguous=not reading) from error
        except stripe.StripeError as error:
            raise _wrapped(error, reading=reading) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # The SDK fails so on a proxy's page or a changed type.
            raise IntegrationError(NAME, "unexpected_answer", type(error).__name__, ambiguous=not reading) from error


def _wrapped(error: stripe.StripeError, *, reading: bool) -> IntegrationError:
    # docs.stripe.com/api/errors
    code = error.code or (error.error.code if error.error is not None else None)
    # The message names parameters, never the card or the key.
    message = (error.user_message or "")[:300]
    reason, retryable, ambiguous = _reason_of(error, code=code, message=message, reading=reading)
    limited = isinstance(error, stripe.RateLimitError)
    return IntegrationError(
        NAME,
        reason,
        message,
        retryable=retryable,
        ambiguous=ambiguous and not reading,
        code=code,
        retry_after_s=retry_after(httpx.Headers(error.headers).get("retry-after")) if limited else None,
        field="customer_email" if code == "email_invalid" else FIELDS.get(getattr(error, "param", None) or ""),
    )


def _reason_of(
    error: stripe.StripeError, *, code: str | None, message: str, reading: bool
) -> tuple[str, bool, bool]:  # reason, retryable, ambiguous if it writes
    if isinstance(error, stripe.APIConnectionError):
        # Without a connection the request was never sent, so the same call may be repeated.
        unsent = isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)
        return "connection", True, not unsent
    if isinstance(error, stripe.RateLimitError):
        return "rate_limited", True, False
    if error.http_status == 409 or code == "idempotency_key_in_use":
        return "in_progress", True, True
    if isinstance(error, stripe.IdempotencyError):
        return "idempotency_conflict", False, False
    if isinstance(error, stripe.AuthenticationError):
        return "authentication_failed", False, False
    if code == "account_invalid":
        return "access_revoked", False, False  # the Connect account revoked the platform's access, or never granted it
    if code in RESTRICTED or message.startswith(RESTRICTED_WORDS):
        return "account_restricted", False, False
    if isinstance(error, stripe.PermissionError):
        return "permission_denied", False, False
    if isinstance(error, stripe.InvalidRequestError):
        return _invalid_reason(error, code), False, False
    if error.http_status is not None and 400 <= error.http_status < 500:
        return "refused", False, False
    # Stripe replays a 500 for its key, so only a read shows the outcome.
    return "server_error", reading, True


def _invalid_reason(error: stripe.InvalidRequestError, code: str | None) -> str:
    if code in ("amount_too_small", "amount_too_large"):
        return code
    param = error.param or ""
    if param == "url" or code == "url_invalid":
        return "address_refused"  # of a webhook: not public, or not https
    if param.endswith(("currency", "[currency]")):
        return "currency_not_supported"
    return "not_found" if code == "resource_missing" else "invalid_request"


# ----------------------------------------------------------------------------------------------------------- parsing
def _time(value: Any) -> datetime:
    return datetime.fromtimestamp(int(value), UTC)


def _reference(thing: Mapping[str, Any]) -> str | None:
    return thing.get("client_reference_id") or (thing.get("metadata") or {}).get(REFERENCE_KEY)


def _test_mode(thing: Mapping[str, Any]) -> bool | None:
    # A platform's live endpoint also receives test events.
    return not thing["livemode"] if isinstance(thing.get("livemode"), bool) else None


def _id(value: Any) -> str | None:
    found = value.get("id") if isinstance(value, Mapping) else value
    return str(found) if found else None


def _locale(wanted: str | None) -> str | None:
    if not wanted:
        return None
    tag = wanted.replace("_", "-")
    by_folded = {known.lower(): known for known in LOCALES}
    return by_folded.get(tag.lower()) or by_folded.get(tag.partition("-")[0].lower())


def _checkout(session: dict[str, Any]) -> Checkout:
    try:
        status, money = _session_state(session)
        return Checkout(
            external_id=str(session["id"]),
            status=status,
            url=session.get("url") if status is CheckoutStatus.OPEN else None,
            expires_at=_time(session["expires_at"]),
            request_reference=_reference(session),
            delay=_delay(session) if status is CheckoutStatus.PROCESSING else None,
            money=(*money, *_refunds(session)),
            test_mode=_test_mode(session),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IntegrationError(NAME, "unexpected_answer", type(error).__name__, ambiguous=True) from error


def _refunds(session: Mapping[str, Any]) -> list[MoneyStatement]:
    return [_refund(refund, _time(refund["created"])) for refund in _listed_refunds(session).get("data") or ()]


def _listed_refunds(session: Mapping[str, Any]) -> Mapping[str, Any]:
    intent = session.get("payment_intent")
    charge = intent.get("latest_charge") if isinstance(intent, Mapping) else None
    return (charge.get("refunds") or {}) if isinstance(charge, Mapping) else {}


def _delay(session: Mapping[str, Any]) -> Delay:
    # Stripe completes a session unpaid only for payment methods that take days.
    intent = session.get("payment_intent")
    intent = intent if isinstance(intent, Mapping) else {}
    action = intent.get("next_action") or {}
    shown = action.get(action.get("type") or "") or {}
    charge = intent.get("latest_charge")
    details = (charge.get("payment_method_details") or {}) if isinstance(charge, Mapping) else {}
    offered: Sequence[str] = session.get("payment_method_types") or ()
    kind = WAITS_FOR.get(str(action.get("type"))) or details.get("type") or (offered[0] if len(offered) == 1 else "")
    until = shown.get("expires_after") or shown.get("expires_at")
    return Delay(method=DELAYED.get(str(kind)), until=_time(until) if until else None)


def _session_state(session: Mapping[str, Any]) -> tuple[CheckoutStatus, tuple[MoneyStatement, ...]]:
    intent = session.get("payment_intent")
    money: tuple[MoneyStatement, ...] = ()
    if isinstance(intent, Mapping):
        statement = _charge_of(intent, session=session)
        money = (statement,) if statement else ()
    state = session["status"]
    if state == "open":
        return CheckoutStatus.OPEN, money
    if state == "expired":
        return CheckoutStatus.EXPIRED, money
    if state != "complete":
        raise ValueError("unknown session status")
    if session["payment_status"] == "no_payment_required":
        return CheckoutStatus.EXPIRED, money  # it ended, and nothing had to be paid
    if session["payment_status"] != "unpaid":
        if not money:
            money = (_charge_by_session(session, MoneyOutcome.SUCCEEDED),)
        return CheckoutStatus.COMPLETED, money
    # Submitted, even if the intent no longer shows the attempt.
    ended = {"canceled": MoneyOutcome.CANCELED, "requires_payment_method": MoneyOutcome.FAILED}
    if isinstance(intent, Mapping) and intent["status"] in ended:
        return CheckoutStatus.FAILED, money or (_charge_by_session(session, ended[intent["status"]]),)
    return CheckoutStatus.PROCESSING, money or (_charge_by_session(session, MoneyOutcome.PENDING),)


def _session_event(empty: ProcessorWebhook, session: Mapping[str, Any]) -> ProcessorWebhook:
    # The event's type decides what `unpaid` means.
    if empty.type == "checkout.session.expired":
        status, outcome = CheckoutStatus.EXPIRED, None
    elif empty.type == "checkout.session.async_payment_failed":
        status, outcome = CheckoutStatus.FAILED, MoneyOutcome.FAILED
    elif session["payment_status"] == "paid":
        status, outcome = CheckoutStatus.COMPLETED, MoneyOutcome.SUCCEEDED
    elif session["payment_status"] == "unpaid":
        status, outcome = CheckoutStatus.PROCESSING, MoneyOutcome.PENDING
    else:
        status, outcome = CheckoutStatus.EXPIRED, None  # nothing had to be paid
    money = (_charge_by_session(session, outcome, occurred_at=empty.created_at),) if outcome else ()
    return dataclasses.replace(
        empty,
        decides=True,
        money=money,
        checkout_external_id=str(session["id"]),
        checkout_status=status,
        delay=_delay(session) if status is CheckoutStatus.PROCESSING else None,
        request_reference=_reference(session),
    )


def _canceled(empty: ProcessorWebhook, intent: Mapping[str, Any]) -> ProcessorWebhook:
    # docs.stripe.com/api/payment_intents/object#cancellation_reason
    untouched = not intent.get("latest_charge") and not intent.get("last_payment_error")
    if untouched and intent.get("cancellation_reason") in ("automatic", "expired"):
        return empty
    return _hinted(empty, intent, MoneyOutcome.CANCELED)


def _partially_funded(empty: ProcessorWebhook, intent: Mapping[str, Any]) -> ProcessorWebhook:
    # A part of a bank transfer arrived.
    return _hinted(empty, intent, MoneyOutcome.PENDING)


def _hinted(empty: ProcessorWebhook, intent: Mapping[str, Any], outcome: MoneyOutcome) -> ProcessorWebhook:
    currency, reference = str(intent["currency"]).upper(), _reference(intent)
    money = MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id=str(intent["id"]),
        outcome=outcome,
        amount_minor=from_vendor(int(intent["amount"]), currency),
        currency=currency,
        request_reference=reference,
    )
    return dataclasses.replace(empty, money=(money,), request_reference=reference)


def _thin(event: Mapping[str, Any]) -> ProcessorWebhook:
    # docs.stripe.com/api/v2/core/events/object
    created = datetime.fromisoformat(event["created"])
    if created.tzinfo is None:
        raise ValueError("a time without a zone")
    return ProcessorWebhook(
        external_id=str(event["id"]),
        type=str(event["type"]).removeprefix("v1."),  # the name of the event with its object
        created_at=created,
        # The event's account. An account's own key sees only its own events, without this field.
        vendor_account=event.get("context") or None,
        test_mode=_test_mode(event),
    )


def _with_money(empty: ProcessorWebhook, money: MoneyStatement | None, *, reference: str | None) -> ProcessorWebhook:
    return dataclasses.replace(
        empty, decides=money is not None, money=(money,) if money else (), request_reference=reference
    )


def _hint(empty: ProcessorWebhook, charge: Mapping[str, Any]) -> ProcessorWebhook:
    # docs.stripe.com/api/charges
    intent, reference = _id(charge.get("payment_intent")), _reference(charge)
    if not intent or charge.get("status") != "succeeded":
        return empty
    currency = str(charge["currency"]).upper()
    money = MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id=intent,
        outcome=MoneyOutcome.SUCCEEDED,
        amount_minor=from_vendor(int(charge["amount"]), currency),
        currency=currency,
        request_reference=reference,
    )
    return dataclasses.replace(empty, money=(money,), request_reference=reference)


def _charge_by_session(
    session: Mapping[str, Any], outcome: MoneyOutcome, *, occurred_at: datetime | None = None
) -> MoneyStatement:
    currency = str(session["currency"]).upper()
    intent = _id(session["payment_intent"])
    if not intent:
        raise ValueError("a payment without a payment intent")
    code = "async_payment_failed" if outcome is MoneyOutcome.FAILED else None
    return MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id=intent,
        outcome=outcome,
        amount_minor=from_vendor(int(session["amount_total"]), currency),
        currency=currency,
        checkout_external_id=str(session["id"]),
        request_reference=_reference(session),
        failure_code=code,
        failure_message=sentence(code, DECLINES) if code else None,
        occurred_at=occurred_at,
    )


def _charge_of(
    intent: Mapping[str, Any], *, session: Mapping[str, Any] | None = None, occurred_at: datetime | None = None
) -> MoneyStatement | None:
    error = intent.get("last_payment_error")
    charge = intent.get("latest_charge")
    outcome = PAYMENT_OUTCOME.get(intent["status"])
    if outcome is None or (outcome in (MoneyOutcome.FAILED, MoneyOutcome.CANCELED) and not error and not charge):
        return None  # no attempt: Stripe cancels an expired session's unused intent
    details: Mapping[str, Any] = charge if isinstance(charge, Mapping) else {}
    currency = str(intent["currency"]).upper()
    amount = intent.get("amount_received") if outcome is MoneyOutcome.SUCCEEDED else None
    external_id = str(intent["id"])
    if outcome in (MoneyOutcome.FAILED, MoneyOutcome.CANCELED) and (session is None or session["status"] != "complete"):
        # Stripe canceled an expired session's intent. Report its last attempt.
        outcome, external_id = MoneyOutcome.FAILED, _attempt_id(intent)
        if external_id not in (intent["id"], details.get("id")):
            details = {}  # the charge of another attempt: this one created none
    failed = outcome is MoneyOutcome.FAILED
    failure: Mapping[str, Any] = error if failed and error else {}
    code = failure.get("decline_code") or failure.get("code") or details.get("failure_code")
    return MoneyStatement(
        kind=MoneyKind.CHARGE,
        external_id=external_id,
        outcome=outcome,
        amount_minor=from_vendor(int(amount or intent["amount"]), currency),
        currency=currency,
        checkout_external_id=str(session["id"]) if session else None,
        request_reference=_reference(intent) or (_reference(session) if session else None),
        fee_minor=_fee(details.get("balance_transaction"), currency),
        method_summary=_method(details.get("payment_method_details")),
        failure_code=code if failed else None,
        failure_message=sentence(code, DECLINES) if failed else None,
        occurred_at=_time(details["created"]) if details.get("created") else occurred_at,
    )


def _attempt_id(intent: Mapping[str, Any]) -> str:
    # From the intent alone, so that reads and webhooks agree.
    # docs.stripe.com/api/payment_intents/object#last_payment_error
    intent_id = str(intent["id"])
    error: Mapping[str, Any] = intent.get("last_payment_error") or {}
    method: Mapping[str, Any] = error.get("payment_method") or {}
    if method.get("type") in DELAYED:
        return intent_id
    if charge := _id(error.get("charge")):
        return charge
    return f"{intent_id}.{method['id']}" if method.get("id") else _id(intent.get("latest_charge")) or intent_id


def _fee(balance: Any, currency: str) -> int | None:
    if not isinstance(balance, Mapping) or str(balance.get("currency", "")).upper() != currency:
        return None
    # A fee may be a fraction of a minor unit (ISK).
    fee = int(balance["fee"])
    return from_vendor(fee, currency) if fee % UNITS.get(currency, (1, 1))[1] == 0 else None


def _method(details: Any) -> str | None:
    if not isinstance(details, Mapping) or not details.get("type"):
        return None
    kind = str(details["type"])
    parts = details.get(kind)
    parts = parts if isinstance(parts, Mapping) else {}
    label = str(parts.get("brand") or kind).replace("_", " ").title()
    last4 = str(parts.get("last4") or "")
    return f"{label} •••• {last4}" if re.fullmatch(r"[0-9A-Za-z]{4}", last4) else label


def _refund(refund: Mapping[str, Any], occurred_at: datetime) -> MoneyStatement:
    # docs.stripe.com/api/refunds
    currency = str(refund["currency"]).upper()
    outcome = REFUND_OUTCOME.get(str(refund.get("status")), MoneyOutcome.PENDING)
    code = refund.get("failure_reason") if outcome is MoneyOutcome.FAILED else None
    return MoneyStatement(
        kind=MoneyKind.REFUND,
        external_id=str(refund["id"]),
        outcome=outcome,
        amount_minor=from_vendor(int(refund["amount"]), currency),
        currency=currency,
        request_reference=_reference(refund),
        charge_external_id=_id(refund.get("payment_intent")),
        failure_code=code,
        failure_message=REFUND_FAILURES.get(str(code)),
        occurred_at=occurred_at,
    )


def _answered_refund(refund: Mapping[str, Any], *, ambiguous: bool = False) -> MoneyStatement:
    try:
        return _refund(refund, _time(refund["created"]))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise IntegrationError(NAME, "unexpected_answer", type(error).__name__, ambiguous=ambiguous) from error


def _dispute(dispute: Mapping[str, Any], occurred_at: datetime) -> MoneyStatement:
    # docs.stripe.com/api/disputes
    currency = str(dispute["currency"]).upper()
    outcome = DISPUTE_OUTCOME.get(str(dispute["status"]), MoneyOutcome.PENDING)
    due_by = (dispute.get("evidence_details") or {}).get("due_by")  # 0: this bank accepts no response
    return MoneyStatement(
        kind=MoneyKind.DISPUTE,
        external_id=str(dispute["id"]),
        outcome=outcome,
        amount_minor=from_vendor(int(dispute["amount"]), currency),
        currency=currency,
        request_reference=_reference(dispute),
        charge_external_id=_id(dispute.get("payment_intent")),
        response_due_at=_time(due_by) if due_by and outcome is MoneyOutcome.PENDING else None,
        dispute_reason=dispute.get("reason"),
        inquiry=str(dispute["status"]).startswith("warning_"),
        occurred_at=occurred_at,
    )


provider = Stripe
