"""Who does not want to be written to: STOP and START per sender, e-mail's unsubscribe link, and what HELP is answered.

While one opt-out of a contact stands, its address is opted out of the whole kind of channel (`opted_out_at`, by which
capability.py refuses): STOP to one number of ours is not evaded by another.
"""

from __future__ import annotations

import base64
import binascii
from uuid import UUID

from models import vault
from models.errors import NotFound
from models.tables import Account, ChannelConnection, ContactAddress, Conversation, Message, OptOut
from services import links, summaries
from services.changes import Change, change

_PURPOSE = "unsubscribe"


async def opt_out(changed: Change, contact_id: UUID, channel_connection_id: UUID, kind: str) -> None:
    """The contact wants nothing more from this sender. Key: (contact, connection). The caller holds the contact's lock."""
    if not await OptOut.exists(contact_id=contact_id, channel_connection_id=channel_connection_id):
        await OptOut.create(
            account_id=changed.account_id,
            contact_id=contact_id,
            channel_connection_id=channel_connection_id,
            kind=kind,
        )
    held = ContactAddress.filter(account_id=changed.account_id, contact_id=contact_id, kind=kind)
    if await held.filter(opted_out_at=None).update(opted_out_at=changed.now):
        await _tell(changed, contact_id)


async def opt_in(changed: Change, contact_id: UUID, channel_connection_id: UUID, kind: str) -> None:
    """The contact takes the opt-out of this sender back; those of others stand. Safe to repeat. The caller holds the contact's lock."""
    await OptOut.filter(contact_id=contact_id, channel_connection_id=channel_connection_id).delete()
    if await OptOut.exists(contact_id=contact_id, kind=kind):
        return
    held = ContactAddress.filter(account_id=changed.account_id, contact_id=contact_id, kind=kind)
    if await held.filter(opted_out_at__not_isnull=True).update(opted_out_at=None):
        await _tell(changed, contact_id)


async def _tell(changed: Change, contact_id: UUID) -> None:
    conversation = await Conversation.get(contact_id=contact_id)
    changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact_id)


async def help_text(account_id: UUID) -> str:
    """What HELP is answered: who writes here, how to reach them, how to stop it."""
    account = await Account.get(id=account_id)
    reach = " or ".join(known for known in (account.contact_email, account.contact_phone) if known)
    contact = f" Contact us at {reach}." if reach else ""
    return f"{account.name}: messages about your requests and payments.{contact} Reply STOP to get no more messages."


# ------------------------------------------------------------------------------------------------------- unsubscribe
def unsubscribe_url(message: Message) -> str:
    """Where a mail program posts its one-click unsubscribe (RFC 8058), of this contact and sender."""
    subject = message.contact_id.bytes + message.channel_connection_id.bytes
    token = base64.urlsafe_b64encode(subject + vault.mark(_PURPOSE, subject)).decode().rstrip("=")
    return links.absolute(f"/unsubscribe/{token}")


async def sender_of(token: str) -> tuple[str, ChannelConnection, UUID]:
    """The business's name, the sender and the contact of an unsubscribe link. Raises: NotFound."""
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (ValueError, binascii.Error) as error:
        raise NotFound from error
    subject, mark = raw[:32], raw[32:]
    if len(subject) != 32 or not vault.is_mark(_PURPOSE, subject, mark):
        raise NotFound
    connection = await ChannelConnection.get_or_none(id=UUID(bytes=subject[16:]))
    if connection is None:
        raise NotFound
    account = await Account.get(id=connection.account_id)
    return account.name, connection, UUID(bytes=subject[:16])


async def unsubscribe(token: str) -> str:
    """Opt the contact of this link out of its sender's kind of channel; the business's name. Safe to repeat. Raises: NotFound."""
    name, connection, contact_id = await sender_of(token)
    async with change(connection.account_id) as changed:
        await summaries.lock_contact(connection.account_id, contact_id)
        await opt_out(changed, contact_id, connection.id, connection.kind)
    return name
