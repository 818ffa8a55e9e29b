"""Notifications about payments, one per user and cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from models import database, rows
from models.errors import Forbidden
from models.ids import uuid7
from models.ledger import CardKind
from models.tables import Conversation, Notification, PaymentRequest
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change


class TeamKind(StrEnum):
    """Kinds of notifications that are about a conversation, not a payment request."""

    MENTIONED = "MENTIONED"
    ASSIGNED = "ASSIGNED"


def audience(request: PaymentRequest, conversation: Conversation, followers: Iterable[UUID]) -> set[UUID]:
    people = {request.created_by_id, conversation.assignee_id, *followers}
    return {person for person in people if person is not None}


async def notify(
    changed: Change,
    request: PaymentRequest,
    kind: CardKind,
    *,
    title: str,
    body: str,
    cause_key: str,
    admins: bool = False,
) -> None:
    """Notify the request's audience, or owners and admins if it is empty, once per user and cause.

    `admins`: owners and admins in any case.
    """
    conversation, followers = await _conversation(request.account_id, request.conversation_id)
    wanted = audience(request, conversation, [database.to_uuid(row[0]) for row in followers])
    people = await _people(changed.account_id, cause_key, wanted)
    users = [person for person in people if person.in_audience]
    if admins or not users:
        users += [person for person in people if not person.in_audience]
    _add_notifications(changed, users, kind, title, body, cause_key, request)


async def notify_admins(changed: Change, kind: CardKind, *, title: str, body: str, cause_key: str) -> None:
    people = await _people(changed.account_id, cause_key, set())
    _add_notifications(changed, people, kind, title, body, cause_key, None)


async def _conversation(account_id: UUID, id: UUID) -> tuple[Conversation, Sequence[Sequence[Any]]]:
    """With the ids of its followers."""
    found, followers = await database.records_together(
        rows.query(Conversation, "WHERE id = ? AND account_id = ?", id, account_id),
        ("SELECT user_id FROM conversation_follower WHERE conversation_id = ?", [id]),
    )
    conversation = rows.from_record(Conversation, found[0])
    if conversation.merged_into_id is None:
        return conversation, followers
    return await _conversation(account_id, conversation.merged_into_id)


def notify_users(
    changed: Change,
    users: Iterable[UUID],
    kind: TeamKind,
    *,
    title: str,
    body: str,
    cause_key: str,
    conversation_id: UUID,
) -> None:
    """Notify each of these active users. The cause is new."""
    for user in users:
        changed.notification(_new(changed, user, kind, title, body, cause_key, None, conversation_id))


@dataclass(frozen=True, slots=True)
class _Person:
    id: UUID
    in_audience: bool  # else an owner or admin
    is_notified: bool  # of this cause


async def _people(account_id: UUID, cause_key: str, wanted: set[UUID]) -> list[_Person]:
    """These users, owners and admins, without the disabled."""
    named = f" OR u.id IN ({database.placeholders(len(wanted))})" if wanted else ""
    found = await database.records(
        "SELECT u.id, EXISTS (SELECT 1 FROM notification n"  # noqa: S608 (only constants are put in)
        " WHERE n.account_id = u.account_id AND n.key = CAST(u.id AS VARCHAR(36)) || ?) AS is_notified"
        f" FROM user_account u WHERE u.account_id = ? AND u.disabled_at IS NULL AND (u.role IN ('OWNER', 'ADMIN'){named})"
        " ORDER BY u.id",
        f":{cause_key}",
        account_id,
        *sorted(wanted),
    )
    ids = [database.to_uuid(row[0]) for row in found]
    return [_Person(id, id in wanted, bool(row[1])) for id, row in zip(ids, found, strict=True)]


def _add_notifications(
    changed: Change,
    users: Iterable[_Person],
    kind: CardKind,
    title: str,
    body: str,
    cause_key: str,
    request: PaymentRequest | None,
) -> None:
    for user in users:
        if user.is_notified:
            continue
        request_id, conversation_id = (request.id, request.conversation_id) if request else (None, None)
        changed.notification(_new(changed, user.id, kind, title, body, cause_key, request_id, conversation_id))


def _new(
    changed: Change,
    user_id: UUID,
    kind: CardKind | TeamKind,
    title: str,
    body: str,
    cause_key: str,
    payment_request_id: UUID | None,
    conversation_id: UUID | None,
) -> Notification:
    return rows.new(
        Notification,
        id=uuid7(),
        account_id=changed.account_id,
        user_id=user_id,
        kind=kind.value,
        title=title[:200],
        body=body[:500],
        payment_request_id=payment_request_id,
        conversation_id=conversation_id,
        key=f"{user_id}:{cause_key}",
        created_at=changed.now,
    )


async def mark_read(actor: Actor, up_to_seq: int | None) -> int:
    """Mark the actor's notifications up to this log number as read; returns the unread count.

    Raises: Forbidden (the actor is no user).
    """
    if actor.user_id is None:
        raise Forbidden("Only a person has notifications.")
    async with change(actor.account_id, actor=actor.ref) as changed:
        unread = Notification.filter(account_id=actor.account_id, user_id=actor.user_id, read_at=None)
        if up_to_seq is not None:
            unread = unread.filter(seq__lte=up_to_seq)
        marked = await unread.update(read_at=changed.now)
        left = await unread_count(actor.user_id)
        if marked:
            changed.event("notification.read", user_id=actor.user_id, data={"unread_count": left})
        return left


async def unread_count(user_id: UUID) -> int:
    found = await database.rows("SELECT count(*) AS n FROM notification WHERE user_id = ? AND read_at IS NULL", user_id)
    return int(found[0]["n"])
