"""Emails of the installation: to exactly one mailbox, with nothing of a name in the headers but the name."""

from __future__ import annotations

import pytest

from integrations import operator_mail
from integrations.operator_mail import Mail, MailRefused, MailUnavailable
from tests.contracts.smtp_server import MailServer

LINK = "https://pay.example.test/join#" + "A" * 60


def to(port: int, **more: str) -> operator_mail.MailServer:
    values = {"host": "127.0.0.1", "security": "none", "sender": "Päythread <desk@installation.test>"} | more
    return operator_mail.MailServer(port=port, **values)


async def test_names_stay_in_their_header_and_links_stay_whole() -> None:
    async with MailServer() as server:
        mail = Mail(
            recipient="o'neil+x@bücher.example", subject="To 😀\nBcc: eve@evil.example", text=f"Hi Ünï\n\n{LINK}\n"
        )
        await operator_mail.send(to(server.port), mail)
        (letter,) = server.letters
    assert letter.recipients == ["o'neil+x@xn--bcher-kva.example"]
    assert letter.message["Subject"] == "To 😀 Bcc: eve@evil.example"
    assert (letter.message["Bcc"], letter.message["From"]) == (None, "Päythread <desk@installation.test>")
    assert letter.message["Auto-Submitted"] == "auto-generated"
    assert letter.message.get_content().split() == ["Hi", "Ünï", LINK]


@pytest.mark.parametrize(
    "address",
    [
        'a"b@c.example',
        "ü@b.example",
        "a@b",
        "a@@b.example",
        "a b@c.example",
        "a@b..example",
        "",
        "a@b.example,c@d.example",
    ],
)
async def test_an_address_that_could_be_read_as_another_gets_nothing(address: str) -> None:
    async with MailServer() as server:
        with pytest.raises(MailRefused):
            await operator_mail.send(to(server.port), Mail(recipient=address, subject="S", text="T"))
        assert server.letters == []


@pytest.mark.parametrize(
    ("refusals", "answers", "error"),
    [
        ({"a@b.example": "550 5.1.1 unknown"}, {}, MailRefused),
        ({"a@b.example": "450 4.2.1 busy"}, {}, MailUnavailable),
        ({}, {"MAIL": "451 4.3.0 later"}, MailUnavailable),
        ({}, {"DATA": "554 5.7.1 spam"}, MailRefused),
    ],
)
async def test_a_final_refusal_differs_from_a_busy_server(
    refusals: dict[str, str], answers: dict[str, str], error: type[Exception]
) -> None:
    async with MailServer(refusals=refusals, answers=answers) as server:
        with pytest.raises(error):
            await operator_mail.send(to(server.port), Mail(recipient="a@b.example", subject="S", text="T"))


async def test_a_server_without_a_login_and_a_missing_one_are_tried_again() -> None:
    async with MailServer() as server:
        named = to(server.port, username="mailer", password="not-taken")
        with pytest.raises(MailUnavailable):
            await operator_mail.send(named, Mail(recipient="a@b.example", subject="S", text="T"))
        assert server.letters == []
    with pytest.raises(MailUnavailable):
        await operator_mail.send(to(server.port), Mail(recipient="a@b.example", subject="S", text="T"))
