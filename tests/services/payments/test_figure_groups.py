"""The dashboard's figures of any period, by day, channel, agent, processor and product, equal those of a plain sum."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from itertools import combinations
from math import ceil
from statistics import median
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from models.errors import Invalid
from models.tables import Account, MoneyFact, PaymentRequest
from services.payments import dashboard, figure_counts, figure_facts
from services.payments.dashboard import Board, Period
from tests import factories
from tests.services.payments.test_figure_counts import charge, drawn

NOW = datetime.now(UTC)
ZONE = "America/St_Johns"
DIMENSIONS = [(one,) for one in dashboard.DIMENSIONS] + list(combinations(dashboard.DIMENSIONS, 2))


async def history(rng: random.Random) -> Account:
    account = await factories.account(time_zone=ZONE)
    users = [await factories.user(account) for _ in range(2)]
    contact = await factories.contact(account)
    conversation = await factories.conversation(contact)
    message = await factories.message(conversation, kind="SMS")
    for _ in range(60):
        given: dict[str, Any] = {
            "currency": rng.choice(("USD", "EUR")),
            "test_mode": rng.random() < 0.8,
            "product_name": rng.choice(("Window cleaning", "Garden")),
            "created_by_id": rng.choice((None, *(user.id for user in users))),
            "last_message_id": rng.choice((None, message.id)),
        }
        request = await factories.payment_request(contact, **drawn(rng) | given)
        if rng.random() < 0.5:
            await charge(request, rng)
    return account


async def plain(
    account: Account, since: datetime, until: datetime, names: tuple[str, ...]
) -> dict[Any, dict[str, Any]]:
    """(group, currency) -> figures, summed up in Python."""
    found: dict[Any, dict[str, Any]] = defaultdict(lambda: defaultdict(int))
    times: dict[Any, list[float]] = defaultdict(list)
    requests = {row.id: row for row in await PaymentRequest.filter(account_id=account.id, test_mode=True)}

    def key(request: PaymentRequest, currency: str, at: datetime) -> Any:
        values = {
            "DAY": at.astimezone(ZoneInfo(ZONE)).date(),
            "CHANNEL": "SMS" if request.last_message_id else None,
            "AGENT": request.created_by_id,
            "PROCESSOR": request.processor_connection_id,
            "PRODUCT": request.product_name,
        }
        return tuple((name, values[name]) for name in sorted(names)), currency

    for request in requests.values():
        sent = request.sent_at or request.created_at
        left = request.amount_minor - request.amount_paid_minor - request.waived_minor
        of = key(request, request.currency, sent)
        inside = since <= sent < until
        if request.status in ("SENT", "PROCESSING", "PARTIALLY_PAID") and left > 0 and (inside or "DAY" not in names):
            found[of]["outstanding_minor"] += left
        if request.status not in ("DRAFT", "VOID") and inside:
            found[of]["requests_sent"] += 1
            found[of]["requested_minor"] += request.amount_minor
            found[of]["converted_count"] += request.status == "PAID"
        if request.status == "PAID" and request.paid_at and since <= request.paid_at < until:
            of = key(request, request.currency, request.paid_at)
            found[of]["paid_count"] += 1
            if request.sent_at and request.paid_at >= request.sent_at:
                times[of].append((request.paid_at - request.sent_at).total_seconds())
    facts = await MoneyFact.filter(account_id=account.id, test_mode=True, kind="CHARGE")
    undone = {fact.external_id for fact in facts if fact.outcome == "CANCELED" and fact.processor_connection_id is None}
    for fact in facts:
        if fact.outcome != "SUCCEEDED" or not since <= fact.occurred_at < until:
            continue
        if fact.processor_connection_id is not None or fact.external_id not in undone:
            of = key(requests[fact.payment_request_id], fact.currency, fact.occurred_at)
            found[of]["paid_minor"] += fact.amount_minor
    for of, seconds in times.items():
        found[of]["median_seconds_to_pay"] = median(seconds)
        found[of]["p90_seconds_to_pay"] = sorted(seconds)[ceil(0.9 * len(seconds)) - 1]
    return found


@pytest.mark.usefixtures("database")
async def test_every_grouping_equals_a_plain_sum() -> None:
    compared = 0
    for seed in range(2):
        rng = random.Random(seed)
        account = await history(rng)
        for names in DIMENSIONS:
            since = NOW - timedelta(days=rng.randrange(5, 60), seconds=rng.randrange(9999))
            until = since + timedelta(days=rng.randrange(1, 40), seconds=rng.randrange(9999))
            answer = await dashboard.figures(account.id, Board(Period(since=since, until=until), names), NOW)
            expected = await plain(account, since, until, names)
            given = {
                (tuple(sorted(group.keys.items())), of_one.currency): of_one
                for group in answer.groups
                for of_one in group.by_currency
            }
            assert given.keys() == expected.keys(), names
            for of, figures in given.items():
                for name in figure_facts.NAMES:
                    value = getattr(figures, name)
                    if name.endswith("to_pay"):
                        assert value == pytest.approx(expected[of].get(name), abs=1), (names, of, name)
                    else:
                        assert value == expected[of][name], (names, of, name)
                    compared += 1
    assert compared > 1_000


@pytest.mark.usefixtures("database")
async def test_the_counts_equal_the_sums_in_any_period() -> None:
    rng = random.Random(3)
    account = await history(rng)
    compared = 0
    for step in range(40):
        since = NOW - timedelta(days=rng.randrange(45), minutes=rng.randrange(1500))
        until = since + timedelta(minutes=rng.randrange(1, 60_000))
        if step % 2:  # as a day of some zone: on quarters
            since, until = (datetime.fromtimestamp(at.timestamp() // 900 * 900, UTC) for at in (since, until))
        if since < until:
            counted = await figure_counts.read(account.id, True, since, until)
            assert counted == await figure_facts.read(account.id, True, since, until)
            compared += len(counted)
        await figure_counts.fold(NOW)
    assert compared > 40


@pytest.mark.usefixtures("database")
async def test_every_day_of_the_period_is_there_in_the_accounts_zone() -> None:
    account = await factories.account(time_zone="Africa/Cairo")  # skips midnight on 2026-04-24
    since, until = datetime(2026, 4, 22, 12, tzinfo=UTC), datetime(2026, 4, 26, tzinfo=UTC)
    answer = await dashboard.figures(account.id, Board(Period(since=since, until=until), ("DAY",)), NOW)
    assert [group.keys["DAY"] for group in answer.groups] == [date(2026, 4, day) for day in (22, 23, 24, 25, 26)]


@pytest.mark.usefixtures("database")
async def test_the_last_days_of_the_calendar_have_no_groups() -> None:
    account = await factories.account()
    late = datetime(9999, 12, 31, 23, tzinfo=UTC)
    for period in (Period(since=late), Period(since=late - timedelta(days=1), until=late)):
        for dimensions in (("DAY",), ("DAY", "AGENT")):
            assert (await dashboard.figures(account.id, Board(period, dimensions), NOW)).groups == []
    answer = await dashboard.figures(
        account.id, Board(Period(since=late - timedelta(days=4), until=late), ("DAY",)), NOW
    )
    assert [group.keys["DAY"] for group in answer.groups] == [date(9999, 12, day) for day in (27, 28)]


@pytest.mark.usefixtures("database")
async def test_a_period_that_cannot_be_shown_is_refused() -> None:
    account = await factories.account()
    with pytest.raises(Invalid, match="later"):
        Period.between(NOW, NOW)
    for dimensions in (("DAY", "DAY"), ("DAY", "AGENT", "PRODUCT")):
        with pytest.raises(Invalid, match="different"):
            await dashboard.figures(account.id, Board(Period("TODAY"), dimensions), NOW)
    with pytest.raises(Invalid, match="400"):
        await dashboard.figures(account.id, Board(Period("ALL_TIME"), ("DAY",)), NOW)


@pytest.mark.usefixtures("database")
async def test_only_the_largest_groups_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "MOST_GROUPS", 2)
    contact = await factories.contact(await factories.account())
    for product, times in (("A", 1), ("B", 3), ("C", 2)):
        for _ in range(times):
            await factories.payment_request(contact, status="SENT", sent_at=NOW, product_name=product)
    answer = await dashboard.figures(
        contact.account_id, Board(Period("TODAY"), ("PRODUCT",)), NOW + timedelta(seconds=1)
    )
    assert [group.keys for group in answer.groups] == [{"PRODUCT": "B"}, {"PRODUCT": "C"}]
    assert answer.left_out == 1


@pytest.mark.usefixtures("database")
async def test_the_smallest_groups_are_left_out_and_not_the_last_days(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "MOST_GROUPS", 2)
    contact = await factories.contact(await factories.account())
    since = datetime(2026, 5, 1, tzinfo=UTC)
    for day, product, times in ((0, "A", 1), (0, "B", 2), (1, "A", 1), (1, "B", 3)):
        for _ in range(times):
            at = since + timedelta(days=day, hours=1)
            await factories.payment_request(contact, status="SENT", sent_at=at, product_name=product)
    board = Board(Period(since=since, until=since + timedelta(days=2)), ("DAY", "PRODUCT"))
    answer = await dashboard.figures(contact.account_id, board, NOW)
    assert [tuple(group.keys.values()) for group in answer.groups] == [
        ("B", date(2026, 5, 1)),
        ("B", date(2026, 5, 2)),
    ]
    assert answer.left_out == 2


@pytest.mark.usefixtures("database")
async def test_a_period_that_begins_or_ends_within_a_second_is_exact() -> None:
    contact = await factories.contact(await factories.account())
    quarter = datetime.fromtimestamp(NOW.timestamp() // 900 * 900, UTC) - timedelta(days=1)
    half, fifth = timedelta(milliseconds=500), timedelta(milliseconds=200)
    await factories.payment_request(contact, status="SENT", sent_at=quarter + fifth, amount_minor=100)
    for since, until in (
        (quarter + half, None),
        (quarter - timedelta(hours=1), quarter + half),
        (quarter + half, quarter + timedelta(hours=1)),
    ):
        summed = await figure_facts.read(contact.account_id, True, since, until)
        for _ in range(2):
            assert await figure_counts.read(contact.account_id, True, since, until) == summed
            await figure_counts.fold(NOW)


@pytest.mark.usefixtures("database")
async def test_as_many_days_as_allowed_may_contain_a_change_of_the_clock() -> None:
    account = await factories.account(time_zone="Europe/Berlin")
    since, until = (datetime(*day, tzinfo=ZoneInfo("Europe/Berlin")) for day in ((2025, 10, 1), (2026, 11, 5)))
    board = Board(Period.between(since.astimezone(UTC), until.astimezone(UTC)), ("DAY",))
    assert len((await dashboard.figures(account.id, board, NOW)).groups) == dashboard.MOST_DAYS


def test_a_boards_name_is_read_back() -> None:
    for period in (Period("TODAY"), Period.between(NOW, None), Period.between(None, NOW)):
        for dimensions in ((), ("DAY",), ("PRODUCT", "DAY")):
            board = Board(period, dimensions)
            assert Board.parse(str(board)) == board
    for name in ("", "TODAY-", "TODAY-MOON", "1~x", "9" * 30 + "~", "YESTERDAY", "~"):
        with pytest.raises((ValueError, Invalid)):
            Board.parse(name)
