"""A voucher or bank debit at Stripe: the page shows the pending payment, and the contact or the team can release the link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from models.tables import ActivityCard, CheckoutSession, MoneyFact, ProcessorEvent
from services.payments import integrity_check
from tests.configured import change
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, new_team
from tests.flows.harness import key
from tests.flows.vendors import Vendors, all_vendors, connect_processor, post, press_pay

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
NOW = """query($id: ID!) { paymentRequest(id: $id) { status linkReleasedAt excess { minorUnits } amountPaid { minorUnits }
  availableActions { action } } }"""


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with all_vendors() as running:
        yield running
        assert running.stripe.violations == []


@pytest.fixture
async def shop(database: str, events_url: str, vendors: Vendors) -> AsyncIterator[Team]:
    """A team with Stripe. The sweeper reads nothing here."""
    waits = {"SWEEPER_FIRST_CHECK_S": "3600", "SWEEPER_EVERY_S": "3600"}
    async with harness.in_process(database, events_url, **waits, **vendors.addresses) as product:
        team = await new_team(product)
        team.processor = await connect_processor(team, vendors, "STRIPE")
        change(page_reads_every=timedelta(0))
        yield team


async def tell(team: Team, vendors: Vendors, event: dict[str, Any]) -> None:
    body, headers = vendors.stripe.webhook(event)
    answer = await post(f"{team.product.base_url}{urlsplit(team.processor['webhookUrl']).path}", body, headers)
    assert answer.status_code == 200


async def page(url: str, path: str = "", **form: str) -> httpx2.Response:
    async with httpx2.AsyncClient(follow_redirects=True) as contact:
        if path:
            return await contact.post(url + path, data=form)
        return await contact.get(url)


async def begun(team: Team, vendors: Vendors, kind: str) -> tuple[dict[str, Any], str]:
    """A request whose voucher or debit was begun on 3 January; with Stripe's session."""
    request = await team.request(await team.contact())
    session = urlsplit(await press_pay(team.product, request["checkoutUrl"])).path.rpartition("/")[2]
    until = datetime(2026, 1, 6, 12, tzinfo=UTC)
    event = (
        vendors.stripe.pay_async(session)
        if kind == "sepa_debit"
        else vendors.stripe.take_voucher(session, kind=kind, until=until)
    )
    await tell(team, vendors, event)
    await CheckoutSession.filter(external_id=session).update(processing_at=datetime(2026, 1, 3, 12, tzinfo=UTC))
    return request, session


async def state(team: Team, request: dict[str, Any]) -> tuple[str, bool, bool, int, int]:
    """Status, whether released, whether it can be, what was paid, and the excess."""
    now = await team.product.one(NOW, {"id": request["id"]}, token=team.agent)
    can = "RELEASE_LINK" in [one["action"] for one in now["availableActions"]]
    paid, excess = (int(now[name]["minorUnits"]) for name in ("amountPaid", "excess"))
    return now["status"], now["linkReleasedAt"] is not None, can, paid, excess


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("oxxo", "You started a payment by OXXO on Jan 3. It can take until Jan 6."),
        ("boleto", "You started a payment by Boleto on Jan 3. It can take until Jan 6."),
        ("customer_balance", "You started a payment on Jan 3. It can take several days."),
        ("sepa_debit", "You started a payment by SEPA Direct Debit on Jan 3. It can take several days."),
    ],
)
async def test_the_contact_pays_another_way_and_what_arrives_twice_is_excess(
    shop: Team, vendors: Vendors, kind: str, words: str
) -> None:
    request, session = await begun(shop, vendors, kind)
    url = request["checkoutUrl"]
    shown = await page(url)
    assert words in shown.text
    assert ('action="' + urlsplit(url).path + '/another-way"' in shown.text, '/pay"' in shown.text) == (True, False)
    assert await state(shop, request) == ("PROCESSING", False, True, 0, 0)
    # Nothing happens without the confirmation, nor from another site's page.
    refused = await page(url, "/another-way")
    assert (refused.status_code, "Please confirm first" in refused.text) == (422, True)
    async with httpx2.AsyncClient() as stranger:
        foreign = await stranger.post(
            url + "/another-way", data={"confirm": "yes"}, headers={"Origin": "https://evil.example"}
        )
    assert foreign.status_code == 403
    assert await state(shop, request) == ("PROCESSING", False, True, 0, 0)
    freed = await page(url, "/another-way", confirm="yes")
    assert (freed.status_code, 'data-state="open"' in freed.text, '/pay"' in freed.text) == (200, True, True)
    assert "do not complete that payment" in freed.text
    assert await state(shop, request) == ("PROCESSING", True, False, 0, 0)
    card = urlsplit(await press_pay(shop.product, url)).path.rpartition("/")[2]
    assert card != session
    await tell(shop, vendors, vendors.stripe.pay(card))
    assert await state(shop, request) == ("PAID", False, False, 12000, 0)
    await tell(shop, vendors, vendors.stripe.async_succeed(session))
    assert await state(shop, request) == ("PAID", False, False, 24000, 12000)
    assert await integrity_check.audit(None) == []


