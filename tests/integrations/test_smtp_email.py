"""Email: aiosmtplib against a real SMTP server, and raw messages posted to the signed webhook."""

from __future__ import annotations

import asyncio
import base64
import socket
import traceback
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP as WIRE
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

import pytest

from integrations import inbound_mail
from integrations.base import (
    Author,
    ChannelKind,
    ChannelLimits,
    ChannelWebhook,
    DeliveryStatus,
    Environment,
    InboundMessage,
    IntegrationError,
    OutboundMessage,
    PayloadInvalid,
    SendResult,
    SignatureInvalid,
    StatusUpdate,
    WebhookRequest,
)
from integrations.channels.smtp_email import SIGNATURE_HEADER, Credentials, SmtpEmail
from integrations.signatures import sign
from tests.contracts.smtp_server import PASSWORD, USERNAME, FailureMode, MailServer, certificate, receipt, report

PUBLIC = "https://pay.example.test"
URL = f"{PUBLIC}/inbound/smtp_email/chn_1"
LINK = f"{PUBLIC}/p/abc"
TO = "dana@x.test"
FROM = "pay@acme.test"
SECRET = "a-secret-of-the-mailbox"
NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)


@pytest.fixture
async def server() -> AsyncIterator[MailServer]:
    async with MailServer() as running:
        yield running


def make(port: int | str = 1, *, timeout_s: float | str = 5.0, **changes: str) -> SmtpEmail:
    values = {
        "host": "127.0.0.1",
        "port": str(port),
        "security": "none",
        "from_address": FROM,
        "inbound_secret": SECRET,
    }
    environment = Environment(
        public_url=PUBLIC,
        sandbox_url="http://127.0.0.1:1",
        private_hosts=frozenset({"127.0.0.1:*"}),
        timeout_s=float(timeout_s),
    )
    return SmtpEmail(Credentials(**{**values, **changes}), kind=ChannelKind.EMAIL, environment=environment)


def outbound(body: str = f"Hi Dana,\n\npay here: {LINK}", **changes: Any) -> OutboundMessage:
    values = {"message_id": "msg_1", "attempt_id": "att_1", "to": TO, "body": body, "subject": "Your payment"}
    return OutboundMessage(**{**values, **changes})


def test_the_limits_ask_for_a_subject_and_promise_a_button() -> None:
    assert make().limits(ChannelKind.EMAIL) == ChannelLimits(needs_subject=True, link_button=True, max_cc=20)


