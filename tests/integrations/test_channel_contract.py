"""One suite over every channel provider and each of its kinds: the promises of `integrations.base.Channel`."""

from __future__ import annotations

import asyncio
import dataclasses
import email.policy
import inspect
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest

from integrations import base, registry, signatures
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
from integrations.channels import simulated, smtp_email
from tests.contracts import meta_server, smtp_server, twilio_server
from tests.contracts.openapi import Contract

PUBLIC = "https://pay.example.test"
CASES = [(name, kind) for name in registry.channel_names() for kind in registry.channel_class(name).kinds]
ADDRESSES = {ChannelKind.SMS: "+14155550101", ChannelKind.WHATSAPP: "+14155550101", ChannelKind.EMAIL: "dana@x.test"}


class Vendor(ABC):
    """The other side of one connection: what a provider's author supplies to be tested."""

    credentials: Mapping[str, str]
    refused: str  # an address that the vendor refuses
    refused_as: str = "opted_out"  # why
    account: str | None = None  # what the vendor calls the account
    answer_lost: str = ""  # an address whose answers are lost; empty: `lose_answer` arranges it

    def __init__(self, kind: ChannelKind) -> None:
        self.kind = kind

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        """Start what is needed; return base addresses."""
        return {}

    def lose_answer(self) -> None:  # noqa: B027 (optional to override)
        """Let the vendor accept the next message without an answer."""

    def word_of(self, message: OutboundMessage) -> tuple[str, bytes, dict[str, str]] | None:
        """Where nothing can be looked up: the callback that still tells what became of a message whose answer was lost."""
        return None

    @abstractmethod
    def texts(self) -> list[str] | None:
        """Texts of the messages that the vendor took from us; None: it keeps none."""

    @abstractmethod
    def status(self, external_id: str, word: str) -> tuple[str, bytes, dict[str, str]]:
        """A signed status callback: its public URL, raw body, lower-case headers."""

    @abstractmethod
    def inbound(self, sender: str, text: str) -> tuple[str, bytes, dict[str, str]]:
        """A signed inbound message: its public URL, raw body, lower-case headers."""

    @abstractmethod
    def garbage(self) -> tuple[str, bytes, dict[str, str]]:
        """A correctly signed request that is not in the vendor's contract."""


class TwilioVendor(Vendor):
    credentials = {
        "account_sid": twilio_server.ACCOUNT_SID,
        "auth_token": twilio_server.AUTH_TOKEN,
        "from_number": twilio_server.FROM_NUMBER,
    }
    refused = "+14155550188"
    account = twilio_server.ACCOUNT_SID
    url = f"{PUBLIC}/inbound/twilio_sms/chn_1"
    prefix = ""

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        contract = twilio_server.contracts()[0]
        self.server = await stack.enter_async_context(twilio_server.TwilioServer(contract))
        self.server.opted_out.add(self.prefix + self.refused)
        return {"twilio": self.server.url}

    def lose_answer(self) -> None:
        self.server.fail_next("drop")

    def texts(self) -> list[str] | None:
        return [message["body"] for message in self.server.messages if message["direction"] != "inbound"]

    def status(self, external_id: str, word: str) -> tuple[str, bytes, dict[str, str]]:
        return self.server.status_callback(external_id, word, error_code=30003 if word == "undelivered" else None)

    def inbound(self, sender: str, text: str) -> tuple[str, bytes, dict[str, str]]:
        return (self.url, *self.server.inbound(self.url, sender=self.prefix + sender, body=text))

    def garbage(self) -> tuple[str, bytes, dict[str, str]]:
        return (self.url, *twilio_server.signed(self.url, {"hello": "world"}))


class TwilioWhatsAppVendor(TwilioVendor):
    url = f"{PUBLIC}/inbound/twilio_whatsapp/chn_1"
    prefix = twilio_server.WHATSAPP


