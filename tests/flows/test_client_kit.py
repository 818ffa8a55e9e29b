"""The package in clients/, as npm packs it, with the real libraries in Node."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from models.database import open_database
from models.ids import parse_public_id
from models.tables import Account
from services.accounts import authentication, users
from services.sandbox import channels
from tests.configured import change
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.client_kit import (
    EXAMPLES,
    INSTALLED,
    KIT,
    Example,
    Wire,
    build_project,
    link_libraries,
    run,
    started,
)
from tests.flows.conftest import Team, new_team
from tests.flows.harness import PASSWORD, Product

pytestmark = pytest.mark.slow

MAX_SOCKET_BYTES = 4_000
NORA = "nora@example.com"
LIFE_S = 4
REFUSED = 4403
MERGE = f"mutation($input: MergeContactsInput!) {{ mergeContacts(input: $input) {{ contact {{ id }} {d.ERRORS} }} }}"
PRINT_DOCUMENTS = 'import("./src/documents.js").then(({ screens }) => console.log(JSON.stringify(screens)))'

Shown = dict[str, Any]


@pytest.fixture(scope="module")
def node() -> str:
    """Node with the libraries, which `./dev test` installs. Under CI=true a missing one is a failure."""
    found = shutil.which("node")
    if found is None or not (INSTALLED / "node_modules" / "stamp").exists():
        if os.environ.get("CI") == "true":
            pytest.fail("no Node, or tests/clients is not installed: ./dev test does it with npm")
        pytest.skip("no Node, or tests/clients is not installed")
    return found


@pytest.fixture(scope="module")
def tarball(node: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, packed."""
    folder = tmp_path_factory.mktemp("packed")
    run(["npm", "pack", "--silent", "--pack-destination", str(folder), str(KIT)], folder)
    (packed,) = folder.glob("*.tgz")
    return packed


@pytest.fixture(scope="module")
def empty_project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with nothing but the package, which npm installs without a network."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    quiet = ["--offline", "--no-audit", "--no-fund", "--loglevel=error"]
    run(["npm", "install", *quiet, str(tarball)], folder)
    return folder


