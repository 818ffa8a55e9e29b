"""The message as a channel's provider receives it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from integrations.base import Author, OutboundMessage
from models.errors import Refusal
from models.ids import public_id
from models.tables import Account, ChannelConnection, Message
from models.vault import VaultError
from services.connections import providers
from services.core import merged_rows, validation
from services.messaging import contacts, opt_outs
from services.thread import payment_links

THREAD_LIMIT: Final = 200  # of an email's references


async def build(message: Message, connection: ChannelConnection) -> OutboundMessage:
    account = await Account.get(id=message.account_id)
    held = await contacts.held_address(message.account_id, message.kind, message.address)
    button = await payment_links.button(message.account_id, message.body)
    thread = await _thread(message) if message.kind == "EMAIL" else _Thread()
    reference = public_id("msg", message.id)
    return OutboundMessage(
        message_id=reference,
        attempt_id=message.attempt_id or "",
        to=message.address,
        body=message.body,
        template_id=message.template_id,
        template_variables=message.template_variables or {},
        subject=message.subject,
        # `m` names the message in a callback that overtakes the vendor's answer; the URL is signed.
        status_url=f"{providers.inbound_url(connection)}?m={reference}",
        sender_name=account.name,
        # API keys count as automation, which vendors restrict more.
        author=Author.AUTOMATION if message.author_id is None else Author.PERSON,
        last_inbound_at=None if held is None else held.last_inbound_at,
        link_url=None if button is None else button[0],
        link_label=None if button is None else button[1],
        reply_to=_reply_to(connection),
        in_reply_to=thread.in_reply_to,
        references=thread.references,
        # The one-click URL acts for the contact: people in Cc must not get it.
        unsubscribe_url=opt_outs.unsubscribe_url(message) if message.kind == "EMAIL" and not message.cc else None,
        cc=message.cc or (),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Thread:
    in_reply_to: str | None = None  # the contact's last email
    references: Sequence[str] = ()  # oldest first


async def _thread(message: Message) -> _Thread:
    beside = await merged_rows.messages_of(message)
    earlier = beside.filter(kind="EMAIL", seq__lt=message.seq, external_id__not_isnull=True).exclude(
        delivery_status="FAILED"
    )
    newest = await earlier.order_by("-seq").limit(THREAD_LIMIT)
    received = (known.external_id for known in newest if known.direction == "INBOUND")
    return _Thread(
        in_reply_to=next(received, None),
        references=[known.external_id for known in reversed(newest) if known.external_id is not None],
    )


def _reply_to(connection: ChannelConnection) -> str | None:
    if connection.kind != "EMAIL":
        return None
    try:
        named = providers.credentials_of(connection).get("reply_to")
        return named or validation.email(connection.sender, field="sender")
    except (Refusal, VaultError):  # the sender is a name
        return None
