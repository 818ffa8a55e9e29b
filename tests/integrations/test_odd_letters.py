"""Unusual email of mail programs, phones and servers."""

from __future__ import annotations

import base64
import struct

import pytest

from tests.integrations.test_inbound_mail import files, part, raw, read

GIF = part("GIF89a", "image/gif; name=p.gif", "Content-ID: <1>")
PDF = part("%PDF-1", "application/pdf", "Content-Disposition: inline; filename=q.pdf")


def nested(*parts: bytes, kind: str = "mixed", boundary: str = "b") -> bytes:
    body = b"".join(f"--{boundary}\r\n".encode() + one + b"\r\n" for one in parts)
    return (
        f'Content-Type: multipart/{kind}; boundary="{boundary}"\r\n\r\n'.encode()
        + body
        + f"--{boundary}--\r\n".encode()
    )


def whole(content: bytes) -> bytes:
    return b"From: Maria <maria@example.com>\r\nTo: pay@acme.test\r\nSubject: x\r\n" + content


def encoded(content: bytes, encoding: str) -> bytes:
    head = f"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return head.encode() + content


HELLO = base64.encodebytes("Grüße".encode())
MESSAGE = "From: tom@example.org\r\nSubject: Offer\r\n\r\nWe offer 100."

PARTS: dict[str, tuple[bytes, str, list[tuple[str, bytes]]]] = {
    "Apple Mail: files within a form of the words": (
        nested(
            part("Here it is."),
            nested(part("<p>Here</p>", "text/html"), PDF, part("<p>it is.</p>", "text/html"), boundary="c"),
            kind="alternative",
        ),
        "Here it is.",
        [("q.pdf", b"%PDF-1")],
    ),
    "a picture within a form of the words": (
        nested(
            part("See."),
            nested(part("<p>See. <img src='cid:1'></p>", "text/html"), GIF, kind="related", boundary="c"),
            kind="alternative",
        ),
        "See.",
        [("p.gif", b"GIF89a")],
    ),
    "the richer form says more": (
        nested(part("Hello,"), part("<p>Hello,</p><p>I have 500.</p>", "text/html"), kind="alternative"),
        "Hello,\n\nI have 500.",
        [],
    ),
    "the last of two plain forms": (nested(part("old"), part("other words"), kind="alternative"), "other words", []),
    "only forms that are no words": (
        nested(part("<bold>Hi</bold>", "text/enriched"), kind="alternative"),
        "",
        [("", b"<bold>Hi</bold>")],
    ),
    "a telephone's gateway names the words": (
        nested(part("Come at nine", "text/plain; name=text_0.txt"), GIF),
        "Come at nine",
        [("p.gif", b"GIF89a")],
    ),
    "a boundary that never comes": (
        b"Content-Type: multipart/mixed; boundary=z\r\n\r\nCome at nine",
        "Come at nine",
        [],
    ),
    "no boundary": (b"Content-Type: multipart/mixed\r\n\r\nCome at nine", "Come at nine", []),
    "a blank behind the encoding": (encoded(HELLO, "BASE64 "), "Grüße", []),
    "a comment behind the encoding": (encoded(HELLO, "base64 (as it is)"), "Grüße", []),
    "a semicolon behind the encoding": (encoded(b"Gr=C3=BC=C3=9Fe", '"quoted-printable";'), "Grüße", []),
    "base64 that is cut off": (encoded(base64.b64encode(b"Hello there")[:-3], "base64"), "Hello the", []),
    "base64 in two pieces": (
        encoded(base64.b64encode(b"Hello") + b"\r\n" + base64.b64encode(b" there"), "base64"),
        "Hello there",
        [],
    ),
    "words that are called base64": (encoded(b"I come on Tuesday.", "base64"), "I come on Tuesday.", []),
    "an attached letter in base64": (
        nested(
            part("See."),
            part(base64.encodebytes(MESSAGE.encode()).decode(), "message/rfc822", "Content-Transfer-Encoding: base64"),
        ),
        "See.",
        [("message.eml", MESSAGE.encode())],
    ),
    "a line that a mailbox file has escaped": (b"\r\n>From the house\r\nI write.", ">From the house\nI write.", []),
    "a picture in the markup": (
        part(f'<p>Look <img src="data:image/png;base64,{base64.b64encode(b"x" * 90).decode()}"> here</p>', "text/html"),
        "Look here",
        [("picture.png", b"x" * 90)],
    ),
}


