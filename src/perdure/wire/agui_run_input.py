"""What TanStack AI's clients post over HTTP: AG-UI's ``RunAgentInput``.

::

    {"threadId", "runId", "messages": [...], "tools": [{"name", "description", "parameters"}, ...],
     "forwardedProps", "parentRunId"?, "resume"?, "state", "context", "data"}

The thread is the conversation, the run what this post asks for. A client that loses its answer posts the same
run again; one that wants another answer (``reload``) posts a new run with the messages that it had before.

An assistant's message is spread out in that list: its thoughts, the message with its text and its calls, then
what each call gave as a message of the role ``tool``. They are put together again here, as AI SDK parts. An
approval comes back as such a ``tool`` message, too, and looks like an output: `awaited_results` tells which is
which by what was asked for.

Clients before AG-UI sent ``{"messages": [UIMessage, ...], "data"}``: such messages are read as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..errors import RemoteProtocolError
from .agui_requests import Part, check_new_message, json_or_text, parse_ui_message
from .agui_tools import FAILED
from .json_text import decode_json
from .messages import ChatMessage
from .ui_requests import ClientTool

RUN_ID_BYTES_MAX = 512
"""Longest name of a run: it is kept with the room."""

_CALL_FIELDS: tuple[str, ...] = ("type", "toolName", "toolCallId", "input")

_NOT_SAID = frozenset({"reasoning", "activity"})
"""Roles of messages that say what another message has as well, or nothing to the model."""


class RunInput(msgspec.Struct, frozen=True):
    """A parsed request.

    ``new_message`` is the last message where it is a user's, else None: results came back then. A message that
    came without an id has ``""``. ``messages`` is the whole list, assistants' with their results in them;
    ``extra`` what the application added.
    """

    thread_id: str
    run_id: str
    messages: list[ChatMessage]
    new_message: ChatMessage | None
    tools: list[ClientTool]
    extra: dict[str, Any]


def is_run_input(body: bytes) -> bool:
    """Whether a request's body may be one of these: AI SDK clients post to the same address, without a run."""
    return b'"runId"' in body and b'"threadId"' in body and not _has_trigger(body)


def _has_trigger(body: bytes) -> bool:
    """Whether the body is an AI SDK client's, which always says what triggered it."""
    if b'"trigger"' not in body:
        return False
    fields = decode_json(body, "the request body")
    return isinstance(fields, dict) and "trigger" in fields


def parse_run_input(body: bytes, *, message_bytes_max: int | None = None) -> RunInput:
    """The request in ``body``.

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
    messages = _messages(given)
    if not messages:
        raise RemoteProtocolError("the request holds no message to answer")
    newest = messages[-1]
    if newest.role == "system":
        raise RemoteProtocolError("the request ends with a system message; there is nothing to answer")
    if newest.role == "user":
        check_new_message(newest, message_bytes_max)
    return RunInput(
        thread_id=_id(fields, "threadId"),
        run_id=_id(fields, "runId"),
        messages=messages,
        new_message=newest if newest.role == "user" else None,
        tools=_tools(fields.get("tools")),
        extra=_extra(fields),
    )


def awaited_results(came_back: ChatMessage, stored: ChatMessage) -> ChatMessage | None:
    """What of ``came_back`` the ``stored`` message waits for, in the stored message's own names.

    A call that waits for an approval takes one, be it a part's state or an output like ``{"approved": true}``;
    a call that waits for its client takes an output or an error. Nothing else is taken; None if that is all.
    """
    given = {part["toolCallId"]: part for part in came_back.parts if "toolCallId" in part}
    counts: dict[str, int] = {}
    taken = []
    for part in stored.parts:
        call_id = part.get("toolCallId")
        if call_id is None:
            continue
        # The second call of an id has another name on the wire.
        count = counts[call_id] = counts.get(call_id, 0) + 1
        answer = given.get(call_id if count == 1 else f"{call_id}~{count}")
        if answer is not None and (result := _result_for(part, answer)) is not None:
            taken.append(result)
    return ChatMessage(stored.id, "assistant", taken) if taken else None


def _result_for(part: Part, answer: Part) -> Part | None:
    known: Part = {name: part[name] for name in _CALL_FIELDS if name in part}
    state, given = part.get("state"), answer.get("state")
    if state == "approval-requested":
        approval = _approval_in(answer)
        if approval is None:
            return None
        return {**known, "state": "approval-responded", "approval": {**part.get("approval", {}), **approval}}
    if state == "input-available" and given == "output-available":
        return {**known, "state": given, "output": answer.get("output")}
    if state == "input-available" and given == "output-error":
        return {**known, "state": given, "errorText": answer.get("errorText") or FAILED}
    return None


def _approval_in(answer: Part) -> dict[str, Any] | None:
    """The user's word in a call that came back."""
    state = answer.get("state")
    word = {"approval-responded": answer.get("approval"), "output-available": answer.get("output")}.get(str(state))
    if not isinstance(word, dict) or not isinstance(word.get("approved"), bool):
        return None
    approval: dict[str, Any] = {"approved": word["approved"]}
    if state == "approval-responded" and isinstance(word.get("reason"), str):
        approval["reason"] = word["reason"]
    return approval