# ------------------------------------------------------------------------------------------------------------ sending
async def test_a_letter_has_both_parts_and_the_headers_that_mail_needs(server: MailServer) -> None:
    channel = make(server.port)
    result = await channel.send(outbound(sender_name="Acme Cleaning"))
    assert server.commands == ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"]
    assert server.parameters == ["FROM:<pay@acme.test>", "TO:<dana@x.test>"]
    assert len(server.letters) == 1
    letter = server.letters[0].message
    assert result == SendResult(external_id=letter["Message-ID"], status=DeliveryStatus.SENT)
    assert letter.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in letter.iter_parts()] == ["text/plain", "text/html"]
    assert letter["From"] == "Acme Cleaning <pay@acme.test>"
    assert (letter["To"], letter["Subject"]) == (TO, "Your payment")
    assert abs(letter["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=5)
    assert letter["List-Unsubscribe"] == "<mailto:pay@acme.test?subject=unsubscribe>"
    for absent in ("Reply-To", "In-Reply-To", "References", "List-Unsubscribe-Post", "Auto-Submitted"):
        assert letter[absent] is None


async def test_the_plain_part_is_the_text_and_the_other_has_link_and_button(server: MailServer) -> None:
    await make(server.port).send(outbound())
    letter = server.letters[0]
    assert letter.text() == f"Hi Dana,\n\npay here: {LINK}"
    page = letter.text("html")
    assert page.count(f'<a href="{LINK}"') == 2
    assert f'<a href="{LINK}">{LINK}</a></p>' in page
    assert ">Pay now</a>" in page


async def test_the_buttons_address_and_words_can_be_given(server: MailServer) -> None:
    await make(server.port).send(outbound("Hola", link_url="https://pay.acme.test/p/xyz", link_label="Pagar ahora"))
    letter = server.letters[0]
    assert letter.text() == "Hola\n\nhttps://pay.acme.test/p/xyz"
    assert '<a href="https://pay.acme.test/p/xyz"' in letter.text("html")
    assert ">Pagar ahora</a>" in letter.text("html")


async def test_without_a_payment_link_there_is_no_button(server: MailServer) -> None:
    await make(server.port).send(outbound("See https://acme.test/offers."))
    page = server.letters[0].text("html")
    assert '<a href="https://acme.test/offers">https://acme.test/offers</a>.' in page
    assert page.count("<a ") == 1


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}


async def test_hostile_words_stay_words(server: MailServer) -> None:
    nasty = '<script>alert(1)</script> "quoted" & https://x.test/?a=1&b="onmouseover=x'
    link = 'https://x.test/p/1"><i onclick=x>'
    message = outbound(
        nasty,
        subject="<b>Hi\r\nBcc: all@x.test",
        sender_name="A\nB <eve@x.test>",
        link_url=link,
        link_label="<i>Pay</i>",
    )
    await make(server.port).send(message)
    letter = server.letters[0]
    assert letter.text() == f"{nasty}\n\n{link}"
    page = letter.text("html")
    found = _Elements()
    found.feed(page)
    assert found.names == {"html", "head", "meta", "title", "body", "div", "p", "a"}
    assert found.attributes == {"charset", "name", "content", "style", "dir", "href"}
    assert letter.message["Bcc"] is None
    assert letter.message["Subject"] == "<b>Hi Bcc: all@x.test"
    assert [address.addr_spec for address in letter.message["From"].addresses] == [FROM]
    assert letter.recipients == [TO]


async def test_any_text_arrives_as_it_was_written(server: MailServer) -> None:
    text = "¿Pagas? 100% = ok 👍\n.\n..two dots\n\n\nFrom here\n" + "long " * 400 + "\ttab"
    subject = "Ihre Zahlung für „Grundreinigung“ – " + "ö" * 100
    await make(server.port).send(outbound(text, subject=subject, sender_name="Müller & Söhne, Inh. Ä. Öz"))
    letter = server.letters[0]
    assert letter.text() == text
    assert letter.message["Subject"] == subject
    assert letter.message["From"].addresses[0].display_name == "Müller & Söhne, Inh. Ä. Öz"
    assert max(len(line) for line in letter.raw.split(b"\r\n")) <= 998
    assert letter.raw.isascii()


async def test_the_message_id_follows_from_the_message_and_cannot_be_guessed(server: MailServer) -> None:
    channel = make(server.port)
    first = await channel.send(outbound())
    again = await channel.send(outbound(attempt_id="att_2"))
    other = await channel.send(outbound(message_id="msg_2"))
    assert first.external_id == again.external_id != other.external_id
    assert first.external_id.startswith("<msg_1.")
    assert first.external_id.endswith("@acme.test>")
    assert make(inbound_secret="another").message_id_of("msg_1") != first.external_id
    assert len(server.letters) == 3


async def test_a_letter_joins_its_thread(server: MailServer) -> None:
    many = [f"<m{number}@x.test>" for number in range(40)]
    await make(server.port).send(outbound(in_reply_to="<b@x.test>", references=["<a@x.test>", "sha256:" + "0" * 64]))
    await make(server.port).send(outbound(in_reply_to="<m39@x.test>", references=many))
    await make(server.port).send(outbound(in_reply_to="sha256:" + "0" * 64, references=["a\r\nBcc: x@x.test"]))
    first, second, third = (letter.message for letter in server.letters)
    assert (first["In-Reply-To"], first["References"]) == ("<b@x.test>", "<a@x.test> <b@x.test>")
    assert second["References"].split() == [many[0], *many[20:]]
    assert (third["In-Reply-To"], third["References"], third["Bcc"]) == (None, None, None)


async def test_answers_and_unsubscriptions_have_their_addresses(server: MailServer) -> None:
    channel = make(server.port, reply_to="inbox@acme.test")
    await channel.send(outbound(unsubscribe_url=f"{PUBLIC}/u/a>b\r\nBcc: x@x.test", author=Author.AUTOMATION))
    await channel.send(outbound(reply_to="team@acme.test", unsubscribe_url="http://x.test/u", author=Author.PERSON))
    first, second = (letter.message for letter in server.letters)
    assert first["Reply-To"] == "inbox@acme.test"
    assert first["List-Unsubscribe"].split() == [
        f"<{PUBLIC}/u/a%3Eb%0D%0ABcc:%20x@x.test>,",
        "<mailto:inbox@acme.test?subject=unsubscribe>",
    ]
    assert (first["List-Unsubscribe-Post"], first["Auto-Submitted"]) == ("List-Unsubscribe=One-Click", "auto-generated")
    assert first["Bcc"] is None
    assert second["Reply-To"] == "team@acme.test"
    assert second["List-Unsubscribe"] == "<mailto:team@acme.test?subject=unsubscribe>"
    assert (second["List-Unsubscribe-Post"], second["Auto-Submitted"]) == (None, None)


async def test_a_domain_in_any_script_is_reached(server: MailServer) -> None:
    await make(server.port).send(outbound(to="dana@bücher.test"))
    assert server.letters[0].recipients == ["dana@xn--bcher-kva.test"]


@pytest.mark.parametrize(
    "to",
    ["", "dana", "dana@", "@x.test", "a b@x.test", "dana@x.test\r\nRCPT TO:<eve@x.test>", "dänä@x.test", "<a@x.test>"],
)
async def test_what_is_no_address_is_refused_before_any_call(server: MailServer, to: str) -> None:
    with pytest.raises(IntegrationError) as caught:
        await make(server.port).send(outbound(to=to))
    assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("recipient_refused", False, False)
    assert server.commands == []


async def test_a_report_of_success_is_asked_for_only_where_it_is_wanted_and_offered() -> None:
    for dsn, wanted, expected in (
        (True, "yes", [" RET=HDRS ENVID=", " NOTIFY=SUCCESS,FAILURE,DELAY"]),
        (True, "", ["", ""]),
        (False, "yes", ["", ""]),
    ):
        async with MailServer(dsn=dsn) as server:
            channel = make(server.port, delivery_reports=wanted)
            sent = await channel.send(outbound())
            token = sent.external_id.strip("<>").partition("@")[0] if expected[0] else ""
            assert server.parameters == [f"FROM:<{FROM}>{expected[0]}{token}", f"TO:<{TO}>{expected[1]}"]


# ----------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize(
    ("where", "answer", "reason", "code", "retryable"),
    [
        ("RCPT", "550 5.1.1 <dana@x.test>: no such user", "recipient_refused", "5.1.1", False),
        ("RCPT", "550 go away", "recipient_refused", "550", False),
        ("RCPT", "450 4.2.1 greylisted", "try_later", "4.2.1", True),
        ("MAIL", "553 5.7.1 not your address", "invalid_sender", "5.7.1", False),
        ("MAIL", "530 5.7.0 authenticate first", "unauthorized", "5.7.0", False),
        ("MAIL", "451 4.3.0 later", "try_later", "4.3.0", True),
        ("DATA", "554 5.7.1 spam from pay@acme.test", "refused", "5.7.1", False),
        ("DATA", "452 4.3.1 disk full", "rate_limited", "4.3.1", True),
        ("MAIL", "421 4.7.0 too many messages, slow down", "rate_limited", "4.7.0", True),
        ("MAIL", "450 4.7.1 too much mail", "rate_limited", "4.7.1", True),
    ],
)
async def test_a_refusal_is_one_call_and_never_ambiguous(
    server: MailServer, where: str, answer: str, reason: str, code: str, retryable: bool
) -> None:
    if where == "RCPT":
        server.refusals[TO] = answer
    else:
        server.answers[where] = answer
    with pytest.raises(IntegrationError) as caught:
        await make(server.port).send(outbound())
    error = caught.value
    assert (error.provider, error.reason, error.code) == ("smtp_email", reason, code)
    assert (error.retryable, error.ambiguous, error.retry_after_s) == (retryable, False, 60.0 if retryable else None)
    assert server.commands.count("MAIL") == 1
    assert server.letters == []
    shown = "".join(traceback.format_exception(error)) + error.message
    assert TO not in shown
    assert FROM not in shown