class SimulatedVendor(Vendor):
    secret = "a-secret-of-the-simulator"
    credentials = {"secret": secret}
    refused = "+14155559902"
    answer_lost = "+14155559904"
    url = f"{PUBLIC}/inbound/simulated/chn_1"

    def texts(self) -> list[str] | None:
        return None

    def _signed(self, body: bytes) -> tuple[str, bytes, dict[str, str]]:
        signature = simulated.sign(self.secret, body, at=datetime.now(UTC))
        return self.url, body, {simulated.SIGNATURE_HEADER.lower(): signature}

    def status(self, external_id: str, word: str) -> tuple[str, bytes, dict[str, str]]:
        body = simulated.status_body(external_id, "+14155550101", simulated.STATES[word], at=datetime.now(UTC))
        return self._signed(body)

    def inbound(self, sender: str, text: str) -> tuple[str, bytes, dict[str, str]]:
        return self._signed(
            simulated.inbound_body(sender, text, at=datetime.now(UTC), external_id=f"sim_in_{uuid4().hex}")
        )

    def garbage(self) -> tuple[str, bytes, dict[str, str]]:
        return self._signed(b'{"type": "hello"}')


class MailVendor(Vendor):
    secret = "a-secret-of-the-mailbox"
    credentials = {
        "host": "127.0.0.1",
        "security": "none",
        "from_address": "pay@acme.test",
        "inbound_secret": secret,
    }
    refused = "nobody@x.test"
    refused_as = "recipient_refused"
    url = f"{PUBLIC}/inbound/smtp_email/chn_1"

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        self.server = await stack.enter_async_context(smtp_server.MailServer())
        self.server.refusals[self.refused] = "550 5.1.1 no such user"
        self.credentials = {**self.credentials, "port": str(self.server.port)}
        return {}

    def lose_answer(self) -> None:
        self.server.fail_next("drop")

    def word_of(self, message: OutboundMessage) -> tuple[str, bytes, dict[str, str]] | None:
        return self.status(self.server.letters[-1].message["Message-ID"], "delivered")

    def texts(self) -> list[str] | None:
        return [letter.text() for letter in self.server.letters]

    def _signed(self, body: bytes) -> tuple[str, bytes, dict[str, str]]:
        signature = signatures.sign(self.secret, body, at=datetime.now(UTC))
        return self.url, body, {smtp_email.SIGNATURE_HEADER.lower(): signature}

    def status(self, external_id: str, word: str) -> tuple[str, bytes, dict[str, str]]:
        original = EmailMessage()
        original["Message-ID"] = external_id
        if word == "displayed":
            return self._signed(smtp_server.receipt(original))
        action = "failed" if word == "undelivered" else word
        return self._signed(smtp_server.report(original, action, status="5.1.1" if action == "failed" else "2.0.0"))

    def inbound(self, sender: str, text: str) -> tuple[str, bytes, dict[str, str]]:
        letter = EmailMessage(policy=email.policy.SMTP)
        letter["From"], letter["To"], letter["Message-ID"] = sender, "pay@acme.test", f"<{uuid4().hex}@x.test>"
        letter.set_content(text)
        return self._signed(letter.as_bytes())

    def garbage(self) -> tuple[str, bytes, dict[str, str]]:
        return self._signed(b"hello world")


