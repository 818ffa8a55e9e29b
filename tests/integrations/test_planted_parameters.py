"""A wrong parameter in a provider is refused by the contract servers: each plant here breaks one call of one provider."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest

from integrations.base import IntegrationError, MoneyOutcome, Processor, RefundOrder, RefundReason
from integrations.kit.processors import REFERENCE, order
from tests.contracts import paypal_server, square_server, stripe_contract
from tests.contracts.openapi import Contract
from tests.contracts.paypal_server import PayPalServer
from tests.contracts.square_server import SquareServer
from tests.contracts.stripe_server import StripeServer
from tests.integrations import test_paypal, test_square, test_stripe

Path = tuple[str | int, ...]  # where in the request's parameters
MISSING = object()  # the parameter is not sent


class Misnamed(str):
    """The parameter is sent under this name instead."""


CREATE, REFUND, REGISTER, LIST = "create_checkout", "refund", "register_webhook", "list"
Plant = tuple[str, Path, object]

STRIPE: list[Plant] = [
    (CREATE, ("line_items",), Misnamed("items")),
    (CREATE, ("line_items", 0, "price_data", "unit_amount"), Misnamed("amount")),
    (CREATE, ("line_items", 0, "price_data", "unit_amount"), 12500.5),
    (CREATE, ("line_items", 0, "price_data", "unit_amount"), "125.00"),
    (CREATE, ("line_items", 0, "price_data", "product_data", "name"), MISSING),
    (CREATE, ("line_items", 0, "quantity"), "one"),
    (CREATE, ("mode",), "pay"),
    (CREATE, ("locale",), "english"),
    (CREATE, ("payment_method_types",), ["card"]),  # gone since 2026-09-30
    (CREATE, ("metadata",), REFERENCE),
    (REFUND, ("amount",), "5.00"),
    (REFUND, ("reason",), "because"),
    (REFUND, ("payment_intent",), Misnamed("payment")),
    (REGISTER, ("enabled_events", 0), "payment.paid"),
    (REGISTER, ("api_version",), "2027-01-01"),
    (REGISTER, ("url",), MISSING),
    (LIST, ("created", "gte"), "yesterday"),
    (LIST, ("limit",), "all"),
]
PAYPAL: list[Plant] = [
    (CREATE, ("intent",), "TAKE"),
    (CREATE, ("purchase_units",), Misnamed("units")),
    (CREATE, ("purchase_units", 0, "amount", "value"), 125),
    (CREATE, ("purchase_units", 0, "amount", "value"), 125.0),
    (CREATE, ("purchase_units", 0, "amount", "value"), "125,00"),
    (CREATE, ("purchase_units", 0, "amount", "value"), Misnamed("amount")),
    (CREATE, ("purchase_units", 0, "amount", "currency_code"), "DOLLARS"),
    (CREATE, ("purchase_units", 0, "custom_id"), 42),
    (CREATE, ("payment_source", "paypal", "experience_context", "user_action"), "BUY"),
    (CREATE, ("payment_source", "paypal", "experience_context", "shipping_preference"), "NONE"),
    (REFUND, ("amount", "value"), 5.0),
    (REFUND, ("amount", "currency_code"), MISSING),
    (REFUND, ("amount",), "5.00"),
    (REGISTER, ("url",), MISSING),
    (REGISTER, ("event_types", 0), "PAYMENT.CAPTURE.COMPLETED"),
]
SQUARE: list[Plant] = [
    (CREATE, ("order", "location_id"), Misnamed("location")),
    (CREATE, ("order", "line_items", 0, "base_price_money", "amount"), "12500"),
    (CREATE, ("order", "line_items", 0, "base_price_money", "amount"), 12500.5),
    (CREATE, ("order", "line_items", 0, "base_price_money", "currency"), "dollars"),
    (CREATE, ("order", "line_items", 0, "quantity"), 1),
    (CREATE, ("order", "line_items", 0, "quantity"), MISSING),
    (CREATE, ("order", "reference_id"), 42),
    (CREATE, ("checkout_options", "allow_tipping"), "no"),
    (REFUND, ("idempotency_key",), MISSING),
    (REFUND, ("amount_money", "amount"), 5.5),
    (REFUND, ("amount_money",), Misnamed("money")),
    (REFUND, ("reason",), ["SERVICE_PROBLEM"]),
    (REGISTER, ("subscription",), MISSING),
    (REGISTER, ("subscription", "event_types"), "payment.updated"),
]


def planted(params: Any, path: Path, value: object) -> Any:
    """The parameters with the plant in them."""
    changed = copy.deepcopy(params)
    node = changed
    for step in path[:-1]:
        node = node[step]
    if isinstance(value, Misnamed):
        node[str(value)] = node.pop(path[-1])
    elif value is MISSING:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return changed


def refund_order(charge: str) -> RefundOrder:
    return RefundOrder(
        idempotency_key=f"{REFERENCE}:refund",
        request_reference=REFERENCE,
        charge_external_id=charge,
        amount_minor=500,
        currency="USD",
        reason=RefundReason.DUPLICATE,
    )


async def call(processor: Processor, name: str, charge: str) -> object:
    if name == CREATE:
        return await processor.create_checkout(order(idempotency_key="planted"))
    if name == REFUND:
        return await processor.refund(refund_order(charge))
    if name == REGISTER:
        return await processor.register_webhook()
    return await processor.list_checkouts(test_square.LONG_AGO)


async def refused(
    server: StripeServer | PayPalServer | SquareServer, processor: Processor, charge: str, name: str
) -> None:
    """Without the plant the contract has nothing to say; with it the call is refused, and nothing was made."""
    assert server.violations == []
    made = len(server.calls)
    with pytest.raises(IntegrationError) as wrong:
        await call(processor, name, charge)
    assert wrong.value.reason in ("invalid_request", "refused")
    assert not wrong.value.ambiguous
    assert len(server.violations) > 0
    assert [sent.operation is None for sent in server.calls[made:]][-1]


def ids(one: object) -> str:
    if isinstance(one, Contract):
        return one.name
    if isinstance(one, tuple):
        return f"{one[0]}-{'.'.join(map(str, one[1]))}"
    return str(one)


@pytest.mark.parametrize(
    "contract", [c for c in stripe_contract.contracts() if c.name != stripe_contract.OLD_FILE], ids=ids
)
@pytest.mark.parametrize("plant", STRIPE, ids=ids)
async def test_a_wrong_parameter_planted_in_stripe_is_refused(
    contract: Contract, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path, value = plant
    async with test_stripe.connected(contract) as (server, processor):
        paid = await processor.create_checkout(order(idempotency_key="paid"))
        server.pay(paid.external_id)
        (charge,) = (await processor.read_checkout(paid.external_id)).money
        assert charge.outcome is MoneyOutcome.SUCCEEDED
        v1 = processor._client.v1
        service, method = {
            CREATE: (v1.checkout.sessions, "create_async"),
            REFUND: (v1.refunds, "create_async"),
            REGISTER: (v1.webhook_endpoints, "create_async"),
            LIST: (v1.checkout.sessions, "list_async"),
        }[name]
        real = getattr(service, method)

        async def wrong(params: Any, *rest: Any) -> Any:
            return await real(planted(params, path, value), *rest)

        await call(processor, name, charge.external_id)
        monkeypatch.setattr(service, method, wrong)
        await refused(server, processor, charge.external_id, name)


async def plant_json(
    server: PayPalServer | SquareServer, processor: Any, charge: str, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path, value = plant
    real: Callable[..., Any] = processor._call

    async def wrong(method: str, address: str, *, body: Any = None, **more: Any) -> Any:
        changed = planted(body, path, value) if method == "POST" and body is not None else body
        return await real(method, address, body=changed, **more)

    await call(processor, name, charge)
    monkeypatch.setattr(processor, "_call", wrong)
    await refused(server, processor, charge, name)


@pytest.mark.parametrize("contract", paypal_server.contracts(), ids=ids)
@pytest.mark.parametrize("plant", PAYPAL, ids=ids)
async def test_a_wrong_parameter_planted_in_paypal_is_refused(
    contract: Contract, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with test_paypal.connected(contract) as (server, processor):
        paid = await processor.create_checkout(order(idempotency_key="paid"))
        server.approve(paid.external_id)
        server.capture_now(paid.external_id)
        charge = cast(str, server.capture_of(paid.external_id)["id"])
        await plant_json(server, processor, charge, plant, monkeypatch)


@pytest.mark.parametrize("contract", square_server.contracts(), ids=ids)
@pytest.mark.parametrize("plant", SQUARE, ids=ids)
async def test_a_wrong_parameter_planted_in_square_is_refused(
    contract: Contract, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with test_square.connected(contract) as (server, processor):
        paid = await processor.create_checkout(order(idempotency_key="paid"))
        server.pay(test_square.link_of(paid.external_id))
        charge = cast(str, server.payment_of(test_square.order_of(paid.external_id))["id"])
        await plant_json(server, processor, charge, plant, monkeypatch)


def test_every_provider_has_plants_of_each_kind() -> None:
    for plants in (STRIPE, PAYPAL, SQUARE):
        values = [value for _, _, value in plants]
        assert any(isinstance(value, Misnamed) for value in values)
        assert any(type(value) is float for value in values)
        assert any(type(value) is str for value in values)
        assert len({(name, path) for name, path, _ in plants}) >= 5
