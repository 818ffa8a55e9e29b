"""GraphQL over HTTP and over server-sent events, after the GraphQL-over-HTTP draft; sockets are handed to `socket`.

It negotiates, limits and formats. Source: graphql.github.io/graphql-over-http/draft and github.com/enisdenjo/graphql-sse.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import timedelta
from inspect import isawaitable
from typing import Any, Final, cast
from uuid import uuid4

import orjson
from cross_web import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import MissingQueryError
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.http.parse_content_type import parse_content_type
from strawberry.schema import BaseSchema
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.graphql import OperationType

from resolvers.transport.executor import Context, Viewer
from resolvers.transport.fanout import Fanout, Sharing
from resolvers.transport.limits import (
    MASKED,
    Limits,
    is_request_error,
    present,
    request_id_of,
    shortened,
)
from resolvers.transport.socket import (
    Authenticate,
    Connections,
    CredentialOf,
    Door,
    IsSigned,
    SocketAdapter,
    SocketHandler,
    StillValid,
    TooManyRequests,
    key_of,
    network_in,
    token_of,
)
from services.limiting import RateLimiter

log = logging.getLogger(__name__)

JSON: Final = "application/json"
GRAPHQL_JSON: Final = "application/graphql-response+json"
CORS_HEADERS: Final = ("authorization", "content-type", "accept")
CORS_MAX_AGE_S: Final = 600

GetContext = Callable[[Request | WebSocket, dict[str, Any] | None], Any]

_ANSWER: Final = "paythread.answer"


class Refusal(HTTPException):
    """A request that is answered before anything is executed."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, message)
        self.code = code
        self.headers = dict(headers or {})


@dataclass(slots=True)
class _Answer:
    """What is decided early about one answer, and needed late; lives in the request's scope."""

    media_type: str = JSON
    request_error: bool = False
    context: Any = None
    key: str = ""


class _SubResponse(Response):
    answer: _Answer


def negotiate(accept: str | None) -> str:
    """The media type to answer with: the acceptable one of highest q, ties to the first; JSON when nothing fits."""
    best, best_q = JSON, 0.0
    for part in (accept or "").split(","):
        name, _, parameters = part.partition(";")
        media_type = name.strip().lower()
        if media_type in ("*/*", "application/*"):
            media_type = JSON
        if media_type not in (JSON, GRAPHQL_JSON):
            continue
        q = _quality(parameters)
        if q > best_q:
            best, best_q = media_type, q
    return best


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0


class EventStream:
    """One SSE answer: its chunks, until they end or somebody ends it."""

    def __init__(self, chunks: AsyncGenerator[str, None]) -> None:
        self._chunks = chunks
        self._closing = asyncio.Event()

    def end(self, code: int, reason: str) -> None:
        """Stop without `event: complete`, so that the client comes back."""
        self._closing.set()

    async def chunks(self) -> AsyncGenerator[str, None]:
        """The chunks. The client's disconnect cancels this."""
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
                except StopAsyncIteration:
                    return
        finally:
            closing.cancel()
            if step is not None and not step.done():
                step.cancel()
                with suppress(asyncio.CancelledError, StopAsyncIteration):
                    await step
            await self._chunks.aclose()


async def _next(chunks: AsyncIterator[str]) -> str:
    return await anext(chunks)