class MetaVendor(Vendor):
    credentials = {
        "account_id": meta_server.PAGE_ID,
        "access_token": meta_server.ACCESS_TOKEN,
        "app_secret": meta_server.APP_SECRET,
        "verify_token": meta_server.VERIFY_TOKEN,
    }
    account = meta_server.PAGE_ID
    refused = "200000000000188"
    refused_as = "recipient_unavailable"
    url = f"{PUBLIC}/inbound/meta_messenger/chn_1"

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        contract = Contract(meta_server.our_contract(), name="ours")
        self.server = await stack.enter_async_context(meta_server.MetaServer(contract))
        self.server.blocked.add(self.refused)
        if self.kind is ChannelKind.INSTAGRAM_DM:
            self.account = meta_server.INSTAGRAM_ID
            self.credentials = {**self.credentials, "account_id": self.account}
        return {"meta": self.server.url}

    def lose_answer(self) -> None:
        self.server.fail_next("drop")

    def texts(self) -> list[str] | None:
        return [message["text"] for message in self.server.messages]

    def status(self, external_id: str, word: str) -> tuple[str, bytes, dict[str, str]]:
        message = next(one for one in self.server.messages if base.external_id(one["mid"]) == external_id)
        return (self.url, *self.server.status(message, {"delivered": "delivery"}.get(word, word)))

    def inbound(self, sender: str, text: str) -> tuple[str, bytes, dict[str, str]]:
        return (self.url, *self.server.inbound(self.account, sender, text))

    def garbage(self) -> tuple[str, bytes, dict[str, str]]:
        return (self.url, *meta_server.signed({"hello": "world"}))


VENDORS: Mapping[str, type[Vendor]] = {
    "meta_messenger": MetaVendor,
    "simulated": SimulatedVendor,
    "smtp_email": MailVendor,
    "twilio_sms": TwilioVendor,
    "twilio_whatsapp": TwilioWhatsAppVendor,
}


@dataclasses.dataclass
class Bench:
    name: str
    kind: ChannelKind
    vendor: Vendor
    channel: Channel
    module: ModuleType

    def message(self, body: str = "Pay here: https://pay.example.test/p/abc", **changes: Any) -> OutboundMessage:
        values = {
            "message_id": "msg_1",
            "attempt_id": "att_1",
            "to": ADDRESSES.get(self.kind, "1234567890"),
            "body": body,
            "subject": "Your payment" if self.channel.limits(self.kind).needs_subject else None,
            "status_url": f"{PUBLIC}/inbound/{self.name}/chn_1",
        }
        return OutboundMessage(**{**values, **changes})

    def request(self, url: str, body: bytes, headers: Mapping[str, str]) -> WebhookRequest:
        return WebhookRequest(method="POST", public_url=url, headers=headers, body=body, now=datetime.now(UTC))


def build(name: str, kind: ChannelKind, values: Mapping[str, str], addresses: Mapping[str, str]) -> Channel:
    provider = registry.channel_class(name)
    environment = Environment(public_url=PUBLIC, sandbox_url="http://127.0.0.1:1", base_addresses=addresses)
    made: Any = provider
    channel: Channel = made(registry.read_credentials(provider, values), kind=kind, environment=environment)
    return channel


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    name, kind = request.param
    vendor = VENDORS[name](kind)
    async with AsyncExitStack() as stack:
        addresses = await vendor.start(stack)
        channel = build(name, kind, vendor.credentials, addresses)
        stack.push_async_callback(channel.aclose)
        module = inspect.getmodule(registry.channel_class(name))
        assert module is not None
        yield Bench(name, kind, vendor, channel, module)


def test_every_provider_is_tested_and_every_kind_can_be_sent_on() -> None:
    assert sorted(VENDORS) == registry.channel_names()
    assert {kind for _, kind in CASES} == set(ChannelKind) - {ChannelKind.CUSTOM}


@pytest.mark.parametrize("name", registry.channel_names())
def test_a_provider_declares_itself(name: str) -> None:
    provider = registry.channel_class(name)
    assert provider.name == name
    assert provider.display_name
    assert len(set(provider.kinds)) == len(provider.kinds) > 0
    assert {field.type for field in dataclasses.fields(provider.credentials)} == {"str"}
    secrets = ("secret", "token", "key")
    shown = [f.name for f in dataclasses.fields(provider.credentials) if f.repr and f.name.endswith(secrets)]
    assert shown == []
    for kind in set(ChannelKind) - set(provider.kinds):
        with pytest.raises(ValueError, match="does not serve"):
            build(name, kind, VENDORS[name].credentials, {})


