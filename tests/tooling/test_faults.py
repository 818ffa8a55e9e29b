"""The seeded faults: each still applies to the current code. `./dev faults` shows that each is caught."""

from pathlib import Path

import pytest

from tests.faults.seeded import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "jobs",
    "money",
    "transaction",
    "capture",
    "checkout",
    "refunds",
    "log",
    "merging",
    "messages",
    "security",
    "lists",
    "views",
    "team",
    "client kit",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault_applies_exactly_once_and_breaks_no_syntax(fault: Fault) -> None:
    text = (ROOT / fault.path).read_text()
    patched = fault.applied(text)
    assert patched != text
    compile(patched, fault.path, "exec")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_tests_of_each_fault_are_there(fault: Fault) -> None:
    assert fault.tests
    assert [name for name in fault.tests if not (ROOT / name.partition("::")[0]).is_file()] == []


def test_every_kind_of_promise_has_its_faults_under_names_of_their_own() -> None:
    assert {fault.kind for fault in FAULTS} == KINDS
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 25


def test_a_patch_whose_text_is_gone_or_ambiguous_is_an_error() -> None:
    fault = Fault("money", "x", "y.py", (("a", "b"),), ("tests",))
    assert fault.applied("-a-") == "-b-"
    for text in ("", "aa"):
        with pytest.raises(ValueError, match="times in y"):
            fault.applied(text)