class GraphQLView(GraphQL[Any, None]):
    """The ASGI application of /graphql: POST (GET as a setting), SSE and WebSocket."""

    websocket_adapter_class = SocketAdapter
    graphql_transport_ws_handler_class = SocketHandler

    def __init__(
        self,
        schema: BaseSchema,
        *,
        get_context: GetContext,
        authenticate: Authenticate,
        still_valid: StillValid | None,
        allowed_origins: Sequence[str],
        queries_by_get: bool,
        limits: Limits,
        sharing: Sharing | None,
        credential_of: CredentialOf,
        is_signed: IsSigned | None,
        foreign_posts: bool,
    ) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            allow_queries_via_get=queries_by_get,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
            connection_init_wait_timeout=timedelta(seconds=limits.init_s),
            max_subscriptions_per_connection=limits.operations_per_socket,
            allowed_origins=allowed_origins,
        )
        self.door = Door(
            limits=limits,
            authenticate=authenticate,
            connections=Connections(limits, still_valid),
            requests=RateLimiter(limits.requests_per_s, limits.requests_burst),
            fanout=Fanout(schema, sharing) if sharing is not None else None,
            credential_of=credential_of,
            is_signed=is_signed,
        )
        self._make_context = get_context
        self._foreign_posts = foreign_posts
        self._http_app: ASGIApp = self._answer_http
        if self.allowed_origins:
            self._http_app = CORSMiddleware(
                self._answer_http,
                allow_origins=tuple(self.allowed_origins),
                allow_methods=("GET", "POST"),
                allow_headers=CORS_HEADERS,
                max_age=CORS_MAX_AGE_S,
            )

    def end_streams(self) -> None:
        """End every open event stream: before the server waits for its requests to finish."""
        self.door.connections.end_all(1012, "Service restart")

    # ---------------------------------------------------------------------------------------------------------- ASGI
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http_app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _answer_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = scope[_ANSWER] = _Answer(media_type=negotiate(request.headers.get("accept")))
        try:
            if request.method == "POST":
                # The socket's own rule, which reads nothing but the headers.
                if not self._foreign_posts and not self._check_websocket_origin(cast(WebSocket, request)):
                    raise Refusal(403, "FORBIDDEN", "Pages of other origins are not answered.")
                request = Request(scope, _replay(await self._read_body(request)))
            response = await self.run(request)
        except ClientDisconnect:
            return
        except HTTPException as refusal:
            response = self._refusal(refusal, answer)
        except Exception as error:  # noqa: BLE001 the request's top
            request_id = request_id_of(answer.context) or uuid4().hex
            log.error("a GraphQL request broke", extra={"error": type(error).__name__, "request_id": request_id})
            extensions = {"code": "INTERNAL", "requestId": request_id}
            response = self._json({"errors": [{"message": MASKED, "extensions": extensions}]}, 500, answer)
        await response(scope, receive, send)

    async def _read_body(self, request: Request) -> bytes:
        limits = self.door.limits
        # The rest of a refused body is not read: the connection cannot be used again.
        close = {"Connection": "close"}
        too_large = Refusal(413, "BAD_REQUEST", f"The body may have {limits.body_bytes} bytes.", close)
        declared = request.headers.get("content-length", "0")
        if not declared.isdecimal() or int(declared) > limits.body_bytes:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_s):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > limits.body_bytes:
                        raise too_large
        except TimeoutError as error:
            raise Refusal(408, "BAD_REQUEST", "The body did not arrive in time.", close) from error
        return bytes(body)

    def _refusal(self, refusal: HTTPException, answer: _Answer) -> Response:
        code = refusal.code if isinstance(refusal, Refusal) else "BAD_REQUEST"
        body = {"errors": [{"message": shortened(refusal.reason), "extensions": {"code": code}}]}
        response = self._json(body, refusal.status_code, answer)
        if isinstance(refusal, Refusal):
            response.headers.update(refusal.headers)
        return response

    def _json(self, body: object, status: int, answer: _Answer) -> Response:
        return Response(
            self.encode_json(body), status_code=status, headers={"Content-Type": f"{answer.media_type}; charset=utf-8"}
        )

    # ----------------------------------------------------------------------------------------------- strawberry's hooks
    def encode_json(self, data: object) -> bytes:
        return orjson.dumps(data)

    def decode_json(self, data: str | bytes) -> object:
        return orjson.loads(data)

    async def get_sub_response(self, request: Request | WebSocket) -> Response:
        response = _SubResponse()
        response.status_code = None  # type: ignore[assignment] # strawberry's sign for "not decided"
        del response.headers["content-length"]
        response.answer = request.scope[_ANSWER]
        return response

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Context:
        context: Context = await _maybe(self._make_context(request, None))
        context.request_id = context.request_id or uuid4().hex
        if isinstance(request, WebSocket):
            # Its credential comes with connection_init.
            return context
        answer: _Answer = request.scope[_ANSWER]
        answer.context = context
        token = self.door.credential_of(request.headers)
        network = network_in(request.scope)
        answer.key = key_of(token) if token else f"network:{network}"
        try:
            context.viewer = await self.door.viewer_of(token, network)
            if context.viewer is not None:
                self.door.count(context.viewer)
        except TooManyRequests as error:
            message = "Too many requests, try again in a second."
            raise Refusal(429, "RATE_LIMITED", message, {"Retry-After": "1"}) from error
        if token is not None and context.viewer is None:
            raise Refusal(
                401, "UNAUTHENTICATED", "This token is not valid, or no longer.", {"WWW-Authenticate": "Bearer"}
            )
        return context

    async def parse_http_body(self, request: Any) -> GraphQLRequestData:
        content_type, _ = parse_content_type(request.content_type or "")
        data: Any
        if request.method == "GET":
            data = self.parse_query_params(request.query_params)
        elif content_type == JSON:
            data = self.parse_json(await request.get_body())
        else:
            raise Refusal(415, "BAD_REQUEST", f"Send {JSON}.")
        if isinstance(data, list):
            raise Refusal(400, "BAD_REQUEST", "Batching is not offered: send one operation per request.")
        if not isinstance(data, dict):
            raise Refusal(400, "BAD_REQUEST", "The body must be a JSON object.")
        for name, kind, article in (
            ("query", str, "a string"),
            ("operationName", str, "a string"),
            ("variables", dict, "an object"),
            ("extensions", dict, "an object"),
        ):
            if not isinstance(data.get(name), kind | None):
                raise Refusal(400, "BAD_REQUEST", f"`{name}` must be {article} or null.")
        transport = self._get_stream_transport_from_headers(request.headers)
        return GraphQLRequestData(
            query=data.get("query"),
            variables=data.get("variables"),
            operation_name=data.get("operationName"),
            extensions=data.get("extensions"),
            protocol=transport.protocol if transport else "http",
        )

    async def execute_single(
        self,
        request: Request,
        request_adapter: Any,
        sub_response: Response,
        context: Any,
        root_value: None,
        request_data: GraphQLRequestData,
    ) -> ExecutionResult:
        by_get = request_adapter.method == "GET"
        allowed = {OperationType.QUERY, OperationType.MUTATION}
        if by_get:
            allowed = {OperationType.QUERY} if self.allow_queries_via_get else set()
        try:
            return await self.schema.execute(
                request_data.query,
                variable_values=request_data.variables,
                context_value=context,
                operation_name=request_data.operation_name,
                allowed_operation_types=allowed,
                operation_extensions=request_data.extensions,
            )
        except CannotGetOperationTypeError as error:
            raise Refusal(400, "BAD_REQUEST", error.as_http_error_reason()) from error
        except MissingQueryError as error:
            raise Refusal(400, "BAD_REQUEST", "No GraphQL query found in the request.") from error
        except InvalidOperationTypeError as error:
            if error.operation_type is OperationType.SUBSCRIPTION:
                raise Refusal(
                    400,
                    "BAD_REQUEST",
                    "A subscription needs a WebSocket (graphql-transport-ws) or server-sent events"
                    " (Accept: text/event-stream).",
                ) from error
            offered = "queries by GET and POST, mutations by POST" if self.allow_queries_via_get else "POST"
            raise Refusal(405, "BAD_REQUEST", f"Send {offered}.", {"Allow": "POST"}) from error

    async def process_result(self, request: Request, result: ExecutionResult) -> GraphQLHTTPResponse:
        answer: _Answer = request.scope[_ANSWER]
        body: dict[str, Any] = {}
        if result.errors:
            request_id = request_id_of(answer.context)
            result.errors = [present(error, request_id) for error in result.errors]
            body["errors"] = [error.formatted for error in result.errors]
        if is_request_error(result):
            answer.request_error = True
        else:
            body["data"] = result.data
        if result.extensions:
            body["extensions"] = result.extensions
        return body  # type: ignore[return-value]

    def create_response(self, response_data: Any, sub_response: Response) -> Response:
        answer: _Answer = sub_response.answer  # type: ignore[attr-defined]
        refused = answer.request_error and answer.media_type == GRAPHQL_JSON
        response = self._json(response_data, sub_response.status_code or (400 if refused else 200), answer)
        response.headers.raw.extend(sub_response.headers.raw)
        response.background = sub_response.background
        return response

    async def create_streaming_response(
        self,
        request: Request | WebSocket,
        stream: Callable[[], AsyncGenerator[str, None]],  # type: ignore[override] # it is one
        sub_response: Response,
        headers: Mapping[str, str],
    ) -> Response:
        answer: _Answer = request.scope[_ANSWER]
        viewer: Viewer | None = answer.context.viewer
        events = EventStream(stream())
        connections = self.door.connections

        async def admitted() -> AsyncIterator[str]:
            try:
                async with aclosing(events.chunks()) as chunks:
                    async for chunk in chunks:
                        yield chunk
            finally:
                connections.leave(events)

        if not connections.admit(events, answer.key, viewer):
            raise Refusal(429, "RATE_LIMITED", "Too many streams with this token.", {"Retry-After": "1"})
        return StreamingResponse(
            admitted(), status_code=sub_response.status_code or 200, headers={**sub_response.headers, **headers}
        )


