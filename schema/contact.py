"""The contact, its payment requests and its totals."""

from __future__ import annotations

from datetime import datetime
from typing import Self

import strawberry

from models import tables
from models.ids import public_id
from schema.connections import CONTACT_PAYMENTS, TOTAL, After, Before, Count, First, Last, Slice, keyset_of
from schema.context import Info, event_cursor
from schema.conversation import Conversation
from schema.describe import field
from schema.inputs.lists import RequestsFilter, RequestsOrder, list_query
from schema.merged_contact import MergedContact
from schema.payment import PaymentConnection
from schema.payment_request import PaymentRequestConnection
from schema.scalars import ChannelKind, CurrencyCode, Cursor, Money, Node, PageInfo, money
from services.core import merged_rows


@strawberry.type(description="The contact's identity on one kind of channel.")
class ContactAddress:
    kind: ChannelKind = strawberry.field(description="The kind of channel.")
    address: str = strawberry.field(description="Phone number (E.164), email address or the provider's id.")
    opted_out_at: datetime | None = strawberry.field(
        description="When the contact asked for no more messages on it; null: messages are welcome."
    )
    last_inbound_at: datetime | None = strawberry.field(
        description="When the contact last wrote on it; null: never. Windows run from here."
    )
    in_use: bool = strawberry.field(
        description=(
            "Whether messages of this kind go here. A merged contact may have several addresses of one kind:"
            " messages go to the one that the contact wrote from last; updateContact can choose another."
        )
    )

    @classmethod
    def from_row(cls, row: tables.ContactAddress) -> Self:
        return cls(
            kind=ChannelKind[row.kind],
            address=row.address,
            opted_out_at=row.opted_out_at,
            last_inbound_at=row.last_inbound_at,
            in_use=row.in_use,
        )


@strawberry.type(
    description="What a contact was asked to pay and has paid, in one currency and mode. Always equal to what the"
    " ledger recomputes."
)
class ContactPaymentSummary:
    currency: CurrencyCode = strawberry.field(description="The currency; sums never cross currencies.")
    test_mode: bool = strawberry.field(description="Whether these are test requests; sums never cross modes.")
    requested: Money = strawberry.field(
        description="Amounts of all requests that were sent, void and discarded ones left out."
    )
    outstanding: Money = strawberry.field(description="Still due on open requests.")
    paid: Money = strawberry.field(
        description=(
            "Money that arrived, before refunds and fees: every succeeded charge and every manually recorded payment, also"
            " part payments, excess, late and mismatching money (Payment.counted is false)."
        )
    )
    refunded: Money = strawberry.field(description="The total of succeeded refunds.")
    net: Money = strawberry.field(
        description=(
            "Paid less refunded, lost disputes and the processors' fees. Refunds and lost disputes of one payment take at"
            " most that payment: some processors report one loss as both."
        )
    )
    open_count: int = strawberry.field(
        description="How many of the contact's requests in this currency and mode are SENT, PROCESSING or PARTIALLY_PAID,"
        " overdue ones too; drafts, PAID and VOID ones are not counted."
    )
    paid_count: int = strawberry.field(description="Requests paid in full.")
    overdue_count: int = strawberry.field(description="Open requests whose due date has passed, as of now.")
    first_paid_at: datetime | None = strawberry.field(description="The first payment; null: none yet.")
    last_paid_at: datetime | None = strawberry.field(description="The newest payment; null: none yet.")

    @classmethod
    def from_row(cls, row: tables.ContactSummary, overdue_count: int) -> Self:
        currency = row.currency
        return cls(
            currency=CurrencyCode(currency),
            test_mode=row.test_mode,
            requested=money(row.requested_minor, currency),
            outstanding=money(row.outstanding_minor, currency),
            paid=money(row.paid_minor, currency),
            refunded=money(row.refunded_minor, currency),
            net=money(row.net_minor, currency),
            open_count=row.open_count,
            paid_count=row.paid_count,
            overdue_count=overdue_count,
            first_paid_at=row.first_paid_at,
            last_paid_at=row.last_paid_at,
        )


