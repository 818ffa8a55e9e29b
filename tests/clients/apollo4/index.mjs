import { ErrorLink } from "@apollo/client/link/error";
import { GraphQLWsLink } from "@apollo/client/link/subscriptions";
import { PersistedQueryLink } from "@apollo/client/link/persisted-queries";
import { CombinedGraphQLErrors } from "@apollo/client/errors";
import { SetContextLink } from "@apollo/client/link/context";
import { from, mergeMap } from "rxjs";

export { ApolloClient, ApolloLink, HttpLink, InMemoryCache, gql } from "@apollo/client";
export const socketLink = (socket) => new GraphQLWsLink(socket);
export const persistedLink = (options) => new PersistedQueryLink(options);
export const headersLink = (headers) =>
  new SetContextLink((context) => ({ headers: { ...context.headers, ...headers() } }));
export const renewLink = (renew) =>
  new ErrorLink(({ error, operation, forward }) => {
    // An answer of the type application/graphql-response+json is read whatever its status is.
    const errors = CombinedGraphQLErrors.is(error) ? error.errors : [];
    if (!errors.some(({ extensions }) => extensions?.code === "UNAUTHENTICATED")) return;
    return from(renew()).pipe(mergeMap(() => forward(operation)));
  });
