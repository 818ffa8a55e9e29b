"""The kit's channel suite, run on every channel of this repository and each of its kinds."""

from __future__ import annotations

import dataclasses
import email.policy
import email.utils
import hashlib
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import pytest

from integrations import base, registry, signatures
from integrations.base import (
    Channel,
    ChannelKind,
    ChannelLimits,
    DeliveryStatus,
    Environment,
    LengthUnit,
    OutboundMessage,
    PayloadInvalid,
    SignatureInvalid,
    WebhookRequest,
)
from integrations.channels import meta_messenger, simulated, smtp_email, twilio_sms, twilio_whatsapp, web_chat
from integrations.kit import channel_bench as kit
from integrations.kit.channel_bench import PUBLIC_URL
from integrations.kit.channels import *  # noqa: F403 (the suite)
from integrations.kit.vendor import Answer, Call, FailureMode, FakeVendor
from tests.contracts import meta_server, smtp_server, twilio_server
from tests.contracts.openapi import Contract

# The web chat has no vendor: see test_web_chat.py.
OURS = frozenset({web_chat.NAME})
CASES = [
    (name, kind)
    for name in registry.built_in("channels")
    if name not in OURS
    for kind in registry.channel_class(name).kinds
]
ADDRESSES = {ChannelKind.SMS: "+14155550101", ChannelKind.WHATSAPP: "+14155550101", ChannelKind.EMAIL: "dana@x.test"}


LIMITS = {
    ChannelKind.SMS: ChannelLimits(max_length=1600),
    ChannelKind.EMAIL: ChannelLimits(needs_subject=True, max_cc=20),
    ChannelKind.WHATSAPP: ChannelLimits(max_length=1600, window_hours=24, link_preview=True, templates=True),
    ChannelKind.MESSENGER: ChannelLimits(max_length=2000, window_hours=24, link_preview=True),
    ChannelKind.INSTAGRAM_DM: ChannelLimits(
        max_length=1000, length_unit=LengthUnit.BYTES, window_hours=24, link_preview=True
    ),
    ChannelKind.WEB_CHAT: ChannelLimits(max_length=4000),
}


class Vendor(kit.ChannelHarness):
    shows_buttons = False
    failures = kit.ChannelHarness.failures - {"trickle"}  # not supported by the contract servers

    def __init__(self, kind: ChannelKind) -> None:
        super().__init__(kind)
        self.address = ADDRESSES.get(kind, "1234567890")
        self.documented = dataclasses.replace(LIMITS[kind], link_button=self.shows_buttons)


class TwilioVendor(Vendor):
    channel: ClassVar[type[Channel]] = twilio_sms.provider
    public = frozenset({"account_sid", "from_number", "messaging_service_sid", "api_key_sid", "answer_help", "region"})
    signing = ("auth_token",)
    signature_header = "x-twilio-signature"
    words = {
        "queued": DeliveryStatus.SENT,
        "sending": DeliveryStatus.SENT,
        "sent": DeliveryStatus.SENT,
        "delivered": DeliveryStatus.DELIVERED,
        "read": DeliveryStatus.READ,
        "undelivered": DeliveryStatus.FAILED,
        "failed": DeliveryStatus.FAILED,
        "canceled": DeliveryStatus.FAILED,
    }
    tells_time = False
    rate_limit_s = None
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

    def fail_next(self, mode: FailureMode) -> None:
        self.server.fail_next(mode)

    def texts(self) -> list[str] | None:
        return [message["body"] for message in self.server.messages if message["direction"] != "inbound"]

    def signed(self, body: bytes) -> kit.Callback:
        params: dict[str, list[str]] = {}
        for name, value in parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True):
            params.setdefault(name, []).append(value)
        return self.url, body, twilio_server.signed(self.url, params)[1]

    def tell(self, *events: kit.Event) -> kit.Callback:
        (event,) = events
        more = {"AccountSid": "AC" + "9" * 32} if isinstance(event, kit.WroteToAnother) else {}
        match event:
            case kit.Became(external_id=id, word=word):
                code = 30003 if word in ("undelivered", "failed", "canceled") else None
                return self.server.status_callback(id, word, error_code=code)
            case kit.SentFile(sender=sender, number=number, text=text):
                files = [(event.content_type, event.content)]
                return (self.url, *self.server.mms(self.url, sender=self.prefix + sender, files=files, body=text))
            case kit.SentOther(sender=sender) if self.prefix:
                spot = {"Latitude": "52.5", "Longitude": "13.4"}
                return (self.url, *self.server.inbound(self.url, sender=self.prefix + sender, body="", **spot))
            case kit.OpenedLink() | kit.Edited() | kit.SentOther():
                raise kit.NotOffered
            case kit.Wrote(sender=sender, number=number, text=text):
                more["MessageSid"] = "SM" + hashlib.md5(f"{sender} {number}".encode()).hexdigest()  # noqa: S324
                return (self.url, *self.server.inbound(self.url, sender=self.prefix + sender, body=text, **more))
        raise kit.NotOffered


