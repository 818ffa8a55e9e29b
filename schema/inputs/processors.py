"""Inputs that connect payment processors."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.inputs.credentials import CredentialInput
from schema.scalars import (
    ProcessorKind,
)
from services.connections import processor_credentials, processor_settings


@strawberry.input(description="A connection to a payment processor. Secrets are write-only.")
class ConfigureProcessorInput:
    kind: ProcessorKind = strawberry.field(description="Which processor.")
    provider: str | None = strawberry.field(
        default=None, description="The plug-in's name, for kind CUSTOM only; any other kind names its own."
    )
    processor_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The connection to change. Default: the one of the same kind and mode, else a new one.",
    )
    display_name: str | None = strawberry.field(
        default=None, description=limited("Its name for the team.", processor_settings.NAME_LIMIT)
    )
    test_mode: bool | None = strawberry.field(
        default=None,
        description="Test or live. Default: derived from the keys. Required where they don't show it, such as PayPal's"
        " and Square's.",
    )
    credentials: list[CredentialInput] | None = strawberry.field(
        default=None,
        description="What the processor needs, by the names in docs/howto/connect-processors.md; those left out stay.",
    )
    secret_key: str | None = strawberry.field(
        default=None, description=limited("Short for the credential secret_key.", processor_credentials.SECRET_LIMIT)
    )
    webhook_secret: str | None = strawberry.field(
        default=None,
        description=limited(
            "Short for the credential webhook_secret. If no webhook secret is given, a webhook is registered at the"
            " processor if it allows that; without one its webhooks are refused.",
            processor_credentials.SECRET_LIMIT,
        ),
    )
    make_default: bool | None = strawberry.field(default=None, description="Whether new requests use it.")


@strawberry.input(description="The processor to test.")
class TestProcessorInput:
    processor_id: strawberry.ID = strawberry.field(description="The connection.")


@strawberry.input(description="The processor to disconnect.")
class DisconnectProcessorInput:
    processor_id: strawberry.ID = strawberry.field(description="The connection.")
