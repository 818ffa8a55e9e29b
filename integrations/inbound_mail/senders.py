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
_IN_BRACKETS = re.compile(rf"<\s*(?:mailto:)?({_ADDRESS})\s*>", re.IGNORECASE)
_QUOTED_LOCAL = re.compile(r'<\s*("(?:[^"\\\r\n]|\\.){1,62}"@[^\s@<>,;:"()\[\]]{1,189})\s*>')
_BARE = re.compile(_ADDRESS)
_GROUP = re.compile(r"^[^<>@\":]{1,80}:(?!\S)\s*")
_COMMENT = re.compile(r"\(([^()]{0,200})\)")
_VIA = re.compile(r"^'?(.*?)'? via .{1,100}$")
# Local parts of programs that write for a person, who is named in Reply-To.
_PROGRAMS = re.compile(
    r"(?:no|do-?not|dont|ne-pas|nao)[-_.]?(?:reply|respond|responder|repondre)|noreply\w*|wordpress|www-data|apache|nginx|nobody"
    r"|forms?|form-?submissions?|web-?forms?|contact-?forms?|formular|kontaktformular|website|notifications?|mailer",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One address, and the name that stands before it."""

    name: str
    address: str


def mailboxes(raw: str) -> list[Mailbox]:
    """The mailboxes of a header, in order. What is in angle brackets is an address; without any, every bare address is one.

    Commas, "@" and brackets in unquoted names are part of the name: mail programs write them so.
    """
    raw = _GROUP.sub("", raw.strip().rstrip(";").strip())
    found: list[Mailbox] = []
    position = 0
    brackets = sorted([*_IN_BRACKETS.finditer(raw), *_QUOTED_LOCAL.finditer(raw)], key=lambda one: one.start())
    for one in brackets[:_LIMIT]:
        found.append(Mailbox(_name(raw[position : one.start()]), one[1]))
        position = one.end()
    if found:
        return found
    bare = list(_BARE.finditer(raw))[:_LIMIT]
    if not bare and "=?" in raw:  # the whole mailbox in an encoded word
        decoded = charsets.decode_words(raw)
        return mailboxes(decoded) if decoded != raw else []
    if len(bare) == 1:
        return [Mailbox(_name(raw.replace(bare[0][0], " ", 1)), bare[0][0])]
    return [Mailbox("", one[0]) for one in bare]


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
    if not _writes_for_others(first.address, own):
        return first
    for name in ("x-original-from", "reply-to", "x-original-sender"):
        for other in mailboxes(header(name)):
            if not _writes_for_others(other.address, own):
                return Mailbox(other.name or _before_via(first.name), other.address)
    return first


def _writes_for_others(address: str, own: Collection[str]) -> bool:
    return address.lower() in own or _PROGRAMS.fullmatch(address.partition("@")[0]) is not None


def others(headers: Sequence[str], *, without: Collection[str]) -> list[str]:
    """The addresses of these headers, each once, without some (lower case)."""
    found = {one.address.lower(): one.address for raw in headers for one in mailboxes(raw)}
    return [address for key, address in found.items() if key not in without]


def _same(one: Mailbox, other: Mailbox) -> bool:
    return one.address.lower() == other.address.lower()


def _before_via(name: str) -> str:
    found = _VIA.match(name)
    return found[1] if found else name


def _name(raw: str) -> str:
    """The name that these characters before an address spell."""
    text = raw.strip().strip(",;").strip()
    comment = _COMMENT.search(text)
    if comment and not text.replace(comment[0], "").strip(" \"'"):
        text = comment[1]
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    return words(charsets.decode_words(text)).strip("\"' ").strip()[:NAME_LIMIT]


def words(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(c if c.isprintable() or c.isspace() else "" for c in text).split())
