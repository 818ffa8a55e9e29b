// What an event changes in the lists of a normalised cache, for any library: `Store` is the library's side.
import { shape, type ListShape, type Target } from "../generated/shape.js";

/** A list as the cache holds it: its first page or all of its pages. */
export interface List<Item> {
  /** Whether arguments choose or sort the rows: the server alone can say which belong to it. */
  narrowed: boolean;
  nodes: (Item | undefined)[];
  cursors: unknown[];
  /** Whether a further page of the list holds this object. */
  elsewhere(key: string): boolean;
  hasPrevious: boolean | undefined;
  hasNext: boolean | undefined;
  total: number | undefined;
  insert(index: number, node: Item, edge: Item | undefined): void;
  remove(index: number): void;
  move(from: number, to: number): void;
  count(total: number): void;
  /** Query it again. */
  stale(): void;
}

export interface Store<Item> {
  type(item: Item): string | undefined;
  key(item: Item): string | undefined;
  value(item: Item, field: string): unknown;
  object(item: Item, field: string): Item | undefined;
  find(type: string, id: string): Item | undefined;
  /** Call back for each list of this field that is cached. */
  lists(parent: Item | null, list: ListShape, visit: (list: List<Item>) => void): void;
  drop(type: string, id: string): void;
}

/** Bring the lists in line with an event whose objects are in the store already. */
export function applyEvent<Item>(store: Store<Item>, event: Item, variables: Record<string, unknown>): void {
  const rules = shape.events[store.type(event) ?? ""];
  if (!rules) return;
  const visit = (target: Target, change: (list: List<Item>, shape: ListShape) => void) => {
    const list = shape.connections[target.list]!;
    const parent = list.parent === "Query" ? null : parentOf(store, event, list, target, variables);
    if (parent !== undefined) store.lists(parent, list, (one) => change(one, list));
  };
  for (const [field, type] of Object.entries(rules.drops)) {
    const id = store.value(event, field);
    if (typeof id === "string") dropped(store, type, id);
  }
  for (const target of rules.edges) {
    const edge = store.object(event, target.edge);
    const node = edge && store.object(edge, "node");
    if (node) visit(target, (list, of) => add(store, list, of, node, edge));
  }
  for (const target of rules.rows) {
    const row = store.object(event, target.row);
    if (!row) continue;
    const mark = shape.gone[store.type(row) ?? ""];
    if (mark && store.value(row, mark)) visit(target, (list) => remove(store, list, store.key(row)));
    else visit(target, (list, of) => (target.placed ? place(store, list, of, row) : list.narrowed && list.stale()));
  }
  for (const target of rules.places) {
    const edge = target.edge && store.object(event, target.edge);
    if (edge) visit(target, (list) => follow(store, list, edge, store.value(event, "afterCursor")));
    else if (!target.edge) visit(target, (list) => leave(store, list, store.value(event, "id")));
  }
  for (const target of rules.outdates) visit(target, (list) => list.stale());
}

function parentOf<Item>(
  store: Store<Item>,
  event: Item,
  list: ListShape,
  target: Target,
  variables: Record<string, unknown>,
): Item | undefined {
  for (const path of target.parents) {
    let item: Item | undefined = event;
    for (const field of path) item = item && store.object(item, field);
    // A field of an interface may give an object that has another list.
    if (item && store.key(item) && store.type(item) === list.parent) return item;
  }
  // A feed of one object names it: conversationEvents(conversationId:).
  const id = variables[`${list.parent.charAt(0).toLowerCase()}${list.parent.slice(1)}Id`];
  return typeof id === "string" ? store.find(list.parent, id) : undefined;
}

/** A new object, at the newest end. */
function add<Item>(store: Store<Item>, list: List<Item>, of: ListShape, node: Item, edge: Item): void {
  const key = store.key(node);
  if (!key || indexOf(store, list, key) >= 0 || list.elsewhere(key)) return;
  if (list.narrowed || !of.by) return list.stale();
  const oldest = of.descending ? list.nodes.at(-1) : list.nodes[0];
  const more = of.descending ? list.hasNext : list.hasPrevious;
  if (typeof list.total === "number") list.count(list.total + 1);
  if (of.descending ? list.hasPrevious : list.hasNext) return;
  if (more && oldest && older(time(store, node, of), time(store, oldest, of))) return;
  list.insert(of.descending ? 0 : list.nodes.length, node, edge);
}

