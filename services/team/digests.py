"""Emails with a user's unread notifications."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from integrations.operator_mail import Mail
from models import database, time_zones
from models.ledger import CardKind
from models.tables import Account, Notification, NotificationDigest, User
from services.core import jobs
from services.team import mailing, notification_rules
from services.team.notification_rules import DAY_MINUTES
from services.thread.notifications import TeamKind, topic_of

MAIL: Final = "digest"
BATCH: Final = 200
SHOWN: Final = 50
DELAY: Final = timedelta(minutes=5)  # time to read it in the inbox first
PAUSE: Final = timedelta(hours=1)
PERIOD: Final = timedelta(minutes=1)
MORNING: Final = 8 * 60  # minute of the account's day


@jobs.periodic("notifications.digest", int(PERIOD.total_seconds()))
async def send_due(job: jobs.JobContext) -> None:
    await send(datetime.now(UTC))


async def send(now: datetime) -> int:
    """Queue the digests that are due; return how many. Processes may run it at the same time."""
    if not mailing.available():
        return 0
    queued = 0
    while due := await _due(now):
        for id in due:
            async with database.transaction():
                row = await NotificationDigest.filter(id=id, next_at__lte=now).select_for_update(no_key=True).first()
                if row is not None:
                    queued += await _queue(row, now)
    return queued


async def _due(now: datetime) -> list[UUID]:
    due = NotificationDigest.filter(next_at__lte=now).order_by("next_at", "id").limit(BATCH)
    return [row.id for row in await due]


async def _queue(row: NotificationDigest, now: datetime) -> bool:
    account = await Account.get(id=row.account_id)
    wakes = _end_of_quiet(row, account.time_zone, now)
    if wakes is not None:
        row.next_at = wakes
        await row.save(update_fields=["next_at"])
        return False
    found = await _unread(row.user_id, after=row.sent_seq, until=now - DELAY)
    row.next_at = _next(row, account.time_zone, now, sent=bool(found))
    if found:
        payload = {"user_id": str(row.user_id), "after": str(row.sent_seq), "until": str(found[-1].seq)}
        row.sent_seq = found[-1].seq
        await mailing.enqueue(MAIL, payload, account_id=row.account_id, token="")
    await row.save(update_fields=["next_at", "sent_seq"])
    return bool(found)


def _end_of_quiet(row: NotificationDigest, time_zone: str, now: datetime) -> datetime | None:
    """None: `now` is not in the quiet hours."""
    if row.quiet_from is None or row.quiet_until is None:
        return None
    there = now.astimezone(time_zones.zone(time_zone))
    minute = there.hour * 60 + there.minute
    # How far into the quiet hours it is, which may begin on the day before.
    quiet = (minute - row.quiet_from) % DAY_MINUTES < (row.quiet_until - row.quiet_from) % DAY_MINUTES
    return _next_time(row.quiet_until, time_zone, now) if quiet else None


def _next(row: NotificationDigest, time_zone: str, now: datetime, *, sent: bool) -> datetime:
    if row.frequency == "DAILY":
        return _next_time(MORNING, time_zone, now)
    return now + (PAUSE if sent else PERIOD)


def _next_time(minute: int, time_zone: str, now: datetime) -> datetime:
    """The next moment at which the zone's clock shows this minute of the day."""
    for days_ahead in (0, 1):
        moment = time_zones.start_of_day(time_zone, now, days_ahead=days_ahead).astimezone(time_zones.zone(time_zone))
        for fold in (0, 1):  # where the clock repeats the hour, both
            clock = moment.replace(hour=minute // 60, minute=minute % 60, fold=fold).astimezone(UTC)
            if clock > now:
                return clock
    return now + timedelta(days=1)


async def _unread(
    user_id: UUID, *, after: int, until: datetime | None = None, up_to: int | None = None
) -> Sequence[Notification]:
    """Oldest first, of the topics that go by email."""
    rules = await notification_rules.read(user_id)
    kinds = [kind.value for kind in (*CardKind, *TeamKind) if rules.by_topic[topic_of(kind)].by_email]
    query = Notification.filter(user_id=user_id, seq__gt=after, read_at=None, kind__in=kinds)
    query = query.filter(created_at__lte=until) if until is not None else query
    query = query.filter(seq__lte=up_to) if up_to is not None else query
    return await query.order_by("seq").limit(BATCH)


async def _compose(payload: dict[str, Any], token: str) -> Mail | None:
    user = await User.get_or_none(id=UUID(payload["user_id"]), disabled_at=None)
    if user is None:
        return None
    rows = await _unread(user.id, after=int(payload["after"]), up_to=int(payload["until"]))
    if not rows:
        return None  # read meanwhile
    account = await Account.get(id=user.account_id)
    there = time_zones.zone(account.time_zone)
    lines = [f"{row.created_at.astimezone(there):%d %b %H:%M}  {row.title}\n    {row.body}" for row in rows[:SHOWN]]
    if len(rows) > SHOWN:
        lines.append(f"and {len(rows) - SHOWN} more")
    count = "1 unread notification" if len(rows) == 1 else f"{len(rows)} unread notifications"
    return Mail(
        recipient=user.email,
        subject=f"{account.name}: {count}",
        text=f"Hello {user.name},\n\n"
        + "\n\n".join(lines)
        + "\n\nYou choose in your notification rules which emails you get.\n",
    )


mailing.kinds[MAIL] = mailing.Kind(compose=_compose)
