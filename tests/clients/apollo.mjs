// Apollo Client with a normalised cache that knows no possibleTypes, HttpLink and graphql-ws: `node apollo.mjs apollo3|apollo4`.
import { createHash } from "node:crypto";
import { createClient } from "graphql-ws";
import { LOAD, fetched, given, guide, http, story, url } from "./story.mjs";

const apollo = await import(`./${process.argv[2]}/index.mjs`);
const { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } = apollo;
const { socket, resuming } = guide(createClient);
const network = () =>
  ApolloLink.from([
    apollo.renewLink(() => http.renew()),
    apollo.headersLink(() => ({ authorization: `Bearer ${http.token}` })),
    new HttpLink({ uri: url, fetch: fetched }),
  ]);
const isSubscription = ({ query }) => query.definitions.some(({ operation }) => operation === "subscription");
const make = (link, cache = new InMemoryCache()) =>
  new ApolloClient({ link: ApolloLink.split(isSubscription, apollo.socketLink(resuming(socket)), link), cache });
const client = make(network());
const run = async (client, query, variables) =>
  (await client.query({ query: gql(query), variables, fetchPolicy: "network-only" })).data;

await story({
  query: (query, variables) => run(client, query, variables),
  mutate: async (mutation, variables) => (await client.mutate({ mutation: gql(mutation), variables })).data,
  subscribe(query, variables, next, error) {
    const subscription = client.subscribe({ query: gql(query), variables }).subscribe({
      next: ({ data, error: failure }) => (failure ? error(failure) : next(data)),
      error,
    });
    return () => subscription.unsubscribe();
  },
  async more() {
    const sha256 = (text) => createHash("sha256").update(text).digest("hex");
    for (const useGETForHashedQueries of [false, true]) {
      const hashing = make(ApolloLink.from([apollo.persistedLink({ sha256, useGETForHashedQueries }), network()]));
      const found = await run(hashing, LOAD, { id: given.conversation });
      if (found.conversation.id !== given.conversation) throw new Error("persisted");
    }
    // A fragment on an interface, with the guide's table of possible types.
    const possibleTypes = new Function(`return ${given.possibleTypes}`)();
    const knowing = make(network(), new InMemoryCache({ possibleTypes }));
    const { conversation } = await run(knowing, given.onInterface, { id: given.conversation });
    if (conversation.channels[0].messages.supported !== true) throw new Error("possibleTypes");
  },
});
