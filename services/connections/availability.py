"""Whether a message can reach a contact on a channel, and why not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from integrations.base import Channel, ChannelKind, ChannelLimits, IntegrationError, LengthUnit
from integrations.channels import web_chat
from integrations.registry import UnknownProvider
from models import database, errors, rows
from models.ids import public_id
from models.tables import ChannelConnection, ContactAddress, Conversation, Message, ProcessorConnection
from models.vault import VaultError
from services.connections import invitations, providers
from services.core import merged_rows
from services.core.permissions import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Help:
    kind: str
    sentence: str
    channel_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """`enabled` is for free text, `templates` for approved ones."""

    supported: bool
    enabled: bool
    reason: str | None
    templates: bool
    max_message_length: int | None
    length_unit: LengthUnit
    link_preview: bool
    window_closes_at: datetime | None
    needs_subject: bool
    help: Sequence[Help] = ()

    @property
    def sentence(self) -> str | None:
        return None if self.reason is None else _REFUSALS[self.reason]().message


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What one channel can send to a contact; rank 0: where the contact wrote last."""

    connection: ChannelConnection
    messages: Capability
    payment_requests: Capability
    with_own_processor: Capability
    rank: int = 0
    preferred: bool = False
    invite_url: str | None = None


_REFUSALS: Final[dict[str, type[errors.Refusal]]] = {
    "CHANNEL_NOT_CONNECTED": errors.ChannelNotConnected,
    "CHANNEL_NOT_SUPPORTED": errors.ChannelNotSupported,
    "NO_PROCESSOR_CONFIGURED": errors.NoProcessorConfigured,
    "FORBIDDEN": errors.Forbidden,
    "CONTACT_HAS_NO_ADDRESS": errors.ContactHasNoAddress,
    "CONTACT_OPTED_OUT": errors.ContactOptedOut,
    "MESSAGING_WINDOW_CLOSED": errors.MessagingWindowClosed,
}
REASONS: Final = tuple(_REFUSALS)  # in the order in which they are checked
_ABOUT_THE_CALLER: Final = frozenset({"NO_PROCESSOR_CONFIGURED", "FORBIDDEN"})
# Kinds whose addresses exist only after the contact has written.
_GIVEN_BY_THE_VENDOR: Final = frozenset({"INSTAGRAM_DM", "MESSENGER", "WEB_CHAT"})
# Kinds whose addresses are valid for one connection only.
_OF_ONE_CONNECTION: Final = _GIVEN_BY_THE_VENDOR | {"CUSTOM"}


async def capabilities(actor: Actor, conversation: Conversation) -> list[Reach]:
    return (await capabilities_of(actor, [conversation]))[conversation.id]


async def capabilities_of(actor: Actor, conversations: Sequence[Conversation]) -> dict[UUID, list[Reach]]:
    """Every channel for each contact, by conversation id."""
    if not conversations:
        return {}
    channels = await rows.find(ChannelConnection, "WHERE account_id = ? ORDER BY id", actor.account_id)
    has_processor = await providers.can_ask(actor.account_id)
    lost = None if has_processor else await providers.ended(actor.account_id)
    held: dict[UUID, dict[str, list[ContactAddress]]] = {c.contact_id: {} for c in conversations}
    of_contacts = f"WHERE account_id = ? AND contact_id IN ({database.placeholders(len(held))}) ORDER BY id"
    for address in await rows.find(ContactAddress, of_contacts, actor.account_id, *held):
        held[address.contact_id].setdefault(address.kind, []).append(address)
    addresses = {
        conversation.id: {
            row.id: await _choose_address(conversation, row, held[conversation.contact_id].get(row.kind, []))
            for row in channels
        }
        for conversation in conversations
    }
    last = await merged_rows.newest_inbound(conversations, "channel_connection_id")  # where each contact wrote last
    now = datetime.now(UTC)
    return {
        conversation.id: _reaches(
            actor,
            channels,
            conversation.contact_id,
            addresses[conversation.id],
            last.get(conversation.id),
            has_processor=has_processor,
            lost=lost,
            now=now,
        )
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
    processor_ids: Collection[UUID] = (),
    address: ContactAddress | None = None,
) -> Capability:
    """`payment_request`: the message carries one. `by_person` None: as the actor."""
    address = address or await address_of(conversation, connection)
    has_processor = not payment_request or await providers.can_ask(actor.account_id, named=processor_ids)
    return _decide(
        actor,
        connection,
        address,
        permission="request_payment" if payment_request else "message",
        has_processor=has_processor,
        now=now,
        by_person=by_person,
    )


