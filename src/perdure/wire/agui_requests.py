"""What TanStack AI's clients post to a session: ``{"messages": [UIMessage, ...], "data"?}``.

The conversation is named by the URL, and the run by nobody. Only what is new is to be trusted, and that is in the
last message:

==================  ==============================================================================
the last message    what is asked
==================  ==============================================================================
a new user's        answer it
a known user's      the post came twice, or (``reload``) its answer is to be made again
an assistant's      a tool's result or an approval came back in it
==================  ==============================================================================

Messages become ours: TanStack's parts are read as AI SDK parts, and AI SDK parts are taken as they are. A part of
another kind is kept whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from ..errors import LimitExceeded, RemoteProtocolError, WireError
from .agui_events import given_metadata
from .agui_tools import FAILED
from .json_text import decode_json
from .messages import ChatMessage, Role
from .ui_requests import ChatRequest

Part: TypeAlias = dict[str, Any]

_ROLES: tuple[Role, ...] = ("system", "user", "assistant")
_FILE_PARTS = {
    "image": "image/*",
    "audio": "audio/*",
    "video": "video/*",
    "document": "application/octet-stream",
}
"""TanStack's kinds of files, and the media type of one that does not say it."""


def parse_session_request(body: bytes, *, chat_id: str, message_bytes_max: int | None = None) -> ChatRequest:
    """The request in ``body``; ``chat_id`` is the session that the URL names.

    ``new_message`` is the last message where it is a user's, else None: the results are in ``messages[-1]``, and
    ``message_id`` is its id. A message that came without an id has ``""``. ``extra`` is the object in ``data``.

    Raises:
        RemoteProtocolError: it is no such request; the text says why.
        LimitExceeded: the new message's text is longer than ``message_bytes_max`` bytes of UTF-8.
    """
    fields = decode_json(body, "the request body")
    if not isinstance(fields, dict):
        raise RemoteProtocolError("the request body is not a JSON object")
    given = fields.get("messages")
    if not isinstance(given, list):
        raise RemoteProtocolError("`messages` is not an array")
    messages = [parse_ui_message(item, f"`messages[{index}]`") for index, item in enumerate(given)]
    if not messages:
        raise RemoteProtocolError("the request holds no message to answer")
    newest = messages[-1]
    if newest.role == "system":
        raise RemoteProtocolError("the request ends with a system message; there is nothing to answer")
    if newest.role == "user":
        check_new_message(newest, message_bytes_max)
    data = fields.get("data")
    if not isinstance(data, dict | None):
        raise RemoteProtocolError("`data` is not a JSON object")
    return ChatRequest(
        chat_id=chat_id,
        trigger="submit-message",
        message_id=newest.id or None if newest.role == "assistant" else None,
        messages=messages,
        new_message=newest if newest.role == "user" else None,
        extra=data or {},
    )


def check_new_message(message: ChatMessage, message_bytes_max: int | None) -> None:
    """Raises RemoteProtocolError for a message that says nothing, LimitExceeded for one that says too much."""
    text = message.text
    size = len(text.encode())
    if message_bytes_max is not None and size > message_bytes_max:
        raise LimitExceeded("message_bytes_max", size, message_bytes_max)
    if not text.strip() and all(part["type"] == "text" for part in message.parts):
        raise RemoteProtocolError("a message must not be empty")


def parse_ui_message(item: Any, where: str) -> ChatMessage:
    """TanStack's message as ours; ``where`` is its name in errors. Raises RemoteProtocolError."""
    if not isinstance(item, dict):
        raise RemoteProtocolError(f"{where} is not a message")
    role = next((known for known in _ROLES if item.get("role", "user") == known), None)
    if role is None:
        raise RemoteProtocolError(f"the role of {where} is system, user or assistant")
    message_id = item.get("id")
    if not isinstance(message_id, str | None):
        raise RemoteProtocolError(f"the id of {where} is not a text")
    metadata = item.get("metadata")
    return ChatMessage(
        id=message_id or "",
        role=role,
        parts=list(_own_parts(_given_parts(item, where), where)),
        metadata=given_metadata(metadata) if isinstance(metadata, dict) else None,
    )


