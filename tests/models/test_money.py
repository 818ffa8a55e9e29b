"""Money: the currency table, decimal text in and out, and what people read."""

import unicodedata
from collections import Counter

import pytest
from babel import Locale, localedata
from babel.core import get_global

from models.money import CURRENCIES, InvalidAmount, Money, UnknownCurrency


def test_the_table_has_every_active_currency_and_only_exponents_0_2_3() -> None:
    assert Counter(CURRENCIES.values()) == {0: 16, 2: 132, 3: 7}
    tender = {
        code
        for spans in get_global("territory_currencies").values()
        for code, _start, end, is_tender in spans
        if end is None and is_tender
    }
    # babel's CLDR is older than Bulgaria's euro (2026-01-01): ISO has withdrawn BGN.
    assert tender - set(CURRENCIES) == {"BGN"}
    assert set(CURRENCIES) <= set(Locale("en").currencies)


@pytest.mark.parametrize(
    "code", ["XAU", "XXX", "XTS", "CLF", "UYW", "CHE", "USN", "HRK", "BGN", "ZWL", "usd", "", "US"]
)
def test_metals_funds_withdrawn_and_misspelt_codes_are_unknown(code: str) -> None:
    with pytest.raises(UnknownCurrency):
        Money(1, code)
    with pytest.raises(UnknownCurrency):
        Money.from_decimal("1", code)


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [
        ("125.00", "USD", 12500),
        ("125", "USD", 12500),
        ("125.5", "USD", 12550),
        ("0.01", "USD", 1),
        ("0", "USD", 0),
        ("007.10", "EUR", 710),
        ("500", "JPY", 500),
        ("1.234", "KWD", 1234),
        ("1.2", "KWD", 1200),
        ("1.000", "IQD", 1000),
        ("999999999999999.999", "BHD", 999999999999999999),
    ],
)
def test_decimal_text_is_read_exactly(text: str, currency: str, minor: int) -> None:
    assert Money.from_decimal(text, currency) == Money(minor, currency)


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("1.234", "USD"),
        ("1.230", "USD"),
        ("1.0", "JPY"),
        ("1.2345", "KWD"),
        ("1e3", "USD"),
        ("NaN", "USD"),
        ("Infinity", "USD"),
        ("-1", "USD"),
        ("+1", "USD"),
        ("1,000.00", "USD"),
        ("1_000", "USD"),
        (".50", "USD"),
        ("5.", "USD"),
        ("", "USD"),
        (" 1", "USD"),
        ("1\n", "USD"),
        ("0x10", "USD"),
        ("٣", "USD"),
        ("1" * 16, "USD"),
        ("$5", "USD"),
    ],
)
def test_other_text_is_refused(text: str, currency: str) -> None:
    with pytest.raises(InvalidAmount):
        Money.from_decimal(text, currency)


def test_only_integers_are_minor_units() -> None:
    for wrong in (1.0, True, "1"):
        with pytest.raises(TypeError):
            Money(wrong, "USD")  # type: ignore[arg-type]


@pytest.mark.parametrize("currency", sorted(CURRENCIES))
def test_decimal_has_the_currency_s_decimals_and_comes_back(currency: str) -> None:
    for minor in (0, 1, 9, 10, 99, 100, 999, 1000, 123456789):
        money = Money(minor, currency)
        assert len(money.decimal.partition(".")[2]) == CURRENCIES[currency]
        assert Money.from_decimal(money.decimal, currency) == money


def test_decimal_of_negative_amounts_keeps_the_sign() -> None:
    assert Money(-5, "USD").decimal == "-0.05"
    assert Money(-12345, "USD").decimal == "-123.45"
    assert Money(-7, "JPY").decimal == "-7"


@pytest.mark.parametrize(
    ("money", "locale", "text"),
    [
        (Money(12500, "USD"), "en_US", "$125.00"),
        (Money(123456789, "USD"), "en-US", "$1,234,567.89"),
        (Money(12500, "EUR"), "de_DE", "125,00\u00a0€"),
        (Money(12500, "JPY"), "en_US", "¥12,500"),
        (Money(1234567, "IQD"), "en_US", "IQD\u00a01,234.567"),  # CLDR alone would print no decimals
        (Money(1234, "KWD"), "en_US", "KWD\u00a01.234"),
        (Money(12000, "INR"), "en_IN", "₹120.00"),
        (Money(-500, "USD"), "en_US", "-$5.00"),
        (Money(10**17, "USD"), "en_US", "$1,000,000,000,000,000.00"),
    ],
)
def test_formatted_uses_our_decimals(money: Money, locale: str, text: str) -> None:
    assert money.formatted(locale) == text


