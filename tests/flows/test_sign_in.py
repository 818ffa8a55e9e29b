"""Authentication over HTTP and WebSocket: passwords, tokens, API keys, and how sessions end."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from models.tables import User
from services.accounts import accounts, authentication, login
from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team
from tests.flows.harness import KEYS, PASSWORD, Product, key

SESSION = "accessToken accessTokenExpiresAt refreshToken refreshTokenExpiresAt user { email role }"
SIGN_IN = f"mutation($input: SignInInput!) {{ signIn(input: $input) {{ {SESSION} {d.ERRORS} }} }}"
REFRESH = f"mutation($input: RefreshSessionInput!) {{ refreshSession(input: $input) {{ {SESSION} {d.ERRORS} }} }}"
SIGN_OUT = f"mutation($input: SignOutInput!) {{ signOut(input: $input) {{ signedOut {d.ERRORS} }} }}"
NEW_KEY = f"""mutation($input: CreateApiKeyInput!) {{ createApiKey(input: $input) {{
  secret apiKey {{ id hint role lastUsedAt }} {d.ERRORS} }} }}"""
REVOKE = (
    f"mutation($input: RevokeApiKeyInput!) {{ revokeApiKey(input: $input) {{ apiKey {{ revokedAt }} {d.ERRORS} }} }}"
)
WHO = "{ viewer { name role user { email } account { id } } }"
# Which engine keeps the rows makes no difference to these.
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
# Revocation is found within 5 s; the rest is for a busy machine.
SOON_S = 15.0


@pytest.fixture
async def product(
    database: str, events_url: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Product]:
    """The server, with the limits that a test sets."""
    probes.hash_quickly(monkeypatch)
    limits: dict[str, str] = getattr(request, "param", {})
    async with harness.in_process(database, events_url, RUN_JOBS="false", **limits) as running:
        yield running


class Person:
    """A user and how they sign in."""

    def __init__(self, product: Product, email: str) -> None:
        self.product = product
        self.email = email

    async def sign_in(self, password: str = PASSWORD) -> dict[str, Any]:
        return await call(self.product, SIGN_IN, {"email": self.email, "password": password})


async def call(product: Product, document: str, input: Mapping[str, Any], token: str | None = None) -> dict[str, Any]:
    """The payload of a mutation, with exactly this credential."""
    answer = await probes.ask(product, document, {"input": input}, token)
    assert "errors" not in answer, answer
    (payload,) = answer["data"].values()
    found: dict[str, Any] = payload
    return found


def codes(payload: Mapping[str, Any]) -> list[str]:
    return [error["code"] for error in payload["userErrors"]]


async def works(product: Product, token: str) -> bool:
    """Whether the API takes this credential."""
    answer = await probes.ask(product, WHO, {}, token)
    if "errors" in answer:
        assert [e["extensions"]["code"] for e in answer["errors"]] == ["UNAUTHENTICATED"], answer
        return False
    return answer["data"]["viewer"] is not None


@pytest.fixture
async def ada(product: Product) -> Person:
    """The owner of a new account, who has not signed in."""
    email = f"ada-{key()}@example.com"
    await accounts.create_account(name="Acme", currency="USD", email=email, password=PASSWORD, user_name="Ada Owner")
    return Person(product, email)


# ------------------------------------------------------------------------------------------------------------ passwords
async def test_the_right_password_gives_a_session_and_any_wrong_name_or_password_the_same_refusal(ada: Person) -> None:
    session = await ada.sign_in()
    assert codes(session) == []
    assert session["user"] == {"email": ada.email, "role": "OWNER"}
    assert await works(ada.product, session["accessToken"])
    # Case and surrounding spaces of the address don't matter.
    assert codes(await Person(ada.product, f" {ada.email.upper()} ").sign_in()) == []

    before = await probes.snapshot()
    wrong = [
        await ada.sign_in("wrong"),
        await ada.sign_in(""),
        await ada.sign_in(PASSWORD + " "),
        await ada.sign_in(PASSWORD.upper()),
        await ada.sign_in(PASSWORD * 1000),
        await Person(ada.product, f"nobody-{key()}@example.com").sign_in(),
        await Person(ada.product, "").sign_in(),
        await Person(ada.product, "%@%").sign_in(),
        await Person(ada.product, "' OR 1=1 --").sign_in(),
    ]
    assert codes(wrong[0]) == ["SIGN_IN_FAILED"]
    assert [wrong[0]["accessToken"], wrong[0]["refreshToken"], wrong[0]["user"]] == [None, None, None]
    assert wrong[0]["userErrors"][0]["field"] is None
    assert all(payload == wrong[0] for payload in wrong), wrong
    await User.filter(email=ada.email).update(disabled_at=datetime.now(UTC))
    assert await ada.sign_in() == wrong[0]
    await User.filter(email=ada.email).update(disabled_at=None)
    after = await probes.snapshot()
    assert {name for name in after if before.get(name) != after[name]} <= {"user_account"}  # its updated_at


@ON_SQLITE
@pytest.mark.parametrize(
    "product", [{"LOGIN_LIMIT": "3/minute", "LOGIN_ADDRESS_LIMIT": "6/minute"}], indirect=True, ids=["limits"]
)
async def test_too_many_attempts_are_refused_by_name_and_by_address_even_with_the_right_password(ada: Person) -> None:
    bob, eve = (Person(ada.product, f"{name}-{key()}@example.com") for name in ("bob", "eve"))
    tried = [codes(await ada.sign_in("wrong")) for _ in range(3)]
    assert tried == [["SIGN_IN_FAILED"]] * 3
    refused = await ada.sign_in()
    assert codes(refused) == ["RATE_LIMITED"]
    assert refused["accessToken"] is None
    # An unknown name is counted alike, so that the limit tells nothing; the address has had four.
    assert [codes(await bob.sign_in()) for _ in range(2)] == [["SIGN_IN_FAILED"]] * 2
    assert codes(await eve.sign_in()) == ["RATE_LIMITED"]


# --------------------------------------------------------------------------------------------------------------- tokens
async def test_refreshing_rotates_and_a_second_use_ends_the_whole_sign_in(ada: Person) -> None:
    product = ada.product
    first, elsewhere = await ada.sign_in(), await ada.sign_in()
    second = await call(product, REFRESH, {"refreshToken": first["refreshToken"]})
    third = await call(product, REFRESH, {"refreshToken": second["refreshToken"]})
    tokens = {session[name] for session in (first, second, third) for name in ("accessToken", "refreshToken")}
    assert len(tokens) >= 4  # access tokens of one second may be equal, refresh tokens never
    assert len({session["refreshToken"] for session in (first, second, third)}) == 3
    assert third["user"] == {"email": ada.email, "role": "OWNER"}
    assert await works(product, third["accessToken"])

    stolen = await call(product, REFRESH, {"refreshToken": first["refreshToken"]})
    assert codes(stolen) == ["SIGN_IN_FAILED"]
    assert (stolen["accessToken"], stolen["refreshToken"]) == (None, None)
    for session in (first, second, third):
        assert not await works(product, session["accessToken"])
        assert codes(await call(product, REFRESH, {"refreshToken": session["refreshToken"]})) == ["SIGN_IN_FAILED"]
    assert await works(product, elsewhere["accessToken"])
    assert codes(await call(product, REFRESH, {"refreshToken": elsewhere["refreshToken"]})) == []


async def test_ten_refreshes_at_once_never_give_two_sessions(ada: Person) -> None:
    given = {"refreshToken": (await ada.sign_in())["refreshToken"]}
    payloads = await asyncio.gather(*(call(ada.product, REFRESH, given) for _ in range(10)))
    assert sorted(codes(p) for p in payloads) == [[]] + [["SIGN_IN_FAILED"]] * 9
    # It looks like a theft, so the first session ends too.
    (winner,) = [p for p in payloads if not codes(p)]
    assert not await works(ada.product, winner["accessToken"])
    assert codes(await call(ada.product, REFRESH, {"refreshToken": winner["refreshToken"]})) == ["SIGN_IN_FAILED"]


async def test_signing_out_ends_this_sign_in_a_named_one_or_all(ada: Person) -> None:
    product = ada.product
    phone, laptop, tablet, watch = [await ada.sign_in() for _ in range(4)]
    stranger = await probes.newcomer(product, "Other")

    async def alive() -> list[bool]:
        return [await works(product, session["accessToken"]) for session in (phone, laptop, tablet, watch)]

    assert (await call(product, SIGN_OUT, {}, phone["accessToken"]))["signedOut"] is True
    assert await alive() == [False, True, True, True]
    # Another account's owner ends nothing with a token that is not theirs.
    await call(product, SIGN_OUT, {"refreshToken": watch["refreshToken"]}, await probes.api_key(stranger, "OWNER"))
    await call(product, SIGN_OUT, {"refreshToken": watch["refreshToken"]}, stranger.owner)
    assert await alive() == [False, True, True, True]
    await call(product, SIGN_OUT, {"refreshToken": tablet["refreshToken"]}, laptop["accessToken"])
    assert await alive() == [False, False, False, True]
    last = await ada.sign_in()
    await call(product, SIGN_OUT, {"everywhere": True}, last["accessToken"])
    assert await alive() == [False] * 4
    for session in (phone, laptop, tablet, watch, last):
        assert codes(await call(product, REFRESH, {"refreshToken": session["refreshToken"]})) == ["SIGN_IN_FAILED"]


def signing_key(secret: str = KEYS) -> bytes:
    """The key that signs access tokens."""
    return hashlib.sha256(b"paythread access token\x00" + secret.encode()).digest()


@ON_SQLITE
async def test_no_forged_token_is_taken_over_http_or_a_socket(bare: Team) -> None:
    product = bare.product
    claims = jwt.decode(bare.owner, options={"verify_signature": False})
    other = await probes.newcomer(product, "Other")
    theirs = jwt.decode(other.owner, options={"verify_signature": False})
    now = datetime.now(UTC)
    right = signing_key()

    def made(changes: Mapping[str, Any] | None = None, key: Any = right, algorithm: str = "HS256") -> str:
        mine = {name: value for name, value in {**claims, **(changes or {})}.items() if value is not None}
        return jwt.encode(mine, key, algorithm=algorithm)

    # Else the rest would prove nothing.
    assert await works(product, made())
    head, body, mark = made().split(".")
    forged = {
        "expired": made({"exp": now - timedelta(seconds=1)}),
        "without an end": made({"exp": None}),
        "algorithm none": made(key=None, algorithm="none"),
        "algorithm none, signed": f"{made(key=None, algorithm='none')}{mark}",
        "unsigned": f"{head}.{body}.",
        "another algorithm": made(key=right + right, algorithm="HS512"),
        "another key": made(key=signing_key("another-key-of-sixteen-or-more")),
        "the secret itself as key": made(key=hashlib.sha256(KEYS.encode()).digest()),
        "another audience": made({"aud": "somebody"}),
        "another issuer": made({"iss": "somebody"}),
        "from tomorrow on": made({"iat": now + timedelta(days=1)}),
        "an unknown user": made({"sub": str(uuid4())}),
        "another account": made({"acc": theirs["acc"]}),
        "another account's user": made({"sub": theirs["sub"]}),
        "an older version": made({"ver": claims["ver"] - 1}),
        "a version as text": made({"ver": str(claims["ver"])}),
        "rubbish as user": made({"sub": "' OR 1=1 --"}),
        "changed by one letter": f"{head}.{body}.{'A' if mark[0] != 'A' else 'B'}{mark[1:]}",
        "a refresh token": (await call(product, SIGN_IN, await whose(bare)))["refreshToken"],
        "a hint of a key": "ptk_",
    }
    taken = [name for name, token in forged.items() if await works(product, token)]
    taken += [
        name
        for name, token in forged.items()
        if await socket_code(product, {"Authorization": f"Bearer {token}"}) != 4403
    ]
    assert taken == []


async def whose(team: Team) -> dict[str, str]:
    """Name and password of the team's owner."""
    viewer = await team.product.one(WHO, token=team.owner)
    return {"email": viewer["user"]["email"], "password": PASSWORD}


