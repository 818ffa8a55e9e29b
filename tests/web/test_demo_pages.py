"""Index, GraphiQL and the demo phone: available only when the settings enable them."""

from __future__ import annotations

import html
import json
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from graphql import build_schema, parse, validate

from models.ids import public_id
from models.tables import Message
from tests import factories
from tests.web.conftest import Serve, Site, snapshot
from web import graphiql
from web.phone import parts

PRODUCTION = {
    "environment": "production",
    "public_url": "https://pay.example.test",
    "secret_keys": "a-key-of-our-own-for-this-test",
}


@dataclass(frozen=True)
class Access:
    account_id: UUID
    email: str = "agent@demo.test"
    password: str = "demo-demo-demo"
    api_key: str = "ptk_demo_key"


async def test_the_index_links_to_everything_that_is_open(site: Site) -> None:
    text = (await site.http.get("/")).text
    for address in ("/graphiql", "/demo/phone", "/demo/site", "/healthz", "/readyz", "/metrics"):
        assert f'href="{address}"' in text
    assert "<code>/graphql</code>" in text  # a browser that opens it would get only an error
    assert "ptk_" not in text


async def test_the_index_of_the_demo_shows_how_to_sign_in_and_links_to_pay(site: Site) -> None:
    token = factories.token()
    account = await factories.account()
    await factories.payment_request(await factories.contact(account), clear_token=token, product_name="Rug <wash>")
    other = factories.token()
    await factories.payment_request(await factories.contact(await factories.account()), clear_token=other)
    site.app.state.demo = Access(account.id)
    text = (await site.http.get("/")).text
    assert "agent@demo.test" in text
    assert "demo-demo-demo" in text
    assert "ptk_demo_key" in text
    assert f'href="{site.base_url}/p/{token}"' in text
    assert "Rug &lt;wash&gt;" in text
    assert other not in text


async def test_production_shows_neither_demo_nor_graphiql(serve: Serve) -> None:
    async with serve(**PRODUCTION) as site:
        account = await factories.account()
        site.app.state.demo = Access(account.id)
        text = (await site.http.get("/")).text
        for hidden in ("ptk_demo_key", "agent@demo.test", "/graphiql", "/demo/phone", "/demo/site"):
            assert hidden not in text
        for closed in ("/graphiql", "/static/graphiql/graphiql.min.js", "/demo/phone", "/demo/site"):
            assert (await site.http.get(closed)).status_code == 404
        assert (await site.http.post("/demo/phone", data={"text": "x"})).status_code == 404


def _tabs(page: str) -> list[dict[str, str]]:
    found = re.search(r'data-tabs="([^"]*)"', page)
    assert found is not None
    tabs: list[dict[str, str]] = json.loads(html.unescape(found[1]))
    return tabs


def _built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in graphiql.FILES:
        (folder / name).write_text(f"/* {name} */")
    monkeypatch.setattr(graphiql, "BUILT", folder)


async def test_graphiql_without_its_build_says_how_to_make_it_and_the_rest_works(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphiql, "BUILT", tmp_path / "missing")
    answer = await site.http.get("/graphiql")
    assert answer.status_code == 503
    assert "./dev inbox" in answer.text
    assert (await site.http.get("/static/graphiql/graphiql.min.js")).status_code == 404
    assert (await site.http.get("/")).status_code == 200


