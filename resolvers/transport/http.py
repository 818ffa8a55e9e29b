"""GraphQL over HTTP: one endpoint's ASGI application. Source: graphql.github.io/graphql-over-http/draft."""

import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from inspect import isawaitable
from time import monotonic
from typing import Any, Final
from uuid import uuid4

import orjson
import structlog
from cross_web import HTTPException
from graphql import GraphQLError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
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

from models.database_errors import is_transient
from resolvers.transport.admission import (
    Admission,
    Authenticate,
    CredentialOf,
    IsSigned,
    TooManyRequests,
    key_of,
    network_in,
    token_of,
)
from resolvers.transport.bodies import BodyRefused, read_body, replayed
from resolvers.transport.connections import Connections, StillValid
from resolvers.transport.errors import (
    MASKED,
    RETRY_AFTER_S,
    UNAVAILABLE,
    UNAVAILABLE_TEXT,
    is_request_error,
    log_unavailable,
    nothing_answered,
    present,
    request_id_of,
    shortened,
)
from resolvers.transport.event_streams import Events, EventStream, until_unavailable
from resolvers.transport.executor import Context, Viewer
from resolvers.transport.fanout import Fanout, Sharing
from resolvers.transport.limits import Limits
from resolvers.transport.negotiation import EVENTS, GRAPHQL_JSON, JSON, Accepted, accepted
from resolvers.transport.origins import Cors, Origins
from resolvers.transport.quick import InVain, QuickAnswers
from resolvers.transport.refusals import Refusal, SubscriptionRefused
from resolvers.transport.request_data import request_data as checked_data
from resolvers.transport.schema import Schema
from resolvers.transport.socket import SocketAdapter, SocketHandler
from services.core.rate_limits import RateLimiter

log = structlog.get_logger(__name__)

GetContext = Callable[[Request | WebSocket, dict[str, Any] | None], Any]

_ANSWER: Final = "paythread.answer"
COST_HEADER: Final = "GraphQL-Cost"  # of requests whose answers show their cost


@dataclass(slots=True)
class _Answer:  # in the request's scope
    accepted: Accepted
    request_error: bool = False
    unavailable: bool = False
    context: Any = None
    key: str = ""
    cost: dict[str, int] | None = None

    @property
    def media_type(self) -> str:
        return self.accepted.json or JSON


class _SubResponse(Response):
    answer: _Answer


