"""Keyset pagination as SQL and as cursors. It does not scope by account."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, unquote
from uuid import UUID

import strawberry

from models import database
from models.database_url import Dialect
from schema.failures import bad_request
from schema.scalars import Cursor, PageInfo
from services.lists.orders import DEFAULTS, List, Order

DEFAULT_PAGE = 50
LARGEST_PAGE = 100
LARGEST_COUNT = 10_000

First = Annotated[
    int | None,
    strawberry.argument(description="How many from the start, 1 to 100. Default 50, unless `last` is given."),
]
After = Annotated[Cursor | None, strawberry.argument(description="Only rows after this cursor.")]
Last = Annotated[
    int | None, strawberry.argument(description="How many from the end, 1 to 100. Not together with `first`.")
]
Before = Annotated[Cursor | None, strawberry.argument(description="Only rows before this cursor.")]

R = TypeVar("R")
Count: TypeAlias = Callable[[], Awaitable[int | None]]  # None: more than LARGEST_COUNT
TOTAL: Final = f"How many there are on all pages. Counted up to {LARGEST_COUNT:,}; null: more."


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment


_PARSERS: dict[type, Callable[[str], Any]] = {int: int, UUID: UUID, datetime: _time, str: unquote}


@lru_cache(maxsize=16_384)
def _cursor(tag: str, *key: object) -> Cursor:
    parts = [_text(part) for part in key]
    return Cursor(base64.urlsafe_b64encode("|".join([tag, *parts]).encode()).rstrip(b"=").decode())


def _text(part: object) -> str:
    if isinstance(part, datetime):
        return part.isoformat()
    return "" if part is None else quote(part, safe="") if isinstance(part, str) else str(part)


@dataclass(frozen=True, slots=True)
class Nulls:
    present: str  # the condition of rows with a value, as an index serves it
    by_id: bool  # whether the planner needs no more than the id to sort the others by an index


@dataclass(frozen=True, slots=True)
class Keyset:
    """A connection's sort order. The last column is unique; `tag` marks its cursors, `order` those of an order beside the list's own."""

    tag: str
    columns: tuple[tuple[str, type], ...]  # SQL and type
    descending: bool
    order: str = ""
    nulls: Nulls | None = None  # where the first of two columns may be null: these rows come last in both directions

    def cursor(self, *key: object) -> Cursor:
        return _cursor(self.tag + self.order, *key)

    def key(self, cursor: str, argument: str) -> tuple[object, ...]:
        """Raises: ApiError BAD_REQUEST for a cursor of another connection or another order."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
            tag, *parts = raw.split("|")
            if tag != self.tag + self.order and tag[:1] == self.tag:
                raise bad_request(f"`{argument}` is a cursor of another order: begin this order without a cursor.")
            if tag != self.tag + self.order or len(parts) != len(self.columns):
                raise ValueError(raw)
            key = tuple(
                None if self.nulls and n == 0 and not part else _PARSERS[kind](part)
                for n, (part, (_, kind)) in enumerate(zip(parts, self.columns, strict=True))
            )
            if any(isinstance(part, int) and not 0 <= part < 2**63 for part in key):
                raise ValueError(raw)
        except ValueError as error:
            raise bad_request(f"`{argument}` is not a cursor of this connection.") from error
        return key

    def page(
        self,
        *,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
        from_end: bool = False,
    ) -> Page:
        """`from_end`: default to the last page. Raises: ApiError BAD_REQUEST."""
        if first is not None and last is not None:
            raise bad_request("Give `first` or `last`, not both.")
        size = first if first is not None else last if last is not None else DEFAULT_PAGE
        if not 1 <= size <= LARGEST_PAGE:
            raise bad_request(f"`first` and `last` must be from 1 to {LARGEST_PAGE}.")
        backward = last is not None or (first is None and after is None and (before is not None or from_end))
        return Page(
            keyset=self,
            size=size,
            backward=backward,
            after=self.key(after, "after") if after is not None else None,
            before=self.key(before, "before") if before is not None else None,
        )


class Segment(NamedTuple):
    where: str  # to append to a WHERE
    values: list[object]
    order: str


