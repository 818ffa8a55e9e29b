"""Logs that requests became overdue, so that clients update. Sends nothing to the contact."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from models import database, ledger
from models.ledger import Facet
from services.core import jobs
from services.core.unit_of_work import change
from services.thread import request_rows

log = structlog.get_logger(__name__)

BATCH: Final = 200
BATCHES: Final = 100  # per run
# Matches the index payment_request_due. `overdue_for`: the due date that was logged as passed.
_PASSED: Final = f"{ledger.OUTSTANDING_SQL} AND (overdue_for IS NULL OR overdue_for <> due_at) AND due_at < ?"


@jobs.periodic("requests.overdue", 15)
async def log_overdue_now(job: jobs.JobContext) -> None:
    await log_overdue(datetime.now(UTC))


async def log_overdue(now: datetime) -> int:
    """Log `payment_request.overdue` once per passed due date; return how many."""
    logged, failed = 0, set[UUID]()
    for _ in range(BATCHES):
        skipped = f" AND account_id NOT IN ({database.placeholders(len(failed))})" if failed else ""
        found = await database.rows(
            f"SELECT id, account_id FROM payment_request WHERE {_PASSED}{skipped} ORDER BY due_at LIMIT {BATCH:d}",  # noqa: S608 (only constants are put in)
            now,
            *failed,
        )
        if not found:
            break
        ids_of: dict[UUID, list[UUID]] = {}
        for row in found:
            ids_of.setdefault(database.to_uuid(row["account_id"]), []).append(database.to_uuid(row["id"]))
        for account_id, ids in ids_of.items():
            try:
                logged += await _log_overdue(account_id, ids, now)
            except Exception as error:  # noqa: BLE001 (the loop's top: one account must not keep the others waiting)
                log.error("overdue_failed", account_id=str(account_id), error=type(error).__name__)
                failed.add(account_id)
    return logged


async def _log_overdue(account_id: UUID, ids: list[UUID], now: datetime) -> int:
    async with change(account_id) as changed:
        locked = await request_rows.lock_all(account_id, ids)
        passed = await database.rows(
            f"SELECT id FROM payment_request WHERE id IN ({database.placeholders(len(ids))}) AND {_PASSED}",  # noqa: S608 (only constants are put in)
            *ids,
            now,
        )
        overdue = {database.to_uuid(row["id"]) for row in passed}
        due = [request for request in locked if request.id in overdue]
        for request in due:
            request.overdue_for = request.due_at
            request.version += 1
            await request.save(update_fields=("overdue_for", "version", "updated_at"))
            changed.request_event("overdue", request, previous_status=request.status, facets=(Facet.OVERDUE,))
        for contact_id, conversation_id in sorted({(one.contact_id, one.conversation_id) for one in due}):
            changed.event("contact.updated", conversation_id=conversation_id, contact_id=contact_id)
    return len(due)
