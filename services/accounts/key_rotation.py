"""Encrypts all rooms' stored secrets with the first of SECRET_KEYS; it reads tables only, so no other room is needed."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from models import database, vault

COLUMNS: Final = (
    ("processor_connection", "credentials"),
    ("channel_connection", "credentials"),
    ("payment_request", "token"),
    ("attachment", "source_url"),  # until the file is fetched
    ("job", "sealed"),
)
BATCH: Final = 500
LOOKED_AT: Final = 100  # per table, to check whether the keys are right


async def rotate() -> dict[str, int]:
    """Rotate all secrets; return counts per table. Safe to repeat. Raises: VaultError."""
    counts: dict[str, int] = {}
    for table, column in COLUMNS:
        counts[table] = 0
        last = UUID(int=0)
        while True:
            rows = await database.rows(
                f"SELECT id, account_id, {column} AS sealed FROM {table}"  # noqa: S608 (only constants are put in)
                f" WHERE id > ? AND {column} IS NOT NULL ORDER BY id LIMIT {BATCH}",
                last,
            )
            for row in rows:
                account_id = database.to_uuid(row["account_id"])
                fresh = vault.seal(account_id, vault.unseal(account_id, row["sealed"]))
                # Compare and set: a secret that changed meanwhile is sealed with the first key already.
                counts[table] += await database.execute(
                    f"UPDATE {table} SET {column} = ? WHERE id = ? AND {column} = ?",  # noqa: S608 (only constants are put in)
                    fresh,
                    database.to_uuid(row["id"]),
                    row["sealed"],
                )
            if len(rows) < BATCH:
                break
            last = database.to_uuid(rows[-1]["id"])
    return counts


async def unreadable() -> dict[str, int]:
    """Count secrets that no key opens, by table."""
    found: dict[str, int] = {}
    for table, column in COLUMNS:
        rows = await database.rows(
            f"SELECT account_id, {column} AS sealed FROM {table}"  # noqa: S608 (only constants are put in)
            f" WHERE {column} IS NOT NULL ORDER BY id DESC LIMIT {LOOKED_AT}"
        )
        closed = sum(not _opens(database.to_uuid(row["account_id"]), row["sealed"]) for row in rows)
        if closed:
            found[table] = closed
    return found


def _opens(account_id: UUID, sealed: str) -> bool:
    try:
        vault.unseal(account_id, sealed)
    except vault.VaultError:
        return False
    return True
