"""Filters and orders of lists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Annotated, Final, TypeAlias, TypeVar
from uuid import UUID

import strawberry
from strawberry.utils.str_converters import to_camel_case

from models.errors import Refusal
from models.ids import parse_public_id
from schema.describe import limited
from schema.failures import bad_request
from schema.inputs.ranges import DateTimeRange
from schema.scalars import (
    ChannelKind,
    CurrencyCode,
    Decimal,
    DeliveryState,
    DisputeState,
    PaymentRequestStatus,
    RefundState,
    value,
)
from services.lists import filters, queries
from services.lists.message_search import MessageSearch
from services.lists.orders import List, Order
from services.lists.queries import ListQuery

F = TypeVar("F")
R = TypeVar("R")

_LIMITS: Final = f"At most {filters.MOST_LEVELS} levels and {filters.MOST_CONDITIONS} conditions, of {filters.MOST_VALUES} values each."
_ALL: Final = "All of these."
_ANY: Final = "Any of these; an empty list matches nothing."
_NOT: Final = "Not this one."
_ASSIGNEES: Final = "Assigned to any of these users; null in the list: unassigned."
_TAGS: Final = limited("The contact has any of these labels.", filters.LONGEST_TAG)
_CONTACT_SEARCH: Final = (
    "Part of the contact's name, email address or phone number, without regard to case, accents and a phone"
    f" number's punctuation; at most {filters.LONGEST_SEARCH} characters."
)


@strawberry.enum(description="A direction. Rows without a value come last in both.")
class SortDirection(Enum):
    ASC = value("ASC", description="Smallest, earliest or first by name first.")
    DESC = value("DESC", description="Largest, newest or last by name first.")


@strawberry.enum(description="What payment requests can be sorted by.")
class PaymentRequestOrderField(Enum):
    CREATED_AT = value("CREATED_AT", description="When it was created.")
    UPDATED_AT = value("UPDATED_AT", description="When it last changed.")
    DUE_AT = value("DUE_AT", description="The deadline.")
    PAID_AT = value("PAID_AT", description="When it was paid in full.")
    AMOUNT_DUE = value(
        "AMOUNT_DUE",
        description="The amount still due, in minor units whatever the currency: filter by one currency (amount).",
    )


@strawberry.enum(description="What conversations can be sorted by.")
class ConversationOrderField(Enum):
    LAST_ACTIVITY_AT = value("LAST_ACTIVITY_AT", description="When the newest thread item came.")
    CREATED_AT = value("CREATED_AT", description="When it was begun.")
    WAITING_SINCE = value("WAITING_SINCE", description="Since when the contact waits for an answer.")


@strawberry.enum(description="What contacts can be sorted by.")
class ContactOrderField(Enum):
    CREATED_AT = value("CREATED_AT", description="When the record was made.")
    UPDATED_AT = value("UPDATED_AT", description="When the record last changed.")
    NAME = value("NAME", description="The name, without regard to case and accents.")


@strawberry.input(description="An order of payment requests.")
class PaymentRequestOrder:
    field: PaymentRequestOrderField = strawberry.field(description="What to sort by.")
    direction: SortDirection = strawberry.field(description="The direction.")


@strawberry.input(description="An order of conversations.")
class ConversationOrder:
    field: ConversationOrderField = strawberry.field(description="What to sort by.")
    direction: SortDirection = strawberry.field(description="The direction.")


@strawberry.input(description="An order of contacts.")
class ContactOrder:
    field: ContactOrderField = strawberry.field(description="What to sort by.")
    direction: SortDirection = strawberry.field(description="The direction.")


@strawberry.input(description="Amounts of one currency; amounts are never converted. Without bounds: any amount.")
class MoneyRange:
    currency: CurrencyCode = strawberry.field(description="The currency.")
    minimum: Decimal | None = strawberry.field(default=None, description="This amount or more.")
    maximum: Decimal | None = strawberry.field(default=None, description="This amount or less.")

    def to_range(self) -> filters.MoneyRange:
        return filters.MoneyRange.from_decimals(self.currency, self.minimum, self.maximum)


@strawberry.input(
    description=f"Which payment requests: those that meet all conditions. Conditions left out do not restrict. {_LIMITS}"
)
class PaymentRequestFilter:
    status: list[PaymentRequestStatus] | None = strawberry.field(default=None, description="Any of these statuses.")
    overdue: bool | None = strawberry.field(default=None, description="Only overdue ones, or only others.")
    needs_attention: bool | None = strawberry.field(
        default=None,
        description=(
            "Only those with money or a dispute that waits for the team (unresolved, excess, late, NEEDS_RESPONSE) and"
            " open ones whose link was not delivered, or only others."
        ),
    )
    refund_state: list[RefundState] | None = strawberry.field(default=None, description="Any of these.")
    dispute_state: list[DisputeState] | None = strawberry.field(default=None, description="Any of these.")
    delivery_state: list[DeliveryState] | None = strawberry.field(default=None, description="Any of these.")
    created_at: DateTimeRange | None = strawberry.field(default=None, description="Created in this range.")
    updated_at: DateTimeRange | None = strawberry.field(default=None, description="Last changed in this range.")
    due_at: DateTimeRange | None = strawberry.field(default=None, description="With a deadline in this range.")
    paid_at: DateTimeRange | None = strawberry.field(default=None, description="Paid in full in this range.")
    amount: MoneyRange | None = strawberry.field(default=None, description="The amount asked for.")
    contact_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="To any of these contacts, or contacts that are merged with them."
    )
    assignee_ids: list[strawberry.ID | None] | None = strawberry.field(
        default=None, description=f"Of conversations: {_ASSIGNEES[0].lower()}{_ASSIGNEES[1:]}"
    )
    channel_kinds: list[ChannelKind] | None = strawberry.field(
        default=None, description="Meant for any of these kinds of channel."
    )
    processor_ids: list[strawberry.ID] | None = strawberry.field(
        default=None, description="Paid through any of these processors."
    )
    tags: list[str] | None = strawberry.field(default=None, description=_TAGS)
    test_mode: bool | None = strawberry.field(default=None, description="Only test requests, or only live ones.")
    search: str | None = strawberry.field(
        default=None,
        description=(
            "Part of the number or of the product's name, or what the search of contacts takes, without regard to case and"
            " accents; or the amount, with or without its currency (125, 1,250.00, EUR 99). At most 100 characters."
        ),
    )
    and_: list[PaymentRequestFilter] | None = strawberry.field(name="and", default=None, description=_ALL)
    or_: list[PaymentRequestFilter] | None = strawberry.field(name="or", default=None, description=_ANY)
    not_: PaymentRequestFilter | None = strawberry.field(name="not", default=None, description=_NOT)

    def to_filter(self) -> filters.PaymentRequestFilter:
        """Raises: Invalid."""
        given = {
            "status": _names(self.status),
            "overdue": self.overdue,
            "needs_attention": self.needs_attention,
            "refund_state": _names(self.refund_state),
            "dispute_state": _names(self.dispute_state),
            "delivery_state": _names(self.delivery_state),
            **_ranges(
                created_at=self.created_at,
                updated_at=self.updated_at,
                due_at=self.due_at,
                paid_at=self.paid_at,
                amount=self.amount,
            ),
            "contact_ids": _ids(self.contact_ids, "cnt"),
            "assignee_ids": _assignees(self.assignee_ids),
            "channel_kinds": _names(self.channel_kinds),
            "processor_ids": _ids(self.processor_ids, "prc"),
            "tags": _texts(self.tags),
            "test_mode": self.test_mode,
            "search": self.search,
        }
        below = _below(self.and_, self.or_, self.not_, PaymentRequestFilter.to_filter)
        return _made(filters.PaymentRequestFilter, given | below)


@strawberry.input(
    description=f"Which conversations: those that meet all conditions. Conditions left out do not restrict. {_LIMITS}"
)
class ConversationFilter:
    closed: bool | None = strawberry.field(default=None, description="Only closed ones, or only open ones.")
    unread: bool | None = strawberry.field(
        default=None, description="Only those with messages that were not read, or only others."
    )
    assignee_ids: list[strawberry.ID | None] | None = strawberry.field(default=None, description=_ASSIGNEES)
    channel_kinds: list[ChannelKind] | None = strawberry.field(
        default=None, description="With a message on any of these kinds of channel."
    )
    tags: list[str] | None = strawberry.field(
        default=None,
        description=limited("It or its contact has any of these labels.", filters.LONGEST_TAG),
    )
    has_open_request: bool | None = strawberry.field(
        default=None, description="Only those with a SENT, PROCESSING or PARTIALLY_PAID request, or only others."
    )
    waiting_since: DateTimeRange | None = strawberry.field(
        default=None, description="The contact waits for an answer since a time in this range."
    )
    search: str | None = strawberry.field(default=None, description=_CONTACT_SEARCH)
    and_: list[ConversationFilter] | None = strawberry.field(name="and", default=None, description=_ALL)
    or_: list[ConversationFilter] | None = strawberry.field(name="or", default=None, description=_ANY)
    not_: ConversationFilter | None = strawberry.field(name="not", default=None, description=_NOT)

    def to_filter(self) -> filters.ConversationFilter:
        """Raises: Invalid."""
        given = {
            "closed": self.closed,
            "unread": self.unread,
            "assignee_ids": _assignees(self.assignee_ids),
            "channel_kinds": _names(self.channel_kinds),
            "tags": _texts(self.tags),
            "has_open_request": self.has_open_request,
            **_ranges(waiting_since=self.waiting_since),
            "search": self.search,
        }
        below = _below(self.and_, self.or_, self.not_, ConversationFilter.to_filter)
        return _made(filters.ConversationFilter, given | below)


@strawberry.input(
    description=f"Which contacts: those that meet all conditions. Conditions left out do not restrict. {_LIMITS}"
)
class ContactFilter:
    tags: list[str] | None = strawberry.field(
        default=None, description=limited("With any of these labels.", filters.LONGEST_TAG)
    )
    search: str | None = strawberry.field(default=None, description=_CONTACT_SEARCH)
    created_at: DateTimeRange | None = strawberry.field(default=None, description="Created in this range.")
    has_open_request: bool | None = strawberry.field(
        default=None, description="Only those with a SENT, PROCESSING or PARTIALLY_PAID request, or only others."
    )
    and_: list[ContactFilter] | None = strawberry.field(name="and", default=None, description=_ALL)
    or_: list[ContactFilter] | None = strawberry.field(name="or", default=None, description=_ANY)
    not_: ContactFilter | None = strawberry.field(name="not", default=None, description=_NOT)

    def to_filter(self) -> filters.ContactFilter:
        """Raises: Invalid."""
        given = {
            "tags": _texts(self.tags),
            "search": self.search,
            **_ranges(created_at=self.created_at),
            "has_open_request": self.has_open_request,
        }
        below = _below(self.and_, self.or_, self.not_, ContactFilter.to_filter)
        return _made(filters.ContactFilter, given | below)


RequestsFilter = Annotated[PaymentRequestFilter | None, strawberry.argument(description="Which ones; left out: all.")]
RequestsOrder = Annotated[
    PaymentRequestOrder | None, strawberry.argument(description="The order. Default: newest first.")
]
ConversationsFilter = Annotated[
    ConversationFilter | None, strawberry.argument(description="Which ones; left out: all.")
]
ConversationsOrder = Annotated[
    ConversationOrder | None, strawberry.argument(description="The order. Default: newest activity first.")
]
ContactsFilter = Annotated[ContactFilter | None, strawberry.argument(description="Which ones; left out: all.")]
ContactsOrder = Annotated[ContactOrder | None, strawberry.argument(description="The order. Default: newest first.")]

MessageText = Annotated[
    str,
    strawberry.argument(
        description=limited(
            "Part of the text, without regard to case and accents; words need not be whole. Blank finds nothing.",
            filters.LONGEST_SEARCH,
        )
    ),
]
OfConversation = Annotated[
    strawberry.ID | None, strawberry.argument(description="Only of this conversation; an unknown one has none.")
]
OnChannels = Annotated[
    list[ChannelKind] | None, strawberry.argument(description="Only on these kinds of channel; left out: on all.")
]
SentAt = Annotated[DateTimeRange | None, strawberry.argument(description="Only those that were sent in this range.")]

AnyFilter: TypeAlias = PaymentRequestFilter | ConversationFilter | ContactFilter
AnyOrder: TypeAlias = PaymentRequestOrder | ConversationOrder | ContactOrder


def order_of(name: List, given: AnyOrder | None) -> Order | None:
    if given is None:
        return None
    return Order(name, given.field.name, given.direction is SortDirection.DESC)


def list_query(
    name: List, filter: AnyFilter | None, order: AnyOrder | None, contacts: tuple[UUID, ...] | None = None
) -> ListQuery:
    """Raises: ApiError BAD_REQUEST."""
    try:
        wanted = filter.to_filter() if filter is not None else None
    except Refusal as refusal:
        raise bad_request(f"`{'.'.join(['filter', *(refusal.field or ())])}`: {refusal.message}") from None
    return queries.query(name, wanted, order_of(name, order), contacts)


def message_search(
    search: str,
    conversation_id: str | None,
    channel_kinds: Sequence[ChannelKind] | None,
    sent_at: DateTimeRange | None,
) -> MessageSearch:
    """Raises: ApiError BAD_REQUEST."""
    conversation = parse_public_id(conversation_id, "cnv") if conversation_id is not None else None
    try:
        return MessageSearch(
            search=search if conversation is not None or conversation_id is None else "",
            conversation_id=conversation,
            channel_kinds=_names(channel_kinds),
            sent_at=filters.TimeRange(sent_at.from_, sent_at.until) if sent_at is not None else None,
        )
    except Refusal as refusal:
        raise bad_request(refusal.message if refusal.field else f"`sentAt`: {refusal.message}") from None


# --- parts of filters ------------------------------------------------------------------------------------------------
def _names(given: Iterable[Enum] | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(one.name for one in given)


def _texts(given: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if given is None else tuple(given)


def _ids(given: Iterable[str] | None, prefix: str) -> tuple[UUID, ...] | None:
    """Without what is no id of this kind: it matches nothing."""
    if given is None:
        return None
    return tuple(id for id in (parse_public_id(one, prefix) for one in given) if id is not None)


def _assignees(given: Sequence[str | None] | None) -> tuple[UUID | None, ...] | None:
    if given is None:
        return None
    return *([None] if None in given else []), *(_ids([one for one in given if one is not None], "usr") or ())


def _ranges(**given: DateTimeRange | MoneyRange | None) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, range in given.items():
        with _inside(name):
            if isinstance(range, DateTimeRange):
                found[name] = filters.TimeRange(range.from_, range.until)
            else:
                found[name] = None if range is None else range.to_range()
    return found


def _below(
    and_: Sequence[R] | None, or_: Sequence[R] | None, not_: R | None, convert: Callable[[R], object]
) -> dict[str, object]:
    found: dict[str, object] = {"and_": (), "or_": None, "not_": None}
    for name, given in (("and_", and_), ("or_", or_)):
        with _inside(name):
            if given is not None:
                found[name] = tuple(convert(one) for one in given)
    with _inside("not_"):
        found["not_"] = None if not_ is None else convert(not_)
    return found


def _made(kind: Callable[..., F], given: dict[str, object]) -> F:
    try:
        return kind(**given)
    except Refusal as refusal:
        refusal.field = tuple(to_camel_case(part) for part in refusal.field or ()) or None
        raise


@contextmanager
def _inside(name: str) -> Iterator[None]:
    try:
        yield
    except Refusal as refusal:
        refusal.field = (to_camel_case(name.rstrip("_")), *(refusal.field or ()))
        raise
