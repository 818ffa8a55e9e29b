"""API keys: stored as hashes, limited in life and rights, revocable."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from models.errors import Blank, Forbidden, Invalid, NotFound
from models.tables import ApiKey, AuditEntry
from models.vault import digest
from services.accounts import api_keys, authentication, credential_cache, users
from tests import factories
from tests.services.conftest import Team, actor_of


async def test_an_api_key_is_stored_as_hash_and_works_until_revoked(team: Team) -> None:
    row, token = await api_keys.create(team.owner, name=" Shop ", role="AGENT")
    assert token.startswith("ptk_")
    assert len(token) >= 4 + 43
    stored = await ApiKey.get(id=row.id)
    assert (stored.name, stored.token_hash, stored.hint) == ("Shop", digest(token), token[-4:])
    assert token not in str(stored.__dict__)
    actor = await authentication.authenticate(token)
    assert actor is not None
    assert (actor.kind, actor.role, actor.user_id, actor.account_id, actor.credential) == (
        "api_key",
        "AGENT",
        None,
        team.account.id,
        str(row.id),
    )
    assert (await ApiKey.get(id=row.id)).last_used_at is not None
    assert await authentication.still_valid([actor]) == [True]
    await api_keys.revoke(team.owner, row.id)
    await api_keys.revoke(team.owner, row.id)
    assert await authentication.authenticate(token) is None
    assert await authentication.still_valid([actor]) == [False]
    actions = [entry.action for entry in await AuditEntry.all().order_by("id")]
    assert actions == ["api_key.created", "api_key.revoked"]


async def test_a_key_ends_when_it_was_said_or_in_a_year(team: Team, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    row, _ = await api_keys.create(team.owner, name="Default", role="AGENT")
    assert row.expires_at is not None
    assert abs(row.expires_at - now - timedelta(days=365)) < timedelta(minutes=1)
    for wanted in (now - timedelta(seconds=1), now + timedelta(days=731)):
        with pytest.raises(Invalid) as refused:
            await api_keys.create(team.owner, name="Wrong", role="AGENT", expires_at=wanted)
        assert refused.value.field == ("expiresAt",)
    soon = datetime.now(UTC) + timedelta(seconds=0.5)
    row, token = await api_keys.create(team.owner, name="Short", role="AGENT", expires_at=soon)
    actor = await authentication.authenticate(token)
    assert actor is not None
    assert actor.expires_at == soon
    async with asyncio.timeout(5):
        while await authentication.authenticate(token) is not None:
            await asyncio.sleep(0.05)
    assert datetime.now(UTC) >= soon
    assert await authentication.still_valid([actor]) == [False]
    # Made before keys ended.
    await ApiKey.filter(id=row.id).update(expires_at=None)
    credential_cache._cache.clear()
    old = await authentication.authenticate(token)
    assert old is not None
    assert old.expires_at is None


async def test_a_key_makes_keys_and_users_only_where_a_person_said_so_and_none_beyond_itself(team: Team) -> None:
    plain, token = await api_keys.create(team.owner, name="Owner", role="OWNER")
    actor = await authentication.authenticate(token)
    assert actor is not None
    for work in (
        api_keys.create(actor, name="More", role="VIEWER"),
        api_keys.revoke(actor, plain.id),
        users.add(actor, email="new@acme.test", name="New", role="OWNER", password="long-enough-1"),
    ):
        with pytest.raises(Forbidden):
            await work
    with pytest.raises(Invalid):
        await api_keys.create(team.owner, name="Admin", role="ADMIN", manages_keys=True)
    ends = datetime.now(UTC) + timedelta(days=30)
    _, token = await api_keys.create(team.owner, name="Vault", role="OWNER", expires_at=ends, manages_keys=True)
    actor = await authentication.authenticate(token)
    assert actor is not None
    made, _ = await api_keys.create(actor, name="Child", role="OWNER")
    assert (made.expires_at, made.manages_keys) == (ends, False)
    with pytest.raises(Invalid):
        await api_keys.create(actor, name="Longer", role="AGENT", expires_at=ends + timedelta(days=1))
    with pytest.raises(Invalid):
        await api_keys.create(actor, name="Grandchild", role="OWNER", manages_keys=True)
    await api_keys.revoke(actor, made.id)
    assert await ApiKey.filter(revoked_at=None).count() == 2


async def test_only_the_owner_handles_keys_and_only_of_the_own_account(team: Team) -> None:
    row, token = await api_keys.create(team.owner, name="Shop", role="OWNER")
    for actor in (team.agent, team.viewer):
        with pytest.raises(Forbidden):
            await api_keys.create(actor, name="Mine", role="VIEWER")
        with pytest.raises(Forbidden):
            await api_keys.revoke(actor, row.id)
    stranger = actor_of(await factories.user(await factories.account(), role="OWNER"))
    with pytest.raises(NotFound):
        await api_keys.revoke(stranger, row.id)
    with pytest.raises(Invalid):
        await api_keys.create(team.owner, name="Bad", role="KING")
    with pytest.raises(Blank):
        await api_keys.create(team.owner, name=" ", role="AGENT")
    assert await ApiKey.all().count() == 1
    assert await authentication.authenticate(token) is not None
