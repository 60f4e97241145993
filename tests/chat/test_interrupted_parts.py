"""A model that speaks in parts is continued after a kill wherever in its parts it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.running import eventually, killed, running, until

from perdure import ChatRoom, TurnContext
from perdure.wire.ui_chunks import (
    Chunk,
    FinishStep,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    TextDelta,
    TextEnd,
    TextStart,
)

pytestmark = pytest.mark.anyio

TO_THE_END = [TextEnd(id="b"), FinishStep()]


class Speaker(ChatRoom):
    """Says one list of chunks before the kill and then waits, another after it."""

    before: Sequence[Chunk] = ()
    after: Sequence[Chunk] = ()

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        for chunk in self.before if turn.attempt == 1 else self.after:
            yield chunk
        if turn.attempt == 1:
            await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("before", "after", "parts"),
    [
        pytest.param(
            [TextStart(id="b")],
            [TextStart(id="b"), TextDelta(id="b", delta="Hello"), *TO_THE_END],
            [{"type": "text", "text": "Hello", "state": "done"}],
            id="begins the open part again",
        ),
        pytest.param(
            [TextStart(id="a"), TextDelta(id="a", delta="Hel")],
            [TextStart(id="b"), TextDelta(id="b", delta="lo"), *TO_THE_END],
            [{"type": "text", "text": "Hel", "state": "done"}, {"type": "text", "text": "lo", "state": "done"}],
            id="goes on in a new part",
        ),
        pytest.param(
            [ReasoningStart(id="r"), ReasoningDelta(id="r", delta="Hm")],
            [
                ReasoningStart(id="r"),
                ReasoningDelta(id="r", delta="Hm!"),
                ReasoningEnd(id="r"),
                TextStart(id="b"),
                TextDelta(id="b", delta="Hello"),
                *TO_THE_END,
            ],
            [
                {"type": "reasoning", "id": "r", "text": "Hm", "state": "done"},
                {"type": "reasoning", "id": "r", "text": "Hm!", "state": "done"},
                {"type": "text", "text": "Hello", "state": "done"},
            ],
            id="thinks again",
        ),
    ],
)
async def test_parts_are_taken_up(
    before: list[Chunk], after: list[Chunk], parts: list[dict[str, Any]], tmp_path: Path
) -> None:
    """What was open at the kill is gone on with, or ended, and the turn completes."""

    class Room(Speaker):
        pass

    Room.before, Room.after = before, after
    async with running(tmp_path / "first", Room) as runtime:
        submitted = await runtime.get(Room, "r").submit("Hi")
        answer = runtime.slot(runtime.object_id(Room, "r")).instance.streams  # type: ignore[union-attr]
        stream = answer.get(f"turns/{submitted.answer_id}")
        await until(lambda: stream.durable_position == 2 + len(before))
        copy = await killed(runtime, tmp_path / "second")
    async with running(copy, Room) as runtime:
        room = runtime.get(Room, "r")

        async def settled() -> bool:
            shown = await room.messages()
            return len(shown) == 2 and [part for part in shown[1].parts if part["type"] != "step-start"] == parts

        await eventually(settled)
