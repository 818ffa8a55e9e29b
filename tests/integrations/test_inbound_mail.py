"""Email as people, mail programs and mail servers write it."""

from __future__ import annotations

import base64
from email import policy
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from integrations import inbound_mail
from integrations.inbound_mail import Mail

OURS = "pay@acme.test"
HERS = "maria@example.com"
WIRE = policy.SMTP.clone(cte_type="8bit")


def raw(*headers: str, body: bytes = b"Hello", kind: str = "text/plain; charset=utf-8") -> bytes:
    named = {line.partition(":")[0].lower() for line in headers}
    defaults = (
        "From: Maria Lopez <maria@example.com>",
        "To: pay@acme.test",
        "Subject: A question",
        "Message-ID: <1@x.test>",
        f"Content-Type: {kind}",
    )
    lines = [*headers, *(line for line in defaults if line.partition(":")[0].lower() not in named)]
    return b"".join(line.encode() + b"\r\n" for line in lines) + b"\r\n" + body


def read(content: bytes) -> Mail:
    return inbound_mail.read(content, own={OURS})


def reply(text: str, subject: str = "Re: Acme Cleaning: Deep clean") -> Mail:
    return read(raw(f"Subject: {subject}", body=text.encode()))


def page(source: str) -> Mail:
    return read(raw(body=source.encode(), kind="text/html; charset=utf-8"))


# ------------------------------------------------------------------------------------------------------------- quotes
INTRODUCTIONS = [
    "On Fri, Nov 27, 2026 at 10:00 AM Acme Cleaning <pay@acme.test> wrote:",
    "On Fri, Nov 27, 2026 at 10:00 AM Acme Cleaning and Partners of Mill Lane <\npay@acme.test> wrote:",
    "Am Fr., 27. Nov. 2026 um 10:00 Uhr schrieb Acme Cleaning <pay@acme.test>:",
    "Am 27.11.26 um 10:00 schrieb Acme Cleaning:",
    "Le ven. 27 nov. 2026 à 10:00, Acme Cleaning <pay@acme.test> a\nécrit :",
    "El vie, 27 nov 2026 a las 10:00, Acme Cleaning (<pay@acme.test>) escribió:",
    "Il giorno ven 27 nov 2026 alle ore 10:00 Acme Cleaning <pay@acme.test> ha\nscritto:",
    "Em sex., 27 de nov. de 2026 às 10:00, Acme Cleaning <pay@acme.test>\nescreveu:",
    "Op vr 27 nov 2026 om 10:00 schreef Acme Cleaning <pay@acme.test>:",
    "Den fre 27 nov. 2026 kl 10:00 skrev Acme Cleaning <\npay@acme.test>:",
    "pe 27. marrask. 2026 klo 10.00 Acme Cleaning (pay@acme.test) kirjoitti:",
    "pt., 27 lis 2026 o 10:00 Acme Cleaning <pay@acme.test> napisał(a):",
    "pá 27. 11. 2026 v 10:00 odesílatel Acme Cleaning <pay@acme.test> napsal:",
    "пт, 27 нояб. 2026 г. в 10:00, Acme Cleaning <pay@acme.test>:",
    "Στις Παρ 27 Νοε 2026 στις 10:00 π.μ., ο χρήστης Acme <pay@acme.test> έγραψε:",
    "Acme Cleaning <pay@acme.test>, 27 Kas 2026 Cum, 10:00 tarihinde şunu yazdı:",
    "2026年11月27日(金) 10:00 Acme Cleaning <pay@acme.test>:",
    "Acme Cleaning <pay@acme.test> 于2026年11月27日周五 10:00写道：",
    "2026년 11월 27일 (금) 오전 10:00, Acme Cleaning <pay@acme.test>님이 작성:",
    "בתאריך יום ו׳, 27 בנוב׳ 2026 ב-10:00 מאת Acme <\u202apay@acme.test\u202c>:\u200f",
    "في الجمعة، 27 نوفمبر 2026 في 10:00 ص تمت كتابة ما يلي بواسطة Acme <pay@acme.test>:",
    "Quoting Acme Cleaning <pay@acme.test>:",
]


