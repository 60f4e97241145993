// An answer's parts, grown by its chunks: what wire/fold.py does, as much of it as a page shows.
//
// Texts grow in place; every other part is replaced by a new object when it changes, so that who draws
// it can tell by identity.

const NO_RESULT = { output: undefined, errorText: undefined, preliminary: undefined };
const TOOL = /^tool-|^dynamic-tool$/;

export const isTool = (part) => TOOL.test(part.type) && typeof part.toolCallId === "string";
export const toolName = (part) => (part.type === "dynamic-tool" ? part.toolName : part.type.slice("tool-".length));

/** A message that is nothing but its text has no parts of its own. */
export const partsOf = (message) =>
  message.parts ?? (message.content ? [{ type: "text", text: message.content, state: "done" }] : []);

/** What an answer cost, in words; "" where that is not known. */
export function usageText(usage) {
  const total = usage?.totalTokens ?? (usage?.inputTokens ?? 0) + (usage?.outputTokens ?? 0);
  return Number.isInteger(total) && total > 0 ? `${total.toLocaleString("en")} tokens` : "";
}

export const textOf = (parts) => parts.filter((part) => part.type === "text").map((part) => part.text).join("");

export class Fold {
  #open = new Map(); // "text <id>" or "reasoning <id>" -> the part

  speaker = ""; // the name of the model that answers, where it says so
  usage = null; // what it cost, in the model's tokens

  /** `parts` are the answer so far; a text that still grows says by `id` what its chunks call it. */
  constructor(parts) {
    this.parts = parts.map((part) => ({ ...part }));
    for (const part of this.parts) {
      if (part.state === "streaming" && part.id !== undefined) this.#open.set(`${part.type} ${part.id}`, part);
    }
  }

  push(chunk) {
    if (typeof chunk.messageMetadata?.model === "string") this.speaker = chunk.messageMetadata.model;
    if (chunk.messageMetadata?.usage) this.usage = chunk.messageMetadata.usage;
    switch (chunk.type) {
      case "start-step": this.parts.push({ type: "step-start" }); return;
      case "text-start": case "reasoning-start": return this.#begin(chunk);
      case "text-delta": case "reasoning-delta": return this.#grow(chunk);
      case "text-end": case "reasoning-end": return this.#end(chunk);
      case "tool-input-start":
        return this.#call(chunk, { ...NO_RESULT, state: "input-streaming", rawInput: "", input: undefined });
      case "tool-input-delta": {
        const raw = this.#find(chunk)?.rawInput ?? "";
        return this.#change(chunk, { rawInput: raw + chunk.inputTextDelta });
      }
      case "tool-input-available":
        return this.#call(chunk, { ...NO_RESULT, state: "input-available", input: chunk.input, rawInput: undefined });
      case "tool-input-error":
        return this.#call(chunk, { ...NO_RESULT, state: "output-error", input: chunk.input, errorText: chunk.errorText });
      case "tool-approval-request":
        return this.#change(chunk, { state: "approval-requested", approval: { id: chunk.approvalId } });
      case "tool-output-available":
        return this.#change(chunk, { ...NO_RESULT, state: "output-available", output: chunk.output, preliminary: chunk.preliminary });
      case "tool-output-error":
        return this.#change(chunk, { ...NO_RESULT, state: "output-error", errorText: chunk.errorText });
      case "tool-output-denied":
        return this.#change(chunk, { state: "output-denied" });
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

  #inStep(fits) {
    const step = this.parts.findLastIndex((part) => part.type === "step-start");
    return this.parts.slice(step + 1).find(fits);
  }

  /** A call begins, or its input is whole: in this step, for an earlier one may have had the same id. */
  #call({ type, toolCallId, toolName, dynamic, title, providerExecuted }, changes) {
    const theSame = (part) => part.toolCallId === toolCallId;
    const kept = type === "tool-input-error" ? this.#inStep(theSame) : undefined;
    const isDynamic = kept ? kept.type === "dynamic-tool" : Boolean(dynamic);
    const known = this.#inStep((part) => theSame(part) && (part.type === "dynamic-tool") === isDynamic);
    const kind = isDynamic ? { type: "dynamic-tool", toolName } : { type: `tool-${toolName}` };
    const said = { ...(title !== undefined && type !== "tool-input-error" && { title }), ...(providerExecuted !== undefined && { providerExecuted }) };
    if (known) this.parts[this.parts.indexOf(known)] = { ...known, ...kind, ...changes, ...said };
    else this.parts.push({ ...kind, toolCallId, ...changes, ...said });
  }

  /** The call that a result is for: of this step, else the newest of that id. */
  #find({ toolCallId }) {
    const theSame = (part) => part.toolCallId === toolCallId;
    return this.#inStep(theSame) ?? this.parts.findLast(theSame);
  }

  #change(chunk, changes) {
    const known = this.#find(chunk);
    const { providerExecuted = known?.providerExecuted } = chunk;
    if (known) this.parts[this.parts.indexOf(known)] = { ...known, ...changes, ...(providerExecuted !== undefined && { providerExecuted }) };
  }

  #data(chunk) {
    const at = chunk.id === undefined ? -1 : this.parts.findIndex((part) => part.type === chunk.type && part.id === chunk.id);
    if (at >= 0) this.parts[at] = { ...chunk };
    else this.parts.push({ ...chunk });
  }
}
