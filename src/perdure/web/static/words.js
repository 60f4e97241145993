// Words to the reader: notices at the foot of the page, and what a screen reader hears.

const NOTICE_FOR_MS = 7_000;
const HEARD_MAX = 3;

export class Words {
  #timer = 0;

  constructor() {
    this.notice = document.getElementById("notice");
    this.announcer = document.getElementById("announcer");
  }

  notify(text) {
    clearTimeout(this.#timer);
    this.notice.textContent = text;
    this.notice.hidden = text === "";
    if (text) this.#timer = setTimeout(() => { this.notice.hidden = true; }, NOTICE_FOR_MS);
  }

  announce(text) {
    const line = document.createElement("p");
    line.textContent = text;
    this.announcer.append(line);
    while (this.announcer.children.length > HEARD_MAX) this.announcer.firstElementChild.remove();
  }

  /** A screen reader hears an answer once, whole, and not word by word. */
  announceAnswer(article) {
    const texts = [...article.querySelectorAll(".body")].map((body) => body.textContent);
    const asked = [...article.querySelectorAll(".tool-ask:not([hidden])")].map(
      (ask) => `${ask.closest(".tool").querySelector(".tool-name").textContent} needs your approval.`);
    const outcome = article.querySelector(".outcome-text").textContent;
    this.announce(`Answer: ${[...texts, ...asked, outcome].join(" ")}`);
  }
}
