"""The processor and the amount of a new payment request."""

from __future__ import annotations

from uuid import UUID

from integrations.base import AmountLimits
from models import errors, rows
from models.money import CURRENCIES, Money
from models.tables import ProcessorConnection
from services.connections import providers
from services.core import validation


async def connection(account_id: UUID, kind: str | None, connection_id: UUID | None) -> ProcessorConnection:
    """The named connection, one of the named kind, or the default.

    Raises: NotFound, Invalid, NoProcessorConfigured.
    """
    if connection_id is not None:
        row = await rows.first(ProcessorConnection, "WHERE id = ? AND account_id = ?", connection_id, account_id)
        if row is None:
            raise errors.NotFound(field="processorId")
        if kind not in (None, providers.processor_kind(row)):
            raise errors.Invalid("This processorId is of another kind.", field="processorKind")
        if not providers.usable(row):
            raise errors.NoProcessorConfigured(
                "This processor is not connected: connect it again in Settings → Payments (configureProcessor), or choose another.",
                field="processorId",
            )
        return row
    if kind is None:
        default = await providers.default_processor(account_id)
        if default is None:
            raise errors.NoProcessorConfigured
        return default
    found = await rows.find(ProcessorConnection, "WHERE account_id = ?", account_id)
    chosen = providers.first_choice([row for row in found if providers.processor_kind(row) == kind])
    if chosen is None:
        raise errors.NoProcessorConfigured(
            "No processor of this kind is connected: connect one in Settings → Payments (configureProcessor), or choose another."
            " A test connection beside a live one must be named (processorId).",
            field="processorKind",
        )
    return chosen


def price(amount: str, currency: str, connection: ProcessorConnection | None, *, locale: str) -> Money:
    """The amount as money, within the processor's limits.

    Raises: Invalid, CurrencyNotSupported, AmountTooSmall, AmountTooLarge.
    """
    known = currency in CURRENCIES
    limits = None
    least = most = None
    refusals = errors.Refusals()
    with refusals:
        if not known:
            raise errors.CurrencyNotSupported("This is not an ISO 4217 currency.", field=("amount", "currency"))
        if connection is not None:
            limits = providers.processor(connection).amount_limits(currency)
            if limits is None:
                raise errors.CurrencyNotSupported(field=("amount", "currency"))
    with refusals:
        if known:
            least, most = _range(limits, currency)
        money = validation.parse_amount(
            amount, currency if known else None, field=("amount", "amount"), minimum=least, maximum=most
        )
        if limits is not None:
            _refuse_beyond(limits, money, locale)
        elif money.amount_minor == 0:
            raise errors.AmountTooSmall(minimum=least, maximum=most, field=("amount", "amount"))
    refusals.raise_any()
    return money


def _range(limits: AmountLimits | None, currency: str) -> tuple[Money, Money | None]:
    if limits is None:
        return Money(1, currency), None
    most = Money(limits.maximum_minor, currency) if limits.maximum_minor is not None else None
    return Money(max(1, limits.minimum_minor), currency), most


def _refuse_beyond(limits: AmountLimits, money: Money, locale: str) -> None:
    least, most = _range(limits, money.currency)
    if money.amount_minor < least.amount_minor:
        raise errors.AmountTooSmall(
            f"The smallest amount is {least.formatted(locale)}.",
            minimum=least,
            maximum=most,
            field=("amount", "amount"),
        )
    if most is not None and money.amount_minor > most.amount_minor:
        raise errors.AmountTooLarge(
            f"The largest amount is {most.formatted(locale)}.", minimum=least, maximum=most, field=("amount", "amount")
        )
    if money.amount_minor % limits.step_minor:
        raise errors.Invalid("The processor does not accept this many decimals.", field=("amount", "amount"))
