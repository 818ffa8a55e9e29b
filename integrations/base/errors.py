"""Errors that a provider raises."""

from __future__ import annotations


class IntegrationError(Exception):
    """A call to a vendor failed.

    `reason` is a stable identifier. `message` is for the team, never for a contact.
    `retryable`: the same call with the same key may be repeated.
    `ambiguous`: the vendor may have carried out the call (time-out, dropped connection, 5xx). Read first; never repeat blindly.
    `retry_after_s`: how long to wait before the same call. With `rate_limited`, the whole connection waits.
    `field`: the CheckoutOrder field that the vendor refused. The next attempt omits it if it is in OPTIONAL_FIELDS.
    """

    def __init__(
        self,
        provider: str,
        reason: str,
        message: str = "",
        *,
        retryable: bool = False,
        ambiguous: bool = False,
        code: str | None = None,
        retry_after_s: float | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(f"{provider}: {reason}" + (f": {message}" if message else ""))
        self.provider = provider
        self.reason = reason
        self.message = message
        self.retryable = retryable
        self.ambiguous = ambiguous
        self.code = code
        self.retry_after_s = retry_after_s
        self.field = field


def retry_after(header: str | None) -> float | None:
    """The seconds of a Retry-After header. None if it is missing or gives a time (a date, or seconds since 1970)."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


class SignatureInvalid(IntegrationError):
    """A webhook's signature is missing, malformed, stale or wrong. The route answers 400 and stores nothing."""

    def __init__(self, provider: str, reason: str = "signature_invalid") -> None:
        super().__init__(provider, reason)


class PayloadInvalid(IntegrationError):
    """A correctly signed webhook whose body breaks the vendor's contract."""
