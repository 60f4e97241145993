"""What else agents have: who is current, retries, keeping alive, children, an end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from tests.agents.worlds import world
from tests.objects.clients import Client
from tests.running import reset

from perdure import Connection, DurableObject, callable
from perdure.agents.agent import Agent
from perdure.agents.current import current_agent
from perdure.agents.fibers import FiberContext
from perdure.agents.records import QueueItem, Schedule
from perdure.agents.retries import Retry
from perdure.errors import Forbidden, InvalidName, ModelError, ModelOverloaded


def who() -> list[Any]:
    """Deep in some library: for whom does this run?"""
    current = current_agent()
    if current is None:
        return []
    return [
        current.agent.name,
        current.connection.id if current.connection else None,
        current.request is not None,
        type(current.work).__name__ if current.work else None,
    ]


class Aware(Agent):
    """Says who is current, everywhere."""

    def note(self, where: str) -> None:
        self.storage.put("notes", {**self.storage.get("notes", {}), where: who()})

    async def on_start(self) -> None:
        self.note("start")

    async def on_connect(self, connection: Connection) -> None:
        self.note("connect")
        self.background(self.beside(), name="beside")

    async def beside(self) -> None:
        self.note("background")

    async def on_message(self, connection: Connection, data: str | bytes) -> None:
        await asyncio.gather(self.deep())
        connection.send("done")

    @callable
    async def deep(self) -> None:
        self.note("message" if current_agent().connection else "call")  # type: ignore[union-attr]

    async def on_request(self, request: Request) -> PlainTextResponse:
        self.note("request")
        return PlainTextResponse("ok")

    @callable
    async def stream(self, count: int) -> AsyncIterator[list[Any]]:
        """An async generator's values come one by one."""
        for _ in range(count):
            yield who()
            await asyncio.sleep(1)

    @callable
    def plain(self) -> list[Any]:
        return who()

    @callable
    async def plan(self) -> None:
        self.schedule(1, self.timed, "schedule")
        self.queue(self.timed, "queue")
        self.start_fiber("f", self.fiber)

    async def timed(self, where: str) -> None:
        self.note(where)

    async def fiber(self, fiber: FiberContext) -> None:
        self.note("fiber")

    @callable
    async def notes(self) -> Any:
        return self.storage.get("notes")


class Derived(Aware):
    """Inherits the handlers."""

    async def on_connect(self, connection: Connection) -> None:
        await super().on_connect(connection)


@pytest.mark.parametrize("agent_class", [Aware, Derived])
def test_code_knows_whose_it_is(tmp_path: Path, agent_class: type[Aware]) -> None:
    """In handlers, calls, background tasks, timed work and fibers; nowhere else."""
    with world(tmp_path, agent_class) as w:
        assert who() == []
        client = w.loop.do(lambda: Client.of(w.runtime, agent_class, "a"))
        w.settle()
        w.loop.do(lambda: client.say("hello"))
        agent = w.get(agent_class)
        agent.deep()
        agent.plan()
        w.advance(2_000)

        async def request(instance: Any) -> Any:
            return await instance.object.on_request(Request({"type": "http"}))

        w.finish(w.runtime.run_in(w.runtime.object_id(agent_class, "a"), request))
        assert agent.plain() == ["a", None, False, None]
        identity = client.connection.id
        assert agent.notes() == {
            "start": ["a", None, False, None],
            "connect": ["a", identity, False, None],
            "background": ["a", None, False, None],
            "message": ["a", identity, False, None],
            "call": ["a", None, False, None],
            "request": ["a", None, True, None],
            "queue": ["a", None, False, QueueItem.__name__],
            "fiber": ["a", None, False, FiberContext.__name__],
            "schedule": ["a", None, False, Schedule.__name__],
        }
        assert who() == []


def test_a_callable_may_stream(tmp_path: Path) -> None:
    """Its values come as they are made; who stops listening closes the generator."""
    with world(tmp_path, Aware) as w:

        async def listen(count: int) -> list[Any]:
            found = []
            values = w.runtime.get(Aware, "a").stream(count)
            async for value in values:
                found.append(value)
                if len(found) == 2:
                    await values.aclose()
                    break
            return found

        assert w.finish(listen(1)) == [["a", None, False, None]]
        assert w.finish(listen(100)) == [["a", None, False, None]] * 2


class Trier(Agent):
    """Tries things again."""

    @callable
    async def attempt(self, failures: int, error: Exception, **options: Any) -> list[Any]:
        tries: list[int] = []

        async def work() -> str:
            tries.append(self.now_ms())
            if len(tries) <= failures:
                raise error
            return "done"

        try:
            return [await self.retry(work, **options), len(tries)]
        except Exception as last:
            return [type(last).__name__, len(tries)]

    @callable
    async def at_once(self) -> Any:
        return await self.retry(lambda: 7)


