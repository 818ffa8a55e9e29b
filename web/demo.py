"""What the demo pages show of the demo's account: its access and its rows. Only where settings open the demo; reads only."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from starlette.requests import Request

from settings import Settings


class Access(Protocol):
    """The demo's sign-in, as services.demo.seed.seed gives it; `app.py` keeps it in `app.state.demo`."""

    @property
    def email(self) -> str: ...
    @property
    def password(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    @property
    def account_id(self) -> UUID: ...


def access(request: Request) -> Access | None:
    """The demo's access, or None: the demo is closed, or this server was started without it."""
    settings: Settings = request.app.state.settings
    found: Access | None = getattr(request.app.state, "demo", None)
    return found if settings.demo_open else None