class GraphQLView(GraphQL[Any, None]):
    """The ASGI application of /graphql: POST, optionally GET, SSE and WebSocket."""

    websocket_adapter_class = SocketAdapter
    graphql_transport_ws_handler_class = SocketHandler
    stream_transport_classes_by_protocol = {GRAPHQL_SSE_PROTOCOL: Events}

    def __init__(
        self,
        schema: BaseSchema,
        *,
        get_context: GetContext,
        authenticate: Authenticate,
        still_valid: StillValid | None,
        origins: Origins,
        queries_by_get: bool,
        limits: Limits,
        sharing: Sharing | None,
        credential_of: CredentialOf,
        is_signed: IsSigned | None,
        cross_origin_posts: bool,
        answer_bytes: int,
        show_cost: bool,
    ) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            allow_queries_via_get=queries_by_get,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
            connection_init_wait_timeout=timedelta(seconds=limits.init_s),
            max_subscriptions_per_connection=limits.operations_per_socket,
        )
        self.origins = origins
        self._quick: QuickAnswers | None = None
        if isinstance(schema, Schema) and schema.plans is not None:
            self._quick = QuickAnswers(schema._schema, schema.documents, schema.plans, limits, answer_bytes)
        self.admission = Admission(
            limits=limits,
            authenticate=authenticate,
            connections=Connections(limits, still_valid),
            requests=RateLimiter(limits.requests_per_s, limits.requests_burst),
            fanout=Fanout(schema, sharing) if sharing is not None else None,
            credential_of=credential_of,
            is_signed=is_signed,
        )
        self._make_context = get_context
        self._cross_origin_posts = cross_origin_posts
        self._show_cost = show_cost
        self._http_app: ASGIApp = Cors(self._answer_http, origins)

    async def end_streams(self, within_s: float = 0.0) -> None:
        """Await before the server waits for its requests."""
        await self.admission.connections.end_all(1012, "Service restart", within_s=within_s)

    # ---------------------------------------------------------------------------------------------------------- ASGI
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http_app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _answer_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = scope[_ANSWER] = _Answer(accepted(request.headers.getlist("accept")))
        try:
            if request.method not in ("GET", "POST"):
                raise Refusal(405, "BAD_REQUEST", "Send GET or POST.", {"Allow": "GET, POST"})
            # Browsers send Origin with a GET only across origins. A POST that arrives after a refused preflight came
            # through a proxy of the page's own origin.
            if (request.method == "GET" or not self._cross_origin_posts) and not self.origins.allow(request.headers):
                raise Refusal(403, "FORBIDDEN", self.origins.refuse(request.headers["origin"]))
            if answer.accepted.json is None and not answer.accepted.events:
                raise Refusal(406, "BAD_REQUEST", f"Accept {GRAPHQL_JSON}, {JSON} or {EVENTS}.")
            quick = None
            if request.method == "POST":
                body = await self._read_body(scope, receive)
                quick = await self._answer_quickly(request, body, answer)
                request = Request(scope, replayed(body, receive))
            response = quick or await self.run(request)
        except ClientDisconnect:
            return
        except HTTPException as refusal:
            response = self._refusal(refusal, answer)
        except Exception as error:  # noqa: BLE001 the request's top
            request_id = request_id_of(answer.context) or uuid4().hex
            transient = is_transient(error)
            if transient:
                log_unavailable(error, request_id)
            else:
                log.error("a GraphQL request broke", error=type(error).__name__, request_id=request_id)
            extensions = {"code": UNAVAILABLE if transient else "INTERNAL", "requestId": request_id}
            errors = [{"message": UNAVAILABLE_TEXT if transient else MASKED, "extensions": extensions}]
            response = self._json({"errors": errors}, 503 if transient else 500, answer)
        await response(scope, receive, send)

    async def _answer_quickly(self, request: Request, body: bytes, answer: _Answer) -> Response | None:
        """The response to a planned query of a valid document; None for everything else."""
        if self._quick is None or answer.accepted.json is None:
            return None
        headers = request.headers
        if headers.get("content-type") != JSON or "content-encoding" in headers:
            return None
        try:
            data = checked_data(orjson.loads(body))
        except (orjson.JSONDecodeError, HTTPException):
            return None
        operation = self._quick.find(data.query, data.operation_name) if data.query else None
        if operation is None:
            return None
        context = await self.get_context(request, None)
        if context.viewer is None:
            return None
        started = monotonic()
        try:
            found = await self._quick.answer(operation, data.variables, context.viewer)
        except InVain:
            context.planned_s = monotonic() - started
            return None
        if found is not None and (cost := self._cost(request, data.query or "")) is not None:
            found = found[:-1] + b',"extensions":' + orjson.dumps({"cost": cost}) + b"}"
        return self._respond(found, 200, answer) if found is not None else None

    def _cost(self, request: Request, query: str) -> dict[str, int] | None:
        """For `extensions`, where it is wanted."""
        if not isinstance(self.schema, Schema) or not (self._show_cost or request.headers.get(COST_HEADER) == "1"):
            return None
        requested = self.schema.documents.cost(self.schema._schema, query)
        return {"requested": requested, "limit": self.schema.documents.limits.cost} if requested is not None else None

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        limits = self.admission.limits
        try:
            return await read_body(scope, receive, limit=limits.body_bytes, timeout_s=limits.body_s)
        except BodyRefused as error:
            too_large = f"The body may have at most {limits.body_bytes} bytes."
            message = too_large if error.status == 413 else "The body did not arrive in time."
            raise Refusal(error.status, "BAD_REQUEST", message, {"Connection": "close"}) from error

    def _refusal(self, refusal: HTTPException, answer: _Answer) -> Response:
        code = refusal.code if isinstance(refusal, Refusal) else "BAD_REQUEST"
        body = {"errors": [{"message": shortened(refusal.reason), "extensions": {"code": code}}]}
        response = self._json(body, refusal.status_code, answer)
        if isinstance(refusal, Refusal):
            response.headers.update(refusal.headers)
        return response

    def _json(self, body: object, status: int, answer: _Answer) -> Response:
        return self._respond(self.encode_json(body), status, answer)

    def _respond(self, body: bytes, status: int, answer: _Answer) -> Response:
        headers = {
            "Content-Type": f"{answer.media_type}; charset=utf-8",
            "Vary": "Accept",
            "Cache-Control": "private, no-store",  # a GET's answer is one viewer's, too
        }
        if status == 503:
            headers["Retry-After"] = str(RETRY_AFTER_S)
        return Response(body, status_code=status, headers=headers)

    # ----------------------------------------------------------------------------------------------- strawberry's hooks
    def should_render_graphql_ide(self, request: Any) -> bool:
        # Else strawberry answers 404 to a GET without a query.
        return False

    def _check_websocket_origin(self, request: WebSocket) -> bool:
        return self.origins.allow(request.headers)

    async def reject_websocket(self, request: WebSocket) -> WebSocket:
        refused = self.origins.refuse(request.headers["origin"])
        await request.send_denial_response(PlainTextResponse(refused, status_code=403))
        return request

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

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket | None) -> Context:
        if not isinstance(request, WebSocket) and (known := request.scope[_ANSWER].context) is not None:
            return known  # type: ignore[no-any-return]
        context: Context = await _maybe(self._make_context(request, None))
        context.request_id = context.request_id or uuid4().hex
        if isinstance(request, WebSocket):
            # Its credential comes with connection_init.
            return context
        answer: _Answer = request.scope[_ANSWER]
        answer.context = context
        token = self.admission.credential_of(request.headers)
        network = network_in(request.scope)
        answer.key = key_of(token) if token else f"network:{network}"
        try:
            context.viewer = await self.admission.viewer_of(token, network)
            if context.viewer is not None:
                self.admission.count(context.viewer)
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
        if request.method == "GET":
            # Forms and API tools also send empty fields.
            data = self.parse_query_params({name: value for name, value in request.query_params.items() if value})
        elif request.headers.get("content-encoding", "identity").lower() != "identity":
            raise Refusal(415, "BAD_REQUEST", "Send the body uncompressed.", {"Accept-Encoding": "identity"})
        elif content_type.lower() == JSON:
            # Some programs begin UTF-8 with a byte order mark; the JSON standard allows ignoring it.
            data = self.parse_json((await request.get_body()).removeprefix(codecs.BOM_UTF8))
        else:
            raise Refusal(415, "BAD_REQUEST", f"Send {JSON}.")
        return checked_data(data)

    async def execute_operation(
        self,
        request: Request,
        request_adapter: Any,
        request_data: Any,
        context: Any,
        root_value: None,
        sub_response: Response,
    ) -> Any:
        if not request_data.query and "persistedQuery" in (request_data.extensions or {}):
            # The name that Apollo and urql look for; they send the whole document next.
            code = {"code": "PERSISTED_QUERY_NOT_SUPPORTED"}
            return ExecutionResult(data=None, errors=[GraphQLError("PersistedQueryNotSupported", extensions=code)])
        answer: _Answer = request.scope[_ANSWER]
        if answer.accepted.json is not None:
            try:
                return await self.execute_single(
                    request, request_adapter, sub_response, context, root_value, request_data
                )
            except SubscriptionRefused:
                if not answer.accepted.events:
                    raise
        results: Any = await super().execute_operation(
            request, request_adapter, request_data, context, root_value, sub_response
        )
        return until_unavailable(results, request_data)

    async def execute_single(
        self,
        request: Request,
        request_adapter: Any,
        sub_response: Response,
        context: Any,
        root_value: None,
        request_data: GraphQLRequestData,
    ) -> ExecutionResult:
        request.scope[_ANSWER].cost = self._cost(request, request_data.query or "")
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
                raise SubscriptionRefused from error
            offered = "mutations by POST" if self.allow_queries_via_get else "POST: queries by GET are not offered here"
            raise Refusal(405, "BAD_REQUEST", f"Send {offered}.", {"Allow": "POST"}) from error

    async def process_result(self, request: Request, result: ExecutionResult) -> GraphQLHTTPResponse:
        answer: _Answer = request.scope[_ANSWER]
        body: dict[str, Any] = {}
        if result.errors:
            request_id = request_id_of(answer.context)
            result.errors = [present(error, request_id) for error in result.errors]
            body["errors"] = [error.formatted for error in result.errors]
            answer.unavailable = nothing_answered(result.data, result.errors)
        if is_request_error(result):
            answer.request_error = True
        else:
            body["data"] = result.data
        extensions = {**(result.extensions or {}), **({"cost": answer.cost} if answer.cost is not None else {})}
        if extensions:
            body["extensions"] = extensions
        return body  # type: ignore[return-value]

    def create_response(self, response_data: Any, sub_response: Response) -> Response:
        answer: _Answer = sub_response.answer  # type: ignore[attr-defined]
        refused = answer.request_error and answer.media_type != JSON
        status = 503 if answer.unavailable else 400 if refused else 200
        response = self._json(response_data, sub_response.status_code or status, answer)
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
        connections = self.admission.connections

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
            admitted(),
            status_code=sub_response.status_code or 200,
            headers={**sub_response.headers, **headers, "Vary": "Accept"},
        )


