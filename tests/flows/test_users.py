"""A disabled user's open connections end, even if another process disabled the user."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed

from services.accounts import authentication, login, users
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, opened
from tests.flows.harness import Feed

REFRESH = "mutation($input: RefreshSessionInput!) { refreshSession(input: $input) { accessToken userErrors { code } } }"
ROOT = Path(__file__).resolve().parents[2]


async def read_on(feed: Feed) -> None:
    """Until the socket ends; AccountUpdated comes first."""
    while True:
        await feed.next(within=20)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
async def test_disabling_on_the_command_line_ends_sockets_and_tokens(team: Team, database: str) -> None:
    owner = await authentication.authenticate(team.owner)
    assert owner is not None
    email = f"nora-{harness.key()}@example.com"
    await users.add(owner, email=email, name="Nora", role="AGENT", password=harness.PASSWORD)
    tokens = await login.sign_in(email, harness.PASSWORD, client_address=None)
    async with team.product.subscribe(d.INBOX, token=tokens.access_token) as feed:
        await opened(feed)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "cli.py", "user", "disable", email),
            cwd=ROOT,
            env={**os.environ, "DATABASE_URL": database},
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
        assert (process.returncode, b"disabled" in out) == (0, True)
        with pytest.raises(ConnectionClosed) as closed:
            await read_on(feed)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4403
    answer = await team.product.raw("{ account { name } }", token=tokens.access_token)
    assert answer["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
    refused = await team.product.one(REFRESH, {"input": {"refreshToken": tokens.refresh_token}})
    assert (refused["accessToken"], [e["code"] for e in refused["userErrors"]]) == (None, ["SIGN_IN_FAILED"])
