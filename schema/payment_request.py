"""PaymentRequest. The rules are in services and models."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

import strawberry
from strawberry.types.lazy_type import LazyType

from models import tables
from models.errors import Refusal
from models.ids import parse_public_id, public_id
from models.ledger import OUTSTANDING
from schema.account import Channel, Processor
from schema.actor import Actor, actor_of
from schema.connections import TOTAL, Count, Slice
from schema.context import Info, event_cursor
from schema.describe import field
from schema.failures import ApiError, not_found
from schema.payment import Dispute, Payment, Refund
from schema.scalars import (
    URL,
    ChannelKind,
    Cursor,
    DeliveryState,
    DisputeState,
    Money,
    Node,
    PageInfo,
    PaymentRequestAction,
    PaymentRequestStatus,
    PaymentStatus,
    ProcessorKind,
    RefundState,
    SentVia,
    SmsEncoding,
    money,
)
from services.connections import providers
from services.core import actors
from services.core.permissions import allows
from services.payments import mismatches, payment_requests, request_sending
from services.thread import payment_links


@strawberry.type(description="An action that this viewer may take now.")
class AvailableAction:
    action: PaymentRequestAction = strawberry.field(description="The action.")
    resulting_status: PaymentRequestStatus | None = strawberry.field(
        description="The status afterwards; null: unchanged."
    )


@strawberry.type(description="The newest payment attempt.")
class PaymentAttempt:
    status: PaymentStatus = strawberry.field(description="How it ended, or PENDING.")
    decline_code: str | None = strawberry.field(description="The processor's reason; null: none given.")
    message: str | None = strawberry.field(
        description="Why it failed, or what it waits for, in one plain sentence for the team; null: not reported."
    )
    at: datetime = strawberry.field(description="When it happened.")


@strawberry.type(description="The text that the dialog's Send inserts into the message box.")
class ComposerInsert:
    text: str = strawberry.field(description="The text for this channel, with the link in it.")
    checkout_url: URL = strawberry.field(description="The link alone.")
    length: int = strawberry.field(description="Length of the text in the unit of the channel's limit.")
    max_length: int | None = strawberry.field(description="The channel's limit; null: none.")
    sms_segments: int | None = strawberry.field(description="How many SMS it takes; null on other channels.")
    encoding: SmsEncoding | None = strawberry.field(
        description="The SMS encoding; null on other channels. messagePreview explains it."
    )


async def _contact(root: PaymentRequest, info: Info) -> object:
    return await info.context.reads.contact_node(root.row.contact_id)


async def _conversation(root: PaymentRequest, info: Info) -> object:
    return await info.context.reads.conversation_node(root.row.conversation_id)


@strawberry.type(description="A request to a contact for payment: amount, link and status.")
class PaymentRequest(Node):
    row: strawberry.Private[tables.PaymentRequest]
    number: str = strawberry.field(description="Human-readable, unique and without gaps in the account.")
    status: PaymentRequestStatus = strawberry.field(description="The stored status, derived from facts.")
    version: int = strawberry.field(description="Increases with every change; pass it back as expectedVersion.")
    product_name: str = strawberry.field(description="The product or service.")
    description: str | None = strawberry.field(description="More about it, shown on the checkout page; null: nothing.")
    amount: Money = strawberry.field(description="The requested amount.")
    amount_paid: Money = strawberry.field(description="The amount that has arrived and counts.")
    amount_due: Money = strawberry.field(description="Amount less amountPaid and waived, never below 0.")
    waived: Money = strawberry.field(
        description="The amount that the team gave up by accepting less, or another currency, as paid (resolveMismatch)."
    )
    test_mode: bool = strawberry.field(description="Whether it is in test mode: no real money moves.")
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    sent_at: datetime | None = strawberry.field(description="When it first went out; null: not yet.")
    sent_via: SentVia | None = strawberry.field(description="How it first went out; null: not yet.")
    link_copied_at: datetime | None = strawberry.field(description="When its link was first copied; null: never.")
    delivery_state: DeliveryState = strawberry.field(description="Of the newest message that carries the link.")
    first_viewed_at: datetime | None = strawberry.field(
        description="When a person first opened it (link previews and mail scanners do not count); null: never."
    )
    last_viewed_at: datetime | None = strawberry.field(description="When a person last opened it; null: never.")
    human_views: int = strawberry.field(description="How often a person has opened the link.")
    due_at: datetime | None = strawberry.field(
        description=(
            "Deadline for the payment; the link works after it, too. For midnight in the account's time zone,"
            " pages name the day before. Null: none."
        )
    )
    is_overdue: bool = strawberry.field(description="Whether dueAt has passed while it is sent and not paid.")
    paid_at: datetime | None = strawberry.field(description="When it was paid in full; null: it is not.")
    voided_at: datetime | None = strawberry.field(description="When it was voided; null: it is not.")
    void_reason: str | None = strawberry.field(description="Why it was voided, for the team; null: no reason given.")
    void_pending: bool = strawberry.field(
        description="A void was requested while a payment was in flight; if the money arrives first, the payment wins."
    )
    link_released_at: datetime | None = strawberry.field(
        description=(
            "When the link was released for another payment while one is under way (PROCESSING); null: nothing is"
            " under way, or it holds the link."
        )
    )
    discarded_at: datetime | None = strawberry.field(
        description="When the draft was discarded: remove it from lists; null: it was not."
    )
    refund_state: RefundState = strawberry.field(description="The amount that was refunded.")
    dispute_state: DisputeState = strawberry.field(description="Of the newest dispute.")
    last_attempt: PaymentAttempt | None = strawberry.field(description="The newest payment attempt; null: none.")
    excess: Money = strawberry.field(description="Paid above the amount less what is waived; less its refunds.")
    late: Money = strawberry.field(description="Arrived after VOID, less its refunds.")
    contact: object = strawberry.field(
        resolver=_contact, graphql_type=LazyType("Contact", "schema.contact"), description="The person who is asked."
    )
    conversation: object = strawberry.field(
        resolver=_conversation,
        graphql_type=LazyType("Conversation", "schema.conversation"),
        description="The contact's conversation, in which it was asked.",
    )

    @classmethod
    def from_row(cls, row: tables.PaymentRequest) -> Self:
        currency = row.currency
        due_at, status = row.due_at, row.status
        return cls(
            id=strawberry.ID(public_id("pr", row.id)),
            row=row,
            number=row.number,
            status=PaymentRequestStatus[status],
            version=row.version,
            product_name=row.product_name,
            description=row.description,
            amount=money(row.amount_minor, currency),
            amount_paid=money(row.amount_paid_minor, currency),
            amount_due=money(max(0, row.amount_minor - row.amount_paid_minor - row.waived_minor), currency),
            waived=money(row.waived_minor, currency),
            test_mode=row.test_mode,
            created_at=row.created_at,
            updated_at=row.updated_at,
            sent_at=row.sent_at,
            sent_via=SentVia[row.sent_via] if row.sent_via is not None else None,
            link_copied_at=row.link_copied_at,
            delivery_state=DeliveryState[row.delivery_state],
            first_viewed_at=row.first_viewed_at,
            last_viewed_at=row.last_viewed_at,
            human_views=row.human_views,
            due_at=due_at,
            is_overdue=due_at is not None and status in OUTSTANDING and due_at < datetime.now(UTC),
            paid_at=row.paid_at,
            voided_at=row.voided_at,
            void_reason=row.void_reason,
            void_pending=row.void_requested_at is not None and status not in ("VOID", "PAID"),
            link_released_at=row.released_at if status == "PROCESSING" else None,
            discarded_at=row.discarded_at,
            refund_state=RefundState[row.refund_state],
            dispute_state=DisputeState[row.dispute_state],
            last_attempt=_attempt(row),
            excess=money(row.excess_minor, currency),
            late=money(row.late_minor, currency),
        )

    @field("The stable link to the checkout page; it works until PAID or VOID.")
    def checkout_url(self) -> URL:
        return URL(payment_links.checkout_url(self.row))

    @field(
        "The text that the dialog's Send inserts into the message box: written for this channel with the link"
        " in it. Sends and stores nothing; the message goes out by sendMessage. Null once the request is PAID"
        " or VOID."
    )
    async def composer_insert(
        self,
        info: Info,
        channel_id: Annotated[strawberry.ID, strawberry.argument(description="The channel to write it for.")],
    ) -> ComposerInsert | None:
        channel = parse_public_id(channel_id, "chn")
        if channel is None:
            raise not_found()
        try:
            made = await request_sending.compose(info.context.actor, self.row, channel)
        except Refusal as refusal:
            raise ApiError(refusal.code, refusal.message) from refusal
        if made is None:
            return None
        return ComposerInsert(
            text=made.text,
            checkout_url=URL(made.checkout_url),
            length=made.measure.length,
            max_length=made.measure.max_length,
            sms_segments=made.measure.segments,
            encoding=SmsEncoding[made.measure.encoding] if made.measure.encoding is not None else None,
        )

    @field("The kind of channel chosen when it was made; null: none was.")
    async def channel_kind(self, info: Info) -> ChannelKind | None:
        row = await self._channel(info)
        return ChannelKind[row.kind] if row is not None else None

    @field("The channel chosen when it was made; null: none was.")
    async def channel(self, info: Info) -> Channel | None:
        row = await self._channel(info)
        return Channel.from_row(row) if row is not None else None

    async def _channel(self, info: Info) -> tables.ChannelConnection | None:
        id = self.row.channel_connection_id
        return await info.context.reads.channel(id) if id is not None else None

    @field("The kind of processor.")
    async def processor_kind(self, info: Info) -> ProcessorKind:
        return ProcessorKind[providers.processor_kind(await self._connection(info))]

    @field("The processor on which it is paid. It stays the same after a disconnect.")
    async def processor(self, info: Info) -> Processor:
        return Processor.from_row(await self._connection(info))

    async def _connection(self, info: Info) -> tables.ProcessorConnection:
        row = await info.context.reads.processor(self.row.processor_connection_id)
        if row is None:
            raise RuntimeError("a payment request without its processor connection")
        return row

    @field("Who made it.")
    async def created_by(self, info: Info) -> Actor:
        return await actor_of(info, actors.of_creation(self.row.created_by, self.row.created_by_id))

    @field("Who voided it, or asked to (voidPending); null: it is not void.")
    async def voided_by(self, info: Info) -> Actor | None:
        row = self.row
        return await actor_of(
            info, actors.of_void(row.void_requested_by, row.void_requested_by_id, row.void_requested_at)
        )

    @field("Its movements of money, oldest first.")
    async def payments(self, info: Info) -> list[Payment]:
        return [Payment.from_view(view) for view in await info.context.reads.payments(self.row.id)]

    @field(
        "Money that arrived and does not count, by currency, less its refunds: the amount or currency differs"
        " from the request. While an unpaid request has any, its link asks for nothing and says that the"
        " business is checking the payment. Resolve it with resolveMismatch, or refund it with refundPayment."
        " Empty: nothing to resolve."
    )
    async def unresolved(self, info: Info) -> list[Money]:
        if not self.row.unresolved:
            return []
        sums: dict[str, int] = {}
        for view in await info.context.reads.payments(self.row.id):
            if view.unresolved_minor:
                sums[view.currency] = sums.get(view.currency, 0) + view.unresolved_minor
        return [money(amount, currency) for currency, amount in sorted(sums.items())]

    @field(
        "Its refunds, oldest first: also those that are not decided, that failed, and that began at the processor. Each"
        " keeps its id."
    )
    async def refunds(self, info: Info) -> list[Refund]:
        return [Refund.from_view(view) for view in await info.context.reads.refunds(self.row.id)]

    @field("Its disputes, oldest first, each as the processor last reported it.")
    async def disputes(self, info: Info) -> list[Dispute]:
        payments = await info.context.reads.payments(self.row.id)
        return [Dispute.from_view(view) for view in payments if view.kind == "DISPUTE"]

    @field("What this viewer may do now. Of the viewer, only the role matters.")
    async def available_actions(self, info: Info) -> list[AvailableAction]:
        role = info.context.actor.role
        # Any request may have payments that are not counted, such as a mismatch. One query reads those of a whole page.
        waits = self.row.unresolved and allows(role, "request_payment")
        left = await info.context.reads.refundable(self.row.id) if allows(role, "refund") or waits else {}
        resolvable = waits and mismatches.resolvable(await info.context.reads.payments(self.row.id), left)
        return [
            AvailableAction(
                action=PaymentRequestAction[action],
                resulting_status=PaymentRequestStatus[status] if status is not None else None,
            )
            for action, status in payment_requests.available_actions(
                self.row, role, refundable=bool(left), resolvable=resolvable
            )
        ]


def _attempt(row: tables.PaymentRequest) -> PaymentAttempt | None:
    if row.last_attempt_status is None or row.last_attempt_at is None:
        return None
    return PaymentAttempt(
        status=PaymentStatus[row.last_attempt_status],
        decline_code=row.last_attempt_code,
        message=row.last_attempt_message,
        at=row.last_attempt_at,
    )


@strawberry.type(description="A payment request in a list.")
class PaymentRequestEdge:
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    node: PaymentRequest = strawberry.field(description="The payment request.")


@strawberry.type(description="Payment requests, in the order asked for.")
class PaymentRequestConnection:
    count: strawberry.Private[Count]
    edges: list[PaymentRequestEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[PaymentRequest] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field(TOTAL)
    async def total_count(self) -> int | None:
        return await self.count()

    @field(
        "Position in the event log, read before the data: pass it to inboxEvents(after:), or for a contact's requests"
        " to contactPaymentEvents(after:)."
    )
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)

    @classmethod
    def from_slice(cls, page: Slice[tables.PaymentRequest], count: Count) -> Self:
        nodes, cursors = [PaymentRequest.from_row(row) for row in page.rows], page.cursors
        return cls(
            count=count,
            edges=[PaymentRequestEdge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
            nodes=nodes,
            page_info=page.info(cursors),
        )
