"""Every provider loses the response of a send, in every way: nothing is sent twice, and every UNKNOWN is resolved.

It is resolved by the vendor's callback (delivered twice), by a look-up, or, where the vendor has none, by a person who may resend.
A kill between the call and the commit: test_restart.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.tables import Job, Message
from services.connections import providers
from services.core import jobs
from services.messaging import resending
from tests.configured import change_environment
from tests.contracts import meta_server, twilio_server
from tests.contracts.meta_server import INSTAGRAM_ID, PAGE_ID, MetaServer
from tests.contracts.openapi import Call, Contract
from tests.contracts.smtp_server import MailServer, report
from tests.contracts.twilio_server import ACCOUNT_SID, AUTH_TOKEN, FROM_NUMBER, WHATSAPP, TwilioServer
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team
from tests.flows.harness import Product
from tests.flows.probes import row_id
from tests.flows.test_channels import (
    MAIL_SECRET,
    MARIA_AT_META,
    MARIA_MAIL,
    MARIA_PHONE,
    OUR_MAIL,
    Line,
    signed_mail,
    status_of,
)

OPTIONS = "query($id: ID!) { node(id: $id) { ... on Message { deliveryStatus resendOptions { channel { kind } } } } }"
HTTP_MODES = ("accept_then_500", "hang", "drop")
MAIL_MODES = ("hang", "drop", "twice")


@pytest.fixture
async def twilio() -> AsyncIterator[TwilioServer]:
    async with TwilioServer(twilio_server.contracts()[0]) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def meta() -> AsyncIterator[MetaServer]:
    # Ours knows the conversations, too: they are what a lost answer is looked up in.
    async with MetaServer(Contract(meta_server.our_contract(), name="ours")) as server:
        yield server
        assert server.violations == []


@pytest.fixture
async def mail() -> AsyncIterator[MailServer]:
    async with MailServer() as server:
        yield server


@pytest.fixture
async def product(database: str, events_url: str, twilio: TwilioServer, meta: MetaServer) -> AsyncIterator[Product]:
    """The server, with the vendors' addresses replaced by the contract servers'."""
    async with harness.in_process(database, events_url, TWILIO_API_BASE=twilio.url, META_API_BASE=meta.url) as running:
        yield running


@dataclasses.dataclass
class Vendors:
    """The three vendors: how each loses a response, what it accepted, what it reports."""

    twilio: TwilioServer
    meta: MetaServer
    mail: MailServer

    def fail_next(self, kind: str, mode: Any) -> None:
        """Take the next message of this kind and lose the answer."""
        if kind == "EMAIL":
            self.mail.fail_next(mode)
        elif kind in ("MESSENGER", "INSTAGRAM_DM"):
            self.meta.fail_next(mode, match=_is_message)  # the product also reads the contact's name
        else:
            self.twilio.fail_next(mode)

    def taken(self, kind: str, body: str) -> list[Any]:
        """The messages with this text that the vendor accepted."""
        if kind == "EMAIL":
            return [letter for letter in self.mail.letters if letter.text() == body]
        if kind in ("MESSENGER", "INSTAGRAM_DM"):
            return [message for message in self.meta.messages if message["text"] == body]
        return [m for m in self.twilio.messages if m["body"] == body and m["direction"] != "inbound"]

    async def calls_back(self, line: Line, body: str) -> None:
        """The vendor reports the delivery, twice."""
        (message,) = self.taken(line.kind, body)
        if line.kind == "EMAIL":
            await line.taken(*signed_mail(report(message.message, "delivered", to=MARIA_MAIL)))
        elif line.kind == "MESSENGER":
            await line.taken(*self.meta.status(message, "echo"))
        else:
            url, raw, headers = self.twilio.status_callback(message["sid"], "delivered")
            await line.taken(raw, headers, url)


def _is_message(call: Call) -> bool:
    return call.operation is not None and call.operation.operation_id == "sendMessage"


async def connect(team: Team, mail: MailServer) -> dict[str, Line]:
    """A channel of each real provider and kind, with one contact."""
    at_twilio = {"account_sid": ACCOUNT_SID, "auth_token": AUTH_TOKEN, "from_number": FROM_NUMBER}
    at_meta = {
        "access_token": meta_server.ACCESS_TOKEN,
        "app_secret": meta_server.APP_SECRET,
        "verify_token": meta_server.VERIFY_TOKEN,
    }
    letters = {"host": "127.0.0.1", "port": str(mail.port), "security": "none", "from_address": OUR_MAIL}
    given = {
        "SMS": ("twilio_sms", at_twilio),
        "WHATSAPP": ("twilio_whatsapp", at_twilio),
        "MESSENGER": ("meta_messenger", {**at_meta, "account_id": PAGE_ID}),
        "INSTAGRAM_DM": ("meta_messenger", {**at_meta, "account_id": INSTAGRAM_ID}),
        "EMAIL": ("smtp_email", {**letters, "inbound_secret": MAIL_SECRET}),
    }
    for kind, (provider, credentials) in given.items():
        named = [{"name": name, "value": value} for name, value in credentials.items()]
        payload = await team.product.ok(
            d.CONNECT_CHANNEL, {"kind": kind, "provider": provider, "credentials": named}, token=team.owner
        )
        team.channels[kind] = payload["channel"]["id"]
    addresses = [{"kind": name, "address": MARIA_AT_META} for name in ("MESSENGER", "INSTAGRAM_DM")]
    maria = await team.contact(addresses=addresses)
    return {kind: Line(team, kind, provider, maria) for kind, (provider, _) in given.items()}


async def connected(team: Team, mail: MailServer, vendors: Vendors) -> list[Line]:
    """Five channels with one contact, whose windows are open."""
    lines = await connect(team, mail)
    whatsapp = lines["WHATSAPP"]
    await whatsapp.taken(*vendors.twilio.inbound(whatsapp.url, sender=WHATSAPP + MARIA_PHONE, body="Hi"))
    for kind, account in (("MESSENGER", PAGE_ID), ("INSTAGRAM_DM", INSTAGRAM_ID)):
        await lines[kind].taken(*vendors.meta.inbound(account, MARIA_AT_META, "Hi"))
    return list(lines.values())


async def wait_for_vendors(timeout_s: float) -> None:
    """Set the time that the server waits for a response, in seconds."""
    await providers.aclose()
    change_environment(timeout_s=timeout_s)


async def write(line: Line, body: str) -> dict[str, Any]:
    given = {"conversationId": line.contact["conversation"]["id"], "channelId": line.team.channels[line.kind]}
    payload = await line.team.product.ok(
        d.SEND_MESSAGE, {"idempotencyKey": harness.key(), "body": body, "subject": "About", **given}
    )
    message: dict[str, Any] = payload["message"]
    return message


async def look_up_now() -> None:
    """Make the look-ups due."""
    await Job.filter(kind="message.resolve", status="queued").update(due_at=datetime.now(UTC))
    jobs.wake()
    async with asyncio.timeout(20):
        while await Job.filter(kind="message.resolve", status__in=["queued", "running"]).exists():
            await asyncio.sleep(0.05)


async def offered(line: Line, message: dict[str, Any]) -> list[str]:
    """The options that a person gets after 15 minutes without a result."""
    await Message.filter(id=row_id(message["id"])).update(sending_at=datetime.now(UTC) - resending.LOOKED_UP)
    found = await line.team.product.one(OPTIONS, {"id": message["id"]})
    assert found["deliveryStatus"] == "UNKNOWN"
    return [option["channel"]["kind"] for option in found["resendOptions"]]


@pytest.mark.slow
async def test_no_lost_answer_is_a_second_send_and_every_unknown_is_resolved(
    bare: Team, twilio: TwilioServer, meta: MetaServer, mail: MailServer
) -> None:
    vendors = Vendors(twilio, meta, mail)
    resolved: Counter[str] = Counter()
    unknown = 0
    written: list[tuple[str, str]] = []
    for line in await connected(bare, mail, vendors):
        # Instagram's echo names no message of ours: only the look-up finds it.
        ways = ("look-up", "look-up") if line.kind == "INSTAGRAM_DM" else ("callback", "look-up")
        for mode in MAIL_MODES if line.kind == "EMAIL" else HTTP_MODES:
            # Long enough for a busy machine; a vendor that hangs is waited for to the end.
            await wait_for_vendors(2.0 if mode == "hang" else 15.0)
            for n, way in enumerate(ways):
                body = f"{line.kind} {mode} {way} {n}"
                vendors.fail_next(line.kind, mode)
                message = await write(line, body)
                written.append((line.kind, body))
                status = await status_of(message, line, "UNKNOWN", "SENT", "FAILED")
                if mode == "twice":
                    assert status == "SENT"
                    continue
                assert (status, len(vendors.taken(line.kind, body))) == ("UNKNOWN", 1), body
                unknown += 1
                if way == "callback":
                    await vendors.calls_back(line, body)
                else:
                    await look_up_now()
                if way == "look-up" and line.kind == "EMAIL":  # no mail server can be asked what it has taken
                    assert "EMAIL" in await offered(line, message)
                    resolved["a person"] += 1
                else:
                    await status_of(message, line, "SENT", "DELIVERED")
                    resolved[way] += 1
    await look_up_now()
    second = sum(len(vendors.taken(kind, body)) - 1 for kind, body in written)
    assert (second, resolved.total(), unknown) == (0, unknown, 28)
    assert await Message.filter(direction="OUTBOUND").count() == len(written) == 30
    print(f"{len(written)} messages, second sends {second}, UNKNOWN {unknown} -> resolved {dict(resolved)}")  # noqa: T201 (the figure)


async def test_what_a_person_sends_again_is_one_message_more_and_names_the_first(
    bare: Team, twilio: TwilioServer, meta: MetaServer, mail: MailServer
) -> None:
    lines = await connected(bare, mail, Vendors(twilio, meta, mail))
    line = lines[-1]
    mail.fail_next("drop")
    message = await write(line, "Hello")
    await status_of(message, line, "UNKNOWN")
    given = {"messageId": message["id"], "channelId": bare.channels["SMS"]}
    early = await bare.product.one(d.RESEND, {"input": {"idempotencyKey": harness.key(), **given}}, token=bare.owner)
    assert [e["code"] for e in early["userErrors"]] == ["CONFIRMATION_REQUIRED"]
    await Message.filter(id=row_id(message["id"])).update(sending_at=datetime.now(UTC) - timedelta(minutes=15))
    again = await bare.product.ok(d.RESEND, {"idempotencyKey": harness.key(), **given}, token=bare.owner)
    assert again["message"]["retryOf"] == {"id": message["id"]}
    await status_of(again["message"], line, "SENT")
    assert [m["body"] for m in twilio.messages if m["direction"] != "inbound"].count("Hello") == 1
    assert len(mail.letters) == 1
    assert await offered(line, message) == []  # it is on its way
