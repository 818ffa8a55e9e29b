"""Objects of the API by their public id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import UUID

from models.errors import Invalid
from models.ids import parse_public_id, public_id
from resolvers.access.loaders import Loaders
from schema.account import Account, ApiKey, Channel, ConversationChannel, Processor, User
from schema.actor import SystemActor
from schema.contact import Contact
from schema.conversation import Conversation
from schema.dashboard import DashboardFigures, dashboard_figures
from schema.failures import ApiError
from schema.notification import Notification
from schema.payment import Dispute, Payment, Refund
from schema.payment_request import PaymentRequest
from schema.scalars import Node
from schema.session import Session
from schema.team import Invitation
from schema.thread import ActivityCard, Attachment, Message, Note
from schema.view import View, view_from_row
from schema.viewer import Viewer
from services.core.actors import UNKNOWN_NAME, ActorRef
from services.payments.dashboard import Board


class Nodes(Loaders):
    async def contact_node(self, id: UUID) -> Contact:
        row = await self.contact(id)
        if row is None:
            raise RuntimeError("a row without its contact")
        return Contact.from_row(row)

    async def conversation_node(self, id: UUID) -> Conversation:
        row = await self.conversation(id)
        if row is None:
            raise RuntimeError("a row without its conversation")
        return Conversation.from_row(row)

    async def actor_node(self, ref: ActorRef) -> User | ApiKey | Contact | SystemActor:
        if ref.id is not None:
            read, make = _ACTORS[ref.kind]
            row = await read(self, ref.id)
            if row is not None:
                found: User | ApiKey | Contact = make(row)
                return found
        return SystemActor(name=ref.name or UNKNOWN_NAME)

    async def node(self, public_id: str) -> Node | None:
        """None for an unknown id, another account's id and malformed text."""
        prefix = public_id.partition("_")[0]
        if prefix == "cch":
            return await self._conversation_channel(public_id)
        if prefix == "dash":
            return await self._dashboard(public_id)
        finder = _FINDERS.get(prefix)
        found = parse_public_id(public_id, prefix)
        return await finder(self, found) if finder is not None and found is not None else None

    async def _conversation_channel(self, public_id: str) -> ConversationChannel | None:
        head, _, _ = public_id.rpartition("_")
        conversation_id = parse_public_id(head, "cch")
        channel_id = parse_public_id(public_id, head)
        if conversation_id is None or channel_id is None:
            return None
        conversation = await self.conversation(conversation_id)
        if conversation is None:
            return None
        for reach in await self.capabilities(conversation):
            if reach.connection.id == channel_id:
                return ConversationChannel.from_reach(conversation, reach)
        return None

    async def _dashboard(self, public_id: str) -> DashboardFigures | None:
        head, _, name = public_id.removeprefix("dash_").partition("_")
        if parse_public_id(f"dash_{head}", "dash") != self._account_id:
            return None
        with suppress(ValueError, Invalid, ApiError):
            return await dashboard_figures(self._account_id, Board.parse(name))
        return None

    async def viewer_node(self, id: UUID) -> Viewer | None:
        viewer = Viewer.from_actor(self.viewer)
        return viewer if viewer.id == public_id("vwr", id) else None

    async def payment_request_view_node(self, id: UUID) -> View | None:
        return await self._view_node(id, "PAYMENT_REQUEST")

    async def conversation_view_node(self, id: UUID) -> View | None:
        return await self._view_node(id, "CONVERSATION")

    async def _view_node(self, id: UUID, subject: str) -> View | None:
        row = await self.view(id)
        return view_from_row(row) if row is not None and row.subject == subject else None

    async def payment_node(self, id: UUID) -> Payment | None:
        """A payment has the id of its first fact."""
        view = await self.payment_of_fact(id)
        return Payment.from_view(view) if view is not None and view.id == id else None

    async def account_node(self, id: UUID) -> Account | None:
        return Account.from_row(await self.account()) if id == self._account_id else None


_ACTORS: dict[str, tuple[Callable[[Nodes, UUID], Awaitable[Any]], Callable[[Any], Any]]] = {
    "USER": (Nodes.user, User.from_row),
    "API_KEY": (Nodes.api_key_of_actor, ApiKey.from_row),
    "CONTACT": (Nodes.contact, Contact.from_row),
}


def _finder(
    read: Callable[[Nodes, UUID], Awaitable[Any]], make: Callable[[Any], Node]
) -> Callable[[Nodes, UUID], Awaitable[Node | None]]:
    async def find(reads: Nodes, id: UUID) -> Node | None:
        row = await read(reads, id)
        return make(row) if row is not None else None

    return find


_FINDERS: dict[str, Callable[[Nodes, UUID], Awaitable[Node | None]]] = {
    "acc": Nodes.account_node,
    "vwr": Nodes.viewer_node,
    "usr": _finder(Nodes.user, User.from_row),
    "key": _finder(Nodes.api_key, ApiKey.from_row),
    "chn": _finder(Nodes.channel, Channel.from_row),
    "prc": _finder(Nodes.processor, Processor.from_row),
    "cnt": _finder(Nodes.contact, Contact.from_row),
    "cnv": _finder(Nodes.conversation, Conversation.from_row),
    "msg": _finder(Nodes.message, Message.from_row),
    "card": _finder(Nodes.card, ActivityCard.from_row),
    "note": _finder(Nodes.note, Note.from_row),
    "pr": _finder(Nodes.visible_request, PaymentRequest.from_row),
    "pay": Nodes.payment_node,
    "ses": _finder(Nodes.session, Session.from_session),
    "inv": _finder(Nodes.invitation, Invitation.from_row),
    "rfd": _finder(Nodes.refund, Refund.from_view),
    "dsp": _finder(Nodes.dispute, Dispute.from_view),
    "att": _finder(Nodes.attachment, Attachment.from_row),
    "prv": Nodes.payment_request_view_node,
    "cvv": Nodes.conversation_view_node,
    "ntf": _finder(Nodes.notification, Notification.from_row),
}
