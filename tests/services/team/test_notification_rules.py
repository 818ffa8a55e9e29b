"""Whom a payment notifies by each user's rules, and the email digest of what stays unread."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.errors import Forbidden, Invalid
from models.ids import uuid7
from models.ledger import CardKind
from models.tables import Account, Notification, NotificationDigest, User
from services.core.permissions import Actor, system_actor
from services.core.unit_of_work import change
from services.messaging import conversations
from services.team import digests, mailing, notification_rules
from services.team.notification_rules import Rule, RuleChange
from services.thread import notifications
from services.thread.notifications import Scope, Topic
from tests import factories
from tests.services.conftest import Team

PAID, FAILED = CardKind.PAYMENT_RECEIVED, CardKind.PAYMENT_FAILED


async def set_scope(actor: Actor, scope: str, topic: str = "PAYMENTS", *, by_email: bool = True) -> None:
    await notification_rules.update(actor, {"rules": {topic: RuleChange(scope, by_email)}})


async def notified(
    team: Team, kind: CardKind = PAID, *, admins: bool = False, creator: Actor | None = None
) -> set[str]:
    """The roles of those whom a new event of a request notifies."""
    by = creator.user_id if creator is not None else None
    request = await factories.payment_request(team.contact, conversation_id=team.conversation.id, created_by_id=by)
    await Notification.all().delete()
    async with change(team.account.id) as changed:
        await notifications.notify(
            changed, request, kind, title="Paid", body="Paid", cause_key=str(uuid7()), admins=admins
        )
    people = {team.owner.user_id: "owner", team.agent.user_id: "agent", team.viewer.user_id: "viewer"}
    return {people[row.user_id] for row in await Notification.all()}


async def test_without_rules_creator_assignee_and_followers_are_notified(team: Team) -> None:
    assert await notified(team) == {"owner"}
    assert await notified(team, creator=team.agent) == {"agent"}
    await conversations.follow(team.viewer, team.conversation.id, True)
    assert await notified(team, creator=team.agent) == {"agent", "viewer"}


@pytest.mark.parametrize(
    ("scope", "mine", "followed", "other"),
    [
        ("NONE", False, False, False),
        ("MINE", True, False, False),
        ("FOLLOWED", True, True, False),
        ("ALL", True, True, True),
    ],
)
async def test_a_scope_says_of_whose_conversations(
    team: Team, scope: str, mine: bool, followed: bool, other: bool
) -> None:
    await conversations.assign(team.owner, team.conversation.id, team.owner.user_id)
    await set_scope(team.agent, scope)
    assert ("agent" in await notified(team)) == other
    assert ("agent" in await notified(team, creator=team.agent)) == mine
    await conversations.follow(team.agent, team.conversation.id, True)
    assert ("agent" in await notified(team)) == followed
    assert "agent" in await notified(team, FAILED), "another topic has its own rule"


async def test_what_no_one_wants_goes_to_owners_and_admins(team: Team) -> None:
    await set_scope(team.agent, "NONE")
    await set_scope(team.owner, "NONE")
    assert await notified(team, creator=team.agent) == {"owner"}
    await set_scope(team.viewer, "ALL")
    assert await notified(team, creator=team.agent) == {"viewer"}
    assert await notified(team, creator=team.agent, admins=True) == {"owner", "viewer"}


async def test_rules_of_another_account_change_nothing(team: Team) -> None:
    other = await factories.account()
    user = await factories.user(other, role="OWNER")
    actor = Actor(account_id=other.id, role="OWNER", user_id=user.id, name="O", kind="user", credential="c")
    await set_scope(actor, "ALL")
    await notified(team, creator=team.agent)
    assert await Notification.filter(user_id=user.id).count() == 0


async def test_muted_team_notifications_are_not_made(team: Team) -> None:
    await set_scope(team.agent, "NONE", "TEAM")
    await conversations.assign(team.owner, team.conversation.id, team.agent.user_id)
    assert await Notification.all().count() == 0
    await set_scope(team.agent, "MINE", "TEAM")
    await conversations.assign(team.owner, team.conversation.id, None)
    await conversations.assign(team.owner, team.conversation.id, team.agent.user_id)
    assert await Notification.all().count() == 1


async def test_a_rule_without_a_word_on_email_keeps_it(team: Team) -> None:
    assert team.agent.user_id is not None
    for by_email in (None, False, None):
        await notification_rules.update(team.agent, {"rules": {"TEAM": RuleChange("ALL", by_email)}})
    assert (await notification_rules.read(team.agent.user_id)).by_topic["TEAM"] == Rule("ALL", False)


async def test_an_api_key_has_no_rules(team: Team) -> None:
    with pytest.raises(Forbidden):
        await notification_rules.update(system_actor(team.account.id), {"rules": {}})


# ------------------------------------------------------------------------------------------------------------- digest
NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.fixture
def mails(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Payloads of the queued emails."""
    queued: list[dict[str, Any]] = []

    async def enqueue(kind: str, payload: dict[str, str], **more: Any) -> None:
        queued.append({"kind": kind, **payload})

    monkeypatch.setattr(mailing, "available", lambda: True)
    monkeypatch.setattr(mailing, "enqueue", enqueue)
    return queued


