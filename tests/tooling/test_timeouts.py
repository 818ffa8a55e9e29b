"""A test that hangs fails after the timeout in pyproject.toml, and the tests after it still run."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]

HANGING = """
import asyncio
import threading

async def test_awaits_for_ever():
    await asyncio.Event().wait()

def test_blocks_for_ever():
    threading.Event().wait()

def test_after_them():
    pass
"""


def test_a_test_that_hangs_fails_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert 60 <= configured["timeout"] <= 300
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    (tmp_path / "test_hanging.py").write_text(HANGING)
    arguments = [
        "-c",
        str(ROOT / "pyproject.toml"),
        "--rootdir",
        str(tmp_path),
        "-p",
        "no:cacheprovider",
        "-o",
        "timeout=1",
    ]
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "2 failed, 1 passed" in ran.stdout, ran.stdout + ran.stderr
    assert ran.stdout.count("Timeout (>1.0s) from pytest-timeout") >= 2
