"""How one unit of each workload is measured against one running target."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from bench import load, targets
from bench.figures import percentile
from bench.processes import Child, Failed, cpu_of_tree, free_port, wait_for_port
from bench.stores import Stores, rows_in
from bench.targets import ROOT, Target
from tests.servers import PostgresServer, RedisServer, ServerUnavailable

SECRET = "whsec_bench_0123456789"
MARKER = b"bench-card"
CONNECTIONS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured."""

    rounds: int
    seconds: float
    warm_s: float
    sockets: int
    webhooks: int


@dataclass(slots=True, kw_only=True)
class Lab:
    """What a run needs: sizes, databases, servers, a folder for files that go away."""

    size: Size
    stores: Stores
    folder: Path
    postgres: PostgresServer | None = None
    redis: RedisServer | None = None
    no_npm: str | None = None  # why the Node peers are not installed


Figures = dict[str, float]


# ------------------------------------------------------------------------------------------------------------- running
@dataclass(slots=True)
class Running:
    """A started target."""

    child: Child
    port: int
    url: str
    known: Any = field(default_factory=dict)


@contextlib.contextmanager
def running(lab: Lab, target: Target, workload: str, engine: str, count: int = 0, **env: str) -> Iterator[Running]:
    """The target on a database of its own, ended afterwards. Raises: Failed."""
    if target.npm and lab.no_npm is not None:
        raise Failed(lab.no_npm)
    with contextlib.ExitStack() as stack:
        url, known = "", dict[str, Any]()
        if target.data:
            url, known = stack.enter_context(lab.stores.copy(target.data, workload, engine or "sqlite", count))
        port = free_port()
        given = {"PORT": str(port), "DATABASE_URL": url, "WEBHOOK_SECRET": SECRET, **target.env, **env}
        log = lab.folder / "server.log"
        log.unlink(missing_ok=True)
        child = Child(target.command, env=given, folder=ROOT, log=log)
        stack.callback(child.stop)
        wait_for_port(child, port)
        try:
            yield Running(child, port, url, known)
        except (OSError, ValueError, Failed) as error:
            if child.ended():
                raise Failed(f"the server ended: {child.last_words()}") from error
            raise


def _http(lab: Lab, server: Running, requests: Iterator[bytes], *, connections: int = CONNECTIONS) -> Figures:
    """Send for the given time after a short warm-up. CPU is that of the server and, beside it, of PostgreSQL."""
    load.send_all(server.port, requests, connections=connections, seconds=lab.size.warm_s)
    database = lab.postgres.pid if lab.postgres is not None and server.url.startswith("postgres") else None
    before, database_before = server.child.cpu_s(), cpu_of_tree(database) if database else 0.0
    answers = load.send_all(server.port, requests, connections=connections, seconds=lab.size.seconds)
    count = len(answers.seconds)
    found = {
        "cpu": (server.child.cpu_s() - before) / count * 1e6,
        "rate": count / answers.lasted_s,
        "p50": percentile(answers.seconds, 0.5) * 1e3,
        "p99": percentile(answers.seconds, 0.99) * 1e3,
    }
    if database:
        found["database_cpu"] = (cpu_of_tree(database) - database_before) / count * 1e6
    return found


# ------------------------------------------------------------------------------------------------------------- fan-out
_OUR_CARDS = """subscription { inboxEvents { ... on Subscribed { cursor } ... on ThreadItemAdded { edge { node { ... on ActivityCard {
  id kind status text occurredAt paymentRequest { amount { minorUnits currency } } } } } } } }"""
_PEER_CARDS = "subscription { cardAdded { id kind status title amountMinor currency at } }"


def fanout(lab: Lab, target: Target, engine: str) -> Figures:
    count = lab.size.sockets
    ours = target.data == "paythread"
    env = {"EVENTS_URL": lab.redis.url} if ours and lab.redis is not None else {}
    with contextlib.ExitStack() as stack:
        if ours and lab.redis is None:
            raise Failed("no Redis")
        server = stack.enter_context(running(lab, target, "fanout", engine, count, **env))
        trigger = stack.enter_context(_events(server, env)) if ours else load.HttpTrigger(server.port)
        stack.callback(trigger.close)

        def clients(of: int) -> load.Sockets:
            document = _OUR_CARDS if ours else _PEER_CARDS
            tokens = server.known.get("keys", ())
            begun = b'"cursor"' if ours else b""
            made = load.Sockets(server.port, of, document, marker=MARKER, begun=begun, tokens=tokens)
            stack.callback(made.close)
            return made

        first = clients(1)  # what the server loads with its first socket belongs to no socket
        first.open(timeout_s=30)
        first.idle(0.2)
        first.deliver(trigger, timeout_s=30)
        first.close()
        sockets = clients(count)
        empty = server.child.rss()
        ready_s = sockets.open(timeout_s=120)
        sockets.idle(lab.size.warm_s)
        for _ in range(3):
            sockets.deliver(trigger, timeout_s=60)
        memory = server.child.rss() - empty
        before, until, lasted = server.child.cpu_s(), time.perf_counter() + lab.size.seconds, list[float]()
        while time.perf_counter() < until or len(lasted) < 5:
            lasted.append(sockets.deliver(trigger, timeout_s=60))
        used = server.child.cpu_s() - before
    deliveries = count * len(lasted)
    return {
        "cpu": used / deliveries * 1e6,
        "rate": deliveries / sum(lasted),
        "p50": percentile(lasted, 0.5) * 1e3,
        "p99": percentile(lasted, 0.99) * 1e3,
        "ready": ready_s,
        "memory": memory / count / 1024,
    }


