"""Instances of models from raw SQL, faster than the ORM's queries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from tortoise import fields
from tortoise.fields.base import Field
from tortoise.models import Model

from models import tables
from models.database import to_bool, to_json, to_time, to_uuid

M = TypeVar("M", bound=Model)

# The engines return different types for these columns (text or UUID, 0 or False).
_CONVERTERS: Mapping[type[Field[Any]], Callable[[Any], Any]] = {
    fields.UUIDField: to_uuid,
    fields.DatetimeField: to_time,
    fields.BooleanField: to_bool,
    fields.JSONField: to_json,
}
_SQL_TYPES: Mapping[type[Field[Any]], str] = {
    fields.UUIDField: "uuid",
    fields.DatetimeField: "timestamptz",
    fields.BigIntField: "bigint",
    fields.CharField: "text",
    fields.TextField: "text",
    fields.JSONField: "jsonb",
}


@lru_cache(maxsize=64)
def names(model: type[Model]) -> tuple[str, ...]:
    return tuple(model._meta.fields_map)


@lru_cache(maxsize=64)
def columns(model: type[Model], alias: str = "") -> str:
    head = f"{alias}." if alias else ""
    return ", ".join(f"{head}{name}" for name in names(model))


def columns_of_both(own: Collection[str], others: Collection[str]) -> str:
    """SELECT columns for a UNION of messages and cards, sorted by name; missing columns are typed NULLs."""
    return ", ".join(
        name if name in own else f"CAST(NULL AS {_sql_types()[name]}) AS {name}" for name in sorted({*own, *others})
    )


@lru_cache(maxsize=1)
def _sql_types() -> dict[str, str]:
    both = tables.ActivityCard._meta.fields_map | tables.Message._meta.fields_map
    return {name: _SQL_TYPES.get(type(field), "text") for name, field in both.items()}


@lru_cache(maxsize=64)
def _plan(model: type[Model]) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    return tuple((name, _CONVERTERS.get(type(field))) for name, field in model._meta.fields_map.items())


def instance(model: type[M], raw: Mapping[str, Any]) -> M:
    """`raw` has all columns."""
    made = model.__new__(model)
    state = made.__dict__
    # What Model._init_from_db sets (tortoise 1.1.9); a test compares the two.
    state["_partial"] = False
    state["_saved_in_db"] = True
    state["_custom_generated_pk"] = model._meta.db_pk_column not in model._meta.generated_db_fields
    state["_await_when_save"] = {}
    for name, convert in _plan(model):
        state[name] = raw[name] if convert is None else convert(raw[name])
    return made
