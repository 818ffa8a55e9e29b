"""Signed webhooks of the sandbox vendor, sent over HTTP to this server."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import orjson

from models.tables import SandboxCheckout
from services.connections import providers
from services.core import configuration, jobs

if TYPE_CHECKING:
    import httpx2

DELIVERY_TIMEOUT_S: Final = 10.0

_client: httpx2.AsyncClient | None = None


async def aclose() -> None:
    """Close the HTTP client after the last job."""
    global _client
    if _client is not None:
        client, _client = _client, None
        await client.aclose()


def event(row: SandboxCheckout, kind: str, payment: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
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


async def notify(
    row: SandboxCheckout, kind: str, payment: dict[str, Any] | None, *, refund: dict[str, Any] | None = None
) -> None:
    """Send an event after the commit."""
    await send(row, event(row, kind, payment, refund=refund))


async def send(
    row: SandboxCheckout,
    event: dict[str, Any],
    *,
    after_s: float = 0,
    copy: int = 0,
    then: Sequence[dict[str, Any]] = (),
) -> None:
    """`then`: events sent one by one, each after the previous one was accepted."""
    connection = await providers.processor_connection(row.connection_id)
    await jobs.enqueue(
        "sandbox.webhook",
        {"connection_id": str(row.connection_id), "url": row.webhook_url, "event": event, "then": list(then)},
        account_id=connection.account_id,
        key=f"sandbox.webhook:{event['id']}" + (f":{copy}" if copy else ""),
        due_at=datetime.now(UTC) + timedelta(seconds=after_s) if after_s else None,
    )


def signed(webhook_secret: str, body: bytes, *, at: datetime) -> str:
    timestamp = int(at.timestamp())
    digest = hmac.new(webhook_secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={timestamp},v1={digest}"


@jobs.handler("sandbox.webhook", on_dead="the sandbox gives up, as real processors do; the sweeper reads the checkout")
async def deliver(job: jobs.JobContext) -> None:
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
    # The public URL may not be reachable from inside.
    address = configuration.current().environment.sandbox_url + parts.path
    answer = await _http().post(address, content=body, headers=headers)
    if not answer.is_success:
        raise RuntimeError(f"the webhook route answered {answer.status_code}")
    if then := job.payload.get("then"):
        await jobs.enqueue(
            job.kind,
            {**job.payload, "event": then[0], "then": then[1:]},
            account_id=job.account_id,
            key=f"sandbox.webhook:{then[0]['id']}",
        )


def _http() -> httpx2.AsyncClient:
    global _client
    import httpx2  # for the sandbox only, whose provider has loaded it

    if _client is None:
        _client = httpx2.AsyncClient(timeout=DELIVERY_TIMEOUT_S, trust_env=False)
    return _client
