"""The sample package, installed as pip or uv would do it, beside this environment; its own tests are run by ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "acme_pay"
collect_ignore = ["acme_pay"]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the sample as an installer leaves it, with its dist-info; to be put on a path."""
    source = tmp_path_factory.mktemp("source") / "acme_pay"
    shutil.copytree(SAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    site = tmp_path_factory.mktemp("site")
    offline = ["--offline", "--no-index", "--no-deps", "--no-cache", "--no-config"]
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", *offline, "--python", sys.executable]
    subprocess.run([*install, "--target", str(site), str(source)], check=True, timeout=120)
    return site
