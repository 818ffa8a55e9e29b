"""GraphQL over WebSocket (graphql-transport-ws): strict messages, the close codes of our table, admission and revocation.

Source: the protocol's page (github.com/enisdenjo/graphql-ws, PROTOCOL.md). What an operation does is not decided here.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, cast

import orjson
import structlog
from graphql import GraphQLError
from starlette.types import Scope
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
    _OperationStreamClosed,
)
from strawberry.types.execution import ExecutionResult

from resolvers.transport.documents import is_subscription
from resolvers.transport.errors import SLOW_CONSUMER, is_unavailable, log_unavailable, present, request_id_of
from resolvers.transport.executor import Viewer
from resolvers.transport.fanout import Fanout, serve
from resolvers.transport.limits import Limits
from resolvers.transport.server import PROTOCOL_EXTENSION, SocketProtocol
from services.core.rate_limits import RateLimiter, TokenBucket, network_of

log = structlog.get_logger(__name__)

# What the npm client graphql-ws does: 1013, 1012 and 4403 are retried; 1008, 4400 and 4401 never are.
TRY_AGAIN: Final = 1013
TOO_MANY_MESSAGES: Final = 1008
BAD_REQUEST: Final = 4400
FORBIDDEN: Final = 4403
TOO_MANY_INITS: Final = 4429

UNAVAILABLE_REASON: Final = "Try again later, resume by cursor"

CLOSE_S: Final = 2.0
REASON_BYTES: Final = 123
STILL_VALID_S: Final = 3.0
VERIFIED: Final = 10_000  # tokens that are remembered as verified
CHECKED_AT_ONCE: Final = 20

Authenticate = Callable[[str], Awaitable[Any]]
IsSigned = Callable[[str], bool]
StillValid = Callable[[Any], Awaitable[bool]]
CredentialOf = Callable[[Mapping[str, Any]], str | None]


def token_of(parameters: Mapping[str, Any]) -> str | None:
    """The bearer token of headers or of `connection_init`, under `Authorization` in any case of letters; None without."""
    value = next((value for name, value in parameters.items() if name.lower() == "authorization"), None)
    if not isinstance(value, str):
        return None
    scheme, _, token = value.strip().partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def key_of(token: str) -> str:
    """What limits are counted by: never the token itself, which must not lie about in memory dumps."""
    return hashlib.blake2b(token.encode(), digest_size=16).hexdigest()


# -------------------------------------------------------------------------------------------------- who is connected
class Connection(Protocol):
    """A socket or an event stream that lives on after its credential was checked."""

    def end(self, code: int, reason: str) -> None:
        """Close soon; must not block. The codes are those of WebSocket."""


@dataclass(slots=True)
class _Seat:
    key: str
    viewer: Viewer | None
    timer: asyncio.TimerHandle | None


class Connections:
    """All sockets and event streams of this process: counted per token, ended at expiry and after a revocation.

    One task asks `still_valid(viewer)` once per token every 3 s while there is somebody to ask about.
    """

    def __init__(
        self, limits: Limits, still_valid: StillValid | None = None, *, check_s: float = STILL_VALID_S
    ) -> None:
        self._limits = limits
        self._still_valid = still_valid
        self._check_s = check_s
        self._seats: dict[Connection, _Seat] = {}
        self._by_key: dict[str, set[Connection]] = {}
        self._watch: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._seats)

    def admit(self, connection: Connection, key: str, viewer: Viewer | None) -> bool:
        """Count the connection in, or answer False: this token or this process has as many as it may have."""
        same = self._by_key.get(key, set())
        if len(same) >= self._limits.sockets_per_token or len(self._seats) >= self._limits.sockets:
            return False
        timer = None
        expires_at = viewer.expires_at if viewer is not None else None
        if expires_at is not None:
            left_s = max(0.0, (expires_at - datetime.now(UTC)).total_seconds())
            timer = asyncio.get_running_loop().call_later(left_s, connection.end, FORBIDDEN, "Token expired")
        self._seats[connection] = _Seat(key, viewer, timer)
        self._by_key.setdefault(key, set()).add(connection)
        if self._still_valid is not None and viewer is not None and self._watch is None:
            self._watch = asyncio.create_task(self._check_regularly(), name="connections:still-valid")
        return True

    def leave(self, connection: Connection) -> None:
        """Forget the connection. Twice is harmless."""
        seat = self._seats.pop(connection, None)
        if seat is None:
            return
        if seat.timer is not None:
            seat.timer.cancel()
        same = self._by_key[seat.key]
        same.discard(connection)
        if not same:
            del self._by_key[seat.key]
        if not self._seats and self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def end_all(self, code: int, reason: str) -> None:
        """Close everybody, for example because the server stops."""
        for connection in tuple(self._seats):
            connection.end(code, reason)

    async def _check_regularly(self) -> None:
        while True:
            await asyncio.sleep(self._check_s)
            keys = tuple(self._by_key)
            for first in range(0, len(keys), CHECKED_AT_ONCE):
                await asyncio.gather(*(self._check(key) for key in keys[first : first + CHECKED_AT_ONCE]))

    async def _check(self, key: str) -> None:
        # One token may have sockets of two viewers: its role changed between their sign-ons.
        viewers: list[Viewer] = []
        for connection in self._by_key.get(key, ()):
            seated = self._seats[connection].viewer
            if seated is not None and seated not in viewers:
                viewers.append(seated)
        for viewer in viewers:
            try:
                if self._still_valid is None or await self._still_valid(viewer):
                    continue
            except Exception as error:  # noqa: BLE001 the loop's top: not knowing is no reason to close
                log.warning("checking a credential failed", error=type(error).__name__)
                continue
            for connection in tuple(self._by_key.get(key, ())):
                if self._seats[connection].viewer == viewer:
                    connection.end(FORBIDDEN, "Access was revoked")


@dataclass(frozen=True, slots=True)
class Door:
    """What the view and its sockets share."""

    limits: Limits
    authenticate: Authenticate
    connections: Connections
    requests: RateLimiter
    fanout: Fanout | None
    credential_of: CredentialOf = token_of
    is_signed: IsSigned | None = None
    verified: OrderedDict[str, None] = field(default_factory=OrderedDict)

    async def viewer_of(self, token: str | None, network: str) -> Viewer | None:
        """Whom a token speaks for; None without a token, or for one that is not valid.

        What is not verified is counted by its network, and before it costs a look-up: invented tokens are free to make.
        One that was verified before, or that we signed, is not held up by them. Raises: TooManyRequests.
        """
        unverified = f"network:{network}"
        if token is None:
            self._take(unverified)
            return None
        key = key_of(token)
        trusted = key in self.verified or (self.is_signed is not None and self.is_signed(token))
        if not trusted:
            self._take(unverified)
        viewer: Viewer | None = await self.authenticate(token)
        if viewer is None:
            self.verified.pop(key, None)
            if trusted:
                self._take(unverified)
            return None
        self.verified[key] = None
        self.verified.move_to_end(key)
        if len(self.verified) > VERIFIED:
            self.verified.popitem(last=False)
        return viewer

    def count(self, viewer: Viewer) -> None:
        """Count one request of a verified caller. Raises: TooManyRequests."""
        self._take(viewer.limit_key)

    def _take(self, key: str) -> None:
        if not self.requests.take(key):
            raise TooManyRequests


class TooManyRequests(Exception):
    """A network, a user, a key or a visitor has made more requests than it may."""


def network_in(scope: Scope) -> str:
    """The client's network: as the outer layer found it (behind a proxy of ours, the client's own), else the socket's."""
    known: str | None = scope.get("state", {}).get("client_address")
    client = scope.get("client")
    return network_of(known or (client[0] if client else ""))