@pytest.mark.parametrize("introduction", INTRODUCTIONS)
def test_a_quote_below_the_words_is_folded_with_the_line_that_introduces_it(introduction: str) -> None:
    mail = reply(f"Thank you.\n\n{introduction}\n\n> Which day?\n>\n> Acme\n")
    assert (mail.text, mail.own) == ("Thank you.", "Thank you.")
    assert mail.quoted is not None
    assert mail.quoted.split() == f"{introduction}\n> Which day?\n>\n> Acme".split()


HEADER_BLOCKS = [
    "From: Acme Cleaning <pay@acme.test>\nSent: Friday, November 27, 2026 10:00 AM\nTo: Maria <maria@example.com>\n"
    "Subject: Acme Cleaning: Deep clean",
    "-----Original Message-----\nFrom: Acme\nSent: Friday",
    "________________________________\nVon: Acme Cleaning <pay@acme.test>\nGesendet: Freitag, 27. November 2026 10:00\n"
    "An: Maria\nBetreff: Acme Cleaning: Deep clean",
    "De : Acme Cleaning\nEnvoyé : vendredi 27 novembre 2026 10:00\nÀ : Maria\nObjet : Acme Cleaning: Deep clean",
    "*From:* Acme <pay@acme.test>\n*Sent:* 27 November 2026 10:00\n*To:* Maria\n*Subject:* Acme Cleaning: Deep clean",
    "差出人: Acme <pay@acme.test>\n送信日時: 2026年11月27日 10:00\n宛先: Maria\n件名: Acme Cleaning: Deep clean",
    "-------- Ursprüngliche Nachricht --------\nVon: Acme <pay@acme.test>\nDatum: 27.11.26 10:00 (GMT+01:00)\n"
    "An: maria@example.com\nBetreff: Acme Cleaning: Deep clean",
]


@pytest.mark.parametrize("block", HEADER_BLOCKS)
def test_an_unmarked_original_below_its_headers_is_folded(block: str) -> None:
    mail = reply(f"I will pay today.\n\n{block}\n\nWhich day?\n\nAcme")
    assert mail.text == "I will pay today."
    assert mail.quoted is not None
    assert mail.quoted.endswith("Which day?\n\nAcme")


WHOLE = {
    "answers between quoted lines": (
        "Re: x",
        "Hello,\n\nOn Fri, Nov 27, 2026, Acme <pay@acme.test> wrote:\n> Which day?\n\nTuesday.\n\n> A dog?\n\nNo.",
    ),
    "an answer between the words and a quote": ("Re: x", "First:\n> a\nyes\n\n> b\nno"),
    "the writer's own sentence": ("Re: x", "Hello,\n\nOn your web site you wrote:\nDeep clean 95.\n\nWhy 120?"),
    "a list": ("Re: x", "Name: Maria\nPhone: 123\nEmail: maria@example.com\nMessage: come on 1.12.2026"),
    "an address": ("Re: x", "I moved.\nStreet: Mill Lane 12\nCity: Berlin\nCode: 10115\nThanks, Maria"),
    "a forward of Outlook's": (
        "FW: Flood",
        "Please handle.\n\n-----Original Message-----\nFrom: Tom <tom@example.org>\nSent: Friday 27.11.2026\nTo: Maria\n"
        "Subject: Flood\n\nFlat 7 is under water.",
    ),
    "a forward without a word in its subject": (
        "Flood",
        "Please see.\n\n---------- Forwarded message ---------\nFrom: Tom <tom@example.org>\nDate: Fri, Nov 27, 2026\n"
        "Subject: Flood\nTo: <maria@example.com>\n\nUnder water.",
    ),
    "a forward of our own letter": (
        "WG: Acme",
        "Stimmt das?\n\nVon: Acme <pay@acme.test>\nGesendet: 27.11.2026\nAn: Maria\nBetreff: Acme\n\n120 Euro",
    ),
    "a letter of somebody else's, quoted": (
        "Re: Acme",
        "See.\n\nFrom: Tom <tom@example.org>\nSent: 27.11.2026 9:00\nTo: Maria <maria@example.com>\nSubject: Flood\n\nWet.",
    ),
    "a letter of somebody else's to us": (
        "Re: Acme",
        "See.\n\nFrom: Tom <tom@example.org>\nSent: 27.11.2026 9:00\nTo: Acme <pay@acme.test>; maria@example.com\nSubject: Flood\n\nWet.",
    ),
    "a marked forward of Apple Mail's": (
        "Re: x",
        "fyi\n\n> Begin forwarded message:\n> \n> From: Tom <tom@example.org>\n> Subject: Flood\n> \n> Wet",
    ),
    "a marked forward in French": (
        "x",
        "fyi\n\n> Début du message réexpédié :\n> \n> De: Tom <tom@example.org>\n> \n> Wet",
    ),
    "what we have promised": ("Re: x", "This is what you promised:\n> 95 euros"),
    "a mark at the beginning": ("Re: x", "> 100 m2: 120 euros\n< 100 m2: 95 euros\nWhich one am I?"),
    "titles between lines": (
        "Re: x",
        "Rooms:\n--- ground floor ---\nkitchen (ask pay@acme.test)\n--- first floor ---\nbath",
    ),
    "a bill": ("Re: x", "Please correct:\n\nBill to: Acme\nEmail: pay@acme.test\nAmount: 120 EUR\n\nIt should be 95."),
    "only a quote": ("Re: x", "> Which day?"),
    "a colon and a time": ("Re: x", "Come at 10:30:\nthe key is under the mat"),
    "a mark of somebody's own": ("Re: x", "Prices\n> 100 are too high for me\nSorry"),
}


