"""SECRET_KEYS changes while the system is in use: no stored secret is lost, and the old key can be dropped."""

from __future__ import annotations

import ast
import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from models import database as db
from models import tables, vault
from models.tables import Job, Message
from services.accounts import key_rotation
from services.core import jobs
from services.payments import integrity_check
from tests import factories
from tests.flows import documents as d
from tests.flows import harness
from tests.flows.conftest import Team, new_team
from tests.flows.vendors import Vendors, all_vendors, connect_channel, connect_processor, post, press_pay

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
OLD, NEW, FOREIGN = "the-old-key-of-the-account", "the-new-key-of-the-account", "a-key-of-somebody-else"
KINDS = ("SMS", "EMAIL")


@pytest.fixture
async def vendors() -> AsyncIterator[Vendors]:
    async with all_vendors() as running:
        yield running


@asynccontextmanager
async def running(database: str, events_url: str, vendors: Vendors, keys: str) -> AsyncIterator[harness.Product]:
    async with harness.in_process(database, events_url, SECRET_KEYS=keys, **vendors.addresses) as product:
        yield product


async def everything(table: str) -> list[dict[str, Any]]:
    return await db.rows(f"SELECT * FROM {table}")  # noqa: S608 (a name of ours)


async def rotate(database: str, keys: str) -> tuple[int, str, str]:
    """`python cli.py rotate-keys` with these settings: exit code, output, errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "cli.py", "rotate-keys"),
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": database, "SECRET_KEYS": keys},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode or 0, out.decode(), errors.decode()


async def everything_works(team: Team, vendors: Vendors, contact: dict[str, Any], open_request: dict[str, Any]) -> None:
    """An earlier request is paid on its old link, every processor opens a checkout, and every channel sends."""
    shown = await team.read(open_request)
    assert shown["checkoutUrl"].rpartition("/")[2] == open_request["checkoutUrl"].rpartition("/")[2]
    session = (await press_pay(team.product, shown["checkoutUrl"])).rpartition("/")[2].partition("#")[0]
    body, headers = vendors.stripe.webhook(vendors.stripe.pay(session))
    path = "/webhooks" + team.processor["webhookUrl"].partition("/webhooks")[2]
    assert (await post(team.product.base_url + path, body, headers)).status_code == 200
    assert (await team.read(open_request))["status"] == "PAID"
    for kind in ("PAYPAL", "SQUARE"):
        other = await team.request(contact, processorKind=kind)
        assert (await press_pay(team.product, other["checkoutUrl"])).startswith("http")
    for kind in KINDS:
        fresh = await team.request(contact)
        message = (await team.send(fresh, kind))["message"]
        async with asyncio.timeout(15):
            while (row := await Message.get(body=message["body"])).delivery_status != "SENT":
                assert row.delivery_status in ("QUEUED", "SENDING"), row.error_message
                await asyncio.sleep(0.05)


async def quiet() -> None:
    """Wait until no job is left."""
    async with asyncio.timeout(20):
        while await Job.exists(status="running"):
            await asyncio.sleep(0.05)


async def test_after_a_rotation_every_connection_works_and_the_old_key_can_be_dropped(
    database: str, events_url: str, vendors: Vendors
) -> None:
    async with running(database, events_url, vendors, OLD) as product:
        team = await new_team(product)
        team.processor = await connect_processor(team, vendors, "STRIPE")
        for kind in ("PAYPAL", "SQUARE"):
            await connect_processor(team, vendors, kind)
        for kind in (*KINDS, "MESSENGER"):
            await connect_channel(team, vendors, kind)
        maria = await team.contact()
        requests = [await team.request(maria) for _ in range(3)]
        await everything_works(team, vendors, maria, requests[0])
        await quiet()

    # The new key is first; the old one still opens and verifies what it sealed and signed.
    async with running(database, events_url, vendors, f"{NEW},{OLD}") as product:
        team.product, product.token = product, team.agent
        await everything_works(team, vendors, maria, requests[1])
        await quiet()
        code, out, errors = await rotate(database, f"{NEW},{OLD}")
        assert (code, errors) == (0, "")
        sealed = {
            table: sum(row[column] is not None for row in await everything(table))
            for table, column in key_rotation.COLUMNS
        }
        assert out == "".join(f"{table}: {count}\n" for table, count in sealed.items())
        assert sealed["processor_connection"] == sealed["channel_connection"] == 3
        assert (await product.http.get("/readyz")).json()["checks"]["secrets"] == "ok"

    # The old one is dropped: whoever signed in with it signs in again, everything else goes on.
    async with running(database, events_url, vendors, NEW) as product:
        team.product, product.token = product, team.agent
        assert (await product.http.get("/readyz")).status_code == 200
        email = (await tables.User.get(role="AGENT")).email
        with pytest.raises(harness.GraphQLFailed) as refused:
            await team.read(requests[2])
        assert refused.value.code == "UNAUTHENTICATED"
        product.token = None
        team.agent = product.token = await product.sign_in(email)
        await everything_works(team, vendors, maria, requests[2])
        assert await key_rotation.unreadable() == {}
        await quiet()
    assert [str(difference) for difference in await integrity_check.audit()] == []


async def test_with_a_wrong_key_readiness_the_command_and_the_operation_say_what_is_wrong(
    database: str, events_url: str, vendors: Vendors
) -> None:
    async with running(database, events_url, vendors, OLD) as product:
        team = await new_team(product)
        team.processor = await connect_processor(team, vendors, "STRIPE")
        maria = await team.contact()
        request = await team.request(maria)
    email = (await tables.User.get(role="AGENT")).email
    async with running(database, events_url, vendors, FOREIGN) as product:
        team.product = product
        ready = await product.http.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["checks"]["secrets"] == "not readable with these SECRET_KEYS"
        team.agent = product.token = await product.sign_in(email)
        payload = await product.one(d.CREATE, {"input": team.ask(maria)})
        assert [e["code"] for e in payload["userErrors"]] == ["NO_PROCESSOR_CONFIGURED"]
        named = {**team.ask(maria), "processorId": team.processor["id"]}
        payload = await product.one(d.CREATE, {"input": named})
        assert [(e["code"], e["message"]) for e in payload["userErrors"]] == [
            ("PROCESSOR_UNAVAILABLE", "Its credentials can't be read with this server's SECRET_KEYS.")
        ]
        async with httpx2.AsyncClient() as contact:
            answer = await contact.post(
                product.base_url + "/p/" + request["checkoutUrl"].rpartition("/")[2] + "/pay",
                headers={"Origin": product.base_url},
            )
        assert "SECRET_KEYS" not in answer.text  # not the contact's business
        calls = len(vendors.stripe.calls)
        code, out, errors = await rotate(database, FOREIGN)
        assert (code, out) == (1, "")
        assert errors == (
            "Error: A secret is not readable with the configured SECRET_KEYS; add its key to SECRET_KEYS.\n"
        )
        assert len(vendors.stripe.calls) == calls
    # The right key is back: nothing was lost.
    async with running(database, events_url, vendors, f"{FOREIGN},{OLD}") as product:
        assert (await product.http.get("/readyz")).status_code == 200
        assert (await press_pay(product, product.base_url + "/p/" + request["checkoutUrl"].rpartition("/")[2])) != ""


# --------------------------------------------------------------------------------------------------- nothing forgotten
def test_whoever_seals_is_known_here_with_the_column_that_takes_it() -> None:
    """A new caller of `vault.seal` fails this test: enter its column in key_rotation.COLUMNS, then here."""
    sealers = {
        "services/connections/providers.py": {
            ("processor_connection", "credentials"),
            ("channel_connection", "credentials"),
        },
        "services/payments/payment_requests.py": {("payment_request", "token")},
        "services/messaging/attachments.py": {("attachment", "source_url")},
        "services/core/jobs.py": {("job", "sealed")},
        "services/accounts/key_rotation.py": set(),  # puts back what it took
        "schema/visitor.py": set(),  # cursors that a widget holds: with the key gone, it reads anew
        "resolvers/visitor/subscription.py": set(),  # the same cursors
    }
    found = set()
    for room in ("services", "models", "integrations", "schema", "resolvers", "web"):
        for file in (ROOT / room).rglob("*.py"):
            called = {
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.Call)
            }
            if "seal" in called:
                found.add(str(file.relative_to(ROOT)))
    assert found == set(sealers)
    assert set().union(*sealers.values()) == set(key_rotation.COLUMNS)


async def test_every_sealed_value_of_a_full_database_stands_in_a_column_that_is_rotated(database: str) -> None:
    contact = await factories.contact(await factories.account())
    await factories.payment_request(contact)
    await factories.channel_connection(await tables.Account.get(id=contact.account_id))
    message = await factories.message(await factories.conversation(contact))
    await factories.attachment(message, source_url=vault.seal(message.account_id, "https://files.test/1"))
    await jobs.enqueue("inbound.handle", {}, account_id=message.account_id, secret="a callback")
    assert await sealed_columns() == set(key_rotation.COLUMNS)
    # The search finds what it is for.
    await tables.Contact.filter(id=contact.id).update(name=vault.seal(contact.account_id, "x")[:120])
    assert await sealed_columns() == {*key_rotation.COLUMNS, ("contact", "name")}


async def sealed_columns() -> set[tuple[str, str]]:
    """The columns with sealed values."""
    return {
        (table, column)
        for table in (model._meta.db_table for model in vars(tables).values() if _is_table(model))
        for row in await everything(table)
        for column, value in row.items()
        if isinstance(value, str) and value.startswith("gAAAA")
    }


def _is_table(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, tables.Row) and not thing._meta.abstract