class TwilioWhatsAppVendor(TwilioVendor):
    channel = twilio_whatsapp.provider
    prefix = twilio_server.WHATSAPP


class SimulatedVendor(Vendor):
    channel = simulated.provider
    signature_header = simulated.SIGNATURE_HEADER.lower()
    words = {
        "sent": DeliveryStatus.SENT,
        "delivered": DeliveryStatus.DELIVERED,
        "read": DeliveryStatus.READ,
        "undelivered": DeliveryStatus.FAILED,
    }
    failures = frozenset()
    secret = "a-secret-of-the-simulator"
    credentials = {"secret": secret}
    refused = "+14155559902"
    answer_lost = "+14155559904"

    def texts(self) -> list[str] | None:
        return None

    def signed(self, body: bytes) -> kit.Callback:
        signature = simulated.sign(self.secret, body, at=datetime.now(UTC))
        return self.url, body, {simulated.SIGNATURE_HEADER.lower(): signature}

    def tell(self, *events: kit.Event) -> kit.Callback:
        (event,) = events
        payload: dict[str, str | None] = {"occurred_at": event.at.isoformat()}
        match event:
            case kit.Became(external_id=id, word=word):
                code = "9901" if word == "undelivered" else None
                payload |= {"type": "message.status", "message_id": id, "status": word, "error_code": code}
            case kit.Wrote(sender=sender, number=number, text=text) if type(event) is kit.Wrote:
                id = f"sim_in_{sender}_{number}"
                payload |= {"type": "message.received", "message_id": id, "from": sender, "text": text}
            case _:
                raise kit.NotOffered
        return self.signed(json.dumps(payload).encode())


class MailVendor(Vendor):
    channel = smtp_email.provider
    shows_buttons = True
    public = frozenset({"host", "port", "security", "username", "from_address", "reply_to", "delivery_reports"})
    signing = ("inbound_secret",)
    signature_header = smtp_email.SIGNATURE_HEADER.lower()
    words = {
        "delayed": DeliveryStatus.SENT,
        "relayed": DeliveryStatus.SENT,
        "delivered": DeliveryStatus.DELIVERED,
        "displayed": DeliveryStatus.READ,
        "failed": DeliveryStatus.FAILED,
    }
    failures = frozenset({"drop", "hang"})
    secret = "a-secret-of-the-mailbox"
    credentials = {
        "host": "127.0.0.1",
        "security": "none",
        "from_address": "pay@acme.test",
        "inbound_secret": secret,
    }
    tells_time = False  # an email's Date is only the sender's claim
    spellings = ("Dana Diaz <dana@x.test>",)
    refused = "nobody@x.test"
    refused_as = "recipient_refused"

    async def start(self, stack: AsyncExitStack) -> dict[str, str]:
        self.server = await stack.enter_async_context(smtp_server.MailServer())
        self.server.refusals[self.refused] = "550 5.1.1 no such user"
        self.credentials = {**self.credentials, "port": str(self.server.port)}
        return {}

    def fail_next(self, mode: FailureMode) -> None:
        assert mode in ("drop", "hang")
        self.server.fail_next(mode)

    def closed(self) -> Mapping[str, str]:
        return {**self.credentials, "port": "9"}

    def word_of(self, message: OutboundMessage) -> kit.Callback | None:
        id = self.server.letters[-1].message["Message-ID"]
        return self.tell(kit.Became(external_id=id, word="delivered"))

    def texts(self) -> list[str] | None:
        return [letter.text() for letter in self.server.letters]

    def signed(self, body: bytes) -> kit.Callback:
        signature = signatures.sign(self.secret, body, at=datetime.now(UTC))
        return self.url, body, {smtp_email.SIGNATURE_HEADER.lower(): signature}

    def tell(self, *events: kit.Event) -> kit.Callback:
        (event,) = events
        match event:
            case kit.Became(external_id=id, word=word):
                original = EmailMessage()
                original["Message-ID"] = id
                if word == "displayed":
                    return self.signed(smtp_server.receipt(original))
                status = "5.1.1" if word == "failed" else "2.0.0"
                return self.signed(smtp_server.report(original, word, status=status))
            case kit.Wrote(sender=sender, number=number, text=text) if type(event) in (kit.Wrote, kit.SentFile):
                letter = EmailMessage(policy=email.policy.SMTP)
                letter["From"], letter["To"] = sender, "pay@acme.test"
                letter["Date"] = email.utils.format_datetime(event.at)
                letter["Message-ID"] = f"<{number}.{hashlib.sha256(sender.encode()).hexdigest()[:16]}@x.test>"
                letter.set_content(text)
                if isinstance(event, kit.SentFile):
                    kind, _, part = event.content_type.partition("/")
                    letter.add_attachment(event.content, maintype=kind, subtype=part, filename=event.name)
                return self.signed(letter.as_bytes())
        raise kit.NotOffered


