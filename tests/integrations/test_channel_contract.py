"""Every channel of this repository passes the kit's suite (integrations/kit/channels.py), each of its kinds: here are their vendors."""

from __future__ import annotations

import email.policy
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import ClassVar
from uuid import uuid4

import pytest

from integrations import base, registry, signatures
from integrations.base import (
    Channel,
    ChannelKind,
    DeliveryStatus,
    Environment,
    OutboundMessage,
    PayloadInvalid,
    SignatureInvalid,
    WebhookRequest,
)
from integrations.channels import meta_messenger, simulated, smtp_email, twilio_sms, twilio_whatsapp, web_chat
from integrations.kit.channels import *  # noqa: F403 (the suite)
from integrations.kit.channels import PUBLIC_URL, Bench, Callback, ChannelHarness
from tests.contracts import meta_server, smtp_server, twilio_server
from tests.contracts.openapi import Contract

# Our own web chat has no vendor who could call back: its promises stand in test_web_chat.py.
OURS = frozenset({web_chat.NAME})
CASES = [
    (name, kind)
    for name in registry.built_in("channels")
    if name not in OURS
    for kind in registry.channel_class(name).kinds
]
ADDRESSES = {ChannelKind.SMS: "+14155550101", ChannelKind.WHATSAPP: "+14155550101", ChannelKind.EMAIL: "dana@x.test"}


class Vendor(ChannelHarness):
    """What the harnesses here are made of."""

    def __init__(self, kind: ChannelKind) -> None:
        super().__init__(kind)
        self.address = ADDRESSES.get(kind, "1234567890")


class TwilioVendor(Vendor):
    channel: ClassVar[type[Channel]] = twilio_sms.provider
    public = frozenset({"account_sid", "from_number", "messaging_service_sid", "api_key_sid", "answer_help", "region"})
    signing = ("auth_token",)
    signature_header = "x-twilio-signature"
    states = twilio_sms.STATES
    credentials = {
        "account_sid": twilio_server.ACCOUNT_SID,
        "auth_token": twilio_server.AUTH_TOKEN,
        "from_number": twilio_server.FROM_NUMBER,
    }
    refused = "+14155550188"
    account = twilio_server.ACCOUNT_SID
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

    def status(self, external_id: str, word: str) -> Callback:
        return self.server.status_callback(external_id, word, error_code=30003 if word == "undelivered" else None)

    def inbound(self, sender: str, text: str) -> Callback:
        return (self.url, *self.server.inbound(self.url, sender=self.prefix + sender, body=text))

    def garbage(self) -> Callback:
        return (self.url, *twilio_server.signed(self.url, {"hello": "world"}))


class TwilioWhatsAppVendor(TwilioVendor):
    channel = twilio_whatsapp.provider
    states = twilio_whatsapp.STATES
    prefix = twilio_server.WHATSAPP


class SimulatedVendor(Vendor):
    channel = simulated.provider
    signature_header = simulated.SIGNATURE_HEADER.lower()
    states = simulated.STATES
    secret = "a-secret-of-the-simulator"
    credentials = {"secret": secret}
    refused = "+14155559902"
    answer_lost = "+14155559904"

    def texts(self) -> list[str] | None:
        return None

    def _signed(self, body: bytes) -> Callback:
        signature = simulated.sign(self.secret, body, at=datetime.now(UTC))
        return self.url, body, {simulated.SIGNATURE_HEADER.lower(): signature}

    def status(self, external_id: str, word: str) -> Callback:
        body = simulated.status_body(external_id, "+14155550101", simulated.STATES[word], at=datetime.now(UTC))
        return self._signed(body)

    def inbound(self, sender: str, text: str) -> Callback:
        return self._signed(
            simulated.inbound_body(sender, text, at=datetime.now(UTC), external_id=f"sim_in_{uuid4().hex}")
        )

    def garbage(self) -> Callback:
        return self._signed(b'{"type": "hello"}')


