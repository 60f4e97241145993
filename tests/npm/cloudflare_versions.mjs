// Module hooks: which versions the packages of Cloudflare's Agents SDK, which import each other and the
// AI SDK by their plain names, get. `data` is {sdk: "newest" | "pinned", ai: 6 | 7}.

const OURS = /\/node_modules\/(agents|agents-pinned|ai-chat-pinned|@cloudflare\/ai-chat)\//;

let replaced = {};

export function initialize({ sdk, ai }) {
  replaced = { ai: `ai${ai}`, "@ai-sdk/react": `react-ai${ai}` };
  if (sdk === "pinned") {
    replaced.agents = "agents-pinned";
    replaced["@cloudflare/ai-chat"] = "ai-chat-pinned";
  }
}

export function resolve(specifier, context, next) {
  if (!context.parentURL || !(OURS.test(context.parentURL) || context.parentURL.endsWith("/cloudflare.mjs")))
    return next(specifier, context);
  const [name] = specifier.match(/^(@[^/]+\/)?[^/]+/) ?? [specifier];
  const other = Object.hasOwn(replaced, name) ? replaced[name] : name;
  return next(other + specifier.slice(name.length), context);
}
