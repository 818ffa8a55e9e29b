"""Mutations: connections to payment processors."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

import strawberry
from strawberry.utils.str_converters import to_camel_case

from models.errors import Invalid, Refusal, Refusals
from resolvers.mutations.arguments import (
    credentials,
    given_fields,
    optional_row_id,
    place_credentials,
    refuse_repeated_credentials,
    row_id,
)
from resolvers.mutations.fields import mutation
from schema.account import Processor
from schema.context import Info
from schema.inputs.credentials import CredentialInput
from schema.inputs.processors import (
    ConfigureProcessorInput,
    CustomCredentialsInput,
    DisconnectProcessorInput,
    ProcessorCredentialsInput,
    TestProcessorInput,
)
from schema.payloads import ConfigureProcessorPayload, DisconnectProcessorPayload, TestProcessorPayload
from schema.user_errors import user_errors
from services.connections import processor_settings
from services.core.permissions import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The member of the oneOf input: its name, the processor, and what it gives."""

    branch: str
    kind: str
    provider: str | None
    credentials: dict[str, str] = field(repr=False)
    listed: Sequence[CredentialInput] = field(repr=False)


def _chosen(input: ProcessorCredentialsInput | None) -> _Chosen | None:
    if input is None:
        return None
    ((branch, given),) = given_fields(input, ("stripe", "paypal", "square", "sandbox", "custom")).items()
    listed = (given.credentials or ()) if isinstance(given, CustomCredentialsInput) else ()
    typed = {} if isinstance(given, bool | CustomCredentialsInput) else dataclasses.asdict(given)
    return _Chosen(
        branch=branch,
        kind=branch.upper(),
        provider=given.provider if isinstance(given, CustomCredentialsInput) else None,
        credentials=credentials(listed) | {name: value for name, value in typed.items() if value is not None},
        listed=listed,
    )


async def _processor_of(
    actor: Actor, input: ConfigureProcessorInput, chosen: _Chosen | None, refusals: Refusals
) -> str | None:
    with refusals:
        if chosen is None and input.processor_id is None:
            raise Invalid("Name the processor and its credentials.", field="credentials")
        if chosen is None:
            return await processor_settings.processor_of(actor, row_id(input.processor_id or "", "prc"))
        if chosen.branch == "sandbox" and not (input.credentials and input.credentials.sandbox):
            raise Invalid("Give true.", field="kind")
        return await processor_settings.provider_of(chosen.kind, chosen.provider)
    return None


def _place(refusal: Refusal, chosen: _Chosen | None) -> None:
    # From the service's names to the input's.
    if chosen is not None and chosen.branch == "custom":
        place_credentials(refusal, chosen.listed, ("credentials", "custom", "credentials"))
    for each in refusal.all:
        match each.field:
            case ("kind",) if chosen is not None:
                each.field = ("credentials", chosen.branch)
            case ("provider",):
                each.field = ("credentials", "custom", "provider")
            case ("credentials", *names) if chosen is None or chosen.branch != "custom":
                branch = () if chosen is None else (chosen.branch,)
                named = chosen is not None and chosen.branch != "sandbox" and names
                each.field = ("credentials", *branch, *([to_camel_case(names[0])] if named else []))


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
        actor = info.context.actor
        chosen = _chosen(input.credentials)
        settings: dict[str, Any] = {
            "connection_id": optional_row_id(input.processor_id, "prc"),
            "display_name": input.display_name,
            "test_mode": input.test_mode,
            "credentials": chosen.credentials if chosen is not None else {},
        }
        refusals = Refusals()
        try:
            processor = await _processor_of(actor, input, chosen, refusals)
            with refusals:
                refuse_repeated_credentials(chosen.listed if chosen is not None else ())
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
            _place(refusal, chosen)
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
