"""Mutations of the sandbox processor."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers.mutations.arguments import row_id
from resolvers.mutations.fields import mutation
from schema.context import Info
from schema.payment_request import PaymentRequest
from schema.sandbox import RunSandboxScenarioInput, RunSandboxScenarioPayload
from services.demo import scenarios


@strawberry.type
class SandboxMutations:
    @mutation(
        "For developers: run a scenario of the sandbox processor on a request, with signed webhooks. The schema of a"
        " server without the sandbox (SANDBOX) does not have it."
    )
    async def run_sandbox_scenario(
        self,
        info: Info,
        input: Annotated[RunSandboxScenarioInput, strawberry.argument(description="The request and the scenario.")],
    ) -> RunSandboxScenarioPayload:
        request = await scenarios.run(
            info.context.actor,
            payment_request_id=row_id(input.payment_request_id, "pr"),
            scenario=input.scenario.name,
            seed=input.seed,
        )
        return RunSandboxScenarioPayload(payment_request=PaymentRequest.from_row(request))
