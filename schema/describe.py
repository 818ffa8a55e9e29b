"""strawberry's decorators with a description, typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import strawberry
from strawberry.extensions import FieldExtension

F = TypeVar("F", bound=Callable[..., Any])


def limited(description: str, limit: int) -> str:
    return f"{description} At most {limit} characters."


def field(description: str) -> Callable[[F], F]:

    def wrap(resolver: F) -> F:
        return cast(F, strawberry.field(resolver, description=description))

    return wrap


def mutation(description: str, *extensions: FieldExtension) -> Callable[[F], F]:

    def wrap(resolver: F) -> F:
        return cast(F, strawberry.mutation(resolver, description=description, extensions=list(extensions)))

    return wrap


def subscription(description: str) -> Callable[[F], F]:

    def wrap(resolver: F) -> F:
        return cast(F, strawberry.subscription(resolver, description=description))

    return wrap
