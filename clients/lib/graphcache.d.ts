import { type Exchange } from "@urql/core";
import type { CacheExchangeOpts } from "@urql/exchange-graphcache";
import type { Live } from "./live.js";
/** `cacheExchange({ schema, ...cacheOptions() })`, for those who build the exchanges themselves; `schema` is introspection.json. */
export declare function cacheOptions(): Pick<CacheExchangeOpts, "keys" | "resolvers" | "updates">;
/** The cache and the subscriptions, in place of cacheExchange. If a feed can't be continued, what is on screen is queried again. */
export declare function liveCache({ live, ...own }: CacheExchangeOpts & {
    live: Live;
}): Exchange;
