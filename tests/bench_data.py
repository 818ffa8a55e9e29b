"""Paythread's data for the benchmark, and the process that commits events. Run as `python -m tests.bench_data WORKLOAD COUNT`.

The settings come from the environment. It prints one JSON object: what the load needs to know.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from models import database, event_log, searching, tables, vault
from models.ids import public_id, uuid7
from models.ledger import CardKind
from models.migrate import migrate
from services.accounts import accounts, api_keys
from services.connections import channel_settings, processor_settings
from services.core.permissions import Actor, system_actor
from services.core.unit_of_work import change
from services.messaging import contacts
from settings import Settings

SECRET = "whsec_bench_0123456789"
AMOUNT = 12500
THREADS, ITEMS = 20, 200
REQUESTS_OF_CONTACT = 5
SOCKETS_OF_KEY = 20
MARKER = "bench-card"
CHUNK = 500


async def _account() -> tuple[Actor, tables.ChannelConnection, tables.ProcessorConnection]:
    account, _ = await accounts.create_account(
        name="Bench", currency="USD", email="owner@bench.test", password="correct-horse-battery", user_name="Owner"
    )
    actor = system_actor(account.id)
    channel = await channel_settings.connect_channel(
        actor, kind="SMS", provider="simulated", display_name="SMS", sender="+14155550100"
    )
    # Connecting Stripe would ask Stripe; only its webhook secret matters here.
    credentials = orjson.dumps({"secret_key": "sk_test_bench_0123456789", "webhook_secret": SECRET}).decode()
    stripe = await tables.ProcessorConnection.create(
        account_id=account.id,
        processor="stripe",
        display_name="Stripe",
        test_mode=True,
        credentials=vault.seal(account.id, credentials),
    )
    return actor, channel, stripe


async def _keys(actor: Actor, count: int) -> list[str]:
    end = datetime.now(UTC) + timedelta(days=30)
    return [(await api_keys.create(actor, name="Bench", role="ADMIN", expires_at=end))[1] for _ in range(count)]


def _contact(account_id: UUID, n: int) -> tuple[tables.Contact, tables.ContactAddress, tables.Conversation]:
    name, phone = f"Contact {n}", f"+1415{2000000 + n}"
    contact = tables.Contact(
        id=uuid7(), account_id=account_id, name=name, phone=phone, search=searching.stored([name, phone])
    )
    address = tables.ContactAddress(account_id=account_id, contact_id=contact.id, kind="SMS", address=phone)
    conversation = tables.Conversation(
        id=uuid7(), account_id=account_id, contact_id=contact.id, last_activity_at=datetime.now(UTC)
    )
    return contact, address, conversation


def _request(of: tables.Conversation, processor_id: UUID, n: int) -> tuple[tables.PaymentRequest, str]:
    token, number, now = secrets.token_urlsafe(16), f"PR-{n:07d}", datetime.now(UTC)
    row = tables.PaymentRequest(
        id=uuid7(),
        account_id=of.account_id,
        contact_id=of.contact_id,
        conversation_id=of.id,
        number=number,
        token_hash=vault.digest(token),
        token=vault.seal(of.account_id, token),
        product_name="Deep clean",
        amount_minor=AMOUNT,
        currency="USD",
        test_mode=True,
        processor_connection_id=processor_id,
        status="SENT",
        sent_at=now,
        sent_via="MESSAGE",
        delivery_state="DELIVERED",
        search=searching.stored([number, "Deep clean"]),
    )
    return row, token


def _card(of: tables.PaymentRequest, seq: int) -> tables.ActivityCard:
    return tables.ActivityCard(
        id=uuid7(),
        account_id=of.account_id,
        conversation_id=of.conversation_id,
        contact_id=of.contact_id,
        seq=seq,
        kind="PAYMENT_REQUEST",
        status="SENT",
        payment_request_id=of.id,
        text=f"Payment request {of.number}: $125.00 for Deep clean.",
        key=f"PAYMENT_REQUEST:{of.id}",
        occurred_at=datetime.now(UTC),
    )


def _summary(of: tables.Contact, requests: int) -> tables.ContactSummary:
    asked = requests * AMOUNT
    return tables.ContactSummary(
        account_id=of.account_id,
        contact_id=of.id,
        currency="USD",
        test_mode=True,
        requested_minor=asked,
        outstanding_minor=asked,
        open_count=requests,
    )


async def _insert(*groups: list[Any]) -> None:
    for rows in groups:
        if rows:
            await type(rows[0]).bulk_create(rows, batch_size=CHUNK)


async def _log(account_id: UUID, items: list[Any], first: int) -> None:
    """The log's entries of thread items, so that the numbers have no holes."""
    entries = []
    for row in items:
        is_card = isinstance(row, tables.ActivityCard)
        ids: dict[str, Any] = (
            {"card_id": row.id, "payment_request_id": row.payment_request_id} if is_card else {"message_id": row.id}
        )
        entries.append(
            event_log.LogEntry(
                account_id=account_id,
                seq=row.seq,
                kind="activity.created" if is_card else "message.created",
                at=row.occurred_at,
                conversation_id=row.conversation_id,
                contact_id=row.contact_id,
                **ids,
            )
        )
    assert first == entries[0].seq
    await event_log.append(entries)


