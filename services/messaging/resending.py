"""When and on which channels a FAILED or UNKNOWN message may be sent again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from models.errors import ConfirmationRequired, Invalid
from models.ids import public_id
from models.tables import Message, PaymentRequest, ProcessorConnection
from services.connections import providers
from services.connections.availability import Reach
from services.core import merged_rows
from services.core.permissions import Actor
from services.messaging import composer, delivery
from services.messaging.composer import Template
from services.thread import payment_links

REPEATABLE: Final = ("FAILED", "UNKNOWN")
# After the last look-up a person sees UNKNOWN and decides.
LOOKED_UP: Final = timedelta(seconds=delivery.LOOK_UPS_S[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A request to send a message again. `confirmed`: even if the contact may get it twice."""

    message: Message
    confirmed: bool


def first_of(message: Message) -> UUID:
    return message.retry_of_id or message.id


async def family_of(message: Message) -> list[Message]:
    """The other messages of the family: the first and its repetitions, oldest first."""
    first = first_of(message)
    beside = await merged_rows.messages_of(message)  # by conversation, which has an index
    found = await beside.filter(retry_of_id=first).order_by("seq")
    if first != message.id:
        found.insert(0, await Message.get(id=first))
    return [one for one in found if one.id != message.id]


def over(message: Message, family: Sequence[Message]) -> bool:
    """Whether it has not failed, or another of its family is being sent or has arrived."""
    return message.delivery_status not in REPEATABLE or any(
        one.delivery_status not in REPEATABLE for one in family if one.id != message.id
    )


async def refuse(actor: Actor, repeat: Repeat, *, now: datetime) -> None:
    """Refuse a repetition; call under the conversation's lock, so that of two callers one succeeds.

    Raises: Invalid, ConfirmationRequired.
    """
    message = await Message.get(id=repeat.message.id)
    family = await family_of(message)
    if message.delivery_status not in REPEATABLE or message.direction != "OUTBOUND":
        raise Invalid("Only a failed or unconfirmed message can be sent again.", field="messageId")
    if over(message, family):
        raise Invalid("This message has been sent again already.", field="messageId")
    if repeat.confirmed:
        return
    for one in [message, *family]:
        if one.delivery_status != "UNKNOWN":
            continue
        looked_up = one.sending_at is not None and now - one.sending_at >= LOOKED_UP
        if actor.kind != "user" or not looked_up:
            raise ConfirmationRequired(
                "This message may have arrived: confirm that the contact may get it twice.",
                current=public_id("msg", one.id),
                field="confirmPossibleDuplicate",
            )


def template_of(message: Message, channel_id: UUID) -> Template | None:
    """The message's template, on the channel that it is approved for."""
    if message.template_id is None or message.channel_connection_id != channel_id:
        return None
    return Template(id=message.template_id, variables=tuple((message.template_variables or {}).items()))


def options(
    message: Message,
    family: Sequence[Message],
    reaches: Sequence[Reach],
    requests: Sequence[PaymentRequest],
    processors: Sequence[ProcessorConnection],
) -> list[Reach]:
    """The channels on which this message could be sent again now, best first, the failed one last.

    `processors`: all of the account.
    """
    if message.direction != "OUTBOUND" or over(message, family):
        return []
    asks = [request for request in requests if payment_links.is_alive(request)]
    if requests and not asks:
        return []
    needs_no_default = providers.can_ask_with(processors, {request.processor_connection_id for request in asks})
    found = []
    for reach in sorted(reaches, key=lambda one: (one.connection.id == message.channel_connection_id, one.rank)):
        able = reach.payment_requests if asks else reach.messages
        if able.reason == "NO_PROCESSOR_CONFIGURED" and needs_no_default:
            able = reach.with_own_processor
        templated = template_of(message, reach.connection.id) is not None
        if (able.templates if templated else able.enabled) and composer.measure(message.body, reach.connection).fits:
            found.append(reach)
    return found
