"""The bus over Redis, imported only for such a bus."""

import asyncio
from contextlib import suppress
from typing import Any, Final, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from integrations.broadcast.backend import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    PUBLISH_CONNECTIONS,
    SILENCE_S,
    SupervisedBackend,
)

REDIS_PONG_S: Final = 2.0


class RedisBackend(SupervisedBackend):
    """Source: redis.io/docs/latest/develop/pubsub; redis-py 8.1."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        # Publishing waits for one of a few connections; the plain pool would fail on the 101st concurrent publish.
        self._publisher = self._client(PUBLISH_CONNECTIONS)

    def _client(self, connections: int) -> Redis:
        # No retries inside redis-py: it would reconnect and resubscribe without reporting the gap.
        pool = BlockingConnectionPool.from_url(
            self._url,
            max_connections=connections,
            timeout=COMMAND_TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            socket_timeout=COMMAND_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        return Redis.from_pool(pool)

    async def disconnect(self) -> None:
        await super().disconnect()
        await self._publisher.aclose()

    async def publish(self, channel: str, message: Any) -> None:
        await self._publisher.publish(channel, message)

    async def _listen(self, channel: str) -> None:
        client = self._client(1)
        pubsub = client.pubsub()
        try:
            await pubsub.subscribe(channel)
            await self._await_kind(pubsub, "subscribe")
            self.confirmed(channel)
            await self._read(pubsub, channel)
        finally:
            with suppress(RedisError, OSError):
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # redis-py does not type it
            await client.aclose()

    @staticmethod
    async def _await_kind(pubsub: PubSub, kind: str) -> None:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            while True:
                message = await pubsub.get_message(timeout=CONNECT_TIMEOUT_S)
                if message is not None and message["type"] == kind:
                    return

    async def _read(self, pubsub: PubSub, channel: str) -> None:
        clock = asyncio.get_running_loop().time
        heard_at = clock()
        pinged_at: float | None = None
        while True:
            message = await pubsub.get_message(timeout=1.0)
            now = clock()
            if message is not None:
                heard_at, pinged_at = now, None
                if message["type"] == "message":
                    self.received(channel, cast(bytes, message["data"]).decode("ascii", "replace"))
                elif message["type"] == "subscribe":
                    # redis-py reconnected by itself; messages in between are lost.
                    self.confirmed(channel)
            elif pinged_at is not None and now - pinged_at >= REDIS_PONG_S:
                # A half-open connection swallows pings without an error.
                raise TimeoutError("Redis does not answer")
            elif pinged_at is None and now - heard_at >= SILENCE_S:
                pinged_at = now
                await pubsub.ping()
