// The clients of Cloudflare's Agents SDK: `AgentClient`, `useAgent` and `useAgentChat` in a React tree in
// jsdom, and PartySocket; driven from outside: one command a line on stdin, one answer a line on stdout.
// `node --experimental-websocket cloudflare.mjs newest 6` runs the newest `agents` and `@cloudflare/ai-chat`
// with ai 6; `pinned` and `7` are the other choices.
//
// Command: {"tab": NAME, "do": ..., ...}. Answer: what the tab shows. Or {"failure": "..."}.

import { register } from "node:module";
import { createInterface } from "node:readline";
import { JSDOM } from "jsdom";

const [sdk, ai] = process.argv.slice(2);
register("./cloudflare_versions.mjs", import.meta.url, { data: { sdk, ai: Number(ai) } });

const dom = new JSDOM("<!doctype html><body>", { url: "http://page.test/", pretendToBeVisual: true });
const page = { window: dom.window, document: dom.window.document, navigator: dom.window.navigator };
for (const [name, value] of Object.entries(page)) Object.defineProperty(globalThis, name, { value });
// Answers are lines on stdout; what the packages say goes elsewhere.
for (const level of ["log", "info", "warn", "debug"]) console[level] = console.error;

const { createElement, Suspense, useEffect } = await import("react");
const { createRoot } = await import("react-dom/client");
const { AgentClient } = await import("agents/client");
const { useAgent } = await import("agents/react");
const { useAgentChat, getAgentMessages } = await import("@cloudflare/ai-chat/react");
const { PartySocket } = await import("partysocket");

const tabs = new Map();
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const textOf = (message) => message.parts.filter((part) => part.type === "text").map((part) => part.text).join("");

// --- what a tab notes of its agent

function listeners(tab) {
  const note = (...event) => tab.events.push(event);
  return {
    onStateUpdate: (state, source) => note("state", state, source),
    onStateUpdateError: (error) => note("refused", error),
    onIdentity: (name, agent) => note("identity", name, agent),
    onMcpUpdate: (mcp) => note("mcp", mcp),
    onConnectionError: (error) => note("ended", error.code, error.reason),
  };
}

