import type { Environment, RecordSourceSelectorProxy, SubscribeFunction } from "relay-runtime";
import type { Live } from "./live.js";
type Source = RecordSourceSelectorProxy;
/** `new Environment({ network, store, getDataID })`: an object without id is identified by its content. */
export declare function getDataID(object: Record<string, unknown>, type: string): string;
/** The second argument of Network.create. */
export declare function liveSubscriptions(live: Live): SubscribeFunction;
/**
 * `requestSubscription(environment, { subscription, variables, updater: updater(environment, variables) })`.
 * It keeps every `@connection` in line. `onStale` is called where only the server can say what belongs to a list: query it again.
 */
export declare function updater(environment: Environment, variables?: Record<string, unknown>, onStale?: (field: string) => void): (source: Source | any) => void;
export {};
