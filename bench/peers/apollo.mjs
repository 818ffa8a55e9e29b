// Apollo Server, Express and graphql-ws, as their documentation shows.
import { createServer } from "node:http";
import { ApolloServer } from "@apollo/server";
import { ApolloServerPluginDrainHttpServer } from "@apollo/server/plugin/drainHttpServer";
import { expressMiddleware } from "@as-integrations/express5";
import { makeExecutableSchema } from "@graphql-tools/schema";
import express from "express";
import { PubSub } from "graphql-subscriptions";
import { useServer } from "graphql-ws/use/ws";
import { WebSocketServer } from "ws";
import { card, port, resolvers, typeDefs, webhook } from "./common.mjs";

const pubSub = new PubSub();
pubSub.ee.setMaxListeners(0);
const schema = makeExecutableSchema({
  typeDefs,
  resolvers: { ...resolvers, Subscription: { cardAdded: { subscribe: () => pubSub.asyncIterableIterator(["card"]) } } },
});
const app = express();
const httpServer = createServer(app);
useServer({ schema }, new WebSocketServer({ server: httpServer, path: "/graphql" }));
const server = new ApolloServer({ schema, plugins: [ApolloServerPluginDrainHttpServer({ httpServer })] });
await server.start();

app.post("/webhooks/stripe", express.raw({ type: "application/json" }), async (request, response) => {
  response.status(await webhook(request.body, request.headers["stripe-signature"])).send("ok");
});
app.post("/trigger", (_request, response) => {
  pubSub.publish("card", { cardAdded: card() });
  response.send("ok");
});
app.use("/graphql", express.json(), expressMiddleware(server));
httpServer.listen(port, "127.0.0.1", 2048);
