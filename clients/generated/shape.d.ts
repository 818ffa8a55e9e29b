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
