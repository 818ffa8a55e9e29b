"""The WebSocket handler: one test per row of the table of close codes."""

import asyncio
import fcntl
import logging
import socket
import sys
import termios
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from resolvers.transport.errors import MASKED
from resolvers.transport.limits import Limits
from resolvers.transport.server import SocketServer
from tests.transport.room import SECRET, Person, Room, open_room


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with open_room() as running:
        yield running


HELLO: Any = {"id": "1", "type": "next", "payload": {"data": {"hello": "hello world"}}}


async def done(room: Room, name: str) -> None:
    async with asyncio.timeout(10):
        while name not in room.world.finished:
            await asyncio.sleep(0.01)


# ---------------------------------------------------------------------------------------------- what strawberry does
@pytest.mark.parametrize("subprotocols", [(), ("graphql-ws",), ("nonsense",)])
async def test_no_or_an_unknown_subprotocol_closes_4406(room: Room, subprotocols: tuple[str, ...]) -> None:
    async with room.socket(None, subprotocols=subprotocols) as client:
        assert await client.closed() == (4406, "Subprotocol not acceptable")


async def test_no_init_in_time_closes_4408() -> None:
    async with open_room(limits=Limits(init_s=0.05)) as room, room.socket(None) as client:
        assert await client.closed() == (4408, "Connection initialisation timeout")


@pytest.mark.parametrize("said", ["{nonsense", b"\x00\x01", '{"type":"unknown"}'])
async def test_invalid_json_a_binary_frame_and_an_unknown_type_close_4400(room: Room, said: Any) -> None:
    async with room.socket() as client:
        await client.say(said)
        assert (await client.closed())[0] == 4400


async def test_a_second_init_closes_4429(room: Room) -> None:
    async with room.socket() as client:
        await client.say({"type": "connection_init", "payload": {"Authorization": "Bearer good"}})
        assert await client.closed() == (4429, "Too many initialisation requests")


async def test_subscribe_before_the_ack_closes_4401(room: Room) -> None:
    async with room.socket(None) as client:
        await client.subscribe("1", "{ hello }")
        assert (await client.closed())[0] == 4401


@pytest.mark.parametrize(
    "payload",
    [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "good"}, {"Authorization": ["Bearer good"]}, {"x": 1}],
)
async def test_an_init_without_a_valid_token_closes_4403(room: Room, payload: dict[str, Any]) -> None:
    async with room.socket(None) as client:
        await client.say({"type": "connection_init", "payload": payload})
        assert await client.closed() == (4403, "Forbidden")


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION"])
async def test_the_token_is_found_whatever_the_case_of_its_name(room: Room, name: str) -> None:
    async with room.socket(None) as client:
        await client.say({"type": "connection_init", "payload": {name: "Bearer good"}})
        await client.hear({"type": "connection_ack"})
        await client.subscribe("1", "{ me }")
        await client.hear({"id": "1", "type": "next", "payload": {"data": {"me": "Ada"}}})


async def test_a_duplicate_id_closes_4409_and_ends_the_running_operation(room: Room) -> None:
    async with room.socket() as client:
        await client.subscribe("1", "subscription { forever }")
        await client.next()
        await client.subscribe("1", "{ hello }")
        assert await client.closed() == (4409, "Subscriber for 1 already exists")
    await done(room, "forever")


async def test_queries_mutations_and_subscriptions_run_and_ids_can_be_used_again(room: Room) -> None:
    async with room.socket() as client:
        for _ in range(2):
            await client.subscribe("1", "{ hello }")
            await client.hear(HELLO)
            await client.hear({"id": "1", "type": "complete"})
        await client.subscribe("1", "mutation { bump }")
        await client.hear({"id": "1", "type": "next", "payload": {"data": {"bump": 1}}})
        await client.hear({"id": "1", "type": "complete"})
        await client.subscribe("1", "subscription($to: Int!) { count(to: $to) }", variables={"to": 2})
        for number in (1, 2):
            await client.hear({"id": "1", "type": "next", "payload": {"data": {"count": number}}})
        await client.hear({"id": "1", "type": "complete"})
    assert room.world.calls == ["bump"]


async def test_an_unknown_complete_is_ignored_and_ping_is_answered(room: Room) -> None:
    async with room.socket() as client:
        await client.say({"type": "complete", "id": "unknown"})
        await client.say({"type": "pong"})
        await client.say({"type": "ping", "payload": {"a": 1}})
        await client.hear({"type": "pong"})


async def test_complete_runs_the_finally_of_the_subscription_at_once(room: Room) -> None:
    async with room.socket() as client:
        await client.subscribe("1", "subscription { forever }")
        await client.next()
        await client.say({"type": "complete", "id": "1"})
        await done(room, "forever")
        await client.subscribe("1", "{ hello }")
        await client.hear(HELLO)