@pytest.mark.parametrize(
    ("locale", "minor", "currency", "text"),
    [
        # As Intl.NumberFormat of Node 20 (CLDR 48) prints them.
        ("fr-CH", 123450, "CHF", "1\u202f234.50\u00a0CHF"),
        ("fr-FR", 123450, "EUR", "1\u202f234,50\u00a0€"),
        ("de-CH", 123450, "CHF", "CHF\u00a01'234.50"),
        ("de-AT", 123450, "EUR", "€\u00a01.234,50"),
        ("ar-EG", 123450, "EGP", "\u200f١٬٢٣٤٫٥٠\u00a0ج.م.\u200f"),
        ("ar-EG", -123450, "EGP", "\u061c-\u200f١٬٢٣٤٫٥٠\u00a0ج.م.\u200f"),
        ("ar-AE", 1234, "KWD", "\u200f1.234\u00a0د.ك.\u200f"),
        ("fa-IR", 123450, "USD", "\u200e$۱٬۲۳۴٫۵۰"),
        ("bn-BD", 12345678, "BDT", "১,২৩,৪৫৬.৭৮৳"),
        ("hi-IN", 12345678, "INR", "₹1,23,456.78"),
        ("es-ES", 123450, "EUR", "1234,50\u00a0€"),
        ("es-ES", 1234500, "EUR", "12.345,00\u00a0€"),
        ("es-MX", 123450, "MXN", "$1,234.50"),
        ("es-AR", 123450, "ARS", "$\u00a01.234,50"),
        ("pt-PT", 123450, "EUR", "1234,50\u00a0€"),
        ("pt-BR", 123450, "BRL", "R$\u00a01.234,50"),
        ("pl-PL", 123450, "PLN", "1234,50\u00a0zł"),
        ("pl-PL", 1234567, "PLN", "12\u00a0345,67\u00a0zł"),
        ("hu-HU", 123450, "HUF", "1234,50\u00a0Ft"),
        ("sv-SE", -123450, "SEK", "−1\u00a0234,50\u00a0kr"),
        ("de-CH", -500, "CHF", "CHF-5.00"),
        ("en-US", 1234, "KWD", "KWD\u00a01.234"),
        ("ja-JP", 1234, "JPY", "￥1,234"),
    ],
)
def test_formatted_follows_cldr(locale: str, minor: int, currency: str, text: str) -> None:
    assert Money(minor, currency).formatted(locale) == text


@pytest.mark.parametrize(
    ("tag", "same_as"),
    [
        ("no-NO", "nb-NO"),
        ("de-US", "de"),
        ("zh-HK", "zh-Hant-HK"),
        ("de-DE-u-nu-latn-cu-usd", "de-DE"),
        ("ar-EG-u-nu-latn", "ar-EG"),
        ("en_GB.UTF-8", "en-GB"),
        ("de_AT@euro", "de-AT"),
        ("FR-ch", "fr-CH"),
        ("iw-IL", "he-IL"),
        ("ca-ES-valencia", "ca-ES"),
        ("en-GB-oxendict", "en-GB"),
        ("de-DE-x-private", "de-DE"),
        *(
            (tag, "en-US")
            for tag in ("", "xx-YY", "tlh-??", "../../etc/passwd", "C", "x-private", "i-klingon", "a" * 10_000, "\0")
        ),
    ],
)
def test_a_tag_without_a_locale_of_its_own_falls_back(tag: str, same_as: str) -> None:
    for minor, currency in ((123450, "EUR"), (-5, "KWD")):
        assert Money(minor, currency).formatted(tag) == Money(minor, currency).formatted(same_as)


@pytest.mark.slow
def test_every_locale_writes_every_currency_with_all_its_digits() -> None:
    for identifier in localedata.locale_identifiers():
        for currency in ("USD", "JPY", "KWD", "IQD"):
            text = Money(1234567, currency).formatted(identifier)
            assert "".join(str(unicodedata.decimal(c)) for c in text if c.isdecimal()) == "1234567", (identifier, text)


@pytest.mark.parametrize(
    ("money", "locale", "text"),
    [
        (Money(12500, "USD"), "en_US", "$125.00"),
        (Money(12500, "EUR"), "de_DE", "125,00 €"),  # the no-break space is not GSM-7, a space is
        (Money(500, "GBP"), "en_GB", "£5.00"),
        (Money(12000, "INR"), "en_IN", "INR 120.00"),
        (Money(12000, "ILS"), "en_US", "ILS 120.00"),
        (Money(125, "USD"), "ar_EG", "USD 1.25"),
    ],
)
def test_sms_text_names_the_code_where_the_symbol_would_cost_a_segment(money: Money, locale: str, text: str) -> None:
    assert money.sms_text(locale) == text
