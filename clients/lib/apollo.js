import { ApolloLink } from "@apollo/client";
import { print, relayStylePagination } from "@apollo/client/utilities";
import { Observable } from "rxjs";
import { shape } from "../generated/shape.js";
import { applyEvent } from "./events.js";
/** `new InMemoryCache(cacheOptions())`; `typePolicies` of your own are added to the kit's. */
export function cacheOptions(own = {}) {
    const policies = {};
    const of = (type) => (policies[type] ??= { fields: {} });
    const fields = (type) => of(type).fields;
    for (const type of Object.keys(shape.values))
        of(type).merge = mergeValue;
    for (const [type, names] of Object.entries(shape.lists))
        for (const name of names)
            fields(type)[name] = { merge: false };
    for (const list of Object.values(shape.connections))
        fields(list.parent)[list.field] = connection(list);
    for (const feed of shape.feeds)
        fields("Subscription")[feed] = { keyArgs: false, merge: mergeEvent };
    for (const [type, policy] of Object.entries(own)) {
        const { fields: added, ...rest } = policy;
        Object.assign(of(type), rest);
        Object.assign(fields(type), added);
    }
    return { possibleTypes: shape.possibleTypes, typePolicies: policies };
}
/** Subscriptions over the live socket. */
export function liveLink(live) {
    return new ApolloLink(({ query, operationName, variables, extensions }) => new Observable((sink) => live.subscribe({ query: print(query), operationName, variables, extensions }, sink)));
}
// A part of the fields is added to a value only if it is still the same value: else an old `formatted` would stay.
function mergeValue(existing, incoming, { mergeObjects }) {
    const same = existing !== undefined &&
        Object.keys(incoming).every((field) => !(field in existing) || equal(existing[field], incoming[field]));
    return same ? mergeObjects(existing, incoming) : incoming;
}
function equal(one, other) {
    if (typeof one !== "object" || typeof other !== "object" || one === null || other === null)
        return one === other;
    if (Array.isArray(one) && one.length !== other.length)
        return false;
    return Object.entries(one).every(([key, value]) => !(key in other) || equal(value, other[key]));
}
function mergeEvent(_, incoming, options) {
    applyEvent(storeOf(options), incoming, options.args ?? {});
    return incoming;
}
// Apollo's pagination, for queries that select `nodes` as well.
function connection(list) {
    const base = relayStylePagination(list.keyArgs.length > 0 ? list.keyArgs : false);
    return {
        ...base,
        read(existing, options) {
            const read = base.read(existing, options);
            if (!existing || !read)
                return read;
            return existing.nodes ? { ...read, nodes: read.edges.map((edge) => edge.node) } : read;
        },
        merge(existing, incoming, options) {
            const edgeOf = (node) => existing?.edges.find((edge) => edge.node?.__ref === node.__ref) ?? { __typename: list.edge, node };
            const edges = incoming?.edges ?? incoming?.nodes?.map(edgeOf);
            const empty = { edges: [], pageInfo: { startCursor: "", endCursor: "" } };
            const merged = base.merge(existing ?? empty, edges ? { ...incoming, edges } : incoming, options);
            return { ...merged, edges: unique(merged.edges) };
        },
    };
}
function unique(edges) {
    const seen = new Set();
    return edges.filter(({ node }) => !node || (!seen.has(node.__ref) && seen.add(node.__ref)));
}
function storeOf({ cache, readField, toReference }) {
    const read = (item, field) => readField(field, item);
    return {
        type: (item) => read(item, "__typename"),
        key: (item) => item.__ref,
        value: read,
        object: (item, field) => read(item, field) ?? undefined,
        find: (type, id) => toReference({ __typename: type, id }),
        drop: (type, id) => void cache.evict({ id: cache.identify({ __typename: type, id }) }),
        lists(parent, list, visit) {
            const modify = (existing, { storeFieldName, DELETE }) => {
                if (!("edges" in existing))
                    return existing;
                const held = new HeldList(existing, storeFieldName, list);
                visit(held);
                return held.isStale ? DELETE : held.connection;
            };
            const id = parent ? parent.__ref : "ROOT_QUERY";
            cache.modify({ id, fields: { [list.field]: modify }, broadcast: false });
        },
    };
}
class HeldList {
    connection;
    list;
    isStale = false;
    narrowed;
    constructor(connection, name, list) {
        this.connection = connection;
        this.list = list;
        const given = name.includes(":") ? JSON.parse(name.slice(name.indexOf(":") + 1)) : {};
        this.narrowed = Object.values(given).some((value) => value !== null);
    }
    get nodes() {
        return this.connection.edges.map((edge) => edge.node);
    }
    get cursors() {
        return this.connection.edges.map((edge) => edge["cursor"]);
    }
    get hasPrevious() {
        return this.connection.pageInfo?.["hasPreviousPage"];
    }
    get hasNext() {
        return this.connection.pageInfo?.["hasNextPage"];
    }
    get total() {
        return this.connection["totalCount"];
    }
    elsewhere() {
        return false;
    }
    insert(index, node, edge) {
        const added = (edge ?? { __typename: this.list.edge, node });
        this.#edges((edges) => edges.splice(index, 0, added));
    }
    remove(index) {
        this.#edges((edges) => edges.splice(index, 1));
    }
    move(from, to) {
        this.#edges((edges) => edges.splice(to, 0, ...edges.splice(from, 1)));
    }
    count(totalCount) {
        this.connection = { ...this.connection, totalCount };
    }
    stale() {
        this.isStale = true;
    }
    #edges(change) {
        const edges = [...this.connection.edges];
        change(edges);
        this.connection = { ...this.connection, edges };
    }
}
