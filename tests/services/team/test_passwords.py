"""Passwords are changed with the old one, or reset by the newest link, once, within an hour; no answer shows who is a user."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.errors import (
    Forbidden,
    LinkInvalid,
    MailNotConfigured,
    NotFound,
    RateLimited,
    Refusal,
    SignInFailed,
)
from models.tables import AuditEntry, Job, User, UserToken
from services.accounts import accounts, authentication, login, sessions, users
from services.core.permissions import Actor, system_actor
from services.team import email_changes, limits, passwords
from tests.configured import configure
from tests.contracts.smtp_server import MailServer
from tests.flows import probes
from tests.services.team.conftest import BASE, PASSWORD, actor_of, run_jobs, settings, token_in, with_mail

NEW = "another-long-one"


async def enter(password: str = PASSWORD, email: str = "olga@acme.test") -> sessions.Tokens:
    return await login.sign_in(email, password, client_address="203.0.113.7")


async def viewer_of(tokens: sessions.Tokens) -> Actor:
    actor = await authentication.authenticate(tokens.access_token)
    assert actor is not None
    return actor


async def is_in(tokens: sessions.Tokens) -> bool:
    return await authentication.authenticate(tokens.access_token) is not None


async def ask(email: str = "olga@acme.test", address: str = "203.0.113.7") -> None:
    await passwords.request_reset(email, client_address=address)


async def reset(token: str, password: str = NEW) -> None:
    await passwords.reset(token, password, client_address="203.0.113.7")


async def refused(attempt: Any) -> tuple[str, str, object]:
    with pytest.raises(Refusal) as found:
        await attempt
    return found.value.code, found.value.message, found.value.field


# ------------------------------------------------------------------------------------------------------------ changing
async def test_changing_the_password_keeps_this_session_and_ends_the_others(owner: User) -> None:
    here, there = await enter(), await enter()
    actor = await viewer_of(here)
    await passwords.change_password(actor, current=PASSWORD, new=NEW, client_address=None)
    assert (await is_in(here), await is_in(there)) == (True, False)
    with pytest.raises(SignInFailed):
        await sessions.refresh(there.refresh_token)
    await sessions.refresh(here.refresh_token)
    with pytest.raises(SignInFailed):
        await enter()
    await enter(NEW)
    assert [e.action for e in await AuditEntry.filter(actor_id=owner.id)] == ["user.password_changed"]


async def test_the_current_password_is_needed_and_guesses_count_like_sign_ins(owner: User) -> None:
    actor = await viewer_of(await enter())
    with pytest.raises(Refusal) as found:
        await passwords.change_password(actor, current="wrong", new="short", client_address=None)
    assert [(each.code, each.field) for each in found.value.all] == [
        ("SIGN_IN_FAILED", ("currentPassword",)),
        ("INVALID", ("newPassword",)),
    ]
    with pytest.raises(Forbidden):
        await passwords.change_password(system_actor(owner.account_id), current=PASSWORD, new=NEW, client_address=None)
    configure(settings(login_limit="2/minute"))
    for _ in range(2):
        assert (await refused(_change(actor, "wrong")))[0] == "SIGN_IN_FAILED"
    assert (await refused(_change(actor, PASSWORD)))[0] == "RATE_LIMITED"
    assert (await User.get()).password_hash == owner.password_hash


async def _change(actor: Actor, current: str) -> None:
    await passwords.change_password(actor, current=current, new=NEW, client_address="198.51.100.9")


async def test_two_changes_at_once_leave_one_password(owner: User) -> None:
    actors = [await viewer_of(await enter()) for _ in range(2)]
    ended = await asyncio.gather(
        *(
            passwords.change_password(actor, current=PASSWORD, new=f"{NEW}-{n}", client_address=None)
            for n, actor in enumerate(actors)
        ),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in ended) == ["SignInFailed", "User"]


# ------------------------------------------------------------------------------------------------------------ resetting
async def test_a_reset_ends_all_sessions_and_the_link_works_once(owner: User, mail: MailServer) -> None:
    tokens = await enter()
    await ask(" OLGA@Acme.test ")
    assert await run_jobs() == []  # looks the address up
    assert await run_jobs() == []  # sends
    (letter,) = mail.letters
    assert letter.recipients == ["olga@acme.test"]
    assert f"{BASE}/reset-password#" in letter.message.get_content()
    token = token_in(mail)
    assert token not in json.dumps(await probes.snapshot())
    with pytest.raises(Refusal):
        await reset(token, "short")
    await reset(token)
    assert not await is_in(tokens)
    with pytest.raises(SignInFailed):
        await sessions.refresh(tokens.refresh_token)
    with pytest.raises(SignInFailed):
        await enter()
    await enter(NEW)
    assert (await refused(reset(token, PASSWORD)))[0] == "LINK_INVALID"
    actions = [entry.action for entry in await AuditEntry.filter(action__startswith="user.password").order_by("id")]
    assert actions == ["user.password_reset_requested", "user.password_reset"]


async def test_unknown_used_replaced_expired_and_ended_links_give_one_answer(owner: User) -> None:
    actor = actor_of(owner)
    other = await users.add(actor, email="ana@acme.test", name="Ana", role="AGENT", password=PASSWORD)

    async def link(user: User) -> str:
        return (await passwords.reset_link(actor, user.id)).partition("#")[2]

    used, replaced = await link(owner), await link(other)
    await reset(used)
    expired = await link(other)
    await UserToken.filter(user_id=other.id).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    answers = [await refused(reset(expired))]
    changed = await link(owner)
    await users.set_password(actor, owner.id, PASSWORD)
    wrong = [used, replaced, changed, "A" * 43, "", "x" * 5000]
    disabled = await link(other)
    await users.disable(actor, other.id)
    answers += [await refused(reset(token)) for token in (*wrong, disabled)]
    assert answers == [("LINK_INVALID", LinkInvalid.__doc__, ("token",))] * 8
    with pytest.raises(NotFound):
        await passwords.reset_link(actor, other.id)


async def test_two_uses_at_once_set_one_password(owner: User) -> None:
    token = (await passwords.reset_link(actor_of(owner), owner.id)).partition("#")[2]
    ended = await asyncio.gather(*(reset(token, f"{NEW}-{n}") for n in range(4)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in ended) == ["LinkInvalid"] * 3 + ["NoneType"]


async def test_a_request_neither_answers_nor_works_differently_for_unknown_addresses(
    owner: User, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = await users.add(actor_of(owner), email="gone@acme.test", name="G", role="AGENT", password=PASSWORD)
    await users.disable(actor_of(owner), gone.id)
    await run_jobs()
    with monkeypatch.context() as patch:
        # The request looks up no user, so its time can't depend on one.
        patch.setattr(User, "get_or_none", lambda **_: pytest.fail("looked up"))
        for email in ("olga@acme.test", "nobody@acme.test", "gone@acme.test"):
            await ask(email)
    rows = await Job.filter(kind="team.password_reset")
    assert sorted(row.payload["email"] for row in rows) == ["gone@acme.test", "nobody@acme.test", "olga@acme.test"]
    await run_jobs()
    await run_jobs()
    assert [letter.recipients for letter in mail.letters] == [["olga@acme.test"]]


async def test_requests_are_limited_by_address_silently_and_by_network(owner: User, mail: MailServer) -> None:
    configure(with_mail(mail, reset_limit="2/hour", token_limit="5/minute"))
    for _ in range(4):
        for email in ("olga@acme.test", "nobody@acme.test"):
            await ask(email, "")
        await run_jobs()
        await run_jobs()
    assert len(mail.letters) == 2
    for n in range(5):
        await ask(f"{n}@acme.test")
    for email in ("olga@acme.test", "nobody@acme.test"):
        with pytest.raises(RateLimited):
            await ask(email)


async def test_without_a_mail_server_every_address_gets_the_same_refusal(owner: User) -> None:
    for email in ("olga@acme.test", "nobody@acme.test"):
        with pytest.raises(MailNotConfigured):
            await ask(email)
    assert await Job.all().count() == 0


async def test_guesses_are_limited(owner: User) -> None:
    configure(settings(token_limit="3/minute"))
    assert [(await refused(reset("A" * 43)))[0] for _ in range(4)] == ["LINK_INVALID"] * 3 + ["RATE_LIMITED"]


# ------------------------------------------------------------------------------------------------------- email address
async def request_change(actor: Actor, email: str, password: str = PASSWORD) -> None:
    await email_changes.request(actor, email=email, password=password, client_address=None)


async def confirm(token: str) -> None:
    await email_changes.confirm(token, client_address="203.0.113.7")


async def test_a_new_address_counts_once_its_mailbox_confirms(owner: User, mail: MailServer) -> None:
    actor = actor_of(owner)
    await request_change(actor, "New@acme.test")
    await run_jobs()
    assert mail.letters[-1].recipients == ["new@acme.test"]
    await enter()
    token = token_in(mail)
    await confirm(token)
    await run_jobs()
    assert mail.letters[-1].recipients == ["olga@acme.test"]  # the former address gets a notice
    assert token not in mail.letters[-1].message.get_content()
    with pytest.raises(SignInFailed):
        await enter()
    await enter(email="new@acme.test")
    assert (await refused(confirm(token)))[0] == "LINK_INVALID"
    actions = [entry.action for entry in await AuditEntry.filter(actor_id=owner.id).order_by("id")]
    assert actions == ["user.email_change_requested", "user.email_changed"]


async def test_a_new_address_needs_the_password_and_shows_users_of_others_only_in_its_mailbox(
    owner: User, mail: MailServer
) -> None:
    other, _ = await accounts.create_account(
        name="Other", currency="USD", email="o@other.test", password=PASSWORD, user_name="O"
    )
    actor = actor_of(owner)
    assert (await refused(request_change(actor, "x@acme.test", "wrong")))[0::2] == ("SIGN_IN_FAILED", ("password",))
    assert (await refused(request_change(actor, "olga@acme.test")))[0::2] == ("INVALID", ("email",))
    await request_change(actor, "o@other.test")
    await run_jobs()
    assert (await refused(confirm(token_in(mail))))[0] == "ALREADY_USED"
    assert {user.email for user in await User.all()} == {"olga@acme.test", "o@other.test"}
    await request_change(actor, "x@acme.test")
    await run_jobs()
    await passwords.change_password(await viewer_of(await enter()), current=PASSWORD, new=NEW, client_address=None)
    assert (await refused(confirm(token_in(mail))))[0] == "LINK_INVALID"
    assert other.name == "Other"


async def test_a_password_that_changes_meanwhile_gives_no_link(
    owner: User, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one who knows the former password would get a link that the change does not end."""
    admit = limits.admit_mail_to

    async def changed_meanwhile(address: str) -> None:
        await admit(address)
        await users.set_password(actor_of(owner), owner.id, NEW)

    monkeypatch.setattr(limits, "admit_mail_to", changed_meanwhile)
    with pytest.raises(SignInFailed) as refused:
        await email_changes.request(actor_of(owner), email="thief@example.com", password=PASSWORD, client_address=None)
    assert refused.value.field == ("password",)
    assert await UserToken.all().count() == 0
    assert await run_jobs() == []
    assert mail.letters == []


async def test_a_link_of_one_purpose_serves_no_other(owner: User, mail: MailServer) -> None:
    token = (await passwords.reset_link(actor_of(owner), owner.id)).partition("#")[2]
    assert (await refused(confirm(token)))[0] == "LINK_INVALID"
    await request_change(actor_of(owner), "x@acme.test")
    await run_jobs()
    assert (await refused(reset(token_in(mail))))[0] == "LINK_INVALID"
