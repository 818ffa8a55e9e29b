"""The validator and the base server of all fake vendors: what they refuse, and how they fail on demand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx2
import pytest

from tests.contracts.openapi import FORM, Answer, Call, Contract, ContractServer, ContractViolation, decode_pairs

SPEC: dict[str, Any] = {
    "openapi": "3.0.3",
    "servers": [{"url": "https://api.vendor.test/base"}],
    "paths": {
        "/things/{id}": {
            "parameters": [
                {"name": "id", "in": "path", "required": True, "schema": {"type": "string", "maxLength": 5}}
            ],
            "get": {
                "operationId": "read",
                "parameters": [
                    {"name": "expand", "in": "query", "schema": {"type": "array", "items": {"type": "string"}}},
                    {"name": "X-Key", "in": "header", "required": True, "schema": {"type": "string"}},
                ],
                "responses": {
                    "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}
                },
            },
        },
        "/things/search": {"get": {"operationId": "search", "responses": {"204": {"description": "none"}}}},
        "/things": {
            "post": {
                "operationId": "make",
                "requestBody": {
                    "required": True,
                    "content": {
                        FORM: {"schema": {"$ref": "#/components/schemas/NewThing"}},
                        "application/json": {"schema": {"$ref": "#/components/schemas/NewThing"}},
                    },
                },
                "responses": {
                    "201": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}}
                },
            }
        },
    },
    "components": {
        "schemas": {
            "Thing": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": {"type": "string"},
                    "note": {"anyOf": [{"type": "string"}, {"$ref": "#/components/schemas/Thing"}], "nullable": True},
                    "kind": {"type": "string", "enum": ["a", "b"], "nullable": True},
                    "parent": {"$ref": "#/components/schemas/Thing", "nullable": True},
                },
            },
            "NewThing": {
                "type": "object",
                "required": ["amount"],
                "additionalProperties": False,
                "properties": {
                    "amount": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
                    "flag": {"type": "boolean"},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "items": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {"n": {"type": "integer"}},
                        },
                    },
                    "meta": {"anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, {"enum": [""]}]},
                },
            },
        }
    },
}
CONTRACT = Contract(SPEC, name="vendor")


def make(body: str, kind: str = FORM) -> Any:
    return CONTRACT.check_request("POST", "/base/things", query="", content_type=kind, body=body.encode()).body


def refused(body: str, kind: str = FORM) -> list[str]:
    with pytest.raises(ContractViolation) as violation:
        make(body, kind)
    return violation.value.sentences


def test_forms_are_decoded_and_typed() -> None:
    assert make("amount=5&flag=true&tags=a&tags=b") == {"amount": 5, "flag": True, "tags": ["a", "b"]}
    assert make("amount=5&tags=a") == {"amount": 5, "tags": ["a"]}
    assert make("amount=5&tags[0]=a&tags[1]=b") == {"amount": 5, "tags": ["a", "b"]}
    assert make("amount=5&items[0][n]=1&items[1][n]=2&meta[x]=7") == {
        "amount": 5,
        "items": [{"n": 1}, {"n": 2}],
        "meta": {"x": "7"},
    }
    assert make("amount=5&meta=") == {"amount": 5, "meta": ""}
    assert make('{"amount": 5}', "application/json; charset=utf-8") == {"amount": 5}


@pytest.mark.parametrize(
    ("body", "kind", "sentence"),
    [
        ("", FORM, "body: 'amount' is a required property"),
        ("", "application/json", "body: 'amount' is a required property"),
        ("amount=0", FORM, "body.amount: 0 is less than or equal to the minimum of 0"),
        ("amount=x", FORM, "body.amount: 'x' is not of type 'integer'"),
        ("amount=1.5", FORM, "body.amount: '1.5' is not of type 'integer'"),
        ("amount=1&more=1", FORM, "body: Additional properties are not allowed ('more' was unexpected)"),
        ("amount=1&flag=yes", FORM, "body.flag: 'yes' is not of type 'boolean'"),
        ("amount=1&amount=2", FORM, "body.amount: ['1', '2'] is not of type 'integer'"),
        ("amount=1&items[0][m]=1", FORM, "body.items[0]: Additional properties are not allowed ('m' was unexpected)"),
        ("amount=1&items[1][n]=1", FORM, "body.items: {'1': {'n': '1'}} is not of type 'array'"),
        ("amount=1&meta[a]=1&meta=x", FORM, "body: meta is given both as a value and with brackets"),
        ('{"amount": 1, "amount": 2}', "application/json", "body: an object holds one key twice"),
        ('{"amount": "1"}', "application/json", "body.amount: '1' is not of type 'integer'"),
        ("amount=1", "text/plain", f"content type text/plain is not one of ['application/json', '{FORM}']"),
    ],
)
def test_what_the_contract_does_not_allow_is_said_in_a_sentence(body: str, kind: str, sentence: str) -> None:
    assert sentence in refused(body, kind)


def test_paths_queries_and_headers_are_judged() -> None:
    def read(path: str, query: str = "", headers: dict[str, str] | None = None) -> Any:
        return CONTRACT.check_request("GET", path, query=query, content_type="", body=b"", headers=headers)

    found = read("/things/abc", "expand[]=a&expand[]=b", {"x-key": "1"})
    assert (found.operation_id, found.path_params, found.query) == ("read", {"id": "abc"}, {"expand": ["a", "b"]})
    assert read("/base/things/search").operation_id == "search"
    for path, query, headers in (
        ("/nowhere", "", {}),
        ("/things/toolong", "", {"x-key": "1"}),
        ("/things/abc", "other=1", {"x-key": "1"}),
        ("/things/abc", "", {}),
    ):
        with pytest.raises(ContractViolation):
            read(path, query, headers)


@pytest.mark.parametrize(
    "thing", [{"note": None}, {"kind": None}, {"parent": None}, {"note": {"id": "y", "kind": None}}]
)
def test_nullable_lets_null_through_wherever_it_stands(thing: dict[str, Any]) -> None:
    CONTRACT.check_value(CONTRACT.schema("Thing"), {"id": "x"} | thing)


@pytest.mark.parametrize("thing", [{"note": 5}, {"kind": "c"}, {"parent": {}}, {"id": None}])
def test_nullable_lets_nothing_else_through(thing: dict[str, Any]) -> None:
    with pytest.raises(ContractViolation):
        CONTRACT.check_value(CONTRACT.schema("Thing"), {"id": "x"} | thing)


def test_keys_that_contradict_each_other_are_refused() -> None:
    for pairs in ([("a", "1"), ("a[b]", "2")], [("a[b]", "1"), ("a[b]", "2")], [("a[b]", "1"), ("a[b][c]", "2")]):
        with pytest.raises(ValueError, match="given"):
            decode_pairs(pairs)


class Fake(ContractServer):
    made = 0
    answer: Any = {"id": "x"}

    async def handle(self, call: Call) -> Answer:
        self.made += 1
        return Answer(201, self.answer)

    def error(self, status: int, reason: str, sentences: Sequence[str], call: Call) -> Answer:
        return Answer(status, {"reason": reason, "sentences": list(sentences)})


@pytest.fixture
async def fake() -> AsyncIterator[tuple[Fake, httpx2.AsyncClient]]:
    async with Fake(CONTRACT) as server, httpx2.AsyncClient(base_url=server.url, timeout=1, trust_env=False) as client:
        yield server, client


async def test_the_server_judges_calls_and_keeps_them(fake: tuple[Fake, httpx2.AsyncClient]) -> None:
    server, client = fake
    good = await client.post("/base/things", data={"amount": "5"})
    bad = await client.post("/base/things", data={"sum": "5"})
    lost = await client.get("/elsewhere")
    assert (good.status_code, good.json()) == (201, {"id": "x"})
    assert (bad.status_code, bad.json()["reason"]) == (400, "violation")
    assert (lost.status_code, lost.json()["reason"]) == (404, "not_found")
    assert (server.made, server.operations()) == (1, ["make", "?", "?"])
    assert len(server.violations) == 3
    assert server.calls[0].raw_body == b"amount=5"


async def test_the_server_fails_as_it_is_told(fake: tuple[Fake, httpx2.AsyncClient]) -> None:
    server, client = fake
    seen: list[tuple[Any, int]] = []
    for mode in ("accept_then_500", "before_500", "rate_limit", "hang", "drop"):
        server.fail_next(mode)
        try:
            answered: Any = (await client.post("/base/things", data={"amount": "5"})).status_code
        except httpx2.TransportError as error:
            answered = type(error)
        seen.append((answered, server.made))
    assert seen == [(500, 1), (500, 1), (429, 1), (httpx2.ReadTimeout, 2), (httpx2.RemoteProtocolError, 3)]
    assert (await client.post("/base/things", data={"amount": "5"})).status_code == 201


async def test_a_failure_may_be_meant_for_one_kind_of_call(fake: tuple[Fake, httpx2.AsyncClient]) -> None:
    server, client = fake
    server.fail_next("before_500", times=2, match=lambda call: b"amount=7" in call.raw_body)
    statuses = [(await client.post("/base/things", data={"amount": n})).status_code for n in ("5", "7", "7", "7")]
    assert statuses == [201, 500, 500, 201]


async def test_a_fake_that_breaks_its_own_contract_fails_the_test() -> None:
    server = await Fake(CONTRACT).__aenter__()
    async with httpx2.AsyncClient(trust_env=False) as client:
        server.answer = {"id": 5}
        await client.post(f"{server.url}/base/things", data={"amount": "5"})
    with pytest.raises(AssertionError, match="the fake broke its own contract"):
        await server.__aexit__(None)
