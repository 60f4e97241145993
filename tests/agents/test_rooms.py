"""A room is an agent: it can do things at times, and pays nothing when it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.running import eventually, hibernated, killed, running

from perdure import ChatMessage, ChatRoom, callable, current_agent
from perdure.agents import Fiber, FiberContext

pytestmark = pytest.mark.anyio


class Reminding(ChatRoom):
    """Says what it was asked to, later, and answers itself."""

    model = "scripted:echo"

    @callable
    async def remind(self, text: str, after_s: float) -> None:
        self.schedule(after_s, self.submit, text)

    @callable
    async def research(self, text: str) -> Fiber:
        return self.start_fiber("research", self.look_up, text)

    async def look_up(self, fiber: FiberContext) -> str:
        return (await self.submit(fiber.payload)).message_id

    @callable
    async def tables(self) -> list[str]:
        return [row["name"] for row in self.sql("SELECT name FROM sqlite_schema WHERE name LIKE 'agent%'")]

    @callable
    async def stood(self) -> Fiber:
        return self.list_fibers()[0]

    @callable
    async def who(self) -> bool:
        current = current_agent()
        return current is not None and current.agent is self


def _said(messages: list[ChatMessage]) -> list[tuple[str, str]]:
    return [(message.role, message.text.strip()) for message in messages]


async def test_a_room_that_does_nothing_at_times_has_no_tables_for_it(tmp_path: Path) -> None:
    """Also after turns and sleeps."""
    async with running(tmp_path, Reminding) as runtime:
        room = runtime.get(Reminding, "r")
        assert await room.who() is True
        await room.submit("Hello")

        async def answered() -> bool:
            return len(await room.messages()) == 2

        await eventually(answered)
        await hibernated(runtime, Reminding, "r")
        assert await room.tables() == []


async def test_a_room_says_something_later(tmp_path: Path) -> None:
    """After a kill, too: the schedule takes a callable method of the room."""
    async with running(tmp_path / "a", Reminding) as runtime:
        await runtime.get(Reminding, "r").remind("Drink water", 0.4)
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Reminding) as runtime:
        room = runtime.get(Reminding, "r")

        async def answered() -> bool:
            messages = await room.messages()
            return len(messages) == 2 and "water" in messages[1].text

        await eventually(answered)
        assert _said(await room.messages())[0] == ("user", "Drink water")


async def test_a_room_has_fibers_beside_its_turns(tmp_path: Path) -> None:
    """Neither keeps the other awake when it has ended."""
    async with running(tmp_path, Reminding) as runtime:
        room = runtime.get(Reminding, "r")
        await room.research("gates")

        async def ended() -> bool:
            return (await room.stood()).status == "completed" and len(await room.messages()) == 2

        await eventually(ended)
        [question, _] = await room.messages()
        assert (await room.stood()).result == question.id
        await hibernated(runtime, Reminding, "r")
