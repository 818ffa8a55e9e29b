"""Payloads of mutations: the object, or user errors."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry

from schema.account import Account, ApiKey, Channel, Processor, User
from schema.contact import Contact
from schema.context import Info
from schema.conversation import Conversation
from schema.notification import NotificationRules
from schema.payload_codes import answer_of
from schema.payment import Payment, Refund
from schema.payment_request import PaymentRequest
from schema.scalars import LengthUnit, SmsEncoding
from schema.thread import ActivityCard, Message, Note
from schema.user_errors import UserError, user_errors
from schema.viewer import Viewer
from services.payments.request_sending import Preview

_REFUSED = "Null: refused, see userErrors."


@strawberry.interface(description="The base of every mutation's answer.")
class MutationPayload:
    user_errors: list[UserError] = strawberry.field(
        default_factory=list,
        description=(
            "Why nothing was changed: one error for each wrong field, in the input's order. Empty: it was done."
        ),
    )


@strawberry.type(description=answer_of("createPaymentRequest"))
class CreatePaymentRequestPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(
        default=None, description="The new draft; take checkoutUrl or composerInsert. " + _REFUSED
    )


@strawberry.type(description=answer_of("sendPaymentRequest"))
class SendPaymentRequestPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(default=None, description="The request. " + _REFUSED)
    message: Message | None = strawberry.field(default=None, description="The message, QUEUED. " + _REFUSED)
    activity_card: ActivityCard | None = strawberry.field(
        default=None, description="The card PAYMENT_REQUEST; null: refused, or logged by an earlier sending."
    )


@strawberry.type(description=answer_of("voidPaymentRequest"))
class VoidPaymentRequestPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(
        default=None,
        description=("The request: VOID, or voidPending while a payment is in flight. " + _REFUSED),
    )
    activity_card: ActivityCard | None = strawberry.field(
        default=None, description="The card REQUEST_VOIDED; null: refused, or not decided yet."
    )


@strawberry.type(description=answer_of("releasePaymentLink"))
class ReleasePaymentLinkPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(
        default=None,
        description=(
            "The request, which can be paid: still PROCESSING with linkReleasedAt while the first payment may"
            " arrive, or open again if the processor canceled that payment. " + _REFUSED
        ),
    )
    activity_card: ActivityCard | None = strawberry.field(
        default=None,
        description=(
            "The card PAYMENT_PROCESSING that says so, or PAYMENT_FAILED of the canceled payment; null: refused, or it had"
            " been canceled before."
        ),
    )


@strawberry.type(description=answer_of("recordLinkCopied"))
class RecordLinkCopiedPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(default=None, description="The request. " + _REFUSED)


@strawberry.type(description=answer_of("discardPaymentRequest"))
class DiscardPaymentRequestPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(
        default=None, description="The hidden draft: remove it from lists. " + _REFUSED
    )


@strawberry.type(description=answer_of("refundPayment"))
class RefundPaymentPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(default=None, description="The request. " + _REFUSED)
    refund: Refund | None = strawberry.field(
        default=None, description="The refund, to be read again by its id or in paymentRequest. " + _REFUSED
    )
    payment: Payment | None = strawberry.field(
        default=None,
        description="The refund in the ledger; null: refused, or the processor has not reported its id yet.",
    )
    activity_card: ActivityCard | None = strawberry.field(
        default=None, description="The card REFUND_ISSUED or REFUND_FAILED; null: refused, or not decided yet."
    )
    message: Message | None = strawberry.field(
        default=None, description="The message to the contact, QUEUED; null: none (yet)."
    )


@strawberry.type(description=answer_of("recordOutsidePayment"))
class RecordOutsidePaymentPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(default=None, description="The request. " + _REFUSED)
    payment: Payment | None = strawberry.field(default=None, description="The new payment. " + _REFUSED)
    activity_card: ActivityCard | None = strawberry.field(
        default=None, description="The card RECORDED_OUTSIDE. " + _REFUSED
    )


@strawberry.type(description=answer_of("resolveMismatch"))
class ResolveMismatchPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(default=None, description="The request. " + _REFUSED)
    activity_card: ActivityCard | None = strawberry.field(
        default=None, description="The card PAYMENT_RECEIVED, PARTIAL_PAYMENT or EXCESS_PAYMENT. " + _REFUSED
    )
    refund: Refund | None = strawberry.field(
        default=None,
        description=(
            "For REFUND_DIFFERENCE: the refund; if there are several, the last one (paymentRequest.refunds has all). If it"
            " FAILED, the request is paid, and the difference is its excess. Null: no refund."
        ),
    )


@strawberry.type(description=answer_of("undoOutsidePayment"))
class UndoOutsidePaymentPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(default=None, description="The request. " + _REFUSED)
    payment: Payment | None = strawberry.field(default=None, description="The payment, CANCELED. " + _REFUSED)
    activity_card: ActivityCard | None = strawberry.field(
        default=None, description="The card that says so; null: refused, or it had been undone before."
    )


@strawberry.type(description=answer_of("sendMessage"))
class SendMessagePayload(MutationPayload):
    message: Message | None = strawberry.field(default=None, description="The message, QUEUED. " + _REFUSED)
    activity_cards: list[ActivityCard] = strawberry.field(
        default_factory=list, description="A card PAYMENT_REQUEST for each request that this message sent first."
    )


@strawberry.type(description="The message as it would go out now. " + answer_of("messagePreview"))
class MessagePreview:
    text: str = strawberry.field(description="The text, with the payment link in it.")
    length: int = strawberry.field(description="Its length in the unit of the channel's limit: see lengthUnit.")
    max_length: int | None = strawberry.field(description="The channel's limit; null: none.")
    length_unit: LengthUnit = strawberry.field(description="The unit of both.")
    fits: bool = strawberry.field(description="Whether it is within the limit; longer text is refused, never cut.")
    encoding: SmsEncoding | None = strawberry.field(description="How an SMS of it travels; null on other channels.")
    segments: int | None = strawberry.field(description="How many SMS it takes; null on other channels.")
    remaining_in_segment: int | None = strawberry.field(
        description="Characters left in the last SMS; some characters count twice. Null on other channels."
    )
    reasons_for_ucs2: list[str] = strawberry.field(
        description="The characters that force UCS_2, at most 5: without them an SMS holds more than twice as much."
    )
    user_errors: list[UserError] = strawberry.field(
        description="The errors that sending it now would give; empty: it would be accepted."
    )

    @classmethod
    async def from_preview(cls, info: Info, made: Preview) -> Self:
        found = made.measure
        return cls(
            text=made.text,
            length=found.length,
            max_length=found.max_length,
            length_unit=LengthUnit[found.unit],
            fits=found.fits,
            encoding=SmsEncoding[found.encoding] if found.encoding is not None else None,
            segments=found.segments,
            remaining_in_segment=found.remaining,
            reasons_for_ucs2=list(found.ucs2_reasons),
            user_errors=await user_errors(info, made.refusal),
        )


@strawberry.type(description=answer_of("resendMessage"))
class ResendMessagePayload(MutationPayload):
    message: Message | None = strawberry.field(
        default=None, description="The new message, QUEUED; its retryOf is the old one. " + _REFUSED
    )


@strawberry.type(description=answer_of("closeConversation"))
class CloseConversationPayload(MutationPayload):
    conversation: Conversation | None = strawberry.field(default=None, description="The conversation. " + _REFUSED)


@strawberry.type(description=answer_of("reopenConversation"))
class ReopenConversationPayload(MutationPayload):
    conversation: Conversation | None = strawberry.field(default=None, description="The conversation. " + _REFUSED)


@strawberry.type(description=answer_of("markConversationRead"))
class MarkConversationReadPayload(MutationPayload):
    conversation: Conversation | None = strawberry.field(default=None, description="The conversation. " + _REFUSED)


@strawberry.type(description=answer_of("assignConversation"))
class AssignConversationPayload(MutationPayload):
    conversation: Conversation | None = strawberry.field(default=None, description="The conversation. " + _REFUSED)


@strawberry.type(description=answer_of("followConversation"))
class FollowConversationPayload(MutationPayload):
    conversation: Conversation | None = strawberry.field(default=None, description="The conversation. " + _REFUSED)


@strawberry.type(description=answer_of("saveDraft"))
class SaveDraftPayload(MutationPayload):
    conversation: Conversation | None = strawberry.field(default=None, description="The conversation. " + _REFUSED)


@strawberry.type(description=answer_of("addNote"))
class AddNotePayload(MutationPayload):
    note: Note | None = strawberry.field(default=None, description="The note in the thread. " + _REFUSED)


@strawberry.type(description=answer_of("updateConversationTags"))
class UpdateConversationTagsPayload(MutationPayload):
    conversation: Conversation | None = strawberry.field(default=None, description="The conversation. " + _REFUSED)


@strawberry.type(description=answer_of("updateContactTags"))
class UpdateContactTagsPayload(MutationPayload):
    contact: Contact | None = strawberry.field(default=None, description="The contact. " + _REFUSED)


@strawberry.type(description=answer_of("createContact"))
class CreateContactPayload(MutationPayload):
    contact: Contact | None = strawberry.field(default=None, description="The new contact. " + _REFUSED)


@strawberry.type(description=answer_of("updateContact"))
class UpdateContactPayload(MutationPayload):
    contact: Contact | None = strawberry.field(default=None, description="The contact. " + _REFUSED)


@strawberry.type(description=answer_of("mergeContacts"))
class MergeContactsPayload(MutationPayload):
    contact: Contact | None = strawberry.field(
        default=None, description="The contact that is kept, with what both had. " + _REFUSED
    )


@strawberry.type(description=answer_of("updateAccount"))
class UpdateAccountPayload(MutationPayload):
    account: Account | None = strawberry.field(default=None, description="The account. " + _REFUSED)


@strawberry.type(description=answer_of("configureProcessor"))
class ConfigureProcessorPayload(MutationPayload):
    processor: Processor | None = strawberry.field(default=None, description="The connection. " + _REFUSED)


@strawberry.type(description=answer_of("testProcessor"))
class TestProcessorPayload(MutationPayload):
    processor: Processor | None = strawberry.field(
        default=None,
        description="The connection, also if the processor refused or did not answer; the user error is then its"
        " lastError.",
    )


@strawberry.type(description=answer_of("disconnectProcessor"))
class DisconnectProcessorPayload(MutationPayload):
    processor: Processor | None = strawberry.field(default=None, description="The connection. " + _REFUSED)


@strawberry.type(description=answer_of("connectChannel"))
class ConnectChannelPayload(MutationPayload):
    channel: Channel | None = strawberry.field(default=None, description="The channel. " + _REFUSED)


@strawberry.type(description=answer_of("testChannel"))
class TestChannelPayload(MutationPayload):
    channel: Channel | None = strawberry.field(
        default=None,
        description="The channel, also if its provider refused or did not answer; the user error is then its lastError.",
    )


@strawberry.type(description=answer_of("disconnectChannel"))
class DisconnectChannelPayload(MutationPayload):
    channel: Channel | None = strawberry.field(default=None, description="The channel. " + _REFUSED)


@strawberry.type(description=answer_of("rotateIdentitySecret"))
class RotateIdentitySecretPayload(MutationPayload):
    channel: Channel | None = strawberry.field(default=None, description="The web chat. " + _REFUSED)
    secret: str | None = strawberry.field(
        default=None,
        description=(
            "Its new identity secret, shown only here, and for a repeat with the same idempotencyKey. Null:"
            " refused, see userErrors, or rotated again since."
        ),
    )


@strawberry.type(description=answer_of("updateNotificationRules"))
class UpdateNotificationRulesPayload(MutationPayload):
    notification_rules: NotificationRules | None = strawberry.field(
        default=None, description="All rules as they are now. " + _REFUSED
    )


@strawberry.type(description=answer_of("markNotificationsRead"))
class MarkNotificationsReadPayload(MutationPayload):
    viewer: Viewer | None = strawberry.field(
        default=None, description="The viewer, with the number of unread notifications. " + _REFUSED
    )


@strawberry.interface(description="A sign-in's tokens. All null: refused, see userErrors.")
class SessionPayload(MutationPayload):
    access_token: str | None = strawberry.field(
        default=None, description="Send it as Authorization: Bearer …, over HTTP and in connection_init. " + _REFUSED
    )
    access_token_expires_at: datetime | None = strawberry.field(
        default=None, description="Refresh before this moment. " + _REFUSED
    )
    refresh_token: str | None = strawberry.field(
        default=None, description="For refreshSession: works once; each answer brings a new one. " + _REFUSED
    )
    refresh_token_expires_at: datetime | None = strawberry.field(
        default=None, description="Sign in again after this moment. " + _REFUSED
    )
    user: User | None = strawberry.field(default=None, description="Who signed in. " + _REFUSED)


@strawberry.type(description=answer_of("signIn"))
class SignInPayload(SessionPayload):
    pass


@strawberry.type(description=answer_of("refreshSession"))
class RefreshSessionPayload(SessionPayload):
    pass


@strawberry.type(description=answer_of("signOut"))
class SignOutPayload(MutationPayload):
    signed_out: bool = strawberry.field(default=False, description="Whether the sign-in has ended.")


@strawberry.type(description=answer_of("createApiKey"))
class CreateApiKeyPayload(MutationPayload):
    api_key: ApiKey | None = strawberry.field(default=None, description="The new key. " + _REFUSED)
    secret: str | None = strawberry.field(
        default=None,
        description=(
            "Its secret, shown only here. Null: refused, see userErrors, or a repeat with the same"
            " idempotencyKey: the secret is not stored; revoke the key if the first answer is lost."
        ),
    )


@strawberry.type(description=answer_of("revokeApiKey"))
class RevokeApiKeyPayload(MutationPayload):
    api_key: ApiKey | None = strawberry.field(default=None, description="The key. " + _REFUSED)