@pytest.mark.parametrize("shape", PARTS)
def test_every_part_is_words_or_a_file(shape: str) -> None:
    content, text, expected = PARTS[shape]
    mail = read(whole(content))
    assert (mail.text, files(mail)) == (text, expected)


@pytest.mark.parametrize("before", [b"\xef\xbb\xbf", b"\r\n\r\n"])
def test_what_stands_before_the_headers_refuses_nothing(before: bytes) -> None:
    assert read(before + whole(b"\r\nHello")).text == "Hello"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ('Content-Disposition: attachment; filename="Größe.pdf"'.encode(), "Größe.pdf"),
        ('Content-Disposition: attachment; filename="Größe.pdf"'.encode("latin-1"), "Größe.pdf"),
        (b"Content-Disposition: attachment; filename=x.pdf; filename*=UTF-8''Gr%C3%B6%C3%9Fe.pdf", "Größe.pdf"),
        (b"Content-Disposition: attachment; filename*0*=UTF-8''Gr%C3%B6; filename*1*=%C3%9Fe.pdf", "Größe.pdf"),
        (b"Content-Disposition: attachment; filename*=gb2312''%B7%A2%C6%B1.pdf", "发票.pdf"),
        (b"Content-Disposition: attachment; filename*=x-unknown''Gr%C3%B6%C3%9Fe.pdf", "Größe.pdf"),
        (b'Content-Disposition: attachment; filename="=?ISO-2022-JP?B?GyRCQEE1YT1xGyhC?=.pdf"', "請求書.pdf"),
    ],
)
def test_the_name_of_a_file_is_decoded(header: bytes, name: str) -> None:
    assert files(read(whole(nested(b"Content-Type: application/pdf\r\n" + header + b"\r\n\r\n%PDF-1")))) == [
        (name, b"%PDF-1")
    ]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<noscript>words</noscript>", "words"),
        ("<svg><text>Come at nine</text></svg>", "Come at nine"),
        ("<object data=x>words</object>", "words"),
        ('<p style="mso-hide:all">words</p>', "words"),
        ('<p>ok <img alt="👍" src="https://x.example/e.png"></p>', "ok 👍"),
        ('<p>ok <img alt="Logo" src="https://x.example/e.png"></p>', "ok"),
        ('<img alt="Yes, on Monday" src="cid:1">', "Yes, on Monday"),
        ('<a href="www.photos.example/7">here</a>', "here <www.photos.example/7>"),
        ('<a href="sms:+14155550101">write</a>', "write <+14155550101>"),
        ('<a href="geo:52.5,13.4">my house</a>', "my house <geo:52.5,13.4>"),
        ('<a href="x-apple-data-detectors://2">Monday</a>', "Monday"),
        (
            "<p>Write to <maria@example.com>, see <https://x.example/7></p>",
            "Write to <maria@example.com>, see <https://x.example/7>",
        ),
        ("<dl><dt>Term<dd>Meaning</dl><details><summary>More</summary>inside</details>", "Term\nMeaning\nMore\ninside"),
        ('<form>Name <input value="Maria & Tom"><input type=hidden value=no></form>', "Name Maria & Tom"),
        ("<style>" + "a{}" * 800_000 + "</style><p>call</p>", "call"),
    ],
)
def test_html_gives_the_words_that_a_mail_program_shows(source: str, text: str) -> None:
    mail = read(raw(body=source.encode(), kind="text/html; charset=utf-8"))
    assert (mail.text, mail.attachments) == (text, [])


