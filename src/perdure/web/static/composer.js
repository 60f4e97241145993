// The foot of the page: the draft, the files with it, send and stop.

import { Attachments } from "./files.js";
import { perTab, recall, remember } from "./outbox.js";

const byId = (id) => document.getElementById(id);

export class Composer {
  #stopWanted = null; // the answer that was to be stopped while there was no line

  constructor(page) {
    this.page = page;
    this.draft = byId("draft");
    this.key = `perdure:draft:${page.roomUrl}`;
    this.attachments = new Attachments(page, () => this.#changed());
  }

  bind() {
    const { draft } = this;
    draft.value = draft.value || (recall(perTab, this.key) ?? "");
    draft.addEventListener("input", () => {
      this.#changed();
      this.page.presence.typed(draft.value.trim() !== "");
    });
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
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing && !event.defaultPrevented) this.#stop();
    });
    this.attachments.bind();
    this.#changed();
  }

  focus() {
    this.draft.focus({ preventScroll: true });
  }

  /** The answers that are being written, as they are now. */
  streaming(ids) {
    if (!ids.includes(this.#stopWanted)) this.#stopWanted = null;
    const stop = byId("stop");
    const hadFocus = document.activeElement === stop;
    stop.hidden = ids.length === 0;
    stop.disabled = this.#stopWanted !== null;
    if (stop.hidden && hadFocus) this.draft.focus();
  }

  /** There is a line again. */
  online() {
    if (this.#stopWanted !== null) this.page.connection.send({ type: "stop" });
  }

  #changed() {
    const { draft } = this;
    byId("send").disabled = this.attachments.busy || (draft.value.trim() === "" && this.attachments.empty);
    remember(perTab, this.key, draft.value || null);
    if (CSS.supports("field-sizing", "content")) return;
    draft.style.height = "auto";
    draft.style.height = `${draft.scrollHeight}px`;
  }

  #submit() {
    const content = this.draft.value.trim();
    if (this.attachments.busy || (content === "" && this.attachments.empty)) return;
    const bytes = new TextEncoder().encode(content).length + this.attachments.bytes;
    const allowed = Number(this.page.app.dataset.messageBytesMax);
    if (bytes > allowed) {
      this.page.words.notify(`This message is too long: ${bytes.toLocaleString()} bytes, ${allowed.toLocaleString()} are allowed.`);
      return;
    }
    this.page.words.notify("");
    this.draft.value = "";
    const files = this.attachments.take();
    this.#changed();
    this.page.presence.sent();
    this.page.outbox.add(content, files);
    this.page.reader.toNewest();
    this.focus();
  }

  #stop() {
    const [id] = this.page.transcript.streamingIds();
    if (id === undefined) return;
    this.#stopWanted = id;
    byId("stop").disabled = true;
    this.page.connection.send({ type: "stop" });
    this.focus();
  }
}