@strawberry.type(description="The person who is asked to pay.")
class Contact(Node):
    row: strawberry.Private[tables.Contact]
    name: str = strawberry.field(description="The person's name.")
    email: str | None = strawberry.field(description="Email address; null: unknown.")
    phone: str | None = strawberry.field(description="Phone number, E.164; null: unknown.")
    tags: list[str] = strawberry.field(description="Labels; the first payment adds `customer`.")
    version: int = strawberry.field(description="Increases with every change of the record.")
    created_at: datetime = strawberry.field(description="When the record was made.")
    updated_at: datetime = strawberry.field(description="When the record last changed.")

    @classmethod
    def from_row(cls, row: tables.Contact) -> Self:
        return cls(
            id=strawberry.ID(public_id("cnt", row.id)),
            row=row,
            name=row.name,
            email=row.email,
            phone=row.phone,
            tags=list(row.tags),
            version=row.version,
            created_at=row.created_at,
            updated_at=row.updated_at,
        )

    @field("The contact's identity on each kind of channel.")
    async def addresses(self, info: Info) -> list[ContactAddress]:
        return [ContactAddress.from_row(row) for row in await info.context.reads.addresses(self.row.id)]

    @field(
        "The contacts that were merged into this one (mergeContacts), newest merge first; their ids give this contact."
    )
    async def merged_from(self, info: Info) -> list[MergedContact]:
        return [MergedContact.from_row(row) for row in await info.context.reads.merged_contacts(self.row)]

    @field("The one conversation with the contact; null: none was begun.")
    async def conversation(self, info: Info) -> Conversation | None:
        row = await info.context.reads.conversation_of(self.row.id)
        return Conversation.from_row(row) if row is not None else None

    @field("The Payments tab: the payment requests to the contact.")
    async def payment_requests(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        filter: RequestsFilter = None,
        order_by: RequestsOrder = None,
    ) -> PaymentRequestConnection:
        contacts = tuple(merged_rows.ids_of(self.row))
        query = list_query("contact_payment_requests", filter, order_by, contacts)
        page = keyset_of(query.order).page(first=first, after=after, last=last, before=before)
        reads = info.context.reads
        return PaymentRequestConnection.from_slice(
            await reads.payment_requests(query, page), lambda: reads.total(query)
        )

    @field("The ledger: all payments, refunds and disputes of the contact, newest first.")
    async def payments(
        self, info: Info, first: First = None, after: After = None, last: Last = None, before: Before = None
    ) -> PaymentConnection:
        reads = info.context.reads
        page = CONTACT_PAYMENTS.page(first=first, after=after, last=last, before=before)
        found = await reads.contact_payments(self.row, page)
        return PaymentConnection.from_slice(found, lambda: reads.contact_payments_count(self.row))

    @field("Position in the event log, read before the data: pass it to contactPaymentEvents(after:).")
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)

    @field("The totals, one entry per currency and mode.")
    async def payment_summary(self, info: Info) -> list[ContactPaymentSummary]:
        reads = info.context.reads
        rows = await reads.summaries(self.row.id)
        overdue = await reads.overdue(self.row)
        return [ContactPaymentSummary.from_row(row, overdue.get((row.currency, row.test_mode), 0)) for row in rows]


@strawberry.type(description="A contact in a list.")
class ContactEdge:
    cursor: Cursor = strawberry.field(description="Its position, for `after` and `before`.")
    node: Contact = strawberry.field(description="The contact.")


@strawberry.type(description="Contacts, in the order asked for.")
class ContactConnection:
    count: strawberry.Private[Count]
    edges: list[ContactEdge] = strawberry.field(description="The page, with a cursor for each.")
    nodes: list[Contact] = strawberry.field(description="The page.")
    page_info: PageInfo = strawberry.field(description="The page's position.")

    @field(TOTAL)
    async def total_count(self) -> int | None:
        return await self.count()

    @field("Position in the event log, read before the data: pass it to inboxEvents(after:).")
    async def event_cursor(self, info: Info) -> Cursor:
        return await event_cursor(info)

    @classmethod
    def from_slice(cls, page: Slice[tables.Contact], count: Count) -> Self:
        nodes, cursors = [Contact.from_row(row) for row in page.rows], page.cursors
        return cls(
            count=count,
            edges=[ContactEdge(cursor=cursor, node=node) for cursor, node in zip(cursors, nodes, strict=True)],
            nodes=nodes,
            page_info=page.info(cursors),
        )
