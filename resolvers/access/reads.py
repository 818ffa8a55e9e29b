"""The viewer's reads. Every read of this package is scoped to the viewer's account (scope.py)."""

from __future__ import annotations

from resolvers.access.nodes import Nodes
from resolvers.access.pages import Pages
from schema.connections import Page
from schema.context import Info
from schema.team import InvitationConnection


class Access(Nodes, Pages):
    async def invitation_connection(self, page: Page) -> InvitationConnection:
        return InvitationConnection.from_slice(await self.invitations(page))


def access(info: Info) -> Access:
    reads = info.context.reads
    if not isinstance(reads, Access):
        raise TypeError("the context was not made by resolvers.assemble.new_context")
    return reads


def wants_position(info: Info) -> bool:
    """Whether the document may select eventCursor. Never a false no."""
    location = info.operation.loc
    return location is None or "eventCursor" in location.source.body


async def begin(info: Info) -> Access:
    """`access`, after reading the log position if needed. Call before any other read."""
    reads = access(info)
    if wants_position(info):
        await reads.position()
    return reads
