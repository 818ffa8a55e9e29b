"""The inputs of mutations and the filters of lists. What is allowed in them is decided in services; here only names and descriptions."""

from __future__ import annotations

from datetime import datetime

import strawberry

from schema.context import RequestFilter
from schema.describe import limited
from schema.scalars import (
    ChannelKind,
    CurrencyCode,
    Decimal,
    MismatchResolution,
    OutsideMethod,
    PaymentRequestStatus,
    ProcessorKind,
    RefundReason,
    Role,
)
from services.accounts import accounts, authentication
from services.connections import allowed_origins as allowed_origins_service
from services.connections import channel_settings, processor_settings
from services.core import validation
from services.messaging import composer, contacts, conversations, messages
from services.messaging.composer import Template
from services.payments import offline_payments, payment_requests, voids

_KEY = (
    "8 to 64 characters of your choice, e.g. a UUID: the same key and input again gives the same object and does nothing"
    " twice. Kept for 24 hours or longer."
)
_OPTIONAL_KEY = _KEY + " Left out: a repeat is done again."
_REQUEST = "The payment request."
_CONVERSATION = "The conversation."


@strawberry.input(description="An amount to ask for.")
class MoneyInput:
    amount: Decimal = strawberry.field(
        description='Decimal text, e.g. "125.00"; more decimals than the currency has are INVALID, never rounded.'
    )
    currency: CurrencyCode | None = strawberry.field(default=None, description="Default: the account's currency.")


@strawberry.input(description="Which payment requests of the account. Conditions left out do not restrict.")
class PaymentRequestFilter:
    status: list[PaymentRequestStatus] | None = strawberry.field(default=None, description="Any of these statuses.")
    overdue: bool | None = strawberry.field(default=None, description="Only overdue ones, or only others.")
    created_after: datetime | None = strawberry.field(default=None, description="Made at this moment or later.")
    created_before: datetime | None = strawberry.field(default=None, description="Made before this moment.")
    test_mode: bool | None = strawberry.field(default=None, description="Only test requests, or only live ones.")
    search: str | None = strawberry.field(
        default=None,
        description=(
            "Part of the number or of the product's name, or what the search of contacts takes, without regard to case and"
            " accents; or the amount, with or without its currency (125, 1,250.00, EUR 99). At most 100 characters."
        ),
    )

    def to_filter(self) -> RequestFilter:
        """For the reads."""
        return RequestFilter(
            status=tuple(status.name for status in self.status) if self.status is not None else None,
            overdue=self.overdue,
            created_after=self.created_after,
            created_before=self.created_before,
            test_mode=self.test_mode,
            search=self.search,
        )


# ---------------------------------------------------------------------------------------------------- payment requests
@strawberry.input(description="What the payment request dialog holds.")
class CreatePaymentRequestInput:
    idempotency_key: str = strawberry.field(description=_KEY)
    contact_id: strawberry.ID = strawberry.field(description="Who shall pay.")
    conversation_id: strawberry.ID | None = strawberry.field(
        default=None, description="The contact's conversation; it may be left out, the contact decides it."
    )
    channel_id: strawberry.ID | None = strawberry.field(
        default=None, description="The channel it is meant for; nothing is sent."
    )
    product_name: str = strawberry.field(description=limited("What is charged for.", payment_requests.NAME_LIMIT))
    amount: MoneyInput = strawberry.field(description="How much.")
    description: str | None = strawberry.field(
        default=None,
        description=limited("More about it, shown on the checkout page.", payment_requests.DESCRIPTION_LIMIT),
    )
    due_at: datetime | None = strawberry.field(
        default=None,
        description=(
            "Until when it should be paid. For a last day, give the midnight that ends it in the account's time zone: pages"
            " then name that day."
        ),
    )
    processor: ProcessorKind | None = strawberry.field(default=None, description="Default: the account's default.")
    processor_id: strawberry.ID | None = strawberry.field(
        default=None, description="A certain connection, where several of one kind are connected."
    )


@strawberry.input(description="What stands in one place of a template.")
class TemplateVariableInput:
    name: str = strawberry.field(
        description=limited("The place's name, e.g. 1: letters, digits and _.", composer.VARIABLE_NAME_LIMIT)
    )
    value: str = strawberry.field(
        description=limited(
            "One line. Where a payment request is sent, the marks {link} {amount} {product} {number} {business} are filled in,"
            " and {token}: the link's last part, for a template's URL button.",
            composer.VARIABLE_LIMIT,
        )
    )