async def notice(
    team: Team, kind: str = "PAYMENT_RECEIVED", *, at: datetime = NOW, title: str = "Paid"
) -> Notification:
    user = await User.get(id=team.agent.user_id)
    return await factories.notification(user, kind=kind, title=title, created_at=at)


async def digest_on(team: Team, frequency: str = "HOURLY", **more: Any) -> None:
    await notification_rules.update(team.agent, {"frequency": frequency, **more})
    await NotificationDigest.all().update(next_at=NOW)


async def test_an_hourly_digest_has_what_is_unread_once(team: Team, mails: list[dict[str, Any]]) -> None:
    await notice(team, title="before")
    await digest_on(team)
    await notice(team, title="first")
    read = await notice(team, title="read")
    await Notification.filter(id=read.id).update(read_at=NOW)
    assert await digests.send(NOW + timedelta(minutes=4)) == 0, "there is time to read it in the inbox"
    assert await digests.send(NOW + timedelta(minutes=6)) == 1
    mail = await digests._compose(mails[0], "")
    assert mail is not None
    assert (mail.recipient, mail.subject) == (
        (await User.get(id=team.agent.user_id)).email,
        "Acme Cleaning: 1 unread notification",
    )
    assert "first" in mail.text
    assert "before" not in mail.text
    assert "read" not in mail.text.replace("unread", "")
    await notice(team, at=NOW + timedelta(minutes=7))
    assert await digests.send(NOW + timedelta(minutes=65)) == 0, "an hour has not passed"
    assert await digests.send(NOW + timedelta(minutes=67)) == 1
    assert await digests.send(NOW + timedelta(minutes=200)) == 0


async def test_what_is_read_before_the_email_goes_out_is_not_sent(team: Team, mails: list[dict[str, Any]]) -> None:
    await digest_on(team)
    await notice(team)
    assert await digests.send(NOW + timedelta(minutes=6)) == 1
    await Notification.all().update(read_at=NOW)
    assert await digests._compose(mails[0], "") is None


async def test_topics_without_email_stay_out(team: Team, mails: list[dict[str, Any]]) -> None:
    await digest_on(team)
    await set_scope(team.agent, "FOLLOWED", "PAYMENTS", by_email=False)
    await notice(team)
    assert await digests.send(NOW + timedelta(minutes=6)) == 0
    await notice(team, "PAYMENT_FAILED", title="It failed")
    assert await digests.send(NOW + timedelta(minutes=7)) == 1
    mail = await digests._compose(mails[0], "")
    assert mail is not None
    assert mail.subject.endswith("1 unread notification")


