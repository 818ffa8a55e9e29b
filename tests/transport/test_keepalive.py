"""One timer pings all sockets; one call checks all credentials."""

import asyncio
from collections.abc import Sequence
from typing import Any

from resolvers.transport.connections import Connections
from resolvers.transport.keepalive import TURNS, Keepalive
from resolvers.transport.limits import Limits
from tests.transport.room import Person


class Peer:
    def __init__(self) -> None:
        self.pings = 0

    def ping(self) -> None:
        self.pings += 1


async def test_each_socket_is_pinged_once_per_interval_and_never_after_it_left() -> None:
    keepalive = Keepalive(3600)
    peers = [Peer() for _ in range(3 * TURNS)]
    for peer in peers:
        keepalive.add(peer)
    keepalive.remove(peers[0])
    keepalive.remove(peers[0])
    for _ in range(2 * TURNS):
        keepalive._ping()
    assert peers[0].pings == 0
    assert {peer.pings for peer in peers[1:]} == {2}
    assert keepalive._timer is not None
    for peer in peers:
        keepalive.remove(peer)
    assert keepalive._timer is None


class Ended:
    def __init__(self) -> None:
        self.code = 0

    def end(self, code: int, reason: str) -> None:
        self.code = code


async def test_one_call_checks_all_credentials_and_only_revoked_ones_are_closed() -> None:
    calls: list[list[str]] = []

    async def still_valid(people: Sequence[Any]) -> list[bool]:
        calls.append([person.name for person in people])
        return [person.name != "b" for person in people]

    connections = Connections(Limits(), still_valid, check_s=0.05)
    sockets = {name: [Ended() for _ in range(5)] for name in "abc"}
    for name, ended in sockets.items():
        for socket in ended:
            assert connections.admit(socket, name, Person(name))
    async with asyncio.timeout(5):
        while len(calls) < 2:
            await asyncio.sleep(0.01)
    assert calls[0] == ["a", "b", "c"]
    assert {name: {socket.code for socket in ended} for name, ended in sockets.items()} == {
        "a": {0},
        "b": {4403},
        "c": {0},
    }
    for ended in sockets.values():
        for socket in ended:
            connections.leave(socket)
            connections.leave(socket)
    assert (len(connections), connections._by_key, connections._watch) == (0, {}, None)


async def test_a_token_with_two_viewers_loses_only_the_outdated_one() -> None:
    async def still_valid(people: Sequence[Any]) -> list[bool]:
        return [person.name == "new" for person in people]

    connections = Connections(Limits(sockets_per_token=2), still_valid, check_s=0.02)
    old, new = Ended(), Ended()
    assert connections.admit(old, "key", Person("old"))
    assert connections.admit(new, "key", Person("new"))
    assert not connections.admit(Ended(), "key", Person("new"))
    async with asyncio.timeout(5):
        while not old.code:
            await asyncio.sleep(0.01)
    assert new.code == 0
    connections.leave(old)
    connections.leave(new)
