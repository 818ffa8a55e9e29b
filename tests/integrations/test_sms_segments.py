"""Segments of text messages and opt-out words."""

import pytest

from integrations.sms import SmsSegments, asks_help, is_gsm7, opt_out_word, outside_gsm7, segments


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", SmsSegments("GSM-7", 0, 0, 160)),
        ("a", SmsSegments("GSM-7", 1, 1, 159)),
        ("a" * 160, SmsSegments("GSM-7", 160, 1, 0)),
        ("a" * 161, SmsSegments("GSM-7", 161, 2, 145)),
        ("a" * 306, SmsSegments("GSM-7", 306, 2, 0)),
        ("a" * 307, SmsSegments("GSM-7", 307, 3, 152)),
        ("€" * 80, SmsSegments("GSM-7", 160, 1, 0)),
        ("€" * 81, SmsSegments("GSM-7", 162, 2, 143)),
        ("ж" * 70, SmsSegments("UCS-2", 70, 1, 0)),
        ("ж" * 71, SmsSegments("UCS-2", 71, 2, 63)),
        ("ж" * 134, SmsSegments("UCS-2", 134, 2, 0)),
        ("ж" * 135, SmsSegments("UCS-2", 135, 3, 66)),
        ("👍" * 35, SmsSegments("UCS-2", 70, 1, 0)),
        ("👍" * 36, SmsSegments("UCS-2", 72, 2, 61)),
        ("a" * 69 + "’", SmsSegments("UCS-2", 70, 1, 0)),
        ("a" * 1600, SmsSegments("GSM-7", 1600, 11, 83)),
    ],
)
def test_a_text_costs_the_documented_segments(text: str, expected: SmsSegments) -> None:
    assert segments(text) == expected


def test_an_escaped_character_is_never_cut_in_half() -> None:
    # 152 + the two septets of € do not fit into 153: the second part begins with €, and 306 septets need a third.
    assert segments("a" * 152 + "€" + "a" * 152) == SmsSegments("GSM-7", 306, 3, 152)


def test_a_surrogate_pair_is_never_cut_in_half() -> None:
    # 33 thumbs fill 66 of 67 units; the 34th begins the next part.
    assert segments("👍" * 67) == SmsSegments("UCS-2", 134, 3, 65)


def test_what_forces_a_text_into_ucs2_is_named_once_each_in_order() -> None:
    assert outside_gsm7("Zahlen Sie 5 € – „danke“ – 👍", limit=5) == ["–", "„", "“", "👍"]
    assert outside_gsm7("абвгдеж", limit=5) == ["а", "б", "в", "г", "д"]
    assert outside_gsm7("Only GSM-7: é [€]", limit=5) == []


@pytest.mark.parametrize(
    ("price", "count"), [("$", 1), ("£", 1), ("€", 1), ("R$", 1), ("₹", 2), ("₦", 2), ("₱", 2), ("INR ", 1)]
)
def test_the_currency_sign_decides_what_a_payment_text_costs(price: str, count: int) -> None:
    text = f"Acme Cleaning: {price}120.00 for Deep clean. Pay here: https://pay.acme-cleaning.example/p/{'x' * 22}"
    assert segments(text).count == count


def test_gsm7_holds_its_extension_and_not_the_typographic_quote() -> None:
    assert is_gsm7("Ünïcødé"[0] + "[~]€\n")
    assert not is_gsm7("’")
    assert not is_gsm7("ç")  # the alphabet has only the capital one


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((word, True) for word in ("STOP", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "STOPALL", " stop\n", "Quit")),
        *((word, True) for word in ("stop.", "Stop!!", '"STOP"', "Stop all", "un-subscribe", "  Stop\n\n")),
        *((word, False) for word in ("START", "YES", " yes ", "Unstop", "Yes!", "start.")),
        *(
            (text, None)
            for text in ("", "HELP", "stop it please", "please stop", "yes please", "ok", "!", "stop" + " " * 40)
        ),
    ],
)
def test_only_a_bare_word_opts_out_or_in(text: str, expected: bool | None) -> None:
    assert opt_out_word(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((word, True) for word in ("STOP", "stop.", "Stop all", "un-subscribe")),
        ("Start!", False),
        *((word, None) for word in ("Cancel", "End", "QUIT", "Yes", "Unstop", "please stop", "")),
    ],
)
def test_off_phones_only_words_with_no_other_meaning_opt_out_or_in(text: str, expected: bool | None) -> None:
    assert opt_out_word(text, by_phone=False) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("HELP", True), (" help! ", True), ("Info", True), ("help me", False), ("", False), ("STOP", False)],
)
def test_only_a_bare_word_asks_for_help(text: str, expected: bool) -> None:
    assert asks_help(text) is expected
