"""Builds the team API's schema and context."""

from __future__ import annotations

from resolvers import feeds, view_feed
from resolvers.access.reads import Access
from resolvers.mutation import Mutation, MutationWithSandbox
from resolvers.plans.plans import Plans
from resolvers.query import Query
from resolvers.subscription import PERSONAL_FIELDS, Subscription
from resolvers.transport.fanout import Sharing
from resolvers.transport.limits import Limits
from resolvers.transport.schema import Schema, schema_options
from schema import user_errors
from schema.account import ApiKey, ConversationChannel, Processor
from schema.context import Context
from schema.events import ResyncRequired
from schema.messages import language_of
from schema.notification import Notification
from schema.payment import Payment
from schema.scalars import SCALARS
from schema.thread import ActivityCard, Message, Note
from schema.view import ConversationView, PaymentRequestView
from services.core.event_hub import Hub
from services.core.permissions import Actor

# Subscriptions with the same events for all viewers of one account, role and kind of credential who may or may not manage keys:
# executed once for all.
SHARING = Sharing(
    fields=frozenset({"inboxEvents", "conversationEvents", "contactPaymentEvents", "viewEvents"}),
    personal=PERSONAL_FIELDS,
    scope=lambda viewer: (viewer.account_id, viewer.role, viewer.kind, viewer.may("keys")),
    position=feeds.number_of,
    ends=lambda event: isinstance(event, ResyncRequired),
    audiences={"viewEvents": view_feed.audience},
    over=lambda context: context.feed_is_over,
)

# Allowed once per operation: a password hash takes 150 ms, refreshSession a row lock, and most of these need no credential.
ONCE = frozenset(
    {"signIn", "refreshSession", "acceptInvitation", "changePassword", "requestPasswordReset", "resetPassword"}
    | {"requestEmailChange", "confirmEmailChange"}
)


def build_schema(
    *,
    production: bool,
    introspection: bool | None = None,
    limits: Limits | None = None,
    plans: bool = True,
    sandbox: bool = True,
) -> Schema:
    schema = Schema(
        query=Query,
        mutation=MutationWithSandbox if sandbox else Mutation,
        subscription=Subscription,
        # Types that only interfaces refer to.
        types=[
            ActivityCard,
            ApiKey,
            ConversationChannel,
            ConversationView,
            Message,
            Note,
            Notification,
            Payment,
            PaymentRequestView,
            Processor,
            *user_errors.TYPES,
        ],
        **schema_options(
            production=production, introspection=introspection, limits=limits, scalar_map=SCALARS, once=ONCE
        ),
    )
    if plans:
        schema.use(Plans(schema))
    return schema


def new_context(
    *,
    hub: Hub | None,
    viewer: Actor | None = None,
    client_address: str = "",
    request_id: str = "",
    user_agent: str = "",
    accept_language: str = "",
) -> Context:
    return Context(
        make_reads=Access,
        viewer=viewer,
        hub=hub,
        client_address=client_address,
        request_id=request_id,
        user_agent=user_agent,
        language=language_of(accept_language),
    )
