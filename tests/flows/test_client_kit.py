"""The package in clients/, as npm packs it, with the real libraries in Node."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
KIT = ROOT / "clients"
INSTALLED = ROOT / "tests" / "clients"
MAX_SOCKET_BYTES = 4_000


@pytest.fixture(scope="module")
def node() -> str:
    """Node with the libraries, which `./dev test` installs. Under CI=true a missing one is a failure."""
    found = shutil.which("node")
    if found is None or not (INSTALLED / "node_modules" / "stamp").exists():
        if os.environ.get("CI") == "true":
            pytest.fail("no Node, or tests/clients is not installed: ./dev test does it with npm")
        pytest.skip("no Node, or tests/clients is not installed")
    return found


@pytest.fixture(scope="module")
def tarball(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, packed."""
    folder = tmp_path_factory.mktemp("packed")
    run(["npm", "pack", "--silent", "--pack-destination", str(folder), str(KIT)], folder)
    (packed,) = folder.glob("*.tgz")
    return packed


@pytest.fixture(scope="module")
def empty_project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with nothing but the package, which npm installs without a network."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    quiet = ["--offline", "--no-audit", "--no-fund", "--loglevel=error"]
    run(["npm", "install", *quiet, str(tarball)], folder)
    return folder


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def tsc(folder: Path, *options: str) -> None:
    run(["node", str(INSTALLED / "node_modules" / "typescript" / "bin" / "tsc"), *options], folder)


def test_the_package_installs_into_an_empty_project_and_nothing_else_with_it(empty_project: Path) -> None:
    modules = [path.name for path in (empty_project / "node_modules").iterdir() if not path.name.startswith(".")]
    assert modules == ["paythread-client"]
    package = empty_project / "node_modules" / "paythread-client"
    assert {path.name for path in package.iterdir()} == {"lib", "generated", "package.json", "README.md", "LICENSE"}
    exports = json.loads((package / "package.json").read_text())["exports"]
    targets = [file for one in exports.values() for file in (one.values() if isinstance(one, dict) else [one])]
    assert [file for file in targets if not (package / file).is_file()] == []


def test_its_types_resolve_and_its_modules_load_without_any_library(empty_project: Path) -> None:
    shutil.copy(INSTALLED / "kit" / "types.mts", empty_project)
    tsc(empty_project, "--strict", "--noEmit", "--module", "nodenext", "--lib", "es2022,dom", "types.mts")
    script = (
        'const { createLive } = await import("paythread-client"); const { shape } = await import("paythread-client/shape");'
        "console.log(JSON.stringify([typeof createLive, shape.feeds.length > 0]))"
    )
    assert json.loads(run(["node", "--input-type=module", "-e", script], empty_project)) == ["function", True]


def test_lib_is_what_the_compiler_makes_of_src(node: str, tmp_path: Path) -> None:
    for part in ("src", "generated"):
        shutil.copytree(KIT / part, tmp_path / part)
    for file in ("tsconfig.json", "package.json"):
        shutil.copy(KIT / file, tmp_path)
    link_libraries(tmp_path)
    tsc(tmp_path, "-p", ".")
    made, committed = (
        {path.name: path.read_text() for path in (folder / "lib").iterdir()} for folder in (tmp_path, KIT)
    )
    assert made == committed, "run `npm run build` in clients/ with TypeScript of tests/clients"


def link_libraries(project: Path) -> None:
    """Let a project import what tests/clients/kit depends on."""
    modules = project / "node_modules"
    modules.mkdir(exist_ok=True)
    for name in json.loads((INSTALLED / "kit" / "package.json").read_text())["dependencies"]:
        nested = INSTALLED / "kit" / "node_modules" / name
        place = modules / name
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(nested if nested.exists() else INSTALLED / "node_modules" / name)


def test_the_socket_stays_small_and_imports_nothing() -> None:
    code = (KIT / "lib" / "live.js").read_bytes()
    assert len(gzip.compress(code, 9)) <= MAX_SOCKET_BYTES
    assert b"import" not in code
