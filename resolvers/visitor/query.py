"""The root of the visitor API's queries."""

from __future__ import annotations

import strawberry

from resolvers.visitor.context import VisitorInfo
from schema.describe import field
from schema.visitor import Visit


@strawberry.type(description="What a visitor can read.")
class VisitorQuery:
    @field("The visitor's conversation.")
    async def visit(self, info: VisitorInfo) -> Visit:
        return await Visit.of(info.context.visit)
