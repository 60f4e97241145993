// The reference server of Durable Streams on a free port, in memory: `node reference_server.mjs ENTRY LONG_POLL_MS`.
// ENTRY is the file to import. It prints its address in one line and runs until its stdin ends.

import { pathToFileURL } from "node:url";

const [, , entry, longPollTimeout] = process.argv;
const { DurableStreamTestServer } = await import(pathToFileURL(entry));
const server = new DurableStreamTestServer({ port: 0, host: "127.0.0.1", longPollTimeout: Number(longPollTimeout) });
await server.start();
process.stdout.write(`${server.url}\n`);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
