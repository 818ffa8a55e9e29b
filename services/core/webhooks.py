"""Webhook errors and time limits."""

from __future__ import annotations

from datetime import timedelta

# Wait for a turn at the request. Vendors give up after 10 s, which includes the database's lock.
VENDOR_WAITS_S = 2.0
HELD_AGAIN = timedelta(seconds=3)  # until a webhook that met a locked row is processed again


class BadSignature(Exception):
    """Not signed by the vendor, or too old: 400, nothing is stored."""


class BadPayload(Exception):
    """Signed, but not as the vendor documents: 400."""


class NotVerifiable(Exception):
    """The signature can't be verified now: 503; the vendor retries."""