async def threads() -> dict[str, Any]:
    """Conversations of 200 items, messages and cards in turn; each card has its own request."""
    actor, channel, stripe = await _account()
    ids = []
    for t in range(THREADS):
        contact, address, conversation = _contact(actor.account_id, t)
        first = await event_log.reserve(actor.account_id, ITEMS)
        items: list[Any] = []
        requests: list[Any] = []
        for n in range(ITEMS):
            if n % 2:
                requests.append(_request(conversation, stripe.id, t * ITEMS + n)[0])
                items.append(_card(requests[-1], first + n))
            else:
                items.append(_message(conversation, channel, first + n))
        await _insert([contact], [address], [conversation], requests, [_summary(contact, len(requests))])
        await _insert([row for row in items if isinstance(row, tables.Message)])
        await _insert([row for row in items if isinstance(row, tables.ActivityCard)])
        await _log(actor.account_id, items, first)
        ids.append(public_id("cnv", conversation.id))
    await tables.Account.filter(id=actor.account_id).update(request_count=THREADS * ITEMS)
    return {"keys": await _keys(actor, 1), "conversations": ids}


def _message(of: tables.Conversation, channel: tables.ChannelConnection, seq: int) -> tables.Message:
    return tables.Message(
        id=uuid7(),
        account_id=of.account_id,
        conversation_id=of.id,
        contact_id=of.contact_id,
        seq=seq,
        direction="INBOUND" if seq % 4 else "OUTBOUND",
        kind="SMS",
        channel_connection_id=channel.id,
        address="+14155550101",
        body="Could you come on Tuesday at nine instead? The key is with the neighbour.",
        delivery_status="DELIVERED",
        occurred_at=datetime.now(UTC),
    )


async def checkouts(count: int) -> dict[str, Any]:
    """Sent requests, each with an open Stripe checkout, five to a contact."""
    actor, _, stripe = await _account()
    known: list[list[str]] = []
    n = 0
    while n < count:
        groups: dict[type, list[Any]] = {}
        first = await event_log.reserve(actor.account_id, min(CHUNK, count - n))
        cards: list[Any] = []
        while len(cards) < CHUNK and n < count:
            contact, address, conversation = _contact(actor.account_id, n)
            of_contact = min(REQUESTS_OF_CONTACT, count - n)
            for row in (contact, address, conversation, _summary(contact, of_contact)):
                groups.setdefault(type(row), []).append(row)
            for _ in range(of_contact):
                n += 1
                request, token = _request(conversation, stripe.id, n)
                session = _session(request, n)
                cards.append(_card(request, first + len(cards)))
                groups.setdefault(type(request), []).append(request)
                groups.setdefault(type(session), []).append(session)
                known.append([public_id("pr", request.id), str(session.external_id), token])
        order = (tables.Contact, tables.ContactAddress, tables.Conversation, tables.PaymentRequest)
        await _insert(*(groups[kind] for kind in (*order, tables.CheckoutSession, tables.ContactSummary)), cards)
        await _log(actor.account_id, cards, first)
    await tables.Account.filter(id=actor.account_id).update(request_count=count)
    return {"path": f"/webhooks/stripe/{public_id('prc', stripe.id)}", "requests": known}


def _session(of: tables.PaymentRequest, n: int) -> tables.CheckoutSession:
    external_id = f"cs_test_bench{n:08d}"
    return tables.CheckoutSession(
        account_id=of.account_id,
        payment_request_id=of.id,
        processor_connection_id=of.processor_connection_id,
        n=1,
        idempotency_key=f"{public_id('pr', of.id)}:1",
        amount_minor=AMOUNT,
        currency="USD",
        status="OPEN",
        external_id=external_id,
        url=f"https://checkout.example/{external_id}",
        expires_at=datetime.now(UTC) + timedelta(hours=23),
    )


async def fanout(count: int) -> dict[str, Any]:
    """One request to log cards on, and a key for every 20 sockets."""
    actor, _, stripe = await _account()
    contact, address, conversation = _contact(actor.account_id, 1)
    request, _ = _request(conversation, stripe.id, 1)
    await _insert([contact], [address], [conversation], [request], [_summary(contact, 1)])
    await tables.Account.filter(id=actor.account_id).update(request_count=1)
    return {"keys": await _keys(actor, -(-count // SOCKETS_OF_KEY))}


async def sending() -> dict[str, Any]:
    """A contact, a simulated channel and the sandbox, to create and send requests with."""
    actor, channel, _ = await _account()
    await processor_settings.configure_processor(actor, processor="sandbox", display_name="Sandbox", make_default=True)
    contact = await contacts.create_contact(actor, name="Contact 1", phone="+14155550199")
    return {
        "keys": await _keys(actor, 1),
        "contact": public_id("cnt", contact.id),
        "channel": public_id("chn", channel.id),
    }


async def _prepare(settings: Settings, workload: str, count: int) -> dict[str, Any]:
    import app

    await migrate(settings.database_url)
    app.configure(settings)
    async with app.opened(settings):
        if workload == "fanout":
            made = await fanout(count)
        elif workload == "thread":
            made = await threads()
        elif workload == "send":
            made = await sending()
        elif workload == "start":
            made = {}
        else:
            made = await checkouts(count)
        if settings.database_url.startswith("sqlite"):
            # The whole database in one file, which is then copied.
            await database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
        else:
            await database.execute("ANALYZE")  # the server's own would come a minute later
    return made


async def _commit_events(settings: Settings) -> None:
    """For each line of standard input commit one card, as a worker would, and print a line."""
    import app

    app.configure(settings)
    async with app.running(settings, jobs_too=False):
        request = await tables.PaymentRequest.all().first()
        assert request is not None
        _say("ready")
        loop = asyncio.get_running_loop()
        n = 0
        while await loop.run_in_executor(None, sys.stdin.readline):
            n += 1
            async with change(request.account_id) as changed:
                await changed.log_card(request, CardKind.PAYMENT_PROCESSING, text=f"{MARKER} {n}", key=f"bench:{n}")
            _say("ok")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> None:
    settings = Settings()
    if arguments[0] == "events":
        asyncio.run(_commit_events(settings))
        return
    _say(orjson.dumps(asyncio.run(_prepare(settings, arguments[0], int(arguments[1])))).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