def test_a_line_right_above_an_introduction_stays() -> None:
    words = "I will pay on Friday, as we said on the telephone on Monday morning."
    assert reply(f"{words}\nOn Fri, Nov 27, 2026 Acme <pay@acme.test> wrote:\n\nWhich day?").text == words


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_not_surely_a_quote_stays(name: str) -> None:
    subject, text = WHOLE[name]
    mail = reply(text, subject)
    assert (mail.text, mail.quoted) == (text, None)


def test_an_answer_below_the_quote_is_what_is_shown() -> None:
    mail = reply("On 27.11.26 10:00, Acme Cleaning wrote:\n> Which day?\n\nTuesday at nine.")
    assert (mail.text, mail.quoted) == ("Tuesday at nine.", "On 27.11.26 10:00, Acme Cleaning wrote:\n> Which day?")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            '<div dir="ltr">Yes.</div><br><div class="gmail_quote"><div dir="ltr" class="gmail_attr">On Fri, Nov 27, 2026 at'
            ' 10:00 AM Acme &lt;<a href="mailto:pay@acme.test">pay@acme.test</a>&gt; wrote:<br></div><blockquote'
            ' class="gmail_quote" style="margin:0 0 0 .8ex;border-left:1px solid">Which day?</blockquote></div>',
            "Yes.",
        ),
        (
            '<p>Yes.</p><hr><div id="divRplyFwdMsg"><b>From:</b> Acme &lt;pay@acme.test&gt;<br><b>Sent:</b> Friday, November'
            " 27, 2026 10:00 AM<br><b>To:</b> Maria<br><b>Subject:</b> Deep clean</div><div>Which day?</div>",
            "Yes.",
        ),
        (
            '<div>Yes.</div><div name="quote" style="border-left:2px solid #C3D9E5"><div><b>Gesendet:</b> 27.11.2026<br>'
            "<b>Von:</b> pay@acme.test<br><b>Betreff:</b> Deep clean</div>Which day?</div>",
            "Yes.",
        ),
        (
            '<div class="moz-cite-prefix">On 27.11.26 10:00, Acme wrote:<br></div><blockquote type="cite">Which day?'
            "</blockquote><p>Tuesday.</p>",
            "Tuesday.",
        ),
        (
            '<p>Mine:</p><blockquote style="margin:0 0 0 40px;border:none">indented</blockquote><p>end</p>',
            "Mine:\n\nindented\n\nend",
        ),
        ("<div>-------- Forwarded message ---------<br>From: Tom<br><br>The kitchen is under water.</div>", None),
    ],
)
def test_quotes_in_html_are_told_from_own_words(source: str, text: str | None) -> None:
    mail = page(source)
    if text is None:
        assert "under water" in mail.text
        assert mail.quoted is None
    else:
        assert mail.text == text


