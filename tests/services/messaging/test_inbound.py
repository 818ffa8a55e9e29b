"""Inbound callbacks: verification, messages, contacts and STOP."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations.base import DeliveryStatus, InboundMessage, StatusUpdate, WebhookRequest
from integrations.channels import meta_messenger, simulated
from models.errors import (
    ContactOptedOut,
    MessagingWindowClosed,
    NotFound,
)
from models.ids import uuid7
from models.tables import (
    Account,
    Attachment,
    ChannelConnection,
    Contact,
    ContactAddress,
    Conversation,
    Message,
    PaymentRequest,
)
from services.core import webhooks
from services.messaging import delivery, inbound
from services.thread import payment_links
from tests import factories
from tests.contracts.meta_server import APP_SECRET, VERIFY_TOKEN, signed
from tests.services.conftest import Team, counts, kinds_logged
from tests.services.outgoing import send


async def test_an_inbound_message_is_stored_once_and_opens_the_window(team: Team) -> None:
    with pytest.raises(MessagingWindowClosed):
        await send(team, "Hello", "WHATSAPP")
    for _ in range(3):
        await team.hears("WHATSAPP", "Hi there", "in-1")
    row = await Message.get()
    assert (row.direction, row.body, row.delivery_status, row.contact_id) == (
        "INBOUND",
        "Hi there",
        "DELIVERED",
        team.contact.id,
    )
    thread = await Conversation.get(id=team.conversation.id)
    assert (thread.unread_count, thread.preview) == (1, "Hi there")
    assert (await ContactAddress.get(id=team.addresses["WHATSAPP"].id)).last_inbound_at is not None
    assert (await ContactAddress.get(id=team.addresses["MESSENGER"].id)).last_inbound_at is None
    assert await kinds_logged(team.account.id) == ["message.created", "conversation.updated"]
    await send(team, "Hello", "WHATSAPP")


async def test_a_late_old_message_leaves_the_window_as_it_is_and_a_time_in_the_future_is_replaced(team: Team) -> None:
    now = datetime.now(UTC)
    held = team.addresses["WHATSAPP"]

    async def arrives(external_id: str, occurred_at: datetime | None) -> datetime | None:
        inbound_message = InboundMessage(
            external_id=external_id, sender=held.address, recipient="+15550000000", body="Hi", occurred_at=occurred_at
        )
        await inbound.store(team.channels["WHATSAPP"], inbound_message, now)
        return (await ContactAddress.get(id=held.id)).last_inbound_at

    assert await arrives("in-1", now - timedelta(hours=1)) == now - timedelta(hours=1)
    assert await arrives("in-2", now - timedelta(hours=30)) == now - timedelta(
        hours=1
    )  # late, and older than the window
    await send(team, "Hello", "WHATSAPP")
    assert await arrives("in-3", None) == now
    assert await Message.filter(direction="INBOUND").count() == 3
    # The clock was a day ahead when the last message came, and was set back.
    await ContactAddress.filter(id=held.id).update(last_inbound_at=now + timedelta(days=1))
    assert await arrives("in-4", now - timedelta(seconds=1)) == now - timedelta(seconds=1)


async def test_five_concurrent_copies_of_a_callback_are_one_message(team: Team) -> None:
    await asyncio.gather(*(team.hears("SMS", "Hi", "in-1") for _ in range(5)))
    assert await Message.all().count() == 1
    assert (await Conversation.get(id=team.conversation.id)).unread_count == 1


async def test_files_over_the_limit_are_named(team: Team) -> None:
    for kind, count, body in (("SMS", 52, "Photos\n[2 more attachments left out]"), ("WHATSAPP", 50, "Photos")):
        files = [{"content_type": "image/png", "url": ""}] * count
        inbound_message = InboundMessage(
            external_id=f"in-{kind}", sender=team.addresses[kind].address, body="Photos", attachments=files
        )
        await inbound.store(team.channels[kind], inbound_message, datetime.now(UTC))
        row = await Message.get(kind=kind)
        assert (row.body, await Attachment.filter(message_id=row.id).count()) == (body, 50)


async def test_inbound_links_never_bind(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    await team.hears("SMS", f"What is this? {payment_links.checkout_url(request)}", "in-1")
    assert (await PaymentRequest.get(id=request.id)).status == "DRAFT"
    assert await counts("activity_card", "message_payment_request") == {
        "activity_card": 0,
        "message_payment_request": 0,
    }


async def test_stop_and_start_are_kept_per_channel(team: Team) -> None:
    await team.hears("SMS", "stop", "in-1")
    with pytest.raises(ContactOptedOut):
        await send(team, "Hello")
    await send(team, "Hello", "EMAIL")
    await team.hears("SMS", "Start", "in-2")
    await send(team, "Hello")
    assert (await kinds_logged(team.account.id)).count("contact.updated") == 2


async def test_concurrent_messages_of_an_unknown_sender_create_one_contact(team: Team) -> None:
    await asyncio.gather(*(team.hears("SMS", f"Hello {n}", f"in-{n}", sender=f"+1415555777{n % 2}") for n in range(6)))
    made = await Contact.exclude(id=team.contact.id).order_by("phone")
    assert [(row.name, row.phone) for row in made] == [("+14155557770",) * 2, ("+14155557771",) * 2]
    assert await Conversation.filter(contact_id__in=[row.id for row in made]).count() == 2
    assert await Message.all().count() == 6
    unread = [row.unread_count for row in await Conversation.filter(contact_id__in=[row.id for row in made])]
    assert unread == [3, 3]


async def test_a_number_on_a_contacts_record_leads_to_that_contact(team: Team) -> None:
    known = await factories.contact(team.account, phone="+14155559999")
    await factories.conversation(known)
    await team.hears("SMS", "Hi", "in-1", sender="+14155559999")
    assert (await Message.get()).contact_id == known.id
    assert await Contact.filter(account_id=team.account.id).count() == 2
    assert (await ContactAddress.get(contact_id=known.id)).address == "+14155559999"
    assert (await kinds_logged(team.account.id))[0] == "contact.updated"  # it has an address more


async def test_a_disconnected_channel_still_takes_a_stop(team: Team) -> None:
    await type(team.channels["SMS"]).filter(id=team.channels["SMS"].id).update(connected=False)
    await team.hears("SMS", "STOP", "in-1")
    assert (await ContactAddress.get(id=team.addresses["SMS"].id)).opted_out_at is not None


async def page(
    account: Account, number: str, *, kind: str = "MESSENGER", secret: str = APP_SECRET, **more: Any
) -> ChannelConnection:
    """A connected page at Meta."""
    credentials = {
        "account_id": number,
        "access_token": "test-access-token",
        "app_secret": secret,
        "verify_token": VERIFY_TOKEN,
    }
    return await factories.channel_connection(
        account, kind, provider=meta_messenger.NAME, credentials=credentials, **more
    )


async def test_one_callback_about_several_pages_reaches_each_of_the_accounts_connections(team: Team) -> None:
    ours = await page(team.account, "101")
    second = await page(team.account, "102")
    await page(team.account, "102", connected=False)  # the same page, connected again since
    await page(team.account, "103", secret="another app's secret")
    stranger = await factories.account()
    other_page = await page(stranger, "104")
    await page(team.account, "105", kind="INSTAGRAM_DM")
    now = datetime.now(UTC)
    milliseconds = int(now.timestamp() * 1000)
    entries = [
        {
            "id": number,
            "time": milliseconds,
            "messaging": [
                {
                    "sender": {"id": f"9{number}"},
                    "recipient": {"id": number},
                    "timestamp": milliseconds,
                    "message": {"mid": f"m_{number}", "text": f"to {number}"},
                }
            ],
        }
        for number in ("101", "102", "103", "104", "105", "106")
    ]
    body, headers = signed({"object": "page", "entry": entries})
    request = WebhookRequest(method="POST", public_url="https://x.test/", headers=headers, body=body, now=now)
    for _ in range(2):
        answer = await inbound.receive(meta_messenger.NAME, ours.id, request)
        assert answer.answer_body == "EVENT_RECEIVED"
    rows = await Message.all().order_by("body")
    assert [(row.body, row.channel_connection_id) for row in rows] == [("to 101", ours.id), ("to 102", second.id)]
    assert {row.account_id for row in rows} == {team.account.id}
    assert await Contact.filter(account_id=stranger.id).count() == 0
    assert (await ChannelConnection.get(id=other_page.id)).last_webhook_at is None


async def test_forged_stale_and_unmatched_callbacks_store_nothing(team: Team) -> None:
    now = datetime.now(UTC)
    raw = simulated.inbound_body("+14155550199", "Hi", at=now, external_id="in-1")
    row = team.channels["SMS"]

    def request(signature: str, at: datetime = now) -> WebhookRequest:
        headers = {"paythread-simulator-signature": signature} if signature else {}
        return WebhookRequest(method="POST", public_url="https://x.test/", headers=headers, body=raw, now=at)

    good = simulated.sign("simulated-secret", raw, at=now)
    for bad in ("", "t=1,v1=00", simulated.sign("other-secret", raw, at=now), good.replace("v1=", "v0=")):
        with pytest.raises(webhooks.BadSignature):
            await inbound.receive("simulated", row.id, request(bad))
    with pytest.raises(webhooks.BadSignature):
        await inbound.receive("simulated", row.id, request(good, now + timedelta(seconds=301)))
    with pytest.raises(NotFound):
        await inbound.receive("twilio_sms", row.id, request(good))
    with pytest.raises(NotFound):
        await inbound.receive("simulated", uuid7(), request(good))
    assert await counts("message", "contact", "event") == {"message": 0, "contact": 1, "event": 0}


async def test_a_signed_callback_that_is_no_callback_is_a_bad_payload(team: Team) -> None:
    with pytest.raises(webhooks.BadPayload):
        await team.calls_back("SMS", b'{"type": "something.else"}')
    assert await counts("message", "event") == {"message": 0, "event": 0}


async def _receive_email(team: Team, body: str, **fields: Any) -> None:
    inbound_message = InboundMessage(
        **{"external_id": "<m1@x.test>", "sender": "maria@example.com", "body": body, **fields}
    )
    await inbound.store(team.channels["EMAIL"], inbound_message, datetime.now(UTC))


async def _sent_email(team: Team) -> Message:
    sent = await send(team, "When do you have time?", "EMAIL")
    await Message.filter(id=sent.message.id).update(
        external_id="<ours@acme.test>", relay_id="0100abc-000000", delivery_status="SENT"
    )
    return await Message.get(id=sent.message.id)


async def test_two_emails_with_one_message_id_and_other_content_are_two(team: Team) -> None:
    scan = {"attachments": [{"name": "scan.pdf", "size": "3", "content": "AAAA"}]}
    other = {"attachments": [{"name": "scan.pdf", "size": "6", "content": "AAAAAAAA"}]}
    for _ in range(2):  # each is delivered twice
        await _receive_email(team, "An email from Maria", subject="Hello")
        await _receive_email(team, "An email from Tom", sender="tom@example.org")
        await _receive_email(team, "", external_id="<m2@x.test>", **scan)
        await _receive_email(team, "", external_id="<m2@x.test>", **other)
    assert [row.body for row in await Message.all().order_by("seq")] == [
        "An email from Maria",
        "An email from Tom",
        "[1 attachment]",
        "[1 attachment]",
    ]
    assert await Message.filter(external_id="<m1@x.test>").count() == 1


@pytest.mark.parametrize(
    "named", [{"in_reply_to": "<ours@acme.test>"}, {"references": ["<0100abc-000000@mail.relay.test>"]}]
)
async def test_an_answer_from_another_address_stays_in_its_conversation(team: Team, named: dict[str, Any]) -> None:
    ours = await _sent_email(team)
    contacts_before = await Contact.all().count()
    await _receive_email(
        team, "I answer from home", sender="maria.private@example.net", cc=["tom@example.org"], quoted="> When", **named
    )
    row = await Message.get(direction="INBOUND")
    assert (row.conversation_id, row.address, row.cc, row.quoted_text) == (
        ours.conversation_id,
        "maria.private@example.net",
        ["tom@example.org"],
        "> When",
    )
    assert await Contact.all().count() == contacts_before
    assert (await ContactAddress.get(id=team.addresses["EMAIL"].id)).address == ours.address


async def test_stop_from_another_address_opts_out_the_address_that_we_wrote_to(team: Team) -> None:
    ours = await _sent_email(team)
    await _receive_email(team, "STOP", sender="maria.private@example.net", in_reply_to=ours.external_id, opt_out=True)
    with pytest.raises(ContactOptedOut):
        await send(team, "Hello", "EMAIL")


async def test_an_answer_proves_that_an_email_arrived_after_a_failure_report(team: Team) -> None:
    ours = await _sent_email(team)
    connection = team.channels["EMAIL"]
    failed = StatusUpdate(
        external_id="0100abc-000000@mail.relay.test", status=DeliveryStatus.FAILED, error_code="4.4.7"
    )
    await delivery.record_status(connection, failed)
    assert (await Message.get(id=ours.id)).delivery_status == "FAILED"
    late = StatusUpdate(external_id="<ours@acme.test>", status=DeliveryStatus.DELIVERED)
    await delivery.record_status(connection, late)
    assert (await Message.get(id=ours.id)).delivery_status == "FAILED"
    answered = StatusUpdate(external_id="<ours@acme.test>", status=DeliveryStatus.READ, answered=True)
    await delivery.record_status(connection, answered)
    row = await Message.get(id=ours.id)
    assert (row.delivery_status, row.error_code, row.error_message) == ("READ", None, None)


async def test_an_answer_to_an_email_keeps_its_subject(team: Team) -> None:
    await _receive_email(team, "It drips", sender=team.addresses["EMAIL"].address, subject="AW: Broken tap")
    sent = await send(team, "We come on Monday", "EMAIL")
    assert sent.message.subject == "Re: Broken tap"


@pytest.mark.parametrize("kind", ["SMS", "EMAIL", "WHATSAPP"])
async def test_odd_senders_and_times_are_stored_all_the_same(team: Team, kind: str) -> None:
    now = datetime.now(UTC)
    ages_ago = datetime.fromisoformat("0001-01-01T00:00:00+14:00")
    for n, (sender, at) in enumerate([("+" + "1" * 5_000, None), ("x" * 5_000, ages_ago), ("+14155550100", ages_ago)]):
        inbound_message = InboundMessage(external_id=f"odd-{n}", sender=sender, body="Hi", occurred_at=at)
        await inbound.store(team.channels[kind], inbound_message, now)
    assert [row.occurred_at for row in await Message.filter(direction="INBOUND")] == [now] * 3
