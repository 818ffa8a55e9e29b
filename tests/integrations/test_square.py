"""Square's own facts: what Paythread sends, how a link ends, and what states, events and errors mean."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from integrations.base import (
    AmountLimits,
    CheckoutStatus,
    Delay,
    Environment,
    IntegrationError,
    MoneyKind,
    MoneyOutcome,
    ProcessorWebhook,
    RefundOrder,
    RefundReason,
    SignatureInvalid,
)
from integrations.processors import square
from tests.contracts import square_server
from tests.contracts.openapi import Contract, ContractViolation
from tests.contracts.square_server import SquareServer
from tests.integrations.test_processor_contract import REFERENCE, order

CONTRACTS = square_server.contracts()
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@asynccontextmanager
async def connected(
    contract: Contract | None = None,
    *,
    location: str = square_server.LOCATION_ID,
    webhook_url: str | None = square_server.WEBHOOK_URL,
    subscription_id: str = "",
    currency: str = "",
) -> AsyncIterator[tuple[SquareServer, square.Square]]:
    async with SquareServer(contract or square_server.our_contract()) as server:
        made = square.Square(
            square.Credentials(
                square_server.ACCESS_TOKEN, location, square_server.SIGNATURE_KEY, "test", subscription_id, currency
            ),
            environment=Environment(
                public_url="http://localhost", sandbox_url="http://localhost", base_addresses={"square": server.url}
            ),
            webhook_url=webhook_url,
        )
        try:
            yield server, made
        finally:
            await made.aclose()


def link_of(external_id: str) -> str:
    return external_id.split(".")[0]


def order_of(external_id: str) -> str:
    return external_id.split(".")[1]


def receive(processor: square.Square, delivery: tuple[bytes, dict[str, str]], *, late_s: float = 0) -> ProcessorWebhook:
    return processor.receive(*delivery, now=datetime.now(UTC) + timedelta(seconds=late_s))


def refund_order(charge: str, amount_minor: int, *, key: str = "refund:1") -> RefundOrder:
    return RefundOrder(
        idempotency_key=key,
        request_reference=REFERENCE,
        charge_external_id=charge,
        amount_minor=amount_minor,
        currency="USD",
        reason=RefundReason.SERVICE_PROBLEM,
    )


# ----------------------------------------------------------------------------------------------------------- contract
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
async def test_every_call_that_we_make_keeps_every_contract_at_hand(contract: Contract) -> None:
    async with connected(contract) as (server, processor):
        assert await processor.check() == square_server.MERCHANT_ID
        paid = await processor.create_checkout(order(idempotency_key="1"))
        assert receive(processor, server.webhook(server.pay(link_of(paid.external_id)))).money
        done = await processor.read_checkout(paid.external_id)
        refund = await processor.refund(refund_order(done.money[0].external_id, 500))
        assert receive(processor, server.webhook(server.settle_refund(refund.external_id))).decides
        assert (await processor.read_refund(refund.external_id)).outcome is MoneyOutcome.SUCCEEDED
        late = await processor.create_checkout(order(idempotency_key="2", description=None))
        assert (await processor.read_checkout(late.external_id)).url == late.url
        assert (await processor.expire_checkout(late.external_id)).status is CheckoutStatus.EXPIRED
        assert [one.external_id for one in await processor.list_checkouts(LONG_AGO)] == [paid.external_id]
        for _ in range(2):
            assert await processor.register_webhook() is not None
    assert server.violations == []
    assert set(server.operations()) == set(FIELDS)


FIELDS: dict[str, tuple[str, ...]] = {  # what we send, by operation
    "ListLocations": (),
    "CreatePaymentLink": (
        "idempotency_key",
        "order.location_id",
        "order.reference_id",
        "order.line_items.[].name",
        "order.line_items.[].quantity",
        "order.line_items.[].note",
        "order.line_items.[].base_price_money.amount",
        "checkout_options.redirect_url",
        "checkout_options.allow_tipping",
        "payment_note",
    ),
    "ListPaymentLinks": (),
    "RetrievePaymentLink": (),
    "DeletePaymentLink": (),
    "RetrieveOrder": (),
    "GetPayment": (),
    "RefundPayment": ("idempotency_key", "payment_id", "amount_money.amount", "reason"),
    "GetPaymentRefund": (),
    "ListWebhookSubscriptions": (),
    "CreateWebhookSubscription": (
        "subscription.name",
        "subscription.notification_url",
        "subscription.event_types",
        "subscription.api_version",
    ),
    "DeleteWebhookSubscription": (),
}


def operations(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {definition["operationId"]: definition for item in spec["paths"].values() for definition in item.values()}


def resolved(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in schema:
        schema = spec["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def at(spec: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    node = resolved(spec, schema)
    for step in path.split("."):
        node = resolved(spec, node["items"] if step == "[]" else node["properties"][step])
    return node


def test_our_contract_says_of_each_field_what_squares_file_says() -> None:
    ours, theirs = CONTRACTS[0].spec, CONTRACTS[-1].spec  # ours again in a bare clone
    for name, fields in FIELDS.items():
        for field in fields:
            mine, his = (
                at(spec, operations(spec)[name]["requestBody"]["content"]["application/json"]["schema"], field)
                for spec in (ours, theirs)
            )
            for word in ("type", "minLength", "maxLength"):
                if word in mine:
                    assert mine[word] == his.get(word), (name, field, word)
    for name in ("Order", "Payment", "PaymentRefund", "PaymentLink", "Location", "WebhookSubscription", "Error"):
        for field, mine in ours["components"]["schemas"][name]["properties"].items():
            other = resolved(theirs, theirs["components"]["schemas"][name]["properties"][field])
            mine = resolved(ours, mine)
            for word in ("type", "maxLength"):
                assert mine.get(word) == other.get(word), (name, field, word)
            if "enum" in mine:
                assert mine["enum"] == other["enum"], (name, field)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("idempotency_key",), "k" * 193, "idempotency_key"),
        (("order", "location_id"), None, "location_id"),
        (("order", "reference_id"), "r" * 41, "reference_id"),
        (("order", "line_items", 0, "quantity"), 1, "quantity"),
        (("order", "line_items", 0, "base_price_money", "amount"), "12500", "amount"),
        (("order", "line_items", 0, "base_price_money", "currency"), "dollars", "currency"),
    ],
)
async def test_a_wrong_field_planted_into_a_link_is_refused_by_every_contract(
    contract: Contract, path: tuple[Any, ...], value: object, word: str
) -> None:
    async with connected() as (server, processor):
        await processor.create_checkout(order())
        body = json.loads(server.calls[-1].raw_body)

    def send() -> None:
        contract.check_request(
            "POST",
            "/v2/online-checkout/payment-links",
            query="",
            content_type="application/json",
            body=json.dumps(body).encode(),
        )

    send()
    node = body
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = value
    with pytest.raises(ContractViolation, match=word):
        send()


async def test_what_a_link_sends() -> None:
    async with connected() as (server, processor):
        await processor.create_checkout(order(description="x" * 3000))
        (call,) = server.calls
    assert json.loads(call.raw_body) == {
        "idempotency_key": order().idempotency_key,
        "order": {
            "location_id": square_server.LOCATION_ID,
            "reference_id": REFERENCE,
            "line_items": [
                {
                    "name": "Boiler repair",
                    "quantity": "1",
                    "base_price_money": {"amount": 12500, "currency": "USD"},
                    "note": "x" * 2000,
                }
            ],
        },
        "checkout_options": {"redirect_url": order().success_url, "allow_tipping": False},
        "payment_note": REFERENCE,
    }
    assert call.headers["square-version"] == square.API_VERSION


async def test_the_check_wants_an_active_location_of_the_token() -> None:
    async with connected(location="L_OF_ANOTHER") as (_, processor):
        with pytest.raises(IntegrationError) as unknown:
            await processor.check()
    async with connected() as (server, processor):
        server.location["status"] = "INACTIVE"
        with pytest.raises(IntegrationError) as inactive:
            await processor.check()
    assert {unknown.value.reason, inactive.value.reason} == {"location_unknown"}


# --------------------------------------------------------------------------------------------------------- registering
async def test_our_address_is_subscribed_once_and_its_key_verifies() -> None:
    async with connected() as (server, processor):
        server.page = 2
        for n in range(3):
            server.subscriptions[f"wbhk_o{n}"] = {"id": f"wbhk_o{n}", "notification_url": f"https://shop.test/{n}"}
        first = await processor.register_webhook()
        second = await processor.register_webhook()
        assert first is not None
        assert second is not None
        made = server.subscriptions[second["webhook_subscription_id"]]
        assert len(server.subscriptions) == 4
        assert first["webhook_subscription_id"] not in server.subscriptions
        assert (made["notification_url"], made["event_types"], made["api_version"]) == (
            square_server.WEBHOOK_URL,
            sorted(square.EVENTS),
            square.API_VERSION,
        )
        again = square.Square(
            square.Credentials(square_server.ACCESS_TOKEN, square_server.LOCATION_ID, mode="test", **second),
            environment=Environment(public_url="", sandbox_url="", base_addresses={"square": server.url}),
            webhook_url=square_server.WEBHOOK_URL,
        )
        checkout = await again.create_checkout(order())
        event = server.pay(link_of(checkout.external_id))
        assert receive(again, server.webhook(event, second["webhook_signature_key"])).money
        for _ in range(2):
            await again.unregister_webhook()
        await again.aclose()
        await processor.unregister_webhook()  # it knows of none that it made
        assert (sorted(server.subscriptions), server.violations) == (["wbhk_o0", "wbhk_o1", "wbhk_o2"], [])


async def test_an_old_subscription_that_stays_does_not_cost_the_new_key() -> None:
    async with connected() as (server, processor):
        first = await processor.register_webhook()
        server.fail_next("before_500", match=lambda call: call.method == "DELETE")
        second = await processor.register_webhook()
    assert first is not None
    assert second is not None
    assert set(server.subscriptions) == {first["webhook_subscription_id"], second["webhook_subscription_id"]}


async def test_a_sellers_token_leaves_the_subscription_to_a_person() -> None:
    async with connected() as (server, processor):
        server.may_subscribe = False
        assert await processor.register_webhook() is None
    async with connected(webhook_url="http://localhost:8000/webhooks/square/prc_1") as (server, processor):
        assert await processor.register_webhook() is None
        assert server.calls == []


async def test_a_rate_limit_says_how_long_to_wait() -> None:
    async with connected() as (server, processor):
        server.fail_next("rate_limit", match=lambda call: call.method == "POST" and "token" not in call.path)
        with pytest.raises(IntegrationError) as busy:
            await processor.create_checkout(order())
        assert (busy.value.reason, busy.value.retryable, busy.value.retry_after_s) == ("rate_limited", True, 7.0)
        assert (await processor.create_checkout(order())).status is CheckoutStatus.OPEN


def test_a_mode_that_does_not_exist_is_refused() -> None:
    environment = Environment(public_url="", sandbox_url="")
    with pytest.raises(IntegrationError) as refused:
        square.Square(square.Credentials("a", "b", "c", "sandbox"), environment=environment)
    assert refused.value.reason == "credentials_invalid"
    for mode, address in (
        ("live", "https://connect.squareup.com"),
        ("test", "https://connect.squareupsandbox.com"),
    ):
        assert square.Square(square.Credentials("a", "b", "c", mode), environment=environment)._base == address


# ------------------------------------------------------------------------------------------------------ how it ends
async def test_a_link_lives_until_it_is_paid_or_deleted() -> None:
    async with connected() as (server, processor):
        server.now = lambda: datetime.now(UTC) - timedelta(days=400)
        made = await processor.create_checkout(order())
        server.now = lambda: datetime.now(UTC)
        assert await processor.read_checkout(made.external_id) == made
        assert made.expires_at is None
        server.pay(link_of(made.external_id))
        assert (await processor.read_checkout(made.external_id)).status is CheckoutStatus.COMPLETED


async def test_links_with_our_note_are_listed_by_page_and_oldest_first() -> None:
    clock = datetime(2026, 11, 23, 12, tzinfo=UTC)
    async with connected() as (server, processor):
        server.now, server.page = (lambda: clock), 3
        made = []
        for n in range(8):
            made.append(await processor.create_checkout(order(idempotency_key=f"k{n}")))
            clock += timedelta(minutes=1)
        link = {n: link_of(checkout.external_id) for n, checkout in enumerate(made)}
        server.links[link[5]]["payment_note"] = "table 4, no onions"
        del server.links[link[6]]["payment_note"]
        await processor.expire_checkout(made[7].external_id)
        server.links = dict(reversed(server.links.items()))
        listed = await processor.list_checkouts(datetime(2026, 11, 23, 12, 2, tzinfo=UTC))
        assert server.violations == []
        del server.links[link[4]]["created_at"]
        with pytest.raises(IntegrationError) as odd:
            await processor.list_checkouts(LONG_AGO)
    assert [one.external_id for one in listed] == [made[n].external_id for n in (2, 3, 4)]
    assert {(one.status, one.request_reference, one.url is not None) for one in listed} == {
        (CheckoutStatus.OPEN, REFERENCE, True)
    }
    assert odd.value.reason == "unexpected_answer"


async def test_a_deleted_link_is_not_over_before_its_order_is_canceled() -> None:
    async with connected() as (server, processor):
        server.cancels = False
        made = await processor.create_checkout(order())
        states = [await processor.expire_checkout(made.external_id) for _ in range(2)]
        assert {(s.status, s.url) for s in states} == {(CheckoutStatus.OPEN, None)}
        server.orders[order_of(made.external_id)]["state"] = "CANCELED"
        over = await processor.expire_checkout(made.external_id)
    assert (over.status, over.request_reference) == (CheckoutStatus.EXPIRED, REFERENCE)


async def test_a_payment_that_was_first_wins_against_the_deletion() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(link_of(made.external_id))
        closed = await processor.expire_checkout(made.external_id)
        assert server.links == {}
    (money,) = closed.money
    assert (closed.status, money.outcome, money.amount_minor) == (
        CheckoutStatus.COMPLETED,
        MoneyOutcome.SUCCEEDED,
        12500,
    )
    assert (money.fee_minor, money.method_summary) == (392, "Visa •••• 4242")
    assert (money.checkout_external_id, money.request_reference) == (made.external_id, REFERENCE)


async def test_a_link_that_square_will_not_delete_is_told_by_its_order() -> None:
    class Keeping(SquareServer):
        def _delete(self, link_id: str) -> Any:
            raise square_server.SquareError(400, "BAD_REQUEST")

    async with Keeping(square_server.our_contract()) as server:
        environment = Environment(public_url="", sandbox_url="", base_addresses={"square": server.url})
        credentials = square.Credentials(square_server.ACCESS_TOKEN, square_server.LOCATION_ID)
        processor = square.Square(credentials, environment=environment)
        open_, paid = [await processor.create_checkout(order(idempotency_key=key)) for key in "12"]
        server.pay(link_of(paid.external_id))
        states = [(await processor.expire_checkout(one.external_id)).status for one in (open_, paid)]
        await processor.aclose()
    assert states == [CheckoutStatus.OPEN, CheckoutStatus.COMPLETED]


@pytest.mark.parametrize(("status", "outcome"), [("FAILED", MoneyOutcome.FAILED), ("CANCELED", MoneyOutcome.CANCELED)])
async def test_money_that_did_not_arrive_closes_the_link_so_that_failed_stays_true(
    status: str, outcome: MoneyOutcome
) -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(link_of(made.external_id), status="APPROVED")
        under_way = await processor.read_checkout(made.external_id)
        server.settle(order_of(made.external_id), status=status)
        states = [await processor.read_checkout(made.external_id) for _ in range(2)]
        assert server.links == {}
    assert (under_way.status, under_way.money[0].outcome) == (CheckoutStatus.PROCESSING, MoneyOutcome.PENDING)
    assert [(s.status, s.url, s.money[0].outcome) for s in states] == [(CheckoutStatus.FAILED, None, outcome)] * 2


async def test_a_refund_of_no_payment_is_understood_and_ignored() -> None:
    async with connected() as (server, processor):
        body, _ = server.webhook(server.refund_unlinked(500))
        received = processor.parse(body)
    assert (received.type, received.decides, tuple(received.money)) == ("refund.created", False, ())


@pytest.mark.parametrize(
    ("source", "status", "delay"),
    [("BANK_ACCOUNT", "PENDING", Delay(method="ACH")), ("CARD", "APPROVED", None), ("WALLET", "PENDING", None)],
)
async def test_a_bank_payment_under_way_is_a_delay(source: str, status: str, delay: Delay | None) -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(link_of(made.external_id), status=status)
        server.payment_of(order_of(made.external_id))["source_type"] = source
        read = await processor.read_checkout(made.external_id)
        assert (read.status, read.delay) == (CheckoutStatus.PROCESSING, delay)
        kept = await processor.cancel_delayed(made.external_id)
        assert (kept.status, kept.delay) == (CheckoutStatus.PROCESSING, delay)
        server.settle(order_of(made.external_id))
        assert (await processor.read_checkout(made.external_id)).delay is None


async def test_money_of_another_amount_is_told_as_it_came() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(link_of(made.external_id), amount=12499)
        (money,) = (await processor.read_checkout(made.external_id)).money
    assert (money.amount_minor, money.outcome) == (12499, MoneyOutcome.SUCCEEDED)


async def test_an_order_that_is_paid_in_part_stays_open_for_the_rest_until_its_link_is_gone() -> None:
    async with connected() as (server, processor):
        split, cut = [await processor.create_checkout(order(idempotency_key=key)) for key in ("split", "cut")]
        for made in (split, cut):
            server.pay_part(link_of(made.external_id), 5000, gift_card=True)
        part = await processor.read_checkout(split.external_id)
        server.pay_part(link_of(split.external_id), 7500)
        whole = await processor.read_checkout(split.external_id)
        ended = [await processor.expire_checkout(cut.external_id), await processor.read_checkout(cut.external_id)]
    assert (part.status, part.url, [m.amount_minor for m in part.money]) == (CheckoutStatus.OPEN, split.url, [5000])
    assert (whole.status, whole.url) == (CheckoutStatus.COMPLETED, None)
    assert [(m.amount_minor, m.method_summary) for m in whole.money] == [
        (5000, "Square Gift Card •••• 0018"),
        (7500, "Visa •••• 4242"),
    ]
    assert [(one.status, one.url, len(one.money)) for one in ended] == [(CheckoutStatus.COMPLETED, None, 1)] * 2


async def test_a_rest_that_did_not_arrive_ends_the_order_with_its_part() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay_part(link_of(made.external_id), 5000, gift_card=True)
        server.pay_part(link_of(made.external_id), 7500, status="APPROVED")
        under_way = await processor.read_checkout(made.external_id)
        server.settle(order_of(made.external_id), status="FAILED")
        ended = await processor.read_checkout(made.external_id)
        assert server.links == {}
    assert (under_way.status, ended.status) == (CheckoutStatus.PROCESSING, CheckoutStatus.COMPLETED)
    assert [m.outcome for m in ended.money] == [MoneyOutcome.SUCCEEDED, MoneyOutcome.FAILED]


async def test_an_order_of_an_unknown_state_is_an_integration_error() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.orders[order_of(made.external_id)]["state"] = "COMPLETED"  # without any tender
        with pytest.raises(IntegrationError) as odd:
            await processor.read_checkout(made.external_id)
    assert (odd.value.reason, odd.value.ambiguous) == ("unexpected_answer", False)


@pytest.mark.parametrize("external_id", ["", "x", ".", "x.", ".x", "../a.b", "a.b/c", "a.b.c", "a b.c", "é.x"])
async def test_an_id_of_another_form_reaches_no_address(external_id: str) -> None:
    async with connected() as (server, processor):
        for call in (processor.read_checkout(external_id), processor.expire_checkout(external_id)):
            with pytest.raises(IntegrationError) as refused:
                await call
            assert refused.value.reason == "not_found"
        assert server.calls == []


# ----------------------------------------------------------------------------------------------------------- webhooks
async def test_an_event_names_the_merchant_and_finds_the_request_by_the_note() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        received = receive(processor, server.webhook(server.pay(link_of(made.external_id))))
        other_program = server.payment_event(received.money[0].external_id)
        other_program["data"]["object"]["payment"]["note"] = "table 4, no onions"
        other = receive(processor, server.webhook(other_program))
    assert (received.vendor_account, received.request_reference, received.decides) == (
        square_server.MERCHANT_ID,
        REFERENCE,
        False,
    )
    assert (other.request_reference, other.money[0].request_reference) == (None, None)


async def test_the_signature_holds_for_our_address_only() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        body, headers = server.webhook(server.pay(link_of(made.external_id)))
        assert receive(processor, (body, headers)).money
        name = square.SIGNATURE_HEADER
        for url in (square_server.WEBHOOK_URL + "/", "https://attacker.test/webhooks/square/prc_1", ""):
            with pytest.raises(SignatureInvalid):
                receive(processor, (body, {name: square_server.sign(body, url=url)}))
    async with connected(webhook_url=None) as (_, nowhere):
        with pytest.raises(SignatureInvalid) as refused:
            receive(nowhere, (body, {name: square_server.sign(body, url="")}))
    assert refused.value.reason == "no_webhook_secret"


async def test_an_event_of_the_future_is_refused_and_an_old_one_only_hints() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(link_of(made.external_id))
        payment = server.payment_of(order_of(made.external_id))
        refund = server.refund_now(payment["id"], 500)
        delivery = server.webhook(server.settle_refund(refund["id"]))
        fresh = receive(processor, delivery)
        assert fresh.decides
        for late_s in (310, 3600, 3 * 24 * 3600):
            assert receive(processor, delivery, late_s=late_s) == dataclasses.replace(fresh, decides=False)
        for late_s in (-310, 5 * 24 * 3600):
            with pytest.raises(SignatureInvalid):
                receive(processor, delivery, late_s=late_s)


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        ("PENDING", MoneyOutcome.PENDING),
        ("COMPLETED", MoneyOutcome.SUCCEEDED),
        ("REJECTED", MoneyOutcome.FAILED),
        ("FAILED", MoneyOutcome.FAILED),
    ],
)
async def test_a_refund_is_told_alike_by_event_and_by_reading(status: str, outcome: MoneyOutcome) -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(link_of(made.external_id))
        charge = server.payment_of(order_of(made.external_id))["id"]
        asked = await processor.refund(refund_order(charge, 500, key="k" * 70))
        received = receive(processor, server.webhook(server.settle_refund(asked.external_id, status=status)))
        read = await processor.read_refund(asked.external_id)
        sent = json.loads(next(c for c in server.calls if c.path == "/v2/refunds").raw_body)
    (money,) = received.money
    assert (asked.outcome, asked.request_reference) == (MoneyOutcome.PENDING, REFERENCE)
    assert (money.outcome, read.outcome, money.kind) == (outcome, outcome, MoneyKind.REFUND)
    assert {m.charge_external_id for m in (asked, money, read)} == {charge}
    assert (len(sent["idempotency_key"]), sent["reason"]) == (45, "Service problem")


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        ("EVIDENCE_REQUIRED", MoneyOutcome.PENDING),
        ("INQUIRY_EVIDENCE_REQUIRED", MoneyOutcome.PENDING),
        ("WON", MoneyOutcome.FAILED),
        ("LOST", MoneyOutcome.SUCCEEDED),
        ("ACCEPTED", MoneyOutcome.SUCCEEDED),
        ("INQUIRY_CLOSED", MoneyOutcome.CANCELED),
    ],
)
async def test_a_dispute_names_the_payment_that_it_concerns(state: str, outcome: MoneyOutcome) -> None:
    dispute = {
        "id": "bVTprrwk0gygTLZ96VX1oB",
        "amount_money": {"amount": 2500, "currency": "USD"},
        "reason": "NOT_AS_DESCRIBED",
        "state": state,
        "due_at": "2026-12-07T00:00:00.000Z",
        "disputed_payment": {"payment_id": "bP9mAsEMYPUGjjGNaNO5ZDVyLhSZY"},
    }
    async with connected() as (server, processor):
        received = receive(processor, server.webhook(server.event("dispute.state.updated", "dispute", dispute)))
    (money,) = received.money
    assert (money.kind, money.outcome, money.amount_minor, money.dispute_reason) == (
        MoneyKind.DISPUTE,
        outcome,
        2500,
        "NOT_AS_DESCRIBED",
    )
    assert money.charge_external_id == "bP9mAsEMYPUGjjGNaNO5ZDVyLhSZY"
    assert money.inquiry is state.startswith("INQUIRY")
    waits = outcome is MoneyOutcome.PENDING
    assert money.response_due_at == (datetime(2026, 12, 7, tzinfo=UTC) if waits else None)


async def test_an_event_that_is_none_of_ours_is_understood_and_ignored() -> None:
    async with connected() as (server, processor):
        received = receive(processor, server.webhook(server.event("customer.created", "customer", {"id": "C1"})))
    assert (received.type, received.decides, tuple(received.money), received.checkout_external_id) == (
        "customer.created",
        False,
        (),
        None,
    )


# -------------------------------------------------------------------------------------------------------------- money
@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            {"card_details": {"card": {"card_brand": "AMERICAN_EXPRESS", "last_4": "0005"}}},
            "American Express •••• 0005",
        ),
        ({"source_type": "WALLET"}, "Wallet"),
        ({"source_type": "BUY_NOW_PAY_LATER"}, "Buy Now Pay Later"),
        ({"card_details": {"card": {"card_brand": "VISA", "last_4": "42"}}}, "Visa"),
    ],
)
async def test_how_it_was_paid(source: dict[str, Any], words: str) -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(link_of(made.external_id))
        payment = server.payment_of(order_of(made.external_id))
        payment |= {"card_details": {}} | source
        (money,) = (await processor.read_checkout(made.external_id)).money
    assert money.method_summary == words


async def test_a_fee_counts_its_corrections_and_only_its_own_currency() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.pay(link_of(made.external_id))
        payment = server.payment_of(order_of(made.external_id))
        fees = []
        for second in (("USD", -92), ("EUR", 10)):
            payment["processing_fee"][1:] = [{"amount_money": {"currency": second[0], "amount": second[1]}}]
            fees.append((await processor.read_checkout(made.external_id)).money[0].fee_minor)
    assert fees == [300, None]


async def test_limits_are_of_the_six_currencies_of_square() -> None:
    async with connected() as (_, processor):
        limits = {c: processor.amount_limits(c) for c in (*sorted(square.CURRENCIES), "CHF", "BRL")}
    known = AmountLimits(minimum_minor=1, maximum_minor=99_999_999)
    assert limits == dict.fromkeys(("AUD", "CAD", "EUR", "GBP", "JPY", "USD"), known) | {"CHF": None, "BRL": None}


async def test_a_location_whose_currency_was_said_takes_that_one_only_and_is_refused_where_it_has_another() -> None:
    async with connected(currency="EUR") as (server, processor):
        takes = [c for c in sorted(square.CURRENCIES) if processor.amount_limits(c) is not None]
        server.location["currency"] = "EUR"
        merchant = await processor.check()
        server.location["currency"] = "USD"
        with pytest.raises(IntegrationError) as refused:
            await processor.check()
    assert (takes, merchant) == (["EUR"], square_server.MERCHANT_ID)
    assert (refused.value.reason, refused.value.retryable) == ("location_currency_differs", False)
    with pytest.raises(IntegrationError, match="credentials_invalid"):
        async with connected(currency="CHF"):
            pass
