// Apollo Client: options for InMemoryCache, and a link for subscriptions.
import type { FieldFunctionOptions, FieldPolicy, Reference, StoreObject, TypePolicies } from "@apollo/client";
import { ApolloLink } from "@apollo/client";
import { print, relayStylePagination } from "@apollo/client/utilities";
import { Observable } from "rxjs";
import { shape, type ListShape } from "../generated/shape.js";
import { applyEvent, type List, type Store } from "./events.js";
import type { Live } from "./live.js";

type Item = Reference | StoreObject;
type Edge = StoreObject & { node?: Reference };
type Connection = StoreObject & { edges: Edge[]; nodes?: Reference[]; pageInfo?: Record<string, unknown> };
type Modifier = (existing: Connection | Reference, details: { storeFieldName: string; DELETE: unknown }) => unknown;

/** `new InMemoryCache(cacheOptions())`; `typePolicies` of your own are added to the kit's. */
export function cacheOptions(own: TypePolicies = {}): {
  possibleTypes: Record<string, string[]>;
  typePolicies: TypePolicies;
} {
  const policies: TypePolicies = {};
  const of = (type: string) => (policies[type] ??= { fields: {} });
  const fields = (type: string) => of(type).fields as Record<string, FieldPolicy<any>>;
  for (const type of Object.keys(shape.values)) of(type).merge = mergeValue;
  for (const [type, names] of Object.entries(shape.lists)) for (const name of names) fields(type)[name] = { merge: false };
  for (const list of Object.values(shape.connections)) fields(list.parent)[list.field] = connection(list);
  for (const feed of shape.feeds) fields("Subscription")[feed] = { keyArgs: false, merge: mergeEvent };
  for (const [type, policy] of Object.entries(own)) {
    const { fields: added, ...rest } = policy;
    Object.assign(of(type), rest);
    Object.assign(fields(type), added);
  }
  return { possibleTypes: shape.possibleTypes, typePolicies: policies };
}

/** Subscriptions over the live socket. */
export function liveLink(live: Live): ApolloLink {
  return new ApolloLink(
    ({ query, operationName, variables, extensions }) =>
      new Observable<any>((sink) => live.subscribe({ query: print(query), operationName, variables, extensions }, sink)),
  );
}

// A part of the fields is added to a value only if it is still the same value: else an old `formatted` would stay.
function mergeValue(existing: StoreObject | undefined, incoming: StoreObject, { mergeObjects }: FieldFunctionOptions) {
  const same =
    existing !== undefined &&
    Object.keys(incoming).every((field) => !(field in existing) || equal(existing[field], incoming[field]));
  return same ? mergeObjects(existing, incoming) : incoming;
}

function equal(one: unknown, other: unknown): boolean {
  if (typeof one !== "object" || typeof other !== "object" || one === null || other === null) return one === other;
  if (Array.isArray(one) && one.length !== (other as unknown[]).length) return false;
  return Object.entries(one).every(([key, value]) => !(key in other) || equal(value, (other as any)[key]));
}

function mergeEvent(_: unknown, incoming: StoreObject, options: FieldFunctionOptions) {
  applyEvent(storeOf(options), incoming, options.args ?? {});
  return incoming;
}

// Apollo's pagination, for queries that select `nodes` as well.
function connection(list: ListShape): FieldPolicy<any> {
  const base = relayStylePagination(list.keyArgs.length > 0 ? list.keyArgs : false) as any;
  return {
    ...base,
    read(existing: Connection | undefined, options: FieldFunctionOptions) {
      const read = base.read(existing, options) as Connection | undefined;
      if (!existing || !read) return read;
      return existing.nodes ? { ...read, nodes: read.edges.map((edge) => edge.node) } : read;
    },
    merge(existing: Connection | undefined, incoming: Connection, options: FieldFunctionOptions) {
      const edgeOf = (node: Reference) =>
        existing?.edges.find((edge) => edge.node?.__ref === node.__ref) ?? { __typename: list.edge, node };
      const edges = incoming?.edges ?? incoming?.nodes?.map(edgeOf);
      const empty = { edges: [], pageInfo: { startCursor: "", endCursor: "" } };
      const merged = base.merge(existing ?? empty, edges ? { ...incoming, edges } : incoming, options) as Connection;
      return { ...merged, edges: unique(merged.edges) };
    },
  };
}

function unique(edges: Edge[]): Edge[] {
  const seen = new Set<string>();
  return edges.filter(({ node }) => !node || (!seen.has(node.__ref) && seen.add(node.__ref)));
}

function storeOf({ cache, readField, toReference }: FieldFunctionOptions): Store<Item> {
  const read = (item: Item, field: string): any => readField(field, item);
  return {
    type: (item) => read(item, "__typename"),
    key: (item) => (item as Reference).__ref,
    value: read,
    object: (item, field) => read(item, field) ?? undefined,
    find: (type, id) => toReference({ __typename: type, id }),
    drop: (type, id) => void cache.evict({ id: cache.identify({ __typename: type, id })! }),
    lists(parent, list, visit) {
      const modify: Modifier = (existing, { storeFieldName, DELETE }) => {
        if (!("edges" in existing)) return existing;
        const held = new HeldList(existing as Connection, storeFieldName, list);
        visit(held);
        return held.isStale ? DELETE : held.connection;
      };
      const id = parent ? (parent as Reference).__ref : "ROOT_QUERY";
      cache.modify({ id, fields: { [list.field]: modify as any }, broadcast: false });
    },
  };
}

class HeldList implements List<Item> {
  isStale = false;
  readonly narrowed: boolean;

  constructor(
    public connection: Connection,
    name: string,
    private readonly list: ListShape,
  ) {
    const given: unknown = name.includes(":") ? JSON.parse(name.slice(name.indexOf(":") + 1)) : {};
    this.narrowed = Object.values(given as object).some((value) => value !== null);
  }

  get nodes() {
    return this.connection.edges.map((edge) => edge.node);
  }
  get cursors() {
    return this.connection.edges.map((edge) => edge["cursor"]);
  }
  get hasPrevious() {
    return this.connection.pageInfo?.["hasPreviousPage"] as boolean | undefined;
  }
  get hasNext() {
    return this.connection.pageInfo?.["hasNextPage"] as boolean | undefined;
  }
  get total() {
    return this.connection["totalCount"] as number | undefined;
  }
  elsewhere() {
    return false;
  }
  insert(index: number, node: Item, edge: Item | undefined) {
    const added = (edge ?? { __typename: this.list.edge, node }) as Edge;
    this.#edges((edges) => edges.splice(index, 0, added));
  }
  remove(index: number) {
    this.#edges((edges) => edges.splice(index, 1));
  }
  move(from: number, to: number) {
    this.#edges((edges) => edges.splice(to, 0, ...edges.splice(from, 1)));
  }
  count(totalCount: number) {
    this.connection = { ...this.connection, totalCount };
  }
  stale() {
    this.isStale = true;
  }
  #edges(change: (edges: Edge[]) => void) {
    const edges = [...this.connection.edges];
    change(edges);
    this.connection = { ...this.connection, edges };
  }
}
