"""Compiles a validated operation into a plan. Raises NotPlanned for fields without a reader."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLDirective,
    GraphQLField,
    GraphQLIncludeDirective,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLSkipDirective,
    InlineFragmentNode,
    SelectionSetNode,
    Undefined,
    VariableNode,
    get_nullable_type,
    is_abstract_type,
    is_non_null_type,
    value_from_ast,
)
from graphql.execution.values import VariableValues, get_argument_values, get_directive_values
from strawberry.schema.config import StrawberryConfig
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField

from models.ids import parse_public_id
from resolvers.access.rows import THREAD
from resolvers.plans.amounts import money_builder
from resolvers.plans.objects import object_reader
from resolvers.plans.readers import (
    Amount,
    Below,
    By,
    Children,
    EventCursor,
    FirstChild,
    Group,
    Names,
    Objects,
    One,
    OneColumn,
    Reader,
    RowType,
    Through,
)
from resolvers.plans.selections import (
    ActorSelection,
    Arguments,
    Built,
    ByLink,
    ChildrenLink,
    ColumnLink,
    Connection,
    ConnectionSelection,
    FirstChildLink,
    Link,
    NodeLists,
    ObjectReader,
    ObjectsLink,
    OneLink,
    RowNodes,
    RowSelection,
    Run,
    ThreadNodes,
    ThroughLink,
)
from resolvers.plans.types import TYPES
from resolvers.transport.executor import NotPlanned
from schema import connections
from services.lists.orders import List

Selected = dict[str, list[FieldNode]]  # response name -> its nodes, all of one field
Root = Callable[[Run], Any]


class Compiler:
    """`values`: the operation's variables, for @skip and @include."""

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        values: VariableValues,
        *,
        config: StrawberryConfig,
        scalar_registry: Mapping[object, Any],
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._values = values
        self._config = config
        self._scalar_registry = scalar_registry
        self.wants_position = False
        # Whether each change of what is selected appends to the account's log; a moment may change it, too (Run.until).
        self.depends_on_the_log_only = True
        self.may_scan = False  # whether a read may look at many rows

    # ------------------------------------------------------------------------------------------------------ selections
    def fields(self, nodes: Sequence[FieldNode] | SelectionSetNode, type_name: str) -> Selected:
        """The merged selection of a type, in the order of the answer."""
        found: Selected = {}
        sets = [nodes] if isinstance(nodes, SelectionSetNode) else [node.selection_set for node in nodes]
        for selection_set in sets:
            if selection_set is not None:
                self._collect(selection_set, type_name, found, set())
        return found

    def _collect(self, selection_set: SelectionSetNode, type_name: str, found: Selected, seen: set[str]) -> None:
        for node in selection_set.selections:
            if not self._included(node):
                continue
            if isinstance(node, FieldNode):
                name = node.alias.value if node.alias else node.name.value
                found.setdefault(name, []).append(node)
            elif isinstance(node, InlineFragmentNode):
                if node.type_condition is None or self._applies(node.type_condition.name.value, type_name):
                    self._collect(node.selection_set, type_name, found, seen)
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in seen:
                seen.add(node.name.value)
                fragment = self._fragments[node.name.value]
                if self._applies(fragment.type_condition.name.value, type_name):
                    self._collect(fragment.selection_set, type_name, found, seen)

    def _included(self, node: Any) -> bool:
        for directive in node.directives or ():
            kind: GraphQLDirective | None = _CONDITIONS.get(directive.name.value)
            if kind is None:
                raise NotPlanned
            values = get_directive_values(kind, node, self._values)
            if values is not None and values["if"] is (kind is GraphQLSkipDirective):
                return False
        return True

    def _applies(self, condition: str, type_name: str) -> bool:
        if condition == type_name:
            return True
        abstract: Any = self._schema.type_map[condition]
        concrete: Any = self._schema.type_map[type_name]
        return is_abstract_type(abstract) and self._schema.is_sub_type(abstract, concrete)

    def arguments(self, type_name: str, node: FieldNode) -> Arguments:
        # Searches read contacts' texts, a filter may compare with the time, and some times that lists are sorted by change
        # without an event.
        names = {argument.name.value for argument in node.arguments or ()}
        filtered = not names.isdisjoint({"search", "filter", "orderBy"})
        self.depends_on_the_log_only &= not filtered
        self.may_scan |= filtered
        parent = self._schema.type_map[type_name]
        assert isinstance(parent, GraphQLObjectType)  # noqa: S101 (for mypy)
        definition = parent.fields[node.name.value]
        if not node.arguments:
            return lambda run: {}
        field: StrawberryField = definition.extensions["strawberry-definition"]
        if all(isinstance(get_nullable_type(given.type), GraphQLScalarType) for given in definition.args.values()):
            # Scalars reach a resolver as they are.
            return _scalars(definition, node, field)
        return lambda run: self._converted(definition, node, run.values)

    def _converted(self, definition: GraphQLField, node: FieldNode, values: VariableValues) -> dict[str, Any]:
        given = get_argument_values(definition, node, values)
        field: StrawberryField = definition.extensions["strawberry-definition"]
        return convert_arguments(
            given, field.arguments, scalar_registry=self._scalar_registry, config=self._config, info=None
        )

    # ------------------------------------------------------------------------------------------------------------ rows
    def rows(self, type_name: str, nodes: Sequence[FieldNode] | SelectionSetNode) -> RowSelection:
        row_type = TYPES.get(type_name)
        if row_type is None:
            raise NotPlanned
        self.depends_on_the_log_only &= row_type.logged
        columns: dict[str, None] = {"id": None}
        if row_type.replaced is not None:
            columns[row_type.replaced] = None
        links: list[Link] = []
        parts: list[tuple[str, Callable[[Names], str]]] = []
        for response_name, found in self.fields(nodes, type_name).items():
            part = self._part(row_type, found, columns, links)
            parts.append((response_name, part))

        def make_for(layout: Sequence[str], offset: int) -> Callable[..., Built]:
            names = Names(layout, offset)
            text = ", ".join(f"{name!r}: {part(names)}" for name, part in parts)
            parameters = ", ".join(["r", "run", *(f"l{n}=None" for n in range(len(links)))])
            return names.function(parameters, f"{{{text}}}")

        layout = tuple(columns)
        return RowSelection(row_type, layout, links, make_for(layout, 0), make_for)

    def _part(
        self, row_type: RowType, nodes: list[FieldNode], columns: dict[str, None], links: list[Link]
    ) -> Callable[[Names], str]:
        name = nodes[0].name.value
        if name == "__typename":
            return lambda names: repr(row_type.name)
        reader = row_type.fields.get(name)
        if reader is None:
            raise NotPlanned
        if isinstance(reader, Below):
            link = self._link(row_type, reader, nodes)
            columns[link.column] = None
            columns.update(dict.fromkeys(getattr(reader, "columns", ())))
            number = len(links)
            links.append(link)
            # A missing row is an error of the stock executor, unless the field is nullable.
            optional = isinstance(reader, OneColumn | FirstChild | By) or (isinstance(reader, One) and reader.nullable)
            optional = optional or (isinstance(reader, Objects) and not reader.many)
            return lambda names: (
                f"l{number}.get({names.column(link.column)})" if optional else f"l{number}[{names.column(link.column)}]"
            )
        return self._value(reader, nodes, columns)

    def _value(self, reader: Reader, nodes: list[FieldNode], columns: dict[str, None]) -> Callable[[Names], str]:
        if isinstance(reader, EventCursor):
            self.wants_position = True
            return lambda names: "run.cursor"
        if isinstance(reader, Amount):
            columns.update(dict.fromkeys((*reader.columns, reader.currency)))
            money = self._money(nodes)
            minor = reader.minor
            if minor is None:
                return lambda names: names.call(money, (*reader.columns, reader.currency))
            return lambda names: (
                f"{names.constant(money)}({names.call(minor, reader.columns)}, {names.column(reader.currency)})"
            )
        if isinstance(reader, Group):
            columns.update(dict.fromkeys(reader.present))
            parts = [
                (response_name, self._grouped(reader, found, columns))
                for response_name, found in self.fields(nodes, reader.type_name).items()
            ]
            return lambda names: (
                f"({{{', '.join(f'{name!r}: {part(names)}' for name, part in parts)}}}"
                f" if {' and '.join(f'{names.column(column)} is not None' for column in reader.present)} else None)"
            )
        assert not isinstance(reader, Below)  # noqa: S101 (for mypy)
        columns.update(dict.fromkeys(reader.columns))
        return reader.expression

    def _grouped(self, group: Group, nodes: list[FieldNode], columns: dict[str, None]) -> Callable[[Names], str]:
        name = nodes[0].name.value
        if name == "__typename":
            return lambda names: repr(group.type_name)
        return self._value(group.fields[name], nodes, columns)

    def _money(self, nodes: list[FieldNode]) -> Callable[[int, str], Built]:
        return money_builder(self.fields(nodes, "Money"))

    def _link(self, row_type: RowType, reader: Below, nodes: list[FieldNode]) -> Link:
        if isinstance(reader, One):
            return OneLink(reader.column, self.rows(reader.type_name, nodes))
        if isinstance(reader, OneColumn):
            self.depends_on_the_log_only = False  # connections may change without an event
            return ColumnLink(reader)
        if isinstance(reader, Children):
            return ChildrenLink(self.rows(reader.type_name, nodes), reader.parent, reader.order)
        if isinstance(reader, FirstChild):
            return FirstChildLink(ChildrenLink(self.rows(reader.type_name, nodes), reader.parent, reader.order))
        if isinstance(reader, Through):
            return ThroughLink(self.rows(reader.type_name, nodes), reader)
        if isinstance(reader, Objects):
            self.depends_on_the_log_only = False  # services may look at the time
            self.may_scan = True  # or read off the event loop's thread: the time limit must end it
            return ObjectsLink(reader, self._object(reader.type_name, nodes))
        if isinstance(reader, By):
            return ByLink(reader, self.actor(nodes))
        return self.connection(row_type.name, nodes, *_CONNECTIONS[row_type.name, reader.kind])

    def _object(self, type_name: str, nodes: list[FieldNode]) -> ObjectReader:
        fields = self.fields(nodes, type_name)
        return object_reader(type_name, fields, money=self._money, actor=self.actor, other=self._object)

    def actor(self, nodes: list[FieldNode]) -> ActorSelection:
        of_rows = {"USER": "User", "API_KEY": "ApiKey", "CONTACT": "Contact"}
        rows = {kind: self.rows(type_name, nodes) for kind, type_name in of_rows.items()}
        parts = [(name, found[0].name.value) for name, found in self.fields(nodes, "SystemActor").items()]
        return ActorSelection(
            rows,
            lambda name: {response_name: name if field == "name" else "SystemActor" for response_name, field in parts},
        )

    # ----------------------------------------------------------------------------------------------------- connections
    def connection(
        self,
        parent: str,
        nodes: list[FieldNode],
        type_name: str,
        node_type: str,
        name: List | None,
    ) -> Connection:
        """`name`: None: the thread."""
        lists: list[list[FieldNode]] = []
        parts: list[str] = []
        edges: list[list[str]] = []  # one for each response name of `edges`
        needs_cursors = needs_total = False
        for response_name, found in self.fields(nodes, type_name).items():
            field = found[0].name.value
            if field == "edges":
                edge_parts, cursors = self._edges(found, type_name.removesuffix("Connection") + "Edge", lists)
                needs_cursors |= cursors
                parts.append(f"{response_name!r}: edges[{len(edges)}]")
                edges.append(edge_parts)
            elif field == "nodes":
                parts.append(f"{response_name!r}: n{len(lists)}")
                lists.append(found)
            elif field == "pageInfo":
                text, cursors = self._page_info(found)
                needs_cursors |= cursors
                parts.append(f"{response_name!r}: {text}")
            elif field == "eventCursor":
                self.wants_position = True
                parts.append(f"{response_name!r}: run.cursor")
            elif field == "totalCount":
                needs_total = self.may_scan = True
                parts.append(f"{response_name!r}: total")
            elif field == "__typename":
                parts.append(f"{response_name!r}: {type_name!r}")
            else:
                raise NotPlanned
        selection = _connection_selection(parts, edges, len(lists), needs_cursors)
        read: NodeLists = self._thread(lists) if name is None else self._page_of(node_type, lists, name)
        return Connection(selection, read, self.arguments(parent, nodes[0]), needs_total)

    def _edges(self, nodes: list[FieldNode], type_name: str, lists: list[list[FieldNode]]) -> tuple[list[str], bool]:
        parts, cursors = [], False
        for response_name, found in self.fields(nodes, type_name).items():
            name = found[0].name.value
            if name == "cursor":
                cursors = True
                parts.append(f"{response_name!r}: cursor")
            elif name == "node":
                parts.append(f"{response_name!r}: i{len(lists)}")
                lists.append(found)
            else:
                parts.append(f"{response_name!r}: {type_name!r}")
        return parts, cursors

    def _page_info(self, nodes: list[FieldNode]) -> tuple[str, bool]:
        selected = self.fields(nodes, "PageInfo")
        parts = [
            f"{response_name!r}: "
            + ("'PageInfo'" if found[0].name.value == "__typename" else f"info[{_INFO[found[0].name.value]}]")
            for response_name, found in selected.items()
        ]
        cursors = any(found[0].name.value in ("startCursor", "endCursor") for found in selected.values())
        return f"{{{', '.join(parts)}}}", cursors

    def _thread(self, lists: list[list[FieldNode]]) -> ThreadNodes:
        each = [tuple(self.rows(name, nodes) for name in _THREAD_TYPES) for nodes in lists]
        # The id also without lists: a statement selects a column.
        selected = tuple(
            tuple(sorted({"id", *(name for selections in each for name in selections[kind].columns)}))
            for kind in range(len(_THREAD_TYPES))
        )
        every = tuple(sorted({name for columns in selected for name in columns}))
        return ThreadNodes(connections.THREAD, each, selected, every)

    def _page_of(self, node_type: str, lists: list[list[FieldNode]], name: List) -> RowNodes:
        selections = [self.rows(node_type, nodes) for nodes in lists]
        wanted = [column for selection in selections for column in selection.columns]
        return RowNodes(name, selections, tuple(dict.fromkeys(["id", *wanted])))

    # ------------------------------------------------------------------------------------------------------------ root
    def root(self, nodes: list[FieldNode]) -> Root:
        name = nodes[0].name.value
        if name in _BY_ID:
            return self._by_id(nodes, *_BY_ID[name])
        if name in _ROOT_CONNECTIONS:
            return self.connection("Query", nodes, *_ROOT_CONNECTIONS[name]).read
        raise NotPlanned

    def _by_id(self, nodes: list[FieldNode], prefix: str, type_name: str, hidden: str | None) -> Root:
        selection = self.rows(type_name, nodes)
        arguments = self.arguments("Query", nodes[0])
        columns = (*selection.columns, hidden) if hidden is not None else selection.columns

        async def read(run: Run) -> Built | None:
            id = parse_public_id(arguments(run)["id"], prefix)
            if id is None:
                return None
            found = await run.records.by_id(selection.type.model, columns, [id])
            if not found or (hidden is not None and found[0][-1] is not None):
                return None
            return (await selection.build(run, found))[0]

        return read


