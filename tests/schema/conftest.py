"""The schema executed in this process, as the transport executes it, over a configured team and a running hub."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
from strawberry.types import ExecutionResult

from integrations.broadcast import open_bus
from models import database as db
from models import event_log
from resolvers.assemble import build_schema, new_context
from resolvers.transport.executor import PerEventContext
from resolvers.transport.schema import Schema
from services.core import unit_of_work
from services.core.event_hub import Hub
from services.core.permissions import Actor
from tests.services.conftest import Team, configured, team

__all__ = ["configured", "team"]

SCHEMA = build_schema(production=False)
EXECUTOR: Any = SCHEMA.execution_context_class


class Failed(AssertionError):
    """Top-level errors."""

    def __init__(self, errors: list[Any]) -> None:
        super().__init__("; ".join(error.message for error in errors))
        self.codes = [(error.extensions or {}).get("code") for error in errors]


@dataclass
class Api:
    """Runs operations as `viewer`, unless a call names another; None is anonymous."""

    viewer: Actor | None
    hub: Hub
    schema: Schema = SCHEMA

    async def result(
        self, document: str, variables: Mapping[str, Any] | None = None, **options: Any
    ) -> ExecutionResult:
        context = new_context(
            hub=self.hub, viewer=options.get("viewer", self.viewer), client_address="192.0.2.1", request_id="request-1"
        )
        return await self.schema.execute(document, variable_values=dict(variables or {}), context_value=context)

    async def all(self, document: str, variables: Mapping[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        """The data. Raises: Failed."""
        result = await self.result(document, variables, **options)
        if result.errors:
            raise Failed(result.errors)
        assert result.data is not None
        return result.data

    async def one(self, document: str, variables: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """The value of the only root field. Raises: Failed."""
        (value,) = (await self.all(document, variables, **options)).values()
        return value

    async def run(self, mutation: str, input: Mapping[str, Any], selection: str, **options: Any) -> Any:
        """The payload of a mutation that takes `input`."""
        kind = mutation[0].upper() + mutation[1:] + "Input!"
        document = f"mutation($input: {kind}) {{ {mutation}(input: $input) {{ {selection} userErrors {{ code message field }} }} }}"
        return await self.one(document, {"input": input}, **options)

    @asynccontextmanager
    async def subscribe(
        self, document: str, variables: Mapping[str, Any] | None = None, **options: Any
    ) -> AsyncIterator[AsyncGenerator[ExecutionResult, None]]:
        """The results of a subscription."""
        context = new_context(hub=self.hub, viewer=options.get("viewer", self.viewer))
        stream: Any = await self.schema.subscribe(
            document, variable_values=dict(variables or {}), context_value=context
        )
        async with aclosing(stream):
            yield stream


async def event(stream: AsyncGenerator[ExecutionResult, None]) -> dict[str, Any]:
    """The next event of a subscription. Raises: Failed."""
    result = await anext(stream)
    if result.errors:
        raise Failed(result.errors)
    assert result.data is not None
    (value,) = result.data.values()
    assert isinstance(value, dict)
    return value


@pytest.fixture
async def hub(team: Team) -> AsyncIterator[Hub]:
    """A running hub that every change notifies."""
    bus = await open_bus("memory://")
    hub = Hub(bus, event_log.read, event_log.heads)
    await hub.start()
    unit_of_work.on_change(hub.announce)
    yield hub
    unit_of_work.on_change(None)
    await hub.stop()
    await bus.aclose()


@pytest.fixture
async def api(team: Team, hub: Hub) -> Api:
    """The API as the team's agent."""
    return Api(viewer=team.agent, hub=hub)


@pytest.fixture
def planned() -> Iterator[list[str]]:
    """The operations that a plan has answered."""
    seen: list[str] = []
    compare = PerEventContext._planned

    async def count(self: Any, answer: Any, stock: Any) -> Any:
        async def counted() -> Any:
            data = await answer
            seen.append(self.operation.loc.source.body)
            return data

        return await compare(self, counted(), stock)

    with mock.patch.object(PerEventContext, "_planned", count):
        yield seen


@asynccontextmanager
async def statements() -> AsyncIterator[list[str]]:
    """The statements that SQLite executes inside this block."""
    connection: Any = db._client()._connection
    seen: list[str] = []
    await connection.set_trace_callback(seen.append)
    try:
        yield seen
    finally:
        await connection.set_trace_callback(None)