class Storage(FakeVendor):
    """Meta's file storage, which needs no authorisation."""

    content = b""

    async def handle(self, call: Call) -> Answer:
        return Answer(200, self.content, {"content-type": "image/png"})


class MetaVendor(Vendor):
    channel = meta_messenger.provider
    shows_buttons = True
    public = frozenset({"account_id", "page_id", "human_agent", "token_ends"})
    signing = ("app_secret",)
    signature_header = "x-hub-signature-256"
    words = {"echo": DeliveryStatus.SENT, "delivery": DeliveryStatus.DELIVERED, "read": DeliveryStatus.READ}
    rate_limit_s = None
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
        self.storage = await stack.enter_async_context(Storage())
        self.server.blocked.add(self.refused)
        if self.kind is ChannelKind.INSTAGRAM_DM:
            self.account = meta_server.INSTAGRAM_ID
            self.credentials = {**self.credentials, "account_id": self.account}
        return {"meta": self.server.url, "storage": self.storage.url}

    def fail_next(self, mode: FailureMode) -> None:
        self.server.fail_next(mode)

    def texts(self) -> list[str] | None:
        return [message["text"] for message in self.server.messages]

    def handshake(self, challenge: str, *, genuine: bool) -> Mapping[str, str]:
        token = meta_server.VERIFY_TOKEN if genuine else "another-token"
        return {"hub.mode": "subscribe", "hub.verify_token": token, "hub.challenge": challenge}

    def signed(self, body: bytes) -> kit.Callback:
        header = meta_server.signature(body, secret=meta_server.APP_SECRET)
        return self.url, body, {"content-type": "application/json", "x-hub-signature-256": header}

    def tell(self, *events: kit.Event) -> kit.Callback:
        is_other_account = any(isinstance(event, kit.WroteToAnother) for event in events)
        entry = {
            "id": "999" if is_other_account else self.account,
            "messaging": [self.event(event) for event in events],
        }
        kind = "instagram" if self.kind is ChannelKind.INSTAGRAM_DM else "page"
        return self.signed(json.dumps({"object": kind, "entry": [entry]}).encode())

    def event(self, event: kit.Event) -> dict[str, Any]:
        fields: dict[str, Any] = {"recipient": {"id": self.account}, "timestamp": int(event.at.timestamp() * 1000)}
        sender = getattr(event, "sender", self.address)
        mid = f"m_{sender}_{getattr(event, 'number', 0)}"
        fields["sender"] = {"id": sender}
        match event:
            case kit.Became(external_id=id) | kit.Echo(external_id=id):
                word = event.word if isinstance(event, kit.Became) else "echo"
                message = next(one for one in self.server.messages if base.external_id(one["mid"]) == id)
                if word not in self.words:
                    return {**fields, word: {"mid": message["mid"]}}
                entry = json.loads(self.server.status(message, word)[0])["entry"][0]
                return dict(entry["messaging"][0])
            case kit.Answered(text=text, external_id=id):
                ours = next(one for one in self.server.messages if base.external_id(one["mid"]) == id)
                return {**fields, "message": {"mid": mid, "text": text, "reply_to": {"mid": ours["mid"]}}}
            case kit.Edited(text=text):
                return {**fields, "message_edit": {"mid": mid, "text": text, "num_edit": 1}}
            case kit.TookBack():
                return {**fields, "message": {"mid": mid, "is_deleted": True}}
            case kit.SentFile(content=content, text=text):
                self.storage.content = content
                file = {"type": "image", "payload": {"url": f"{self.storage.url}/1.png"}}
                words = {"text": text} if text else {}
                return {**fields, "message": {"mid": mid, "attachments": [file], **words}}
            case kit.SentOther():
                return {**fields, "message": {"mid": mid, "is_unsupported": True}}
            case kit.Wrote(text=text) if not isinstance(event, kit.OpenedLink):
                return {**fields, "message": {"mid": mid, "text": text}}
            case kit.Odd():
                return {**fields, "optin": {"ref": "summer"}}
            case kit.Broken():
                return {"message": {"mid": "m_broken", "text": "Hello"}}
        raise kit.NotOffered


VENDORS: Mapping[str, type[Vendor]] = {
    "meta_messenger": MetaVendor,
    "simulated": SimulatedVendor,
    "smtp_email": MailVendor,
    "twilio_sms": TwilioVendor,
    "twilio_whatsapp": TwilioWhatsAppVendor,
}


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def harness(request: pytest.FixtureRequest) -> Vendor:
    name, kind = request.param
    return VENDORS[name](kind)


def test_every_provider_is_tested_and_every_kind_can_be_sent_on() -> None:
    assert sorted({*VENDORS, *OURS}) == registry.built_in("channels")
    assert {kind for _, kind in CASES} == set(ChannelKind) - {ChannelKind.CUSTOM}
    assert [name for name in VENDORS if VENDORS[name].channel is not registry.channel_class(name)] == []


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
