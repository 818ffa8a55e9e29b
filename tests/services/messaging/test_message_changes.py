"""Edits, removals, reactions, and messages from the vendor's own inbox."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations.base import InboundMessage, MessageChange, SendResult, WebhookRequest, WrittenElsewhere
from models.errors import ContactOptedOut
from models.tables import Attachment, Contact, Conversation, Job, Message
from services.core import jobs
from services.messaging import inbound, message_changes
from tests import factories
from tests.contracts.meta_server import APP_SECRET, PAGE_ID, signed
from tests.services.conftest import BASE_URL, Team, kinds_logged
from tests.services.outgoing import replace_vendor, run_job, send

WHO = "24000000000000077"
AT = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)  # within the vendor's window


async def written(team: Team, body: str = "My card is 4111", external_id: str = "m_1", **more: Any) -> Message:
    inbound_message = InboundMessage(
        external_id=external_id, sender=team.addresses["MESSENGER"].address, body=body, occurred_at=AT, **more
    )
    await inbound.store(team.channels["MESSENGER"], inbound_message, datetime.now(UTC))
    return await Message.get(external_id=external_id)


async def report_change(team: Team, external_id: str = "m_1", **more: Any) -> Message:
    await message_changes.record(team.channels["MESSENGER"], MessageChange(external_id=external_id, **more))
    return await Message.get(external_id=external_id)


async def test_what_its_writer_removed_is_gone_and_its_place_stays(team: Team) -> None:
    message = await written(team)
    await factories.attachment(message)
    before = await kinds_logged(team.account.id)
    for _ in range(2):
        gone = await report_change(team, removed=True)
    assert (gone.body, gone.removed_at is not None, gone.seq) == ("[message removed by its writer]", True, message.seq)
    assert await Attachment.filter(message_id=message.id).count() == 0
    assert (await Conversation.get(id=message.conversation_id)).preview == "[message removed by its writer]"
    assert (await kinds_logged(team.account.id))[len(before) :] == ["message.updated", "conversation.updated"]
    # A late repeat of the message, an edit and a reaction bring nothing back.
    await written(team)
    await report_change(team, body="My card is 4111", occurred_at=AT + timedelta(hours=1))
    kept = await report_change(team, reaction="❤")
    assert (kept.body, kept.reaction, await Message.all().count()) == ("[message removed by its writer]", None, 1)


async def test_an_edit_shows_the_new_words_and_an_older_one_that_comes_late_does_not(team: Team) -> None:
    await written(team, "At nine")
    later = await report_change(team, body="At eleven", occurred_at=AT + timedelta(minutes=2))
    assert (later.body, later.edited_at) == ("At eleven", AT + timedelta(minutes=2))
    assert (await Conversation.get(id=later.conversation_id)).preview == "At eleven"
    assert (await report_change(team, body="At ten", occurred_at=AT + timedelta(minutes=1))).body == "At eleven"
    await written(team, "Something else", "m_2")
    await report_change(team, body="At noon\ud83d", occurred_at=AT + timedelta(minutes=3))
    assert (await Message.get(external_id="m_1")).body == "At noon\ufffd"
    assert (await Conversation.get(id=later.conversation_id)).preview == "Something else"


async def test_an_edit_that_says_stop_opts_out(team: Team) -> None:
    await written(team, "Stp")
    await report_change(team, body="STOP", opt_out=True, occurred_at=AT + timedelta(minutes=1))
    with pytest.raises(ContactOptedOut):
        await send(team, "Hello", "MESSENGER")


async def test_a_reaction_stays_on_its_message_until_it_is_removed(team: Team) -> None:
    await written(team)
    sent = (await send(team, "Hello", "MESSENGER")).message
    await Message.filter(id=sent.id).update(external_id="m_2")
    assert (await report_change(team, "m_2", reaction="❤")).reaction == "❤"
    assert (await report_change(team, "m_2", reaction="👍")).reaction == "👍"
    assert (await report_change(team, "m_2", reaction="")).reaction is None
    assert await Message.all().count() == 2
    await message_changes.record(
        team.channels["SMS"], MessageChange(external_id="m_2", reaction="❤")
    )  # another channel's
    await message_changes.record(
        team.channels["MESSENGER"], MessageChange(external_id="m_9", removed=True)
    )  # of nothing
    assert (await Message.get(external_id="m_2")).reaction is None


def echo(team: Team, body: str = "At nine", **more: Any) -> WrittenElsewhere:
    recipient = team.addresses["MESSENGER"].address
    return WrittenElsewhere(
        **{
            "external_id": "m_7",
            "recipient": recipient,
            "body": body,
            "author": "Meta inbox",
            "occurred_at": AT,
            **more,
        }
    )


async def test_a_message_from_metas_inbox_is_in_the_thread_once(team: Team) -> None:
    asked = await written(team, "When do you come?")
    for _ in range(2):
        await inbound._store_elsewhere(team.channels["MESSENGER"], echo(team, in_reply_to="m_1"), datetime.now(UTC))
    (row,) = await Message.filter(direction="OUTBOUND")
    assert (row.body, row.delivery_status, row.author_id, row.author_name, row.reply_to_id) == (
        "At nine",
        "SENT",
        None,
        "Meta inbox",
        asked.id,
    )
    assert (row.contact_id, row.occurred_at) == (team.contact.id, AT)
    thread = await Conversation.get(id=row.conversation_id)
    assert (thread.preview, thread.unread_count) == ("At nine", 1)


@pytest.mark.parametrize(
    ("echoed", "ours"),
    [
        ("Hello there", True),
        ("Hello  there\r\nhttps://pay.example.test/p/x", True),
        ("Something else", False),
        ("", False),
    ],
)
async def test_an_echo_that_overtakes_the_answer_to_our_call_is_our_message(
    team: Team, echoed: str, ours: bool
) -> None:
    await written(team)
    sent = (await send(team, "Hello\nthere", "MESSENGER")).message
    await Message.filter(id=sent.id).update(delivery_status="SENDING")
    await inbound._store_elsewhere(team.channels["MESSENGER"], echo(team, echoed), datetime.now(UTC))
    row = await Message.get(id=sent.id)
    assert (row.external_id, row.delivery_status) == (("m_7", "SENT") if ours else (None, "SENDING"))
    assert await Message.filter(direction="OUTBOUND").count() == (1 if ours else 2)
    template = echo(team, "[card] Hello", template=True, external_id="m_8")
    await inbound._store_elsewhere(team.channels["MESSENGER"], template, datetime.now(UTC))
    assert await Message.filter(direction="OUTBOUND").count() == 2  # on its way: ours; else a colleague's


async def test_our_answer_wins_over_an_echo_in_other_words(team: Team) -> None:
    await written(team)
    vendor = replace_vendor(team, "MESSENGER", SendResult(external_id="m_7"))
    sent = (await send(team, "Hello", "MESSENGER")).message
    await inbound._store_elsewhere(team.channels["MESSENGER"], echo(team, "He11o"), datetime.now(UTC))
    await run_job("message.send", sent.id)
    row = await Message.get(id=sent.id)
    assert (row.external_id, row.delivery_status, len(vendor.sent)) == ("m_7", "SENT", 1)
    await inbound._store_elsewhere(team.channels["MESSENGER"], echo(team, "He11o"), datetime.now(UTC))
    assert await Message.filter(direction="OUTBOUND").count() == 2


async def test_a_colleague_may_be_the_first_who_writes(team: Team) -> None:
    first = echo(team, recipient="24000000000000077")
    await inbound._store_elsewhere(team.channels["MESSENGER"], first, datetime.now(UTC))
    row = await Message.get(external_id="m_7")
    assert row.contact_id != team.contact.id
    assert (await Contact.get(id=row.contact_id)).name == "24000000000000077"


async def test_a_removal_that_overtakes_its_message_still_removes_it(team: Team) -> None:
    early = MessageChange(external_id="m_1", removed=True, occurred_at=AT)
    for _ in range(2):
        await message_changes.record(team.channels["MESSENGER"], early)
    shown = await written(team, "My card is 4111", attachments=[{"url": "https://files.example.test/card.png"}])
    assert (shown.body, shown.removed_at is not None) == ("[message removed by its writer]", True)  # never readable
    assert (await Conversation.get(id=shown.conversation_id)).preview == "[message removed by its writer]"
    assert await Attachment.all().count() == await Job.filter(kind="attachment.fetch").count() == 0
    other = await written(team, "My number", "m_2")
    assert (other.body, other.removed_at) == ("My number", None)
    # The message of another process, stored while the removal was on its way: the kept removal reaches it.
    await Message.filter(id=shown.id).update(body="My card is 4111", removed_at=None)
    job = await Job.get(kind="message.change")
    for _ in range(2):
        await message_changes._change_job(
            jobs.JobContext(
                job_id=job.id,
                kind=job.kind,
                payload=job.payload,
                account_id=job.account_id,
                attempt=1,
                last_attempt=False,
                sealed=job.sealed,
            )
        )
    assert (await Message.get(external_id="m_1")).body == "[message removed by its writer]"
    assert "m_1" not in str(job.payload)
    await Message.filter(id=shown.id).update(external_id="m_8")
    await message_changes._change_job(
        jobs.JobContext(
            job_id=job.id,
            kind=job.kind,
            payload=job.payload,
            account_id=job.account_id,
            attempt=1,
            last_attempt=False,
            sealed=job.sealed,
        )
    )
    assert await Job.filter(kind="message.change").count() == 1  # tried once more, not for ever


async def test_a_removal_that_overtakes_a_colleagues_message_removes_it(team: Team) -> None:
    early = MessageChange(external_id="m_7", removed=True)
    await message_changes.record(team.channels["MESSENGER"], early)
    await inbound._store_elsewhere(team.channels["MESSENGER"], echo(team), datetime.now(UTC))
    row = await Message.get(external_id="m_7")
    assert (row.body, row.removed_at is not None) == ("[message removed by its writer]", True)


async def test_one_callback_with_question_and_answer_is_stored_in_their_order(team: Team, meta_page: str) -> None:
    people = {"sender": {"id": WHO}, "recipient": {"id": meta_page}}
    back = {"sender": {"id": meta_page}, "recipient": {"id": WHO}}
    events = [
        {**people, "timestamp": 1795770000000, "message": {"mid": "m_1", "text": "When?"}},
        {**back, "timestamp": 1795770001000, "message": {"mid": "m_2", "text": "At nine", "is_echo": True}},
        {**people, "timestamp": 1795770002000, "message": {"mid": "m_3", "text": "Fine"}},
        {**people, "timestamp": 1795770003000, "message_edit": {"mid": "m_1", "text": "When do you come?"}},
        {**people, "timestamp": 1795770004000, "message": {"mid": "m_3", "is_deleted": True}},
    ]
    body, headers = signed({"object": "page", "entry": [{"id": meta_page, "time": 1, "messaging": events}]})
    for _ in range(2):
        await inbound.receive(
            "meta_messenger",
            team.channels["META"].id,
            WebhookRequest(method="POST", public_url=BASE_URL, headers=headers, body=body, now=datetime.now(UTC)),
        )
    rows = await Message.all().order_by("seq")
    assert [(row.direction, row.body) for row in rows] == [
        ("INBOUND", "When do you come?"),
        ("OUTBOUND", "At nine"),
        ("INBOUND", "[message removed by its writer]"),
    ]


@pytest.fixture
async def meta_page(team: Team) -> str:
    """The id of a page that is connected as the channel META."""
    secrets = {"access_token": "token", "app_secret": APP_SECRET, "verify_token": "word"}
    team.channels["META"] = await factories.channel_connection(
        team.account, "MESSENGER", provider="meta_messenger", credentials={"account_id": PAGE_ID, **secrets}
    )
    return PAGE_ID
