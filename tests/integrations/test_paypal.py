"""PayPal's own facts: what Paythread sends, when money is captured, and what states, events and errors mean."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

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
    SignatureInvalid,
)
from integrations.processors import paypal
from tests.contracts import paypal_server
from tests.contracts.openapi import Contract, ContractViolation, vendor_file
from tests.contracts.paypal_server import PayPalServer
from tests.integrations.test_processor_contract import REFERENCE, order

CONTRACTS = paypal_server.contracts()
KEY = f"{REFERENCE}:1:capture"
WEBHOOK_URL = "https://pay.example.test/webhooks/paypal/prc_1"


@asynccontextmanager
async def connected(
    contract: Contract | None = None,
    *,
    webhook_id: str = paypal_server.WEBHOOK_ID,
    timeout_s: float = 10,
    webhook_url: str = WEBHOOK_URL,
) -> AsyncIterator[tuple[PayPalServer, paypal.PayPal]]:
    async with PayPalServer(contract or paypal_server.our_contract()) as server:
        made = paypal.PayPal(
            paypal.Credentials(paypal_server.CLIENT_ID, paypal_server.CLIENT_SECRET, webhook_id, "test"),
            environment=Environment(
                public_url="http://localhost",
                sandbox_url="http://localhost",
                base_addresses={"paypal": server.url},
                timeout_s=timeout_s,
            ),
            webhook_url=webhook_url,
        )
        try:
            yield server, made
        finally:
            await made.aclose()


async def verify(processor: paypal.PayPal, delivery: tuple[bytes, dict[str, str]]) -> ProcessorWebhook:
    return await processor.verify_webhook(*delivery, now=datetime.now(UTC))


def calls(server: PayPalServer) -> list[str]:
    return [name for name in server.operations() if name != "token"]


def refund_order(charge: str, amount_minor: int, *, currency: str = "USD") -> RefundOrder:
    return RefundOrder(
        idempotency_key=f"refund:{amount_minor}",
        request_reference=REFERENCE,
        charge_external_id=charge,
        amount_minor=amount_minor,
        currency=currency,
    )


# ----------------------------------------------------------------------------------------------------------- contract
@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
async def test_every_call_that_we_make_keeps_every_contract_at_hand(contract: Contract) -> None:
    async with connected(contract) as (server, processor):
        assert (await processor.check() or "").startswith("app_")
        paid = await processor.create_checkout(order(idempotency_key="1", locale="de-DE"))
        server.approve(paid.external_id)
        done = await processor.complete_checkout(paid.external_id, idempotency_key=KEY)
        assert done.status is CheckoutStatus.COMPLETED
        assert (await verify(processor, server.webhook(server.capture_event(paid.external_id)))).decides
        refund = await processor.refund(refund_order(done.money[0].external_id, 500))
        assert await processor.read_refund(refund.external_id) == refund
        late = await processor.create_checkout(order(idempotency_key="2", description=None, locale=None))
        assert (await processor.expire_checkout(late.external_id)).status is CheckoutStatus.EXPIRED
        for status in ("PENDING", "DECLINED"):
            other = await processor.create_checkout(order(idempotency_key=status))
            server.capture_now(other.external_id, status)
            server.capture_event(other.external_id)
            assert len((await processor.read_checkout(other.external_id)).money) == 1
        for _ in range(2):
            assert await processor.register_webhook() is not None
    assert server.violations == []
    assert set(server.operations()) == set(FIELDS) | {"token"}


FIELDS: dict[str, tuple[str, ...]] = {  # what we send, by operation
    "orders.create": (
        "intent",
        "purchase_units.[].amount.currency_code",
        "purchase_units.[].amount.value",
        "purchase_units.[].custom_id",
        "purchase_units.[].description",
        "payment_source.paypal.experience_context.return_url",
        "payment_source.paypal.experience_context.cancel_url",
        "payment_source.paypal.experience_context.user_action",
        "payment_source.paypal.experience_context.shipping_preference",
        "payment_source.paypal.experience_context.locale",
    ),
    "orders.get": (),
    "orders.patch": ("[].op", "[].path", "[].value"),
    "orders.capture": (),
    "captures.refund": ("amount.currency_code", "amount.value", "custom_id"),
    "refunds.get": (),
    "webhooks.get": (),
    "webhooks.list": (),
    "webhooks.post": ("url", "event_types", "event_types.[].name"),
    "webhooks.delete": (),
    "verify-webhook-signature.post": (
        "auth_algo",
        "cert_url",
        "transmission_id",
        "transmission_sig",
        "transmission_time",
        "webhook_id",
        "webhook_event",
    ),
}


def operations(spec: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {
        definition["operationId"]: definition
        for item in spec["paths"].values()
        for method, definition in item.items()
        if method != "parameters"
    }


def resolved(spec: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        node: Any = spec
        for part in schema["$ref"].removeprefix("#/").split("/"):
            node = node[part]
        schema = node
    out = dict(schema)
    for part in schema.get("allOf", ()):
        more = resolved(spec, part)
        out["properties"] = out.get("properties", {}) | more.get("properties", {})
        out = more | out
    return out


def at(spec: Mapping[str, Any], schema: Mapping[str, Any], path: str) -> dict[str, Any]:
    node = resolved(spec, schema)
    for step in path.split("."):
        node = resolved(spec, node["items"] if step == "[]" else node["properties"][step])
    return node


def body_of(spec: Mapping[str, Any], operation: str) -> dict[str, Any]:
    content = resolved(spec, operations(spec)[operation]["requestBody"])["content"]
    return resolved(spec, content["application/json"]["schema"])


def test_our_contract_says_of_each_field_what_paypals_files_say() -> None:
    ours = CONTRACTS[0].spec
    theirs = CONTRACTS[-1].spec  # ours again in a bare clone
    for name, fields in FIELDS.items():
        for field in fields:
            mine, his = (at(spec, body_of(spec, name), field) for spec in (ours, theirs))
            for word in ("type", "enum", "minLength", "maxLength", "maxItems", "pattern"):
                if word in mine and field != "webhook_event":
                    assert mine[word] == his.get(word, mine[word]), (name, field, word)
    for name, theirs_name in (
        ("order", "orders.order"),
        ("capture", "payments.capture-2"),
        ("refund", "payments.refund"),
    ):
        his_schemas = theirs["components"]["schemas"]
        mine_schema = ours["components"]["schemas"][name]
        his = resolved(theirs, his_schemas.get(theirs_name, mine_schema))
        for field, mine in mine_schema["properties"].items():
            mine, other = resolved(ours, mine), resolved(theirs, his["properties"][field])
            assert mine.get("enum") == other.get("enum"), (name, field)
            assert mine.get("type") == other.get("type", "object"), (name, field)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"intent": "TAKE"}, "intent"),
        ({"purchase_units": []}, "purchase_units"),
        ({"purchase_units": [{"amount": {"currency_code": "USD", "value": 125}}]}, "value"),
        ({"purchase_units": [{"amount": {"currency_code": "US", "value": "1.00"}}]}, "currency_code"),
        (
            {"purchase_units": [{"amount": {"currency_code": "USD", "value": "1.00"}, "custom_id": "x" * 128}]},
            "custom_id",
        ),
    ],
)
def test_a_wrong_field_planted_into_an_order_is_refused_by_every_contract(
    contract: Contract, change: dict[str, Any], word: str
) -> None:
    good: dict[str, Any] = {
        "intent": "CAPTURE",
        "purchase_units": [{"amount": {"currency_code": "USD", "value": "1.00"}}],
    }

    def send(body: dict[str, Any]) -> None:
        contract.check_request(
            "POST",
            "/v2/checkout/orders",
            query="",
            content_type="application/json",
            body=json.dumps(body).encode(),
            headers={},
        )

    send(good)
    with pytest.raises(ContractViolation, match=word):
        send(good | change)


async def test_what_an_order_sends() -> None:
    long = "Überprüfung der Heizungsanlage " * 10
    async with connected() as (server, processor):
        await processor.create_checkout(order(product_name=long, locale="xx-unknown"))
        (call,) = [call for call in server.calls if call.path == "/v2/checkout/orders"]
        body = json.loads(call.raw_body)
    (unit,) = body["purchase_units"]
    assert (body["intent"], unit["amount"]) == ("CAPTURE", {"currency_code": "USD", "value": "125.00"})
    assert (unit["custom_id"], call.headers["paypal-request-id"]) == (REFERENCE, order().idempotency_key)
    assert (unit["description"][:24], len(unit["description"].encode()) <= 127) == ("PR-0000042 Überprüfung d", True)
    assert body["payment_source"]["paypal"]["experience_context"] == {
        "return_url": order().success_url,
        "cancel_url": order().cancel_url,
        "user_action": "PAY_NOW",
        "shipping_preference": "NO_SHIPPING",
    }
    assert "dana" not in call.raw_body.decode()  # the payer's own PayPal address is not ours to say


# -------------------------------------------------------------------------------------------------------------- token
async def test_one_token_serves_many_calls_and_is_renewed_in_time() -> None:
    async with connected() as (server, processor):
        made = await asyncio.gather(*(processor.create_checkout(order(idempotency_key=str(n))) for n in range(5)))
        assert len(server.tokens) == 1
        server.token_life_s = 30  # less than the margin: used once
        processor._token = ""
        for checkout in made[:2]:
            await processor.read_checkout(checkout.external_id)
        assert len(server.tokens) == 3


async def test_a_token_that_was_withdrawn_is_replaced_without_repeating_anything_done() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.approve(made.external_id)
        server.withdrawn.update(server.tokens)
        done = await processor.complete_checkout(made.external_id, idempotency_key=KEY)
        assert (done.status, len(server.tokens)) == (CheckoutStatus.COMPLETED, 2)
        server.withdrawn.update(server.tokens)
        wrong = dataclasses.replace(order(), idempotency_key="2")
        processor._basic = "Basic bm90OnRoaXM="
        with pytest.raises(IntegrationError) as refused:
            await processor.create_checkout(wrong)
        assert (refused.value.reason, refused.value.ambiguous, len(server.orders)) == (
            "authentication_failed",
            False,
            1,
        )


async def test_without_a_token_nothing_was_sent_so_nothing_is_ambiguous() -> None:
    async with connected(timeout_s=0.5) as (server, processor):
        for mode, reason in (("before_500", "server_error"), ("drop", "connection"), ("rate_limit", "rate_limited")):
            server.fail_next(mode, match=lambda call: call.path == paypal_server.TOKEN_PATH)  # type: ignore[arg-type]
            with pytest.raises(IntegrationError) as lost:
                await processor.create_checkout(order())
            assert (lost.value.reason, lost.value.ambiguous, lost.value.retryable) == (reason, False, True)
        assert server.orders == {}


async def test_the_check_names_the_app_and_finds_a_wrong_webhook() -> None:
    async with connected() as (_, processor):
        name = await processor.check()
    assert name is not None
    assert (len(name), paypal_server.CLIENT_ID in name) == (28, False)
    async with connected(webhook_id="0UNKNOWN") as (_, processor):
        with pytest.raises(IntegrationError) as refused:
            await processor.check()
    assert (refused.value.reason, refused.value.retryable) == ("webhook_unknown", False)


# --------------------------------------------------------------------------------------------------------- registering
async def test_a_webhook_of_our_address_is_made_once_and_its_events_are_verified() -> None:
    async with connected(webhook_id="") as (server, processor):
        other_webhook = {"id": "OTHER1", "url": "https://shop.example.test/hook", "event_types": [{"name": "*"}]}
        server.webhooks["OTHER1"] = other_webhook
        first = await processor.register_webhook()
        second = await processor.register_webhook()
        assert first is not None
        assert second is not None
        assert first != second
        made = server.webhooks[second["webhook_id"]]
        assert list(server.webhooks) == ["OTHER1", second["webhook_id"]]
        assert made["url"] == WEBHOOK_URL
        assert [one["name"] for one in made["event_types"]] == sorted(paypal.EVENTS)
        credentials = paypal.Credentials(paypal_server.CLIENT_ID, paypal_server.CLIENT_SECRET, **second, mode="test")
        environment = Environment(public_url="", sandbox_url="", base_addresses={"paypal": server.url})
        again = paypal.PayPal(credentials, environment=environment, webhook_url=WEBHOOK_URL)
        assert await again.check()
        event = server.event("CHECKOUT.ORDER.APPROVED", "checkout-order", {"id": "5O190127TN364715T"})
        verified = await verify(again, server.webhook(event, webhook_id=second["webhook_id"]))
        assert verified.checkout_external_id == "5O190127TN364715T"
        for _ in range(2):
            await again.unregister_webhook()
        await again.aclose()
        assert (server.webhooks, server.violations) == ({"OTHER1": other_webhook}, [])


async def test_what_may_not_be_registered_is_left_to_a_person() -> None:
    async with connected() as (server, processor):
        server.may_register = False
        assert await processor.register_webhook() is None
    async with connected(webhook_url="http://localhost:8000/webhooks/paypal/prc_1") as (server, processor):
        assert await processor.register_webhook() is None
        assert server.calls == []
    async with connected() as (server, processor):
        server.fail_next("before_500", match=lambda call: call.method == "POST" and "webhooks" in call.path)
        with pytest.raises(IntegrationError) as failed:
            await processor.register_webhook()
    assert (failed.value.reason, server.webhooks) == ("server_error", {})


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("ECHECK", "It is an eCheck: the payer's bank takes some days."),
        ("UNILATERAL", "PayPal waits for you: accept the payment, or complete what it asks, in your account there."),
        ("OTHER", None),
    ],
)
async def test_a_pending_capture_says_what_it_waits_for(reason: str, words: str | None) -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.approve(made.external_id)
        server.capture_now(made.external_id, "PENDING")
        server.capture_of(made.external_id)["status_details"] = {"reason": reason}
        (completed,) = (await verify(processor, server.webhook(server.capture_event(made.external_id)))).money
        (read,) = (await processor.read_checkout(made.external_id)).money
    for money in (completed, read):
        assert (money.outcome, money.failure_code, money.failure_message) == (MoneyOutcome.PENDING, None, words)


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
        paypal.PayPal(paypal.Credentials("a", "b", "c", "sandbox"), environment=environment)
    assert refused.value.reason == "credentials_invalid"
    for mode, address in (("live", "https://api-m.paypal.com"), ("test", "https://api-m.sandbox.paypal.com")):
        assert paypal.PayPal(paypal.Credentials("a", "b", "c", mode), environment=environment)._base == address


# ------------------------------------------------------------------------------------------------- taking the money
async def test_an_approval_moves_no_money_and_says_that_it_waits() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        hint = await verify(processor, server.webhook(server.approve(made.external_id)))
        read = [await processor.read_checkout(made.external_id) for _ in range(3)][-1]
        assert calls(server).count("orders.capture") == 0
    assert (hint.decides, tuple(hint.money), hint.checkout_status) == (False, (), None)
    assert (hint.checkout_external_id, hint.request_reference) == (made.external_id, REFERENCE)
    assert (read.status, read.awaits_completion, tuple(read.money)) == (CheckoutStatus.OPEN, True, ())


async def test_no_call_but_complete_checkout_captures() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.approve(made.external_id)
        again = await processor.create_checkout(order())
        assert (again.external_id, again.awaits_completion) == (made.external_id, True)
        await processor.read_checkout(made.external_id)
        await processor.expire_checkout(made.external_id)
        assert "orders.capture" not in server.operations()
        assert "payments" not in server.orders[made.external_id]["purchase_units"][0]


async def test_what_is_closed_is_never_captured_even_if_the_payer_agrees_later() -> None:
    async with connected() as (server, processor):
        early, late = [await processor.create_checkout(order(idempotency_key=key)) for key in "12"]
        server.approve(early.external_id)
        for one in (early, late):
            closed = await processor.expire_checkout(one.external_id)
            assert (closed.status, closed.awaits_completion, closed.url) == (CheckoutStatus.EXPIRED, False, None)
        server.approve(late.external_id)
        for one in (early, late):
            after = await processor.complete_checkout(one.external_id, idempotency_key=KEY)
            assert (after.status, after.request_reference) == (CheckoutStatus.EXPIRED, REFERENCE)
        assert "orders.capture" not in server.operations()


async def test_a_capture_that_was_first_wins_against_the_closing() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.approve(made.external_id)
        await processor.complete_checkout(made.external_id, idempotency_key=KEY)
        closed = await processor.expire_checkout(made.external_id)
    assert (closed.status, closed.money[0].outcome) == (CheckoutStatus.COMPLETED, MoneyOutcome.SUCCEEDED)
    assert (closed.money[0].amount_minor, closed.money[0].fee_minor) == (12500, 95)


async def test_an_order_that_takes_no_mark_is_closed_all_the_same() -> None:
    async with connected() as (server, processor):
        server.patchable = False
        made = await processor.create_checkout(order())
        server.approve(made.external_id)
        closed = await processor.expire_checkout(made.external_id)
    assert (closed.status, closed.awaits_completion, closed.url) == (CheckoutStatus.EXPIRED, False, None)


@pytest.mark.parametrize("mode", ["accept_then_500", "drop", "hang"])
async def test_a_capture_without_an_answer_is_repeated_with_its_key_and_taken_once(mode: Any) -> None:
    async with connected(timeout_s=0.5) as (server, processor):
        made = await processor.create_checkout(order())
        server.approve(made.external_id)
        server.fail_next(mode, match=lambda call: call.path.endswith("/capture"))
        with pytest.raises(IntegrationError) as lost:
            await processor.complete_checkout(made.external_id, idempotency_key=KEY)
        assert (lost.value.ambiguous, lost.value.retryable) == (True, True)
        done = await processor.complete_checkout(made.external_id, idempotency_key=KEY)
        assert (done.status, len(done.money)) == (CheckoutStatus.COMPLETED, 1)
        assert calls(server).count("orders.capture") == 1


async def test_captures_at_once_take_the_money_once() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.approve(made.external_id)
        keys = [KEY, KEY, "another", "a third"]
        done = await asyncio.gather(
            *(processor.complete_checkout(made.external_id, idempotency_key=key) for key in keys)
        )
        assert {d.status for d in done} == {CheckoutStatus.COMPLETED}
        assert len({d.money[0].external_id for d in done}) == 1
        assert len(server.orders[made.external_id]["purchase_units"][0]["payments"]["captures"]) == 1


async def test_a_refused_instrument_leaves_the_order_to_another_one() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.approve(made.external_id)
        server.outcome = "INSTRUMENT_DECLINED"
        no = await processor.complete_checkout(made.external_id, idempotency_key="capture:1")
        again = await processor.read_checkout(made.external_id)
        server.approve(made.external_id)
        server.outcome = "COMPLETED"
        yes = await processor.complete_checkout(made.external_id, idempotency_key="capture:2")
    (failed,), (paid,) = no.money, yes.money
    assert (no.status, no.awaits_completion) == (CheckoutStatus.OPEN, False)
    assert (failed.outcome, failed.failure_code, failed.amount_minor) == (
        MoneyOutcome.FAILED,
        "INSTRUMENT_DECLINED",
        12500,
    )
    assert (failed.request_reference, failed.checkout_external_id) == (REFERENCE, made.external_id)
    assert (again.status, again.url, again.awaits_completion) == (CheckoutStatus.OPEN, made.url, False)
    assert (yes.status, paid.outcome) == (CheckoutStatus.COMPLETED, MoneyOutcome.SUCCEEDED)
    assert paid.external_id != failed.external_id


@pytest.mark.parametrize(
    ("issue", "reason", "ambiguous"),
    [
        ("PERMISSION_DENIED", "refused", False),
        ("ORDER_COMPLETION_IN_PROGRESS", "in_progress", True),
        ("DUPLICATE_INVOICE_ID", "refused", False),
    ],
)
async def test_another_no_of_a_capture_is_an_error(issue: str, reason: str, ambiguous: bool) -> None:
    class Refusing(PayPalServer):
        def _capture(self, call: Any, order_id: str) -> Any:
            raise paypal_server.PayPalError(422, issue)

    async with Refusing(paypal_server.our_contract()) as server:
        environment = Environment(public_url="", sandbox_url="", base_addresses={"paypal": server.url})
        processor = paypal.PayPal(
            paypal.Credentials(paypal_server.CLIENT_ID, paypal_server.CLIENT_SECRET), environment=environment
        )
        made = await processor.create_checkout(order())
        server.approve(made.external_id)
        with pytest.raises(IntegrationError) as refused:
            await processor.complete_checkout(made.external_id, idempotency_key=KEY)
        await processor.aclose()
    assert (refused.value.reason, refused.value.ambiguous, refused.value.code) == (reason, ambiguous, issue)


async def test_orders_that_nobody_paid_end_by_their_age_and_when_paypal_forgets_them() -> None:
    async with connected() as (server, processor):
        server.now = lambda: datetime.now(UTC) - timedelta(hours=5, minutes=59)
        young = await processor.create_checkout(order(idempotency_key="1"))
        server.now = lambda: datetime.now(UTC) - timedelta(hours=6, minutes=1)
        old = await processor.create_checkout(order(idempotency_key="2"))
        for one in (young, old):
            server.approve(one.external_id)
        assert (await processor.read_checkout(young.external_id)).awaits_completion
        ended = await processor.complete_checkout(old.external_id, idempotency_key=KEY)
        assert (ended.status, ended.url, ended.awaits_completion) == (CheckoutStatus.EXPIRED, None, False)
        del server.orders[young.external_id]
        for call in (
            processor.read_checkout(young.external_id),
            processor.expire_checkout(young.external_id),
            processor.complete_checkout(young.external_id, idempotency_key=KEY),
        ):
            gone = await call
            assert (gone.status, gone.external_id, tuple(gone.money)) == (
                CheckoutStatus.EXPIRED,
                young.external_id,
                (),
            )
        assert "orders.capture" not in server.operations()


async def test_money_of_another_amount_is_told_as_it_came() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.capture_now(made.external_id, value="124.99")
        (money,) = (await processor.read_checkout(made.external_id)).money
    assert (money.amount_minor, money.outcome) == (12499, MoneyOutcome.SUCCEEDED)


# ----------------------------------------------------------------------------------------------------------- webhooks
async def test_the_raw_body_goes_back_byte_for_byte() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.capture_now(made.external_id)
        event = server.capture_event(made.external_id)
        # As another program would write it: spacing, escapes, a number that would change its form.
        body = json.dumps(event, indent=3).replace('"1.0"', '"1.0" ').encode() + b"\n"
        body = body.replace(
            b'"final_capture": true', b'"final_capture": true, "rate": 1.10, "note": "\\u00e9 \xc3\xa9"'
        )
        assert (await verify(processor, (body, paypal_server.transmission(body)))).decides
        (call,) = [call for call in server.calls if call.path.endswith("verify-webhook-signature")]
    assert body in call.raw_body
    assert zlib.crc32(body) != zlib.crc32(orjson.dumps(orjson.loads(body)))


async def test_a_body_cannot_end_the_question_and_go_on_with_fields_of_its_own() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        server.capture_now(made.external_id)
        good, headers = server.webhook(server.capture_event(made.external_id))
        for body in (
            b'{},"webhook_event":' + good,
            good + b',"webhook_id":"' + paypal_server.WEBHOOK_ID.encode() + b'"',
            good + b"}",
            good + b"," + good,
            b"[" + good + b"]",
            good[:-1],
            b"\xff" + good,
        ):
            with pytest.raises(SignatureInvalid):
                await verify(processor, (body, headers))
        assert "verify-webhook-signature.post" not in server.operations()


async def test_headers_that_no_event_has_are_refused_without_asking() -> None:
    async with connected() as (server, processor):
        body, good = server.webhook(server.event("CHECKOUT.ORDER.VOIDED", "checkout-order", {"id": "A"}))
        for name in good:
            for value in ("", " ", "x" * 6000, "é", '","a":"', "12345"):
                with pytest.raises(SignatureInvalid):
                    await verify(processor, (body, good | {name: value}))
        for url in ("https://paypal.com.evil.test/x", "https://evil.test/.paypal.com/", "file:///etc/passwd"):
            with pytest.raises(SignatureInvalid):
                await verify(processor, (body, good | {"paypal-cert-url": url}))
        with pytest.raises(SignatureInvalid):
            processor.receive(body, good, now=datetime.now(UTC))
        assert "verify-webhook-signature.post" not in server.operations()
        assert (await verify(processor, (body, good))).checkout_external_id == "A"


@pytest.mark.parametrize("mode", ["before_500", "drop", "hang", "rate_limit"])
async def test_when_paypal_cannot_be_asked_the_event_is_neither_taken_nor_refused(mode: Any) -> None:
    async with connected(timeout_s=0.5) as (server, processor):
        made = await processor.create_checkout(order())
        server.capture_now(made.external_id)
        delivery = server.webhook(server.capture_event(made.external_id))
        server.fail_next(mode)
        with pytest.raises(IntegrationError) as away:
            await verify(processor, delivery)
        assert not isinstance(away.value, SignatureInvalid | PayloadInvalid)
        assert (away.value.retryable, away.value.ambiguous) == (True, False)
        assert (await verify(processor, delivery)).decides


async def test_an_approval_that_paypal_gave_back_names_its_order() -> None:
    async with connected() as (_, processor):
        thing = {"order_id": "5O190127TN364715T", "purchase_units": [{"custom_id": "pr_0001"}]}
        event = {"id": "WH-1", "event_type": "CHECKOUT.PAYMENT-APPROVAL.REVERSED", "resource": thing}
        body = json.dumps(event | {"create_time": "2026-11-23T00:10:00.000Z"}).encode()
        read = processor.parse(body)
        assert read.type in paypal.EVENTS
    found = (read.decides, read.checkout_external_id, read.checkout_status, read.request_reference, tuple(read.money))
    assert found == (False, "5O190127TN364715T", None, "pr_0001", ())


@pytest.mark.parametrize(
    ("kind", "reversal"), [("PAYMENT.CAPTURE.REVERSED", True), ("PAYMENT.CAPTURE.REFUNDED", False)]
)
async def test_what_paypal_took_back_itself_is_a_reversal(kind: str, reversal: bool) -> None:
    async with connected() as (_, processor):
        thing = {
            "id": "9AB08902781691411",
            "status": "COMPLETED",
            "amount": {"currency_code": "USD", "value": "25.00"},
            "links": [{"rel": "up", "href": "https://api-m.paypal.com/v2/payments/captures/3C679366HH908993F"}],
        }
        event = {"id": "WH-1", "event_type": kind, "resource": thing, "create_time": "2026-11-23T00:10:00.000Z"}
        (money,) = processor.parse(json.dumps(event).encode()).money
    assert (money.kind, money.charge_external_id, money.reversal) == (MoneyKind.REFUND, "3C679366HH908993F", reversal)


@pytest.mark.parametrize(
    ("reason", "delay"),
    [
        ("ECHECK", Delay(method="eCheck")),
        ("TRANSACTION_APPROVED_AWAITING_FUNDING", Delay()),
        ("PENDING_REVIEW", None),
        (None, None),
    ],
)
def test_a_capture_that_takes_days_is_a_delay(reason: str | None, delay: Delay | None) -> None:
    details = {"status_details": {"reason": reason}} if reason else {}
    assert paypal._delay([{"status": "PENDING", **details}]) == delay
    assert paypal._delay([{"status": "COMPLETED", **details}]) is None


async def test_webhooks_ask_paypal_a_few_at_a_time() -> None:
    async with connected() as (server, processor):
        await processor.check()
        body, headers = server.webhook(server.event("CHECKOUT.ORDER.VOIDED", "checkout-order", {"id": "A"}))
        forged = headers | {"paypal-transmission-sig": "s" + "0" * 64}
        at_once, most = 0, 0
        handle = server.handle

        async def counting(call: Any) -> Any:
            nonlocal at_once, most
            at_once += 1
            most = max(most, at_once)
            await asyncio.sleep(0.01)
            try:
                return await handle(call)
            finally:
                at_once -= 1

        server.handle = counting  # type: ignore[method-assign]
        answers = await asyncio.gather(*(verify(processor, (body, forged)) for _ in range(40)), return_exceptions=True)
    assert all(isinstance(answer, SignatureInvalid) for answer in answers)
    assert 1 <= most <= paypal.VERIFIES_AT_ONCE


async def test_without_a_webhook_id_none_is_taken() -> None:
    for none in ("", " , "):
        async with connected(webhook_id=none) as (server, processor):
            body, headers = server.webhook(server.event("CHECKOUT.ORDER.VOIDED", "checkout-order", {"id": "A"}))
            with pytest.raises(SignatureInvalid) as refused:
                await verify(processor, (body, headers))
            assert (refused.value.reason, server.calls) == ("no_webhook_secret", [])


async def test_the_vendors_example_events_mean_what_they_should() -> None:
    charge, refund = MoneyKind.CHARGE, MoneyKind.REFUND
    succeeded, failed, pending = MoneyOutcome.SUCCEEDED, MoneyOutcome.FAILED, MoneyOutcome.PENDING
    the_order, the_capture = "5O190127TN364715T", "3C679366HH908993F"
    expected = [
        (False, the_order, None, None),
        (True, the_order, CheckoutStatus.COMPLETED, (charge, the_capture, succeeded, 2500, None)),
        (True, the_order, CheckoutStatus.PROCESSING, (charge, the_capture, pending, 2500, None)),
        (True, the_order, CheckoutStatus.FAILED, (charge, the_capture, failed, 2500, None)),
        (True, None, None, (refund, "1JU08902781691411", succeeded, 1000, the_capture)),
        (True, None, None, (refund, "9AB08902781691411", succeeded, 2500, the_capture)),
    ]
    async with connected() as (_, processor):
        for file in filter(None, (paypal_server.small_events(), vendor_file(paypal_server.EVENTS_FILE))):
            seen = []
            for event in file["events"]:
                body = json.dumps(event).encode()
                one = await verify(processor, (body, paypal_server.transmission(body)))
                money = [(m.kind, m.external_id, m.outcome, m.amount_minor, m.charge_external_id) for m in one.money]
                only = money[0] if money else None
                seen.append((one.decides, one.checkout_external_id, one.checkout_status, only))
                assert (one.external_id, one.request_reference) == (event["id"], "pr_0001")
                assert one == processor.parse(body)
            assert seen == expected


@pytest.mark.parametrize(
    ("status", "code", "outcome"),
    [
        ("OPEN", None, MoneyOutcome.PENDING),
        ("WAITING_FOR_SELLER_RESPONSE", None, MoneyOutcome.PENDING),
        ("RESOLVED", "RESOLVED_BUYER_FAVOUR", MoneyOutcome.SUCCEEDED),
        ("RESOLVED", "RESOLVED_SELLER_FAVOUR", MoneyOutcome.FAILED),
        ("RESOLVED", "CANCELED_BY_BUYER", MoneyOutcome.CANCELED),
        ("RESOLVED", "a new word", MoneyOutcome.PENDING),
    ],
)
async def test_a_dispute_names_the_capture_that_it_concerns(
    status: str, code: str | None, outcome: MoneyOutcome
) -> None:
    dispute = {
        "dispute_id": "PP-D-27803",
        "disputed_transactions": [{"seller_transaction_id": "3C679366HH908993F"}],
        "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
        "status": status,
        "seller_response_due_date": "2026-12-07T10:00:00.000Z",
        "dispute_amount": {"currency_code": "USD", "value": "25.00"},
    } | ({"dispute_outcome": {"outcome_code": code}} if code else {})
    async with connected() as (server, processor):
        event = server.event("CUSTOMER.DISPUTE.UPDATED", "dispute", dispute)
        (money,) = (await verify(processor, server.webhook(event))).money
    assert (money.kind, money.outcome, money.amount_minor) == (MoneyKind.DISPUTE, outcome, 2500)
    assert (money.external_id, money.charge_external_id) == ("PP-D-27803", "3C679366HH908993F")
    assert money.inquiry is False
    due = None if status == "RESOLVED" else datetime(2026, 12, 7, 10, tzinfo=UTC)
    assert (money.dispute_reason, money.response_due_at) == ("MERCHANDISE_OR_SERVICE_NOT_RECEIVED", due)


@pytest.mark.parametrize(("stage", "inquiry"), [("INQUIRY", True), ("CHARGEBACK", False), ("ARBITRATION", False)])
async def test_an_inquiry_is_told_from_a_chargeback(stage: str, inquiry: bool) -> None:
    dispute = {
        "dispute_id": "PP-D-27803",
        "disputed_transactions": [{"seller_transaction_id": "3C679366HH908993F"}],
        "status": "WAITING_FOR_SELLER_RESPONSE",
        "dispute_life_cycle_stage": stage,
        "dispute_amount": {"currency_code": "USD", "value": "25.00"},
    }
    async with connected() as (server, processor):
        event = server.event("CUSTOMER.DISPUTE.UPDATED", "dispute", dispute)
        (money,) = (await verify(processor, server.webhook(event))).money
    assert (money.inquiry, money.outcome) == (inquiry, MoneyOutcome.PENDING)


async def test_an_event_that_is_none_of_ours_is_understood_and_ignored() -> None:
    async with connected() as (server, processor):
        event = server.event("BILLING.SUBSCRIPTION.CREATED", "subscription", {"id": "I-1"})
        one = await verify(processor, server.webhook(event))
    assert (one.type, one.decides, tuple(one.money), one.checkout_external_id) == (
        "BILLING.SUBSCRIPTION.CREATED",
        False,
        (),
        None,
    )


# -------------------------------------------------------------------------------------------------------------- money
@pytest.mark.parametrize(
    ("currency", "ours", "theirs"),
    [
        ("USD", 12500, "125.00"),
        ("USD", 7, "0.07"),
        ("JPY", 500, "500"),
        ("HUF", 104500, "1045"),
        ("TWD", 80000, "800"),
        ("EUR", 999_999_900, "9999999.00"),
    ],
)
def test_amounts_become_paypals_texts_and_come_back(currency: str, ours: int, theirs: str) -> None:
    assert paypal.to_vendor(ours, currency) == theirs
    assert paypal.from_vendor(theirs, currency) == ours


@pytest.mark.parametrize(
    ("value", "currency", "minor"),
    [
        ("25", "USD", 2500),
        ("25.5", "USD", 2550),
        ("1045.00", "HUF", 104500),
        ("500.00", "JPY", 500),
        ("0.00", "USD", 0),
    ],
)
def test_other_ways_to_write_an_amount_are_read(value: str, currency: str, minor: int) -> None:
    assert paypal.from_vendor(value, currency) == minor


@pytest.mark.parametrize(
    ("value", "currency"),
    [("25.005", "USD"), ("500.5", "JPY"), ("-1.00", "USD"), ("1e3", "USD"), ("", "USD"), (".5", "USD"), ("１", "USD")],
)
def test_what_is_no_amount_is_refused(value: str, currency: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        paypal.from_vendor(value, currency)


@pytest.mark.parametrize(("currency", "amount"), [("HUF", 104550), ("TWD", 80001)])
async def test_an_amount_between_whole_units_is_refused_before_any_call(currency: str, amount: int) -> None:
    async with connected() as (server, processor):
        with pytest.raises(IntegrationError) as refused:
            await processor.create_checkout(order(currency=currency, amount_minor=amount))
        assert (refused.value.reason, server.calls) == ("amount_not_representable", [])


async def test_limits_are_in_our_units() -> None:
    async with connected() as (_, processor):
        limits = {c: processor.amount_limits(c) for c in ("USD", "JPY", "HUF", "TWD", "KWD", "RUB")}
    assert limits == {
        "USD": AmountLimits(minimum_minor=1, maximum_minor=999_999_900),
        "JPY": AmountLimits(minimum_minor=1, maximum_minor=9_999_999),
        "HUF": AmountLimits(minimum_minor=100, maximum_minor=999_999_900, step_minor=100),
        "TWD": AmountLimits(minimum_minor=100, maximum_minor=999_999_900, step_minor=100),
        "KWD": None,
        "RUB": None,
    }


async def test_refunds_keep_currencies_without_decimals_and_refuse_what_is_pending() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order(currency="HUF", amount_minor=500_000))
        server.capture_now(made.external_id, "PENDING")
        charge = server.capture_of(made.external_id)["id"]
        with pytest.raises(IntegrationError) as pending:
            await processor.refund(refund_order(charge, 100_000, currency="HUF"))
        server.settle(made.external_id)
        part = await processor.refund(refund_order(charge, 100_000, currency="HUF"))
        with pytest.raises(IntegrationError) as too_much:
            await processor.refund(refund_order(charge, 400_100, currency="HUF"))
        read = await processor.read_checkout(made.external_id)
        sent = [json.loads(c.raw_body) for c in server.calls if c.path.endswith("/refund")]
    assert (pending.value.reason, pending.value.code, pending.value.ambiguous) == ("refused", "PENDING_CAPTURE", False)
    assert (too_much.value.reason, too_much.value.code) == ("amount_too_large", "REFUND_AMOUNT_EXCEEDED")
    assert (part.amount_minor, part.currency, part.outcome) == (100_000, "HUF", MoneyOutcome.SUCCEEDED)
    assert sent[0] == {"amount": {"currency_code": "HUF", "value": "1000"}, "custom_id": REFERENCE}
    # A refund leaves the charge paid.
    assert [(m.kind, m.outcome, m.amount_minor) for m in read.money] == [
        (MoneyKind.CHARGE, MoneyOutcome.SUCCEEDED, 500_000),
        (MoneyKind.REFUND, MoneyOutcome.SUCCEEDED, 100_000),
    ]


async def test_an_answer_that_is_not_paypals_is_an_integration_error() -> None:
    async with connected() as (server, processor):
        made = await processor.create_checkout(order())
        planted: list[dict[str, Any]] = [{"purchase_units": []}, {"create_time": "soon"}]
        for broken in planted:
            kept = server.orders[made.external_id]
            server.orders[made.external_id] = kept | broken
            with pytest.raises(IntegrationError) as odd:
                await processor.read_checkout(made.external_id)
            assert (odd.value.reason, odd.value.ambiguous) == ("unexpected_answer", False)
            server.orders[made.external_id] = kept
        server._own_faults.clear()  # planted above


def test_who_paid_is_never_in_the_method() -> None:
    sources: list[tuple[Any, str | None]] = [
        ({"paypal": {"email_address": "payer@example.test", "account_id": "X"}}, "PayPal"),
        ({"venmo": {"user_name": "payer"}}, "Venmo"),
        ({"card": {"brand": "VISA", "last_digits": "4242"}}, "Visa •••• 4242"),
        ({"card": {"last_digits": "not digits"}}, "Card"),
        ({}, None),
        (None, None),
    ]
    assert [paypal._method(source) for source, _ in sources] == [words for _, words in sources]
