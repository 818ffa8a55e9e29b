"""The composer through the API: availability, previews, templates after the window."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx2
import pytest

from models import tables
from models.ids import public_id
from services.accounts import authentication, users
from services.connections import availability
from services.payments import integrity_check
from tests import composer_matrix as m
from tests.contracts.twilio_server import (
    ACCOUNT_SID,
    AUTH_TOKEN,
    FROM_NUMBER,
    TEMPLATE_SID,
    WHATSAPP,
    TwilioServer,
    contracts,
)
from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team, opened
from tests.flows.harness import PASSWORD, Product, key
from tests.flows.probes import row_id

ABLE = "enabled reason sentence templates windowClosesAt maxMessageLength help { kind sentence channelId }"
ASK = f"mutation($input: SendPaymentRequestInput!) {{ sendPaymentRequest(input: $input) {{ {d.ERRORS} }} }}"
CHANNELS = f"""query($id: ID!) {{ conversation(id: $id) {{ channels {{ channel {{ id kind }} messages {{ {ABLE} }}
  paymentRequests {{ {ABLE} }} }} }} }}"""
PREVIEW = f"""query($input: MessagePreviewInput!) {{ messagePreview(input: $input) {{ text length maxLength lengthUnit fits
  encoding segments remainingInSegment reasonsForUcs2 {d.ERRORS} }} }}"""


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioServer]:
    async with TwilioServer(contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def product(
    database: str, events_url: str, twilio: TwilioServer, request: pytest.FixtureRequest
) -> AsyncIterator[Product]:
    """The server and a fake Twilio; with a job runner unless a test turns it off."""
    more = {"RUN_JOBS": str(getattr(request, "param", True)).lower(), "TWILIO_API_BASE": twilio.url}
    async with harness.in_process(database, events_url, **more) as running:
        yield running
        assert [str(difference) for difference in await integrity_check.audit()] == []


# ----------------------------------------------------------------------------------------------------- the predicate
async def tokens_of(team: Team) -> dict[str, str]:
    """A credential for each role of the matrix."""
    owner = await authentication.authenticate(team.owner)
    assert owner is not None
    found = {"OWNER": team.owner, "AGENT": team.agent, "AGENT by key": await probes.api_key(team, "AGENT")}
    for role in ("ADMIN", "VIEWER"):
        email = f"{role}-{key()}@example.com"
        await users.add(owner, email=email, name=role, role=role, password=PASSWORD)
        found[role] = await team.product.sign_in(email)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("product", [False], indirect=True)
async def test_the_api_keeps_the_composers_word_for_every_pair_of_what_decides(
    bare: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = await tokens_of(bare)
    m.stop_the_clock(monkeypatch)
    matrix = await m.Matrix.make(await tables.Account.get(id=bare.account_id))
    wrong, chosen, said = [], m.cover(), Counter[str]()

    async def codes(document: str, input: dict[str, Any], token: str) -> str | None:
        payload = await bare.product.one(document, {"input": input}, token=token)
        return next((e["code"] for e in payload["userErrors"]), None)

    for cell in sorted(chosen, key=lambda cell: cell.processor):
        await matrix.set_processor(cell.processor)
        token = tokens[cell.role]
        row = matrix.channels[cell.variant, cell.connection]
        channel = public_id("chn", row.id)
        thread, asked_for = matrix.thread(cell.variant, cell.address)
        conversation, request = public_id("cnv", thread.id), public_id("pr", asked_for.id)
        found = await bare.product.one(CHANNELS, {"id": conversation}, token=token)
        (told,) = [c for c in found["channels"] if c["channel"]["id"] == channel]
        text = {"conversationId": conversation, "channelId": channel}
        asked = {"channelId": channel, "paymentRequestId": request}
        template = {"id": "HX1", "variables": [{"name": "1", "value": "{link}"}]}
        done = {
            "previewed text": await codes(PREVIEW, {**text, "body": "Hello"}, token),
            "text": await codes(d.SEND_MESSAGE, {**text, "body": "Hello", "idempotencyKey": key()}, token),
            "previewed request": await codes(PREVIEW, {**text, "paymentRequestId": request}, token),
            "request": await codes(ASK, {**asked, "idempotencyKey": key()}, token),
        }
        expected = {
            "previewed text": told["messages"]["reason"],
            "text": told["messages"]["reason"],
            "previewed request": told["paymentRequests"]["reason"],
            "request": told["paymentRequests"]["reason"],
        }
        by_template = await codes(ASK, {**asked, "idempotencyKey": key(), "template": template}, token)
        for able in (told["messages"], told["paymentRequests"]):
            consistent = able["enabled"] is (able["reason"] is None) is (able["sentence"] is None) is (not able["help"])
            if not consistent:
                wrong.append(f"{cell}: {able}")
            said[able["reason"] or "enabled"] += 1
        if done != expected or told["paymentRequests"]["templates"] is not (by_template is None):
            wrong.append(f"{cell}: told {told}, done {done}, by template {by_template}")
    print(f"cells through the API {len(chosen)}, wrong {len(wrong)}; {dict(said.most_common())}")  # noqa: T201 (the figure)
    assert not wrong, "\n".join(wrong[:20])
    assert set(said) == {"enabled", *availability.REASONS}


# ----------------------------------------------------------------------------------------------------------- previews
async def previewed(team: Team, contact: dict[str, Any], kind: str = "SMS", **more: Any) -> dict[str, Any]:
    given = {"conversationId": contact["conversation"]["id"], "channelId": team.channels[kind], **more}
    found: dict[str, Any] = await team.product.one(PREVIEW, {"input": given})
    return found


@pytest.mark.parametrize("product", [False], indirect=True)
async def test_a_preview_is_what_goes_out_and_changes_nothing(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    before = await probes.snapshot()
    for body in (None, "Please pay here: {link} Thank you", "Thank you!"):
        shown = await previewed(team, maria, paymentRequestId=request["id"], body=body)
        assert request["checkoutUrl"] in shown["text"]
        assert (shown["length"], shown["maxLength"], shown["fits"]) == (len(shown["text"]), 1600, True)
        assert (shown["encoding"], shown["segments"]) == ("GSM_7", 1)
        assert (shown["remainingInSegment"], shown["reasonsForUcs2"]) == (160 - len(shown["text"]), [])
        assert shown["userErrors"] == []
        assert probes.changed(before, await probes.snapshot()) == []
        sent = await team.send(request, body=body)
        assert sent["message"]["body"] == shown["text"]
        before = await probes.snapshot()


@pytest.mark.parametrize("product", [False], indirect=True)
async def test_a_preview_names_what_makes_an_sms_dear(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    shown = await previewed(
        team, maria, paymentRequestId=request["id"], body="It’s time for your “Deep clean” – {link} 👍"
    )
    assert (shown["encoding"], shown["reasonsForUcs2"]) == ("UCS_2", ["’", "“", "”", "–", "👍"])
    units = len(shown["text"].encode("utf-16-le")) // 2
    assert 70 < units <= 134
    assert (shown["segments"], shown["remainingInSegment"]) == (2, 134 - units)
    # Email has no cost per character.
    mail = await previewed(team, maria, "EMAIL", paymentRequestId=request["id"], body="It’s {link}")
    assert (mail["encoding"], mail["segments"], mail["remainingInSegment"], mail["reasonsForUcs2"]) == (None,) * 3 + (
        [],
    )
    assert (mail["maxLength"], mail["fits"]) == (None, True)


@pytest.mark.parametrize("product", [False], indirect=True)
async def test_what_is_too_long_with_its_link_is_refused_before_it_is_queued(team: Team) -> None:
    maria = await team.contact()
    await probes.writes(team, "INSTAGRAM_DM", "ig-1", "Hi")
    request = await team.request(maria)
    link = len(request["checkoutUrl"])
    before = await probes.snapshot()
    for kind, letter, fitting, unit in (
        ("SMS", "x", 1600 - link - 1, "CHARACTERS"),
        ("INSTAGRAM_DM", "é", (1000 - link - 1) // 2, "BYTES"),
    ):
        for body, fits in ((letter * fitting, True), (letter * (fitting + 1), False)):
            shown = await previewed(team, maria, kind, paymentRequestId=request["id"], body=body)
            assert (shown["fits"], shown["lengthUnit"]) == (fits, unit)
            assert [(e["code"], e["field"]) for e in shown["userErrors"]] == (
                [] if fits else [("TOO_LONG", ["input", "body"])]
            )
        asked = {"idempotencyKey": key(), "paymentRequestId": request["id"], "channelId": team.channels[kind]}
        payload = await team.product.one(d.SEND_REQUEST, {"input": {**asked, "body": body}})
        assert [e["code"] for e in payload["userErrors"]] == ["TOO_LONG"]
    assert probes.changed(before, await probes.snapshot()) == []


@pytest.mark.parametrize("product", [False], indirect=True)
async def test_a_preview_says_what_sending_would_say(team: Team) -> None:
    maria, ben = await team.contact(), await team.contact("Ben", 2)
    theirs = await team.request(ben)
    paid = await team.request(maria)
    await tables.PaymentRequest.filter(id=row_id(paid["id"])).update(status="VOID")
    for given, code, field in (
        ({"body": f"Pay {theirs['checkoutUrl']}"}, "INVALID", ["input", "body"]),
        ({"body": " \n "}, "BLANK", ["input", "body"]),
        ({}, "BLANK", ["input", "body"]),
        ({"body": "a\x07b"}, "INVALID", ["input", "body"]),
        ({"paymentRequestId": theirs["id"]}, "INVALID", ["input", "body"]),
        ({"paymentRequestId": paid["id"]}, "ALREADY_VOID", ["input", "paymentRequestId"]),
    ):
        shown = await previewed(team, maria, **given)
        assert [(e["code"], e["field"]) for e in shown["userErrors"]] == [(code, field)]
    shown = await previewed(team, maria, "MESSENGER", body="Hello")
    assert [e["code"] for e in shown["userErrors"]] == ["MESSAGING_WINDOW_CLOSED"]
    await tables.PaymentRequest.filter(id=row_id(paid["id"])).update(status="DRAFT")


# ----------------------------------------------------------------------------------------------------------- templates
async def whatsapp(bare: Team) -> dict[str, Any]:
    """WhatsApp by Twilio and the sandbox; a contact who wrote 25 hours ago."""
    await bare.connect_sandbox()
    credentials = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER}
    payload = await bare.product.ok(
        d.CONNECT_CHANNEL,
        {
            "kind": "WHATSAPP",
            "provider": "twilio_whatsapp",
            "displayName": "WhatsApp",
            "credentials": [{"name": name, "value": value} for name, value in credentials.items()],
        },
        token=bare.owner,
    )
    bare.channels["WHATSAPP"] = payload["channel"]["id"]
    contact = await bare.contact()
    await heard(contact, timedelta(hours=25))
    return contact


async def heard(contact: dict[str, Any], ago: timedelta) -> None:
    """The contact wrote on WhatsApp this long ago."""
    address = tables.ContactAddress.filter(contact_id=row_id(contact["id"]), kind="WHATSAPP")
    assert await address.update(last_inbound_at=datetime.now(UTC) - ago) == 1


async def able(team: Team, contact: dict[str, Any]) -> dict[str, Any]:
    """The availability of payment requests on the team's only channel."""
    conversation = await team.product.one(CHANNELS, {"id": contact["conversation"]["id"]})
    (found,) = conversation["channels"]
    told: dict[str, Any] = found["paymentRequests"]
    return told


