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

  const fetch = GraphiQL.createFetcher({ url: url.href, subscriptionUrl: socket.href });

  // Run pressed before the editor has parsed the text would send the last tab's operation name, and POST a subscription:
  // a text with one operation says itself what it is.
  const operations = /^\s*(query|mutation|subscription)\b[ \t]*(\w+)?/gm;
  const fetcher = (params, options) => {
    const found = [...params.query.matchAll(operations)];
    if (found.length !== 1) return fetch(params, options);
    const [, operation, name] = found[0];
    const definition = { kind: "OperationDefinition", operation, name: name && { kind: "Name", value: name } };
    return fetch(
      { ...params, operationName: name },
      { ...options, documentAST: { kind: "Document", definitions: [definition] } },
    );
  };

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
