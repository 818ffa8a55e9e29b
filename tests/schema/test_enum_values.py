"""Every enum value of the schema is used by the code."""

from __future__ import annotations

import re
from pathlib import Path

from graphql import GraphQLEnumType, GraphQLInputObjectType, GraphQLObjectType, build_schema, get_named_type

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("services", "models", "integrations", "resolvers", "schema", "web")
# Where a value is declared: `NAME = "NAME"` and `NAME = value("NAME", …)`. That is no use of it.
_DECLARED = re.compile(r'^    ([A-Z][A-Z0-9_]*) = (?:value\()?"\1".*$', re.MULTILINE)
_WORD = re.compile(r"\b[A-Z][A-Z0-9_]*\b")


def used_words() -> set[str]:
    """Every word in capitals in the code, except its own declaration."""
    files = (file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
    return {word for file in files for word in _WORD.findall(_DECLARED.sub("", file.read_text(encoding="utf-8")))}


def test_every_enum_value_of_the_schema_is_used_by_the_code() -> None:
    used = used_words()
    for name in ("schema.graphql", "visitor.graphql"):
        schema = build_schema((ROOT / "schema" / name).read_text(encoding="utf-8"))
        enums = [t for t in schema.type_map.values() if isinstance(t, GraphQLEnumType) and not t.name.startswith("__")]
        assert len(enums) >= 3
        given = {
            get_named_type(part.type).name
            for t in schema.type_map.values()
            for part in (
                t.fields.values()
                if isinstance(t, GraphQLInputObjectType)
                else [arg for f in t.fields.values() for arg in f.args.values()]
                if isinstance(t, GraphQLObjectType)
                else ()
            )
        }
        enums = [enum for enum in enums if enum.name not in given]  # what clients say, the code may only pass on
        unused = {f"{enum.name}.{value}" for enum in enums for value in enum.values if value not in used}
        assert unused == set(), name
    assert "REMINDER_SENT" not in used
