"""Sending a failed or unknown message again."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations.base import IntegrationError, SendResult
from models.errors import (
    AlreadyPaid,
    AlreadyVoid,
    ChannelNotConnected,
    ConfirmationRequired,
    ContactOptedOut,
    Forbidden,
    IdempotencyKeyParameterMismatch,
    Invalid,
    MessagingWindowClosed,
    NotFound,
    TooLong,
)
from models.ids import uuid7
from models.tables import ActivityCard, ChannelConnection, Conversation, Message, PaymentRequest, ProcessorConnection
from services.connections import availability
from services.core.permissions import system_actor
from services.messaging import messages, resending
from services.messaging.composer import Template
from services.thread import payment_links
from tests import factories
from tests.services.conftest import Team, counts
from tests.services.outgoing import CHANGED, replace_vendor, run_job, send

NO_NUMBER = IntegrationError("v", "invalid_recipient", "No such number.", code="21211")
CUT = IntegrationError("v", "connection_lost", ambiguous=True)


async def fails(team: Team, body: str = "Hello", kind: str = "SMS", error: IntegrationError = NO_NUMBER) -> Message:
    """A message that its vendor refused, or never answered for."""
    sent = await send(team, body, kind)
    replace_vendor(team, kind, error)
    await run_job("message.send", sent.message.id)
    return await Message.get(id=sent.message.id)


async def resend(team: Team, message: Message, kind: str = "SMS", **more: Any) -> Message:
    given = {"idempotency_key": f"key-{uuid7()}", **more}
    actor = given.pop("actor", team.agent)
    sent = await messages.resend_message(actor, message_id=message.id, channel_id=team.channels[kind].id, **given)
    return sent.message


async def offered(team: Team, message: Message) -> list[str]:
    """The kinds of the channels that the message's resendOptions name."""
    fresh = await Message.get(id=message.id)
    found = resending.options(
        fresh,
        await resending.family_of(fresh),
        await availability.capabilities(team.agent, team.conversation),
        await payment_links.carried(team.account.id, fresh.body),
        await ProcessorConnection.filter(account_id=team.account.id),
    )
    return [reach.connection.kind for reach in found]


async def test_a_failed_request_goes_on_by_the_next_channel_with_its_link_and_without_a_second_card(team: Team) -> None:
    request = await factories.payment_request(team.contact, created_by_id=team.agent.user_id)
    failed = await fails(team, f"Pay {payment_links.checkout_url(request)}")
    assert (await PaymentRequest.get(id=request.id)).delivery_state == "FAILED"
    again = await resend(team, failed, "EMAIL")
    row = await Message.get(id=again.id)
    assert (row.body, row.retry_of_id, row.kind, row.delivery_status) == (failed.body, failed.id, "EMAIL", "QUEUED")
    assert row.address == team.addresses["EMAIL"].address
    assert row.subject is not None
    replace_vendor(team, "EMAIL", SendResult(external_id="v-1"))
    await run_job("message.send", row.id)
    fresh = await PaymentRequest.get(id=request.id)
    assert (fresh.delivery_state, fresh.last_message_id, fresh.status) == ("SENT", row.id, "SENT")
    assert [card.kind for card in await ActivityCard.all().order_by("seq")] == ["PAYMENT_REQUEST", "DELIVERY_FAILED"]


async def test_the_options_are_the_open_channels_with_another_one_first(team: Team) -> None:
    failed = await fails(team)
    assert await offered(team, failed) == ["EMAIL", "WEB_CHAT", "SMS"]
    await team.hears("WHATSAPP", "Hi", "in-1")
    assert await offered(team, failed) == ["WHATSAPP", "EMAIL", "WEB_CHAT", "SMS"]
    await team.hears("EMAIL", "STOP", "in-2")
    await ChannelConnection.filter(id=team.channels["SMS"].id).update(connected=False)
    assert await offered(team, failed) == ["WHATSAPP", "WEB_CHAT"]


async def test_every_option_is_taken_and_nothing_else(team: Team) -> None:
    failed = await fails(team, "x" * 1700, "EMAIL")
    await team.hears("SMS", "STOP", "in-1")
    await ChannelConnection.filter(id=team.channels["MESSENGER"].id).update(connected=False)
    options = await offered(team, failed)
    for kind in team.channels:
        failed = await factories.message(
            team.conversation,
            direction="OUTBOUND",
            kind="EMAIL",
            channel_connection_id=team.channels["EMAIL"].id,
            address=team.addresses["EMAIL"].address,
            body="x" * 1700,
            delivery_status="FAILED",
        )
        try:
            await resend(team, failed, kind)
            taken = True
        except (ChannelNotConnected, ContactOptedOut, TooLong, MessagingWindowClosed):
            taken = False
        assert taken is (kind in options), kind
    assert "EMAIL" in options


async def test_only_one_repetition_is_under_way_however_many_ask(team: Team) -> None:
    failed = await fails(team)
    ends = await asyncio.gather(*(resend(team, failed, "EMAIL") for _ in range(5)), return_exceptions=True)
    assert sorted(type(end).__name__ for end in ends) == ["Invalid"] * 4 + ["Message"]
    assert await Message.filter(retry_of_id=failed.id).count() == 1
    assert await offered(team, failed) == []


