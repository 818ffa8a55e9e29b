"""Inputs of saved views, and their filters as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, TypeVar, cast

import strawberry
from strawberry.types.base import StrawberryList, StrawberryOptional, has_object_definition
from strawberry.types.enum import StrawberryEnumDefinition
from strawberry.utils.str_converters import to_camel_case

from models.errors import Refusal
from models.ids import parse_public_id
from schema.describe import limited
from schema.inputs.descriptions import KEY
from schema.inputs.lists import (
    ConversationFilter,
    ConversationOrder,
    PaymentRequestFilter,
    PaymentRequestOrder,
    order_of,
)
from schema.scalars import parse_time, time_text
from services.lists import views
from services.lists.filters import ConversationFilter as Conversations
from services.lists.filters import PaymentRequestFilter as Requests
from services.lists.orders import DEFAULTS
from services.lists.subjects import Wanted
from services.lists.views import Content, Named

T = TypeVar("T")

_VIEW = "The view's id."


@strawberry.input(description="Payment requests.")
class PaymentRequestListInput:
    filter: PaymentRequestFilter | None = strawberry.field(default=None, description="Which ones; left out: all.")
    order_by: PaymentRequestOrder | None = strawberry.field(
        default=None, description="The order. Default: newest first."
    )


@strawberry.input(description="Conversations.")
class ConversationListInput:
    filter: ConversationFilter | None = strawberry.field(default=None, description="Which ones; left out: all.")
    order_by: ConversationOrder | None = strawberry.field(
        default=None, description="The order. Default: newest activity first."
    )


@strawberry.input(one_of=True, description="What a view lists.")
class ViewListInput:
    payment_requests: PaymentRequestListInput | None = strawberry.field(
        default=strawberry.UNSET, description="Payment requests: makes a PaymentRequestView."
    )
    conversations: ConversationListInput | None = strawberry.field(
        default=strawberry.UNSET, description="Conversations: makes a ConversationView."
    )

    def to_content(self) -> Content:
        """Raises: Invalid."""
        if self.payment_requests:
            filter, order = self.payment_requests.filter, self.payment_requests.order_by
            made = _inside("paymentRequests", filter.to_filter) if filter is not None else Requests()
            wanted = Wanted(made, order_of("payment_requests", order) or DEFAULTS["payment_requests"])
            return _content("paymentRequests", wanted, filter)
        assert self.conversations  # noqa: S101 (one of the two is given)
        given, order_by = self.conversations.filter, self.conversations.order_by
        of = _inside("conversations", given.to_filter) if given is not None else Conversations()
        wanted = Wanted(of, order_of("conversations", order_by) or DEFAULTS["conversations"])
        return _content("conversations", wanted, given)


@strawberry.input(description="A new view.")
class CreateViewInput:
    name: str = strawberry.field(description=limited("The name.", views.NAME_LIMIT))
    list: ViewListInput = strawberry.field(description="What it lists.")
    shared: bool = strawberry.field(
        description=(
            f"True: for the whole account, at most {views.MOST_SHARED}; needs the role OWNER or ADMIN. False: for the viewer"
            f" alone, at most {views.MOST_OWN}; only for users that may write messages."
        )
    )
    idempotency_key: str | None = strawberry.field(default=None, description=KEY)


@strawberry.input(description="A view's changes; fields left out stay.")
class UpdateViewInput:
    view_id: strawberry.ID = strawberry.field(description=_VIEW)
    name: str | None = strawberry.field(default=None, description=limited("The new name.", views.NAME_LIMIT))
    list: ViewListInput | None = strawberry.field(
        default=None, description="The new filter and order, both. A view keeps listing the same kind of objects."
    )


@strawberry.input(description="The view to delete.")
class DeleteViewInput:
    view_id: strawberry.ID = strawberry.field(description=_VIEW)


def _inside(list: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except Refusal as refusal:
        refusal.field = ("list", list, "filter", *(refusal.field or ()))
        raise


def _content(list: str, wanted: Wanted, filter: PaymentRequestFilter | ConversationFilter | None) -> Content:
    given = to_json(filter) if filter is not None else {}
    return Content(wanted, given, tuple(_names(given, ("list", list, "filter"))))


_TABLES: Final[dict[str, tuple[str, views.Table]]] = {
    "contactIds": ("cnt", "contact"),
    "assigneeIds": ("usr", "user_account"),
    "processorIds": ("prc", "processor_connection"),
}


def _names(given: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[Named]:
    for name, value in given.items():
        if name in _TABLES:
            prefix, table = _TABLES[name]
            for n, id in enumerate(value):
                if id is not None:
                    yield Named(table, parse_public_id(id, prefix), (*path, name, str(n)))
        elif name in ("and", "or"):
            for n, below in enumerate(value):
                yield from _names(below, (*path, name, str(n)))
        elif name == "not":
            yield from _names(value, (*path, name))


# --- JSON ------------------------------------------------------------------------------------------------------------
def to_json(given: object) -> dict[str, Any]:
    """An input as the client gave it, without nulls."""
    found: dict[str, Any] = {}
    for field in given.__strawberry_definition__.fields:  # type: ignore[attr-defined]  # of strawberry's inputs
        value = getattr(given, field.python_name)
        if value is not None and value is not strawberry.UNSET:
            found[_name(field)] = _to_json(value)
    return found


def _to_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_to_json(one) for one in value]
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, datetime):
        return time_text(value)
    return to_json(value) if has_object_definition(value) else value


def from_json(kind: type[T], given: Mapping[str, Any]) -> T:
    """The input that `to_json` got."""
    fields = kind.__strawberry_definition__.fields  # type: ignore[attr-defined]  # as above
    named = {_name(field): field for field in fields}
    return kind(**{named[name].python_name: _from_json(named[name].type, value) for name, value in given.items()})


def _from_json(kind: Any, value: Any) -> Any:
    if isinstance(kind, StrawberryOptional):
        return None if value is None else _from_json(kind.of_type, value)
    if isinstance(kind, StrawberryList):
        return [_from_json(kind.of_type, one) for one in value]
    if isinstance(kind, StrawberryEnumDefinition):
        return kind.wrapped_cls[value]
    if has_object_definition(kind):
        return from_json(cast(type[Any], kind), value)
    return parse_time(value) if kind is datetime else value


def _name(field: Any) -> str:
    return field.graphql_name or to_camel_case(field.python_name)
