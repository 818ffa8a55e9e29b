"""Errors as types: each has the facts that a client needs to offer the next step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.ids import public_id, uuid7
from models.tables import ContactAddress, PaymentRequest
from services.accounts import login
from services.payments import payment_requests
from tests import factories
from tests.flows.documents import ERROR_FACTS
from tests.schema.conftest import Api
from tests.schema.test_mutations import create, ids
from tests.services.conftest import Team


async def refuse(api: Api, mutation: str, input: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """The errors of a mutation, with their facts and without their messages."""
    kind = mutation[0].upper() + mutation[1:] + "Input!"
    document = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ {ERROR_FACTS} }} }}"
    errors: list[dict[str, Any]] = (await api.one(document, {"input": input}, **options))["userErrors"]
    return [{name: value for name, value in error.items() if name != "message"} for error in errors]


def usd(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "USD"}


@pytest.mark.parametrize(
    ("amount", "code"), [("0", "AMOUNT_TOO_SMALL"), ("-1", "AMOUNT_TOO_SMALL"), ("1000000000", "AMOUNT_TOO_LARGE")]
)
async def test_an_amount_beyond_the_limits_names_both_limits(team: Team, api: Api, amount: str, code: str) -> None:
    given = {
        "idempotencyKey": str(uuid7()),
        "for": {"contactId": ids(team)["contact"]},
        "productName": "Deep clean",
        "amount": {"amount": amount},
    }
    assert await refuse(api, "createPaymentRequest", given) == [
        {
            "__typename": "AmountLimitError",
            "code": code,
            "field": ["input", "amount", "amount"],
            "minimum": usd("0.01"),
            "maximum": usd("999999999.99"),
        }
    ]
    # The limits of an unknown currency are unknown.
    given["amount"] = {"amount": "-1", "currency": "XYZ"}
    error, _ = await refuse(api, "createPaymentRequest", given)
    assert (error["code"], error["minimum"], error["maximum"]) == ("AMOUNT_TOO_SMALL", None, None)


async def test_an_outside_payment_above_what_is_due_names_it(team: Team, api: Api) -> None:
    made = (await create(api, team))["paymentRequest"]
    given = {"idempotencyKey": str(uuid7()), "paymentRequestId": made["id"], "method": "CASH", "amount": "120.01"}
    (error,) = await refuse(api, "recordOutsidePayment", given)
    assert (error["code"], error["minimum"], error["maximum"]) == ("AMOUNT_TOO_LARGE", usd("0.01"), usd("120.00"))


async def test_a_refund_beyond_the_payment_names_what_is_left(team: Team, api: Api) -> None:
    request = await factories.payment_request(
        team.contact, conversation_id=team.conversation.id, status="PAID", amount_minor=5000
    )
    charge = await factories.money_fact(request, amount_minor=5000)
    given = {
        "idempotencyKey": str(uuid7()),
        "paymentId": public_id("pay", charge.id),
        "amount": "50.01",
        "reason": "DUPLICATE",
    }
    (error,) = await refuse(api, "refundPayment", given, viewer=team.owner)
    assert error == {
        "__typename": "RefundLimitError",
        "code": "REFUND_EXCEEDS_PAYMENT",
        "field": ["input", "amount"],
        "refundable": usd("50.00"),
    }


async def test_a_conflict_shows_the_object_as_it_is_now(team: Team, api: Api) -> None:
    made = (await create(api, team))["paymentRequest"]
    document = """mutation($input: VoidPaymentRequestInput!) { voidPaymentRequest(input: $input) {
      paymentRequest { id } userErrors { code ... on ConflictError { current {
        ... on PaymentRequest { id version status } } } } } }"""
    stale = await api.one(document, {"input": {"paymentRequestId": made["id"], "expectedVersion": 7}})
    now = {"id": made["id"], "version": made["version"], "status": "DRAFT"}
    assert stale == {"paymentRequest": None, "userErrors": [{"code": "VERSION_CONFLICT", "current": now}]}
    await api.run("voidPaymentRequest", {"paymentRequestId": made["id"]}, "paymentRequest { id }")
    twice = await api.one(document, {"input": {"paymentRequestId": made["id"]}})
    (error,) = twice["userErrors"]
    assert (error["code"], error["current"]["status"]) == ("ALREADY_VOID", "VOID")


async def test_a_conflict_over_an_object_that_is_gone_is_a_plain_error(
    team: Team, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = (await create(api, team))["paymentRequest"]
    await api.run("recordLinkCopied", {"paymentRequestId": made["id"]}, "paymentRequest { id }")
    given = {"paymentRequestId": made["id"]}
    (error,) = await refuse(api, "discardPaymentRequest", given)
    assert (error["__typename"], error["code"]) == ("ConflictError", "ALREADY_SENT")
    assert error["current"] == {"__typename": "PaymentRequest", "id": made["id"]}
    # Discarded by another call between the refusal and the answer.

    discard = payment_requests.discard

    async def discard_elsewhere(*arguments: Any) -> PaymentRequest:
        try:
            return await discard(*arguments)
        finally:
            await PaymentRequest.all().update(discarded_at=datetime.now(UTC))

    monkeypatch.setattr(payment_requests, "discard", discard_elsewhere)
    (error,) = await refuse(api, "discardPaymentRequest", given)
    assert error == {"__typename": "FieldError", "code": "ALREADY_SENT", "field": ["input", "paymentRequestId"]}


async def test_a_taken_address_names_its_contact(team: Team, api: Api) -> None:
    first = await api.run("createContact", {"name": "Ann", "email": "ann@example.com"}, "contact { id }")
    (error,) = await refuse(api, "createContact", {"name": "Ann B.", "email": "ann@example.com"})
    assert (error["code"], error["field"]) == ("ALREADY_USED", ["input", "email"])
    assert error["current"] == {"__typename": "Contact", "id": first["contact"]["id"]}


async def test_a_closed_window_names_the_remedies(team: Team, api: Api) -> None:
    await ContactAddress.filter(id=team.addresses["WHATSAPP"].id).update(
        last_inbound_at=datetime.now(UTC) - timedelta(hours=25)
    )
    channel = public_id("chn", team.channels["WHATSAPP"].id)
    message = {"conversationId": ids(team)["conversation"], "channelId": channel, "body": "Hello"}
    (error,) = await refuse(api, "sendMessage", {"idempotencyKey": str(uuid7()), **message})
    assert (error["__typename"], error["code"]) == ("WindowClosedError", "MESSAGING_WINDOW_CLOSED")
    shown = await api.one(
        """query($id: ID!) { conversation(id: $id) { channels { channel { id } messages { help { kind sentence channelId } } } } }""",
        {"id": message["conversationId"]},
    )
    (listed,) = (each["messages"]["help"] for each in shown["channels"] if each["channel"]["id"] == channel)
    assert error["help"] == listed != []
    # The preview gives the same error.
    preview = await api.one(
        f"query($input: MessagePreviewInput!) {{ messagePreview(input: $input) {{ {ERROR_FACTS} }} }}",
        {"input": message},
    )
    assert [each["help"] for each in preview["userErrors"]] == [listed]


async def test_too_many_attempts_say_how_long_to_wait(team: Team, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_matches", lambda hashed, password: False)
    given = {"email": "somebody@example.test", "password": "wrong"}
    error: dict[str, Any] = {}
    for _ in range(60):
        (error,) = await refuse(api, "signIn", given, viewer=None)
        if error["code"] == "RATE_LIMITED":
            break
    assert error["__typename"] == "RateLimitError"
    assert 1 <= error["retryAfterSeconds"] <= 60


async def test_each_wrong_item_of_a_list_is_named_by_its_place(team: Team, api: Api) -> None:
    addresses = [
        {"kind": "SMS", "address": "call me"},
        {"kind": "WEB_CHAT", "address": "visitor-1"},
        {"kind": "WEB_CHAT", "address": ""},
        {"kind": "EMAIL", "address": "ann"},
    ]
    found = await refuse(api, "createContact", {"name": "", "phone": "12", "addresses": addresses})
    assert [(error["code"], error["field"]) for error in found] == [
        ("BLANK", ["input", "name"]),
        ("INVALID", ["input", "phone"]),
        ("INVALID", ["input", "addresses", "0", "address"]),
        ("INVALID", ["input", "addresses", "2", "kind"]),
        ("BLANK", ["input", "addresses", "2", "address"]),
        ("INVALID", ["input", "addresses", "3", "address"]),
    ]


async def test_each_wrong_copy_and_variable_is_named_by_its_place(team: Team, api: Api) -> None:
    given = {
        "idempotencyKey": str(uuid7()),
        "conversationId": ids(team)["conversation"],
        "channelId": ids(team)["EMAIL"],
        "body": " ",
        "cc": ["ann@example.com", "bob", ""],
        "template": {"id": "HX1", "variables": [{"name": "1", "value": " "}, {"name": "1", "value": "x"}]},
    }
    found = await refuse(api, "sendMessage", given)
    assert [(error["code"], ".".join(error["field"])) for error in found] == [
        ("BLANK", "input.body"),
        ("INVALID", "input.cc.1"),
        ("BLANK", "input.cc.2"),
        ("INVALID", "input.template"),  # an email has none
        ("BLANK", "input.template.variables.0.value"),
        ("INVALID", "input.template.variables.1.name"),
    ]


async def test_each_wrong_site_and_credential_is_named_by_its_place(team: Team, api: Api) -> None:
    given = {
        "kind": "SMS",
        "provider": "twilio_sms",
        "credentials": [{"name": "account_sid", "value": "AC1"}, {"name": "colour", "value": "x\x07"}],
    }
    found = await refuse(api, "connectChannel", given, viewer=team.owner)
    assert [(error["code"], ".".join(error["field"])) for error in found] == [
        ("INVALID", "input.credentials.1.name"),
        ("INVALID", "input.credentials.1.value"),
    ]
    sites = ["https://shop.example", "shop", "*.com"]
    chat = {"kind": "WEB_CHAT", "provider": "web_chat", "allowedOrigins": sites}
    found = await refuse(api, "connectChannel", chat, viewer=team.owner)
    assert [".".join(error["field"]) for error in found] == ["input.allowedOrigins.1", "input.allowedOrigins.2"]
