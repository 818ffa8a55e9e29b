"""Who a visitor of the chat widget is: the widget, the identity that the site's server signs, and the visit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final
from uuid import UUID

import jwt

from integrations.channels import web_chat
from models.errors import Refusal
from models.ids import parse_public_id, public_id
from models.tables import ChannelConnection
from services.connections import providers
from services.core import validation
from services.messaging import contacts

KIND: Final = "WEB_CHAT"
IDENTITY_LIMIT: Final = 4096  # characters
IDENTITY_LIFE: Final = timedelta(hours=24)
LEEWAY: Final = timedelta(seconds=60)  # between the site's clock and ours
SUBJECT_LIMIT: Final = 120


class VisitRefused(Exception):
    """A refusal of the visitor API. The docstring of the subclass is the message."""

    code: ClassVar[str]

    def __init__(self) -> None:
        self.message = (self.__doc__ or "").strip()
        super().__init__(self.message)


class WidgetClosed(VisitRefused):
    """There is no chat here."""

    code = "WIDGET_CLOSED"


class IdentityRequired(VisitRefused):
    """This conversation belongs to a signed-in user: sign in on the site again."""

    code = "IDENTITY_REQUIRED"


class IdentityInvalid(VisitRefused):
    """This identity is not valid, or no longer."""

    code = "IDENTITY_INVALID"


async def widget(key: str) -> ChannelConnection | None:
    """The web chat of a widget key; None if it is unknown, disconnected, or allowed on no site."""
    connection_id = parse_public_id(key, "chn")
    return await open_widget(connection_id) if connection_id is not None else None


async def open_widget(connection_id: UUID) -> ChannelConnection | None:
    """`widget`, by the connection's id."""
    row = await ChannelConnection.get_or_none(id=connection_id, provider=web_chat.NAME)
    return row if row is not None and providers.usable(row) and row.allowed_origins else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the site's server says the visitor is."""

    subject: str
    name: str | None
    email: str | None
    ends_at: datetime


def read_identity(connection: ChannelConnection, token: str) -> Identity:
    """The claims of a JWT that the site's server signed for this widget (HS256, at most 24 h). Raises: IdentityInvalid.

    Source: RFC 7519. Required: aud (the widget key), sub, iat, exp; optional: name, email.
    """
    if len(token) > IDENTITY_LIMIT:
        raise IdentityInvalid
    try:
        claims = jwt.decode(
            token,
            providers.credentials_of(connection)["identity_secret"],
            algorithms=["HS256"],
            audience=public_id("chn", connection.id),
            options={"require": ["aud", "sub", "iat", "exp"]},
            leeway=LEEWAY,
        )
        ends_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
        if ends_at - datetime.fromtimestamp(int(claims["iat"]), UTC) > IDENTITY_LIFE:
            raise IdentityInvalid
        subject = validation.required(claims["sub"], limit=SUBJECT_LIMIT, field="sub")
        # Exactly as signed, and never in the form of an anonymous visitor's id.
        if subject != claims["sub"] or parse_public_id(subject, "vis") is not None:
            raise IdentityInvalid
        return Identity(
            subject=subject,
            name=validation.optional(_text_claim(claims.get("name")), limit=contacts.NAME_LIMIT, field="name"),
            email=validation.email(_text_claim(claims.get("email")), field="email"),
            ends_at=ends_at + LEEWAY,
        )
    except (jwt.InvalidTokenError, Refusal, ValueError, OverflowError) as error:
        raise IdentityInvalid from error


def _text_claim(claim: object) -> str | None:
    if claim is not None and not isinstance(claim, str):
        raise ValueError("a claim is a text")
    return claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """An authenticated visitor. `external_id`: the person it is bound to. `identity`: shown and valid for that person."""

    visitor_id: UUID
    account_id: UUID
    connection_id: UUID
    external_id: str | None
    identity: Identity | None = None

    @property
    def expires_at(self) -> datetime | None:
        """When the identity expires."""
        return self.identity.ends_at if self.identity is not None else None

    @property
    def limit_key(self) -> str:
        """The key by which this browser is rate limited."""
        return self.visitor_id.hex

    @property
    def address(self) -> str:
        """The address on the channel: the person's if known, else this browser's."""
        who = public_id("vis", self.visitor_id) if self.external_id is None else self.external_id
        return web_chat.address_of(who, public_id("chn", self.connection_id))

    @property
    def name(self) -> str:
        """The contact's first name in the inbox."""
        named = self.identity.name if self.identity is not None else None
        return named or f"Website visitor {public_id('vis', self.visitor_id)[-4:]}"

    def require_identity(self) -> None:
        """A person's conversation needs that person's identity. Raises: IdentityRequired."""
        if self.external_id is not None and self.identity is None:
            raise IdentityRequired
