"""The contact's side: find a request by its link, show it, open a checkout at the processor, come back. Reading never changes anything.

The link never expires, checkouts do: pressing Pay reuses the open one or makes a new one with a key that was stored before the call.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from tortoise.expressions import Q

from integrations.base import (
    OPTIONAL_FIELDS,
    Checkout,
    CheckoutOrder,
    CheckoutStatus,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    Processor,
)
from models import errors, ledger, vault
from models.ids import uuid7
from models.ledger import CardKind, Status
from models.money import Money
from models.tables import (
    Account,
    CheckoutSession,
    MoneyFact,
    PaymentRequest,
    ProcessorConnection,
)
from services.connections import processor_health, providers
from services.core import configuration, jobs, merged_rows
from services.core.unit_of_work import change
from services.payments import captures, checkout_refusals, payment_views, projection, voids
from services.payments.payment_views import PaymentView
from services.thread import activity_cards, contact_totals, notifications, payment_links

log = structlog.get_logger(__name__)

REUSE_MARGIN = timedelta(minutes=10)  # a checkout that ends sooner is replaced
KEY_LIFE = timedelta(minutes=10)  # vendors forget keys (after hours): an older one might make a second object
VIEW_AGAIN = timedelta(seconds=60)  # a look so soon after the last is a reload, not another view
ANSWER_WITHIN_S = 4.0  # how long a page waits for a processor's answer about a checkout
LEFT_ALONE_S = 10.0  # after a processor did not answer a page, none of its checkouts is read for a page
LEFT_ALONE_MOST_S = 300.0  # whatever its Retry-After says
CLOSE_WITHIN_S = 3.0
UNUSABLE = "connection_unusable"  # reason of a connection whose processor this process can't make
TRIES = 2 + len(OPTIONAL_FIELDS)  # to open a checkout at one press
CLOCKS_DIFFER = timedelta(minutes=1)  # of two processes, at most
_readings: set[asyncio.Task[None]] = set()
_silent_until: dict[UUID, float] = {}  # by connection, in monotonic seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutPage:
    """What the page behind the link shows. `state`: open, processing, review, paid, void."""

    request: PaymentRequest
    account: Account
    connection: ProcessorConnection
    state: str
    due: Money
    asked: Money
    paid: Money
    last_attempt_failed: bool
    receipt: PaymentView | None  # the newest counted charge
    received: tuple[Money, ...]  # by currency: what counts, and on an unpaid request what waits for a decision
    methods: tuple[str, ...]  # how the receipt's charge was paid, and others on the same checkout
    processor_name: str
    origins: tuple[str, ...]  # where Pay may lead
    under_way: CheckoutSession | None  # whose money is under way
    releasable: bool  # it takes days: the contact may pay another way


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
    """open, processing, review, paid or void, as the contact sees it. review: money that arrived waits for the team's decision."""
    if request.status == Status.PAID:
        return "paid"
    if request.status == Status.VOID:
        return "void"
    held = request.status == Status.PROCESSING and request.released_at is None
    if held or request.void_requested_at is not None:
        return "processing"
    return "review" if request.unresolved else "open"


async def state_now(request: PaymentRequest) -> str:
    """As `state_of`; while the money of an approved checkout is being taken, it is processing, too."""
    state = state_of(request)
    if state != "open":
        return state
    return "processing" if await captures.is_under_way(request.id) else "open"


async def page(request: PaymentRequest) -> CheckoutPage:
    """Everything that the page shows. Reads only."""
    account = await Account.get(id=request.account_id)
    connection = await providers.processor_connection(request.processor_connection_id, request.account_id)
    views = (await payment_views.payments(account.id, [request.id]))[request.id]
    charges = [view for view in views if view.kind == "CHARGE" and view.status == "SUCCEEDED"]
    counted = [view for view in charges if view.counted]
    try:
        processor = providers.processor(connection)
        name = processor.display_name
        origins = (*processor.checkout_origins, *await _own_origins(request, connection))
    except errors.ProcessorUnavailable:
        # Closed by the settings: the contact's receipt is still theirs to see.
        name, origins = connection.display_name, ()
    return CheckoutPage(
        request=request,
        account=account,
        connection=connection,
        state=await state_now(request),
        due=Money(max(0, request.amount_minor - request.amount_paid_minor - request.waived_minor), request.currency),
        asked=Money(request.amount_minor, request.currency),
        paid=Money(request.amount_paid_minor, request.currency),
        last_attempt_failed=request.last_attempt_status in ("FAILED", "CANCELED") and request.status in ledger.OPEN,
        receipt=counted[-1] if counted else None,
        received=_received(counted if request.status == Status.PAID else charges),
        methods=_methods(counted),
        processor_name=name,
        origins=origins,
        under_way=await _under_way(request),
        releasable=projection.is_releasable(request),
    )


