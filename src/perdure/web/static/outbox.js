// Messages that the server has not acknowledged yet, and what this browser remembers.

const RESEND_AFTER_MS = 1_500;

/** Storage that may be forbidden, full or absent: then the page works without it. */
export function remember(store, key, value) {
  try {
    if (value === null) store().removeItem(key);
    else store().setItem(key, value);
  } catch { /* the value lives as long as the page */ }
}

export function recall(store, key) {
  try {
    return store().getItem(key);
  } catch {
    return null;
  }
}

export const perTab = () => sessionStorage;
export const perBrowser = () => localStorage;

/** crypto.randomUUID exists on https and localhost only; a page in a home network has neither. */
function newId() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** Every message stays here until its own `message` frame comes back; a reload does not lose it. */
export class Outbox {
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

  add(content, files = []) {
    const entry = { id: newId(), content, user: this.page.name, ...(files.length > 0 && { files }) };
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

  #deliver({ id, content, user, files }) {
    this.page.connection.send({ type: "message", id, content, ...(user && { user }), ...(files && { files }) });
  }

  #save() {
    remember(perTab, this.key, this.entries.length > 0 ? JSON.stringify(this.entries) : null);
  }
}
