"""Rotation of SECRET_KEYS."""

from __future__ import annotations

import pytest

from models import database as db
from models import vault
from models.tables import ProcessorConnection
from services.accounts import key_rotation
from services.connections import providers
from settings import Settings
from tests import factories
from tests.services.conftest import Team


async def test_rotation_leaves_nothing_that_needs_the_old_key(team: Team, configured: Settings) -> None:
    requests = [await factories.payment_request(team.contact, clear_token=f"token-{n:016d}") for n in range(3)]
    before = providers.credentials_of(team.processor)
    message = await factories.message(team.conversation)
    address = "https://files.test/a?token=t"
    waiting = await factories.attachment(message, source_url=vault.seal(team.account.id, address))
    await factories.attachment(message, n=2, status="FAILED")  # without one
    vault.open_vault(["the-new-key-000001", *configured.keys])
    key_rotation_counts = await key_rotation.rotate()
    assert key_rotation_counts == {
        "processor_connection": 1,
        "channel_connection": 6,
        "payment_request": 3,
        "attachment": 1,
        "job": 0,
    }
    vault.open_vault(["the-new-key-000001"])
    assert await key_rotation.unreadable() == {}
    await waiting.refresh_from_db()
    assert vault.unseal(team.account.id, waiting.source_url or "") == address
    row = await ProcessorConnection.get(id=team.processor.id)
    assert providers.credentials_of(row) == before
    sealed = await db.rows("SELECT token FROM payment_request ORDER BY id")
    assert [vault.unseal(team.account.id, found["token"]) for found in sealed] == [
        f"token-{n:016d}" for n in range(len(requests))
    ]


async def test_rotation_stops_at_a_secret_that_no_key_opens(team: Team) -> None:
    vault.open_vault(["a-key-of-somebody-else"])
    with pytest.raises(vault.VaultError):
        await key_rotation.rotate()
