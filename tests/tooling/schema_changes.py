"""Compares the committed schemas with those of the last release: each breaking change needs an entry in docs/schema-changelog.md."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from graphql import GraphQLInterfaceType, GraphQLObjectType, GraphQLSchema, build_schema
from graphql.utilities import find_breaking_changes

ROOT: Final = Path(__file__).resolve().parents[2]
FILES: Final = ("schema/schema.graphql", "schema/visitor.graphql")
CHANGELOG: Final = "docs/schema-changelog.md"
# A deprecation may name the day from which the field may go: "… Removal: 2027-03-01".
REMOVAL: Final = re.compile(r"Removal: \d{4}-\d{2}-\d{2}")
_COORDINATE: Final = re.compile(r"@\w+(?:\(\w+:\))?|\w+\.\w+(?:\(\w+:\))?")


class Change(NamedTuple):
    coordinate: str  # as an entry writes it: Type, Type.field, Type.field(argument:)
    text: str


def last_release(root: Path = ROOT) -> str | None:
    """The newest release tag that this commit descends from."""
    return _git(root, "describe", "--tags", "--abbrev=0", "--match", "v[0-9]*")


def of_release(root: Path, tag: str, file: str) -> str | None:
    return _git(root, "show", f"{tag}:{file}")


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None if done.returncode == 0 else None


def breaking(old: GraphQLSchema, new: GraphQLSchema) -> list[Change]:
    """What clients of the old schema lose, except fields whose deprecation gave a removal date."""
    announced = {
        f"{name}.{field_name}"
        for name, kind in old.type_map.items()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        for field_name, field in kind.fields.items()
        if REMOVAL.search(field.deprecation_reason or "")
    }
    found = [
        Change(_coordinate(old, change.description), change.description) for change in find_breaking_changes(old, new)
    ]
    return [change for change in found if change.coordinate not in announced]


def _coordinate(old: GraphQLSchema, text: str) -> str:
    if (found := _COORDINATE.search(text)) is not None:
        return str(found[0])
    types: list[str] = [word for word in re.findall(r"\w+", text) if word in old.type_map]
    return types[-1] if "union type" in text else types[0]


def entries(changelog: str) -> set[str]:
    """The coordinates in the section Unreleased."""
    _, _, rest = changelog.partition("\n## Unreleased\n")
    return set(re.findall(r"`([^`\n]+)`", rest.partition("\n## ")[0]))


def undocumented(root: Path = ROOT) -> list[str]:
    """Breaking changes since the last release without an entry; none without a release."""
    tag = last_release(root)
    if tag is None:
        return []
    written = entries((root / CHANGELOG).read_text(encoding="utf-8"))
    found = []
    for file in FILES:
        old = of_release(root, tag, file)
        if old is None:
            continue
        changes = breaking(build_schema(old), build_schema((root / file).read_text(encoding="utf-8")))
        found += [f"{file}: {text} ({name})" for name, text in changes if name not in written]
    return found


def main(root: Path = ROOT) -> int:
    tag = last_release(root)
    if tag is None:
        sys.stdout.write("no release tag yet: there is no schema to compare with\n")
        return 0
    found = undocumented(root)
    if found:
        sys.stdout.write("\n".join(found) + "\n")
        sys.stdout.write(f"Breaking since {tag}: name each in backticks under Unreleased in {CHANGELOG}.\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