@pytest.mark.parametrize(("mode", "reason"), [("hang", "timeout"), ("drop", "connection_lost")])
async def test_a_lost_answer_after_data_is_ambiguous_and_the_letter_went_once(
    server: MailServer, mode: FailureMode, reason: str
) -> None:
    server.fail_next(mode)
    async with asyncio.timeout(20):
        with pytest.raises(IntegrationError) as caught:
            await make(server.port, timeout_s=0.4 if mode == "hang" else 5).send(outbound())
    assert (caught.value.reason, caught.value.ambiguous, caught.value.retryable) == (reason, True, False)
    assert server.commands.count("DATA") == 1
    assert len(server.letters) == 1


async def test_two_answers_to_one_letter_are_one_success(server: MailServer) -> None:
    server.fail_next("twice")
    await make(server.port).send(outbound())
    assert len(server.letters) == 1


@pytest.mark.parametrize(("mode", "reason"), [("hang_at_rcpt", "timeout"), ("drop_at_rcpt", "unreachable")])
async def test_what_breaks_before_data_may_be_tried_again(server: MailServer, mode: FailureMode, reason: str) -> None:
    server.fail_next(mode)
    async with asyncio.timeout(20):
        with pytest.raises(IntegrationError) as caught:
            await make(server.port, timeout_s=0.4 if mode == "hang_at_rcpt" else 5).send(outbound())
    assert (caught.value.reason, caught.value.ambiguous, caught.value.retryable) == (reason, False, True)
    assert server.letters == []


