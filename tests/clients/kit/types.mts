// A program with the kit's types, as tsc --strict must accept it in a project that has none of the libraries.
import { createLive, LiveClosed, type Live, type LiveSink } from "paythread-client";
import { shape } from "paythread-client/shape";

interface Inbox {
  inboxEvents: { __typename: string; cursor: string };
}
const sink: LiveSink<Inbox> = {
  next: ({ data }) => void data?.inboxEvents.cursor.length,
  error: (error) => void (error instanceof LiveClosed && error.code.toFixed()),
  complete() {},
};
const live: Live = createLive({ url: "wss://pay.example/graphql", token: async (refused: boolean) => (refused ? "b" : "a") });
const stop: () => void = live.subscribe<Inbox>({ query: "subscription { inboxEvents { cursor } }", variables: { after: null } }, sink);
stop();
live.close();
export const types: string[] = shape.possibleTypes["Node"] ?? [];
// @ts-expect-error a token is a text
createLive({ url: "", token: () => 1 });
