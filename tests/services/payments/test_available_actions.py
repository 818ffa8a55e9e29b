"""A request offers exactly the actions that its mutations accept, in every state and role."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import pytest

from integrations.base import MoneyOutcome, MoneyStatement
from models.ids import public_id
from models.tables import Job, PaymentRequest
from resolvers.assemble import build_schema, new_context
from schema.scalars import PaymentRequestAction
from services.core.permissions import ROLES, Actor
from services.payments import (
    checkout_reads,
    link_releases,
    mismatches,
    offline_payments,
    payment_requests,
    payment_views,
    refunds,
    request_sending,
    voids,
)
from tests import factories
from tests.services.scripted import World

SCHEMA: Final = build_schema(production=False)
Build = Callable[[World], Awaitable[PaymentRequest]]


# --------------------------------------------------------------------------------------------------------- the states
async def draft(world: World) -> PaymentRequest:
    request, _ = await world.request(status="DRAFT", sent_at=None, sent_via=None)
    return request


async def copied(world: World) -> PaymentRequest:
    return await payment_requests.record_link_copied(world.actor, (await draft(world)).id)


async def discarded(world: World) -> PaymentRequest:
    return await payment_requests.discard(world.actor, (await draft(world)).id)


async def sent(world: World) -> PaymentRequest:
    request, _ = await world.request()
    return request


async def overdue(world: World) -> PaymentRequest:
    request, _ = await world.request(due_at=factories.now() - timedelta(days=1))
    return request


async def checkout_open(world: World) -> PaymentRequest:
    request, token = await world.request()
    await world.open(token)
    return request


async def declined(world: World) -> PaymentRequest:
    request, token = await world.request()
    world.vendor.decline(await world.open(token))
    await world.deliver()
    return request


async def built(build: Build, world: World) -> PaymentRequest:
    await Job.all().delete()  # of the states before
    return await world.fresh(await build(world))


async def _pays(world: World, **how: Any) -> tuple[PaymentRequest, MoneyStatement]:
    request, token = await world.request()
    charge = world.vendor.pay(await world.open(token), **how)
    await world.deliver()
    await world.run_jobs()  # money that does not fit is read at the processor first
    assert charge is not None
    return request, charge


async def processing(world: World) -> PaymentRequest:
    request, _ = await _pays(world, outcome=MoneyOutcome.PENDING)
    return request


async def delayed(world: World) -> PaymentRequest:
    request, token = await world.request()
    world.vendor.delay(await world.open(token))
    await world.deliver()
    return await checkout_reads.refresh(await world.fresh(request))


async def canceled_by_release(world: World) -> PaymentRequest:
    request = await delayed(world)
    world.vendor.cancels_delayed = True
    released = await link_releases.release(world.actor, payment_request_id=request.id, idempotency_key=str(uuid4()))
    world.vendor.cancels_delayed = False
    return released.request


async def released(world: World) -> PaymentRequest:
    request = await delayed(world)
    return (
        await link_releases.release(world.actor, payment_request_id=request.id, idempotency_key=str(uuid4()))
    ).request


async def paid(world: World) -> PaymentRequest:
    request, _ = await _pays(world)
    return request


async def mismatched_amount(world: World) -> PaymentRequest:
    request, _ = await _pays(world, amount_minor=10_000)
    return request


async def mismatched_currency(world: World) -> PaymentRequest:
    request, _ = await _pays(world, currency="EUR")
    return request


async def paid_twice(world: World) -> PaymentRequest:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page)
    world.vendor.pay(page, force=True)
    await world.deliver()
    return request


async def _records(world: World, request: PaymentRequest, amount: str | None) -> PaymentRequest:
    done = await offline_payments.record(
        world.actor, payment_request_id=request.id, method="CASH", amount=amount, idempotency_key=str(uuid4())
    )
    return done.request


async def paid_in_part(world: World) -> PaymentRequest:
    return await _records(world, await sent(world), "25.00")


async def paid_outside(world: World) -> PaymentRequest:
    return await _records(world, await sent(world), None)


async def void(world: World) -> PaymentRequest:
    return (await voids.void(world.actor, payment_request_id=(await sent(world)).id)).request


async def void_with_a_mismatch(world: World) -> PaymentRequest:
    request = await mismatched_amount(world)
    return (await voids.void(world.actor, payment_request_id=request.id, confirm_partially_paid=True)).request


async def mismatched_after_paid(world: World) -> PaymentRequest:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.pay(page)
    world.vendor.pay(page, force=True, amount_minor=500)
    await world.deliver()
    await world.run_jobs()
    return request


async def part_that_waits_for_the_rest(world: World) -> PaymentRequest:
    request, token = await world.request()
    world.vendor.pay_part(await world.open(token), 2500)
    await world.deliver()
    await world.run_jobs()
    return request


async def _gives_the_mismatch_back(world: World, outcome: MoneyOutcome) -> PaymentRequest:
    request, charge = await _pays(world, amount_minor=10_000)
    world.vendor.give_back(charge, outcome=outcome)
    await world.deliver()
    await world.run_jobs()
    return request


async def mismatch_given_back(world: World) -> PaymentRequest:
    return await _gives_the_mismatch_back(world, MoneyOutcome.SUCCEEDED)


async def mismatch_on_its_way_back(world: World) -> PaymentRequest:
    return await _gives_the_mismatch_back(world, MoneyOutcome.PENDING)


async def mismatch_disputed(world: World) -> PaymentRequest:
    request, charge = await _pays(world, amount_minor=10_000)
    world.vendor.dispute(charge)
    await world.deliver()
    await world.run_jobs()
    return request


async def mismatch_accepted(world: World) -> PaymentRequest:
    request = await mismatched_amount(world)
    await mismatches.resolve(
        world.actor, payment_request_id=request.id, resolution="ACCEPT_AS_PAID", idempotency_key=str(uuid4())
    )
    return request


async def void_pending(world: World) -> PaymentRequest:
    request = await checkout_open(world)
    world.vendor.faults = ["before"]
    return (await voids.void(world.actor, payment_request_id=request.id)).request


async def void_pending_over_money_in_flight(world: World) -> PaymentRequest:
    request, token = await world.request()
    world.vendor.pay(await world.open(token), outcome=MoneyOutcome.PENDING)
    return (await voids.void(world.actor, payment_request_id=request.id)).request


async def late(world: World) -> PaymentRequest:
    request, token = await world.request()
    page = await world.open(token)
    await voids.void(world.actor, payment_request_id=request.id)
    world.vendor.pay(page, force=True)
    await world.deliver()
    return request


async def _gives_back(world: World, amount: str | None) -> PaymentRequest:
    request = await paid(world)
    (charge,) = (await payment_views.payments(request.account_id, [request.id]))[request.id]
    await refunds.refund(
        replace(world.actor, role="ADMIN"),
        payment_id=charge.id,
        amount=amount,
        reason="OTHER",
        tell_contact_on=None,
        idempotency_key=str(uuid4()),
    )
    return request


async def refunded(world: World) -> PaymentRequest:
    return await _gives_back(world, None)


async def refunded_in_part(world: World) -> PaymentRequest:
    return await _gives_back(world, "25.00")


async def refund_pending(world: World) -> PaymentRequest:
    world.vendor.refund_outcomes = [MoneyOutcome.PENDING]
    return await _gives_back(world, None)


async def refund_unknown(world: World) -> PaymentRequest:
    request = await paid(world)
    world.vendor.faults = ["after"]
    (charge,) = (await payment_views.payments(request.account_id, [request.id]))[request.id]
    await refunds.refund(
        replace(world.actor, role="ADMIN"),
        payment_id=charge.id,
        amount=None,
        reason="OTHER",
        tell_contact_on=None,
        idempotency_key=str(uuid4()),
    )
    world.vendor.outbox.clear()
    return request


async def _is_disputed(world: World, outcome: MoneyOutcome) -> PaymentRequest:
    request, charge = await _pays(world)
    world.vendor.dispute(charge, outcome)
    await world.deliver()
    return request


async def disputed(world: World) -> PaymentRequest:
    return await _is_disputed(world, MoneyOutcome.PENDING)


async def dispute_lost(world: World) -> PaymentRequest:
    return await _is_disputed(world, MoneyOutcome.SUCCEEDED)


async def dispute_won(world: World) -> PaymentRequest:
    return await _is_disputed(world, MoneyOutcome.CANCELED)


# State to what an owner is offered in it.
OPEN: Final = ["SEND", "COPY_LINK", "VOID", "RECORD_OUTSIDE_PAYMENT"]
STATES: Final[Mapping[Build, list[str]]] = {
    draft: OPEN,
    copied: OPEN,
    discarded: [],
    sent: OPEN,
    overdue: OPEN,
    checkout_open: OPEN,
    declined: OPEN,
    processing: ["SEND", "COPY_LINK"],
    delayed: ["SEND", "COPY_LINK", "RELEASE_LINK"],
    released: OPEN,
    canceled_by_release: OPEN,
    paid: ["REFUND"],
    mismatched_amount: [*OPEN, "REFUND", "RESOLVE_MISMATCH"],
    mismatched_currency: [*OPEN, "REFUND", "RESOLVE_MISMATCH"],
    mismatched_after_paid: ["REFUND", "RESOLVE_MISMATCH"],
    mismatch_given_back: OPEN,
    mismatch_on_its_way_back: OPEN,
    mismatch_disputed: OPEN,
    mismatch_accepted: ["REFUND"],
    part_that_waits_for_the_rest: [*OPEN, "REFUND", "RESOLVE_MISMATCH"],
    paid_twice: ["REFUND"],
    paid_in_part: OPEN,
    paid_outside: [],
    void: [],
    void_with_a_mismatch: ["REFUND"],
    void_pending: [],
    void_pending_over_money_in_flight: [],
    late: ["REFUND"],
    refunded: [],
    refunded_in_part: ["REFUND"],
    refund_pending: [],
    refund_unknown: [],
    disputed: [],
    dispute_lost: [],
    dispute_won: ["REFUND"],
}


# ---------------------------------------------------------------------------------------------------------- the viewer
async def run(actor: Actor, document: str, variables: Mapping[str, Any]) -> Any:
    """The value of the only root field."""
    result = await SCHEMA.execute(
        document, variable_values=dict(variables), context_value=new_context(hub=None, viewer=actor)
    )
    assert result.errors is None, result.errors
    assert result.data is not None
    (value,) = result.data.values()
    return value


async def offered(actor: Actor, request: PaymentRequest) -> dict[str, str | None]:
    """Each action with the status that follows."""
    document = "query($id: ID!) { paymentRequest(id: $id) { availableActions { action resultingStatus } } }"
    found = await run(actor, document, {"id": public_id("pr", request.id)})
    return {one["action"]: one["resultingStatus"] for one in (found["availableActions"] if found else [])}


MUTATIONS: Final[Mapping[str, str]] = {
    "SEND": "sendPaymentRequest",
    "COPY_LINK": "recordLinkCopied",
    "VOID": "voidPaymentRequest",
    "RECORD_OUTSIDE_PAYMENT": "recordOutsidePayment",
    "REFUND": "refundPayment",
    "RELEASE_LINK": "releasePaymentLink",
    "RESOLVE_MISMATCH": "resolveMismatch",
}


async def done(actor: Actor, action: str, request: PaymentRequest, channel_id: str) -> list[str]:
    """Codes of the refusal; empty if the action succeeded."""
    shown: dict[str, Any] = {"paymentRequestId": public_id("pr", request.id)}
    inputs: list[dict[str, Any]] = {
        "SEND": [shown | {"idempotencyKey": str(uuid4()), "channelId": channel_id}],
        "COPY_LINK": [shown],
        "VOID": [shown | {"confirmPartiallyPaid": True}],
        "RECORD_OUTSIDE_PAYMENT": [shown | {"idempotencyKey": str(uuid4()), "method": "CASH"}],
        "RELEASE_LINK": [shown | {"idempotencyKey": str(uuid4())}],
        "RESOLVE_MISMATCH": [shown | {"idempotencyKey": str(uuid4()), "resolution": "ACCEPT_AS_PAID"}],
        "REFUND": [
            {"idempotencyKey": str(uuid4()), "paymentId": public_id("pay", view.id), "reason": "OTHER"}
            for view in (await payment_views.payments(request.account_id, [request.id]))[request.id]
        ],
    }[action]
    mutation = MUTATIONS[action]
    kind = mutation[0].upper() + mutation[1:] + "Input!"
    document = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ userErrors {{ code field }} }} }}"
    codes = ["nothing to give back"]
    for input in inputs:
        payload = await run(actor, document, {"input": input})
        codes = [error["code"] for error in payload["userErrors"]]
        if not codes:
            break
    return codes


# ----------------------------------------------------------------------------------------------------------- the tests
def test_every_action_has_its_mutation_here() -> None:
    assert {action.name for action in PaymentRequestAction} == set(MUTATIONS)


# On SQLite only: what is offered is worked out from rows, and no engine decides it.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_is_offered_is_what_is_accepted_in_every_state_and_role(database: str) -> None:
    world = await World.make()
    await factories.contact_address(world.contact, "SMS")
    channel_id = public_id("chn", (await factories.channel_connection(world.account, "SMS")).id)
    wrong = []
    for build, for_owners in STATES.items():
        request = await built(build, world)
        for role in ROLES:
            actor = replace(world.actor, role=role)
            found = await offered(actor, request)
            if role == "OWNER" and sorted(found) != sorted(for_owners):
                wrong.append(f"{build.__name__}: offers {list(found)}")
            for action in MUTATIONS:
                codes = await done(actor, action, request, channel_id)
                if (action in found) != (not codes):
                    wrong.append(f"{build.__name__} {role} {action}: offered {action in found}, refused with {codes}")
                if codes:
                    continue
                now = (await world.fresh(request)).status
                if now != (found.get(action) or request.status):
                    wrong.append(f"{build.__name__} {role} {action}: became {now}, not {found.get(action)}")
                # It was done: the next one meets the state again.
                request = await built(build, world)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_composer_gets_a_text_exactly_where_copying_the_link_is_accepted(database: str) -> None:
    world = await World.make()
    await factories.contact_address(world.contact, "SMS")
    channel = await factories.channel_connection(world.account, "SMS")
    for build, for_owners in STATES.items():
        request = await built(build, world)
        insert = await request_sending.compose(world.actor, request, channel.id)
        assert (insert is not None) == ("COPY_LINK" in for_owners), build.__name__
