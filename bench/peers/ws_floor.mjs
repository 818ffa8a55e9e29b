// The floor of fan-out: ws, one constant text, one loop over all sockets. No GraphQL.
import { createServer } from "node:http";
import { WebSocketServer } from "ws";

const data = { cardAdded: { id: "1", kind: "PAYMENT_PROCESSING", status: "PROCESSING", title: "bench-card", amountMinor: 12500, currency: "USD", at: "2026-01-01T00:00:00.000Z" } };
const text = JSON.stringify({ id: "1", type: "next", payload: { data } });
const sockets = new Set();
const server = createServer((request, response) => {
  request.resume();
  if (request.url === "/trigger") for (const socket of sockets) socket.send(text);
  response.end("{}");
});
new WebSocketServer({ server, path: "/graphql" }).on("connection", (socket) => {
  socket.on("message", (message) => {
    const { type } = JSON.parse(message);
    if (type === "connection_init") socket.send('{"type":"connection_ack"}');
    else if (type === "ping") socket.send('{"type":"pong"}');
    else sockets.add(socket);
  });
  socket.on("close", () => sockets.delete(socket));
});
server.listen(Number(process.env.PORT), "127.0.0.1", 2048);
