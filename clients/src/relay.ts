// Relay: the environment's network and ids, and an updater for subscriptions.
import type { Environment, FetchFunction, RecordProxy, RecordSourceSelectorProxy, SubscribeFunction } from "relay-runtime";
import relay from "relay-runtime";
import { shape, type ListShape } from "../generated/shape.js";
import { applyEvent, valueKey, type List, type Store } from "./events.js";
import { authorized, type Live, type LiveOptions } from "./live.js";

type Item = RecordProxy;
type Source = RecordSourceSelectorProxy;

const HANDLE = /^__(.+)_connection(?:\((.*)\))?$/;

/** `new Environment({ network, store, getDataID })`: an object without id is identified by its content. */
export function getDataID(object: Record<string, unknown>, type: string): string {
  return type in shape.values ? `${type}:${valueKey(type, object)}` : (object["id"] as string);
}

/** Queries and mutations over HTTP, subscriptions over the live socket. */
export function createNetwork({ url, token, live }: { url: string; token: LiveOptions["token"]; live: Live }) {
  const send = authorized(token, live);
  const overHttp: FetchFunction = async ({ text, name }, variables) => {
    const body = JSON.stringify({ query: text, operationName: name, variables });
    const response = await send(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    return (await response.json()) as any;
  };
  return relay.Network.create(overHttp, liveSubscriptions(live));
}

/** The second argument of Network.create. */
export function liveSubscriptions(live: Live): SubscribeFunction {
  return (request, variables) =>
    relay.Observable.create<any>((sink) => live.subscribe({ query: request.text ?? "", operationName: request.name, variables }, sink as any));
}

/**
 * `requestSubscription(environment, { subscription, variables, updater: updater(environment, { variables }) })`.
 * It keeps every `@connection` in line. `onStale` gets the keys of connections to query again, because the server alone can
 * say what belongs to them; without it they are invalidated.
 */
export function updater(
  environment: Environment,
  { variables = {}, onStale }: { variables?: Record<string, unknown>; onStale?: (keys: Set<string>) => void } = {},
) {
  return (source: Source | any): void => {
    const stale = new Set<string>();
    for (const feed of shape.feeds) {
      const event = rootField(source as Source, feed);
      if (event) applyEvent(storeOf(environment, source as Source, onStale && stale), event, variables);
    }
    if (stale.size > 0) setTimeout(() => onStale!(stale));
  };
}

// A feed that the operation does not select is no field of its selector.
function rootField(source: Source, feed: string): Item | null {
  try {
    return source.getRootField(feed) as Item | null;
  } catch {
    return null;
  }
}

function storeOf(environment: Environment, source: Source, stale: Set<string> | undefined): Store<Item> {
  return {
    type: (item) => item.getType(),
    key: (item) => item.getDataID(),
    value: (item, field) => item.getValue(field),
    object: (item, field) => item.getLinkedRecord(field) ?? undefined,
    find: (_, id) => source.get(id) ?? undefined,
    drop: (_, id) => source.delete(id),
    lists(parent, list, visit) {
      const record = parent ?? source.getRoot();
      const raw = environment.getStore().getSource().get(record.getDataID());
      for (const name of Object.keys(raw ?? {})) {
        const handle = HANDLE.exec(name);
        const connection = handle && record.getLinkedRecord(name);
        if (connection?.getType() === list.connection) visit(new Connection(source, connection, list, handle!, stale));
      }
    },
  };
}

class Connection implements List<Item> {
  readonly narrowed: boolean;
  private readonly key: string;

  constructor(
    private readonly source: Source,
    private readonly record: Item,
    private readonly list: ListShape,
    [, key, given]: RegExpExecArray,
    private readonly outdated: Set<string> | undefined,
  ) {
    this.key = key!;
    this.narrowed = (given ?? "").replace(/\w+:null,?/g, "") !== "";
  }

  get #edges(): Item[] {
    return ((this.record.getLinkedRecords("edges") ?? []) as (Item | null)[]).filter((edge) => edge !== null);
  }
  get nodes() {
    return this.#edges.map((edge) => edge.getLinkedRecord("node") ?? undefined);
  }
  get cursors() {
    return this.#edges.map((edge) => edge.getValue("cursor"));
  }
  get hasPrevious() {
    return this.#pageInfo("hasPreviousPage");
  }
  get hasNext() {
    return this.#pageInfo("hasNextPage");
  }
  get total() {
    return this.record.getValue("totalCount") as number | undefined;
  }
  elsewhere() {
    return false;
  }
  insert(index: number, node: Item, edge: Item | undefined) {
    const { ConnectionHandler: handler } = relay;
    const made = edge
      ? handler.buildConnectionEdge(this.source, this.record, edge)
      : handler.createEdge(this.source, this.record, node, this.list.edge);
    if (made) this.#change((edges) => edges.splice(index, 0, made));
  }
  remove(index: number) {
    this.#change((edges) => edges.splice(index, 1));
  }
  move(from: number, to: number) {
    this.#change((edges) => edges.splice(to, 0, ...edges.splice(from, 1)));
  }
  count(total: number) {
    this.record.setValue(total, "totalCount");
  }
  stale() {
    if (this.outdated) this.outdated.add(this.key);
    else this.record.invalidateRecord();
  }
  #pageInfo(name: string) {
    return this.record.getLinkedRecord("pageInfo")?.getValue(name) as boolean | undefined;
  }
  #change(change: (edges: Item[]) => void) {
    const edges = [...this.#edges];
    change(edges);
    this.record.setLinkedRecords(edges, "edges");
  }
}
