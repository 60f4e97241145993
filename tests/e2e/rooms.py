"""The application that end-to-end tests run in a process of its own.

A room's model is chosen by its name: ``words-1`` is answered by the script ``words``.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from perdure import App, ChatRoom, tool
from perdure.errors import ToolError
from perdure.models.base import TurnContext
from perdure.models.registry import resolve_model
from perdure.models.scripted import ScriptedModel, ScriptOptions
from perdure.objects.limits import Limits
from perdure.objects.object import callable
from perdure.server import sse
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_chunks import Chunk

CODE_ANSWER = """\
## Two ways

A *generator* remembers **where it was**, and `list()` does not:

```python
def count_to(limit: int) -> Iterator[int]:
    for number in range(1, limit + 1):
        yield number  # and waits here
```

1. It is lazy.
2. It is small.

| way | memory |
| --- | --- |
| list | grows |
| generator | flat |

> Measure before you choose.
"""

MODELS = {
    "words": resolve_model("scripted:count=80&delay_ms=40"),
    "brief": resolve_model("scripted:count=40&delay_ms=25"),
    "slow": resolve_model("scripted:count=80&delay_ms=60"),
    "quick": resolve_model("scripted:count=10"),
    "echo": resolve_model("scripted:echo"),
    "late": resolve_model("scripted:count=10&first_delay_ms=700"),
    "broken": resolve_model("scripted:count=20&delay_ms=5&error_at=8"),
    "tour": resolve_model("scripted:tour&speed=3"),
    "weather": resolve_model("scripted:tool=weather&delay_ms=20"),
    "refund": resolve_model("scripted:tool=refund"),
    "locate": resolve_model("scripted:tool=locate"),
    "fragile": resolve_model("scripted:tool=fragile"),
    "code": ScriptedModel(
        chunks=[CODE_ANSWER[start : start + 7] for start in range(0, len(CODE_ANSWER), 7)],
        options=ScriptOptions(delay_ms=15),
    ),
}


class Room(ChatRoom):
    """A room whose name says which script answers in it; ``broken`` ones fail once and then are ``quick``."""

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        script = self.name.partition("-")[0]
        if script == "broken":
            if self.storage.get("failed", False):
                script = "quick"
            else:
                self.storage.put("failed", True)
        async for piece in MODELS[script].respond(turn):
            yield piece

    @tool
    async def weather(self, city: str) -> AsyncIterator[dict[str, Any]]:
        """The weather in a city."""
        yield {"progress": f"asking about {city}"}
        await asyncio.sleep(1.5)
        yield {"city": city, "degrees": 21, "sky": "sunny"}

    @tool(approval=True)
    async def refund(self, order: int) -> dict[str, Any]:
        """Give the money for an order back."""
        done = self.storage.get("refunds", 0) + 1
        self.storage.put("refunds", done)
        return {"order": order, "refunds": done}

    @tool(client=True)
    async def locate(self, accuracy: str) -> str:
        """Where the person is; their client knows."""
        raise NotImplementedError

    @tool
    async def fragile(self, text: str) -> str:
        """It breaks."""
        raise ToolError(f"there is no line to {text}")

    @callable
    async def fill(self, count: int) -> None:
        """Put that many messages of the past into the room, questions and answers in turn."""
        for number in range(1, count + 1, 2):
            question = self.transcript.add(
                user_message(f"m{number}", f"Question {number}", user="Ada"), self.now_ms(), "answered"
            )
            answer = ChatMessage(
                id=f"m{number + 1}", role="assistant", parts=[{"type": "text", "text": f"Answer **{number + 1}**"}]
            )
            self.transcript.add(answer, self.now_ms(), "complete", answers=question.id, attempt=1)


if "KEEP_ALIVE_MS" in os.environ:
    sse.KEEP_ALIVE_MS = int(os.environ["KEEP_ALIVE_MS"])

limits = Limits(drain_ms_max=int(os.environ.get("DRAIN_MS", "100")))
app = App([Room], limits=limits)
