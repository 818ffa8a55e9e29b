"""GraphQL over HTTP and SSE on a real server."""

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2 as httpx
import orjson
import pytest
from websockets.exceptions import InvalidStatus

from resolvers.transport.errors import MASKED, UNAVAILABLE_TEXT
from resolvers.transport.event_streams import Events
from resolvers.transport.limits import Limits
from resolvers.transport.negotiation import accepted
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


LEGACY = "application/graphql+json"
EVENTS = "text/event-stream"
URQL = f"{NEW}, {LEGACY}, {OLD}, {EVENTS}, multipart/mixed"


@pytest.mark.parametrize(
    ("accept", "json", "events"),
    [
        # What stock clients send.
        (None, OLD, True),
        ("*/*", OLD, True),  # curl, fetch, Relay's examples, Apollo Client 3, Insomnia, Postman
        (URQL, NEW, True),
        (f"{NEW},{OLD};q=0.9", NEW, False),  # Apollo Client 4
        (f"{NEW}; charset=utf-8, {OLD}; charset=utf-8", NEW, False),  # graphql-request, graphql-http
        (f"{LEGACY}, {OLD}", OLD, False),  # urql 3
        (f"{OLD}, multipart/mixed", OLD, False),  # GraphiQL
        (f"{OLD}, text/plain, */*", OLD, True),  # axios
        (f'multipart/mixed;boundary="graphql,;";subscriptionSpec=1.0,{OLD}', OLD, False),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8", OLD, True),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", OLD, True),  # Java
        (EVENTS, None, True),
        (f"{EVENTS}, multipart/mixed", None, True),  # urql's subscriptions
        # Order and weights among the JSON types.
        (f"{OLD}, {NEW}", OLD, False),
        (f"{NEW}, {OLD}", NEW, False),
        (f"{NEW};q=0.5, {OLD};q=0.9", OLD, False),
        (f"{OLD};q=0.9, {NEW};q=0.91", NEW, False),
        (f"{NEW};q=0.9, */*;q=0.8", NEW, True),
        (f"*/*, {NEW}", NEW, True),
        (LEGACY, LEGACY, False),
        (f"{LEGACY}, {OLD};q=0.5", LEGACY, False),
        (f"text/html, {NEW.upper()} ; Q=1", NEW, False),
        # The most specific range decides, wherever it is.
        ("application/*", OLD, False),
        (f"application/*, {OLD};q=0.5", NEW, False),
        (f"*/*, {OLD};q=0", NEW, True),
        (f"{EVENTS};q=0, */*", OLD, False),
        (f"text/*;q=0, {EVENTS}", None, True),
        ("application/*;q=0, */*", None, True),
        ("text/*", None, True),
        # Nothing acceptable.
        ("text/html", None, False),
        (f"{OLD};q=0", None, False),
        (f"{OLD};q=0.000, {NEW};q=0.", None, False),
        ("*/*;q=0", None, False),
        ("json", None, False),
        ("application/jsonp, application/json5", None, False),
        # What is no weight makes its range void; an empty header says nothing.
        (f"{NEW};q=x, {OLD};q=0.1", OLD, False),
        (f"{NEW};q=nan, {OLD};q=0.1", OLD, False),
        (f"{NEW};q=9, {OLD};q=0.1", OLD, False),
        (f"{NEW};q=-1", None, False),
        (f"{NEW};q=1.5", None, False),
        ("", OLD, True),
        (" , ,", OLD, True),
        (f'{OLD};version="1', OLD, False),
    ],
)
def test_accept_names_the_json_type_and_whether_events_may_answer(
    accept: str | None, json: str | None, events: bool
) -> None:
    assert accepted([] if accept is None else [accept]) == (json, events)


def test_several_accept_headers_are_one_list() -> None:
    assert accepted(["text/html", f"{OLD};q=0.5", NEW]) == (NEW, False)