def asking(team: Team, request: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"paymentRequestId": request["id"], "channelId": team.channels["WHATSAPP"], "idempotencyKey": key(), **more}


def template(*values: str) -> dict[str, Any]:
    return {"id": TEMPLATE_SID, "variables": [{"name": str(n), "value": v} for n, v in enumerate(values, 1)]}


async def refused(team: Team, document: str, given: dict[str, Any]) -> list[tuple[str, list[str] | None]]:
    payload = await team.product.one(document, {"input": given})
    return [(e["code"], e["field"]) for e in payload["userErrors"]]


def sends(twilio: TwilioServer) -> list[dict[str, list[str]]]:
    """What Twilio was asked to send."""
    return [
        parse_qs(call.raw_body.decode())
        for call in twilio.calls
        if call.operation is not None and call.operation.operation_id == "CreateMessage"
    ]


async def test_after_the_window_a_template_asks_and_the_card_turns_paid(bare: Team, twilio: TwilioServer) -> None:
    maria = await whatsapp(bare)
    told = await able(bare, maria)
    assert (told["enabled"], told["reason"], told["templates"]) == (False, "MESSAGING_WINDOW_CLOSED", True)
    assert [one["kind"] for one in told["help"]] == ["TEMPLATE", "WAIT_FOR_CONTACT", "COPY_LINK"]
    assert told["windowClosesAt"] is None
    request = await bare.request(maria)
    assert await refused(bare, d.SEND_REQUEST, asking(bare, request)) == [
        ("MESSAGING_WINDOW_CLOSED", ["input", "channelId"])
    ]
    async with bare.product.subscribe(d.CONVERSATION_EVENTS, {"id": maria["conversation"]["id"]}) as feed:
        await opened(feed)
        message = (await bare.send(request, "WHATSAPP", template=template("{link}", "{business}")))["message"]
        assert message["deliveryStatus"] == "QUEUED"
        await feed.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="SENT")
        (form,) = sends(twilio)
        assert form["ContentSid"] == [TEMPLATE_SID]
        assert "Body" not in form
        # What the contact reads is the template; what the team reads is the text, with the same link.
        (sent,) = twilio.messages
        assert sent["body"] == f"Your payment link: {request['checkoutUrl']}. Thank you, Acme Cleaning!"
        assert request["checkoutUrl"] in message["body"]
        url, body, headers = twilio.status_callback(sent["sid"], "delivered")
        async with httpx2.AsyncClient() as vendor:
            assert (await vendor.post(url, content=body, headers=headers)).status_code == 200
        await feed.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="DELIVERED")
        assert (await bare.read(request))["deliveryState"] == "DELIVERED"
        await bare.pay(request)
        await bare.until_paid(feed, request)
    assert await bare.cards(maria) == [("PAYMENT_REQUEST", "SENT"), ("PAYMENT_RECEIVED", "PAID")]
    found = await bare.product.one("query($id: ID!) { node(id: $id) { ... on Message { templateId } } }", message)
    assert found == {"templateId": TEMPLATE_SID}


