"""Runs periodic jobs and clock corrections."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import structlog

from models import database
from models.tables import Job, Tick
from services.core import jobs

log = structlog.get_logger(__name__)

PERIODIC_ATTEMPTS = 3  # then the next slot has its turn
# Clock difference between servers. A time further ahead was set before the clock was set back.
CLOCK_SKEW = timedelta(seconds=10)


async def plant() -> None:
    for name, every_s in jobs.periods.items():
        await database.execute(
            "INSERT INTO tick (name, every_ms, next_at) VALUES (?, ?, ?) ON CONFLICT (name) DO NOTHING",
            name,
            int(every_s * 1000),
            datetime.now(UTC),
        )


async def fire() -> None:
    """Enqueue jobs whose slot has come, unless an earlier one is unfinished."""
    now = datetime.now(UTC)
    ticks = await Tick.filter(name__in=list(jobs.periods))
    ahead = [tick for tick in ticks if tick.next_at > now + timedelta(seconds=jobs.periods[tick.name]) + CLOCK_SKEW]
    if ahead:
        log.warning("clock_set_back", delay_s=round((max(tick.next_at for tick in ahead) - now).total_seconds()))
        for correct in jobs.clock_corrections:
            await correct(now)
    for tick in [tick for tick in ticks if tick.next_at <= now or tick in ahead]:
        every_s = jobs.periods[tick.name]
        async with database.transaction():
            taken = await Tick.filter(name=tick.name, next_at=tick.next_at).update(
                next_at=now + timedelta(seconds=every_s), every_ms=int(every_s * 1000)
            )
            if taken and not await Job.exists(kind=tick.name, status__in=["queued", "running"]):
                slot = tick.next_at.isoformat()
                await jobs.enqueue(
                    tick.name, {}, account_id=None, key=f"{tick.name}@{slot}", max_attempts=PERIODIC_ATTEMPTS
                )


async def correct_due_times() -> None:
    """After the clock was set back, keep the intended waits."""
    now = datetime.now(UTC)
    wrong = await database.rows(
        "SELECT id, due_at, set_at FROM job WHERE status = 'queued' AND due_at > ? AND set_at > ?",
        now,
        now + CLOCK_SKEW,
    )
    for row in wrong:
        waits = max(timedelta(), database.to_time(row["due_at"]) - database.to_time(row["set_at"]))
        await database.execute(
            "UPDATE job SET due_at = ?, set_at = ? WHERE id = ? AND status = 'queued' AND set_at = ?",
            now + waits,
            now,
            row["id"],
            row["set_at"],
        )


@jobs.periodic("jobs.prune", 3600)
async def _prune(job: jobs.JobContext) -> None:
    now = datetime.now(UTC)
    for status, kept in (("done", timedelta(days=1)), ("dead", timedelta(days=30))):
        await database.execute("DELETE FROM job WHERE status = ? AND created_at < ?", status, now - kept)
    # Releases before 0.2 marked periodic jobs dead; they need no attention.
    await Job.filter(status="dead", kind__in=list(jobs.periods)).delete()
