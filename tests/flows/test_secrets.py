"""Planted secrets pass through the whole system, then are searched for in the log, the raw database and every response.

A secret may appear only in sign-in responses, in a new API key or identity secret (once), and a link in its request and in texts
that contain it.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from graphql import GraphQLObjectType, get_named_type, is_leaf_type, is_object_type, is_required_argument
from websockets.exceptions import WebSocketException

from models import database as db
from models.tables import Job, Message
from tests.contracts import meta_server, paypal_server, smtp_server, square_server, stripe_server, twilio_server
from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team, new_team
from tests.flows.harness import PASSWORD, Product
from tests.flows.vendors import MAIL_SECRET, Vendors, all_vendors, connect_channel, connect_processor, post, press_pay
from web import log_setup

ROOT = Path(__file__).resolve().parents[2]
KEY = "planted-key-that-encrypts-everything"
WRONG = "planted-wrong-"  # what is given where something else is right
PHONE, EMAIL = "+14155557788", "planted-address@example.com"
CREATE_KEY = (
    f"mutation($input: CreateApiKeyInput!) {{ createApiKey(input: $input) {{ secret apiKey {{ id }} {d.ERRORS} }} }}"
)
IDENTITY = (
    f"mutation($input: RotateIdentitySecretInput!) {{ rotateIdentitySecret(input: $input) {{ secret {d.ERRORS} }} }}"
)
TEST_PROCESSOR = f"mutation($input: TestProcessorInput!) {{ testProcessor(input: $input) {{ processor {{ id lastError }} {d.ERRORS} }} }}"
TEST_CHANNEL = (
    f"mutation($input: TestChannelInput!) {{ testChannel(input: $input) {{ channel {{ id lastError }} {d.ERRORS} }} }}"
)
SIGN_IN = f"mutation($input: SignInInput!) {{ signIn(input: $input) {{ accessToken refreshToken {d.ERRORS} }} }}"
INVITE = f"mutation($input: InviteUserInput!) {{ inviteUser(input: $input) {{ link invitation {{ id email }} {d.ERRORS} }} }}"
ACCEPT = f"""mutation($input: AcceptInvitationInput!) {{ acceptInvitation(input: $input) {{
  accessToken refreshToken user {{ id }} {d.ERRORS} }} }}"""
ASK_RESET = f"""mutation($input: RequestPasswordResetInput!) {{
  requestPasswordReset(input: $input) {{ requested {d.ERRORS} }} }}"""
RESET = f"mutation($input: ResetPasswordInput!) {{ resetPassword(input: $input) {{ passwordReset {d.ERRORS} }} }}"
REFRESH = f"mutation($input: RefreshSessionInput!) {{ refreshSession(input: $input) {{ accessToken refreshToken {d.ERRORS} }} }}"


# ------------------------------------------------------------------------------------------------------------- searching
def shapes(secret: str) -> set[str]:
    """A secret's encodings: plain, URL-encoded, JSON, base64."""
    plain = secret.encode()
    return {secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1], base64.b64encode(plain).decode()}


def found(planted: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, list[str]]:
    """The texts that contain each secret, in any encoding; secrets in no text are left out."""
    places = {
        name: [place for place, text in texts.items() if any(shape in text for shape in shapes(secret))]
        for name, secret in planted.items()
    }
    return {name: at for name, at in places.items() if at}


async def dump() -> dict[str, str]:
    """Every column of every table with its raw values."""
    if db.dialect() == "sqlite":
        # FTS5 keeps what `search_word` indexes in tables of its own, which are read, too.
        names = await db.rows("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'search_word'")
    else:
        names = await db.rows("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'")
    columns: dict[str, list[str]] = {}
    for table in (row["name"] for row in names):
        for row in await db.rows(f'SELECT * FROM "{table}"'):  # noqa: S608 (names of ours)
            for column, value in row.items():
                text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
                columns.setdefault(f"{table}.{column}", []).append(text)
    return {name: "\n".join(values) for name, values in columns.items()}