@pytest.mark.parametrize(
    "accept", [URQL, f"{EVENTS}, {OLD}", f"{EVENTS}, */*;q=0.1", f"{EVENTS}, {OLD};q=0.1", "*/*", None]
)
async def test_a_query_and_a_mutation_are_answered_as_json_wherever_json_is_acceptable(
    room: Room, client: httpx.AsyncClient, accept: str | None
) -> None:
    del client.headers["Accept"]
    headers = {} if accept is None else {"Accept": accept}
    for query, data in (("{ hello }", {"hello": "hello world"}), ("mutation { bump }", {"bump": 1})):
        response = await client.post(room.url, json={"query": query}, headers=headers)
        kind = NEW if accept == URQL else OLD
        assert (response.status_code, response.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert response.headers["vary"] == "Accept, Origin"
        assert response.json() == {"data": data}
    assert room.world.calls == ["bump"]


@pytest.mark.parametrize("accept", [URQL, EVENTS, f"{OLD}, {EVENTS};q=0.1", "text/*, application/json", "*/*", None])
async def test_a_subscription_is_answered_with_events_wherever_they_are_acceptable(
    room: Room, client: httpx.AsyncClient, accept: str | None
) -> None:
    del client.headers["Accept"]
    headers = {} if accept is None else {"Accept": accept}
    response = await client.post(room.url, json={"query": "subscription { count(to: 1) }"}, headers=headers)
    assert response.headers["content-type"].startswith(EVENTS)
    assert response.headers["vary"] == "Accept, Origin"
    assert response.content == b'event: next\ndata: {"data":{"count":1}}\n\nevent: complete\ndata: \n\n'


def test_the_sign_of_life_of_a_stream_is_a_comment_that_ends_in_lf() -> None:
    assert Events().heartbeat_message(str) == ": ping\n\n"


async def test_a_mutation_that_accepts_events_only_is_executed_once_and_answered_with_one(
    room: Room, client: httpx.AsyncClient
) -> None:
    response = await post(client, room, "mutation { bump }", EVENTS)
    assert response.content == b'event: next\ndata: {"data":{"bump":1}}\n\nevent: complete\ndata: \n\n'
    assert room.world.calls == ["bump"]


@pytest.mark.parametrize("accept", ["text/html", f"{OLD};q=0", "image/*, text/plain", "multipart/mixed"])
async def test_what_no_acceptable_type_can_answer_is_406_and_nothing_runs(
    room: Room, client: httpx.AsyncClient, accept: str
) -> None:
    for query in ("mutation { bump }", "{ item { name } }", "subscription { count(to: 1) }"):
        response = await post(client, room, query, accept)
        assert response.status_code == 406
        assert response.json()["errors"] == [
            {"message": f"Accept {NEW}, {OLD} or {EVENTS}.", "extensions": {"code": "BAD_REQUEST"}}
        ]
    by_get = await client.get(room.url, params={"query": "{ item { name } }"}, headers={"Accept": accept})
    assert by_get.status_code == 406
    assert room.world.calls == room.world.finished == []


async def test_a_mutation_over_the_limit_of_streams_is_refused_and_does_not_run(client: httpx.AsyncClient) -> None:
    async with open_room(limits=Limits(sockets_per_token=1)) as room, room.socket():
        response = await post(client, room, "mutation { bump }", EVENTS, Authorization="Bearer good")
        assert response.status_code == 429
        assert room.world.calls == []


async def test_a_mutation_by_get_does_not_run_as_an_event_either(room: Room, client: httpx.AsyncClient) -> None:
    for accept in (EVENTS, URQL, "*/*"):
        response = await client.get(room.url, params={"query": "mutation { bump }"}, headers={"Accept": accept})
        assert b'"data"' not in response.content
    assert room.world.calls == []


async def test_a_browser_s_event_source_gets_its_events_by_get(room: Room, client: httpx.AsyncClient) -> None:
    headers = {"Accept": EVENTS, "Cache-Control": "no-cache"}
    response = await client.get(room.url, params={"query": "subscription { count(to: 1) }"}, headers=headers)
    assert response.content == b'event: next\ndata: {"data":{"count":1}}\n\nevent: complete\ndata: \n\n'


@pytest.mark.parametrize("queries_by_get", [True, False])
async def test_a_persisted_query_is_refused_under_the_name_that_its_clients_know(
    client: httpx.AsyncClient, queries_by_get: bool
) -> None:
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}
    async with open_room(queries_by_get=queries_by_get) as room:
        for accept, status in ((OLD, 200), (NEW, 400), ("*/*", 200)):
            asked = [
                await client.post(room.url, json={"extensions": extensions}, headers={"Accept": accept}),
                await client.get(
                    room.url, params={"extensions": orjson.dumps(extensions).decode()}, headers={"Accept": accept}
                ),
            ]
            for response in asked:
                assert response.status_code == status
                assert response.json() == {
                    "errors": [
                        {
                            "message": "PersistedQueryNotSupported",
                            "extensions": {"code": "PERSISTED_QUERY_NOT_SUPPORTED"},
                        }
                    ]
                }
        whole = {"query": "{ hello }", "extensions": extensions}
        assert (await client.post(room.url, json=whole)).json() == {"data": {"hello": "hello world"}}


