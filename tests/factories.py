"""Rows for tests, with keyword overrides. They write rows only: no cards, events or totals that services derive.

Missing parents are found or created: `await payment_request(contact)` adds its conversation and its processor.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
from argon2 import PasswordHasher

from models import event_log, tables, vault
from models.ids import public_id, uuid7
from settings import DEMO_KEY

PASSWORD = "correct-horse-battery"

_numbers = itertools.count(1)
# The cheapest parameters of argon2; sign-in reads them from the hash.
_HASH = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)

TEMPLATE = "{business}: {amount} for {product}. Pay here: {link}"


def now() -> datetime:
    return datetime.now(UTC)


def seal(account_id: UUID, secret: str) -> str:
    """`vault.seal`, with the default key if no test has opened the vault."""
    if not vault._keys:
        vault.open_vault([DEMO_KEY])
    return vault.seal(account_id, secret)


async def account(**overrides: Any) -> tables.Account:
    """An account in US dollars."""
    values: dict[str, Any] = {
        "name": f"Account {next(_numbers)}",
        "default_currency": "USD",
        "link_message_template": TEMPLATE,
        "event_epoch": secrets.token_hex(6),
    }
    return await tables.Account.create(**values | overrides)


async def user(of: tables.Account, **overrides: Any) -> tables.User:
    """An agent whose password is PASSWORD."""
    n = next(_numbers)
    values: dict[str, Any] = {
        "account_id": of.id,
        "email": f"agent{n}@example.test",
        "name": f"Agent {n}",
        "role": "AGENT",
        "password_hash": _HASH,
    }
    return await tables.User.create(**values | overrides)


async def api_key(of: tables.Account, token: str, **overrides: Any) -> tables.ApiKey:
    """The row of the API key whose clear text is `token`."""
    values: dict[str, Any] = {
        "account_id": of.id,
        "name": "Test key",
        "role": "ADMIN",
        "token_hash": vault.digest(token),
        "hint": token[-4:],
    }
    return await tables.ApiKey.create(**values | overrides)


async def user_token(of: tables.User, purpose: str, **overrides: Any) -> tables.UserToken:
    values: dict[str, Any] = {
        "account_id": of.account_id,
        "user_id": of.id,
        "purpose": purpose,
        "token_hash": vault.digest(f"token {next(_numbers)}"),
        "expires_at": datetime.now(UTC) + timedelta(hours=1),
    }
    return await tables.UserToken.create(**values | overrides)


async def session(user_id: UUID | None, of: tables.Account) -> tables.RefreshToken:
    return await tables.RefreshToken.create(
        account_id=of.id,
        user_id=user_id,
        family_id=uuid4(),
        token_hash=vault.digest(f"refresh {next(_numbers)}"),
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )


async def invitation(of: tables.Account, **overrides: Any) -> tables.Invitation:
    n = next(_numbers)
    values: dict[str, Any] = {
        "account_id": of.id,
        "email": f"invited-{n}@example.test",
        "role": "AGENT",
        "token_hash": vault.digest(f"invitation {n}"),
        "expires_at": datetime.now(UTC) + timedelta(days=7),
    }
    return await tables.Invitation.create(**values | overrides)


async def contact(of: tables.Account, **overrides: Any) -> tables.Contact:
    """A contact without addresses and without a conversation."""
    n = next(_numbers)
    values: dict[str, Any] = {"account_id": of.id, "name": f"Contact {n}"}
    return await tables.Contact.create(**values | overrides)


async def contact_address(of: tables.Contact, kind: str = "SMS", **overrides: Any) -> tables.ContactAddress:
    """The contact's identity on one kind of channel."""
    n = next(_numbers)
    address = {"EMAIL": f"contact{n}@example.test", "SMS": f"+1415{2000000 + n}", "WHATSAPP": f"+1628{2000000 + n}"}
    values: dict[str, Any] = {
        "account_id": of.account_id,
        "contact_id": of.id,
        "kind": kind,
        "address": address.get(kind, f"{kind.lower()}-{n}"),
    }
    return await tables.ContactAddress.create(**values | overrides)


async def conversation(of: tables.Contact, **overrides: Any) -> tables.Conversation:
    """The contact's one conversation; found if it has one and nothing is overridden."""
    if not overrides and (found := await tables.Conversation.get_or_none(contact_id=of.id)):
        return found
    values: dict[str, Any] = {"account_id": of.account_id, "contact_id": of.id, "last_activity_at": now()}
    return await tables.Conversation.create(**values | overrides)


