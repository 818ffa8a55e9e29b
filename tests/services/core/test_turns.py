"""Waiting for a row takes no connection, ends, and never happens inside a transaction."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from models import database as db
from models import database_errors
from models.ids import uuid7
from services.core import turns
from services.core.unit_of_work import change
from tests import factories

postgres_only = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture
async def account_id(database: str) -> UUID:
    return (await factories.account()).id


@postgres_only
async def test_one_change_of_a_row_is_in_the_database_and_the_next_wait_without_a_connection(account_id: UUID) -> None:
    row, inside, most = uuid7(), 0, 0

    async def work() -> None:
        nonlocal inside, most
        async with change(account_id, queue_on=[row, row]):
            inside += 1
            most = max(most, inside)
            await db.rows("SELECT pg_sleep(0.01)")
            inside -= 1

    await asyncio.gather(*(work() for _ in range(12)))
    assert most == 1
    assert turns._places == {}


@postgres_only
async def test_changes_of_one_account_leave_connections_to_others(account_id: UUID) -> None:
    other = (await factories.account()).id
    async with asyncio.timeout(20):
        go, began = asyncio.Event(), asyncio.Semaphore(0)

        async def hold() -> None:
            async with turns.turn(account_id, [uuid7()]):
                began.release()
                await go.wait()

        tasks = [asyncio.create_task(hold()) for _ in range(turns.CHANGES_AT_ONCE)]
        for _ in tasks:
            await began.acquire()
        with turns.patience(0.05), pytest.raises(turns.Busy) as busy:
            async with change(account_id):
                raise AssertionError("a fifth change began")
        assert database_errors.is_transient(busy.value)
        async with change(other):
            pass
        go.set()
        await asyncio.gather(*tasks)
        async with change(account_id):
            pass
    assert turns._places == {}


@postgres_only
async def test_turns_of_several_rows_in_any_order_never_wait_in_a_circle(account_id: UUID) -> None:
    rows = [uuid7() for _ in range(3)]

    async def work(n: int) -> None:
        async with change(account_id, queue_on=[*rows[n % 3 :], *rows[: n % 3]]):
            await db.rows("SELECT 1 AS one")

    async with asyncio.timeout(20):
        await asyncio.gather(*(work(n) for n in range(30)))


async def test_inside_a_transaction_nobody_waits_for_a_turn(account_id: UUID) -> None:
    row = uuid7()
    async with turns.turn(account_id, [row]), db.transaction(), change(account_id, queue_on=[row]):
        pass
    assert turns._places == {}
