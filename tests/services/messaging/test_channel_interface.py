"""Optional features of channels: registration, blocks, invitation links, files by id, pacing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations import media
from integrations.base import (
    Blocking,
    ChannelKind,
    ChannelLimits,
    ChannelWebhook,
    DeliveryStatus,
    InboundMessage,
    IntegrationError,
    LengthUnit,
    MessageChange,
    SendResult,
    StatusUpdate,
    WebhookRequest,
    WrittenElsewhere,
)
from integrations.channels.simulated import Simulated
from models.errors import Invalid, TooLong
from models.ids import public_id, uuid7
from models.tables import Attachment, ChannelConnection, Contact, ContactAddress, Message, OptOut
from services.connections import availability, channel_settings, invitations, providers
from services.core import jobs
from services.messaging import attachments, blocks, composer, inbound
from tests import factories
from tests.configured import change_environment
from tests.services.conftest import BASE_URL, Team, kinds_logged
from tests.services.outgoing import replace_vendor, run_job, send

NOW = datetime.now(UTC)


# -------------------------------------------------------------------------------------------------------- registration
@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The simulator registers addresses: (address, the secret that it has from now on)."""
    told: list[tuple[str, str]] = []

    async def register(self: Simulated, url: str) -> Mapping[str, str]:
        secret = self._credentials.secret
        kept = secret if secret.startswith("made") else f"made-{len(told)}"
        told.append((url, kept))
        return {"secret": kept}

    monkeypatch.setattr(Simulated, "register_webhook", register, raising=False)
    return told


async def connect(team: Team, **more: Any) -> ChannelConnection:
    return await channel_settings.connect_channel(team.owner, kind="SMS", provider="simulated", **more)


async def test_connecting_registers_our_url_and_stores_the_answer(
    team: Team, registered: list[tuple[str, str]]
) -> None:
    row = await connect(team)
    assert registered == [(providers.inbound_url(row), "made-0")]
    assert registered[0][0] == f"{BASE_URL}/inbound/simulated/{public_id('chn', row.id)}"
    assert (providers.credentials_of(row), row.last_error) == ({"secret": "made-0"}, None)
    assert (await connect(team, connection_id=row.id, display_name="Texts")).display_name == "Texts"
    assert len(registered) == 1  # a new name is no reason to tell it again
    await channel_settings.disconnect_channel(team.owner, row.id)
    again = await connect(team, connection_id=row.id)
    assert (registered[1:], again.connected) == ([(registered[0][0], "made-0")], True)  # the secret stays


