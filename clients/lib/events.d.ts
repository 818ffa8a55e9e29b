import { type ListShape } from "../generated/shape.js";
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
export declare function applyEvent<Item>(store: Store<Item>, event: Item, variables: Record<string, unknown>): void;
/** A value is what it contains, so two with different content are never mixed: the key of an object that has no id. */
export declare function valueKey(type: string, value: Record<string, unknown>): string;
