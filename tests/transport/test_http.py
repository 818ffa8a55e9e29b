"""GraphQL over HTTP and SSE on a real server: negotiation, refusals, credentials, masking, bodies, streams."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import orjson
import pytest

from resolvers.transport.http import negotiate
from resolvers.transport.limits import MASKED, Limits
from tests.transport.room import SECRET, Person, Room, open_room

NEW = "application/graphql-response+json"
OLD = "application/json"


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    async with open_room() as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10) as opened:
        yield opened


async def post(client: httpx.AsyncClient, room: Room, query: str, accept: str = OLD, **headers: str) -> httpx.Response:
    return await client.post(room.url, json={"query": query}, headers={"Accept": accept, **headers})


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, OLD),
        ("*/*", OLD),
        ("application/*", OLD),
        ("text/html", OLD),
        (NEW, NEW),
        (f"{OLD}, {NEW}", OLD),
        (f"{NEW}, {OLD}", NEW),
        (f"{NEW};q=0.5, {OLD};q=0.9", OLD),
        (f"{NEW};q=0.9, */*;q=0.8", NEW),
        (f"{NEW};q=x, {OLD};q=0.1", OLD),
        (f"{NEW};q=0", OLD),
        (f"text/html, {NEW.upper()} ; Q=1", NEW),
    ],
)
def test_the_acceptable_type_of_highest_quality_answers(accept: str | None, chosen: str) -> None:
    assert negotiate(accept) == chosen


async def test_a_field_error_keeps_its_data_and_200_in_both_types(room: Room, client: httpx.AsyncClient) -> None:
    for accept in (NEW, OLD):
        response = await post(client, room, "{ hello refuse }", accept)
        assert response.status_code == 200
        assert response.json()["data"] == {"hello": "hello world", "refuse": None}
        assert response.json()["errors"] == [
            {
                "message": "Not yours.",
                "locations": [{"line": 1, "column": 9}],
                "path": ["refuse"],
                "extensions": {"code": "FORBIDDEN"},
            }
        ]


async def test_a_null_root_after_execution_is_not_a_request_error(room: Room, client: httpx.AsyncClient) -> None:
    response = await post(client, room, "{ crash }", NEW)
    assert response.status_code == 200
    assert response.json()["data"] is None


async def test_a_bug_is_masked_and_logged_without_text_or_document(
    room: Room, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = await post(client, room, f'{{ hello(name: "{SECRET}x") crashSoftly }}')
    error = response.json()["errors"][0]
    assert error["message"] == MASKED
    assert error["path"] == ["crashSoftly"]
    assert error["extensions"]["code"] == "INTERNAL"
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.__dict__["request_id"] == error["extensions"]["requestId"]
    assert record.__dict__["error"] == "ZeroDivisionError"
    assert record.__dict__["path"] == "crashSoftly"
    assert any("room.py" in place for place in record.__dict__["where"])
    assert SECRET not in str(record.__dict__)
    assert f"division of {SECRET}" not in response.text


async def test_what_the_client_did_wrong_is_told_and_not_logged(
    room: Room, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    for body in (
        {"query": "{"},
        {"query": "{ nothing }"},
        {"query": "{ even(value: 3) }"},
        {"query": "query($v: Even!) { even(value: $v) }", "variables": {"v": 3}},
        {"query": "query A { hello } query B { hello }"},
        {"query": "query A { hello }", "operationName": "B"},
    ):
        response = await client.post(room.url, json=body, headers={"Accept": NEW})
        assert response.status_code == 400
        assert set(response.json()) == {"errors"}
        assert [error["extensions"]["code"] for error in response.json()["errors"]] == ["BAD_REQUEST"]
        assert response.json()["errors"][0]["message"] != MASKED
    assert [record for record in caplog.records if record.name.startswith(("resolvers", "strawberry"))] == []


async def test_a_mutation_by_get_is_405_and_does_not_run(room: Room, client: httpx.AsyncClient) -> None:
    response = await client.get(room.url, params={"query": "mutation { bump }"})
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"
    assert response.json()["errors"][0]["extensions"] == {"code": "BAD_REQUEST"}
    assert room.world.calls == []


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD"])
async def test_other_methods_are_405(room: Room, client: httpx.AsyncClient, method: str) -> None:
    assert (await client.request(method, room.url)).status_code == 405


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
async def test_a_content_type_that_a_form_can_send_is_refused_and_nothing_runs(
    room: Room, client: httpx.AsyncClient, content_type: str
) -> None:
    response = await client.post(
        room.url, content=b'{"query":"mutation { bump }"}', headers={"Content-Type": content_type}
    )
    assert response.status_code == 415
    assert room.world.calls == []


@pytest.mark.parametrize("body", [b"3", b'"x"', b"null", b"[]", b'[{"query":"mutation { bump }"}]', b"\xff\xfe", b""])
async def test_a_body_that_is_no_object_is_400_and_nothing_runs(
    room: Room, client: httpx.AsyncClient, body: bytes
) -> None:
    response = await client.post(room.url, content=body, headers={"Content-Type": OLD})
    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"] == {"code": "BAD_REQUEST"}
    assert room.world.calls == []


async def test_a_subscription_as_a_plain_request_is_refused_with_the_ways_that_work(
    room: Room, client: httpx.AsyncClient
) -> None:
    response = await post(client, room, "subscription { count(to: 1) }")
    assert response.status_code == 400
    message = response.json()["errors"][0]["message"]
    assert "WebSocket" in message
    assert "text/event-stream" in message


# -------------------------------------------------------------------------------------------------------- credentials
async def test_the_viewer_comes_from_the_bearer_token_and_without_one_there_is_none(
    room: Room, client: httpx.AsyncClient
) -> None:
    assert (await post(client, room, "{ me }", Authorization="Bearer good")).json() == {"data": {"me": "Ada"}}
    assert (await post(client, room, "{ me }")).json() == {"data": {"me": None}}


async def test_a_token_that_is_not_valid_is_401_and_nothing_runs(room: Room, client: httpx.AsyncClient) -> None:
    response = await post(client, room, "mutation { bump }", Authorization="Bearer wrong")
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["errors"][0]["extensions"] == {"code": "UNAUTHENTICATED"}
    assert room.world.calls == []


async def test_a_failing_authentication_is_a_masked_500(
    room: Room, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    room.world.authentication_broken = True
    response = await post(client, room, "mutation { bump }", Authorization="Bearer good")
    assert response.status_code == 500
    assert response.json()["errors"][0]["extensions"]["code"] == "INTERNAL"
    assert SECRET not in response.text + caplog.text
    assert room.world.calls == []


async def test_a_token_may_send_a_burst_and_then_waits_while_others_go_on(client: httpx.AsyncClient) -> None:
    async with open_room(limits=Limits(requests_per_s=0.001, requests_burst=3)) as room:
        codes = [(await post(client, room, "{ me }", Authorization="Bearer good")).status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        refused = await post(client, room, "mutation { bump }", Authorization="Bearer good")
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["errors"][0]["extensions"] == {"code": "RATE_LIMITED"}
        assert (await post(client, room, "{ me }", Authorization="Bearer other")).json() == {"data": {"me": "Grace"}}
        assert room.world.calls == []


async def test_an_operation_that_takes_too_long_is_ended(client: httpx.AsyncClient) -> None:
    async with open_room(limits=Limits(operation_s=0.1)) as room:
        response = await post(client, room, "{ slow }", NEW)
        assert response.status_code == 200
        assert response.json() == {
            "data": None,
            "errors": [{"message": "This operation took longer than 0.1 seconds.", "extensions": {"code": "TIMEOUT"}}],
        }


# -------------------------------------------------------------------------------------------------------------- bodies
async def raw(room: Room, head: str, body: bytes = b"") -> bytes:
    """What the server says to these bytes until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", room.port)
    writer.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    async with asyncio.timeout(10):
        try:
            said = await reader.read()
        except ConnectionResetError:
            said = b""
    writer.transport.abort()
    await asyncio.sleep(0)
    return said


