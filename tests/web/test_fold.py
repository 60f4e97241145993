"""The page's fold of chunks against the server's, from any point of an answer on."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from playwright.sync_api import Page
from tests.wire.chunk_sequences import MESSAGE_ID, chunk_sequences

from perdure.wire.fold import MessageFold
from perdure.wire.messages import ChatMessage
from perdure.wire.room_parts import growing_parts
from perdure.wire.ui_chunks import (
    Chunk,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    encode_chunk,
)

SHOWN = {
    *("type", "text", "toolCallId", "toolName", "title", "state", "input", "output", "errorText", "preliminary"),
    *("providerExecuted", "url", "mediaType", "filename", "data"),
}
"""The fields of parts that the page looks at."""

FOLD = """async ([parts, chunks, theirs]) => {
  const { Fold } = await import("/_perdure/static/fold.js");
  const fold = new Fold(parts);
  for (const chunk of chunks) fold.push(chunk);
  return JSON.stringify([fold.parts, theirs]); // numbers of both as JavaScript writes them
}"""


def shown(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a page shows of parts. A half input is shown as it was written."""
    found = []
    for part in parts:
        fields = {name: part[name] for name in SHOWN & part.keys() if part[name] is not None or name == "data"}
        if part.get("state") == "input-streaming":
            fields.pop("input", None)
            fields["raw"] = part.get("rawInput") or ""
        found.append(fields)
    return found


def inputs_are_whole(chunks: list[Chunk]) -> bool:
    """Whether no call has a result before its input is whole: only then do the two show such an input otherwise."""
    half: set[str] = set()
    for chunk in chunks:
        if isinstance(chunk, ToolInputStart):
            half.add(chunk.tool_call_id)
        elif isinstance(chunk, (ToolInputAvailable, ToolInputError)):
            half.discard(chunk.tool_call_id)
        elif getattr(chunk, "tool_call_id", None) in half and not isinstance(chunk, ToolInputDelta):
            return False
    return True


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(chunk_sequences(), st.integers(0, 100))
def test_the_page_folds_as_the_server_does(blank_page: Page, chunks: list[Chunk], cut: int) -> None:
    """Whatever was said before it came: the rest makes the same parts."""
    assume(inputs_are_whole(chunks))
    before, after = chunks[: cut % (len(chunks) + 1)], chunks[cut % (len(chunks) + 1) :]
    fold = MessageFold(MESSAGE_ID)
    for chunk in before:
        fold.push(chunk)
    snapshot: ChatMessage = ChatMessage(MESSAGE_ID, "assistant", growing_parts(fold))
    for chunk in after:
        fold.push(chunk)
    said = [msgspec.json.decode(encode_chunk(chunk)) for chunk in after]
    ours, theirs = msgspec.json.decode(blank_page.evaluate(FOLD, [snapshot.parts, said, fold.message().parts]))
    assert shown(ours) == shown(theirs)
