"""The README's tour runs against the demo and ends with a card that turns Paid in a subscription, and a second card."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.flows import harness

ROOT = Path(__file__).resolve().parents[2]


def tour() -> str:
    text = (ROOT / "README.md").read_text()
    found = re.search(r"<!-- tour:begin.*?-->\n```bash\n(.*?)```\n<!-- tour:end -->", text, re.S)
    assert found is not None
    return found[1]


@pytest.mark.slow
async def test_the_tour_of_the_readme_turns_the_card_paid(tmp_path: Path) -> None:
    database_url = f"sqlite:///{tmp_path}/demo.db"
    async with harness.process(database_url, "memory://", arguments=("--demo",), ENVIRONMENT="development") as (
        product,
        _,
    ):
        script = tour().replace("http://localhost:8000", product.base_url)
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        output, _ = await asyncio.wait_for(shell.communicate(), 60)
    printed = output.decode()
    lines = printed.splitlines()
    assert "the link answers 200" in printed
    first = next(n for n, line in enumerate(lines) if '"kind":"PAYMENT_REQUEST"' in line)
    second = next(n for n, line in enumerate(lines) if '"kind":"PAYMENT_RECEIVED"' in line)
    assert first < second
    # An event shows the request's state at delivery: on a slow machine an early one may already be PAID.
    assert any('"PaymentRequestUpdated"' in line and '"PAID"' in line for line in lines)
    assert '"status":"PAID","amountPaid":{"formatted":"$120.00"},"payments":[{"status":"SUCCEEDED"' in printed