@pytest.mark.parametrize(
    ("label", "content", "text"),
    [
        ("iso-2022-jp", b"\x1b$B-!-j|b\x1b(B \x1b(I1\x1b(B", "①㈱髙 ｱ"),
        (None, "日本語".encode("iso2022_jp"), "日本語"),
        ("us-ascii", "日本語".encode("iso2022_jp"), "日本語"),
        ("cp50220", "日本語".encode("iso2022_jp"), "日本語"),
        ("iso-2022-jp-ms", "日本語".encode("iso2022_jp"), "日本語"),
        ("euc-jp", b"\xad\xa1\xfc\xe2\x8e\xb1", "①髙ｱ"),
        ("hz-gb-2312", "你好".encode("hz"), "你好"),
        ("euc_kr", "안녕".encode("euc-kr"), "안녕"),
        ("uhc", "똠".encode("cp949"), "똠"),
        ("win-1251", "Привет".encode("cp1251"), "Привет"),
        ("windows1251", "Привет".encode("cp1251"), "Привет"),
        ("latin-9", "5 €".encode("iso-8859-15"), "5 €"),
        ("iso8859_15", "5 €".encode("iso-8859-15"), "5 €"),
        ("cp862", "שלום".encode("cp862"), "שלום"),
        ("x-mac-ce", "Příliš".encode("mac_latin2"), "Příliš"),
        ("utf-8;", "Grüße".encode(), "Grüße"),
        ("utf-16", b"Hello", "Hello"),
        ("utf-16", "Hello".encode("utf-16-be"), "Hello"),
        ("utf-8", b"Price 5 \x80", "Price 5 €"),
        (None, b"Me llamo Jos\xe9", "Me llamo José"),
    ],
)
def test_a_charset_is_read_however_it_is_called(label: str | None, content: bytes, text: str) -> None:
    kind = "text/plain" if label is None else f'text/plain; charset="{label}"'
    assert read(raw("Content-Transfer-Encoding: base64", body=base64.encodebytes(content), kind=kind)).text == text


def test_a_page_that_names_its_charset_itself_is_read() -> None:
    source = (
        '<html><head><meta http-equiv="Content-Type" content="text/html; charset=windows-1251"></head>Привет</html>'
    )
    assert read(raw(body=source.encode("cp1251"), kind="text/html")).text == "Привет"
    assert read(raw(body=source.encode(), kind="text/html; charset=utf-8")).text == "Привет"


@pytest.mark.parametrize(
    ("header", "label", "subject"),
    [
        (b"=?utf-8?Q?Kommen_Sie??=", "utf-8", "Kommen Sie?"),
        (b"=?utf-8?Q?Gr=C3=BC=C3=9Fe aus Ulm?=", "utf-8", "Grüße aus Ulm"),
        (b"=?utf-8?B?R3LDvMOf\r\n ZQ==?=", "utf-8", "Grüße"),
        (b"=?utf-8?Q?Gr=C3=BC?==?utf-8?Q?=C3=9Fe?=", "utf-8", "Grüße"),
        ("Привет".encode("cp1251"), "windows-1251", "Привет"),
        ("发票".encode("gbk"), "gb2312", "发票"),
        ("日本".encode("iso2022_jp"), "iso-2022-jp", "日本"),
        ("Grüße".encode(), "windows-1251", "Grüße"),
    ],
)
def test_a_subject_is_read_as_programs_write_it(header: bytes, label: str, subject: str) -> None:
    content = raw("Subject: @@", kind=f"text/plain; charset={label}").replace(b"@@", header)
    assert read(content).subject == subject


def test_ids_without_brackets_are_references() -> None:
    assert read(raw("In-Reply-To: 1.a@x.test", "References: 0.a@x.test")).references == ("<1.a@x.test>", "<0.a@x.test>")


