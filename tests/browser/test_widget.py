"""The web chat on two sites, one of them not allowed: live, after a reload, after being offline; nothing lost, nothing twice."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import jwt
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it ships no types
from playwright.sync_api import BrowserContext, FrameLocator, Page, Route, WebSocketRoute, expect

from tests.browser.conftest import Demo, Guard, NewContext

RESUMED_MS = 1_000
OFFLINE_S = 30


# -------------------------------------------------------------------------------------------------------------- sites
class Site:
    """A site of its own: every page of it has the widget, and a policy that allows script and frame of ours and nothing else."""

    def __init__(self, host: str, demo: Demo, key: str = "") -> None:
        self.key = key
        site, ours = self, demo.base_url

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = (
                    '<!doctype html><html lang="en"><head><title>A shop</title></head><body><main><h1>A shop</h1>'
                    f'<a href="/other">Another page</a></main><script async src="{ours}/widget.js" data-key="{site.key}">'
                    "</script></body></html>"
                ).encode()
                found = self.path != "/favicon.ico"
                self.send_response(200 if found else 204)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Security-Policy", f"default-src 'none'; script-src {ours}; frame-src {ours}")
                self.end_headers()
                if found:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.netloc = f"{host}:{self._server.server_address[1]}"
        self.origin = f"http://{self.netloc}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Chat:
    """A web chat of the demo account that is shown on one site, and what the agent does about it."""

    demo: Demo
    site: Site
    id: str
    secret: str
    contact: dict[str, Any] | None = None

    def newest(self) -> dict[str, Any]:
        """The conversation with the latest message, and its contact."""
        node: dict[str, Any] = self.demo.gql("{ conversations(first: 1) { nodes { id contact { id name } } } }")[
            "conversations"
        ]["nodes"][0]
        return node

    def thread(self, conversation_id: str) -> list[dict[str, Any]]:
        """Its messages, oldest first."""
        found = self.demo.gql(
            "query($id: ID!) { conversation(id: $id) { thread(last: 100) { nodes { __typename"
            " ... on Message { id direction body deliveryStatus } } } } }",
            id=conversation_id,
        )
        return [i for i in found["conversation"]["thread"]["nodes"] if i["__typename"] == "Message"]

    def says(self, body: str) -> str:
        """The agent answers in the newest conversation; the message's id."""
        payload = self.demo.gql(
            "mutation($input: SendMessageInput!) { sendMessage(input: $input) { message { id } userErrors { code message } } }",
            input={
                "idempotencyKey": str(uuid4()),
                "conversationId": self.newest()["id"],
                "channelId": self.id,
                "body": body,
            },
        )["sendMessage"]
        assert payload["userErrors"] == []
        return str(payload["message"]["id"])

    def asks(self, product: str = "Deep clean", amount: str = "25.00") -> dict[str, Any]:
        """The agent asks for money in the newest conversation: id, number, checkoutUrl."""
        made = self.demo.new_request(product, amount)
        payload = self.demo.gql(
            "mutation($input: SendPaymentRequestInput!) { sendPaymentRequest(input: $input) { userErrors { code message } } }",
            input={"idempotencyKey": str(uuid4()), "paymentRequestId": made["id"], "channelId": self.id},
        )["sendPaymentRequest"]
        assert payload["userErrors"] == []
        return made

    def identity(self, subject: str, **claims: Any) -> str:
        """The identity, signed as the site's server does."""
        now = datetime.now(UTC)
        given = {"aud": self.id, "sub": subject, "iat": now, "exp": now + timedelta(hours=1), **claims}
        return jwt.encode(given, self.secret, algorithm="HS256")


