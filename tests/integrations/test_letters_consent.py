"""STOP in real mail programs' replies opts out; ordinary email does not."""

from __future__ import annotations

import pytest

from tests.integrations.test_smtp_email import letter, taken


def html_letter(source: str) -> bytes:
    head = "From: Dana Diaz <dana@x.test>\r\nTo: pay@acme.test\r\nSubject: Re: Your payment\r\nContent-Type: text/html; charset=utf-8"
    return f"{head}\r\n\r\n{source}".encode()


STOPS = {
    "Gmail": "STOP\n\nOn Fri, Nov 27, 2026 at 10:00 AM Acme Cleaning <pay@acme.test> wrote:\n\n> Pay here\n",
    "Gmail in German": "Stop\n\nAm Fr., 27. Nov. 2026 um 10:00 Uhr schrieb Acme <pay@acme.test>:\n\n> Pay\n",
    "Gmail in French": "STOP\n\nLe ven. 27 nov. 2026 à 10:00, Acme <pay@acme.test> a\nécrit :\n\n> Pay\n",
    "Gmail in Polish": "stop\n\npt., 27 lis 2026 o 10:00 Acme <pay@acme.test> napisał(a):\n\n> Pay\n",
    "Gmail in Japanese": "STOP\n\n2026年11月27日(金) 10:00 Acme <pay@acme.test>:\n\n> Pay\n",
    "Gmail in Chinese": "STOP\n\nAcme <pay@acme.test> 于2026年11月27日周五 10:00写道：\n\n> Pay\n",
    "Gmail in Swedish": "Stop\n\nDen fre 27 nov. 2026 kl 10:00 skrev Acme Cleaning <\npay@acme.test>:\n\n> Pay\n",
    "Outlook": "STOP\n\nFrom: Acme <pay@acme.test>\nSent: Friday, November 27, 2026 10:00 AM\nTo: Dana\nSubject: Your payment\n\nPay",
    "Outlook in German": "Stop.\n\n________________________________\nVon: Acme <pay@acme.test>\nGesendet: Freitag, 27. November 2026\n"
    "An: Dana\nBetreff: Your payment\n\nPay",
    "Outlook in French, no address": "STOP\n\nDe : Acme\nEnvoyé : 27 novembre 2026 10:00\nÀ : Dana\nObjet : Your payment\n\nPay",
    "Outlook's older words": "STOP\n\n-----Original Message-----\nFrom: Acme\nPay",
    "Outlook for iPhone": "STOP\n\nGet Outlook for iOS<https://aka.ms/o0ukef>\n\n________________________________\n"
    "From: Acme <pay@acme.test>\nSent: 27 November 2026 10:00\nSubject: Your payment\n\nPay",
    "Apple Mail": "STOP\n\n> On 27 Nov 2026, at 10:00, Acme <pay@acme.test> wrote:\n> \n> Pay\n",
    "iPhone": "Stop\n\nSent from my iPhone\n\n> On Nov 27, 2026, at 10:00, Acme <pay@acme.test> wrote:\n> \n> Pay\n",
    "iPhone in German": "Stop\n\nVon meinem iPhone gesendet\n\n> Am 27.11.2026 um 10:00 schrieb Acme <pay@acme.test>:\n> \n> Pay\n",
    "iPhone in Japanese": "STOP\n\niPhoneから送信\n\n> 2026/11/27 10:00、Acme <pay@acme.test>のメール:\n> \n> Pay\n",
    "Samsung": "Stop\n\nSent from my Galaxy\n\n-------- Original message --------\nFrom: Acme <pay@acme.test>\n"
    "Date: 27/11/2026 10:00 (GMT+00:00)\nTo: dana@x.test\nSubject: Your payment\n\nPay",
    "Thunderbird": "STOP\n\nOn 27.11.26 10:00, Acme wrote:\n> Pay\n\n-- \nDana Diaz\n",
    "Thunderbird, answer below": "On 27.11.26 10:00, Acme wrote:\n> Pay\n\nSTOP\n",
    "Yahoo": "STOP\n\n    On Friday, November 27, 2026 at 10:00:00 AM GMT+1, Acme <pay@acme.test> wrote:  \n \n Pay here",
    "Proton": "STOP\n\nSent with Proton Mail secure email.\n\n"
    "On Friday, November 27th, 2026 at 10:00, Acme <pay@acme.test> wrote:\n\n> Pay\n",
    "GMX": "Stop\n\nGesendet mit der GMX Mail App\n\nAm 27.11.26, 10:00 schrieb Acme <pay@acme.test>:\n\n> Pay\n",
    "mail.ru": "STOP\n\n--\nОтправлено из Mail.ru для Android\nпятница, 27 ноября 2026г., 10:00 +03:00 от Acme pay@acme.test:\n\n> Pay\n",
    "a signature without a line above": "STOP\n\nDana Diaz\nMill Lane 12\n+1 415 555 2671\n",
    "a closing": "Stop!\n\nKind regards,\nDana\n",
    "a virus scanner": "STOP\n\nVirus-free.www.avast.com\n",
    "Zoho": "STOP\n\n---- On Fri, 27 Nov 2026 10:00:00 +0530 Acme <pay@acme.test> wrote ---\n\nPay here",
    "Zoho, marked": "STOP\n\nSent using Zoho Mail\n\n---- On Fri, 27 Nov 2026 10:00:00 +0530 pay@acme.test wrote ----\n\n> Pay",
    "Proton, older": "STOP\n\n‐‐‐‐‐‐‐ Original Message ‐‐‐‐‐‐‐\n"
    "On Friday, November 27th, 2026 at 10:00 AM, Acme <pay@acme.test> wrote:\n\n> Pay",
    "eM Client": 'STOP\n\n------ Original Message ------\nFrom "Acme" <pay@acme.test>\nTo dana@x.test\nDate 27/11/2026\n'
    "Subject Your payment\n\nPay",
    "Notes": "STOP\n\nFrom:\tAcme <pay@acme.test>\nTo:\tDana Diaz/ACME@ACME\nDate:\t27.11.2026 10:00\nSubject:\tYour payment\n\nPay",
    "NetEase's app": "STOP\n\n| |\ndana\n|\n|\ndana@x.test\n|\n\n---- Replied Message ----\n| From | Acme<pay@acme.test> |\n"
    "| Date | 11/27/2026 |\nPay",
    "Yahoo Japan": 'STOP\n\n----- Original Message -----\n> From: "Acme" <pay@acme.test>\n> Date: 2026/11/27\n>\n> Pay',
    "Yahoo's app": "STOP\n\nSent from Yahoo Mail on Android \n \n"
    "  On Fri, Nov 27, 2026 at 10:00, Acme<pay@acme.test> wrote:   Pay here   ",
    "Outlook, to another address of hers": "STOP\n\nFrom: Acme <pay@acme.test>\nSent: Friday, November 27, 2026 10:00 AM\n"
    "To: Dana <dana@work.example>;\n"
    " Tom <tom@example.org>\nSubject: Your payment\n\nPay",
    "Outlook behind a filter": "STOP\n\nFrom: Acme\nSent: Friday, November 27, 2026 10:00 AM\nTo: Dana\n"
    "Subject: [EXTERNAL] Your payment\n\nPay",
    "Gmail in Arabic digits": "STOP\n\nفي الجمعة، ٢٧ نوفمبر ٢٠٢٦ في ١٠:٠٠ ص تمت كتابة ما يلي بواسطة Acme <pay@acme.test>:\n\nPay",
    "Superhuman": "Stop\n\nSent via Superhuman ( https://sprh.mn/?vip=dana@x.test )\n\n"
    "On Fri, Nov 27, 2026 at 10:00 AM, Acme < pay@acme.test > wrote:\n\n> Pay",
    "BlackBerry": "STOP\n\nSent from my BlackBerry 10 smartphone.\n\n  Original Message  \nFrom: Acme\n"
    "Sent: Friday, November 27, 2026\nTo: Dana\n"
    "Subject: Your payment\n\nPay",
    "a telephone of an unknown name": "Stop\n\nSent from my HTC\n\n----- Reply message -----\nFrom: Acme <pay@acme.test>\n"
    "Subject: Your payment\n\nPay",
    "iPhone in Danish": "Stop\n\nSendt fra min iPhone\n\n> Den 27. nov. 2026 kl. 10.00 skrev Acme <pay@acme.test>:\n> \n> Pay",
    "a nickname below a closing": "STOP\n\nBest,\nDany",
    "a company's notice": "STOP\n\nThis e-mail and any attachments are confidential and intended solely for the person named above.",
    "full width": "ＳＴＯＰ",
    "one word": "unsubscribe",
    "two words": "Stop all.",
}


