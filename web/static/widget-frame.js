// The chat inside the widget's frame. It speaks to the visitor API alone, and with the site's page only through the port that the
// loader (widget.js) hands over: what must outlive the page is kept there.
"use strict";

(() => {
  const API = "/widget/graphql";
  const FIRST_PAUSE = 250;
  const LONGEST_PAUSE = 8000;
  const PING_EVERY = 15000;
  const PONG_WITHIN = 5000;

  // The language of the browser, as on the pay page; the region decides how an amount is written, if there is one.
  const locale = navigator.languages.find((one) => PAYTHREAD_TEXTS[one.slice(0, 2)] && /^[a-z]{2}(-[A-Z]{2})?$/.test(one)) ?? "en-US";
  const texts = PAYTHREAD_TEXTS[locale.slice(0, 2)];
  const say = (name, values = {}) => texts[name].replace(/\{(\w+)\}/g, (_, value) => values[value]);

  const MONEY = `{ formatted(locale: "${locale}") }`;
  const CARD = `id number productName amount ${MONEY} amountDue ${MONEY} status payUrl`;
  const MESSAGE = `id cursor writtenBy author body sentAt clientMessageId payments { ${CARD} }`;
  const VISIT = `business { name } eventCursor messages { hasMore nodes { ${MESSAGE} } }`;
  const START = `mutation($input: StartVisitInput!) { startVisit(input: $input) { token visit { ${VISIT} } userErrors { code } } }`;
  const READ = `{ visit { ${VISIT} } }`;
  const EARLIER = `query($before: Cursor) { visit { messages(before: $before) { hasMore nodes { ${MESSAGE} } } } }`;
  const WRITE = `mutation($input: SendVisitorMessageInput!) { sendVisitorMessage(input: $input) { message { ${MESSAGE} }
    userErrors { code message } } }`;
  const SHOWN = "mutation($input: MarkShownInput!) { markShown(input: $input) { userErrors { code } } }";
  const EVENTS = `subscription($after: Cursor) { visitorEvents(after: $after) { __typename ... on VisitorEventBase { cursor }
    ... on VisitorMessageChanged { message { ${MESSAGE} } } ... on PaymentCardChanged { card { ${CARD} } } } }`;

  const key = location.pathname.split("/").pop();
  const $ = (id) => document.getElementById(id);

  // ----------------------------------------------------------------------------------------------------------- state
  const nothing = () => ({ token: null, outbox: [], seen: "" });
  let kept = nothing(); // what outlives the page: token, unsent messages, the newest message that a person has seen
  let identity = null;
  let open = false;
  let visit = 0; // counts up: what an earlier visit still does is let go
  let cursor = null;
  let hasMore = false;
  let socket = null;
  let tries = 0;
  let timer = 0;
  const messages = new Map();
  const drawn = new Map(); // id -> { json, node }

  // ------------------------------------------------------------------------------------------------- the site's page
  let port = null;
  const tell = (message) => port?.postMessage(message);
  const keep = () => tell({ type: "keep", kept: JSON.stringify(kept) });

  const heard = {
    start: (data) => {
      try {
        kept = { ...nothing(), ...JSON.parse(data.kept) };
      } catch {
        kept = nothing();
      }
      identity = data.identity;
      open = data.open;
      if (data.focus) focusText();
      begin();
    },
    open: ({ focus }) => {
      open = true;
      bottom();
      if (focus) focusText();
      report();
    },
    close: () => {
      open = false;
    },
    identify: (data) => {
      if (identity === data.identity) return;
      identity = data.identity;
      begin();
    },
    reset: () => {
      kept = nothing();
      identity = null;
      begin();
    },
  };

  window.addEventListener("message", (event) => {
    // Only a page that may show this frame can be its parent: frame-ancestors says so.
    if (port || event.source !== window.parent || event.data !== "paythread:port" || !event.ports[0]) return;
    port = event.ports[0];
    port.onmessage = ({ data }) => heard[data.type]?.(data);
  });

  // ------------------------------------------------------------------------------------------------------------- API
  const credentials = () => ({
    Authorization: `Bearer ${kept.token}`,
    ...(identity ? { "Paythread-Identity": identity } : {}),
  });

  /** The value of the only root field. Throws an Error with `code`, or without one if there was no answer. */
  const ask = async (query, variables, headers = credentials()) => {
    const answer = await fetch(API, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json", ...headers },
      body: JSON.stringify({ query, variables }),
      cache: "no-store",
    });
    const body = await answer.json();
    if (body.errors) throw Object.assign(new Error(body.errors[0].message), { code: body.errors[0].extensions?.code });
    return Object.values(body.data)[0];
  };

  const pause = () => Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** tries++) * (0.5 + Math.random());
  const later = (what) => {
    clearTimeout(timer);
    timer = setTimeout(what, pause());
  };

  // ----------------------------------------------------------------------------------------------------------- visit
  /** Begin, or begin again: with another identity, another token, or after the old one was refused. */
  const begin = async () => {
    const mine = ++visit;
    disconnect();
    clearTimeout(timer);
    state(messages.size ? say("connecting") : "");
    try {
      const started = await ask(START, { input: { widgetKey: key, token: kept.token, identity } }, {});
      if (mine !== visit) return;
      if (!started.token) return refused(started.userErrors[0].code);
      if (started.token !== kept.token) {
        forget();
        // What waits to be sent is still the visitor's, unless somebody else has signed in.
        kept = { ...nothing(), outbox: kept.token && identity ? [] : kept.outbox, token: started.token };
        keep();
      }
      anonymous(false);
      take(started.visit);
      connect();
      flush();
    } catch {
      if (mine === visit) later(begin);
    }
  };

  const refused = (code) => {
    if (code === "WIDGET_CLOSED") {
      tell({ type: "off" });
    } else if (code === "RATE_LIMITED") {
      later(begin);
    } else {
      // The history is somebody's who is not signed in now.
      forget();
      state(say("sign_in"));
      anonymous(true);
      tell({ type: "identity" });
    }
  };

  const anonymous = (offered) => {
    $("anew").hidden = !offered;
    $("composer").hidden = offered;
  };

  const forget = () => {
    messages.clear();
    cursor = null;
    hasMore = false;
    draw();
  };

  const take = (found) => {
    $("name").textContent = found.business.name;
    $("initial").textContent = found.business.name.slice(0, 1).toUpperCase();
    document.title = say("chat_with", { name: found.business.name });
    cursor = found.eventCursor;
    hasMore = messages.size ? hasMore : found.messages.hasMore;
    found.messages.nodes.forEach(put);
    draw();
  };

  // ---------------------------------------------------------------------------------------------------------- socket
  const connect = () => {
    disconnect();
    clearTimeout(timer);
    const url = new URL(API, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const ws = (socket = new WebSocket(url, "graphql-transport-ws"));
    let alive = true;
    const beat = setInterval(() => {
      if (ws.readyState !== WebSocket.OPEN) return;
      alive = false;
      ws.send('{"type":"ping"}');
      setTimeout(() => alive || lost(0), PONG_WITHIN);
    }, PING_EVERY);
    const lost = (code) => {
      clearInterval(beat);
      if (ws !== socket) return;
      disconnect();
      state(say(navigator.onLine ? "connecting" : "offline"));
      // 4403: the token or the identity is no longer good; startVisit knows why.
      later(code === 4403 ? begin : connect);
    };
    ws.onopen = () => ws.send(JSON.stringify({ type: "connection_init", payload: credentials() }));
    ws.onclose = ({ code }) => lost(code);
    ws.onmessage = ({ data }) => {
      if (ws !== socket) return;
      alive = true;
      const message = JSON.parse(data);
      if (message.type === "connection_ack") {
        const payload = { query: EVENTS, variables: { after: cursor } };
        ws.send(JSON.stringify({ type: "subscribe", id: "1", payload }));
      } else if (message.type === "next" && message.payload.data) {
        happened(message.payload.data.visitorEvents);
      } else if (message.type === "error" || message.type === "next") {
        disconnect();
        later(begin);
      }
    };
  };

  const disconnect = () => {
    const old = socket;
    socket = null;
    old?.close(1000);
  };

  const happened = (event) => {
    cursor = event.cursor;
    if (event.__typename === "VisitorSubscribed") {
      tries = 0;
      state("");
      flush();
    } else if (event.__typename === "VisitorMessageChanged") {
      put(event.message);
      draw();
    } else if (event.__typename === "PaymentCardChanged") {
      for (const message of messages.values()) {
        message.payments = message.payments.map((card) => (card.id === event.card.id ? event.card : card));
      }
      if (event.card.status === "PAID") {
        $("told").textContent = say("paid_news", { product: event.card.productName, amount: event.card.amount.formatted });
      }
      draw();
    } else if (event.__typename === "VisitorResyncRequired") {
      reload();
    }
  };

  /** Too much was missed to be told: the conversation is read again. */
  const reload = async () => {
    const mine = visit;
    disconnect();
    try {
      const found = await ask(READ);
      if (mine !== visit) return;
      messages.clear();
      take(found);
      connect();
    } catch {
      if (mine === visit) later(begin);
    }
  };

  // -------------------------------------------------------------------------------------------------------- messages
  const put = (message) => {
    messages.set(message.id, message);
    const left = kept.outbox.filter((item) => item.id !== message.clientMessageId);
    if (left.length !== kept.outbox.length) {
      kept.outbox = left;
      keep();
    }
  };

  // Public ids of messages sort by their time.
  const inOrder = () => [...messages.values()].sort((a, b) => (a.id < b.id ? -1 : 1));

  const newId = () => [...crypto.getRandomValues(new Uint8Array(16))].map((n) => n.toString(16).padStart(2, "0")).join("");

  /** Send what waits, in order. Its id makes a second sending of the same one message. */
  let flushing = false;
  const flush = async () => {
    if (flushing || !kept.token) return;
    flushing = true;
    const mine = visit;
    try {
      for (let item; (item = kept.outbox.find((one) => !one.refused)); ) {
        const sent = await ask(WRITE, { input: { clientMessageId: item.id, body: item.body } });
        if (mine !== visit) return;
        if (sent.message) {
          put(sent.message);
        } else if (sent.userErrors[0].code === "RATE_LIMITED") {
          setTimeout(flush, LONGEST_PAUSE);
          return;
        } else if (sent.userErrors[0].code === "IDENTITY_REQUIRED") {
          begin(); // another tab has signed in since this one began
          return;
        } else {
          item.refused = sent.userErrors[0].message;
          keep();
        }
        draw();
      }
    } catch (error) {
      // No answer: it may have arrived. The next try says the same, and the server knows it by its id.
      if (mine !== visit) return;
      if (error.code === "UNAUTHENTICATED" || error.code === "IDENTITY_REQUIRED") begin();
      else setTimeout(flush, pause());
    } finally {
      flushing = false;
      if (mine !== visit) flush();
    }
  };

  /** Tell what is on the screen: once for each newer message, and once more when a person sees it. */
  let told = { id: "", read: false };
  let telling = false;
  const report = async () => {
    const theirs = inOrder().filter((message) => message.writtenBy === "BUSINESS");
    const newest = theirs.at(-1)?.id ?? "";
    const read = open && document.visibilityState === "visible";
    if (read && newest > kept.seen) {
      kept.seen = newest;
      keep();
    }
    tell({ type: "unread", count: theirs.filter((message) => message.id > kept.seen).length });
    if (telling || !newest || !socket || (told.id === newest && (told.read || !read))) return;
    telling = true;
    try {
      await ask(SHOWN, { input: { upTo: newest, read } });
      told = { id: newest, read };
    } catch {
      return; // Said again with the next message, or when the chat is opened again.
    } finally {
      telling = false;
    }
    report();
  };

  // ---------------------------------------------------------------------------------------------------------- screen
  const make = (tag, attributes, ...children) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children.filter((child) => child !== null));
    return made;
  };

  const check = () => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.setAttribute("viewBox", "0 0 24 24");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", "M4 12.5l5 5L20 6.5");
    svg.append(path);
    return svg;
  };

  const external = (href, className, text) =>
    make("a", { href, class: className, target: "_blank", rel: "noopener noreferrer" }, text);

  // "Pay here:" before an address: a short sentence, or line, that ends with a colon.
  const lead = /(?<=^|\n|[.!?…]\s)(?:(?![.!?…]\s)[^\n]){0,40}[:：]\s*$/;

  /** A text with its addresses as links; that of a payment is left out with what leads to it, because its card stands below. */
  const words = (body, payments) => {
    const parts = [];
    let end = 0;
    for (const match of body.matchAll(/https?:\/\/[^\s<>"']*[^\s<>"'.,;:!?)\]]/g)) {
      const before = body.slice(end, match.index);
      if (payments.some((card) => card.payUrl === match[0])) parts.push(before.replace(lead, ""));
      else parts.push(before, external(match[0], "", match[0]));
      end = match.index + match[0].length;
    }
    parts.push(body.slice(end));
    if (typeof parts[0] === "string") parts[0] = parts[0].trimStart();
    if (typeof parts.at(-1) === "string") parts.push(parts.pop().trimEnd());
    return parts.filter((part) => part !== "");
  };

  const payment = (card) => {
    const badge = (text, icon) => make("p", { class: "badge" }, icon, text);
    const foot = {
      OPEN: () => [external(card.payUrl, "button", say("pay", { amount: card.amountDue.formatted }))],
      PROCESSING: () => [badge(say("processing"), null)],
      REVIEW: () => [badge(say("review"), null)],
      PAID: () => [badge(say("paid"), check()), external(card.payUrl, "receipt", say("receipt"))],
      CANCELLED: () => [badge(say("cancelled"), null)],
    }[card.status];
    return make(
      "div",
      { class: `pay ${card.status.toLowerCase()}`, role: "group", "aria-label": say("request", { product: card.productName }) },
      make("p", { class: "product" }, card.productName),
      make("p", { class: "amount" }, card.amount.formatted),
      make("p", { class: "number" }, card.number),
      ...(foot ? foot() : []),
    );
  };

  const time = (at) => new Date(at).toLocaleTimeString(locale, { hour: "numeric", minute: "2-digit" });

  const bubble = (message) => {
    const own = message.writtenBy === "VISITOR";
    const text = words(message.body, message.payments);
    return make(
      "li",
      { class: own ? "own" : "theirs" },
      own ? null : make("p", { class: "who" }, message.author ?? ""),
      text.length ? make("p", { class: "text" }, ...text) : null,
      ...message.payments.map(payment),
      make("p", { class: "when" }, make("time", { datetime: message.sentAt }, time(message.sentAt))),
    );
  };

  const waiting = (item) =>
    make(
      "li",
      { class: `own ${item.refused ? "failed" : "waiting"}` },
      make("p", { class: "text" }, item.body),
      make("p", { class: "when" }, item.refused ? say("not_sent", { reason: item.refused }) : say("sending")),
    );

  /** Bring the list up to date: only what has changed is made anew, so that focus and place stay. */
  const draw = () => {
    const wanted = [
      ...inOrder().map((message) => [message.id, message, bubble]),
      ...kept.outbox.map((item) => [item.id, item, waiting]),
    ];
    const list = $("messages");
    let place = null;
    for (const [id, item, maker] of wanted) {
      const json = JSON.stringify(item);
      const known = drawn.get(id);
      if (known?.json !== json) {
        const node = maker(item);
        known?.node.replaceWith(node);
        drawn.set(id, { json, node });
      }
      const { node } = drawn.get(id);
      const next = place ? place.nextSibling : list.firstChild;
      if (node !== next) list.insertBefore(node, next);
      place = node;
    }
    // One name for what the same person says in a row.
    let before = null;
    for (const { node } of wanted.map(([id]) => drawn.get(id))) {
      const who = node.querySelector(".who")?.textContent ?? null;
      node.classList.toggle("follows", who !== null && who === before);
      before = who;
    }
    const ids = new Set(wanted.map(([id]) => id));
    for (const [id, { node }] of drawn) {
      if (ids.has(id)) continue;
      node.remove();
      drawn.delete(id);
    }
    $("earlier").hidden = !hasMore;
    $("hello").hidden = wanted.length > 0 || !kept.token;
    if (atEnd) bottom();
    report();
  };

  // Who reads the end stays there when something is added, or when the list gets less room.
  const scroll = $("scroll");
  let atEnd = true;
  const bottom = () => {
    scroll.scrollTop = scroll.scrollHeight;
  };
  scroll.addEventListener("scroll", () => {
    atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
  });
  new ResizeObserver(() => atEnd && bottom()).observe(scroll);

  const state = (text) => {
    if ($("state").textContent !== text) $("state").textContent = text;
  };

  // In a frame that was hidden nothing takes the focus before it is drawn.
  const focusText = () => requestAnimationFrame(() => $("text").focus());

  const grow = () => {
    const text = $("text");
    text.style.setProperty("height", "auto");
    text.style.setProperty("height", `${text.scrollHeight + 2}px`);
  };

  // ---------------------------------------------------------------------------------------------------------- people
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    const body = $("text").value.trim();
    if (!body) return;
    $("text").value = "";
    grow();
    kept.outbox.push({ id: newId(), body });
    keep();
    draw();
    bottom();
    flush();
    $("text").focus();
  });
  $("text").addEventListener("input", grow);
  $("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("composer").requestSubmit();
  });
  $("close").addEventListener("click", () => tell({ type: "close" }));
  $("anew").addEventListener("click", () => heard.reset());
  $("earlier").addEventListener("click", async () => {
    const mine = visit;
    try {
      const found = await ask(EARLIER, { before: inOrder()[0]?.cursor });
      if (mine !== visit) return;
      const below = scroll.scrollHeight - scroll.scrollTop;
      hasMore = found.messages.hasMore;
      found.messages.nodes.forEach(put);
      draw();
      scroll.scrollTop = scroll.scrollHeight - below;
    } catch {
      state(say("earlier_failed"));
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") tell({ type: "close" });
    if (event.key !== "Tab") return;
    // The panel is a dialog: who tabs stays in it, Escape leads out.
    const stops = [...document.querySelectorAll("a[href], button, textarea, main")].filter((stop) => stop.offsetParent);
    const [first, last] = [stops[0], stops.at(-1)];
    if (event.shiftKey ? document.activeElement === first : document.activeElement === last) {
      event.preventDefault();
      (event.shiftKey ? last : first).focus();
    }
  });
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState !== "visible") return;
    report();
    if (kept.token && !socket) connect();
  });
  // A socket may look alive for minutes after the network has gone.
  window.addEventListener("offline", () => {
    if (!socket) return;
    disconnect();
    state(say("offline"));
  });
  window.addEventListener("online", () => {
    tries = 0;
    clearTimeout(timer);
    if (!kept.token || !cursor) begin();
    else if (!socket) connect();
    flush();
  });

  document.documentElement.lang = locale;
  $("hello").textContent = say("hello");
  $("earlier").textContent = say("earlier");
  $("anew").textContent = say("anew");
  $("label").textContent = say("message");
  $("text").placeholder = say("placeholder");
  for (const [id, name] of [["close", "close"], ["send", "send"], ["scroll", "conversation"], ["log", "messages"]]) {
    $(id).setAttribute("aria-label", say(name));
  }

  // Says nothing but that the frame was let in: the site's page may now hand over the port.
  if (window.parent !== window) window.parent.postMessage("paythread:ready", "*");
})();
