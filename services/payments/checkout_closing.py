"""Queues the closing of checkouts that must not be paid; voids.py closes them."""

from __future__ import annotations

from models.tables import CheckoutSession
from services.core import jobs


async def expire_later(session: CheckoutSession) -> None:
    """Queue the closing of a checkout in the caller's transaction."""
    await jobs.enqueue(
        "checkout.expire",
        {"session_id": str(session.id)},
        account_id=session.account_id,
        key=f"checkout.expire:{session.id}",
        again=True,
    )


async def sweep_stranded() -> None:
    """Queue the closing of checkouts that must not be paid and have no job."""
    useless = (
        "t.status IN ('OPENING', 'OPEN') AND EXISTS (SELECT 1 FROM payment_request r"
        " WHERE r.id = t.payment_request_id AND (r.status IN ('PAID', 'VOID') OR r.unresolved))"
        " AND NOT EXISTS (SELECT 1 FROM money_fact f JOIN job j ON j.key = 'mismatch.judge:' || CAST(f.id AS VARCHAR(36))"
        " WHERE f.checkout_session_id = t.id AND j.status IN ('queued', 'running'))"
    )
    for id in await jobs.without_job("checkout_session", useless, "checkout.expire:"):
        await expire_later(await CheckoutSession.get(id=id))
