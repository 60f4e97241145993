"""The tool calls of an answer that is told as AG-UI events.

A call is TOOL_CALL_START, _ARGS (its input's JSON text in pieces), _END, and _RESULT when it has one. Its id is
its identity in the whole message there, where models use ids again in a later step: the second call of an id is
named ``id~2``. Results of one id in *different* messages meet in TanStack's clients; providers' ids are unique.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import RemoteProtocolError, WireError
from .agui_events import EventBuffer, result_text
from .json_text import decode_json, encode_json
from .ui_chunks import (
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
)

DENIED = "the user did not allow this tool call"
"""The error that a call shows which was not approved."""

FAILED = "the tool failed"
"""The error that a call shows where none is given: clients take no empty one."""


class _Call:
    """What is told of a call. ``available``: its input is whole."""

    __slots__ = ("available", "ended", "id", "input", "name", "pieces")

    def __init__(self, id: str, name: str) -> None:
        self.id, self.name = id, name
        self.pieces: list[str] = []
        self.ended = False
        self.available = False
        self.input: Any = None


class ToolCalls:
    """Tells of tool chunks into ``buffer``; ``show`` makes sure that clients know the message."""

    def __init__(self, buffer: EventBuffer, show: Callable[[], str | None]) -> None:
        self._buffer = buffer
        self._show = show
        self._newest: dict[str, _Call] = {}
        self._counts: dict[str, int] = {}
        self._unanswered: dict[str, _Call] = {}

    def input_start(self, chunk: ToolInputStart) -> None:
        self._begin(chunk)

    def input_delta(self, chunk: ToolInputDelta) -> None:
        call = self._newest.get(chunk.tool_call_id)
        if call is None or call.ended:
            raise RemoteProtocolError(f"tool-input-delta for {chunk.tool_call_id!r}, whose input is not open")
        if chunk.input_text_delta:
            call.pieces.append(chunk.input_text_delta)
            self._buffer.tell("TOOL_CALL_ARGS", toolCallId=call.id, delta=chunk.input_text_delta)

    def input_available(self, chunk: ToolInputAvailable) -> None:
        call = self._end_with_input(chunk)
        if not chunk.provider_executed:
            self._unanswered[call.id] = call

    def input_error(self, chunk: ToolInputError) -> None:
        self._tell_result(self._end_with_input(chunk), {"error": chunk.error_text or FAILED}, failed=True)

    def approval_request(self, chunk: ToolApprovalRequest) -> None:
        call = self._answer(chunk.tool_call_id)
        value = {
            "toolCallId": call.id,
            "toolName": call.name,
            "input": call.input if call.available else {},
            "approval": {"id": chunk.approval_id, "needsApproval": True},
        }
        self._buffer.tell("CUSTOM", name="approval-requested", value=value)

    def approval_given(self, chunk: ToolApprovalRequest) -> None:
        """A question that was answered since: it is not asked again."""
        self._answer(chunk.tool_call_id)

    def output_available(self, chunk: ToolOutputAvailable) -> None:
        self._tell_result(self._answer(chunk.tool_call_id), chunk.output)

    def output_error(self, chunk: ToolOutputError) -> None:
        self._tell_result(self._answer(chunk.tool_call_id), {"error": chunk.error_text or FAILED}, failed=True)

    def given(self, part: dict[str, Any]) -> None:
        """The result that the message's part has, where the call waits for its client."""
        call_id, state = part.get("toolCallId"), part.get("state")
        if call_id in self._unanswered and state == "output-available":
            self.output_available(ToolOutputAvailable(call_id, part.get("output")))
        elif call_id in self._unanswered and state == "output-error":
            self.output_error(ToolOutputError(call_id, str(part.get("errorText") or "")))

    def output_denied(self, chunk: ToolOutputDenied) -> None:
        self._tell_result(self._answer(chunk.tool_call_id), {"error": DENIED}, failed=True)

    def end_inputs(self) -> None:
        """End the inputs that are open, as they are."""
        for call in self._newest.values():
            self._end_input(call)

    def ask_client(self) -> None:
        """Have the client carry out the calls that have neither a result nor a question."""
        for call in self._unanswered.values():
            value = {"toolCallId": call.id, "toolName": call.name, "input": call.input}
            self._buffer.tell("CUSTOM", name="tool-input-available", value=value)

    def _begin(self, chunk: ToolInputStart | ToolInputAvailable | ToolInputError) -> _Call:
        message_id = self._show()
        self._buffer.release(text_ended=True)
        count = self._counts[chunk.tool_call_id] = self._counts.get(chunk.tool_call_id, 0) + 1
        call_id = chunk.tool_call_id if count == 1 else f"{chunk.tool_call_id}~{count}"
        call = self._newest[chunk.tool_call_id] = _Call(call_id, chunk.tool_name)
        self._buffer.tell(
            "TOOL_CALL_START",
            toolCallId=call.id,
            toolCallName=call.name,
            parentMessageId=message_id,
            metadata={"providerExecuted": True} if chunk.provider_executed else None,
        )
        return call

    def _end_with_input(self, chunk: ToolInputAvailable | ToolInputError) -> _Call:
        call = self._newest.get(chunk.tool_call_id)
        if call is None or call.ended:
            call = self._begin(chunk)
        metadata = None
        if not call.pieces:
            self._buffer.tell("TOOL_CALL_ARGS", toolCallId=call.id, delta=encode_json(chunk.input).decode())
        elif not _is_text_of("".join(call.pieces), chunk.input):
            metadata = {"tanstack": {"input": chunk.input}}  # it goes before the pieces
        call.input, call.available, call.ended = chunk.input, True, True
        self._buffer.tell("TOOL_CALL_END", toolCallId=call.id, metadata=metadata)
        return call

    def _answer(self, tool_call_id: str) -> _Call:
        """The call that a result or a question is for: it does not wait for a tool of the client's."""
        call = self._newest.get(tool_call_id)
        if call is None:
            raise RemoteProtocolError(f"there is no tool call {tool_call_id!r} in this message")
        self._end_input(call)
        self._unanswered.pop(call.id, None)
        return call

    def _tell_result(self, call: _Call, output: Any, *, failed: bool = False) -> None:
        self._buffer.tell_part(
            "TOOL_CALL_RESULT",
            messageId=f"{call.id}-result",
            toolCallId=call.id,
            content=result_text(output),
            role="tool",
            metadata={"tanstack": {"state": "output-error"}} if failed else None,
        )

    def _end_input(self, call: _Call) -> None:
        if not call.ended:
            call.ended = True
            self._buffer.tell("TOOL_CALL_END", toolCallId=call.id)


def _is_text_of(text: str, value: Any) -> bool:
    try:
        return encode_json(decode_json(text, "the input")) == encode_json(value)
    except WireError:
        return False
