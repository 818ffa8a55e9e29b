"""The sandbox vendor's checkouts. It knows a connection only by its secret key."""

from __future__ import annotations

import hmac
import re
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeGuard
from uuid import UUID

from models import database, errors
from models.ids import parse_public_id
from models.money import CURRENCIES
from models.tables import Account, ProcessorConnection, SandboxCheckout
from services.connections import providers
from services.core import configuration
from services.sandbox import webhooks

LIFE: Final = timedelta(hours=23)

_EXTERNAL_ID = re.compile(r"sbx_co_[0-9a-f]{32}", re.ASCII)

FAILURES: Final = {
    "card_declined": "The test card was declined.",
    "authentication_failed": "The bank did not confirm the payer.",
    "debit_refused": "The bank refused the test debit.",
    "voucher_expired": "The test voucher was not paid in time.",
}


class SandboxRefusal(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


async def authenticate(account: str, secret_key: str) -> ProcessorConnection:
    """Raises: SandboxRefusal (401)."""
    refusal = SandboxRefusal(401, "authentication_failed", "The account or its secret key is not known.")
    connection_id = parse_public_id(account, "prc")
    if connection_id is None or not secret_key:
        raise refusal
    try:
        connection = await providers.processor_connection(connection_id)
    except errors.NotFound:
        raise refusal from None
    if connection.processor != "sandbox":
        raise refusal
    stored = providers.credentials_of(connection).get("secret_key", "")
    if not hmac.compare_digest(stored.encode(), secret_key.encode()):
        raise refusal
    return connection


async def find(external_id: str) -> SandboxCheckout | None:
    """Reads only: an overdue checkout is EXPIRED in this copy."""
    row = await SandboxCheckout.get_or_none(external_id=external_id) if _EXTERNAL_ID.fullmatch(external_id) else None
    if row is not None and row.status == "OPEN" and row.expires_at <= datetime.now(UTC):
        row.status = "EXPIRED"
    return row


async def create(connection: ProcessorConnection, key: str | None, order: Any) -> dict[str, Any]:
    """Open a checkout; the same `key` returns it again. Raises: SandboxRefusal (400, 409)."""
    fields = _validated(connection, order)
    if not key or len(key) > 80:
        raise SandboxRefusal(400, "idempotency_key_missing", "Send an Idempotency-Key of 1 to 80 characters.")
    known = await SandboxCheckout.get_or_none(connection_id=connection.id, idempotency_key=key)
    if known is None:
        account = await Account.get(id=connection.account_id)
        row = SandboxCheckout(
            external_id=f"sbx_co_{secrets.token_hex(16)}",  # also the only key to the hosted page
            connection_id=connection.id,
            idempotency_key=key,
            status="OPEN",
            business_name=account.name,
            expires_at=datetime.now(UTC) + LIFE,
            payments=[],
            created_at=datetime.now(UTC),
            updated_at=datetime.now(UTC),
            **fields,
        )
        # Of two simultaneous calls with one key, the first insert wins.
        await SandboxCheckout.bulk_create([row], ignore_conflicts=True)
        known = await SandboxCheckout.get(connection_id=connection.id, idempotency_key=key)
    if any(getattr(known, name) != value for name, value in fields.items()):
        raise SandboxRefusal(409, "idempotency_conflict", "This key was used with another order.")
    return as_json(known)


async def read(connection: ProcessorConnection, external_id: str) -> dict[str, Any]:
    """Raises: SandboxRefusal (404)."""
    async with database.transaction():
        return as_json(await lock(external_id, connection.id))


async def expire(connection: ProcessorConnection, external_id: str) -> dict[str, Any]:
    """Raises: SandboxRefusal (404; 409 `not_open`)."""
    async with database.transaction():
        row = await lock(external_id, connection.id)
        if row.status == "OPEN":
            await _close(row)
            return as_json(row)
        status = row.status
    raise SandboxRefusal(409, "not_open", f"The checkout is {status.lower()}.")


async def cancel(connection: ProcessorConnection, external_id: str) -> dict[str, Any]:
    """Cancel an unpaid voucher. Raises: SandboxRefusal (404; 409 `not_cancelable`)."""
    async with database.transaction():
        row = await lock(external_id, connection.id)
        voucher = _pending_voucher(row)
        if voucher is not None:
            await _end_voucher(row, voucher, "canceled")
            return as_json(row)
    raise SandboxRefusal(409, "not_cancelable", "Only a voucher that was not paid yet can be canceled.")


def as_json(row: SandboxCheckout) -> dict[str, Any]:
    return {
        "id": row.external_id,
        "object": "checkout",
        "status": row.status.lower(),
        "url": page_url(row.external_id) if row.status == "OPEN" else None,
        "amount_minor": row.amount_minor,
        "currency": row.currency,
        "request_reference": row.request_reference,
        "number": row.number,
        "expires_at": row.expires_at.isoformat(),
        "payments": row.payments,
    }


def page_url(external_id: str) -> str:
    return f"{configuration.current().environment.public_url}/sandbox/pay/{external_id}"


def _validated(connection: ProcessorConnection, order: Any) -> dict[str, Any]:
    def invalid(name: str) -> SandboxRefusal:
        return SandboxRefusal(400, "invalid_request", f"{name} is missing or not valid.")

    if not isinstance(order, dict):
        raise invalid("body")
    amount = order.get("amount_minor")
    if type(amount) is not int or not 0 < amount <= 99_999_999_999:
        raise invalid("amount_minor")
    currency = order.get("currency")
    if not isinstance(currency, str) or currency not in CURRENCIES:
        raise invalid("currency")
    fields: dict[str, Any] = {"amount_minor": amount, "currency": currency}
    for name, longest in (("request_reference", 60), ("number", 20), ("product_name", 255)):
        value = order.get(name)
        if not _is_text(value, longest) or not value:
            raise invalid(name)
        fields[name] = value
    description = order.get("description")
    if description is not None and not _is_text(description, 5000):
        raise invalid("description")
    fields["description"] = description
    for name in ("success_url", "cancel_url"):
        value = order.get(name)
        if not _is_text(value, 2000) or not re.match(r"https?://[^/\s]", value):
            raise invalid(name)
        fields[name] = value
    # Only this connection's own webhook URL: a key must not make this server call other addresses.
    if order.get("webhook_url") != providers.webhook_url(connection):
        raise invalid("webhook_url")
    fields["webhook_url"] = order["webhook_url"]
    return fields


def _is_text(value: object, longest: int) -> TypeGuard[str]:
    # PostgreSQL cannot store NUL.
    return isinstance(value, str) and len(value) <= longest and "\0" not in value


async def lock(external_id: str, connection_id: UUID | None = None) -> SandboxCheckout:
    """Lock a checkout; an overdue one is closed first. Raises: SandboxRefusal (404)."""
    found = SandboxCheckout.filter(external_id=external_id)
    if connection_id is not None:
        found = found.filter(connection_id=connection_id)
    row = await found.select_for_update(no_key=True).get_or_none() if _EXTERNAL_ID.fullmatch(external_id) else None
    if row is None:
        raise SandboxRefusal(404, "not_found", "There is no such checkout.")
    if row.status == "OPEN" and row.expires_at <= datetime.now(UTC):
        await _close(row)
    voucher = _pending_voucher(row)
    if voucher is not None and datetime.fromisoformat(voucher["until"]) <= datetime.now(UTC):
        await _end_voucher(row, voucher, "failed")
    return row


def _pending_voucher(row: SandboxCheckout) -> dict[str, Any] | None:
    return next((p for p in row.payments if p["status"] == "pending" and p.get("until")), None)


async def _end_voucher(row: SandboxCheckout, voucher: dict[str, Any], status: str) -> None:
    failure = "voucher_expired" if status == "failed" else None
    voucher |= {"status": status, "failure_code": failure, "failure_message": FAILURES.get(failure or "")}
    row.status = "FAILED"
    await store(row)
    await webhooks.notify(row, "checkout.payment_failed", voucher)


async def _close(row: SandboxCheckout) -> None:
    # A partly paid checkout completes with that part.
    paid = any(payment["status"] == "succeeded" for payment in row.payments)
    row.status = "COMPLETED" if paid else "EXPIRED"
    await store(row)
    await webhooks.notify(row, "checkout.completed" if paid else "checkout.expired", None)


async def store(row: SandboxCheckout) -> None:
    await row.save(update_fields=["status", "payments", "updated_at"])


def add_payment(
    row: SandboxCheckout, status: str, *, method: str, failure: str | None = None, amount_minor: int | None = None
) -> dict[str, Any]:
    """Add a payment attempt without saving it."""
    payment = {
        "id": f"sbx_pay_{secrets.token_hex(10)}",
        "status": status,
        "amount_minor": row.amount_minor if amount_minor is None else amount_minor,
        "currency": row.currency,
        "fee_minor": None,  # known some seconds after the payment succeeded
        "method": method,
        "failure_code": failure,
        "failure_message": FAILURES.get(failure or ""),
        "created_at": datetime.now(UTC).isoformat(),
    }
    row.payments = [*row.payments, payment]
    return payment
