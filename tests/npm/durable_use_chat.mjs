// `useChat` of @ai-sdk/react over @durable-streams/aisdk-transport, in a React tree in jsdom: what `use_chat.mjs` does
// with the transport of `ai`. The same commands and answers; `url` is the whole address to post to.

import { createInterface } from "node:readline";
import { createDurableChatTransport } from "@durable-streams/aisdk-transport";
import { JSDOM } from "jsdom";

const dom = new JSDOM("<!doctype html><body>", { url: "http://page.test/", pretendToBeVisual: true });
const page = { window: dom.window, document: dom.window.document, navigator: dom.window.navigator };
for (const [name, value] of Object.entries(page)) Object.defineProperty(globalThis, name, { value });

// Warnings of the packages would be taken for answers.
console.log = console.warn = console.error;

// A broken connection also rejects a promise of the stream's client that the transport never looks at. A browser
// would mention it in its console.
process.on("unhandledRejection", () => {});

const major = process.argv[2];
const { createElement, useEffect } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useChat } = await import(`react-ai${major}`);

const tabs = new Map();
const textOf = (message) => message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");

function Page({ tab, options }) {
  const chat = useChat(options);
  tab.chat = chat;
  useEffect(() => {
    const answer = chat.messages.findLast((message) => message.role === "assistant");
    tab.seen.push([chat.status, answer ? textOf(answer) : null]);
  });
  return null;
}

const actions = {
  async open({ tab: name, url, id, resume, messages }) {
    const tab = { seen: [], chat: null, root: createRoot(document.createElement("div")) };
    const transport = createDurableChatTransport({ api: url });
    tabs.set(name, tab);
    tab.root.render(createElement(Page, { tab, options: { id, transport, resume, messages } }));
    while (!tab.chat) await new Promise((done) => setTimeout(done, 1));
  },
  // Not awaited: these end when the answer does. Their failures show as status and error.
  send: ({ tab, text, messageId }) => void tabs.get(tab).chat.sendMessage({ text, messageId }).catch(() => {}),
  regenerate: ({ tab }) => void tabs.get(tab).chat.regenerate().catch(() => {}),
  resume: ({ tab }) => void tabs.get(tab).chat.resumeStream().catch(() => {}),
  stop: ({ tab }) => void tabs.get(tab).chat.stop().catch(() => {}),
  state: () => {},
  close: ({ tab }) => {
    tabs.get(tab).root.unmount();
    tabs.delete(tab);
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  let answer = {};
  try {
    const command = JSON.parse(line);
    await actions[command.do](command);
    const tab = tabs.get(command.tab);
    if (tab) {
      const { status, error, messages } = tab.chat;
      answer = { status, error: error?.message ?? null, messages, seen: tab.seen };
    }
  } catch (error) {
    answer = { failure: String(error?.stack ?? error) };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
process.exit(0);
