"""The thread: messages and activity cards in one order."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry

from models import tables
from models.ids import public_id
from schema import reasons
from schema.account import Channel, ConversationChannel, User
from schema.actor import Actor, actor_of
from schema.connections import THREAD, TOTAL, Count, Slice
from schema.context import Info, event_cursor
from schema.describe import field
from schema.payment import Payment
from schema.payment_request import PaymentRequest
from schema.reasons import AttachmentRefusal
from schema.scalars import (
    URL,
    ActivityKind,
    AttachmentStatus,
    ChannelKind,
    Cursor,
    DeliveryStatus,
    MessageDirection,
    Node,
    PageInfo,
    PaymentRequestStatus,
)
from services.core import actors
from services.messaging import attachments, resending


@strawberry.interface(
    description="An entry of the thread: a message, an activity card or a note. Its place never changes."
)
class ThreadItem(Node):
    occurred_at: datetime = strawberry.field(description="When it happened.")


@strawberry.type(
    description="A file that the contact sent with a message. MessageUpdated reports changes of its status."
)
class Attachment(Node):
    row: strawberry.Private[tables.Attachment]
    name: str = strawberry.field(description="Its name; made up if the provider gives none.")
    content_type: str = strawberry.field(
        description="Detected from its content once STORED; before, as the provider reports it."
    )
    size_bytes: int | None = strawberry.field(description="Its size; null: not known yet.")
    status: AttachmentStatus = strawberry.field(description="Its status.")
    reason: AttachmentRefusal | None = strawberry.field(description="Why it is missing; null: it is stored or pending.")

    @classmethod
    def from_row(cls, row: tables.Attachment) -> Self:
        return cls(
            id=strawberry.ID(public_id(attachments.PREFIX, row.id)),
            row=row,
            name=row.name,
            content_type=row.content_type,
            size_bytes=row.size_bytes,
            status=AttachmentStatus[row.status],
            reason=reasons.of_file(row.reason),
        )

    @field(
        "Serves the file for 15 minutes to anyone with this address: images inline, other types as a"
        " download. Query again for a new address. Null: it is not STORED."
    )
    def url(self) -> URL | None:
        address = attachments.url_of(self.row)
        return URL(address) if address is not None else None


@strawberry.type(description="A message from or to the contact.")
class Message(ThreadItem):
    row: strawberry.Private[tables.Message]
    direction: MessageDirection = strawberry.field(description="Its direction.")
    channel_kind: ChannelKind = strawberry.field(description="The kind of channel that it travelled on.")
    subject: str | None = strawberry.field(description="Email's subject line; null on other channels.")
    body: str = strawberry.field(description="Its text; for an email without the earlier messages that it quotes.")
    quoted_text: str | None = strawberry.field(
        description="What an email quotes of earlier messages, to be folded; null: `body` leaves nothing out."
    )
    address: str = strawberry.field(description="The contact's address that it came from or went to.")
    cc: list[str] = strawberry.field(description="Addresses of an email's other recipients.")
    undelivered_cc: list[str] = strawberry.field(
        description="The `cc` addresses that the email did not reach; `deliveryStatus` is about the contact."
    )
    delivery_status: DeliveryStatus = strawberry.field(description="Its delivery status.")
    failure_reason: str | None = strawberry.field(description="Why it failed, as text; null: it did not.")
    error_code: str | None = strawberry.field(description="The provider's error code; null: none.")
    template_id: str | None = strawberry.field(
        description="The approved template that the contact got in place of the text; null: the contact got the text."
    )
    reaction: str | None = strawberry.field(description="The contact's reaction to it, an emoji; null: none.")
    edited_at: datetime | None = strawberry.field(
        description="When its sender last edited it; `body` is the new text; null: never."
    )
    removed_at: datetime | None = strawberry.field(
        description="When its sender deleted it: text and files are gone, `body` says so; null: it was not deleted."
    )

    @classmethod
    def from_row(cls, row: tables.Message) -> Self:
        status = row.delivery_status
        return cls(
            id=strawberry.ID(public_id("msg", row.id)),
            occurred_at=row.occurred_at,
            row=row,
            direction=MessageDirection[row.direction],
            channel_kind=ChannelKind[row.kind],
            subject=row.subject,
            body=row.body,
            quoted_text=row.quoted_text,
            address=row.address,
            cc=row.cc or [],
            undelivered_cc=row.undelivered_cc or [],
            delivery_status=DeliveryStatus.QUEUED if status == "SENDING" else DeliveryStatus[status],
            failure_reason=row.error_message,
            error_code=row.error_code,
            template_id=row.template_id,
            reaction=row.reaction,
            edited_at=row.edited_at,
            removed_at=row.removed_at,
        )

    @field(
        "Who wrote it: the contact, a user, an API key, or a part of the system, such as the channel's own inbox, by its name."
    )
    async def author(self, info: Info) -> Actor:
        row = self.row
        by = actors.of_message(row.author, row.author_id, row.author_name, row.direction, row.contact_id)
        return await actor_of(info, by)

    @field("The channel that it came in on or goes out of; it distinguishes two numbers of one kind.")
    async def channel(self, info: Info) -> Channel:
        row = await info.context.reads.channel(self.row.channel_connection_id)
        if row is None:
            raise RuntimeError("a message without its channel")
        return Channel.from_row(row)

    @field("The files that came with it, in the contact's order.")
    async def attachments(self, info: Info) -> list[Attachment]:
        return [Attachment.from_row(row) for row in await info.context.reads.attachments(self.row.id)]

    @field("The requests whose links the text contains.")
    async def payment_requests(self, info: Info) -> list[PaymentRequest]:
        return [PaymentRequest.from_row(row) for row in await info.context.reads.requests_of_message(self.row.id)]

    @field(
        "Where this message could be sent again now (resendMessage), best first. Empty unless it failed or"
        " its outcome is unknown, and while a resend is under way. Sending uses the same rule."
    )
    async def resend_options(self, info: Info) -> list[ConversationChannel]:
        if self.row.direction != "OUTBOUND" or self.row.delivery_status not in resending.REPEATABLE:
            return []
        reads = info.context.reads
        conversation = await reads.conversation(self.row.conversation_id)
        if conversation is None:
            return []
        found = resending.options(
            self.row,
            await reads.other_attempts(self.row),
            await reads.capabilities(conversation),
            await reads.requests_of_message(self.row.id),
            await reads.processors(),
        )
        return [ConversationChannel.from_reach(conversation, reach) for reach in found]

    @field("The message that it answers, if the channel reports it; null: none known.")
    async def reply_to(self, info: Info) -> Message | None:
        if self.row.reply_to_id is None:
            return None
        row = await info.context.reads.message(self.row.reply_to_id)
        return Message.from_row(row) if row is not None else None

    @field("The message that this one resends, the first one if it was resent several times; null: it is not a resend.")
    async def retry_of(self, info: Info) -> Message | None:
        if self.row.retry_of_id is None:
            return None
        row = await info.context.reads.message(self.row.retry_of_id)
        return Message.from_row(row) if row is not None else None


@strawberry.type(
    description=(
        "An entry that the system logs, never sent to the contact. A card never changes; its payment request does."
    )
)
class ActivityCard(ThreadItem):
    row: strawberry.Private[tables.ActivityCard]
    kind: ActivityKind = strawberry.field(description="Why it was logged.")
    status: PaymentRequestStatus = strawberry.field(description="Status when the card was logged; never changes.")
    text: str = strawberry.field(description="What it says, for the team.")

    @classmethod
    def from_row(cls, row: tables.ActivityCard) -> Self:
        return cls(
            id=strawberry.ID(public_id("card", row.id)),
            occurred_at=row.occurred_at,
            row=row,
            kind=ActivityKind[row.kind],
            status=PaymentRequestStatus[row.status],
            text=row.text,
        )

    @field("The payment request as it is now.")
    async def payment_request(self, info: Info) -> PaymentRequest:
        row = await info.context.reads.payment_request(self.row.payment_request_id)
        if row is None:
            raise RuntimeError("an activity card without its payment request")
        return PaymentRequest.from_row(row)

    @field(
        "The message that it is about: the one that asked, or was not delivered (see its resendOptions); null: none."
    )
    async def message(self, info: Info) -> Message | None:
        if self.row.message_id is None:
            return None
        row = await info.context.reads.message(self.row.message_id)
        return Message.from_row(row) if row is not None else None

    @field("The movement of money that it is about; null: none.")
    async def payment(self, info: Info) -> Payment | None:
        if self.row.money_fact_id is None:
            return None
        view = await info.context.reads.payment_of_fact(self.row.money_fact_id)
        return Payment.from_view(view) if view is not None else None

    @field("Who caused it; null: not known, of a card that an older version logged.")
    async def actor(self, info: Info) -> Actor | None:
        return await actor_of(info, actors.of_card(self.row.actor, self.row.actor_id))


@strawberry.type(
    description="An internal note. Only the team reads it; it is never sent, and changes neither preview nor order. Hidden from VIEWERs."
)
class Note(ThreadItem):
    row: strawberry.Private[tables.Note]
    body: str = strawberry.field(description="The text.")

    @classmethod
    def from_row(cls, row: tables.Note) -> Self:
        return cls(id=strawberry.ID(public_id("note", row.id)), row=row, occurred_at=row.occurred_at, body=row.body)

    @field("Who wrote it.")
    async def author(self, info: Info) -> Actor:
        return await actor_of(info, actors.parse(self.row.author))

    @field("The users whom it mentions; each got a notification.")
    async def mentions(self, info: Info) -> list[User]:
        return [User.from_row(row) for row in await info.context.reads.mentioned(self.row.id)]


def thread_item(row: tables.ThreadRow) -> Message | ActivityCard | Note:
    if isinstance(row, tables.Note):
        return Note.from_row(row)
    return Message.from_row(row) if isinstance(row, tables.Message) else ActivityCard.from_row(row)


@strawberry.type(description="A thread item in its connection.")
class ThreadEdge:
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    node: ThreadItem = strawberry.field(description="The message, card or note.")

    @classmethod
    def from_row(cls, row: tables.ThreadRow) -> Self:
        return cls(cursor=THREAD.cursor(row.seq), node=thread_item(row))


@strawberry.type(description="A page of the thread, oldest first. Without arguments the newest 50.")
class ThreadConnection:
    count: strawberry.Private[Count]
    edges: list[ThreadEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[ThreadItem] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field(TOTAL)
    async def total_count(self) -> int | None:
        return await self.count()

    @field("Position in the event log, read before the data: pass it to conversationEvents(after:).")
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)

    @classmethod
    def from_slice(cls, page: Slice[tables.ThreadRow], count: Count) -> Self:
        edges = [ThreadEdge.from_row(row) for row in page.rows]
        return cls(
            count=count,
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=page.info([edge.cursor for edge in edges]),
        )
