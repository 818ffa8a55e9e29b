"""Who caused something: a user, an API key, a contact or the system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias, Union, cast, overload

import strawberry
from strawberry.types.lazy_type import LazyType

from schema.account import ApiKey, User
from schema.context import Info
from schema.scalars import Node
from services.core.actors import ActorRef


@strawberry.type(
    description=(
        "What is neither a person nor a key: Paythread, a processor, a channel's own inbox, or a program that older"
        " versions stored by its name."
    )
)
class SystemActor:
    name: str = strawberry.field(description="Its name, e.g. Paythread or Stripe.")


if TYPE_CHECKING:
    Actor: TypeAlias = User | ApiKey | Node | SystemActor  # the node: a Contact
else:
    # Lazy: contacts have requests, and requests have actors.
    Actor = Annotated[
        Union[User, ApiKey, LazyType("Contact", "schema.contact"), SystemActor],  # noqa: UP007 (`|` takes no instance)
        strawberry.union("Actor", description="Who caused something. A disabled user and a revoked key stay known."),
    ]


@overload
async def actor_of(info: Info, ref: ActorRef) -> Actor: ...
@overload
async def actor_of(info: Info, ref: ActorRef | None) -> Actor | None: ...
async def actor_of(info: Info, ref: ActorRef | None) -> Actor | None:
    return cast("Actor", await info.context.reads.actor_node(ref)) if ref is not None else None
