"""Shares one execution among subscriptions with the same operation, variables and scope."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson
import structlog
from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    parse,
    value_from_ast_untyped,
)
from strawberry.schema import BaseSchema
from strawberry.types.execution import ExecutionResult, PreExecutionError

from resolvers.transport.errors import SLOW_CONSUMER, UNAVAILABLE, present, request_id_of
from resolvers.transport.executor import EVENT_SEEN
from resolvers.transport.server import SocketProtocol
from resolvers.transport.sinks import Outbox, Sink, next_head

log = structlog.get_logger(__name__)

PLANS: Final = 512
SINKS_PER_TURN: Final = 200
TURN_S: Final = 0.01  # of executions, until others get their turn
SUBSCRIBED_S: Final = 1.0  # a stream's `Subscribed` serves those who come within this time
LONGEST_QUERY: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """List a root field only if its answer depends on `scope` and arguments alone."""

    fields: frozenset[str]
    personal: frozenset[tuple[str, str]]  # (type, field); selecting one prevents sharing
    scope: Callable[[Any], Hashable]  # of a viewer; equal if answers are equal
    position: Callable[[Any], int | None]  # the last event's number, set in the context before the yield
    ends: Callable[[Any], bool]  # the event is the last one
    # By root field: who may see what its arguments name; None: not this viewer.
    audiences: Mapping[str, Callable[[Any, Mapping[str, Any]], Awaitable[Hashable | None]]] = field(
        default_factory=dict
    )
    over: Callable[[Any], bool] = lambda context: False  # ended for all, and not by a failure


class Plan(NamedTuple):
    field: str
    after: str | None = None  # the variable
    default: bool = False  # the variable has one
    arguments: tuple[tuple[str, ValueNode], ...] = ()  # the others

    def resumes(self, variables: dict[str, Any] | None) -> bool:
        """Whether the subscriber may have a cursor."""
        return self.after is not None and (variables or {}).get(self.after, self.default or None) is not None

    def given(self, variables: dict[str, Any] | None) -> dict[str, Any]:
        """The other arguments, without defaults of variables."""
        return {name: value_from_ast_untyped(node, variables) for name, node in self.arguments}


# ------------------------------------------------------------------------------------------------------------ analysis
def plan(schema: GraphQLSchema, sharing: Sharing, query: str, operation_name: str | None) -> Plan | None:
    # An invalid operation may get a plan; it fails later.
    try:
        document = parse(query, max_tokens=1_000)
    except (GraphQLError, RecursionError):
        return None
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    named = [node for node in operations if operation_name is None or (node.name and node.name.value == operation_name)]
    if len(named) != 1 or OperationType(named[0].operation) is not OperationType.SUBSCRIPTION:
        return None
    selections = named[0].selection_set.selections
    root = selections[0]
    if len(selections) != 1 or not isinstance(root, FieldNode) or root.directives or named[0].directives:
        return None
    if root.name.value not in sharing.fields or _selects(schema, document, named[0], sharing.personal):
        return None
    arguments = {argument.name.value: argument.value for argument in root.arguments or ()}
    after = arguments.pop("after", None)
    found = Plan(root.name.value, arguments=tuple(arguments.items()))
    if after is None:
        return found
    if not isinstance(after, VariableNode):
        return None
    name = after.name.value
    default = any(one.variable.name.value == name and one.default_value for one in named[0].variable_definitions or ())
    return found._replace(after=name, default=default) if _used_once(document, name) else None


def _used_once(document: DocumentNode, variable: str) -> bool:
    # Another use would make answers differ within one key. A false match in a string only prevents sharing.
    # Two uses: the definition and the argument.
    text = document.loc.source.body if document.loc else ""
    return sum(part[:1] not in _WORD for part in (text + " ").split(f"${variable}")[1:]) == 2


_WORD: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def _selects(
    schema: GraphQLSchema,
    document: DocumentNode,
    operation: OperationDefinitionNode,
    fields: frozenset[tuple[str, str]],
) -> bool:
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    names = {name for _, name in fields}
    seen: set[str] = set()

    def look(selection_set: SelectionSetNode | None, parent: GraphQLNamedType | None) -> bool:
        for node in selection_set.selections if selection_set else ():
            if isinstance(node, FieldNode):
                name = node.name.value
                # On an interface or an unknown type any type's field may be meant.
                of_this_type = isinstance(parent, GraphQLObjectType)
                if (parent.name, name) in fields if of_this_type and parent else name in names:
                    return True
                definition = getattr(parent, "fields", {}).get(name)
                if look(node.selection_set, get_named_type(definition.type) if definition else None):
                    return True
            elif isinstance(node, InlineFragmentNode):
                named = schema.type_map.get(node.type_condition.name.value) if node.type_condition else parent
                if look(node.selection_set, named):
                    return True
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in seen:
                seen.add(node.name.value)
                fragment = fragments.get(node.name.value)
                if fragment and look(fragment.selection_set, schema.type_map.get(fragment.type_condition.name.value)):
                    return True
        return False

    return look(operation.selection_set, schema.subscription_type)


# ------------------------------------------------------------------------------------------------------------- streams
class _Subscribed(NamedTuple):
    """A stream's first message, for those who attach at `attached_at` until `until`."""

    attached_at: int
    until: float
    last: int
    head: bytes


