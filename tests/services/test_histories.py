"""Random histories of one request: whatever happens at the processor and on the way, in three profiles of what news arrives.

A fixed seed: the same histories on every run. The vendor's own book says what must have come out.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from integrations.base import CheckoutStatus, MoneyOutcome
from models import errors
from models.tables import CheckoutSession, PaymentRequest
from services import checkout, sweeper, voids
from tests.services.scripted import Session, World, assert_consistent

HISTORIES = 200  # of each profile
ACTS = (
    *("open", "open", "pay", "pay", "decline", "debit", "debit arrives", "debit fails", "wrong amount", "lapse"),
    *(
        "void",
        "deliver",
        "deliver",
        "jobs",
        "sweep",
        "cut before",
        "cut after",
        "refused",
        "hour",
        "pay twice",
        "return",
    ),
)
HISTORY = st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 7)), min_size=4, max_size=14)


@dataclass
class Life:
    """One request, the pages that its contact was led to, and what the profile lets arrive."""

    world: World
    request: PaymentRequest
    token: str
    webhooks: bool
    sweeps: bool
    led: list[str] = field(default_factory=list)

    def page(self, n: int) -> Session | None:
        """One of the pages that a contact may have open."""
        return self.world.vendor.sessions[self.led[n % len(self.led)]] if self.led else None

    async def act(self, name: str, n: int) -> None:
        """Let one thing happen."""
        vendor = self.world.vendor
        page = self.page(n)
        match name:
            case "open":
                with suppress(errors.ProcessorUnavailable, errors.ProcessorRejected):
                    opened = await checkout.open_checkout(self.token)
                    if opened.url is not None:
                        self.led.append(opened.url.rpartition("/")[2])
            case "void":
                with suppress(errors.AlreadyPaid, errors.AlreadyVoid, errors.PaymentInProgress):
                    await voids.void(self.world.actor, payment_request_id=self.request.id)
            case "return":
                await checkout.returned(self.token)
            case "deliver" if self.webhooks:
                await self.deliver(n)
            case "jobs":
                await self.world.run_jobs(rounds=1)
            case "sweep" if self.sweeps:
                await self.sweep()
            case "cut before" | "cut after" | "refused":
                vendor.faults = [{"cut before": "before", "cut after": "after", "refused": "refuse"}[name]]
            case "hour":
                await self.wait(timedelta(hours=1))
            case _ if page is not None:
                self.pay(page, name)

    def pay(self, page: Session, name: str) -> None:
        """What a contact does on an open page, and what becomes of a bank debit."""
        vendor = self.world.vendor
        simple: dict[str, Callable[[], object]] = {
            "pay": lambda: vendor.pay(page.external_id),
            "decline": lambda: vendor.decline(page.external_id),
            "debit": lambda: vendor.pay(page.external_id, outcome=MoneyOutcome.PENDING),
            "wrong amount": lambda: vendor.pay(page.external_id, amount_minor=99),
            "lapse": lambda: vendor.lapse(page.external_id),
        }
        if name in simple:
            simple[name]()
        elif name.startswith("debit") and page.status == CheckoutStatus.PROCESSING:
            vendor.settle(page.external_id, ok=name == "debit arrives")
        elif name == "pay twice" and page.status == CheckoutStatus.COMPLETED:
            vendor.pay(page.external_id, force=True)

    async def deliver(self, n: int) -> None:
        """Some of the webhooks arrive, in another order, some of them twice; what does not may come later."""
        chosen = random.Random(n)
        box = self.world.vendor.outbox
        chosen.shuffle(box)
        now, self.world.vendor.outbox = box[: n + 1], box[n + 1 :]
        if now:
            await self.world.deliver(*now, *chosen.choices(now, k=2))

    async def sweep(self) -> None:
        """The sweeper's rounds, hours later."""
        vendor = self.world.vendor
        vendor.undelivered = [vendor.parse(sent.body) for sent in vendor.outbox]
        await sweeper.sweep(datetime.now(UTC) + timedelta(hours=2))
        await sweeper.fetch_events(self.world.connection, datetime.now(UTC))

    async def wait(self, time: timedelta) -> None:
        """Time passes: everything that is stored is older."""
        for row in await CheckoutSession.filter(payment_request_id=self.request.id):
            expires_at = row.expires_at - time if row.expires_at else None
            await CheckoutSession.filter(id=row.id).update(created_at=row.created_at - time, expires_at=expires_at)

    async def settle_down(self) -> None:
        """All that the profile lets arrive has arrived."""
        self.world.vendor.faults = []
        await self.wait(timedelta(minutes=5))
        for _ in range(3):
            if self.webhooks and self.world.vendor.outbox:
                await self.world.deliver()
            if self.sweeps:
                await self.sweep()
            await self.world.run_jobs(rounds=3)

    # -------------------------------------------------------------------------------------------------- what must hold
    async def assert_always(self) -> None:
        """After every step."""
        now = await self.world.fresh(self.request)
        cards = await self.world.cards(self.request)
        assert cards.count("PAYMENT_RECEIVED") == (now.status == "PAID")
        assert cards.count("REQUEST_VOIDED") == (now.status == "VOID")
        if now.status == "VOID":
            assert [page for page in self.led if self.world.vendor.sessions[page].status == CheckoutStatus.OPEN] == []
        facts = {fact for fact in await self.world.facts(self.request) if fact[1] == "SUCCEEDED"}
        assert facts <= {
            ("CHARGE", "SUCCEEDED", money.amount_minor) for money in self.world.vendor.received(self.request)
        }

    async def assert_at_rest(self) -> str:
        """When nothing is on its way any more; the status that it came to."""
        vendor, request = self.world.vendor, self.request
        now = await self.world.fresh(request)
        cards = await self.world.cards(request)
        money = vendor.received(request)
        settled = sum(m.amount_minor for m in money if m.amount_minor == request.amount_minor)
        pending = any(s.status == CheckoutStatus.PROCESSING for s in vendor.of_request(request))
        facts = [fact for fact in await self.world.facts(request) if fact[1] == "SUCCEEDED"]
        assert sorted(facts) == sorted(("CHARGE", "SUCCEEDED", m.amount_minor) for m in money)
        assert now.amount_paid_minor + now.late_minor == settled
        if settled:
            assert now.status == "PAID"  # there is no way to pay after a void
        elif now.voided_at is not None:
            assert now.status == "VOID"
        else:
            assert now.status == ("PROCESSING" if pending else "SENT")
        assert (now.void_requested_at is None) or now.status == "VOID" or pending
        about_money = ("PAYMENT_RECEIVED", "EXCESS_PAYMENT", "LATE_PAYMENT", "PAYMENT_MISMATCH")
        assert sum(card in about_money for card in cards) == len(money)
        assert cards.count("PAYMENT_MISMATCH") == sum(m.amount_minor != request.amount_minor for m in money)
        payable = [s for s in vendor.open_sessions(request) if s.external_id in self.led]
        assert len(payable) <= (now.status in ("SENT", "PROCESSING"))
        await assert_consistent(self.world.account.id)
        return now.status


