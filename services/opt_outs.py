"""Who does not want to be written to: a contact's STOP and START on a kind of channel. capability.py refuses by it."""

from __future__ import annotations

from uuid import UUID

from models.tables import ContactAddress
from services.changes import Change


async def opt(changed: Change, contact_id: UUID, conversation_id: UUID, kind: str, *, opted_out: bool) -> None:
    """Withdraw or give again the consent to messages on one kind of channel. Safe to repeat."""
    held = ContactAddress.filter(account_id=changed.account_id, contact_id=contact_id, kind=kind)
    if opted_out:
        count = await held.filter(opted_out_at=None).update(opted_out_at=changed.now)
    else:
        count = await held.filter(opted_out_at__not_isnull=True).update(opted_out_at=None)
    if count:
        changed.event("contact.updated", conversation_id=conversation_id, contact_id=contact_id)
