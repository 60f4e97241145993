// The messages on the page. The room's frames change it; applying one twice changes nothing.
//
// Text from people and models enters by textContent and through markdown.js. HTML is taken from our
// own server alone, where it was sanitised.

import { Fold, partsOf, textOf, usageText } from "./fold.js";
import { decorateCode, reconcile } from "./markdown.js";
import { PartsView, drawFile, template } from "./parts.js";

const PERSON_COLOURS = 8; // as in pages.py

export function personColour(name) {
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
  #answers = new Map(); // id of a streaming answer -> { fold, offset }
  #views = new WeakMap(); // article -> PartsView
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
      case "chunks": case "complete":
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
    if (message.role === "assistant") this.#setAnswer(article, message);
    else if ("pending" in article.dataset) this.#confirm(article, message);
    else this.#setQuestion(article, message);
    return article;
  }

  addPending(entry) {
    const parts = entry.files?.map((file) => ({ type: "file", ...file }));
    const article = this.#build({ id: entry.id, role: "user", content: entry.content, user: entry.user, timestamp: Date.now(), parts });
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
    const parts = JSON.parse(article.dataset.parts || "[]");
    delete article.dataset.parts;
    this.#track(article, parts, this.offset);
  }

  #track(article, parts, offset) {
    const { id } = article.dataset;
    this.#answers.set(id, { fold: new Fold(parts), offset });
    article.dataset.status = "streaming";
    article.setAttribute("aria-busy", "true");
    article.querySelector(".outcome-text").textContent = "";
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
    if (message.role !== "assistant") this.#setQuestion(article, message);
    return article;
  }

  #setQuestion(article, message) {
    article.dataset.user = message.user ?? "";
    article.querySelector(".who").textContent = message.user ?? "";
    if (message.user) article.setAttribute("aria-label", `Message from ${message.user}`);
    const bubble = article.querySelector(".bubble");
    bubble.textContent = message.content;
    bubble.hidden = message.content === "" || "editing" in article.dataset;
    const files = (message.parts ?? []).filter((part) => part.type === "file");
    article.querySelector(".files").replaceChildren(...files.map(drawFile));
    setVersions(article, message.branches);
    this.#markOwner(article);
  }

  #confirm(article, message) {
    delete article.dataset.pending;
    delete article.dataset.failed;
    this.#setQuestion(article, message);
    const firstPending = this.log.querySelector("article[data-pending]");
    const early = firstPending && firstPending.compareDocumentPosition(article) & Node.DOCUMENT_POSITION_FOLLOWING;
    const late = article.nextElementSibling && !("pending" in article.nextElementSibling.dataset);
    if (early || late) this.log.insertBefore(article, firstPending);
  }

  #setAnswer(article, message) {
    setVersions(article, message.branches);
    setSpeaker(article, message.user);
    setUsage(article, message.metadata?.usage);
    const status = message.status ?? "complete";
    if (status === "streaming") {
      this.#track(article, partsOf(message), "");
    } else {
      this.#settle(article, partsOf(message), status, message.error);
      if (article.querySelector(".code")) this.refine(message.id);
    }
  }

  #grow(frame) {
    const answer = this.#answers.get(frame.messageId);
    if (!answer || (frame.offset && frame.offset <= answer.offset)) return;
    answer.offset = frame.offset ?? answer.offset;
    for (const chunk of frame.chunks) answer.fold.push(chunk);
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

  #view(article) {
    if (!this.#views.has(article)) this.#views.set(article, new PartsView(article.querySelector(".parts")));
    return this.#views.get(article);
  }

  #show(id) {
    const answer = this.#answers.get(id);
    const article = this.find(id);
    if (!answer || !article) return;
    setSpeaker(article, answer.fold.speaker);
    this.#view(article).show(answer.fold.parts, { live: true, waiting: false });
  }

  #finish(frame) {
    const article = this.find(frame.messageId);
    const answer = this.#answers.get(frame.messageId);
    if (!answer && article.dataset.status === frame.status) return;
    if (!answer || textOf(answer.fold.parts) !== frame.content) return this.page.resync(); // a gap
    if (answer.fold.usage) setUsage(article, answer.fold.usage);
    this.#settle(article, answer.fold.parts, frame.status, frame.error);
    this.page.words.announceAnswer(article);
    this.refine(frame.messageId);
  }

  #settle(article, parts, status, error) {
    const { id } = article.dataset;
    this.#answers.delete(id);
    this.#dirty.delete(id);
    this.#view(article).show(parts, { live: false, waiting: status === "waiting" });
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
      const texts = article.querySelectorAll(".body");
      fresh.querySelectorAll(".body").forEach((body, index) => {
        if (texts[index]) reconcile(texts[index], [...body.children]);
      });
    } catch { /* offline: our own rendering stays, which says the same */ }
  }

  #drop(id) {
    this.#answers.delete(id);
    this.#dirty.delete(id);
    this.find(id)?.remove();
  }
}

function setSpeaker(article, name) {
  const who = article.querySelector(".who");
  if (!name || who.textContent === name) return;
  who.textContent = name;
  article.setAttribute("aria-label", `Answer from ${name}`);
}

function setUsage(article, usage) {
  article.querySelector(".usage").textContent = usageText(usage);
}

function setVersions(article, { index = 0, count = 1 } = {}) {
  const versions = article.querySelector(".versions");
  versions.hidden = count < 2;
  versions.querySelector(".version").textContent = `${index + 1}/${count}`;
  versions.querySelector(".older-version").disabled = index === 0;
  versions.querySelector(".newer-version").disabled = index + 1 >= count;
}

function localTime(time) {
  const when = new Date(time?.dateTime || NaN);
  if (Number.isNaN(when.getTime())) return;
  const today = when.toDateString() === new Date().toDateString();
  const day = today ? {} : { day: "numeric", month: "short" };
  time.textContent = when.toLocaleString([], { ...day, hour: "2-digit", minute: "2-digit" });
  time.title = when.toLocaleString();
}