def connect(demo: Demo, origins: list[str]) -> tuple[str, str]:
    """A new web chat for these sites: its key and its identity secret."""
    channel = demo.gql(
        "mutation($input: ConnectChannelInput!) { connectChannel(input: $input) { channel { id } userErrors { code message } } }",
        input={"kind": "WEB_CHAT", "provider": "web_chat", "displayName": "Chat", "allowedOrigins": origins},
    )["connectChannel"]["channel"]["id"]
    secret = demo.gql(
        "mutation($input: RotateIdentitySecretInput!) { rotateIdentitySecret(input: $input) { secret } }",
        input={"channelId": channel},
    )["rotateIdentitySecret"]["secret"]
    return channel, secret


@pytest.fixture
def new_site(demo: Demo, guard: Guard) -> Iterator[Callable[..., Site]]:
    """Makes sites; the guard lets requests to them pass."""
    made: list[Site] = []

    def make(host: str = "localhost", key: str = "") -> Site:
        site = Site(host, demo, key)
        made.append(site)
        guard.sites.add(site.netloc)
        return site

    yield make
    for site in made:
        site.close()


@pytest.fixture
def chat(demo: Demo, new_site: Callable[..., Site]) -> Chat:
    """A site on another host than ours, with a web chat of its own."""
    site = new_site()
    site.key, secret = connect(demo, [site.origin])
    return Chat(demo, site, site.key, secret)


@pytest.fixture
def visitor(open_context: NewContext) -> BrowserContext:
    return open_context(viewport={"width": 1200, "height": 800})


def panel(page: Page) -> FrameLocator:
    return page.frame_locator("iframe[title=Chat]")


def opened(page: Page, site: Site) -> FrameLocator:
    """The chat, opened by its button and connected."""
    page.goto(site.origin)
    page.get_by_role("button", name="Chat").click()
    expect(panel(page).get_by_role("heading", name="Acme Cleaning")).to_be_visible()
    return panel(page)


def write(frame: FrameLocator, text: str) -> None:
    frame.get_by_label("Your message").fill(text)
    frame.get_by_role("button", name="Send").click()


def texts(frame: FrameLocator) -> list[str]:
    """The texts of the bubbles on the screen."""
    return frame.get_by_role("log").locator(".text").all_inner_texts()


def bubbles(frame: FrameLocator, count: int, *, timeout: float = 10_000) -> list[str]:
    """The bubbles' texts, once there are so many and none is on its way."""
    expect(frame.get_by_role("log").locator(".text")).to_have_count(count, timeout=timeout)
    expect(frame.get_by_text("Sending…")).to_have_count(0, timeout=timeout)
    return texts(frame)


def pay(context: BrowserContext, page: Page) -> Page:
    """Press Pay in the chat, and pay on the page that opens in a tab of its own."""
    with context.expect_page() as tab:
        panel(page).get_by_role("link", name="Pay $25.00").click()
    paying = tab.value
    paying.get_by_role("button", name="Pay $25.00").click()
    paying.wait_for_url("**/sandbox/pay/**")
    paying.get_by_role("button", name="Pay $25.00", exact=True).click()
    expect(paying.get_by_role("heading", name="Receipt")).to_be_visible()
    return paying


# -------------------------------------------------------------------------------------------------------------- story
def test_a_visitor_is_asked_and_pays_and_the_card_turns_paid_live(
    chat: Chat, visitor: BrowserContext, guard: Guard
) -> None:
    page = visitor.new_page()
    frame = opened(page, chat.site)
    expect(frame.get_by_label("Your message")).to_be_focused()
    write(frame, "Do you clean on Sundays?")
    assert bubbles(frame, 1) == ["Do you clean on Sundays?"]
    assert chat.newest()["contact"]["name"].startswith("Website visitor ")
    request = chat.asks()
    card = frame.get_by_role("group", name="Payment request: Deep clean")
    expect(card.get_by_text("$25.00", exact=True)).to_be_visible()
    expect(card.get_by_text(request["number"])).to_be_visible()
    assert request["checkoutUrl"] not in " ".join(texts(frame))  # the card stands for the link
    assert (len(texts(frame)), "Pay here" in texts(frame)[-1]) == (2, False)
    paying = pay(visitor, page)
    expect(card.get_by_text("Paid", exact=True)).to_be_visible()
    expect(card.get_by_role("link", name="View receipt")).to_have_attribute("href", request["checkoutUrl"])
    expect(card.get_by_role("link", name="Pay $25.00")).to_have_count(0)
    assert chat.demo.status(request["id"]) == "PAID"
    assert paying.url == request["checkoutUrl"]
    assert paying.evaluate("window.opener") is None
    # No token and no identity was ever in a URL.
    token = json.loads(page.evaluate("Object.values(localStorage)[0]"))["token"]
    assert token.startswith("ptv_")
    assert not [url for url in guard.asked if token in url]


