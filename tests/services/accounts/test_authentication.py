"""Signing in: the same answer for unknown and wrong, short tokens, one use of a refresh token, revocation within seconds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import limits
import pytest

from models.errors import AlreadyUsed, Blank, Forbidden, Invalid, NotFound, RateLimited, SignInFailed
from models.tables import Account, ApiKey, AuditEntry, RefreshToken, User
from models.vault import digest
from services.accounts import accounts, api_keys, authentication, credential_cache, login, sessions, users
from services.core.permissions import system_actor
from services.core.rate_limits import Counts
from settings import Settings
from tests import factories
from tests.configured import configure
from tests.services.conftest import Team, actor_of

ADDRESS = "203.0.113.7"


@pytest.fixture
async def user(configured: Settings) -> User:
    return await factories.user(await factories.account(), email="sam@example.test", name="Sam", role="ADMIN")


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which hashes were checked."""
    seen: list[str] = []
    original = login._fits

    def fits(hashed: str, password: str) -> bool:
        seen.append(hashed)
        return hashed != login._UNKNOWN_USER and original(hashed, password)  # nobody's takes as long, and never fits

    monkeypatch.setattr(login, "_fits", fits)
    return seen


async def tokens_of(user: User) -> sessions.Tokens:
    return await login.sign_in(user.email, factories.PASSWORD, client_address=None)


async def test_the_right_password_gives_tokens_that_speak_for_the_user(user: User) -> None:
    before = datetime.now(UTC)
    tokens = await login.sign_in(" Sam@Example.test ", factories.PASSWORD, client_address=ADDRESS)
    actor = await authentication.authenticate(tokens.access_token)
    assert actor is not None
    assert (actor.account_id, actor.user_id, actor.role, actor.name, actor.kind) == (
        user.account_id,
        user.id,
        "ADMIN",
        "Sam",
        "user",
    )
    assert actor.expires_at == tokens.access_expires_at
    assert tokens.access_expires_at - before <= timedelta(minutes=15)
    assert tokens.user_id == user.id
    row = await RefreshToken.get()
    assert row.token_hash == digest(tokens.refresh_token)
    assert tokens.refresh_token not in str(row.__dict__)
    assert str(row.family_id) == actor.credential


@pytest.mark.parametrize("email", ["sam@example.test", "nobody@example.test", "", "a\x00b", "x" * 400])
async def test_a_wrong_password_and_an_unknown_name_cost_one_hash_and_say_the_same(
    user: User, hashes: list[str], email: str
) -> None:
    with pytest.raises(SignInFailed) as refused:
        await login.sign_in(email, "wrong-password", client_address=ADDRESS)
    assert refused.value.message == "E-mail address or password is wrong."
    assert len(hashes) == 1
    assert await RefreshToken.all().count() == 0


async def test_a_disabled_user_is_an_unknown_one(user: User, hashes: list[str]) -> None:
    await User.filter(id=user.id).update(disabled_at=datetime.now(UTC))
    with pytest.raises(SignInFailed):
        await tokens_of(user)
    assert hashes == [login._UNKNOWN_USER]