@pytest.mark.parametrize("shape", sorted(shapes('co nt/rol+"1')))
def test_the_search_finds_a_control_in_each_shape(shape: str) -> None:
    planted = {"control": 'co nt/rol+"1', "other": "not-there"}
    assert found(planted, {"one": "a", "two": f"before {shape} after"}) == {"control": ["two"]}
    assert found(planted, {"one": "co nt", "two": '/rol+"1'}) == {}


# ------------------------------------------------------------------------------------------------------------- the drive
@dataclass
class Watched:
    """A server whose responses are all recorded, by operation."""

    product: Product
    vendors: Vendors
    mail: smtp_server.MailServer  # of the installation
    log: io.StringIO = field(default_factory=io.StringIO)
    answers: list[str] = field(default_factory=list)
    planted: dict[str, str] = field(default_factory=dict)

    def watch(self, http: httpx2.AsyncClient) -> None:
        """Record this client's responses, headers included."""

        async def keep(answer: httpx2.Response) -> None:
            await answer.aread()
            self.answers.append(f"{answer.headers}\n{answer.text}")

        http.event_hooks["response"].append(keep)

    async def shown_once(self, document: str, given: Mapping[str, Any], token: str | None = None) -> dict[str, Any]:
        """A mutation whose response must show a secret; it is not recorded."""
        payload: dict[str, Any] = await self.product.one(document, {"input": given}, token=token)
        self.answers.pop()
        assert payload["userErrors"] == []
        return payload

    async def vendor_says(self, url: str, body: bytes, headers: Mapping[str, str]) -> int:
        """Post a webhook and record its response."""
        answer = await post(url, body, headers)
        self.answers.append(f"{answer.headers}\n{answer.text}")
        return answer.status_code


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with all_vendors() as running:
        yield running


@pytest.fixture
async def watched(database: str, events_url: str, vendors: Vendors) -> AsyncIterator[Watched]:
    """The server at its most verbose log level."""
    async with smtp_server.MailServer() as mail:
        more = {
            "SECRET_KEYS": KEY,
            "LOG_LEVEL": "debug",
            **vendors.addresses,
            **harness.MAIL,
            "SMTP_PORT": str(mail.port),
        }
        async with harness.in_process(database, events_url, **more) as product:
            made = Watched(product, vendors, mail)
            log_setup.configure("debug", made.log)
            yield made


def wrong(credentials: list[dict[str, str]], secret: str) -> list[dict[str, str]]:
    """The same credentials, one of them wrong."""
    return [{**one, "value": WRONG + secret if one["name"] == secret else one["value"]} for one in credentials]


async def sign_in_and_out(watched: Watched, team: Team) -> None:
    """Every way to authenticate, right and wrong."""
    product, planted = watched.product, watched.planted
    (owner,) = await db.rows("SELECT email FROM user_account WHERE role = 'OWNER'")
    session = await watched.shown_once(SIGN_IN, {"email": owner["email"], "password": PASSWORD})
    planted |= {"user's password": PASSWORD, "wrong password": WRONG + "password-1"}
    planted |= {"access token": session["accessToken"], "refresh token": session["refreshToken"]}
    renewed = await watched.shown_once(REFRESH, {"refreshToken": session["refreshToken"]})
    planted |= {"newer access token": renewed["accessToken"], "newer refresh token": renewed["refreshToken"]}
    key = await watched.shown_once(CREATE_KEY, {"name": "Shop", "role": "ADMIN"}, token=team.owner)
    planted |= {"API key": key["secret"], "owner's token": team.owner, "agent's token": team.agent}
    for password in (WRONG + "password-1", planted["API key"]):
        await product.raw(SIGN_IN, {"input": {"email": owner["email"], "password": password}})
        await product.raw(SIGN_IN, {"input": {"email": EMAIL, "password": password}})
    await product.raw(REFRESH, {"input": {"refreshToken": session["refreshToken"]}})  # its second use
    for token in (planted["API key"], planted["API key"][:-1] + "x", planted["access token"] + "x", WRONG + "token"):
        await product.raw("{ viewer { __typename } }", token=token)
        with suppress(WebSocketException, harness.GraphQLFailed, TimeoutError, AssertionError):
            async with product.subscribe(d.INBOX, {"after": None}, token=token) as feed:
                watched.answers.append(json.dumps(await feed.next(within=5)))


