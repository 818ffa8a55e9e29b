"""Demo page /demo/phone: what each contact received on simulated channels, and a form to answer. Only in the demo."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from models.ids import PREFIXES, parse_public_id, public_id
from models.tables import Account, ChannelConnection, Contact, ContactAddress, Conversation, Message
from services.connections import availability
from services.core import merged_rows
from services.sandbox import channels as simulator
from settings import Settings
from web import demo
from web.checkout import same_origin
from web.pages import PAGE_HEADERS, error_page, render
from web.texts import Words

SIMULATED: Final = "simulated"
CONTACTS: Final = 50
MESSAGES: Final = 100
LONGEST: Final = 1600  # characters of an answer

KINDS: Final = {
    "SMS": "SMS",
    "EMAIL": "Email",
    "WHATSAPP": "WhatsApp",
    "INSTAGRAM_DM": "Instagram",
    "MESSENGER": "Messenger",
    "WEB_CHAT": "Web chat",
}

# A full stop or bracket after an address belongs to the sentence.
_LINK: Final = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:!?)\]]")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a message: text, or an address to open."""

    text: str
    link: bool


def parts(body: str) -> list[Part]:
    found: list[Part] = []
    end = 0
    for match in _LINK.finditer(body):
        if match.start() > end:
            found.append(Part(body[end : match.start()], link=False))
        found.append(Part(match[0], link=True))
        end = match.end()
    if end < len(body):
        found.append(Part(body[end:], link=False))
    return found


async def _connections(request: Request) -> list[ChannelConnection]:
    settings: Settings = request.app.state.settings
    found = ChannelConnection.filter(provider=SIMULATED, connected=True)
    access = demo.access(request)
    if access is not None:
        found = found.filter(account_id=access.account_id)
    elif settings.production:
        return []
    return await found.order_by("id")


async def _contacts(connections: list[ChannelConnection]) -> list[Contact]:
    accounts = {row.account_id for row in connections}
    if not accounts:
        return []
    # The last contact written to comes first: after sending a link, this page opens on it.
    shown = Conversation.filter(account_id__in=accounts, merged_into_id=None)
    talks = await shown.order_by("-last_activity_at", "-id").limit(CONTACTS)
    rows = {row.id: row for row in await Contact.filter(id__in=[talk.contact_id for talk in talks])}
    found = [rows[talk.contact_id] for talk in talks]
    # Visitors of the real widget have no phone here: their messages are on /demo/site.
    return [row for row in found if await _kinds(row, connections)]


async def show(request: Request) -> Response:
    settings: Settings = request.app.state.settings
    if not settings.demo_open:
        return error_page(404)
    connections = await _connections(request)
    contacts = await _contacts(connections)
    chosen = _chosen(request.query_params.get("contact", ""), contacts)
    kind = request.query_params.get("channel", "")
    messages: list[dict[str, object]] = []
    kinds: list[str] = []
    if chosen is not None:
        own = {row.id for row in connections if row.account_id == chosen.account_id}
        kinds = await _kinds(chosen, connections)
        messages = await _messages(chosen, own, kind if kind in KINDS else None)
    return render(
        "phone.html",
        contacts=[{"id": public_id(PREFIXES["Contact"], row.id), "name": row.name} for row in contacts],
        chosen={"id": public_id(PREFIXES["Contact"], chosen.id), "name": chosen.name} if chosen else None,
        kind=kind if kind in KINDS else "",
        kinds=[(name, KINDS[name]) for name in kinds],
        messages=messages,
        longest=LONGEST,
    )


def _chosen(text: str, contacts: list[Contact]) -> Contact | None:
    wanted = parse_public_id(text, PREFIXES["Contact"])
    return next((row for row in contacts if row.id == wanted), contacts[0] if contacts else None)


async def _kinds(contact: Contact, connections: list[ChannelConnection]) -> list[str]:
    # A visitor of the real widget writes there, not here.
    addresses = [row for row in await ContactAddress.filter(contact_id=contact.id) if "@chn_" not in row.address]
    reachable = {row.kind for row in addresses} & {
        row.kind for row in connections if row.account_id == contact.account_id
    }
    return [kind for kind in KINDS if kind in reachable]


async def _messages(contact: Contact, connections: set[UUID], kind: str | None) -> list[dict[str, object]]:
    account = await Account.get(id=contact.account_id)
    words = Words.of(account.locale, account.time_zone)
    found = Message.filter(contact_id__in=merged_rows.ids_of(contact), channel_connection_id__in=connections)
    if kind is not None:
        found = found.filter(kind=kind)
    rows = await found.order_by("-seq").limit(MESSAGES)
    return [
        {
            "own": row.direction == "INBOUND",
            "sender": "You" if row.direction == "INBOUND" else account.name,
            "kind": KINDS.get(row.kind, row.kind),
            "subject": row.subject,
            "parts": parts(row.body),
            "status": row.delivery_status.lower(),
            "at": row.occurred_at.isoformat(),
            "time": words.time(row.occurred_at),
        }
        for row in rows
    ]


async def write(request: Request) -> Response:
    settings: Settings = request.app.state.settings
    if not settings.demo_open:
        return error_page(404)
    if not same_origin(request):
        return error_page(403)
    async with request.form() as form:
        contact_text, kind, text = (str(form.get(name, "")) for name in ("contact", "channel", "text"))
    connections = await _connections(request)
    wanted = parse_public_id(contact_text, PREFIXES["Contact"])
    contact = next((row for row in await _contacts(connections) if row.id == wanted), None)
    if contact is None:
        return error_page(404)
    text = text.strip()
    connection = next((row for row in connections if row.account_id == contact.account_id and row.kind == kind), None)
    address = await ContactAddress.get_or_none(contact_id=contact.id, kind=kind, in_use=True)
    if not text or len(text) > LONGEST or connection is None or address is None:
        return error_page(400)
    if not availability.belongs(connection, address.address):
        return error_page(400)
    await simulator.contact_writes(connection.id, address.address, text)
    return RedirectResponse(f"/demo/phone?contact={contact_text}", 303, {**PAGE_HEADERS})


routes: Final = [
    Route("/demo/phone", show, methods=["GET"]),
    Route("/demo/phone", write, methods=["POST"]),
]
