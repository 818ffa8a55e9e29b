"""One phone number is one contact, however it is spelled."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from integrations.base import DeliveryStatus, InboundMessage, SendResult, StatusUpdate
from models.errors import AlreadyUsed, ContactOptedOut, MessagingWindowClosed
from models.tables import ChannelConnection, Contact, ContactAddress, Message, OptOut
from services.messaging import contacts, delivery, inbound
from tests import factories
from tests.services.conftest import Team
from tests.services.outgoing import replace_vendor, run_job, send

# As the record has it, as WhatsApp tells it.
PAIRS = [
    ("+525512345678", "+5215512345678"),
    ("+5541988887777", "+554188887777"),
    ("+5491123456789", "+541123456789"),
    ("+2290197123456", "+22997123456"),
]
BOTH_WAYS = PAIRS + [(reported, record) for record, reported in PAIRS]


async def arrives(team: Team, sender: str, body: str = "Hola", kind: str = "WHATSAPP", **more: Any) -> Message:
    inbound_message = InboundMessage(external_id=f"in-{await Message.all().count()}", sender=sender, body=body, **more)
    await inbound.store(team.channels[kind], inbound_message, datetime.now(UTC))
    return await Message.filter(direction="INBOUND").order_by("-seq").first()  # type: ignore[return-value]


async def known(team: Team, phone: str) -> Contact:
    """The team's contact, with this number on its record."""
    return await contacts.update_contact(team.agent, team.contact.id, changes={"phone": phone})


@pytest.mark.parametrize(("record", "reported"), BOTH_WAYS)
async def test_an_answer_in_another_spelling_opens_the_window_of_the_contact_and_is_answered_there(
    team: Team, record: str, reported: str
) -> None:
    contact = await known(team, record)
    with pytest.raises(MessagingWindowClosed):
        await send(team, "Hello", "WHATSAPP")
    assert (await arrives(team, reported)).contact_id == contact.id
    assert await Contact.all().count() == 1
    sent = (await send(team, "Hello", "WHATSAPP")).message
    assert sent.address == reported  # as the vendor spelled it
    assert (await Contact.get(id=contact.id)).phone == record
    # Saving the record in either spelling takes nothing away.
    for spelled in (reported, record):
        saved = await known(team, spelled)
        assert saved.phone == spelled
        held = await ContactAddress.get(contact_id=contact.id, kind="WHATSAPP")
        assert (held.address, held.last_inbound_at is not None) == (reported, True)


@pytest.mark.parametrize(("record", "reported"), PAIRS)
async def test_a_stop_holds_in_every_spelling_and_for_whoever_gets_the_number(
    team: Team, record: str, reported: str
) -> None:
    await known(team, record)
    await arrives(team, reported, "STOP", opt_out=True)
    with pytest.raises(ContactOptedOut):
        await send(team, "Hello", "WHATSAPP")
    await known(team, "+14155550199")
    other = await contacts.create_contact(team.agent, name="Other", phone=record)
    assert (await ContactAddress.get(contact_id=other.id, kind="WHATSAPP")).opted_out_at is not None
    await arrives(team, record, "START", opt_out=False)
    assert (await ContactAddress.get(contact_id=other.id, kind="WHATSAPP")).opted_out_at is None
    assert await OptOut.all().count() == 0


async def test_a_stop_reaches_both_contacts_that_an_older_release_made_of_one_telephone(team: Team) -> None:
    rows = []
    for spelled in PAIRS[0]:
        contact = await factories.contact(team.account, name=spelled, phone=spelled)
        await factories.conversation(contact)
        rows.append(await factories.contact_address(contact, kind="WHATSAPP", address=spelled))
    message = await arrives(team, PAIRS[0][1], "STOP", opt_out=True)
    assert message.contact_id == rows[1].contact_id
    assert [(await ContactAddress.get(id=row.id)).opted_out_at is not None for row in rows] == [True, True]
    # Its record can still be saved as it is.
    contact = await Contact.get(id=rows[0].contact_id)
    saved = await contacts.update_contact(team.agent, contact.id, changes={"name": "Maria"})
    assert saved.name == "Maria"


@pytest.mark.parametrize(("record", "reported"), PAIRS)
async def test_one_telephone_is_given_to_one_contact(team: Team, record: str, reported: str) -> None:
    stranger = await arrives(team, reported, sender_name="Maria")
    with pytest.raises(AlreadyUsed):
        await contacts.create_contact(team.agent, name="Maria again", phone=record)
    again = await arrives(team, record)
    assert again.contact_id == stranger.contact_id
    assert await Contact.all().count() == 2


