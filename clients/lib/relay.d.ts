import type { Environment, RecordSourceSelectorProxy, SubscribeFunction } from "relay-runtime";
import relay from "relay-runtime";
import { type Live, type LiveOptions } from "./live.js";
type Source = RecordSourceSelectorProxy;
/** `new Environment({ network, store, getDataID })`: an object without id is identified by its content. */
export declare function getDataID(object: Record<string, unknown>, type: string): string;
/** Queries and mutations over HTTP, subscriptions over the live socket. */
export declare function createNetwork({ url, token, live }: {
    url: string;
    token: LiveOptions["token"];
    live: Live;
}): relay.INetwork;
/** The second argument of Network.create. */
export declare function liveSubscriptions(live: Live): SubscribeFunction;
/**
 * `requestSubscription(environment, { subscription, variables, updater: updater(environment, { variables }) })`.
 * It keeps every `@connection` in line. `onStale` gets the keys of connections to query again, because the server alone can
 * say what belongs to them; without it they are invalidated.
 */
export declare function updater(environment: Environment, { variables, onStale }?: {
    variables?: Record<string, unknown>;
    onStale?: (keys: Set<string>) => void;
}): (source: Source | any) => void;
export {};
