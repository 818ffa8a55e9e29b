"""Conditions of searches by text: few candidates from the index, or each row of the page's order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple
from uuid import UUID

from models import database, search_index, searching


class Condition(NamedTuple):
    where: str
    values: list[Any]
    few: bool  # it names the rows that may match: no index of the account is wanted


_NOTHING: Final = Condition("1 = 0", [], few=False)


async def contacts_matching(account_id: UUID, terms: Sequence[str]) -> Condition:
    """A condition on contact."""
    candidates = await search_index.candidates("c", account_id, terms)
    return _contact_contains(account_id, terms, candidates)


async def conversations_matching(account_id: UUID, terms: Sequence[str]) -> Condition:
    """A condition on conversation."""
    candidates = await search_index.candidates("c", account_id, terms)
    if candidates is None:
        # A scalar: asked row by row, until the page is full.
        where, values, _ = _contact_contains(account_id, terms, None)
        scalar = f"(SELECT {where} FROM contact WHERE contact.id = conversation.contact_id)"  # noqa: S608 (only constants are put in)
        return Condition(scalar, values, few=False)
    return _of_contacts(account_id, terms, candidates)


async def requests_matching(account_id: UUID, search: str, terms: Sequence[str]) -> Condition:
    """A condition on payment_request: its number, product or amount, or its contact."""
    amounts = _amounts(search)
    own = await search_index.candidates("r", account_id, terms, [minor for minor, _ in amounts])
    contacts = await search_index.candidates("c", account_id, terms)
    of_contact, of_contact_values, few = await _request_contact(account_id, terms, contacts)
    either, values = [_like(len(terms)), of_contact], [*searching.patterns(terms), *of_contact_values]
    for minor, currencies in amounts:
        either.append(f"(amount_minor = ? AND currency IN ({database.placeholders(len(currencies))}))")
        values += [minor, *currencies]
    where = f"({' OR '.join(either)})"
    if own is None or not few:
        return Condition(where, values, few=False)
    # A contact may have more requests than there are candidates.
    of_contacts: Sequence[Sequence[object]] = ()
    if of_contact_values:
        of_contacts = await database.records(
            f"SELECT id FROM payment_request WHERE {of_contact} LIMIT {search_index.MOST + 1}",  # noqa: S608 (only constants are put in)
            *of_contact_values,
        )
    if len(own) + len(of_contacts) > search_index.MOST:
        return Condition(where, values, few=False)
    within, ids = database.among("id", [*own, *(row[0] for row in of_contacts)])
    return Condition(f"{where} AND {within}", [*values, ids], few=True)


async def messages_matching(account_id: UUID, terms: Sequence[str]) -> Condition:
    """A condition on message, without the account's."""
    candidates = await search_index.candidates("m", account_id, terms)
    where, values = _like(len(terms)), [*searching.patterns(terms)]
    if candidates is None:
        return Condition(where, values, few=False)
    within, ids = database.among("id", candidates)
    return Condition(f"{where} AND {within}", [*values, ids], few=True)


async def _request_contact(account_id: UUID, terms: Sequence[str], candidates: Sequence[object] | None) -> Condition:
    # A request keeps its first contact after a merge; the kept contact has the searched text of all.
    where, values, _ = _contact_contains(account_id, terms, candidates)
    if not candidates and candidates is not None:
        return Condition("1 = 0", [], few=True)
    if candidates is None:
        kept = "SELECT coalesce(c.merged_into_id, c.id) FROM contact c WHERE c.id = payment_request.contact_id"
        return Condition(f"(SELECT {where} FROM contact WHERE contact.id = ({kept}))", values, few=False)  # noqa: S608 (only constants are put in)
    matching = await database.records(f"SELECT id FROM contact WHERE {where}", *values)  # noqa: S608 (only constants are put in)
    kept_ids = [row[0] for row in matching]
    within, ids = database.among("merged_into_id", kept_ids)
    merged = await database.records(f"SELECT id FROM contact WHERE {within}", ids)  # noqa: S608 (only constants are put in)
    within, ids = database.among("contact_id", [*kept_ids, *(row[0] for row in merged)])
    return Condition(within, [ids], few=True)


def _of_contacts(account_id: UUID, terms: Sequence[str], candidates: Sequence[object]) -> Condition:
    if not candidates:
        return _NOTHING
    where, values, _ = _contact_contains(account_id, terms, candidates)
    return Condition(f"contact_id IN (SELECT id FROM contact WHERE {where})", values, few=True)  # noqa: S608 (only constants are put in)


def _contact_contains(account_id: UUID, terms: Sequence[str], candidates: Sequence[object] | None) -> Condition:
    clause, values = f"merged_into_id IS NULL AND {_like(len(terms))}", [account_id, *searching.patterns(terms)]
    if candidates is None:
        return Condition(f"account_id = ? AND {clause}", values, few=False)
    within, ids = database.among("id", candidates)
    return Condition(f"{database.OF_ACCOUNT} AND {clause} AND {within}", [*values, ids], few=True)


def _like(count: int) -> str:
    return f"({' OR '.join([searching.CONTAINS] * count)})"


def _amounts(search: str) -> list[tuple[int, list[str]]]:
    found: defaultdict[int, list[str]] = defaultdict(list)
    for currency, minor in searching.amounts(search):
        found[minor].append(currency)
    return sorted(found.items())
