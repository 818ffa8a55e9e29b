"""Fills an account with many rows by bulk SQL, on both engines: each row is a copy of one that the services made."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson

from integrations.base import Environment
from models import database, tables, vault
from models.ids import public_id, uuid7
from services.core import configuration
from services.core.configuration import Configuration
from services.core.permissions import Actor
from services.messaging import contacts
from services.payments import payment_requests, processor_webhooks, request_sending
from services.sandbox.webhooks import signed
from settings import Settings

WEBHOOK_SECRET = "sandbox_webhook_secret_0001"
THREAD_ITEMS = 200  # of the conversation that is measured
CONTACT_REQUESTS = 20  # of the contact that is measured
RARE = 20  # requests of the rare status

HOT, PAYABLE = 0x10_000_000, 0x20_000_000  # first numbers of the copies that the measured operations use

_SERIES = "WITH RECURSIVE s(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM s WHERE i < {last})"
_HEADS = {  # of the copies' ids
    "contact": "01800000",
    "contact_address": "01800001",
    "conversation": "01800002",
    "payment_request": "01800003",
    "message": "01800004",
    "checkout_session": "01800005",
    "money_fact": "01800006",
    "activity_card": "01800007",
    "message_payment_request": "01800008",
    "processor_event": "01800009",
    "notification": "0180000a",
    "idempotency_key": "0180000b",
    "contact_summary": "0180000c",
}


@dataclass
class LargeAccount:
    """An account, the rows that the measured operations use, and how to pay a request."""

    actor: Actor
    channel_id: UUID
    connection_id: UUID
    contact_id: UUID
    conversation_id: UUID
    payable: list[tuple[UUID, str]] = field(default_factory=list)  # SENT requests and their checkouts at the sandbox

    async def new_request(self) -> tables.PaymentRequest:
        return await payment_requests.create(
            self.actor,
            contact_id=self.contact_id,
            product_name="Deep clean",
            amount="120.00",
            idempotency_key=str(uuid4()),
        )

    async def send(self, request: tables.PaymentRequest) -> None:
        await request_sending.send(
            self.actor, payment_request_id=request.id, channel_id=self.channel_id, idempotency_key=str(uuid4())
        )

    async def pay(self, request_id: UUID, checkout_id: str) -> None:
        """Receive the sandbox's signed webhook of a payment."""
        now = datetime.now(UTC)
        paid = {
            "id": f"sbx_pay_{secrets.token_hex(8)}",
            "status": "succeeded",
            "amount_minor": 12000,
            "currency": "USD",
            "fee_minor": 300,
            "created_at": now.isoformat(),
        }
        event = {
            "id": f"sbx_evt_{secrets.token_hex(8)}",
            "type": "checkout.completed",
            "created_at": now.isoformat(),
            "data": {
                "checkout": {
                    "id": checkout_id,
                    "status": "completed",
                    "request_reference": public_id("pr", request_id),
                },
                "payment": paid,
            },
        }
        body = orjson.dumps(event)
        headers = {"paythread-sandbox-signature": signed(WEBHOOK_SECRET, body, at=now)}
        await processor_webhooks.receive("sandbox", self.connection_id, body, headers)


def configure(database_url: str) -> None:
    """Configure this process's services as for a test."""
    given: dict[str, Any] = {
        "environment": "test",
        "database_url": database_url,
        "public_url": "https://pay.example.test",
    }
    settings = Settings(_env_file=None, **given)  # type: ignore[call-arg]  # a parameter of pydantic's
    vault.open_vault(settings.keys)
    environment = Environment(public_url=settings.base_url, sandbox_url="http://127.0.0.1:9", timeout_s=5)
    configuration.use(replace(Configuration.of(settings), environment=environment))


async def new_account(*, payable: int = 0, number: int = 0) -> LargeAccount:
    """An account with a paid request in a thread of THREAD_ITEMS items, and `payable` requests that wait for their money.

    `number`: of the account in its database, from 0.
    """
    made = await _connected_account()
    request = await made.new_request()
    await made.send(request)
    checkout = await tables.CheckoutSession.create(
        account_id=made.actor.account_id,
        payment_request_id=request.id,
        processor_connection_id=made.connection_id,
        n=1,
        idempotency_key=str(uuid7()),
        amount_minor=12000,
        currency="USD",
        status="OPEN",
        external_id=f"sbx_of_{number}",
        expires_at=datetime(2100, 1, 1, tzinfo=UTC),
    )
    payables = PAYABLE + number * 0x10_000
    await _copy("payment_request", payable, request.id, _request("payable"), first=payables)
    session = {"payment_request_id": _id("payment_request"), "external_id": "'sbx_' || i"}
    await _copy("checkout_session", payable, checkout.id, session | {"idempotency_key": "'c' || i"}, first=payables)
    numbers = range(payables, payables + payable)
    made.payable = [(UUID(f"{_HEADS['payment_request']}-0000-7000-8000-{n:012x}"), f"sbx_{n}") for n in numbers]
    await made.pay(request.id, f"sbx_of_{number}")
    await _fill_thread(made, request.id, HOT + number * 0x10_000)
    return made


