"""Notifications about payments, one per user and cause."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from models import database
from models.errors import Forbidden
from models.ids import uuid7
from models.ledger import CardKind
from models.tables import Conversation, ConversationFollower, Notification, PaymentRequest, User
from services.core import merged_rows
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change


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
    conversation = await merged_rows.conversation_of(request.account_id, request.conversation_id)
    followers = await ConversationFollower.filter(conversation_id=conversation.id).values_list("user_id", flat=True)
    wanted = audience(request, conversation, [UUID(str(follower)) for follower in followers])
    active = User.filter(account_id=request.account_id, disabled_at=None)
    users = await active.filter(id__in=list(wanted)).order_by("id") if wanted else []
    if admins or not users:
        known = {user.id for user in users}
        others = await active.filter(role__in=["OWNER", "ADMIN"]).order_by("id")
        users += [user for user in others if user.id not in known]
    await _add_notifications(changed, users, kind, title, body, cause_key, request)


async def notify_admins(changed: Change, kind: CardKind, *, title: str, body: str, cause_key: str) -> None:
    active = User.filter(account_id=changed.account_id, disabled_at=None, role__in=["OWNER", "ADMIN"])
    await _add_notifications(changed, await active.order_by("id"), kind, title, body, cause_key, None)


async def _add_notifications(
    changed: Change,
    users: Iterable[User],
    kind: CardKind,
    title: str,
    body: str,
    cause_key: str,
    request: PaymentRequest | None,
) -> None:
    keys = {user.id: f"{user.id}:{cause_key}" for user in users}
    repeated = Notification.filter(account_id=changed.account_id, key__in=list(keys.values()))
    known_keys = {row.key for row in await repeated.only("id", "key")}
    for user in users:
        if keys[user.id] in known_keys:
            continue
        changed.notification(
            Notification(
                id=uuid7(),
                account_id=changed.account_id,
                user_id=user.id,
                kind=kind.value,
                title=title[:200],
                body=body[:500],
                payment_request_id=request.id if request else None,
                conversation_id=request.conversation_id if request else None,
                key=keys[user.id],
                created_at=changed.now,
            )
        )


async def mark_read(actor: Actor, up_to_seq: int | None) -> int:
    """Mark the actor's notifications up to this log number as read; returns the unread count.

    Raises: Forbidden (the actor is no user).
    """
    if actor.user_id is None:
        raise Forbidden("Only a person has notifications.")
    async with change(actor.account_id, actor_id=actor.user_id) as changed:
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
