"""Contacts and their addresses."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from tortoise.exceptions import IntegrityError

from integrations.base import ChannelKind
from integrations.phones import dialled, normalise_phone, spellings
from models import database
from models.errors import AlreadyUsed, Invalid, NotFound, Refusals
from models.ids import public_id, uuid7
from models.storable import storable
from models.tables import Account, ChannelConnection, Contact, ContactAddress, Conversation
from services.accounts.accounts import region_of
from services.core import audit_log, idempotency, merged_rows, validation
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change
from services.messaging import opt_outs
from services.thread import contact_totals

NAME_LIMIT: Final = 120
PHONE_STORED: Final = 20  # characters; a longer sender is no phone number
PHONE_KINDS: Final = ("SMS", "WHATSAPP")
_BLANK: Final = "\u115f\u1160\u2800\u3164\uffa0"  # characters without a visible glyph
MOST_MATCHED: Final = 100  # rows with one phone or email: merged contacts keep theirs
CHANGEABLE: Final = frozenset({"name", "email", "phone", "addresses"})


async def create_contact(
    actor: Actor,
    *,
    name: str,
    email: str | None = None,
    phone: str | None = None,
    addresses: Sequence[tuple[str, str]] = (),
    idempotency_key: str | None = None,
) -> Contact:
    """Create a contact with its conversation and addresses (kind, address); by default those of phone and email.

    Raises: Forbidden, Blank, TooLong, Invalid, AlreadyUsed.
    """
    actor.require("message")
    given = {"name": name, "email": email, "phone": phone, "addresses": [list(one) for one in addresses]}

    async def run(save: idempotency.Save) -> Contact:
        fields = {"name": name, "email": email, "phone": phone, "addresses": addresses}
        checked = await check_new(actor.account_id, fields)
        async with (
            naming_the_owner(actor.account_id, checked),
            change(actor.account_id, actor=actor.ref) as changed,
        ):
            contact, _ = await add(actor, changed, checked)
            await save({"contact": str(contact.id)})
        return contact

    async def rebuild(ids: dict[str, Any]) -> Contact:
        contact = await merged_rows.contact(actor.account_id, UUID(ids["contact"]))
        if contact is None:
            raise RuntimeError("a contact is never deleted")
        return contact

    return await idempotency.once(actor, "createContact", idempotency_key, given, run, rebuild)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A contact's given values, its addresses by kind, and the input field that gives each address."""

    contact_id: UUID | None  # None: a new contact
    values: dict[str, Any]
    addresses: dict[str, str]
    fields: dict[str, tuple[str, ...]]


async def check_new(account_id: UUID, given: Mapping[str, Any]) -> Checked:
    """The values of a new contact: name, email, phone, addresses (kind, address). Raises: Blank, TooLong, Invalid, AlreadyUsed."""
    return await _validate(account_id, given, contact_id=None)


async def add(actor: Actor, changed: Change, checked: Checked) -> tuple[Contact, Conversation]:
    """Add a contact with its conversation. Raises: AlreadyUsed; IntegrityError, see `naming_the_owner`."""
    await refuse_taken(actor.account_id, checked)
    values = checked.values
    contact, conversation = await _create(changed, values["name"], values["email"], values["phone"], checked.addresses)
    # Open inboxes show it now; an unknown sender's appears with its first message.
    changed.event("conversation.updated", conversation_id=conversation.id, contact_id=contact.id)
    await audit_log.record(actor, "contact.created", public_id("cnt", contact.id))
    return contact, conversation


@asynccontextmanager
async def naming_the_owner(account_id: UUID, checked: Checked) -> AsyncGenerator[None, None]:
    """Around the transaction: an address that a concurrent call has taken is refused. Raises: AlreadyUsed."""
    try:
        yield
    except IntegrityError as error:
        await refuse_taken(account_id, checked)
        raise AlreadyUsed(field="addresses") from error


