"""/healthz (liveness), /readyz (readiness) and /metrics (Prometheus)."""

from __future__ import annotations

import asyncio
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from models import database, database_errors, migrate
from services.accounts import key_rotation, login
from services.core import job_runner
from services.lists import live
from settings import Settings
from web import metrics

log = structlog.get_logger(__name__)

NO_STORE: Final = {"cache-control": "no-store"}
PROBE_EVERY_S: Final = 5.0
FULL_BYTES: Final = 2 * 1024 * 1024  # SQLite needs some for its log
LOW_BYTES: Final = 256 * 1024 * 1024
UNHANDLED_AFTER: Final = timedelta(minutes=5)
UNHANDLED_MANY: Final = 10
# These keep the process in service: without the bus events arrive by polling, without Redis each process counts limits
# alone, a lock ends by itself, and the version before works on the next one's schema.
DEGRADED: Final = (("bus", "unavailable"), ("limits", "unavailable"), ("disk", "locked"), ("migrations", "newer"))
JOB_STATUSES: Final = ("queued", "running", "dead")


async def healthz(request: Request) -> Response:
    """Always 200: an unavailable database is no reason to restart the process."""
    return PlainTextResponse("ok\n", headers=NO_STORE)


async def readyz(request: Request) -> Response:
    """200 ("ready", or "degraded": slow) or 503. With MONITOR_TOKEN also the failed checks."""
    settings: Settings = request.app.state.settings
    if (stopping := getattr(request.app.state, "stopping", None)) is not None and stopping.is_set():
        return JSONResponse({"status": "stopping"}, 503, NO_STORE)
    checks = {"database": await _database(), "events": _events(request)}
    checks["disk"] = await _disk(request) if checks["database"] == "ok" else "unknown"
    checks["migrations"] = await _migrations(request, settings) if checks["database"] == "ok" else "unknown"
    checks["bus"] = "ok" if request.app.state.hub.hinted else "unavailable"
    if settings.limits_redis:
        checks["limits"] = await _limits(request)
    migrated = checks["migrations"] in ("ok", "newer")
    checks["secrets"] = await _secrets() if migrated else "unknown"
    warnings = []
    if migrated and await unhandled(UNHANDLED_MANY + 1) > UNHANDLED_MANY:
        warnings.append("more than 10 webhooks have waited for over 5 minutes")
    free = database.free_bytes()
    if free is not None and free < LOW_BYTES:
        warnings.append("less than 256 MB are free on the disk of the SQLite file")
    if (runs := job_runner.healthy()) is not None:
        checks["jobs"] = "ok" if runs else "stopped"
    slow = {name for name, result in DEGRADED if checks.get(name) == result}
    ready = all(check == "ok" for name, check in checks.items() if name not in slow)
    body: dict[str, object] = {"status": ("degraded" if slow else "ready") if ready else "not ready"}
    if _shows_details(request):
        body |= {"checks": checks, "warnings": warnings}
    return JSONResponse(body, 200 if ready else 503, NO_STORE)


def _shows_details(request: Request) -> bool:
    settings: Settings = request.app.state.settings
    if not settings.monitor_token:
        return not settings.production
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    # Headers are decoded as Latin-1: compare bytes, compare_digest takes no other text.
    return scheme.lower() == "bearer" and secrets.compare_digest(
        token.strip().encode("latin-1"), settings.monitor_token.encode()
    )


async def _database() -> str:
    try:
        async with asyncio.timeout(5):
            await database.rows("SELECT 1 AS one")
    except Exception as error:  # noqa: BLE001 whatever it is, the answer is the same: not ready
        log.warning("readyz: the database does not answer", error=type(error).__name__)
        return "unavailable"
    return "ok"


async def _disk(request: Request) -> str:
    state = request.app.state
    if getattr(state, "disk", None) is None or time.monotonic() - state.disk_at >= PROBE_EVERY_S:
        state.disk, state.disk_at = await _probe_disk(), time.monotonic()
    result: str = state.disk
    return result


async def _limits(request: Request) -> str:
    state = request.app.state
    if getattr(state, "limits", None) is None or time.monotonic() - state.limits_at >= PROBE_EVERY_S:
        state.limits, state.limits_at = await login.limits_reachable(), time.monotonic()
    return "ok" if state.limits else "unavailable"


