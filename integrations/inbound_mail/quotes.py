"""Which lines of a letter quote an earlier message. Only what is surely a quote is hidden; all else stays in the thread.

Surely a quote is: lines marked with ">" below all of the writer's words, or above all of them, with the line that introduces them; and
what follows a header block ("From: … Sent: … Subject: …") or an introduction that names an address of this conversation. Answers
between quoted lines keep them, and forwarded letters stay whole. No language is known here, but for the words of "forwarded".
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_LINE = 400  # characters of a line that are looked at
_INTRODUCTION = 3  # lines that mail programs break an introduction into
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]*]{1,64}@[^\s@<>,;:\"()\[\]*]{1,189}")
_QUOTED = re.compile(r"\s?>")
_FIELD = re.compile(r"[\s*_]*([^\s:：<>@*_][^:：<>@]{0,30}?)[\s*_]*[:：][*_]*\s?(.*)")
_RULE = re.compile(r"\s*[-_=*—]{3,}.*")
_WORDED_RULE = re.compile(r"\s*[-_=]{3,}\s?\w.{1,60}\w\s?[-_=]{3,}\s*")
_MARKS = re.compile("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_YEAR = re.compile(r"(?<!\d)[12]\d{3}(?!\d)")  # also of the Persian and the Buddhist calendar
_DATE = re.compile(r"\d{1,4}\s?[./-]\s?\d{1,2}\s?[./-]\s?\d{1,4}")
_SIGNATURE = re.compile(r"-- ?")
_REPLY = re.compile(
    r"^(?:\s*(?:re|aw|sv|vs|odp|antw?|res|ref|rif|bls|ynt|回复|回覆|答复|返信|답장|отв|відп|atb|vá|απ|תשובה|رد)(?:\[\d+\])?\s*[:：])+\s*",
    re.IGNORECASE,
)
_FORWARD = re.compile(
    r"^\s*(?:\[?\s*)?(?:fwd?|wg|tr|rv|enc|i|doorst|vb|vl|pd|továbbítás|fs|iletilen|ilt|转发|轉寄|転送|전달|пересл|пер|fv|trs|bulta|redirecționat|"
    r"προώθ|הועבר|إعادة توجيه)(?:\[\d+\])?\s*[:：]",
    re.IGNORECASE,
)
_FORWARDED = re.compile(
    r"forward|weiterge?leitet|transféré|reenviad|inoltrat|encaminhad|doorgestuurd|vidarebefordra|videresend|välitetty|"
    r"przekazan|пересл|转发|轉寄|転送|전달된|iletilen",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Divided:
    """A letter's words, divided. `own`: what the writer wrote now, without any quoted line that stays visible between answers."""

    visible: str
    quoted: str | None
    own: str


def divide(text: str, *, subject: str = "", own: Collection[str] = (), known: Collection[str] = ()) -> Divided:
    """Divide a text. `own`: the business's addresses; `known`: those of the conversation's other people. Both in lower case."""
    lines = text.strip("\n").split("\n")
    kinds = [_kind(line) for line in lines]
    hidden: set[int] = set()
    if not _FORWARD.match(subject):
        end = _original(lines, kinds, subject=subject, own=own, known=known)
        hidden.update(range(end, len(lines)))
        hidden.update(_outer_quotes(lines[:end], kinds[:end], own=own))
    shown = [line for index, line in enumerate(lines) if index not in hidden]
    visible = "\n".join(shown).strip("\n").rstrip()
    written = "\n".join(
        line for index, line in enumerate(lines) if index not in hidden and not _belongs_to_quote(lines, index)
    )
    if not visible:
        return Divided(text.strip("\n").rstrip(), None, written.strip())
    quoted = "\n".join(line for index, line in enumerate(lines) if index in hidden).strip("\n")
    return Divided(visible, quoted or None, written.strip())


def reply_subject(subject: str) -> str:
    """The subject of an answer: "Re: " and the subject without the same words in any language."""
    return f"Re: {_REPLY.sub('', subject).strip()}"


def _belongs_to_quote(lines: list[str], index: int) -> bool:
    """A quoted line, or the line above one that ends in a colon."""
    below = next((line for line in lines[index + 1 : index + 3] if line.strip()), "")
    return bool(_QUOTED.match(lines[index])) or (bool(_QUOTED.match(below)) and _introduces([lines[index]]))


def _kind(line: str) -> str:
    return "" if not line.strip() else ">" if _QUOTED.match(line) else "w"


# ------------------------------------------------------------------------------------------------- an original, unmarked
def _original(lines: list[str], kinds: list[str], *, subject: str, own: Collection[str], known: Collection[str]) -> int:
    """The first line of an original that is not marked with ">"; the number of lines if there is none."""
    for index, kind in enumerate(kinds):
        if kind != "w":
            continue
        if size := _header_block(lines, index):
            if _forwards(lines, index):
                break
            block = lines[index : index + size]
            titled = _below_worded_rule(lines, index)
            if _is_of_this_conversation(block, titled=titled, subject=subject, own=own, known=known):
                return _with_rule(lines, index)
        elif any(">" in following for following in kinds[index + 1 : index + 6]):
            continue  # an introduction to marked lines
        elif (size := _introduction_below(lines, index)) and _names(lines[index : index + size], own):
            return _with_rule(lines, index)
    return len(lines)


def _header_block(lines: list[str], index: int) -> int:
    """How many lines from this one are "Label: value", three or more; one below a titled rule."""
    end = index
    while end < len(lines) and end - index < 8 and _FIELD.fullmatch(lines[end][:_LINE]):
        end += 1
    size = end - index
    return size if size >= (1 if _below_worded_rule(lines, index) else 3) else 0


