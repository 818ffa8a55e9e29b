"""A checkout ends at its processor without a webhook: the page and Pay find out, and a silent processor blocks nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest

from models.tables import CheckoutSession, MoneyFact, SandboxCheckout
from services.payments import checkout_reads
from tests.configured import change
from tests.contracts.openapi import Call
from tests.flows import harness
from tests.flows.conftest import Team, new_team
from tests.flows.vendors import Vendors, all_vendors, connect_processor, press_pay

pytestmark = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with all_vendors() as running:
        yield running
        assert running.stripe.violations + running.paypal.violations + running.square.violations == []


@pytest.fixture
async def shop(
    database: str, events_url: str, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Team]:
    """A team with every processor. The sweeper reads nothing here."""
    monkeypatch.setattr(checkout_reads, "CLOSE_WITHIN_S", 0.1)
    waits = {"SWEEPER_FIRST_CHECK_S": "3600", "SWEEPER_EVERY_S": "3600"}
    async with harness.in_process(database, events_url, **waits, **vendors.addresses) as product:
        team = await new_team(product)
        for kind in ("STRIPE", "PAYPAL", "SQUARE"):
            await connect_processor(team, vendors, kind)
        await team.connect_sandbox()
        change(page_reads_every=timedelta(0))
        yield team


def _paypal_order(url: str) -> str:
    return parse_qs(urlsplit(url).query)["token"][0]


def _last_part(url: str) -> str:
    return urlsplit(url).path.rpartition("/")[2]


async def _stripe_ends(vendors: Vendors, url: str) -> None:
    vendors.stripe.expire(_last_part(url))


async def _paypal_forgets(vendors: Vendors, url: str) -> None:
    del vendors.paypal.orders[_paypal_order(url)]


async def _square_cancels(vendors: Vendors, url: str) -> None:
    link = vendors.square.links.pop(_last_part(url))
    vendors.square.orders[link["order_id"]]["state"] = "CANCELED"


async def _square_deletes_the_link_only(vendors: Vendors, url: str) -> None:
    del vendors.square.links[_last_part(url)]


async def _sandbox_ends(vendors: Vendors, url: str) -> None:
    await SandboxCheckout.filter(external_id=_last_part(url)).update(status="EXPIRED")


END = [
    ("STRIPE", _stripe_ends),
    ("PAYPAL", _paypal_forgets),
    ("SQUARE", _square_cancels),
    ("SQUARE", _square_deletes_the_link_only),
    ("SANDBOX", _sandbox_ends),
]


async def test_pay_does_not_lead_to_a_checkout_that_has_ended(shop: Team, vendors: Vendors) -> None:
    maria = await shop.contact()
    for by_page in (False, True):
        for kind, end in END:
            request = await shop.request(maria, processorKind=kind)
            first = await press_pay(shop.product, request["checkoutUrl"])
            assert await press_pay(shop.product, request["checkoutUrl"]) == first
            await end(vendors, first)
            if by_page:  # by the processor's address for cancelling
                assert (await shop.product.http.get(request["checkoutUrl"])).status_code == 200
                states = await CheckoutSession.filter(status="OPEN", closing_at=None, url=first).count()
                assert (kind, states) == (kind, 0)
            second = await press_pay(shop.product, request["checkoutUrl"])
            assert second != first, kind
            assert await press_pay(shop.product, request["checkoutUrl"]) == second
    assert await MoneyFact.all().count() == 0


async def test_the_page_shows_a_payment_whose_webhook_is_lost(shop: Team, vendors: Vendors) -> None:
    maria = await shop.contact()
    request = await shop.request(maria, processorKind="STRIPE")
    vendors.stripe.pay(_last_part(await press_pay(shop.product, request["checkoutUrl"])))
    await shop.product.http.head(request["checkoutUrl"])
    assert (await shop.read(request))["status"] != "PAID"
    page = await shop.product.http.get(request["checkoutUrl"])
    assert "Amount paid" in page.text
    assert "<button" not in page.text


def _reads(vendors: Vendors) -> Callable[[], int]:
    def count() -> int:
        return sum(1 for call in vendors.stripe.calls if _is_read(call))

    return count


def _is_read(call: Call) -> bool:
    return call.method == "GET" and "/checkout/sessions/" in call.path


async def test_pages_read_a_checkout_at_most_once_in_a_while(shop: Team, vendors: Vendors) -> None:
    change(page_reads_every=timedelta(minutes=10))
    reads = _reads(vendors)
    maria = await shop.contact()
    request = await shop.request(maria, processorKind="STRIPE")
    url = request["checkoutUrl"]
    await press_pay(shop.product, url)
    assert reads() == 0
    async with httpx2.AsyncClient() as contact:
        await asyncio.gather(*(contact.get(url) for _ in range(5)), *(contact.post(url + "/pay") for _ in range(5)))
        assert reads() == 1
        await asyncio.gather(*(contact.get(url + "/return") for _ in range(5)))
        assert reads() == 2  # the first return is news
        await contact.get(url + "/live")
        await contact.post(url + "/view")
        await contact.head(url + "/return")
    assert reads() == 2


async def test_a_silent_processor_holds_no_page_up(
    shop: Team, vendors: Vendors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout_reads, "ANSWER_WITHIN_S", 0.2)
    maria = await shop.contact()
    request = await shop.request(maria, processorKind="STRIPE")
    url = request["checkoutUrl"]
    page = await press_pay(shop.product, url)
    vendors.stripe.fail_next("hang", times=9, match=_is_read)
    async with asyncio.timeout(8):  # the client's own limit for one call is longer
        assert (await shop.product.http.get(url)).status_code == 200
        assert await press_pay(shop.product, url) == page
        assert (await shop.product.http.get(url + "/return")).status_code == 303
    assert _reads(vendors)() == 2  # the page's and the return's
