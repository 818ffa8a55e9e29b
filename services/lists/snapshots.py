"""Reads items as the matching of filters needs them, in one statement for all that are asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, TypeVar
from uuid import UUID

from models import database
from models.database import to_bool, to_json, to_time, to_uuid
from services.lists.matching import ConversationSnapshot, RequestSnapshot

T = TypeVar("T")

PER_STATEMENT: Final = 500

_REQUESTS: Final = (
    "SELECT r.id, r.discarded_at, r.status, r.refund_state, r.dispute_state, r.delivery_state, r.unresolved,"
    " r.amount_minor, r.amount_paid_minor, r.waived_minor, r.excess_minor, r.late_minor, r.currency, r.test_mode,"
    " r.created_at, r.updated_at, r.due_at, r.paid_at, r.processor_connection_id, n.kind, o.assignee_id,"
    " k.id, k.merged_ids, k.tags, r.search, k.search"
    " FROM payment_request r"
    " JOIN contact c ON c.id = r.contact_id JOIN contact k ON k.id = coalesce(c.merged_into_id, c.id)"
    " JOIN conversation v ON v.id = r.conversation_id JOIN conversation o ON o.id = coalesce(v.merged_into_id, v.id)"
    " LEFT JOIN channel_connection n ON n.id = r.channel_connection_id"
    " WHERE (r.account_id = ?) = TRUE AND r.id IN ({})"
)
_CONVERSATIONS: Final = (
    "SELECT v.id, v.merged_into_id, v.closed_at, v.unread_count, v.assignee_id, v.channel_kinds, v.waiting_since,"
    " v.last_activity_at, v.created_at,"
    " EXISTS (SELECT 1 FROM contact_summary s WHERE s.contact_id = c.id AND s.open_count > 0),"
    " v.merged_ids, c.id, c.merged_ids, c.tags, v.tags, c.search"
    " FROM conversation v JOIN contact c ON c.id = v.contact_id"
    " WHERE (v.account_id = ?) = TRUE AND v.id IN ({})"
)


async def of_requests(account_id: UUID, ids: Collection[UUID]) -> dict[UUID, RequestSnapshot]:
    """Also discarded ones."""
    found = [_request(record) for record in await _read(_REQUESTS, account_id, ids)]
    return {one.id: one for one in found}


async def of_conversations(account_id: UUID, ids: Collection[UUID]) -> dict[UUID, ConversationSnapshot]:
    """Also merged ones."""
    found = [_conversation(record) for record in await _read(_CONVERSATIONS, account_id, ids)]
    return {one.id: one for one in found}


async def conversations_of(account_id: UUID, contact_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """By contact."""
    sql = "SELECT contact_id, id FROM conversation WHERE (account_id = ?) = TRUE AND contact_id IN ({})"
    return {to_uuid(contact_id): to_uuid(id) for contact_id, id in await _read(sql, account_id, contact_ids)}


async def requests_of(account_id: UUID, conversations: Iterable[ConversationSnapshot]) -> dict[UUID, UUID]:
    """The requests in these conversations and in those merged with them, each with the conversation."""
    of = {id: one.id for one in conversations for id in (one.id, *one.merged_ids)}
    sql = "SELECT id, conversation_id FROM payment_request WHERE (account_id = ?) = TRUE AND conversation_id IN ({})"
    records = await _read(sql, account_id, of)
    return {to_uuid(id): of[to_uuid(conversation_id)] for id, conversation_id in records}


async def _read(sql: str, account_id: UUID, ids: Collection[UUID]) -> list[Sequence[Any]]:
    found: list[Sequence[Any]] = []
    wanted = list(ids)
    for first in range(0, len(wanted), PER_STATEMENT):
        part = wanted[first : first + PER_STATEMENT]
        found += await database.records(sql.format(database.placeholders(len(part))), account_id, *part)
    return found


def _request(record: Sequence[Any]) -> RequestSnapshot:
    values = iter(record)

    def plain() -> Any:
        return next(values)

    return RequestSnapshot(
        id=to_uuid(plain()),
        discarded=plain() is not None,
        status=plain(),
        refund_state=plain(),
        dispute_state=plain(),
        delivery_state=plain(),
        unresolved=_flag(plain()),
        amount_minor=plain(),
        amount_paid_minor=plain(),
        waived_minor=plain(),
        excess_minor=plain(),
        late_minor=plain(),
        currency=plain(),
        test_mode=_flag(plain()),
        created_at=to_time(plain()),
        updated_at=to_time(plain()),
        due_at=to_time(plain()),
        paid_at=to_time(plain()),
        processor_id=to_uuid(plain()),
        channel_kind=plain(),
        assignee_id=to_uuid(plain()),
        contact_ids=_with_merged(plain(), plain()),
        tags=frozenset(to_json(plain())),
        search=plain(),
        contact_search=plain(),
    )


def _conversation(record: Sequence[Any]) -> ConversationSnapshot:
    values = iter(record)

    def plain() -> Any:
        return next(values)

    return ConversationSnapshot(
        id=to_uuid(plain()),
        merged=plain() is not None,
        closed=plain() is not None,
        unread=plain() > 0,
        assignee_id=to_uuid(plain()),
        channel_kinds=plain(),
        waiting_since=to_time(plain()),
        last_activity_at=to_time(plain()),
        created_at=to_time(plain()),
        has_open_request=_flag(plain()),
        merged_ids=_ids(plain()),
        contact_ids=_with_merged(plain(), plain()),
        tags=frozenset(to_json(plain())) | frozenset(to_json(plain())),
        contact_search=plain(),
    )


def _flag(value: Any) -> bool:
    return bool(to_bool(value))


def _ids(value: Any) -> frozenset[UUID]:
    return frozenset(UUID(id) for id in to_json(value) or ())


def _with_merged(id: Any, merged_ids: Any) -> frozenset[UUID]:
    return _ids(merged_ids) | {to_uuid(id)}