@pytest.fixture(scope="module")
def project(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_project(tarball, tmp_path_factory.mktemp("project"))


def tsc(folder: Path, *options: str) -> None:
    run(["node", str(INSTALLED / "node_modules" / "typescript" / "bin" / "tsc"), *options], folder)


def test_the_package_installs_into_an_empty_project_and_nothing_else_with_it(empty_project: Path) -> None:
    modules = [path.name for path in (empty_project / "node_modules").iterdir() if not path.name.startswith(".")]
    assert modules == ["paythread-client"]
    package = empty_project / "node_modules" / "paythread-client"
    assert {path.name for path in package.iterdir()} == {
        "lib",
        "generated",
        "examples",
        "package.json",
        "README.md",
        "LICENSE",
    }
    exports = json.loads((package / "package.json").read_text())["exports"]
    targets = [file for one in exports.values() for file in (one.values() if isinstance(one, dict) else [one])]
    assert [file for file in targets if not (package / file).is_file()] == []


def test_its_types_resolve_and_its_modules_load_without_any_library(empty_project: Path) -> None:
    shutil.copy(INSTALLED / "kit" / "types.mts", empty_project)
    tsc(empty_project, "--strict", "--noEmit", "--module", "nodenext", "--lib", "es2022,dom", "types.mts")
    script = (
        'const { createLive } = await import("paythread-client"); const { shape } = await import("paythread-client/shape");'
        "console.log(JSON.stringify([typeof createLive, shape.feeds.length > 0]))"
    )
    assert json.loads(run(["node", "--input-type=module", "-e", script], empty_project)) == ["function", True]


def test_lib_is_what_the_compiler_makes_of_src(node: str, tmp_path: Path) -> None:
    for part in ("src", "generated"):
        shutil.copytree(KIT / part, tmp_path / part)
    for file in ("tsconfig.json", "package.json"):
        shutil.copy(KIT / file, tmp_path)
    link_libraries(tmp_path)
    tsc(tmp_path, "-p", ".")
    made, committed = (
        {path.name: path.read_text() for path in (folder / "lib").iterdir()} for folder in (tmp_path, KIT)
    )
    assert made == committed, "run `npm run build` in clients/ with TypeScript of tests/clients"


def test_the_socket_stays_small_and_imports_nothing() -> None:
    code = (KIT / "lib" / "live.js").read_bytes()
    assert len(gzip.compress(code, 9)) <= MAX_SOCKET_BYTES
    assert b"import" not in code


def test_its_types_fit_those_of_the_libraries(project: Path) -> None:
    shutil.copy(INSTALLED / "kit" / "libraries.mts", project)
    options = ["--strict", "--noEmit", "--skipLibCheck", "--module", "nodenext", "--lib", "es2022,dom"]
    tsc(project, *options, "libraries.mts")


async def test_the_socket_and_the_cache_rules_alone(project: Path, sqlite_template: Path, tmp_path: Path) -> None:
    """Node's own test runner; the socket also against a server."""
    for name in ("live", "cache"):
        shutil.copy(INSTALLED / "kit" / f"{name}.test.mjs", project)
    url = f"sqlite:///{shutil.copyfile(sqlite_template, tmp_path / 'kit.db')}"
    async with open_database(url), harness.in_process(url, "memory://") as product:
        team = await new_team(product)
        create = {"query": d.CREATE_CONTACT, "variables": {"input": {"name": "Maria"}}}
        real = json.dumps({"url": f"{product.base_url}/graphql", "token": team.agent, "create": create})
        tests = await asyncio.create_subprocess_exec(
            *("node", "--conditions=development", "--test", "live.test.mjs", "cache.test.mjs"),
            cwd=project,
            env={**os.environ, "REAL": real, "NODE_ENV": "development"},
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            output = (await asyncio.wait_for(tests.communicate(), 60))[0].decode()
        finally:
            if tests.returncode is None:
                tests.terminate()  # Node ends the processes of its test files, too
                await tests.wait()
    assert tests.returncode == 0, output
    assert re.search(r"^# skipped 0$", output, re.MULTILINE), output


# ---------------------------------------------------------------------------------------------------------- the screens
def thread(shown: Shown) -> list[Any]:
    return [edge["node"] for edge in shown["thread"]["conversation"]["thread"]["edges"]]


def requests(shown: Shown) -> Any:
    return shown["payments"]["contact"]["paymentRequests"]


def rows(shown: Shown) -> list[Any]:
    return [edge["node"] for edge in shown["inbox"]["conversations"]["edges"]]


# The parts of the screens, each as the user sees it.
PARTS: dict[str, Callable[[Shown], Any]] = {
    "thread: new messages and cards": lambda shown: [(item["id"], item.get("text")) for item in thread(shown)],
    "thread: a card turns Paid": lambda shown: [item.get("paymentRequest") for item in thread(shown)],
    "thread: delivery ticks": lambda shown: [item.get("deliveryStatus") for item in thread(shown)],
    "Payments tab: new requests": lambda shown: [edge["node"]["id"] for edge in requests(shown)["edges"]],
    "Payments tab: totalCount": lambda shown: requests(shown)["totalCount"],
    "Payments tab: status, amounts": lambda shown: [edge["node"] for edge in requests(shown)["edges"]],
    "contact's totals": lambda shown: shown["payments"]["contact"]["paymentSummary"],
    "inbox: order and new rows": lambda shown: [row["id"] for row in rows(shown)],
    "inbox: preview, time": lambda shown: [(row["preview"], row["lastActivityAt"]) for row in rows(shown)],
    "inbox: unread count": lambda shown: [row["unreadCount"] for row in rows(shown)],
    "bell: number": lambda shown: shown["bell"]["viewer"]["unreadNotificationCount"],
    "bell: list": lambda shown: [edge["node"] for edge in shown["bell"]["notifications"]["edges"]],
    "filtered list": lambda shown: [edge["node"] for edge in shown["unpaid"]["paymentRequests"]["edges"]],
    "ledger": lambda shown: [edge["node"] for edge in shown["ledger"]["contact"]["payments"]["edges"]],
    "dashboard": lambda shown: shown["dashboard"]["dashboard"]["byCurrency"],
}


def bare(value: Any) -> Any:
    """Without what a library adds."""
    if isinstance(value, list):
        return [bare(one) for one in value]
    if isinstance(value, dict):
        return {name: bare(one) for name, one in value.items() if not name.startswith("__")}
    return value


class Matrix:
    """What each example shows, compared with what the server gives, after each step."""

    def __init__(self, team: Team, documents: dict[str, str], screens: dict[str, dict[str, str]]) -> None:
        self.team = team
        self.documents = documents
        self.screens = screens
        self.examples: dict[str, Example] = {}
        self.wrong: dict[str, dict[str, list[str]]] = {}
        self.reads: dict[str, list[tuple[str, dict[str, int]]]] = {}

    async def truth(self) -> Shown:
        found = {}
        for name, variables in self.screens.items():
            found[name] = await self.team.product.gql(self.documents[name], variables, token=self.team.agent)
        return found

    async def after(self, step: str, *, within: float = 20) -> None:
        """Wait until each example shows what the server gives; note which part of which does not."""
        deadline = asyncio.get_running_loop().time() + within
        while True:
            truth = await self.truth()
            differing, seen = {}, {}
            for name, example in self.examples.items():
                found = await example.ask("look")
                seen[name] = found["reads"]
                differing[name] = [part for part, of in PARTS.items() if not self._same(of, found["shown"], truth)]
            if not any(differing.values()) or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.1)
        for name, parts in differing.items():
            self.reads.setdefault(name, []).append((step, seen[name]))
            for part in parts:
                self.wrong.setdefault(name, {}).setdefault(part, []).append(step)

    def _same(self, of: Callable[[Shown], Any], shown: Shown, truth: Shown) -> bool:
        try:
            return bool(bare(of(shown)) == bare(of(truth)))
        except KeyError:
            return False

    def table(self) -> str:
        lines = [f"{'':34}" + "".join(f"{name:>10}" for name in self.examples)]
        for part in PARTS:
            cells = ["no" if part in self.wrong.get(name, {}) else "yes" for name in self.examples]
            lines.append(f"{part:34}" + "".join(f"{cell:>10}" for cell in cells))
        return "\n".join(lines)


async def test_every_part_of_the_screens_follows_the_events(
    project: Path, sqlite_template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The story of docs/howto/build-an-inbox.md on each example at the same time, with tokens that live four seconds."""
    url = f"sqlite:///{shutil.copyfile(sqlite_template, tmp_path / 'kit.db')}"
    documents = json.loads(run(["node", "-e", PRINT_DOCUMENTS], project))
    async with open_database(url), Wire() as public, Wire() as wire, AsyncExitStack() as stack:
        server = Restartable(url, public, wire)
        stack.push_async_callback(server.product.aclose)
        stack.push_async_callback(server.stop)
        await server.start()
        team = await nora(await new_team(server.product))
        await team.connect_sandbox()
        await team.connect_channels()
        people = [await team.contact(name, n) for n, name in enumerate(("Maria", "Omar", "Zoe"), start=1)]
        await team.send(await team.request(people[0]))
        change(access_token_life=timedelta(seconds=LIFE_S))
        one, thread_of = {"id": people[0]["id"]}, {"id": people[0]["conversation"]["id"]}
        variables = {"thread": thread_of, "payments": one, "ledger": one}
        matrix = Matrix(team, documents, {name: variables.get(name, {}) for name in documents})
        given = {"url": f"http://127.0.0.1:{wire.port}/graphql", "person": {"email": NORA, "password": PASSWORD}}
        for name in EXAMPLES:
            matrix.examples[name] = await stack.enter_async_context(started(project, name, given))
            for screen, of in matrix.screens.items():
                await matrix.examples[name].ask("watch", name=screen, screen=screen, variables=of)
        await matrix.after("loading")
        await live_story(matrix, team, *people)
        await interruptions(matrix, team, server, wire, people[0])
        looked = {name: await example.ask("look") for name, example in matrix.examples.items()}
    with capsys.disabled():
        print(f"\n{matrix.table()}")  # noqa: T201  the matrix is for people
    assert matrix.wrong == {}  # by example and part: the steps after which it showed something else
    assert {name: one["warnings"] for name, one in looked.items()} == {name: [] for name in EXAMPLES}
    assert [name for name, one in looked.items() if one["renewals"] == 0 or REFUSED not in one["codes"]] == []
    for name in EXAMPLES[:3]:
        assert {
            step: read for step, read in reads_of(matrix.reads[name]).items() if not read <= ALLOWED.get(step, ASKED)
        } == {}


# Only the server knows which requests are unpaid, and an event does not contain what the ledger gained.
ASKED = {"Unpaid", "Ledger"}
# The event has no edge of a new conversation, and none says which notifications were read. Interrupted, a client may load again.
ALLOWED = {
    "a message of a new contact": ASKED | {"Inbox"},
    "reading notifications": ASKED | {"Bell"},
    "a restored backup": {"Unpaid", "Ledger", "Inbox", "Thread", "Payments", "Bell", "Dashboard"},
}


def reads_of(steps: list[tuple[str, dict[str, int]]]) -> dict[str, set[str]]:
    """By step, the queries that went over the network."""
    return {
        step: {name for name, count in after.items() if count > before.get(name, 0)}
        for (_, before), (step, after) in pairwise(steps)
    }


async def live_story(matrix: Matrix, team: Team, maria: Any, omar: Any, zoe: Any) -> None:
    draft = await team.request(maria)
    await matrix.after("a draft")
    await team.send(draft)
    await matrix.after("sending")
    await team.pay(draft)
    await matrix.after("paying")
    await writes(team, "SMS", "+14155552602", "Can you come on Friday?")
    await matrix.after("a message of a contact")
    await writes(team, "SMS", "+14155559999", "Hello, I am new")
    await matrix.after("a message of a new contact")
    unwanted = await team.request(maria)
    await matrix.after("another draft")
    await team.product.ok(d.DISCARD, {"paymentRequestId": unwanted["id"]}, token=team.agent)
    await matrix.after("discarding it")
    merge = {"idempotencyKey": harness.key(), "contactId": omar["id"], "mergedContactId": zoe["id"]}
    await team.product.ok(MERGE, merge, token=team.agent)
    await matrix.after("merging contacts")
    listed = await team.product.one(d.NOTIFICATIONS, token=team.agent)
    await team.product.gql(d.NOTIFICATIONS_READ, {"upTo": listed["eventCursor"]}, token=team.agent)
    await matrix.after("reading notifications")


async def interruptions(matrix: Matrix, team: Team, server: Restartable, wire: Wire, maria: Any) -> None:
    request = await team.request(maria)
    await team.send(request)
    with wire.away():
        await team.pay(request)
    await matrix.after("a cut")
    await server.stop()
    await server.start(reachable=False)
    change(access_token_life=timedelta(seconds=LIFE_S))
    await team.send(await team.request(maria))
    server.reach()
    await matrix.after("a restart")
    await server.stop()
    await Account.filter(id=parse_public_id(team.account_id, "acc")).update(event_epoch="restored")
    await server.start(reachable=False)
    change(access_token_life=timedelta(seconds=LIFE_S))
    await team.send(await team.request(maria))
    server.reach()
    await matrix.after("a restored backup")
    await team.send(await team.request(maria))
    await matrix.after("sending after it")


async def writes(team: Team, kind: str, sender: str, text: str) -> None:
    channel = parse_public_id(team.channels[kind], "chn")
    assert channel is not None
    await channels.contact_writes(channel, sender, text)


async def nora(team: Team) -> Team:
    """The team with the agent that the examples sign in as."""
    owner = await authentication.authenticate(team.owner)
    assert owner is not None
    user = await users.add(owner, email=NORA, name="Nora Agent", role="AGENT", password=PASSWORD)
    return replace(team, agent=await team.product.sign_in(NORA), agent_id=str(user.id))


class Restartable:
    """A server behind two addresses that stay: the public one, and that of the examples."""

    def __init__(self, url: str, public: Wire, examples: Wire) -> None:
        self._url = url
        self._public = public
        self._examples = examples
        self._running: AsyncExitStack | None = None
        self.product = Product(f"http://127.0.0.1:{public.port}")

    async def start(self, *, reachable: bool = True) -> None:
        self._running = AsyncExitStack()
        address = self.product.base_url
        running = harness.in_process(self._url, "memory://", PUBLIC_URL=address, SHUTDOWN_DRAIN_S="0")
        inner = await self._running.enter_async_context(running)
        self._public.target = int(inner.base_url.rpartition(":")[2])
        if reachable:
            self.reach()

    def reach(self) -> None:
        self._examples.target = self._public.target

    async def stop(self) -> None:
        self._public.target = self._examples.target = None
        if self._running is not None:
            await self._running.aclose()
        self._running = None