@strawberry.input(
    description=(
        "An approved template, which the contact gets in place of free text: accepted where the channel's capability says"
        " templates, also while the window for free text is closed."
    )
)
class MessageTemplateInput:
    id: str = strawberry.field(
        description=limited("The vendor's id of it, e.g. Twilio's ContentSid (HX…).", composer.TEMPLATE_ID_LIMIT)
    )
    variables: list[TemplateVariableInput] | None = strawberry.field(
        default=None,
        description="What stands in its places, at most 20; one must carry the payment link, if there is one.",
    )

    def to_template(self) -> Template:
        """For the services."""
        return Template(id=self.id, variables=tuple((given.name, given.value) for given in self.variables or ()))


@strawberry.input(description="Which request to send, and where.")
class SendPaymentRequestInput:
    idempotency_key: str = strawberry.field(description=_KEY)
    payment_request_id: strawberry.ID = strawberry.field(description=_REQUEST)
    channel_id: strawberry.ID = strawberry.field(description="The channel to send it on.")
    body: str | None = strawberry.field(
        default=None,
        description=limited(
            "Text around the link; {link} marks its place. Default: the account's template.", messages.BODY_LIMIT
        ),
    )
    template: MessageTemplateInput | None = strawberry.field(
        default=None, description="What the contact gets in place of the text, which the thread shows."
    )


@strawberry.input(description="Which request to void.")
class VoidPaymentRequestInput:
    payment_request_id: strawberry.ID = strawberry.field(description=_REQUEST)
    reason: str | None = strawberry.field(default=None, description=limited("Why, for the team.", voids.REASON_LIMIT))
    expected_version: int | None = strawberry.field(
        default=None, description="The version that you saw; another one gives VERSION_CONFLICT."
    )
    confirm_partially_paid: bool = strawberry.field(
        default=False,
        description="Needed for a PARTIALLY_PAID request and for one with unresolved money, else CONFIRMATION_REQUIRED.",
    )


@strawberry.input(description="Whose link to free.")
class ReleasePaymentLinkInput:
    idempotency_key: str = strawberry.field(description=_KEY)
    payment_request_id: strawberry.ID = strawberry.field(description=_REQUEST)


@strawberry.input(description="Whose link was copied.")
class RecordLinkCopiedInput:
    payment_request_id: strawberry.ID = strawberry.field(description=_REQUEST)


@strawberry.input(description="Which draft to hide.")
class DiscardPaymentRequestInput:
    payment_request_id: strawberry.ID = strawberry.field(description=_REQUEST)


@strawberry.input(description="Which payment to give back, and how much of it.")
class RefundPaymentInput:
    idempotency_key: str = strawberry.field(description=_KEY)
    payment_id: strawberry.ID = strawberry.field(description="A payment of kind CHARGE that has succeeded.")
    amount: Decimal | None = strawberry.field(
        default=None, description="Decimal text in the payment's currency. Default: all that is left of it."
    )
    reason: RefundReason = strawberry.field(description="Why.")
    tell_contact_on: strawberry.ID | None = strawberry.field(
        default=None, description="The channel on which the contact gets a message about it. Default: no message."
    )


@strawberry.input(description="Money that came another way.")
class RecordOutsidePaymentInput:
    idempotency_key: str = strawberry.field(description=_KEY)
    payment_request_id: strawberry.ID = strawberry.field(description="The payment request that it is for.")
    method: OutsideMethod = strawberry.field(description="How it came.")
    amount: Decimal | None = strawberry.field(
        default=None, description="Decimal text in the request's currency, at most what is due. Default: what is due."
    )
    note: str | None = strawberry.field(default=None, description=limited("For the team.", offline_payments.NOTE_LIMIT))
    received_at: datetime | None = strawberry.field(default=None, description="When it came. Default: now.")


@strawberry.input(description="What becomes of a request's unresolved money.")
class ResolveMismatchInput:
    idempotency_key: str = strawberry.field(description=_KEY)
    payment_request_id: strawberry.ID = strawberry.field(
        description="The payment request. The decision is about all its unresolved money; what arrives later waits for another."
    )
    resolution: MismatchResolution = strawberry.field(description="The decision.")


