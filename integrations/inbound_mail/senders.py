"""Who wrote a letter, and who else received it, from headers as people and programs really write them.

Source: RFC 5322, 3.4 and 3.6.2; lists that rewrite From for DMARC put the writer into Reply-To or X-Original-From.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from integrations.inbound_mail import charsets

NAME_LIMIT = 120
_LIMIT = 100  # mailboxes of one header
_TEXT = r"[^\s@<>,;:\"()\[\]\\\x00-\x1f\x7f]"
_ADDRESS = rf"{_TEXT}{{1,64}}@{_TEXT}{{1,189}}"
_LITERAL = rf"{_TEXT}{{1,64}}@\[[0-9a-z.:]{{3,50}}\]"  # an IP address for a domain
_PREFIX = r"(?:(?:mailto|smtp):|@[^<>:]{1,200}:)?"  # also the route of RFC 822
_IN_BRACKETS = re.compile(rf"<\s*{_PREFIX}({_LITERAL}|{_ADDRESS})\s*(?:>+|$)", re.IGNORECASE)
_IN_SQUARE = re.compile(rf"\[\s*{_PREFIX}({_ADDRESS})\s*\]", re.IGNORECASE)
_QUOTED_LOCAL = re.compile(r'<\s*("(?:[^"\\\r\n]|\\.){1,62}"@[^\s@<>,;:"()\[\]]{1,189})\s*>')
_BARE = re.compile(_ADDRESS)
_GROUP = re.compile(r"^[^<>@\":]{1,80}:(?!\S)\s*")
_COMMENT = re.compile(r"\(([^()]{0,200})\)")
_VIA = re.compile(r"^'?(.*?)'? (?:via|über|через) .{1,100}$")
# Local parts of programs that write for a person, who is named in Reply-To.
_PROGRAMS = re.compile(
    r"noreply\w*|wordpress|www-data|apache|nginx|nobody"
    r"|forms?|form-?submissions?|web-?forms?|contact-?forms?|formular|kontaktformular|website|notifications?|mailer",
    re.IGNORECASE,
)
_NO_REPLY = re.compile(
    r"(?:^|[-_.])(?:no|do[-_.]?not|dont|ne[-_.]?pas|nao|keine?)[-_.]?(?:reply|respond|responder|responda|repondre|antwort\w*)(?:$|[-_.+\d])",
    re.IGNORECASE,
)
# Web sites that send their forms' letters from an address of any name. Not Roundcube (rcube.php): people write with it.
_FORM_MAILER = re.compile(
    r"phpmailer|wordpress|wp-?mail|wpforms|drupal|joomla|swift ?mailer|symfony|laravel|formmail|contact ?form",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address, and the name that stands before it."""

    name: str
    address: str


def mailboxes(raw: str, *, bare: bool = False) -> list[Mailbox]:
    """The mailboxes of a header, in order. What is in angle brackets is an address; without any, every bare address is one.

    Commas, "@" and brackets in unquoted names are part of the name: mail programs write them so. `bare`: of a list of recipients,
    where an address between commas is one.
    """
    raw = raw.strip()
    if raw.endswith(";"):  # "Friends: a@x.test, b@x.test;", and not "Mill Lane: Maria <…>"
        raw = _GROUP.sub("", raw.rstrip(";").strip())
    found: list[Mailbox] = []
    position = 0
    brackets = sorted([*_IN_BRACKETS.finditer(raw), *_QUOTED_LOCAL.finditer(raw)], key=lambda one: one.start())
    for one in (brackets or list(_IN_SQUARE.finditer(raw)))[:_LIMIT]:
        *before, name = re.split("[,;]", raw[position : one.start()]) if bare else [raw[position : one.start()]]
        found += _bare(before)
        found.append(Mailbox(_name(name), one[1].rstrip(".")))
        position = one.end()
    if found:
        return found + (_bare(re.split("[,;]", raw[position:])) if bare else [])
    plain = list(_BARE.finditer(raw))[:_LIMIT]
    if not plain and "=?" in raw:  # the whole mailbox in an encoded word
        decoded = charsets.decode_words(raw)
        return mailboxes(decoded) if decoded != raw else []
    if len(plain) == 1:
        return [Mailbox(_name(raw.replace(plain[0][0], " ", 1)), plain[0][0])]
    return [Mailbox("", one[0]) for one in plain]


def _bare(pieces: Sequence[str]) -> list[Mailbox]:
    return [Mailbox("", piece.strip()) for piece in pieces[:_LIMIT] if _BARE.fullmatch(piece.strip())]


def writer(header: Callable[[str], str], *, own: Collection[str]) -> Mailbox | None:
    """Who wrote: From, or whom a list, a group or a form names because From is its own address. None: nobody is named.

    `header`: gives a header by its name, "" if there is none. `own`: the addresses of the channel, in lower case.
    """
    senders = mailboxes(header("from"))
    stated = mailboxes(header("sender"))
    if not senders:
        senders = stated or mailboxes(header("reply-to")) or mailboxes(header("return-path"))
        if not senders:
            return None
    first = senders[0]
    if len(senders) > 1:
        first = next((one for one in senders if any(_same(one, other) for other in stated)), first)
    for_others = _writes_for_others(first.address, own)
    if not (for_others or _VIA.match(first.name) or _from_form(header)):
        return first
    for name in ("x-original-from", "reply-to", "x-original-sender"):
        for other in mailboxes(header(name), bare=True):
            if not _writes_for_others(other.address, own) and not _same(other, first):
                return Mailbox(other.name or _before_via(first.name), other.address)
    return first


def _writes_for_others(address: str, own: Collection[str]) -> bool:
    local, _, domain = address.lower().partition("@")
    ours = address.lower() in own or f"{local.partition('+')[0]}@{domain}" in own
    return ours or _PROGRAMS.fullmatch(local) is not None or _NO_REPLY.search(local) is not None


def _from_form(header: Callable[[str], str]) -> bool:
    script = header("x-php-originating-script") or header("x-php-script")
    return bool(
        (script and "rcube" not in script) or header("x-wpcf7-content-type") or _FORM_MAILER.search(header("x-mailer"))
    )


def others(headers: Sequence[str], *, without: Collection[str]) -> list[str]:
    """The addresses of these headers, each once, without some (lower case)."""
    found = {one.address.lower(): one.address for raw in headers for one in mailboxes(raw, bare=True)}
    return [address for key, address in found.items() if key not in without]


def _same(one: Mailbox, other: Mailbox) -> bool:
    return one.address.lower() == other.address.lower()


def _before_via(name: str) -> str:
    found = _VIA.match(name)
    return found[1] if found else name


def _name(raw: str) -> str:
    """The name that these characters before an address spell."""
    text = raw.strip().strip(",;").rstrip("<[ ")
    comment = _COMMENT.search(text)
    if comment and not text.replace(comment[0], "").strip(" \"'"):
        text = comment[1]
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return words(charsets.decode_words(text)).strip("\"' ").strip()[:NAME_LIMIT]


def words(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text).split())
