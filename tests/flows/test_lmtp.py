"""Emails that a mail server delivers over LMTP: stored once before the 250 reply, shown live; on a failure the mail server keeps them."""

from __future__ import annotations

import asyncio
import smtplib
import threading
from collections.abc import AsyncIterator
from email.message import EmailMessage
from email.policy import SMTP
from typing import Any

import pytest

from integrations.base import ChannelWebhook, WebhookRequest
from integrations.channels.smtp_email import SmtpEmail
from models.tables import Attachment, ChannelConnection, Message
from services.messaging import mail
from tests.contracts.smtp_server import MailServer
from tests.flows import documents as d
from tests.flows.conftest import Team, opened
from web import lmtp


@pytest.fixture
async def door() -> AsyncIterator[int]:
    async with await lmtp.listen("127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def mailbox(bare: Team) -> AsyncIterator[str]:
    """The id of a connected email channel."""
    async with MailServer() as server:
        yield await connect(bare, server.port, inbound_secret="a-secret-of-the-mailbox")


async def connect(team: Team, port: int, **more: str) -> str:
    credentials = {"host": "127.0.0.1", "port": str(port), "security": "none", "from_address": "pay@acme.test", **more}
    payload = await team.product.ok(
        d.CONNECT_CHANNEL,
        {
            "kind": "EMAIL",
            "provider": "smtp_email",
            "credentials": [{"name": name, "value": value} for name, value in credentials.items()],
        },
        token=team.owner,
    )
    channel_id: str = payload["channel"]["id"]
    return channel_id


def letter(text: str = "When do you come?", *, sender: str = "Maria Lopez <maria1@example.com>") -> EmailMessage:
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = sender, "pay@acme.test", "A question"
    made["Message-ID"] = "<question-1@mail.example.com>"
    made.set_content(text)
    return made


async def hand_over(port: int, recipients: list[str], raw: bytes) -> Any:
    """The refusals by recipient, or the reply to DATA."""

    def talk() -> Any:
        with smtplib.LMTP("127.0.0.1", port) as client:
            try:
                return client.sendmail("maria1@example.com", recipients, raw)
            except smtplib.SMTPRecipientsRefused as error:
                return error.recipients
            except smtplib.SMTPDataError as error:
                return error.smtp_code

    return await asyncio.to_thread(talk)


async def test_a_letter_stands_in_the_thread_once_however_often_it_is_handed_over(
    bare: Team, mailbox: str, door: int
) -> None:
    await bare.contact()
    async with bare.inbox() as feed:
        await opened(feed)
        assert await hand_over(door, [f"{mailbox}@paythread.invalid"], letter().as_bytes()) == {}
        added = await feed.until("ThreadItemAdded", edge__node__body="When do you come?")
        assert added["edge"]["node"]["direction"] == "INBOUND"
    assert await hand_over(door, [f"{mailbox}@paythread.invalid"], letter().as_bytes()) == {}
    received = await Message.get(direction="INBOUND")
    assert (received.subject, received.address) == ("A question", "maria1@example.com")


async def test_letters_for_no_channel_stay_with_the_mail_server(bare: Team, mailbox: str, door: int) -> None:
    async with MailServer() as server:
        silent = await connect(bare, server.port)  # it has no inbound_secret
    unknown = mailbox[:-4] + ("aaaa" if not mailbox.endswith("aaaa") else "bbbb")
    for address in (f"{silent}@x.invalid", f"{unknown}@x.invalid", "pay@acme.test"):
        refused = await hand_over(door, [address], letter().as_bytes())
        assert refused == {address: (550, lmtp.NO_CHANNEL.removeprefix("550 ").encode())}
    assert not await Message.exists(direction="INBOUND")


async def test_each_recipient_has_a_transaction_of_its_own(bare: Team, mailbox: str, door: int) -> None:
    first, second = f"{mailbox}@a.invalid", f"{mailbox}@b.invalid"
    assert await hand_over(door, [first, second], letter().as_bytes()) == {
        second: (452, b"4.5.3 one recipient at a time")
    }
    assert await Message.filter(direction="INBOUND").count() == 1


async def test_what_is_no_letter_is_refused_for_good_and_what_fails_here_is_not(
    bare: Team, mailbox: str, door: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await hand_over(door, [f"{mailbox}@x.invalid"], b"Subject: nobody wrote this\r\n\r\nHi\r\n") == 554

    async def fails(channel_id: object, raw: bytes) -> None:
        raise ConnectionError("the database is away")

    with monkeypatch.context() as broken:
        broken.setattr(mail, "receive", fails)
        assert await hand_over(door, [f"{mailbox}@x.invalid"], letter().as_bytes()) == 451
    assert not await Message.exists(direction="INBOUND")
    noted = ChannelConnection.get(provider="smtp_email")
    assert (await noted).last_error == "An email was rejected: it can't be read."
    long = b"From: a@x.test\r\n\r\n" + b"\r\n" * 41_000
    assert await hand_over(door, [f"{mailbox}@x.invalid"], long) == 554
    assert (await noted).last_error == "An email was rejected: it can't be read.", "what stands there goes first"
    await ChannelConnection.all().update(last_error=None)
    assert await hand_over(door, [f"{mailbox}@x.invalid"], long) == 554
    assert (await noted).last_error == "An email was rejected: it is too large, or has too many lines."


async def test_a_letter_with_photos_is_taken_and_only_a_file_over_ten_megabytes_is_not_kept(
    bare: Team, mailbox: str, door: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[int] = []
    read = SmtpEmail.receive

    def watched(self: SmtpEmail, request: WebhookRequest) -> ChannelWebhook:
        readers.append(threading.get_ident())
        return read(self, request)

    monkeypatch.setattr(SmtpEmail, "receive", watched)
    jpeg = b"\xff\xd8\xff\xe0"
    for name, size in (("kitchen", 4 << 20), ("bath", 10 << 20), ("roof", (10 << 20) + 1)):
        made = letter(f"The {name}:")
        made.replace_header("Message-ID", f"<{name}@mail.example.com>")
        made.add_attachment(jpeg + bytes(size - 4), maintype="image", subtype="jpeg", filename=f"{name}.jpg")
        assert await hand_over(door, [f"{mailbox}@x.invalid"], made.as_bytes(policy=SMTP)) == {}
    letters = await Message.filter(direction="INBOUND").order_by("seq")
    assert [one.body for one in letters] == ["The kitchen:", "The bath:", "The roof:"]
    assert await Attachment.all().order_by("id").values_list("name", "size_bytes", "status", "reason") == [
        ("kitchen.jpg", 4 << 20, "STORED", None),
        ("bath.jpg", 10 << 20, "STORED", None),
        ("roof.jpg", (10 << 20) + 1, "REFUSED", "too_large"),
    ]
    # Read beside the loop, which must go on.
    assert len(readers) == 3
    assert threading.get_ident() not in readers


async def test_a_stop_by_mail_is_taken_though_the_channel_is_disconnected(bare: Team, mailbox: str, door: int) -> None:
    await bare.product.ok(d.DISCONNECT_CHANNEL, {"channelId": mailbox}, token=bare.owner)
    assert await hand_over(door, [f"{mailbox}@x.invalid"], letter("STOP").as_bytes()) == {}
    assert await Message.filter(direction="INBOUND", body="STOP").count() == 1
    assert (await ChannelConnection.get(provider="smtp_email")).connected is False
