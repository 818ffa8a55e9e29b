"""Finds the lines of an email that quote an earlier message. Uncertain lines stay visible."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

_LINE_LIMIT = 400  # characters read of a line
_INTRODUCTION_LINES = 3  # lines of an introduction
_ADDRESS = re.compile(r"[^\s@<>,;:\"()\[\]*]{1,64}@[^\s@<>,;:\"()\[\]*]{1,189}")
_QUOTED = re.compile(r"\s?>(?!From )")  # ">From" is the writer's line, escaped by an mbox file
_FIELD = re.compile(r"[\s*_]*([^\s:：<>@*_][^:：<>@]{0,30}?)[\s*_]*[:：][*_]*\s?(.*)")
_DASH = r"[-_=*‐‑‒–—―]"
# BlackBerry centres "Original Message" instead of drawing dashes.
_RULE = re.compile(rf"\s*{_DASH}{{3,}}.*|\s{{2,}}\S.{{1,40}}\S\s{{2,}}")
_WORDED_RULE = re.compile(rf"\s*{_DASH}{{3,}}\s?\w.{{1,60}}\w\s?{_DASH}{{3,}}\s*")
_DASHED = re.compile(rf"{_DASH}{{2,}}\s.*\s{_DASH}{{2,}}")  # Zoho: "---- On … wrote ---"
_ON_ONE_LINE = re.compile(r"[^:：]{0,30}[:：]\s{2,}\S")  # Yahoo's app: the quote starts on the introduction's line
_TAGS = re.compile(r"\[[^\[\]]{1,20}\]\s*")  # added by servers: "[EXTERNAL]"
_MARKS = re.compile("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_YEAR = re.compile(r"(?<!\d)[12]\d{3}(?!\d)")  # also Persian and Buddhist calendars
_DATE = re.compile(r"\d{1,4}\s?[./-]\s?\d{1,2}\s?[./-]\s?\d{1,4}")
_SIGNATURE = re.compile(r"-- ?")
_REPLY = re.compile(
    r"^(?:\s*(?:re?|rép|aw|antwort|sv|svar|vs|odp|antw?"
    r"|res|ref|rif|bls|balas|ynt|trả lời|ตอบ|回复|回覆|答复|答覆|返信|답장|отв|відп|atb|vá|απ|תשובה|رد)"
    r"(?:\[\d+\]|\(\d+\)|\^\d+)?\.?\s*[:：])+\s*",
    re.IGNORECASE,
)
_FORWARD = re.compile(
    r"^\s*(?:\[?\s*)?(?:fwd?|wg|tr|rv|enc|i|doorst|vb|vl|pd|továbbítás|fs|iletilen|ilt|转发|轉寄|転送|전달|пересл|пер|fv|trs|bulta|redirecționat|"
    r"προώθ|הועבר|إعادة توجيه)(?:\[\d+\])?\s*[:：]",
    re.IGNORECASE,
)
_FORWARDED = re.compile(
    r"forward|weiterge?leitet|transf[eé]r|réexpédi|reenvia[dt]|inoltrat|encaminhad|doorgestuurd|vidarebefordra|videresend|välitetty|"
    r"przekaz|přeposl|továbbít|redirec|προωθ|пересл|转发|轉寄|転送|전달|iletilen|הועבר|توجيه|chuyển tiếp|diteruskan|ส่งต่อ",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Divided:
    """The text to show and the quoted message; `own` is the writer's new text without any quoted line."""

    visible: str
    quoted: str | None
    own: str


def divide(
    text: str, *, subject: str = "", own: Collection[str] = (), known: Collection[str] = (), names: Collection[str] = ()
) -> Divided:
    """Separate the writer's text from the quoted message. Forwarded emails stay whole.

    `own`: the business's addresses; `known`: other people's in the conversation, both lower case; `names`: the business's names.
    """
    lines = text.strip("\n").split("\n")
    kinds = [_kind(line) for line in lines]
    hidden: set[int] = set()
    if not _FORWARD.match(subject):
        end = _start_of_original(lines, kinds, subject=subject, own=own, known=known, names=names)
        hidden.update(range(end, len(lines)))
        hidden.update(_outer_quotes(lines[:end], kinds[:end], own=own, names=names))
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
    """`subject` after "Re: ", without existing reply prefixes in any language."""
    return f"Re: {_REPLY.sub('', subject).strip()}"


