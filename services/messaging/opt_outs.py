"""Opt-outs per sender: STOP, START, email's unsubscribe link, and the answer to HELP."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from uuid import UUID

from integrations.phones import spellings
from models import vault
from models.errors import NotFound
from models.tables import Account, ContactAddress, Conversation, Message, OptOut
from services.core import actors
from services.core.unit_of_work import Change, change
from services.thread import contact_totals, payment_links

_PURPOSE = "unsubscribe"


async def opt_out(
    changed: Change, channel_connection_id: UUID, kind: str, address: str, *, blocked: bool = False
) -> None:
    """Opt an address out of this sender, in all spellings; the caller holds the contact's lock.

    `blocked`: reported by the vendor, not written by the contact.
    """
    known = await OptOut.get_or_none(channel_connection_id=channel_connection_id, address=address)
    if known is None:
        await OptOut.create(
            account_id=changed.account_id,
            channel_connection_id=channel_connection_id,
            kind=kind,
            address=address,
            blocked=blocked,
        )
    elif known.blocked and not blocked:
        await OptOut.filter(id=known.id).update(blocked=False)
    # All senders of the kind: none may evade a STOP.
    held = ContactAddress.filter(account_id=changed.account_id, kind=kind, address__in=spellings(address))
    for row in await held.filter(opted_out_at=None).order_by("id"):
        await ContactAddress.filter(id=row.id).update(opted_out_at=changed.now)
        await _announce(changed, row.contact_id)


async def opt_in(
    changed: Change, channel_connection_id: UUID, kind: str, address: str, *, blocked: bool = False
) -> None:
    """Take back this sender's opt-out; the caller holds the contact's lock.

    `blocked`: reported by the vendor; a STOP that the contact wrote stays.
    """
    rows = OptOut.filter(channel_connection_id=channel_connection_id, address__in=spellings(address))
    await (rows.filter(blocked=True) if blocked else rows).delete()
    if await opted_out_at(changed.account_id, kind, address) is not None:
        return
    held = ContactAddress.filter(account_id=changed.account_id, kind=kind, address__in=spellings(address))
    for row in await held.filter(opted_out_at__not_isnull=True).order_by("id"):
        await ContactAddress.filter(id=row.id).update(opted_out_at=None)
        await _announce(changed, row.contact_id)


async def opted_out_at(account_id: UUID, kind: str, address: str) -> datetime | None:
    rows = OptOut.filter(account_id=account_id, kind=kind, address__in=spellings(address))
    first = await rows.order_by("created_at").first()
    return None if first is None else first.created_at


async def _announce(changed: Change, contact_id: UUID) -> None:
    conversation = await Conversation.get(contact_id=contact_id)
    changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact_id)


async def help_text(account_id: UUID) -> str:
    account = await Account.get(id=account_id)
    reach = " or ".join(known for known in (account.contact_email, account.contact_phone) if known)
    contact = f" Contact us at {reach}." if reach else ""
    return f"{account.name}: messages about your requests and payments.{contact} Reply STOP to get no more messages."


async def stop_text(account_id: UUID) -> str:
    """The confirmation of a STOP, where the vendor sends none."""
    account = await Account.get(id=account_id)
    return f"{account.name}: you are unsubscribed and get no more messages from us. Reply START to get them again."


async def is_confirmation(message: Message) -> bool:
    """Whether this confirms a STOP, which an opted-out contact still receives."""
    if message.author_id is not None or message.reply_to_id is None or message.direction != "OUTBOUND":
        return False
    return message.body == await stop_text(message.account_id)


# ------------------------------------------------------------------------------------------------------- unsubscribe
def unsubscribe_url(message: Message) -> str:
    """The email's one-click unsubscribe URL (RFC 8058)."""
    subject = message.id.bytes
    token = base64.urlsafe_b64encode(subject + vault.mark(_PURPOSE, subject)).decode().rstrip("=")
    return payment_links.absolute(f"/unsubscribe/{token}")


async def written_by(token: str) -> tuple[str, Message]:
    """The business's name and the message of an unsubscribe link.

    Raises: NotFound.
    """
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (ValueError, binascii.Error) as error:
        raise NotFound from error
    subject, mark = raw[:16], raw[16:]
    if len(subject) != 16 or not vault.is_mark(_PURPOSE, subject, mark):
        raise NotFound
    message = await Message.get_or_none(id=UUID(bytes=subject))
    if message is None:
        raise NotFound
    return (await Account.get(id=message.account_id)).name, message


async def unsubscribe(token: str) -> str:
    """Opt the link's address out of its sender; returns the business's name.

    Raises: NotFound.
    """
    name, message = await written_by(token)
    by = actors.contact(message.contact_id)
    async with change(message.account_id, actor=by, queue_on=[message.contact_id]) as changed:
        await contact_totals.lock_contact(message.account_id, message.contact_id)
        await opt_out(changed, message.channel_connection_id, message.kind, message.address)
    return name
