"""Finds the kept row of a merged contact or conversation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final
from uuid import UUID

from tortoise.queryset import QuerySet

from models import database, rows
from models.tables import Contact, Conversation, Message

_OWN: Final = "WHERE id = ? AND account_id = ?"
_KEPT: Final = f"{_OWN} AND merged_into_id IS NULL"


def ids_of(row: Contact | Conversation) -> list[UUID]:
    return [row.id, *(UUID(id) for id in row.merged_ids or ())]


async def contact(account_id: UUID, id: UUID) -> Contact | None:
    row = await rows.first(Contact, _OWN, id, account_id)
    while row is not None and row.merged_into_id is not None:
        row = await rows.first(Contact, _OWN, row.merged_into_id, account_id)
    return row


async def contact_of(account_id: UUID, id: UUID) -> Contact:
    row = await contact(account_id, id)
    if row is None:
        raise RuntimeError("a row without its contact")
    return row


async def conversation(account_id: UUID, id: UUID) -> Conversation | None:
    row = await rows.first(Conversation, _OWN, id, account_id)
    while row is not None and row.merged_into_id is not None:
        row = await rows.first(Conversation, _OWN, row.merged_into_id, account_id)
    return row


async def conversation_of(account_id: UUID, id: UUID) -> Conversation:
    row = await conversation(account_id, id)
    if row is None:
        raise RuntimeError("a row without its conversation")
    return row


async def lock_contact(account_id: UUID, id: UUID) -> Contact | None:
    while True:
        row = await rows.first(Contact, _KEPT, id, account_id, lock=True)
        if row is not None:
            return row
        # Merged, perhaps during the wait: lock the kept row.
        known = await rows.first(Contact, _OWN, id, account_id)
        if known is None:
            return None
        id = known.merged_into_id or id


async def lock_conversation(account_id: UUID, id: UUID) -> Conversation | None:
    while True:
        row = await rows.first(Conversation, _KEPT, id, account_id, lock=True)
        if row is not None:
            return row
        known = await rows.first(Conversation, _OWN, id, account_id)
        if known is None:
            return None
        id = known.merged_into_id or id


async def contact_ids(account_id: UUID, id: UUID) -> list[UUID]:
    row = await contact(account_id, id)
    return ids_of(row) if row is not None else []


async def messages_of(message: Message) -> QuerySet[Message]:
    row = await conversation_of(message.account_id, message.conversation_id)
    return Message.filter(conversation_id__in=ids_of(row))


async def newest_inbound(
    conversations: Sequence[Conversation], column: str, *, kind: str | None = None
) -> dict[UUID, UUID]:
    of = {id: row.id for row in conversations for id in ids_of(row)}
    newest = (
        "(SELECT m.{} FROM message m WHERE m.conversation_id = c.id AND m.direction = 'INBOUND'"  # noqa: S608 (constants)
        f"{' AND m.kind = ?' if kind is not None else ''} ORDER BY m.seq DESC LIMIT 1)"
    )
    given = [kind] if kind is not None else []
    found = await database.rows(
        f"SELECT c.id AS id, {newest.format(column)} AS found, {newest.format('seq')} AS seq"  # noqa: S608 (only constants are put in)
        f" FROM conversation c WHERE c.id IN ({database.placeholders(len(of))})",
        *given,
        *given,
        *of,
    )
    result: dict[UUID, UUID] = {}
    for raw in sorted((raw for raw in found if raw["found"] is not None), key=lambda raw: int(raw["seq"])):
        result[of[database.to_uuid(raw["id"])]] = database.to_uuid(raw["found"])
    return result


async def replaced(table: str, account_id: UUID, ids: Collection[UUID]) -> dict[UUID, UUID]:
    """The merged rows among `ids`, with the ids of their kept rows."""
    if not ids:
        return {}
    found: Sequence[dict[str, object]] = await database.rows(
        f"SELECT id, merged_into_id FROM {table} WHERE account_id = ? AND merged_into_id IS NOT NULL"  # noqa: S608 (only constants are put in)
        f" AND id IN ({database.placeholders(len(ids))})",
        account_id,
        *ids,
    )
    return {database.to_uuid(row["id"]): database.to_uuid(row["merged_into_id"]) for row in found}
