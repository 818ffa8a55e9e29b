"""A new payment request for a contact, a conversation, or a contact that is created with it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from models import errors
from models.ids import public_id
from models.tables import Contact, ContactAddress, PaymentRequest
from services.payments import payment_requests
from services.payments.request_recipients import NewContact
from tests import factories
from tests.services.conftest import Team, counts, kinds_logged

TABLES = ("contact", "contact_address", "conversation", "payment_request", "event", "audit_entry", "idempotency_key")
ANN = NewContact(name="Ann", email="ann@example.com", addresses=(("WEB_CHAT", "visitor-9"),))


async def create(team: Team, **given: Any) -> PaymentRequest:
    values: dict[str, Any] = {"product_name": "Deep clean", "amount": "125.00", "idempotency_key": str(uuid4())}
    return await payment_requests.create(team.agent, **values | given)


async def test_a_conversation_names_its_contact(team: Team) -> None:
    request = await create(team, conversation_id=team.conversation.id)
    assert (request.contact_id, request.conversation_id) == (team.contact.id, team.conversation.id)
    with pytest.raises(errors.NotFound) as refused:
        await create(team, conversation_id=UUID(int=1))
    assert refused.value.field == ("for", "conversationId")


async def test_a_new_contact_and_its_request_are_created_once_per_key(team: Team) -> None:
    before = await counts(*TABLES)
    key = str(uuid4())
    first, again = [await create(team, new_contact=ANN, idempotency_key=key) for _ in range(2)]
    assert again.id == first.id
    contact = await Contact.get(id=first.contact_id)
    assert (contact.name, contact.email) == ("Ann", "ann@example.com")
    assert await ContactAddress.filter(contact_id=contact.id).order_by("kind").values_list("kind", "address") == [
        ("EMAIL", "ann@example.com"),
        ("WEB_CHAT", "visitor-9"),
    ]
    after = await counts(*TABLES)
    assert {name: after[name] - before[name] for name in ("contact", "conversation", "payment_request")} == {
        "contact": 1,
        "conversation": 1,
        "payment_request": 1,
    }
    new, conversation, request, totals = await kinds_logged(team.account.id)
    assert (new, conversation) == ("contact.updated", "conversation.updated")
    assert (request, totals) == ("payment_request.created", "contact.updated")
    with pytest.raises(errors.IdempotencyKeyParameterMismatch):
        await create(team, new_contact=NewContact(name="Anna", email="ann@example.com"), idempotency_key=key)


async def test_every_wrong_field_of_both_is_named_and_neither_is_created(team: Team) -> None:
    before = await counts(*TABLES)
    taken = team.addresses["EMAIL"].address
    wrong = NewContact(name=" ", email=taken, phone="12", addresses=(("WEB_CHAT", ""),))
    with pytest.raises(errors.Refusal) as refused:
        await create(team, new_contact=wrong, amount="0", product_name="", idempotency_key="short")
    at = ("for", "newContact")
    assert {(each.code, each.field) for each in refused.value.all} == {
        ("INVALID", ("idempotencyKey",)),
        ("BLANK", (*at, "name")),
        ("ALREADY_USED", (*at, "email")),
        ("INVALID", (*at, "phone")),
        ("BLANK", (*at, "addresses", "0", "address")),
        ("BLANK", ("productName",)),
        ("AMOUNT_TOO_SMALL", ("amount", "amount")),
    }
    assert await counts(*TABLES) == before


async def test_a_wrong_key_creates_neither(team: Team) -> None:
    before = await counts(*TABLES)
    with pytest.raises(errors.Invalid) as refused:
        await create(team, new_contact=ANN, idempotency_key="short")
    assert [each.field for each in refused.value.all] == [("idempotencyKey",)]
    assert await counts(*TABLES) == before


async def test_a_taken_address_names_its_contact_also_beside_a_wrong_amount(team: Team) -> None:
    other = await factories.contact(team.account, name="Bo")
    await factories.contact_address(other, "EMAIL", address="ann@example.com")
    with pytest.raises(errors.Refusal) as refused:
        await create(team, new_contact=ANN, amount="0")
    found = {each.field: each for each in refused.value.all}
    assert set(found) == {("for", "newContact", "email"), ("amount", "amount")}
    used = found["for", "newContact", "email"]
    assert isinstance(used, errors.AlreadyUsed)
    assert used.current == public_id("cnt", other.id)


async def test_of_two_calls_for_one_address_one_creates_both_and_the_other_nothing(team: Team) -> None:
    answers = await asyncio.gather(*(create(team, new_contact=ANN) for _ in range(4)), return_exceptions=True)
    made = [answer for answer in answers if isinstance(answer, PaymentRequest)]
    refused = [answer for answer in answers if isinstance(answer, errors.AlreadyUsed)]
    assert (len(made), len(refused)) == (1, 3)
    assert {each.current for each in refused} == {public_id("cnt", made[0].contact_id)}
    assert all(each.field is not None and each.field[:2] == ("for", "newContact") for each in refused)
    assert await Contact.filter(name="Ann").count() == await PaymentRequest.all().count() == 1
