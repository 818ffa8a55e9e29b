"""Conditions of searches by text: few candidates from the index, or each row of the page's order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from models import database, search_index, searching
from schema.failures import bad_request

LIMIT: Final = 100  # characters

_Condition = tuple[str, list[Any]]
_NOTHING: Final[_Condition] = ("1 = 0", [])


def terms(search: str | None) -> list[str]:
    """Raises: ApiError BAD_REQUEST."""
    text = search or ""
    if len(text.strip()) > LIMIT or "\x00" in text:
        raise bad_request(f"`search` must be text of at most {LIMIT} characters.")
    return searching.terms(text)


async def contacts_matching(account_id: UUID, terms: Sequence[str]) -> _Condition:
    """A condition on contact."""
    candidates = await search_index.candidates("c", account_id, terms)
    where, values = _contact_contains(account_id, terms)
    if candidates is None:
        return where, values
    within, ids = database.among("id", candidates)
    return f"{where} AND {within}", [*values, ids]


async def conversations_matching(account_id: UUID, terms: Sequence[str]) -> _Condition:
    """A condition on conversation."""
    candidates = await search_index.candidates("c", account_id, terms)
    if candidates is None:
        where, values = _contact_contains(account_id, terms)
        # A scalar: asked row by row, until the page is full.
        return f"(SELECT {where} FROM contact WHERE contact.id = conversation.contact_id)", values  # noqa: S608 (only constants are put in)
    return _of_contacts(account_id, terms, candidates)


async def requests_matching(account_id: UUID, search: str, terms: Sequence[str]) -> _Condition:
    """A condition on payment_request: its number, product or amount, or its contact."""
    amounts = _amounts(search)
    own = await search_index.candidates("r", account_id, terms, [minor for minor, _ in amounts])
    contacts = await search_index.candidates("c", account_id, terms)
    of_contact, of_contact_values = _request_contact(account_id, terms, contacts)
    either, values = [_like(len(terms)), of_contact], [*searching.patterns(terms), *of_contact_values]
    for minor, currencies in amounts:
        either.append(f"(amount_minor = ? AND currency IN ({database.placeholders(len(currencies))}))")
        values += [minor, *currencies]
    where = f"({' OR '.join(either)})"
    if own is None or contacts is None:
        return where, values
    # A contact may have more requests than there are candidates.
    of_contacts = await database.records(
        f"SELECT id FROM payment_request WHERE {of_contact} LIMIT {search_index.MOST + 1}",  # noqa: S608 (only constants are put in)
        *of_contact_values,
    )
    if len(own) + len(of_contacts) > search_index.MOST:
        return where, values
    within, ids = database.among("id", [*own, *(row[0] for row in of_contacts)])
    return f"{where} AND {within}", [*values, ids]


def _request_contact(account_id: UUID, terms: Sequence[str], candidates: Sequence[object] | None) -> _Condition:
    # A request keeps its first contact after a merge; the kept contact has the searched text of all.
    if candidates is None:
        where, values = _contact_contains(account_id, terms)
        kept = "SELECT coalesce(c.merged_into_id, c.id) FROM contact c WHERE c.id = payment_request.contact_id"
        return f"(SELECT {where} FROM contact WHERE contact.id = ({kept}))", values  # noqa: S608 (only constants are put in)
    clause, values = _of_contacts(account_id, terms, candidates)
    if not values:
        return _NOTHING
    merged = f"contact_id IN (SELECT id FROM contact WHERE {clause.replace('contact_id', 'merged_into_id', 1)})"  # noqa: S608 (only constants are put in)
    return f"({clause} OR {merged})", [*values, *values]


def _of_contacts(account_id: UUID, terms: Sequence[str], candidates: Sequence[object]) -> _Condition:
    if not candidates:
        return _NOTHING
    where, values = _contact_contains(account_id, terms)
    within, ids = database.among("id", candidates)
    return f"contact_id IN (SELECT id FROM contact WHERE {where} AND {within})", [*values, ids]  # noqa: S608 (only constants are put in)


def _contact_contains(account_id: UUID, terms: Sequence[str]) -> _Condition:
    where = f"account_id = ? AND merged_into_id IS NULL AND {_like(len(terms))}"
    return where, [account_id, *searching.patterns(terms)]


def _like(count: int) -> str:
    clauses = ["search LIKE ? ESCAPE '!'"] * count
    return f"({' OR '.join(clauses)})"


def _amounts(search: str) -> list[tuple[int, list[str]]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for currency, minor in searching.amounts(search):
        found[minor].append(currency)
    return sorted(found.items())
