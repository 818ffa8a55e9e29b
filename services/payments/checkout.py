"""Opens a checkout when the contact presses Pay, or reuses the open one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import structlog

from integrations.base import (
    OPTIONAL_FIELDS,
    Checkout,
    CheckoutOrder,
    CheckoutStatus,
    IntegrationError,
    Processor,
)
from models import errors
from models.ids import uuid7
from models.tables import (
    CheckoutSession,
    MoneyFact,
    PaymentRequest,
    ProcessorConnection,
)
from services.connections import processor_health, providers
from services.core import actors, configuration, merged_rows
from services.core.unit_of_work import change
from services.payments import (
    captures,
    checkout_closing,
    checkout_page,
    checkout_reads,
    checkout_refusals,
    voids,
)
from services.thread import payment_links, request_rows

log = structlog.get_logger(__name__)


REUSE_MARGIN = timedelta(minutes=10)  # a checkout with less time left is replaced
KEY_LIFE = timedelta(minutes=10)  # vendors forget keys after hours; an older key could create a second checkout
UNUSABLE = "connection_unusable"  # reason if this process cannot load the connection's processor
TRIES = 2 + len(OPTIONAL_FIELDS)  # per press of Pay


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    url: str | None  # None: cannot be paid now
    state: str


async def open_checkout(token: str, *, locale: str | None = None) -> Opened:
    """Reuse the open checkout or create the next one under a stored key.

    Raises: NotFound, ProcessorUnavailable, ProcessorRejected.
    """
    found = await checkout_page.find(token)
    if found is None:
        raise errors.NotFound
    found = await checkout_reads.refresh(found)  # Pay must not lead to an ended page
    without: set[str] = set()
    for _ in range(TRIES):
        prepared = await _prepare(found, token, locale, without=without)
        if isinstance(prepared, Opened):
            return prepared
        try:
            made = await _create(prepared)
        except _Refused as refused:
            error = refused.error
            if error.field in OPTIONAL_FIELDS and getattr(prepared.order, error.field) is not None:
                without.add(error.field)
            elif prepared.is_new and error.reason != "idempotency_conflict":
                await checkout_refusals.report(prepared.connection, prepared.session, error)
                if error.reason == UNUSABLE:
                    raise ConnectionUnusable from refused
                raise
            # Otherwise the key was used with other values, such as another language; take the next one.
        else:
            return await _store_answer(found, prepared, made)
    raise errors.ProcessorUnavailable


class _Refused(errors.ProcessorRejected):
    """The payment processor refused this checkout for good."""

    def __init__(self, error: IntegrationError) -> None:
        super().__init__()
        self.error = error


class ConnectionUnusable(errors.ProcessorUnavailable):
    """This server can't use the connection of the payment processor; trying again does not help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    connection: ProcessorConnection
    session: CheckoutSession
    order: CheckoutOrder
    is_new: bool  # False: its key was used before


async def _prepare(
    found: PaymentRequest, token: str, locale: str | None, *, without: Collection[str]
) -> _Prepared | Opened:
    async with change(found.account_id, actor=actors.contact(found.contact_id), queue_on=[found.id]) as changed:
        request = await request_rows.lock(found.account_id, found.id)
        if request.discarded_at is not None:
            raise errors.NotFound
        if checkout_page.state_of(request) != "open":
            return Opened(url=None, state=checkout_page.state_of(request))
        live = CheckoutSession.filter(payment_request_id=request.id, status__in=["OPENING", "OPEN"])
        sessions = await live.order_by("-n")
        if any(one.capturing_at is not None for one in sessions):
            return Opened(url=None, state="processing")
        due = request.amount_minor - request.amount_paid_minor - request.waived_minor
        connection = await providers.processor_connection(request.processor_connection_id, request.account_id)
        processor = _processor_or_base(connection)
        arrived = MoneyFact.filter(payment_request_id=request.id, kind="CHARGE", outcome="SUCCEEDED")
        paid_on = set(await arrived.values_list("checkout_session_id", flat=True)) if sessions else set()
        # A partly paid checkout asks only for the rest, even if that part was refunded.
        fitting = (one for one in sessions if one.amount_minor == due and one.id not in paid_on)
        session = next((one for one in fitting if _reusable(one, processor, changed.now)), None)
        if session is not None and session.url:
            return Opened(url=session.url, state="open")
        is_new = session is None
        if session is None:
            if not processor.capabilities.cancels_checkouts and any(_payable(one, changed.now) for one in sessions):
                raise errors.ProcessorUnavailable  # both could be paid: wait until this one has ended
            for one in sessions:
                await checkout_closing.expire_later(one)
            session = await _insert_session(request, due, changed.now)
        left_out: dict[str, Any] = dict.fromkeys(without)
        order = replace(await _order(request, session, token, locale), **left_out)
    return _Prepared(connection=connection, session=session, order=order, is_new=is_new)


def _processor_or_base(connection: ProcessorConnection) -> Processor | type[Processor]:
    try:
        return providers.processor(connection)
    except errors.ProcessorUnavailable:
        return Processor  # `_create` reports the error


