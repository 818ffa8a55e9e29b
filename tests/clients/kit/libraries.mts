// The kit's types beside those of the libraries.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache } from "@apollo/client";
import { Client, fetchExchange } from "@urql/core";
import { authorized, createLive, type Live } from "paythread-client";
import * as apollo from "paythread-client/apollo";
import { liveCache } from "paythread-client/graphcache";
import { createNetwork, getDataID, updater } from "paythread-client/relay";
import relay, { type GraphQLTaggedNode } from "relay-runtime";

const url = "https://pay.example/graphql";
const token = () => "token";
const live: Live = createLive({ url, token, resync: () => void client.refetchQueries({ include: "active" }) });
export const client = new ApolloClient({
  cache: new InMemoryCache(apollo.cacheOptions({ Contact: { fields: { name: { merge: false } } } })),
  link: ApolloLink.split(({ operationType }) => operationType === "subscription", apollo.liveLink(live), new HttpLink({ fetch: authorized(token) })),
});
export const urql = new Client({ url, preferGetMethod: false, exchanges: [liveCache({ live }), fetchExchange] });
const store = new relay.Store(new relay.RecordSource());
export const environment = new relay.Environment({ network: createNetwork({ url, token, live }), store, getDataID });
export const follow = (subscription: GraphQLTaggedNode) =>
  relay.requestSubscription(environment, { subscription, variables: {}, updater: updater(environment, { onStale: (keys) => void keys.has("a") }) });