def _connection_selection(
    parts: list[str], edges: list[list[str]], lists: int, needs_cursors: bool
) -> ConnectionSelection:
    names = Names(())
    parameters = ", ".join(f"n{n}" for n in range(lists))
    items = ", ".join(f"i{n}" for n in range(lists))
    make_edges = [
        names.function(
            f"cursors, {parameters}",
            f"[{{{', '.join(edge_parts)}}} for cursor, {items} in zip(cursors, {parameters})]",
        )
        for edge_parts in edges
    ]
    make = names.function(f"run, edges, info, total, {parameters}", f"{{{', '.join(parts)}}}")
    return ConnectionSelection(make_edges, make, needs_cursors)


def _scalars(definition: GraphQLField, node: FieldNode, field: StrawberryField) -> Arguments:
    names = {given.graphql_name or given.python_name: given.python_name for given in field.arguments}
    variables: dict[str, tuple[str, bool]] = {}
    literals = []
    for argument in node.arguments or ():
        if isinstance(argument.value, VariableNode):
            required = is_non_null_type(definition.args[argument.name.value].type)
            variables[names[argument.name.value]] = argument.value.name.value, required
        else:
            literals.append(argument)
    constant = {
        name: value_from_ast(argument.value, definition.args[argument.name.value].type)
        for argument in literals
        for name in [names[argument.name.value]]
    }
    if Undefined in constant.values():
        raise NotPlanned

    def read(run: Run) -> dict[str, Any]:
        found = dict(constant)
        coerced = run.values.coerced
        for name, (variable, required) in variables.items():
            value = coerced.get(variable, Undefined)
            if value is not Undefined:
                found[name] = value
            if required and (value is Undefined or value is None):
                raise NotPlanned
        return found

    return read


