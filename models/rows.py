"""Reads and writes rows of models through raw SQL, faster than the ORM's queries and `save`. For hot paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeVar

from tortoise import fields
from tortoise.exceptions import DoesNotExist
from tortoise.fields.base import Field
from tortoise.models import Model

from models import database
from models.database import to_bool, to_json, to_time, to_uuid
from models.storable import json_text

M = TypeVar("M", bound=Model)

KNOWN: Final = " ON CONFLICT DO NOTHING"

# The engines return different types for these columns (text or UUID, 0 or False).
_CONVERTERS: Mapping[type[Field[Any]], Callable[[Any], Any]] = {
    fields.UUIDField: to_uuid,
    fields.DatetimeField: to_time,
    fields.BooleanField: to_bool,
    fields.JSONField: to_json,
}


@lru_cache(maxsize=64)
def names(model: type[Model]) -> tuple[str, ...]:
    return tuple(model._meta.fields_map)


@lru_cache(maxsize=64)
def columns(model: type[Model], alias: str = "") -> str:
    head = f"{alias}." if alias else ""
    return ", ".join(f"{head}{name}" for name in names(model))


@lru_cache(maxsize=64)
def _conversions(model: type[Model]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    fields_map = model._meta.fields_map
    return tuple((name, _CONVERTERS[type(field)]) for name, field in fields_map.items() if type(field) in _CONVERTERS)


def _made(model: type[M], values: Iterable[tuple[str, Any]], *, stored: bool) -> M:
    made = model.__new__(model)
    state = made.__dict__
    # What Model._init_from_db sets (tortoise 1.1.9); a test compares the two.
    state["_partial"] = False
    state["_saved_in_db"] = stored
    state["_custom_generated_pk"] = model._meta.db_pk_column not in model._meta.generated_db_fields
    state["_await_when_save"] = {}
    state.update(values)
    return made


def instance(model: type[M], raw: Mapping[str, Any]) -> M:
    """Equal to what the ORM reads. `raw` has all columns."""
    return from_record(model, [raw[name] for name in names(model)])


def from_record(model: type[M], record: Sequence[Any]) -> M:
    """As `instance`, from the values of `columns(model)` in their order."""
    made = _made(model, zip(names(model), record, strict=True), stored=True)
    state = made.__dict__
    for name, convert in _conversions(model):
        if state[name] is not None:
            state[name] = convert(state[name])
    return made


@lru_cache(maxsize=64)
def _defaults(model: type[Model]) -> tuple[Mapping[str, Any], tuple[tuple[str, Callable[[], Any]], ...]]:
    """Constant values by column, and the functions that make the others."""
    defaults = {name: field.default for name, field in model._meta.fields_map.items()}
    made = tuple((name, default) for name, default in defaults.items() if callable(default))
    return defaults, made


def new(model: type[M], **values: Any) -> M:
    """An instance to `add`, as the model's constructor makes it, without its checks."""
    defaults, made = _defaults(model)
    row = _made(model, defaults.items(), stored=False)
    state = row.__dict__
    state.update(values)
    for name, make in made:
        if name not in values:
            state[name] = make()
    return row


@lru_cache(maxsize=512)
def _select(model: type[Model], rest: str) -> str:
    return f"SELECT {columns(model)} FROM {model._meta.db_table} {rest}"  # noqa: S608 (only constants are put in)


def query(model: type[Model], rest: str, *args: object) -> database.Statement:
    """A SELECT for `database.records_together`, whose records `from_record` takes."""
    return _select(model, rest), args


async def find(model: type[M], rest: str, *args: object, lock: bool = False) -> list[M]:
    """The rows of a short SELECT. `rest`: its constant text from WHERE on. `lock`: lock the rows."""
    sql = _select(model, rest + database.row_lock() if lock else rest)
    return [from_record(model, record) for record in await database.records(sql, *args)]


async def first(model: type[M], rest: str, *args: object, lock: bool = False) -> M | None:
    found = await find(model, rest, *args, lock=lock)
    return found[0] if found else None


async def get(model: type[M], rest: str, *args: object, lock: bool = False) -> M:
    """Raises: DoesNotExist."""
    found = await first(model, rest, *args, lock=lock)
    if found is None:
        raise DoesNotExist(model)
    return found


# ------------------------------------------------------------------------------------------------------------- writing
@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns to write, with the places of those that need more than their attribute."""

    limited: tuple[tuple[int, int], ...]  # place, most characters
    json: tuple[int, ...]
    times: tuple[tuple[int, bool], ...]  # place, whether each write renews it


@lru_cache(maxsize=512)
def _written(model: type[Model], written: tuple[str, ...]) -> _Columns:
    found = [(place, model._meta.fields_map[name]) for place, name in enumerate(written)]
    return _Columns(
        limited=tuple((place, field.max_length) for place, field in found if isinstance(field, fields.CharField)),
        json=tuple(place for place, field in found if isinstance(field, fields.JSONField)),
        times=tuple(
            (place, field.auto_now)
            for place, field in found
            if isinstance(field, fields.DatetimeField) and (field.auto_now or field.auto_now_add)
        ),
    )


def _values(row: Model, written: tuple[str, ...]) -> list[Any]:
    columns, state = _written(type(row), written), row.__dict__
    values = [state[name] for name in written]
    for place, limit in columns.limited:
        # PostgreSQL refuses a longer text; SQLite does not look.
        if values[place] is not None and len(values[place]) > limit:
            raise ValueError(f"{row._meta.db_table}.{written[place]}: longer than {limit} characters")
    for place in columns.json:
        values[place] = None if values[place] is None else json_text(values[place])
    for place, renewed in columns.times:
        if renewed or values[place] is None:
            values[place] = state[written[place]] = datetime.now(UTC)
    return values


@lru_cache(maxsize=256)
def _insert(model: type[Model], count: int, conflict: str) -> str:
    marks = f"({database.placeholders(len(names(model)))})"
    return (
        f"INSERT INTO {model._meta.db_table} ({columns(model)})"  # noqa: S608 (only constants are put in)
        f" VALUES {', '.join([marks] * count)}{conflict}"
    )


async def add(rows: Sequence[Model]) -> None:
    """Insert new rows of one model in one statement."""
    if rows:
        await database.write_together(insertion(rows))


def insertion(rows: Sequence[Model]) -> database.Statement:
    """The statement of `add`."""
    model = type(rows[0])
    values = [value for row in rows for value in _values(row, names(model))]
    for row in rows:
        row.__dict__["_saved_in_db"] = True
    return _insert(model, len(rows), ""), values


async def add_unless_known(row: Model) -> bool:
    """Insert a row unless one of its unique keys exists. A conflict leaves the transaction usable."""
    model = type(row)
    inserted = await database.records(_insert(model, 1, KNOWN) + " RETURNING id", *_values(row, names(model)))
    row.__dict__["_saved_in_db"] = bool(inserted)
    return bool(inserted)


@lru_cache(maxsize=256)
def _update(model: type[Model], written: tuple[str, ...]) -> str:
    assignments = ", ".join(f"{name} = ?" for name in written)
    return f"UPDATE {model._meta.db_table} SET {assignments} WHERE id = ?"  # noqa: S608 (only constants are put in)


async def update(row: Model, written: Sequence[str]) -> None:
    """Store these columns of a row that was read or inserted."""
    await database.write_together(assignment(row, written))


def assignment(row: Model, written: Sequence[str]) -> database.Statement:
    """The statement of `update`."""
    names = tuple(written)
    return _update(type(row), names), [*_values(row, names), row.pk]
