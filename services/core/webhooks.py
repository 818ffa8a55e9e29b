"""What webhooks of processors and channels have in common: why one is refused, and how long a vendor waits for the answer."""

from __future__ import annotations

from datetime import timedelta

VENDOR_WAITS_S = (
    2.0  # for a turn at the request; vendors give up after 10 s, and the database's lock may take its time on top
)
HELD_AGAIN = timedelta(seconds=3)  # until what met a held row is tried again


class BadSignature(Exception):
    """The webhook is not from the processor, or too old or too far ahead: 400, nothing is stored."""


class BadPayload(Exception):
    """Signed, but not what the vendor's contract says: 400; kept out of the ledger."""


class NotVerifiable(Exception):
    """The signature can't be checked now (the vendor who does it does not answer; the provider's package is not there).

    503, nothing is stored, so that the vendor sends the event again.
    """