@pytest.mark.parametrize(
    ("first", "again"), [(ADDRESS, ADDRESS), ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9")], ids=["ipv4", "ipv6"]
)
async def test_the_sixth_attempt_on_a_name_from_a_network_is_refused_before_any_hash(
    user: User, hashes: list[str], first: str, again: str
) -> None:
    for _ in range(5):
        with pytest.raises(SignInFailed):
            await login.sign_in(user.email, "wrong", client_address=first)
    with pytest.raises(RateLimited):
        await login.sign_in(user.email.upper(), factories.PASSWORD, client_address=again)
    assert len(hashes) == 5
    assert await RefreshToken.all().count() == 0
    await login.sign_in(user.email, factories.PASSWORD, client_address="203.0.113.8")


async def test_strangers_in_many_networks_neither_lock_out_nor_slow_down_who_has_signed_in_from_here(
    user: User, hashes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    await login.sign_in(user.email, factories.PASSWORD, client_address=ADDRESS)
    monkeypatch.setattr(login, "_sleep", sleep)
    for n in range(25):
        with pytest.raises(SignInFailed):
            await login.sign_in(user.email, "wrong", client_address=f"198.51.100.{n}")
    assert waited == [login.DELAY_S] * 6  # its first sign-in was from a new network, too
    await login.sign_in(user.email, factories.PASSWORD, client_address=ADDRESS)
    assert len(waited) == 6
    # From a new network the right password waits like any other attempt, and is taken.
    await login.sign_in(user.email, factories.PASSWORD, client_address="203.0.113.99")
    assert len(waited) == 7
    # Guesses at other names of the same network do not count against it either.
    for n in range(21):
        with pytest.raises((SignInFailed, RateLimited)):
            await login.sign_in(f"guess{n}@example.test", "wrong", client_address=ADDRESS)
    await login.sign_in(user.email, factories.PASSWORD, client_address=ADDRESS)


async def test_only_a_few_attempts_on_a_name_wait_at_a_time(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"environment": "test", "login_name_limit": "1/minute"}
    configure(Settings(**given))
    monkeypatch.setattr(login, "DELAY_S", 0.3)
    attempts = (
        login.sign_in(user.email, "wrong", client_address=f"198.51.100.{n}") for n in range(1 + login.WAITING + 4)
    )
    refused = await asyncio.gather(*attempts, return_exceptions=True)
    assert [type(error) for error in refused].count(RateLimited) == 4
    assert [type(error) for error in refused].count(SignInFailed) == 1 + login.WAITING


async def test_one_ipv6_site_has_few_attempts_on_a_name_and_takes_no_place_of_others(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {"environment": "test", "login_name_limit": "1/minute"}
    configure(Settings(**given))
    monkeypatch.setattr(login, "_fits", lambda hashed, password: password == factories.PASSWORD)
    monkeypatch.setattr(login, "DELAY_S", 0.5)
    strangers = [
        login.sign_in(user.email, "wrong", client_address=f"2001:db8:77:{n:x}::1") for n in range(login.WAITING + 5)
    ]
    *refused, tokens = await asyncio.gather(
        *strangers,
        login.sign_in(user.email, factories.PASSWORD, client_address="2001:db8:78:1::1"),
        return_exceptions=True,
    )
    assert [type(error) for error in refused].count(SignInFailed) == 20
    assert [type(error) for error in refused].count(RateLimited) == login.WAITING + 5 - 20
    assert isinstance(tokens, sessions.Tokens)
    # The /48 has used up its attempts on this name only.
    with pytest.raises(SignInFailed):
        await login.sign_in("other@example.test", "wrong", client_address="2001:db8:77:ff::1")


async def test_hashes_of_strangers_do_not_hold_up_a_known_network(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    await login.sign_in(user.email, factories.PASSWORD, client_address=ADDRESS)
    released = threading.Event()
    hashing = threading.Event()

    def fits(_: str, password: str) -> bool:
        if password == "wrong":
            hashing.set()
            return not released.wait(30)
        return True

    monkeypatch.setattr(login, "_fits", fits)
    strangers = [
        asyncio.ensure_future(login.sign_in(f"guess{n}@example.test", "wrong", client_address=f"198.51.100.{n}"))
        for n in range(4)
    ]
    try:
        assert await asyncio.to_thread(hashing.wait, 10)
        async with asyncio.timeout(20):
            await login.sign_in(user.email, factories.PASSWORD, client_address=ADDRESS)
        assert not any(stranger.done() for stranger in strangers)
    finally:
        released.set()
        outcomes = await asyncio.gather(*strangers, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [SignInFailed] * 4


async def test_processes_with_one_redis_count_together_and_alone_while_it_is_away(redis_url: str) -> None:
    limit = limits.parse("3/minute")
    key = uuid4().hex
    one, other = Counts(redis_url), Counts(redis_url)
    away, alone = Counts("redis://127.0.0.1:1/0"), Counts("")
    try:
        assert [await counts.hit(limit, key) for counts in (one, other, one, other, one)] == [True] * 3 + [False] * 2
        assert not await other.test(limit, key)
        for counts in (away, alone):
            assert [await counts.hit(limit, key) for _ in range(4)] == [True] * 3 + [False]
    finally:
        for counts in (one, other, away, alone):
            await counts.aclose()


def test_limits_are_counted_where_the_events_are_if_that_is_redis() -> None:
    def redis(**given: Any) -> str:
        return Settings(**{"environment": "test", **given}).limits_redis

    assert redis() == ""
    assert redis(events_url="redis://a/0") == "redis://a/0"
    assert redis(events_url="postgres://a/b") == ""
    assert redis(events_url="postgres://a/b", limits_url="rediss://c/1") == "rediss://c/1"
    with pytest.raises(ValueError, match="LIMITS_URL"):
        redis(limits_url="memcached://x")


async def test_the_twenty_first_attempt_of_an_address_is_refused(user: User, hashes: list[str]) -> None:
    for n in range(20):
        with pytest.raises(SignInFailed):
            await login.sign_in(f"guess{n}@example.test", "wrong", client_address=ADDRESS)
    with pytest.raises(RateLimited):
        await login.sign_in("another@example.test", "wrong", client_address=ADDRESS)
    await login.sign_in(user.email, factories.PASSWORD, client_address="203.0.113.8")
    assert len(hashes) == 21


def forge(claims: dict[str, Any], key: object, algorithm: str) -> str:
    return jwt.encode(claims, key, algorithm=algorithm)  # type: ignore[arg-type]


Forgery = Callable[[dict[str, Any]], tuple[dict[str, Any], object, str]]
OWN = "own key"
FORGERIES: dict[str, Forgery] = {
    "no signature": lambda c: (c, None, "none"),
    "another key": lambda c: (c, b"k" * 32, "HS256"),
    "another algorithm": lambda c: (c, OWN, "HS384"),
    "expired": lambda c: (c | {"exp": datetime.now(UTC) - timedelta(seconds=1)}, OWN, "HS256"),
    "no expiry": lambda c: ({k: v for k, v in c.items() if k != "exp"}, OWN, "HS256"),
    "another audience": lambda c: (c | {"aud": "other"}, OWN, "HS256"),
    "another issuer": lambda c: (c | {"iss": "other"}, OWN, "HS256"),
    "another account": lambda c: (c | {"acc": str(uuid4())}, OWN, "HS256"),
    "another version": lambda c: (c | {"ver": 7}, OWN, "HS256"),
    "unknown user": lambda c: (c | {"sub": str(uuid4())}, OWN, "HS256"),
    "no user": lambda c: (c | {"sub": "me"}, OWN, "HS256"),
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("name", sorted(FORGERIES))
async def test_a_forged_token_is_nobody(user: User, name: str) -> None:
    genuine = (await tokens_of(user)).access_token
    claims = jwt.decode(genuine, options={"verify_signature": False})
    claims, key, algorithm = FORGERIES[name](claims)
    forged = forge(claims, sessions._keys.get()[0] if key == OWN else key, algorithm)
    assert await authentication.authenticate(forged) is None
    assert await authentication.authenticate(genuine) is not None


@pytest.mark.parametrize("bearer", ["", "x", "a.b.c", "ptk_", "ptk_" + "x" * 43, "é" * 10, "x" * 3000, "\x00"])
async def test_rubbish_is_nobody(configured: Settings, bearer: str) -> None:
    assert await authentication.authenticate(bearer) is None


async def test_tokens_of_the_older_key_are_taken_and_new_ones_use_the_first(user: User, configured: Settings) -> None:
    old = (await tokens_of(user)).access_token
    given: dict[str, Any] = {"environment": "test", "secret_keys": f"a-brand-new-key-0001,{configured.secret_keys}"}
    configure(Settings(**given))
    assert await authentication.authenticate(old) is not None
    new = (await tokens_of(user)).access_token
    configure(configured)
    assert await authentication.authenticate(new) is None


async def test_a_refresh_token_works_once_and_its_second_use_ends_the_family(user: User) -> None:
    first = await tokens_of(user)
    second = await sessions.refresh(first.refresh_token)
    assert await authentication.authenticate(second.access_token) is not None
    with pytest.raises(SignInFailed):
        await sessions.refresh(first.refresh_token)
    with pytest.raises(SignInFailed):
        await sessions.refresh(second.refresh_token)
    assert await authentication.authenticate(first.access_token) is None
    assert await authentication.authenticate(second.access_token) is None
    assert await RefreshToken.filter(revoked_at=None).count() == 0


async def test_of_two_refreshes_at_once_at_most_one_succeeds(user: User) -> None:
    tokens = await tokens_of(user)
    answers = await asyncio.gather(*(sessions.refresh(tokens.refresh_token) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(answer, sessions.Tokens) for answer in answers) == 1
    assert sum(isinstance(answer, SignInFailed) for answer in answers) == 3
    assert await RefreshToken.filter(revoked_at=None).count() == 0


async def test_reuse_leaves_other_sign_ins_alone(user: User) -> None:
    phone, laptop = await tokens_of(user), await tokens_of(user)
    await sessions.refresh(phone.refresh_token)
    with pytest.raises(SignInFailed):
        await sessions.refresh(phone.refresh_token)
    assert await authentication.authenticate(laptop.access_token) is not None
    await sessions.refresh(laptop.refresh_token)


async def test_expired_and_unknown_refresh_tokens_are_refused(user: User) -> None:
    tokens = await tokens_of(user)
    await RefreshToken.all().update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    for bad in (tokens.refresh_token, tokens.refresh_token + "x", "", "x" * 5000):
        with pytest.raises(SignInFailed):
            await sessions.refresh(bad)
    assert await RefreshToken.all().count() == 1


async def test_signing_out_ends_this_sign_in_only_and_everywhere_ends_all(user: User) -> None:
    here, there, third = [await tokens_of(user) for _ in range(3)]
    actor = await authentication.authenticate(here.access_token)
    other = await authentication.authenticate(there.access_token)
    assert actor is not None
    assert other is not None
    await sessions.sign_out(actor, third.refresh_token, everywhere=False)
    assert await authentication.authenticate(here.access_token) is None
    assert await authentication.authenticate(third.access_token) is None
    assert not await authentication.still_valid(actor)
    assert await authentication.still_valid(other)
    await sessions.sign_out(other, None, everywhere=True)
    assert not await authentication.still_valid(other)
    for tokens in (here, there, third):
        assert await authentication.authenticate(tokens.access_token) is None
        with pytest.raises(SignInFailed):
            await sessions.refresh(tokens.refresh_token)
    assert await authentication.authenticate((await tokens_of(user)).access_token) is not None


async def test_nobody_signs_out_somebody_else(user: User) -> None:
    other = await factories.user(await factories.account())
    theirs = await tokens_of(other)
    actor = await authentication.authenticate((await tokens_of(user)).access_token)
    assert actor is not None
    await sessions.sign_out(actor, theirs.refresh_token, everywhere=False)
    assert await authentication.authenticate(theirs.access_token) is not None


async def test_a_changed_role_or_disabled_user_ends_open_sockets_once_the_cache_is_old(
    user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    actor = await authentication.authenticate((await tokens_of(user)).access_token)
    assert actor is not None
    clock = [1_000_000.0]
    monkeypatch.setattr(credential_cache, "_clock", lambda: clock[0])
    assert await authentication.still_valid(actor)
    await User.filter(id=user.id).update(role="VIEWER")
    clock[0] += credential_cache.CACHE_S + 0.1
    assert not await authentication.still_valid(actor)
    await User.filter(id=user.id).update(role="ADMIN")
    clock[0] += credential_cache.CACHE_S + 0.1
    assert await authentication.still_valid(actor)
    await User.filter(id=user.id).update(disabled_at=datetime.now(UTC))
    clock[0] += credential_cache.CACHE_S + 0.1
    assert not await authentication.still_valid(actor)


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
    assert await authentication.still_valid(actor)
    await api_keys.revoke(team.owner, row.id)
    await api_keys.revoke(team.owner, row.id)
    assert await authentication.authenticate(token) is None
    assert not await authentication.still_valid(actor)
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
    assert not await authentication.still_valid(actor)
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


async def test_a_new_account_has_an_owner_who_can_sign_in(configured: Settings) -> None:
    account, owner = await accounts.create_account(
        name="Acme", currency="eur", email="Owner@Acme.test", password="long-enough-1", user_name="Olga"
    )
    assert (account.default_currency, owner.role, owner.email) == ("EUR", "OWNER", "owner@acme.test")
    assert "long-enough-1" not in owner.password_hash
    tokens = await login.sign_in("owner@acme.test", "long-enough-1", client_address=None)
    assert tokens.user_id == owner.id


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"name": " "}, "BLANK", "name"),
        ({"name": "x" * 121}, "TOO_LONG", "name"),
        ({"currency": "EURO"}, "TOO_LONG", "currency"),
        ({"currency": "XYZ"}, "CURRENCY_NOT_SUPPORTED", "currency"),
        ({"email": "nobody"}, "INVALID", "email"),
        ({"email": ""}, "BLANK", "email"),
        ({"password": "short"}, "INVALID", "password"),
        ({"locale": "xx-YY-zz-"}, "INVALID", "locale"),
        ({"time_zone": "Mars/Olympus"}, "INVALID", "timeZone"),
        ({"time_zone": "../etc/passwd"}, "INVALID", "timeZone"),
        ({"time_zone": "posixrules"}, "INVALID", "timeZone"),
        ({"time_zone": "Factory"}, "INVALID", "timeZone"),
        ({"time_zone": "localtime"}, "INVALID", "timeZone"),
    ],
)
async def test_a_bad_account_is_refused_field_by_field(
    configured: Settings, change: dict[str, str], code: str, field: str
) -> None:
    given = {"name": "Acme", "currency": "USD", "email": "o@acme.test", "password": "long-enough-1", "user_name": "O"}
    with pytest.raises(Exception) as refused:  # noqa: PT011 (any refusal: its code is asserted)
        await accounts.create_account(**(given | change))
    assert (getattr(refused.value, "code", None), getattr(refused.value, "field", None)) == (code, (field,))
    assert await Account.all().count() == 0


async def test_an_email_address_signs_in_one_user(team: Team) -> None:
    user = await users.add(team.owner, email="new@example.test", name="New", role="AGENT", password="long-enough-1")
    assert user.account_id == team.account.id
    with pytest.raises(AlreadyUsed):
        await users.add(team.owner, email="NEW@example.test", name="Other", role="AGENT", password="long-enough-1")
    with pytest.raises(Forbidden):
        await users.add(team.agent, email="x@example.test", name="X", role="OWNER", password="long-enough-1")
    assert await User.filter(account_id=team.account.id).count() == 4


async def test_settings_change_only_what_is_given_and_valid(team: Team) -> None:
    changed = await accounts.update_account(
        team.owner,
        changes={"name": "New name", "contact_phone": "(415) 555-0133", "link_message_template": "{amount}: {link}"},
    )
    assert (changed.name, changed.contact_phone, changed.default_currency) == ("New name", "+14155550133", "USD")
    entry = await AuditEntry.get()
    assert entry.detail == {"fields": ["contact_phone", "link_message_template", "name"]}
    for changes, field in (
        ({"link_message_template": "no mark"}, "linkMessageTemplate"),
        ({"link_message_template": "{link} {link}"}, "linkMessageTemplate"),
        ({"link_message_template": "{link} {secret}"}, "linkMessageTemplate"),
        ({"number_prefix": "<b>"}, "numberPrefix"),
        ({"contact_phone": "call me"}, "contactPhone"),
        ({"contact_email": "nobody"}, "contactEmail"),
    ):
        with pytest.raises(Invalid) as refused:
            await accounts.update_account(team.owner, changes={"name": "Other", **changes})
        assert refused.value.field == (field,)
    with pytest.raises(Forbidden):
        await accounts.update_account(team.agent, changes={"name": "Mine"})
    assert (await Account.get(id=team.account.id)).name == "New name"
    assert await AuditEntry.all().count() == 1


async def test_changing_settings_never_turns_back_the_counters(team: Team) -> None:
    await Account.filter(id=team.account.id).update(event_seq=41, request_count=7)
    await accounts.update_account(system_actor(team.account.id), changes={"name": "Later"})
    row = await Account.get(id=team.account.id)
    assert (row.event_seq, row.request_count, row.name) == (42, 7, "Later")  # one entry: account.updated
