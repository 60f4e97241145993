"""The application that the tools of `useChat` are tested against, in a process of its own.

A room's script is chosen by its name: ``refund-1`` is answered by the script ``refund``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Annotated, Any

from perdure import App, ChatRoom, ToolError, tool
from perdure.models.base import TurnContext
from perdure.models.script_steps import Step
from perdure.models.scripted import ScriptedModel, ScriptOptions, tool_part
from perdure.objects.limits import Limits
from perdure.objects.object import callable
from perdure.wire.ui_chunks import (
    Chunk,
    Custom,
    Data,
    File,
    MessageMetadata,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    SourceUrl,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
)


def call(name: str, given: dict[str, Any], id: str = "") -> list[Chunk]:
    """The model writes a call, bit by bit."""
    call_id = f"{id or name}-{{turn_id}}"
    text = "{" + ", ".join(f'"{key}": {value!r}' for key, value in given.items()).replace("'", '"') + "}"
    deltas = [ToolInputDelta(call_id, text[start : start + 5]) for start in range(0, len(text), 5)]
    return [ToolInputStart(call_id, name), *deltas, ToolInputAvailable(call_id, name, given)]


def says(tool_name: str, words: int = 20) -> Step:
    """A step that says what became of a call, word by word."""

    def step(turn: TurnContext) -> list[str]:
        part = tool_part(turn, tool_name)
        became = part.get("output", part.get("errorText", "denied"))
        return [f"It is {part['state']}: {became}. ", *(f"more{number} " for number in range(1, words + 1)), "end"]

    return step


SCRIPTS: dict[str, list[Step]] = {
    "weather": [["Let me look. ", *call("weather", {"city": "Oslo"})], says("weather")],
    "refund": [["I can do that. ", *call("refund", {"order": 7})], says("refund")],
    "long": [["I can do that. ", *call("refund", {"order": 7})], says("refund", 150)],
    "locate": [["One moment. ", *call("locate", {})], says("locate")],
    "guess": [["One moment. ", *call("guess", {"limit": 9})], says("guess")],
    "twice": [
        ["First you. ", *call("refund", {"order": 7})],
        ["Now the place. ", *call("locate", {})],
        says("locate"),
    ],
    "broken": [["Hm. ", *call("broken", {})], says("broken")],
    "rich": [
        [
            ReasoningStart("r"),
            *(ReasoningDelta("r", f"thought{number} ") for number in range(1, 6)),
            ReasoningEnd("r"),
            SourceUrl("s1", "https://a.example", "A"),
            Data("data-progress", {"percent": 10}, id="p"),
            "Here. ",
            Data("data-progress", {"percent": 100}, id="p"),
            Data("data-note", {"text": "psst"}, transient=True),
            File("data:text/plain,hello", "text/plain"),
            MessageMetadata({"usage": {"inputTokens": 3, "outputTokens": 5}, "model": "scripted"}),
            "Done.",
        ]
    ],
    "newer": [[Custom("scripted.note"), "Here."]],
}

DELAY_MS = 15
LONG_DELAY_MS = 40


class Room(ChatRoom):
    """A room whose name says which script answers in it."""

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        model = ScriptedModel(steps=SCRIPTS[self.name.partition("-")[0]], options=ScriptOptions(delay_ms=DELAY_MS))
        async for piece in model.respond(turn):
            yield piece

    @tool
    async def weather(self, city: Annotated[str, "like Oslo"]) -> AsyncIterator[dict[str, Any]]:
        """The weather in a city."""
        self._count("weather")
        yield {"city": city, "state": "asking"}
        await asyncio.sleep(0.1)
        yield {"city": city, "celsius": -4}

    @tool(approval=True)
    async def refund(self, order: int) -> str:
        """Give the money back."""
        self._count("refund")
        return f"order {order} refunded"

    @tool(client=True)
    def locate(self) -> str:
        """Where the user is."""
        raise NotImplementedError

    @tool
    async def broken(self) -> str:
        """Fails."""
        raise ToolError("the line is dead")

    @callable
    async def calls(self, name: str) -> int:
        """How often a tool was really carried out."""
        done: int = self.storage.get(f"calls:{name}", 0)
        return done

    def _count(self, name: str) -> None:
        self.storage.put(f"calls:{name}", self.storage.get(f"calls:{name}", 0) + 1)


limits = Limits(drain_ms_max=int(os.environ.get("DRAIN_MS", "100")))
app = App([Room], limits=limits)
