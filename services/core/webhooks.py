"""Shared by the webhooks of processors and channels: their errors and time limits."""

from __future__ import annotations

from datetime import timedelta

# For a turn at the request. Vendors give up after 10 s, and the wait for the database's lock comes on top.
VENDOR_WAITS_S = 2.0
HELD_AGAIN = timedelta(seconds=3)  # until a webhook that met a locked row is processed again


class BadSignature(Exception):
    """Not signed by the vendor, or its time is too far off: 400, nothing is stored."""


class BadPayload(Exception):
    """Signed, but not as the vendor documents it: 400, not recorded."""


class NotVerifiable(Exception):
    """The signature can't be verified now (no answer from the vendor, or its package is missing): 503, so that the vendor retries."""
