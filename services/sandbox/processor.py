"""The sandbox's vendor side: checkouts, what a visitor does on the hosted page, and signed webhooks. No real money, no ledger.

It plays another company: it knows a connection only by the secret key that it gave out, and tells our side nothing but by HTTP.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import random
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeGuard
from urllib.parse import urlsplit
from uuid import UUID

import httpx2
import orjson

from models import database, errors
from models.ids import parse_public_id
from models.money import CURRENCIES
from models.tables import Account, ProcessorConnection, SandboxCheckout
from services.connections import providers
from services.core import configuration, jobs

LIFE: Final = timedelta(hours=23)
VOUCHER_LIFE: Final = timedelta(days=3)
DELIVERY_TIMEOUT_S: Final = 10.0
_EXTERNAL_ID = re.compile(r"sbx_co_[0-9a-f]{32}", re.ASCII)
_REFUND_ID = re.compile(r"sbx_re_([0-9a-f]{32})_[0-9a-f]{10}", re.ASCII)  # with the checkout's own digits
_client: httpx2.AsyncClient | None = None

# What a visitor may press on the hosted page.
ACTIONS: Final = frozenset(
    {"pay", "pay_twice", "decline", "approve", "reject", "pay_later", "pay_later_fail", "voucher", "cancel"}
)
_FAILURES: Final = {
    "card_declined": "The test card was declined.",
    "authentication_failed": "The bank's check was not passed.",
    "debit_refused": "The bank refused the test debit.",
    "voucher_expired": "The test voucher was not paid in time.",
}


class SandboxRefusal(Exception):
    """The sandbox says no: an HTTP status, a code for programs and a sentence."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Performed:
    """Where the visitor goes next: to an absolute address, or back to the hosted page (None)."""

    location: str | None


async def aclose() -> None:
    """Close the connections to our own server. Call at stop, after the last job."""
    global _client
    if _client is not None:
        client, _client = _client, None
        await client.aclose()


# --------------------------------------------------------------------------------------------------------------- API
async def authenticate(account: str, secret_key: str) -> ProcessorConnection:
    """The connection that `account` (its public id) names, if this is its key. Raises: SandboxRefusal (401)."""
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


async def create(connection: ProcessorConnection, key: str | None, order: Any) -> dict[str, Any]:
    """Open a checkout, or give back the one that this key made before. Raises: SandboxRefusal (400, 409)."""
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
        # Two calls with one key at once: the first insert wins, both get its checkout.
        await SandboxCheckout.bulk_create([row], ignore_conflicts=True)
        known = await SandboxCheckout.get(connection_id=connection.id, idempotency_key=key)
    if any(getattr(known, name) != value for name, value in fields.items()):
        raise SandboxRefusal(409, "idempotency_conflict", "This key was used with another order.")
    return as_json(known)


async def read(connection: ProcessorConnection, external_id: str) -> dict[str, Any]:
    """One checkout. Raises: SandboxRefusal (404)."""
    async with database.transaction():
        return as_json(await _locked(external_id, connection.id))


async def expire(connection: ProcessorConnection, external_id: str) -> dict[str, Any]:
    """Close an open checkout. Raises: SandboxRefusal (404; 409 `not_open`)."""
    async with database.transaction():
        row = await _locked(external_id, connection.id)
        if row.status == "OPEN":
            await _close(row)
            return as_json(row)
        status = row.status
    raise SandboxRefusal(409, "not_open", f"The checkout is {status.lower()}.")


async def cancel(connection: ProcessorConnection, external_id: str) -> dict[str, Any]:
    """Cancel a voucher that was not paid yet. Raises: SandboxRefusal (404; 409 `not_cancelable`: no voucher, or paid)."""
    async with database.transaction():
        row = await _locked(external_id, connection.id)
        voucher = _pending_voucher(row)
        if voucher is not None:
            await _end_voucher(row, voucher, "canceled")
            return as_json(row)
    raise SandboxRefusal(409, "not_cancelable", "Only a voucher that was not paid yet can be canceled.")


