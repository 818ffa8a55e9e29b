"""Errors that a provider may raise."""

from __future__ import annotations


class IntegrationError(Exception):
    """A provider failed. `reason` is a stable machine word, `message` is for operators, never for a contact.

    `retryable`: the same call may be repeated safely with the same key.
    `ambiguous`: the request left us and its outcome is unknown (time-out, dropped connection, 5xx): read, never repeat blindly.
    `retry_after_s`: how long to wait before the same call. Of a `rate_limited` connection: nothing goes out on it before.
    `field`: the field of the CheckoutOrder that the vendor refused. An optional one (OPTIONAL_FIELDS) is left out of the next try,
    so that the contact can pay although their e-mail address, say, is not one that this vendor takes.
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
    """The seconds of a Retry-After header; None: there is none, or it is a moment (a date, or seconds since 1970)."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


class SignatureInvalid(IntegrationError):
    """A webhook's signature is missing, malformed, stale or wrong. The door answers 400 and stores nothing."""

    def __init__(self, provider: str, reason: str = "signature_invalid") -> None:
        super().__init__(provider, reason)


class PayloadInvalid(IntegrationError):
    """A correctly signed webhook whose body is not what the vendor's contract says."""
