"""Payloads of the team's mutations."""

from __future__ import annotations

import strawberry

from schema.account import User
from schema.payloads import MutationPayload

_REFUSED = "Null: refused, see userErrors."


@strawberry.type(description="Answer of updateUser.")
class UpdateUserPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The user. " + _REFUSED)


@strawberry.type(description="Answer of disableUser.")
class DisableUserPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The user. " + _REFUSED)


@strawberry.type(description="Answer of enableUser.")
class EnableUserPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The user. " + _REFUSED)
