"""Two servers and two workers on PostgreSQL and Redis, behind a plain load balancer."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake

import app
from models import database as db
from models.event_log import Cursor
from models.tables import Message, MoneyFact, ProcessorEvent
from settings import Settings
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.cluster import Cluster, cluster
from tests.flows.conftest import Team, new_team, opened
from tests.flows.harness import Feed, Process, Product
from tests.flows.test_restart import told
from tests.flows.vendors import Vendors, all_vendors, connect_channel, connect_processor, post, press_pay

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("database_url", ["postgres"], indirect=True)]

LOGIN_LIMIT = 3
CLIENTS = 30
SIGN_IN = "mutation($input: SignInInput!) { signIn(input: $input) { accessToken userErrors { code } } }"


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with all_vendors() as fakes:
        yield fakes


def configure(database: str, events_url: str) -> None:
    """This process creates the account: it needs the servers' settings."""
    values = {k.lower(): v for k, v in harness.environment(1, database, events_url).items()}
    app.configure(Settings(_env_file=None, **values))  # type: ignore[call-arg, arg-type]


async def gaps() -> int:
    """Numbers that the accounts' logs lack."""
    (found,) = await db.rows(
        "SELECT sum(holes) AS holes FROM (SELECT a.event_seq - count(e.seq) AS holes FROM account a"
        " LEFT JOIN event e ON e.account_id = a.id GROUP BY a.id, a.event_seq) AS each_account"
    )
    return int(found["holes"])


# ------------------------------------------------------------------------------------------- 2 servers and 2 workers
async def test_a_request_is_made_paid_shown_and_sent_across_two_servers_and_two_workers(
    database: str, events_url: str, vendors: Vendors
) -> None:
    configure(database, events_url)
    limits = {"LOGIN_LIMIT": f"{LOGIN_LIMIT}/minute"}
    async with cluster(database, events_url, workers=2, **vendors.addresses, **limits) as running:
        team = await new_team(running.product)
        team.processor = await connect_processor(team, vendors, "STRIPE")
        channel = await connect_channel(team, vendors, "SMS")
        await paid_on_every_socket_once(team, running, vendors)
        await limits_are_counted_over_both(running)
        await jobs_of_a_killed_worker_continue(team, running, vendors, channel)
        assert await ProcessorEvent.filter(handled_at=None).count() == 0
        assert await gaps() == 0
        assert min(running.balancer.connections.values()) > 0


async def paid_on_every_socket_once(team: Team, running: Cluster, vendors: Vendors) -> None:
    first, second = (replace(team, product=product) for product in running.direct)
    async with contextlib.AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(each.inbox()) for each in (first, second, second, team)]
        for feed in sockets:
            await opened(feed)
        maria = await first.contact()
        request = await first.request(maria)
        session = (await press_pay(team.product, request["checkoutUrl"])).rsplit("/", 1)[1].split("#")[0]
        body, headers = vendors.stripe.webhook(vendors.stripe.pay(session))
        path = urlsplit(team.processor["webhookUrl"]).path
        posted = [post(product.base_url + path, body, headers) for product in (*running.direct, *running.direct)]
        assert {answer.status_code for answer in await asyncio.gather(*posted)} == {200}
        mark = await second.request(maria)
        for feed in sockets:
            await feed.until("PaymentRequestUpdated", paymentRequest__id=mark["id"])
    for feed in sockets:
        assert told(feed.seen[1:]) == (Counter({request["id"]: 1}), Counter({request["id"]: 1}))
        assert feed.seen[1:] == sockets[0].seen[1:]
    assert (await second.read(request))["status"] == "PAID"
    assert [(fact.kind, fact.outcome) for fact in await MoneyFact.all()] == [("CHARGE", "SUCCEEDED")]


async def limits_are_counted_over_both(running: Cluster) -> None:
    answers = []
    for n in range(LOGIN_LIMIT + 2):
        given = {"email": "eve@example.com", "password": "a guess"}
        answers.append((await running.direct[n % 2].one(SIGN_IN, {"input": given}))["userErrors"][0]["code"])
    assert answers[:LOGIN_LIMIT].count("RATE_LIMITED") == 0
    assert answers[LOGIN_LIMIT:] == ["RATE_LIMITED"] * 2
    for product in running.direct:
        assert (await product.http.get("/readyz")).json()["checks"]["limits"] == "ok"


