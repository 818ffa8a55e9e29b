// Apollo Client 4. A screen is a watched query; the feeds write into the cache, and the kit's rules do the rest.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { authorized, createLive } from "paythread-client";
import { cacheOptions, liveLink } from "paythread-client/apollo";
import { feeds, screens } from "./documents.js";

export async function start({ url, token }) {
  const live = createLive({
    url: url.replace(/^http/, "ws"),
    token,
    resync: () => void client.refetchQueries({ include: "active" }),
  });
  const client = new ApolloClient({
    cache: new InMemoryCache(cacheOptions()),
    link: ApolloLink.split(
      ({ operationType }) => operationType === "subscription",
      liveLink(live),
      new HttpLink({ uri: url, fetch: authorized(token, live) }),
    ),
  });
  const { data } = await client.query({ query: gql(screens.inbox) });
  const after = data.conversations.eventCursor;
  for (const feed of Object.values(feeds)) {
    client.subscribe({ query: gql(feed), variables: { after } }).subscribe(({ error }) => error && console.error(error));
  }
  return {
    /** Call `show` with a screen's data, now and after each change. */
    watch(screen, variables, show) {
      const query = client.watchQuery({ query: gql(screens[screen]), variables });
      return query.subscribe(({ data, dataState }) => dataState === "complete" && show(data));
    },
    close: () => live.close(),
  };
}
