"""Plans: validated operations compiled once. The stock executor gives the same answers, slower."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from graphql import FragmentDefinitionNode, OperationDefinitionNode, OperationType, VariableNode, Visitor, visit
from graphql.execution.values import VariableValues
from strawberry.schema import BaseSchema

from models.event_log import Cursor as EventCursor
from resolvers.access.records import Records
from resolvers.plans.compiler import Compiler, Root
from resolvers.plans.events import event_reader
from resolvers.plans.readers import NotPlanned
from resolvers.plans.selections import Run
from services.core.permissions import Actor

log = structlog.get_logger(__name__)

PLANS: Final = 512  # operations that are kept


@dataclass(frozen=True, slots=True)
class Plan:
    """`roots`: response name to reader or constant."""

    roots: tuple[tuple[str, Root | str], ...]
    wants_position: bool

    async def run(self, run: Run) -> dict[str, Any]:
        """The answer's `data`. After any exception the stock executor runs."""
        if self.wants_position:
            run.cursor = (await run.records.position()).encode()
        return {name: root if isinstance(root, str) else await root(run) for name, root in self.roots}


@dataclass(slots=True)
class _Known:
    operation: OperationDefinitionNode  # kept, because its id is the key
    conditions: tuple[str, ...]  # variables of @skip and @include
    plans: dict[tuple[Any, ...], Plan | None]


class Plans:
    def __init__(self, schema: BaseSchema) -> None:
        self._schema: Any = schema
        self._known: OrderedDict[int, _Known] = OrderedDict()

    def query(
        self,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        values: VariableValues,
    ) -> Plan | None:
        """None without a plan."""
        if operation.operation is not OperationType.QUERY:
            return None
        return self._plan(operation, fragments, values, None)

    def event(
        self,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        values: VariableValues,
        event: object,
    ) -> Plan | None:
        return self._plan(operation, fragments, values, type(event))

    def _plan(
        self,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        values: VariableValues,
        event: type | None,
    ) -> Plan | None:
        known = self._known.get(id(operation))
        if known is None:
            known = self._known[id(operation)] = _Known(operation, _conditions(operation, fragments), {})
            if len(self._known) > PLANS:
                self._known.popitem(last=False)
        key = (event, *(values.coerced.get(name) for name in known.conditions))
        if key not in known.plans:
            known.plans[key] = self._compile(operation, fragments, values, event)
        return known.plans[key]

    def _compile(
        self,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        values: VariableValues,
        event: type | None,
    ) -> Plan | None:
        if operation.directives:
            return None
        schema = self._schema
        compiler = Compiler(
            schema._schema,
            fragments,
            values,
            config=schema.config,
            scalar_registry=schema.schema_converter.scalar_registry,
        )
        root_type = "Query" if event is None else "Subscription"
        try:
            roots: list[tuple[str, Root | str]] = []
            for name, nodes in compiler.fields(operation.selection_set, root_type).items():
                if nodes[0].name.value == "__typename":
                    roots.append((name, root_type))
                elif event is None:
                    roots.append((name, compiler.root(nodes)))
                else:
                    roots.append((name, event_reader(compiler, event, nodes)))
        except NotPlanned:
            return None
        return Plan(tuple(roots), compiler.wants_position)

    def answer(
        self,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        values: VariableValues,
        viewer: Actor,
    ) -> Awaitable[dict[str, Any]] | None:
        """The `data` of a query; None without a plan."""
        plan = self.query(operation, fragments, values)
        return plan.run(Run(Records(viewer), values)) if plan is not None else None

    def execute(self, executor: Any) -> Awaitable[dict[str, Any]] | None:
        """None without a plan."""
        context = executor.context_value
        viewer: Actor | None = getattr(context, "viewer", None)
        if viewer is None:
            return None
        event = executor.root_value
        make: Callable[..., Plan | None] = self.query
        known_position: EventCursor | None = None
        arguments = [executor.operation, executor.fragment_definitions, executor.variable_values]
        if executor.operation.operation is OperationType.SUBSCRIPTION:
            make, known_position = self.event, context.event_position
            arguments.append(event)
        plan = make(*arguments)
        if plan is None:
            return None
        return plan.run(Run(Records(viewer, known_position), executor.variable_values, event))


def _conditions(operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]) -> tuple[str, ...]:
    found: dict[str, None] = {}

    class Directives(Visitor):
        def enter_directive(self, node: Any, *_: Any) -> None:
            for argument in node.arguments or ():
                if isinstance(argument.value, VariableNode):
                    found[argument.value.name.value] = None

    for definition in (operation, *fragments.values()):
        visit(definition, Directives())
    return tuple(found)
