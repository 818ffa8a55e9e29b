"""Marks conversations as read, closes, assigns and follows them, and keeps their drafts."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from models.errors import Forbidden, NotFound, Refusals
from models.ids import public_id, uuid7
from models.tables import Conversation, ConversationFollower, User
from services.core import audit_log, merged_rows, validation
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change
from services.thread import notifications

DRAFT_LIMIT: Final = 10_000  # characters


async def mark_read(actor: Actor, conversation_id: UUID) -> Conversation:
    actor.require("message")
    async with change(actor.account_id, actor=actor.ref, queue_on=[conversation_id]) as changed:
        conversation = await _lock(actor, conversation_id)
        if conversation.unread_count:
            await _store_field(changed, conversation, "unread_count", 0)
        return conversation


async def close(actor: Actor, conversation_id: UUID) -> Conversation:
    """Close it until something happens in it; unit_of_work.py reopens it."""
    actor.require("message")
    async with change(actor.account_id, actor=actor.ref, queue_on=[conversation_id]) as changed:
        conversation = await _lock(actor, conversation_id)
        if conversation.closed_at is None:
            conversation.waiting_since = None  # the team needs no answer
            await conversation.save(update_fields=["waiting_since"])
            await _store_field(changed, conversation, "closed_at", changed.now)
        return conversation


async def reopen(actor: Actor, conversation_id: UUID) -> Conversation:
    actor.require("message")
    async with change(actor.account_id, actor=actor.ref, queue_on=[conversation_id]) as changed:
        conversation = await _lock(actor, conversation_id)
        if conversation.closed_at is not None:
            await _store_field(changed, conversation, "closed_at", None)
        return conversation


async def assign(actor: Actor, conversation_id: UUID, user_id: UUID | None) -> Conversation:
    actor.require("message")
    async with change(actor.account_id, actor=actor.ref, queue_on=[conversation_id]) as changed:
        refusals = Refusals()
        with refusals:
            conversation = await _lock(actor, conversation_id)
        with refusals:
            if user_id is not None and not await _lock_active_user(actor.account_id, user_id):
                raise NotFound(field="userId")
        refusals.raise_any()
        if conversation.assignee_id != user_id:
            await _store_field(changed, conversation, "assignee_id", user_id)
            if user_id is not None and user_id != actor.user_id:
                await _notify_assignee(changed, actor, conversation, user_id)
            await audit_log.record(actor, "conversation.assigned", public_id("cnv", conversation.id))
        return conversation


async def follow(actor: Actor, conversation_id: UUID, following: bool) -> Conversation:
    """Turn the actor's notifications of this conversation on or off.

    Raises: Forbidden (the actor is no user).
    """
    actor.require("read")
    if actor.user_id is None:
        raise Forbidden("Only a person can follow a conversation.")
    async with change(actor.account_id, actor=actor.ref, queue_on=[conversation_id]) as changed:
        conversation = await _lock(actor, conversation_id)
        held = ConversationFollower.filter(conversation_id=conversation.id, user_id=actor.user_id)
        if await held.exists() != following:
            if following:
                await ConversationFollower.create(
                    id=uuid7(), account_id=actor.account_id, conversation_id=conversation.id, user_id=actor.user_id
                )
            else:
                await held.delete()
            changed.event("conversation.updated", conversation_id=conversation.id, contact_id=conversation.contact_id)
        return conversation


async def save_draft(actor: Actor, conversation_id: UUID, draft: str | None) -> Conversation:
    """Store the team's unsent text, spaces included."""
    actor.require("message")
    refusals = Refusals()
    with refusals:
        kept = draft if validation.optional(draft, limit=DRAFT_LIMIT, field="text", message=True) is not None else None
    async with change(actor.account_id, actor=actor.ref, queue_on=[conversation_id]) as changed:
        with refusals:
            conversation = await _lock(actor, conversation_id)
        refusals.raise_any()
        if conversation.draft != kept:
            await _store_field(changed, conversation, "draft", kept)
        return conversation


async def _notify_assignee(changed: Change, actor: Actor, conversation: Conversation, user_id: UUID) -> None:
    contact = await merged_rows.contact_of(actor.account_id, conversation.contact_id)
    await notifications.notify_users(
        changed,
        [user_id],
        notifications.TeamKind.ASSIGNED,
        title=f"{actor.name} assigned {contact.name} to you",
        body=conversation.preview,
        cause_key=f"assigned:{uuid7()}",
        conversation_id=conversation.id,
    )


async def _lock(actor: Actor, conversation_id: UUID) -> Conversation:
    row = await merged_rows.lock_conversation(actor.account_id, conversation_id)
    if row is None:
        raise NotFound(field="conversationId")
    return row


async def _lock_active_user(account_id: UUID, user_id: UUID) -> bool:
    # The lock: disabling the user frees assignments that are committed before it.
    active = User.filter(id=user_id, account_id=account_id, disabled_at=None)
    return await active.select_for_update(no_key=True).first() is not None


async def _store_field(changed: Change, conversation: Conversation, field: str, value: object) -> None:
    setattr(conversation, field, value)
    await conversation.save(update_fields=[field])
    changed.event("conversation.updated", conversation_id=conversation.id, contact_id=conversation.contact_id)
