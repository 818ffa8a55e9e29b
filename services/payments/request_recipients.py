"""Whom a new payment request is for: a contact, a conversation's contact, or a contact that is created with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from uuid import UUID

from tortoise.exceptions import IntegrityError

from models import errors, rows
from models.tables import Contact, Conversation
from services.core import merged_rows
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change
from services.messaging import contacts
from services.thread import contact_totals


@dataclass(frozen=True, slots=True, kw_only=True)
class NewContact:
    """As `contacts.create_contact` takes it."""

    name: str
    email: str | None = None
    phone: str | None = None
    addresses: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One of the three, or a contact with its own conversation."""

    contact: UUID | None = None
    conversation: UUID | None = None
    new: NewContact | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """`contact_id` or `new`."""

    contact_id: UUID | None
    new: contacts.Checked | None


async def check(actor: Actor, given: Given) -> Recipient:
    """Raises: NotFound; for a new contact what `contacts.create_contact` raises."""
    if given.new is None:
        return Recipient(contact_id=await _known(actor.account_id, given), new=None)
    actor.require("message")
    with errors.within("for", "newContact"):
        new = await contacts.check_new(actor.account_id, asdict(given.new))
        await contacts.refuse_taken(actor.account_id, new)
    return Recipient(contact_id=None, new=new)


async def _known(account_id: UUID, given: Given) -> UUID:
    refusals = errors.Refusals()
    contact_ids = []
    with refusals:
        if given.contact is not None:
            contact = await merged_rows.contact(account_id, given.contact)
            if contact is None:
                raise errors.NotFound(field=("for", "contactId"))
            contact_ids.append(contact.id)
    with refusals:
        if given.conversation is not None:
            conversation = await merged_rows.conversation(account_id, given.conversation)
            if conversation is None or conversation.contact_id not in (contact_ids or [conversation.contact_id]):
                raise errors.NotFound(field=("for", "conversationId"))
            contact_ids.append(conversation.contact_id)
    refusals.raise_any()
    return contact_ids[0]


@asynccontextmanager
async def changing(actor: Actor, to: Recipient) -> AsyncGenerator[tuple[Change, Contact, Conversation], None]:
    """A change of the recipient's contact, which is locked or created in it. Raises: AlreadyUsed."""
    if to.new is None:
        assert to.contact_id is not None  # noqa: S101 (one of the two)
        async with change(actor.account_id, actor=actor.ref, queue_on=[to.contact_id]) as changed:
            contact = await contact_totals.lock_contact(actor.account_id, to.contact_id)
            yield changed, contact, await rows.get(Conversation, "WHERE contact_id = ?", contact.id)
        return
    try:
        async with change(actor.account_id, actor=actor.ref) as changed:
            with errors.within("for", "newContact"):
                contact, conversation = await contacts.add(actor, changed, to.new)
            yield changed, contact, conversation
    except IntegrityError:  # a concurrent call has taken an address
        with errors.within("for", "newContact"):
            await contacts.refuse_taken(actor.account_id, to.new)
        raise
