"""Behind a proxy of ours one anonymous client's limit is not everybody's."""

from __future__ import annotations

from pathlib import Path

import httpx2

from models import migrate
from models.database import open_database
from tests.flows import harness


async def codes(base_url: str, address: str, times: int) -> list[int]:
    async with httpx2.AsyncClient(base_url=base_url) as http:
        headers = {"X-Forwarded-For": f"203.0.113.9, {address}"}
        return [
            (await http.post("/graphql", json={"query": "{ __typename }"}, headers=headers)).status_code
            for _ in range(times)
        ]


async def test_anonymous_clients_behind_a_trusted_proxy_have_limits_of_their_own(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/proxy.db"
    await migrate.migrate(url)
    async with (
        open_database(url),
        harness.in_process(url, "memory://", GRAPHQL_LIMIT="1", TRUST_PROXY="true") as product,
    ):
        assert 429 in await codes(product.base_url, "198.51.100.1", 6)
        assert await codes(product.base_url, "198.51.100.2", 1) == [200]


async def test_without_a_trusted_proxy_the_header_gives_nobody_a_new_limit(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/direct.db"
    await migrate.migrate(url)
    async with open_database(url), harness.in_process(url, "memory://", GRAPHQL_LIMIT="1") as product:
        assert 429 in await codes(product.base_url, "198.51.100.1", 6)
        assert await codes(product.base_url, "198.51.100.2", 1) == [429]
