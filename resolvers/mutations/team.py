"""Mutations: the account's users."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers.mutations.arguments import given_fields, row_id
from resolvers.mutations.fields import mutation
from schema.account import User
from schema.context import Info
from schema.inputs.team import DisableUserInput, EnableUserInput, UpdateUserInput
from schema.team_payloads import DisableUserPayload, EnableUserPayload, UpdateUserPayload
from services.accounts import users

_ID = {"id": "userId"}


@strawberry.type
class TeamMutations:
    @mutation(
        "Change a user's name or role; fields left out stay. A changed role ends the user's open sockets within 5 s;"
        " they reconnect with the new role. LAST_OWNER: one active owner stays. For owners.",
        renamed=_ID,
    )
    async def update_user(
        self, info: Info, input: Annotated[UpdateUserInput, strawberry.argument(description="What to change.")]
    ) -> UpdateUserPayload:
        changes = given_fields(input, ("name", "role"))
        if (role := changes.get("role")) is not None:
            changes["role"] = role.name
        row = await users.update(info.context.actor, row_id(input.user_id, "usr"), changes)
        return UpdateUserPayload(user=User.from_row(row))

    @mutation(
        "Disable a user: the person can't sign in, tokens and sockets end within 5 s, and the conversations lose their"
        " assignee. What the person did stays. LAST_OWNER: one active owner stays. For owners.",
        renamed=_ID,
    )
    async def disable_user(
        self, info: Info, input: Annotated[DisableUserInput, strawberry.argument(description="The user.")]
    ) -> DisableUserPayload:
        row = await users.disable(info.context.actor, row_id(input.user_id, "usr"))
        return DisableUserPayload(user=User.from_row(row))

    @mutation("Let a disabled user sign in again. For owners.", renamed=_ID)
    async def enable_user(
        self, info: Info, input: Annotated[EnableUserInput, strawberry.argument(description="The user.")]
    ) -> EnableUserPayload:
        row = await users.enable(info.context.actor, row_id(input.user_id, "usr"))
        return EnableUserPayload(user=User.from_row(row))