# --------------------------------------------------------------------------------------------------------- HTML's words
@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "<table><tr><td>Invoice</td><td>4711</td></tr><tr><td>Sum</td><td>120</td></tr></table>",
            "Invoice 4711\nSum 120",
        ),
        ("<p>My budget is < 100 dollars, and > 50.</p>", "My budget is < 100 dollars, and > 50."),
        ('See <a href="https://photos.example/7">here</a>.', "See here <https://photos.example/7>."),
        ('<a href="https://x.example/">https://x.example</a> <a href="tel:+1415">+1415</a>', "https://x.example +1415"),
        ('<a href="javascript:alert(1)">words</a>', "words"),
        ("<!-- a > b note --><!--[if mso]>OLD<![endif]--><p>Come at nine.</p>", "Come at nine."),
        ("<pre>a\n  b</pre>", "a\n  b"),
        ("<ul><li>kitchen</li><li>bath</li></ul>", "  * kitchen\n  * bath"),
        ('<p>yes</p><p style="display:none">hidden</p><p hidden>no</p>', "yes"),
        ("<script>if (a < b) {}</script><style>p{}</style><title>t</title>words", "words"),
        ("<style>" + "p{color:red}" * 20_000 + "</style><p>call me</p>", "call me"),
        ("&lt;b&gt; &amp;amp; &#8364;&nbsp;5", "<b> &amp; € 5"),
        ("<div>" * 3000 + "deep" + "</div>" * 3000, "deep"),
        ("a<br><br><br><br>b", "a\n\nb"),
    ],
)
def test_html_gives_the_words_that_are_shown(source: str, text: str) -> None:
    assert page(source).text.strip("\n") == text.strip("\n")


@pytest.mark.parametrize(
    "source",
    [
        "<!--" * 200_000,
        "<b " * 200_000,
        "<ul>" * 200 + "<li>a" * 20_000,
        "<td>" * 100_000,
        "<a href=http://x>a" * 50_000,
    ],
)
def test_hostile_html_is_read_in_bounds(source: str) -> None:
    assert len(page(source).text) <= 50_000


# ------------------------------------------------------------------------------------------------------ character sets
@pytest.mark.parametrize(
    ("charset", "content", "text"),
    [
        ("iso-8859-1", b"It\x92s \x80 120 \x96 thanks", "It’s € 120 – thanks"),
        ("us-ascii", b"Gr\xfc\xdfe", "Grüße"),
        ("us-ascii", "Grüße".encode(), "Grüße"),
        ("iso-8859-1", "Grüße".encode(), "Grüße"),
        ("utf-8", b"Gr\xfc\xdfe aus K\xf6ln", "Grüße aus Köln"),
        ("utf-8", "Zwölf Boxkämpfer jagen".encode() + b"\xff", "Zwölf Boxkämpfer jagen\ufffd"),
        ("gb2312", "朱镕基 – 你好".encode("gbk"), "朱镕基 – 你好"),
        ("gbk", "𠮷".encode("gb18030"), "𠮷"),
        ("shift_jis", "①髙橋".encode("cp932"), "①髙橋"),
        ("ks_c_5601-1987", "똠방".encode("cp949"), "똠방"),
        ("big5", "香港㗎".encode("big5hkscs"), "香港㗎"),
        ("iso-2022-jp", "日本語".encode("iso2022_jp"), "日本語"),
        ("iso-8859-8-i", "שלום".encode("iso-8859-8"), "שלום"),
        ("windows-1258", "Việt".encode("cp1258", "ignore"), "Vit"),
        ("x-unknown", b"Gr\xfc\xdfe", "Grüße"),
        ("utf-7", b"Thanks +2D3cTQ-", "Thanks 👍"),
        ("utf-7", b"Thanks +2D0-", "Thanks \ufffd"),
        ("utf-16", "Grüße".encode("utf-16"), "Grüße"),
        ("idna", b"Gr\xfc\xdfe", "Grüße"),
        ("koi8-r", "Привет".encode("koi8-r"), "Привет"),
        ("macintosh", "Ünïcode".encode("mac-roman"), "Ünïcode"),
        ("cp932", "テスト".encode("cp932"), "テスト"),
    ],
)
def test_a_charset_is_read_as_browsers_read_it(charset: str, content: bytes, text: str) -> None:
    encoded = base64.encodebytes(content)
    mail = read(raw("Content-Transfer-Encoding: base64", body=encoded, kind=f'text/plain; charset="{charset}"'))
    assert mail.text == text


