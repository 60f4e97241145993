// The chat page's script. No build step, nothing from elsewhere; markdown.js is its only import.
//
//   Transcript    the messages on the page; the room's frames change it
//   Connection    the WebSocket: reconnects, notices dead lines, says where it left off
//   Outbox        messages that the server has not acknowledged yet
//   Reader        scrolling: follows the newest line, but never moves someone who reads above
//   ChatPage      joins them: composer, names, announcements
//
// Text from people and models enters the page by textContent only. HTML is taken from our own
// server alone, where it was sanitised.

import { AnswerBody, decorateCode, reconcile } from "./markdown.js";

const BACKOFF_MIN_MS = 250;
const BACKOFF_MAX_MS = 5_000;
const CONNECT_TIMEOUT_MS = 8_000;
const PING_EVERY_MS = 20_000;
const PONG_WITHIN_MS = 6_000;
const BANNER_AFTER_MS = 700; // a reconnect that is quicker than this is nobody's business
const RESEND_AFTER_MS = 1_500;
const NOTICE_FOR_MS = 7_000;
const NEAR_BOTTOM_PX = 48;
const OLDER_LIMIT = 50;
const PERSON_COLOURS = 8; // as in pages.py

const byId = (id) => document.getElementById(id);

/** Storage that may be forbidden, full or absent: then the page works without it. */
function remember(store, key, value) {
  try {
    if (value === null) store().removeItem(key);
    else store().setItem(key, value);
  } catch { /* the value lives as long as the page */ }
}

function recall(store, key) {
  try {
    return store().getItem(key);
  } catch {
    return null;
  }
}

const perTab = () => sessionStorage;
const perBrowser = () => localStorage;

/** crypto.randomUUID exists on https and localhost only; a page in a home network has neither. */
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

function personColour(name) {
  let value = 0;
  for (const character of name) value = (value * 31 + character.codePointAt(0)) % 9973;
  return value % PERSON_COLOURS;
}

function articlesOf(html) {
  return [...new DOMParser().parseFromString(html, "text/html").querySelectorAll("article.message")]
    .map((article) => document.adoptNode(article));
}

// ------------------------------------------------------------------------------ Transcript

class Transcript {
  #answers = new Map(); // id of a streaming answer -> { view, source, offset }
  #dirty = new Set();
  #frame = 0;

  constructor(page, offset) {
    this.page = page;
    this.offset = offset;
    this.log = byId("log");
    for (const article of this.articles()) this.#adopt(article);
  }

  articles() {
    return [...this.log.children];
  }

  find(id) {
    return this.log.querySelector(`article[data-id="${CSS.escape(id)}"]`);
  }

  streamingIds() {
    return [...this.#answers.keys()];
  }

  oldest() {
    return this.log.querySelector("article:not([data-pending])");
  }

  /** Frames that this page has already applied change nothing, whatever the reason they come again. */
  apply(frame) {
    switch (frame.type) {
      case "init": this.#reset(frame); break;
      case "message": this.put(frame.message); break;
      case "delta": case "update": case "complete":
        if (!this.find(frame.messageId)) return this.page.resync(); // a gap: start again from a full init
        if (frame.type === "complete") this.#finish(frame);
        else this.#grow(frame);
        break;
      case "remove": for (const id of frame.messageIds) this.#drop(id); break;
      default: return;
    }
    if (frame.offset && (frame.type === "init" || !(frame.offset < this.offset))) this.offset = frame.offset;
    this.page.transcriptChanged(frame);
  }

  put(message) {
    const article = this.find(message.id);
    if (!article) return this.#insert(message);
    if (message.role === "user") {
      if ("pending" in article.dataset) this.#confirm(article, message);
    } else if (this.#answers.has(message.id) || message.status === "streaming") {
      this.#setAnswer(article, message);
    }
    return article;
  }

  addPending(entry) {
    const article = this.#build({ id: entry.id, role: "user", content: entry.content, user: entry.user, timestamp: Date.now() });
    article.dataset.pending = "";
    this.log.append(article);
    return article;
  }

  prepend(articles) {
    const fresh = articles.filter((article) => !this.find(article.dataset.id));
    this.log.prepend(...fresh);
    for (const article of fresh) this.#adopt(article);
  }

  /** Whose messages are mine depends on my name, which only this browser may know. */
  markOwners() {
    for (const article of this.articles()) this.#markOwner(article);
  }

  #markOwner(article) {
    if (article.dataset.role !== "user") return;
    const name = article.dataset.user;
    const theirs = name !== "" && name !== this.page.name && !("pending" in article.dataset);
    article.classList.toggle("theirs", theirs);
    article.classList.toggle(`hue-${personColour(name)}`, theirs);
  }

