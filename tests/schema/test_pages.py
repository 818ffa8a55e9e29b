"""Keyset pages: both directions, both bounds, equal sort keys, hostile cursors; and raw rows that equal the ORM's."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from models import tables
from models.ids import public_id, uuid7
from models.rows import instance
from resolvers.access.reads import Access
from schema.connections import CONTACTS, CONVERSATIONS, NOTIFICATIONS, THREAD, Keyset
from schema.failures import ApiError
from tests import factories
from tests.schema.conftest import Api, Failed
from tests.services.conftest import Team

INSIDE = ("thread", "paymentRequests", "payments", "users", "apiKeys")
PAGE = "pageInfo { hasNextPage hasPreviousPage startCursor endCursor }"


async def pages(
    api: Api, document: str, size: int, *, backward: bool = False, viewer: Any = ..., **variables: Any
) -> list[list[str]]:
    """Walk a connection; the ids of each page, in the connection's order."""
    found: list[list[str]] = []
    cursor = None
    while True:
        arguments = {"last": size, "before": cursor} if backward else {"first": size, "after": cursor}
        whose = {} if viewer is ... else {"viewer": viewer}
        answer = await api.one(document, {**arguments, **variables}, **whose)
        answer = next((answer[name] for name in INSIDE if name in answer), answer)
        found.append([node["id"] for node in answer["nodes"]])
        assert [edge["node"]["id"] for edge in answer["edges"]] == found[-1]
        info = answer["pageInfo"]
        assert info["startCursor"] == answer["edges"][0]["cursor"]
        assert info["endCursor"] == answer["edges"][-1]["cursor"]
        assert info["hasPreviousPage" if not backward else "hasNextPage"] is (len(found) > 1)
        if not info["hasNextPage" if not backward else "hasPreviousPage"]:
            return found
        cursor = info["endCursor" if not backward else "startCursor"]


def flat(found: Iterable[list[str]]) -> list[str]:
    return [id for page in found for id in page]


ARGUMENTS = "$first: Int, $after: Cursor, $last: Int, $before: Cursor"
USE = "first: $first, after: $after, last: $last, before: $before"
BODY = f"{{ nodes {{ id }} edges {{ cursor node {{ id }} }} {PAGE} }}"


async def test_the_thread_pages_through_messages_and_cards_in_one_order(team: Team, api: Api) -> None:
    request = await factories.payment_request(team.contact, conversation_id=team.conversation.id)
    other = await factories.contact(team.account)
    elsewhere = await factories.conversation(other)
    expected = []
    for n in range(11):
        if n % 3 == 2:
            expected.append(public_id("card", (await factories.activity_card(request, "PAYMENT_FAILED")).id))
        else:
            expected.append(public_id("msg", (await factories.message(team.conversation)).id))
        await factories.message(elsewhere)
    document = f"query($id: ID!, {ARGUMENTS}) {{ conversation(id: $id) {{ thread({USE}) {BODY} }} }}"
    conversation = public_id("cnv", team.conversation.id)
    assert flat(await pages(api, document, 4, id=conversation)) == expected
    backward = await pages(api, document, 4, backward=True, id=conversation)
    assert [len(page) for page in backward] == [4, 4, 3]
    assert flat(reversed(backward)) == expected
    newest = await api.one(document, {"id": conversation})
    assert [node["id"] for node in newest["thread"]["nodes"]] == expected
    assert newest["thread"]["pageInfo"]["hasNextPage"] is False


async def test_after_and_before_together_bound_a_page(team: Team, api: Api) -> None:
    rows = [await factories.message(team.conversation) for _ in range(6)]
    document = f"query($id: ID!, {ARGUMENTS}) {{ conversation(id: $id) {{ thread({USE}) {BODY} }} }}"
    bounds = {"after": THREAD.cursor(rows[0].seq), "before": THREAD.cursor(rows[5].seq)}
    for size, ids in (({"first": 2}, rows[1:3]), ({"last": 2}, rows[3:5]), ({}, rows[1:5])):
        answer = await api.one(document, {"id": public_id("cnv", team.conversation.id), **bounds, **size})
        assert [node["id"] for node in answer["thread"]["nodes"]] == [public_id("msg", row.id) for row in ids]


