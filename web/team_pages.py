"""Pages behind the links of emails to users. The token is in the fragment, which no server sees: a script copies it into the
form, and without scripts the person pastes the link. GET consumes nothing, because mail scanners open addresses."""

from __future__ import annotations

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from models.errors import Invalid, RateLimited, Refusal
from services.accounts import accounts, login
from services.team import email_changes, invitations, passwords
from settings import Settings
from web.checkout import same_origin
from web.pages import error_page, render

# The script's own origin only: no other site gets a referrer, and forms keep their Origin header.
HEADERS: Final = {"referrer-policy": "same-origin", "cache-control": "no-store"}
FIELDS: Final = frozenset({"token", "name", "password", "again"})
_AGAIN: Final = "The two passwords differ."


async def join(request: Request) -> Response:
    return _page("join.html")


async def accept(request: Request) -> Response:
    if not same_origin(request):
        return error_page(403)
    form = await _form(request)
    try:
        _require_same(form)
        await invitations.accept(
            _token(form), name=form.get("name"), password=form.get("password", ""), client_address=_address(request)
        )
    except Refusal as refusal:
        return _page("join.html", form, refusal)
    return _done(request, "Welcome", "You can sign in now with your email address and the password that you chose.")


async def choose(request: Request) -> Response:
    return _page("reset_password.html")


async def reset(request: Request) -> Response:
    if not same_origin(request):
        return error_page(403)
    form = await _form(request)
    try:
        _require_same(form)
        await passwords.reset(_token(form), form.get("password", ""), client_address=_address(request))
    except Refusal as refusal:
        return _page("reset_password.html", form, refusal)
    return _done(request, "Your password is changed", "All devices are signed out. Sign in with the new password.")


async def look(request: Request) -> Response:
    return _page("confirm_email.html")


async def confirm(request: Request) -> Response:
    if not same_origin(request):
        return error_page(403)
    form = await _form(request)
    try:
        await email_changes.confirm(_token(form), client_address=_address(request))
    except Refusal as refusal:
        return _page("confirm_email.html", form, refusal)
    return _done(request, "Your email address is changed", "Sign in with the new address from now on.")


def _require_same(form: dict[str, str]) -> None:
    if form.get("password", "") != form.get("again", ""):
        raise Invalid(_AGAIN, field="again")


async def _form(request: Request) -> dict[str, str]:
    pairs = parse_qsl((await request.body()).decode("ascii", "replace"), keep_blank_values=True)
    return {name: value for name, value in pairs if name in FIELDS}


def _token(form: dict[str, str]) -> str:
    # A person without scripts pastes the whole link.
    return form.get("token", "").strip().rpartition("#")[2]


def _address(request: Request) -> str:
    found: str = request.scope.get("state", {}).get("client_address", "")
    return found


def _page(template: str, form: dict[str, str] | None = None, refusal: Refusal | None = None) -> Response:
    errors = (
        {each.field[0] if each.field else "general": each.message for each in refusal.all}
        if refusal is not None
        else {}
    )
    status = 200 if refusal is None else 429 if isinstance(refusal, RateLimited) else 422
    form = form or {}
    return render(
        template,
        status,
        headers=HEADERS,
        errors=errors,
        token=_token(form),
        person=form.get("name", ""),
        least=accounts.PASSWORD_LEAST,
        most=login.PASSWORD_LIMIT,
    )


def _done(request: Request, title: str, text: str) -> Response:
    settings: Settings = request.app.state.settings
    return render("team_done.html", headers=HEADERS, title=title, text=text, inbox_url=settings.inbox_url)


routes: Final = [
    Route(f"/{invitations.PAGE}", join, methods=["GET"]),
    Route(f"/{invitations.PAGE}", accept, methods=["POST"]),
    Route(f"/{passwords.PAGE}", choose, methods=["GET"]),
    Route(f"/{passwords.PAGE}", reset, methods=["POST"]),
    Route(f"/{email_changes.PAGE}", look, methods=["GET"]),
    Route(f"/{email_changes.PAGE}", confirm, methods=["POST"]),
]
