"""Fills missing search text of contacts, payment requests and messages; it reads tables only, so no other room is needed."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from models import database
from models.tables import Contact, Message, PaymentRequest, Searchable
from services.core import jobs

BATCH: Final = 500
_MODELS: Final[tuple[type[Searchable], ...]] = (Contact, PaymentRequest, Message)


@jobs.periodic("search.fill", 60)
async def fill_rows(job: jobs.JobContext) -> None:
    await fill()


async def fill() -> int:
    """Return the row count. Safe to repeat."""
    return sum([await _fill(model) for model in _MODELS])


async def _fill(model: type[Searchable]) -> int:
    table, columns = model._meta.db_table, ", ".join(model.SEARCHED)
    filled, last = 0, UUID(int=0)
    while found := await database.rows(
        f"SELECT id, {columns} FROM {table} WHERE search IS NULL AND id > ? ORDER BY id LIMIT {BATCH}",  # noqa: S608 (only constants are put in)
        last,
    ):
        async with database.transaction():
            for row in found:
                text = model.folded(row)
                # Not if the row was saved meanwhile: that text is newer.
                await database.execute(
                    f"UPDATE {table} SET search = ? WHERE id = ? AND search IS NULL",  # noqa: S608 (only constants are put in)
                    text,
                    row["id"],
                )
        filled += len(found)
        last = database.to_uuid(found[-1]["id"])
    return filled
