"""The viewer's own name, language and time zone, and list of sign-ins."""

from __future__ import annotations

import pytest

from models.errors import Forbidden, NotFound, Refusal, SignInFailed
from models.ids import uuid7
from models.tables import AuditEntry, User
from services.accounts import authentication, clients, login, sessions, users
from services.accounts.clients import Client
from services.core.permissions import Actor, system_actor
from services.team import profile
from tests.services.conftest import kinds_logged
from tests.services.team.conftest import PASSWORD, actor_of

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile/15E148 Safari/604.1"
EDGE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0"


async def enter(user_agent: str = FIREFOX, address: str = "203.0.113.7") -> sessions.Tokens:
    return await login.sign_in("olga@acme.test", PASSWORD, client_address=address, user_agent=user_agent)


async def viewer_of(tokens: sessions.Tokens) -> Actor:
    actor = await authentication.authenticate(tokens.access_token)
    assert actor is not None
    return actor


async def test_a_profile_changes_field_by_field_and_is_announced(owner: User) -> None:
    actor = actor_of(owner)
    user = await profile.update(actor, {"name": " Olga B. ", "locale": "de-DE", "time_zone": "Europe/Berlin"})
    assert (user.name, user.locale, user.time_zone) == ("Olga B.", "de-DE", "Europe/Berlin")
    user = await profile.update(actor, {"locale": None})
    assert (user.name, user.locale, user.time_zone) == ("Olga B.", None, "Europe/Berlin")
    await profile.update(actor, {"locale": None})
    assert await kinds_logged(owner.account_id) == ["user.updated"] * 2
    entries = await AuditEntry.filter(action="user.profile_updated").order_by("id")
    assert [entry.detail for entry in entries] == [{"fields": "locale, name, time_zone"}, {"fields": "locale"}]
    with pytest.raises(Refusal) as refused:
        await profile.update(actor, {"name": " ", "locale": "xx-1", "time_zone": "Mars/Base"})
    assert [(each.code, each.field) for each in refused.value.all] == [
        ("BLANK", ("name",)),
        ("INVALID", ("locale",)),
        ("INVALID", ("timeZone",)),
    ]
    with pytest.raises(Forbidden):
        await profile.update(system_actor(owner.account_id), {"name": "X"})


async def test_the_list_shows_each_live_sign_in_once_also_after_refreshes(owner: User) -> None:
    here = await enter()
    there = await enter(IPHONE, "2001:db8:1:2::7")
    actor = await viewer_of(here)
    first = {found.device: found for found in await sessions.listed(actor)}
    assert {device: (found.network, found.current) for device, found in first.items()} == {
        "Firefox on Linux": ("203.0.113.0/24", True),
        "Safari on iPhone": ("2001:db8:1::/48", False),
    }
    await sessions.refresh(there.refresh_token, Client.of("198.51.100.9", IPHONE))
    shown = next(found for found in await sessions.listed(actor) if not found.current)
    assert (shown.id, shown.created_at) == (first["Safari on iPhone"].id, first["Safari on iPhone"].created_at)
    assert (shown.network, shown.last_used_at > shown.created_at) == ("198.51.100.0/24", True)
    assert await sessions.listed(system_actor(owner.account_id)) == []


async def test_ending_one_sign_in_leaves_the_others_and_is_for_oneself_only(owner: User) -> None:
    here, there = await enter(), await enter(IPHONE)
    actor = await viewer_of(here)
    (gone,) = [found.id for found in await sessions.listed(actor) if not found.current]
    other = await users.add(actor_of(owner), email="ana@acme.test", name="Ana", role="OWNER", password=PASSWORD)
    for stranger, id in ((actor_of(other), gone), (actor, uuid7())):
        with pytest.raises(NotFound):
            await sessions.revoke(stranger, id)
    assert await sessions.find(actor_of(other), gone) is None
    with pytest.raises(Forbidden):
        await sessions.revoke(system_actor(owner.account_id), gone)
    for _ in range(2):
        await sessions.revoke(actor, gone)
    assert await authentication.authenticate(there.access_token) is None
    with pytest.raises(SignInFailed):
        await sessions.refresh(there.refresh_token)
    assert await authentication.authenticate(here.access_token) is not None
    assert [found.current for found in await sessions.listed(actor)] == [True]
    assert await AuditEntry.filter(action="session.revoked").count() == 1


@pytest.mark.parametrize(
    ("user_agent", "device"),
    [
        (FIREFOX, "Firefox on Linux"),
        (IPHONE, "Safari on iPhone"),
        (EDGE, "Edge on Windows"),
        ("curl/8.9.1", "curl"),
        ("python-httpx/0.28", "python-httpx"),
        ("Mozilla/5.0", None),
        ("", None),
        ("<script>alert(1)</script>", None),
        ("x" * 5000, "x" * 30),
    ],
)
def test_of_the_user_agent_only_the_kind_of_device_is_kept(user_agent: str, device: str | None) -> None:
    assert clients.device_of(user_agent) == device


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2::7", "2001:db8:1::/48"),
        ("2001:db8:1:2::/64", "2001:db8:1::/48"),
        ("unknown", None),
        ("", None),
    ],
)
def test_of_the_address_only_the_network_is_kept(address: str, network: str | None) -> None:
    assert clients.shortened(address) == network
