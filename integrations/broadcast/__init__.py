"""The event bus: carries hints of new log entries between processes over memory, Redis or PostgreSQL."""

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import structlog
from broadcaster import Broadcast

from integrations.broadcast.backend import GAP_MESSAGE, SupervisedBackend
from integrations.broadcast.bus import GAP, Bus, Hint

__all__ = ["CHANNEL", "GAP", "Bus", "Hint", "UnsupportedBusError", "open_bus"]

log = structlog.get_logger(__name__)

CHANNEL: Final = "paythread_events"


class UnsupportedBusError(ValueError):
    """EVENTS_URL must start with memory://, redis://, rediss://, postgres:// or postgresql://."""


# broadcaster's own Redis and PostgreSQL back ends silently lose messages.
class _BroadcastBus:
    def __init__(self, broadcast: Broadcast, backend: SupervisedBackend | None = None) -> None:
        self._broadcast = broadcast
        self._backend = backend
        self._open = AsyncExitStack()
        self._subscriber: Any = None

    async def start(self) -> None:
        await self._broadcast.connect()
        self._subscriber = await self._open.enter_async_context(self._broadcast.subscribe(CHANNEL))

    @property
    def connected(self) -> bool:
        return self._backend is None or self._backend.connected

    async def publish(self, hint: Hint) -> None:
        await self._broadcast.publish(CHANNEL, f"{hint.account_id}:{hint.seq}")

    async def subscribe(self) -> AsyncIterator[Hint]:
        async for event in self._subscriber:
            hint = _parse(event.message)
            if hint is not None:
                yield hint

    async def aclose(self) -> None:
        if self._subscriber is None:
            return
        # Close the subscription first: broadcaster's disconnect leaves readers waiting forever.
        self._subscriber = None
        await self._open.aclose()
        await self._broadcast.disconnect()


def _parse(message: str) -> Hint | None:
    if message == GAP_MESSAGE:
        return GAP
    account_id, _, seq = message.partition(":")
    try:
        return Hint(UUID(account_id), int(seq))
    except ValueError:
        log.warning("event bus message that is not ours was ignored")
        return None


async def _back_end(name: str) -> Any:
    # redis-py's import takes 0.2 s: only for such a bus, and not on the event loop.
    return await asyncio.to_thread(importlib.import_module, f"integrations.broadcast.{name}_backend")


async def open_bus(events_url: str) -> Bus:
    """Open and subscribe to the bus, which keeps trying to connect. Raises: UnsupportedBusError."""
    scheme = urlsplit(events_url).scheme
    backend: SupervisedBackend | None = None
    if scheme in ("redis", "rediss"):
        backend = (await _back_end("redis")).RedisBackend(events_url)
    elif scheme in ("postgres", "postgresql", "asyncpg"):
        backend = (await _back_end("postgres")).PostgresBackend(events_url)
    elif scheme != "memory":
        raise UnsupportedBusError(UnsupportedBusError.__doc__)
    bus = _BroadcastBus(Broadcast(backend=backend) if backend is not None else Broadcast("memory://"), backend)
    await bus.start()
    return bus
