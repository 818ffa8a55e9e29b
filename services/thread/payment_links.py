"""Links to the checkout page, and what changes when a message carries one."""

from __future__ import annotations

import re
from uuid import UUID

from models import database, errors, rows, vault
from models.ids import public_id
from models.ledger import CardKind, Facet, Status
from models.tables import ActivityCard, Message, PaymentRequest
from services.core import configuration
from services.core.unit_of_work import Change
from services.thread import activity_cards, contact_totals, notifications, request_rows

# Any host: the public URL may have changed since. The token has a fixed length, because `_` may follow it: WhatsApp sets the
# text between two of them in italics.
_LINK = re.compile(r"/p/([A-Za-z0-9_-]{22})")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
_ONE_LINK = re.compile(r"https?://[^\s?#]*?/p/([A-Za-z0-9_-]{22})(?:[/?#].*)?$", re.DOTALL)
_LABELS = {Status.PAID.value: "View receipt", Status.VOID.value: "View request"}  # every vendor takes 20 characters
# The provider's reason, and the refusal of the same name.
_WINDOW_CLOSED = frozenset({"window_closed", "MESSAGING_WINDOW_CLOSED"})


def url_of(token: str) -> str:
    return absolute(f"/p/{token}")


def absolute(path: str) -> str:
    return configuration.current().environment.public_url + path


def checkout_url(request: PaymentRequest) -> str:
    """The request's link.

    Raises: VaultError.
    """
    return checkout_url_of(request.account_id, request.token)


def checkout_url_of(account_id: UUID, sealed_token: str) -> str:
    """The link of a request with this sealed token.

    Raises: VaultError.
    """
    return url_of(vault.unseal(account_id, sealed_token))


def reference(request: PaymentRequest) -> str:
    """The request's id on the vendor's objects."""
    return public_id("pr", request.id)


def tokens(text: str) -> list[str]:
    """The tokens of all links, in order, also of other accounts' links."""
    return _LINK.findall(text)


def token_of(link: str) -> str | None:
    """The token of one link, or of the token alone."""
    link = link.strip()
    if _TOKEN.fullmatch(link):
        return link
    found = _ONE_LINK.match(link)
    return found[1] if found is not None else None


def hidden(text: str) -> str:
    """The text without link tokens, because vendors send our URLs back."""
    return _LINK.sub("/p/…", text)


def token_hashes(text: str) -> list[str]:
    return list(dict.fromkeys(vault.digest(token) for token in tokens(text)))


async def carried(account_id: UUID, text: str) -> list[PaymentRequest]:
    """The account's requests whose links are in the text."""
    hashes = token_hashes(text)
    if not hashes:
        return []
    known = f"token_hash IN ({database.placeholders(len(hashes))})"
    visible = f"WHERE account_id = ? AND {known} AND discarded_at IS NULL ORDER BY id"
    return await rows.find(PaymentRequest, visible, account_id, *hashes)


def is_alive(request: PaymentRequest) -> bool:
    """Whether the link still asks for a payment."""
    return request.status not in (Status.PAID, Status.VOID) and request.void_requested_at is None


def refuse_closed(request: PaymentRequest, *, field: str = "paymentRequestId") -> None:
    """Refuse unless `is_alive`. Raises: AlreadyPaid, AlreadyVoid (also while a void is pending)."""
    if request.status == Status.PAID:
        raise errors.AlreadyPaid(current=public_id("pr", request.id), field=field)
    if not is_alive(request):
        raise errors.AlreadyVoid(current=public_id("pr", request.id), field=field)


async def button(account_id: UUID, text: str) -> tuple[str, str] | None:
    """URL and label of a button for the text's first payment link."""
    known = {request.token_hash: request for request in await carried(account_id, text)}
    for token in tokens(text):
        request = known.get(vault.digest(token))
        if request is not None:
            # Never copy the URL from the text.
            return url_of(token), _LABELS.get(request.status, "Pay now")
    return None


async def bind_sent(changed: Change, request: PaymentRequest, message: Message) -> ActivityCard | None:
    """Record that a message carries a locked request's link: SENT, with its card the first time."""
    if not is_alive(request):
        return None
    before = request.status
    first = request.sent_at is None
    card = await request_rows.mark_sent(changed, request, via="MESSAGE", message_id=message.id) if first else None
    request.last_message_id = message.id
    request.delivery_state = "QUEUED"
    request.version += 1
    written = [*request_rows.SENT_COLUMNS, "last_message_id", "delivery_state", "version", "updated_at"]
    await rows.update(request, written)
    if first:
        await contact_totals.lock_contact(request.account_id, request.contact_id)
        await contact_totals.update(request.account_id, request.contact_id)
        changed.event("contact.updated", conversation_id=request.conversation_id, contact_id=request.contact_id)
    sent = card.id if card else None
    changed.request_event("sent", request, previous_status=before, facets=(Facet.DELIVERY,), card_id=sent)
    return card


async def delivery_changed(changed: Change, request: PaymentRequest, message: Message) -> None:
    """Apply the newest message's delivery status; the caller holds the request's lock."""
    if request.last_message_id != message.id:
        return
    state = "QUEUED" if message.delivery_status == "SENDING" else message.delivery_status
    if request.delivery_state == state:
        return
    request.delivery_state = state
    request.version += 1
    await rows.update(request, ["delivery_state", "version", "updated_at"])
    card = None
    if state == "FAILED" and request.status not in (Status.PAID, Status.VOID):
        card = await changed.log_card(
            request,
            CardKind.DELIVERY_FAILED,
            text=activity_cards.undelivered(request, window_closed=message.error_code in _WINDOW_CLOSED),
            key=f"{message.id}:{request.id}",
            message_id=message.id,
        )
        if card is not None:
            kind = CardKind.DELIVERY_FAILED
            title, cause = activity_cards.TITLES[kind], f"{kind}:{message.id}:{request.id}"
            await notifications.notify(changed, request, kind, title=title, body=card.text, cause_key=cause)
    names = {"DELIVERED": "delivered", "READ": "delivered", "FAILED": "delivery_failed"}
    name, failed = names.get(state, "updated"), card.id if card else None
    changed.request_event(name, request, previous_status=request.status, facets=(Facet.DELIVERY,), card_id=failed)
