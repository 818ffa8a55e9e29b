"""Prunes the event log."""

from __future__ import annotations

from datetime import UTC, datetime

from models import event_log
from services.core import jobs


@jobs.periodic("retention", 3600)
async def retain(job: jobs.JobContext) -> None:
    await event_log.prune(datetime.now(UTC))
