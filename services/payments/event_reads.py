"""Reads the object that a stored event names, at its processor. Records nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import structlog

from integrations.base import (
    Checkout,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    MoneyStatement,
    Processor,
    ProcessorWebhook,
)
from models.tables import (
    CheckoutSession,
    ProcessorConnection,
)
from services.connections import providers
from services.payments import event_trust, recorder

log = structlog.get_logger(__name__)


Reading = tuple[Checkout | None, Sequence[MoneyStatement], bool]


async def read(connection: ProcessorConnection, event: ProcessorWebhook) -> Reading:
    """The event's checkout; or None, the payments to record, and whether they are confirmed.

    Raises: IntegrationError.
    """
    processor = providers.processor(connection)
    if event.checkout_external_id is not None:
        return await processor.read_checkout(event.checkout_external_id), (), True
    if event.charge_external_id is not None and not event.money:
        return await _read_charge(processor, event.charge_external_id)
    charges = {s.external_id for s in event.money if s.kind == MoneyKind.CHARGE}
    if not charges and event.external_id is None:
        return await _read_newest(connection, event)
    owner = await recorder.find_request_id(connection, event.money, None, event.request_reference)
    if not charges or owner is None:
        return None, event.money, True
    # Find the checkout that lists the payment.
    sessions = CheckoutSession.filter(payment_request_id=owner, processor_connection_id=connection.id)
    for session in await sessions.filter(external_id__not_isnull=True).order_by("-n"):
        state = await processor.read_checkout(session.external_id or "")
        if charges & {s.external_id for s in state.money}:
            return state, (), True
    return await _read_confirmed(connection, event)


async def _read_charge(processor: Processor, external_id: str) -> Reading:
    try:
        charge = await processor.read_charge(external_id)
    except IntegrationError as error:
        if error.retryable or error.ambiguous or error.reason in providers.REFUSED:
            raise
        charge = None  # a definite refusal, as for an invented id
    if charge is None:
        return None, (), True
    if charge.checkout_external_id is None:
        return None, [charge], True
    state = await processor.read_checkout(charge.checkout_external_id)
    if any(s.external_id == charge.external_id for s in state.money):
        return state, (), True
    return dataclasses.replace(state, money=(*state.money, charge)), (), True


async def _read_newest(connection: ProcessorConnection, event: ProcessorWebhook) -> Reading:
    owner = await event_trust.find_request_id(connection, event)
    sessions = CheckoutSession.filter(payment_request_id=owner, processor_connection_id=connection.id)
    session = await sessions.filter(external_id__not_isnull=True).order_by("-n").first()
    if session is None:
        return None, (), True
    return await providers.processor(connection).read_checkout(session.external_id or ""), (), True


async def _read_confirmed(connection: ProcessorConnection, event: ProcessorWebhook) -> Reading:
    # The reference may be another installation's: drop payments that these keys can't read.
    processor = providers.processor(connection)
    money: list[MoneyStatement] = []
    for statement in event.money:
        read: MoneyStatement | None = statement
        # A decline moves no money, and its payment may have been tried again since.
        if statement.kind == MoneyKind.CHARGE and statement.outcome != MoneyOutcome.FAILED:
            try:
                read = await processor.read_charge(statement.external_id)
            except IntegrationError as error:
                if error.reason == "unsupported":
                    return None, event.money, False  # shown to the team, not counted
                raise
        if read is None:
            log.warning("processor_money_not_confirmed", provider=connection.processor, event_type=event.type)
        elif read.checkout_external_id is not None:
            return await processor.read_checkout(read.checkout_external_id), (), True
        else:
            money.append(read)
    return None, money, True
