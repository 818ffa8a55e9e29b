"""Tests of the class and of its calls, also under network failures."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from integrations import registry
from integrations.base import (
    Checkout,
    CheckoutStatus,
    IntegrationError,
    MoneyOutcome,
    Processor,
)
from integrations.kit.processor_harness import (
    EMAIL,
    REFERENCE,
    REPORT,
    RETURN_URL,
    NotPayable,
    NotSupplied,
    Outcome,
    ProcessorHarness,
    charge,
    error_of,
    needs,
    order,
    taken,
)
from integrations.kit.vendor import RETRY_AFTER_S, FailureMode

KEYS_LIVE_S = 6 * 3600  # the life that Paythread assumes if none is declared
SILENT: tuple[FailureMode, ...] = ("hang", "drop", "before_500")
TOKEN_LIFE_S = 1.0
GIVEN_UP_S = 5  # a call with a time-out of one second must end within this time


# ---------------------------------------------------------------------------------------------------------- the class
def test_the_registry_takes_the_class_under_its_name(harness: ProcessorHarness) -> None:
    cls = harness.processor
    assert registry.why_not("processors", cls.name, cls) is None
    assert (bool(cls.display_name), inspect.isabstract(cls)) == (True, False)
    assert 60 <= cls.session_life_s <= 24 * 3600


def test_credentials_do_not_show_their_secrets(harness: ProcessorHarness) -> None:
    cls = harness.processor.credentials
    names = {field.name for field in dataclasses.fields(cls)}
    assert harness.public < names
    shown = repr(
        cls(**dict.fromkeys(names - harness.public, "planted-secret"), **dict.fromkeys(harness.public, "shown"))
    )
    assert "planted" not in shown


def test_keys_tell_no_wrong_mode(harness: ProcessorHarness) -> None:
    cls = harness.processor
    names = [field.name for field in dataclasses.fields(cls.credentials)]
    secrets = [name for name in names if name not in harness.public and not name.startswith("webhook")]
    for keys, mode in ((harness.test_keys, "test"), (harness.live_keys, "live")):
        assert set(keys) <= set(names)
        if not keys:
            REPORT.add(f"{cls.name}'s harness has no {mode}_keys", "test_keys_tell_no_wrong_mode")
        assert cls.mode_of(keys) in (mode, None)
        for marked in (f"{mode}_dHar5mnSGbHeXT3dTbnKwQ4y", f"sk_{mode}_dHar5mnSGbHeXT3dTbnKwQ4y"):
            assert cls.mode_of(dict.fromkeys(secrets, marked)) in (mode, None)
    assert cls.mode_of({}) is None


# ------------------------------------------------------------------------------------------------------------- create
async def test_a_new_checkout_is_open_and_leads_to_the_hosted_page(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor))
    assert (made.status, tuple(made.money), made.awaits_completion) == (CheckoutStatus.OPEN, (), False)
    assert made.url is not None
    assert made.url.startswith(vendor.origin + "/")
    assert await processor.read_checkout(made.external_id) == made


@needs()
async def test_the_payers_page_is_https_and_at_a_declared_origin(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    made = await processor.create_checkout(order(processor))
    at = urlsplit(made.url or "")
    if at.hostname == "127.0.0.1":  # a fake in this process
        raise NotSupplied("a page at an address of its own")
    assert at.scheme == "https"
    assert f"https://{at.netloc}" in processor.checkout_origins


async def test_our_reference_comes_back_with_the_checkout(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    assert made.request_reference == REFERENCE
    assert (await processor.read_checkout(made.external_id)).request_reference == REFERENCE


async def test_a_checkout_tells_when_it_ends(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    assert (made.expires_at is not None) == vendor.can.checkouts_end
    if made.expires_at is not None:
        assert made.expires_at.tzinfo is not None
        left = made.expires_at - datetime.now(UTC)
        life = timedelta(seconds=processor.session_life_s)
        assert life / 2 < left <= life + timedelta(seconds=2)


@needs()
async def test_the_payer_comes_back_to_our_page(vendor: ProcessorHarness, processor: Processor) -> None:
    await processor.create_checkout(order(processor))
    sent = vendor.sent()
    assert RETURN_URL in sent or quote(RETURN_URL, safe="") in sent


async def test_the_least_and_the_most_that_an_order_may_say_are_taken(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    least = order(processor, description=None, customer_email=None, locale=None)
    most = order(
        processor,
        idempotency_key="k" * 70,
        product_name="€" * 255,
        description="x\r\n" * 300,
        locale="xx-unknown",
        currency=taken(processor)[-1],
    )
    assert (await processor.create_checkout(least)).status is CheckoutStatus.OPEN
    assert (await processor.create_checkout(most)).status is CheckoutStatus.OPEN
    assert await vendor.checkouts() == 2


@needs("knows_keys")
async def test_the_same_key_gives_the_same_checkout(vendor: ProcessorHarness, processor: Processor) -> None:
    other_process = vendor.provider()
    made = await processor.create_checkout(order(processor))
    again = await other_process.create_checkout(order(processor))
    await other_process.aclose()
    assert again == made
    assert await vendor.checkouts() == 1


def nearly_the_life_of_a_key(vendor: ProcessorHarness) -> float:
    life_s = vendor.can.key_life_s
    if life_s is not None and type(vendor).age_keys is ProcessorHarness.age_keys:
        raise AssertionError("key_life_s is declared: supply age_keys")
    return KEYS_LIVE_S if life_s is None else min(life_s, KEYS_LIVE_S) * 0.95


@needs("knows_keys")
async def test_a_checkouts_key_is_known_for_its_declared_life(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    vendor.age_keys(nearly_the_life_of_a_key(vendor))
    again = await processor.create_checkout(order(processor))
    assert await vendor.checkouts() == 1, "declare key_life_s, or look up what the key created"
    assert again.external_id == made.external_id


async def test_another_key_gives_another_checkout(vendor: ProcessorHarness, processor: Processor) -> None:
    made = [await processor.create_checkout(order(processor, idempotency_key=f"{REFERENCE}:{n}")) for n in (1, 2)]
    assert made[0].external_id != made[1].external_id
    assert await vendor.checkouts() == 2


@needs("knows_keys")
async def test_calls_with_one_key_at_once_make_one_checkout(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await asyncio.gather(*(processor.create_checkout(order(processor)) for _ in range(5)))
    assert len({checkout.external_id for checkout in made}) == 1
    assert await vendor.checkouts() == 1


@needs("knows_keys")
async def test_the_same_key_with_another_amount_is_refused(vendor: ProcessorHarness, processor: Processor) -> None:
    first = order(processor)
    await processor.create_checkout(first)
    refused = await error_of(
        processor.create_checkout(dataclasses.replace(first, amount_minor=first.amount_minor + 100))
    )
    assert (refused.retryable, refused.ambiguous) == (False, False)
    assert await vendor.checkouts() == 1


# ------------------------------------------------------------------------------------------------------------- errors
@pytest.mark.parametrize("mode", ["hang", "drop"])
async def test_a_lost_answer_is_ambiguous_and_the_key_finds_the_checkout(
    vendor: ProcessorHarness, hasty: Processor, mode: FailureMode
) -> None:
    vendor.fail_next(mode)
    lost = await error_of(hasty.create_checkout(order(hasty)))
    assert (lost.provider, lost.ambiguous, lost.retryable) == (hasty.name, True, True)
    assert await vendor.checkouts() == 1
    if not vendor.can.knows_keys:
        return
    assert (await hasty.create_checkout(order(hasty))).status is CheckoutStatus.OPEN
    assert await vendor.checkouts() == 1


async def test_a_500_after_acceptance_is_ambiguous_and_nothing_is_repeated(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    vendor.fail_next("accept_then_500")
    lost = await error_of(processor.create_checkout(order(processor)))
    assert (lost.reason, lost.ambiguous) == ("server_error", True)
    assert await vendor.checkouts() == 1


async def test_a_rate_limit_may_be_retried_and_made_nothing(vendor: ProcessorHarness, processor: Processor) -> None:
    vendor.fail_next("rate_limit")
    refused = await error_of(processor.create_checkout(order(processor)))
    assert (refused.reason, refused.retryable, refused.ambiguous) == ("rate_limited", True, False)
    assert await vendor.checkouts() == 0


@needs("retry_after")
async def test_a_rate_limit_tells_how_long_to_wait(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    for call in (processor.create_checkout(order(processor)), processor.read_checkout(made.external_id)):
        vendor.fail_next("rate_limit")
        refused = await error_of(call)
        # Some vendors give the end in whole seconds.
        assert refused.retry_after_s == pytest.approx(RETRY_AFTER_S, abs=1.5)


async def test_a_definite_no_is_neither_ambiguous_nor_worth_a_retry(
    vendor: ProcessorHarness, processor: Processor
) -> None:
    vendor.fail_next("refuse")
    refused = await error_of(processor.create_checkout(order(processor)))
    assert (refused.retryable, refused.ambiguous) == (False, False)
    assert await vendor.checkouts() == 0


async def test_a_vendor_that_is_away_is_an_integration_error(vendor: ProcessorHarness) -> None:
    processor = vendor.unreachable()
    for call in (
        processor.create_checkout(order(processor)),
        processor.read_checkout(vendor.known_shape),
        processor.expire_checkout(vendor.known_shape),
        processor.complete_checkout(vendor.known_shape, idempotency_key="1"),
    ):
        away = await error_of(call)
        assert (away.reason, away.retryable, away.ambiguous) == ("connection", True, False)
    await processor.aclose()


async def test_a_wrong_key_is_refused_for_good(vendor: ProcessorHarness) -> None:
    processor = vendor.provider(secret_key="sk_test_of_somebody_else")
    refused = await error_of(processor.create_checkout(order(processor)))
    if vendor.checks_key:
        with pytest.raises(IntegrationError):
            await processor.check()
    await processor.aclose()
    assert (refused.reason, refused.retryable, refused.ambiguous) == (
        "authentication_failed",
        False,
        False,
    )
    assert await vendor.checkouts() == 0


@needs()
async def test_a_token_is_not_used_after_its_end(vendor: ProcessorHarness, processor: Processor) -> None:
    vendor.give_tokens(TOKEN_LIFE_S)
    made = await processor.create_checkout(order(processor))
    await asyncio.sleep(TOKEN_LIFE_S + 0.2)
    await processor.read_checkout(made.external_id)
    await asyncio.sleep(TOKEN_LIFE_S + 0.2)
    assert await processor.create_checkout(order(processor)) == made


@pytest.mark.parametrize("mode", [*SILENT, "rate_limit", "nonsense", "empty"])
@needs()
async def test_a_call_for_a_token_that_fails_made_nothing(
    vendor: ProcessorHarness, hasty: Processor, mode: FailureMode
) -> None:
    vendor.fail_next_token(mode)
    refused = await error_of(hasty.create_checkout(order(hasty)))
    assert not refused.ambiguous, "the call itself was not made, so it may be repeated"
    assert refused.retryable or mode in ("nonsense", "empty")
    assert await vendor.checkouts() == 0
    assert (await hasty.create_checkout(order(hasty))).status is CheckoutStatus.OPEN
    assert not any(secret in str(refused) for secret in vendor.secrets())


async def test_an_unknown_checkout_is_not_found(vendor: ProcessorHarness, processor: Processor) -> None:
    for call in (
        processor.read_checkout(vendor.unknown_id),
        processor.expire_checkout(vendor.unknown_id),
        processor.complete_checkout(vendor.unknown_id, idempotency_key="1"),
    ):
        refused = await error_of(call)
        assert (refused.reason, refused.ambiguous) == ("not_found", False)


async def test_an_odd_id_is_not_found_and_no_part_of_an_address(vendor: ProcessorHarness, processor: Processor) -> None:
    known = (await processor.create_checkout(order(processor))).external_id
    odd = ["", "..", "a/b", "x" * 300, "é", "a b", "%2e%2e", f"{known}?a=b", f"{known}#c", f"{known}/", f"x/../{known}"]
    for one in odd:
        refused = await error_of(processor.read_checkout(one))
        assert (refused.retryable, refused.ambiguous) == (False, False)


@pytest.mark.parametrize("mode", ["before_500", "hang", "drop"])
async def test_a_failed_read_is_never_ambiguous(vendor: ProcessorHarness, hasty: Processor, mode: FailureMode) -> None:
    made = await hasty.create_checkout(order(hasty))
    vendor.fail_next(mode)
    lost = await error_of(hasty.read_checkout(made.external_id))
    assert (lost.ambiguous, lost.retryable) == (False, True)


@pytest.mark.parametrize("mode", ["nonsense", "empty"])
async def test_an_answer_that_is_not_understood_is_an_integration_error(
    vendor: ProcessorHarness, processor: Processor, mode: FailureMode
) -> None:
    made = await processor.create_checkout(order(processor))
    vendor.fail_next(mode)
    read = await error_of(processor.read_checkout(made.external_id))
    vendor.fail_next(mode)
    created = await error_of(processor.create_checkout(order(processor, idempotency_key=f"{REFERENCE}:2")))
    # The vendor may have created it.
    assert (type(read.message), created.ambiguous) == (str, True)


async def test_a_silent_vendor_is_given_up_in_time(vendor: ProcessorHarness, hasty: Processor) -> None:
    made = await hasty.create_checkout(order(hasty))
    vendor.fail_next("hang")
    try:
        async with asyncio.timeout(GIVEN_UP_S):
            with pytest.raises(IntegrationError):
                await hasty.read_checkout(made.external_id)
    except TimeoutError:
        pytest.fail("the provider does not respect environment.timeout_s")


async def test_a_call_does_not_block_the_event_loop(vendor: ProcessorHarness, hasty: Processor) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.02)
            ticks += 1

    made = await hasty.create_checkout(order(hasty))
    ticking = asyncio.create_task(tick())
    vendor.fail_next("hang")
    with pytest.raises(IntegrationError):
        await hasty.read_checkout(made.external_id)
    ticking.cancel()
    assert ticks >= 8, "no other task had a turn while the vendor did not respond for a second"


def in_base64(secret: str) -> set[str]:
    # At every alignment: in `Basic …` an id precedes the secret.
    found = set()
    for before in range(3):
        encoded = base64.b64encode(b"x" * before + secret.encode()).decode().rstrip("=")
        found.add(encoded[4 if before else 0 : -4])
    return found


async def test_no_error_and_no_log_line_has_a_secret_or_an_address(
    vendor: ProcessorHarness, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    planted = "sk_test_planted0secret0001"
    caplog.set_level(logging.DEBUG, logger=sys.modules[vendor.processor.__module__].__name__)
    said: list[str] = []
    wrong, right = vendor.provider(secret_key=planted, timeout_s=1), vendor.provider(timeout_s=1)
    calls: list[tuple[FailureMode | None, Callable[[], Awaitable[Any]]]] = [
        (None, lambda: wrong.create_checkout(order(wrong))),
        *((None, call) for call in ([wrong.check] if vendor.checks_key else [])),
        ("refuse", lambda: right.create_checkout(order(right))),
        ("accept_then_500", lambda: right.create_checkout(order(right))),
        ("nonsense", lambda: right.create_checkout(order(right))),
        *((mode, lambda: right.create_checkout(order(right))) for mode in SILENT),
        *((mode, lambda: right.read_checkout(vendor.known_shape)) for mode in SILENT),
        *((mode, lambda: wrong.read_checkout(vendor.known_shape)) for mode in SILENT),
    ]
    for mode, call in calls:
        if mode is not None:
            vendor.fail_next(mode)
        refused = await error_of(call())
        said += [str(refused), repr(refused), refused.message]
    await wrong.aclose()
    await right.aclose()
    printed = capsys.readouterr()
    said += [record.getMessage() for record in caplog.records if record.name.startswith(vendor.processor.__module__)]
    hidden = {EMAIL, *vendor.secrets()}
    for secret in (planted, *([vendor.secret] if vendor.secret else [])):
        hidden |= {secret, *in_base64(secret)}
    for text in (*said, printed.out, printed.err):
        assert [one for one in hidden if one in text] == []


async def test_a_reading_is_never_from_memory(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    assert (await processor.read_checkout(made.external_id)).status is CheckoutStatus.OPEN
    await vendor.act(made.external_id, "pay")
    assert (await processor.read_checkout(made.external_id)).status is CheckoutStatus.COMPLETED
    await vendor.refund(made.external_id, order(processor).amount_minor)
    assert len((await processor.read_checkout(made.external_id)).money) == 2


# ------------------------------------------------------------------------------------------------------------- expire
@needs("cancels_checkouts")
async def test_an_open_checkout_is_expired_once_and_for_all(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    for _ in range(2):
        closed = await processor.expire_checkout(made.external_id)
        assert (closed.status, closed.url, tuple(closed.money)) == (CheckoutStatus.EXPIRED, None, ())
    with pytest.raises(NotPayable):
        await vendor.act(made.external_id, "pay")
    assert (await processor.read_checkout(made.external_id)).status is CheckoutStatus.EXPIRED


@needs(cancels_checkouts=False)
async def test_what_cannot_be_canceled_is_told_as_open(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    assert await processor.expire_checkout(made.external_id) == made
    await vendor.act(made.external_id, "pay")


@needs("checkouts_end")
async def test_a_checkout_that_has_ended_reads_as_expired(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    await vendor.lapse(made.external_id)
    for read in (await processor.read_checkout(made.external_id), await processor.expire_checkout(made.external_id)):
        assert (read.status, read.url, tuple(read.money)) == (CheckoutStatus.EXPIRED, None, ())


async def too_late(vendor: ProcessorHarness, processor: Processor, before: Outcome) -> Checkout:
    made = await processor.create_checkout(order(processor))
    await vendor.act(made.external_id, before)
    return await processor.expire_checkout(made.external_id)


async def test_expiring_too_late_tells_the_payment_that_won(vendor: ProcessorHarness, processor: Processor) -> None:
    closed = await too_late(vendor, processor, "pay")
    assert (closed.status, charge(closed)[0]) == (CheckoutStatus.COMPLETED, MoneyOutcome.SUCCEEDED)


@needs("delayed_payments")
async def test_expiring_too_late_tells_the_payment_under_way(vendor: ProcessorHarness, processor: Processor) -> None:
    closed = await too_late(vendor, processor, "delay")
    assert (closed.status, charge(closed)[0]) == (CheckoutStatus.PROCESSING, MoneyOutcome.PENDING)


@pytest.mark.parametrize("mode", ["accept_then_500", "hang", "drop"])
@needs("cancels_checkouts")
async def test_an_expiry_without_an_answer_may_be_repeated(
    vendor: ProcessorHarness, hasty: Processor, mode: FailureMode
) -> None:
    made = await hasty.create_checkout(order(hasty))
    vendor.fail_next(mode)
    lost = await error_of(hasty.expire_checkout(made.external_id))
    assert lost.ambiguous
    assert (await hasty.expire_checkout(made.external_id)).status is CheckoutStatus.EXPIRED


async def test_completing_what_does_not_wait_only_reads(vendor: ProcessorHarness, processor: Processor) -> None:
    made = await processor.create_checkout(order(processor))
    assert await processor.complete_checkout(made.external_id, idempotency_key="1") == made
    await vendor.act(made.external_id, "pay")
    paid = await processor.read_checkout(made.external_id)
    for key in ("1", "2"):
        assert await processor.complete_checkout(made.external_id, idempotency_key=key) == paid
    assert (paid.status, paid.awaits_completion, len(paid.money)) == (CheckoutStatus.COMPLETED, False, 1)


# -------------------------------------------------------------------------------------------------------- limits
@pytest.mark.parametrize("currency", ["", "usd", "US", "USDX", "£", "XXXX"])
async def test_no_limits_for_what_is_no_currency(processor: Processor, currency: str) -> None:
    assert processor.amount_limits(currency) is None


async def test_the_limits_of_a_currency_fit_each_other(vendor: ProcessorHarness, processor: Processor) -> None:
    assert taken(processor)
    for currency in taken(processor):
        limits = processor.amount_limits(currency)
        assert limits is not None
        assert 1 <= limits.minimum_minor <= (limits.maximum_minor or limits.minimum_minor)
        assert all(type(one) is int for one in (limits.minimum_minor, limits.step_minor))
