"""Tests of webhooks: genuine ones are read, forged ones are never trusted."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations.base import (
    Checkout,
    MoneyKind,
    PayloadInvalid,
    Processor,
    ProcessorWebhook,
    SignatureInvalid,
    WebhookProof,
)
from integrations.kit.processor_harness import (
    REFERENCE,
    Delivery,
    NotSupplied,
    ProcessorHarness,
    charge,
    learned,
    needs,
    order,
    receive,
    receive_all,
    usual,
)

NO_TEXT = b"\xff\xfe"
BODY, PARTS, NONE = WebhookProof.BODY, WebhookProof.PARTS, WebhookProof.NONE


def forge(vendor: ProcessorHarness, delivery: Delivery, *, secret: str | None = None, age_s: float = 0) -> Delivery:
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    return with_body(delivery, *vendor.signed(delivery[0], secret or vendor.secret, at))


def facts(received: ProcessorWebhook) -> ProcessorWebhook:
    # Some vendors send the time of signing.
    return dataclasses.replace(received, created_at=None, raw=b"")


def with_body(delivery: Delivery, body: bytes, headers: dict[str, str] | None = None) -> Delivery:
    headers = delivery[1] if headers is None else headers
    return (body, headers, delivery[2]) if len(delivery) == 3 else (body, headers)


def is_object(body: bytes) -> bool:
    try:
        return isinstance(json.loads(body), dict)
    except ValueError:
        return False


def body_of(delivery: Delivery) -> Any:
    try:
        return json.loads(delivery[0])
    except ValueError:
        return None


def tampered(body: bytes) -> list[bytes]:
    """Copies of the body with one digit changed."""
    digits = [at for at, byte in enumerate(body) if chr(byte).isdigit()]
    places = {digits[len(digits) * n // 8] for n in range(8)} if digits else set()
    return [body[:at] + (b"1" if body[at : at + 1] != b"1" else b"2") + body[at + 1 :] for at in sorted(places)]


# ------------------------------------------------------------------------------------------------------------ genuine
async def test_a_webhook_leads_to_the_payment(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    delivery = await vendor.act(made.external_id, "pay")
    received = await receive(processor, delivery)
    assert charge(await learned(processor, delivery, made))[1:3] == usual(processor)
    if received.decides or received.checkout_external_id is not None:
        assert received.checkout_external_id == made.external_id
    elif received.charge_external_id is not None:
        read = await processor.read_charge(received.charge_external_id)
        assert read is not None
        assert made.external_id == read.checkout_external_id or read.request_reference == REFERENCE
    else:
        assert received.request_reference == REFERENCE


async def test_only_a_signature_over_the_body_lets_a_webhook_decide(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    received = await receive(processor, delivery)
    if vendor.can.webhook_proof is not BODY:
        assert (received.decides, vendor.can.webhooks_decide) == (False, False)
    assert not received.decides or received.external_id is not None


async def test_each_event_of_a_payment_has_an_id_of_its_own_or_none(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor))
    sent = [await vendor.act(made.external_id, "delay")] if vendor.can.delayed_payments else []
    sent.append(await vendor.act(made.external_id, "settle" if sent else "pay"))
    sent.append(await vendor.refund(made.external_id, usual(processor)[0]))
    ids = [(await receive(processor, one)).external_id for one in sent]
    assert ids == [(await receive(processor, one)).external_id for one in sent]
    assert None in ids or len(set(ids)) == len(sent), "the second event of a payment would count as a repeat"
    money = (await processor.read_checkout(made.external_id)).money
    assert not set(ids) & {one.external_id for one in money}, "an event's id is not the payment's"


async def test_a_stored_webhook_reads_as_it_did_when_it_came(processor: Processor, delivery: Delivery) -> None:
    received = await receive(processor, delivery)
    assert processor.parse(received.raw or delivery[0]) == dataclasses.replace(received, raw=b"")


async def test_events_that_the_vendor_lists_are_as_those_that_it_sends(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor))
    sent = await receive(processor, await vendor.act(made.external_id, "pay"))
    listed = await processor.list_events(datetime.now(UTC) - timedelta(days=1))
    for event in listed:
        assert processor.parse(event.raw) == dataclasses.replace(event, raw=b"")
    assert [dataclasses.replace(e, raw=b"") for e in listed if e.external_id == sent.external_id] in ([], [sent])


@needs(webhook_proof=BODY)
async def test_a_signature_holds_for_the_raw_bytes_however_the_json_is_written(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    received = await receive(processor, delivery)
    event = json.loads(delivery[0])
    for body in (
        json.dumps(event, indent=3).encode(),
        json.dumps(event, separators=(",", ":"), sort_keys=True).encode(),
        json.dumps(event, ensure_ascii=False).encode() + b"\n",
    ):
        assert facts(await receive(processor, forge(vendor, with_body(delivery, body)))) == facts(received)


# ------------------------------------------------------------------------------------------------------------- forged
async def refused(processor: Processor, delivery: Delivery, *, late_s: float = 0) -> None:
    with pytest.raises(SignatureInvalid):
        await receive(processor, delivery, late_s=late_s)


@needs(webhook_proof=BODY)
async def test_no_forged_webhook_is_accepted(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    body = delivery[0]
    for forged in vendor.forged(delivery):
        await refused(processor, forged)
    for changed in (
        *tampered(body),
        body + b" ",
        b"",
        b"\xff\xfe" + body,
        json.dumps(json.loads(body)).encode() + b"\n",
    ):
        await refused(processor, with_body(delivery, changed))


@needs(webhook_proof=PARTS)
async def test_what_is_not_signed_is_not_believed(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    for forged in vendor.forged(delivery):
        await refused(processor, forged)
    for changed in tampered(delivery[0]):
        try:
            received = await receive(processor, with_body(delivery, changed))
        except (SignatureInvalid, PayloadInvalid):
            continue
        assert not received.decides


def altered(value: Any, old: str, new: str) -> Iterator[Any]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from ({**value, name: other} for other in altered(one, old, new))
    elif isinstance(value, list):
        for n, one in enumerate(value):
            yield from ([*value[:n], other, *value[n + 1 :]] for other in altered(one, old, new))
    elif isinstance(value, str) and value:
        yield value.replace(old, new) if old in value else f"{value[:-1]}{'2' if value[-1] == '1' else '1'}"
    elif type(value) is int:
        yield value + 1


@needs(webhook_proof=PARTS)
async def test_the_ids_of_a_webhook_are_signed(vendor: ProcessorHarness, processor: Processor) -> None:
    made, sent = await several(vendor, processor, 2)
    received = await receive(processor, sent[0])
    others = [with_body(sent[0], json.dumps(one).encode()) for one in altered(body_of(sent[0]), *made)]
    if len(sent[0]) == 3:
        others += [(sent[0][0], sent[0][1], query) for query in altered(sent[0][2], *made)]
    for other in others:
        try:
            claimed = await receive_all(processor, other)
        except (SignatureInvalid, PayloadInvalid):
            continue
        for one in claimed:
            named = one.external_id, one.checkout_external_id, one.charge_external_id
            # With an unsigned id, a replay could name another payment, or use up the id of a later event.
            assert named == (received.external_id, received.checkout_external_id, received.charge_external_id), other


@needs(webhook_proof=(BODY, PARTS))
async def test_an_unsigned_webhook_is_refused_where_they_are_signed(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    for unsigned in vendor.unsigned(delivery):
        await refused(processor, unsigned)


@needs(webhook_proof=(BODY, PARTS))
async def test_a_signature_by_another_secret_is_refused(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    await receive(processor, forge(vendor, delivery))
    await refused(processor, forge(vendor, delivery, secret="another0secret"))


def test_a_signature_is_compared_in_constant_time(harness: ProcessorHarness) -> None:
    source = inspect.getsource(sys.modules[harness.processor.__module__])
    assert "hmac" not in source or "compare_digest" in source or "signatures.verify" in source


@needs(webhook_proof=(BODY, PARTS))
async def test_a_webhook_is_good_for_300_seconds_either_way(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    received = await receive(processor, delivery)
    for age in (-290, -60, 0, 60, 290):
        assert facts(await receive(processor, forge(vendor, delivery, age_s=age))) == facts(received)
    await receive(processor, delivery, late_s=280)
    if vendor.can.webhooks_signed_at:
        await refused(processor, forge(vendor, delivery, age_s=-310))
    if vendor.can.webhooks_expire:
        await refused(processor, forge(vendor, delivery, age_s=310))
        await refused(processor, delivery, late_s=310)
        return
    # A retry under the old time is kept, but only as a hint.
    for late_s in (310, 3 * 24 * 3600):
        late = await receive(processor, delivery, late_s=late_s)
        assert late == dataclasses.replace(received, decides=False)
    if vendor.can.webhooks_signed_at or received.decides:
        await refused(processor, delivery, late_s=5 * 24 * 3600)


@needs(webhook_proof=(BODY, PARTS))
async def test_two_secrets_are_live_while_one_is_rolled(vendor: ProcessorHarness, delivery: Delivery) -> None:
    rolled = vendor.rolled_secret
    rolling = vendor.provider(webhook_secret=f"{rolled}, {vendor.secret}")
    received = await receive(rolling, delivery)
    assert facts(await receive(rolling, forge(vendor, delivery, secret=rolled))) == facts(received)
    await refused(rolling, forge(vendor, delivery, secret=f"{rolled}, {vendor.secret}"))
    await rolling.aclose()


@needs(webhook_proof=(BODY, PARTS))
async def test_without_a_webhook_secret_nothing_is_accepted(vendor: ProcessorHarness, delivery: Delivery) -> None:
    for none in (" ", ",", " , "):
        processor = vendor.provider(webhook_secret=none)
        secrets = (vendor.secret, none, none.strip() or "x")
        for one in (*(forge(vendor, delivery, secret=secret) for secret in secrets), (b"", {})):
            with pytest.raises(SignatureInvalid) as no:
                await receive(processor, one)
            assert no.value.reason == "no_webhook_secret"  # the route answers 404, as for an unknown connection
        await processor.aclose()


@needs(webhook_proof=NONE)
async def test_an_unsigned_webhook_only_points(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    received = await receive(processor, delivery)
    assert (received.external_id, received.decides, received.disconnected) == (None, False, False)
    assert received.checkout_external_id or received.charge_external_id


@needs(webhook_proof=NONE)
async def test_made_up_ids_cause_no_calls_at_the_door(vendor: ProcessorHarness, processor: Processor) -> None:
    before = vendor.calls()
    for n in range(30):
        await receive(processor, vendor.points_at(f"{vendor.unknown_id}{n}"))
    assert vendor.calls() == before


# ------------------------------------------------------------------------------------------------------------ batches
async def several(vendor: ProcessorHarness, processor: Processor, many: int) -> tuple[list[str], list[Delivery]]:
    asked = [order(processor, idempotency_key=f"{REFERENCE}:{n}") for n in range(1, many + 1)]
    made = [(await processor.create_checkout(one)).external_id for one in asked]
    return made, [await vendor.act(one, "pay") for one in made]


@needs("webhook_batches")
async def test_every_event_of_a_batch_is_told_as_if_it_came_alone(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    _, sent = await several(vendor, processor, 3)
    alone = [dataclasses.replace(await receive(processor, one), raw=b"") for one in sent]
    for chosen in ((0, 1, 2), (2, 0, 1), (1,)):
        received = await receive_all(processor, vendor.batch([sent[n] for n in chosen]))
        assert [dataclasses.replace(one, raw=b"") for one in received] == [alone[n] for n in chosen]
        # Each event is stored separately.
        assert [
            processor.parse(one.raw or vendor.batch([sent[n]])[0]) for n, one in zip(chosen, received, strict=True)
        ] == [alone[n] for n in chosen]
        assert len(received) == 1 or all(one.raw for one in received)


@needs("webhook_batches")
async def test_an_odd_event_of_a_batch_refuses_no_other(vendor: ProcessorHarness, processor: Processor) -> None:
    _, sent = await several(vendor, processor, 2)
    alone = [dataclasses.replace(await receive(processor, one), raw=b"") for one in sent]
    received = await receive_all(processor, vendor.batch([sent[0], vendor.odd_event(), sent[1]]))
    names = [one for one in received if one.checkout_external_id or one.charge_external_id or one.request_reference]
    assert [dataclasses.replace(one, raw=b"") for one in names] == alone
    assert [one.money for one in received if one not in names] in ([], [()])


@needs("webhook_batches", webhook_proof=(BODY, PARTS))
async def test_every_event_of_a_batch_is_verified(vendor: ProcessorHarness, processor: Processor) -> None:
    made, sent = await several(vendor, processor, 3)
    for n in (0, 1):
        batch = vendor.batch(sent[:2])
        changed = batch[0].replace(made[n].encode(), made[2].encode())
        if changed == batch[0]:
            raise NotSupplied("a batch whose body names its checkouts")
        try:
            received = await receive_all(processor, with_body(batch, changed))
        except (SignatureInvalid, PayloadInvalid):
            continue
        assert made[2] not in {one.checkout_external_id for one in received}, (
            f"event {n + 1} was accepted without verification"
        )


# ---------------------------------------------------------------------------------------------------------- nonsense
async def test_nonsense_is_an_invalid_payload(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    try:
        event = json.loads(delivery[0])
    except ValueError:
        event = {}
    broken: list[Any] = [[], "text", None, 5, {}, dict.fromkeys(event), {name: {} for name in event}]
    odd: tuple[Any, ...] = (None, {}, [], 7)
    broken += [event | {name: value} for name in event for value in odd if name != "id"]
    bodies = [b"", b"{", b"not json", NO_TEXT, *(json.dumps(one).encode() for one in broken)]
    for body in bodies:
        one = with_body(delivery, body)
        if vendor.can.webhook_proof is NONE:
            one = (one[0], one[1])
        elif vendor.checks_any_body or is_object(body):
            one = forge(vendor, one)
        try:
            received = await receive_all(processor, one)
        except PayloadInvalid:
            continue
        except SignatureInvalid:
            # If the vendor verifies by a call, a body that the call cannot hold counts as unsigned.
            assert not vendor.checks_any_body or vendor.can.webhook_proof is PARTS or body == NO_TEXT
            continue
        # Fields that the provider does not use may be missing.
        assert not received or body not in bodies[:11] or vendor.can.webhook_proof is PARTS
        assert [at for event in received if (at := event.created_at) is not None and at.tzinfo is None] == []


@needs(webhook_proof=BODY)
async def test_a_webhook_about_money_of_another_program_is_no_fault(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    received = await receive(processor, delivery)
    if REFERENCE.encode() not in delivery[0]:
        raise NotSupplied("a webhook with our reference")
    for other in (b"order-77", b"", b"x" * 200):
        body = delivery[0].replace(REFERENCE.encode(), other)
        try:
            unmatched = await receive(processor, forge(vendor, with_body(delivery, body)))
        except PayloadInvalid:
            continue  # the route accepts it if it names nothing known
        assert unmatched.request_reference != REFERENCE
        assert {one.request_reference for one in unmatched.money} & {REFERENCE} == set()
        assert unmatched.external_id == received.external_id


async def test_a_checkout_of_another_program_reads_without_our_reference_or_not_at_all(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor, request_reference="order-77", idempotency_key="order-77"))
    await vendor.act(made.external_id, "pay")
    read: Checkout = await processor.read_checkout(made.external_id)
    assert read.request_reference == "order-77"
    assert [one.kind for one in read.money] == [MoneyKind.CHARGE]
