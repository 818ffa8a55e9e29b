"""All reads of the API, scoped to the viewer's account: nothing outside this package scopes.

Another account's id reads as one that does not exist. Services write.
"""

from __future__ import annotations

from resolvers.access.nodes import Nodes
from resolvers.access.pages import Pages
from schema.context import Info


class Access(Nodes, Pages):
    """Implements `schema.context.Reads`: one object per operation or pushed event, which caches what it has loaded."""


def access(info: Info) -> Access:
    """The viewer's reads. Raises: ApiError UNAUTHENTICATED."""
    reads = info.context.reads
    if not isinstance(reads, Access):
        raise TypeError("the context was not made by resolvers.assemble.new_context")
    return reads


def wants_position(info: Info) -> bool:
    """Whether the document selects eventCursor. A text search: it may be true without need, never false by mistake."""
    location = info.operation.loc
    return location is None or "eventCursor" in location.source.body


async def begin(info: Info) -> Access:
    """`access`, after reading the log position if the answer may show it. Call before any other read of a root field."""
    reads = access(info)
    if wants_position(info):
        await reads.position()
    return reads
