"""Webhooks over HTTP: unsigned ones store nothing; signed ones are stored before the answer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from integrations.base import ChannelWebhook, IntegrationError, WebhookRequest
from integrations.channels import simulated
from integrations.processors.sandbox import SIGNATURE_HEADER, Sandbox
from models.ids import public_id, uuid7
from models.tables import ChannelConnection, Message, MoneyFact, PaymentRequest, ProcessorConnection, ProcessorEvent
from services.messaging import inbound
from services.sandbox import webhooks as sandbox_webhooks
from tests import factories
from tests.web.conftest import Serve, Site, snapshot
from web import webhooks

SECRET = "whsec_sandbox_test_0001"


def _event(event_id: str = "evt_1", **fields: object) -> bytes:
    return json.dumps({"id": event_id, "type": "account.updated", "marker": "body-marker", **fields}).encode()


async def _processor() -> tuple[ProcessorConnection, str]:
    row = await factories.processor_connection(await factories.account())
    return row, f"/webhooks/sandbox/{public_id('prc', row.id)}"


async def _paid(site: Site) -> tuple[PaymentRequest, str]:
    """A request just paid at the sandbox; its webhook is still a job."""
    token = factories.token()
    contact = await factories.contact(await factories.account())
    request = await factories.payment_request(contact, clear_token=token)
    opened = await site.http.post(f"/p/{token}/pay")
    await site.http.post(opened.headers["location"], data={"action": "pay"})
    return request, token


async def test_a_signed_webhook_pays_the_request(site: Site) -> None:
    request, token = await _paid(site)
    assert (await PaymentRequest.get(id=request.id)).status == "DRAFT"
    await site.run_jobs()
    assert (await PaymentRequest.get(id=request.id)).status == "PAID"
    assert await MoneyFact.filter(payment_request_id=request.id).count() == 1
    assert (await site.http.get(f"/p/{token}/live")).json()["state"] == "paid"


async def test_forged_stale_and_unsigned_webhooks_are_400_and_leave_a_line_without_the_body(site: Site) -> None:
    _, path = await _processor()
    body = _event()
    now = datetime.now(UTC)
    good = sandbox_webhooks.signed(SECRET, body, at=now)
    headers = [
        {},
        {SIGNATURE_HEADER: ""},
        {SIGNATURE_HEADER: "nonsense"},
        {SIGNATURE_HEADER: sandbox_webhooks.signed("whsec_other", body, at=now)},
        {SIGNATURE_HEADER: sandbox_webhooks.signed(SECRET, body, at=now - timedelta(seconds=400))},
        {SIGNATURE_HEADER: sandbox_webhooks.signed(SECRET, body, at=now + timedelta(seconds=400))},
        {SIGNATURE_HEADER: sandbox_webhooks.signed(SECRET, body + b" ", at=now)},
    ]
    before = await snapshot()
    for header in headers:
        assert (await site.http.post(path, content=body, headers=header)).status_code == 400
    assert (await site.http.post(path, content=body + b"\n", headers={SIGNATURE_HEADER: good})).status_code == 400
    assert await snapshot() == before
    refused = [line for line in site.lines() if line["event"] == "webhook refused"]
    assert len(refused) == len(headers) + 1
    assert {line["result"] for line in refused} == {"bad_signature"}
    assert {line["provider"] for line in refused} == {"sandbox"}
    for secret in ("body-marker", "evt_1", SECRET, good):
        assert secret not in site.log.getvalue()


async def test_a_webhook_that_nobody_can_verify_now_is_503_and_leaves_a_line_without_the_body(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, path = await _processor()
    body = _event()

    async def down(*_: object, **__: object) -> None:
        raise IntegrationError("sandbox", "timeout", "the vendor's words", retryable=True)

    monkeypatch.setattr(Sandbox, "verify_webhook", down)
    before = await snapshot()
    signed = {SIGNATURE_HEADER: sandbox_webhooks.signed(SECRET, body, at=datetime.now(UTC))}
    assert (await site.http.post(path, content=body, headers=signed)).status_code == 503
    assert await snapshot() == before
    (line,) = [line for line in site.lines() if line["event"] == "webhook refused"]
    assert (line["result"], line["reason"]) == ("not_verifiable", "timeout")
    assert "body-marker" not in site.log.getvalue()
    assert "vendor's words" not in site.log.getvalue()


async def test_an_unknown_address_is_404_whatever_is_sent(site: Site) -> None:
    row, path = await _processor()
    body = _event()
    signed = {SIGNATURE_HEADER: sandbox_webhooks.signed(SECRET, body, at=datetime.now(UTC))}
    before = await snapshot()
    for wrong in (
        f"/webhooks/sandbox/{public_id('prc', uuid7())}",
        f"/webhooks/stripe/{public_id('prc', row.id)}",
        f"/webhooks/sandbox/{public_id('chn', row.id)}",
        f"/webhooks/sandbox/{row.id}",
        "/webhooks/sandbox/x",
        f"/webhooks/nothing/{public_id('prc', row.id)}",
        f"/inbound/simulated/{public_id('chn', uuid7())}",
        f"/inbound/simulated/{public_id('prc', row.id)}",
    ):
        assert (await site.http.post(wrong, content=body, headers=signed)).status_code == 404
    assert (await site.http.get(path)).status_code == 405
    assert await snapshot() == before


async def test_a_webhook_over_512_kib_is_413_and_not_kept(site: Site) -> None:
    _, path = await _processor()
    body = _event(padding="x" * 512 * 1024)
    signed = {SIGNATURE_HEADER: sandbox_webhooks.signed(SECRET, body, at=datetime.now(UTC))}
    assert (await site.http.post(path, content=body, headers=signed)).status_code == 413
    assert await ProcessorEvent.all().count() == 0


async def _channel() -> tuple[ChannelConnection, str]:
    account = await factories.account()
    row = await factories.channel_connection(account, "SMS")
    contact = await factories.contact(account)
    await factories.conversation(contact)
    await factories.contact_address(contact, "SMS", address="+14155550142")
    return row, f"/inbound/simulated/{public_id('chn', row.id)}"


async def test_a_signed_inbound_message_appears_once(site: Site) -> None:
    row, path = await _channel()
    now = datetime.now(UTC)
    body = simulated.inbound_body("+14155550142", "Can I pay tomorrow?", at=now, external_id="sim_in_1")
    signed = {simulated.SIGNATURE_HEADER: simulated.sign("simulated-secret", body, at=now)}
    for _ in range(3):
        assert (await site.http.post(path, content=body, headers=signed)).status_code == 200
    stored = await Message.get(channel_connection_id=row.id)
    assert (stored.direction, stored.body, stored.external_id) == ("INBOUND", "Can I pay tomorrow?", "sim_in_1")
    assert "tomorrow" not in site.log.getvalue()


async def test_a_callback_of_a_channel_has_up_to_2_mib(site: Site) -> None:
    row, path = await _channel()
    now = datetime.now(UTC)
    for size, status, stored in ((2 * 1024 * 1024, 200, 1), (2 * 1024 * 1024 + 1, 413, 1)):
        body = simulated.inbound_body("+14155550142", "Hello", at=now, external_id=f"sim_in_{size}").ljust(size)
        signed = {simulated.SIGNATURE_HEADER: simulated.sign("simulated-secret", body, at=now)}
        assert (await site.http.post(path, content=body, headers=signed)).status_code == status
        assert await Message.filter(channel_connection_id=row.id).count() == stored


async def test_a_forged_inbound_message_is_400_and_not_stored(site: Site) -> None:
    _, path = await _channel()
    now = datetime.now(UTC)
    body = simulated.inbound_body("+14155550142", "Send me money", at=now, external_id="sim_in_2")
    before = await snapshot()
    for header in (
        {},
        {simulated.SIGNATURE_HEADER: simulated.sign("other-secret", body, at=now)},
        {simulated.SIGNATURE_HEADER: simulated.sign("simulated-secret", body, at=now - timedelta(seconds=400))},
    ):
        assert (await site.http.post(path, content=body, headers=header)).status_code == 400
    assert (await site.http.get(path)).status_code == 400
    assert await snapshot() == before
    assert "Send me money" not in site.log.getvalue()
    assert "4155550142" not in site.log.getvalue()


async def test_a_channel_sees_the_public_address_that_was_called_whatever_the_host_header(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, UUID, WebhookRequest]] = []

    async def receive(provider: str, connection_id: UUID, request: WebhookRequest) -> ChannelWebhook:
        seen.append((provider, connection_id, request))
        return ChannelWebhook(answer_body="challenge-42", answer_type="text/plain")

    monkeypatch.setattr(inbound, "receive", receive)
    async with serve(public_url="https://pay.example.test") as site:
        connection = uuid7()
        path = f"/inbound/meta%5Fdm/{public_id('chn', connection)}"
        answer = await site.http.get(f"{path}?hub.mode=subscribe&hub.challenge=42", headers={"Host": "evil.example"})
        assert (answer.status_code, answer.text) == (200, "challenge-42")
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        await site.http.post(f"{path}?a=b%20c", content=b"To=%2B1&Body=", headers={"X-Signed": "Yes"})
    (first, second) = seen
    assert first[0] == "meta_dm"
    assert first[1] == connection
    assert first[2].public_url == f"https://pay.example.test{path}?hub.mode=subscribe&hub.challenge=42"
    assert first[2].query == {"hub.mode": "subscribe", "hub.challenge": "42"}
    assert (first[2].method, first[2].body) == ("GET", b"")
    assert second[2].public_url == f"https://pay.example.test{path}?a=b%20c"
    assert (second[2].method, second[2].body) == ("POST", b"To=%2B1&Body=")
    assert second[2].headers["x-signed"] == "Yes"


async def test_many_forgeries_from_one_address_are_429_and_the_vendor_behind_it_is_still_heard(site: Site) -> None:
    _, path = await _channel()
    _, other = await _channel()
    now = datetime.now(UTC)
    body = simulated.inbound_body("+14155550142", "Can I pay tomorrow?", at=now, external_id="sim_in_1")
    forged = {simulated.SIGNATURE_HEADER: simulated.sign("another-secret", body, at=now)}
    signed = {simulated.SIGNATURE_HEADER: simulated.sign("simulated-secret", body, at=now)}
    for _ in range(32):  # what is genuine is not counted
        assert (await site.http.post(path, content=body, headers=signed)).status_code == 200
    before = await snapshot()
    codes = [(await site.http.post(path, content=body, headers=forged)).status_code for _ in range(100)]
    assert codes[:30] == [400] * 30
    assert codes[40:] == [429] * 60
    assert await snapshot() == before
    assert len([line for line in site.lines() if line["event"] == "webhook refused"]) <= 40
    assert (await site.http.post(other, content=body, headers=forged)).status_code == 400
    assert (await site.http.post(path, content=body, headers=signed)).status_code == 200
    assert await Message.all().count() == 1


async def test_of_a_flood_of_forgeries_most_are_not_even_checked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    _, path = await _processor()
    monkeypatch.setattr(webhooks.Forgeries, "FAILURES_PER_S", 0.001)
    monkeypatch.setattr(webhooks.Forgeries, "CHECKS_PER_S", 0.001)
    monkeypatch.setattr(webhooks.Forgeries, "CHECKS", 5)
    checked = 0
    genuine = Sandbox.verify_webhook

    async def verify(self: Sandbox, *args: Any, **options: Any) -> Any:
        nonlocal checked
        checked += 1
        return await genuine(self, *args, **options)

    monkeypatch.setattr(Sandbox, "verify_webhook", verify)
    codes = [(await site.http.post(path, content=b"{}")).status_code for _ in range(60)]
    assert codes == [400] * 30 + [429] * 30
    assert checked == 35