async def channel_connection(
    of: tables.Account, kind: str = "SMS", *, credentials: Mapping[str, str] | None = None, **overrides: Any
) -> tables.ChannelConnection:
    """A connected simulated channel."""
    values: dict[str, Any] = {
        "account_id": of.id,
        "kind": kind,
        "provider": "simulated",
        "display_name": f"{kind} (simulated)",
        "sender": f"sender-{kind.lower()}",
        "credentials": seal(of.id, orjson.dumps(dict(credentials or {"secret": "simulated-secret"})).decode()),
    }
    return await tables.ChannelConnection.create(**values | overrides)


async def processor_connection(
    of: tables.Account, *, credentials: Mapping[str, str] | None = None, **overrides: Any
) -> tables.ProcessorConnection:
    """A connected sandbox processor, the account's default unless it has one."""
    row_id = overrides.pop("id", None) or uuid7()
    given = {"secret_key": "sk_sandbox_test_key_0001", "webhook_secret": "sandbox_webhook_secret_0001"}
    values: dict[str, Any] = {
        "id": row_id,
        "account_id": of.id,
        "processor": "sandbox",
        "display_name": "Sandbox",
        "test_mode": True,
        "credentials": seal(of.id, orjson.dumps(dict(credentials or given)).decode()),
        "is_default": not await tables.ProcessorConnection.exists(account_id=of.id, is_default=True, connected=True),
    }
    return await tables.ProcessorConnection.create(**values | overrides)


async def _processor_of(account_id: UUID) -> tables.ProcessorConnection:
    found = await tables.ProcessorConnection.filter(account_id=account_id).order_by("-is_default", "id").first()
    return found or await processor_connection(await tables.Account.get(id=account_id))


async def _channel_of(account_id: UUID, kind: str) -> tables.ChannelConnection:
    found = await tables.ChannelConnection.filter(account_id=account_id, kind=kind).order_by("id").first()
    return found or await channel_connection(await tables.Account.get(id=account_id), kind)


def token() -> str:
    """A link's token: 22 characters from 16 random bytes."""
    return secrets.token_urlsafe(16)


async def payment_request(
    of: tables.Contact, *, clear_token: str | None = None, **overrides: Any
) -> tables.PaymentRequest:
    """A DRAFT of 125 dollars. `clear_token` is the link's token (kept as hash and sealed)."""
    n = next(_numbers)
    clear = clear_token or token()
    values: dict[str, Any] = {
        "account_id": of.account_id,
        "contact_id": of.id,
        "number": f"PR-{n:07d}",
        "token_hash": vault.digest(clear),
        "token": seal(of.account_id, clear),
        "product_name": "Deep clean",
        "amount_minor": 12500,
        "currency": "USD",
        "test_mode": True,
    }
    if "conversation_id" not in overrides:
        values["conversation_id"] = (await conversation(of)).id
    if "processor_connection_id" not in overrides:
        values["processor_connection_id"] = (await _processor_of(of.account_id)).id
    return await tables.PaymentRequest.create(**values | overrides)


async def _logged(account_id: UUID, kind: str, **ids: Any) -> int:
    """Take the next number of the account's log and write its event, so that the log has no holes."""
    seq = await event_log.reserve(account_id, 1)
    await event_log.append([event_log.LogEntry(account_id=account_id, seq=seq, kind=kind, at=now(), **ids)])
    return seq


async def message(of: tables.Conversation, **overrides: Any) -> tables.Message:
    """An inbound SMS at the thread's end, with its event."""
    row_id = overrides.pop("id", None) or uuid7()
    kind = overrides.get("kind", "SMS")
    values: dict[str, Any] = {
        "id": row_id,
        "account_id": of.account_id,
        "conversation_id": of.id,
        "contact_id": of.contact_id,
        "direction": "INBOUND",
        "kind": kind,
        "address": "+14155550101",
        "body": "Hello",
        "delivery_status": "DELIVERED",
        "occurred_at": now(),
    }
    if "channel_connection_id" not in overrides:
        values["channel_connection_id"] = (await _channel_of(of.account_id, kind)).id
    if "seq" not in overrides:
        values["seq"] = await _logged(
            of.account_id, "message.created", conversation_id=of.id, contact_id=of.contact_id, message_id=row_id
        )
    return await tables.Message.create(**values | overrides)


async def refund(of: tables.MoneyFact, **overrides: Any) -> tables.Refund:
    """`of`: the charge."""
    id = uuid7()
    values: dict[str, Any] = {
        "id": id,
        "account_id": of.account_id,
        "payment_request_id": of.payment_request_id,
        "money_fact_id": of.id,
        "charge_external_id": of.external_id,
        "processor_connection_id": of.processor_connection_id,
        "idempotency_key": public_id("rfd", id),
        "amount_minor": 2500,
        "currency": of.currency,
        "reason": "DUPLICATE",
    }
    return await tables.Refund.create(**values | overrides)


