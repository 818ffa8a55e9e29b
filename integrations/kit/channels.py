"""The suite that every channel must pass: the promises of `integrations.base.Channel`, against a running fake of its vendor.

An author's test module says `from integrations.kit.channels import *` and gives the fixture `harness`, once per kind that it serves.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
import pytest_asyncio

from integrations import registry
from integrations.base import (
    Channel,
    ChannelKind,
    DeliveryStatus,
    Environment,
    IntegrationError,
    OutboundMessage,
    PayloadInvalid,
    SignatureInvalid,
    WebhookRequest,
)

PUBLIC_URL = "https://pay.example.test"
Callback = tuple[str, bytes, dict[str, str]]  # public URL, raw body, headers with lower-case names


class ChannelHarness(ABC):
    """The other side of one connection: what a channel's author supplies to be tested.

    The switches say what a vendor does otherwise than most; what we promise all the same is in the tests.
    """

    channel: ClassVar[type[Channel]]  # the class under test
    public: ClassVar[frozenset[str]] = frozenset()  # fields of its credentials that are no secret
    signing: ClassVar[tuple[str, ...]] = ("secret",)  # fields of its credentials that verify callbacks
    signature_header: ClassVar[str]  # lower case
    states: ClassVar[Mapping[str, DeliveryStatus]]  # the vendor's words for what became of a message, and ours
    delivered: ClassVar[str] = "delivered"  # its word for that
    undelivered: ClassVar[str] = "undelivered"

    credentials: Mapping[str, str]
    address = "1234567890"  # somebody who can be written to
    refused: str  # an address that the vendor refuses
    refused_as: str = "opted_out"  # why
    account: str | None = None  # what the vendor calls the account
    answer_lost: str = ""  # an address whose answers are lost; empty: `lose_answer` arranges it

    def __init__(self, kind: ChannelKind = ChannelKind.CUSTOM) -> None:
        self.kind = kind

    @property
    def url(self) -> str:
        """Where the vendor calls back."""
        return f"{PUBLIC_URL}/inbound/{self.channel.name}/chn_1"

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        """Start what is needed; return base addresses."""
        return {}

    def lose_answer(self) -> None:  # noqa: B027 (optional to override)
        """Let the vendor accept the next message without an answer."""

    def word_of(self, message: OutboundMessage) -> Callback | None:
        """Where nothing can be looked up: the callback that still tells what became of a message whose answer was lost."""
        return None

    @abstractmethod
    def texts(self) -> list[str] | None:
        """Texts of the messages that the vendor took from us; None: it keeps none."""

    @abstractmethod
    def status(self, external_id: str, word: str) -> Callback:
        """A signed status callback in the vendor's word."""

    @abstractmethod
    def inbound(self, sender: str, text: str) -> Callback:
        """A signed inbound message."""

    @abstractmethod
    def garbage(self) -> Callback:
        """A correctly signed request that is not in the vendor's contract."""