def test_no_charset_at_all_is_guessed() -> None:
    assert read(raw(body=b"Gr\xfc\xdfe", kind="text/plain")).text == "Grüße"
    assert read(raw(body="Grüße".encode(), kind="text/plain")).text == "Grüße"


@pytest.mark.parametrize(
    ("header", "subject"),
    [
        ("¿Cuándo viene?".encode(), "¿Cuándo viene?"),
        ("Grüße".encode("latin-1"), "Grüße"),
        (b"=?utf-8?Q?Gr=C3=B6=C3?= =?utf-8?Q?=9Fe_?= =?utf-8?Q?bitte?=", "Größe bitte"),
        (b"=?iso-8859-1?q?Gr=FC=DFe?= und =?utf-8?b?4oKs?=", "Grüße und €"),
        (b"=?utf-8*en?q?hi?=", "hi"),
        (b"=?x-unknown?q?Gr=FC=DFe?=", "Grüße"),
        (b"=?utf-8?b?!!!?= x", "=?utf-8?b?!!!?= x"),
        (b"50% =? off", "50% =? off"),
    ],
)
def test_a_subject_is_decoded(header: bytes, subject: str) -> None:
    content = raw("Subject: @@").replace(b"@@", header)
    assert read(content).subject == subject


def test_flowed_text_is_joined_and_its_quotes_are_kept_apart() -> None:
    body = b"This is one \r\nline.\r\n> quoted \r\n> words\r\n\r\n From here\r\n-- \r\nMaria"
    assert read(raw(body=body, kind="text/plain; format=flowed")).text == (
        "This is one line.\n> quoted words\n\nFrom here\n-- \nMaria"
    )
    assert (
        read(
            raw(body=b"\xe6\x97\xa5 \r\n\xe6\x9c\xac", kind="text/plain; charset=utf-8; format=flowed; delsp=yes")
        ).text
        == "日本"
    )


# ------------------------------------------------------------------------------------------------------------- writers
@pytest.mark.parametrize(
    ("headers", "writer"),
    [
        (("From: maria@example.com",), (None, HERS)),
        (("From: maria@example.com <maria@example.com>",), (HERS, HERS)),
        (("From: Maria @ Mill Lane <maria@example.com>",), ("Maria @ Mill Lane", HERS)),
        (("From: Lopez, Maria <maria@example.com>",), ("Lopez, Maria", HERS)),
        (('From: "Lopez, Maria" <maria@example.com>',), ("Lopez, Maria", HERS)),
        (("From: Maria [Acme; Ltd] (office) <maria@example.com>",), ("Maria [Acme; Ltd] (office)", HERS)),
        (("From: maria@example.com (Maria Lopez)",), ("Maria Lopez", HERS)),
        (("From: Maria maria@example.com",), ("Maria", HERS)),
        (("From: <maria@example.com> ",), (None, HERS)),
        (('From: "O\\"Neil" <maria@example.com>',), ('O"Neil', HERS)),
        (("From: =?utf-8?q?Mar=C3=ADa_=3Cevil=40x.test=3E?= <maria@example.com>",), ("María <evil@x.test>", HERS)),
        (("From: José <maria@example.com>",), ("José", HERS)),
        (("From: Tom <tom@example.org>, Maria <maria@example.com>", "Sender: maria@example.com"), ("Maria", HERS)),
        (("From: Maria <maria@example.com>, Tom <tom@example.org>",), ("Maria", HERS)),
        (("From: undisclosed:;", "Reply-To: Maria <maria@example.com>"), ("Maria", HERS)),
        (("From: 'Maria' via Pay <pay@acme.test>", "Reply-To: maria@example.com"), ("Maria", HERS)),
        (("From: Pay <PAY@acme.test>", "X-Original-From: Maria <maria@example.com>"), ("Maria", HERS)),
        (("From: Site <wordpress@site.test>", "Reply-To: Maria <maria@example.com>"), ("Maria", HERS)),
        (("From: Forms <no-reply@forms.test>", "Reply-To: maria@example.com"), ("Forms", HERS)),
        (("From: Maria <maria@example.com>", "Reply-To: other@example.net"), ("Maria", HERS)),
        (("From: Pay <pay@acme.test>",), ("Pay", OURS)),
    ],
)
def test_the_writer_is_found(headers: tuple[str, ...], writer: tuple[str | None, str]) -> None:
    mail = read(raw(*headers))
    assert (mail.sender_name, mail.sender) == writer


