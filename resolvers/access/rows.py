"""SELECT columns for unions of messages and cards."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

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


def columns_of_both(own: Collection[str], others: Collection[str]) -> str:
    """SELECT columns for a UNION of messages and cards, sorted by name; missing columns are typed NULLs."""
    return ", ".join(
        name if name in own else f"CAST(NULL AS {_sql_types()[name]}) AS {name}" for name in sorted({*own, *others})
    )


@lru_cache(maxsize=1)
def _sql_types() -> dict[str, str]:
    both = tables.ActivityCard._meta.fields_map | tables.Message._meta.fields_map
    return {name: _SQL_TYPES.get(type(field), "text") for name, field in both.items()}
