// graphql-yoga and graphql-ws, as their documentation shows. `--cache` adds yoga's own answer cache.
import { createServer } from "node:http";
import { useResponseCache } from "@graphql-yoga/plugin-response-cache";
import { useServer } from "graphql-ws/use/ws";
import { createPubSub, createSchema, createYoga } from "graphql-yoga";
import { WebSocketServer } from "ws";
import { card, port, resolvers, typeDefs, webhook } from "./common.mjs";

const pubSub = createPubSub();
const yoga = createYoga({
  schema: createSchema({
    typeDefs,
    resolvers: {
      ...resolvers,
      Subscription: { cardAdded: { subscribe: () => pubSub.subscribe("card"), resolve: (value) => value } },
    },
  }),
  logging: false,
  graphiql: false,
  plugins: process.argv.includes("--cache") ? [useResponseCache({ session: () => null })] : [],
});

const server = createServer((request, response) => {
  if (request.url === "/webhooks/stripe") {
    const parts = [];
    request.on("data", (part) => parts.push(part));
    request.on("end", async () => {
      response.statusCode = await webhook(Buffer.concat(parts), request.headers["stripe-signature"]);
      response.end("ok");
    });
  } else if (request.url === "/trigger") {
    request.resume();
    pubSub.publish("card", card());
    response.end("ok");
  } else {
    yoga(request, response);
  }
});

useServer(
  {
    execute: (args) => args.rootValue.execute(args),
    subscribe: (args) => args.rootValue.subscribe(args),
    onSubscribe: async (context, _id, params) => {
      const { schema, execute, subscribe, contextFactory, parse, validate } = yoga.getEnveloped({
        ...context,
        req: context.extra.request,
        socket: context.extra.socket,
        params,
      });
      const args = {
        schema,
        operationName: params.operationName,
        document: parse(params.query),
        variableValues: params.variables,
        contextValue: await contextFactory(),
        rootValue: { execute, subscribe },
      };
      const errors = validate(args.schema, args.document);
      return errors.length ? errors : args;
    },
  },
  new WebSocketServer({ server, path: "/graphql" }),
);
server.listen(port, "127.0.0.1", 2048);
