"""The dashboard's figures."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Self
from uuid import UUID

import strawberry

from models.ids import PREFIXES, public_id
from schema.context import Info, event_cursor
from schema.describe import field
from schema.scalars import CurrencyCode, Cursor, DashboardRange, Money, Node, money
from services.payments import dashboard
from services.payments.dashboard import CurrencyFigures


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
    outstanding: Money = strawberry.field(description="Still due now on open requests, whenever they were sent.")
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
        )


@strawberry.type(description="The account's figures for a period. Their id names the period, not the time.")
class DashboardFigures(Node):
    range: DashboardRange = strawberry.field(description="The period.")
    as_of: datetime = strawberry.field(description="When they were computed.")
    by_currency: list[DashboardCurrencyFigures] = strawberry.field(description="One entry per currency.")

    @field(
        "Position in the event log, read before the figures. dashboardEvents needs no cursor: it begins with"
        " the figures."
    )
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)


async def dashboard_figures(account_id: UUID, range: DashboardRange) -> DashboardFigures:
    as_of = datetime.now(UTC)
    found = await dashboard.figures(account_id, range.name, as_of)
    return DashboardFigures(
        id=strawberry.ID(f"{public_id(PREFIXES['DashboardFigures'], account_id)}_{range.name}"),
        range=range,
        as_of=as_of,
        by_currency=[DashboardCurrencyFigures.from_figures(row) for row in found],
    )