async def _connected_account() -> LargeAccount:
    """An account with an agent, a simulated channel, the sandbox, and a contact."""
    account = await tables.Account.create(
        name="Acme",
        default_currency="USD",
        link_message_template="{business}: {link}",
        event_epoch=secrets.token_hex(6),
    )
    user = await tables.User.create(
        account_id=account.id, email=f"{uuid4()}@example.test", name="Ana", role="AGENT", password_hash="-"
    )
    actor = Actor(
        account_id=account.id, role="AGENT", user_id=user.id, name="Ana", kind="user", credential=str(uuid4())
    )
    channel = await tables.ChannelConnection.create(
        account_id=account.id,
        kind="SMS",
        provider="simulated",
        display_name="SMS",
        sender="+14155550100",
        credentials=vault.seal(account.id, '{"secret": "simulated-secret"}'),
    )
    keys = {"secret_key": "sk_sandbox_test_key_0001", "webhook_secret": WEBHOOK_SECRET}
    connection = await tables.ProcessorConnection.create(
        account_id=account.id,
        processor="sandbox",
        display_name="Sandbox",
        test_mode=True,
        credentials=vault.seal(account.id, orjson.dumps(keys).decode()),
        is_default=True,
    )
    contact = await contacts.create_contact(actor, name="Maria Lopez", phone="+14155550101")
    conversation = await tables.Conversation.get(contact_id=contact.id)
    return LargeAccount(actor, channel.id, connection.id, contact.id, conversation.id)


async def _fill_thread(made: LargeAccount, request_id: UUID, first: int) -> None:
    seq = await _last_seq(made.actor.account_id)
    count = THREAD_ITEMS // 2
    message = await _one("message", made)
    card = await _one("activity_card", made, " AND kind = 'PAYMENT_RECEIVED'")
    await _copy("payment_request", CONTACT_REQUESTS, request_id, _request("hot"), first=first)
    await _copy(
        "message", count, message, {"seq": f"{seq} + (i - {first}) * 2 + 1", "external_id": "'h' || i"}, first=first
    )
    cards = {"seq": f"{seq} + (i - {first}) * 2 + 2", "kind": "'PAYMENT_FAILED'", "key": "'h' || i"}
    cards["payment_request_id"] = _id("payment_request", f"{first} + (i - {first}) % {CONTACT_REQUESTS}")
    await _copy("activity_card", count, card, cards, first=first)
    await database.execute(
        "UPDATE account SET event_seq = event_seq + ? WHERE id = ?", 2 * count, made.actor.account_id
    )


