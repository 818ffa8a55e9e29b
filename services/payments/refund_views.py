"""Refunds as the API shows them: those that the team asks for, and those that a processor begins by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from models import database, rows
from models.database import to_uuid
from models.tables import Refund
from services.core import actors
from services.core.actors import ActorRef
from services.payments import payment_views, refund_outcomes
from services.payments.payment_views import PaymentView


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundView:
    """`id`: of the stored refund; of one that a processor began, its payment's."""

    id: UUID
    payment_request_id: UUID
    status: str
    amount_minor: int
    currency: str
    reason: str | None  # None: a processor began it
    requested_by: ActorRef
    created_at: datetime
    failure_message: str | None
    charge: PaymentView | None  # None: unknown
    payment: PaymentView | None  # None: the processor has not reported it yet


async def of_requests(account_id: UUID, payments: Mapping[UUID, Sequence[PaymentView]]) -> dict[UUID, list[RefundView]]:
    """The refunds of each request, oldest first. `payments`: of the same requests."""
    found: dict[UUID, list[RefundView]] = {request_id: [] for request_id in payments}
    if not found:
        return found
    stored: dict[UUID, list[Refund]] = {request_id: [] for request_id in payments}
    of_these = f"WHERE {database.OF_ACCOUNT} AND payment_request_id IN ({database.placeholders(len(payments))})"
    for row in await rows.find(Refund, f"{of_these} ORDER BY id", account_id, *payments):
        stored[row.payment_request_id].append(row)
    begun: list[tuple[Sequence[PaymentView], PaymentView]] = []
    for request_id, views in payments.items():
        payment_of = _matched(stored[request_id], views)
        taken = {view.id for view in payment_of.values()}
        found[request_id] = [_of_row(row, views, payment_of.get(row.id)) for row in stored[request_id]]
        begun += [(views, view) for view in views if view.kind == "REFUND" and view.id not in taken]
    names = await _processor_names(account_id, {view.connection_id for _, view in begun})
    for views, view in begun:
        found[view.payment_request_id].append(_of_payment(view, views, names))
    for refunds in found.values():
        refunds.sort(key=lambda refund: (refund.created_at, refund.id))
    return found


def _matched(stored: Sequence[Refund], views: Sequence[PaymentView]) -> dict[UUID, PaymentView]:
    """By stored refund: its payment."""
    free = {(view.connection_id, view.processor_reference): view for view in views if view.kind == "REFUND"}
    found: dict[UUID, PaymentView] = {}
    for row in stored:
        if row.external_id is not None and (row.processor_connection_id, row.external_id) in free:
            found[row.id] = free.pop((row.processor_connection_id, row.external_id))
    # A webhook may report a refund before the response that names its id is stored. It is the same one, not another.
    for row in stored:
        if row.id not in found and row.external_id is None and row.status in refund_outcomes.UNDECIDED:
            fitting = [key for key, view in free.items() if _may_be_of(row, view)]
            if fitting:
                found[row.id] = free.pop(min(fitting, key=lambda key: free[key].id))
    return found


def _may_be_of(row: Refund, view: PaymentView) -> bool:
    same = (view.connection_id, view.charge_reference, view.amount_minor, view.currency)
    wanted = (row.processor_connection_id, row.charge_external_id, row.amount_minor, row.currency)
    return same == wanted and view.id > row.id


def _of_row(row: Refund, views: Sequence[PaymentView], payment: PaymentView | None) -> RefundView:
    status = payment.status if payment is not None else row.status
    why = payment.failure_message if payment is not None else None
    return RefundView(
        id=row.id,
        payment_request_id=row.payment_request_id,
        status=status,
        amount_minor=row.amount_minor,
        currency=row.currency,
        reason=row.reason,
        requested_by=actors.of_refund(row.requested_by, row.requested_by_id),
        created_at=row.created_at,
        failure_message=(why or row.failure_reason) if status in ("FAILED", "CANCELED") else None,
        charge=next((view for view in views if view.id == row.money_fact_id), None),
        payment=payment,
    )


def _of_payment(view: PaymentView, views: Sequence[PaymentView], names: Mapping[UUID, str]) -> RefundView:
    name = names.get(view.connection_id) if view.connection_id is not None else None
    return RefundView(
        id=view.id,
        payment_request_id=view.payment_request_id,
        status=view.status,
        amount_minor=view.amount_minor,
        currency=view.currency,
        reason=None,
        requested_by=actors.processor(name or view.processor or actors.UNKNOWN_NAME),
        created_at=view.occurred_at,
        failure_message=view.failure_message,
        charge=payment_views.charge_of(view, views),
        payment=view,
    )


async def _processor_names(account_id: UUID, ids: set[UUID | None]) -> dict[UUID, str]:
    wanted = sorted(id for id in ids if id is not None)
    if not wanted:
        return {}
    within, values = database.among("id", wanted)
    sql = f"SELECT id, display_name FROM processor_connection WHERE {database.OF_ACCOUNT} AND {within}"  # noqa: S608 (only constants are put in)
    return {to_uuid(id): name for id, name in await database.records(sql, account_id, values)}
