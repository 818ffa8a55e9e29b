// The live socket alone: against a scripted WebSocket with a clock of its own, and against a real server (REAL, from pytest).
import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";
import { createLive, LiveClosed } from "paythread-client";
import { WebSocket } from "ws";

const QUERY = "subscription Feed($after: Cursor) { inboxEvents(after: $after) { __typename ... on Event { cursor } } }";
const page = new EventTarget();
globalThis.addEventListener = page.addEventListener.bind(page);
globalThis.removeEventListener = page.removeEventListener.bind(page);

let sockets;
const open = [];
class Scripted {
  sent = [];
  closed = false;
  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
    sockets.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close() {
    this.closed = true;
  }
  gives(message) {
    this.onmessage({ data: JSON.stringify(message) });
  }
  accepts() {
    this.onopen();
    this.gives({ type: "connection_ack" });
  }
  event(id, __typename, cursor) {
    this.gives({ type: "next", id, payload: { data: { inboxEvents: { __typename, cursor } } } });
  }
  ends(code) {
    this.onclose({ code, reason: "" });
  }
  get subscribed() {
    return this.sent.filter(({ type }) => type === "subscribe");
  }
}

/** Let promises settle. */
const settle = async () => {
  for (let turn = 0; turn < 10; turn++) await Promise.resolve();
};
const after = async (ms) => {
  mock.timers.tick(ms);
  await settle();
};
const last = () => sockets.at(-1);

function follow(live, variables = { after: "c0" }) {
  const seen = { cursors: [], errors: [], completed: 0 };
  seen.stop = live.subscribe(
    { query: QUERY, variables },
    {
      next: ({ data }) => seen.cursors.push(data.inboxEvents.cursor),
      error: (error) => seen.errors.push(error),
      complete: () => (seen.completed += 1),
    },
  );
  return seen;
}

function make(options = {}) {
  const asked = [];
  const token = (refused) => (asked.push(refused), `token ${asked.length}`);
  const live = createLive({ url: "ws://pay.example/graphql", token, WebSocket: Scripted, ...options });
  open.push(live);
  return { live, asked };
}

async function opened(options) {
  const made = make(options);
  const seen = follow(made.live);
  await settle();
  last().accepts();
  return { ...made, seen };
}

beforeEach(() => {
  sockets = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => 0);
});
afterEach(() => {
  for (const live of open.splice(0)) live.close();
  mock.timers.reset();
  mock.restoreAll();
});

test("it speaks graphql-transport-ws, with the token in connection_init", async () => {
  await opened();
  assert.equal(last().protocol, "graphql-transport-ws");
  assert.deepEqual(last().sent[0], { type: "connection_init", payload: { Authorization: "Bearer token 1" } });
  assert.deepEqual(last().sent[1], { type: "subscribe", id: "1", payload: { query: QUERY, variables: { after: "c0" } } });
  last().gives({ type: "ping" });
  assert.deepEqual(last().sent[2], { type: "pong" });
});

test("after a cut it goes on behind the newest cursor and drops what it has seen", async () => {
  const { seen } = await opened();
  last().event("1", "Subscribed", "c0");
  last().event("1", "ThreadItemAdded", "c1");
  last().event("1", "ThreadItemAdded", "c2");
  last().ends(1006);
  await after(300);
  last().accepts();
  assert.equal(sockets.length, 2);
  assert.equal(last().subscribed[0].payload.variables.after, "c2");
  last().event("1", "Subscribed", "c2");
  last().event("1", "ThreadItemAdded", "c2");
  last().event("1", "ThreadItemAdded", "c3");
  assert.deepEqual(seen.cursors, ["c0", "c1", "c2", "c2", "c3"]);
  assert.deepEqual(seen.errors, []);
});

test("events of one log entry may share a cursor: none is lost, and after a cut those that were not seen follow", async () => {
  const { seen } = await opened();
  const item = (id, cursor) => last().gives({ type: "next", id: "1", payload: { data: { inboxEvents: { __typename: "Item", cursor, id } } } });
  for (const [id, cursor] of [["a", "c1"], ["b", "c1"], ["c", "c1"]]) item(id, cursor);
  assert.deepEqual(seen.cursors, ["c1", "c1", "c1"]);
  last().ends(1006);
  await after(300);
  last().accepts();
  assert.equal(last().subscribed[0].payload.variables.after, "c1");
  for (const [id, cursor] of [["b", "c1"], ["d", "c1"], ["e", "c2"]]) item(id, cursor);
  assert.deepEqual(seen.cursors, ["c1", "c1", "c1", "c1", "c2"]);
});

