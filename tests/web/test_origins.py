"""Which origins may call the two GraphQL endpoints, by environment."""

import httpx2 as httpx
import pytest

from app import create_app
from settings import Settings
from tests.flows.harness import KEYS

LOCAL = "http://localhost:5173"
LISTED = "https://inbox.example"
OWN = "https://pay.example.com"


async def preflight(path: str, origin: str, **settings: str) -> httpx.Response:
    values = {"secret_keys": KEYS, "public_url": OWN, "allowed_origins": LISTED, **settings}
    app = create_app(Settings(_env_file=None, **values))  # type: ignore[call-arg, arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://10.0.0.7:8000") as client:
        return await client.options(path, headers={"Origin": origin, "Access-Control-Request-Method": "POST"})


@pytest.mark.parametrize(
    ("environment", "origin", "status"),
    [
        ("development", LOCAL, 200),
        ("test", LOCAL, 200),
        ("production", LOCAL, 400),
        ("development", LISTED, 200),
        ("production", LISTED, 200),
        ("production", OWN, 200),
        ("development", "https://evil.example", 400),
        ("production", "https://evil.example", 400),
    ],
)
async def test_pages_of_localhost_may_call_outside_production_and_listed_ones_everywhere(
    environment: str, origin: str, status: int
) -> None:
    answer = await preflight("/graphql", origin, environment=environment)
    assert answer.status_code == status
    assert answer.headers.get("access-control-allow-origin") == (origin if status == 200 else None)
    if status == 400:
        assert answer.text == f"origin {origin} refused: set ALLOWED_ORIGINS"
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize("origin", [LOCAL, LISTED, "https://evil.example"])
async def test_the_web_chat_answers_its_own_page_only_and_says_so(origin: str) -> None:
    answer = await preflight("/widget/graphql", origin, environment="development")
    assert answer.status_code == 400
    assert answer.text == f"origin {origin} refused: only pages of PUBLIC_URL may call the web chat"
    assert "access-control-allow-origin" not in answer.headers
    assert (await preflight("/widget/graphql", OWN, environment="development")).status_code == 200