async def test_a_disconnect_runs_the_finally_of_every_subscription(room: Room) -> None:
    async with room.socket() as client:
        await client.subscribe("1", "subscription { forever }")
        await client.next()
        client.connection.transport.abort()
    await done(room, "forever")
    assert len(room.view.admission.connections) == 0


async def test_the_operations_of_one_socket_are_limited(room: Room) -> None:
    async with open_room(limits=Limits(operations_per_socket=2)) as small, small.socket() as client:
        for id in ("1", "2"):
            await client.subscribe(id, "subscription { forever }")
            await client.next()
        await client.subscribe("3", "subscription { forever }")
        message = await client.next()
        assert (message["id"], message["type"]) == ("3", "error")
        assert message["payload"][0]["message"] == "Subscription limit reached"


# ------------------------------------------------------------------------------------------------ where we deviate
@pytest.mark.parametrize(
    "message",
    [
        "[]",
        "1",
        "null",
        '"text"',
        "true",
        {"type": 1},
        {"type": "subscribe", "id": "1", "payload": None},
        {"type": "subscribe", "id": "1"},
        {"type": "subscribe", "id": {"a": 1}, "payload": {"query": "{ item { name } }"}},
        {"type": "subscribe", "id": "", "payload": {"query": "{ item { name } }"}},
        {"type": "subscribe", "id": 1, "payload": {"query": "{ item { name } }"}},
        {"type": "subscribe", "payload": {"query": "{ item { name } }"}},
        {"type": "subscribe", "id": "1", "payload": {"query": 1}},
        {"type": "subscribe", "id": "1", "payload": {}},
        {"type": "subscribe", "id": "1", "payload": {"query": "{ item { name } }", "variables": []}},
        {"type": "subscribe", "id": "1", "payload": {"query": "{ item { name } }", "variables": "x"}},
        {"type": "subscribe", "id": "1", "payload": {"query": "{ item { name } }", "operationName": 1}},
        {"type": "subscribe", "id": "1", "payload": {"query": "{ item { name } }", "extensions": 1}},
        {"type": "complete", "id": 1},
        {"type": "complete"},
        {"type": "ping", "payload": 1},
        {"type": "connection_init", "payload": "x"},
    ],
)
async def test_a_message_of_the_wrong_shape_closes_4400_and_executes_nothing(room: Room, message: Any) -> None:
    async with room.socket() as client:
        await client.say(message)
        assert (await client.closed())[0] == 4400
    assert room.world.calls == []


async def test_an_init_with_a_null_payload_is_an_init_without_one(room: Room) -> None:
    async with room.socket(None) as client:
        await client.say({"type": "connection_init", "payload": None})
        assert await client.closed() == (4403, "Forbidden")


async def test_a_failing_authentication_closes_1013_and_tells_nothing(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    room.world.authentication_fails = ConnectionError(f"no database for {SECRET}")
    async with room.socket(None) as client:
        await client.say({"type": "connection_init", "payload": {"Authorization": "Bearer good"}})
        assert await client.closed() == (1013, "Try again later")
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        "authenticating a socket failed"
    ]
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("query", "extra", "message"),
    [
        ("{", {}, "Syntax Error: Expected Name, found <EOF>."),
        ("query A { hello }", {"operationName": "B"}, 'Unknown operation named "B".'),
        ("{ nothing }", {}, "Cannot query field 'nothing' on type 'Query'."),
        ("", {}, None),
    ],
)
async def test_a_bad_operation_gets_an_error_and_the_others_go_on(
    room: Room, query: str, extra: dict[str, Any], message: str | None
) -> None:
    async with room.socket() as client:
        await client.subscribe("live", "subscription { cards { number } }")
        await client.hear({"id": "live", "type": "next", "payload": {"data": {"cards": {"number": 1}}}})
        await client.subscribe("bad", query, **extra)
        heard = await client.next()
        assert (heard["id"], heard["type"]) == ("bad", "error")
        assert heard["payload"][0]["extensions"]["code"] == "BAD_REQUEST"
        if message is not None:
            assert heard["payload"][0]["message"] == message
        room.world.go.set()
        await client.hear({"id": "live", "type": "next", "payload": {"data": {"cards": {"number": 2}}}})
        await client.hear({"id": "live", "type": "complete"})


async def test_a_variable_of_the_wrong_kind_is_said_without_closing(room: Room) -> None:
    async with room.socket() as client:
        await client.subscribe("1", "subscription($to: Int!) { count(to: $to) }", variables={"to": "x"})
        heard = await client.next()
        assert (heard["id"], heard["type"]) == ("1", "error")
        assert heard["payload"][0]["message"].startswith("Variable '$to' has invalid value")
        assert heard["payload"][0]["extensions"] == {"code": "BAD_REQUEST"}
        await client.subscribe("1", "{ hello }")
        await client.hear(HELLO)


