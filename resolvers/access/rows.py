"""SELECT columns for unions of thread items."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

from tortoise import fields
from tortoise.fields.base import Field

from models import tables

_SQL_TYPES: Mapping[type[Field[Any]], str] = {
    fields.UUIDField: "uuid",
    fields.DatetimeField: "timestamptz",
    fields.BigIntField: "bigint",
    fields.CharField: "text",
    fields.TextField: "text",
    fields.JSONField: "jsonb",
}


THREAD: Final[tuple[type[tables.Row], ...]] = (tables.Message, tables.ActivityCard, tables.Note)


def columns_of_each(own: Collection[str], every: Iterable[str]) -> str:
    """SELECT columns for a UNION; missing columns are typed NULLs."""
    return ", ".join(name if name in own else f"CAST(NULL AS {_sql_types()[name]}) AS {name}" for name in every)


@lru_cache(maxsize=1)
def _sql_types() -> dict[str, str]:
    return {
        name: _SQL_TYPES.get(type(field), "text") for model in THREAD for name, field in model._meta.fields_map.items()
    }
