"""Errors that a provider raises."""

from __future__ import annotations


class IntegrationError(Exception):
    """A call to a vendor failed."""

    def __init__(
        self,
        provider: str,
        reason: str,  # a stable identifier
        message: str = "",  # for the team, never for a contact
        *,
        retryable: bool = False,  # the same call with the same key may be repeated
        ambiguous: bool = False,  # the vendor may have carried out the call: read first, never repeat blindly
        code: str | None = None,  # the vendor's
        retry_after_s: float | None = None,  # with `rate_limited`, the whole connection waits
        field: str | None = None,  # the refused field of CheckoutOrder; retried without it if in OPTIONAL_FIELDS
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
    """The seconds of a Retry-After header; None for a date or a timestamp."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


class SignatureInvalid(IntegrationError):
    """A missing, malformed, stale or wrong signature; the route answers 400."""

    def __init__(self, provider: str, reason: str = "signature_invalid") -> None:
        super().__init__(provider, reason)


class PayloadInvalid(IntegrationError):
    """A correctly signed webhook with an unexpected body."""