async def test_a_get_takes_empty_parameters_as_missing(room: Room, client: httpx.AsyncClient) -> None:
    for accept in ("*/*", "text/html, */*;q=0.8"):
        headers = {"Accept": accept}
        params = {"query": "{ hello }", "variables": "", "operationName": "", "extensions": ""}
        assert (await client.get(room.url, params=params, headers=headers)).json() == {"data": {"hello": "hello world"}}
        nothing = await client.get(room.url, headers=headers)
        assert nothing.status_code == 400
        assert nothing.json()["errors"][0]["message"] == "No GraphQL query found in the request."


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


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"])
async def test_other_methods_are_405(room: Room, client: httpx.AsyncClient, method: str) -> None:
    response = await client.request(method, room.url)
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


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


@pytest.mark.parametrize(
    "content_type",
    [OLD, "Application/JSON", f"{OLD};charset=UTF-8", f'{OLD}; charset="utf-8"', f"{OLD}; odata=verbose"],
)
async def test_json_is_taken_in_any_spelling_of_its_type_and_with_a_byte_order_mark(
    room: Room, client: httpx.AsyncClient, content_type: str
) -> None:
    for content in (b'{"query":"{ hello }"}', b'\xef\xbb\xbf{"query":"{ hello }"}'):
        response = await client.post(room.url, content=content, headers={"Content-Type": content_type})
        assert response.json() == {"data": {"hello": "hello world"}}


async def test_a_compressed_body_is_415_and_nothing_runs(room: Room, client: httpx.AsyncClient) -> None:
    headers = {"Content-Type": OLD, "Content-Encoding": "gzip"}
    response = await client.post(room.url, content=gzip.compress(b'{"query":"mutation { bump }"}'), headers=headers)
    assert (response.status_code, response.headers["accept-encoding"]) == (415, "identity")
    assert response.json()["errors"][0]["message"] == "Send the body uncompressed."
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


@pytest.mark.parametrize(
    ("document", "accept", "status", "data"),
    [
        ("{ away }", NEW, 503, {"away": None}),
        ("{ away }", "application/json", 503, {"away": None}),
        ("mutation { bumpAway }", NEW, 503, None),
        ("{ hello away }", NEW, 200, {"hello": "hello world", "away": None}),
    ],
)
async def test_a_database_that_is_away_is_a_503_where_nothing_was_answered(
    room: Room,
    client: httpx.AsyncClient,
    caplog: pytest.LogCaptureFixture,
    document: str,
    accept: str,
    status: int,
    data: object,
) -> None:
    response = await post(client, room, document, accept)
    assert (response.status_code, response.json()["data"]) == (status, data)
    assert response.headers.get("retry-after") == ("2" if status == 503 else None)
    (error,) = response.json()["errors"]
    assert error["message"] == UNAVAILABLE_TEXT
    assert error["extensions"]["code"] == "SERVICE_UNAVAILABLE"
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert (record.levelno, record.__dict__["error"]) == (logging.WARNING, "OperationalError")
    assert record.__dict__["request_id"] == error["extensions"]["requestId"]
    assert SECRET not in response.text + str(record.__dict__)


async def test_a_database_that_is_away_ends_an_event_stream_without_complete(
    room: Room, client: httpx.AsyncClient
) -> None:
    response = await post(client, room, "subscription { away }", "text/event-stream")
    assert response.text.count("event: next") == 1
    assert "event: complete" not in response.text
    assert "errors" not in response.text
    response = await post(client, room, "{ away }", "text/event-stream")
    assert "SERVICE_UNAVAILABLE" in response.text
    assert "event: complete" in response.text


