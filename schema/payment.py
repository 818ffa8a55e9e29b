"""Movements of money, and disputes about them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Self

import strawberry

from models.ids import public_id
from models.ledger import dispute_state
from schema import reasons
from schema.actor import Actor, actor_of
from schema.connections import CONTACT_PAYMENTS, Slice
from schema.context import Info, event_cursor
from schema.describe import field
from schema.merged_contact import MergedContact
from schema.reasons import DisputeReason
from schema.scalars import (
    Cursor,
    DisputeState,
    Money,
    Node,
    PageInfo,
    PaymentKind,
    PaymentStatus,
    ProcessorKind,
    RefundReason,
    RefundStatus,
    money,
)
from services.payments import payment_views
from services.payments.payment_views import PaymentView
from services.payments.refund_views import RefundView


@strawberry.type(description="One movement of money: an entry of the append-only ledger.")
class Payment(Node):
    view: strawberry.Private[PaymentView]
    kind: PaymentKind = strawberry.field(description="What moved.")
    status: PaymentStatus = strawberry.field(description="Its status.")
    amount: Money = strawberry.field(description="The amount.")
    counted: bool = strawberry.field(
        description=(
            "Whether it counts for its request: in amountPaid, or after VOID in late. A charge counts if it"
            " equals what its checkout asked for, alone or with others on the same checkout (such as gift card"
            " and card), or if the team accepted it (resolveMismatch); otherwise it is unresolved. For a refund"
            " or a dispute: whether its charge counts."
        )
    )
    fee: Money | None = strawberry.field(
        description="The processor's fee (Paythread adds none); null: not reported yet."
    )
    net: Money | None = strawberry.field(description="Amount less fee; null while the fee is unknown.")
    processor_kind: ProcessorKind | None = strawberry.field(
        description="The processor that moved it; null: recorded manually."
    )
    processor_reference: str | None = strawberry.field(
        description="The money's id at the processor; null: recorded manually."
    )
    method_summary: str | None = strawberry.field(
        description="How it was paid, e.g. Visa •••• 4242; null: not reported."
    )
    failure_message: str | None = strawberry.field(description="Why it failed, for the team; null: it did not.")
    note: str | None = strawberry.field(description="The note of a manually recorded payment; null: none.")
    created_at: datetime = strawberry.field(description="When the money moved, as the processor or its recorder says.")

    @classmethod
    def from_view(cls, view: PaymentView) -> Self:
        fee = view.fee_minor
        return cls(
            id=strawberry.ID(public_id("pay", view.id)),
            view=view,
            kind=PaymentKind[view.kind],
            status=PaymentStatus[view.status],
            amount=money(view.amount_minor, view.currency),
            counted=view.counted,
            fee=money(fee, view.currency) if fee is not None else None,
            net=money(view.amount_minor - fee, view.currency) if fee is not None else None,
            processor_kind=_processor_kind(view.processor) if view.processor is not None else None,
            processor_reference=view.processor_reference if view.processor is not None else None,
            method_summary=view.method_summary,
            failure_message=view.failure_message,
            note=view.note,
            created_at=view.occurred_at,
        )

    @field("For a refund or a dispute: its charge. Null: it is a charge, or its charge is unknown.")
    async def charge(self, info: Info) -> Payment | None:
        if self.view.kind == "CHARGE" or self.view.charge_reference is None:
            return None
        payments = await info.context.reads.payments(self.view.payment_request_id)
        found = payment_views.charge_of(self.view, payments)
        return Payment.from_view(found) if found is not None else None

    @field("Who recorded it manually; null: a processor reported it.")
    async def recorded_by(self, info: Info) -> Actor | None:
        return await actor_of(info, self.view.recorded_by)

    @field(
        "The contact that was asked for it, if that contact has been merged into another (mergeContacts);"
        " otherwise null."
    )
    async def merged_from(self, info: Info) -> MergedContact | None:
        row = await info.context.reads.merged_contact(self.view.contact_id)
        return MergedContact.from_row(row) if row is not None else None

    @field(
        "For a charge: the amount that refundPayment can still refund. Refunds under way and disputes that are"
        " not won are already subtracted. Null: it is not a charge."
    )
    async def refundable(self, info: Info) -> Money | None:
        if self.view.kind != "CHARGE":
            return None
        left = await info.context.reads.refundable(self.view.payment_request_id)
        return money(left.get(self.view.id, 0), self.view.currency)


def _processor_kind(name: str) -> ProcessorKind:
    return ProcessorKind.__members__.get(name.upper(), ProcessorKind.CUSTOM)


@strawberry.type(description="A refund, from the moment it is requested. PaymentRequestUpdated reports its changes.")
class Refund(Node):
    view: strawberry.Private[RefundView]
    status: RefundStatus = strawberry.field(description="Its status.")
    amount: Money = strawberry.field(description="The amount.")
    reason: RefundReason | None = strawberry.field(
        description="Why it was requested; null: it began at the processor, which names no reason."
    )
    created_at: datetime = strawberry.field(
        description="When it was requested, or when the processor says that it began."
    )
    failure_message: str | None = strawberry.field(description="Why it failed, for the team; null: it did not.")

    @classmethod
    def from_view(cls, view: RefundView) -> Self:
        return cls(
            id=strawberry.ID(public_id("rfd", view.id)),
            view=view,
            status=RefundStatus[view.status],
            amount=money(view.amount_minor, view.currency),
            reason=RefundReason[view.reason] if view.reason is not None else None,
            created_at=view.created_at,
            failure_message=view.failure_message,
        )

    @field("Who requested it; for one that began at the processor, the processor.")
    async def requested_by(self, info: Info) -> Actor | None:
        return await actor_of(info, self.view.requested_by)

    @field("The payment that it refunds; null: the processor has reported the refund, but not that payment.")
    def charge(self) -> Payment | None:
        return Payment.from_view(self.view.charge) if self.view.charge is not None else None

    @field("Its movement of money in the ledger; null: the processor has not reported it yet.")
    def payment(self) -> Payment | None:
        return Payment.from_view(self.view.payment) if self.view.payment is not None else None


@strawberry.type(
    description="A dispute (chargeback) at the processor, as it last reported it. PaymentRequestUpdated reports changes."
)
class Dispute(Node):
    view: strawberry.Private[PaymentView]
    state: DisputeState = strawberry.field(description="Its state.")
    amount: Money = strawberry.field(description="The disputed amount.")
    is_inquiry: bool = strawberry.field(
        description="Whether it is an inquiry: the bank has taken nothing yet, and a refund closes it."
    )
    reason: DisputeReason | None = strawberry.field(description="Why; null: the processor gives no reason.")
    processor_reason: str | None = strawberry.field(
        description="The processor's own code, such as product_not_received; null: none given."
    )
    response_due_at: datetime | None = strawberry.field(
        description="Deadline for the business's answer; null: no answer is requested, or it is decided."
    )
    opened_at: datetime = strawberry.field(description="When it was opened.")
    closed_at: datetime | None = strawberry.field(description="When it was decided; null: it is open.")

    @classmethod
    def from_view(cls, view: PaymentView) -> Self:
        return cls(
            id=strawberry.ID(public_id("dsp", view.id)),
            view=view,
            state=DisputeState[dispute_state(view.status)],
            amount=money(view.amount_minor, view.currency),
            is_inquiry=view.inquiry,
            reason=reasons.of_dispute(view.dispute_reason),
            processor_reason=view.dispute_reason,
            response_due_at=view.response_due_at,
            opened_at=view.occurred_at,
            closed_at=view.last_at if view.status != "PENDING" else None,
        )

    @field("The payment that it disputes; null: the processor has not reported that payment.")
    async def charge(self, info: Info) -> Payment | None:
        payments = await info.context.reads.payments(self.view.payment_request_id)
        found = payment_views.charge_of(self.view, payments)
        return Payment.from_view(found) if found is not None else None

    @field("Its movement of money in the ledger.")
    def payment(self) -> Payment:
        return Payment.from_view(self.view)


@strawberry.type(description="A payment in a list.")
class PaymentEdge:
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    node: Payment = strawberry.field(description="The payment.")


@strawberry.type(description="Payments in the order in which they were recorded, newest first.")
class PaymentConnection:
    count: strawberry.Private[Callable[[], Awaitable[int | None]]]
    edges: list[PaymentEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[Payment] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field("How many there are. Counted up to 10,000; null: more.")
    async def total_count(self) -> int | None:
        return await self.count()

    @field("Position in the event log, read before the data: pass it to contactPaymentEvents(after:).")
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)

    @classmethod
    def from_slice(cls, page: Slice[PaymentView], count: Callable[[], Awaitable[int | None]]) -> Self:
        nodes = [Payment.from_view(view) for view in page.rows]
        cursors = [CONTACT_PAYMENTS.cursor(view.id) for view in page.rows]
        return cls(
            count=count,
            edges=[PaymentEdge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
            nodes=nodes,
            page_info=page.info(cursors),
        )
