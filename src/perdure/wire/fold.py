"""The fold: an answer's chunks become its message.

What is stored, and what a client that only knows history sees, is `MessageFold.message()`; what
a live client shows is its own fold of the same chunks. Both must be equal, so this one makes
what the npm package `ai` makes (6.0.326 and 7.0.173; a test compares them), and refuses the
orders of chunks that clients refuse or read differently from version to version:

- ``start`` comes first, and names no other message than this one;
- a delta or an end needs its part open, a start needs its id free;
- a step does not finish while a text or a reasoning part is open (6 drops it, 7 does not);
- a tool's input grows only in the step in which it began;
- a result or an approval needs its call somewhere in the message;
- nothing follows ``finish``, ``abort`` or ``error``.

Adding a delta costs the same however long the text is: pieces are joined when someone looks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

from ..errors import RemoteProtocolError
from .fold_tools import ToolParts, is_tool_part
from .messages import ChatMessage
from .ui_chunks import (
    Abort,
    Chunk,
    Custom,
    Data,
    Error,
    File,
    Finish,
    FinishReason,
    FinishStep,
    MessageMetadata,
    ProviderMetadata,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningFile,
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
    chunk_type,
)

Part: TypeAlias = dict[str, Any]

FoldStatus = Literal["streaming", "finished", "aborted", "failed"]

_UNMERGED_KEYS = frozenset({"__proto__", "constructor", "prototype"})
"""Keys that JavaScript clients never merge."""


class _OpenText:
    """A text or reasoning part that still grows."""

    __slots__ = ("part", "pieces")

    def __init__(self, part: Part) -> None:
        self.part = part
        self.pieces: list[str] = []

    def flush(self) -> None:
        if self.pieces:
            self.part["text"] += "".join(self.pieces)
            self.pieces.clear()


class MessageFold:
    """Builds the message ``message_id`` from its chunks.

    ``message``: the answer so far, where this stream goes on with one (a tool's result or an
    approval came back); it is not changed.
    """

    def __init__(self, message_id: str, *, message: ChatMessage | None = None) -> None:
        self.message_id = message_id
        self.status: FoldStatus = "streaming"
        self.error_text: str | None = None
        self.finish_reason: FinishReason | None = None
        self.in_step = False
        """Whether a step has begun and not finished."""
        self._started = False
        self._parts: list[Part] = [] if message is None else [dict(part) for part in message.parts]
        self._metadata = None if message is None else message.metadata
        self._open_texts: dict[str, _OpenText] = {}
        self._open_reasonings: dict[str, _OpenText] = {}
        self._tools = ToolParts(self._parts)
        self._data: dict[tuple[str, str], Part] = {}
        for part in self._parts:
            if isinstance(part.get("id"), str) and "data" in part:
                self._data.setdefault((part["type"], part["id"]), part)

    @classmethod
    def taking_up(cls, message: ChatMessage) -> MessageFold:
        """The fold of an answer that is being made, from what it is by now: its next chunks can be pushed.

        Texts that are still open carry the id that their chunks have (`room_parts.growing_parts`).
        """
        fold = cls(message.id, message=message)
        fold._started = True
        for part in fold._parts:
            if part.get("state") == "streaming" and isinstance(part.get("id"), str):
                if part["type"] == "text":
                    fold._open_texts[part.pop("id")] = _OpenText(part)
                elif part["type"] == "reasoning":
                    fold._open_reasonings[part["id"]] = _OpenText(part)
        fold._tools.reopen()
        return fold

    def push(self, chunk: Chunk) -> None:
        """Add the next chunk.

        Raises:
            RemoteProtocolError: it may not come here; the fold is as it was.
        """
        if type(chunk) is TextDelta:  # nearly all of them
            opened = self._open_texts.get(chunk.id)
            if opened is not None:
                opened.pieces.append(chunk.delta)
                if chunk.provider_metadata is not None:
                    opened.part["providerMetadata"] = chunk.provider_metadata
                return
        if self.status != "streaming":
            raise RemoteProtocolError(f"{chunk_type(chunk)} after the end of the stream ({self.status})")
        if not self._started and type(chunk) is not Start:
            raise RemoteProtocolError(f"{chunk_type(chunk)} before `start`")
        _HANDLERS[type(chunk)](self, chunk)

    def message(self) -> ChatMessage:
        """The message as it is now; a part that is still open has the state ``streaming``."""
        self._flush()
        return ChatMessage(
            id=self.message_id,
            role="assistant",
            parts=[dict(part) for part in self._parts],
            metadata=self._metadata,
        )

    @property
    def text(self) -> str:
        """The text so far: all text parts, joined with nothing between them."""
        for opened in self._open_texts.values():
            opened.flush()
        return "".join(part["text"] for part in self._parts if part.get("type") == "text")

    @property
    def open_text_ids(self) -> tuple[str, ...]:
        """The ids of the text parts that still grow, oldest first."""
        return tuple(self._open_texts)

    @property
    def open_reasoning_ids(self) -> tuple[str, ...]:
        """The ids of the reasoning parts that still grow, oldest first."""
        return tuple(self._open_reasonings)

    @property
    def step_parts(self) -> list[Part]:
        """The parts of the newest step as they are now, its ``step-start`` first. Do not change them."""
        self._flush()
        for index in range(len(self._parts) - 1, -1, -1):
            if self._parts[index].get("type") == "step-start":
                return self._parts[index:]
        return list(self._parts)

    @property
    def tool_parts(self) -> list[Part]:
        """The parts of all tool calls as they are now. Do not change them."""
        self._flush()
        return [part for part in self._parts if is_tool_part(part)]

    def respond_to_approval(self, tool_call_id: str, approval: dict[str, Any]) -> None:
        """Somebody has agreed to a call, or not. There is no chunk for it: clients write it down themselves."""
        for part in self.tool_parts:
            if part["toolCallId"] == tool_call_id and part.get("state") == "approval-requested":
                part["state"], part["approval"] = "approval-responded", approval

    def _flush(self) -> None:
        for opened in (*self._open_texts.values(), *self._open_reasonings.values()):
            opened.flush()
        self._tools.flush()

    def _on_start(self, chunk: Start) -> None:
        if chunk.message_id is not None and chunk.message_id != self.message_id:
            raise RemoteProtocolError(
                f"`start` of message {chunk.message_id!r} in the stream of message {self.message_id!r}"
            )
        self._started = True
        self._merge_metadata(chunk.message_metadata)

    def _on_start_step(self, _chunk: StartStep) -> None:
        self._tools.begin_step()
        self.in_step = True
        self._parts.append({"type": "step-start"})

    def _on_finish_step(self, _chunk: FinishStep) -> None:
        still_open = [*self._open_texts, *self._open_reasonings]
        if still_open:
            raise RemoteProtocolError(f"finish-step while part {still_open[0]!r} is open")
        self.in_step = False

    def _on_text_start(self, chunk: TextStart) -> None:
        part: Part = {"type": "text", "text": "", "state": "streaming"}
        self._open_text(self._open_texts, chunk, part)

    def _on_reasoning_start(self, chunk: ReasoningStart) -> None:
        part: Part = {"type": "reasoning", "id": chunk.id, "text": "", "state": "streaming"}
        self._open_text(self._open_reasonings, chunk, part)

    def _open_text(self, opened: dict[str, _OpenText], chunk: TextStart | ReasoningStart, part: Part) -> None:
        if chunk.id in opened:
            raise RemoteProtocolError(f"{chunk_type(chunk)} for part {chunk.id!r}, which is already open")
        _add_provider_metadata(part, chunk.provider_metadata)
        opened[chunk.id] = _OpenText(part)
        self._parts.append(part)

    def _on_text_delta(self, chunk: TextDelta) -> None:
        raise _not_open(chunk)  # `push` has looked already

    def _on_reasoning_delta(self, chunk: ReasoningDelta) -> None:
        opened = self._open_reasonings.get(chunk.id)
        if opened is None:
            raise _not_open(chunk)
        opened.pieces.append(chunk.delta)
        _add_provider_metadata(opened.part, chunk.provider_metadata)

    def _on_text_end(self, chunk: TextEnd) -> None:
        part = _close_text(self._open_texts, chunk)
        if chunk.citations is not None:
            part["citations"] = chunk.citations

    def _on_reasoning_end(self, chunk: ReasoningEnd) -> None:
        _close_text(self._open_reasonings, chunk)

    def _on_source_url(self, chunk: SourceUrl) -> None:
        part: Part = {"type": "source-url", "sourceId": chunk.source_id, "url": chunk.url}
        if chunk.title is not None:
            part["title"] = chunk.title
        _add_provider_metadata(part, chunk.provider_metadata)
        self._parts.append(part)

    def _on_source_document(self, chunk: SourceDocument) -> None:
        part: Part = {
            "type": "source-document",
            "sourceId": chunk.source_id,
            "mediaType": chunk.media_type,
            "title": chunk.title,
        }
        if chunk.filename is not None:
            part["filename"] = chunk.filename
        _add_provider_metadata(part, chunk.provider_metadata)
        self._parts.append(part)

    def _on_file(self, chunk: File | ReasoningFile) -> None:
        part: Part = {"type": chunk_type(chunk), "mediaType": chunk.media_type, "url": chunk.url}
        _add_provider_metadata(part, chunk.provider_metadata)
        self._parts.append(part)

    def _on_custom(self, chunk: Custom) -> None:
        part: Part = {"type": "custom", "kind": chunk.kind}
        _add_provider_metadata(part, chunk.provider_metadata)
        self._parts.append(part)

    def _on_data(self, chunk: Data) -> None:
        if chunk.transient:
            return
        shown = None if chunk.id is None else self._data.get((chunk.type, chunk.id))
        if shown is not None:
            shown["data"] = chunk.data
            return
        part: Part = {"type": chunk.type}
        if chunk.id is not None:
            part["id"] = chunk.id
            self._data[(chunk.type, chunk.id)] = part
        part["data"] = chunk.data
        if chunk.transient is not None:
            part["transient"] = chunk.transient  # clients keep the `false`, so we do
        self._parts.append(part)

    def _on_message_metadata(self, chunk: MessageMetadata) -> None:
        self._merge_metadata(chunk.message_metadata)

    def _merge_metadata(self, metadata: dict[str, Any] | None) -> None:
        if metadata is not None:
            self._metadata = metadata if self._metadata is None else _deep_merge(self._metadata, metadata)

    def _on_finish(self, chunk: Finish) -> None:
        self.finish_reason = chunk.finish_reason
        self._merge_metadata(chunk.message_metadata)
        self._end("finished")

    def _on_abort(self, _chunk: Abort) -> None:
        self._end("aborted")

    def _on_error(self, chunk: Error) -> None:
        self.error_text = chunk.error_text
        self._end("failed")

    def _end(self, status: FoldStatus) -> None:
        self._flush()
        self._open_texts.clear()
        self._open_reasonings.clear()
        self.status = status


def fold(chunks: Iterable[Chunk], *, message_id: str = "") -> MessageFold:
    """The fold of a whole stream. The message's id is that of its ``start``, else ``message_id``."""
    result: MessageFold | None = None
    for chunk in chunks:
        if result is None:
            named = chunk.message_id if isinstance(chunk, Start) else None
            result = MessageFold(message_id if named is None else named)
        result.push(chunk)
    return MessageFold(message_id) if result is None else result


