"""Inputs that write and send messages."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.inputs.descriptions import CONVERSATION, KEY
from services.core import validation
from services.messaging import composer, messages
from services.messaging.composer import Template


@strawberry.input(description="The value of one of a template's variables.")
class TemplateVariableInput:
    name: str = strawberry.field(
        description=limited("The variable's name, e.g. 1: letters, digits and _.", composer.VARIABLE_NAME_LIMIT)
    )
    value: str = strawberry.field(
        description=limited(
            "One line. Where a payment request is sent, the placeholders {link} {amount} {product} {number}"
            " {business} are filled in, and {token}: the link's last part, for a template's URL button.",
            composer.VARIABLE_LIMIT,
        )
    )


@strawberry.input(
    description=(
        "An approved template, which the contact gets in place of free text: accepted if the channel's"
        " capability allows templates, even while the window for free text is closed."
    )
)
class MessageTemplateInput:
    id: str = strawberry.field(
        description=limited("The vendor's template id, e.g. Twilio's ContentSid (HX…).", composer.TEMPLATE_ID_LIMIT)
    )
    variables: list[TemplateVariableInput] | None = strawberry.field(
        default=None,
        description="Its variables, at most 20; one must contain the payment link, if there is one.",
    )

    def to_template(self) -> Template:
        return Template(id=self.id, variables=tuple((given.name, given.value) for given in self.variables or ()))


@strawberry.input(description="A message to send.")
class SendMessageInput:
    idempotency_key: str = strawberry.field(description=KEY)
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)
    channel_id: strawberry.ID = strawberry.field(description="The channel to send it on.")
    body: str = strawberry.field(
        description=limited("The text; payment links in it are bound to their requests.", messages.BODY_LIMIT)
    )
    subject: str | None = strawberry.field(
        default=None, description=limited("For email: the subject line.", messages.SUBJECT_LIMIT)
    )
    cc: list[str] | None = strawberry.field(
        default=None,
        description=(
            "For email: addresses that get a copy, at most ConversationChannel.maxCc; Conversation.suggestedCc is a reply"
            " to all. The contact's and the account's own addresses are left out. Everyone who gets a payment link can pay with"
            f" it. {limited('Each:', validation.EMAIL_LIMIT)}"
        ),
    )
    template: MessageTemplateInput | None = strawberry.field(
        default=None, description="Sent to the contact in place of the text; the thread shows the text."
    )


@strawberry.input(description="A message that is being written.")
class MessagePreviewInput:
    conversation_id: strawberry.ID = strawberry.field(description=CONVERSATION)
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
        default=None, description="Sent to the contact in place of the text."
    )


@strawberry.input(description="A message to send again.")
class ResendMessageInput:
    idempotency_key: str = strawberry.field(description=KEY)
    message_id: strawberry.ID = strawberry.field(description="The message: FAILED or UNKNOWN, from the team.")
    channel_id: strawberry.ID = strawberry.field(description="The channel to send it on: one of its resendOptions.")
    confirm_possible_duplicate: bool = strawberry.field(
        default=False,
        description="For an UNKNOWN message: resend it although the contact may get it twice.",
    )
