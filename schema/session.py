"""A user's sign-ins."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry

from models.ids import public_id
from schema.scalars import Node
from services.accounts import sessions


@strawberry.type(description="One sign-in of the viewer. Only the viewer can read it.")
class Session(Node):
    created_at: datetime = strawberry.field(description="When it began; for sign-ins of older releases: its last use.")
    last_used_at: datetime = strawberry.field(description="When it got its newest tokens: at most a token's life ago.")
    device: str | None = strawberry.field(description='The kind of device, e.g. "Firefox on Linux"; null: unknown.')
    network: str | None = strawberry.field(
        description="The network that it came from, e.g. 203.0.113.0/24: addresses are stored shortened. Null: unknown."
    )
    current: bool = strawberry.field(description="Whether this request belongs to it.")

    @classmethod
    def from_session(cls, found: sessions.Session) -> Self:
        return cls(
            id=strawberry.ID(public_id("ses", found.id)),
            created_at=found.created_at,
            last_used_at=found.last_used_at,
            device=found.device,
            network=found.network,
            current=found.current,
        )
