"""Shares one execution among subscriptions with the same operation, variables and scope."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
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
    VariableNode,
    get_named_type,
    parse,
)
from strawberry.schema import BaseSchema
from strawberry.types.execution import ExecutionResult, PreExecutionError

from resolvers.transport.errors import SLOW_CONSUMER, UNAVAILABLE, present, request_id_of
from resolvers.transport.executor import EVENT_SEEN
from resolvers.transport.server import SocketProtocol

log = structlog.get_logger(__name__)

PLANS: Final = 512
QUEUED_EVENTS: Final = 256
QUEUED_BYTES: Final = 1_048_576
SINKS_PER_TURN: Final = 200
LONGEST_QUERY: Final = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """List a root field only if its answer depends on `scope` and arguments alone."""

    fields: frozenset[str]
    personal: frozenset[tuple[str, str]]  # (type, field); selecting one prevents sharing
    scope: Callable[[Any], Hashable]  # of a viewer; equal if answers are equal
    position: Callable[[Any], int | None]  # the last event's number, set in the context before the yield
    ends: Callable[[Any], bool]  # the event is the last one


class Plan(NamedTuple):
    after: str | None


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
    for argument in root.arguments or ():
        if argument.name.value == "after":
            if not isinstance(argument.value, VariableNode):
                return None
            return Plan(argument.value.name.value) if _used_once(document, argument.value.name.value) else None
    return Plan(None)


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


# -------------------------------------------------------------------------------------------------------------- frames
@lru_cache(4_096)
def frame_head(length: int) -> bytes:
    """The head of an unmasked, final WebSocket text frame. Source: RFC 6455, 5.2."""
    if length < 126:
        return bytes((0x81, length))
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big")
    return b"\x81\x7f" + length.to_bytes(8, "big")


def next_head(payload: bytes) -> bytes:
    return b'{"type":"next","payload":' + payload


def next_tail(operation_id: str) -> bytes:
    return b',"id":' + orjson.dumps(operation_id) + b"}"


class Sink:
    """One operation's bounded queue on a shared stream; bypassed while its transport is writable."""

    __slots__ = ("_bytes", "_live", "_protocol", "_sending", "_tail", "_wake", "attached_at", "ended", "last", "queue")

    def __init__(self, operation_id: str, protocol: SocketProtocol | None, attached_at: int) -> None:
        self.attached_at = attached_at
        self.last = attached_at
        self.ended = False
        self.queue: deque[tuple[int, bytes]] = deque()
        self._bytes = 0
        self._tail = next_tail(operation_id)
        self._protocol = protocol
        self._live = False
        self._sending = False
        self._wake = asyncio.Event()

    def offer(self, seq: int, head: bytes) -> None:
        """Write one event or queue it. A full queue ends the sink."""
        if self.ended:
            return
        if self._live and not self.queue and not self._sending and self._write(seq, head):
            return
        if len(self.queue) >= QUEUED_EVENTS or self._bytes + len(head) > QUEUED_BYTES:
            self.end()
            return
        self.queue.append((seq, head))
        self._bytes += len(head)
        self._wake.set()

    def end(self) -> None:
        """Accept no more events; deliver those queued."""
        self.ended = True
        self._wake.set()

    async def deliver(self, last: int, send: Callable[[str], Any]) -> None:
        """Send events after `last` until the sink ends."""
        self.last = last
        self._live = True
        while True:
            while self.queue:
                seq, head = self.queue.popleft()
                self._bytes -= len(head)
                if seq <= self.last:
                    continue
                self.last = seq
                self._sending = True
                try:
                    await send((head + self._tail).decode())
                finally:
                    self._sending = False
            if self.ended:
                return
            self._wake.clear()
            await self._wake.wait()

    def _write(self, seq: int, head: bytes) -> bool:
        protocol = self._protocol
        if protocol is None or not protocol.writable.is_set():
            return False
        if protocol.close_sent or protocol.transport.is_closing():
            # The socket is closing; its task notices that itself.
            return True
        if seq > self.last:
            self.last = seq
            tail = self._tail
            protocol.transport.write(b"".join((frame_head(len(head) + len(tail)), head, tail)))
        return True