def test_shown_is_delivered_and_seen_is_read(chat: Chat, visitor: BrowserContext) -> None:
    page = visitor.new_page()
    frame = opened(page, chat.site)
    write(frame, "Hello")
    bubbles(frame, 1)
    conversation = chat.newest()["id"]

    def state(message_id: str) -> str:
        return next(str(m["deliveryStatus"]) for m in chat.thread(conversation) if m["id"] == message_id)

    def reaches(message_id: str, wanted: str) -> None:
        for _ in range(100):
            if state(message_id) == wanted:
                return
            page.wait_for_timeout(50)
        assert state(message_id) == wanted

    seen = chat.says("Seen at once")
    reaches(seen, "READ")
    frame.get_by_role("button", name="Close chat").click()
    shown = chat.says("While it is closed")
    reaches(shown, "DELIVERED")
    expect(page.get_by_role("button", name="Chat (1)")).to_be_visible()
    assert state(shown) == "DELIVERED"
    page.get_by_role("button", name="Chat (1)").click()
    reaches(shown, "READ")
    expect(page.get_by_role("button", name="Chat", exact=True)).to_be_visible()


# -------------------------------------------------------------------------------------------------------------- sites
def test_a_site_that_is_not_allowed_shows_nothing_and_no_error(
    chat: Chat, visitor: BrowserContext, new_site: Callable[..., Site]
) -> None:
    stranger = new_site("127.0.0.1", chat.id)
    page = visitor.new_page()
    page.goto(stranger.origin)
    page.get_by_role("button", name="Chat").click()
    expect(page.get_by_role("button")).to_have_count(0)
    expect(page.locator("iframe")).to_have_count(0)
    page.evaluate("Paythread('open')")
    expect(page.locator("iframe")).to_have_count(0)
    # The same key on its own site, at the same time.
    other = visitor.new_page()
    write(opened(other, chat.site), "Hello")
    assert bubbles(panel(other), 1) == ["Hello"]


def test_what_the_loader_does_not_know_the_browser_refuses(
    chat: Chat, visitor: BrowserContext, new_site: Callable[..., Site], guard: Guard
) -> None:
    """The loader's list is only a hint: with a wrong one, the frame's header still decides."""
    guard.allowed.append("frame-ancestors")
    stranger = new_site("127.0.0.1", chat.id)
    told = f'Paythread("sites", ["{stranger.origin}"]);'
    visitor.route("**/sites.js", lambda route: route.fulfill(body=told, content_type="text/javascript"))
    page = visitor.new_page()
    page.goto(stranger.origin)
    page.get_by_role("button", name="Chat").click()
    expect(page.get_by_role("button")).to_have_count(0)
    expect(page.locator("iframe")).to_have_count(0)


def test_an_unknown_key_shows_nothing_and_no_error(visitor: BrowserContext, new_site: Callable[..., Site]) -> None:
    site = new_site(key="chn_00000000000000000000000000")
    page = visitor.new_page()
    page.goto(site.origin)
    page.get_by_role("button", name="Chat").click()
    expect(page.get_by_role("button")).to_have_count(0)
    expect(page.locator("iframe")).to_have_count(0)


