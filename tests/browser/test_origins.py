"""Pages of other origins in a browser: one on localhost may call the API over HTTP and WebSocket, another is refused.

The contexts have no guard: with routes in place Playwright answers preflights itself.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import Demo

CALL = """async ([url, key]) => {
  const answer = await fetch(url, {
    method: "POST",
    headers: {
      "content-type": "application/json", accept: "*/*", authorization: `Bearer ${key}`,
      traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", tracestate: "a=b", baggage: "a=b",
      "x-request-id": "mine", "apollographql-client-name": "inbox", "apollographql-client-version": "1",
      "apollo-require-preflight": "true", "sentry-trace": "1",
    },
    body: JSON.stringify({ query: "{ __typename }" }),
  }).catch((error) => ({ failed: error.name }));
  const socket = new WebSocket(url.replace("http", "ws"), "graphql-transport-ws");
  const opened = await new Promise((done) => { socket.onopen = () => done(true); socket.onerror = () => done(false); });
  socket.close();
  if (answer.failed) return [answer.failed, null, opened];
  return [(await answer.json()).data.__typename, Boolean(answer.headers.get("x-request-id")), opened];
}"""


@pytest.fixture
def port() -> Iterator[int]:
    """A server of empty pages."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("host", "found"),
    [("localhost", ["Query", True, True]), ("inbox.localhost", ["TypeError", None, False])],
)
def test_a_page_of_localhost_may_call_and_read_and_another_may_not(
    demo: Demo, browser: Browser, port: int, host: str, found: list[Any]
) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://{host}:{port}/")
        assert page.evaluate(CALL, [f"{demo.base_url}/graphql", demo.api_key]) == found
    finally:
        context.close()
