"""The scalars' page and the enums of reasons fit what the product gives and takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from graphql import GraphQLScalarType

from models.ids import uuid7
from models.money import CURRENCIES, InvalidAmount, Money
from resolvers.transport.schema import Schema
from schema import reasons
from schema.connections import CONVERSATIONS
from schema.scalars import SCALARS_PAGE
from services.core.event_hub import ResyncReason
from tests import factories
from tests.schema.conftest import SCHEMA
from tests.schema.test_sdl import VISITOR_SCHEMA

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / SCALARS_PAGE).read_text(encoding="utf-8")
STANDARD = {"String", "Int", "Float", "Boolean", "ID"}


def patterns(heading: str) -> list[re.Pattern[str]]:
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    return [re.compile(found) for found in re.findall(r"`(\^[^`]+\$)`", section)]


@pytest.mark.parametrize("schema", [SCHEMA, VISITOR_SCHEMA], ids=["team", "visitor"])
def test_every_scalar_says_where_it_is_specified(schema: Schema) -> None:
    headings = {f"{SCALARS_PAGE}#{found.lower()}" for found in re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)}
    kinds = [kind for kind in schema._schema.type_map.values() if isinstance(kind, GraphQLScalarType)]
    named = {kind.name: kind.specified_by_url for kind in kinds if kind.name not in STANDARD}
    assert {"BigInt", "CurrencyCode", "Cursor", "DateTime", "Decimal", "URL"} <= set(named)
    assert [name for name, url in named.items() if not (url and (url.startswith("https://") or url in headings))] == []


def test_the_pages_patterns_match_what_the_product_gives_and_takes() -> None:
    given, taken = patterns("Decimal")
    for currency in CURRENCIES:
        for minor in (0, 5, 12_500, -250, 2**63 - 1):
            assert given.match(Money(minor, currency).decimal)
    for text in ("125.00", "0.5", "007", "12", ".5", "1.", "1e3", "1,000", "-1", "+1", "9" * 16, " 1", "1 ", "\u0661"):
        try:
            Money.from_decimal(text, "USD")
        except InvalidAmount:
            assert not taken.fullmatch(text), text
        else:
            assert taken.fullmatch(text), text
    (whole,) = patterns("BigInt")
    assert whole.match("-9223372036854775808")
    assert not whole.match("1.0")
    (cursor,) = patterns("Cursor")
    assert cursor.match(CONVERSATIONS.cursor(factories.now(), uuid7()))


def test_every_reason_of_a_resync_is_in_the_api() -> None:
    assert {member.value for member in ResyncReason} | {"OTHER_EPOCH"} == {
        member.name for member in reasons.ResyncReason
    }


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("fraudulent", "FRAUDULENT"),  # Stripe
        ("noncompliant", "OTHER"),
        ("general", "OTHER"),
        ("product_not_received", "NOT_RECEIVED"),
        ("NO_KNOWLEDGE", "UNRECOGNIZED"),  # Square
        ("CUSTOMER_REQUESTS_CREDIT", "CREDIT_NOT_PROCESSED"),
        ("UNAUTHORISED", "FRAUDULENT"),  # PayPal
        ("MERCHANDISE_OR_SERVICE_NOT_AS_DESCRIBED", "NOT_AS_DESCRIBED"),
        ("acme_reason", "OTHER"),  # a plug-in
        ("", "OTHER"),
    ],
)
def test_a_processors_reason_of_a_dispute_has_its_place(code: str, expected: str) -> None:
    found = reasons.of_dispute(code)
    assert found is not None
    assert found.name == expected


def test_a_code_of_a_file_has_its_place() -> None:
    codes = {"too_large": "TOO_LARGE", "not_https": "NOT_PUBLIC", "unknown_host": "UNREACHABLE", "tls_failed": "OTHER"}
    assert {code: getattr(reasons.of_file(code), "name", None) for code in codes} == codes
    assert reasons.of_file(None) is None
