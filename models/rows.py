"""Reads and writes rows of models through raw SQL, faster than the ORM's queries and `save`. For hot paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
def _readers(model: type[Model]) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    return tuple((name, _CONVERTERS.get(type(field))) for name, field in model._meta.fields_map.items())


def _stored(model: type[M]) -> M:
    made = model.__new__(model)
    # What Model._init_from_db sets (tortoise 1.1.9); a test compares the two.
    made.__dict__.update(
        _partial=False,
        _saved_in_db=True,
        _custom_generated_pk=model._meta.db_pk_column not in model._meta.generated_db_fields,
        _await_when_save={},
    )
    return made


def instance(model: type[M], raw: Mapping[str, Any]) -> M:
    """Equal to what the ORM reads. `raw` has all columns."""
    made = _stored(model)
    state = made.__dict__
    for name, convert in _readers(model):
        state[name] = raw[name] if convert is None else convert(raw[name])
    return made


def from_record(model: type[M], record: Sequence[Any]) -> M:
    """As `instance`, from the values of `columns(model)` in their order."""
    made = _stored(model)
    state = made.__dict__
    for (name, convert), value in zip(_readers(model), record, strict=True):
        state[name] = value if convert is None else convert(value)
    return made


@lru_cache(maxsize=512)
def _select(model: type[Model], rest: str) -> str:
    return f"SELECT {columns(model)} FROM {model._meta.db_table} {rest}"  # noqa: S608 (only constants are put in)


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
@lru_cache(maxsize=64)
def _writers(model: type[Model]) -> Mapping[str, Callable[[Model], Any] | None]:
    """By column; None: the attribute as it is."""
    return {name: _writer(name, field) for name, field in model._meta.fields_map.items()}


def _writer(name: str, field: Field[Any]) -> Callable[[Model], Any] | None:
    if isinstance(field, fields.JSONField):
        return lambda row: None if getattr(row, name) is None else json_text(getattr(row, name))
    if isinstance(field, fields.DatetimeField) and (field.auto_now or field.auto_now_add):
        return lambda row: _own_time(row, name, renewed=field.auto_now)
    if isinstance(field, fields.CharField):
        # PostgreSQL refuses a longer text; SQLite does not look.
        return lambda row: _checked(row, name, field.max_length)
    return None


def _own_time(row: Model, name: str, *, renewed: bool) -> datetime:
    value: datetime | None = getattr(row, name)
    if value is None or renewed:
        value = datetime.now(UTC)
        setattr(row, name, value)
    return value


def _checked(row: Model, name: str, limit: int) -> str | None:
    value: str | None = getattr(row, name)
    if value is not None and len(value) > limit:
        raise ValueError(f"{row._meta.db_table}.{name}: longer than {limit} characters")
    return value


def _values(row: Model, written: Iterable[str]) -> list[object]:
    writers = _writers(type(row))
    return [getattr(row, name) if (write := writers[name]) is None else write(row) for name in written]


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
        model = type(rows[0])
        values = [value for row in rows for value in _values(row, names(model))]
        await database.records(_insert(model, len(rows), ""), *values)
        for row in rows:
            row._saved_in_db = True


async def add_unless_known(row: Model) -> bool:
    """Insert a row unless one of its unique keys exists. A conflict leaves the transaction usable."""
    model = type(row)
    inserted = await database.records(_insert(model, 1, KNOWN) + " RETURNING id", *_values(row, names(model)))
    row._saved_in_db = bool(inserted)
    return bool(inserted)


@lru_cache(maxsize=256)
def _update(model: type[Model], written: tuple[str, ...]) -> str:
    assignments = ", ".join(f"{name} = ?" for name in written)
    return f"UPDATE {model._meta.db_table} SET {assignments} WHERE id = ?"  # noqa: S608 (only constants are put in)


async def update(row: Model, written: Sequence[str]) -> None:
    """Store these columns of a row that was read or inserted."""
    await database.records(_update(type(row), tuple(written)), *_values(row, written), row.pk)