def _belongs_to_quote(lines: list[str], index: int) -> bool:
    below = next((line for line in lines[index + 1 : index + 3] if line.strip()), "")
    return bool(_QUOTED.match(lines[index])) or (bool(_QUOTED.match(below)) and _introduces([lines[index]]))


def _kind(line: str) -> str:
    return "" if not line.strip() else ">" if _QUOTED.match(line) else "w"


# ------------------------------------------------------------------------------------------------- an original, unmarked
def _start_of_original(
    lines: list[str],
    kinds: list[str],
    *,
    subject: str,
    own: Collection[str],
    known: Collection[str],
    names: Collection[str],
) -> int:
    below = 0  # the end of an unrelated header block
    for index, kind in enumerate(kinds):
        if kind != "w" or index < below:
            continue
        if block := _header_block(lines, index):
            if _forwarded_above(lines, index):
                break
            below = index + len(block)
            titled = _below_worded_rule(lines, index)
            if _is_of_this_conversation(block, titled=titled, subject=subject, own=own, known=known, names=names):
                return _start_with_rule(lines, index)
        elif _WORDED_RULE.fullmatch(lines[index][:_LINE_LIMIT]):
            if _FORWARDED.search(lines[index][:_LINE_LIMIT]):
                break
            if _first_address(lines[index : index + 3]) in own and _has_date(lines[index : index + 6]):
                return _start_with_rule(lines, index)
        elif _quotes_on_same_line(lines[index], own):
            return _start_with_rule(lines, index)
        elif any(">" in following for following in kinds[index + 1 : index + 6]):
            continue  # introduces marked lines
        elif _introduces_unmarked(lines, index, own):
            return _start_with_rule(lines, index)
    return len(lines)


def _header_block(lines: list[str], index: int) -> list[str]:
    block: list[str] = []
    end = index
    while end < len(lines) and len(block) < 8:
        if not lines[end].strip() and block and end + 1 < len(lines):
            end += 1
        if not _FIELD.fullmatch(lines[end][:_LINE_LIMIT]):
            break
        block.append(lines[end])
        end += 1
    return block if len(block) >= (1 if _below_worded_rule(lines, index) else 3) else []


def _below_worded_rule(lines: list[str], index: int) -> bool:
    return any(_WORDED_RULE.fullmatch(line[:_LINE_LIMIT]) for line in lines[max(0, index - 2) : index])


def _is_of_this_conversation(
    block: list[str],
    *,
    titled: bool,
    subject: str,
    own: Collection[str],
    known: Collection[str],
    names: Collection[str],
) -> bool:
    addresses = {one.lower() for line in block for one in _ADDRESS.findall(line[:_LINE_LIMIT])}
    about = _bare_subject(subject)
    values = [found[2].strip() for line in block if (found := _FIELD.fullmatch(line[:_LINE_LIMIT]))]
    same_subject = bool(about) and any(_bare_subject(value) == about for value in values)
    if not addresses:
        named = bool(values) and values[0].strip("\"' *").casefold() in names and _has_date(block)
        return same_subject or titled or named
    among_us = addresses <= {*own, *known} and bool(addresses & set(own))
    return (among_us or _first_address(block) in own) and (same_subject or _has_date(block))


def _bare_subject(subject: str) -> str:
    return _REPLY.sub("", _TAGS.sub("", subject)).strip().casefold()


def _first_address(lines: list[str]) -> str | None:
    found = _ADDRESS.search("\n".join(line[:_LINE_LIMIT] for line in lines))
    return found[0].lower() if found else None


def _forwarded_above(lines: list[str], index: int) -> bool:
    above = [line for line in lines[max(0, index - 3) : index] if line.strip()][-1:]
    return any(_FORWARDED.search(line[:_LINE_LIMIT]) for line in above)


def _start_with_rule(lines: list[str], index: int) -> int:
    above = index
    while above > 0 and index - above < 3:
        if _RULE.fullmatch(lines[above - 1][:_LINE_LIMIT]):
            return above - 1
        if lines[above - 1].strip():
            break
        above -= 1
    return index


def _introduces_unmarked(lines: list[str], index: int, own: Collection[str]) -> bool:
    for size in range(1, min(_INTRODUCTION_LINES, len(lines) - index) + 1):
        part = lines[index : index + size]
        if not part[-1].strip():
            return False
        if _introduces(part) and _has_date(part) and _names_business(part, own):
            # Only the shortest introduction: a line above it is the writer's.
            return not any(
                _introduces(rest) and _has_date(rest) and _names_business(rest, own)
                for rest in (part[first:] for first in range(1, size))
            )
    return False


