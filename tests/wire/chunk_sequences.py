"""A hypothesis strategy of legal chunk sequences: what a server may stream, in any mixture."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from perdure.wire.ui_chunks import (
    Abort,
    Chunk,
    Data,
    Error,
    File,
    Finish,
    FinishStep,
    MessageMetadata,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    SourceDocument,
    SourceUrl,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
)

MESSAGE_ID = "msg-1"

_SAFE_INTEGER = 2**53 - 1  # beyond it JavaScript rounds
_texts = st.text(max_size=12)
_numbers = st.integers(-_SAFE_INTEGER, _SAFE_INTEGER) | st.floats(allow_nan=False, allow_infinity=False)
_keys = _texts.filter(lambda key: key not in ("__proto__", "prototype"))  # no client reads those


def _json_values(keys: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | _numbers | _texts,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=6,
    )


_json = _json_values(_keys)
_any_json = _json_values(_keys | st.sampled_from(["__proto__", "constructor", "prototype"]))
# Few keys, so that merges meet each other.
_metadata = st.dictionaries(
    st.sampled_from(["model", "usage", "a"]),
    st.recursive(_json, lambda inner: st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2), max_leaves=4),
    max_size=3,
)
_provider_metadata = st.none() | st.dictionaries(
    st.sampled_from(["openai", "anthropic"]), st.dictionaries(_keys, _json, max_size=2), max_size=2
)
_flags = st.sampled_from([None, None, True, False])
_part_ids = st.sampled_from(["t1", "t2", "toString"])
_call_ids = st.sampled_from(["call_0", "call_1", "call_2"])
_tool_names = st.sampled_from(["weather", "read-file"])
_titles = st.none() | _texts


@st.composite
def _json_pieces(draw: st.DrawFn) -> list[str]:
    """The JSON text of a tool's input, whole or cut off, in pieces."""
    value = draw(_any_json)
    text = json.dumps(value, ensure_ascii=False, indent=draw(st.sampled_from([None, 1])))
    if draw(st.booleans()):
        text = text[: draw(st.integers(0, len(text)))]
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=3)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


class _Writer:
    """Draws one legal chunk after the other; keeps what the legality of the next depends on."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.chunks: list[Chunk] = []
        self.texts: set[str] = set()
        self.reasonings: set[str] = set()
        self.open_inputs: set[str] = set()
        self.calls: set[str] = set()
        self.refused: set[str] = set()  # ended by tool-input-error, where 6 and 7 part ways

    def step(self) -> None:
        draw = self.draw
        if draw(st.integers(0, 2)) or not (self.texts or self.reasonings):
            self.chunks.append(StartStep())
            self.open_inputs.clear()
        for part_id in sorted(self.texts):
            self.chunks.append(TextEnd(part_id))
        for part_id in sorted(self.reasonings):
            self.chunks.append(ReasoningEnd(part_id))
        self.texts.clear()
        self.reasonings.clear()
        self.chunks.append(FinishStep())

    def text(self) -> None:
        draw, part_id = self.draw, self.draw(_part_ids)
        if part_id not in self.texts:
            self.texts.add(part_id)
            self.chunks.append(TextStart(part_id, draw(_provider_metadata)))
        elif draw(st.integers(0, 2)):
            self.chunks.append(TextDelta(part_id, draw(_texts), draw(_provider_metadata)))
        else:
            self.texts.remove(part_id)
            self.chunks.append(TextEnd(part_id, draw(_provider_metadata)))

    def reasoning(self) -> None:
        draw, part_id = self.draw, self.draw(_part_ids)
        if part_id not in self.reasonings:
            self.reasonings.add(part_id)
            self.chunks.append(ReasoningStart(part_id, draw(_provider_metadata)))
        elif draw(st.integers(0, 2)):
            self.chunks.append(ReasoningDelta(part_id, draw(_texts), draw(_provider_metadata)))
        else:
            self.reasonings.remove(part_id)
            self.chunks.append(ReasoningEnd(part_id, draw(_provider_metadata)))

    def tool_input(self) -> None:
        draw, call_id = self.draw, self.draw(_call_ids)
        if call_id in self.refused:
            return
        name, flag = draw(_tool_names), draw(_flags)
        if call_id not in self.open_inputs and draw(st.booleans()):
            self.chunks.append(ToolInputStart(call_id, name, draw(_flags), flag, draw(_titles)))
            self.open_inputs.add(call_id)
            self.calls.add(call_id)
        elif call_id in self.open_inputs and draw(st.booleans()):
            self.chunks.extend(ToolInputDelta(call_id, piece) for piece in draw(_json_pieces()))
        else:
            self.open_inputs.discard(call_id)
            self.calls.add(call_id)
            rest = (draw(_flags), draw(_provider_metadata), flag, draw(_titles))
            if draw(st.integers(0, 3)):
                self.chunks.append(ToolInputAvailable(call_id, name, draw(_json), *rest))
            else:
                self.chunks.append(ToolInputError(call_id, name, draw(_json), draw(_texts), *rest))
                self.refused.add(call_id)

    def tool_result(self) -> None:
        draw = self.draw
        answerable = sorted(self.calls - self.refused)
        if not answerable:
            return
        call_id = draw(st.sampled_from(answerable))
        self.open_inputs.discard(call_id)
        results: list[Chunk] = [
            ToolOutputAvailable(call_id, draw(_json), draw(_flags), draw(_flags), draw(_flags)),
            ToolOutputError(call_id, draw(_texts), draw(_flags), draw(_flags)),
            ToolOutputDenied(call_id),
            ToolApprovalRequest("approval-1", call_id),
        ]
        self.chunks.append(draw(st.sampled_from(results)))

    def whole_part(self) -> None:
        draw = self.draw
        data_type, data_id = (
            draw(st.sampled_from(["data-weather", "data-x"])),
            draw(st.sampled_from([None, "1", "2"])),
        )
        parts: list[Chunk] = [
            SourceUrl(draw(_texts), draw(_texts), draw(_titles), draw(_provider_metadata)),
            SourceDocument(draw(_texts), "text/plain", draw(_texts), draw(_titles), draw(_provider_metadata)),
            File("data:,x", "text/plain", draw(_provider_metadata)),
            Data(data_type, draw(_json), data_id, draw(_flags)),
            MessageMetadata(draw(_metadata)),
        ]
        self.chunks.append(draw(st.sampled_from(parts)))


@st.composite
def chunk_sequences(draw: st.DrawFn) -> list[Chunk]:
    """A legal stream of the message `MESSAGE_ID`, whole, ended by its server, or cut anywhere."""
    writer = _Writer(draw)
    writer.chunks.append(Start(MESSAGE_ID, draw(st.none() | _metadata)))
    actions = [
        writer.step,
        writer.text,
        writer.text,
        writer.reasoning,
        writer.tool_input,
        writer.tool_input,
        writer.tool_result,
        writer.whole_part,
    ]
    for index in draw(st.lists(st.integers(0, len(actions) - 1), max_size=25)):
        actions[index]()
    end: list[Chunk | None] = [
        Finish("stop", draw(st.none() | _metadata)),
        Finish(),
        Abort(),
        Error("no model"),
        None,
    ]
    terminal = draw(st.sampled_from(end))
    if terminal is not None:
        writer.chunks.append(terminal)
    return writer.chunks
