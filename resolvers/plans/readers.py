"""Readers: expressions that read one field of a row type from a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from functools import lru_cache
from typing import Any, TypeAlias

from models.database import to_bool, to_json, to_time, to_uuid
from models.ids import public_id
from models.tables import Row
from resolvers.transport.executor import NotPlanned
from schema.scalars import time_text
from services.core.actors import ActorRef


class Names:
    """In a generated function: `r` is the record, `run` the execution, `c0` and so on are constants."""

    def __init__(self, columns: Sequence[str], offset: int = 0) -> None:
        self._position = {name: offset + n for n, name in enumerate(columns)}
        self.constants: dict[str, Any] = {}

    def column(self, name: str) -> str:
        return f"r[{self._position[name]}]"

    def constant(self, value: object) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = value
        return name

    def call(self, function: Callable[..., Any], columns: Sequence[str], *more: str) -> str:
        arguments = ", ".join([*(self.column(name) for name in columns), *more])
        return f"{self.constant(function)}({arguments})"

    def function(self, parameters: str, expression: str) -> Callable[..., Any]:
        """Compile `lambda parameters: expression`, from readers' texts and GraphQL names only."""
        made: Callable[..., Any] = eval(f"lambda {parameters}: {expression}", self.constants)  # noqa: S307 (no text of a client)
        return made


@dataclass(frozen=True)
class Plain:
    column: str

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def expression(self, names: Names) -> str:
        return names.column(self.column)


@dataclass(frozen=True)
class Converted:
    """A function of columns. `clocked`: its last argument is the execution."""

    function: Callable[..., Any]
    columns: tuple[str, ...]
    clocked: bool = False

    def expression(self, names: Names) -> str:
        return names.call(self.function, self.columns, *(["run"] if self.clocked else []))


@dataclass(frozen=True)
class Amount:
    """A Money object."""

    columns: tuple[str, ...]
    currency: str = "currency"
    minor: Callable[..., int] | None = None


@dataclass(frozen=True)
class Group:
    """An object of the same record's columns. Null where one of `present` is."""

    type_name: str
    present: tuple[str, ...]
    fields: Mapping[str, Reader]


@dataclass(frozen=True)
class One:
    """The row that a column names."""

    type_name: str
    column: str
    nullable: bool = False


@dataclass(frozen=True)
class OneColumn:
    """One text column of the row that a column names."""

    model: type[Row]
    column: str
    wanted: str
    shown: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Children:
    """Rows that name this one."""

    type_name: str
    parent: str
    order: str


@dataclass(frozen=True)
class FirstChild:
    """The first row that names this one; null without one."""

    type_name: str
    parent: str
    order: str


@dataclass(frozen=True)
class Through:
    """Rows of another type that `table` joins with this one by its columns `parent` and `child`."""

    type_name: str
    table: str
    parent: str
    child: str


@dataclass(frozen=True)
class Objects:
    """Objects that are not rows: `load` gives them for the values of `columns`, by the first of these. Not `many`: one, or null."""

    type_name: str
    columns: tuple[str, ...]
    load: Callable[..., Any]
    many: bool = True


@dataclass(frozen=True)
class By:
    """Who caused something: an object of the union Actor. `ref`: of the columns' values."""

    columns: tuple[str, ...]
    ref: Callable[..., ActorRef | None]


@dataclass(frozen=True)
class Page:
    kind: str
    columns: tuple[str, ...]


class EventCursor:
    pass


Below: TypeAlias = One | OneColumn | Children | FirstChild | Through | Objects | By | Page
Reader: TypeAlias = Plain | Converted | Amount | Group | Below | EventCursor


@dataclass(frozen=True)
class RowType:
    name: str
    model: type[Row]
    fields: Mapping[str, Reader]
    # Rows that are merged into others or otherwise replaced: where this column is set, the stock executor answers.
    replaced: str | None = None
    # Whether every change that a client can see appends to the account's log.
    logged: bool = False


def identifier(prefix: str, column: str = "id") -> Converted:
    @lru_cache(maxsize=8192)
    def read(value: Any) -> str:
        return public_id(prefix, to_uuid(value))

    return Converted(read, (column,))


def moment(column: str) -> Converted:
    return Converted(_moment_text, (column,))


@lru_cache(maxsize=16_384)
def _moment_text(value: Any) -> str | None:
    # As SQLite stores every time.
    if type(value) is str and value[-6:] == "+00:00" and value[10] == " ":
        return f"{value[:10]}T{value[11:-6]}Z"
    return time_text(to_time(value)) if value is not None else None


def choice(
    enum: type[Enum], column: str, *, shown: Mapping[str, str] | None = None, nullable: bool = False
) -> Converted:
    """An enum's member by name. `shown`: stored names to clients' names."""
    names: dict[str | None, str | None] = {name: name for name in enum.__members__}
    names.update(shown or {})
    if nullable:
        names[None] = None
    return Converted(names.__getitem__, (column,))


def flag(column: str) -> Converted:
    return Converted(to_bool, (column,))


def texts(column: str) -> Converted:
    return Converted(lambda value: to_json(value) or [], (column,))


def is_set(column: str) -> Converted:
    return Converted(lambda value: value is not None, (column,))


def unless(needed: Callable[..., bool], value: Any, columns: tuple[str, ...]) -> Converted:
    """Records for which `needed` is true need the stock executor."""

    def read(*values: Any) -> Any:
        if needed(*values):
            raise NotPlanned
        return value

    return Converted(read, columns)


def now() -> datetime:
    return datetime.now(UTC)