async def test_a_refused_connection_may_be_tried_again() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        channel = make(closed.getsockname()[1])
        for call in (channel.send(outbound()), channel.check()):
            with pytest.raises(IntegrationError) as caught:
                await call
            assert (caught.value.reason, caught.value.retryable, caught.value.ambiguous) == ("unreachable", True, False)


# ------------------------------------------------------------------------------------------------------- TLS and login
@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    context, authority = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    return context


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_with_tls_the_password_is_taken(tls: Any, security: str) -> None:
    async with MailServer(tls=tls, implicit_tls=security == "tls", auth=True) as server:
        channel = make(server.port, security=security, username=USERNAME, password=PASSWORD)
        assert await channel.check() is None
        assert server.letters == []
        await channel.send(outbound())
        assert len(server.letters) == 1
        wrong = make(server.port, security=security, username=USERNAME, password="wrong")
        for call in (wrong.send(outbound()), wrong.check()):
            with pytest.raises(IntegrationError) as caught:
                await call
            assert (caught.value.reason, caught.value.retryable) == ("unauthorized", False)
            assert "wrong" not in "".join(traceback.format_exception(caught.value))
        assert len(server.letters) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_an_unknown_certificate_is_not_accepted(tmp_path: Path, security: str) -> None:
    context, _ = certificate(tmp_path)
    async with MailServer(tls=context, implicit_tls=security == "tls") as server:
        with pytest.raises(IntegrationError) as caught:
            await make(server.port, security=security).send(outbound())
        assert (caught.value.reason, caught.value.retryable) == ("tls_failed", False)
        assert server.letters == []


async def test_a_certificate_for_another_host_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, authority = certificate(tmp_path, host="192.0.2.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    async with MailServer(tls=context) as server:
        with pytest.raises(IntegrationError) as caught:
            await make(server.port, security="starttls").send(outbound())
        assert caught.value.reason == "tls_failed"
        assert server.letters == []


async def test_without_starttls_on_offer_nothing_is_sent(server: MailServer) -> None:
    with pytest.raises(IntegrationError) as caught:
        await make(server.port, security="starttls", username=USERNAME, password=PASSWORD).send(outbound())
    assert (caught.value.reason, caught.value.retryable) == ("not_supported", False)
    assert "AUTH" not in server.commands
    assert server.letters == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"host": "mail.example.test", "username": "u", "password": "p"}, "insecure"),
        ({"security": "ssl3"}, "credentials_invalid"),
        ({"port": "many"}, "credentials_invalid"),
        ({"port": "0"}, "credentials_invalid"),
        ({"port": "65536"}, "credentials_invalid"),
        ({"from_address": "Acme <pay@acme.test>"}, "credentials_invalid"),
        ({"reply_to": "a\nb@x.test"}, "credentials_invalid"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(IntegrationError) as caught:
        make(**{"port": "25", **changes})
    assert (caught.value.reason, caught.value.retryable) == (reason, False)


def test_credentials_do_not_show_their_secrets() -> None:
    shown = repr(Credentials(host="h", from_address=FROM, password="s1", inbound_secret="s2"))
    assert FROM in shown
    assert "s1" not in shown
    assert "s2" not in shown


# ---------------------------------------------------------------------------------------------------------- receiving
def letter(text: str = "When do you come?", *, html: str | None = None, **headers: str) -> bytes:
    mail = EmailMessage(policy=WIRE)
    given = {
        "From": "Dana Diaz <dana@x.test>",
        "To": FROM,
        "Subject": "Re: Your payment",
        "Message-ID": "<in-1@x.test>",
    }
    for name, value in {**given, **{n.replace("_", "-"): v for n, v in headers.items()}}.items():
        if value:
            mail[name] = value
    mail.set_content(text)
    if html is not None:
        mail.add_alternative(html, subtype="html")
    return mail.as_bytes()


def request(raw: bytes, *, at: datetime = NOW, header: str | None = None) -> WebhookRequest:
    headers = {SIGNATURE_HEADER.lower(): sign(SECRET, raw, at=at) if header is None else header}
    return WebhookRequest(method="POST", public_url=URL, headers=headers, body=raw, now=NOW)


def take(raw: bytes, **changes: str) -> ChannelWebhook:
    return make(**changes).receive(request(raw))


def taken(raw: bytes) -> InboundMessage:
    received = take(raw)
    assert len(received.messages) == 1
    return received.messages[0]


def test_a_letter_is_read() -> None:
    assert take(letter()).statuses == ()
    assert taken(letter()) == InboundMessage(
        external_id="<in-1@x.test>",
        sender=TO,
        sender_name="Dana Diaz",
        recipient=FROM,
        subject="Re: Your payment",
        body="When do you come?",
        attachments=[],
    )


def test_the_same_letter_again_has_the_same_id() -> None:
    raw = letter(Message_ID="")
    assert taken(raw).external_id == taken(raw).external_id
    assert taken(raw).external_id.startswith("sha256:")
    assert taken(raw).external_id != taken(letter("Another", Message_ID="")).external_id


def test_a_long_message_id_fits_the_column_and_stays_one_id() -> None:
    long = f"<{'a' * 200}@x.test>"
    first = taken(letter(Message_ID=long)).external_id
    assert len(first) <= 120
    assert first == taken(letter(Message_ID=long)).external_id != taken(letter(Message_ID=f"<b{long[2:]}")).external_id


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("Yes please\r\n\r\nOn Mon, 23 Nov 2026 at 04:00, Acme <pay@acme.test> wrote:\r\n> Pay here\r\n", "Yes please"),
        (
            "Ja\r\n\r\nAm Mo., 23. Nov. 2026 um 04:00 Uhr schrieb Acme\r\n<pay@acme.test>:\r\n\r\n> Pay",
            "Ja",
        ),
        ("Sí\r\n\r\nEl lun, 23 nov 2026 a las 4:00, Acme (<pay@acme.test>)\r\nescribió:\r\n> Pay", "Sí"),
        ("Top\r\n-----Original Message-----\r\nFrom: Acme\r\nPay", "Top"),
        ("Inline:\r\n> one?\r\nyes\r\n> two?\r\nno", "Inline:\n> one?\nyes\n> two?\nno"),
        ("Below\r\n> quoted\r\n>\r\n> more\r\n\r\n", "Below"),
        ("> only a quote", "> only a quote"),
        ("On the house we agreed, as you wrote: fine", "On the house we agreed, as you wrote: fine"),
    ],
)
def test_the_quoted_original_is_left_out(text: str, body: str) -> None:
    assert taken(letter(text)).body == body


