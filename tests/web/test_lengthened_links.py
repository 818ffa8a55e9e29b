"""Links with added characters open and do not count as guesses."""

from __future__ import annotations

import asyncio
from urllib.parse import quote, urlsplit

import pytest

from models.tables import CheckoutSession, OptOut
from services.thread import payment_links
from tests import factories
from tests.web.conftest import Site, snapshot
from tests.web.test_unsubscribe import link as unsubscribe_link

AFTER = [
    *".),!>\"'’…*_;:]}`|<\\^~»”“‘。，、！）」』】؟،।•–—",
    "?",
    "&amp;",
    "&amp;utm_source=sms",
    "&gt;",
    "&lt;br&gt;",
    "</a>",
    "<br/>",
    ").",
    '">',
    "**",
    "__",
    "_*",
    "-",
    "--",
    "-_",
    " ",
    "\n",
    "\r\n",
    "\t",
    "\nThanks",
    " Thanks for your order.",
    "Thanks",
    "\u00a0",
    "\u200b",
    "\u200e",
    "\ufeff",
    "\u2060",
    "\u00ad",
    "\U0001f600",
    "/",
    "//",
    ")/",
    "/pay",
    "/pay.",
    "/return)",
    "/view",
    "%2e",
    "%20",
    "%0A",
    "%0a%0d",
    "%C2%A0",
    "%e2%80%99",
    "%E2%80%A6",
    "%E2%80",
    "%FF",
    "%00",
    "%",
    "%2",
    "%22%3E",
    "%2520",
    "%26amp%3B",
    "%3Cbr%3E",
    "%2Fpay",
    "x" * 3000,
]
BEFORE = ["%20", "%0A", "<", "*", "_", "%E2%80%8B", '"', "%2F"]


async def ask(site: Site, method: str, target: str) -> tuple[int, str]:
    where = urlsplit(site.base_url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    head = answer.partition("\r\n\r\n")[0].split("\r\n")
    location = next((line[10:] for line in head if line.lower().startswith("location: ")), "")
    return int(head[0].split()[1]), location


async def known(token: str) -> None:
    account = await factories.account()
    await factories.payment_request(await factories.contact(account), clear_token=token, status="SENT")


@pytest.mark.parametrize("token", ["abcdefghijklmnopqrstuA", "-bcdefghijklmnopqrst_w", "_bcdefghijklmnopqrst-g"])
async def test_a_lengthened_link_leads_to_the_page_and_counts_as_no_guess(site: Site, token: str) -> None:
    await known(token)
    before = await snapshot()
    wrong = []
    for junk in AFTER:
        for sent in {junk, quote(junk, safe="%"), quote(junk, safe="%").lower()}:
            if set(sent) & set(" \t\r\n"):  # such bytes end a request line
                continue
            expected = (200, "") if sent.startswith("?") else (303, f"/p/{token}")
            for method in ("GET", "HEAD"):
                if await ask(site, method, f"/p/{token}{sent}") != expected:
                    wrong.append((method, sent[:20]))
    assert wrong == []
    for junk in BEFORE:
        assert await ask(site, "GET", f"/p/{junk}{token}{junk}") == (303, f"/p/{token}")
    assert await snapshot() == before
    # Unknown tokens count, lengthened or not.
    tries = [f"/p/{factories.token()}{junk}" for junk in ("", ".", "%20", "/pay", "_") * 4]
    assert [(await ask(site, "GET", target))[0] for target in tries] == [404] * 20
    assert (await ask(site, "GET", f"/p/{factories.token()}."))[0] == 429
    assert await ask(site, "GET", f"/p/{token}.") == (303, f"/p/{token}")


async def test_another_method_leads_to_the_page_and_does_nothing(site: Site) -> None:
    token = factories.token()
    await known(token)
    before = await snapshot()
    for method, path in [("GET", "/pay"), ("HEAD", "/pay"), ("GET", "/view"), ("GET", "/pay/"), ("GET", "/receipt")]:
        assert await ask(site, method, f"/p/{token}{path}") == (303, f"/p/{token}")
    for path in ("", "/", ".", "/return", "/live", "/pay/", "./pay", "/pay/pay"):
        assert await ask(site, "POST", f"/p/{token}{path}") == (303, f"/p/{token}")
    assert (await ask(site, "PUT", f"/p/{token}"))[0] == 405
    for method, path in [("GET", "/pay"), ("POST", ""), ("POST", "/return"), ("GET", ".")]:
        assert (await ask(site, method, f"/p/{factories.token()}{path}"))[0] == 404
    for path in ("/p/", "/p/x", "/p/%20"):
        assert (await ask(site, "GET", path))[0] == 404
    assert await snapshot() == before
    assert await CheckoutSession.all().count() == 0
    assert token not in site.log.getvalue()


async def test_a_lengthened_unsubscribe_link_works_by_one_click_too(site: Site) -> None:
    token = await unsubscribe_link(site)
    for junk in (">", "%3E", ".", "_", "-", "’", "%20", "/", "&amp;", "%0AThanks"):
        assert await ask(site, "GET", f"/unsubscribe/{token}{junk}") == (303, f"/unsubscribe/{token}")
    assert await OptOut.all().count() == 0
    answers = [(await ask(site, "POST", f"/unsubscribe/{token}{junk}"))[0] for junk in (">", "%3E", "")]
    assert answers == [200, 200, 200]
    assert await OptOut.all().count() == 1
    assert token not in site.log.getvalue()


def test_a_text_carries_its_link_whatever_stands_around_it() -> None:
    token = "_bcdefghijklmnopqrst-g"
    for before, after in [("_", "_"), ("*", "*"), ("__", "__"), ("", "-"), ("<", ">"), ("", "."), ("", "\nThanks")]:
        text = f"Pay here: {before}https://pay.example.test/p/{token}{after}"
        assert payment_links.tokens(text) == [token]
        assert token not in payment_links.hidden(text)
    assert payment_links.tokens("https://pay.example.test/p/short") == []
