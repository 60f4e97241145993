"""A room with tools, for a page made with TanStack AI and React.

    npm install && npm run build
    uvicorn app:app

No key is needed: scripts stand in for a model.
"""

from collections.abc import Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from perdure import App, ChatMessage, ChatRoom, tool

SCRIPTS = {
    "weather": "scripted:tool=weather&delay_ms=20",
    "refund": "scripted:tool=refund&delay_ms=20",
    "count": "scripted:count=80&delay_ms=40",
    "fail": "scripted:count=20&delay_ms=20&error_at=8",
}


class Assistant(ChatRoom):
    """For a real model: ``model = "anthropic:claude-haiku-4-5"``, without ``models`` and ``who_answers``."""

    instructions = "You help the customers of a shop for outdoor clothes."
    model = "scripted:echo&delay_ms=20"
    models = SCRIPTS

    def who_answers(self, message: ChatMessage) -> Sequence[str]:
        """The script whose name is in the message."""
        return [name for name in SCRIPTS if name in message.text.lower()][:1] or [""]

    @tool
    async def weather(self, city: str) -> dict[str, str | int]:
        """The weather in a city."""
        return {"city": city, "degrees": 21, "sky": "sunny"}

    @tool(approval=True)
    def refund(self, order: int) -> str:
        """Give a customer the money for an order back."""
        self.storage.put(f"refunded/{order}", self.now_ms())
        return f"Order {order} is refunded."


rooms = App([Assistant])
page = StaticFiles(directory=Path(__file__).parent / "dist", html=True)
app = Starlette(lifespan=rooms.lifespan, routes=[Mount("/app", page), Mount("/", rooms)])
