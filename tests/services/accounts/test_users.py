"""The last owner stays; a lost role or changed password ends all sessions."""

from __future__ import annotations

import asyncio

import pytest

from models import vault
from models.errors import Invalid, LastOwner, NotFound, SignInFailed
from models.ids import public_id
from models.tables import Account, AuditEntry, RefreshToken, User
from services.accounts import accounts, authentication, login, sessions, users
from services.accounts.sessions import Tokens
from services.core.permissions import Actor, system_actor
from settings import DEMO_KEY, Settings
from tests.configured import configure

PASSWORD = "long-enough-1"


@pytest.fixture
async def owner(database: str) -> User:
    vault.open_vault([DEMO_KEY])
    configure(Settings(_env_file=None, environment="test", login_limit="1000/minute"))  # type: ignore[call-arg]
    _, user = await accounts.create_account(
        name="Acme", currency="USD", email="olga@acme.test", password=PASSWORD, user_name="Olga"
    )
    return user


@pytest.fixture
def actor(owner: User) -> Actor:
    return system_actor(owner.account_id)


async def add(actor: Actor, email: str, role: str = "AGENT") -> User:
    return await users.add(actor, email=email, name="New", role=role, password=PASSWORD)


async def enter(email: str, password: str = PASSWORD) -> Tokens:
    return await login.sign_in(email, password, client_address="203.0.113.7")


async def is_out(tokens: Tokens) -> bool:
    if await authentication.authenticate(tokens.access_token) is not None:
        return False
    with pytest.raises(SignInFailed):
        await sessions.refresh(tokens.refresh_token)
    return True


async def test_the_last_active_owner_keeps_the_role(actor: Actor, owner: User) -> None:
    other = await add(actor, "second@acme.test", "OWNER")
    await users.disable(actor, other.id)
    for attempt in (users.set_role(actor, owner.id, "ADMIN"), users.disable(actor, owner.id)):
        with pytest.raises(LastOwner, match="last active OWNER"):
            await attempt
    assert (await users.set_role(actor, owner.id, "OWNER")).role == "OWNER"
    await users.enable(actor, other.id)
    assert (await users.set_role(actor, owner.id, "VIEWER")).role == "VIEWER"
    with pytest.raises(LastOwner, match="last active OWNER"):
        await users.disable(actor, other.id)


async def test_two_owners_who_remove_each_other_at_once_leave_one(actor: Actor, owner: User) -> None:
    other = await add(actor, "second@acme.test", "OWNER")
    ended = await asyncio.gather(
        users.disable(actor, owner.id), users.set_role(actor, other.id, "ADMIN"), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in ended) == ["LastOwner", "User"]
    assert await User.filter(role="OWNER", disabled_at=None).count() == 1


async def test_a_disabled_user_is_out_until_enabled(actor: Actor) -> None:
    user = await add(actor, "ana@acme.test")
    tokens = await enter("ana@acme.test")
    assert await authentication.authenticate(tokens.access_token) is not None
    disabled = await users.disable(actor, user.id)
    assert (await users.disable(actor, user.id)).disabled_at == disabled.disabled_at
    assert await is_out(tokens)
    with pytest.raises(SignInFailed):
        await enter("ana@acme.test")
    await users.enable(actor, user.id)
    assert await is_out(tokens)
    assert await authentication.authenticate((await enter("ana@acme.test")).access_token) is not None


async def test_a_changed_password_ends_every_session(actor: Actor) -> None:
    user = await add(actor, "ana@acme.test")
    sessions = [await enter("ana@acme.test") for _ in range(2)]
    with pytest.raises(Invalid):
        await users.set_password(actor, user.id, "short")
    assert await authentication.authenticate(sessions[0].access_token) is not None
    await users.set_password(actor, user.id, "another-long-one")
    assert [await is_out(one) for one in sessions] == [True, True]
    with pytest.raises(SignInFailed):
        await enter("ana@acme.test")
    await enter("ana@acme.test", "another-long-one")


async def test_a_password_that_changes_during_a_sign_in_or_a_refresh_leaves_no_token(actor: Actor) -> None:
    user = await add(actor, "ana@acme.test")
    tokens = await enter("ana@acme.test")
    for n in range(4):
        await asyncio.gather(
            enter("ana@acme.test", PASSWORD if n == 0 else f"another-long-{n - 1}"),
            sessions.refresh(tokens.refresh_token),
            users.set_password(actor, user.id, f"another-long-{n}"),
            return_exceptions=True,
        )
        assert await RefreshToken.filter(user_id=user.id, revoked_at=None, used_at=None).count() == 0
        tokens = await enter("ana@acme.test", f"another-long-{n}")


async def test_changes_are_audited_and_stay_in_the_account(actor: Actor, owner: User) -> None:
    user = await add(actor, "ana@acme.test")
    await users.set_role(actor, user.id, "ADMIN")
    await users.set_role(actor, user.id, "ADMIN")
    await users.set_password(actor, user.id, "another-long-one")
    await users.disable(actor, user.id)
    await users.enable(actor, user.id)
    entries = await AuditEntry.filter(subject=public_id("usr", user.id)).order_by("id")
    assert [(e.action, e.actor_kind, e.detail) for e in entries] == [
        ("user.created", "system", {"role": "AGENT"}),
        ("user.role_changed", "system", {"from": "AGENT", "to": "ADMIN"}),
        ("user.password_changed", "system", {}),
        ("user.disabled", "system", {}),
        ("user.enabled", "system", {}),
    ]
    assert [one.email for one in await users.listed(actor)] == ["ana@acme.test", "olga@acme.test"]
    assert (await users.find(actor, " ANA@acme.test ")).id == user.id
    stranger, _ = await accounts.create_account(
        name="Other", currency="USD", email="o@other.test", password=PASSWORD, user_name="O"
    )
    outsider = system_actor(stranger.id)
    for attempt in (
        users.find(outsider, "ana@acme.test"),
        users.set_role(outsider, user.id, "OWNER"),
        users.disable(outsider, user.id),
        users.enable(outsider, user.id),
        users.set_password(outsider, user.id, "another-long-two"),
    ):
        with pytest.raises(NotFound):
            await attempt
    assert await Account.all().count() == 2