test("a feed without $after is repeated as it is, with every event", async () => {
  const { live } = make();
  const figures = [];
  const query = "subscription { dashboardEvents { ... on Event { cursor } } }";
  live.subscribe({ query }, { next: ({ data }) => figures.push(data), error() {}, complete() {} });
  await settle();
  last().accepts();
  assert.deepEqual(last().subscribed[0].payload, { query });
  for (const _ of [1, 2]) last().gives({ type: "next", id: "1", payload: { data: { dashboardEvents: { cursor: "c1" } } } });
  assert.equal(figures.length, 2);
});

test("waits grow to the limit, and the random half is added", async () => {
  await opened({ maxWait: 4_000 });
  const waits = [];
  for (let attempt = 0; attempt < 7; attempt++) {
    const before = sockets.length;
    last().ends(1006);
    let waited = 0;
    for (; sockets.length === before; waited += 25) await after(25);
    waits.push(waited);
  }
  assert.deepEqual(waits, [125, 250, 500, 1000, 2000, 2000, 2000]);
  Math.random.mock.mockImplementation(() => 1);
  last().ends(1006);
  await after(3_975);
  assert.equal(sockets.length, 8);
  await after(25);
  assert.equal(sockets.length, 9);
});

test("a restart or overload of the server is spread over two seconds", async () => {
  for (const code of [1012, 1013]) {
    Math.random.mock.mockImplementation(() => 0.5);
    const { live } = await opened();
    const before = sockets.length;
    last().ends(code);
    await after(1_175);
    assert.equal(sockets.length, before);
    await after(25);
    assert.equal(sockets.length, before + 1);
    live.close();
  }
});

test("an expired token is replaced without a wait; one that stays refused ends all subscriptions", async () => {
  const { live, asked, seen } = await opened();
  const other = follow(live);
  last().ends(4403);
  await after(0);
  assert.deepEqual(asked, [false, true]);
  last().accepts();
  assert.deepEqual(last().subscribed.map(({ id }) => id), ["1", "2"]);
  for (let refusal = 0; refusal < 4; refusal++) {
    last().ends(4403);
    await after(10_000);
  }
  assert.deepEqual(asked, [false, true, true, true, true]);
  for (const { errors } of [seen, other]) {
    assert.ok(errors[0] instanceof LiveClosed);
    assert.equal(errors[0].code, 4403);
  }
  await after(60_000);
  assert.equal(sockets.length, 5);
});

test("a token that can't be fetched is asked for again; LiveClosed ends the subscriptions", async () => {
  let answers = [new TypeError("fetch failed"), "good"];
  const token = async () => {
    const answer = answers.shift();
    if (typeof answer !== "string") throw answer;
    return answer;
  };
  const { live } = make({ token });
  const seen = follow(live);
  await settle();
  assert.equal(sockets.length, 0);
  await after(500);
  last().accepts();
  assert.deepEqual(seen.errors, []);
  answers = [new LiveClosed(4403, "signed out")];
  last().ends(1006);
  await after(500);
  assert.deepEqual(seen.errors.map(({ message }) => message), ["signed out"]);
});

test("codes that name a bug of the client end the subscriptions", async () => {
  for (const code of [4400, 4401, 4406, 4409, 4429]) {
    const { seen } = await opened();
    last().ends(code);
    assert.deepEqual(seen.errors.map((error) => error.code), [code]);
  }
});

test("a connection without an answer counts as lost", async () => {
  await opened();
  await after(20_000);
  assert.equal(last().sent.at(-1).type, "ping");
  last().gives({ type: "pong" });
  await after(20_000);
  await after(8_000);
  assert.ok(sockets[0].closed);
  await after(300);
  assert.equal(sockets.length, 2);
  // Nor does a connection that is never accepted hold it up.
  await after(8_000);
  await after(300);
  assert.equal(sockets.length, 3);
});

test("offline it waits, online it connects without a wait, and it probes an open connection", async () => {
  await opened();
  const original = Object.getOwnPropertyDescriptor(globalThis, "navigator");
  Object.defineProperty(globalThis, "navigator", { value: { onLine: false }, configurable: true });
  page.dispatchEvent(new Event("offline"));
  assert.equal(last().sent.at(-1).type, "ping");
  last().ends(1006);
  await after(9_000);
  assert.equal(sockets.length, 1);
  page.dispatchEvent(new Event("online"));
  await settle();
  assert.equal(sockets.length, 2);
  if (original) Object.defineProperty(globalThis, "navigator", original);
  else delete globalThis.navigator;
});

