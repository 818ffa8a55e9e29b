"""The widget's files: loader, page and headers."""

from __future__ import annotations

import gzip
import re
from typing import Any

from integrations.channels import web_chat
from models.ids import public_id, uuid7
from models.tables import ChannelConnection
from tests import factories
from tests.web.conftest import Site
from web.pages import STATIC

LOADER_LIMIT, FRAME_LIMIT = 3_000, 30_000  # bytes, gzipped


async def chat(*origins: str, **more: Any) -> ChannelConnection:
    values = {"provider": web_chat.NAME, "allowed_origins": list(origins), **more}
    secret = {"identity_secret": "s" * web_chat.SECRET_LENGTH}
    return await factories.channel_connection(await factories.account(), "WEB_CHAT", credentials=secret, **values)


def directives(policy: str) -> dict[str, str]:
    return {name: value for name, _, value in (part.strip().partition(" ") for part in policy.split(";"))}


async def test_the_browser_may_show_the_page_on_the_allowed_sites_alone(site: Site) -> None:
    row = await chat("https://shop.example", "https://*.example.com:8443")
    answer = await site.http.get(f"/widget/{public_id('chn', row.id)}")
    assert answer.status_code == 200
    policy = directives(answer.headers["content-security-policy"])
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "form-action": "'none'",
        "base-uri": "'none'",
        "frame-ancestors": "https://shop.example https://*.example.com:8443",
    }
    assert "x-frame-options" not in answer.headers
    assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == (
        "private, no-store",
        "nosniff",
    )


async def test_an_unknown_a_disconnected_an_empty_and_a_foreign_widget_answer_alike(site: Site) -> None:
    good = await chat("https://shop.example")
    off = await chat("https://shop.example", connected=False)
    empty = await chat()
    simulated = await chat("https://shop.example", provider="simulated")
    keys = [public_id("chn", one) for one in (off.id, empty.id, simulated.id, uuid7())]
    answers = [await site.http.get(f"/widget/{key}") for key in (*keys, "rubbish", "chn_%00")]
    assert {(a.status_code, a.headers["content-security-policy"], a.text) for a in answers} == {
        (404, answers[0].headers["content-security-policy"], answers[0].text)
    }
    assert directives(answers[0].headers["content-security-policy"])["frame-ancestors"] == "'none'"
    # The page contains nothing of the widget: an allowed one has the same body.
    assert (await site.http.get(f"/widget/{public_id('chn', good.id)}")).text == answers[0].text


async def test_the_loader_is_told_the_sites(site: Site) -> None:
    row = await chat("https://shop.example", "https://*.example.com")
    answer = await site.http.get(f"/widget/{public_id('chn', row.id)}/sites.js")
    assert answer.text == 'Paythread("sites", ["https://shop.example","https://*.example.com"]);\n'
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    empty = await chat()
    for key in (public_id("chn", empty.id), public_id("chn", uuid7()), "rubbish"):
        nothing = await site.http.get(f"/widget/{key}/sites.js")
        assert (nothing.status_code, nothing.text) == (200, 'Paythread("sites", []);\n')


async def test_the_loader_is_one_small_script_that_any_site_may_include(site: Site) -> None:
    answer = await site.http.get("/widget.js")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["cache-control"] == "public, max-age=3600"
    again = await site.http.get("/widget.js", headers={"If-None-Match": answer.headers["etag"]})
    assert again.text in ("", answer.text)
    assert len(gzip.compress(answer.content, 9)) <= LOADER_LIMIT


async def test_the_frame_is_small_and_all_its_own(site: Site) -> None:
    row = await chat("https://shop.example")
    page = (await site.http.get(f"/widget/{public_id('chn', row.id)}")).text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(file.startswith("/static/") for file in files)
    loaded = [page.encode(), *[(await site.http.get(file)).content for file in files]]
    assert sum(len(gzip.compress(part, 9)) for part in loaded) <= FRAME_LIMIT
    assert not re.search(r"<script>|<style|style=|\son\w+=", page)


def test_the_scripts_put_no_text_of_people_into_markup() -> None:
    for name in ("widget.js", "widget-frame.js"):
        text = (STATIC / name).read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text), (
            name
        )


async def test_the_demos_site_shows_the_demo_accounts_widget(site: Site) -> None:
    row = await chat("https://shop.example")
    await chat("https://other.example")
    assert "widget.js" not in (await site.http.get("/demo/site")).text

    class Access:
        account_id = row.account_id

    site.app.state.demo = Access()
    answer = await site.http.get("/demo/site")
    assert f'<script async src="/widget.js" data-key="{public_id("chn", row.id)}"></script>' in answer.text
    policy = directives(answer.headers["content-security-policy"])
    assert (policy["script-src"], policy["frame-src"], policy["frame-ancestors"]) == ("'self'", "'self'", "'none'")
