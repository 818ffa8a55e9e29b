"""Payloads of the mutations of views."""

from __future__ import annotations

import strawberry

from schema.payload_codes import answer_of
from schema.payloads import MutationPayload
from schema.view import View

_REFUSED = "Null: refused, see userErrors."


@strawberry.type(description=answer_of("createView"))
class CreateViewPayload(MutationPayload):
    view: View | None = strawberry.field(default=None, description="The new view. " + _REFUSED)


@strawberry.type(description=answer_of("updateView"))
class UpdateViewPayload(MutationPayload):
    view: View | None = strawberry.field(default=None, description="The view. " + _REFUSED)


@strawberry.type(description=answer_of("deleteView"))
class DeleteViewPayload(MutationPayload):
    deleted_view_id: strawberry.ID | None = strawberry.field(
        default=None, description="The id that the view had. " + _REFUSED
    )
