"""Pages of filtered and sorted lists: generated filters and orders against a plain evaluation of each row, in both directions."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from unittest import mock

import orjson
import pytest
from graphql import GraphQLObjectType

from models import database as db
from models import ledger, searching, tables
from models.ids import public_id
from resolvers.access import pages
from schema import connections
from tests import factories
from tests.schema.conftest import EXECUTOR, Api
from tests.services.conftest import Team

EXAMPLES: Final = 170  # of each list, on each engine
NOW: Final = datetime(2026, 11, 28, 12, tzinfo=UTC)
TIMES: Final = [NOW + timedelta(days=n) for n in range(-3, 4)]
TAGS: Final = ("vip", "new", "a b")
KINDS: Final = ("SMS", "EMAIL", "WHATSAPP")
NAMES: Final = ("Maya", "maya", "Ångström", "angstrom", "Zoë|x", "李", "O’Neil", "%_")
STATUSES: Final = tuple(status.value for status in ledger.Status)

Filter = dict[str, Any]
Test = Callable[[Any, Any], bool]  # of the row's values and the condition's
Rows = list[dict[str, Any]]

PAGE = "pageInfo { hasNextPage hasPreviousPage startCursor endCursor } nodes { id }"
DOCUMENTS = {
    name: f"""query($f: {kind}Filter, $o: {kind}Order, $first: Int, $after: Cursor, $last: Int, $before: Cursor) {{
      {name}(filter: $f, orderBy: $o, first: $first, after: $after, last: $last, before: $before) {{ {PAGE} }} }}"""
    for name, kind in (
        ("paymentRequests", "PaymentRequest"),
        ("conversations", "Conversation"),
        ("contacts", "Contact"),
    )
}


# ------------------------------------------------------------------------------------------------- rows and their values
async def fill(team: Team, rng: random.Random) -> None:
    """Contacts, conversations and requests with equal and missing values, two of them merged, and others of another account."""
    users = [None, team.owner.user_id, team.agent.user_id]
    for n in range(24):
        contact = await factories.contact(team.account, name=rng.choice(NAMES), tags=rng.sample(TAGS, rng.randrange(3)))
        conversation = await factories.conversation(
            contact,
            tags=rng.sample(TAGS, rng.randrange(2)),
            assignee_id=rng.choice(users),
            unread_count=rng.randrange(2),
            closed_at=rng.choice([None, NOW]),
            waiting_since=rng.choice([None, *TIMES]),
            last_activity_at=rng.choice(TIMES),
            channel_kinds=" " + "".join(f"{kind} " for kind in rng.sample(KINDS, rng.randrange(3))),
        )
        amount = rng.choice([100, 250, 250, 999])
        request = await factories.payment_request(
            contact,
            status=rng.choice(STATUSES),
            amount_minor=amount,
            amount_paid_minor=rng.choice([0, 0, amount, amount + 5]),
            currency=rng.choice(["USD", "JPY"]),
            due_at=rng.choice([None, *TIMES]),
            paid_at=rng.choice([None, *TIMES]),
            unresolved=rng.random() < 0.2,
            channel_connection_id=rng.choice([None, *(team.channels[kind].id for kind in KINDS)]),
            discarded_at=NOW if n == 7 else None,
        )
        if rng.random() < 0.5:
            open_count = rng.randrange(2)
            await tables.ContactSummary.create(
                account_id=team.account.id, contact_id=contact.id, currency="USD", test_mode=True, open_count=open_count
            )
        for table, id in (("contact", contact.id), ("conversation", conversation.id), ("payment_request", request.id)):
            updated = "" if table == "conversation" else f", updated_at = '{rng.choice(TIMES).isoformat(' ')}'"
            await db.execute(f"UPDATE {table} SET created_at = ?{updated} WHERE id = ?", rng.choice(TIMES), id)  # noqa: S608 (only constants are put in)
        if n == 5:
            await db.execute("UPDATE contact SET search = NULL WHERE id = ?", contact.id)
        if n == 9:
            await db.execute("UPDATE contact SET merged_into_id = ? WHERE id = ?", team.contact.id, contact.id)
            await db.execute(
                "UPDATE conversation SET merged_into_id = ? WHERE id = ?", team.conversation.id, conversation.id
            )
    stranger = await factories.contact(await factories.account(), tags=list(TAGS))
    await factories.conversation(stranger)
    await factories.payment_request(stranger, status="SENT", due_at=TIMES[0])


def values_of(row: tables.Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row._meta.fields_map}


async def contact_rows(account: tables.Account) -> Rows:
    open_of = {row.contact_id for row in await tables.ContactSummary.filter(account_id=account.id, open_count__gt=0)}
    return [
        {
            **{name: getattr(row, name) for name in ("id", "name", "tags", "created_at", "updated_at", "search")},
            "has_open_request": row.id in open_of,
        }
        for row in await tables.Contact.filter(account_id=account.id, merged_into_id=None)
    ]


async def conversation_rows(account: tables.Account) -> Rows:
    contacts = {row["id"]: row for row in await contact_rows(account)}
    return [
        {
            **values_of(row),
            "all_tags": {*row.tags, *contacts[row.contact_id]["tags"]},
            "has_open_request": contacts[row.contact_id]["has_open_request"],
        }
        for row in await tables.Conversation.filter(account_id=account.id, merged_into_id=None)
    ]


async def request_rows(account: tables.Account) -> Rows:
    contacts = {row.id: row for row in await tables.Contact.filter(account_id=account.id)}
    talks = {row.id: row for row in await tables.Conversation.filter(account_id=account.id)}
    channels: dict[Any, str] = {
        row.id: row.kind for row in await tables.ChannelConnection.filter(account_id=account.id)
    }
    found = []
    for row in await tables.PaymentRequest.filter(account_id=account.id, discarded_at=None):
        contact, talk = contacts[row.contact_id], talks[row.conversation_id]
        talk = talks[talk.merged_into_id] if talk.merged_into_id is not None else talk
        contact = contacts[contact.merged_into_id] if contact.merged_into_id is not None else contact
        found.append(
            {
                **values_of(row),
                "kept_contact": contact.id,
                "all_tags": contact.tags,
                "assignee_id": talk.assignee_id,
                "channel_kind": channels.get(row.channel_connection_id),
                "amount_due": max(0, row.amount_minor - row.amount_paid_minor - row.waived_minor),
            }
        )
    return found


# ------------------------------------------------------------------------------------------- filters, decided for each row
def within(name: str) -> Test:
    def test(row: Any, range: Mapping[str, str]) -> bool:
        value = row[name]
        low, high = (datetime.fromisoformat(range[end]) if end in range else None for end in ("from", "until"))
        return value is not None and (low is None or value >= low) and (high is None or value < high)

    return test


def among(name: str) -> Test:
    return lambda row, values: row[name] in values


def is_open(row: Any) -> bool:
    return row["status"] in ledger.OUTSTANDING


def user_ids(values: Sequence[str | None], team: Team) -> set[Any]:
    known = {public_id("usr", id): id for id in (team.owner.user_id, team.agent.user_id) if id is not None}
    return {None if value is None else known.get(value, value) for value in values}


def conditions_of(name: str, team: Team) -> dict[str, Test]:
    contacts = {
        "tags": lambda row, tags: bool({*tags} & {*row["tags"]}),
        "createdAt": within("created_at"),
        "hasOpenRequest": lambda row, wanted: row["has_open_request"] is wanted,
    }
    conversations: dict[str, Test] = {
        "closed": lambda row, wanted: (row["closed_at"] is not None) is wanted,
        "unread": lambda row, wanted: (row["unread_count"] > 0) is wanted,
        "assigneeIds": lambda row, ids: row["assignee_id"] in user_ids(ids, team),
        "channelKinds": lambda row, kinds: any(f" {kind} " in row["channel_kinds"] for kind in kinds),
        "tags": lambda row, tags: bool({*tags} & {*row["all_tags"]}),
        "hasOpenRequest": lambda row, wanted: row["has_open_request"] is wanted,
        "waitingSince": within("waiting_since"),
    }
    requests: dict[str, Test] = {
        "status": among("status"),
        "overdue": lambda row, wanted: (
            (row["due_at"] is not None and row["due_at"] < datetime.now(UTC) and is_open(row)) is wanted
        ),
        "needsAttention": lambda row, wanted: row["unresolved"] is wanted,
        "createdAt": within("created_at"),
        "updatedAt": within("updated_at"),
        "dueAt": within("due_at"),
        "paidAt": within("paid_at"),
        "amount": lambda row, range: row["currency"] == "USD" and row["amount_minor"] >= int(range["minimum"]) * 100,
        "contactIds": lambda row, ids: public_id("cnt", row["kept_contact"]) in ids,
        "assigneeIds": lambda row, ids: row["assignee_id"] in user_ids(ids, team),
        "channelKinds": among("channel_kind"),
        "tags": lambda row, tags: bool({*tags} & {*row["all_tags"]}),
        "testMode": lambda row, wanted: row["test_mode"] is wanted,
    }
    return {"contacts": contacts, "conversations": conversations, "paymentRequests": requests}[name]


def matches(filter: Filter, row: Any, tests: Mapping[str, Test]) -> bool:
    return all(
        all(matches(one, row, tests) for one in value)
        if name == "and"
        else any(matches(one, row, tests) for one in value)
        if name == "or"
        else not matches(value, row, tests)
        if name == "not"
        else tests[name](row, value)
        for name, value in filter.items()
        if value is not None
    )


def condition(name: str, rng: random.Random, team: Team) -> Any:
    if name.endswith("At") or name == "waitingSince":
        low, high = rng.choice(TIMES[:3]).isoformat(), rng.choice(TIMES[3:]).isoformat()
        return rng.choice([{}, {"from": low}, {"until": high}, {"from": low, "until": high}])
    if name == "amount":
        return {"currency": "USD", "minimum": rng.choice(["1", "2", "3"])}
    people = [public_id("usr", id) for id in (team.owner.user_id, team.agent.user_id) if id is not None]
    choices: dict[str, Sequence[Any]] = {
        "tags": TAGS,
        "channelKinds": KINDS,
        "status": STATUSES,
        "assigneeIds": [None, *people, public_id("usr", team.account.id), "rubbish"],
        "contactIds": [public_id("cnt", team.contact.id), "rubbish"],
    }
    if name in choices:
        return rng.sample(list(choices[name]), rng.randrange(min(3, len(choices[name])) + 1))
    return rng.choice([True, False, None])


def generated(names: Sequence[str], rng: random.Random, team: Team, levels: int = 3) -> Filter:
    filter: Filter = {name: condition(name, rng, team) for name in rng.sample(names, rng.randrange(3))}
    if levels > 1 and rng.random() < 0.5:
        for name in rng.sample(("and", "or"), rng.randrange(2)):
            filter[name] = [generated(names, rng, team, levels - 1) for _ in range(rng.randrange(3))]
        if rng.random() < 0.4:
            filter["not"] = generated(names, rng, team, levels - 1)
    return filter


# ---------------------------------------------------------------------------------------------------------------- orders
def first_line(row: Any) -> str | None:
    return None if row["search"] is None else row["search"].split("\n")[0][:120]


Value = Callable[[Any], Any]
ORDERS: Final[dict[str, dict[str, Value]]] = {
    "contacts": {
        "CREATED_AT": lambda row: None,  # the id's
        "UPDATED_AT": lambda row: row["updated_at"],
        "NAME": first_line,
    },
    "conversations": {
        "LAST_ACTIVITY_AT": lambda row: row["last_activity_at"],
        "CREATED_AT": lambda row: row["created_at"],
        "WAITING_SINCE": lambda row: row["waiting_since"],
    },
    "paymentRequests": {
        "CREATED_AT": lambda row: row["created_at"],
        "UPDATED_AT": lambda row: row["updated_at"],
        "DUE_AT": lambda row: row["due_at"],
        "PAID_AT": lambda row: row["paid_at"],
        "AMOUNT_DUE": lambda row: row["amount_due"],
    },
}
PREFIX: Final = {"contacts": "cnt", "conversations": "cnv", "paymentRequests": "pr"}


def in_order(rows: Rows, value: Value, descending: bool, prefix: str) -> list[str]:
    known = [row for row in rows if value(row) is not None]
    others = [row for row in rows if value(row) is None]
    known.sort(key=lambda row: (value(row), row["id"].int), reverse=descending)
    others.sort(key=lambda row: row["id"].int, reverse=descending)
    return [public_id(prefix, row["id"]) for row in (*known, *others)]


async def walked(api: Api, name: str, given: dict[str, Any], size: int, *, forward: bool) -> list[str]:
    found: list[str] = []
    bounds: dict[str, Any] = {"first": size} if forward else {"last": size}
    for _ in range(40):
        page = await api.one(DOCUMENTS[name], {**given, **bounds})
        ids, info = [node["id"] for node in page["nodes"]], page["pageInfo"]
        found = [*found, *ids] if forward else [*ids, *found]
        if not info["hasNextPage" if forward else "hasPreviousPage"]:
            return found
        bounds |= {"after": info["endCursor"]} if forward else {"before": info["startCursor"]}
    raise AssertionError("the pages do not end")


READ: Final = {"contacts": contact_rows, "conversations": conversation_rows, "paymentRequests": request_rows}


@pytest.mark.parametrize("name", DOCUMENTS)
async def test_pages_are_those_of_a_plain_evaluation(team: Team, api: Api, name: str) -> None:
    rng = random.Random(f"{name} 12")
    await fill(team, rng)
    rows, tests = await READ[name](team.account), conditions_of(name, team)
    whole = DOCUMENTS[name].replace("nodes { id }", "totalCount nodes { id } edges { cursor }")
    found = 0
    for n in range(EXAMPLES):
        filter = generated(list(tests), rng, team)
        order, value = rng.choice(list(ORDERS[name].items()))
        descending = rng.random() < 0.5
        expected = in_order([row for row in rows if matches(filter, row, tests)], value, descending, PREFIX[name])
        given = {"f": filter, "o": {"field": order, "direction": "DESC" if descending else "ASC"}}
        page = await api.result(whole, {**given, "first": 100})
        with mock.patch.object(EXECUTOR, "plans", None):
            stock = await api.result(whole, {**given, "first": 100})
        assert not page.errors, filter
        assert page.data is not None
        assert orjson.dumps(page.data) == orjson.dumps(stock.data), (filter, order)
        answer = page.data[name]
        assert ([node["id"] for node in answer["nodes"]], answer["totalCount"]) == (expected, len(expected)), (
            filter,
            order,
            descending,
        )
        if n % 3 == 0:
            for forward in (True, False):
                ids = await walked(api, name, given, rng.randrange(1, 9), forward=forward)
                assert ids == expected, (filter, order, descending, forward)
        found += len(expected)
    assert found > EXAMPLES * 3


async def test_a_contacts_requests_in_every_order(team: Team, api: Api) -> None:
    await fill(team, random.Random(3))
    await db.execute("UPDATE payment_request SET contact_id = ? WHERE account_id = ?", team.contact.id, team.account.id)
    document = """query($id: ID!, $o: PaymentRequestOrder, $f: PaymentRequestFilter, $first: Int, $after: Cursor, $last: Int,
      $before: Cursor) { contact(id: $id) { paymentRequests(orderBy: $o, filter: $f, first: $first, after: $after, last: $last,
        before: $before) { totalCount pageInfo { endCursor startCursor } nodes { id } } } }"""
    rows = await request_rows(team.account)
    id = public_id("cnt", team.contact.id)
    for order, value in {**ORDERS["paymentRequests"], "CREATED_AT": lambda row: None}.items():
        for descending in (True, False):
            given = {"id": id, "o": {"field": order, "direction": "DESC" if descending else "ASC"}}
            expected = in_order(rows, value, descending, "pr")
            bounds: dict[str, Any] = {}
            found: list[str] = []
            for _ in range(30):
                page = (await api.one(document, {**given, "first": 5, **bounds}))["paymentRequests"]
                assert page["totalCount"] == len(rows)
                if not page["nodes"]:
                    break
                found += [node["id"] for node in page["nodes"]]
                bounds = {"after": page["pageInfo"]["endCursor"]}
            assert found == expected, (order, descending)
    overdue = (await api.one(document, {"id": id, "f": {"overdue": True}, "first": 100}))["paymentRequests"]
    assert overdue["totalCount"] == sum(
        row["due_at"] is not None and row["due_at"] < datetime.now(UTC) and is_open(row) for row in rows
    )


# --------------------------------------------------------------------------------------------------------------- cursors
async def cursor_of(api: Api, name: str, order: Mapping[str, str] | None) -> str:
    page = await api.one(DOCUMENTS[name], {"o": order, "first": 1})
    return str(page["pageInfo"]["endCursor"])


async def test_a_cursor_belongs_to_one_list_and_one_order(team: Team, api: Api) -> None:
    await fill(team, random.Random(5))
    orders: list[tuple[str, Mapping[str, str] | None]] = [
        (name, {"field": field, "direction": direction})
        for name, fields in ORDERS.items()
        for field in fields
        for direction in ("ASC", "DESC")
    ]
    cursors = {(name, str(order)): await cursor_of(api, name, order) for name, order in orders}
    for name, order in orders:
        for (other, written), cursor in cursors.items():
            for argument in ("after", "before"):
                result = await api.result(DOCUMENTS[name], {"o": order, argument: cursor})
                messages = [error.message for error in result.errors or ()]
                if (other, written) == (name, str(order)):
                    assert messages == []
                elif other == name:
                    assert messages == [
                        f"`{argument}` is a cursor of another order: begin this order without a cursor."
                    ]
                else:
                    assert messages == [f"`{argument}` is not a cursor of this connection."]


async def test_the_default_order_written_out_takes_the_default_cursors(team: Team, api: Api) -> None:
    await fill(team, random.Random(5))
    for name, field in (
        ("contacts", "CREATED_AT"),
        ("conversations", "LAST_ACTIVITY_AT"),
        ("paymentRequests", "CREATED_AT"),
    ):
        cursor = await cursor_of(api, name, None)
        assert await cursor_of(api, name, {"field": field, "direction": "DESC"}) == cursor


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_paging_goes_on_although_the_cursors_row_moves_or_leaves(team: Team, api: Api, direction: str) -> None:
    rows = []
    for n in range(6):
        conversation = await factories.conversation(await factories.contact(team.account), waiting_since=TIMES[n])
        rows.append(conversation)
    ordered = rows if direction == "ASC" else rows[::-1]
    given: dict[str, Any] = {"f": {"waitingSince": {}}, "o": {"field": "WAITING_SINCE", "direction": direction}}
    page = await api.one(DOCUMENTS["conversations"], {**given, "first": 2})
    assert [node["id"] for node in page["nodes"]] == [public_id("cnv", row.id) for row in ordered[:2]]
    await tables.Conversation.filter(id=ordered[1].id).update(waiting_since=None)  # the cursor's own row leaves
    await tables.Conversation.filter(id=ordered[2].id).update(
        waiting_since=TIMES[6] if direction == "ASC" else TIMES[0]
    )
    after = {"after": page["pageInfo"]["endCursor"]}
    rest = [node["id"] for node in (await api.one(DOCUMENTS["conversations"], {**given, **after}))["nodes"]]
    moved = ordered[2]
    last = (
        [*ordered[3:], moved]
        if direction == "ASC"
        else [*ordered[3:-1], *sorted((ordered[-1], moved), key=lambda r: r.id.int, reverse=True)]
    )
    assert rest == [public_id("cnv", row.id) for row in last]


@pytest.mark.parametrize("text", ["", "|", "c.w+|x", "c.w+|2026-01-01T00:00:00Z", "c.w+||rubbish", "c.w+|now|x"])
async def test_malformed_cursors_are_refused(team: Team, api: Api, text: str) -> None:
    cursor = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    order = {"field": "WAITING_SINCE", "direction": "ASC"}
    result = await api.result(DOCUMENTS["conversations"], {"o": order, "after": cursor})
    assert [(error.extensions or {})["code"] for error in result.errors or ()] == ["BAD_REQUEST"]


# ---------------------------------------------------------------------------------------------------------------- totals
async def test_a_total_is_counted_up_to_a_limit(team: Team, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        await factories.contact(team.account)
    document = "{ contacts(first: 1) { totalCount } }"
    assert await api.one(document) == {"totalCount": 5}
    for limit, total in ((5, 5), (4, None)):
        monkeypatch.setattr(pages, "LARGEST_COUNT", limit)
        assert await api.one(document) == {"totalCount": total}
    assert connections.LARGEST_COUNT == 10_000


async def test_a_plan_counts_the_requests_of_many_contacts_in_one_statement(team: Team, api: Api) -> None:
    for n in range(5):
        contact = await factories.contact(team.account)
        for _ in range(n):
            await factories.payment_request(contact)
    counted: list[str] = []
    scan = db.scanned_records

    async def watched(sql: str, *args: object) -> Any:
        counted.append(sql)
        return await scan(sql, *args)

    with mock.patch.object(db, "scanned_records", watched):
        answer = await api.one("{ contacts(first: 50) { nodes { paymentRequests(first: 1) { totalCount } } } }")
    assert [node["paymentRequests"]["totalCount"] for node in answer["nodes"]] == [4, 3, 2, 1, 0, 0]
    # The stock executor, whose answer is compared, may take several.
    assert any(sql.count("SELECT count(*)") == 6 for sql in counted)


async def test_a_total_that_is_not_selected_is_not_counted(team: Team, api: Api) -> None:
    with mock.patch.object(db, "scanned_records", side_effect=AssertionError):
        await api.all("{ contacts { nodes { id } } conversations { nodes { id } } paymentRequests { nodes { id } } }")


async def test_every_connection_has_a_total(team: Team, api: Api) -> None:
    schema = api.schema._schema
    named = {name: found for name, found in schema.type_map.items() if name.endswith("Connection")}
    kinds = {name: found.fields for name, found in named.items() if isinstance(found, GraphQLObjectType)}
    assert {name: str(fields["totalCount"].type) for name, fields in kinds.items()} == dict.fromkeys(named, "Int")


# --------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("filter", "message"),
    [
        (
            {"createdAt": {"from": "2026-01-02T00:00:00Z", "until": "2026-01-02T00:00:00Z"}},
            "`filter.createdAt`: `from` must",
        ),
        (
            {"or": [{"not": {"amount": {"currency": "USD", "minimum": "2", "maximum": "1"}}}]},
            "`filter.or.not.amount`: `min",
        ),
        ({"amount": {"currency": "USD", "minimum": "1.005"}}, "`filter.amount.minimum`: This is not an amount"),
        ({"amount": {"currency": "XXXX"}}, "`filter.amount.currency`: This is not a currency"),
        (
            {"not": {"contactIds": [f"cnt_{n:026}" for n in range(101)]}},
            "`filter.not.contactIds`: A condition has at most 100",
        ),
        ({"not": {"not": {"not": {"not": {"not": {"overdue": True}}}}}}, "at most 5 levels"),
        ({"or": [{"search": f"word {n}"} for n in range(41)]}, "at most 40 conditions"),
        ({"search": "x" * 101}, "`filter.search`: `search` must be text of at most 100 characters"),
    ],
)
async def test_a_filter_beyond_the_limits_is_refused_at_its_place(
    team: Team, api: Api, filter: Filter, message: str
) -> None:
    result = await api.result(DOCUMENTS["paymentRequests"], {"f": filter})
    (error,) = list(result.errors or [])
    assert message in error.message
    assert (error.extensions or {})["code"] == "BAD_REQUEST"


async def test_a_filter_may_combine_searches(team: Team, api: Api) -> None:
    for name in ("Anna", "Berta", "Cäcilie"):
        await factories.conversation(await factories.contact(team.account, name=name, email=None, phone=None))
    assert searching.fold("Cäcilie") == "cacilie"
    document = (
        "query($f: ContactFilter) { contacts(filter: $f, orderBy: {field: NAME, direction: ASC}) { nodes { name } } }"
    )
    for filter, names in (
        ({"or": [{"search": "anna"}, {"search": "CACIL"}]}, ["Anna", "Cäcilie"]),
        ({"not": {"search": "a"}}, []),
        ({"not": {"or": [{"search": "anna"}, {"search": "maya"}]}}, ["Berta", "Cäcilie"]),
        ({"and": [{"search": "a"}, {"search": "ber"}]}, ["Berta"]),
    ):
        assert [node["name"] for node in (await api.one(document, {"f": filter}))["nodes"]] == names
