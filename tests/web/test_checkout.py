"""The checkout page: states, status codes, redirects."""

from __future__ import annotations

import gzip
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from typing import Any

import pytest

from models.tables import Account, CheckoutSession, MoneyFact, PaymentRequest, SandboxCheckout
from tests import factories
from tests.web.conftest import Serve, Site, snapshot

NOW = datetime.now(UTC)
PHONE = "Mozilla/5.0 (Linux; Android 14; Pixel 7) AppleWebKit/537.36 Chrome/156.0.0.0 Mobile Safari/537.36"
ROBOTS = [
    "WhatsApp/2.23.20.0 A",
    "facebookexternalhit/1.1",
    "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "TelegramBot (like TwitterBot)",
    "curl/8.5.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Unknown; Linux x86_64) AppleWebKit/538.1 (KHTML, like Gecko) PhantomJS/2.1.1 Safari/538.1",
    "Mozilla/5.0 (compatible; Barracuda Sentinel)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Mimecast-URL-Protect",
    "Mozilla/5.0 (compatible; Proofpoint URL Defense)",
    "GoogleMessages/20261101",
    "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0 Prerender (+https://github.com/prerender/prerender)",
    "axios/1.7.2",
    "",
]
# A browser's user agent; the other headers announce a prefetch.
MACHINES = [
    {"Sec-Purpose": "prefetch;prerender"},
    {"Purpose": "prefetch"},
    {"X-Moz": "prefetch"},
    {"Sec-CH-UA": '"Chromium";v="156", "HeadlessChrome";v="156"'},
]

STATES: dict[str, tuple[dict[str, Any], int, bool]] = {
    # name: (row, HTTP code, whether it can be paid)
    "draft": ({}, 200, True),
    "sent": ({"status": "SENT", "sent_at": NOW}, 200, True),
    "partly": ({"status": "PARTIALLY_PAID", "amount_paid_minor": 2500, "sent_at": NOW}, 200, True),
    "declined": (
        {"status": "SENT", "sent_at": NOW, "last_attempt_status": "FAILED", "last_attempt_at": NOW},
        200,
        True,
    ),
    "processing": ({"status": "PROCESSING", "sent_at": NOW}, 200, False),
    "void pending": ({"status": "SENT", "sent_at": NOW, "void_requested_at": NOW}, 200, False),
    "paid": ({"status": "PAID", "amount_paid_minor": 12500, "paid_at": NOW, "sent_at": NOW}, 200, False),
    "void": ({"status": "VOID", "void_requested_at": NOW, "voided_at": NOW, "sent_at": NOW}, 410, False),
    "discarded": ({"discarded_at": NOW}, 404, False),
}


async def _request(token: str, **overrides: Any) -> PaymentRequest:
    account = await factories.account(
        name="Bright Homes", contact_email="hello@bright.test", contact_phone="+14155550100"
    )
    contact = await factories.contact(account)
    return await factories.payment_request(contact, clear_token=token, **overrides)


class _Page(HTMLParser):
    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.texts: list[str] = []
        self.meta: dict[str, str] = {}
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, tuple(name for name, _ in attrs)))
        values = dict(attrs)
        if tag == "meta" and "property" in values:
            self.meta[values["property"] or ""] = values["content"] or ""

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("dt", "strong", "title", "p"):
            self.texts.append(" ")

    def count(self, tag: str) -> int:
        return sum(1 for name, _ in self.tags if name == tag)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).split())


@pytest.mark.parametrize("state", STATES)
async def test_each_state_has_its_code_and_only_an_open_one_has_a_pay_button(site: Site, state: str) -> None:
    row, code, payable = STATES[state]
    token = factories.token()
    request = await _request(token, **row)
    answer = await site.http.get(f"/p/{token}")
    assert answer.status_code == code
    page = _Page(answer.text)
    assert page.count("h1") == 1
    assert page.count("form") == (1 if payable else 0)
    assert page.count("button") == (1 if payable else 0)
    assert page.count("input") == 0
    assert "style" not in {name for name, _ in page.tags}
    if code != 404:
        assert "Bright Homes" in page.text
        assert "Deep clean" in page.text
        assert request.number in page.text
        assert "hello@bright.test" in page.text
        assert "+14155550100" in page.text


