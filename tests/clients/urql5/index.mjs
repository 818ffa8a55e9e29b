export * as auth from "@urql/exchange-auth";
export * as core from "@urql/core";
export * as graphcache from "@urql/exchange-graphcache";
export * as persisted from "@urql/exchange-persisted";
