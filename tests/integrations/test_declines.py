"""Every documented decline code has a sentence; unknown codes get a general one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from integrations.declines import Decline, by_reason, sentence
from integrations.processors import paypal, square, stripe
from tests.contracts import stripe_contract
from tests.contracts.openapi import vendor_file

TABLES = {"stripe": stripe.DECLINES, "paypal": paypal.DECLINES, "square": square.DECLINES}
# docs.stripe.com/declines/codes, all of them
_CODES = (
    "approve_with_id authentication_not_handled authentication_required call_issuer card_not_supported card_velocity_exceeded "
    "currency_not_supported do_not_honor do_not_try_again duplicate_transaction expired_card fraudulent generic_decline "
    "incorrect_address incorrect_cvc incorrect_number incorrect_pin incorrect_zip insufficient_funds invalid_account invalid_amount "
    "invalid_cvc invalid_expiry_month invalid_expiry_year invalid_number invalid_pin issuer_not_available lost_card "
    "merchant_blacklist mobile_device_authentication_required new_account_information_available no_action_taken not_permitted "
    "offline_pin_required online_or_offline_pin_required pickup_card pin_try_exceeded previously_declined_do_not_retry "
    "processing_error reenter_transaction restricted_card revocation_of_all_authorizations revocation_of_authorization "
    "security_violation service_not_allowed stolen_card stop_payment_order testmode_decline transaction_not_allowed "
    "try_again_later withdrawal_count_limit_exceeded "
)
STRIPE_DECLINE_CODES = _CODES.split()


def enumerations(schema: object, holding: str) -> list[list[str]]:
    if isinstance(schema, Mapping):
        values: Any = schema.get("enum") or schema.get("x-known-values") or ()
        found = [list(values)] if holding in values else []
        return found + [one for part in schema.values() for one in enumerations(part, holding)]
    if isinstance(schema, list):
        return [one for part in schema for one in enumerations(part, holding)]
    return []


@pytest.mark.parametrize("code", STRIPE_DECLINE_CODES)
def test_every_documented_decline_code_of_stripe_has_its_sentence(code: str) -> None:
    assert sentence(code, stripe.DECLINES) == stripe.DECLINES[code].value


def test_the_tables_hold_no_code_that_the_vendors_do_not_have() -> None:
    theirs = vendor_file(stripe_contract.CURRENT_FILE)
    errors = set().union(*enumerations(theirs, "card_declined")) if theirs else set(stripe.DECLINES)
    ours = {"async_payment_failed", "live_mode_test_card", "test_mode_live_card"}
    assert set(stripe.DECLINES) - set(STRIPE_DECLINE_CODES) - ours <= errors
    squares = vendor_file("square-v2.openapi.json")
    codes = set().union(*enumerations(squares, "GENERIC_DECLINE")) if squares else set(square.DECLINES)
    assert set(square.DECLINES) - {"FAILED"} <= codes
    paypals = vendor_file("paypal-payments-v2.openapi.json")
    reasons = set().union(*enumerations(paypals, "BUYER_COMPLAINT")) if paypals else set(paypal.DECLINES)
    known = reasons | paypal.DECLINED | set(paypal.CAPTURE_OUTCOME) | {"DECLINED_BY_RISK_FRAUD_FILTERS"}
    assert paypal.DECLINED <= set(paypal.DECLINES) <= known
    assert reasons - {"OTHER"} <= set(paypal.DECLINES)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_an_unknown_code_is_told_in_general_with_the_code(table: Mapping[str, Decline]) -> None:
    assert sentence("a_new_code", table) == "The payment was declined; the processor's code is a_new_code."
    assert sentence(None, table) == "The payment was declined; the processor gave no reason."


def test_each_reason_is_one_sentence_or_two_and_names_no_code() -> None:
    for reason in Decline:
        assert reason.value.endswith(".")
        assert "_" not in reason.value
        assert len(reason.value) <= 160
    used = {reason for table in TABLES.values() for reason in table.values()}
    assert used == set(Decline)
    assert by_reason({Decline.FRAUD: "a b"}) == {"a": Decline.FRAUD, "b": Decline.FRAUD}
