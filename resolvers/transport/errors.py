"""Errors that clients see, with codes; bugs are masked and logged."""

import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import structlog
from graphql import GraphQLError, GraphQLSyntaxError
from strawberry.exceptions import MissingQueryError
from strawberry.extensions import SchemaExtension
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types import ExecutionContext, ExecutionResult

from models.database_errors import is_transient
from services.core.event_hub import SlowConsumer

log = structlog.get_logger(__name__)

FRAMES: Final = 12  # of a bug's traceback, innermost last
MASKED: Final = "Something went wrong on our side. Quote the request id when you report it."
MESSAGE_CHARS: Final = 1_000
SLOW_CONSUMER: Final = "SLOW_CONSUMER"
UNAVAILABLE: Final = "SERVICE_UNAVAILABLE"
UNAVAILABLE_TEXT: Final = (
    "The service can't do this at the moment. Try again; repeat a mutation with the same idempotency key."
)
RETRY_AFTER_S: Final = 2
_REQUEST_ERRORS: Final = (CannotGetOperationTypeError, InvalidOperationTypeError, MissingQueryError)


def is_bug(error: GraphQLError) -> bool:
    """Whether the server is at fault; clients must not see the text."""
    cause = error.original_error
    if cause is None or isinstance(cause, (GraphQLError, SlowConsumer, RecursionError, *_REQUEST_ERRORS)):
        return False
    if is_transient(cause):
        return False
    # A ValueError with nodes but no path: a scalar refused a literal or variable before execution.
    return not (isinstance(cause, ValueError) and error.nodes and error.path is None)


def is_unavailable(error: GraphQLError) -> bool:
    if error.extensions and "code" in error.extensions:
        return bool(error.extensions["code"] == UNAVAILABLE)
    return error.original_error is not None and is_transient(error.original_error)


def nothing_answered(data: Mapping[str, Any] | None, errors: Sequence[GraphQLError]) -> bool:
    return any(is_unavailable(error) for error in errors) and all(value is None for value in (data or {}).values())


def present(error: GraphQLError, request_id: str) -> GraphQLError:
    """The error as a client may see it. Idempotent."""
    if error.extensions and "code" in error.extensions:
        return error
    if isinstance(error.original_error, SlowConsumer):
        return _coded(error, str(error.original_error), {"code": SLOW_CONSUMER})
    if is_unavailable(error):
        return _coded(error, UNAVAILABLE_TEXT, {"code": UNAVAILABLE, "requestId": request_id})
    if is_bug(error):
        return _coded(error, MASKED, {"code": "INTERNAL", "requestId": request_id})
    if isinstance(error.original_error, RecursionError) or (
        isinstance(error, GraphQLSyntaxError) and "Parsing aborted" in error.message
    ):
        return _coded(error, error.message, {"code": "QUERY_TOO_COMPLEX"})
    return _coded(error, error.message, {**(error.extensions or {}), "code": "BAD_REQUEST"})


def _coded(error: GraphQLError, message: str, extensions: dict[str, Any]) -> GraphQLError:
    return GraphQLError(
        shortened(message),
        nodes=error.nodes,
        source=error.source,
        positions=error.positions,
        path=error.path,
        extensions=extensions,
    )


def shortened(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARS else f"{message[:MESSAGE_CHARS]}…"


def request_id_of(context: Any) -> str:
    return str(getattr(context, "request_id", "") or "")


class PresentErrors(SchemaExtension):
    def on_operation(self) -> Iterator[None]:
        yield
        self._present(self.execution_context.result)

    def on_stream_result(self, result: Any) -> Iterator[None]:
        self._present(result)
        yield

    def _present(self, result: Any) -> None:
        errors = getattr(result, "errors", None)
        if errors:
            request_id = request_id_of(self.execution_context.context)
            result.errors = [present(error, request_id) for error in errors]


def log_unavailable(error: BaseException, request_id: str) -> None:
    # The class only: the text may quote values.
    log.warning("the database failed for a moment", error=type(error).__name__, request_id=request_id)


def log_errors(errors: list[GraphQLError], execution_context: ExecutionContext | None) -> None:
    failed = next((error for error in errors if is_unavailable(error)), None)
    if failed is not None and failed.original_error is not None:
        log_unavailable(failed.original_error, request_id_of(execution_context.context if execution_context else None))
    for error in errors:
        cause = error.original_error
        if not is_bug(error) or cause is None:
            continue
        log.error(
            "resolver failed",
            error=type(cause).__name__,
            path=".".join(str(part) for part in error.path or ()),
            request_id=request_id_of(execution_context.context if execution_context else None),
            where=[
                f"{'/'.join(frame.filename.split('/')[-2:])}:{frame.lineno} {frame.name}"
                for frame in traceback.extract_tb(cause.__traceback__)[-FRAMES:]
            ],
        )


def is_request_error(result: ExecutionResult) -> bool:
    errors = result.errors or []
    return (
        result.data is None
        and bool(errors)
        and all(error.path is None and (error.extensions or {}).get("code") != "TIMEOUT" for error in errors)
    )
