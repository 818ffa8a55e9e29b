"""A webhook with several events: each is stored and handled alone, before the answer."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pytest

from integrations.base import Capabilities, ProcessorWebhook, WebhookProof
from models import errors
from models.tables import CheckoutSession, PaymentRequest, ProcessorEvent
from services.core import webhooks
from services.payments import processor_webhooks
from tests.services.scripted import Delivery, World, assert_consistent

BATCHES = Capabilities(webhook_batches=True)


@pytest.fixture
async def world(database: str, monkeypatch: pytest.MonkeyPatch) -> World:
    made = await World.make()
    vendor = made.vendor

    async def verify(
        body: bytes, headers: Mapping[str, str], *, now: datetime, query: Mapping[str, str]
    ) -> Sequence[ProcessorWebhook]:
        webhooks: list[ProcessorWebhook] = []
        for one in json.loads(body):
            raw = one["body"].encode()
            if one["body"] == "odd":  # not understood: only its type
                webhooks.append(ProcessorWebhook(external_id="evt_odd", type="odd", raw=raw))
            else:
                webhooks.append(dataclasses.replace(vendor.receive(raw, one["headers"], now=now), raw=raw))
        return webhooks

    monkeypatch.setattr(vendor, "capabilities", BATCHES)
    monkeypatch.setattr(vendor, "verify_webhook", verify)
    return made


def batch(*sent: Delivery | str) -> Delivery:
    webhooks: list[dict[str, Any]] = [
        {"body": one, "headers": {}}
        if isinstance(one, str)
        else {"body": one.body.decode(), "headers": dict(one.headers)}
        for one in sent
    ]
    return Delivery(json.dumps(webhooks).encode(), {})


async def paid(world: World, count: int) -> list[PaymentRequest]:
    requests = []
    for _ in range(count):
        request, token = await world.request()
        world.vendor.pay(await world.open(token))
        requests.append(request)
    return requests


async def checkout_of(request: PaymentRequest) -> str:
    return (await CheckoutSession.get(payment_request_id=request.id)).external_id or ""


async def statuses(world: World, requests: Sequence[PaymentRequest]) -> list[str]:
    return [await world.status(request) for request in requests]


async def test_all_events_of_a_webhook_are_recorded_before_the_answer_and_a_repeat_changes_nothing(
    world: World,
) -> None:
    requests = await paid(world, 3)
    one = batch(*world.vendor.outbox)
    for _ in range(2):
        await world.deliver(one)
        assert await statuses(world, requests) == ["PAID"] * 3
    assert await ProcessorEvent.filter(result="recorded").count() == await ProcessorEvent.all().count() == 3
    assert [await world.cards(request) for request in requests] == [["PAYMENT_RECEIVED"]] * 3
    await assert_consistent(world.account.id)


async def test_an_odd_event_refuses_none_of_its_neighbours(world: World) -> None:
    requests = await paid(world, 2)
    first, second = world.vendor.outbox
    await world.deliver(batch("odd", first, "odd", second))
    assert await statuses(world, requests) == ["PAID"] * 2
    assert sorted(str(row.result) for row in await ProcessorEvent.all()) == ["ignored", "recorded", "recorded"]


async def test_an_event_that_cannot_be_kept_keeps_no_other_out_and_is_sent_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = await paid(world, 3)
    keep, broken = processor_webhooks._store_event, [await checkout_of(requests[0])]

    async def fails(connection: Any, event: ProcessorWebhook, body: str, now: datetime) -> ProcessorEvent:
        if event.checkout_external_id in broken:
            raise ValueError("not to be stored")
        return await keep(connection, event, body, now)

    monkeypatch.setattr(processor_webhooks, "_store_event", fails)
    one = batch(*world.vendor.outbox)
    with pytest.raises(ValueError, match="not to be stored"):
        await world.deliver(one)
    assert await statuses(world, requests) == ["SENT", "PAID", "PAID"]
    broken.clear()
    await world.deliver(one)  # no 2xx: the vendor sends all again
    assert await statuses(world, requests) == ["PAID"] * 3
    assert await ProcessorEvent.all().count() == 3


async def test_an_event_of_another_account_or_mode_is_left_out_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = await paid(world, 3)
    verify = world.vendor.verify_webhook

    async def of_other_accounts(*given: Any, **more: Any) -> Sequence[ProcessorWebhook]:
        webhooks = await verify(*given, **more)
        assert not isinstance(webhooks, ProcessorWebhook)
        return [
            dataclasses.replace(webhooks[0], vendor_account="acct_other"),
            dataclasses.replace(webhooks[1], test_mode=not world.connection.test_mode),
            webhooks[2],
        ]

    monkeypatch.setattr(world.vendor, "verify_webhook", of_other_accounts)
    await world.deliver(batch(*world.vendor.outbox))
    assert await statuses(world, requests) == ["SENT", "SENT", "PAID"]
    assert await ProcessorEvent.all().count() == 1


async def test_a_long_batch_is_kept_whole_and_what_takes_too_long_is_handled_after_the_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = await paid(world, 2)
    monkeypatch.setattr(webhooks, "VENDOR_WAITS_S", 0.0)
    await world.deliver(batch(*world.vendor.outbox))
    assert await statuses(world, requests) == ["SENT"] * 2
    assert await ProcessorEvent.filter(handled_at=None).count() == 2
    await world.run_jobs()
    assert await statuses(world, requests) == ["PAID"] * 2


async def test_each_hint_of_a_webhook_is_read_and_an_unsigned_one_has_a_bound(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = await paid(world, 3)
    known = [await checkout_of(request) for request in requests]
    monkeypatch.setattr(processor_webhooks, "UNSIGNED_TOGETHER", 2)

    async def hints(*_: Any, **__: Any) -> Sequence[ProcessorWebhook]:
        return [hint(json.dumps({"id": one}).encode()) for one in known]

    def hint(body: bytes) -> ProcessorWebhook:
        named = json.loads(body)["id"]
        return ProcessorWebhook(external_id=None, type="hint", checkout_external_id=named, raw=body)

    monkeypatch.setattr(world.vendor, "verify_webhook", hints)
    monkeypatch.setattr(world.vendor, "parse", hint)
    for proof, expected in ((WebhookProof.NONE, ["PAID", "PAID", "SENT"]), (WebhookProof.PARTS, ["PAID"] * 3)):
        can = Capabilities(webhook_batches=True, webhook_proof=proof, webhooks_decide=False)
        monkeypatch.setattr(world.vendor, "capabilities", can)
        await world.deliver(Delivery(b"[]", {}))
        await world.run_jobs()
        assert await statuses(world, requests) == expected


async def test_a_webhook_that_tells_nothing_is_answered_and_nothing_is_kept(world: World) -> None:
    await world.deliver(batch())
    assert await ProcessorEvent.all().count() == 0
    with pytest.raises(errors.NotFound):
        await processor_webhooks.receive("stripe", world.connection.id, b"[]", {})