  #adopt(article) {
    this.#markOwner(article);
    localTime(article.querySelector("time"));
    decorateCode(article);
    if (article.dataset.status !== "streaming") return;
    const source = article.dataset.source ?? "";
    delete article.dataset.source;
    this.#track(article, source, this.offset);
  }

  #track(article, source, offset) {
    const id = article.dataset.id;
    const answer = this.#answers.get(id) ?? { view: new AnswerBody(article.querySelector(".body")), source: "", offset };
    answer.source = source;
    this.#answers.set(id, answer);
    article.dataset.status = "streaming";
    article.setAttribute("aria-busy", "true");
    this.#show(id);
  }

  #reset({ messages, more, offset }) {
    const oldest = messages[0]?.id;
    const known = oldest !== undefined && more && this.find(oldest);
    const kept = new Set(messages.map((message) => message.id));
    let above = Boolean(known); // what is older than the server's first message stays, if there is no gap
    for (const article of this.articles()) {
      if (article.dataset.id === oldest) above = false;
      if (!above && !kept.has(article.dataset.id) && !("pending" in article.dataset)) this.#drop(article.dataset.id);
    }
    this.offset = offset;
    let previous = null;
    for (const message of messages) {
      const article = this.put(message);
      if (previous && previous.nextElementSibling !== article) previous.after(article);
      previous = article;
    }
    for (const pending of this.log.querySelectorAll("article[data-pending]")) this.log.append(pending);
    if (!known) this.page.setMore(Boolean(more));
  }

  #insert(message) {
    const article = this.#build(message);
    const pending = this.log.querySelector("article[data-pending]");
    this.log.insertBefore(article, pending);
    if (message.role === "assistant") this.#setAnswer(article, message);
    return article;
  }

  #build(message) {
    const template = byId(message.role === "assistant" ? "answer-template" : "user-template");
    const article = template.content.firstElementChild.cloneNode(true);
    article.dataset.id = message.id;
    const time = article.querySelector("time");
    time.dateTime = new Date(message.timestamp ?? Date.now()).toISOString();
    localTime(time);
    if (message.role !== "assistant") {
      article.dataset.user = message.user ?? "";
      article.querySelector(".who").textContent = message.user ?? "";
      article.querySelector(".bubble").textContent = message.content;
      if (message.user) article.setAttribute("aria-label", `Message from ${message.user}`);
      this.#markOwner(article);
    }
    return article;
  }

  #confirm(article, message) {
    delete article.dataset.pending;
    delete article.dataset.failed;
    article.querySelector(".bubble").textContent = message.content;
    article.dataset.user = message.user ?? "";
    article.querySelector(".who").textContent = message.user ?? "";
    this.#markOwner(article);
    const firstPending = this.log.querySelector("article[data-pending]");
    const early = firstPending && firstPending.compareDocumentPosition(article) & Node.DOCUMENT_POSITION_FOLLOWING;
    const late = article.nextElementSibling && !("pending" in article.nextElementSibling.dataset);
    if (early || late) this.log.insertBefore(article, firstPending);
  }

  #setAnswer(article, message) {
    if ((message.status ?? "complete") === "streaming") {
      article.querySelector(".outcome-text").textContent = "";
      this.#track(article, message.content, "");
    } else {
      this.#settle(article, message.content, message.status ?? "complete", message.error);
      if (article.querySelector(".code")) this.refine(message.id);
    }
  }

  #grow(frame) {
    const answer = this.#answers.get(frame.messageId);
    if (!answer || (frame.offset && frame.offset <= answer.offset)) return;
    answer.offset = frame.offset ?? answer.offset;
    answer.source = frame.type === "delta" ? answer.source + frame.delta : frame.content;
    this.#dirty.add(frame.messageId);
    if (document.hidden || this.#frame) return; // a hidden page is drawn when it is looked at
    this.#frame = requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    for (const id of this.#dirty) this.#show(id);
    this.#dirty.clear();
  }

  #show(id) {
    const { view, source } = this.#answers.get(id) ?? {};
    if (view) view.show(source, true);
  }

  #finish(frame) {
    const article = this.find(frame.messageId);
    const wasStreaming = this.#answers.has(frame.messageId);
    if (!wasStreaming && article.dataset.status === (frame.status ?? "complete")) return;
    this.#settle(article, frame.content, frame.status ?? "complete", frame.error);
    this.page.announceAnswer(article);
    this.refine(frame.messageId);
  }

  #settle(article, content, status, error) {
    const id = article.dataset.id;
    const view = this.#answers.get(id)?.view ?? new AnswerBody(article.querySelector(".body"));
    this.#answers.delete(id);
    this.#dirty.delete(id);
    view.show(content, false);
    article.dataset.status = status;
    article.removeAttribute("aria-busy");
    const words = { failed: error || "The answer failed.", aborted: "Stopped" };
    article.querySelector(".outcome-text").textContent = words[status] ?? "";
    article.querySelector(".retry").disabled = false;
  }

  /** Takes the server's rendering of a settled answer; blocks that are equal already are not touched. */
  async refine(id) {
    try {
      const response = await fetch(`${this.page.roomUrl}/messages/${encodeURIComponent(id)}`);
      if (!response.ok) return;
      const [fresh] = articlesOf(await response.text());
      const article = this.find(id);
      if (!fresh || !article || this.#answers.has(id) || fresh.dataset.status === "streaming") return;
      reconcile(article.querySelector(".body"), [...fresh.querySelector(".body").children]);
    } catch { /* offline: our own rendering stays, which says the same */ }
  }

  #drop(id) {
    this.#answers.delete(id);
    this.#dirty.delete(id);
    this.find(id)?.remove();
  }
}

