"""The channel suite, first part: the class, and sending."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import traceback
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from integrations import registry
from integrations.base import (
    Channel,
    ChannelKind,
    DeliveryStatus,
    Feature,
    IntegrationError,
    LengthUnit,
)
from integrations.kit.channel_bench import (
    CLOSED,
    Became,
    Bench,
    ChannelHarness,
    another_sender,
    connected,
    stopped_calls,
)
from integrations.kit.vendor import FailureMode

# One unit each, or the smallest number above one.
SYMBOLS: Final = {LengthUnit.CHARACTERS: "é", LengthUnit.UTF16_UNITS: "👍", LengthUnit.BYTES: "é"}
REPORTED: Final = {
    DeliveryStatus.DELIVERED: Feature.DELIVERED,
    DeliveryStatus.READ: Feature.READ,
    DeliveryStatus.FAILED: Feature.FAILED,
}


async def refusal(sending: Any) -> IntegrationError:
    with pytest.raises(IntegrationError) as caught:
        await sending
    return caught.value


# ---------------------------------------------------------------------------------------------------------- the class
def test_the_registry_takes_the_class_under_its_name(harness: ChannelHarness) -> None:
    cls = harness.channel
    assert registry.why_not("channels", cls.name, cls) is None
    assert (bool(cls.display_name), inspect.isabstract(cls)) == (True, False)
    assert len(set(cls.kinds)) == len(cls.kinds)
    assert harness.kind in cls.kinds


def test_a_channel_is_not_made_for_a_kind_that_it_does_not_serve(harness: ChannelHarness) -> None:
    fields = dict.fromkeys((field.name for field in dataclasses.fields(harness.channel.credentials)), "x")
    for kind in set(ChannelKind) - set(harness.channel.kinds):
        with pytest.raises(ValueError, match="does not serve"):
            connected(harness.channel, kind, {**fields, **harness.credentials}, {})


def test_credentials_do_not_show_their_secrets(harness: ChannelHarness) -> None:
    cls = harness.channel.credentials
    names = {field.name for field in dataclasses.fields(cls)}
    assert harness.public <= names
    assert set(harness.signing) & (names - harness.public)
    shown = repr(cls(**dict.fromkeys(names - harness.public, "planted-secret"), **dict.fromkeys(harness.public, "1")))
    assert "planted" not in shown


def test_what_is_declared_is_implemented_and_nothing_else(harness: ChannelHarness) -> None:
    cls = harness.channel
    optional = {
        Feature.LOOK_UP: cls.look_up is not Channel.look_up,
        Feature.REGISTRATION: cls.register_webhook is not Channel.register_webhook,
        Feature.DEEP_LINKS: cls.deep_link is not Channel.deep_link,
    }
    assert {feature for feature in optional if feature in cls.features} == {f for f, made in optional.items() if made}
    reported = {REPORTED[status] for status in harness.words.values() if status in REPORTED}
    assert {feature for feature in REPORTED.values() if feature in cls.features} == reported


async def test_the_limits_are_those_that_the_vendor_documents(bench: Bench) -> None:
    assert bench.channel.limits(bench.kind) == bench.vendor.documented


# ------------------------------------------------------------------------------------------------------------ sending
async def test_no_call_stops_the_event_loop(bench: Bench) -> None:
    with stopped_calls() as stopped:
        sent = await bench.channel.send(bench.message())
        await bench.channel.check()
        await bench.channel.look_up(bench.message(), sent_after=datetime.now(UTC))
    assert stopped == [], "use an asynchronous client or another thread"
    assert sent.external_id


async def test_one_call_is_one_message_and_each_attempt_has_its_own_id(bench: Bench) -> None:
    first = await bench.channel.send(bench.message("one"))
    second = await bench.channel.send(bench.message("two", message_id="msg_2", attempt_id="att_2"))
    assert [isinstance(sent.external_id, str) and sent.external_id != "" for sent in (first, second)] == [True, True]
    assert first.external_id != second.external_id
    assert (first.status, second.status) == (DeliveryStatus.SENT, DeliveryStatus.SENT)
    assert bench.vendor.texts() in (None, ["one", "two"])


async def test_the_same_text_twice_is_two_messages(bench: Bench) -> None:
    first = await bench.channel.send(bench.message("Yes"))
    second = await bench.channel.send(bench.message("Yes", message_id="msg_2", attempt_id="att_2"))
    assert first.external_id != second.external_id, (
        "derive the vendor's idempotency key from `message_id` or `attempt_id`"
    )
    assert bench.vendor.texts() in (None, ["Yes", "Yes"])


async def test_the_same_attempt_again_is_no_refusal(bench: Bench) -> None:
    if "accept_then_500" not in bench.vendor.failures:
        return  # not a failure of this vendor
    bench.vendor.fail_next("accept_then_500")
    assert (await refusal(bench.channel.send(bench.message()))).ambiguous
    # If the vendor reports a known key, such as with a 409, the message was accepted.
    refused = False
    try:
        await bench.channel.send(bench.message())
    except IntegrationError as error:
        refused = not error.ambiguous
    assert not refused, "the vendor has accepted this message"


async def test_a_text_arrives_exactly_as_it_was_written(bench: Bench) -> None:
    body = "  *50 %* off_now_ <b>&amp; ~more~ `x` [y](z)\nline 2 👍 é https://pay.example.test/p/Ab_c-d_E?x=1&y=2  "
    await bench.channel.send(bench.message(body))
    assert bench.vendor.texts() in (None, [body])


async def test_a_text_at_the_limit_is_taken_and_one_more_is_refused_whole(bench: Bench) -> None:
    limits = bench.channel.limits(bench.kind)
    symbol = SYMBOLS[limits.length_unit]
    longest = symbol * ((limits.max_length or 10_000) // limits.length_of(symbol))
    await bench.channel.send(bench.message(longest))
    if limits.max_length is not None:
        error = await refusal(bench.channel.send(bench.message(longest + symbol, attempt_id="att_2")))
        assert (error.reason, error.retryable, error.ambiguous) == ("too_long", False, False)
    assert bench.vendor.texts() in (None, [longest])


async def test_a_missing_subject_is_refused_where_one_is_needed(bench: Bench) -> None:
    if bench.channel.limits(bench.kind).needs_subject:
        error = await refusal(bench.channel.send(bench.message(subject=None)))
        assert (error.reason, error.retryable) == ("subject_required", False)
    else:
        assert (await bench.channel.send(bench.message(subject=None))).external_id


@pytest.mark.parametrize("body", ["", " \n\t"])
async def test_an_empty_text_is_refused(bench: Bench, body: str) -> None:
    error = await refusal(bench.channel.send(bench.message(body)))
    assert (error.reason, error.retryable, error.ambiguous) == ("empty_message", False, False)
    assert not bench.vendor.texts()


async def test_a_recipient_whom_the_vendor_refuses_is_refused_for_good(bench: Bench) -> None:
    error = await refusal(bench.channel.send(bench.message(to=bench.vendor.refused)))
    assert error.reason == bench.vendor.refused_as
    assert (error.retryable, error.ambiguous) == (False, False)
    assert error.provider == bench.name
    assert not bench.vendor.texts()


async def test_a_rate_limit_is_tried_again_after_the_wait_that_the_vendor_names(bench: Bench) -> None:
    if "rate_limit" not in bench.vendor.failures:
        return  # no rate limit
    bench.vendor.fail_next("rate_limit")
    error = await refusal(bench.channel.send(bench.message()))
    assert (error.reason, error.retryable, error.ambiguous) == ("rate_limited", True, False)
    assert error.retry_after_s == bench.vendor.rate_limit_s
    assert not bench.vendor.texts()


@pytest.mark.parametrize("mode", ["accept_then_500", "drop", "hang", "trickle", "nonsense", "empty"])
async def test_a_lost_answer_is_ambiguous_and_nothing_is_sent_twice(bench: Bench, mode: FailureMode) -> None:
    if mode not in bench.vendor.failures:
        assert bench.vendor.answer_lost or bench.vendor.failures, "declare `failures` or `answer_lost`"
        return  # not a failure of this vendor
    quick = bench.another(timeout_s=0.3 if mode in ("hang", "trickle") else 5.0)
    bench.vendor.fail_next(mode)
    message = bench.message()
    async with asyncio.timeout(5):  # the channel must use `environment.timeout_s`
        error = await refusal(quick.send(message))
    assert (error.ambiguous, error.retryable) == (True, False)
    assert bench.vendor.texts() in (None, [message.body])


async def test_a_vendor_that_is_not_reached_has_taken_nothing(bench: Bench) -> None:
    closed = bench.vendor.closed()
    if not bench.addresses and closed == bench.vendor.credentials:
        assert bench.vendor.texts() is None  # no network involved
        return
    channel = bench.another(closed, dict.fromkeys(bench.addresses, CLOSED))
    error = await refusal(channel.send(bench.message()))
    assert (error.retryable, error.ambiguous) == (True, False)


async def test_a_lost_answer_is_found_again_where_the_vendor_can_be_asked(bench: Bench) -> None:
    began = datetime.now(UTC)
    message = bench.message(to=bench.vendor.answer_lost) if bench.vendor.answer_lost else bench.message()
    if not bench.vendor.answer_lost:
        bench.vendor.fail_next("drop")
    error = await refusal(bench.channel.send(message))
    assert (error.ambiguous, error.retryable) == (True, False)
    taken = bench.vendor.texts()
    kept = None if taken is None else list(taken)
    found = await bench.channel.look_up(message, sent_after=began)
    assert bench.vendor.texts() == kept, "look_up sends nothing"
    if word := bench.vendor.word_of(message):
        assert found is None
        statuses = bench.receive(word).statuses
        assert [(update.message_id, update.status) for update in statuses] == [("msg_1", DeliveryStatus.DELIVERED)]
    elif bench.has(Feature.LOOK_UP):
        assert found is not None
        assert found.status is DeliveryStatus.SENT
        if bench.has(Feature.DELIVERED):
            event = Became(external_id=found.external_id, word=bench.word(DeliveryStatus.DELIVERED))
            received = bench.receive(bench.vendor.tell(event))
            assert [status.external_id for status in received.statuses] == [found.external_id]
    else:
        assert found is None
    stranger = await bench.channel.look_up(bench.message(to=bench.vendor.refused), sent_after=began)
    assert stranger is None


async def test_looking_up_what_was_never_sent_finds_and_sends_nothing(bench: Bench) -> None:
    if bench.vendor.texts() is None:
        return  # it keeps no messages
    found = await bench.channel.look_up(bench.message(), sent_after=datetime.now(UTC))
    assert (found, bench.vendor.texts()) == (None, []), "ask the vendor; never send, never guess"


async def test_the_name_of_an_unknown_person_is_none_or_a_refusal(bench: Bench) -> None:
    name, repeated = None, False
    try:
        name = await bench.channel.name_of(another_sender(bench))
    except IntegrationError as error:
        repeated = error.retryable or error.ambiguous
    assert not repeated, "must not be retryable: the answer stays the same"
    assert name is None or (isinstance(name, str) and name)


async def test_no_error_shows_a_secret(bench: Bench) -> None:
    errors = [await refusal(bench.channel.send(bench.message(to=bench.vendor.refused)))]
    for mode in sorted(bench.vendor.failures - {"hang", "trickle"}):
        bench.vendor.fail_next(mode)
        errors.append(await refusal(bench.channel.send(bench.message())))
    mistyped = mistyped_keys(bench)
    if bench.vendor.account is not None and bench.addresses:
        elsewhere = bench.another(addresses=dict.fromkeys(bench.addresses, CLOSED))
        errors.append(await refusal(elsewhere.check()))
        if mistyped:
            errors.append(await refusal(bench.another({**bench.vendor.credentials, **mistyped}).check()))
    secrets = [*bench.secrets, *mistyped.values()]
    for error in errors:
        # Logs print the whole chain, with URLs in client libraries' messages.
        shown = "".join(traceback.format_exception(error)) + repr(error.__dict__)
        lines = [line for line in shown.splitlines() if not line.startswith("    ")]  # without source lines
        assert [secret for secret in secrets if len(secret) > 5 and secret in "\n".join(lines)] == [], error.reason


async def test_check_refuses_keys_that_the_vendor_does_not_know(bench: Bench) -> None:
    if bench.vendor.account is None:
        assert await bench.channel.check() is None  # the vendor names no account
    elif mistyped := mistyped_keys(bench):
        error = await refusal(bench.another({**bench.vendor.credentials, **mistyped}).check())
        assert (error.retryable, error.ambiguous) == (False, False)


def mistyped_keys(bench: Bench) -> dict[str, str]:
    keys = [name for name in bench.vendor.credentials if name not in (*bench.vendor.public, *bench.vendor.signing)]
    return {name: bench.vendor.credentials[name][:-1] + "Z" for name in keys}


async def test_check_answers_without_sending_anything(bench: Bench) -> None:
    assert await bench.channel.check() == bench.vendor.account
    assert not bench.vendor.texts()


async def test_one_instance_serves_many_tasks_and_closes_twice(bench: Bench) -> None:
    sends = (
        bench.channel.send(bench.message(f"text {n}", message_id=f"msg_{n}", attempt_id=f"att_{n}")) for n in range(10)
    )
    results = await asyncio.gather(*sends)
    assert len({result.external_id for result in results}) == 10
    await bench.channel.aclose()
    await bench.channel.aclose()


# Authors import everything beside their own names.
__all__ = [name for name in dir() if name.startswith("test_")]