def test_html_alone_is_turned_into_words() -> None:
    source = (
        "<html><head><title>no</title><style>p{color:red}</style></head><header>Hi&nbsp;you</header>"
        "<p>One &lt;b&gt;</p>Two<br/>Three<SCRIPT>alert(1)</SCRIPT> end<blockquote>quoted</blockquote></html>"
    )
    mail = EmailMessage(policy=WIRE)
    mail["From"], mail["Message-ID"] = TO, "<in-2@x.test>"
    mail.set_content(source, subtype="html")
    assert taken(mail.as_bytes()).body == "Hi you\n\nOne <b>\n\nTwo\nThree end\nquoted"


def test_the_plain_part_is_read_unless_the_html_part_says_more() -> None:
    assert taken(letter("*plain* words", html="<p><b>plain</b><br>words</p>")).body == "*plain* words"
    assert taken(letter("a long word that is bro\r\nken", html="<p>a long word that is broken</p>")).body.endswith(
        "ken"
    )
    for plain in ("  ", "Your mail program shows no HTML."):
        assert taken(letter(plain, html="<p>rich</p>")).body == "rich"


def test_attachments_are_named_measured_and_not_opened() -> None:
    mail = EmailMessage(policy=WIRE)
    mail["From"], mail["Message-ID"] = TO, "<in-3@x.test>"
    mail.set_content("See the pictures")
    mail.add_attachment(b"\x89PNG" * 10, maintype="image", subtype="png", filename="../../etc/päss.png")
    mail.add_attachment("a,b", subtype="csv", filename="C:\\x\\list.csv")
    inner = EmailMessage(policy=WIRE)
    inner["From"] = "eve@x.test"
    inner.set_content("STOP")
    mail.add_attachment(inner)
    got = taken(mail.as_bytes())
    assert (got.sender, got.body, got.opt_out) == (TO, "See the pictures", None)
    assert [(a["content_type"], a.get("name")) for a in got.attachments] == [
        ("image/png", "päss.png"),
        ("text/csv", "list.csv"),
        ("message/rfc822", "message.eml"),
    ]
    assert got.attachments[0]["size"] == "40"
    contents = [a.get("content") for a in got.attachments]
    assert [base64.b64decode(one) if one is not None else None for one in contents] == [
        b"\x89PNG" * 10,
        b"a,b\n",
        inner.as_bytes().replace(b"\r\n", b"\n"),
    ]


