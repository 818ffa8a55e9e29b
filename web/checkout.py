"""The checkout page behind a payment link. GET and HEAD record nothing, because robots open links."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import structlog
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from models.errors import ProcessorRejected, ProcessorUnavailable, Refusal
from models.ledger import Status
from models.money import Money
from models.tables import PaymentRequest
from services.payments import checkout, checkout_page, checkout_reads, link_releases, projection
from settings import Settings
from web import lengthened
from web.pages import PAGE_HEADERS, error_page, render
from web.texts import Words

log = structlog.get_logger(__name__)

TOKEN_LENGTH: Final = 22  # characters

# Programs that run scripts: link previews, mail scanners, search engines, monitors.
_ROBOT: Final = re.compile(
    r"bot\b|bot/|crawl|spider|preview|scan|monitor|facebookexternalhit|whatsapp|telegram|slack|discord|skypeuri|embedly"
    r"|lighthouse|pingdom|headless|phantomjs|puppeteer|playwright|selenium|jsdom|prerender|pagerenderer|urldefense|safelinks"
    r"|barracuda|mimecast|proofpoint|fireeye|trellix|forcepoint|cloudmark|symantec|trendmicro|sophos|zscaler|virustotal|urlscan"
    r"|googlemessages|google-safety|imageproxy|mailproxy|read-aloud"
    r"|curl/|wget/|python|go-http|okhttp|java/|axios/|node-fetch|undici|libwww|apache-httpclient|guzzle|aiohttp|faraday",
    re.IGNORECASE,
)

_HTTP: Final = {"open": 200, "processing": 200, "review": 200, "paid": 200, "void": 410}


def is_robot(user_agent: str) -> bool:
    """Whether the user agent names a program, or is empty."""
    return not user_agent or _ROBOT.search(user_agent) is not None


def _is_machine(request: Request) -> bool:
    purpose = f"{request.headers.get('sec-purpose', '')} {request.headers.get('purpose', '')} {request.headers.get('x-moz', '')}"
    return "prefetch" in purpose or "prerender" in purpose or "headless" in request.headers.get("sec-ch-ua", "").lower()


def same_origin(request: Request) -> bool:
    """Whether a POST comes from this server's pages, or has no Origin."""
    origin = request.headers.get("origin")
    if origin is None:
        return True
    settings: Settings = request.app.state.settings
    try:
        host = urlsplit(origin).netloc
    except ValueError:  # such as "http://["
        return False
    return origin in settings.origins or host == request.headers.get("host")


async def _find(request: Request) -> PaymentRequest | None:
    return await checkout_page.find(request.path_params["token"])


async def stray(request: Request) -> Response:
    """Redirect an address with characters after its token to the page."""
    for token in lengthened.tokens(request.path_params["rest"], TOKEN_LENGTH):
        if await checkout_page.find(token) is not None:
            return RedirectResponse(f"/p/{token}", 303, {**PAGE_HEADERS})
    return error_page(404)


async def show(request: Request) -> Response:
    found = await _find(request)
    if found is None:
        return error_page(404)
    if request.method == "GET":  # the cancel address of an ended checkout leads here
        found = await checkout_reads.refresh(found)
    return await _page(request, found)


async def pay(request: Request) -> Response:
    """Redirect to the processor's page, or show why there is nothing to pay."""
    if not same_origin(request):
        return error_page(403)
    found = await _find(request)
    if found is None:
        return error_page(404)
    try:
        opened = await checkout.open_checkout(request.path_params["token"])
    except checkout.ConnectionUnusable:
        return await _page(request, found, unavailable=503, refused=True)
    except ProcessorUnavailable:
        return await _page(request, found, unavailable=503)
    except ProcessorRejected:
        return await _page(request, found, unavailable=502, refused=True)
    if opened.url is None:
        # Paid, voided or changed in another tab: show the current state.
        fresh = await _find(request)
        return error_page(404) if fresh is None else await _page(request, fresh)
    origin = checkout_page.origin_of(opened.url)
    by_browser = request.headers.get("sec-fetch-dest") == "document"
    settings: Settings = request.app.state.settings
    if by_browser and origin not in (None, *settings.origins, *await checkout_page.declared_origins(found)):
        # Chromium refuses this redirect if the page's form-action lacks the origin; a page without a form may redirect.
        return render("leading.html", url=opened.url)
    return RedirectResponse(opened.url, 303, {**PAGE_HEADERS})


async def another_way(request: Request) -> Response:
    """Release a link held by a delayed payment, once the contact has confirmed."""
    if not same_origin(request):
        return error_page(403)
    found = await _find(request)
    if found is None:
        return error_page(404)
    form = parse_qsl((await request.body()).decode("ascii", "replace"))
    if ("confirm", "yes") not in form:
        return await _page(request, found, unconfirmed=True)
    try:
        await link_releases.release_by_contact(found)
    except ProcessorUnavailable:
        return await _page(request, found, unavailable=503)
    except Refusal as refusal:  # paid, released or voided since: show the current state
        log.info("link_not_released", reason=refusal.code)
    return RedirectResponse(f"/p/{request.path_params['token']}", 303, {**PAGE_HEADERS})


