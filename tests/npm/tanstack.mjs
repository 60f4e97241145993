// ChatClient of TanStack AI, driven from outside: one command a line on stdin, one answer a line on stdout.
// `node tanstack.mjs @tanstack/ai-client` runs it with the newest version, or name another package.
//
// {"do": "open", "name", "url", "room", "via": "sse" | "ndjson" | "socket" | "session", "tools"?: {NAME: output | {"throws": text}},
//     "hydrate"?: bool, "store"?: NAME}
//     a client in a room; `hydrate`: it asks the server for the history, `store`: it keeps it in a store of that name. A session subscribes anew whenever its subscription has failed, as applications do.
// {"do": "say" | "stop" | "reload" | "approve" | "result", "name", ...}
// {"do": "state" | "close", "name"}
//
// Answer: the state, {} or {"failure": "..."}.

import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { JSDOM } from "jsdom";
import { durableStreamConnection } from "@durable-streams/tanstack-ai-transport";

const { ChatClient, fetchHttpStream, fetchServerSentEvents, webSocket } = await import(process.argv[2]);

// Warnings of the packages would be taken for answers.
console.log = console.warn = console.error;

const RECONNECT_MS = 20;
const clients = new Map();

// What a browser's localStorage is to the pages of one site.
const stored = new Map();
const persistenceIn = (store) => ({
  getItem: (id) => JSON.parse(stored.get(`${store}/${id}`) ?? "null"),
  setItem: (id, value) => void stored.set(`${store}/${id}`, JSON.stringify(value)),
  removeItem: (id) => void stored.delete(`${store}/${id}`),
});

const connections = {
  sse: (url, room, options) => fetchServerSentEvents(`${url}/api/chat?threadId=${room}`, options),
  ndjson: (url, room, options) => fetchHttpStream(`${url}/api/chat?format=ndjson`, options),
  socket: (url, room, { reconnect }) =>
    webSocket(`${url.replace("http", "ws")}/api/chat/runs?threadId=${room}`, {
      reconnect,
      WebSocketImpl: new JSDOM("", { url }).window.WebSocket, // node has none of its own before version 22
    }),
  session: (url, room, { fetchClient }) => {
    const connection = durableStreamConnection({ sendUrl: `${url}/api/chat/${room}/session`, fetchClient });
    return { send: connection.send, subscribe: connection.subscribe };
  },
};

function open({ name, url, room, via, tools = {}, hydrate = false, store }) {
  const state = { joined: false, seen: [], errors: [], posts: 0, executed: [] };
  const fetchClient = (address, init) => {
    if (init?.method === "POST") state.posts += 1;
    return fetch(address, init);
  };
  const made = connections[via](url, room, { fetchClient, reconnect: { delayMs: RECONNECT_MS, maxAttempts: 5000 } });
  const connection =
    via !== "session"
      ? made
      : {
          send: made.send,
          async *subscribe(signal) {
            for await (const event of made.subscribe(signal)) {
              state.joined = true;
              yield event;
            }
          },
        };
  let left = false;
  const client = new ChatClient({
    connection,
    threadId: room,
    persistence: store ? persistenceIn(store) : hydrate || undefined,
    tools: Object.entries(tools).map(([tool, output]) => ({
      name: tool,
      description: `The tool ${tool} of the client`,
      execute: async (input) => {
        state.executed.push([tool, input]);
        if (output?.throws) throw new Error(output.throws);
        return output;
      },
    })),
    onError: (error) => state.errors.push(error.message),
    onMessagesChange: (messages) => {
      const texts = messages.map(({ parts }) => parts.map((part) => part.content ?? "").join(""));
      if (JSON.stringify(texts) !== JSON.stringify(state.seen.at(-1))) state.seen.push(texts);
    },
    onSubscriptionChange: async (subscribed) => {
      if (via !== "session") return;
      await sleep(RECONNECT_MS);
      if (!subscribed && !left) client.subscribe();
    },
  });
  if (via === "session") client.subscribe();
  else {
    state.joined = true;
    client.attach?.();
  }
  clients.set(name, {
    client,
    state: () => ({
      ...state,
      messages: client.getMessages().map(({ createdAt, ...message }) => message),
      status: client.getStatus(),
      loading: client.getIsLoading(),
    }),
    close: () => {
      left = true;
      client.unsubscribe();
      client.dispose();
    },
  });
}

const clientOf = (name) => clients.get(name).client;

// What goes on by itself is not awaited: its state tells how far it is.
const actions = {
  open,
  say: ({ name, content }) => void clientOf(name).sendMessage(content),
  stop: ({ name }) => clientOf(name).stop(),
  reload: ({ name }) => void clientOf(name).reload(),
  approve: ({ name, id, approved }) => void clientOf(name).addToolApprovalResponse({ id, approved }),
  result: ({ name, tool, toolCallId, output }) => void clientOf(name).addToolResult({ tool, toolCallId, output }),
  state: ({ name }) => clients.get(name).state(),
  close: ({ name }) => {
    clients.get(name).close();
    clients.delete(name);
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