def test_before_it_is_opened_the_chat_is_one_request(chat: Chat, visitor: BrowserContext, guard: Guard) -> None:
    page = visitor.new_page()
    page.goto(chat.site.origin)
    expect(page.get_by_role("button", name="Chat")).to_be_visible()
    page.wait_for_timeout(1_000)
    ours = [url for url in guard.asked if urlsplit(url).netloc == guard.host]
    assert ours == [f"{chat.demo.base_url}/widget.js"]
    assert page.locator("iframe").count() == 0
    assert page.evaluate("localStorage.length") == 0


def test_a_site_that_swaps_its_body_and_runs_the_snippet_again_keeps_one_chat(
    chat: Chat, visitor: BrowserContext, guard: Guard
) -> None:
    page = visitor.new_page()
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    frame = opened(page, chat.site)
    write(frame, "Hello")
    bubbles(frame, 1)
    frame.get_by_label("Your message").fill("half a sen")
    before = len(sockets)
    page.evaluate(
        """async () => {
            const snippet = document.querySelector("script[data-key]");
            for (let n = 0; n < 100; n++) {
                const body = document.createElement("body");
                body.append(`page ${n}`);
                document.body.replaceWith(body);
                if (n % 10) continue;
                const again = document.createElement("script");
                again.src = snippet.src;
                again.dataset.key = snippet.dataset.key;
                await new Promise((resolve) => { again.onload = resolve; body.append(again); });
            }
        }"""
    )
    expect(page.get_by_role("button", name="Chat")).to_have_count(1)
    expect(page.locator("iframe[title=Chat]")).to_have_count(1)
    expect(frame.get_by_label("Your message")).to_have_value("half a sen")
    assert len(sockets) == before
    assert bubbles(frame, 1) == ["Hello"]


def test_a_chat_that_was_taken_out_of_the_page_comes_back_as_it_was(chat: Chat, visitor: BrowserContext) -> None:
    page = visitor.new_page()
    frame = opened(page, chat.site)
    write(frame, "Hello")
    bubbles(frame, 1)
    page.evaluate("document.querySelectorAll('html > button, html > iframe').forEach((element) => element.remove())")
    assert bubbles(frame, 1) == ["Hello"]
    page.evaluate(
        """() => {
            const html = document.createElement("html");
            html.append(document.createElement("head"), document.createElement("body"));
            document.documentElement.replaceWith(html);
        }"""
    )
    assert bubbles(frame, 1) == ["Hello"]
    write(frame, "Still here")
    assert bubbles(frame, 2) == ["Hello", "Still here"]
    expect(page.get_by_role("button", name="Chat")).to_have_count(1)


def test_the_demos_own_site_has_the_chat(demo: Demo, visitor: BrowserContext) -> None:
    page = visitor.new_page()
    page.goto(f"{demo.base_url}/demo/site")
    page.get_by_role("button", name="Chat").click()
    expect(panel(page).get_by_role("heading", name="Acme Cleaning")).to_be_visible()
    write(panel(page), "Hello from the demo's site")
    assert bubbles(panel(page), 1) == ["Hello from the demo's site"]


# ------------------------------------------------------------------------------------- reload, offline, cuts, restarts
def test_a_reload_and_another_page_of_the_site_go_on_where_they_were(chat: Chat, visitor: BrowserContext) -> None:
    page = visitor.new_page()
    frame = opened(page, chat.site)
    write(frame, "First")
    bubbles(frame, 1)
    chat.says("An answer")
    assert bubbles(frame, 2) == ["First", "An answer"]
    for go in (page.reload, lambda: page.get_by_role("link", name="Another page").click()):
        go()
        expect(panel(page).get_by_role("log").locator(".text")).to_have_count(2)
    write(panel(page), "Second")
    assert bubbles(panel(page), 3) == ["First", "An answer", "Second"]
    panel(page).get_by_role("button", name="Close chat").click()
    page.reload()
    expect(page.locator("iframe")).to_be_attached()  # somebody who has written may have an answer
    chat.says("Another answer")
    expect(page.get_by_role("button", name="Chat (1)")).to_be_visible()
    assert [m["body"] for m in chat.thread(chat.newest()["id"])] == ["First", "An answer", "Second", "Another answer"]


