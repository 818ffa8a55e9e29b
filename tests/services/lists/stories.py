"""Random changes of everything that lists show, and screens that follow lists through cuts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from integrations.base.money import MoneyKind, MoneyOutcome, MoneyStatement
from integrations.broadcast import open_bus
from models import event_log, tables
from models.errors import Refusal
from models.ids import public_id
from services.core import unit_of_work
from services.core.event_hub import Hub, ResyncNeeded, SlowConsumer
from services.lists import live, subjects
from services.lists.live_list import Figures, FiguresChanged, ItemLeft, ItemPlaced, ListEvent
from services.lists.subjects import Wanted
from services.lists.watching import Started, watch
from services.lists.window import Key, id_of
from services.messaging import contact_merging, contacts, conversations, messages
from services.payments import due_dates, offline_payments, payment_requests, recorder, request_sending, voids
from services.team import tags
from tests.services.conftest import Team

NAMES = ("Maya", "Łukasz", "Zoë", "Omar", "Ines", "石田")
TAGS = ("vip", "new", "late")
VIEW = UUID(int=7)


@asynccontextmanager
async def running_hub() -> AsyncIterator[Hub]:
    """A hub that every commit announces to."""
    bus = await open_bus("memory://")
    hub = Hub(bus, event_log.read, event_log.heads, poll_s=0.2)
    await hub.start()
    unit_of_work.on_change(hub.announce)
    try:
        yield hub
    finally:
        unit_of_work.on_change(None)
        await hub.stop()
        await bus.aclose()


class Story:
    """One account's random day."""

    def __init__(self, team: Team, seed: int) -> None:
        self.team = team
        self.rng = random.Random(seed)
        self.contacts = [team.contact.id]
        self.requests: list[UUID] = []
        self.charges: list[tuple[str, UUID]] = []
        self.manual: list[UUID] = []
        self.written = 0
        self.done: dict[str, int] = {}
        self._acts: dict[Callable[[], Awaitable[Any]], int] = {
            self.create_contact: 4,
            self.create_request: 12,
            self.send_request: 10,
            self.copy_link: 2,
            self.discard: 1,
            self.pay_part: 6,
            self.pay_rest: 8,
            self.undo: 2,
            self.charge: 3,
            self.refund: 2,
            self.void: 4,
            self.hear: 8,
            self.hear_from_unknown: 2,
            self.answer: 6,
            self.read: 5,
            self.close: 4,
            self.reopen: 2,
            self.assign: 5,
            self.rename: 3,
            self.tag: 4,
            self.tag_conversation: 1,
            self.pass_due_dates: 2,
            self.merge: 1,
        }

    async def act(self) -> None:
        (chosen,) = self.rng.choices(list(self._acts), weights=list(self._acts.values()))
        with suppress(Refusal):
            await chosen()
            self.done[chosen.__name__] = self.done.get(chosen.__name__, 0) + 1

    # --------------------------------------------------------------------------------------------------------- contacts
    def _contact(self) -> UUID:
        return self.rng.choice(self.contacts)

    async def _conversation(self) -> tables.Conversation:
        contact = await tables.Contact.get(id=self._contact())
        return await tables.Conversation.get(contact_id=contact.merged_into_id or contact.id)

    async def create_contact(self) -> None:
        n = self.rng.randrange(10**6)
        made = await contacts.create_contact(
            self.team.agent, name=f"{self.rng.choice(NAMES)} {n}", phone=f"+1415{2_000_000 + n}"
        )
        self.contacts.append(made.id)

    async def rename(self) -> None:
        name = f"{self.rng.choice(NAMES)} {self.rng.randrange(100)}"
        await contacts.update_contact(self.team.agent, self._contact(), changes={"name": name})

    async def tag(self) -> None:
        chosen, conversation = self.rng.sample(TAGS, 2), await self._conversation()
        add, remove = chosen[: self.rng.randrange(2)], chosen[1:]
        await tags.update_of_contact(self.team.agent, conversation.contact_id, add=add, remove=remove)

    async def tag_conversation(self) -> None:
        conversation = await self._conversation()
        await tags.update_of_conversation(self.team.agent, conversation.id, add=[self.rng.choice(TAGS)], remove=[])

    async def merge(self) -> None:
        if len(self.contacts) > 8:
            await contact_merging.merge(
                self.team.agent,
                contact_id=self._contact(),
                merged_contact_id=self._contact(),
                idempotency_key=str(uuid4()),
            )

    # ----------------------------------------------------------------------------------------------------- conversations
    async def hear(self) -> None:
        self.written += 1
        await self.team.hears("SMS", f"Hello {self.written}", f"in-{self.written}")

    async def hear_from_unknown(self) -> None:
        self.written += 1
        sender = f"+1628{2_000_000 + self.rng.randrange(10**6)}"
        await self.team.hears("SMS", "Who is this?", f"in-{self.written}", sender=sender)
        address = await tables.ContactAddress.get(account_id=self.team.account.id, kind="SMS", address=sender)
        self.contacts.append(address.contact_id)

    async def answer(self) -> None:
        conversation = await self._conversation()
        await messages.send_message(
            self.team.agent, conversation_id=conversation.id, channel_id=self.team.channels["SMS"].id, body="Hi"
        )

    async def read(self) -> None:
        await conversations.mark_read(self.team.agent, (await self._conversation()).id)

    async def close(self) -> None:
        await conversations.close(self.team.agent, (await self._conversation()).id)

    async def reopen(self) -> None:
        await conversations.reopen(self.team.agent, (await self._conversation()).id)

    async def assign(self) -> None:
        user = self.rng.choice([None, self.team.agent.user_id, self.team.owner.user_id])
        await conversations.assign(self.team.agent, (await self._conversation()).id, user)

    # ---------------------------------------------------------------------------------------------------------- requests
    def _request(self) -> UUID:
        if not self.requests:
            raise Refusal("no request")
        return self.rng.choice(self.requests[-40:])

    async def create_request(self) -> None:
        due = datetime.now(UTC) + timedelta(hours=self.rng.choice([-5, 5, 50]))
        made = await payment_requests.create(
            self.team.agent,
            contact_id=self._contact(),
            product_name=self.rng.choice(["Deep clean", "Windows", "Café"]),
            amount=self.rng.choice(["125.00", "99.00", "10.00"]),
            currency=self.rng.choice(["USD", "EUR"]),
            due_at=self.rng.choice([None, due]),
            channel_id=self.rng.choice([None, self.team.channels["SMS"].id, self.team.channels["EMAIL"].id]),
            idempotency_key=str(uuid4()),
        )
        self.requests.append(made.id)

    async def send_request(self) -> None:
        await request_sending.send(
            self.team.agent,
            payment_request_id=self._request(),
            channel_id=self.team.channels["SMS"].id,
            idempotency_key=str(uuid4()),
        )

    async def copy_link(self) -> None:
        await payment_requests.record_link_copied(self.team.agent, self._request())

    async def discard(self) -> None:
        await payment_requests.discard(self.team.agent, self._request())

    async def pay_part(self) -> None:
        await self._pay("5.00")

    async def pay_rest(self) -> None:
        await self._pay(None)

    async def _pay(self, amount: str | None) -> None:
        done = await offline_payments.record(
            self.team.agent,
            payment_request_id=self._request(),
            method="CASH",
            amount=amount,
            idempotency_key=str(uuid4()),
        )
        self.manual.append(done.payment.id)

    async def undo(self) -> None:
        if self.manual:
            await offline_payments.undo(self.team.agent, payment_id=self.rng.choice(self.manual))

    async def charge(self) -> None:
        request = await tables.PaymentRequest.get(id=self._request())
        external_id = f"sbx_pay_{uuid4()}"
        await self._reported(MoneyKind.CHARGE, external_id, request, reference=public_id("pr", request.id))
        self.charges.append((external_id, request.id))

    async def refund(self) -> None:
        if self.charges:
            external_id, request_id = self.rng.choice(self.charges)
            request = await tables.PaymentRequest.get(id=request_id)
            await self._reported(MoneyKind.REFUND, f"sbx_re_{uuid4()}", request, charge=external_id)

    async def _reported(
        self,
        kind: MoneyKind,
        external_id: str,
        request: tables.PaymentRequest,
        *,
        reference: str | None = None,
        charge: str | None = None,
    ) -> None:
        statement = MoneyStatement(
            kind=kind,
            external_id=external_id,
            outcome=MoneyOutcome.SUCCEEDED,
            amount_minor=request.amount_minor,
            currency=request.currency,
            request_reference=reference,
            charge_external_id=charge,
        )
        await recorder.record(self.team.processor, [statement], source="webhook")

    async def void(self) -> None:
        await voids.void(
            self.team.agent, payment_request_id=self._request(), reason="Changed", confirm_partially_paid=True
        )

    async def pass_due_dates(self) -> None:
        await due_dates.log_overdue(datetime.now(UTC))


