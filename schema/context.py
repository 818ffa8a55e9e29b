"""The resolvers' context. Its reads are implemented in resolvers/access/."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias
from uuid import UUID

import strawberry

from models import tables
from models.event_log import Cursor as EventCursor
from schema import messages
from schema.connections import Page, Slice
from schema.failures import unauthenticated
from schema.scalars import Cursor, Node
from services.connections.availability import Reach
from services.core.actors import ActorRef
from services.core.event_hub import Hub
from services.core.permissions import Actor
from services.lists.queries import ListQuery
from services.payments.payment_views import PaymentView
from services.payments.refund_views import RefundView


class Reads(Protocol):
    """Reads of the viewer's account, cached per operation. Another account's id gives None."""

    @property
    def viewer(self) -> Actor: ...

    async def position(self) -> EventCursor: ...

    async def account(self) -> tables.Account: ...
    async def user(self, id: UUID) -> tables.User | None: ...
    async def contact(self, id: UUID) -> tables.Contact | None: ...
    async def conversation(self, id: UUID) -> tables.Conversation | None: ...
    async def payment_request(self, id: UUID) -> tables.PaymentRequest | None: ...
    async def message(self, id: UUID) -> tables.Message | None: ...
    async def card(self, id: UUID) -> tables.ActivityCard | None: ...
    async def note(self, id: UUID) -> tables.Note | None: ...
    async def mentioned(self, note_id: UUID) -> Sequence[tables.User]: ...
    async def notification(self, id: UUID) -> tables.Notification | None: ...
    async def channel(self, id: UUID) -> tables.ChannelConnection | None: ...
    async def processor(self, id: UUID) -> tables.ProcessorConnection | None: ...

    async def tags(self) -> Sequence[str]: ...
    async def channels(self) -> Sequence[tables.ChannelConnection]: ...
    async def processors(self) -> Sequence[tables.ProcessorConnection]: ...
    async def default_processor(self) -> tables.ProcessorConnection | None: ...
    async def conversation_of(self, contact_id: UUID) -> tables.Conversation | None: ...
    async def following(self, conversation_id: UUID) -> bool: ...
    async def addresses(self, contact_id: UUID) -> Sequence[tables.ContactAddress]: ...
    async def summaries(self, contact_id: UUID) -> Sequence[tables.ContactSummary]: ...
    async def merged_contacts(self, contact: tables.Contact) -> Sequence[tables.Contact]: ...
    async def merged_contact(self, id: UUID) -> tables.Contact | None: ...
    async def overdue(self, contact: tables.Contact) -> dict[tuple[str, bool], int]:
        """Requests by currency and test mode."""
        ...

    async def payments(self, payment_request_id: UUID) -> Sequence[PaymentView]: ...
    async def refunds(self, payment_request_id: UUID) -> Sequence[RefundView]: ...
    async def refund(self, id: UUID) -> RefundView | None: ...
    async def refundable(self, payment_request_id: UUID) -> dict[UUID, int]:
        """In minor units by payment id, without zeros."""
        ...

    async def payment_of_fact(self, money_fact_id: UUID) -> PaymentView | None: ...
    async def attachments(self, message_id: UUID) -> Sequence[tables.Attachment]: ...

    async def requests_of_message(self, message_id: UUID) -> Sequence[tables.PaymentRequest]: ...
    async def other_attempts(self, message: tables.Message) -> Sequence[tables.Message]: ...
    async def capabilities(self, conversation: tables.Conversation) -> Sequence[Reach]: ...
    async def suggested_cc(self, conversation: tables.Conversation) -> list[str]: ...
    async def unread_count(self) -> int: ...
    async def users(self, page: Page) -> Slice[tables.User]: ...
    async def users_count(self) -> int | None: ...
    async def api_keys(self, page: Page) -> Slice[tables.ApiKey]:
        """Raises: ApiError FORBIDDEN."""
        ...

    async def api_keys_count(self) -> int | None: ...
    async def invitation_connection(self, page: Page) -> object: ...
    async def invitations_count(self) -> int | None: ...

    async def thread(self, conversation: tables.Conversation, page: Page) -> Slice[tables.ThreadRow]: ...
    async def thread_count(self, conversation: tables.Conversation) -> int | None:
        """None: more than LARGEST_COUNT, as for the next."""
        ...

    async def contact_payments(self, contact: tables.Contact, page: Page) -> Slice[PaymentView]: ...
    async def contact_payments_count(self, contact: tables.Contact) -> int | None: ...
    async def payment_requests(self, query: ListQuery, page: Page) -> Slice[tables.PaymentRequest]: ...
    async def conversations(self, query: ListQuery, page: Page) -> Slice[tables.Conversation]: ...
    async def total(self, query: ListQuery) -> int | None: ...

    # The GraphQL type, for modules that can't import it without a circle.
    async def node(self, public_id: str) -> Node | None: ...

    async def contact_node(self, id: UUID) -> object: ...

    async def conversation_node(self, id: UUID) -> object: ...

    async def actor_node(self, ref: ActorRef) -> object: ...


class Context:
    """One request, socket or pushed event."""

    __slots__ = (
        "_position",
        "_reads",
        "client_address",
        "connection_params",
        "event_number",
        "event_position",
        "feed_is_over",
        "hub",
        "language",
        "make_reads",
        "planned_s",
        "request_id",
        "user_agent",
        "viewer",
    )

    def __init__(
        self,
        *,
        make_reads: Callable[[Actor, EventCursor | None], Reads],
        viewer: Actor | None = None,
        hub: Hub | None = None,
        client_address: str = "",
        request_id: str = "",
        user_agent: str = "",
        language: str = messages.DEFAULT,
    ) -> None:
        self.make_reads = make_reads
        self.viewer = viewer
        self.hub = hub
        self.client_address = client_address
        self.request_id = request_id
        self.user_agent = user_agent
        self.language = language  # of messages
        self.connection_params: dict[str, Any] | None = None
        self.event_position: EventCursor | None = None
        self.event_number: int | None = None  # where a feed counts its events otherwise
        self.feed_is_over = False
        self.planned_s: float | None = None
        self._position: EventCursor | None = None
        self._reads: Reads | None = None

    @property
    def actor(self) -> Actor:
        if self.viewer is None:
            raise unauthenticated()
        return self.viewer

    @property
    def reads(self) -> Reads:
        actor = self.actor
        if self._reads is None or self._reads.viewer is not actor:
            self._reads = self.make_reads(actor, self._position)
        return self._reads

    def renew(self, position: EventCursor | None = None) -> None:
        """Drop cached reads. `position`: from before the write."""
        self._position = position
        self._reads = None

    def for_event(self) -> Context:
        copy = Context(
            make_reads=self.make_reads,
            viewer=self.viewer,
            hub=self.hub,
            client_address=self.client_address,
            request_id=self.request_id,
            user_agent=self.user_agent,
            language=self.language,
        )
        copy.connection_params = self.connection_params
        copy.event_position = copy._position = self.event_position
        return copy


Info: TypeAlias = strawberry.Info[Context, None]


async def event_cursor(info: Info) -> Cursor:
    return Cursor((await info.context.reads.position()).encode())