async def _under_way(request: PaymentRequest) -> CheckoutSession | None:
    """The checkout whose money is under way: the one that holds the link, else the newest."""
    if request.status != Status.PROCESSING:
        return None
    sessions = await CheckoutSession.filter(payment_request_id=request.id, status="PROCESSING").order_by("-n")
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
    """Where the vendor's own answers lead: an account may have its checkout on a domain of its own.

    Of this request's checkouts, and of the connection's newest, which tells before the first one of this request.
    """
    made = CheckoutSession.filter(processor_connection_id=connection.id, url__not_isnull=True)
    newest = await made.order_by("-id").limit(1).values_list("url", flat=True)
    own = await made.filter(payment_request_id=request.id).order_by("-n").limit(5).values_list("url", flat=True)
    found = (origin_of(str(url)) for url in [*own, *newest])
    return [origin for origin in dict.fromkeys(found) if origin is not None]


async def declared_origins(request: PaymentRequest) -> tuple[str, ...]:
    """Where the processor's checkouts are, but for those on an account's own domain. Raises: ProcessorUnavailable."""
    connection = await providers.processor_connection(request.processor_connection_id, request.account_id)
    return providers.processor(connection).checkout_origins


def origin_of(url: str) -> str | None:
    """The origin of an https address, fit for a policy; None for any other."""
    found = re.match(
        r"https://([a-z0-9](?:[a-z0-9.-]{0,250}[a-z0-9])?(?::[0-9]{1,5})?)(?:[/?#]|$)", url, re.ASCII | re.IGNORECASE
    )
    return f"https://{found[1].lower()}" if found else None


async def open_checkout(token: str, *, locale: str | None = None) -> Opened:
    """Pay was pressed: reuse the open checkout or make a new one; state instead of a url when there is nothing to pay.

    An optional field of the order that the processor refuses (an e-mail address, say) is left out of a next try. A definite refusal is
    reported to the team, once per cause.
    Raises: NotFound, ProcessorUnavailable, ProcessorRejected. Key: `request:n`, stored before the call: a repeat gets the same object.
    """
    found = await find(token)
    if found is None:
        raise errors.NotFound
    found = await refresh(found)  # so that Pay does not lead to a page that has ended
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
                await checkout_refusals.tell(prepared.connection, prepared.session, error)
                if error.reason == UNUSABLE:
                    raise ConnectionUnusable from refused
                raise
            # Otherwise the key belongs to an attempt that was made with other words (another language, say): take the next one.
        else:
            return await _keep(found, prepared, made)
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
    """A checkout whose key is stored, ready to be made at its processor."""

    connection: ProcessorConnection
    session: CheckoutSession
    order: CheckoutOrder
    is_new: bool  # False: its key was tried before


