// urql with graphcache. A screen is a query that goes on; the feeds write into the cache, and the kit's rules do the rest.
import { Client, fetchExchange } from "@urql/core";
import { authorized, createLive } from "paythread-client";
import { liveCache } from "paythread-client/graphcache";
import { feeds, screens } from "./documents.js";

export async function start({ url, token, schema }) {
  const live = createLive({ url: url.replace(/^http/, "ws"), token });
  const client = new Client({
    url,
    fetch: authorized(token, live),
    preferGetMethod: false,
    exchanges: [liveCache({ live, schema }), fetchExchange],
  });
  const { data } = await client.query(screens.inbox, {});
  const after = data.conversations.eventCursor;
  for (const feed of Object.values(feeds)) {
    client.subscription(feed, { after }).subscribe(({ error }) => error && console.error(error));
  }
  return {
    /** Call `show` with a screen's data, now and after each change. */
    watch(screen, variables, show) {
      return client.query(screens[screen], variables).subscribe(({ data, stale }) => data && !stale && show(data));
    },
    close: () => live.close(),
  };
}
