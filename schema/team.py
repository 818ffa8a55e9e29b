"""Invitations of users."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Self
from uuid import UUID

import strawberry

from models import tables
from models.ids import public_id
from schema.account import User
from schema.connections import INVITATIONS, Slice
from schema.context import Info
from schema.describe import field
from schema.scalars import Cursor, Node, PageInfo, Role, value
from services.team import invitations


@strawberry.enum(description="What has become of an invitation.")
class InvitationStatus(Enum):
    OPEN = value("OPEN", description="Its link works.")
    EXPIRED = value("EXPIRED", description="Its link no longer works; resendInvitation gives a new one.")
    ACCEPTED = value("ACCEPTED", description="The person is a user.")
    REVOKED = value("REVOKED", description="The team took it back.")


@strawberry.type(
    description="An invitation to become a user. Its link is in the email, or in the answer of inviteUser."
)
class Invitation(Node):
    row: strawberry.Private[tables.Invitation]
    email: str = strawberry.field(description="The address that the person will sign in with.")
    name: str | None = strawberry.field(description="The person's name; null: the person gives it.")
    role: Role = strawberry.field(description="The role that the person will have.")
    created_at: datetime = strawberry.field(description="When it was made.")
    expires_at: datetime = strawberry.field(description="When its link stops to work.")
    accepted_at: datetime | None = strawberry.field(description="When it was accepted; null: it was not.")
    revoked_at: datetime | None = strawberry.field(description="When it was revoked; null: it was not.")
    emailed_at: datetime | None = strawberry.field(
        description="When the mail server took the email with the newest link; null: not yet, or there is no mail server."
    )
    email_error: str | None = strawberry.field(description="Why that email was not sent, in English; null: no error.")

    @classmethod
    def from_row(cls, row: tables.Invitation) -> Self:
        return cls(
            id=strawberry.ID(public_id("inv", row.id)),
            row=row,
            email=row.email,
            name=row.name,
            role=Role[row.role],
            created_at=row.created_at,
            expires_at=row.expires_at,
            accepted_at=row.accepted_at,
            revoked_at=row.revoked_at,
            emailed_at=row.emailed_at,
            email_error=row.email_error,
        )

    @field("What has become of it.")
    def status(self) -> InvitationStatus:
        if self.row.accepted_at is not None:
            return InvitationStatus.ACCEPTED
        if self.row.revoked_at is not None:
            return InvitationStatus.REVOKED
        is_open = invitations.is_open(self.row, datetime.now(UTC))
        return InvitationStatus.OPEN if is_open else InvitationStatus.EXPIRED

    @field("Who invited; null: an API key or the command line.")
    async def invited_by(self, info: Info) -> User | None:
        return await _user(info, self.row.invited_by_id)

    @field("Who accepted; null: not accepted.")
    async def user(self, info: Info) -> User | None:
        return await _user(info, self.row.user_id)


async def _user(info: Info, id: UUID | None) -> User | None:
    row = await info.context.reads.user(id) if id is not None else None
    return User.from_row(row) if row is not None else None


@strawberry.type(description="An invitation in a list.")
class InvitationEdge:
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    node: Invitation = strawberry.field(description="The invitation.")


@strawberry.type(description="The account's invitations, newest first.")
class InvitationConnection:
    edges: list[InvitationEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[Invitation] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field("How many there are. Counted up to 10,000; null: more.")
    async def total_count(self, info: Info) -> int | None:
        return await info.context.reads.invitations_count()

    @classmethod
    def from_slice(cls, page: Slice[tables.Invitation]) -> Self:
        nodes = [Invitation.from_row(row) for row in page.rows]
        cursors = [INVITATIONS.cursor(row.id) for row in page.rows]
        return cls(
            edges=[InvitationEdge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
            nodes=nodes,
            page_info=page.info(cursors),
        )
