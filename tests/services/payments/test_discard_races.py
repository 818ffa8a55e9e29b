"""A draft that is discarded while it is viewed or sent: one of the two happens."""

from __future__ import annotations

import asyncio

import pytest

from models import errors
from models.ids import uuid7
from models.tables import ActivityCard, Message, PaymentRequest
from services.payments import checkout_page, payment_requests, request_sending
from services.thread import payment_links
from tests.services.conftest import Team

ROUNDS = 12


async def draft(team: Team) -> PaymentRequest:
    return await payment_requests.create(
        team.agent,
        contact_id=team.contact.id,
        product_name="Deep clean",
        amount="120.00",
        idempotency_key=str(uuid7()),
    )


async def consistent(request: PaymentRequest) -> None:
    row = await PaymentRequest.get(id=request.id)
    cards = await ActivityCard.filter(payment_request_id=request.id).count()
    if row.discarded_at is None:
        assert (row.status, cards) == ("SENT", 1)
    else:
        assert (row.status, cards, row.first_viewed_at) == ("DRAFT", 0, None)


async def test_discarding_against_a_first_look(team: Team) -> None:
    for _ in range(ROUNDS):
        request = await draft(team)
        token = payment_links.checkout_url(request).rsplit("/", 1)[1]
        await asyncio.gather(
            checkout_page.record_view(token, human=True),
            payment_requests.discard(team.agent, request.id),
            return_exceptions=True,
        )
        await consistent(request)


async def test_discarding_against_sending(team: Team) -> None:
    for _ in range(ROUNDS):
        request = await draft(team)
        before = await Message.all().count()
        sent, discarded = await asyncio.gather(
            request_sending.send(
                team.agent,
                payment_request_id=request.id,
                channel_id=team.channels["SMS"].id,
                idempotency_key=str(uuid7()),
            ),
            payment_requests.discard(team.agent, request.id),
            return_exceptions=True,
        )
        await consistent(request)
        went_out = await Message.all().count() - before
        if isinstance(discarded, BaseException):
            assert isinstance(discarded, errors.AlreadySent)
            assert not isinstance(sent, BaseException)
            assert went_out == 1
        else:
            assert isinstance(sent, errors.NotFound)
            assert went_out == 0


async def test_a_view_that_found_the_draft_before_it_was_discarded_changes_nothing(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = await draft(team)
    token = payment_links.checkout_url(request).rsplit("/", 1)[1]
    found = await checkout_page.find(token)
    await payment_requests.discard(team.agent, request.id)

    async def stale(_: str) -> PaymentRequest | None:
        return found

    monkeypatch.setattr(checkout_page, "find", stale)
    await checkout_page.record_view(token, human=True)
    await consistent(request)