@strawberry.input(description="Which record to undo.")
class UndoOutsidePaymentInput:
    payment_id: strawberry.ID = strawberry.field(description="A payment that was recorded by hand.")


# ------------------------------------------------------------------------------------------- messages, conversations
@strawberry.input(description="What the message box holds.")
class SendMessageInput:
    idempotency_key: str = strawberry.field(description=_KEY)
    conversation_id: strawberry.ID = strawberry.field(description=_CONVERSATION)
    channel_id: strawberry.ID = strawberry.field(description="The channel to send it on.")
    body: str = strawberry.field(
        description=limited("The text; links of ours in it are bound to their requests.", messages.BODY_LIMIT)
    )
    subject: str | None = strawberry.field(
        default=None, description=limited("For e-mail: the subject line.", messages.SUBJECT_LIMIT)
    )
    cc: list[str] | None = strawberry.field(
        default=None,
        description=(
            "For e-mail: addresses that get a copy, no more than ConversationChannel.maxCc; Conversation.suggestedCc is a reply"
            " to all. The contact's and the account's own addresses are left out. Everyone who gets a payment link can pay with"
            f" it. {limited('Each:', validation.EMAIL_LIMIT)}"
        ),
    )
    template: MessageTemplateInput | None = strawberry.field(
        default=None, description="What the contact gets in place of the text, which the thread shows."
    )


@strawberry.input(description="A message that is being written.")
class MessagePreviewInput:
    conversation_id: strawberry.ID = strawberry.field(description=_CONVERSATION)
    channel_id: strawberry.ID = strawberry.field(description="The channel that it is written for.")
    body: str | None = strawberry.field(
        default=None,
        description=limited(
            "The text. With a payment request {link} marks the link's place, and the default is the account's template.",
            messages.BODY_LIMIT,
        ),
    )
    payment_request_id: strawberry.ID | None = strawberry.field(
        default=None, description="The payment request that goes out with it, as sendPaymentRequest would send it."
    )
    template: MessageTemplateInput | None = strawberry.field(
        default=None, description="What the contact would get in place of the text."
    )


@strawberry.input(description="A message to send again.")
class ResendMessageInput:
    idempotency_key: str = strawberry.field(description=_KEY)
    message_id: strawberry.ID = strawberry.field(description="The message: FAILED or UNKNOWN, from the team.")
    channel_id: strawberry.ID = strawberry.field(description="The channel to send it on: one of its resendOptions.")
    confirm_possible_duplicate: bool = strawberry.field(
        default=False,
        description="Of an UNKNOWN message: send it although the contact may get it twice.",
    )


@strawberry.input(description="Which conversation to close: it is done with.")
class CloseConversationInput:
    conversation_id: strawberry.ID = strawberry.field(description=_CONVERSATION)


@strawberry.input(description="Which conversation to open again.")
class ReopenConversationInput:
    conversation_id: strawberry.ID = strawberry.field(description=_CONVERSATION)


@strawberry.input(description="Which conversation was read.")
class MarkConversationReadInput:
    conversation_id: strawberry.ID = strawberry.field(description=_CONVERSATION)


@strawberry.input(description="Who shall look after a conversation.")
class AssignConversationInput:
    conversation_id: strawberry.ID = strawberry.field(description=_CONVERSATION)
    user_id: strawberry.ID | None = strawberry.field(default=None, description="The user; null: nobody.")


@strawberry.input(description="Whether the viewer follows a conversation.")
class FollowConversationInput:
    conversation_id: strawberry.ID = strawberry.field(description=_CONVERSATION)
    following: bool = strawberry.field(description="True: be told of its payments; false: no more.")


@strawberry.input(description="The team's unsent text.")
class SaveDraftInput:
    conversation_id: strawberry.ID = strawberry.field(description=_CONVERSATION)
    text: str | None = strawberry.field(
        default=None, description=limited("The text; null or blank: no draft.", conversations.DRAFT_LIMIT)
    )


# ------------------------------------------------------------------------------------------------------------ contacts
@strawberry.input(description="The contact's identity on one kind of channel.")
class ContactAddressInput:
    kind: ChannelKind = strawberry.field(description="The kind of channel.")
    address: str = strawberry.field(
        description=limited("Phone number, e-mail address or the provider's id.", validation.ADDRESS_LIMIT)
    )


