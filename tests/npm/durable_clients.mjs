// The npm clients of Durable Streams, driven from outside: one command a line on stdin, one answer a line on stdout.
//
// {"do": "read", "name", "url", "live": "sse" | "long-poll", "as"?: "json" | "text" | "bytes"}   @durable-streams/client
//     reads until the stream ends. When its connection breaks it begins again where it was, as applications do.
// {"do": "produce", "name", "url", "count", "pause"}   its IdempotentProducer appends {"number": 0}, {"number": 1}, ...
// {"do": "write", "url", "contentType", "pieces", "close"}   its DurableStream: create, append each, close
// {"do": "joinSession", "name", "url"}   a ChatClient of @tanstack/ai-client over @durable-streams/tanstack-ai-transport
//     which subscribes anew whenever its subscription has failed.
// {"do": "say" | "stop" | "reload", "name", ...}   of a session
// {"do": "state" | "leave", "name"}   of a reader, a producer or a session
//
// Answer: the state, {} or {"failure": "..."}.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client";
import { durableStreamConnection } from "@durable-streams/tanstack-ai-transport";
import { ChatClient } from "@tanstack/ai-client";

// Warnings of the packages would be taken for answers.
console.log = console.warn = console.error;

const RECONNECT_MS = 20;
const backoffOptions = { initialDelay: 20, maxDelay: 100, multiplier: 1.3, maxRetries: Infinity };
const actors = new Map();

// --- readers

const SUBSCRIBE = { json: "subscribeJson", text: "subscribeText", bytes: "subscribeBytes" };
const TAKE = {
  json: (items, batch) => items.push(...batch.items),
  text: (items, batch) => items.push(batch.text),
  bytes: (items, batch) => items.push(Buffer.from(batch.data).toString("base64")),
};

async function read({ name, url, live, as = "json", offset }) {
  const abort = new AbortController();
  const state = { items: [], offset, ended: false, breaks: 0, error: null };
  actors.set(name, { state: () => state, leave: () => abort.abort() });
  while (!abort.signal.aborted && !state.ended) {
    try {
      const response = await stream({
        url,
        live,
        json: as === "json",
        offset: state.offset,
        signal: abort.signal,
        backoffOptions,
        sseResilience: { logWarnings: false },
      });
      response[SUBSCRIBE[as]]((batch) => {
        TAKE[as](state.items, batch);
        state.offset = batch.offset;
        state.ended ||= batch.streamClosed;
      });
      await response.closed;
      state.ended = response.streamClosed;
    } catch (error) {
      state.error = String(error);
      state.breaks += 1;
      await sleep(RECONNECT_MS);
    }
  }
}

// --- writers

async function write({ url, contentType, pieces, close }) {
  const handle = await DurableStream.create({ url, contentType, backoffOptions });
  for (const piece of pieces) await handle.append(piece);
  return close ? await handle.close() : {};
}

// The producer by itself gives up when a connection breaks. What it sends again is the same, its numbers too.
async function persistentFetch(...request) {
  for (;;) {
    try {
      return await fetch(...request);
    } catch {
      await sleep(RECONNECT_MS);
    }
  }
}

async function produce({ name, url, count, pause, epoch = 0, first = 0 }) {
  const handle = new DurableStream({ url, contentType: "application/json", backoffOptions });
  const state = { sent: 0, done: false, errors: [] };
  const producer = new IdempotentProducer(handle, "writer", {
    epoch,
    lingerMs: 1,
    maxBatchBytes: 200,
    fetch: persistentFetch,
    onError: (error) => state.errors.push(String(error)),
  });
  let left = false;
  actors.set(name, { state: () => state, leave: () => (left = true) });
  for (let number = first; number < first + count && !left; number += 1) {
    producer.append(JSON.stringify({ number }));
    state.sent += 1;
    if (pause) await sleep(pause);
  }
  await producer.close().catch((error) => state.errors.push(String(error)));
  state.done = true;
}

// --- sessions

function joinSession({ name, url }) {
  const state = { joined: false, seen: [], errors: [] };
  let left = false;
  const connection = durableStreamConnection({ sendUrl: url });
  const client = new ChatClient({
    connection: {
      send: connection.send,
      async *subscribe(signal) {
        for await (const event of connection.subscribe(signal)) {
          state.joined = true;
          yield event;
        }
      },
    },
    onError: (error) => state.errors.push(error.message),
    onMessagesChange: (messages) => {
      const texts = messages.map(({ parts }) => parts.map((part) => part.content ?? "").join(""));
      if (JSON.stringify(texts) !== JSON.stringify(state.seen.at(-1))) state.seen.push(texts);
    },
    onSubscriptionChange: async (subscribed) => {
      await sleep(RECONNECT_MS);
      if (!subscribed && !left) client.subscribe();
    },
  });
  client.subscribe();
  actors.set(name, {
    client,
    state: () => ({
      ...state,
      messages: client.getMessages().map(({ createdAt, ...message }) => message),
      status: client.getStatus(),
      loading: client.getIsLoading(),
    }),
    leave: () => {
      left = true;
      client.unsubscribe();
    },
  });
}

const clientOf = (name) => actors.get(name).client;

// --- commands

// What goes on by itself is not awaited: its state tells how far it is.
const actions = {
  read: (command) => void read(command),
  produce: (command) => void produce(command),
  write,
  joinSession,
  say: ({ name, content }) => void clientOf(name).sendMessage(content),
  stop: ({ name }) => clientOf(name).stop(),
  reload: ({ name }) => void clientOf(name).reload(),
  state: ({ name }) => actors.get(name).state(),
  leave: ({ name }) => {
    actors.get(name).leave();
    actors.delete(name);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const command = JSON.parse(line);
    answer = (await actions[command.do](command)) ?? {};
  } catch (error) {
    answer = { failure: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