class MailVendor(Vendor):
    channel = smtp_email.provider
    public = frozenset({"host", "port", "security", "username", "from_address", "reply_to", "delivery_reports"})
    signing = ("inbound_secret",)
    signature_header = smtp_email.SIGNATURE_HEADER.lower()
    states = smtp_email.STATES
    secret = "a-secret-of-the-mailbox"
    credentials = {
        "host": "127.0.0.1",
        "security": "none",
        "from_address": "pay@acme.test",
        "inbound_secret": secret,
    }
    refused = "nobody@x.test"
    refused_as = "recipient_refused"

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        self.server = await stack.enter_async_context(smtp_server.MailServer())
        self.server.refusals[self.refused] = "550 5.1.1 no such user"
        self.credentials = {**self.credentials, "port": str(self.server.port)}
        return {}

    def lose_answer(self) -> None:
        self.server.fail_next("drop")

    def word_of(self, message: OutboundMessage) -> Callback | None:
        return self.status(self.server.letters[-1].message["Message-ID"], "delivered")

    def texts(self) -> list[str] | None:
        return [letter.text() for letter in self.server.letters]

    def _signed(self, body: bytes) -> Callback:
        signature = signatures.sign(self.secret, body, at=datetime.now(UTC))
        return self.url, body, {smtp_email.SIGNATURE_HEADER.lower(): signature}

    def status(self, external_id: str, word: str) -> Callback:
        original = EmailMessage()
        original["Message-ID"] = external_id
        if word == "displayed":
            return self._signed(smtp_server.receipt(original))
        action = "failed" if word == "undelivered" else word
        return self._signed(smtp_server.report(original, action, status="5.1.1" if action == "failed" else "2.0.0"))

    def inbound(self, sender: str, text: str) -> Callback:
        letter = EmailMessage(policy=email.policy.SMTP)
        letter["From"], letter["To"], letter["Message-ID"] = sender, "pay@acme.test", f"<{uuid4().hex}@x.test>"
        letter.set_content(text)
        return self._signed(letter.as_bytes())

    def garbage(self) -> Callback:
        return self._signed(b"hello world")


class MetaVendor(Vendor):
    channel = meta_messenger.provider
    public = frozenset({"account_id", "page_id", "human_agent", "token_ends"})
    signing = ("app_secret",)
    signature_header = "x-hub-signature-256"
    states = meta_messenger.STATES
    credentials = {
        "account_id": meta_server.PAGE_ID,
        "access_token": meta_server.ACCESS_TOKEN,
        "app_secret": meta_server.APP_SECRET,
        "verify_token": meta_server.VERIFY_TOKEN,
    }
    account = meta_server.PAGE_ID
    refused = "200000000000188"
    refused_as = "recipient_unavailable"

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

    def status(self, external_id: str, word: str) -> Callback:
        message = next(one for one in self.server.messages if base.external_id(one["mid"]) == external_id)
        return (self.url, *self.server.status(message, {"delivered": "delivery"}.get(word, word)))

    def inbound(self, sender: str, text: str) -> Callback:
        return (self.url, *self.server.inbound(self.account, sender, text))

    def garbage(self) -> Callback:
        return (self.url, *meta_server.signed({"hello": "world"}))


VENDORS: Mapping[str, type[Vendor]] = {
    "meta_messenger": MetaVendor,
    "simulated": SimulatedVendor,
    "smtp_email": MailVendor,
    "twilio_sms": TwilioVendor,
    "twilio_whatsapp": TwilioWhatsAppVendor,
}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def harness(request: pytest.FixtureRequest) -> Vendor:
    """Each channel's vendor, once per kind."""
    name, kind = request.param
    return VENDORS[name](kind)


def test_every_provider_is_tested_and_every_kind_can_be_sent_on() -> None:
    assert sorted({*VENDORS, *OURS}) == registry.built_in("channels")
    assert {kind for _, kind in CASES} == set(ChannelKind) - {ChannelKind.CUSTOM}
    assert [name for name in VENDORS if VENDORS[name].channel is not registry.channel_class(name)] == []


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


# ------------------------------------------------------------------------------------------- the simulator's own part
NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


def simulator(secret: str = SimulatedVendor.secret) -> simulated.Simulated:
    environment = Environment(public_url=PUBLIC_URL, sandbox_url="http://127.0.0.1:1")
    return simulated.Simulated(simulated.Credentials(secret), kind=ChannelKind.SMS, environment=environment)


def at(body: bytes, header: str) -> WebhookRequest:
    headers = {simulated.SIGNATURE_HEADER.lower(): header} if header else {}
    return WebhookRequest(
        method="POST", public_url=f"{PUBLIC_URL}/inbound/simulated/chn_1", headers=headers, body=body, now=NOW
    )


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