@pytest.mark.parametrize("program", STOPS)
def test_stop_as_an_answer_opts_out(program: str) -> None:
    assert taken(letter(STOPS[program].replace("\n", "\r\n"))).opt_out is True


HTML_STOPS = {
    "Yahoo": '<div>STOP</div><div id="yahoo_quoted_1"><div>On 27 November 2026 at 10:00:00 AM GMT+1, Acme &lt;pay@acme.test&gt; wrote:'
    "</div><div>Pay</div></div>",
    "Zoho": "<div>STOP<br></div>"
    '<div class="zmail_extra"><div>---- On Fri, 27 Nov 2026 10:00:00 +0530 <b>Acme &lt;pay@acme.test&gt;</b> wrote ---'
    '<br></div><blockquote style="margin:0px"><div>Pay</div></blockquote></div>',
    "Yandex": '<div>STOP</div><div> </div><div>27.11.2026, 10:00, "Acme" &lt;pay@acme.test&gt;:</div><blockquote><p>Pay</p></blockquote>',
    "Outlook, a paragraph for each field": "<p>STOP</p><p><b>From:</b> Acme &lt;pay@acme.test&gt;</p>"
    "<p><b>Sent:</b> Friday, November 27, 2026</p>"
    "<p><b>To:</b> dana@x.test</p><p><b>Subject:</b> Your payment</p><p>Pay</p>",
    "QQ": "<div>STOP</div><div>---&nbsp;原始邮件&nbsp;---</div><div><b>发件人:</b>&nbsp;Acme &lt;pay@acme.test&gt;;</div>"
    "<div><b>发送时间:</b>&nbsp;2026年11月27日</div><div>Pay</div>",
    "Mail.ru": '<div>STOP</div><blockquote style="border-left:1px">27 ноября 2026, 10:00 от &lt;pay@acme.test&gt;:<br>Pay</blockquote>',
}


