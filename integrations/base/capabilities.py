"""What a processor's vendor offers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class WebhookProof(StrEnum):
    """What proves that a webhook comes from the vendor. Only a signature over the body lets it decide."""

    BODY = "BODY"  # a signature over the raw body
    PARTS = "PARTS"  # a signature over an id and a time, say: whatever else the body tells is not believed
    NONE = "NONE"  # nothing: only the id of a known checkout or charge causes a read


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a vendor offers. Paythread relies on it; the kit tests what is declared, and reports what is not.

    Which currencies a processor takes, `amount_limits` says.
    """

    webhook_proof: WebhookProof = WebhookProof.BODY
    webhooks_decide: bool = True  # a payment's webhook tells its checkout and money; False: it is a hint to read
    webhooks_expire: bool = (
        True  # what was signed over 300 s ago is refused; False: sent again under the old time, a hint
    )
    webhooks_signed_at: bool = True  # the signature covers a time
    webhook_batches: bool = False  # one webhook may tell several events, also of several checkouts
    cancels_checkouts: bool = True  # False: an open checkout only ends by itself, `expire_checkout` only reads it
    checkouts_end: bool = True  # by themselves, at `expires_at`
    declines_end_checkouts: bool = False  # the payer of a declined payment needs a new checkout
    reads_declines: bool = True  # `read_checkout` tells declined charges
    delayed_payments: bool = True  # a payment may be PENDING for days
    partial_captures: bool = False  # one checkout may be paid by several charges, which add up
    method_summaries: bool = True  # a charge tells how it was paid
    # How long the vendor remembers an idempotency key, seconds: later the same call would make a second object, so it is never
    # repeated, only looked for. 0: it knows no keys. None: for six hours or more, or the provider finds what a key has made.
    key_life_s: int | None = None
    refunds: bool = True  # `refund` and `read_refund`
    partial_refunds: bool = True
    pending_refunds: bool = False  # a refund may be PENDING first, and fail
    disputes: bool = True
    retry_after: bool = True  # a 429 says how long to wait

    @property
    def knows_keys(self) -> bool:
        """Whether the same idempotency key gives the same object, for a while at least."""
        return self.key_life_s != 0
