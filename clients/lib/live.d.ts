export type LiveStatus = "idle" | "connecting" | "open" | "waiting" | "closed";
export interface LiveEvent {
    __typename?: string;
    cursor?: string;
}
export interface LiveRequest {
    query: string;
    operationName?: string | null | undefined;
    variables?: Record<string, unknown> | null | undefined;
    extensions?: Record<string, unknown> | null | undefined;
}
export interface LiveResult<Data = any> {
    data?: Data | null;
    errors?: readonly {
        message: string;
        extensions?: Record<string, unknown>;
    }[];
    extensions?: Record<string, unknown>;
}
export interface LiveSink<Data = any> {
    next(result: LiveResult<Data>): void;
    error(error: unknown): void;
    complete(): void;
}
export interface LiveOptions {
    /** ws:// or wss://. */
    url: string;
    /**
     * The access token; called for each connection. `refused`: the server did not accept the last one, get another.
     * If it throws, it is called again later; throw a LiveClosed to end all subscriptions.
     */
    token(refused: boolean): string | Promise<string>;
    /** A feed can't be continued: query everything again. It goes on after the cursor that you return, else after the event's. */
    resync?(event: LiveEvent): Resynced;
    onStatus?(status: LiveStatus): void;
    /** For an environment without a global WebSocket. */
    WebSocket?: new (url: string, protocol: string) => WebSocket;
    /** The longest wait between two attempts, in milliseconds; 10,000 if left out. */
    maxWait?: number;
}
export type Resynced = string | void | Promise<string | void>;
export interface Live {
    /** As of the options; a library's adapter may set it. */
    resync: ((event: LiveEvent) => Resynced) | undefined;
    /** How many events have arrived. */
    readonly events: number;
    /** Follow a subscription until the returned function is called. Declare `$after`, and select `cursor` in each event. */
    subscribe<Data = any>(request: LiveRequest, sink: LiveSink<Data>): () => void;
    /** Complete all subscriptions and close the socket. */
    close(): void;
}
/** The subscriptions can't go on: the session is over, the token stays refused, or the client broke the protocol. */
export declare class LiveClosed extends Error {
    readonly code: number;
    constructor(code: number, reason: string);
}
export declare function createLive(options: LiveOptions): Live;
/**
 * fetch with the access token. A token that is refused is replaced, once. With `live`, a query during which events arrived is
 * repeated (twice at most): its answer may be older than what they wrote into the cache.
 */
export declare function authorized(token: LiveOptions["token"], live?: Live, send?: typeof fetch): typeof fetch;
