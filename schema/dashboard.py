"""The dashboard's figures."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Self
from uuid import UUID

import strawberry

from models.errors import Invalid
from models.ids import PREFIXES, public_id
from schema.account import Processor, User
from schema.context import Info, event_cursor
from schema.describe import field
from schema.failures import bad_request
from schema.scalars import ChannelKind, CurrencyCode, Cursor, DashboardRange, Money, Node, money
from services.payments import dashboard
from services.payments.dashboard import Board, CurrencyFigures, Group


@strawberry.type(
    description=(
        "Figures of one currency in the period. Over ALL_TIME, requested, paid, outstanding and paidCount are"
        " the sums of the contacts' paymentSummary of the same mode."
    )
)
class DashboardCurrencyFigures:
    currency: CurrencyCode = strawberry.field(description="The currency; figures never cross currencies.")
    test_mode: bool = strawberry.field(
        description=(
            "Whether these are test requests: only until the account has connected a live processor. After a disconnect"
            " live figures stay if a live request was sent."
        )
    )
    requests_sent: int = strawberry.field(
        description="Requests first sent in the period, void and discarded ones left out."
    )
    requested: Money = strawberry.field(description="Their amounts.")
    paid_count: int = strawberry.field(
        description="Requests that became paid in full in the period, whenever they were sent."
    )
    paid: Money = strawberry.field(
        description=(
            "Money that arrived in the period, before refunds and fees: every succeeded charge and every manually"
            " recorded payment, also part payments, excess, late and mismatching money (Payment.counted is"
            " false)."
        )
    )
    outstanding: Money = strawberry.field(
        description=(
            "Still due now on open requests, whenever they were sent; in groups by day, on those sent on that day."
        )
    )
    conversion_rate: float | None = strawberry.field(
        description=(
            "Of the requests counted in requestsSent, the part that is paid in full now: 0 to 1. Null: none was sent."
        )
    )
    median_seconds_to_pay: int | None = strawberry.field(
        description=(
            "From first sending to paid in full, of the requests counted in paidCount. Requests paid before they"
            " were sent are left out, such as cash recorded afterwards. Null: there are none."
        )
    )
    p90_seconds_to_pay: int | None = strawberry.field(
        name="p90SecondsToPay", description="Nine of ten of those requests were paid within this time."
    )

    @classmethod
    def from_figures(cls, figures: CurrencyFigures) -> Self:
        currency = figures.currency
        sent = figures.requests_sent
        return cls(
            currency=CurrencyCode(currency),
            test_mode=figures.test_mode,
            requests_sent=sent,
            requested=money(figures.requested_minor, currency),
            paid_count=figures.paid_count,
            paid=money(figures.paid_minor, currency),
            outstanding=money(figures.outstanding_minor, currency),
            conversion_rate=figures.converted_count / sent if sent else None,
            median_seconds_to_pay=figures.median_seconds_to_pay,
            p90_seconds_to_pay=figures.p90_seconds_to_pay,
        )


@strawberry.type(
    description="The part of the figures with the same keys. Only keys that groupBy names are set; null is a key, too."
)
class DashboardGroup:
    group: strawberry.Private[Group]
    day: date | None = strawberry.field(description="A day in the account's time zone.")
    channel_kind: ChannelKind | None = strawberry.field(
        description="The channel of the newest message that carries the link; null: the link was copied, or not sent."
    )
    product_name: str | None = strawberry.field(description="The requests' product name.")
    by_currency: list[DashboardCurrencyFigures] = strawberry.field(description="One entry per currency.")

    @field("The user who created the requests; null: an API key did.")
    async def agent(self, info: Info) -> User | None:
        id = self.group.keys.get("AGENT")
        row = await info.context.reads.user(id) if id is not None else None
        return User.from_row(row) if row is not None else None

    @field("The connection on which the requests are paid.")
    async def processor(self, info: Info) -> Processor | None:
        id = self.group.keys.get("PROCESSOR")
        row = await info.context.reads.processor(id) if id is not None else None
        return Processor.from_row(row) if row is not None else None

    @classmethod
    def from_group(cls, group: Group) -> Self:
        kind = group.keys.get("CHANNEL")
        return cls(
            group=group,
            day=group.keys.get("DAY"),
            channel_kind=ChannelKind[kind] if kind is not None else None,
            product_name=group.keys.get("PRODUCT"),
            by_currency=[DashboardCurrencyFigures.from_figures(figures) for figures in group.by_currency],
        )


@strawberry.type(
    description="The account's figures for a period. Their id names the period and the grouping, not the time."
)
class DashboardFigures(Node):
    range: DashboardRange | None = strawberry.field(description="The range; null: the period is between two moments.")
    from_: datetime = strawberry.field(name="from", description="When the period begins.")
    until: datetime | None = strawberry.field(description="When the period ends; null: it is up to now.")
    as_of: datetime = strawberry.field(description="When they were computed.")
    by_currency: list[DashboardCurrencyFigures] = strawberry.field(description="One entry per currency.")
    groups: list[DashboardGroup] = strawberry.field(
        description="The figures by groupBy, at most 1000 groups: days in order, then the most requests first."
    )
    groups_left_out: int = strawberry.field(description="How many smaller groups `groups` leaves out.")

    @field(
        "Position in the event log, read before the figures. dashboardEvents needs no cursor: it begins with"
        " the figures."
    )
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)


async def dashboard_figures(account_id: UUID, board: Board) -> DashboardFigures:
    """Raises: ApiError BAD_REQUEST."""
    as_of = datetime.now(UTC)
    try:
        found = await dashboard.figures(account_id, board, as_of)
    except Invalid as refusal:
        raise bad_request(refusal.message) from refusal
    return DashboardFigures(
        id=strawberry.ID(f"{public_id(PREFIXES['DashboardFigures'], account_id)}_{board}"),
        range=DashboardRange[board.period.range] if board.period.range else None,
        from_=found.since,
        until=found.until,
        as_of=as_of,
        by_currency=[DashboardCurrencyFigures.from_figures(row) for row in found.by_currency],
        groups=[DashboardGroup.from_group(group) for group in found.groups],
        groups_left_out=found.left_out,
    )
