"""Messages: link detection, exactly one hand-over to a provider, statuses that never step back, inbound stored once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from integrations.base import (
    Author,
    Channel,
    DeliveryStatus,
    IntegrationError,
    OutboundMessage,
    SendResult,
    StatusUpdate,
    WebhookRequest,
    external_id,
)
from integrations.channels import meta_messenger, simulated
from models import database as db
from models.errors import (
    AlreadyPaid,
    AlreadyVoid,
    Blank,
    ContactOptedOut,
    Forbidden,
    IdempotencyKeyParameterMismatch,
    Invalid,
    MessagingWindowClosed,
    NotFound,
    TooLong,
)
from models.ids import public_id, uuid7
from models.tables import (
    Account,
    ActivityCard,
    ChannelConnection,
    Contact,
    ContactAddress,
    Conversation,
    IdempotencyKey,
    Job,
    Message,
    MessagePaymentRequest,
    Notification,
    PaymentRequest,
)
from services import connections, jobs, links, messages
from tests import factories
from tests.contracts.meta_server import APP_SECRET, VERIFY_TOKEN, signed
from tests.services.conftest import BASE_URL, Team, counts, kinds_logged

CHANGED = ("message", "activity_card", "event", "job", "message_payment_request", "idempotency_key", "notification")


async def send(team: Team, body: str, kind: str = "SMS", **more: Any) -> messages.SentMessage:
    return await messages.send_message(
        team.agent, conversation_id=team.conversation.id, channel_id=team.channels[kind].id, body=body, **more
    )


async def run_job(kind: str, message_id: UUID, *, last: bool = False) -> None:
    """One run of a message's job, as the runner would do it."""
    message = await Message.get(id=message_id)
    await jobs._handlers[kind](
        jobs.JobContext(
            job_id=uuid7(),
            kind=kind,
            payload={"message_id": str(message_id)},
            account_id=message.account_id,
            attempt=1,
            last_attempt=last,
        )
    )


class Vendor:
    """Stands in for a provider: answers each send with the next of `answers`, counts the calls, and receives as the real one."""

    def __init__(self, answers: Sequence[object], instead_of: Channel) -> None:
        self.receive = instead_of.receive
        self.answers = list(answers)
        self.sent: list[OutboundMessage] = []
        self.found: StatusUpdate | None = None
        self.limits = simulated.Simulated.limits.__get__(self)

    async def send(self, message: OutboundMessage) -> SendResult:
        self.sent.append(message)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, SendResult)
        return answer

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        return self.found

    async def aclose(self) -> None:
        pass


def replace_vendor(team: Team, kind: str, *answers: object) -> Vendor:
    row = team.channels[kind]
    vendor = Vendor(answers, connections.channel(row))
    connections._channels[row.id] = (row.version, vendor)  # type: ignore[assignment]
    return vendor


# --------------------------------------------------------------------------------------------------------------- send
async def test_a_message_is_queued_with_its_job_and_logged_once(team: Team) -> None:
    sent = await send(team, "  Hello Maya  ")
    row = await Message.get(id=sent.message.id)
    assert (row.body, row.delivery_status, row.direction, row.kind) == ("Hello Maya", "QUEUED", "OUTBOUND", "SMS")
    assert (row.author_id, row.author_name, row.address) == (team.agent.user_id, "Agent", team.addresses["SMS"].address)
    assert sent.cards == []
    job = await Job.get(kind="message.send")
    assert (job.payload, job.status) == ({"message_id": str(row.id)}, "queued")
    assert await kinds_logged(team.account.id) == ["message.created"]
    thread = await Conversation.get(id=team.conversation.id)
    assert (thread.preview, thread.unread_count) == ("Hello Maya", 0)
    assert await ActivityCard.all().count() == 0


