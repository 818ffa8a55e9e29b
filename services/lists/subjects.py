"""What a live list can hold: payment requests or conversations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from models import database
from models.database import to_bool, to_time, to_uuid
from services.lists import sql
from services.lists.filters import ConversationFilter, PaymentRequestFilter
from services.lists.matching import ConversationSnapshot, Snapshot, matches
from services.lists.orders import Order
from services.lists.window import Key

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
# Conditions that read more than the request's own row.
_OF_CONTACT: Final = ("contact_ids", "assignee_ids", "tags", "search")


class Subject(StrEnum):
    PAYMENT_REQUEST = "PAYMENT_REQUEST"
    CONVERSATION = "CONVERSATION"


class Sums(NamedTuple):
    """Of payment requests in one currency and mode, in minor units."""

    items: int = 0
    amount_minor: int = 0
    paid_minor: int = 0
    due_minor: int = 0

    def plus(self, other: Sums, sign: int = 1) -> Sums:
        return Sums(*(mine + sign * theirs for mine, theirs in zip(self, other, strict=True)))


Amounts: TypeAlias = tuple[tuple[str, bool], Sums]  # (currency, test mode), and one request's


@dataclass(frozen=True, slots=True)
class Wanted:
    """Equal ones are one live list."""

    filter: PaymentRequestFilter | ConversationFilter
    order: Order

    @property
    def subject(self) -> Subject:
        is_request = isinstance(self.filter, PaymentRequestFilter)
        return Subject.PAYMENT_REQUEST if is_request else Subject.CONVERSATION

    @property
    def spreads(self) -> bool:
        """Whether a change of a contact or conversation may change which requests are in the list."""
        return isinstance(self.filter, PaymentRequestFilter) and self.filter.uses(*_OF_CONTACT)


class Row(NamedTuple):
    key: Key
    amounts: Amounts | None


# --- places ----------------------------------------------------------------------------------------------------------
def key_of(order: Order, value: Any, id: UUID) -> Key:
    """Smaller comes first: nulls last, then the value, then the id, both in the order's direction."""
    sign = -1 if order.descending else 1
    if value is None:
        return 1, 0, sign * id.int
    number = (value - _EPOCH) // _MICROSECOND if isinstance(value, datetime) else value
    return 0, sign * number, sign * id.int


def place_of(order: Order, key: Key) -> tuple[Any, UUID]:
    """The value and the id that `key_of` got."""
    is_null, number, id = key
    found = UUID(int=abs(id))
    if is_null:
        return None, found
    value = -number if order.descending else number
    is_time = order.key is not None and order.key.kind is datetime
    return (_EPOCH + value * _MICROSECOND if is_time else value), found


def place(wanted: Wanted, snapshot: Snapshot) -> Key | None:
    """Where the item belongs; None: not in the list."""
    if not matches(wanted.filter, snapshot, datetime.now(UTC)):
        return None
    return key_of(wanted.order, _VALUES[wanted.subject][wanted.order.field](snapshot), snapshot.id)


_VALUES: Final[dict[Subject, dict[str, Any]]] = {
    Subject.PAYMENT_REQUEST: {
        "CREATED_AT": lambda request: request.created_at,
        "UPDATED_AT": lambda request: request.updated_at,
        "DUE_AT": lambda request: request.due_at,
        "PAID_AT": lambda request: request.paid_at,
        "AMOUNT_DUE": lambda request: request.due_minor,
    },
    Subject.CONVERSATION: {
        "LAST_ACTIVITY_AT": lambda conversation: conversation.last_activity_at,
        "CREATED_AT": lambda conversation: conversation.created_at,
        "WAITING_SINCE": lambda conversation: conversation.waiting_since,
    },
}


# --- amounts ---------------------------------------------------------------------------------------------------------
_AMOUNTS: Final = "currency, test_mode, amount_minor, amount_paid_minor, waived_minor"


def amounts(snapshot: Snapshot) -> Amounts | None:
    if isinstance(snapshot, ConversationSnapshot):
        return None
    return _amounts(
        snapshot.currency,
        snapshot.test_mode,
        snapshot.amount_minor,
        snapshot.amount_paid_minor,
        snapshot.waived_minor,
    )


def _amounts(currency: str, test_mode: Any, amount: int, paid: int, waived: int) -> Amounts:
    return (currency, bool(to_bool(test_mode))), Sums(1, amount, paid, max(0, amount - paid - waived))


# ----------------------------------------------------------------------------------------------------------- reading
async def read(account_id: UUID, wanted: Wanted, limit: int) -> list[Row]:
    """The list's first items, in no order."""
    of_requests = isinstance(wanted.filter, PaymentRequestFilter)
    if isinstance(wanted.filter, PaymentRequestFilter):
        where, values, _ = await sql.of_payment_requests(account_id, wanted.filter)
    else:
        where, values, _ = await sql.of_conversations(account_id, wanted.filter)
    key = wanted.order.key
    value = key.sql[database.dialect()] if key is not None else "NULL"
    columns = f"id, {value}" + (f", {_AMOUNTS}" if of_requests else "")
    table = "payment_request" if of_requests else "conversation"
    found = await database.scanned_records(
        f"SELECT {columns} FROM {table} WHERE {where}{_order_by(wanted.order)} LIMIT {limit:d}",  # noqa: S608 (only constants are put in)
        *values,
    )
    is_time = key is not None and key.kind is datetime
    return [_row(wanted.order, record, is_time=is_time) for record in found]


def _row(order: Order, record: Sequence[Any], *, is_time: bool) -> Row:
    id, value, *of_request = record
    key = key_of(order, to_time(value) if is_time else value, to_uuid(id))
    return Row(key, _amounts(*of_request) if of_request else None)


def _order_by(order: Order) -> str:
    direction = "DESC" if order.descending else "ASC"
    key = order.key
    if key is None:
        return f" ORDER BY id {direction}"
    value = key.sql[database.dialect()]
    nulls_last = f"{value} IS NULL, " if key.nullable else ""
    return f" ORDER BY {nulls_last}{value} {direction}, id {direction}"
