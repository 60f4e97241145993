"""An agent's state: kept, checked, followed, and closed to some."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.objects.clients import Client
from tests.running import eventually, hibernated, killed, running, until

from perdure import Connection, DurableObject, callable
from perdure.agents.agent import Agent
from perdure.agents.state import STATE_BYTES_MAX
from perdure.errors import Forbidden, LimitExceeded

pytestmark = pytest.mark.anyio


class Counter(Agent):
    """Counts; its clients may set the count, but not below zero. Viewers may not."""

    initial_state = {"count": 0}  # noqa: RUF012 - as an application writes it

    def validate_state_change(self, state: Any, source: Connection | None) -> None:
        if state["count"] < 0:
            raise ValueError("a count is not negative")

    async def on_state_changed(self, state: Any, source: Connection | None) -> None:
        changes = self.storage.get("changes", [])
        self.storage.put("changes", [*changes, [state["count"], source.id if source else None]])

    def should_connection_be_readonly(self, connection: Connection) -> bool:
        return connection.query.get("role") == "viewer"

    async def on_message(self, connection: Connection, data: str | bytes) -> None:
        """A client's frames: ``{"count": n}``, or what it wants done."""
        if data in ("close", "open"):
            self.set_connection_readonly(connection, data == "close")
        elif data == "add":
            await self.add()
        else:
            self.set_state(msgspec.json.decode(data), source=connection)
        connection.send("done")

    async def on_error(self, connection: Connection | None, error: Exception) -> None:
        if connection is not None:
            connection.send(f"{type(error).__name__}: {error}")

    @callable
    async def add(self) -> int:
        state = self.state
        state["count"] += 1
        self.set_state(state)
        return int(state["count"])

    @callable
    async def put(self, state: Any) -> None:
        self.set_state(state)

    @callable
    async def read(self) -> Any:
        return self.state

    @callable
    async def changes(self) -> list[list[Any]]:
        return list(self.storage.get("changes", []))

    @callable
    async def own_tables(self) -> list[str]:
        return [row["name"] for row in self.sql("SELECT name FROM sqlite_schema WHERE name LIKE 'agent%'")]


async def test_a_state_outlives_a_kill(tmp_path: Path) -> None:
    """At first it is the initial one; what was set is there after a kill."""
    async with running(tmp_path / "a", Counter) as runtime:
        counter = runtime.get(Counter, "c")
        assert await counter.read() == {"count": 0}
        assert await counter.add() == 1
        assert await counter.add() == 2
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Counter) as runtime:
        assert await runtime.get(Counter, "c").read() == {"count": 2}


async def test_an_agent_that_uses_nothing_has_nothing(tmp_path: Path) -> None:
    """Reading the initial state makes no table; setting one makes one."""
    async with running(tmp_path, Counter) as runtime:
        counter = runtime.get(Counter, "c")
        await counter.read()
        assert await counter.own_tables() == []
        await counter.add()
        assert await counter.own_tables() == ["agent_values"]


async def test_a_refused_state_changes_nothing(tmp_path: Path) -> None:
    """What `validate_state_change` raises goes to whoever set the state; it stays, and nobody hears of it."""
    async with running(tmp_path, Counter) as runtime:
        counter = runtime.get(Counter, "c")
        client = Client.of(runtime, Counter, "c")
        client.say('{"count": 3}')
        client.say('{"count": -1}')
        await until(lambda: len(client.frames) == 2)
        assert client.frames == ["done", "ValueError: a count is not negative"]
        assert await counter.read() == {"count": 3}
        await eventually(counter.changes)
        assert await counter.changes() == [[3, client.connection.id]]


@pytest.mark.parametrize("value", [(1, 2), {1: 2}, float("nan"), b"x", object(), {"count": (1,)}])
async def test_only_json_is_a_state(tmp_path: Path, value: Any) -> None:
    """What would come back as something else is refused."""
    async with running(tmp_path, Counter) as runtime:
        with pytest.raises(TypeError, match="a state must be JSON"):
            await runtime.get(Counter, "c").put(value)


async def test_a_state_has_a_largest_size(tmp_path: Path) -> None:
    """`state_bytes_max` fits, one byte more does not."""
    padding = STATE_BYTES_MAX - len('{"count":1,"text":""}')
    async with running(tmp_path, Counter) as runtime:
        counter = runtime.get(Counter, "c")
        await counter.put({"count": 1, "text": "x" * padding})
        with pytest.raises(LimitExceeded, match="state_bytes_max"):
            await counter.put({"count": 2, "text": "x" * (padding + 1)})
        assert (await counter.read())["count"] == 1


class Position(msgspec.Struct):
    """A state with a type."""

    x: int
    y: int


class Walker(Agent):
    """Has a typed state."""

    initial_state = Position(0, 0)
    state_type = Position

    @callable
    async def go(self, x: Any) -> Position:
        self.set_state(Position(x, self.state.y))
        state: Position = self.state
        return state


async def test_a_state_may_have_a_type(tmp_path: Path) -> None:
    """It is decoded to it, and what does not fit is refused."""
    async with running(tmp_path, Walker) as runtime:
        walker = runtime.get(Walker, "w")
        assert await walker.go(7) == Position(7, 0)
        with pytest.raises(TypeError, match="a state must be JSON: Expected `int`"):
            await walker.go("east")


async def test_readonly_clients_change_nothing(tmp_path: Path) -> None:
    """Neither by themselves nor through a call that they make; who is one is decided anew or by tag after a sleep."""
    async with running(tmp_path, Counter) as runtime:
        viewer = Client.of(runtime, Counter, "c", role="viewer")
        editor = Client.of(runtime, Counter, "c")
        editor.say("close")
        await until(lambda: editor.frames)
        await hibernated(runtime, Counter, "c")
        for client in (viewer, editor):
            client.frames.clear()
            client.say('{"count": 1}')
            client.say("add")
        await until(lambda: len(viewer.frames) == len(editor.frames) == 2)
        assert viewer.frames == editor.frames == ["Forbidden: Connection is readonly"] * 2
        assert await runtime.get(Counter, "c").read() == {"count": 0}
        viewer.say("open")
        viewer.say("add")
        await until(lambda: len(viewer.frames) == 4)
        assert await runtime.get(Counter, "c").read() == {"count": 1}
        assert await runtime.get(Counter, "c").add() == 2, "others may go on"
        assert Forbidden.status == 403


class Shown(Agent):
    """Has a listener, as surfaces have one."""

    seen: list[tuple[bytes, str | None]]

    async def on_start(self) -> None:
        self.seen = []
        self.state_listeners.append(self)

    def on_state(self, state: bytes, source: Connection | None) -> None:
        self.seen.append((state, source.id if source else None))

    @callable
    async def put(self, state: Any, *, undo: bool = False) -> Any:
        try:
            with self.storage.transaction():
                self.set_state(state)
                if undo:
                    raise LookupError
        except LookupError:
            pass
        return [self.state, self.state_json, self.seen]


async def test_listeners_hear_of_each_change(tmp_path: Path) -> None:
    """They are given the JSON that is kept; a transaction that is undone undoes the state."""
    async with running(tmp_path, Shown, DurableObject) as runtime:
        shown = runtime.get(Shown, "s")
        assert await shown.put([1]) == [[1], b"[1]", [(b"[1]", None)]]
        assert await shown.put([2], undo=True) == [[1], b"[1]", [(b"[1]", None)]]
