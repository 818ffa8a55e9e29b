"""Delivery status: its transitions, and what status callbacks report."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import structlog
from tortoise.queryset import QuerySet

from integrations.base import StatusUpdate
from integrations.base import external_id as stored_id
from models.ids import parse_public_id
from models.tables import ChannelConnection, Message, MessagePaymentRequest
from services.connections import providers
from services.core import jobs
from services.core.actors import PAYTHREAD, ActorRef, channel
from services.core.unit_of_work import Change, change
from services.messaging import copies, early_statuses, opt_outs
from services.sandbox import channels as simulator
from services.thread import contact_totals, payment_links, request_rows

log = structlog.get_logger(__name__)

WINDOW_CLOSED: Final = "window_closed"  # a provider's reason
RATE_LIMITED: Final = "rate_limited"  # a provider's reason
LOOK_UPS_S: Final = (60, 300, 900)  # after a send without an answer
# An early status waits until the last look-up may have found the external id.
STATUS_WAITS: Final = timedelta(seconds=LOOK_UPS_S[-1] + 300)
# Failure reasons caused by the connection; Settings → Channels shows them.
CONNECTION_REASONS: Final = frozenset(
    {
        "unauthorized",
        "forbidden",
        "invalid_sender",
        "host_refused",
        "port_refused",
        "not_found",
        "not_supported",
        "account_inactive",
        "wrong_account",
        "trial_account",
        "sender_not_registered",
        "sender_limited",
        "tls_failed",
        "unreachable",
        RATE_LIMITED,
    }
)
# A status only moves up. FAILED is final, and can be reached until DELIVERED.
RANK: Final = {"QUEUED": 0, "SENDING": 1, "UNKNOWN": 2, "SENT": 3, "DELIVERED": 4, "READ": 5}


# ---------------------------------------------------------------------------------------------------------- transitions
def forward(before: str, after: str, *, answered: bool = False) -> bool:
    """Whether a delivery status may become this one; an answer to the message outweighs a failure report."""
    if before == "FAILED":
        return answered and after != "FAILED"
    if after == "FAILED":
        return RANK[before] < RANK["DELIVERED"]
    return RANK[after] > RANK[before]


async def advance(
    known: Message,
    status: str,
    *,
    external_id: str | None = None,
    relay_id: str | None = None,
    reason: str | None = None,
    error_code: str | None = None,
    error_message: str | None = None,
    answered: bool = False,
    only_from: str | None = None,
    by: ActorRef = PAYTHREAD,
) -> None:
    """Move a message and the delivery state of its requests forward, never back.

    `reason`: "opted_out" opts the address out; "window_closed" replaces the vendor's error code.
    """
    account_id = known.account_id
    bindings = await MessagePaymentRequest.filter(account_id=account_id, message_id=known.id)
    locked = [*(binding.payment_request_id for binding in bindings), known.id]
    async with change(account_id, actor=by, queue_on=locked) as changed:
        requests = await request_rows.lock_all(account_id, [binding.payment_request_id for binding in bindings])
        if reason == "opted_out":
            await contact_totals.lock_contact(account_id, known.contact_id)
        message = await Message.filter(id=known.id, account_id=account_id).select_for_update(no_key=True).get()
        if only_from is not None and message.delivery_status != only_from:
            return
        if external_id and message.external_id is None:
            await _store_external_id(message, external_id, relay_id, accepted=status == "SENT")
        if not forward(message.delivery_status, status, answered=answered):
            return
        message.delivery_status = status
        message.error_code = (reason if reason == WINDOW_CLOSED else error_code or "")[:40] or None
        message.error_message = (error_message or "")[:300] or None
        await message.save(update_fields=["delivery_status", "error_code", "error_message", "updated_at"])
        _announce(changed, message)
        for request in requests:
            await payment_links.delivery_changed(changed, request, message)
        # Only on a real step: a late repeat of this status must not undo a START.
        if reason == "opted_out":
            await opt_outs.opt_out(changed, message.channel_connection_id, message.kind, message.address, blocked=True)


async def _store_external_id(message: Message, external_id: str, relay_id: str | None, *, accepted: bool) -> None:
    message.external_id = stored_id(external_id)
    message.relay_id = relay_id
    # An echo whose text the vendor changed is stored as a colleague's message.
    await Message.filter(channel_connection_id=message.channel_connection_id, external_id=message.external_id).update(
        external_id=None
    )
    await message.save(update_fields=["external_id", "relay_id"])
    await early_statuses.wake(message.channel_connection_id, message.external_id)
    if accepted:
        connection = await providers.channel_connection(message.channel_connection_id, message.account_id)
        await simulator.enqueue_delivery(connection, external_id, message.address)


def _announce(changed: Change, message: Message) -> None:
    changed.event(
        "message.updated",
        conversation_id=message.conversation_id,
        contact_id=message.contact_id,
        message_id=message.id,
    )


# ------------------------------------------------------------------------------------------------------------ callbacks
async def record_status(connection: ChannelConnection, update: StatusUpdate, *, message_id: UUID | None = None) -> None:
    """Apply a verified status to the messages it names, or keep it until their external id is known.

    `message_id`: from the callback's URL, for a callback that overtakes the vendor's answer.
    """
    if not await _apply_to_messages(connection, update, message_id):
        await early_statuses.keep(connection, update, message_id, STATUS_WAITS)


@jobs.handler("message.status", on_dead="the message keeps the status that it has")
async def _status_job(job: jobs.JobContext) -> None:
    update, message_id, until = early_statuses.read(job)
    connection = await providers.channel_connection(UUID(job.payload["connection_id"]), job.account_id)
    # Ask first: an id may arrive meanwhile. If none is missing, the status is not ours.
    waits = await _without_external_id(connection).exists()
    if not await _apply_to_messages(connection, update, message_id) and waits and datetime.now(UTC) < until:
        raise jobs.Later(early_statuses.TRY_AGAIN.total_seconds())


def _without_external_id(connection: ChannelConnection) -> QuerySet[Message]:
    return Message.filter(
        account_id=connection.account_id,
        channel_connection_id=connection.id,
        direction="OUTBOUND",
        external_id=None,
        delivery_status__in=["SENDING", "UNKNOWN"],
        sending_at__gt=datetime.now(UTC) - STATUS_WAITS,
    )


async def _apply_to_messages(connection: ChannelConnection, update: StatusUpdate, message_id: UUID | None) -> bool:
    ours = Message.filter(account_id=connection.account_id, channel_connection_id=connection.id, direction="OUTBOUND")
    if update.up_to is not None:
        until = {"address": update.address, "sending_at__lte": update.up_to}
        waits = await _without_external_id(connection).filter(**until).exists()
        reached = ours.filter(**until, delivery_status__in=["SENT", "DELIVERED"])
        for message in await reached.order_by("seq"):
            await advance(message, update.status.value, by=channel(connection.display_name))
        return not waits
    found = await ours.get_or_none(external_id=stored_id(update.external_id)) or await by_relay(
        connection, [update.external_id]
    )
    if found is None:
        named = message_id or parse_public_id(update.message_id or "", "msg")
        found = await ours.get_or_none(id=named, external_id=None) if named is not None else None
    if found is None:
        log.info("status_of_unknown_message", connection=str(connection.id))
        return False
    if copies.is_copy(found, update.address):
        await _apply_to_copy(found, update)
    else:
        await apply(found, update, by=channel(connection.display_name))
    return True


async def _apply_to_copy(message: Message, update: StatusUpdate) -> None:
    address = update.address or ""
    if update.status.value == "FAILED":
        await copies.record_failed(message, [address])
        return
    if update.answered:
        await copies.record_answered(message, address)
    await advance(message, "SENT", external_id=update.external_id)  # a copy does not prove delivery to the contact


async def apply(message: Message, update: StatusUpdate, *, by: ActorRef = PAYTHREAD) -> None:
    if update.reason in CONNECTION_REASONS:
        connection = await providers.channel_connection(message.channel_connection_id, message.account_id)
        await providers.note_channel(connection, update.error_message or update.reason)
    await advance(
        message,
        update.status.value,
        external_id=update.external_id,
        reason="opted_out" if update.opted_out else update.reason,
        error_code=update.error_code,
        error_message=update.error_message,
        answered=update.answered,
        by=by,
    )


async def by_relay(connection: ChannelConnection, references: Sequence[str]) -> Message | None:
    """The email with one of these relay ids, to which relays append a domain."""
    names = {part for one in references for part in (one.strip("<>"), one.strip("<>").partition("@")[0]) if part}
    if connection.kind != "EMAIL" or not names:
        return None
    return await Message.filter(
        account_id=connection.account_id, channel_connection_id=connection.id, relay_id__in=sorted(names)
    ).first()
