// One WebSocket (graphql-transport-ws) for all live feeds. It needs nothing but a WebSocket.
/** The subscriptions can't go on: the session is over, the token stays refused, or the client broke the protocol. */
export class LiveClosed extends Error {
    code;
    constructor(code, reason) {
        super(reason || `closed with ${code}`);
        this.code = code;
    }
}
const NO_TOKEN = 1006;
const REFUSED = 4403;
const TOO_MANY_MESSAGES = 1008;
const BUSY = [1012, 1013];
// Bugs of the client: a repeat would end in the same way.
const FATAL = [4400, 4401, 4406, 4409, 4429];
const PASSING = ["RATE_LIMITED", "SERVICE_UNAVAILABLE"];
const MAX_REFUSALS = 3;
const STABLE_MS = 2_000;
const PING_MS = 20_000;
const ANSWER_MS = 8_000;
const SPREAD_MS = 2_000;
const IDLE_MS = 500;
const KEPT_CURSORS = 1_000;
const MAX_REPEATS = 2;
export function createLive(options) {
    const maxWait = options.maxWait ?? 10_000;
    const feeds = new Map();
    let socket;
    let opening = false;
    let ready = false;
    let readyAt = 0;
    let attempts = 0;
    let refusals = 0;
    let closed = false;
    let ids = 0;
    let events = 0;
    let retry;
    let idle;
    let answer;
    let reloading;
    let status = "idle";
    const report = (next) => {
        if (next !== status)
            options.onStatus?.((status = next));
    };
    const send = (message) => socket?.send(JSON.stringify(message));
    // Half of the wait is random, so that clients that were cut together come back one by one.
    const wait = (attempt) => Math.min(maxWait, 250 * 2 ** attempt) * (0.5 + Math.random() / 2);
    async function open() {
        clearTimeout(retry);
        retry = undefined;
        if (socket || opening || closed || feeds.size === 0)
            return;
        opening = true;
        report("connecting");
        try {
            const token = await options.token(refusals > 0);
            opening = false;
            if (!closed && feeds.size > 0)
                connect(token);
        }
        catch (error) {
            opening = false;
            // Without a network a token can't be renewed either.
            if (error instanceof LiveClosed)
                failAll(error);
            else
                lost(NO_TOKEN, String(error));
        }
    }
    function connect(token) {
        const made = (socket = new (options.WebSocket ?? WebSocket)(options.url, "graphql-transport-ws"));
        const current = (run) => (event) => made === socket && run(event);
        made.onopen = current(() => send({ type: "connection_init", payload: { Authorization: `Bearer ${token}` } }));
        made.onmessage = current(({ data }) => received(JSON.parse(data)));
        made.onclose = current(({ code, reason }) => lost(code, reason));
        made.onerror = () => { }; // A close follows.
        expectAnswer();
    }
    function received(message) {
        expectSilence();
        if (message.type === "ping")
            send({ type: "pong" });
        if (message.type === "connection_ack") {
            ready = true;
            readyAt = Date.now();
            refusals = 0;
            report("open");
            for (const feed of feeds.values())
                if (!feed.held)
                    start(feed);
        }
        const feed = feeds.get(message.id ?? "");
        if (!feed)
            return;
        if (message.type === "next")
            next(feed, message.payload);
        if (message.type === "error")
            failed(feed, message.payload);
        if (message.type === "complete" && end(feed))
            feed.sink.complete();
    }
    function start(feed) {
        const { id, request, resumes, after } = feed;
        feed.before = { cursors: new Set(feed.seen), cursor: after, newest: new Set(feed.newest.map((one) => JSON.stringify(one))) };
        const variables = resumes ? { ...request.variables, after } : request.variables;
        send({ type: "subscribe", id, payload: { ...request, variables } });
    }
    function next(feed, result) {
        const event = result.data ? Object.values(result.data)[0] : null;
        feed.attempts = 0;
        if (feed.resumes && event?.__typename === "ResyncRequired" && live.resync)
            return resync(feed, event);
        if (feed.resumes && event?.cursor) {
            if (event.__typename !== "Subscribed") {
                if (isRepeated(feed, event, event.cursor))
                    return;
                feed.newest = feed.after === event.cursor ? [...feed.newest, event] : [event];
                feed.seen.add(event.cursor);
                if (feed.seen.size > KEPT_CURSORS)
                    feed.seen.delete(feed.seen.values().next().value);
                events++;
            }
            feed.after = event.cursor;
        }
        feed.sink.next(result);
    }
    function isRepeated({ before }, event, cursor) {
        if (!before.cursors.has(cursor))
            return false;
        return cursor !== before.cursor || before.newest.has(JSON.stringify(event));
    }
    function failed(feed, errors) {
        if (PASSING.includes(errors[0]?.extensions?.code ?? "")) {
            hold(feed, new Promise((done) => setTimeout(done, wait(feed.attempts++))));
        }
        else if (end(feed))
            feed.sink.error(errors);
    }
    // A new id: what is still on its way for the old one is ignored.
    function hold(feed, until) {
        feeds.delete(feed.id);
        feed.id = `${++ids}`;
        feed.held = true;
        feeds.set(feed.id, feed);
        void until.then(() => {
            if (feeds.get(feed.id) !== feed)
                return;
            feed.held = false;
            if (ready)
                start(feed);
        });
    }
    function resync(feed, event) {
        feed.seen.clear();
        feed.newest = [];
        // Feeds of one account share its log: one new load serves all of them.
        reloading ??= reload(event).finally(() => (reloading = undefined));
        hold(feed, reloading.then((cursor) => (feed.after = cursor)));
    }
    async function reload(event) {
        for (let attempt = 0;; attempt++) {
            try {
                return (await live.resync(event)) || event.cursor;
            }
            catch {
                await new Promise((done) => setTimeout(done, wait(attempt)));
            }
        }
    }
    /** Whether it was followed until now. */
    function end(feed) {
        const was = feeds.get(feed.id) === feed && feeds.delete(feed.id);
        if (feeds.size > 0)
            return was;
        clearTimeout(retry);
        clearTimeout(idle);
        retry = undefined;
        // Another feed may follow soon.
        idle = setTimeout(() => {
            drop();
            report("idle");
        }, IDLE_MS);
        return was;
    }
    function failAll(error) {
        drop();
        const failing = [...feeds.values()];
        feeds.clear();
        report("idle");
        for (const { sink } of failing)
            sink.error(error);
    }
    function drop() {
        const old = socket;
        socket = undefined;
        ready = false;
        for (const timer of [answer, retry, idle])
            clearTimeout(timer);
        retry = undefined;
        old?.close(1000);
    }
    function lost(code, reason) {
        const lived = ready ? Date.now() - readyAt : 0;
        if (lived > STABLE_MS)
            attempts = 0;
        drop();
        if (code === REFUSED)
            refusals++;
        if (FATAL.includes(code) || refusals > MAX_REFUSALS)
            return failAll(new LiveClosed(code, reason));
        if (feeds.size === 0)
            return report("idle");
        report("waiting");
        const offline = globalThis.navigator?.onLine === false;
        const spread = BUSY.includes(code) ? Math.random() * SPREAD_MS : 0;
        const ended = code === REFUSED && (attempts === 0 || lived > STABLE_MS);
        const usual = spread + wait(attempts++);
        retry = setTimeout(open, offline || code === TOO_MANY_MESSAGES ? maxWait : ended ? 0 : usual);
    }
    // A connection that a network has forgotten is never closed: without an answer it counts as lost.
    function expectAnswer() {
        clearTimeout(answer);
        answer = setTimeout(() => lost(1006, "no answer"), ANSWER_MS);
    }
    function expectSilence() {
        clearTimeout(answer);
        answer = setTimeout(probe, PING_MS);
    }
    function probe() {
        if (!ready)
            return;
        send({ type: "ping" });
        expectAnswer();
    }
    const wake = () => (ready ? probe() : void open());
    globalThis.addEventListener?.("online", wake);
    globalThis.addEventListener?.("offline", probe);
    const live = {
        resync: options.resync?.bind(options),
        get events() {
            return events;
        },
        subscribe(request, sink) {
            const resumes = /\$after\b/.test(request.query);
            const after = request.variables?.["after"];
            const before = { cursors: new Set(), cursor: after, newest: new Set() };
            const feed = { id: `${++ids}`, request, sink, resumes, after, seen: new Set(), newest: [], before, attempts: 0, held: false };
            // A query or mutation would be repeated on each reconnect.
            if (closed || !/\bsubscription\b/.test(request.query)) {
                sink.error(new LiveClosed(0, closed ? "closed" : "Only subscriptions: send queries and mutations over HTTP"));
                return () => { };
            }
            clearTimeout(idle);
            feeds.set(feed.id, feed);
            if (ready)
                start(feed);
            else if (!retry)
                void open();
            return () => {
                const { id, held } = feed;
                if (end(feed) && ready && !held)
                    send({ type: "complete", id });
            };
        },
        close() {
            closed = true;
            globalThis.removeEventListener?.("online", wake);
            globalThis.removeEventListener?.("offline", probe);
            drop();
            const ending = [...feeds.values()];
            feeds.clear();
            report("closed");
            for (const { sink } of ending)
                sink.complete();
        },
    };
    return live;
}
/**
 * fetch with the access token. A token that is refused is replaced, once. With `live`, a query during which events arrived is
 * repeated (twice at most): its answer may be older than what they wrote into the cache.
 */
export function authorized(token, live, send = fetch) {
    return async (input, init) => {
        const attempt = async (refused) => {
            const headers = new Headers(init?.headers);
            headers.set("authorization", `Bearer ${await token(refused)}`);
            return send(input, { ...init, headers });
        };
        const repeatable = live && !/\bmutation\b/.test(String(init?.body));
        for (let repeats = 0;; repeats++) {
            const before = live?.events;
            let response = await attempt(false);
            if (response.status === 401)
                response = await attempt(true);
            if (!repeatable || live.events === before || repeats === MAX_REPEATS || !response.ok)
                return response;
            await response.body?.cancel();
        }
    };
}
