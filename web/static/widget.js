// The chat's button on a site, and the frame that it opens. The chat itself runs in the frame (widget-frame.js), on our own origin.
// Styles go through the CSSOM: a site allows this script and the frame, nothing else.
(() => {
  "use strict";
  const script = document.currentScript;
  const key = script.dataset.key;
  const { origin } = new URL(script.src);
  const address = `${origin}/widget/${encodeURIComponent(key)}`;
  // A single-page site may run the snippet again.
  const chats = (window.PaythreadChats ??= {});
  if (chats[key]) return;
  chats[key] = true;
  const store = `paythread:${key}`;
  const narrow = matchMedia("(max-width: 479px)");
  const waiting = window.Paythread?.q ?? [];

  // What the chat wants to keep lies with the site: a browser may refuse storage to a frame of another origin.
  const memory = {};
  const read = (area, name) => {
    try {
      return window[area].getItem(name);
    } catch {
      return memory[name] ?? null;
    }
  };
  const write = (area, name, value) => {
    memory[name] = value;
    try {
      value === null ? window[area].removeItem(name) : window[area].setItem(name, value);
    } catch {
      // Full or forbidden: it lives as long as the page.
    }
  };

  let button, badge, asking, frame, port, identity = null, open = false, focused = false, gone = false, ready = false;

  const style = (element, rules) => {
    for (const [name, value] of Object.entries(rules)) element.style.setProperty(name, value, "important");
  };
  const tell = (message) => port?.postMessage(message);

  const lay = () => {
    if (gone || !button) return;
    const full = open && narrow.matches;
    style(button, { display: full ? "none" : "flex" });
    if (!frame) return;
    style(frame, full
      ? { inset: "0", width: "100%", height: "100%", "max-height": "none", "border-radius": "0" }
      : { inset: "auto 20px 88px auto", width: "380px", height: "620px", "max-height": "calc(100% - 108px)", "border-radius": "16px" });
    style(frame, { display: open ? "block" : "none" });
  };

  const show = (yes, focus) => {
    if (gone || !button) return;
    open = yes;
    focused = focus;
    if (yes) ask();
    write("sessionStorage", `${store}:open`, yes ? "1" : null);
    button.setAttribute("aria-expanded", String(yes));
    lay();
    if (yes && focus) frame?.focus();
    tell({ type: yes ? "open" : "close", focus });
    if (!yes && focus) button.focus();
  };

  // Routers swap the body: the chat lives beside it, and returns if it is removed.
  const stay = () => {
    const home = document.documentElement;
    for (const node of [document, home]) observer.observe(node, { childList: true });
    if (!button.isConnected) home.append(button);
    if (!frame || frame.isConnected) return;
    ready = false; // it loads again
    home.append(frame);
  };
  const observer = new MutationObserver(stay);

  const leave = () => {
    gone = true;
    observer.disconnect();
    frame?.remove();
    button?.remove();
    port?.close();
  };

  const unread = (count) => {
    badge.textContent = count > 9 ? "9+" : String(count);
    style(badge, { display: count ? "block" : "none" });
    button.setAttribute("aria-label", count ? `Chat (${count})` : "Chat");
  };

  const heard = {
    keep: ({ kept }) => write("localStorage", store, kept),
    unread: ({ count }) => unread(count),
    close: () => show(false, true),
    off: leave,
    identity: () => window.dispatchEvent(new CustomEvent("paythread:identity")),
  };

  // A script, which the page's policy allows. Asked before the frame is made: a refused frame writes to the console.
  const ask = () => {
    if (asking) return;
    asking = document.createElement("script");
    asking.src = `${address}/sites.js`;
    asking.onerror = () => {
      asking = null;
      show(false, false);
    };
    document.head.append(asking);
  };
  const fits = (site) =>
    new RegExp(`^${site.replaceAll(".", "\\.").replace("*", "[^/:]+").replace("http:", "https?:")}$`).test(location.origin);

  const load = () => {
    frame = document.createElement("iframe");
    frame.title = "Chat";
    style(frame, { position: "fixed", "z-index": "2147483001", border: "0", background: "transparent", "color-scheme": "normal",
      "box-shadow": "0 12px 40px rgba(0, 0, 0, .28)" });
    window.addEventListener("message", (event) => {
      // The frame speaks first: a refused one has no origin to speak to.
      if (ready || event.origin !== origin || event.source !== frame.contentWindow || event.data !== "paythread:ready") return;
      ready = true;
      port?.close();
      const channel = new MessageChannel();
      port = channel.port1;
      port.onmessage = ({ data }) => heard[data.type]?.(data);
      frame.contentWindow.postMessage("paythread:port", origin, [channel.port2]);
      tell({ type: "start", kept: read("localStorage", store), identity, open, focus: open && focused });
      if (open && focused) frame.focus();
    });
    // Silent: refused by the browser, or the chat is gone.
    frame.addEventListener("load", () => setTimeout(() => ready || leave(), 1500));
    frame.src = address;
    stay();
    lay();
  };

  const draw = () => {
    const svg = (name, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
      return made;
    };
    button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-expanded", "false");
    button.setAttribute("aria-haspopup", "dialog");
    style(button, { position: "fixed", inset: "auto 20px 20px auto", "z-index": "2147483000", "align-items": "center", width: "56px",
      "justify-content": "center", height: "56px", padding: "0", margin: "0", border: "0", "border-radius": "50%", cursor: "pointer",
      background: "#0f6b5c", color: "#fff", "box-shadow": "0 6px 20px rgba(0, 0, 0, .25)" });
    const icon = svg("svg", { viewBox: "0 0 24 24", width: "28", height: "28", "aria-hidden": "true", fill: "currentColor" });
    icon.append(svg("path", { d: "M4 3h16a2 2 0 0 1 2 2v10a2 2 0 0 1-2 2h-8l-5 4.5V17H4a2 2 0 0 1-2-2V5a2 2 0 0 1 2-2z" }));
    badge = document.createElement("span");
    badge.setAttribute("aria-hidden", "true");
    style(badge, { position: "absolute", inset: "-4px -4px auto auto", "min-width": "22px", padding: "0 6px", "box-sizing": "border-box",
      "border-radius": "11px", background: "#b3261e", color: "#fff", font: "700 13px/22px system-ui, sans-serif" });
    button.append(icon, badge);
    button.addEventListener("click", () => show(!open, true));
    stay();
    narrow.addEventListener("change", lay);
    unread(0);
    lay();

    if (read("sessionStorage", `${store}:open`)) show(true, false);
    // Somebody who has written before may have an answer.
    else if (read("localStorage", store)) setTimeout(ask, 500);
    for (const call of waiting) window.Paythread(...call);
  };

  const commands = {
    sites: (list) => (list.some(fits) ? frame || load() : leave()),
    open: () => show(true, true),
    close: () => show(false, false),
    identify: (token) => {
      identity = token;
      tell({ type: "identify", identity });
    },
    reset: () => {
      identity = null;
      write("localStorage", store, null);
      tell({ type: "reset" });
    },
  };
  window.Paythread = (command, value) => {
    if (!button && !gone) waiting.push([command, value]);
    else if (!gone) commands[command]?.(value);
  };

  if (document.body) draw();
  else document.addEventListener("DOMContentLoaded", draw);
})();