# ------------------------------------------------------------------------------------------------------- the socket
class SocketAdapter(ASGIWebSocketAdapter):
    """Text frames, close reasons that fit, and no waiting for a client that does not read."""

    ws: WebSocket

    @property
    def protocol(self) -> SocketProtocol | None:
        """The server's side, when it is ours (`server.SocketServer`)."""
        return cast(SocketProtocol | None, self.ws.scope.get("extensions", {}).get(PROTOCOL_EXTENSION))

    @property
    def _door(self) -> Door:
        return cast(Door, self.view.door)  # type: ignore[attr-defined]

    async def send_json(self, message: Mapping[str, object]) -> None:
        await self.send_text(orjson.dumps(message).decode())

    async def send_text(self, text: str) -> None:
        """Send one text frame. Raises: WebSocketDisconnected, also after cutting off a client that stopped reading."""
        if self.ws.application_state is not WebSocketState.CONNECTED:
            raise WebSocketDisconnected
        protocol = self.protocol
        if protocol is not None and not protocol.writable.is_set():
            try:
                async with asyncio.timeout(self._door.limits.stalled_s):
                    await protocol.writable.wait()
            except TimeoutError as error:
                # A close frame would wait behind what it does not read.
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
    """One connection. The deviations from strawberry's handler are the table of `tests/transport/test_socket.py`."""

    websocket: SocketAdapter

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._door = cast(Door, self.view.door)  # type: ignore[attr-defined]
        limits = self._door.limits
        self._messages = TokenBucket(limits.messages_per_s, limits.messages_burst, asyncio.get_running_loop().time())
        self._limit_key = ""
        self._ending: asyncio.Task[None] | None = None

    def end(self, code: int, reason: str) -> None:
        """Close from outside: expiry, revocation, shutdown."""
        if self._ending is None:
            self._ending = asyncio.create_task(self.websocket.close(code, reason))

    async def shutdown(self) -> None:
        self._door.connections.leave(self)
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
        if self.connection_init_received:
            await self.websocket.close(TOO_MANY_INITS, "Too many initialisation requests")
            return
        self.connection_init_received = True
        # `payload: null` is allowed and says nothing.
        parameters: dict[str, Any] = message.get("payload") or {}
        self.context.connection_params = parameters
        token = self._door.credential_of(parameters)
        try:
            viewer = await self._door.viewer_of(token, network_in(self.websocket.ws.scope)) if token else None
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
        if not self._door.connections.admit(self, key_of(token), viewer):
            await self.websocket.close(TRY_AGAIN, "Too many connections")
            return
        await self.send_message({"type": "connection_ack"})
        self.connection_acknowledged = True

    # ---------------------------------------------------------------------------------------------------- operations
    async def run_operation(self, operation: Operation[Any, None]) -> None:
        """The top of an operation's task: its results, then `complete`; whatever breaks ends this operation only."""
        try:
            if not self._door.requests.take(self._limit_key):
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
        """Serve the operation: through a shared execution where it may be, else alone."""
        if self._door.fanout is not None and await serve(self, operation, self._door.fanout):
            return
        async with aclosing(self.results(operation, self.context.for_event())) as results:
            await self._send_result_stream(operation, results)
        await operation.send_operation_message({"id": operation.id, "type": "complete"})

    async def results(self, operation: Operation[Any, None], context: Any) -> AsyncGenerator[Any, None]:
        """The operation's own results, fit for the client. `context` is the operation's own: its loaders remember.

        Closes the socket when the operation has been too slow, and when a subscription's result could not be made.
        """
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
        """Close so that the client comes back and resumes by its cursor; `complete` would say that nothing follows.

        Raises: always, to end the operation.
        """
        await self.websocket.close(TRY_AGAIN, "Too slow, resume by cursor")
        raise _OperationStreamClosed

    @staticmethod
    def _get_pre_execution_close_reason(error: GraphQLError) -> str | None:
        # A syntax error is the business of its operation, not of the others on this socket.
        return None


def _problem(message: Any) -> str | None:
    """What is wrong with the shape of a client's message, or None."""
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