# -------------------------------------------------------------------------------------------------------------- sockets
@asynccontextmanager
async def socket(product: Product, payload: Mapping[str, Any]) -> AsyncIterator[ClientConnection]:
    """A socket that has said connection_init."""
    url = product.base_url.replace("http", "ws", 1) + "/graphql"
    async with connect(url, subprotocols=["graphql-transport-ws"], close_timeout=1) as ws:  # type: ignore[list-item]
        await ws.send(json.dumps({"type": "connection_init", "payload": payload}))
        yield ws


async def socket_code(product: Product, payload: Mapping[str, Any]) -> int | None:
    """The close code of a socket with this connection_init; None if it is accepted."""
    async with socket(product, payload) as ws:
        try:
            assert json.loads(await asyncio.wait_for(ws.recv(), 10))["type"] == "connection_ack"
        except ConnectionClosed:
            await asyncio.wait_for(ws.wait_closed(), 10)
            return ws.close_code
        return None


async def subscribed(stack: AsyncExitStack, product: Product, token: str) -> ClientConnection:
    """A socket with an open feed."""
    ws = await stack.enter_async_context(socket(product, {"Authorization": f"Bearer {token}"}))
    await ws.send(json.dumps({"type": "subscribe", "id": "1", "payload": {"query": d.INBOX}}))
    assert json.loads(await asyncio.wait_for(ws.recv(), 10))["type"] == "connection_ack"
    first = json.loads(await asyncio.wait_for(ws.recv(), 10))
    assert first["payload"]["data"]["inboxEvents"]["__typename"] == "Subscribed", first
    return ws


