"""GraphQL client libraries against a running server: `tests/clients`, one Node process each.

Each runs the same steps: load, subscribe, request a payment, lose the connection, resume by cursor, renew its access token.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from graphql import build_schema, is_abstract_type, parse, validate

from models.database import open_database
from services.accounts import authentication, users
from tests.configured import change
from tests.flows import harness
from tests.flows.conftest import Team, new_team
from tests.flows.harness import PASSWORD
from tests.flows.probes import api_key

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = ROOT / "tests" / "clients"
GUIDE = (ROOT / "docs" / "howto" / "build-an-inbox.md").read_text()
SCRIPTS = {
    "urql 5": ("urql.mjs", "urql5"),
    "urql 6": ("urql.mjs", "urql6"),
    "Apollo Client 3": ("apollo.mjs", "apollo3"),
    "Apollo Client 4": ("apollo.mjs", "apollo4"),
    "graphql-ws": ("sockets.mjs",),
    "graphql-sse": ("streams.mjs",),
    "Relay": ("relay.mjs",),
}
LIFE_S = 4
NEW = "application/graphql-response+json"
OLD = "application/json"
ON_INTERFACE = """query OnInterface($id: ID!) { conversation(id: $id) { id channels { id messages { ...Any } } } }
fragment Any on ChannelCapability { supported }"""


def blocks(language: str) -> list[str]:
    """The guide's code in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def block(language: str, part: str) -> str:
    (found,) = [code for code in blocks(language) if part in code]
    return found


def possible_types() -> str:
    """The guide's table, as JavaScript."""
    found = re.search(r"possibleTypes: (\{.*?\n\})", block("js", "possibleTypes"), re.DOTALL)
    assert found is not None
    return found[1].removesuffix("})")


@pytest.fixture
def node() -> str:
    """Node with the libraries, which `./dev test` installs. Under CI=true a missing one is a failure."""
    found = shutil.which("node")
    if found is None or not (CLIENTS / "node_modules" / "stamp").exists():
        if os.environ.get("CI") == "true":
            pytest.fail("no Node, or tests/clients is not installed: ./dev test does it with npm")
        pytest.skip("no Node, or tests/clients is not installed")
    return found


@pytest.fixture
async def team(sqlite_template: Path, tmp_path: Path) -> AsyncIterator[Team]:
    """A team with the sandbox and all channels. What a library does is the same on either database."""
    url = f"sqlite:///{shutil.copyfile(sqlite_template, tmp_path / 'clients.db')}"
    async with open_database(url), harness.in_process(url, "memory://") as product:
        team = await new_team(product)
        await team.connect_sandbox()
        await team.connect_channels()
        yield team


async def lives(node: str, team: Team, client: str, number: int, key: str, email: str) -> Any:
    """The output of one library's run."""
    contact = await team.contact(f"Maria {number}", number)
    preview = {"conversationId": contact["conversation"]["id"], "channelId": team.channels["SMS"], "body": "Hello"}
    story = {
        "client": client.replace(" ", "-"),
        "url": f"{team.product.base_url}/graphql",
        "apiKey": key,
        "person": {"email": email, "password": PASSWORD},
        "contact": contact["id"],
        "conversation": contact["conversation"]["id"],
        "code": block("js", "createClient"),
        "possibleTypes": possible_types(),
        "onInterface": ON_INTERFACE,
        "documents": [
            {"query": block("graphql", "query Composer"), "variables": {"id": contact["conversation"]["id"]}},
            {"query": block("graphql", "query Preview"), "variables": {"input": preview}},
        ],
    }
    process = await asyncio.create_subprocess_exec(
        node,
        *SCRIPTS[client],
        cwd=CLIENTS,
        env={**os.environ, "STORY": json.dumps(story), "NODE_ENV": "production"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(90):
            out, error = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = out.decode().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        return f"{process.returncode}: {out.decode()}{error.decode()[-3000:]}"


async def test_stock_clients_query_mutate_subscribe_resume_and_outlive_their_token(node: str, team: Team) -> None:
    key = await api_key(team, "AGENT")
    email = f"nora-{harness.key()}@example.com"
    owner = await authentication.authenticate(team.owner)
    assert owner is not None
    await users.add(owner, email=email, name="Nora Agent", role="AGENT", password=PASSWORD)
    change(access_token_life=timedelta(seconds=LIFE_S))
    stories = [lives(node, team, client, number, key, email) for number, client in enumerate(SCRIPTS, start=1)]
    ended = dict(zip(SCRIPTS, await asyncio.gather(*stories), strict=True))
    assert ended == {client: expected(client, number) for number, client in enumerate(SCRIPTS, start=1)}


def expected(client: str, number: int) -> dict[str, Any]:
    """Each event arrived once and in order, and the client reconnected by itself."""
    json_type = {"Apollo Client 3": OLD, "Relay": OLD, "graphql-ws": None, "graphql-sse": None}.get(client, NEW)
    types = {json_type} if json_type else set()
    if client in ("urql 5", "urql 6", "graphql-sse"):
        types.add("text/event-stream")
    return {
        "contact": f"Maria {number}",
        "numbers": [0, 1, 2],
        "same": True,
        "differing": [],
        "failures": [],
        # Cut by us, then closed by the server when the token ended.
        "closed": [] if client == "graphql-sse" else [1006, 4403],
        "renewed": True,
        # Over HTTP alone a client learns of the end of its token by a refusal.
        "refused": json_type is not None,
        "types": sorted(types),
    }


def test_the_guide_s_possible_types_are_the_schema_s() -> None:
    schema = build_schema((ROOT / "schema" / "schema.graphql").read_text())
    table = dict(re.findall(r"(\w+): (\[.*?\])", possible_types()))
    assert len(table) > 1
    for name, members in table.items():
        kind = schema.type_map[name]
        assert is_abstract_type(kind)
        assert json.loads(members) == sorted(member.name for member in schema.get_possible_types(kind))


@pytest.mark.parametrize("document", blocks("graphql"))
def test_the_guide_s_documents_are_valid(document: str) -> None:
    schema = build_schema((ROOT / "schema" / "schema.graphql").read_text())
    assert validate(schema, parse(document)) == []
