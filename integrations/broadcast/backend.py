"""The base of back ends: reconnects and reports gaps."""

import asyncio
import random
from abc import abstractmethod
from contextlib import suppress
from typing import Final

import structlog
from broadcaster import BroadcastBackend, Event

log = structlog.get_logger("integrations.broadcast")

QUEUE_SIZE: Final = 1_000

# Reconnect after 0.05 s, doubling to 5 s, times 0.5 to 1.5, so that processes do not reconnect in step.
FIRST_DELAY_S: Final = 0.05
LAST_DELAY_S: Final = 5.0

CONNECT_TIMEOUT_S: Final = 2.0
COMMAND_TIMEOUT_S: Final = 5.0
SILENCE_S: Final = 5.0
PUBLISH_CONNECTIONS: Final = 4

GAP_MESSAGE: Final = "GAP"


class SupervisedBackend(BroadcastBackend):
    """Connects, subscribes, sends GAP and reads; restarts on any error."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._queue: asyncio.Queue[Event] = asyncio.Queue(QUEUE_SIZE)
        self._supervisor: asyncio.Task[None] | None = None
        self._delay_s = FIRST_DELAY_S
        self.connected = False

    @abstractmethod
    async def _listen(self, channel: str) -> None:
        # Call `confirmed` once subscribed, `received` for each message.
        ...

    async def connect(self) -> None:
        # Opens nothing: the server may be down at start, and the supervisor keeps trying.
        return

    async def disconnect(self) -> None:
        if self._supervisor is not None:
            self._supervisor.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervisor
            self._supervisor = None

    async def subscribe(self, group: str) -> None:
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(group), name=f"bus:{group}")

    async def unsubscribe(self, group: str) -> None:
        return

    async def next_published(self) -> Event:
        return await self._queue.get()

    def confirmed(self, channel: str) -> None:
        self._delay_s = FIRST_DELAY_S
        self.connected = True
        self.received(channel, GAP_MESSAGE)

    def received(self, channel: str, message: str) -> None:
        # A full queue drops the hint, to bound memory. The reader's poll finds the entries.
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait(Event(channel, message))

    async def _supervise(self, channel: str) -> None:
        while True:
            try:
                await self._listen(channel)
            except Exception as error:  # noqa: BLE001 the loop's top: reconnect after any error
                # Only the class: the message contains host names and may contain the URL.
                log.warning("event bus connection lost, reconnecting", error=type(error).__name__)
            self.connected = False
            await asyncio.sleep(self._delay_s * random.uniform(0.5, 1.5))  # noqa: S311 jitter, not a secret
            self._delay_s = min(self._delay_s * 2, LAST_DELAY_S)
