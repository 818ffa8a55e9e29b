"""Webhooks that are registered at the vendor, and deleted there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from integrations.base import IntegrationError
from models.errors import Invalid
from models.tables import ProcessorConnection
from services.connections import processor_health, processor_settings, providers
from tests.configured import change_environment
from tests.contracts.openapi import Call
from tests.contracts.stripe_server import StripeServer
from tests.services.conftest import Team
from tests.services.connections.conftest import KEY, SIGNING


def addresses(stripe: StripeServer) -> list[str]:
    return [endpoint["url"] for endpoint in stripe.endpoints.values()]


def made(stripe: StripeServer) -> int:
    return [(call.method, call.path) for call in stripe.calls].count(("POST", "/v1/webhook_endpoints"))


def about_endpoints(call: Call) -> bool:
    return call.path.startswith("/v1/webhook_endpoints")


async def test_a_webhook_is_registered_for_the_user_and_taken_back_on_disconnecting(
    team: Team, stripe: StripeServer
) -> None:
    given = {"secret_key": KEY}
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials=given)
    assert addresses(stripe) == [providers.webhook_url(row)]
    (endpoint,) = stripe.endpoints.values()
    ours = {"webhook_secret": endpoint["secret"], "webhook_endpoint_id": endpoint["id"]}
    assert providers.credentials_of(row) == given | ours
    assert (row.webhook_registered, row.last_error) == (True, None)
    # Once is enough.
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials=given, display_name="Cards"
    )
    assert (made(stripe), row.webhook_registered) == (1, True)
    assert providers.credentials_of(row) == given | ours
    gone = await processor_settings.disconnect_processor(team.owner, row.id)
    await processor_settings.disconnect_processor(team.owner, row.id)
    assert addresses(stripe) == []
    assert (gone.connected, gone.webhook_registered) == (False, False)
    assert providers.credentials_of(gone) == given
    back = await processor_settings.configure_processor(team.owner, processor="stripe", connection_id=row.id)
    assert (made(stripe), addresses(stripe)) == (2, [providers.webhook_url(row)])
    assert providers.credentials_of(back)["webhook_secret"] != ours["webhook_secret"]
    # The user's own secret replaces ours; that webhook is not ours to delete.
    own = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"webhook_secret": SIGNING}
    )
    assert providers.credentials_of(own) == given | {"webhook_secret": SIGNING}
    assert not own.webhook_registered
    gone = await processor_settings.disconnect_processor(team.owner, own.id)
    assert providers.credentials_of(gone) == given | {"webhook_secret": SIGNING}
    assert made(stripe) == 2


async def test_the_secret_of_an_own_webhook_registers_nothing(team: Team, stripe: StripeServer) -> None:
    row = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"secret_key": KEY, "webhook_secret": SIGNING}
    )
    assert (made(stripe), row.webhook_registered) == (0, False)
    with pytest.raises(Invalid) as refused:
        await processor_settings.configure_processor(
            team.owner, processor="stripe", credentials={"webhook_endpoint_id": "we_of_somebody"}
        )
    assert refused.value.field == ("credentials", "webhook_endpoint_id", "name")


async def test_a_webhook_that_is_not_taken_leaves_the_processor_connected_with_a_sentence(
    team: Team, stripe: StripeServer
) -> None:
    stripe.fail_next("before_500", match=about_endpoints)
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    assert (row.connected, row.webhook_registered) == (True, False)
    assert (row.last_error or "").startswith("Stripe did not take the webhook's address (server_error): add it there")
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    assert (row.webhook_registered, row.last_error) == (True, None)
    # Nor does disconnecting depend on the vendor; what is still there keeps its secret.
    stripe.fail_next("before_500", match=about_endpoints)
    gone = await processor_settings.disconnect_processor(team.owner, row.id)
    assert (gone.connected, gone.webhook_registered) == (False, True)
    assert addresses(stripe) == [providers.webhook_url(row)]
    assert providers.credentials_of(gone) == providers.credentials_of(row)


async def test_a_webhook_that_is_missing_is_told_until_there_is_one(team: Team, stripe: StripeServer) -> None:
    stripe.fail_next("before_500", match=about_endpoints)
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    tested, refusal = await processor_settings.check_processor(team.owner, row.id)
    missing = tested.last_error or ""
    assert (refusal, tested.webhook_registered) == (None, False)
    assert missing.startswith("Stripe does not know where to send webhooks: add https://")
    assert providers.webhook_url(row) in missing
    assert len(missing) < providers.ERROR_LIMIT
    # A call that works forgets what a call could not do, and no more.
    await providers.note_working(tested)
    await ProcessorConnection.filter(id=row.id).update(last_error="timeout: no answer")
    await providers.note_working(await ProcessorConnection.get(id=row.id))
    assert (await ProcessorConnection.get(id=row.id)).last_error == missing
    # A webhook has arrived, or its secret is stored: the vendor knows the address.
    await ProcessorConnection.filter(id=row.id).update(last_webhook_at=datetime.now(UTC))
    tested, _ = await processor_settings.check_processor(team.owner, row.id)
    assert tested.last_error is None
    await ProcessorConnection.filter(id=row.id).update(last_webhook_at=None)
    own = await processor_settings.configure_processor(
        team.owner, processor="stripe", credentials={"webhook_secret": SIGNING}
    )
    tested, _ = await processor_settings.check_processor(team.owner, own.id)
    assert tested.last_error is None


async def test_a_call_that_works_mends_neither_a_permission_nor_what_went_wrong_since(
    team: Team, stripe: StripeServer
) -> None:
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    lacking = IntegrationError("stripe", "permission_denied", "may not read")
    assert await processor_health.refused(row, lacking)
    noted = await ProcessorConnection.get(id=row.id)
    await providers.note_working(noted)
    assert (await ProcessorConnection.get(id=row.id)).last_error == noted.last_error
    assert "lack a permission" in (noted.last_error or "")
    noted.last_error = "timeout: what another task has read"
    await providers.note_working(noted)
    assert "lack a permission" in ((await ProcessorConnection.get(id=row.id)).last_error or "")


async def test_an_address_that_no_vendor_reaches_is_not_registered(team: Team, stripe: StripeServer) -> None:
    change_environment(public_url="http://127.0.0.1:8000")
    row = await processor_settings.configure_processor(team.owner, processor="stripe", credentials={"secret_key": KEY})
    assert (made(stripe), row.webhook_registered, row.last_error) == (0, False, None)
