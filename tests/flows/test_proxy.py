"""Behind our proxy, anonymous clients have separate limits."""

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


async def test_production_takes_queries_by_get_and_mutations_by_post_only(tmp_path: Path) -> None:
    address = f"sqlite:///{tmp_path / 'get.db'}"
    await migrate.migrate(address)
    production = {"ENVIRONMENT": "production", "PUBLIC_URL": "https://pay.example.test", "SECRET_KEYS": "k" * 32}
    async with harness.in_process(address, "memory://", **production) as product:
        asked = await product.http.get("/graphql", params={"query": "{ viewer { name } }"})
        assert (asked.status_code, asked.json()["errors"][0]["extensions"]["code"]) == (200, "UNAUTHENTICATED")
        signed_in = 'mutation { signIn(input: {email: "a@b.test", password: "x"}) { accessToken } }'
        refused = await product.http.get("/graphql", params={"query": signed_in})
        assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
