"""The interface of an event bus, and its hints."""

from collections.abc import AsyncIterator
from typing import Final, NamedTuple, Protocol
from uuid import UUID


class Hint(NamedTuple):
    """The account's event log may have new entries up to `seq`."""

    account_id: UUID
    seq: int


GAP: Final = Hint(UUID(int=0), 0)
"""The bus was disconnected until now, so every followed account must be read once."""


class Bus(Protocol):
    """A bus for the hub. One consumer per process calls `subscribe`."""

    @property
    def connected(self) -> bool:
        """Whether hints of other processes currently arrive, as far as known."""

    async def publish(self, hint: Hint) -> None:
        """Notify all processes, including this one. May raise any error of the transport; a lost hint is harmless."""

    def subscribe(self) -> AsyncIterator[Hint]:
        """Hints in any order, with `GAP` after each (re)connect. Ends when the bus is closed."""

    async def aclose(self) -> None:
        """End `subscribe` and close the connections. May be called twice."""
