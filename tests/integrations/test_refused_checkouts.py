"""What the three vendors refuse of a new checkout: amounts, fields of the order, the account, the credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from integrations.base import AmountLimits, CheckoutStatus, IntegrationError, MoneyOutcome, Processor
from integrations.processors import stripe
from models.money import CURRENCIES
from tests.contracts import stripe_server
from tests.contracts.paypal_server import PayPalServer
from tests.contracts.square_server import SquareServer
from tests.contracts.stripe_server import StripeServer
from tests.integrations import test_paypal, test_square, test_stripe
from tests.integrations.test_processor_contract import order

Opened = tuple[Any, Processor]
VENDORS: dict[str, Callable[..., Any]] = {
    "stripe": test_stripe.connected,
    "paypal": test_paypal.connected,
    "square": test_square.connected,
}


@asynccontextmanager
async def vendor(name: str) -> AsyncIterator[Opened]:
    connection = {"account": stripe_server.CONNECTED_ID} if name == "stripe" else {}
    async with VENDORS[name](**connection) as opened:
        yield opened


async def refusal(processor: Processor, **changes: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as refused:
        await processor.create_checkout(replace(order(), **changes))
    assert not refused.value.retryable
    assert not refused.value.ambiguous
    return refused.value


# ---------------------------------------------------------------------------------------------------------- amounts
LIMITS = {  # in ISO minor units: the least, the most
    "THB": (1000, 99_999_999),
    "INR": (50, 99_999_999),
    "AED": (200, 99_999_999),
    "BRL": (50, 99_999_999),
    "MYR": (200, 99_999_999),
    "HUF": (17_500, 99_999_999),
    "RON": (200, 99_999_999),
    "CZK": (1500, 99_999_999),
    "IDR": (1, 999_999_999_999),
    "COP": (1, 99_999_999),
    "KRW": (1, 99_999_999),
    "KWD": (10, 99_999_990),
    "ISK": (1, 999_999),
}


async def test_stripe_takes_exactly_the_amounts_between_the_limits_that_we_name() -> None:
    async with test_stripe.connected() as (_, processor):
        found = {code: limits for code in LIMITS if (limits := processor.amount_limits(code))}
        assert {code: (one.minimum_minor, one.maximum_minor) for code, one in found.items()} == LIMITS
        for n, (code, one) in enumerate(found.items()):
            assert one.maximum_minor is not None
            for amount in (one.minimum_minor, one.maximum_minor):
                made = order(amount_minor=amount, currency=code, idempotency_key=f"{n}:{amount}")
                assert (await processor.create_checkout(made)).status is CheckoutStatus.OPEN
            beyond = {one.maximum_minor + one.step_minor: "amount_too_large"}
            if one.minimum_minor > one.step_minor:
                beyond[one.minimum_minor - one.step_minor] = "amount_too_small"
            for amount, reason in beyond.items():
                assert (await refusal(processor, amount_minor=amount, currency=code)).reason == reason


def test_every_documented_minimum_of_stripe_is_known() -> None:
    ours = {code.lower(): least for code, least in stripe.MINIMUMS.items()}
    assert ours == stripe_server.MINIMUMS


async def test_a_minimum_of_the_settlement_currency_is_told_by_stripe_alone() -> None:
    async with test_stripe.connected() as (server, processor):
        server.settles = ("usd", {"php": 0.017})
        assert processor.amount_limits("PHP") == AmountLimits(minimum_minor=1, maximum_minor=99_999_999)
        assert (await refusal(processor, amount_minor=2000, currency="PHP")).reason == "amount_too_small"
        assert (await processor.create_checkout(order(amount_minor=3000, currency="PHP"))).url is not None


@pytest.mark.parametrize("name", ["paypal", "square"])
async def test_amounts_at_the_limits_of_paypal_and_square_are_taken(name: str) -> None:
    async with vendor(name) as (_, processor):
        taken = {code: limits for code in sorted(CURRENCIES) if (limits := processor.amount_limits(code))}
        for code, limits in taken.items():
            for amount in (limits.minimum_minor, limits.maximum_minor):
                made = order(amount_minor=amount, currency=code, idempotency_key=f"{code}:{amount}")
                assert (await processor.create_checkout(made)).status is CheckoutStatus.OPEN
    whole = {code for code, limits in taken.items() if limits.step_minor == 100}
    assert whole == ({"HUF", "TWD"} if name == "paypal" else set())


# ----------------------------------------------------------------------------------------------- fields of the order
@pytest.mark.parametrize(
    "address",
    [
        "ana..lopez@example.com",
        "ana.@example.com",
        ".ana@example.com",
        "ana@-example.com",
        "ana@example-.com",
        "ana@@example.com",
        "josé@example.com",
        "ana@exämple.com",
        "ana@localhost",
    ],
)
async def test_stripe_names_the_address_that_it_refuses(address: str) -> None:
    async with test_stripe.connected() as (server, processor):
        error = await refusal(processor, customer_email=address)
        assert (error.reason, error.field, error.code) == ("invalid_request", "customer_email", "email_invalid")
        assert server.sessions == {}
        made = await processor.create_checkout(order(customer_email=None, idempotency_key="2"))
        assert made.status is CheckoutStatus.OPEN


async def test_paypal_and_square_name_the_optional_field_that_they_refuse() -> None:
    async with test_paypal.connected() as (paypal, processor):
        paypal.bad_locale = "de-DE"
        assert (await refusal(processor, locale="de-DE")).field == "locale"
        assert (await processor.create_checkout(order(locale=None))).url is not None
    async with test_square.connected() as (square, processor):
        square.bad_note = "forbidden"
        assert (await refusal(processor, description="a forbidden word")).field == "description"
        assert (await processor.create_checkout(order(description=None, idempotency_key="2"))).url is not None


# ------------------------------------------------------------------------------------------- account and credentials
def _revoke(server: Any) -> None:
    server.revoked = True


def _deauthorize(server: StripeServer) -> None:
    server.deauthorized.add(stripe_server.CONNECTED_ID)


def _restrict(server: Any) -> None:
    if isinstance(server, StripeServer):
        server.restricted = "Your account cannot currently make charges."
    else:
        paypal = isinstance(server, PayPalServer)
        server.refused = (422, "PAYEE_ACCOUNT_RESTRICTED") if paypal else (403, "CARD_PROCESSING_NOT_ENABLED")


def _forbid(server: Any) -> None:
    if isinstance(server, StripeServer):
        server.restricted = "The provided key does not have the required permissions."
    else:
        server.refused = (403, "PERMISSION_DENIED" if isinstance(server, PayPalServer) else "INSUFFICIENT_SCOPES")


def _take_other_currency(server: Any) -> None:
    paypal = isinstance(server, PayPalServer)
    server.refused = (422, "INVALID_CURRENCY_CODE") if paypal else (400, "UNSUPPORTED_CURRENCY")


@pytest.mark.parametrize(
    ("name", "happen", "reason"),
    [
        *((name, _revoke, "authentication_failed") for name in VENDORS),
        ("stripe", _deauthorize, "access_revoked"),
        *((name, _restrict, "account_restricted") for name in VENDORS),
        *((name, _forbid, "permission_denied") for name in VENDORS),
        *((name, _take_other_currency, "currency_not_supported") for name in ("paypal", "square")),
    ],
)
async def test_a_refusal_of_account_or_key_has_a_reason_that_tells_what_to_do(
    name: str, happen: Callable[[Any], None], reason: str
) -> None:
    async with vendor(name) as (server, processor):
        assert (await processor.create_checkout(order(idempotency_key="1"))).url is not None
        happen(server)
        error = await refusal(processor, idempotency_key="2")
        assert (error.reason, error.field) == (reason, None)


# --------------------------------------------------------------------------------------------------- reading a charge
async def _pay(server: Any, external_id: str) -> str:
    if isinstance(server, PayPalServer):
        server.approve(external_id)
        server.capture_now(external_id)
        return str(server.capture_of(external_id)["id"])
    if isinstance(server, SquareServer):
        server.pay(external_id.partition(".")[0])
        return str(server.payment_of(external_id.partition(".")[2])["id"])
    server.pay(external_id)
    return str(server.sessions[external_id]["payment_intent"])


@pytest.mark.parametrize("name", VENDORS)
async def test_a_charge_is_read_with_its_checkout_and_an_unknown_one_is_none(name: str) -> None:
    async with vendor(name) as (server, processor):
        made = await processor.create_checkout(order())
        charge = await processor.read_charge(await _pay(server, made.external_id))
        assert charge is not None
        assert (charge.outcome, charge.amount_minor, charge.currency) == (MoneyOutcome.SUCCEEDED, 12500, "USD")
        assert charge.checkout_external_id == made.external_id
        assert await processor.read_charge("1AB23456CD7890123") is None