async def test_an_open_page_names_amount_currency_and_processor(site: Site) -> None:
    token = factories.token()
    await _request(token, description="Two rooms\nand the stairs", due_at=datetime(2060, 12, 1, tzinfo=UTC))
    page = _Page((await site.http.get(f"/p/{token}")).text)
    assert "Amount due $125.00 USD" in page.text
    assert "Pay $125.00" in page.text
    assert "Two rooms and the stairs" in page.text
    assert "Due November 30, 2060" in page.text  # midnight ends the day before
    assert "Test mode" in page.text
    assert "You pay on the page of Sandbox" in page.text
    assert page.meta["og:title"] == "Deep clean: $125.00"
    assert page.meta["og:site_name"] == "Bright Homes"
    assert page.meta["og:url"] == f"{site.base_url}/p/{token}"


async def test_a_partly_paid_page_asks_for_the_rest(site: Site) -> None:
    token = factories.token()
    await _request(token, **STATES["partly"][0])
    page = _Page((await site.http.get(f"/p/{token}")).text)
    assert "Pay $100.00" in page.text
    assert "$25.00 of $125.00 is already paid." in page.text


@pytest.mark.parametrize(
    ("due_at", "zone", "day"),
    [
        (datetime(2060, 12, 1, 5, tzinfo=UTC), "America/New_York", "November 30, 2060"),  # midnight there
        (datetime(2060, 12, 1, 5, 0, 1, tzinfo=UTC), "America/New_York", "December 1, 2060"),
        (datetime(2060, 12, 1, 22, 59, tzinfo=UTC), "Europe/Berlin", "December 1, 2060"),
        (datetime(2060, 12, 1, 23, tzinfo=UTC), "Europe/Berlin", "December 1, 2060"),
        (datetime(2018, 11, 4, 3, tzinfo=UTC), "America/Sao_Paulo", "November 3, 2018"),  # a day without midnight
        (datetime(2020, 1, 1, tzinfo=UTC), "UTC", "December 31, 2019"),
    ],
)
async def test_a_page_names_the_last_day_on_which_it_is_not_overdue(
    site: Site, due_at: datetime, zone: str, day: str
) -> None:
    token = factories.token()
    request = await _request(token, due_at=due_at, status="SENT", sent_at=NOW)
    await Account.filter(id=request.account_id).update(time_zone=zone)
    page = _Page((await site.http.get(f"/p/{token}")).text)
    assert f"Due {day}" in page.text
    assert (f"This payment was due on {day}." in page.text) == (due_at < NOW)
    assert page.count("button") == 1


async def test_a_paid_page_is_a_receipt_without_an_amount_due(site: Site) -> None:
    token = factories.token()
    request = await _request(
        token, status="PAID", amount_paid_minor=12500, paid_at=datetime(2026, 11, 23, 10, 5, tzinfo=UTC)
    )
    await factories.money_fact(request, method_summary="Visa •••• 4242")
    page = _Page((await site.http.get(f"/p/{token}")).text)
    assert "Amount paid $125.00 USD" in page.text
    assert "Paid with Visa •••• 4242" in page.text
    assert re.search(r"Paid on November 23, 2026, 10:05.AM UTC", page.text)
    assert "Amount due" not in page.text
    assert page.meta["og:title"] == "Deep clean: paid"


async def test_a_void_page_shows_no_amount(site: Site) -> None:
    token = factories.token()
    await _request(token, **STATES["void"][0])
    page = _Page((await site.http.get(f"/p/{token}")).text)
    assert "was cancelled" in page.text
    assert "125" not in page.text
    assert page.meta["og:title"] == "Deep clean: cancelled"


