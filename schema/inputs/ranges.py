"""Inputs that name a span of time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Final

import strawberry

from models.errors import Invalid
from schema.failures import bad_request
from schema.scalars import DashboardDimension, DashboardRange
from services.payments.dashboard import MOST_DIMENSIONS, Board, Period


@strawberry.input(
    description="A span of time that includes its beginning and not its end. In a filter, one without both means any time, but not none."
)
class DateTimeRange:
    from_: datetime | None = strawberry.field(
        default=None, name="from", description="From this moment on. Default: the beginning."
    )
    until: datetime | None = strawberry.field(default=None, description="Before this moment. Default: open.")


@strawberry.input(
    one_of=True, description="The dashboard's period: a range that moves with the account's days, or two moments."
)
class DashboardPeriod:
    range: DashboardRange | None = strawberry.field(
        default=strawberry.UNSET, description="A range up to now, in the account's time zone."
    )
    between: DateTimeRange | None = strawberry.field(
        default=strawberry.UNSET, description="From one moment to another; without `until`: up to now."
    )

    def to_period(self) -> Period:
        """Raises: Invalid."""
        if self.range:
            return Period(self.range.name)
        if not self.between:
            raise TypeError("the schema allows no empty period")
        return Period.between(self.between.from_, self.between.until)


LAST_30_DAYS: Final = DashboardPeriod(range=DashboardRange.LAST_30_DAYS)
PeriodArgument = Annotated[DashboardPeriod, strawberry.argument(description="The period.")]
GroupBy = Annotated[
    list[DashboardDimension] | None,
    strawberry.argument(description=f"Also give the figures by these, at most {MOST_DIMENSIONS}, in `groups`."),
]


def board_of(period: DashboardPeriod, group_by: Sequence[DashboardDimension] | None) -> Board:
    """Raises: ApiError BAD_REQUEST."""
    try:
        return Board(period.to_period(), tuple(dimension.name for dimension in group_by or ()))
    except Invalid as refusal:
        raise bad_request(refusal.message) from refusal
