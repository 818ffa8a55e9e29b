"""What a processor's vendor supports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WebhookProof(StrEnum):
    """What proves that a webhook comes from the vendor; only BODY allows `decides`."""

    BODY = "BODY"  # a signature over the raw body
    PARTS = "PARTS"  # a signature over some fields, such as id and time; the rest of the body is not trusted
    NONE = "NONE"  # no signature: the webhook may only cause a read of a known checkout or charge


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a vendor supports; the kit tests what is declared and lists the rest."""

    webhook_proof: WebhookProof = WebhookProof.BODY
    webhooks_decide: bool = True  # a payment's webhook includes its checkout and money; False: it is a hint to read
    webhooks_expire: bool = (
        True  # signatures older than 300 s are refused; False: retries keep the old time and are hints
    )
    webhooks_signed_at: bool = True  # the signature covers a time
    webhook_batches: bool = False  # one webhook may hold several events, also of several checkouts
    cancels_checkouts: bool = True  # False: an open checkout ends only by itself; `expire_checkout` only reads it
    checkouts_end: bool = True  # checkouts end by themselves, at `expires_at`
    declines_end_checkouts: bool = False  # after a decline, the payer needs a new checkout
    reads_declines: bool = True  # `read_checkout` includes declined charges
    delayed_payments: bool = True  # a payment may stay PENDING for days
    partial_captures: bool = False  # one checkout may be paid by several charges, which add up
    method_summaries: bool = True  # a charge says how it was paid
    # How long the vendor remembers an idempotency key. A later call would create a second object, so Paythread then only reads.
    # 0: the vendor has no keys. None: six hours or more, or the provider itself looks up what a key created.
    key_life_s: int | None = None
    refunds: bool = True  # `refund` and `read_refund`
    partial_refunds: bool = True
    pending_refunds: bool = False  # a refund may be PENDING at first, and may fail
    disputes: bool = True
    retry_after: bool = True  # a 429 says how long to wait

    @property
    def knows_keys(self) -> bool:
        return self.key_life_s != 0
