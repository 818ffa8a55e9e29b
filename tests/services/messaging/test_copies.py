"""Copies (Cc): suggestions, refusals, and statuses."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from integrations.base import DeliveryStatus, InboundMessage, SendResult, StatusUpdate
from models.errors import Blank, ContactOptedOut, Invalid, Refusal, TooLong
from models.ids import uuid7
from models.tables import ChannelConnection, Conversation, Message, OptOut
from services.messaging import copies, delivery, inbound, messages
from tests.services.conftest import Team, counts, kinds_logged
from tests.services.outgoing import handed_over, replace_vendor, run_job, send

TOM, ANN = "tom@example.org", "ann@example.net"


async def receive_email(team: Team, body: str, **fields: Any) -> Message:
    sender = team.addresses["EMAIL"].address
    inbound_message = InboundMessage(**{"external_id": f"<{uuid7()}@x.test>", "sender": sender, "body": body, **fields})
    await inbound.store(team.channels["EMAIL"], inbound_message, datetime.now(UTC))
    return await Message.get(external_id=inbound_message.external_id)


async def sent(team: Team, **given: Any) -> Message:
    replace_vendor(team, "EMAIL", SendResult(external_id="<ours@acme.test>", **given))
    row = (await send(team, "When do you have time?", "EMAIL", cc=[TOM, ANN])).message
    await run_job("message.send", row.id)
    return await Message.get(id=row.id)


async def suggestion(team: Team) -> list[str]:
    return (await copies.suggested(team.account.id, [team.conversation]))[team.conversation.id]


async def report_status(team: Team, **fields: Any) -> Message:
    update = StatusUpdate(**{"external_id": "<ours@acme.test>", **fields})
    await delivery.record_status(team.channels["EMAIL"], update)
    return await Message.get(direction="OUTBOUND")


async def test_a_reply_to_all_suggests_the_other_recipients_of_the_newest_email(team: Team) -> None:
    assert await suggestion(team) == []
    await ChannelConnection.filter(id=team.channels["EMAIL"].id).update(sender="Desk@acme.test")
    contact = team.addresses["EMAIL"].address
    await receive_email(team, "Older", cc=["old@example.org"])
    await receive_email(
        team,
        "It drips",
        cc=["Tom@Example.org", "desk@acme.test", contact.upper(), TOM, "no address", "gone@example.org"],
    )
    await OptOut.create(
        account_id=team.account.id,
        channel_connection_id=team.channels["EMAIL"].id,
        kind="EMAIL",
        address="gone@example.org",
    )
    await team.hears("SMS", "Hello?", "sms-1")
    assert await suggestion(team) == [TOM]
    row = await Message.get(body="It drips")
    assert (await send(team, "We come", "EMAIL", cc=await suggestion(team))).message.cc == [TOM]
    # Tom answers to all: he is the one whom the next answer copies.
    await Message.filter(direction="OUTBOUND").update(external_id="<ours@acme.test>")
    await receive_email(team, "On Monday, please", sender=TOM, cc=[contact, ANN], in_reply_to="<ours@acme.test>")
    assert (await Message.get(body="On Monday, please")).conversation_id == row.conversation_id
    assert await suggestion(team) == [TOM, ANN]


async def test_copies_are_stored_and_sent_once_without_the_contact_and_ourselves(team: Team) -> None:
    await ChannelConnection.filter(id=team.channels["EMAIL"].id).update(sender="desk@acme.test")
    given = [TOM.upper(), TOM, "DESK@acme.test", team.addresses["EMAIL"].address, ANN]
    outbound = await handed_over(team, "Hello", "EMAIL", cc=given)
    assert (outbound.to, list(outbound.cc)) == (team.addresses["EMAIL"].address, [TOM, ANN])
    assert outbound.unsubscribe_url is None
    assert (await Message.get()).cc == [TOM, ANN]
    assert (await handed_over(team, "Hello", "EMAIL")).unsubscribe_url is not None


@pytest.mark.parametrize(
    ("kind", "given", "refused"),
    [
        ("SMS", [TOM], Invalid),
        ("EMAIL", ["not an address"], Invalid),
        ("EMAIL", ["tom@example.org, ann@example.net"], Invalid),
        ("EMAIL", ["tom@example.org\r\nBcc: all@example.org"], Invalid),
        ("EMAIL", [" "], Blank),
        ("EMAIL", [f"p{n}@example.org" for n in range(21)], TooLong),
        ("EMAIL", [f"p{n}@example.org" for n in range(500)], TooLong),
        ("EMAIL", ["gone@example.org"], ContactOptedOut),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no engine differs in what a text may be
async def test_a_copy_that_cannot_be_sent_is_refused(
    team: Team, kind: str, given: list[str], refused: type[Refusal]
) -> None:
    await OptOut.create(
        account_id=team.account.id,
        channel_connection_id=team.channels["EMAIL"].id,
        kind="EMAIL",
        address="gone@example.org",
    )
    with pytest.raises(refused) as error:
        await send(team, "Hello", kind, cc=given)
    of_item = refused is not TooLong and kind == "EMAIL"
    assert error.value.field == (("cc", "0") if of_item else ("cc",))
    assert await counts("message", "job") == {"message": 0, "job": 0}


async def test_an_address_that_opts_out_before_sending_gets_no_copy(team: Team) -> None:
    vendor = replace_vendor(team, "EMAIL", SendResult(external_id="v-1"))
    row = (await send(team, "Hello", "EMAIL", cc=[TOM, ANN])).message
    await OptOut.create(
        account_id=team.account.id, channel_connection_id=team.channels["EMAIL"].id, kind="EMAIL", address=TOM
    )
    await run_job("message.send", row.id)
    assert [list(one.cc) for one in vendor.sent] == [[ANN]]
    assert (await Message.get()).cc == [ANN]
    logged = await kinds_logged(team.account.id)
    assert logged == ["message.created", "message.updated", "message.updated"]  # the copy left out, SENT


async def test_a_copys_status_does_not_change_the_contacts_email(team: Team) -> None:
    row = await sent(team, refused_cc=[ANN])
    assert (row.delivery_status, row.undelivered_cc) == ("SENT", [ANN])
    for _ in range(2):
        row = await report_status(team, status=DeliveryStatus.FAILED, error_code="5.1.1", address="Tom@example.org")
    assert (row.delivery_status, row.error_code, row.undelivered_cc) == ("SENT", None, [ANN, TOM])
    row = await report_status(team, status=DeliveryStatus.READ, answered=True, address=TOM)
    assert (row.delivery_status, row.undelivered_cc) == ("SENT", [ANN])
    row = await report_status(team, status=DeliveryStatus.DELIVERED, address=team.addresses["EMAIL"].address)
    assert (row.delivery_status, row.undelivered_cc) == ("DELIVERED", [ANN])
    logged = await kinds_logged(team.account.id)
    assert logged == ["message.created", *["message.updated"] * 5]


async def test_an_answer_to_a_copy_proves_that_an_unknown_email_was_sent(team: Team) -> None:
    row = (await send(team, "Hello", "EMAIL", cc=[TOM])).message
    await Message.filter(id=row.id).update(delivery_status="UNKNOWN", external_id="<ours@acme.test>")
    assert (await report_status(team, status=DeliveryStatus.READ, answered=True, address=TOM)).delivery_status == "SENT"


async def test_stop_of_who_got_a_copy_is_theirs_alone(team: Team) -> None:
    ours = await sent(team)
    await receive_email(team, "STOP", sender=TOM, in_reply_to=ours.external_id, opt_out=True)
    assert [row.address for row in await OptOut.all()] == [TOM]
    assert (await Message.get(body="STOP")).conversation_id == ours.conversation_id
    again = await send(team, "Hello", "EMAIL", cc=[ANN])
    assert again.message.cc == [ANN]


async def test_sending_again_copies_the_same_people_by_e_mail_only(team: Team) -> None:
    ours = await sent(team)
    for kind, copied in (("SMS", None), ("EMAIL", [TOM, ANN])):
        await Message.filter(direction="OUTBOUND").update(delivery_status="FAILED")
        again = await messages.resend_message(
            team.agent, message_id=ours.id, channel_id=team.channels[kind].id, idempotency_key=f"again-{kind}-1"
        )
        assert again.message.cc == copied


async def test_a_repeat_with_other_copies_is_another_message(team: Team) -> None:
    one = await send(team, "Hello", "EMAIL", cc=[TOM], idempotency_key="copies-key-1")
    assert (await send(team, "Hello", "EMAIL", cc=[TOM], idempotency_key="copies-key-1")).message.id == one.message.id
    with pytest.raises(Refusal) as error:
        await send(team, "Hello", "EMAIL", cc=[ANN], idempotency_key="copies-key-1")
    assert error.value.code == "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"
    assert (await Conversation.get(id=team.conversation.id)).preview == "Hello"
