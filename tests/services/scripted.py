"""A processor in memory that tests script: it holds sessions, is paid, declined, cut off before or after it accepted; signs webhooks.

Payers of some vendors only agree (`approve`), and the money moves by `complete_checkout`; links of some others end late (`closes_late`).

It stands where `connections.processor` finds it, so that the services under test are the real ones. `World` is an account around it.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import orjson

from integrations.base import (
    AmountLimits,
    Checkout,
    CheckoutOrder,
    CheckoutStatus,
    Delay,
    Environment,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    MoneyStatement,
    PayloadInvalid,
    Processor,
    ProcessorWebhook,
    RefundOrder,
    SignatureInvalid,
)
from models import database, tables, vault
from services.connections import providers
from services.core import job_runner
from services.core.permissions import Actor
from services.payments import checkout, processor_webhooks
from services.thread import contact_totals, payment_links
from settings import DEMO_KEY
from tests import factories
from tests.configured import configure

SECRET = "whsec_scripted"  # the processor's, from `World.make`
HEADER = "scripted-signature"
_WON = MoneyOutcome.CANCELED  # of a dispute: the money stays
_ARRIVED = (MoneyKind.CHARGE, MoneyOutcome.SUCCEEDED)
_counter = itertools.count(1)


@dataclass
class Session:
    """A checkout at the vendor, with its payments by money id."""

    external_id: str
    order: CheckoutOrder
    status: CheckoutStatus = CheckoutStatus.OPEN
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    expires_at: datetime | None = field(default_factory=lambda: datetime.now(UTC) + timedelta(hours=23))
    money: dict[str, MoneyStatement] = field(default_factory=dict)
    approved: bool = False  # the payer has agreed; the money waits for our capture
    delay: Delay | None = None  # of a payment under way whose money takes days
    deleted: bool = False  # nobody can pay it any more, though it is still OPEN (`closes_late`)


@dataclass(frozen=True)
class Delivery:
    """One signed webhook, to be delivered any number of times, in any order."""

    body: bytes
    headers: Mapping[str, str]


class Scripted(Processor):
    """The vendor. `outbox` holds the webhooks that it has sent; whether they arrive is the test's decision."""

    name: ClassVar[str] = "sandbox"
    display_name: ClassVar[str] = "Scripted"
    credentials: ClassVar[type[Any]] = object

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.keys: dict[str, str] = {}
        self.calls: list[tuple[str, str]] = []
        self.outbox: list[Delivery] = []
        self.undelivered: list[ProcessorWebhook] = []  # what list_events gives
        # For the next calls: "before", "after", "refuse" (or "refuse:reason:field"), "" (none), "busy" (of refunds).
        self.faults: list[str] = []
        self.refund_outcomes: list[MoneyOutcome] = []  # of the next refunds; SUCCEEDED when empty
        self.capture_outcomes: list[str] = []  # of the next: "ok" (when empty), "pending", "failed", "declined"
        self.captures: dict[str, str] = {}  # key of a capture -> its outcome: the same key repeats it
        self.cancels_delayed = False  # whether a delayed payment under way can be made impossible
        self.closes_late = False  # an expired checkout stays OPEN, unpayable, until `cancel`
        self.disputed: dict[str, MoneyOutcome] = {}  # by the charge's id; PENDING, or how it ended
        self.before_call: Callable[[str], Awaitable[None]] | None = None
        self.after_call: Callable[[str], Awaitable[None]] | None = None

    # ---------------------------------------------------------------------------------------------- what contacts do
    def pay(
        self,
        external_id: str,
        *,
        outcome: MoneyOutcome = MoneyOutcome.SUCCEEDED,
        amount_minor: int | None = None,
        currency: str | None = None,
        force: bool = False,
        **more: Any,
    ) -> MoneyStatement | None:
        """Pay on the hosted page; None if the session can't be paid any more (`force`: the vendor takes it all the same)."""
        session = self.sessions[external_id]
        if (session.status != CheckoutStatus.OPEN or session.deleted) and not force:
            return None
        status = {MoneyOutcome.SUCCEEDED: CheckoutStatus.COMPLETED, MoneyOutcome.PENDING: CheckoutStatus.PROCESSING}
        session.status = status.get(outcome, session.status)
        values: dict[str, Any] = {
            "amount_minor": amount_minor or session.order.amount_minor,
            "currency": currency or session.order.currency,
        }
        return self._say(session, f"pay_{next(_counter)}", outcome, "checkout.paid", **values, **more)

    def delay(self, external_id: str, delay: Delay | None = None) -> MoneyStatement | None:
        """Begin a payment whose money takes days."""
        self.sessions[external_id].delay = delay or Delay(method="SEPA Direct Debit")
        return self.pay(external_id, outcome=MoneyOutcome.PENDING)

    def pay_part(self, external_id: str, amount_minor: int, **more: Any) -> MoneyStatement | None:
        """One of several tenders (a gift card, then a card); the page takes the rest until all has come. None: it is closed."""
        session = self.sessions[external_id]
        if session.status != CheckoutStatus.OPEN or session.deleted:
            return None
        charges = [m for m in session.money.values() if m.kind == MoneyKind.CHARGE]
        come = sum(m.amount_minor for m in charges if m.outcome == MoneyOutcome.SUCCEEDED) + amount_minor
        session.status = CheckoutStatus.COMPLETED if come >= session.order.amount_minor else CheckoutStatus.OPEN
        money_id = f"pay_{next(_counter)}"
        return self._say(session, money_id, MoneyOutcome.SUCCEEDED, "checkout.paid", amount_minor=amount_minor, **more)

    def approve(self, external_id: str) -> bool:
        """The payer agrees, and no money moves; its webhook is a hint. False if the session can't be paid any more."""
        session = self.sessions[external_id]
        if session.status != CheckoutStatus.OPEN or session.deleted:
            return False
        session.approved = True
        self.outbox.append(self.event("checkout.approved", session=session, decides=False))
        return True

    def cancel(self, external_id: str) -> None:
        """What was expired late ends now; no webhook tells it."""
        if self.sessions[external_id].status == CheckoutStatus.OPEN:
            self.sessions[external_id].status = CheckoutStatus.EXPIRED

    def decline(self, external_id: str) -> MoneyStatement | None:
        """The card is refused; the session stays open."""
        return self.pay(external_id, outcome=MoneyOutcome.FAILED, failure_code="card_declined")

    def settle(self, external_id: str, *, ok: bool) -> None:
        """An asynchronous payment that was PENDING arrives, or does not."""
        session = self.sessions[external_id]
        charges = {id_: s for id_, s in session.money.items() if s.kind == MoneyKind.CHARGE}
        money_id = next(id_ for id_, s in charges.items() if s.outcome == MoneyOutcome.PENDING)
        outcome = MoneyOutcome.SUCCEEDED if ok else MoneyOutcome.FAILED
        session.status = CheckoutStatus.COMPLETED if ok else CheckoutStatus.FAILED
        self._say(session, money_id, outcome, "checkout.async")

    def lapse(self, external_id: str) -> None:
        """The session's life is over. What was paid in part has ended with that part."""
        session = self.sessions[external_id]
        if session.status == CheckoutStatus.OPEN:
            arrived = any((m.kind, m.outcome) == _ARRIVED for m in session.money.values())
            session.status = CheckoutStatus.COMPLETED if arrived else CheckoutStatus.EXPIRED
            self._send(session, "checkout.expired", None)

    def give_back(self, charge: MoneyStatement, amount_minor: int | None = None, **more: Any) -> MoneyStatement:
        """A refund in the vendor's own dashboard, with its webhook."""
        assert charge.checkout_external_id is not None
        session = self.sessions[charge.checkout_external_id]
        statement = MoneyStatement(
            kind=MoneyKind.REFUND,
            external_id=more.pop("external_id", None) or f"re_{next(_counter)}",
            outcome=more.pop("outcome", MoneyOutcome.SUCCEEDED),
            amount_minor=amount_minor or charge.amount_minor,
            currency=charge.currency,
            checkout_external_id=session.external_id,
            request_reference=session.order.request_reference,
            charge_external_id=charge.external_id,
            occurred_at=datetime.now(UTC),
        )
        session.money[statement.external_id] = statement
        self._send(session, "refund", statement)
        return statement

    def dispute(self, charge: MoneyStatement, outcome: MoneyOutcome = MoneyOutcome.PENDING) -> None:
        """The contact's bank disputes a charge (PENDING), and loses (CANCELED) or wins (SUCCEEDED): its webhook."""
        self.disputed[charge.external_id] = outcome
        statement = replace(
            charge,
            kind=MoneyKind.DISPUTE,
            external_id=f"dp_{charge.external_id}",
            outcome=outcome,
            charge_external_id=charge.external_id,
            fee_minor=None,
            method_summary=None,
        )
        session = self.sessions[charge.checkout_external_id or ""]
        session.money[statement.external_id] = statement
        self._send(session, "dispute", statement)

    def tell_refund(self, statement: MoneyStatement) -> None:
        """A refund of the vendor's book is what this statement says from now on: its webhook."""
        session = self.sessions[statement.checkout_external_id or ""]
        session.money[statement.external_id] = statement
        self._send(session, "refund", statement)

    def left(self, charge: MoneyStatement) -> int:
        """What of a charge can still be given back: neither refunded (or about to be) nor held by a dispute."""
        taken = [r for r in self.refunds() if r.charge_external_id == charge.external_id]
        held = charge.amount_minor if self.disputed.get(charge.external_id, _WON) != _WON else 0
        return charge.amount_minor - held - sum(r.amount_minor for r in taken if r.outcome != MoneyOutcome.FAILED)

    def kept(self, charge: MoneyStatement) -> int:
        """What of a charge the business still has: less what has gone back or was lost."""
        if self.disputed.get(charge.external_id) == MoneyOutcome.SUCCEEDED:
            return 0
        gone = [r for r in self.refunds() if r.charge_external_id == charge.external_id]
        return charge.amount_minor - sum(r.amount_minor for r in gone if r.outcome == MoneyOutcome.SUCCEEDED)

    def refunds(self) -> list[MoneyStatement]:
        """All refunds that the vendor has made."""
        return [m for s in self.sessions.values() for m in s.money.values() if m.kind == MoneyKind.REFUND]

    def _say(self, session: Session, money_id: str, outcome: MoneyOutcome, kind: str, **more: Any) -> MoneyStatement:
        values: dict[str, Any] = {"amount_minor": session.order.amount_minor, "currency": session.order.currency} | more
        statement = MoneyStatement(
            kind=MoneyKind.CHARGE,
            external_id=money_id,
            outcome=outcome,
            checkout_external_id=session.external_id,
            request_reference=session.order.request_reference,
            occurred_at=datetime.now(UTC),
            **values,
        )
        session.money[money_id] = statement
        self._send(session, kind, statement)
        return statement

    def _send(self, session: Session, kind: str, statement: MoneyStatement | None) -> None:
        self.outbox.append(self.event(kind, session=session, statement=statement))

    def event(
        self,
        kind: str,
        *,
        session: Session | None = None,
        statement: MoneyStatement | None = None,
        reference: str | None = None,
        decides: bool = True,
        external_id: str | None = None,
    ) -> Delivery:
        """A signed webhook about a session, a money, or both."""
        money = None
        if statement is not None:
            money = {name: getattr(statement, name) for name in statement.__slots__}
        body = {
            "id": external_id or f"evt_{next(_counter)}",
            "type": kind,
            "decides": decides,
            "session": session.external_id if session else None,
            "status": session.status.value if session else None,
            "reference": reference or (session.order.request_reference if session else None),
            "money": money,
        }
        return signed(orjson.dumps(body))

    # --------------------------------------------------------------------------------------------- the vendor's API
    def amount_limits(self, currency: str) -> AmountLimits | None:
        return AmountLimits(minimum_minor=50, maximum_minor=99_999_999) if currency in ("USD", "EUR", "JPY") else None

    async def check(self) -> str | None:
        return "acct_scripted"

    async def _call(
        self,
        verb: str,
        subject: str,
        work: Callable[[], Session],
        work_says: Callable[[Checkout], Checkout] | None = None,
    ) -> Checkout:
        self.calls.append((verb, subject))
        assert not database.in_transaction(), "a vendor is called while a lock is held"
        if self.before_call is not None:
            await self.before_call(verb)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "before":
            raise IntegrationError(self.name, "connection", retryable=True, ambiguous=verb != "read")
        if fault.startswith("refuse"):
            _, _, words = fault.partition(":")
            reason, _, refused_field = words.partition(":")
            raise IntegrationError(self.name, reason or "refused", field=refused_field or None)
        session = work()
        answer = Checkout(
            external_id=session.external_id,
            status=session.status,
            url=f"https://pay.test/{session.external_id}" if session.status == CheckoutStatus.OPEN else None,
            expires_at=session.expires_at,
            request_reference=session.order.request_reference,
            money=tuple(session.money.values()),
            awaits_completion=session.status == CheckoutStatus.OPEN and session.approved,
            delay=session.delay if session.status == CheckoutStatus.PROCESSING else None,
        )
        if work_says is not None:
            answer = work_says(answer)
        if self.after_call is not None:
            await self.after_call(verb)
        if fault == "after":
            raise IntegrationError(self.name, "timeout", retryable=True, ambiguous=verb != "read")
        return answer

    async def create_checkout(self, order: CheckoutOrder) -> Checkout:
        def work() -> Session:
            known = self.keys.get(order.idempotency_key)
            if known is not None:
                if self.sessions[known].order != order:
                    raise IntegrationError(self.name, "idempotency_conflict")
                return self.sessions[known]
            session = Session(external_id=f"cs_{next(_counter)}", order=order)
            self.sessions[session.external_id] = session
            self.keys[order.idempotency_key] = session.external_id
            return session

        return await self._call("create", order.idempotency_key, work)

    async def read_checkout(self, external_id: str) -> Checkout:
        if external_id not in self.sessions:
            raise IntegrationError(self.name, "not_found")
        return await self._call("read", external_id, lambda: self.sessions[external_id])

    async def expire_checkout(self, external_id: str) -> Checkout:
        def work() -> Session:
            if self.closes_late:
                self.sessions[external_id].deleted = True
            else:
                self.lapse(external_id)
            return self.sessions[external_id]

        return await self._call("expire", external_id, work)

    async def cancel_delayed(self, external_id: str) -> Checkout:
        def work() -> Session:
            session = self.sessions[external_id]
            if session.status == CheckoutStatus.PROCESSING and self.cancels_delayed:
                self.settle(external_id, ok=False)
            return session

        return await self._call("cancel", external_id, work)

    async def complete_checkout(self, external_id: str, *, idempotency_key: str) -> Checkout:
        """Take the money of an approved session: once per session whatever the key; the same key repeats a no."""

        def work() -> Session:
            session = self.sessions[external_id]
            if session.status == CheckoutStatus.OPEN and session.approved and idempotency_key not in self.captures:
                self.captures[idempotency_key] = self.capture_outcomes.pop(0) if self.capture_outcomes else "ok"
                match self.captures[idempotency_key]:
                    case "ok":
                        self.pay(external_id)
                    case "pending":
                        self.pay(external_id, outcome=MoneyOutcome.PENDING)
                    case "failed":
                        session.status = CheckoutStatus.FAILED
                        self.pay(external_id, outcome=MoneyOutcome.FAILED, failure_code="DECLINED", force=True)
                    case _:
                        session.approved = False  # until the payer has chosen another way
            return session

        def no(answer: Checkout) -> Checkout:
            if self.captures.get(idempotency_key) != "declined":
                return answer
            declined = MoneyStatement(
                kind=MoneyKind.CHARGE,
                external_id=f"{external_id}.{idempotency_key}"[-80:],
                outcome=MoneyOutcome.FAILED,
                amount_minor=self.sessions[external_id].order.amount_minor,
                currency=self.sessions[external_id].order.currency,
                checkout_external_id=external_id,
                failure_code="INSTRUMENT_DECLINED",
                occurred_at=datetime.now(UTC),
            )
            return replace(answer, awaits_completion=False, money=(*answer.money, declined))

        return await self._call("complete", idempotency_key, work, no)

    async def list_checkouts(self, since: datetime) -> Sequence[Checkout]:
        """Every session made since then."""
        self.calls.append(("list_checkouts", since.isoformat()))
        fault = self.faults.pop(0) if self.faults else ""
        if fault:
            raise IntegrationError(self.name, fault, retryable=True)
        return [
            Checkout(
                external_id=session.external_id,
                status=session.status,
                expires_at=session.expires_at,
                request_reference=session.order.request_reference,
                money=tuple(session.money.values()),
                awaits_completion=session.status == CheckoutStatus.OPEN and session.approved,
            )
            for session in self.sessions.values()
            if session.created_at >= since
        ]

    async def refund(self, order: RefundOrder) -> MoneyStatement:
        self.calls.append(("refund", order.idempotency_key))
        assert not database.in_transaction(), "a vendor is called while a lock is held"
        if self.before_call is not None:
            await self.before_call("refund")
        fault = self.faults.pop(0) if self.faults else ""
        if fault.startswith("refuse:"):
            raise IntegrationError(self.name, fault.partition(":")[2])
        if fault in ("before", "refuse"):
            raise IntegrationError(self.name, fault, ambiguous=fault == "before", retryable=fault == "before")
        if fault == "busy":
            raise IntegrationError(self.name, "rate_limited", retryable=True)
        if order.idempotency_key not in self.keys:
            sessions = self.sessions.values()
            charge = next(m for s in sessions for m in s.money.values() if m.external_id == order.charge_external_id)
            if order.amount_minor > self.left(charge):
                raise IntegrationError(self.name, "refund_exceeds_charge")
            outcome = self.refund_outcomes.pop(0) if self.refund_outcomes else MoneyOutcome.SUCCEEDED
            made = self.give_back(charge, order.amount_minor, outcome=outcome)
            self.keys[order.idempotency_key] = made.external_id
        if fault == "after":
            raise IntegrationError(self.name, "timeout", retryable=True, ambiguous=True)
        return await self.read_refund(self.keys[order.idempotency_key])

    async def read_refund(self, external_id: str, *, charge_external_id: str | None = None) -> MoneyStatement:
        return next(m for m in self.refunds() if m.external_id == external_id)

    def receive(self, body: bytes, headers: Mapping[str, str], *, now: datetime) -> ProcessorWebhook:
        sent, _, signature = headers.get(HEADER, "").partition(":")
        if not sent.isdigit() or not hmac.compare_digest(_signature(SECRET, sent, body), signature):
            raise SignatureInvalid(self.name)
        if abs(now.timestamp() - int(sent)) > 300:
            raise SignatureInvalid(self.name, "signature_stale")
        return self.parse(body)

    def parse(self, body: bytes) -> ProcessorWebhook:
        try:
            event = orjson.loads(body)
            money = event["money"]
            if money is not None:
                money |= {"kind": MoneyKind(money["kind"]), "outcome": MoneyOutcome(money["outcome"])}
                if money["occurred_at"] is not None:
                    money["occurred_at"] = datetime.fromisoformat(money["occurred_at"])
            return ProcessorWebhook(
                external_id=event["id"],
                type=event["type"],
                created_at=datetime.now(UTC),
                decides=event["decides"],
                money=(MoneyStatement(**money),) if money is not None else (),
                checkout_external_id=event["session"],
                checkout_status=CheckoutStatus(event["status"]) if event["status"] else None,
                request_reference=event["reference"],
                raw=body,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise PayloadInvalid(self.name, "unexpected_shape") from error

    async def list_events(self, since: datetime) -> Sequence[ProcessorWebhook]:
        self.calls.append(("list", since.isoformat()))
        return list(self.undelivered)

    # ------------------------------------------------------------------------------------------------------ questions
    def of_request(self, request: tables.PaymentRequest) -> list[Session]:
        """The vendor's sessions of a request, oldest first."""
        reference = payment_links.reference(request)
        return [s for s in self.sessions.values() if s.order.request_reference == reference]

    def open_sessions(self, request: tables.PaymentRequest) -> list[Session]:
        """Those that can still be paid."""
        return [s for s in self.of_request(request) if s.status == CheckoutStatus.OPEN]

    def keys_of(self, verb: str) -> list[str]:
        """The subjects (keys, ids) of all its calls of this kind."""
        return [subject for call, subject in self.calls if call == verb]

    def received(self, request: tables.PaymentRequest) -> list[MoneyStatement]:
        """The money that arrived for a request."""
        moneys = [m for s in self.of_request(request) for m in s.money.values() if m.kind == MoneyKind.CHARGE]
        return [m for m in moneys if m.outcome == MoneyOutcome.SUCCEEDED]

    def count(self, verb: str) -> int:
        """How often it was called."""
        return sum(1 for call, _ in self.calls if call == verb)


def _signature(secret: str, sent: str, body: bytes) -> str:
    return hmac.new(secret.encode(), sent.encode() + b"." + body, hashlib.sha256).hexdigest()


def signed(body: bytes, *, secret: str = SECRET, at: datetime | None = None) -> Delivery:
    """A body with its signature."""
    sent = str(int((at or datetime.now(UTC)).timestamp()))
    return Delivery(body, {HEADER: f"{sent}:{_signature(secret, sent, body)}"})


# -------------------------------------------------------------------------------------------------------------- world
@dataclass
class World:
    """An account with one agent, one contact and a scripted processor."""

    account: tables.Account
    user: tables.User
    contact: tables.Contact
    connection: tables.ProcessorConnection
    vendor: Scripted
    actor: Actor

    @staticmethod
    async def make() -> World:
        """Configure the services as the application does, and make the rows."""
        vault.open_vault([DEMO_KEY])
        known = providers.live.existing()
        configure(
            environment=Environment(public_url="https://pay.example.test", sandbox_url="http://127.0.0.1:1"),
            reads_per_s=1e6,  # every connection is read here
            page_reads_every=timedelta(0),
        )
        if known is not None:  # a test's other worlds
            of_scripts = {key: entry for key, entry in known.processors.items() if isinstance(entry[1], Scripted)}
            providers.live.get().processors.update(of_scripts)
        account = await factories.account()
        user = await factories.user(account)
        contact = await factories.contact(account)
        await factories.conversation(contact)
        connection = await factories.processor_connection(account)
        vendor = Scripted()
        providers.live.get().processors[connection.id] = (providers.cache_key(connection), vendor)
        actor = Actor(
            account_id=account.id, role="AGENT", user_id=user.id, name=user.name, kind="user", credential="test"
        )
        return World(account, user, contact, connection, vendor, actor)

    async def request(self, **overrides: Any) -> tuple[tables.PaymentRequest, str]:
        """A SENT request of the agent and its link's token."""
        token = factories.token()
        at = factories.now()
        values: dict[str, Any] = {"status": "SENT", "sent_at": at, "sent_via": "MESSAGE", "created_by_id": self.user.id}
        row = await factories.payment_request(self.contact, clear_token=token, **values | overrides)
        await contact_totals.update(self.account.id, self.contact.id)
        return row, token

    async def open(self, token: str) -> str:
        """Press Pay; the id of the vendor's session that the contact is led to."""
        opened = await checkout.open_checkout(token)
        assert opened.url is not None
        return opened.url.rpartition("/")[2]

    async def deliver(self, *deliveries: Delivery) -> None:
        """Let webhooks arrive; all that were sent and have not arrived, if none is named."""
        if not deliveries:
            deliveries, self.vendor.outbox = tuple(self.vendor.outbox), []
        for delivery in deliveries:
            await processor_webhooks.receive("sandbox", self.connection.id, delivery.body, delivery.headers)

    async def run_jobs(self, *, rounds: int = 5) -> int:
        """Run all jobs, those too that are due later; return how many ran."""
        ran = 0
        for _ in range(rounds):
            await database.execute("UPDATE job SET due_at = ? WHERE status = 'queued'", datetime.now(UTC))
            done = await job_runner.Runner().run_due()
            ran += done
            if not done:
                break
        return ran

    # ------------------------------------------------------------------------------------------------------ questions
    async def cards(self, request: tables.PaymentRequest) -> list[str]:
        """The kinds of the request's cards, in the order of the thread."""
        found = await tables.ActivityCard.filter(payment_request_id=request.id).order_by("seq")
        return [card.kind for card in found]

    async def notifications(self) -> list[str]:
        """The kinds of all notifications, oldest first."""
        return [row.kind for row in await tables.Notification.filter(account_id=self.account.id).order_by("seq")]

    async def facts(self, request: tables.PaymentRequest) -> list[tuple[str, str, int]]:
        """Kind, outcome and amount of the request's facts, oldest first."""
        found = await tables.MoneyFact.filter(payment_request_id=request.id).order_by("id")
        return [(fact.kind, fact.outcome, fact.amount_minor) for fact in found]

    async def status(self, request: tables.PaymentRequest) -> str:
        """As it is now."""
        return (await self.fresh(request)).status

    async def fresh(self, request: tables.PaymentRequest) -> tables.PaymentRequest:
        """The row as it is now."""
        return await tables.PaymentRequest.get(id=request.id)


async def assert_consistent(account_id: UUID) -> None:
    """What holds after every transaction: totals as recomputed, a log without holes, cards and facts that agree."""
    for contact in await tables.Contact.filter(account_id=account_id, merged_into_id=None):
        recomputed = await contact_totals.recompute(account_id, contact.id)
        stored = {
            (row.currency, row.test_mode): {name: getattr(row, name) for name in contact_totals.ZERO}
            for row in await tables.ContactSummary.filter(contact_id=contact.id)
        }
        empty = dict.fromkeys(stored | recomputed, contact_totals.ZERO)
        assert empty | stored == empty | recomputed
    numbers = [
        row["seq"] for row in await database.rows("SELECT seq FROM event WHERE account_id = ? ORDER BY seq", account_id)
    ]
    head = (await tables.Account.get(id=account_id)).event_seq
    assert numbers == list(range(1, head + 1))