async def test_text_messages_go_to_the_number_that_networks_take(team: Team) -> None:
    made = await contacts.create_contact(team.agent, name="Maria", phone="+52 1 55 1234 5678")
    assert made.phone == "+5215512345678"
    assert (await ContactAddress.get(contact_id=made.id, kind="SMS")).address == "+525512345678"
    landline = await contacts.create_contact(team.agent, name="Office", phone="+54 11 4123 4567")
    assert (await ContactAddress.get(contact_id=landline.id, kind="SMS")).address == "+541141234567"


@pytest.mark.parametrize(
    ("called", "kind", "sender", "reported", "expected"),
    [
        ("+14155552601", "WHATSAPP", "+14155552601", "Dana Diaz", "Dana Diaz"),
        ("+525512345678", "WHATSAPP", "+5215512345678", "Dana Diaz", "Dana Diaz"),
        ("24000000000000001", "MESSENGER", "24000000000000001", "Dana Diaz", "Dana Diaz"),
        ("dana@example.test", "EMAIL", "dana@example.test", "Dana Diaz", "Dana Diaz"),
        ("Mrs Diaz", "WHATSAPP", "+14155552601", "Dana Diaz", "Mrs Diaz"),
        ("+14155552601", "WHATSAPP", "+14155552601", "Dana\n\x07Diaz 🧹", "Dana Diaz 🧹"),
        ("+14155552601", "WHATSAPP", "+14155552601", "\u3164\u200b", "+14155552601"),  # a name that shows nothing
        ("+14155552601", "WHATSAPP", "+14155552601", None, "+14155552601"),
    ],
)
async def test_a_contact_named_by_its_address_gets_the_vendors_name(
    team: Team, called: str, kind: str, sender: str, reported: str | None, expected: str
) -> None:
    contact = await factories.contact(team.account, name=called)
    await factories.conversation(contact)
    await factories.contact_address(contact, kind=kind, address=sender if called == "Mrs Diaz" else called)
    message = await arrives(team, sender, kind=kind, sender_name=reported)
    assert message.contact_id == contact.id
    assert (await Contact.get(id=contact.id)).name == expected


# ------------------------------------------------------------------------------------------- what a phone can send
@pytest.mark.parametrize("word", ["REVOKE", "optout", "Opt out", "opt-out!", "stop all", "STOP"])
async def test_every_opt_out_word_of_2025_counts(team: Team, word: str) -> None:
    await team.hears("SMS", word, "in-1")
    with pytest.raises(ContactOptedOut):
        await send(team, "Hello")


async def test_an_empty_message_gets_a_text_and_an_answer_points_at_our_message(team: Team) -> None:
    await arrives(team, team.addresses["WHATSAPP"].address)
    sent = (await send(team, "Deep clean or normal?", "WHATSAPP")).message
    await Message.filter(id=sent.id).update(external_id="MM1")
    answer = await arrives(team, team.addresses["WHATSAPP"].address, "The first", in_reply_to="MM1")
    assert answer.reply_to_id == sent.id
    blank = await arrives(team, team.addresses["WHATSAPP"].address, "  ", in_reply_to="MM2")
    assert (blank.body, blank.reply_to_id) == ("[message without text]", None)


async def test_a_stop_that_the_vendor_leaves_to_us_is_confirmed_once_and_goes_out(team: Team) -> None:
    vendor = replace_vendor(team, "SMS", SendResult(external_id="SM1"))
    for _ in range(2):
        await arrives(team, team.addresses["SMS"].address, "STOP", kind="SMS", opt_out=True, stop_unanswered=True)
    (answer,) = await Message.filter(direction="OUTBOUND")
    assert answer.body == (
        "Acme Cleaning: you are unsubscribed and get no more messages from us. Reply START to get them again."
    )
    await run_job("message.send", answer.id)
    assert [one.body for one in vendor.sent] == [answer.body]
    assert (await Message.get(id=answer.id)).delivery_status == "SENT"
    with pytest.raises(ContactOptedOut):
        await send(team, answer.body)


@pytest.mark.parametrize(
    ("reason", "kept"),
    [("sender_not_registered", "Not registered."), ("account_inactive", "Not registered."), (None, None)],
)
async def test_a_failure_of_the_whole_sender_is_shown_on_the_channel(
    team: Team, reason: str | None, kept: str | None
) -> None:
    sent = (await send(team, "Hello")).message
    await Message.filter(id=sent.id).update(external_id="SM1", delivery_status="SENT")
    failed = StatusUpdate(
        external_id="SM1",
        status=DeliveryStatus.FAILED,
        error_code="30034",
        error_message="Not registered.",
        reason=reason,
    )
    await delivery.record_status(team.channels["SMS"], failed)
    message = await Message.get(id=sent.id)
    assert (message.error_code, message.error_message) == ("30034", "Not registered.")
    assert (await ChannelConnection.get(id=team.channels["SMS"].id)).last_error == kept
