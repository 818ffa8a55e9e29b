"""The files of clients/generated, derived from the schema by its conventions: no type or field is named here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLUnionType,
    build_schema,
    get_named_type,
    get_nullable_type,
    is_abstract_type,
    is_input_type,
    is_list_type,
    is_non_null_type,
    is_specified_scalar_type,
)

FOLDER = Path(__file__).parents[1] / "clients" / "generated"

PAGING: Final = frozenset({"first", "after", "last", "before"})
ACTIVITY: Final = "lastActivityAt"
# How a description names the order of a connection: the field to compare, and whether the highest comes first.
ORDERS: Final = {
    "newest activity first": (ACTIVITY, True),
    "newest first": ("createdAt", True),
    "oldest first": ("occurredAt", False),
}
# An event's field such as mergedContactId names an object to drop from every list and from the cache.
GONE_FIELD: Final = re.compile(r"^(?:merged|deleted|removed)([A-Z]\w*)Id$")
# An object with this field set has left its lists.
GONE_MARK: Final = "discardedAt"
# An event with this field says where its edge belongs, in a list with an order of its own.
PLACED: Final = "afterCursor"
AMOUNT: Final = ("amount", "currency")
PATH_LENGTH: Final = 2
# What passes by: a cache keeps the objects in it, not itself.
PASSING: Final = frozenset({"Event", "MutationPayload"})

TYPES: Final = """\
/** A paged list: `by` is what its default order compares; null: no rule. */
export interface ListShape {
  parent: string;
  field: string;
  connection: string;
  edge: string;
  nodes: string[];
  keyArgs: string[];
  by: string | null;
  descending: boolean;
}
/** A list and the ways from an event to the object that has it; `Query` has it if there are none. */
export interface Target {
  list: string;
  parents: string[][];
}
export interface EdgeTarget extends Target {
  edge: string;
}
/** The edge is placed behind `afterCursor`; without an edge, the event's `id` leaves the list. */
export interface PlacedTarget extends Target {
  edge: string | null;
}
export interface RowTarget extends Target {
  row: string;
  placed: boolean;
}
export interface EventShape {
  edges: EdgeTarget[];
  rows: RowTarget[];
  outdates: Target[];
  places: PlacedTarget[];
  drops: Record<string, string>;
}
export declare const shape: {
  possibleTypes: Record<string, string[]>;
  /** With the fields that identify one; empty: its whole content. */
  values: Record<string, string[]>;
  keyless: string[];
  lists: Record<string, string[]>;
  connections: Record<string, ListShape>;
  feeds: string[];
  events: Record<string, EventShape>;
  gone: Record<string, string>;
};
"""

Composite = GraphQLObjectType | GraphQLInterfaceType


def files(sdl: str) -> dict[Path, str]:
    """The content of each generated file."""
    schema = build_schema(sdl)
    shape = {
        "possibleTypes": possible_types(schema),
        "values": {name: identity(schema.type_map[name]) for name in sorted(value_types(schema))},
        "keyless": sorted(name for name, kind in objects(schema).items() if "id" not in kind.fields),
        "lists": plain_lists(schema),
        "connections": connections(schema),
        "feeds": sorted(schema.subscription_type.fields) if schema.subscription_type else [],
        "events": events(schema),
        "gone": {name: GONE_MARK for name, kind in objects(schema).items() if GONE_MARK in kind.fields},
    }
    relay = {"schema": "node_modules/paythread-client/generated/schema.graphql", "customScalarTypes": scalars(schema)}
    return {
        FOLDER / "schema.graphql": sdl,
        FOLDER / "possibleTypes.json": _pretty(shape["possibleTypes"]),
        FOLDER / "introspection.json": _pretty(introspection(schema), level=4),
        FOLDER / "relay.config.json": _pretty(relay),
        FOLDER / "shape.js": f"export const shape = {_pretty(shape, level=3).rstrip()};\n",
        FOLDER / "shape.d.ts": TYPES,
    }


# ---------------------------------------------------------------------------------------------------------- the types
def objects(schema: GraphQLSchema) -> dict[str, GraphQLObjectType]:
    """The object types by name, without the roots and introspection's own."""
    roots = {schema.query_type, schema.mutation_type, schema.subscription_type}
    return {
        name: kind
        for name, kind in schema.type_map.items()
        if isinstance(kind, GraphQLObjectType) and kind not in roots and not name.startswith("__")
    }


