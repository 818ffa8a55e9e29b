"""Inputs that connect payment processors."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.inputs.credentials import CredentialInput
from services.connections import processor_credentials, processor_settings

LIMIT = processor_credentials.SECRET_LIMIT


def _secret(description: str) -> str:
    return limited(description, LIMIT)


@strawberry.input(description="Stripe's keys. Those left out stay.")
class StripeCredentialsInput:
    secret_key: str | None = strawberry.field(
        default=None, description=_secret("A secret or restricted key: sk_… or rk_….")
    )
    webhook_secret: str | None = strawberry.field(
        default=None,
        description=_secret(
            "whsec_…. Without one, a webhook is registered if the key allows it, else webhooks are refused."
        ),
    )
    account: str | None = strawberry.field(
        default=None, description=_secret("For a platform's key (Connect): the account acct_… that it acts for.")
    )


@strawberry.input(
    description="The keys of a PayPal app. Those left out stay. They need testMode on the first connection."
)
class PayPalCredentialsInput:
    client_id: str | None = strawberry.field(default=None, description=_secret("The app's client ID."))
    client_secret: str | None = strawberry.field(default=None, description=_secret("The app's secret."))
    webhook_id: str | None = strawberry.field(
        default=None, description=_secret("The webhook's ID. Without one, a webhook is registered.")
    )


@strawberry.input(
    description="The keys of a Square application. Those left out stay. They need testMode on the first connection."
)
class SquareCredentialsInput:
    access_token: str | None = strawberry.field(default=None, description=_secret("The access token."))
    location_id: str | None = strawberry.field(
        default=None, description=_secret("The location that receives the money; it determines the currency.")
    )
    webhook_signature_key: str | None = strawberry.field(
        default=None, description=_secret("The webhook's signature key. Without one, a webhook is registered.")
    )
    currency: str | None = strawberry.field(
        default=None, description=_secret("The location's currency, e.g. USD; it is verified at Square.")
    )


@strawberry.input(description="A processor that an installed plug-in adds.")
class CustomCredentialsInput:
    provider: str = strawberry.field(description="The plug-in's name.")
    credentials: list[CredentialInput] | None = strawberry.field(
        default=None, description="What the plug-in needs, by its names; those left out stay."
    )


@strawberry.input(one_of=True, description="One processor and its credentials. Secrets are write-only.")
class ProcessorCredentialsInput:
    stripe: StripeCredentialsInput | None = strawberry.field(default=strawberry.UNSET, description="Stripe.")
    paypal: PayPalCredentialsInput | None = strawberry.field(default=strawberry.UNSET, description="PayPal.")
    square: SquareCredentialsInput | None = strawberry.field(default=strawberry.UNSET, description="Square.")
    sandbox: bool | None = strawberry.field(
        default=strawberry.UNSET, description="true: the sandbox, which makes its own keys; false is INVALID."
    )
    custom: CustomCredentialsInput | None = strawberry.field(
        default=strawberry.UNSET, description="A processor of a plug-in."
    )


@strawberry.input(description="A connection to a payment processor.")
class ConfigureProcessorInput:
    processor_id: strawberry.ID | None = strawberry.field(
        default=None,
        description="The connection to change. Default: the one of the same processor and mode, else a new one.",
    )
    credentials: ProcessorCredentialsInput | None = strawberry.field(
        default=None, description="The processor and its credentials. Required without processorId."
    )
    display_name: str | None = strawberry.field(
        default=None, description=limited("Its name for the team.", processor_settings.NAME_LIMIT)
    )
    test_mode: bool | None = strawberry.field(
        default=None,
        description="Test or live. Default: derived from the keys. Required where they don't show it, such as PayPal's"
        " and Square's.",
    )
    make_default: bool | None = strawberry.field(default=None, description="Whether new requests use it.")


@strawberry.input(description="The processor to test.")
class TestProcessorInput:
    processor_id: strawberry.ID = strawberry.field(description="The connection.")


@strawberry.input(description="The processor to disconnect.")
class DisconnectProcessorInput:
    processor_id: strawberry.ID = strawberry.field(description="The connection.")
