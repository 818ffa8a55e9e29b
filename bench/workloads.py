"""The workloads: one table of the report each, with its targets and what a unit of Paythread's does beyond the peers'."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench import targets
from bench.figures import Measure
from bench.runs import Figures, Lab, fanout, page, send, start, thread, webhook
from bench.targets import PEERS, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One table of the report. `engine` is empty where no database matters."""

    name: str
    title: str
    unit: str
    measures: Sequence[Measure]
    targets: Sequence[Target]
    run: Callable[[Lab, Target, str], Figures]
    engine: str = ""
    base: str = ""  # the row that the others are compared with
    notes: str = ""


CPU = Measure(key="cpu", title="CPU µs", digits=1)
RATE = Measure(key="rate", title="per s", less_is_better=False)
P50, P99 = Measure(key="p50", title="p50 ms", digits=1), Measure(key="p99", title="p99 ms", digits=1)
DATABASE_CPU = Measure(key="database_cpu", title="PostgreSQL's CPU µs", digits=1)

_MORE_IN_THREADS = (
    "Paythread also checks the API key, scopes every row to the account and role, and reads each card's payment request from its own"
    " table; the peers read one table and know no tenants. No answer cache is on in this table (`ANSWER_CACHE_MB=0`)."
)
_MORE_IN_ANSWERS = (
    "Both keep answers. Paythread reads the account's position in the log from the database with each request, so a change by any process"
    " is seen by the next request; it also checks the API key. yoga's plugin reads nothing: it forgets an answer when a mutation of the"
    " same process returns a type that the answer holds."
)
_MORE_IN_WEBHOOKS = (
    "A unit is one answered webhook; every 20th is a repeat. The peers verify, deduplicate and write three rows. Paythread matches the"
    " checkout, stores the event and the money fact, recomputes the request and the contact's totals, adds the card, the notifications"
    " and the log's entries under gapless numbers, and announces them."
)


def _thread(engine: str, title: str, chosen: Sequence[Target]) -> Workload:
    measures = [CPU, RATE, P50, P99, *([DATABASE_CPU] if engine == "postgres" else [])]
    return Workload(
        name="thread",
        title=f"Thread query, {title}",
        unit="a request: 50 of a conversation's 200 items, messages and cards; 20 conversations in turn, 16 connections",
        measures=measures,
        targets=chosen,
        run=thread,
        engine=engine,
        base="Paythread",
        notes=_MORE_IN_THREADS,
    )


def _cached(engine: str, title: str) -> Workload:
    return Workload(
        name="cached",
        title=f"Thread query, unchanged thread, answer caches on, {title}",
        unit="a request as above; nothing changes between the requests",
        measures=[CPU, RATE, P50, P99, *([DATABASE_CPU] if engine == "postgres" else [])],
        targets=[targets.PAYTHREAD, targets.YOGA_CACHED, targets.UVICORN],
        run=thread,
        engine=engine,
        base="Paythread",
        notes=_MORE_IN_ANSWERS,
    )


def _webhook(engine: str, title: str, chosen: Sequence[Target]) -> Workload:
    measures = [CPU, RATE, P50, P99, *([DATABASE_CPU] if engine == "postgres" else [])]
    return Workload(
        name="webhook",
        title=f"Signed webhook to commit, {title}",
        unit="a webhook, answered after the durable commit; 16 connections",
        measures=measures,
        targets=chosen,
        run=webhook,
        engine=engine,
        base="Paythread",
        notes=_MORE_IN_WEBHOOKS,
    )


COMMITS = Target(name="floor: bare commit", command=(sys.executable, str(PEERS / "commit_floor.py")))
SERVERS = [
    targets.PAYTHREAD,
    targets.STRAWBERRY,
    targets.YOGA,
    targets.APOLLO,
    targets.MERCURIUS,
    targets.MERCURIUS_JIT,
]
UNCACHED = [targets.PAYTHREAD_UNCACHED, *SERVERS[1:], targets.UVICORN]

WORKLOADS = [
    Workload(
        name="fanout",
        title="Fan-out",
        unit="one delivery of a card of 7 fields to one subscriber; one event at a time",
        measures=[
            CPU,
            RATE,
            Measure(key="p50", title="last client p50 ms", digits=1),
            Measure(key="p99", title="p99 ms", digits=1),
            Measure(key="ready", title="all subscribed s", digits=2),
            Measure(key="memory", title="KiB per socket", digits=1),
        ],
        targets=[*SERVERS, targets.NODE_SOCKETS, targets.UVICORN_SOCKETS],
        run=fanout,
        base="Paythread",
        notes="Paythread's event is committed to SQLite by another process and announced over Redis, as a worker does it; its time counts"
        " in the latency, not in the server's CPU. The peers publish a constant card from memory when they get a request. Paythread's"
        " sockets are signed in, and the server checks that each credential is still valid.",
    ),
    _thread("sqlite", "SQLite", UNCACHED),
    _thread("postgres", "PostgreSQL", UNCACHED),
    _cached("sqlite", "SQLite"),
    _cached("postgres", "PostgreSQL"),
    _webhook("sqlite", "SQLite (synchronous=FULL)", [*SERVERS, COMMITS]),
    _webhook("postgres", "PostgreSQL (fsync on)", SERVERS),
    Workload(
        name="send",
        title="Create and send a payment request, SQLite",
        unit="two mutations of one client, one after the other",
        measures=[P50, P99, CPU],
        targets=[targets.PAYTHREAD],
        run=send,
        engine="sqlite",
        base="Paythread",
        notes="The message's delivery to the simulated channel is included in the CPU time. Peers have no such operation.",
    ),
    Workload(
        name="page",
        title="Pay page, SQLite",
        unit="one page behind a payment link; 500 links, 4 connections",
        measures=[CPU, RATE, P50, P99],
        targets=[targets.PAYTHREAD, targets.UVICORN],
        run=page,
        engine="sqlite",
        base="Paythread",
    ),
    Workload(
        name="start",
        title="Process start",
        unit="from the start of the process to its first answer to a GraphQL request",
        measures=[
            Measure(key="cpu", title="CPU s", digits=2),
            Measure(key="lasted", title="s", digits=2),
            Measure(key="memory", title="idle RSS MiB", digits=0),
        ],
        targets=[*SERVERS, targets.UVICORN],
        run=start,
        engine="sqlite",
        base="Paythread",
    ),
]
