"""Inputs that change the viewer's notifications."""

from __future__ import annotations

import re
from typing import Any

import strawberry

from models.errors import Invalid, Refusals
from schema.scalars import Cursor, DigestFrequency, NotificationScope, NotificationTopic
from services.team.notification_rules import RuleChange


@strawberry.input(description="Which notifications were read.")
class MarkNotificationsReadInput:
    up_to: Cursor = strawberry.field(
        description="The last one: a notification edge's cursor, an event's cursor or an eventCursor."
    )


@strawberry.input(description="What of one topic the viewer is notified of; what is left out stays.")
class NotificationRuleInput:
    topic: NotificationTopic = strawberry.field(description="The topic.")
    scope: NotificationScope = strawberry.field(description="Of whose conversations.")
    by_email: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether the email digest has it, too. Left out: as it was."
    )


@strawberry.input(description="Hours of the account's day in which no email is sent.")
class QuietHoursInput:
    from_: str = strawberry.field(
        name="from", description="When they begin: hours and minutes, e.g. 20:00. At most 5 characters."
    )
    until: str = strawberry.field(
        description="When they end, e.g. 07:30; earlier than `from`: on the next day. At most 5 characters."
    )

    def to_minutes(self) -> tuple[int, int]:
        """Raises: Invalid."""
        refusals = Refusals()
        with refusals:
            begins = _minute(self.from_, "from")
        with refusals:
            ends = _minute(self.until, "until")
        refusals.raise_any()
        return begins, ends


@strawberry.input(description="The viewer's rules; what is left out stays.")
class UpdateNotificationRulesInput:
    rules: list[NotificationRuleInput] = strawberry.field(
        default_factory=list, description="Topics to change, each once."
    )
    digest: DigestFrequency | None = strawberry.field(
        default=strawberry.UNSET, description="How often unread notifications are emailed."
    )
    quiet_hours: QuietHoursInput | None = strawberry.field(
        default=strawberry.UNSET, description="When no email is sent; null: any time."
    )

    def to_changes(self) -> dict[str, Any]:
        """Raises: Invalid."""
        rules = {}
        for given in self.rules:
            by_email = given.by_email if isinstance(given.by_email, bool) else None
            rules[given.topic.name] = RuleChange(given.scope.name, by_email)
        changes: dict[str, Any] = {"rules": rules}
        refusals = Refusals()
        with refusals:
            if len(rules) < len(self.rules):
                raise Invalid("Give each topic once.", field="rules")
        if self.digest:
            changes["frequency"] = self.digest.name
        with refusals:
            if self.quiet_hours is not strawberry.UNSET:
                changes["quiet"] = self.quiet_hours.to_minutes() if self.quiet_hours is not None else None
        refusals.raise_any()
        return changes


def _minute(text: str, name: str) -> int:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text, re.ASCII):
        raise Invalid("Hours and minutes are text such as 07:30.", field=("quietHours", name))
    return int(text[:2]) * 60 + int(text[3:])
