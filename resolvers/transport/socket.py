"""GraphQL over WebSocket (graphql-transport-ws). Source: github.com/enisdenjo/graphql-ws, PROTOCOL.md."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Final, cast

import orjson
import structlog
from graphql import GraphQLError
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
    _OperationStreamClosed,
)
from strawberry.types.execution import ExecutionResult

from resolvers.transport.admission import Admission, TooManyRequests, key_of, network_in
from resolvers.transport.connections import FORBIDDEN
from resolvers.transport.documents import is_subscription
from resolvers.transport.errors import SLOW_CONSUMER, is_unavailable, log_unavailable, present, request_id_of
from resolvers.transport.fanout import serve
from resolvers.transport.server import PROTOCOL_EXTENSION, SocketProtocol
from services.core.rate_limits import TokenBucket

log = structlog.get_logger(__name__)

# The npm client graphql-ws retries 1013, 1012 and 4403, and never retries 1008, 4400 and 4401.
TRY_AGAIN: Final = 1013
TOO_MANY_MESSAGES: Final = 1008
BAD_REQUEST: Final = 4400
TOO_MANY_INITS: Final = 4429

UNAVAILABLE_REASON: Final = "Try again later, resume by cursor"

CLOSE_S: Final = 2.0
REASON_BYTES: Final = 123


class SocketAdapter(ASGIWebSocketAdapter):
    """Text frames with a time limit for clients that do not read."""

    ws: WebSocket

    @property
    def protocol(self) -> SocketProtocol | None:
        return cast(SocketProtocol | None, self.ws.scope.get("extensions", {}).get(PROTOCOL_EXTENSION))

    @property
    def _admission(self) -> Admission:
        return cast(Admission, self.view.admission)  # type: ignore[attr-defined]

    async def send_json(self, message: Mapping[str, object]) -> None:
        await self.send_text(orjson.dumps(message).decode())

    async def send_text(self, text: str) -> None:
        """Raises: WebSocketDisconnected, also for a client that stopped reading."""
        if self.ws.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnected
        protocol = self.protocol
        if protocol is not None and not protocol.writable.is_set():
            try:
                async with asyncio.timeout(self._admission.limits.stalled_s):
                    await protocol.writable.wait()
            except TimeoutError as error:
                # A close frame would wait behind the unread data.
                protocol.transport.abort()
                raise WebSocketDisconnected from error
        try:
            await self.ws.send_text(text)
        except WebSocketDisconnect as error:
            raise WebSocketDisconnected from error

    async def close(self, code: int, reason: str) -> None:
        if self.ws.application_state is not WebSocketState.CONNECTED:
            return
        # A longer reason is a ProtocolError: 1006, and the client would retry its bad operation for ever.
        short = reason.encode()[:REASON_BYTES].decode(errors="ignore")
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.ws.close(code=code, reason=short)
        except TimeoutError:
            if (protocol := self.protocol) is not None:
                protocol.transport.abort()
        except WebSocketDisconnect:
            return


class SocketHandler(BaseGraphQLTransportWSHandler[Any, None]):
    """One connection. `tests/transport/test_socket.py` lists the deviations from strawberry's handler."""

    websocket: SocketAdapter

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admission = cast(Admission, self.view.admission)  # type: ignore[attr-defined]
        limits = self._admission.limits
        self._messages = TokenBucket(limits.messages_per_s, limits.messages_burst, asyncio.get_running_loop().time())
        self._limit_key = ""
        self._ending: asyncio.Task[None] | None = None

    def end(self, code: int, reason: str) -> None:
        if self._ending is None:
            self._ending = asyncio.create_task(self.websocket.close(code, reason))

    async def shutdown(self) -> None:
        self._admission.connections.leave(self)
        await super().shutdown()
        if self._ending is not None:
            with suppress(asyncio.CancelledError):
                await self._ending

    # ------------------------------------------------------------------------------------------------------ messages
    async def handle_message(self, message: Any) -> None:
        if not self._messages.take(asyncio.get_running_loop().time()):
            await self.websocket.close(TOO_MANY_MESSAGES, "Too many messages")
            return
        if (problem := _problem(message)) is not None:
            await self.handle_invalid_message(problem)
            return
        await super().handle_message(message)

    async def handle_connection_init(self, message: Any) -> None:
        if self.connection_timed_out:
            return
        if self.connection_init_timeout_task:
            self.connection_init_timeout_task.cancel()
            self.connection_init_timeout_task = None
        if self.connection_init_received:
            await self.websocket.close(TOO_MANY_INITS, "Too many initialisation requests")
            return
        self.connection_init_received = True
        # `payload: null` is allowed and says nothing.
        parameters: dict[str, Any] = message.get("payload") or {}
        self.context.connection_params = parameters
        token = self._admission.credential_of(parameters)
        try:
            viewer = await self._admission.viewer_of(token, network_in(self.websocket.ws.scope)) if token else None
        except TooManyRequests:
            await self.websocket.close(TRY_AGAIN, "Too many requests")
            return
        except Exception as error:  # noqa: BLE001 the connection's top: our fault, the client may come again
            log.error("authenticating a socket failed", error=type(error).__name__)
            await self.websocket.close(TRY_AGAIN, "Try again later")
            return
        if token is None or viewer is None:
            await self.websocket.close(FORBIDDEN, "Forbidden")
            return
        self.context.viewer = viewer
        self._limit_key = viewer.limit_key
        if not self._admission.connections.admit(self, key_of(token), viewer):
            await self.websocket.close(TRY_AGAIN, "Too many connections")
            return
        await self.send_message({"type": "connection_ack"})
        self.connection_acknowledged = True

    # ---------------------------------------------------------------------------------------------------- operations
    async def run_operation(self, operation: Operation[Any, None]) -> None:
        """An error ends only this operation."""
        try:
            if not self._admission.requests.take(self._limit_key):
                refusal = GraphQLError("Too many requests, try again in a second.", extensions={"code": "RATE_LIMITED"})
                await operation.send_initial_errors([refusal])
                return
            await self.stream_operation(operation)
        except (_OperationStreamClosed, WebSocketDisconnected):
            return
        except Exception as error:  # noqa: BLE001 the operation's top
            masked = present(GraphQLError("", original_error=error), request_id_of(self.context))
            if is_unavailable(masked):
                log_unavailable(error, request_id_of(self.context))
                if is_subscription(operation.query, operation.operation_name):
                    await self.websocket.close(TRY_AGAIN, UNAVAILABLE_REASON)
                    return
            else:
                log.error("an operation over WebSocket broke", error=type(error).__name__)
            with suppress(WebSocketDisconnected):
                await operation.send_initial_errors([masked])

    async def stream_operation(self, operation: Operation[Any, None]) -> None:
        if self._admission.fanout is not None and await serve(self, operation, self._admission.fanout):
            return
        async with aclosing(self.results(operation, self.context.for_event())) as results:
            await self._send_result_stream(operation, results)
        await operation.send_operation_message({"id": operation.id, "type": "complete"})

    async def results(self, operation: Operation[Any, None], context: Any) -> AsyncGenerator[Any, None]:
        """The results, with presented errors. Closes the socket of a slow client or unavailable service."""
        results = await self.schema.stream(
            operation.query,
            variable_values=operation.variables,
            context_value=context,
            root_value=self.root_value,
            operation_name=operation.operation_name,
        )
        request_id = request_id_of(context)
        async with aclosing(results):
            async for result in results:
                if isinstance(result, ExecutionResult) and result.errors:
                    result.errors = [present(error, request_id) for error in result.errors]
                    if any((error.extensions or {}).get("code") == SLOW_CONSUMER for error in result.errors):
                        await self.close_slow()
                    if any(map(is_unavailable, result.errors)) and is_subscription(
                        operation.query, operation.operation_name
                    ):
                        # An error would end the subscription for good in the npm client.
                        await self.websocket.close(TRY_AGAIN, UNAVAILABLE_REASON)
                        raise _OperationStreamClosed
                yield result

    async def close_slow(self) -> None:
        """Close so that the client reconnects and resumes by its cursor. Always raises."""
        await self.websocket.close(TRY_AGAIN, "Too slow, resume by cursor")
        raise _OperationStreamClosed

    @staticmethod
    def _get_pre_execution_close_reason(error: GraphQLError) -> str | None:
        # A syntax error ends only its operation, not the others on this socket.
        return None


def _problem(message: Any) -> str | None:
    if not isinstance(message, dict):
        return "A message must be an object"
    kind = message.get("type")
    if not isinstance(kind, str):
        return "A message needs a type"
    if kind in ("subscribe", "complete"):
        if not isinstance(message.get("id"), str) or not message["id"]:
            return "id must be a string that is not empty"
        return _subscribe_problem(message.get("payload")) if kind == "subscribe" else None
    if kind in ("connection_init", "ping", "pong") and not isinstance(message.get("payload"), dict | None):
        return "payload must be an object"
    return None


def _subscribe_problem(payload: Any) -> str | None:
    if not isinstance(payload, dict):
        return "payload must be an object"
    if not isinstance(payload.get("query"), str):
        return "query must be a string"
    if not isinstance(payload.get("operationName"), str | None):
        return "operationName must be a string"
    for name in ("variables", "extensions"):
        if not isinstance(payload.get(name), dict | None):
            return f"{name} must be an object"
    return None
