"""Instances of models from raw SQL, faster than the ORM's queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from tortoise import fields
from tortoise.fields.base import Field
from tortoise.models import Model

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


@lru_cache(maxsize=16)
def columns_of_both(model: type[Model], other: type[Model]) -> str:
    """SELECT columns for a UNION: columns that only `other` has are typed NULLs."""
    own, others = model._meta.fields_map, other._meta.fields_map
    parts = []
    for name in sorted(own.keys() | others.keys()):
        if name in own:
            parts.append(name)
        else:
            parts.append(f"CAST(NULL AS {_SQL_TYPES[type(others[name])]}) AS {name}")
    return ", ".join(parts)


@lru_cache(maxsize=64)
def _plan(model: type[Model]) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    return tuple((name, _CONVERTERS.get(type(field))) for name, field in model._meta.fields_map.items())


def instance(model: type[M], raw: Mapping[str, Any]) -> M:
    """Equal to what the ORM reads. `raw` has all columns."""
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