@pytest.mark.parametrize("program", HTML_STOPS)
def test_stop_in_a_letter_of_html_alone_opts_out(program: str) -> None:
    found = taken(html_letter(HTML_STOPS[program]))
    assert (found.opt_out, found.body) == (True, "STOP")


@pytest.mark.parametrize("text", ["", "Sent from my iPhone", "iPhoneから送信", "-- \r\nDana"])
def test_a_subject_counts_where_the_letter_says_nothing(text: str) -> None:
    assert taken(letter(text, Subject="STOP")).opt_out is True
    assert taken(letter(f"When?\r\n{text}", Subject="STOP")).opt_out is None


ORDINARY = [
    "Please stop by on Monday.",
    "Stop! I meant Tuesday.",
    "Stop\n\nI meant Tuesday, not Monday.",
    "STOP the cleaning of flat 7 only, please.",
    "Don't stop.",
    "Non-stop service?",
    "How do I unsubscribe?",
    "Unsubscribe my husband, not me.",
    "The bus stop is at the corner.",
    "Stop\nStart\nwhichever you like",
    "Can you stop at the bakery?",
    "yes",
    "Yes, stop.",
    "End",
    "Cancel",
    "Cancel Monday please",
    "Quit",
    "Revoke",
    "Opt out of the newsletter? What newsletter?",
    "stop it :-)",
    "Full stop",
    "Please unsubscribe",
    "Hello,\n\nOn Fri, Nov 27, 2026, Acme <pay@acme.test> wrote:\n> Reply STOP to opt out.\n\nTuesday is fine.",
    "Thanks!\n\n> Reply with STOP to end messages.\n> STOP",
    "Which stop is nearest?\n\nSent from my iPhone",
    "OK\n\nFrom: Acme <pay@acme.test>\nSent: 27 November 2026\nSubject: Your payment\n\nSTOP",
    "When is the last stop?\n-- \nSTOP",
    "My reply:\n\n> STOP",
    "Halt",
    "Stopp",
    "arrêtez",
    "Help",
    "info",
    "",
    "👍",
    "STOPWATCH",
    "Stop-and-go traffic, I am late.",
    "We stop work at five.\n\nDana",
    "Stop\n\nPS: only the text messages, letters are fine with me",
    "Stop\n\nWill you?",
    "stop stop stop",
    "Start",
    "Start on Monday.",
    "Please start.",
    "Start\n\nat nine",
    "I'd like to stop paying by card.",
    "Stop. Hammer time.",
    "STOP: the pipe is leaking",
    "Re: STOP",
    "Please do not stop sending.",
    "unsubscribe@acme.test is what your footer says, is that right?",
    "Subscribe",
    "stop\n\nthe payment, my bank says it is a fraud",
    "Stop here\n-- \nDana",
    "The sign says STOP",
    "No stop.",
    "STOP is what I wrote last week, did it arrive?",
    "Stopping by tomorrow",
    "Stop calling me Dana Diaz, it is Dana Ruiz.",
    "Stop\n\nDana said you would come at nine",
    "The tap does not stop dripping.\n\nKind regards,\nDana",
    "Stop\n\nthe windows on the first floor need no cleaning",
    "Stop\n\nmy iPhone broke, call me",
    "Stop\n\nGet me a receipt first",
    "Stop\n\nSent the money already",
    "Stop\n\nOrange is the colour I want",
    "Stop\n\nOutlook says the letter is spam",
    "Stop\n\nThanks for everything, but I meant Tuesday",
    "Stop\n\nhttps://photos.example/7",
    "STOP\n\n1. the drill\n2. the noise",
    "Unsubscribe\n\nme from the newsletter only",
    "Opt out\n\nof the insurance please",
    "Begin forwarded message:\n\n> From: Tom <tom@example.org>\n> Subject: STOP\n> \n> STOP",
    "On Fri, Nov 27, 2026, Acme <pay@acme.test> wrote:\n> Reply STOP\n\nWhat happens if I do?",
    "The postman wrote:\n> STOP",
    "S.T.O.P. is my band",
    "ストップ",
    "Arrêt de bus devant la maison",
    "Alto",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_an_ordinary_letter_does_not_opt_out(text: str) -> None:
    assert taken(letter(text.replace("\n", "\r\n"))).opt_out is not True