async def _prepare(
    found: PaymentRequest, token: str, locale: str | None, *, without: Collection[str]
) -> _Prepared | Opened:
    """In one transaction: may it be paid, which checkout, under which key. `without`: fields of the order that are left out."""
    async with change(found.account_id, rows=[found.id]) as changed:
        request = await PaymentRequest.filter(id=found.id).select_for_update(no_key=True).get()
        if request.discarded_at is not None:
            raise errors.NotFound
        if state_of(request) != "open":
            return Opened(url=None, state=state_of(request))
        live = CheckoutSession.filter(payment_request_id=request.id, status__in=["OPENING", "OPEN"])
        sessions = await live.order_by("-n")
        if any(one.capturing_at is not None for one in sessions):
            return Opened(url=None, state="processing")
        due = request.amount_minor - request.amount_paid_minor - request.waived_minor
        connection = await providers.processor_connection(request.processor_connection_id, request.account_id)
        processor = _offers(connection)
        arrived = MoneyFact.filter(payment_request_id=request.id, kind="CHARGE", outcome="SUCCEEDED")
        paid_on = set(await arrived.values_list("checkout_session_id", flat=True)) if sessions else set()
        # One that was paid in part asks for the rest only, whatever became of that part.
        fitting = (one for one in sessions if one.amount_minor == due and one.id not in paid_on)
        session = next((one for one in fitting if _reusable(one, processor, changed.now)), None)
        if session is not None and session.url:
            return Opened(url=session.url, state="open")
        is_new = session is None
        if session is None:
            if not processor.capabilities.cancels_checkouts and any(_payable(one, changed.now) for one in sessions):
                raise errors.ProcessorUnavailable  # two could be paid: the next one waits until this one has ended
            for one in sessions:
                await projection.expire_later(one)
            session = await _insert(request, due, changed.now)
        left_out: dict[str, Any] = dict.fromkeys(without)
        order = replace(await _order(request, session, token, locale), **left_out)
    return _Prepared(connection=connection, session=session, order=order, is_new=is_new)


def _offers(connection: ProcessorConnection) -> Processor | type[Processor]:
    """What tells the capabilities of a connection; the base class where this process can't make it, which `_create` then tells."""
    try:
        return providers.processor(connection)
    except errors.ProcessorUnavailable:
        return Processor


def _reusable(session: CheckoutSession, processor: Processor | type[Processor], now: datetime) -> bool:
    """Whether an open checkout can be paid on, or its creation repeated with its key.

    One that soon ends is replaced, if it can be canceled; else it is paid on until it has ended.
    """
    if session.closing_at is not None:
        return False
    if session.status == "OPENING":
        life = providers.key_life(processor, at_most=KEY_LIFE)
        return session.external_id is None and abs(now - session.created_at) < life
    margin = timedelta(0)
    if processor.capabilities.cancels_checkouts:
        margin = min(REUSE_MARGIN, timedelta(seconds=processor.session_life_s / 3))
    return bool(session.url) and (session.expires_at is None or session.expires_at > now + margin)


def _payable(session: CheckoutSession, now: datetime) -> bool:
    """Whether a checkout that can't be canceled may still be paid, for all we know. One that is being opened may be soon."""
    if session.status == "OPENING":
        return abs(now - session.created_at) < providers.CALL_LASTS
    return bool(session.url) and (session.expires_at is None or session.expires_at > now - CLOCKS_DIFFER)


async def _insert(request: PaymentRequest, amount_minor: int, now: datetime) -> CheckoutSession:
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
    """Call the processor. Raises: ProcessorUnavailable, _Refused."""
    session = prepared.session
    try:
        made = await _processor(prepared.connection).create_checkout(prepared.order)
    except IntegrationError as error:
        log.warning("checkout_create_failed", provider=error.provider, reason=error.reason, ambiguous=error.ambiguous)
        waiting = CheckoutSession.filter(id=session.id, status="OPENING", external_id=None)
        if not error.ambiguous and not error.retryable:
            # A definite no leaves no object behind: this number is used up.
            await waiting.update(status="ABANDONED", next_check_at=None)
            raise _Refused(error) from error
        await processor_health.note(prepared.connection, f"{error.reason}: {error.message}")
        if error.ambiguous and not prepared.is_new:
            # The vendor replays a failed answer for this key: the next attempt takes another one.
            await waiting.update(status="ABANDONED", next_check_at=None)
        raise errors.ProcessorUnavailable from error
    await processor_health.works(prepared.connection)
    return made


def _processor(connection: ProcessorConnection) -> Processor:
    """The live processor. Raises: IntegrationError, also where this process can't make it: pressing Pay again does not help then."""
    try:
        return providers.processor(connection)
    except errors.ProcessorUnavailable as error:
        raise IntegrationError(connection.processor, UNUSABLE, error.message) from error


