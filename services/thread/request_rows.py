"""Locks a payment request's row, and marks it sent or void. For messages and payments alike."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from tortoise.exceptions import DoesNotExist

from models import database, errors, rows
from models.ledger import CardKind, Status
from models.tables import ActivityCard, PaymentRequest
from services.core.unit_of_work import Change
from services.thread import activity_cards

SENT_COLUMNS: Final = ("status", "sent_at", "sent_via")
VOID_COLUMNS: Final = ("status", "voided_at", "released_at")


async def lock(account_id: UUID, request_id: UUID) -> PaymentRequest:
    """Lock and read the row again, also of a discarded request.

    Raises: DoesNotExist.
    """
    found = await rows.first(PaymentRequest, "WHERE id = ? AND account_id = ?", request_id, account_id, lock=True)
    if found is None:
        raise DoesNotExist(PaymentRequest)
    return found


async def lock_visible(account_id: UUID, request_id: UUID) -> PaymentRequest:
    """Lock a request that a client named.

    Raises: NotFound (also if discarded).
    """
    found = await lock_all(account_id, [request_id])
    if not found:
        raise errors.NotFound(field="paymentRequestId")
    return found[0]


async def lock_all(account_id: UUID, request_ids: Sequence[UUID]) -> list[PaymentRequest]:
    """Lock rows in the order of their ids, without discarded requests."""
    if not request_ids:
        return []
    visible = f"WHERE id IN ({database.placeholders(len(request_ids))}) AND account_id = ? AND discarded_at IS NULL"
    return await rows.find(PaymentRequest, f"{visible} ORDER BY id", *request_ids, account_id, lock=True)


async def mark_sent(
    changed: Change, request: PaymentRequest, *, via: str, message_id: UUID | None = None
) -> ActivityCard | None:
    """Mark a locked request as sent; the caller saves SENT_COLUMNS. `via`: MESSAGE or LINK_COPIED."""
    request.sent_at, request.sent_via = changed.now, via
    if request.status == Status.DRAFT:
        request.status = Status.SENT.value
    return await changed.log_card(
        request,
        CardKind.PAYMENT_REQUEST,
        text=activity_cards.asked(request, await changed.locale()),
        key=str(request.id),
        message_id=message_id,
    )


def mark_void(request: PaymentRequest, now: datetime) -> None:
    """Mark a locked request as void; the caller saves VOID_COLUMNS."""
    request.status = Status.VOID.value
    request.voided_at = now
    request.released_at = None  # a payment that is still under way would be late
