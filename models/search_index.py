"""Finds rows by a part of their searched text without reading the account: `search_text`, kept by triggers (docs/decisions/0017)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal
from uuid import UUID

from tortoise.exceptions import OperationalError

from models import database, searching

Kind = Literal["c", "r", "m"]  # contact, payment_request, message

RUN: Final = 3  # characters
MOST: Final = 1_000  # candidates; with more, a page fills sooner from the list in its own order

_SQLITE: Final = (
    "SELECT t.id FROM search_word CROSS JOIN search_text t ON t.n = search_word.rowid WHERE search_word MATCH ? LIMIT ?"
)
_COUNT: Final = "(SELECT count(*) FROM (SELECT 1 FROM search_word WHERE search_word MATCH ? LIMIT ?))"
PAGE: Final = 100  # the largest
_NEWEST: Final = {
    "c": f"SELECT search FROM contact WHERE account_id = ? ORDER BY id DESC LIMIT {4 * PAGE}",  # noqa: S608 (constants)
    "m": f"SELECT search FROM message WHERE account_id = ? ORDER BY seq DESC LIMIT {4 * PAGE}",  # noqa: S608 (constants)
    "r": f"SELECT search FROM payment_request WHERE account_id = ? ORDER BY created_at DESC, id DESC LIMIT {4 * PAGE}",  # noqa: S608 (constants)
}
_KEYS: Final = "search_keys(kind, account_id, content, amount_minor)"
_AMOUNT: Final = 0x1F_FFFF << 42  # no code point has these bits
_OF_KIND: Final = {"c": 0, "r": 1 << 63, "m": 0x1F_0000}


async def candidates(
    kind: Kind, account_id: UUID, terms: Sequence[str], amounts: Iterable[int] = ()
) -> Sequence[object] | None:
    """Ids of all rows that may contain one of `terms` or have one of `amounts`, and a few more. None: look at each row instead."""
    if kind == "m" and any(len(term) < RUN for term in terms):
        return None  # messages have runs of three only
    if database.dialect() == "sqlite":
        return await _in_sqlite(kind, account_id, terms, amounts)
    if terms and await _fills_a_page(kind, account_id, terms):
        return None
    wanted = [tuple(_key(kind, account_id, run) for run in _runs(term)) for term in terms]
    clauses = [f"{_KEYS} @> ?"] * len(wanted)
    exact = tuple(_key(kind, account_id, amount | _AMOUNT) for amount in amounts)
    if exact:
        wanted.append(exact)
        clauses.append(f"{_KEYS} && ?")
    sql = f"SELECT id FROM search_text WHERE {' OR '.join(clauses)} LIMIT {MOST + 1}"  # noqa: S608 (only constants are put in)
    return _few(await database.records(sql, *wanted))


async def _fills_a_page(kind: Kind, account_id: UUID, terms: Sequence[str]) -> bool:
    # GIN reads all hits of a frequent text before the first row.
    (found,) = await database.records(
        f"SELECT count(*) FROM ({_NEWEST[kind]}) newest WHERE {' OR '.join([searching.CONTAINS] * len(terms))}",  # noqa: S608 (only constants are put in)
        account_id,
        *searching.patterns(terms),
    )
    return int(found[0]) > PAGE


async def _in_sqlite(
    kind: Kind, account_id: UUID, terms: Sequence[str], amounts: Iterable[int]
) -> Sequence[object] | None:
    own = kind + str(account_id)[24:]
    try:
        either = [" AND ".join(await _rare([own + run.encode().hex() for run in _runs(term)])) for term in terms]
        either += [f"{own}x{amount}" for amount in amounts]
        return _few(await database.records(_SQLITE, " OR ".join(f"({words})" for words in either), MOST + 1))
    except (OperationalError, sqlite3.OperationalError) as error:
        if "no such table" in str(error):  # migrated by an SQLite without FTS5
            return None
        raise


async def _rare(words: Sequence[str]) -> Sequence[str]:
    """The rarest word, if it is rare, else all. FTS5 reads the whole list of each word that it intersects."""
    if len(words) == 1:
        return words
    counts = ", ".join([_COUNT] * len(words))
    (found,) = await database.records(f"SELECT {counts}", *(value for word in words for value in (word, MOST + 1)))
    count, word = min(zip(found, words, strict=True))
    return words if count > MOST else [word]


def _few(found: Sequence[Sequence[object]]) -> Sequence[object] | None:
    return None if len(found) > MOST else [row[0] for row in found]


def _runs(term: str) -> Iterator[str]:
    """Runs of at most three characters that cover the term."""
    last = max(0, len(term) - RUN)
    for start in (*range(0, last, RUN), last):
        yield term[start : start + RUN]


def _key(kind: Kind, account_id: UUID, run: str | int) -> int:
    # As search_keys in the migrations. Another account's or kind's key is another number, bar rare accidents.
    if isinstance(run, str):
        points = [*map(ord, run), 0, 0]
        run = points[0] << 42 | points[1] << 21 | points[2]
    hexadecimal = str(account_id)
    key = run ^ int(hexadecimal[-4:] + hexadecimal[-12:], 16) ^ _OF_KIND[kind]
    return key - (1 << 64) if key >= 1 << 63 else key
