"""Messages that a search found."""

from __future__ import annotations

from typing import Self

import strawberry

from models import tables
from schema.connections import THREAD, TOTAL, Count, Slice
from schema.context import Info, event_cursor
from schema.conversation import Conversation
from schema.describe import field
from schema.scalars import Cursor, PageInfo
from schema.thread import Message


@strawberry.type(description="A message in a list.")
class MessageEdge:
    row: strawberry.Private[tables.Message]
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    thread_cursor: Cursor = strawberry.field(
        description="Its position in its thread, for `after` and `before` of Conversation.thread."
    )
    node: Message = strawberry.field(description="The message.")

    @field("The conversation that it is in.")
    async def conversation(self, info: Info) -> Conversation:
        row = await info.context.reads.conversation(self.row.conversation_id)
        if row is None:
            raise RuntimeError("a message without its conversation")
        return Conversation.from_row(row)

    @classmethod
    def from_row(cls, row: tables.Message, cursor: Cursor) -> Self:
        return cls(row=row, cursor=cursor, thread_cursor=THREAD.cursor(row.seq), node=Message.from_row(row))


@strawberry.type(description="Messages, newest first.")
class MessageConnection:
    count: strawberry.Private[Count]
    edges: list[MessageEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[Message] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field(TOTAL)
    async def total_count(self) -> int | None:
        return await self.count()

    @field("Position in the event log, read before the data: pass it to inboxEvents(after:).")
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)

    @classmethod
    def from_slice(cls, page: Slice[tables.Message], count: Count) -> Self:
        edges = [MessageEdge.from_row(row, cursor) for row, cursor in zip(page.rows, page.cursors, strict=True)]
        return cls(
            count=count,
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=page.info([edge.cursor for edge in edges]),
        )
