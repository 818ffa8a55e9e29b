"""Filters and orders decided in memory equal those of the database, for generated filters and many kinds of rows."""

from __future__ import annotations

import itertools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models import database as db
from models import tables
from services.lists import snapshots, subjects
from services.lists.filters import ConversationFilter, MoneyRange, PaymentRequestFilter, TimeRange
from services.lists.matching import Snapshot, matches
from services.lists.orders import KEYS, Order
from services.lists.subjects import Wanted
from services.lists.window import id_of
from tests import factories

T = TypeVar("T")
F = TypeVar("F", PaymentRequestFilter, ConversationFilter)

FILTERS = 250  # of each kind, on each engine
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
TIMES = [NOW + timedelta(days=n) for n in range(-4, 5)]
STATUSES = ("DRAFT", "SENT", "PROCESSING", "PARTIALLY_PAID", "PAID", "VOID")
REFUNDS, DISPUTES = ("NONE", "PARTIAL", "FULL"), ("NONE", "NEEDS_RESPONSE", "WON", "LOST")
DELIVERIES = ("NOT_SENT", "QUEUED", "DELIVERED", "FAILED")
CURRENCIES, KINDS, TAGS = ("USD", "EUR", "JPY"), ("SMS", "EMAIL", "WHATSAPP"), ("vip", "new", "späť", "a b")
NAMES = ("Maya Łukasz", "Zoë Ångström", "50% off_club!", "O’Neil", "石田 さくら", "maya")
SEARCHES = (
    "maya",
    "ŁUKASZ",
    "angstrom",
    "50%",
    "off_club",
    "o'neil",
    "石田",
    "125",
    "EUR 99",
    "99.00",
    "PR-",
    "clean",
    "x",
    "1415555",
)


@dataclass(frozen=True, slots=True)
class World:
    account_id: UUID
    contacts: list[UUID]
    users: list[UUID]
    processors: list[UUID]


@pytest.fixture
async def world(database: str) -> World:
    """Sixty requests and eighteen conversations with every value that filters ask for, some of merged contacts."""
    rng = random.Random(12)
    account = await factories.account()
    users = [await factories.user(account) for _ in range(2)]
    processors = [await factories.processor_connection(account) for _ in range(2)]
    channels = [await factories.channel_connection(account, kind) for kind in KINDS]
    contacts = [await _contact(account, users, rng, n) for n in range(18)]
    for n in range(60):
        await _request(rng.choice(contacts), processors, channels, rng, n)
    for kept, *merged in (contacts[:2], contacts[2:5]):
        await _merge(kept, merged)
    other = await factories.account()
    stranger = await factories.contact(other, name=NAMES[0], tags=list(TAGS))
    await factories.payment_request(stranger, status="SENT")
    return World(account.id, [one.id for one in contacts], [one.id for one in users], [one.id for one in processors])


async def _contact(account: tables.Account, users: Sequence[tables.User], rng: random.Random, n: int) -> tables.Contact:
    tags = rng.sample(TAGS, rng.randrange(3))
    phone = f"+1415555{1000 + n}" if n % 3 else None
    contact = await factories.contact(account, name=NAMES[n % len(NAMES)], tags=tags, phone=phone)
    await factories.conversation(
        contact,
        tags=rng.sample(TAGS, rng.randrange(2)),
        assignee_id=rng.choice([None, *(user.id for user in users)]),
        unread_count=rng.randrange(3),
        closed_at=rng.choice([None, NOW]),
        waiting_since=rng.choice([None, *TIMES]),
        last_activity_at=rng.choice(TIMES),
        channel_kinds=" " + "".join(f"{kind} " for kind in rng.sample(KINDS, rng.randrange(3))),
    )
    if rng.random() < 0.5:
        await tables.ContactSummary.create(
            account_id=account.id, contact_id=contact.id, currency="USD", test_mode=True, open_count=rng.randrange(2)
        )
    if n % 7 == 0:  # a row of an earlier version
        await db.execute("UPDATE contact SET search = NULL WHERE id = ?", contact.id)
    return contact


