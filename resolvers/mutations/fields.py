"""The decorator of mutation fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from strawberry.extensions import FieldExtension
from strawberry.types.field import StrawberryField

from models.errors import NotFound, Refusal
from resolvers.access.reads import wants_position
from schema import describe
from schema.context import Info
from schema.user_errors import user_errors

F = TypeVar("F", bound=Callable[..., Any])
Resolver = Callable[..., Awaitable[Any]]


def mutation(
    description: str,
    *,
    renamed: Mapping[str, str] | None = None,
    not_found: str | None = None,
    anonymous: bool = False,
) -> Callable[[F], F]:
    """A field of Mutation. `renamed`: service field names to input names. Raises: ApiError UNAUTHENTICATED, unless `anonymous`."""
    refusals = RefusalsAsUserErrors(renamed=renamed or {}, not_found=not_found)
    return describe.mutation(description, *([refusals] if anonymous else [refusals, FreshReads()]))


class RefusalsAsUserErrors(FieldExtension):
    def __init__(self, *, renamed: Mapping[str, str], not_found: str | None) -> None:
        self._renamed = renamed
        self._not_found = not_found
        self._payload: Any = None

    def apply(self, field: StrawberryField) -> None:
        self._payload = field.type

    async def resolve_async(self, next_: Resolver, source: Any, info: Info, **kwargs: Any) -> Any:
        try:
            return await next_(source, info, **kwargs)
        except Refusal as refusal:
            for each in refusal.all:
                if each.field:
                    each.field = (self._renamed.get(each.field[0], each.field[0]), *each.field[1:])
                elif isinstance(each, NotFound) and self._not_found is not None:
                    each.field = (self._not_found,)
            return self._payload(user_errors=await user_errors(info, refusal))


class FreshReads(FieldExtension):
    """Drops cached reads, so that the payload reads after the write."""

    async def resolve_async(self, next_: Resolver, source: Any, info: Info, **kwargs: Any) -> Any:
        context = info.context
        _ = context.actor  # raises without a viewer
        context.renew()
        # Read before the write: the write's own events then repeat what the answer shows, and no event is missed.
        position = await context.reads.position() if wants_position(info) else None
        try:
            return await next_(source, info, **kwargs)
        finally:
            context.renew(position)