EXPECTED_LIMITS = {
    ChannelKind.SMS: (1600, False, None, False),
    ChannelKind.EMAIL: (None, False, None, True),
    ChannelKind.WHATSAPP: (1600, False, 24, False),
    ChannelKind.INSTAGRAM_DM: (1000, True, 24, False),
    ChannelKind.MESSENGER: (2000, False, 24, False),
    ChannelKind.WEB_CHAT: (4000, False, None, False),
}


async def test_the_limits_are_those_of_the_handbook(bench: Bench) -> None:
    limits = bench.channel.limits(bench.kind)
    stated = (limits.max_length, limits.length_in_bytes, limits.window_hours, limits.needs_subject)
    assert stated == EXPECTED_LIMITS[bench.kind]


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
    url, body, headers = bench.vendor.status(found.external_id, "delivered")
    received = bench.channel.receive(bench.request(url, body, headers))
    assert [status.external_id for status in received.statuses] == [found.external_id]


async def test_the_look_up_knows_nothing_of_a_refused_message(bench: Bench) -> None:
    message = bench.message(to=bench.vendor.refused)
    assert await bench.channel.look_up(message, sent_after=datetime.now(UTC) - timedelta(minutes=1)) is None


async def test_every_state_of_the_vendor_is_mapped_and_read(bench: Bench) -> None:
    states: Mapping[str, DeliveryStatus] = bench.module.STATES
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
    url, body, headers = bench.vendor.status(sent.external_id, "undelivered")
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


SECRETS = ("secret", "auth_token", "app_secret", "inbound_secret")


async def test_unsigned_and_forged_requests_are_refused(bench: Bench) -> None:
    sent = await bench.channel.send(bench.message())
    url, body, headers = bench.vendor.status(sent.external_id, "delivered")
    assert bench.channel.receive(bench.request(url, body, headers)).statuses
    signed = [name for name in headers if "signature" in name]
    assert signed
    forged: list[tuple[bytes, dict[str, str]]] = [
        (body, {}),
        (body, {**headers, signed[0]: ""}),
        (body, {**headers, signed[0]: headers[signed[0]][:-1]}),
        (body, {**headers, signed[0]: headers[signed[0]][::-1]}),
        (body[:-1], headers),
        (body + b"0", headers),
        (bytes([*body[:20], body[20] ^ 1, *body[21:]]), headers),
        (b"", headers),
    ]
    for raw, given in forged:
        with pytest.raises(SignatureInvalid):
            bench.channel.receive(bench.request(url, raw, given))
    # Another connection of the same provider has other secrets.
    values = {**bench.vendor.credentials, **dict.fromkeys(SECRETS, "another-secret")}
    known = {field.name for field in dataclasses.fields(bench.channel.credentials)}
    other = build(bench.name, bench.kind, {k: v for k, v in values.items() if k in known}, {})
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


# ------------------------------------------------------------------------------------------- the simulator's own part
NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def simulator(secret: str = SimulatedVendor.secret) -> simulated.Simulated:
    environment = Environment(public_url=PUBLIC, sandbox_url="http://127.0.0.1:1")
    return simulated.Simulated(simulated.Credentials(secret), kind=ChannelKind.SMS, environment=environment)


def at(body: bytes, header: str) -> WebhookRequest:
    headers = {simulated.SIGNATURE_HEADER.lower(): header} if header else {}
    return WebhookRequest(method="POST", public_url=SimulatedVendor.url, headers=headers, body=body, now=NOW)


STATUS = simulated.status_body("sim_1", "+14155550101", DeliveryStatus.DELIVERED, at=NOW)


@pytest.mark.parametrize("offset_s", [-300, -299, 0, 299, 300])
def test_the_simulators_signature_holds_for_300_seconds_either_way(offset_s: int) -> None:
    header = simulated.sign(SimulatedVendor.secret, STATUS, at=NOW + timedelta(seconds=offset_s))
    received = simulator().receive(at(STATUS, header))
    assert [(s.external_id, s.status, s.occurred_at) for s in received.statuses] == [
        ("sim_1", DeliveryStatus.DELIVERED, NOW)
    ]


