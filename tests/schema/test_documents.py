"""Operations in the documentation, GraphiQL's examples and the benchmarks fit the schema."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import GraphQLError, NoUnusedFragmentsRule, parse, specified_rules, validate

from tests.schema.conftest import SCHEMA

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = [ROOT / "bench" / "runs.py", ROOT / "bench" / "workloads.py", ROOT / "tests" / "growth.py"]
OPERATION = re.compile(r"\s*((query|mutation|subscription|fragment)\b|\{)")
RULES = [rule for rule in specified_rules if rule is not NoUnusedFragmentsRule]


def blocks(text: str) -> Iterator[str]:
    """The GraphQL code blocks of a Markdown page."""
    yield from re.findall(r"^```graphql\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def constants(text: str) -> Iterator[str]:
    """The operations in a program's module-level texts. `_PEER_…`: other servers' schemas."""
    for statement in ast.parse(text).body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Constant):
            continue
        (target,) = statement.targets
        found = statement.value.value
        peers = isinstance(target, ast.Name) and target.id.startswith("_PEER")
        if isinstance(found, str) and OPERATION.match(found) and not peers:
            yield found


def documents() -> Iterator[tuple[str, str]]:
    pages = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
    for page in pages:
        yield from ((f"{page.name} {n}", found) for n, found in enumerate(blocks(page.read_text(encoding="utf-8"))))
    for example in sorted((ROOT / "web" / "static" / "examples").glob("*.graphql")):
        yield example.name, example.read_text(encoding="utf-8")
    for program in PROGRAMS:
        found = constants(program.read_text(encoding="utf-8"))
        yield from ((f"{program.parent.name}/{program.name} {n}", text) for n, text in enumerate(found))


DOCUMENTS = dict(documents())


def wrong(document: str) -> list[str]:
    try:
        return [error.message for error in validate(SCHEMA._schema, parse(document), RULES)]
    except GraphQLError as error:
        return [error.message]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_document_is_valid(name: str) -> None:
    assert wrong(DOCUMENTS[name]) == []


def test_the_documents_are_found() -> None:
    names = " ".join(DOCUMENTS)
    for wanted in ("build-an-inbox.md 3", "read_thread.graphql", "bench/runs.py 3", "tests/growth.py 8"):
        assert wanted in names


def test_a_field_that_does_not_exist_is_found() -> None:
    (found,) = blocks("Text\n```graphql\n{ viewer { birthday } }\n```\n")
    assert wrong(found) == ["Cannot query field 'birthday' on type 'Viewer'."]
