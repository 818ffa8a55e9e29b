"""A user's notifications."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry

from models import tables
from models.ids import public_id
from schema.connections import NOTIFICATIONS, TOTAL, Count, Slice
from schema.context import Info, event_cursor
from schema.conversation import Conversation
from schema.describe import field
from schema.payment_request import PaymentRequest
from schema.scalars import ActivityKind, Cursor, DigestFrequency, Node, NotificationScope, NotificationTopic, PageInfo
from services.team.notification_rules import Rules


@strawberry.type(description="One notification to one user.")
class Notification(Node):
    row: strawberry.Private[tables.Notification]
    kind: ActivityKind = strawberry.field(description="What happened.")
    title: str = strawberry.field(description="The headline.")
    body: str = strawberry.field(description="More about it.")
    read_at: datetime | None = strawberry.field(description="When the user read it; null: not yet.")
    created_at: datetime = strawberry.field(description="When it happened.")

    @classmethod
    def from_row(cls, row: tables.Notification) -> Self:
        return cls(
            id=strawberry.ID(public_id("ntf", row.id)),
            row=row,
            kind=ActivityKind[row.kind],
            title=row.title,
            body=row.body,
            read_at=row.read_at,
            created_at=row.created_at,
        )

    @field("The payment request that it is about, as it is now; null: none.")
    async def payment_request(self, info: Info) -> PaymentRequest | None:
        if self.row.payment_request_id is None:
            return None
        row = await info.context.reads.payment_request(self.row.payment_request_id)
        return PaymentRequest.from_row(row) if row is not None else None

    @field("The conversation to open; null: none.")
    async def conversation(self, info: Info) -> Conversation | None:
        if self.row.conversation_id is None:
            return None
        row = await info.context.reads.conversation(self.row.conversation_id)
        return Conversation.from_row(row) if row is not None else None


@strawberry.type(description="A notification in a list.")
class NotificationEdge:
    cursor: Cursor = strawberry.field(
        description="Its position, for `after` and `before`, and for markNotificationsRead."
    )
    node: Notification = strawberry.field(description="The notification.")

    @classmethod
    def from_row(cls, row: tables.Notification) -> Self:
        return cls(cursor=NOTIFICATIONS.cursor(row.seq), node=Notification.from_row(row))


@strawberry.type(description="The viewer's notifications, newest first. Empty for an API key.")
class NotificationConnection:
    count: strawberry.Private[Count]
    edges: list[NotificationEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[Notification] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field(TOTAL)
    async def total_count(self) -> int | None:
        return await self.count()

    @field("Position in the event log, read before the data: pass it to notificationEvents(after:).")
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)

    @classmethod
    def from_slice(cls, page: Slice[tables.Notification], count: Count) -> Self:
        edges = [NotificationEdge.from_row(row) for row in page.rows]
        return cls(
            count=count,
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=page.info([edge.cursor for edge in edges]),
        )


@strawberry.type(description="What of one topic a user is notified of.")
class NotificationRule:
    topic: NotificationTopic = strawberry.field(description="The topic.")
    scope: NotificationScope = strawberry.field(
        description=(
            "Of whose conversations. What concerns no other user goes to owners and admins in any case. Of TEAM, every scope but"
            " NONE is the same."
        )
    )
    by_email: bool = strawberry.field(description="Whether the email digest has it, too.")


@strawberry.type(description="Hours of the account's day in which no email is sent.")
class QuietHours:
    from_: str = strawberry.field(name="from", description="When they begin, e.g. 20:00.")
    until: str = strawberry.field(description="When they end, e.g. 07:30; earlier than `from`: on the next day.")


@strawberry.type(description="A user's rules for notifications.")
class NotificationRules:
    rules: list[NotificationRule] = strawberry.field(description="One for each topic.")
    digest: DigestFrequency = strawberry.field(description="How often unread notifications are emailed.")
    quiet_hours: QuietHours | None = strawberry.field(description="When no email is sent; null: none.")

    @classmethod
    def from_rules(cls, found: Rules) -> Self:
        return cls(
            rules=[
                NotificationRule(
                    topic=NotificationTopic[topic], scope=NotificationScope[rule.scope], by_email=rule.by_email
                )
                for topic, rule in found.by_topic.items()
            ],
            digest=DigestFrequency[found.frequency],
            quiet_hours=QuietHours(from_=_clock(found.quiet[0]), until=_clock(found.quiet[1])) if found.quiet else None,
        )


def _clock(minute: int) -> str:
    return f"{minute // 60:02d}:{minute % 60:02d}"
