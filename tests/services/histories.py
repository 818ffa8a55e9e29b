"""Histories of one request: everything that can happen at the processor, at the team's and on the way, and what must hold of it.

A history is a list of (act, number); the number chooses the page, the payment, the amount. The vendor's own book says what must come
out; a clock that is moved lets time pass. Short forms are in test_histories.py, thousands of them in `./dev chaos`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final

from integrations.base import CheckoutStatus, MoneyOutcome, MoneyStatement
from models import database, errors, ledger
from models.ids import uuid7
from models.tables import (
    ActivityCard,
    CheckoutSession,
    MoneyFact,
    Notification,
    PaymentRequest,
    ProcessorConnection,
    ProcessorEvent,
    Refund,
)
from services.core import jobs
from services.payments import (
    checkout,
    checkout_reads,
    integrity_check,
    link_releases,
    mismatches,
    offline_payments,
    payment_views,
    processor_webhooks,
    refund_outcomes,
    refunds,
    sweeper,
    voids,
)
from tests.clock import Clock, moved
from tests.services.figures_book import assert_figures
from tests.services.scripted import Delivery, World, assert_consistent, signed

History = Sequence[tuple[str, int]]

# How often each act is chosen, among 100 or so.
ACTS: Final = {
    "open": 14,
    "pay": 12,
    "approve": 6,
    "decline": 3,
    "debit": 4,
    "voucher": 4,
    "release": 4,
    "debit arrives": 3,
    "debit fails": 2,
    "wrong amount": 2,
    "too much": 2,
    "wrong currency": 1,
    "part": 4,
    "rest": 4,
    "resolve": 6,
    "pay twice": 3,
    "second device": 4,
    "lapse": 2,
    "return": 4,
    "refund": 5,
    "refund too much": 2,
    "refund at the vendor": 4,
    "refund under way": 3,
    "refund decided": 4,
    "dispute": 3,
    "dispute won": 2,
    "dispute lost": 2,
    "cash": 4,
    "cash for all": 1,
    "undo cash": 4,
    "void": 6,
    "deliver": 12,
    "drop": 3,
    "jobs": 6,
    "sweep": 6,
    "cut before": 3,
    "cut after": 3,
    "refused": 2,
    "minute": 3,
    "hour": 3,
    "day": 2,
}
CHOICES: Final = tuple(name for name, weight in ACTS.items() for _ in range(weight))
PROFILES: Final = {"webhooks and sweeper": (True, True), "webhooks only": (True, False), "sweeper only": (False, True)}
ABOUT_MONEY: Final = ("PAYMENT_RECEIVED", "PARTIAL_PAYMENT", "EXCESS_PAYMENT", "LATE_PAYMENT", "PAYMENT_MISMATCH")
ROUNDS: Final = 12  # until nothing is on its way any more; a refund that nobody finds is given up after seven looks

_keys = itertools.count(1)


def chosen_by(seed: int) -> list[tuple[str, int]]:
    """The history of a seed."""
    rng = random.Random(seed)
    return [(rng.choice(CHOICES), rng.randrange(8)) for _ in range(rng.randrange(6, 26))]


@dataclass
class Life:
    """One request, the pages that its contact was led to, and what the profile lets arrive."""

    world: World
    request: PaymentRequest
    token: str
    webhooks: bool
    sweeps: bool
    clock: Clock
    led: list[str] = field(default_factory=list)
    lost: list[Delivery] = field(default_factory=list)  # that the vendor could not deliver: its list has them
    arrived: set[str] = field(default_factory=set)  # ids of events that were taken with 2xx
    forced: bool = False  # the vendor took money on a page that was paid already
    released: bool = False  # the link was freed while money was under way, which may arrive at any time
    by_hand: dict[Any, int] = field(default_factory=dict)  # what is recorded as cash and not undone
    accepted: set[str] = field(default_factory=set)  # ids of charges that the team accepted
    waived: int = 0
    seen: dict[Any, tuple[Any, ...]] = field(default_factory=dict)  # facts and cards as they were first read
    last: PaymentRequest | None = None  # the request as it was last read

    # --------------------------------------------------------------------------------------------------------- acts
    async def act(self, name: str, n: int) -> None:
        """Let one thing happen."""
        team: dict[str, Callable[[int], Awaitable[None]]] = {
            "open": self.open,
            "second device": self.second_device,
            "void": self.void,
            "release": self.release,
            "refund": self.refund,
            "refund too much": self.refund_too_much,
            "cash": self.cash,
            "cash for all": self.cash,
            "undo cash": self.undo_cash,
            "resolve": self.resolve,
        }
        if name in team:
            await team[name](n if name != "cash for all" else -1)
        elif name == "return":
            await checkout_reads.returned(self.token)
        elif name == "deliver" and self.webhooks:
            await self.deliver(n)
        elif name == "drop" and self.sweeps:
            self.drop(n)
        elif name == "jobs":
            await self.world.run_jobs(rounds=1)
        elif name == "sweep" and self.sweeps:
            await self.sweep()
        elif name in ("cut before", "cut after", "refused"):
            self.world.vendor.faults = [{"cut before": "before", "cut after": "after", "refused": "refuse"}[name]]
        elif name in ("minute", "hour", "day"):
            self.wait({"minute": timedelta(minutes=2), "hour": timedelta(hours=1), "day": timedelta(hours=25)}[name])
        elif self.led:
            self.at_the_vendor(name, n)

    async def open(self, n: int) -> None:
        """Press Pay."""
        with suppress(errors.ProcessorUnavailable, errors.ProcessorRejected):
            opened = await checkout.open_checkout(self.token)
            if opened.url is not None:
                self.led.append(opened.url.rpartition("/")[2])

    async def second_device(self, n: int) -> None:
        """Press Pay on two devices at once, and pay on both where that is possible."""
        before = len(self.led)
        await asyncio.gather(self.open(n), self.open(n))
        for page in self.led[before:]:
            self.world.vendor.pay(page)

    async def void(self, n: int) -> None:
        """The agent voids, mostly also what is paid in part."""
        refused = (errors.AlreadyPaid, errors.AlreadyVoid, errors.PaymentInProgress, errors.ConfirmationRequired)
        with suppress(*refused):
            await voids.void(self.world.actor, payment_request_id=self.request.id, confirm_partially_paid=n > 0)

    async def release(self, n: int) -> None:
        """The contact (n below 3) or the agent frees the link of what takes days; of some vouchers the vendor can make an end (n even)."""
        self.world.vendor.cancels_delayed = n % 2 == 0
        refused = (errors.AlreadyPaid, errors.AlreadyVoid, errors.PaymentInProgress, errors.Invalid)
        with suppress(*refused, errors.ProcessorUnavailable):
            if n < 3:
                await link_releases.release_by_contact(await self.world.fresh(self.request))
            else:
                key = f"release-of-history-{next(_keys)}"
                await link_releases.release(self.world.actor, payment_request_id=self.request.id, idempotency_key=key)
            self.released = True

    async def refund(self, n: int) -> None:
        """Give back a part (n even: all that is left) of one of the payments that we know of."""
        if n > 5:
            self.world.vendor.refund_outcomes = [MoneyOutcome.PENDING]
        views = (await payment_views.payments(self.world.account.id, [self.request.id]))[self.request.id]
        charges = [view for view in views if view.kind == "CHARGE" and view.connection_id is not None]
        if charges:
            await self._refund(charges[n % len(charges)].id, None if n % 2 == 0 else f"{(n + 1) * 10}.00")
        self.world.vendor.refund_outcomes = []

    async def _refund(self, payment_id: Any, amount: str | None) -> None:
        refused = (
            *(errors.NotRefundable, errors.RefundExceedsPayment, errors.ProcessorRejected),
            errors.ProcessorUnavailable,
        )
        with suppress(*refused):
            await refunds.refund(
                replace(self.world.actor, role="ADMIN"),
                payment_id=payment_id,
                amount=amount,
                reason="DUPLICATE",
                tell_contact_on=None,
                idempotency_key=f"refund-of-history-{next(_keys)}",
            )

    async def refund_too_much(self, n: int) -> None:
        """More than is left is refused, whatever has been given back before."""
        views = (await payment_views.payments(self.world.account.id, [self.request.id]))[self.request.id]
        charges = [view for view in views if view.kind == "CHARGE" and view.connection_id is not None]
        if not charges:
            return
        charge = charges[n % len(charges)]
        left = payment_views.refundable(views).get(charge.id, 0)
        before, calls = await Refund.all().count(), self.world.vendor.count("refund")
        await self._refund(charge.id, f"{(left + 1) / 100:.2f}")
        assert (await Refund.all().count(), self.world.vendor.count("refund")) == (before, calls)

    async def cash(self, n: int) -> None:
        """Record cash: a part, or all that is due (n < 0)."""
        with suppress(errors.AlreadyPaid, errors.AlreadyVoid, errors.PaymentInProgress, errors.AmountTooLarge):
            recorded = await offline_payments.record(
                self.world.actor,
                payment_request_id=self.request.id,
                method="CASH",
                amount=None if n < 0 else f"{(n + 1) * 10}.00",
                idempotency_key=f"cash-of-history-{next(_keys)}",
            )
            self.by_hand[recorded.payment.id] = recorded.payment.amount_minor

    async def resolve(self, n: int) -> None:
        """Decide about the money that does not count."""
        before = await self.world.fresh(self.request)
        views = (await payment_views.payments(self.world.account.id, [self.request.id]))[self.request.id]
        waiting = [view for view in views if view.unresolved_minor]
        came = sum(view.amount_minor for view in waiting if view.currency == before.currency)
        over = sum(view.unresolved_minor for view in waiting) - self.due(before)
        resolution = ("ACCEPT_AS_PAID", "ACCEPT_AS_PART", "REFUND_DIFFERENCE")[n % 3]
        refused = (errors.AlreadyVoid, errors.PaymentInProgress, errors.NothingToResolve, errors.ResolutionNotPossible)
        with suppress(*refused):
            done = await mismatches.resolve(
                replace(self.world.actor, role="ADMIN"),
                payment_request_id=self.request.id,
                resolution=resolution,
                idempotency_key=f"resolve-of-history-{next(_keys)}",
            )
            self.accepted |= {view.processor_reference for view in waiting}
            self.waived += 0 if resolution == "ACCEPT_AS_PART" else max(0, self.due(before) - came)
            assert done.request.status == ("PARTIALLY_PAID" if resolution == "ACCEPT_AS_PART" else "PAID")
            assert (done.refund is not None) == (resolution == "REFUND_DIFFERENCE")
            assert resolution != "REFUND_DIFFERENCE" or over > 0
            assert resolution != "ACCEPT_AS_PART" or came < self.due(before)

    @staticmethod
    def due(request: PaymentRequest) -> int:
        return max(0, request.amount_minor - request.amount_paid_minor - request.waived_minor)

    async def undo_cash(self, n: int) -> None:
        """Take one of the records back."""
        if self.by_hand:
            payment_id = list(self.by_hand)[n % len(self.by_hand)]
            await offline_payments.undo(self.world.actor, payment_id=payment_id)
            del self.by_hand[payment_id]

    def at_the_vendor(self, name: str, n: int) -> None:
        """What a contact, the contact's bank or somebody at the vendor's dashboard does."""
        vendor = self.world.vendor
        page = vendor.sessions[self.led[n % len(self.led)]]
        simple: dict[str, Callable[[], object]] = {
            "pay": lambda: vendor.pay(page.external_id),
            "approve": lambda: self.approve(page.external_id, n),
            "decline": lambda: vendor.decline(page.external_id),
            "voucher": lambda: vendor.delay(page.external_id),
            "debit": lambda: vendor.pay(page.external_id, outcome=MoneyOutcome.PENDING),
            "wrong amount": lambda: vendor.pay(page.external_id, amount_minor=99 + n),
            "too much": lambda: vendor.pay(page.external_id, amount_minor=page.order.amount_minor + 60 * (n + 1)),
            "wrong currency": lambda: vendor.pay(page.external_id, currency="EUR"),
            "part": lambda: vendor.pay_part(page.external_id, min(1000 * (n + 1), page.order.amount_minor - 1)),
            "rest": lambda: self.rest(page.external_id),
            "lapse": lambda: vendor.lapse(page.external_id),
        }
        charges = vendor.received(self.request)
        if name in simple:
            simple[name]()
        elif name.startswith("debit") and page.status == CheckoutStatus.PROCESSING:
            vendor.settle(page.external_id, ok=name == "debit arrives")
        elif name == "pay twice" and page.status == CheckoutStatus.COMPLETED:
            vendor.pay(page.external_id, force=True)
            self.forced = True
        elif name == "refund decided":
            self.decide_refund(n)
        elif charges:
            self.about(charges[n % len(charges)], name, n)

    def rest(self, page: str) -> None:
        """The payer pays what is left of a page that was paid in part."""
        session = self.world.vendor.sessions[page]
        left = session.order.amount_minor - sum(said.amount_minor for said in self.arrived_on(page))
        if 0 < left < session.order.amount_minor:
            self.world.vendor.pay_part(page, left)

    def arrived_on(self, page: str) -> list[MoneyStatement]:
        return [said for said in self.world.vendor.received(self.request) if said.checkout_external_id == page]

    def approve(self, page: str, n: int) -> None:
        """The payer of a vendor that leaves the taking to us agrees; what becomes of the taking, the number says."""
        if self.world.vendor.approve(page):
            self.world.vendor.capture_outcomes = {5: ["pending"], 6: ["failed"], 7: ["declined"]}.get(n, [])

    def about(self, charge: MoneyStatement, name: str, n: int) -> None:
        """What happens to a payment at the vendor, without us."""
        vendor = self.world.vendor
        left = vendor.left(charge)
        if name.startswith("refund ") and left > 0:
            outcome = MoneyOutcome.PENDING if name == "refund under way" else MoneyOutcome.SUCCEEDED
            vendor.give_back(charge, left if n % 2 else min(left, (n + 1) * 500), outcome=outcome)
        elif name == "dispute" and charge.external_id not in vendor.disputed and left == charge.amount_minor:
            vendor.dispute(charge)
        elif name.startswith("dispute ") and vendor.disputed.get(charge.external_id) == MoneyOutcome.PENDING:
            vendor.dispute(charge, MoneyOutcome.CANCELED if name == "dispute won" else MoneyOutcome.SUCCEEDED)

    def decide_refund(self, n: int) -> None:
        """A refund under way arrives or fails; one that had arrived may still fail."""
        vendor = self.world.vendor
        undecided = [said for said in vendor.refunds() if said.outcome == MoneyOutcome.PENDING]
        arrived = [said for said in vendor.refunds() if said.outcome == MoneyOutcome.SUCCEEDED]
        chosen = undecided or (arrived if n == 0 else [])
        if chosen:
            said = chosen[n % len(chosen)]
            failed = not undecided or n % 3 == 0
            vendor.tell_refund(replace(said, outcome=MoneyOutcome.FAILED if failed else MoneyOutcome.SUCCEEDED))

    # ----------------------------------------------------------------------------------------------------- the way
    async def deliver(self, n: int) -> None:
        """Some of the webhooks arrive, in another order, some of them twice; what does not may come later."""
        chosen = random.Random(n)
        box = self.world.vendor.outbox
        chosen.shuffle(box)
        now, self.world.vendor.outbox = box[: n + 1], box[n + 1 :]
        if now:
            await self.take([*now, *chosen.choices(now, k=2)])

    async def take(self, sent: Sequence[Delivery]) -> None:
        """Webhooks arrive, signed at this moment."""
        for one in sent:
            fresh = signed(one.body)
            await processor_webhooks.receive("sandbox", self.world.connection.id, fresh.body, fresh.headers)
            self.arrived.add(str(self.world.vendor.parse(one.body).external_id))

    def drop(self, n: int) -> None:
        """Webhooks are lost for good."""
        box = self.world.vendor.outbox
        self.lost += box[: n + 1]
        self.world.vendor.outbox = box[n + 1 :]

    async def sweep(self) -> None:
        """Every round of the sweeper, once its time has come."""
        self.wait(timedelta(minutes=6))
        vendor = self.world.vendor
        vendor.undelivered = [
            vendor.parse(sent.body) for sent in (self.lost if self.webhooks else [*self.lost, *vendor.outbox])
        ]
        for kind, handler in sorted(jobs.handlers.items()):
            if kind in jobs.periods and handler.__module__ == sweeper.__name__:
                given: dict[str, Any] = {"payload": {}, "account_id": None, "attempt": 1, "last_attempt": True}
                await handler(jobs.JobContext(job_id=uuid7(), kind=kind, **given))

    def wait(self, time: timedelta) -> None:
        """Time passes, at the vendor's too."""
        self.clock.move(time)
        for session in self.world.vendor.sessions.values():
            if session.expires_at is not None and session.expires_at <= self.clock.now():
                self.world.vendor.lapse(session.external_id)

    async def settle_down(self) -> None:
        """All that the profile lets arrive has arrived, and whatever was promised has been tried."""
        vendor = self.world.vendor
        vendor.faults = []
        for turn in range(ROUNDS):
            self.wait(timedelta(minutes=6))
            if self.webhooks and vendor.outbox:
                sent, vendor.outbox = vendor.outbox, []
                await self.take(sent)
            if self.sweeps:
                await self.sweep()
            ran = await self.world.run_jobs(rounds=3)
            undecided = await Refund.exists(status__in=refund_outcomes.UNDECIDED, external_id=None)
            if turn >= 2 and not ran and not undecided and not (self.webhooks and vendor.outbox):
                break

    # -------------------------------------------------------------------------------------------------- what must hold
    async def assert_always(self) -> None:
        """After every step: P1, P2, P5, P10, and nothing is recorded that the vendor has not said."""
        now = await self.world.fresh(self.request)
        if self.last is not None:
            columns = [name for name in now._meta.fields_map if getattr(now, name) != getattr(self.last, name)]
            assert not columns or "updated_at" in columns, columns
        self.last = now
        cards = await ActivityCard.filter(payment_request_id=self.request.id).order_by("seq")
        facts = await MoneyFact.filter(payment_request_id=self.request.id).order_by("id")
        kinds = Counter(card.kind for card in cards)
        assert kinds["PAYMENT_RECEIVED"] <= 1
        assert kinds["REQUEST_VOIDED"] == (now.voided_at is not None)
        assert kinds["PAYMENT_REQUEST"] <= 1
        if now.status == "VOID":
            assert [page for page in self.led if self.world.vendor.sessions[page].status == CheckoutStatus.OPEN] == []
        read: dict[Any, tuple[Any, ...]] = {
            **{fact.id: (fact.kind, fact.external_id, fact.outcome, fact.amount_minor, fact.counted) for fact in facts},
            **{card.id: (card.kind, card.seq, card.status, card.text) for card in cards},
        }
        assert {key: read.get(key) for key in self.seen} == self.seen
        self.seen = read
        told = {(fact.kind, fact.external_id, fact.outcome) for fact in facts if fact.kind != "ADJUSTMENT"}
        assert len(told) == sum(fact.kind != "ADJUSTMENT" for fact in facts)
        charges = {
            (fact.external_id, fact.amount_minor)
            for fact in facts
            if (fact.kind, fact.outcome) == ("CHARGE", "SUCCEEDED") and fact.processor_connection_id is not None
        }
        assert charges <= {(said.external_id, said.amount_minor) for said in self.world.vendor.received(self.request)}

    async def assert_at_rest(self) -> str:
        """When nothing is on its way any more: P1 to P11 by the vendor's book; the status that it came to."""
        vendor, request = self.world.vendor, self.request
        now = await self.world.fresh(request)
        facts = await MoneyFact.filter(payment_request_id=request.id).order_by("id")
        cards = await ActivityCard.filter(payment_request_id=request.id).order_by("seq")
        charges = vendor.received(request)
        await self.assert_recorded(facts, cards, charges)
        # What the facts must add up to.
        counting = self.counting(charges)
        counted = {
            said.external_id: said.amount_minor
            for said in charges
            if said.external_id in counting and said.currency == now.currency
        }
        late = {f.external_id for f in facts if f.kind == "CHARGE" and f.outcome == "SUCCEEDED" and f.after_void}
        assert not late or self.forced or self.released  # there is no other way to pay after a void
        settled = sum(amount for id_, amount in counted.items() if id_ not in late) + sum(self.by_hand.values())
        back = [r for r in vendor.refunds() if r.outcome == MoneyOutcome.SUCCEEDED and r.charge_external_id in counted]
        assert (now.amount_paid_minor, now.refunded_minor) == (settled, sum(said.amount_minor for said in back))
        assert now.waived_minor == self.waived
        waiting = {said.external_id: said for said in charges if said.external_id not in counting}
        left = {id_: vendor.kept(said) for id_, said in waiting.items()}
        views = (await payment_views.payments(request.account_id, [request.id]))[request.id]
        assert {v.processor_reference: v.unresolved_minor for v in views if v.unresolved_minor} == {
            id_: rest for id_, rest in left.items() if rest
        }
        assert now.unresolved == any(left.values())
        pending = any(session.status == CheckoutStatus.PROCESSING for session in vendor.of_request(request))
        assert now.status == self.expected(now, settled, pending=pending)
        assert now.void_requested_at is None or now.voided_at is not None or pending
        # Never more back than was paid, whoever gave it.
        for said in charges:
            assert vendor.left(said) >= 0
        # Checkouts: at most one can be paid, each was made with a key that we had stored.
        open_pages = [s for s in vendor.open_sessions(request) if self.sweeps or s.external_id in self.led]
        assert len(open_pages) <= (now.status in ("SENT", "PARTIALLY_PAID", "PROCESSING") and not now.unresolved)
        rows = await CheckoutSession.filter(payment_request_id=request.id)
        keys = {row.idempotency_key for row in rows}
        assert {session.order.idempotency_key for session in vendor.of_request(request)} <= keys
        # Webhooks: kept, and not one forgotten.
        events = await ProcessorEvent.filter(account_id=self.world.account.id)
        assert self.arrived <= {event.external_id for event in events}
        assert [event.type for event in events if event.handled_at is None] == []
        assert await integrity_check.audit(self.world.account.id) == []
        await assert_figures(self.world.account.id)
        await assert_consistent(self.world.account.id)
        await self.assert_link(now)
        return now.status

    def counting(self, charges: list[MoneyStatement]) -> set[str]:
        """Ids of the charges that must count: exact ones, tenders that add up, and what the team accepted."""
        found = {said.external_id for said in charges if (said.amount_minor, said.currency) == self.asked(said)}
        for page in {said.checkout_external_id for said in charges}:
            asked, currency = self.asked(next(said for said in charges if said.checkout_external_id == page))
            here = [s for s in charges if s.checkout_external_id == page and s.currency == currency]
            parts = [said for said in here if said.external_id not in found]
            # Here all of them or none: this vendor's pages close once all has come.
            if len(parts) > 1 and sum(said.amount_minor for said in parts) == asked:
                found |= {said.external_id for said in parts}
        return found | self.accepted

    def asked(self, said: MoneyStatement) -> tuple[int, str]:
        """What the charge's checkout asked for."""
        order = self.world.vendor.sessions[said.checkout_external_id or ""].order
        return order.amount_minor, order.currency

    def expected(self, now: PaymentRequest, settled: int, *, pending: bool) -> str:
        """The status by the rules."""
        if settled + self.waived >= now.amount_minor:
            return "PAID"
        if now.voided_at is not None:
            return "VOID"
        if pending:
            return "PROCESSING"
        return "PARTIALLY_PAID" if settled else "SENT"

    async def assert_recorded(
        self, facts: list[MoneyFact], cards: list[ActivityCard], charges: list[MoneyStatement]
    ) -> None:
        """Every money of the vendor's book is a fact, in its last outcome, with its card and notice; and nothing else is."""
        vendor = self.world.vendor
        final: dict[tuple[str, str], MoneyFact] = {}
        for fact in facts:
            money = (fact.kind, fact.external_id)
            if fact.kind in ledger.RANKS and (
                money not in final or payment_views.rank(fact) > payment_views.rank(final[money])
            ):
                final[money] = fact
        stands = {money: fact.outcome for money, fact in final.items() if fact.processor_connection_id is not None}
        assert {id_ for (kind, id_), outcome in stands.items() if (kind, outcome) == ("CHARGE", "SUCCEEDED")} == {
            said.external_id for said in charges
        }
        assert {id_: o for (kind, id_), o in stands.items() if kind == "REFUND"} == {
            said.external_id: said.outcome.value for said in vendor.refunds()
        }
        assert {id_.removeprefix("dp_"): o for (kind, id_), o in stands.items() if kind == "DISPUTE"} == {
            charge: outcome.value for charge, outcome in vendor.disputed.items()
        }
        said_of = Counter(card.money_fact_id for card in cards if card.money_fact_id is not None)
        assert [count for count in said_of.values() if count > 1] == []
        worth = [f for f in final.values() if _is_worth_a_card(f)]
        # Tenders that add up share their card.
        alone = {
            s.external_id for s in charges if len(self.arrived_on(s.checkout_external_id or "")) == 1 or self.forced
        }
        # A part that went back or was accepted before the wait for its rest was over tells the team nothing but that.
        gone = {said.external_id for said in charges if not vendor.kept(said)} | self.accepted
        unsaid = [f for f in worth if said_of[f.id] != 1 and not (f.kind == "CHARGE" and f.external_id in gone)]
        assert [
            (f.kind, f.outcome, f.amount_minor) for f in unsaid if f.external_id in alone or f.kind != "CHARGE"
        ] == []
        pages = {f.checkout_session_id for f in worth if f.kind == "CHARGE" and said_of[f.id]}
        assert [f.external_id for f in unsaid if f.checkout_session_id not in pages] == []
        told = Counter(row.kind for row in await Notification.filter(payment_request_id=self.request.id))
        kinds = Counter(card.kind for card in cards)
        assert {kind: told[kind] for kind in ABOUT_MONEY} == {kind: kinds[kind] for kind in ABOUT_MONEY}

    async def assert_link(self, now: PaymentRequest) -> None:
        """The link works until PAID or VOID, however many checkouts have ended."""
        opened = await checkout.open_checkout(self.token)
        states = {"PAID": "paid", "VOID": "void"}
        held = now.status == "PROCESSING" and now.released_at is None
        assert opened.state == states.get(now.status, "processing" if held else "review" if now.unresolved else "open")
        assert (now.released_at is not None) <= (now.status == "PROCESSING" and self.released)
        if opened.url is not None:
            order = self.world.vendor.sessions[opened.url.rpartition("/")[2]].order
            assert (order.amount_minor, order.currency) == (self.due(now), now.currency)