def attribute(level: int, kind: int, form: int, data: bytes) -> bytes:
    return bytes([level]) + struct.pack("<HHL", kind, form, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


WINMAIL = b"\x78\x9f\x3e\x22\x01\x00" + b"".join(
    attribute(*one)
    for one in (
        (1, 0x9006, 0x0008, struct.pack("<L", 0x10000)),
        (1, 0x9007, 0x0006, struct.pack("<LL", 1252, 0)),
        (1, 0x800C, 0x0002, b"Come at nine.\x00"),
        (2, 0x9002, 0x0006, b"\x01\x00\xff\xff\xff\xff" + bytes(8)),
        (2, 0x8010, 0x0001, b"rooms.txt\x00"),
        (2, 0x800F, 0x0006, b"kitchen, bath"),
    )
)


def winmail(content: bytes) -> bytes:
    kind = "Content-Type: application/ms-tnef; name=winmail.dat\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return whole(nested(part("See."), kind.encode() + base64.encodebytes(content)))


def test_what_outlook_packed_is_unpacked_and_a_damaged_pack_is_a_file() -> None:
    mail = read(winmail(WINMAIL))
    assert (mail.text, files(mail)) == (
        "See.\n\nCome at nine.",
        [("rooms.txt", b"kitchen, bath"), ("winmail.dat", WINMAIL)],
    )
    for n in range(4, len(WINMAIL)):
        for damaged in (WINMAIL[:n], WINMAIL[:n] + bytes([WINMAIL[n] ^ 0x55]) + WINMAIL[n + 1 :]):
            assert files(read(winmail(damaged)))[-1] == ("winmail.dat", damaged)


def property_list(count: int, *properties: bytes) -> bytes:
    return struct.pack("<L", count) + b"".join(properties)


BODY = struct.pack("<HHLL", 0x1E, 0x1000, 1, 8) + b"At ten.\x00"
SIZE = struct.pack("<HHL", 0x03, 0x0E08, 7)


def test_the_properties_of_a_pack_are_read() -> None:
    listed = attribute(1, 0x9003, 0x0006, property_list(2, SIZE, BODY))
    assert (
        read(winmail(WINMAIL[:6] + attribute(1, 0x9007, 0x0006, struct.pack("<LL", 1252, 0)) + listed)).text
        == "See.\n\nAt ten."
    )


@pytest.mark.parametrize(
    "hostile",
    [
        attribute(1, 0x9004, 0x0006, struct.pack("<L", 0xFFFFFFFF)),  # as many recipients
        attribute(1, 0x9003, 0x0006, property_list(0xFFFFFFFF, SIZE)),
        attribute(
            1, 0x9003, 0x0006, property_list(1, struct.pack("<HHL", 0x1002, 0x1000, 0xFFFFFFFF))
        ),  # as many values
        attribute(1, 0x8005, 0x0006, b"") * 100_000,
    ],
)
def test_counts_in_a_pack_cost_no_work(hostile: bytes) -> None:
    assert files(read(winmail(WINMAIL + hostile)))[-1] == ("winmail.dat", WINMAIL + hostile)


FORM = "From: Acme Site <info@acme-site.test>"


@pytest.mark.parametrize(
    ("headers", "writer"),
    [
        (("From: Maria <<maria@example.com>>",), ("Maria", "maria@example.com")),
        (("From: Mill Lane: Maria <maria@example.com>",), ("Mill Lane: Maria", "maria@example.com")),
        (("From: Mill Lane: Maria <maria@example.com>;",), ("Maria", "maria@example.com")),
        (("From: Maria [mailto:maria@example.com]",), ("Maria", "maria@example.com")),
        (("From: Maria <SMTP:maria@example.com>",), ("Maria", "maria@example.com")),
        (("From: Maria <maria@example.com",), ("Maria", "maria@example.com")),
        (("From: Maria <maria@example.com.>",), ("Maria", "maria@example.com")),
        (("From: <@relay.test:maria@example.com>",), (None, "maria@example.com")),
        (("From: <maria@[192.0.2.1]>",), (None, "maria@[192.0.2.1]")),
        (
            ("From: Forms <forms-receipts-noreply@google.test>", "Reply-To: maria@example.com"),
            ("Forms", "maria@example.com"),
        ),
        (("From: Forms <no-reply-forms@webflow.test>", "Reply-To: maria@example.com"), ("Forms", "maria@example.com")),
        (("From: Forms <keine-antwort@x.test>", "Reply-To: maria@example.com"), ("Forms", "maria@example.com")),
        (
            ("From: Maria via Tenants <t@lists.test>", "Reply-To: Tenants <t@lists.test>, maria@example.com"),
            ("Maria", "maria@example.com"),
        ),
        (("From: Maria über Mieter <t@lists.test>", "Reply-To: maria@example.com"), ("Maria", "maria@example.com")),
        ((FORM, "Reply-To: M <maria@example.com>", "X-Mailer: PHPMailer 6.9.1"), ("M", "maria@example.com")),
        (
            (FORM, "Reply-To: M <maria@example.com>", "X-PHP-Originating-Script: 33:mail.php"),
            ("M", "maria@example.com"),
        ),
        (
            (FORM, "Reply-To: M <maria@example.com>", "X-PHP-Originating-Script: 0:rcube.php"),
            ("Acme Site", "info@acme-site.test"),
        ),
        (("From: Form <pay+form@acme.test>", "Reply-To: M <maria@example.com>"), ("M", "maria@example.com")),
        (("From: N <nora.reply@example.com>", "Reply-To: other@example.com"), ("N", "nora.reply@example.com")),
    ],
)
def test_the_writer_is_found_in_odd_headers(headers: tuple[str, ...], writer: tuple[str | None, str]) -> None:
    mail = read(raw(*headers))
    assert (mail.sender_name, mail.sender) == writer
