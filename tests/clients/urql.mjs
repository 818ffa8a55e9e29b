// @urql/core with graphcache, the auth exchange, and subscriptions over graphql-ws: `node urql.mjs urql5|urql6`.
import { createClient } from "graphql-ws";
import { CREATE, EVENTS, LOAD, fetched, given, guide, http, story, url } from "./story.mjs";

const { auth, core, graphcache, persisted } = await import(`./${process.argv[2]}/index.mjs`);
const { socket, resuming } = guide(createClient);
const authExchange = auth.authExchange(async (utilities) => ({
  addAuthToOperation: (operation) => utilities.appendHeaders(operation, { Authorization: `Bearer ${http.token}` }),
  didAuthError: (error) => error.response?.status === 401,
  refreshAuth: () => http.renew(),
}));
const cache = () =>
  graphcache.cacheExchange({
    keys: { Money: () => null, ChannelMessageCapability: () => null, ChannelPaymentCapability: () => null, SendingHelp: () => null, MessagePreview: () => null },
  });
const make = (...exchanges) =>
  // urql 6 sends short queries by GET.
  new core.Client({ url, fetch: fetched, exchanges: [cache(), authExchange, ...exchanges] });
const subscriptions = core.subscriptionExchange({
  forwardSubscription: (request) => ({
    subscribe: (sink) => ({ unsubscribe: resuming(socket).subscribe(request, sink) }),
  }),
});
const client = make(core.fetchExchange, subscriptions);
const data = ({ data, error }) => {
  if (error) throw error;
  return data;
};
const run = async (client, query, variables) =>
  data(await client.query(query, variables, { requestPolicy: "network-only" }).toPromise());

await story({
  query: (query, variables) => run(client, query, variables),
  mutate: async (query, variables) => data(await client.mutation(query, variables).toPromise()),
  subscribe: (query, variables, next, failed) =>
    client.subscription(query, variables).subscribe(({ data, error }) => (error ? failed(error) : next(data))).unsubscribe,
  async more() {
    // urql's own event streams, and documents sent as their hashes first.
    const streaming = new core.Client({
      url,
      fetch: fetched,
      fetchSubscriptions: true,
      exchanges: [cache(), authExchange, core.fetchExchange],
    });
    const [event] = await new Promise((done) => {
      const subscription = streaming.subscription(EVENTS, { id: given.conversation }).subscribe(({ data, error }) => {
        setTimeout(() => subscription.unsubscribe());
        done([data ?? error]);
      });
    });
    if (event.conversationEvents?.__typename !== "Subscribed") throw new Error(`streamed ${event}`);
    const hashing = make(persisted.persistedExchange({ preferGetForPersistedQueries: true }), core.fetchExchange);
    const found = await run(hashing, LOAD, { id: given.conversation });
    if (found.conversation.id !== given.conversation) throw new Error("persisted");
  },
});
