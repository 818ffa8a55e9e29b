"""The root of mutations: ids to UUIDs, one call of a service, the row or the refusal wrapped. No rule is decided here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import strawberry

from models import tables
from models.errors import Invalid, NotFound, Refusal, Refusals, VersionConflict
from models.event_log import Cursor as EventCursor
from models.event_log import CursorInvalid
from models.ids import parse_public_id
from resolvers.access import Access, wants_position
from schema.account import Account, ApiKey, Channel, Processor, User
from schema.connections import NOTIFICATIONS
from schema.contact import Contact
from schema.context import Info
from schema.conversation import Conversation
from schema.describe import mutation
from schema.failures import ApiError
from schema.inputs import (
    AssignConversationInput,
    CloseConversationInput,
    ConfigureProcessorInput,
    ConnectChannelInput,
    ContactAddressInput,
    CreateApiKeyInput,
    CreateContactInput,
    CreatePaymentRequestInput,
    CredentialInput,
    DiscardPaymentRequestInput,
    DisconnectChannelInput,
    DisconnectProcessorInput,
    FollowConversationInput,
    MarkConversationReadInput,
    MergeContactsInput,
    MessageTemplateInput,
    RecordLinkCopiedInput,
    RecordOutsidePaymentInput,
    RefreshInput,
    RefundPaymentInput,
    ReleasePaymentLinkInput,
    ReopenConversationInput,
    ResendMessageInput,
    ResolveMismatchInput,
    RevokeApiKeyInput,
    RotateIdentitySecretInput,
    SaveDraftInput,
    SendMessageInput,
    SendPaymentRequestInput,
    SignInInput,
    SignOutInput,
    TestChannelInput,
    TestProcessorInput,
    UndoOutsidePaymentInput,
    UpdateAccountInput,
    UpdateContactInput,
    VoidPaymentRequestInput,
)
from schema.payloads import (
    AssignConversationPayload,
    CloseConversationPayload,
    ConfigureProcessorPayload,
    ConnectChannelPayload,
    CreateApiKeyPayload,
    CreateContactPayload,
    CreatePaymentRequestPayload,
    DiscardPaymentRequestPayload,
    DisconnectChannelPayload,
    DisconnectProcessorPayload,
    FollowConversationPayload,
    MarkConversationReadPayload,
    MarkNotificationsReadPayload,
    MergeContactsPayload,
    MutationPayload,
    RecordLinkCopiedPayload,
    RecordOutsidePaymentPayload,
    RefreshPayload,
    RefundPaymentPayload,
    ReleasePaymentLinkPayload,
    ReopenConversationPayload,
    ResendMessagePayload,
    ResolveMismatchPayload,
    RevokeApiKeyPayload,
    RotateIdentitySecretPayload,
    SaveDraftPayload,
    SendMessagePayload,
    SendPaymentRequestPayload,
    SessionPayload,
    SignInPayload,
    SignOutPayload,
    TestChannelPayload,
    TestProcessorPayload,
    UndoOutsidePaymentPayload,
    UpdateAccountPayload,
    UpdateContactPayload,
    UserError,
    VoidPaymentRequestPayload,
    user_errors,
)
from schema.payment_request import Payment, PaymentRequest
from schema.sandbox import RunSandboxScenarioInput, RunSandboxScenarioPayload
from schema.scalars import Cursor, RefundStatus
from schema.thread import ActivityCard, Message
from services.accounts import accounts, authentication
from services.connections import channel_settings, processor_settings, providers
from services.core.permissions import Actor
from services.demo import scenarios
from services.messaging import contact_merging, contacts, conversations, messages
from services.messaging.composer import Template
from services.payments import link_releases, mismatches, offline_payments, payment_requests, refunds, voids
from services.thread import notifications

# A credential that has a field of its own in ConfigureProcessorInput.
SHORT_FOR: Final[Mapping[str, str]] = {"secret_key": "secretKey", "webhook_secret": "webhookSecret"}

NOTHING: Final = UUID(int=0)  # no row has this id

P = TypeVar("P", bound=MutationPayload)
S = TypeVar("S", bound=SessionPayload)


async def _run(
    info: Info,
    payload: type[P],
    work: Callable[[Actor], Awaitable[P]],
    *,
    names: Mapping[str | None, str] | None = None,
    within: tuple[str, ...] = ("input",),
) -> P:
    """The payload of `work`, or the one of its refusal.

    `names`: what a service calls a field to what the input calls it, where they differ; None: a NotFound that names no field.
    `within`: the argument that holds the fields; none where the field is an argument itself.

    Raises: ApiError UNAUTHENTICATED.
    """
    actor = info.context.actor
    info.context.renew()
    # Before the write: the write's own events then repeat what the answer shows, and nothing is missed.
    position = await info.context.reads.position() if wants_position(info) else None
    try:
        return await work(actor)
    except Refusal as refusal:
        return _refused(info, payload, refusal, names or {}, within)
    finally:
        info.context.renew(position)


def _refused(
    info: Info,
    payload: type[P],
    refusal: Refusal,
    names: Mapping[str | None, str],
    within: tuple[str, ...] = ("input",),
) -> P:
    for one in refusal.all:
        if one.field:
            one.field = (names.get(one.field[0], one.field[0]), *one.field[1:])
        elif isinstance(one, NotFound) and None in names:
            one.field = (names[None],)
    return payload(user_errors=user_errors(info, refusal, within))


def _id(value: str, prefix: str) -> UUID:
    """The row's id; for text that is no id of this type one that nothing has, so that the service refuses it like any unknown one."""
    return parse_public_id(value, prefix) or NOTHING


