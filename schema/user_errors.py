"""Refusals as the API shows them: one type per kind of fact."""

from __future__ import annotations

from typing import Any

import strawberry
from graphql import get_named_type

from models import errors
from models.money import Money as Amount
from schema.account import SendingHelp
from schema.context import Info
from schema.describe import field as described
from schema.error_codes import UserErrorCode
from schema.messages import message_of
from schema.scalars import Money, Node, money


@strawberry.interface(
    description=(
        "Expected failure of a mutation; everything unexpected is a top-level error with extensions.code. Its type names"
        " the facts that come with it."
    )
)
class UserError:
    code: UserErrorCode = strawberry.field(description="The stable code for programs.")
    message: str = strawberry.field(
        description=(
            "A message for people, in the language that Accept-Language prefers of English, German, Spanish and French; in"
            " English where there is no translation."
        )
    )
    field: list[str] | None = strawberry.field(
        description=(
            'Path in the input, e.g. ["input", "amount", "currency"]; an item of a list by its place from 0, e.g.'
            ' ["input", "addresses", "1", "address"]. Null: no single field.'
        )
    )


@strawberry.type(description="An error without further facts.")
class FieldError(UserError):
    pass


@strawberry.type(description="AMOUNT_TOO_SMALL or AMOUNT_TOO_LARGE: the limits that are in effect.")
class AmountLimitError(UserError):
    minimum: Money | None = strawberry.field(
        description="The smallest amount that is accepted; null: unknown, because the currency or the object is wrong, too."
    )
    maximum: Money | None = strawberry.field(
        description="The largest amount that is accepted; null: the processor names none, or unknown."
    )


@strawberry.type(description="REFUND_EXCEEDS_PAYMENT.")
class RefundLimitError(UserError):
    refundable: Money = strawberry.field(
        description="What is left of the payment: the largest refund that is accepted."
    )


@strawberry.type(
    description=(
        "The state of an object does not allow the mutation: VERSION_CONFLICT, ALREADY_PAID, ALREADY_VOID, ALREADY_SENT,"
        " ALREADY_USED, PAYMENT_IN_PROGRESS, NOTHING_TO_RESOLVE, RESOLUTION_NOT_POSSIBLE, NOT_REFUNDABLE,"
        " CONFIRMATION_REQUIRED. If you may not see the object, a FieldError."
    )
)
class ConflictError(UserError):
    current: Node = strawberry.field(
        description=(
            "The object as it is now: the payment request, payment or message. With ALREADY_USED, the contact that has the"
            " address."
        )
    )


@strawberry.type(description="MESSAGING_WINDOW_CLOSED.")
class WindowClosedError(UserError):
    refusal: strawberry.Private[errors.MessagingWindowClosed]

    @described("Remedies, best first: those of the conversation's channel. Empty: the window is open again.")
    async def help(self, info: Info) -> list[SendingHelp]:
        reads, refusal = info.context.reads, self.refusal
        if refusal.conversation_id is None:
            return []
        conversation = await reads.conversation(refusal.conversation_id)
        reaches = await reads.capabilities(conversation) if conversation is not None else ()
        for reach in reaches:
            if reach.connection.id == refusal.channel_id:
                able = reach.payment_requests if refusal.payment_request else reach.messages
                return [SendingHelp.from_help(found) for found in able.help]
        return []


@strawberry.type(description="RATE_LIMITED.")
class RateLimitError(UserError):
    retry_after_seconds: int = strawberry.field(description="When the next attempt can succeed.")


TYPES = (AmountLimitError, ConflictError, FieldError, RateLimitError, RefundLimitError, WindowClosedError)


async def user_errors(info: Info, refusal: errors.Refusal | None) -> list[UserError]:
    """In the order of the input; errors without a field come last."""
    if refusal is None:
        return []
    found = [await _user_error(info, each) for each in refusal.all]
    return sorted(found, key=lambda error: _input_order(info, error.field))


async def _user_error(info: Info, refusal: errors.Refusal) -> UserError:
    shown: dict[str, Any] = {
        "code": UserErrorCode[refusal.code],
        "message": message_of(refusal, info.context.language),
        "field": ["input", *refusal.field] if refusal.field is not None else None,
    }
    match refusal:
        case errors.AmountLimit():
            return AmountLimitError(**shown, minimum=_money(refusal.minimum), maximum=_money(refusal.maximum))
        case errors.RefundExceedsPayment(refundable=left):
            return RefundLimitError(**shown, refundable=money(left.amount_minor, left.currency))
        case errors.MessagingWindowClosed():
            return WindowClosedError(**shown, refusal=refusal)
        case errors.RateLimited():
            return RateLimitError(**shown, retry_after_seconds=refusal.retry_after_s)
        case errors.Conflict(current=str() as id):
            current = await info.context.reads.node(id)
            if current is not None:
                return ConflictError(**shown, current=current)
    return FieldError(**shown)


def _money(amount: Amount | None) -> Money | None:
    return money(amount.amount_minor, amount.currency) if amount is not None else None


def _input_order(info: Info, path: list[str] | None) -> list[int]:
    arguments: Any = info._raw_info.parent_type.fields[info._raw_info.field_name].args
    if path is None:
        return [len(arguments)]
    place = []
    for name in path:
        if name.isdecimal():  # an item of a list
            place.append(int(name))
            continue
        names = list(arguments)
        if name not in names:
            break
        place.append(names.index(name))
        arguments = getattr(get_named_type(arguments[name].type), "fields", {})
    return place
