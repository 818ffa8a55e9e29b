"""Health checks and metrics."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest

from models import database, migrate, vault
from models.ids import uuid7
from models.tables import Job, ProcessorEvent
from tests import factories
from tests.flows import harness
from tests.servers import RedisServer
from tests.web.conftest import Serve, Site
from web import health


async def test_a_running_server_is_healthy_and_ready(site: Site) -> None:
    assert (await site.http.get("/healthz")).text == "ok\n"
    ready = await site.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "checks": {
            "database": "ok",
            "disk": "ok",
            "events": "ok",
            "bus": "ok",
            "migrations": "ok",
            "secrets": "ok",
        },
        "warnings": [],
    }


async def test_without_the_database_it_is_not_ready_but_healthy(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(sql: str, *args: object) -> list[dict[str, object]]:
        raise ConnectionError("postgres://user:password@db")

    monkeypatch.setattr(database, "rows", gone)
    ready = await site.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] == "unavailable"
    assert "password" not in ready.text
    assert (await site.http.get("/healthz")).status_code == 200
    metrics = await site.http.get("/metrics")
    assert metrics.status_code == 200
    assert "password" not in site.log.getvalue()


async def test_a_full_disk_is_not_ready_and_little_space_is_a_warning(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PROBE_EVERY_S", 0)
    monkeypatch.setattr(database, "free_bytes", lambda: 1_000_000)
    ready = await site.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["checks"]["disk"]) == (503, "not ready", "full")
    monkeypatch.setattr(database, "free_bytes", lambda: 200_000_000)
    ready = await site.http.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["disk"], len(ready.json()["warnings"])) == (200, "ok", 1)


async def test_readiness_tries_to_write(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    await database.execute("ALTER TABLE tick RENAME TO tick_away")
    try:
        ready = await site.http.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["disk"]) == (503, "unavailable")
    finally:
        await database.execute("ALTER TABLE tick_away RENAME TO tick")
    # Many askers cause few writes.
    assert (await site.http.get("/readyz")).json()["checks"]["disk"] == "unavailable"
    monkeypatch.setattr(health, "PROBE_EVERY_S", 0)
    for _ in range(2):
        assert (await site.http.get("/readyz")).json()["checks"]["disk"] == "ok"
    assert await database.rows("SELECT name FROM tick") == [{"name": "probe"}]


async def test_a_held_probe_is_told_and_no_reason_to_take_the_process_out(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def held() -> None:
        raise asyncpg.LockNotAvailableError("canceling statement due to lock timeout")

    monkeypatch.setattr(database, "try_write", held)
    ready = await site.http.get("/readyz")
    assert (ready.status_code, ready.json()["status"], ready.json()["checks"]["disk"]) == (200, "degraded", "locked")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_redis_that_is_down_is_told_and_the_server_stays_in_service(database_url: str) -> None:
    with RedisServer() as redis:
        async with harness.in_process(database_url, redis.url) as product:

            async def status(wanted: str) -> tuple[int, dict[str, Any]]:
                async with asyncio.timeout(20):
                    while True:
                        ready = await product.http.get("/readyz")
                        if ready.json()["status"] == wanted:
                            return ready.status_code, ready.json()["checks"]
                        await asyncio.sleep(0.05)

            assert (await status("ready"))[1]["bus"] == "ok"
            redis.kill()
            code, checks = await status("degraded")
            assert (code, checks["bus"], checks["events"]) == (200, "unavailable", "ok")
            assert "paythread_event_bus_connected 0.0" in (await product.http.get("/metrics")).text
            redis.start()
            assert (await status("ready"))[1]["bus"] == "ok"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_limits_that_redis_no_longer_counts_are_degraded(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PROBE_EVERY_S", 0)
    with RedisServer() as redis:
        async with harness.in_process(database_url, "memory://", LIMITS_URL=redis.url) as product:

            async def ready() -> tuple[int, str, str]:
                answer = await product.http.get("/readyz")
                return answer.status_code, answer.json()["status"], answer.json()["checks"]["limits"]

            assert await ready() == (200, "ready", "ok")
            redis.kill()
            assert await ready() == (200, "degraded", "unavailable")
            redis.start()
            assert await ready() == (200, "ready", "ok")


async def test_a_stopping_server_is_not_ready_but_healthy(site: Site) -> None:
    site.app.state.stopping = asyncio.Event()
    assert (await site.http.get("/readyz")).status_code == 200
    site.app.state.stopping.set()
    ready = await site.http.get("/readyz")
    assert (ready.status_code, ready.json()) == (503, {"status": "stopping"})
    assert (await site.http.get("/healthz")).status_code == 200


async def test_a_pending_migration_and_a_dead_feed_are_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def pending(url: str) -> list[str]:
        return ["0002_later"]

    monkeypatch.setattr(migrate, "pending", pending)
    await site.app.state.hub.stop()
    ready = await site.http.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"] == {
        "database": "ok",
        "disk": "ok",
        "events": "unavailable",
        "bus": "ok",
        "migrations": "pending",
        "secrets": "unknown",
    }


async def test_a_later_version_s_migration_is_degraded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def newer(url: str) -> list[str]:
        raise migrate.NewerDatabase

    monkeypatch.setattr(migrate, "pending", newer)
    ready = await site.http.get("/readyz")
    checks = ready.json()["checks"]
    assert (ready.status_code, ready.json()["status"], checks["migrations"]) == (200, "degraded", "newer")
    assert checks["secrets"] == "ok"


async def test_keys_that_do_not_open_what_is_stored_are_told_until_the_right_one_is_back(site: Site) -> None:
    account = await factories.account()
    for _ in range(2):
        await factories.channel_connection(account)
    keys = site.app.state.settings.keys
    vault.open_vault(["a-key-of-another-server"])
    ready = await site.http.get("/readyz")
    vault.open_vault(keys)
    assert ready.status_code == 503
    assert ready.json()["checks"]["secrets"] == "not readable with these SECRET_KEYS"
    lines = [json.loads(line) for line in site.log.getvalue().splitlines() if "SECRET_KEYS" in line]
    assert [(line["kind"], line["count"]) for line in lines] == [("channel_connection", 2)]
    assert (await site.http.get("/readyz")).json()["checks"]["secrets"] == "ok"


async def test_many_old_unhandled_webhooks_are_a_warning(site: Site) -> None:
    connection = await factories.processor_connection(await factories.account())
    for n in range(11):
        await ProcessorEvent.create(
            account_id=connection.account_id,
            processor_connection_id=connection.id,
            external_id=f"evt_{n}",
            type="x",
            body="{}",
            received_at=datetime.now(UTC) - timedelta(minutes=6),
        )
    ready = (await site.http.get("/readyz")).json()
    assert (ready["status"], len(ready["warnings"])) == ("ready", 1)
    assert "paythread_unhandled_processor_events 11.0" in (await site.http.get("/metrics")).text


async def test_metrics_count_requests_by_route_and_jobs_by_status(site: Site) -> None:
    for status in ("queued", "queued", "dead"):
        await Job.create(id=uuid7(), kind="x", status=status, due_at=datetime.now(UTC) - timedelta(seconds=30))

    def value(text: str, name: str) -> float:
        return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name)), 0.0)

    name = 'paythread_http_requests_total{method="GET",route="/p/{token}",status="404"}'
    before = value((await site.http.get("/metrics")).text, name)
    token = factories.token()
    await site.http.get(f"/p/{token}")
    text = (await site.http.get("/metrics")).text
    assert value(text, name) == before + 1
    assert value(text, 'paythread_jobs{status="queued"}') == 2
    assert value(text, 'paythread_jobs{status="dead"}') == 1
    assert value(text, "paythread_oldest_due_job_seconds") >= 30
    assert value(text, "paythread_live_events_healthy") == 1
    assert token not in text


@pytest.mark.parametrize("settings", [{"environment": "production"}, {"monitor_token": "a-token-of-the-watcher"}])
async def test_details_and_metrics_are_for_who_has_the_token(serve: Serve, settings: dict[str, str]) -> None:
    production = {"secret_keys": "a-key-of-its-own-0001", "public_url": "https://pay.example"}
    async with serve(**settings, **(production if "environment" in settings else {})) as site:
        for value in (b"", b"Bearer wrong", b"Bearer \xff", b"Bearer"):
            headers = [(b"authorization", value)]
            ready = await site.http.get("/readyz", headers=headers)
            assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
            metrics = await site.http.get("/metrics", headers=headers)
            assert metrics.status_code == 401
            assert "paythread" not in metrics.text
        headers = [(b"authorization", b"Bearer a-token-of-the-watcher")]
        shown = "checks" in (await site.http.get("/readyz", headers=headers)).json()
        assert shown is (await site.http.get("/metrics", headers=headers)).is_success is ("monitor_token" in settings)