def possible_types(schema: GraphQLSchema) -> dict[str, list[str]]:
    return {
        name: sorted(member.name for member in schema.get_possible_types(kind))
        for name, kind in sorted(schema.type_map.items())
        if is_abstract_type(kind) and not name.startswith("__")
    }


def value_types(schema: GraphQLSchema) -> Iterator[str]:
    """Objects that are what they contain: no id, and no part of a list, an event or a mutation's payload."""
    for name, kind in objects(schema).items():
        if "id" in kind.fields or is_edge(kind) or is_connection(kind) or name == "PageInfo":
            continue
        if not _interfaces(kind) & PASSING:
            yield name


def identity(kind: Any) -> list[str]:
    """The fields that make an amount of money the same amount; empty: the whole content."""
    return [*AMOUNT] if set(AMOUNT) <= kind.fields.keys() and any(field.args for field in kind.fields.values()) else []


def is_edge(kind: object) -> bool:
    return isinstance(kind, GraphQLObjectType) and {"cursor", "node"} <= kind.fields.keys()


def is_connection(kind: object) -> bool:
    return isinstance(kind, GraphQLObjectType) and {"edges", "pageInfo"} <= kind.fields.keys()


def plain_lists(schema: GraphQLSchema) -> dict[str, list[str]]:
    """The fields that give a list of objects, not paged."""
    found = {
        name: [field for field, definition in kind.fields.items() if _is_object_list(definition.type)]
        for name, kind in [*objects(schema).items(), ("Query", schema.query_type)]
        if kind is not None and not is_connection(kind) and not _interfaces(kind) & PASSING
    }
    return {name: fields for name, fields in sorted(found.items()) if fields}


def scalars(schema: GraphQLSchema) -> dict[str, str]:
    """Each scalar of the schema travels as text, but JSON."""
    return {
        name: "unknown" if name == "JSON" else "string"
        for name, kind in sorted(schema.type_map.items())
        if isinstance(kind, GraphQLScalarType) and not is_specified_scalar_type(kind)
    }


# ---------------------------------------------------------------------------------------------- connections and events
def connections(schema: GraphQLSchema) -> dict[str, dict[str, Any]]:
    """By `Type.field`: the types of its edges and nodes, the arguments that choose a list, and the default order."""
    found = {}
    for parent, kind in [*objects(schema).items(), ("Query", schema.query_type)]:
        for name, field in kind.fields.items() if kind is not None else ():
            connection = get_named_type(field.type)
            if not is_connection(connection):
                continue
            edge = get_named_type(connection.fields["edges"].type)
            nodes = get_named_type(edge.fields["node"].type)
            by, descending = _order(field, connection)
            found[f"{parent}.{name}"] = {
                "parent": parent,
                "field": name,
                "connection": connection.name,
                "edge": edge.name,
                "nodes": sorted({one.name for one in _members(schema, nodes)}),
                "keyArgs": [argument for argument in field.args if argument not in PAGING],
                "by": by,
                "descending": descending,
            }
    return dict(sorted(found.items()))


def _order(field: GraphQLField, connection: GraphQLObjectType) -> tuple[str | None, bool]:
    descriptions = [field.description, connection.description, *(one.description for one in field.args.values())]
    text = " ".join(filter(None, descriptions)).casefold()
    return next((order for phrase, order in ORDERS.items() if phrase in text), (None, False))


def events(schema: GraphQLSchema) -> dict[str, dict[str, Any]]:
    """By type: which lists its edge and its rows belong to, and which ids it drops."""
    return {
        name: {
            "edges": edge_targets(schema, kind),
            "rows": row_targets(schema, kind),
            "outdates": outdated_targets(schema, kind),
            "places": placed_targets(schema, kind),
            "drops": {
                field: found[1]
                for field in kind.fields
                if (found := GONE_FIELD.match(field)) and found[1] in schema.type_map
            },
        }
        for name, kind in sorted(objects(schema).items())
        if "Event" in _interfaces(kind)
    }