async def test_a_link_in_the_text_binds_its_request_and_logs_one_card(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    link = links.checkout_url(request)
    sent = await send(team, f"Please pay ({link}), thank you. Again: {link}")
    assert [(c.kind, c.status, c.payment_request_id) for c in sent.cards] == [("PAYMENT_REQUEST", "SENT", request.id)]
    after = await PaymentRequest.get(id=request.id)
    assert (after.status, after.sent_via, after.last_message_id) == ("SENT", "MESSAGE", sent.message.id)
    assert after.delivery_state == "QUEUED"
    assert sent.message.seq < sent.cards[0].seq
    again = await send(team, f"A reminder: {link}")
    assert again.cards == []
    assert (await PaymentRequest.get(id=request.id)).last_message_id == again.message.id
    assert await ActivityCard.all().count() == 1
    assert await MessagePaymentRequest.filter(payment_request_id=request.id).count() == 2


async def test_several_links_bind_each_request_and_no_other(team: Team) -> None:
    requests = [await factories.payment_request(team.contact) for _ in range(3)]
    sent = await send(team, " ".join(links.checkout_url(r) for r in (requests[2], requests[0])))
    assert {card.payment_request_id for card in sent.cards} == {requests[0].id, requests[2].id}
    assert (await PaymentRequest.get(id=requests[1].id)).status == "DRAFT"


async def test_a_link_of_another_contact_is_refused_and_nothing_changes(team: Team) -> None:
    stranger = await factories.contact(team.account)
    request = await factories.payment_request(stranger)
    before = await counts(*CHANGED)
    with pytest.raises(Invalid) as refused:
        await send(team, f"Pay {links.checkout_url(request)}", idempotency_key="a-good-key")
    assert refused.value.field == ("body",)
    assert await counts(*CHANGED) == before
    assert (await PaymentRequest.get(id=request.id)).status == "DRAFT"


async def test_links_of_other_accounts_and_unknown_tokens_are_plain_text(team: Team) -> None:
    foreign = await factories.payment_request(await factories.contact(await factories.account()))
    sent = await send(team, f"{links.checkout_url(foreign)} https://pay.example.test/p/{'x' * 22}")
    assert sent.cards == []
    assert (await PaymentRequest.get(id=foreign.id)).status == "DRAFT"
    assert await MessagePaymentRequest.all().count() == 0


@pytest.mark.parametrize("status", ["PAID", "VOID"])
async def test_a_closed_link_goes_out_without_effect(team: Team, status: str) -> None:
    request = await factories.payment_request(team.contact, status=status)
    sent = await send(team, f"Your receipt: {links.checkout_url(request)}")
    after = await PaymentRequest.get(id=request.id)
    assert (after.status, after.sent_at, after.version, sent.cards) == (status, None, 1, [])
    # It is no request for money, so it needs no processor either.
    await type(team.processor).filter(id=team.processor.id).update(connected=False)
    await send(team, f"Once more: {links.checkout_url(request)}")


@pytest.mark.parametrize(("status", "refusal"), [("PAID", AlreadyPaid), ("VOID", AlreadyVoid)])
async def test_a_request_that_must_be_bound_has_to_be_open(team: Team, status: str, refusal: type[Exception]) -> None:
    request = await factories.payment_request(team.contact, status=status)
    with pytest.raises(refusal):
        await send(team, f"Pay {links.checkout_url(request)}", must_bind=request.id)
    with pytest.raises(Invalid):
        await send(team, "Pay", must_bind=request.id)
    assert await counts("message", "job") == {"message": 0, "job": 0}


@pytest.mark.parametrize(
    ("body", "refusal"), [("", Blank), (" \n\t ", Blank), ("a\x00b", Invalid), ("x" * 1601, TooLong)]
)
async def test_a_bad_text_is_refused_and_changes_nothing(team: Team, body: str, refusal: type[Exception]) -> None:
    with pytest.raises(refusal) as refused:
        await send(team, body, idempotency_key="a-good-key")
    assert getattr(refused.value, "field", None) == ("body",)
    assert set((await counts(*CHANGED)).values()) == {0}


async def test_a_limit_in_bytes_counts_bytes(team: Team) -> None:
    await team.hears("INSTAGRAM_DM", "hi", "in-1")
    await send(team, "é" * 500, "INSTAGRAM_DM")
    with pytest.raises(TooLong):
        await send(team, "é" * 500 + "a", "INSTAGRAM_DM")


async def test_foreign_ids_are_not_found(team: Team) -> None:
    other = await factories.account()
    foreign_channel = await factories.channel_connection(other)
    foreign_thread = await factories.conversation(await factories.contact(other))
    for conversation_id, channel_id, field in (
        (foreign_thread.id, team.channels["SMS"].id, "conversationId"),
        (team.conversation.id, foreign_channel.id, "channelId"),
    ):
        with pytest.raises(NotFound) as refused:
            await messages.send_message(
                team.agent, conversation_id=conversation_id, channel_id=channel_id, body="Hello"
            )
        assert refused.value.field == (field,)
    assert await Message.all().count() == 0


async def test_a_viewer_may_not_write(team: Team) -> None:
    with pytest.raises(Forbidden):
        await messages.send_message(
            team.viewer, conversation_id=team.conversation.id, channel_id=team.channels["SMS"].id, body="Hello"
        )
    assert await Message.all().count() == 0


async def test_an_email_gets_a_subject_from_what_it_carries(team: Team) -> None:
    request = await factories.payment_request(team.contact, product_name="Deep clean")
    assert (await send(team, "Hello", "EMAIL")).message.subject == "Message from Acme Cleaning"
    assert (await send(team, links.checkout_url(request), "EMAIL")).message.subject == "Acme Cleaning: Deep clean"
    assert (await send(team, "Hello", "EMAIL", subject="Thursday")).message.subject == "Thursday"
    assert (await send(team, "Hello", "SMS")).message.subject is None


async def test_a_repeat_with_the_same_key_gives_the_same_message_and_card(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    body = f"Pay {links.checkout_url(request)}"
    first = await send(team, body, idempotency_key="send-key-1")
    again = await send(team, body, idempotency_key="send-key-1")
    assert again.message.id == first.message.id
    assert [card.id for card in again.cards] == [card.id for card in first.cards]
    with pytest.raises(IdempotencyKeyParameterMismatch):
        await send(team, body + "!", idempotency_key="send-key-1")
    assert await counts("message", "activity_card", "job") == {"message": 1, "activity_card": 1, "job": 1}
    assert (await IdempotencyKey.get()).state == "done"


async def test_sending_clears_the_draft(team: Team) -> None:
    await Conversation.filter(id=team.conversation.id).update(draft="Hel")
    await send(team, "Hello")
    assert (await Conversation.get(id=team.conversation.id)).draft is None
    assert await kinds_logged(team.account.id) == ["message.created", "conversation.updated"]


async def test_ten_messages_at_once_get_ten_places_in_the_thread(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    link = links.checkout_url(request)
    await asyncio.gather(*(send(team, f"{n}: {link}") for n in range(10)))
    assert await counts("message", "activity_card") == {"message": 10, "activity_card": 1}
    numbers = [row["seq"] for row in await db.rows("SELECT seq FROM event ORDER BY seq")]
    assert numbers == list(range(1, len(numbers) + 1))


# --------------------------------------------------------------------------------------------------- to the provider
async def test_an_accepted_message_is_sent_once_and_its_request_follows(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    sent = await send(team, f"Pay {links.checkout_url(request)}")
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


async def test_an_answer_that_nobody_knows_stays_unknown(team: Team) -> None:
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
    sent = await send(team, f"Pay {links.checkout_url(request)}")
    refused = [IntegrationError("v", "rate_limited", "slow down", retryable=True, code="20429") for _ in range(2)]
    vendor = replace_vendor(team, "SMS", *refused)
    with pytest.raises(IntegrationError):
        await run_job("message.send", sent.message.id)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.attempt_id) == ("QUEUED", None)
    await run_job("message.send", sent.message.id, last=True)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.error_code, row.error_message) == ("FAILED", "20429", "slow down")
    assert len({message.attempt_id for message in vendor.sent}) == 2


async def test_a_failed_delivery_shows_on_the_request_as_card_and_notice_and_the_link_stays(team: Team) -> None:
    request = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)
    sent = await send(team, f"Pay {links.checkout_url(request)}")
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


async def handed_over(team: Team, body: str, kind: str = "SMS", **more: Any) -> OutboundMessage:
    """What the provider is given for a message."""
    vendor = replace_vendor(team, kind, SendResult(external_id=f"v-{uuid7()}"))
    await run_job("message.send", (await send(team, body, kind, **more)).message.id)
    (outbound,) = vendor.sent
    return outbound


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
async def test_the_button_opens_the_first_link_of_ours_and_says_what_it_does(
    team: Team, status: str, label: str
) -> None:
    request = await factories.payment_request(team.contact, status=status)
    link = links.checkout_url(request)
    moved = link.replace(BASE_URL, "https://old.example.test")
    foreign = f"{BASE_URL}/p/{'x' * 22}"
    outbound = await handed_over(team, f"See {foreign} and {moved} and {link}")
    assert (outbound.link_url, outbound.link_label) == (link, label)
    assert (await handed_over(team, f"Only {foreign}")).link_url is None


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
    assert messages.forward(before, after) is allowed


async def test_callbacks_in_any_order_end_at_the_furthest_state(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    sent = await send(team, f"Pay {links.checkout_url(request)}")
    replace_vendor(team, "SMS", SendResult(external_id="v-1"))
    await run_job("message.send", sent.message.id)
    states = [DeliveryStatus.READ, DeliveryStatus.SENT, DeliveryStatus.DELIVERED, DeliveryStatus.FAILED]
    for status in [*states, *states]:
        await messages.record_status(team.channels["SMS"], StatusUpdate(external_id="v-1", status=status))
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


async def test_a_status_of_another_connection_changes_nothing(team: Team) -> None:
    sent = await send(team, "Hello")
    replace_vendor(team, "SMS", SendResult(external_id="v-1"))
    await run_job("message.send", sent.message.id)
    other = await factories.channel_connection(team.account)
    await messages.record_status(
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
        await messages.record_status(team.channels["SMS"], update)
        await messages.record_status(team.channels["SMS"], update)
    row = await Message.get(id=sent.message.id)
    assert (row.delivery_status, row.external_id) == ("DELIVERED", external_id(long))
    row = await Message.get(id=known.message.id)  # it has an id, and this is another's
    assert (row.delivery_status, row.external_id) == ("SENT", "v-2")
    for wrong in ("msg_1", "x", public_id("chn", known.message.id)):
        await messages.record_status(
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
        ("to somebody else", "SENT", -2),
    ):
        ids[name] = (await send(team, f"{name} {links.checkout_url(request)}")).message.id
        await Message.filter(id=ids[name]).update(
            delivery_status=status, external_id=name, sending_at=moment + timedelta(minutes=minutes)
        )
    await Message.filter(id=ids["to somebody else"]).update(address="+14155550111")
    update = StatusUpdate(
        external_id="", status=DeliveryStatus.READ, address=team.addresses["SMS"].address, up_to=moment
    )
    await messages.record_status(await factories.channel_connection(team.account), update)
    assert await Message.filter(delivery_status="READ").count() == 0
    for _ in range(2):
        await messages.record_status(row, update)
    found = {name: (await Message.get(id=id_)).delivery_status for name, id_ in ids.items()}
    assert found == {
        "sent": "READ",
        "delivered": "READ",
        "at the moment": "READ",
        "later": "SENT",
        "failed": "FAILED",
        "unknown": "UNKNOWN",
        "to somebody else": "SENT",
    }
    assert (await kinds_logged(team.account.id)).count("message.updated") == 3
    # A delivery told up to a moment takes nothing back.
    await messages.record_status(row, dataclasses.replace(update, status=DeliveryStatus.DELIVERED))
    assert await Message.filter(delivery_status="READ").count() == 3


@pytest.mark.parametrize("how", ["refused", "callback", "before the call"])
async def test_a_window_that_closed_meanwhile_is_a_failure_that_the_card_explains(team: Team, how: str) -> None:
    await team.hears("WHATSAPP", "Hi", "in-1")
    request = await factories.payment_request(team.contact)
    sent = await send(team, f"Pay {links.checkout_url(request)}", "WHATSAPP")
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
        await messages.record_status(team.channels["WHATSAPP"], update)
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
    link = links.checkout_url(request)
    replace_vendor(team, "SMS", SendResult(external_id="v-1"), SendResult(external_id="v-2"))
    for text in ("first", "second"):
        await run_job("message.send", (await send(team, f"{text} {link}")).message.id)
    await messages.record_status(
        team.channels["SMS"], StatusUpdate(external_id="v-1", status=DeliveryStatus.FAILED, error_code="30003")
    )
    assert (await PaymentRequest.get(id=request.id)).delivery_state == "SENT"
    assert await counts("notification") == {"notification": 0}


# ------------------------------------------------------------------------------------------------------------ inbound
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


async def test_the_same_callback_five_times_at_once_is_one_message(team: Team) -> None:
    await asyncio.gather(*(team.hears("SMS", "Hi", "in-1") for _ in range(5)))
    assert await Message.all().count() == 1
    assert (await Conversation.get(id=team.conversation.id)).unread_count == 1


async def test_inbound_links_never_bind(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    await team.hears("SMS", f"What is this? {links.checkout_url(request)}", "in-1")
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


async def test_strangers_become_one_contact_each_however_often_they_write_at_once(team: Team) -> None:
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
    foreign = await page(stranger, "104")
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
        answer = await messages.receive(meta_messenger.NAME, ours.id, request)
        assert answer.answer_body == "EVENT_RECEIVED"
    rows = await Message.all().order_by("body")
    assert [(row.body, row.channel_connection_id) for row in rows] == [("to 101", ours.id), ("to 102", second.id)]
    assert {row.account_id for row in rows} == {team.account.id}
    assert await Contact.filter(account_id=stranger.id).count() == 0
    assert (await ChannelConnection.get(id=foreign.id)).last_webhook_at is None


async def test_forged_stale_and_foreign_callbacks_store_nothing(team: Team) -> None:
    now = datetime.now(UTC)
    raw = simulated.inbound_body("+14155550199", "Hi", at=now, external_id="in-1")
    row = team.channels["SMS"]

    def request(signature: str, at: datetime = now) -> WebhookRequest:
        headers = {"paythread-simulator-signature": signature} if signature else {}
        return WebhookRequest(method="POST", public_url="https://x.test/", headers=headers, body=raw, now=at)

    good = simulated.sign("simulated-secret", raw, at=now)
    for bad in ("", "t=1,v1=00", simulated.sign("other-secret", raw, at=now), good.replace("v1=", "v0=")):
        with pytest.raises(messages.BadSignature):
            await messages.receive("simulated", row.id, request(bad))
    with pytest.raises(messages.BadSignature):
        await messages.receive("simulated", row.id, request(good, now + timedelta(seconds=301)))
    with pytest.raises(NotFound):
        await messages.receive("twilio_sms", row.id, request(good))
    with pytest.raises(NotFound):
        await messages.receive("simulated", uuid7(), request(good))
    assert await counts("message", "contact", "event") == {"message": 0, "contact": 1, "event": 0}


async def test_a_signed_callback_that_is_no_callback_is_a_bad_payload(team: Team) -> None:
    with pytest.raises(messages.BadPayload):
        await team.calls_back("SMS", b'{"type": "something.else"}')
    assert await counts("message", "event") == {"message": 0, "event": 0}
