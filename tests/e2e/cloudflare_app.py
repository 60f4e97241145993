"""The application that the tests with the clients of Cloudflare's Agents SDK run in a process of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse

from perdure import App, Connection, callable
from perdure.agents.agent import Agent
from perdure.errors import BadArguments
from perdure.objects.limits import Limits


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


limits = Limits(drain_ms_max=int(os.environ.get("DRAIN_MS", "100")))
app = App([GameBoard, BlankAgent], limits=limits)
