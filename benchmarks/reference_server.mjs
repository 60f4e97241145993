// The reference server of Durable Streams, as it is measured: the npm package as it comes, with its own defaults.
//
//     node reference_server.mjs --npm FOLDER --port 8000 [--data DIR]
//
// FOLDER has a `node_modules` with `@durable-streams/server`. Without --data it keeps everything in memory.

import { createRequire } from "node:module"
import { resolve } from "node:path"
import { pathToFileURL } from "node:url"
import { parseArgs } from "node:util"

const { values: options } = parseArgs({
  options: { npm: { type: "string" }, port: { type: "string" }, data: { type: "string" } },
})
const found = createRequire(resolve(options.npm, "package.json")).resolve("@durable-streams/server")
const { DurableStreamTestServer } = await import(pathToFileURL(found).href)
const server = new DurableStreamTestServer({ host: "127.0.0.1", port: Number(options.port), dataDir: options.data })
await server.start()
