"""Converts an HTML part to text with link addresses and marked quotes. Fetches and renders nothing."""

from __future__ import annotations

import html
import re
from string import ascii_lowercase, ascii_uppercase

import lxml.etree
import lxml.html
from inscriptis import Inscriptis
from inscriptis.css_profiles import CSS_PROFILES
from inscriptis.model.config import ParserConfig

SOURCE_LIMIT = 2 << 20  # characters, including styles and scripts
# Not <object> and <noscript>: mail programs show their replacement.
_UNSEEN = ("script", "style", "head", "title", "template")
_QUOTES = re.compile(
    r"\b(?:gmail_quote|yahoo_quoted|protonmail_quote|tutanota_quote|moz-cite|quote|cite)\b", re.IGNORECASE
)
_QUOTE_STYLE = re.compile(r"border-(?:left|inline-start|right)\s*:(?!\s*(?:none|0))", re.IGNORECASE)
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_BLOCKS = frozenset(
    [
        "table",
        "tbody",
        "thead",
        "tfoot",
        "tr",
        "caption",
        "center",
        "section",
        "article",
        "header",
        "footer",
        "main",
        "aside",
        "nav",
        "address",
        "figure",
        "figcaption",
        "dl",
        "dt",
        "dd",
        "details",
        "summary",
        "fieldset",
        "legend",
        "form",
        "noscript",
    ]
)
# Not links for people: embedded pictures, scripts, data detected by phones.
_NOT_LINKS = re.compile(r"javascript|vbscript|data|cid|mid|about|blob|file|x-apple-.*|x-msg|applewebdata")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{1,40}")
_ADDRESS_AS_TAG = re.compile(
    r"<((?:mailto:)?[^\s<>@\"'=]{1,64}@[^\s<>@\"'=]{1,190}|https?://[^\s<>\"']{1,2000})>", re.IGNORECASE
)
_PICTURE = re.compile(
    r"(\bsrc\s*=\s*[\"']?)data:(image/[a-z0-9.+-]{1,40});base64,([a-z0-9+/=\s%]{100,})", re.IGNORECASE
)
_PICTURES = 20
# Private-use characters mark quotes until the text is rendered.
_BEGIN, _END = "\ue0f0", "\ue0f1"
_CONFIG = ParserConfig(css=CSS_PROFILES["strict"])
_BREAK = re.compile(r"<(?:br|/p|/div|/tr|/li|/h[1-6]|/table)\b[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>\s][^<>]*>")
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)  # keeps positions, unlike str.lower
_LIST_LEVELS = 8
_RESERVED = re.compile("[\ue0f0\ue0f1\x00-\x08\x0b\x0c\x0e-\x1f]")


def to_text(source: str) -> str:
    """The text that a mail program shows; quoted lines begin with "> ". Of pictures alone, their alt texts."""
    source = _RESERVED.sub("", _without_pictures(source)[:SOURCE_LIMIT])
    source = _ADDRESS_AS_TAG.sub(r"&lt;\1&gt;", source)
    if not source.strip():
        return ""
    parser = lxml.html.HTMLParser(remove_comments=True, remove_pis=True, huge_tree=False)
    try:
        tree = lxml.html.document_fromstring(source, parser=parser)
        if _parser_cut(parser):
            return _plain_text(source)
        called = [found for one in tree.iter("img") if (found := " ".join(one.get("alt", "").split()))]
        _prepare(tree)
        text = Inscriptis(tree, _CONFIG).get_text()
    except (lxml.etree.LxmlError, RecursionError, ValueError, AssertionError):
        return _plain_text(source)
    return _without_extra_blanks(_with_quote_marks(text)) or "\n".join(called)


def is_cut(source: str) -> bool:
    """Whether the part is too long to be read completely."""
    return len(_without_pictures(source)) > SOURCE_LIMIT


def pictures(source: str) -> list[tuple[str, str]]:
    """The pictures in the markup, as (content type, base64)."""
    found = _PICTURE.finditer(source)
    return [
        (one[2].lower(), one[3].replace("%2B", "+").replace("%2F", "/"))
        for _, one in zip(range(_PICTURES), found, strict=False)
    ]


def _without_pictures(source: str) -> str:
    source = _PICTURE.sub(r"\1", source)
    return _without(source, "<style", "</style") if len(source) > SOURCE_LIMIT else source


def _parser_cut(parser: lxml.html.HTMLParser) -> bool:
    # The parser drops content below 256 levels.
    return any("depth" in entry.message.lower() for entry in parser.error_log)


