"""A stopping server: it serves on, then takes no new connections, then closes its sockets over time."""

import asyncio
import signal
import time
from collections import Counter

import httpx2 as httpx
import pytest

from resolvers.transport.connections import ENDED_EVERY_S, ENDED_PER_S, Connections
from resolvers.transport.limits import Limits
from tests.transport.room import open_room


class Seated:
    """A connection that notes when it was asked to close."""

    def __init__(self) -> None:
        self.ended_at: float | None = None

    def end(self, code: int, reason: str) -> None:
        assert (code, reason) == (1012, "Service restart")
        self.ended_at = time.monotonic()


def seat(count: int) -> tuple[Connections, list[Seated]]:
    connections = Connections(Limits(sockets=count))
    seated = [Seated() for _ in range(count)]
    for n, one in enumerate(seated):
        assert connections.admit(one, f"key {n}", None)
    return connections, seated


async def portions(connections: Connections, seated: list[Seated], within_s: float) -> tuple[list[int], float]:
    """How many were closed at a time, and the seconds from the first to the last."""
    await connections.end_all(1012, "Service restart", within_s=within_s)
    times = [one.ended_at for one in seated if one.ended_at is not None]
    assert len(times) == len(seated)
    starts = [times[0]]
    for at in times:
        if at - starts[-1] > ENDED_EVERY_S / 2:
            starts.append(at)
    counts = Counter(max(start for start in starts if start <= at) for at in times)
    return [counts[start] for start in starts], times[-1] - times[0]


async def test_few_sockets_close_immediately_and_many_over_time() -> None:
    assert await portions(*seat(1), within_s=5) == ([1], 0)
    few, seconds = await portions(*seat(100), within_s=5)
    assert (max(few), sum(few)) == (ENDED_PER_S * ENDED_EVERY_S, 100)
    assert seconds >= 0.9 * 100 / ENDED_PER_S - ENDED_EVERY_S


async def test_the_last_socket_closes_within_the_time_that_is_given() -> None:
    closed, seconds = await portions(*seat(2_000), within_s=0.4)
    assert len(closed) <= 0.4 / ENDED_EVERY_S
    assert max(closed) == 250
    assert 0.3 <= seconds < 5  # asleep for 7 x 50 ms; the machine may be busy


async def test_without_a_spread_all_close_at_the_same_time() -> None:
    closed, _ = await portions(*seat(500), within_s=0)
    assert closed == [500]
    empty, _ = seat(0)
    await empty.end_all(1012, "Service restart", within_s=5)


async def test_a_socket_that_left_meanwhile_is_not_closed() -> None:
    connections, seated = seat(100)
    closing = asyncio.create_task(connections.end_all(1012, "Service restart", within_s=5))
    await asyncio.sleep(0)
    connections.leave(seated[-1])
    await closing
    assert [one.ended_at is None for one in seated] == [False] * 99 + [True]


async def test_it_serves_on_while_balancers_notice_then_takes_nothing_new_then_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = asyncio.Event()
    spreading, go = asyncio.Event(), asyncio.Event()

    async def held(self: Connections, code: int, reason: str, *, within_s: float = 0.0) -> None:
        assert within_s == 4
        spreading.set()
        await asyncio.wait_for(go.wait(), 10)
        await end_all(self, code, reason)

    end_all = Connections.end_all
    monkeypatch.setattr(Connections, "end_all", held)
    options = {"on_stop": stopped.set, "drain_s": 2.0, "spread_s": 4.0}
    async with open_room(stop_options=options) as room, room.socket() as client:
        room.server.should_exit = True
        await asyncio.wait_for(stopped.wait(), 5)
        async with httpx.AsyncClient() as new:
            answer = await new.post(room.url, json={"query": "{ hello }"})
            assert answer.json() == {"data": {"hello": "hello world"}}
        await asyncio.wait_for(spreading.wait(), 5)
        async with httpx.AsyncClient() as new:
            with pytest.raises(httpx.ConnectError):
                await new.post(room.url, json={"query": "{ hello }"})
        await client.say({"type": "ping"})
        await client.hear({"type": "pong"})
        go.set()
        assert (await client.closed())[0] == 1012


async def test_an_interrupt_from_the_terminal_skips_both_waits() -> None:
    options = {"drain_s": 30.0, "spread_s": 5.0}
    async with open_room(stop_options=options) as room, room.socket() as client:
        room.server.handle_exit(signal.SIGINT, None)
        assert (await client.closed())[0] == 1012
