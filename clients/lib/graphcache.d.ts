import { type Exchange } from "@urql/core";
import type { CacheExchangeOpts } from "@urql/exchange-graphcache";
import type { Live } from "./live.js";
/** `cacheExchange({ schema, ...cacheOptions() })`; `schema` is introspection.json. */
export declare function cacheOptions(): Pick<CacheExchangeOpts, "keys" | "resolvers" | "updates">;
/** Subscriptions over the live socket. */
export declare function liveExchange(live: Live): Exchange;
