"""Sending: one call per message, look-ups, and statuses that never step back."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from integrations.base import (
    Author,
    ChannelLimits,
    DeliveryStatus,
    IntegrationError,
    OutboundMessage,
    SendResult,
    StatusUpdate,
    external_id,
)
from integrations.channels import simulated
from models import database as db
from models.errors import (
    ContactOptedOut,
)
from models.ids import public_id
from models.tables import (
    ActivityCard,
    ChannelConnection,
    ContactAddress,
    Job,
    Message,
    Notification,
    PaymentRequest,
)
from services.core import job_runner, jobs
from services.messaging import delivery as delivery_service
from services.messaging import messages, pacing, sending
from services.thread import payment_links
from tests import factories
from tests.services.conftest import BASE_URL, Team, counts, kinds_logged
from tests.services.outgoing import handed_over, replace_vendor, run_job, send


# --------------------------------------------------------------------------------------------------- to the provider
async def test_an_accepted_message_is_sent_once_and_its_request_follows(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    sent = await send(team, f"Pay {payment_links.checkout_url(request)}")
    vendor = replace_vendor(team, "SMS", SendResult(external_id="v-1"))
    await run_job("message.send", sent.message.id)
    await run_job("message.send", sent.message.id)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.external_id) == ("SENT", "v-1")
    assert len(vendor.sent) == 1
    assert vendor.sent[0].attempt_id == row.attempt_id
    assert vendor.sent[0].to == team.addresses["SMS"].address
    reference = public_id("msg", row.id)
    assert vendor.sent[0].status_url == (
        f"https://pay.example.test/inbound/simulated/{public_id('chn', team.channels['SMS'].id)}?m={reference}"
    )
    assert (await PaymentRequest.get(id=request.id)).delivery_state == "SENT"
    delivery = await Job.get(kind="simulator.deliver")
    assert delivery.payload["external_id"] == "v-1"


async def test_the_row_says_sending_before_the_vendor_is_called(team: Team) -> None:
    sent = await send(team, "Hello")
    seen: list[tuple[str, bool]] = []
    vendor = replace_vendor(team, "SMS", SendResult(external_id="v-1"))

    async def look(message: OutboundMessage) -> SendResult:
        row = await Message.get(id=sent.message.id)
        seen.append((row.delivery_status, db.in_transaction()))
        assert row.attempt_id == message.attempt_id
        return SendResult(external_id="v-1")

    vendor.send = look  # type: ignore[method-assign]
    await run_job("message.send", sent.message.id)
    assert seen == [("SENDING", False)]


async def test_an_ambiguous_answer_is_unknown_and_never_sent_again(team: Team) -> None:
    sent = await send(team, "Hello")
    vendor = replace_vendor(team, "SMS", IntegrationError("v", "timeout", ambiguous=True))
    await run_job("message.send", sent.message.id)
    await run_job("message.send", sent.message.id)
    assert (await Message.get(id=sent.message.id)).delivery_status == "UNKNOWN"
    assert len(vendor.sent) == 1
    due = [job.due_at for job in await Job.filter(kind="message.resolve").order_by("due_at")]
    assert [round((at - due[0]).total_seconds()) for at in due] == [0, 240, 840]
    vendor.found = StatusUpdate(external_id="v-9", status=DeliveryStatus.DELIVERED)
    await run_job("message.resolve", sent.message.id)
    await run_job("message.resolve", sent.message.id)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.external_id) == ("DELIVERED", "v-9")
    assert len(vendor.sent) == 1


async def test_a_lost_answer_that_no_look_up_finds_stays_unknown(team: Team) -> None:
    sent = await send(team, "Hello")
    vendor = replace_vendor(team, "SMS", TimeoutError())
    await run_job("message.send", sent.message.id)
    await run_job("message.resolve", sent.message.id)
    assert (await Message.get(id=sent.message.id)).delivery_status == "UNKNOWN"
    # An id that belongs to another message of ours is no answer.
    await factories.message(team.conversation, external_id="v-2", channel_connection_id=team.channels["SMS"].id)
    vendor.found = StatusUpdate(external_id="v-2", status=DeliveryStatus.SENT)
    await run_job("message.resolve", sent.message.id)
    assert (await Message.get(id=sent.message.id)).delivery_status == "UNKNOWN"


async def test_a_crash_between_call_and_answer_is_unknown_and_not_a_second_call(team: Team) -> None:
    sent = await send(team, "Hello")
    await Message.filter(id=sent.message.id).update(
        delivery_status="SENDING", attempt_id="a" * 32, sending_at=datetime.now(UTC)
    )
    vendor = replace_vendor(team, "SMS")
    await run_job("message.send", sent.message.id)
    assert (await Message.get(id=sent.message.id)).delivery_status == "UNKNOWN"
    assert vendor.sent == []
    assert await Job.filter(kind="message.resolve").count() == 3


async def test_what_surely_never_left_is_tried_again_until_the_last_attempt(team: Team) -> None:
    request = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)
    sent = await send(team, f"Pay {payment_links.checkout_url(request)}")
    refused = [IntegrationError("v", "unreachable", "no connection", retryable=True, code="X1") for _ in range(2)]
    vendor = replace_vendor(team, "SMS", *refused)
    with pytest.raises(IntegrationError):
        await run_job("message.send", sent.message.id)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.attempt_id) == ("QUEUED", None)
    await run_job("message.send", sent.message.id, last=True)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.error_code, row.error_message) == ("FAILED", "X1", "no connection")
    assert len({message.attempt_id for message in vendor.sent}) == 2


def too_many(seconds: float | None) -> IntegrationError:
    return IntegrationError("v", "rate_limited", "slow down", retryable=True, code="20429", retry_after_s=seconds)


async def waits(message: messages.SentMessage, *, last: bool = False) -> float:
    """The seconds after which the message's job wants to run again."""
    with pytest.raises(jobs.Later) as later:
        await run_job("message.send", message.message.id, last=last)
    row = await Message.get(id=message.message.id)
    assert (row.delivery_status, row.attempt_id) == ("QUEUED", None)
    return later.value.delay_s


