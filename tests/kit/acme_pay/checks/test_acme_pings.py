"""A processor whose vendor has no signatures and no cancellation passes the suite, since it declares that."""

from contextlib import AsyncExitStack

import pytest
from acme_pay.pings import AcmePings
from test_acme_pay import AcmePayHarness

from integrations.kit.processors import *  # noqa: F403 (the suite)
from integrations.kit.processors import Delivery, Outcome


class AcmePingsHarness(AcmePayHarness):
    processor = AcmePings
    currencies = ("EUR",)

    async def start(self, stack: AsyncExitStack) -> None:
        await super().start(stack)
        self.acme.cancels = False

    def points_at(self, external_id: str) -> Delivery:
        return f"id={external_id}".encode(), {}

    async def act(self, external_id: str, outcome: Outcome) -> Delivery:
        await super().act(external_id, outcome)
        return self.points_at(external_id)

    async def refund(self, external_id: str, amount_minor: int) -> Delivery:
        await super().refund(external_id, amount_minor)
        return self.points_at(external_id)

    async def settle_refund(self, refund_id: str, *, arrives: bool) -> Delivery:
        await super().settle_refund(refund_id, arrives=arrives)
        return self.points_at(next(iter(self.acme.orders)))

    async def dispute(self, external_id: str) -> Delivery:
        await super().dispute(external_id)
        return self.points_at(external_id)

    async def end_dispute(self, external_id: str, *, won: bool) -> Delivery:
        await super().end_dispute(external_id, won=won)
        return self.points_at(external_id)

    async def strange(self, external_id: str) -> Delivery:
        await super().strange(external_id)
        return self.points_at(external_id)

    def calls(self) -> int:
        return len(self.acme.calls)


@pytest.fixture
def harness() -> AcmePingsHarness:
    return AcmePingsHarness()
