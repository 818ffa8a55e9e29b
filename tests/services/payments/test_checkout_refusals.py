"""Definite refusals of a checkout: optional fields are left out, others are reported once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations.base import IntegrationError
from models import errors, tables
from models.database import rows
from services.connections import availability, processor_health, providers
from services.core.permissions import system_actor
from services.payments import checkout, checkout_reads, refunds, sweeper, voids
from tests import factories
from tests.configured import change
from tests.services.scripted import World, assert_consistent


@pytest.fixture
async def world(database: str) -> World:
    return await World.make()


async def press(world: World, token: str, *, fault: str = "") -> str:
    """Press Pay: "open", or the refusal's code."""
    world.vendor.faults = [fault] if fault else []
    try:
        opened = await checkout.open_checkout(token)
    except errors.Refusal as refused:
        return refused.code
    return opened.state


async def row(world: World) -> tables.ProcessorConnection:
    return await tables.ProcessorConnection.get(id=world.connection.id)


async def notified(user: tables.User) -> list[str]:
    return [one.kind for one in await tables.Notification.filter(user_id=user.id).order_by("seq")]


async def events(kind: str) -> int:
    (found,) = await rows("SELECT count(*) AS n FROM event WHERE kind = ?", kind)
    return int(found["n"])


# ------------------------------------------------------------------------------------------------------ optional fields
async def test_a_field_that_the_vendor_refuses_is_left_out_under_a_new_key(world: World) -> None:
    await tables.Contact.filter(id=world.contact.id).update(email="ana..lopez@example.com")
    request, token = await world.request(description="Two rooms")
    world.vendor.faults = ["refuse:invalid_request:customer_email", "refuse:invalid_request:description"]
    page = await world.open(token)
    order = world.vendor.sessions[page].order
    assert (order.customer_email, order.description, order.locale) == (None, None, None)
    assert [key.rpartition(":")[2] for key in world.vendor.keys_of("create")] == ["1", "2", "3"]
    assert [s.external_id for s in world.vendor.open_sessions(request)] == [page]
    assert (await world.cards(request), await world.notifications()) == ([], [])
    assert (await row(world)).last_error is None
    # The open checkout is used again; nothing is asked twice.
    assert await world.open(token) == page
    assert world.vendor.count("create") == 3


async def test_a_key_that_the_vendor_knows_for_another_order_is_passed_over(world: World) -> None:
    request, token = await world.request()  # as after a restored backup, whose numbers the vendor has seen
    world.vendor.faults = ["refuse:idempotency_conflict", "refuse:idempotency_conflict"]
    page = await world.open(token)
    assert [key.rpartition(":")[2] for key in world.vendor.keys_of("create")] == ["1", "2", "3"]
    assert [s.external_id for s in world.vendor.open_sessions(request)] == [page]
    assert await world.cards(request) == []


async def test_a_required_field_that_is_refused_and_one_that_was_not_sent_are_told(world: World) -> None:
    for field in ("product_name", "customer_email"):  # this contact has no address
        request, token = await world.request()
        made = world.vendor.count("create")
        assert await press(world, token, fault=f"refuse:invalid_request:{field}") == "PROCESSOR_REJECTED"
        assert world.vendor.count("create") == made + 1
        (card,) = await tables.ActivityCard.filter(payment_request_id=request.id)
        assert f"the {field.replace('_', ' ')} is not accepted" in card.text


