"""Whether a contact can be written to on a channel now, and why not: the one predicate behind the $ icon and behind sending."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from integrations.base import ChannelKind, ChannelLimits, IntegrationError
from integrations.registry import UnknownProvider
from models import errors
from models.tables import ChannelConnection, ContactAddress, Conversation
from models.vault import VaultError
from services import connections
from services.actors import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """How a contact can be reached through one channel now. `max_message_length` in bytes if `length_in_bytes`, else characters.

    `reason` is the first that failed, None if `enabled` (or not `supported`). `window_closes_at` may lie in the past.
    """

    supported: bool
    enabled: bool
    reason: str | None
    max_message_length: int | None
    length_in_bytes: bool
    link_preview: bool
    window_closes_at: datetime | None
    needs_subject: bool


_REFUSALS: Final[dict[str, type[errors.Refusal]]] = {
    "CHANNEL_NOT_CONNECTED": errors.ChannelNotConnected,
    "NO_PROCESSOR_CONFIGURED": errors.NoProcessorConfigured,
    "FORBIDDEN": errors.Forbidden,
    "CONTACT_HAS_NO_ADDRESS": errors.ContactHasNoAddress,
    "CONTACT_OPTED_OUT": errors.ContactOptedOut,
    "MESSAGING_WINDOW_CLOSED": errors.MessagingWindowClosed,
}
_ABOUT_THE_CALLER: Final = frozenset({"NO_PROCESSOR_CONFIGURED", "FORBIDDEN"})


async def capabilities(actor: Actor, conversation: Conversation) -> list[tuple[ChannelConnection, Capability]]:
    """Every channel of the account as this contact can be asked for money through it. Three queries."""
    return (await capabilities_of(actor, [conversation]))[conversation.id]


async def capabilities_of(
    actor: Actor, conversations: Sequence[Conversation]
) -> dict[UUID, list[tuple[ChannelConnection, Capability]]]:
    """`capabilities` of many conversations of the actor's account, by conversation id. Three queries, however many."""
    if not conversations:
        return {}
    rows = await ChannelConnection.filter(account_id=actor.account_id).order_by("id")
    has_processor = await connections.default_processor(actor.account_id) is not None
    addresses = {
        (address.contact_id, address.kind): address
        for address in await ContactAddress.filter(
            account_id=actor.account_id, contact_id__in=[c.contact_id for c in conversations]
        )
    }
    now = datetime.now(UTC)
    return {
        conversation.id: [
            (
                row,
                _decide(
                    actor,
                    row,
                    addresses.get((conversation.contact_id, row.kind)),
                    permission="request_payment",
                    has_processor=has_processor,
                    now=now,
                ),
            )
            for row in rows
        ]
        for conversation in conversations
    }


async def capability(
    actor: Actor,
    conversation: Conversation,
    connection: ChannelConnection,
    *,
    payment_request: bool,
    now: datetime,
    by_person: bool | None = None,
) -> Capability:
    """One channel for this contact; without `payment_request` for a message that asks for no money.

    `by_person`: whether a person wrote it, where somebody else hands it over; None: the actor is its author.
    """
    address = await ContactAddress.get_or_none(
        account_id=actor.account_id, contact_id=conversation.contact_id, kind=connection.kind
    )
    has_processor = not payment_request or await connections.default_processor(actor.account_id) is not None
    return _decide(
        actor,
        connection,
        address,
        permission="request_payment" if payment_request else "message",
        has_processor=has_processor,
        now=now,
        by_person=by_person,
    )


def _decide(
    actor: Actor,
    connection: ChannelConnection,
    address: ContactAddress | None,
    *,
    permission: str,
    has_processor: bool,
    now: datetime,
    by_person: bool | None = None,
) -> Capability:
    """Pure: the first failing reason in the order of domain.md, section 5."""
    known = _known_limits(connection)
    limits = known or ChannelLimits()
    window_hours = limits.window_hours
    if (actor.kind == "user" if by_person is None else by_person) and limits.person_window_hours is not None:
        window_hours = limits.person_window_hours
    closes_at = None
    if window_hours is not None and address is not None and address.last_inbound_at is not None:
        closes_at = address.last_inbound_at + timedelta(hours=window_hours)
    reason = None
    if not connections.usable(connection):
        reason = "CHANNEL_NOT_CONNECTED"
    elif not has_processor:
        reason = "NO_PROCESSOR_CONFIGURED"
    elif not actor.may(permission):
        reason = "FORBIDDEN"
    elif address is None:
        reason = "CONTACT_HAS_NO_ADDRESS"
    elif address.opted_out_at is not None:
        reason = "CONTACT_OPTED_OUT"
    elif window_hours is not None and (closes_at is None or closes_at <= now):
        reason = "MESSAGING_WINDOW_CLOSED"
    return Capability(
        supported=known is not None,
        enabled=known is not None and reason is None,
        reason=reason,
        max_message_length=limits.max_length,
        length_in_bytes=limits.length_in_bytes,
        link_preview=limits.link_preview,
        window_closes_at=closes_at,
        needs_subject=limits.needs_subject,
    )


def limits_of(connection: ChannelConnection) -> ChannelLimits:
    """What this channel can carry; no limits if its provider can't be made (then nothing can be sent either)."""
    return _known_limits(connection) or ChannelLimits()


def _known_limits(connection: ChannelConnection) -> ChannelLimits | None:
    try:
        return connections.channel(connection).limits(ChannelKind(connection.kind))
    except (UnknownProvider, IntegrationError, VaultError, ValueError):
        return None  # a plug-in that is gone, or credentials that can't be read: the channel can't be used


def refuse(capability: Capability) -> None:
    """Raise what stands in the way of sending, if anything does. Raises: the refusal of `reason`, ChannelNotSupported."""
    if capability.reason is not None:
        field = None if capability.reason in _ABOUT_THE_CALLER else "channelId"
        raise _REFUSALS[capability.reason](field=field)
    if not capability.supported:
        raise errors.ChannelNotSupported(field="channelId")
