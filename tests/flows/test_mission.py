"""The mission, statement by statement (docs/mission.md), through GraphQL, HTTP and WebSocket only."""

from __future__ import annotations

import asyncio
import random
import re
from typing import Any

import pytest

from tests.flows import documents as d
from tests.flows.conftest import KINDS, Team, opened
from tests.flows.harness import key

TOKEN = re.compile(r"^http://127\.0\.0\.1:\d+/p/[A-Za-z0-9_-]{22}$")


async def delivered(team: Team, contact: dict[str, Any], message_id: str) -> str:
    """Wait until the message is past QUEUED and SENT; return its status."""
    async with asyncio.timeout(10):
        while True:
            for item in await team.thread(contact):
                if item["id"] == message_id and item["deliveryStatus"] not in ("QUEUED", "SENT"):
                    return str(item["deliveryStatus"])
            await asyncio.sleep(0.05)


async def allow_every_window(team: Team, contact: dict[str, Any], n: int = 1) -> None:
    """The contact writes on every channel with a 24-hour window."""
    from services.sandbox import channels

    addresses = {"WHATSAPP": f"+1415555{2600 + n}", "INSTAGRAM_DM": f"ig-{n}", "MESSENGER": f"fb-{n}"}
    for kind, address in addresses.items():
        await channels.contact_writes(team_channel(team, kind), address, f"Hi on {kind}")


def team_channel(team: Team, kind: str) -> Any:
    from models.ids import parse_public_id

    return parse_public_id(team.channels[kind], "chn")


