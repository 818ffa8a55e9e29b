"""Each writer stores who caused it: a user, an API key, the contact, the processor or Paythread."""

from __future__ import annotations

from dataclasses import replace

import pytest

from integrations.base import MoneyOutcome
from models.ids import uuid7
from models.ledger import CardKind
from models.tables import ActivityCard, AuditEntry, MoneyFact, PaymentRequest, Refund
from services.core import actors
from services.core.permissions import Actor
from services.payments import checkout_page, link_releases, offline_payments, payment_requests, refunds, voids
from tests.services.scripted import World


@pytest.fixture
async def world(database: str) -> World:
    made = await World.make()
    made.actor = replace(made.actor, role="ADMIN")
    return made


def program(of: World) -> Actor:
    return replace(of.actor, kind="api_key", user_id=None, credential=str(uuid7()), name="Shop")


def by(world: World, kind: str) -> Actor:
    return world.actor if kind == "user" else program(world)


async def actor_of(request: PaymentRequest, kind: CardKind) -> str | None:
    return (await ActivityCard.filter(payment_request_id=request.id, kind=kind.value).order_by("-seq").first()).actor  # type: ignore[union-attr]  # None fails the test


async def paid(world: World) -> PaymentRequest:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    await world.deliver()
    return request


@pytest.mark.parametrize("kind", ["user", "api_key"])
async def test_who_makes_and_voids_a_request(world: World, kind: str) -> None:
    actor = by(world, kind)
    made = await payment_requests.create(
        actor, contact_id=world.contact.id, product_name="Clean", amount="10", idempotency_key="key-00000001"
    )
    await voids.void(
        actor, payment_request_id=made.id, reason=None, expected_version=None, confirm_partially_paid=False
    )
    row = await PaymentRequest.get(id=made.id)
    assert (row.created_by, row.created_by_id) == (actor.ref.stored(), actor.user_id)
    assert (row.void_requested_by, row.void_requested_by_id) == (actor.ref.stored(), actor.user_id)
    assert await actor_of(row, CardKind.REQUEST_VOIDED) == actor.ref.stored()
    card = await ActivityCard.get(payment_request_id=row.id, kind="REQUEST_VOIDED")
    assert card.actor_id == actor.user_id


@pytest.mark.parametrize("kind", ["user", "api_key"])
async def test_who_records_and_undoes_money(world: World, kind: str) -> None:
    actor, (request, _) = by(world, kind), await world.request()
    done = await offline_payments.record(
        actor, payment_request_id=request.id, method="CASH", amount=None, idempotency_key="key-00000001"
    )
    await offline_payments.undo(world.actor, payment_id=done.payment.id)
    facts = await MoneyFact.filter(payment_request_id=request.id).order_by("id")
    assert [fact.recorded_by for fact in facts] == [actor.ref.stored(), world.actor.ref.stored()]
    cards = await ActivityCard.filter(payment_request_id=request.id, kind="RECORDED_OUTSIDE").order_by("seq")
    assert [card.actor for card in cards] == [actor.ref.stored(), world.actor.ref.stored()]
    assert (await AuditEntry.filter(action="outside_payment.record").first()).actor == actor.ref.stored()  # type: ignore[union-attr]  # None fails the test


async def test_the_contact_pays_and_the_processor_reports_the_rest(world: World) -> None:
    request = await paid(world)
    contact, processor = actors.contact(world.contact.id), actors.processor(world.connection.display_name)
    assert await actor_of(request, CardKind.PAYMENT_RECEIVED) == contact.stored()
    (charge,) = world.vendor.received(request)
    assert (await MoneyFact.get(kind="CHARGE")).recorded_by is None
    world.vendor.give_back(charge, 300)  # in its dashboard
    world.vendor.dispute(charge)
    world.vendor.dispute(charge, MoneyOutcome.CANCELED)
    await world.deliver()
    await world.run_jobs()
    for kind in (CardKind.REFUND_ISSUED, CardKind.DISPUTE_OPENED, CardKind.DISPUTE_CLOSED):
        assert await actor_of(request, kind) == processor.stored(), kind


async def test_a_declined_payment_is_the_contacts(world: World) -> None:
    request, token = await world.request()
    world.vendor.decline(await world.open(token))
    await world.deliver()
    assert await actor_of(request, CardKind.PAYMENT_FAILED) == actors.contact(world.contact.id).stored()


@pytest.mark.parametrize("kind", ["user", "api_key"])
@pytest.mark.parametrize("lost", [False, True])
async def test_who_asks_for_a_refund(world: World, kind: str, lost: bool) -> None:
    actor, request = by(world, kind), await paid(world)
    charge = await MoneyFact.get(kind="CHARGE")
    world.vendor.faults = ["after"] if lost else []
    await refunds.refund(
        actor, payment_id=charge.id, amount="5", reason="OTHER", tell_contact_on=None, idempotency_key="key-00000001"
    )
    await world.deliver()  # the webhook of the refund; its answer may be lost
    await world.run_jobs()
    assert (await Refund.get()).requested_by == actor.ref.stored()
    assert await actor_of(request, CardKind.REFUND_ISSUED) == actor.ref.stored()


async def test_a_person_or_paythread_releases_a_link(world: World) -> None:
    request, token = await world.request()
    world.vendor.delay(await world.open(token))
    await world.deliver()
    assert await actor_of(request, CardKind.PAYMENT_PROCESSING) == actors.contact(world.contact.id).stored()
    await PaymentRequest.filter(id=request.id).update(releasable_at=request.created_at)
    await link_releases.release(world.actor, payment_request_id=request.id, idempotency_key="key-00000001")
    assert await actor_of(request, CardKind.PAYMENT_PROCESSING) == world.actor.ref.stored()


async def test_the_first_view_of_a_copied_link_is_the_contacts(world: World) -> None:
    request, token = await world.request(status="DRAFT", sent_at=None, sent_via=None)
    await checkout_page.record_view(token, human=True)
    assert await actor_of(request, CardKind.PAYMENT_REQUEST) == actors.contact(world.contact.id).stored()