async def attachment(of: tables.Message, **overrides: Any) -> tables.Attachment:
    """A message's file, not fetched and without an address."""
    values: dict[str, Any] = {
        "id": uuid7(),
        "account_id": of.account_id,
        "message_id": of.id,
        "n": 1,
        "name": "photo.png",
        "content_type": "image/png",
    }
    return await tables.Attachment.create(**values | overrides)


async def activity_card(
    of: tables.PaymentRequest, kind: str = "PAYMENT_REQUEST", **overrides: Any
) -> tables.ActivityCard:
    """A card at the thread's end, with its event."""
    row_id = overrides.pop("id", None) or uuid7()
    values: dict[str, Any] = {
        "id": row_id,
        "account_id": of.account_id,
        "conversation_id": of.conversation_id,
        "contact_id": of.contact_id,
        "kind": kind,
        "status": of.status,
        "payment_request_id": of.id,
        "text": f"{kind} of {of.number}",
        "key": f"{kind}:{of.id}:{next(_numbers)}",
        "occurred_at": now(),
    }
    if "seq" not in overrides:
        values["seq"] = await _logged(
            of.account_id,
            "activity.created",
            conversation_id=of.conversation_id,
            contact_id=of.contact_id,
            payment_request_id=of.id,
            card_id=row_id,
        )
    return await tables.ActivityCard.create(**values | overrides)


async def note(of: tables.Conversation, *, mentions: Sequence[tables.User] = (), **overrides: Any) -> tables.Note:
    """A note at the thread's end, with its event."""
    row_id = uuid7()
    values: dict[str, Any] = {
        "id": row_id,
        "account_id": of.account_id,
        "conversation_id": of.id,
        "contact_id": of.contact_id,
        "body": "Ask about the keys",
        "author": "system:Paythread",
        "occurred_at": now(),
    }
    values["seq"] = await _logged(
        of.account_id, "note.created", conversation_id=of.id, contact_id=of.contact_id, data={"note_id": str(row_id)}
    )
    row = await tables.Note.create(**values | overrides)
    for user in mentions:
        await tables.NoteMention.create(id=uuid7(), account_id=of.account_id, note_id=row.id, user_id=user.id)
    return row


async def checkout_session(of: tables.PaymentRequest, **overrides: Any) -> tables.CheckoutSession:
    """An open checkout of the request's whole amount."""
    n = overrides.pop("n", None) or await tables.CheckoutSession.filter(payment_request_id=of.id).count() + 1
    external_id = f"sbx_cs_{next(_numbers)}_{secrets.token_hex(4)}"
    values: dict[str, Any] = {
        "account_id": of.account_id,
        "payment_request_id": of.id,
        "processor_connection_id": of.processor_connection_id,
        "n": n,
        "idempotency_key": f"{of.id}:{n}",
        "amount_minor": of.amount_minor,
        "currency": of.currency,
        "status": "OPEN",
        "external_id": external_id,
        "url": f"http://localhost/sandbox/{external_id}",
        "expires_at": now() + timedelta(hours=23),
    }
    return await tables.CheckoutSession.create(**values | overrides)


async def money_fact(of: tables.PaymentRequest, **overrides: Any) -> tables.MoneyFact:
    """A succeeded charge of the request's whole amount; it does not change the request's status and totals."""
    values: dict[str, Any] = {
        "account_id": of.account_id,
        "payment_request_id": of.id,
        "contact_id": of.contact_id,
        "processor_connection_id": of.processor_connection_id,
        "processor": "sandbox",
        "kind": "CHARGE",
        "external_id": f"sbx_pay_{next(_numbers)}_{secrets.token_hex(4)}",
        "outcome": "SUCCEEDED",
        "amount_minor": of.amount_minor,
        "currency": of.currency,
        "counted": True,
        "test_mode": of.test_mode,
        "source": "webhook",
        "occurred_at": now(),
    }
    return await tables.MoneyFact.create(**values | overrides)


async def notification(of: tables.User, **overrides: Any) -> tables.Notification:
    """An unread notification, with its event."""
    row_id = overrides.pop("id", None) or uuid7()
    values: dict[str, Any] = {
        "id": row_id,
        "account_id": of.account_id,
        "user_id": of.id,
        "kind": "PAYMENT_RECEIVED",
        "title": "Paid",
        "body": "A payment arrived",
        "key": f"{of.id}:{next(_numbers)}",
        "created_at": now(),
    }
    if "seq" not in overrides:
        values["seq"] = await _logged(of.account_id, "notification.created", notification_id=row_id, user_id=of.id)
    return await tables.Notification.create(**values | overrides)


async def saved_view(of: tables.Account, **overrides: Any) -> tables.SavedView:
    """A shared view of all payment requests."""
    values: dict[str, Any] = {
        "account_id": of.id,
        "subject": "PAYMENT_REQUEST",
        "name": "All",
        "order_field": "CREATED_AT",
        "descending": True,
    }
    return await tables.SavedView.create(**values | overrides)
