"""The sandbox as a vendor: its API, hosted page and webhooks, over real HTTP on both databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from integrations.base import CheckoutStatus, MoneyOutcome, ProcessorWebhook, SignatureInvalid
from integrations.processors.sandbox import Sandbox
from models import database as db
from models.ids import public_id
from models.tables import SandboxCheckout
from services.core import job_runner
from services.sandbox import hosted_page
from tests import factories
from tests.contracts.sandbox_home import SECRET_KEY, WEBHOOK_SECRET, SandboxHome
from tests.integrations.test_processor_contract import order


@pytest.fixture
async def home(database: str) -> AsyncIterator[SandboxHome]:
    async with SandboxHome() as made:
        yield made


@pytest.fixture
async def provider(home: SandboxHome) -> AsyncIterator[Sandbox]:
    made = home.provider()
    yield made
    await made.aclose()


@pytest.fixture
async def checkout(provider: Sandbox) -> str:
    return (await provider.create_checkout(order())).external_id


def receive(provider: Sandbox, delivery: tuple[bytes, dict[str, str]]) -> ProcessorWebhook:
    return provider.receive(*delivery, now=datetime.now(UTC))


async def row(external_id: str) -> SandboxCheckout:
    return await SandboxCheckout.get(external_id=external_id)


async def run_out(external_id: str) -> None:
    await SandboxCheckout.filter(external_id=external_id).update(expires_at=datetime.now(UTC) - timedelta(seconds=1))


# --------------------------------------------------------------------------------------------------------------- page
async def test_the_page_shows_what_is_bought_and_has_no_card_field(home: SandboxHome, checkout: str) -> None:
    page = await home.http.get(f"/sandbox/pay/{checkout}")
    assert page.status_code == 200
    for text in ("<h1>Boiler repair</h1>", "$125.00", "PR-0000042", "Acme Plumbing", "Test mode", "Parts &amp; labour"):
        assert text in page.text
    for action in ("pay", "pay_twice", "decline", "challenge", "pay_later", "pay_later_fail", "cancel"):
        assert f'name="action" value="{action}"' in page.text
    for forbidden in ("<input", "<script", "style=", "<style", 'role="alert"'):
        assert forbidden not in page.text


async def test_every_page_carries_the_headers_of_a_pay_page(home: SandboxHome, checkout: str) -> None:
    for address in (f"/sandbox/pay/{checkout}", f"/sandbox/pay/{checkout}/challenge"):
        headers = (await home.http.get(address)).headers
        policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["script-src"], policy["style-src"]) == ("'none'", "'self'", "'self'")
        assert (policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'")
        assert policy["form-action"] == "'self' https://pay.example.test"
        assert headers["referrer-policy"] == "strict-origin"
        assert headers["cache-control"] == "private, no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert "noindex" in headers["x-robots-tag"]


async def test_looking_changes_nothing(home: SandboxHome, checkout: str) -> None:
    before = await row(checkout)
    for method in ("GET", "HEAD"):
        for address in (f"/sandbox/pay/{checkout}", f"/sandbox/pay/{checkout}/challenge"):
            assert (await home.http.request(method, address)).status_code == 200
    await run_out(checkout)
    assert (await home.http.get(f"/sandbox/pay/{checkout}")).status_code == 410
    after = await row(checkout)
    assert (after.status, after.payments, after.updated_at) == ("OPEN", [], before.updated_at)
    assert await home.deliver() == []


async def test_what_a_business_writes_is_shown_as_text(home: SandboxHome, provider: Sandbox) -> None:
    nasty = "<script>alert(1)</script>\"'&"
    made = await provider.create_checkout(order(product_name=nasty, description=nasty))
    for address in (f"/sandbox/pay/{made.external_id}", f"/sandbox/pay/{made.external_id}/challenge"):
        page = (await home.http.get(address)).text
        assert "<script" not in page
        assert "&lt;script&gt;" in page


@pytest.mark.parametrize("external_id", ["sbx_co_unknown", "x" * 300, "sbx_co_%00", "..%2fother"])
async def test_an_unknown_page_is_not_found(home: SandboxHome, external_id: str) -> None:
    assert (await home.http.get(f"/sandbox/pay/{external_id}")).status_code == 404
    assert (await home.http.post(f"/sandbox/pay/{external_id}", data={"action": "pay"})).status_code == 404


# ------------------------------------------------------------------------------------------------------------ buttons
async def test_pay_leads_back_and_sends_one_signed_webhook(home: SandboxHome, provider: Sandbox, checkout: str) -> None:
    answer = await home.press(checkout, "pay")
    assert (answer.status_code, answer.headers["location"]) == (303, order().success_url)
    (delivery,) = await home.deliver()
    event = receive(provider, delivery)
    (money,) = event.money
    assert (event.type, event.decides, event.checkout_status) == ("checkout.completed", True, CheckoutStatus.COMPLETED)
    assert str(event.external_id).startswith("sbx_evt_")
    assert (money.external_id[:8], money.outcome, money.amount_minor) == ("sbx_pay_", MoneyOutcome.SUCCEEDED, 12500)
    assert money.method_summary == "Test card •••• 4242"
    page = await home.http.get(f"/sandbox/pay/{checkout}")
    assert (page.status_code, "This checkout is paid." in page.text, "<button" in page.text) == (200, True, False)


@pytest.mark.parametrize("action", ["pay", "decline", "challenge", "approve", "pay_later", "pay_twice"])
async def test_what_is_paid_is_not_paid_again(home: SandboxHome, checkout: str, action: str) -> None:
    await home.press(checkout, "pay")
    assert len(await home.deliver()) == 1
    again = await home.press(checkout, action)
    assert (again.status_code, 'role="alert"' in again.text) == (409, True)
    stored = await row(checkout)
    assert (stored.status, len(stored.payments)) == ("COMPLETED", 1)
    assert await home.deliver() == []


async def test_five_presses_at_once_pay_once(home: SandboxHome, checkout: str) -> None:
    answers = await asyncio.gather(*(home.press(checkout, "pay") for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [303, 409, 409, 409, 409]
    assert len((await row(checkout)).payments) == 1
    assert len(await home.deliver()) == 1


async def test_a_decline_charges_nothing_and_says_so(home: SandboxHome, provider: Sandbox, checkout: str) -> None:
    answer = await home.press(checkout, "decline")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/sandbox/pay/{checkout}")
    page = await home.http.get(f"/sandbox/pay/{checkout}")
    assert (page.status_code, page.text.count('role="alert"')) == (200, 1)
    assert "declined, nothing was charged" in page.text
    assert 'value="pay"' in page.text
    (delivery,) = await home.deliver()
    event = receive(provider, delivery)
    assert (event.type, event.checkout_status) == ("checkout.payment_failed", CheckoutStatus.OPEN)
    assert (event.money[0].outcome, event.money[0].failure_code) == (MoneyOutcome.FAILED, "card_declined")
    assert (await row(checkout)).status == "OPEN"


async def test_each_attempt_is_a_money_of_its_own(home: SandboxHome, provider: Sandbox, checkout: str) -> None:
    for action in ("decline", "reject", "approve"):
        await home.press(checkout, action)
    read = await provider.read_checkout(checkout)
    assert [m.outcome for m in read.money] == [MoneyOutcome.FAILED, MoneyOutcome.FAILED, MoneyOutcome.SUCCEEDED]
    assert [m.failure_code for m in read.money] == ["card_declined", "authentication_failed", None]
    assert len({m.external_id for m in read.money}) == 3
    events = [receive(provider, delivery) for delivery in await home.deliver()]
    assert {e.money[0].external_id for e in events} == {m.external_id for m in read.money}


async def test_the_banks_check_may_be_passed_or_not(home: SandboxHome, checkout: str) -> None:
    answer = await home.press(checkout, "challenge")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/sandbox/pay/{checkout}/challenge")
    assert ((await row(checkout)).payments, await home.deliver()) == ([], [])
    page = await home.http.get(answer.headers["location"])
    assert 'value="approve"' in page.text
    assert 'value="reject"' in page.text
    rejected = await home.press(checkout, "reject")
    assert rejected.headers["location"] == f"/sandbox/pay/{checkout}"
    assert (await row(checkout)).status == "OPEN"
    approved = await home.press(checkout, "approve")
    assert approved.headers["location"] == order().success_url
    assert (await row(checkout)).status == "COMPLETED"
    assert (await home.http.get(f"/sandbox/pay/{checkout}/challenge")).status_code == 409


@pytest.mark.parametrize(
    ("action", "status", "outcome"),
    [
        ("pay_later", CheckoutStatus.COMPLETED, MoneyOutcome.SUCCEEDED),
        ("pay_later_fail", CheckoutStatus.FAILED, MoneyOutcome.FAILED),
    ],
)
async def test_a_delayed_payment_is_settled_once(
    home: SandboxHome,
    provider: Sandbox,
    checkout: str,
    action: str,
    status: CheckoutStatus,
    outcome: MoneyOutcome,
) -> None:
    answer = await home.press(checkout, action)
    assert answer.headers["location"] == order().success_url
    (pending,) = await home.deliver()
    assert receive(provider, pending).money[0].outcome is MoneyOutcome.PENDING
    assert (await home.press(checkout, "pay")).status_code == 409
    await home.settle()
    (settled,) = await home.deliver()
    assert (receive(provider, settled).checkout_status, receive(provider, settled).money[0].outcome) == (
        status,
        outcome,
    )
    assert receive(provider, settled).money[0].external_id == receive(provider, pending).money[0].external_id
    await db.execute("UPDATE job SET status = 'queued', attempts = 0 WHERE kind = 'sandbox.settle'")
    assert await home.deliver() == []
    assert len((await row(checkout)).payments) == 1


async def test_paying_twice_takes_the_money_twice(home: SandboxHome, provider: Sandbox, checkout: str) -> None:
    await home.press(checkout, "pay_twice")
    events = [receive(provider, delivery) for delivery in await home.deliver()]
    assert [e.money[0].outcome for e in events] == [MoneyOutcome.SUCCEEDED] * 2
    assert len({e.money[0].external_id for e in events}) == len({e.external_id for e in events}) == 2
    read = await provider.read_checkout(checkout)
    assert (read.status, sum(m.amount_minor for m in read.money)) == (CheckoutStatus.COMPLETED, 25000)


async def test_cancel_leads_back_and_changes_nothing(home: SandboxHome, checkout: str) -> None:
    answer = await home.press(checkout, "cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, order().cancel_url)
    assert ((await row(checkout)).status, (await row(checkout)).payments) == ("OPEN", [])
    assert await home.deliver() == []


@pytest.mark.parametrize("body", [b"", b"action=steal", b"action=", b"x" * 5000, b"\xff\xfe", b"action=pay%00"])
async def test_a_form_that_is_none_of_ours_changes_nothing(home: SandboxHome, checkout: str, body: bytes) -> None:
    answer = await home.http.post(f"/sandbox/pay/{checkout}", content=body)
    assert answer.status_code in (400, 413)
    assert ((await row(checkout)).status, (await row(checkout)).payments) == ("OPEN", [])
    assert await home.deliver() == []


async def test_a_checkout_whose_time_is_over_is_closed_and_told_once(
    home: SandboxHome, provider: Sandbox, checkout: str
) -> None:
    await run_out(checkout)
    assert (await home.press(checkout, "pay")).status_code == 409
    assert (await home.press(checkout, "pay")).status_code == 409
    assert (await provider.read_checkout(checkout)).status is CheckoutStatus.EXPIRED
    (delivery,) = await home.deliver()
    event = receive(provider, delivery)
    assert (event.type, tuple(event.money), event.checkout_status) == ("checkout.expired", (), CheckoutStatus.EXPIRED)
    assert (await home.http.get(f"/sandbox/pay/{checkout}")).status_code == 410


# ----------------------------------------------------------------------------------------------------------- webhooks
async def test_a_webhook_that_is_not_taken_is_sent_again_as_the_same_event(home: SandboxHome, checkout: str) -> None:
    home.door_status = 500
    await home.press(checkout, "pay")
    (first,) = await home.deliver()
    assert [j["status"] for j in await db.rows("SELECT status FROM job WHERE kind = 'sandbox.webhook'")] == ["queued"]
    home.door_status = 200
    await db.execute("UPDATE job SET due_at = created_at WHERE kind = 'sandbox.webhook'")
    (second,) = await home.deliver()
    assert json.loads(first[0]) == json.loads(second[0])
    assert await home.deliver() == []


@pytest.mark.parametrize("off_by", [timedelta(minutes=-6), timedelta(minutes=6)])
async def test_a_signed_webhook_of_another_time_is_refused(
    home: SandboxHome, provider: Sandbox, checkout: str, off_by: timedelta
) -> None:
    await home.press(checkout, "pay")
    (delivery,) = await home.deliver()
    with pytest.raises(SignatureInvalid) as refused:
        provider.receive(*delivery, now=datetime.now(UTC) + off_by)
    assert refused.value.reason == "signature_stale"
    assert receive(provider, delivery).decides


async def test_webhooks_are_signed_with_the_first_of_two_secrets(database: str) -> None:
    async with SandboxHome(webhook_secret="sbx_whsec_new, sbx_whsec_old") as home:
        provider = home.provider(webhook_secret="sbx_whsec_new")
        made = await provider.create_checkout(order())
        await home.press(made.external_id, "pay")
        (delivery,) = await home.deliver()
        await provider.aclose()
        assert receive(provider, delivery).decides


async def test_without_a_webhook_secret_the_job_ends(database: str) -> None:
    async with SandboxHome(webhook_secret=" ") as home:
        provider = home.provider()
        made = await provider.create_checkout(order())
        await provider.aclose()
        await home.press(made.external_id, "pay")
        assert await home.deliver() == []
        assert [j["status"] for j in await db.rows("SELECT status FROM job WHERE kind = 'sandbox.webhook'")] == ["dead"]


async def test_a_change_and_its_webhook_are_committed_together(home: SandboxHome, checkout: str) -> None:
    class Stop(Exception):
        pass

    async def pay_and_fail() -> None:
        async with db.transaction():
            await hosted_page.perform(checkout, "pay")
            raise Stop

    with pytest.raises(Stop):
        await pay_and_fail()
    assert ((await row(checkout)).status, (await row(checkout)).payments) == ("OPEN", [])
    assert await job_runner.Runner().run_due() == 0


# ---------------------------------------------------------------------------------------------------------------- API
def api_order(home: SandboxHome, **changes: Any) -> dict[str, Any]:
    account = public_id("prc", home.connection.id)
    return {
        "amount_minor": 12500,
        "currency": "USD",
        "request_reference": "pr_1",
        "number": "PR-1",
        "product_name": "Boiler repair",
        "success_url": "https://pay.example.test/ok",
        "cancel_url": "https://pay.example.test/no",
        "webhook_url": f"{home.server.url}/webhooks/sandbox/{account}",
    } | changes


async def post(home: SandboxHome, body: Any, **headers: str) -> httpx2.Response:
    usual = {
        "authorization": f"Bearer {SECRET_KEY}",
        "paythread-sandbox-account": public_id("prc", home.connection.id),
        "idempotency-key": "key-1",
    }
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await home.http.post("/sandbox/v1/checkouts", content=content, headers=usual | headers)


@pytest.mark.parametrize(
    "changes",
    [
        {"amount_minor": 0},
        {"amount_minor": -1},
        {"amount_minor": 1.5},
        {"amount_minor": "100"},
        {"amount_minor": True},
        {"amount_minor": 10**12},
        {"currency": "usd"},
        {"currency": "XXX"},
        {"currency": ["USD"]},
        {"product_name": "nul\0"},
        {"success_url": "https://nul\0"},
        {"request_reference": ""},
        {"request_reference": "x" * 61},
        {"number": 5},
        {"product_name": "x" * 256},
        {"product_name": None},
        {"description": 5},
        {"success_url": "javascript:alert(1)"},
        {"success_url": "/relative"},
        {"cancel_url": None},
        {"webhook_url": None},
        {"webhook_url": "http://169.254.169.254/latest/meta-data"},
        {"webhook_url": "http://localhost:22/"},
    ],
)
async def test_an_order_that_is_not_valid_makes_nothing(home: SandboxHome, changes: dict[str, Any]) -> None:
    answer = await post(home, api_order(home, **changes))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert await home.checkouts() == 0


@pytest.mark.parametrize(
    ("body", "status"), [(b"", 400), (b"[]", 400), (b"null", 400), (b'{"a":', 400), (b" " * 70_000, 413)]
)
async def test_a_body_that_is_no_order_makes_nothing(home: SandboxHome, body: bytes, status: int) -> None:
    assert (await post(home, body)).status_code == status
    assert await home.checkouts() == 0


@pytest.mark.parametrize("key", ["", "k" * 81])
async def test_a_checkout_needs_a_key(home: SandboxHome, key: str) -> None:
    answer = await post(home, api_order(home), **{"idempotency-key": key})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "idempotency_key_missing")
    assert await home.checkouts() == 0


async def test_nobody_else_gets_in(home: SandboxHome, checkout: str) -> None:
    account = await factories.account()
    other = await factories.processor_connection(
        account, credentials={"secret_key": "sbx_other_key", "webhook_secret": WEBHOOK_SECRET}
    )
    real = await factories.processor_connection(
        account, processor="stripe", credentials={"secret_key": "sbx_other_key", "webhook_secret": WEBHOOK_SECRET}
    )
    mine, theirs = public_id("prc", home.connection.id), public_id("prc", other.id)
    refused = [
        (mine, ""),
        (mine, "Bearer"),
        (mine, f"Basic {SECRET_KEY}"),
        (mine, SECRET_KEY),
        (mine, f"Bearer {SECRET_KEY}x"),
        (mine, "Bearer sbx_other_key"),
        (theirs, f"Bearer {SECRET_KEY}"),
        (public_id("prc", real.id), "Bearer sbx_other_key"),
        ("", f"Bearer {SECRET_KEY}"),
        ("prc_nobody", f"Bearer {SECRET_KEY}"),
        (str(home.connection.id), f"Bearer {SECRET_KEY}"),
    ]
    for name, authorization in refused:
        headers = {"paythread-sandbox-account": name, "authorization": authorization}
        answer = await home.http.get(f"/sandbox/v1/checkouts/{checkout}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "authentication_failed")
    headers = {"paythread-sandbox-account": theirs, "authorization": "Bearer sbx_other_key"}
    for method, address in (("GET", checkout), ("POST", f"{checkout}/expire")):
        answer = await home.http.request(method, f"/sandbox/v1/checkouts/{address}", headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert (await row(checkout)).status == "OPEN"


async def test_the_same_key_of_two_accounts_makes_two_checkouts(home: SandboxHome, provider: Sandbox) -> None:
    made = await provider.create_checkout(order())
    other = await factories.processor_connection(
        await factories.account(), credentials={"secret_key": SECRET_KEY, "webhook_secret": WEBHOOK_SECRET}
    )
    name = public_id("prc", other.id)
    body = api_order(home, webhook_url=f"{home.server.url}/webhooks/sandbox/{name}")
    headers = {"paythread-sandbox-account": name, "idempotency-key": order().idempotency_key}
    answer = await post(home, body, **headers)
    assert answer.status_code == 200
    assert answer.json()["id"] != made.external_id
    assert await home.checkouts() == 2
