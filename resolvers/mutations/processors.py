"""Mutations: connections to payment processors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import strawberry

from models.errors import Invalid, Refusal, Refusals
from resolvers.mutations.arguments import credentials, optional_row_id, refuse_repeated_credentials, row_id
from resolvers.mutations.fields import mutation
from schema.account import Processor
from schema.context import Info
from schema.inputs.processors import ConfigureProcessorInput, DisconnectProcessorInput, TestProcessorInput
from schema.payloads import ConfigureProcessorPayload, DisconnectProcessorPayload, TestProcessorPayload
from schema.user_errors import user_errors
from services.connections import processor_settings, providers

# Credentials that have a field of their own in ConfigureProcessorInput.
SHORT_FIELDS: Final[Mapping[str, str]] = {"secret_key": "secretKey", "webhook_secret": "webhookSecret"}


def _short_credentials(input: ConfigureProcessorInput) -> dict[str, str | None]:
    return {"secret_key": input.secret_key, "webhook_secret": input.webhook_secret}


async def _processor_of(input: ConfigureProcessorInput, refusals: Refusals) -> str | None:
    with refusals:
        return await processor_settings.provider_of(input.kind.name, input.provider)
    own = processor_settings.built_in(input.kind.name)
    return None if input.provider in providers.KINDS and input.provider != own else own


def _check_credentials(input: ConfigureProcessorInput, refusals: Refusals) -> None:
    listed = credentials(input.credentials)
    with refusals:
        refuse_repeated_credentials(input.credentials)
    for name, value in _short_credentials(input).items():
        with refusals:
            if value is not None and name in listed:
                raise Invalid("Give this secret once.", field=SHORT_FIELDS[name])


def _name_short_fields(input: ConfigureProcessorInput, refusal: Refusal) -> None:
    listed = credentials(input.credentials)
    for each in refusal.all:
        _, *names = each.field or ("",)
        if names and names[0] in SHORT_FIELDS and names[0] not in listed:
            each.field = (SHORT_FIELDS[names[0]],)


@strawberry.type
class ProcessorMutations:
    @mutation(
        "Settings → Payments: connect a processor, or change its connection. The credentials are checked with"
        " the processor before anything is stored. For owners and admins.",
        renamed={"connectionId": "processorId"},
        not_found="processorId",
    )
    async def configure_processor(
        self, info: Info, input: Annotated[ConfigureProcessorInput, strawberry.argument(description="The processor.")]
    ) -> ConfigureProcessorPayload:
        settings: dict[str, Any] = {
            "connection_id": optional_row_id(input.processor_id, "prc"),
            "display_name": input.display_name,
            "test_mode": input.test_mode,
            "credentials": credentials(input.credentials)
            | {name: value for name, value in _short_credentials(input).items() if value},
        }
        actor = info.context.actor
        refusals = Refusals()
        processor = await _processor_of(input, refusals)
        _check_credentials(input, refusals)
        try:
            if refusals or processor is None:
                # Report everything that is wrong, not only the first error.
                with refusals:
                    await processor_settings.check(actor, processor=processor, **settings)
                refusals.raise_any()
            assert processor is not None  # noqa: S101 (refused above)
            row = await processor_settings.configure_processor(
                actor, processor=processor, make_default=input.make_default, **settings
            )
        except Refusal as refusal:
            _name_short_fields(input, refusal)
            raise
        return ConfigureProcessorPayload(processor=Processor.from_row(row))

    @mutation(
        "Settings → Payments: check the stored credentials with the processor; lastError has its answer. For"
        " owners and admins.",
        not_found="processorId",
    )
    async def test_processor(
        self, info: Info, input: Annotated[TestProcessorInput, strawberry.argument(description="The processor.")]
    ) -> TestProcessorPayload:
        row, refusal = await processor_settings.check_processor(info.context.actor, row_id(input.processor_id, "prc"))
        return TestProcessorPayload(processor=Processor.from_row(row), user_errors=await user_errors(info, refusal))

    @mutation(
        "Disconnect a processor. Open requests on it stay payable until voided; their money is still recorded."
        " For owners and admins.",
        renamed={"connectionId": "processorId"},
        not_found="processorId",
    )
    async def disconnect_processor(
        self, info: Info, input: Annotated[DisconnectProcessorInput, strawberry.argument(description="The processor.")]
    ) -> DisconnectProcessorPayload:
        row = await processor_settings.disconnect_processor(info.context.actor, row_id(input.processor_id, "prc"))
        return DisconnectProcessorPayload(processor=Processor.from_row(row))
