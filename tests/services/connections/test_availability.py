"""Why a channel is closed, in order, and what would help. All combinations: tests/flows/test_composer.py."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from integrations.base import ChannelKind, ChannelLimits, Environment
from integrations.channels import simulated
from models import database as db
from models import errors, rows
from models.tables import ChannelConnection, ContactAddress, Message, ProcessorConnection
from services.connections import availability, providers
from services.core import job_runner
from services.core.permissions import Actor, system_actor
from services.messaging import messages
from services.thread import payment_links
from tests import factories
from tests.configured import change
from tests.services.conftest import Team, actor_of

NOW = datetime.now(UTC)


async def reach(team: Team, kind: str = "SMS", actor: Actor | None = None) -> availability.Reach:
    found = await availability.capabilities(actor or team.agent, team.conversation)
    return next(reach for reach in found if reach.connection.kind == kind)


async def of(team: Team, kind: str = "SMS", actor: Actor | None = None) -> availability.Capability:
    return (await reach(team, kind, actor)).payment_requests


async def helped(team: Team, kind: str = "SMS", actor: Actor | None = None) -> tuple[list[str], list[str]]:
    found = await reach(team, kind, actor)
    return [one.kind for one in found.messages.help], [one.kind for one in found.payment_requests.help]


async def disconnect(team: Team, kind: str = "SMS") -> None:
    row = team.channels[kind]
    await ChannelConnection.filter(id=row.id).update(connected=False)
    row.connected = False


async def without_processor(team: Team) -> None:
    await ProcessorConnection.filter(account_id=team.account.id).update(connected=False)


async def without_address(team: Team, kind: str = "SMS") -> None:
    await ContactAddress.filter(id=team.addresses[kind].id).delete()


async def opted_out(team: Team, kind: str = "SMS") -> None:
    await ContactAddress.filter(id=team.addresses[kind].id).update(opted_out_at=NOW)


async def test_a_reachable_contact_is_enabled_on_channels_without_window(team: Team) -> None:
    reaches = await availability.capabilities(team.agent, team.conversation)
    found = {reach.connection.kind: reach.payment_requests for reach in reaches}
    assert found == {
        reach.connection.kind: dataclasses.replace(reach.messages, help=reach.payment_requests.help)
        for reach in reaches
    }
    assert {kind: (able.supported, able.enabled, able.reason) for kind, able in found.items()} == {
        "SMS": (True, True, None),
        "EMAIL": (True, True, None),
        "WEB_CHAT": (True, True, None),
        "WHATSAPP": (True, False, "MESSAGING_WINDOW_CLOSED"),
        "INSTAGRAM_DM": (True, False, "MESSAGING_WINDOW_CLOSED"),
        "MESSENGER": (True, False, "MESSAGING_WINDOW_CLOSED"),
    }
    assert {kind: (able.max_message_length, able.length_unit) for kind, able in found.items()} == {
        "SMS": (1600, "CHARACTERS"),
        "EMAIL": (None, "CHARACTERS"),
        "WEB_CHAT": (4000, "CHARACTERS"),
        "WHATSAPP": (1600, "CHARACTERS"),
        "INSTAGRAM_DM": (1000, "BYTES"),
        "MESSENGER": (2000, "CHARACTERS"),
    }
    assert [kind for kind, able in found.items() if able.needs_subject] == ["EMAIL"]


async def test_the_first_failing_reason_wins_in_the_published_order(team: Team) -> None:
    await opted_out(team, "WHATSAPP")
    assert (await of(team, "WHATSAPP")).reason == "CONTACT_OPTED_OUT"
    await without_address(team, "WHATSAPP")
    assert (await of(team, "WHATSAPP")).reason == "CONTACT_HAS_NO_ADDRESS"
    assert (await of(team, "WHATSAPP", team.viewer)).reason == "FORBIDDEN"
    await without_processor(team)
    assert (await of(team, "WHATSAPP", team.viewer)).reason == "NO_PROCESSOR_CONFIGURED"
    await disconnect(team, "WHATSAPP")
    assert (await of(team, "WHATSAPP", team.viewer)).reason == "CHANNEL_NOT_CONNECTED"


@pytest.mark.parametrize("kind", ["WHATSAPP", "INSTAGRAM_DM", "MESSENGER"])
async def test_a_window_is_open_for_24_hours_after_the_contacts_last_message(team: Team, kind: str) -> None:
    row = team.channels[kind]
    for age, enabled in ((timedelta(hours=23, minutes=59), True), (timedelta(hours=24), False)):
        await ContactAddress.filter(id=team.addresses[kind].id).update(last_inbound_at=NOW - age)
        able = await availability.capability(team.agent, team.conversation, row, payment_request=True, now=NOW)
        closes_at = NOW - age + timedelta(hours=24) if enabled else None
        assert (able.enabled, able.window_closes_at) == (enabled, closes_at)


@pytest.fixture
def longer_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = ChannelLimits(window_hours=24, person_window_hours=168)
    monkeypatch.setitem(simulated.LIMITS, ChannelKind.MESSENGER, limits)


@pytest.mark.usefixtures("longer_for_people")
async def test_a_person_may_answer_longer_than_a_program(team: Team) -> None:
    row = team.channels["MESSENGER"]
    key = dataclasses.replace(team.agent, kind="api_key", user_id=None)
    system = system_actor(team.account.id)
    for age, person, program in (
        (timedelta(hours=23), True, True),
        (timedelta(hours=24), True, False),
        (timedelta(hours=167), True, False),
        (timedelta(hours=168), False, False),
    ):
        await ContactAddress.filter(id=team.addresses["MESSENGER"].id).update(last_inbound_at=NOW - age)
        for actor, by_person, enabled, hours in (
            (team.agent, None, person, 168),
            (key, None, program, 24),
            (system, None, program, 24),
            (system, True, person, 168),  # the job that hands over what a person wrote
            (team.agent, False, program, 24),
        ):
            able = await availability.capability(
                actor, team.conversation, row, payment_request=True, now=NOW, by_person=by_person
            )
            closes_at = NOW - age + timedelta(hours=hours) if enabled else None
            assert (able.enabled, able.window_closes_at) == (enabled, closes_at)


@pytest.mark.usefixtures("longer_for_people")
@pytest.mark.parametrize("kind", ["user", "api_key"])
async def test_what_the_icon_promises_a_person_still_holds_when_the_job_runs(
    team: Team, kind: Literal["user", "api_key"]
) -> None:
    heard = datetime.now(UTC) - timedelta(hours=23, minutes=59)
    await ContactAddress.filter(id=team.addresses["MESSENGER"].id).update(last_inbound_at=heard)
    by = {"user": team.agent, "api_key": dataclasses.replace(team.agent, kind="api_key", user_id=None)}[kind]
    sent = await send(team, "MESSENGER", "Hello", by)
    await ContactAddress.filter(id=team.addresses["MESSENGER"].id).update(last_inbound_at=heard - timedelta(hours=1))
    assert (await of(team, "MESSENGER", by)).enabled is (kind == "user")
    await job_runner.Runner().run_due()
    row = await Message.get(id=sent.message.id)
    expected = ("SENT", None) if kind == "user" else ("FAILED", "MESSAGING_WINDOW_CLOSED")
    assert (row.delivery_status, row.error_code) == expected


async def test_the_sandbox_and_the_simulator_count_only_where_they_are_open(team: Team) -> None:
    change(environment=Environment(public_url="https://x.test", sandbox_url="https://x.test"), sandbox_open=False)
    assert await providers.default_processor(team.account.id) is None
    assert (await of(team)).reason == "CHANNEL_NOT_CONNECTED"


async def test_a_plug_in_that_is_gone_is_not_supported_and_refused(team: Team) -> None:
    await ChannelConnection.filter(id=team.channels["SMS"].id).update(provider="carrier_pigeon")
    able = await of(team)
    assert (able.supported, able.enabled, able.reason) == (False, False, "CHANNEL_NOT_SUPPORTED")
    assert able.sentence == errors.ChannelNotSupported().message
    with pytest.raises(errors.ChannelNotSupported):
        await send(team, "SMS", "Hello")


async def test_unreadable_credentials_do_not_break_the_list(team: Team) -> None:
    await ChannelConnection.filter(id=team.channels["SMS"].id).update(credentials="broken")
    found = await availability.capabilities(team.agent, team.conversation)
    assert len(found) == 6
    assert [reach.connection.kind for reach in found if not reach.messages.supported] == ["SMS"]


async def send(team: Team, kind: str, body: str, actor: Actor | None = None) -> Any:
    return await messages.send_message(
        actor or team.agent, conversation_id=team.conversation.id, channel_id=team.channels[kind].id, body=body
    )


BREAKERS = {
    "CHANNEL_NOT_CONNECTED": (disconnect, errors.ChannelNotConnected),
    "NO_PROCESSOR_CONFIGURED": (without_processor, errors.NoProcessorConfigured),
    "CONTACT_HAS_NO_ADDRESS": (without_address, errors.ContactHasNoAddress),
    "CONTACT_OPTED_OUT": (opted_out, errors.ContactOptedOut),
}


@pytest.mark.parametrize("reason", sorted(BREAKERS))
async def test_icon_off_means_that_sending_is_refused_for_the_same_reason(team: Team, reason: str) -> None:
    request = await factories.payment_request(team.contact)
    link = payment_links.checkout_url(request)
    breaks, refusal = BREAKERS[reason]
    await breaks(team)
    assert (await of(team)).reason == reason
    with pytest.raises(refusal) as refused:
        await send(team, "SMS", f"Pay {link}")
    assert refused.value.code == reason
    assert await Message.all().count() == 0


async def test_icon_on_means_that_it_can_be_sent_on_every_channel(team: Team) -> None:
    for kind in team.channels:
        await team.hears(kind, "hi", f"in-{kind}")
        assert (await of(team, kind)).enabled
        request = await factories.payment_request(team.contact)
        assert len((await send(team, kind, f"Pay {payment_links.checkout_url(request)}")).cards) == 1


async def test_a_message_that_asks_for_no_money_needs_no_processor(team: Team) -> None:
    await without_processor(team)
    await send(team, "SMS", "Hello")
    assert await Message.all().count() == 1


async def test_many_conversations_cost_as_many_queries_as_one(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    find = rows.find

    async def counted(model: Any, rest: str, *args: object, lock: bool = False) -> Any:
        asked.append(model.__name__)
        return await find(model, rest, *args, lock=lock)

    others = [
        await factories.conversation(contact) for contact in [await factories.contact(team.account) for _ in range(20)]
    ]
    monkeypatch.setattr(rows, "find", counted)
    await availability.capabilities(team.agent, team.conversation)
    one = list(asked)
    asked.clear()
    found = await availability.capabilities_of(team.agent, [team.conversation, *others])
    assert asked == one == ["ChannelConnection", "ProcessorConnection", "ContactAddress"]
    assert len(found) == 21
    assert {reach.messages.reason for reach in found[others[0].id]} == {"CONTACT_HAS_NO_ADDRESS"}
    assert not db.in_transaction()


async def test_another_accounts_addresses_and_channels_never_count(team: Team) -> None:
    stranger = actor_of(await factories.user(await factories.account()))
    assert await availability.capabilities(stranger, team.conversation) == []


# ----------------------------------------------------------------------------------------------------- what would help
async def test_what_is_on_needs_no_help(team: Team) -> None:
    able = await of(team)
    assert (able.enabled, able.reason, able.sentence, list(able.help)) == (True, None, None, [])


@pytest.mark.parametrize("reason", sorted(BREAKERS))
async def test_the_sentence_is_what_the_refusal_says(team: Team, reason: str) -> None:
    breaks, refusal = BREAKERS[reason]
    await breaks(team)
    assert (await of(team)).sentence == refusal().message


async def test_each_reason_has_its_help_best_first(team: Team) -> None:
    assert await helped(team, "MESSENGER") == (
        ["OTHER_CHANNEL", "WAIT_FOR_CONTACT"],
        ["OTHER_CHANNEL", "WAIT_FOR_CONTACT", "COPY_LINK"],
    )
    await opted_out(team)
    assert await helped(team) == (
        ["OTHER_CHANNEL", "WAIT_FOR_CONTACT"],
        ["OTHER_CHANNEL", "WAIT_FOR_CONTACT", "COPY_LINK"],
    )
    await without_address(team)
    assert await helped(team) == (["OTHER_CHANNEL", "ADD_ADDRESS"], ["OTHER_CHANNEL", "ADD_ADDRESS", "COPY_LINK"])
    # An address that only the vendor gives can't be added.
    await without_address(team, "INSTAGRAM_DM")
    assert (await helped(team, "INSTAGRAM_DM"))[0] == ["OTHER_CHANNEL", "WAIT_FOR_CONTACT"]
    await disconnect(team)
    assert (await helped(team))[1] == ["OTHER_CHANNEL", "ASK_ROLE", "COPY_LINK"]
    assert (await helped(team, actor=team.owner))[1] == ["OTHER_CHANNEL", "CONNECT_CHANNEL", "COPY_LINK"]


async def test_without_a_processor_nothing_but_a_processor_helps(team: Team) -> None:
    await without_processor(team)
    assert await helped(team) == ([], ["ASK_ROLE"])
    assert await helped(team, actor=team.owner) == ([], ["CONNECT_PROCESSOR"])
    # The channel is asked first; its link could not be paid anyhow, and so is not worth copying.
    await disconnect(team)
    assert await helped(team) == (["OTHER_CHANNEL", "ASK_ROLE"], ["ASK_ROLE"])


async def test_who_may_not_write_is_sent_to_somebody_who_may(team: Team) -> None:
    assert await helped(team, actor=team.viewer) == (["ASK_ROLE"], ["ASK_ROLE"])


async def test_a_template_helps_first_where_the_channel_has_them(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = ChannelLimits(window_hours=24, templates=True)
    monkeypatch.setitem(simulated.LIMITS, ChannelKind.WHATSAPP, limits)
    able = await of(team, "WHATSAPP")
    assert (able.enabled, able.reason, able.templates) == (False, "MESSAGING_WINDOW_CLOSED", True)
    assert [one.kind for one in able.help] == ["TEMPLATE", "OTHER_CHANNEL", "WAIT_FOR_CONTACT", "COPY_LINK"]
    await team.hears("WHATSAPP", "hi", "in-1")
    able = await of(team, "WHATSAPP")
    assert (able.enabled, able.templates, list(able.help)) == (True, True, [])
    await opted_out(team, "WHATSAPP")
    able = await of(team, "WHATSAPP")
    assert (able.templates, able.help[0].kind) == (False, "OTHER_CHANNEL")


async def test_the_other_channel_is_open_and_where_the_contact_wrote_last(team: Team) -> None:
    async def other() -> ChannelConnection:
        (found,) = [one for one in (await of(team, "MESSENGER")).help if one.kind == "OTHER_CHANNEL"]
        row = await ChannelConnection.get(id=found.channel_id)
        assert found.sentence == f"Use {row.display_name} instead."
        return row

    for kind in ("EMAIL", "WEB_CHAT", "INSTAGRAM_DM"):
        await team.hears(kind, "hi", f"in-{kind}")
        assert (await other()).kind == kind
    await opted_out(team, "INSTAGRAM_DM")
    assert (await other()).kind == "WEB_CHAT"
    # A second number of the same kind comes before another kind.
    await disconnect(team, "WEB_CHAT")
    second = await factories.channel_connection(team.account, "WEB_CHAT", display_name="The other site")
    (found,) = [one for one in (await of(team, "WEB_CHAT")).help if one.kind == "OTHER_CHANNEL"]
    assert found.channel_id == second.id
