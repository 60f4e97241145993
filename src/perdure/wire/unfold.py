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
    call_id, state = part["toolCallId"], str(part.get("state"))
    dynamic = True if part["type"] == "dynamic-tool" else None
    name = str(part.get("toolName")) if dynamic else part["type"].removeprefix("tool-")
    shared: dict[str, Any] = {"provider_executed": part.get("providerExecuted"), "dynamic": dynamic}
    described = {
        "title": part.get("title"),
        "provider_metadata": part.get("callProviderMetadata"),
        "tool_metadata": part.get("toolMetadata"),
    }
    told = dict(_told(call_id, part, shared))
    newest = told.pop(state, None)  # what the state says came last
    begin: Chunk
    if state == "input-streaming" or "input" not in part:
        begin = ToolInputStart(call_id, name, input_encoding=part.get("inputEncoding"), **described, **shared)
    else:
        begin = ToolInputAvailable(call_id, name, part["input"], **described, **shared)
    yield begin
    if told and state in ("input-streaming", "input-available"):  # an input that was written once more
        yield from (*told.values(), begin)
        told = {}
    if part.get("rawInput") and isinstance(begin, ToolInputStart):
        yield ToolInputDelta(call_id, str(part["rawInput"]))
    yield from told.values()
    if newest is not None:
        yield newest


def _told(call_id: str, part: dict[str, Any], shared: dict[str, Any]) -> Iterator[tuple[str, Chunk]]:
    """What came of the call, by the state that each of these leaves it in."""
    approval_id = (part.get("approval") or {}).get("id")
    if isinstance(approval_id, str):
        yield "approval-requested", ToolApprovalRequest(approval_id, call_id)
    if "output" in part or part.get("state") == "output-available":
        preliminary = part.get("preliminary")
        yield "output-available", ToolOutputAvailable(call_id, part.get("output"), preliminary=preliminary, **shared)
    if "errorText" in part or part.get("state") == "output-error":
        yield "output-error", ToolOutputError(call_id, str(part.get("errorText", "")), **shared)
    if part.get("state") == "output-denied":
        yield "output-denied", ToolOutputDenied(call_id)
