// The pay page's script; the page is complete without it. It says that somebody looks, and shows a new state when there is one.
"use strict";

(() => {
  const main = () => document.querySelector("main[data-path]");
  const path = main().dataset.path;
  const FINAL = ["paid", "void"];
  const TOUCHES = ["pointerdown", "pointermove", "touchstart", "wheel", "keydown"];
  const state = () => main().dataset.state;

  // A background tab or a prerendered page is looked at by nobody, and a mail scanner's browser is driven by a program or has no
  // focus. Whoever touches the page looks at it.
  let seen = false;
  const say = (event) => {
    const touched = Boolean(event?.isTrusted) && TOUCHES.includes(event.type);
    const looking = document.hasFocus() && !navigator.webdriver;
    if (seen || document.visibilityState !== "visible" || !(touched || looking)) return;
    seen = true;
    fetch(`${path}/view`, { method: "POST", keepalive: true }).catch(() => {});
  };

  let timer = 0;
  let asking = false;
  const wait = (ms) => {
    clearTimeout(timer);
    if (!FINAL.includes(state())) timer = setTimeout(ask, ms);
  };
  const pause = () => (state() === "processing" ? 2000 : 5000);

  // The content is replaced only if the state has changed: whoever is reading or pressing is not disturbed.
  const show = async () => {
    const answer = await fetch(path, { cache: "no-store" });
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = fresh.querySelector("main[data-path]");
    if (!next) return;
    document.title = fresh.title;
    main().replaceWith(document.adoptNode(next));
  };

  const ask = async () => {
    if (asking || document.visibilityState !== "visible") return;
    asking = true;
    try {
      const answer = await fetch(`${path}/live`, { cache: "no-store" });
      const now = answer.ok ? await answer.json() : null;
      if (now && now.state === "void") {
        location.reload();
        return;
      }
      if (now && now.tag !== main().dataset.tag) await show();
    } catch {
      // Offline: the next round, or the event that says that we are back, asks again.
    } finally {
      asking = false;
    }
    wait(pause());
  };

  // A second press would only open the same checkout again; it looks better not to.
  document.addEventListener("submit", (event) => {
    const button = event.target.querySelector("button");
    if (button.getAttribute("aria-disabled") === "true") event.preventDefault();
    button.setAttribute("aria-disabled", "true");
  });
  const awake = () => {
    say();
    if (document.visibilityState === "visible" && !FINAL.includes(state())) ask();
  };
  document.addEventListener("visibilitychange", awake);
  window.addEventListener("focus", say);
  TOUCHES.forEach((type) => document.addEventListener(type, say, { passive: true }));
  window.addEventListener("online", awake);
  // Back from the processor by the browser's own button: the page comes out of its cache as it was left.
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    document.querySelectorAll("button").forEach((button) => button.removeAttribute("aria-disabled"));
    awake();
  });

  say();
  wait(pause());
})();
