"""Finds an email's writer and other recipients in real-world headers.

Source: RFC 5322, 3.4 and 3.6.2.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from integrations.inbound_mail import charsets

NAME_LIMIT = 120
_MAILBOX_LIMIT = 100  # mailboxes of one header
_TEXT = r"[^\s@<>,;:\"()\[\]\\\x00-\x1f\x7f]"
_ADDRESS = rf"{_TEXT}{{1,64}}@{_TEXT}{{1,189}}"
_LITERAL = rf"{_TEXT}{{1,64}}@\[[0-9a-z.:]{{3,50}}\]"  # an IP address as domain
_PREFIX = r"(?:(?:mailto|smtp):|@[^<>:]{1,200}:)?"  # also RFC 822 routes
_IN_BRACKETS = re.compile(rf"<\s*{_PREFIX}({_LITERAL}|{_ADDRESS})\s*(?:>+|$)", re.IGNORECASE)
_IN_SQUARE = re.compile(rf"\[\s*{_PREFIX}({_ADDRESS})\s*\]", re.IGNORECASE)
_QUOTED_LOCAL = re.compile(r'<\s*("(?:[^"\\\r\n]|\\.){1,62}"@[^\s@<>,;:"()\[\]]{1,189})\s*>')
_BARE = re.compile(_ADDRESS)
_GROUP = re.compile(r"^[^<>@\":]{1,80}:(?!\S)\s*")
_COMMENT = re.compile(r"\(([^()]{0,200})\)")
_VIA = re.compile(r"^'?(.*?)'? (?:via|über|через) .{1,100}$")
# Local parts of programs that send for the person in Reply-To.
_PROGRAMS = re.compile(
    r"noreply\w*|wordpress|www-data|apache|nginx|nobody"
    r"|forms?|form-?submissions?|web-?forms?|contact-?forms?|formular|kontaktformular|website|notifications?|mailer",
    re.IGNORECASE,
)
_NO_REPLY = re.compile(
    r"(?:^|[-_.])(?:no|do[-_.]?not|dont|ne[-_.]?pas|nao|keine?)[-_.]?(?:reply|respond|responder|responda|repondre|antwort\w*)(?:$|[-_.+\d])",
    re.IGNORECASE,
)
# Web forms that send from any address. Not Roundcube (rcube.php), which people use.
_FORM_MAILER = re.compile(
    r"phpmailer|wordpress|wp-?mail|wpforms|drupal|joomla|swift ?mailer|symfony|laravel|formmail|contact ?form",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address and its display name."""

    name: str
    address: str


def mailboxes(raw: str, *, bare: bool = False) -> list[Mailbox]:
    """The mailboxes of a header, in order: addresses in angle brackets, or all bare ones if there are no brackets.

    `bare`: also read bare addresses between commas, as in lists of recipients.
    """
    raw = raw.strip()
    if raw.endswith(";"):  # "Friends: a@x.test, b@x.test;", not "Mill Lane: Maria <…>"
        raw = _GROUP.sub("", raw.rstrip(";").strip())
    found: list[Mailbox] = []
    position = 0
    # Unquoted names may contain commas, "@" and brackets.
    brackets = sorted([*_IN_BRACKETS.finditer(raw), *_QUOTED_LOCAL.finditer(raw)], key=lambda one: one.start())
    for one in (brackets or list(_IN_SQUARE.finditer(raw)))[:_MAILBOX_LIMIT]:
        *before, name = re.split("[,;]", raw[position : one.start()]) if bare else [raw[position : one.start()]]
        found += _bare_mailboxes(before)
        found.append(Mailbox(_display_name(name), one[1].rstrip(".")))
        position = one.end()
    if found:
        return found + (_bare_mailboxes(re.split("[,;]", raw[position:])) if bare else [])
    plain = list(_BARE.finditer(raw))[:_MAILBOX_LIMIT]
    if not plain and "=?" in raw:  # an encoded word with the whole mailbox
        decoded = charsets.decode_words(raw)
        return mailboxes(decoded) if decoded != raw else []
    if len(plain) == 1:
        return [Mailbox(_display_name(raw.replace(plain[0][0], " ", 1)), plain[0][0])]
    return [Mailbox("", one[0]) for one in plain]


def _bare_mailboxes(pieces: Sequence[str]) -> list[Mailbox]:
    return [Mailbox("", piece.strip()) for piece in pieces[:_MAILBOX_LIMIT] if _BARE.fullmatch(piece.strip())]


def writer(header: Callable[[str], str], *, own: Collection[str]) -> Mailbox | None:
    """The writer: From, or the person named by a list or form that sends from its own address; None if missing.

    `header` returns a header by name, or ""; `own`: the channel's addresses, lower case.
    """
    senders = mailboxes(header("from"))
    stated = mailboxes(header("sender"))
    if not senders:
        senders = stated or mailboxes(header("reply-to")) or mailboxes(header("return-path"))
        if not senders:
            return None
    first = senders[0]
    if len(senders) > 1:
        first = next((one for one in senders if any(_same_address(one, other) for other in stated)), first)
    for_others = _sends_for_others(first.address, own)
    if not (for_others or _VIA.match(first.name) or _is_from_form(header)):
        return first
    # Lists that rewrite From for DMARC name the writer here.
    for name in ("x-original-from", "reply-to", "x-original-sender"):
        for other in mailboxes(header(name), bare=True):
            if not _sends_for_others(other.address, own) and not _same_address(other, first):
                return Mailbox(other.name or _name_before_via(first.name), other.address)
    return first


def _sends_for_others(address: str, own: Collection[str]) -> bool:
    local, _, domain = address.lower().partition("@")
    ours = address.lower() in own or f"{local.partition('+')[0]}@{domain}" in own
    return ours or _PROGRAMS.fullmatch(local) is not None or _NO_REPLY.search(local) is not None


def _is_from_form(header: Callable[[str], str]) -> bool:
    script = header("x-php-originating-script") or header("x-php-script")
    return bool(
        (script and "rcube" not in script) or header("x-wpcf7-content-type") or _FORM_MAILER.search(header("x-mailer"))
    )


def others(headers: Sequence[str], *, without: Collection[str]) -> list[str]:
    """The distinct addresses of these headers, except `without` (lower case)."""
    found = {one.address.lower(): one.address for raw in headers for one in mailboxes(raw, bare=True)}
    return [address for key, address in found.items() if key not in without]


def _same_address(one: Mailbox, other: Mailbox) -> bool:
    return one.address.lower() == other.address.lower()


def _name_before_via(name: str) -> str:
    found = _VIA.match(name)
    return found[1] if found else name


def _display_name(raw: str) -> str:
    text = raw.strip().strip(",;").rstrip("<[ ")
    comment = _COMMENT.search(text)
    if comment and not text.replace(comment[0], "").strip(" \"'"):
        text = comment[1]
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return words(charsets.decode_words(text)).strip("\"' ").strip()[:NAME_LIMIT]


def words(text: str) -> str:
    """The text on one line, without control characters."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text).split())
