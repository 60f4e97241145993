// Markdown in the browser, for answers that are still being written.
//
// It builds the same tree as the server's markdown.py for what people and models write in chats; at
// an answer's end the page fetches the server's rendering, and only blocks that differ are replaced
// (code, which then has its colours). Text enters the page by createElement and text nodes only.

const MARKDOWN_CHARACTERS_MAX = 100_000; // as in markdown.py: longer texts are shown as they are

const FENCE = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})[ \t]*(.*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-+*]|(\d{1,9})[.)])(?:( +)(.*)|)$/;
const SETEXT = /^ {0,3}(=+|-+)[ \t]*$/;
const DELIMITER_ROW = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const BARE_LINK = /^https?:\/\/[^\s<>"'`*[\]{}|\\^]+/;
const SAFE_LINK = /^(?:https?:\/\/|mailto:)/i;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const NESTING_MAX = 20; // as in markdown.py; deeper quotes and lists become text
const EMPHASIS_REACH_MAX = 1_000; // delimiters looked back over, so that no text takes quadratic time

function element(tag, attributes = {}, children = []) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function linkElement(address, children, title) {
  const attributes = { href: address, target: "_blank", rel: "noopener noreferrer nofollow" };
  if (title) attributes.title = title;
  return element("a", attributes, children);
}

const isBlank = (line) => line === undefined || line.trim() === "";
const indentOf = (line) => line.length - line.trimStart().length;

function startsBlock(lines, at) {
  const line = lines[at];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line) || QUOTE.test(line)) return true;
  const item = ITEM.exec(line);
  if (item && item[5]?.trim() && (item[3] === undefined || Number(item[3]) === 1)) return true;
  return isTable(lines, at);
}

function splitRow(line) {
  const cells = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1").split(/(?<!\\)\|/);
  return cells.map((cell) => cell.trim().replaceAll("\\|", "|"));
}

function isTable(lines, at) {
  const [head, rule] = [lines[at], lines[at + 1]];
  if (rule === undefined || !head.includes("|") || !DELIMITER_ROW.test(rule)) return false;
  return splitRow(head).length === splitRow(rule).length && indentOf(head) < 4;
}

// Lines -> blocks. A block knows its raw text, so that an unchanged one is never built again.
function parseBlocks(lines, depth = 0) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (isBlank(lines[at])) {
      at += 1;
      continue;
    }
    const block = readBlock(lines, at, depth);
    block.gapBefore = at > 0 && isBlank(lines[at - 1]);
    block.raw = lines.slice(at, block.end).join("\n");
    blocks.push(block);
    at = block.end;
  }
  return blocks;
}

function readBlock(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return readFence(lines, at);
  const heading = HEADING.exec(line);
  if (heading) return { kind: "heading", level: heading[1].length, text: heading[2] ?? "", end: at + 1 };
  if (RULE.test(line)) return { kind: "rule", end: at + 1 };
  if (depth < NESTING_MAX && QUOTE.test(line)) return readQuote(lines, at, depth);
  if (depth < NESTING_MAX && ITEM.test(line)) return readList(lines, at, depth);
  if (indentOf(line) >= 4) return readIndented(lines, at);
  if (isTable(lines, at)) return readTable(lines, at);
  return readParagraph(lines, at);
}

