"""Tags of contacts and conversations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar
from uuid import UUID

from models import database, rows
from models.errors import Invalid, NotFound, Refusals
from models.ids import uuid7
from models.tables import Contact, Conversation, Tag
from services.core import merged_rows, validation
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change

R = TypeVar("R", Contact, Conversation)

LENGTH: Final = 50
MOST: Final = 50  # of one contact or conversation
MOST_GIVEN: Final = 100  # in one list of a change
MOST_SHOWN: Final = 1_000  # of the account


async def update_of_conversation(
    actor: Actor, conversation_id: UUID, *, add: Sequence[str], remove: Sequence[str]
) -> Conversation:
    """Raises: Forbidden, NotFound, Blank, TooLong, Invalid."""
    actor.require("message")
    async with change(actor.account_id, actor=actor.ref, queue_on=[conversation_id]) as changed:
        refusals = Refusals()
        with refusals:
            row = _known(await merged_rows.lock_conversation(actor.account_id, conversation_id), "conversationId")
        with refusals:
            names = _names(add, "add")
        with refusals:
            gone = _names(remove, "remove")
        refusals.raise_any()
        tags = _changed(row.tags, names, gone)
        if tags != row.tags:
            row.tags = tags
            await rows.update(row, ("tags",))
            await _remember(changed, names)
            changed.event("conversation.updated", conversation_id=row.id, contact_id=row.contact_id)
        return row


async def update_of_contact(actor: Actor, contact_id: UUID, *, add: Sequence[str], remove: Sequence[str]) -> Contact:
    """Raises: Forbidden, NotFound, Blank, TooLong, Invalid."""
    actor.require("message")
    async with change(actor.account_id, actor=actor.ref, queue_on=[contact_id]) as changed:
        refusals = Refusals()
        with refusals:
            row = _known(await merged_rows.lock_contact(actor.account_id, contact_id), "contactId")
        with refusals:
            names = _names(add, "add")
        with refusals:
            gone = _names(remove, "remove")
        refusals.raise_any()
        tags = _changed(row.tags, names, gone)
        if tags != row.tags:
            row.tags = tags
            row.version += 1
            row.updated_at = changed.now
            await rows.update(row, ("tags", "version", "updated_at"))
            await _remember(changed, names)
            talk = await Conversation.get_or_none(contact_id=row.id)  # its feed shows the contact, too
            changed.event("contact.updated", conversation_id=talk.id if talk else None, contact_id=row.id)
        return row


async def listed(account_id: UUID) -> list[str]:
    """The tags that the account has used, by name."""
    found = await database.records(
        "SELECT name FROM tag WHERE account_id = ? ORDER BY name LIMIT ?", account_id, MOST_SHOWN
    )
    return [row[0] for row in found]


def _known(row: R | None, field: str) -> R:
    if row is None:
        raise NotFound(field=field)
    return row


def _names(given: Sequence[str], field: str) -> list[str]:
    if len(given) > MOST_GIVEN:
        raise Invalid(f"At most {MOST_GIVEN} tags in one change.", field=field)
    found = []
    refusals = Refusals()
    for n, name in enumerate(given):
        with refusals:
            found.append(validation.required(" ".join(name.split()), limit=LENGTH, field=(field, str(n))))
    refusals.raise_any()
    return found


def _changed(tags: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> list[str]:
    """Tags differ by more than case; the first spelling stays."""
    gone = {name.casefold() for name in remove}
    kept = {tag.casefold(): tag for tag in tags if tag.casefold() not in gone}
    held = len(kept)
    for name in add:
        kept.setdefault(name.casefold(), name)
    if len(kept) > max(MOST, held):  # a merge may unite more: they are taken off one by one
        raise Invalid(f"At most {MOST} tags.", field="add")
    return list(kept.values())


async def _remember(changed: Change, names: Sequence[str]) -> None:
    tags = [rows.new(Tag, id=uuid7(), account_id=changed.account_id, name=name) for name in dict.fromkeys(names)]
    if any([await rows.add_unless_known(tag) for tag in tags]):
        changed.event("account.updated", data={"fields": ["tags"]})