@pytest.mark.parametrize("offset_s", [-301, -3600, 301, 3600])
def test_the_simulators_signature_is_refused_outside_300_seconds(offset_s: int) -> None:
    header = simulated.sign(SimulatedVendor.secret, STATUS, at=NOW + timedelta(seconds=offset_s))
    with pytest.raises(SignatureInvalid) as caught:
        simulator().receive(at(STATUS, header))
    assert caught.value.reason == "signature_stale"


def test_malformed_signature_headers_are_refused() -> None:
    good = simulated.sign(SimulatedVendor.secret, STATUS, at=NOW)
    time, _, digest = good.partition(",")
    assert simulator().receive(at(STATUS, f"{time},v1=old,{digest}")).statuses
    later = f"t={int(NOW.timestamp()) + 1}"
    for header in (
        "",
        "nonsense",
        time,
        digest,
        f"{time},{time},{digest}",
        f"{later},{digest}",
        f"t=,{digest}",
        f"t=-1,{digest}",
        f"t=٣,{digest}",
        f"t={'9' * 400},{digest}",
        f"{time},v1=",
        f"{time},v1=ü",
        f"{time},v2={digest.removeprefix('v1=')}",
    ):
        with pytest.raises(SignatureInvalid):
            simulator().receive(at(STATUS, header))


def test_an_empty_secret_verifies_nothing() -> None:
    with pytest.raises(SignatureInvalid):
        simulator(secret="").receive(at(STATUS, simulated.sign("", STATUS, at=NOW)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"type": "message.status"}',
        b'{"type": "message.status", "message_id": "", "status": "sent", "occurred_at": "2026-11-23T04:00:00+00:00"}',
        b'{"type": "message.status", "message_id": "a", "status": "lost", "occurred_at": "2026-11-23T04:00:00+00:00"}',
        b'{"type": "message.status", "message_id": "a", "status": "sent", "occurred_at": "2026-11-23T04:00:00"}',
        b'{"type": "message.status", "message_id": "a", "status": [], "occurred_at": "2026-11-23T04:00:00+00:00"}',
        b'{"type": "message.received", "message_id": "a", "from": "b", "text": 1, "occurred_at": "x"}',
        b'{"type": "message.received", "message_id": "a", "text": "x", "occurred_at": "2026-11-23T04:00:00+00:00"}',
    ],
)
def test_a_signed_body_that_is_no_callback_is_not_taken(body: bytes) -> None:
    with pytest.raises(PayloadInvalid):
        simulator().receive(at(body, simulated.sign(SimulatedVendor.secret, body, at=NOW)))


async def test_the_simulators_message_id_follows_from_the_attempt() -> None:
    message = OutboundMessage(message_id="msg_1", attempt_id="att_1", to="+14155550101", body="x")
    first, again = await simulator().send(message), await simulator().send(message)
    assert first == again
    assert first.external_id == simulated.external_id_of("att_1")
    assert first.external_id != simulated.external_id_of("att_2")


@pytest.mark.parametrize(
    ("address", "outcome"),
    [
        ("+14155550101", DeliveryStatus.DELIVERED),
        ("dana@9901.test", DeliveryStatus.DELIVERED),
        ("+14155559901", DeliveryStatus.FAILED),
        ("dana9901@acme.test", DeliveryStatus.FAILED),
        ("+14155559902", DeliveryStatus.FAILED),
        ("+14155559903", None),
        ("visitor-9903", None),
        ("+14155559904", DeliveryStatus.DELIVERED),
        ("", DeliveryStatus.DELIVERED),
    ],
)
def test_magic_recipients_decide_what_the_network_reports(address: str, outcome: DeliveryStatus | None) -> None:
    assert simulated.outcome_of(address) is outcome
