"""Records changes of settings and contacts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from models.tables import AuditEntry
from services.core.permissions import Actor


async def record(actor: Actor, action: str, subject: str, detail: dict[str, Any] | None = None) -> None:
    """Add an entry in the caller's transaction; `detail`: field names, never secrets."""
    await AuditEntry.create(
        account_id=actor.account_id,
        actor_id=actor.user_id,
        actor_kind=actor.kind,
        actor=actor.ref.stored(),
        action=action,
        subject=subject,
        detail=detail or {},
        occurred_at=datetime.now(UTC),
    )
