"""Concurrent payments of one contact's requests lock rows in one order."""

from __future__ import annotations

import asyncio

from integrations.base import MoneyKind, MoneyOutcome, MoneyStatement
from models.tables import ContactSummary, MoneyFact
from services.payments import recorder
from services.thread import payment_links
from tests import factories
from tests.services.conftest import Team


async def test_payments_of_one_contact_at_once_never_deadlock(team: Team) -> None:
    amount = 0
    for n in range(10):
        requests = [
            await factories.payment_request(team.contact, status="SENT", sent_at=factories.now()) for _ in range(4)
        ]
        amount += sum(request.amount_minor for request in requests)
        await asyncio.gather(
            *(
                recorder.record(
                    team.processor,
                    [
                        MoneyStatement(
                            kind=MoneyKind.CHARGE,
                            external_id=f"money-{n}-{i}",
                            outcome=MoneyOutcome.SUCCEEDED,
                            amount_minor=request.amount_minor,
                            currency=request.currency,
                            request_reference=payment_links.reference(request),
                        )
                    ],
                    source="webhook",
                )
                for i, request in enumerate(requests)
            )
        )
    assert await MoneyFact.all().count() == 40
    summary = await ContactSummary.get(contact_id=team.contact.id)
    assert (summary.paid_minor, summary.paid_count) == (amount, 40)
