"""Reasons why payments fail, each with a sentence for the team, never for contacts. Each processor's file maps its codes to them."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class Decline(StrEnum):
    """A reason. The value is its sentence."""

    INSUFFICIENT_FUNDS = "The bank declined the payment: insufficient funds."
    OVER_LIMIT = "The bank declined the payment: it is over a limit of the card or account."
    TOO_MANY_TRIES = "The card was tried too often: the contact has to wait or use another one."
    EXPIRED = "The card has expired."
    WRONG_NUMBER = "The card number was not right."
    WRONG_EXPIRY = "The expiry date was not right."
    WRONG_CVC = "The security code (CVC) was not right."
    WRONG_PIN = "The PIN was missing or not right."
    WRONG_ADDRESS = "The billing address or postal code did not match the card's."
    WRONG_DETAILS = "Something that was entered for the card or account was not right."
    NO_ACCOUNT = "The card or bank account is closed, or does not exist."
    NOT_SUPPORTED = "The card or account does not support this kind of payment."
    WRONG_CURRENCY = "The card or account does not support this currency."
    NOT_AUTHENTICATED = "The bank's check of the payer (such as 3-D Secure) was not passed."
    LOST_OR_STOLEN = "The card was reported lost or stolen. Do not tell the contact this reason."
    FRAUD = "The bank or the processor suspects fraud. Do not tell the contact this reason."
    ASK_THE_BANK = (
        "The bank declined the payment and gave no reason: the contact has to ask the bank or use another card."
    )
    REVOKED = "The payer has stopped this payment at the bank or withdrawn the permission for it."
    ABANDONED = "The payer did not finish the payment in time, or stopped it."
    DUPLICATE = "The bank declined the payment because it saw an equal one a moment before."
    TRY_AGAIN = "The bank or the processor had a fault: trying again may work."
    NOT_CARRIED_OUT = "The payer's bank did not carry out the payment."
    ANOTHER_WAY = "The payer's way to pay was refused: the contact has to choose another one."
    PAYER_ACCOUNT = "The payer's account at the processor is locked, limited or closed."
    OUR_RULES = "A rule or limit of your own account at the processor blocked the payment."
    TEST_CARD = "A test card was used for real money, or a real card in test mode."


def sentence(code: str | None, known: Mapping[str, Decline]) -> str:
    """The code's sentence. For an unknown code, a general one that includes the code."""
    if code is None:
        return "The payment was declined; the processor gave no reason."
    reason = known.get(code)
    return reason.value if reason is not None else f"The payment was declined; the processor's code is {code}."


def by_reason(groups: Mapping[Decline, str]) -> Mapping[str, Decline]:
    """Map codes to reasons; each reason's codes are separated by spaces."""
    return {code: reason for reason, codes in groups.items() for code in codes.split()}
