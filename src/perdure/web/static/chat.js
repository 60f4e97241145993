// The chat page's script. No build step, nothing from elsewhere.
//
//   connection.js   the WebSocket                  composer.js   the draft, send, stop
//   transcript.js   the messages on the page       files.js      what is attached to it
//   fold.js         an answer's parts, growing     outbox.js     what is not acknowledged yet
//   parts.js        parts, drawn                   log.js        what one does in the conversation
//   markdown.js     texts that are being written   presence.js   who is here
//   reader.js       scrolling                      name.js, words.js

import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { Log } from "./log.js";
import { Name } from "./name.js";
import { Outbox } from "./outbox.js";
import { Presence } from "./presence.js";
import { Reader } from "./reader.js";
import { Transcript } from "./transcript.js";
import { Words } from "./words.js";

const BANNER_AFTER_MS = 700; // a reconnect that is quicker than this is nobody's business
const ASK_WHY_AFTER_ATTEMPTS = 3;
const NEWS = new Set(["message", "chunks"]);

const byId = (id) => document.getElementById(id);

class ChatPage {
  #bannerTimer = 0;

  constructor(app) {
    this.app = app;
    this.roomUrl = app.dataset.roomUrl;
    this.words = new Words();
    this.reader = new Reader();
    this.called = new Name(this);
    this.presence = new Presence(this);
    this.transcript = new Transcript(this, app.dataset.offset);
    this.outbox = new Outbox(this);
    this.composer = new Composer(this);
    this.connection = new Connection({
      address: () => this.#socketAddress(),
      onFrame: (frame) => this.#receive(frame),
      onState: (state, attempts) => this.#connectionChanged(state, attempts),
      onTooLong: () => this.outbox.refuse({ message: "it is too long", retryable: false }),
    });
  }

  get name() {
    return this.called.value;
  }

  start() {
    document.documentElement.classList.add("live");
    this.composer.bind();
    this.called.bind();
    new Log(this);
    this.outbox.restore();
    this.transcriptChanged({});
    this.#connectionChanged("connecting");
    this.connection.connect();
    byId("reconnect").addEventListener("click", () => this.connection.probe());
    document.addEventListener("visibilitychange", () => document.hidden || this.transcript.draw());
    if (matchMedia("(pointer: fine)").matches) this.composer.focus();
  }

  // ---- what the others call

  transcriptChanged(frame) {
    if (frame.type === "message") this.outbox.acknowledge(frame.message.id);
    if (frame.type === "init") for (const { id } of frame.messages) this.outbox.acknowledge(id);
    const streaming = this.transcript.streamingIds();
    this.composer.streaming(streaming);
    this.app.dataset.streaming = String(streaming.length > 0);
    if (NEWS.has(frame.type)) this.reader.news();
    if (frame.type === "message" && frame.message.role === "user") this.#announceOthers(frame.message);
  }

  nameChanged(changed) {
    this.transcript.markOwners();
    if (changed && this.connection.online) this.connection.connect(); // others see the new name, too
  }

  setMore(more) {
    byId("older").hidden = !more;
  }

  resync() {
    this.transcript.offset = "";
    this.connection.restart();
  }

  // ---- frames and the line

  #socketAddress() {
    const address = new URL(this.app.dataset.socketPath, location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.searchParams.set("parts", "1");
    address.searchParams.set("presence", "1");
    if (this.transcript.offset) address.searchParams.set("offset", this.transcript.offset);
    if (this.name) address.searchParams.set("user", this.name);
    return address.href;
  }

  #receive(frame) {
    if (frame.type === "presence") return this.presence.show(frame);
    if (frame.type !== "error") return this.transcript.apply(frame);
    for (const button of this.transcript.log.querySelectorAll(".retry, .tool button")) button.disabled = false;
    if (!this.outbox.refuse(frame)) this.words.notify(frame.message);
  }

  #connectionChanged(state, attempts = 0) {
    this.app.dataset.connection = state;
    if (state === "online") {
      clearTimeout(this.#bannerTimer);
      this.#bannerTimer = 0;
      byId("banner").hidden = true;
      this.outbox.flush();
      this.composer.online();
      this.presence.online();
      return;
    }
    byId("banner-text").textContent = navigator.onLine ? "Connection lost. Reconnecting…" : "You are offline. Reconnecting…";
    const showBanner = () => { byId("banner").hidden = this.connection.online; };
    this.#bannerTimer ||= setTimeout(showBanner, BANNER_AFTER_MS);
    if (attempts === ASK_WHY_AFTER_ATTEMPTS) this.#askWhy();
  }

  /** A refused handshake looks like a lost line to a page; plain HTTP says which it was. */
  async #askWhy() {
    const response = await fetch(`${this.roomUrl}/messages?limit=1`).catch(() => null);
    if (response?.status === 401 || response?.status === 403) this.words.notify("You may no longer enter this room. Reload the page to sign in.");
  }

  #announceOthers({ user, content }) {
    if (user && user !== this.name) this.words.announce(`${user}: ${content}`);
  }
}

const app = byId("app");
if (app) new ChatPage(app).start();