async def test_a_declined_try_is_told_and_can_be_repeated(site: Site) -> None:
    token = factories.token()
    await _request(token, **STATES["declined"][0])
    answer = await site.http.get(f"/p/{token}")
    assert 'role="alert"' in answer.text
    assert "Nothing was charged" in answer.text
    assert "Pay $125.00" in answer.text


async def test_amounts_follow_the_accounts_locale_and_lang_the_language_of_the_texts(site: Site) -> None:
    account = await factories.account(locale="de-DE", default_currency="EUR")
    token = factories.token()
    await factories.payment_request(
        await factories.contact(account), clear_token=token, amount_minor=8000, currency="EUR"
    )
    answer = await site.http.get(f"/p/{token}")
    assert "Pay 80,00\u00a0€" in answer.text
    assert '<html lang="en" dir="ltr">' in answer.text


@pytest.mark.parametrize("state", STATES)
async def test_get_and_head_change_nothing_whoever_asks(site: Site, state: str) -> None:
    token = factories.token()
    await _request(token, **STATES[state][0])
    before = await snapshot()
    for agent in [PHONE, *ROBOTS]:
        headers = {"User-Agent": agent}
        shown = await site.http.get(f"/p/{token}", headers=headers)
        assert (await site.http.head(f"/p/{token}", headers=headers)).status_code == shown.status_code
        await site.http.get(f"/p/{token}/live", headers=headers)
        await site.http.head(f"/p/{token}/return", headers=headers)
        for path in ("pay", "view"):
            codes = (404, 429) if state == "discarded" else (303,)
            assert (await site.http.get(f"/p/{token}/{path}", headers=headers)).status_code in codes
            assert (await site.http.head(f"/p/{token}/{path}", headers=headers)).status_code in codes
    assert await snapshot() == before
    assert await CheckoutSession.all().count() == 0


