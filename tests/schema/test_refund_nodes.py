"""Refunds, disputes and files as objects with ids: read again at any time, each once, as they are now."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import tables
from models.ids import public_id, uuid7
from tests import factories
from tests.schema.conftest import Api, statements
from tests.services.conftest import Team

FIELDS = """__typename id status amount { amount currency } reason failureMessage createdAt
  requestedBy { __typename ... on User { name } ... on ApiKey { name } ... on SystemActor { name } }
  charge { id } payment { id kind status }"""
OF_REQUEST = f"query($id: ID!) {{ paymentRequest(id: $id) {{ refunds {{ {FIELDS} }} }} }}"
NODE = f"query($id: ID!) {{ node(id: $id) {{ ... on Refund {{ {FIELDS} }} }} }}"
DISPUTE = """__typename id state amount { amount } isInquiry reason responseDueAt openedAt closedAt charge { id }
  payment { id kind }"""
DISPUTES = f"query($id: ID!) {{ paymentRequest(id: $id) {{ disputeState disputes {{ {DISPUTE} }} }} }}"
DISPUTE_NODE = f"query($id: ID!) {{ node(id: $id) {{ ... on Dispute {{ {DISPUTE} }} }} }}"
ALL = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"


async def paid(team: Team, **overrides: Any) -> tuple[tables.PaymentRequest, tables.MoneyFact]:
    values: dict[str, Any] = {"processor_connection_id": team.processor.id, "status": "PAID", "amount_minor": 12500}
    request = await factories.payment_request(team.contact, **values | overrides)
    return request, await factories.money_fact(request, external_id=f"ch_{uuid7().hex}")


async def told(request: tables.PaymentRequest, charge: tables.MoneyFact, external_id: str, **more: Any) -> Any:
    """The processor reports a refund of the charge."""
    values = {"amount_minor": 2500, "charge_external_id": charge.external_id, "external_id": external_id}
    return await factories.money_fact(request, kind="REFUND", **values | more)


async def shown(api: Api, request: tables.PaymentRequest, **options: Any) -> list[dict[str, Any]]:
    found = await api.one(OF_REQUEST, {"id": public_id("pr", request.id)}, **options)
    refunds_of: list[dict[str, Any]] = found["refunds"]
    for one in refunds_of:
        assert await api.one(NODE, {"id": one["id"]}, **options) == one
    return refunds_of


@pytest.mark.parametrize("status", ["PENDING", "UNKNOWN"])
async def test_a_refund_without_an_answer_is_read_again_by_its_id(team: Team, api: Api, status: str) -> None:
    request, charge = await paid(team)
    row = await factories.refund(charge, status=status, requested_by=team.owner.ref.stored())
    (refund,) = await shown(api, request, viewer=team.viewer)
    assert refund == {
        "__typename": "Refund",
        "id": public_id("rfd", row.id),
        "status": status,
        "amount": {"amount": "25.00", "currency": "USD"},
        "reason": "DUPLICATE",
        "failureMessage": None,
        "createdAt": refund["createdAt"],
        "requestedBy": {"__typename": "User", "name": team.owner.name},
        "charge": {"id": public_id("pay", charge.id)},
        "payment": None,
    }


async def test_a_refund_keeps_its_id_through_every_state(team: Team, api: Api) -> None:
    request, charge = await paid(team)
    row = await factories.refund(charge)
    seen = [(await shown(api, request))[0]]
    fact = await told(request, charge, "re_1", outcome="PENDING")  # a webhook, before the answer is stored
    seen.append((await shown(api, request))[0])
    await tables.Refund.filter(id=row.id).update(external_id="re_1", status="PENDING")
    seen.append((await shown(api, request))[0])
    await told(request, charge, "re_1", outcome="FAILED", failure_message="The account is closed.")
    await tables.Refund.filter(id=row.id).update(status="FAILED", failure_reason="The account is closed.")
    (last,) = await shown(api, request)
    seen.append(last)
    assert {one["id"] for one in seen} == {public_id("rfd", row.id)}
    assert [one["status"] for one in seen] == ["PENDING", "PENDING", "PENDING", "FAILED"]
    assert [one["payment"] and one["payment"]["id"] for one in seen] == [None, *[public_id("pay", fact.id)] * 3]
    assert last["failureMessage"] == "The account is closed."
    # The id of its money, too, as if it had begun at the processor.
    assert (await api.one(NODE, {"id": public_id("rfd", fact.id)}))["id"] == last["id"]


async def test_a_refund_that_began_at_the_processor_is_one_of_its_own(team: Team, api: Api) -> None:
    request, charge = await paid(team)
    before = await told(request, charge, "re_dashboard")
    row = await factories.refund(charge)  # later, of the same amount: another refund
    found = await shown(api, request)
    assert [(one["id"], one["status"], one["reason"]) for one in found] == [
        (public_id("rfd", before.id), "SUCCEEDED", None),
        (public_id("rfd", row.id), "PENDING", "DUPLICATE"),
    ]
    assert found[0]["requestedBy"] == {"__typename": "SystemActor", "name": team.processor.display_name}
    assert found[0]["charge"] == {"id": public_id("pay", charge.id)}
    assert found[1]["requestedBy"] == {"__typename": "SystemActor", "name": "API key"}


@pytest.mark.parametrize(
    "other", [{"amount_minor": 2501}, {"charge_external_id": "ch_other"}, {"currency": "EUR"}, {}], ids=str
)
async def test_only_a_report_of_the_same_money_is_taken_for_an_unanswered_refund(
    team: Team, api: Api, other: dict[str, Any]
) -> None:
    request, charge = await paid(team)
    await factories.refund(charge, status="UNKNOWN")
    await told(request, charge, "re_1", **other)
    found = await shown(api, request)
    assert len(found) == (2 if other else 1)
    assert found[0]["status"] == ("UNKNOWN" if other else "SUCCEEDED")


async def test_two_unanswered_refunds_take_one_report_once(team: Team, api: Api) -> None:
    request, charge = await paid(team)
    first, second = await factories.refund(charge), await factories.refund(charge)
    await told(request, charge, "re_1")
    assert [one["status"] for one in await shown(api, request)] == ["SUCCEEDED", "PENDING"]
    await tables.Refund.filter(id=second.id).update(external_id="re_1", status="SUCCEEDED")
    assert [(one["id"], one["status"]) for one in await shown(api, request)] == [
        (public_id("rfd", first.id), "PENDING"),
        (public_id("rfd", second.id), "SUCCEEDED"),
    ]


async def test_a_refused_refund_stays_readable(team: Team, api: Api) -> None:
    request, charge = await paid(team)
    await factories.refund(charge, status="FAILED", failure_reason="The balance is too low.")
    (refund,) = await shown(api, request)
    assert (refund["status"], refund["failureMessage"]) == ("FAILED", "The balance is too low.")


async def test_a_request_has_a_dispute_for_each_at_the_processor(team: Team, api: Api) -> None:
    request, charge = await paid(team, dispute_state="NEEDS_RESPONSE")
    opened = datetime(2026, 11, 1, 12, tzinfo=UTC)
    about = {"kind": "DISPUTE", "charge_external_id": charge.external_id, "amount_minor": 12500}
    first = await factories.money_fact(
        request, external_id="dp_1", outcome="PENDING", occurred_at=opened, inquiry=True, **about
    )
    second = await factories.money_fact(
        request, external_id="dp_2", outcome="PENDING", occurred_at=opened + timedelta(days=1),
        dispute_reason="fraudulent", response_due_at=opened + timedelta(days=9), **about,
    )  # fmt: skip
    variables = {"id": public_id("pr", request.id)}
    before = (await api.one(DISPUTES, variables, viewer=team.viewer))["disputes"]
    won = await factories.money_fact(
        request, external_id="dp_1", outcome="CANCELED", occurred_at=opened + timedelta(days=2), inquiry=True, **about
    )
    after = (await api.one(DISPUTES, variables))["disputes"]
    ids = [public_id("dsp", first.id), public_id("dsp", second.id)]
    assert [one["id"] for one in before] == [one["id"] for one in after] == ids
    assert [(one["state"], one["isInquiry"]) for one in before] == [("NEEDS_RESPONSE", True), ("NEEDS_RESPONSE", False)]
    assert [(one["state"], one["closedAt"]) for one in after] == [
        ("WON", "2026-11-03T12:00:00Z"),
        ("NEEDS_RESPONSE", None),
    ]
    assert after[1] == {
        "__typename": "Dispute",
        "id": ids[1],
        "state": "NEEDS_RESPONSE",
        "amount": {"amount": "125.00"},
        "isInquiry": False,
        "reason": after[1]["reason"],
        "responseDueAt": "2026-11-10T12:00:00Z",
        "openedAt": "2026-11-02T12:00:00Z",
        "closedAt": None,
        "charge": {"id": public_id("pay", charge.id)},
        "payment": {"id": public_id("pay", second.id), "kind": "DISPUTE"},
    }
    for one in after:
        assert await api.one(DISPUTE_NODE, {"id": one["id"]}) == one
    assert await api.one(DISPUTE_NODE, {"id": public_id("dsp", won.id)}) == after[0]


async def test_a_file_is_read_again_by_its_id(team: Team, api: Api) -> None:
    message = await factories.message(team.conversation)
    row = await factories.attachment(message, status="PENDING")
    document = "query($id: ID!) { node(id: $id) { ... on Attachment { id name status url } } }"
    assert (await api.one(document, {"id": public_id("att", row.id)}))["status"] == "PENDING"
    await tables.Attachment.filter(id=row.id).update(status="STORED", content=b"x", size_bytes=1)
    found = await api.one(document, {"id": public_id("att", row.id)}, viewer=team.viewer)
    assert (found["id"], found["name"], found["status"]) == (public_id("att", row.id), row.name, "STORED")
    assert found["url"]
    of_message = await api.one(
        "query($id: ID!) { node(id: $id) { ... on Message { attachments { id status } } } }",
        {"id": public_id("msg", message.id)},
    )
    assert of_message["attachments"] == [{"id": found["id"], "status": "STORED"}]


async def test_no_id_reads_what_is_of_another_account_or_of_another_kind(team: Team, api: Api) -> None:
    other = await factories.account(name="Other")
    contact = await factories.contact(other)
    request = await factories.payment_request(contact)
    charge = await factories.money_fact(request)
    row, begun = await factories.refund(charge), await told(request, charge, "re_theirs")
    dispute = await factories.money_fact(request, kind="DISPUTE", external_id="dp_1", outcome="PENDING")
    file = await factories.attachment(await factories.message(await factories.conversation(contact)))
    theirs = [
        public_id("rfd", row.id),
        public_id("rfd", begun.id),
        public_id("dsp", dispute.id),
        public_id("att", file.id),
    ]
    assert await api.one(ALL, {"ids": theirs}) == [None] * 4
    mine, my_charge = await paid(team)
    waiver = await factories.money_fact(mine, kind="WAIVER", external_id="w", processor_connection_id=None)
    wrong = [
        *(public_id(prefix, my_charge.id) for prefix in ("rfd", "dsp", "att")),
        *(public_id(prefix, waiver.id) for prefix in ("rfd", "dsp", "pay")),
        "rfd_nonsense",
    ]
    assert await api.one(ALL, {"ids": wrong}) == [None] * 7


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_refunds_and_disputes_take_the_same_statements_for_any_page(team: Team, api: Api) -> None:
    document = "query($n: Int) { paymentRequests(first: $n) { nodes { refunds { id requestedBy { __typename } } disputes { id } } } }"
    for n in range(20):
        request, charge = await paid(team)
        await factories.refund(charge, external_id=f"re_{n}", status="SUCCEEDED")
        await told(request, charge, f"re_{n}")
        await told(request, charge, f"re_own_{n}")
    counts = []
    for n in (2, 20):
        async with statements() as seen:
            await api.one(document, {"n": n})
        counts.append(len(seen))
    assert counts[0] == counts[1] <= 5
