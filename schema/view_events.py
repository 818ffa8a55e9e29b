"""Events of a live view."""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias
from uuid import UUID

import strawberry

from models import tables
from models.ids import public_id
from schema.context import Info
from schema.conversation import Conversation, ConversationEdge
from schema.describe import field
from schema.events import Event, Gone, ResyncRequired, Subscribed
from schema.payment_request import PaymentRequest, PaymentRequestEdge
from schema.scalars import Cursor
from schema.view import LiveFigures, View, view_from_row
from services.lists import views


@strawberry.type
class _OfView(Event):
    view_row: strawberry.Private[tables.SavedView]
    live: strawberry.Private[LiveFigures]

    @field("The view. Its counts and totals are those of now.")
    def view(self) -> View:
        return view_from_row(self.view_row, self.live)

    @property
    def view_id(self) -> str:
        return views.public_id_of(self.view_row)

    @property
    def total_count(self) -> int | None:
        figures = self.live()
        return figures.total if figures is not None else None


@strawberry.type
class _ItemPlaced(_OfView):
    memo: strawberry.Private[dict[Any, Any]]
    request_row: strawberry.Private[UUID | None]
    conversation_row: strawberry.Private[UUID | None]
    place: strawberry.Private[Cursor]
    after_cursor: Cursor | None = strawberry.field(
        description=(
            "The cursor of the item in front of it: put it after that one. Null: it is the first. If you show no item with this"
            " cursor, its place is not on your pages."
        )
    )

    @field("A PaymentRequestView's item, as it is now; otherwise null.")
    async def edge(self, info: Info) -> PaymentRequestEdge | None:
        if self.request_row is None:
            return None
        row = await info.context.reads.payment_request(self.request_row)
        if row is None:
            raise Gone(self.cursor)
        return PaymentRequestEdge(cursor=self.place, node=PaymentRequest.from_row(row))

    @field("A ConversationView's item, as it is now; otherwise null.")
    async def conversation_edge(self, info: Info) -> ConversationEdge | None:
        if self.conversation_row is None:
            return None
        row = await info.context.reads.conversation(self.conversation_row)
        if row is None:
            raise Gone(self.cursor)
        return ConversationEdge(cursor=self.place, node=Conversation.from_row(row))


@strawberry.type(description="An item belongs to the view now.")
class ViewItemEntered(_ItemPlaced):
    pass


@strawberry.type(
    description=(
        "An item of the view has changed, and perhaps its place: remove it, and put the edge after afterCursor. After a resume"
        " also for items that are new."
    )
)
class ViewItemMoved(_ItemPlaced):
    pass


@strawberry.type(
    description="An object does not belong to the view (any more). After a resume also for objects that never did."
)
class ViewItemLeft(_OfView):
    item_row: strawberry.Private[UUID]

    @field("The object's id.")
    def id(self) -> strawberry.ID:
        return self.id_of_item

    @property
    def id_of_item(self) -> strawberry.ID:
        prefix = "pr" if self.view_row.subject == "PAYMENT_REQUEST" else "cnv"
        return strawberry.ID(public_id(prefix, self.item_row))


@strawberry.type(
    description="The view's count, totals or name changed: at most once a second. Also the last event of a resume."
)
class ViewChanged(_OfView):
    pass


ViewEvent: TypeAlias = Annotated[
    Subscribed | ResyncRequired | ViewItemEntered | ViewItemMoved | ViewItemLeft | ViewChanged,
    strawberry.union("ViewEvent", description="The events of viewEvents."),
]
