"""The root of the visitor API's subscriptions."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

import strawberry

from models.event_log import Cursor as LogCursor
from models.event_log import LogEntry
from resolvers.visitor.context import VisitorContext, VisitorInfo
from schema.describe import subscription
from schema.scalars import Cursor
from schema.visitor import (
    PaymentCard,
    PaymentCardChanged,
    VisitorEvent,
    VisitorMessage,
    VisitorMessageChanged,
    VisitorResyncRequired,
    VisitorSubscribed,
    seal,
    unseal,
)
from services.core.event_hub import ResyncNeeded, Start, follow
from services.messaging import contact_merging
from services.web_chat import thread, visits
from services.web_chat.identity import Visit


class _VisitorFilter:
    def __init__(self, visit: Visit) -> None:
        self._mark = visits.mark(visit)
        self.contact_ids: set[UUID | None] = set()
        self._attached = False

    def attached(self, contact_ids: Iterable[UUID]) -> None:
        """`contact_ids`: read after attaching. Later changes come from the log."""
        self.contact_ids.update(contact_ids)
        self._attached = True

    def wants(self, event: LogEntry) -> bool:
        if event.kind == visits.KNOWN:
            if event.data.get("visitor") == self._mark:
                self.contact_ids.add(event.contact_id)
            return False
        if event.kind == contact_merging.MERGED:
            both = {event.contact_id, UUID(event.data["contact_id"])}
            if both & self.contact_ids:
                self.contact_ids |= both
            return False
        if not event.kind.startswith(("message.", "payment_request.")):
            return False
        # Before `attached` any contact may be the visitor's.
        return event.contact_id in self.contact_ids if self._attached else True


async def _feed(context: VisitorContext, visit: Visit, after: str | None) -> AsyncGenerator[VisitorEvent, None]:
    if context.hub is None:
        raise RuntimeError("a subscription needs the hub")
    here = await thread.position(visit)
    resume = unseal(visit, after) if after is not None else None
    if after is not None and (resume is None or resume.epoch != here.epoch):
        yield VisitorResyncRequired(cursor=seal(here), reason="OTHER_EPOCH")
        return
    filter = _VisitorFilter(visit)
    start = resume.seq if resume is not None else None
    async with aclosing(follow(context.hub, visit.account_id, start, filter.wants)) as feed:
        async for item in feed:
            at = LogCursor(here.epoch, visit.account_id, item.seq)
            if isinstance(item, Start):
                filter.attached(await visits.contact_ids(visit))
                yield VisitorSubscribed(cursor=seal(at))
            elif isinstance(item, ResyncNeeded):
                yield VisitorResyncRequired(cursor=seal(at), reason=item.reason.value)
            elif item.contact_id in filter.contact_ids and (found := await _event(visit, item, at)) is not None:
                yield found


async def _event(visit: Visit, event: LogEntry, at: LogCursor) -> VisitorEvent | None:
    if event.kind.startswith("message.") and event.message_id is not None:
        shown = await thread.message(visit, event.message_id)
        if shown is None:
            return None
        return VisitorMessageChanged(cursor=seal(at), message=VisitorMessage.from_shown(shown, at))
    if event.payment_request_id is not None:
        card = await thread.card(visit, event.payment_request_id)
        return PaymentCardChanged(cursor=seal(at), card=PaymentCard.from_card(card)) if card is not None else None
    return None


@strawberry.type(description="Live events, over WebSocket (graphql-transport-ws) or server-sent events.")
class VisitorSubscription:
    @subscription(
        "The visitor's messages and payments. The first event is VisitorSubscribed; after a lost connection"
        " pass the newest cursor."
    )
    async def visitor_events(
        self,
        info: VisitorInfo,
        after: Annotated[
            Cursor | None,
            strawberry.argument(
                description="The newest cursor you have: what came since is delivered first. Left out: from now on."
            ),
        ] = None,
    ) -> AsyncGenerator[VisitorEvent, None]:
        return _feed(info.context, info.context.visit, after)