function localTime(time) {
  const when = new Date(time?.dateTime || NaN);
  if (Number.isNaN(when.getTime())) return;
  const today = when.toDateString() === new Date().toDateString();
  const day = today ? {} : { day: "numeric", month: "short" };
  time.textContent = when.toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" });
  time.title = when.toLocaleString();
}

// ------------------------------------------------------------------------------ Connection

class Connection {
  #socket = null;
  #timer = 0;
  #deadline = 0;
  #attempt = 0;
  #planned = false; // the server said that it goes down for a moment
  #settled = false; // the first frame came

  constructor({ address, onFrame, onState, onTooLong }) {
    Object.assign(this, { address, onFrame, onState, onTooLong });
    setInterval(() => this.#ping(), PING_EVERY_MS);
    for (const name of ["online", "offline", "pageshow"]) addEventListener(name, () => this.probe());
    document.addEventListener("visibilitychange", () => document.hidden || this.probe());
    addEventListener("pagehide", () => this.#drop()); // lets the browser keep the page for "back"
  }

  get online() {
    return this.#settled;
  }

  connect() {
    clearTimeout(this.#timer);
    this.#drop();
    this.#planned = false;
    const socket = new WebSocket(this.address());
    this.#socket = socket;
    this.#deadline = setTimeout(() => this.#lost(), CONNECT_TIMEOUT_MS);
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => {
      if (event.code === 1009) this.onTooLong();
      if (event.code === 1012) this.#planned = true;
      this.#lost();
    };
  }

  /** Finds out at once whether the line lives: the network changed, or someone looks again. */
  probe() {
    if (this.#socket === null) {
      this.#attempt = 0;
      this.connect();
    } else this.#ping();
  }

  /** False if there is no line to send on. */
  send(frame) {
    if (!this.#settled || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  restart() {
    this.#lost();
  }

  #ping() {
    if (!this.send({ type: "ping" })) return;
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#lost(), PONG_WITHIN_MS);
  }

  #receive(data) {
    clearTimeout(this.#deadline);
    const frame = JSON.parse(data);
    if (frame.type === "reconnect") this.#planned = true;
    this.onFrame(frame);
    if (this.#settled || (frame.type !== "init" && frame.type !== "resume")) return;
    this.#settled = true;
    this.#attempt = 0;
    this.onState("online");
  }

  #drop() {
    clearTimeout(this.#deadline);
    this.#settled = false;
    if (this.#socket === null) return;
    this.#socket.onclose = this.#socket.onmessage = null; // a dead line may take minutes to close
    this.#socket.close();
    this.#socket = null;
  }

  #lost() {
    this.#drop();
    clearTimeout(this.#timer);
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** this.#attempt);
    const delay = this.#planned ? BACKOFF_MIN_MS * Math.random() : ceiling * (0.5 + Math.random() / 2);
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.connect(), delay);
    this.onState("offline");
  }
}

// ---------------------------------------------------------------------------------- Outbox

/** Every message stays here until its own `message` frame comes back; a reload does not lose it. */
class Outbox {
  #timer = 0;

  constructor(page) {
    this.page = page;
    this.key = `perdure:outbox:${page.roomUrl}`;
    try {
      this.entries = JSON.parse(recall(perTab, this.key) ?? "[]");
    } catch {
      this.entries = [];
    }
  }

  /** Shows again what an earlier load of this tab could not deliver. */
  restore() {
    this.entries = this.entries.filter((entry) => !this.page.transcript.find(entry.id));
    for (const entry of this.entries) this.#mark(entry, this.page.transcript.addPending(entry));
    this.#save();
  }

  add(content) {
    const entry = { id: newId(), content, user: this.page.name };
    this.entries.push(entry);
    this.#save();
    const article = this.page.transcript.addPending(entry);
    this.#deliver(entry);
    return article;
  }

  /** The server takes an id once, so sending again is safe. */
  flush() {
    for (const entry of this.entries) if (!entry.error) this.#deliver(entry);
  }

  acknowledge(id) {
    const count = this.entries.length;
    this.entries = this.entries.filter((entry) => entry.id !== id);
    if (this.entries.length !== count) this.#save();
  }

  /** True if the error was about a message of ours. */
  refuse({ id, message, retryable }) {
    const entry = this.entries.find((each) => (id ? each.id === id : !each.error));
    if (!entry) return false;
    if (retryable) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.flush(), RESEND_AFTER_MS);
      return true;
    }
    entry.error = message;
    this.#mark(entry, this.page.transcript.find(entry.id));
    this.#save();
    return true;
  }

  resend(id) {
    const entry = this.entries.find((each) => each.id === id);
    if (!entry) return;
    delete entry.error;
    this.#mark(entry, this.page.transcript.find(id));
    this.#save();
    this.#deliver(entry);
  }

  discard(id) {
    this.acknowledge(id);
    this.page.transcript.find(id)?.remove();
  }

  #mark(entry, article) {
    if (!article) return;
    article.toggleAttribute("data-failed", Boolean(entry.error));
    article.querySelector(".outcome-text").textContent = entry.error ? `Not sent: ${entry.error}` : "";
  }

  #deliver({ id, content, user }) {
    this.page.connection.send(user ? { type: "message", id, content, user } : { type: "message", id, content });
  }

