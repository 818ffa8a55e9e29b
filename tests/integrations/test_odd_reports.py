"""Bounces and automatic replies of real servers, and people with addresses like a server's."""

from __future__ import annotations

import pytest

from tests.integrations.test_smtp_email import make, take

TOKEN = make().message_id_of("msg_1")
COPY = f"Message-ID: {TOKEN}"
ANSWER = f"In-Reply-To: {TOKEN}"


def statuses_and_count(*headers: str, body: str = "") -> tuple[list[tuple[str, str | None]], int]:
    lines = "\r\n".join([*headers, "To: pay@acme.test", "", body.replace("\n", "\r\n")])
    got = take(lines.encode())
    return [(status.status.value, status.error_code) for status in got.statuses], len(got.messages)


def report(*lines: str, copy: bool = True) -> str:
    fields = "\n".join(["Final-Recipient: rfc822; dana@x.test", *lines])
    part = "--r\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx\n\n" + fields + "\n"
    return part + (f"--r\nContent-Type: text/rfc822-headers\n\n{COPY}\n" if copy else "") + "--r--\n"


REPORT = "Content-Type: multipart/report; report-type=delivery-status; boundary=r"


@pytest.mark.parametrize(
    "sender", ["MAILER-DAEMON", "<>", "Mail Delivery System <>", "MicrosoftExchange329e71ec88ae4615@acme.test"]
)
def test_a_report_needs_no_sender(sender: str) -> None:
    body = report("Action: failed", "Status: 5.1.1")
    assert statuses_and_count(f"From: {sender}", REPORT, body=body) == ([("FAILED", "5.1.1")], 0)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (("Action: Failed (user unknown)", "Status: 5.1.1 (no such user)"), ("FAILED", "5.1.1")),
        (("Status: 5.1.1",), ("FAILED", "5.1.1")),
        (("Status: 4.4.1",), ("SENT", None)),
    ],
)
def test_a_report_is_read_however_its_fields_are_filled(lines: tuple[str, ...], status: tuple[str, str | None]) -> None:
    assert statuses_and_count("From: MAILER-DAEMON@x.test", REPORT, body=report(*lines)) == ([status], 0)


EXCHANGE = "From: Microsoft Outlook <MicrosoftExchange329e71ec88ae4615bbc36ab6ce41109e@x.test>"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (
            ("From: MAILER-DAEMON@yahoo.test",),
            f"<dana@x.test>:\n554: delivery error: no account\n\n{COPY}",
            ("FAILED", "5.0.0"),
        ),
        (
            ("From: Gmail <mailer-daemon@googlemail.test>", ANSWER),
            "The response was:\n550 5.1.1 unknown",
            ("FAILED", "5.1.1"),
        ),
        (("From: PostMaster@qq.test", ANSWER, "Return-Path: <>"), "收件人邮箱不存在 550", ("FAILED", "5.0.0")),
        (
            ("From: Postmaster@163.test", ANSWER, "Auto-Submitted: auto-generated"),
            "系统退信 550 User",
            ("FAILED", "5.0.0"),
        ),
        ((EXCHANGE,), f"Remote server returned '550 5.1.10 NotFound'\n{COPY}", ("FAILED", "5.1.10")),
        (("From: postmaster@x.test",), f"The account does not exist. <mx.x.test #5.1.1>\n{COPY}", ("FAILED", "5.1.1")),
        (
            ("From: MAILER-DAEMON@mx.test",),
            f"THIS IS A WARNING ONLY. Not delivered for more than 4 hours.\n{COPY}",
            ("SENT", None),
        ),
    ],
)
def test_a_bounce_in_words_is_one(headers: tuple[str, ...], body: str, status: tuple[str, str | None]) -> None:
    assert statuses_and_count(*headers, body=body) == ([status], 0)


@pytest.mark.parametrize(
    "sender", ["Bounce House Rentals <jim@bouncehouse.test>", "Tom <postmaster@small.test>", "Tom <bounce@small.test>"]
)
def test_a_person_with_an_address_like_a_servers_is_a_person(sender: str) -> None:
    body = "I will pay 550 euros.\n\nOn Fri, Nov 27, 2026, Acme <pay@acme.test> wrote:\n> Pay"
    assert statuses_and_count(f"From: {sender}", ANSWER, body=body) == ([("READ", None)], 1)
    assert statuses_and_count(f"From: {sender}", body="Do you clean <b>ovens</b>?") == ([], 1)


@pytest.mark.parametrize(
    "header",
    [
        "X-MS-Exchange-Generated-Message-Source: Mailbox Rules Agent",
        "X-Autoresponder: yes",
        "Delivered-To: Autoresponder",
        "List-Post: <mailto:tenants@lists.test>",
        "Mailing-List: list tenants@lists.test",
        "Subject: Automatisch antwoord: x",
        "Subject: 自动答复: x",
        "Subject: 부재중: x",
        "Subject: Αυτόματη απάντηση: x",
        "Subject: Re: Out of office",
    ],
)
def test_a_program_has_received_and_not_read(header: str) -> None:
    assert statuses_and_count("From: Dana <dana@x.test>", ANSWER, header, body="I am away.") == (
        [("DELIVERED", None)],
        1,
    )


@pytest.mark.parametrize("header", ["Feedback-ID: 12345:user:proton", "Precedence: normal", "Auto-Submitted: no"])
def test_a_person_of_any_mail_service_has_read(header: str) -> None:
    assert statuses_and_count("From: Dana <dana@x.test>", ANSWER, header, body="Thank you.") == ([("READ", None)], 1)
