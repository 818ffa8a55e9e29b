"""The index of searched texts gives the answers of reading every row, in few rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from models import database as db
from models import search_index, searching, tables
from tests import factories
from tests.schema.conftest import Api
from tests.services.conftest import Team

SEARCHES = """query($s: String) {
  contacts(filter: {search: $s}, first: 100) { nodes { id } }
  conversations(filter: {search: $s}, first: 100) { nodes { id } }
  paymentRequests(filter: {search: $s}, first: 100) { nodes { id } } }"""
NAMES = ("Anna", "Ann", "Søren", "李", "李小龍", "x_y%", "O’Brien", "Nana", "𝔸𝕓", "n")


async def fill(account: tables.Account, rng: random.Random) -> None:
    for number in range(12):
        name = " ".join(rng.choices(NAMES, k=2))
        contact = await factories.contact(account, name=name, email=None, phone=f"+4915{rng.randrange(10**5):05}")
        await factories.conversation(contact)
        await factories.payment_request(
            contact, product_name=rng.choice(NAMES), amount_minor=rng.choice((100, 12500, 2**50)), number=f"N-{number}"
        )


def queries(rng: random.Random) -> Iterator[str]:
    yield from (
        "a",
        "n",
        "李",
        "nn",
        "zz",
        "1.00",
        "125",
        "11258999068426.24",
        "n-1",
        "+4915",
        "(0)15",
        "_",
        "%",
        "Ann a",
    )
    for _ in range(20):
        text = " ".join(rng.choices(NAMES, k=2))
        start = rng.randrange(len(text))
        yield text[start : start + rng.randrange(1, 6)]


@pytest.mark.parametrize("most", [search_index.MOST, 3])
async def test_the_index_answers_as_every_row_does(
    team: Team, api: Api, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    async def none(*_: Any) -> None:
        return None

    rng = random.Random(7)
    await fill(team.account, rng)
    await fill(await factories.account(), rng)
    merged, kept = (await tables.Contact.filter(account_id=team.account.id).order_by("id"))[:2]
    await db.execute("UPDATE contact SET merged_into_id = ? WHERE id = ?", kept.id, merged.id)
    kept.also_known_as = merged.name
    kept.name = "Renamed Zoë"
    await kept.save()
    found = 0
    for text in (*queries(rng), "renamed zoe", merged.name):
        with monkeypatch.context() as patched:
            patched.setattr(search_index, "candidates", none)
            plain = await api.all(SEARCHES, {"s": text})
        with monkeypatch.context() as patched:
            patched.setattr(search_index, "MOST", most)
            assert await api.all(SEARCHES, {"s": text}) == plain, text
        found += sum(len(list_["nodes"]) for list_ in plain.values())
    assert found > 100


@pytest.mark.usefixtures("database")
async def test_candidates_follow_every_change() -> None:
    contact = await factories.contact(await factories.account(), name="Anna", email=None, phone=None)
    request = await factories.payment_request(contact, product_name="Deep clean", amount_minor=12500)

    async def found(kind: search_index.Kind, *terms: str, amounts: tuple[int, ...] = ()) -> list[str]:
        candidates = await search_index.candidates(kind, contact.account_id, terms, amounts)
        assert candidates is not None
        return [str(id) for id in candidates]

    assert await found("c", "nna") == await found("c", "a") == [str(contact.id)]
    assert await found("r", "nna") == await found("c", "deep") == []
    assert await found("r", "deep clean") == await found("r", amounts=(1, 12500)) == [str(request.id)]
    contact.name = "Bea"
    await contact.save()
    assert (await found("c", "nna"), await found("c", "be")) == ([], [str(contact.id)])
    await db.execute("UPDATE payment_request SET amount_minor = 700 WHERE id = ?", request.id)
    assert (await found("r", amounts=(12500,)), await found("r", amounts=(700,))) == ([], [str(request.id)])
    await db.execute("UPDATE payment_request SET search = NULL WHERE id = ?", request.id)
    assert await found("r", "deep") == await found("r", amounts=(700,)) == []
    await db.execute("UPDATE payment_request SET search = 'later' WHERE id = ?", request.id)
    assert await found("r", "later") == await found("r", amounts=(700,)) == [str(request.id)]


@pytest.mark.usefixtures("database")
async def test_another_accounts_rows_are_no_candidates() -> None:
    contact = await factories.contact(await factories.account(), name="Anna")
    other = await factories.account()
    assert searching.terms("Anna") == ["anna"]
    assert len(await search_index.candidates("c", contact.account_id, ["anna"]) or ()) == 1
    assert await search_index.candidates("c", other.id, ["anna"]) == []


async def test_without_fts5_a_search_reads_each_row(team: Team, api: Api) -> None:
    contact = await factories.contact(team.account, name="Anna")
    if db.dialect() == "sqlite":
        await db.execute("DROP TABLE search_word")
    answer = await api.all(SEARCHES, {"s": "nna"})
    assert len(answer["contacts"]["nodes"]) == 1
    assert contact.search
