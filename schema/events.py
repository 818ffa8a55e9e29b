"""Events of subscriptions. Their objects are loaded on delivery."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated, TypeAlias
from uuid import UUID

import strawberry

from models import tables
from schema.account import Account
from schema.actor import Actor, actor_of
from schema.connections import CONTACT_REQUESTS
from schema.contact import Contact
from schema.context import Info
from schema.conversation import Conversation
from schema.dashboard import DashboardFigures, dashboard_figures
from schema.describe import field
from schema.notification import NotificationEdge
from schema.payment_request import PaymentRequest, PaymentRequestEdge
from schema.reasons import ResyncReason
from schema.scalars import Cursor, PaymentRequestStatus, value
from schema.thread import ActivityCard, Message, ThreadEdge
from schema.viewer import Viewer
from services.core.actors import ActorRef
from services.payments.dashboard import Board


@strawberry.enum(description="What of a payment request has changed.")
class PaymentRequestFacet(Enum):
    STATUS = value("STATUS", description="status, with sentAt, paidAt and voidedAt.")
    PAYMENTS = value("PAYMENTS", description="payments, and amountPaid, amountDue, waived, excess and late.")
    MISMATCH = value("MISMATCH", description="unresolved: money that waits for the team's decision.")
    REFUNDS = value("REFUNDS", description="refunds and refundState, and what is left to refund.")
    DISPUTES = value("DISPUTES", description="disputes and disputeState.")
    ATTEMPT = value("ATTEMPT", description="lastAttempt.")
    LINK = value("LINK", description="linkReleasedAt, and whether the link can be released.")
    DELIVERY = value("DELIVERY", description="deliveryState, sentAt, sentVia and linkCopiedAt.")
    VIEWS = value("VIEWS", description="firstViewedAt, lastViewedAt and humanViews.")
    OVERDUE = value("OVERDUE", description="isOverdue became true.")
    VOID = value("VOID", description="voidPending, voidReason and voidedAt.")
    DISCARDED = value("DISCARDED", description="discardedAt: remove the request from lists.")


class Gone(RuntimeError):
    """An event names a missing row, which is a bug."""


@strawberry.enum(description="What caused an event: who acted, or whose report it came from.")
class EventCause(Enum):
    USER = value("USER", description="A user of the team.")
    API_KEY = value("API_KEY", description="A program with an API key.")
    CONTACT = value("CONTACT", description="The contact: a message, or a visit of the checkout page.")
    PROCESSOR = value("PROCESSOR", description="A processor's report: a payment, refund or dispute.")
    CHANNEL = value("CHANNEL", description="A channel's report: a delivery status, or an edit by its vendor.")
    SYSTEM = value(
        "SYSTEM", description="Paythread itself: a job, or a date that passed. Also entries of older versions."
    )


@strawberry.interface(description="Something that happened. Clients must ignore members that they do not know.")
class Event:
    cursor: Cursor = strawberry.field(
        description="Position in the event log: keep the newest one, pass it as `after` to resume without a gap."
    )
    occurred_at: datetime = strawberry.field(description="When it happened.")
    cause: EventCause = strawberry.field(description="What caused it.")
    by: strawberry.Private[ActorRef | None]

    @field("Who caused it; null: not known, because an older version logged it, or it only opens or ends the feed.")
    async def actor(self, info: Info) -> Actor | None:
        return await actor_of(info, self.by)


@strawberry.type(
    description="First event of every subscription, sent immediately: a resume point even if nothing happens."
)
class Subscribed(Event):
    pass


@strawberry.type(
    description=(
        "The events after `after` can't all be delivered: query again, then subscribe with the query's eventCursor."
        " Nothing else follows."
    )
)
class ResyncRequired(Event):
    reason: ResyncReason = strawberry.field(description="Why.")


async def _contact(info: Info, event: Event, id: UUID) -> Contact:
    row = await info.context.reads.contact(id)
    if row is None:
        raise Gone(event.cursor)
    return Contact.from_row(row)


async def _conversation(info: Info, event: Event, id: UUID) -> Conversation:
    row = await info.context.reads.conversation(id)
    if row is None:
        raise Gone(event.cursor)
    return Conversation.from_row(row)


async def _message(info: Info, event: Event, id: UUID) -> tables.Message:
    row = await info.context.reads.message(id)
    if row is None:
        raise Gone(event.cursor)
    return row


async def _request(info: Info, event: Event, id: UUID) -> PaymentRequest:
    row = await info.context.reads.payment_request(id)
    if row is None:
        raise Gone(event.cursor)
    return PaymentRequest.from_row(row)


@strawberry.type(
    description=(
        "A message or an activity card was added to a thread, which also changes the conversation's preview,"
        " lastActivityAt and place in the inbox."
    )
)
class ThreadItemAdded(Event):
    message_row: strawberry.Private[UUID | None]
    card_row: strawberry.Private[UUID | None]
    note_row: strawberry.Private[UUID | None]
    conversation_row: strawberry.Private[UUID]
    contact_row: strawberry.Private[UUID]

    @field("The new item, as an edge to put after the thread's last. Its cursor is the one that the thread gives.")
    async def edge(self, info: Info) -> ThreadEdge:
        if self.message_row is not None:
            return ThreadEdge.from_row(await _message(info, self, self.message_row))
        reads = info.context.reads
        row: tables.ActivityCard | tables.Note | None = None
        if self.card_row is not None:
            row = await reads.card(self.card_row)
        elif self.note_row is not None:
            row = await reads.note(self.note_row)
        if row is None:
            raise Gone(self.cursor)
        return ThreadEdge.from_row(row)

    @field("The conversation as it is now: its row of the inbox.")
    async def conversation(self, info: Info) -> Conversation:
        return await _conversation(info, self, self.conversation_row)

    @field("The conversation's contact as it is now.")
    async def contact(self, info: Info) -> Contact:
        return await _contact(info, self, self.contact_row)


@strawberry.type(
    description="A payment request was created or has changed. If its discardedAt is set, remove it from lists."
)
class PaymentRequestUpdated(Event):
    payment_request_row: strawberry.Private[UUID]
    new_row: strawberry.Private[UUID | None]  # the same, if it is new
    card_row: strawberry.Private[UUID | None]
    previous_status: PaymentRequestStatus | None = strawberry.field(
        description="The status before; equal to the new one if only a facet changed. Null: newly created."
    )
    changed: list[PaymentRequestFacet] = strawberry.field(
        description=(
            "What has changed, also by events of the same transaction. STATUS alone: the request is new, or no facet"
            " changed. Empty: only `card` is new."
        )
    )

    @field("The payment request as it is now.")
    async def payment_request(self, info: Info) -> PaymentRequest:
        return await _request(info, self, self.payment_request_row)

    # Not named `edge`: beside ThreadItemAdded.edge, validation would refuse both in one selection.
    @field(
        "The request, as an edge to put before the first of its contact's list. Its cursor is the one that the list"
        " gives. Null: it is not new."
    )
    async def payment_request_edge(self, info: Info) -> PaymentRequestEdge | None:
        if self.new_row is None:
            return None
        cursor = CONTACT_REQUESTS.cursor(self.new_row)
        return PaymentRequestEdge(cursor=cursor, node=await _request(info, self, self.new_row))

    @field("The card that was logged with it; null: none was.")
    async def card(self, info: Info) -> ActivityCard | None:
        if self.card_row is None:
            return None
        row = await info.context.reads.card(self.card_row)
        return ActivityCard.from_row(row) if row is not None else None


@strawberry.type(description="A message's delivery status, text, reaction or files have changed.")
class MessageUpdated(Event):
    message_row: strawberry.Private[UUID]
    conversation_row: strawberry.Private[UUID]

    @field("The message as it is now.")
    async def message(self, info: Info) -> Message:
        return Message.from_row(await _message(info, self, self.message_row))

    @field("The message's conversation as it is now.")
    async def conversation(self, info: Info) -> Conversation:
        return await _conversation(info, self, self.conversation_row)


@strawberry.type(description="The contact's record or its payment summary changed, or the contact is new.")
class ContactUpdated(Event):
    contact_row: strawberry.Private[UUID]

    @field("The contact as it is now.")
    async def contact(self, info: Info) -> Contact:
        return await _contact(info, self, self.contact_row)


@strawberry.type(
    description=(
        "Two contacts were merged (mergeContacts). Drop the merged contact and its conversation, and read the"
        " kept ones again with thread and payments. The merged ids give the kept contact and conversation"
        " from now on."
    )
)
class ContactMerged(Event):
    contact_row: strawberry.Private[UUID]
    conversation_row: strawberry.Private[UUID]
    merged_contact_id: strawberry.ID = strawberry.field(description="The contact to drop.")
    merged_conversation_id: strawberry.ID = strawberry.field(description="The conversation to drop.")

    @field("The contact that is kept, as it is now.")
    async def contact(self, info: Info) -> Contact:
        return await _contact(info, self, self.contact_row)

    @field("The conversation that is kept, as it is now.")
    async def conversation(self, info: Info) -> Conversation:
        return await _conversation(info, self, self.conversation_row)


@strawberry.type(
    description="The conversation is new or has changed: assignee, followers, draft, unread count, closed or not."
)
class ConversationUpdated(Event):
    conversation_row: strawberry.Private[UUID]

    @field("The conversation as it is now.")
    async def conversation(self, info: Info) -> Conversation:
        return await _conversation(info, self, self.conversation_row)


@strawberry.type(
    description=(
        "The account's settings or tags, a user, a processor, a channel or an API key changed. This may also change what"
        " conversations can send, and the dashboard's figures."
    )
)
class AccountUpdated(Event):
    @field("The account as it is now, with its processors and channels.")
    async def account(self, info: Info) -> Account:
        return Account.from_row(await info.context.reads.account())


@strawberry.type(description="The viewer has a new notification.")
class NotificationAdded(Event):
    notification_row: strawberry.Private[UUID]

    @field("The notification, as an edge to put before the list's first.")
    async def edge(self, info: Info) -> NotificationEdge:
        row = await info.context.reads.notification(self.notification_row)
        if row is None:
            raise Gone(self.cursor)
        return NotificationEdge.from_row(row)

    @field("The viewer, with the number of unread notifications now.")
    async def viewer(self, info: Info) -> Viewer:
        return Viewer.from_actor(info.context.actor)


@strawberry.type(description="The viewer has read notifications, perhaps in another tab or device.")
class NotificationsRead(Event):
    @field("The viewer, with the number of unread notifications now.")
    async def viewer(self, info: Info) -> Viewer:
        return Viewer.from_actor(info.context.actor)


@strawberry.type(
    description=(
        "The dashboard's figures have changed: by money, requests or settings, or because the account's day"
        " is over. The end of a day has no entry in the log: that event has the previous cursor."
    )
)
class DashboardUpdated(Event):
    board: strawberry.Private[Board]

    @field("The figures now.")
    async def figures(self, info: Info) -> DashboardFigures:
        return await dashboard_figures(info.context.actor.account_id, self.board)


ConversationEvent: TypeAlias = Annotated[
    Subscribed
    | ResyncRequired
    | ThreadItemAdded
    | PaymentRequestUpdated
    | MessageUpdated
    | ContactUpdated
    | ContactMerged
    | ConversationUpdated
    | AccountUpdated,
    strawberry.union("ConversationEvent", description="The events of conversationEvents."),
]
InboxEvent: TypeAlias = Annotated[
    Subscribed
    | ResyncRequired
    | ThreadItemAdded
    | PaymentRequestUpdated
    | MessageUpdated
    | ContactUpdated
    | ContactMerged
    | ConversationUpdated
    | AccountUpdated,
    strawberry.union("InboxEvent", description="The events of inboxEvents."),
]
ContactPaymentEvent: TypeAlias = Annotated[
    Subscribed | ResyncRequired | PaymentRequestUpdated | ContactUpdated | ContactMerged,
    strawberry.union("ContactPaymentEvent", description="The events of contactPaymentEvents."),
]
NotificationEvent: TypeAlias = Annotated[
    Subscribed | ResyncRequired | NotificationAdded | NotificationsRead,
    strawberry.union("NotificationEvent", description="The events of notificationEvents."),
]
DashboardEvent: TypeAlias = Annotated[
    Subscribed | ResyncRequired | DashboardUpdated,
    strawberry.union("DashboardEvent", description="The events of dashboardEvents."),
]