@dataclass(frozen=True, slots=True)
class Page:
    """Select the rows of `segments` in `order`; pass them to `cut`."""

    keyset: Keyset
    size: int
    backward: bool
    after: tuple[object, ...] | None
    before: tuple[object, ...] | None

    @property
    def segments(self) -> list[Segment]:
        """An index has the rows of each in its order."""
        nulls = self.keyset.nulls
        if nulls is None:
            return [self._segment("", self.after, self.before)]
        (value, _), (id, _) = self.keyset.columns
        after, before, found = self.after, self.before, []
        if after is None or after[0] is not None:
            until = before if before is not None and before[0] is not None else None
            found.append(self._segment(f" AND {nulls.present}", after, until))
        if before is None or before[0] is None:
            beyond, behind = self._signs
            given = [(sign, bound) for sign, bound in ((beyond, after), (behind, before)) if bound and bound[0] is None]
            where = "".join(f" AND {id} {sign} ?" for sign, _ in given)
            order = self._order([id] if nulls.by_id else [value, id])
            found.append(Segment(f" AND {value} IS NULL{where}", [bound[1] for _, bound in given], order))
        return found

    def _segment(self, where: str, after: tuple[object, ...] | None, before: tuple[object, ...] | None) -> Segment:
        names = [name for name, _ in self.keyset.columns]
        values: list[object] = []
        for sign, bound in zip(self._signs, (after, before), strict=True):
            if bound is None:
                continue
            if names[0].isidentifier():
                where += f" AND ({', '.join(names)}) {sign} ({', '.join('?' for _ in names)})"
                values += bound
            else:  # SQLite has no index for a row with an expression
                where += f" AND {names[0]} {sign}= ? AND ({names[0]} {sign} ? OR {names[1]} {sign} ?)"
                values += [bound[0], *bound]
        return Segment(where, values, self._order(names))

    @property
    def _signs(self) -> tuple[str, str]:
        """Beyond `after`, and before `before`."""
        return ("<", ">") if self.keyset.descending else (">", "<")

    def _order(self, names: Sequence[str]) -> str:
        direction = "DESC" if self.keyset.descending != self.backward else "ASC"
        return f" ORDER BY {', '.join(f'{name} {direction}' for name in names)} LIMIT {self.size + 1}"

    @property
    def where(self) -> str:
        """Of a page without nulls, as the next two."""
        return self.segments[0].where

    @property
    def values(self) -> list[object]:
        return self.segments[0].values

    @property
    def order(self) -> str:
        """Of all segments."""
        order = self._order([name for name, _ in self.keyset.columns])
        if self.keyset.nulls is None:
            return order
        nulls = f"({self.keyset.columns[0][0]}) IS NULL {'DESC' if self.backward else 'ASC'}"
        return order.replace(" ORDER BY ", f" ORDER BY {nulls}, ", 1)

    def cut(self, rows: Sequence[R], keys: Sequence[tuple[object, ...]] = ()) -> Slice[R]:
        """`keys`: the values of the keyset's columns, by row."""
        more = len(rows) > self.size
        kept, kept_keys = list(rows[: self.size]), list(keys[: self.size])
        if self.backward:
            kept.reverse()
            kept_keys.reverse()
            return Slice(kept, self.before is not None, more, self.keyset, kept_keys)
        return Slice(kept, more, self.after is not None, self.keyset, kept_keys)


@dataclass(frozen=True, slots=True)
class Slice(Generic[R]):
    rows: list[R]
    has_next: bool
    has_previous: bool
    keyset: Keyset
    keys: list[tuple[object, ...]]

    @property
    def cursors(self) -> list[Cursor]:
        return [self.keyset.cursor(*key) for key in self.keys]

    def info(self, cursors: Sequence[Cursor]) -> PageInfo:
        return PageInfo(
            has_next_page=self.has_next,
            has_previous_page=self.has_previous,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        )


def keyset_of(order: Order) -> Keyset:
    """The list's own keyset, unless the order differs from its default."""
    return _keyset_of(order, database.dialect())


@lru_cache(maxsize=128)
def _keyset_of(order: Order, dialect: Dialect) -> Keyset:
    own = OF_LISTS[order.list]
    if order == DEFAULTS[order.list]:
        return own
    key = order.key
    direction = "-" if order.descending else "+"
    if key is None:
        return replace(own, descending=order.descending, order=f".i{direction}")
    sql = key.sql[dialect]
    nulls = None
    if key.nullable:
        # SQLite reads no range for "expression IS NOT NULL", and stores times as text.
        text = dialect == "sqlite" and not sql.isidentifier()
        nulls = Nulls(f"{sql} >= ''" if text else f"{sql} IS NOT NULL", by_id=dialect == "sqlite")
    return Keyset(own.tag, ((sql, key.kind), ("id", UUID)), order.descending, f".{key.mark}{direction}", nulls)


CONVERSATIONS = Keyset("c", (("last_activity_at", datetime), ("id", UUID)), descending=True)
USERS = Keyset("u", (("id", UUID),), descending=False)
API_KEYS = Keyset("a", (("id", UUID),), descending=False)
CONTACTS = Keyset("k", (("id", UUID),), descending=True)
CONTACT_PAYMENTS = Keyset("m", (("id", UUID),), descending=True)
CONTACT_REQUESTS = Keyset("p", (("id", UUID),), descending=True)
PAYMENT_REQUESTS = Keyset("r", (("created_at", datetime), ("id", UUID)), descending=True)
THREAD = Keyset("t", (("seq", int),), descending=False)
MESSAGES = Keyset("m", (("seq", int),), descending=True)
NOTIFICATIONS = Keyset("n", (("seq", int),), descending=True)
INVITATIONS = Keyset("i", (("id", UUID),), descending=True)
VIEWS = Keyset("v", (("id", UUID),), descending=False)
OF_LISTS: Final[dict[List, Keyset]] = {
    "payment_requests": PAYMENT_REQUESTS,
    "contact_payment_requests": CONTACT_REQUESTS,
    "conversations": CONVERSATIONS,
    "contacts": CONTACTS,
}
