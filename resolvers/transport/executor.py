"""Executes one operation: new loaders for each pushed event, and a fast path for plain leaf fields."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from datetime import datetime
from types import CoroutineType
from typing import Any, Final, NamedTuple, Protocol, Self

import structlog
from graphql import (
    ExecutionResult,
    GraphQLBoolean,
    GraphQLError,
    GraphQLID,
    GraphQLInt,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLString,
    Undefined,
    is_leaf_type,
)
from graphql.execution import Executor
from graphql.execution.collect_fields import GroupedFieldSet
from graphql.pyutils import AwaitableOrValue, Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.field import StrawberryField

log = structlog.get_logger(__name__)


class Viewer(Protocol):
    @property
    def expires_at(self) -> datetime | None: ...

    @property
    def limit_key(self) -> str: ...


class Context(Protocol):
    connection_params: dict[str, Any] | None
    viewer: Any
    request_id: str
    planned_s: float | None  # how long a plan was tried in vain, before the execution

    def for_event(self) -> Self:
        """The same viewer with new data loaders."""


# Set in the task of one operation: sees each event object of its subscription before it is executed.
EVENT_SEEN: ContextVar[Callable[[Any], None] | None] = ContextVar("event_seen", default=None)

# Values that graphql-core would pass on unchanged, by the type of the field. bool is not int here, as in the stock way.
_AS_IT_IS: Final[dict[Any, type]] = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
_INT_MAX: Final = 2**31 - 1
_INT_MIN: Final = -(2**31)


class _Leaf(NamedTuple):
    attribute: str
    nullable: bool
    exact: type | None
    is_int: bool
    coerce: Callable[[Any], Any]


class NotPlanned(Exception):
    """This operation, or this execution of it, needs the stock executor."""


class PlannedQuery(Protocol):
    """One execution of a plan."""

    @property
    def depends_on_the_log_only(self) -> bool:
        """Whether the same data is the answer while the account's log does not grow, until `until`."""

    @property
    def may_scan(self) -> bool:
        """Whether it may look at many rows."""

    @property
    def until(self) -> datetime | None: ...

    async def data(self) -> dict[str, Any]:
        """Any exception: execute it the stock way."""


class PlannedExecution(Protocol):
    """A faster way to execute some operations. None: this operation has no plan."""

    def execute(self, executor: Any) -> Awaitable[dict[str, Any]] | None:
        """The answer's data. Any exception: execute it the stock way."""

    def query(
        self, operation: Any, fragments: Any, values: Any, viewer: Any, position: Any = None
    ) -> PlannedQuery | None:
        """A query outside an execution. `position`: of the log, if it was read before."""

    def scope(self, viewer: Any) -> Hashable:
        """What answers depend on beside operation and variables."""

    async def position(self, viewer: Any) -> Hashable:
        """Of the viewer's log, now."""


class PerEventContext(StrawberryGraphQLCoreExecutionContext):
    fast_leaves = True
    operation_s: float | None = None
    plans: PlannedExecution | None = None

    def execute_operation(self, *args: Any, **kwargs: Any) -> Any:
        tried_s: float | None = getattr(self.context_value, "planned_s", None)
        planned = self.plans.execute(self) if self.plans is not None and tried_s is None else None
        if planned is None:
            result = super().execute_operation(*args, **kwargs)
        else:
            result = self._planned(planned, lambda: super(PerEventContext, self).execute_operation(*args, **kwargs))
        if self.operation_s is not None and self.is_awaitable(result):
            return _within(result, self.operation_s, tried_s or 0.0)
        return result

    async def _planned(self, planned: Awaitable[dict[str, Any]], stock: Callable[[], Any]) -> Any:
        try:
            data = await planned
        except Exception as error:
            result = stock()
            answer = await result if self.is_awaitable(result) else result
            if not isinstance(error, NotPlanned) and not answer.errors:
                # A mistake in a plan costs time only, and would stay unseen.
                log.warning("a plan failed", exc_info=error)
            return answer
        return ExecutionResult(data, None)

    def build_per_event_executor(self, payload: Any) -> Executor[Any]:
        if (seen := EVENT_SEEN.get()) is not None:
            seen(payload)
        executor = super().build_per_event_executor(payload)
        if self.context_value is not None:
            executor.context_value = self.context_value.for_event()
        return executor

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Any,
    ) -> AwaitableOrValue[dict[str, Any]]:
        middleware = self.middleware_manager
        if not self.fast_leaves or source_value is None or (middleware is not None and middleware.middlewares):
            return super().execute_fields(parent_type, source_value, path, grouped_field_set, position_context)
        taken: dict[str, Any] = {}
        left: GroupedFieldSet = {}
        for response_name, details in grouped_field_set.items():
            leaf = _leaf(self.schema, parent_type, details[0].node.name.value)
            value = Undefined if leaf is None else _take(leaf, source_value)
            if value is Undefined:
                left[response_name] = details
            else:
                taken[response_name] = value
        if not left:
            return taken
        if not taken:
            return super().execute_fields(parent_type, source_value, path, grouped_field_set, position_context)
        rest = super().execute_fields(parent_type, source_value, path, left, position_context)
        order = tuple(grouped_field_set)
        if self.is_awaitable(rest):
            return _merge_later(order, taken, rest)
        return _merge(order, taken, rest)


