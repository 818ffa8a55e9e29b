"""An installed package passes the kit's suites, and a broken one fails them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.sample import SAMPLE

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def checks(site: Path, folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run the sample's own tests as its author does, with this repository only on the path."""
    shutil.copytree(SAMPLE / "checks", folder / "checks", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(SAMPLE / "pyproject.toml", folder)
    environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *names],
        cwd=folder,
        env={**environ, "PYTHONPATH": os.pathsep.join((str(site), str(ROOT))), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_an_installed_package_passes_both_suites_away_from_this_repository(installed: Path, tmp_path: Path) -> None:
    done = checks(installed, tmp_path)
    counted = re.search(r"^(\d+) passed in ", done.stdout, re.MULTILINE)
    assert (done.returncode, counted is not None) == (0, True), done.stdout[-3000:] + done.stderr[-1000:]
    assert counted is not None
    assert int(counted[1]) >= 95


# Mistakes one by one: test_processor_mistakes.py, test_channel_mistakes.py.
def test_an_authors_mistake_fails_the_run_and_its_test_is_named(installed: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(installed, site)
    path = site / "acme_pay" / "chat.py"
    text = path.read_text()
    assert text.count("opt_out=opt_out_word(text, by_phone=False),\n") == 1
    path.write_text(text.replace("opt_out=opt_out_word(text, by_phone=False),\n", "opt_out=None,\n"))
    done = checks(site, tmp_path, "checks/test_acme_chat.py", "-k", "consent", "-x")
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    assert "FAILED checks/test_acme_chat.py::test_words_that_withdraw_and_give_consent_count[STOP" in done.stdout
