"""The unsubscribe address of emails."""

from __future__ import annotations

from models.tables import OptOut
from services.messaging import opt_outs
from tests import factories
from tests.web.conftest import Site, snapshot


async def link(site: Site) -> str:
    account = await factories.account(name="Acme <Cleaning>")
    contact = await factories.contact(account)
    await factories.contact_address(contact, "EMAIL")
    channel = await factories.channel_connection(account, "EMAIL")
    conversation = await factories.conversation(contact)
    message = await factories.message(conversation, kind="EMAIL", channel_connection_id=channel.id)
    return opt_outs.unsubscribe_url(message).rpartition("/unsubscribe/")[2]


async def test_looking_changes_nothing_and_the_button_posts_to_the_same_address(site: Site) -> None:
    path = f"/unsubscribe/{await link(site)}"
    before = await snapshot()
    for answer in (await site.http.get(path), await site.http.head(path)):
        assert answer.status_code == 200
        assert "script" not in answer.headers["content-security-policy"].replace("script-src 'self'", "")
        assert answer.headers["x-robots-tag"] == "noindex, nofollow"
    page = (await site.http.get(path)).text
    assert '<form method="post">' in page
    assert "Acme &lt;Cleaning&gt;" in page
    assert await snapshot() == before


async def test_one_click_of_a_mail_program_unsubscribes_once(site: Site) -> None:
    path = f"/unsubscribe/{await link(site)}"
    for _ in range(2):  # RFC 8058: a form, no cookie, no Origin, no redirect followed
        answer = await site.http.post(path, data={"List-Unsubscribe": "One-Click"})
        assert (answer.status_code, "You are unsubscribed" in answer.text) == (200, True)
    assert await OptOut.all().count() == 1


async def test_an_unknown_link_is_a_404_and_a_large_body_is_refused(site: Site) -> None:
    token = await link(site)
    assert (await site.http.post(f"/unsubscribe/{token[:-1]}")).status_code == 404
    assert (await site.http.get("/unsubscribe/nothing")).status_code == 404
    assert (await site.http.post(f"/unsubscribe/{token}", content=b"x" * 5000)).status_code == 413
    assert await OptOut.all().count() == 0