@pytest.mark.parametrize(
    ("text", "subject", "opt_out"),
    [
        ("STOP", "Re: Your payment", True),
        ("Stop\r\n\r\nOn Mon, Acme wrote:\r\n> Pay", "Re: x", True),
        ("STOP\r\n\r\nSent from my iPhone", "Re: x", True),
        ("Stop.\r\n-- \r\nDana Diaz\r\nAcme", "Re: x", True),
        ("Stop here on Monday\r\n-- \r\nDana Diaz", "Re: x", None),
        ("Sent from my heart\r\nSTOP", "Re: x", None),
        ("START", "Re: x", False),
        ("", "unsubscribe", True),
        ("This message was sent by your mail program.", "Unsubscribe", True),
        ("START", "unsubscribe", True),
        ("please do not unsubscribe me", "Re: unsubscribe", None),
        ("Cancel", "Re: Your appointment", None),
        ("End", "Re: x", None),
        ("Yes", "Re: Your appointment", None),
        ("", "Yes", None),
        ("Don't stop", "STOP the music", None),
    ],
)
def test_consent_is_withdrawn_by_the_word_alone(text: str, subject: str, opt_out: bool | None) -> None:
    assert taken(letter(text, Subject=subject)).opt_out is opt_out


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("=?utf-8?q?M=C3=BCller?= <dana@x.test>", "Müller"),
        ("=?punycode?q?abc?= <dana@x.test>", "abc"),
        ("=?no-such-charset?q?=C3=A9?= <dana@x.test>", "é"),
        ("=?utf-8?b?!!!!?= <dana@x.test>", None),
        ('"Diaz, Dana" <dana@x.test>', "Diaz, Dana"),
        ("dana@x.test", None),
    ],
)
def test_names_are_decoded_whatever_they_claim_to_be(header: str, expected: str | None) -> None:
    got = taken(f"From: {header}\r\nMessage-ID: <a@x>\r\n\r\nhi".encode())
    assert got.sender == TO
    if expected is not None:
        assert got.sender_name == expected


@pytest.mark.parametrize("charset", ["punycode", "unicode_escape", "rot13", "zlib", "idna", "x", "utf-8", ""])
def test_a_body_of_any_charset_is_read_and_no_strange_codec_is_used(charset: str) -> None:
    raw = f'From: {TO}\r\nContent-Type: text/plain; charset="{charset}"\r\n\r\ncaf\\u00e9 – é'.encode()
    assert taken(raw).body == "caf\\u00e9 – é"


def test_latin_1_is_read() -> None:
    raw = f"From: {TO}\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\r\n".encode() + "café".encode("latin-1")
    assert taken(raw).body == "café"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no_sender"),
        (b"hello world", "no_sender"),
        (b"\x00\xff\xfe", "no_sender"),
        (b"From: nobody\r\n\r\nhi", "no_sender"),
        (b"From: a@x.test\r\n\r\n" + b"\r\n" * 41_000, "too_large"),
        (b"From: a@x.test\r\n\r\n" + (b"a" * 50 + b"\r\n") * 200_000, "too_large"),
        (b"From: a@x.test\r\n\r\n" + b"a" * (14 << 20), "too_large"),
        (b"From: a@x.test\r\nContent-Type: text/plain; " + b';"' * 5000 + b"\r\n\r\nhi", "header_too_long"),
        (b"From: a@x.test\r\nContent-Type: text/plain;\r\n" + b' ;"\r\n' * 2000 + b"\r\n\r\nhi", "header_too_long"),
        (b"From: a@x.test\r\n" + b"Content-Type: message/rfc822\r\n\r\n" * 3000, "too_many_parts"),
        (
            b"From: a@x.test\r\n"
            + b"".join(b'Content-Type: multipart/mixed; boundary="%d"\r\n\r\n--%d\r\n' % (n, n) for n in range(60)),
            "too_many_parts",
        ),
    ],
)
def test_what_is_no_letter_or_costs_too_much_is_not_taken(raw: bytes, reason: str) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        take(raw)
    assert caught.value.reason == reason


def test_hostile_html_is_cut_down_in_linear_work() -> None:
    for hostile in ("<" * 300_000, "<style>" * 40_000, "<script" * 40_000, "&#x" * 100_000, "İ<br" * 70_000):
        assert len(inbound_mail.read(letter(" ", html=hostile)).text) <= 50_000


def test_our_own_mail_and_that_of_mail_servers_is_no_contact() -> None:
    assert take(letter(From="MAILER-DAEMON@mx.x.test")) == ChannelWebhook()
    assert take(letter(From="postmaster@x.test", Return_Path="<>")) == ChannelWebhook()
    assert taken(letter(From="postmaster@x.test")).sender == "postmaster@x.test"
    assert take(letter(From="PAY@acme.test", Message_ID=make().message_id_of("msg_1"))) == ChannelWebhook()