async def invite_and_reset(watched: Watched, team: Team) -> None:
    """Links of emails, right and wrong, each used twice."""
    product, planted = watched.product, watched.planted
    given = {"email": "nora@example.com", "name": "Nora", "role": "AGENT"}
    assert (await product.ok(INVITE, given, token=team.owner))["link"] is None
    invited = {"token": await mailed(watched), "password": f"{PASSWORD}-nora"}
    planted |= {"invitation's token": invited["token"], "invited person's password": invited["password"]}
    session = await watched.shown_once(ACCEPT, invited)
    planted |= {"new user's access token": session["accessToken"], "new user's refresh token": session["refreshToken"]}
    await product.raw(ACCEPT, {"input": invited})
    await product.ok(ASK_RESET, {"email": "nora@example.com"})
    reset = {"token": await mailed(watched), "password": f"{PASSWORD}-again"}
    planted |= {"token of a reset": reset["token"], "password after a reset": reset["password"]}
    for _ in range(2):
        await product.raw(RESET, {"input": reset})


async def mailed(watched: Watched) -> str:
    """The token of the next email."""
    async with asyncio.timeout(10):
        while not watched.mail.letters:
            await asyncio.sleep(0.02)
    return str(watched.mail.letters.pop().message.get_content()).partition("#")[2].split()[0]


async def settings_of_everything(watched: Watched, team: Team) -> None:
    """Connect every provider, first with wrong credentials; then read all settings."""
    product = watched.product
    for kind, secret in (("STRIPE", "secret_key"), ("PAYPAL", "client_secret"), ("SQUARE", "access_token")):
        values = {each["name"]: each["value"] for each in wrong(watched.vendors.credentials(kind), secret)}
        given = {"testMode": True, "credentials": d.keys_of(kind, values)}
        assert (await product.one(d.CONFIGURE_PROCESSOR, {"input": given}, token=team.owner))["userErrors"] != []
        processor = await connect_processor(team, watched.vendors, kind)
        await product.raw(TEST_PROCESSOR, {"input": {"processorId": processor["id"]}}, token=team.owner)
        team.processor = team.processor or processor
    for kind, provider, secret in (
        ("SMS", "twilio_sms", "auth_token"),
        ("EMAIL", "smtp_email", "password"),
        ("MESSENGER", "meta_messenger", "access_token"),
    ):
        given = {"kind": kind, "provider": provider, "displayName": "Ours", "sender": "ours"}
        given |= {"credentials": wrong(watched.vendors.credentials(kind), secret)}
        assert (await product.one(d.CONNECT_CHANNEL, {"input": given}, token=team.owner))["userErrors"] != []
        channel = await connect_channel(team, watched.vendors, kind)
        await product.raw(TEST_CHANNEL, {"input": {"channelId": channel}}, token=team.owner)
    chat = {"kind": "WEB_CHAT", "provider": "web_chat", "displayName": "Chat", "sender": ""}
    payload = await product.ok(d.CONNECT_CHANNEL, chat, token=team.owner)
    shown = await watched.shown_once(IDENTITY, {"channelId": payload["channel"]["id"]}, token=team.owner)
    watched.planted["identity secret"] = shown["secret"]
    for name in ("viewer", "account", "paymentRequestDefaults"):
        answer = await product.raw(everything_of(name), token=team.owner)
        assert answer.get("errors") is None, answer


def everything_of(query: str, depth: int = 4) -> str:
    """A query of every field that needs no argument."""
    return f"{{ {query} {_fields(probes.root('Query')[query].type, depth)} }}"