@dataclasses.dataclass
class Bench:
    """A running vendor and a channel connected to it."""

    vendor: ChannelHarness
    channel: Channel

    @property
    def name(self) -> str:
        """The channel's."""
        return self.channel.name

    @property
    def kind(self) -> ChannelKind:
        """Which of the channel's kinds is tried."""
        return self.vendor.kind

    def message(self, body: str = "Pay here: https://pay.example.test/p/abc", **changes: Any) -> OutboundMessage:
        """What the suite sends, with changes."""
        values = {
            "message_id": "msg_1",
            "attempt_id": "att_1",
            "to": self.vendor.address,
            "body": body,
            "subject": "Your payment" if self.channel.limits(self.kind).needs_subject else None,
            "status_url": self.vendor.url,
        }
        return OutboundMessage(**{**values, **changes})

    def request(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookRequest:
        """A callback as the door hands it over."""
        return WebhookRequest(method="POST", public_url=url, headers=headers, body=body, now=datetime.now(UTC))


def connected(
    provider: type[Channel], kind: ChannelKind, values: Mapping[str, str], addresses: Mapping[str, str]
) -> Channel:
    """A channel made as the product makes it."""
    environment = Environment(
        public_url=PUBLIC_URL,
        sandbox_url="http://127.0.0.1:1",
        base_addresses=addresses,
        private_hosts=frozenset({"127.0.0.1:*"}),  # where the vendor of the test listens
    )
    made: Any = provider
    channel: Channel = made(registry.read_credentials(provider, values), kind=kind, environment=environment)
    return channel


@pytest_asyncio.fixture
async def bench(harness: ChannelHarness) -> AsyncIterator[Bench]:
    """The vendor, running, and a channel connected to it."""
    async with AsyncExitStack() as stack:
        addresses = await harness.start(stack)
        channel = connected(harness.channel, harness.kind, harness.credentials, addresses)
        stack.push_async_callback(channel.aclose)
        yield Bench(harness, channel)


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


# ------------------------------------------------------------------------------------------------------------ sending
async def test_one_call_is_one_message_and_each_attempt_has_its_own_id(bench: Bench) -> None:
    first = await bench.channel.send(bench.message("one"))
    second = await bench.channel.send(bench.message("two", message_id="msg_2", attempt_id="att_2"))
    assert first.external_id
    assert first.external_id != second.external_id
    assert (first.status, second.status) == (DeliveryStatus.SENT, DeliveryStatus.SENT)
    assert bench.vendor.texts() in (None, ["one", "two"])


async def test_a_text_at_the_limit_is_taken_and_one_more_is_refused_whole(bench: Bench) -> None:
    limits = bench.channel.limits(bench.kind)
    longest = limits.max_length or 10_000
    count = longest // 2 if limits.length_in_bytes else longest  # é is one character and two bytes
    await bench.channel.send(bench.message("é" * count))
    if limits.max_length is not None:
        with pytest.raises(IntegrationError) as caught:
            await bench.channel.send(bench.message("é" * (count + 1), attempt_id="att_2"))
        assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("too_long", False, False)
    texts = bench.vendor.texts()
    assert texts is None or len(texts) == 1


async def test_a_missing_subject_is_refused_where_one_is_needed(bench: Bench) -> None:
    if bench.channel.limits(bench.kind).needs_subject:
        with pytest.raises(IntegrationError) as caught:
            await bench.channel.send(bench.message(subject=None))
        assert (caught.value.reason, caught.value.retryable) == ("subject_required", False)
    else:
        assert (await bench.channel.send(bench.message(subject=None))).external_id


async def test_an_empty_text_is_refused(bench: Bench) -> None:
    with pytest.raises(IntegrationError) as caught:
        await bench.channel.send(bench.message(""))
    assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("empty_message", False, False)
    assert not bench.vendor.texts()


async def test_a_recipient_whom_the_vendor_refuses_is_refused_for_good(bench: Bench) -> None:
    with pytest.raises(IntegrationError) as caught:
        await bench.channel.send(bench.message(to=bench.vendor.refused))
    assert caught.value.reason == bench.vendor.refused_as
    assert (caught.value.retryable, caught.value.ambiguous) == (False, False)
    assert caught.value.provider == bench.name
    assert not bench.vendor.texts()


async def test_a_lost_answer_is_ambiguous_and_its_message_is_found_again(bench: Bench) -> None:
    began = datetime.now(UTC)
    bench.vendor.lose_answer()
    message = bench.message(to=bench.vendor.answer_lost) if bench.vendor.answer_lost else bench.message()
    with pytest.raises(IntegrationError) as caught:
        await bench.channel.send(message)
    assert (caught.value.ambiguous, caught.value.retryable) == (True, False)
    assert bench.vendor.texts() in (None, [message.body])
    found = await bench.channel.look_up(message, sent_after=began)
    if word := bench.vendor.word_of(message):
        assert found is None
        told = bench.channel.receive(bench.request(*word)).statuses
        assert [(update.message_id, update.status) for update in told] == [("msg_1", DeliveryStatus.DELIVERED)]
        return
    assert found is not None
    assert found.status is DeliveryStatus.SENT
    url, body, headers = bench.vendor.status(found.external_id, bench.vendor.delivered)
    received = bench.channel.receive(bench.request(url, body, headers))
    assert [status.external_id for status in received.statuses] == [found.external_id]


async def test_the_look_up_knows_nothing_of_a_refused_message(bench: Bench) -> None:
    message = bench.message(to=bench.vendor.refused)
    assert await bench.channel.look_up(message, sent_after=datetime.now(UTC) - timedelta(minutes=1)) is None


async def test_every_state_of_the_vendor_is_mapped_and_read(bench: Bench) -> None:
    states = bench.vendor.states
    assert set(states.values()) >= {DeliveryStatus.SENT, DeliveryStatus.DELIVERED, DeliveryStatus.READ}
    sent = await bench.channel.send(bench.message())
    for word, ours in states.items():
        url, body, headers = bench.vendor.status(sent.external_id, word)
        received = bench.channel.receive(bench.request(url, body, headers))
        assert [s.status for s in received.statuses] == [ours]
        named = received.statuses[0]
        if named.up_to is None:
            assert named.external_id == sent.external_id
        else:  # all messages to this address until then
            assert (named.external_id, named.address) == ("", bench.message().to)
        assert received.messages == ()
    if DeliveryStatus.FAILED not in states.values():
        return
    url, body, headers = bench.vendor.status(sent.external_id, bench.vendor.undelivered)
    failed = bench.channel.receive(bench.request(url, body, headers)).statuses[0]
    assert failed.status is DeliveryStatus.FAILED
    assert failed.error_code
    assert failed.error_message


@pytest.mark.parametrize(("text", "opt_out"), [("Hello, ¿cuánto? 👍", None), ("STOP", True), ("START", False)])
async def test_an_inbound_message_is_read_with_its_consent(bench: Bench, text: str, opt_out: bool | None) -> None:
    sender = bench.message().to
    url, body, headers = bench.vendor.inbound(sender, text)
    request = bench.request(url, body, headers)
    received = bench.channel.receive(request)
    assert [(m.sender, m.body, m.opt_out) for m in received.messages] == [(sender, text, opt_out)]
    assert received.statuses == ()
    # The id is the vendor's: the same delivery again names the same message, the next one another.
    assert bench.channel.receive(request) == received
    url, body, headers = bench.vendor.inbound(sender, text)
    again = bench.channel.receive(bench.request(url, body, headers))
    assert again.messages[0].external_id != received.messages[0].external_id


async def test_unsigned_and_forged_requests_are_refused(bench: Bench) -> None:
    sent = await bench.channel.send(bench.message())
    url, body, headers = bench.vendor.status(sent.external_id, bench.vendor.delivered)
    assert bench.channel.receive(bench.request(url, body, headers)).statuses
    signed = bench.vendor.signature_header
    forged: list[tuple[bytes, dict[str, str]]] = [
        (body, {}),
        (body, {**headers, signed: ""}),
        (body, {**headers, signed: headers[signed][:-1]}),
        (body, {**headers, signed: headers[signed][::-1]}),
        (body[:-1], headers),
        (body + b"0", headers),
        (bytes([*body[:20], body[20] ^ 1, *body[21:]]), headers),
        (b"", headers),
    ]
    for raw, given in forged:
        with pytest.raises(SignatureInvalid):
            bench.channel.receive(bench.request(url, raw, given))
    # Another connection of the same provider has other secrets.
    values = {**bench.vendor.credentials, **dict.fromkeys(bench.vendor.signing, "another-secret")}
    other = connected(bench.vendor.channel, bench.kind, values, {})
    with pytest.raises(SignatureInvalid):
        other.receive(bench.request(url, body, headers))


async def test_a_signed_request_outside_the_contract_is_not_taken(bench: Bench) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        bench.channel.receive(bench.request(*bench.vendor.garbage()))
    assert not isinstance(caught.value, SignatureInvalid)
    assert caught.value.provider == bench.name


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