async def refund(connection: ProcessorConnection, external_id: str, key: str | None, order: Any) -> dict[str, Any]:
    """Give back a payment of this checkout, or a part of it. Key: `key`, which gives the same refund again.

    `order` is {payment, amount_minor}. Raises: SandboxRefusal (400, 404; 409 other order, nothing to give back, too much).
    """
    if not key or len(key) > 80:
        raise SandboxRefusal(400, "idempotency_key_missing", "Send an Idempotency-Key of 1 to 80 characters.")
    amount = order.get("amount_minor") if isinstance(order, dict) else None
    if type(amount) is not int or amount <= 0:
        raise SandboxRefusal(400, "invalid_request", "amount_minor is missing or not valid.")
    async with database.transaction():
        row = await _locked(external_id, connection.id)
        payment = next((p for p in row.payments if p["id"] == order.get("payment")), None)
        if payment is None:
            raise SandboxRefusal(404, "not_found", "There is no such payment.")
        refunds: list[dict[str, Any]] = payment.setdefault("refunds", [])
        known = next((r for r in refunds if r["key"] == key), None)
        if known is not None:
            if known["amount_minor"] != amount:
                raise SandboxRefusal(409, "idempotency_conflict", "This key was used with another refund.")
            return known
        if payment["status"] != "succeeded":
            raise SandboxRefusal(409, "not_paid", "There is no money to give back.")
        if sum(r["amount_minor"] for r in refunds) + amount > payment["amount_minor"]:
            raise SandboxRefusal(409, "amount_too_large", "More than what is left of the payment.")
        made = {
            "id": f"sbx_re_{external_id.removeprefix('sbx_co_')}_{secrets.token_hex(5)}",
            "status": "succeeded",
            "payment": payment["id"],
            "amount_minor": amount,
            "currency": payment["currency"],
            "key": key,
            "created_at": datetime.now(UTC).isoformat(),
        }
        refunds.append(made)
        await _save(row)
        await _tell(row, "refund.succeeded", None, refund=made)
        return made


async def read_refund(connection: ProcessorConnection, refund_id: str) -> dict[str, Any]:
    """One refund. Raises: SandboxRefusal (404)."""
    match = _REFUND_ID.fullmatch(refund_id)
    async with database.transaction():
        row = await _locked(f"sbx_co_{match[1]}" if match else "", connection.id)
        for refund in (refund for payment in row.payments for refund in payment.get("refunds", ())):
            if refund["id"] == refund_id:
                return dict(refund)
    raise SandboxRefusal(404, "not_found", "There is no such refund.")


def as_json(row: SandboxCheckout) -> dict[str, Any]:
    """A checkout as the API answers it."""
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
    """The absolute address of the hosted page."""
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
    # Only our own door for this very connection: whoever holds a key must not make this server call other addresses.
    if order.get("webhook_url") != providers.webhook_url(connection):
        raise invalid("webhook_url")
    fields["webhook_url"] = order["webhook_url"]
    return fields


def _is_text(value: object, longest: int) -> TypeGuard[str]:
    # PostgreSQL keeps no NUL.
    return isinstance(value, str) and len(value) <= longest and "\0" not in value


# ------------------------------------------------------------------------------------------------------- hosted page
async def find(external_id: str) -> SandboxCheckout | None:
    """The checkout of a hosted page as it stands; changes nothing. One whose time is over reads as EXPIRED."""
    row = await SandboxCheckout.get_or_none(external_id=external_id) if _EXTERNAL_ID.fullmatch(external_id) else None
    if row is not None and row.status == "OPEN" and row.expires_at <= datetime.now(UTC):
        row.status = "EXPIRED"  # in this copy only: reading changes nothing
    return row


def declined(row: SandboxCheckout) -> bool:
    """Whether the newest attempt to pay failed."""
    return bool(row.payments) and row.payments[-1]["status"] == "failed"