def _fields(type_: Any, depth: int) -> str:
    named = get_named_type(type_)
    if is_leaf_type(named):
        return ""
    chosen = ["__typename"]
    if isinstance(named, GraphQLObjectType):
        for name, one in named.fields.items():
            inner = get_named_type(one.type)
            if any(is_required_argument(argument) for argument in one.args.values()):
                continue
            if is_leaf_type(inner) or (is_object_type(inner) and depth > 1 and not inner.name.endswith("Connection")):
                chosen.append(f"{name} {_fields(inner, depth - 1)}")
    return f"{{ {' '.join(chosen)} }}"


async def ask_and_pay(watched: Watched, team: Team) -> str:
    """Request, payment and refund, with failures of every vendor; return the link's token."""
    product, vendors = watched.product, watched.vendors
    contact = await team.contact("Control Contact", phone=PHONE, email=EMAIL, addresses=[])
    request = await team.request(contact)
    token: str = request["checkoutUrl"].rpartition("/")[2]
    vendors.twilio.fail_next("before_500")
    vendors.mail.answers["MAIL"] = "550 5.7.1 No"
    for kind in ("SMS", "EMAIL"):
        await product.raw(
            d.SEND_REQUEST,
            {
                "input": {
                    "idempotencyKey": harness.key(),
                    "paymentRequestId": request["id"],
                    "channelId": team.channels[kind],
                }
            },
        )
    async with asyncio.timeout(20):
        while await Message.filter(delivery_status__in=["QUEUED", "SENDING"]).exists():
            await asyncio.sleep(0.05)
    async with product.browser() as browser:
        watched.watch(browser.http)
        for path in ("", "/return", "?utm=1"):
            await browser.open(request["checkoutUrl"] + path)
        vendors.stripe.fail_next("before_500")
        await browser.press("Pay")
        assert browser.status == 503
        await browser.open(request["checkoutUrl"])
    session = (await press_pay(product, request["checkoutUrl"])).rpartition("/")[2].partition("#")[0]
    event = vendors.stripe.pay(session)
    url = team.processor["webhookUrl"]
    body, headers = vendors.stripe.webhook(event)
    forged = stripe_server.sign(body, WRONG + "webhook", 1)
    assert await watched.vendor_says(url, body, {**headers, "stripe-signature": forged}) == 400
    assert await watched.vendor_says(url, stripe_server.SECRET_KEY.encode(), headers) == 400
    assert await watched.vendor_says(url.replace("prc_", "prc_0"), body, headers) == 404
    assert await watched.vendor_says(url, body, headers) == 200
    for name, path in (("twilio_sms", "SMS"), ("smtp_email", "EMAIL"), ("meta_messenger", "MESSENGER")):
        inbound = f"{product.base_url}/inbound/{name}/{team.channels[path]}"
        bad = {"x-hub-signature-256": WRONG, "x-twilio-signature": WRONG, "content-type": "application/json"}
        await watched.vendor_says(inbound, json.dumps({"From": PHONE, "Body": MAIL_SECRET}).encode(), bad)
    (paid,) = (await team.read(request))["payments"]
    vendors.stripe.fail_next("before_500")
    given = {"paymentId": paid["id"], "reason": "DUPLICATE", "idempotencyKey": harness.key()}
    await product.raw(d.REFUND, {"input": given}, token=team.owner)
    return token


async def ask_nonsense(watched: Watched, team: Team, token: str) -> None:
    """Errors of every kind, with secrets in the operations."""
    product, secret = watched.product, stripe_server.SECRET_KEY
    for document in (
        f'mutation {{ configureProcessor(input: {{credentials: {{stripe: {{secretKey: "{secret}" }} ',
        f'mutation {{ configureProcessor(input: {{credentials: {{stripe: {{secretKei: "{secret}"}}}}}}) {{ nothing }} }}',
        f'mutation {{ signIn(input: {{email: "{EMAIL}", password: ["{PASSWORD}"]}}) {{ accessToken }} }}',
    ):
        answer = await product.raw(document, token=team.owner)
        assert answer["errors"]
        # graphql-core's words repeat what was asked: to the one who asked, and to nobody else (the log has none of it).
        watched.answers.pop()
    await product.raw(
        d.CONFIGURE_PROCESSOR, {"input": {"credentials": {"stripe": {"secretKey": {"a": 1}}}}}, token=team.owner
    )
    for path in (
        "/",
        "/graphiql",
        "/healthz",
        "/readyz",
        "/metrics",
        f"/p/{token[:-1]}x",
        "/inbox",
        "/nowhere",
        "/demo/phone",
    ):
        await product.http.get(path)
    await product.http.get(f"/graphql?query={secret}")
    watched.answers.pop()  # a syntax error, as above
    await product.http.post(
        "/graphql", content=b'{"query": "' + secret.encode(), headers={"content-type": "application/json"}
    )