@strawberry.input(description="A new contact. Its conversation is made with it.")
class CreateContactInput:
    idempotency_key: str | None = strawberry.field(default=None, description=_OPTIONAL_KEY)
    name: str = strawberry.field(description=limited("The person's name.", contacts.NAME_LIMIT))
    email: str | None = strawberry.field(
        default=None, description=limited("E-mail address; also the address of EMAIL.", validation.EMAIL_LIMIT)
    )
    phone: str | None = strawberry.field(
        default=None,
        description=limited(
            "Phone number; without a country code one of the account's. For SMS and WHATSAPP.", validation.PHONE_LIMIT
        ),
    )
    addresses: list[ContactAddressInput] | None = strawberry.field(
        default=None, description="Identities on further channels; one per kind."
    )


@strawberry.input(description="What to change of a contact. Fields left out stay.")
class UpdateContactInput:
    contact_id: strawberry.ID = strawberry.field(description="The contact.")
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("The person's name.", contacts.NAME_LIMIT)
    )
    email: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("E-mail address; null: unknown.", validation.EMAIL_LIMIT)
    )
    phone: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("Phone number; null: unknown.", validation.PHONE_LIMIT)
    )
    addresses: list[ContactAddressInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Identities to set; kinds left out stay."
    )


@strawberry.input(description="Two contacts that are one person.")
class MergeContactsInput:
    idempotency_key: str = strawberry.field(description=_KEY)
    contact_id: strawberry.ID = strawberry.field(description="The contact that is kept.")
    merged_contact_id: strawberry.ID = strawberry.field(
        description="The contact that is merged into it. Its ids answer as the kept one's from then on."
    )
    addresses: list[ContactAddressInput] | None = strawberry.field(
        default=None,
        description=(
            "Of kinds on which both have an address: the one that messages go to. Left out: the one that the person wrote from"
            " last."
        ),
    )


# ------------------------------------------------------------------------------------------------------------ settings
@strawberry.input(description="What to change of the account. Fields left out stay.")
class UpdateAccountInput:
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("The business's name.", accounts.NAME_LIMIT)
    )
    default_currency: CurrencyCode | None = strawberry.field(
        default=strawberry.UNSET, description="Currency of new payment requests."
    )
    locale: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=limited(
            "Language and region, e.g. en-US: how messages, cards and pages write amounts and dates.",
            accounts.LOCALE_LIMIT,
        ),
    )
    time_zone: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=limited("Name of an IANA zone or link, e.g. Europe/Berlin.", accounts.TIME_ZONE_LIMIT),
    )
    contact_email: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("Shown on checkout pages; null: none.", validation.EMAIL_LIMIT)
    )
    contact_phone: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("Shown on checkout pages; null: none.", validation.PHONE_LIMIT)
    )
    link_message_template: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=limited("Text that goes with a link; it needs {link} exactly once.", accounts.LINK_MESSAGE_LIMIT),
    )
    number_prefix: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("What new numbers begin with.", accounts.PREFIX_LIMIT)
    )


@strawberry.input(description="One value that a processor's or channel's provider needs.")
class CredentialInput:
    name: str = strawberry.field(description="Its name in the provider's documentation, e.g. client_id.")
    value: str = strawberry.field(description=limited("The value. Write-only.", processor_settings.SECRET_LIMIT))


@strawberry.input(description="How to reach a payment processor. Secrets are write-only.")
class ConfigureProcessorInput:
    kind: ProcessorKind = strawberry.field(description="Which processor.")
    provider: str | None = strawberry.field(
        default=None, description="The plug-in's name, for kind CUSTOM only; any other kind names its own."
    )
    processor_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The connection to change. Default: the one of the same kind and mode, else a new one.",
    )
    display_name: str | None = strawberry.field(
        default=None, description=limited("What the team calls it.", processor_settings.NAME_LIMIT)
    )
    test_mode: bool | None = strawberry.field(
        default=None,
        description="Test or live. Default: what the keys say. Needed where they say nothing, as PayPal's and Square's.",
    )
    credentials: list[CredentialInput] | None = strawberry.field(
        default=None,
        description="What the processor needs, by the names in docs/howto/connect-processors.md; those left out stay.",
    )
    secret_key: str | None = strawberry.field(
        default=None, description=limited("Short for the credential secret_key.", processor_settings.SECRET_LIMIT)
    )
    webhook_secret: str | None = strawberry.field(
        default=None,
        description=limited(
            "Short for the credential webhook_secret. Where nobody gives the secret of a webhook, one is registered at the"
            " processor if it allows that; without one its webhooks are refused.",
            processor_settings.SECRET_LIMIT,
        ),
    )
    make_default: bool | None = strawberry.field(default=None, description="Whether new requests shall use it.")


