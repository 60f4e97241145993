// `useChat` of @ai-sdk/react in a React tree in jsdom, driven from outside: one command a line on
// stdin, one answer a line on stdout. `node use_chat.mjs 6` runs it with ai 6, `7` with ai 7, `6-first` with 6.0.0.
//
// Command: {"tab": NAME, "do": "open" | "close" | "send" | "regenerate" | "stop" | "resume" | "output" | "approve" |
// "state", ...}. `open` takes {"transport": "http" | "socket" | "helix" | "durable", "strict", "auto", "tools", "body"}.
// Answer: {"status", "error", "messages", "seen"} of the tab, "seen" being every state that was
// rendered: [status, text of the newest assistant message]; also {"data", "calls", "finished"}, what onData,
// onToolCall and onFinish were given. Or {"failure": "..."}.

import { createInterface } from "node:readline";
import { createDurableChatTransport } from "@durable-streams/aisdk-transport";
import { JSDOM } from "jsdom";

const dom = new JSDOM("<!doctype html><body>", { url: "http://page.test/", pretendToBeVisual: true });
const page = { window: dom.window, document: dom.window.document, navigator: dom.window.navigator };
for (const [name, value] of Object.entries(page)) Object.defineProperty(globalThis, name, { value });

// Warnings of the packages would be taken for answers.
console.log = console.warn = console.error;

// A broken connection also rejects a promise of the Durable Streams client that its transport never looks at.
process.on("unhandledRejection", (reason) => console.error(reason));

const major = process.argv[2];
const { createElement, StrictMode, useEffect } = await import("react");
const { createRoot } = await import("react-dom/client");
const { useChat } = await import(`react-ai${major}`);
const ai = await import(`ai${major}`);
const webSocket = globalThis.WebSocket ?? (await import("undici")).WebSocket; // node before 22 has none

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

// How the page talks to the server. `helix` is the DefaultChatTransport with the session in the address, one
// message a request, and a resume by number.
const transports = {
  http: ({ url, query = "", body, headers }) =>
    new ai.DefaultChatTransport({ api: `${url}/api/chat${query}`, body, headers }),
  socket: ({ url, query = "", body, headers }) =>
    new ai.WebSocketChatTransport({ url: `${url}/api/chat/ws${query}`, body, headers, webSocket }),
  durable: ({ url, body }) => createDurableChatTransport({ api: `${url}/api/durable-chat`, body }),
  helix: ({ url, id, from, existing, replay = true }) => {
    const api = `${url}/api/chat/${id}`;
    return new ai.DefaultChatTransport({
      api,
      resumeStreamIsReplay: replay,
      prepareSendMessagesRequest: ({ messages, trigger, messageId }) => ({
        body: { messages: messages.slice(-1), trigger, messageId },
      }),
      prepareReconnectToStreamRequest: () => ({
        api,
        headers: {
          ...(from === undefined ? {} : { "X-Resume-From-Sequence": String(from) }),
          ...(existing === undefined ? {} : { "X-Existing-Message-Id": existing }),
        },
      }),
    });
  },
};

function isComplete(options) {
  return (
    ai.lastAssistantMessageIsCompleteWithToolCalls(options) ||
    ai.lastAssistantMessageIsCompleteWithApprovalResponses(options)
  );
}

async function open(command) {
  const { tab: name, id, resume, messages, strict, auto, tools } = command;
  const tab = { seen: [], data: [], calls: [], finished: [], chat: null, root: createRoot(document.createElement("div")) };
  const transport = transports[command.transport ?? "http"](command);
  tabs.set(name, tab);
  const options = {
    ...{ id, transport, resume, messages },
    sendAutomaticallyWhen: auto ? isComplete : undefined,
    onData: (part) => tab.data.push(part),
    onFinish: ({ isAbort, isError, isDisconnect, finishReason }) =>
      tab.finished.push({ isAbort, isError, isDisconnect, finishReason }),
    onToolCall: ({ toolCall }) => {
      tab.calls.push(toolCall.toolCallId);
      if (toolCall.toolName in (tools ?? {})) {
        const output = tools[toolCall.toolName];
        tab.chat.addToolOutput({ tool: toolCall.toolName, toolCallId: toolCall.toolCallId, output });
      }
    },
  };
  const page = createElement(Page, { tab, options });
  tab.root.render(strict ? createElement(StrictMode, null, page) : page);
  while (!tab.chat) await new Promise((done) => setTimeout(done, 1));
}

function close({ tab: name }) {
  tabs.get(name).root.unmount();
  tabs.delete(name);
}

const actions = {
  send: (chat, { text, id, messageId, files }) => {
    if (text === undefined) return chat.sendMessage();
    if (files !== undefined) return chat.sendMessage({ text, files });
    if (id !== undefined) return chat.sendMessage({ id, role: "user", parts: [{ type: "text", text }] });
    return chat.sendMessage({ text, messageId });
  },
  regenerate: (chat, { messageId }) => chat.regenerate({ messageId }),
  resume: (chat) => chat.resumeStream(),
  stop: (chat) => chat.stop(),
  output: (chat, { tool, toolCallId, output, errorText }) =>
    chat.addToolOutput(
      errorText === undefined
        ? { tool, toolCallId, output }
        : { tool, toolCallId, state: "output-error", errorText },
    ),
  approve: (chat, { id, approved, reason }) => chat.addToolApprovalResponse({ id, approved, reason }),
  state: () => undefined,
};

async function answer(command) {
  if (command.do === "open") await open(command);
  if (command.do === "close") return close(command) ?? {};
  const tab = tabs.get(command.tab);
  // Not awaited: these end when the answer does. Their failures show as status and error.
  actions[command.do]?.(tab.chat, command)?.catch?.(() => {});
  const { status, error, messages } = tab.chat;
  const { seen, data, calls, finished } = tab;
  return { status, error: error?.message ?? null, messages, seen, data, calls, finished };
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
