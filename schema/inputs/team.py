"""Inputs that manage users."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.scalars import Role
from services.accounts import accounts

_USER = "The user."


@strawberry.input(description="What to change about a user; fields left out stay.")
class UpdateUserInput:
    user_id: strawberry.ID = strawberry.field(description=_USER)
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("The person's name.", accounts.NAME_LIMIT)
    )
    role: Role | None = strawberry.field(default=strawberry.UNSET, description="The new role; null: as before.")


@strawberry.input(description="The user to disable.")
class DisableUserInput:
    user_id: strawberry.ID = strawberry.field(description=_USER)


@strawberry.input(description="The user to enable.")
class EnableUserInput:
    user_id: strawberry.ID = strawberry.field(description=_USER)
