"""Amounts of a list of payment requests, added up in the database."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from models import database
from models.database import to_bool
from services.lists import sql
from services.lists.filters import PaymentRequestFilter
from services.lists.live_list import COUNTED
from services.lists.subjects import Sums

_DUE: Final = "CASE WHEN amount_minor > amount_paid_minor + waived_minor THEN amount_minor - amount_paid_minor - waived_minor ELSE 0 END"


async def of_payment_requests(account_id: UUID, filter: PaymentRequestFilter) -> dict[tuple[str, bool], Sums] | None:
    """By currency and test mode; None: there are more than COUNTED."""
    where, values, _ = await sql.of_payment_requests(account_id, filter)
    found = await database.scanned_records(
        "SELECT currency, test_mode, count(*), sum(amount_minor), sum(amount_paid_minor), sum(due_minor)"  # noqa: S608 (only constants are put in)
        f" FROM (SELECT currency, test_mode, amount_minor, amount_paid_minor, {_DUE} AS due_minor"
        f" FROM payment_request WHERE {where} LIMIT {COUNTED + 1:d}) AS listed"
        " GROUP BY currency, test_mode ORDER BY currency, test_mode",
        *values,
    )
    sums = {
        (currency, bool(to_bool(test_mode))): Sums(*(int(number) for number in numbers))
        for currency, test_mode, *numbers in found
    }
    return sums if sum(one.items for one in sums.values()) <= COUNTED else None
