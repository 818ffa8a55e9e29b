"""Mutations: the viewer's notifications."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import strawberry

from models.errors import Invalid
from models.event_log import Cursor as EventCursor
from models.event_log import CursorInvalid
from resolvers.mutations.fields import mutation
from schema.connections import NOTIFICATIONS
from schema.context import Info
from schema.failures import ApiError
from schema.inputs.notifications import MarkNotificationsReadInput, UpdateNotificationRulesInput
from schema.notification import NotificationRules
from schema.payloads import MarkNotificationsReadPayload, UpdateNotificationRulesPayload
from schema.viewer import Viewer
from services.team import notification_rules
from services.thread import notifications


def _log_number(cursor: str, account_id: UUID) -> int:
    try:
        return EventCursor.decode(cursor, account_id).seq
    except CursorInvalid:
        pass
    try:
        (seq,) = NOTIFICATIONS.key(cursor, "upTo")
    except ApiError as error:
        raise Invalid("This is not a cursor of notifications.", field="upTo") from error
    if not isinstance(seq, int):
        raise TypeError(seq)
    return seq


@strawberry.type
class NotificationMutations:
    @mutation("Mark the viewer's notifications as read, up to and including a position.")
    async def mark_notifications_read(
        self,
        info: Info,
        input: Annotated[MarkNotificationsReadInput, strawberry.argument(description="Which ones were read.")],
    ) -> MarkNotificationsReadPayload:
        seq = _log_number(input.up_to, info.context.actor.account_id)
        await notifications.mark_read(info.context.actor, seq)
        return MarkNotificationsReadPayload(viewer=Viewer.from_actor(info.context.actor))

    @mutation("Change of what the viewer is notified, and the email digest. For people.")
    async def update_notification_rules(
        self,
        info: Info,
        input: Annotated[UpdateNotificationRulesInput, strawberry.argument(description="What to change.")],
    ) -> UpdateNotificationRulesPayload:
        rules = await notification_rules.update(info.context.actor, input.to_changes())
        return UpdateNotificationRulesPayload(notification_rules=NotificationRules.from_rules(rules))
