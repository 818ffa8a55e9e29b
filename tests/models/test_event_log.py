"""An account's log has gapless numbers in commit order, for any number of writers."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from tortoise.exceptions import BaseORMException

from models import database as db
from models import event_log
from models.event_log import Cursor, CursorInvalid, LogEntry
from services.core import actors
from tests import factories


async def write(account_id: UUID, count: int = 1, *, at: datetime | None = None) -> int:
    async with db.transaction():
        first = await event_log.reserve(account_id, count)
        await event_log.append(
            [LogEntry(account_id=account_id, seq=first + n, kind="x", at=at or factories.now()) for n in range(count)]
        )
    return first


async def test_a_reader_beside_twenty_writers_misses_nothing_and_sees_no_hole(database: str) -> None:
    account = await factories.account()
    chosen = random.Random(12)
    committed = 0
    writing = 20

    async def writer() -> None:
        nonlocal committed, writing
        for _ in range(15):
            count = chosen.randrange(1, 4)
            fails = chosen.random() < 0.05
            try:
                async with db.transaction():
                    first = await event_log.reserve(account.id, count)
                    entries = [
                        LogEntry(account_id=account.id, seq=first + n, kind="x", at=factories.now())
                        for n in range(count)
                    ]
                    await event_log.append(entries)
                    await asyncio.sleep(0)
                    if fails:
                        raise ZeroDivisionError
                committed += count
            except ZeroDivisionError:
                pass
        writing -= 1

    async def reader() -> list[int]:
        seen: list[int] = []
        while True:
            last_round = writing == 0
            found = await event_log.read(account.id, seen[-1] if seen else 0, 50)
            seen += [entry.seq for entry in found]
            if last_round and not found:
                return seen
            await asyncio.sleep(0)

    seen, *_ = await asyncio.gather(reader(), *(writer() for _ in range(20)))
    assert committed > 400
    assert seen == list(range(1, committed + 1))
    assert await event_log.heads([account.id]) == {account.id: committed}
    print(f"{committed} committed: lost 0, holes 0")  # noqa: T201


async def test_entries_come_back_as_they_were_written(database: str) -> None:
    account = await factories.account()
    ids = {
        name: UUID(int=n)
        for n, name in enumerate(
            (
                "conversation_id",
                "contact_id",
                "payment_request_id",
                "message_id",
                "card_id",
                "payment_id",
                "notification_id",
                "user_id",
            ),
            1,
        )
    }
    known: dict[str, Any] = {
        "account_id": account.id,
        "at": factories.now(),
        "data": {"previous_status": "SENT"},
        **ids,
    }
    entries = [
        LogEntry(seq=1, kind="x", actor=actors.user(ids["user_id"]).stored(), **known),
        LogEntry(seq=2, kind="x", **known),  # as an older version logged it
    ]
    async with db.transaction():
        await event_log.reserve(account.id, 2)
        await event_log.append(entries)
    assert await event_log.read(account.id, 0, 10) == entries


async def test_very_many_entries_fit_into_one_change(database: str) -> None:
    account = await factories.account()
    assert await write(account.id, 1201) == 1
    assert await write(account.id) == 1202
    assert [entry.seq for entry in await event_log.read(account.id, 1190, 100)] == list(range(1191, 1203))


async def test_accounts_count_apart(database: str) -> None:
    one, two = await factories.account(), await factories.account()
    assert [await write(one.id), await write(two.id), await write(one.id)] == [1, 1, 2]
    assert await event_log.heads([one.id, two.id, UUID(int=7)]) == {one.id: 2, two.id: 1}
    assert await event_log.heads([]) == {}


async def test_an_entry_can_be_neither_changed_nor_deleted(database: str) -> None:
    account = await factories.account()
    await write(account.id, 3)
    for sql in ("UPDATE event SET kind = 'y'", "DELETE FROM event"):
        with pytest.raises(BaseORMException, match="append-only"):
            await db.execute(sql)
    assert len(await event_log.read(account.id, 0, 10)) == 3


async def test_pruning_takes_the_oldest_numbers_only_and_leaves_no_hole(database: str) -> None:
    account, young, untouched = await factories.account(), await factories.account(), await factories.account()
    now = datetime.now(UTC)
    old = now - event_log.RETENTION - timedelta(minutes=1)
    await write(account.id, 3, at=old)
    await write(account.id, 1, at=now)
    await write(account.id, 1, at=old)  # it began before the one that committed first
    await write(account.id, 1, at=now)
    await write(young.id, 2, at=old)
    await write(untouched.id, 1, at=now)
    assert await event_log.prune(now) == 5
    assert [entry.seq for entry in await event_log.read(account.id, 0, 10)] == [4, 5, 6]
    assert [await event_log.oldest(each.id) for each in (account, young, untouched)] == [4, 3, 1]
    assert await event_log.prune(now) == 0
    assert await write(young.id) == 3


def test_a_cursor_is_good_for_its_account_only() -> None:
    account_id, other = UUID(int=1), UUID(int=2)
    cursor = Cursor("epoch", account_id, 2**63 - 1)
    assert Cursor.decode(cursor.encode(), account_id) == cursor
    with pytest.raises(CursorInvalid):
        Cursor.decode(cursor.encode(), other)


@pytest.mark.parametrize(
    "text",
    ["", "x", "€", "AAAA", "=" * 40, Cursor("", UUID(int=1), 1).encode(), Cursor("e", UUID(int=1), 2**63).encode()],
)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(CursorInvalid):
        Cursor.decode(text, UUID(int=1))
