// What others call the reader: asked once, kept in this browser, told to the server's first paint by a cookie.

import { perBrowser, recall, remember } from "./outbox.js";

const byId = (id) => document.getElementById(id);

export class Name {
  constructor(page) {
    this.page = page;
    const { dataset } = page.app;
    this.fixed = dataset.userFixed === "true";
    this.value = this.fixed ? dataset.user : (recall(perBrowser, "perdure:user") ?? dataset.user);
  }

  bind() {
    const form = byId("name-form");
    const me = byId("me");
    if (this.fixed || !me) return;
    const input = byId("name");
    const choose = (name) => {
      const changed = name !== this.value;
      this.value = name;
      remember(perBrowser, "perdure:user", name);
      this.#keepCookie();
      form.hidden = true;
      this.#shown();
      this.page.nameChanged(changed);
      this.page.composer.focus();
    };
    me.addEventListener("click", () => {
      form.hidden = !form.hidden;
      input.value = this.value;
      if (!form.hidden) input.focus();
    });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      choose(input.value.trim().replace(/\s+/g, " "));
    });
    form.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault();
      choose(this.value);
    });
    byId("name-skip").addEventListener("click", () => choose(this.value));
    addEventListener("storage", (event) => {
      if (event.key !== "perdure:user" || event.newValue === null) return;
      this.value = event.newValue;
      this.#shown();
      this.page.nameChanged(true);
    });
    form.hidden = recall(perBrowser, "perdure:user") !== null || this.value !== "";
    this.#keepCookie();
    this.#shown();
  }

  #shown() {
    const me = byId("me");
    me.hidden = false;
    me.textContent = this.value || "Set your name";
    me.title = "Change your name";
  }

  /** The server reads it to draw my messages as mine from the first paint on. */
  #keepCookie() {
    const { userCookie, cookiePath } = this.page.app.dataset;
    const age = this.value ? 31_536_000 : 0;
    document.cookie = `${userCookie}=${encodeURIComponent(this.value)}; path=${cookiePath}; max-age=${age}; samesite=lax`;
  }
}
