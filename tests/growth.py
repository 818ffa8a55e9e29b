"""How long each operation takes in a small account and in a large one, on both databases.

`./dev bench growth [--items N] [--small N] [--engine sqlite|postgres]`. A unit is the whole operation without HTTP: GraphQL or
the receiver of webhooks, the services, the database. Both accounts are measured in alternating rounds; medians. CPU is this
process's: all of the work on SQLite, without the server's on PostgreSQL.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from models import database, migrate
from models.ids import public_id
from resolvers.assemble import build_schema, new_context
from services.connections import providers
from services.payments import figure_counts
from tests import large_account
from tests.large_account import LargeAccount

THREAD = """query($id: ID!) { conversation(id: $id) { thread(last: 50) { nodes { __typename id
  ... on Message { body direction deliveryStatus author { ...By } channelKind paymentRequests { id number status } }
  ... on ActivityCard { kind text actor { ...By } paymentRequest { id number status amount { formatted } contact { name } } } } } } }
fragment By on Actor { __typename ... on User { id name } ... on ApiKey { id name } ... on Contact { id name }
  ... on SystemActor { name } }"""
INBOX = """query($filter: ConversationFilter, $order: ConversationOrder) {
  conversations(first: 20, filter: $filter, orderBy: $order) { nodes { id preview unreadCount
  contact { id name addresses { kind } paymentSummary { currency overdueCount } } } } }"""
CONTACTS = """query($order: ContactOrder) { contacts(first: 50, orderBy: $order) {
  nodes { id name addresses { kind address } conversation { id } } } }"""
PAYMENTS = """query($id: ID!) { contact(id: $id) { paymentRequests(first: 50) { totalCount nodes { id number status
  payments { id status } amount { formatted } } } } }"""
REQUESTS = """query($filter: PaymentRequestFilter, $order: PaymentRequestOrder) {
  paymentRequests(first: 20, filter: $filter, orderBy: $order) { nodes { id number status
  contact { id name } } } }"""
SEARCH = """query($search: String) { conversations(first: 20, filter: {search: $search}) { nodes { id preview contact { id name } } } }"""
MESSAGES = """query($search: String!) { messages(first: 20, search: $search) {
  edges { threadCursor conversation { id contact { id name } } node { id body } } } }"""
DASHBOARD = """query($range: DashboardRange!) { dashboard(period: { range: $range }) { byCurrency { currency requestsSent conversionRate
  requested { formatted } paidCount paid { formatted } outstanding { formatted } medianSecondsToPay } } }"""
NOTIFICATIONS = "{ viewer { id unreadNotificationCount } notifications(first: 50) { nodes { id title readAt } } }"
CREATE = """mutation($input: CreatePaymentRequestInput!) { createPaymentRequest(input: $input) {
  paymentRequest { id number status checkoutUrl } userErrors { code } } }"""
SEND = """mutation($input: SendPaymentRequestInput!) { sendPaymentRequest(input: $input) {
  paymentRequest { id status } message { id } activityCard { id } userErrors { code } } }"""

Operation = Callable[[], Awaitable[object]]


class Operations:
    """The measured operations of one account."""

    def __init__(self, of: LargeAccount, *, plans: bool = True) -> None:
        self._of = of
        self._schema = build_schema(production=False, plans=plans)

    async def run(self, document: str, variables: dict[str, Any] | None = None) -> Any:
        """The value of the first root field; every error fails."""
        context = new_context(hub=None, viewer=self._of.actor, client_address="192.0.2.1", request_id="bench")
        result = await self._schema.execute(document, variable_values=variables or {}, context_value=context)
        if result.errors or result.data is None:
            raise RuntimeError(str(result.errors))
        for value in result.data.values():
            if value is None or (isinstance(value, dict) and value.get("userErrors")):
                raise RuntimeError(str(value))
        return next(iter(result.data.values()))

    def all(self) -> dict[str, Operation]:
        def query(document: str, **variables: Any) -> Operation:
            async def once() -> None:
                await self.run(document, variables)

            return once

        of = self._of
        filters: dict[str, dict[str, Any]] = {
            "status PAID": {"status": ["PAID"]},
            "a rare status": {"status": ["PARTIALLY_PAID"]},
            "no request's status": {"status": ["PROCESSING"]},
            "three statuses": {"status": ["SENT", "PROCESSING", "PARTIALLY_PAID"]},
            "overdue": {"overdue": True},
            "status and test mode": {"status": ["SENT"], "testMode": True},
        }
        return {
            "thread": query(THREAD, id=public_id("cnv", of.conversation_id)),
            "inbox": query(INBOX),
            "open conversations": query(INBOX, filter={"closed": False}),
            "closed conversations": query(INBOX, filter={"closed": True}),
            "unread conversations": query(INBOX, filter={"unread": True}),
            "unassigned conversations": query(INBOX, filter={"closed": False, "assigneeIds": [None]}),
            **{
                f"inbox by {field} {direction}": query(INBOX, order={"field": field, "direction": direction})
                for field in ("LAST_ACTIVITY_AT", "CREATED_AT", "WAITING_SINCE")
                for direction in ("ASC", "DESC")
            },
            "who waits longest": query(
                INBOX, filter={"waitingSince": {}}, order={"field": "WAITING_SINCE", "direction": "ASC"}
            ),
            "contacts": query(CONTACTS),
            **{
                f"contacts by {field} {direction}": query(CONTACTS, order={"field": field, "direction": direction})
                for field in ("CREATED_AT", "UPDATED_AT", "NAME")
                for direction in ("ASC", "DESC")
            },
            "contact's payments": query(PAYMENTS, id=public_id("cnt", of.contact_id)),
            "requests": query(REQUESTS),
            **{
                f"requests by {field} {direction}": query(REQUESTS, order={"field": field, "direction": direction})
                for field in ("CREATED_AT", "UPDATED_AT", "DUE_AT", "PAID_AT", "AMOUNT_DUE")
                for direction in ("ASC", "DESC")
            },
            "overdue requests by due date": query(
                REQUESTS, filter={"overdue": True}, order={"field": "DUE_AT", "direction": "ASC"}
            ),
            "open requests by due date": query(
                REQUESTS,
                filter={"status": ["SENT", "PROCESSING", "PARTIALLY_PAID"]},
                order={"field": "DUE_AT", "direction": "ASC"},
            ),
            **{f"requests, {name}": query(REQUESTS, filter=filter) for name, filter in filters.items()},
            "search, a name": query(SEARCH, search="contact 1771"),
            "search, no hits": query(SEARCH, search="nobody"),
            "search, every hit": query(SEARCH, search="contact"),
            "search, two letters": query(SEARCH, search="qz"),
            "messages, a text": query(MESSAGES, search="many 1771"),
            "messages, no hits": query(MESSAGES, search="nobody wrote this"),
            "messages, every hit": query(MESSAGES, search="many"),
            "requests, a number": query(REQUESTS, filter={"search": "many-177"}),
            "requests, an amount": query(REQUESTS, filter={"search": "77.31"}),
            "requests, a product": query(REQUESTS, filter={"search": "clean"}),
            **{f"dashboard, {name}": query(DASHBOARD, range=name) for name in ("TODAY", "LAST_30_DAYS", "ALL_TIME")},
            "notifications": query(NOTIFICATIONS),
            "create": self._create,
            "create and send": self._create_and_send,
            "webhook": self._webhook,
        }

    async def _create(self) -> str:
        given = {
            "idempotencyKey": str(uuid4()),
            "for": {"contactId": public_id("cnt", self._of.contact_id)},
            "productName": "Deep clean",
            "amount": {"amount": "120.00"},
        }
        made: dict[str, Any] = await self.run(CREATE, {"input": given})
        return str(made["paymentRequest"]["id"])

    async def _create_and_send(self) -> None:
        given = {
            "idempotencyKey": str(uuid4()),
            "paymentRequestId": await self._create(),
            "channelId": public_id("chn", self._of.channel_id),
        }
        await self.run(SEND, {"input": given})

    async def _webhook(self) -> None:
        await self._of.pay(*self._of.payable.pop())


@dataclass
class Measured:
    """One account, and the times of each operation in it: (wall clock, this process's CPU) in milliseconds."""

    url: str
    items: int
    account: LargeAccount
    times: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    async def round(self, repeat: int) -> None:
        """Open the database as a new process would, and run each operation `repeat` times."""
        async with database.open_database(self.url):
            try:
                for name, once in Operations(self.account).all().items():
                    await once()
                    for _ in range(repeat):
                        wall, cpu = time.perf_counter(), time.process_time()
                        await once()
                        spent = (time.perf_counter() - wall) * 1000, (time.process_time() - cpu) * 1000
                        self.times.setdefault(name, []).append(spent)
            finally:
                await providers.aclose()

    def median(self, name: str, clock: int) -> float:
        return statistics.median(spent[clock] for spent in self.times[name])


async def fill(url: str, items: int, payable: int) -> Measured:
    """Fill an empty, migrated database with one account."""
    options: dict[str, Any] = {"command_timeout_s": 1200} if url.startswith("postgres") else {"synchronous": "OFF"}
    async with database.open_database(url, **options):
        large_account.configure(url)
        account = await large_account.new_account(payable=payable)
        await large_account.fill(account, items)
        while await figure_counts.fold(datetime.now(UTC)):
            pass
        await database.execute("VACUUM ANALYZE" if database.dialect() == "postgres" else "PRAGMA wal_checkpoint")
    return Measured(url, items, account)


async def compare(
    urls: tuple[str, str], sizes: tuple[int, int], *, rounds: int, repeat: int
) -> tuple[Measured, Measured]:
    """Measure a small and a large account in alternating rounds."""
    payable = rounds * (repeat + 1)
    small, large = [await fill(url, items, payable) for url, items in zip(urls, sizes, strict=True)]
    for _ in range(rounds):
        for measured in (small, large):
            large_account.configure(measured.url)
            await measured.round(repeat)
    return small, large


@contextlib.contextmanager
def _databases(engine: str) -> Iterator[Callable[[], str]]:
    """Makes empty, migrated databases."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        if engine == "postgres":
            from tests import servers
            from tests.conftest import database_beside, run_on

            server = stack.enter_context(servers.postgres())
        number = 0

        def make() -> str:
            nonlocal number
            number += 1
            if engine == "sqlite":
                url = f"sqlite:///{Path(folder, f'{number}.db')}"
            else:
                url = database_beside(server, f"growth_{uuid4().hex}")
                asyncio.run(run_on(server, f"CREATE DATABASE {url.rsplit('/', 1)[1]}"))
            asyncio.run(migrate.migrate(url))
            return url

        yield make


def table(engine: str, small: Measured, large: Measured) -> str:
    """The figures as a Markdown table."""
    lines = [
        f"| {engine} | {small.items:,} items, ms | {large.items:,} items, ms | ratio | CPU ms | CPU ms | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in small.times:
        cells = [name]
        for clock in (0, 1):
            before, after = small.median(name, clock), large.median(name, clock)
            cells += [f"{before:.2f}", f"{after:.2f}", f"{after / before:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench growth", description=__doc__)
    parser.add_argument("--items", type=int, default=200_000, help="thread items of the large account")
    parser.add_argument("--small", type=int, default=200, help="those of the small one")
    parser.add_argument("--engine", choices=["sqlite", "postgres"], action="append", help="default: both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=10, help="runs of an operation in a round")
    given = parser.parse_args(arguments)
    for engine in given.engine or ["sqlite", "postgres"]:
        with _databases(engine) as make:
            urls, sizes = (make(), make()), (given.small, given.items)
            small, large = asyncio.run(compare(urls, sizes, rounds=given.rounds, repeat=given.repeat))
        sys.stdout.write(f"{table(engine, small, large)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