async def test_authentication_without_a_database_is_a_503(
    room: Room, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    room.world.authentication_fails = ConnectionError(f"no database for {SECRET}")
    response = await post(client, room, "mutation { bump }", Authorization="Bearer good")
    assert (response.status_code, response.headers["retry-after"]) == (503, "2")
    assert response.json()["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"
    assert SECRET not in response.text + caplog.text
    assert room.world.calls == []


async def test_a_failing_authentication_is_a_masked_500(
    room: Room, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    room.world.authentication_fails = ZeroDivisionError(f"division of {SECRET}")
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
INBOX = "https://inbox.example"
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
REFUSED = "origin https://evil.example refused: set ALLOWED_ORIGINS"


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]


async def test_an_allowed_origin_passes_the_preflight_and_a_foreign_one_is_told_what_to_set(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="resolvers.transport.origins")
    async with open_room(allowed_origins=[INBOX]) as room:
        allowed = await client.options(room.url, headers={"Origin": INBOX, **PREFLIGHT})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, INBOX)
        assert "access-control-allow-credentials" not in allowed.headers
        for _ in range(3):
            cross_origin = await client.options(room.url, headers={"Origin": "https://evil.example", **PREFLIGHT})
            assert (cross_origin.status_code, cross_origin.text) == (400, REFUSED)
            assert [name for name in cross_origin.headers if name.startswith("access-control")] == []
        by_get = await client.get(
            room.url, params={"query": "{ item { name } }"}, headers={"Origin": "https://evil.example"}
        )
        assert (by_get.status_code, by_get.json()["errors"][0]["message"]) == (403, REFUSED)
        assert room.world.calls == []
        assert refusals(caplog) == [REFUSED]
        answer = await post(client, room, "{ hello }", Origin=INBOX)
        assert answer.headers["access-control-allow-origin"] == INBOX
        assert answer.headers["access-control-expose-headers"] == "x-request-id, retry-after"


@pytest.mark.parametrize(
    "sent",
    [
        "authorization,content-type,accept",
        "traceparent,tracestate,baggage,x-request-id",
        "apollographql-client-name,apollographql-client-version,apollo-require-preflight,x-apollo-operation-name",
        "graphql-preflight,sentry-trace,x-datadog-trace-id,b3,newrelic,last-event-id,cache-control",
    ],
)
async def test_an_allowed_origin_may_send_the_headers_of_its_clients_and_tracing_tools(
    client: httpx.AsyncClient, sent: str
) -> None:
    async with open_room(allowed_origins=[INBOX]) as room:
        for method in ("GET", "POST"):
            asked = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": sent}
            answer = await client.options(room.url, headers={"Origin": INBOX, **asked})
            assert (answer.status_code, answer.headers["access-control-allow-headers"]) == (200, sent)
            assert answer.headers["access-control-allow-methods"] == "GET, POST"
        cross_origin = await client.options(room.url, headers={"Origin": "https://evil.example", **asked})
        assert cross_origin.status_code == 400


LOCAL = [
    "http://localhost:5173",
    "http://localhost",
    "https://localhost:3000",
    "http://127.0.0.1:8080",
    "http://[::1]:4",
]
NOT_LOCAL = [
    *(
        "http://localhost.evil.example",
        "http://evil.example:80",
        "http://127.0.0.1.evil.example",
        "http://localhost:5@x",
    ),
    *("http://192.168.0.7:3000", "ftp://localhost", "null", "http://127.0.0.2", "http://localhost:5173/x"),
]


async def test_pages_of_this_machine_may_call_where_that_is_asked_for(client: httpx.AsyncClient) -> None:
    async with open_room(local_origins=True) as local, open_room(allowed_origins=[INBOX]) as closed:
        for origin in LOCAL:
            asked = {"Origin": origin, **PREFLIGHT}
            assert (await client.options(closed.url, headers=asked)).status_code == 400
            allowed = await client.options(local.url, headers=asked)
            assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, origin)
            answer = await post(client, local, "{ hello }", Origin=origin)
            assert answer.headers["access-control-allow-origin"] == origin
            async with local.socket(origin=origin):
                pass
        for origin in NOT_LOCAL:
            assert (await client.options(local.url, headers={"Origin": origin, **PREFLIGHT})).status_code == 400
            with pytest.raises(InvalidStatus) as refused:
                async with local.socket(origin=origin):
                    pass
            assert refused.value.response.status_code == 403
            assert b"refused: set ALLOWED_ORIGINS" in refused.value.response.body


