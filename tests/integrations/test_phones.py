"""Typed phone numbers become E.164 or None."""

import pytest

from integrations.phones import normalise_phone, spellings


@pytest.mark.parametrize(
    ("text", "region", "expected"),
    [
        ("+14155550101", None, "+14155550101"),
        ("(415) 555-0101", "US", "+14155550101"),
        ("1 415 555 0101", "US", "+14155550101"),
        ("415.555.0101", "US", "+14155550101"),
        (" +44 20 7946 0958 ", "US", "+442079460958"),
        ("020 7946 0958", "GB", "+442079460958"),
        ("011 44 20 7946 0958", "US", "+442079460958"),
        ("+49 (0) 30 901820", "DE", "+4930901820"),
        ("＋1 415‐555‐0101", "US", "+14155550101"),
        ("٠٢٠ ٧٩٤٦ ٠٩٥٨", "GB", "+442079460958"),
        ("+39 06 698 1234", None, "+39066981234"),  # Italy keeps its zero
        ("+52 1 55 1234 5678", None, "+5215512345678"),  # Mexico as WhatsApp spells it
        ("1 55 1234 5678", "MX", "+5215512345678"),
        ("55 1234 5678", "MX", "+525512345678"),
        ("011 15-2345-6789", "AR", "+5491123456789"),
        ("+54 9 11 15 2345 6789", None, "+5491123456789"),
        ("+52 044 55 1234 5678", None, "+525512345678"),
        ("045 55 1234 5678", "MX", "+525512345678"),
        ("01 55 1234 5678", "MX", "+525512345678"),
        ("\u202a+49 171 1234567\u202c", None, "+491711234567"),  # as it is copied from an address book
        ("tel:+49-171-1234567", None, "+491711234567"),
        ("+49 (0)171 1234567", None, "+491711234567"),
        ("+55 (041) 98888-7777", None, "+5541988887777"),
        ("015 41 98888-7777", "BR", "+5541988887777"),
        ("8 926 123-45-67", "RU", "+79261234567"),
        ("+36 06 20 123 4567", None, "+36201234567"),
    ],
)
def test_a_number_becomes_e164(text: str, region: str | None, expected: str) -> None:
    assert normalise_phone(text, region) == expected


def test_normalising_twice_changes_nothing() -> None:
    once = normalise_phone("(415) 555-0101", "US")
    assert once is not None
    assert normalise_phone(once, "GB") == once


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("", "US"),
        ("+", "US"),
        ("911", "US"),
        ("555-0101", "US"),  # no area code
        ("4155550101", None),  # no plus, no region
        ("4155550101", "ZZ"),
        ("1-800-FLOWERS", "US"),
        ("+1 415 555 0101 ext. 5", "US"),
        ("call 415 555 0101", "US"),
        ("415 555 0101; 415 555 0102", "US"),
        ("++14155550101", None),
        ("+999 123 456 789", None),
        ("+1" + "5" * 30, None),
        ("dana@example.test", "US"),
        ("4155550101\x00", "US"),
    ],
)
def test_what_cannot_be_a_number_is_refused(text: str, region: str | None) -> None:
    assert normalise_phone(text, region) is None


@pytest.mark.parametrize(
    ("number", "all_spellings"),
    [
        ("+5215512345678", ("+525512345678", "+5215512345678")),
        ("+525512345678", ("+525512345678", "+5215512345678")),
        ("+554188887777", ("+5541988887777", "+554188887777")),
        ("+5541988887777", ("+5541988887777", "+554188887777")),
        ("+541123456789", ("+5491123456789", "+541123456789")),
        ("+5491123456789", ("+5491123456789", "+541123456789")),
        ("+22997123456", ("+2290197123456", "+22997123456")),
        ("+551133334444", ("+551133334444",)),  # a landline: another telephone than +55 11 9 3333 4444
        ("+5511933334444", ("+5511933334444",)),
        ("+14155550101", ("+14155550101",)),
        ("+52551234567", ("+52551234567",)),
        ("dana@example.test", ("dana@example.test",)),
    ],
)
def test_a_telephone_has_the_same_spellings_whichever_is_given(number: str, all_spellings: tuple[str, ...]) -> None:
    assert spellings(number) == all_spellings
    assert all(spellings(other) == all_spellings for other in all_spellings)
