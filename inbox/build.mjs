// Builds what the API serves from inbox/dist: today the four files of GraphiQL's page with their licences. It fetches nothing.
import { cp, mkdir, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const packages = join(here, "node_modules");
const target = join(here, "dist", "graphiql");
const fresh = `${target}.new`;

const files = {
  "graphiql/graphiql.min.js": "graphiql.min.js",
  "graphiql/graphiql.min.css": "graphiql.min.css",
  "graphiql/LICENSE": "graphiql.LICENSE.txt",
  "react/umd/react.production.min.js": "react.production.min.js",
  "react/LICENSE": "react.LICENSE.txt",
  "react-dom/umd/react-dom.production.min.js": "react-dom.production.min.js",
  "react-dom/LICENSE": "react-dom.LICENSE.txt",
};

// A server may be reading the folder: it appears whole, by a rename, or not at all.
await rm(fresh, { recursive: true, force: true });
await mkdir(fresh, { recursive: true });
for (const [from, to] of Object.entries(files)) await cp(join(packages, from), join(fresh, to));
await rm(target, { recursive: true, force: true });
await rename(fresh, target);
