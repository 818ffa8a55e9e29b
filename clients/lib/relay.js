import relay from "relay-runtime";
import { shape } from "../generated/shape.js";
import { applyEvent, valueKey } from "./events.js";
import { authorized } from "./live.js";
const HANDLE = /^__(.+)_connection(?:\((.*)\))?$/;
/** `new Environment({ network, store, getDataID })`: an object without id is identified by its content. */
export function getDataID(object, type) {
    return type in shape.values ? `${type}:${valueKey(type, object)}` : object["id"];
}
/** Queries and mutations over HTTP, subscriptions over the live socket. */
export function createNetwork({ url, token, live }) {
    const send = authorized(token, live);
    const overHttp = async ({ text, name }, variables) => {
        const body = JSON.stringify({ query: text, operationName: name, variables });
        const response = await send(url, { method: "POST", headers: { "content-type": "application/json" }, body });
        return (await response.json());
    };
    return relay.Network.create(overHttp, liveSubscriptions(live));
}
/** The second argument of Network.create. */
export function liveSubscriptions(live) {
    return (request, variables) => relay.Observable.create((sink) => live.subscribe({ query: request.text ?? "", operationName: request.name, variables }, sink));
}
/**
 * `requestSubscription(environment, { subscription, variables, updater: updater(environment, { variables }) })`.
 * It keeps every `@connection` in line. `onStale` gets the keys of connections to query again, because the server alone can
 * say what belongs to them; without it they are invalidated.
 */
export function updater(environment, { variables = {}, onStale } = {}) {
    return (source) => {
        const stale = new Set();
        for (const feed of shape.feeds) {
            const event = rootField(source, feed);
            if (event)
                applyEvent(storeOf(environment, source, onStale && stale), event, variables);
        }
        if (stale.size > 0)
            setTimeout(() => onStale(stale));
    };
}
// A feed that the operation does not select is no field of its selector.
function rootField(source, feed) {
    try {
        return source.getRootField(feed);
    }
    catch {
        return null;
    }
}
function storeOf(environment, source, stale) {
    return {
        type: (item) => item.getType(),
        key: (item) => item.getDataID(),
        value: (item, field) => item.getValue(field),
        object: (item, field) => item.getLinkedRecord(field) ?? undefined,
        find: (_, id) => source.get(id) ?? undefined,
        drop: (_, id) => source.delete(id),
        lists(parent, list, visit) {
            const record = parent ?? source.getRoot();
            const raw = environment.getStore().getSource().get(record.getDataID());
            for (const name of Object.keys(raw ?? {})) {
                const handle = HANDLE.exec(name);
                const connection = handle && record.getLinkedRecord(name);
                if (connection?.getType() === list.connection)
                    visit(new Connection(source, connection, list, handle, stale));
            }
        },
    };
}
class Connection {
    source;
    record;
    list;
    outdated;
    narrowed;
    key;
    constructor(source, record, list, [, key, given], outdated) {
        this.source = source;
        this.record = record;
        this.list = list;
        this.outdated = outdated;
        this.key = key;
        this.narrowed = (given ?? "").replace(/\w+:null,?/g, "") !== "";
    }
    get #edges() {
        return (this.record.getLinkedRecords("edges") ?? []).filter((edge) => edge !== null);
    }
    get nodes() {
        return this.#edges.map((edge) => edge.getLinkedRecord("node") ?? undefined);
    }
    get cursors() {
        return this.#edges.map((edge) => edge.getValue("cursor"));
    }
    get hasPrevious() {
        return this.#pageInfo("hasPreviousPage");
    }
    get hasNext() {
        return this.#pageInfo("hasNextPage");
    }
    get total() {
        return this.record.getValue("totalCount");
    }
    elsewhere() {
        return false;
    }
    insert(index, node, edge) {
        const { ConnectionHandler: handler } = relay;
        const made = edge
            ? handler.buildConnectionEdge(this.source, this.record, edge)
            : handler.createEdge(this.source, this.record, node, this.list.edge);
        if (made)
            this.#change((edges) => edges.splice(index, 0, made));
    }
    remove(index) {
        this.#change((edges) => edges.splice(index, 1));
    }
    move(from, to) {
        this.#change((edges) => edges.splice(to, 0, ...edges.splice(from, 1)));
    }
    count(total) {
        this.record.setValue(total, "totalCount");
    }
    stale() {
        if (this.outdated)
            this.outdated.add(this.key);
        else
            this.record.invalidateRecord();
    }
    #pageInfo(name) {
        return this.record.getLinkedRecord("pageInfo")?.getValue(name);
    }
    #change(change) {
        const edges = [...this.#edges];
        change(edges);
        this.record.setLinkedRecords(edges, "edges");
    }
}