async def _within(result: Awaitable[Any], seconds: float, passed: float) -> Any:
    try:
        async with asyncio.timeout(seconds - passed):
            return await result
    except TimeoutError as error:
        message = f"This operation took longer than {seconds:g} seconds."
        raise GraphQLError(message, extensions={"code": "TIMEOUT"}) from error


def _merge(order: tuple[str, ...], taken: dict[str, Any], rest: Any) -> dict[str, Any]:
    # A field that the stock executor does not know is missing from both.
    return {name: taken[name] if name in taken else rest[name] for name in order if name in taken or name in rest}


async def _merge_later(order: tuple[str, ...], taken: dict[str, Any], rest: Any) -> dict[str, Any]:
    return _merge(order, taken, await rest)


def _take(leaf: _Leaf, source: Any) -> Any:
    # Undefined: the stock executor must produce the answer.
    try:
        value = getattr(source, leaf.attribute)
        kind = type(value)
        if kind is leaf.exact:
            return value
        if value is None:
            return None if leaf.nullable else Undefined
        if leaf.is_int:
            return value if kind is int and _INT_MIN <= value <= _INT_MAX else Undefined
        if kind is CoroutineType:
            # The stock executor makes its own; Python warns about coroutines that are never awaited.
            value.close()
            return Undefined
        if leaf.exact is not None or hasattr(kind, "__await__") or isinstance(value, Exception):
            return Undefined
        coerced = leaf.coerce(value)
    except Exception:  # noqa: BLE001 whatever it is, the stock executor meets it again and reports it as it always does
        return Undefined
    return Undefined if coerced is None else coerced


_LEAVES: Final = "paythread-leaves"


def _leaf(schema: Any, parent_type: GraphQLObjectType, field_name: str) -> _Leaf | None:
    plans = parent_type.extensions.get(_LEAVES)
    if plans is None:
        plans = parent_type.extensions[_LEAVES] = {}
    try:
        return plans[field_name]  # type: ignore[no-any-return]
    except KeyError:
        plans[field_name] = plan = _plan(schema, parent_type, field_name)
        return plan


def _plan(schema: Any, parent_type: GraphQLObjectType, field_name: str) -> _Leaf | None:
    field = schema.get_field(parent_type, field_name)
    if field is None or field.args:
        return None
    definition = field.extensions.get("strawberry-definition") if field.extensions else None
    plain = getattr(field.resolve, "_is_default", False)
    if not plain or not isinstance(definition, StrawberryField) or definition.default_resolver is not getattr:
        return None
    nullable = not isinstance(field.type, GraphQLNonNull)
    named = field.type if nullable else field.type.of_type
    if not is_leaf_type(named):
        return None
    return _Leaf(
        attribute=definition.python_name,
        nullable=nullable,
        exact=_AS_IT_IS.get(named),
        is_int=named is GraphQLInt,
        coerce=named.coerce_output_value,
    )