async def _maybe(value: Any | Awaitable[Any]) -> Any:
    return await value if isawaitable(value) else value


def get_view(
    schema: BaseSchema,
    *,
    get_context: GetContext,  # leaves `viewer` unset
    authenticate: Authenticate,
    still_valid: StillValid | None = None,
    allowed_origins: Sequence[str] = (),  # scheme://host[:port]
    local_origins: bool = False,
    origin_remedy: str = "set ALLOWED_ORIGINS",
    queries_by_get: bool = True,
    limits: Limits | None = None,
    sharing: Sharing | None = None,  # of subscriptions over WebSocket
    credential_of: CredentialOf = token_of,
    is_signed: IsSigned | None = None,  # without a look-up; other tokens are limited by network
    cross_origin_posts: bool = True,  # executed, but unreadable by the page
    answer_bytes: int = 0,  # memory for answers that are kept while nothing is logged
    show_cost: bool = False,  # in every answer over HTTP; otherwise only where COST_HEADER asks for it
) -> GraphQLView:
    return GraphQLView(
        schema,
        get_context=get_context,
        authenticate=authenticate,
        still_valid=still_valid,
        origins=Origins(allowed_origins, local=local_origins, remedy=origin_remedy),
        queries_by_get=queries_by_get,
        limits=limits or Limits(),
        sharing=sharing,
        credential_of=credential_of,
        is_signed=is_signed,
        cross_origin_posts=cross_origin_posts,
        answer_bytes=answer_bytes,
        show_cost=show_cost,
    )