  #save() {
    remember(perTab, this.key, this.entries.length > 0 ? JSON.stringify(this.entries) : null);
  }
}

// ---------------------------------------------------------------------------------- Reader

/**
 * The scroller is a reversed column: its position is the distance from the newest line. Who is at
 * the bottom stays there while text grows, and older messages are added without a jump. Only who
 * reads further up must be held in place when text grows below.
 */
class Reader {
  constructor() {
    this.scroller = byId("scroller");
    this.column = this.scroller.firstElementChild;
    this.pill = byId("pill");
    this.unseen = false;
    this.following = !this.away;
    this.height = this.#measure();
    new ResizeObserver(() => this.#resized()).observe(this.column);
    this.scroller.addEventListener("scroll", () => {
      this.following = !this.away;
      this.#update();
    }, { passive: true });
    this.pill.addEventListener("click", () => this.toNewest());
  }

  get away() {
    return -this.scroller.scrollTop > NEAR_BOTTOM_PX;
  }

  news() {
    this.unseen ||= this.away;
    this.#update();
  }

  toNewest() {
    this.following = true;
    this.scroller.scrollTop = 0;
    this.#update();
  }

  /** Changes above what is being read need no correction. */
  above(change) {
    change();
    this.height = this.#measure();
  }

  #resized() {
    const height = this.#measure();
    if (this.following) this.scroller.scrollTop = 0;
    else this.scroller.scrollTop -= height - this.height;
    this.height = height;
    this.#update();
  }