async def closed(ws: ClientConnection) -> int | None:
    """The close code; earlier messages are skipped."""
    await asyncio.wait_for(ws.wait_closed(), SOON_S)
    return ws.close_code


async def alive(ws: ClientConnection) -> bool:
    """Whether the server still answers; earlier events are skipped."""
    await ws.send(json.dumps({"type": "ping"}))
    async with asyncio.timeout(10):
        while (said := json.loads(await ws.recv()))["type"] == "next":
            pass
    return bool(said == {"type": "pong"})


NAMES = ("Authorization", "authorization", "AUTHORIZATION", "aUTHORIZATION")
SCHEMES = ("Bearer", "bearer", "BEARER")


@ON_SQLITE
async def test_an_api_key_works_in_header_and_init_whatever_the_case_of_its_name(bare: Team) -> None:
    product = bare.product
    made = await call(product, NEW_KEY, {"name": "Till", "role": "AGENT"}, bare.owner)
    secret, shown = made["secret"], made["apiKey"]
    assert secret.startswith("ptk_")
    assert (shown["hint"], shown["role"], shown["lastUsedAt"]) == (secret[-4:], "AGENT", None)
    wrong = []
    for name in NAMES:
        for scheme in SCHEMES:
            headers = {name: f"{scheme} {secret}", "Accept": "application/json"}
            answer = (await product.http.post("/graphql", json={"query": WHO}, headers=headers)).json()
            viewer = (answer.get("data") or {}).get("viewer") or {}
            if (viewer.get("name"), viewer.get("role"), viewer.get("user")) != ("Till", "AGENT", None):
                wrong.append(f"header {name}: {scheme}: {answer}")
            if (code := await socket_code(product, {name: f"{scheme} {secret}"})) is not None:
                wrong.append(f"init {name}: {scheme}: {code}")
    bad: list[dict[str, Any]] = [{}, {"Authorization": secret}, {"Authorization": f"Basic {secret}"}]
    bad += [{"token": f"Bearer {secret}"}, {"Authorization": ["Bearer", secret]}, {"Authorization": {"Bearer": secret}}]
    bad += [
        {"Authorization": f"Bearer {secret[:-1]}"},
        {"Authorization": f"Bearer {secret}x"},
        {"Authorization": "Bearer "},
    ]
    wrong += [f"init {list(payload)}" for payload in bad if await socket_code(product, payload) != 4403]
    assert not wrong, "\n".join(wrong)
    # It is never shown again, and its use is.
    listed = await probes.ask(product, "{ account { apiKeys { nodes { id name hint lastUsedAt } } } }", {}, bare.owner)
    (row,) = listed["data"]["account"]["apiKeys"]["nodes"]
    assert row["lastUsedAt"] is not None
    assert secret not in json.dumps(listed)
    assert secret not in json.dumps(await probes.snapshot())


