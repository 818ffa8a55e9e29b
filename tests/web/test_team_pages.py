"""The pages behind the links of emails to users."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher

from models.tables import Invitation, User
from services.accounts import accounts, login
from services.core.permissions import system_actor
from services.team import invitations
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