  #measure() {
    return this.column.getBoundingClientRect().height;
  }

  #update() {
    if (!this.away) this.unseen = false;
    this.pill.hidden = !this.unseen && -this.scroller.scrollTop < this.scroller.clientHeight;
    this.pill.textContent = this.unseen ? "New messages" : "Newest";
  }
}

// -------------------------------------------------------------------------------- ChatPage

class ChatPage {
  constructor(app) {
    this.app = app;
    this.roomUrl = app.dataset.roomUrl;
    this.draft = byId("draft");
    this.draftKey = `perdure:draft:${this.roomUrl}`;
    this.nameFixed = app.dataset.userFixed === "true";
    this.name = this.nameFixed ? app.dataset.user : (recall(perBrowser, "perdure:user") ?? app.dataset.user);
    this.stopWanted = null; // the answer that was to be stopped while there was no line
    this.bannerTimer = 0;
    this.noticeTimer = 0;
    this.reader = new Reader();
    this.transcript = new Transcript(this, app.dataset.offset);
    this.outbox = new Outbox(this);
    this.connection = new Connection({
      address: () => this.#socketAddress(),
      onFrame: (frame) => this.#receive(frame),
      onState: (state) => this.#connectionChanged(state),
      onTooLong: () => this.outbox.refuse({ message: "it is too long", retryable: false }),
    });
  }

  start() {
    document.documentElement.classList.add("live");
    this.#bindComposer();
    this.#bindName();
    this.#bindLog();
    this.outbox.restore();
    this.transcriptChanged({});
    this.#connectionChanged("connecting");
    this.connection.connect();
    document.addEventListener("visibilitychange", () => document.hidden || this.transcript.draw());
    if (matchMedia("(pointer: fine)").matches) this.draft.focus({ preventScroll: true });
  }

  // ---- what the others call