def _not_open(chunk: TextDelta | TextEnd | ReasoningDelta | ReasoningEnd) -> RemoteProtocolError:
    return RemoteProtocolError(f"{chunk_type(chunk)} for part {chunk.id!r}, which is not open")


def _close_text(opened: dict[str, _OpenText], chunk: TextEnd | ReasoningEnd) -> Part:
    closing = opened.pop(chunk.id, None)
    if closing is None:
        raise _not_open(chunk)
    closing.flush()
    closing.part["state"] = "done"
    _add_provider_metadata(closing.part, chunk.provider_metadata)
    return closing.part


def _add_provider_metadata(part: Part, metadata: ProviderMetadata | None) -> None:
    """The newest replaces what was there; it is not merged."""
    if metadata is not None:
        part["providerMetadata"] = metadata


def _deep_merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Objects are merged key by key, everything else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        if key in _UNMERGED_KEYS:
            continue
        held = merged.get(key)
        if isinstance(held, dict) and isinstance(value, dict):
            merged[key] = _deep_merge(held, value)
        else:
            merged[key] = value
    return merged


_HANDLERS: dict[type[Chunk], Callable[[MessageFold, Any], None]] = {
    Start: MessageFold._on_start,
    StartStep: MessageFold._on_start_step,
    FinishStep: MessageFold._on_finish_step,
    TextStart: MessageFold._on_text_start,
    TextDelta: MessageFold._on_text_delta,
    TextEnd: MessageFold._on_text_end,
    ReasoningStart: MessageFold._on_reasoning_start,
    ReasoningDelta: MessageFold._on_reasoning_delta,
    ReasoningEnd: MessageFold._on_reasoning_end,
    ToolInputStart: lambda fold, chunk: fold._tools.input_start(chunk),
    ToolInputDelta: lambda fold, chunk: fold._tools.input_delta(chunk),
    ToolInputAvailable: lambda fold, chunk: fold._tools.input_available(chunk),
    ToolInputError: lambda fold, chunk: fold._tools.input_error(chunk),
    ToolApprovalRequest: lambda fold, chunk: fold._tools.approval_request(chunk),
    ToolOutputAvailable: lambda fold, chunk: fold._tools.output_available(chunk),
    ToolOutputError: lambda fold, chunk: fold._tools.output_error(chunk),
    ToolOutputDenied: lambda fold, chunk: fold._tools.output_denied(chunk),
    SourceUrl: MessageFold._on_source_url,
    SourceDocument: MessageFold._on_source_document,
    File: MessageFold._on_file,
    ReasoningFile: MessageFold._on_file,
    Custom: MessageFold._on_custom,
    Data: MessageFold._on_data,
    MessageMetadata: MessageFold._on_message_metadata,
    Finish: MessageFold._on_finish,
    Abort: MessageFold._on_abort,
    Error: MessageFold._on_error,
}
