"""Inputs that change the viewer's notifications."""

from __future__ import annotations

import strawberry

from schema.scalars import Cursor


@strawberry.input(description="Which notifications were read.")
class MarkNotificationsReadInput:
    up_to: Cursor = strawberry.field(
        description="The last one: a notification edge's cursor, an event's cursor or an eventCursor."
    )