def _replay(body: bytes) -> Receive:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _maybe(value: Any | Awaitable[Any]) -> Any:
    return await value if isawaitable(value) else value


def get_view(
    schema: BaseSchema,
    *,
    get_context: GetContext,
    authenticate: Authenticate,
    still_valid: StillValid | None = None,
    allowed_origins: Sequence[str] = (),
    queries_by_get: bool = True,
    limits: Limits | None = None,
    sharing: Sharing | None = None,
    credential_of: CredentialOf = token_of,
    is_signed: IsSigned | None = None,
    foreign_posts: bool = True,
) -> GraphQLView:
    """The ASGI application to mount at /graphql, and at any other place with a schema and credentials of its own.

    `get_context(request or websocket, connection parameters)` makes the context, may be async, leaves `viewer` to us.
    `authenticate(token)` answers the viewer, or None for a token that is not valid. `still_valid(viewer)` is asked
    every 3 s for each connected token. `allowed_origins`: foreign pages that may call us, `scheme://host[:port]`.
    `sharing`: which subscriptions over WebSocket are executed once for many; None: each alone.
    `credential_of`: what `authenticate` is given, from the headers or the payload of `connection_init`; default: the bearer.
    `is_signed(token)`: whether we have signed it, found out without a look-up; invented ones are limited by their network.
    `foreign_posts`: whether a POST of a page that may not call us is executed, unread as its answer is; never over WebSocket.
    """
    return GraphQLView(
        schema,
        get_context=get_context,
        authenticate=authenticate,
        still_valid=still_valid,
        allowed_origins=allowed_origins,
        queries_by_get=queries_by_get,
        limits=limits or Limits(),
        sharing=sharing,
        credential_of=credential_of,
        is_signed=is_signed,
        foreign_posts=foreign_posts,
    )
