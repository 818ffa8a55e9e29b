"""Refusals: the docstring is the client's message."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import ClassVar
from uuid import UUID

from models.money import Money


class Refusal(Exception):
    """A rule refused the input."""

    code: ClassVar[str]
    others: tuple[Refusal, ...] = ()

    def __init__(self, message: str | None = None, *, field: str | tuple[str, ...] | None = None) -> None:
        self.message = message or (self.__doc__ or "").strip()
        self.field: tuple[str, ...] | None = (field,) if isinstance(field, str) else field
        super().__init__(self.message)

    @property
    def says_no_more(self) -> bool:
        """Whether the message is the class's own."""
        return self.message == (self.__doc__ or "").strip()

    @property
    def all(self) -> list[Refusal]:
        first: dict[tuple[str, ...] | None, Refusal] = {}
        for refusal in (self, *self.others):
            first.setdefault(refusal.field, refusal)
        return list(first.values())


class Refusals:
    """Collects refusals: one check per `with` block, then `raise_any`."""

    def __init__(self) -> None:
        self._found: list[Refusal] = []

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Refusal):
            return False
        self._found += error.all
        return True

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_any(self) -> None:
        if self._found:
            first, *others = self._found
            first.others = tuple(others)
            first.others = tuple(first.all[1:])
            raise first


@contextmanager
def within(*path: str) -> Generator[None, None, None]:
    """Refusals inside name fields of the input at `path`."""
    try:
        yield
    except Refusal as refusal:
        for each in refusal.all:
            each.field = (*path, *each.field) if each.field is not None else None
        raise


class AmountLimit(Refusal):
    """`minimum` and `maximum` are both in effect, as far as they are known."""

    def __init__(
        self,
        message: str | None = None,
        *,
        minimum: Money | None = None,
        maximum: Money | None = None,
        field: str | tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message, field=field)
        self.minimum = minimum
        self.maximum = maximum


class Conflict(Refusal):
    """The state of `current`, a public id, does not allow this."""

    def __init__(
        self,
        message: str | None = None,
        *,
        current: str | None = None,
        field: str | tuple[str, ...] | None = None,
    ) -> None:
        super().__init__(message, field=field)
        self.current = current


class Blank(Refusal):
    """This field can't be blank."""

    code = "BLANK"


class TooLong(Refusal):
    """This text is too long."""

    code = "TOO_LONG"
    limit: int | None = None  # characters, if that is what the message says

    @classmethod
    def beyond(cls, limit: int, *, field: str | tuple[str, ...]) -> TooLong:
        refusal = cls(f"At most {limit} characters.", field=field)
        refusal.limit = limit
        return refusal


class Invalid(Refusal):
    """This value is not valid."""

    code = "INVALID"


class NotFound(Refusal):
    """There is nothing with this id."""

    code = "NOT_FOUND"


class Forbidden(Refusal):
    """Your role does not allow this."""

    code = "FORBIDDEN"


class AmountTooSmall(AmountLimit):
    """The amount is below the minimum."""

    code = "AMOUNT_TOO_SMALL"


class AmountTooLarge(AmountLimit):
    """The amount is above the maximum."""

    code = "AMOUNT_TOO_LARGE"


class CurrencyNotSupported(Refusal):
    """The processor does not take this currency."""

    code = "CURRENCY_NOT_SUPPORTED"


class ChannelNotSupported(Refusal):
    """This channel's provider is not installed here, or its credentials can't be read."""

    code = "CHANNEL_NOT_SUPPORTED"


class ChannelNotConnected(Refusal):
    """This channel is not connected: connect it in Settings → Channels."""

    code = "CHANNEL_NOT_CONNECTED"


class NoProcessorConfigured(Refusal):
    """No payment processor is ready: connect one, or choose a default, in Settings → Payments (configureProcessor)."""

    code = "NO_PROCESSOR_CONFIGURED"


class ProcessorRejected(Refusal):
    """The payment processor refused the request."""

    code = "PROCESSOR_REJECTED"


class ProcessorUnavailable(Refusal):
    """The payment processor does not answer; please try again."""

    code = "PROCESSOR_UNAVAILABLE"


class MessagingWindowClosed(Refusal):
    """The contact has not written on this channel recently enough; use another channel or copy the link."""

    code = "MESSAGING_WINDOW_CLOSED"
    conversation_id: UUID | None = None
    channel_id: UUID | None = None
    payment_request = False  # whether the message carries one


class ContactOptedOut(Refusal):
    """The contact has opted out of messages on this channel."""

    code = "CONTACT_OPTED_OUT"


class ContactHasNoAddress(Refusal):
    """The contact has no address on this channel."""

    code = "CONTACT_HAS_NO_ADDRESS"


class AlreadyPaid(Conflict):
    """This payment request is already paid."""

    code = "ALREADY_PAID"


class NotRefundable(Conflict):
    """This payment can't be refunded here."""

    code = "NOT_REFUNDABLE"


class RefundExceedsPayment(Refusal):
    """The amount is more than what is left of the payment."""

    code = "REFUND_EXCEEDS_PAYMENT"

    def __init__(self, message: str | None = None, *, refundable: Money, field: str | tuple[str, ...]) -> None:
        super().__init__(message, field=field)
        self.refundable = refundable


class NothingToResolve(Conflict):
    """This payment request has no payment that waits for a decision."""

    code = "NOTHING_TO_RESOLVE"


class ResolutionNotPossible(Conflict):
    """This resolution does not fit the payment that arrived."""

    code = "RESOLUTION_NOT_POSSIBLE"


class AlreadyVoid(Conflict):
    """This payment request has been voided."""

    code = "ALREADY_VOID"


class PaymentInProgress(Conflict):
    """A payment of this request is in progress."""

    code = "PAYMENT_IN_PROGRESS"


class ConfirmationRequired(Conflict):
    """Part of this request has been paid: confirm that you want to void it."""

    code = "CONFIRMATION_REQUIRED"


class VersionConflict(Conflict):
    """The object has changed since you read it."""

    code = "VERSION_CONFLICT"


class IdempotencyConcurrentRequest(Refusal):
    """The same request is still running; try again in a moment."""

    code = "IDEMPOTENCY_CONCURRENT_REQUEST"


class IdempotencyKeyParameterMismatch(Refusal):
    """This idempotency key was used with other arguments."""

    code = "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"


class AlreadyUsed(Conflict):
    """This address belongs to another contact."""

    code = "ALREADY_USED"


class AlreadySent(Conflict):
    """This payment request has already been sent, copied or opened and can't be discarded; void it instead."""

    code = "ALREADY_SENT"


class LimitReached(Refusal):
    """There are already as many as possible; delete one first."""

    code = "LIMIT_REACHED"


class LastOwner(Refusal):
    """This is the account's last active OWNER; make another user OWNER first."""

    code = "LAST_OWNER"


class MailNotConfigured(Refusal):
    """This installation sends no emails: its operator makes links with `cli.py user reset-link`."""

    code = "MAIL_NOT_CONFIGURED"


class LinkInvalid(Refusal):
    """This link is not valid, or no longer: ask for a new one."""

    code = "LINK_INVALID"


class SignInFailed(Refusal):
    """Email address or password is wrong."""

    code = "SIGN_IN_FAILED"


class RateLimited(Refusal):
    """Too many attempts; wait a minute."""

    code = "RATE_LIMITED"

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s
