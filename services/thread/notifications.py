"""Notifications about payments, one per user and cause."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from models import database, rows
from models.errors import Forbidden
from models.ids import uuid7
from models.ledger import CardKind
from models.tables import Conversation, Notification, PaymentRequest
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change


class TeamKind(StrEnum):
    """Kinds of notifications that are not about a payment request."""

    MENTIONED = "MENTIONED"
    ASSIGNED = "ASSIGNED"
    JOINED = "JOINED"


class Topic(StrEnum):
    PAYMENTS = "PAYMENTS"
    PROBLEMS = "PROBLEMS"
    TEAM = "TEAM"


class Scope(StrEnum):
    """Whose conversations a user is notified of."""

    NONE = "NONE"
    MINE = "MINE"  # assigned to the user, or with a request that the user created
    FOLLOWED = "FOLLOWED"  # those and the followed ones
    ALL = "ALL"


_GOOD_NEWS: Final = frozenset(
    {
        CardKind.PAYMENT_REQUEST,
        CardKind.PAYMENT_RECEIVED,
        CardKind.PARTIAL_PAYMENT,
        CardKind.PAYMENT_PROCESSING,
        CardKind.RECORDED_OUTSIDE,
        CardKind.REFUND_ISSUED,
    }
)


def topic_of(kind: str) -> Topic:
    if kind in TeamKind.__members__:
        return Topic.TEAM
    return Topic.PAYMENTS if kind in _GOOD_NEWS else Topic.PROBLEMS


@dataclass(frozen=True, slots=True)
class Audience:
    """The users whom a request concerns."""

    mine: frozenset[UUID]
    followers: frozenset[UUID]

    def is_wanted_by(self, user_id: UUID, scope: str) -> bool:
        if scope == Scope.FOLLOWED:
            return user_id in self.mine or user_id in self.followers
        return scope == Scope.ALL or (scope == Scope.MINE and user_id in self.mine)


def audience(request: PaymentRequest, conversation: Conversation, followers: Iterable[UUID]) -> Audience:
    mine = {request.created_by_id, conversation.assignee_id}
    return Audience(frozenset(person for person in mine if person is not None), frozenset(followers))


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
    """Notify the users who want it by their rules, or owners and admins if there are none, once per user and cause.

    `admins`: owners and admins in any case.
    """
    conversation, followers = await _conversation(request.account_id, request.conversation_id)
    wanted = audience(request, conversation, [database.to_uuid(row[0]) for row in followers])
    people = await _people(changed.account_id, cause_key, topic_of(kind), wanted)
    users = [person for person in people if person.in_audience]
    if admins or not users:
        users += [person for person in people if person.is_admin and not person.in_audience]
    _add_notifications(changed, users, kind, title, body, cause_key, request)


async def notify_admins(changed: Change, kind: CardKind, *, title: str, body: str, cause_key: str) -> None:
    people = await _people(changed.account_id, cause_key, topic_of(kind), _NO_ONE)
    admins = [person for person in people if person.is_admin]
    _add_notifications(changed, admins, kind, title, body, cause_key, None)


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


async def notify_users(
    changed: Change,
    users: Iterable[UUID],
    kind: TeamKind,
    *,
    title: str,
    body: str,
    cause_key: str,
    conversation_id: UUID | None = None,
) -> None:
    """Notify each of these active users unless they muted the topic TEAM. The cause is new."""
    asked = sorted(set(users))
    if not asked:
        return
    found = await database.records(
        "SELECT user_id FROM notification_rule WHERE topic = 'TEAM' AND scope = 'NONE'"  # noqa: S608 (only constants are put in)
        f" AND user_id IN ({database.placeholders(len(asked))})",
        *asked,
    )
    muted = {database.to_uuid(row[0]) for row in found}
    for user in asked:
        if user in muted:
            continue
        changed.notification(_new(changed, user, kind, title, body, cause_key, None, conversation_id))


@dataclass(frozen=True, slots=True)
class _Person:
    id: UUID
    is_admin: bool  # or owner
    in_audience: bool
    is_notified: bool  # of this cause


_NO_ONE: Final = Audience(frozenset(), frozenset())


async def _people(account_id: UUID, cause_key: str, topic: Topic, concerned: Audience) -> list[_Person]:
    """Owners, admins and users who may want it, without the disabled."""
    wanted = concerned.mine | concerned.followers
    named = f" OR u.id IN ({database.placeholders(len(wanted))})" if wanted else ""
    found = await database.records(
        "SELECT u.id, u.role IN ('OWNER', 'ADMIN') AS is_admin, coalesce(r.scope, 'FOLLOWED') AS scope,"  # noqa: S608 (only constants are put in)
        " EXISTS (SELECT 1 FROM notification n"
        " WHERE n.account_id = u.account_id AND n.key = CAST(u.id AS VARCHAR(36)) || ?) AS is_notified"
        " FROM user_account u LEFT JOIN notification_rule r ON r.user_id = u.id AND r.topic = ?"
        " WHERE u.account_id = ? AND u.disabled_at IS NULL"
        f" AND (u.role IN ('OWNER', 'ADMIN') OR r.scope = 'ALL'{named}) ORDER BY u.id",
        f":{cause_key}",
        topic.value,
        account_id,
        *sorted(wanted),
    )
    people = []
    for id, is_admin, scope, is_notified in found:
        user_id = database.to_uuid(id)
        people.append(_Person(user_id, bool(is_admin), concerned.is_wanted_by(user_id, scope), bool(is_notified)))
    return people


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
