"""The database goes away and comes back: every error says to try again, and none reports a bug."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from models import migrate
from models.database import open_database
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import new_team
from tests.servers import PostgresServer

pytestmark = pytest.mark.slow

BROWSER = {"accept": "text/html,application/xhtml+xml"}


async def test_without_its_database_every_door_says_try_again_and_afterwards_all_of_them_work() -> None:
    server = PostgresServer()
    server.start()
    try:
        await migrate.migrate(server.url)
        async with open_database(server.url), harness.in_process(server.url, "memory://") as product:
            team = await new_team(product)
            await team.connect_sandbox()
            maria = await team.contact()
            request = await team.request(maria)
            ask: dict[str, Any] = {"query": d.CREATE, "variables": {"input": team.ask(maria)}}
            signed = {"Authorization": f"Bearer {team.agent}", "Accept": "application/json"}
            async with team.inbox() as feed:
                await feed.next()
                server.kill()
                answer = await product.http.post("/graphql", json=ask, headers=signed)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
                assert answer.json()["errors"][0]["extensions"]["code"] == "SERVICE_UNAVAILABLE"
                page = await product.http.get(request["checkoutUrl"], headers=BROWSER)
                assert (page.status_code, page.headers["content-type"]) == (503, "text/html; charset=utf-8")
                assert "Not available at the moment" in page.text
                webhook = await product.http.post(team.processor["webhookUrl"], json={}, headers={"accept": "*/*"})
                assert webhook.status_code == 503
                assert (await product.http.get("/readyz")).status_code == 503
                assert (await product.http.get("/healthz")).status_code == 200
                server.start()
                async with asyncio.timeout(30):
                    while (await product.http.get("/readyz")).status_code != 200:
                        await asyncio.sleep(0.1)
                made = await product.http.post("/graphql", json=ask, headers=signed)
                assert made.json()["data"]["createPaymentRequest"]["userErrors"] == []
                # The feed that was open all the time has missed nothing.
                await feed.until(
                    "PaymentRequestUpdated",
                    paymentRequest__id=made.json()["data"]["createPaymentRequest"]["paymentRequest"]["id"],
                )
            assert (await product.http.get(request["checkoutUrl"], headers=BROWSER)).status_code == 200
    finally:
        server.stop()