async def _probe_disk() -> str:
    free = database.free_bytes()
    if free is not None and free < FULL_BYTES:
        return "full"
    try:
        async with asyncio.timeout(10):
            await database.try_write()
    except Exception as error:  # noqa: BLE001 whatever it is, nothing can be stored
        log.warning("readyz: nothing can be stored", error=type(error).__name__)
        return (
            "full"
            if database_errors.is_full(error)
            else "locked"
            if database_errors.is_locked(error)
            else "unavailable"
        )
    return "ok"


def _events(request: Request) -> str:
    return "ok" if request.app.state.hub.healthy else "unavailable"


async def _migrations(request: Request, settings: Settings) -> str:
    # Migrations stay applied while this code runs: stop asking once none is pending.
    if getattr(request.app.state, "migrated", False):
        return "ok"
    try:
        async with asyncio.timeout(5):
            pending = await migrate.pending(settings.database_url)
    except migrate.NewerDatabase:
        return "newer"  # a migration only removes what the version before no longer uses
    except (migrate.MigrationError, OSError, TimeoutError) as error:
        log.warning("readyz: the migrations can't be compared", error=type(error).__name__)
        return "unknown"
    if pending:
        return "pending"
    request.app.state.migrated = True
    return "ok"


async def _secrets() -> str:
    closed = await key_rotation.unreadable()
    for table, count in closed.items():
        log.error("readyz: SECRET_KEYS does not open stored secrets", kind=table, count=count)
    return "not readable with these SECRET_KEYS" if closed else "ok"


async def unhandled(limit: int) -> int:
    """Stored webhooks that have waited for over five minutes, at most `limit`."""
    found = await database.rows(
        "SELECT id FROM processor_event WHERE handled_at IS NULL AND received_at < ? LIMIT ?",
        datetime.now(UTC) - UNHANDLED_AFTER,
        limit,
    )
    return len(found)


async def metrics_page(request: Request) -> Response:
    """Prometheus text; without the database only the process's own metrics."""
    if not _shows_details(request):
        return PlainTextResponse(
            "Send MONITOR_TOKEN: Authorization: Bearer …\n", 401, {**NO_STORE, "www-authenticate": "Bearer"}
        )
    metrics.live.set(1 if request.app.state.hub.healthy else 0)
    metrics.bus.set(1 if request.app.state.hub.hinted else 0)
    _show_live_views(live.of(request.app.state.hub).counters)
    try:
        async with asyncio.timeout(5):
            await _ask_database()
    except Exception as error:  # noqa: BLE001 the process's own metrics matter most without a database
        log.warning("metrics: the database does not answer", error=type(error).__name__)
    return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST, headers=NO_STORE)


def _show_live_views(counters: live.Counters) -> None:
    metrics.live_views.set(counters.lists)
    metrics.live_view_watchers.set(counters.watchers)
    metrics.live_view_items.set(counters.items)
    changes, evaluations = counters.take_new()
    metrics.live_view_changes.inc(changes)
    metrics.live_view_evaluations.inc(evaluations)


async def _ask_database() -> None:
    counts = {
        row["status"]: row["count"]
        for row in await database.rows(
            f"SELECT status, COUNT(*) AS count FROM job WHERE status IN ({database.placeholders(3)}) GROUP BY status",  # noqa: S608 (only constants are put in)
            *JOB_STATUSES,
        )
    }
    for status in JOB_STATUSES:
        metrics.jobs.labels(status).set(counts.get(status, 0))
    oldest = await database.rows("SELECT MIN(due_at) AS due_at FROM job WHERE status = ?", "queued")
    due_at = database.to_time(oldest[0]["due_at"]) if oldest else None
    waited = (datetime.now(UTC) - due_at).total_seconds() if due_at else 0.0
    metrics.oldest_job_seconds.set(max(0.0, waited))
    metrics.unhandled_events.set(await unhandled(10_000))


routes: Final = [
    Route("/healthz", healthz, methods=["GET"]),
    Route("/readyz", readyz, methods=["GET"]),
    Route("/metrics", metrics_page, methods=["GET"]),
]