class Stream:
    def __init__(self, key: Hashable, query: str) -> None:
        self.key = key
        self.query = query
        self.outbox = Outbox()
        self.users = 0
        self.last = 0
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.pump: asyncio.Task[None] | None = None
        self.over = False
        self.subscribed: _Subscribed | None = None
        self.subscribing = asyncio.Lock()

    def attach(self, operation_id: str, protocol: SocketProtocol | None) -> Sink:
        sink = Sink(operation_id, protocol, self.last)
        self.outbox.sinks.add(sink)
        return sink


class Fanout:
    def __init__(self, schema: BaseSchema, sharing: Sharing) -> None:
        self.sharing = sharing
        self._schema = schema
        self._streams: dict[Hashable, Stream] = {}
        graphql_schema: GraphQLSchema = schema._schema  # type: ignore[attr-defined]
        self._plan = lru_cache(PLANS)(lambda query, name: plan(graphql_schema, sharing, query, name))

    def __len__(self) -> int:
        return len(self._streams)

    def plan(self, query: str, operation_name: str | None) -> Plan | None:
        return self._plan(query, operation_name) if len(query) <= LONGEST_QUERY else None

    async def audience(self, found: Plan, variables: dict[str, Any] | None, viewer: Any) -> Hashable | None:
        """Equal for viewers that may share the operation; None: execute alone."""
        of_field = self.sharing.audiences.get(found.field)
        return await of_field(viewer, found.given(variables)) if of_field is not None else ()

    def join(
        self,
        found: Plan,
        audience: Hashable,
        *,
        query: str,
        operation_name: str | None,
        variables: dict[str, Any] | None,
        context: Any,
    ) -> Stream | None:
        """The operation's stream, until `leave`; None: execute alone."""
        shared = {name: value for name, value in (variables or {}).items() if name != found.after}
        try:
            canonical = orjson.dumps(shared, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:
            return None
        key = (query, operation_name, canonical, self.sharing.scope(context.viewer), audience)
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = Stream(key, query)
            stream.pump = asyncio.create_task(
                self._run(stream, operation_name, shared, context.for_event()), name="fanout:pump"
            )
        stream.users += 1
        return stream

    def leave(self, stream: Stream, sink: Sink | None) -> None:
        stream.users -= 1
        if sink is not None:
            stream.outbox.sinks.discard(sink)
        if stream.users == 0:
            self._forget(stream)
            if stream.pump is not None:
                stream.pump.cancel()

    def _forget(self, stream: Stream) -> None:
        if self._streams.get(stream.key) is stream:
            del self._streams[stream.key]

    async def _run(
        self,
        stream: Stream,
        operation_name: str | None,
        variables: dict[str, Any],
        context: Any,
    ) -> None:
        hand_out = asyncio.create_task(stream.outbox.run(SINKS_PER_TURN), name="fanout:hand-out")
        try:
            await self._pump(stream, operation_name, variables, context)
            stream.over = self.sharing.over(context)
            stream.outbox.finish()
            await hand_out
        except Exception as error:  # noqa: BLE001 the pump's top
            log.error("a shared subscription broke", error=type(error).__name__)
        finally:
            hand_out.cancel()
            # New subscribers start a new stream; present ones must not wait forever.
            self._forget(stream)
            if not stream.ready.done():
                stream.ready.set_result(False)
            for sink in stream.outbox.sinks:
                sink.end()

    async def _pump(self, stream: Stream, operation_name: str | None, variables: dict[str, Any], context: Any) -> None:
        request_id = request_id_of(context)
        clock = asyncio.get_running_loop().time
        turn_ends = clock() + TURN_S
        results = await self._schema.stream(
            stream.query, variable_values=variables, context_value=context, operation_name=operation_name
        )
        async with aclosing(results):
            async for result in results:
                if not isinstance(result, ExecutionResult) or isinstance(result, PreExecutionError):
                    return
                seq = self.sharing.position(context)
                if seq is None:
                    return
                payload, slow = _payload(result, request_id)
                if slow:
                    return
                stream.last = seq
                if not stream.ready.done():
                    if result.errors:
                        return
                    # The first is `Subscribed`: it is sent to each connection when it attaches.
                    stream.ready.set_result(True)
                    continue
                await stream.outbox.put(seq, next_head(orjson.dumps(payload)))
                if clock() > turn_ends:
                    # Plans may never wait.
                    await asyncio.sleep(0)
                    turn_ends = clock() + TURN_S


def _payload(result: ExecutionResult, request_id: str) -> tuple[dict[str, Any], bool]:
    payload: dict[str, Any] = {"data": result.data}
    slow = False
    if result.errors:
        errors = [present(error, request_id) for error in result.errors]
        # Subscribers reconnect and resume by cursor; they then receive this event.
        slow = any((error.extensions or {}).get("code") in (SLOW_CONSUMER, UNAVAILABLE) for error in errors)
        payload["errors"] = [error.formatted for error in errors]
    if result.extensions:
        payload["extensions"] = result.extensions
    return payload, slow


# ------------------------------------------------------------------------------------------------------ one operation
async def serve(handler: Any, operation: Any, fanout: Fanout) -> bool:
    """False: nothing was sent, execute the operation alone."""
    found = fanout.plan(operation.query, operation.operation_name)
    if found is None:
        return False
    audience = await fanout.audience(found, operation.variables, handler.context.viewer)
    if audience is None:
        return False
    stream = fanout.join(
        found,
        audience,
        query=operation.query,
        operation_name=operation.operation_name,
        variables=operation.variables,
        context=handler.context,
    )
    if stream is None:
        return False
    sink: Sink | None = None
    try:
        if not await asyncio.shield(stream.ready):
            return False
        sink = stream.attach(operation.id, handler.websocket.protocol)
        operation.query = stream.query  # one copy of the text for all
        last = await _begin(handler, operation, fanout, stream, sink, resumes=found.resumes(operation.variables))
        if last is not None:
            await sink.deliver(last, handler.websocket.send_text)
            if not stream.over or sink.overflowed:
                await handler.close_slow()
            await operation.send_operation_message({"id": operation.id, "type": "complete"})
        return True
    finally:
        fanout.leave(stream, sink)


async def _begin(
    handler: Any, operation: Any, fanout: Fanout, stream: Stream, sink: Sink, *, resumes: bool
) -> int | None:
    """Send `Subscribed` and what was missed; return the last number. None: the operation is over."""
    first = None if resumes else await _subscribed(handler, operation, fanout, stream, sink)
    if first is None:
        return await _catch_up(handler, operation, fanout.sharing, sink)
    await handler.websocket.send_text(sink.message(first.head))
    return first.last


async def _subscribed(handler: Any, operation: Any, fanout: Fanout, stream: Stream, sink: Sink) -> _Subscribed | None:
    # All who attach at one position may share one `Subscribed`: what came before its cursor came before they did.
    async with stream.subscribing:
        now = asyncio.get_running_loop().time()
        known = stream.subscribed
        if known is not None and known.attached_at == sink.attached_at and known.until > now:
            return known
        context = handler.context.for_event()
        async with aclosing(handler.results(operation, context)) as results:
            async for result in results:
                last = fanout.sharing.position(context)
                if isinstance(result, PreExecutionError) or result.errors or last is None or last < sink.attached_at:
                    return None
                head = next_head(orjson.dumps(_payload(result, "")[0]))
                stream.subscribed = _Subscribed(sink.attached_at, now + SUBSCRIBED_S, last, head)
                return stream.subscribed
    return None


async def _catch_up(handler: Any, operation: Any, sharing: Sharing, sink: Sink) -> int | None:
    context = handler.context.for_event()
    over = False

    def seen(event: Any) -> None:
        nonlocal over
        over = over or sharing.ends(event)

    EVENT_SEEN.set(seen)
    async with aclosing(handler.results(operation, context)) as results:
        async for result in results:
            if isinstance(result, PreExecutionError):
                await operation.send_initial_errors(result.errors)
                return None
            await operation.send_next(result)
            last = sharing.position(context)
            if over or last is None:
                continue
            # All up to `attached_at` was delivered; or, where filters leave no event at that number, the first queued.
            if last >= sink.attached_at or (sink.queue and last >= sink.queue[0][0]):
                return last
    await operation.send_operation_message({"id": operation.id, "type": "complete"})
    return None