# --------------------------------------------------------------------------------------- what became of our messages
def original(**changes: str) -> EmailMessage:
    mail = EmailMessage()
    mail["Message-ID"] = make(**changes).message_id_of("msg_1")
    return mail


def status_of(raw: bytes) -> list[StatusUpdate]:
    received = take(raw)
    assert received.messages == ()
    return list(received.statuses)


@pytest.mark.parametrize("quote", ["headers", "message"])
def test_a_bounce_fails_its_message_in_words(quote: Literal["headers", "message"]) -> None:
    assert status_of(report(original(), "failed", status="5.1.1", quote=quote)) == [
        StatusUpdate(
            external_id=make().message_id_of("msg_1"),
            message_id="msg_1",
            status=DeliveryStatus.FAILED,
            error_code="5.1.1",
            error_message="There is no such mailbox.",
            address=TO,
        )
    ]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("5.1.10", "There is no such mailbox."),
        ("5.1.2", "The address is not valid."),
        ("5.2.2", "The mailbox is full."),
        ("5.7.26", "The recipient's mail server rejected the message because of its policy."),
        ("4.4.7", "The recipient's mail server did not accept the message in time."),
        ("5.9.9", "The message could not be delivered."),
    ],
)
def test_a_failure_is_explained(status: str, words: str) -> None:
    found = status_of(report(original(), "failed", status=status))
    assert [(update.error_code, update.error_message) for update in found] == [(status, words)]


@pytest.mark.parametrize(
    ("action", "ours"), [("delivered", "DELIVERED"), ("relayed", "SENT"), ("delayed", "SENT"), ("expanded", "SENT")]
)
def test_a_report_of_success_moves_its_message_on(action: str, ours: str) -> None:
    found = status_of(report(original(), action))
    assert [(u.message_id, u.status.value, u.error_code) for u in found] == [("msg_1", ours, None)]


def test_a_report_without_the_original_is_known_by_its_envelope_id() -> None:
    token = make().message_id_of("msg_1").strip("<>").partition("@")[0]
    found = status_of(report(original(), "delivered", quote="nothing", envelope_id=token))
    assert [u.message_id for u in found] == ["msg_1"]


def test_a_read_receipt_says_read() -> None:
    assert [(u.message_id, u.status.value) for u in status_of(receipt(original()))] == [("msg_1", "READ")]
    assert status_of(receipt(original(), disposition="automatic-action/MDN-sent-automatically; deleted")) == []


def test_a_report_that_anybody_could_have_written_changes_nothing() -> None:
    forged = EmailMessage()
    for forgery in ("<msg_1.000000000000000000000000@acme.test>", "<msg_1@acme.test>", "<x@acme.test>"):
        del forged["Message-ID"]
        forged["Message-ID"] = forgery
        assert status_of(report(forged, "failed", status="5.1.1")) == []
    assert status_of(report(original(inbound_secret="another"), "failed", status="5.1.1")) == []
    assert status_of(report(original(), "exploded")) == []
    assert status_of(report(original(), "failed", quote="nothing")) == []


def test_an_answer_proves_that_its_message_was_read() -> None:
    ours = make().message_id_of("msg_1")
    received = take(letter(In_Reply_To=ours, References=f"<old@x.test> {ours}"))
    assert [(m.body, m.in_reply_to) for m in received.messages] == [("When do you come?", ours)]
    assert list(received.statuses) == [
        StatusUpdate(external_id=ours, message_id="msg_1", status=DeliveryStatus.READ, answered=True, address=TO)
    ]
    forged = take(letter(In_Reply_To="<msg_1.000000000000000000000000@acme.test>"))
    assert (forged.statuses, forged.messages[0].in_reply_to) == ((), None)


@pytest.mark.parametrize(
    ("header", "value", "proves"),
    [
        ("Auto-Submitted", "auto-replied", "DELIVERED"),
        ("Auto-Submitted", "Auto-Replied; owner-email=x@y.test", "DELIVERED"),
        ("Auto-Submitted", "no", "READ"),
        ("X-Autoreply", "yes", "DELIVERED"),
        ("Precedence", "auto_reply", "DELIVERED"),
        ("Precedence", "bulk", "DELIVERED"),
    ],
)
def test_a_program_that_answers_has_received_a_message_and_read_nothing(header: str, value: str, proves: str) -> None:
    ours = make().message_id_of("msg_1")
    received = take(letter("I am away until Monday.", In_Reply_To=ours, **{header: value}))
    assert [m.body for m in received.messages] == ["I am away until Monday."]
    assert [(u.message_id, u.status.value) for u in received.statuses] == [("msg_1", proves)]


