// Lints schema/*.graphql: `./dev check lint`. Started in the repository's root.
import graphql from "@graphql-eslint/eslint-plugin";

const rule = (name) => `@graphql-eslint/${name}`;

const schemaRules = {
  ...graphql.configs["flat/schema-all"].rules,
  // Fields are in the order of their nouns, and an answer's errors come first.
  [rule("alphabetize")]: "off",
  [rule("no-root-type")]: "off",
  // Payloads contain the objects that changed, and are never null: what was refused is in userErrors.
  [rule("require-field-of-type-query-in-mutation-result")]: "off",
  [rule("require-nullable-result-in-root")]: "off",
  // Money, connections, edges, events and payloads are values without an id.
  [rule("strict-id-in-types")]: "off",
  // The day is in the reason: tests/tooling/schema_changes.py reads it there.
  [rule("require-deprecation-date")]: "off",
  // Directives are GraphQL's own.
  [rule("require-description")]: [
    "error",
    { types: true, FieldDefinition: true, InputValueDefinition: true, EnumValueDefinition: true, rootField: true },
  ],
};

const relayRules = {
  ...graphql.configs["flat/schema-relay"].rules,
  // Lists are not only of edges: a connection has `nodes`, too.
  [rule("relay-edge-types")]: [
    "error",
    { withEdgeSuffix: true, shouldImplementNode: true, listTypeCanWrapOnlyEdgeType: false },
  ],
};

// One for all files: the parser reads it once for each process.
const graphQLConfig = {
  projects: { team: { schema: "schema/schema.graphql" }, visitor: { schema: "schema/visitor.graphql" } },
};

const checked = (file, rules) => ({
  files: [file],
  languageOptions: { parser: graphql.parser, parserOptions: { graphQLConfig } },
  plugins: { "@graphql-eslint": graphql },
  rules,
});

export default [
  checked("schema/schema.graphql", { ...schemaRules, ...relayRules }),
  // The widget's schema has no connections.
  checked("schema/visitor.graphql", schemaRules),
];
