"""Mutations: saved views."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers.mutations.arguments import NO_ROW
from resolvers.mutations.fields import mutation
from resolvers.view_feed import row_id
from schema.context import Info
from schema.inputs.views import CreateViewInput, DeleteViewInput, UpdateViewInput, to_json
from schema.view import view_from_row
from schema.view_payloads import CreateViewPayload, DeleteViewPayload, UpdateViewPayload
from services.lists import views


@strawberry.type
class ViewMutations:
    @mutation("Save a view: a filter and an order with a name.")
    async def create_view(
        self, info: Info, input: Annotated[CreateViewInput, strawberry.argument(description="The view.")]
    ) -> CreateViewPayload:
        row = await views.create(
            info.context.actor,
            name=input.name,
            listed=to_json(input.list),
            read=input.list.to_content,
            shared=input.shared,
            idempotency_key=input.idempotency_key,
        )
        return CreateViewPayload(view=view_from_row(row))

    @mutation("Change a view's name, or its filter and order. Whoever follows it live then reads it again.")
    async def update_view(
        self, info: Info, input: Annotated[UpdateViewInput, strawberry.argument(description="What to change.")]
    ) -> UpdateViewPayload:
        row = await views.update(
            info.context.actor,
            row_id(input.view_id) or NO_ROW,
            name=input.name,
            read=input.list.to_content if input.list is not None else None,
        )
        return UpdateViewPayload(view=view_from_row(row))

    @mutation("Delete a view. What it lists stays; feeds of it end.")
    async def delete_view(
        self, info: Info, input: Annotated[DeleteViewInput, strawberry.argument(description="The view.")]
    ) -> DeleteViewPayload:
        row = await views.delete(info.context.actor, row_id(input.view_id) or NO_ROW)
        return DeleteViewPayload(deleted_view_id=strawberry.ID(views.public_id_of(row)))
