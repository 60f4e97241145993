// `node build_example.mjs FOLDER` builds an example with Vite into FOLDER/dist.
//
// The packages are those of this folder, so that each is installed once for all tests; the AI SDK goes by
// another name here, where several versions of it are side by side.

import { symlinkSync } from "node:fs";
import { join } from "node:path";
import { build } from "vite";

const root = process.argv[2];
symlinkSync(join(import.meta.dirname, "node_modules"), join(root, "node_modules"));
const versions = { ai: "ai7", "@ai-sdk/react": "react-ai7" };
const alias = Object.entries(versions).map(([find, replacement]) => ({ find: new RegExp(`^${find}$`), replacement }));
await build({ root, configFile: join(root, "vite.config.js"), resolve: { alias }, logLevel: "warn" });