async def test_a_revoked_key_a_changed_role_and_a_sign_out_close_their_sockets_and_no_others(bare: Team) -> None:
    product = bare.product
    gone = await probes.new_key(bare, "AGENT")
    stays = await probes.api_key(bare, "AGENT")
    second = (await call(product, SIGN_IN, await whose(bare)))["accessToken"]
    async with AsyncExitStack() as stack:
        by_key, other_key, agent, owner, signed_out = [
            await subscribed(stack, product, token) for token in (gone["secret"], stays, bare.agent, bare.owner, second)
        ]
        revoked = await call(product, REVOKE, {"apiKeyId": gone["apiKey"]["id"]}, bare.owner)
        assert revoked["apiKey"]["revokedAt"] is not None
        # No mutation changes a role in this release; the operator's SQL does.
        await User.filter(id=bare.agent_id).update(role="VIEWER")
        await call(product, SIGN_OUT, {}, second)
        assert [await closed(ws) for ws in (by_key, agent, signed_out)] == [4403, 4403, 4403]
        assert [await alive(ws) for ws in (other_key, owner)] == [True, True]
    assert not await works(product, gone["secret"])
    assert not await works(product, second)
    # The same token, in the new role: what the old one could do is refused.
    viewer = await product.one(WHO, token=bare.agent)
    assert viewer["role"] == "VIEWER"
    refused = await product.one(d.CREATE_CONTACT, {"input": {"name": "Zoe"}}, token=bare.agent)
    assert codes(refused) == ["FORBIDDEN"]
    again = await call(product, REVOKE, {"apiKeyId": gone["apiKey"]["id"]}, bare.owner)
    assert again["apiKey"] == revoked["apiKey"]


