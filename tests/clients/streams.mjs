// graphql-sse alone, in its distinct connections mode: all operations as event streams.
import { createClient } from "graphql-sse";
import { createClient as createSocketClient } from "graphql-ws";
import { fetched, guide, sleep, socketSession, story, url } from "./story.mjs";

const client = createClient({
  url,
  fetchFn: fetched,
  headers: async () => ({ Authorization: `Bearer ${await socketSession.fresh()}` }),
  retryAttempts: Infinity,
  retry: () => sleep(200),
});
const { resuming } = guide((options) => createSocketClient({ ...options, lazy: true }));
const run = async (query, variables) => {
  for await (const { data, errors } of client.iterate({ query, variables })) {
    if (errors) throw new Error(JSON.stringify(errors));
    return data;
  }
};
await story({
  query: run,
  mutate: run,
  subscribe: (query, variables, next, error) =>
    resuming(client).subscribe({ query, variables }, { next: ({ data }) => next(data), error, complete() {} }),
});
