"""Frees the conversations of disabled users."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from models import database
from models.ids import public_id
from models.tables import Conversation, User
from services.accounts.users import FREE_ASSIGNMENTS
from services.core import audit_log, jobs
from services.core.permissions import system_actor
from services.core.unit_of_work import change

BATCH: Final = 100


@jobs.handler(FREE_ASSIGNMENTS, on_dead="the conversations keep a disabled assignee; the team assigns them")
async def free(job: jobs.JobContext) -> None:
    if job.account_id is None:
        raise jobs.Permanent("a job of an account")
    user_id = UUID(job.payload["user_id"])
    while await _free_some(job.account_id, user_id):
        pass


async def _free_some(account_id: UUID, user_id: UUID) -> bool:
    if not await User.exists(id=user_id, disabled_at__isnull=False):  # enabled again since
        return False
    async with change(account_id) as changed:
        assigned = Conversation.filter(account_id=account_id, assignee_id=user_id, merged_into_id=None)
        found = await assigned.order_by("id").limit(BATCH).select_for_update(no_key=True)
        for row in found:
            await database.execute("UPDATE conversation SET assignee_id = NULL WHERE id = ?", row.id)
            changed.event("conversation.updated", conversation_id=row.id, contact_id=row.contact_id)
            await audit_log.record(system_actor(account_id), "conversation.unassigned", public_id("cnv", row.id))
    return len(found) == BATCH
