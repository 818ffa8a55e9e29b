"""Who is asking."""

from __future__ import annotations

from typing import Self
from uuid import uuid5

import strawberry

from models.ids import PREFIXES, public_id
from schema.account import Account, User
from schema.context import Info
from schema.describe import field
from schema.scalars import Node, Role
from schema.session import Session
from services.accounts import sessions
from services.core.permissions import Actor


def viewer_id(actor: Actor) -> strawberry.ID:
    """The same in all sessions of a user."""
    # The credential of an API key is its id; of the system's own actor it is a name.
    key = actor.user_id or uuid5(actor.account_id, actor.credential)
    return strawberry.ID(public_id(PREFIXES["Viewer"], key))


@strawberry.type(description="The viewer: a signed-in user or an API key. Only the viewer can read it.")
class Viewer(Node):
    name: str = strawberry.field(description="The user's name or the key's.")
    role: Role = strawberry.field(description="The viewer's role.")
    actor: strawberry.Private[Actor]

    @classmethod
    def from_actor(cls, actor: Actor) -> Self:
        return cls(id=viewer_id(actor), name=actor.name, role=Role[actor.role], actor=actor)

    @field("How many of the viewer's notifications are unread: the bell's number. 0 for an API key.")
    async def unread_notification_count(self, info: Info) -> int:
        return await info.context.reads.unread_count()

    @field("The signed-in person; null for an API key.")
    async def user(self, info: Info) -> User | None:
        if self.actor.user_id is None:
            return None
        row = await info.context.reads.user(self.actor.user_id)
        return User.from_row(row) if row is not None else None

    @field("The viewer's sign-ins, last used first, at most 100; no event reports changes. Empty for an API key.")
    async def sessions(self, info: Info) -> list[Session]:
        return [Session.from_session(found) for found in await sessions.listed(info.context.actor)]

    @field("The viewer's account.")
    async def account(self, info: Info) -> Account:
        return Account.from_row(await info.context.reads.account())