  transcriptChanged(frame) {
    if (frame.type === "message") this.outbox.acknowledge(frame.message.id);
    if (frame.type === "init") for (const { id } of frame.messages) this.outbox.acknowledge(id);
    const streaming = this.transcript.streamingIds();
    if (!streaming.includes(this.stopWanted)) this.stopWanted = null;
    const stop = byId("stop");
    const hadFocus = document.activeElement === stop;
    stop.hidden = streaming.length === 0;
    stop.disabled = this.stopWanted !== null;
    if (stop.hidden && hadFocus) this.draft.focus();
    this.app.dataset.streaming = String(streaming.length > 0);
    if (frame.type === "message" || frame.type === "delta" || frame.type === "update") this.reader.news();
    if (frame.type === "message" && frame.message.role === "user") this.#announceOthers(frame.message);
  }

  setMore(more) {
    byId("older").hidden = !more;
  }

  resync() {
    this.transcript.offset = "";
    this.connection.restart();
  }

  /** A screen reader hears an answer once, whole, and not word by word. */
  announceAnswer(article) {
    const outcome = article.querySelector(".outcome-text").textContent;
    this.#announce(`Answer: ${article.querySelector(".body").textContent} ${outcome}`);
  }

  // ---- frames and the line

  #socketAddress() {
    const address = new URL(this.app.dataset.socketPath, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.searchParams.set("delta", "1");
    if (this.transcript.offset) address.searchParams.set("offset", this.transcript.offset);
    if (this.name) address.searchParams.set("user", this.name);
    return address.href;
  }

