"""Old rows get their search text once; a newer text stays."""

from __future__ import annotations

import pytest

from models import database as db
from models.tables import Contact, PaymentRequest
from services.accounts import search_index
from tests import factories


@pytest.mark.usefixtures("database")
async def test_rows_without_searched_text_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_index, "BATCH", 2)
    account = await factories.account()
    people = [await factories.contact(account, name=f"Søren {n}") for n in range(5)]
    request = await factories.payment_request(people[0], product_name="Großputz")
    changed_at = {row.id: row.updated_at for row in await Contact.all()}
    await db.execute("UPDATE contact SET search = NULL")
    await db.execute("UPDATE payment_request SET search = NULL")
    await Contact.filter(id=people[4].id).update(search="newer")
    assert await search_index.fill() == 5
    assert await search_index.fill() == 0
    filled = {row.id: row for row in await Contact.all()}
    assert (filled[people[1].id].search or "").split("\n")[0] == "soren 1"
    assert filled[people[4].id].search == "newer"
    assert {row.id: row.updated_at for row in filled.values()} == changed_at
    assert (await PaymentRequest.get(id=request.id)).search == f"{request.number.lower()}\ngrossputz"


@pytest.mark.usefixtures("database")
async def test_saving_some_fields_keeps_the_searched_text_true() -> None:
    contact = await factories.contact(await factories.account(), name="Åse", email=None, phone="+4915123456")
    contact.name = "Øyvind"
    await contact.save(update_fields=["name"])
    assert (await Contact.get(id=contact.id)).search == "oyvind\n+4915123456"