# ---------------------------------------------------------------------------------------------------- reported once per cause
@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("amount_too_small", "below its minimum"),
        ("amount_too_large", "above its maximum"),
        ("amount_not_representable", "does not accept this fraction"),
        ("currency_not_supported", "does not accept this currency"),
        ("account_restricted", "cannot accept payments at the moment"),
        ("permission_denied", "lacks a permission"),
        ("not_found", "does not recognize the stored credentials"),
        ("a_word_of_a_third_party", "“a_word_of_a_third_party”"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_definite_no_is_told_once_to_those_who_can_act(world: World, reason: str, words: str) -> None:
    admin = await factories.user(world.account, role="ADMIN")
    other = await factories.user(world.account)
    request, token = await world.request()
    for _ in range(3):
        assert await press(world, token, fault=f"refuse:{reason}") == "PROCESSOR_REJECTED"
    (card,) = await tables.ActivityCard.filter(payment_request_id=request.id)
    assert (card.kind, card.status) == ("CHECKOUT_REFUSED", "SENT")
    assert card.text.startswith(f"{world.contact.name} pressed Pay for {request.product_name}, but Sandbox refused: ")
    assert words in card.text
    assert await notified(world.user) == ["CHECKOUT_REFUSED"]
    assert await notified(admin) == ([] if reason.startswith("amount") else ["CHECKOUT_REFUSED"])
    assert await notified(other) == []
    now = await row(world)
    assert now.connected
    assert (now.last_error or "").startswith("A contact could not pay: ")
    assert words in (now.last_error or "")
    assert (await events("payment_request.checkout_refused"), await events("processor.updated")) == (1, 1)
    # Another contact meets the same: their thread says so, the admins know already.
    second, another = await world.request()
    assert await press(world, another, fault=f"refuse:{reason}") == "PROCESSOR_REJECTED"
    assert await world.cards(second) == ["CHECKOUT_REFUSED"]
    assert len(await notified(admin)) == (0 if reason.startswith("amount") else 1)
    # It is mended: the same link pays, and a later refusal is reported again.
    assert await press(world, token) == "open"
    assert (await row(world)).last_error is None
    assert await events("processor.updated") == 2
    world.vendor.lapse(world.vendor.of_request(request)[0].external_id)
    await world.deliver()
    assert await press(world, token, fault=f"refuse:{reason}") == "PROCESSOR_REJECTED"
    assert await world.cards(request) == ["CHECKOUT_REFUSED", "CHECKOUT_REFUSED"]
    await assert_consistent(world.account.id)


async def test_long_names_and_words_never_hide_what_to_do(world: World) -> None:
    await tables.Contact.filter(id=world.contact.id).update(name="M" * 120)
    request, token = await world.request(product_name="P" * 255)
    assert await press(world, token, fault="refuse:permission_denied") == "PROCESSOR_REJECTED"
    assert await press(world, token, fault=f"refuse:{'w' * 250}") == "PROCESSOR_REJECTED"
    first, second = await tables.ActivityCard.filter(payment_request_id=request.id).order_by("seq")
    assert first.text.endswith("or check your account.")
    assert (len(second.text) <= 500, len((await row(world)).last_error or "")) == (True, 300)


async def test_a_silent_vendor_is_told_to_nobody_but_settings(world: World) -> None:
    request, token = await world.request()
    assert await press(world, token, fault="before") == "PROCESSOR_UNAVAILABLE"
    assert (await world.cards(request), await world.notifications()) == ([], [])
    assert ((await row(world)).connected, (await row(world)).last_error) == (True, "connection: ")
    assert await press(world, token) == "open"
    assert (await row(world)).last_error is None


async def test_a_connection_that_this_server_cannot_use_is_told(world: World) -> None:
    owner = await factories.user(world.account, role="OWNER")
    request, token = await world.request()
    change(sandbox_open=False)
    for _ in range(2):
        with pytest.raises(checkout.ConnectionUnusable):
            await checkout.open_checkout(token)
    assert await world.cards(request) == ["CHECKOUT_REFUSED"]
    assert (await notified(owner), await notified(world.user)) == (["CHECKOUT_REFUSED"], ["CHECKOUT_REFUSED"])


async def test_a_refused_payment_reopens_a_closed_conversation(world: World) -> None:
    request, token = await world.request()
    await tables.Conversation.filter(id=request.conversation_id).update(closed_at=datetime.now(UTC))
    await press(world, token, fault="refuse:amount_too_small")
    assert (await tables.Conversation.get(id=request.conversation_id)).closed_at is None


# ------------------------------------------------------------------------------------------------- revoked credentials
async def _by_pay(world: World) -> None:
    _, token = await world.request()
    assert await press(world, token, fault="refuse:authentication_failed") == "PROCESSOR_REJECTED"


async def _by_sweeper(world: World) -> None:
    _, token = await world.request()
    await world.open(token)
    world.vendor.faults = ["refuse:authentication_failed"]
    assert await sweeper.sweep(datetime.now(UTC) + timedelta(minutes=2)) == 1


async def _by_void(world: World) -> None:
    request, token = await world.request()
    await world.open(token)
    world.vendor.faults = ["refuse:authentication_failed"]
    await voids.void(world.actor, payment_request_id=request.id)


async def _by_refund(world: World) -> None:
    request, token = await world.request()
    world.vendor.pay(await world.open(token))
    await world.deliver()
    fact = await tables.MoneyFact.filter(payment_request_id=request.id).first()
    assert fact is not None
    world.vendor.faults = ["refuse:authentication_failed"]
    with pytest.raises(errors.ProcessorRejected):
        await refunds.refund(
            system_actor(world.account.id),
            payment_id=fact.id,
            amount=None,
            reason="OTHER",
            tell_contact_on=None,
            idempotency_key=factories.token(),
        )


async def _by_list(world: World) -> None:
    async def refuse(since: datetime) -> Any:
        raise IntegrationError("sandbox", reason)

    for name, look in (("list_events", sweeper.fetch_events), ("list_checkouts", sweeper.find_unknown)):
        reason = "permission_denied"  # which a key may lack for lists
        setattr(world.vendor, name, refuse)
        assert await look(await row(world), datetime.now(UTC)) == 0
        assert (await row(world)).last_error is None
    reason = "authentication_failed"
    assert await sweeper.find_unknown(await row(world), datetime.now(UTC)) == 0


@pytest.mark.parametrize("find", [_by_pay, _by_sweeper, _by_void, _by_refund, _by_list])
async def test_revoked_credentials_end_the_connection_once_whoever_finds_them(world: World, find: Any) -> None:
    owner = await factories.user(world.account, role="OWNER")
    await find(world)
    ended = await row(world)
    assert (ended.connected, ended.is_default) == (False, False)
    assert "credentials" in (ended.last_error or "")
    assert await notified(owner) == ["PROCESSOR_DISCONNECTED"]
    assert (await notified(world.user)).count("PROCESSOR_DISCONNECTED") == 0
    audited = await tables.AuditEntry.filter(action="processor.disconnected")
    assert [entry.actor_kind for entry in audited] == ["system"]
    logged = await events("processor.updated")
    conversation = await tables.Conversation.get(contact_id=world.contact.id)
    await factories.channel_connection(world.account)
    (reach,) = await availability.capabilities(world.actor, conversation)
    assert (reach.payment_requests.enabled, reach.payment_requests.reason) == (False, "NO_PROCESSOR_CONFIGURED")
    assert [help.sentence for help in reach.payment_requests.help] == [
        "Ask an owner or admin to connect Sandbox again in Settings → Payments."
    ]
    assert not await providers.can_ask(world.account.id)
    # Found again, by others: nothing more is reported about the connection.
    await _by_pay(world)
    assert await notified(owner) == ["PROCESSOR_DISCONNECTED"]
    assert await events("processor.updated") == logged
    assert await tables.AuditEntry.filter(action="processor.disconnected").count() == 1


async def test_a_vendor_that_accepts_the_credentials_again_brings_the_connection_back(world: World) -> None:
    request, token = await world.request()
    assert await press(world, token, fault="refuse:authentication_failed") == "PROCESSOR_REJECTED"
    assert await world.cards(request) == ["CHECKOUT_REFUSED"]
    assert await press(world, token) == "open"
    back = await row(world)
    assert (back.connected, back.is_default, back.last_error) == (True, True, None)
    assert await providers.can_ask(world.account.id)
    assert await events("processor.updated") == 2
    audited = await tables.AuditEntry.filter(subject__startswith="prc").order_by("id")
    assert [entry.action for entry in audited] == ["processor.disconnected", "processor.reconnected"]
    # It ends once more: that is news.
    world.vendor.lapse(world.vendor.of_request(request)[0].external_id)
    await world.deliver()
    assert await press(world, token, fault="refuse:authentication_failed") == "PROCESSOR_REJECTED"
    assert not (await row(world)).connected
    assert await world.cards(request) == ["CHECKOUT_REFUSED", "CHECKOUT_REFUSED"]


async def test_a_connection_that_a_person_has_ended_stays_ended(world: World) -> None:
    _, token = await world.request()
    page = await world.open(token)
    await processor_health.refused(await row(world), IntegrationError("sandbox", "authentication_failed"))
    subject = (await tables.AuditEntry.filter(action="processor.disconnected").get()).subject
    await tables.AuditEntry.create(
        account_id=world.account.id,
        actor_kind="user",
        action="processor.disconnected",
        subject=subject,
        detail={},
        occurred_at=datetime.now(UTC),
    )
    world.vendor.pay(page)
    assert await sweeper.sweep(datetime.now(UTC) + timedelta(minutes=2)) == 1
    assert not (await row(world)).connected


async def test_a_capture_that_is_refused_for_good_is_told(world: World) -> None:
    request, token = await world.request()
    page = await world.open(token)
    world.vendor.approve(page)
    world.vendor.faults = ["", "refuse:account_restricted"]
    await checkout_reads.returned(token)
    assert await world.cards(request) == ["CHECKOUT_REFUSED"]
    assert await notified(world.user) == ["CHECKOUT_REFUSED"]
    world.vendor.faults = []
    await checkout_reads.returned(token)
    assert await world.status(request) == "PAID"