_THREAD_TYPES: Final = tuple(model.__name__ for model in THREAD)
_CONDITIONS: Final = {"skip": GraphQLSkipDirective, "include": GraphQLIncludeDirective}
_INFO: Final = {"hasNextPage": 0, "hasPreviousPage": 1, "startCursor": 2, "endCursor": 3}
# Field -> the connection's type, its nodes' type, the list; None: the thread.
_CONNECTIONS: Final[dict[tuple[str, str], tuple[str, str, List | None]]] = {
    ("Conversation", "thread"): ("ThreadConnection", "ThreadItem", None),
    ("Contact", "paymentRequests"): ("PaymentRequestConnection", "PaymentRequest", "contact_payment_requests"),
}
_ROOT_CONNECTIONS: Final[dict[str, tuple[str, str, List | None]]] = {
    "conversations": ("ConversationConnection", "Conversation", "conversations"),
    "contacts": ("ContactConnection", "Contact", "contacts"),
    "paymentRequests": ("PaymentRequestConnection", "PaymentRequest", "payment_requests"),
}
# Field -> prefix of its ids, its type, the column that hides a row.
_BY_ID: Final[dict[str, tuple[str, str, str | None]]] = {
    "conversation": ("cnv", "Conversation", None),
    "contact": ("cnt", "Contact", None),
    "paymentRequest": ("pr", "PaymentRequest", "discarded_at"),
}
