// The chat page's script: composer, names, scrolling, announcements. No build step, nothing from
// elsewhere.
//
//   transcript.js   the messages on the page       connection.js   the WebSocket
//   outbox.js       what is not acknowledged yet   markdown.js     answers that are being written

import { Connection } from "./connection.js";
import { Outbox, perBrowser, perTab, recall, remember } from "./outbox.js";
import { Transcript, articlesOf } from "./transcript.js";

const BANNER_AFTER_MS = 700; // a reconnect that is quicker than this is nobody's business
const ASK_WHY_AFTER_ATTEMPTS = 3;
const NOTICE_FOR_MS = 7_000;
const NEAR_BOTTOM_PX = 48;
const OLDER_LIMIT = 50;

const byId = (id) => document.getElementById(id);

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
      onState: (state, attempts) => this.#connectionChanged(state, attempts),
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

  #connectionChanged(state, attempts = 0) {
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
    if (attempts === ASK_WHY_AFTER_ATTEMPTS) this.#askWhy();
  }

  /** A refused handshake looks like a lost line to a page; plain HTTP says which it was. */
  async #askWhy() {
    const response = await fetch(`${this.roomUrl}/messages?limit=1`).catch(() => null);
    if (response?.status === 401 || response?.status === 403) this.#notify("You may no longer enter this room. Reload the page to sign in.");
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
