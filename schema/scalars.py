"""Scalars, enums and value objects that all types share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from enum import Enum
from functools import lru_cache
from typing import Annotated, Any, NewType

import strawberry
from strawberry.types.scalar import ScalarDefinition

from models import locales
from models.money import CURRENCIES
from models.money import Money as Amount
from schema.describe import field

Decimal = NewType("Decimal", str)
BigInt = NewType("BigInt", str)
CurrencyCode = NewType("CurrencyCode", str)
Cursor = NewType("Cursor", str)
URL = NewType("URL", str)

value = strawberry.enum_value


def time_text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def parse_time(text: object) -> datetime:
    """Raises: ValueError."""
    if not isinstance(text, str):
        raise ValueError("A DateTime is text such as 2026-11-23T10:00:00Z.")
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and len(text) > 10:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValueError("A DateTime is text such as 2026-11-23T10:00:00Z, with Z or an offset.")


def _text(name: str, example: str, limit: int) -> Any:
    def parse(given: object) -> str:
        if not isinstance(given, str):
            raise ValueError(f"{name} is text such as {example}, not a number.")
        if len(given) > limit:
            raise ValueError(f"{name} has at most {limit} characters.")
        return given

    return parse


SCALARS_PAGE = "docs/scalars.md"  # in this repository

SCALARS: Mapping[object, ScalarDefinition] = {
    datetime: strawberry.scalar(
        name="DateTime",
        description="A point in time: RFC 3339, always UTC in answers, e.g. 2026-11-23T10:00:00Z. Inputs need Z or an"
        " offset.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339",
        serialize=time_text,
        parse_value=parse_time,
    ),
    date: strawberry.scalar(
        name="Date",
        description="A day of the account's calendar: RFC 3339's full-date, e.g. 2026-11-23.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3339#section-5.6",
        serialize=date.isoformat,
        parse_value=date.fromisoformat,
    ),
    Decimal: strawberry.scalar(
        name="Decimal",
        description="Base-10 amount as text with at most the currency's number of decimals, e.g. 125.00; never a float.",
        specified_by_url=f"{SCALARS_PAGE}#decimal",
        parse_value=_text("Decimal", '"125.00"', 40),
    ),
    BigInt: strawberry.scalar(
        name="BigInt",
        description="64-bit integer as text.",
        specified_by_url=f"{SCALARS_PAGE}#bigint",
        parse_value=_text("BigInt", '"12500"', 20),
    ),
    CurrencyCode: strawberry.scalar(
        name="CurrencyCode",
        description="ISO 4217 alphabetic code; a scalar, not an enum, so that a new currency is no schema change.",
        specified_by_url="https://www.iso.org/iso-4217-currency-codes.html",
        parse_value=_text("CurrencyCode", '"USD"', 10),
    ),
    Cursor: strawberry.scalar(
        name="Cursor",
        description=(
            "Opaque position: keyset (sort key and id) in a connection, or a position in the account's event log in a"
            " subscription; never an offset."
        ),
        specified_by_url=f"{SCALARS_PAGE}#cursor",
        parse_value=_text("Cursor", "one from an answer", 400),
    ),
    URL: strawberry.scalar(
        name="URL",
        description="An absolute URL.",
        specified_by_url="https://www.rfc-editor.org/rfc/rfc3986",
        parse_value=_text("URL", "https://…", 2000),
    ),
}


# --------------------------------------------------------------------------------------------------------- values
@strawberry.type(description="An amount of money. A value without id: a normalized cache must not key it.")
class Money:
    amount: Decimal = strawberry.field(description='Decimal text with exactly the currency\'s decimals, e.g. "125.00".')
    currency: CurrencyCode = strawberry.field(description="ISO 4217 code.")
    minor_units: BigInt = strawberry.field(
        description="Same value in the currency's smallest unit (ISO 4217: 0, 2 or 3 decimals)."
    )
    value: strawberry.Private[Amount]

    @field("The amount as a person reads it, with the currency's symbol.")
    def formatted(
        self,
        locale: Annotated[
            str | None,
            strawberry.argument(
                description=(
                    "Language and region, e.g. en-US or de-DE. An unknown region falls back to the language, an unknown"
                    " language to en-US. Default: en-US."
                )
            ),
        ] = None,
    ) -> str:
        return self.value.formatted(locale or locales.DEFAULT)


@lru_cache(maxsize=8192)
def money(amount_minor: int, currency: str) -> Money:
    """Equal values share one object: do not mutate it."""
    amount = Amount(amount_minor, currency)
    return Money(
        amount=Decimal(amount.decimal),
        currency=CurrencyCode(currency),
        minor_units=BigInt(str(amount_minor)),
        value=amount,
    )


ALL_CURRENCIES: list[CurrencyCode] = [CurrencyCode(code) for code in sorted(CURRENCIES)]


@strawberry.type(description="A page's position in its connection. A value without id.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether more follow after endCursor.")
    has_previous_page: bool = strawberry.field(description="Whether others come before startCursor.")
    start_cursor: Cursor | None = strawberry.field(description="Cursor of the first edge; null when the page is empty.")
    end_cursor: Cursor | None = strawberry.field(description="Cursor of the last edge; null when the page is empty.")


@strawberry.interface(description="An object that can be fetched again by its id.")
class Node:
    id: strawberry.ID = strawberry.field(
        description="Unique over all types: a prefix that names the type, an underscore, and more. Opaque to clients."
    )


# ----------------------------------------------------------------------------------------------------- closed sets
@strawberry.enum(description="What kind of channel a message travels on.")
class ChannelKind(Enum):
    SMS = value("SMS", description="Text message to a phone number.")
    EMAIL = value("EMAIL", description="Email.")
    WHATSAPP = value("WHATSAPP", description="WhatsApp; free text only within 24 hours of the contact's last message.")
    INSTAGRAM_DM = value("INSTAGRAM_DM", description="Instagram direct message; window of 24 hours.")
    MESSENGER = value("MESSENGER", description="Facebook Messenger; window of 24 hours.")
    WEB_CHAT = value("WEB_CHAT", description="The chat widget on the business's own site.")
    CUSTOM = value("CUSTOM", description="A plug-in's channel.")


@strawberry.enum(
    description=(
        "The stored status. Viewed, overdue, refunded and disputed are facets beside it (firstViewedAt, isOverdue,"
        " refundState, disputeState): a refund leaves PAID, so that the link can never become payable again."
    )
)
class PaymentRequestStatus(Enum):
    DRAFT = value("DRAFT", description="Created; its link works, nothing has been sent.")
    SENT = value("SENT", description="Its link went out in a message, or a copied link was opened by a person.")
    PROCESSING = value("PROCESSING", description="A payment is under way and not decided, e.g. a bank debit.")
    PARTIALLY_PAID = value("PARTIALLY_PAID", description="Part of the amount has arrived.")
    PAID = value("PAID", description="The whole amount has arrived. Final, unless a manual record is undone.")
    VOID = value("VOID", description="Cancelled by the team; the link shows a notice. Final.")


@strawberry.enum(description="How much of the paid amount was refunded.")
class RefundState(Enum):
    NONE = value("NONE", description="Nothing.")
    PARTIAL = value("PARTIAL", description="Part of the amount.")
    FULL = value("FULL", description="The whole amount.")


@strawberry.enum(description="The newest dispute (chargeback) of this request.")
class DisputeState(Enum):
    NONE = value("NONE", description="None.")
    NEEDS_RESPONSE = value(
        "NEEDS_RESPONSE", description="Undecided: the processor waits for the business's answer, or reviews it."
    )
    WON = value("WON", description="Decided for the business.")
    LOST = value("LOST", description="Decided for the payer; the money is gone, the request stays PAID.")


@strawberry.enum(description="An action on a payment request.")
class PaymentRequestAction(Enum):
    SEND = value("SEND", description="Send its link in a message.")
    COPY_LINK = value("COPY_LINK", description="Copy its link.")
    VOID = value("VOID", description="Cancel it.")
    RELEASE_LINK = value(
        "RELEASE_LINK",
        description=(
            "Let the contact pay another way although a voucher, bank debit or transfer is under way. It stays"
            " PROCESSING, unless the processor can cancel that payment."
        ),
    )
    REFUND = value("REFUND", description="Refund money.")
    RECORD_OUTSIDE_PAYMENT = value(
        "RECORD_OUTSIDE_PAYMENT", description="Record money that was received outside the link."
    )
    RESOLVE_MISMATCH = value(
        "RESOLVE_MISMATCH",
        description="Decide about money that arrived and does not count (unresolved): resolveMismatch.",
    )


@strawberry.enum(description="What moved. A payment is one movement of money at a processor, or recorded manually.")
class PaymentKind(Enum):
    CHARGE = value("CHARGE", description="Money from the contact.")
    REFUND = value("REFUND", description="Money refunded to the contact.")
    DISPUTE = value("DISPUTE", description="Money taken back by the payer's bank.")
    ADJUSTMENT = value(
        "ADJUSTMENT", description="Later details of a payment, such as its fee; a Payment never has this kind."
    )


@strawberry.enum(
    description=(
        "The status of a movement of money. A dispute that is lost is SUCCEEDED: the money is gone. One that is won is"
        " FAILED or CANCELED."
    )
)
class PaymentStatus(Enum):
    PENDING = value("PENDING", description="Submitted, not decided.")
    SUCCEEDED = value("SUCCEEDED", description="The money has moved.")
    FAILED = value("FAILED", description="Refused; no money has moved.")
    CANCELED = value("CANCELED", description="Canceled; no money has moved.")


@strawberry.enum(description="How to resolve money that differs from the request.")
class MismatchResolution(Enum):
    ACCEPT_AS_PAID = value(
        "ACCEPT_AS_PAID",
        description=(
            "The request becomes PAID. A missing part is waived (waived); a surplus is excess. For money in"
            " another currency, the whole due amount is waived."
        ),
    )
    ACCEPT_AS_PART = value(
        "ACCEPT_AS_PART",
        description=(
            "It counts as part payment: PARTIALLY_PAID, the link asks for the rest. Only for less than is due, in"
            " the request's currency."
        ),
    )
    REFUND_DIFFERENCE = value(
        "REFUND_DIFFERENCE",
        description=(
            "The surplus is refunded at the processor, and the request becomes PAID. Only for a surplus in the"
            " request's currency; for owners and admins, like refundPayment."
        ),
    )


@strawberry.enum(description="The reason for a refund.")
class RefundReason(Enum):
    DUPLICATE = value("DUPLICATE", description="It was paid twice.")
    FRAUDULENT = value("FRAUDULENT", description="The payment was fraudulent; some processors then block the card.")
    REQUESTED_BY_CONTACT = value("REQUESTED_BY_CONTACT", description="The contact asked for it.")
    SERVICE_PROBLEM = value("SERVICE_PROBLEM", description="The product was not as agreed.")
    OTHER = value("OTHER", description="Another reason.")


@strawberry.enum(description="The status of a refund.")
class RefundStatus(Enum):
    PENDING = value("PENDING", description="The processor is working on it, or is about to be called.")
    SUCCEEDED = value("SUCCEEDED", description="The processor has refunded the money.")
    FAILED = value("FAILED", description="It failed; the money stays with the business.")
    CANCELED = value("CANCELED", description="It was canceled; the money stays with the business.")
    UNKNOWN = value(
        "UNKNOWN",
        description="The processor's answer was lost: the outcome is looked up automatically, the refund is never"
        " requested twice.",
    )


@strawberry.enum(description="How money was received outside the processors.")
class OutsideMethod(Enum):
    CASH = value("CASH", description="Cash.")
    CARD = value("CARD", description="By card at a terminal that is not connected to Paythread.")
    CHEQUE = value("CHEQUE", description="Cheque.")
    BANK_TRANSFER = value("BANK_TRANSFER", description="Bank transfer.")
    OTHER = value("OTHER", description="Another way.")


@strawberry.enum(description="Which payment processor.")
class ProcessorKind(Enum):
    SANDBOX = value("SANDBOX", description="The built-in test processor; moves no money.")
    STRIPE = value("STRIPE", description="Stripe.")
    PAYPAL = value("PAYPAL", description="PayPal.")
    SQUARE = value("SQUARE", description="Square.")
    CUSTOM = value("CUSTOM", description="A plug-in's processor.")


@strawberry.enum(description="A message's direction.")
class MessageDirection(Enum):
    INBOUND = value("INBOUND", description="From the contact.")
    OUTBOUND = value("OUTBOUND", description="To the contact.")


@strawberry.enum(description="The status of a file that a contact sent.")
class AttachmentStatus(Enum):
    PENDING = value("PENDING", description="It is being fetched.")
    STORED = value("STORED", description="Stored: see url.")
    REFUSED = value("REFUSED", description="Refused: see reason.")
    FAILED = value("FAILED", description="It could not be fetched: see reason.")


@strawberry.enum(description="A message's delivery status. It never moves back.")
class DeliveryStatus(Enum):
    QUEUED = value("QUEUED", description="Stored, on its way to the provider. Inbound messages are DELIVERED.")
    SENT = value("SENT", description="The provider has accepted it.")
    DELIVERED = value("DELIVERED", description="It has reached the contact's device or mailbox.")
    READ = value("READ", description="The contact has opened it.")
    FAILED = value("FAILED", description="It has not been delivered: see failureReason.")
    UNKNOWN = value(
        "UNKNOWN",
        description=(
            "The provider may or may not have accepted it (time-out after sending); it has not failed, and it is"
            " not resent automatically."
        ),
    )


@strawberry.enum(description="Delivery of the newest message that carries a payment request's link.")
class DeliveryState(Enum):
    NOT_SENT = value("NOT_SENT", description="No message carries the link.")
    QUEUED = value("QUEUED", description="Stored, on its way to the provider.")
    SENT = value("SENT", description="The provider has accepted it.")
    DELIVERED = value("DELIVERED", description="It has reached the contact's device or mailbox.")
    READ = value("READ", description="The contact has opened the message.")
    FAILED = value("FAILED", description="The message failed; the link itself still works.")
    UNKNOWN = value("UNKNOWN", description="The provider's answer was lost.")


@strawberry.enum(description="How a request first reached the contact.")
class SentVia(Enum):
    MESSAGE = value("MESSAGE", description="In a message that Paythread sent.")
    LINK_COPIED = value("LINK_COPIED", description="By a link that was copied and pasted elsewhere.")


@strawberry.enum(description="Why an activity card was logged, or a notification made.")
class ActivityKind(Enum):
    PAYMENT_REQUEST = value("PAYMENT_REQUEST", description="The request went out; logged once per request.")
    PAYMENT_RECEIVED = value("PAYMENT_RECEIVED", description="The request is paid in full.")
    PARTIAL_PAYMENT = value("PARTIAL_PAYMENT", description="A part of the amount arrived.")
    PAYMENT_PROCESSING = value("PAYMENT_PROCESSING", description="A payment was submitted and is not decided.")
    PAYMENT_FAILED = value("PAYMENT_FAILED", description="An attempt to pay failed.")
    PAYMENT_MISMATCH = value(
        "PAYMENT_MISMATCH",
        description="Money arrived that differs in amount or currency. It does not count until the team decides.",
    )
    REQUEST_VOIDED = value("REQUEST_VOIDED", description="The request was voided.")
    REFUND_ISSUED = value("REFUND_ISSUED", description="Money was refunded.")
    REFUND_FAILED = value("REFUND_FAILED", description="A refund failed.")
    DISPUTE_OPENED = value("DISPUTE_OPENED", description="The payer's bank disputes the payment.")
    DISPUTE_CLOSED = value("DISPUTE_CLOSED", description="A dispute was decided.")
    LATE_PAYMENT = value("LATE_PAYMENT", description="Money arrived after the request was voided.")
    EXCESS_PAYMENT = value("EXCESS_PAYMENT", description="More money arrived than was requested.")
    DELIVERY_FAILED = value("DELIVERY_FAILED", description="The message with the link was not delivered.")
    RECORDED_OUTSIDE = value(
        "RECORDED_OUTSIDE", description="The team recorded money that was received outside the link."
    )
    CHECKOUT_REFUSED = value(
        "CHECKOUT_REFUSED",
        description="The contact pressed Pay, and the processor refused permanently: the text says why and what to do.",
    )
    PROCESSOR_DISCONNECTED = value(
        "PROCESSOR_DISCONNECTED",
        description="A notification, no card: the processor no longer accepts the account's credentials or has lost its permission.",
    )
    MENTIONED = value("MENTIONED", description="A notification, no card: a note mentions the user.")
    JOINED = value("JOINED", description="A notification to owners, no card: a person has accepted an invitation.")
    ASSIGNED = value(
        "ASSIGNED", description="A notification, no card: a colleague assigned the conversation to the user."
    )


@strawberry.enum(description="A remedy when nothing can be sent now.")
class HelpKind(Enum):
    TEMPLATE = value("TEMPLATE", description="Send an approved template on this channel, instead of free text.")
    OTHER_CHANNEL = value("OTHER_CHANNEL", description="Use the channel channelId: it is open for this contact.")
    CONNECT_CHANNEL = value("CONNECT_CHANNEL", description="Connect the channel: Settings → Channels.")
    CONNECT_PROCESSOR = value("CONNECT_PROCESSOR", description="Connect a payment processor: Settings → Payments.")
    ADD_ADDRESS = value("ADD_ADDRESS", description="Add the contact's address: updateContact.")
    WAIT_FOR_CONTACT = value("WAIT_FOR_CONTACT", description="Only the contact can change it, by writing.")
    ASK_ROLE = value("ASK_ROLE", description="A user with a higher role has to do it.")
    COPY_LINK = value("COPY_LINK", description="Copy checkoutUrl and send it another way.")


@strawberry.enum(description="The unit in which a channel measures a text's length.")
class LengthUnit(Enum):
    CHARACTERS = value("CHARACTERS", description="Unicode code points.")
    UTF16_UNITS = value("UTF16_UNITS", description="UTF-16 units, as JavaScript counts: most emoji count twice.")
    BYTES = value("BYTES", description="Bytes of UTF-8.")


@strawberry.enum(description="The encoding of an SMS; it decides how many characters fit into a segment.")
class SmsEncoding(Enum):
    GSM_7 = value("GSM_7", description="160 characters in one SMS, 153 in each of several; some count twice.")
    UCS_2 = value("UCS_2", description="70 characters in one SMS, 67 in each of several; emoji count twice.")


@strawberry.enum(description="The role of a user or an API key.")
class Role(Enum):
    OWNER = value("OWNER", description="Everything, API keys and users too.")
    ADMIN = value("ADMIN", description="All but API keys: also settings, channels and processors.")
    AGENT = value("AGENT", description="Work in the inbox: messages, contacts, payment requests.")
    VIEWER = value("VIEWER", description="Read only.")


@strawberry.enum(description="What a notification is about.")
class NotificationTopic(Enum):
    PAYMENTS = value("PAYMENTS", description="Money arrived, is on its way, or was refunded.")
    PROBLEMS = value(
        "PROBLEMS",
        description="What needs someone: failures, disputes, money that differs, messages that did not arrive.",
    )
    TEAM = value("TEAM", description="A note mentions the user, or a colleague assigned a conversation.")


@strawberry.enum(description="Of whose conversations a user is notified.")
class NotificationScope(Enum):
    NONE = value("NONE", description="Of none.")
    MINE = value("MINE", description="Of those assigned to the user, and of requests that the user created.")
    FOLLOWED = value("FOLLOWED", description="Of these, and of those that the user follows.")
    ALL = value("ALL", description="Of all.")


@strawberry.enum(description="How often unread notifications are emailed.")
class DigestFrequency(Enum):
    OFF = value("OFF", description="Never.")
    HOURLY = value("HOURLY", description="At most one email an hour.")
    DAILY = value("DAILY", description="One email at 8 in the morning of the account's time zone.")


@strawberry.enum(description="By what the dashboard groups its figures.")
class DashboardDimension(Enum):
    DAY = value("DAY", description="The day in the account's time zone on which it happened.")
    CHANNEL = value("CHANNEL", description="The channel on which the link was sent last.")
    AGENT = value("AGENT", description="The user who created the request.")
    PROCESSOR = value("PROCESSOR", description="The processor connection.")
    PRODUCT = value("PRODUCT", description="The product's name.")


@strawberry.enum(description="A period up to now, in the account's time zone.")
class DashboardRange(Enum):
    TODAY = value("TODAY", description="Since midnight.")
    LAST_7_DAYS = value("LAST_7_DAYS", description="Today and the six days before.")
    LAST_30_DAYS = value("LAST_30_DAYS", description="Today and the 29 days before.")
    ALL_TIME = value("ALL_TIME", description="Everything so far.")
