// relay-runtime's network layer: requests as Relay's compiler writes them, subscriptions over graphql-ws.
import { createClient } from "graphql-ws";
import relay from "relay-runtime";
import { fetched, guide, http, story, url } from "./story.mjs";

const { Network, Observable } = relay;
const { socket, resuming } = guide(createClient);

async function fetchOperation({ text, name }, variables, again = false) {
  const response = await fetched(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${http.token}` },
    body: JSON.stringify({ query: text, operationName: name, variables }),
  });
  if (response.status === 401 && again !== true) {
    await http.renew();
    return fetchOperation({ text, name }, variables, true);
  }
  return response.json();
}

const network = Network.create(
  (request, variables) => fetchOperation(request, variables),
  ({ text, name }, variables) =>
    Observable.create((sink) => resuming(socket).subscribe({ query: text, operationName: name, variables }, sink)),
);

const request = (text) => {
  const [, operationKind, name] = text.match(/(query|mutation|subscription) (\w+)/) ?? [null, "query", null];
  return { id: null, cacheID: text, name, operationKind, text, metadata: {} };
};
const run = async (text, variables) => {
  const { data, errors } = await network.execute(request(text), variables, { force: true }).toPromise();
  if (errors) throw new Error(JSON.stringify(errors));
  return data;
};
await story({
  query: run,
  mutate: run,
  subscribe(text, variables, next, error) {
    const subscription = network.execute(request(text), variables, {}).subscribe({ next: ({ data }) => next(data), error });
    return () => subscription.unsubscribe();
  },
});