async def test_pay_opens_one_checkout_and_reuses_it(site: Site) -> None:
    token = factories.token()
    request = await _request(token)
    answers = [await site.http.post(f"/p/{token}/pay") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [303, 303, 303]
    session = await CheckoutSession.get(payment_request_id=request.id)
    assert {answer.headers["location"] for answer in answers} == {session.url}
    assert (session.amount_minor, session.currency, session.status) == (12500, "USD", "OPEN")
    assert await SandboxCheckout.all().count() == 1


async def test_pay_on_an_expired_checkout_opens_a_new_one_silently(site: Site) -> None:
    token = factories.token()
    request = await _request(token)
    old = await factories.checkout_session(request, status="EXPIRED", expires_at=NOW - timedelta(hours=1))
    answer = await site.http.post(f"/p/{token}/pay")
    assert answer.status_code == 303
    assert answer.headers["location"] != old.url
    assert await CheckoutSession.filter(payment_request_id=request.id).count() == 2


@pytest.mark.parametrize("state", ["processing", "void pending", "paid", "void", "discarded"])
async def test_pay_answers_with_the_page_when_there_is_nothing_to_pay(site: Site, state: str) -> None:
    row, code, _ = STATES[state]
    token = factories.token()
    await _request(token, **row)
    before = await snapshot()
    answer = await site.http.post(f"/p/{token}/pay")
    assert answer.status_code == code
    assert "<button" not in answer.text
    assert await snapshot() == before


async def test_without_javascript_the_contact_pays_and_comes_back_to_a_receipt(site: Site) -> None:
    token = factories.token()
    request = await _request(token)
    opened = await site.http.post(f"/p/{token}/pay")
    pressed = await site.http.post(opened.headers["location"], data={"action": "pay"})
    assert (pressed.status_code, pressed.headers["location"]) == (303, f"{site.base_url}/p/{token}/return")
    back = await site.http.get(pressed.headers["location"])
    assert (back.status_code, back.headers["location"]) == (303, f"/p/{token}")
    page = _Page((await site.http.get(f"/p/{token}")).text)
    assert "Amount paid $125.00 USD" in page.text
    assert "Test card •••• 4242" in page.text
    assert (await PaymentRequest.get(id=request.id)).status == "PAID"
    await site.run_jobs()  # the webhook of the same money
    assert await MoneyFact.filter(payment_request_id=request.id).count() == 1


async def test_a_declined_payment_leaves_the_page_open(site: Site) -> None:
    token = factories.token()
    request = await _request(token)
    opened = await site.http.post(f"/p/{token}/pay")
    await site.http.post(opened.headers["location"], data={"action": "decline"})
    await site.run_jobs()
    answer = await site.http.get(f"/p/{token}")
    assert answer.status_code == 200
    assert "Nothing was charged" in answer.text
    assert "Pay $125.00" in answer.text
    assert (await PaymentRequest.get(id=request.id)).amount_paid_minor == 0


async def test_the_return_address_alone_never_marks_paid(site: Site) -> None:
    token = factories.token()
    request = await _request(token)
    await site.http.post(f"/p/{token}/pay")
    answer = await site.http.get(f"/p/{token}/return")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/p/{token}")
    assert (await PaymentRequest.get(id=request.id)).status == "DRAFT"
    assert await MoneyFact.all().count() == 0


async def test_a_processor_that_does_not_answer_is_told_and_nothing_is_charged(serve: Serve) -> None:
    async with serve(sandbox_url="http://127.0.0.1:9") as site:
        token = factories.token()
        await _request(token)
        answer = await site.http.post(f"/p/{token}/pay")
        assert answer.status_code == 503
        assert 'role="alert"' in answer.text
        assert "Nothing was charged" in answer.text
        assert "Pay $125.00" in answer.text


async def test_a_view_counts_for_people_and_not_for_robots(site: Site) -> None:
    token = factories.token()
    request = await _request(token)
    for agent in ROBOTS:
        answer = await site.http.post(f"/p/{token}/view", headers={"User-Agent": agent})
        assert answer.status_code == 204
    for more in MACHINES:
        answer = await site.http.post(f"/p/{token}/view", headers={"User-Agent": PHONE, **more})
        assert answer.status_code == 204
    assert (await PaymentRequest.get(id=request.id)).human_views == 0
    assert (await site.http.post(f"/p/{token}/view", headers={"User-Agent": PHONE})).status_code == 204
    seen = await PaymentRequest.get(id=request.id)
    assert (seen.human_views, seen.status, seen.sent_via) == (1, "SENT", "LINK_COPIED")


async def test_the_pages_tag_stays_after_a_look_and_changes_with_the_state(site: Site) -> None:
    token = factories.token()
    request = await _request(token)
    first = (await site.http.get(f"/p/{token}/live")).json()
    shown = (await site.http.get(f"/p/{token}")).text
    assert f'data-tag="{first["tag"]}"' in shown
    assert (await site.http.get(f"/p/{token}/live")).json() == first
    await PaymentRequest.filter(id=request.id).update(status="PAID", amount_paid_minor=12500)
    after = (await site.http.get(f"/p/{token}/live")).json()
    assert after["state"] == "paid"
    assert after["tag"] != first["tag"]


@pytest.mark.parametrize("path", ["pay", "view"])
async def test_a_foreign_page_cannot_post(site: Site, path: str) -> None:
    token = factories.token()
    await _request(token)
    before = await snapshot()
    for origin in ("https://evil.example", "null", f"{site.base_url}.evil.example", "http://localhost:1"):
        answer = await site.http.post(f"/p/{token}/{path}", headers={"Origin": origin, "User-Agent": PHONE})
        assert answer.status_code == 403
    assert await snapshot() == before
    assert (
        await site.http.post(f"/p/{token}/{path}", headers={"Origin": site.base_url, "User-Agent": PHONE})
    ).status_code in (204, 303)


TRICKS = [
    {"Host": "evil.example"},
    {"X-Forwarded-Host": "evil.example"},
    {"X-Forwarded-Proto": "javascript"},
    {"Forwarded": "host=evil.example"},
    {"Referer": "https://evil.example/"},
    {"X-Original-URL": "/evil"},
    {"X-Rewrite-URL": "/evil"},
    {"X-HTTP-Method-Override": "DELETE"},
]
QUERIES = [
    f"{name}={value}"
    for name in ("next", "url", "return", "redirect", "success_url", "cancel_url")
    for value in ("https://evil.example", "//evil.example", "javascript:alert(1)", "%0d%0aLocation:%20//evil.example")
]


async def test_nothing_in_a_request_changes_where_it_leads(site: Site) -> None:
    token = factories.token()
    await _request(token)
    right = (await site.http.post(f"/p/{token}/pay")).headers["location"]
    assert right.startswith(f"{site.base_url}/sandbox/pay/")
    for headers in TRICKS:
        assert (await site.http.post(f"/p/{token}/pay", headers=headers)).headers["location"] == right
        assert (await site.http.get(f"/p/{token}/return", headers=headers)).headers["location"] == f"/p/{token}"
    for query in QUERIES:
        assert (await site.http.post(f"/p/{token}/pay?{query}")).headers["location"] == right
        assert (await site.http.get(f"/p/{token}/return?{query}")).headers["location"] == f"/p/{token}"


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg onload=alert(1)>",
    "</title><script>alert(1)</script>",
    "</main></body><iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
    "{0.__class__} {business} %s",
    "&lt;script&gt;",
    "javascript:alert(1)",
    '" autofocus onfocus=alert(1) x="',
    "\u202egnp.exe",
    "<!-- --><![CDATA[",
]


