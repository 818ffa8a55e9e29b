"""The sample package of a third party, installed as a folder with its dist-info."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

SAMPLE = Path(__file__).parent / "acme_pay"


def install(folder: Path) -> Path:
    """Build and install the sample below an empty folder, without a network; return the folder for the path."""
    source, site = folder / "source", folder / "site"
    shutil.copytree(SAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    offline = ["--offline", "--no-index", "--no-deps", "--no-cache", "--no-config"]
    uv = [sys.executable, "-m", "uv", "pip", "install", "-q", *offline, "--python", sys.executable]
    subprocess.run([*uv, "--target", str(site), str(source)], check=True, timeout=120)
    return site
