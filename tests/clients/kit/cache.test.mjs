// The cache rules of Apollo Client and graphcache alone: what an event that selects less than the screen may and may not do, and pages.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { beforeEach, mock, test } from "node:test";
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
import { Client, fetchExchange, subscriptionExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { authorized } from "paythread-client";
import * as apollo from "paythread-client/apollo";
import * as graphcache from "paythread-client/graphcache";
import { getDataID } from "paythread-client/relay";

const schema = JSON.parse(readFileSync("node_modules/paythread-client/generated/introspection.json", "utf8"));
const SCREEN = `query($id: ID!) { paymentRequest(id: $id) { __typename id amount { __typename amount currency formatted } } }`;
const FEED = `subscription { inboxEvents { __typename ... on PaymentRequestUpdated {
  cursor paymentRequest { __typename id amount { __typename amount currency } } } } }`;
const THREAD = `query($before: Cursor) { conversation(id: "cnv_1") { __typename id thread(last: 2, before: $before) { __typename
  pageInfo { __typename hasPreviousPage startCursor } edges { __typename cursor node { __typename id } } } } }`;
const THREAD_FEED = `subscription { conversationEvents(conversationId: "cnv_1") { __typename ... on ThreadItemAdded {
  cursor edge { __typename cursor node { __typename id } } } } }`;
const money = (amount, more) => ({ __typename: "Money", amount, currency: "USD", ...more });
const request = (value) => ({ __typename: "PaymentRequest", id: "pr_1", amount: value });
const settle = () => new Promise((done) => setTimeout(done, 20));

let amount;
let reads;
let sink;
beforeEach(() => {
  amount = "10.00";
  reads = 0;
  send = fetched;
  live.events = 0;
  mock.restoreAll();
});
const live = { events: 0, subscribe: (_, given) => ((sink = given), () => {}) };
const screen = () => ({ paymentRequest: request(money(amount, { formatted: `$${amount}` })) });
const page = (...ids) => ({
  __typename: "ThreadConnection",
  pageInfo: { __typename: "PageInfo", hasPreviousPage: ids[0] !== "msg_1", startCursor: `c_${ids[0]}` },
  edges: ids.map((id) => ({ __typename: "ThreadEdge", cursor: `c_${id}`, node: { __typename: "Message", id } })),
});
const thread = (before) => ({
  conversation: { __typename: "Conversation", id: "cnv_1", thread: before ? page("msg_1", "msg_2") : page("msg_3", "msg_4") },
});
async function fetched(_, { body }) {
  reads += 1;
  const { query, variables } = JSON.parse(body);
  const data = query.includes("paymentRequest(") ? screen() : thread(variables.before);
  return new Response(JSON.stringify({ data }), { headers: { "content-type": "application/json" } });
}
const event = (value) =>
  sink.next({ data: { inboxEvents: { __typename: "PaymentRequestUpdated", cursor: "c", paymentRequest: request(value) } } });
const added = (id) => {
  const [edge] = page(id).edges;
  sink.next({ data: { conversationEvents: { __typename: "ThreadItemAdded", cursor: "c", edge } } });
};

let send = fetched;
const withApollo = (cache) => {
  const link = ApolloLink.split(({ operationType }) => operationType === "subscription", apollo.liveLink(live), new HttpLink({ uri: "http://x", fetch: (...call) => send(...call) }));
  const client = new ApolloClient({ cache, link });
  return {
    follow: (feed) => client.subscribe({ query: gql(feed), variables: { id: "prv_1" } }).subscribe(() => {}),
    watch(query, variables, show) {
      const watched = client.watchQuery({ query: gql(query), variables });
      watched.subscribe(({ data, dataState }) => dataState === "complete" && show(data));
      return (more) => watched.fetchMore({ variables: more });
    },
  };
};
const withUrql = (exchange) => {
  const client = new Client({ url: "http://x", fetch: (...call) => send(...call), preferGetMethod: false, exchanges: [exchange, fetchExchange] });
  return {
    follow: (feed) => client.subscription(feed, { id: "prv_1" }).subscribe(() => {}),
    watch(query, variables, show) {
      client.query(query, variables).subscribe(({ data, stale }) => data && !stale && show(data));
      return (more) => client.query(query, { ...variables, ...more }).toPromise();
    },
  };
};
const libraries = {
  apollo: () => withApollo(new InMemoryCache(apollo.cacheOptions())),
  urql: () => withUrql(graphcache.liveCache({ live, schema })),
};

for (const [name, make] of Object.entries(libraries)) {
  test(`${name}: an event with the same value and fewer fields costs no query; another value is queried, never mixed`, async () => {
    const client = make();
    const shown = [];
    client.follow(FEED);
    client.watch(SCREEN, { id: "pr_1" }, ({ paymentRequest }) => shown.push([paymentRequest.amount.amount, paymentRequest.amount.formatted]));
    await settle();
    event(money("10.00"));
    await settle();
    assert.equal(reads, 1);
    amount = "12.00";
    event(money("12.00"));
    await settle();
    assert.equal(reads, 2);
    assert.deepEqual(new Set(shown.map(String)), new Set(["10.00,$10.00", "12.00,$12.00"]));
    assert.equal(String(shown.at(-1)), "12.00,$12.00");
  });

  test(`${name}: an answer that an event overtook is not shown`, async () => {
    const client = make();
    const shown = [];
    let answer;
    const slow = async (...call) => {
      const response = await fetched(...call);
      if (reads === 2) await new Promise((done) => (answer = done));
      return response;
    };
    send = authorized(() => "token", live, slow);
    client.follow(FEED);
    client.watch(SCREEN, { id: "pr_1" }, ({ paymentRequest }) => shown.push(paymentRequest.amount.formatted));
    await settle();
    amount = "12.00";
    event(money("12.00"));
    await settle();
    amount = "13.00";
    live.events += 1;
    event(money("13.00"));
    await settle();
    answer();
    await settle();
    await settle();
    assert.deepEqual([shown.at(-1), shown.includes("$12.00")], ["$13.00", false]);
  });

  test(`${name}: older pages and new items make one list, in order and once`, async () => {
    const client = make();
    let ids;
    client.follow(THREAD_FEED);
    const more = client.watch(THREAD, {}, ({ conversation }) => (ids = conversation.thread.edges.map(({ node }) => node.id)));
    await settle();
    added("msg_5");
    await settle();
    assert.deepEqual(ids, ["msg_3", "msg_4", "msg_5"]);
    await more({ before: "c_msg_3" });
    await settle();
    added("msg_5");
    added("msg_6");
    await settle();
    assert.deepEqual(ids, ["msg_1", "msg_2", "msg_3", "msg_4", "msg_5", "msg_6"]);
    assert.equal(reads, 2);
  });
}

const VIEW = `query { node(id: "prv_1") { __typename id ... on PaymentRequestView { items(first: 20) { __typename
  edges { __typename cursor node { __typename id } } } } } }`;
const VIEW_FEED = `subscription($id: ID!) { viewEvents(viewId: $id) { __typename ... on Event { cursor }
  ... on ViewItemEntered { afterCursor view { __typename id } edge { __typename cursor node { __typename id } } }
  ... on ViewItemMoved { afterCursor view { __typename id } edge { __typename cursor node { __typename id } } }
  ... on ViewItemLeft { id view { __typename id } } } }`;
const row = (id, cursor = `c_${id}`) => ({ __typename: "PaymentRequestEdge", cursor, node: { __typename: "PaymentRequest", id } });
const viewed = () => ({
  node: { __typename: "PaymentRequestView", id: "prv_1", items: { __typename: "PaymentRequestConnection", edges: ["a", "b", "c"].map((id) => row(id)) } },
});

for (const [name, make] of Object.entries(libraries)) {
  test(`${name}: a view's items enter, move and leave where the server says`, async () => {
    send = async () => new Response(JSON.stringify({ data: viewed() }), { headers: { "content-type": "application/json" } });
    const client = make();
    let ids;
    client.follow(VIEW_FEED);
    client.watch(VIEW, {}, ({ node }) => (ids = node.items.edges.map((edge) => edge.node.id).join("")));
    await settle();
    assert.equal(ids, "abc");
    const view = { __typename: "PaymentRequestView", id: "prv_1" };
    const changes = [
      [{ __typename: "ViewItemEntered", afterCursor: "c_a", edge: row("d") }, "adbc"],
      [{ __typename: "ViewItemMoved", afterCursor: null, edge: row("c", "c_c2") }, "cadb"],
      [{ __typename: "ViewItemMoved", afterCursor: "c_b", edge: row("a", "c_a2") }, "cdba"],
      [{ __typename: "ViewItemLeft", id: "d" }, "cba"],
      [{ __typename: "ViewItemLeft", id: "unknown" }, "cba"],
      [{ __typename: "ViewItemMoved", afterCursor: "of a further page", edge: row("b") }, "ca"],
    ];
    for (const [change, expected] of changes) {
      sink.next({ data: { viewEvents: { cursor: "c", view, ...change } } });
      await settle();
      assert.equal(ids, expected);
    }
  });
}

test("without the kit both mix values or warn, which the tests above would see", async () => {
  const warned = mock.method(console, "warn", () => {});
  const errors = mock.method(console, "error", () => {});
  const subscriptions = subscriptionExchange({ forwardSubscription: (operation) => ({ subscribe: (given) => ({ unsubscribe: live.subscribe(operation, given) }) }) });
  const bare = new Client({
    url: "http://x", fetch: fetched, preferGetMethod: false,
    exchanges: [cacheExchange({ keys: { Money: () => null } }), subscriptions, fetchExchange],
  });
  let shown;
  bare.subscription(FEED, {}).subscribe(() => {});
  bare.query(SCREEN, { id: "pr_1" }).subscribe(({ data }) => (shown = data?.paymentRequest.amount));
  await settle();
  event(money("12.00"));
  await settle();
  assert.deepEqual([shown.amount, shown.formatted], ["12.00", "$10.00"]);
  reads = 0;
  const client = withApollo(new InMemoryCache());
  client.follow(FEED);
  client.watch(SCREEN, { id: "pr_1" }, () => {});
  await settle();
  event(money("10.00"));
  await settle();
  assert.equal(reads, 2);
  assert.ok(warned.mock.callCount() + errors.mock.callCount() > 0);
});

test("Relay: a value's id is its content, any other object's its own", () => {
  assert.equal(getDataID(money("1.00"), "Money"), getDataID(money("1.00"), "Money"));
  assert.notEqual(getDataID(money("1.00"), "Money"), getDataID(money("2.00"), "Money"));
  assert.equal(getDataID({ id: "pr_1" }, "PaymentRequest"), "pr_1");
  assert.equal(getDataID({ cursor: "c" }, "ThreadEdge"), undefined);
});
