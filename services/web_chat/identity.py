"""The chat widget's visitors, and the identity that the site's server signs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar, Final
from uuid import UUID

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
    """A refusal of the visitor API; the subclass's docstring is its message."""

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
    """This identity is invalid or has expired."""

    code = "IDENTITY_INVALID"


async def widget(key: str) -> ChannelConnection | None:
    """The connection of a widget key; None if unknown, disconnected or allowed on no site."""
    connection_id = parse_public_id(key, "chn")
    return await open_widget(connection_id) if connection_id is not None else None


async def open_widget(connection_id: UUID) -> ChannelConnection | None:
    row = await ChannelConnection.get_or_none(id=connection_id, provider=web_chat.NAME)
    return row if row is not None and providers.usable(row) and row.allowed_origins else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    subject: str
    name: str | None
    email: str | None
    ends_at: datetime


def read_identity(connection: ChannelConnection, token: str) -> Identity:
    """The claims of an identity token: a JWT, HS256, at most 24 h.

    Raises: IdentityInvalid.
    Source: RFC 7519.
    """
    import jwt  # loads 2 MB: with the first identity

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
        raise ValueError("a claim must be text")
    return claim


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """An authenticated visitor; without its person's `identity` it may read nothing."""

    visitor_id: UUID
    account_id: UUID
    connection_id: UUID
    external_id: str | None  # the person it is bound to
    identity: Identity | None = None

    @property
    def expires_at(self) -> datetime | None:
        return self.identity.ends_at if self.identity is not None else None

    @property
    def limit_key(self) -> str:
        return self.visitor_id.hex

    @property
    def address(self) -> str:
        who = public_id("vis", self.visitor_id) if self.external_id is None else self.external_id
        return web_chat.address_of(who, public_id("chn", self.connection_id))

    @property
    def name(self) -> str:
        named = self.identity.name if self.identity is not None else None
        return named or f"Website visitor {public_id('vis', self.visitor_id)[-4:]}"

    def require_identity(self) -> None:
        if self.external_id is not None and self.identity is None:
            raise IdentityRequired
