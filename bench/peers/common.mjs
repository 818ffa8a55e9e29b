// What all Node peers share: the schema, the rows, the signed webhook. PORT, DATABASE_URL and WEBHOOK_SECRET come from the environment.
import { DatabaseSync } from "@photostructure/sqlite";
import pg from "pg";
import Stripe from "stripe";

export const port = Number(process.env.PORT);
const stripe = new Stripe("sk_test_bench");

export const typeDefs = /* GraphQL */ `
  type Message { id: ID! body: String! direction: String! channel: String! status: String! at: String! }
  type Card { id: ID! kind: String! status: String! title: String! amountMinor: Int! currency: String! at: String! }
  union ThreadItem = Message | Card
  type Conversation { id: ID! thread(first: Int = 50): [ThreadItem!]! }
  type Query { conversation(id: ID!): Conversation }
  type Subscription { cardAdded: Card! }
`;

export const card = () => ({
  id: "1",
  kind: "PAYMENT_PROCESSING",
  status: "PROCESSING",
  title: "bench-card",
  amountMinor: 12500,
  currency: "USD",
  at: new Date().toISOString(),
});

const THREAD = `SELECT id, kind, body, direction, channel, status, title, amount_minor AS "amountMinor", currency, at
  FROM thread_item WHERE conversation_id = $1 ORDER BY id LIMIT $2`;
const EVENT = "INSERT INTO webhook_event (id, type, received_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
const PAID = "UPDATE invoice SET status = 'paid', paid_at = $1 WHERE id = $2 AND status = 'sent'";
const CARD = "INSERT INTO activity_card (id, invoice_id, kind, title, amount_minor, currency, at) VALUES ($1, $2, 'PAID', 'Deep clean', $3, $4, $5)";

function sqlite(path) {
  const database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
  const prepare = (text) => database.prepare(text.replace(/\$\d/g, "?"));
  const [one, thread, event, paid, log] = ["SELECT id FROM conversation WHERE id = $1", THREAD, EVENT, PAID, CARD].map(prepare);
  return {
    conversation: (id) => one.get(id) ?? null,
    thread: (id, first) => thread.all(id, first),
    record(type, id, invoice, amount, currency, now) {
      database.exec("BEGIN IMMEDIATE");
      try {
        if (event.run(id, type, now).changes) {
          paid.run(now, invoice);
          log.run(`card_${id}`, invoice, amount, currency, now);
        }
        database.exec("COMMIT");
      } catch (error) {
        database.exec("ROLLBACK");
        throw error;
      }
    },
  };
}

function postgres(url) {
  const pool = new pg.Pool({ connectionString: url, max: 10 });
  const rows = async (name, text, values) => (await pool.query({ name, text, values })).rows;
  return {
    conversation: async (id) => (await rows("one", "SELECT id FROM conversation WHERE id = $1", [id]))[0] ?? null,
    thread: (id, first) => rows("thread", THREAD, [id, first]),
    async record(type, id, invoice, amount, currency, now) {
      const client = await pool.connect();
      try {
        await client.query("BEGIN");
        const added = await client.query({ name: "event", text: EVENT, values: [id, type, now] });
        if (added.rowCount) {
          await client.query({ name: "paid", text: PAID, values: [now, invoice] });
          await client.query({ name: "card", text: CARD, values: [`card_${id}`, invoice, amount, currency, now] });
        }
        await client.query("COMMIT");
      } catch (error) {
        await client.query("ROLLBACK");
        throw error;
      } finally {
        client.release();
      }
    },
  };
}

const url = process.env.DATABASE_URL ?? "";
export const store = url.startsWith("sqlite") ? sqlite(url.slice("sqlite:///".length)) : url ? postgres(url) : null;

export const resolvers = {
  Query: { conversation: (_, { id }) => store.conversation(id) },
  Conversation: {
    thread: async ({ id }, { first }) => {
      const rows = await store.thread(id, first);
      for (const row of rows) row.__typename = row.kind === "MESSAGE" ? "Message" : "Card";
      return rows;
    },
  },
};

// Verifies, deduplicates and commits; returns the status.
export async function webhook(body, signature) {
  let event;
  try {
    event = stripe.webhooks.constructEvent(body, signature, process.env.WEBHOOK_SECRET);
  } catch {
    return 400;
  }
  const session = event.data.object;
  const { payment_request_id: invoice } = session.metadata;
  await store.record(event.type, event.id, invoice, session.amount_total, session.currency, new Date().toISOString());
  return 200;
}
