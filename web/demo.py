"""The demo account's sign-in, for the pages that show it."""

from __future__ import annotations

from typing import Protocol
from uuid import UUID

from starlette.requests import Request

from settings import Settings


class Access(Protocol):
    """The demo's sign-in, in `app.state.demo`."""

    @property
    def email(self) -> str: ...
    @property
    def password(self) -> str: ...
    @property
    def api_key(self) -> str: ...
    @property
    def account_id(self) -> UUID: ...


def access(request: Request) -> Access | None:
    """None if the demo is closed."""
    settings: Settings = request.app.state.settings
    found: Access | None = getattr(request.app.state, "demo", None)
    return found if settings.demo_open else None
