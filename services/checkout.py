"""The contact's side: find a request by its link, show it, open a checkout at the processor, come back. Reading never changes anything.

The link never expires, checkouts do: pressing Pay reuses the open one or makes a new one with a key that was stored before the call.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import structlog

from integrations.base import Checkout, CheckoutOrder, IntegrationError
from models import errors, ledger, vault
from models.ids import uuid7
from models.ledger import CardKind, Status
from models.money import Money
from models.tables import (
    Account,
    CheckoutSession,
    Contact,
    MoneyFact,
    PaymentRequest,
    ProcessorConnection,
)
from services import connections, jobs, links, recorder, summaries, voids
from services.changes import change

log = structlog.get_logger(__name__)

REUSE_MARGIN = timedelta(minutes=10)  # a checkout that ends sooner is replaced
FIRST_CHECK = timedelta(seconds=60)  # default; SWEEPER_FIRST_CHECK_S
_first_check = FIRST_CHECK


def configure(*, first_check_s: float) -> None:
    """Set how long after opening or return the sweeper first reads a checkout, seconds."""
    global _first_check
    _first_check = timedelta(seconds=first_check_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutPage:
    """What the page behind the link shows. `state`: open, processing, paid, void."""

    request: PaymentRequest
    account: Account
    connection: ProcessorConnection
    state: str
    due: Money
    asked: Money
    paid: Money
    last_attempt_failed: bool
    receipt: MoneyFact | None  # the newest counted charge
    processor_name: str
    origins: tuple[str, ...]  # where Pay may lead


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Where the contact pays (`url`), or the state of the request if there is nothing to pay now."""

    url: str | None
    state: str


async def find(token: str) -> PaymentRequest | None:
    """The request behind a link; None for an unknown or discarded one. Looked up by the token's hash."""
    if len(token) != 22:
        return None
    return await PaymentRequest.get_or_none(token_hash=vault.digest(token), discarded_at=None)


def state_of(request: PaymentRequest) -> str:
    """open, processing, paid or void, as the contact sees it."""
    if request.status == Status.PAID:
        return "paid"
    if request.status == Status.VOID:
        return "void"
    if request.status == Status.PROCESSING or request.void_requested_at is not None:
        return "processing"
    return "open"


async def page(request: PaymentRequest) -> CheckoutPage:
    """Everything that the page shows. Reads only."""
    account = await Account.get(id=request.account_id)
    connection = await connections.processor_connection(request.processor_connection_id, request.account_id)
    receipt = (
        await MoneyFact.filter(payment_request_id=request.id, kind="CHARGE", outcome="SUCCEEDED", counted=True)
        .order_by("-id")
        .first()
        if request.amount_paid_minor
        else None
    )
    processor = connections.processor(connection)
    return CheckoutPage(
        request=request,
        account=account,
        connection=connection,
        state=state_of(request),
        due=Money(max(0, request.amount_minor - request.amount_paid_minor), request.currency),
        asked=Money(request.amount_minor, request.currency),
        paid=Money(request.amount_paid_minor, request.currency),
        last_attempt_failed=request.last_attempt_status in ("FAILED", "CANCELED") and request.status in ledger.OPEN,
        receipt=receipt,
        processor_name=processor.display_name,
        origins=processor.checkout_origins,
    )