  #receive(frame) {
    if (frame.type !== "error") return this.transcript.apply(frame);
    for (const button of this.transcript.log.querySelectorAll(".retry")) button.disabled = false;
    if (!this.outbox.refuse(frame)) this.#notify(frame.message);
  }

  #connectionChanged(state) {
    this.app.dataset.connection = state;
    if (state === "online") {
      clearTimeout(this.bannerTimer);
      this.bannerTimer = 0;
      byId("banner").hidden = true;
      this.outbox.flush();
      if (this.stopWanted !== null) this.connection.send({ type: "stop" });
      return;
    }
    byId("banner-text").textContent = navigator.onLine ? "Connection lost. Reconnecting…" : "You are offline. Reconnecting…";
    const showBanner = () => { byId("banner").hidden = this.connection.online; };
    this.bannerTimer ||= setTimeout(showBanner, BANNER_AFTER_MS);
  }

  // ---- composer

  #bindComposer() {
    const { draft } = this;
    draft.value = draft.value || (recall(perTab, this.draftKey) ?? "");
    const changed = () => {
      byId("send").disabled = draft.value.trim() === "";
      remember(perTab, this.draftKey, draft.value || null);
      if (CSS.supports("field-sizing", "content")) return;
      draft.style.height = "auto";
      draft.style.height = `${draft.scrollHeight}px`;
    };
    this.draftChanged = changed;
    draft.addEventListener("input", changed);
    draft.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      this.#submit();
    });
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    byId("stop").addEventListener("click", () => this.#stop());
    byId("reconnect").addEventListener("click", () => this.connection.probe());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented) this.#stop();
    });
    changed();
  }

  #submit() {
    const content = this.draft.value.trim();
    if (content === "") return;
    const bytes = new TextEncoder().encode(content).length;
    const allowed = Number(this.app.dataset.messageBytesMax);
    if (bytes > allowed) {
      this.#notify(`This message is too long: ${bytes.toLocaleString()} bytes, ${allowed.toLocaleString()} are allowed.`);
      return;
    }
    this.#notify("");
    this.draft.value = "";
    this.draftChanged();
    this.outbox.add(content);
    this.reader.toNewest();
    this.draft.focus({ preventScroll: true });
  }

  #stop() {
    const [id] = this.transcript.streamingIds();
    if (id === undefined) return;
    this.stopWanted = id;
    byId("stop").disabled = true;
    this.connection.send({ type: "stop" });
    this.draft.focus({ preventScroll: true });
  }

  // ---- names

  #bindName() {
    const form = byId("name-form");
    const me = byId("me");
    if (this.nameFixed || !me) return;
    const input = byId("name");
    const shown = () => {
      me.hidden = false;
      me.textContent = this.name || "Set your name";
      me.title = "Change your name";
    };
    const choose = (name) => {
      this.name = name;
      remember(perBrowser, "perdure:user", name);
      this.#keepCookie();
      this.transcript.markOwners();
      form.hidden = true;
      shown();
      this.draft.focus({ preventScroll: true });
    };
    me.addEventListener("click", () => {
      form.hidden = !form.hidden;
      input.value = this.name;
      if (!form.hidden) input.focus();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      choose(input.value.trim().replace(/\s+/g, " "));
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      choose(this.name);
    });
    byId("name-skip").addEventListener("click", () => choose(this.name));
    addEventListener("storage", (event) => {
      if (event.key === "perdure:user" && event.newValue !== null) {
        this.name = event.newValue;
        this.transcript.markOwners();
        shown();
      }
    });
    form.hidden = recall(perBrowser, "perdure:user") !== null || this.name !== "";
    this.#keepCookie();
    shown();
  }

  /** The server reads it to draw my messages as mine from the first paint on. */
  #keepCookie() {
    const { userCookie, cookiePath } = this.app.dataset;
    const age = this.name ? 31_536_000 : 0;
    document.cookie = `${userCookie}=${encodeURIComponent(this.name)}; path=${cookiePath}; max-age=${age}; samesite=lax`;
  }

  // ---- the log

  #bindLog() {
    this.transcript.log.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      const id = button?.closest("article")?.dataset.id;
      if (!button) return;
      if (button.className === "copy") copyCode(button);
      if (button.className === "retry") button.disabled = this.connection.send({ type: "retry" });
      if (button.className === "resend") this.outbox.resend(id);
      if (button.className === "discard") this.outbox.discard(id);
    });
    const older = byId("older");
    older.addEventListener("click", (event) => {
      event.preventDefault();
      this.#loadOlder(older);
    });
    let scrolled = false;
    this.reader.scroller.addEventListener("scroll", () => { scrolled = true; }, { once: true });
    new IntersectionObserver((entries) => {
      if (scrolled && entries.some((entry) => entry.isIntersecting)) this.#loadOlder(older);
    }, { root: this.reader.scroller, rootMargin: "300px 0px 0px" }).observe(older);
  }

  async #loadOlder(older) {
    const oldest = this.transcript.oldest();
    if (!oldest || older.hasAttribute("aria-busy")) return;
    older.setAttribute("aria-busy", "true");
    try {
      const query = new URLSearchParams({ before: oldest.dataset.id, limit: String(OLDER_LIMIT) });
      const response = await fetch(`${this.roomUrl}/messages?${query}`);
      if (!response.ok) throw new Error(`status ${response.status}`);
      const articles = articlesOf(await response.text());
      this.reader.above(() => {
        this.transcript.prepend(articles);
        this.setMore(response.headers.get("x-perdure-more") === "true");
      });
    } catch {
      this.#notify("Earlier messages could not be loaded. Try again in a moment.");
    } finally {
      older.removeAttribute("aria-busy");
    }
  }

  // ---- words to the reader

  #notify(text) {
    clearTimeout(this.noticeTimer);
    const notice = byId("notice");
    notice.textContent = text;
    notice.hidden = text === "";
    if (text) this.noticeTimer = setTimeout(() => { notice.hidden = true; }, NOTICE_FOR_MS);
  }

  #announceOthers({ user, content }) {
    if (user && user !== this.name) this.#announce(`${user}: ${content}`);
  }

  #announce(text) {
    const announcer = byId("announcer");
    const line = document.createElement("p");
    line.textContent = text;
    announcer.append(line);
    while (announcer.children.length > 3) announcer.firstElementChild.remove();
  }
}

async function copyCode(button) {
  const text = button.closest(".code").querySelector("code").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no clipboard without https: the old way
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "hidden";
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1_500);
}

const app = byId("app");
if (app) new ChatPage(app).start();
