"""Saved views: lists with a name, over payment requests or conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any, Self

import orjson
import strawberry
from strawberry.scalars import JSON

from models import tables
from schema.account import User
from schema.connections import TOTAL, VIEWS, After, Before, Count, First, Last, Slice, keyset_of
from schema.context import Info, event_cursor
from schema.conversation import ConversationConnection
from schema.describe import field
from schema.inputs.lists import (
    ConversationFilter,
    PaymentRequestFilter,
    SortDirection,
)
from schema.inputs.views import from_json
from schema.payment_request import PaymentRequestConnection
from schema.scalars import CurrencyCode, Cursor, Money, Node, PageInfo, money, value
from services.lists import totals, views
from services.lists.filters import PaymentRequestFilter as Requests
from services.lists.live_list import Figures
from services.lists.orders import Order
from services.lists.queries import ListQuery
from services.lists.subjects import Sums, Wanted

KEPT = 2_048  # filters

LiveFigures = Callable[[], Figures | None]


@strawberry.type(description="Payment requests of a list in one currency and mode, added up.")
class MoneyTotals:
    currency: CurrencyCode = strawberry.field(description="The currency.")
    test_mode: bool = strawberry.field(description="Whether these are test requests: no real money moved.")
    count: int = strawberry.field(description="How many requests.")
    amount: Money = strawberry.field(description="What was asked for.")
    amount_paid: Money = strawberry.field(description="What has arrived and counts.")
    amount_due: Money = strawberry.field(description="What is still due.")

    @classmethod
    def all_from(cls, sums: Mapping[tuple[str, bool], Sums]) -> list[Self]:
        return [
            cls(
                currency=CurrencyCode(currency),
                test_mode=test_mode,
                count=one.items,
                amount=money(one.amount_minor, currency),
                amount_paid=money(one.paid_minor, currency),
                amount_due=money(one.due_minor, currency),
            )
            for (currency, test_mode), one in sorted(sums.items())
        ]


@strawberry.enum(
    description="What a view's items are sorted by: a value of PaymentRequestOrderField or ConversationOrderField."
)
class ViewOrderField(Enum):
    CREATED_AT = value("CREATED_AT", description="When it was created.")
    UPDATED_AT = value("UPDATED_AT", description="Payment requests: when it last changed.")
    DUE_AT = value("DUE_AT", description="Payment requests: the deadline.")
    PAID_AT = value("PAID_AT", description="Payment requests: when it was paid in full.")
    AMOUNT_DUE = value("AMOUNT_DUE", description="Payment requests: the amount still due, in minor units.")
    LAST_ACTIVITY_AT = value("LAST_ACTIVITY_AT", description="Conversations: when the newest thread item came.")
    WAITING_SINCE = value("WAITING_SINCE", description="Conversations: since when the contact waits for an answer.")


@strawberry.type(description="A view's order.")
class ViewOrder:
    field: ViewOrderField = strawberry.field(description="What the items are sorted by.")
    direction: SortDirection = strawberry.field(description="The direction.")


@strawberry.interface(
    description=(
        "A saved list: a filter and an order with a name, of one user or shared by the account. viewEvents follows it live."
    )
)
class View(Node):
    row: strawberry.Private[tables.SavedView]
    live: strawberry.Private[LiveFigures | None] = None  # of a view in an event
    name: str = strawberry.field(description="The name.")
    filter: JSON = strawberry.field(
        description="The filter, in the form of the input PaymentRequestFilter or ConversationFilter."
    )
    created_at: datetime = strawberry.field(description="When it was created.")
    updated_at: datetime = strawberry.field(description="When its name, filter or order last changed.")

    @field("The order.")
    def order_by(self) -> ViewOrder:
        direction = SortDirection.DESC if self.row.descending else SortDirection.ASC
        return ViewOrder(field=ViewOrderField[self.row.order_field], direction=direction)

    @field("The user whose view it is; null: shared by the account.")
    async def owner(self, info: Info) -> User | None:
        id = self.row.owner_user_id
        row = await info.context.reads.user(id) if id is not None else None
        return User.from_row(row) if row is not None else None

    @field(TOTAL)
    async def total_count(self, info: Info) -> int | None:
        if self.live is not None:
            figures = self.live()
            return figures.total if figures is not None else None
        return await info.context.reads.total(query_of(self.row))

    @field("Position in the event log, read before the data of this answer: pass it to viewEvents(after:).")
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)

    @classmethod
    def values(cls, row: tables.SavedView, live: LiveFigures | None) -> dict[str, Any]:
        return {
            "id": strawberry.ID(views.public_id_of(row)),
            "row": row,
            "live": live,
            "name": row.name,
            "filter": row.conditions,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }


@strawberry.type(description="A view of payment requests.")
class PaymentRequestView(View):
    @field("All its requests added up, by currency and mode. Null: there are more than totalCount counts.")
    async def totals(self, info: Info) -> list[MoneyTotals] | None:
        if self.live is not None:
            figures = self.live()
            return MoneyTotals.all_from(figures.sums) if figures is not None else None
        filter = query_of(self.row).filter
        assert isinstance(filter, Requests)  # noqa: S101 (for mypy)
        sums = await totals.of_payment_requests(self.row.account_id, filter)
        return MoneyTotals.all_from(sums) if sums is not None else None

    @field("Its requests.")
    async def items(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> PaymentRequestConnection:
        query, reads = query_of(self.row), info.context.reads
        page = keyset_of(query.order).page(first=first, after=after, last=last, before=before)
        return PaymentRequestConnection.from_slice(
            await reads.payment_requests(query, page), lambda: reads.total(query)
        )


@strawberry.type(description="A view of conversations.")
class ConversationView(View):
    @field("Its conversations.")
    async def items(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> ConversationConnection:
        query, reads = query_of(self.row), info.context.reads
        page = keyset_of(query.order).page(first=first, after=after, last=last, before=before)
        return ConversationConnection.from_slice(await reads.conversations(query, page), lambda: reads.total(query))


@strawberry.type(description="A view in a list.")
class ViewEdge:
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    node: View = strawberry.field(description="The view.")


@strawberry.type(description="The views that the viewer may use: shared ones, and a user's own. Oldest first.")
class ViewConnection:
    count: strawberry.Private[Count]
    edges: list[ViewEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[View] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field(TOTAL)
    async def total_count(self) -> int | None:
        return await self.count()

    @classmethod
    def from_slice(cls, page: Slice[tables.SavedView], count: Count) -> Self:
        nodes, cursors = [view_from_row(row) for row in page.rows], [VIEWS.cursor(row.id) for row in page.rows]
        return cls(
            count=count,
            edges=[ViewEdge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
            nodes=nodes,
            page_info=page.info(cursors),
        )


def view_from_row(row: tables.SavedView, live: LiveFigures | None = None) -> View:
    """`live`: the figures of a list that is followed in this process."""
    kind = PaymentRequestView if row.subject == "PAYMENT_REQUEST" else ConversationView
    return kind(**View.values(row, live))


def query_of(row: tables.SavedView) -> ListQuery:
    return _query(row.subject, row.order_field, row.descending, orjson.dumps(row.conditions))


@lru_cache(maxsize=KEPT)
def _query(subject: str, order_field: str, descending: bool, conditions: bytes) -> ListQuery:
    given = orjson.loads(conditions)
    if subject == "PAYMENT_REQUEST":
        order = Order("payment_requests", order_field, descending)
        return ListQuery(order, from_json(PaymentRequestFilter, given).to_filter())
    order = Order("conversations", order_field, descending)
    return ListQuery(order, from_json(ConversationFilter, given).to_filter())


def wanted_of(row: tables.SavedView) -> Wanted:
    query = query_of(row)
    return Wanted(query.filter, query.order)  # type: ignore[arg-type]  # views list no contacts
