"""Reads and appends an account's gapless event log."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from models import database

RETENTION = timedelta(days=30)
_PER_STATEMENT = 500  # entries of 14 values; both engines take 32,766 values
_LAST = 2**63 - 1

_COLUMNS = (
    "account_id, seq, kind, conversation_id, contact_id, payment_request_id, message_id, card_id, payment_id,"
    " notification_id, user_id, data, at, actor"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """An event; `data` holds what the ids do not."""

    account_id: UUID
    seq: int
    kind: str
    at: datetime
    conversation_id: UUID | None = None
    contact_id: UUID | None = None
    payment_request_id: UUID | None = None
    message_id: UUID | None = None
    card_id: UUID | None = None
    payment_id: UUID | None = None
    notification_id: UUID | None = None
    user_id: UUID | None = None
    actor: str | None = None  # services/core/actors.py; None: not known, an entry of an older version
    data: dict[str, Any] = field(default_factory=dict)


async def reserve(account_id: UUID, count: int) -> int:
    """Raise the counter; return the first new number. Call last in the transaction."""
    return (await reserve_and_merges(account_id, count))[0]


async def reserve_and_merges(account_id: UUID, count: int) -> tuple[int, int]:
    """As `reserve`, with the number of merged contacts."""
    # The row lock makes numbers follow commits; a sequence would not.
    found = await database.records(
        "UPDATE account SET event_seq = event_seq + ? WHERE id = ? RETURNING event_seq, merge_count", count, account_id
    )
    newest, merges = found[0]
    return int(newest) - count + 1, int(merges)


async def append(entries: Sequence[LogEntry], *beside: database.Statement) -> None:
    """Insert entries directly after `reserve`, and run `beside` with them."""
    parts = range(0, len(entries), _PER_STATEMENT)
    await database.write_together(*beside, *(_insertion(entries[start : start + _PER_STATEMENT]) for start in parts))


def _insertion(entries: Sequence[LogEntry]) -> database.Statement:
    marks = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(entries))
    values: list[object] = []
    for e in entries:
        values += [
            e.account_id,
            e.seq,
            e.kind,
            e.conversation_id,
            e.contact_id,
            e.payment_request_id,
            e.message_id,
            e.card_id,
            e.payment_id,
            e.notification_id,
            e.user_id,
            orjson.dumps(e.data).decode(),
            e.at,
            e.actor,
        ]
    return f"INSERT INTO event ({_COLUMNS}) VALUES {marks}", values  # noqa: S608 (constant columns)


async def read(account_id: UUID, after: int, limit: int) -> list[LogEntry]:
    found = await database.rows(
        f"SELECT {_COLUMNS} FROM event WHERE account_id = ? AND seq > ? ORDER BY seq LIMIT ?",  # noqa: S608 (only constants are put in)
        account_id,
        after,
        limit,
    )
    return [_entry(row) for row in found]


async def heads(account_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The newest number per account."""
    if not account_ids:
        return {}
    marks = ", ".join("?" * len(account_ids))
    found = await database.rows(f"SELECT id, event_seq FROM account WHERE id IN ({marks})", *account_ids)  # noqa: S608 (only constants are put in)
    return {database.to_uuid(row["id"]): int(row["event_seq"]) for row in found}


async def oldest(account_id: UUID) -> int:
    """The smallest number, or head + 1 if the log is empty."""
    found = await database.rows(
        "SELECT coalesce((SELECT min(seq) FROM event WHERE account_id = ?),"
        " (SELECT event_seq + 1 FROM account WHERE id = ?)) AS seq",
        account_id,
        account_id,
    )
    return int(found[0]["seq"] or 0)


async def prune(now: datetime) -> int:
    """Delete old entries, lowest numbers first: a hole would lose events."""
    before = now - RETENTION
    count = 0
    for row in await database.rows("SELECT DISTINCT account_id FROM event WHERE at < ?", before):
        async with database.transaction():
            await database.execute("INSERT INTO event_pruning (before) VALUES (?)", before)
            count += await database.execute(
                "DELETE FROM event WHERE account_id = ? AND seq < coalesce("
                "(SELECT seq FROM event WHERE account_id = ? AND at >= ? ORDER BY seq LIMIT 1), ?)",
                row["account_id"],
                row["account_id"],
                before,
                _LAST,
            )
            await database.execute("DELETE FROM event_pruning")
    return count


def _entry(row: dict[str, Any]) -> LogEntry:
    ids = {
        name: database.to_uuid(row[name]) if row[name] is not None else None
        for name in (
            "conversation_id",
            "contact_id",
            "payment_request_id",
            "message_id",
            "card_id",
            "payment_id",
            "notification_id",
            "user_id",
        )
    }
    return LogEntry(
        account_id=database.to_uuid(row["account_id"]),
        seq=int(row["seq"]),
        kind=row["kind"],
        at=database.to_time(row["at"]),
        actor=row["actor"],
        data=database.to_json(row["data"]) or {},
        **ids,
    )


# ------------------------------------------------------------------------------------------------------------ cursors
class CursorInvalid(ValueError):
    """Not a cursor, or another account's."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """A log position; a restored backup has a new epoch."""

    epoch: str
    account_id: UUID
    seq: int

    def encode(self) -> str:
        raw = b"1" + self.account_id.bytes + self.seq.to_bytes(8, "big") + self.epoch.encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    @staticmethod
    def decode(text: str, account_id: UUID) -> Cursor:
        """Raises: CursorInvalid."""
        try:
            raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            if len(raw) < 26 or raw[:1] != b"1" or raw[1:17] != account_id.bytes:
                raise CursorInvalid(text)
            seq = int.from_bytes(raw[17:25], "big")
            if seq > _LAST:
                raise CursorInvalid(text)
            return Cursor(raw[25:].decode("ascii"), account_id, seq)
        except (ValueError, UnicodeDecodeError) as error:
            raise CursorInvalid(text) from error
