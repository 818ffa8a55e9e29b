"""Messages of user errors in the language that the client prefers."""

from __future__ import annotations

import string
from typing import Any

import pytest

from models import errors
from models.ids import uuid7
from models.money import Money
from resolvers.assemble import new_context
from schema.messages import TEXTS, language_of, message_of
from tests.schema.conftest import SCHEMA, Api
from tests.schema.test_mutations import ids
from tests.services.conftest import Team


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("de", "de"),
        ("de-CH,de;q=0.9,en;q=0.8", "de"),
        ("fr;q=0.5, es-MX;q=0.7", "es"),
        ("ja, fr;q=0.4", "fr"),
        ("en-GB, de;q=0.9", "en"),
        ("ja", "en"),
        ("*", "en"),
        ("de;q=0", "en"),
        ("de;q=rubbish, ;;=,", "en"),
        ("x" * 10_000 + ",de", "en"),
    ],
)
def test_the_preferred_known_language_is_chosen(header: str, language: str) -> None:
    assert language_of(header) == language


def test_every_language_has_the_same_codes_and_facts() -> None:
    def shape(texts: Any) -> dict[str, list[str | None]]:
        return {
            code: [name for _, name, _, _ in string.Formatter().parse(text) if name] for code, text in texts.items()
        }

    first, *others = (shape(texts) for texts in TEXTS.values())
    assert len(first) >= 15
    assert all(other == first for other in others)


def test_facts_are_formatted_and_a_more_exact_english_text_stays() -> None:
    least = errors.AmountTooSmall("The smallest amount is $1.50.", minimum=Money(150, "USD"), field="amount")
    assert message_of(least, "de") == "Der kleinste Betrag ist 1,50\xa0$."
    assert message_of(least, "en") == message_of(least, "ja") == "The smallest amount is $1.50."
    assert message_of(errors.AmountTooSmall(field="amount"), "de") == "The amount is below the minimum."
    assert message_of(errors.Invalid("The due date is in the past."), "fr") == "The due date is in the past."
    assert message_of(errors.RateLimited(retry_after_s=7), "es") == "Demasiados intentos. Espere 7 segundos."


async def test_an_answer_is_in_the_clients_language(team: Team, api: Api) -> None:
    document = """mutation($input: CreatePaymentRequestInput!) { createPaymentRequest(input: $input) {
      userErrors { code message } } }"""
    given = {
        "idempotencyKey": str(uuid7()),
        "for": {"contactId": ids(team)["contact"]},
        "productName": " ",
        "description": "x" * 2001,
        "amount": {"amount": "0"},
    }
    said = {}
    for header in ("de-DE,de;q=0.9", "ja"):
        context = new_context(hub=None, viewer=team.agent, accept_language=header)
        answer = await SCHEMA.execute(document, variable_values={"input": given}, context_value=context)
        assert answer.data is not None
        said[header] = [error["message"] for error in answer.data["createPaymentRequest"]["userErrors"]]
    german, english = said.values()
    assert german == [
        "Dieses Feld darf nicht leer sein.",
        "Der kleinste Betrag ist 0,01\xa0$.",
        "Höchstens 2000 Zeichen.",
    ]
    assert english == ["This field can't be blank.", "The smallest amount is $0.01.", "At most 2000 characters."]