async def _request(
    contact: tables.Contact,
    processors: Sequence[tables.ProcessorConnection],
    channels: Sequence[tables.ChannelConnection],
    rng: random.Random,
    n: int,
) -> None:
    amount = rng.choice([12500, 9900, 125, 40000])
    request = await factories.payment_request(
        contact,
        product_name=rng.choice(["Deep clean", "Café crème", "Fix & Go"]),
        status=rng.choice(STATUSES),
        refund_state=rng.choice(REFUNDS),
        dispute_state=rng.choice(DISPUTES),
        delivery_state=rng.choice(DELIVERIES),
        unresolved=rng.random() < 0.1,
        amount_minor=amount,
        amount_paid_minor=rng.choice([0, 0, amount, amount // 2, amount + 5]),
        waived_minor=rng.choice([0, 0, 100]),
        excess_minor=rng.choice([0, 0, 0, 5]),
        late_minor=rng.choice([0, 0, 0, 5]),
        currency=rng.choice(CURRENCIES),
        test_mode=rng.random() < 0.5,
        due_at=rng.choice([None, *TIMES]),
        paid_at=rng.choice([None, *TIMES]),
        discarded_at=NOW if n % 11 == 0 else None,
        processor_connection_id=rng.choice(processors).id,
        channel_connection_id=rng.choice([None, *channels]) and rng.choice(channels).id,
    )
    at = rng.choice(TIMES), rng.choice(TIMES)
    await db.execute("UPDATE payment_request SET created_at = ?, updated_at = ? WHERE id = ?", *at, request.id)


async def _merge(kept: tables.Contact, merged: Sequence[tables.Contact]) -> None:
    talk = await factories.conversation(kept)
    others = [await factories.conversation(one) for one in merged]
    for row, gone in ((kept, merged), (talk, others)):
        row.merged_ids = [str(one.id) for one in gone]
        await row.save(update_fields=["merged_ids"])
        for one in gone:
            one.merged_into_id = row.id
            await one.save(update_fields=["merged_into_id"])


# ------------------------------------------------------------------------------------------------------------- filters
def some(values: Sequence[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(list(values)), max_size=3).map(tuple)


def times() -> st.SearchStrategy[TimeRange]:
    bound = st.one_of(st.none(), st.sampled_from(TIMES[:4])), st.one_of(st.none(), st.sampled_from(TIMES[4:]))
    return st.tuples(*bound).map(lambda pair: TimeRange(*pair))


def money() -> st.SearchStrategy[MoneyRange]:
    bound = st.one_of(st.none(), st.sampled_from([0, 125, 9900, 12500, 40000]))
    ranges = st.tuples(st.sampled_from(CURRENCIES), bound, bound)
    fitting = ranges.filter(lambda found: found[1] is None or found[2] is None or found[1] <= found[2])
    return fitting.map(lambda found: MoneyRange(*found))


def trees(make: Callable[..., F], conditions: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[F]:
    plain = st.lists(st.sampled_from(sorted(conditions)), max_size=2, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: conditions[name] for name in names})
    )
    leaf = plain.map(lambda values: make(**values))

    def grow(below: st.SearchStrategy[F]) -> st.SearchStrategy[F]:
        several = st.lists(below, max_size=2).map(tuple)
        branch = st.fixed_dictionaries({}, optional={"and_": several, "or_": several, "not_": below})
        return st.tuples(plain, branch).map(lambda parts: make(**parts[0], **parts[1]))

    return st.recursive(leaf, grow, max_leaves=4).filter(lambda filter: filter.levels <= 4)


def generated(strategy: st.SearchStrategy[T], count: int) -> list[T]:
    found: list[T] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def collect(one: T) -> None:
        found.append(one)

    collect()
    return found


def request_filters(world: World) -> list[PaymentRequestFilter]:
    conditions: dict[str, st.SearchStrategy[Any]] = {
        "status": some(STATUSES),
        "overdue": st.booleans(),
        "needs_attention": st.booleans(),
        "refund_state": some(REFUNDS),
        "dispute_state": some(DISPUTES),
        "delivery_state": some(DELIVERIES),
        **{name: times() for name in ("created_at", "updated_at", "due_at", "paid_at")},
        "amount": money(),
        "contact_ids": some(world.contacts[:6]),
        "assignee_ids": some([None, *world.users]),
        "channel_kinds": some(KINDS),
        "processor_ids": some(world.processors),
        "tags": some(TAGS),
        "test_mode": st.booleans(),
        "search": st.sampled_from(SEARCHES),
    }
    # Each condition by itself, and then any combination.
    alone = [trees(PaymentRequestFilter, {name: one}) for name, one in conditions.items()]
    return [
        *itertools.chain.from_iterable(generated(one, 4) for one in alone),
        *generated(trees(PaymentRequestFilter, conditions), FILTERS),
    ]


def conversation_filters(world: World) -> list[ConversationFilter]:
    conditions: dict[str, st.SearchStrategy[Any]] = {
        **{name: st.booleans() for name in ("closed", "unread", "has_open_request")},
        "assignee_ids": some([None, *world.users]),
        "channel_kinds": some(KINDS),
        "tags": some(TAGS),
        "waiting_since": times(),
        "search": st.sampled_from(SEARCHES),
    }
    alone = [trees(ConversationFilter, {name: one}) for name, one in conditions.items()]
    return [
        *itertools.chain.from_iterable(generated(one, 8) for one in alone),
        *generated(trees(ConversationFilter, conditions), FILTERS),
    ]


# ---------------------------------------------------------------------------------------------------------------- tests
async def differing(
    world: World,
    filters: Sequence[PaymentRequestFilter] | Sequence[ConversationFilter],
    items: Mapping[UUID, Snapshot],
    order: Order,
) -> list[str]:
    wrong, found_any = [], 0
    for filter in filters:
        stored = {id_of(row.key) for row in await subjects.read(world.account_id, Wanted(filter, order), 1_000)}
        decided = {id.int for id, item in items.items() if matches(filter, item, datetime.now(UTC))}
        found_any += bool(decided)
        if stored != decided:
            wrong.append(f"{filter}: {len(stored - decided)} only stored, {len(decided - stored)} only decided")
    assert found_any > len(filters) // 3
    return wrong


async def test_filters_of_payment_requests_match_what_the_database_finds(world: World) -> None:
    ids = [row.id for row in await tables.PaymentRequest.all()]
    items = await snapshots.of_requests(world.account_id, ids)
    assert len(items) == 60
    order = Order("payment_requests", "CREATED_AT", descending=True)
    wrong = await differing(world, request_filters(world), items, order)
    assert not wrong, "\n".join(wrong)


async def test_filters_of_conversations_match_what_the_database_finds(world: World) -> None:
    ids = [row.id for row in await tables.Conversation.all()]
    items = await snapshots.of_conversations(world.account_id, ids)
    assert len(items) == 18
    order = Order("conversations", "LAST_ACTIVITY_AT", descending=True)
    wrong = await differing(world, conversation_filters(world), items, order)
    assert not wrong, "\n".join(wrong)


Read = Callable[[UUID, Sequence[UUID]], Awaitable[Mapping[UUID, Snapshot]]]


@pytest.mark.parametrize("descending", [False, True])
async def test_orders_equal_those_of_the_database(world: World, descending: bool) -> None:
    of: dict[str, tuple[Any, Read, Any]] = {
        "payment_requests": (tables.PaymentRequest, snapshots.of_requests, PaymentRequestFilter()),
        "conversations": (tables.Conversation, snapshots.of_conversations, ConversationFilter()),
    }
    for name, (model, read, filter) in of.items():
        items = await read(world.account_id, [row.id for row in await model.all()])
        for field in KEYS[name]:  # type: ignore[index]  # the literal's two members
            wanted = Wanted(filter, Order(name, field, descending))  # type: ignore[arg-type]  # as above
            placed = sorted(key for item in items.values() if (key := subjects.place(wanted, item)) is not None)
            stored = [row.key for row in await subjects.read(world.account_id, wanted, 10)]
            assert stored == placed[:10], (name, field)
            for key in placed:
                assert subjects.key_of(wanted.order, *subjects.place_of(wanted.order, key)) == key


async def test_sums_equal_those_of_the_database(world: World) -> None:
    items = await snapshots.of_requests(world.account_id, [row.id for row in await tables.PaymentRequest.all()])
    wanted = Wanted(PaymentRequestFilter(), Order("payment_requests", "CREATED_AT", descending=True))
    stored = {id_of(row.key): row.amounts for row in await subjects.read(world.account_id, wanted, 1_000)}
    assert stored == {id.int: subjects.amounts(item) for id, item in items.items() if not item.discarded}
