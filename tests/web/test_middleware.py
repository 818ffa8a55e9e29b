"""The ASGI middleware: body limits, throttling, headers, errors and the request log."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from models.tables import Message, PaymentRequest
from resolvers.transport import bodies
from services.core import rate_limits
from services.core.rate_limits import network_of
from services.messaging import mail
from tests import factories
from tests.web.conftest import Serve, Site
from web.middleware import body_limit, client_address

EIGHT = {
    "content-security-policy",
    "referrer-policy",
    "x-content-type-options",
    "cache-control",
    "x-robots-tag",
    "permissions-policy",
    "cross-origin-opener-policy",
    "strict-transport-security",
}
BROWSER = {"Accept": "text/html,application/xhtml+xml"}


async def test_every_page_and_every_error_has_all_eight_headers(serve: Serve) -> None:
    async with serve(public_url="https://pay.example.test") as site:
        token = factories.token()
        account = await factories.account()
        await factories.payment_request(await factories.contact(account), clear_token=token)
        http = site.http
        answers = [
            await http.get("/", headers=BROWSER),
            await http.get(f"/p/{token}", headers=BROWSER),
            await http.head(f"/p/{token}", headers=BROWSER),
            await http.post(f"/p/{token}/pay", headers=BROWSER),
            await http.post(f"/p/{token}/pay", headers={**BROWSER, "Origin": "https://evil.example"}),
            await http.get(f"/p/{token}/return", headers=BROWSER),
            await http.get(f"/p/{token}/pay", headers=BROWSER),
            await http.post(f"/p/{token}/view", headers=BROWSER),
            await http.get(f"/p/{factories.token()}", headers=BROWSER),
            await http.post(f"/p/{token}/pay", headers=BROWSER, content=b"x" * 5000),
            await http.get("/nowhere", headers=BROWSER),
            await http.get("/nowhere"),
            await http.get("/breaks", headers=BROWSER),
            await http.get("/busy", headers=BROWSER),
            await http.get("/demo/phone", headers=BROWSER),
            await http.get("/graphiql", headers=BROWSER),
            await http.get("/healthz"),
            await http.get("/metrics"),
            await http.post("/webhooks/sandbox/prc_x", content=b"{}"),
        ]
        codes = [answer.status_code for answer in answers]
        assert codes[:15] == [200, 200, 200, 303, 403, 303, 303, 204, 404, 413, 404, 404, 500, 503, 200]
        for answer in answers:
            assert EIGHT - set(answer.headers) == set(), answer.request.url
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "strict-origin"
            assert answer.headers["x-robots-tag"] == "noindex, nofollow"
            assert answer.headers["cross-origin-opener-policy"] == "same-origin"
        for answer in answers[:15]:
            assert answer.headers["cache-control"] == "private, no-store"


async def test_without_tls_no_strict_transport_security_is_claimed(site: Site) -> None:
    assert "strict-transport-security" not in (await site.http.get("/")).headers


async def test_an_unknown_link_is_answered_429_after_twenty_in_a_minute(site: Site) -> None:
    known = factories.token()
    account = await factories.account()
    await factories.payment_request(await factories.contact(account), clear_token=known)
    codes = [(await site.http.get(f"/p/{factories.token()}", headers=BROWSER)).status_code for _ in range(25)]
    assert codes == [404] * 20 + [429] * 5
    last = await site.http.get(f"/p/{factories.token()}", headers=BROWSER)
    assert last.headers["retry-after"] == "60"
    assert "Too many tries" in last.text
    assert "There is nothing here" not in last.text
    for path in ("pay", "view"):
        assert (await site.http.post(f"/p/{factories.token()}/{path}")).status_code == 429
    # Whoever shares the guesser's address can still pay.
    assert (await site.http.get(f"/p/{known}")).status_code == 200
    assert (await site.http.get("/elsewhere")).status_code == 404


async def test_the_brake_forgets_after_a_minute(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(21):
        last = await site.http.get(f"/p/{factories.token()}")
    assert last.status_code == 429
    monkeypatch.setattr(rate_limits, "_clock", lambda: time.monotonic() + 61)
    assert (await site.http.get(f"/p/{factories.token()}")).status_code == 404


async def test_the_brake_counts_by_the_address_that_our_proxy_saw(serve: Serve) -> None:
    async with serve(trust_proxy=True) as site:

        async def ask(forwarded: str) -> int:
            headers = {"X-Forwarded-For": forwarded}
            return (await site.http.get(f"/p/{factories.token()}", headers=headers)).status_code

        # The left part is the client's own claim: changing it does not help.
        codes = [await ask(f"10.0.0.{n}, 203.0.113.7") for n in range(21)]
        assert codes == [404] * 20 + [429]
        assert await ask("203.0.113.8") == 404


async def test_without_a_trusted_proxy_the_claimed_address_is_ignored(site: Site) -> None:
    codes = [
        (await site.http.get(f"/p/{factories.token()}", headers={"X-Forwarded-For": f"10.0.0.{n}"})).status_code
        for n in range(21)
    ]
    assert codes == [404] * 20 + [429]


@pytest.mark.parametrize("trusted", [False, True])
async def test_a_forwarded_address_that_is_ignored_is_logged_once(serve: Serve, trusted: bool) -> None:
    async with serve(trust_proxy=trusted) as site:
        await site.http.get("/healthz")
        assert "TRUST_PROXY" not in site.log.getvalue()
        for n in range(3):
            await site.http.get("/healthz", headers={"X-Forwarded-For": f"203.0.113.{n}"})
        warned = [line["event"] for line in site.lines() if "TRUST_PROXY" in line["event"]]
        expected = "X-Forwarded-For is ignored: set TRUST_PROXY=true if your proxy sends it"
        assert warned == ([] if trusted else [expected])
        assert "203.0.113" not in site.log.getvalue()


def test_an_ipv6_customer_counts_once() -> None:
    assert network_of("2001:db8:1:2:3::1") == network_of("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert network_of("2001:db8:1:2:3::1%eth0") == network_of("[2001:db8:1:2:3::1]:4711") == "2001:db8:1:2::/64"
    assert network_of("2001:db8:1:2::/64") == "2001:db8:1:2::/64"
    assert network_of("203.0.113.7") == network_of("203.0.113.7:4711") == "203.0.113.7"
    # Or all clients with IPv4 would be one.
    assert network_of("::ffff:203.0.113.7") == network_of("64:ff9b::203.0.113.7") == "203.0.113.7"
    assert network_of("unknown") == "unknown"
    assert network_of("") == ""


async def test_links_guessed_from_one_ipv6_network_are_counted_together(serve: Serve) -> None:
    async with serve(trust_proxy=True) as site:
        for path in ("/p", "/unsubscribe"):
            codes = [
                (
                    await site.http.get(
                        f"{path}/{factories.token()}",
                        headers={"X-Forwarded-For": f"2001:db8:{len(path)}::{number}"},
                    )
                ).status_code
                for number in range(21)
            ]
            assert codes == [404] * 20 + [429]


def test_the_last_forwarded_address_counts() -> None:
    scope = {
        "type": "http",
        "headers": [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2, 3.3.3.3")],
        "client": ("127.0.0.1", 1),
    }
    assert client_address(scope, trust_proxy=True) == "3.3.3.3"
    assert client_address(scope, trust_proxy=False) == "127.0.0.1"
    assert client_address({"type": "http", "headers": [], "client": None}, trust_proxy=True) == "unknown"


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/p/token/pay", 4 * 1024),
        ("/webhooks/stripe/prc_1", 512 * 1024),
        ("/inbound/twilio_sms/chn_1", 2 * 1024 * 1024),
        ("/inbound/smtp_email/chn_1", mail.LIMIT),
        ("/graphql", 128 * 1024),
        ("/anything", 128 * 1024),
    ],
)
def test_each_door_has_its_body_limit(path: str, limit: int) -> None:
    assert body_limit(path) == limit


async def test_a_body_at_the_limit_passes_and_one_byte_more_does_not(site: Site) -> None:
    limit = 128 * 1024
    assert (await site.http.post("/echo", content=b"x" * limit)).text == str(limit)
    over = await site.http.post("/echo", content=b"x" * (limit + 1))
    assert (over.status_code, over.headers["connection"]) == (413, "close")

    async def stream(size: int):  # type: ignore[no-untyped-def]
        for _ in range(size // 1024):
            yield b"x" * 1024

    assert (await site.http.post("/echo", content=stream(limit))).text == str(limit)
    assert (await site.http.post("/echo", content=stream(limit + 1024))).status_code == 413


async def test_a_slow_body_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "TIMEOUT_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.settings.port)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_client_that_leaves_in_the_middle_reaches_no_door(site: Site) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.settings.port)
    writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await site.http.get("/healthz")).status_code == 200
    assert [line for line in site.lines() if line.get("level") == "error"] == []


async def test_an_unexpected_error_is_masked_and_logged_with_its_place_only(site: Site) -> None:
    answer = await site.http.get("/breaks", headers=BROWSER)
    assert answer.status_code == 500
    assert "4242424242424242" not in answer.text
    assert "RuntimeError" not in answer.text
    assert answer.headers["x-request-id"] in answer.text
    (line,) = [line for line in site.lines() if line["level"] == "error"]
    assert line["error"] == "RuntimeError"
    assert line["request_id"] == answer.headers["x-request-id"]
    assert any("conftest.py" in place and "_breaks" in place for place in line["where"])
    assert "4242424242424242" not in site.log.getvalue()


async def test_a_busy_database_is_503_with_a_time_to_come_back(site: Site) -> None:
    answer = await site.http.get("/busy")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "60")


async def test_the_log_has_one_line_a_request_without_token_and_query(site: Site) -> None:
    token = factories.token()
    account = await factories.account()
    await factories.payment_request(await factories.contact(account, phone="+14155550123"), clear_token=token)
    answer = await site.http.get(f"/p/{token}?secret=abc&phone=%2B14155550123")
    await site.http.get("/nowhere/secret-path/forged")
    await site.http.get("/%0d%0a%1b[31m{forged}")
    lines = [line for line in site.lines() if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("GET", "/p/{token}", 200),
        ("GET", "(none)", 404),
        ("GET", "(none)", 404),
    ]
    assert lines[0]["request_id"] == answer.headers["x-request-id"]
    written = site.log.getvalue()
    for secret in (token, "secret", "4155550123", "forged", "\x1b"):
        assert secret not in written
    assert all(isinstance(json.loads(line), dict) for line in written.splitlines())


async def test_a_path_of_another_length_is_no_route_of_ours(site: Site) -> None:
    before = await PaymentRequest.all().count(), await Message.all().count()
    for path in ("/p", "/p/", "/p//pay", "/P/x", "/p/a/b/c"):
        assert (await site.http.get(path)).status_code in (404, 405)
    assert (await PaymentRequest.all().count(), await Message.all().count()) == before
