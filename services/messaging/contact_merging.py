"""Merges two contacts that are one person; merged_rows.py resolves their ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from models import database
from models.errors import Invalid, NotFound, Refusals
from models.ids import public_id, uuid7
from models.tables import Contact, ContactAddress, ContactSummary, Conversation, ConversationFollower, Visitor
from services.core import audit_log, idempotency, merged_rows
from services.core.permissions import Actor
from services.core.turns import Busy
from services.core.unit_of_work import Change, change
from services.messaging import contacts
from services.thread import contact_totals

MERGED: Final = "contact.merged"  # event: `data` has contact_id and conversation_id of the merged contact
MOST: Final = 100  # contacts merged into one: every read of the thread covers all their ids
_TRIES: Final = 5  # each concurrent merge of either contact uses one


R = TypeVar("R", Contact, Conversation)


class _ConcurrentMerge(Exception):
    pass


@dataclass(frozen=True, slots=True)
class Pair(Generic[R]):
    kept: R
    merged: R


async def merge(
    actor: Actor,
    *,
    contact_id: UUID,
    merged_contact_id: UUID,
    addresses: Sequence[tuple[str, str]] = (),
    idempotency_key: str,
) -> Contact:
    """Merge a contact into `contact_id`, which is kept; this cannot be undone.

    `addresses`: (kind, address) to use where both contacts have one; by default the one that wrote last.
    Raises: Forbidden, NotFound, Invalid, Blank, TooLong.
    """
    actor.require("message")
    given = {"contact": contact_id, "merged": merged_contact_id, "addresses": [list(one) for one in addresses]}

    async def run(save: idempotency.Save) -> Contact:
        for _ in range(_TRIES):
            try:
                return await _merge(actor, contact_id, merged_contact_id, addresses, save)
            except _ConcurrentMerge:
                continue
        raise Busy(Busy.__doc__)

    async def rebuild(ids: dict[str, Any]) -> Contact:
        row = await merged_rows.contact(actor.account_id, UUID(ids["contact"]))
        if row is None:
            raise RuntimeError("a contact is never deleted")
        return row

    return await idempotency.once(actor, "mergeContacts", idempotency_key, given, run, rebuild)


async def _merge(
    actor: Actor, contact_id: UUID, merged_id: UUID, addresses: Sequence[tuple[str, str]], save: idempotency.Save
) -> Contact:
    kept, merged, chosen = await _read_both(actor.account_id, contact_id, merged_id, addresses)
    async with change(actor.account_id, actor=actor.ref, queue_on=[kept.id, merged.id]) as changed:
        people = await _lock_both(Contact, kept.id, merged.id)
        talks = await _lock_both(
            Conversation,
            (await Conversation.get(contact_id=kept.id)).id,
            (await Conversation.get(contact_id=merged.id)).id,
        )
        if len(merged_rows.ids_of(people.kept)) + len(merged_rows.ids_of(people.merged)) > MOST:
            raise Invalid(f"At most {MOST} contacts can be merged into one.", field="mergedContactId")
        places = {kind: n for n, (kind, _) in enumerate(addresses)}
        filled = _unite_records(people, await _unite_addresses(people, chosen, places))
        await _unite_conversations(talks)
        await _point_to_kept(people)
        await _point_to_kept(talks)
        people.merged.merged_at = changed.now
        await people.kept.save(update_fields=[*filled, "also_known_as", "merged_ids", "version", "updated_at"])
        await people.merged.save(update_fields=["merged_at"])
        await Visitor.filter(contact_id=people.merged.id).update(contact_id=people.kept.id)
        await ContactSummary.filter(contact_id=people.merged.id).delete()
        await contact_totals.update(actor.account_id, people.kept.id)
        _announce(changed, people, talks)
        ids = {"merged": public_id("cnt", people.merged.id), "fields": sorted(filled)}
        await audit_log.record(actor, MERGED, public_id("cnt", people.kept.id), ids)
        await save({"contact": str(people.kept.id)})
        # Last, before the log's numbers: the next holder of this lock sees the merge (unit_of_work.py).
        await database.execute("UPDATE account SET merge_count = merge_count + 1 WHERE id = ?", actor.account_id)
    return people.kept


async def _read_both(
    account_id: UUID, contact_id: UUID, merged_id: UUID, addresses: Sequence[tuple[str, str]]
) -> tuple[Contact, Contact, dict[str, str]]:
    kept, merged = await merged_rows.contact(account_id, contact_id), await merged_rows.contact(account_id, merged_id)
    refusals = Refusals()
    with refusals:
        if kept is None:
            raise NotFound(field="contactId")
    with refusals:
        if merged is None:
            raise NotFound(field="mergedContactId")
        if kept is not None and kept.id == merged.id:
            raise Invalid("These are one contact already.", field="mergedContactId")
    with refusals:
        chosen = await contacts.normalised(account_id, addresses)
    refusals.raise_any()
    assert kept is not None and merged is not None  # noqa: S101, PT018 (refused above)
    return kept, merged, chosen


def _announce(changed: Change, people: Pair[Contact], talks: Pair[Conversation]) -> None:
    conversation_id, contact_id = talks.kept.id, people.kept.id
    gone = {"contact_id": str(people.merged.id), "conversation_id": str(talks.merged.id)}
    changed.event(MERGED, conversation_id=conversation_id, contact_id=contact_id, data=gone)
    changed.event("contact.updated", conversation_id=conversation_id, contact_id=contact_id)
    changed.event("conversation.updated", conversation_id=conversation_id, contact_id=contact_id)


async def _lock_both(model: type[R], kept_id: UUID, merged_id: UUID) -> Pair[R]:
    rows = {}
    for id in sorted((kept_id, merged_id)):
        row = await model.filter(id=id, merged_into_id=None).select_for_update(no_key=True).get_or_none()
        if row is None:
            raise _ConcurrentMerge
        rows[id] = row
    return Pair(rows[kept_id], rows[merged_id])


async def _unite_addresses(people: Pair[Contact], chosen: Mapping[str, str], places: Mapping[str, int]) -> set[str]:
    rows = await ContactAddress.filter(contact_id__in=[people.kept.id, people.merged.id]).order_by("id")
    in_use: dict[str, ContactAddress] = {}
    for row in rows:
        best = in_use.get(row.kind)
        if row.in_use and (best is None or _preferred(row, people) > _preferred(best, people)):
            in_use[row.kind] = row
    refusals = Refusals()
    for kind, address in chosen.items():
        named = next(
            (row for row in rows if row.kind == kind and contacts.same_address(kind, row.address, address)), None
        )
        with refusals:
            if named is None:
                field = ("addresses", str(places[kind]), "address")
                raise Invalid("Neither of the two contacts has this address.", field=field)
            in_use[kind] = named
    refusals.raise_any()
    ids = {row.id for row in in_use.values()}
    await ContactAddress.filter(id__in=[row.id for row in rows if row.id not in ids]).update(in_use=False)
    await ContactAddress.filter(contact_id=people.merged.id).update(contact_id=people.kept.id)
    await ContactAddress.filter(id__in=list(ids)).update(in_use=True)
    return {row.address for row in rows}


def _preferred(row: ContactAddress, people: Pair[Contact]) -> tuple[float, bool]:
    heard = 0.0 if row.last_inbound_at is None else row.last_inbound_at.timestamp()
    return heard, row.contact_id == people.kept.id


def _unite_records(people: Pair[Contact], addresses: Collection[str]) -> list[str]:
    one, other = people.kept, people.merged
    filled = [name for name in ("email", "phone") if getattr(one, name) is None and getattr(other, name) is not None]
    for name in filled:
        setattr(one, name, getattr(other, name))
    if one.name in {*addresses, one.email, one.phone} and other.name not in {*addresses, other.email, other.phone}:
        one.name = other.name
        filled.append("name")
    if (united := _united(one.tags, other.tags)) != one.tags:
        one.tags = united
        filled.append("tags")
    known = [one.also_known_as, other.name, other.email, other.phone, other.also_known_as]
    one.also_known_as = "\n".join(value for value in known if value)
    one.version += 1
    return filled


def _united(one: Sequence[str], other: Sequence[str]) -> list[str]:
    """Tags differ by more than case; the first spelling stays."""
    held = {tag.casefold() for tag in one}
    return [*one, *(tag for tag in other if tag.casefold() not in held)]


async def _unite_conversations(talks: Pair[Conversation]) -> None:
    one, other = talks.kept, talks.merged
    one.unread_count += other.unread_count
    if other.last_activity_at > one.last_activity_at:
        one.last_activity_at, one.preview = other.last_activity_at, other.preview
    one.closed_at = max(one.closed_at, other.closed_at) if one.closed_at and other.closed_at else None
    waiting = [since for since in (one.waiting_since, other.waiting_since) if since is not None]
    one.update_from_dict({"waiting_since": min(waiting, default=None)})
    one.channel_kinds = f" {' '.join(sorted({*one.channel_kinds.split(), *other.channel_kinds.split()}))} ".replace(
        "  ", " "
    )
    one.tags = _united(one.tags, other.tags)
    drafts = [words for words in (one.draft, other.draft) if words is not None]
    one.update_from_dict({"draft": "\n\n".join(drafts) or None})
    rows = await ConversationFollower.filter(conversation_id__in=[one.id, other.id])
    held = {row.user_id for row in rows if row.conversation_id == one.id}
    wanted = {row.user_id for row in rows}
    if other.assignee_id is not None and one.assignee_id not in (None, other.assignee_id):
        wanted.add(other.assignee_id)  # its assignee stays notified of its payments
    one.assignee_id = one.assignee_id or other.assignee_id
    for user_id in sorted(wanted - held):
        await ConversationFollower.create(
            id=uuid7(), account_id=one.account_id, conversation_id=one.id, user_id=user_id
        )
    await ConversationFollower.filter(conversation_id=other.id).delete()
    changed = ["unread_count", "last_activity_at", "preview", "closed_at", "draft", "assignee_id"]
    await one.save(update_fields=[*changed, "waiting_since", "channel_kinds", "tags"])
    await Conversation.filter(id=other.id).update(unread_count=0, draft=None, closed_at=None, waiting_since=None)


async def _point_to_kept(pair: Pair[R]) -> None:
    model = type(pair.kept)
    ids: list[UUID] = merged_rows.ids_of(pair.merged)
    pair.kept.merged_ids = [*(pair.kept.merged_ids or []), *(str(id) for id in ids)]
    await model.filter(id=pair.kept.id).update(merged_ids=pair.kept.merged_ids)
    await model.filter(id__in=ids).update(merged_into_id=pair.kept.id)