# --------------------------------------------------------------------------------------------------------- signatures
def refused(raw: bytes, header: str, **changes: str) -> str:
    with pytest.raises(SignatureInvalid) as caught:
        make(**changes).receive(request(raw, header=header))
    assert caught.value.provider == "smtp_email"
    return caught.value.reason


def test_forged_truncated_and_missing_signatures_are_refused() -> None:
    raw = letter()
    good = sign(SECRET, raw, at=NOW)
    time, _, digest = good.partition(",")
    assert make().receive(request(raw, header=f"{time},v1=old,{digest}")).messages
    assert refused(raw, "") == "signature_missing"
    for header in (
        "x",
        time,
        digest,
        good[:-1],
        f"{time},{time},{digest}",
        f"t=1,{digest}",
        f"{time},v1=ü",
        sign("", raw, at=NOW),
    ):
        assert refused(raw, header) == "signature_invalid"
    for changed in (raw[:-1], raw + b" ", raw.replace(b"dana@", b"eve0@"), b""):
        assert refused(changed, good) == "signature_invalid"
    assert refused(raw, good, inbound_secret="another") == "signature_invalid"
    assert refused(raw, sign("", raw, at=NOW), inbound_secret="") == "no_secret"


@pytest.mark.parametrize("offset_s", [-300, 0, 300])
def test_a_signature_holds_for_300_seconds_either_way(offset_s: int) -> None:
    raw = letter()
    assert make().receive(request(raw, at=NOW + timedelta(seconds=offset_s))).messages


@pytest.mark.parametrize("offset_s", [-86_400, -301, 301, 86_400])
def test_a_replayed_letter_is_refused_outside_them(offset_s: int) -> None:
    raw = letter()
    assert refused(raw, sign(SECRET, raw, at=NOW + timedelta(seconds=offset_s))) == "signature_stale"


def test_another_header_is_not_looked_at() -> None:
    raw = letter()
    headers: Mapping[str, str] = {"paythread-simulator-signature": sign(SECRET, raw, at=NOW)}
    with pytest.raises(SignatureInvalid):
        make().receive(WebhookRequest(method="POST", public_url=URL, headers=headers, body=raw, now=NOW))


# ------------------------------------------------------------------------------------------------------------- copies
async def test_copies_are_in_the_envelope_and_the_header(server: MailServer) -> None:
    result = await make(server.port).send(outbound(cc=["tom@x.test", "ann@bücher.test"]))
    assert result.refused_cc == ()
    letter = server.letters[0]
    assert letter.recipients == [TO, "tom@x.test", "ann@xn--bcher-kva.test"]
    assert (letter.message["To"], letter.message["Cc"]) == (TO, "tom@x.test, ann@xn--bcher-kva.test")
    assert letter.message["Bcc"] is None


async def test_a_copy_that_the_server_refuses_is_named_and_the_others_get_the_letter(server: MailServer) -> None:
    server.refusals = {"tom@x.test": "550 5.1.1 no such user", "ann@x.test": "450 4.2.0 greylisted"}
    result = await make(server.port).send(outbound(cc=["tom@x.test", "jörg@x.test", "ann@x.test", "eve@x.test"]))
    assert sorted(result.refused_cc) == ["ann@x.test", "jörg@x.test", "tom@x.test"]
    assert [letter.recipients for letter in server.letters] == [[TO, "eve@x.test"]]
    server.refusals = {TO: "550 5.1.1 no such user"}
    with pytest.raises(IntegrationError, match="recipient_refused"):
        await make(server.port).send(outbound(cc=["eve@x.test"]))
    assert len(server.letters) == 1


async def test_reports_and_answers_name_the_recipient_that_they_are_about(server: MailServer) -> None:
    channel = make(server.port)
    await channel.send(outbound(cc=["tom@x.test"]))
    original = server.letters[0].message
    received = channel.receive(request(report(original, "delivered", others={"Tom@x.test": "failed"})))
    assert [(one.address, one.status) for one in received.statuses] == [
        (TO, DeliveryStatus.DELIVERED),
        ("tom@x.test", DeliveryStatus.FAILED),
    ]
    words = (
        "From: Mail Delivery System <mailer-daemon@x.test>\r\nTo: pay@acme.test\r\nSubject: Mail delivery failed\r\n"
        "X-Failed-Recipients: tom@x.test\r\nAuto-Submitted: auto-replied\r\n\r\n  550 No such user\r\n\r\n"
        f"------ This is a copy of your message ------\r\nMessage-ID: {original['Message-ID']}\r\n"
    )
    (status,) = channel.receive(request(words.encode())).statuses
    assert (status.address, status.status) == ("tom@x.test", DeliveryStatus.FAILED)
