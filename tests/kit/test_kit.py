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


PAY, CHAT = "payments.py", "chat.py"
FAULTS = (
    Fault(
        "no signature check",
        PAY,
        (
            (
                "if not any(hmac.compare_digest(sign(secret, given[1], body), given[2]) for secret in self._secrets):",
                "if False:",
            ),
        ),
        "test_no_forged_webhook_is_accepted",
    ),
    Fault(
        "a webhook is good for ever",
        PAY,
        (("if abs(now.timestamp() - int(given[1])) > TOLERANCE_S:", "if False:"),),
        "test_a_webhook_is_good_for_300_seconds_either_way",
    ),
    Fault(
        "every currency has cents",
        PAY,
        (("Decimal(total).scaleb(DECIMALS[currency])", "Decimal(total).scaleb(2)"),),
        "test_the_smallest_amount_of_a_currency_can_be_asked_and_comes_back_exact",
    ),
    Fault(
        "a new key for each call",
        PAY,
        (('{"idempotency-key": key}', '{"idempotency-key": f"{key}{id(body)}{asyncio.get_running_loop().time()}"}'),),
        "test_the_same_key_gives_the_same_checkout",
    ),
    Fault(
        "a refund above the rest becomes a smaller one",
        PAY,
        (('"currency": order.currency}\n', '"currency": order.currency, "at_most": True}\n'),),
        "test_more_than_what_is_left_is_refused_for_good",
    ),
    Fault(
        "a lost answer counts as a plain failure",
        PAY,
        (('"timeout", retryable=True, ambiguous=not reading', '"timeout", retryable=True'),),
        "test_a_lost_answer_is_ambiguous_and_the_key_finds_the_checkout",
    ),
    Fault(
        "a vendor's exception gets out",
        PAY,
        (("except (TimeoutError, httpx2.HTTPError) as error:", "except ZeroDivisionError as error:"),),
        "test_a_failed_read_is_never_ambiguous",
    ),
    Fault(
        "what can't be canceled counts as canceled",
        PAY,
        (
            (
                "return await self.read_checkout(external_id)\n",
                "return Checkout(external_id=external_id, status=STATUS['canceled'])\n",
            ),
        ),
        "test_expiring_too_late_tells_what_won",
    ),
    Fault(
        "a rate limit is for good",
        PAY,
        (('429: ("rate_limited", True)', '429: ("rate_limited", False)'),),
        "test_a_rate_limit_may_be_retried_and_made_nothing",
    ),
    Fault(
        "the key is shown",
        PAY,
        (("api_key: str = field(repr=False)", "api_key: str"),),
        "test_credentials_do_not_show_their_secrets",
    ),
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
    module = "test_acme_pay.py" if fault.file == PAY else "test_acme_chat.py"
    done = checks(site, tmp_path, f"checks/{module}", "-k", fault.caught_by, "-x")
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-1000:]
    assert f"FAILED checks/{module}::{fault.caught_by}" in done.stdout
