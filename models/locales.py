"""Locales by language tag, and number formats that Babel lacks."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from babel import Locale, UnknownLocaleError
from babel.core import get_global
from babel.numbers import NumberPattern, parse_pattern

DEFAULT: Final = "en-US"

_TAG_LIMIT: Final = 100  # characters; longer ones are no tags
_SUBTAG: Final = re.compile(r"[A-Za-z0-9]{2,8}", re.ASCII)
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}", re.ASCII)
_SCRIPT: Final = re.compile(r"[A-Za-z]{4}", re.ASCII)
_TERRITORY: Final = re.compile(r"[A-Za-z]{2}|[0-9]{3}", re.ASCII)

# Languages that CLDR groups under another code and Babel does not.
_LANGUAGES: Final = {"no": "nb", "sh": "sr_Latn"}

# The zero of each default numbering system; Babel lacks digits.
_ZEROS: Final = {
    "adlm": 0x1E950,
    "arab": 0x0660,
    "arabext": 0x06F0,
    "beng": 0x09E6,
    "cakm": 0x11136,
    "deva": 0x0966,
    "hmnp": 0x1E140,
    "mtei": 0xABF0,
    "mymr": 0x1040,
    "nkoo": 0x07C0,
    "olck": 0x1C50,
    "tibt": 0x0F20,
}

# CLDR's minimumGroupingDigits, which Babel lacks: 1234 but 12.345.
_GROUPED_FROM_FIVE: Final = frozenset(
    ["be", "bg", "es", "et", "hu", "hy", "ia", "ie", "it", "ka", "lv", "pl", "pt", "ru", "sl", "sq"]
)
_ONLY_IN: Final = {
    "es": frozenset({None, "ES", "EA", "GQ", "IC", "PH"}),
    "pt": frozenset(["PT", "CH", "CV", "GQ", "GW", "LU", "MO", "MZ", "ST", "TL"]),
    "ru": frozenset({"UA"}),
}
# CLDR 48, where Babel has CLDR 47: Swiss German groups with the typewriter's apostrophe.
_SEPARATORS: Final = {
    "de_CH": "'",
    "en_CH": "'",
    "de_LI": "'",
    "it_CH": "'",
    "gsw_CH": "'",
    "gsw_LI": "'",
    "gsw_FR": "'",
    "gsw": "'",
}
# Babel keeps a locale's pattern for Latin digits only; CLDR 48 has changed the others.
_PATTERNS: Final = {
    **dict.fromkeys(("fa", "fa_IR"), "\u200e¤#,##0.00"),
    **dict.fromkeys(("es_AR", "es_CO"), "¤\u00a0#,##0.00"),
}


def find(tag: str) -> Locale | None:
    """ "de-US" gives German; None if CLDR lacks the language."""
    return _find(tag) if len(tag) <= _TAG_LIMIT else None


@lru_cache(maxsize=1024)
def _find(tag: str) -> Locale | None:
    language, *rest = re.split(r"[.@]", tag.strip())[0].replace("_", "-").split("-")
    if not _LANGUAGE.fullmatch(language):
        return None
    script = territory = None
    for subtag in rest:
        if len(subtag) == 1:
            break  # an extension, such as -u-nu-latn, or private use
        if not _SUBTAG.fullmatch(subtag):
            return None
        if script is None and territory is None and _SCRIPT.fullmatch(subtag):
            script = subtag.title()
        elif territory is None and _TERRITORY.fullmatch(subtag):
            territory = subtag.upper()
    language = _LANGUAGES.get(language.lower(), language.lower())
    language = get_global("language_aliases").get(language, language)
    for parts in ((language, script, territory), (language, territory), (language, script), (language,)):
        try:
            return Locale.parse("_".join(part for part in parts if part))
        except (UnknownLocaleError, ValueError):
            continue
    return None


def of(tag: str | None) -> Locale:
    """As `find`, or en-US."""
    return find(tag or DEFAULT) or Locale.parse("en_US")


def territory_of(tag: str) -> str | None:
    """The tag's country, else its language's."""
    for subtag in re.split(r"[.@]", tag)[0].replace("_", "-").split("-")[1:]:
        if len(subtag) == 1:
            break
        if len(subtag) == 2 and subtag.isascii() and subtag.isalpha():
            return subtag.upper()
    found = find(tag)
    territory: str | None = found.territory if found is not None else None
    return territory if territory and len(territory) == 2 else None


def groups_four_digits(locale: Locale) -> bool:
    """Whether 1234 has a separator."""
    language = locale.language
    if language not in _GROUPED_FROM_FIVE:
        return True
    return language in _ONLY_IN and locale.territory not in _ONLY_IN[language]


def group_separator(locale: Locale) -> str | None:
    """The separator in amounts where Babel's is wrong."""
    return _SEPARATORS.get(str(locale))


@lru_cache(maxsize=256)
def currency_pattern(locale: Locale) -> NumberPattern:
    written = _PATTERNS.get(str(locale))
    pattern: NumberPattern = parse_pattern(written) if written else locale.currency_formats["standard"]
    return pattern


@lru_cache(maxsize=256)
def digits(locale: Locale) -> dict[int, int]:
    """Maps ASCII digits to the locale's, for `str.translate`."""
    zero = _ZEROS.get(locale.default_numbering_system, ord("0"))
    return {ord("0") + n: zero + n for n in range(10)}
