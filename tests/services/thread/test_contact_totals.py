"""A contact's stored totals equal those of its requests and ledger."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from models.tables import ContactSummary, MoneyFact
from services.payments import payment_views, voids
from services.payments.projection import standing_of
from services.thread import contact_totals
from tests import factories
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def totals(world: World, currency: str = "USD", *, test_mode: bool = True) -> dict[str, Any]:
    """What is stored, without the times."""
    row = await ContactSummary.get(contact_id=world.contact.id, currency=currency, test_mode=test_mode)
    return {name: getattr(row, name) for name in contact_totals.ZERO if not name.endswith("_at")}


async def test_the_totals_follow_every_step(world: World) -> None:
    zero = {name: 0 for name in contact_totals.ZERO if not name.endswith("_at")}
    first, token = await world.request()
    second, _ = await world.request(amount_minor=2000)
    await world.request(status="DRAFT", sent_at=None, amount_minor=999)
    both = zero | {"requested_minor": 14500, "outstanding_minor": 14500, "open_count": 2}
    assert await totals(world) == both
    world.vendor.pay(await world.open(token), fee_minor=393)
    await world.deliver()
    paid = both | {"outstanding_minor": 2000, "paid_minor": 12500, "net_minor": 12107, "open_count": 1, "paid_count": 1}
    assert await totals(world) == paid
    await voids.void(world.actor, payment_request_id=second.id)
    assert await totals(world) == paid | {"requested_minor": 12500, "outstanding_minor": 0, "open_count": 0}
    row = await ContactSummary.get()
    assert row.first_paid_at == row.last_paid_at == (await world.fresh(first)).paid_at
    await assert_consistent(world.account.id)


async def test_refunds_and_lost_disputes_lower_net_and_a_refund_that_failed_does_not(world: World) -> None:
    request, _ = await world.request(status="PAID")
    await factories.money_fact(request, external_id="pay", fee_minor=100)
    for external_id, outcomes in (("re_1", ["SUCCEEDED"]), ("re_2", ["SUCCEEDED", "FAILED"]), ("re_3", ["PENDING"])):
        for outcome in outcomes:
            await factories.money_fact(
                request,
                kind="REFUND",
                external_id=external_id,
                outcome=outcome,
                amount_minor=1000,
                charge_external_id="pay",
            )
    for external_id, outcome in (("dp_1", "SUCCEEDED"), ("dp_2", "FAILED"), ("dp_3", "PENDING")):
        await factories.money_fact(request, kind="DISPUTE", external_id=external_id, outcome=outcome, amount_minor=500)
    await contact_totals.update(world.account.id, world.contact.id)
    got = await totals(world)
    assert (got["paid_minor"], got["refunded_minor"], got["net_minor"]) == (12500, 1000, 12500 - 1000 - 100 - 500)


@pytest.mark.parametrize(
    ("refunds", "disputes", "refunded", "lost"),
    [
        ([12500], [12500], 12500, 0),  # PayPal: the reversal and the lost dispute are one loss
        ([3000], [12500], 3000, 9500),
        ([3000, 12500], [], 12500, 0),
        ([], [12500, 12500], 0, 12500),
        ([3000], [500], 3000, 500),
        ([], [], 0, 0),
    ],
)
async def test_refunds_and_lost_disputes_together_take_at_most_their_charge(
    world: World, refunds: list[int], disputes: list[int], refunded: int, lost: int
) -> None:
    request, _ = await world.request(status="PAID")
    await factories.money_fact(request, external_id="pay")
    await factories.money_fact(request, external_id="other", amount_minor=700)  # gives nothing of its own for them
    for kind, amounts in (("REFUND", refunds), ("DISPUTE", disputes)):
        for n, amount in enumerate(amounts):
            await factories.money_fact(
                request, kind=kind, external_id=f"{kind}_{n}", amount_minor=amount, charge_external_id="pay"
            )
    await contact_totals.update(world.account.id, world.contact.id)
    got = await totals(world)
    assert (got["paid_minor"], got["refunded_minor"]) == (13200, refunded)
    assert got["net_minor"] == 13200 - refunded - lost
    facts = await MoneyFact.filter(payment_request_id=request.id).order_by("id")
    assert standing_of(request, facts, []).refunded_minor == refunded
    views = (await payment_views.payments(world.account.id, [request.id]))[request.id]
    left = payment_views.refundable(views)
    assert sum(left.values()) == 700 + max(0, 12500 - sum(refunds) - sum(disputes))


@pytest.mark.parametrize(
    ("words", "refunded"),
    [
        (["PENDING"], 12500),
        (["PENDING", "FAILED"], 0),
        (["PENDING", "CANCELED"], 0),
        (["PENDING", "SUCCEEDED"], 12500),
        (["PENDING", "FAILED", "PENDING"], 12500),
        (["PENDING", "SUCCEEDED", "FAILED"], 0),
        (["PENDING", "FAILED", "SUCCEEDED"], 12500),
        ([], 12500),
    ],
)
async def test_a_reversal_ends_with_the_dispute_that_is_won(world: World, words: list[str], refunded: int) -> None:
    request, _ = await world.request(status="PAID")
    await factories.money_fact(request, external_id="pay")
    await factories.money_fact(request, external_id="other")  # a won dispute of another charge undoes nothing
    at = factories.now()
    told: dict[str, Any] = {"charge_external_id": "pay", "amount_minor": 12500}
    await factories.money_fact(request, kind="REFUND", external_id="back", reversal=True, occurred_at=at, **told)
    for n, outcome in enumerate(words):
        when = at + timedelta(minutes=n - 1)  # the case is opened before the money is taken
        await factories.money_fact(
            request, kind="DISPUTE", external_id="dp", outcome=outcome, occurred_at=when + timedelta(seconds=n), **told
        )
    await factories.money_fact(
        request,
        kind="DISPUTE",
        external_id="dp_other",
        outcome="FAILED",
        charge_external_id="other",
        occurred_at=at + timedelta(days=1),
    )
    await contact_totals.update(world.account.id, world.contact.id)
    got = await totals(world)
    facts = await MoneyFact.filter(payment_request_id=request.id).order_by("id")
    assert (got["refunded_minor"], standing_of(request, facts, []).refunded_minor) == (refunded, refunded)
    lost = 12500 if words[-1:] == ["SUCCEEDED"] else 0
    assert got["net_minor"] == 25000 - max(refunded, lost)
    views = (await payment_views.payments(world.account.id, [request.id]))[request.id]
    (back,) = [view for view in views if view.kind == "REFUND"]
    assert back.status == ("SUCCEEDED" if refunded else "CANCELED")
    assert refunded or payment_views.refundable(views)[views[0].id] == 12500


async def test_a_loss_of_an_unknown_charge_is_not_hidden(world: World) -> None:
    request, _ = await world.request(status="PAID")
    for kind, amount in (("REFUND", 300), ("DISPUTE", 200)):
        await factories.money_fact(request, kind=kind, amount_minor=amount, charge_external_id="later")
    await contact_totals.update(world.account.id, world.contact.id)
    got = await totals(world)
    assert (got["paid_minor"], got["refunded_minor"], got["net_minor"]) == (0, 300, -500)


async def test_currencies_and_modes_are_never_summed(world: World) -> None:
    await world.request()
    await world.request(currency="EUR", amount_minor=700)
    await world.request(test_mode=False, amount_minor=900)
    assert (await totals(world))["requested_minor"] == 12500
    assert (await totals(world, "EUR"))["requested_minor"] == 700
    assert (await totals(world, test_mode=False))["requested_minor"] == 900


async def test_contacts_are_never_summed(world: World) -> None:
    await world.request()
    other = await factories.contact(world.account)
    await factories.payment_request(other, status="SENT", amount_minor=1)
    assert list(await contact_totals.recompute(world.account.id, world.contact.id)) == [("USD", True)]
    assert (await contact_totals.recompute(world.account.id, world.contact.id))[("USD", True)][
        "requested_minor"
    ] == 12500


async def test_totals_that_lost_their_last_request_become_zero(world: World) -> None:
    request, _ = await world.request()
    request.discarded_at = factories.now()
    await request.save()
    await contact_totals.update(world.account.id, world.contact.id)
    assert set((await totals(world)).values()) == {0}


async def test_a_contact_without_requests_has_no_totals(world: World) -> None:
    await contact_totals.update(world.account.id, world.contact.id)
    assert await ContactSummary.all().count() == 0
