// Who is here, and who is typing.

import { personColour } from "./transcript.js";

const SHOWN_MAX = 5;
const SAY_AGAIN_MS = 3_000;

export class Presence {
  #saidAt = 0;
  #unsaidAt = 0; // when it was to be said and there was no line

  constructor(page) {
    this.page = page;
    this.list = document.getElementById("people");
    this.typists = document.getElementById("typists");
  }

  show({ people, guests = 0, more = 0 }) {
    const all = people.length + guests + more;
    const others = people.length - SHOWN_MAX;
    this.list.hidden = all < 2;
    this.list.replaceChildren(...people.slice(0, SHOWN_MAX).map((person) => this.#person(person)));
    const rest = Math.max(0, others) + guests + more;
    if (rest > 0) this.list.append(badge(`+${rest}`, `and ${rest} more`));
    this.#type(people.filter((person) => person.typing && person.user !== this.page.name));
  }

  #person({ user, tabs = 1, typing = false }) {
    const you = user === this.page.name ? " (you)" : "";
    const item = badge(initials(user), `${user}${you}${tabs > 1 ? `, ${tabs} tabs` : ""}`);
    item.classList.add(`hue-${personColour(user)}`);
    item.toggleAttribute("data-typing", typing);
    item.dataset.user = user;
    item.dataset.tabs = tabs;
    return item;
  }

  #type(typing) {
    const names = typing.map((person) => person.user);
    const text = names.length === 0 ? ""
      : names.length === 1 ? `${names[0]} is typing…`
      : names.length === 2 ? `${names[0]} and ${names[1]} are typing…`
      : `${names[0]} and ${names.length - 1} others are typing…`;
    if (this.typists.textContent !== text) this.typists.textContent = text;
  }

  /** Said again every few seconds while one types; unsaid when there is nothing left to send. */
  typed(typing) {
    const now = Date.now();
    if (typing ? now - this.#saidAt < SAY_AGAIN_MS : this.#saidAt === 0) return;
    const sent = this.page.connection.send(typing ? { type: "typing" } : { type: "typing", typing: false });
    this.#saidAt = typing && sent ? now : 0;
    this.#unsaidAt = typing && !sent ? now : 0;
  }

  /** There is a line again: say what could not be said a moment ago. */
  online() {
    if (Date.now() - this.#unsaidAt < SAY_AGAIN_MS) this.typed(true);
  }

  /** A message ends it by itself. */
  sent() {
    this.#saidAt = this.#unsaidAt = 0;
  }
}

function badge(text, label) {
  const item = document.createElement("li");
  item.textContent = text;
  item.title = label;
  item.setAttribute("aria-label", label);
  return item;
}

function initials(name) {
  const words = name.split(/\s+/).filter(Boolean);
  return words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join("");
}
