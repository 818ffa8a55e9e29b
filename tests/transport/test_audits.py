"""The 61 audits of npm graphql-http 1.23.1. Source: github.com/graphql/graphql-http, src/audits/server.ts."""

from dataclasses import dataclass, field
from typing import Any, Final

import httpx2 as httpx
import orjson

from tests.transport.room import Room, open_room

NEW: Final = "application/graphql-response+json"
OLD: Final = "application/json"
HELLO: Final = "{ __typename }"
NO_SUCH_FIELD: Final = "{ 8f31403dfe404bccbb0e835f2629c6a7 }"
TYPE: Final = "query Type($name: String!) { __type(name: $name) { name } }"
COERCION: Final = {"query": "query CoerceFailure($id: ID!){ __typename }", "variables": {"id": None}}


@dataclass(frozen=True)
class Audit:
    """One request and its expected answer; None: unchecked."""

    id: str
    body: Any = field(default_factory=lambda: {"query": HELLO})
    accept: str | None = None
    status: tuple[int, int] = (200, 200)
    content_type: str | None = None
    content_type_sent: str | None = OLD
    by_get: bool = False
    no_errors: bool = False
    no_data: bool = False


def audits() -> list[Audit]:
    bad = (400, 400)
    found = [
        Audit("22EB", accept=NEW, content_type=NEW),
        Audit("4655", accept=OLD, content_type=OLD),
        Audit("47DE", accept="*/*", content_type=OLD),
        Audit("80D8", content_type=OLD),
        Audit("82A3"),
        Audit("BF61", {"query": '{ __type(name: "Run🏃Swim🏊") { name } }'}, content_type_sent=f"{OLD}; charset=utf-8"),
        Audit("78D5"),
        Audit("2C94"),
        Audit("5A70", by_get=True),
        Audit("9C48", {"query": "mutation { __typename }"}, NEW, (400, 499), by_get=True),
        Audit("9ABE", status=(400, 499), content_type_sent=None),
        Audit("03D4"),
        Audit("A5BF", b"", status=bad),
        Audit("423L", {"notquery": HELLO}, NEW, bad),
        Audit("34A2", accept=NEW),
        Audit("13EE", accept=OLD, no_errors=True),
        Audit("8161", {"query": "query Query { __typename }", "operationName": "Query"}, NEW),
        Audit("B8B3", {"query": "query Query { __typename }", "operationName": "Query"}, OLD, no_errors=True),
        Audit("2EA1", {"query": TYPE, "variables": {"name": "sometype"}}, NEW, no_errors=True),
        Audit("28B9", {"query": TYPE, "variables": {"name": "sometype"}}, OLD, no_errors=True),
        Audit("D6D5", {"query": TYPE, "variables": '{"name":"sometype"}'}, NEW, by_get=True, no_errors=True),
        Audit("6A70", {"query": TYPE, "variables": '{"name":"sometype"}'}, OLD, by_get=True, no_errors=True),
        Audit("428F", {"query": HELLO, "extensions": {"some": "value"}}, NEW),
        Audit("1B7A", {"query": HELLO, "extensions": {"some": "value"}}, OLD, no_errors=True),
        Audit("B6DC", b'{ "not a JSON', OLD, (200, 599)),
        Audit("BCF8", b'{ "not a JSON', OLD, bad),
        Audit("B7N8", b'{ "not a JSON', NEW, bad),
        Audit("8764", {"qeury": HELLO}, status=(400, 599)),
        Audit("3E3A", {"qeury": HELLO}, status=bad),
        Audit("572B", {"query": "{"}, OLD),
        Audit("FDE2", {"query": NO_SUCH_FIELD}, OLD),
        Audit("7B9B", COERCION, OLD),
        Audit("865D", {"query": "{"}, NEW, (400, 599)),
        Audit("556A", {"query": "{"}, NEW, bad),
        Audit("D586", {"query": "{"}, NEW, bad, no_data=True),
        Audit("51FE", {"query": NO_SUCH_FIELD}, NEW, (400, 599)),
        Audit("74FF", {"query": NO_SUCH_FIELD}, NEW, bad),
        Audit("5E5B", {"query": NO_SUCH_FIELD}, NEW, bad, no_data=True),
        Audit("86EE", COERCION, NEW, bad),
    ]
    for index, wrong in enumerate(({"obj": "ect"}, 0, False, ["array"])):
        found.append(Audit(f"LKJ{index}", {"query": wrong}, status=bad))
        found.append(Audit(f"6C0{index}", {"query": HELLO, "operationName": wrong}, status=bad))
    for index, not_a_map in enumerate(("string", 0, False, ["array"])):
        found.append(Audit(f"476{index}", {"query": HELLO, "variables": not_a_map}, status=bad))
        found.append(Audit(f"58B{index}", {"query": HELLO, "extensions": not_a_map}, status=bad))
    for index, name in enumerate(("variables", "operationName", "extensions")):
        found.append(Audit(f"94B{index}", {"query": HELLO, name: None}, NEW, no_errors=True))
        found.append(Audit(f"022{index}", {"query": HELLO, name: None}, OLD, no_errors=True))
    return found


async def problems(room: Room) -> list[str]:
    found = []
    async with httpx.AsyncClient() as client:
        # What the library sends by itself would hide the audits about a missing Accept.
        del client.headers["Accept"]
        for audit in audits():
            headers = {} if audit.accept is None else {"Accept": audit.accept}
            if audit.by_get:
                response = await client.get(room.url, params=audit.body, headers=headers)
            else:
                if audit.content_type_sent is not None:
                    headers["Content-Type"] = audit.content_type_sent
                content = audit.body if isinstance(audit.body, bytes) else orjson.dumps(audit.body)
                response = await client.post(room.url, content=content, headers=headers)
            if problem := failure(audit, response):
                found.append(problem)
    return found


def failure(audit: Audit, response: httpx.Response) -> str | None:
    if not audit.status[0] <= response.status_code <= audit.status[1]:
        return f"{audit.id}: status {response.status_code}"
    media_type, _, charset = response.headers["content-type"].partition("; ")
    if charset != "charset=utf-8" or (audit.content_type is not None and media_type != audit.content_type):
        return f"{audit.id}: content type {response.headers['content-type']}"
    body = orjson.loads(response.content)
    if audit.no_errors and "errors" in body:
        return f"{audit.id}: {body['errors']}"
    if audit.no_data and "data" in body:
        return f"{audit.id}: has data"
    return None


def test_the_list_holds_61_different_audits() -> None:
    assert len({audit.id for audit in audits()}) == len(audits()) == 61


async def test_all_audits_are_ok_with_queries_by_get() -> None:
    async with open_room(queries_by_get=True) as room:
        assert await problems(room) == []


async def test_without_queries_by_get_only_the_three_may_audits_about_get_differ() -> None:
    async with open_room(queries_by_get=False) as room:
        assert await problems(room) == ["5A70: status 405", "D6D5: status 405", "6A70: status 405"]
