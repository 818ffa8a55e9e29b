"""The sandbox's scenarios, and the mutation's input and payload."""

from __future__ import annotations

from enum import Enum

import strawberry

from schema.payload_codes import answer_of
from schema.payloads import MutationPayload
from schema.payment_request import PaymentRequest
from schema.scalars import value


@strawberry.enum(description="What the sandbox's vendor does with a request's payment.")
class SandboxScenario(Enum):
    DUPLICATE_WEBHOOKS = value("DUPLICATE_WEBHOOKS", description="Paid; the same webhook comes three to six times.")
    REORDERED_WEBHOOKS = value(
        "REORDERED_WEBHOOKS", description="A decline, then a debit that succeeds; reported in another order."
    )
    DELAYED_WEBHOOK = value("DELAYED_WEBHOOK", description="Paid; the webhook comes seconds later.")
    DROPPED_WEBHOOK = value("DROPPED_WEBHOOK", description="Paid; no webhook comes, the sweeper finds the payment.")
    DECLINED = value("DECLINED", description="The card is declined; the request stays open.")
    ASYNC_SUCCEEDS = value("ASYNC_SUCCEEDS", description="A bank debit: PROCESSING, then PAID.")
    ASYNC_FAILS = value("ASYNC_FAILS", description="A bank debit: PROCESSING, then refused and open again.")
    VOUCHER = value(
        "VOUCHER", description="A voucher is begun and not paid: PROCESSING; releasing the link cancels it."
    )
    DISPUTE_LOST = value("DISPUTE_LOST", description="Paid, disputed by the contact's bank, lost; it stays PAID.")
    DISPUTE_WON = value("DISPUTE_WON", description="Paid, disputed by the contact's bank, won.")
    REFUND = value("REFUND", description="Paid, then refunded in full at the vendor; it stays PAID.")
    PAID_TWICE = value("PAID_TWICE", description="Paid on two devices: the second payment is excess.")
    PAID_AFTER_VOID = value("PAID_AFTER_VOID", description="Voided, but the vendor still takes a payment: it is late.")
    SPLIT_TENDER = value(
        "SPLIT_TENDER",
        description="A gift card pays a part, a card the rest some seconds later: PAID, one payment card.",
    )
    PART_ONLY = value(
        "PART_ONLY",
        description="A gift card pays a part, and the rest never comes: a mismatch after a minute, to be decided by resolveMismatch.",
    )
    WRONG_AMOUNT = value(
        "WRONG_AMOUNT",
        description="More or less arrives, as the seed says: a mismatch, to be decided by resolveMismatch.",
    )
    WRONG_CURRENCY = value(
        "WRONG_CURRENCY", description="Another currency arrives: a mismatch, to be decided by resolveMismatch."
    )


@strawberry.input(description="The scenario to run, and the request to run it on.")
class RunSandboxScenarioInput:
    payment_request_id: strawberry.ID = strawberry.field(description="A request of the SANDBOX that can be paid.")
    scenario: SandboxScenario = strawberry.field(description="The scenario.")
    seed: int = strawberry.field(default=0, description="The same seed gives the same sequence.")


@strawberry.type(description=answer_of("runSandboxScenario"))
class RunSandboxScenarioPayload(MutationPayload):
    payment_request: PaymentRequest | None = strawberry.field(
        default=None, description="The request before the webhooks arrive. Null: refused, see userErrors."
    )
