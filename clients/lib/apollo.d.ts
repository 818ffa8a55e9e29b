import type { TypePolicies } from "@apollo/client";
import { ApolloLink } from "@apollo/client";
import type { Live } from "./live.js";
/** `new InMemoryCache(cacheOptions())`; `typePolicies` of your own are added to the kit's. */
export declare function cacheOptions(own?: TypePolicies): {
    possibleTypes: Record<string, string[]>;
    typePolicies: TypePolicies;
};
/** Subscriptions over the live socket. */
export declare function liveLink(live: Live): ApolloLink;
