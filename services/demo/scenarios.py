"""Scenarios for developers: the sandbox vendor plays a story on a payment request."""

from __future__ import annotations

import random
from typing import Final
from uuid import UUID

from models import errors, vault
from models.ids import public_id
from models.ledger import Status
from models.tables import PaymentRequest
from services.connections import providers
from services.core.permissions import Actor
from services.payments import checkout, voids
from services.sandbox import checkouts
from services.sandbox import scenarios as sandbox_scenarios

SCENARIOS: Final = (
    "DUPLICATE_WEBHOOKS",
    "REORDERED_WEBHOOKS",
    "DELAYED_WEBHOOK",
    "DROPPED_WEBHOOK",
    "DECLINED",
    "ASYNC_SUCCEEDS",
    "ASYNC_FAILS",
    "VOUCHER",
    "DISPUTE_LOST",
    "DISPUTE_WON",
    "REFUND",
    "PAID_TWICE",
    "PAID_AFTER_VOID",
    "SPLIT_TENDER",
    "PART_ONLY",
    "WRONG_AMOUNT",
    "WRONG_CURRENCY",
)


async def run(actor: Actor, *, payment_request_id: UUID, scenario: str, seed: int = 0) -> PaymentRequest:
    """Open a checkout and play the scenario; return the request before its webhooks arrive.

    Raises: NotFound, Forbidden, Invalid, AlreadyPaid, AlreadyVoid, PaymentInProgress, ProcessorUnavailable.
    """
    actor.require("request_payment")
    if scenario not in SCENARIOS:
        raise errors.Invalid(field="scenario")
    found = PaymentRequest.filter(id=payment_request_id, account_id=actor.account_id, discarded_at=None)
    request = await found.get_or_none()
    if request is None:
        raise errors.NotFound(field="paymentRequestId")
    connection = await providers.processor_connection(request.processor_connection_id, actor.account_id)
    if connection.processor != "sandbox":
        raise errors.Invalid("Only a sandbox request can play scenarios.", field="paymentRequestId")
    if request.status == Status.PAID:
        raise errors.AlreadyPaid(current=public_id("pr", request.id), field="paymentRequestId")
    if request.status == Status.VOID:
        raise errors.AlreadyVoid(current=public_id("pr", request.id), field="paymentRequestId")
    if request.status == Status.PROCESSING and request.released_at is None:
        raise errors.PaymentInProgress(current=public_id("pr", request.id), field="paymentRequestId")
    opened = await checkout.open_checkout(vault.unseal(request.account_id, request.token))
    if opened.url is None:
        raise errors.PaymentInProgress(current=public_id("pr", request.id), field="paymentRequestId")
    external_id = opened.url.rpartition("/")[2]
    if scenario == "PAID_AFTER_VOID":
        await voids.void(actor, payment_request_id=request.id, confirm_partially_paid=True)
    try:
        await sandbox_scenarios.play(external_id, scenario, random.Random(f"{scenario}:{seed}"))  # noqa: S311 (a story, not a secret)
    except checkouts.SandboxRefusal as refusal:
        raise errors.PaymentInProgress(current=public_id("pr", request.id), field="paymentRequestId") from refusal
    return await found.get()
