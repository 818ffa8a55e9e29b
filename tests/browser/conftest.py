"""The server as a process, Chromium, and guards on every page. These tests need their own pytest process (see `./dev`)."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Route

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CHROMIUM.exists() or os.environ.get("CI") == "true":
        return
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.skip(reason=f"no {CHROMIUM}: apt-get install --no-install-recommends chromium"))


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict[str, Any]) -> dict[str, Any]:
    """Debian's Chromium; without its sandbox only as root."""
    args = [
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    if os.geteuid() == 0:
        args.append("--no-sandbox")
    return {**browser_type_launch_args, "executable_path": str(CHROMIUM), "args": args}


@dataclass
class Demo:
    """A running demo server."""

    base_url: str
    api_key: str

    def gql(self, query: str, **variables: Any) -> Any:
        """The data of one operation, with the demo's API key."""
        request = urllib.request.Request(  # noqa: S310 our own loopback server
            f"{self.base_url}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {
                "Content-Type": "application/json",
                "Accept": "application/json",
                "Authorization": f"Bearer {self.api_key}",
            },
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            body = json.load(answer)
        assert not body.get("errors"), body
        return body["data"]

    def new_request(self, product: str = "Deep clean", amount: str = "25.00") -> dict[str, Any]:
        """A new payment request to the most recently active contact: id, number, checkoutUrl."""
        node = self.gql("{ conversations(first: 1) { nodes { contact { id } } } }")["conversations"]["nodes"][0]
        payload = self.gql(
            "mutation($input: CreatePaymentRequestInput!) { createPaymentRequest(input: $input) {"
            " paymentRequest { id number checkoutUrl } userErrors { code message } } }",
            input={
                "idempotencyKey": os.urandom(16).hex(),
                "for": {"contactId": node["contact"]["id"]},
                "productName": product,
                "amount": {"amount": amount, "currency": "USD"},
            },
        )["createPaymentRequest"]
        assert payload["userErrors"] == []
        made: dict[str, Any] = payload["paymentRequest"]
        return made

    def status(self, request_id: str) -> str:
        text: str = self.gql("query($id: ID!) { paymentRequest(id: $id) { status } }", id=request_id)["paymentRequest"][
            "status"
        ]
        return text

    def void(self, request_id: str) -> None:
        payload = self.gql(
            "mutation($input: VoidPaymentRequestInput!) {"
            " voidPaymentRequest(input: $input) { userErrors { code message } } }",
            input={"paymentRequestId": request_id},
        )["voidPaymentRequest"]
        assert payload["userErrors"] == []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`cli.py serve --demo` on a free port and a new database."""
    folder = tmp_path_factory.mktemp("demo")
    port = _free_port()
    base_url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "ENVIRONMENT": "development",
        "DATABASE_URL": f"sqlite:///{folder / 'demo.db'}",
        "EVENTS_URL": "memory://",
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PUBLIC_URL": base_url,
        "SANDBOX_URL": base_url,
        "LOG_LEVEL": "warning",
    }
    output = folder / "output.txt"
    with output.open("wb") as out:
        command = [sys.executable, "cli.py", "serve", "--demo"]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while not _ready(base_url):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the demo did not start:\n{output.read_text()}")
                time.sleep(0.1)
            key = re.search(r"\bptk_\w+", output.read_text())
            assert key is not None, output.read_text()
            yield Demo(base_url, key[0])
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _ready(base_url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{base_url}/readyz", timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


@dataclass
class Guard:
    """Collects what must not happen on a page. `allowed`: parts of console messages that a test expects."""

    host: str
    sites: set[str] = field(default_factory=set)  # further hosts that a test serves itself
    found: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        """Guard every page of a context."""
        context.add_init_script(
            "document.addEventListener('securitypolicyviolation', (event) =>"
            " console.error(`CSP ${event.violatedDirective} ${event.blockedURI}`));"
        )
        context.route("**/*", self._only_ours)
        context.on("console", self._console)
        context.on("weberror", lambda error: self.found.append(f"error {error.error}"))

    def _only_ours(self, route: Route, request: Request) -> None:
        self.asked.append(request.url)
        if urlsplit(request.url).netloc in {self.host, *self.sites} or request.url.startswith("data:"):
            route.fallback()
        else:
            self.found.append(f"foreign request {request.url}")
            route.abort()

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.found.append(f"console {message.type} {message.text}")

    def check(self) -> None:
        """Fail with everything that was found."""
        assert [text for text in self.found if not any(part in text for part in self.allowed)] == []


NewContext = Callable[..., BrowserContext]


@pytest.fixture
def guard(demo: Demo) -> Iterator[Guard]:
    """A guard that is checked after the test."""
    made = Guard(urlsplit(demo.base_url).netloc)
    yield made
    made.check()


@pytest.fixture
def open_context(browser: Browser, guard: Guard) -> Iterator[NewContext]:
    """Open a new, guarded context; options are those of Browser.new_context."""
    opened: list[BrowserContext] = []

    def make(**options: Any) -> BrowserContext:
        context = browser.new_context(**options)
        guard.watch(context)
        context.set_default_timeout(10_000)
        opened.append(context)
        return context

    yield make
    for context in opened:
        context.close()


@pytest.fixture
def phone(open_context: NewContext, playwright: Any) -> Page:
    """The contact's phone."""
    return open_context(**playwright.devices["Pixel 7"]).new_page()


@pytest.fixture
def desktop(open_context: NewContext) -> Page:
    """The agent's desktop."""
    return open_context(viewport={"width": 1280, "height": 900}).new_page()