async def free_again(team: Team, kind: str = "SMS") -> None:
    """The pause of a connection is over."""
    await ChannelConnection.filter(id=team.channels[kind].id).update(next_send_at=datetime.now(UTC))


@pytest.mark.parametrize(
    ("named", "paused"),
    [(30.0, 30.0), (None, sending.PAUSE_S), (0.0, sending.PAUSE_S), (1e9, 3600.0)],
)
async def test_a_rate_limit_pauses_its_connection_and_no_other_and_uses_no_attempt_up(
    team: Team, named: float | None, paused: float
) -> None:
    first, second, mail = await send(team, "One"), await send(team, "Two"), await send(team, "Three", "EMAIL")
    vendor = replace_vendor(team, "SMS", too_many(named), SendResult(external_id="v-1"), SendResult(external_id="v-2"))
    other = replace_vendor(team, "EMAIL", SendResult(external_id="v-3"))
    assert await waits(first, last=True) == paused
    assert paused - 5 < await waits(second) <= paused
    await run_job("message.send", mail.message.id)
    assert ([m.body for m in vendor.sent], [m.body for m in other.sent]) == (["One"], ["Three"])
    assert (await ChannelConnection.get(id=team.channels["EMAIL"].id)).next_send_at is None

    await free_again(team)
    await run_job("message.send", first.message.id)
    await run_job("message.send", second.message.id)
    assert [m.body for m in vendor.sent] == ["One", "One", "Two"]
    assert await Message.filter(delivery_status="SENT").count() == 3


async def test_a_shorter_pause_never_cuts_a_longer_one(team: Team) -> None:
    sent = await send(team, "One")
    replace_vendor(team, "SMS", too_many(600), too_many(5))
    await waits(sent)
    until = datetime.now(UTC) + timedelta(seconds=500)
    await ChannelConnection.filter(id=team.channels["SMS"].id).update(next_send_at=None)
    await waits(sent)
    await ChannelConnection.filter(id=team.channels["SMS"].id).update(next_send_at=until)
    await pacing.pause(team.channels["SMS"], 5)
    assert (await ChannelConnection.get(id=team.channels["SMS"].id)).next_send_at == until


