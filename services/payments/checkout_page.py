"""The page behind a payment link: what it shows, and its recorded views."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from models import database, errors, ledger, rows, vault
from models.ledger import Facet, Status
from models.money import Money
from models.tables import (
    Account,
    CheckoutSession,
    PaymentRequest,
    ProcessorConnection,
)
from services.connections import providers
from services.core import actors
from services.core.unit_of_work import change
from services.payments import captures, payment_views, projection
from services.payments.payment_views import PaymentView
from services.thread import contact_totals, request_rows

VIEW_AGAIN = timedelta(seconds=60)  # an earlier repeat is a reload, not a view


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutPage:
    """What the page behind a link shows."""

    request: PaymentRequest
    account: Account
    connection: ProcessorConnection
    state: str  # open, processing, review (the team must decide), paid, void
    due: Money
    asked: Money
    paid: Money
    last_attempt_failed: bool
    receipt: PaymentView | None  # the newest counted charge
    received: tuple[Money, ...]  # by currency; on an unpaid request with what awaits a decision
    methods: tuple[str, ...]  # of the receipt's charge and others on its checkout
    processor_name: str
    origins: tuple[str, ...]  # where Pay may lead
    under_way: CheckoutSession | None  # with money under way
    releasable: bool  # a delayed payment: the contact may pay another way


async def find(token: str) -> PaymentRequest | None:
    """The request behind a link, unless unknown or discarded."""
    if len(token) != 22:
        return None
    return await rows.first(PaymentRequest, "WHERE token_hash = ? AND discarded_at IS NULL", vault.digest(token))


def state_of(request: PaymentRequest) -> str:
    """What the page shows; open: it offers to pay."""
    if request.status == Status.PAID:
        return "paid"
    if request.status == Status.VOID:
        return "void"
    held = request.status == Status.PROCESSING and request.released_at is None
    if held or request.void_requested_at is not None:
        return "processing"
    return "review" if request.unresolved else "open"


async def state_now(request: PaymentRequest) -> str:
    """As `state_of`, but processing while an approved checkout is being captured."""
    state = state_of(request)
    if state != "open":
        return state
    return "processing" if await captures.is_under_way(request.id) else "open"


async def page(request: PaymentRequest) -> CheckoutPage:
    (account,) = await rows.find(Account, "WHERE id = ?", request.account_id)
    connection = await providers.processor_connection(request.processor_connection_id, request.account_id)
    views = (await payment_views.payments(account.id, [request.id]))[request.id]
    charges = [view for view in views if view.kind == "CHARGE" and view.status == "SUCCEEDED"]
    counted = [view for view in charges if view.counted]
    try:
        processor = providers.processor(connection)
        name = processor.display_name
        origins = (*processor.checkout_origins, *await _own_origins(request, connection))
    except errors.ProcessorUnavailable:
        # Closed by the settings; the contact can still see the receipt.
        name, origins = connection.display_name, ()
    return CheckoutPage(
        request=request,
        account=account,
        connection=connection,
        state=await state_now(request),
        due=Money(max(0, request.amount_minor - request.amount_paid_minor - request.waived_minor), request.currency),
        asked=Money(request.amount_minor, request.currency),
        paid=Money(request.amount_paid_minor, request.currency),
        last_attempt_failed=request.last_attempt_status in ("FAILED", "CANCELED") and request.status in ledger.PAYABLE,
        receipt=counted[-1] if counted else None,
        received=_received(counted if request.status == Status.PAID else charges),
        methods=_methods(counted),
        processor_name=name,
        origins=origins,
        under_way=await _under_way(request),
        releasable=projection.is_releasable(request),
    )


async def _under_way(request: PaymentRequest) -> CheckoutSession | None:
    if request.status != Status.PROCESSING:
        return None
    sessions = await rows.find(
        CheckoutSession, "WHERE payment_request_id = ? AND status = 'PROCESSING' ORDER BY n DESC", request.id
    )
    return next((one for one in sessions if one.released_at is None), sessions[0] if sessions else None)


def _received(charges: Sequence[PaymentView]) -> tuple[Money, ...]:
    sums: dict[str, int] = {}
    for view in charges:
        amount = view.amount_minor if view.counted else view.unresolved_minor
        sums[view.currency] = sums.get(view.currency, 0) + amount
    return tuple(Money(amount, currency) for currency, amount in sorted(sums.items()) if amount)


def _methods(counted: Sequence[PaymentView]) -> tuple[str, ...]:
    if not counted:
        return ()
    checkout = counted[-1].checkout_session_id
    paid_with = [view for view in counted if view is counted[-1] or (checkout and view.checkout_session_id == checkout)]
    return tuple(dict.fromkeys(view.method_summary for view in paid_with if view.method_summary))


async def _own_origins(request: PaymentRequest, connection: ProcessorConnection) -> list[str]:
    # A request without a checkout uses the newest one's domain.
    made = "SELECT url FROM checkout_session WHERE processor_connection_id = ? AND url IS NOT NULL"
    newest = await database.records(f"{made} ORDER BY id DESC LIMIT 1", connection.id)
    own = await database.records(
        f"{made} AND payment_request_id = ? ORDER BY n DESC LIMIT 5", connection.id, request.id
    )
    found = (origin_of(url) for (url,) in [*own, *newest])
    return [origin for origin in dict.fromkeys(found) if origin is not None]


async def declared_origins(request: PaymentRequest) -> tuple[str, ...]:
    """The origins that the processor declares. Raises: ProcessorUnavailable."""
    connection = await providers.processor_connection(request.processor_connection_id, request.account_id)
    return providers.processor(connection).checkout_origins


def origin_of(url: str) -> str | None:
    """The origin of an https URL, safe for a Content-Security-Policy; None for other URLs."""
    found = re.match(
        r"https://([a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?(?::[0-9]{1,5})?)(?:[/?#]|$)", url, re.ASCII | re.IGNORECASE
    )
    return f"https://{found[1].lower()}" if found else None


async def record_view(token: str, *, human: bool) -> None:
    """Count a person's view; the first view of a copied link marks a DRAFT as sent."""
    found = await find(token)
    if found is None or not human:
        return
    async with change(found.account_id, actor=actors.contact(found.contact_id), queue_on=[found.id]) as changed:
        request = await request_rows.lock(found.account_id, found.id)
        if request.discarded_at is not None:
            return
        if request.last_viewed_at is not None and abs(changed.now - request.last_viewed_at) < VIEW_AGAIN:
            return
        before = request.status
        request.human_views += 1
        request.last_viewed_at = changed.now
        request.first_viewed_at = request.first_viewed_at or changed.now
        request.version += 1
        written = ["human_views", "last_viewed_at", "first_viewed_at", "version", "updated_at"]
        sent = request.status == Status.DRAFT and request.sent_at is None
        card = await request_rows.mark_sent(changed, request, via="LINK_COPIED") if sent else None
        if sent:
            written += request_rows.SENT_COLUMNS
        await request.save(update_fields=written)
        if sent:
            await contact_totals.lock_contact(request.account_id, request.contact_id)
            await contact_totals.update(request.account_id, request.contact_id)
            changed.event("contact.updated", conversation_id=request.conversation_id, contact_id=request.contact_id)
            logged = card.id if card else None
            changed.request_event("sent", request, previous_status=before, facets=(Facet.DELIVERY,), card_id=logged)
        changed.request_event("viewed", request, previous_status=before, facets=(Facet.VIEWS,))
