// TanStack AI as the judge of our AG-UI events: one request a line on stdin, one answer a line on stdout.
//
// {"do": "fold", "events": [...], "posts"?: [n, ...]}   the StreamProcessor of a tab: its messages, and the custom
//     events that it hands on. Before the events of `posts` the tab's own user posts, which makes it forget where
//     it was in the stream.
// {"do": "transport", "events": [...]}   the texts that the session transport shows first, after a reload.
// {"do": "chat", "runs": [[...], ...], "session": bool, "tools": {NAME: output}, "approve"?: bool}
//     a ChatClient that says "hi" to a server which answers each post with the next of `runs`: its messages, what
//     it posted, its status. Over a session it is told of the user's message first, as every tab is.
//
// Answer: {"messages", "invalid": [what AG-UI's own schema says], ...} or {"failure"}.

import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { materializeSnapshotFromDurableStream } from "@durable-streams/tanstack-ai-transport";
import { ChatClient, StreamProcessor } from "@tanstack/ai-client";

// The AG-UI that TanStack is built on, whichever that is.
const { EventSchemas } = createRequire(import.meta.resolve("@tanstack/ai"))("@ag-ui/core/schemas");

// Warnings of the packages would be taken for answers.
console.log = console.warn = console.error;

function invalid(events) {
  return events
    .filter((event) => event.type !== "MESSAGES_SNAPSHOT") // TanStack's own messages are in it
    .map((event) => [event, EventSchemas.safeParse(event)])
    .filter(([, result]) => !result.success)
    .map(([event, result]) => `${JSON.stringify(event)}: ${result.error.message}`);
}

const plain = (messages) => messages.map(({ createdAt, ...message }) => message);

function fold({ events, posts = [] }) {
  const custom = [];
  const errors = [];
  const processor = new StreamProcessor({
    events: {
      onCustomEvent: (name, value) => custom.push([name, value]),
      onError: (error) => errors.push(error.message),
      onApprovalRequest: (request) => custom.push(["approval", request]),
      onToolCall: (call) => custom.push(["call", call]),
    },
  });
  events.forEach((event, index) => {
    if (posts.includes(index)) processor.prepareAssistantMessage();
    processor.processChunk(event);
  });
  return { messages: plain(processor.getMessages()), custom, errors };
}

async function transport({ events }) {
  const headers = {
    "content-type": "application/json",
    "stream-next-offset": "1",
    "stream-up-to-date": "true",
  };
  const { messages } = await materializeSnapshotFromDurableStream({
    readUrl: "http://server.test/session",
    fetchClient: async () => new Response(JSON.stringify(events), { headers }),
  });
  return { messages: plain(messages) };
}

async function chat({ runs, session, tools, approve }) {
  const posted = [];
  const queue = [];
  let wake = () => {};
  const take = (messages) => {
    posted.push(JSON.parse(JSON.stringify(messages)));
    return runs[posted.length - 1] ?? [];
  };
  const overSession = {
    async *subscribe(signal) {
      signal.addEventListener("abort", () => wake());
      while (!signal.aborted) {
        while (queue.length) yield queue.shift();
        await new Promise((done) => (wake = done));
      }
    },
    async send(messages) {
      const { id: messageId, role } = messages.at(-1);
      const echo = [
        { type: "TEXT_MESSAGE_START", messageId, role },
        { type: "TEXT_MESSAGE_CONTENT", messageId, delta: "hi" },
        { type: "TEXT_MESSAGE_END", messageId },
      ];
      queue.push(...(role === "user" ? echo : []), ...take(messages));
      wake();
    },
  };
  const overHttp = {
    async *connect(messages) {
      yield* take(messages);
    },
  };
  const errors = [];
  const client = new ChatClient({
    connection: session ? overSession : overHttp,
    tools: Object.entries(tools).map(([name, output]) => ({ name, description: "", execute: async () => output })),
    onError: (error) => errors.push(error.message),
  });
  const settled = async () => {
    for (let quiet = 0, tries = 0; quiet < 5 && tries < 400; tries += 1) {
      quiet = client.getIsLoading() || queue.length ? 0 : quiet + 1;
      await sleep(5);
    }
  };
  client.sendMessage("hi");
  await settled();
  if (approve !== undefined) {
    const parts = client.getMessages().flatMap((message) => message.parts);
    await Promise.race([
      client.addToolApprovalResponse({ id: parts.find((part) => part.approval).approval.id, approved: approve }),
      sleep(2000),
    ]);
    await settled();
  }
  const answer = { messages: plain(client.getMessages()), posted: posted.map(plain), errors };
  Object.assign(answer, { status: client.getStatus(), loading: client.getIsLoading() });
  client.dispose();
  return answer;
}

const actions = { fold, transport, chat };

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    const request = JSON.parse(line);
    const events = request.events ?? request.runs.flat();
    answer = { ...(await actions[request.do](request)), invalid: invalid(events) };
  } catch (error) {
    answer = { failure: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
