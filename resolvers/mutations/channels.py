"""Mutations: connections to channels."""

from __future__ import annotations

from typing import Annotated, Any

import strawberry

from models.errors import Refusal, Refusals
from resolvers.mutations.arguments import (
    credentials,
    optional_row_id,
    place_credentials,
    refuse_repeated_credentials,
    row_id,
)
from resolvers.mutations.fields import mutation
from schema.account import Channel
from schema.context import Info
from schema.inputs.channels import (
    ConnectChannelInput,
    DisconnectChannelInput,
    RotateIdentitySecretInput,
    TestChannelInput,
)
from schema.payloads import (
    ConnectChannelPayload,
    DisconnectChannelPayload,
    RotateIdentitySecretPayload,
    TestChannelPayload,
)
from schema.user_errors import user_errors
from services.connections import channel_settings


@strawberry.type
class ChannelMutations:
    @mutation(
        "Settings → Channels: connect a channel, or change its connection. For owners and admins.",
        renamed={"connectionId": "channelId"},
        not_found="channelId",
    )
    async def connect_channel(
        self, info: Info, input: Annotated[ConnectChannelInput, strawberry.argument(description="The channel.")]
    ) -> ConnectChannelPayload:
        settings: dict[str, Any] = {
            "kind": input.kind.name,
            "provider": input.provider,
            "connection_id": optional_row_id(input.channel_id, "chn"),
            "display_name": input.display_name,
            "sender": input.sender,
            "credentials": credentials(input.credentials),
            "allowed_origins": input.allowed_origins,
        }
        refusals = Refusals()
        with refusals:
            refuse_repeated_credentials(input.credentials)
        try:
            if refusals:
                # Report everything that is wrong, not only the credentials.
                with refusals:
                    await channel_settings.check(info.context.actor, **settings)
                refusals.raise_any()
            row = await channel_settings.connect_channel(
                info.context.actor, **settings, idempotency_key=input.idempotency_key
            )
        except Refusal as refusal:
            place_credentials(refusal, input.credentials)
            raise
        return ConnectChannelPayload(channel=Channel.from_row(row))

    @mutation(
        "Settings → Channels: check the stored credentials with the channel's provider; lastError has its"
        " answer. For owners and admins.",
        not_found="channelId",
    )
    async def test_channel(
        self, info: Info, input: Annotated[TestChannelInput, strawberry.argument(description="The channel.")]
    ) -> TestChannelPayload:
        row, refusal = await channel_settings.check_channel(info.context.actor, row_id(input.channel_id, "chn"))
        return TestChannelPayload(channel=Channel.from_row(row), user_errors=await user_errors(info, refusal))

    @mutation(
        "Disconnect a channel; its messages stay. For owners and admins.",
        renamed={"connectionId": "channelId"},
        not_found="channelId",
    )
    async def disconnect_channel(
        self, info: Info, input: Annotated[DisconnectChannelInput, strawberry.argument(description="The channel.")]
    ) -> DisconnectChannelPayload:
        row = await channel_settings.disconnect_channel(info.context.actor, row_id(input.channel_id, "chn"))
        return DisconnectChannelPayload(channel=Channel.from_row(row))

    @mutation(
        "Web chat: create a new secret for the site's server to sign its visitors' identities; the old secret stops working."
        " For owners and admins."
    )
    async def rotate_identity_secret(
        self, info: Info, input: Annotated[RotateIdentitySecretInput, strawberry.argument(description="The web chat.")]
    ) -> RotateIdentitySecretPayload:
        row, secret = await channel_settings.rotate_identity_secret(
            info.context.actor, row_id(input.channel_id, "chn"), idempotency_key=input.idempotency_key
        )
        return RotateIdentitySecretPayload(channel=Channel.from_row(row), secret=secret)
