// `node example.mjs build FOLDER` builds an example with Vite into FOLDER/dist, as its `npm run build` does;
// `node example.mjs dev FOLDER PORT` serves it as `npm run dev` does, and says so in a line on stdout.
//
// The packages are those of this folder, so that each is installed once for all tests; the AI SDK goes by
// another name here, where several versions of it are side by side.

import { existsSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { build, createServer } from "vite";

const [what, root, port] = process.argv.slice(2);
const packages = join(root, "node_modules");
if (!existsSync(packages)) symlinkSync(join(import.meta.dirname, "node_modules"), packages);
const versions = { ai: "ai7", "@ai-sdk/react": "react-ai7" };
const options = {
  root,
  configFile: join(root, "vite.config.js"),
  resolve: { alias: Object.entries(versions).map(([name, ours]) => ({ find: new RegExp(`^${name}$`), replacement: ours })) },
  cacheDir: join(root, ".vite"),
  logLevel: "warn",
};
if (what === "build") {
  await build(options);
} else {
  const server = await createServer({ ...options, server: { host: "127.0.0.1", port: Number(port), strictPort: true } });
  await server.listen();
  console.log("ready");
}
