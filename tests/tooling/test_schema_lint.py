"""The schema's linter finds what it is for, and `./dev check` can run without npm."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tooling import schema_lint

ROOT = Path(__file__).resolve().parents[2]
LINT = ROOT / "tests" / "lint"

BAD = '''
schema { query: Query }
"""Reads."""
type Query {
  """Items."""
  items: ItemConnection
  """One item."""
  get_item(id: ID): Item
}
"""A page."""
type ItemConnection {
  """The page."""
  edges: [ItemEdge]
}
"""An item in a list."""
type ItemEdge {
  """Its position."""
  cursor: String!
  """The item."""
  node: Item
}
"""An item."""
type Item {
  """Its name."""
  name: String!
}
"""Not used."""
type Lost {
  """Its name."""
  name: String!
}
'''
FOUND = {
    "naming-convention",
    "no-unreachable-types",
    "relay-arguments",
    "relay-connection-types",
    "relay-edge-types",
    "relay-page-info",
    "require-description",
}


def test_the_linter_finds_what_it_is_for(tmp_path: Path) -> None:
    eslint = LINT / "node_modules" / "eslint" / "bin" / "eslint.js"
    node = shutil.which("node")
    if node is None or not eslint.exists():
        if os.environ.get("CI") == "true":
            pytest.fail("no Node, or tests/lint is not installed: ./dev check lint does it with npm")
        pytest.skip("no Node, or tests/lint is not installed")
    folder = tmp_path / "schema"
    folder.mkdir()
    shutil.copy(ROOT / "schema" / "visitor.graphql", folder)
    command = [
        node,
        str(eslint),
        "-c",
        str(LINT / "eslint.config.mjs"),
        "schema/schema.graphql",
        "schema/visitor.graphql",
    ]
    for text, expected in ((BAD, FOUND), ((ROOT / "schema" / "schema.graphql").read_text(), set[str]())):
        (folder / "schema.graphql").write_text(text)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        rules = {line.rpartition("/")[2].strip() for line in done.stdout.splitlines() if "@graphql-eslint/" in line}
        assert (rules, done.returncode) == (expected, 1 if expected else 0), done.stdout + done.stderr


@pytest.fixture
def lint(tmp_path: Path) -> Path:
    """The linter's folder, with nothing installed."""
    for name in ("package.json", "package-lock.json", "eslint.config.mjs"):
        shutil.copy(LINT / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_without_npm_the_linter_is_skipped_and_fails_only_in_ci(
    lint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: str, code: int
) -> None:
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", str(lint))
    assert schema_lint.main(lint=lint) == code
    assert "MISSING: ./dev check lint needs Node 20 and npm" in capsys.readouterr().out


def test_what_passed_unchanged_is_not_linted_again(lint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema_files = sorted((ROOT / "schema").glob("*.graphql"))
    (lint / "node_modules").mkdir()
    state = schema_lint.digest([*schema_files, lint / "eslint.config.mjs", lint / "package-lock.json"])
    (lint / "node_modules" / "passed").write_text(state)
    monkeypatch.setattr(schema_lint, "run", lambda *given: pytest.fail("it ran"))
    assert schema_lint.main(lint=lint) == 0
