"""The steps of an answer: the model speaks, its tool calls are carried out, the model goes on.

::

    begin ─> take up results that came back ─> step: the model speaks ─> its calls
                                                ^                          │ all have results
                                                └──────────────────────────┤
                       no calls: complete <────────────────────────────────┤
                       somebody is owed an answer: waiting <───────────────┘

After a crash the step that was cut off goes on where it was: a step of text alone by its text, one
with calls by carrying out those that have no result.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from ..errors import LocalProtocolError, ModelError, ModelTimeout, RemoteProtocolError
from ..models.base import ToolSpec, TurnContext
from ..wire.fold_tools import is_tool_part
from ..wire.messages import ChatMessage
from ..wire.ui_chunks import File
from .carrier import Carrier
from .mentions import DEFAULT_MODEL, instructions_for, speaker_of
from .turn import Turn

if TYPE_CHECKING:
    from .room import ChatRoom

_HEARD_MS = 1_000
"""How fine the silence of a model is measured: setting a timer anew for each piece would cost more."""


class Stalled(Exception):
    """The model said nothing for `ChatRoom.stall_timeout_ms`."""


class Steps:
    """Makes one leg of an answer."""

    def __init__(self, room: ChatRoom, turn: Turn, messages: Sequence[ChatMessage]) -> None:
        self._room = room
        self._turn = turn
        self._messages = messages
        self._carrier = Carrier(room, turn)

    async def run(self) -> None:
        """Make the leg and settle its turn. Cancelled without `Turn.stop`, it leaves the turn interrupted."""
        turn = self._turn
        try:
            await self._make()
        except asyncio.CancelledError:
            if turn.stop_reason is None:
                raise
            turn.settle("aborted", None)
        except (ModelError, RemoteProtocolError, LocalProtocolError) as error:
            turn.settle("failed", str(error))
        except Exception as error:
            turn.settle("failed", f"{type(error).__name__}: {error}")
            raise

    async def _make(self) -> None:
        turn = self._turn
        if any(map(is_tool_part, turn.fold.step_parts)):
            await self._carrier.carry_out(came_back=True)
            if self._waits() or turn.outcome is not None:
                return
            turn.begin_step()
        elif not turn.fold.in_step:
            turn.begin_step()
        while True:
            await self._speak()
            if turn.outcome is not None:
                return
            turn.close_parts()
            if not await self._carrier.carry_out(came_back=False):
                turn.settle("complete", None)
                return
            if self._waits():
                return
            if self._steps_made() >= self._room.steps_max:
                turn.settle("complete", None, finish_reason="tool-calls")
                return
            turn.begin_step()

    def _waits(self) -> bool:
        """Whether somebody is owed an answer; then the leg has ended."""
        if not self._room.tool_calls.count_owed(self._turn.answer.id):
            return False
        self._turn.settle("waiting", None, finish_reason="tool-calls")
        return True

    def _steps_made(self) -> int:
        return sum(part.get("type") == "step-start" for part in self._turn.fold.message().parts)

    # --- the model

    async def _speak(self) -> None:
        """Let the model say its step; one that falls silent is asked again."""
        room, turn = self._room, self._turn
        while True:
            try:
                await self._listen()
                return
            except Stalled:
                if not await room.turns.is_continued(turn):
                    seconds = room.stall_timeout_ms / 1000
                    raise ModelTimeout(f"the model said nothing for {seconds:g} s (stall_timeout_ms)") from None
                if turn.outcome is not None:
                    return
                turn.go_on()

    async def _listen(self) -> None:
        room, turn = self._room, self._turn
        timeout_s = room.stall_timeout_ms / 1000
        fine_s = min(_HEARD_MS / 1000, timeout_s / 8)
        loop = asyncio.get_running_loop()
        heard = loop.time()
        silence = asyncio.timeout_at(heard + timeout_s)
        try:
            async with silence, aclosing(room.respond(self._context())) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    now = loop.time()
                    if now - heard > fine_s:
                        heard = now
                        silence.reschedule(now + timeout_s)
                    if isinstance(piece, str):
                        turn.push_text(piece)
                    elif isinstance(piece, File):
                        turn.push_chunk(room.files.take_chunk(piece, turn.answer.id))
                    else:
                        turn.push_chunk(piece)
                    if turn.outcome is not None:
                        return
        except TimeoutError:
            if not silence.expired():
                raise
            raise Stalled from None

    def _context(self) -> TurnContext:
        room, turn = self._room, self._turn
        message = turn.fold.message()
        earlier, partial = self._said(message.parts)
        name = speaker_of(turn.answer.message) if room.models else DEFAULT_MODEL
        return TurnContext(
            text=turn.question.message.text,
            messages=self._messages,
            answer=ChatMessage(message.id, "assistant", earlier, message.metadata) if earlier else None,
            partial=partial,
            instructions=instructions_for(room.instructions, name, room.models) if name else room.instructions,
            attempt=turn.answer.attempt,
            room=room.name,
            turn_id=turn.answer.id,
            tools=self._tools(),
            ledger=self._carrier.ledger,
            load_file=room.files.load,
            model=name,
        )

    def _said(self, parts: list[dict[str, object]]) -> tuple[list[dict[str, object]], str]:
        """The parts of the earlier steps, and the text of this one, which a crash has cut off."""
        step = self._turn.fold.step_parts
        if any(map(is_tool_part, step)):
            return parts, ""
        earlier = parts[: len(parts) - len(step)]
        return earlier, "".join(part["text"] for part in step if part.get("type") == "text")

    def _tools(self) -> tuple[ToolSpec, ...]:
        return (*(tool.spec for tool in self._room.tools().values()), *self._room.client_tools.values())