def edge_targets(schema: GraphQLSchema, event: GraphQLObjectType) -> list[dict[str, Any]]:
    """The event's edges, by the field that gives them."""
    if PLACED in event.fields:
        return []
    return [
        {"edge": field, "list": name, "parents": owners}
        for field, definition in event.fields.items()
        for name, one in connections(schema).items()
        if one["edge"] == get_named_type(definition.type).name
        if (owners := paths(schema, event, one["parent"])) or one["parent"] == "Query"
    ]


def placed_targets(schema: GraphQLSchema, event: GraphQLObjectType) -> list[dict[str, Any]]:
    """Lists of the event's own object, whose order only the server knows: `afterCursor` places an edge, `id` takes one out."""
    found = []
    common = {field for interface in event.interfaces for field in interface.fields}
    for owner, definition in event.fields.items():
        kind = get_named_type(definition.type)
        if owner in common or not is_abstract_type(kind) or not {PLACED, "id"} & event.fields.keys():
            continue
        owners = {member.name for member in schema.get_possible_types(kind)}
        for name, one in connections(schema).items():
            edges = [field for field, other in event.fields.items() if get_named_type(other.type).name == one["edge"]]
            if one["parent"] in owners and (edges or "id" in event.fields):
                found.append({"list": name, "parents": [[owner]], "edge": edges[0] if edges else None})
    return found


def row_targets(schema: GraphQLSchema, event: GraphQLObjectType) -> list[dict[str, Any]]:
    """The event's objects that are rows of a list: each moves in a list by activity; else the event is about that object."""
    found = []
    for row, definition in event.fields.items():
        kind = get_named_type(definition.type)
        if is_list_type(get_nullable_type(definition.type)):
            continue
        for name, one in connections(schema).items():
            about = one["by"] == ACTIVITY or event.name.startswith(kind.name)
            owners = paths(schema, event, one["parent"])
            if kind.name in one["nodes"] and about and (owners or one["parent"] == "Query"):
                # Where an event's edge adds new objects, a row of another event is there already, or on a further page.
                placed = one["edge"] not in _edges_of_events(schema)
                found.append({"row": row, "list": name, "parents": owners, "placed": placed})
    return found


def outdated_targets(schema: GraphQLSchema, event: GraphQLObjectType) -> list[dict[str, Any]]:
    """Lists that the event changes without saying how: of parts of its object, or of the objects that its name counts."""
    kinds = {get_named_type(field.type) for field in event.fields.values()}
    parts = {
        get_named_type(field.type).name
        for kind in kinds
        if isinstance(kind, GraphQLObjectType) and event.name.startswith(kind.name)
        for field in kind.fields.values()
        if _is_object_list(field.type)
    }
    found = []
    for name, one in connections(schema).items():
        owners = paths(schema, event, one["parent"])
        has_owner = owners or one["parent"] == "Query"
        of_parts = parts & set(one["nodes"]) and one["edge"] not in _edges_of_events(schema)
        counted = any(event.name.startswith(f"{node}s") for node in one["nodes"])
        if has_owner and (of_parts or counted) and not event.name.startswith(f"{one['parent']}s"):
            found.append({"list": name, "parents": owners})
    return found


def _edges_of_events(schema: GraphQLSchema) -> set[str]:
    events = [kind for kind in objects(schema).values() if "Event" in _interfaces(kind) and PLACED not in kind.fields]
    return {get_named_type(field.type).name for event in events for field in event.fields.values()}


def paths(schema: GraphQLSchema, event: GraphQLObjectType, parent: str) -> list[list[str]]:
    """Ways from the event to the object that has the list, shortest first; none: it is the query's root."""
    if schema.query_type is not None and parent == schema.query_type.name:
        return []
    found: list[list[str]] = []
    level: list[tuple[list[str], GraphQLOutputType]] = [([], event)]
    for _ in range(PATH_LENGTH):
        level = [
            ([*path, name], get_named_type(field.type))
            for path, kind in level
            if isinstance(kind, Composite)
            for name, field in kind.fields.items()
            if not is_list_type(get_nullable_type(field.type)) and not is_connection(get_named_type(field.type))
        ]
        found += [path for path, kind in level if getattr(kind, "name", None) == parent]
    return found


