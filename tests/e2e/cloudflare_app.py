"""The application that the tests with the clients of Cloudflare's Agents SDK run in a process of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from perdure import App, ChatRoom, Connection, TurnContext, callable, tool
from perdure.agents.agent import Agent
from perdure.errors import BadArguments
from perdure.models.registry import resolve_model
from perdure.models.script_steps import tool_part
from perdure.models.scripted import ScriptedModel
from perdure.objects.limits import Limits
from perdure.wire.ui_chunks import Chunk, ToolInputAvailable


class GameBoard(Agent):
    """Counts; a count below zero is refused, and viewers only look on."""

    initial_state = {"count": 0}  # noqa: RUF012 - as an application writes it

    def validate_state_change(self, state: Any, source: Connection | None) -> None:
        if state["count"] < 0:
            raise ValueError("a count is not negative")

    def should_connection_be_readonly(self, connection: Connection) -> bool:
        return connection.query.get("role") == "viewer"

    async def on_message(self, connection: Connection, data: str | bytes) -> None:
        connection.send(f"heard {data!r}")

    async def on_request(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(f"{request.method} {request.url.path} of {self.name}")

    @callable
    async def add(self, by: int) -> int:
        count: int = self.state["count"] + by
        self.set_state({"count": count})
        return count

    @callable
    async def make_child(self, name: str) -> None:
        await self.sub_agent(GameBoard, name)

    @callable
    async def later(self, delay_s: float, value: Any) -> Any:
        await asyncio.sleep(delay_s)
        return value

    @callable
    async def fail(self, reason: str) -> None:
        raise BadArguments(reason)

    @callable
    async def count_to(self, last: int, delay_s: float = 0) -> AsyncIterator[int]:
        for number in range(1, last + 1):
            yield number
            await asyncio.sleep(delay_s)
            if number == 13:
                raise BadArguments("unlucky")


class BlankAgent(Agent):
    """Has no state until someone sets one."""


def calls(tool_name: str, **given: Any) -> ScriptedModel:
    """Says a word, calls a tool, and tells its result in twenty words."""

    def about(turn: TurnContext) -> list[str]:
        part = tool_part(turn, tool_name)
        result = part.get("output", part.get("errorText", part["state"]))
        return [f"It said {result}: ", *(f"word{number} " for number in range(1, 21))]

    call = ToolInputAvailable("call-{turn_id}", tool_name, given)
    return ScriptedModel(steps=[["Let me see. ", call], about])


MODELS = {
    "words": resolve_model("scripted:count=80&delay_ms=20"),
    "slow": resolve_model("scripted:count=80&delay_ms=60"),
    "long": resolve_model("scripted:count=400&delay_ms=60"),
    "quick": resolve_model("scripted:count=10"),
    "echo": resolve_model("scripted:echo"),
    "broken": resolve_model("scripted:count=20&delay_ms=5&error_at=8"),
    "add": calls("add", a=1, b=2),
    "where": calls("where"),
    "brought": calls("brought", question="which"),
    "launch": calls("launch", rocket="R7"),
}


class TalkRoom(ChatRoom):
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
    def add(self, a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @tool(client=True)
    async def where(self) -> str:
        """Where the user is."""
        raise NotImplementedError  # browsers know

    @tool(approval=True)
    def launch(self, rocket: str) -> str:
        """Launch a rocket."""
        count: int = self.storage.get("launched", 0) + 1
        self.storage.put("launched", count)
        return f"{rocket} flies, launch {count}"

    @callable
    async def launched(self) -> int:
        return int(self.storage.get("launched", 0))


limits = Limits(drain_ms_max=int(os.environ.get("DRAIN_MS", "100")))
app = App([TalkRoom, GameBoard, BlankAgent], limits=limits)