async def returned(request: Request) -> Response:
    """Request a read of the checkout, then show the page. Never marks paid."""
    token = request.path_params["token"]
    if await _find(request) is None:
        return error_page(404)
    if request.method == "GET":
        await checkout_reads.returned(token)
    return RedirectResponse(f"/p/{token}", 303, {**PAGE_HEADERS})


async def view(request: Request) -> Response:
    if not same_origin(request):
        return error_page(403)
    if await _find(request) is None:
        return error_page(404)
    human = not is_robot(request.headers.get("user-agent", "")) and not _is_machine(request)
    await checkout_page.record_view(request.path_params["token"], human=human)
    return Response(status_code=204, headers={**PAGE_HEADERS})


async def _page(
    request: Request,
    found: PaymentRequest,
    *,
    unavailable: int | None = None,
    refused: bool = False,  # a retry does not help
    unconfirmed: bool = False,
) -> Response:
    settings: Settings = request.app.state.settings
    try:
        page = await checkout_page.page(found)
    except ProcessorUnavailable:
        return error_page(503)  # its connection is closed by the settings or not complete
    status = _HTTP[page.state]
    if page.state in ("open", "processing"):
        status = unavailable or (422 if unconfirmed and page.releasable else status)
    path = f"/p/{request.path_params['token']}"
    values = {
        **_values(found, page),
        "unavailable": unavailable is not None,
        "refused": refused,
        "unconfirmed": unconfirmed,
        "url": f"{settings.base_url}{path}",
        "path": path,
    }
    # The public origin, for pages opened under another of this server's names (127.0.0.1).
    return render("checkout.html", status, form_actions=(settings.origins[0], *page.origins), **values)


def _values(found: PaymentRequest, page: checkout_page.CheckoutPage) -> dict[str, Any]:
    account, begun = page.account, page.under_way
    return {
        "words": Words.of(account.locale, account.time_zone),
        "state": page.state,
        "tag": _tag(found, page.state),
        "closing": found.void_requested_at is not None and found.status != Status.PROCESSING,
        "declined": page.state == "open" and page.last_attempt_failed,
        "begun_at": begun.processing_at if begun is not None else None,
        "begun_method": begun.delayed_method if begun is not None else None,
        "begun_until": begun.delayed_until if begun is not None else None,
        "releasable": page.releasable,
        "business": account.name,
        "product": found.product_name,
        "description": found.description,
        "number": found.number,
        "asked": page.asked,
        "due": page.due,
        "paid": page.paid,
        "partly_paid": 0 < page.paid.amount_minor < page.asked.amount_minor,
        "refunded": Money(found.refunded_minor, found.currency),
        "paid_at": found.paid_at,
        "received": page.received,
        "method": ", ".join(page.methods),
        "due_at": found.due_at,
        "overdue": found.due_at is not None and found.due_at < datetime.now(UTC),
        "test_mode": found.test_mode,
        "processor": page.processor_name,
        "email": account.contact_email,
        "phone": account.contact_phone,
    }


async def live(request: Request) -> Response:
    """The state, polled by the open page's script."""
    found = await _find(request)
    if found is None:
        return error_page(404)
    state = await checkout_page.state_now(found)
    return JSONResponse({"state": state, "tag": _tag(found, state)}, headers={**PAGE_HEADERS})


def _tag(found: PaymentRequest, state: str) -> str:
    # Not the version: every view of the page increments it.
    money = (
        f"{found.amount_minor} {found.amount_paid_minor} {found.refunded_minor} {found.excess_minor} {found.unresolved}"
    )
    release = f"{projection.is_releasable(found)} {found.releasable_at} {found.released_at}"
    shown = f"{found.id} {state} {found.status} {money} {found.last_attempt_at} {found.void_requested_at} {release}"
    return hashlib.sha256(shown.encode()).hexdigest()[:24]


class _Token(StringConvertor):
    regex = rf"[A-Za-z0-9_-]{{{TOKEN_LENGTH}}}(?!\n)"  # `$` matches before a final line feed, too


register_url_convertor("token", _Token())

routes: Final = [
    Route("/p/{token:token}", show, methods=["GET"]),
    Route("/p/{token:token}/pay", pay, methods=["POST"]),
    Route("/p/{token:token}/another-way", another_way, methods=["POST"]),
    Route("/p/{token:token}/return", returned, methods=["GET"]),
    Route("/p/{token:token}/live", live, methods=["GET"]),
    Route("/p/{token:token}/view", view, methods=["POST"]),
    Route("/p/{rest:rest}", stray, methods=["GET", "POST"]),
]
