"""Stored messages as AG-UI events: to fill a session stream with what was said before, to tell of a user's
message, to replace the transcript after an edit.

TanStack's `UIMessage` has the ids and roles of ours, and these parts:

===================================  ==============================================
ours (AI SDK)                        TanStack's
===================================  ==============================================
text ``{text}``                      text ``{content}``
reasoning ``{text}``                 thinking ``{content}``
file ``{mediaType, url}``            image, audio, video or document ``{source}``
tool-NAME, dynamic-tool              tool-call; after it a tool-result, if any
step-start, sources, data-NAME       none
===================================  ==============================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import msgspec

from .agui import AguiEncoder
from .agui_events import agui_event, client_metadata, result_text
from .agui_tools import DENIED, FAILED
from .json_text import encode_json
from .messages import ChatMessage
from .ui_chunks import (
    Chunk,
    Data,
    File,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    SourceDocument,
    SourceUrl,
    Start,
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
)

Part: TypeAlias = dict[str, Any]

_WHOLE_PARTS: dict[str, type[Chunk]] = {"source-url": SourceUrl, "source-document": SourceDocument, "file": File}


def message_events(message: ChatMessage) -> list[bytes]:
    """The events from which clients make ``message``: TEXT_MESSAGE_START, its parts, TEXT_MESSAGE_END; no run.

    A client that has a message of this id, such as the one that posted it, keeps one. Tell of a message once:
    `@durable-streams/tanstack-ai-transport` shows the text of a repeated one twice. It knows texts only. A
    user's files are CUSTOM ``file`` events, and the text of a message that ends in one is shown twice to
    the client that posted it: such a message is better told by a `snapshot_event`.
    """
    if message.role == "assistant":
        return _answer_events(message)
    metadata = client_metadata(message.metadata)
    events = [agui_event("TEXT_MESSAGE_START", messageId=message.id, role=message.role, metadata=metadata)]
    if message.text:
        events.append(agui_event("TEXT_MESSAGE_CONTENT", messageId=message.id, delta=message.text))
    events.append(agui_event("TEXT_MESSAGE_END", messageId=message.id))
    for part in message.parts:
        if part.get("type") == "file":
            value = {"messageId": message.id, **{name: part[name] for name in part if name != "type"}}
            events.append(agui_event("CUSTOM", name="file", value=value))
    return events


def snapshot_event(messages: Iterable[ChatMessage]) -> bytes:
    """The MESSAGES_SNAPSHOT that makes ``messages`` the whole conversation of every client.

    For settled messages: what an answer says after a snapshot that holds its beginning is not shown right by
    `@durable-streams/tanstack-ai-transport`.
    """
    return agui_event("MESSAGES_SNAPSHOT", messages=[client_message(message) for message in messages])


def client_message(message: ChatMessage) -> dict[str, Any]:
    """The message as TanStack's `UIMessage`, but for its dates."""
    shown: dict[str, Any] = {"id": message.id, "role": message.role, "parts": list(_client_parts(message))}
    if metadata := client_metadata(message.metadata):
        shown["metadata"] = metadata
    return shown


def _answer_events(message: ChatMessage) -> list[bytes]:
    encoder = AguiEncoder("", message.id)
    encoder.restore([Start(message.id, message.metadata)])
    events = [event for chunk in _chunks(message) for event in encoder.encode(chunk)]
    return events + encoder.end_message()


# --- parts as the chunks that they were made of


def _chunks(message: ChatMessage) -> Iterator[Chunk]:
    for index, part in enumerate(message.parts):
        kind, part_id = part.get("type"), str(index)
        if kind == "text":
            yield from (TextStart(part_id), TextDelta(part_id, part["text"]), TextEnd(part_id))
        elif kind == "reasoning":
            yield from (ReasoningStart(part_id), ReasoningDelta(part_id, part["text"]), ReasoningEnd(part_id))
        elif _is_tool(part):
            yield from _tool_chunks(part)
        elif isinstance(kind, str) and (kind in _WHOLE_PARTS or kind.startswith("data-")):
            try:
                chunk: Chunk = msgspec.convert(part, _WHOLE_PARTS.get(kind, Data))
            except msgspec.ValidationError:
                continue  # of a newer version: no client would know it
            yield chunk


