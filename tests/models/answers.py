"""Running a model's answer to its end, whatever the end is."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any

from perdure.errors import ToolError, ToolInterrupted
from perdure.models.base import Model, ToolCall, TurnContext
from perdure.wire.fold import MessageFold
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import (
    Chunk,
    Finish,
    FinishStep,
    MessageMetadata,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
)


async def answer(model: Model, turn: TurnContext) -> tuple[list[str | Chunk], Exception | None]:
    """The pieces that were said, and the error that ended them, if one did."""
    said: list[str | Chunk] = []
    response: Any = model.respond(turn)
    try:
        async with aclosing(response):
            async for piece in response:
                said.append(piece)  # noqa: PERF401  (what was said before an error counts)
    except Exception as error:
        return said, error
    return said, None


async def said(model: Model, turn: TurnContext) -> str:
    """The text of an answer that must not fail."""
    pieces, error = await answer(model, turn)
    if error is not None:
        raise error
    return "".join(piece for piece in pieces if isinstance(piece, str))


def shown(pieces: list[Any]) -> list[Any]:
    """What people see of an answer: all but its metadata."""
    return [piece for piece in pieces if not isinstance(piece, MessageMetadata)]


def folded(pieces: Sequence[str | Chunk], answer: ChatMessage | None = None) -> ChatMessage:
    """The answer that a room makes of a response: the pieces as a step after those of ``answer``."""
    fold = MessageFold("a", message=answer)
    fold.push(Start("a"))
    fold.push(StartStep())
    open_text = ""
    for number, piece in enumerate([*pieces, FinishStep()]):
        if isinstance(piece, str):
            if not open_text:
                open_text = f"t{number}"
                fold.push(TextStart(open_text))
            fold.push(TextDelta(open_text, piece))
            continue
        if open_text:
            fold.push(TextEnd(open_text))
            open_text = ""
        if not isinstance(piece, (Finish, FinishStep)):
            fold.push(piece)
    return fold.message()


def answered(message: ChatMessage, call_id: str, **changes: Any) -> ChatMessage:
    """``message`` with other fields in the part of one call: its result, or what a person said."""
    parts = [part | changes if part.get("toolCallId") == call_id else part for part in message.parts]
    return ChatMessage(message.id, message.role, parts, message.metadata)


class Ledger:
    """A room's ledger in memory: results are JSON, errors are remembered as text."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.began: list[str] = []

    async def run(
        self,
        call_id: str,
        name: str,
        input: Any,
        work: Callable[[ToolCall], Awaitable[Any]],
        *,
        idempotent: bool = False,
    ) -> Any:
        """As `ToolLedger.run` says."""
        row = self.rows.get(call_id)
        if row is not None and "result" in row:
            return json.loads(row["result"])
        if row is not None and "error" in row:
            raise ToolError(row["error"])
        if row is not None and not idempotent:
            raise ToolInterrupted(f"{name} was cut off")
        row = self.rows.setdefault(call_id, {"attempt": 0})
        row["attempt"] += 1
        self.began.append(call_id)
        try:
            result = await work(ToolCall(call_id, name, input, f"key-{call_id}", row["attempt"], "turn", "room"))
        except Exception as error:
            row["error"] = str(error)
            raise
        row["result"] = json.dumps(result)
        return result
