"""Introspection limit: the approximate number of schema values a document selects."""

from enum import Enum
from functools import lru_cache
from typing import Final, cast

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInputObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    is_abstract_type,
    parse,
)
from graphql.utilities import get_introspection_query

_LARGEST_WRAPPING: Final = 3  # [Item!]!


class _Among(Enum):
    ONE = 0
    ALL = 1
    MEMBERS_OF_ALL = 2


class _Introspection:
    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        self._counts = _counts(schema)
        self._fragments = {
            node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._known: dict[tuple[str, _Among, int], int] = {}
        self._document = document

    def run(self) -> int:
        return sum(
            self._selection(node.selection_set, _Among.ONE, 0, inside=False)
            for node in self._document.definitions
            if isinstance(node, OperationDefinitionNode)
        )

    def _selection(self, selection_set: SelectionSetNode, among: _Among, wrapping: int, *, inside: bool) -> int:
        total = 0
        for node in selection_set.selections:
            if isinstance(node, FieldNode):
                if inside or node.name.value in ("__schema", "__type"):
                    total += self._field(node, among, wrapping)
            elif isinstance(node, InlineFragmentNode):
                total += self._selection(node.selection_set, among, wrapping, inside=inside)
            else:
                total += self._spread(cast(FragmentSpreadNode, node).name.value, among, wrapping, inside=inside)
        return total

    def _field(self, node: FieldNode, among: _Among, wrapping: int) -> int:
        if node.selection_set is None:
            return 1
        name = node.name.value
        wrapping = wrapping + 1 if name == "ofType" else 0
        if wrapping > _LARGEST_WRAPPING:
            return 0
        mean, most = self._counts.get(name, (1.0, 1))
        usual = among is _Among.ALL or (among is _Among.MEMBERS_OF_ALL and name == "args")
        below = _Among.ALL if name == "types" else _Among.MEMBERS_OF_ALL if among is _Among.ALL else _Among.ONE
        times = mean if usual else most
        return 2 + round(times * self._selection(node.selection_set, below, wrapping, inside=True))

    def _spread(self, name: str, among: _Among, wrapping: int, *, inside: bool) -> int:
        key = (name, among, wrapping if inside else -1)
        if key not in self._known:
            self._known[key] = 0
            fragment = self._fragments.get(name)
            if fragment is not None:
                self._known[key] = self._selection(fragment.selection_set, among, wrapping, inside=inside)
        return self._known[key]


@lru_cache(4)
def _counts(schema: GraphQLSchema) -> dict[str, tuple[float, int]]:
    types = list(schema.type_map.values())
    fields = [field for named in types for field in getattr(named, "fields", {}).values()]
    inputs: dict[bool, list[int]] = {True: [], False: []}
    for named in types:
        inputs[isinstance(named, GraphQLInputObjectType)].append(len(getattr(named, "fields", {})))
    sizes = {
        "fields": inputs[False],
        "inputFields": inputs[True],
        "enumValues": [len(getattr(named, "values", {})) for named in types],
        "interfaces": [len(getattr(named, "interfaces", ())) for named in types],
        "possibleTypes": [len(schema.get_possible_types(named)) if is_abstract_type(named) else 0 for named in types],
        "args": [len(getattr(field, "args", {})) for field in fields],
    }
    counts = {
        name: (sum(of) / len(types if name != "args" else fields), max(of, default=0)) for name, of in sizes.items()
    }
    return {
        **counts,
        "types": (len(types), len(types)),
        "directives": (len(schema.directives), len(schema.directives)),
    }


def asks_too_much(schema: GraphQLSchema, document: DocumentNode) -> bool:
    source = document.loc.source.body if document.loc else ""
    if "__schema" not in source and "__type" not in source:
        return False
    return _Introspection(schema, document).run() > _standard_introspection(schema)


@lru_cache(4)
def _standard_introspection(schema: GraphQLSchema) -> int:
    # The query that GraphiQL and code generators send, and 20 % more for those that add to it.
    query = get_introspection_query(
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
        one_of=True,
    )
    return round(1.2 * _Introspection(schema, parse(query)).run())