async def jobs_of_a_killed_worker_continue(team: Team, running: Cluster, vendors: Vendors, channel: str) -> None:
    contacts = [await team.contact(f"Contact {n}", n) for n in range(2, 5)]

    async def write(contact: dict[str, Any], body: str) -> None:
        given = {"conversationId": contact["conversation"]["id"], "channelId": channel, "body": body}
        await team.product.ok(d.SEND_MESSAGE, {"idempotencyKey": harness.key(), **given})

    def texts() -> list[str]:
        calls = [
            call for call in vendors.twilio.calls if call.operation and call.operation.operation_id == "CreateMessage"
        ]
        return [parse_qs(call.raw_body.decode())["Body"][0] for call in calls]

    async def statuses() -> list[str]:
        return [message.delivery_status for message in await Message.all().order_by("seq")]

    killed, other = running.workers
    other.signal(signal.SIGSTOP)  # so that it is the killed one that has the job
    vendors.twilio.fail_next("hang")
    await write(contacts[0], "first")
    async with asyncio.timeout(15):
        while texts() != ["first"]:
            await asyncio.sleep(0.02)
    killed.signal(signal.SIGSTOP)  # so that it dies with this send alone under way
    for contact in contacts:
        await write(contact, f"to {contact['name']}")
    await killed.kill()
    other.signal(signal.SIGCONT)
    async with asyncio.timeout(30):
        while await statuses() != ["UNKNOWN", "SENT", "SENT", "SENT"]:
            await asyncio.sleep(0.05)
    assert sorted(texts()) == ["first", *(f"to Contact {n}" for n in range(2, 5))]


# ---------------------------------------------------------------------------------------------------- rolling restart
class Client:
    """A client that reconnects with its cursor after a random wait, as docs/howto/build-an-inbox.md says."""

    def __init__(self, team: Team, token: str) -> None:
        self._team = team
        self._token = token
        self.cursor: str | None = None
        self.seen: list[dict[str, Any]] = []
        self.codes: list[int] = []

    async def follow(self) -> None:
        while True:
            with contextlib.suppress(OSError, InvalidHandshake):
                async with self._team.product.subscribe(d.INBOX, {"after": self.cursor}, token=self._token) as feed:
                    await self._take(feed)
            await asyncio.sleep(random.uniform(0.05, 0.3))

    async def _take(self, feed: Feed) -> None:
        try:
            while True:
                event = await feed.next(within=60)
                self.cursor = event["cursor"]
                if event["__typename"] != "Subscribed":
                    self.seen.append(event)
        except ConnectionClosed as closed:
            self.codes.append(closed.rcvd.code if closed.rcvd else 1006)


async def test_a_rolling_restart_fails_no_request_and_loses_no_event(database: str, events_url: str) -> None:
    configure(database, events_url)
    waits = {"SHUTDOWN_DRAIN_S": "1", "SHUTDOWN_SPREAD_S": "1"}
    async with cluster(database, events_url, workers=0, **waits) as running:
        team = await new_team(running.product)
        await team.connect_sandbox()
        maria = await team.contact()
        clients = [Client(team, (team.owner, team.agent)[n % 2]) for n in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            following = [group.create_task(client.follow()) for client in clients]
            async with asyncio.timeout(20):
                while not all(client.cursor for client in clients):
                    await asyncio.sleep(0.05)
            go_on = asyncio.Event()
            working = group.create_task(keep_asking(team, maria, go_on))
            for server in running.servers:
                await restart(server)
            go_on.set()
            made = await working
            async with asyncio.timeout(20):
                while any(len(requests_in(client)) < len(made) for client in clients):
                    await asyncio.sleep(0.05)
            for task in following:
                task.cancel()
        account = UUID(team.account_id)
        for client in clients:
            assert requests_in(client) == made
            numbers = [Cursor.decode(event["cursor"], account).seq for event in client.seen]
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            assert client.codes, "every client sat on a server that was restarted"
            assert set(client.codes) == {1012}
        assert await gaps() == 0


async def restart(server: Process) -> None:
    server.signal(signal.SIGTERM)
    assert await server.ended() == 0
    await server.start()


async def keep_asking(team: Team, contact: dict[str, Any], enough: asyncio.Event) -> list[str]:
    """Make requests on new connections, one after the other; each must succeed the first time."""
    made = []
    while not enough.is_set():
        product = Product(team.product.base_url)
        payload = await product.ok(d.CREATE, team.ask(contact), token=team.agent)
        made.append(payload["paymentRequest"]["id"])
        await product.aclose()
        await asyncio.sleep(0.05)
    return made


def requests_in(client: Client) -> list[str]:
    return [e["paymentRequest"]["id"] for e in client.seen if e["__typename"] == "PaymentRequestUpdated"]
