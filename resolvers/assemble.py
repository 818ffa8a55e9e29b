"""The schema and the context, put together. What an operation may cost is in transport/limits.py."""

from __future__ import annotations

from resolvers.access import Access
from resolvers.mutation import Mutation
from resolvers.query import Query
from resolvers.subscription import Subscription
from resolvers.transport.limits import Limits, Schema, schema_options
from schema.account import ApiKey, ConversationChannel, Processor
from schema.context import Context
from schema.notification import Notification
from schema.payment_request import Payment
from schema.scalars import SCALARS
from schema.thread import ActivityCard, Message
from services.actors import Actor
from services.events import Hub


def build_schema(*, production: bool, introspection: bool | None = None, limits: Limits | None = None) -> Schema:
    """The schema with its limits. `introspection` default: not in production."""
    options = schema_options(production=production, introspection=introspection, limits=limits, scalar_map=SCALARS)
    # Sorting rebuilds each enum as a plain one of graphql-core, which can't serialize Python's members (strawberry
    # 0.341.2); and the order in the code, such as that of the statuses, is the better one to read.
    options["config"].sort_schema = False
    return Schema(
        query=Query,
        mutation=Mutation,
        subscription=Subscription,
        # Members of interfaces that no field names.
        types=[ActivityCard, ApiKey, ConversationChannel, Message, Notification, Payment, Processor],
        **options,
    )


def new_context(
    *, hub: Hub | None, viewer: Actor | None = None, client_address: str = "", request_id: str = ""
) -> Context:
    """The context of one request, or of one socket's connection. The transport sets `viewer` once it knows who asks."""
    return Context(make_reads=Access, viewer=viewer, hub=hub, client_address=client_address, request_id=request_id)