async def update_contact(actor: Actor, contact_id: UUID, *, changes: Mapping[str, Any]) -> Contact:
    """Change name, email, phone or addresses (kind, address).

    Raises: Forbidden, NotFound, Blank, TooLong, Invalid, AlreadyUsed.
    """
    actor.require("message")
    if unknown := set(changes) - CHANGEABLE:
        raise ValueError(f"not fields of a contact: {sorted(unknown)}")
    checked = await _validate(actor.account_id, changes, contact_id=contact_id)
    async with (
        naming_the_owner(actor.account_id, checked),
        change(actor.account_id, actor=actor.ref, queue_on=[contact_id]) as changed,
    ):
        contact = await merged_rows.lock_contact(actor.account_id, contact_id)
        if contact is None:
            raise NotFound(field="contactId")
        values = {name: value for name, value in checked.values.items() if getattr(contact, name) != value}
        await refuse_taken(actor.account_id, replace(checked, contact_id=contact.id))
        moved = await _set_addresses(contact, checked.addresses)
        if not values and not moved:
            return contact
        contact.update_from_dict(values)
        contact.version += 1
        await contact.save(update_fields=[*values, "version", "updated_at"])
        conversation = await Conversation.get(contact_id=contact.id)
        changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact.id)
        await audit_log.record(
            actor, "contact.updated", public_id("cnt", contact.id), {"fields": sorted([*values, *moved])}
        )
    return contact


async def find_or_create_by_address(
    changed: Change,
    connection: ChannelConnection,
    kind: str,
    address: str,
    name: str | None,
    *,
    invited: UUID | None = None,
) -> tuple[Contact, Conversation]:
    """The contact that writes from this address, or a new one; both rows are locked, contact first.

    A contact with this phone or email, or the `invited` one, gets the address if it has none of this kind.
    """
    contact_id = await _sender_id(connection.account_id, kind, address, invited=invited)
    if contact_id is None:
        try:
            async with database.transaction():  # a savepoint: the same sender may be writing twice now
                return await _create_from_sender(changed, kind, address, name)
        except IntegrityError:
            held = await ContactAddress.get(account_id=connection.account_id, kind=kind, address=address)
            contact_id = held.contact_id
    # Lock first, so that two callbacks of one contact add the address once.
    contact, conversation = await lock(connection.account_id, contact_id)
    if await _update_from_sender(contact, kind, address, name):
        changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact.id)
    return contact, conversation


async def _sender_id(account_id: UUID, kind: str, address: str, *, invited: UUID | None) -> UUID | None:
    known = await held_address(account_id, kind, address)
    if known is not None:
        return known.contact_id
    if invited is not None:
        guest = await merged_rows.lock_contact(account_id, invited)
        if guest is not None and not await ContactAddress.exists(contact_id=guest.id, kind=kind):
            return guest.id
    return await _find_by_phone_or_email(account_id, kind, address)


async def _create_from_sender(
    changed: Change, kind: str, address: str, name: str | None
) -> tuple[Contact, Conversation]:
    is_phone = kind in PHONE_KINDS and address.startswith("+") and len(address) <= PHONE_STORED
    title = _visible_name(name) or address[:NAME_LIMIT]
    email = address if kind == "EMAIL" else None
    return await _create(changed, title, email, address if is_phone else None, {kind: address})


async def _update_from_sender(contact: Contact, kind: str, address: str, name: str | None) -> bool:
    held = await ContactAddress.filter(contact_id=contact.id, kind=kind).order_by("-in_use", "id")
    mine = [row for row in held if address in _spellings_of(kind, row.address)]
    given = next((row for row in mine if row.address == address), mine[0] if mine else None)
    named = _vendor_name(contact, kind, address, name)
    if not held:
        await give_address(contact, kind, address)
    respelled = given is not None and given.address != address  # keep the vendor's spelling: answers go to it
    if given is not None and respelled:
        await ContactAddress.filter(id=given.id).update(address=address)
    if named is not None:
        contact.name = named
    if named is None and held and not respelled:
        return False
    contact.version += 1
    await contact.save(update_fields=["name", "version", "updated_at"])
    return True


async def answered_from(
    changed: Change, contact: Contact, conversation: Conversation, row: ContactAddress, at: datetime
) -> None:
    """Send answers to the address that a merged contact last wrote from; the caller holds the contact's lock."""
    if row.in_use:
        return
    before = await ContactAddress.get_or_none(contact_id=contact.id, kind=row.kind, in_use=True)
    if before is not None and before.last_inbound_at is not None and before.last_inbound_at > at:
        return  # an old message that came late
    await use_address(row)
    contact.version += 1
    await contact.save(update_fields=["version", "updated_at"])
    changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact.id)


