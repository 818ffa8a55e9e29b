"""The simulated network: signed HTTP to a verifying endpoint, jobs in the real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from integrations.base import ChannelWebhook, DeliveryStatus, Environment, IntegrationError, WebhookRequest
from integrations.kit.vendor import LoopbackServer
from models import database as db
from models.errors import NotFound
from models.ids import parse_public_id, public_id, uuid7
from models.tables import ChannelConnection
from services.connections import providers
from services.core import job_runner
from services.sandbox import channels
from tests import factories
from tests.configured import change


class Door:
    """An inbound endpoint that verifies with the provider and stores what arrives."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.received: list[ChannelWebhook] = []
        self.status = 200
        self.app = Starlette(routes=[Route("/inbound/{provider}/{connection}", self._take, methods=["POST"])])

    async def _take(self, request: Request) -> Response:
        self.paths.append(request.url.path)
        if self.status != 200:
            return PlainTextResponse("no", self.status)
        connection_id = parse_public_id(request.path_params["connection"], "chn")
        assert connection_id is not None
        row = await providers.channel_connection(connection_id)
        assert row.provider == request.path_params["provider"]
        called = WebhookRequest(
            method=request.method,
            public_url=str(request.url),
            headers=dict(request.headers),
            body=await request.body(),
            now=datetime.now(UTC),
        )
        self.received.append(providers.channel(row).receive(called))
        return PlainTextResponse("ok")

    def statuses(self) -> list[tuple[str, DeliveryStatus, str | None]]:
        return [(s.external_id, s.status, s.error_code) for hook in self.received for s in hook.statuses]


@pytest.fixture
async def door(database: str) -> AsyncIterator[Door]:
    made = Door()
    async with LoopbackServer(made.app) as server:
        environment = Environment(public_url="https://pay.example.test", sandbox_url=server.url, timeout_s=5)
        change(environment=environment)
        yield made
        await providers.aclose()


@pytest.fixture
async def row(door: Door) -> ChannelConnection:
    return await factories.channel_connection(await factories.account(), "SMS")


async def queued() -> list[tuple[str, str]]:
    found = await db.rows("SELECT kind, status FROM job WHERE kind = 'simulator.deliver' ORDER BY created_at, id")
    return [(job["kind"], job["status"]) for job in found]


@pytest.mark.parametrize(
    "status", [DeliveryStatus.SENT, DeliveryStatus.DELIVERED, DeliveryStatus.READ, DeliveryStatus.FAILED]
)
async def test_a_status_arrives_signed_at_the_doors_address(
    door: Door, row: ChannelConnection, status: DeliveryStatus
) -> None:
    await channels.deliver(row.id, "sim_1", "+14155550101", status)
    assert door.paths == [f"/inbound/simulated/{public_id('chn', row.id)}"]
    assert door.statuses() == [("sim_1", status, "9901" if status is DeliveryStatus.FAILED else None)]


async def test_what_a_contact_writes_arrives_signed(door: Door, row: ChannelConnection) -> None:
    first = await channels.contact_writes(row.id, "+14155550101", "Hello ¿cuánto? 👍")
    second = await channels.contact_writes(row.id, "+14155550101", "STOP")
    got = [m for hook in door.received for m in hook.messages]
    assert [(m.external_id, m.sender, m.body, m.opt_out) for m in got] == [
        (first, "+14155550101", "Hello ¿cuánto? 👍", None),
        (second, "+14155550101", "STOP", True),
    ]
    assert first != second


async def test_a_sent_message_is_reported_delivered_once(door: Door, row: ChannelConnection) -> None:
    for _ in range(3):
        await channels.enqueue_delivery(row, "sim_1", "+14155550101")
    assert await queued() == [("simulator.deliver", "queued")]
    await job_runner.Runner().run_due()
    assert door.statuses() == [("sim_1", DeliveryStatus.DELIVERED, None)]
    assert await queued() == [("simulator.deliver", "done")]


async def test_magic_recipients_fail_or_stay_silent(door: Door, row: ChannelConnection) -> None:
    await channels.enqueue_delivery(row, "sim_1", "+14155559901")
    await channels.enqueue_delivery(row, "sim_2", "+14155559903")
    await job_runner.Runner().run_due()
    assert door.statuses() == [("sim_1", DeliveryStatus.FAILED, "9901")]
    assert await queued() == [("simulator.deliver", "done")] * 2


async def test_a_delivery_of_a_rolled_back_message_is_never_planned(door: Door, row: ChannelConnection) -> None:
    async def fail() -> None:
        async with db.transaction():
            await channels.enqueue_delivery(row, "sim_1", "+14155550101")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await job_runner.Runner().run_due()
    assert await queued() == []
    assert door.paths == []


async def test_a_door_that_is_away_is_tried_again(door: Door, row: ChannelConnection) -> None:
    door.status = 503
    await channels.enqueue_delivery(row, "sim_1", "+14155550101")
    await job_runner.Runner().run_due()
    assert await queued() == [("simulator.deliver", "queued")]
    door.status = 200
    await db.execute("UPDATE job SET due_at = ?", datetime.now(UTC))
    await job_runner.Runner().run_due()
    assert await queued() == [("simulator.deliver", "done")]
    assert door.statuses() == [("sim_1", DeliveryStatus.DELIVERED, None)]


async def test_a_door_that_refuses_is_not_tried_again(door: Door, row: ChannelConnection) -> None:
    door.status = 400
    await channels.enqueue_delivery(row, "sim_1", "+14155550101")
    await job_runner.Runner().run_due()
    assert await queued() == [("simulator.deliver", "dead")]
    assert len(door.paths) == 1


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (404, False), (429, True), (500, True)])
async def test_a_refused_callback_says_whether_to_repeat(
    door: Door, row: ChannelConnection, status: int, retryable: bool
) -> None:
    door.status = status
    with pytest.raises(IntegrationError) as caught:
        await channels.contact_writes(row.id, "+14155550101", "Hello")
    assert (caught.value.reason, caught.value.retryable) == ("callback_refused", retryable)
    assert "Hello" not in str(caught.value)


async def test_no_server_is_a_lost_callback(door: Door, row: ChannelConnection) -> None:
    nowhere = Environment(public_url="https://pay.example.test", sandbox_url="http://127.0.0.1:1", timeout_s=5)
    change(environment=nowhere)
    with pytest.raises(IntegrationError) as caught:
        await channels.deliver(row.id, "sim_1", "+14155550101", DeliveryStatus.DELIVERED)
    assert (caught.value.reason, caught.value.retryable) == ("callback_lost", True)
    assert door.paths == []


async def test_nobody_speaks_for_a_real_provider(door: Door, row: ChannelConnection) -> None:
    real = await factories.channel_connection(
        await factories.account(), "SMS", provider="twilio_sms", credentials={"account_sid": "AC1", "auth_token": "x"}
    )
    await channels.enqueue_delivery(real, "SM1", "+14155550101")
    with pytest.raises(channels.NotSimulated):
        await channels.contact_writes(real.id, "+14155550101", "STOP")
    with pytest.raises(channels.NotSimulated):
        await channels.deliver(real.id, "SM1", "+14155550101", DeliveryStatus.DELIVERED)
    assert await queued() == []
    assert door.paths == []


async def test_an_unknown_connection_is_not_found(door: Door) -> None:
    unknown: UUID = uuid7()
    with pytest.raises(NotFound):
        await channels.contact_writes(unknown, "+14155550101", "Hello")
    assert door.paths == []