@pytest.mark.parametrize("kind", ["oxxo", "customer_balance"])
async def test_the_team_frees_the_link_and_a_voucher_that_stripe_cancels_is_over(
    shop: Team, vendors: Vendors, kind: str
) -> None:
    vendors.stripe.cancels_intents = True
    request, session = await begun(shop, vendors, kind)
    given = {"idempotencyKey": key(), "paymentRequestId": request["id"]}
    done = await shop.product.ok(d.RELEASE, given, token=shop.agent)
    assert (done["paymentRequest"]["status"], done["activityCard"]["kind"]) == ("SENT", "PAYMENT_FAILED")
    assert (await shop.product.ok(d.RELEASE, given, token=shop.agent))["activityCard"] == done["activityCard"]
    assert vendors.stripe.intents[vendors.stripe.sessions[session]["payment_intent"]]["status"] == "canceled"
    assert await state(shop, request) == ("SENT", False, False, 0, 0)
    # Stripe's own words about it come afterwards, and change nothing.
    await tell(shop, vendors, vendors.stripe.events[-1])
    assert await state(shop, request) == ("SENT", False, False, 0, 0)
    assert await integrity_check.audit(None) == []


@pytest.mark.parametrize(
    ("kind", "by"), [("oxxo", "merchant"), ("customer_balance", "merchant"), ("boleto", "time"), ("sepa_debit", "time")]
)
async def test_a_voucher_that_ends_unpaid_opens_the_link_by_its_own_event(
    shop: Team, vendors: Vendors, kind: str, by: str
) -> None:
    request, session = await begun(shop, vendors, kind)
    if kind == "customer_balance":
        await tell(shop, vendors, vendors.stripe.fund_in_part(session, 5000))
        await handled()
        assert await state(shop, request) == ("PROCESSING", False, True, 0, 0)
    intent = vendors.stripe.sessions[session]["payment_intent"]
    ended = vendors.stripe.cancel_intent(intent) if by == "merchant" else vendors.stripe.async_fail(session)
    await tell(shop, vendors, ended)
    await handled()
    assert await state(shop, request) == ("SENT", False, False, 0, 0)
    facts = [fact.outcome for fact in await MoneyFact.all().order_by("id")]
    assert facts == ["PENDING", "CANCELED" if by == "merchant" else "FAILED"]
    assert await ActivityCard.filter(kind="PAYMENT_FAILED").count() == 1
    assert await integrity_check.audit(None) == []


async def handled() -> None:
    """Wait until every processor event is handled."""
    async with asyncio.timeout(30):
        while await ProcessorEvent.exists(handled_at=None):
            await asyncio.sleep(0.05)
