"""Runs a mutation once per key: the promise is committed before the work, and kept in the work's own transaction.

It knows nothing of what runs; the answer of a repeat is rebuilt from ids. Source: shopify.dev/docs/api/usage/implementing-idempotency.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import orjson

from models import database
from models.errors import IdempotencyConcurrentRequest, IdempotencyKeyParameterMismatch, Invalid, Refusal
from models.ids import uuid7
from models.tables import IdempotencyKey
from services import jobs
from services.actors import Actor

T = TypeVar("T")
Save = Callable[[dict[str, Any]], Awaitable[None]]

KEY_LENGTHS: Final = (8, 64)
LOCK: Final = timedelta(seconds=60)  # longer than any mutation may take; then its process is taken for dead
KEPT: Final = timedelta(hours=48)


async def once(
    actor: Actor,
    mutation: str,
    key: str | None,
    input: Mapping[str, object],
    run: Callable[[Save], Awaitable[T]],
    rebuild: Callable[[dict[str, Any]], Awaitable[T]],
) -> T:
    """Run it, or rebuild the answer of the run that was done under this key in this account. Without a key: run it.

    `run` calls `save(ids)` inside its transaction, which marks the key done with the ids that `rebuild` gets on a repeat. A run that
    raises gives the key back. Never call inside a transaction: the promise must be visible to others before the work.
    Raises: Invalid (key), IdempotencyConcurrentRequest, IdempotencyKeyParameterMismatch, and what `run` raises.
    """
    if key is None:
        return await run(_keep_nothing)
    if database.in_transaction():
        raise RuntimeError("idempotency.once inside a transaction")
    if not KEY_LENGTHS[0] <= len(key) <= KEY_LENGTHS[1] or not key.isprintable():
        return await _refuse_key(run)
    wanted = hashlib.sha256(orjson.dumps(dict(input), option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()
    claim = await _claim(actor, mutation, key, wanted)
    if isinstance(claim, dict):
        return await rebuild(claim)
    row_id, fence = claim

    async def save(ids: dict[str, Any]) -> None:
        if not database.in_transaction():
            raise RuntimeError("save outside of the transaction of the change")
        kept = await database.execute(
            "UPDATE idempotency_key SET state = 'done', result = ? WHERE id = ? AND state = 'running' AND locked_until = ?",
            orjson.dumps(ids).decode(),
            row_id,
            fence,
        )
        if not kept:  # we were too slow and somebody took the key over: their change stands, ours is rolled back
            raise IdempotencyConcurrentRequest(field="idempotencyKey")

    try:
        return await run(save)
    finally:
        # Nothing to give back after a commit: it made the key done. After a refusal or a fault nothing was changed.
        await database.execute(
            "DELETE FROM idempotency_key WHERE id = ? AND state = 'running' AND locked_until = ?", row_id, fence
        )


async def _keep_nothing(ids: dict[str, Any]) -> None:
    """The `save` of a run without a key."""


async def _refuse_key(run: Callable[[Save], Awaitable[T]]) -> T:
    """Raises: Invalid for the key, with what else of the input `run` refuses. Its `save` rolls the change back."""
    wrong = Invalid("Give 8 to 64 characters, best a UUID.", field="idempotencyKey")

    async def refuse(ids: dict[str, Any]) -> None:
        raise wrong

    try:
        return await run(refuse)
    except Refusal as refusal:
        wrong.others = tuple(found for found in refusal.all if found is not wrong)
        raise wrong from None


async def _claim(actor: Actor, mutation: str, key: str, wanted: str) -> tuple[object, datetime] | dict[str, Any]:
    """(row, fence) if the key is ours to run now, else the ids of the run that is done."""
    while True:
        now = datetime.now(UTC)
        row_id, fence = uuid7(), now + LOCK
        made = await database.execute(
            "INSERT INTO idempotency_key (id, account_id, mutation, key, input_hash, state, locked_until, created_at)"
            " VALUES (?, ?, ?, ?, ?, 'running', ?, ?) ON CONFLICT (account_id, mutation, key) DO NOTHING",
            row_id,
            actor.account_id,
            mutation,
            key,
            wanted,
            fence,
            now,
        )
        if made:
            return row_id, fence
        row = await IdempotencyKey.get_or_none(account_id=actor.account_id, mutation=mutation, key=key)
        if row is None:
            continue  # given back between the two statements
        if row.state == "done":
            if row.input_hash != wanted:
                raise IdempotencyKeyParameterMismatch(field="idempotencyKey")
            result: dict[str, Any] = row.result
            return result
        if now < row.locked_until <= now + LOCK:  # later ones are of a clock that was set back
            raise IdempotencyConcurrentRequest(field="idempotencyKey")
        taken = await database.execute(
            "UPDATE idempotency_key SET locked_until = ?, input_hash = ? WHERE id = ? AND state = 'running' AND locked_until = ?",
            fence,
            wanted,
            row.id,
            row.locked_until,
        )
        if taken:
            return row.id, fence


@jobs.periodic("idempotency.prune", 3600)
async def _prune(job: jobs.JobContext) -> None:
    """Forget keys after KEPT. Safe to repeat."""
    await database.execute("DELETE FROM idempotency_key WHERE created_at < ?", datetime.now(UTC) - KEPT)
