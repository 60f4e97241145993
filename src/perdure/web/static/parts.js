// What an answer is made of, on the page: texts, thoughts, calls of tools, sources, files, data.
//
// The server draws the same with _parts.html, whose pieces are also the templates that are cloned here. What
// the server drew is taken over, not drawn again.

import { isTool, toolName } from "./fold.js";
import { AnswerBody } from "./markdown.js";

const TOOL_STATES = {
  "input-streaming": "Preparing…",
  "input-available": "Running…",
  "approval-requested": "Needs approval",
  "approval-responded": "Approved",
  "output-available": "Done",
  "output-error": "Failed",
  "output-denied": "Refused",
};

export const template = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

/** Web addresses, and files that came with the message or lie on this server; nothing that could run. */
export function safeAddress(url, { web = true } = {}) {
  if (/^\/(?!\/)/.test(url)) return url;
  if (/^data:/i.test(url)) return web ? null : url;
  return /^https?:\/\//i.test(url) ? url : null;
}

const asText = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "");

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
  node.hidden = text === "";
}

/** Parts in the order in which they are shown: sources come together, at the end. */
function blocksOf(parts) {
  const blocks = [];
  const sources = [];
  for (const part of parts) {
    if (part.type === "text" || part.type === "reasoning") {
      if (part.text !== "" || (part.type === "reasoning" && part.state === "streaming")) blocks.push({ kind: part.type, part });
    } else if (isTool(part)) blocks.push({ kind: "tool", part });
    else if (part.type === "file") blocks.push({ kind: isPicture(part) ? "picture" : "file", part });
    else if (part.type.startsWith("source-")) sources.push(part);
    else if (part.type.startsWith("data-")) blocks.push({ kind: "data", part });
  }
  if (sources.length > 0) blocks.push({ kind: "sources", part: sources });
  return blocks;
}

/** Pictures from elsewhere are links: fetching one tells its server who reads this, and when. */
export const isPicture = ({ mediaType, url }) => /^image\//.test(mediaType) && (/^data:image\//i.test(url) || /^\/(?!\/)/.test(url));

export class PartsView {
  #bodies = new WeakMap();
  #shown = new WeakMap(); // node -> what it shows

  constructor(container) {
    this.container = container;
  }

  /** `live`: the answer grows; `waiting`: it waits for someone. */
  show(parts, { live, waiting }) {
    const blocks = blocksOf(parts);
    blocks.forEach(({ kind, part }, index) => {
      let node = this.container.children[index];
      if (node?.dataset.kind !== kind) {
        const fresh = template(`${kind}-part`);
        if (node) node.replaceWith(fresh);
        else this.container.append(fresh);
        node = fresh;
      }
      this.#draw(node, kind, part, live && part.state === "streaming", waiting);
    });
    const growing = live && blocks.some(({ kind, part }) => kind === "text" && part.state === "streaming");
    this.container.toggleAttribute("data-growing", growing); // else dots say that more is to come
    while (this.container.children.length > blocks.length) this.container.lastElementChild.remove();
  }

  #draw(node, kind, part, growing, waiting) {
    if (kind === "text") return this.#drawText(node, part.text, growing);
    const shown = this.#shown.get(node);
    const state = `${part.state} ${waiting} ${growing} ${part.text?.length ?? part.length}`;
    if (shown?.part === part && shown.state === state) return;
    this.#shown.set(node, { part, state });
    DRAW[kind](node, part, waiting);
  }

  #drawText(node, text, growing) {
    const shown = this.#shown.get(node);
    if (shown?.text === text && shown.growing === growing) return;
    this.#shown.set(node, { text, growing });
    if (!this.#bodies.has(node)) this.#bodies.set(node, new AnswerBody(node));
    this.#bodies.get(node).show(text, growing);
  }
}

const DRAW = {
  reasoning(node, part) {
    set(node.querySelector(".reasoning-label"), part.state === "streaming" ? "Thinking…" : "Thoughts");
    set(node.querySelector(".reasoning-text"), part.text);
  },

  tool(node, part, waiting) {
    const asked = part.state === "approval-requested" && waiting;
    const wanted = part.state === "input-available" && waiting && !part.providerExecuted;
    const name = part.title || toolName(part);
    const [ask, give] = [node.querySelector(".tool-ask"), node.querySelector(".tool-give")];
    if ((asked && ask.hidden) || (wanted && give.hidden)) node.querySelector("details").open = true;
    node.dataset.call = part.toolCallId;
    node.dataset.state = part.state;
    node.toggleAttribute("data-preliminary", Boolean(part.preliminary));
    node.setAttribute("aria-label", `Tool ${name}`);
    set(node.querySelector(".tool-name"), name);
    set(node.querySelector(".tool-state"), toolState(part, wanted));
    pair(node, "input", part.input === undefined || part.state === "input-streaming" ? part.rawInput ?? "" : asText(part.input));
    pair(node, "output", part.state === "output-available" ? asText(part.output) : "");
    set(node.querySelector(".tool-error"), toolTrouble(part));
    ask.hidden = !asked;
    give.hidden = !wanted;
    for (const button of node.querySelectorAll("button")) button.disabled = false;
  },

  sources(node, sources) {
    const list = node.querySelector("ol");
    const items = sources.map((source) => {
      const item = document.createElement("li");
      const address = source.type === "source-url" ? safeAddress(source.url) : null;
      const label = source.title || source.filename || source.url || "Document";
      if (address === null) item.textContent = label;
      else item.append(link(address, label));
      return item;
    });
    list.replaceChildren(...items);
  },

  picture(node, part) {
    const image = node.querySelector("img");
    if (image.getAttribute("src") !== part.url) image.src = part.url;
    image.alt = part.filename ?? "Picture";
  },

  file(node, part) {
    const anchor = node.querySelector("a");
    const address = safeAddress(part.url, { web: false });
    if (address === null) anchor.removeAttribute("href");
    else anchor.href = address;
    anchor.download = part.filename ?? "";
    set(anchor.querySelector(".file-name"), part.filename ?? part.mediaType);
  },

  data(node, part) {
    set(node.querySelector(".data-label"), part.type.slice("data-".length));
    set(node.querySelector("pre"), asText(part.data));
  },
};

export function drawFile(part) {
  const kind = isPicture(part) ? "picture" : "file";
  const node = template(`${kind}-part`);
  DRAW[kind](node, part);
  return node;
}

function pair(node, name, text) {
  set(node.querySelector(`.tool-${name}`), text);
  node.querySelector(`.tool-${name}-label`).hidden = text === "";
}

function toolState(part, wanted) {
  if (wanted) return "Waits for a result";
  if (part.state === "approval-responded" && part.approval?.approved === false) return "Refused";
  if (part.state === "output-available" && part.preliminary) return "Running…";
  return TOOL_STATES[part.state] ?? part.state;
}

function toolTrouble(part) {
  if (part.state === "output-error") return part.errorText ?? "";
  return part.state === "output-denied" || part.approval?.approved === false ? part.approval?.reason ?? "" : "";
}

function link(address, label) {
  const node = document.createElement("a");
  Object.assign(node, { href: address, textContent: label, target: "_blank", rel: "noopener noreferrer nofollow" });
  return node;
}
