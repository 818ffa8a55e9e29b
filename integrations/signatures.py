"""Paythread's webhook signature, valid for five minutes.

Header: `t=<unix seconds>,v1=<hex>`, HMAC-SHA256 over `{t}.{raw body}`; several `v1` during secret rotation.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

from integrations.base import SignatureInvalid

TOLERANCE_S = 300


def sign(secret: str, body: bytes, *, at: datetime) -> str:
    time = str(int(at.timestamp()))
    return f"t={time},v1={_digest(secret, time, body)}"


def verify(header: str, *, secret: str, body: bytes, now: datetime, provider: str) -> None:
    """Raises: SignatureInvalid (missing, malformed, wrong, or more than 300 s from `now`)."""
    if not header:
        raise SignatureInvalid(provider, "signature_missing")
    if not secret:  # anyone can sign with an empty secret
        raise SignatureInvalid(provider, "no_secret")
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for key, _, value in parts if key == "t"]
    given = [value for key, _, value in parts if key == "v1"]
    if len(times) != 1 or not times[0].isascii() or not times[0].isdecimal() or len(times[0]) > 12:
        raise SignatureInvalid(provider)
    expected = _digest(secret, times[0], body).encode()
    if not any(hmac.compare_digest(expected, value.encode()) for value in given):
        raise SignatureInvalid(provider)
    if abs(now.timestamp() - int(times[0])) > TOLERANCE_S:
        raise SignatureInvalid(provider, "signature_stale")


def _digest(secret: str, time: str, body: bytes) -> str:
    return hmac.new(secret.encode(), time.encode() + b"." + body, hashlib.sha256).hexdigest()
