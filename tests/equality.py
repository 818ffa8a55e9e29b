"""Executes every planned operation of the tests a second time, without its plan, and compares the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import orjson
from graphql import ExecutionResult
from starlette.requests import Request
from starlette.responses import Response

from resolvers.transport.bodies import replayed
from resolvers.transport.executor import NotPlanned, PerEventContext
from resolvers.transport.http import GraphQLView

TRIES = 100  # other writers may change the data between two executions, for seconds

compared = 0
_answer_quickly = GraphQLView._answer_quickly
different: list[str] = []


async def _compare(self: PerEventContext, planned: Awaitable[dict[str, Any]], stock: Callable[[], Any]) -> Any:
    global compared
    try:
        data = await planned
    except NotPlanned:
        return await _awaited(self, stock())
    except Exception as error:
        expected = await _awaited(self, stock())
        if not expected.errors:
            different.append(f"{self.operation.loc.source.body if self.operation.loc else ''}\n{error!r}")
            raise
        return expected
    for _ in range(TRIES):
        self.context_value = self.context_value.for_event()  # loaders without what they read before
        expected = await _awaited(self, stock())
        if not expected.errors and orjson.dumps(expected.data) == orjson.dumps(data):
            compared += 1
            return ExecutionResult(data, None)
        await asyncio.sleep(0.02)
        getattr(self.root_value, "memo", {}).clear()  # what executions of an event share may be older
        again = self.plans.execute(self) if self.plans is not None else None
        if again is None:
            break
        data = await again
    different.append(f"{self.operation.loc.source.body if self.operation.loc else ''}\n{data}\n{expected}")
    raise AssertionError("the plan's answer differs from the stock executor's")


async def _awaited(executor: PerEventContext, result: Any) -> Any:
    return await result if executor.is_awaitable(result) else result


@contextmanager
def answers_compared() -> Iterator[None]:
    """While open, an answer of a plan that differs is an error of its operation."""
    with (
        mock.patch.object(PerEventContext, "_planned", _compare),
        mock.patch.object(GraphQLView, "_answer_quickly", _compare_quick),
    ):
        yield


async def _compare_quick(self: GraphQLView, request: Request, body: bytes, answer: Any) -> Response | None:
    quick = await _answer_quickly(self, request, body, answer)
    for _ in range(TRIES):
        if quick is None:
            return None
        # The answer remembers its context, so that the second execution counts no second request.
        stock = await self.run(Request(request.scope, replayed(body, request.receive)))
        if (stock.body, stock.status_code, stock.headers) == (quick.body, quick.status_code, quick.headers):
            return quick
        await asyncio.sleep(0.02)
        quick = await _answer_quickly(self, request, body, answer)
    raise AssertionError("the quick answer differs from the whole way's")