@pytest.mark.parametrize("sender", ["nobody", "", "undisclosed-recipients:;", "<>"])
def test_a_letter_without_any_sender_is_refused(sender: str) -> None:
    with pytest.raises(inbound_mail.Unreadable, match="no_sender"):
        read(raw(f"From: {sender}"))


def test_other_recipients_are_kept() -> None:
    mail = read(raw("To: Pay <pay@acme.test>, Tom <tom@example.org>", "Cc: ann@example.net, MARIA@example.com"))
    assert mail.cc == ("tom@example.org", "ann@example.net")
    mail = read(
        raw("To: tom@example.org, Lopez, Ann <ann@example.net>; pay@acme.test", "Cc: Eve <e@x.test>, bo@x.test")
    )
    assert mail.cc == ("tom@example.org", "ann@example.net", "e@x.test", "bo@x.test")


# ---------------------------------------------------------------------------------------------------------------- parts
def multipart(*parts: bytes, kind: str = "mixed") -> bytes:
    body = b"".join(b"--b1\r\n" + part + b"\r\n" for part in parts) + b"--b1--\r\n"
    return raw(body=body, kind=f'multipart/{kind}; boundary="b1"')


def part(content: str, kind: str = "text/plain; charset=utf-8", *headers: str) -> bytes:
    return "\r\n".join([f"Content-Type: {kind}", *headers, "", content]).encode()


def files(mail: Mail) -> list[tuple[str, bytes]]:
    return [(one.get("name", ""), base64.b64decode(one["content"])) for one in mail.attachments]


def test_words_around_a_picture_stay_together() -> None:
    mail = read(multipart(part("Above"), part("GIF89a", "image/gif; name=x.gif"), part("Below")))
    assert (mail.text, files(mail)) == ("Above\n\nBelow", [("x.gif", b"GIF89a")])


def test_a_named_text_part_is_a_file_wherever_it_stands() -> None:
    mail = read(multipart(part("kitchen, bath", "text/plain; name=rooms.txt"), part("See the list.")))
    assert (mail.text, files(mail)) == ("See the list.", [("rooms.txt", b"kitchen, bath")])
    mail = read(multipart(part("See."), part("a", "text/plain", 'Content-Disposition: inline; filename="r.txt"')))
    assert (mail.text, files(mail)) == ("See.", [("r.txt", b"a")])


def test_an_attached_letter_is_a_file_that_can_be_opened() -> None:
    inner = "From: Tom <tom@example.org>\r\nSubject: Offer\r\n\r\nWe offer 100."
    mail = read(multipart(part("See."), part(inner, "message/rfc822")))
    ((name, content),) = files(mail)
    assert name == "Offer.eml"
    assert inbound_mail.read(content).text == "We offer 100."


def test_the_plain_form_is_read_and_an_invitation_beside_it_kept() -> None:
    mail = read(
        multipart(
            part("plain"),
            part("<p>plain</p>", "text/html"),
            part("<amp>", "text/x-amp-html"),
            part("BEGIN:VCALENDAR", "text/calendar; method=REQUEST"),
            kind="alternative",
        )
    )
    assert (mail.text, files(mail)) == ("plain", [("invite.ics", b"BEGIN:VCALENDAR")])
    mail = read(multipart(part(" "), part("<p>rich</p>", "text/html"), kind="alternative"))
    assert (mail.text, mail.attachments) == ("rich", [])


def test_text_beyond_the_limit_is_kept_as_a_file() -> None:
    mail = read(raw(body=b"word " * 20_000))
    assert len(mail.text) == 50_000
    assert files(mail) == [("message.txt", b"word " * 20_000)]


def test_words_that_look_like_structure_refuse_nothing() -> None:
    log = b"Content-Type: text/html\r\n\r\n" * 300 + b"Content-Type: multipart/mixed; boundary=x\r\n" * 50
    assert read(raw(body=log)).text.count("text/html") == 300


