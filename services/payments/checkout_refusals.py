"""Reports a processor's definite refusal of a checkout to the team, once per cause."""

from __future__ import annotations

from typing import Final

from integrations.base import IntegrationError
from models import vault
from models.ledger import CardKind
from models.tables import CheckoutSession, ProcessorConnection
from services.connections import processor_health, providers
from services.core import actors, merged_rows
from services.core.unit_of_work import change
from services.thread import activity_cards, notifications, request_rows

_ASK_AGAIN: Final = "Void this request and create one with another amount or processor."
_CHECK_ACCOUNT: Final = "Check your account at {name}, or use another processor."
# By the processor's reason: the cause and what the team can do.
CAUSES: Final = {
    "amount_too_small": (
        "the amount is below its minimum. If it pays you in another currency, that currency's minimum applies. "
        + _ASK_AGAIN
    ),
    "amount_too_large": "the amount is above its maximum. " + _ASK_AGAIN,
    "amount_not_representable": "it does not accept this fraction of the currency. " + _ASK_AGAIN,
    "currency_not_supported": (
        "your account does not accept this currency. Enable it at {name}, or void this request and use another currency."
    ),
    "account_restricted": "your account cannot accept payments at the moment. " + _CHECK_ACCOUNT,
    "permission_denied": (
        "its key lacks a permission, or your account is restricted. Connect {name} with a key that can create checkouts"
        " (Settings → Payments), or check your account."
    ),
    "authentication_failed": "it no longer accepts the stored credentials. Connect {name} again under Settings → Payments.",
    "access_revoked": "it no longer allows Paythread on your account. Connect {name} again under Settings → Payments.",
    "not_found": "it does not recognize the stored credentials. Connect {name} again under Settings → Payments.",
    "address_refused": (
        "it does not accept this server's address. Ask your operator: PUBLIC_URL must be a public https address."
    ),
    "connection_unusable": "this server can't use the connection. Connect {name} again under Settings → Payments, or ask your operator.",
}
# The author of the request can act on these; owners and admins act on all others.
OF_THE_REQUEST: Final = frozenset({"amount_too_small", "amount_too_large", "amount_not_representable"})


async def report(connection: ProcessorConnection, session: CheckoutSession, error: IntegrationError) -> None:
    """Log a card, notify those who can act, and store the error at the connection. Safe to repeat."""
    name = providers.processor_name(connection)
    of_connection = error.reason not in OF_THE_REQUEST and error.field is None
    why = CAUSES.get(error.reason, "").format(name=name) or _unknown(error, name)
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
    async with change(session.account_id, queue_on=[session.payment_request_id]) as changed:
        request = await request_rows.lock(session.account_id, session.payment_request_id)
        changed.actor = actors.contact(request.contact_id)
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
        name, before = activity_cards.EVENTS[kind], request.status
        changed.request_event(name, request, previous_status=before, facets=(), card_id=card.id)


def _unknown(error: IntegrationError, name: str) -> str:
    cause = (
        f"the {error.field.replace('_', ' ')} is not accepted" if error.field else f"“{error.message or error.reason}”"
    )
    return f"{cause}. " + _CHECK_ACCOUNT.format(name=name)
