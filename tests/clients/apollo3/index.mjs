import { GraphQLWsLink } from "@apollo/client/link/subscriptions/index.js";
import { createPersistedQueryLink } from "@apollo/client/link/persisted-queries/index.js";
import { fromPromise } from "@apollo/client/link/utils/index.js";
import { onError } from "@apollo/client/link/error/index.js";
import { setContext } from "@apollo/client/link/context/index.js";
import * as core from "@apollo/client/core/index.js";

// What differs between the versions: links are functions here and classes in 4.
export const { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } = core;
export const socketLink = (socket) => new GraphQLWsLink(socket);
export const persistedLink = (options) => createPersistedQueryLink(options);
export const headersLink = (headers) => setContext((_, context) => ({ headers: { ...context.headers, ...headers() } }));
export const renewLink = (renew) =>
  onError(({ networkError, operation, forward }) => {
    if (networkError?.statusCode !== 401) return;
    return fromPromise(renew()).flatMap(() => forward(operation));
  });
