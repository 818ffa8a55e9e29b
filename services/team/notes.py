"""Internal notes in a thread. Only the team reads them: no channel, search or page of a contact does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from models import rows
from models.errors import Invalid, NotFound, Refusals
from models.ids import public_id, uuid7
from models.tables import Conversation, Note, NoteMention, User
from services.core import audit_log, idempotency, merged_rows, validation
from services.core.permissions import Actor, allows
from services.core.unit_of_work import Change, change
from services.thread import notifications

LIMIT: Final = 10_000  # characters
MOST_MENTIONS: Final = 50
PERMISSION: Final = "notes"


async def add(
    actor: Actor, conversation_id: UUID, body: str, *, mentions: Sequence[UUID], idempotency_key: str
) -> Note:
    """Add a note and notify the users whom it mentions. Safe to repeat with the same idempotency key.

    Raises: Forbidden, NotFound, Blank, TooLong, Invalid.
    """
    fields = {"conversation": conversation_id, "body": body, "mentions": list(mentions)}

    async def run(save: idempotency.Save) -> Note:
        return await _add(actor, conversation_id, body, mentions, save)

    async def rebuild(ids: dict[str, Any]) -> Note:
        return await Note.get(id=UUID(ids["note"]), account_id=actor.account_id)

    return await idempotency.once(actor, "addNote", idempotency_key, fields, run, rebuild)


async def _add(
    actor: Actor, conversation_id: UUID, body: str, mentions: Sequence[UUID], save: idempotency.Save
) -> Note:
    actor.require(PERMISSION)
    refusals = Refusals()
    with refusals:
        text = validation.required(body, limit=LIMIT, field="body", message=True)
    async with change(actor.account_id, actor=actor.ref, queue_on=[conversation_id]) as changed:
        with refusals:
            conversation = await _lock(actor.account_id, conversation_id)
        with refusals:
            mentioned = await _mentioned(actor.account_id, mentions)
        refusals.raise_any()
        note = rows.new(
            Note,
            id=uuid7(),
            account_id=actor.account_id,
            conversation_id=conversation.id,
            contact_id=conversation.contact_id,
            body=text,
            author=actor.ref.stored(),
            occurred_at=changed.now,
        )
        changed.note(
            note,
            [
                rows.new(NoteMention, id=uuid7(), account_id=actor.account_id, note_id=note.id, user_id=user.id)
                for user in mentioned
            ],
        )
        await _notify(changed, actor, note, mentioned)
        await audit_log.record(actor, "note.added", public_id("note", note.id))
        await save({"note": str(note.id)})
        return note


async def _lock(account_id: UUID, conversation_id: UUID) -> Conversation:
    row = await merged_rows.lock_conversation(account_id, conversation_id)
    if row is None:
        raise NotFound(field="conversationId")
    return row


async def _mentioned(account_id: UUID, ids: Sequence[UUID]) -> list[User]:
    if len(ids) > MOST_MENTIONS:
        raise Invalid(f"A note mentions at most {MOST_MENTIONS} people.", field="mentions")
    found = await User.filter(id__in=set(ids), account_id=account_id, disabled_at=None).order_by("id") if ids else []
    roles = {user.id: user.role for user in found}
    refusals = Refusals()
    for n, id in enumerate(ids):
        with refusals:
            if id not in roles:
                raise NotFound("A mentioned user does not exist or is disabled.", field=("mentions", str(n)))
            if not allows(roles[id], PERMISSION):
                raise Invalid("A mentioned user may not read notes.", field=("mentions", str(n)))
    refusals.raise_any()
    return found


async def _notify(changed: Change, actor: Actor, note: Note, mentioned: Sequence[User]) -> None:
    await notifications.notify_users(
        changed,
        [user.id for user in mentioned if user.id != actor.user_id],
        notifications.TeamKind.MENTIONED,
        title=f"{actor.name} mentioned you",
        body=note.body,
        cause_key=f"note:{note.id}",
        conversation_id=note.conversation_id,
    )


def may_read(actor: Actor) -> bool:
    return actor.may(PERMISSION)