def _tool_chunks(part: Part) -> Iterator[Chunk]:
    call_id, name, state = part["toolCallId"], _tool_name(part), part.get("state")
    executed = part.get("providerExecuted")
    if "input" in part and state != "input-streaming":
        yield ToolInputAvailable(call_id, name, part["input"], executed)
    else:
        yield ToolInputStart(call_id, name, executed)
        if part.get("rawInput"):
            yield ToolInputDelta(call_id, part["rawInput"])
    if state == "approval-requested":
        yield ToolApprovalRequest(part["approval"]["id"], call_id)
    elif state == "output-available":
        yield ToolOutputAvailable(call_id, part.get("output"))
    elif state == "output-error":
        yield ToolOutputError(call_id, part.get("errorText", ""))
    elif state == "output-denied":
        yield ToolOutputDenied(call_id)


# --- parts as TanStack's


def _client_parts(message: ChatMessage) -> Iterator[Part]:
    thoughts = 0
    calls: dict[str, int] = {}
    for part in message.parts:
        kind = part.get("type")
        if kind == "text" and part["text"]:
            yield {"type": "text", "content": part["text"]}
        elif kind == "reasoning":
            thoughts += 1
            if part["text"]:
                yield {"type": "thinking", "content": part["text"], "stepId": f"thinking-{thoughts}"}
        elif kind == "file":
            yield _client_file(part)
        elif _is_tool(part):
            count = calls[part["toolCallId"]] = calls.get(part["toolCallId"], 0) + 1
            yield from _client_call(part, part["toolCallId"] if count == 1 else f"{part['toolCallId']}~{count}")


def _client_file(part: Part) -> Part:
    media_type = str(part.get("mediaType", ""))
    family = media_type.partition("/")[0]
    return {
        "type": family if family in ("image", "audio", "video") else "document",
        "source": {"type": "url", "value": part.get("url", ""), "mimeType": media_type},
    }


_CALL_STATES = {
    "approval-requested": "approval-requested",
    "approval-responded": "approval-responded",
    "output-available": "complete",
    "output-error": "error",
    "output-denied": "error",
}


def _client_call(part: Part, call_id: str) -> Iterator[Part]:
    state = part.get("state", "")
    call: Part = {
        "type": "tool-call",
        "id": call_id,
        "name": _tool_name(part),
        "arguments": part.get("rawInput", ""),
        "state": _CALL_STATES.get(state, "input-complete"),
    }
    if "input" in part and state != "input-streaming":
        call["arguments"] = encode_json(part["input"]).decode()
        if part["input"] is not None:
            call["input"] = part["input"]
    if part.get("providerExecuted"):
        call["metadata"] = {"providerExecuted": True}
    if state.startswith("approval-"):
        call["approval"] = {**part["approval"], "needsApproval": True}
    if state == "output-available":
        call["output"] = part.get("output")
    elif call["state"] == "error":
        call["output"] = {"error": DENIED if state == "output-denied" else part.get("errorText") or FAILED}
    yield call
    if "output" in call:
        result = {"type": "tool-result", "toolCallId": call_id, "content": result_text(call["output"])}
        if call["state"] == "error":
            yield {**result, "state": "error", "error": call["output"]["error"]}
        else:
            yield {**result, "state": "complete"}


def _is_tool(part: Part) -> bool:
    kind = part.get("type")
    return isinstance(kind, str) and (kind == "dynamic-tool" or kind.startswith("tool-")) and "toolCallId" in part


def _tool_name(part: Part) -> str:
    kind: str = part["type"]
    return str(part.get("toolName", "tool")) if kind == "dynamic-tool" else kind.removeprefix("tool-")
