// The WebSocket of a room: comes back by itself, notices dead lines, says where it left off.

const BACKOFF_MIN_MS = 250;
const BACKOFF_MAX_MS = 5_000;
const CONNECT_TIMEOUT_MS = 8_000;
const PING_EVERY_MS = 20_000;
const PONG_WITHIN_MS = 6_000;
const LEAVE_WITHIN_MS = 2_000;

export class Connection {
  #socket = null;
  #timer = 0;
  #deadline = 0;
  #attempt = 0;
  #planned = false; // the server said that it goes down for a moment
  #settled = false; // the first frame came
  #held = null; // what came while the page is being left

  constructor({ address, onFrame, onState, onTooLong }) {
    Object.assign(this, { address, onFrame, onState, onTooLong });
    setInterval(() => this.#ping(), PING_EVERY_MS);
    for (const name of ["online", "offline", "pageshow"]) addEventListener(name, () => this.probe());
    document.addEventListener("visibilitychange", () => document.hidden || this.probe());
    addEventListener("beforeunload", () => this.#hold());
    addEventListener("pagehide", () => this.#drop()); // lets the browser keep the page for "back"
  }

  get online() {
    return this.#settled;
  }

  connect() {
    clearTimeout(this.#timer);
    this.#drop();
    this.#planned = false;
    const socket = new WebSocket(this.address());
    this.#socket = socket;
    this.#deadline = setTimeout(() => this.#lost(), CONNECT_TIMEOUT_MS);
    socket.onmessage = (event) => this.#receive(event.data);
    socket.onclose = (event) => {
      if (event.code === 1009) this.onTooLong();
      if (event.code === 1012) this.#planned = true;
      this.#lost();
    };
  }

  /** Finds out at once whether the line lives: the network changed, or someone looks again. */
  probe() {
    if (this.#socket === null) {
      this.#attempt = 0;
      this.connect();
    } else this.#ping();
  }

  /** False if there is no line to send on. */
  send(frame) {
    if (!this.#settled || this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  restart() {
    this.#lost();
  }

  #ping() {
    if (!this.send({ type: "ping" })) return;
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#lost(), PONG_WITHIN_MS);
  }

  #receive(data) {
    clearTimeout(this.#deadline);
    if (this.#held !== null) {
      this.#held.push(data);
      return;
    }
    const frame = JSON.parse(data);
    if (frame.type === "reconnect") this.#planned = true;
    this.onFrame(frame);
    if (this.#settled || (frame.type !== "init" && frame.type !== "resume")) return;
    this.#settled = true;
    this.#attempt = 0;
    this.onState("online");
  }

  /** A reload is about to ask for the page: what comes after that would be shown now, and be gone again in the new
   *  page for a moment. If the page stays after all, it is shown then. */
  #hold() {
    if (this.#held !== null) return;
    const held = this.#held = [];
    setTimeout(() => {
      if (this.#held !== held) return;
      this.#held = null;
      for (const data of held) this.#receive(data);
    }, LEAVE_WITHIN_MS);
  }

  #drop() {
    clearTimeout(this.#deadline);
    this.#settled = false;
    this.#held = null;
    if (this.#socket === null) return;
    this.#socket.onclose = this.#socket.onmessage = null; // a dead line may take minutes to close
    this.#socket.close();
    this.#socket = null;
  }

  #lost() {
    this.#drop();
    clearTimeout(this.#timer);
    const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** this.#attempt);
    const delay = this.#planned ? BACKOFF_MIN_MS * Math.random() : ceiling * (0.5 + Math.random() / 2);
    this.#attempt += 1;
    this.#timer = setTimeout(() => this.connect(), delay);
    this.onState("offline", this.#attempt);
  }
}
