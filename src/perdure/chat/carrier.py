"""Carries out the tool calls of one answer, each at most once.

A call goes through the table `tool_calls` (see there for its states). What makes it happen once:

- a plain ``def`` tool, its result and the ``tool-output`` chunk are one commit;
- that an ``async`` tool begins is durable before it does; its result and the chunk are one commit; where a crash
  came between, it is run again only if it is ``idempotent``, and else has ended with an error;
- a call that has a result in the answer is never looked at again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from ..errors import LocalProtocolError, ToolError, ToolInterrupted
from ..models.base import ToolCall
from ..wire.json_text import encode_json, has_prototype_key
from ..wire.ui_chunks import ToolApprovalRequest, ToolOutputAvailable, ToolOutputDenied, ToolOutputError
from .tool_calls import StoredCall
from .tools import Tool
from .turn import Turn

if TYPE_CHECKING:
    from .room import ChatRoom

log = structlog.get_logger("perdure.chat")

TOOL_OUTPUT_BYTES_MAX = 1024 * 1024
"""Bytes of one result of a tool, as JSON."""

INTERRUPTED = "the server was restarted while the tool ran; whether it took effect is not known"

TOOLS_AT_ONCE_MAX = 16
"""Calls of one step that run at the same time; the others wait."""


class Carrier:
    """Carries out the calls of one leg."""

    def __init__(self, room: ChatRoom, turn: Turn) -> None:
        self._room = room
        self._turn = turn
        self._places = asyncio.Semaphore(TOOLS_AT_ONCE_MAX)
        self.ledger = TurnLedger(self)

    async def carry_out(self, *, came_back: bool) -> bool:
        """See to the calls of the newest step that have no result. False: there were none, so the model has said all.

        ``came_back``: the step was made earlier; calls that its model carries out itself are left to it.
        Afterwards each call has its result, or is owed by somebody (`ToolCalls.count_owed`).
        """
        turn = self._turn
        seen = any(turn.unfinished_calls())
        left: set[str] = set()
        while pending := [part for part in turn.unfinished_calls() if self._is_open(part, left)]:
            # What comes back while these run is taken up in the next round.
            await asyncio.gather(*(self._see_to(part, left, came_back) for part in pending))
        return seen or turn.has_results

    def _is_open(self, part: dict[str, Any], left: set[str]) -> bool:
        stored = self._room.tool_calls.find(self._turn.answer.id, part["toolCallId"])
        return part["toolCallId"] not in left and not (stored is not None and stored.owed)

    async def _see_to(self, part: dict[str, Any], left: set[str], came_back: bool) -> None:
        call_id, name = part["toolCallId"], tool_name(part)
        stored = self._room.tool_calls.find(self._turn.answer.id, call_id)
        tool = self._room.tools().get(name)
        if part["state"] == "input-streaming":
            self._fail(part, "the call was cut off before its input was whole")
        elif stored is not None and stored.state in ("given", "done") and stored.result is not None:
            self._tell(part, stored.result)
        elif tool is None or tool.kind == "client":
            if not self._hand_over(part, name, tool, stored, came_back):
                left.add(call_id)
        elif stored is not None and stored.state == "denied":
            self._turn.append(ToolOutputDenied(call_id))
            self._done(stored)
        elif stored is not None and stored.state == "running" and not tool.options.idempotent:
            self._fail(part, INTERRUPTED)
        else:
            await self._run_tool(part, tool, stored)

    def _hand_over(
        self, part: dict[str, Any], name: str, tool: Tool | None, stored: StoredCall | None, came_back: bool
    ) -> bool:
        """A call that is not carried out here: a client's, the model's own, or of a tool that there is not.

        False: it is left to the model, which is asked again.
        """
        call_id, answer_id = part["toolCallId"], self._turn.answer.id
        own = part["type"] == "dynamic-tool" or self._room.has_own_respond
        known = tool is not None or name in self._room.client_tools
        if stored is None and part["state"] == "approval-requested":
            self._put(StoredCall(answer_id, call_id, name, "asked", approval_id=part["approval"]["id"]))
        elif (stored is None and (known or (own and not came_back))) or (
            stored is not None and stored.state == "approved" and known
        ):
            self._put(StoredCall(answer_id, call_id, name, "awaited"))
        elif own:
            return False
        elif stored is not None and stored.state == "denied":
            self._turn.append(ToolOutputDenied(call_id))
            self._done(stored)
        else:
            self._fail(part, f"there is no tool named {name}")
        return True

    async def _run_tool(self, part: dict[str, Any], tool: Tool, stored: StoredCall | None) -> None:
        call = self.call_of(part["toolCallId"], tool.name, part.get("input"), stored)
        try:
            arguments = tool.arguments(call)
            if (stored is None or stored.state == "asked") and await tool.needs_approval(self._room, call):
                approval_id = self._room.context.new_id()
                self._turn.append(ToolApprovalRequest(approval_id, call.id))
                self._put(StoredCall(call.turn_id, call.id, call.name, "asked", approval_id=approval_id))
                return
            if tool.kind == "plain":
                self._run_plain(part, tool, arguments)
                return
            async with self._places:
                await self._begin(call, idempotent=tool.options.idempotent)
                async with asyncio.timeout(tool.options.timeout_ms / 1000):
                    output = await self._work(part, tool, arguments)
            self._tell(part, {"output": output})
        except ToolError as error:
            self._fail(part, str(error))
        except TimeoutError:
            self._fail(part, f"the tool {tool.name} took longer than {tool.options.timeout_ms / 1000:g} s")
        except Exception as error:
            log.exception("tool failed", room=self._room.name, tool=tool.name, call=call.id)
            self._fail(part, f"the tool {tool.name} failed ({type(error).__name__}); the error was logged")

    def _run_plain(self, part: dict[str, Any], tool: Tool, arguments: dict[str, Any]) -> None:
        """Run the tool and tell its result in one commit; one that fails has written nothing."""
        with self._room.storage.transaction():
            output = as_json(tool.function(self._room, **arguments))
        self._tell(part, {"output": output})

    async def _work(self, part: dict[str, Any], tool: Tool, arguments: dict[str, Any]) -> Any:
        if tool.kind == "async":
            return as_json(await tool.function(self._room, **arguments))
        output: Any = None
        async with aclosing(tool.function(self._room, **arguments)) as results:
            async for result in results:
                output = as_json(result)
                self._turn.append(_available(part, output, preliminary=True))
        return output

    # --- what both this and the ledger write down

    def call_of(self, call_id: str, name: str, input: Any, stored: StoredCall | None) -> ToolCall:
        """The call as a tool sees it."""
        turn, room = self._turn, self._room
        return ToolCall(
            id=call_id,
            name=name,
            input={} if input is None else input,
            idempotency_key=f"{turn.answer.id}:{call_id}",
            attempt=(0 if stored is None else stored.attempt) + 1,
            turn_id=turn.answer.id,
            room=room.name,
        )

    async def _begin(self, call: ToolCall, *, idempotent: bool) -> None:
        """Write down that the call begins; durable, unless it may be run again anyway."""
        self._put(StoredCall(call.turn_id, call.id, call.name, "running", attempt=call.attempt))
        if not idempotent:
            await self._room.storage.sync()

    def _tell(self, part: dict[str, Any], result: dict[str, Any]) -> None:
        """Append the result's chunk; nothing is owed or begun any more."""
        call_id = part["toolCallId"]
        if "error" in result:
            dynamic = True if part["type"] == "dynamic-tool" else None
            self._turn.append(ToolOutputError(call_id, str(result["error"]), dynamic=dynamic))
        else:
            self._turn.append(_available(part, result.get("output")))
        # A model that carries its calls out itself may ask for the result again.
        kept = result if part["type"] == "dynamic-tool" else None
        self._put(StoredCall(self._turn.answer.id, call_id, tool_name(part), "done", result=kept))

    def _fail(self, part: dict[str, Any], error: str) -> None:
        self._tell(part, {"error": error})

    def _done(self, stored: StoredCall) -> None:
        stored.state = "done"
        self._put(stored)

    def _put(self, stored: StoredCall) -> None:
        self._room.tool_calls.put(stored)