async def test_conversations_with_the_same_time_are_listed_once_each(team: Team, api: Api) -> None:
    moment = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)
    rows = [team.conversation]
    for n in range(8):
        contact = await factories.contact(team.account)
        at = moment + timedelta(microseconds=500_000) * (n // 4)
        rows.append(await factories.conversation(contact, last_activity_at=at))
    expected = [
        public_id("cnv", row.id) for row in sorted(rows, key=lambda row: (row.last_activity_at, row.id), reverse=True)
    ]
    document = f"query({ARGUMENTS}) {{ conversations({USE}) {BODY} }}"
    assert flat(await pages(api, document, 2)) == expected
    assert flat(reversed(await pages(api, document, 2, backward=True))) == expected


async def test_payment_requests_are_paged_per_contact_and_per_account(team: Team, api: Api) -> None:
    other = await factories.contact(team.account)
    mine, all_of_them = [], []
    for n in range(7):
        made = await factories.payment_request(other if n % 3 == 0 else team.contact)
        all_of_them.append(public_id("pr", made.id))
        if n % 3:
            mine.append(public_id("pr", made.id))
    contact = f"query($id: ID!, {ARGUMENTS}) {{ contact(id: $id) {{ paymentRequests({USE}) {BODY} }} }}"
    account = f"query({ARGUMENTS}) {{ paymentRequests({USE}) {BODY} }}"
    assert flat(await pages(api, contact, 3, id=public_id("cnt", team.contact.id))) == mine[::-1]
    assert flat(await pages(api, account, 3)) == all_of_them[::-1]
    assert flat(reversed(await pages(api, account, 3, backward=True))) == all_of_them[::-1]


async def ledger(contact: tables.Contact, processor: tables.ProcessorConnection) -> list[str]:
    """Payments of one contact, most with several facts; their ids, oldest first."""
    request = await factories.payment_request(contact, processor_connection_id=processor.id)
    again = await factories.payment_request(contact, processor_connection_id=processor.id)
    pending = await factories.money_fact(request, outcome="PENDING", counted=True)
    outside = await factories.money_fact(
        again, processor_connection_id=None, processor=None, external_id=pending.external_id
    )
    same = {"external_id": pending.external_id, "charge_external_id": pending.external_id}
    await factories.money_fact(request, outcome="SUCCEEDED", **same)
    await factories.money_fact(request, kind="ADJUSTMENT", fee_minor=30, **same)
    refund = await factories.money_fact(
        request,
        kind="REFUND",
        outcome="PENDING",
        external_id=f"re_{request.id}",
        charge_external_id=pending.external_id,
    )
    await factories.money_fact(
        request, kind="REFUND", external_id=f"re_{request.id}", charge_external_id=pending.external_id
    )
    dispute = await factories.money_fact(
        request,
        kind="DISPUTE",
        outcome="PENDING",
        external_id=pending.external_id,
        charge_external_id=pending.external_id,
    )
    late = await factories.money_fact(again, counted=False)
    await factories.money_fact(again, kind="ACCEPTANCE", external_id=late.external_id)
    await factories.money_fact(again, kind="WAIVER", external_id=f"waived {again.id}")
    return [public_id("pay", fact.id) for fact in (pending, outside, refund, dispute, late)]


async def test_the_ledger_of_a_contact_lists_each_payment_once(team: Team, api: Api) -> None:
    expected = await ledger(team.contact, team.processor)
    other = await factories.contact(team.account)
    await factories.money_fact(await factories.payment_request(other))
    body = BODY.replace("nodes {", "totalCount nodes {")
    document = f"query($id: ID!, {ARGUMENTS}) {{ contact(id: $id) {{ payments({USE}) {body} }} }}"
    id = public_id("cnt", team.contact.id)
    assert flat(await pages(api, document, 2, id=id)) == expected[::-1]
    assert flat(reversed(await pages(api, document, 2, backward=True, id=id))) == expected[::-1]
    shown = await api.one(
        """query($id: ID!) { contact(id: $id) { payments { totalCount nodes { id kind status fee { minorUnits } counted } }
          paymentRequests { nodes { payments { id kind status fee { minorUnits } counted } } } } }""",
        {"id": id},
    )
    of_requests = [payment for request in shown["paymentRequests"]["nodes"] for payment in request["payments"]]
    assert shown["payments"]["totalCount"] == len(expected)
    assert shown["payments"]["nodes"] == sorted(of_requests, key=lambda one: one["id"], reverse=True)


async def test_the_ledger_of_a_merged_contact_contains_the_payments_of_both(team: Team, api: Api) -> None:
    other = await factories.contact(team.account)
    await factories.conversation(other)
    expected = [*await ledger(team.contact, team.processor), *await ledger(other, team.processor)]
    given = {"contactId": public_id("cnt", team.contact.id), "mergedContactId": public_id("cnt", other.id)}
    merged = await api.run("mergeContacts", {"idempotencyKey": "merge-of-two", **given}, "contact { id }")
    assert merged["userErrors"] == []
    document = f"query($id: ID!, {ARGUMENTS}) {{ contact(id: $id) {{ payments({USE}) {BODY} }} }}"
    for id in given.values():
        assert flat(await pages(api, document, 3, id=id)) == expected[::-1]


async def test_notifications_and_contacts_are_paged(team: Team, api: Api) -> None:
    user = await tables.User.get(id=team.agent.user_id)
    expected = [public_id("ntf", (await factories.notification(user)).id) for _ in range(5)]
    await factories.notification(await tables.User.get(id=team.owner.user_id))
    document = f"query({ARGUMENTS}) {{ notifications({USE}) {BODY} }}"
    assert flat(await pages(api, document, 2)) == expected[::-1]
    people = [public_id("cnt", team.contact.id)]
    people += [public_id("cnt", (await factories.contact(team.account)).id) for _ in range(4)]
    document = f"query({ARGUMENTS}) {{ contacts({USE}) {BODY} }}"
    assert flat(await pages(api, document, 2)) == people[::-1]


async def test_users_and_keys_of_an_account_are_paged(team: Team, api: Api) -> None:
    team_ids = [public_id("usr", row.id) for row in await tables.User.filter(account_id=team.account.id).order_by("id")]
    await factories.user(await factories.account())
    keys = [
        public_id("key", (await factories.api_key(team.account, f"ptk_key_of_this_account_{n}")).id) for n in range(5)
    ]
    for field, expected in (("users", team_ids), ("apiKeys", keys)):
        document = f"query({ARGUMENTS}) {{ account {{ {field}({USE}) {BODY} }} }}"
        assert flat(await pages(api, document, 2, viewer=team.owner)) == expected
        assert flat(reversed(await pages(api, document, 2, backward=True, viewer=team.owner))) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        {"first": 0},
        {"first": 101},
        {"last": -1},
        {"first": 1, "last": 1},
        {"after": ""},
        {"after": "not a cursor"},
        {"before": CONTACTS.cursor(UUID(int=7))},
        {"after": CONVERSATIONS.cursor(datetime(2026, 1, 1), uuid7())},  # noqa: DTZ001 the point of the case
    ],
)
async def test_page_arguments_that_make_no_sense_are_refused(api: Api, arguments: dict[str, Any]) -> None:
    document = f"query({ARGUMENTS}) {{ conversations({USE}) {{ nodes {{ id }} }} }}"
    with pytest.raises(Failed) as failed:
        await api.one(document, arguments)
    assert failed.value.codes == ["BAD_REQUEST"]


