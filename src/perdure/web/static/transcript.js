// The messages on the page. The room's frames change it; applying one twice changes nothing.
//
// Text from people and models enters by textContent and through markdown.js. HTML is taken from our
// own server alone, where it was sanitised.

import { AnswerBody, decorateCode, reconcile } from "./markdown.js";

const PERSON_COLOURS = 8; // as in pages.py

const template = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

function personColour(name) {
  let value = 0;
  for (const character of name) value = (value * 31 + character.codePointAt(0)) % 9973;
  return value % PERSON_COLOURS;
}

/** The messages of one of the server's HTML fragments. */
export function articlesOf(html) {
  return [...new DOMParser().parseFromString(html, "text/html").querySelectorAll("article.message")]
    .map((article) => document.adoptNode(article));
}

export class Transcript {
  #answers = new Map(); // id of a streaming answer -> { view, source, offset }
  #dirty = new Set();
  #frame = 0;

  constructor(page, offset) {
    this.page = page;
    this.offset = offset;
    this.log = document.getElementById("log");
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
    const view = this.#answers.get(id)?.view ?? new AnswerBody(article.querySelector(".body"));
    this.#answers.set(id, { view, source, offset });
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
    const article = template(message.role === "assistant" ? "answer-template" : "user-template");
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
