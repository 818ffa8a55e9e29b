"""Planned queries over HTTP, answered without the layers around an execution."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson
from graphql import FragmentDefinitionNode, GraphQLSchema, OperationDefinitionNode, OperationType
from graphql.execution.values import VariableValues, get_variable_values

from models.database import reads_directly
from resolvers.transport.documents import Documents
from resolvers.transport.executor import PlannedExecution
from resolvers.transport.limits import Limits

OPERATIONS: Final = 512


class Operation(NamedTuple):
    """A query of a document that has been validated."""

    node: OperationDefinitionNode
    fragments: Mapping[str, FragmentDefinitionNode]


class QuickAnswers:
    """Bodies of answers to planned queries of one schema."""

    def __init__(self, schema: GraphQLSchema, documents: Documents, plans: PlannedExecution, limits: Limits) -> None:
        self._schema = schema
        self._documents = documents
        self._plans = plans
        self._operation_s = limits.operation_s
        self._operations: OrderedDict[tuple[str, str | None], Operation | None] = OrderedDict()

    def find(self, query: str, name: str | None) -> Operation | None:
        """The query of this name, if its document was validated before."""
        if query not in self._documents.accepted:
            return None
        key = query, name
        if key not in self._operations:
            self._operations[key] = _operation(self._documents.accepted[query].definitions, name)
            if len(self._operations) > OPERATIONS:
                self._operations.popitem(last=False)
        return self._operations[key]

    async def answer(self, operation: Operation, variables: dict[str, Any] | None, viewer: Any) -> bytes | None:
        """The body; None when the stock executor must answer."""
        values = get_variable_values(self._schema, operation.node.variable_definitions or (), variables or {})
        if not isinstance(values, VariableValues):
            return None
        planned = self._plans.answer(operation.node, operation.fragments, values, viewer)
        if planned is None:
            return None
        try:
            # A read on this thread can't be interrupted, and setting a timer takes as long as the read.
            if reads_directly():
                return orjson.dumps({"data": await planned})
            async with asyncio.timeout(self._operation_s):
                return orjson.dumps({"data": await planned})
        except Exception:  # noqa: BLE001 whatever it is, the stock executor meets it again and reports it
            return None


def _operation(definitions: Any, name: str | None) -> Operation | None:
    operations = [node for node in definitions if isinstance(node, OperationDefinitionNode)]
    named = [node for node in operations if name is None or (node.name is not None and node.name.value == name)]
    if len(named) != 1 or named[0].operation is not OperationType.QUERY:
        return None
    fragments = {node.name.value: node for node in definitions if isinstance(node, FragmentDefinitionNode)}
    return Operation(named[0], fragments)