async def test_a_template_goes_out_inside_the_window_too_and_a_plain_message_can_be_one(
    bare: Team, twilio: TwilioServer
) -> None:
    maria = await whatsapp(bare)
    given = {"conversationId": maria["conversation"]["id"], "channelId": bare.channels["WHATSAPP"], "body": "A word"}
    await bare.product.ok(
        d.SEND_MESSAGE, {**given, "idempotencyKey": key(), "template": template("https://acme.example", "Maria")}
    )
    await heard(maria, timedelta(hours=1))
    told = await able(bare, maria)
    assert (told["enabled"], told["templates"], told["help"]) == (True, True, [])
    await bare.send(await bare.request(maria), "WHATSAPP", template=template("{link}", "Maria"))
    async with bare.product.subscribe(d.CONVERSATION_EVENTS, {"id": maria["conversation"]["id"]}) as feed:
        await opened(feed)
        last = (await bare.send(await bare.request(maria), "WHATSAPP"))["message"]
        await feed.until("MessageUpdated", message__id=last["id"], message__deliveryStatus="SENT")
    assert ["ContentSid" in form for form in sends(twilio)] == [True, True, False]


@pytest.mark.parametrize("product", [False], indirect=True)
async def test_a_template_without_the_link_is_refused_and_one_may_carry_the_links_last_part(bare: Team) -> None:
    maria = await whatsapp(bare)
    request = await bare.request(maria)
    where = ["input", "template", "variables"]
    for values in ((), ("Maria", "Acme"), ("{amount}", "{number}")):
        assert await refused(bare, d.SEND_REQUEST, asking(bare, request, template=template(*values))) == [
            ("INVALID", where)
        ]
    # The same for a link that is typed into a message: what the team sees, the contact must get.
    given = {"conversationId": maria["conversation"]["id"], "channelId": bare.channels["WHATSAPP"]}
    typed = {**given, "idempotencyKey": key(), "body": f"Pay {request['checkoutUrl']}"}
    assert await refused(bare, d.SEND_MESSAGE, {**typed, "template": template("Maria")}) == [("INVALID", where)]
    assert await tables.Message.all().count() == 0
    assert (await bare.read(request))["status"] == "DRAFT"
    # A link that only a variable carries is bound as one in the text.
    only = {**given, "idempotencyKey": key(), "body": "Your link", "template": template(request["checkoutUrl"])}
    await bare.product.ok(d.SEND_MESSAGE, only)
    assert (await bare.read(request))["status"] == "SENT"
    other = await bare.request(maria)
    await bare.send(other, "WHATSAPP", template=template("{amount}", "{token}"))
    row = await tables.Message.all().order_by("-seq").first()
    assert row is not None
    assert row.template_variables == {"1": "$120.00", "2": other["checkoutUrl"].rpartition("/")[2]}


@pytest.mark.parametrize("product", [False], indirect=True)
async def test_an_opt_out_refuses_a_template_too(bare: Team) -> None:
    maria = await whatsapp(bare)
    request = await bare.request(maria)
    url = f"{bare.product.base_url}/inbound/twilio_whatsapp/{bare.channels['WHATSAPP']}"
    async with TwilioServer(contracts()[0]) as network, httpx2.AsyncClient() as vendor:
        body, headers = network.inbound(url, sender=WHATSAPP + "+14155552601", body="STOP")
        assert (await vendor.post(url, content=body, headers=headers)).status_code == 200
    told = await able(bare, maria)
    assert (told["reason"], told["templates"]) == ("CONTACT_OPTED_OUT", False)
    found = await refused(bare, d.SEND_REQUEST, asking(bare, request, template=template("{link}")))
    assert found == [("CONTACT_OPTED_OUT", ["input", "channelId"])]
    assert await tables.Message.filter(direction="OUTBOUND").count() == 0
