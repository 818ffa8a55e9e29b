// No library and no cache: each event says that something changed, and the screens are queried again.
import { authorized, createLive } from "paythread-client";
import { feeds, screens } from "./documents.js";

export async function start({ url, token }) {
  const send = authorized(token);
  const watched = new Set();
  async function query(document, variables) {
    const body = JSON.stringify({ query: document, variables });
    const response = await send(url, { method: "POST", headers: { "content-type": "application/json" }, body });
    return (await response.json()).data;
  }
  const load = async ({ screen, variables, show }) => show(await query(screens[screen], variables));
  const reload = () => Promise.all([...watched].map(load));
  let waiting;
  const next = () => {
    // Events that come together cost one reload.
    waiting ??= setTimeout(() => ((waiting = undefined), reload()), 50);
  };
  const live = createLive({ url: url.replace(/^http/, "ws"), token, resync: async () => void (await reload()) });
  const after = (await query(screens.inbox)).conversations.eventCursor;
  for (const feed of Object.values(feeds)) {
    live.subscribe({ query: feed, variables: { after } }, { next, error: console.error, complete() {} });
  }
  return {
    /** Call `show` with a screen's data, now and after each change. */
    watch(screen, variables, show) {
      const one = { screen, variables, show };
      watched.add(one);
      void load(one);
    },
    close: () => live.close(),
  };
}