def _prepare(tree: lxml.html.HtmlElement) -> None:
    for element in list(tree.iter()):
        if not isinstance(element.tag, str):
            continue
        # The library decodes entities again.
        element.text, element.tail = (part and part.replace("&", "&amp;") for part in (element.text, element.tail))
        if element.tag in _UNSEEN or _HIDDEN.search(element.get("style", "")) or element.get("hidden") is not None:
            element.drop_tree()
        elif element.tag in ("td", "th"):
            element.tag = "span"
            _append(element, "  ")
        elif element.tag in ("ul", "ol") and _list_level(element) > _LIST_LEVELS:
            element.tag = "div"  # each level indents all its lines
        elif element.tag in _BLOCKS:
            # Not in columns: a long cell would widen every row.
            element.tag = "div"
        elif element.tag == "a":
            _append_link(element)
        elif element.tag == "img":
            _show_emoji(element)
        elif element.tag == "input" and element.get("type", "text").lower() not in ("hidden", "password"):
            element.tail = f" {element.get('value', '').replace('&', '&amp;')} {element.tail or ''}"
        if element.tag == "blockquote" or (element.tag == "div" and element.get("name") == "quote"):
            element.tag = "div"
            if _is_quote(element):
                _mark_quote(element)


def _list_level(element: lxml.html.HtmlElement) -> int:
    return sum(1 for _ in element.iterancestors("ul", "ol"))


def _is_quote(element: lxml.html.HtmlElement) -> bool:
    return (
        element.get("type") == "cite"
        or element.get("cite") is not None
        or element.get("name") == "quote"
        or _QUOTES.search(element.get("class", "")) is not None
        or _QUOTE_STYLE.search(element.get("style", "")) is not None
    )


def _mark_quote(element: lxml.html.HtmlElement) -> None:
    first, last = lxml.html.Element("div"), lxml.html.Element("div")
    first.text, last.text = _BEGIN, _END
    first.tail, element.text = element.text, None
    element.insert(0, first)
    element.append(last)


def _append_link(element: lxml.html.HtmlElement) -> None:
    address = re.sub(r"\s+", "", element.get("href", ""))
    kind, _, rest = address.partition(":")
    if address.lower().startswith("www."):
        kind, rest = "http", address
    elif not rest or not _SCHEME.fullmatch(kind.lower()) or _NOT_LINKS.fullmatch(kind.lower()):
        return
    named = kind.lower() in ("mailto", "tel", "sms")
    shown = rest if named else address
    words = "".join(element.itertext()).strip()
    plain = rest.strip("/").partition("?")[0] if named else rest.strip("/")
    if plain and plain not in words.replace(" ", "") and words:
        _append(element, f" <{shown}>")
    elif not words and element.find(".//img") is not None:
        _append(element, f"<{shown}>")


def _show_emoji(element: lxml.html.HtmlElement) -> None:
    # Mail programs draw emoji as pictures.
    called = element.get("alt", "")
    if called and not any(c.isalnum() for c in called) and any(ord(c) > 0x2000 for c in called):
        element.tail = called[:20] + (element.tail or "")


def _append(element: lxml.html.HtmlElement, text: str) -> None:
    if len(element):
        element[-1].tail = (element[-1].tail or "") + text
    else:
        element.text = (element.text or "") + text


def _with_quote_marks(text: str) -> str:
    lines, depth = [], 0
    for line in text.split("\n"):
        depth += line.count(_BEGIN)
        words = line.replace(_BEGIN, "").replace(_END, "")
        if words.strip() or not (_BEGIN in line or _END in line):
            lines.append(f"{'>' * depth} {words.strip()}".rstrip() if depth else words)
        depth -= line.count(_END)
    return "\n".join(lines)


def _without_extra_blanks(text: str) -> str:
    lines = [line.rstrip().replace("\xa0", " ") for line in text.split("\n")]
    kept = [line for index, line in enumerate(lines) if line.strip() or (index and lines[index - 1].strip())]
    while kept and not kept[0].strip():
        kept.pop(0)
    return "\n".join(kept).rstrip()


def _plain_text(source: str) -> str:
    for name in ("script", "style", "title"):
        source = _without(source, f"<{name}", f"</{name}")
    text = html.unescape(_TAG.sub("", _BREAK.sub("\n", _without(source, "<!--", "--").replace("\n", " "))))
    return _without_extra_blanks("\n".join(" ".join(line.split()) for line in text.split("\n")))


def _without(source: str, begin: str, end: str) -> str:
    lowered, kept, position = source.translate(_LOWER), [], 0
    while (start := lowered.find(begin, position)) >= 0:
        close = lowered.find(end, start + len(begin))
        close = lowered.find(">", close) if close >= 0 else -1
        if close < 0:
            break
        kept.append(source[position:start])
        position = close + 1
    return "".join([*kept, source[position:]])