async def address_of(conversation: Conversation, connection: ChannelConnection) -> ContactAddress | None:
    held = await rows.find(
        ContactAddress,
        "WHERE account_id = ? AND contact_id = ? AND kind = ? ORDER BY id",
        conversation.account_id,
        conversation.contact_id,
        connection.kind,
    )
    return await _choose_address(conversation, connection, held)


async def _choose_address(
    conversation: Conversation, connection: ChannelConnection, held: Sequence[ContactAddress]
) -> ContactAddress | None:
    # Only merged contacts have several.
    if len(held) < 2:
        return held[0] if held else None
    fitting = [row for row in held if belongs(connection, row.address)]
    if len(fitting) > 1 and connection.kind in _OF_ONE_CONNECTION:
        messages = Message.filter(
            conversation_id__in=merged_rows.ids_of(conversation),
            channel_connection_id=connection.id,
            address__in=[row.address for row in fitting],
        )
        newest = await messages.order_by("-seq").first()
        if newest is not None:
            return next(row for row in fitting if row.address == newest.address)
    return next((row for row in fitting if row.in_use), fitting[0] if fitting else None)


def _reaches(
    actor: Actor,
    channels: Sequence[ChannelConnection],
    contact_id: UUID,
    addresses: dict[UUID, ContactAddress | None],
    last: UUID | None,
    *,
    has_processor: bool,
    lost: ProcessorConnection | None,
    now: datetime,
) -> list[Reach]:
    def decide(row: ChannelConnection, permission: str, needed: bool) -> Capability:
        return _decide(actor, row, addresses[row.id], permission=permission, has_processor=needed, now=now)

    reaches = [
        Reach(
            connection=row,
            messages=decide(row, "message", True),
            payment_requests=decide(row, "request_payment", has_processor),
            with_own_processor=decide(row, "request_payment", True),
            invite_url=None if addresses[row.id] is not None else _invitation(row, contact_id, now),
        )
        for row in channels
    ]
    recent = sorted(
        reaches,
        key=lambda reach: (reach.connection.id == last, _last_heard(addresses[reach.connection.id])),
        reverse=True,
    )
    return _with_ranks_and_help(actor, reaches, recent, lost=lost, has_processor=has_processor)


def _with_ranks_and_help(
    actor: Actor,
    reaches: Sequence[Reach],
    recent: Sequence[Reach],
    *,
    lost: ProcessorConnection | None,
    has_processor: bool,
) -> list[Reach]:
    ranks = {reach.connection.id: rank for rank, reach in enumerate(recent)}
    open_to_messages = [reach.connection for reach in recent if reach.messages.enabled]
    open_to_requests = [reach.connection for reach in recent if reach.payment_requests.enabled]
    can_copy = has_processor and actor.may("request_payment")
    return [
        replace(
            reach,
            rank=ranks[reach.connection.id],
            preferred=open_to_messages[:1] == [reach.connection],
            messages=replace(
                reach.messages,
                help=_help(actor, reach.connection, reach.messages, open_to_messages, lost=lost, can_copy=False),
            ),
            payment_requests=replace(
                reach.payment_requests,
                help=_help(
                    actor, reach.connection, reach.payment_requests, open_to_requests, lost=lost, can_copy=can_copy
                ),
            ),
        )
        for reach in reaches
    ]


def _invitation(row: ChannelConnection, contact_id: UUID, now: datetime) -> str | None:
    channel = _channel_or_none(row) if providers.usable(row) else None
    return None if channel is None else invitations.url(channel, row.id, contact_id, now)


def _last_heard(address: ContactAddress | None) -> float:
    return 0.0 if address is None or address.last_inbound_at is None else address.last_inbound_at.timestamp()


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
    known = _known_limits(connection)
    limits = known or ChannelLimits()
    if address is not None and not belongs(connection, address.address):
        address = None
    window_hours = limits.window_hours
    if (actor.kind == "user" if by_person is None else by_person) and limits.person_window_hours is not None:
        window_hours = limits.person_window_hours
    closes_at = None
    if window_hours is not None and address is not None and address.last_inbound_at is not None:
        closes_at = address.last_inbound_at + timedelta(hours=window_hours)
        if closes_at <= now:
            closes_at = None
    reason = None
    if not providers.usable(connection):
        reason = "CHANNEL_NOT_CONNECTED"
    elif known is None:
        reason = "CHANNEL_NOT_SUPPORTED"
    elif not has_processor:
        reason = "NO_PROCESSOR_CONFIGURED"
    elif not actor.may(permission):
        reason = "FORBIDDEN"
    elif address is None:
        reason = "CONTACT_HAS_NO_ADDRESS"
    elif address.opted_out_at is not None:
        reason = "CONTACT_OPTED_OUT"
    elif window_hours is not None and closes_at is None:
        reason = "MESSAGING_WINDOW_CLOSED"
    return Capability(
        supported=known is not None,
        enabled=reason is None,
        reason=reason,
        templates=limits.templates and reason in (None, "MESSAGING_WINDOW_CLOSED"),
        max_message_length=limits.max_length,
        length_unit=limits.length_unit,
        link_preview=limits.link_preview,
        window_closes_at=closes_at,
        needs_subject=limits.needs_subject,
    )


