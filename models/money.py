"""Money in minor units with an ISO 4217 code."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from babel import Locale
from babel.numbers import NumberPattern, get_currency_symbol

from models import locales

_EXPONENT_0 = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
_EXPONENT_2 = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC "
    "CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR "
    "JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD "
    "NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN "
    "SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
_EXPONENT_3 = "BHD IQD JOD KWD LYD OMR TND"

CURRENCIES: dict[str, int] = {
    code: exponent
    for exponent, codes in ((0, _EXPONENT_0), (2, _EXPONENT_2), (3, _EXPONENT_3))
    for code in codes.split()
}
"""Each active code of ISO 4217 list one, to the number of its decimals. No funds, metals, units of account, test codes.
CLDR, which Babel uses, has other decimals for a dozen of them (IQD 0 instead of 3)."""

MOST_DECIMALS = max(CURRENCIES, key=CURRENCIES.__getitem__)
"""A currency with the most decimals: text that is no amount of it is an amount of none."""

# 15 digits before the point and 3 after it fit into a signed 64-bit column.
_AMOUNT = re.compile(r"([0-9]{1,15})(?:\.([0-9]+))?", re.ASCII)

_SPACE = "\u00a0"

# 3GPP TS 23.038, 6.2.1: the default alphabet and its extension table.
_GSM_7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà^{}\\[~]|€"
)
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2007": " ", "\u2009": " "})


class InvalidAmount(ValueError):
    """Not a plain decimal with the currency's decimals."""


class UnknownCurrency(ValueError):
    """Not an active ISO 4217 currency."""


def exponent_of(currency: str) -> int:
    """The currency's decimals. Raises: UnknownCurrency."""
    try:
        return CURRENCIES[currency]
    except KeyError:
        raise UnknownCurrency(f"not an active ISO 4217 code: {currency!r}") from None


@dataclass(frozen=True, slots=True)
class Money:
    """`Money(12500, "USD")` is 125 dollars. Raises: UnknownCurrency."""

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.amount_minor) is not int:
            raise TypeError(f"amount_minor is an int, never {type(self.amount_minor).__name__}")
        exponent_of(self.currency)

    @classmethod
    def from_decimal(cls, text: str, currency: str) -> Self:
        """Read "125.00", without sign, exponent or separators. Raises: InvalidAmount, UnknownCurrency."""
        exponent = exponent_of(currency)
        match = _AMOUNT.fullmatch(text)
        if match is None:
            raise InvalidAmount("an amount is digits with at most one point, such as 125.00")
        whole, fraction = match[1], match[2] or ""
        if len(fraction) > exponent:
            raise InvalidAmount(f"{currency} has {exponent} decimals, not {len(fraction)}")
        return cls(int(whole + fraction.ljust(exponent, "0")), currency)

    @property
    def decimal(self) -> str:
        exponent = CURRENCIES[self.currency]
        if exponent == 0:
            return str(self.amount_minor)
        sign = "-" if self.amount_minor < 0 else ""
        digits = str(abs(self.amount_minor)).rjust(exponent + 1, "0")
        return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"

    def formatted(self, locale: str = locales.DEFAULT) -> str:
        """With the currency symbol, in the locale or en-US."""
        return _format(self.amount_minor, self.currency, locales.of(locale))

    def sms_text(self, locale: str = locales.DEFAULT) -> str:
        """As `formatted`, or "INR 120.00" where GSM-7 lacks a character."""
        text = self.formatted(locale).translate(_SPACES)
        return text if _GSM_7.issuperset(text) else f"{self.currency} {self.decimal}"


@lru_cache(maxsize=4096)
def _format(amount_minor: int, currency: str, locale: Locale) -> str:
    pattern = locales.currency_pattern(locale)
    symbols: Mapping[str, str] = locale.number_symbols.get(locale.default_numbering_system, {})
    negative = amount_minor < 0
    number = _number(Money(abs(amount_minor), currency).decimal, pattern, locale, symbols)
    symbol = get_currency_symbol(currency, locale)
    minus = symbols.get("minusSign", "-")
    if negative and locale.default_numbering_system != "latn":
        # Babel's patterns of negative amounts are those for Latin digits.
        before, after = minus + pattern.prefix[0], pattern.suffix[0]
    else:
        before, after = (part[negative].replace("-", minus) for part in (pattern.prefix, pattern.suffix))
    # CLDR's currencySpacing: "KWD1.234" gets a space, "$1.23" none.
    left = _SPACE if before.endswith("¤") and _needs_space(symbol[-1]) else ""
    right = _SPACE if after.startswith("¤") and _needs_space(symbol[0]) else ""
    return f"{before}{left}{number}{right}{after}".replace("¤", symbol)


def _number(decimal: str, pattern: NumberPattern, locale: Locale, symbols: Mapping[str, str]) -> str:
    whole, _, fraction = decimal.partition(".")
    least, size = pattern.grouping
    groups = []
    if len(whole) > least and (len(whole) > 4 or locales.groups_four_digits(locale)):
        groups.append(whole[-least:])
        whole = whole[:-least]
        while len(whole) > size:
            groups.append(whole[-size:])
            whole = whole[:-size]
    separator = locales.group_separator(locale) or symbols.get("currencyGroup") or symbols.get("group", ",")
    text = separator.join([whole, *reversed(groups)])
    if fraction:
        text += (symbols.get("currencyDecimal") or symbols.get("decimal", ".")) + fraction
    return text.translate(locales.digits(locale))


def _needs_space(character: str) -> bool:
    return unicodedata.category(character)[0] not in "SZ"