def test_a_message_whose_answer_was_lost_is_sent_once_also_over_a_reload(
    chat: Chat, visitor: BrowserContext, guard: Guard
) -> None:
    guard.allowed.append("net::ERR_FAILED")
    page = visitor.new_page()
    frame = opened(page, chat.site)
    lost: list[str] = []

    def lose(route: Route) -> None:
        if "sendVisitorMessage" in (route.request.post_data or "") and len(lost) < 3:
            if len(lost) != 1:  # twice the server has it and the answer is lost, once nothing arrives
                route.fetch()
            lost.append(route.request.post_data or "")
            route.abort()
        else:
            route.fallback()

    visitor.route("**/widget/graphql", lose)
    write(frame, "Only once, please")
    expect(frame.get_by_text("Only once, please")).to_have_count(1)
    page.reload()
    write(panel(page), "And this")
    assert bubbles(panel(page), 2) == ["Only once, please", "And this"]
    page.reload()
    assert bubbles(panel(page), 2) == ["Only once, please", "And this"]
    assert len(lost) == 3
    assert [m["body"] for m in chat.thread(chat.newest()["id"])] == ["Only once, please", "And this"]


def test_after_30_seconds_offline_nothing_is_lost_and_nothing_is_there_twice(
    chat: Chat, visitor: BrowserContext, open_context: NewContext, guard: Guard, capsys: pytest.CaptureFixture[str]
) -> None:
    guard.allowed += ["ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED"]
    page = visitor.new_page()
    frame = opened(page, chat.site)
    write(frame, "Before")
    bubbles(frame, 1)
    request = chat.asks()
    expect(frame.get_by_role("link", name="Pay $25.00")).to_be_visible()
    visitor.set_offline(True)
    expect(frame.get_by_text("You are offline.")).to_be_visible()
    write(frame, "Written offline")
    expect(frame.get_by_text("Sending…")).to_be_visible()
    for n in range(3):
        chat.says(f"Answer {n}")
    payer = open_context().new_page()
    payer.goto(request["checkoutUrl"])
    payer.get_by_role("button", name="Pay $25.00").click()
    payer.wait_for_url("**/sandbox/pay/**")
    payer.get_by_role("button", name="Pay $25.00", exact=True).click()
    expect(payer.get_by_role("heading", name="Receipt")).to_be_visible()
    page.wait_for_timeout(OFFLINE_S * 1_000)
    assert len(texts(frame)) == 3  # Before, the request, what was written offline
    inner = next(f for f in page.frames if "/widget/" in f.url)
    inner.evaluate(
        """() => {
          const began = performance.now();
          window.resumed = new Promise((done) => new MutationObserver(() => {
            const log = document.querySelector('[role=log]');
            if (log.textContent.includes('Answer 2') && log.textContent.includes('View receipt')
              && !log.textContent.includes('Sending')) done(performance.now() - began);
          }).observe(document.body, { childList: true, subtree: true, characterData: true }));
        }"""
    )
    visitor.set_offline(False)
    took_ms = inner.evaluate("window.resumed")
    with capsys.disabled():
        print(f"offline {OFFLINE_S} s: all caught up {took_ms:.0f} ms after being back")  # noqa: T201
    assert took_ms < 10 * RESUMED_MS
    shown = bubbles(frame, 6)
    assert sorted(shown[2:]) == ["Answer 0", "Answer 1", "Answer 2", "Written offline"]
    stored = [m["body"] for m in chat.thread(chat.newest()["id"])]
    assert sorted(stored) == sorted([*shown[:1], *shown[2:], next(b for b in stored if request["checkoutUrl"] in b)])
    page.reload()
    assert sorted(bubbles(panel(page), 6)) == sorted(shown)


