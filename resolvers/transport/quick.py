"""Planned queries over HTTP, answered without the layers around an execution."""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, Final, NamedTuple

import orjson
from graphql import FragmentDefinitionNode, GraphQLSchema, OperationDefinitionNode, OperationType
from graphql.execution.values import VariableValues, get_variable_values

from models.database import reads_directly
from models.database_errors import is_transient
from resolvers.transport.answers import Answer, Answers
from resolvers.transport.documents import Documents
from resolvers.transport.executor import NotPlanned, PlannedExecution
from resolvers.transport.limits import Limits

OPERATIONS: Final = 512
LONG: Final = 256  # bytes of variables; a digest represents longer ones, so that keys of answers are small


class Operation(NamedTuple):
    """A query of a document that has been validated."""

    key: bytes  # of its document and name
    node: OperationDefinitionNode
    fragments: Mapping[str, FragmentDefinitionNode]


class InVain(Exception):
    """The plan has no answer, also when it is tried again."""


class QuickAnswers:
    """Bodies of answers to planned queries of one schema."""

    def __init__(
        self, schema: GraphQLSchema, documents: Documents, plans: PlannedExecution, limits: Limits, answer_bytes: int
    ) -> None:
        """`answer_bytes`: how much of them is kept for unchanged accounts."""
        self._schema = schema
        self._documents = documents
        self._plans = plans
        self._operation_s = limits.operation_s
        self._answers = Answers(answer_bytes) if answer_bytes else None
        self._operations: OrderedDict[tuple[str, str | None], Operation] = OrderedDict()

    def find(self, query: str, name: str | None) -> Operation | None:
        """The query of this name, if its document was validated before."""
        document = self._documents.accepted.get(query)
        if document is None:
            return None
        self._documents.accepted.move_to_end(query)
        key = query, name
        known = self._operations.get(key)
        if known is None:
            known = _operation(query, name, document.definitions)
            if known is None:
                return None  # not kept: the name may be any text of a client
            self._operations[key] = known
            if len(self._operations) > OPERATIONS:
                self._operations.popitem(last=False)
        else:
            self._operations.move_to_end(key)
        return known

    async def answer(self, operation: Operation, variables: dict[str, Any] | None, viewer: Any) -> bytes | None:
        """The body; None when the whole way must answer. Raises: InVain."""
        try:
            return await self._answer(operation, variables or {}, viewer)
        except Exception as error:
            if isinstance(error, NotPlanned | TimeoutError) or is_transient(error):
                raise InVain from error
            return None  # the whole way meets it again and reports it

    async def _answer(self, operation: Operation, variables: dict[str, Any], viewer: Any) -> bytes | None:
        given = orjson.dumps(variables, option=orjson.OPT_SORT_KEYS)
        key = operation.key, given if len(given) <= LONG else b"#" + _digest(given), self._plans.scope(viewer)
        position = None
        if self._answers is not None and self._answers.asked_again(key):
            position = await self._plans.position(viewer)
            if (kept := self._answers.find(key, position)) is not None:
                return kept
        values = get_variable_values(self._schema, operation.node.variable_definitions or (), variables)
        if not isinstance(values, VariableValues):
            return None
        planned = self._plans.query(operation.node, operation.fragments, values, viewer, position)
        if planned is None:
            return None
        # A read on this thread can't be interrupted, and setting a timer takes as long as the read.
        async with nullcontext() if reads_directly() and not planned.may_scan else asyncio.timeout(self._operation_s):
            body = orjson.dumps({"data": await planned.data()})
        if self._answers is not None and position is not None and planned.depends_on_the_log_only:
            self._answers.keep(key, Answer(position, planned.until, body))
        return body


def _operation(query: str, name: str | None, definitions: Any) -> Operation | None:
    operations = [node for node in definitions if isinstance(node, OperationDefinitionNode)]
    named = [node for node in operations if name is None or (node.name is not None and node.name.value == name)]
    if len(named) != 1 or named[0].operation is not OperationType.QUERY:
        return None
    fragments = {node.name.value: node for node in definitions if isinstance(node, FragmentDefinitionNode)}
    return Operation(_digest(orjson.dumps([query, name])), named[0], fragments)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()
