"""Reasons why payments fail, as sentences for the team, never for contacts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Decline(StrEnum):
    """A reason and its sentence."""

    INSUFFICIENT_FUNDS = "The bank declined the payment: insufficient funds."
    OVER_LIMIT = "The bank declined the payment: it exceeds a limit of the card or account."
    TOO_MANY_TRIES = "Too many attempts with this card: the contact must wait or use another one."
    EXPIRED = "The card has expired."
    WRONG_NUMBER = "The card number is incorrect."
    WRONG_EXPIRY = "The expiry date is incorrect."
    WRONG_CVC = "The security code (CVC) is incorrect."
    WRONG_PIN = "The PIN is missing or incorrect."
    WRONG_ADDRESS = "The billing address or postal code does not match the card's."
    WRONG_DETAILS = "A detail of the card or account is incorrect."
    NO_ACCOUNT = "The card or bank account is closed, or does not exist."
    NOT_SUPPORTED = "The card or account does not support this kind of payment."
    WRONG_CURRENCY = "The card or account does not support this currency."
    NOT_AUTHENTICATED = "The payer did not pass the bank's authentication (such as 3-D Secure)."
    LOST_OR_STOLEN = "The card was reported lost or stolen. Do not tell the contact this reason."
    FRAUD = "The bank or the processor suspects fraud. Do not tell the contact this reason."
    ASK_THE_BANK = (
        "The bank declined the payment and gave no reason: the contact must ask the bank or use another card."
    )
    REVOKED = "The payer stopped this payment at the bank or withdrew the permission for it."
    ABANDONED = "The payer did not finish the payment in time, or stopped it."
    DUPLICATE = "The bank declined the payment because it looks like a duplicate of a recent one."
    TRY_AGAIN = "The bank or the processor had an error: trying again may work."
    NOT_CARRIED_OUT = "The payer's bank did not carry out the payment."
    ANOTHER_WAY = "The payment method was refused: the contact must choose another one."
    PAYER_ACCOUNT = "The payer's account at the processor is locked, limited or closed."
    OUR_RULES = "A rule or limit of your own account at the processor blocked the payment."
    TEST_CARD = "A test card was used for real money, or a real card in test mode."


def sentence(code: str | None, known: Mapping[str, Decline]) -> str:
    if code is None:
        return "The payment was declined; the processor gave no reason."
    reason = known.get(code)
    return reason.value if reason is not None else f"The payment was declined; the processor's code is {code}."


def by_reason(groups: Mapping[Decline, str]) -> Mapping[str, Decline]:
    """Map each code to its reason; codes are separated by spaces."""
    return {code: reason for reason, codes in groups.items() for code in codes.split()}