async def open_checkout(token: str, *, locale: str | None = None) -> Opened:
    """Pay was pressed: reuse the open checkout or make a new one; state instead of a url when there is nothing to pay.

    Raises: NotFound, ProcessorUnavailable, ProcessorRejected. Key: `request:n`, stored before the call: a repeat gets the same object.
    """
    found = await find(token)
    if found is None:
        raise errors.NotFound
    session_id = uuid7()
    async with change(found.account_id):
        request = await PaymentRequest.filter(id=found.id).select_for_update().get()
        state = state_of(request)
        if state != "open":
            return Opened(url=None, state=state)
        session = (
            await CheckoutSession.filter(payment_request_id=request.id, status__in=["OPENING", "OPEN"])
            .order_by("-n")
            .first()
        )
        now = datetime.now(UTC)
        if session is not None and session.status == "OPEN":
            if session.url and session.expires_at is not None and session.expires_at > now + REUSE_MARGIN:
                return Opened(url=session.url, state="open")
            # Too short to pay on: close it, and make the next one.
            await voids.expire_later(session)
            session = None
        if session is None:
            session = await _insert(request, session_id, now)
        connection = await connections.processor_connection(request.processor_connection_id, request.account_id)
        order = await _order(request, session, token, locale)
    made = await _create(connection, session, order)
    return await _keep(found, session, made)


async def _insert(request: PaymentRequest, session_id: UUID, now: datetime) -> CheckoutSession:
    newest = await CheckoutSession.filter(payment_request_id=request.id).order_by("-n").first()
    n = (newest.n if newest else 0) + 1
    return await CheckoutSession.create(
        id=session_id,
        account_id=request.account_id,
        payment_request_id=request.id,
        processor_connection_id=request.processor_connection_id,
        n=n,
        idempotency_key=f"{links.reference(request)}:{n}",
        amount_minor=request.amount_minor - request.amount_paid_minor,
        currency=request.currency,
        status="OPENING",
        next_check_at=now + _first_check,
        created_at=now,
        updated_at=now,
    )


async def _order(request: PaymentRequest, session: CheckoutSession, token: str, locale: str | None) -> CheckoutOrder:
    contact = await Contact.get(id=request.contact_id)
    link = links.url_of(token)
    return CheckoutOrder(
        idempotency_key=session.idempotency_key,
        request_reference=links.reference(request),
        number=request.number,
        product_name=request.product_name,
        description=request.description,
        amount_minor=session.amount_minor,
        currency=session.currency,
        success_url=f"{link}/return",
        cancel_url=link,
        customer_email=contact.email,
        locale=locale,
    )


async def _create(connection: ProcessorConnection, session: CheckoutSession, order: CheckoutOrder) -> Checkout:
    try:
        return await connections.processor(connection).create_checkout(order)
    except IntegrationError as error:
        log.warning("checkout_create_failed", provider=error.provider, reason=error.reason, ambiguous=error.ambiguous)
        await ProcessorConnection.filter(id=connection.id).update(last_error=f"{error.reason}: {error.message}"[:300])
        if not error.ambiguous and not error.retryable:
            # A definite no leaves no object behind: this number is used up.
            await CheckoutSession.filter(id=session.id, status="OPENING").update(status="ABANDONED", next_check_at=None)
            raise errors.ProcessorRejected from error
        if error.ambiguous and session.checks:
            # The vendor replays a failed answer for this key: leave the key to the sweeper and count on.
            await CheckoutSession.filter(id=session.id, status="OPENING").update(status="ABANDONED")
        else:
            await CheckoutSession.filter(id=session.id).update(checks=session.checks + 1)
        raise errors.ProcessorUnavailable from error


async def _keep(found: PaymentRequest, session: CheckoutSession, made: Checkout) -> Opened:
    """Store what the processor made; if the request can't be paid any more by now, close it at once."""
    async with change(found.account_id):
        request = await PaymentRequest.filter(id=found.id).select_for_update().get()
        stored = await CheckoutSession.get(id=session.id)
        if stored.status == "OPENING":
            stored.status = made.status.value if made.status.value in ("OPEN", "EXPIRED") else "OPEN"
            stored.external_id = made.external_id
            stored.url = made.url
            stored.expires_at = made.expires_at
            await stored.save()
        elif stored.status == "ABANDONED" and stored.external_id is None:
            # Given up while the answer was on its way: not for paying.
            stored.external_id = made.external_id
            stored.status = "OPEN"
            await stored.save()
            await voids.expire_later(stored)
            return Opened(url=None, state="processing")
        state = state_of(request)
    if state != "open":
        await voids.close_session(stored, source="void")
        if request.void_requested_at is not None:
            await voids.finish_void(request.account_id, request.id)
        again = await PaymentRequest.get(id=found.id)
        return Opened(url=None, state=state_of(again))
    return Opened(url=stored.url or made.url, state="open")