async def fill(made: LargeAccount, items: int) -> None:
    """Add `items` thread items and conversations, three quarters as many requests, and what belongs to them."""
    account = made.actor.account_id
    counts = {"contact": items, "contact_address": items, "conversation": items, "payment_request": items * 3 // 4}
    sources = {
        "payment_request": " AND status = 'PAID'",
        "activity_card": " AND kind = 'PAYMENT_RECEIVED'",
        "checkout_session": " AND status = 'COMPLETED'",
    }
    seq = await _last_seq(account)
    for table, values in _many(items, seq).items():
        row = await _one(table, made, sources.get(table, ""))
        await _copy(table, counts.get(table, items // 2), row, values)
    (event,) = await database.rows("SELECT min(seq) AS seq FROM event WHERE account_id = ?", account)
    columns = [name for name in await _columns("event") if name != "seq"]
    await database.execute(
        f"{_SERIES.format(first=1, last=2 * items)} INSERT INTO event ({', '.join(columns)}, seq)"  # noqa: S608
        f" SELECT {', '.join('t.' + name for name in columns)}, {seq} + i FROM event t, s WHERE t.account_id = ? AND t.seq = ?",
        account,
        event["seq"],
    )
    await database.execute(
        "UPDATE account SET event_seq = event_seq + ?, request_count = request_count + ? WHERE id = ?",
        2 * items,
        2 * items,
        account,
    )


def _many(items: int, seq: int) -> dict[str, dict[str, str]]:
    """The columns that differ among the copies of each table, a table before those that refer to it."""
    contact, conversation = {"contact_id": _id("contact")}, {"conversation_id": _id("conversation")}
    request = {"payment_request_id": _id("payment_request")}
    closed_at = f"CASE WHEN i % 10 > 0 THEN {_time(items)} END"
    checkout = {"checkout_session_id": _id("checkout_session")}
    both = contact | conversation
    text = "'many ' || i || ' thanks for the thorough cleaning of the house'"
    return {
        "contact": {"name": "'Contact ' || i", "search": "'contact ' || i"},
        "contact_address": contact | {"address": "'+1415' || (1000000 + i)"},
        "conversation": contact
        | {"last_activity_at": _time(items), "created_at": _time(items), "closed_at": closed_at}
        | {"unread_count": "CASE WHEN i % 20 = 0 THEN 1 ELSE 0 END"}
        | {"waiting_since": f"CASE WHEN i % 5 = 0 THEN {_time(items)} END"},
        "payment_request": both | _request("many", spread=True, items=items),
        "message": both | {"seq": f"{seq} + 2 * i", "external_id": "'m' || i"} | {"body": text, "search": text},
        "checkout_session": request | {"external_id": "'m' || i", "idempotency_key": "'m' || i"},
        "money_fact": contact | request | checkout | {"external_id": "'m' || i", "occurred_at": _time(items)},
        "activity_card": both | request | {"seq": f"{seq} + 2 * i + 1", "key": "'m' || i"},
        "message_payment_request": request | {"message_id": _id("message")},
        "processor_event": {"external_id": "'m' || i"},
        "notification": conversation | request | {"seq": f"{seq} + 2 * i", "key": "'m' || i", "read_at": "created_at"},
        "idempotency_key": {"key": "'m' || i"},
        "contact_summary": contact,
    }


async def _last_seq(account_id: UUID) -> int:
    (found,) = await database.rows("SELECT event_seq FROM account WHERE id = ?", account_id)
    return int(found["event_seq"])


def _request(mark: str, *, spread: bool = False, items: int = 0) -> dict[str, str]:
    """What tells one copy of a request from the next. `spread`: of all statuses and over time."""
    values = {"number": f"'{mark}-' || i", "token_hash": f"'{mark}-' || i"}
    if spread:
        values |= {
            "created_at": _time(items),
            # In every account a page of the rare status.
            "status": f"CASE WHEN i % {max(1, items * 3 // 4 // RARE)} = 0 THEN 'PARTIALLY_PAID'"
            " WHEN i % 20 = 0 THEN 'VOID' WHEN i % 20 = 1 THEN 'DRAFT' WHEN i % 20 < 7 THEN 'SENT' ELSE 'PAID' END",
            "sent_at": _time(items),
            "paid_at": _time(items, "(i * 7919 % 30000)"),  # after another time each
            "due_at": f"CASE WHEN i % 20 IN (2, 3, 4, 5) THEN {_time(items)} END",
        }
    return values


async def _one(table: str, made: LargeAccount, more: str = "") -> UUID:
    (found,) = await database.rows(
        f"SELECT id FROM {table} WHERE account_id = ?{more} ORDER BY id LIMIT 1",  # noqa: S608
        made.actor.account_id,
    )
    return UUID(str(found["id"]))


async def _columns(table: str) -> list[str]:
    if database.dialect() == "sqlite":
        return [row["name"] for row in await database.rows(f"PRAGMA table_info({table})")]
    found = await database.rows("SELECT column_name FROM information_schema.columns WHERE table_name = ?", table)
    return [row["column_name"] for row in found]


async def _copy(table: str, count: int, row: UUID, values: Mapping[str, str], *, first: int = 1) -> None:
    """Insert `count` copies of a row; `values`: SQL of the columns that differ, by the copy's number `i`."""
    if count < 1:
        return
    different = {"id": _id(table), **values}
    parts = {name: different.get(name, f"t.{name}") for name in await _columns(table)}
    await database.execute(
        f"{_SERIES.format(first=first, last=first + count - 1)} INSERT INTO {table} ({', '.join(parts)})"  # noqa: S608
        f" SELECT {', '.join(parts.values())} FROM {table} t, s WHERE t.id = ?",
        row,
    )


def _id(table: str, number: str = "i") -> str:
    """SQL of the n-th id of a table: older than every real one."""
    head = f"{_HEADS[table]}-0000-7000-8000-"
    if database.dialect() == "sqlite":
        return f"printf('{head}%012x', {number})"
    return f"('{head}' || lpad(to_hex({number}), 12, '0'))::uuid"


def _time(items: int, later: str = "0") -> str:
    """SQL of the n-th minute of `items` that end now, or of some minutes later."""
    if database.dialect() == "sqlite":
        return f"strftime('%Y-%m-%d %H:%M:%f000+00:00', 'now', ({later} - {items} + i - 1) || ' minutes')"
    return f"now() + ({later} - {items} + i - 1) * interval '1 minute'"
