"""A user's rules for notifications: of whose conversations, and which go into the email digest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from models import database
from models.errors import Forbidden, Invalid, Refusals
from models.ids import uuid7
from models.tables import NotificationDigest, NotificationRule, User
from services.core.permissions import Actor
from services.core.unit_of_work import change
from services.team import mailing
from services.thread.notifications import Scope, Topic

OFF: Final = "OFF"
FREQUENCIES: Final = (OFF, "HOURLY", "DAILY")
DAY_MINUTES: Final = 24 * 60


@dataclass(frozen=True, slots=True)
class Rule:
    scope: str = Scope.FOLLOWED
    by_email: bool = True


@dataclass(frozen=True, slots=True)
class RuleChange:
    scope: str
    by_email: bool | None = None  # None: as it was


@dataclass(frozen=True, slots=True)
class Rules:
    by_topic: Mapping[str, Rule]  # every topic
    frequency: str = OFF
    quiet: tuple[int, int] | None = None  # minutes of the account's day; the first may be the later


async def read(user_id: UUID) -> Rules:
    rows = await NotificationRule.filter(user_id=user_id)
    stored = {row.topic: Rule(row.scope, row.by_email) for row in rows}
    digest = await NotificationDigest.get_or_none(user_id=user_id)
    by_topic = {topic.value: stored.get(topic.value, Rule()) for topic in Topic}
    if digest is None:
        return Rules(by_topic)
    quiet = None
    if digest.quiet_from is not None and digest.quiet_until is not None:
        quiet = (digest.quiet_from, digest.quiet_until)
    return Rules(by_topic, digest.frequency, quiet)


async def update(actor: Actor, changes: Mapping[str, Any]) -> Rules:
    """Change what is given: `rules` (topic -> RuleChange), `frequency`, `quiet` (None: no quiet hours).

    Raises: Forbidden (the actor is no user), Invalid, MailNotConfigured.
    """
    if actor.user_id is None:
        raise Forbidden("Only a person has notifications.")
    refusals = Refusals()
    with refusals:
        if changes.get("frequency", OFF) != OFF:
            mailing.require()
    with refusals:
        quiet = changes.get("quiet")
        if quiet is not None and (quiet[0] == quiet[1] or not all(0 <= minute < DAY_MINUTES for minute in quiet)):
            raise Invalid("Quiet hours begin and end at different times of the day.", field="quietHours")
    refusals.raise_any()
    async with change(actor.account_id, actor=actor.ref) as changed:
        await User.filter(id=actor.user_id).select_for_update(no_key=True).get()
        for topic, rule in changes.get("rules", {}).items():
            await _store(actor, topic, rule)
        if changes.keys() & {"frequency", "quiet"}:
            await _store_digest(actor, changes, changed.now)
    return await read(actor.user_id)


async def _store(actor: Actor, topic: str, rule: RuleChange) -> None:
    values: dict[str, Any] = {"scope": rule.scope} | ({} if rule.by_email is None else {"by_email": rule.by_email})
    of_topic = NotificationRule.filter(user_id=actor.user_id, topic=topic)
    if not await of_topic.update(**values):
        await NotificationRule.create(
            id=uuid7(), account_id=actor.account_id, user_id=actor.user_id, topic=topic, **{"by_email": True} | values
        )


async def _store_digest(actor: Actor, changes: Mapping[str, Any], now: datetime) -> None:
    row, _ = await NotificationDigest.get_or_create(
        {"id": uuid7(), "account_id": actor.account_id, "frequency": OFF}, user_id=actor.user_id
    )
    was = row.frequency
    row.frequency = changes.get("frequency", was)
    if "quiet" in changes:
        row.quiet_from, row.quiet_until = changes["quiet"] or (None, None)
    if row.frequency == OFF:
        row.next_at = None
    elif row.frequency != was:
        row.next_at = now
        # The digest begins now: what came before it is not sent.
        (newest,) = await database.records(
            "SELECT coalesce(max(seq), 0) FROM notification WHERE user_id = ?", actor.user_id
        )
        row.sent_seq = int(newest[0])
    await row.save(update_fields=["frequency", "quiet_from", "quiet_until", "sent_seq", "next_at"])
