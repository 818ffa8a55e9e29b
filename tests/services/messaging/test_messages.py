"""Messages that may be sent, and the requests that their links bind."""

from __future__ import annotations

import asyncio

import pytest

from models import database as db
from models.errors import (
    AlreadyPaid,
    AlreadyVoid,
    Blank,
    Forbidden,
    IdempotencyKeyParameterMismatch,
    Invalid,
    NotFound,
    TooLong,
)
from models.tables import (
    ActivityCard,
    Conversation,
    IdempotencyKey,
    Job,
    Message,
    MessagePaymentRequest,
    PaymentRequest,
)
from services.messaging import messages
from services.thread import payment_links
from tests import factories
from tests.services.conftest import Team, counts, kinds_logged
from tests.services.outgoing import CHANGED, send


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
    link = payment_links.checkout_url(request)
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
    sent = await send(team, " ".join(payment_links.checkout_url(r) for r in (requests[2], requests[0])))
    assert {card.payment_request_id for card in sent.cards} == {requests[0].id, requests[2].id}
    assert (await PaymentRequest.get(id=requests[1].id)).status == "DRAFT"


async def test_a_link_of_another_contact_is_refused_and_nothing_changes(team: Team) -> None:
    stranger = await factories.contact(team.account)
    request = await factories.payment_request(stranger)
    before = await counts(*CHANGED)
    with pytest.raises(Invalid) as refused:
        await send(team, f"Pay {payment_links.checkout_url(request)}", idempotency_key="a-good-key")
    assert refused.value.field == ("body",)
    assert await counts(*CHANGED) == before
    assert (await PaymentRequest.get(id=request.id)).status == "DRAFT"


async def test_links_of_other_accounts_and_unknown_tokens_are_plain_text(team: Team) -> None:
    foreign = await factories.payment_request(await factories.contact(await factories.account()))
    sent = await send(team, f"{payment_links.checkout_url(foreign)} https://pay.example.test/p/{'x' * 22}")
    assert sent.cards == []
    assert (await PaymentRequest.get(id=foreign.id)).status == "DRAFT"
    assert await MessagePaymentRequest.all().count() == 0


@pytest.mark.parametrize("status", ["PAID", "VOID"])
async def test_a_closed_link_goes_out_without_effect(team: Team, status: str) -> None:
    request = await factories.payment_request(team.contact, status=status)
    sent = await send(team, f"Your receipt: {payment_links.checkout_url(request)}")
    after = await PaymentRequest.get(id=request.id)
    assert (after.status, after.sent_at, after.version, sent.cards) == (status, None, 1, [])
    # It is no request for money, so it needs no processor either.
    await type(team.processor).filter(id=team.processor.id).update(connected=False)
    await send(team, f"Once more: {payment_links.checkout_url(request)}")


@pytest.mark.parametrize(("status", "refusal"), [("PAID", AlreadyPaid), ("VOID", AlreadyVoid)])
async def test_a_request_that_must_be_bound_has_to_be_open(team: Team, status: str, refusal: type[Exception]) -> None:
    request = await factories.payment_request(team.contact, status=status)
    with pytest.raises(refusal):
        await send(team, f"Pay {payment_links.checkout_url(request)}", must_bind=request.id)
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
    assert (
        await send(team, payment_links.checkout_url(request), "EMAIL")
    ).message.subject == "Acme Cleaning: Deep clean"
    assert (await send(team, "Hello", "EMAIL", subject="Thursday")).message.subject == "Thursday"
    assert (await send(team, "Hello", "SMS")).message.subject is None


async def test_a_repeat_with_the_same_key_gives_the_same_message_and_card(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    body = f"Pay {payment_links.checkout_url(request)}"
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


async def test_ten_concurrent_messages_get_ten_places_in_the_thread(team: Team) -> None:
    request = await factories.payment_request(team.contact)
    link = payment_links.checkout_url(request)
    await asyncio.gather(*(send(team, f"{n}: {link}") for n in range(10)))
    assert await counts("message", "activity_card") == {"message": 10, "activity_card": 1}
    numbers = [row["seq"] for row in await db.rows("SELECT seq FROM event ORDER BY seq")]
    assert numbers == list(range(1, len(numbers) + 1))
