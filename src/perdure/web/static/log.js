// What the reader does in the conversation: copies code, tries again, answers what a tool asks, edits, turns to other
// versions, loads what is older.

import { template } from "./parts.js";
import { articlesOf } from "./transcript.js";

const OLDER_LIMIT = 50;

export class Log {
  #scrolled = false;

  constructor(page) {
    this.page = page;
    this.older = document.getElementById("older");
    const { log } = page.transcript;
    log.addEventListener("click", (event) => this.#clicked(event));
    log.addEventListener("submit", (event) => this.#submitted(event));
    log.addEventListener("keydown", (event) => {
      const form = event.target.closest(".edit-form");
      if (!form || event.isComposing) return;
      if (event.key === "Escape") {
        event.preventDefault();
        closeEdit(form);
      } else if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        form.requestSubmit();
      }
    });
    this.older.addEventListener("click", (event) => {
      event.preventDefault();
      this.#loadOlder();
    });
    const { scroller } = page.reader;
    scroller.addEventListener("scroll", () => { this.#scrolled = true; }, { once: true });
    new IntersectionObserver((entries) => {
      if (this.#scrolled && entries.some((entry) => entry.isIntersecting)) this.#loadOlder();
    }, { root: scroller, rootMargin: "300px 0px 0px" }).observe(this.older);
  }

  #clicked(event) {
    const button = event.target.closest("button");
    const article = button?.closest("article");
    if (!article) return;
    const { id } = article.dataset;
    const call = button.closest("[data-call]")?.dataset.call;
    switch (button.className) {
      case "copy": copyCode(button); break;
      case "retry": button.disabled = this.#ask({ type: "retry" }); break;
      case "regenerate": this.#ask({ type: "regenerate", id }); break;
      case "edit": openEdit(article); break;
      case "cancel": closeEdit(button.closest("form")); break;
      case "older-version": this.#turn(article, -1); break;
      case "newer-version": this.#turn(article, +1); break;
      case "approve": case "refuse":
        if (this.#ask({ type: "approve", id: call, approved: button.className === "approve" })) hold(button.parentElement);
        break;
      case "resend": this.page.outbox.resend(id); break;
      case "discard": this.page.outbox.discard(id); break;
      default:
    }
  }

  #submitted(event) {
    event.preventDefault();
    const form = event.target;
    if (form.matches(".edit-form")) this.#edit(form);
    else if (form.matches(".tool-give")) this.#give(form);
  }

  #edit(form) {
    const article = form.closest("article");
    const content = form.querySelector("textarea").value.trim();
    const unchanged = content === article.querySelector(".bubble").textContent;
    if (content === "" || unchanged) return closeEdit(form);
    if (this.#ask({ type: "edit", id: article.dataset.id, content, ...(this.page.name && { user: this.page.name }) })) {
      closeEdit(form);
      this.page.reader.toNewest();
    }
  }

  #give(form) {
    const text = form.querySelector("input").value;
    const id = form.closest("[data-call]").dataset.call;
    if (this.#ask({ type: "result", id, output: parsed(text) })) hold(form);
  }

  #turn(article, step) {
    const index = Number(article.querySelector(".version").textContent.split("/")[0]) - 1 + step;
    this.#ask({ type: "branch", id: article.dataset.id, index });
  }

  #ask(frame) {
    const sent = this.page.connection.send(frame);
    if (!sent) this.page.words.notify("There is no connection just now. Try again in a moment.");
    return sent;
  }

  async #loadOlder() {
    const { older, page } = this;
    const oldest = page.transcript.oldest();
    if (!oldest || older.hasAttribute("aria-busy")) return;
    older.setAttribute("aria-busy", "true");
    try {
      const query = new URLSearchParams({ before: oldest.dataset.id, limit: String(OLDER_LIMIT) });
      const response = await fetch(`${page.roomUrl}/messages?${query}`);
      if (!response.ok) throw new Error(`status ${response.status}`);
      const articles = articlesOf(await response.text());
      page.reader.above(() => {
        page.transcript.prepend(articles);
        page.setMore(response.headers.get("x-perdure-more") === "true");
      });
    } catch {
      page.words.notify("Earlier messages could not be loaded. Try again in a moment.");
    } finally {
      older.removeAttribute("aria-busy");
    }
  }
}

function openEdit(article) {
  const bubble = article.querySelector(".bubble");
  if (article.querySelector(".edit-form")) return;
  const form = template("edit-template");
  const area = form.querySelector("textarea");
  area.value = bubble.textContent;
  bubble.hidden = true;
  bubble.after(form);
  article.dataset.editing = "";
  area.focus();
}

function closeEdit(form) {
  const article = form.closest("article");
  const bubble = article.querySelector(".bubble");
  bubble.hidden = bubble.textContent === "";
  delete article.dataset.editing;
  form.remove();
  article.querySelector(".edit").focus();
}

/** Sent once; the room's answer, or its error, opens it again. */
function hold(container) {
  for (const button of container.querySelectorAll("button")) button.disabled = true;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
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