@strawberry.input(description="Which processor to test.")
class TestProcessorInput:
    processor_id: strawberry.ID = strawberry.field(description="The connection.")


@strawberry.input(description="Which processor to disconnect.")
class DisconnectProcessorInput:
    processor_id: strawberry.ID = strawberry.field(description="The connection.")


@strawberry.input(description="How to reach a channel's provider.")
class ConnectChannelInput:
    idempotency_key: str | None = strawberry.field(default=None, description=_OPTIONAL_KEY)
    kind: ChannelKind = strawberry.field(description="What kind of channel.")
    provider: str = strawberry.field(description="The adapter, e.g. twilio_sms or simulated.")
    channel_id: strawberry.ID | None = strawberry.field(
        default=None, description="The connection to change. Default: a new one."
    )
    display_name: str | None = strawberry.field(
        default=None, description=limited("What the team calls it.", channel_settings.NAME_LIMIT)
    )
    sender: str | None = strawberry.field(
        default=None, description=limited("Our own address on it, e.g. the phone number.", validation.ADDRESS_LIMIT)
    )
    credentials: list[CredentialInput] | None = strawberry.field(
        default=None, description="What the provider needs; those left out stay."
    )
    allowed_origins: list[str] | None = strawberry.field(
        default=None,
        description=limited(
            "Web chat only: the sites that may show the widget, e.g. https://shop.example, https://*.example.com or"
            f" http://localhost:3000. Empty: none may. Left out: as it was. At most {allowed_origins_service.LIMIT} sites.",
            allowed_origins_service.LONGEST,
        ),
    )


@strawberry.input(description="Which channel to test.")
class TestChannelInput:
    channel_id: strawberry.ID = strawberry.field(description="The channel.")


@strawberry.input(description="Which channel to disconnect.")
class DisconnectChannelInput:
    channel_id: strawberry.ID = strawberry.field(description="The channel.")


@strawberry.input(description="Which web chat gets a new identity secret.")
class RotateIdentitySecretInput:
    idempotency_key: str | None = strawberry.field(default=None, description=_OPTIONAL_KEY)
    channel_id: strawberry.ID = strawberry.field(description="The channel.")


# ------------------------------------------------------------------------------------------------------------- access
@strawberry.input(description="Who signs in.")
class SignInInput:
    email: str = strawberry.field(description=limited("The user's e-mail address.", validation.EMAIL_LIMIT))
    password: str = strawberry.field(description=limited("The password.", authentication.PASSWORD_LIMIT))


@strawberry.input(description="What renews a sign-in.")
class RefreshInput:
    refresh_token: str = strawberry.field(
        description=limited("The newest refresh token: each works once.", authentication.TOKEN_LIMIT)
    )


@strawberry.input(description="What to sign out.")
class SignOutInput:
    refresh_token: str | None = strawberry.field(
        default=None, description=limited("A further sign-in of the same user to end.", authentication.TOKEN_LIMIT)
    )
    everywhere: bool = strawberry.field(default=False, description="End every sign-in of the user, on all devices.")


@strawberry.input(description="A new credential for programs.")
class CreateApiKeyInput:
    idempotency_key: str | None = strawberry.field(default=None, description=_OPTIONAL_KEY)
    name: str = strawberry.field(description=limited("What it is for.", authentication.KEY_NAME_LIMIT))
    role: Role = strawberry.field(description="What it may do.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it ends: two years from now at most. Left out or null: in a year."
    )
    manages_keys: bool = strawberry.field(
        default=False,
        description="Whether this key, of role OWNER, may make and revoke keys. Only a person can allow it.",
    )


@strawberry.input(description="Which API key to end.")
class RevokeApiKeyInput:
    api_key_id: strawberry.ID = strawberry.field(description="The key.")
