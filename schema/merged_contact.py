"""A contact as it was before its merge."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry

from models import tables
from models.ids import public_id


@strawberry.type(
    description="A contact that was merged into another, as its record was. Its id answers as the other's."
)
class MergedContact:
    contact_id: strawberry.ID = strawberry.field(description="The id that it had.")
    name: str = strawberry.field(description="Its name.")
    email: str | None = strawberry.field(description="Its email address; null: unknown.")
    phone: str | None = strawberry.field(description="Its phone number, E.164; null: unknown.")
    merged_at: datetime | None = strawberry.field(description="When it was merged.")

    @classmethod
    def from_row(cls, row: tables.Contact) -> Self:
        return cls(
            contact_id=strawberry.ID(public_id("cnt", row.id)),
            name=row.name,
            email=row.email,
            phone=row.phone,
            merged_at=row.merged_at,
        )
