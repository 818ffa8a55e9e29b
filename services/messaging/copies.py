"""Copies of an email (Cc): suggestions, permitted addresses, and failed copies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Final
from uuid import UUID

from models.errors import Blank, ContactOptedOut, Invalid, Refusal, Refusals, TooLong
from models.tables import ChannelConnection, Contact, ContactAddress, Conversation, Message, OptOut
from services.connections import availability, providers
from services.core import merged_rows, validation
from services.core.unit_of_work import Change, change

MOST: Final = 100  # addresses in one call


def allowed(connection: ChannelConnection) -> int:
    return availability.limits_of(connection).max_cc if connection.kind == "EMAIL" else 0


def addresses(given: Sequence[str]) -> list[str]:
    """Email addresses in lower case.

    Raises: Blank, Invalid, TooLong.
    """
    if len(given) > MOST:
        raise TooLong(f"At most {MOST} addresses get a copy.", field="cc")
    found: list[str] = []
    refusals = Refusals()
    for n, typed in enumerate(given):
        with refusals:
            address = validation.email(typed, field=("cc", str(n)))
            if address is None:
                raise Blank(field=("cc", str(n)))
            found.append(address)
    refusals.raise_any()
    return found


async def checked(conversation: Conversation, connection: ChannelConnection, given: Sequence[str]) -> list[str]:
    """The addresses that get a copy, without the contact's and our own.

    Raises: Invalid, TooLong, ContactOptedOut.
    """
    if not given:
        return []
    limit = allowed(connection)
    if not limit:
        raise Invalid("Copies (cc) can be sent by email only.", field="cc")
    known = await _own_addresses(conversation.account_id, [conversation])
    others = without(given, known[conversation.id])
    if len(others) > limit:
        raise TooLong(f"At most {limit} addresses get a copy.", field="cc")
    out = await _opted_out(conversation.account_id, others)
    refusals = Refusals()
    for n, address in enumerate(given):
        with refusals:
            if address in out:
                raise ContactOptedOut(f"{address} has opted out of email from this account.", field=("cc", str(n)))
    refusals.raise_any()
    return others


async def remaining(message: Message) -> list[str]:
    """The message's copies, without addresses that have opted out since."""
    given: list[str] = message.cc or []
    return without(given, await _opted_out(message.account_id, given)) if given else []


async def suggested(account_id: UUID, conversations: Sequence[Conversation]) -> dict[UUID, list[str]]:
    """The Cc of a reply to all, by conversation id: the other people of the newest received email."""
    found = await merged_rows.newest_inbound(conversations, "id", kind="EMAIL")
    rows = {row.id: row for row in await Message.filter(id__in=list(found.values()))} if found else {}
    emails = {id: rows[message_id] for id, message_id in found.items()}
    people: dict[UUID, list[str]] = {one.id: [] for one in conversations}
    for id, email in emails.items():
        for typed in [email.address, *(email.cc or [])]:
            with suppress(Refusal):  # an address that we can't write to
                people[id].append(validation.email(typed, field="cc") or "")
    if not emails:
        return people
    known = await _own_addresses(account_id, [one for one in conversations if one.id in emails])
    out = await _opted_out(account_id, {one for found in people.values() for one in found})
    senders = await ChannelConnection.filter(account_id=account_id, kind="EMAIL", connected=True)
    limit = max((allowed(row) for row in senders), default=0)
    return {id: without(found, {"", *known.get(id, ()), *out})[:limit] for id, found in people.items()}


def without(addresses: Iterable[str], left_out: Collection[str]) -> list[str]:
    return [one for one in dict.fromkeys(addresses) if one not in left_out]


async def _own_addresses(account_id: UUID, conversations: Sequence[Conversation]) -> dict[UUID, set[str]]:
    own: set[str] = set()
    for row in await ChannelConnection.filter(account_id=account_id, kind="EMAIL"):
        secrets = providers.readable(row)
        own |= {row.sender, secrets.get("from_address", ""), secrets.get("reply_to", "")}
    contacts = [one.contact_id for one in conversations]
    theirs: dict[UUID, set[str]] = {id: set(own) for id in contacts}
    for contact in await Contact.filter(account_id=account_id, id__in=contacts):
        theirs[contact.id].add(contact.email or "")
    for held in await ContactAddress.filter(account_id=account_id, contact_id__in=contacts, kind="EMAIL"):
        theirs[held.contact_id].add(held.address)
    return {one.id: {held.strip().lower() for held in theirs[one.contact_id]} for one in conversations}


async def _opted_out(account_id: UUID, addresses: Collection[str]) -> set[str]:
    rows = await OptOut.filter(account_id=account_id, kind="EMAIL", address__in=list(addresses)) if addresses else []
    return {row.address for row in rows}


# ------------------------------------------------------------------------------------------------------------ outcomes
def is_copy(message: Message, address: str | None) -> bool:
    wanted = (address or "").lower()
    return wanted != message.address.lower() and wanted in {one.lower() for one in message.cc or ()}


async def record_failed(message: Message, addresses: Collection[str]) -> None:
    async with change(message.account_id, queue_on=[message.id]) as changed:
        held = await Message.filter(id=message.id).select_for_update(no_key=True).get()
        before: list[str] = held.undelivered_cc or []
        lost = without([*before, *(one.lower() for one in addresses)], ())
        if lost != before:
            await Message.filter(id=message.id).update(undelivered_cc=lost)
            announce(changed, held)


async def record_answered(message: Message, address: str) -> None:
    """Remove an address from the failed copies, because its owner answered."""
    if not message.undelivered_cc:
        return
    async with change(message.account_id, queue_on=[message.id]) as changed:
        held = await Message.filter(id=message.id).select_for_update(no_key=True).get()
        before: list[str] = held.undelivered_cc or []
        lost = without(before, {address.lower()})
        if lost != before:
            await Message.filter(id=message.id).update(undelivered_cc=lost or None)
            announce(changed, held)


def announce(changed: Change, message: Message) -> None:
    changed.event(
        "message.updated",
        conversation_id=message.conversation_id,
        contact_id=message.contact_id,
        message_id=message.id,
    )
