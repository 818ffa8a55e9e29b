"""Statuses of messages whose external id is not known yet: kept as jobs, and read when the id comes. delivery.py applies them."""

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
    """Have `message.status` apply it later, until then at the latest. Key: what it says of which message."""
    now = datetime.now(UTC)
    told = {"update": dataclasses.asdict(update), "message_id": message_id, "until": now + until}
    detail: tuple[object, ...] = (
        (update.address, update.answered) if connection.kind == "EMAIL" else ()
    )  # a letter has several recipients
    if update.up_to is not None:
        detail = (update.address, update.up_to.isoformat())
    await jobs.enqueue(
        "message.status",
        {"connection_id": str(connection.id)},
        account_id=connection.account_id,
        key=_key(connection.id, stored_id(update.external_id), update.status, *detail),
        due_at=now + TRY_AGAIN,
        again=True,
        secret=orjson.dumps(storable(told)).decode(),  # a person's address
    )


async def wake(connection_id: UUID, external_id: str) -> None:
    """This external id is known now: have what was kept of it applied after the commit. What stays asleep comes a minute later."""
    now = datetime.now(UTC)
    keys = [_key(connection_id, external_id, status) for status in DeliveryStatus]
    if await Job.filter(key__in=keys, status="queued").update(due_at=now, set_at=now):
        database.after_commit(jobs.wake)


def read(job: jobs.JobContext) -> tuple[StatusUpdate, UUID | None, datetime]:
    """What `keep` was given, and until when to try."""
    told = orjson.loads(job.secret)
    update = told["update"]
    update["status"] = DeliveryStatus(update["status"])
    for name in ("occurred_at", "up_to"):
        update[name] = update[name] and datetime.fromisoformat(update[name])
    named = told["message_id"]
    return StatusUpdate(**update), named and UUID(named), datetime.fromisoformat(told["until"])


def _key(connection_id: UUID, external_id: str, status: DeliveryStatus, *detail: object) -> str:
    said = orjson.dumps(storable([external_id, status.value, *detail]))
    return f"message.status:{connection_id}:{hashlib.sha256(said).hexdigest()}"
