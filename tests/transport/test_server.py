"""The uvicorn subclasses on real connections."""

import asyncio
import os
import signal
import socket
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from resolvers.transport.server import HeadTimeout, SocketServer, listen
from tests.transport.room import open_room

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def short_heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadTimeout, "head_s", 0.3)
    monkeypatch.setattr(HeadTimeout, "head_bytes", 1_000)


async def cut_off(port: int, said: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    try:
        async with asyncio.timeout(10):
            answer = await reader.read()
    except ConnectionResetError:
        answer = b""
    writer.transport.abort()
    await asyncio.sleep(0)
    return answer


@pytest.mark.usefixtures("short_heads")
@pytest.mark.parametrize("said", [b"", b"GET /gra", b"GET /graphql HTTP/1.1\r\nHost: x\r\nX-A: "])
async def test_a_silent_connection_and_half_a_head_are_cut_off(said: bytes) -> None:
    async with open_room() as room:
        assert await cut_off(room.port, said) == b""
        assert len(room.server.server_state.connections) == 0


@pytest.mark.usefixtures("short_heads")
async def test_a_head_that_never_ends_is_cut_off_by_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadTimeout, "head_s", 60)
    async with open_room() as room:
        assert await cut_off(room.port, b"GET /graphql HTTP/1.1\r\nHost: x\r\nX-Filler: " + b"0" * 1_100) == b""
        said = b"GET /graphql HTTP/1.1\r\nHost: x\r\n" + b"X-Filler: 0123456789\r\n" * 50
        assert (await cut_off(room.port, said)).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"X-Filler: " + b"0" * 60_000 + b"\r\n", b"400"),
        (b"X-Filler: " + b"0" * 70_000 + b"\r\n", b"431"),
        (b"X-Filler: 0123456789\r\n" * 90, b"400"),
        (b"X: 0\r\n" * 110, b"431"),
        (b"X: " + b"0" * 2_000 + b"\r\n" + b"Y: " + b"0" * 63_500 + b"\r\n", b"431"),
    ],
)
async def test_a_large_head_in_one_piece_is_431(head: bytes, status: bytes) -> None:
    async with open_room() as room:
        said = (
            b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + head
            + b"Content-Length: 2\r\n\r\n{}"
        )
        answer = await cut_off(room.port, said + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert answer.split(b" ")[1] == status
        assert len(room.server.server_state.connections) == 0


async def test_a_long_address_is_431_and_trailers_without_end_are_cut_off() -> None:
    async with open_room() as room:
        answer = await cut_off(room.port, b"GET /?" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 431 ")
        said = b"POST /graphql HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
        answer = await cut_off(room.port, said + b"X: 0\r\n" * 200 + b"\r\n")
        assert b"431" not in answer
        assert len(room.server.server_state.connections) == 0


@pytest.mark.usefixtures("short_heads")
async def test_sockets_slow_answers_and_second_requests_are_untouched() -> None:
    async with open_room() as room, httpx.AsyncClient() as client, room.socket() as kept:
        slow = asyncio.create_task(client.post(room.url, json={"query": "{ slow }"}))
        await asyncio.sleep(0.6)
        room.world.go.set()
        assert (await slow).json() == {"data": {"slow": "done"}}
        assert (await client.post(room.url, json={"query": "{ hello }"})).json() == {"data": {"hello": "hello world"}}
        await kept.say({"type": "ping"})
        await kept.hear({"type": "pong"})


async def test_a_peer_that_does_not_answer_pings_is_aborted_without_a_fatal_code() -> None:
    options = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.1}
    async with open_room(server_options=options) as room, room.socket() as client:
        await client.subscribe("1", "subscription { forever }")
        await client.next()
        # The library answers pings by itself, unless it does not read them.
        client.connection.transport.pause_reading()
        async with asyncio.timeout(10):
            while room.world.finished != ["forever"]:
                await asyncio.sleep(0.01)
        client.connection.transport.resume_reading()
        assert (await client.closed())[0] == 1006


async def test_no_permessage_deflate_is_offered() -> None:
    async with open_room() as room, room.socket() as client:
        assert client.connection.protocol.extensions == []
        (protocol,) = [each for each in room.server.server_state.connections if isinstance(each, SocketServer)]
        extensions: Any = protocol.scope["extensions"]
        assert extensions["paythread.protocol"] is protocol


def test_the_listening_socket_makes_its_connections_quick_and_mortal() -> None:
    listener = listen("127.0.0.1", 0)
    listener.setblocking(True)
    try:
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                # asyncio sets TCP_NODELAY only on sockets of this protocol number.
                assert accepted.proto == socket.IPPROTO_TCP
                if hasattr(socket, "TCP_USER_TIMEOUT"):
                    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) in (65_536, 131_072)
        with pytest.raises(OSError, match="in use"):
            listen("127.0.0.1", listener.getsockname()[1])
    finally:
        listener.close()


async def test_sigterm_ends_a_process_with_an_open_stream_and_an_open_socket() -> None:
    program = textwrap.dedent(
        """
        import sys
        from resolvers.transport.http import get_view
        from resolvers.transport.server import Server, listen, server_config
        from tests.transport.room import World, make_schema
        import asyncio

        async def main():
            world = World()
            view = get_view(make_schema(), get_context=world.context, authenticate=world.authenticate)
            listener = listen("127.0.0.1", 0)
            print(listener.getsockname()[1], flush=True)
            config = server_config(view, lifespan="off", log_config=None, timeout_graceful_shutdown=None)
            await Server(config, before_shutdown=[view.end_streams]).serve(sockets=[listener])

        asyncio.run(main())
        """
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, cwd=ROOT, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "."}
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            url = f"http://127.0.0.1:{int(await process.stdout.readline())}/graphql"
        body = {"query": "subscription { forever }"}
        async with (
            httpx.AsyncClient(timeout=20) as client,
            client.stream("POST", url, json=body, headers={"Accept": "text/event-stream"}) as response,
        ):
            lines = response.aiter_lines()
            assert await anext(lines) == "event: next"
            process.send_signal(signal.SIGTERM)
            rest = [line async for line in lines]
            assert "event: complete" not in rest
        async with asyncio.timeout(20):
            await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("long", [b"Cookie: a=" + b"0" * 9_000 + b"\r\n", b"X-A: 0\r\n" * 80])
async def test_a_socket_s_head_that_the_library_refuses_is_answered_and_ends(long: bytes) -> None:
    async with open_room() as room:
        head = (
            b"GET /graphql HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n"
        )
        answer = await cut_off_or_upgraded(room.port, head + long + b"\r\n")
        assert answer.startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 101 "))
        assert answer.startswith(b"HTTP/1.1 431 ") == (len(long) > 8_192)


async def cut_off_or_upgraded(port: int, said: bytes) -> bytes:
    """The first line of the answer; after a refusal the connection must have ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    async with asyncio.timeout(10):
        line = await reader.readline()
        if b" 101 " not in line:
            await reader.read()
    writer.transport.abort()
    await asyncio.sleep(0)
    return line
