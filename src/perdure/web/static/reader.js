// Where the reader is: at the newest line, or further up and not to be moved.

const NEAR_BOTTOM_PX = 48;

const byId = (id) => document.getElementById(id);

/**
 * The scroller is a reversed column: its position is the distance from the newest line. Who is at
 * the bottom stays there while text grows, and older messages are added without a jump. Only who
 * reads further up must be held in place when text grows below.
 */
export class Reader {
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