# --- the fields


def _id(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value or not value.isprintable():
        raise RemoteProtocolError(f"`{name}` is not a text of printable characters")
    if len(value.encode()) > RUN_ID_BYTES_MAX:
        raise RemoteProtocolError(f"`{name}` is longer than {RUN_ID_BYTES_MAX} bytes (run_id_bytes_max)")
    return value


def _tools(given: Any) -> list[ClientTool]:
    if given is None:
        return []
    if not isinstance(given, list):
        raise RemoteProtocolError("`tools` is not an array")
    return [_tool(item, f"`tools[{index}]`") for index, item in enumerate(given)]


def _tool(item: Any, where: str) -> ClientTool:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
        raise RemoteProtocolError(f"{where} has no `name`")
    description, parameters = item.get("description"), item.get("parameters")
    tool = ClientTool(item["name"], description if isinstance(description, str) else "")
    return ClientTool(tool.name, tool.description, parameters) if isinstance(parameters, dict) else tool


def _extra(fields: dict[str, Any]) -> dict[str, Any]:
    """The application's own: ``data`` says the same under an older name."""
    for name in ("forwardedProps", "data"):
        given = fields.get(name)
        if given is not None:
            if not isinstance(given, dict):
                raise RemoteProtocolError(f"`{name}` is not a JSON object")
            return given
    return {}


# --- messages


def _messages(given: list[Any]) -> list[ChatMessage]:
    messages: list[ChatMessage] = []
    calls: dict[str, Part] = {}
    for index, item in enumerate(given):
        where = f"`messages[{index}]`"
        if not isinstance(item, dict):
            raise RemoteProtocolError(f"{where} is not a message")
        role = item.get("role")
        if role in _NOT_SAID:
            continue
        if role == "tool":
            _take_result(item, calls, where)
            continue
        if role == "developer":
            item = {**item, "role": "system"}
        message = parse_ui_message(_with_parts(item, where), where)
        messages.append(message)
        calls.update({part["toolCallId"]: part for part in message.parts if _is_call(part)})
    return messages


def _is_call(part: Part) -> bool:
    return isinstance(part.get("toolCallId"), str) and str(part["type"]).startswith(("tool-", "dynamic-tool"))


def _with_parts(item: dict[str, Any], where: str) -> dict[str, Any]:
    """An assistant's message with its calls among its parts."""
    calls = item.get("toolCalls")
    if item.get("parts") is not None or item.get("role") != "assistant":
        return item
    if calls is not None and not isinstance(calls, list):
        raise RemoteProtocolError(f"`toolCalls` of {where} is not an array")
    text = item.get("content")
    parts = [{"type": "text", "content": text}] if isinstance(text, str) and text else []
    return {**item, "parts": [*parts, *(_call(call, where) for call in calls or [])]}


def _call(call: Any, where: str) -> Part:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict):
        raise RemoteProtocolError(f"a tool call of {where} has no `function`")
    return {
        "type": "tool-call",
        "id": call.get("id"),
        "name": function.get("name"),
        "arguments": function.get("arguments", ""),
        "state": "input-complete",
    }


def _take_result(item: dict[str, Any], calls: dict[str, Part], where: str) -> None:
    """Put what a call gave into the call."""
    call_id = item.get("toolCallId")
    if not isinstance(call_id, str):
        raise RemoteProtocolError(f"{where} is a tool's message without `toolCallId`")
    part = calls.get(call_id)
    if part is None:
        return  # of a message that the client did not send along
    error = item.get("error")
    if isinstance(error, str) and error:
        part.update(state="output-error", errorText=error)
    else:
        part.update(state="output-available", output=json_or_text(item.get("content")))


def assistants(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The assistants' messages that may bring results: those with calls that have an end or an answer."""
    ended = ("output-available", "output-error", "approval-responded")
    return [
        message
        for message in messages
        if message.role == "assistant" and any(part.get("state") in ended for part in message.parts)
    ]