function readFence(lines, at) {
  const [, indent, marks, info] = FENCE.exec(lines[at]);
  const closing = new RegExp(`^ {0,3}${marks[0]}{${marks.length},}[ \\t]*$`);
  const margin = new RegExp(`^ {0,${indent.length}}`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  let code = lines.slice(at + 1, end).map((line) => line.replace(margin, ""));
  if (end === lines.length && code.at(-1) === "") code = code.slice(0, -1);
  const word = info.trim().split(" ", 1)[0];
  const language = /^[A-Za-z0-9_+#.-]{1,32}$/.test(word) ? word.toLowerCase() : "text";
  return { kind: "code", language, text: code.map((row) => row + "\n").join(""), end: Math.min(end + 1, lines.length) };
}

function readIndented(lines, at) {
  let end = at;
  for (let next = at; next < lines.length; next += 1) {
    if (isBlank(lines[next])) continue;
    if (indentOf(lines[next]) < 4) break;
    end = next + 1;
  }
  const text = lines.slice(at, end).map((line) => line.slice(4) + "\n").join("");
  return { kind: "code", language: "text", text, end };
}

function readQuote(lines, at, depth) {
  const inner = [];
  let end = at;
  for (; end < lines.length && !isBlank(lines[end]); end += 1) {
    if (QUOTE.test(lines[end])) inner.push(lines[end].replace(QUOTE, ""));
    else if (!isBlank(inner.at(-1)) && !startsBlock(lines, end)) inner.push(lines[end].trimStart());
    else break;
  }
  return { kind: "quote", blocks: parseBlocks(inner, depth + 1), end };
}

function readList(lines, at, depth) {
  const marker = ITEM.exec(lines[at]);
  const ordered = marker[3] !== undefined;
  const sign = marker[2].at(-1);
  const items = [];
  let loose = false;
  let end = at;
  while (end < lines.length) {
    const found = ITEM.exec(lines[end]);
    if (!found || found[2].at(-1) !== sign || RULE.test(lines[end])) break;
    if (items.length > 0 && isBlank(lines[end - 1])) loose = true;
    const item = readItem(lines, end, found);
    items.push(item.lines);
    end = item.end;
  }
  while (end > at && isBlank(lines[end - 1])) end -= 1;
  const parsed = items.map((inner) => parseBlocks(inner, depth + 1));
  loose ||= parsed.some((blocks) => blocks.some((block, index) => index > 0 && block.gapBefore));
  return { kind: "list", ordered, start: Number(marker[3] ?? 1), items: parsed, loose, end };
}

function readItem(lines, at, [, indent, sign, , spaces = " ", rest = ""]) {
  const padding = spaces.length > 4 || rest.trim() === "" ? 1 : spaces.length;
  const offset = indent.length + sign.length + padding;
  const inner = [spaces.slice(padding) + rest];
  let fenced = FENCE.test(inner[0]);
  let end = at + 1;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    if (isBlank(line)) {
      if (end === at + 1 && inner[0].trim() === "") break;
      inner.push("");
    } else if (indentOf(line) >= offset) {
      inner.push(line.slice(offset));
      if (FENCE.test(inner.at(-1))) fenced = !fenced;
    } else if (!fenced && !isBlank(inner.at(-1)) && !startsBlock(lines, end) && !ITEM.test(line)) {
      inner.push(line.trimStart());
    } else break;
  }
  return { lines: inner, end };
}

function readTable(lines, at) {
  const align = splitRow(lines[at + 1]).map((rule) =>
    rule.endsWith(":") ? (rule.startsWith(":") ? "center" : "right") : rule.startsWith(":") ? "left" : "");
  let end = at + 2;
  while (end < lines.length && !isBlank(lines[end]) && indentOf(lines[end]) < 4 && !startsBlock(lines, end)) end += 1;
  return { kind: "table", align, head: splitRow(lines[at]), rows: lines.slice(at + 2, end).map(splitRow), end };
}

function readParagraph(lines, at) {
  let end = at + 1;
  for (; end < lines.length && !isBlank(lines[end]); end += 1) {
    const underline = SETEXT.exec(lines[end]);
    if (underline) {
      const text = lines.slice(at, end).map((line) => line.trim()).join("\n");
      return { kind: "heading", level: underline[1][0] === "=" ? 1 : 2, text, end: end + 1 };
    }
    if (startsBlock(lines, end)) break;
  }
  const text = lines.slice(at, end).map((line) => line.trimStart()).join("\n").trimEnd();
  return { kind: "paragraph", text, end };
}

// `live`: the text goes on after this block, so an open ** or [ is taken as meant and not shown.
function buildBlock(block, live) {
  switch (block.kind) {
    case "heading": return element(`h${block.level}`, {}, inline(block.text, live));
    case "rule": return element("hr");
    case "code":
      return element("div", { class: "code", "data-lang": block.language },
        [element("pre", {}, [element("code", {}, block.text ? [block.text] : [])])]);
    case "quote": return element("blockquote", {}, buildBlocks(block.blocks, live));
    case "list": return buildList(block, live);
    case "table": return buildTable(block, live);
    default: return element("p", {}, inline(block.text, live));
  }
}

function buildBlocks(blocks, live) {
  return blocks.map((block, index) => buildBlock(block, live && index === blocks.length - 1));
}

function buildList(block, live) {
  const items = block.items.map((blocks, index) => {
    const last = live && index === block.items.length - 1;
    const children = blocks.flatMap((child, at) => {
      const childLive = last && at === blocks.length - 1;
      return child.kind === "paragraph" && !block.loose ? inline(child.text, childLive) : [buildBlock(child, childLive)];
    });
    return element("li", {}, children);
  });
  const attributes = block.ordered && block.start !== 1 ? { start: String(block.start) } : {};
  return element(block.ordered ? "ol" : "ul", attributes, items);
}

function buildTable(block, live) {
  const row = (cells, tag, last) => element("tr", {}, block.align.map((align, index) =>
    element(tag, align ? { class: `align-${align}` } : {},
      inline(cells[index] ?? "", last && index === cells.length - 1))));
  const parts = [element("thead", {}, [row(block.head, "th", false)])];
  const body = block.rows.map((cells, index) => row(cells, "td", live && index === block.rows.length - 1));
  if (body.length > 0) parts.push(element("tbody", {}, body));
  return element("table", {}, parts);
}

// Inline text -> nodes: one scan that collects pieces and runs of * _ ~, then pairs the runs.
function inline(source, live) {
  const text = live ? source.replace(/[*_~`[!<]+$/, "") : source;
  const pieces = [];
  let plain = "";
  const flush = () => {
    if (plain) pieces.push({ node: document.createTextNode(plain) });
    plain = "";
  };
  let at = 0;
  while (at < text.length) {
    const found = readSpecial(text, at, live);
    if (!found) {
      plain += text[at];
      at += 1;
    } else {
      if (found.text !== undefined) plain = (found.trim ? plain.trimEnd() : plain) + found.text;
      if (found.pieces) {
        if (found.trim) plain = plain.trimEnd();
        flush();
        pieces.push(...found.pieces);
      }
      at = found.end;
    }
  }
  flush();
  pairRuns(pieces, live);
  const nodes = pieces.map((piece) => piece.node ?? document.createTextNode(piece.sign.repeat(piece.count)));
  const parent = element("span", {}, nodes);
  parent.normalize();
  return [...parent.childNodes];
}

function readSpecial(text, at, live) {
  switch (text[at]) {
    case "\\":
      if (text[at + 1] === "\n") return lineBreak(text, at + 1);
      return ESCAPABLE.test(text[at + 1] ?? "") ? { text: text[at + 1], end: at + 2 } : null;
    case "\n": return lineBreak(text, at);
    case "`": return readCode(text, at, live);
    case "*": case "_": case "~": return readRun(text, at);
    case "[": return readLink(text, at, at, live);
    case "!": return text[at + 1] === "[" ? readLink(text, at + 1, at, live) : null;
    case "<": return readAutolink(text, at);
    case "&": return readEntity(text, at);
    case "h": return readBareLink(text, at);
    default: return null;
  }
}

function lineBreak(text, at) {
  let end = at + 1;
  while (text[end] === " ") end += 1;
  return { pieces: [{ node: element("br") }, { node: document.createTextNode("\n") }], trim: true, end };
}

function readCode(text, at, live) {
  const ticks = /^`+/.exec(text.slice(at))[0];
  const inside = at + ticks.length;
  const pattern = new RegExp(`(?<!\`)${ticks}(?!\`)`, "g");
  pattern.lastIndex = inside;
  const closing = pattern.exec(text);
  if (!closing && !live) return { text: ticks, end: inside };
  let code = text.slice(inside, closing ? closing.index : text.length).replaceAll("\n", " ");
  if (/^ .*[^ ].* $/.test(code) || /^ [^ ] $/.test(code)) code = code.slice(1, -1);
  const node = element("code", {}, code ? [code] : []);
  return { pieces: code ? [{ node }] : [], end: closing ? closing.index + ticks.length : text.length };
}

function readRun(text, at) {
  const sign = text[at];
  let end = at;
  while (text[end] === sign) end += 1;
  const count = end - at;
  if (sign === "~" && count < 2) return { text: sign, end };
  const [before, after] = [text[at - 1] ?? " ", text[end] ?? " "];
  const [spaceBefore, spaceAfter] = [/\s/.test(before), /\s/.test(after)];
  const [markBefore, markAfter] = [PUNCTUATION.test(before), PUNCTUATION.test(after)];
  const left = !spaceAfter && (!markAfter || spaceBefore || markBefore);
  const right = !spaceBefore && (!markBefore || spaceAfter || markAfter);
  const opens = sign === "_" ? left && (!right || markBefore) : left;
  const closes = sign === "_" ? right && (!left || markAfter) : right;
  return { pieces: [{ sign, count, length: count, opens, closes }], end };
}

function readLink(text, bracket, at, live) {
  let depth = 0;
  let close = bracket;
  for (; close < text.length; close += 1) {
    if (text[close] === "\\") close += 1;
    else if (text[close] === "[") depth += 1;
    else if (text[close] === "]" && (depth -= 1) === 0) break;
  }
  const label = text.slice(bracket + 1, close);
  if (close >= text.length) return live && depth === 1 ? { text: "", end: bracket + 1 } : null;
  const target = /^\(\s*(?:<([^<>\n]*)>|((?:[^\s()\\]|\\.|\([^\s()]*\))*))(?:\s+(?:"([^"]*)"|'([^']*)'|\(([^()]*)\)))?\s*\)/
    .exec(text.slice(close + 1));
  if (!target) {
    const unfinished = live && /^$|^\([^\s()]*(?:\([^\s()]*\)?)*(?:\s+"?[^"]*"?)?$/.test(text.slice(close + 1));
    return unfinished ? { pieces: inline(label, false).map((node) => ({ node })), end: text.length } : null;
  }
  const address = (target[1] ?? target[2]).replace(/\\([!-/:-@[-`{-~])/g, "$1")
    .replace(/[^\x21-\x7e]/gu, (sign) => encodeURIComponent(sign.isWellFormed() ? sign : "\ufffd"));
  if (!SAFE_LINK.test(address)) return null;
  const end = close + 1 + target[0].length;
  const title = target[3] ?? target[4] ?? target[5];
  // A picture becomes a link: nothing is fetched before someone clicks.
  const nodes = inline(label, false);
  const children = at < bracket ? [nodes.map((node) => node.textContent).join("") || address] : nodes;
  return { pieces: [{ node: linkElement(address, children, at < bracket ? "" : title) }], end };
}

function readAutolink(text, at) {
  const found = /^<((?:https?:\/\/|mailto:)[^\s<>]*)>/i.exec(text.slice(at));
  const mail = found ? null : /^<([\w.+-]+@[\w-]+(?:\.[\w-]+)+)>/.exec(text.slice(at));
  if (!found && !mail) return null;
  const [whole, label] = found ?? mail;
  return { pieces: [{ node: linkElement(mail ? `mailto:${label}` : label, [label]) }], end: at + whole.length };
}

function readBareLink(text, at) {
  if (at > 0 && /[A-Za-z0-9]/.test(text[at - 1])) return null;
  const found = BARE_LINK.exec(text.slice(at, at + 2_048));
  if (!found) return null;
  let address = found[0];
  const count = (sign) => address.split(sign).length;
  while (/[.,;:!?_~]$/.test(address) || (address.endsWith(")") && count(")") > count("("))) {
    address = address.slice(0, -1);
  }
  if (address.endsWith("://") || address.endsWith("/") && /^https?:\/+$/.test(address)) return null;
  return { pieces: [{ node: linkElement(address, [address]) }], end: at + address.length };
}

function readEntity(text, at) {
  const found = /^&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});/.exec(text.slice(at, at + 40));
  if (!found) return null;
  const decoded = new DOMParser().parseFromString(found[0], "text/html").body.textContent;
  return { text: decoded, end: at + found[0].length };
}

// CommonMark's rules for which run closes which.
function pairRuns(pieces, live) {
  for (let at = 0; at < pieces.length; at += 1) {
    const closer = pieces[at];
    if (!closer.closes) continue;
    let from = at - 1;
    const bottom = Math.max(0, at - EMPHASIS_REACH_MAX);
    while (from >= bottom && !pairs(pieces[from], closer)) from -= 1;
    if (from < bottom) continue;
    at = wrapRun(pieces, from, at) - 1;
  }
  if (!live) return;
  for (let at = pieces.length - 2; at >= 0; at -= 1) {
    if (!pieces[at].opens || pieces[at].count < 1) continue;
    pieces.push({ sign: pieces[at].sign, count: pieces[at].count, closes: true });
    while (pieces[at]?.sign && pieces.at(-1).sign) wrapRun(pieces, at, pieces.length - 1);
  }
}

function pairs(opener, closer) {
  if (opener.sign !== closer.sign || !opener.opens) return false;
  if (closer.sign === "~") return opener.count >= 2 && closer.count >= 2;
  const sum = opener.length + closer.length;
  const bothWays = opener.closes || closer.opens;
  return !(bothWays && sum % 3 === 0 && (opener.length % 3 !== 0 || closer.length % 3 !== 0));
}

function wrapRun(pieces, from, to) {
  const [opener, closer] = [pieces[from], pieces[to]];
  const strong = opener.count >= 2 && closer.count >= 2;
  const used = strong ? 2 : 1;
  const tag = opener.sign === "~" ? "s" : strong ? "strong" : "em";
  const inner = pieces.slice(from + 1, to).map((piece) => piece.node ?? piece.sign.repeat(piece.count));
  opener.count -= used;
  closer.count -= used;
  const wrapped = [{ node: element(tag, {}, inner) }];
  if (opener.count > 0) wrapped.unshift(opener);
  if (closer.count > 0) wrapped.push(closer);
  pieces.splice(from, to - from + 1, ...wrapped);
  return from + wrapped.length - (closer.count > 0 ? 1 : 0);
}

// Without the end of an unfinished text that may still turn out to be something else: "-" may become
// a list, a rule or a heading, "| a |" a table. Showing it now would show it twice, differently.
function holdBack(text) {
  const lines = text.split("\n");
  let fence = "";
  for (const line of lines.slice(0, -1)) {
    const found = FENCE.exec(line.replace(/^(?:[ \t>]*(?:[-+*]|\d{1,9}[.)])[ \t]+)+|^[ \t>]+/, ""));
    if (!found) continue;
    if (!fence) fence = found[2];
    else if (found[2].startsWith(fence) && !found[3]) fence = "";
  }
  const last = lines.at(-1);
  if (fence) return /^\s*[`~]+$/.test(last) ? lines.slice(0, -1).join("\n") : text;
  if (/^[ \t>]*(?:[-+*=_`~#:>]+|\d{1,9}[.)]?)$/.test(last)) return lines.slice(0, -1).join("\n");
  let top = lines.length - 1;
  while (top > 0 && /^\s*\|/.test(lines[top - 1])) top -= 1;
  if (!/^\s*\|/.test(lines[top]) || isTable(lines, top) || lines.length - top > 2) return text;
  return lines.slice(0, top).join("\n");
}

const linesOf = (text) => text.replaceAll("\r\n", "\n").split("\n").map((line) => line
  .replace(/^[ \t]+/, (space) => space.replaceAll("\t", "    "))
  .replace(/^( *(?:[-+*]|\d{1,9}[.)]))\t/, (_, marker) => marker.padEnd(4 * Math.floor(marker.length / 4 + 1))));

/** The nodes for a whole text. `live` says that more text follows. */
export function renderMarkdown(text, live = false) {
  if (text.length > MARKDOWN_CHARACTERS_MAX) return [element("p", { class: "plain" }, [text])];
  return buildBlocks(parseBlocks(linesOf(live ? holdBack(text) : text)), live);
}

// ------------------------------------------------------------------- onto the page

const BLOCK_TAGS = new Set("P UL OL LI BLOCKQUOTE DIV PRE CODE H1 H2 H3 H4 H5 H6 TABLE THEAD TBODY TR TD TH".split(" "));

// Equal but for what the page adds (copy buttons, the caret) and the server's blank text between blocks.
function sameBlock(left, right) {
  const plain = (node) => {
    const copy = node.cloneNode(true);
    for (const button of copy.querySelectorAll(".copy")) button.remove();
    for (const tail of [copy, ...copy.querySelectorAll(".tail")]) dropTail(tail);
    for (const holder of [copy, ...copy.querySelectorAll("ul,ol,li,blockquote,table,thead,tbody,tr")]) {
      for (const child of [...holder.childNodes]) {
        if (child.nodeType === Node.TEXT_NODE && child.data.trim() === "" && child.data.includes("\n")
          && child.previousSibling?.nodeName !== "BR") child.remove();
        else if (child.nodeType === Node.TEXT_NODE && child.nextSibling && BLOCK_TAGS.has(child.nextSibling.nodeName)
          && holder.nodeName === "LI") child.data = child.data.trimEnd();
      }
    }
    copy.normalize();
    return copy;
  };
  return plain(left).isEqualNode(plain(right));
}

function dropTail(node) {
  node.classList.remove("tail");
  if (node.getAttribute("class") === "") node.removeAttribute("class");
}

/** Puts `nodes` in the place of the body's blocks; those that are the same stay untouched. */
export function reconcile(body, nodes) {
  nodes.forEach((node, index) => {
    const old = body.children[index];
    if (!old) body.append(node);
    else if (!sameBlock(old, node)) old.replaceWith(node);
  });
  while (body.children.length > nodes.length) body.lastElementChild.remove();
  decorateCode(body);
}

export function decorateCode(root) {
  for (const block of root.querySelectorAll(".code")) {
    if (block.querySelector(".copy")) continue;
    block.append(element("button", { type: "button", class: "copy", "aria-label": "Copy code" }, ["Copy"]));
  }
}

/** Shows a growing text. Blocks that did not change keep their nodes, selection and scroll position. */
export class AnswerBody {
  constructor(body) {
    this.body = body;
    this.keys = [];
  }

  show(text, live) {
    if (text.length > MARKDOWN_CHARACTERS_MAX) {
      this.keys = [];
      reconcile(this.body, renderMarkdown(text));
      return;
    }
    const blocks = parseBlocks(linesOf(live ? holdBack(text) : text));
    const old = this.body.querySelector(".tail");
    if (old) dropTail(old);
    blocks.forEach((block, index) => this.#place(block, index, live && index === blocks.length - 1));
    this.keys.length = blocks.length;
    while (this.body.children.length > blocks.length) this.body.lastElementChild.remove();
    decorateCode(this.body);
    if (live) this.#markTail();
  }

  #place(block, index, live) {
    const key = `${live ? "live" : "done"} ${block.kind} ${block.raw}`;
    const old = this.body.children[index];
    if (old && this.keys[index] === key) return;
    const wasShown = this.keys[index] !== undefined;
    this.keys[index] = key;
    const node = buildBlock(block, live);
    if (!old) {
      this.body.append(node);
      return;
    }
    if (old.className === "code" && node.className === "code" && old.dataset.lang === node.dataset.lang) {
      const [shown, wanted] = [old.querySelector("code"), node.querySelector("code").textContent];
      if (shown.textContent === wanted) return; // the server's has colours
      if (wasShown && wanted.startsWith(shown.textContent.trimEnd())) {
        shown.textContent = wanted;
        return;
      }
    }
    if (!sameBlock(old, node)) old.replaceWith(node);
  }

  #markTail() {
    let tail = this.body.lastElementChild;
    while (tail?.lastElementChild && BLOCK_TAGS.has(tail.lastElementChild.nodeName) && tail.nodeName !== "CODE") {
      if (tail.nodeName === "P" || tail.nodeName.startsWith("H")) break;
      if (tail.className === "code") tail = tail.querySelector("code");
      else if (tail.nodeName === "TR") tail = [...tail.children].findLast((cell) => cell.textContent) ?? tail.lastElementChild;
      else tail = tail.lastElementChild;
    }
    tail?.classList.add("tail");
  }
}