@contextlib.contextmanager
def _events(server: Running, env: Mapping[str, str]) -> Iterator[load.PipeTrigger]:
    """The process that commits Paythread's events, as a worker does."""
    given = {**os.environ, **targets.PAYTHREAD.env, **env, "DATABASE_URL": server.url}
    command = [sys.executable, "-m", "tests.bench_data", "events"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command, cwd=ROOT, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                errors.seek(0)
                raise Failed(f"events: {errors.read().decode(errors='replace')[-200:]}")
            yield load.PipeTrigger(process.stdin.fileno(), process.stdout.fileno())
        finally:
            process.kill()
            process.communicate()


# -------------------------------------------------------------------------------------------------------------- thread
_OUR_THREAD = """query($id: ID!) { conversation(id: $id) { id thread(first: 50) { nodes { __typename
  ... on Message { id body direction channelKind deliveryStatus occurredAt }
  ... on ActivityCard { id kind status text paymentRequest { amount { minorUnits currency } } occurredAt } } } } }"""
_PEER_THREAD = """query($id: ID!) { conversation(id: $id) { id thread(first: 50) { __typename
  ... on Message { id body direction channel status at }
  ... on Card { id kind status title amountMinor currency at } } } }"""


def thread(lab: Lab, target: Target, engine: str) -> Figures:
    with running(lab, target, "thread", engine) as server:
        if not target.data:
            return _http(lab, server, itertools.repeat(load.graphql("{ __typename }", {})))
        ours = target.data == "paythread"
        headers = [("authorization", f"Bearer {server.known['keys'][0]}")] if ours else []
        document = _OUR_THREAD if ours else _PEER_THREAD
        made = [load.graphql(document, {"id": one}, headers) for one in server.known["conversations"]]
        items = orjson.loads(load.ask(server.port, made[0]).partition(b"\r\n\r\n")[2])["data"]["conversation"]["thread"]
        if len(items["nodes"] if ours else items) != 50:
            raise Failed("the thread has no 50 items")
        return _http(lab, server, itertools.cycle(made))


# ------------------------------------------------------------------------------------------------------------- webhook
def webhooks(known: Any) -> Iterator[bytes]:
    """Signed events of paid checkouts, each once; every twentieth is the one before it again."""
    for n, (reference, session, *_) in enumerate(known["requests"], 1):
        wanted = signed(known["path"], event(n, reference, session))
        yield wanted
        if n % 19 == 0:
            yield wanted


def event(n: int, reference: str, session: str) -> bytes:
    """A `checkout.session.completed` with the fields of Stripe's own."""
    thing = {
        "id": session,
        "object": "checkout.session",
        "metadata": {"payment_request_id": reference},
        "client_reference_id": reference,
        "payment_intent": f"pi_bench{n:08d}",
        **_SESSION,
    }
    whole = {
        "id": f"evt_bench{n:08d}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(time.time()),
        "data": {"object": thing},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": None, "idempotency_key": None},
        "type": "checkout.session.completed",
    }
    return orjson.dumps(whole, option=orjson.OPT_INDENT_2)


_SESSION: dict[str, Any] = {
    "amount_subtotal": 12500,
    "amount_total": 12500,
    "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
    "billing_address_collection": None,
    "cancel_url": "https://pay.example/p/back",
    "collected_information": {"business_name": None, "individual_name": None, "shipping_details": None},
    "consent": None,
    "currency": "usd",
    "currency_conversion": None,
    "custom_fields": [],
    "customer": None,
    "customer_creation": "if_required",
    "customer_details": {
        "address": {"city": None, "country": "US", "line1": None, "postal_code": "94107", "state": None}
    },
    "expires_at": 4102444800,
    "invoice": None,
    "livemode": False,
    "locale": None,
    "mode": "payment",
    "payment_method_collection": "if_required",
    "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
    "payment_method_types": ["card"],
    "payment_status": "paid",
    "phone_number_collection": {"enabled": False},
    "shipping_address_collection": None,
    "status": "complete",
    "submit_type": None,
    "success_url": "https://pay.example/p/back",
    "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    "ui_mode": "hosted",
    "url": None,
}


def signed(path: str, body: bytes) -> bytes:
    """The webhook's request, signed now as Stripe signs it."""
    at = str(int(time.time()))
    mac = hmac.new(SECRET.encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
    return load.request(
        "POST", path, body, [("content-type", "application/json"), ("stripe-signature", f"t={at},v1={mac}")]
    )


def webhook(lab: Lab, target: Target, engine: str) -> Figures:
    if not target.data:
        return _commits(lab, target)
    with running(lab, target, "webhook", engine, lab.size.webhooks) as server:
        sent: set[bytes] = set()
        measured = _http(lab, server, _noted(webhooks(server.known), sent))
        recorded = rows_in(server.url, "money_fact" if target.data == "paythread" else "activity_card")
        if recorded != len(sent):
            raise Failed(f"{len(sent)} payments were sent, {recorded} recorded")
        return measured


def _noted(requests: Iterator[bytes], sent: set[bytes]) -> Iterator[bytes]:
    for one in requests:
        sent.add(one)
        yield one


def _commits(lab: Lab, target: Target) -> Figures:
    path = lab.folder / "floor.db"
    command = [*target.command, str(path), str(lab.size.seconds)]
    done = subprocess.run(command, capture_output=True, timeout=lab.size.seconds + 60, check=True)
    count, lasted, cpu = map(float, done.stdout.splitlines()[-1].split())
    for file in lab.folder.glob("floor.db*"):
        file.unlink()
    return {"cpu": cpu / count * 1e6, "rate": count / lasted}


# ------------------------------------------------------------------------------------- create and send, pay page, start
_CREATE = """mutation($input: CreatePaymentRequestInput!) { createPaymentRequest(input: $input) {
  paymentRequest { id checkoutUrl } userErrors { code } } }"""
_SEND = """mutation($input: SendPaymentRequestInput!) { sendPaymentRequest(input: $input) {
  message { id } activityCard { id } userErrors { code } } }"""


def send(lab: Lab, target: Target, engine: str) -> Figures:
    """One client creates a request and sends it, again and again."""
    with running(lab, target, "send", engine) as server:
        known = server.known
        headers = [("authorization", f"Bearer {known['keys'][0]}")]

        def one() -> float:
            started = time.perf_counter()
            order = {
                "idempotencyKey": str(uuid.uuid4()),
                "for": {"contactId": known["contact"]},
                "productName": "Deep clean",
            }
            made = _data(server, _CREATE, {**order, "amount": {"amount": "125.00"}}, headers)["createPaymentRequest"]
            order = {"idempotencyKey": str(uuid.uuid4()), "channelId": known["channel"]}
            sent = _data(server, _SEND, {**order, "paymentRequestId": made["paymentRequest"]["id"]}, headers)
            if not sent["sendPaymentRequest"]["activityCard"]:
                raise Failed(f"not sent: {sent}")
            return time.perf_counter() - started

        for _ in range(10):
            one()
        before, until, lasted = server.child.cpu_s(), time.perf_counter() + lab.size.seconds, list[float]()
        while time.perf_counter() < until:
            lasted.append(one())
        return {
            "p50": percentile(lasted, 0.5) * 1e3,
            "p99": percentile(lasted, 0.99) * 1e3,
            "cpu": (server.child.cpu_s() - before) / len(lasted) * 1e6,
        }


def _data(server: Running, document: str, given: Any, headers: Sequence[tuple[str, str]]) -> Any:
    answer = orjson.loads(
        load.ask(server.port, load.graphql(document, {"input": given}, headers)).partition(b"\r\n\r\n")[2]
    )
    if answer.get("errors"):
        raise Failed(f"refused: {answer['errors'][0]['message']}")
    return answer["data"]


def page(lab: Lab, target: Target, engine: str) -> Figures:
    """The page behind the link, of many requests."""
    with running(lab, target, "page", engine, 500) as server:
        if not target.data:
            return _http(lab, server, itertools.repeat(load.request("GET", "/p/constant")))
        made = [load.request("GET", f"/p/{token}") for _, _, token in server.known["requests"]]
        random.Random(1).shuffle(made)
        return _http(lab, server, itertools.cycle(made), connections=4)


def start(lab: Lab, target: Target, engine: str) -> Figures:
    """From the process's start to its first answer, and what it holds then."""
    with running(lab, target, "start", engine) as server:
        load.ask(server.port, load.graphql("{ __typename }", {}))
        lasted, used = time.perf_counter() - server.child.started_at, server.child.cpu_s()
        time.sleep(lab.size.warm_s)
        return {"cpu": used, "lasted": lasted, "memory": server.child.rss() / 2**20}


def open_redis() -> RedisServer | None:
    """A private Redis, or none where no program is found."""
    try:
        made = RedisServer()
        made.start()
    except ServerUnavailable:
        return None
    return made


def open_postgres() -> PostgresServer | None:
    """A private PostgreSQL that forces its commits to the disk, or none."""
    try:
        made = PostgresServer(durable=True)
        made.start()
    except ServerUnavailable:
        return None
    return made