async def test_s01_payment_is_requested_without_leaving_the_conversation(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    assert request["contact"]["id"] == maria["id"]
    assert request["conversation"]["id"] == maria["conversation"]["id"]
    sent = await team.send(request)
    assert sent["paymentRequest"]["status"] == "SENT"
    assert [i["__typename"] for i in await team.thread(maria)] == ["Message", "ActivityCard"]


async def test_s02_every_connected_channel_can_carry_a_request(team: Team) -> None:
    maria = await team.contact()
    await allow_every_window(team, maria)
    conversation = await team.product.one(d.CHANNELS, {"id": maria["conversation"]["id"]})
    by_kind = {c["channel"]["kind"]: c["paymentRequests"] for c in conversation["channels"]}
    assert {kind: (c["enabled"], c["reason"]) for kind, c in by_kind.items()} == dict.fromkeys(KINDS, (True, None))


async def test_s03_conversations_are_listed_by_last_activity_and_opened(team: Team) -> None:
    maria, ben = await team.contact(), await team.contact("Ben Okafor", 2)
    await team.send(await team.request(maria))
    listed = await team.product.one(d.CONVERSATIONS)
    assert [c["contact"]["id"] for c in listed["nodes"]] == [maria["id"], ben["id"]]
    await team.send(await team.request(ben))
    listed = await team.product.one(d.CONVERSATIONS)
    assert [c["contact"]["id"] for c in listed["nodes"]] == [ben["id"], maria["id"]]
    await allow_every_window(team, maria)
    listed = await team.product.one(d.CONVERSATIONS)
    assert [(c["contact"]["id"], c["unreadCount"]) for c in listed["nodes"]] == [(maria["id"], 3), (ben["id"], 0)]
    read = await team.product.ok(d.MARK_READ, {"conversationId": maria["conversation"]["id"]})
    assert read["conversation"]["unreadCount"] == 0


async def test_s04_the_channel_is_chosen_per_message_of_one_conversation(team: Team) -> None:
    maria = await team.contact()
    for kind in ("SMS", "EMAIL", "WEB_CHAT"):
        await team.send(await team.request(maria), kind)
    messages = [i for i in await team.thread(maria) if i["__typename"] == "Message"]
    assert [m["channelKind"] for m in messages] == ["SMS", "EMAIL", "WEB_CHAT"]


async def test_s05_the_dollar_icon_says_why_it_is_off(bare: Team) -> None:
    team = bare
    await team.connect_channels()
    maria = await team.contact()

    async def icon(kind: str) -> tuple[bool, str | None]:
        conversation = await team.product.one(d.CHANNELS, {"id": maria["conversation"]["id"]})
        (found,) = [c["paymentRequests"] for c in conversation["channels"] if c["channel"]["kind"] == kind]
        return found["enabled"], found["reason"]

    assert await icon("SMS") == (False, "NO_PROCESSOR_CONFIGURED")
    await team.connect_sandbox()
    assert await icon("SMS") == (True, None)
    assert await icon("WHATSAPP") == (False, "MESSAGING_WINDOW_CLOSED")
    await team.product.ok(d.DISCONNECT_CHANNEL, {"channelId": team.channels["SMS"]}, token=team.owner)
    assert await icon("SMS") == (False, "CHANNEL_NOT_CONNECTED")


async def test_s06_the_dialog_is_validated_field_by_field(team: Team) -> None:
    maria = await team.contact()
    bad = team.ask(maria, productName="", amount={"amount": "10.00"})
    payload = await team.product.one(d.CREATE, {"input": bad})
    assert payload["paymentRequest"] is None
    assert [(e["code"], e["field"]) for e in payload["userErrors"]] == [("BLANK", ["input", "productName"])]


async def test_s07_the_product_or_service_is_named(team: Team) -> None:
    maria = await team.contact()
    assert (await team.request(maria, productName="  Window wash  "))["productName"] == "Window wash"
    assert (await team.request(maria, productName="x" * 255))["productName"] == "x" * 255
    payload = await team.product.one(d.CREATE, {"input": team.ask(maria, productName="x" * 256)})
    assert [e["code"] for e in payload["userErrors"]] == ["TOO_LONG"]


async def test_s08_the_amount_is_collected_to_the_minor_unit(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria, amount={"amount": "1234.56"})
    assert request["amount"] == {
        "amount": "1234.56",
        "currency": "USD",
        "minorUnits": "123456",
        "formatted": "$1,234.56",
    }
    for amount, code in (("0", "AMOUNT_TOO_SMALL"), ("1.234", "INVALID"), ("99999999999", "AMOUNT_TOO_LARGE")):
        payload = await team.product.one(d.CREATE, {"input": team.ask(maria, amount={"amount": amount})})
        assert [e["code"] for e in payload["userErrors"]] == [code], amount


async def test_s09_the_currency_defaults_to_the_accounts(team: Team) -> None:
    maria = await team.contact()
    assert (await team.product.one(d.DEFAULTS))["currency"] == "USD"
    assert (await team.request(maria))["amount"]["currency"] == "USD"
    await team.product.ok(d.UPDATE_ACCOUNT, {"defaultCurrency": "EUR"}, token=team.owner)
    assert (await team.product.one(d.DEFAULTS))["currency"] == "EUR"
    assert (await team.request(maria))["amount"]["currency"] == "EUR"
    yen = await team.request(maria, amount={"amount": "500", "currency": "JPY"})
    assert (yen["amount"]["currency"], yen["amount"]["minorUnits"]) == ("JPY", "500")


async def test_s10_the_description_is_shown_to_the_contact(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria, description="Kitchen & bath, <3 hours>")
    assert request["description"] == "Kitchen & bath, <3 hours>"
    async with team.product.browser() as browser:
        await browser.open(request["checkoutUrl"])
    assert "Kitchen &amp; bath, &lt;3 hours&gt;" in browser.text
    assert (await team.request(maria))["description"] is None


async def test_s11_copy_link_sends_nothing_and_the_link_works_at_once(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    copied = (await team.product.ok(d.COPIED, {"paymentRequestId": request["id"]}))["paymentRequest"]
    assert copied["status"] == "DRAFT"
    assert copied["linkCopiedAt"] is not None
    assert await team.thread(maria) == []
    async with team.product.browser() as browser:
        await browser.open(request["checkoutUrl"])
    assert browser.status == 200
    assert "Deep clean" in browser.text


async def test_s12_the_dialogs_send_fills_the_message_box_and_sends_nothing(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    variables = {"id": request["id"], "channelId": team.channels["SMS"]}
    insert = (await team.product.one(d.COMPOSER, variables))["composerInsert"]
    assert request["checkoutUrl"] in insert["text"]
    assert "$120.00" in insert["text"]
    assert (insert["length"], insert["maxLength"]) == (len(insert["text"]), 1600)
    assert (insert["smsSegments"], insert["encoding"]) == (1, "GSM_7")
    assert await team.thread(maria) == []
    assert (await team.read(request))["status"] == "DRAFT"
    saved = await team.product.ok(d.SAVE_DRAFT, {"conversationId": maria["conversation"]["id"], "text": insert["text"]})
    assert saved["conversation"]["draft"] == insert["text"]


async def test_s13_the_composers_send_sends_and_binds_the_links_in_the_text(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    payload = await team.product.ok(
        d.SEND_MESSAGE,
        {
            "idempotencyKey": key(),
            "conversationId": maria["conversation"]["id"],
            "channelId": team.channels["SMS"],
            "body": f"Hi Maria, here it is: {request['checkoutUrl']} - thanks!",
        },
    )
    assert [(r["id"], r["status"]) for r in payload["message"]["paymentRequests"]] == [(request["id"], "SENT")]
    assert [(c["kind"], c["paymentRequest"]["id"]) for c in payload["activityCards"]] == [
        ("PAYMENT_REQUEST", request["id"])
    ]
    now = await team.read(request)
    assert (now["status"], now["sentVia"]) == ("SENT", "MESSAGE")


async def test_s14_the_link_is_absolute_unguessable_and_leads_to_the_hosted_page(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    assert TOKEN.match(request["checkoutUrl"])
    async with team.product.browser() as browser:
        await browser.open(request["checkoutUrl"])
        assert browser.status == 200
        assert "$120.00" in browser.text
        await browser.open(request["checkoutUrl"][:-1] + ("A" if request["checkoutUrl"][-1] != "A" else "B"))
        assert browser.status == 404


async def test_s15_the_icon_is_on_exactly_where_sending_is_accepted(team: Team) -> None:
    maria = await team.contact()
    await team.product.ok(d.DISCONNECT_CHANNEL, {"channelId": team.channels["EMAIL"]}, token=team.owner)
    conversation = await team.product.one(d.CHANNELS, {"id": maria["conversation"]["id"]})
    seen = set()
    for channel in conversation["channels"]:
        capability = channel["paymentRequests"]
        payload = await team.product.one(
            d.SEND_REQUEST,
            {
                "input": {
                    "idempotencyKey": key(),
                    "paymentRequestId": (await team.request(maria))["id"],
                    "channelId": channel["channel"]["id"],
                }
            },
        )
        assert (payload["userErrors"] == []) is capability["enabled"], channel
        if not capability["enabled"]:
            assert payload["userErrors"][0]["code"] == capability["reason"]
        seen.add(capability["enabled"])
    assert seen == {True, False}


@pytest.mark.parametrize("kind", KINDS)
async def test_s16_to_s20_every_channel_delivers_the_request(team: Team, kind: str) -> None:
    maria = await team.contact()
    await allow_every_window(team, maria)
    request = await team.request(maria)
    sent = await team.send(request, kind)
    assert sent["message"]["channelKind"] == kind
    assert await delivered(team, maria, sent["message"]["id"]) == "DELIVERED"
    phone = (await team.product.http.get("/demo/phone")).text
    assert request["checkoutUrl"] in phone


async def test_s21_the_delivery_shows_on_the_request(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    assert request["deliveryState"] == "NOT_SENT"
    sent = await team.send(request)
    await delivered(team, maria, sent["message"]["id"])
    assert (await team.read(request))["deliveryState"] == "DELIVERED"


async def test_s22_the_contact_pays_on_the_processors_page_and_no_card_field_is_ours(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    async with team.product.browser() as browser:
        await browser.open(request["checkoutUrl"])
        fields = re.findall(r"<input\b[^>]*>", browser.text)
        assert [f for f in fields if 'type="hidden"' not in f] == []
        await browser.press("Pay")
        assert "/sandbox/pay/" in browser.url
        await browser.press("Pay")
        assert browser.url == request["checkoutUrl"]
    assert (await team.read(request))["status"] == "PAID"


async def test_s23_the_team_is_notified_once(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    async with team.product.subscribe(d.NOTIFICATION_EVENTS) as feed:
        await opened(feed)
        await team.pay(request)
        added = await feed.until("NotificationAdded")
        assert (added["edge"]["node"]["kind"], added["edge"]["node"]["paymentRequest"]["id"]) == (
            "PAYMENT_RECEIVED",
            request["id"],
        )
        assert added["viewer"]["unreadNotificationCount"] == 1
        listed = await team.product.one(d.NOTIFICATIONS)
        assert [n["kind"] for n in listed["nodes"]] == ["PAYMENT_RECEIVED"]
        read = await team.product.one(d.NOTIFICATIONS_READ, {"upTo": listed["eventCursor"]})
        assert read["viewer"]["unreadNotificationCount"] == 0
        assert (await feed.until("NotificationsRead"))["viewer"]["unreadNotificationCount"] == 0


async def test_s24_the_contacts_record_updates_itself(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    async with team.inbox() as feed:
        await opened(feed)
        await team.pay(request)
        await feed.until("ContactUpdated", contact__id=maria["id"])
    contact = await team.product.one(d.CONTACT, {"id": maria["id"]})
    (summary,) = contact["paymentSummary"]
    assert (summary["requested"]["minorUnits"], summary["paid"]["minorUnits"]) == ("12000", "12000")
    assert (summary["outstanding"]["minorUnits"], summary["openCount"], summary["paidCount"]) == ("0", 0, 1)
    assert contact["tags"] == ["customer"]


async def test_s25_sending_logs_the_activity_card_and_creating_does_not(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    assert await team.cards(maria) == []
    await team.send(request)
    assert await team.cards(maria) == [("PAYMENT_REQUEST", "SENT")]
    await team.send(request, "EMAIL")
    assert await team.cards(maria) == [("PAYMENT_REQUEST", "SENT")]


async def test_s26_the_first_card_turns_paid_and_a_second_card_is_logged_live(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    async with team.product.subscribe(d.CONVERSATION_EVENTS, {"id": maria["conversation"]["id"]}) as feed:
        await opened(feed)
        await team.pay(request)
        card = await feed.until("ThreadItemAdded", edge__node__kind="PAYMENT_RECEIVED")
        assert card["edge"]["node"]["paymentRequest"] == {"id": request["id"], "status": "PAID"}
        updated = await team.until_paid(feed, request)
        assert updated["previousStatus"] == "SENT"
    first, second = [i for i in await team.thread(maria) if i["__typename"] == "ActivityCard"]
    assert (first["kind"], first["status"], first["paymentRequest"]["status"]) == ("PAYMENT_REQUEST", "SENT", "PAID")
    assert (second["kind"], second["status"], second["payment"]["amount"]["minorUnits"]) == (
        "PAYMENT_RECEIVED",
        "PAID",
        "12000",
    )


async def test_s27_the_payments_tab_lists_everything_live(team: Team) -> None:
    maria = await team.contact()
    first, second = await team.request(maria), await team.request(maria, amount={"amount": "40.00"})
    await team.send(first)
    await team.send(second)
    async with team.product.subscribe(d.CONTACT_EVENTS, {"id": maria["id"]}) as feed:
        await opened(feed)
        await team.pay(second)
        await team.until_paid(feed, second)
    contact = await team.product.one(d.CONTACT, {"id": maria["id"]})
    assert contact["paymentRequests"]["totalCount"] == 2
    assert {p["id"]: p["status"] for p in contact["paymentRequests"]["nodes"]} == {
        first["id"]: "SENT",
        second["id"]: "PAID",
    }
    (summary,) = contact["paymentSummary"]
    assert (summary["requested"]["minorUnits"], summary["outstanding"]["minorUnits"]) == ("16000", "12000")


async def test_s28_each_request_has_its_own_link(team: Team) -> None:
    maria = await team.contact()
    links = [(await team.request(maria))["checkoutUrl"] for _ in range(10)]
    assert len(set(links)) == 10


async def test_s29_many_requests_in_one_conversation_are_tracked_separately(team: Team) -> None:
    maria = await team.contact()
    requests = [await team.request(maria, amount={"amount": f"{10 + n}.00"}) for n in range(6)]
    for request in requests:
        await team.send(request)
    paid = requests[:5]
    random.Random(29).shuffle(paid)
    for done, request in enumerate(paid, 1):
        await team.pay(request)
        statuses = [(await team.read(r))["status"] for r in requests]
        assert statuses.count("PAID") == done
        assert (await team.read(request))["status"] == "PAID"
    items = [i for i in await team.thread(maria) if i["__typename"] == "ActivityCard"]
    received = [i["paymentRequest"]["id"] for i in items if i["kind"] == "PAYMENT_RECEIVED"]
    assert received == [r["id"] for r in paid]
    assert (await team.read(requests[5]))["status"] == "SENT"


async def test_s30_the_connected_processor_is_named_on_the_request(team: Team) -> None:
    maria = await team.contact()
    assert (await team.request(maria))["processorKind"] == "SANDBOX"
    payload = await team.product.one(d.CREATE, {"input": team.ask(maria, processorKind="PAYPAL")})
    assert [e["code"] for e in payload["userErrors"]] == ["NO_PROCESSOR_CONFIGURED"]


async def test_s31_without_a_configured_processor_nothing_can_be_asked(bare: Team) -> None:
    team = bare
    maria = await team.contact()
    payload = await team.product.one(d.CREATE, {"input": team.ask(maria)})
    assert [e["code"] for e in payload["userErrors"]] == ["NO_PROCESSOR_CONFIGURED"]
    assert (await team.product.one(d.SETTINGS))["paymentSettings"] == {"defaultProcessorKind": None, "processors": []}
    await team.connect_sandbox()
    settings = (await team.product.one(d.SETTINGS))["paymentSettings"]
    assert settings["defaultProcessorKind"] == "SANDBOX"
    assert settings["processors"][0]["webhookUrl"].startswith(f"{team.product.base_url}/webhooks/sandbox/prc_")
    assert (await team.request(maria))["status"] == "DRAFT"


async def test_s32_the_link_stays_active_until_paid_or_voided(team: Team) -> None:
    maria = await team.contact()
    paid, voided = await team.request(maria), await team.request(maria)
    await team.send(paid)
    await team.send(voided)
    await team.pay(paid)
    result = await team.product.ok(d.VOID, {"paymentRequestId": voided["id"], "reason": "Job cancelled"})
    assert (result["paymentRequest"]["status"], result["activityCard"]["kind"]) == ("VOID", "REQUEST_VOIDED")
    async with team.product.browser() as browser:
        await browser.open(paid["checkoutUrl"])
        assert browser.status == 200
        assert paid["number"] in browser.text
        assert "<button" not in browser.text
        await browser.open(voided["checkoutUrl"])
        assert browser.status == 410
        assert "<button" not in browser.text


async def test_s33_two_devices_open_the_link_and_never_pay_twice(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    async with team.product.browser() as phone, team.product.browser() as laptop:
        await phone.open(request["checkoutUrl"])
        await laptop.open(request["checkoutUrl"])
        await phone.press("Pay")
        await laptop.press("Pay")
        assert phone.url == laptop.url  # one open checkout for both
        await phone.press("Pay")
        await laptop.press("Pay")
        assert laptop.status == 409
    now = await team.read(request)
    assert (now["status"], now["amountPaid"]["minorUnits"], now["excess"]["minorUnits"]) == ("PAID", "12000", "0")
    assert [p["status"] for p in now["payments"]] == ["SUCCEEDED"]


async def test_s34_no_fee_of_ours_is_added(team: Team) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    async with team.product.browser() as browser:
        await browser.open(request["checkoutUrl"])
        await browser.press("Pay")
        assert "$120.00" in browser.text
        await browser.press("Pay")
    (payment,) = (await team.read(request))["payments"]
    assert payment["amount"]["minorUnits"] == "12000"
    fee = int(payment["fee"]["minorUnits"]) if payment["fee"] else 0
    assert payment["net"] is None or int(payment["net"]["minorUnits"]) == 12000 - fee
