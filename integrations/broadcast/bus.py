"""The interface of an event bus."""

from collections.abc import AsyncIterator
from typing import Final, NamedTuple, Protocol
from uuid import UUID


class Hint(NamedTuple):
    """The account's log may have entries up to `seq`."""

    account_id: UUID
    seq: int


# The bus was disconnected: read every followed account once.
GAP: Final = Hint(UUID(int=0), 0)


class Bus(Protocol):
    @property
    def connected(self) -> bool: ...

    async def publish(self, hint: Hint) -> None:
        """May raise any error of the transport; a lost hint is harmless."""

    def subscribe(self) -> AsyncIterator[Hint]:
        """Hints in any order, with `GAP` after each connect."""

    async def aclose(self) -> None: ...
