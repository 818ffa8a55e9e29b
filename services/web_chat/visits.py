"""Visits of the chat widget: tokens, rate limits, and the contact behind a visitor."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import limits
from tortoise.exceptions import IntegrityError
from tortoise.expressions import Q

from models import database
from models.errors import RateLimited
from models.ids import uuid7
from models.tables import Contact, ContactAddress, Visitor
from models.vault import digest
from services.core import actors, configuration, jobs, merged_rows
from services.core.rate_limits import Limit, MovingWindows, network_of
from services.core.unit_of_work import Change, change
from services.messaging import contacts
from services.web_chat.identity import (
    KIND,
    Identity,
    IdentityInvalid,
    IdentityRequired,
    Visit,
    WidgetClosed,
    open_widget,
    read_identity,
    widget,
)

TOKEN_PREFIX: Final = "ptv_"  # noqa: S105 (of every token)
TOKEN_LIMIT: Final = 120  # characters
SEEN_EVERY: Final = timedelta(minutes=5)
FORGOTTEN_AFTER: Final = timedelta(days=30)  # a visitor who never wrote
KNOWN: Final = "visitor.known"  # event: a visitor has a contact from now on; not delivered to the team's clients


class _Limits:
    def __init__(self, settings: configuration.WidgetLimits) -> None:
        self.per_address = limits.parse(settings.per_address)
        self.per_visitor = limits.parse(settings.per_visitor)
        self.counts = MovingWindows(settings.redis)


_limits = configuration.Derived(lambda c: c.widget_limits, _Limits)


async def aclose() -> None:
    if (made := _limits.existing()) is not None:
        await made.counts.aclose()


async def count_use(client_address: str, visitor_id: UUID | None = None) -> None:
    """Count one use of a client address and a visitor.

    Raises: RateLimited.
    """
    made = _limits.get()
    used: list[Limit] = []
    if visitor_id is not None:
        used.append((made.per_visitor, ("visitor", visitor_id.hex)))
    if client_address:
        used.append((made.per_address, ("chat address", network_of(client_address))))
    allowed = [await made.counts.hit(limit, *key) for limit, key in used]
    if not all(allowed):
        raise RateLimited(retry_after_s=await made.counts.retry_after_s(used))


# ------------------------------------------------------------------------------------------------------- start and resume
@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A visit and its token; a new token is shown only here."""

    visit: Visit
    token: str


async def start(widget_key: str, *, token: str | None, identity: str | None, client_address: str) -> Started:
    """Resume the token's visitor, or create one; an identity binds an anonymous visitor to its person.

    Raises: WidgetClosed, IdentityInvalid, IdentityRequired, RateLimited.
    """
    connection = await widget(widget_key)
    if connection is None:
        raise WidgetClosed
    shown = read_identity(connection, identity) if identity else None
    row = await _find_by_token(token) if token else None
    if row is not None and row.channel_connection_id != connection.id:
        row = None
    if row is not None and row.external_id is not None:
        if shown is None:
            raise IdentityRequired
        if shown.subject != row.external_id:
            row = None
    if row is None or token is None:
        await count_use(client_address)
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        row = await Visitor.create(
            id=uuid7(),
            account_id=connection.account_id,
            channel_connection_id=connection.id,
            token_hash=digest(token),
            external_id=shown.subject if shown is not None else None,
            last_seen_at=datetime.now(UTC),
        )
    elif row.external_id is None and shown is not None:
        await _bind_to_person(row, shown)
    return Started(visit=_visit(row, shown), token=token)


async def authenticate(credential: str) -> Visit | None:
    """The visit of "token" or "token identity"; None if invalid or the widget is closed."""
    token, _, identity = credential.partition(" ")
    row = await _find_by_token(token)
    connection = await open_widget(row.channel_connection_id) if row is not None else None
    if row is None or connection is None:
        return None
    now = datetime.now(UTC)
    if abs(now - row.last_seen_at) > SEEN_EVERY:
        await Visitor.filter(id=row.id).update(last_seen_at=now)
    shown = None
    if identity and row.external_id is not None:
        try:
            shown = read_identity(connection, identity)
        except IdentityInvalid:
            shown = None
    return _visit(row, shown if shown is not None and shown.subject == row.external_id else None)


