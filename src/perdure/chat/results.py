"""What comes back to an answer that waits: results of clients' tools, and approvals.

The first result of a call wins; repeats of a client, of a second tab or of a retried request are silent. When
nothing is owed any more, the answer goes on in its next leg.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import Forbidden
from ..wire.fold_tools import is_tool_part
from ..wire.messages import ChatMessage
from ..wire.ui_chunks import ToolOutputAvailable, ToolOutputError
from .carrier import as_json, tool_name
from .submitted import Submitted
from .tool_calls import StoredCall
from .transcript import StoredMessage

if TYPE_CHECKING:
    from .room import ChatRoom


class Results:
    """Takes in what one room's answers wait for."""

    def __init__(self, room: ChatRoom) -> None:
        self._room = room

    def take(self, message: ChatMessage, user: str | None) -> Submitted | None:
        """Take in the results and approvals in an assistant message that came back; go on where none is left.

        None: the room has no such answer. Otherwise its newest leg, whether or not this began it.
        """
        answer = self._room.transcript.find(message.id)
        if answer is None or answer.role != "assistant":
            return None
        for part in filter(is_tool_part, message.parts):
            self._take_part(answer, part, user)
        begun = self.go_on(answer.id)
        return begun or Submitted(answer.answers or "", answer.id, known=True, leg=answer.leg)

    def _take_part(self, answer: StoredMessage, part: dict[str, Any], user: str | None) -> None:
        stored = self._room.tool_calls.find(answer.id, part["toolCallId"])
        state = part.get("state")
        if stored is None or not stored.owed:
            if stored is None and state in ("output-available", "output-error"):
                self._result_of_running(answer.id, part["toolCallId"], _result_of(part), user)
        elif stored.state == "awaited" and state in ("output-available", "output-error"):
            self._give(stored, _result_of(part), user)
        elif stored.state == "asked" and state in ("approval-responded", "output-denied"):
            approval = part.get("approval")
            given = approval if isinstance(approval, dict) else {}
            approved = state == "approval-responded" and given.get("approved") is True
            reason = given.get("reason")
            self._settle_approval(stored, approved, reason if isinstance(reason, str) else None, user)

    def give(self, call_id: str, result: dict[str, Any], user: str | None, *, go_on: bool) -> bool:
        """The result of a client's tool. False: nobody waits for it (any more)."""
        stored = self._room.tool_calls.owed(call_id)
        if stored is None:
            running = self._room.turns.running
            return running is not None and self._result_of_running(running.answer.id, call_id, result, user)
        if stored.state != "awaited":
            return False
        self._give(stored, result, user)
        if go_on:
            self.go_on(stored.answer_id)
        return True

    def approve(self, id: str, approved: bool, reason: str | None, user: str | None, *, go_on: bool) -> bool:
        """Somebody agrees to a call, or not. False: nobody has asked (any more)."""
        stored = self._room.tool_calls.owed(id)
        if stored is None or stored.state != "asked":
            return False
        self._settle_approval(stored, approved, reason, user)
        if go_on:
            self.go_on(stored.answer_id)
        return True

    def go_on(self, answer_id: str) -> Submitted | None:
        """Begin the next leg of an answer that waits, where nothing is owed any more."""
        room = self._room
        answer = room.transcript.find(answer_id)
        if answer is None or answer.role != "assistant" or answer.status != "waiting":
            return None
        if room.tool_calls.count_owed(answer_id):
            return None
        room.turns.go_on(answer)
        return Submitted(answer.answers or "", answer_id, leg=answer.leg)

    # --- one call

    def _give(self, stored: StoredCall, result: dict[str, Any], user: str | None) -> None:
        self._check(user, stored)
        result = as_json(result)
        stored.state, stored.result = "given", result
        self._room.tool_calls.put(stored)
        if "error" in result:
            self._show(stored, {"state": "output-error", "errorText": result["error"]})
        else:
            self._show(stored, {"state": "output-available", "output": result["output"]})

    def _settle_approval(self, stored: StoredCall, approved: bool, reason: str | None, user: str | None) -> None:
        self._check(user, stored)
        stored.state = "approved" if approved else "denied"
        stored.result = None if reason is None else {"reason": reason}
        self._room.tool_calls.put(stored)
        turn = self._room.turns.running
        if turn is not None and turn.answer.id == stored.answer_id:
            turn.fold.respond_to_approval(stored.call_id, stored.approval or {})
        else:
            self._show(stored, {"state": "approval-responded", "approval": stored.approval})

    def _result_of_running(self, answer_id: str, call_id: str, result: dict[str, Any], user: str | None) -> bool:
        """A client was faster than the model: its tool's result is there before the step has ended."""
        turn = self._room.turns.running
        if turn is None or turn.answer.id != answer_id:
            return False
        for part in turn.unfinished_calls():
            if part["toolCallId"] == call_id and part["state"] == "input-available" and self._is_clients(part):
                self._check(user, StoredCall(answer_id, call_id, tool_name(part), "awaited"))
                result = as_json(result)
                dynamic = True if part["type"] == "dynamic-tool" else None
                if "error" in result:
                    turn.append(ToolOutputError(call_id, result["error"], dynamic=dynamic))
                else:
                    turn.append(ToolOutputAvailable(call_id, result["output"], dynamic=dynamic))
                return True
        return False

    def _is_clients(self, part: dict[str, Any]) -> bool:
        name = tool_name(part)
        tool = self._room.tools().get(name)
        return name in self._room.client_tools or (tool is not None and tool.kind == "client")

    def _show(self, stored: StoredCall, change: dict[str, Any]) -> None:
        """Write the change into the stored message, and tell it."""
        answer = self._room.transcript.find(stored.answer_id)
        if answer is None or answer.status != "waiting":
            return
        parts = [
            {**part, **change} if part.get("toolCallId") == stored.call_id else part for part in answer.message.parts
        ]
        message = ChatMessage(answer.id, answer.message.role, parts, answer.message.metadata)
        self._room.transcript.change(answer, message)
        self._room.listeners.on_updated(answer)

    def _check(self, user: str | None, stored: StoredCall) -> None:
        if not self._room.may_answer(user, stored.name):
            raise Forbidden(f"you may not answer for the tool {stored.name}")


def _result_of(part: dict[str, Any]) -> dict[str, Any]:
    if part["state"] == "output-error":
        error = part.get("errorText")
        return {"error": error if isinstance(error, str) else "the tool failed"}
    return {"output": part.get("output")}
