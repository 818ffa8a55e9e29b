"""Inputs that connect channels."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.inputs.credentials import CredentialInput
from schema.inputs.descriptions import OPTIONAL_KEY
from schema.scalars import (
    ChannelKind,
)
from services.connections import allowed_origins as allowed_origins_service
from services.connections import channel_settings
from services.core import validation


@strawberry.input(description="A connection to a channel's provider.")
class ConnectChannelInput:
    idempotency_key: str | None = strawberry.field(default=None, description=OPTIONAL_KEY)
    kind: ChannelKind = strawberry.field(description="What kind of channel.")
    provider: str = strawberry.field(description="The adapter, e.g. twilio_sms or simulated.")
    channel_id: strawberry.ID | None = strawberry.field(
        default=None, description="The connection to change. Default: a new one."
    )
    display_name: str | None = strawberry.field(
        default=None, description=limited("Its name for the team.", channel_settings.NAME_LIMIT)
    )
    sender: str | None = strawberry.field(
        default=None, description=limited("Our own address on it, e.g. the phone number.", validation.ADDRESS_LIMIT)
    )
    credentials: list[CredentialInput] | None = strawberry.field(
        default=None, description="What the provider needs; those left out stay."
    )
    allowed_origins: list[str] | None = strawberry.field(
        default=None,
        description=limited(
            "Web chat only: the sites that may show the widget, e.g. https://shop.example, https://*.example.com or"
            f" http://localhost:3000. Empty: none may. Left out: as it was. At most {allowed_origins_service.LIMIT} sites.",
            allowed_origins_service.LONGEST,
        ),
    )


@strawberry.input(description="The channel to test.")
class TestChannelInput:
    channel_id: strawberry.ID = strawberry.field(description="The channel.")


@strawberry.input(description="The channel to disconnect.")
class DisconnectChannelInput:
    channel_id: strawberry.ID = strawberry.field(description="The channel.")


@strawberry.input(description="The web chat that gets a new identity secret.")
class RotateIdentitySecretInput:
    idempotency_key: str | None = strawberry.field(default=None, description=OPTIONAL_KEY)
    channel_id: strawberry.ID = strawberry.field(description="The channel.")