class Screen:
    """A client that shows one list and knows nothing but its events."""

    def __init__(self, hub: Hub, account_id: UUID, wanted: Wanted) -> None:
        self.wanted = wanted
        self.shown: list[Key] = []
        self.figures: Figures | None = None
        self.seq: int | None = None
        self.cuts = 0
        self.resyncs = 0
        self.entered = self.left = 0
        self._hub = hub
        self._account_id = account_id
        self._started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        self._started.clear()
        self._task = asyncio.create_task(self._follow())
        await asyncio.wait({asyncio.ensure_future(self._started.wait()), self._task}, return_when="FIRST_COMPLETED")
        if self._task.done():
            self._task.result()

    async def cut(self) -> None:
        if self._task is not None:
            self.cuts += 1
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            if self.seq is None:
                # As a client does: the position first, then the list.
                self.seq = (await event_log.heads([self._account_id]))[self._account_id]
                rows = await subjects.read(self._account_id, self.wanted, 100_000)
                self.shown = sorted(row.key for row in rows)
            try:
                await self._read()
            except SlowConsumer:
                continue

    async def _read(self) -> None:
        async def current() -> Wanted:
            return self.wanted

        async with aclosing(watch(self._hub, self._account_id, VIEW, current, self.seq)) as events:
            async for event in events:
                if isinstance(event, Started):
                    self._started.set()
                elif isinstance(event, ResyncNeeded):
                    self.resyncs += 1
                    self.seq = None
                    return
                else:
                    self._take(event)

    def _take(self, event: ListEvent) -> None:
        assert self.seq is not None
        self.seq = max(self.seq, event.seq)
        if isinstance(event, FiguresChanged):
            self.figures = event.figures
        elif isinstance(event, ItemPlaced):
            self.entered += event.entered
            self._remove(event.id)
            # A neighbour that is not shown would be an error: this screen shows everything.
            place = self.shown.index(event.before) + 1 if event.before is not None else 0
            self.shown.insert(place, event.key)
        elif isinstance(event, ItemLeft):
            self.left += 1
            self._remove(event.id)

    def _remove(self, id: UUID) -> None:
        self.shown = [key for key in self.shown if id_of(key) != id.int]

    async def is_at(self, seq: int, *, within: float = 10) -> None:
        """Wait until everything up to `seq` is shown, figures included."""
        account = live.of(self._hub)._accounts[self._account_id]

        def is_there() -> bool:
            found = account.lists.get(self.wanted)
            if found is None or not found.is_ready or found.seq < seq or found.figures_at is not None:
                return False
            return not any(watcher.queued for watcher in found.watchers)

        async with asyncio.timeout(within):
            while not is_there():
                await asyncio.sleep(0.005)
        await asyncio.sleep(0)


async def different(screen: Screen, account_id: UUID) -> str | None:
    """What a fresh query shows otherwise."""
    rows = await subjects.read(account_id, screen.wanted, 100_000)
    fresh = sorted(row.key for row in rows)
    if screen.shown != fresh:
        return f"{screen.wanted}: {len(screen.shown)} shown, {len(fresh)} stored"
    if screen.figures is not None and screen.figures.total != len(fresh):
        return f"{screen.wanted}: {screen.figures.total} counted, {len(fresh)} stored"
    sums: dict[tuple[str, bool], subjects.Sums] = {}
    for row in rows:
        if row.amounts is not None:
            group, more = row.amounts
            sums[group] = sums.get(group, subjects.Sums()).plus(more)
    if screen.figures is not None and dict(screen.figures.sums) != sums:
        return f"{screen.wanted}: sums {screen.figures.sums}, {sums} stored"
    return None