async def test_a_repetition_that_failed_too_may_be_repeated_and_one_that_arrived_may_not(team: Team) -> None:
    failed = await fails(team)
    second = await resend(team, failed)
    replace_vendor(team, "SMS", NO_NUMBER)
    await run_job("message.send", second.id)
    third = await resend(team, second, "EMAIL")
    assert third.retry_of_id == failed.id  # a family has one first
    replace_vendor(team, "EMAIL", SendResult(external_id="v-1"))
    await run_job("message.send", third.id)
    for one in (failed, second, third):
        with pytest.raises(Invalid):
            await resend(team, one)
        assert await offered(team, one) == []
    assert await Message.all().count() == 3


async def test_an_unknown_one_is_a_persons_decision_after_the_look_ups_or_needs_a_confirmation(team: Team) -> None:
    lost = await fails(team, error=CUT)
    assert lost.delivery_status == "UNKNOWN"
    before = await counts(*CHANGED)
    program = system_actor(team.account.id)
    for actor in (team.agent, program):
        with pytest.raises(ConfirmationRequired):
            await resend(team, lost, actor=actor)
    await Message.filter(id=lost.id).update(sending_at=datetime.now(UTC) - resending.LOOKED_UP)
    with pytest.raises(ConfirmationRequired):
        await resend(team, lost, actor=program)
    assert await counts(*CHANGED) == before
    again = await resend(team, lost)
    assert again.retry_of_id == lost.id
    replace_vendor(team, "SMS", CUT)
    await run_job("message.send", again.id)
    with pytest.raises(ConfirmationRequired):  # the second is unknown, too, and young
        await resend(team, lost)
    await resend(team, lost, confirm_possible_duplicate=True, actor=program)
    assert await Message.filter(retry_of_id=lost.id).count() == 2


@pytest.mark.parametrize("status", ["QUEUED", "SENDING", "SENT", "DELIVERED", "READ"])
async def test_what_has_not_failed_is_not_repeated(team: Team, status: str) -> None:
    sent = await send(team, "Hello")
    await Message.filter(id=sent.message.id).update(delivery_status=status)
    before = await counts(*CHANGED)
    with pytest.raises(Invalid):
        await resend(team, sent.message, confirm_possible_duplicate=True)
    assert await counts(*CHANGED) == before
    assert await offered(team, sent.message) == []


async def test_what_the_contact_wrote_is_not_repeated(team: Team) -> None:
    await team.hears("SMS", "Hi", "in-1")
    with pytest.raises(Invalid):
        await resend(team, await Message.get())


@pytest.mark.parametrize(("status", "refusal"), [("PAID", AlreadyPaid), ("VOID", AlreadyVoid)])
async def test_a_request_that_is_closed_is_not_asked_for_again(
    team: Team, status: str, refusal: type[Exception]
) -> None:
    request = await factories.payment_request(team.contact)
    failed = await fails(team, f"Pay {payment_links.checkout_url(request)}")
    await PaymentRequest.filter(id=request.id).update(status=status)
    with pytest.raises(refusal) as refused:
        await resend(team, failed, "EMAIL")
    assert refused.value.field == ("messageId",)  # type: ignore[attr-defined]
    assert await offered(team, failed) == []


async def test_a_text_that_is_too_long_there_is_the_channels_fault(team: Team) -> None:
    failed = await fails(team, "x" * 1700, "EMAIL")
    with pytest.raises(TooLong) as refused:
        await resend(team, failed, "SMS")
    assert refused.value.field == ("channelId",)


async def test_a_template_is_one_again_only_on_its_own_channel(team: Team) -> None:
    sent = await send(team, "Hello", "WHATSAPP", template=Template(id="HX1", variables=(("1", "Maya"),)))
    replace_vendor(team, "WHATSAPP", NO_NUMBER)
    await run_job("message.send", sent.message.id)
    assert (await offered(team, sent.message))[-1] == "WHATSAPP"
    by_mail = await resend(team, sent.message, "EMAIL")
    assert (by_mail.template_id, by_mail.body) == (None, "Hello")
    replace_vendor(team, "EMAIL", NO_NUMBER)
    await run_job("message.send", by_mail.id)
    again = await resend(team, sent.message, "WHATSAPP")
    assert (again.template_id, again.template_variables) == ("HX1", {"1": "Maya"})


async def test_a_colleagues_draft_stays(team: Team) -> None:
    failed = await fails(team)
    await Conversation.filter(id=team.conversation.id).update(draft="Dear Maya")
    await resend(team, failed)
    assert (await Conversation.get(id=team.conversation.id)).draft == "Dear Maya"


async def test_a_repeat_with_the_same_key_is_the_same_message(team: Team) -> None:
    failed = await fails(team)
    first, second = [await resend(team, failed, idempotency_key="one-and-the-same-key") for _ in range(2)]
    assert first.id == second.id
    with pytest.raises(IdempotencyKeyParameterMismatch):
        await resend(team, failed, "EMAIL", idempotency_key="one-and-the-same-key")


async def test_foreign_ids_and_viewers_are_refused(team: Team) -> None:
    failed = await fails(team)
    other = await factories.account()
    stranger = system_actor(other.id)
    with pytest.raises(NotFound):
        await resend(team, failed, actor=stranger)
    with pytest.raises(Forbidden):
        await resend(team, failed, actor=team.viewer)
    assert await Message.all().count() == 1


async def test_an_old_unknown_with_a_young_one_beside_it_waits(team: Team) -> None:
    lost = await fails(team, error=CUT)
    await Message.filter(id=lost.id).update(sending_at=datetime.now(UTC) - timedelta(hours=1))
    again = await resend(team, lost)
    with pytest.raises(Invalid):
        await resend(team, lost, confirm_possible_duplicate=True)
    assert again.delivery_status == "QUEUED"
