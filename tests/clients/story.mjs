// One story for every client library: load, subscribe, create, lose the connection, resume, outlive the token.
// The client under test is an adapter; what it is compared with goes over plain fetch. Prints one line of JSON.
import { WebSocket as NodeSocket } from "ws";

export const given = JSON.parse(process.env.STORY);
export const url = given.url;
const WAIT_MS = 20_000;

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

// ------------------------------------------------------------------------------------------------------------- network
export const log = { codes: [], statuses: [], types: [] };
const cuts = new Set();

/** Lose every connection that is open, as a phone in a lift does. */
export function cut() {
  for (const end of [...cuts]) end();
  cuts.clear();
}

globalThis.WebSocket = class extends NodeSocket {
  constructor(...parameters) {
    super(...parameters);
    const end = () => this.terminate();
    cuts.add(end);
    this.on("close", (code) => {
      cuts.delete(end);
      log.codes.push(code);
    });
  }
};

/** fetch with its statuses and types noted, and event streams that can be cut. */
export async function fetched(...parameters) {
  const response = await fetch(...parameters);
  const type = response.headers.get("content-type")?.split(";")[0];
  log.statuses.push(response.status);
  log.types.push(type);
  if (type !== "text/event-stream") return response;
  const reader = response.body.getReader();
  let end;
  const body = new ReadableStream({
    start(controller) {
      end = () => {
        controller.error(new TypeError("terminated"));
        reader.cancel().catch(() => {});
      };
      cuts.add(end);
    },
    async pull(controller) {
      const { done, value } = await reader.read().catch(() => ({ done: true }));
      if (!cuts.has(end)) return;
      if (!done) return controller.enqueue(value);
      cuts.delete(end);
      controller.close();
    },
    cancel: () => reader.cancel(),
  });
  return new Response(body, { status: response.status, headers: response.headers });
}

/** An operation as any program sends it, with the key of an integration, which does not expire. */
export async function plainly(query, variables, token = given.apiKey) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify({ query, variables }) });
  const { data, errors } = await response.json();
  if (errors) throw new Error(JSON.stringify(errors));
  return data;
}

// -------------------------------------------------------------------------------------------------------------- tokens
const TOKENS = "{ accessToken accessTokenExpiresAt refreshToken userErrors { code message } }";

/** A sign-in. `token` is used until the server refuses it, `fresh()` renews one that is about to end. */
export class Session {
  renewals = 0;

  async start() {
    const document = `mutation($input: SignInInput!) { signIn(input: $input) ${TOKENS} }`;
    this.#take((await plainly(document, { input: given.person }, null)).signIn);
    return this;
  }

  renew() {
    // A refresh token works once: callers at the same time share one renewal.
    this.renewing ??= this.#renew().finally(() => (this.renewing = undefined));
    return this.renewing;
  }

  async #renew() {
    const document = `mutation($input: RefreshSessionInput!) { refreshSession(input: $input) ${TOKENS} }`;
    this.#take((await plainly(document, { input: { refreshToken: this.refreshToken } }, null)).refreshSession);
    this.renewals += 1;
  }

  #take({ accessToken, accessTokenExpiresAt, refreshToken }) {
    Object.assign(this, { token: accessToken, endsAt: Date.parse(accessTokenExpiresAt), refreshToken });
  }

  async fresh() {
    if (this.endsAt - Date.now() < 1_000) await this.renew();
    return this.token;
  }
}

export const http = await new Session().start();
export const socketSession = await new Session().start();

// ----------------------------------------------------------------------------------------------------------- the guide
/** The guide's code for sockets, as it is pasted: gives `socket` and `resuming`. */
export function guide(createClient) {
  const code = new Function("createClient", "url", "freshToken", "sleep", `${given.code}\nreturn { socket, resuming };`);
  return code(createClient, url.replace("http", "ws"), () => socketSession.fresh(), sleep);
}

// ----------------------------------------------------------------------------------------------------------- the story
export const LOAD = `query Load($id: ID!) { conversation(id: $id) { id eventCursor contact { id name } } }`;
export const CREATE = `mutation Create($input: CreatePaymentRequestInput!) { createPaymentRequest(input: $input) {
  paymentRequest { id number status } userErrors { code message } } }`;
export const EVENTS = `subscription Events($id: ID!, $after: Cursor) { conversationEvents(conversationId: $id, after: $after) {
  __typename ... on Subscribed { cursor } ... on ResyncRequired { cursor }
  ... on PaymentRequestUpdated { cursor paymentRequest { id number status } } } }`;

const input = (key) => ({
  input: { idempotencyKey: `${given.client}-${key}`, for: { contactId: given.contact }, productName: key, amount: { amount: "12.00" } },
});

async function until(what, holds) {
  for (const start = Date.now(); !holds(); await sleep(20)) {
    if (Date.now() - start > WAIT_MS) throw new Error(`waited in vain for ${what}`);
  }
}

function bare(value) {
  if (Array.isArray(value)) return value.map(bare);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(
    Object.keys(value).filter((name) => name !== "__typename").sort().map((name) => [name, bare(value[name])]),
  );
}

/** `client`: query and mutate give the data or throw; subscribe calls back with each event's data; more: further checks. */
export async function story(client) {
  const id = given.conversation;
  const loaded = (await client.query(LOAD, { id })).conversation;
  const seen = [];
  const failures = [];
  const stop = client.subscribe(
    EVENTS,
    { id, after: loaded.eventCursor },
    (data) => seen.push(data.conversationEvents),
    (error) => failures.push(String(error?.message ?? JSON.stringify(error))),
  );
  const numbers = () => seen.filter((event) => event.paymentRequest).map((event) => event.paymentRequest.number);
  const starts = () => seen.filter((event) => event.__typename === "Subscribed").length;
  const untilSeen = (number) => until(number, () => numbers().includes(number));
  await until("the subscription", () => starts() === 1);

  const first = (await client.mutate(CREATE, input("first"))).createPaymentRequest.paymentRequest;
  await untilSeen(first.number);

  cut();
  const second = (await plainly(CREATE, input("second"))).createPaymentRequest.paymentRequest;
  await untilSeen(second.number);

  await until("the subscription after the end of the token", () => starts() > 2);
  const third = (await plainly(CREATE, input("third"))).createPaymentRequest.paymentRequest;
  await untilSeen(third.number);

  await until("the end of the other token", () => Date.now() > http.endsAt + 100);
  const again = (await client.mutate(CREATE, input("first"))).createPaymentRequest.paymentRequest;
  const differing = [];
  for (const { query, variables } of given.documents) {
    const [told, expected] = [await client.query(query, variables), await plainly(query, variables)];
    if (JSON.stringify(bare(told)) !== JSON.stringify(bare(expected))) differing.push({ query, told, expected });
  }
  await client.more?.();
  stop();
  await sleep(50);

  console.log(
    JSON.stringify({
      contact: loaded.contact.name,
      numbers: numbers().map((number) => [first, second, third].findIndex((request) => request.number === number)),
      closed: [...new Set(log.codes)].sort(),
      same: again.id === first.id,
      differing,
      failures,
      renewed: socketSession.renewals + http.renewals > 0,
      refused: log.statuses.includes(401),
      types: [...new Set(log.types)].sort(),
    }),
  );
  process.exit(0);
}
