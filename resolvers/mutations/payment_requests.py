"""Mutations: creating, sending, voiding and hiding payment requests."""

from __future__ import annotations

from typing import Annotated, Any

import strawberry

from resolvers.mutations.arguments import addresses, given_fields, optional_row_id, row_id, template
from resolvers.mutations.fields import mutation
from schema.context import Info
from schema.inputs.payment_requests import (
    CreatePaymentRequestInput,
    DiscardPaymentRequestInput,
    PaymentRequestRecipientInput,
    RecordLinkCopiedInput,
    ReleasePaymentLinkInput,
    SendPaymentRequestInput,
    VoidPaymentRequestInput,
)
from schema.payloads import (
    CreatePaymentRequestPayload,
    DiscardPaymentRequestPayload,
    RecordLinkCopiedPayload,
    ReleasePaymentLinkPayload,
    SendPaymentRequestPayload,
    VoidPaymentRequestPayload,
)
from schema.payment_request import PaymentRequest
from schema.thread import ActivityCard, Message
from services.payments import link_releases, payment_requests, request_sending, voids
from services.payments.request_recipients import NewContact


def _recipient(given: PaymentRequestRecipientInput) -> dict[str, Any]:
    match given_fields(given, ("contact_id", "conversation_id", "new_contact")):
        case {"contact_id": id}:
            return {"contact_id": row_id(id, "cnt")}
        case {"conversation_id": id}:
            return {"conversation_id": row_id(id, "cnv")}
        case {"new_contact": new}:
            listed = tuple(addresses(new.addresses))
            contact = NewContact(name=new.name, email=new.email, phone=new.phone, addresses=listed)
            return {"new_contact": contact}
    raise TypeError(given)


@strawberry.type
class PaymentRequestMutations:
    @mutation(
        "Create a request and its link; nothing is sent. For «Copy link» and the dialog's «Send»: use"
        " checkoutUrl or composerInsert of the answer."
    )
    async def create_payment_request(
        self, info: Info, input: Annotated[CreatePaymentRequestInput, strawberry.argument(description="The request.")]
    ) -> CreatePaymentRequestPayload:
        row = await payment_requests.create(
            info.context.actor,
            **_recipient(input.recipient),
            channel_id=optional_row_id(input.channel_id, "chn"),
            product_name=input.product_name,
            amount=input.amount.amount,
            currency=input.amount.currency,
            description=input.description,
            due_at=input.due_at,
            processor=input.processor_kind.name if input.processor_kind is not None else None,
            processor_id=optional_row_id(input.processor_id, "prc"),
            idempotency_key=input.idempotency_key,
        )
        return CreatePaymentRequestPayload(payment_request=PaymentRequest.from_row(row))

    @mutation("Compose and send a request in one step, for programs.")
    async def send_payment_request(
        self,
        info: Info,
        input: Annotated[SendPaymentRequestInput, strawberry.argument(description="The request and the channel.")],
    ) -> SendPaymentRequestPayload:
        sent = await request_sending.send(
            info.context.actor,
            payment_request_id=row_id(input.payment_request_id, "pr"),
            channel_id=row_id(input.channel_id, "chn"),
            body=input.body,
            template=template(input.template),
            idempotency_key=input.idempotency_key,
        )
        return SendPaymentRequestPayload(
            payment_request=PaymentRequest.from_row(sent.request),
            message=Message.from_row(sent.message),
            activity_card=ActivityCard.from_row(sent.card) if sent.card is not None else None,
        )

    @mutation("Cancel a request: its link shows a notice. A payment that arrives first wins.")
    async def void_payment_request(
        self,
        info: Info,
        input: Annotated[VoidPaymentRequestInput, strawberry.argument(description="The request to void.")],
    ) -> VoidPaymentRequestPayload:
        done = await voids.void(
            info.context.actor,
            payment_request_id=row_id(input.payment_request_id, "pr"),
            reason=input.reason,
            expected_version=input.expected_version,
            confirm_partially_paid=input.confirm_partially_paid,
        )
        return VoidPaymentRequestPayload(
            payment_request=PaymentRequest.from_row(done.request),
            activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
        )

    @mutation(
        "Free a link that a voucher, bank debit or transfer holds (action RELEASE_LINK). The payment is"
        " canceled if the processor can do so; otherwise it may still arrive, as excess once the request is"
        " paid another way."
    )
    async def release_payment_link(
        self,
        info: Info,
        input: Annotated[ReleasePaymentLinkInput, strawberry.argument(description="The request to free.")],
    ) -> ReleasePaymentLinkPayload:
        done = await link_releases.release(
            info.context.actor,
            payment_request_id=row_id(input.payment_request_id, "pr"),
            idempotency_key=input.idempotency_key,
        )
        return ReleasePaymentLinkPayload(
            payment_request=PaymentRequest.from_row(done.request),
            activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
        )

    @mutation("Record that the link was copied, for the team; nothing is sent.")
    async def record_link_copied(
        self, info: Info, input: Annotated[RecordLinkCopiedInput, strawberry.argument(description="The request.")]
    ) -> RecordLinkCopiedPayload:
        row = await payment_requests.record_link_copied(info.context.actor, row_id(input.payment_request_id, "pr"))
        return RecordLinkCopiedPayload(payment_request=PaymentRequest.from_row(row))

    @mutation("Hide a draft that was never sent, copied or opened. Its number is not reused.")
    async def discard_payment_request(
        self,
        info: Info,
        input: Annotated[DiscardPaymentRequestInput, strawberry.argument(description="The draft to discard.")],
    ) -> DiscardPaymentRequestPayload:
        row = await payment_requests.discard(info.context.actor, row_id(input.payment_request_id, "pr"))
        return DiscardPaymentRequestPayload(payment_request=PaymentRequest.from_row(row))
