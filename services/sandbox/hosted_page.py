"""What the buttons of the sandbox vendor's hosted page do to a checkout."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from models import database
from models.tables import SandboxCheckout
from services.core import configuration, jobs
from services.sandbox import checkouts, fees, webhooks

VOUCHER_LIFE: Final = timedelta(days=3)
ACTIONS: Final = frozenset(
    {"pay", "pay_twice", "decline", "approve", "reject", "pay_later", "pay_later_fail", "voucher", "cancel"}
)


@dataclass(frozen=True, slots=True)
class Performed:
    location: str | None  # absolute URL; None: the hosted page


def declined(row: SandboxCheckout) -> bool:
    return bool(row.payments) and row.payments[-1]["status"] == "failed"


async def perform(external_id: str, action: str) -> Performed:
    """Raises: SandboxRefusal (400, 404, 409)."""
    if action not in ACTIONS:
        raise checkouts.SandboxRefusal(400, "unknown_action", "There is no such button.")
    async with database.transaction():
        row = await checkouts.lock(external_id)
        status, success, cancel = row.status, row.success_url, row.cancel_url
        if status == "OPEN" and action != "cancel":
            await press(row, action)
    # Raised outside the transaction, so that a checkout closed by `lock` stays closed.
    if action == "cancel":
        return Performed(cancel)
    if status != "OPEN":
        raise checkouts.SandboxRefusal(409, "not_open", "This checkout cannot be paid any more.")
    return Performed(None if action in ("decline", "reject") else success)


async def press(row: SandboxCheckout, action: str) -> None:
    if action in ("pay", "approve", "pay_twice"):
        first = checkouts.add_payment(row, "succeeded", method="Test card •••• 4242")
        second = (
            checkouts.add_payment(row, "succeeded", method="Test card •••• 4242") if action == "pay_twice" else None
        )
        row.status = "COMPLETED"
        await checkouts.store(row)
        for payment in (first, second):
            if payment is not None:
                await webhooks.notify(row, "checkout.completed", payment)
                await fees.plan(row, payment)
    elif action == "voucher":
        payment = checkouts.add_payment(row, "pending", method="Test voucher")
        payment["until"] = (datetime.now(UTC) + VOUCHER_LIFE).isoformat()
        row.status = "PROCESSING"
        await checkouts.store(row)
        await webhooks.notify(row, "checkout.processing", payment)
    elif action in ("pay_later", "pay_later_fail"):
        payment = checkouts.add_payment(row, "pending", method="Test bank debit •••• 3000")
        row.status = "PROCESSING"
        await checkouts.store(row)
        await webhooks.notify(row, "checkout.processing", payment)
        await jobs.enqueue(
            "sandbox.settle",
            {"checkout": row.external_id, "payment": payment["id"], "succeeds": action == "pay_later"},
            account_id=None,
            key=f"sandbox.settle:{payment['id']}",
            due_at=datetime.now(UTC) + configuration.current().sandbox_delay,
        )
    else:
        code = "card_declined" if action == "decline" else "authentication_failed"
        payment = checkouts.add_payment(row, "failed", method="Test card •••• 0002", failure=code)
        await checkouts.store(row)
        await webhooks.notify(row, "checkout.payment_failed", payment)


@jobs.handler("sandbox.settle", on_dead="the payment stays pending at the sandbox")
async def _end_delayed(job: jobs.JobContext) -> None:
    async with database.transaction():
        row = await checkouts.lock(job.payload["checkout"])
        payment = next(p for p in row.payments if p["id"] == job.payload["payment"])
        if payment["status"] != "pending":
            return
        if job.payload["succeeds"]:
            payment |= {"status": "succeeded"}
            row.status = "COMPLETED"
        else:
            payment |= {
                "status": "failed",
                "failure_code": "debit_refused",
                "failure_message": checkouts.FAILURES["debit_refused"],
            }
            row.status = "FAILED"
        await checkouts.store(row)
        await webhooks.notify(
            row, "checkout.completed" if job.payload["succeeds"] else "checkout.payment_failed", payment
        )
        if job.payload["succeeds"]:
            await fees.plan(row, payment)
