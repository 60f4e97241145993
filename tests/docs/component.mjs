// Renders a React component of the documentation in jsdom, uses it as a person would, and prints
// what it shows in the end. Its argument, JSON: {"file", "component", "props", "say", "until"}.
// Types `say` into the field, if there is one, sends the form, and waits for the text `until`.

import { writeFile } from "node:fs/promises";
import { register } from "node:module";
import { pathToFileURL } from "node:url";
import { JSDOM } from "jsdom";
import { transformWithOxc } from "vite";
import { readFile } from "node:fs/promises";

// Packages that know the AI SDK by its plain name get the one that a reader installs.
register("./cloudflare_versions.mjs", import.meta.url, { data: { sdk: "newest", ai: 6 } });

const WITHIN_MS = 8_000;
const { file, component, props, say, until } = JSON.parse(process.argv[2]);

const dom = new JSDOM("<!doctype html><body><main></main>", { url: "http://page.test/", pretendToBeVisual: true });
const page = { window: dom.window, document: dom.window.document, navigator: dom.window.navigator };
for (const [name, value] of Object.entries(page)) Object.defineProperty(globalThis, name, { value });

const compiled = file.replace(/\.tsx$/, ".mjs");
await writeFile(compiled, (await transformWithOxc(await readFile(file, "utf8"), file)).code);
const { createElement } = await import("react");
const { createRoot } = await import("react-dom/client");
const module = await import(pathToFileURL(compiled));

createRoot(document.querySelector("main")).render(createElement(module[component], props));
await seen(() => document.querySelector("form"));
const field = document.querySelector("input");
if (field) {
  Object.getOwnPropertyDescriptor(dom.window.HTMLInputElement.prototype, "value").set.call(field, say);
  field.dispatchEvent(new dom.window.Event("input", { bubbles: true }));
  await seen(() => field.value === say);
}
document.querySelector("form").dispatchEvent(new dom.window.Event("submit", { bubbles: true, cancelable: true }));
const came = await seen(() => document.body.textContent.includes(until));
console.log(document.body.textContent);
process.exit(came ? 0 : 1);

async function seen(condition) {
  const deadline = Date.now() + WITHIN_MS;
  while (Date.now() < deadline) {
    if (condition()) return true;
    await new Promise((done) => setTimeout(done, 5));
  }
  return false;
}
