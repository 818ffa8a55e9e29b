// Relay's runtime. A screen is a retained query; `updater` keeps its connections in line with the feeds.
import relay from "relay-runtime";
import { createLive } from "paythread-client";
import { createNetwork, getDataID, updater } from "paythread-client/relay";
import { feeds, screens } from "./relay-documents.js";

const { Environment, RecordSource, Store, createOperationDescriptor, fetchQuery, requestSubscription } = relay;

export async function start({ url, token }) {
  const watched = new Set();
  const load = ({ query, variables }) => fetchQuery(environment, query, variables).toPromise();
  const reload = async (keys) => {
    // A connection's key begins with its screen: Unpaid_paymentRequests.
    const outdated = ({ screen }) => !keys || [...keys].some((key) => key.toLowerCase().startsWith(screen));
    await Promise.all([...watched].filter(outdated).map(load));
  };
  const live = createLive({ url: url.replace(/^http/, "ws"), token, resync: () => reload() });
  const network = createNetwork({ url, token, live });
  const environment = new Environment({ network, store: new Store(new RecordSource()), getDataID });
  const after = (await load({ query: screens.inbox, variables: {} })).conversations.eventCursor;
  for (const subscription of Object.values(feeds)) {
    const update = updater(environment, { onStale: reload });
    requestSubscription(environment, { subscription, variables: { after }, updater: update, onError: console.error });
  }
  return {
    /** Call `show` with a screen's data, now and after each change. */
    watch(screen, variables, show) {
      const one = { screen, query: screens[screen], variables };
      const operation = createOperationDescriptor(one.query, variables);
      environment.retain(operation);
      watched.add(one);
      const snapshot = environment.lookup(operation.fragment);
      const shown = ({ data, isMissingData }) => !isMissingData && show(data);
      shown(snapshot);
      environment.subscribe(snapshot, shown);
      void load(one);
    },
    close: () => live.close(),
  };
}
