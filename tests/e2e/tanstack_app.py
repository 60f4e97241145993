"""The application of the tests with TanStack AI's clients: rooms with tools on both sides.

The room's name chooses what answers: ``pay-1`` asks for an approval, ``where-1`` for the client's place; others
are as in `rooms`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from tests.e2e.rooms import MODELS

from perdure import App, ChatRoom, TurnContext, tool
from perdure.objects.limits import Limits
from perdure.objects.object import callable
from perdure.server.streams.limits import StreamLimits
from perdure.wire.ui_chunks import Chunk, ReasoningDelta, ReasoningEnd, ReasoningStart, ToolInputAvailable

CALLS = {
    "weather": [ToolInputAvailable("c1", "weather", {"city": "Oslo"})],
    "pay": [ToolInputAvailable("c1", "pay", {"amount": 7})],
    "where": [ToolInputAvailable("c1", "where", {"precise": True})],
    "both": [ToolInputAvailable("c1", "where", {}), ToolInputAvailable("c2", "pay", {"amount": 1})],
}
"""What the model calls, by the room's name."""


class Room(ChatRoom):
    """A room whose name says what answers in it."""

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        script = self.name.partition("-")[0]
        calls = CALLS.get(script)
        if calls is None:
            async for piece in self._scripted(script, turn):
                yield piece
        elif turn.answer is None or not _results(turn):
            yield ReasoningStart("r")
            yield ReasoningDelta("r", "A tool would help.")
            yield ReasoningEnd("r")
            yield "Let me see. "
            for call in calls:
                yield call
        else:
            yield f"It is {' and '.join(_results(turn))}."

    async def _scripted(self, script: str, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        if script == "broken":
            script = "quick" if self.storage.get("failed", False) else "broken"
            self.storage.put("failed", True)
        async for piece in MODELS[script].respond(turn):
            yield piece

    @tool
    def weather(self, city: str) -> str:
        """The weather in a city."""
        self.storage.put("weathers", self.storage.get("weathers", 0) + 1)
        return f"sunny in {city}"

    @tool(approval=True)
    def pay(self, amount: int) -> str:
        """Pay somebody."""
        self.storage.put("paid", self.storage.get("paid", 0) + 1)
        return f"{amount} paid"

    @tool(client=True)
    def where(self, precise: bool = False) -> str:
        """Where the client is."""
        raise NotImplementedError

    @callable
    async def count(self, what: str) -> int:
        """How often a tool was carried out."""
        found: int = self.storage.get(what, 0)
        return found


def _results(turn: TurnContext) -> list[str]:
    """What the calls of the answer gave."""
    assert turn.answer is not None
    found = []
    for part in turn.answer.parts:
        state = part.get("state")
        if state == "output-available":
            found.append(str(part["output"]))
        elif state == "output-error":
            found.append(f"wrong: {part['errorText']}")
        elif state == "output-denied":
            found.append("not allowed")
    return found


app = App(
    [Room],
    limits=Limits(drain_ms_max=int(os.environ.get("DRAIN_MS", "100"))),
    stream_limits=StreamLimits(long_poll_ms=300, rotate_ms=5_000),
)
