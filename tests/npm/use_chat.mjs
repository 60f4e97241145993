// `useChat` of @ai-sdk/react in a React tree in jsdom, driven from outside: one command a line on
// stdin, one answer a line on stdout. `node use_chat.mjs 6` runs it with ai 6, `7` with ai 7.
//
// Command: {"tab": NAME, "do": "open" | "close" | "send" | "regenerate" | "stop" | "resume" | "state", ...}.
// Answer: {"status", "error", "messages", "seen"} of the tab, "seen" being every state that was
// rendered: [status, text of the newest assistant message]. Or {"failure": "..."}.

import { createInterface } from "node:readline";
import { JSDOM } from "jsdom";

const dom = new JSDOM("<!doctype html><body>", { url: "http://page.test/", pretendToBeVisual: true });
const page = { window: dom.window, document: dom.window.document, navigator: dom.window.navigator };
for (const [name, value] of Object.entries(page)) Object.defineProperty(globalThis, name, { value });

const major = process.argv[2];
const { createElement, useEffect } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useChat } = await import(`react-ai${major}`);
const { DefaultChatTransport } = await import(`ai${major}`);

const tabs = new Map();

function Page({ tab, options }) {
  const chat = useChat(options);
  tab.chat = chat;
  useEffect(() => {
    const answer = chat.messages.findLast((message) => message.role === "assistant");
    const now = [chat.status, answer ? textOf(answer) : null];
    const last = tab.seen.at(-1);
    if (last?.[0] !== now[0] || last?.[1] !== now[1]) tab.seen.push(now);
  });
  return null;
}

const textOf = (message) => message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");

async function open({ tab: name, url, id, resume, messages }) {
  const tab = { seen: [], chat: null, root: createRoot(document.createElement("div")) };
  const transport = new DefaultChatTransport({ api: `${url}/api/chat` });
  tabs.set(name, tab);
  tab.root.render(createElement(Page, { tab, options: { id, transport, resume, messages } }));
  while (!tab.chat) await new Promise((done) => setTimeout(done, 1));
}

function close({ tab: name }) {
  tabs.get(name).root.unmount();
  tabs.delete(name);
}

const actions = {
  send: (chat, { text, id, messageId }) => {
    if (text === undefined) return chat.sendMessage();
    if (id !== undefined) return chat.sendMessage({ id, role: "user", parts: [{ type: "text", text }] });
    return chat.sendMessage({ text, messageId });
  },
  regenerate: (chat, { messageId }) => chat.regenerate({ messageId }),
  resume: (chat) => chat.resumeStream(),
  stop: (chat) => chat.stop(),
  state: () => undefined,
};

async function answer(command) {
  if (command.do === "open") await open(command);
  if (command.do === "close") return close(command) ?? {};
  const tab = tabs.get(command.tab);
  // Not awaited: these end when the answer does. Their failures show as status and error.
  actions[command.do]?.(tab.chat, command)?.catch(() => {});
  const { status, error, messages } = tab.chat;
  return { status, error: error?.message ?? null, messages, seen: tab.seen };
}

for await (const line of createInterface({ input: process.stdin })) {
  let result;
  try {
    result = await answer(JSON.parse(line));
  } catch (error) {
    result = { failure: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(result) + "\n");
}
process.exit(0);
