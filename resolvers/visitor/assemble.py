"""The visitor API's schema, limits and credential."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from resolvers.transport.admission import token_of
from resolvers.transport.limits import Limits
from resolvers.transport.schema import Schema, schema_options
from resolvers.visitor.mutation import VisitorMutation
from resolvers.visitor.query import VisitorQuery
from resolvers.visitor.subscription import VisitorSubscription
from schema.scalars import SCALARS
from schema.visitor import VisitorFieldError, VisitorRateLimitError

IDENTITY_HEADER: Final = "paythread-identity"
# The API is public. These are several times what the widget needs.
LIMITS: Final = Limits(
    tokens=500,
    depth=6,
    aliases=5,
    directives=10,
    cost=1_500,
    body_bytes=32_768,
    operations_per_socket=5,
    sockets_per_token=10,
    messages_per_s=5.0,
    messages_burst=30,
    requests_per_s=10.0,
    requests_burst=50,
)


def build_visitor_schema(*, production: bool, introspection: bool | None = None, limits: Limits = LIMITS) -> Schema:
    return Schema(
        query=VisitorQuery,
        mutation=VisitorMutation,
        subscription=VisitorSubscription,
        types=[VisitorFieldError, VisitorRateLimitError],  # only an interface refers to them
        **schema_options(production=production, introspection=introspection, limits=limits, scalar_map=SCALARS),
    )


def credential_of(parameters: Mapping[str, Any]) -> str | None:
    token = token_of(parameters)
    if token is None:
        return None
    identity = next((value for name, value in parameters.items() if name.lower() == IDENTITY_HEADER), None)
    return f"{token} {identity.strip()}" if isinstance(identity, str) and identity.strip() else token
