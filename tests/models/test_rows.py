"""Rows through raw SQL are those that the ORM reads and writes."""

from __future__ import annotations

import pytest

from models import database as raw
from models import rows
from models.ids import uuid7
from models.tables import Account, CheckoutSession, Contact, MoneyFact, PaymentRequest
from tests import factories


@pytest.mark.usefixtures("database")
async def test_found_rows_equal_the_orms() -> None:
    contact = await factories.contact(await factories.account(), tags=["a", "ü"], merged_ids=[str(uuid7())])
    request = await factories.payment_request(contact, due_at=factories.now(), description="Über alles")
    session = await factories.checkout_session(request)
    for model, id in ((Contact, contact.id), (PaymentRequest, request.id), (CheckoutSession, session.id)):
        read = await model.get(id=id)
        found = await rows.first(model, "WHERE id = ?", id)
        assert found is not None
        assert found.__dict__ == read.__dict__
    assert await rows.first(Contact, "WHERE id = ?", uuid7()) is None


@pytest.mark.usefixtures("database")
async def test_added_rows_equal_the_orms() -> None:
    contact = await factories.contact(await factories.account())
    added = [Contact(id=uuid7(), account_id=contact.account_id, name=f"Ü {n}", tags=["customer"]) for n in range(3)]
    await rows.add(added)
    await rows.add([])
    for row in added:
        read = await Contact.get(id=row.id)
        assert all(getattr(read, name) == getattr(row, name) for name in rows.names(Contact))
        assert read.created_at is not None


@pytest.mark.usefixtures("database")
async def test_a_known_row_is_not_added_and_the_transaction_goes_on() -> None:
    request = await factories.payment_request(await factories.contact(await factories.account()))
    fact = await factories.money_fact(request)
    again = MoneyFact(**{name: getattr(fact, name) for name in rows.names(MoneyFact)} | {"id": uuid7()})
    other = MoneyFact(**{name: getattr(again, name) for name in rows.names(MoneyFact)} | {"external_id": "other"})
    async with raw.transaction():
        assert not await rows.add_unless_known(again)
        assert await rows.add_unless_known(other)
    assert {found.id for found in await MoneyFact.all()} == {fact.id, other.id}


@pytest.mark.usefixtures("database")
async def test_update_stores_the_named_columns_only() -> None:
    contact = await factories.contact(await factories.account(), name="Before")
    before = contact.updated_at
    contact.name, contact.email, contact.tags = "After", "not@stored.test", ["x"]
    await rows.update(contact, ("name", "tags", "updated_at"))
    read = await Contact.get(id=contact.id)
    assert (read.name, read.email, read.tags) == ("After", None, ["x"])
    assert read.updated_at > before


@pytest.mark.usefixtures("database")
async def test_a_text_that_is_too_long_is_refused_on_both_engines() -> None:
    account = await factories.account()
    with pytest.raises(ValueError, match=r"contact\.name: longer than 120 characters"):
        await rows.add([Contact(id=uuid7(), account_id=account.id, name="x" * 121)])
    account.locale = "x" * 21
    with pytest.raises(ValueError, match="locale"):
        await rows.update(account, ("locale",))
    assert (await Account.get(id=account.id)).locale == "en-US"


@pytest.mark.usefixtures("database")
async def test_records_reads_what_its_transaction_has_written() -> None:
    request = await factories.payment_request(await factories.contact(await factories.account()))
    async with raw.transaction():
        card = await factories.activity_card(request)
        card.id, card.key, card.kind, card.seq, card.text = uuid7(), "k", "REFUND_ISSUED", 2, "\x00odd"
        await rows.add([card])
        ((text,),) = await raw.records("SELECT text FROM activity_card WHERE id = ?", card.id)
        assert text == "\ufffdodd"
    ((n,),) = await raw.records("UPDATE account SET event_seq = event_seq + 1 RETURNING event_seq")
    assert int(n) == 2


@pytest.mark.usefixtures("database")
async def test_queries_together_give_the_rows_of_each() -> None:
    contact = await factories.contact(await factories.account(), tags=["a"], merged_ids=[str(uuid7())])
    request = await factories.payment_request(contact, due_at=factories.now())
    await factories.payment_request(contact, due_at=factories.now().replace(microsecond=120_000))
    async with raw.transaction():
        contacts, requests, none, sums = await raw.records_together(
            rows.query(Contact, "WHERE id = ?", contact.id),
            rows.query(PaymentRequest, "WHERE contact_id = ? ORDER BY id DESC", contact.id),
            rows.query(Contact, "WHERE id = ?", uuid7()),
            (
                "SELECT count(*), sum(amount_minor), max(created_at), 'it''s ?' FROM payment_request WHERE amount_minor > ?",
                [1],
            ),
        )
    assert [rows.from_record(Contact, record).__dict__ for record in contacts] == [
        (await Contact.get(id=contact.id)).__dict__
    ]
    read = await PaymentRequest.filter(contact_id=contact.id).order_by("-id")
    assert [rows.from_record(PaymentRequest, record).__dict__ for record in requests] == [row.__dict__ for row in read]
    assert list(none) == []
    assert [int(sums[0][0]), int(sums[0][1]), sums[0][3]] == [2, 2 * request.amount_minor, "it's ?"]


@pytest.mark.usefixtures("database")
async def test_changes_together_are_all_made() -> None:
    contact = await factories.contact(await factories.account())
    contact.name = "After"
    others = [Contact(id=uuid7(), account_id=contact.account_id, name=f"New {n}", tags=["x"]) for n in range(2)]
    async with raw.transaction():
        await raw.write_together()
        await raw.write_together(
            rows.assignment(contact, ["name"]),
            rows.insertion(others),
            ("UPDATE account SET name = ? WHERE id = ?", ["Renamed", contact.account_id]),
        )
    assert {row.name for row in await Contact.all()} == {"After", "New 0", "New 1"}
    assert (await Account.get(id=contact.account_id)).name == "Renamed"
