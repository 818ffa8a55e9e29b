"""Sign-in: equal answers for unknown and wrong, and limits by name and network."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import limits
import pytest

from models.errors import RateLimited, SignInFailed
from models.tables import RefreshToken, User
from models.vault import digest
from services.accounts import authentication, login, sessions
from services.core.rate_limits import MovingWindows
from settings import Settings
from tests import factories
from tests.configured import configure
from tests.services.accounts.conftest import ADDRESS, tokens_of


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    original = login._matches

    def fits(hashed: str, password: str) -> bool:
        seen.append(hashed)
        return hashed != login._UNKNOWN_USER and original(
            hashed, password
        )  # the unknown user's takes as long, and never fits

    monkeypatch.setattr(login, "_matches", fits)
    return seen


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
    assert refused.value.message == "Email address or password is wrong."
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
    monkeypatch.setattr(login, "_matches", lambda hashed, password: password == factories.PASSWORD)
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

    monkeypatch.setattr(login, "_matches", fits)
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
    one, other = MovingWindows(redis_url), MovingWindows(redis_url)
    away, alone = MovingWindows("redis://127.0.0.1:1/0"), MovingWindows("")
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
