"""The sandbox's addresses: its API under /sandbox/v1 and its hosted page under /sandbox/pay."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from models.money import Money
from models.tables import ProcessorConnection, SandboxCheckout
from services.sandbox import checkouts, hosted_page, refunds
from services.sandbox.checkouts import SandboxRefusal
from web import pages

# --------------------------------------------------------------------------------------------------------------- API
_Call = Callable[[Request, ProcessorConnection], Awaitable[tuple[int, dict[str, Any]]]]


def _api(call: _Call) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        try:
            scheme, _, key = request.headers.get("authorization", "").partition(" ")
            account = request.headers.get("paythread-sandbox-account", "")
            connection = await checkouts.authenticate(account, key if scheme.lower() == "bearer" else "")
            status, payload = await call(request, connection)
        except SandboxRefusal as refusal:
            status, payload = refusal.status, {"error": {"code": refusal.code, "message": refusal.message}}
        return Response(orjson.dumps(payload), status, media_type="application/json")

    return endpoint


async def _create(request: Request, connection: ProcessorConnection) -> tuple[int, dict[str, Any]]:
    try:
        order = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise SandboxRefusal(400, "invalid_request", "The body is not JSON.") from None
    return 200, await checkouts.create(connection, request.headers.get("idempotency-key"), order)


async def _read(request: Request, connection: ProcessorConnection) -> tuple[int, dict[str, Any]]:
    return 200, await checkouts.read(connection, request.path_params["external_id"])


async def _refund(request: Request, connection: ProcessorConnection) -> tuple[int, dict[str, Any]]:
    try:
        order = orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        raise SandboxRefusal(400, "invalid_request", "The body is not JSON.") from None
    key = request.headers.get("idempotency-key")
    return 200, await refunds.refund(connection, request.path_params["external_id"], key, order)


async def _read_refund(request: Request, connection: ProcessorConnection) -> tuple[int, dict[str, Any]]:
    return 200, await refunds.read_refund(connection, request.path_params["refund_id"])


async def _cancel(request: Request, connection: ProcessorConnection) -> tuple[int, dict[str, Any]]:
    return 200, await checkouts.cancel(connection, request.path_params["external_id"])


async def _expire(request: Request, connection: ProcessorConnection) -> tuple[int, dict[str, Any]]:
    return 200, await checkouts.expire(connection, request.path_params["external_id"])


# -------------------------------------------------------------------------------------------------------------- page
async def _found(request: Request) -> SandboxCheckout:
    row = await checkouts.find(request.path_params["external_id"])
    if row is None:
        raise HTTPException(404)
    return row


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _render(row: SandboxCheckout, template: str, status: int) -> Response:
    # A button redirects to the merchant's addresses; Chromium applies form-action to that redirect, too.
    return pages.render(
        template,
        status,
        form_actions=[_origin(row.success_url), _origin(row.cancel_url)],
        state=row.status.lower(),
        business=row.business_name,
        product=row.product_name,
        description=row.description,
        number=row.number,
        amount=Money(row.amount_minor, row.currency).formatted("en_US"),
        currency=row.currency,
        declined=row.status == "OPEN" and hosted_page.declined(row),
        path=f"/sandbox/pay/{row.external_id}",
        cancel_url=row.cancel_url,
        refused=status == 409,
    )


async def show(request: Request) -> Response:
    row = await _found(request)
    return _render(row, "sandbox/pay.html", 410 if row.status in ("EXPIRED", "FAILED") else 200)


async def challenge(request: Request) -> Response:
    """The page of the simulated bank check."""
    row = await _found(request)
    if row.status != "OPEN":
        return _render(row, "sandbox/pay.html", 409)
    return _render(row, "sandbox/challenge.html", 200)


async def press(request: Request) -> Response:
    """Apply a button of the hosted page, then redirect."""
    external_id = request.path_params["external_id"]
    try:
        form = dict(parse_qsl((await request.body()).decode("ascii", "replace")))
        if form.get("action") == "challenge":
            row = await _found(request)
            if row.status != "OPEN":
                return _render(row, "sandbox/pay.html", 409)
            return RedirectResponse(f"/sandbox/pay/{external_id}/challenge", 303, _headers())
        performed = await hosted_page.perform(external_id, form.get("action", ""))
    except SandboxRefusal as refusal:
        if refusal.status != 409:
            raise HTTPException(refusal.status) from refusal
        return _render(await _found(request), "sandbox/pay.html", 409)
    return RedirectResponse(performed.location or f"/sandbox/pay/{external_id}", 303, _headers())


def _headers() -> dict[str, str]:
    return {**pages.PAGE_HEADERS, "content-security-policy": pages.content_security_policy()}


routes: Final = [
    Route("/sandbox/v1/checkouts", _api(_create), methods=["POST"]),
    Route("/sandbox/v1/checkouts/{external_id}", _api(_read), methods=["GET"]),
    Route("/sandbox/v1/checkouts/{external_id}/expire", _api(_expire), methods=["POST"]),
    Route("/sandbox/v1/checkouts/{external_id}/cancel", _api(_cancel), methods=["POST"]),
    Route("/sandbox/v1/checkouts/{external_id}/refunds", _api(_refund), methods=["POST"]),
    Route("/sandbox/v1/refunds/{refund_id}", _api(_read_refund), methods=["GET"]),
    Route("/sandbox/pay/{external_id}", show, methods=["GET"]),
    Route("/sandbox/pay/{external_id}", press, methods=["POST"]),
    Route("/sandbox/pay/{external_id}/challenge", challenge, methods=["GET"]),
]