# ------------------------------------------------------------------------------------------------- the introspection
def introspection(schema: GraphQLSchema) -> dict[str, Any]:
    """As @urql/introspection minifies it: what graphcache needs, leaf types and arguments as `Any`."""
    composite = [
        kind
        for name, kind in schema.type_map.items()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType) and not name.startswith("__")
    ]
    roots = {"query": schema.query_type, "mutation": schema.mutation_type, "subscription": schema.subscription_type}
    return {
        "__schema": {
            **{f"{name}Type": {"name": kind.name} if kind is not None else None for name, kind in roots.items()},
            "types": [*(_described(schema, kind) for kind in composite), {"kind": "SCALAR", "name": "Any"}],
        }
    }


def _described(schema: GraphQLSchema, kind: Composite | GraphQLUnionType) -> dict[str, Any]:
    described: dict[str, Any] = {"kind": _kind(kind), "name": kind.name}
    if isinstance(kind, Composite):
        described["fields"] = [
            {
                "name": name,
                "type": _reference(field.type),
                "args": [{"name": argument, "type": _reference(one.type)} for argument, one in field.args.items()],
            }
            for name, field in kind.fields.items()
        ]
        described["interfaces"] = [{"kind": "INTERFACE", "name": one.name} for one in kind.interfaces]
    if is_abstract_type(kind):
        described["possibleTypes"] = [{"kind": "OBJECT", "name": one.name} for one in schema.get_possible_types(kind)]
    return described


def _reference(kind: Any) -> dict[str, Any]:
    if is_non_null_type(kind):
        return {"kind": "NON_NULL", "ofType": _reference(kind.of_type)}
    if is_list_type(kind):
        return {"kind": "LIST", "ofType": _reference(kind.of_type)}
    leaf = is_input_type(kind)
    return {"kind": "SCALAR" if leaf else _kind(kind), "name": "Any" if leaf else kind.name}


def _kind(kind: object) -> str:
    if isinstance(kind, GraphQLUnionType):
        return "UNION"
    return "INTERFACE" if isinstance(kind, GraphQLInterfaceType) else "OBJECT"


# ---------------------------------------------------------------------------------------------------------- small parts
def _is_object_list(kind: GraphQLOutputType) -> bool:
    return is_list_type(get_nullable_type(kind)) and not is_input_type(get_named_type(kind))


def _interfaces(kind: GraphQLObjectType) -> set[str]:
    return {interface.name for interface in kind.interfaces}


def _members(schema: GraphQLSchema, kind: Any) -> tuple[GraphQLObjectType, ...]:
    return tuple(schema.get_possible_types(kind)) if is_abstract_type(kind) else (kind,)


def _pretty(value: object, *, level: int = 2) -> str:
    """JSON with a line for each entry down to a level, so that a change of the schema gives a short diff."""

    def lines(value: Any, depth: int, indent: str) -> str:
        if depth == 0 or not isinstance(value, Mapping | list) or not value or _is_short(value):
            short = (",", ":") if level > 3 else (", ", ": ")
            return json.dumps(value, ensure_ascii=False, separators=short)
        inner = indent + "  "
        if isinstance(value, Mapping):
            parts = [f"{json.dumps(key)}: {lines(one, depth - 1, inner)}" for key, one in value.items()]
            return "{\n" + ",\n".join(inner + part for part in parts) + f"\n{indent}}}"
        return "[\n" + ",\n".join(inner + lines(one, depth - 1, inner) for one in value) + f"\n{indent}]"

    return lines(value, level, "") + "\n"


def _is_short(value: Mapping[str, Any] | list[Any]) -> bool:
    return isinstance(value, list) and len(value) <= 6 and all(isinstance(one, str) for one in value)