async def _keep(found: PaymentRequest, prepared: _Prepared, made: Checkout) -> Opened:
    """Store what the processor made; what can't or must not be paid any more by now is closed at once."""
    async with change(found.account_id, rows=[found.id]) as changed:
        request = await PaymentRequest.filter(id=found.id).select_for_update(no_key=True).get()
        session = await CheckoutSession.filter(id=prepared.session.id).select_for_update(no_key=True).get()
        if session.external_id not in (None, made.external_id):
            # A webhook of an older attempt took this row meanwhile: what was made now gets a row of its own.
            await projection.expire_later(session)
            session = await _insert(request, session.amount_minor, changed.now)
        unwanted = session.status == "ABANDONED"  # given up while the answer was on its way
        session.external_id, session.expires_at = made.external_id, made.expires_at
        session.url = made.url or session.url
        written = ["external_id", "expires_at", "url", "updated_at"]
        if session.status in ("OPENING", "ABANDONED"):
            session.status, session.next_check_at = "OPEN", changed.now + configuration.current().checkout_first_check
            written += ["status", "next_check_at"]
        await session.save(update_fields=written)
        state = state_of(request)
        if unwanted and state == "open":
            await projection.expire_later(session)
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
    now = await PaymentRequest.get(id=found.id)
    state = await state_now(now)
    if state == "open":
        raise errors.ProcessorUnavailable  # this checkout has ended; pressing Pay again makes the next one
    return Opened(url=None, state=state)


async def refresh(request: PaymentRequest, *, came_back: bool = False) -> PaymentRequest:
    """Read the newest checkout again if it may have ended at its processor; the request as it is then.

    Released ones are read with it: their money may have arrived, and then nothing is to be paid another way.
    The processor is asked at most once in `page_reads_every` per checkout; the first return of the contact (`came_back`)
    is always worth a read. After ANSWER_WITHIN_S the caller goes on with what is known, and the read ends by itself.
    """
    if request.status in (Status.PAID, Status.VOID):
        return request
    live = CheckoutSession.filter(payment_request_id=request.id, status__in=["OPEN", "PROCESSING"])
    sessions = await live.filter(external_id__not_isnull=True).order_by("-n")
    asked = [one for one in sessions[:1] if await _claim_read(one, came_back=came_back)]
    asked += [one for one in sessions[1:] if one.released_at is not None and await _claim_read(one, came_back=False)]
    if not asked:
        return request
    readings = {asyncio.create_task(_read(session), name="checkout read"): session for session in asked}
    for reading in readings:
        _readings.add(reading)
        reading.add_done_callback(_read_ended)
    await asyncio.wait(readings, timeout=ANSWER_WITHIN_S)
    for reading, session in readings.items():
        if reading.done():
            reading.result()
        else:
            log.warning("checkout_read_slow", checkout_session_id=str(session.id))
            _silent_until[session.processor_connection_id] = time.monotonic() + LEFT_ALONE_S
    return await PaymentRequest.get(id=request.id)


async def _claim_read(session: CheckoutSession, *, came_back: bool) -> bool:
    """Whether this caller reads the checkout now. Only one of several at once does."""
    now = datetime.now(UTC)
    rested = Q(read_at=None) | Q(read_at__lte=now - configuration.current().page_reads_every)
    rested |= Q(read_at__gt=now + CLOCKS_DIFFER)  # a clock was wrong then
    if came_back and await CheckoutSession.filter(id=session.id, returned_at=None).update(
        returned_at=now, next_check_at=now + configuration.current().checkout_first_check, read_at=now
    ):
        return True
    if _silent_until.get(session.processor_connection_id, 0.0) > time.monotonic():
        return False
    return bool(await CheckoutSession.filter(rested, id=session.id).update(read_at=now))


async def _read(session: CheckoutSession) -> None:
    """Read a checkout for a page. One that nobody can pay any more, though it has not ended, is closed."""
    try:
        state = await read_back(session, source="return")
    except (IntegrationError, errors.ProcessorUnavailable) as error:
        log.warning("checkout_read_failed", error=type(error).__name__, reason=getattr(error, "reason", None))
        if isinstance(error, IntegrationError) and error.retryable:
            rest_s = min(max(error.retry_after_s or 0.0, LEFT_ALONE_S), LEFT_ALONE_MOST_S)
            _silent_until[session.processor_connection_id] = time.monotonic() + rest_s
        return
    unpayable = state.status == CheckoutStatus.OPEN and state.url is None and not state.awaits_completion
    if unpayable and await captures.block(session) is None:
        await projection.expire_later(session)


