// Shows new messages on the demo phone without a reload; the page is complete without it.
"use strict";

(() => {
  const refresh = async () => {
    if (document.visibilityState === "visible") {
      try {
        const answer = await fetch(location.href, { cache: "no-store" });
        const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("messages");
        const list = document.getElementById("messages");
        if (fresh && list && !fresh.isEqualNode(list)) list.replaceWith(document.adoptNode(fresh));
      } catch {
        // The server restarts: the next round asks again.
      }
    }
    setTimeout(refresh, 2000);
  };
  setTimeout(refresh, 2000);
})();