async def test_hostile_texts_add_no_tag_and_no_attribute(site: Site) -> None:
    async def page_of(text: str, state: str) -> _Page:
        token = factories.token()
        account = await factories.account(name=text, contact_email=text, contact_phone=text[:20])
        request = await factories.payment_request(
            await factories.contact(account, name=text),
            clear_token=token,
            product_name=text,
            description=text,
            **STATES[state][0],
        )
        if state == "paid":
            await factories.money_fact(request, method_summary=text)
        answer = await site.http.get(f"/p/{token}")
        page = _Page(answer.text)
        assert text.strip() in "".join(page.texts)
        return page

    for state in ("sent", "partly", "declined", "processing", "paid", "void"):
        plain = await page_of("Plain", state)
        for text in HOSTILE:
            assert (await page_of(text, state)).tags == plain.tags


async def test_a_page_is_small_and_asks_nobody_else(site: Site) -> None:
    token = factories.token()
    await _request(token, description="x" * 2000)
    answer = await site.http.get(f"/p/{token}")
    addresses = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    loaded = [address for address in addresses if not address.startswith(("mailto:", "tel:"))]
    assert len(loaded) == 3
    assert all(address.startswith("/static/") for address in loaded)
    size = len(gzip.compress(answer.content))
    for address in loaded:
        part = await site.http.get(address)
        assert part.status_code == 200
        assert part.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert not re.search(rb"@import|@font-face|https?://(?!www\.w3\.org)", part.content)
        size += len(gzip.compress(part.content))
    assert size <= 30_000


async def test_unknown_discarded_and_malformed_links_answer_alike(site: Site) -> None:
    token = factories.token()
    await _request(token, discarded_at=NOW)
    bodies = set()
    for unknown in (token, factories.token(), "short", "x" * 500, "../../etc/passwd", "%00", "%E2%82%AC" * 8):
        answer = await site.http.get(f"/p/{unknown}", headers={"Accept": "text/html"})
        assert answer.status_code == 404
        bodies.add(answer.text)
    assert len(bodies) == 1


async def test_pay_may_lead_only_to_ourselves_and_the_processor(site: Site) -> None:
    token = factories.token()
    await _request(token)
    policy = (await site.http.get(f"/p/{token}")).headers["content-security-policy"]
    assert policy == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        f"form-action 'self' {site.base_url}; base-uri 'none'; frame-ancestors 'none'"
    )
