"""Visitors of the chat widget: who a token speaks for, what it may read, what it writes. All that a visitor is shown is decided here.

A visitor is a browser. Its contact is the one that holds its address on this widget: an anonymous visitor's address is its own, one that
the site's server has vouched for has the address of that person, on every device. Nothing else of the account can be reached from here.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final
from uuid import UUID

import jwt
import limits
from tortoise.exceptions import IntegrityError
from tortoise.expressions import Q
from tortoise.queryset import QuerySet

from integrations.base import InboundMessage, StatusUpdate
from integrations.channels import web_chat
from models import database
from models.errors import Invalid, RateLimited, Refusal
from models.event_log import Cursor
from models.ids import parse_public_id, public_id, uuid7
from models.money import Money
from models.tables import (
    Account,
    ChannelConnection,
    Contact,
    ContactAddress,
    Conversation,
    Message,
    MessagePaymentRequest,
    PaymentRequest,
    Visitor,
)
from models.vault import digest
from services.connections import providers
from services.core import configuration, jobs, merged_rows, validation
from services.core.rate_limits import Counts, network_of
from services.core.unit_of_work import Change, change
from services.messaging import contacts, delivery, inbound
from services.payments import checkout_page
from services.thread import payment_links

KIND: Final = "WEB_CHAT"
TOKEN_PREFIX: Final = "ptv_"  # noqa: S105 (of every token)
TOKEN_LIMIT: Final = 120  # characters that are looked at
IDENTITY_LIMIT: Final = 4096
BODY_LIMIT: Final = web_chat.MAX_LENGTH
IDENTITY_LIFE: Final = timedelta(hours=24)
LEEWAY: Final = timedelta(seconds=60)  # between the site's clock and ours
SUBJECT_LIMIT: Final = 120
PAGE: Final = 50
SHOWN_AT_ONCE: Final = 200
SEEN_EVERY: Final = timedelta(minutes=5)
FORGOTTEN_AFTER: Final = timedelta(days=30)  # who never wrote
KNOWN: Final = "visitor.known"  # of the log: somebody has a contact from here on; clients of the account are not told
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9_-]{8,64}")
# From SENT on a message is the visitor's to read; one that failed never was.
_READABLE: Final = ("SENT", "DELIVERED", "READ")


class VisitRefused(Exception):
    """A rule of the visitor API said no. The docstring is the message."""

    code: ClassVar[str]

    def __init__(self) -> None:
        self.message = (self.__doc__ or "").strip()
        super().__init__(self.message)


class WidgetClosed(VisitRefused):
    """There is no chat here."""

    code = "WIDGET_CLOSED"


class IdentityRequired(VisitRefused):
    """This conversation belongs to somebody who is signed in: sign in on the site again."""

    code = "IDENTITY_REQUIRED"


class IdentityInvalid(VisitRefused):
    """This identity is not valid, or no longer."""

    code = "IDENTITY_INVALID"


# ------------------------------------------------------------------------------------------------------------- limits
class _Limits:
    def __init__(self, settings: configuration.WidgetLimits) -> None:
        self.per_address = limits.parse(settings.per_address)
        self.per_visitor = limits.parse(settings.per_visitor)
        self.counts = Counts(settings.redis)


_limits = configuration.Derived(lambda c: c.widget_limits, _Limits)


async def aclose() -> None:
    """Close the connection of the limits' counts. Call at stop."""
    if (made := _limits.existing()) is not None:
        await made.counts.aclose()


async def _take(client_address: str, visitor_id: UUID | None = None) -> None:
    """Count one visit or message of a client, and of a visitor. Raises: RateLimited."""
    made = _limits.get()
    allowed = visitor_id is None or await made.counts.hit(made.per_visitor, "visitor", visitor_id.hex)
    if client_address:
        network = network_of(client_address)
        allowed = await made.counts.hit(made.per_address, "chat address", network) and allowed
    if not allowed:
        raise RateLimited


# ------------------------------------------------------------------------------------------------------------- widget
async def widget(key: str) -> ChannelConnection | None:
    """The web chat behind a widget's key; None if there is none, if it is disconnected, or if no site may show it."""
    connection_id = parse_public_id(key, "chn")
    return await _widget(connection_id) if connection_id is not None else None


async def _widget(connection_id: UUID) -> ChannelConnection | None:
    row = await ChannelConnection.get_or_none(id=connection_id, provider=web_chat.NAME)
    return row if row is not None and providers.usable(row) and row.allowed_origins else None