def _is_worth_a_card(fact: MoneyFact) -> bool:
    """A failed attempt on a request that was closed meanwhile tells nobody anything; a refund under way not yet."""
    return (fact.kind, fact.outcome) in (("CHARGE", "SUCCEEDED"), ("REFUND", "SUCCEEDED"), ("REFUND", "FAILED")) or (
        fact.kind == "DISPUTE"
    )


async def live(history: History, *, webhooks: bool, sweeps: bool) -> str:
    """One history from the creation to rest."""
    await retire()
    with moved() as clock:
        world = await World.make()
        request, token = await world.request()
        life = Life(world, request, token, webhooks, sweeps, clock)
        for name, n in history:
            await life.act(name, n)
            await life.assert_always()
        await life.settle_down()
        await life.assert_always()
        return await life.assert_at_rest()


async def retire() -> None:
    """Let earlier worlds of this database rest: nothing of theirs is swept or run any more. Cheaper than an empty database."""
    await database.execute("DELETE FROM job")
    await database.execute("UPDATE checkout_session SET next_check_at = NULL WHERE next_check_at IS NOT NULL")
    await CheckoutSession.filter(status__in=sweeper.UNSETTLED).update(status="ABANDONED")
    await database.execute("UPDATE payment_request SET void_requested_at = NULL WHERE voided_at IS NULL")
    await database.execute("UPDATE processor_event SET handled_at = received_at WHERE handled_at IS NULL")
    await Refund.filter(status__in=refund_outcomes.UNDECIDED).update(status="FAILED")
    await ProcessorConnection.filter(connected=True).update(connected=False, is_default=False)


async def shrunk(history: History, fails: Callable[[History], Awaitable[bool]]) -> list[tuple[str, int]]:
    """A shorter history that fails too: acts are left out, one at a time, as long as it does."""
    best = list(history)
    again = True
    while again:
        again = False
        for at in reversed(range(len(best))):
            shorter = best[:at] + best[at + 1 :]
            if await fails(shorter):
                best, again = shorter, True
    return best