/** A row that changed, to where the list's order wants it. It may have been in no page yet. */
function place<Item>(store: Store<Item>, list: List<Item>, of: ListShape, row: Item): void {
  const key = store.key(row);
  if (!key) return;
  if (list.narrowed || !of.by) return list.stale();
  const from = indexOf(store, list, key);
  const at = time(store, row, of);
  const times = list.nodes.map((node) => (node ? time(store, node, of) : undefined));
  if (at === undefined || times.some((other) => other === undefined)) return from < 0 ? list.stale() : undefined;
  const others = times.filter((_, index) => index !== from);
  const found = others.findIndex((other) => (of.descending ? !older(at, other) : older(at, other)));
  const to = found < 0 ? others.length : found;
  if (from >= 0) return from === to ? undefined : list.move(from, to);
  if (typeof list.total === "number" && !list.elsewhere(key)) {
    if (list.hasNext !== false) return list.stale();
    list.count(list.total + 1);
  }
  const outside = to === others.length ? list.hasNext : to === 0 && list.hasPrevious;
  if (!outside || others.length === 0) list.insert(to, row, undefined);
}

/** An edge that the server places: behind the one with this cursor, or first. Elsewhere it is on no page that is shown. */
function follow<Item>(store: Store<Item>, list: List<Item>, edge: Item, afterCursor: unknown): void {
  const node = store.object(edge, "node");
  if (!node) return;
  leave(store, list, store.value(node, "id"));
  const before = typeof afterCursor === "string" ? list.cursors.indexOf(afterCursor) : -1;
  if (before >= 0 || (typeof afterCursor !== "string" && !list.hasPrevious)) list.insert(before + 1, node, edge);
}

function leave<Item>(store: Store<Item>, list: List<Item>, id: unknown): void {
  const index = list.nodes.findIndex((node) => node !== undefined && store.value(node, "id") === id);
  if (index >= 0) list.remove(index);
}

function remove<Item>(store: Store<Item>, list: List<Item>, key: string | undefined): void {
  const index = key ? indexOf(store, list, key) : -1;
  if (index >= 0) {
    list.remove(index);
    if (typeof list.total === "number") list.count(list.total - 1);
  } else if (key && list.elsewhere(key)) list.stale();
}

function dropped<Item>(store: Store<Item>, type: string, id: string): void {
  const item = store.find(type, id);
  for (const list of Object.values(shape.connections)) {
    if (!item || list.parent !== "Query" || !list.nodes.includes(type)) continue;
    store.lists(null, list, (one) => remove(store, one, store.key(item)));
  }
  store.drop(type, id);
}

function indexOf<Item>(store: Store<Item>, list: List<Item>, key: string): number {
  return list.nodes.findIndex((node) => node !== undefined && store.key(node) === key);
}

function time<Item>(store: Store<Item>, item: Item, of: ListShape): string | undefined {
  const value = store.value(item, of.by!);
  return typeof value === "string" ? value : undefined;
}

function older(one: string | undefined, other: string | undefined): boolean {
  if (one === undefined || other === undefined) return false;
  return Date.parse(one) - Date.parse(other) < 0;
}

/** A value is what it contains, so two with different content are never mixed: the key of an object that has no id. */
export function valueKey(type: string, value: Record<string, unknown>): string {
  const parts = (shape.values[type] ?? []).map((field) => value[field]);
  if (parts.length > 0 && parts.every((part) => part !== undefined)) return parts.join(" ");
  return JSON.stringify(value, (field, part: unknown) => {
    const id = field && typeof part === "object" && part !== null ? (part as { id?: unknown }).id : undefined;
    return id === undefined ? part : id;
  });
}
