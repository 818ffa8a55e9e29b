"""A list with its filter and order, and the conditions that read it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from services.lists import sql
from services.lists.filters import ContactFilter, ConversationFilter, Filter, PaymentRequestFilter
from services.lists.orders import DEFAULTS, List, Order
from services.lists.searches import Condition

_EMPTY: Final[dict[List, Filter]] = {
    "payment_requests": PaymentRequestFilter(),
    "contact_payment_requests": PaymentRequestFilter(),
    "conversations": ConversationFilter(),
    "contacts": ContactFilter(),
}
# Conditions that an index of the list's own order serves.
_SERVED: Final[dict[List, set[str]]] = {
    "payment_requests": {"status"},
    "contact_payment_requests": {"status"},
    "conversations": {"closed", "unread", "assignee_ids"},
    "contacts": set(),
}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """`contacts`: of "contact_payment_requests", the contact's row and those that are merged into it."""

    order: Order
    filter: Filter
    contacts: tuple[UUID, ...] | None = None

    @property
    def may_scan(self) -> bool:
        """Whether it may look at many rows that are not of the page."""
        names = {name for name, _ in self.filter.conditions}
        if not names and not self.filter.below and self.filter.or_ is None:
            return False
        served = self.order == DEFAULTS[self.order.list] and names <= _SERVED[self.order.list]
        return not served or bool(self.filter.below) or self.filter.or_ is not None

    @property
    def has_values_only(self) -> bool:
        """Whether the filter leaves out rows without a value of the order."""
        given = dict(self.filter.conditions)
        return self.order.field.lower() in given or (self.order.field == "DUE_AT" and bool(given.get("overdue")))


def query(
    name: List, filter: Filter | None = None, order: Order | None = None, contacts: tuple[UUID, ...] | None = None
) -> ListQuery:
    return ListQuery(order or DEFAULTS[name], filter if filter is not None else _EMPTY[name], contacts)


async def condition(account_id: UUID, query: ListQuery) -> Condition:
    """Of all rows of the list."""
    if isinstance(query.filter, ConversationFilter):
        return await sql.of_conversations(account_id, query.filter)
    if isinstance(query.filter, ContactFilter):
        return await sql.of_contacts(account_id, query.filter)
    return await sql.of_payment_requests(account_id, query.filter, query.contacts)


async def parts(account_id: UUID, query: ListQuery) -> list[Condition]:
    """Of a page: parts without common rows, whose first rows in order are found quickly."""
    if isinstance(query.filter, PaymentRequestFilter):
        return await sql.pages_of_payment_requests(account_id, query.filter, query.contacts, query.order)
    return [await condition(account_id, query)]