# ----------------------------------------------------------------------------------------------------------- identity
@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the site's server says the visitor is."""

    subject: str
    name: str | None
    email: str | None
    ends_at: datetime


def read_identity(connection: ChannelConnection, token: str) -> Identity:
    """The claims of a JWT that the site's server has signed for this widget (HS256, at most 24 h). Raises: IdentityInvalid.

    Source: RFC 7519; needed are aud (the widget's key), sub, iat, exp; name and email may be there.
    """
    if len(token) > IDENTITY_LIMIT:
        raise IdentityInvalid
    try:
        claims = jwt.decode(
            token,
            providers.credentials_of(connection)["identity_secret"],
            algorithms=["HS256"],
            audience=public_id("chn", connection.id),
            options={"require": ["aud", "sub", "iat", "exp"]},
            leeway=LEEWAY,
        )
        ends_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
        if ends_at - datetime.fromtimestamp(int(claims["iat"]), UTC) > IDENTITY_LIFE:
            raise IdentityInvalid
        subject = validation.required(claims["sub"], limit=SUBJECT_LIMIT, field="sub")
        # Exactly as signed, and never what a browser's own address looks like.
        if subject != claims["sub"] or parse_public_id(subject, "vis") is not None:
            raise IdentityInvalid
        return Identity(
            subject=subject,
            name=validation.optional(_words(claims.get("name")), limit=contacts.NAME_LIMIT, field="name"),
            email=validation.email(_words(claims.get("email")), field="email"),
            ends_at=ends_at + LEEWAY,
        )
    except (jwt.InvalidTokenError, Refusal, ValueError, OverflowError) as error:
        raise IdentityInvalid from error


def _words(claim: object) -> str | None:
    if claim is not None and not isinstance(claim, str):
        raise ValueError("a claim is a text")
    return claim