def _below_worded_rule(lines: list[str], index: int) -> bool:
    """Below "--- Original Message ---", in any language."""
    return any(_WORDED_RULE.fullmatch(line[:_LINE]) for line in lines[max(0, index - 2) : index])


def _is_of_this_conversation(
    block: list[str], *, titled: bool, subject: str, own: Collection[str], known: Collection[str]
) -> bool:
    """Between the business and people who have this letter, or without addresses under a title or the letter's own subject."""
    addresses = {one.lower() for line in block for one in _ADDRESS.findall(line[:_LINE])}
    about = _REPLY.sub("", subject).strip().casefold()
    values = [found[2].strip() for line in block if (found := _FIELD.fullmatch(line[:_LINE]))]
    same_subject = bool(about) and any(_REPLY.sub("", value).strip().casefold() == about for value in values)
    if not addresses:
        return same_subject or titled
    among_us = addresses <= {*own, *known} and bool(addresses & set(own))
    return among_us and (same_subject or _has_date(block))


def _forwards(lines: list[str], index: int) -> bool:
    above = [line for line in lines[max(0, index - 3) : index] if line.strip()][-1:]
    return any(_FORWARDED.search(line[:_LINE]) for line in above)


def _with_rule(lines: list[str], index: int) -> int:
    """The line from which the original reaches: a rule or "--- Original Message ---" above its headers belongs to it."""
    above = index
    while above > 0 and index - above < 3:
        if _RULE.fullmatch(lines[above - 1][:_LINE]):
            return above - 1
        if lines[above - 1].strip():
            break
        above -= 1
    return index


def _introduction_below(lines: list[str], index: int) -> int:
    """How many lines from this one introduce a message: a date, an address in brackets, a colon at the end."""
    for size in range(1, min(_INTRODUCTION, len(lines) - index) + 1):
        part = lines[index : index + size]
        if not part[-1].strip():
            return 0
        if _introduces(part) and _has_date(part):
            return size
    return 0


# ------------------------------------------------------------------------------------------------------- marked lines
def _outer_quotes(lines: list[str], kinds: list[str], *, own: Collection[str]) -> set[int]:
    """The lines of the quotes that lie below or above all of the writer's words."""
    blocks = _blocks(kinds)
    if not blocks:
        return set()
    hidden: set[int] = set()
    start, end = blocks[-1]
    if _only_signature(lines, end):
        hidden.update(range(_introduced(lines, kinds, start, own), end))
    start, end = blocks[0]
    top = _introduced(lines, kinds, start, own)
    if len(blocks) == 1 and not any(kinds[:top]) and not hidden:
        hidden.update(range(end))
    return hidden


def _blocks(kinds: list[str]) -> list[tuple[int, int]]:
    """The runs of marked lines, blank lines inside them allowed, as (first, one after the last)."""
    found: list[tuple[int, int]] = []
    for index, kind in enumerate(kinds):
        if kind != ">":
            continue
        if found and not any(kind == "w" for kind in kinds[found[-1][1] : index]):
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return found


def _only_signature(lines: list[str], end: int) -> bool:
    rest = [line for line in lines[end:] if line.strip()]
    return not rest or _SIGNATURE.fullmatch(rest[0].rstrip("\r")) is not None


def _introduced(lines: list[str], kinds: list[str], start: int, own: Collection[str]) -> int:
    """The first line of the words that introduce a quote ("On … wrote:"), else its own first line."""
    last = start - 1
    while last >= 0 and start - last <= 2 and not kinds[last]:
        last -= 1
    parts: list[int] = []  # first lines of what may be the introduction, shortest first
    for first in range(last, max(-1, last - _INTRODUCTION), -1):
        if kinds[first] != "w":
            break
        parts.append(first)
    introducing = [first for first in parts if _introduces(lines[first : last + 1])]
    for first in introducing:
        if _has_date(lines[first : last + 1]):
            return _with_rule(lines, first)
    for first in introducing:
        if _names(lines[first : last + 1], own):
            return _with_rule(lines, first)
    above = _header_block_above(lines, kinds, last) if parts else None
    return start if above is None else _with_rule(lines, above)


def _header_block_above(lines: list[str], kinds: list[str], last: int) -> int | None:
    first = last
    while first > 0 and kinds[first - 1] == "w" and last - first < 8 and _FIELD.fullmatch(lines[first - 1][:_LINE]):
        first -= 1
    return first if _header_block(lines, first) == last - first + 1 else None


def _introduces(part: list[str]) -> bool:
    joined = _MARKS.sub("", " ".join(line.strip()[:_LINE] for line in part)).rstrip(" *_")
    return joined.endswith((":", "：")) and not _QUOTED.match(part[0])


def _has_date(part: list[str]) -> bool:
    """A year of four digits, or a date in numbers such as 27.11.26."""
    words = " ".join(_ADDRESS.sub("", line[:_LINE]) for line in part)
    return _YEAR.search(words) is not None or _DATE.search(words) is not None


def _names(part: list[str], own: Collection[str]) -> bool:
    addresses = {one.lower() for one in _ADDRESS.findall(" ".join(line[:_LINE] for line in part))}
    # An address may be broken by the line's end.
    addresses |= {one.lower() for one in _ADDRESS.findall("".join(line.strip()[:_LINE] for line in part))}
    return bool(addresses & set(own))