async def test_a_registration_that_is_refused_is_said_and_made_up_for_by_the_test(
    team: Team, registered: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    works = Simulated.register_webhook

    async def refuses(self: Simulated, url: str) -> None:
        raise IntegrationError("simulated", "refused", "token-of-the-vendor")

    monkeypatch.setattr(Simulated, "register_webhook", refuses)
    row = await connect(team)
    assert (row.connected, registered) == (True, [])
    assert f"(refused): add {providers.inbound_url(row)} there" in (row.last_error or "")
    assert "token-of-the-vendor" not in (row.last_error or "")
    monkeypatch.setattr(Simulated, "register_webhook", works)
    tested, refusal = await channel_settings.check_channel(team.owner, row.id)
    assert (refusal, tested.last_error, len(registered)) == (None, None, 1)
    await ChannelConnection.filter(id=row.id).update(last_webhook_at=NOW)
    await channel_settings.check_channel(team.owner, row.id)
    assert len(registered) == 1  # its callbacks arrive


async def test_no_url_is_registered_that_the_vendor_cannot_call(team: Team, registered: list[tuple[str, str]]) -> None:
    change_environment(public_url="http://10.0.0.1")
    row = await connect(team)
    assert registered == []
    assert "set PUBLIC_URL to an https address" in (row.last_error or "")


async def test_of_two_registrations_the_last_secret_of_the_vendor_is_the_stored_one(
    team: Team, registered: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = await connect(team)
    given = Simulated.register_webhook

    async def beside(self: Simulated, url: str) -> Mapping[str, str]:
        monkeypatch.setattr(Simulated, "register_webhook", given)
        stored = providers.sealed(team.account.id, {"secret": "made-by-another-call"})
        await ChannelConnection.filter(id=row.id).update(credentials=stored)
        registered.append((url, "made-and-lost"))
        return {"secret": "made-and-lost"}

    await channel_settings.disconnect_channel(team.owner, row.id)
    monkeypatch.setattr(Simulated, "register_webhook", beside)
    kept = await connect(team, connection_id=row.id)
    assert providers.credentials_of(kept)["secret"] == registered[-1][1] == "made-by-another-call"


async def test_the_same_credentials_are_not_connected_twice_where_the_vendor_calls_one_address(
    team: Team, registered: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "SELF_ISSUED", frozenset())
    first = await connect(team, credentials={"secret": "made-1"}, display_name="Texts")
    with pytest.raises(Invalid) as refused:
        await connect(team, credentials={"secret": "made-1"})
    assert (refused.value.field, refused.value.message.partition(":")[0]) == (
        ("credentials",),
        "Texts is connected with these credentials",
    )
    assert len(registered) == 1  # the first keeps its callbacks
    await connect(team, connection_id=first.id, credentials={"secret": "made-1"})
    await connect(team, credentials={"secret": "made-2"})
    await channel_settings.disconnect_channel(team.owner, first.id)
    assert (await connect(team, credentials={"secret": "made-1"})).id != first.id
    assert len(registered) == 4


# -------------------------------------------------------------------------------------------------------------- blocks
async def opted_out(team: Team) -> bool:
    return (await ContactAddress.get(id=team.addresses["SMS"].id)).opted_out_at is not None


async def block(team: Team, *, blocked: bool, at: datetime | None = None, address: str | None = None) -> None:
    told = Blocking(address=address or team.addresses["SMS"].address, blocked=blocked, occurred_at=at)
    await blocks.record(team.channels["SMS"], told)


async def test_a_block_opts_out_until_it_is_taken_back_and_says_so_once(team: Team) -> None:
    for _ in range(2):
        await block(team, blocked=True)
    assert await opted_out(team)
    assert await kinds_logged(team.account.id) == ["contact.updated"]
    assert await Message.all().count() == 0
    for _ in range(2):
        await block(team, blocked=False)
    assert not await opted_out(team)
    assert await kinds_logged(team.account.id) == ["contact.updated"] * 2


async def test_what_is_older_than_the_newest_block_or_its_end_changes_nothing(team: Team) -> None:
    now = datetime.now(UTC)
    told = [
        (True, 30, True),
        (False, 60, True),
        (True, 90, True),
        (False, 20, False),
        (True, 30, False),
        (True, 20, True),
    ]
    for blocked, minutes, after in told:
        await block(team, blocked=blocked, at=now - timedelta(minutes=minutes))
        assert await opted_out(team) is after, (blocked, minutes)
    assert await kinds_logged(team.account.id) == ["contact.updated"] * 3
    await block(team, blocked=False)  # a vendor that tells no times
    assert not await opted_out(team)
    await block(team, blocked=True, at=now + timedelta(days=365))
    await block(team, blocked=False, at=datetime.now(UTC) + timedelta(seconds=1))
    assert not await opted_out(team)
    stranger = "+14155550177"
    await block(team, blocked=True, at=now, address=stranger)
    await block(team, blocked=False, at=now - timedelta(hours=1), address=stranger)
    assert await OptOut.filter(address=stranger).count() == 1


async def test_the_end_of_a_block_takes_no_stop_back(team: Team) -> None:
    for said, stays in (("STOP", True), ("START", False)):
        await block(team, blocked=True)
        await team.hears("SMS", said, f"in-{said}")
        await block(team, blocked=False)
        assert await opted_out(team) is stays


async def test_a_refusal_as_blocked_ends_with_the_block(team: Team) -> None:
    replace_vendor(team, "SMS", IntegrationError("simulated", "opted_out", "Blocked."))
    await run_job("message.send", (await send(team, "Hello")).message.id)
    assert await opted_out(team)
    await block(team, blocked=False)
    assert not await opted_out(team)


async def test_a_block_that_is_older_than_what_the_contact_wrote_changes_nothing(team: Team) -> None:
    await team.hears("SMS", "I am back", "in-1")
    await block(team, blocked=True, at=NOW - timedelta(hours=1))
    assert not await opted_out(team)


async def test_a_block_by_an_unknown_address_counts_once_it_writes(team: Team) -> None:
    await block(team, blocked=True, address="+14155550177")
    assert await Contact.all().count() == 1
    await team.hears("SMS", "Hi", "in-1", sender="+14155550177")
    assert (await ContactAddress.get(address="+14155550177")).opted_out_at is not None


# --------------------------------------------------------------------------------------------------------- invitations
@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulator's chats can be opened by a link."""
    monkeypatch.setattr(
        Simulated, "deep_link", lambda _self, token: f"https://chat.example.test/acme?start={token}", raising=False
    )


async def invited(team: Team, kind: str = "MESSENGER") -> str | None:
    reaches = await availability.capabilities(team.agent, team.conversation)
    (url,) = [reach.invite_url for reach in reaches if reach.connection.kind == kind]
    return url


async def opens(team: Team, token: str, sender: str, n: int = 1, kind: str = "MESSENGER") -> Contact:
    said = InboundMessage(external_id=f"open-{sender}-{n}", sender=sender, body="/start", link_token=token)
    await inbound.store(team.channels[kind], said, datetime.now(UTC))
    held = await ContactAddress.get(account_id=team.account.id, kind=kind, address=sender)
    return await Contact.get(id=held.contact_id)


async def test_who_opens_an_invitation_is_the_contact_and_it_works_for_one_address(team: Team, linked: None) -> None:
    assert await invited(team) is None  # there is an address already
    await ContactAddress.filter(id=team.addresses["MESSENGER"].id).delete()
    url = await invited(team)
    assert url is not None
    assert url == await invited(team)  # a cache need not change
    assert await invited(team, "SMS") is None
    token = url.removeprefix("https://chat.example.test/acme?start=")
    assert len(token) == 48
    assert await opens(team, token, "9001") == await Contact.get(id=team.contact.id)
    assert await Message.filter(conversation_id=team.conversation.id).count() == 1
    assert await invited(team) is None
    # The next one to open it is another contact, also after the first has written again.
    assert (await opens(team, token, "9002")).id != team.contact.id
    assert (await opens(team, token, "9001", 2)).id == team.contact.id
    assert await Contact.all().count() == 2


async def test_an_invitation_holds_for_its_connection_its_contact_and_thirty_days(team: Team, linked: None) -> None:
    row = team.channels["MESSENGER"]
    channel = providers.channel(row)

    def token(**changes: Any) -> str:
        given: dict[str, Any] = {"connection": row.id, "contact": team.contact.id, "now": NOW, **changes}
        url = invitations.url(channel, given["connection"], given["contact"], given["now"])
        assert url is not None
        return url.rpartition("=")[2]

    good = token()
    assert invitations.contact_of(good, row.id, NOW) == team.contact.id
    assert invitations.contact_of(token(now=NOW - timedelta(days=30)), row.id, NOW) == team.contact.id
    other = await factories.account(name="Other")
    stranger = await factories.contact(other)
    forged = [
        "",
        "A" * 48,
        good[:-1],
        good[::-1],
        good[:47] + chr(ord(good[47]) ^ 1),
        good + "AAAA",
        "ü" * 48,
        "\ud83d",
    ]
    late = [token(now=NOW - timedelta(days=31)), token(connection=team.channels["SMS"].id)]
    assert [one for one in [*forged, *late] if invitations.contact_of(one, row.id, NOW) is not None] == []
    # A token for a contact of another account is worth nothing here.
    await ContactAddress.filter(id=team.addresses["MESSENGER"].id).delete()
    found = await opens(team, token(contact=stranger.id), "9003")
    assert (found.account_id, found.id in (stranger.id, team.contact.id)) == (team.account.id, False)
    assert (await opens(team, token(contact=uuid7()), "9004")).account_id == team.account.id


# --------------------------------------------------------------------------------------------------------------- files
async def test_a_file_that_is_named_by_an_id_is_asked_for_and_fetched_by_its_job(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    answers: list[Any] = [
        IntegrationError("simulated", "timeout", retryable=True),
        "https://files.example.test/token/1",
    ]

    async def media_url(self: Simulated, media_id: str) -> str:
        asked.append(media_id)
        answer = answers.pop(0)
        if isinstance(answer, IntegrationError):
            raise answer
        assert isinstance(answer, str)
        return answer

    async def fetch(url: str, **_: Any) -> bytes:
        asked.append(url)
        return b"\x89PNG\r\n\x1a\n" + bytes(20)

    def receive(self: Simulated, request: WebhookRequest) -> ChannelWebhook:
        files = ({"id": "file-1", "name": "a.png"}, {"id": "x" * 5000}, {"url": "id:file-2"})
        said = InboundMessage(external_id="in-1", sender=team.addresses["SMS"].address, body="", attachments=files)
        return ChannelWebhook(messages=(said,))

    monkeypatch.setattr(Simulated, "media_url", media_url, raising=False)
    monkeypatch.setattr(Simulated, "receive", receive)
    monkeypatch.setattr(media, "fetch", fetch)
    request = WebhookRequest(method="POST", public_url="", headers={}, body=b"", now=NOW)
    await inbound.receive("simulated", team.channels["SMS"].id, request)
    assert asked == []
    rows = await Attachment.all().order_by("n")
    assert [(row.status, row.reason) for row in rows] == [("PENDING", None), *[("FAILED", "not_given")] * 2]
    assert "file-1" not in (rows[0].source_url or "")
    job = jobs.JobContext(
        job_id=uuid7(),
        kind="attachment.fetch",
        payload={"attachment_id": str(rows[0].id)},
        account_id=team.account.id,
        attempt=1,
        last_attempt=False,
    )
    with pytest.raises(IntegrationError):
        await attachments.fetch(job)
    assert (await Attachment.get(id=rows[0].id)).status == "PENDING"
    await attachments.fetch(job)
    stored = await Attachment.get(id=rows[0].id)
    assert (stored.status, stored.name) == ("STORED", "a.png")
    assert stored.source_url is None
    assert asked == ["file-1", "file-1", "https://files.example.test/token/1"]


async def test_a_providers_times_without_a_zone_lose_nothing(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    naive = datetime(2026, 11, 27, 9, 0)  # noqa: DTZ001 (the provider's mistake)
    sender = team.addresses["SMS"].address

    def receive(self: Simulated, request: WebhookRequest) -> ChannelWebhook:
        said = InboundMessage(external_id="in-1", sender=sender, body="Hello", occurred_at=naive)
        later = dataclasses.replace(said, external_id="in-2", occurred_at=NOW, attachments=({"url": "\ud83d"},))
        return ChannelWebhook(
            statuses=(StatusUpdate(external_id="out-1", status=DeliveryStatus.READ, occurred_at=naive),),
            messages=(later, said),
            elsewhere=(
                WrittenElsewhere(external_id="el-1", recipient=sender, body="Hi", author="A", occurred_at=naive),
            ),
            changes=(MessageChange(external_id="in-1", body="Hello there", occurred_at=naive),),
            blockings=(Blocking(address=sender, blocked=True, occurred_at=naive),),
        )

    monkeypatch.setattr(Simulated, "receive", receive)
    request = WebhookRequest(method="POST", public_url="", headers={}, body=b"", now=NOW)
    for _ in range(2):
        await inbound.receive("simulated", team.channels["SMS"].id, request)
    stored = {row.external_id: row for row in await Message.all()}
    assert {id: row.body for id, row in stored.items()} == {
        "in-1": "Hello there",
        "in-2": "Hello",
        "el-1": "Hi",
    }
    assert stored["in-1"].occurred_at == NOW
    assert await opted_out(team)


# ------------------------------------------------------------------------------------------------------ limits and pace
async def test_one_recipients_messages_keep_their_pace_and_others_do_not_wait(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ChannelLimits(recipient_messages_per_s=0.01)
    monkeypatch.setattr(Simulated, "limits", lambda _self, _kind: limits)
    first, second = [(await send(team, f"Text {n}")).message.id for n in (1, 2)]
    vendor = replace_vendor(team, "SMS", *(SendResult(external_id=f"v-{n}") for n in (1, 2, 3)))
    vendor.limits = lambda kind: limits
    await run_job("message.send", first)
    with pytest.raises(jobs.Later) as later:
        await run_job("message.send", second)
    assert 60 < later.value.delay_s <= 100
    assert [one.body for one in vendor.sent] == ["Text 1"]
    stranger = await factories.contact(team.account)
    await factories.contact_address(stranger, "SMS", address="+14155550188")
    other = await factories.conversation(stranger)
    team.conversation = other
    await run_job("message.send", (await send(team, "Text 3")).message.id)
    assert [one.body for one in vendor.sent] == ["Text 1", "Text 3"]
    await Message.filter(id=first).update(sending_at=NOW - timedelta(seconds=101))
    await run_job("message.send", second)
    assert [one.body for one in vendor.sent] == ["Text 1", "Text 3", "Text 2"]


@pytest.mark.parametrize(
    ("unit", "fits", "long"),
    [
        (LengthUnit.CHARACTERS, "👍é12", "👍é123"),
        (LengthUnit.UTF16_UNITS, "👍é1", "👍é12"),
        (LengthUnit.BYTES, "👍", "👍1"),
    ],
)
def test_a_limit_counts_in_the_vendors_unit(
    unit: LengthUnit, fits: str, long: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ChannelLimits(max_length=4, length_unit=unit)
    monkeypatch.setattr(availability, "limits_of", lambda _row: limits)
    row = ChannelConnection(kind=ChannelKind.CUSTOM.value, provider="x")
    composer.refuse_long(fits, row, field="body")
    assert (composer.measure(fits, row).length, composer.measure(long, row).unit) == (4, unit)
    with pytest.raises(TooLong, match="at most 4"):
        composer.refuse_long(long, row, field="body")
    assert limits.length_of("\ud83d") in (1, 3)  # half a pair is counted, not a crash
