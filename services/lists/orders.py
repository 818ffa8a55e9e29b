"""Orders of lists. Rows without a value come last in both directions; the id decides between equal values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, TypeAlias

from models.database_url import Dialect

List: TypeAlias = Literal["payment_requests", "contact_payment_requests", "conversations", "contacts"]


@dataclass(frozen=True, slots=True)
class Key:
    """What an order compares. The SQL is the same as in the migrations' indexes."""

    mark: str  # in cursors
    kind: type
    sql: dict[Dialect, str]
    nullable: bool = False

    @classmethod
    def column(cls, mark: str, name: str, kind: type = datetime, *, nullable: bool = False) -> Key:
        return cls(mark, kind, {"sqlite": name, "postgres": name}, nullable)


@dataclass(frozen=True, slots=True)
class Order:
    """`field`: the name of a member of the list's enum, such as PaymentRequestOrderField."""

    list: List
    field: str
    descending: bool

    @property
    def key(self) -> Key | None:
        """None: ids, which are in order of creation."""
        return KEYS[self.list][self.field]


_DUE: Final = "amount_minor - amount_paid_minor - waived_minor"
_OF_REQUESTS: Final[dict[str, Key | None]] = {
    "CREATED_AT": Key.column("c", "created_at"),
    "UPDATED_AT": Key.column("u", "updated_at"),
    # SQLite's planner would take a plain index of due dates for lists in another order.
    "DUE_AT": Key("d", datetime, {"sqlite": "coalesce(due_at, NULL)", "postgres": "due_at"}, nullable=True),
    "PAID_AT": Key.column("p", "paid_at", nullable=True),
    # Minor units, whatever the currency: amounts are never converted.
    "AMOUNT_DUE": Key("a", int, {"sqlite": f"max(0, {_DUE})", "postgres": f"greatest(0, {_DUE})"}),
}
KEYS: Final[dict[List, dict[str, Key | None]]] = {
    "payment_requests": _OF_REQUESTS,
    "contact_payment_requests": _OF_REQUESTS | {"CREATED_AT": None},
    "conversations": {
        "LAST_ACTIVITY_AT": Key.column("l", "last_activity_at"),
        "CREATED_AT": Key.column("c", "created_at"),
        "WAITING_SINCE": Key.column("w", "waiting_since", nullable=True),
    },
    "contacts": {
        "CREATED_AT": None,
        "UPDATED_AT": Key.column("u", "updated_at"),
        # The first line of the folded text: names without case and accents. A new server fills that of old rows.
        "NAME": Key(
            "n",
            str,
            {
                "sqlite": "substr(search, 1, min(120, instr(search || char(10), char(10)) - 1))",
                "postgres": 'left(split_part(search, chr(10), 1), 120) COLLATE "C"',
            },
            nullable=True,
        ),
    },
}
DEFAULTS: Final[dict[List, Order]] = {
    "payment_requests": Order("payment_requests", "CREATED_AT", descending=True),
    "contact_payment_requests": Order("contact_payment_requests", "CREATED_AT", descending=True),
    "conversations": Order("conversations", "LAST_ACTIVITY_AT", descending=True),
    "contacts": Order("contacts", "CREATED_AT", descending=True),
}
