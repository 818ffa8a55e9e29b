"""Folded text: what people mean by the same word, and what stays another word."""

import pytest

from models import searching


@pytest.mark.parametrize(
    ("stored", "query"),
    [
        ("Søk", "SØK"),
        ("Søk", "sok"),
        ("Straße", "STRASSE"),
        ("STRASSE", "straße"),
        ("Łódź", "lodz"),
        ("Đỗ Đức", "do duc"),
        ("Ærø", "aero"),
        ("İstanbul", "istanbul"),
        ("Işık", "isik"),
        ("ΣΙΣΥΦΟΣ", "Σίσυφος"),
        ("Артём", "артем"),
        ("e\u0301te\u0301", "été"),
        ("Ｆｕｌｌ　Ｗｉｄｔｈ", "full width"),
        ("ﾔﾏﾀﾞ", "ヤマダ"),
        ("مُحَمَّد", "محمد"),
        ("O’Brien–Smith", "o'brien-smith"),
        ("Deep\u00a0 clean", "deep clean"),
        ("ﬁne\u00adtune", "finetune"),
        ("Ma\u200bya", "maya"),
        ("Room ١٢", "room 12"),
        ("I ❤\ufe0f it", "❤"),
    ],
)
def test_the_same_word_is_found_however_it_is_written(stored: str, query: str) -> None:
    assert searching.fold(query) in searching.stored([stored])


@pytest.mark.parametrize(
    ("stored", "query"), [("がっこう", "か"), ("각", "가"), ("ก็", "กี"), ("हिन्दी", "हनद"), ("Maya", "mia")]
)
def test_another_word_is_not(stored: str, query: str) -> None:
    assert searching.fold(query) not in searching.stored([stored])


def test_folding_twice_changes_nothing() -> None:
    for code in range(0x20, 0x30000):
        if not 0xD800 <= code < 0xE000:
            once = searching.fold(chr(code))
            assert searching.fold(once) == once, hex(code)


def test_a_match_never_spans_two_values() -> None:
    assert searching.stored(["Maya", None, "Rossi\nMaya"]) == "maya\nrossi maya"


@pytest.mark.parametrize(
    "typed", ["(0151) 234-56", "0151 23456", "+49 151 234 56", "0049 151/23456", "+49 (0)151 23456", "٠١٥١٢٣٤٥٦"]
)
def test_a_phone_number_is_found_however_it_is_typed(typed: str) -> None:
    assert any(pattern.strip("%") in "+4915123456" for pattern in searching.patterns(searching.terms(typed)))


def test_wildcards_are_escaped_and_nothing_finds_nothing() -> None:
    assert searching.patterns(searching.terms("100%_!")) == ["%100!%!_!!%"]
    assert [searching.terms(text) for text in ("", "  ", "\u200b")] == [[], [], []]


@pytest.mark.parametrize(
    ("query", "currency", "minor"),
    [
        ("125", "USD", 12500),
        ("125", "JPY", 125),
        ("125", "KWD", 125000),
        ("1,250.00", "USD", 125000),
        ("1.250,00 €", "EUR", 125000),
        ("1 250,5", "EUR", 125050),
        ("1'250.00 CHF", "CHF", 125000),
        ("₹1,23,456.78", "INR", 12345678),
        ("R$ 99,90", "BRL", 9990),
        ("١٢٥٫٠٠", "EGP", 12500),
        ("\u200f١٬٢٣٤٫٥٠\u00a0ج.م.\u200f", "EGP", 123450),
        ("1,250", "KWD", 1250),
        ("1,250", "KWD", 1250000),
    ],
)
def test_an_amount_is_read_as_people_write_it(query: str, currency: str, minor: int) -> None:
    assert (currency, minor) in searching.amounts(query)


def test_a_named_currency_is_the_only_one_and_other_text_is_no_amount() -> None:
    assert searching.amounts("usd 125.5") == [("USD", 12550)]
    for text in ("PR-0000008", "Room 12", "-5", "0", "100%", "1.2.3.4", "usd", "", "3.14159", "2 rooms 3"):
        assert searching.amounts(text) == [], text