async def test_a_recipients_try_later_delays_only_that_message(team: Team) -> None:
    grey, other = await send(team, "One", "EMAIL"), await send(team, "Two", "EMAIL")
    again = IntegrationError("v", "try_later", "greylisted", retryable=True, code="4.2.0", retry_after_s=60)
    replace_vendor(team, "EMAIL", again)
    assert await waits(grey, last=True) == 60
    assert (await ChannelConnection.get(id=team.channels["EMAIL"].id)).next_send_at is None
    assert await waits(other) == sending.WAIT_FOR_EARLIER_S  # the order of the conversation is kept


async def test_who_waited_for_hours_fails_and_says_so(team: Team) -> None:
    sent = await send(team, "One")
    vendor = replace_vendor(team, "SMS", too_many(30))
    await Message.filter(id=sent.message.id).update(occurred_at=datetime.now(UTC) - pacing.WAIT_LIMIT)
    await run_job("message.send", sent.message.id, last=True)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.error_code, len(vendor.sent)) == ("FAILED", "20429", 1)


async def test_a_channels_pace_lets_one_through_per_turn_in_order(team: Team) -> None:
    contacts = [await factories.contact(team.account, name=f"C{n}") for n in range(3)]
    queued = []
    for n, contact in enumerate(contacts):
        await factories.contact_address(contact, "SMS", address=f"+1415555880{n}")
        conversation = await factories.conversation(contact)
        queued.append(
            await messages.send_message(
                team.agent, conversation_id=conversation.id, channel_id=team.channels["SMS"].id, body=f"to {n}"
            )
        )
    vendor = replace_vendor(team, "SMS", *(SendResult(external_id=f"v-{n}") for n in range(3)))
    vendor.limits = lambda kind: ChannelLimits(messages_per_s=0.01)
    await run_job("message.send", queued[0].message.id)
    assert 90 < await waits(queued[1]) <= 100
    assert 190 < await waits(queued[2]) <= 200  # behind the second
    assert [m.body for m in vendor.sent] == ["to 0"]


async def test_two_runners_at_a_pace_take_one_turn(team: Team) -> None:
    other = await factories.contact(team.account, name="Other")
    await factories.contact_address(other, "SMS", address="+14155558801")
    thread = await factories.conversation(other)
    first = await send(team, "One")
    second = await messages.send_message(
        team.agent, conversation_id=thread.id, channel_id=team.channels["SMS"].id, body="Two"
    )
    vendor = replace_vendor(team, "SMS", *(SendResult(external_id=f"v-{n}") for n in range(2)))
    vendor.limits = lambda kind: ChannelLimits(messages_per_s=0.01)
    ends = await asyncio.gather(
        *(run_job("message.send", sent.message.id) for sent in (first, second)), return_exceptions=True
    )
    assert sorted(type(end).__name__ for end in ends) == ["Later", "NoneType"]
    assert len(vendor.sent) == 1


async def test_the_channel_remembers_what_was_wrong_with_it_until_it_works(team: Team) -> None:
    async def kept() -> str | None:
        return (await ChannelConnection.get(id=team.channels["SMS"].id)).last_error

    replace_vendor(
        team,
        "SMS",
        IntegrationError("v", "unauthorized", "Authenticate", code="20003"),
        IntegrationError("v", "invalid_recipient", "No such number.", code="21211"),
        SendResult(external_id="v-1"),
    )
    results = []
    for body in ("One", "Two", "Three"):
        await run_job("message.send", (await send(team, body)).message.id)
        results.append(await kept())
    assert results == ["Authenticate", "Authenticate", None]


async def test_a_failed_delivery_shows_on_the_request_as_card_and_notice_and_the_link_stays(team: Team) -> None:
    request = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)
    sent = await send(team, f"Pay {payment_links.checkout_url(request)}")
    replace_vendor(team, "SMS", IntegrationError("v", "invalid_recipient", "No such number.", code="21211"))
    await run_job("message.send", sent.message.id)
    after = await PaymentRequest.get(id=request.id)
    assert (after.status, after.delivery_state) == ("SENT", "FAILED")
    cards = await ActivityCard.all().order_by("seq")
    assert [card.kind for card in cards] == ["PAYMENT_REQUEST", "DELIVERY_FAILED"]
    notice = await Notification.get()
    assert (notice.user_id, notice.kind, notice.payment_request_id) == (
        team.agent.user_id,
        "DELIVERY_FAILED",
        request.id,
    )


