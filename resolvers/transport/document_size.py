"""Size of a document: depth, aliases, directives and cost."""

from collections.abc import Set
from typing import Any, Final, NamedTuple, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLList,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    get_named_type,
    get_nullable_type,
)

from resolvers.transport.limits import Limits


class Size(NamedTuple):
    depth: int
    aliases: int
    directives: int
    directives_on_one_field: int
    cost: int


_NOTHING: Final = Size(0, 0, 0, 0, 0)
DEFAULT_PAGE: Final = 50
LARGEST_PAGE: Final = 100
PLAIN_LIST: Final = 5
SCALAR_COST: Final = 1
OBJECT_COST: Final = 2


def measure(schema: GraphQLSchema, document: DocumentNode) -> Size:
    """Size of a document, fragments expanded; root fields have depth 0."""
    # Cost: leaf 1, object 2; times `first` or `last` below a page, times 5 below another list.
    # Depth does not raise the cost: an ordinary page of 100 thread items would then cost more than a hostile tree.
    return _Measure(schema, document).run()


class _Measure:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._schema = schema
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        # Each fragment is measured once, so this is linear. None: in progress; validation refuses cycles later.
        self._known: dict[str, Size | None] = {}

    def run(self) -> Size:
        total = _NOTHING
        for operation in self._operations:
            root = self._schema.get_root_type(OperationType(operation.operation))
            size = self._selection(operation.selection_set, root, inside_page=False)
            total = _add(total, size._replace(directives=size.directives + len(operation.directives or ())))
        return total

    def _selection(self, selection_set: SelectionSetNode, parent: GraphQLNamedType | None, inside_page: bool) -> Size:
        total = _NOTHING
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                size = self._field(node, parent, inside_page)
            elif isinstance(node, InlineFragmentNode):
                named = self._type(node.type_condition.name.value) if node.type_condition else parent
                size = self._selection(node.selection_set, named, inside_page)
            else:
                size = self._spread(cast(FragmentSpreadNode, node), inside_page)
            here = len(node.directives or ())
            size = size._replace(
                directives=size.directives + here,
                directives_on_one_field=max(size.directives_on_one_field, here),
            )
            total = _add(total, size)
        return total

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None, inside_page: bool) -> Size:
        alias = 1 if node.alias else 0
        if node.name.value.startswith("__"):
            # Introspection has no costly resolvers; `introspection` limits it.
            return _NOTHING._replace(aliases=alias)
        if node.selection_set is None:
            return _NOTHING._replace(aliases=alias, cost=SCALAR_COST)
        definition = getattr(parent, "fields", {}).get(node.name.value)
        child = get_named_type(definition.type) if definition else None
        page = _page(node, definition)
        # `nodes` and `edges` are the page itself: multiply once, by its `first`.
        is_list = definition is not None and isinstance(get_nullable_type(definition.type), GraphQLList)
        times = page or (PLAIN_LIST if is_list and not inside_page else 1)
        below = self._selection(node.selection_set, child, inside_page=page is not None)
        return below._replace(
            depth=below.depth + 1, aliases=below.aliases + alias, cost=OBJECT_COST + times * below.cost
        )

    def _spread(self, node: FragmentSpreadNode, inside_page: bool) -> Size:
        name = node.name.value
        if name not in self._known:
            fragment = self._fragments.get(name)
            self._known[name] = None
            if fragment is not None:
                on = self._type(fragment.type_condition.name.value)
                self._known[name] = self._selection(fragment.selection_set, on, inside_page)
        return self._known[name] or _NOTHING

    def _type(self, name: str) -> GraphQLNamedType | None:
        return self._schema.type_map.get(name)


def _add(one: Size, other: Size) -> Size:
    return Size(
        max(one.depth, other.depth),
        one.aliases + other.aliases,
        one.directives + other.directives,
        max(one.directives_on_one_field, other.directives_on_one_field),
        one.cost + other.cost,
    )


def _page(node: FieldNode, definition: Any) -> int | None:
    if definition is None or not ({"first", "last"} & definition.args.keys()):
        return None
    largest = 0
    for argument in node.arguments or ():
        if argument.name.value in ("first", "last"):
            literal = argument.value
            # Python refuses to convert numbers of more than 4,300 digits.
            short = isinstance(literal, IntValueNode) and len(literal.value) <= 9
            largest = max(largest, int(cast(IntValueNode, literal).value) if short else LARGEST_PAGE)
    if not largest:
        defaults = [definition.args[name].default_value for name in ("first", "last") if name in definition.args]
        largest = max((value for value in defaults if isinstance(value, int)), default=DEFAULT_PAGE)
    return min(largest, LARGEST_PAGE)


def refuse_too_complex(size: Size, limits: Limits) -> GraphQLError | None:
    for unit, asked, allowed in (
        ("directives on one field", size.directives_on_one_field, limits.directives_on_one_field),
        ("directives", size.directives, limits.directives),
        ("aliases", size.aliases, limits.aliases),
        ("levels of fields", size.depth, limits.depth),
        ("points of cost", size.cost, limits.cost),
    ):
        if asked > allowed:
            return too_complex(f"This document is too complex: {asked} {unit}, at most {allowed} are allowed.")
    return None


def refuse_repeated(document: DocumentNode, once: Set[str]) -> GraphQLError | None:
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    for operation in document.definitions:
        if not isinstance(operation, OperationDefinitionNode):
            continue
        names: set[str] = set()  # fields with the same response name are executed once
        spread: set[str] = set()
        waiting = [operation.selection_set]
        while waiting:
            for node in waiting.pop().selections:
                if isinstance(node, FieldNode):
                    if node.name.value in once:
                        names.add(node.alias.value if node.alias else node.name.value)
                elif isinstance(node, InlineFragmentNode):
                    waiting.append(node.selection_set)
                elif (name := cast(FragmentSpreadNode, node).name.value) in fragments and name not in spread:
                    spread.add(name)
                    waiting.append(fragments[name].selection_set)
        if len(names) > 1:
            return too_complex(f"An operation may select only one of these fields, once: {', '.join(sorted(once))}.")
    return None


def too_complex(message: str) -> GraphQLError:
    return GraphQLError(message, extensions={"code": "QUERY_TOO_COMPLEX"})