def _id_or_none(value: str | None, prefix: str) -> UUID | None:
    return _id(value, prefix) if value is not None else None


def _changes(given: object, names: tuple[str, ...]) -> dict[str, Any]:
    """The fields that the client has named."""
    return {name: value for name in names if (value := getattr(given, name)) is not strawberry.UNSET}


def _refuse_doubles(given: list[CredentialInput] | None) -> None:
    """Raises: Invalid for a name that comes twice."""
    if len({one.name for one in given or ()}) != len(given or ()):
        raise Invalid("Give each credential once.", field="credentials")


def _beside(info: Info, refusal: Refusal | None) -> list[UserError]:
    """The user errors that stand beside an object."""
    return user_errors(info, refusal, ("input",)) if refusal is not None else []


def _template(given: MessageTemplateInput | None) -> Template | None:
    return given.to_template() if given is not None else None


def _addresses(given: list[ContactAddressInput] | None) -> list[tuple[str, str]]:
    return [(address.kind.name, address.address) for address in given or ()]


async def _session(info: Info, payload: type[S], work: Callable[[], Awaitable[authentication.Tokens]]) -> S:
    try:
        tokens = await work()
    except Refusal as refusal:
        return _refused(info, payload, refusal, {})
    actor = await authentication.authenticate(tokens.access_token)
    row = await Access(actor, None).user(tokens.user_id) if actor is not None else None
    if row is None:
        raise RuntimeError("a token that was made a moment ago is not valid")
    return payload(
        access_token=tokens.access_token,
        access_token_expires_at=tokens.access_expires_at,
        refresh_token=tokens.refresh_token,
        refresh_token_expires_at=tokens.refresh_expires_at,
        user=User.from_row(row),
    )


def _notification_seq(cursor: str, account_id: UUID) -> int:
    """The log number behind an eventCursor, an event's cursor or a notification edge's. Raises: Invalid."""
    try:
        return EventCursor.decode(cursor, account_id).seq
    except CursorInvalid:
        pass
    try:
        (seq,) = NOTIFICATIONS.key(cursor, "upTo")
    except ApiError as error:
        raise Invalid("This is not a cursor of notifications.", field="upTo") from error
    if not isinstance(seq, int):
        raise TypeError(seq)
    return seq


