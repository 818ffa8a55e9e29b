"""Reports a processor's definite refusal of a checkout to the team, once per cause."""

from __future__ import annotations

from typing import Final

from integrations.base import IntegrationError
from models import vault
from models.ledger import CardKind
from models.tables import CheckoutSession, ProcessorConnection
from services.connections import processor_health, providers
from services.core import merged_rows
from services.core.unit_of_work import change
from services.thread import activity_cards, notifications, request_rows

_ASK_ANEW: Final = "Void this request and ask for another amount, or by another processor."
_AT_VENDOR: Final = "See what {name} asks of you in your account there, or ask by another processor."
# By the processor's reason: the cause and what the team can do.
WORDS: Final = {
    "amount_too_small": (
        "the amount is below the least that it takes; where it pays you out in another currency, that currency's least counts. "
        + _ASK_ANEW
    ),
    "amount_too_large": "the amount is above the most that it takes. " + _ASK_ANEW,
    "amount_not_representable": "it takes no such fraction of this currency. " + _ASK_ANEW,
    "currency_not_supported": (
        "your account there does not take this currency. Enable the currency at {name}, or void this request and ask in another."
    ),
    "account_restricted": "your account there may not take payments at the moment. " + _AT_VENDOR,
    "permission_denied": (
        "its key lacks a permission, or your account there may not do this. Connect {name} with a key that may open checkouts"
        " (Settings → Payments), or see your account there."
    ),
    "authentication_failed": "it no longer accepts the stored credentials. Connect {name} again under Settings → Payments.",
    "access_revoked": "it no longer allows Paythread on your account. Connect {name} again under Settings → Payments.",
    "not_found": "it does not know what the stored credentials name. Connect {name} again under Settings → Payments.",
    "address_refused": (
        "it does not take this server's address. Ask your operator: PUBLIC_URL must be a public https address."
    ),
    "connection_unusable": "this server can't use the connection. Connect {name} again under Settings → Payments, or ask your operator.",
}
# The author of the request can act on these; owners and admins act on all others.
OF_THE_REQUEST: Final = frozenset({"amount_too_small", "amount_too_large", "amount_not_representable"})


async def report(connection: ProcessorConnection, session: CheckoutSession, error: IntegrationError) -> None:
    """Log a card, notify those who can act, and store the error at the connection. Safe to repeat."""
    name = providers.processor_name(connection)
    of_connection = error.reason not in OF_THE_REQUEST and error.field is None
    why = WORDS.get(error.reason, "").format(name=name) or _unknown(error, name)
    if revoked := error.reason in processor_health.REVOKED:
        news = await processor_health.refused(connection, error)
    else:
        news = await processor_health.note(connection, f"A contact could not pay: {why}")
    made = CheckoutSession.filter(payment_request_id=session.payment_request_id, external_id__not_isnull=True)
    last = await made.order_by("-n").first()
    # Reported again after a checkout that opened, or with other credentials.
    since = f"{last.n if last else 0}:{vault.digest(connection.credentials)[:12]}"
    cause = f"{error.reason}:{error.code}:{error.field}:{session.amount_minor}:{since}"
    key = f"{session.payment_request_id}:{vault.digest(cause)[:16]}"
    async with change(session.account_id, rows=[session.payment_request_id]) as changed:
        request = await request_rows.lock(session.account_id, session.payment_request_id)
        contact = await merged_rows.contact_of(request.account_id, request.contact_id)
        kind, text = CardKind.CHECKOUT_REFUSED, activity_cards.checkout_refused(contact.name, request, name, why)
        card = await changed.log_card(request, kind, text=text, key=key)
        if card is None:
            return
        await notifications.notify(
            changed,
            request,
            kind,
            title=activity_cards.TITLES[kind],
            body=text,
            cause_key=f"refused:{key}",
            # A connection that has ended notifies owners and admins itself.
            admins=of_connection and news and not revoked,
        )
        request.version += 1
        await request.save(update_fields=["version", "updated_at"])
        changed.request_event(activity_cards.EVENTS[kind], request, previous_status=request.status, card_id=card.id)


def _unknown(error: IntegrationError, name: str) -> str:
    cause = (
        f"the {error.field.replace('_', ' ')} is not one that it takes"
        if error.field
        else f"“{error.message or error.reason}”"
    )
    return f"{cause}. " + _AT_VENDOR.format(name=name)
