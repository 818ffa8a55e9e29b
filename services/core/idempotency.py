"""Runs a mutation once per idempotency key. Source: shopify.dev/docs/api/usage/implementing-idempotency."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar
from uuid import UUID

import orjson
import structlog

from models import database, database_errors
from models.errors import IdempotencyConcurrentRequest, IdempotencyKeyParameterMismatch, Invalid, Refusal
from models.ids import uuid7
from models.tables import IdempotencyKey
from services.core import jobs
from services.core.permissions import Actor

log = structlog.get_logger(__name__)

T = TypeVar("T")
Save = Callable[[dict[str, Any]], Awaitable[None]]

KEY_LENGTHS: Final = (8, 64)
LEASE: Final = timedelta(seconds=3)  # of a claim; its process extends it while the run goes on
BEAT_S: Final = 1.0
# Clock difference between servers. A claim that ends later was made before the clock was set back.
LONGEST: Final = 2 * LEASE
KEPT: Final = timedelta(hours=48)


def fits(key: str) -> bool:
    return KEY_LENGTHS[0] <= len(key) <= KEY_LENGTHS[1] and key.isprintable()


async def once(
    actor: Actor,
    mutation: str,
    key: str | None,
    input: Mapping[str, object],
    run: Callable[[Save], Awaitable[T]],
    rebuild: Callable[[dict[str, Any]], Awaitable[T]],
) -> T:
    """Call `run`, or `rebuild` if the key's mutation is done. Never call inside a transaction.

    `run` passes `rebuild`'s ids to `save` in its transaction; earlier work may repeat.
    Raises: Invalid, IdempotencyConcurrentRequest, IdempotencyKeyParameterMismatch.
    """
    if key is None:
        return await run(_keep_nothing)
    if database.in_transaction():
        raise RuntimeError("idempotency.once inside a transaction")
    if not fits(key):
        return await _refuse_key(run)
    wanted = hashlib.sha256(orjson.dumps(dict(input), option=orjson.OPT_SORT_KEYS, default=str)).hexdigest()
    claim = await _claim(actor, mutation, key, wanted)
    if isinstance(claim, dict):
        return await rebuild(claim)

    done = False

    async def save(ids: dict[str, Any]) -> None:
        nonlocal done
        if not database.in_transaction():
            raise RuntimeError("save outside of the transaction of the change")
        kept = await database.execute(
            "UPDATE idempotency_key SET state = 'done', result = ? WHERE id = ? AND state = 'running'",
            orjson.dumps(ids).decode(),
            claim,
        )
        if not kept:  # the lease expired and another run took the key: this change is rolled back
            raise IdempotencyConcurrentRequest(field="idempotencyKey")
        done = True

    beat = asyncio.create_task(_extend(claim), name="idempotency:lease")
    committed = False
    try:
        result = await run(save)
        committed = done
        return result
    finally:
        beat.cancel()
        if not committed:
            await _free(claim)


async def _free(claim: UUID) -> None:
    # After an error nothing was changed, or the key is done after all and stays.
    try:
        await database.execute("DELETE FROM idempotency_key WHERE id = ? AND state = 'running'", claim)
    except Exception as error:  # (the run's own error comes first; the lease expires)
        if not database_errors.is_transient(error):
            raise
        log.warning("idempotency_key_not_given_back", error=type(error).__name__)


async def _keep_nothing(ids: dict[str, Any]) -> None:
    pass


async def _refuse_key(run: Callable[[Save], Awaitable[T]]) -> T:
    # Runs the mutation up to `save`, which rolls it back: so its other refusals are reported, too.
    wrong = Invalid("Use 8 to 64 characters, preferably a UUID.", field="idempotencyKey")

    async def refuse(ids: dict[str, Any]) -> None:
        raise wrong

    try:
        return await run(refuse)
    except Refusal as refusal:
        wrong.others = tuple(found for found in refusal.all if found is not wrong)
        raise wrong from None


async def _extend(claim: UUID) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        try:
            await database.execute_aside(
                "UPDATE idempotency_key SET locked_until = ? WHERE id = ? AND state = 'running'",
                datetime.now(UTC) + LEASE,
                claim,
            )
        except Exception as error:  # noqa: BLE001 (the loop's top: the next beat may succeed)
            log.warning("idempotency_lease_not_extended", error=type(error).__name__)


async def _claim(actor: Actor, mutation: str, key: str, wanted: str) -> UUID | dict[str, Any]:
    while True:
        now = datetime.now(UTC)
        claim = uuid7()
        made = await database.execute(
            "INSERT INTO idempotency_key (id, account_id, mutation, key, input_hash, state, locked_until, created_at)"
            " VALUES (?, ?, ?, ?, ?, 'running', ?, ?) ON CONFLICT (account_id, mutation, key) DO NOTHING",
            claim,
            actor.account_id,
            mutation,
            key,
            wanted,
            now + LEASE,
            now,
        )
        if made:
            return claim
        row = await IdempotencyKey.get_or_none(account_id=actor.account_id, mutation=mutation, key=key)
        if row is None:
            continue  # freed between the two statements
        if row.state == "done":
            if row.input_hash != wanted:
                raise IdempotencyKeyParameterMismatch(field="idempotencyKey")
            result: dict[str, Any] = row.result
            return result
        if now < row.locked_until <= now + LONGEST:
            raise IdempotencyConcurrentRequest(field="idempotencyKey")
        # Its process died, or the clock was set. The next claim is another row, so the old run can't save.
        await database.execute(
            "DELETE FROM idempotency_key WHERE id = ? AND state = 'running' AND locked_until = ?",
            row.id,
            row.locked_until,
        )


@jobs.periodic("idempotency.prune", 3600)
async def _prune(job: jobs.JobContext) -> None:
    await database.execute("DELETE FROM idempotency_key WHERE created_at < ?", datetime.now(UTC) - KEPT)
