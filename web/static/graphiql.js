// Starts GraphiQL with the examples that the server put on the page.
"use strict";

(() => {
  const element = document.getElementById("graphiql");
  const url = new URL(element.dataset.endpoint, location.href);
  const socket = new URL(url);
  socket.protocol = url.protocol === "https:" ? "wss:" : "ws:";

  // Nothing is kept in the browser: after a reload the examples carry the ids and the key of the server that runs now.
  const tabs = JSON.parse(element.dataset.tabs);
  // GraphiQL takes the first tab's variables and headers from here, not from `defaultTabs`.
  const kept = new Map(Object.entries(tabs[0]).map(([name, value]) => [`graphiql:${name}`, value]));
  const storage = {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, String(value)),
    removeItem: (key) => void kept.delete(key),
    clear: () => kept.clear(),
    get length() {
      return kept.size;
    },
  };

  const fetcher = GraphiQL.createFetcher({ url: url.href, subscriptionUrl: socket.href });
  ReactDOM.createRoot(element).render(
    React.createElement(GraphiQL, {
      fetcher,
      storage,
      defaultTabs: tabs,
      defaultEditorToolsVisibility: "variables",
      shouldPersistHeaders: false,
      showPersistHeadersSettings: false,
    }),
  );
})();
