"""GraphQL over server-sent events. Source: github.com/enisdenjo/graphql-sse."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from strawberry.http import GraphQLRequestData
from strawberry.http.streaming import SSETransport

from resolvers.transport.documents import is_subscription
from resolvers.transport.errors import is_unavailable


class Events(SSETransport):
    """Uses LF line ends; some clients do not split at CRLF."""

    def encode_event(self, event: str, data: str | None = None) -> str:
        return super().encode_event(event, data).replace("\r\n", "\n")

    def encode_comment(self, comment: str) -> str:
        return super().encode_comment(comment).replace("\r\n", "\n")


class EventStream:
    def __init__(self, chunks: AsyncGenerator[str, None]) -> None:
        self._chunks = chunks
        self._closing = asyncio.Event()

    def end(self, code: int, reason: str) -> None:
        """Stop without `event: complete`, so that the client reconnects."""
        self._closing.set()

    async def chunks(self) -> AsyncGenerator[str, None]:
        closing = asyncio.ensure_future(self._closing.wait())
        step: asyncio.Future[str] | None = None
        try:
            while True:
                step = asyncio.ensure_future(_next(self._chunks))
                await asyncio.wait({step, closing}, return_when=asyncio.FIRST_COMPLETED)
                if not step.done():
                    return
                try:
                    yield step.result()
                except (StopAsyncIteration, _Unavailable):
                    return
        finally:
            closing.cancel()
            if step is not None and not step.done():
                step.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await step
            await self._chunks.aclose()


class _Unavailable(Exception):
    pass


async def until_unavailable(
    results: AsyncGenerator[Any, None], operation: GraphQLRequestData
) -> AsyncGenerator[Any, None]:
    """Ends a subscription without `event: complete` when the service is unavailable."""
    async with aclosing(results):
        async for result in results:
            failed = any(is_unavailable(error) for error in getattr(result, "errors", None) or ())
            if failed and is_subscription(operation.query, operation.operation_name):
                raise _Unavailable
            yield result


async def _next(chunks: AsyncIterator[str]) -> str:
    return await anext(chunks)
