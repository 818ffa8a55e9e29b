"""The sandbox vendor's fees, known some seconds after their payment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from models import database
from models.tables import SandboxCheckout
from services.core import configuration, jobs
from services.sandbox import checkouts, webhooks


def fee_of(amount_minor: int) -> int:
    """2.9 % (half a unit rounds up) and 30 minor units, at most the amount."""
    return min(amount_minor, (amount_minor * 29 + 500) // 1000 + 30)


async def plan(row: SandboxCheckout, payment: dict[str, Any], *, after_s: float = 0, reported: bool = True) -> None:
    await jobs.enqueue(
        "sandbox.fee",
        {"checkout": row.external_id, "payment": payment["id"], "told": reported},
        account_id=None,
        key=f"sandbox.fee:{payment['id']}",
        due_at=datetime.now(UTC) + timedelta(seconds=after_s) + configuration.current().sandbox_delay,
    )


@jobs.handler("sandbox.fee", on_dead="the fee stays unknown at the sandbox")
async def charge_fee(job: jobs.JobContext) -> None:
    async with database.transaction():
        row = await checkouts.lock(job.payload["checkout"])
        payment = next(p for p in row.payments if p["id"] == job.payload["payment"])
        if payment.get("fee_minor") is not None:
            return
        payment["fee_minor"] = fee_of(payment["amount_minor"])
        await checkouts.store(row)
        if job.payload["told"]:
            await webhooks.notify(row, "payment.fee_charged", payment)