# ------------------------------------------------------------------------------------------------------------- visits
@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One authenticated visitor. `identity`: what was shown and fits; None for an anonymous one, or when it is missing."""

    visitor_id: UUID
    account_id: UUID
    connection_id: UUID
    external_id: str | None
    identity: Identity | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When what was shown ends."""
        return self.identity.ends_at if self.identity is not None else None

    @property
    def limit_key(self) -> str:
        """The browser."""
        return self.visitor_id.hex

    @property
    def address(self) -> str:
        """The visitor's address on the channel: a person's where one is known, else this browser's."""
        who = public_id("vis", self.visitor_id) if self.external_id is None else self.external_id
        return web_chat.address_of(who, public_id("chn", self.connection_id))

    @property
    def name(self) -> str:
        """What the team calls the visitor's contact at first."""
        named = self.identity.name if self.identity is not None else None
        return named or f"Website visitor {public_id('vis', self.visitor_id)[-4:]}"

    def require_identity(self) -> None:
        """What was made under an identity is shown to nobody without it. Raises: IdentityRequired."""
        if self.external_id is not None and self.identity is None:
            raise IdentityRequired


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A visit and its token, which is told this once when it is new."""

    visit: Visit
    token: str


async def start(widget_key: str, *, token: str | None, identity: str | None, client_address: str) -> Started:
    """Begin or go on: the visitor of the token, else a new one. An identity binds an anonymous visitor to its person.

    A token of another widget, of another person or of nobody gets a new visitor. Raises: WidgetClosed, IdentityInvalid,
    IdentityRequired (the token's visitor has one), RateLimited.
    """
    connection = await widget(widget_key)
    if connection is None:
        raise WidgetClosed
    shown = read_identity(connection, identity) if identity else None
    row = await _by_token(token) if token else None
    if row is not None and row.channel_connection_id != connection.id:
        row = None
    if row is not None and row.external_id is not None:
        if shown is None:
            raise IdentityRequired
        if shown.subject != row.external_id:
            row = None
    if row is None or token is None:
        await _take(client_address)
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
        await _identify(row, shown)
    return Started(visit=_visit(row, shown), token=token)


async def authenticate(credential: str) -> Visit | None:
    """The visit of "token" or "token identity"; None for a token that is not valid, or whose widget is closed.

    An identity that is missing, expired or another's leaves a visit that may read nothing (Visit.require_identity).
    """
    token, _, identity = credential.partition(" ")
    row = await _by_token(token)
    connection = await _widget(row.channel_connection_id) if row is not None else None
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


async def still_valid(visit: Visit) -> bool:
    """Whether a connected visitor may stay: the widget is open, and it is the same person as before."""
    row = await Visitor.get_or_none(id=visit.visitor_id, external_id=visit.external_id)
    return row is not None and await _widget(row.channel_connection_id) is not None


async def _by_token(token: str) -> Visitor | None:
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


async def _identify(row: Visitor, shown: Identity) -> None:
    """An anonymous visitor is somebody. The person's contact is used if there is one, else the visitor's own becomes it.

    Changes `row`. Safe to repeat: only who has no person yet is given one.
    """
    before, row.external_id = _visit(row, None), shown.subject
    person = _visit(row, shown)
    async with change(row.account_id, rows=[row.id]) as changed:
        if not await Visitor.filter(id=row.id, external_id=None).update(external_id=shown.subject):
            return
        contact_id = await _contact_id(person)
        own = await _contact_id(before)
        if contact_id is None and own is not None:
            contact_id = await _rename(changed, own, before, person)
        row.contact_id = contact_id
        await Visitor.filter(id=row.id).update(contact_id=contact_id)


async def _rename(changed: Change, contact_id: UUID, before: Visit, person: Visit) -> UUID:
    """Give a visitor's contact the person's address and, in place of ours, their name. The contact that has the address at the end."""
    contact, conversation = await contacts.locked(person.account_id, contact_id)
    try:
        async with database.transaction():  # a savepoint: another device may say the same at this moment
            await ContactAddress.filter(
                account_id=person.account_id, contact_id=contact.id, kind=KIND, address=before.address
            ).update(address=person.address)
    except IntegrityError:
        held = await ContactAddress.get(account_id=person.account_id, kind=KIND, address=person.address)
        return held.contact_id
    if contact.name == before.name and contact.name != person.name:
        contact.name = person.name
    await _vouch(contact, person)
    changed.event("contact.updated", conversation_id=conversation.id, contact_id=contact.id)
    _known(changed, person, contact.id, conversation.id)
    return contact.id


async def _vouch(contact: Contact, person: Visit) -> None:
    """Write to the record what the site vouches for and nobody has said yet: the e-mail address. The caller holds the contact's lock."""
    email = person.identity.email if person.identity is not None else None
    if email is not None and contact.email is None:
        contact.email = email
        mine = Q(kind="EMAIL") & (Q(contact_id=contact.id) | Q(address=email))
        if not await ContactAddress.filter(mine, account_id=contact.account_id).exists():
            await contacts.give_address(contact, "EMAIL", email)
    contact.version += 1
    await contact.save(update_fields=["name", "email", "version", "updated_at"])


def _known(changed: Change, visit: Visit, contact_id: UUID, conversation_id: UUID) -> None:
    """Let the person's connected widgets know that there is something to listen to."""
    changed.event(KNOWN, contact_id=contact_id, conversation_id=conversation_id, data={"visitor": mark(visit)})


def mark(visit: Visit) -> str:
    """What stands in the log for a visitor's address."""
    return digest(visit.address)[:32]


# --------------------------------------------------------------------------------------------------------------- read
@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A payment request as the contact sees it. `state`: open, processing, paid, void."""

    request: PaymentRequest
    state: str
    amount: Money
    due: Money
    pay_url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One message as the visitor sees it. `author`: the person's display name, else the business's; None: the visitor's own."""

    row: Message
    author: str | None
    client_message_id: str | None
    cards: Sequence[Card] = field(default=())


async def contact_of(visit: Visit) -> UUID | None:
    """The visitor's contact; None until a message was written from this address. Raises: IdentityRequired."""
    visit.require_identity()
    return await _contact_id(visit)


async def contact_ids(visit: Visit) -> list[UUID]:
    """All ids of the visitor's contact, those from before a merge too; none until a message was written. Raises: IdentityRequired."""
    contact_id = await contact_of(visit)
    return await merged_rows.contact_ids(visit.account_id, contact_id) if contact_id is not None else []


async def _contact_id(visit: Visit) -> UUID | None:
    held = await ContactAddress.get_or_none(account_id=visit.account_id, kind=KIND, address=visit.address)
    return held.contact_id if held is not None else None


async def position(visit: Visit) -> Cursor:
    """Where the account's log stands now: ask before reading anything else."""
    account = await Account.get(id=visit.account_id)
    return Cursor(account.event_epoch, account.id, account.event_seq)


async def business(visit: Visit) -> Account:
    """Whose widget it is."""
    return await Account.get(id=visit.account_id)


async def thread(visit: Visit, *, before: int | None = None, after: int | None = None) -> tuple[list[Shown], bool]:
    """A page of the visitor's conversation on this widget, oldest first: the newest, those before a number, or those after one.

    The second value: whether there are more in that direction. Raises: IdentityRequired.
    """
    contact_id = await contact_of(visit)
    if contact_id is None:
        return [], False
    found = await _readable(visit, contact_id)
    if before is not None:
        found = found.filter(seq__lt=before)
    if after is not None:
        found = found.filter(seq__gt=after)
    rows = await found.order_by("seq" if after is not None else "-seq").limit(PAGE + 1)
    more, rows = len(rows) > PAGE, rows[:PAGE]
    return await _shown(visit, contact_id, sorted(rows, key=lambda row: row.seq)), more


async def message(visit: Visit, message_id: UUID) -> Shown | None:
    """One message, if it is the visitor's to read. Raises: IdentityRequired."""
    contact_id = await contact_of(visit)
    if contact_id is None:
        return None
    rows = await (await _readable(visit, contact_id)).filter(id=message_id)
    return (await _shown(visit, contact_id, rows))[0] if rows else None


async def card(visit: Visit, request_id: UUID) -> Card | None:
    """One payment request, if its link stands in a message that the visitor may read. Raises: IdentityRequired."""
    contact_id = await contact_of(visit)
    if contact_id is None:
        return None
    bound = await MessagePaymentRequest.filter(account_id=visit.account_id, payment_request_id=request_id).values_list(
        "message_id", flat=True
    )
    if not bound:
        return None
    readable = await _readable(visit, contact_id)
    if not await readable.filter(id__in=list(bound)).exists():
        return None
    ids = await merged_rows.contact_ids(visit.account_id, contact_id)
    request = await PaymentRequest.get_or_none(id=request_id, contact_id__in=ids, discarded_at=None)
    return _card(request) if request is not None else None


async def _readable(visit: Visit, contact_id: UUID) -> QuerySet[Message]:
    """The messages of the visitor's contact on this widget alone: other channels of the same person are not shown here.

    Of a contact whom the team has merged from several visitors each sees its own: the team may have been wrong.
    """
    conversation = await Conversation.get(contact_id=contact_id)
    found = Message.filter(
        Q(direction="INBOUND") | Q(delivery_status__in=_READABLE),
        account_id=visit.account_id,
        conversation_id__in=merged_rows.ids_of(conversation),
        channel_connection_id=visit.connection_id,
    )
    if not conversation.merged_ids or await ContactAddress.filter(contact_id=contact_id, kind=KIND).count() < 2:
        return found
    return found.filter(address__in=await _own_addresses(visit))


async def _own_addresses(visit: Visit) -> list[str]:
    """What the visitor has written from: the person's address, and those of the person's browsers from before they were known."""
    browsers = [visit.visitor_id]
    if visit.external_id is not None:
        same = Visitor.filter(channel_connection_id=visit.connection_id, external_id=visit.external_id)
        browsers += [row.id for row in await same.only("id")]
    widget_key = public_id("chn", visit.connection_id)
    return [visit.address, *(web_chat.address_of(public_id("vis", id), widget_key) for id in browsers)]


async def _shown(visit: Visit, contact_id: UUID, rows: Sequence[Message]) -> list[Shown]:
    account = await business(visit)
    bindings = await MessagePaymentRequest.filter(
        account_id=visit.account_id, message_id__in=[row.id for row in rows if row.direction == "OUTBOUND"]
    )
    requests = {
        request.id: request
        for request in await PaymentRequest.filter(
            id__in=[binding.payment_request_id for binding in bindings],
            contact_id__in=await merged_rows.contact_ids(visit.account_id, contact_id),
            discarded_at=None,
        )
    }
    own = f"{visit.visitor_id.hex}:"
    return [
        Shown(
            row=row,
            author=_author(row, account),
            client_message_id=(row.external_id or "").removeprefix(own)
            if (row.external_id or "").startswith(own)
            else None,
            cards=[
                _card(requests[binding.payment_request_id])
                for binding in bindings
                if binding.message_id == row.id and binding.payment_request_id in requests
            ],
        )
        for row in rows
    ]


def _author(row: Message, account: Account) -> str | None:
    if row.direction == "INBOUND":
        return None
    # What a program sends comes from the business: the name of its key is the team's.
    return row.author_name if row.author_id is not None and row.author_name else account.name


def _card(request: PaymentRequest) -> Card:
    left = max(0, request.amount_minor - request.amount_paid_minor - request.waived_minor)
    return Card(
        request=request,
        state=checkout_page.state_of(request),
        amount=Money(request.amount_minor, request.currency),
        due=Money(left, request.currency),
        pay_url=payment_links.checkout_url(request),
    )


# -------------------------------------------------------------------------------------------------------------- write
async def write(visit: Visit, *, client_message_id: str, body: str, client_address: str) -> Shown:
    """The visitor writes. Key: (visitor, client_message_id): the same once more is the same message, whatever the text says.

    Raises: IdentityRequired, WidgetClosed, Blank, TooLong, Invalid, RateLimited.
    """
    visit.require_identity()
    words = validation.required(body, limit=BODY_LIMIT, field="body", message=True)
    if _CLIENT_ID.fullmatch(client_message_id) is None:
        raise Invalid("8 to 64 letters, digits, - and _.", field="clientMessageId")
    connection = await _widget(visit.connection_id)
    if connection is None:
        raise WidgetClosed
    external_id = f"{visit.visitor_id.hex}:{client_message_id}"
    row = await Message.get_or_none(channel_connection_id=connection.id, external_id=external_id)
    if row is None:
        await _take(client_address, visit.visitor_id)
        await _store(connection, visit, external_id, words)
        row = await Message.get(channel_connection_id=connection.id, external_id=external_id)
    return (await _shown(visit, row.contact_id, [row]))[0]


async def _store(connection: ChannelConnection, visit: Visit, external_id: str, words: str) -> None:
    async with change(visit.account_id, rows=[visit.visitor_id]) as changed:
        # The visitor before the contact, as in _identify. Who has become somebody in the meantime writes as that person, or not at all:
        # under the old address the message would stand in a conversation that they see no more.
        same = Visitor.filter(id=visit.visitor_id, external_id=visit.external_id).select_for_update(no_key=True)
        if await same.get_or_none() is None:
            raise IdentityRequired
        first = await _contact_id(visit) is None
        contact, conversation = await contacts.find_or_create_by_address(
            changed, connection, KIND, visit.address, visit.name
        )
        if first:
            if visit.identity is not None:
                await _vouch(contact, visit)
            # Before the message, so that who listens takes it for their own.
            _known(changed, visit, contact.id, conversation.id)
        await Visitor.filter(id=visit.visitor_id).update(contact_id=contact.id)
        await inbound.store(
            connection,
            InboundMessage(external_id=external_id, sender=visit.address, body=words, occurred_at=changed.now),
            changed.now,
        )


async def mark_shown(visit: Visit, message_id: UUID, *, read: bool) -> None:
    """The widget has shown everything up to this message (DELIVERED), or a person has seen it (`read`: READ). Safe to repeat.

    Raises: IdentityRequired, Invalid (not a message of this visitor).
    """
    contact_id = await contact_of(visit)
    if contact_id is None:
        raise Invalid("This is no message of this conversation.", field="upTo")
    readable = await _readable(visit, contact_id)
    newest = await readable.get_or_none(id=message_id)
    if newest is None:
        raise Invalid("This is no message of this conversation.", field="upTo")
    behind = ["SENT", "DELIVERED"] if read else ["SENT"]
    waiting = readable.filter(direction="OUTBOUND", seq__lte=newest.seq, delivery_status__in=behind)
    rows = await waiting.order_by("seq").limit(SHOWN_AT_ONCE)
    connection = await providers.channel_connection(visit.connection_id, visit.account_id)
    status = web_chat.STATES["read" if read else "shown"]
    for row in rows:
        if row.external_id is not None:
            await delivery.record_status(connection, StatusUpdate(external_id=row.external_id, status=status))


async def forget_silent(now: datetime) -> int:
    """Forget who opened the widget a month ago and never wrote; how many."""
    silent = Visitor.filter(contact_id=None, external_id=None, last_seen_at__lt=now - FORGOTTEN_AFTER)
    return await silent.delete()


@jobs.periodic("visitors.prune", 3600)
async def _prune(job: jobs.JobContext) -> None:
    await forget_silent(datetime.now(UTC))
