"""The conversation: one per contact, for all channels."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry
from strawberry.types.lazy_type import LazyType

from models import tables
from models.ids import public_id
from schema.account import ConversationChannel, User
from schema.connections import THREAD, TOTAL, After, Before, Count, First, Last, Slice
from schema.context import Info, event_cursor
from schema.describe import field
from schema.scalars import Cursor, Node, PageInfo
from schema.thread import ThreadConnection


async def _contact(root: Conversation, info: Info) -> object:
    return await info.context.reads.contact_node(root.row.contact_id)


@strawberry.type(description="Everything exchanged with one contact on all channels, with its activity cards.")
class Conversation(Node):
    row: strawberry.Private[tables.Conversation]
    unread_count: int = strawberry.field(description="Inbound messages not read yet; shared by the team.")
    last_activity_at: datetime = strawberry.field(
        description="When the newest thread item came; lists are sorted by it."
    )
    preview: str = strawberry.field(description="The beginning of the newest thread item.")
    closed_at: datetime | None = strawberry.field(
        description="When the team closed it; null: it is open. The contact's next message opens it again."
    )
    waiting_since: datetime | None = strawberry.field(
        description=(
            "Since when the contact waits: its first message after the team's last one. Null: it does not wait, or the"
            " team has closed the conversation. Automatic answers leave it waiting."
        )
    )
    tags: list[str] = strawberry.field(description="Labels of the team, in the order in which they were put on.")
    draft: str | None = strawberry.field(description="The team's unsent text in the message box; null: none.")
    contact: object = strawberry.field(
        resolver=_contact, graphql_type=LazyType("Contact", "schema.contact"), description="Its contact."
    )

    @classmethod
    def from_row(cls, row: tables.Conversation) -> Self:
        return cls(
            id=strawberry.ID(public_id("cnv", row.id)),
            row=row,
            unread_count=row.unread_count,
            last_activity_at=row.last_activity_at,
            preview=row.preview,
            closed_at=row.closed_at,
            waiting_since=row.waiting_since,
            tags=list(row.tags),
            draft=row.draft,
        )

    @field("The account's channels, and how this contact can be reached on each now, for the composer's picker.")
    async def channels(self, info: Info) -> list[ConversationChannel]:
        return [
            ConversationChannel.from_reach(self.row, reach) for reach in await info.context.reads.capabilities(self.row)
        ]

    @field(
        "The addresses that a reply to all by email copies: the other people on the newest received email, without the contact,"
        " the account's own addresses and people who opted out. Pass it as `cc` of sendMessage, changed or not."
    )
    async def suggested_cc(self, info: Info) -> list[str]:
        return await info.context.reads.suggested_cc(self.row)

    @field("The assigned user; null: none.")
    async def assignee(self, info: Info) -> User | None:
        if self.row.assignee_id is None:
            return None
        row = await info.context.reads.user(self.row.assignee_id)
        return User.from_row(row) if row is not None else None

    @field("Whether the viewer gets notifications of payments here without being the assignee.")
    async def following(self, info: Info) -> bool:
        return await info.context.reads.following(self.row.id)

    @field("Messages and activity cards, oldest first. Without arguments the newest 50.")
    async def thread(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> ThreadConnection:
        page = THREAD.page(first=first, after=after, last=last, before=before, from_end=True)
        reads = info.context.reads
        return ThreadConnection.from_slice(await reads.thread(self.row, page), lambda: reads.thread_count(self.row))

    @field(
        "Position in the event log, read before the data of this answer: pass it to"
        " conversationEvents(after:) so that no event between query and subscription is lost."
    )
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)


@strawberry.type(description="A conversation in a list.")
class ConversationEdge:
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    node: Conversation = strawberry.field(description="The conversation.")


@strawberry.type(description="Conversations, in the order asked for.")
class ConversationConnection:
    count: strawberry.Private[Count]
    edges: list[ConversationEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[Conversation] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field(TOTAL)
    async def total_count(self) -> int | None:
        return await self.count()

    @field("Position in the event log, read before the data: pass it to inboxEvents(after:).")
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)

    @classmethod
    def from_slice(cls, page: Slice[tables.Conversation], count: Count) -> Self:
        nodes, cursors = [Conversation.from_row(row) for row in page.rows], page.cursors
        return cls(
            count=count,
            edges=[ConversationEdge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
            nodes=nodes,
            page_info=page.info(cursors),
        )
