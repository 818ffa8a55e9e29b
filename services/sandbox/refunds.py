"""The sandbox vendor's API for refunds."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Any

from models import database
from models.tables import ProcessorConnection
from services.sandbox import checkouts, webhooks

_REFUND_ID = re.compile(r"sbx_re_([0-9a-f]{32})_[0-9a-f]{10}", re.ASCII)  # with the checkout's digits


async def refund(connection: ProcessorConnection, external_id: str, key: str | None, order: Any) -> dict[str, Any]:
    """Refund a payment or part of it; the same `key` returns the refund again.

    `order`: {payment, amount_minor}. Raises: SandboxRefusal (400, 404, 409).
    """
    if not key or len(key) > 80:
        raise checkouts.SandboxRefusal(400, "idempotency_key_missing", "Send an Idempotency-Key of 1 to 80 characters.")
    amount = order.get("amount_minor") if isinstance(order, dict) else None
    if type(amount) is not int or amount <= 0:
        raise checkouts.SandboxRefusal(400, "invalid_request", "amount_minor is missing or not valid.")
    async with database.transaction():
        row = await checkouts.lock(external_id, connection.id)
        payment = next((p for p in row.payments if p["id"] == order.get("payment")), None)
        if payment is None:
            raise checkouts.SandboxRefusal(404, "not_found", "There is no such payment.")
        refunds: list[dict[str, Any]] = payment.setdefault("refunds", [])
        known = next((r for r in refunds if r["key"] == key), None)
        if known is not None:
            if known["amount_minor"] != amount:
                raise checkouts.SandboxRefusal(409, "idempotency_conflict", "This key was used with another refund.")
            return known
        if payment["status"] != "succeeded":
            raise checkouts.SandboxRefusal(409, "not_paid", "There is no money to refund.")
        if sum(r["amount_minor"] for r in refunds) + amount > payment["amount_minor"]:
            raise checkouts.SandboxRefusal(
                409, "amount_too_large", "The amount is more than what is left of the payment."
            )
        made = {
            "id": f"sbx_re_{external_id.removeprefix('sbx_co_')}_{secrets.token_hex(5)}",
            "status": "succeeded",
            "payment": payment["id"],
            "amount_minor": amount,
            "currency": payment["currency"],
            "key": key,
            "created_at": datetime.now(UTC).isoformat(),
        }
        refunds.append(made)
        await checkouts.store(row)
        await webhooks.notify(row, "refund.succeeded", None, refund=made)
        return made


async def read_refund(connection: ProcessorConnection, refund_id: str) -> dict[str, Any]:
    """Raises: SandboxRefusal (404)."""
    match = _REFUND_ID.fullmatch(refund_id)
    async with database.transaction():
        row = await checkouts.lock(f"sbx_co_{match[1]}" if match else "", connection.id)
        for refund in (refund for payment in row.payments for refund in payment.get("refunds", ())):
            if refund["id"] == refund_id:
                return dict(refund)
    raise checkouts.SandboxRefusal(404, "not_found", "There is no such refund.")
