"""The dashboard's figures. They are computed in services/dashboard.py."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry

from schema.context import Info, event_cursor
from schema.describe import field
from schema.scalars import CurrencyCode, Cursor, DashboardRange, Money, money
from services.dashboard import CurrencyFigures


@strawberry.type(description="How requests of one currency went in the period.")
class DashboardCurrencyFigures:
    currency: CurrencyCode = strawberry.field(description="The currency; figures never cross currencies.")
    test_mode: bool = strawberry.field(
        description="Whether these are test requests: only of an account without live ones."
    )
    requests_sent: int = strawberry.field(description="Requests first sent in the period.")
    requested: Money = strawberry.field(description="Their amounts.")
    paid_count: int = strawberry.field(description="Requests paid in full in the period.")
    paid: Money = strawberry.field(description="Money that arrived in the period.")
    outstanding: Money = strawberry.field(description="Still due now, whenever it was asked.")
    conversion_rate: float | None = strawberry.field(description="paidCount / requestsSent; null: nothing was sent.")
    median_seconds_to_pay: int | None = strawberry.field(
        description="From first sending to paid; null: nothing was paid."
    )

    @classmethod
    def from_figures(cls, figures: CurrencyFigures) -> Self:
        """The API's view of the service's row."""
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
            conversion_rate=figures.paid_count / sent if sent else None,
            median_seconds_to_pay=figures.median_seconds_to_pay,
        )


@strawberry.type(description="The account's figures for a period.")
class DashboardFigures:
    range: DashboardRange = strawberry.field(description="The period.")
    as_of: datetime = strawberry.field(description="When they were computed.")
    by_currency: list[DashboardCurrencyFigures] = strawberry.field(description="One entry per currency.")

    @field("Position in the event log, read before the figures. dashboardEvents needs none: it begins with them.")
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)
