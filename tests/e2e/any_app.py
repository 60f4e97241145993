"""The application of the random conversation: what is answered is what the message says.

``words``, ``weather`` (a tool of the server), ``pay`` (one that a person must agree to), ``where`` (a tool of the
clients), ``break`` (the model fails).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from perdure import App, ChatRoom, TurnContext, tool
from perdure.errors import ModelError
from perdure.objects.limits import Limits
from perdure.objects.object import callable
from perdure.wire.ui_chunks import Chunk, ToolInputAvailable

INPUTS = {"weather": {"city": "Oslo"}, "pay": {"amount": 7}, "where": {}}


class Room(ChatRoom):
    """A room that does what it is told."""

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        kind = turn.text.split()[0]
        if kind in INPUTS and turn.answer is None:
            yield "" if turn.partial else f"About {turn.text}. "
            yield ToolInputAvailable(f"{kind}-{turn.turn_id}", kind, INPUTS[kind])
            return
        words = [f"{turn.text} {number}, " for number in range(1, 16)] + ["end."]
        said = len(turn.partial)
        for word in words:
            if said >= len(word):
                said -= len(word)
                continue
            await asyncio.sleep(0.01)
            yield word[said:]
            said = 0
        if kind == "break":
            raise ModelError("it broke")

    @tool
    def weather(self, city: str) -> str:
        """The weather in a city."""
        return f"sunny in {city}"

    @tool(approval=True)
    async def pay(self, amount: int) -> str:
        """Pay somebody."""
        await asyncio.sleep(0.01)
        return f"{amount} paid"

    @tool(client=True)
    def where(self) -> str:
        """Where the client is."""
        return ""

    @callable
    async def is_idle(self) -> bool:
        """Whether nothing is being answered, and nothing waits."""
        return self.turns.running is None and not self.transcript.count_waiting()


app = App([Room], limits=Limits(drain_ms_max=100))
