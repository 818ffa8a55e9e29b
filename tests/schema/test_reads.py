"""Reads: everything in the viewer's account, nothing of another, in a constant number of statements."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from graphql import get_named_type, is_composite_type, is_required_argument

from models import tables
from models.event_log import Cursor as EventCursor
from models.ids import public_id, uuid7
from services.core.permissions import Actor
from services.messaging import contacts
from services.payments import payment_requests
from tests import factories
from tests.schema.conftest import SCHEMA, Api, Failed, statements
from tests.services.conftest import Team

sqlite_only = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

REQUEST = """
  id number status version productName description amount { amount currency minorUnits formatted(locale: "de-DE") }
  amountPaid { amount } amountDue { amount } contact { id name } conversation { id } channelKind channel { id kind }
  checkoutUrl processorKind processor { id displayName } testMode
  payments { id kind status amount { amount } fee { amount } net { amount } processorKind processorReference methodSummary }
  sentVia deliveryState humanViews isOverdue voidPending refundState disputeState lastAttempt { status declineCode message at }
  excess { amount } late { amount } availableActions { action resultingStatus }
"""


async def another_account() -> tuple[Actor, dict[str, str]]:
    """Another account, and an id of each of its objects."""
    account = await factories.account(name="Another account")
    user = await factories.user(account, role="OWNER")
    contact = await factories.contact(account)
    conversation = await factories.conversation(contact)
    channel = await factories.channel_connection(account)
    processor = await factories.processor_connection(account)
    request = await factories.payment_request(contact, processor_connection_id=processor.id)
    fact = await factories.money_fact(request)
    message = await factories.message(conversation, channel_connection_id=channel.id)
    refund = await factories.refund(fact)
    dispute = await factories.money_fact(request, kind="DISPUTE", external_id="dp_1", outcome="PENDING")
    file = await factories.attachment(message)
    card = await factories.activity_card(request)
    notification = await factories.notification(user)
    key = await factories.api_key(account, "ptk_somebody_elses_key_0001")
    ids = {
        "acc": public_id("acc", account.id),
        "usr": public_id("usr", user.id),
        "key": public_id("key", key.id),
        "chn": public_id("chn", channel.id),
        "prc": public_id("prc", processor.id),
        "cnt": public_id("cnt", contact.id),
        "cnv": public_id("cnv", conversation.id),
        "cch": public_id(public_id("cch", conversation.id), channel.id),
        "msg": public_id("msg", message.id),
        "card": public_id("card", card.id),
        "pr": public_id("pr", request.id),
        "pay": public_id("pay", fact.id),
        "ntf": public_id("ntf", notification.id),
        "ses": public_id("ses", (await factories.session(user.id, account)).family_id),
        "inv": public_id("inv", (await factories.invitation(account)).id),
        "prv": public_id("prv", (await factories.saved_view(account)).id),
        "cvv": public_id("cvv", (await factories.saved_view(account, subject="CONVERSATION")).id),
        "rfd": public_id("rfd", refund.id),
        "dsp": public_id("dsp", dispute.id),
        "att": public_id("att", file.id),
    }
    actor = Actor(
        account_id=account.id, role="OWNER", user_id=user.id, name=user.name, kind="user", credential="somebody"
    )
    return actor, ids


async def test_every_object_is_found_by_its_id_and_by_no_other_account(team: Team, api: Api) -> None:
    them, ids = await another_account()
    document = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"
    seen = await api.one(document, {"ids": list(ids.values())}, viewer=them)
    assert [node["id"] for node in seen] == list(ids.values())
    assert [node["__typename"] for node in seen] == [
        "Account",
        "User",
        "ApiKey",
        "Channel",
        "Processor",
        "Contact",
        "Conversation",
        "ConversationChannel",
        "Message",
        "ActivityCard",
        "PaymentRequest",
        "Payment",
        "Notification",
        "Session",
        "Invitation",
        "PaymentRequestView",
        "ConversationView",
        "Refund",
        "Dispute",
        "Attachment",
    ]
    assert await api.one(document, {"ids": list(ids.values())}) == [None] * len(ids)


@pytest.mark.parametrize("id", ["", "x", "cnt_", "cnt_zz", "pr_../../etc", "cch_1_2", "cnt_" + "8" * 26, "\x00" * 30])
async def test_an_id_that_is_none_reads_as_one_that_does_not_exist(api: Api, id: str) -> None:
    document = """query($id: ID!) {
      node(id: $id) { id } contact(id: $id) { id } conversation(id: $id) { id } paymentRequest(id: $id) { id } }"""
    answer = await api.all(document, {"id": id})
    assert answer == {"node": None, "contact": None, "conversation": None, "paymentRequest": None}


async def test_an_id_of_another_type_is_not_accepted(team: Team, api: Api) -> None:
    wrong = public_id("cnv", team.contact.id)
    assert await api.one("query($id: ID!) { contact(id: $id) { id } }", {"id": wrong}) is None


@pytest.mark.parametrize(
    "field",
    ["account { id }", "account { users { nodes { id } } }", "conversations { nodes { id } }", "viewer { name }"],
)
async def test_without_a_credential_nothing_is_read(api: Api, field: str) -> None:
    with pytest.raises(Failed) as failed:
        await api.all(f"{{ {field} }}", viewer=None)
    assert failed.value.codes == ["UNAUTHENTICATED"]


async def test_the_viewer_is_a_person_or_a_key(team: Team, api: Api) -> None:
    document = "{ viewer { name role user { id email } account { name } } }"
    person = await api.one(document)
    assert person["user"]["id"] == public_id("usr", team.agent.user_id)  # type: ignore[arg-type]
    assert (person["name"], person["role"], person["account"]["name"]) == ("Agent", "AGENT", "Acme Cleaning")
    key = Actor(
        account_id=team.account.id, role="ADMIN", user_id=None, name="Robot", kind="api_key", credential=str(uuid7())
    )
    program = await api.one(document, viewer=key)
    assert (program["name"], program["user"]) == ("Robot", None)
    own = await api.all("{ notifications { nodes { id } } viewer { unreadNotificationCount } }", viewer=key)
    assert own == {"notifications": {"nodes": []}, "viewer": {"unreadNotificationCount": 0}}


async def test_the_viewer_has_an_id_that_is_its_own(team: Team, api: Api) -> None:
    def key(credential: str) -> Actor:
        return Actor(
            account_id=team.account.id, role="AGENT", user_id=None, name="Key", kind="api_key", credential=credential
        )

    again = replace(team.agent, credential="another session")
    viewers = [team.agent, team.owner, key("one"), key("two")]
    ids = [(await api.one("{ viewer { id } }", viewer=viewer))["id"] for viewer in viewers]
    assert len(set(ids)) == len(viewers)
    assert (await api.one("{ viewer { id } }", viewer=again))["id"] == ids[0]
    for viewer, own in zip(viewers, ids, strict=True):
        found = [await api.one("query($id: ID!) { node(id: $id) { id } }", {"id": id}, viewer=viewer) for id in ids]
        assert found == [{"id": id} if id == own else None for id in ids]


async def test_figures_have_one_id_per_period(team: Team, api: Api) -> None:
    document = "query($id: ID!) { node(id: $id) { ... on DashboardFigures { id range byCurrency { paidCount } } } }"
    them, _ = await another_account()
    ids = set()
    for period in ("TODAY", "ALL_TIME"):
        shown = await api.one(
            f"{{ dashboard(period: {{ range: {period} }}) {{ id range byCurrency {{ paidCount }} }} }}"
        )
        assert await api.one(document, {"id": shown["id"]}) == shown
        assert await api.one(document, {"id": shown["id"]}, viewer=them) is None
        assert await api.one(document, {"id": shown["id"].replace(period, "NEVER")}) is None
        ids.add(shown["id"])
    assert len(ids) == 2
    for wrong in ("dash_", "dash__TODAY", "dash_TODAY", public_id("dash", team.account.id)):
        assert await api.one(document, {"id": wrong}) is None


async def test_api_keys_are_for_owners(team: Team, api: Api) -> None:
    row = await factories.api_key(team.account, "ptk_some_key_that_is_long")
    with pytest.raises(Failed) as failed:
        await api.one("{ account { apiKeys { nodes { id } } } }")
    assert failed.value.codes == ["FORBIDDEN"]
    shown = await api.one("{ account { apiKeys { totalCount nodes { id hint } } } }", viewer=team.owner)
    assert shown["apiKeys"] == {"totalCount": 1, "nodes": [{"id": public_id("key", row.id), "hint": row.hint}]}
    result = await api.result("{ account { name apiKeys { nodes { id } } } }")
    assert result.data == {"account": {"name": team.account.name, "apiKeys": None}}
    assert await api.one("query($id: ID!) { node(id: $id) { id } }", {"id": public_id("key", row.id)}) is None


@sqlite_only
async def test_a_root_that_the_role_is_refused_is_null_and_the_others_answer(team: Team, api: Api) -> None:
    roots = SCHEMA._schema.query_type
    assert roots is not None
    parts = {
        name: name + (" { __typename }" if is_composite_type(get_named_type(one.type)) else "")
        for name, one in roots.fields.items()
        if not any(is_required_argument(given) for given in one.args.values())
    }
    unknown = f'input: {{conversationId: "{public_id("cnv", uuid7())}", channelId: "{public_id("chn", uuid7())}"}}'
    document = f"{{ {' '.join(parts.values())} messagePreview({unknown}) {{ text }} }}"
    refused = {"messagePreview": "NOT_FOUND"}
    for viewer in (team.owner, team.agent, team.viewer):
        result = await api.result(document, viewer=viewer)
        assert result.data is not None
        assert {name for name, value in result.data.items() if value is None} == refused.keys()
        assert {str(e.path[0]): (e.extensions or {})["code"] for e in result.errors or () if e.path} == refused


async def test_a_payment_request_shows_its_row_its_money_and_its_payments(team: Team, api: Api) -> None:
    request = await factories.payment_request(
        team.contact,
        conversation_id=team.conversation.id,
        processor_connection_id=team.processor.id,
        channel_connection_id=team.channels["SMS"].id,
        status="PARTIALLY_PAID",
        amount_minor=12550,
        amount_paid_minor=2550,
        due_at=factories.now() - timedelta(days=1),
        sent_via="MESSAGE",
        sent_at=factories.now(),
        last_attempt_status="FAILED",
        last_attempt_code="card_declined",
        last_attempt_message="Declined",
        last_attempt_at=factories.now(),
        clear_token="A" * 22,
    )
    pending = await factories.money_fact(request, outcome="PENDING", external_id="pi_1", amount_minor=2550)
    await factories.money_fact(
        request,
        external_id="pi_1",
        amount_minor=2550,
        fee_minor=104,
        method_summary="Visa •••• 4242",
        occurred_at=pending.occurred_at,
    )
    shown = await api.one(
        f"query($id: ID!) {{ paymentRequest(id: $id) {{ {REQUEST} }} }}", {"id": public_id("pr", request.id)}
    )
    assert shown["amount"] == {
        "amount": "125.50",
        "currency": "USD",
        "minorUnits": "12550",
        "formatted": "125,50\u00a0$",
    }
    assert (shown["amountPaid"], shown["amountDue"]) == ({"amount": "25.50"}, {"amount": "100.00"})
    assert shown["checkoutUrl"] == "https://pay.example.test/p/" + "A" * 22
    assert (shown["processorKind"], shown["channelKind"], shown["isOverdue"]) == ("SANDBOX", "SMS", True)
    assert shown["channel"] == {"id": public_id("chn", team.channels["SMS"].id), "kind": "SMS"}
    assert shown["contact"] == {"id": public_id("cnt", team.contact.id), "name": "Maya Torres"}
    assert shown["conversation"] == {"id": public_id("cnv", team.conversation.id)}
    assert shown["payments"] == [
        {
            "id": public_id("pay", pending.id),
            "kind": "CHARGE",
            "status": "SUCCEEDED",
            "amount": {"amount": "25.50"},
            "fee": {"amount": "1.04"},
            "net": {"amount": "24.46"},
            "processorKind": "SANDBOX",
            "processorReference": "pi_1",
            "methodSummary": "Visa •••• 4242",
        }
    ]
    assert (shown["lastAttempt"]["status"], shown["lastAttempt"]["declineCode"]) == ("FAILED", "card_declined")
    assert shown["availableActions"] == [
        {"action": "SEND", "resultingStatus": None},
        {"action": "COPY_LINK", "resultingStatus": None},
        {"action": "VOID", "resultingStatus": "VOID"},
        {"action": "RECORD_OUTSIDE_PAYMENT", "resultingStatus": "PAID"},
    ]
    reading = f"query($id: ID!) {{ paymentRequest(id: $id) {{ {REQUEST} }} }}"
    assert (await api.one(reading, {"id": shown["id"]}, viewer=team.viewer))["availableActions"] == []


async def test_a_payment_says_which_charge_it_concerns_and_what_of_it_can_still_be_given_back(
    team: Team, api: Api
) -> None:
    second = await factories.processor_connection(team.account, display_name="The other shop")
    request = await factories.payment_request(team.contact, amount_minor=12550, processor_connection_id=second.id)
    charge = await factories.money_fact(request, external_id="pi_1")
    await factories.money_fact(
        request, kind="REFUND", external_id="re_1", charge_external_id="pi_1", outcome="PENDING", amount_minor=1000
    )
    await factories.money_fact(
        request, kind="DISPUTE", external_id="dp_1", charge_external_id="pi_1", outcome="PENDING", amount_minor=550
    )
    # Of another connection's charge with the same reference, and of an unknown charge.
    await factories.money_fact(
        request,
        kind="REFUND",
        external_id="re_1",
        charge_external_id="pi_1",
        processor_connection_id=team.processor.id,
        amount_minor=100,
    )
    given_up = await factories.money_fact(request, external_id="pi_2", outcome="FAILED")
    for status, external_id in (("UNKNOWN", None), ("FAILED", None), ("SUCCEEDED", "re_1")):
        await tables.Refund.create(
            id=uuid7(),
            account_id=team.account.id,
            payment_request_id=request.id,
            money_fact_id=charge.id,
            charge_external_id="pi_1",
            processor_connection_id=second.id,
            idempotency_key=f"rfd_{status}",
            amount_minor=2000,
            currency="USD",
            reason="OTHER",
            status=status,
            external_id=external_id,
        )
    shown = await api.one(
        """query($id: ID!) { paymentRequest(id: $id) { processorKind processor { id displayName }
          payments { kind charge { id kind } refundable { amount } } } }""",
        {"id": public_id("pr", request.id)},
    )
    assert shown["processorKind"] == "SANDBOX"
    assert shown["processor"] == {"id": public_id("prc", second.id), "displayName": "The other shop"}
    of_it = {"id": public_id("pay", charge.id), "kind": "CHARGE"}
    assert shown["payments"] == [
        {"kind": "CHARGE", "charge": None, "refundable": {"amount": "90.00"}},
        {"kind": "REFUND", "charge": of_it, "refundable": None},
        {"kind": "DISPUTE", "charge": of_it, "refundable": None},
        {"kind": "REFUND", "charge": None, "refundable": None},
        {"kind": "CHARGE", "charge": None, "refundable": {"amount": "0.00"}},
    ]
    failed = await api.one(
        "query($id: ID!) { node(id: $id) { ... on Payment { charge { id } refundable { minorUnits } } } }",
        {"id": public_id("pay", given_up.id)},
    )
    assert failed == {"charge": None, "refundable": {"minorUnits": "0"}}


async def test_a_payment_says_whether_its_request_counts_it(team: Team, api: Api) -> None:
    request = await factories.payment_request(team.contact, status="PAID")
    for n, counted in enumerate((True, False)):
        charge = await factories.money_fact(request, counted=counted, external_id=f"pay_{n}")
        for kind in ("REFUND", "DISPUTE"):
            await factories.money_fact(
                request, kind=kind, external_id=f"{kind}_{n}", charge_external_id=charge.external_id, counted=True
            )
    await factories.money_fact(request, kind="REFUND", external_id="alone", charge_external_id="unknown", counted=True)
    shown = await api.one(
        "query($id: ID!) { paymentRequest(id: $id) { payments { kind counted } } }", {"id": public_id("pr", request.id)}
    )
    assert [payment["counted"] for payment in shown["payments"]] == [True, True, True, False, False, False, False]


async def test_a_locale_that_is_none_falls_back_and_spares_the_rest_of_the_answer(team: Team, api: Api) -> None:
    request = await factories.payment_request(team.contact)
    answer = await api.one(
        """query($id: ID!) { paymentRequest(id: $id) { number amount {
          none: formatted(locale: "tlh-??") swiss: formatted(locale: "fr_CH") norwegian: formatted(locale: "no-NO")
          plain: formatted empty: formatted(locale: "") } } }""",
        {"id": public_id("pr", request.id)},
    )
    assert answer["number"] == request.number
    assert answer["amount"] == {
        "none": "$125.00",
        "swiss": "125.00\u00a0$US",
        "norwegian": "125,00\u00a0USD",
        "plain": "$125.00",
        "empty": "$125.00",
    }


BY_NUMBER = "query($number: String!) { paymentRequestByNumber(number: $number) { id } }"
BY_LINK = "query($url: URL!) { paymentRequestByLink(url: $url) { id } }"


async def test_a_request_is_found_by_its_number_and_its_link_only_in_its_account(team: Team, api: Api) -> None:
    token, theirs = "A" * 21 + "_", "B" * 22
    request = await factories.payment_request(team.contact, clear_token=token)
    other = await factories.payment_request(
        await factories.contact(await factories.account()), clear_token=theirs, number="THEIRS-1"
    )
    found = {"id": public_id("pr", request.id)}
    for number in (request.number, f" {request.number} "):
        assert await api.one(BY_NUMBER, {"number": number}) == found
    links = [
        f"https://pay.example.test/p/{token}",
        token,
        f" https://old.example/shop/p/{token}/return?x=1#top\n",
    ]
    for link in links:
        assert await api.one(BY_LINK, {"url": link}) == found, link
    for number in (other.number, request.number + "0", "", "PR-\x00", "PR-%", request.number.lower() + "x"):
        assert await api.one(BY_NUMBER, {"number": number}) is None, number
    hostile = [
        f"https://pay.example.test/p/{theirs}",
        theirs,
        f"https://pay.example.test/p/{token}X",
        f"/p/{token}",
        f"javascript:/p/{token}",
        f"https://evil.example/?x=/p/{token}",
        f"https://pay.example.test/p/{theirs}/p/{token}",
        "\x00" * 22,
        "",
    ]
    for link in hostile:
        assert await api.one(BY_LINK, {"url": link}) is None, link
    await tables.PaymentRequest.filter(id=request.id).update(discarded_at=factories.now())
    assert await api.one(BY_LINK, {"url": token}) is None
    assert await api.one(BY_NUMBER, {"number": request.number}) is None


async def test_a_discarded_draft_is_nowhere(team: Team, api: Api) -> None:
    made = await factories.payment_request(team.contact, discarded_at=factories.now())
    id = public_id("pr", made.id)
    document = """query($id: ID!, $contact: ID!) {
      node(id: $id) { id } paymentRequest(id: $id) { id } paymentRequests { nodes { id } }
      contact(id: $contact) { paymentRequests { totalCount nodes { id } } } }"""
    answer = await api.all(document, {"id": id, "contact": public_id("cnt", team.contact.id)})
    assert answer == {
        "node": None,
        "paymentRequest": None,
        "paymentRequests": {"nodes": []},
        "contact": {"paymentRequests": {"totalCount": 0, "nodes": []}},
    }


async def test_the_composer_text_is_made_for_own_channels_only(team: Team, api: Api) -> None:
    request = await factories.payment_request(team.contact, processor_connection_id=team.processor.id)
    _, theirs = await another_account()
    document = """query($id: ID!, $channel: ID!) {
      paymentRequest(id: $id) { composerInsert(channelId: $channel) { text checkoutUrl length maxLength smsSegments } } }"""
    variables = {"id": public_id("pr", request.id), "channel": public_id("chn", team.channels["SMS"].id)}
    made = (await api.one(document, variables))["composerInsert"]
    assert made["checkoutUrl"] in made["text"]
    assert (made["length"], made["smsSegments"]) == (len(made["text"]), 1)
    for wrong in (theirs["chn"], "chn_nonsense"):
        with pytest.raises(Failed) as failed:
            await api.one(document, variables | {"channel": wrong})
        assert failed.value.codes == ["NOT_FOUND"]
    await tables.PaymentRequest.filter(id=request.id).update(status="PAID")
    assert (await api.one(document, variables))["composerInsert"] is None


async def test_filters_select_and_searches_find(team: Team, api: Api) -> None:
    late = factories.now() - timedelta(hours=1)
    paid = await factories.payment_request(team.contact, status="PAID", product_name="Window cleaning")
    overdue = await factories.payment_request(team.contact, status="SENT", due_at=late)
    other = await factories.contact(team.account, name="100% Ümit_Kaya", email="umit@example.test", phone="+4915112345")
    await factories.conversation(other)
    draft = await factories.payment_request(other, test_mode=False, due_at=late)
    document = "query($filter: PaymentRequestFilter) { paymentRequests(filter: $filter) { nodes { id } } }"

    async def found(**filter: Any) -> list[Any]:
        nodes = (await api.one(document, {"filter": filter}))["nodes"]
        return [node["id"] for node in nodes]

    p, o, d = (public_id("pr", row.id) for row in (paid, overdue, draft))
    assert await found(status=["PAID", "DRAFT"]) == [d, p]
    assert await found(status=[]) == []
    assert await found(overdue=True) == [o]
    assert await found(overdue=False) == [d, p]
    assert await found(testMode=False) == [d]
    assert await found(search="window") == [p]
    assert await found(search="Ümit_") == [d]
    assert await found(search=draft.number) == [d]
    assert await found(createdAt={"until": "2020-01-01T00:00:00Z"}) == []
    assert await found(createdAt={"from": "2020-01-01T00:00:00+02:00"}) == [d, o, p]
    tab = """query($id: ID!, $filter: PaymentRequestFilter) { contact(id: $id) { paymentRequests(filter: $filter) {
      totalCount nodes { id } } } }"""
    shown = await api.one(
        tab, {"id": public_id("cnt", team.contact.id), "filter": {"status": ["SENT"], "overdue": True}}
    )
    assert shown["paymentRequests"] == {"totalCount": 1, "nodes": [{"id": o}]}
    for text in ("100%", "umit@", "+49151", "kaya"):
        names = await api.all(
            "query($s: String) { contacts(filter: {search: $s}) { nodes { name } }"
            " conversations(filter: {search: $s}) { nodes { contact { name } } } }",
            {"s": text},
        )
        assert names["contacts"]["nodes"] == [{"name": other.name}]
        assert names["conversations"]["nodes"] == [{"contact": {"name": other.name}}]
    assert (await api.one("query($s: String) { contacts(filter: {search: $s}) { nodes { name } } }", {"s": "%"}))[
        "nodes"
    ] == [{"name": other.name}]
    for wrong in ("x" * 101, "nul\x00"):
        with pytest.raises(Failed) as failed:
            await api.one("query($s: String) { contacts(filter: {search: $s}) { nodes { name } } }", {"s": wrong})
        assert failed.value.codes == ["BAD_REQUEST"]


async def test_searches_ignore_case_accents_and_punctuation(team: Team, api: Api) -> None:
    made: dict[str, tables.PaymentRequest] = {}
    for name, product, amount, currency in (
        ("Søren Ærø", "Straßenfest", 125000, "EUR"),
        ("İpek Işık", "Deep clean", 12500, "USD"),
        ("山田 太郎", "ガラス", 12500, "JPY"),
    ):
        contact = await factories.contact(
            team.account, name=name, email=f"{len(made)}@Übung.test", phone=f"+49151234{len(made)}"
        )
        await factories.conversation(contact)
        made[name] = await factories.payment_request(
            contact, product_name=product, amount_minor=amount, currency=currency
        )
    soren, ipek, yamada = made
    document = """query($s: String) {
      contacts(filter: {search: $s}) { nodes { name } } conversations(filter: {search: $s}) { nodes { contact { name } } }
      paymentRequests(filter: {search: $s}) { nodes { contact { name } } } }"""
    for text, people in {
        "SØREN": [soren],
        "soren aero": [soren],
        "IPEK ISIK": [ipek],
        "太郎": [yamada],
        "1@ÜBUNG": [ipek],
        "(0151) 234-2": [yamada],
        "ubung": [yamada, ipek, soren],
        "S_ren": [],
    }.items():
        answer = await api.all(document, {"s": text})
        assert [node["name"] for node in answer["contacts"]["nodes"]] == people, text
        assert sorted(node["contact"]["name"] for node in answer["conversations"]["nodes"]) == sorted(people), text
        assert [node["contact"]["name"] for node in answer["paymentRequests"]["nodes"]] == people, text
    for text, people in {
        "STRASSENFEST": [soren],
        "ｶﾞﾗｽ": [yamada],
        "カ": [],
        made[ipek].number.lower(): [ipek],
        "1,250.00": [soren],
        "12500": [yamada],
        "€ 1.250": [soren],
        "125.00": [ipek],
    }.items():
        answer = await api.all(document, {"s": text})
        assert [node["contact"]["name"] for node in answer["paymentRequests"]["nodes"]] == people, text
        assert answer["contacts"]["nodes"] == [], text


async def test_a_contact_shows_addresses_totals_and_its_overdue_requests(team: Team, api: Api) -> None:
    late = factories.now() - timedelta(hours=1)
    for status in ("SENT", "PARTIALLY_PAID", "PAID", "VOID", "DRAFT"):
        await factories.payment_request(team.contact, status=status, due_at=late)
    await tables.ContactSummary.create(
        account_id=team.account.id,
        contact_id=team.contact.id,
        currency="USD",
        test_mode=True,
        requested_minor=50000,
        paid_minor=12500,
        net_minor=12500,
        open_count=3,
        paid_count=1,
    )
    shown = await api.one(
        """query($id: ID!) { contact(id: $id) { name tags version addresses { kind address optedOutAt }
          conversation { id } paymentSummary { currency testMode requested { amount } paid { amount } net { amount }
          openCount paidCount overdueCount firstPaidAt } } }""",
        {"id": public_id("cnt", team.contact.id)},
    )
    assert [address["kind"] for address in shown["addresses"]] == sorted(team.addresses)
    assert shown["paymentSummary"] == [
        {
            "currency": "USD",
            "testMode": True,
            "requested": {"amount": "500.00"},
            "paid": {"amount": "125.00"},
            "net": {"amount": "125.00"},
            "openCount": 3,
            "paidCount": 1,
            "overdueCount": 2,
            "firstPaidAt": None,
        }
    ]


async def test_the_account_shows_its_settings_and_no_secret(team: Team, api: Api) -> None:
    result = await api.result(
        """{ account { id name defaultCurrency locale timeZone contactEmail contactPhone numberPrefix
          channels { id kind provider displayName sender connected webhookUrl lastError }
          paymentSettings { defaultProcessorKind linkMessageTemplate
            processors { id kind displayName connected isDefault testMode currencies webhookUrl keyHint } }
          users { totalCount nodes { name role } } }
          paymentRequestDefaults { currency currencies processorKind testMode } }"""
    )
    assert result.errors is None
    assert result.data is not None
    account = result.data["account"]
    assert (account["name"], account["defaultCurrency"]) == ("Acme Cleaning", "USD")
    assert [channel["kind"] for channel in account["channels"]] == list(team.channels)
    assert account["paymentSettings"]["defaultProcessorKind"] == "SANDBOX"
    (processor,) = account["paymentSettings"]["processors"]
    assert processor["webhookUrl"] == f"https://pay.example.test/webhooks/sandbox/{processor['id']}"
    assert "USD" in processor["currencies"]
    assert result.data["paymentRequestDefaults"]["processorKind"] == "SANDBOX"
    assert [user["role"] for user in account["users"]["nodes"]] == ["OWNER", "AGENT", "VIEWER"]
    assert account["users"]["totalCount"] == 3
    assert "secret" not in str(result.data).lower()


async def test_a_conversation_shows_channels_assignee_and_whether_the_viewer_follows(team: Team, api: Api) -> None:
    await tables.Conversation.filter(id=team.conversation.id).update(assignee_id=team.owner.user_id, draft="Hello")
    await tables.ConversationFollower.create(
        account_id=team.account.id, conversation_id=team.conversation.id, user_id=team.agent.user_id
    )
    document = """query($id: ID!) { conversation(id: $id) { draft following assignee { name } contact { name }
      channels { id channel { id kind } paymentRequests { supported enabled reason windowClosesAt needsSubject } } } }"""
    variables = {"id": public_id("cnv", team.conversation.id)}
    shown = await api.one(document, variables)
    assert (shown["draft"], shown["following"], shown["assignee"]) == ("Hello", True, {"name": "Owner"})
    by_kind = {channel["channel"]["kind"]: channel["paymentRequests"] for channel in shown["channels"]}
    assert by_kind["SMS"]["enabled"] is True
    assert by_kind["WHATSAPP"]["reason"] == "MESSAGING_WINDOW_CLOSED"
    assert by_kind["EMAIL"]["needsSubject"] is True
    other = await contacts.create_contact(team.agent, name="Other")
    same = await api.one(document, {"id": public_id("cnv", (await tables.Conversation.get(contact_id=other.id)).id)})
    ids = {channel["id"] for channel in shown["channels"]} | {channel["id"] for channel in same["channels"]}
    assert len(ids) == 2 * len(team.channels)
    again = await api.one("query($id: ID!) { node(id: $id) { id } }", {"id": shown["channels"][0]["id"]})
    assert again == {"id": shown["channels"][0]["id"]}
    assert (await api.one(document, variables, viewer=team.owner))["following"] is False


async def test_a_message_that_is_being_sent_is_queued_for_clients(team: Team, api: Api) -> None:
    first = await factories.message(
        team.conversation, direction="OUTBOUND", delivery_status="FAILED", error_code="30006", error_message="Landline"
    )
    second = await factories.message(
        team.conversation,
        direction="OUTBOUND",
        delivery_status="SENDING",
        retry_of_id=first.id,
        author_name="Agent",
        channel_connection_id=(await factories.channel_connection(team.account, "SMS")).id,
    )
    numbers = [public_id("chn", one.channel_connection_id) for one in (first, second)]
    assert numbers[0] != numbers[1]
    request = await factories.payment_request(team.contact)
    await tables.MessagePaymentRequest.create(
        account_id=team.account.id, message_id=second.id, payment_request_id=request.id
    )
    shown = await api.one(
        """query($ids: [ID!]!) { nodes(ids: $ids) { ... on Message {
          deliveryStatus errorCode failureReason author { __typename ... on SystemActor { name } }
          channel { id } retryOf { id } paymentRequests { id } } } }""",
        {"ids": [public_id("msg", first.id), public_id("msg", second.id)]},
    )
    assert shown == [
        {
            "deliveryStatus": "FAILED",
            "errorCode": "30006",
            "failureReason": "Landline",
            "author": {"__typename": "SystemActor", "name": "Unknown"},
            "channel": {"id": numbers[0]},
            "retryOf": None,
            "paymentRequests": [],
        },
        {
            "deliveryStatus": "QUEUED",
            "errorCode": None,
            "failureReason": None,
            "author": {"__typename": "SystemActor", "name": "Agent"},  # an older version kept no more
            "channel": {"id": numbers[1]},
            "retryOf": {"id": public_id("msg", first.id)},
            "paymentRequests": [{"id": public_id("pr", request.id)}],
        },
    ]


async def test_a_message_shows_what_was_told_of_it_later(team: Team, api: Api) -> None:
    at = datetime(2026, 11, 27, 9, 0, tzinfo=UTC)
    first = await factories.message(team.conversation, reaction="❤", edited_at=at)
    second = await factories.message(
        team.conversation, reply_to_id=first.id, removed_at=at, channel_connection_id=first.channel_connection_id
    )
    lost = await factories.message(
        team.conversation, reply_to_id=uuid7(), channel_connection_id=first.channel_connection_id
    )
    shown = await api.one(
        "query($ids: [ID!]!) { nodes(ids: $ids) { ... on Message { replyTo { id } reaction editedAt removedAt } } }",
        {"ids": [public_id("msg", row.id) for row in (first, second, lost)]},
    )
    reported_at = "2026-11-27T09:00:00Z"
    assert [list(row.values()) for row in shown] == [
        [None, "❤", reported_at, None],
        [{"id": public_id("msg", first.id)}, None, None, reported_at],
        [None, None, None, None],
    ]


async def test_a_card_tells_who_caused_it_and_which_money(team: Team, api: Api) -> None:
    request = await factories.payment_request(team.contact, status="PAID")
    fact = await factories.money_fact(request)
    await factories.activity_card(request, "PAYMENT_RECEIVED", status="PAID", money_fact_id=fact.id)
    await factories.activity_card(request, "PAYMENT_REQUEST", status="SENT", actor_id=team.agent.user_id)
    shown = await api.one(
        """query($id: ID!) { conversation(id: $id) { thread { nodes { ... on ActivityCard {
          kind status actor { __typename ... on User { id name } } payment { id amount { amount } } paymentRequest { status } } } } } }""",
        {"id": public_id("cnv", request.conversation_id)},
    )
    assert shown["thread"]["nodes"] == [
        {
            "kind": "PAYMENT_RECEIVED",
            "status": "PAID",
            "actor": None,
            "payment": {"id": public_id("pay", fact.id), "amount": {"amount": "125.00"}},
            "paymentRequest": {"status": "PAID"},
        },
        {
            "kind": "PAYMENT_REQUEST",
            "status": "SENT",
            "actor": {"__typename": "User", "id": public_id("usr", team.agent.user_id or uuid7()), "name": "Agent"},
            "payment": None,
            "paymentRequest": {"status": "PAID"},
        },
    ]


THREAD = """query($id: ID!, $n: Int) { conversation(id: $id) { eventCursor unreadCount contact { name } thread(last: $n) { nodes {
  __typename id occurredAt
  ... on Message { body deliveryStatus author { ...By } channelKind channel { displayName } paymentRequests { id status } }
  ... on ActivityCard { kind text actor { ...By } payment { id amount { amount } } paymentRequest { id number status
    amount { formatted } contact { id name } conversation { id }
    processorKind processor { displayName } channelKind channel { displayName } createdBy { ...By }
    voidedBy { ...By } payments { id status recordedBy { __typename } } } } } } } }
  fragment By on Actor { ... on User { name } ... on ApiKey { name } ... on Contact { name } ... on SystemActor { name } }"""
INBOX = """query($n: Int) { conversations(first: $n) { eventCursor nodes { id preview following assignee { name }
  contact { name addresses { kind } paymentSummary { currency overdueCount } }
  channels { id paymentRequests { enabled } } } } }"""
TAB = """query($id: ID!, $n: Int) { contact(id: $id) { paymentRequests(first: $n) { totalCount nodes { id status
  payments { id charge { id } refundable { amount } } processorKind processor { id }
  channelKind channel { kind } checkoutUrl availableActions { action } contact { name } conversation { unreadCount } } } } }"""


@sqlite_only
async def test_the_number_of_statements_does_not_grow_with_the_page(team: Team, api: Api) -> None:
    for _ in range(30):
        request = await factories.payment_request(
            team.contact, processor_connection_id=team.processor.id, status="PAID"
        )
        fact = await factories.money_fact(request)
        await factories.money_fact(request, kind="REFUND", amount_minor=100, charge_external_id=fact.external_id)
        message = await factories.message(team.conversation, direction="OUTBOUND")
        await tables.MessagePaymentRequest.create(
            account_id=team.account.id, message_id=message.id, payment_request_id=request.id
        )
        await factories.activity_card(request, actor_id=team.agent.user_id, money_fact_id=fact.id)
        other = await factories.contact(team.account)
        await factories.contact_address(other)
        await factories.conversation(other, assignee_id=team.owner.user_id)
    conversation, contact = public_id("cnv", team.conversation.id), public_id("cnt", team.contact.id)
    for document, variables, most in ((THREAD, {"id": conversation}, 12), (INBOX, {}, 12), (TAB, {"id": contact}, 9)):
        counts = {}
        for n in (2, 30):
            async with statements() as seen:
                await api.one(document, {**variables, "n": n})
            counts[n] = seen
        assert len(counts[2]) == len(counts[30]), (counts[2], counts[30])
        assert len(counts[30]) <= most, counts[30]


@sqlite_only
async def test_the_thread_is_one_statement(team: Team, api: Api) -> None:
    await factories.message(team.conversation)
    async with statements() as seen:
        await api.one(
            "query($id: ID!) { conversation(id: $id) { thread { nodes { id } } } }",
            {"id": public_id("cnv", team.conversation.id)},
        )
    assert len(seen) == 2
    assert [sql.count("UNION ALL") for sql in seen] == [0, 2]


@sqlite_only
async def test_the_position_is_read_before_the_data_and_only_if_it_is_asked_for(team: Team, api: Api) -> None:
    document = "query($id: ID!) {{ conversation(id: $id) {{ id {more} }} conversations {{ nodes {{ id }} }} }}"
    variables = {"id": public_id("cnv", team.conversation.id)}
    async with statements() as seen:
        await api.all(document.format(more="eventCursor"), variables)
    assert "event_seq" in seen[0]
    assert not any("event_seq" in sql for sql in seen[1:])
    async with statements() as seen:
        await api.all(document.format(more=""), variables)
    assert not any("event_seq" in sql for sql in seen)


async def test_the_event_cursor_is_the_position_of_the_accounts_log(team: Team, api: Api) -> None:
    await payment_requests.create(
        team.agent, contact_id=team.contact.id, product_name="Clean", amount="10.00", idempotency_key="a-key-of-mine-1"
    )
    account = await tables.Account.get(id=team.account.id)
    assert account.event_seq > 0
    expected = EventCursor(account.event_epoch, account.id, account.event_seq).encode()
    answer = await api.all(
        """query($id: ID!, $contact: ID!) { conversation(id: $id) { eventCursor } conversations { eventCursor }
          contacts { eventCursor } paymentRequests { eventCursor } notifications { eventCursor } dashboard { eventCursor }
          contact(id: $contact) { eventCursor paymentRequests { eventCursor } payments { eventCursor } }
          thread: conversation(id: $id) { thread { eventCursor } } }""",
        {"id": public_id("cnv", team.conversation.id), "contact": public_id("cnt", team.contact.id)},
    )
    here = {"eventCursor": expected}
    assert answer.pop("contact") == {**here, "paymentRequests": here, "payments": here}
    assert answer.pop("thread") == {"thread": here}
    assert [value["eventCursor"] for value in answer.values()] == [expected] * 6


async def test_the_dashboard_shows_figures_per_currency(team: Team, api: Api) -> None:
    now = factories.now()
    paid = await factories.payment_request(
        team.contact, status="PAID", sent_at=now - timedelta(seconds=90), paid_at=now, amount_paid_minor=12500
    )
    await factories.money_fact(paid)
    await factories.payment_request(team.contact, status="SENT", sent_at=now)
    shown = await api.one(
        """{ dashboard(period: { range: LAST_7_DAYS }) { range asOf byCurrency { currency testMode requestsSent requested { amount }
          paidCount paid { amount } outstanding { amount } conversionRate medianSecondsToPay p90SecondsToPay } } }"""
    )
    assert shown["range"] == "LAST_7_DAYS"
    assert shown["asOf"].endswith("Z")
    assert shown["byCurrency"] == [
        {
            "currency": "USD",
            "testMode": True,
            "requestsSent": 2,
            "requested": {"amount": "250.00"},
            "paidCount": 1,
            "paid": {"amount": "125.00"},
            "outstanding": {"amount": "125.00"},
            "conversionRate": 0.5,
            "medianSecondsToPay": 90,
            "p90SecondsToPay": 90,
        }
    ]


async def test_the_dashboard_groups_the_figures_of_any_period(team: Team, api: Api) -> None:
    agent = await factories.user(team.account, name="Ana")
    sent = datetime(2026, 3, 10, 12, tzinfo=UTC)
    of_agent: dict[str, Any] = {"created_by_id": agent.id, "product_name": "Garden"}
    for n, more in enumerate((dict[str, Any](), of_agent, of_agent)):
        await factories.payment_request(team.contact, status="SENT", sent_at=sent + timedelta(days=n), **more)
    document = """query($period: DashboardPeriod!, $by: [DashboardDimension!]) { dashboard(period: $period, groupBy: $by) {
      id range from until groupsLeftOut byCurrency { requestsSent }
      groups { day channelKind agent { name } processor { kind } productName byCurrency { requestsSent } } } }"""
    between = {"between": {"from": "2026-03-10T12:00:00Z", "until": "2026-03-12T00:00:00Z"}}
    by_agent = await api.one(document, {"period": between, "by": ["AGENT", "PRODUCT"]})
    assert (by_agent["range"], by_agent["from"], by_agent["until"]) == (None, *between["between"].values())
    assert by_agent["byCurrency"] == [{"requestsSent": 2}]
    empty = {"day": None, "channelKind": None, "processor": None}
    assert {(group.pop("agent") or {}).get("name"): group for group in by_agent["groups"]} == {
        "Ana": empty | {"productName": "Garden", "byCurrency": [{"requestsSent": 1}]},
        None: empty | {"productName": "Deep clean", "byCurrency": [{"requestsSent": 1}]},
    }
    by_day = await api.one(document, {"period": between, "by": ["DAY"]})
    assert [(group["day"], len(group["byCurrency"])) for group in by_day["groups"]] == [
        ("2026-03-10", 1),
        ("2026-03-11", 1),
    ]
    by_processor = await api.one(document, {"period": between, "by": ["PROCESSOR"]})
    assert [group["processor"] for group in by_processor["groups"]] == [{"kind": "SANDBOX"}]
    for shown in (by_agent, by_day, by_processor):
        again = await api.one(
            "query($id: ID!) { node(id: $id) { ... on DashboardFigures { id } } }", {"id": shown["id"]}
        )
        assert again == {"id": shown["id"]}
    wrong: tuple[dict[str, Any], ...] = (
        {"period": {"between": {"from": between["between"]["until"], "until": between["between"]["from"]}}},
        {"period": between, "by": ["DAY", "DAY"]},
        {"period": {"range": "ALL_TIME"}, "by": ["DAY"]},
        {"period": {"range": "TODAY", **between}},
        {"period": {}},
    )
    for variables in wrong:
        refused = await api.result(document, variables)
        assert refused.errors, variables


async def test_pages_of_several_statuses_are_those_of_one_list(team: Team, api: Api) -> None:
    statuses = ["SENT", "PAID", "DRAFT", "PARTIALLY_PAID", "SENT", "VOID", "PAID", "PAID"]
    made = [await factories.payment_request(team.contact, status=status) for status in statuses]
    wanted = ["SENT", "PAID", "PROCESSING", "SENT"]
    expected = [row.number for row in reversed(made) if row.status in wanted]
    document = """query($status: [PaymentRequestStatus!], $first: Int, $last: Int, $after: Cursor, $before: Cursor) {
      paymentRequests(filter: { status: $status }, first: $first, last: $last, after: $after, before: $before) {
        pageInfo { hasNextPage hasPreviousPage startCursor endCursor } nodes { number } } }"""
    forward: list[str] = []
    after = None
    while True:
        page = await api.one(document, {"status": wanted, "first": 2, "after": after})
        forward += [node["number"] for node in page["nodes"]]
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert forward == expected
    backward: list[str] = []
    before = None
    while True:
        page = await api.one(document, {"status": wanted, "last": 2, "before": before})
        backward = [node["number"] for node in page["nodes"]] + backward
        before = page["pageInfo"]["startCursor"]
        if not page["pageInfo"]["hasPreviousPage"]:
            break
    assert backward == expected