async def test_refused_origins_are_logged_in_bounded_number_and_size_and_on_one_line(
    room: Room, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, logger="resolvers.transport.origins")
    odd = "https://x\x1b[31m\x85 \xe9"
    answer = await client.options(room.url, headers={b"Origin": odd.encode("latin-1"), **_bytes(PREFLIGHT)})
    assert answer.text.isascii()
    assert answer.text.isprintable()
    for number in range(60):
        origin = f"https://user:secret@{number}.example" + "x" * 500
        await client.options(room.url, headers={"Origin": origin, **PREFLIGHT})
    lines = refusals(caplog)
    assert 30 <= len(lines) <= 45
    assert all(len(line) < 200 and line.isprintable() and "secret" not in line for line in lines)


def _bytes(headers: dict[str, str]) -> dict[bytes, bytes]:
    return {name.encode(): value.encode() for name, value in headers.items()}


async def test_without_allowed_origins_no_cors_header_is_sent(room: Room, client: httpx.AsyncClient) -> None:
    answer = await post(client, room, "{ hello }", Origin="https://evil.example")
    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_reads_refusals_too(client: httpx.AsyncClient) -> None:
    async with open_room(allowed_origins=[INBOX]) as room:
        headers = {"Origin": INBOX, "Content-Type": OLD}
        for content, more, status in (
            (b" " * 131_073, {}, 413),
            (b"{}", {"Accept": "text/html"}, 406),
            (b"{}", {"Authorization": "Bearer wrong"}, 401),
            (b"{", {}, 400),
        ):
            answer = await client.post(room.url, content=content, headers={**headers, **more})
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, INBOX)


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
    assert len(room.view.admission.connections) == 0


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
    assert len(room.view.admission.connections) == 0


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
        assert len(room.view.admission.connections) == 0


async def test_invented_tokens_are_counted_by_their_network_and_looked_up_no_more(client: httpx.AsyncClient) -> None:
    async with open_room(
        limits=Limits(requests_per_s=0.001, requests_burst=5), is_signed=lambda token: token == "other"
    ) as room:
        asked: list[str] = []
        genuine = room.view.admission.authenticate

        async def authenticate(token: str) -> Any:
            asked.append(token)
            return await genuine(token)

        object.__setattr__(room.view.admission, "authenticate", authenticate)
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


async def test_no_answer_may_be_cached(room: Room, client: httpx.AsyncClient) -> None:
    by_get = await client.get(room.url, params={"query": "{ item { name } }"})
    by_post = await client.post(room.url, json={"query": "{ item { name } }"})
    assert [answer.headers["cache-control"] for answer in (by_get, by_post)] == ["private, no-store"] * 2


# --------------------------------------------------------------------------------------------------------------- cost
async def test_an_answer_shows_its_cost_where_the_header_asks_for_it(room: Room, client: httpx.AsyncClient) -> None:
    query = "{ item { name } }"
    assert "extensions" not in (await post(client, room, query)).json()
    assert "extensions" not in (await post(client, room, query, **{"GraphQL-Cost": "0"})).json()
    asked = {"GraphQL-Cost": "1"}
    answer = (await post(client, room, query, **asked)).json()
    assert answer["data"] == {"item": {"name": "i"}}
    assert answer["extensions"] == {"cost": {"requested": 3, "limit": 10_000}}
    by_get = await client.get(room.url, params={"query": query}, headers={"Accept": OLD, **asked})
    assert by_get.json()["extensions"]["cost"]["requested"] == 3
    # No document: no cost.
    assert "extensions" not in (await post(client, room, "{ item", **asked)).json()


async def test_a_refused_document_shows_what_it_would_cost(client: httpx.AsyncClient) -> None:
    async with open_room(limits=Limits(cost=2), show_cost=True) as room:
        answer = (await post(client, room, "{ item { name } }")).json()
        assert answer["errors"][0]["extensions"]["code"] == "QUERY_TOO_COMPLEX"
        assert answer["extensions"] == {"cost": {"requested": 3, "limit": 2}}
        assert (await post(client, room, "{ __typename }")).json()["extensions"]["cost"]["requested"] == 0


async def test_a_page_of_another_origin_may_ask_for_the_cost(client: httpx.AsyncClient) -> None:
    async with open_room(allowed_origins=["https://inbox.example"]) as room:
        asked = {"Origin": "https://inbox.example", "Access-Control-Request-Method": "POST"}
        answer = await client.options(room.url, headers={**asked, "Access-Control-Request-Headers": "graphql-cost"})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-headers"] == "graphql-cost"