async def test_quiet_hours_over_midnight_delay_it_to_their_end(team: Team, mails: list[dict[str, Any]]) -> None:
    await Account.filter(id=team.account.id).update(time_zone="Asia/Tokyo")  # 12:00 UTC is 21:00
    await digest_on(team, quiet=(20 * 60, 7 * 60 + 30))
    await notice(team)
    assert await digests.send(NOW + timedelta(minutes=6)) == 0
    row = await NotificationDigest.get()
    assert row.next_at == datetime(2026, 11, 20, 22, 30, tzinfo=UTC)
    assert await digests.send(datetime(2026, 11, 20, 22, 29, tzinfo=UTC)) == 0
    assert await digests.send(datetime(2026, 11, 20, 22, 30, tzinfo=UTC)) == 1


@pytest.mark.parametrize("minutes", [15, 75], ids=["first", "repeated"])
async def test_quiet_hours_end_within_the_hour_that_the_clock_repeats(
    team: Team, mails: list[dict[str, Any]], minutes: int
) -> None:
    await Account.filter(id=team.account.id).update(time_zone="Europe/Berlin")  # 2026-10-25: 02:00 to 03:00 twice
    await digest_on(team, quiet=(22 * 60, 2 * 60 + 30))
    twice = datetime(2026, 10, 25, tzinfo=UTC)
    await NotificationDigest.all().update(next_at=twice)
    assert await digests.send(twice + timedelta(minutes=minutes)) == 0
    assert (await NotificationDigest.get()).next_at == twice + timedelta(minutes=minutes + 15)


async def test_all_due_digests_go_out_in_one_run(
    team: Team, mails: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "BATCH", 2)
    for n in range(5):
        user = await factories.user(team.account)
        await factories.notification(user, created_at=NOW)
        await NotificationDigest.create(
            id=uuid7(), account_id=team.account.id, user_id=user.id, frequency="HOURLY", next_at=NOW
        )
        if n < 4:  # idle ones are looked at first, and later again
            await Notification.filter(user_id=user.id).update(read_at=NOW)
    assert await digests.send(NOW + timedelta(minutes=6)) == 1
    assert await NotificationDigest.filter(next_at__gt=NOW + timedelta(minutes=6)).count() == 5


async def test_a_daily_digest_comes_in_the_morning_of_the_accounts_zone(
    team: Team, mails: list[dict[str, Any]]
) -> None:
    await Account.filter(id=team.account.id).update(time_zone="America/New_York")
    await digest_on(team, "DAILY")
    await digests.send(NOW)
    assert (await NotificationDigest.get()).next_at == datetime(2026, 11, 20, 13, 0, tzinfo=UTC)
    await notice(team)
    assert await digests.send(datetime(2026, 11, 20, 12, 59, tzinfo=UTC)) == 0
    assert await digests.send(datetime(2026, 11, 20, 13, 0, tzinfo=UTC)) == 1
    assert (await NotificationDigest.get()).next_at == datetime(2026, 11, 21, 13, 0, tzinfo=UTC)


async def test_a_digest_that_is_off_sends_nothing(team: Team, mails: list[dict[str, Any]]) -> None:
    await digest_on(team)
    await notification_rules.update(team.agent, {"frequency": "OFF"})
    await notice(team)
    assert (await NotificationDigest.get()).next_at is None
    assert await digests.send(NOW + timedelta(days=1)) == 0


@pytest.mark.parametrize("quiet", [(60, 60), (-1, 5), (0, 1440)])
async def test_quiet_hours_that_are_none_are_refused(team: Team, quiet: tuple[int, int]) -> None:
    with pytest.raises(Invalid):
        await notification_rules.update(team.agent, {"quiet": quiet})


def test_every_kind_has_a_topic() -> None:
    assert {notifications.topic_of(kind) for kind in (*CardKind, *notifications.TeamKind)} == set(Topic)
    assert set(Scope) == {"NONE", "MINE", "FOLLOWED", "ALL"}
