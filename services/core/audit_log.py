"""Records changes of settings and of contacts. Append-only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from models.tables import AuditEntry
from services.core.permissions import Actor


async def record(actor: Actor, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
    """Add an entry inside the caller's transaction. `subject`: a public id; `detail`: field names, never a secret."""
    await AuditEntry.create(
        account_id=actor.account_id,
        actor_id=actor.user_id,
        actor_kind=actor.kind,
        action=action,
        subject=subject,
        detail=detail or {},
        occurred_at=datetime.now(UTC),
    )
