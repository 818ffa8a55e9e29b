"""The repository's files: locks, image, ./dev. The tests read files and build nothing."""

import ast
import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from settings import Settings

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
RUNTIME_LOCK = ROOT / "requirements.runtime.lock"

# Written in parts, so that this file does not match its own patterns.
REGISTRY = re.compile(r"(pypi|pythonhosted|registry\.npmjs|deb\.debian)" + r"\.org", re.IGNORECASE)
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(root|work|home/[a-z]+|Users/[a-z]+)" + "/[a-z.]")


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def _pins(lock: Path) -> dict[str, list[str]]:
    """Each requirement (name==version) with its hash lines."""
    pins: dict[str, list[str]] = {}
    for line in lock.read_text().splitlines():
        if line.startswith(" "):
            pins[next(reversed(pins))].append(line.strip())
        else:
            pins[line.split(" ")[0]] = []
    return pins


def _project() -> dict[str, list[str]]:
    """The requirements of the program and of development, without markers."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    named = {"program": content["project"]["dependencies"], "development": content["dependency-groups"]["dev"]}
    return {group: [re.sub(r"\[.*?\]|;.*", "", one).strip() for one in found] for group, found in named.items()}


def test_no_tracked_file_names_a_registry_or_a_path_of_a_machine() -> None:
    found = []
    for path in _tracked():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            found += [
                f"{path.relative_to(ROOT)}:{number}: {match[0]}"
                for pattern in (REGISTRY, MACHINE_PATH)
                for match in pattern.finditer(line)
            ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (REGISTRY, "https://files.pythonhosted" + ".org/packages"),
        (REGISTRY, "https://registry.npmjs" + ".org/react"),
        (MACHINE_PATH, "open('" + "/root" + "/.npmrc')"),
        (MACHINE_PATH, "see " + "/home" + "/someone/paythread"),
    ],
)
def test_the_search_finds_what_it_is_for(pattern: re.Pattern[str], line: str) -> None:
    assert pattern.search(line)


@pytest.mark.parametrize("lock", [LOCK, RUNTIME_LOCK], ids=lambda path: path.name)
def test_each_package_of_a_lock_has_hashes_and_no_address(lock: Path) -> None:
    pins = _pins(lock)
    assert len(pins) > 50
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9.-]+==[\w.+!]+", pin)] == []
    without_hash = [pin for pin, lines in pins.items() if not lines]
    assert without_hash == []
    strange = [
        line for lines in pins.values() for line in lines if not re.fullmatch(r"--hash=sha256:\w{64}( \\)?", line)
    ]
    assert strange == []


def test_the_locks_hold_what_the_project_pins() -> None:
    project = _project()
    exact = {group: {one for one in found if "==" in one} for group, found in project.items()}
    assert exact["program"] - _pins(RUNTIME_LOCK).keys() == set()
    assert (exact["program"] | exact["development"]) - _pins(LOCK).keys() == set()
    # An unpinned tool may judge the same code differently tomorrow.
    assert [one for one in project["development"] if "==" not in one] == []


def test_the_image_installs_the_tested_versions_and_no_development_tool() -> None:
    runtime = _pins(RUNTIME_LOCK).keys()
    assert runtime - _pins(LOCK).keys() == set()
    assert {one.split("==")[0] for one in runtime} & {one.split("==")[0] for one in _project()["development"]} == set()


@pytest.mark.parametrize("folder", ["inbox", "tests/clients", "tests/lint"])
def test_the_npm_lock_pins_exactly_and_holds_no_address(folder: str) -> None:
    text = (ROOT / folder / "package-lock.json").read_text()
    locked = json.loads(text)["packages"]
    assert "://" not in text
    own = ["", *json.loads((ROOT / folder / "package.json").read_text()).get("workspaces", [])]
    for place in own:
        wanted = json.loads((ROOT / folder / place / "package.json").read_text())["dependencies"]
        for name, version in wanted.items():
            # Next to its workspace only where another version has the common place.
            nested, common = f"{place}/node_modules/{name}", f"node_modules/{name}"
            assert locked.get(nested, locked.get(common))["version"] == version
    links = {f"node_modules/{name}": {"resolved": name, "link": True} for name in own if name}
    assert {name: package for name, package in locked.items() if "resolved" in package} == links
    fetched = locked.keys() - links.keys() - set(own)
    assert [name for name in fetched if "integrity" not in locked[name]] == []


def test_dev_needs_nothing_but_the_standard_library() -> None:
    imported = set()
    for node in ast.walk(ast.parse((ROOT / "dev").read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported - sys.stdlib_module_names - {"__future__"} == set()


def test_an_older_python_can_read_dev_to_the_line_that_refuses_it() -> None:
    ast.parse((ROOT / "dev").read_text(), feature_version=(3, 8))


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["help"], 0), (["no-such-command"], 2), (["fmt", "x"], 2)])
def test_dev_explains_itself(arguments: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "dev", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "./dev test [options]" in done.stdout
    assert "./dev test --quick" in done.stdout


@pytest.mark.parametrize(
    ("options", "selected"),
    [
        ([], True),
        (["-x", "-k", "models"], True),
        (["tests/tooling"], False),
        (["tests/tooling/test_repository.py::test_dev_explains_itself"], False),
        (["-k", "tooling", "tests"], False),
    ],
)
def test_dev_runs_the_browser_unless_other_tests_are_named(options: list[str], *, selected: bool) -> None:
    dev = runpy.run_path(str(ROOT / "dev"))
    assert dev["_selects_browser_tests"](options) is selected


def test_check_names_its_steps_when_asked_for_another() -> None:
    done = subprocess.run(
        [sys.executable, "dev", "check", "no-such-step"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "check has no step no-such-step; it has ruff, format, mypy, " in done.stdout


def test_the_programs_that_ci_starts_are_executable() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-s", "dev", ".ci/run"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["100755", "100755"]


def test_the_image_gets_every_room_and_only_what_runs() -> None:
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    rooms = content["tool"]["importlinter"]["root_packages"]
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    assert kept == {*rooms, "app.py", "cli.py", "settings.py", "LICENSE", "inbox", RUNTIME_LOCK.name}


def test_the_image_does_not_run_as_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    assert [line for line in last_stage if line.startswith("USER ")] == ["USER paythread"]
    assert last_stage[-1] == 'CMD ["python", "cli.py", "serve"]'


def test_compose_sets_only_settings_that_exist() -> None:
    text = (ROOT / "compose.yaml").read_text()
    shared = text[text.index("x-environment:") : text.index("services:")]
    names = set(re.findall(r"^  ([A-Z_]+): ", shared, re.MULTILINE)) | {"RUN_JOBS"}
    assert {"DATABASE_URL", "EVENTS_URL", "PUBLIC_URL", "SECRET_KEYS", "ENVIRONMENT"} <= names
    assert names - {name.upper() for name in Settings.model_fields} == set()
    assert re.search(r"^      RUN_JOBS: ", text, re.MULTILINE)


def test_compose_has_the_five_services_and_time_to_stop() -> None:
    text = (ROOT / "compose.yaml").read_text()
    services = re.findall(r"^  (\w+):$", text[text.index("services:") : text.index("\nvolumes:")], re.MULTILINE)
    assert services == ["migrate", "app", "worker", "postgres", "redis"]
    assert text.count("<<: *paythread") == 3
    assert "stop_grace_period: 30s" in text[: text.index("services:")]


def test_compose_for_many_processes_fits_the_other_file_and_the_settings() -> None:
    text = (ROOT / "compose.scale.yaml").read_text()
    services = re.findall(r"^  (\w+):$", text[text.index("services:") :], re.MULTILINE)
    assert services == ["app", "worker", "balancer"]
    names = set(re.findall(r"^      ([A-Z_]+): ", text, re.MULTILINE))
    assert names == {"TRUST_PROXY", "SHUTDOWN_DRAIN_S"}
    assert names <= {name.upper() for name in Settings.model_fields}
    assert text.count("replicas: 2") == 2
    # Both balancers differ only in how they find the servers.
    direct, docker = ((ROOT / "docs/howto" / name).read_text() for name in ("haproxy.cfg", "haproxy.compose.cfg"))
    for line in direct.splitlines():
        assert line in docker or line.startswith(("#", "    server "))
