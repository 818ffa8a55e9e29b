"""What comes in from outside: what is forged is refused or believed in nothing, what is genuine is read whatever its form."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations.base import (
    Checkout,
    MoneyKind,
    PayloadInvalid,
    Processor,
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
    usual,
)

NO_TEXT = b"\xff\xfe"
BODY, PARTS, NONE = WebhookProof.BODY, WebhookProof.PARTS, WebhookProof.NONE


def forge(vendor: ProcessorHarness, delivery: Delivery, *, secret: str | None = None, age_s: float = 0) -> Delivery:
    """The body under a signature of our own making."""
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    return with_body(delivery, delivery[0], vendor.sign(delivery[0], secret or vendor.secret, at))


def with_body(delivery: Delivery, body: bytes, headers: dict[str, str] | None = None) -> Delivery:
    """The delivery with another body, and perhaps other headers."""
    headers = delivery[1] if headers is None else headers
    return (body, headers, delivery[2]) if len(delivery) == 3 else (body, headers)


def tampered(body: bytes) -> list[bytes]:
    """The body with one digit changed, at several places."""
    digits = [at for at, byte in enumerate(body) if chr(byte).isdigit()]
    places = {digits[len(digits) * n // 8] for n in range(8)} if digits else set()
    return [body[:at] + (b"1" if body[at : at + 1] != b"1" else b"2") + body[at + 1 :] for at in sorted(places)]


# ------------------------------------------------------------------------------------------------------------ genuine
async def test_a_webhook_leads_to_the_payment(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    delivery = await vendor.act(made.external_id, "pay")
    told = await receive(processor, delivery)
    assert charge(await learned(processor, delivery, made))[1:3] == usual(processor)
    if told.decides or told.checkout_external_id is not None:
        assert told.checkout_external_id == made.external_id
    elif told.charge_external_id is not None:
        read = await processor.read_charge(told.charge_external_id)
        assert read is not None
        assert made.external_id == read.checkout_external_id or read.request_reference == REFERENCE
    else:
        assert told.request_reference == REFERENCE


async def test_only_a_signature_over_the_body_lets_a_webhook_decide(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    told = await receive(processor, delivery)
    if vendor.can.webhook_proof is not BODY:
        assert (told.decides, vendor.can.webhooks_decide) == (False, False)
    assert not told.decides or told.external_id is not None


async def test_each_event_of_a_payment_has_an_id_of_its_own_or_none(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor))
    sent = [await vendor.act(made.external_id, "delay")] if vendor.can.delayed_payments else []
    sent.append(await vendor.act(made.external_id, "settle" if sent else "pay"))
    sent.append(await vendor.refund(made.external_id, usual(processor)[0]))
    ids = [(await receive(processor, one)).external_id for one in sent]
    assert ids == [(await receive(processor, one)).external_id for one in sent]
    assert None in ids or len(set(ids)) == len(sent), "the second event of a payment would be taken for a repeat"
    money = (await processor.read_checkout(made.external_id)).money
    assert not set(ids) & {one.external_id for one in money}, "an event's id is not the payment's"


async def test_a_stored_webhook_reads_as_it_did_when_it_came(processor: Processor, delivery: Delivery) -> None:
    told = await receive(processor, delivery)
    assert processor.parse(told.raw or delivery[0]) == dataclasses.replace(told, raw=b"")


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
    told = await receive(processor, delivery)
    event = json.loads(delivery[0])
    for body in (
        json.dumps(event, indent=3).encode(),
        json.dumps(event, separators=(",", ":"), sort_keys=True).encode(),
        json.dumps(event, ensure_ascii=False).encode() + b"\n",
    ):
        assert await receive(processor, forge(vendor, with_body(delivery, body))) == told


# ------------------------------------------------------------------------------------------------------------- forged
async def refused(processor: Processor, delivery: Delivery, *, late_s: float = 0) -> None:
    """The door refuses it as forged."""
    with pytest.raises(SignatureInvalid):
        await receive(processor, delivery, late_s=late_s)


@needs(webhook_proof=BODY)
async def test_no_forged_webhook_is_accepted(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    body = delivery[0]
    for headers in vendor.forgeries(delivery[1]):
        await refused(processor, with_body(delivery, body, headers))
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
    for headers in vendor.forgeries(delivery[1]):
        await refused(processor, with_body(delivery, delivery[0], headers))
    for changed in tampered(delivery[0]):
        try:
            told = await receive(processor, with_body(delivery, changed))
        except (SignatureInvalid, PayloadInvalid):
            continue
        assert not told.decides


@needs(webhook_proof=(BODY, PARTS))
async def test_an_unsigned_webhook_is_refused_where_they_are_signed(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    others = {name: value for name, value in delivery[1].items() if name != vendor.signature_header}
    for headers in ({}, others, {**others, "authorization": "Bearer x"}):
        await refused(processor, with_body(delivery, delivery[0], headers))


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
    told = await receive(processor, delivery)
    for age in (-290, -60, 0, 60, 290):
        assert await receive(processor, forge(vendor, delivery, age_s=age)) == told
    await receive(processor, delivery, late_s=280)
    if vendor.can.webhooks_signed_at:
        await refused(processor, forge(vendor, delivery, age_s=-310))
    if vendor.can.webhooks_expire:
        await refused(processor, forge(vendor, delivery, age_s=310))
        await refused(processor, delivery, late_s=310)
        return
    # Resent under its old time: never lost, and never believed without reading.
    for late_s in (310, 3 * 24 * 3600):
        late = await receive(processor, delivery, late_s=late_s)
        assert late == dataclasses.replace(told, decides=False)
    if vendor.can.webhooks_signed_at or told.decides:
        await refused(processor, delivery, late_s=5 * 24 * 3600)


@needs(webhook_proof=(BODY, PARTS))
async def test_two_secrets_are_live_while_one_is_rolled(vendor: ProcessorHarness, delivery: Delivery) -> None:
    rolled = vendor.rolled_secret
    rolling = vendor.provider(webhook_secret=f"{rolled}, {vendor.secret}")
    told = await receive(rolling, delivery)
    assert await receive(rolling, forge(vendor, delivery, secret=rolled)) == told
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
            assert no.value.reason == "no_webhook_secret"  # the door answers 404, as for no connection
        await processor.aclose()


@needs(webhook_proof=NONE)
async def test_an_unsigned_webhook_only_points(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    told = await receive(processor, delivery)
    assert (told.external_id, told.decides, told.disconnected) == (None, False, False)
    assert told.checkout_external_id or told.charge_external_id


@needs(webhook_proof=NONE)
async def test_made_up_ids_cause_no_calls_at_the_door(vendor: ProcessorHarness, processor: Processor) -> None:
    before = vendor.calls()
    for n in range(30):
        await receive(processor, vendor.points_at(f"{vendor.unknown_id}{n}"))
    assert vendor.calls() == before


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
        signed = None if vendor.can.webhook_proof is NONE else vendor.sign(body, vendor.secret, datetime.now(UTC))
        one = with_body(delivery, body, signed)
        one = (one[0], one[1]) if vendor.can.webhook_proof is NONE else one
        try:
            told = await receive(processor, one)
        except PayloadInvalid:
            continue
        except SignatureInvalid:
            # Where the vendor itself is asked, what can't be put into the question counts as unsigned.
            assert not vendor.checks_any_body or vendor.can.webhook_proof is PARTS or body == NO_TEXT
            continue
        # A field that is of no use may be missing.
        assert body not in bodies[:11] or vendor.can.webhook_proof is PARTS
        assert told.created_at is None or told.created_at.tzinfo is not None


@needs(webhook_proof=BODY)
async def test_a_webhook_about_money_of_another_program_is_no_fault(
    vendor: ProcessorHarness, processor: Processor, delivery: Delivery
) -> None:
    told = await receive(processor, delivery)
    if REFERENCE.encode() not in delivery[0]:
        raise NotSupplied("a webhook with our reference")
    for other in (b"order-77", b"", b"x" * 200):
        body = delivery[0].replace(REFERENCE.encode(), other)
        try:
            foreign = await receive(processor, forge(vendor, with_body(delivery, body)))
        except PayloadInvalid:
            continue  # the door takes it where it names nothing of ours
        assert foreign.request_reference != REFERENCE
        assert {one.request_reference for one in foreign.money} & {REFERENCE} == set()
        assert foreign.external_id == told.external_id


async def test_a_checkout_of_another_program_reads_without_our_reference_or_not_at_all(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor, request_reference="order-77", idempotency_key="order-77"))
    await vendor.act(made.external_id, "pay")
    read: Checkout = await processor.read_checkout(made.external_id)
    assert read.request_reference == "order-77"
    assert [one.kind for one in read.money] == [MoneyKind.CHARGE]
