"""Changes that share a transaction: each is answered after the commit, and a bad one fails alone."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from models import database as raw
from models.database_url import sqlite_path
from models.engine_sqlite import SafeTransaction
from models.tables import Contact
from services.core import group_commit
from tests import factories
from tests.configured import change, configure


def stored(url: str) -> list[str]:
    """What another connection sees, so only what is committed."""
    connection = sqlite3.connect(Path(sqlite_path(url)))
    try:
        return [name for (name,) in connection.execute("SELECT name FROM contact ORDER BY name")]
    finally:
        connection.close()


@pytest.fixture
async def sqlite_database(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[str]:
    configure()
    path = tmp_path / "paythread.db"
    shutil.copyfile(sqlite_template, path)
    async with raw.open_database(f"sqlite:///{path}", synchronous="OFF"):
        yield f"sqlite:///{path}"


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each transaction that began."""
    entries: list[int] = []
    begin = SafeTransaction.begin

    async def counted(self: SafeTransaction) -> None:
        entries.append(1)
        await begin(self)

    monkeypatch.setattr(SafeTransaction, "begin", counted)
    return entries


async def adds(name: str, *, fails: Exception | None = None) -> Callable[[], Awaitable[None]]:
    account = await factories.account()

    async def work() -> None:
        async with raw.transaction():
            await factories.contact(account, name=name)
            if fails is not None:
                raise fails

    return work


async def together(*works: Callable[[], Awaitable[None]]) -> list[BaseException | None]:
    return await asyncio.gather(*(group_commit.run(work) for work in works), return_exceptions=True)


async def test_waiting_changes_share_a_transaction_and_are_committed(sqlite_database: str, begun: list[int]) -> None:
    works = [await adds(f"{n:03}") for n in range(150)]
    begun.clear()
    assert await together(*works) == [None] * 150
    assert stored(sqlite_database) == [f"{n:03}" for n in range(150)]
    assert 3 <= len(begun) < 75  # at most 64 in one


async def test_each_is_answered_after_the_commit(sqlite_database: str) -> None:
    async def seen(name: str) -> bool:
        await group_commit.run(await adds(name))
        return name in stored(sqlite_database)

    assert all(await asyncio.gather(*(seen(str(n)) for n in range(20))))


async def test_a_bad_change_fails_alone(sqlite_database: str) -> None:
    error = ValueError("bad")
    works = [await adds("a"), await adds("b", fails=error), await adds("c")]
    assert await together(*works) == [None, error, None]
    assert stored(sqlite_database) == ["a", "c"]


async def test_a_transient_failure_abandons_the_others(sqlite_database: str) -> None:
    error = TimeoutError()
    works = [await adds("a"), await adds("b", fails=error), await adds("c")]
    first, second, third = await together(*works)
    assert isinstance(first, group_commit.Abandoned)
    assert second is error
    assert third is None  # it had not joined yet
    assert stored(sqlite_database) == ["c"]


async def test_a_failed_commit_abandons_all(sqlite_database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(self: SafeTransaction) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    works = [await adds("a"), await adds("b")]
    with monkeypatch.context() as broken:
        broken.setattr(SafeTransaction, "commit", fails)
        answers = await together(*works)
    assert [type(answer) for answer in answers] == [group_commit.Abandoned] * 2
    assert await together(*works) == [None, None]
    assert stored(sqlite_database) == ["a", "b"]


async def test_a_transaction_that_cannot_begin_abandons_all(
    sqlite_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, failures = SafeTransaction.begin, [RuntimeError("no")]

    async def fails_once(self: SafeTransaction) -> None:
        if failures:
            raise failures.pop()
        await begin(self)

    works = [await adds("a"), await adds("b"), await adds("c")]
    monkeypatch.setattr(SafeTransaction, "begin", fails_once)
    assert [type(answer) for answer in await together(*works)] == [group_commit.Abandoned] * 3
    assert await together(*works) == [None] * 3
    assert stored(sqlite_database) == ["a", "b", "c"]


async def test_a_cancelled_change_is_not_run(sqlite_database: str) -> None:
    works = [await adds(name) for name in "abc"]
    tasks = [asyncio.create_task(group_commit.run(work)) for work in works]
    await asyncio.sleep(0)
    tasks[1].cancel()
    assert [type(answer) for answer in await asyncio.gather(*tasks, return_exceptions=True)] == [
        type(None),
        asyncio.CancelledError,
        type(None),
    ]
    assert stored(sqlite_database) == ["a", "c"]


async def test_work_after_the_commit_sees_it(sqlite_database: str) -> None:
    seen: list[int] = []

    async def announced(name: str) -> None:
        work = await adds(name)

        async def both() -> None:
            async with raw.transaction():
                await work()
                raw.after_commit(lambda: seen.append(len(stored(sqlite_database))))

        await group_commit.run(both)

    await asyncio.gather(*(announced(name) for name in "abcd"))
    assert len(seen) == 4
    assert min(seen) > 0
    assert seen[-1] == 4


async def test_off_each_has_its_own_transaction(sqlite_database: str, begun: list[int]) -> None:
    change(group_commit=False)
    works = [await adds(str(n)) for n in range(5)]
    begun.clear()
    assert await together(*works) == [None] * 5
    assert len(begun) == 5
    assert len(stored(sqlite_database)) == 5


@pytest.mark.usefixtures("database")
async def test_postgres_and_an_outer_transaction_run_it_directly() -> None:
    configure()
    work = await adds("a")
    async with raw.transaction():
        await group_commit.run(work)
        assert raw.in_transaction()
    assert await Contact.filter(name="a").count() == 1
    await group_commit.run(await adds("b"))
    assert await Contact.filter(name="b").count() == 1