async def test_the_vendors_opt_out_is_remembered(team: Team) -> None:
    sent = await send(team, "Hello")
    replace_vendor(team, "SMS", IntegrationError("v", "opted_out", "STOP", code="21610"))
    await run_job("message.send", sent.message.id)
    assert (await Message.get(id=sent.message.id)).delivery_status == "FAILED"
    assert (await ContactAddress.get(id=team.addresses["SMS"].id)).opted_out_at is not None
    with pytest.raises(ContactOptedOut):
        await send(team, "Hello?")


async def test_a_stop_between_commit_and_call_wins(team: Team) -> None:
    sent = await send(team, "Hello")
    await team.hears("SMS", "STOP", "in-stop")
    vendor = replace_vendor(team, "SMS")
    await run_job("message.send", sent.message.id)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.error_code) == ("FAILED", "CONTACT_OPTED_OUT")
    assert vendor.sent == []


async def test_a_provider_learns_who_wrote_and_when_the_contact_last_did(team: Team) -> None:
    assert (await handed_over(team, "Hello")).last_inbound_at is None
    await team.hears("SMS", "Hi", "in-1")
    outbound = await handed_over(team, "Hello")
    assert outbound.author is Author.PERSON
    assert outbound.last_inbound_at == (await ContactAddress.get(id=team.addresses["SMS"].id)).last_inbound_at
    assert (outbound.link_url, outbound.link_label, outbound.reply_to, outbound.in_reply_to) == (None,) * 4
    key = dataclasses.replace(team.agent, kind="api_key", user_id=None)
    vendor = replace_vendor(team, "SMS", SendResult(external_id="v-key"))
    sent = await messages.send_message(
        key, conversation_id=team.conversation.id, channel_id=team.channels["SMS"].id, body="Hello"
    )
    await run_job("message.send", sent.message.id)
    assert vendor.sent[0].author is Author.AUTOMATION


@pytest.mark.parametrize(
    ("status", "label"), [("DRAFT", "Pay now"), ("PAID", "View receipt"), ("VOID", "View request")]
)
async def test_the_button_opens_the_accounts_first_link_with_a_fitting_label(
    team: Team, status: str, label: str
) -> None:
    request = await factories.payment_request(team.contact, status=status)
    link = payment_links.checkout_url(request)
    moved = link.replace(BASE_URL, "https://old.example.test")
    unknown_link = f"{BASE_URL}/p/{'x' * 22}"
    outbound = await handed_over(team, f"See {unknown_link} and {moved} and {link}")
    assert (outbound.link_url, outbound.link_label) == (link, label)
    assert (await handed_over(team, f"Only {unknown_link}")).link_url is None


async def test_an_email_answers_the_contacts_last_and_names_the_thread(team: Team) -> None:
    row = team.channels["EMAIL"]
    first = await handed_over(team, "Hello", "EMAIL")
    assert (first.in_reply_to, list(first.references), first.reply_to) == (None, [], None)
    mine = (await Message.get(direction="OUTBOUND")).external_id
    await team.hears("EMAIL", "Hi", "<in-1@x.test>")
    await team.hears("EMAIL", "Are you there?", "<in-2@x.test>")
    await team.hears("SMS", "Hi", "in-sms")
    failed = await send(team, "lost", "EMAIL")
    await Message.filter(id=failed.message.id).update(delivery_status="FAILED", external_id="<failed@x.test>")
    await type(row).filter(id=row.id).update(sender="Pay@Acme.test")
    second = await handed_over(team, "Here I am", "EMAIL")
    assert second.in_reply_to == "<in-2@x.test>"
    assert list(second.references) == [mine, "<in-1@x.test>", "<in-2@x.test>"]
    assert second.reply_to == "pay@acme.test"
    await type(row).filter(id=row.id).update(sender="Our mail")
    assert (await handed_over(team, "And again", "EMAIL")).reply_to is None
    assert list((await handed_over(team, "Text", "SMS")).references) == []


