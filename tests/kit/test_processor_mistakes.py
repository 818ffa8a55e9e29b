"""The processors' kit catches authors' mistakes, each by the named test; the correct sample passes the same tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.kit.mistakes import MISTAKES, Mistake
from tests.kit.sample import SAMPLE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = {"payments": ("AcmePay", "acme_pay"), "batches": ("AcmeBatches", "acme_batches")}  # module -> class, tests
CATCHING = {module: {one.caught_by for one in MISTAKES if one.module == module} for module in SAMPLES}
SUITE = """
import pytest
from {module} import {cls}
from integrations.kit import processors as kit
from integrations.kit.processor_harness import *
from test_{checks} import {cls}Harness

{tests}


class Planted({cls}Harness):
    processor = {cls}


@pytest.fixture
def harness():
    return Planted()
"""


def planted(mistake: Mistake) -> str:
    text = (SAMPLE / "acme_pay" / f"{mistake.module}.py").read_text()
    for old, new in mistake.changes:
        assert text.count(old) == 1, f"{mistake.name}: {old}"
        text = text.replace(old, new)
    return text


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bool]]:
    """By module: whether each test of the kit passed there, from one run of pytest."""
    folder = tmp_path_factory.mktemp("mistakes")
    shutil.copytree(SAMPLE / "checks", folder / "checks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(SAMPLE / "acme_pay", folder / "acme_pay", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SAMPLE / "pyproject.toml", folder)
    suites = {f"sound_{module}": (sorted(CATCHING[module]), f"acme_pay.{module}", module) for module in SAMPLES}
    for n, mistake in enumerate(MISTAKES):
        (folder / "acme_pay" / f"m{n:02d}.py").write_text(planted(mistake))
        suites[f"m{n:02d}"] = ([mistake.caught_by], f"acme_pay.m{n:02d}", mistake.module)
    for name, (tests, module, sample) in suites.items():
        lines = "\n".join(f"{test} = kit.{test}" for test in tests)
        cls, checks = SAMPLES[sample]
        text = SUITE.format(module=module, tests=lines, cls=cls, checks=checks)
        (folder / "checks" / f"test_{name}.py").write_text(text)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml=results.xml"),
            *(f"checks/test_{name}.py" for name in suites),
        ],
        cwd=folder,
        env={**environ, "PYTHONPATH": os.pathsep.join((".", str(ROOT))), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=170,
    )
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    results: dict[str, dict[str, bool]] = {}
    for case in ElementTree.parse(folder / "results.xml").iter("testcase"):  # noqa: S314 (pytest has just written it)
        module = case.attrib["classname"].rpartition(".test_")[2]
        name = case.attrib["name"].partition("[")[0]
        passed = not any(case.find(kind) is not None for kind in ("failure", "error", "skipped"))
        results.setdefault(module, {})[name] = passed and results.get(module, {}).get(name, True)
    return results


@pytest.mark.parametrize("module", SAMPLES)
def test_a_sound_processor_passes_every_test_that_catches_a_mistake(
    module: str, outcomes: dict[str, dict[str, bool]]
) -> None:
    assert outcomes[f"sound_{module}"] == dict.fromkeys(CATCHING[module], True)


@pytest.mark.parametrize("n", range(len(MISTAKES)), ids=lambda n: MISTAKES[n].name)
def test_the_kit_catches_an_authors_mistake(n: int, outcomes: dict[str, dict[str, bool]]) -> None:
    assert outcomes[f"m{n:02d}"] == {MISTAKES[n].caught_by: False}
