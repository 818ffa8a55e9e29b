// urql with graphcache: one exchange for the cache and the subscriptions over the live socket.
import { composeExchanges, gql, subscriptionExchange, type Exchange, type Operation } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { pipe, tap } from "wonka";
import type { Cache, CacheExchangeOpts, DataFields, FieldInfo, KeyGenerator, UpdateResolver } from "@urql/exchange-graphcache";
import { relayPagination } from "@urql/exchange-graphcache/extras";
import { shape, type ListShape } from "../generated/shape.js";
import { applyEvent, valueKey, type List, type Store } from "./events.js";
import type { Live } from "./live.js";

type Fields = Record<string, unknown>;
type Item = string | Fields;

/** `cacheExchange({ schema, ...cacheOptions() })`, for those who build the exchanges themselves; `schema` is introspection.json. */
export function cacheOptions(): Pick<CacheExchangeOpts, "keys" | "resolvers" | "updates"> {
  const keys: Record<string, KeyGenerator> = {};
  const resolvers: Record<string, Record<string, any>> = {};
  const updates: Record<string, Record<string, UpdateResolver>> = { Subscription: {} };
  const edges = new Set(Object.values(shape.connections).map((list) => list.edge));
  for (const type of shape.keyless) keys[type] = edges.has(type) ? edgeKey : () => null;
  for (const type of Object.keys(shape.values)) keys[type] = (value) => valueKey(type, value as Fields);
  for (const list of Object.values(shape.connections)) (resolvers[list.parent] ??= {})[list.field] = relayPagination();
  for (const feed of shape.feeds) {
    updates["Subscription"]![feed] = (result, args, cache, info) => {
      const event = (result as Fields)[info.fieldName];
      if (event) applyEvent(storeOf(cache), event as Item, args as Fields);
    };
  }
  return { keys, resolvers, updates };
}

/** The cache and the subscriptions, in place of cacheExchange. If a feed can't be continued, what is on screen is queried again. */
export function liveCache({ live, ...own }: CacheExchangeOpts & { live: Live }): Exchange {
  const shown = new Map<number, Operation>();
  const tracking: Exchange = ({ client, forward }) => {
    live.resync ??= async () => {
      const again = ({ query, variables }: Operation) => client.query(query, variables, { requestPolicy: "network-only" }).toPromise();
      await Promise.all([...shown.values()].map(again));
    };
    const track = (operation: Operation) => {
      if (operation.kind === "query") shown.set(operation.key, operation);
      if (operation.kind === "teardown") shown.delete(operation.key);
    };
    return (operations) => forward(pipe(operations, tap(track)));
  };
  const subscriptions = subscriptionExchange({
    forwardSubscription: ({ query, variables }) => ({
      subscribe: (sink) => ({ unsubscribe: live.subscribe({ query: query ?? "", variables: variables as Fields }, sink as any) }),
    }),
  });
  return composeExchanges([tracking, cacheExchange({ ...cacheOptions(), ...own }), subscriptions]);
}

// An edge's place in a list is its cursor; an edge without one is its node's.
const edgeKey: KeyGenerator = (edge) => {
  const { cursor, node } = edge as DataFields & { cursor?: string; node?: { id?: string } };
  return cursor ?? node?.id ?? null;
};

function storeOf(cache: Cache): Store<Item> {
  const read = (item: Item, field: string): any =>
    typeof item === "string" ? cache.resolve(item, field) : (item as Fields)[field];
  return {
    type: (item) => read(item, "__typename"),
    key: (item) => cache.keyOfEntity(item as any) ?? undefined,
    value: read,
    object: (item, field) => read(item, field) ?? undefined,
    find: (type, id) => cache.keyOfEntity({ __typename: type, id }) ?? undefined,
    drop: (type, id) => cache.invalidate({ __typename: type, id }),
    lists(parent, list, visit) {
      const key = parent ? cache.keyOfEntity(parent as any) : "Query";
      const pages = key ? cache.inspectFields(key).filter(({ fieldName }) => fieldName === list.field) : [];
      for (const page of pages) {
        if (page.arguments?.["after"] || page.arguments?.["before"]) continue;
        const held = key && Page.of(cache, key, page, pages, list);
        if (held) visit(held);
      }
    },
  };
}

