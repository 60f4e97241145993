"""Rooms with tools, and what is asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, ClassVar

from tests.running import eventually

from perdure import ChatMessage, ChatRoom, ToolCall, ToolError, tool
from perdure.models.script_steps import Step
from perdure.models.scripted import ScriptedModel
from perdure.objects.cursor import StreamCursor
from perdure.objects.runtime import Runtime
from perdure.wire.ui_chunks import Chunk, ToolInputAvailable, decode_chunk


def call(name: str, input: Any = None, call_id: str = "c1") -> Chunk:
    """The model calls a tool."""
    return ToolInputAvailable(call_id, name, {} if input is None else input)


class Tooled(ChatRoom):
    """A room with a tool of each kind; ``calls`` is what happened in the world outside, ``gates`` hold tools up."""

    migrations = (*ChatRoom.migrations, "CREATE TABLE bookings(city TEXT)")
    calls: ClassVar[list[tuple[str, Any]]]
    gates: ClassVar[dict[str, asyncio.Event]]

    @tool
    def book(self, city: str) -> dict[str, int]:
        """Book a hotel."""
        self.storage.sql("INSERT INTO bookings VALUES(?)", city)
        if city == "Atlantis":
            raise ToolError("there is no such city")
        return {"bookings": self.storage.sql("SELECT count(*) AS n FROM bookings")[0]["n"]}

    @tool
    async def weather(self, city: Annotated[str, "like Paris"], days: int = 1) -> str:
        """The weather in a city."""
        type(self).calls.append(("weather", (city, days)))
        await self._gate("weather")
        return f"sunny in {city}"

    @tool(idempotent=True)
    async def pay(self, amount: float, call: ToolCall) -> str:
        """Pay."""
        type(self).calls.append(("pay", (call.idempotency_key, call.attempt)))
        await self._gate("pay")
        return f"paid {amount:g}"

    @tool
    async def search(self, query: str) -> AsyncIterator[list[str]]:
        """Search, and show what was found so far."""
        found: list[str] = []
        for number in range(3):
            found.append(f"{query} {number}")
            yield found

    @tool(approval=True)
    async def erase(self, path: str) -> str:
        """Erase a file."""
        type(self).calls.append(("erase", path))
        return f"{path} is gone"

    @tool(client=True)
    def locate(self, precise: bool = False) -> str:
        """Where the user is."""
        raise AssertionError("never run here")

    @tool
    async def broken(self) -> str:
        """Fails."""
        raise ZeroDivisionError("secret")

    @tool(timeout_ms=20)
    async def slow(self) -> str:
        """Takes too long."""
        await asyncio.sleep(60)
        return "never"

    async def _gate(self, name: str) -> None:
        if name in type(self).gates:
            await type(self).gates[name].wait()


def tooled(*steps: Step, **attributes: Any) -> type[Tooled]:
    """A class of its own, whose model makes these steps."""
    body = {"calls": [], "gates": {}, "model": ScriptedModel(steps=steps), **attributes}
    return type("Tooled", (Tooled,), body)


async def answer(runtime: Runtime, room: type[ChatRoom], status: str = "complete", name: str = "r") -> ChatMessage:
    """The newest answer, when it has that status."""

    async def there() -> bool:
        found = await newest(runtime, room, name)
        return found is not None and found[0] == status

    await eventually(there)
    found = await newest(runtime, room, name)
    assert found is not None
    return found[1]


async def says(runtime: Runtime, room: type[ChatRoom], what: Any, name: str = "r") -> ChatMessage:
    """The newest answer, as soon as that is among what it says."""
    found: list[ChatMessage] = []

    async def said() -> bool:
        shown = await newest(runtime, room, name)
        if shown is not None and what in told(shown[1]):
            found.append(shown[1])
        return bool(found)

    await eventually(said)
    return found[0]


async def newest(runtime: Runtime, room: type[ChatRoom], name: str = "r") -> tuple[str, ChatMessage] | None:
    """Status and message of the newest answer."""

    async def look(instance: Any) -> tuple[str, ChatMessage] | None:
        stored = instance.object.transcript.last("assistant")
        return None if stored is None else (stored.status, instance.object._shown(stored))

    return await runtime.run_in(runtime.object_id(room, name), look)


async def in_room(runtime: Runtime, room: type[ChatRoom], work: Callable[[Any], Any], name: str = "r") -> Any:
    """Do something with the room itself."""

    async def do(instance: Any) -> Any:
        return work(instance.object)

    return await runtime.run_in(runtime.object_id(room, name), do)


def told(message: ChatMessage) -> list[Any]:
    """What an answer says, for a person: texts, and calls as ``(tool, state, result)``."""
    shown: list[Any] = []
    for part in message.parts:
        if part["type"] == "text":
            shown.append(part["text"])
        elif "toolCallId" in part:
            name = part.get("toolName") or part["type"].removeprefix("tool-")
            shown.append((name, part["state"], part.get("output", part.get("errorText"))))
    return shown


async def chunks(runtime: Runtime, room: type[ChatRoom], stream: str, name: str = "r") -> list[Chunk]:
    """All chunks of a leg, to its end."""
    entries: list[bytes] = []
    async with StreamCursor(runtime, runtime.object_id(room, name), stream) as cursor:
        while not (batch := await cursor.next()).closed:
            entries += batch.entries
        return [decode_chunk(entry) for entry in (*entries, *batch.entries)]
