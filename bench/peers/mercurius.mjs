// Fastify and mercurius, as their documentation shows. `--jit` compiles a query after its first execution.
import Fastify from "fastify";
import mercurius from "mercurius";
import { card, port, resolvers, typeDefs, webhook } from "./common.mjs";

const app = Fastify();
app.register(mercurius, {
  schema: typeDefs,
  resolvers: {
    ...resolvers,
    Subscription: { cardAdded: { subscribe: (_root, _args, { pubsub }) => pubsub.subscribe("card") } },
  },
  subscription: true,
  jit: process.argv.includes("--jit") ? 1 : 0,
});
app.register(async (raw) => {
  raw.removeAllContentTypeParsers();
  raw.addContentTypeParser("application/json", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
  raw.post("/webhooks/stripe", async (request, reply) => {
    reply.code(await webhook(request.body, request.headers["stripe-signature"]));
    return "ok";
  });
});
app.post("/trigger", async () => {
  await app.graphql.pubsub.publish({ topic: "card", payload: { cardAdded: card() } });
  return "ok";
});
await app.listen({ port, host: "127.0.0.1", backlog: 2048 });