def _quotes_on_same_line(line: str, own: Collection[str]) -> bool:
    found = next((one for one in _ADDRESS.finditer(line[:_LINE_LIMIT]) if one[0].lower() in own), None)
    return (
        found is not None
        and _has_date([line[: found.start()]])
        and _ON_ONE_LINE.match(line[:_LINE_LIMIT], found.end()) is not None
    )


# ------------------------------------------------------------------------------------------------------- marked lines
def _outer_quotes(lines: list[str], kinds: list[str], *, own: Collection[str], names: Collection[str]) -> set[int]:
    blocks = _blocks(kinds)
    if not blocks or any(_forwarded_above(lines, start) or _is_forwarded_quote(lines, start) for start, _ in blocks):
        return set()
    # Hide only quotes above or below all of the writer's text. "You promised:" above a quote is the writer's.
    hidden: set[int] = set()
    start, end = blocks[-1]
    top = _start_with_introduction(lines, kinds, start, own, names)
    if _only_signature(lines, end) and (top < start or not _follows_colon(lines, start)):
        hidden.update(range(top, end))
    start, end = blocks[0]
    top = _start_with_introduction(lines, kinds, start, own, names)
    if len(blocks) == 1 and top < start and not any(kinds[:top]) and not hidden:
        hidden.update(range(end))
    return hidden


def _follows_colon(lines: list[str], start: int) -> bool:
    above = [line for line in lines[max(0, start - 2) : start] if line.strip()][-1:]
    return bool(above) and _introduces(above)


def _is_forwarded_quote(lines: list[str], start: int) -> bool:
    # Apple Mail: "> Begin forwarded message:"
    first = [words for line in lines[start : start + 3] if (words := line.strip("> \t"))][:1]
    return bool(first) and _introduces(first) and _FORWARDED.search(first[0][:_LINE_LIMIT]) is not None


def _blocks(kinds: list[str]) -> list[tuple[int, int]]:
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


def _start_with_introduction(
    lines: list[str], kinds: list[str], start: int, own: Collection[str], names: Collection[str]
) -> int:
    last = start - 1
    while last >= 0 and start - last <= 2 and not kinds[last]:
        last -= 1
    parts: list[int] = []  # possible first lines of the introduction, shortest first
    for first in range(last, max(-1, last - _INTRODUCTION_LINES), -1):
        if kinds[first] != "w":
            break
        parts.append(first)
    if parts and _WORDED_RULE.fullmatch(lines[last][:_LINE_LIMIT]):
        return last
    introducing = [first for first in parts if _introduces(lines[first : last + 1])]
    for first in introducing:
        if _has_date(lines[first : last + 1]):
            return _start_with_rule(lines, first)
    for first in introducing:
        part = lines[first : last + 1]
        if _names_business(part, own) or any(name in " ".join(part).casefold() for name in names):
            return _start_with_rule(lines, first)
    above = _header_block_above(lines, kinds, last) if parts else None
    return start if above is None else _start_with_rule(lines, above)


def _header_block_above(lines: list[str], kinds: list[str], last: int) -> int | None:
    first = last
    while (
        first > 0 and kinds[first - 1] == "w" and last - first < 8 and _FIELD.fullmatch(lines[first - 1][:_LINE_LIMIT])
    ):
        first -= 1
    return first if len(_header_block(lines, first)) == last - first + 1 else None


def _introduces(part: list[str]) -> bool:
    joined = _MARKS.sub("", " ".join(line.strip()[:_LINE_LIMIT] for line in part)).rstrip(" *_")
    ends = joined.endswith((":", "：")) or _DASHED.fullmatch(joined) is not None
    return ends and not _QUOTED.match(part[0])


def _has_date(part: list[str]) -> bool:
    words = " ".join(_ADDRESS.sub("", line[:_LINE_LIMIT]) for line in part)
    words = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in words)
    return _YEAR.search(words) is not None or _DATE.search(words) is not None


def _names_business(part: list[str], own: Collection[str]) -> bool:
    addresses = {one.lower() for one in _ADDRESS.findall(" ".join(line[:_LINE_LIMIT] for line in part))}
    # A line break may split an address.
    addresses |= {one.lower() for one in _ADDRESS.findall("".join(line.strip()[:_LINE_LIMIT] for line in part))}
    return bool(addresses & set(own))
