// An answer's parts, grown by its chunks: what wire/fold.py does, as much of it as a page shows.
//
// Texts grow in place; every other part is replaced by a new object when it changes, so that who draws
// it can tell by identity.

const TOOL = /^tool-|^dynamic-tool$/;

export const isTool = (part) => TOOL.test(part.type) && typeof part.toolCallId === "string";
export const toolName = (part) => (part.type === "dynamic-tool" ? part.toolName : part.type.slice("tool-".length));

/** A message that is nothing but its text has no parts of its own. */
export const partsOf = (message) =>
  message.parts ?? (message.content ? [{ type: "text", text: message.content, state: "done" }] : []);

export const textOf = (parts) => parts.filter((part) => part.type === "text").map((part) => part.text).join("");

export class Fold {
  #open = new Map(); // "text <id>" or "reasoning <id>" -> the part

  /** `parts` are the answer so far; a text that still grows says by `id` what its chunks call it. */
  constructor(parts) {
    this.parts = parts.map((part) => ({ ...part }));
    for (const part of this.parts) {
      if (part.state === "streaming" && part.id !== undefined) this.#open.set(`${part.type} ${part.id}`, part);
    }
  }

  push(chunk) {
    switch (chunk.type) {
      case "text-start": case "reasoning-start": return this.#begin(chunk);
      case "text-delta": case "reasoning-delta": return this.#grow(chunk);
      case "text-end": case "reasoning-end": return this.#end(chunk);
      case "tool-input-start":
        return this.#tool(chunk, { state: "input-streaming", rawInput: "" });
      case "tool-input-delta": {
        const raw = this.#call(chunk.toolCallId)?.rawInput ?? "";
        return this.#tool(chunk, { rawInput: raw + chunk.inputTextDelta });
      }
      case "tool-input-available":
        return this.#tool(chunk, { state: "input-available", input: chunk.input, rawInput: undefined });
      case "tool-input-error":
        return this.#tool(chunk, { state: "output-error", input: chunk.input, errorText: chunk.errorText });
      case "tool-approval-request":
        return this.#tool(chunk, { state: "approval-requested", approval: { id: chunk.approvalId } });
      case "tool-output-available":
        return this.#tool(chunk, { state: "output-available", output: chunk.output, preliminary: chunk.preliminary });
      case "tool-output-error":
        return this.#tool(chunk, { state: "output-error", errorText: chunk.errorText });
      case "tool-output-denied":
        return this.#tool(chunk, { state: "output-denied" });
      case "source-url": case "source-document": case "file":
        this.parts.push({ ...chunk });
        return;
      default:
        if (chunk.type.startsWith("data-") && !chunk.transient) this.#data(chunk);
    }
  }

  #begin({ type, id }) {
    const part = { type: type.slice(0, -"-start".length), text: "", state: "streaming" };
    this.#open.set(`${part.type} ${id}`, part);
    this.parts.push(part);
  }

  #grow({ type, id, delta }) {
    const part = this.#open.get(`${type.slice(0, -"-delta".length)} ${id}`);
    if (part) part.text += delta;
  }

  #end({ type, id }) {
    const key = `${type.slice(0, -"-end".length)} ${id}`;
    const part = this.#open.get(key);
    if (part) part.state = "done";
    this.#open.delete(key);
  }

  #call(id) {
    return this.parts.findLast((part) => part.toolCallId === id);
  }

  #tool({ toolCallId, toolName, dynamic }, changes) {
    const known = this.#call(toolCallId);
    if (known) {
      this.parts[this.parts.indexOf(known)] = { ...known, ...changes };
    } else if (toolName !== undefined) {
      const kind = dynamic ? { type: "dynamic-tool", toolName } : { type: `tool-${toolName}` };
      this.parts.push({ ...kind, toolCallId, ...changes });
    }
  }

  #data(chunk) {
    const at = chunk.id === undefined ? -1 : this.parts.findIndex((part) => part.type === chunk.type && part.id === chunk.id);
    if (at >= 0) this.parts[at] = { ...chunk };
    else this.parts.push({ ...chunk });
  }
}
