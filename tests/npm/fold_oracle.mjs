// The npm package `ai` as the judge of our fold: one request a line on stdin, one answer a line
// on stdout. Request: {"major": 6 | 7, "messageId", "chunks": [...], "message"?: UIMessage}.
// Answer: {"message": UIMessage | null, "errors": ["..."]}.
//
// Every chunk goes through the package's own SSE parser and schema first, as it would in a
// browser, so a chunk that clients refuse shows up as an error here.

import { createInterface } from "node:readline";
import * as ai6 from "ai6";
import * as ai7 from "ai7";

const majors = { 6: ai6, 7: ai7 };

function sseBody(chunks) {
  const text = chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("");
  return new Blob([text, "data: [DONE]\n\n"]).stream();
}

function parsedChunks(ai, chunks, errors) {
  return ai
    .parseJsonEventStream({ stream: sseBody(chunks), schema: ai.uiMessageChunkSchema })
    .pipeThrough(
      new TransformStream({
        transform(result, controller) {
          if (result.success) controller.enqueue(result.value);
          else errors.push(result.error.message.slice(0, 200));
        },
      }),
    );
}

async function fold({ major, messageId, chunks, message }) {
  const ai = majors[major];
  const errors = [];
  // The package's snapshots come only with some chunks (a step's start brings none), so the
  // state itself is read: it starts as the message that is handed in, and is changed in place.
  const state = message ?? { id: messageId, role: "assistant", parts: [] };
  const snapshots = ai.readUIMessageStream({
    message: state,
    stream: parsedChunks(ai, chunks, errors),
    onError: (error) => errors.push(error.message),
  });
  for await (const _snapshot of snapshots);
  return { message: state, errors };
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = await fold(JSON.parse(line));
  } catch (error) {
    answer = { message: null, errors: [String(error?.stack ?? error)] };
  }
  process.stdout.write(JSON.stringify(answer) + "\n");
}