async def test_a_close_reason_is_cut_to_what_a_close_frame_holds(room: Room) -> None:
    async with room.socket() as client:
        id = "ü" * 300
        await client.subscribe(id, "subscription { forever }")
        await client.next()
        await client.subscribe(id, "{ hello }")
        code, reason = await client.closed()
        assert code == 4409
        assert reason == "Subscriber for " + "ü" * 54


async def test_an_exception_in_a_running_subscription_is_masked_and_logged_without_its_text(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    async with room.socket() as client:
        await client.subscribe("1", f'subscription {{ boom }} # "{SECRET}"')
        await client.hear({"id": "1", "type": "next", "payload": {"data": {"boom": 1}}})
        failed = await client.next()
        assert failed["type"] == "next"
        error = failed["payload"]["errors"][0]
        assert error["message"] == MASKED
        assert error["extensions"]["code"] == "INTERNAL"
        assert len(error["extensions"]["requestId"]) == 32
        await client.hear({"id": "1", "type": "complete"})
        await client.subscribe("1", "{ hello }")
        await client.hear(HELLO)
    logged = [record for record in caplog.records if record.message == "resolver failed"]
    assert [record.__dict__["error"] for record in logged] == ["ZeroDivisionError"]
    assert logged[0].__dict__["request_id"] == error["extensions"]["requestId"]
    assert all(SECRET not in str(record.__dict__) for record in caplog.records)


async def test_a_database_that_is_away_fails_a_query_and_closes_a_subscription_with_1013(room: Room) -> None:
    async with room.socket() as client:
        await client.subscribe("1", "{ away }")
        failed = await client.next()
        assert failed["payload"]["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"
        await client.hear({"id": "1", "type": "complete"})
        await client.subscribe("1", "subscription { away }")
        await client.hear({"id": "1", "type": "next", "payload": {"data": {"away": 0}}})
        with pytest.raises(ConnectionClosed):  # neither an error nor `complete`, which end it for good
            await client.next()
        assert await client.closed() == (1013, "Try again later, resume by cursor")


async def test_a_slow_consumer_is_closed_with_1013_and_not_completed(room: Room) -> None:
    async with room.socket() as client:
        await client.subscribe("1", "subscription { tooSlow }")
        await client.hear({"id": "1", "type": "next", "payload": {"data": {"tooSlow": 1}}})
        assert await client.closed() == (1013, "Too slow, resume by cursor")


async def test_every_push_reads_its_data_anew(room: Room) -> None:
    async with room.socket() as client:
        await client.subscribe("1", "subscription { cards { number status } }")
        await client.hear({"id": "1", "type": "next", "payload": {"data": {"cards": {"number": 1, "status": "SENT"}}}})
        room.world.status = "PAID"
        room.world.go.set()
        await client.hear({"id": "1", "type": "next", "payload": {"data": {"cards": {"number": 2, "status": "PAID"}}}})


# ------------------------------------------------------------------------------------------------------ admission
@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://127.0.0.1.evil.example"])
async def test_a_foreign_origin_is_refused_with_403_and_no_error_of_the_server(
    room: Room, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = asyncio.Event()
    errors: list[str] = []
    complete = SocketServer.on_task_complete

    def on_task_complete(protocol: SocketServer, task: asyncio.Task[None]) -> None:
        complete(protocol, task)
        done.set()

    monkeypatch.setattr(SocketServer, "on_task_complete", on_task_complete)
    monkeypatch.setattr(logging.getLogger("uvicorn.error"), "error", lambda text, *_: errors.append(text))
    with pytest.raises(InvalidStatus) as refused:
        async with room.socket(None, origin=origin):
            raise AssertionError("accepted")
    assert refused.value.response.status_code == 403
    assert "refused" in (refused.value.response.body or b"").decode()
    async with asyncio.timeout(10):
        await done.wait()
    assert errors == []


async def test_the_same_origin_and_an_allowed_one_pass() -> None:
    async with open_room(allowed_origins=["https://inbox.example"]) as room:
        for origin in (f"http://127.0.0.1:{room.port}", "https://inbox.example"):
            async with room.socket(origin=origin) as client:
                await client.subscribe("1", "{ hello }")
                await client.hear(HELLO)


async def test_a_token_has_so_many_sockets_and_no_more_until_one_leaves() -> None:
    async with open_room(limits=Limits(sockets_per_token=2)) as room, room.socket():
        async with room.socket():
            async with room.socket(None) as third:
                await third.say({"type": "connection_init", "payload": {"Authorization": "Bearer good"}})
                assert await third.closed() == (1013, "Too many connections")
            async with room.socket("other"):
                assert len(room.view.admission.connections) == 3
        async with asyncio.timeout(5):
            while len(room.view.admission.connections) > 1:
                await asyncio.sleep(0.01)
        async with room.socket() as again:
            await again.subscribe("1", "{ hello }")
            await again.hear(HELLO)


async def test_too_many_messages_close_1008() -> None:
    async with open_room(limits=Limits(messages_per_s=0.001, messages_burst=5)) as room, room.socket() as client:
        for _ in range(4):
            await client.say({"type": "ping"})
            await client.hear({"type": "pong"})
        await client.say({"type": "ping"})
        assert await client.closed() == (1008, "Too many messages")


async def test_operations_over_a_socket_count_against_the_limit_of_the_token() -> None:
    async with open_room(limits=Limits(requests_per_s=0.001, requests_burst=1)) as room, room.socket() as client:
        await client.subscribe("1", "{ hello }")
        await client.hear(HELLO)
        await client.hear({"id": "1", "type": "complete"})
        await client.subscribe("2", "mutation { bump }")
        refused = await client.next()
        assert (refused["id"], refused["type"]) == ("2", "error")
        assert refused["payload"][0]["extensions"]["code"] == "RATE_LIMITED"
    assert room.world.calls == []


async def test_a_message_over_128_kib_closes_1009(room: Room) -> None:
    async with room.socket() as client:
        await client.say('{"type":"ping","payload":{"x":"' + "x" * 131_072 + '"}}')
        assert (await client.closed())[0] == 1009


async def test_a_socket_is_closed_with_4403_when_its_token_expires(room: Room) -> None:
    room.world.people["short"] = Person("Short", datetime.now(UTC) + timedelta(seconds=0.3))
    async with room.socket("short") as client:
        await client.subscribe("1", "subscription { forever }")
        assert await client.closed() == (4403, "Token expired")
    await done(room, "forever")


async def test_a_revoked_credential_closes_its_sockets_with_4403_and_no_other() -> None:
    async with open_room(check_s=0.05) as room, room.socket("good") as one, room.socket("good") as two:
        other_socket = room.socket("other")
        async with other_socket as other:
            room.world.revoked.add("Ada")
            assert await one.closed() == (4403, "Access was revoked")
            assert await two.closed() == (4403, "Access was revoked")
            await other.subscribe("1", "{ me }")
            await other.hear({"id": "1", "type": "next", "payload": {"data": {"me": "Grace"}}})


async def test_the_check_asks_once_per_token_and_ends_with_the_last_socket() -> None:
    async with open_room(check_s=0.05) as room:
        async with room.socket(), room.socket(), room.socket():
            async with asyncio.timeout(5):
                while room.world.checked < 2:
                    await asyncio.sleep(0.01)
        async with asyncio.timeout(5):
            while room.view.admission.connections._watch is not None:
                await asyncio.sleep(0.01)


async def test_a_client_that_stops_reading_is_cut_off_and_delays_nobody() -> None:
    async with open_room(limits=Limits(stalled_s=0.2)) as room, room.socket(max_queue=1) as stalled:
        stalled.connection.transport.pause_reading()
        await stalled.subscribe("1", "subscription { flood }")
        async with room.socket() as other:
            await other.subscribe("1", "{ hello }")
            await other.hear(HELLO)
        await done(room, "flood")
        stalled.connection.transport.abort()


async def test_little_is_kept_for_a_client_that_stops_reading() -> None:
    async with open_room(limits=Limits(stalled_s=1)) as room:
        narrow = socket.socket()
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        narrow.connect(("127.0.0.1", room.port))
        narrow.setblocking(False)
        async with room.socket(max_queue=1, sock=narrow) as stalled:
            stalled.connection.transport.pause_reading()
            await stalled.subscribe("1", "subscription { flood(size: 500) }")
            (protocol,) = [each for each in room.server.server_state.connections if isinstance(each, SocketServer)]
            async with asyncio.timeout(10):
                while protocol.writable.is_set():
                    await asyncio.sleep(0.01)
            end = protocol.transport.get_extra_info("socket")
            unsent = int.from_bytes(fcntl.ioctl(end.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
            assert unsent + protocol.transport.get_write_buffer_size() < 300_000
            await done(room, "flood")
            stalled.connection.transport.abort()


async def test_the_server_s_shutdown_closes_sockets_with_1012(room: Room) -> None:
    async with room.socket() as client:
        await client.subscribe("1", "subscription { forever }")
        await client.next()
        room.server.should_exit = True
        assert (await client.closed())[0] == 1012
    await done(room, "forever")
