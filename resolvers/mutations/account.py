"""Mutations: the account's settings."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers.mutations.arguments import given_fields
from resolvers.mutations.fields import mutation
from schema.account import Account
from schema.context import Info
from schema.inputs.account import UpdateAccountInput
from schema.payloads import UpdateAccountPayload
from services.accounts import accounts


@strawberry.type
class AccountMutations:
    @mutation("Change the account's settings; fields left out stay. For owners and admins.")
    async def update_account(
        self, info: Info, input: Annotated[UpdateAccountInput, strawberry.argument(description="What to change.")]
    ) -> UpdateAccountPayload:
        changes = given_fields(
            input,
            (
                "name",
                "default_currency",
                "locale",
                "time_zone",
                "contact_email",
                "contact_phone",
                "link_message_template",
                "number_prefix",
            ),
        )
        return UpdateAccountPayload(
            account=Account.from_row(await accounts.update_account(info.context.actor, changes=changes))
        )
