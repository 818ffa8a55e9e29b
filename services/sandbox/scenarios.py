"""Scripted behaviour of the sandbox vendor, by scenario."""

from __future__ import annotations

import itertools
import random
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from models import database
from models.tables import SandboxCheckout
from services.core import configuration, jobs
from services.sandbox import checkouts, fees, hosted_page, webhooks

_SENT_IN_ORDER: Final = frozenset({"REORDERED_WEBHOOKS", "REFUND", "DISPUTE_LOST", "DISPUTE_WON"})

# Scenarios of one button.
_BUTTONS: Final = {
    "DECLINED": "decline",
    "ASYNC_SUCCEEDS": "pay_later",
    "ASYNC_FAILS": "pay_later_fail",
    "VOUCHER": "voucher",
    "PAID_TWICE": "pay_twice",
}


async def play(external_id: str, scenario: str, chosen: random.Random) -> None:
    """Play a scenario on a checkout. Raises: SandboxRefusal (404, 409)."""
    async with database.transaction():
        row = await checkouts.lock(external_id)
        if row.status != ("EXPIRED" if scenario == "PAID_AFTER_VOID" else "OPEN"):
            raise checkouts.SandboxRefusal(409, "not_open", "This checkout cannot be paid any more.")
        if scenario in _BUTTONS:
            await hosted_page.press(row, _BUTTONS[scenario])
            return
        if scenario in ("SPLIT_TENDER", "PART_ONLY"):
            await _pay_part(row, chosen, rest=scenario == "SPLIT_TENDER")
            return
        events = _script_events(row, scenario, chosen)
        await checkouts.store(row)
        reported_after_s = max((after_s for after_s, _ in events), default=0)
        for payment in row.payments:
            if payment["status"] == "succeeded":
                await fees.plan(row, payment, after_s=reported_after_s, reported=bool(events))
        if scenario in _SENT_IN_ORDER:
            await webhooks.send(row, events[0][1], then=[event for _, event in events[1:]])
            return
        for copy, (after_s, event) in enumerate(events):
            await webhooks.send(row, event, after_s=after_s, copy=copy)


async def _pay_part(row: SandboxCheckout, chosen: random.Random, *, rest: bool) -> None:
    part = chosen.randint(1, max(1, row.amount_minor - 1))
    payment = checkouts.add_payment(row, "succeeded", method="Test gift card", amount_minor=part)
    await checkouts.store(row)
    await webhooks.notify(row, "checkout.paid_in_part", payment)
    await fees.plan(row, payment)
    if rest:
        await jobs.enqueue(
            "sandbox.rest",
            {"checkout": row.external_id},
            account_id=None,
            key=f"sandbox.rest:{row.external_id}",
            due_at=datetime.now(UTC) + configuration.current().sandbox_delay,
        )


@jobs.handler("sandbox.rest", on_dead="the rest of the checkout is never paid")
async def pay_rest(job: jobs.JobContext) -> None:
    async with database.transaction():
        row = await checkouts.lock(job.payload["checkout"])
        left = row.amount_minor - sum(p["amount_minor"] for p in row.payments if p["status"] == "succeeded")
        if row.status != "OPEN" or left <= 0:
            return
        payment = checkouts.add_payment(row, "succeeded", method="Test card •••• 4242", amount_minor=left)
        row.status = "COMPLETED"
        await checkouts.store(row)
        await webhooks.notify(row, "checkout.completed", payment)
        await fees.plan(row, payment)


def _script_events(row: SandboxCheckout, scenario: str, chosen: random.Random) -> list[tuple[float, dict[str, Any]]]:
    if scenario == "REORDERED_WEBHOOKS":
        return _reordered_events(row, chosen)
    payment = checkouts.add_payment(row, "succeeded", method="Test card •••• 4242")
    if scenario == "WRONG_AMOUNT":
        # Less or more, never zero.
        payment["amount_minor"] += chosen.choice([-1, 1]) * chosen.randint(1, min(500, max(1, row.amount_minor - 1)))
        payment["amount_minor"] = max(1, payment["amount_minor"])
    elif scenario == "WRONG_CURRENCY":
        payment["currency"] = chosen.choice([code for code in ("EUR", "USD", "GBP") if code != row.currency])
    row.status = "COMPLETED"
    paid = webhooks.event(row, "checkout.completed", payment)
    about = {
        "payment": payment["id"],
        "amount_minor": payment["amount_minor"],
        "currency": payment["currency"],
        "created_at": payment["created_at"],
    }
    match scenario:
        case "DUPLICATE_WEBHOOKS":
            return [(0, paid)] * chosen.randint(3, 6)
        case "DELAYED_WEBHOOK":
            return [(configuration.current().sandbox_delay.total_seconds() * chosen.uniform(2, 4), paid)]
        case "DROPPED_WEBHOOK":
            return []
        case "REFUND":
            refund_id = f"sbx_re_{row.external_id.removeprefix('sbx_co_')}_{secrets.token_hex(5)}"
            refund = {"id": refund_id, "status": "succeeded", "key": f"scenario:{refund_id}"[:80], **about}
            payment["refunds"] = [refund]
            return [(0, paid), (0, webhooks.event(row, "refund.succeeded", None, refund=refund))]
        case "DISPUTE_LOST" | "DISPUTE_WON":
            dispute = {"id": f"sbx_dp_{secrets.token_hex(10)}", "status": "needs_response", **about}
            respond_by = datetime.fromisoformat(payment["created_at"]) + timedelta(days=7)
            dispute |= {"reason": "product_not_received", "respond_by": respond_by.isoformat()}
            opened = webhooks.event(row, "dispute.opened", None, dispute=dispute)
            dispute["status"] = scenario.removeprefix("DISPUTE_").lower()
            closed = webhooks.event(row, "dispute.closed", None, dispute=dispute)
            return [(0, paid), (0, opened), (0, closed)]
    return [(0, paid)]


def _reordered_events(row: SandboxCheckout, chosen: random.Random) -> list[tuple[float, dict[str, Any]]]:
    failed = checkouts.add_payment(row, "failed", method="Test card •••• 0002", failure="card_declined")
    events = [webhooks.event(row, "checkout.payment_failed", failed)]
    payment = checkouts.add_payment(row, "pending", method="Test bank debit •••• 3000")
    row.status = "PROCESSING"
    events.append(webhooks.event(row, "checkout.processing", payment))
    payment["status"] = "succeeded"
    row.status = "COMPLETED"
    events.append(webhooks.event(row, "checkout.completed", payment))
    orders = [list(order) for order in itertools.permutations(events) if list(order) != events]
    return [(0, event) for event in chosen.choice(orders)]
