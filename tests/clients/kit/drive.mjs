// Runs one example of the kit and reports what it shows: `node drive.mjs apollo|urql|relay|plain`. Commands come as lines of JSON,
// each answered by one line. It adds what a browser has: WebSocket; and what a test needs: counts of requests and warnings.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { format } from "node:util";
import { WebSocket } from "ws";

const [example, given] = [process.argv[2], JSON.parse(process.argv[3])];
const log = { warnings: [], reads: {}, codes: [] };
for (const level of ["warn", "error"]) console[level] = (...parts) => log.warnings.push(format(...parts));
process.on("unhandledRejection", (error) => log.warnings.push(`unhandled: ${error?.stack ?? error}`));

globalThis.WebSocket = class extends WebSocket {
  constructor(...parameters) {
    super(...parameters);
    this.on("close", (code) => log.codes.push(code));
  }
};
const plainFetch = globalThis.fetch;
globalThis.fetch = async (...parameters) => {
  for (let tries = 0; ; tries++) {
    try {
      const response = await plainFetch(...parameters);
      // Relay names an operation after its file.
      const name = /query (?:relayDocuments)?([A-Za-z]+?)(?:Query)?\b/.exec(JSON.parse(parameters[1].body).query)[1];
      if (response.ok) log.reads[name] = (log.reads[name] ?? 0) + 1;
      return response;
    } catch (error) {
      // A browser's user presses again; the server is away for a moment.
      if (tries === 50) throw error;
      await new Promise((done) => setTimeout(done, 100));
    }
  }
};

// The application's session: a token is renewed once, however many calls find out that it has ended.
const TOKENS = "accessToken refreshToken userErrors { message }";
let tokens;
let renewing;
async function ask(query, input) {
  const headers = { "content-type": "application/json" };
  const response = await plainFetch(given.url, { method: "POST", headers, body: JSON.stringify({ query, variables: { input } }) });
  const { data, errors } = await response.json();
  const [payload] = Object.values(data ?? {});
  if (!payload?.accessToken) throw Object.assign(new Error(JSON.stringify(errors ?? payload)), { refused: payload !== undefined });
  return payload;
}
const session = {
  start: async () => (tokens = await ask(`mutation($input: SignInInput!) { signIn(input: $input) { ${TOKENS} } }`, given.person)),
  renewals: 0,
  renew() {
    renewing ??= ask(`mutation($input: RefreshSessionInput!) { refreshSession(input: $input) { ${TOKENS} } }`, {
      refreshToken: tokens.refreshToken,
    })
      .then((payload) => ((tokens = payload), session.renewals++))
      .catch((error) => {
        if (!error.refused) throw error;
        // A cut took the answer of the last renewal, and a refresh token works once: the person signs in again.
        return session.start();
      })
      .finally(() => (renewing = undefined));
    return renewing;
  },
};
async function token(refused) {
  if (refused) await session.renew();
  return tokens.accessToken;
}

await session.start();
const { start } = await import(given.modules[example]);
const schema = JSON.parse(readFileSync(given.introspection, "utf8"));
const app = await start({ url: given.url, token, schema });
const shown = {};
const commands = {
  watch({ name, screen, variables }) {
    app.watch(screen, variables ?? {}, (data) => (shown[name] = data));
  },
  look: () => ({ shown, ...log, renewals: session.renewals }),
};
process.stdout.write(`${JSON.stringify({ ready: true })}\n`);
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...parameters } = JSON.parse(line);
  if (command === "close") break;
  process.stdout.write(`${JSON.stringify((await commands[command](parameters)) ?? {})}\n`);
}
app.close();
process.exit(0);