def _read_ended(reading: asyncio.Task[None]) -> None:
    _readings.discard(reading)
    if not reading.cancelled() and (error := reading.exception()) is not None:  # its page may not wait any more
        log.error("checkout_read_broke", error=type(error).__name__)


async def aclose() -> None:
    """Give the reads that are under way a moment, then end them; the sweeper reads these checkouts again."""
    readings = set(_readings)
    if readings:
        await asyncio.wait(readings, timeout=CLOSE_WITHIN_S)
        for reading in readings:
            reading.cancel()
        await asyncio.gather(*readings, return_exceptions=True)


async def returned(token: str) -> None:
    """The contact came back from the processor: ask it what happened. The page never decides; no answer leaves it to the sweeper."""
    request = await find(token)
    if request is not None:
        await refresh(request, came_back=True)


async def read_back(session: CheckoutSession, *, source: str) -> Checkout:
    """Read the checkout at its processor, record what it says, take its money if only our call is missing; the state after that.

    Raises: IntegrationError, ProcessorUnavailable.
    """
    assert session.external_id is not None  # noqa: S101 (the callers choose such rows)
    connection = await providers.processor_connection(session.processor_connection_id, session.account_id)
    try:
        state = await providers.processor(connection).read_checkout(session.external_id)
    except IntegrationError as error:
        await processor_health.refused(connection, error)
        raise
    await processor_health.answered(connection)
    return (await captures.record_read(connection, state, source=source)).state


async def record_view(token: str, *, human: bool) -> None:
    """The page's script says that somebody looks. A person's first look at a copied link makes a DRAFT SENT."""
    found = await find(token)
    if found is None or not human:
        return
    async with change(found.account_id, rows=[found.id]) as changed:
        request = await PaymentRequest.filter(id=found.id).select_for_update(no_key=True).get()
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
        if sent:
            request.status = Status.SENT.value
            request.sent_at, request.sent_via = changed.now, "LINK_COPIED"
            written += ["status", "sent_at", "sent_via"]
        await request.save(update_fields=written)
        if sent:
            await contact_totals.lock_contact(request.account_id, request.contact_id)
            card = await changed.log_card(
                request,
                CardKind.PAYMENT_REQUEST,
                text=activity_cards.asked(request, await changed.locale()),
                key=str(request.id),
            )
            await contact_totals.update(request.account_id, request.contact_id)
            changed.event("contact.updated", conversation_id=request.conversation_id, contact_id=request.contact_id)
            changed.request_event("sent", request, previous_status=before, card_id=card.id if card else None)
        changed.request_event("viewed", request, previous_status=before)


@jobs.handler("checkout.read_back", on_dead="sweeper.checkouts reads paid checkouts again")
async def _read_back_job(job: jobs.JobContext) -> None:
    """After a webhook said paid: read the object; if it does not say so, tell the team. Key: the fact."""
    session = await CheckoutSession.get(id=UUID(job.payload["session_id"]))
    if session.external_id is None:
        return
    state = await read_back(session, source="sweeper")
    fact = await MoneyFact.get(id=UUID(job.payload["fact_id"]))
    confirmed = any(
        (said.kind, said.outcome, said.external_id) == (MoneyKind.CHARGE, MoneyOutcome.SUCCEEDED, fact.external_id)
        for said in state.money
    )
    if state.status == CheckoutStatus.COMPLETED or confirmed:  # a part of what is asked may have been paid so far
        return
    log.error("read_back_disagrees", checkout_session_id=str(session.id), status=state.status.value)
    async with change(session.account_id, rows=[session.payment_request_id]) as changed:
        request = await PaymentRequest.filter(id=session.payment_request_id).select_for_update(no_key=True).get()
        kind, text = CardKind.PAYMENT_MISMATCH, activity_cards.unconfirmed(request, state=state.status.value)
        key = f"read_back:{job.payload['fact_id']}"
        card = await changed.log_card(request, kind, text=text, key=key, money_fact_id=UUID(job.payload["fact_id"]))
        if card is None:
            return
        await notifications.notify(changed, request, kind, title=activity_cards.TITLES[kind], body=text, cause_key=key)
        request.version += 1
        await request.save(update_fields=["version", "updated_at"])
        changed.request_event("payment_mismatch", request, previous_status=request.status, card_id=card.id)
