"""The kit: an installed package passes the suites, and whatever is broken in it makes them fail."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.sample import SAMPLE

ROOT = Path(__file__).resolve().parents[2]


def checks(site: Path, folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run the sample's own tests as its author does: away from this repository, which is only on the path."""
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
    assert int(counted[1]) >= 68


@dataclass(frozen=True)
class Fault:
    """One mistake of an author, and the test that must not let it pass."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    caught_by: str


CHAT = "chat.py"
FAULTS = (
    Fault(
        "callbacks are not verified",
        CHAT,
        (("if not hmac.compare_digest(", "if False and not hmac.compare_digest("),),
        "test_unsigned_and_forged_requests_are_refused",
    ),
    Fault(
        "a send without an answer may be repeated",
        CHAT,
        (('"timeout", retryable=reading, ambiguous=not reading', '"timeout", retryable=True'),),
        "test_a_lost_answer_is_ambiguous_and_its_message_is_found_again",
    ),
    Fault(
        "a text that is too long is cut",
        CHAT,
        (
            ('"text": message.body,', '"text": message.body[:LONGEST],'),
            ("if len(message.body) > LONGEST:", "if False:"),
        ),
        "test_a_text_at_the_limit_is_taken_and_one_more_is_refused_whole",
    ),
    Fault(
        "STOP is a text as any other",
        CHAT,
        (("opt_out=opt_out_word(text)", "opt_out=None"),),
        "test_an_inbound_message_is_read_with_its_consent",
    ),
    Fault(
        "signed nonsense is a bug",
        CHAT,
        (("except (KeyError, TypeError, ValueError, AttributeError) as error:", "except ZeroDivisionError as error:"),),
        "test_a_signed_request_outside_the_contract_is_not_taken",
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_suites_catch_an_authors_mistake(fault: Fault, installed: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(installed, site)
    path = site / "acme_pay" / fault.file
    text = path.read_text()
    for old, new in fault.changes:
        assert text.count(old) == 1
        text = text.replace(old, new)
    path.write_text(text)
    module = "test_acme_chat.py"
    done = checks(site, tmp_path, f"checks/{module}", "-k", fault.caught_by, "-x")
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    assert f"FAILED checks/{module}::{fault.caught_by}" in done.stdout