class TurnLedger:
    """`ToolLedger` for models that carry out their calls themselves: keeps each from being done twice."""

    def __init__(self, carrier: Carrier) -> None:
        self._carrier = carrier

    async def run(
        self,
        call_id: str,
        name: str,
        input: Any,
        work: Callable[[ToolCall], Awaitable[Any]],
        *,
        idempotent: bool = False,
    ) -> Any:
        """See `ToolLedger.run`."""
        carrier = self._carrier
        stored = carrier._room.tool_calls.find(carrier._turn.answer.id, call_id)
        if stored is not None and stored.state == "done" and stored.result is not None:
            if "error" in stored.result:
                raise ToolError(stored.result["error"])
            return stored.result["output"]
        call = carrier.call_of(call_id, name, input, stored)
        if stored is not None and stored.state == "running" and not idempotent:
            self._end(call, {"error": INTERRUPTED})
            raise ToolInterrupted(INTERRUPTED)
        await carrier._begin(call, idempotent=idempotent)
        try:
            output = await work(call)
        except Exception as error:
            self._end(call, {"error": str(error) or type(error).__name__})
            raise
        self._end(call, {"output": as_json(output)})
        return output

    def _end(self, call: ToolCall, result: dict[str, Any]) -> None:
        stored = StoredCall(call.turn_id, call.id, call.name, "done", attempt=call.attempt, result=result)
        self._carrier._put(stored)


def tool_name(part: dict[str, Any]) -> str:
    name = part.get("toolName") if part["type"] == "dynamic-tool" else part["type"].removeprefix("tool-")
    return str(name)


def _available(part: dict[str, Any], output: Any, *, preliminary: bool | None = None) -> ToolOutputAvailable:
    dynamic = True if part["type"] == "dynamic-tool" else None
    return ToolOutputAvailable(part["toolCallId"], output, dynamic=dynamic, preliminary=preliminary)


def as_json(value: Any) -> Any:
    """The value as plain JSON: Structs, dataclasses, dates and so on become what their JSON is.

    Raises:
        ToolError: it cannot be told as JSON, or is larger than `TOOL_OUTPUT_BYTES_MAX`.
    """
    try:
        encoded = encode_json(value)
    except LocalProtocolError as error:
        raise ToolError(f"the tool's result is no JSON value: {error}") from error
    if len(encoded) > TOOL_OUTPUT_BYTES_MAX:
        raise ToolError(
            f"the tool's result has {len(encoded):,} bytes; tool_output_bytes_max allows {TOOL_OUTPUT_BYTES_MAX:,}"
        )
    plain = msgspec.json.decode(encoded)
    if has_prototype_key(plain):
        raise ToolError("the tool's result has a key that clients refuse, like __proto__")
    return plain
