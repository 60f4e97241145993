"""The unfold: a message's parts as the chunks that make it, for a client that needs an answer from its start.

`fold` of what comes out is the message again, but for one thing: that a person has agreed to a call
(``approval-responded``) has no chunk in the safe subset, so such a call is told as still waiting; its result
follows in the chunks of the next leg.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..errors import RemoteProtocolError
from .fold_tools import is_tool_part
from .json_text import encode_json
from .messages import ChatMessage
from .ui_chunks import (
    Chunk,
    FinishStep,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
    decode_chunk,
)

_COPIED = frozenset({"source-url", "source-document", "file", "reasoning-file", "custom"})
"""Parts that are their chunk."""


def unfold(message: ChatMessage) -> list[Chunk]:
    """``start`` and all that was said since; no chunk that ends the answer. Unknown kinds of parts are left out."""
    chunks: list[Chunk] = [Start(message_id=message.id, message_metadata=message.metadata)]
    in_step = False
    for number, part in enumerate(message.parts):
        if part.get("type") == "step-start":
            if in_step:
                chunks.append(FinishStep())
            chunks.append(StartStep())
            in_step = True
        else:
            chunks += _chunks_of(part, number)
    if in_step and not _is_open(message.parts):
        chunks.append(FinishStep())
    return chunks


def _is_open(parts: list[dict[str, Any]]) -> bool:
    return any(part.get("type") in ("text", "reasoning") and part.get("state") == "streaming" for part in parts)


def _chunks_of(part: dict[str, Any], number: int) -> Iterator[Chunk]:
    kind = part.get("type")
    if kind == "text" or kind == "reasoning":
        yield from _text(part, number)
    elif is_tool_part(part):
        yield from _tool(part)
    elif isinstance(kind, str) and (kind in _COPIED or kind.startswith("data-")):
        try:
            shown = {key: value for key, value in part.items() if value is not None or key == "data"}
            yield decode_chunk(encode_json(shown))
        except RemoteProtocolError:
            return  # a newer client's kind of part


def _text(part: dict[str, Any], number: int) -> Iterator[Chunk]:
    metadata = part.get("providerMetadata")
    if part["type"] == "text":
        part_id = f"part-{number}"
        yield TextStart(part_id, provider_metadata=metadata)
        yield TextDelta(part_id, str(part.get("text", "")))
        if part.get("state") != "streaming":
            yield TextEnd(part_id, citations=part.get("citations"))
        return
    part_id = str(part.get("id") or f"part-{number}")
    yield ReasoningStart(part_id, provider_metadata=metadata)
    yield ReasoningDelta(part_id, str(part.get("text", "")))
    if part.get("state") != "streaming":
        yield ReasoningEnd(part_id)


def _tool(part: dict[str, Any]) -> Iterator[Chunk]:
    call_id, state = part["toolCallId"], part.get("state")
    dynamic = True if part["type"] == "dynamic-tool" else None
    name = str(part.get("toolName")) if dynamic else part["type"].removeprefix("tool-")
    shared: dict[str, Any] = {"provider_executed": part.get("providerExecuted"), "dynamic": dynamic}
    if state == "input-streaming" or "input" not in part:
        yield ToolInputStart(call_id, name, title=part.get("title"), **shared)
        if part.get("rawInput"):
            yield ToolInputDelta(call_id, str(part["rawInput"]))
    else:
        metadata = part.get("callProviderMetadata")
        title = part.get("title")
        yield ToolInputAvailable(call_id, name, part["input"], title=title, provider_metadata=metadata, **shared)
    approval = part.get("approval")
    if isinstance(approval, dict) and isinstance(approval.get("id"), str):
        yield ToolApprovalRequest(approval["id"], call_id)
    if state == "output-available":
        yield ToolOutputAvailable(call_id, part.get("output"), preliminary=part.get("preliminary"), **shared)
    elif state == "output-error":
        yield ToolOutputError(call_id, str(part.get("errorText", "")), **shared)
    elif state == "output-denied":
        yield ToolOutputDenied(call_id)