@strawberry.type(
    description="Writing. An expected failure is in the payload's userErrors and has changed nothing; others are top-level errors."
)
class Mutation:
    # ----------------------------------------------------------------------------------------------------- access
    @mutation("Sign in with e-mail address and password. Needs no credential.")
    async def sign_in(
        self, info: Info, input: Annotated[SignInInput, strawberry.argument(description="Who.")]
    ) -> SignInPayload:
        address = info.context.client_address
        return await _session(
            info, SignInPayload, lambda: authentication.sign_in(input.email, input.password, client_address=address)
        )

    @mutation(
        "A new access token for a refresh token, which is used up; using one twice ends its sign-in. Needs no credential."
    )
    async def refresh(
        self, info: Info, input: Annotated[RefreshInput, strawberry.argument(description="What renews it.")]
    ) -> RefreshPayload:
        return await _session(info, RefreshPayload, lambda: authentication.refresh(input.refresh_token))

    @mutation("End the viewer's sign-in: its refresh token and, within seconds, its access token.")
    async def sign_out(
        self, info: Info, input: Annotated[SignOutInput, strawberry.argument(description="What to end.")]
    ) -> SignOutPayload:
        async def work(actor: Actor) -> SignOutPayload:
            await authentication.sign_out(actor, input.refresh_token, input.everywhere)
            return SignOutPayload(signed_out=True)

        return await _run(info, SignOutPayload, work)

    @mutation(
        "A credential for programs; its secret is in this answer only. For owners, and keys that may manage keys."
    )
    async def create_api_key(
        self, info: Info, input: Annotated[CreateApiKeyInput, strawberry.argument(description="The key to make.")]
    ) -> CreateApiKeyPayload:
        async def work(actor: Actor) -> CreateApiKeyPayload:
            row, secret = await authentication.create_api_key_once(
                actor,
                name=input.name,
                role=input.role.name,
                expires_at=input.expires_at,
                manages_keys=input.manages_keys,
                idempotency_key=input.idempotency_key,
            )
            return CreateApiKeyPayload(api_key=ApiKey.from_row(row), secret=secret)

        return await _run(info, CreateApiKeyPayload, work)

    @mutation("End an API key. For owners, and keys that may manage keys.")
    async def revoke_api_key(
        self, info: Info, input: Annotated[RevokeApiKeyInput, strawberry.argument(description="Which one.")]
    ) -> RevokeApiKeyPayload:
        async def work(actor: Actor) -> RevokeApiKeyPayload:
            row = await authentication.revoke_api_key(actor, _id(input.api_key_id, "key"))
            return RevokeApiKeyPayload(api_key=ApiKey.from_row(row))

        return await _run(info, RevokeApiKeyPayload, work)

    # --------------------------------------------------------------------------------------------- payment requests
    @mutation(
        "«Copy link» and the dialog's «Send»: makes the request and its link, sends nothing. Take checkoutUrl or"
        " composerInsert from the answer."
    )
    async def create_payment_request(
        self, info: Info, input: Annotated[CreatePaymentRequestInput, strawberry.argument(description="The request.")]
    ) -> CreatePaymentRequestPayload:
        async def work(actor: Actor) -> CreatePaymentRequestPayload:
            row = await payment_requests.create(
                actor,
                contact_id=_id(input.contact_id, "cnt"),
                conversation_id=_id_or_none(input.conversation_id, "cnv"),
                channel_id=_id_or_none(input.channel_id, "chn"),
                product_name=input.product_name,
                amount=input.amount.amount,
                currency=input.amount.currency,
                description=input.description,
                due_at=input.due_at,
                processor=input.processor.name if input.processor is not None else None,
                processor_id=_id_or_none(input.processor_id, "prc"),
                idempotency_key=input.idempotency_key,
            )
            return CreatePaymentRequestPayload(payment_request=PaymentRequest.from_row(row))

        return await _run(info, CreatePaymentRequestPayload, work)

    @mutation("For programs: composes and sends in one step.")
    async def send_payment_request(
        self, info: Info, input: Annotated[SendPaymentRequestInput, strawberry.argument(description="What and where.")]
    ) -> SendPaymentRequestPayload:
        async def work(actor: Actor) -> SendPaymentRequestPayload:
            sent = await payment_requests.send(
                actor,
                payment_request_id=_id(input.payment_request_id, "pr"),
                channel_id=_id(input.channel_id, "chn"),
                body=input.body,
                template=_template(input.template),
                idempotency_key=input.idempotency_key,
            )
            return SendPaymentRequestPayload(
                payment_request=PaymentRequest.from_row(sent.request),
                message=Message.from_row(sent.message),
                activity_card=ActivityCard.from_row(sent.card) if sent.card is not None else None,
            )

        return await _run(info, SendPaymentRequestPayload, work)

    @mutation("Cancel a request: its link shows a notice. Money that was first still wins.")
    async def void_payment_request(
        self, info: Info, input: Annotated[VoidPaymentRequestInput, strawberry.argument(description="Which one.")]
    ) -> VoidPaymentRequestPayload:
        async def work(actor: Actor) -> VoidPaymentRequestPayload:
            try:
                done = await voids.void(
                    actor,
                    payment_request_id=_id(input.payment_request_id, "pr"),
                    reason=input.reason,
                    expected_version=input.expected_version,
                    confirm_partially_paid=input.confirm_partially_paid,
                )
            except Refusal as refusal:
                current = next((one.current for one in refusal.all if isinstance(one, VersionConflict)), None)
                if not isinstance(current, tables.PaymentRequest):
                    raise
                shown = PaymentRequest.from_row(current)
                return VoidPaymentRequestPayload(payment_request=shown, user_errors=_beside(info, refusal))
            return VoidPaymentRequestPayload(
                payment_request=PaymentRequest.from_row(done.request),
                activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
            )

        return await _run(info, VoidPaymentRequestPayload, work)

    @mutation(
        "Free a link that a voucher, bank debit or transfer holds (action RELEASE_LINK). That payment is canceled where the"
        " processor can; where it can't, it may still arrive, as excess once another payment has settled the request."
    )
    async def release_payment_link(
        self, info: Info, input: Annotated[ReleasePaymentLinkInput, strawberry.argument(description="Whose link.")]
    ) -> ReleasePaymentLinkPayload:
        async def work(actor: Actor) -> ReleasePaymentLinkPayload:
            done = await link_releases.release(
                actor,
                payment_request_id=_id(input.payment_request_id, "pr"),
                idempotency_key=input.idempotency_key,
            )
            return ReleasePaymentLinkPayload(
                payment_request=PaymentRequest.from_row(done.request),
                activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
            )

        return await _run(info, ReleasePaymentLinkPayload, work)

    @mutation("For developers: let the sandbox's vendor play a scenario on a request, by its own signed webhooks.")
    async def run_sandbox_scenario(
        self, info: Info, input: Annotated[RunSandboxScenarioInput, strawberry.argument(description="Which story.")]
    ) -> RunSandboxScenarioPayload:
        async def work(actor: Actor) -> RunSandboxScenarioPayload:
            request = await scenarios.run(
                actor,
                payment_request_id=_id(input.payment_request_id, "pr"),
                scenario=input.scenario.name,
                seed=input.seed,
            )
            return RunSandboxScenarioPayload(payment_request=PaymentRequest.from_row(request))

        return await _run(info, RunSandboxScenarioPayload, work)

    @mutation("Say that the link was copied, so that the team knows; nothing is sent.")
    async def record_link_copied(
        self, info: Info, input: Annotated[RecordLinkCopiedInput, strawberry.argument(description="Whose link.")]
    ) -> RecordLinkCopiedPayload:
        async def work(actor: Actor) -> RecordLinkCopiedPayload:
            row = await payment_requests.record_link_copied(actor, _id(input.payment_request_id, "pr"))
            return RecordLinkCopiedPayload(payment_request=PaymentRequest.from_row(row))

        return await _run(info, RecordLinkCopiedPayload, work)

    @mutation("Hide a draft that was never sent, copied or opened. Its number stays taken.")
    async def discard_payment_request(
        self, info: Info, input: Annotated[DiscardPaymentRequestInput, strawberry.argument(description="Which one.")]
    ) -> DiscardPaymentRequestPayload:
        async def work(actor: Actor) -> DiscardPaymentRequestPayload:
            row = await payment_requests.discard(actor, _id(input.payment_request_id, "pr"))
            return DiscardPaymentRequestPayload(payment_request=PaymentRequest.from_row(row))

        return await _run(info, DiscardPaymentRequestPayload, work)

    @mutation(
        "Give a payment back, whole or in part. The request stays PAID and is never payable again. For owners and admins."
    )
    async def refund_payment(
        self, info: Info, input: Annotated[RefundPaymentInput, strawberry.argument(description="What to give back.")]
    ) -> RefundPaymentPayload:
        async def work(actor: Actor) -> RefundPaymentPayload:
            done = await refunds.refund(
                actor,
                payment_id=_id(input.payment_id, "pay"),
                amount=input.amount,
                reason=input.reason.name,
                tell_contact_on=_id_or_none(input.tell_contact_on, "chn"),
                idempotency_key=input.idempotency_key,
            )
            return RefundPaymentPayload(
                payment_request=PaymentRequest.from_row(done.request),
                status=RefundStatus[done.refund.status],
                payment=Payment.from_view(done.payment) if done.payment is not None else None,
                activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
                message=Message.from_row(done.message) if done.message is not None else None,
            )

        return await _run(info, RefundPaymentPayload, work, names={"channelId": "tellContactOn", None: "tellContactOn"})

    @mutation("Record money that came another way: cash, a cheque, a transfer. It counts like a payment on the link.")
    async def record_outside_payment(
        self,
        info: Info,
        input: Annotated[RecordOutsidePaymentInput, strawberry.argument(description="What came, and for what.")],
    ) -> RecordOutsidePaymentPayload:
        async def work(actor: Actor) -> RecordOutsidePaymentPayload:
            done = await offline_payments.record(
                actor,
                payment_request_id=_id(input.payment_request_id, "pr"),
                method=input.method.name,
                amount=input.amount,
                note=input.note,
                received_at=input.received_at,
                idempotency_key=input.idempotency_key,
            )
            return RecordOutsidePaymentPayload(
                payment_request=PaymentRequest.from_row(done.request),
                payment=Payment.from_view(done.payment),
                activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
            )

        return await _run(info, RecordOutsidePaymentPayload, work)

    @mutation(
        "Decide about money that arrived and is not what was asked for (PaymentRequest.unresolved): accept it as paid or as part"
        " payment, or give the difference back. Money that arrives later is judged anew."
    )
    async def resolve_mismatch(
        self,
        info: Info,
        input: Annotated[ResolveMismatchInput, strawberry.argument(description="Of which request, and how.")],
    ) -> ResolveMismatchPayload:
        async def work(actor: Actor) -> ResolveMismatchPayload:
            done = await mismatches.resolve(
                actor,
                payment_request_id=_id(input.payment_request_id, "pr"),
                resolution=input.resolution.name,
                idempotency_key=input.idempotency_key,
            )
            return ResolveMismatchPayload(
                payment_request=PaymentRequest.from_row(done.request),
                activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
                refund_status=RefundStatus[done.refund.status] if done.refund is not None else None,
            )

        return await _run(info, ResolveMismatchPayload, work)

    @mutation("Take back what was recorded by hand; the request may become payable again. Safe to repeat.")
    async def undo_outside_payment(
        self, info: Info, input: Annotated[UndoOutsidePaymentInput, strawberry.argument(description="Which one.")]
    ) -> UndoOutsidePaymentPayload:
        async def work(actor: Actor) -> UndoOutsidePaymentPayload:
            done = await offline_payments.undo(actor, payment_id=_id(input.payment_id, "pay"))
            return UndoOutsidePaymentPayload(
                payment_request=PaymentRequest.from_row(done.request),
                payment=Payment.from_view(done.payment),
                activity_card=ActivityCard.from_row(done.card) if done.card is not None else None,
            )

        return await _run(info, UndoOutsidePaymentPayload, work)

    # ------------------------------------------------------------------------------------ messages, conversations
    @mutation(
        "The message box's Send. Links of ours in the text bind their requests: each becomes SENT and logs its"
        " activity card."
    )
    async def send_message(
        self, info: Info, input: Annotated[SendMessageInput, strawberry.argument(description="The message.")]
    ) -> SendMessagePayload:
        async def work(actor: Actor) -> SendMessagePayload:
            sent = await messages.send_message(
                actor,
                conversation_id=_id(input.conversation_id, "cnv"),
                channel_id=_id(input.channel_id, "chn"),
                body=input.body,
                subject=input.subject,
                cc=input.cc or (),
                template=_template(input.template),
                idempotency_key=input.idempotency_key,
            )
            return SendMessagePayload(
                message=Message.from_row(sent.message),
                activity_cards=[ActivityCard.from_row(card) for card in sent.cards],
            )

        return await _run(info, SendMessagePayload, work)

    @mutation(
        "Send a message again that failed, or whose outcome nobody knows (UNKNOWN), with the same text and links, on the same or"
        " another channel. At most once at a time. An UNKNOWN one may have arrived: CONFIRMATION_REQUIRED until the look-ups have"
        " given up (15 minutes), and from an API key always."
    )
    async def resend_message(
        self, info: Info, input: Annotated[ResendMessageInput, strawberry.argument(description="Which one, and where.")]
    ) -> ResendMessagePayload:
        async def work(actor: Actor) -> ResendMessagePayload:
            sent = await messages.resend_message(
                actor,
                message_id=_id(input.message_id, "msg"),
                channel_id=_id(input.channel_id, "chn"),
                idempotency_key=input.idempotency_key,
                confirm_possible_duplicate=input.confirm_possible_duplicate,
            )
            return ResendMessagePayload(message=Message.from_row(sent.message))

        return await _run(info, ResendMessagePayload, work)

    @mutation(
        "Say that a conversation is done with. A message of the contact, money that moves, or a failed delivery opens it again."
    )
    async def close_conversation(
        self, info: Info, input: Annotated[CloseConversationInput, strawberry.argument(description="Which one.")]
    ) -> CloseConversationPayload:
        async def work(actor: Actor) -> CloseConversationPayload:
            row = await conversations.close(actor, _id(input.conversation_id, "cnv"))
            return CloseConversationPayload(conversation=Conversation.from_row(row))

        return await _run(info, CloseConversationPayload, work)

    @mutation("Open a closed conversation again.")
    async def reopen_conversation(
        self, info: Info, input: Annotated[ReopenConversationInput, strawberry.argument(description="Which one.")]
    ) -> ReopenConversationPayload:
        async def work(actor: Actor) -> ReopenConversationPayload:
            row = await conversations.reopen(actor, _id(input.conversation_id, "cnv"))
            return ReopenConversationPayload(conversation=Conversation.from_row(row))

        return await _run(info, ReopenConversationPayload, work)

    @mutation("Say that the team has seen the conversation: unreadCount becomes 0.")
    async def mark_conversation_read(
        self, info: Info, input: Annotated[MarkConversationReadInput, strawberry.argument(description="Which one.")]
    ) -> MarkConversationReadPayload:
        async def work(actor: Actor) -> MarkConversationReadPayload:
            row = await conversations.mark_read(actor, _id(input.conversation_id, "cnv"))
            return MarkConversationReadPayload(conversation=Conversation.from_row(row))

        return await _run(info, MarkConversationReadPayload, work)

    @mutation("Give a conversation to a user, or to nobody.")
    async def assign_conversation(
        self, info: Info, input: Annotated[AssignConversationInput, strawberry.argument(description="Which, to whom.")]
    ) -> AssignConversationPayload:
        async def work(actor: Actor) -> AssignConversationPayload:
            row = await conversations.assign(
                actor,
                _id(input.conversation_id, "cnv"),
                _id_or_none(input.user_id, "usr"),
            )
            return AssignConversationPayload(conversation=Conversation.from_row(row))

        return await _run(info, AssignConversationPayload, work)

    @mutation("Whether the viewer is told of payments in a conversation.")
    async def follow_conversation(
        self, info: Info, input: Annotated[FollowConversationInput, strawberry.argument(description="Which, or not.")]
    ) -> FollowConversationPayload:
        async def work(actor: Actor) -> FollowConversationPayload:
            row = await conversations.follow(actor, _id(input.conversation_id, "cnv"), input.following)
            return FollowConversationPayload(conversation=Conversation.from_row(row))

        return await _run(info, FollowConversationPayload, work)

    @mutation("Keep the team's unsent text; nothing is sent.")
    async def save_draft(
        self, info: Info, input: Annotated[SaveDraftInput, strawberry.argument(description="Where and what.")]
    ) -> SaveDraftPayload:
        async def work(actor: Actor) -> SaveDraftPayload:
            row = await conversations.save_draft(actor, _id(input.conversation_id, "cnv"), input.text)
            return SaveDraftPayload(conversation=Conversation.from_row(row))

        return await _run(info, SaveDraftPayload, work)

    # --------------------------------------------------------------------------------------------------- contacts
    @mutation("A new contact with its conversation.")
    async def create_contact(
        self, info: Info, input: Annotated[CreateContactInput, strawberry.argument(description="The contact.")]
    ) -> CreateContactPayload:
        async def work(actor: Actor) -> CreateContactPayload:
            row = await contacts.create_contact(
                actor,
                name=input.name,
                email=input.email,
                phone=input.phone,
                addresses=_addresses(input.addresses),
                idempotency_key=input.idempotency_key,
            )
            return CreateContactPayload(contact=Contact.from_row(row))

        return await _run(info, CreateContactPayload, work)

    @mutation("Change a contact; fields left out stay.")
    async def update_contact(
        self, info: Info, input: Annotated[UpdateContactInput, strawberry.argument(description="What to change.")]
    ) -> UpdateContactPayload:
        async def work(actor: Actor) -> UpdateContactPayload:
            changes = _changes(input, ("name", "email", "phone", "addresses"))
            if "addresses" in changes:
                changes["addresses"] = _addresses(changes["addresses"])
            row = await contacts.update_contact(actor, _id(input.contact_id, "cnt"), changes=changes)
            return UpdateContactPayload(contact=Contact.from_row(row))

        return await _run(info, UpdateContactPayload, work)

    @mutation(
        "Merge two contacts that are one person on several channels: one record, one thread, one set of totals. Empty fields are"
        " filled, tags and addresses united; messages, cards, payment requests and payments of both belong to the kept contact. It"
        " can't be undone."
    )
    async def merge_contacts(
        self, info: Info, input: Annotated[MergeContactsInput, strawberry.argument(description="Which two.")]
    ) -> MergeContactsPayload:
        async def work(actor: Actor) -> MergeContactsPayload:
            row = await contact_merging.merge(
                actor,
                contact_id=_id(input.contact_id, "cnt"),
                merged_contact_id=_id(input.merged_contact_id, "cnt"),
                addresses=_addresses(input.addresses),
                idempotency_key=input.idempotency_key,
            )
            return MergeContactsPayload(contact=Contact.from_row(row))

        return await _run(info, MergeContactsPayload, work)

    # --------------------------------------------------------------------------------------------------- settings
    @mutation("Change the account's settings; fields left out stay. For owners and admins.")
    async def update_account(
        self, info: Info, input: Annotated[UpdateAccountInput, strawberry.argument(description="What to change.")]
    ) -> UpdateAccountPayload:
        async def work(actor: Actor) -> UpdateAccountPayload:
            changes = _changes(
                input,
                (
                    "name",
                    "default_currency",
                    "locale",
                    "time_zone",
                    "contact_email",
                    "contact_phone",
                    "link_message_template",
                    "number_prefix",
                ),
            )
            return UpdateAccountPayload(account=Account.from_row(await accounts.update_account(actor, changes=changes)))

        return await _run(info, UpdateAccountPayload, work)

    @mutation(
        "Settings → Payments: connect a processor, or change its connection. The credentials are tried at the processor"
        " before anything is stored. For owners and admins."
    )
    async def configure_processor(
        self, info: Info, input: Annotated[ConfigureProcessorInput, strawberry.argument(description="The processor.")]
    ) -> ConfigureProcessorPayload:
        async def work(actor: Actor) -> ConfigureProcessorPayload:
            listed = {one.name: one.value for one in input.credentials or ()}
            short = {"secret_key": input.secret_key, "webhook_secret": input.webhook_secret}
            processor = processor_settings.built_in(input.kind.name)
            refusals = Refusals()
            if input.provider in providers.KINDS and input.provider != processor:
                processor = None  # which of the two is meant can't be said
            with refusals:
                processor = processor_settings.provider_of(input.kind.name, input.provider)
            with refusals:
                _refuse_doubles(input.credentials)
            for name, value in short.items():
                with refusals:
                    if value is not None and name in listed:
                        raise Invalid("Give this secret once.", field=SHORT_FOR[name])
            wanted: dict[str, Any] = {
                "connection_id": _id_or_none(input.processor_id, "prc"),
                "display_name": input.display_name,
                "test_mode": input.test_mode,
                "credentials": listed | {name: value for name, value in short.items() if value},
            }
            try:
                if refusals or processor is None:
                    with refusals:
                        await processor_settings.check(actor, processor=processor, **wanted)
                    refusals.raise_any()
                assert processor is not None  # noqa: S101 (refused above)
                row = await processor_settings.configure_processor(
                    actor, processor=processor, make_default=input.make_default, **wanted
                )
            except Refusal as refusal:
                for one in refusal.all:
                    _, *names = one.field or ("",)
                    if names and names[0] in SHORT_FOR and names[0] not in listed:
                        one.field = (SHORT_FOR[names[0]],)
                raise
            return ConfigureProcessorPayload(processor=Processor.from_row(row))

        return await _run(
            info, ConfigureProcessorPayload, work, names={"connectionId": "processorId", None: "processorId"}
        )

    @mutation(
        "Settings → Payments: ask the processor again with the stored credentials; lastError says what it answered."
        " For owners and admins."
    )
    async def test_processor(
        self, info: Info, input: Annotated[TestProcessorInput, strawberry.argument(description="Which one.")]
    ) -> TestProcessorPayload:
        async def work(actor: Actor) -> TestProcessorPayload:
            row, refusal = await processor_settings.test_processor(actor, _id(input.processor_id, "prc"))
            return TestProcessorPayload(processor=Processor.from_row(row), user_errors=_beside(info, refusal))

        return await _run(info, TestProcessorPayload, work, names={None: "processorId"})

    @mutation(
        "Offer a processor no more. Open requests on it stay payable until voided; their money is still recorded."
        " For owners and admins."
    )
    async def disconnect_processor(
        self, info: Info, input: Annotated[DisconnectProcessorInput, strawberry.argument(description="Which one.")]
    ) -> DisconnectProcessorPayload:
        async def work(actor: Actor) -> DisconnectProcessorPayload:
            row = await processor_settings.disconnect_processor(actor, _id(input.processor_id, "prc"))
            return DisconnectProcessorPayload(processor=Processor.from_row(row))

        return await _run(
            info, DisconnectProcessorPayload, work, names={"connectionId": "processorId", None: "processorId"}
        )

    @mutation("Settings → Channels: connect a channel, or change its connection. For owners and admins.")
    async def connect_channel(
        self, info: Info, input: Annotated[ConnectChannelInput, strawberry.argument(description="The channel.")]
    ) -> ConnectChannelPayload:
        async def work(actor: Actor) -> ConnectChannelPayload:
            wanted: dict[str, Any] = {
                "kind": input.kind.name,
                "provider": input.provider,
                "connection_id": _id_or_none(input.channel_id, "chn"),
                "display_name": input.display_name,
                "sender": input.sender,
                "credentials": {one.name: one.value for one in input.credentials or ()},
                "allowed_origins": input.allowed_origins,
            }
            refusals = Refusals()
            with refusals:
                _refuse_doubles(input.credentials)
            if refusals:
                with refusals:
                    await channel_settings.check(actor, **wanted)
                refusals.raise_any()
            row = await channel_settings.connect_channel(actor, **wanted, idempotency_key=input.idempotency_key)
            return ConnectChannelPayload(channel=Channel.from_row(row))

        return await _run(info, ConnectChannelPayload, work, names={"connectionId": "channelId", None: "channelId"})

    @mutation(
        "Settings → Channels: ask the channel's provider again with the stored credentials; lastError says what it"
        " answered. For owners and admins."
    )
    async def test_channel(
        self, info: Info, input: Annotated[TestChannelInput, strawberry.argument(description="Which one.")]
    ) -> TestChannelPayload:
        async def work(actor: Actor) -> TestChannelPayload:
            row, refusal = await channel_settings.test_channel(actor, _id(input.channel_id, "chn"))
            return TestChannelPayload(channel=Channel.from_row(row), user_errors=_beside(info, refusal))

        return await _run(info, TestChannelPayload, work, names={None: "channelId"})

    @mutation("Use a channel no more; its messages stay. For owners and admins.")
    async def disconnect_channel(
        self, info: Info, input: Annotated[DisconnectChannelInput, strawberry.argument(description="Which one.")]
    ) -> DisconnectChannelPayload:
        async def work(actor: Actor) -> DisconnectChannelPayload:
            row = await channel_settings.disconnect_channel(actor, _id(input.channel_id, "chn"))
            return DisconnectChannelPayload(channel=Channel.from_row(row))

        return await _run(info, DisconnectChannelPayload, work, names={"connectionId": "channelId", None: "channelId"})

    @mutation(
        "Web chat: make a new secret with which the site's server signs who its visitors are; the old one counts no more."
        " For owners and admins."
    )
    async def rotate_identity_secret(
        self, info: Info, input: Annotated[RotateIdentitySecretInput, strawberry.argument(description="Which one.")]
    ) -> RotateIdentitySecretPayload:
        async def work(actor: Actor) -> RotateIdentitySecretPayload:
            row, secret = await channel_settings.rotate_identity_secret(
                actor, _id(input.channel_id, "chn"), idempotency_key=input.idempotency_key
            )
            return RotateIdentitySecretPayload(channel=Channel.from_row(row), secret=secret)

        return await _run(info, RotateIdentitySecretPayload, work)

    # ---------------------------------------------------------------------------------------------- notifications
    @mutation("Mark the viewer's notifications as read, up to and with a position.")
    async def mark_notifications_read(
        self,
        info: Info,
        up_to: Annotated[
            Cursor,
            strawberry.argument(
                description="A notification edge's cursor, an event's cursor or an eventCursor: all up to it are read."
            ),
        ],
    ) -> MarkNotificationsReadPayload:
        async def work(actor: Actor) -> MarkNotificationsReadPayload:
            seq = _notification_seq(up_to, actor.account_id)
            return MarkNotificationsReadPayload(unread_count=await notifications.mark_read(actor, seq))

        return await _run(info, MarkNotificationsReadPayload, work, within=())
