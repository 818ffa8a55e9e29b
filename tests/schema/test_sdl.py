"""The committed SDL equals the code's, everything is described, and nothing that clients use is removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    introspection_from_schema,
)
from graphql.utilities import find_breaking_changes

from models import errors
from resolvers.assemble import build_schema as assemble
from resolvers.transport.schema import Schema
from resolvers.visitor.assemble import build_visitor_schema
from services.web_chat import identity
from tests.schema.conftest import SCHEMA
from tests.tooling.schema_changes import breaking, undocumented

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "schema" / "schema.graphql"
VISITOR_FILE = ROOT / "schema" / "visitor.graphql"
VISITOR_SCHEMA = build_visitor_schema(production=False)


def names_without_description(schema: GraphQLSchema) -> list[str]:
    """Every type, field, argument, input field and enum value without a description."""
    found = []
    for name, kind in schema.type_map.items():
        if name.startswith("__") or name in ("String", "Int", "Float", "Boolean", "ID"):
            continue
        if not kind.description:
            found.append(name)
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            for field_name, field in kind.fields.items():
                if not field.description:
                    found.append(f"{name}.{field_name}")
                found += [f"{name}.{field_name}({a})" for a, arg in field.args.items() if not arg.description]
        elif isinstance(kind, GraphQLInputObjectType):
            found += [f"{name}.{field_name}" for field_name, field in kind.fields.items() if not field.description]
        elif isinstance(kind, GraphQLEnumType):
            found += [f"{name}.{value_name}" for value_name, value in kind.values.items() if not value.description]
    return found


@pytest.mark.parametrize(("file", "schema"), [(FILE, SCHEMA), (VISITOR_FILE, VISITOR_SCHEMA)], ids=["team", "visitor"])
def test_the_committed_file_is_what_the_code_gives(file: Path, schema: Schema) -> None:
    assert file.read_text(encoding="utf-8").rstrip() == schema.as_str().rstrip(), "run: python cli.py schema --write"


@pytest.mark.parametrize("schema", [SCHEMA, VISITOR_SCHEMA], ids=["team", "visitor"])
def test_everything_is_described(schema: Schema) -> None:
    assert names_without_description(schema._schema) == []


@pytest.mark.parametrize("schema", [SCHEMA, VISITOR_SCHEMA], ids=["team", "visitor"])
def test_no_default_is_null(schema: Schema) -> None:
    """Explorers show a default as if it were a chosen value."""
    assert "= null" not in schema.as_str()
    shown: Any = introspection_from_schema(schema._schema)["__schema"]["types"]
    fields = [field for kind in shown for field in (*(kind["fields"] or ()), *(kind["inputFields"] or ()))]
    given = [*fields, *(argument for field in fields for argument in field.get("args", ()))]
    assert [one["name"] for one in given if one.get("defaultValue") == "null"] == []
    assert any(one.get("defaultValue") == "false" for one in given)


def test_only_a_server_with_the_sandbox_has_its_mutation() -> None:
    without = assemble(production=True, sandbox=False)._schema
    lost = {change.description for change in find_breaking_changes(SCHEMA._schema, without)}
    types = ("RunSandboxScenarioInput", "RunSandboxScenarioPayload", "SandboxScenario")
    assert lost == {"Field Mutation.runSandboxScenario was removed.", *(f"{name} was removed." for name in types)}


def test_every_refusal_of_a_visitor_has_its_code_in_the_visitors_api() -> None:
    kind = VISITOR_SCHEMA._schema.type_map["VisitorErrorCode"]
    assert isinstance(kind, GraphQLEnumType)
    of_texts = {"BLANK", "TOO_LONG", "INVALID", "RATE_LIMITED"}
    assert {cls.code for cls in identity.VisitRefused.__subclasses__()} | of_texts == set(kind.values)


def test_the_search_for_descriptions_finds_what_lacks_one() -> None:
    schema = build_schema('"q" type Query { "f" f(a: Int): E } enum E { A } input I { x: Int }')
    assert sorted(names_without_description(schema)) == ["E", "E.A", "I", "I.x", "Query.f(a)"]


def test_nothing_of_the_last_release_is_broken_without_an_entry() -> None:
    assert undocumented() == []


def test_a_removed_field_is_reported_unless_its_removal_was_announced() -> None:
    new = build_schema("type Query { a: Int }")
    (change,) = breaking(build_schema("type Query { a: Int b: Int }"), new)
    assert change == ("Query.b", "Field Query.b was removed.")
    announced = 'type Query { a: Int b: Int @deprecated(reason: "Use a. Removal: 2027-03-01") }'
    assert breaking(build_schema(announced), new) == []


def all_subclasses(base: type[errors.Refusal]) -> Iterator[type[errors.Refusal]]:
    for cls in base.__subclasses__():
        yield cls
        yield from all_subclasses(cls)


def test_every_refusal_has_its_code_in_the_api() -> None:
    kind = SCHEMA._schema.type_map["UserErrorCode"]
    assert isinstance(kind, GraphQLEnumType)
    codes = {cls.code for cls in all_subclasses(errors.Refusal) if hasattr(cls, "code")}
    assert codes == set(kind.values)


def test_every_payload_has_user_errors() -> None:
    mutation = SCHEMA._schema.mutation_type
    assert mutation is not None
    payload = SCHEMA._schema.type_map["MutationPayload"]
    for name, field in mutation.fields.items():
        kind = field.type.of_type
        assert payload in kind.interfaces, name
        assert kind.name == f"{name[0].upper()}{name[1:]}Payload"


@pytest.mark.parametrize("production", [True, False])
async def test_introspection_is_off_in_production(production: bool) -> None:
    result = await assemble(production=production).execute("{ __schema { queryType { name } } }")
    assert bool(result.errors) is production
    assert (result.data is None) is production
