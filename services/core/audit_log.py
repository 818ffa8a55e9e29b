"""Writes who changed what in the settings and on a contact's record. Append-only; reading it is the API's business."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from models.tables import AuditEntry
from services.core.permissions import Actor


async def record(actor: Actor, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
    """Add an entry, inside the caller's transaction. `subject` is a public id; `detail` names fields, never a secret."""
    await AuditEntry.create(
        account_id=actor.account_id,
        actor_id=actor.user_id,
        actor_kind=actor.kind,
        action=action,
        subject=subject,
        detail=detail or {},
        occurred_at=datetime.now(UTC),
    )