def _help(
    actor: Actor,
    connection: ChannelConnection,
    able: Capability,
    opened: Sequence[ChannelConnection],
    *,
    lost: ProcessorConnection | None,
    can_copy: bool,
) -> list[Help]:
    if able.reason is None:
        return []
    found = []
    if able.templates:
        found.append(Help(kind="TEMPLATE", sentence="Send an approved template: it may be sent at any time."))
    # The same kind first: the contact knows it.
    others = sorted(opened, key=lambda other: other.kind != connection.kind)
    if others:
        sentence = f"Use {others[0].display_name} instead."
        found.append(Help(kind="OTHER_CHANNEL", sentence=sentence, channel_id=others[0].id))
    match able.reason:
        case "CHANNEL_NOT_CONNECTED" | "CHANNEL_NOT_SUPPORTED":
            found.append(_settings(actor, "CONNECT_CHANNEL", "the channel in Settings → Channels"))
        case "NO_PROCESSOR_CONFIGURED":
            what = f"{providers.processor_name(lost)} again" if lost is not None else "a payment processor"
            found.append(_settings(actor, "CONNECT_PROCESSOR", f"{what} in Settings → Payments"))
        case "FORBIDDEN":
            found.append(Help(kind="ASK_ROLE", sentence="Ask an owner or admin for a role that may do this."))
        case "CONTACT_HAS_NO_ADDRESS" if connection.kind in _GIVEN_BY_THE_VENDOR:
            sentence = "Wait until the contact writes on this channel: only then can they be answered there."
            found.append(Help(kind="WAIT_FOR_CONTACT", sentence=sentence))
        case "CONTACT_HAS_NO_ADDRESS":
            found.append(Help(kind="ADD_ADDRESS", sentence="Add the contact's address for this channel."))
        case "CONTACT_OPTED_OUT":
            sentence = "Only the contact can take the opt-out back, for instance by writing START."
            found.append(Help(kind="WAIT_FOR_CONTACT", sentence=sentence))
        case "MESSAGING_WINDOW_CLOSED":
            sentence = "Wait until the contact writes on this channel: that opens it again."
            found.append(Help(kind="WAIT_FOR_CONTACT", sentence=sentence))
    if can_copy:
        found.append(Help(kind="COPY_LINK", sentence="Copy the payment link and send it another way."))
    return found


def _settings(actor: Actor, kind: str, what: str) -> Help:
    if actor.may("settings"):
        return Help(kind=kind, sentence=f"Connect {what}.")
    return Help(kind="ASK_ROLE", sentence=f"Ask an owner or admin to connect {what}.")


def belongs(connection: ChannelConnection, address: str) -> bool:
    """Visitors are reached through their own widget only."""
    if connection.kind != ChannelKind.WEB_CHAT:
        return True
    widget = web_chat.widget_of(address)
    return widget == public_id("chn", connection.id) if connection.provider == web_chat.NAME else widget is None


def limits_of(connection: ChannelConnection) -> ChannelLimits:
    return _known_limits(connection) or ChannelLimits()


def _known_limits(connection: ChannelConnection) -> ChannelLimits | None:
    channel = _channel_or_none(connection)
    return None if channel is None else channel.limits(ChannelKind(connection.kind))


def _channel_or_none(connection: ChannelConnection) -> Channel | None:
    try:
        return providers.channel(connection)
    except (UnknownProvider, IntegrationError, VaultError, ValueError):
        return None  # the plug-in is gone, or the credentials are unreadable


def refuse(
    capability: Capability,
    conversation_id: UUID,
    channel_id: UUID,
    *,
    payment_request: bool = False,
    template: bool = False,
) -> None:
    """Raise the refusal of `reason`, if any. `payment_request`: the message carries one."""
    if template and capability.templates:
        return
    if capability.reason is not None:
        refusal = _REFUSALS[capability.reason](field=None if capability.reason in _ABOUT_THE_CALLER else "channelId")
        if isinstance(refusal, errors.MessagingWindowClosed):
            refusal.conversation_id = conversation_id
            refusal.channel_id = channel_id
            refusal.payment_request = payment_request
        raise refusal
    if template:
        raise errors.Invalid("This channel sends no templates: write a text.", field="template")