async def test_messages_of_a_channel_go_out_in_order(team: Team) -> None:
    first, second = await send(team, "first"), await send(team, "second")
    elsewhere = await send(team, "mail", "EMAIL")
    vendor = replace_vendor(team, "SMS", SendResult(external_id="v-1"), SendResult(external_id="v-2"))
    with pytest.raises(jobs.Later):
        await run_job("message.send", second.message.id)
    assert vendor.sent == []
    await run_job("message.send", elsewhere.message.id)
    assert (await Message.get(id=elsewhere.message.id)).delivery_status == "SENT"
    await run_job("message.send", first.message.id)
    await run_job("message.send", second.message.id)
    assert [message.body for message in vendor.sent] == ["first", "second"]


async def test_two_runners_call_the_vendor_once(team: Team) -> None:
    sent = await send(team, "Hello")
    vendor = replace_vendor(team, "SMS", SendResult(external_id="v-1"), SendResult(external_id="v-2"))
    await asyncio.gather(
        run_job("message.send", sent.message.id), run_job("message.send", sent.message.id), return_exceptions=True
    )
    assert len(vendor.sent) == 1


# ------------------------------------------------------------------------------------------------------------- status
ORDER = ["QUEUED", "SENDING", "UNKNOWN", "SENT", "DELIVERED", "READ"]


@pytest.mark.parametrize("before", [*ORDER, "FAILED"])
@pytest.mark.parametrize("after", [*ORDER, "FAILED"])
def test_a_status_only_moves_forward(before: str, after: str) -> None:
    if before == "FAILED":
        allowed = False
    elif after == "FAILED":
        allowed = before in ("QUEUED", "SENDING", "UNKNOWN", "SENT")
    else:
        allowed = ORDER.index(after) > ORDER.index(before)
    assert delivery_service.forward(before, after) is allowed


async def test_callbacks_in_any_order_end_at_the_furthest_state(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    sent = await send(team, f"Pay {payment_links.checkout_url(request)}")
    replace_vendor(team, "SMS", SendResult(external_id="v-1"))
    await run_job("message.send", sent.message.id)
    states = [DeliveryStatus.READ, DeliveryStatus.SENT, DeliveryStatus.DELIVERED, DeliveryStatus.FAILED]
    for status in [*states, *states]:
        await delivery_service.record_status(team.channels["SMS"], StatusUpdate(external_id="v-1", status=status))
    assert (await Message.get(id=sent.message.id)).delivery_status == "READ"
    assert (await PaymentRequest.get(id=request.id)).delivery_state == "READ"
    assert (await kinds_logged(team.account.id)).count("message.updated") == 2  # SENT, READ
    assert await ActivityCard.filter(kind="DELIVERY_FAILED").count() == 0


async def test_a_callback_that_overtakes_the_answer_finds_its_message_by_the_address(team: Team) -> None:
    sent = await send(team, "Hello")
    await Message.filter(id=sent.message.id).update(delivery_status="SENDING")
    raw = simulated.status_body("v-7", "x", DeliveryStatus.DELIVERED, at=datetime.now(UTC))
    await team.calls_back("SMS", raw, query={"m": public_id("msg", sent.message.id)})
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.external_id) == ("DELIVERED", "v-7")


async def kept_statuses_run(team: Team, *, due: bool = True) -> int:
    """Run the kept statuses as the runner would; how many asked to come again."""
    later = 0
    moment = datetime.now(UTC) + timedelta(seconds=0 if due else 3600)
    for job in await Job.filter(kind="message.status", status="queued", due_at__lte=moment):
        context = jobs.JobContext(
            job_id=job.id,
            kind=job.kind,
            payload=job.payload,
            account_id=job.account_id,
            attempt=1,
            last_attempt=False,
            sealed=job.sealed,
        )
        try:
            await jobs.handlers[job.kind](context)
        except jobs.Later:
            later += 1
        else:
            await Job.filter(id=job.id).update(status="done")
    return later