def test_cut_sockets_and_a_refusing_server_lose_nothing(chat: Chat, visitor: BrowserContext, guard: Guard) -> None:
    guard.allowed.append("WebSocket connection")
    sockets: list[WebSocketRoute] = []
    refused: list[int] = []

    def through(socket: WebSocketRoute) -> None:
        if refused:
            refused.pop()
            socket.close(code=1013)
            return
        sockets.append(socket)
        socket.connect_to_server()

    visitor.route_web_socket("**/widget/graphql", through)
    page = visitor.new_page()
    frame = opened(page, chat.site)
    write(frame, "Hello")
    bubbles(frame, 1)
    for n, code in enumerate((1012, 1013, 4403, 1001)):
        refused.extend([1, 1] if code == 1012 else [])
        sockets[-1].close(code=code)
        chat.says(f"After {code}")
        bubbles(frame, n + 2)
    assert texts(frame) == ["Hello", *(f"After {code}" for code in (1012, 1013, 4403, 1001))]
    assert refused == []
    assert len(sockets) >= 5


def test_two_tabs_show_the_same_conversation(chat: Chat, visitor: BrowserContext) -> None:
    first = visitor.new_page()
    write(opened(first, chat.site), "From the first tab")
    bubbles(panel(first), 1)
    second = visitor.new_page()
    frame = opened(second, chat.site)
    assert bubbles(frame, 1) == ["From the first tab"]
    write(frame, "From the second tab")
    assert bubbles(panel(first), 2) == bubbles(frame, 2) == ["From the first tab", "From the second tab"]


# ----------------------------------------------------------------------------------------------------------- identity
def test_identify_and_reset_follow_the_sites_sign_in(chat: Chat, visitor: BrowserContext) -> None:
    page = visitor.new_page()
    frame = opened(page, chat.site)
    write(frame, "Before signing in")
    bubbles(frame, 1)
    page.evaluate("(token) => Paythread('identify', token)", chat.identity("42", name="Maria Lopez"))
    expect(frame.get_by_label("Your message")).to_be_visible()
    write(frame, "Signed in")
    assert bubbles(frame, 2) == ["Before signing in", "Signed in"]
    assert chat.newest()["contact"]["name"] == "Maria Lopez"
    # Without the identity the browser's token opens nothing, and the page is told.
    page.add_init_script("window.addEventListener('paythread:identity', () => { window.wanted = true; });")
    page.reload()
    expect(frame.get_by_text("Sign in on this site to see your conversation.")).to_be_visible()
    assert texts(frame) == []
    page.wait_for_function("window.wanted")
    page.evaluate("(token) => Paythread('identify', token)", chat.identity("42"))
    assert bubbles(frame, 2) == ["Before signing in", "Signed in"]
    # Signed out: another person at this browser begins with nothing.
    page.evaluate("Paythread('reset')")
    expect(frame.get_by_role("log").locator(".text")).to_have_count(0)
    write(frame, "Somebody else")
    assert bubbles(frame, 1) == ["Somebody else"]
    assert chat.newest()["contact"]["name"].startswith("Website visitor ")


# ------------------------------------------------------------------------------------------------------ for everybody
def test_keyboard_and_screen_reader_find_their_way(chat: Chat, visitor: BrowserContext) -> None:
    page = visitor.new_page()
    page.goto(chat.site.origin)
    button = page.get_by_role("button", name="Chat")
    expect(button).to_have_attribute("aria-expanded", "false")
    button.focus()
    page.keyboard.press("Enter")
    frame = panel(page)
    expect(frame.get_by_label("Your message")).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "true")
    # Tab goes round inside the panel.
    stops = []
    for _ in range(5):
        page.keyboard.press("Tab")
        inner = next(f for f in page.frames if "/widget/" in f.url)
        stops.append(inner.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    assert stops == ["send", "close", "scroll", "text", "send"]
    page.keyboard.press("Escape")
    expect(button).to_have_attribute("aria-expanded", "false")
    expect(button).to_be_focused()
    expect(page.locator("iframe")).to_be_hidden()
    page.keyboard.press("Enter")
    expect(frame.get_by_label("Your message")).to_be_focused()
    page.keyboard.type("By keyboard")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("in two lines")
    page.keyboard.press("Enter")
    assert bubbles(frame, 1) == ["By keyboard\nin two lines"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(320, 560), (390, 780), (1200, 800)])
