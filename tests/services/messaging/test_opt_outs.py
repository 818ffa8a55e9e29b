"""Opt-outs per sender, and the answers to STOP, START and HELP."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime

import pytest

from integrations.base import IntegrationError
from models.errors import ContactOptedOut, NotFound
from models.tables import ChannelConnection, ContactAddress, Message, OptOut
from services.connections import providers
from services.messaging import contacts, inbound, opt_outs
from services.thread import payment_links
from tests import factories
from tests.services.conftest import Team, kinds_logged
from tests.services.outgoing import replace_vendor, run_job, send

SECOND = "SECOND"


@pytest.fixture
async def numbers(team: Team) -> Team:
    """The team with a second number for text messages."""
    team.channels[SECOND] = await factories.channel_connection(team.account, "SMS", sender="+14155550199")
    return team


async def says(team: Team, text: str, external_id: str, number: str = "SMS") -> None:
    """The contact writes to one of our numbers."""
    await team.hears(number, text, external_id, sender=team.addresses["SMS"].address)


async def refused(team: Team, number: str) -> bool:
    try:
        await send(team, "Hello", number)
    except ContactOptedOut:
        return True
    return False


async def test_a_stop_to_one_number_is_not_evaded_by_another(numbers: Team) -> None:
    await says(numbers, "Stop.", "in-1")
    row = await OptOut.get()
    said = (numbers.channels["SMS"].id, "SMS", numbers.addresses["SMS"].address)
    assert (row.channel_connection_id, row.kind, row.address) == said
    assert [await refused(numbers, number) for number in ("SMS", SECOND, "EMAIL")] == [True, True, False]


async def test_start_takes_back_the_stop_of_its_own_number_only(numbers: Team) -> None:
    await says(numbers, "STOP", "in-1")
    await says(numbers, "stop all", "in-2", SECOND)
    await says(numbers, "start", "in-3")
    assert [await refused(numbers, number) for number in ("SMS", SECOND)] == [True, True]
    assert [row.channel_connection_id for row in await OptOut.all()] == [numbers.channels[SECOND].id]
    await says(numbers, "UNSTOP", "in-4", SECOND)
    assert [await refused(numbers, number) for number in ("SMS", SECOND)] == [False, False]
    # One when the address was opted out, one when it was no more: what changed for those who look at it.
    assert (await kinds_logged(numbers.account.id)).count("contact.updated") == 2


async def test_a_start_to_a_number_that_was_never_stopped_changes_nothing(numbers: Team) -> None:
    await says(numbers, "STOP", "in-1")
    await says(numbers, "START", "in-2", SECOND)
    assert await refused(numbers, "SMS")
    assert await OptOut.all().count() == 1


async def test_an_opt_out_of_before_senders_were_kept_is_lifted_by_any_start(numbers: Team) -> None:
    await ContactAddress.filter(id=numbers.addresses["SMS"].id).update(opted_out_at=datetime.now(UTC))
    await says(numbers, "YES", "in-1", SECOND)
    assert not await refused(numbers, "SMS")


async def test_concurrent_stops_are_one(numbers: Team) -> None:
    await asyncio.gather(*(says(numbers, "STOP", f"in-{n}") for n in range(6)))
    assert await OptOut.all().count() == 1
    assert await Message.all().count() == 6  # a stop is answered with nothing


async def test_the_vendors_refusal_counts_for_its_sender(numbers: Team) -> None:
    sent = await send(numbers, "Hello", SECOND)
    replace_vendor(numbers, SECOND, IntegrationError("v", "opted_out", "Unsubscribed.", code="21610"))
    await run_job("message.send", sent.message.id)
    assert (await OptOut.get()).channel_connection_id == numbers.channels[SECOND].id
    assert await refused(numbers, "SMS")


async def test_another_address_is_not_bound_by_what_the_old_one_said(numbers: Team) -> None:
    await says(numbers, "STOP", "in-1")
    await contacts.update_contact(numbers.agent, numbers.contact.id, changes={"addresses": [("SMS", "+14155552222")]})
    assert await OptOut.all().count() == 1  # of the old one
    assert not await refused(numbers, "SMS")
    await numbers.hears("SMS", "STOP", "in-2", sender="+14155552222")
    await numbers.hears("SMS", "START", "in-3", sender="+14155552222")
    assert not await refused(numbers, "SMS")


# --------------------------------------------------------------------------------------------------------------- HELP
async def test_help_is_answered_once_with_the_business_and_the_way_out(team: Team) -> None:
    await type(team.account).filter(id=team.account.id).update(contact_email="hi@acme.test", contact_phone=None)
    for _ in range(2):
        await says(team, "Help!", "in-1")
    heard, answer = await Message.all().order_by("seq")
    assert (heard.direction, answer.direction, answer.delivery_status) == ("INBOUND", "OUTBOUND", "QUEUED")
    assert answer.body == (
        "Acme Cleaning: messages about your requests and payments. Contact us at hi@acme.test."
        " Reply STOP to get no more messages."
    )
    assert answer.author_id is None
    assert answer.address == team.addresses["SMS"].address


@pytest.mark.parametrize(
    ("kind", "answers"), [("SMS", 1), ("WHATSAPP", 1), ("EMAIL", 0), ("MESSENGER", 0), ("WEB_CHAT", 0)]
)
async def test_help_is_a_keyword_on_phones_only(team: Team, kind: str, answers: int) -> None:
    await team.hears(kind, "HELP", "in-1")
    assert await Message.filter(direction="OUTBOUND").count() == answers


async def test_who_asks_for_help_on_and_on_is_answered_once_in_a_while(numbers: Team) -> None:
    for n in range(5):
        await says(numbers, "HELP", f"in-{n}")
    await says(numbers, "HELP", "in-5", SECOND)  # the other number has its own answer
    answers = Message.filter(direction="OUTBOUND")
    assert await answers.count() == 2
    await answers.update(occurred_at=datetime.now(UTC) - inbound.HELP_AGAIN)
    await says(numbers, "HELP", "in-6")
    assert (await Message.filter(direction="INBOUND").count(), await Message.filter(direction="OUTBOUND").count()) == (
        7,
        3,
    )


async def test_help_is_not_answered_to_who_opted_out_nor_where_the_vendor_did(team: Team) -> None:
    await says(team, "STOP", "in-1")
    await says(team, "HELP", "in-2")
    vendor = replace_vendor(team, "WHATSAPP")
    receive = vendor.receive

    def answered(request: object) -> object:
        found = receive(request)  # type: ignore[arg-type]
        return dataclasses.replace(
            found, messages=[dataclasses.replace(one, help_answered=True) for one in found.messages]
        )

    vendor.receive = answered  # type: ignore[assignment]
    await team.hears("WHATSAPP", "HELP", "in-3")
    assert await Message.filter(direction="INBOUND").count() == 3
    assert await Message.filter(direction="OUTBOUND").count() == 0


# -------------------------------------------------------------------------------------------------------- unsubscribe
async def address_on_a_letter(team: Team) -> str:
    sent = await send(team, "Hello", "EMAIL")
    return opt_outs.unsubscribe_url(sent.message)


async def test_an_unsubscribe_link_opts_its_contact_out_of_mail_and_of_nothing_else(team: Team) -> None:
    url = await address_on_a_letter(team)
    token = url.removeprefix(payment_links.absolute("/unsubscribe/"))
    name, message = await opt_outs.written_by(token)
    assert (name, message.address) == ("Acme Cleaning", team.addresses["EMAIL"].address)
    assert await OptOut.all().count() == 0
    assert [await opt_outs.unsubscribe(token) for _ in range(2)] == ["Acme Cleaning"] * 2
    assert await OptOut.all().count() == 1
    assert [await refused(team, kind) for kind in ("EMAIL", "SMS")] == [True, False]
    assert (await kinds_logged(team.account.id)).count("contact.updated") == 1


async def test_a_stop_follows_its_address_and_not_its_contact(team: Team) -> None:
    stopped = team.addresses["EMAIL"].address
    token = (await address_on_a_letter(team)).rpartition("/")[2]
    await contacts.update_contact(team.agent, team.contact.id, changes={"email": "other@example.com"})
    await opt_outs.unsubscribe(token)  # of a letter to the address of before
    assert await refused(team, "EMAIL") is False
    await contacts.update_contact(team.agent, team.contact.id, changes={"email": stopped})
    assert await refused(team, "EMAIL") is True
    await contacts.update_contact(team.agent, team.contact.id, changes={"email": "other@example.com"})
    again = await contacts.create_contact(team.agent, name="Maria again", email=stopped, phone=None, addresses=[])
    assert (await ContactAddress.get(contact_id=again.id, kind="EMAIL")).opted_out_at is not None


async def test_a_link_that_we_did_not_make_changes_nothing(team: Team) -> None:
    token = (await address_on_a_letter(team)).rpartition("/")[2]
    first, later = ("A" if token[n] != "A" else "B" for n in (0, -2))  # two bits of the last letter mean nothing
    for bad in (
        first + token[1:],
        token[:-2] + later + token[-1],
        token[:-2],
        token + "AA",
        "",
        "x",
        "ä" * 64,
        "!" * 64,
    ):
        with pytest.raises(NotFound):
            await opt_outs.unsubscribe(bad)
    assert await OptOut.all().count() == 0


async def test_every_email_has_an_unsubscribe_link_and_no_other_message_does(team: Team) -> None:
    for kind, there in (("EMAIL", True), ("SMS", False)):
        sent = await send(team, "Hello", kind)
        vendor = replace_vendor(team, kind, IntegrationError("v", "refused"))
        await run_job("message.send", sent.message.id)
        assert (vendor.sent[0].unsubscribe_url is not None) is there


async def test_a_channel_that_is_gone_from_the_settings_still_takes_the_unsubscribe(team: Team) -> None:
    token = (await address_on_a_letter(team)).rpartition("/")[2]
    await ChannelConnection.filter(id=team.channels["EMAIL"].id).update(connected=False)
    await opt_outs.unsubscribe(token)
    assert (await ContactAddress.get(id=team.addresses["EMAIL"].id)).opted_out_at is not None
    assert providers.usable_channel(team.channels["EMAIL"]) is not None
