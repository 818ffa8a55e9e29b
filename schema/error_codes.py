"""Codes of user errors."""

from __future__ import annotations

from enum import Enum

import strawberry

from schema.scalars import value


@strawberry.enum(description="Why a mutation was refused: a stable code for programs; the message is for people.")
class UserErrorCode(Enum):
    BLANK = value("BLANK", description="A field that must have content is blank.")
    TOO_LONG = value("TOO_LONG", description="A text is longer than allowed.")
    INVALID = value("INVALID", description="A value is not valid.")
    NOT_FOUND = value("NOT_FOUND", description="There is nothing with this id in your account.")
    FORBIDDEN = value("FORBIDDEN", description="Your role does not allow this.")
    AMOUNT_TOO_SMALL = value("AMOUNT_TOO_SMALL", description="Below the smallest amount that can be paid.")
    AMOUNT_TOO_LARGE = value("AMOUNT_TOO_LARGE", description="Above the largest amount that can be paid.")
    CURRENCY_NOT_SUPPORTED = value("CURRENCY_NOT_SUPPORTED", description="The processor does not take this currency.")
    CHANNEL_NOT_SUPPORTED = value(
        "CHANNEL_NOT_SUPPORTED",
        description="The channel's provider is not installed here, or its credentials can't be read.",
    )
    CHANNEL_NOT_CONNECTED = value("CHANNEL_NOT_CONNECTED", description="The channel is not connected.")
    NO_PROCESSOR_CONFIGURED = value("NO_PROCESSOR_CONFIGURED", description="No payment processor is ready to use.")
    PROCESSOR_REJECTED = value("PROCESSOR_REJECTED", description="The payment processor refused.")
    PROCESSOR_UNAVAILABLE = value("PROCESSOR_UNAVAILABLE", description="The payment processor does not answer now.")
    MESSAGING_WINDOW_CLOSED = value(
        "MESSAGING_WINDOW_CLOSED", description="The contact has not written on this channel recently enough."
    )
    CONTACT_OPTED_OUT = value("CONTACT_OPTED_OUT", description="The contact does not want messages on this channel.")
    CONTACT_HAS_NO_ADDRESS = value("CONTACT_HAS_NO_ADDRESS", description="The contact has no address on this channel.")
    ALREADY_PAID = value("ALREADY_PAID", description="The payment request is already paid.")
    ALREADY_VOID = value("ALREADY_VOID", description="The payment request has been voided.")
    ALREADY_SENT = value("ALREADY_SENT", description="The draft was sent, copied or opened: void it instead.")
    ALREADY_USED = value("ALREADY_USED", description="Another object has this value already.")
    NOT_REFUNDABLE = value("NOT_REFUNDABLE", description="The payment can't be refunded here.")
    REFUND_EXCEEDS_PAYMENT = value("REFUND_EXCEEDS_PAYMENT", description="More than what is left of the payment.")
    NOTHING_TO_RESOLVE = value("NOTHING_TO_RESOLVE", description="No money of the request waits for a decision.")
    RESOLUTION_NOT_POSSIBLE = value(
        "RESOLUTION_NOT_POSSIBLE",
        description="The resolution does not fit the money that arrived; the message says why.",
    )
    PAYMENT_IN_PROGRESS = value("PAYMENT_IN_PROGRESS", description="A payment of this request is under way.")
    CONFIRMATION_REQUIRED = value(
        "CONFIRMATION_REQUIRED", description="Repeat the mutation with the confirmation that `field` names."
    )
    VERSION_CONFLICT = value("VERSION_CONFLICT", description="The object has changed since you read it.")
    LIMIT_REACHED = value(
        "LIMIT_REACHED", description="There are already as many as possible; the message says how many."
    )
    LAST_OWNER = value(
        "LAST_OWNER", description="The account's last active OWNER stays: make another user OWNER first."
    )
    MAIL_NOT_CONFIGURED = value("MAIL_NOT_CONFIGURED", description="This installation sends no emails.")
    LINK_INVALID = value(
        "LINK_INVALID",
        description="The token of an emailed link is unknown, used, revoked or expired: always the same error.",
    )
    SIGN_IN_FAILED = value("SIGN_IN_FAILED", description="Email address, password or refresh token is wrong.")
    RATE_LIMITED = value("RATE_LIMITED", description="Too many attempts: wait.")
    IDEMPOTENCY_CONCURRENT_REQUEST = value(
        "IDEMPOTENCY_CONCURRENT_REQUEST", description="The same request is still running: ask again in a moment."
    )
    IDEMPOTENCY_KEY_PARAMETER_MISMATCH = value(
        "IDEMPOTENCY_KEY_PARAMETER_MISMATCH", description="This idempotency key was used with other arguments."
    )
