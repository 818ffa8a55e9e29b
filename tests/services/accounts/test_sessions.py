"""Tokens: forged, refreshed, revoked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest

from models.errors import SignInFailed
from models.tables import RefreshToken, User
from services.accounts import authentication, credential_cache, sessions
from settings import Settings
from tests import factories
from tests.configured import configure
from tests.services.accounts.conftest import tokens_of


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
    assert await authentication.still_valid([actor]) == [False]
    assert await authentication.still_valid([other]) == [True]
    await sessions.sign_out(other, None, everywhere=True)
    assert await authentication.still_valid([other]) == [False]
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
    assert await authentication.still_valid([actor]) == [True]
    await User.filter(id=user.id).update(role="VIEWER")
    clock[0] += credential_cache.CACHE_S + 0.1
    assert await authentication.still_valid([actor]) == [False]
    await User.filter(id=user.id).update(role="ADMIN")
    clock[0] += credential_cache.CACHE_S + 0.1
    assert await authentication.still_valid([actor]) == [True]
    await User.filter(id=user.id).update(disabled_at=datetime.now(UTC))
    clock[0] += credential_cache.CACHE_S + 0.1
    assert await authentication.still_valid([actor]) == [False]