def _reusable(session: CheckoutSession, processor: Processor | type[Processor], now: datetime) -> bool:
    if session.closing_at is not None:
        return False
    if session.status == "OPENING":
        life = providers.key_life(processor, at_most=KEY_LIFE)
        return session.external_id is None and abs(now - session.created_at) < life
    margin = timedelta(0)  # one that can't be canceled is used until it has ended
    if processor.capabilities.cancels_checkouts:
        margin = min(REUSE_MARGIN, timedelta(seconds=processor.session_life_s / 3))
    return bool(session.url) and (session.expires_at is None or session.expires_at > now + margin)


def _payable(session: CheckoutSession, now: datetime) -> bool:
    if session.status == "OPENING":
        return abs(now - session.created_at) < providers.CALL_LASTS
    return bool(session.url) and (session.expires_at is None or session.expires_at > now - checkout_reads.CLOCKS_DIFFER)


async def _insert_session(request: PaymentRequest, amount_minor: int, now: datetime) -> CheckoutSession:
    newest = await CheckoutSession.filter(payment_request_id=request.id).order_by("-n").first()
    n = newest.n + 1 if newest else 1
    return await CheckoutSession.create(
        id=uuid7(),
        account_id=request.account_id,
        payment_request_id=request.id,
        processor_connection_id=request.processor_connection_id,
        n=n,
        idempotency_key=f"{payment_links.reference(request)}:{n}",
        amount_minor=amount_minor,
        currency=request.currency,
        status="OPENING",
        next_check_at=now + configuration.current().checkout_first_check,
        created_at=now,
        updated_at=now,
    )


async def _order(request: PaymentRequest, session: CheckoutSession, token: str, locale: str | None) -> CheckoutOrder:
    contact = await merged_rows.contact_of(request.account_id, request.contact_id)
    link = payment_links.url_of(token)
    return CheckoutOrder(
        idempotency_key=session.idempotency_key,
        request_reference=payment_links.reference(request),
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


async def _create(prepared: _Prepared) -> Checkout:
    session = prepared.session
    try:
        made = await _processor(prepared.connection).create_checkout(prepared.order)
    except IntegrationError as error:
        log.warning("checkout_create_failed", provider=error.provider, reason=error.reason, ambiguous=error.ambiguous)
        waiting = CheckoutSession.filter(id=session.id, status="OPENING", external_id=None)
        if not error.ambiguous and not error.retryable:
            # A definite refusal creates no object; the next try takes another number.
            await waiting.update(status="ABANDONED", next_check_at=None)
            raise _Refused(error) from error
        await processor_health.note(prepared.connection, f"{error.reason}: {error.message}")
        if error.ambiguous and not prepared.is_new:
            # The vendor replays a failed answer for this key; the next try takes another.
            await waiting.update(status="ABANDONED", next_check_at=None)
        raise errors.ProcessorUnavailable from error
    await processor_health.works(prepared.connection)
    return made


def _processor(connection: ProcessorConnection) -> Processor:
    try:
        return providers.processor(connection)
    except errors.ProcessorUnavailable as error:
        raise IntegrationError(connection.processor, UNUSABLE, error.message) from error


async def _store_answer(found: PaymentRequest, prepared: _Prepared, made: Checkout) -> Opened:
    async with change(found.account_id, actor=actors.contact(found.contact_id), queue_on=[found.id]) as changed:
        request = await request_rows.lock(found.account_id, found.id)
        session = await CheckoutSession.filter(id=prepared.session.id).select_for_update(no_key=True).get()
        if session.external_id not in (None, made.external_id):
            # A webhook of an older attempt claimed this row; the new checkout gets its own.
            await checkout_closing.expire_later(session)
            session = await _insert_session(request, session.amount_minor, changed.now)
        unwanted = session.status == "ABANDONED"  # abandoned before the answer came
        session.external_id, session.expires_at = made.external_id, made.expires_at
        session.url = made.url or session.url
        written = ["external_id", "expires_at", "url", "updated_at"]
        if session.status in ("OPENING", "ABANDONED"):
            session.status, session.next_check_at = "OPEN", changed.now + configuration.current().checkout_first_check
            written += ["status", "next_check_at"]
        await session.save(update_fields=written)
        state = checkout_page.state_of(request)
        if unwanted and state == "open":
            await checkout_closing.expire_later(session)
    if made.status != CheckoutStatus.OPEN or (made.awaits_completion and state == "open" and not unwanted):
        try:
            await captures.record_read(prepared.connection, made, source="return")
        except (IntegrationError, errors.ProcessorUnavailable) as error:
            log.warning("checkout_read_failed", error=type(error).__name__, reason=getattr(error, "reason", None))
    elif state != "open":
        await voids.close_session(session, source="void")
        if request.void_requested_at is not None:
            await voids.finish_void(request.account_id, request.id)
    elif unwanted or session.status != "OPEN":
        raise errors.ProcessorUnavailable
    else:
        return Opened(url=session.url, state="open")
    fresh = await PaymentRequest.get(id=found.id)
    state = await checkout_page.state_now(fresh)
    if state == "open":
        raise errors.ProcessorUnavailable  # it has ended; pressing Pay again opens the next one
    return Opened(url=None, state=state)
