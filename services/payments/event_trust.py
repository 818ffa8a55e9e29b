"""How far a webhook's event is trusted before its object is read. Calls no vendor."""

from __future__ import annotations

import dataclasses
from uuid import UUID

from integrations.base import (
    Checkout,
    MoneyKind,
    Processor,
    ProcessorWebhook,
    WebhookProof,
)
from models import database
from models.ids import public_id
from models.tables import (
    MoneyFact,
    ProcessorConnection,
)
from services.payments import recorder


def trusted_part(processor: Processor, event: ProcessorWebhook) -> ProcessorWebhook:
    """The part that the event's proof covers; an unsigned event only names what to read."""
    if processor.capabilities.webhook_proof is not WebhookProof.BODY:
        charges = [s.external_id for s in event.money if s.kind == MoneyKind.CHARGE]
        charge = event.charge_external_id or next(iter(charges), None)
        # The object names its request; a forged body could name another.
        alone = event.checkout_external_id is None and charge is None
        unsigned = processor.capabilities.webhook_proof is WebhookProof.NONE
        return dataclasses.replace(
            event,
            # Otherwise each invented event would be stored and read.
            external_id=None if unsigned else event.external_id,
            decides=False,
            disconnected=False,
            money=(),
            checkout_status=None,
            charge_external_id=charge,
            request_reference=event.request_reference if alone else None,
        )
    return dataclasses.replace(event, decides=False) if event.external_id is None else event


def is_other_mode(connection: ProcessorConnection, item: ProcessorWebhook | Checkout) -> bool:
    return item.test_mode is not None and item.test_mode != connection.test_mode


async def find_request_id(connection: ProcessorConnection, event: ProcessorWebhook) -> UUID | None:
    """The event's request, if known without asking the vendor."""
    owner = await recorder.find_request_id(connection, event.money, event.checkout_external_id, event.request_reference)
    if owner is None and event.charge_external_id is not None:
        known = MoneyFact.filter(processor_connection_id=connection.id, external_id=event.charge_external_id)
        fact = await known.first()
        owner = fact.payment_request_id if fact is not None else None
    return owner


async def matching_request(connection: ProcessorConnection, event: ProcessorWebhook) -> UUID | None:
    """The event's request if the event agrees with its stored checkout, so that it can be recorded unread."""
    if event.checkout_external_id is None:
        return None
    found = await database.records(
        "SELECT payment_request_id, amount_minor, currency FROM checkout_session"
        " WHERE processor_connection_id = ? AND external_id = ?",
        connection.id,
        event.checkout_external_id,
    )
    if not found:
        return None
    request_id, amount_minor, currency = database.to_uuid(found[0][0]), int(found[0][1]), found[0][2]
    if event.request_reference not in (None, public_id("pr", request_id)):
        return None
    agrees = all((s.amount_minor, s.currency) == (amount_minor, currency) for s in event.money)
    return request_id if agrees else None