@pytest.mark.parametrize("raw", [b"t|", b"t|-1", b"t|99999999999999999999", b"n|5", b"t|5|6", b"\xff\xfe", b"t|five"])
def test_a_cursor_that_is_none_of_this_connection_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError):
        THREAD.key(base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), "after")


@pytest.mark.parametrize(
    ("keyset", "key"),
    [
        (THREAD, (2**63 - 1,)),
        (NOTIFICATIONS, (0,)),
        (CONTACTS, (UUID(int=2**128 - 1),)),
        (CONVERSATIONS, (datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC), uuid7())),
    ],
)
def test_a_cursor_gives_its_key_back(keyset: Keyset, key: tuple[object, ...]) -> None:
    assert keyset.key(keyset.cursor(*key), "after") == key


async def test_raw_rows_are_the_instances_that_the_orm_reads(team: Team) -> None:
    request = await factories.payment_request(team.contact, due_at=factories.now(), description="Über alles")
    message = await factories.message(team.conversation, subject="Hi", external_id="x-1", sending_at=factories.now())
    card = await factories.activity_card(request, actor_id=team.agent.user_id)
    reads = Access(team.agent, None)
    thread = await reads.thread(team.conversation, THREAD.page())
    found: list[tables.Row | None] = [
        *thread.rows,
        await reads.payment_request(request.id),
        await reads.contact(team.contact.id),
        await reads.conversation(team.conversation.id),
        await reads.user(message.id),
    ]
    expected: list[tables.Row | None] = [
        await tables.Message.get(id=message.id),
        await tables.ActivityCard.get(id=card.id),
        await tables.PaymentRequest.get(id=request.id),
        await tables.Contact.get(id=team.contact.id),
        await tables.Conversation.get(id=team.conversation.id),
        None,
    ]
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other)
        assert getattr(one, "__dict__", None) == getattr(other, "__dict__", None)


def test_a_raw_row_without_a_column_is_a_bug() -> None:
    with pytest.raises(KeyError):
        instance(tables.Contact, {"id": uuid7()})
