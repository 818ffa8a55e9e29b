// Relay: options of the environment, an updater for subscriptions, and subscriptions over the live socket.
import type { Environment, RecordProxy, RecordSourceSelectorProxy, SubscribeFunction } from "relay-runtime";
import relay from "relay-runtime";
import { shape, type ListShape } from "../generated/shape.js";
import { applyEvent, content, type List, type Store } from "./events.js";
import type { Live } from "./live.js";

type Item = RecordProxy;
type Source = RecordSourceSelectorProxy;

const values = new Set(shape.values);
const HANDLE = /^__.+_connection(?:\((.*)\))?$/;

/** `new Environment({ network, store, getDataID })`: an object without id is identified by its content. */
export function getDataID(object: Record<string, unknown>, type: string): string {
  if (!values.has(type)) return object["id"] as string;
  return `${type}:${content(object)}`;
}

/** The second argument of Network.create. */
export function liveSubscriptions(live: Live): SubscribeFunction {
  return (request, variables) =>
    relay.Observable.create<any>((sink) => live.subscribe({ query: request.text ?? "", operationName: request.name, variables }, sink as any));
}

/**
 * `requestSubscription(environment, { subscription, variables, updater: updater(environment, variables) })`.
 * It keeps every `@connection` in line. `onStale` is called where only the server can say what belongs to a list: query it again.
 */
export function updater(environment: Environment, variables: Record<string, unknown> = {}, onStale?: (field: string) => void) {
  return (source: Source | any): void => {
    for (const feed of shape.feeds) {
      const event = rootField(source as Source, feed);
      if (event) applyEvent(storeOf(environment, source as Source, onStale), event, variables);
    }
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

function storeOf(environment: Environment, source: Source, onStale?: (field: string) => void): Store<Item> {
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
        if (connection?.getType() === list.connection) visit(new Connection(source, connection, list, handle![1] ?? "", onStale));
      }
    },
  };
}

class Connection implements List<Item> {
  readonly narrowed: boolean;

  constructor(
    private readonly source: Source,
    private readonly record: Item,
    private readonly list: ListShape,
    given: string,
    private readonly onStale?: (field: string) => void,
  ) {
    this.narrowed = given.replace(/\w+:null,?/g, "") !== "";
  }

  get #edges(): Item[] {
    return ((this.record.getLinkedRecords("edges") ?? []) as (Item | null)[]).filter((edge) => edge !== null);
  }
  get nodes() {
    return this.#edges.map((edge) => edge.getLinkedRecord("node") ?? undefined);
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
    if (this.onStale) this.onStale(this.list.field);
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
