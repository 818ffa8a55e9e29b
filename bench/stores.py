"""Databases of the runs: each target gets a fresh copy of data that was made once, in SQLite or PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg  # type: ignore[import-untyped]  # it ships no types
import orjson

from bench.processes import Failed
from bench.targets import NOWHERE, PEERS, ROOT
from tests.servers import PostgresServer

PREPARE_S = 600
THREADS, ITEMS = 20, 200


class Stores:
    """Templates by (whose, workload, engine), made when first asked for."""

    def __init__(self, folder: Path, postgres: PostgresServer | None) -> None:
        self._folder, self._postgres = folder, postgres
        self._known: dict[tuple[str, str, str], Any] = {}
        self._copies = 0

    @contextlib.contextmanager
    def copy(self, whose: str, workload: str, engine: str, count: int) -> Iterator[tuple[str, Any]]:
        """A database of its own: its URL, and what the load needs to know. Raises: Failed."""
        key = (whose, workload, engine)
        template = "_".join(key)
        if key not in self._known:
            url = self._make(template, engine)
            self._known[key] = _prepare(url, workload, count) if whose == "paythread" else _prepare_peer(url, count)
        self._copies += 1
        name = f"run_{self._copies}"
        if engine == "sqlite":
            shutil.copy(self._folder / f"{template}.db", self._folder / f"{name}.db")
            yield f"sqlite:///{self._folder / name}.db", self._known[key]
            for file in self._folder.glob(f"{name}.db*"):
                file.unlink()
            return
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self._url(name), self._known[key]
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _make(self, name: str, engine: str) -> str:
        if engine == "sqlite":
            return f"sqlite:///{self._folder / name}.db"
        self._execute(f"DROP DATABASE IF EXISTS {name}")
        self._execute(f"CREATE DATABASE {name}")
        return self._url(name)

    def _url(self, database: str) -> str:
        if self._postgres is None:
            raise Failed("no PostgreSQL")
        return urlunsplit(urlsplit(self._postgres.url)._replace(path=f"/{database}"))

    def _execute(self, statement: str) -> None:
        asyncio.run(_statements(self._url("postgres"), [statement]))


def rows_in(url: str, table: str) -> int:
    """The number of rows that other processes can see."""
    query = f"SELECT count(*) FROM {table}"  # noqa: S608 (a constant name)
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            return int(database.execute(query).fetchone()[0])

    async def ask() -> int:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return int(await connection.fetchval(query))
        finally:
            await connection.close()

    return asyncio.run(ask())


async def _statements(url: str, statements: list[str]) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


def _prepare(url: str, workload: str, count: int) -> Any:
    command = [sys.executable, "-m", "tests.bench_data", workload, str(count)]
    env = {**os.environ, "DATABASE_URL": url, "LOG_LEVEL": "warning", "STRIPE_API_BASE": NOWHERE}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=PREPARE_S, check=False)
    if done.returncode != 0:
        raise Failed(f"data: {done.stderr.decode(errors='replace').strip().splitlines()[-1][:200]}")
    return orjson.loads(done.stdout.splitlines()[-1])


def _prepare_peer(url: str, count: int) -> Any:
    """The peers' rows: the same numbers of threads, items and unpaid invoices."""
    at = datetime.now(UTC).isoformat()
    tables = (PEERS / "tables.sql").read_text()
    conversations = [f"cnv_{n}" for n in range(THREADS)]
    items = [
        (t * ITEMS + n + 1, conversations[t], *(_CARD if n % 2 else _MESSAGE), at)
        for t in range(THREADS)
        for n in range(ITEMS)
    ]
    invoices = [f"pr_{n:026d}" for n in range(count)]
    if url.startswith("sqlite"):
        database = sqlite3.connect(url.removeprefix("sqlite:///"))
        database.executescript(tables)
        database.executemany("INSERT INTO conversation VALUES (?)", [(one,) for one in conversations])
        database.executemany(f"INSERT INTO thread_item VALUES ({', '.join('?' * 11)})", items)  # noqa: S608 (only marks)
        database.executemany("INSERT INTO invoice VALUES (?, 'sent', NULL)", [(one,) for one in invoices])
        database.commit()
        database.close()
    else:
        asyncio.run(_fill(url, tables, conversations, items, invoices))
    requests = [[one, f"cs_test_bench{n:08d}"] for n, one in enumerate(invoices)]
    return {"path": "/webhooks/stripe", "requests": requests, "conversations": conversations}


_MESSAGE = (
    "MESSAGE",
    "Could you come on Tuesday at nine instead? The key is with the neighbour.",
    "INBOUND",
    "SMS",
    "DELIVERED",
    None,
    None,
    None,
)
_CARD = ("PAYMENT_REQUEST", None, None, None, "SENT", "Deep clean", 12500, "USD")


async def _fill(url: str, tables: str, conversations: list[str], items: list[Any], invoices: list[str]) -> None:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        await connection.execute(tables)
        await connection.copy_records_to_table("conversation", records=[(one,) for one in conversations])
        await connection.copy_records_to_table("thread_item", records=items)
        await connection.copy_records_to_table("invoice", records=[(one, "sent", None) for one in invoices])
        await connection.execute("ANALYZE")
    finally:
        await connection.close()
