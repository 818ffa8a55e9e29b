"""Plans: validated operations compiled once. The stock executor gives the same answers, slower."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import structlog
from graphql import (
    FragmentDefinitionNode,
    GraphQLError,
    OperationDefinitionNode,
    OperationType,
    VariableNode,
    Visitor,
    visit,
)
from graphql.execution.values import VariableValues
from strawberry.schema import BaseSchema

from models.event_log import Cursor as EventCursor
from resolvers.access.records import Records
from resolvers.plans.compiler import Compiler, Root
from resolvers.plans.events import event_reader
from resolvers.plans.selections import Run
from resolvers.transport.executor import NotPlanned
from services.core.permissions import Actor

log = structlog.get_logger(__name__)

PLANS: Final = 512  # operations that are kept
VARIANTS: Final = 32  # plans of one operation: by the values of @skip and @include, and by event
LONGEST: Final = 16_384  # characters of a document; longer ones are parsed again for each request, so no plan is kept


@dataclass(frozen=True, slots=True)
class Plan:
    """One operation. `roots`: response name -> its reader, or a constant."""

    roots: tuple[tuple[str, Root | str], ...]
    wants_position: bool
    depends_on_the_log_only: bool
    may_scan: bool

    async def run(self, run: Run) -> dict[str, Any]:
        """The answer's `data`. Raises: NotPlanned, and anything else: the stock executor then answers."""
        if self.wants_position:
            run.cursor = (await run.records.position()).encode()
        return {name: root if isinstance(root, str) else await root(run) for name, root in self.roots}


@dataclass(frozen=True, slots=True)
class Query:
    """One execution of a query's plan."""

    plan: Plan
    run: Run

    @property
    def depends_on_the_log_only(self) -> bool:
        return self.plan.depends_on_the_log_only

    @property
    def may_scan(self) -> bool:
        return self.plan.may_scan

    @property
    def until(self) -> datetime | None:
        return self.run.until

    async def data(self) -> dict[str, Any]:
        return await self.plan.run(self.run)


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
        viewer: Actor,
        position: EventCursor | None = None,
    ) -> Query | None:
        """One execution of a query; None when it needs the stock executor."""
        if operation.operation is not OperationType.QUERY:
            return None
        plan = self._plan(operation, fragments, values, None)
        return Query(plan, Run(Records(viewer, position), values)) if plan is not None else None

    def scope(self, viewer: Actor) -> tuple[UUID, str, str, bool]:
        return viewer.account_id, viewer.role, viewer.kind, viewer.may("keys")

    async def position(self, viewer: Actor) -> EventCursor:
        return await Records(viewer).position()

    def _plan(
        self,
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        values: VariableValues,
        event: type | None,
    ) -> Plan | None:
        known = self._known.get(id(operation))
        if known is None:
            if operation.loc is None or len(operation.loc.source.body) > LONGEST:
                return None
            known = self._known[id(operation)] = _Known(operation, _conditions(operation, fragments), {})
            if len(self._known) > PLANS:
                self._known.popitem(last=False)
        key = (event, *(values.coerced.get(name) for name in known.conditions))
        if key not in known.plans:
            if len(known.plans) >= VARIANTS:
                known.plans.pop(next(iter(known.plans)))
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
        except (NotPlanned, GraphQLError):  # the stock executor meets the error again and reports it
            return None
        except Exception as error:
            log.warning("a plan failed", exc_info=error)
            return None
        return Plan(tuple(roots), compiler.wants_position, compiler.depends_on_the_log_only, compiler.may_scan)

    def execute(self, executor: Any) -> Awaitable[dict[str, Any]] | None:
        """None without a plan."""
        context = executor.context_value
        viewer: Actor | None = getattr(context, "viewer", None)
        if viewer is None:
            return None
        arguments = executor.operation, executor.fragment_definitions, executor.variable_values
        if executor.operation.operation is OperationType.SUBSCRIPTION:
            event = executor.root_value
            plan = self._plan(*arguments, type(event))
            records = Records(viewer, context.event_position, getattr(event, "memo", None))
            return plan.run(Run(records, arguments[2], event)) if plan else None
        query = self.query(*arguments, viewer)
        return query.data() if query is not None else None


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