def test_work_is_tried_again_in_place(tmp_path: Path) -> None:
    """Three times by default; errors of perdure's that are final are not worth it, and the application may judge."""
    with world(tmp_path, Trier) as w:
        trier = w.get(Trier)
        assert trier.at_once() == 7
        assert trier.attempt(2, OSError()) == ["done", 3]
        assert trier.attempt(3, OSError()) == ["OSError", 3]
        assert trier.attempt(2, ModelOverloaded("full")) == ["done", 3]
        assert trier.attempt(1, ModelError("wrong key")) == ["ModelError", 1]
        assert trier.attempt(1, ModelError("wrong key"), should_retry=lambda error: True) == ["done", 2]
        assert trier.attempt(4, OSError(), attempts_max=5) == ["done", 5]
        began_ms = w.now_ms
        trier.attempt(6, OSError(), attempts_max=7, base_delay_ms=100, delay_ms_max=200)
        assert w.now_ms - began_ms <= 100 + 200 * 5


class Half:
    """Randomness that always takes the middle."""

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


def test_waits_double_up_to_a_bound() -> None:
    """Full jitter: anything between nothing and a bound that doubles."""
    retry = Retry(attempts_max=9, base_delay_ms=100, delay_ms_max=1_000)
    waits = [retry.delay_ms(attempts, Half()) for attempts in (1, 2, 3, 4, 5, 99)]  # type: ignore[arg-type]
    assert waits == [50, 100, 200, 400, 500, 500]
    for wrong in ((0, 1, 1), (1, 0, 1), (1, 2, 1)):
        with pytest.raises(ValueError, match="attempts_max"):
            Retry(*wrong)


class Sleeper(Agent):
    """Stays awake while something is going on."""

    async def on_start(self) -> None:
        self.storage.put("starts", self.storage.get("starts", 0) + 1)

    @callable
    async def begin(self) -> None:
        self.finished = asyncio.Event()
        self.closing = self.keep_alive()
        await self.closing.__aenter__()

    @callable
    async def end(self) -> None:
        await self.closing.__aexit__(None, None, None)

    @callable
    async def nest(self) -> bool:
        async with self.keep_alive(), self.keep_alive():
            pass
        return "alive" in self.agent_holds

    @callable
    async def starts(self) -> int:
        return int(self.storage.get("starts", 0))


def test_keeping_alive(tmp_path: Path) -> None:
    """The object does not hibernate meanwhile; after a kill it wakes with the server, and then no more."""
    with world(tmp_path, Sleeper, hibernate_after_ms=1_000) as w:
        w.get(Sleeper).begin()
        w.advance(60_000)
        w.get(Sleeper).end()
        w.advance(60_000)
        assert w.get(Sleeper).starts() == 2, "it slept when that was over"
        w.get(Sleeper).begin()
        w.kill()
        w.advance(60_000)
        w.kill()
        w.advance(60_000)
        assert w.get(Sleeper).starts() == 4, "woken by the first kill, not by the second"
        assert w.get(Sleeper).nest() is False


def test_a_reset_is_no_trouble(tmp_path: Path) -> None:
    """An instance that is thrown away under what it keeps alive, queues and runs goes on as the next one."""

    class Unlucky(Sleeper):
        @callable
        async def toil(self) -> None:
            self.queue(self.item, 1)
            self.schedule(0, self.item, 2)
            self.start_fiber("f", self.fiber)
            async with self.keep_alive():
                await asyncio.sleep(5)

        async def item(self, number: int) -> None:
            await asyncio.sleep(5)
            self.storage.put(f"item {number}", self.storage.get(f"item {number}", 0) + 1)

        async def fiber(self, fiber: FiberContext) -> None:
            await self.item(3)

        @callable
        async def items(self) -> Any:
            return self.storage.list("item")

    with world(tmp_path, Unlucky) as w:
        waiting = w.loop.do(lambda: w.runtime.get(Unlucky, "a").toil())
        w.advance(2_000)
        w.loop.do(lambda: reset(w.runtime, Unlucky, "a"))
        with pytest.raises(Exception, match="reset"):
            w.finish(waiting)
        w.advance(60_000)
        assert w.get(Unlucky).items() == {"item 1": 1, "item 2": 1, "item 3": 1}
        w.hibernate(Unlucky)
        assert w.loop.errors == []


# --- children


class Leaf(Agent):
    """A child."""

    @callable
    async def put(self, value: str) -> str:
        self.storage.put("value", value)
        return self.name

    @callable
    async def read(self) -> Any:
        return self.storage.get("value")

    @callable
    async def parent_name(self) -> str | None:
        parent = self.parent
        return None if parent is None else parent.object_id.key

    @callable
    async def grow(self, name: str) -> None:
        await self.sub_agent(Leaf, name)


