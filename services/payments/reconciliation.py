"""Reads an account's checkouts on demand and lists what differed; the recorder corrects it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

from integrations.base import IntegrationError
from models import errors
from models.ids import public_id
from models.money import Money
from models.tables import CheckoutSession, MoneyFact, PaymentRequest, ProcessorConnection
from services.core import configuration
from services.payments import checkout_reads, sweeper

BATCH = 200


@dataclass(slots=True)
class Reconciled:
    read: int = 0
    differed: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


async def reconcile(account_id: UUID, since: datetime, *, reads_per_s: float | None = None) -> Reconciled:
    """Read and record every checkout made since `since`. Safe to repeat."""
    found = Reconciled()
    pause_s = 1 / (reads_per_s or configuration.current().reads_per_s)
    for connection in await sweeper.listed_connections(datetime.now(UTC), account_id):
        await _adopt_unknown(connection, since, found)
    after: UUID | None = None
    while True:
        batch = CheckoutSession.filter(account_id=account_id, created_at__gte=since, external_id__not_isnull=True)
        if after is not None:
            batch = batch.filter(id__gt=after)
        sessions = await batch.order_by("id").limit(BATCH)
        if not sessions:
            return found
        after = sessions[-1].id
        for session in sessions:
            await _reconcile_checkout(session, found)
            await asyncio.sleep(pause_s)


async def _adopt_unknown(connection: ProcessorConnection, since: datetime, found: Reconciled) -> None:
    name = public_id("prc", connection.id)
    try:
        unknown = await sweeper.adopt_since(connection, since, datetime.now(UTC))
    except IntegrationError as error:
        found.unread.append(f"{name}: its list of checkouts was not read: {error.reason}")
    except errors.ProcessorUnavailable:
        found.unread.append(f"{name}: its list of checkouts was not read: the processor can't be used")
    else:
        if unknown:
            found.differed.append(f"{name}: checkouts that were not known: {unknown}")


async def _reconcile_checkout(session: CheckoutSession, found: Reconciled) -> None:
    name = f"{public_id('pr', session.payment_request_id)} {session.external_id}"
    request, facts = await _load_state(session)
    try:
        await checkout_reads.read_back(session, source="sweeper")
    except IntegrationError as error:
        found.unread.append(f"{name}: not read: {error.reason}")
        return
    except errors.ProcessorUnavailable:
        found.unread.append(f"{name}: not read: the processor can't be used")
        return
    found.read += 1
    fresh = await CheckoutSession.get(id=session.id)
    request_now, facts_now = await _load_state(session)
    changes = [
        f"{fact.kind} {fact.external_id} {fact.outcome} {Money(fact.amount_minor, fact.currency).formatted('en-US')} was missing"
        for fact in facts_now
        if fact.id not in {known.id for known in facts}
    ]
    if request.status != request_now.status:
        changes.append(f"request {request.status} -> {request_now.status}")
    if session.status != fresh.status:
        changes.append(f"checkout {session.status} -> {fresh.status}")
    if changes:
        found.differed.append(f"{name}: {'; '.join(changes)}")


async def _load_state(session: CheckoutSession) -> tuple[PaymentRequest, list[MoneyFact]]:
    request = await PaymentRequest.get(id=session.payment_request_id)
    return request, await MoneyFact.filter(payment_request_id=request.id).order_by("id")
