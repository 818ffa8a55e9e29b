"""Keeps statuses that arrive before their message's external id; delivery.py applies them."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import orjson

from integrations.base import DeliveryStatus, StatusUpdate
from integrations.base import external_id as stored_id
from models import database
from models.storable import storable
from models.tables import ChannelConnection, Job
from services.core import jobs

TRY_AGAIN: Final = timedelta(minutes=1)


async def keep(connection: ChannelConnection, update: StatusUpdate, message_id: UUID | None, until: timedelta) -> None:
    """Enqueue the status; `message.status` tries to apply it for this long."""
    now = datetime.now(UTC)
    kept = {"update": dataclasses.asdict(update), "message_id": message_id, "until": now + until}
    detail: tuple[object, ...] = (
        (update.address, update.answered) if connection.kind == "EMAIL" else ()
    )  # an email has several recipients
    if update.up_to is not None:
        detail = (update.address, update.up_to.isoformat())
    await jobs.enqueue(
        "message.status",
        {"connection_id": str(connection.id)},
        account_id=connection.account_id,
        key=_key(connection.id, stored_id(update.external_id), update.status, *detail),
        due_at=now + TRY_AGAIN,
        again=True,
        secret=orjson.dumps(storable(kept)).decode(),  # a person's address
    )


async def wake(connection_id: UUID, external_id: str) -> None:
    """Apply the kept statuses of an external id after the commit."""
    now = datetime.now(UTC)
    keys = [_key(connection_id, external_id, status) for status in DeliveryStatus]
    if await Job.filter(key__in=keys, status="queued").update(due_at=now, set_at=now):
        database.after_commit(jobs.wake)


def read(job: jobs.JobContext) -> tuple[StatusUpdate, UUID | None, datetime]:
    """The arguments of `keep`, and the deadline."""
    kept = orjson.loads(job.secret)
    update = kept["update"]
    update["status"] = DeliveryStatus(update["status"])
    for name in ("occurred_at", "up_to"):
        update[name] = update[name] and datetime.fromisoformat(update[name])
    named = kept["message_id"]
    return StatusUpdate(**update), named and UUID(named), datetime.fromisoformat(kept["until"])


def _key(connection_id: UUID, external_id: str, status: DeliveryStatus, *detail: object) -> str:
    raw = orjson.dumps(storable([external_id, status.value, *detail]))
    return f"message.status:{connection_id}:{hashlib.sha256(raw).hexdigest()}"