async def perform(external_id: str, action: str) -> Performed:
    """Do what a visitor pressed. Raises: SandboxRefusal (400 unknown action, 404, 409 not payable).

    A button that is pressed twice finds the checkout no longer open.
    """
    if action not in ACTIONS:
        raise SandboxRefusal(400, "unknown_action", "There is no such button.")
    async with database.transaction():
        row = await _locked(external_id)
        status, success, cancel = row.status, row.success_url, row.cancel_url
        if status == "OPEN" and action != "cancel":
            await _act(row, action)
    # Outside the transaction: a checkout that this visit found over has been closed in it, and stays so.
    if action == "cancel":
        return Performed(cancel)
    if status != "OPEN":
        raise SandboxRefusal(409, "not_open", "This checkout cannot be paid any more.")
    return Performed(None if action in ("decline", "reject") else success)


async def _act(row: SandboxCheckout, action: str) -> None:
    if action in ("pay", "approve", "pay_twice"):
        first = _payment(row, "succeeded", method="Test card •••• 4242")
        second = _payment(row, "succeeded", method="Test card •••• 4242") if action == "pay_twice" else None
        row.status = "COMPLETED"
        await _save(row)
        for payment in (first, second):
            if payment is not None:
                await _tell(row, "checkout.completed", payment)
                await _charge_fee_later(row, payment)
    elif action == "voucher":
        payment = _payment(row, "pending", method="Test voucher")
        payment["until"] = (datetime.now(UTC) + VOUCHER_LIFE).isoformat()
        row.status = "PROCESSING"
        await _save(row)
        await _tell(row, "checkout.processing", payment)
    elif action in ("pay_later", "pay_later_fail"):
        payment = _payment(row, "pending", method="Test bank debit •••• 3000")
        row.status = "PROCESSING"
        await _save(row)
        await _tell(row, "checkout.processing", payment)
        await jobs.enqueue(
            "sandbox.settle",
            {"checkout": row.external_id, "payment": payment["id"], "succeeds": action == "pay_later"},
            account_id=None,
            key=f"sandbox.settle:{payment['id']}",
            due_at=datetime.now(UTC) + configuration.current().sandbox_delay,
        )
    else:
        code = "card_declined" if action == "decline" else "authentication_failed"
        payment = _payment(row, "failed", method="Test card •••• 0002", failure=code)
        await _save(row)
        await _tell(row, "checkout.payment_failed", payment)


# --------------------------------------------------------------------------------------------------------- machinery
async def _locked(external_id: str, connection_id: UUID | None = None) -> SandboxCheckout:
    """The row under lock; one whose time is over is closed first. Raises: SandboxRefusal (404)."""
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
    voucher |= {"status": status, "failure_code": failure, "failure_message": _FAILURES.get(failure or "")}
    row.status = "FAILED"
    await _save(row)
    await _tell(row, "checkout.payment_failed", voucher)


async def _close(row: SandboxCheckout) -> None:
    """End an open checkout; one that was paid in part has ended with that part."""
    paid = any(payment["status"] == "succeeded" for payment in row.payments)
    row.status = "COMPLETED" if paid else "EXPIRED"
    await _save(row)
    await _tell(row, "checkout.completed" if paid else "checkout.expired", None)


async def _save(row: SandboxCheckout) -> None:
    await row.save(update_fields=["status", "payments", "updated_at"])


def _payment(
    row: SandboxCheckout, status: str, *, method: str, failure: str | None = None, amount_minor: int | None = None
) -> dict[str, Any]:
    """Add an attempt to pay to the checkout, all of it or a part. Not saved here."""
    payment = {
        "id": f"sbx_pay_{secrets.token_hex(10)}",
        "status": status,
        "amount_minor": row.amount_minor if amount_minor is None else amount_minor,
        "currency": row.currency,
        "fee_minor": None,  # known some seconds after the payment succeeded
        "method": method,
        "failure_code": failure,
        "failure_message": _FAILURES.get(failure or ""),
        "created_at": datetime.now(UTC).isoformat(),
    }
    row.payments = [*row.payments, payment]
    return payment


async def _tell(
    row: SandboxCheckout, kind: str, payment: dict[str, Any] | None, *, refund: dict[str, Any] | None = None
) -> None:
    """Send a webhook after the commit. The event is fixed now: a later attempt sends the same."""
    await _send(row, _event(row, kind, payment, refund=refund))


