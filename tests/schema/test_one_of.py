"""@oneOf inputs: exactly one member, in the schema and in execution."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from graphql import GraphQLInputObjectType, build_schema
from strawberry.utils.str_converters import to_camel_case

from integrations import registry
from schema.inputs import processors
from services.connections import processor_credentials, providers
from tests.schema.conftest import SCHEMA, Api, Failed
from tests.services.conftest import Team

CONFIGURE = """mutation($input: ConfigureProcessorInput!) { configureProcessor(input: $input) {
  processor { id kind } userErrors { code field } } }"""
WRONG: list[dict[str, Any]] = [
    {},
    {"sandbox": None},
    {"sandbox": True, "stripe": {"secretKey": "sk_test_1"}},
    {"sandbox": True, "stripe": None},
]


def test_the_schema_says_so_to_tools() -> None:
    printed = build_schema(SCHEMA.as_str())
    ones = {name for name, kind in printed.type_map.items() if getattr(kind, "is_one_of", False)}
    assert "ProcessorCredentialsInput" in ones


async def test_introspection_says_so(api: Api) -> None:
    shown = await api.one('{ __type(name: "ProcessorCredentialsInput") { isOneOf } }')
    assert shown == {"isOneOf": True}


@pytest.mark.parametrize("credentials", WRONG)
async def test_anything_but_one_member_is_a_bad_request(team: Team, api: Api, credentials: dict[str, Any]) -> None:
    with pytest.raises(Failed) as failed:
        await api.one(CONFIGURE, {"input": {"credentials": credentials}}, viewer=team.owner)
    assert failed.value.codes == ["BAD_REQUEST"]


async def test_anything_but_one_member_written_into_the_operation_is_one(team: Team, api: Api) -> None:
    for written in ("{}", "{sandbox: null}", '{sandbox: true, stripe: {secretKey: "sk_test_1"}}'):
        document = f"mutation {{ configureProcessor(input: {{credentials: {written}}}) {{ processor {{ id }} }} }}"
        with pytest.raises(Failed) as failed:
            await api.one(document, viewer=team.owner)
        assert failed.value.codes == ["BAD_REQUEST"], written


@pytest.mark.parametrize(
    ("name", "input"),
    [
        ("stripe", processors.StripeCredentialsInput),
        ("paypal", processors.PayPalCredentialsInput),
        ("square", processors.SquareCredentialsInput),
    ],
)
def test_the_members_have_the_credentials_that_the_processor_takes(name: str, input: type[Any]) -> None:
    cls = registry.processor_class(name)
    taken = {
        field for field in processor_credentials.fields_of(cls) if field not in processor_credentials.hidden_fields(cls)
    }
    assert {field.name for field in dataclasses.fields(input)} == taken


def test_each_built_in_processor_has_a_member() -> None:
    kind = SCHEMA._schema.type_map["ProcessorCredentialsInput"]
    assert isinstance(kind, GraphQLInputObjectType)
    assert set(kind.fields) == {to_camel_case(name) for name in registry.built_in("processors")} | {"custom"}
    assert {providers.KINDS[name] for name in registry.built_in("processors")} == {
        name.upper() for name in kind.fields if name != "custom"
    }