@pytest.mark.parametrize("lost", [False, True])
async def test_a_status_that_overtakes_the_external_id_is_applied_when_the_id_is_known(team: Team, lost: bool) -> None:
    sent = await send(team, "Hello")
    row = team.channels["SMS"]
    vendor = replace_vendor(team, "SMS", TimeoutError() if lost else SendResult(external_id="v-1"))
    given = vendor.send

    async def told_first(message: OutboundMessage) -> SendResult:
        for status in (DeliveryStatus.READ, DeliveryStatus.DELIVERED, DeliveryStatus.READ):
            await delivery_service.record_status(row, StatusUpdate(external_id="v-1", status=status))
        assert await kept_statuses_run(team, due=False) == 2  # the id may still come
        return await given(message)

    vendor.send = told_first  # type: ignore[method-assign]
    await run_job("message.send", sent.message.id)
    if lost:
        assert (await Message.get(id=sent.message.id)).delivery_status == "UNKNOWN"
        assert await kept_statuses_run(team, due=False) == 2
        vendor.found = StatusUpdate(external_id="v-1", status=DeliveryStatus.SENT)
        await run_job("message.resolve", sent.message.id)
    assert await Job.filter(kind="message.status").count() == 2
    assert await kept_statuses_run(team) == 0  # due now, not a minute later
    message = await Message.get(id=sent.message.id)
    assert (message.delivery_status, message.external_id, len(vendor.sent)) == ("READ", "v-1", 1)


async def test_a_read_mark_that_overtakes_the_answer_holds_for_its_message(team: Team) -> None:
    sent = await send(team, "Hello")
    row = team.channels["SMS"]
    moment = datetime.now(UTC)
    await Message.filter(id=sent.message.id).update(delivery_status="SENDING", sending_at=moment)
    read = StatusUpdate(external_id="", status=DeliveryStatus.READ, address=sent.message.address, up_to=moment)
    await delivery_service.record_status(row, read)
    await Message.filter(id=sent.message.id).update(delivery_status="SENT", external_id="v-1")
    assert await kept_statuses_run(team, due=False) == 0
    assert (await Message.get(id=sent.message.id)).delivery_status == "READ"


async def test_a_status_of_a_message_that_is_not_ours_is_tried_once_more_and_no_longer(team: Team) -> None:
    sent = await send(team, "Hello")
    unmatched = StatusUpdate(external_id="v-9", status=DeliveryStatus.READ)
    for waiting in (False, True):
        if waiting:
            long_ago = datetime.now(UTC) - delivery_service.STATUS_WAITS
            await Message.filter(id=sent.message.id).update(delivery_status="UNKNOWN", sending_at=long_ago)
        await delivery_service.record_status(team.channels["SMS"], unmatched)
        assert await Job.filter(kind="message.status", status="queued").count() == 1
        assert await kept_statuses_run(team, due=False) == 0
    assert await Message.filter(delivery_status="READ").count() == 0


async def test_a_status_of_another_connection_changes_nothing(team: Team) -> None:
    sent = await send(team, "Hello")
    replace_vendor(team, "SMS", SendResult(external_id="v-1"))
    await run_job("message.send", sent.message.id)
    other = await factories.channel_connection(team.account)
    await delivery_service.record_status(
        other, StatusUpdate(external_id="v-1", status=DeliveryStatus.READ), message_id=sent.message.id
    )
    assert (await Message.get(id=sent.message.id)).delivery_status == "SENT"


async def test_a_callback_that_names_our_message_finds_it_without_its_external_id(team: Team) -> None:
    sent, known = await send(team, "Hello"), await send(team, "Hello again")
    await Message.filter(id=sent.message.id).update(delivery_status="UNKNOWN")
    await Message.filter(id=known.message.id).update(delivery_status="SENT", external_id="v-2")
    long = "m" * 200
    for message in (sent.message, known.message):
        update = StatusUpdate(
            external_id=long, status=DeliveryStatus.DELIVERED, message_id=public_id("msg", message.id)
        )
        await delivery_service.record_status(team.channels["SMS"], update)
        await delivery_service.record_status(team.channels["SMS"], update)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.external_id) == ("DELIVERED", external_id(long))
    row = await Message.get(id=known.message.id)  # it has an id, and this is another's
    assert (row.delivery_status, row.external_id) == ("SENT", "v-2")
    for wrong in ("msg_1", "x", public_id("chn", known.message.id)):
        await delivery_service.record_status(
            team.channels["SMS"], StatusUpdate(external_id="v-9", status=DeliveryStatus.READ, message_id=wrong)
        )
    assert await Message.filter(delivery_status="READ").count() == 0


