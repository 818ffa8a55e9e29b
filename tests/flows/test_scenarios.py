"""The sandbox scenarios over HTTP: each ends in its documented state, through the sandbox's signed webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from models.tables import MoneyFact, ProcessorEvent
from services.payments import projection
from services.sandbox.fees import fee_of
from tests.configured import change
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Product

RUN = f"""mutation($input: RunSandboxScenarioInput!) {{ runSandboxScenario(input: $input) {{
  paymentRequest {{ id status }} {d.ERRORS} }} }}"""
ASKED = "PAYMENT_REQUEST"
PAID = [ASKED, "PAYMENT_RECEIVED"]
FEE = 378  # of 120.00: 2.9 % and 30
SUMMARY = "query($id: ID!) { contact(id: $id) { paymentSummary { paid { minorUnits } net { minorUnits } } } }"
# scenario -> status, cards, (excess, late, settled) in minor units, refundState, disputeState
ENDS: dict[str, tuple[str, list[str], tuple[int, int, int], str, str]] = {
    "DUPLICATE_WEBHOOKS": ("PAID", PAID, (0, 0, 12000), "NONE", "NONE"),
    "DELAYED_WEBHOOK": ("PAID", PAID, (0, 0, 12000), "NONE", "NONE"),
    "DROPPED_WEBHOOK": ("PAID", PAID, (0, 0, 12000), "NONE", "NONE"),
    "DECLINED": ("SENT", [ASKED, "PAYMENT_FAILED"], (0, 0, 0), "NONE", "NONE"),
    "ASYNC_SUCCEEDS": ("PAID", [ASKED, "PAYMENT_PROCESSING", "PAYMENT_RECEIVED"], (0, 0, 12000), "NONE", "NONE"),
    "ASYNC_FAILS": ("SENT", [ASKED, "PAYMENT_PROCESSING", "PAYMENT_FAILED"], (0, 0, 0), "NONE", "NONE"),
    "VOUCHER": ("PROCESSING", [ASKED, "PAYMENT_PROCESSING"], (0, 0, 0), "NONE", "NONE"),
    "DISPUTE_LOST": ("PAID", [*PAID, "DISPUTE_OPENED", "DISPUTE_CLOSED"], (0, 0, 12000), "NONE", "LOST"),
    "DISPUTE_WON": ("PAID", [*PAID, "DISPUTE_OPENED", "DISPUTE_CLOSED"], (0, 0, 12000), "NONE", "WON"),
    "REFUND": ("PAID", [*PAID, "REFUND_ISSUED"], (0, 0, 12000), "FULL", "NONE"),
    "PAID_TWICE": ("PAID", [*PAID, "EXCESS_PAYMENT"], (12000, 0, 24000), "NONE", "NONE"),
    "PAID_AFTER_VOID": ("VOID", [ASKED, "REQUEST_VOIDED", "LATE_PAYMENT"], (0, 12000, 0), "NONE", "NONE"),
    "SPLIT_TENDER": ("PAID", PAID, (0, 0, 12000), "NONE", "NONE"),
    "PART_ONLY": ("SENT", [ASKED, "PAYMENT_MISMATCH"], (0, 0, 0), "NONE", "NONE"),
    "WRONG_AMOUNT": ("SENT", [ASKED, "PAYMENT_MISMATCH"], (0, 0, 0), "NONE", "NONE"),
    "WRONG_CURRENCY": ("SENT", [ASKED, "PAYMENT_MISMATCH"], (0, 0, 0), "NONE", "NONE"),
}
FIELDS = "id status amountPaid { minorUnits } excess { minorUnits } late { minorUnits } refundState disputeState"


@pytest.fixture
async def product(database: str, events_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Product]:
    """The server; its sweeper looks soon, its sandbox settles soon, and the rest of a part is waited for 2 s."""
    monkeypatch.setattr(projection, "REST_WITHIN", timedelta(seconds=2))
    async with harness.in_process(
        database, events_url, SWEEPER_FIRST_CHECK_S="0.01", SWEEPER_EVERY_S="0.01"
    ) as running:
        change(sandbox_delay=timedelta(seconds=0.3))
        yield running


async def play(team: Team, request: dict[str, Any], scenario: str, seed: int = 0) -> None:
    given = {"paymentRequestId": request["id"], "scenario": scenario, "seed": seed}
    await team.product.ok(RUN, given, token=team.agent)


async def state(team: Team, contact: dict[str, Any], request: dict[str, Any]) -> tuple[Any, ...]:
    """The current state, in the form of `ENDS`."""
    now = await team.product.one(
        f"query($id: ID!) {{ paymentRequest(id: $id) {{ {FIELDS} }} }}", {"id": request["id"]}, token=team.agent
    )
    money = tuple(int(now[name]["minorUnits"]) for name in ("excess", "late", "amountPaid"))
    cards = [kind for kind, _ in await team.cards(contact)]
    return now["status"], cards, money, now["refundState"], now["disputeState"]


async def comes_to(team: Team, contact: dict[str, Any], request: dict[str, Any], end: tuple[Any, ...]) -> None:
    """Wait until the state is this; fail with the actual state."""
    seen: tuple[Any, ...] = ()
    try:
        async with asyncio.timeout(30):
            while (seen := await state(team, contact, request)) != end:
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(seen) from None


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ENDS)
async def test_a_scenario_ends_as_promised(team: Team, scenario: str) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    await play(team, request, scenario)
    await comes_to(team, maria, request, ENDS[scenario])
    events = await ProcessorEvent.all().count()
    if scenario == "DROPPED_WEBHOOK":
        assert (events, (await MoneyFact.get()).source) == (0, "sweeper")
    else:
        assert events > 0
    # A fee per payment that succeeded; nothing else changes by it.
    fees = {
        "DECLINED": 0,
        "ASYNC_FAILS": 0,
        "VOUCHER": 0,
        "DROPPED_WEBHOOK": 0,
        "PAID_TWICE": 2,
        "SPLIT_TENDER": 2,
    }.get(scenario, 1)
    async with asyncio.timeout(30):
        while await MoneyFact.filter(fee_minor__not_isnull=True).count() < fees:
            await asyncio.sleep(0.1)
    await comes_to(team, maria, request, ENDS[scenario])
    if scenario.startswith("DISPUTE"):
        disputed = await MoneyFact.filter(kind="DISPUTE").order_by("id")
        assert {fact.dispute_reason for fact in disputed} == {"product_not_received"}
        assert sorted(fact.response_due_at is not None for fact in disputed) == [False, True]


async def test_the_fee_is_told_after_the_payment_and_changes_the_net(team: Team) -> None:
    async def summary() -> list[tuple[str, str]]:
        found = await team.product.one(SUMMARY, {"id": maria["id"]}, token=team.agent)
        return [(entry["paid"]["minorUnits"], entry["net"]["minorUnits"]) for entry in found["paymentSummary"]]

    change(sandbox_delay=timedelta(seconds=2))
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    async with team.inbox() as feed:
        await opened(feed)
        await team.pay(request)
        await team.until_paid(feed, request)
        (payment,) = (await team.read(request))["payments"]
        assert (payment["fee"], payment["net"]) == (None, None)
        assert await summary() == [("12000", "12000")]
        await feed.until(
            "PaymentRequestUpdated",
            paymentRequest__id=request["id"],
            previousStatus="PAID",
            paymentRequest__status="PAID",
        )
    (payment,) = (await team.read(request))["payments"]
    assert (payment["fee"]["minorUnits"], payment["net"]["minorUnits"]) == (str(FEE), str(12000 - FEE))
    assert await summary() == [("12000", str(12000 - FEE))]
    events = await ProcessorEvent.all().order_by("received_at").values_list("type", "result")
    # A read of the checkout may have recorded the payment before its webhook.
    assert events in (
        [("checkout.completed", first), ("payment.fee_charged", "recorded")] for first in ("recorded", "repeated")
    )
    assert await team.cards(maria) == [(ASKED, "SENT"), ("PAYMENT_RECEIVED", "PAID")]


def test_a_fee_is_rounded_and_at_most_the_amount() -> None:
    fees = {1: 1, 30: 30, 31: 31, 32: 31, 50: 31, 51: 31, 52: 32, 12000: FEE, 10**11: 29 * 10**8 + 30}
    assert {amount: fee_of(amount) for amount in fees} == fees


@pytest.mark.parametrize("seed", range(3))
async def test_webhooks_in_another_order_end_paid_with_one_receipt(team: Team, seed: int) -> None:
    maria = await team.contact()
    request = await team.request(maria)
    await team.send(request)
    await play(team, request, "REORDERED_WEBHOOKS", seed)
    async with asyncio.timeout(30):
        while await ProcessorEvent.filter(handled_at__not_isnull=True).count() < 3:
            await asyncio.sleep(0.1)
    status, cards, money, *_ = await state(team, maria, request)
    assert (status, money, cards.count("PAYMENT_RECEIVED")) == ("PAID", (0, 0, 12000), 1)


async def test_what_cannot_be_played_is_refused_and_changes_nothing(team: Team) -> None:
    maria = await team.contact()
    paid = await team.request(maria)
    await team.pay(paid)
    await comes_to(team, maria, paid, ("PAID", PAID, (0, 0, 12000), "NONE", "NONE"))
    before = await MoneyFact.all().count()
    answer = await team.product.one(
        RUN, {"input": {"paymentRequestId": paid["id"], "scenario": "PAID_TWICE"}}, token=team.agent
    )
    assert [error["code"] for error in answer["userErrors"]] == ["ALREADY_PAID"]
    assert await MoneyFact.all().count() == before
