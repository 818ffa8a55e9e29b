"""Edits, removals and reactions that channels report."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import orjson
import structlog

from integrations.base import MessageChange
from integrations.base import external_id as stored_id
from models.storable import storable
from models.tables import Attachment, ChannelConnection, Conversation, Job, Message
from services.connections import providers
from services.core import actors, jobs
from services.core.unit_of_work import change
from services.messaging import opt_outs
from services.thread import contact_totals

log = structlog.get_logger(__name__)

NO_TEXT: Final = "[message without text]"
REMOVED: Final = "[message removed by its writer]"
REACTION_LIMIT: Final = 40
TRY_AGAIN: Final = timedelta(minutes=1)
PREVIEW_LIMIT: Final = 160  # of a conversation, as unit_of_work.py cuts it


async def record(connection: ChannelConnection, reported: MessageChange, *, again: bool = False) -> None:
    """Apply an edit, removal or reaction; a change older than the last is ignored."""
    known = Message.filter(channel_connection_id=connection.id, external_id=stored_id(reported.external_id))
    found = await known.get_or_none()
    if found is None:
        log.info("change_of_unknown_message", connection=str(connection.id))
        if not again:  # the message's own callback may still be running
            await _try_later(connection, reported)
        return
    by = actors.channel(connection.display_name)
    async with change(connection.account_id, actor=by, queue_on=[found.contact_id]) as changed:
        contact = await contact_totals.lock_contact(connection.account_id, found.contact_id)
        if found.direction == "INBOUND" or reported.reaction is not None:
            changed.actor = actors.contact(contact.id)
        conversation = await Conversation.filter(contact_id=contact.id).select_for_update(no_key=True).get()
        message = await Message.filter(id=found.id).select_for_update(no_key=True).get()
        if message.removed_at is not None:
            return
        at = reported.occurred_at or changed.now
        before = message.body
        if reported.removed:  # Meta's platform terms: delete text, files and preview
            message.body = REMOVED
            message.update_from_dict({"subject": None, "quoted_text": None})
            message.reaction, message.removed_at = None, changed.now
            await Attachment.filter(message_id=message.id).delete()
        elif reported.body is not None and (message.edited_at is None or message.edited_at < at):
            message.body, message.edited_at = storable(reported.body).strip() or NO_TEXT, at
            if reported.opt_out is not None and message.direction == "INBOUND":
                record_choice = opt_outs.opt_out if reported.opt_out else opt_outs.opt_in
                await record_choice(changed, connection.id, message.kind, message.address)
        elif reported.reaction is not None:
            message.reaction = storable(reported.reaction).strip()[:REACTION_LIMIT] or None
        else:
            return
        await message.save(
            update_fields=["body", "subject", "quoted_text", "reaction", "edited_at", "removed_at", "updated_at"]
        )
        changed.event(
            "message.updated",
            conversation_id=conversation.id,
            contact_id=message.contact_id,
            message_id=message.id,
        )
        if message.body != before and conversation.preview == before[:PREVIEW_LIMIT]:
            await Conversation.filter(id=conversation.id).update(preview=message.body[:PREVIEW_LIMIT])
            changed.event("conversation.updated", conversation_id=conversation.id, contact_id=message.contact_id)


async def removed_early(connection: ChannelConnection, external_id: str) -> bool:
    """Whether a message that is not stored yet has been removed."""
    return await Job.exists(key=_removal_key(connection, external_id))


def _removal_key(connection: ChannelConnection, external_id: str) -> str:
    named = hashlib.sha256(storable(stored_id(external_id)).encode()).hexdigest()
    return f"message.removed:{connection.id}:{named}"


async def _try_later(connection: ChannelConnection, reported: MessageChange) -> None:
    kept = orjson.dumps(storable(dataclasses.asdict(reported))).decode()
    await jobs.enqueue(
        "message.change",
        {"connection_id": str(connection.id)},
        account_id=connection.account_id,
        key=_removal_key(connection, reported.external_id) if reported.removed else None,
        secret=kept,  # private text
        due_at=datetime.now(UTC) + TRY_AGAIN,
    )


@jobs.handler("message.change", on_dead="the change is of an unknown message")
async def _change_job(job: jobs.JobContext) -> None:
    connection = await providers.channel_connection(UUID(job.payload["connection_id"]), job.account_id)
    given = orjson.loads(job.secret)
    if given["occurred_at"] is not None:
        given["occurred_at"] = datetime.fromisoformat(given["occurred_at"])
    await record(connection, MessageChange(**given), again=True)
