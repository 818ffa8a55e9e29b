"""Keyset pagination as SQL and as cursors. It does not scope by account."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import strawberry

from schema.failures import bad_request
from schema.scalars import Cursor, PageInfo

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


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment


_PARSERS: dict[type, Callable[[str], Any]] = {int: int, UUID: UUID, datetime: _time}


@lru_cache(maxsize=16_384)
def _cursor(tag: str, *key: object) -> Cursor:
    parts = [part.isoformat() if isinstance(part, datetime) else str(part) for part in key]
    return Cursor(base64.urlsafe_b64encode("|".join([tag, *parts]).encode()).rstrip(b"=").decode())


@dataclass(frozen=True, slots=True)
class Keyset:
    """A connection's sort order. The last column is unique; `tag` marks its cursors."""

    tag: str
    columns: tuple[tuple[str, type], ...]
    descending: bool

    def cursor(self, *key: object) -> Cursor:
        return _cursor(self.tag, *key)

    def key(self, cursor: str, argument: str) -> tuple[object, ...]:
        """Raises: ApiError BAD_REQUEST for another connection's cursor."""
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
            tag, *parts = raw.split("|")
            if tag != self.tag or len(parts) != len(self.columns):
                raise ValueError(raw)
            key = tuple(_PARSERS[kind](part) for part, (_, kind) in zip(parts, self.columns, strict=True))
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


@dataclass(frozen=True, slots=True)
class Page:
    """Select with `where`, `values` and `order`; pass the rows to `cut`."""

    keyset: Keyset
    size: int
    backward: bool
    after: tuple[object, ...] | None
    before: tuple[object, ...] | None

    @property
    def where(self) -> str:
        names = ", ".join(name for name, _ in self.keyset.columns)
        marks = ", ".join("?" for _ in self.keyset.columns)
        beyond, behind = ("<", ">") if self.keyset.descending else (">", "<")
        clauses = [
            f" AND ({names}) {sign} ({marks})"
            for sign, bound in ((beyond, self.after), (behind, self.before))
            if bound is not None
        ]
        return "".join(clauses)

    @property
    def values(self) -> list[object]:
        return [*(self.after or ()), *(self.before or ())]

    @property
    def order(self) -> str:
        direction = "DESC" if self.keyset.descending != self.backward else "ASC"
        names = ", ".join(f"{name} {direction}" for name, _ in self.keyset.columns)
        return f" ORDER BY {names} LIMIT {self.size + 1}"

    def cut(self, rows: Sequence[R]) -> Slice[R]:
        more = len(rows) > self.size
        kept = list(rows[: self.size])
        if self.backward:
            kept.reverse()
            return Slice(kept, has_next=self.before is not None, has_previous=more)
        return Slice(kept, has_next=more, has_previous=self.after is not None)


@dataclass(frozen=True, slots=True)
class Slice(Generic[R]):
    rows: list[R]
    has_next: bool
    has_previous: bool

    def info(self, cursors: Sequence[Cursor]) -> PageInfo:
        return PageInfo(
            has_next_page=self.has_next,
            has_previous_page=self.has_previous,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        )


CONVERSATIONS = Keyset("c", (("last_activity_at", datetime), ("id", UUID)), descending=True)
CONTACTS = Keyset("k", (("id", UUID),), descending=True)
CONTACT_PAYMENTS = Keyset("m", (("id", UUID),), descending=True)
CONTACT_REQUESTS = Keyset("p", (("id", UUID),), descending=True)
PAYMENT_REQUESTS = Keyset("r", (("created_at", datetime), ("id", UUID)), descending=True)
THREAD = Keyset("t", (("seq", int),), descending=False)
NOTIFICATIONS = Keyset("n", (("seq", int),), descending=True)
INVITATIONS = Keyset("i", (("id", UUID),), descending=True)