async def still_valid(visits: Sequence[Visit]) -> list[bool]:
    rows = {row.id: row for row in await Visitor.filter(id__in=[visit.visitor_id for visit in visits])}
    widgets = {row.channel_connection_id for row in rows.values()}
    open_widgets = {id for id in widgets if await open_widget(id) is not None}
    return [
        (row := rows.get(visit.visitor_id)) is not None
        and row.external_id == visit.external_id
        and row.channel_connection_id in open_widgets
        for visit in visits
    ]


async def _find_by_token(token: str) -> Visitor | None:
    if not token.startswith(TOKEN_PREFIX) or len(token) > TOKEN_LIMIT:
        return None
    return await Visitor.get_or_none(token_hash=digest(token))


def _visit(row: Visitor, shown: Identity | None) -> Visit:
    return Visit(
        visitor_id=row.id,
        account_id=row.account_id,
        connection_id=row.channel_connection_id,
        external_id=row.external_id,
        identity=shown,
    )


async def _bind_to_person(row: Visitor, shown: Identity) -> None:
    before, row.external_id = _visit(row, None), shown.subject
    person = _visit(row, shown)
    async with change(row.account_id, queue_on=[row.id]) as changed:
        if not await Visitor.filter(id=row.id, external_id=None).update(external_id=shown.subject):
            return
        contact_id = await held_contact_id(person)
        own = await held_contact_id(before)
        if contact_id is None and own is not None:
            contact_id = await _rename_contact(changed, own, before, person)
        row.contact_id = contact_id
        await Visitor.filter(id=row.id).update(contact_id=contact_id)


async def _rename_contact(changed: Change, contact_id: UUID, before: Visit, person: Visit) -> UUID:
    contact, conversation = await contacts.lock(person.account_id, contact_id)
    changed.actor = actors.contact(contact.id)
    try:
        async with database.transaction():  # a savepoint: another device may do the same now
            await ContactAddress.filter(
                account_id=person.account_id, contact_id=contact.id, kind=KIND, address=before.address
            ).update(address=person.address)
    except IntegrityError:
        held = await ContactAddress.get(account_id=person.account_id, kind=KIND, address=person.address)
        return held.contact_id
    if contact.name == before.name and contact.name != person.name:
        contact.name = person.name
    await store_vouched_email(contact, person)
    changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact.id)
    announce_contact(changed, person, contact.id, conversation.id)
    return contact.id


async def store_vouched_email(contact: Contact, person: Visit) -> None:
    """Store the site's email if the contact has none; the caller holds the contact's lock."""
    email = person.identity.email if person.identity is not None else None
    if email is not None and contact.email is None:
        contact.email = email
        mine = Q(kind="EMAIL") & (Q(contact_id=contact.id) | Q(address=email))
        if not await ContactAddress.filter(mine, account_id=contact.account_id).exists():
            await contacts.give_address(contact, "EMAIL", email)
    contact.version += 1
    await contact.save(update_fields=["name", "email", "version", "updated_at"])


def announce_contact(changed: Change, visit: Visit, contact_id: UUID, conversation_id: UUID) -> None:
    changed.event(KNOWN, contact_id=contact_id, conversation_id=conversation_id, data={"visitor": mark(visit)})


def mark(visit: Visit) -> str:
    """A visitor's address in the event log."""
    return digest(visit.address)[:32]


async def contact_of(visit: Visit) -> UUID | None:
    """The visitor's contact; None before the first message.

    Raises: IdentityRequired.
    """
    visit.require_identity()
    return await held_contact_id(visit)


async def contact_ids(visit: Visit) -> list[UUID]:
    contact_id = await contact_of(visit)
    return await merged_rows.contact_ids(visit.account_id, contact_id) if contact_id is not None else []


async def held_contact_id(visit: Visit) -> UUID | None:
    """`contact_of` without the check of the identity."""
    held = await ContactAddress.get_or_none(account_id=visit.account_id, kind=KIND, address=visit.address)
    return held.contact_id if held is not None else None


async def forget_silent(now: datetime) -> int:
    silent = Visitor.filter(contact_id=None, external_id=None, last_seen_at__lt=now - FORGOTTEN_AFTER)
    return await silent.delete()


@jobs.periodic("visitors.prune", 3600)
async def _prune(job: jobs.JobContext) -> None:
    await forget_silent(datetime.now(UTC))
