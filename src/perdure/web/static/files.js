// Files that go with the next message: chosen, dropped or pasted. Small ones travel inside of it.

const byId = (id) => document.getElementById(id);

export class Attachments {
  #files = []; // { name, url?, mediaType }
  #changed;

  constructor(page, changed) {
    this.page = page;
    this.#changed = changed;
    this.list = byId("attached");
  }

  get empty() {
    return this.#files.length === 0;
  }

  get busy() {
    return this.#files.some((file) => file.url === undefined);
  }

  /** What they add to the message, in bytes. */
  get bytes() {
    return this.#files.reduce((sum, file) => sum + (file.url?.length ?? 0), 0);
  }

  bind() {
    const input = byId("files");
    byId("attach").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.#add([...input.files]);
      input.value = "";
    });
    const composer = byId("composer");
    composer.addEventListener("paste", (event) => {
      const files = [...event.clipboardData.files];
      if (files.length === 0) return;
      event.preventDefault();
      this.#add(files);
    });
    addEventListener("dragover", (event) => event.dataTransfer?.types.includes("Files") && event.preventDefault());
    addEventListener("drop", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      this.#add([...event.dataTransfer.files]);
    });
    this.list.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      this.#files.splice([...this.list.children].indexOf(button.parentElement), 1);
      this.#show();
      this.page.composer.focus();
    });
  }

  /** The files as the message carries them; none are left here. */
  take() {
    const files = this.#files.map(({ name, url, mediaType }) => ({ url, mediaType, filename: name }));
    this.#files = [];
    this.#show();
    return files;
  }

  #add(files) {
    for (const file of files) {
      const entry = { name: file.name || "file", mediaType: file.type || "application/octet-stream", url: undefined };
      this.#files.push(entry);
      this.#read(file).then((url) => {
        entry.url = url;
        this.#show();
      }, (error) => {
        this.#files = this.#files.filter((each) => each !== entry);
        this.page.words.notify(`${entry.name}: ${error.message}`);
        this.#show();
      });
    }
    this.#show();
  }

  /** Uploaded where it is too large to travel in a message. */
  async #read(file) {
    const inline = Number(this.page.app.dataset.messageBytesMax) / 2;
    return file.size * 4 / 3 <= inline ? dataUrl(file) : this.#upload(file);
  }

  async #upload(file) {
    const form = new FormData();
    form.append("file", file, file.name);
    const response = await fetch(this.page.app.dataset.filesUrl, { method: "POST", body: form }).catch(() => null);
    if (!response) throw new Error("it could not be sent; try again when there is a connection");
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error?.message ?? `it was refused (${response.status})`);
    return (answer.files?.[0] ?? answer).url;
  }

  #show() {
    this.list.hidden = this.empty;
    this.list.replaceChildren(...this.#files.map((file) => {
      const item = document.createElement("li");
      const name = document.createElement("span");
      name.textContent = file.name;
      item.toggleAttribute("data-busy", file.url === undefined);
      const remove = document.createElement("button");
      remove.type = "button";
      remove.textContent = "×";
      remove.setAttribute("aria-label", `Remove ${file.name}`);
      item.append(name, remove);
      return item;
    }));
    this.#changed();
  }
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("it could not be read"));
    reader.readAsDataURL(file);
  });
}