async def test_graphiql_has_a_strict_policy_and_no_inline_script(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _built(tmp_path, monkeypatch)
    answer = await site.http.get("/graphiql")
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self';" in policy
    assert f"connect-src 'self' {site.base_url.replace('http', 'ws')};" in policy
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", answer.text)
    for address in re.findall(r'(?:src|href)="([^"]+)"', answer.text):
        assert (await site.http.get(address)).status_code == 200
    for outside in ("..%2f..%2fpackage.json", "stamp", "x.js"):
        assert (await site.http.get(f"/static/graphiql/{outside}")).status_code == 404


async def test_graphiqls_examples_carry_the_demos_ids_and_key_only_in_the_demo(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _built(tmp_path, monkeypatch)
    plain = _tabs((await site.http.get("/graphiql")).text)
    assert [re.findall(r"^(mutation|query|subscription) ", tab["query"], re.M) for tab in plain] == [
        ["mutation"],
        ["query"],
        ["subscription"],
        ["query"],
        ["mutation"],
    ]
    assert "ptk_" not in json.dumps(plain)
    account = await factories.account()
    conversation = await factories.conversation(await factories.contact(account))
    site.app.state.demo = Access(account.id)
    tabs = _tabs((await site.http.get("/graphiql")).text)
    for tab in tabs:
        assert json.loads(tab["headers"]) == {"Authorization": "Bearer ptk_demo_key"}
    create, read, subscribe, *_ = (json.loads(tab["variables"]) for tab in tabs)
    assert create["input"]["for"]["contactId"] == public_id("cnt", conversation.contact_id)
    assert len(create["input"]["idempotencyKey"]) == 16
    assert read == subscribe == {"conversationId": public_id("cnv", conversation.id)}
    assert _tabs((await site.http.get("/graphiql")).text)[0]["variables"] != tabs[0]["variables"]


def test_a_messages_addresses_become_links_and_nothing_else() -> None:
    text = "Pay here: http://localhost:8000/p/abc_DEF-1. (Or https://x.test/a?b=c&d=e) javascript:alert(1) ftp://no"
    assert [(part.text, part.link) for part in parts(text)] == [
        ("Pay here: ", False),
        ("http://localhost:8000/p/abc_DEF-1", True),
        (". (Or ", False),
        ("https://x.test/a?b=c&d=e", True),
        (") javascript:alert(1) ftp://no", False),
    ]
    assert "".join(part.text for part in parts(text)) == text


async def test_the_phone_shows_a_contacts_messages_newest_first_with_links_and_status(site: Site) -> None:
    account = await factories.account(name="Bright Homes")
    ana, bo = await factories.contact(account, name="Ana"), await factories.contact(account, name="Bo")
    connection = await factories.channel_connection(account, "SMS")
    real = await factories.channel_connection(account, "EMAIL", provider="smtp")
    await factories.contact_address(ana, "SMS")
    thread = await factories.conversation(ana)
    for body, more in (
        ("First <b>", {}),
        ("Pay http://localhost/p/abc.", {"delivery_status": "READ"}),
        ("By a real vendor", {"channel_connection_id": real.id, "kind": "EMAIL"}),
    ):
        values = {"direction": "OUTBOUND", "channel_connection_id": connection.id, **more}
        await factories.message(thread, body=body, **values)
    await factories.message(await factories.conversation(bo), body="For Bo only", channel_connection_id=connection.id)
    before = await snapshot()
    answer = await site.http.get("/demo/phone", params={"contact": public_id("cnt", ana.id)})
    assert answer.status_code == 200
    text = answer.text
    assert text.index("http://localhost/p/abc") < text.index("First &lt;b&gt;")
    assert '<a href="http://localhost/p/abc" target="_blank" rel="noopener">http://localhost/p/abc</a>.' in text
    assert "· read" in text
    assert "By a real vendor" not in text
    assert "For Bo only" not in text
    by_channel = await site.http.get("/demo/phone", params={"contact": public_id("cnt", ana.id), "channel": "WHATSAPP"})
    assert "First" not in by_channel.text
    assert await snapshot() == before


async def test_an_answer_on_the_phone_arrives_in_the_thread(site: Site) -> None:
    account = await factories.account()
    contact = await factories.contact(account, name="Ana")
    connection = await factories.channel_connection(account, "SMS")
    await factories.contact_address(contact, "SMS")
    await factories.conversation(contact)
    form = {"contact": public_id("cnt", contact.id), "channel": "SMS", "text": "Done, thanks!"}
    answer = await site.http.post("/demo/phone", data=form, headers={"Origin": site.base_url})
    assert (answer.status_code, answer.headers["location"]) == (303, f"/demo/phone?contact={form['contact']}")
    stored = await Message.get(contact_id=contact.id)
    assert (stored.direction, stored.body) == ("INBOUND", "Done, thanks!")
    assert stored.channel_connection_id == connection.id
    before = await snapshot()
    for wrong in ({"channel": "EMAIL"}, {"channel": "x"}, {"text": "  "}, {"text": "x" * 1601}):
        assert (await site.http.post("/demo/phone", data={**form, **wrong})).status_code == 400
    for unknown in ("", "cnt_x", public_id("cnt", account.id)):
        assert (await site.http.post("/demo/phone", data={**form, "contact": unknown})).status_code == 404
    cross_origin = await site.http.post("/demo/phone", data=form, headers={"Origin": "https://evil.example"})
    assert cross_origin.status_code == 403
    assert await snapshot() == before


async def test_in_the_demo_the_phone_shows_only_the_demos_contacts(site: Site) -> None:
    account, other = await factories.account(), await factories.account()
    for of, name in ((account, "Ana"), (other, "Somebody Else")):
        await factories.channel_connection(of, "SMS")
        contact = await factories.contact(of, name=name)
        await factories.contact_address(contact, "SMS")
        await factories.conversation(contact)
    site.app.state.demo = Access(account.id)
    text = (await site.http.get("/demo/phone")).text
    assert "Ana" in text
    assert "Somebody Else" not in text


async def test_the_phone_opens_on_the_contact_who_was_written_to_last(site: Site) -> None:
    account = await factories.account()
    await factories.channel_connection(account, "SMS")
    for name, days_ago in (("Early Ana", 2), ("Late Leo", 0), ("Middle Mia", 1)):
        contact = await factories.contact(account, name=name)
        await factories.contact_address(contact, "SMS")
        await factories.conversation(contact, last_activity_at=factories.now() - timedelta(days=days_ago))
    site.app.state.demo = Access(account.id)
    text = (await site.http.get("/demo/phone")).text
    assert "<h1>Late Leo</h1>" in text
    assert text.index("Late Leo") < text.index("Middle Mia") < text.index("Early Ana")


async def test_a_visitor_of_the_real_widget_has_no_phone(site: Site) -> None:
    account = await factories.account()
    await factories.channel_connection(account, "WEB_CHAT")
    widget = await factories.channel_connection(account, "WEB_CHAT", provider="web_chat")
    for name, address in (("Ana", "visitor_ana"), ("Website visitor x70z", f"vis_1@{public_id('chn', widget.id)}")):
        contact = await factories.contact(account, name=name)
        await factories.contact_address(contact, "WEB_CHAT", address=address)
        await factories.conversation(contact)
    site.app.state.demo = Access(account.id)
    text = (await site.http.get("/demo/phone")).text
    assert "<h1>Ana</h1>" in text
    assert "x70z" not in text
    form = {"contact": public_id("cnt", contact.id), "channel": "WEB_CHAT", "text": "Hello"}
    answer = await site.http.post("/demo/phone", data=form, headers={"Origin": site.base_url})
    assert (answer.status_code, await Message.all().count()) == (404, 0)


@pytest.mark.parametrize("name", ["create_request", "read_thread", "subscribe", "list_conversations", "save_view"])
def test_graphiqls_examples_fit_the_committed_schema(name: str) -> None:
    root = Path(__file__).resolve().parents[2]
    schema = build_schema((root / "schema" / "schema.graphql").read_text(encoding="utf-8"))
    assert validate(schema, parse((graphiql.EXAMPLES / f"{name}.graphql").read_text(encoding="utf-8"))) == []
