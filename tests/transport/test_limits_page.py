"""docs/limits.md says what is enforced."""

from __future__ import annotations

import json
import re
from pathlib import Path

from graphql import parse

from models.event_log import RETENTION
from resolvers.transport.document_size import measure
from resolvers.transport.limits import Limits
from resolvers.visitor.assemble import LIMITS as OF_VISITORS
from schema.connections import LARGEST_COUNT, LARGEST_PAGE
from services.core.event_hub import follow
from services.lists import filters
from tests.schema.conftest import SCHEMA

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
UNITS = {
    "tokens": "{} tokens",
    "document_chars": "{} characters",
    "document_lines": "{} lines",
    "errors": "the first {} that",
    "depth": "{} levels below",
    "aliases": "| aliases | {}",
    "directives": "{} in all",
    "directives_on_one_field": "{} on one field",
    "cost": "{} points",
    "body_bytes": "{} bytes",
    "body_s": "within {} s",
    "operation_s": "{} s per operation",
    "init_s": "within {} s",
    "operations_per_socket": "{} per socket",
    "sockets": "{} per process",
    "sockets_per_token": "{} per token",
    "messages_per_s": "{} per second (",
    "messages_burst": "bursts of {} (",
    "requests_per_s": "{} per second and user",
    "requests_burst": "bursts of {} (",
    "stalled_s": "for {} s is disconnected",
}


def shown(value: float) -> str:
    return f"{int(value):,}"


def test_the_page_names_every_limit() -> None:
    assert set(UNITS) == set(Limits.__slots__)
    for name, text in UNITS.items():
        here, visitors = getattr(Limits(), name), getattr(OF_VISITORS, name)
        assert text.format(shown(here)) in PAGE, name
        if here != visitors:
            assert re.search(rf"{re.escape(text.format(shown(here)).rstrip('('))}[^|]*\({shown(visitors)}\)", PAGE), (
                name
            )


def test_the_page_names_the_limits_of_lists_and_feeds() -> None:
    expected = [
        f"1 to {LARGEST_PAGE}",
        f"counted up to {LARGEST_COUNT:,}",
        f"{filters.MOST_LEVELS} levels, {filters.MOST_CONDITIONS} conditions, {filters.MOST_VALUES} values",
        f"a search of {filters.LONGEST_SEARCH} characters",
        f"the last {RETENTION.days} days, at most {(follow.__kwdefaults__ or {})['backlog_limit']:,} events",
    ]
    assert [text for text in expected if text not in PAGE] == []


def test_the_pages_example_costs_what_it_says() -> None:
    (document,) = re.findall(r"```graphql\n(.*?)```", PAGE, re.DOTALL)
    (answer,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert json.loads(answer)["extensions"]["cost"] == {
        "requested": measure(SCHEMA._schema, parse(document)).cost,
        "limit": Limits().cost,
    }