def test_it_fits_every_screen_and_fills_a_small_one(
    chat: Chat, open_context: NewContext, width: int, height: int, scheme: Any
) -> None:
    context = open_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    frame = opened(page, chat.site)
    write(frame, "Grundreinigung-der-Einbauküchenhochschrankoberseiten " * 3)
    bubbles(frame, 1)
    chat.asks("Grundreinigung-der-Einbauküchenhochschrankoberseiten " * 3)
    expect(frame.get_by_role("link", name="Pay $25.00")).to_be_visible()
    box = page.locator("iframe").bounding_box()
    assert box is not None
    if width < 480:
        assert (box["x"], box["y"], box["width"], box["height"]) == (0, 0, width, height)
        expect(page.get_by_role("button", name="Chat")).to_be_hidden()
    else:
        assert box["x"] + box["width"] <= width
        assert box["y"] >= 0
    inner = next(f for f in page.frames if "/widget/" in f.url)
    assert inner.evaluate(
        "document.documentElement.scrollWidth <= innerWidth && document.body.scrollHeight <= innerHeight"
    )
    for target in [*frame.get_by_role("button").all(), *frame.locator(".button").all()]:
        size = target.bounding_box()
        assert size is not None
        assert min(size["width"], size["height"]) >= 44
    background = inner.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(16, 22, 21)") == (scheme == "dark")