_WORD = st.text(st.characters(codec="utf-8", categories=("L", "N")), min_size=3, max_size=12)
_WORDS = st.lists(_WORD, min_size=1, max_size=6).map(lambda found: [f"w{n}{word}" for n, word in enumerate(found)])


_ODD_FORMS = ["html", "files in a form", "more in HTML"]
_FILES = st.lists(st.tuples(st.sampled_from(["file", "inline file", "bytes", "letter"]), _WORDS), max_size=4)


def letter(first: list[str], form: str, more: list[tuple[str, list[str]]]) -> bytes:
    mail = EmailMessage(policy=WIRE)
    mail["From"], mail["Subject"] = HERS, "x"
    if form == "html":
        mail.set_content("<div><b>" + "</b> <i>".join(first) + "</i></div>", subtype="html")
    elif form == "files in a form":  # as Apple Mail does
        mail.set_content("See below.")
        mail.add_alternative("<p>See below.</p>", subtype="html")
        rich = list(mail.iter_parts())[1]
        assert isinstance(rich, EmailMessage)
        rich.make_mixed()
        rich.add_attachment(" ".join(first).encode(), maintype="image", subtype="x-thing")
    elif form == "more in HTML":
        mail.set_content(first[0])
        mail.add_alternative("<p>" + "</p><p>".join(first) + "</p>", subtype="html")
    else:
        mail.set_content(" ".join(first), cte=form)
        mail.add_alternative("<p>" + " ".join(first) + "</p>", subtype="html")
    for how, words in more:
        if how == "file":
            mail.add_attachment(" ".join(words), filename="a.txt")
        elif how == "inline file":
            mail.add_attachment(" ".join(words), disposition="inline", filename="b.txt")
        elif how == "bytes":
            mail.add_attachment(" ".join(words).encode(), maintype="application", subtype="x-thing")
        else:
            inner = EmailMessage(policy=WIRE)
            inner["From"] = "tom@example.org"
            inner.set_content(" ".join(words), cte="8bit")
            mail.add_attachment(inner)
    return mail.as_bytes()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(_WORDS, st.sampled_from(["quoted-printable", "base64", "8bit", *_ODD_FORMS]), _FILES)
def test_every_word_of_every_part_is_in_the_message_or_its_files(
    first: list[str], form: str, more: list[tuple[str, list[str]]]
) -> None:
    mail = read(letter(first, form, more))
    everything = mail.text + (mail.quoted or "") + " ".join(content.decode() for _, content in files(mail))
    assert [word for words in (first, *(words for _, words in more)) for word in words if word not in everything] == []


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.binary(max_size=400),
    st.sampled_from(["text/plain; charset=utf-7", "text/html", "multipart/mixed; boundary=a", "message/rfc822"]),
)
def test_random_bytes_give_storable_text(content: bytes, kind: str) -> None:
    mail = read(raw(body=content, kind=kind))
    for text in (mail.text, mail.quoted or "", mail.subject, mail.sender_name or ""):
        text.encode()


# -------------------------------------------------------------------------------------------------------------- reports
TOKEN = "<msg_1.0123456789abcdef01234567@acme.test>"
EXIM = f"""This message was created automatically by mail delivery software.
A message that you sent could not be delivered to one or more of its recipients. This is a permanent error.

  maria@example.com
    host mx.example.com [192.0.2.1]
    SMTP error from remote mail server after RCPT TO: 550 5.1.1 User unknown

------ This is a copy of the message, including all the headers. ------
Message-ID: {TOKEN}
Subject: Acme
"""
QMAIL = f"""Hi. This is the qmail-send program at mx.example.com.
I'm afraid I wasn't able to deliver your message to the following addresses.
This is a permanent error; I've given up. Sorry it didn't work out.

<maria@example.com>:
550 mailbox unavailable

--- Below this line is a copy of the message.

Message-ID: {TOKEN}
"""
DELAY = f"""This message was created automatically by mail delivery software.
Warning: message 1abc delayed 24 hours. No action is required on your part. Delivery attempts will continue.
Message-ID: {TOKEN}
"""


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (
            ("From: Mail Delivery System <Mailer-Daemon@mx.x.test>", "X-Failed-Recipients: maria@example.com"),
            EXIM,
            ("failed", "5.1.1"),
        ),
        (("From: Mail Delivery Subsystem <mailer-daemon@x.test>",), EXIM, ("failed", "5.1.1")),
        (("From: MAILER-DAEMON@mx.example.com",), QMAIL, ("failed", "5.0.0")),
        (("From: Mailer-Daemon@mx.x.test",), DELAY, ("delayed", None)),
    ],
)
def test_a_bounce_in_words_names_its_letter(
    headers: tuple[str, ...], body: str, expected: tuple[str, str | None]
) -> None:
    report = read(raw(*headers, body=body.encode())).report
    assert report is not None
    assert (report.action, report.status, TOKEN in report.references) == (*expected, True)