def _event(row: SandboxCheckout, kind: str, payment: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    """A new event about the checkout as it stands. `more`: a refund or a dispute."""
    return {
        "id": f"sbx_evt_{secrets.token_hex(12)}",
        "type": kind,
        "created_at": datetime.now(UTC).isoformat(),
        "data": {
            "checkout": {
                "id": row.external_id,
                "status": row.status.lower(),
                "request_reference": row.request_reference,
            },
            "payment": dict(payment) if payment else None,
        }
        | {name: dict(thing) for name, thing in more.items() if thing},
    }


async def _charge_fee_later(
    row: SandboxCheckout, payment: dict[str, Any], *, after_s: float = 0, told: bool = True
) -> None:
    """Plan the fee of a payment that succeeded. `after_s`: until the payment itself is told; `told`: whether a webhook tells the fee."""
    await jobs.enqueue(
        "sandbox.fee",
        {"checkout": row.external_id, "payment": payment["id"], "told": told},
        account_id=None,
        key=f"sandbox.fee:{payment['id']}",
        due_at=datetime.now(UTC) + timedelta(seconds=after_s) + configuration.current().sandbox_delay,
    )


def fee_of(amount_minor: int) -> int:
    """2.9 % (half a unit rounds up) and 30 minor units, at most the amount."""
    return min(amount_minor, (amount_minor * 29 + 500) // 1000 + 30)


async def _send(
    row: SandboxCheckout,
    event: dict[str, Any],
    *,
    after_s: float = 0,
    copy: int = 0,
    then: Sequence[dict[str, Any]] = (),
) -> None:
    """`then`: events that are sent one by one, each when the one before it was taken."""
    connection = await providers.processor_connection(row.connection_id)
    await jobs.enqueue(
        "sandbox.webhook",
        {"connection_id": str(row.connection_id), "url": row.webhook_url, "event": event, "then": list(then)},
        account_id=connection.account_id,
        key=f"sandbox.webhook:{event['id']}" + (f":{copy}" if copy else ""),
        due_at=datetime.now(UTC) + timedelta(seconds=after_s) if after_s else None,
    )


# ----------------------------------------------------------------------------------------------------------- scripted
_IN_ORDER: Final = frozenset({"REORDERED_WEBHOOKS", "REFUND", "DISPUTE_LOST", "DISPUTE_WON"})


async def play(external_id: str, scenario: str, chosen: random.Random) -> None:
    """Let the vendor behave as the scenario says (names: services/demo/scenarios.py); what is left open, `chosen` decides.

    Raises: SandboxRefusal (404; 409 not payable).
    """
    async with database.transaction():
        row = await _locked(external_id)
        if row.status != ("EXPIRED" if scenario == "PAID_AFTER_VOID" else "OPEN"):
            raise SandboxRefusal(409, "not_open", "This checkout cannot be paid any more.")
        if scenario in _PRESSED:
            await _act(row, _PRESSED[scenario])
            return
        if scenario in ("SPLIT_TENDER", "PART_ONLY"):
            await _pay_part(row, chosen, rest=scenario == "SPLIT_TENDER")
            return
        events = _scripted(row, scenario, chosen)
        await _save(row)
        told_after_s = max((after_s for after_s, _ in events), default=0)
        for payment in row.payments:
            if payment["status"] == "succeeded":
                await _charge_fee_later(row, payment, after_s=told_after_s, told=bool(events))
        if scenario in _IN_ORDER:
            await _send(row, events[0][1], then=[event for _, event in events[1:]])
            return
        for copy, (after_s, event) in enumerate(events):
            await _send(row, event, after_s=after_s, copy=copy)


async def _pay_part(row: SandboxCheckout, chosen: random.Random, *, rest: bool) -> None:
    """A gift card pays a part, and the checkout stays open. `rest`: a card pays what is left, some seconds later."""
    part = chosen.randint(1, max(1, row.amount_minor - 1))
    payment = _payment(row, "succeeded", method="Test gift card", amount_minor=part)
    await _save(row)
    await _tell(row, "checkout.paid_in_part", payment)
    await _charge_fee_later(row, payment)
    if rest:
        await jobs.enqueue(
            "sandbox.rest",
            {"checkout": row.external_id},
            account_id=None,
            key=f"sandbox.rest:{row.external_id}",
            due_at=datetime.now(UTC) + configuration.current().sandbox_delay,
        )


@jobs.handler("sandbox.rest", on_dead="the rest of the checkout is never paid")
async def pay_rest(job: jobs.JobContext) -> None:
    """Pay what is left of a checkout that was paid in part. Key: the checkout, which is open for it once."""
    async with database.transaction():
        row = await _locked(job.payload["checkout"])
        left = row.amount_minor - sum(p["amount_minor"] for p in row.payments if p["status"] == "succeeded")
        if row.status != "OPEN" or left <= 0:
            return
        payment = _payment(row, "succeeded", method="Test card •••• 4242", amount_minor=left)
        row.status = "COMPLETED"
        await _save(row)
        await _tell(row, "checkout.completed", payment)
        await _charge_fee_later(row, payment)


# What a visitor could press as well.
_PRESSED: Final = {
    "DECLINED": "decline",
    "ASYNC_SUCCEEDS": "pay_later",
    "ASYNC_FAILS": "pay_later_fail",
    "VOUCHER": "voucher",
    "PAID_TWICE": "pay_twice",
}


def _scripted(row: SandboxCheckout, scenario: str, chosen: random.Random) -> list[tuple[float, dict[str, Any]]]:
    """Change the checkout; the events, each with the seconds until it is sent."""
    if scenario == "REORDERED_WEBHOOKS":
        return _reordered(row, chosen)
    payment = _payment(row, "succeeded", method="Test card •••• 4242")
    if scenario == "WRONG_AMOUNT":
        # Less or more, and never nothing.
        payment["amount_minor"] += chosen.choice([-1, 1]) * chosen.randint(1, min(500, max(1, row.amount_minor - 1)))
        payment["amount_minor"] = max(1, payment["amount_minor"])
    elif scenario == "WRONG_CURRENCY":
        payment["currency"] = chosen.choice([code for code in ("EUR", "USD", "GBP") if code != row.currency])
    row.status = "COMPLETED"
    paid = _event(row, "checkout.completed", payment)
    about = {
        "payment": payment["id"],
        "amount_minor": payment["amount_minor"],
        "currency": payment["currency"],
        "created_at": payment["created_at"],
    }
    match scenario:
        case "DUPLICATE_WEBHOOKS":
            return [(0, paid)] * chosen.randint(3, 6)
        case "DELAYED_WEBHOOK":
            return [(configuration.current().sandbox_delay.total_seconds() * chosen.uniform(2, 4), paid)]
        case "DROPPED_WEBHOOK":
            return []
        case "REFUND":
            refund_id = f"sbx_re_{row.external_id.removeprefix('sbx_co_')}_{secrets.token_hex(5)}"
            refund = {"id": refund_id, "status": "succeeded", "key": f"scenario:{refund_id}"[:80], **about}
            payment["refunds"] = [refund]
            return [(0, paid), (0, _event(row, "refund.succeeded", None, refund=refund))]
        case "DISPUTE_LOST" | "DISPUTE_WON":
            dispute = {"id": f"sbx_dp_{secrets.token_hex(10)}", "status": "needs_response", **about}
            respond_by = datetime.fromisoformat(payment["created_at"]) + timedelta(days=7)
            dispute |= {"reason": "product_not_received", "respond_by": respond_by.isoformat()}
            opened = _event(row, "dispute.opened", None, dispute=dispute)
            dispute["status"] = scenario.removeprefix("DISPUTE_").lower()
            closed = _event(row, "dispute.closed", None, dispute=dispute)
            return [(0, paid), (0, opened), (0, closed)]
    return [(0, paid)]


def _reordered(row: SandboxCheckout, chosen: random.Random) -> list[tuple[float, dict[str, Any]]]:
    """A decline, a debit under way and its success, told in any order but this one."""
    failed = _payment(row, "failed", method="Test card •••• 0002", failure="card_declined")
    events = [_event(row, "checkout.payment_failed", failed)]
    payment = _payment(row, "pending", method="Test bank debit •••• 3000")
    row.status = "PROCESSING"
    events.append(_event(row, "checkout.processing", payment))
    payment["status"] = "succeeded"
    row.status = "COMPLETED"
    events.append(_event(row, "checkout.completed", payment))
    orders = [list(order) for order in itertools.permutations(events) if list(order) != events]
    return [(0, event) for event in chosen.choice(orders)]


def signed(webhook_secret: str, body: bytes, *, at: datetime) -> str:
    """The value of `Paythread-Sandbox-Signature` for a raw body sent at this time."""
    timestamp = int(at.timestamp())
    digest = hmac.new(webhook_secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


@jobs.handler("sandbox.webhook", on_dead="the sandbox gives up, as real processors do; the sweeper reads the checkout")
async def deliver(job: jobs.JobContext) -> None:
    """POST one event to our own webhook door, really signed. Key: the event's id, which the receiver keeps once.

    It goes to where this server is reached from inside (SANDBOX_URL): the public address may not be reachable from here.
    """
    connection = await providers.processor_connection(UUID(job.payload["connection_id"]))
    stored = providers.credentials_of(connection).get("webhook_secret", "")
    secret = stored.partition(",")[0].strip()
    if not secret:
        raise jobs.Permanent("the connection has no webhook secret")
    body = orjson.dumps(job.payload["event"])
    parts = urlsplit(job.payload["url"])
    headers = {
        "content-type": "application/json",
        "paythread-sandbox-signature": signed(secret, body, at=datetime.now(UTC)),
    }
    address = configuration.current().environment.sandbox_url + parts.path
    answer = await _http().post(address, content=body, headers=headers)
    if not answer.is_success:
        raise RuntimeError(f"the webhook door answered {answer.status_code}")
    if then := job.payload.get("then"):
        await jobs.enqueue(
            job.kind,
            {**job.payload, "event": then[0], "then": then[1:]},
            account_id=job.account_id,
            key=f"sandbox.webhook:{then[0]['id']}",
        )


def _http() -> httpx2.AsyncClient:
    global _client
    if _client is None:
        _client = httpx2.AsyncClient(timeout=DELIVERY_TIMEOUT_S, trust_env=False)
    return _client


@jobs.handler("sandbox.settle", on_dead="the payment stays pending at the sandbox")
async def settle(job: jobs.JobContext) -> None:
    """Let a pending payment succeed or fail. Key: the payment, which is settled once."""
    async with database.transaction():
        row = await _locked(job.payload["checkout"])
        payment = next(p for p in row.payments if p["id"] == job.payload["payment"])
        if payment["status"] != "pending":
            return
        if job.payload["succeeds"]:
            payment |= {"status": "succeeded"}
            row.status = "COMPLETED"
        else:
            payment |= {
                "status": "failed",
                "failure_code": "debit_refused",
                "failure_message": _FAILURES["debit_refused"],
            }
            row.status = "FAILED"
        await _save(row)
        await _tell(row, "checkout.completed" if job.payload["succeeds"] else "checkout.payment_failed", payment)
        if job.payload["succeeds"]:
            await _charge_fee_later(row, payment)


@jobs.handler("sandbox.fee", on_dead="the fee stays unknown at the sandbox")
async def charge_fee(job: jobs.JobContext) -> None:
    """Take the fee of a payment and tell it. Key: the payment, whose fee is taken once."""
    async with database.transaction():
        row = await _locked(job.payload["checkout"])
        payment = next(p for p in row.payments if p["id"] == job.payload["payment"])
        if payment.get("fee_minor") is not None:
            return
        payment["fee_minor"] = fee_of(payment["amount_minor"])
        await _save(row)
        if job.payload["told"]:
            await _tell(row, "payment.fee_charged", payment)