def violations(page: Page) -> list[str]:
    """What axe finds in the chat's frame: rule and element."""
    inner = next(f for f in page.frames if "/widget/" in f.url)
    found = Axe().run(inner).response["violations"]
    return [f"{rule['id']}: {node['html']}" for rule in found for node in rule["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(390, 780), (1200, 800)])
def test_axe_finds_nothing_in_any_state(
    chat: Chat, open_context: NewContext, guard: Guard, width: int, height: int, scheme: Any
) -> None:
    guard.allowed += ["ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED"]
    context = open_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    frame = opened(page, chat.site)
    found = {"open": violations(page)}
    write(frame, "Hello")
    bubbles(frame, 1)
    chat.asks()
    expect(frame.get_by_role("link", name="Pay $25.00")).to_be_visible()
    found["card"] = violations(page)
    pay(context, page)
    expect(frame.get_by_text("Paid", exact=True)).to_be_visible()
    found["paid"] = violations(page)
    context.set_offline(True)
    write(frame, "Are you there?")
    expect(frame.get_by_text("Sending…")).to_be_visible()
    found["offline"] = violations(page)
    assert found == {"open": [], "card": [], "paid": [], "offline": []}


def test_axe_would_find_a_fault(chat: Chat, visitor: BrowserContext) -> None:
    page = visitor.new_page()
    frame = opened(page, chat.site)
    frame.get_by_role("button", name="Send").evaluate("button => { button.textContent = ''; button.ariaLabel = '' }")
    assert [one.partition(":")[0] for one in violations(page)] == ["button-name"]


def test_the_newest_words_stay_in_view(chat: Chat, open_context: NewContext, guard: Guard) -> None:
    guard.allowed += ["ERR_INTERNET_DISCONNECTED", "ERR_NETWORK_CHANGED"]
    context = open_context(viewport={"width": 390, "height": 500})
    page = context.new_page()
    frame = opened(page, chat.site)
    write(frame, "Hello")
    bubbles(frame, 1)
    for n in range(6):
        chat.says(f"Line {n}")
    bubbles(frame, 7)
    expect(frame.get_by_text("Line 5")).to_be_in_viewport(ratio=1)
    context.set_offline(True)  # a line about it takes room from the list
    expect(frame.get_by_text("You are offline.")).to_be_visible()
    expect(frame.get_by_text("Line 5")).to_be_in_viewport(ratio=1)
    context.set_offline(False)
    # A reader who has scrolled up stays there.
    expect(frame.get_by_text("You are offline.")).to_have_count(0)
    frame.get_by_text("Hello").scroll_into_view_if_needed()
    page.wait_for_timeout(100)
    chat.says("Line 6")
    bubbles(frame, 8)
    expect(frame.get_by_text("Hello")).to_be_in_viewport()
    expect(frame.get_by_text("Line 6")).not_to_be_in_viewport()


@pytest.mark.parametrize(
    ("language", "label", "pays", "sending"),
    [
        ("de-DE", "Ihre Nachricht", "25,00\xa0$ bezahlen", "Senden"),
        ("fr-CA", "Votre message", "Payer 25,00\xa0$\xa0US", "Envoyer"),
        ("pt-BR", "Sua mensagem", "Pagar US$\xa025,00", "Enviar"),
        ("es-MX", "Su mensaje", "Pagar USD\xa025.00", "Enviar"),
        ("ja-JP", "Your message", "Pay $25.00", "Send"),
    ],
)
def test_it_speaks_the_languages_of_the_pay_page(
    chat: Chat, open_context: NewContext, language: str, label: str, pays: str, sending: str
) -> None:
    page = open_context(locale=language).new_page()
    frame = opened(page, chat.site)
    frame.get_by_label(label).fill("Hello")
    frame.get_by_role("button", name=sending).click()
    expect(frame.get_by_role("log").locator("time")).to_have_count(1)
    chat.asks()
    assert frame.locator(".button").inner_text() == pays
    inner = next(f for f in page.frames if "/widget/" in f.url)
    assert inner.evaluate("document.documentElement.lang").startswith(language[:2] if language != "ja-JP" else "en")


def test_every_language_has_every_text(chat: Chat, visitor: BrowserContext) -> None:
    page = visitor.new_page()
    opened(page, chat.site)
    inner = next(f for f in page.frames if "/widget/" in f.url)
    texts = inner.evaluate("PAYTHREAD_TEXTS")
    marks = {name: sorted(re.findall(r"\{\w+\}", text)) for name, text in texts["en"].items()}
    assert sorted(texts) == ["de", "en", "es", "fr", "pt"]
    for language, found in texts.items():
        assert {name: sorted(re.findall(r"\{\w+\}", text)) for name, text in found.items()} == marks, language


HOSTILE = ("<img src=x onerror=\"document.title='owned'\">", 'javascript:alert(1) https://x"onmouseover=alert(1)//')


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_words_are_only_text(chat: Chat, visitor: BrowserContext, words: str) -> None:
    page = visitor.new_page()
    frame = opened(page, chat.site)
    write(frame, words)
    assert bubbles(frame, 1) == [words]
    chat.says(words)
    assert bubbles(frame, 2) == [words, words]
    inner = next(f for f in page.frames if "/widget/" in f.url)
    assert "owned" not in inner.title()
    links = inner.evaluate("[...document.querySelectorAll('.text a')].map((a) => [a.protocol, a.attributes.length])")
    assert all(protocol in ("http:", "https:") and count == 4 for protocol, count in links)


def test_the_page_of_the_frame_is_quiet_on_its_own(chat: Chat, visitor: BrowserContext) -> None:
    """Opened as a page, it gets no message port and does nothing."""
    page = visitor.new_page()
    answer = page.goto(f"{chat.demo.base_url}/widget/{chat.id}")
    assert answer is not None
    assert answer.status == 200
    expect(page.get_by_role("heading", name="Chat")).to_be_visible()


def test_a_page_that_pretends_to_be_the_frame_gets_no_port(chat: Chat, visitor: BrowserContext) -> None:
    page = visitor.new_page()
    opened(page, chat.site)
    got: Mapping[str, Any] = page.evaluate(
        """async () => {
          const got = [];
          window.addEventListener('message', (event) => got.push(event.ports.length));
          window.postMessage('paythread:ready', '*');
          await new Promise((done) => setTimeout(done, 300));
          return { ports: got };
        }"""
    )
    assert got == {"ports": [0]}
