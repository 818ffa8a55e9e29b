"""The pages behind the links of emails to users."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from models import database
from models.tables import Invitation, User
from services.accounts import accounts, login
from services.core.permissions import system_actor
from services.team import email_changes, invitations, passwords, user_tokens
from tests.web.conftest import Serve, Site, snapshot

PASSWORD = "long-enough-1"


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


async def link(name: str | None = "Nora") -> str:
    account, _ = await accounts.create_account(
        name="Acme", currency="USD", email="olga@acme.test", password=PASSWORD, user_name="Olga"
    )
    invited = await invitations.invite(system_actor(account.id), email="nora@acme.test", name=name, role="AGENT")
    assert invited.link is not None
    return invited.link


async def test_opening_the_page_changes_nothing_and_is_kept_nowhere(site: Site) -> None:
    path = (await link()).removeprefix(site.base_url)
    before = await snapshot()
    for answer in (await site.http.get(path), await site.http.head(path)):
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["x-robots-tag"] == "noindex, nofollow"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert '<form method="post"' in (await site.http.get(path)).text
    assert await snapshot() == before


@pytest.mark.parametrize("whole", [True, False])
async def test_the_form_accepts_without_scripts_with_the_whole_link_or_its_token(site: Site, whole: bool) -> None:
    address = await link()
    given = {"token": f" {address} " if whole else address.partition("#")[2], "name": "Nora B."}
    answer = await site.http.post("/join", data={**given, "password": PASSWORD, "again": PASSWORD})
    assert (answer.status_code, "Welcome" in answer.text) == (200, True)
    assert (await User.get(email="nora@acme.test")).name == "Nora B."
    await login.sign_in("nora@acme.test", PASSWORD, client_address=None)
    again = await site.http.post("/join", data={**given, "password": PASSWORD, "again": PASSWORD})
    assert (again.status_code, "not valid, or no longer" in again.text) == (422, True)


async def test_mistakes_are_named_and_leave_the_link(site: Site) -> None:
    token = (await link(None)).partition("#")[2]
    for given, sentence in (
        ({"password": PASSWORD, "again": PASSWORD + "x", "name": "N"}, "The two passwords differ."),
        ({"password": "short", "again": "short", "name": "N"}, "Use 10 to 256 characters."),
        ({"password": PASSWORD, "again": PASSWORD, "name": " "}, "can&#39;t be blank"),
        ({"password": PASSWORD, "again": PASSWORD, "name": "<b>\x07"}, "not allowed"),
    ):
        answer = await site.http.post("/join", data={"token": token, **given})
        assert (answer.status_code, sentence in answer.text) == (422, True), answer.text
        assert PASSWORD not in answer.text
        assert "<b>" not in answer.text
        assert f'value="{token}"' in answer.text  # the person corrects the rest
    assert (await Invitation.get()).accepted_at is None


async def test_another_site_posts_nothing_and_guesses_are_limited(serve: Serve) -> None:
    async with serve(token_limit="2/minute") as site:
        token = (await link()).partition("#")[2]
        given = {"token": token, "password": PASSWORD, "again": PASSWORD}
        for origin in ("https://evil.example", "null"):
            answer = await site.http.post("/join", data=given, headers={"Origin": origin})
            assert answer.status_code == 403
        for expected in (422, 422, 429):
            answer = await site.http.post("/join", data={**given, "token": "A" * 43})
            assert answer.status_code == expected
        assert (await site.http.post("/join", content=b"x" * 5000)).status_code == 413
        assert await User.filter(email="nora@acme.test").count() == 0
        assert token not in site.log.getvalue()


async def test_a_password_is_reset_and_an_address_confirmed_without_scripts(site: Site) -> None:
    account, owner = await accounts.create_account(
        name="Acme", currency="USD", email="olga@acme.test", password=PASSWORD, user_name="Olga"
    )
    link = await passwords.reset_link(system_actor(account.id), owner.id)
    before = await snapshot()
    assert (await site.http.get("/reset-password")).status_code == 200
    assert (await site.http.get("/confirm-email")).status_code == 200
    assert await snapshot() == before
    new = "another-long-one"
    answer = await site.http.post("/reset-password", data={"token": link, "password": new, "again": new})
    assert (answer.status_code, "Your password is changed" in answer.text) == (200, True)
    await login.sign_in("olga@acme.test", new, client_address=None)
    async with database.transaction():
        _, token = await user_tokens.renew(
            account.id, owner.id, email_changes.PURPOSE, life=email_changes.LIFE, email="new@acme.test"
        )
    for status in (200, 422):
        answer = await site.http.post("/confirm-email", data={"token": token})
        assert answer.status_code == status
    await login.sign_in("new@acme.test", new, client_address=None)
