// urql with graphcache: one exchange for the cache and the subscriptions over the live socket.
import { composeExchanges, gql, subscriptionExchange } from "@urql/core";
import { cacheExchange } from "@urql/exchange-graphcache";
import { pipe, tap } from "wonka";
import { relayPagination } from "@urql/exchange-graphcache/extras";
import { shape } from "../generated/shape.js";
import { applyEvent, valueKey } from "./events.js";
/** `cacheExchange({ schema, ...cacheOptions() })`, for those who build the exchanges themselves; `schema` is introspection.json. */
export function cacheOptions() {
    const keys = {};
    const resolvers = {};
    const updates = { Subscription: {} };
    const edges = new Set(Object.values(shape.connections).map((list) => list.edge));
    for (const type of shape.keyless)
        keys[type] = edges.has(type) ? edgeKey : () => null;
    for (const type of Object.keys(shape.values))
        keys[type] = (value) => valueKey(type, value);
    for (const list of Object.values(shape.connections))
        (resolvers[list.parent] ??= {})[list.field] = relayPagination();
    for (const feed of shape.feeds) {
        updates["Subscription"][feed] = (result, args, cache, info) => {
            const event = result[info.fieldName];
            if (event)
                applyEvent(storeOf(cache), event, args);
        };
    }
    return { keys, resolvers, updates };
}
/** The cache and the subscriptions, in place of cacheExchange. If a feed can't be continued, what is on screen is queried again. */
export function liveCache({ live, ...own }) {
    const shown = new Map();
    const tracking = ({ client, forward }) => {
        live.resync ??= async () => {
            const again = ({ query, variables }) => client.query(query, variables, { requestPolicy: "network-only" }).toPromise();
            await Promise.all([...shown.values()].map(again));
        };
        const track = (operation) => {
            if (operation.kind === "query")
                shown.set(operation.key, operation);
            if (operation.kind === "teardown")
                shown.delete(operation.key);
        };
        return (operations) => forward(pipe(operations, tap(track)));
    };
    const subscriptions = subscriptionExchange({
        forwardSubscription: ({ query, variables }) => ({
            subscribe: (sink) => ({ unsubscribe: live.subscribe({ query: query ?? "", variables: variables }, sink) }),
        }),
    });
    return composeExchanges([tracking, cacheExchange({ ...cacheOptions(), ...own }), subscriptions]);
}
// An edge's place in a list is its cursor; an edge without one is its node's.
const edgeKey = (edge) => {
    const { cursor, node } = edge;
    return cursor ?? node?.id ?? null;
};
function storeOf(cache) {
    const read = (item, field) => typeof item === "string" ? cache.resolve(item, field) : item[field];
    return {
        type: (item) => read(item, "__typename"),
        key: (item) => cache.keyOfEntity(item) ?? undefined,
        value: read,
        object: (item, field) => read(item, field) ?? undefined,
        find: (type, id) => cache.keyOfEntity({ __typename: type, id }) ?? undefined,
        drop: (type, id) => cache.invalidate({ __typename: type, id }),
        lists(parent, list, visit) {
            const key = parent ? cache.keyOfEntity(parent) : "Query";
            const pages = key ? cache.inspectFields(key).filter(({ fieldName }) => fieldName === list.field) : [];
            for (const page of pages) {
                if (page.arguments?.["after"] || page.arguments?.["before"])
                    continue;
                const held = key && Page.of(cache, key, page, pages, list);
                if (held)
                    visit(held);
            }
        },
    };
}
class Page {
    cache;
    parent;
    field;
    pages;
    list;
    key;
    narrowed;
    constructor(cache, parent, field, pages, list, key) {
        this.cache = cache;
        this.parent = parent;
        this.field = field;
        this.pages = pages;
        this.list = list;
        this.key = key;
        this.narrowed = list.keyArgs.some((name) => (field.arguments?.[name] ?? null) !== null);
    }
    static of(cache, parent, field, pages, list) {
        const key = cache.resolve(parent, field.fieldKey);
        return typeof key === "string" ? new Page(cache, parent, field, pages, list, key) : null;
    }
    get #edges() {
        return this.cache.resolve(this.key, "edges");
    }
    get nodes() {
        const edges = this.#edges;
        if (edges)
            return edges.map((edge) => this.cache.resolve(edge, "node"));
        return this.cache.resolve(this.key, "nodes") ?? [];
    }
    get cursors() {
        return (this.#edges ?? []).map((edge) => this.cache.resolve(edge, "cursor"));
    }
    get hasPrevious() {
        return this.#pageInfo("hasPreviousPage");
    }
    get hasNext() {
        return this.#pageInfo("hasNextPage");
    }
    get total() {
        return this.cache.resolve(this.key, "totalCount");
    }
    elsewhere(key) {
        return this.pages.some((field) => {
            const page = field !== this.field && Page.of(this.cache, this.parent, field, [], this.list);
            return page && page.nodes.includes(key);
        });
    }
    insert(index, node, edge) {
        const key = this.cache.keyOfEntity(node);
        this.#change((nodes) => nodes.splice(index, 0, key), (edges) => edges.splice(index, 0, this.#edgeOf(key, edge)));
    }
    remove(index) {
        this.#change((nodes) => nodes.splice(index, 1));
    }
    move(from, to) {
        this.#change((items) => items.splice(to, 0, ...items.splice(from, 1)));
    }
    count(totalCount) {
        const type = this.cache.resolve(this.parent, "__typename") ?? "Query";
        const id = this.parent.slice(`${type}:`.length);
        const given = Object.entries(this.field.arguments ?? {}).map(([name, value]) => `${name}: ${literal(value)}`);
        const call = `${this.field.fieldName}${given.length > 0 ? `(${given.join(", ")})` : ""}`;
        const page = { __typename: this.list.connection, totalCount };
        const fragment = gql(`fragment Count on ${type} { ${call} { __typename totalCount } }`);
        this.cache.writeFragment(fragment, { __typename: type, id, [this.field.fieldName]: page });
    }
    stale() {
        this.cache.invalidate(this.parent, this.field.fieldName, this.field.arguments);
    }
    #pageInfo(name) {
        const info = this.cache.resolve(this.key, "pageInfo");
        return typeof info === "string" ? this.cache.resolve(info, name) : undefined;
    }
    #edgeOf(node, edge) {
        if (edge)
            return this.cache.keyOfEntity(edge);
        const type = this.cache.resolve(node, "__typename");
        const made = { __typename: this.list.edge, node: { __typename: type, id: node.slice(type.length + 1) } };
        this.cache.writeFragment(gql(`fragment Row on ${this.list.edge} { __typename node { __typename id } }`), made);
        return this.cache.keyOfEntity(made);
    }
    #change(ofNodes, ofEdges = ofNodes) {
        for (const [field, change] of [["nodes", ofNodes], ["edges", ofEdges]]) {
            const items = this.cache.resolve(this.key, field);
            if (!Array.isArray(items))
                continue;
            const changed = [...items];
            change(changed);
            this.cache.link(this.key, field, changed);
        }
    }
}
function literal(value) {
    if (Array.isArray(value))
        return `[${value.map(literal).join(", ")}]`;
    if (typeof value !== "object" || value === null)
        return JSON.stringify(value);
    return `{${Object.entries(value).map(([name, part]) => `${name}: ${literal(part)}`).join(", ")}}`;
}