@pytest.mark.parametrize("kind", ["message/delivery-status", "message/global-delivery-status"])
@pytest.mark.parametrize("encoding", ["7bit", "base64"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_standard_report_is_found_in_any_wrapping(kind: str, encoding: str, wrapped: bool) -> None:
    status = (
        "Reporting-MTA: dns; mx.x.test\r\n\r\nFinal-Recipient: rfc822; a@b.test\r\nAction: failed\r\nStatus: 5.2.2\r\n"
    )
    if encoding == "base64":
        status = base64.encodebytes(status.encode()).decode()
    inside = b"".join(
        b"--r\r\n" + one + b"\r\n"
        for one in (
            part("It failed."),
            part(status, kind, f"Content-Transfer-Encoding: {encoding}"),
            part(f"Message-ID: {TOKEN}\r\nSubject: x\r\n", "text/rfc822-headers"),
        )
    )
    inside += b"--r--\r\n"
    kind_of_all = 'multipart/report; report-type=delivery-status; boundary="r"'
    sender = "From: MAILER-DAEMON@x.test"
    if wrapped:
        body = (
            b"--w\r\n"
            + part("A list says:")
            + b"\r\n--w\r\nContent-Type: "
            + kind_of_all.encode()
            + b"\r\n\r\n"
            + inside
            + b"\r\n--w--\r\n"
        )
        content = raw(sender, body=body, kind='multipart/mixed; boundary="w"')
    else:
        content = raw(sender, body=inside, kind=kind_of_all)
    report = read(content).report
    assert report is not None
    assert (report.action, report.status, list(report.references)) == ("failed", "5.2.2", [TOKEN])


def test_a_letter_that_mentions_a_failure_is_a_letter() -> None:
    assert read(raw(body=EXIM.encode())).report is None


@pytest.mark.parametrize(
    "header",
    [
        "Auto-Submitted: auto-replied",
        "Precedence: bulk",
        "Precedence: junk",
        "X-Auto-Response-Suppress: All",
        "X-Autoreply: yes",
        "List-Id: <news.x.test>",
        "Return-Path: <>",
        "Subject: Automatic reply: Acme",
        "Subject: Automatische Antwort: Acme",
        "Subject: Réponse automatique : Acme",
        "Subject: Out of Office",
        "Subject: 自動応答: Acme",
        "Subject: Автоответ: Acme",
    ],
)
def test_a_program_is_told_from_a_person(header: str) -> None:
    assert read(raw(header)).automatic
    assert not read(raw("Auto-Submitted: no")).automatic


@pytest.mark.parametrize(
    ("subject", "answer"),
    [
        ("Broken tap", "Re: Broken tap"),
        ("RE: Re: Broken tap", "Re: Broken tap"),
        ("AW: SV: Broken tap", "Re: Broken tap"),
        ("回复：Broken tap", "Re: Broken tap"),
        ("Re[2]: Broken tap", "Re: Broken tap"),
        ("Re(2): R: Rép : Broken tap", "Re: Broken tap"),
        ("Odp.: Trả lời: Broken tap", "Re: Broken tap"),
        ("Fwd: Broken tap", "Re: Fwd: Broken tap"),
        ("Reply needed", "Re: Reply needed"),
    ],
)
def test_an_answer_keeps_the_subject(subject: str, answer: str) -> None:
    assert inbound_mail.reply_subject(subject) == answer