HEAD = "POST /graphql HTTP/1.1\nHost: x\nContent-Type: application/json\n"


async def test_a_declared_body_over_128_kib_is_413_before_it_is_read(room: Room) -> None:
    said = await raw(room, HEAD + "Content-Length: 131073")
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"BAD_REQUEST"' in said


async def test_a_chunked_body_over_128_kib_is_413(room: Room) -> None:
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    said = await raw(room, HEAD + "Transfer-Encoding: chunked", chunk * 4 + b"1\r\n \r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


async def test_a_body_of_exactly_128_kib_is_read(room: Room, client: httpx.AsyncClient) -> None:
    body = b'{"query":"{ hello }"}'
    response = await client.post(room.url, content=body + b" " * (131_072 - len(body)), headers={"Content-Type": OLD})
    assert response.json() == {"data": {"hello": "hello world"}}


async def test_half_a_body_is_408_and_a_leaving_client_is_nothing() -> None:
    async with open_room(limits=Limits(body_s=0.2)) as room:
        said = await raw(room, HEAD + "Content-Length: 100", b'{"query":')
        assert said.startswith(b"HTTP/1.1 408 ")
        _, writer = await asyncio.open_connection("127.0.0.1", room.port)
        writer.write((HEAD + "Content-Length: 100\n\n").replace("\n", "\r\n").encode())
        writer.close()
        await writer.wait_closed()


# ---------------------------------------------------------------------------------------------------------------- CORS
async def test_an_allowed_origin_passes_the_preflight_and_a_foreign_one_does_not(client: httpx.AsyncClient) -> None:
    async with open_room(allowed_origins=["https://inbox.example"]) as room:
        asked = {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        allowed = await client.options(room.url, headers={"Origin": "https://inbox.example", **asked})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, "https://inbox.example")
        assert "access-control-allow-credentials" not in allowed.headers
        foreign = await client.options(room.url, headers={"Origin": "https://evil.example", **asked})
        assert foreign.status_code == 400
        assert "access-control-allow-origin" not in foreign.headers
        answer = await post(client, room, "{ hello }", Origin="https://inbox.example")
        assert answer.headers["access-control-allow-origin"] == "https://inbox.example"


async def test_without_allowed_origins_no_cors_header_is_sent(room: Room, client: httpx.AsyncClient) -> None:
    answer = await post(client, room, "{ hello }", Origin="https://evil.example")
    assert "access-control-allow-origin" not in answer.headers


# ----------------------------------------------------------------------------------------------------------------- SSE
async def events(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            yield name, orjson.loads(line[6:]) if line[6:] else None


SSE = {"Accept": "text/event-stream"}


async def test_a_subscription_streams_its_events_and_completes(room: Room, client: httpx.AsyncClient) -> None:
    body = {"query": "subscription { count(to: 3) }"}
    async with client.stream("POST", room.url, json=body, headers=SSE) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert [event async for event in events(response)] == [
            ("next", {"data": {"count": 1}}),
            ("next", {"data": {"count": 2}}),
            ("next", {"data": {"count": 3}}),
            ("complete", None),
        ]
    assert room.world.finished == ["count"]
    assert len(room.view.door.connections) == 0


async def test_a_bad_operation_over_sse_is_one_event_without_data(room: Room, client: httpx.AsyncClient) -> None:
    async with client.stream("POST", room.url, json={"query": "{ nothing }"}, headers=SSE) as response:
        found = [event async for event in events(response)]
    assert [name for name, _ in found] == ["next", "complete"]
    assert set(found[0][1]) == {"errors"}
    assert found[0][1]["errors"][0]["extensions"] == {"code": "BAD_REQUEST"}


async def test_leaving_a_stream_runs_its_finally(room: Room, client: httpx.AsyncClient) -> None:
    async with client.stream("POST", room.url, json={"query": "subscription { forever }"}, headers=SSE) as response:
        assert await anext(events(response)) == ("next", {"data": {"forever": 1}})
    async with asyncio.timeout(10):
        while room.world.finished != ["forever"]:
            await asyncio.sleep(0.01)
    assert len(room.view.door.connections) == 0


async def test_an_error_in_a_stream_is_masked(room: Room, client: httpx.AsyncClient) -> None:
    async with client.stream("POST", room.url, json={"query": "subscription { boom }"}, headers=SSE) as response:
        found = [event async for event in events(response)]
    assert found[1][1]["errors"][0]["message"] == MASKED
    assert SECRET not in str(found)


async def test_a_stream_ends_without_complete_when_its_token_expires_or_is_revoked(client: httpx.AsyncClient) -> None:
    async with open_room(check_s=0.05) as room:
        room.world.people["short"] = Person("Short", datetime.now(UTC) + timedelta(seconds=0.3))
        for token in ("short", "good"):
            headers = {**SSE, "Authorization": f"Bearer {token}"}
            body = {"query": "subscription { forever }"}
            async with client.stream("POST", room.url, json=body, headers=headers) as response:
                found = []
                async for event in events(response):
                    found.append(event)
                    if token == "good":
                        room.world.revoked.add("Ada")
                assert found == [("next", {"data": {"forever": 1}})]
        assert len(room.view.door.connections) == 0


async def test_invented_tokens_are_counted_by_their_network_and_looked_up_no_more(client: httpx.AsyncClient) -> None:
    async with open_room(
        limits=Limits(requests_per_s=0.001, requests_burst=5), is_signed=lambda token: token == "other"
    ) as room:
        asked: list[str] = []
        genuine = room.view.door.authenticate

        async def authenticate(token: str) -> Any:
            asked.append(token)
            return await genuine(token)

        object.__setattr__(room.view.door, "authenticate", authenticate)
        assert (await post(client, room, "{ me }", Authorization="Bearer good")).status_code == 200
        codes = [
            (await post(client, room, "{ me }", Authorization=f"Bearer invented{number}")).status_code
            for number in range(40)
        ]
        assert codes == [401] * 4 + [429] * 36
        assert len(asked) == 5
        # Without a token they are of the same network; a token that was verified before, or that we signed, is not.
        assert (await post(client, room, "{ me }")).status_code == 429
        assert (await post(client, room, "{ me }", Authorization="Bearer good")).status_code == 200
        assert (await post(client, room, "{ me }", Authorization="Bearer other")).status_code == 200
        async with room.socket(None) as socket:
            await socket.say({"type": "connection_init", "payload": {"Authorization": "Bearer invented"}})
            assert await socket.closed() == (1013, "Too many requests")


async def test_tokens_of_one_user_share_a_limit(client: httpx.AsyncClient) -> None:
    async with open_room(limits=Limits(requests_per_s=0.001, requests_burst=3)) as room:
        room.world.people["second"] = room.world.people["good"]
        codes = [
            (await post(client, room, "{ me }", Authorization=f"Bearer {token}")).status_code
            for token in ("good", "second", "good", "second")
        ]
        assert codes == [200, 200, 200, 429]


async def test_streams_and_sockets_share_the_limit_of_the_token(client: httpx.AsyncClient) -> None:
    async with open_room(limits=Limits(sockets_per_token=1)) as room, room.socket():
        headers = {**SSE, "Authorization": "Bearer good"}
        response = await client.post(room.url, json={"query": "subscription { forever }"}, headers=headers)
        assert response.status_code == 429
        assert response.json()["errors"][0]["extensions"] == {"code": "RATE_LIMITED"}


async def test_an_open_stream_does_not_hold_the_server_s_shutdown(client: httpx.AsyncClient) -> None:
    async with open_room(server_options={"timeout_graceful_shutdown": None}) as room:
        body = {"query": "subscription { forever }"}
        async with client.stream("POST", room.url, json=body, headers=SSE) as response:
            found = events(response)
            await anext(found)
            room.server.should_exit = True
            assert [event async for event in found] == []
        await asyncio.wait_for(room.serving, 10)
    assert room.world.finished == ["forever"]
