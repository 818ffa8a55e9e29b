"""Mutations: sending messages."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers.mutations.arguments import row_id, template
from resolvers.mutations.fields import mutation
from schema.context import Info
from schema.inputs.messages import ResendMessageInput, SendMessageInput
from schema.payloads import ResendMessagePayload, SendMessagePayload
from schema.thread import ActivityCard, Message
from services.messaging import messages


@strawberry.type
class MessageMutations:
    @mutation(
        "Send a message. Each payment link in the text binds its request: the request becomes SENT and logs its"
        " activity card."
    )
    async def send_message(
        self, info: Info, input: Annotated[SendMessageInput, strawberry.argument(description="The message.")]
    ) -> SendMessagePayload:
        sent = await messages.send_message(
            info.context.actor,
            conversation_id=row_id(input.conversation_id, "cnv"),
            channel_id=row_id(input.channel_id, "chn"),
            body=input.body,
            subject=input.subject,
            cc=input.cc or (),
            template=template(input.template),
            idempotency_key=input.idempotency_key,
        )
        return SendMessagePayload(
            message=Message.from_row(sent.message),
            activity_cards=[ActivityCard.from_row(card) for card in sent.cards],
        )

    @mutation(
        "Resend a message that failed, or whose outcome is unknown (UNKNOWN), with the same text and links, on the same or"
        " another channel. One resend at a time. An UNKNOWN message may have arrived: CONFIRMATION_REQUIRED until the look-ups have"
        " given up (15 minutes), and from an API key always."
    )
    async def resend_message(
        self,
        info: Info,
        input: Annotated[ResendMessageInput, strawberry.argument(description="The message and the channel.")],
    ) -> ResendMessagePayload:
        sent = await messages.resend_message(
            info.context.actor,
            message_id=row_id(input.message_id, "msg"),
            channel_id=row_id(input.channel_id, "chn"),
            idempotency_key=input.idempotency_key,
            confirm_possible_duplicate=input.confirm_possible_duplicate,
        )
        return ResendMessagePayload(message=Message.from_row(sent.message))