class Page implements List<Item> {
  readonly narrowed: boolean;

  private constructor(
    private readonly cache: Cache,
    private readonly parent: string,
    private readonly field: FieldInfo,
    private readonly pages: FieldInfo[],
    private readonly list: ListShape,
    private readonly key: string,
  ) {
    this.narrowed = list.keyArgs.some((name) => (field.arguments?.[name] ?? null) !== null);
  }

  static of(cache: Cache, parent: string, field: FieldInfo, pages: FieldInfo[], list: ListShape): Page | null {
    const key = cache.resolve(parent, field.fieldKey);
    return typeof key === "string" ? new Page(cache, parent, field, pages, list, key) : null;
  }

  get #edges() {
    return this.cache.resolve(this.key, "edges") as string[] | undefined;
  }
  get nodes() {
    const edges = this.#edges;
    if (edges) return edges.map((edge) => this.cache.resolve(edge, "node") as string | undefined);
    return (this.cache.resolve(this.key, "nodes") as string[] | undefined) ?? [];
  }
  get cursors() {
    return (this.#edges ?? []).map((edge) => this.cache.resolve(edge, "cursor"));
  }
  get hasPrevious() {
    return this.#pageInfo("hasPreviousPage");
  }
  get hasNext() {
    return this.#pageInfo("hasNextPage");
  }
  get total() {
    return this.cache.resolve(this.key, "totalCount") as number | undefined;
  }
  elsewhere(key: string) {
    return this.pages.some((field) => {
      const page = field !== this.field && Page.of(this.cache, this.parent, field, [], this.list);
      return page && page.nodes.includes(key);
    });
  }
  insert(index: number, node: Item, edge: Item | undefined) {
    const key = this.cache.keyOfEntity(node as any)!;
    this.#change((nodes) => nodes.splice(index, 0, key), (edges) => edges.splice(index, 0, this.#edgeOf(key, edge)));
  }
  remove(index: number) {
    this.#change((nodes) => nodes.splice(index, 1));
  }
  move(from: number, to: number) {
    this.#change((items) => items.splice(to, 0, ...items.splice(from, 1)));
  }
  count(totalCount: number) {
    const type = this.cache.resolve(this.parent, "__typename") ?? "Query";
    const id = this.parent.slice(`${type}:`.length);
    const given = Object.entries(this.field.arguments ?? {}).map(([name, value]) => `${name}: ${literal(value)}`);
    const call = `${this.field.fieldName}${given.length > 0 ? `(${given.join(", ")})` : ""}`;
    const page = { __typename: this.list.connection, totalCount };
    const fragment = gql(`fragment Count on ${type as string} { ${call} { __typename totalCount } }`);
    this.cache.writeFragment(fragment, { __typename: type as string, id, [this.field.fieldName]: page });
  }
  stale() {
    this.cache.invalidate(this.parent, this.field.fieldName, this.field.arguments);
  }

  #pageInfo(name: string) {
    const info = this.cache.resolve(this.key, "pageInfo");
    return typeof info === "string" ? (this.cache.resolve(info, name) as boolean | undefined) : undefined;
  }
  #edgeOf(node: string, edge: Item | undefined): string {
    if (edge) return this.cache.keyOfEntity(edge as any)!;
    const type = this.cache.resolve(node, "__typename") as string;
    const made = { __typename: this.list.edge, node: { __typename: type, id: node.slice(type.length + 1) } };
    this.cache.writeFragment(gql(`fragment Row on ${this.list.edge} { __typename node { __typename id } }`), made);
    return this.cache.keyOfEntity(made as any)!;
  }
  #change(ofNodes: (items: string[]) => void, ofEdges = ofNodes) {
    for (const [field, change] of [["nodes", ofNodes], ["edges", ofEdges]] as const) {
      const items = this.cache.resolve(this.key, field);
      if (!Array.isArray(items)) continue;
      const changed = [...(items as string[])];
      change(changed);
      this.cache.link(this.key, field, changed);
    }
  }
}

function literal(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  return `{${Object.entries(value).map(([name, part]) => `${name}: ${literal(part)}`).join(", ")}}`;
}
