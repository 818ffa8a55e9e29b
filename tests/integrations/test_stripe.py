"""Stripe's own facts: what Paythread sends, and what Stripe's states, events and errors mean."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog
from stripe._api_version import _ApiVersion

from integrations.base import (
    AmountLimits,
    CheckoutStatus,
    Delay,
    Environment,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    PayloadInvalid,
    ProcessorWebhook,
    RefundOrder,
    RefundReason,
)
from integrations.processors import stripe
from tests.contracts import stripe_contract, stripe_server
from tests.contracts.openapi import Contract, vendor_file
from tests.contracts.stripe_server import StripeServer
from tests.integrations.test_processor_contract import REFERENCE, order

SECRET = stripe_server.WEBHOOK_SECRET
WEBHOOK_URL = "https://pay.example.test/webhooks/stripe/prc_1"
CONTRACTS = stripe_contract.contracts()


@asynccontextmanager
async def connected(
    contract: Contract | None = None,
    *,
    key: str = stripe_server.SECRET_KEY,
    account: str = "",
    secret: str = SECRET,
    endpoint_id: str = "",
) -> AsyncIterator[tuple[StripeServer, stripe.Stripe]]:
    async with StripeServer(contract or stripe_contract.derived_contract()) as server:
        environment = Environment(
            public_url="http://localhost", sandbox_url="http://localhost", base_addresses={"stripe": server.url}
        )
        credentials = stripe.Credentials(key, secret, account, endpoint_id)
        made = stripe.Stripe(credentials, environment=environment, webhook_url=WEBHOOK_URL)
        try:
            yield server, made
        finally:
            await made.aclose()


def refund_order(charge: str, amount_minor: int, *, reason: RefundReason | None = None) -> RefundOrder:
    return RefundOrder(
        idempotency_key=f"{REFERENCE}:refund:{reason}",
        request_reference=REFERENCE,
        charge_external_id=charge,
        amount_minor=amount_minor,
        currency="USD",
        reason=reason,
    )


def receive(processor: stripe.Stripe, delivery: tuple[bytes, dict[str, str]]) -> ProcessorWebhook:
    return processor.receive(*delivery, now=datetime.now(UTC))


# ----------------------------------------------------------------------------------------------------------- contract
def test_the_pinned_version_is_the_installed_sdks() -> None:
    assert stripe.API_VERSION == stripe_server.API_VERSION == _ApiVersion.CURRENT


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
async def test_every_call_that_we_make_keeps_every_contract_at_hand(contract: Contract) -> None:
    async with connected(contract) as (server, processor):
        assert await processor.check() == stripe_server.ACCOUNT_ID
        paid = await processor.create_checkout(order(idempotency_key="1"))
        server.decline(paid.external_id)
        assert (await processor.read_checkout(paid.external_id)).status is CheckoutStatus.OPEN
        server.pay(paid.external_id)
        assert (await processor.read_checkout(paid.external_id)).status is CheckoutStatus.COMPLETED
        late = await processor.create_checkout(order(idempotency_key="2", description=None, locale=None))
        server.pay_async(late.external_id)
        assert (await processor.expire_checkout(late.external_id)).status is CheckoutStatus.PROCESSING
        server.async_succeed(late.external_id)
        lost = await processor.create_checkout(order(idempotency_key="3", customer_email=None))
        server.pay_async(lost.external_id)
        server.async_fail(lost.external_id)
        assert (await processor.read_checkout(lost.external_id)).status is CheckoutStatus.FAILED
        dead = await processor.create_checkout(order(idempotency_key="4"))
        assert (await processor.expire_checkout(dead.external_id)).status is CheckoutStatus.EXPIRED
        (charge,) = (await processor.read_checkout(paid.external_id)).money
        part = await processor.refund(refund_order(charge.external_id, 500))
        assert await processor.read_refund(part.external_id) == part
        whole = (await processor.read_checkout(paid.external_id)).money
        assert [(m.kind, m.amount_minor) for m in whole] == [(MoneyKind.CHARGE, 12500), (MoneyKind.REFUND, 500)]
        server.dispute(paid.external_id)
        listed = await processor.list_events(datetime.now(UTC) - timedelta(days=1))
        assert len(listed) == len([e for e in server.events if e["type"] in stripe.EVENTS]) == 12
        # The old file knows neither API versions after its own nor when a listed session was created.
        if contract.name != stripe_contract.OLD_FILE:
            sessions = await processor.list_checkouts(datetime.now(UTC) - timedelta(days=1))
            assert [one.external_id for one in sessions] == [one.external_id for one in (paid, late, lost, dead)]
            assert await processor.register_webhook() is not None
            assert await processor.register_webhook() is not None
            assert len(server.endpoints) == 1
        assert server.violations == []


def shape(schema: Any, schemas: Mapping[str, Any], path: str = "", depth: int = 0) -> dict[str, Any]:
    """Every field of a schema with its type, requiredness and enumeration, by path."""
    if "$ref" in schema or depth > 12:
        return {path: str(schema.get("$ref", "deep"))}
    options = [o for o in schema.get("anyOf", []) if o.get("enum") != [None]]
    if len(options) == 1:
        return shape(options[0], schemas, path, depth)
    if options:
        out: dict[str, Any] = {}
        for option in options:
            out |= shape(
                option, schemas, f"{path}|{'enum' if 'enum' in option else option.get('type', 'any')}", depth + 1
            )
        return out
    if "properties" in schema:
        out = {path: sorted(schema.get("required", []))}
        for name, sub in schema["properties"].items():
            out |= shape(sub, schemas, f"{path}.{name}", depth + 1)
        return out
    if schema.get("type") == "array":
        return shape(schema["items"], schemas, f"{path}[]", depth + 1)
    enum = schema.get("enum")
    return {path: sorted(map(str, enum)) if enum else schema.get("type", "any")}


def test_the_derived_contract_is_the_vendors_where_that_is_at_hand() -> None:
    ours = stripe_contract.derived_contract().spec
    theirs = vendor_file(stripe_contract.CURRENT_FILE) or ours
    left_out = {path for _, path, _, _ in stripe_contract.OPERATIONS if path not in theirs["paths"]}
    assert left_out <= {"/v1/payment_intents/{intent}/cancel"}  # the file has a part of the API only
    for method, path, _, answered in stripe_contract.OPERATIONS:
        if path in left_out:
            continue
        mine, other = ours["paths"][path][method], theirs["paths"][path][method]
        assert {p["name"] for p in mine["parameters"]} == {p["name"] for p in other["parameters"]}, path
        if method == "post":
            form = "application/x-www-form-urlencoded"
            derived, vendors = (x["requestBody"]["content"][form]["schema"] for x in (mine, other))
            assert shape(derived, {}) == shape(vendors, {}), path
        name = answered.removesuffix("[]")
        derived, vendors = (x["components"]["schemas"][name] for x in (ours, theirs))
        assert sorted(derived["properties"]) == sorted(vendors["properties"]), name
        assert sorted(derived["required"]) == sorted(vendors["required"]), name


# ------------------------------------------------------------------------------------------------------ what we send
async def test_a_checkout_is_asked_for_with_exactly_these_fields() -> None:
    async with connected() as (server, processor):
        await processor.create_checkout(order())
    (call,) = server.calls
    assert call.operation is not None
    metadata = {"payment_request_id": REFERENCE, "payment_request_number": "PR-0000042"}
    # No payment_method_types (gone since 2026-09-30), no application fee, and nothing that depends on the clock.
    assert call.operation.body == {
        "mode": "payment",
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": "usd",
                    "unit_amount": 12500,
                    "product_data": {"name": "Boiler repair", "description": "Parts & labour, 50 % off"},
                },
            }
        ],
        "client_reference_id": REFERENCE,
        "metadata": metadata,
        "payment_intent_data": {"metadata": metadata, "description": "PR-0000042 Boiler repair"},
        "success_url": "https://pay.example.test/p/token/return",
        "cancel_url": "https://pay.example.test/p/token",
        "customer_email": "dana+pay@example.test",
        "locale": "en",
    }
    assert call.headers["idempotency-key"] == order().idempotency_key
    assert call.headers["stripe-version"] == stripe.API_VERSION
    assert "stripe-account" not in call.headers


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [("pt_BR", "pt-BR"), ("de-AT", "de"), ("en-GB", "en-GB"), ("zh-hk", "zh-HK"), ("xx", None), ("", None)],
)
async def test_the_hosted_page_speaks_the_nearest_language(wanted: str, sent: str | None) -> None:
    async with connected() as (server, processor):
        await processor.create_checkout(order(locale=wanted))
    assert server.calls[0].operation is not None
    assert server.calls[0].operation.body.get("locale") == sent


async def test_a_500_is_not_repeated_by_the_sdk_and_burns_its_key() -> None:
    async with connected() as (server, processor):
        server.fail_next("accept_then_500")
        for _ in range(2):
            with pytest.raises(IntegrationError) as failed:
                await processor.create_checkout(order())
            assert (failed.value.reason, failed.value.retryable, failed.value.ambiguous) == (
                "server_error",
                False,
                True,
            )
        assert len(server.calls) == 2
        assert len(server.sessions) == 1
        made = await processor.create_checkout(order(idempotency_key="pr_1:2"))
    assert made.status is CheckoutStatus.OPEN
    assert len(server.sessions) == 2


async def test_only_what_is_not_open_is_read_after_an_expiry() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        await processor.expire_checkout(made.external_id)
        assert len(server.calls) == 2
        await processor.expire_checkout(made.external_id)
    assert [call.method for call in server.calls] == ["POST", "POST", "POST", "GET"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"amount_minor": 49}, "amount_too_small"),
        ({"amount_minor": 100_000_000}, "amount_too_large"),
        ({"currency": "KWD", "amount_minor": 5124}, "invalid_request"),
    ],
)
async def test_an_amount_that_stripe_does_not_take_is_refused_by_name(changes: dict[str, Any], reason: str) -> None:
    async with connected() as (server, processor):
        with pytest.raises(IntegrationError) as refused:
            await processor.create_checkout(order(**changes))
    assert (refused.value.reason, refused.value.retryable, refused.value.ambiguous) == (reason, False, False)
    assert server.sessions == {}


# ---------------------------------------------------------------------------------------------------------- accounts
async def test_a_connected_account_is_named_on_every_call_and_owns_what_it_makes() -> None:
    async with connected(account=stripe_server.CONNECTED_ID) as (server, processor):
        assert await processor.check() == stripe_server.CONNECTED_ID
        made = await processor.create_checkout(order())
        event = server.pay(made.external_id)
        received = receive(processor, server.webhook(event))
        assert {call.headers["stripe-account"] for call in server.calls} == {stripe_server.CONNECTED_ID}
        assert (received.vendor_account, received.decides) == (stripe_server.CONNECTED_ID, True)

        platform = stripe.Stripe(
            stripe.Credentials(stripe_server.SECRET_KEY, SECRET),
            environment=Environment(public_url="", sandbox_url="", base_addresses={"stripe": server.url}),
        )
        with pytest.raises(IntegrationError) as hidden:
            await platform.read_checkout(made.external_id)
        assert hidden.value.reason == "not_found"
        other_account = receive(platform, server.webhook(event))
        await platform.aclose()
    assert (
        other_account.vendor_account,
        other_account.decides,
        tuple(other_account.money),
        other_account.checkout_external_id,
    ) == (
        stripe_server.CONNECTED_ID,
        False,
        (),
        None,
    )


@pytest.mark.parametrize("account", ["connected", "12", "acct_", "acct_1/refunds"])
def test_what_is_no_connect_account_is_refused(account: str) -> None:
    environment = Environment(public_url="", sandbox_url="")
    with pytest.raises(IntegrationError) as refused:
        stripe.Stripe(stripe.Credentials("sk_test_1", account=account), environment=environment)
    assert (refused.value.reason, refused.value.retryable) == ("credentials_invalid", False)


# --------------------------------------------------------------------------------------------------------- registering
async def test_the_endpoint_is_made_with_our_events_and_version_and_its_secret_verifies() -> None:
    async with connected(secret="") as (server, processor):
        made = await processor.register_webhook()
        assert made is not None
        sent = next(c for c in server.calls if c.method == "POST").operation
        assert sent is not None
        assert sent.body == {
            "url": WEBHOOK_URL,
            "enabled_events": sorted(stripe.EVENTS),
            "api_version": stripe.API_VERSION,
            "description": "Paythread",
        }
        (endpoint,) = server.endpoints.values()
        assert made == {"webhook_secret": endpoint["secret"], "webhook_endpoint_id": endpoint["id"]}
        environment = Environment(public_url="", sandbox_url="", base_addresses={"stripe": server.url})
        again = stripe.Stripe(
            stripe.Credentials(stripe_server.SECRET_KEY, **made), environment=environment, webhook_url=WEBHOOK_URL
        )
        checkout = await again.create_checkout(order())
        event = server.pay(checkout.external_id)
        assert receive(again, server.webhook(event, made["webhook_secret"])).decides
        await again.unregister_webhook()
        await again.unregister_webhook()  # gone is gone
        await again.aclose()
        assert (server.endpoints, server.violations) == ({}, [])


async def test_an_endpoint_of_the_same_address_is_replaced_and_no_other_is_touched() -> None:
    async with connected() as (server, processor):
        first = await processor.register_webhook()
        old = server.endpoints.pop(first["webhook_endpoint_id"] if first else "")
        others = {f"we_o{n}": old | {"id": f"we_o{n}", "url": f"https://shop.example.test/{n}"} for n in range(120)}
        server.endpoints |= {old["id"]: old} | others  # the one of our address on the second page
        second = await processor.register_webhook()
        assert first is not None
        assert second is not None
        assert second["webhook_endpoint_id"] != first["webhook_endpoint_id"]
        assert second["webhook_secret"] != first["webhook_secret"]
        assert set(server.endpoints) == {*others, second["webhook_endpoint_id"]}
        # The old one stays if it can't be deleted: the new secret is worth more.
        server.fail_next("before_500", match=lambda call: call.method == "DELETE")
        third = await processor.register_webhook()
        assert third is not None
        assert {second["webhook_endpoint_id"], third["webhook_endpoint_id"]} < set(server.endpoints)
        await processor.unregister_webhook()  # this connection knows of no endpoint that it made
        assert len(server.endpoints) == 122


async def test_what_may_not_be_registered_is_left_to_a_person() -> None:
    async with connected(key=stripe_server.RESTRICTED_KEY) as (server, processor):
        assert await processor.register_webhook() is None
    assert server.endpoints == {}
    async with connected() as (server, processor):
        server.takes_address = False
        assert await processor.register_webhook() is None
        server.takes_address = True
        server.fail_next("drop", match=lambda call: call.method == "POST")
        with pytest.raises(IntegrationError) as lost:
            await processor.register_webhook()
        assert lost.value.ambiguous
        assert await processor.register_webhook() is not None
    assert len(server.endpoints) == 1  # what the lost answer had made is replaced


async def test_with_a_connect_account_the_platform_owns_the_endpoint() -> None:
    async with connected(account=stripe_server.CONNECTED_ID) as (server, processor):
        made = await processor.register_webhook()
        (endpoint,) = server.endpoints.values()
        assert made is not None
        assert (endpoint["_account"], endpoint["_connect"]) == (stripe_server.ACCOUNT_ID, True)
        assert {call.headers.get("stripe-account") for call in server.calls} == {None}


async def test_a_key_without_the_right_to_read_balances_loses_only_the_fee() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(made.external_id)
        (full,) = (await processor.read_checkout(made.external_id)).money
        environment = Environment(public_url="", sandbox_url="", base_addresses={"stripe": server.url})
        restricted = stripe.Stripe(stripe.Credentials(stripe_server.RESTRICTED_KEY), environment=environment)
        (less,) = (await restricted.read_checkout(made.external_id)).money
        await restricted.aclose()
    assert (full.fee_minor, full.method_summary) == (392, "Visa •••• 4242")
    assert (less.fee_minor, less.method_summary, less.amount_minor) == (None, "Visa •••• 4242", 12500)


# ------------------------------------------------------------------------------------------------------------- events
async def test_two_event_types_tell_of_one_money() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(made.external_id)
        received = [receive(processor, server.webhook(event)) for event in server.events]
    assert [t.type for t in received] == ["payment_intent.succeeded", "checkout.session.completed"]
    assert len({t.money[0].external_id for t in received}) == 1
    assert [t.checkout_external_id for t in received] == [None, made.external_id]
    assert {t.request_reference for t in received} == {REFERENCE}


async def test_a_decline_tells_the_team_why() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        received = receive(processor, server.webhook(server.decline(made.external_id)))
        (read,) = (await processor.read_checkout(made.external_id)).money
    (money,) = received.money
    for one in (money, read):
        assert (one.outcome, one.failure_code) == (MoneyOutcome.FAILED, "insufficient_funds")
        # Our sentence for the team, not Stripe's for the payer.
        assert one.failure_message == "The bank declined the payment: insufficient funds."
    assert (received.checkout_status, received.decides) == (None, True)


async def test_each_decline_is_named_by_its_own_charge_by_webhooks_and_reads_alike() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        seen = []
        for code in ("insufficient_funds", "expired_card"):
            received = receive(processor, server.webhook(server.decline(made.external_id, decline_code=code)))
            read = await processor.read_checkout(made.external_id)
            (listed,) = await processor.list_checkouts(datetime(2020, 1, 1, tzinfo=UTC))
            seen.append([(one.money[0].external_id, one.money[0].failure_code) for one in (received, read, listed)])
        charges = list(server.charges)
        server.pay(made.external_id)
        (paid,) = (await processor.read_checkout(made.external_id)).money
    assert seen == [[(charges[0], "insufficient_funds")] * 3, [(charges[1], "expired_card")] * 3]
    assert (paid.outcome, paid.external_id) == (MoneyOutcome.SUCCEEDED, next(iter(server.intents)))


async def test_an_expired_session_tells_its_last_decline_and_no_other_money() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        (declined,) = receive(processor, server.webhook(server.decline(made.external_id))).money
        server.expire(made.external_id)
        server.intents[next(iter(server.intents))]["status"] = "canceled"  # as Stripe does with the session's
        read = await processor.read_checkout(made.external_id)
    assert (read.status, [(m.external_id, m.outcome) for m in read.money]) == (
        CheckoutStatus.EXPIRED,
        [(declined.external_id, MoneyOutcome.FAILED)],
    )


async def test_an_attempt_that_came_to_no_charge_does_not_take_the_name_of_the_one_before() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        (declined,) = receive(processor, server.webhook(server.decline(made.external_id))).money
        ((intent_id, intent),) = server.intents.items()
        intent["last_payment_error"] = {
            "type": "invalid_request_error",
            "code": "payment_intent_authentication_failure",
            "payment_method": (method := server.payment_method("card")),
        }
        received = receive(processor, server.webhook(server.event("payment_intent.payment_failed", intent)))
        read = await processor.read_checkout(made.external_id)
    assert declined.external_id == intent["latest_charge"]
    for one in (received.money[0], read.money[0]):
        assert (one.external_id, one.failure_code, one.method_summary) == (
            f"{intent_id}.{method['id']}",
            "payment_intent_authentication_failure",
            None,
        )


async def test_a_bank_debit_keeps_its_name_from_pending_to_failed() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        received = [receive(processor, server.webhook(server.pay_async(made.external_id)))]
        server.async_fail(made.external_id)
        received += [receive(processor, server.webhook(event)) for event in server.events[-2:]]
        read = await processor.read_checkout(made.external_id)
        (intent_id,) = server.intents
    assert [(t.money[0].external_id, t.money[0].outcome) for t in received] == [
        (intent_id, MoneyOutcome.PENDING),
        (intent_id, MoneyOutcome.FAILED),
        (intent_id, MoneyOutcome.FAILED),
    ]
    assert [(m.external_id, m.outcome) for m in read.money] == [(intent_id, MoneyOutcome.FAILED)]


async def test_refunds_and_disputes_name_the_charge_that_they_concern() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        (charge,) = receive(processor, server.webhook(server.pay(made.external_id))).money
        (refund,) = receive(processor, server.webhook(server.refund(made.external_id, amount=500))).money
        (pending,) = receive(
            processor, server.webhook(server.refund(made.external_id, amount=100, status="pending"))
        ).money
        disputes = [
            receive(processor, server.webhook(server.dispute(made.external_id, status=status))).money[0]
            for status in ("needs_response", "under_review", "won", "lost", "warning_closed")
        ]
    assert (refund.kind, refund.outcome, refund.amount_minor) == (MoneyKind.REFUND, MoneyOutcome.SUCCEEDED, 500)
    assert (pending.outcome, pending.amount_minor) == (MoneyOutcome.PENDING, 100)
    assert [d.outcome for d in disputes] == [
        MoneyOutcome.PENDING,
        MoneyOutcome.PENDING,
        MoneyOutcome.FAILED,
        MoneyOutcome.SUCCEEDED,
        MoneyOutcome.CANCELED,
    ]
    assert {d.kind for d in disputes} == {MoneyKind.DISPUTE}
    assert len({d.external_id for d in disputes}) == 1
    assert {m.charge_external_id for m in (refund, pending, *disputes)} == {charge.external_id}


async def test_a_rate_limit_says_how_long_to_wait() -> None:
    async with connected() as (server, processor):
        server.fail_next("rate_limit", match=lambda call: call.method == "POST" and "token" not in call.path)
        with pytest.raises(IntegrationError) as busy:
            await processor.create_checkout(order())
        assert (busy.value.reason, busy.value.retryable, busy.value.retry_after_s) == ("rate_limited", True, 7.0)
        assert (await processor.create_checkout(order())).status is CheckoutStatus.OPEN


async def test_a_running_total_of_refunds_is_only_a_hint_to_read() -> None:
    (event,) = [e for e in stripe_server.small_events()["events"] if e["id"] == "evt_1PayRequest0008"]
    async with connected() as (server, processor):
        received = receive(processor, server.webhook(event))
        pending = event | {"data": {"object": event["data"]["object"] | {"payment_intent": None}}}
        odd = receive(processor, server.webhook(pending))
    (money,) = received.money
    assert (received.decides, received.request_reference, money.kind) == (False, "pr_0001", MoneyKind.CHARGE)
    assert (odd.decides, tuple(odd.money)) == (False, ())  # a charge without an intent is none of ours


async def test_a_dispute_says_why_and_until_when_it_can_be_answered() -> None:
    due = datetime(2026, 12, 7, 23, 59, tzinfo=UTC)
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(made.external_id)
        (opened,) = receive(processor, server.webhook(server.dispute(made.external_id, due_by=due))).money
        never = server.dispute(made.external_id)
        never["data"]["object"]["evidence_details"]["due_by"] = 0  # this bank takes no answer
        (mute,) = receive(processor, server.webhook(never)).money
        (lost,) = receive(processor, server.webhook(server.dispute(made.external_id, status="lost", due_by=due))).money
    assert (opened.response_due_at, opened.dispute_reason, opened.failure_code) == (due, "fraudulent", None)
    assert (mute.response_due_at, lost.response_due_at, lost.dispute_reason) == (None, None, "fraudulent")


@pytest.mark.parametrize(
    ("status", "inquiry", "outcome"),
    [
        ("warning_needs_response", True, MoneyOutcome.PENDING),
        ("warning_under_review", True, MoneyOutcome.PENDING),
        ("warning_closed", True, MoneyOutcome.CANCELED),
        ("needs_response", False, MoneyOutcome.PENDING),
        ("under_review", False, MoneyOutcome.PENDING),
        ("lost", False, MoneyOutcome.SUCCEEDED),
    ],
)
async def test_an_inquiry_is_told_from_a_dispute(status: str, inquiry: bool, outcome: MoneyOutcome) -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(made.external_id)
        (money,) = receive(processor, server.webhook(server.dispute(made.external_id, status=status))).money
    assert (money.inquiry, money.outcome) == (inquiry, outcome)


async def test_a_refund_says_its_reason_in_stripes_words_or_not_at_all() -> None:
    words = {
        RefundReason.DUPLICATE: "duplicate",
        RefundReason.FRAUDULENT: "fraudulent",
        RefundReason.REQUESTED_BY_CONTACT: "requested_by_customer",
        RefundReason.SERVICE_PROBLEM: None,
        RefundReason.OTHER: None,
        None: None,
    }
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        (charge,) = receive(processor, server.webhook(server.pay(made.external_id))).money
        for reason, word in words.items():
            refund = await processor.refund(refund_order(charge.external_id, 100, reason=reason))
            sent = server.calls[-1].operation
            assert sent is not None
            assert sent.body.get("reason") == word
            assert sent.body["metadata"] == {"payment_request_id": REFERENCE}
            assert server.calls[-1].headers["idempotency-key"] == f"{REFERENCE}:refund:{reason}"
            assert (refund.charge_external_id, refund.request_reference) == (charge.external_id, REFERENCE)
            assert (refund.kind, refund.outcome) == (MoneyKind.REFUND, MoneyOutcome.SUCCEEDED)
        assert server.violations == []


@pytest.mark.parametrize(("currency", "ours", "theirs"), [("ISK", 300, 30000), ("MGA", 300, 3), ("JPY", 300, 300)])
async def test_a_refund_is_made_and_read_in_stripes_units(currency: str, ours: int, theirs: int) -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order(currency=currency, amount_minor=50_000))
        (charge,) = receive(processor, server.webhook(server.pay(made.external_id))).money
        wanted = dataclasses.replace(refund_order(charge.external_id, ours), currency=currency)
        refund = await processor.refund(wanted)
        assert server.refunds[refund.external_id]["amount"] == theirs
    assert (refund.amount_minor, refund.currency, charge.amount_minor) == (ours, currency, 50_000)


async def test_a_refund_that_failed_later_is_read_as_failed() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        (charge,) = receive(processor, server.webhook(server.pay(made.external_id))).money
        refund = await processor.refund(refund_order(charge.external_id, 100))
        server.refunds[refund.external_id] |= {"status": "failed", "failure_reason": "expired_or_canceled_card"}
        read = await processor.read_refund(refund.external_id)
    assert (read.outcome, read.failure_code) == (MoneyOutcome.FAILED, "expired_or_canceled_card")
    assert read.failure_message == "The card has expired or was canceled."


async def test_every_refund_of_a_charge_is_read_page_by_page_failed_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(made.external_id)
        for n in range(123):
            server.refund(made.external_id, amount=1 + n, status="failed" if n % 50 == 0 else "succeeded")
        read = await processor.read_checkout(made.external_id)
        charge, *refunds = read.money
        assert (charge.kind, {r.charge_external_id for r in refunds}) == (MoneyKind.CHARGE, {charge.external_id})
        assert sorted(r.amount_minor for r in refunds) == list(range(1, 124))
        assert [r.amount_minor for r in refunds if r.outcome is MoneyOutcome.FAILED] == [101, 51, 1]
        asked = [call for call in server.calls if call.path == "/v1/refunds"]
        assert len(asked) == 2  # the newest ten came with the session
        # The bound is named, and logged where it cuts.
        monkeypatch.setattr(stripe, "REFUND_PAGES", 1)
        with structlog.testing.capture_logs() as logs:
            assert len((await processor.read_checkout(made.external_id)).money) == 1 + 10 + 100
        assert [(log["event"], log["pages"]) for log in logs] == [("stripe_refund_list_cut", 1)]
        assert server.violations == []


async def test_a_session_without_a_charge_is_read_with_every_expansion() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.take_voucher(made.external_id)
        read = await processor.read_checkout(made.external_id)
    assert (read.status, [m.outcome for m in read.money]) == (CheckoutStatus.PROCESSING, [MoneyOutcome.PENDING])


@pytest.mark.parametrize(
    ("kind", "method", "ends"), [("oxxo", "OXXO", True), ("boleto", "Boleto", True), ("customer_balance", None, False)]
)
async def test_a_voucher_is_a_delay_until_its_last_day(kind: str, method: str | None, ends: bool) -> None:
    until = datetime(2026, 12, 3, 12, tzinfo=UTC)
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        assert (made.delay, (await processor.read_checkout(made.external_id)).delay) == (None, None)
        received = receive(processor, server.webhook(server.take_voucher(made.external_id, kind=kind, until=until)))
        assert (received.decides, received.checkout_status) == (True, CheckoutStatus.PROCESSING)
        assert received.delay == Delay()  # the event does not say more
        read = await processor.read_checkout(made.external_id)
        assert read.delay == Delay(method=method, until=until if ends else None)
        # Stripe's reference: an intent of a session is not canceled, so it goes on.
        kept = await processor.cancel_delayed(made.external_id)
        assert (kept.status, kept.delay) == (CheckoutStatus.PROCESSING, read.delay)
        server.cancels_intents = True
        over = await processor.cancel_delayed(made.external_id)
        assert (over.status, [m.outcome for m in over.money], over.delay) == (
            CheckoutStatus.FAILED,
            [MoneyOutcome.CANCELED],
            None,
        )
        assert (await processor.cancel_delayed(made.external_id)) == over
        assert server.violations == []


async def test_a_debit_under_way_is_never_canceled() -> None:
    async with connected() as (server, processor):
        server.cancels_intents = True
        made = await processor.create_checkout(order())
        server.pay_async(made.external_id)
        kept = await processor.cancel_delayed(made.external_id)
        assert (kept.status, kept.delay) == (CheckoutStatus.PROCESSING, Delay(method="SEPA Direct Debit"))
        paid = await processor.create_checkout(order(idempotency_key="card"))
        server.pay(paid.external_id)
        assert (await processor.cancel_delayed(paid.external_id)).status is CheckoutStatus.COMPLETED
        assert not [call for call in server.calls if call.path.endswith("/cancel")]


async def test_a_session_that_needed_no_payment_has_ended() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        session = server.sessions[made.external_id]
        session |= {"status": "complete", "payment_status": "no_payment_required", "url": None}
        read = await processor.read_checkout(made.external_id)
        received = receive(processor, server.webhook(server.event("checkout.session.completed", session)))
    assert (read.status, tuple(read.money)) == (CheckoutStatus.EXPIRED, ())
    assert (received.checkout_status, tuple(received.money)) == (CheckoutStatus.EXPIRED, ())


async def test_an_event_that_is_none_of_ours_is_understood_and_ignored() -> None:
    async with connected() as (server, processor):
        event = {
            "id": "evt_x",
            "object": "event",
            "type": "customer.created",
            "created": 1795392001,
            "data": {"object": {}},
        }
        received = receive(processor, server.webhook(event))
        with pytest.raises(PayloadInvalid):
            receive(processor, server.webhook(event | {"object": "v2.core.event"}))
    assert (received.external_id, received.type, received.decides, tuple(received.money)) == (
        "evt_x",
        "customer.created",
        False,
        (),
    )
    assert received.created_at == datetime.fromtimestamp(1795392001, UTC)


async def test_of_several_signatures_one_may_fit() -> None:
    async with connected(secret=f"whsec_old, {SECRET}") as (server, processor):
        body, headers = server.webhook(server.pay((await processor.create_checkout(order())).external_id))
        stamp, good = headers["stripe-signature"].split(",")
        old = stripe_server.sign(body, "whsec_gone", int(stamp[2:])).split(",")[1]
        for value in (f"{stamp},{old},{good}", f"{stamp},{good},v0=ignored"):
            assert receive(processor, (body, {"stripe-signature": value})).decides


@pytest.mark.slow
async def test_checkouts_come_page_by_page_and_oldest_first_and_only_ours() -> None:
    clock = datetime(2026, 11, 23, 12, tzinfo=UTC)
    async with connected() as (server, processor):
        server.now = lambda: clock
        made = []
        for n in range(130):
            made.append(await processor.create_checkout(order(idempotency_key=f"k{n}", locale=None)))
            clock += timedelta(seconds=1)
        ids = [checkout.external_id for checkout in made]
        server.pay(ids[10])
        server.pay_async(ids[11])
        server.async_fail(ids[11])
        server.expire(ids[12])
        other_program = server.sessions[ids[20]]
        other_program |= {
            "metadata": {"cart": "7"},
            "mode": "subscription",
            "status": "complete",
            "payment_status": "paid",
        }
        since = datetime(2026, 11, 23, 12, 0, 5, tzinfo=UTC)
        calls = len(server.calls)
        listed = await processor.list_checkouts(since)
        calls = len(server.calls) - calls
        read = await processor.read_checkout(ids[10])
    assert [one.external_id for one in listed] == [one for n, one in enumerate(ids) if n >= 5 and n != 20]
    by_id = {one.external_id: one for one in listed}
    assert [by_id[ids[n]].status for n in (9, 10, 11, 12)] == [
        CheckoutStatus.OPEN,
        CheckoutStatus.COMPLETED,
        CheckoutStatus.FAILED,
        CheckoutStatus.EXPIRED,
    ]
    (money,) = by_id[ids[10]].money
    assert (money.external_id, money.amount_minor, money.outcome) == (
        read.money[0].external_id,
        12500,
        MoneyOutcome.SUCCEEDED,
    )
    assert (calls, {one.request_reference for one in listed}, by_id[ids[9]].url) == (2, {REFERENCE}, made[9].url)


async def test_undelivered_events_come_page_by_page_and_oldest_first() -> None:
    clock = datetime(2026, 11, 23, 12, tzinfo=UTC)
    async with connected() as (server, processor):
        server.now = lambda: clock
        made = await processor.create_checkout(order())
        for _ in range(130):
            clock += timedelta(seconds=1)
            server.decline(made.external_id)
        old, delivered = server.events[3], server.events[7]
        server.mark_delivered(delivered["id"])
        del server.events[20]["data"]["object"]["currency"]  # an unreadable one hides no others
        since = datetime.fromtimestamp(old["created"], UTC)
        listed = await processor.list_events(since)
        calls = [call for call in server.calls if call.path == "/v1/events"]
    expected = [e["id"] for i, e in enumerate(server.events) if i >= 3 and i not in (7, 20)]
    assert [event.external_id for event in listed] == expected
    assert len(calls) == 2
    assert json.loads(listed[0].raw)["id"] == old["id"]
    assert processor.parse(listed[0].raw).money == listed[0].money


def expected_of_fixtures() -> list[tuple[str, CheckoutStatus | None, str | None, MoneyOutcome | None, int | None]]:
    succeeded, failed, pending = MoneyOutcome.SUCCEEDED, MoneyOutcome.FAILED, MoneyOutcome.PENDING
    done, money = CheckoutStatus.COMPLETED, "pi_3PayRequest0001"
    return [
        ("checkout.session.completed", done, money, succeeded, 2500),
        ("checkout.session.completed", CheckoutStatus.PROCESSING, money, pending, 2500),
        ("checkout.session.async_payment_succeeded", done, money, succeeded, 2500),
        ("checkout.session.async_payment_failed", CheckoutStatus.FAILED, money, failed, 2500),
        ("checkout.session.expired", CheckoutStatus.EXPIRED, None, None, None),
        ("payment_intent.succeeded", None, money, succeeded, 2500),
        ("payment_intent.payment_failed", None, "ch_3PayRequest0001", failed, 2500),
        ("charge.refunded", None, money, succeeded, 2500),
        ("charge.refunded", None, money, succeeded, 2500),
        ("refund.created", None, "re_3PayRequest0001", succeeded, 1000),
        ("charge.dispute.created", None, "dp_1PayRequest0001", pending, 2500),
        ("charge.dispute.closed", None, "dp_1PayRequest0001", succeeded, 2500),
        ("checkout.session.completed", None, None, None, None),  # of a Connect account that is not ours
    ]


async def test_the_vendors_example_events_mean_what_they_should() -> None:
    async with connected() as (server, processor):
        for file in filter(None, (stripe_server.small_events(), vendor_file(stripe_server.EVENTS_FILE))):
            seen = []
            for event in file["events"]:
                received = receive(processor, server.webhook(event))
                money = received.money[0] if received.money else None
                seen.append(
                    (
                        received.type,
                        received.checkout_status,
                        money.external_id if money else None,
                        money.outcome if money else None,
                        money.amount_minor if money else None,
                    )
                )
                assert received.external_id == event["id"]
            assert seen == expected_of_fixtures()


async def test_the_vendors_example_signatures_are_accepted_in_their_time() -> None:
    file = vendor_file(stripe_server.EVENTS_FILE) or stripe_server.small_events()
    # One vector of our own, so that a bare clone has one too: HMAC-SHA256 of "1795392000.{}" with this secret.
    vectors = [(b'{"a":1}', "whsec_vector", 1795392000, stripe_server.sign(b'{"a":1}', "whsec_vector", 1795392000))]
    for one in file["signatures"]:
        body = json.dumps(file["events"][one["event_index"]], separators=(",", ":"), ensure_ascii=False).encode()
        vectors.append((body, one["secret"], one["timestamp"], one["header"]))
    for body, secret, timestamp, header in vectors:
        async with connected(secret=secret) as (_, processor):
            at = datetime.fromtimestamp(timestamp + 10, UTC)
            if body == b'{"a":1}':
                with pytest.raises(PayloadInvalid):
                    processor.receive(body, {"stripe-signature": header}, now=at)
            else:
                taken = processor.receive(body, {"stripe-signature": header}, now=at)
                assert str(taken.external_id).startswith("evt_1Pay")


# ------------------------------------------------------------------------------------------------------------- money
@pytest.mark.parametrize(
    ("currency", "ours", "theirs"),
    [
        ("USD", 12500, 12500),
        ("JPY", 500, 500),
        ("KWD", 5120, 5120),
        ("ISK", 5, 500),
        ("UGX", 1000, 100_000),
        ("MGA", 150_000, 1500),
        ("HUF", 1045, 1045),
        ("TWD", 800, 800),
    ],
)
def test_amounts_become_stripes_units_and_come_back(currency: str, ours: int, theirs: int) -> None:
    assert stripe.to_vendor(ours, currency) == theirs
    assert stripe.from_vendor(theirs, currency) == ours


def test_an_amount_between_stripes_units_is_refused() -> None:
    with pytest.raises(IntegrationError):
        stripe.to_vendor(150_050, "MGA")
    with pytest.raises(PayloadInvalid):
        stripe.from_vendor(550, "ISK")


async def test_limits_are_in_our_units() -> None:
    async with connected() as (_, processor):
        limits = {
            c: processor.amount_limits(c) for c in ("USD", "JPY", "KWD", "ISK", "MGA", "GBP", "IQD", "KPW", "XXX")
        }
    assert limits == {
        "USD": AmountLimits(minimum_minor=50, maximum_minor=99_999_999),
        "JPY": AmountLimits(minimum_minor=50, maximum_minor=99_999_999),
        "KWD": AmountLimits(minimum_minor=10, maximum_minor=99_999_990, step_minor=10),
        "ISK": AmountLimits(minimum_minor=1, maximum_minor=999_999),
        "MGA": AmountLimits(minimum_minor=100, maximum_minor=9_999_999_900, step_minor=100),
        "GBP": AmountLimits(minimum_minor=30, maximum_minor=99_999_999),
        "IQD": None,
        "KPW": None,
        "XXX": None,
    }


async def test_a_session_that_ran_out_reads_as_expired() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.now = lambda: datetime.now(UTC) + timedelta(hours=24, seconds=5)
        assert (await processor.read_checkout(made.external_id)).status is CheckoutStatus.EXPIRED
        assert server.events[-1]["type"] == "checkout.session.expired"


async def test_an_answer_that_is_not_stripes_is_an_integration_error() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.sessions[made.external_id]["status"] = "a new word"
        with pytest.raises(IntegrationError) as odd:
            await processor.read_checkout(made.external_id)
    assert odd.value.reason == "unexpected_answer"


async def test_only_a_platforms_own_account_is_disconnected_by_its_word() -> None:
    event = {"object": "event", "id": "evt_1", "type": "account.application.deauthorized", "created": 1795770000}
    event |= {"data": {"object": {"object": "application", "id": "ca_1"}}}
    environment = Environment(public_url="", sandbox_url="")
    made = stripe.Stripe(stripe.Credentials("sk_test_1", account="acct_1Own"), environment=environment)
    received = [
        made.parse(json.dumps(event | more).encode())
        for more in ({"account": "acct_1Own"}, {"account": "acct_1Other"}, {})
    ]
    await made.aclose()
    assert [(one.disconnected, one.vendor_account) for one in received] == [
        (True, "acct_1Own"),
        (False, "acct_1Other"),
        (False, None),
    ]
