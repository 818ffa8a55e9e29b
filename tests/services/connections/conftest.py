"""Stripe's contract server for a team."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from integrations.base import Environment
from services.connections import providers
from tests.configured import change
from tests.contracts import stripe_contract, stripe_server
from tests.contracts.stripe_server import StripeServer
from tests.services.conftest import BASE_URL, Team

KEY = stripe_server.SECRET_KEY


SIGNING = "whsec_contract_0001"


@pytest.fixture
async def stripe(team: Team) -> AsyncIterator[StripeServer]:
    async with StripeServer(stripe_contract.derived_contract()) as server:
        change(
            environment=Environment(
                public_url=BASE_URL,
                sandbox_url="http://127.0.0.1:9",
                base_addresses={"stripe": server.url},
                timeout_s=5,
            )
        )
        yield server
        await providers.aclose()


def asked(stripe: StripeServer) -> int:
    return [call.path for call in stripe.calls].count("/v1/account")
