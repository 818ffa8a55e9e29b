"""`python cli.py serve --demo` from an empty folder: the tour works, and the next start finds its data."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from tests.flows import documents as d
from tests.flows.conftest import Team, opened
from tests.flows.harness import ROOT, Feed, Product, free_port, key

pytestmark = pytest.mark.slow


@asynccontextmanager
async def serving(folder: Path, port: int) -> AsyncIterator[tuple[Product, dict[str, str]]]:
    """The demo server in this folder, with a clean environment; yields the printed values by name."""
    environ = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(ROOT / "cli.py"),
        "serve",
        "--demo",
        "--port",
        str(port),
        cwd=folder,
        env={**environ, "HOME": str(folder), "LOG_LEVEL": "error", "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    product = Product(f"http://localhost:{port}")
    assert process.stdout is not None
    shown: dict[str, str] = {}
    try:
        async with asyncio.timeout(60):
            while "API key" not in shown:
                line = (await process.stdout.readline()).decode()
                assert line, shown  # it ended
                if found := re.match(r" {2}(\S.*?) {2,}(\S.*)\n", line):
                    shown[found[1]] = found[2]
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    if (await product.http.get("/readyz")).status_code == 200:
                        break
                await asyncio.sleep(0.05)
        yield product, shown
        process.terminate()
        said = (await asyncio.wait_for(process.stdout.read(), 30)).decode()
        assert (await process.wait(), said) == (0, "\n")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await product.aclose()


async def until_paid(feed: Feed, request_id: str) -> set[str]:
    """Reads until the request was PAID and its second card came; gives the kinds of cards that came."""
    kinds: set[str] = set()
    paid = False
    while not (paid and "PAYMENT_RECEIVED" in kinds):
        event = await feed.next()
        if event["__typename"] == "PaymentRequestUpdated" and event["paymentRequest"]["id"] == request_id:
            paid = paid or event["paymentRequest"]["status"] == "PAID"
        elif event["__typename"] == "ThreadItemAdded" and event["edge"]["node"]["__typename"] == "ActivityCard":
            assert event["edge"]["node"]["paymentRequest"]["id"] == request_id
            kinds.add(event["edge"]["node"]["kind"])
    return kinds


async def test_the_demo_serves_the_whole_tour_from_an_empty_folder_and_keeps_it(tmp_path: Path) -> None:
    port = free_port()
    async with serving(tmp_path, port) as (product, shown):
        base = product.base_url
        assert shown["Paythread"] == f"{base}/"
        for page, word in (
            ("/", "graphiql"),
            ("/graphiql", "GraphiQL"),
            ("/demo/phone", "Maya Torres"),
            ("/demo/site", "data-key"),
            ("/healthz", "ok"),
        ):
            answer = await product.http.get(page)
            # GraphiQL's files are built apart; without them its page says how.
            assert answer.status_code == 200 or (page == "/graphiql" and answer.status_code == 503), page
            assert word.lower() in answer.text.lower(), page

        email, password = shown["sign in"].split(" / ")
        product.token = await product.sign_in(email, password)
        listed = await product.one(d.CONVERSATIONS)
        assert len(listed["nodes"]) == 6
        maya = next(c for c in listed["nodes"] if c["contact"]["name"] == "Maya Torres")
        channels = (await product.one(d.CHANNELS, {"id": maya["id"]}))["channels"]
        # Six simulated ones, and the web chat of /demo/site.
        assert sorted(c["channel"]["provider"] for c in channels) == ["simulated"] * 6 + ["web_chat"]
        sms = next(c["channel"]["id"] for c in channels if c["channel"]["kind"] == "SMS")
        team = Team(product=product, account_id="", owner=product.token, agent=product.token, agent_id="")
        team.channels["SMS"] = sms

        async with product.subscribe(d.CONVERSATION_EVENTS, {"id": maya["id"]}) as feed:
            await opened(feed)
            request = await team.request(maya["contact"])
            message = (await team.send(request))["message"]
            await feed.until("MessageUpdated", message__id=message["id"], message__deliveryStatus="DELIVERED")
            phone = (await product.http.get(f"/demo/phone?contact={maya['contact']['id']}")).text
            assert request["checkoutUrl"] in phone
            await team.pay(request)
            assert "PAYMENT_REQUEST" in {
                e["edge"]["node"].get("kind") for e in feed.seen if e["__typename"] == "ThreadItemAdded"
            }
            assert await until_paid(feed, request["id"]) == {"PAYMENT_RECEIVED"}
            cursor = feed.cursor
        items = await team.thread({"conversation": {"id": maya["id"]}})
        cards = [i for i in items if i["__typename"] == "ActivityCard" and i["paymentRequest"]["id"] == request["id"]]
        assert [(c["kind"], c["paymentRequest"]["status"]) for c in cards] == [
            ("PAYMENT_REQUEST", "PAID"),
            ("PAYMENT_RECEIVED", "PAID"),
        ]
    assert os.listdir(tmp_path) == ["var"]

    async with serving(tmp_path, port) as (product, shown_again):
        assert shown_again == shown
        product.token = shown["API key"]
        assert (await product.one(d.REQUEST, {"id": request["id"]}))["status"] == "PAID"
        again = await product.one(d.CONVERSATIONS)
        assert len(again["nodes"]) == 6
        async with product.subscribe(d.CONVERSATION_EVENTS, {"id": maya["id"], "after": cursor}) as feed:
            await opened(feed)
            payload = await product.ok(
                d.SEND_MESSAGE,
                {"idempotencyKey": key(), "conversationId": maya["id"], "channelId": sms, "body": "Thank you, Maya!"},
            )
            await feed.until("ThreadItemAdded", edge__node__id=payload["message"]["id"])