class Tree(Agent):
    """A parent."""

    @callable
    async def grow(self, name: str, value: str) -> str:
        leaf = await self.sub_agent(Leaf, name)
        return str(await leaf.put(value))

    @callable
    async def names(self) -> list[tuple[str, str]]:
        return [(child.class_name, child.name) for child in self.list_sub_agents()]

    @callable
    async def drop(self, name: str) -> bool:
        return await self.delete_sub_agent(Leaf, name)

    @callable
    async def end(self) -> None:
        await self.destroy()


class OtherTree(Tree):
    """Another parent."""


def test_children_are_objects_of_their_own(tmp_path: Path) -> None:
    """Named after their parent, with storage of their own, reached like any object; they know whose they are."""
    with world(tmp_path, Tree, OtherTree, Leaf) as w:
        tree = w.get(Tree, "oak")
        assert tree.grow("one", "green") == "oak/one"
        assert tree.grow("two", "brown") == "oak/two"
        w.kill()
        tree = w.get(Tree, "oak")
        assert w.get(Leaf, "oak/one").read() == "green"
        assert w.get(Leaf, "oak/one").parent_name() == "Tree/oak"
        assert w.get(Leaf, "alone").parent_name() is None
        assert tree.names() == [("Leaf", "one"), ("Leaf", "two")]
        with pytest.raises(Forbidden, match="Leaf/oak/one belongs to Tree/oak"):
            w.get(OtherTree, "oak").grow("one", "red")
        assert w.get(OtherTree, "oak").names() == []
        for wrong in ("one/two", ""):
            with pytest.raises(InvalidName, match="slash"):
                tree.grow(wrong, "red")


def test_a_kill_before_the_refusal_gives_no_power(tmp_path: Path) -> None:
    """What a parent lists that is another's, it cannot delete."""
    with world(tmp_path, Tree, OtherTree, Leaf) as w:
        w.get(Tree, "oak").grow("one", "green")
        other = w.get(OtherTree, "oak")
        waiting = w.loop.do(lambda: w.runtime.get(OtherTree, "oak").grow("one", "red"))
        while not other.names():
            w.step(1)
        w.kill()
        assert not waiting.done() or waiting.exception() is not None
        if w.get(OtherTree, "oak").names():
            assert w.get(OtherTree, "oak").drop("one") is True
        assert w.get(Leaf, "oak/one").read() == "green"
        assert w.get(Leaf, "oak/one").parent_name() == "Tree/oak"


def test_a_deleted_child_takes_its_own_along(tmp_path: Path) -> None:
    """Nothing of them is left; a new child of the name begins anew."""
    with world(tmp_path, Tree, Leaf) as w:
        tree = w.get(Tree, "oak")
        tree.grow("one", "green")
        w.get(Leaf, "oak/one").grow("deep")
        w.get(Leaf, "oak/one/deep").put("hidden")
        assert tree.drop("one") is True
        assert tree.drop("one") is False
        assert tree.names() == []
        assert w.get(Leaf, "oak/one").read() is None
        assert w.get(Leaf, "oak/one/deep").read() is None
        tree.grow("one", "fresh")
        tree.end()
        assert w.get(Leaf, "oak/one").read() is None
        assert w.get(Tree, "oak").names() == []


def test_the_end_of_an_agent(tmp_path: Path) -> None:
    """Its plans and its clients end with it; what it keeps is gone."""

    class Mortal(Tree):
        @callable
        async def begin(self) -> None:
            self.set_state([1])
            self.schedule(5, self.never, 1)
            self.schedule_every(5, self.never, 1)
            self.queue(self.never, 2)
            self.start_fiber("f", self.fiber)

        async def never(self, value: int) -> None:
            if value == 2:
                await asyncio.sleep(10)
            self.storage.put("ran", value)

        async def fiber(self, fiber: FiberContext) -> None:
            await asyncio.sleep(100)
            self.storage.put("ran", 3)

        @callable
        async def read(self) -> list[Any]:
            return [self.state, self.storage.list(), self.list_schedules(), self.list_fibers(), self.get_alarm()]

    with world(tmp_path, Mortal, DurableObject) as w:
        w.get(Mortal).begin()
        client = w.loop.do(lambda: Client.of(w.runtime, Mortal, "a"))
        w.settle()
        w.get(Mortal).end()
        assert client.closed_with == (1000, "deleted")
        assert w.get(Mortal).read() == [None, {}, [], [], None]
        w.advance(200_000)
        w.kill()
        w.advance(600_000)
        assert w.get(Mortal).read() == [None, {}, [], [], None]
        w.hibernate(Mortal)
