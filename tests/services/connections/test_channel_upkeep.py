"""Background calls to a channel's vendor: contact names and renewed credentials."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from integrations.base import Environment, InboundMessage, IntegrationError, WrittenElsewhere
from models.tables import AuditEntry, ChannelConnection, Contact, Job
from services.connections import credential_renewal, providers
from services.core import jobs
from services.messaging import contact_names, inbound
from tests import factories
from tests.configured import change
from tests.contracts.meta_server import (
    ACCESS_TOKEN,
    APP_SECRET,
    INSTAGRAM_ID,
    PAGE_ID,
    VERIFY_TOKEN,
    MetaServer,
    our_contract,
)
from tests.contracts.openapi import Contract
from tests.services.conftest import BASE_URL, Team, kinds_logged

WHO = "24000000000000077"


@pytest.fixture
async def meta(team: Team) -> AsyncIterator[MetaServer]:
    async with MetaServer(Contract(our_contract(), name="ours")) as server:
        change(
            environment=Environment(
                public_url=BASE_URL, sandbox_url=BASE_URL, base_addresses={"meta": server.url}, timeout_s=5.0
            )
        )
        secrets = {"access_token": ACCESS_TOKEN, "app_secret": APP_SECRET, "verify_token": VERIFY_TOKEN}
        for kind, account in (("MESSENGER", PAGE_ID), ("INSTAGRAM_DM", INSTAGRAM_ID)):
            team.channels[kind] = await factories.channel_connection(
                team.account,
                kind,
                provider="meta_messenger",
                credentials={"account_id": account, **secrets},
            )
        yield server
        await providers.aclose()
        assert server.violations == []


async def hears(team: Team, n: int = 1, kind: str = "MESSENGER", sender: str = WHO) -> Contact:
    message = InboundMessage(external_id=f"m_{n}", sender=sender, body="Hi")
    await inbound.store(team.channels[kind], message, datetime.now(UTC))
    return await Contact.filter(account_id=team.account.id).order_by("-id").first()  # type: ignore[return-value]


async def run(*, last: bool = False) -> None:
    job = await Job.get(kind="contact.name")
    await contact_names._name_job(
        jobs.JobContext(
            job_id=job.id, kind=job.kind, payload=job.payload, account_id=job.account_id, attempt=1, last_attempt=last
        )
    )


async def test_a_new_contact_gets_its_name_from_the_profile_by_one_job(team: Team, meta: MetaServer) -> None:
    meta.people[WHO] = {"name": "Dana\ud83d Diaz"}
    made = await hears(team)
    await hears(team, 2)
    assert made.name == WHO
    assert await Job.filter(kind="contact.name").count() == 1
    assert meta.operations() == []  # nothing is asked in the transaction
    await run()
    assert (await Contact.get(id=made.id)).name == "Dana\ufffd Diaz"
    assert (await kinds_logged(team.account.id))[-1] == "contact.updated"
    await run()
    assert meta.operations() == ["readProfile"]


async def test_a_name_that_a_person_typed_stays(team: Team, meta: MetaServer) -> None:
    meta.people[WHO] = {"name": "Dana Diaz"}
    made = await hears(team)
    await Contact.filter(id=made.id).update(name="Mrs Diaz")
    await run()
    assert ((await Contact.get(id=made.id)).name, meta.operations()) == ("Mrs Diaz", [])
    await hears(team, 2)
    known = await Contact.get(id=team.contact.id)
    await hears(team, 3, sender=team.addresses["MESSENGER"].address)
    assert (await Contact.get(id=known.id)).name == known.name
    assert await Job.filter(kind="contact.name").count() == 1


async def test_a_profile_that_cant_be_read_harms_nothing(team: Team, meta: MetaServer) -> None:
    made = await hears(team)
    await run()  # Meta refuses: not retried
    meta.fail_next("drop")
    with pytest.raises(IntegrationError):
        await run()
    meta.fail_next("drop")
    await run(last=True)
    assert (await Contact.get(id=made.id)).name == WHO
    assert (await Job.get(kind="contact.name")).max_attempts == contact_names.ATTEMPTS


async def test_a_contact_that_a_colleague_wrote_to_first_is_named_too_and_the_simulator_is_not_asked(
    team: Team, meta: MetaServer
) -> None:
    await hears(team, kind="SMS", sender="+14155557777")
    assert await Job.filter(kind="contact.name").count() == 0
    echo = WrittenElsewhere(external_id="m_9", recipient=WHO, body="Hello", author="Meta inbox")
    await inbound._store_elsewhere(team.channels["INSTAGRAM_DM"], echo, datetime.now(UTC))
    meta.people[WHO] = {"username": "dana.diaz"}
    await run()
    assert await Contact.filter(name="dana.diaz").count() == 1


async def test_an_instagram_logins_token_is_replaced_once_and_used(team: Team, meta: MetaServer) -> None:
    row = team.channels["INSTAGRAM_DM"]
    assert await credential_renewal.renew(row)
    fresh = await ChannelConnection.get(id=row.id)
    held = providers.credentials_of(fresh)
    assert (held["access_token"], held["app_secret"], fresh.version) == (meta.next_token, APP_SECRET, row.version + 1)
    assert not await credential_renewal.renew(fresh)  # 60 days left
    assert not await credential_renewal.renew(team.channels["MESSENGER"])
    assert meta.operations() == ["renewToken"]
    entry = await AuditEntry.get(action="channel.renewed")
    assert entry.detail == {"changed": ["access_token", "token_ends"]}


async def test_credentials_that_a_person_gives_meanwhile_stay(team: Team, meta: MetaServer) -> None:
    row = team.channels["INSTAGRAM_DM"]
    given = providers.credentials_of(row) | {"access_token": "given by a person"}
    await ChannelConnection.filter(id=row.id).update(credentials=providers.sealed(team.account.id, given))
    assert not await credential_renewal.renew(row)
    assert providers.credentials_of(await ChannelConnection.get(id=row.id)) == given


async def test_a_new_name_meanwhile_does_not_lose_the_renewed_token(team: Team, meta: MetaServer) -> None:
    row = team.channels["INSTAGRAM_DM"]
    await ChannelConnection.filter(id=row.id).update(display_name="Renamed", version=row.version + 1)
    assert await credential_renewal.renew(row)
    now = await ChannelConnection.get(id=row.id)
    assert (now.display_name, now.version) == ("Renamed", row.version + 2)
    assert providers.credentials_of(now)["access_token"] == meta.next_token


async def test_a_token_that_has_ended_is_told_at_the_channel(team: Team, meta: MetaServer) -> None:
    row = team.channels["INSTAGRAM_DM"]
    lost = providers.sealed(team.account.id, {**providers.credentials_of(row), "access_token": "ended"})
    await ChannelConnection.filter(id=row.id).update(credentials=lost, version=row.version + 1)
    assert not await credential_renewal.renew(await ChannelConnection.get(id=row.id))
    kept = await ChannelConnection.get(id=row.id)
    assert kept.last_error == "The access token has ended or was withdrawn: connect the channel again."
    await credential_renewal._renew_job(
        jobs.JobContext(
            job_id=row.id, kind="channels.renew", payload={}, account_id=None, attempt=1, last_attempt=False
        )
    )
    assert meta.operations() == ["renewToken", "renewToken"]