async def live(history: Sequence[tuple[str, int]], *, webhooks: bool, sweeps: bool) -> str:
    """One history from the creation to rest."""
    world = await World.make()
    request, token = await world.request()
    life = Life(world, request, token, webhooks, sweeps)
    for name, n in history:
        await life.act(name, n)
        await life.assert_always()
    await life.settle_down()
    await life.assert_always()
    return await life.assert_at_rest()


def profile(test: Callable[..., Any]) -> Callable[..., Any]:
    """Hypothesis with a fixed seed, on SQLite, without its own database."""
    bounded = settings(
        max_examples=HISTORIES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    done: Callable[..., Any] = sqlite(bounded(given(history=HISTORY)(test)))
    return done


@profile
async def test_histories_with_webhooks_and_the_sweeper_end_as_the_vendors_book_says(
    database: str, history: list[tuple[str, int]]
) -> None:
    await live(history, webhooks=True, sweeps=True)


@profile
async def test_histories_with_webhooks_only_end_as_the_vendors_book_says(
    database: str, history: list[tuple[str, int]]
) -> None:
    await live(history, webhooks=True, sweeps=False)


@profile
async def test_histories_with_the_sweeper_only_end_as_the_vendors_book_says(
    database: str, history: list[tuple[str, int]]
) -> None:
    await live(history, webhooks=False, sweeps=True)