test("ResyncRequired: one new load for all feeds, then they go on behind its cursor", async () => {
  const loads = [];
  let loaded;
  const resync = (event) => (loads.push(event), new Promise((done) => (loaded = done)));
  const { live, seen } = await opened({ resync });
  const other = follow(live);
  for (const id of ["1", "2"]) {
    last().event(id, "ResyncRequired", `${id}99`);
    last().gives({ type: "complete", id });
  }
  assert.equal(loads.length, 1);
  assert.equal(last().subscribed.length, 2);
  loaded("c200");
  await settle();
  assert.deepEqual(last().subscribed.slice(2).map(({ payload }) => payload.variables.after), ["c200", "c200"]);
  assert.deepEqual([seen.cursors, seen.completed, other.completed], [[], 0, 0]);
});

test("a load that fails is repeated; without a cursor of its own the event's is used; cuts meanwhile do no harm", async () => {
  const answers = [Promise.reject(new Error("503")), undefined];
  await opened({ resync: () => answers.shift() });
  last().event("1", "ResyncRequired", "c99");
  await settle();
  last().ends(1006);
  await after(500);
  last().accepts();
  await after(500);
  const sent = last().subscribed;
  assert.deepEqual(sent.map(({ payload }) => payload.variables.after), ["c99"]);
});

test("without resync the caller gets the event and the end", async () => {
  const { seen } = await opened();
  last().event("1", "ResyncRequired", "c99");
  last().gives({ type: "complete", id: "1" });
  assert.deepEqual([seen.cursors, seen.completed], [["c99"], 1]);
});

test("a passing error starts the feed again, any other ends it alone", async () => {
  const { live, seen } = await opened();
  const other = follow(live);
  const error = (code) => [{ message: code, extensions: { code } }];
  last().gives({ type: "error", id: "1", payload: error("RATE_LIMITED") });
  await after(200);
  assert.equal(last().subscribed.at(-1).payload.variables.after, "c0");
  last().gives({ type: "error", id: "2", payload: error("BAD_REQUEST") });
  assert.deepEqual([seen.errors, other.errors], [[], [error("BAD_REQUEST")]]);
  last().event(last().subscribed.at(-1).id, "ThreadItemAdded", "c1");
  assert.deepEqual(seen.cursors, ["c1"]);
});

test("a stopped feed is completed; the socket closes after the last one, and close() completes all", async () => {
  const statuses = [];
  const { live, seen } = await opened({ onStatus: (status) => statuses.push(status) });
  const other = follow(live);
  seen.stop();
  assert.deepEqual(last().sent.at(-1), { type: "complete", id: "1" });
  last().event("1", "ThreadItemAdded", "c1");
  other.stop();
  const again = follow(live);
  await after(600);
  assert.equal(last().closed, false);
  again.stop();
  await after(600);
  assert.equal(last().closed, true);
  follow(live);
  await settle();
  last().accepts();
  const ended = follow(live);
  live.close();
  assert.deepEqual([seen.cursors, ended.completed, last().closed], [[], 1, true]);
  assert.equal(follow(live).errors.length, 1);
  assert.deepEqual(statuses, ["connecting", "open", "idle", "connecting", "open", "closed"]);
  page.dispatchEvent(new Event("online"));
  await after(60_000);
  assert.equal(sockets.length, 2);
});

test("a mutation is refused, because a reconnect would repeat it", async () => {
  const errors = [];
  make().live.subscribe({ query: "mutation { pay }" }, { next() {}, error: (error) => errors.push(error.message), complete() {} });
  assert.match(errors[0], /over HTTP/);
  assert.equal(sockets.length, 0);
});

test("against the server: an event, a refused document, a refused token", { skip: !process.env.REAL }, async () => {
  mock.timers.reset();
  mock.restoreAll();
  const { url, token, create } = JSON.parse(process.env.REAL);
  const live = createLive({ url: url.replace("http", "ws"), token: () => token, WebSocket });
  open.push(live);
  const types = await new Promise((done, failed) => {
    const found = [];
    live.subscribe(
      { query: QUERY },
      {
        async next({ data }) {
          found.push(data.inboxEvents.__typename);
          if (found.length === 1) {
            const headers = { "content-type": "application/json", authorization: `Bearer ${token}` };
            await fetch(url, { method: "POST", headers, body: JSON.stringify(create) });
          } else done(found);
        },
        error: failed,
        complete() {},
      },
    );
  });
  assert.equal(types[0], "Subscribed");
  assert.match(types[1], /^(Contact|Conversation)Updated$/);
  const refused = await new Promise((error) => {
    live.subscribe({ query: "subscription { nonsense }" }, { next() {}, error, complete() {} });
  });
  assert.match(refused[0].message, /nonsense/);
  const stranger = createLive({ url: url.replace("http", "ws"), token: () => "wrong", WebSocket, maxWait: 50 });
  open.push(stranger);
  const closed = await new Promise((error) => stranger.subscribe({ query: QUERY }, { next() {}, error, complete() {} }));
  assert.equal(closed.code, 4403);
});
