"""The test servers: a crash, a restart, and a missing server."""

import asyncio
import socket
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import pytest

from tests import servers

pytestmark = pytest.mark.slow


def _value(url: str, query: str) -> object:
    async def ask() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(ask())


def test_a_killed_redis_comes_back_on_its_port() -> None:
    with servers.RedisServer() as redis:
        address = ("127.0.0.1", redis.port)
        with socket.create_connection(address, timeout=5) as client:
            # An answer proves that the connection was accepted; one still in the queue would be reset, not closed.
            client.sendall(b"PING\r\n")
            assert client.recv(7) == b"+PONG\r\n"
            redis.kill()
            assert client.recv(1) == b""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address, timeout=5)
        redis.start()
        assert servers.redis_version(redis.url).count(".") == 2
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_a_postgres_that_crashed_keeps_its_commits_and_a_stopped_one_leaves_no_folder() -> None:
    with servers.PostgresServer() as postgres:
        home = postgres._folder(".").resolve()
        _value(postgres.url, "CREATE TABLE kept AS SELECT 7 AS number")
        postgres.restart()
        assert _value(postgres.url, "SELECT number FROM kept") == 7
        # The tests empty their tables with the triggers off, which takes a superuser.
        assert _value(postgres.url, "SELECT current_setting('is_superuser')") == "on"
    assert not home.exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", postgres.port), timeout=5)


def test_an_address_that_answers_is_used_and_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers.RedisServer() as redis:
        monkeypatch.setenv("TEST_REDIS_URL", redis.url)
        with servers.redis() as url:
            assert url == redis.url
        assert servers.redis_version(redis.url)


def test_an_address_that_is_dead_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = f"redis://127.0.0.1:{servers.free_port()}/0"
    monkeypatch.setenv("TEST_REDIS_URL", dead)
    with servers.redis() as url:
        assert url != dead
        assert servers.redis_version(url)


def test_the_exit_code_is_the_commands_own(capfd: pytest.CaptureFixture[str]) -> None:
    assert servers.main(["/bin/sh", "-c", "echo $TEST_POSTGRES_URL $TEST_REDIS_URL; exit 3"]) == 3
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["PostgreSQL", "Redis"]
    assert lines[2].startswith("postgres://")
    assert " redis://127.0.0.1:" in lines[2]


def test_a_missing_server_fails_in_ci_and_is_said_aloud_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    monkeypatch.setattr(servers, "_POSTGRES_SOURCES", [])
    monkeypatch.setenv("TEST_POSTGRES_URL", f"postgres://postgres@127.0.0.1:{servers.free_port()}/postgres")
    monkeypatch.setenv("CI", "true")
    assert servers.main(["/usr/bin/touch", str(ran)]) == 1
    assert not ran.exists()
    monkeypatch.setenv("CI", "")
    assert servers.main(["/bin/sh", "-c", f'touch {ran}; test -z "$TEST_POSTGRES_URL"']) == 0
    assert ran.exists()
    assert capfd.readouterr().out.count("MISSING: no PostgreSQL for the tests: TEST_POSTGRES_URL: ") == 2
