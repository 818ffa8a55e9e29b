"""Tells users of the team what happened to money, each one once. Which things are worth telling, the recorder decides."""

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
    """Who is told of a request: its creator, the conversation's assignee and followers."""
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
    """Add a notification for everybody of the audience, once per user and cause, in the caller's transaction.

    `admins`: for the account's owners and admins as well, who alone can change its settings. They are told, too, if the audience is
    empty (made by an API key, assigned to no user): money never arrives unseen.
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
    await _tell(changed, users, kind, title, body, cause_key, request)


async def notify_admins(changed: Change, kind: CardKind, *, title: str, body: str, cause_key: str) -> None:
    """Tell the account's owners and admins of what concerns no one request, once per user and cause, in the caller's transaction."""
    active = User.filter(account_id=changed.account_id, disabled_at=None, role__in=["OWNER", "ADMIN"])
    await _tell(changed, await active.order_by("id"), kind, title, body, cause_key, None)


async def _tell(
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
    told = {row.key for row in await repeated.only("id", "key")}
    for user in users:
        if keys[user.id] in told:
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
    """Mark the actor's notifications up to this log number (None: all) as read; how many are left. Raises: Forbidden (no user)."""
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
    """How many notifications this user has not read."""
    found = await database.rows("SELECT count(*) AS n FROM notification WHERE user_id = ? AND read_at IS NULL", user_id)
    return int(found[0]["n"])
