"""The demo account: created once however often it is seeded, closed in production."""

from __future__ import annotations

from typing import Any

import pytest

from models import database as db
from models.money import exponent_of
from models.tables import (
    Account,
    ActivityCard,
    ApiKey,
    ChannelConnection,
    Contact,
    ContactAddress,
    ContactSummary,
    Message,
    Notification,
    PaymentRequest,
    User,
)
from services.accounts import authentication, login
from services.connections import providers
from services.demo import seed
from services.thread import contact_totals, payment_links
from settings import Settings
from tests.services.conftest import counts

TABLES = (
    "account",
    "user_account",
    "contact",
    "message",
    "payment_request",
    "money_fact",
    "activity_card",
    "event",
    "job",
)


async def test_the_demo_looks_like_a_business_at_work(configured: Settings) -> None:
    access = await seed.seed(configured)
    account = await Account.get()
    assert access.account_id == account.id
    assert await User.filter(account_id=account.id).count() == 2
    kinds = {row.kind for row in await ChannelConnection.filter(provider="simulated", connected=True)}
    assert kinds == {"SMS", "EMAIL", "WHATSAPP", "INSTAGRAM_DM", "MESSENGER", "WEB_CHAT"}
    assert await Contact.all().count() == 6
    assert await ContactAddress.all().count() == 36
    processor = await providers.default_processor(account.id)
    assert processor is not None
    assert (processor.processor, processor.test_mode) == ("sandbox", True)
    requests = await PaymentRequest.all().order_by("id")
    assert {request.status for request in requests} >= {"DRAFT", "SENT", "PAID", "VOID"}
    assert len({request.currency for request in requests}) >= 4
    assert {exponent_of(request.currency) for request in requests} == {0, 2, 3}
    for contact in await Contact.all():
        directions = {row.direction for row in await Message.filter(contact_id=contact.id)}
        assert directions == {"INBOUND", "OUTBOUND"}
    assert await Notification.filter(kind="PAYMENT_RECEIVED").count() == 2


async def test_it_was_made_through_the_services(configured: Settings) -> None:
    access = await seed.seed(configured)
    for request in await PaymentRequest.all():
        kinds = [card.kind for card in await ActivityCard.filter(payment_request_id=request.id).order_by("seq")]
        assert kinds.count("PAYMENT_REQUEST") == (0 if request.status == "DRAFT" else 1)
        assert kinds.count("PAYMENT_RECEIVED") == (1 if request.status == "PAID" else 0)
        assert kinds.count("REQUEST_VOIDED") == (1 if request.status == "VOID" else 0)
        if request.sent_via == "MESSAGE":
            message = await Message.get(id=request.last_message_id)
            assert payment_links.checkout_url(request) in message.body
    for contact in await Contact.all():
        stored = {(s.currency, s.test_mode): s for s in await ContactSummary.filter(contact_id=contact.id)}
        recomputed = await contact_totals.recompute(access.account_id, contact.id)
        assert set(stored) == set(recomputed)
        for key, totals in recomputed.items():
            assert {name: getattr(stored[key], name) for name in totals} == totals
    numbers = [int(row["seq"]) for row in await db.rows("SELECT seq FROM event ORDER BY seq")]
    assert numbers == list(range(1, len(numbers) + 1))


async def test_a_second_seeding_finds_what_is_there(configured: Settings) -> None:
    first = await seed.seed(configured)
    before = await counts(*TABLES)
    assert await seed.seed(configured) == first
    assert await counts(*TABLES) == before


async def test_a_seeding_that_was_cut_off_is_finished_without_doubles(
    configured: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stories = seed.STORIES

    async def cut(scene: seed.Scene) -> None:
        await stories[5].play(scene)
        raise ConnectionError("the process died")

    broken = seed.Story(slug="maya", name=stories[5].name, email=stories[5].email, phone=stories[5].phone, play=cut)
    monkeypatch.setattr(seed, "STORIES", (*stories[:5], broken))
    with pytest.raises(ConnectionError):
        await seed.seed(configured)
    assert await ApiKey.all().count() == 0
    monkeypatch.setattr(seed, "STORIES", stories)
    before = await counts(*TABLES)
    await seed.seed(configured)
    assert await counts(*TABLES) == before | {"event": before["event"] + 1}  # the API key's
    assert await ApiKey.all().count() == 1


async def test_the_printed_sign_in_and_key_work(configured: Settings) -> None:
    access = await seed.seed(configured)
    tokens = await login.sign_in(access.email, access.password, client_address=None)
    person = await authentication.authenticate(tokens.access_token)
    program = await authentication.authenticate(access.api_key)
    assert person is not None
    assert program is not None
    assert (person.account_id, person.role) == (access.account_id, "OWNER")
    assert (program.account_id, program.role, program.kind) == (access.account_id, "ADMIN", "api_key")
    assert access.api_key not in str([row.__dict__ for row in await ApiKey.all()])


async def test_the_key_follows_from_the_secret_keys(configured: Settings) -> None:
    given: dict[str, Any] = {"environment": "test", "secret_keys": "another-key-entirely"}
    assert seed._api_key(configured) == seed._api_key(configured)
    assert seed._api_key(Settings(**given)) != seed._api_key(configured)


@pytest.mark.parametrize("closed", [{"demo": False}, {"sandbox": False}])
async def test_a_closed_demo_is_not_seeded(configured: Settings, closed: dict[str, bool]) -> None:
    given: dict[str, Any] = {"environment": "test", **closed}
    with pytest.raises(seed.DemoClosed):
        await seed.seed(Settings(**given))
    assert await Account.all().count() == 0


async def test_production_needs_the_demo_by_name(configured: Settings) -> None:
    given: dict[str, Any] = {
        "environment": "production",
        "secret_keys": "a-real-production-key",
        "public_url": "https://pay.example.test",
    }
    with pytest.raises(seed.DemoClosed):
        await seed.seed(Settings(**given))
    assert await Account.all().count() == 0
