"""Money: integer minor units with an ISO 4217 code, its decimal text, and how a person reads it. Stores nothing."""

import re
from copy import copy
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Self

from babel import Locale
from babel.numbers import NumberPattern

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
A table of our own because CLDR, which babel prints from, gives other decimals for a dozen (IQD 0 instead of 3)."""

# 15 digits before the point and 3 behind it still fit into a signed 64-bit column.
_AMOUNT = re.compile(r"([0-9]{1,15})(?:\.([0-9]+))?", re.ASCII)

# babel leaves out CLDR's currencySpacing: a code of letters would stick to the digits, "KWD1.234".
_TOUCHING = re.compile(r"(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")

# 3GPP TS 23.038, 6.2.1: the default alphabet and its extension table.
_GSM_7 = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà^{}\\[~]|€"
)
_SPACES = str.maketrans({"\u00a0": " ", "\u202f": " ", "\u2007": " ", "\u2009": " "})


class InvalidAmount(ValueError):
    """The text is not an amount of this currency: digits, at most one point, no more decimals than the currency has."""


class UnknownCurrency(ValueError):
    """The code is not an active ISO 4217 currency."""


def exponent_of(currency: str) -> int:
    """How many decimals a currency has (0, 2 or 3). Raises: UnknownCurrency."""
    try:
        return CURRENCIES[currency]
    except KeyError:
        raise UnknownCurrency(f"not an active ISO 4217 code: {currency!r}") from None


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in the smallest unit of its currency: `Money(12500, "USD")` is 125 dollars. Raises: UnknownCurrency."""

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.amount_minor) is not int:
            raise TypeError(f"amount_minor is an int, never {type(self.amount_minor).__name__}")
        exponent_of(self.currency)

    @classmethod
    def from_decimal(cls, text: str, currency: str) -> Self:
        """Read a decimal text such as "125.00"; signs, exponents, separators and superfluous decimals are refused.

        Raises: InvalidAmount, UnknownCurrency.
        """
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
        """The amount as a decimal text with exactly the currency's decimals: "125.00", "125", "125.000"."""
        exponent = CURRENCIES[self.currency]
        if exponent == 0:
            return str(self.amount_minor)
        sign = "-" if self.amount_minor < 0 else ""
        digits = str(abs(self.amount_minor)).rjust(exponent + 1, "0")
        return f"{sign}{digits[:-exponent]}.{digits[-exponent:]}"

    def formatted(self, locale: str = "en_US") -> str:
        """The amount as a person of this locale (such as "en_US" or "de-DE") reads it, with the currency's symbol.

        Raises: babel.UnknownLocaleError, ValueError for a locale that is none.
        """
        return _format(self.amount_minor, self.currency, locale.replace("-", "_"))

    def sms_text(self, locale: str = "en_US") -> str:
        """As `formatted`, or "INR 120.00" where that has a character outside GSM-7.

        One such character (₹, a no-break space) turns the whole SMS into UCS-2 and halves what a segment holds.
        """
        text = self.formatted(locale).translate(_SPACES)
        return text if _GSM_7.issuperset(text) else f"{self.currency} {self.decimal}"


@lru_cache(maxsize=4096)
def _format(amount_minor: int, currency: str, locale: str) -> str:
    exponent = CURRENCIES[currency]
    value = Decimal(amount_minor).scaleb(-exponent)
    text = _pattern(locale, exponent).apply(value, Locale.parse(locale), currency=currency, currency_digits=False)
    return _TOUCHING.sub("\u00a0", str(text))


@lru_cache(maxsize=256)
def _pattern(locale: str, exponent: int) -> NumberPattern:
    """The locale's currency pattern with the decimals of our table in place of CLDR's."""
    pattern: NumberPattern = copy(Locale.parse(locale).currency_formats["standard"])
    pattern.frac_prec = (exponent, exponent)
    return pattern