def _given_parts(item: dict[str, Any], where: str) -> list[Part]:
    """The message's parts; ``content`` stands in for absent ones, as text or as a list of parts."""
    parts = item["parts"] if item.get("parts") is not None else item.get("content")
    if isinstance(parts, str):
        return [{"type": "text", "content": parts}]
    if not isinstance(parts, list):
        raise RemoteProtocolError(f"{where} has no `parts`")
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise RemoteProtocolError(f"part {index} of {where} is not an object with a `type`")
    return parts


def _own_parts(parts: list[Part], where: str) -> Iterator[Part]:
    calls = {part.get("id") for part in parts if part["type"] == "tool-call" and isinstance(part.get("id"), str)}
    results = {
        part["toolCallId"]: part
        for part in parts
        if part["type"] == "tool-result" and isinstance(part.get("toolCallId"), str) and part["toolCallId"] in calls
    }
    for index, part in enumerate(parts):
        kind, which = part["type"], f"part {index} of {where}"
        if kind == "text":
            yield _own_text(part, which)
        elif kind == "thinking" and isinstance(part.get("content"), str):
            yield {"type": "reasoning", "text": part["content"], "state": "done"}
        elif kind in _FILE_PARTS:
            yield _own_file(part, which)
        elif kind == "tool-call":
            yield _own_call(part, results, which)
        elif kind != "tool-result" or str(part.get("toolCallId")) not in results:
            yield part


def _own_text(part: Part, which: str) -> Part:
    if isinstance(part.get("text"), str):
        return part
    if not isinstance(part.get("content"), str):
        raise RemoteProtocolError(f"{which} is a text part without `content`")
    return {"type": "text", "text": part["content"]}


def _own_file(part: Part, which: str) -> Part:
    source = part.get("source")
    if not isinstance(source, dict) or not isinstance(source.get("value"), str):
        raise RemoteProtocolError(f"{which} has no `source` with a `value`")
    given, url = source.get("mimeType"), source["value"]
    media_type = given if isinstance(given, str) and given else _FILE_PARTS[part["type"]]
    if source.get("type") == "data":
        url = f"data:{media_type};base64,{url}"
    return {"type": "file", "mediaType": media_type, "url": url}


def _own_call(part: Part, results: dict[str, Part], which: str) -> Part:
    call_id, name, state = part.get("id"), part.get("name"), part.get("state")
    if not isinstance(call_id, str) or not isinstance(name, str):
        raise RemoteProtocolError(f"{which} is a tool call without `id` or `name`")
    own: Part = {"type": f"tool-{name}", "toolCallId": call_id}
    result = results.get(call_id)
    approval = part["approval"] if isinstance(part.get("approval"), dict) else None
    if "output" in part or result is not None:
        own |= _own_result(part, result)
    elif approval is not None:
        own["state"] = "approval-responded" if isinstance(approval.get("approved"), bool) else "approval-requested"
    elif state in ("awaiting-input", "input-streaming"):
        return {**own, "state": "input-streaming", "rawInput": part.get("arguments", "")}
    else:
        own["state"] = "input-available"
    own["input"] = part["input"] if "input" in part else json_or_text(part.get("arguments"))
    if approval is not None:
        own["approval"] = {key: value for key, value in approval.items() if key != "needsApproval"}
    return own


def _own_result(part: Part, result: Part | None) -> Part:
    output = part["output"] if "output" in part else json_or_text(result.get("content") if result else None)
    if part.get("state") != "error" and (result is None or result.get("state") != "error"):
        return {"state": "output-available", "output": output}
    error = result.get("error") if result is not None else None
    if not isinstance(error, str):
        error = output.get("error") if isinstance(output, dict) else output
    return {"state": "output-error", "errorText": error if isinstance(error, str) else FAILED}


def json_or_text(given: Any) -> Any:
    """What a tool's text says: JSON's value, or the text where it is none."""
    if not isinstance(given, str):
        return given
    try:
        return decode_json(given, "the text")
    except WireError:
        return given