async def test_read_up_to_a_moment_means_every_message_to_that_address_until_then(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    moment = datetime.now(UTC)
    row = team.channels["SMS"]
    ids: dict[str, UUID] = {}
    for name, status, minutes in (
        ("sent", "SENT", -2),
        ("delivered", "DELIVERED", -1),
        ("at the moment", "SENT", 0),
        ("later", "SENT", 1),
        ("failed", "FAILED", -2),
        ("unknown", "UNKNOWN", -2),
        ("to another contact", "SENT", -2),
    ):
        ids[name] = (await send(team, f"{name} {payment_links.checkout_url(request)}")).message.id
        await Message.filter(id=ids[name]).update(
            delivery_status=status, external_id=name, sending_at=moment + timedelta(minutes=minutes)
        )
    await Message.filter(id=ids["to another contact"]).update(address="+14155550111")
    update = StatusUpdate(
        external_id="", status=DeliveryStatus.READ, address=team.addresses["SMS"].address, up_to=moment
    )
    await delivery_service.record_status(await factories.channel_connection(team.account), update)
    assert await Message.filter(delivery_status="READ").count() == 0
    for _ in range(2):
        await delivery_service.record_status(row, update)
    found = {name: (await Message.get(id=id_)).delivery_status for name, id_ in ids.items()}
    assert found == {
        "sent": "READ",
        "delivered": "READ",
        "at the moment": "READ",
        "later": "SENT",
        "failed": "FAILED",
        "unknown": "UNKNOWN",
        "to another contact": "SENT",
    }
    assert (await kinds_logged(team.account.id)).count("message.updated") == 3
    # A delivery reported up to a moment takes nothing back.
    await delivery_service.record_status(row, dataclasses.replace(update, status=DeliveryStatus.DELIVERED))
    assert await Message.filter(delivery_status="READ").count() == 3


@pytest.mark.parametrize("how", ["refused", "callback", "before the call"])
async def test_a_window_that_closed_meanwhile_is_a_failure_that_the_card_explains(team: Team, how: str) -> None:
    await team.hears("WHATSAPP", "Hi", "in-1")
    request = await factories.payment_request(team.contact)
    sent = await send(team, f"Pay {payment_links.checkout_url(request)}", "WHATSAPP")
    if how == "refused":
        replace_vendor(team, "WHATSAPP", IntegrationError("v", "window_closed", "Too late.", code="10/2018278"))
    elif how == "callback":
        replace_vendor(team, "WHATSAPP", SendResult(external_id="v-1"))
    else:
        long_ago = datetime.now(UTC) - timedelta(hours=25)
        await ContactAddress.filter(id=team.addresses["WHATSAPP"].id).update(last_inbound_at=long_ago)
    await run_job("message.send", sent.message.id)
    if how == "callback":
        update = StatusUpdate(
            external_id="v-1",
            status=DeliveryStatus.FAILED,
            error_code="63016",
            error_message="Too late.",
            reason="window_closed",
        )
        await delivery_service.record_status(team.channels["WHATSAPP"], update)
    row = await Message.get(id=sent.message.id)
    code = "MESSAGING_WINDOW_CLOSED" if how == "before the call" else "window_closed"
    assert (row.delivery_status, row.error_code) == ("FAILED", code)
    card = await ActivityCard.get(kind="DELIVERY_FAILED")
    assert card.text == (
        f"The message with the link of {request.number} could not be delivered: the time to answer the contact's last message on "
        "this channel is over. The link still works."
    )
    assert (await ContactAddress.get(id=team.addresses["WHATSAPP"].id)).opted_out_at is None


async def test_a_failure_of_an_older_message_leaves_the_newer_ones_state(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    link = payment_links.checkout_url(request)
    replace_vendor(team, "SMS", SendResult(external_id="v-1"), SendResult(external_id="v-2"))
    for text in ("first", "second"):
        await run_job("message.send", (await send(team, f"{text} {link}")).message.id)
    await delivery_service.record_status(
        team.channels["SMS"], StatusUpdate(external_id="v-1", status=DeliveryStatus.FAILED, error_code="30003")
    )
    assert (await PaymentRequest.get(id=request.id)).delivery_state == "SENT"
    assert await counts("notification") == {"notification": 0}


# -------------------------------------------------------------------------------------------------- jobs that are gone
async def test_a_message_whose_job_dies_fails_and_may_be_sent_again(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)
    sent = await send(team, f"Pay {payment_links.checkout_url(request)}")
    later = await send(team, "Are you there?")

    async def fail(*_: object) -> None:
        raise ValueError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(sending, "_refusal", fail)
        for _ in range(sending.SEND_ATTEMPTS):
            await db.execute(
                "UPDATE job SET due_at = ? WHERE key = ?", datetime.now(UTC), f"message.send:{sent.message.id}"
            )
            await job_runner.Runner().run_due()
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.error_code, row.error_message) == (
        "FAILED",
        "SENDING_FAILED",
        sending.NOT_SENT_TEXT,
    )
    assert await ActivityCard.filter(kind="DELIVERY_FAILED").count() == 1
    assert await Job.filter(kind="message.send", status="dead").count() == 1
    again = await messages.resend_message(
        team.agent, message_id=row.id, channel_id=team.channels["SMS"].id, idempotency_key="resend-1"
    )
    vendor = replace_vendor(team, "SMS", SendResult(external_id="v-1"), SendResult(external_id="v-2"))
    await run_job("message.send", later.message.id)  # the one behind it no longer waits
    await run_job("message.send", again.message.id)
    assert [message.body for message in vendor.sent] == [later.message.body, sent.message.body]


async def test_messages_without_a_live_job_get_one_or_an_end(team: Team) -> None:
    now = datetime.now(UTC)
    kinds = ("SMS", "EMAIL", "WHATSAPP", "MESSENGER", "INSTAGRAM_DM", "WEB_CHAT")
    await ContactAddress.all().update(last_inbound_at=now)
    lost, died, old, calling, alive, gone = [(await send(team, kind, kind)).message.id for kind in kinds]
    await Job.filter(key__in=[f"message.send:{id}" for id in (lost, old, calling)]).delete()
    await Job.filter(key=f"message.send:{died}").update(status="dead")
    await db.execute("UPDATE message SET occurred_at = ? WHERE id = ?", now - timedelta(hours=2), old)
    await Message.filter(id=calling).update(delivery_status="SENDING", attempt_id="a" * 32, sending_at=now)
    await Job.filter(key=f"message.send:{gone}").update(status="done")
    await Message.filter(id=gone).update(delivery_status="SENT")
    for _ in range(2):
        await sending.sweep_stranded(now)

    async def state(id: UUID) -> tuple[str, str | None, str | None]:
        row = await Message.get(id=id)
        job = await Job.get_or_none(key=f"message.send:{id}")
        return row.delivery_status, row.error_code, None if job is None else job.status

    assert [await state(id) for id in (lost, died, old, calling, alive, gone)] == [
        ("QUEUED", None, "queued"),
        ("FAILED", "SENDING_FAILED", "dead"),
        ("FAILED", "SENDING_FAILED", None),
        ("UNKNOWN", "SENDING_FAILED", None),
        ("QUEUED", None, "queued"),
        ("SENT", None, "done"),
    ]
    vendor = replace_vendor(team, "SMS", SendResult(external_id="v-1"))
    await run_job("message.send", lost)
    assert [message.body for message in vendor.sent] == ["SMS"]
    await run_job("message.send", lost)
    assert len(vendor.sent) == 1


async def test_a_pause_of_a_clock_ahead_of_time_is_forgotten_when_the_clock_is_set_back(team: Team) -> None:
    sms, email = team.channels["SMS"], team.channels["EMAIL"]
    now = datetime.now(UTC)
    await ChannelConnection.filter(id=sms.id).update(next_send_at=now + timedelta(days=1))
    await ChannelConnection.filter(id=email.id).update(next_send_at=now - timedelta(seconds=1))
    for correct in jobs.clock_corrections:
        await correct(now)
    assert (await ChannelConnection.get(id=sms.id)).next_send_at is None
    assert (await ChannelConnection.get(id=email.id)).next_send_at is not None