async def cli(*arguments: str, **environ: str) -> list[str]:
    """What a command prints."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "cli.py", *arguments),
        cwd=ROOT,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    return [out.decode()]


@pytest.mark.slow
async def test_no_planted_secret_is_in_the_log_the_database_or_an_answer(watched: Watched, database: str) -> None:
    product = watched.product
    team = await new_team(product)
    watched.watch(product.http)
    planted = watched.planted
    planted |= {
        "encryption key": KEY,
        "Stripe's secret key": stripe_server.SECRET_KEY,
        "Stripe's webhook secret": stripe_server.WEBHOOK_SECRET,
        "PayPal's client secret": paypal_server.CLIENT_SECRET,
        "Square's token": square_server.ACCESS_TOKEN,
        "Square's signature key": square_server.SIGNATURE_KEY,
        "Twilio's token": twilio_server.AUTH_TOKEN,
        "SMTP password": smtp_server.PASSWORD,
        "secret of inbound mail": MAIL_SECRET,
        "Meta's app secret": meta_server.APP_SECRET,
        "Meta's token": meta_server.ACCESS_TOKEN,
        "Meta's verify token": meta_server.VERIFY_TOKEN,
        "what was wrong": WRONG,
        "PayPal's basic credentials": _basic(paypal_server.CLIENT_ID, paypal_server.CLIENT_SECRET),
        "Twilio's basic credentials": _basic(twilio_server.ACCOUNT_SID, twilio_server.AUTH_TOKEN),
    }
    await sign_in_and_out(watched, team)
    await invite_and_reset(watched, team)
    await settings_of_everything(watched, team)
    token = await ask_and_pay(watched, team)
    await ask_nonsense(watched, team, token)
    async with asyncio.timeout(20):
        while await Job.exists(status="running"):
            await asyncio.sleep(0.05)
    more = {"DATABASE_URL": database, "SECRET_KEYS": KEY}
    watched.answers += await cli("rotate-keys", **more)
    watched.answers += await cli("audit", **more)
    watched.answers += await cli("rotate-keys", DATABASE_URL=database, SECRET_KEYS=WRONG + "key-of-sixteen")
    watched.answers += await cli("migrate", DATABASE_URL=f"postgres://us:{WRONG}@127.0.0.1:1/x", SECRET_KEYS=KEY)
    logging.getLogger("services").error("control-in-the-log")

    written = {"log": watched.log.getvalue()}
    links = {"link's token": token}
    people = {"phone": PHONE, "email": EMAIL}
    assert found({"control": "control-in-the-log"}, written) == {"control": ["log"]}
    assert found(planted | links | people, written) == {}

    stored = await dump()
    assert found({"control": "Control Contact"}, stored) == {"control": ["contact.name"]}
    assert found(planted, stored) == {}
    # A message's text is what its author wrote, link included; its thread's preview is the beginning of it.
    assert set(found(links, stored)["link's token"]) - {"conversation.preview"} == {"message.body"}

    answered = {f"answer {n}": text for n, text in enumerate(watched.answers)}
    assert found({"control": "Control Contact"}, answered) != {}
    assert found(planted, answered) == {}
    print(f"found 0 of {len(planted) + len(links) + len(people)} in {len(watched.answers)} answers")  # noqa: T201


def _basic(user: str, secret: str) -> str:
    return base64.b64encode(f"{user}:{secret}".encode()).decode()
