// graphql-ws alone: all operations over one socket, as the guide configures it.
import { createClient } from "graphql-ws";
import { guide, story } from "./story.mjs";

const { socket, resuming } = guide(createClient);
const run = async (query, variables) => {
  for await (const { data, errors } of socket.iterate({ query, variables })) {
    if (errors) throw new Error(JSON.stringify(errors));
    return data;
  }
};
await story({
  query: run,
  mutate: run,
  subscribe: (query, variables, next, error) =>
    resuming(socket).subscribe({ query, variables }, { next: ({ data }) => next(data), error, complete() {} }),
});