const lines = (tab) => (event) => {
  // Frames of the protocol are the packages' own affair.
  if (typeof event.data === "string" && !/"type":"(cf_agent|rpc)/.test(event.data)) tab.events.push(["message", event.data]);
};

const address = (command) => {
  const url = new URL(command.url);
  const { agent, name, query, sub } = command;
  const quick = { minReconnectionDelay: 50, maxReconnectionDelay: 200, reconnectionDelayGrowFactor: 1 };
  return { host: url.host, protocol: "ws", agent, name, ...(query ? { query } : {}), ...(sub ? { sub } : {}), ...quick };
};

// --- kinds of tabs

function openClient(tab, command) {
  tab.agent = new AgentClient({ ...address(command), ...listeners(tab) });
  tab.agent.addEventListener("message", lines(tab));
  tab.close = () => tab.agent.close();
}

function AgentPage({ tab, options }) {
  const agent = useAgent({ ...options, ...listeners(tab), onMessage: lines(tab) });
  tab.agent = agent;
  return null;
}

function ChatPage({ tab, options, chatOptions }) {
  const agent = useAgent({ ...options, ...listeners(tab), onMessage: lines(tab) });
  const { tool, ...others } = chatOptions;
  const chat = useAgentChat({
    agent,
    throttle: false,
    onError: (error) => tab.events.push(["error", error.message]),
    onTurnEnd: ({ outcome, error, replay }) => tab.events.push(["turn", outcome, error ?? null, replay]),
    ...(tool === undefined ? {} : { onToolCall: ({ toolCall, addToolOutput }) => {
      tab.events.push(["tool", toolCall.toolName, toolCall.input]);
      addToolOutput({ toolCallId: toolCall.toolCallId, output: tool });
    } }),
    ...others,
  });
  tab.agent = agent;
  tab.chat = chat;
  useEffect(() => {
    const answer = chat.messages.findLast((message) => message.role === "assistant");
    const now = [chat.isStreaming ? "streaming" : chat.status, answer ? textOf(answer) : null];
    const last = tab.seen.at(-1);
    if (last?.[0] !== now[0] || last?.[1] !== now[1]) tab.seen.push(now);
  });
  return null;
}

async function openPage(tab, command, Page, props = {}) {
  const root = createRoot(document.createElement("div"));
  tab.close = () => root.unmount();
  root.render(createElement(Suspense, { fallback: null }, createElement(Page, { tab, options: address(command), ...props })));
  for (let waited = 0; !tab.agent && waited < 5000; waited++) await pause(1);
}

function openParty(tab, command) {
  const { host } = new URL(command.url);
  tab.agent = new PartySocket({ host, protocol: "ws", party: command.party, room: command.name, query: command.query, ...command.options });
  tab.agent.addEventListener("message", (event) => tab.events.push(["message", event.data]));
  tab.close = () => tab.agent.close();
}

const kinds = {
  client: openClient,
  agent: (tab, command) => openPage(tab, command, AgentPage),
  chat: (tab, command) => openPage(tab, command, ChatPage, { chatOptions: command.options ?? {} }),
  party: openParty,
};

async function open(command) {
  const tab = { events: [], seen: [], results: {}, agent: null, chat: null };
  tabs.set(command.tab, tab);
  await kinds[command.kind](tab, command);
}

// --- what tabs do. Nothing is awaited: calls and answers go on by themselves

const later = (tab, key, promise) => {
  promise.then(
    (value) => (tab.results[key] = { value: value ?? null }),
    (error) => (tab.results[key] = { error: error.message }),
  );
};

const actions = {
  "set-state": ({ agent }, { state }) => agent.setState(state),
  call: (tab, { key, method, args }) => later(tab, key, tab.agent.call(method, args)),
  stub: (tab, { key, method, args }) => later(tab, key, tab.agent.stub[method](...args)),
  stream: (tab, { key, method, args }) => {
    const values = (tab.results[`${key} values`] = []);
    const stream = {
      onChunk: (value) => values.push(value),
      onDone: (value) => values.push(["done", value ?? null]),
      onError: (error) => values.push(["error", error]),
    };
    later(tab, key, tab.agent.call(method, args, { stream }));
  },
  ready: (tab, { key }) => later(tab, key, tab.agent.ready.then(() => tab.agent.state ?? null)),
  raw: ({ agent }, { data }) => agent.send(data),
  reconnect: ({ agent }) => agent.reconnect(),
  fetch: (tab, { key, url }) => later(tab, key, fetch(url).then((response) => response.text())),
  history: (tab, { key, url, agent, name }) => later(tab, key, getAgentMessages({ host: url, agent, name })),
  say: ({ chat }, { text, id, body, messageId }) => {
    if (text === undefined) return chat.sendMessage(undefined, { body });
    if (id !== undefined) return chat.sendMessage({ id, role: "user", parts: [{ type: "text", text }] }, { body });
    return chat.sendMessage({ text, messageId }, { body });
  },
  regenerate: ({ chat }, { messageId }) => chat.regenerate({ messageId }),
  resume: ({ chat }) => chat.resumeStream(),
  stop: ({ chat }) => chat.stop(),
  clear: ({ chat }) => chat.clearHistory(),
  "set-messages": ({ chat }, { messages }) => chat.setMessages(messages),
  "tool-output": ({ chat }, { toolCallId, toolName, output, state, errorText }) =>
    chat.addToolOutput({ toolCallId, toolName, output, state, errorText }),
  approve: ({ chat }, { id, approved }) => chat.addToolApprovalResponse({ id, approved }),
  state: () => undefined,
};

function shown({ agent, chat, events, results, seen }) {
  const { identified, name, agent: kind, state, readyState } = agent ?? {};
  const common = { identified, name, agent: kind, state: state ?? null, open: readyState === 1, events, results };
  if (!chat) return common;
  const { status, error, messages, isStreaming } = chat;
  return { ...common, status, error: error?.message ?? null, messages, streaming: isStreaming, seen };
}

async function answer(command) {
  if (command.do === "open") await open(command);
  const tab = tabs.get(command.tab);
  if (command.do === "close") {
    tab.close();
    tabs.delete(command.tab);
    return {};
  }
  actions[command.do]?.(tab, command)?.catch?.(() => {});
  return shown(tab);
}

process.on("unhandledRejection", (error) => console.error("unhandled", error));
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