async def use_address(row: ContactAddress) -> None:
    """Send messages of this kind to this address; the caller holds the contact's lock."""
    await ContactAddress.filter(contact_id=row.contact_id, kind=row.kind, in_use=True).update(in_use=False)
    await ContactAddress.filter(id=row.id).update(in_use=True)


async def lock(account_id: UUID, contact_id: UUID) -> tuple[Contact, Conversation]:
    """Lock a contact, then its conversation."""
    contact = await contact_totals.lock_contact(account_id, contact_id)
    return contact, await Conversation.filter(contact_id=contact.id).select_for_update(no_key=True).get()


async def held_address(account_id: UUID, kind: str, address: str) -> ContactAddress | None:
    """The stored address equal to this one, in any spelling of a phone number."""
    rows = await ContactAddress.filter(account_id=account_id, kind=kind, address__in=_spellings_of(kind, address))
    return min(rows, key=lambda row: (row.address != address, row.id), default=None)


def _spellings_of(kind: str, address: str) -> tuple[str, ...]:
    return spellings(address) if kind in PHONE_KINDS else (address,)


def _visible_name(name: str | None) -> str:
    line = " ".join("".join(c for c in storable(name or "") if c.isspace() or unicodedata.category(c) != "Cc").split())
    shown = any(unicodedata.category(c)[0] in "LNPS" and c not in _BLANK for c in line)
    return line[:NAME_LIMIT] if shown else ""


def _vendor_name(contact: Contact, kind: str, address: str, name: str | None) -> str | None:
    visible = _visible_name(name)
    by_address = contact.name in _spellings_of(kind, address)
    return visible if visible and by_address and visible != contact.name else None


async def _find_by_phone_or_email(account_id: UUID, kind: str, address: str) -> UUID | None:
    if kind in PHONE_KINDS:
        numbers = [number for number in spellings(address) if len(number) <= PHONE_STORED]
        found = Contact.filter(account_id=account_id, phone__in=numbers)
    elif kind == "EMAIL":
        found = Contact.filter(account_id=account_id, email=address)
    else:
        return None
    people = {row.merged_into_id or row.id for row in await found.only("id", "merged_into_id").limit(MOST_MATCHED)}
    if len(people) != 1 or await ContactAddress.exists(contact_id__in=people, kind=kind):
        return None
    return people.pop()


async def _create(
    changed: Change, name: str, email: str | None, phone: str | None, addresses: Mapping[str, str]
) -> tuple[Contact, Conversation]:
    account_id = changed.account_id
    contact = await Contact.create(id=uuid7(), account_id=account_id, name=name, email=email, phone=phone, tags=[])
    conversation = await Conversation.create(
        id=uuid7(), account_id=account_id, contact_id=contact.id, last_activity_at=changed.now
    )
    for kind, address in addresses.items():
        await give_address(contact, kind, address)
    changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact.id)
    return contact, conversation


async def _validate(account_id: UUID, given: Mapping[str, Any], *, contact_id: UUID | None) -> Checked:
    region = await _region(account_id)
    values: dict[str, Any] = {}
    stated: dict[str, str] = {}
    refusals = Refusals()
    with refusals:
        if contact_id is not None:
            known = await merged_rows.contact(account_id, contact_id)
            if known is None:
                raise NotFound(field="contactId")
            contact_id = known.id
    if "name" in given:
        with refusals:
            values["name"] = validation.required(given["name"], limit=NAME_LIMIT, field="name")
    if "email" in given:
        with refusals:
            values["email"] = validation.email(given["email"], field="email")
    if "phone" in given:
        with refusals:
            values["phone"] = _parse_phone(given["phone"], region, "phone")
    with refusals:
        stated = _parse_addresses(given.get("addresses") or (), region)
    derived = _derive_addresses(values.get("email"), values.get("phone"))
    checked = Checked(
        contact_id=contact_id,
        values=values,
        addresses=derived | stated,
        fields={kind: ("email",) if kind == "EMAIL" else ("phone",) for kind in derived}
        | {kind: ("addresses", str(n), "address") for n, (kind, _) in enumerate(given.get("addresses") or ())},
    )
    if refusals:
        with refusals:  # already refused: also report what saving would refuse later
            await refuse_taken(account_id, checked)
    refusals.raise_any()
    return checked