# ------------------------------------------------------------------------------------------------------------- streams
class _Stream:
    def __init__(self) -> None:
        self.sinks: set[Sink] = set()
        self.users = 0
        self.last = 0
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.pump: asyncio.Task[None] | None = None


class Fanout:
    def __init__(self, schema: BaseSchema, sharing: Sharing) -> None:
        self.sharing = sharing
        self._schema = schema
        self._streams: dict[Hashable, _Stream] = {}
        graphql_schema: GraphQLSchema = schema._schema  # type: ignore[attr-defined]
        self._plan = lru_cache(PLANS)(lambda query, name: plan(graphql_schema, sharing, query, name))

    def __len__(self) -> int:
        return len(self._streams)

    def plan(self, query: str, operation_name: str | None) -> Plan | None:
        return self._plan(query, operation_name) if len(query) <= LONGEST_QUERY else None

    @asynccontextmanager
    async def attached(
        self,
        found: Plan,
        *,
        query: str,
        operation_name: str | None,
        variables: dict[str, Any] | None,
        context: Any,
        operation_id: str,
        protocol: SocketProtocol | None,
    ) -> AsyncIterator[Sink | None]:
        """A sink for events after `attached_at`; None: execute alone."""
        shared = {name: value for name, value in (variables or {}).items() if name != found.after}
        try:
            canonical = orjson.dumps(shared, option=orjson.OPT_SORT_KEYS)
        except orjson.JSONEncodeError:
            yield None
            return
        key = (query, operation_name, canonical, self.sharing.scope(context.viewer))
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream()
            stream.pump = asyncio.create_task(
                self._run(key, stream, query, operation_name, shared, context), name="fanout:pump"
            )
        stream.users += 1
        sink: Sink | None = None
        try:
            if await asyncio.shield(stream.ready):
                sink = Sink(operation_id, protocol, stream.last)
                stream.sinks.add(sink)
            yield sink
        finally:
            stream.users -= 1
            if sink is not None:
                stream.sinks.discard(sink)
            if stream.users == 0:
                self._forget(key, stream)
                if stream.pump is not None:
                    stream.pump.cancel()

    def _forget(self, key: Hashable, stream: _Stream) -> None:
        if self._streams.get(key) is stream:
            del self._streams[key]

    async def _run(
        self,
        key: Hashable,
        stream: _Stream,
        query: str,
        operation_name: str | None,
        variables: dict[str, Any],
        context: Any,
    ) -> None:
        try:
            await self._pump(stream, query, operation_name, variables, context)
        except Exception as error:  # noqa: BLE001 the pump's top
            log.error("a shared subscription broke", error=type(error).__name__)
        finally:
            # New subscribers start a new stream; present ones must not wait forever.
            self._forget(key, stream)
            if not stream.ready.done():
                stream.ready.set_result(False)
            for sink in stream.sinks:
                sink.end()

    async def _pump(
        self, stream: _Stream, query: str, operation_name: str | None, variables: dict[str, Any], context: Any
    ) -> None:
        request_id = request_id_of(context)
        results = await self._schema.stream(
            query, variable_values=variables, context_value=context, operation_name=operation_name
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
                    # The first is `Subscribed`: each connection has its own.
                    stream.ready.set_result(True)
                    continue
                await self._hand_out(stream, seq, next_head(orjson.dumps(payload)))

    @staticmethod
    async def _hand_out(stream: _Stream, seq: int, head: bytes) -> None:
        for number, sink in enumerate(tuple(stream.sinks), start=1):
            sink.offer(seq, head)
            if number % SINKS_PER_TURN == 0:
                await asyncio.sleep(0)


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
    async with fanout.attached(
        found,
        query=operation.query,
        operation_name=operation.operation_name,
        variables=operation.variables,
        context=handler.context.for_event(),
        operation_id=operation.id,
        protocol=handler.websocket.protocol,
    ) as sink:
        if sink is None:
            return False
        last = await _catch_up(handler, operation, fanout.sharing, sink)
        if last is not None:
            await sink.deliver(last, handler.websocket.send_text)
            await handler.close_slow()
        return True


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
