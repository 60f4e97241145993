"""What a script is made of: steps of pieces, and where to go on in them.

A *step* is one call of a model, as in a real conversation with tools::

    ScriptedModel(
        steps=[
            ["Let me look. ", ToolInputAvailable("call-{turn_id}", "weather", {"city": "Paris"})],
            lambda turn: [f"It says: {tool_part(turn, 'weather')['output']}"],
        ]
    )

The step that is said is the one after those in ``turn.answer``. Within a step the script goes on after
``turn.partial``. A script that runs its tools itself, as an agent does, has several steps in one list, with
`FinishStep` and `StartStep` between them; one that was interrupted goes on in the step where it was.

``{turn_id}`` in the ids of tool calls and approvals becomes the turn's id: a room never carries out the same
call twice, so each turn needs ids of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from ..wire.ui_chunks import Chunk, StartStep, TextDelta, TextEnd, TextStart

if TYPE_CHECKING:
    from .base import TurnContext

Piece: TypeAlias = str | Chunk
"""What a model says: text, or a chunk."""


@dataclass(frozen=True, slots=True)
class Pause:
    """Say nothing for this long."""

    delay_ms: float


@dataclass(frozen=True, slots=True)
class Until:
    """Say nothing until ``wait()`` is done, like ``Until(event.wait)``."""

    wait: Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Hang:
    """Say nothing more, in the first ``attempts`` attempts of the turn; None for all of them."""

    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Fail here, in the first ``attempts`` attempts of the turn; None for all of them."""

    kind: Literal["error", "overloaded", "timeout"] = "error"
    text: str = "scripted failure"
    attempts: int | None = None


ScriptPiece: TypeAlias = Piece | Pause | Until | Hang | Failure

Step: TypeAlias = Sequence[ScriptPiece] | Callable[["TurnContext"], Sequence[ScriptPiece]]
"""A step's pieces, or what makes them from the turn."""


def pieces_of_step(steps: Sequence[Step], turn: TurnContext) -> Sequence[ScriptPiece]:
    """The pieces of the step that comes next in ``turn``; nothing after the last one."""
    left = steps_done(turn)
    for step in steps:
        pieces = step(turn) if callable(step) else step
        parts = _parted(pieces)
        if left < len(parts):
            rest = pieces[parts[left] :]
            return [_with_turn_id(piece, turn.turn_id) for piece in rest]
        left -= len(parts)
    return []


def steps_done(turn: TurnContext) -> int:
    """How many steps ``turn.answer`` has; one that has only begun does not count."""
    if turn.answer is None or not turn.answer.parts:
        return 0
    kinds = [part.get("type") for part in turn.answer.parts]
    return max(1, kinds.count("step-start")) - (kinds[-1] == "step-start")


def tool_part(turn: TurnContext, tool: str) -> dict[str, Any]:
    """The newest part of ``turn.answer`` for a call of ``tool``: its ``state``, ``input``, ``output``, ….

    Raises:
        LookupError: there is none.
    """
    part: dict[str, Any]
    for part in reversed([] if turn.answer is None else turn.answer.parts):
        kind = part.get("type")
        if kind == f"tool-{tool}" or (kind == "dynamic-tool" and part["toolName"] == tool):
            return part
    raise LookupError(f"the answer has no call of {tool!r} yet")


def resume(pieces: Sequence[ScriptPiece], partial: str) -> tuple[int, list[list[ScriptPiece]]]:
    """The number of the first piece that is not wholly in ``partial``, and what is left to say from there.

    What is left of a recorded text part whose start lies in the said part becomes plain text: its
    ``text-start`` will not be sent again. A recorded chunk that is no text counts as said when text after
    it was said.
    """
    said = partial if "".join(map(_text, pieces)).startswith(partial) else ""
    start, left = 0, len(said)
    while left and start < len(pieces):
        length = len(_text(pieces[start]))
        if length > left:
            break
        left -= length
        start += 1
    opened = {piece.id for piece in pieces[:start] if isinstance(piece, TextStart)}
    rest: list[list[ScriptPiece]] = []
    for piece in pieces[start:]:
        if isinstance(piece, str):
            rest.append([piece[left:]])
        elif isinstance(piece, TextDelta) and (piece.id in opened or left):
            rest.append([piece.delta[left:]])
        elif isinstance(piece, TextEnd) and piece.id in opened:
            rest.append([])
        else:
            rest.append([piece])
        left = max(0, left - len(_text(piece)))
    if partial and not said and rest:
        rest[0].insert(0, "\n\n")
    return start, rest


def _parted(pieces: Sequence[ScriptPiece]) -> list[int]:
    """Where the steps of ``pieces`` begin."""
    return [0, *(number + 1 for number, piece in enumerate(pieces) if isinstance(piece, StartStep))]


def _text(piece: ScriptPiece) -> str:
    if isinstance(piece, str):
        return piece
    return piece.delta if isinstance(piece, TextDelta) else ""


def _with_turn_id(piece: ScriptPiece, turn_id: str) -> ScriptPiece:
    changes = {
        name: value.replace("{turn_id}", turn_id)
        for name in ("tool_call_id", "approval_id")
        if isinstance(value := getattr(piece, name, None), str) and "{turn_id}" in value
    }
    return msgspec.structs.replace(piece, **changes) if changes and isinstance(piece, msgspec.Struct) else piece