async def refuse_taken(account_id: UUID, checked: Checked) -> None:
    """Raises: AlreadyUsed."""
    refusals = Refusals()
    for kind, address in checked.addresses.items():
        taken = await held_address(account_id, kind, address)
        with refusals:
            if taken is not None and taken.contact_id != checked.contact_id:
                raise AlreadyUsed(current=public_id("cnt", taken.contact_id), field=checked.fields[kind])
    refusals.raise_any()


async def _set_addresses(contact: Contact, wanted: Mapping[str, str]) -> list[str]:
    rows = await ContactAddress.filter(contact_id=contact.id).order_by("id")
    held = {row.kind: row for row in rows if row.in_use}
    moved = []
    for kind, address in wanted.items():
        row = held.get(kind)
        other = next((one for one in rows if one.kind == kind and address in _spellings_of(kind, one.address)), None)
        if row is None:
            await give_address(contact, kind, address)
        elif other is not None and not other.in_use:  # one that the contact has by a merge
            await use_address(other)
        elif address in _spellings_of(kind, row.address):  # keep its window and the vendor's spelling
            continue
        else:
            since = await opt_outs.opted_out_at(contact.account_id, kind, address)
            await ContactAddress.filter(id=row.id).update(address=address, opted_out_at=since, last_inbound_at=None)
        moved.append(kind)
    return moved


async def give_address(contact: Contact, kind: str, address: str) -> None:
    """Add the first address of a kind; an earlier STOP from it still applies."""
    await ContactAddress.create(
        account_id=contact.account_id,
        contact_id=contact.id,
        kind=kind,
        address=address,
        opted_out_at=await opt_outs.opted_out_at(contact.account_id, kind, address),
    )


async def normalised(account_id: UUID, given: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Addresses by kind, as stored.

    Raises: Invalid, Blank, TooLong.
    """
    return _parse_addresses(given, await _region(account_id))


def same_address(kind: str, one: str, other: str) -> bool:
    return one in _spellings_of(kind, other)


async def _region(account_id: UUID) -> str | None:
    return region_of((await Account.get(id=account_id)).locale)


def _derive_addresses(email: str | None, phone: str | None) -> dict[str, str]:
    found = {"SMS": dialled(phone), "WHATSAPP": phone} if phone else {}
    return found | ({"EMAIL": email} if email else {})


def _parse_addresses(given: Sequence[tuple[str, str]], region: str | None) -> dict[str, str]:
    found: dict[str, str] = {}
    kinds = {kind.value for kind in ChannelKind}
    refusals = Refusals()
    for n, (kind, typed) in enumerate(given):
        at = ("addresses", str(n))
        with refusals:
            if kind not in kinds:
                raise Invalid("This is not a kind of channel.", field=(*at, "kind"))
            if any(kind == earlier for earlier, _ in given[:n]):
                raise Invalid("One address per kind of channel.", field=(*at, "kind"))
        with refusals:
            address = normalise(kind, typed, region, field=(*at, "address"))
            found[kind] = dialled(address) if kind == "SMS" else address
    refusals.raise_any()
    return found


def normalise(kind: str, typed: str, region: str | None, *, field: validation.Field = "address") -> str:
    """An address as stored: E.164, lower-case email, or as given.

    Raises: Blank, TooLong, Invalid.
    """
    address = validation.required(typed, limit=validation.ADDRESS_LIMIT, field=field)
    if kind in PHONE_KINDS:
        number = normalise_phone(address, region)
        if number is None:
            raise Invalid("This is not a phone number.", field=field)
        return number
    if kind == "EMAIL":
        return validation.email(address, field=field) or address
    return address


def _parse_phone(value: str | None, region: str | None, field: str) -> str | None:
    typed = validation.optional(value, limit=validation.PHONE_LIMIT, field=field)
    if typed is None:
        return None
    number = normalise_phone(typed, region)
    if number is None:
        raise Invalid("This is not a phone number.", field=field)
    return number
