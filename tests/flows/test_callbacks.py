"""Callbacks of every real channel behind a proxy: signatures use PUBLIC_URL, and a forged callback changes nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from email.message import EmailMessage
from email.policy import SMTP as WIRE

import httpx2
import pytest

from models.tables import ChannelConnection, Message
from tests.contracts import meta_server, twilio_server
from tests.contracts.meta_server import INSTAGRAM_ID, PAGE_ID, MetaServer
from tests.contracts.smtp_server import MailServer
from tests.contracts.twilio_server import WHATSAPP, TwilioServer
from tests.flows import harness
from tests.flows.conftest import Team
from tests.flows.harness import Product
from tests.flows.probes import changed, snapshot
from tests.flows.test_channels import MARIA_AT_META, MARIA_MAIL, MARIA_PHONE, signed_mail
from tests.flows.test_delivery import connect

PUBLIC = "https://pay.acme.test"

Callback = tuple[bytes, dict[str, str]]


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioServer]:
    async with TwilioServer(twilio_server.contracts()[0]) as server:
        yield server


@pytest.fixture
async def meta() -> AsyncIterator[MetaServer]:
    async with MetaServer(meta_server.contracts()[0]) as server:
        yield server


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with MailServer() as server:
        yield server


@pytest.fixture
async def product(database: str, events_url: str, twilio: TwilioServer, meta: MetaServer) -> AsyncIterator[Product]:
    """The server behind a proxy: its public URL differs from the address that it listens on."""
    more = {"TWILIO_API_BASE": twilio.url, "META_API_BASE": meta.url, "PUBLIC_URL": PUBLIC, "RUN_JOBS": "false"}
    async with harness.in_process(database, events_url, **more) as running:
        yield running


def letter() -> bytes:
    made = EmailMessage(policy=WIRE)
    made["From"], made["To"], made["Subject"] = MARIA_MAIL, "pay@acme.test", "Hello"
    made["Message-ID"] = "<one@mail.example.com>"
    made.set_content("Hello")
    return made.as_bytes()


def cut(callback: Callback) -> Callback:
    """Only half of the body arrives."""
    return callback[0][:-4], callback[1]


def without(callback: Callback, header: str) -> Callback:
    return callback[0], {name: value for name, value in callback[1].items() if name.lower() != header}


def clipped(callback: Callback, header: str) -> Callback:
    """The signature's last character is missing."""
    return callback[0], {n: v[:-1] if n.lower() == header else v for n, v in callback[1].items()}


async def test_only_the_vendors_own_callbacks_count_and_each_once(
    bare: Team, twilio: TwilioServer, meta: MetaServer, mail: MailServer
) -> None:
    lines = await connect(bare, mail)
    at = {kind: f"{PUBLIC}/inbound/{line.provider}/{bare.channels[kind]}" for kind, line in lines.items()}
    inside = lines["SMS"].url  # where the proxy hands it on to: nobody signed that
    assert inside.startswith("http://127.0.0.1:")
    genuine: Mapping[str, Callable[[], Callback]] = {
        "SMS": lambda: twilio.inbound(at["SMS"], sender=MARIA_PHONE, body="Hello"),
        "WHATSAPP": lambda: twilio.inbound(at["WHATSAPP"], sender=WHATSAPP + MARIA_PHONE, body="Hello"),
        "MESSENGER": lambda: meta.inbound(PAGE_ID, MARIA_AT_META, "Hello"),
        "INSTAGRAM_DM": lambda: meta.inbound(INSTAGRAM_ID, MARIA_AT_META, "Hello"),
        "EMAIL": lambda: signed_mail(letter()),
    }
    headers = {"SMS": "x-twilio-signature", "WHATSAPP": "x-twilio-signature", "EMAIL": "paythread-mail-signature"}
    forged: dict[str, list[tuple[str, Callback]]] = {}
    for kind, make in genuine.items():
        name = headers.get(kind, "x-hub-signature-256")
        forged[kind] = [
            ("body cut short", cut(make())),
            ("no signature", without(make(), name)),
            ("empty signature", (make()[0], {**without(make(), name)[1], name: ""})),
            ("signature cut short", clipped(make(), name)),
            ("body of another", (make()[0] + b" ", make()[1])),
        ]
    for kind, sender in (("SMS", MARIA_PHONE), ("WHATSAPP", WHATSAPP + MARIA_PHONE)):
        other = "WHATSAPP" if kind == "SMS" else "SMS"
        forged[kind] += [
            ("the inner host", twilio.inbound(lines[kind].url, sender=sender, body="Hello")),
            ("another host", twilio.inbound(at[kind].replace("pay.", "evil."), sender=sender, body="Hello")),
            ("plain http", twilio.inbound(at[kind].replace("https:", "http:"), sender=sender, body="Hello")),
            ("another channel's address", twilio.inbound(at[other], sender=sender, body="Hello")),
        ]
    forged["EMAIL"].append(("another's secret", signed_mail(letter(), secret="another-secret-of-a-mailbox")))

    before, tried = await snapshot(), 0
    async with httpx2.AsyncClient() as anybody:
        for kind, attempts in forged.items():
            for how, (body, sent) in attempts:
                # A proxy's own headers change nothing: the configured address counts.
                spoofed = {**sent, "X-Forwarded-Host": "pay.acme.test", "X-Forwarded-Proto": "https"}
                answer = await anybody.post(lines[kind].url, content=body, headers=spoofed)
                assert answer.status_code == 400, (kind, how)
                tried += 1
        assert changed(before, await snapshot()) == []

        for kind, make in genuine.items():
            body, sent = make()
            replayed = [await anybody.post(lines[kind].url, content=body, headers=sent) for _ in range(3)]
            assert [answer.status_code for answer in replayed] == [200, 200, 200], kind
    rows = await Message.all()
    assert sorted(row.kind for row in rows) == sorted(genuine)
    assert {row.body for row in rows} == {"Hello"}
    assert await ChannelConnection.filter(last_webhook_at=None).count() == 0
    print(f"forgeries accepted 0 of {tried}; {3 * len(genuine)} genuine ones with replays stored {len(rows)}")  # noqa: T201 (the figure)


async def test_the_address_to_paste_is_the_public_one(bare: Team, mail: MailServer) -> None:
    lines = await connect(bare, mail)
    found = await bare.product.one("{ account { channels { id provider webhookUrl } } }")
    urls = {channel["id"]: channel["webhookUrl"] for channel in found["channels"]}
    assert urls == {
        bare.channels[k]: f"{PUBLIC}/inbound/{line.provider}/{bare.channels[k]}" for k, line in lines.items()
    }
