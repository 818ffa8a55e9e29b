"""Re-seals every secret at rest with the first of SECRET_KEYS, so that an older key can be taken out; finds what no key opens.

Logs and prints no secret.
"""

from __future__ import annotations

from typing import Final
from uuid import UUID

from models import database, vault

COLUMNS: Final = (
    ("processor_connection", "credentials"),
    ("channel_connection", "credentials"),
    ("payment_request", "token"),
    ("attachment", "source_url"),  # only until the file is there
    ("job", "sealed"),
)
BATCH: Final = 500
LOOKED_AT: Final = 100  # of each table, when only asked whether the keys are the right ones


async def rotate() -> dict[str, int]:
    """How many secrets of each table were sealed anew. Works on a running system and can be repeated; across all accounts by design.

    Raises: VaultError for a secret that none of the keys opens; what was done before it stays done.
    """
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
                # Compare and set: a secret that was changed meanwhile was sealed with the first key already.
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
    """How many of the newest secrets of each table none of the keys opens; tables without such are left out. Reads only."""
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