@ON_SQLITE
async def test_a_socket_ends_with_its_access_token(bare: Team) -> None:
    claims = jwt.decode(bare.owner, options={"verify_signature": False})
    ends = datetime.now(UTC) + timedelta(seconds=2)
    short = jwt.encode({**claims, "exp": ends}, signing_key(), algorithm="HS256")
    async with AsyncExitStack() as stack:
        ws, other = [await subscribed(stack, bare.product, token) for token in (short, bare.owner)]
        assert await closed(ws) == 4403
        assert await alive(other)
    assert not await works(bare.product, short)
    assert await authentication.authenticate(bare.owner) is not None


@ON_SQLITE
@pytest.mark.parametrize("fragments", [False, True])
async def test_a_document_with_several_passwords_or_refresh_tokens_is_refused_before_any_hash(
    product: Product, monkeypatch: pytest.MonkeyPatch, fragments: bool
) -> None:
    seen: list[str] = []

    def fits(hashed: str, _: str) -> bool:
        seen.append(hashed)
        return False

    monkeypatch.setattr(login, "_matches", fits)

    def mutation(*fields: str) -> str:
        if not fragments:
            return "mutation { " + " ".join(fields) + " }"
        named = " ".join(f"fragment F{n} on Mutation {{ {field} }}" for n, field in enumerate(fields))
        inline, *spread = [f"...F{n}" for n in range(len(fields))]
        return f"mutation {{ ... on Mutation {{ {inline} }} {' '.join(spread)} }} {named}"

    def attempt(alias: str, name: str) -> str:
        return f'{alias} signIn(input: {{ email: "{name}@example.test", password: "wrong" }}) {{ {d.ERRORS} }}'

    renewal = f'refreshSession(input: {{ refreshToken: "x" }}) {{ {d.ERRORS} }}'
    refused = [
        mutation(*(attempt(f"a{n}:", f"guess{n}") for n in range(15))),
        mutation(attempt("", "one"), attempt("other:", "two")),
        mutation(attempt("", "one"), renewal),
        mutation(renewal, "again: " + renewal),
    ]
    for document in refused:
        answer = await probes.ask(product, document, {}, None)
        assert [error["extensions"]["code"] for error in answer["errors"]] == ["QUERY_TOO_COMPLEX"]
        assert not answer.get("data")
    assert seen == []
    for document in (mutation(attempt("alias:", "one")), mutation(attempt("", "two"), attempt("", "two"))):
        answer = await probes.ask(product, document, {}, None)
        ((_, payload),) = answer["data"].items()
        assert codes(payload) == ["SIGN_IN_FAILED"]
    assert len(seen) == 2
