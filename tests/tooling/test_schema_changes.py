"""The check of breaking changes, in repositories that the tests make."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from graphql import build_schema

from tests.tooling import schema_changes

OLD = """
type Query { a: Int b(x: Int): Int pet: Pet node: Node color: Color }
union Pet = Cat | Dog
interface Node { id: ID! }
type Cat implements Node { id: ID! }
type Dog implements Node { id: ID! }
enum Color { RED BLUE }
input Filter { name: String }
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "schema").mkdir()
    (tmp_path / "docs").mkdir()
    git(tmp_path, "init", "-q")
    write(tmp_path, OLD, "")
    return tmp_path


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def write(folder: Path, schema: str, unreleased: str) -> None:
    (folder / "schema" / "schema.graphql").write_text(schema)
    (folder / "schema" / "visitor.graphql").write_text("type Query { ok: Boolean }")
    text = f"# Changes\n\n## Unreleased\n{unreleased}\n\n## v0\n- `Query.a` went long ago\n"
    (folder / "docs" / "schema-changelog.md").write_text(text)


def release(folder: Path) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Release")
    git(folder, "tag", "v1.0.0")


def test_without_a_release_it_says_so_and_passes(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "Begin")
    write(repository, "type Query { c: Int }", "")
    assert schema_changes.main(repository) == 0
    assert "no release tag yet" in capsys.readouterr().out


def test_a_breaking_change_needs_an_entry_of_this_release(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release(repository)
    assert schema_changes.main(repository) == 0
    changed = OLD.replace("{ a: Int", "{ c: Int")
    write(repository, changed, "")
    assert schema_changes.main(repository) == 1
    shown = capsys.readouterr().out
    assert "Query.a was removed" in shown
    assert "docs/schema-changelog.md" in shown
    write(repository, changed, "- `Query.b` went")
    assert schema_changes.main(repository) == 1
    write(repository, changed, "- `Query.a` is `c`")
    assert schema_changes.main(repository) == 0


def test_an_addition_needs_no_entry(repository: Path) -> None:
    release(repository)
    write(repository, OLD.replace("{ a: Int", "{ a: Int c: Int").replace("RED", "RED GREEN"), "")
    assert schema_changes.undocumented(repository) == []


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("a: Int b", "b", "Query.a"),
        ("b(x: Int)", "b", "Query.b(x:)"),
        ("b(x: Int)", "b(x: Int y: Int!)", "Query.b(y:)"),
        ("a: Int b", "a: String b", "Query.a"),
        ("Cat | Dog", "Cat", "Pet"),
        ("RED BLUE", "RED", "Color.BLUE"),
        ("type Dog implements Node", "type Dog", "Dog"),
        ("name: String", "name: String!", "Filter.name"),
        ("input Filter { name: String }", "", "Filter"),
    ],
)
def test_each_breaking_change_has_a_name(old: str, new: str, name: str) -> None:
    assert old in OLD
    found = schema_changes.breaking(build_schema(OLD), build_schema(OLD.replace(old, new)))
    assert [change.coordinate for change in found] == [name]


def test_the_entries_of_this_repository_are_read() -> None:
    text = (schema_changes.ROOT / schema_changes.CHANGELOG).read_text(encoding="utf-8")
    assert {"Query.users", "Mutation.markNotificationsRead(upTo:)"} <= schema_changes.entries(text)