async def returned(token: str) -> None:
    """The contact came back from the processor: ask it what happened. The page never decides; no answer leaves it to the sweeper."""
    request = await find(token)
    if request is None or request.status in (Status.PAID, Status.VOID):
        return
    session = (
        await CheckoutSession.filter(
            payment_request_id=request.id, status__in=["OPEN", "PROCESSING"], external_id__not_isnull=True
        )
        .order_by("-n")
        .first()
    )
    if session is None:
        return
    await CheckoutSession.filter(id=session.id, returned_at=None).update(
        returned_at=datetime.now(UTC), next_check_at=datetime.now(UTC) + _first_check
    )
    try:
        await read_back(session, source="return")
    except IntegrationError as error:
        log.warning("checkout_read_failed", provider=error.provider, reason=error.reason)


async def read_back(session: CheckoutSession, *, source: str) -> recorder.Recorded:
    """Read the checkout at its processor and record what it says. Raises: IntegrationError."""
    assert session.external_id is not None  # noqa: S101 (the callers choose such rows)
    connection = await connections.processor_connection(session.processor_connection_id, session.account_id)
    state = await connections.processor(connection).read_checkout(session.external_id)
    return await recorder.record(
        connection,
        state.money,
        source=source,
        checkout=recorder.CheckoutReport(
            external_id=state.external_id, status=state.status, expires_at=state.expires_at
        ),
        request_reference=state.request_reference,
    )


async def record_view(token: str, *, human: bool) -> None:
    """The page's script says that somebody looks. A person's first look at a copied link makes a DRAFT SENT."""
    found = await find(token)
    if found is None or not human:
        return
    async with change(found.account_id) as changed:
        request = await PaymentRequest.filter(id=found.id).select_for_update().get()
        request.human_views += 1
        request.last_viewed_at = changed.now
        first = request.first_viewed_at is None
        request.first_viewed_at = request.first_viewed_at or changed.now
        request.version += 1
        before = request.status
        card = None
        if request.status == Status.DRAFT and request.sent_at is None:
            request.status = Status.SENT.value
            request.sent_at, request.sent_via = changed.now, "LINK_COPIED"
            card = await changed.log_card(
                request, CardKind.PAYMENT_REQUEST, text=links.asked_text(request), key=str(request.id)
            )
        await request.save()
        if card is not None:
            await summaries.lock_contact(request.account_id, request.contact_id)
            await summaries.update(request.account_id, request.contact_id)
            changed.event("contact.updated", conversation_id=request.conversation_id, contact_id=request.contact_id)
            changed.request_event("sent", request, previous_status=before, card_id=card.id)
        elif first:
            changed.request_event("viewed", request, previous_status=before)


@jobs.handler("checkout.read_back")
async def _read_back_job(job: jobs.JobContext) -> None:
    """After a webhook said paid: read the object; the recorder tells the team of any difference. Key: the fact."""
    session = await CheckoutSession.get(id=UUID(job.payload["session_id"]))
    if session.external_id is None:
        return
    recorded = await read_back(session, source="sweeper")
    paid = await MoneyFact.exists(checkout_session_id=session.id, kind="CHARGE", outcome="SUCCEEDED")
    if recorded.request is not None and paid:
        connection = await connections.processor_connection(session.processor_connection_id, session.account_id)
        state = await connections.processor(connection).read_checkout(session.external_id)
        if state.status.value != "COMPLETED":
            log.error("read_back_disagrees", provider=connection.processor, status=state.status.value)
            await ProcessorConnection.filter(id=connection.id).update(
                last_error="A webhook said paid, the processor's object does not."
            )
