"""Fibers: long work that a crash does not make forgotten."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.agents.worlds import START_MS, world

from perdure import callable
from perdure.agents.agent import Agent
from perdure.agents.current import current_agent
from perdure.agents.fibers import (
    FIBER_KEEP_MS,
    FIBERS_KEPT_MAX,
    FIBERS_RUNNING_MAX,
    INTERRUPTIONS_MAX,
    STASH_BYTES_MAX,
    FiberContext,
    FiberInterrupted,
)
from perdure.errors import LimitExceeded, Overloaded


class Researcher(Agent):
    """Works in steps of ten seconds, and stashes after each."""

    @callable
    async def begin(self, name: str, work: str, payload: Any = None, key: str | None = None) -> str:
        return self.start_fiber(name, work, payload, idempotency_key=key).id

    @callable
    async def run(self, work: str, payload: Any = None) -> Any:
        return await self.run_fiber("run", work, payload)

    @callable
    async def run_function(self, steps: int) -> Any:
        async def work(fiber: FiberContext) -> str:
            return await self.steps(fiber)

        return await self.run_fiber("function", work, steps)

    @callable
    async def ask(self, name: str, *arguments: Any, **named: Any) -> Any:
        return getattr(self, name)(*arguments, **named)

    @callable
    async def notes(self) -> list[Any]:
        return list(self.storage.get("notes", []))

    def note(self, what: Any) -> None:
        self.storage.put("notes", [*self.storage.get("notes", []), what])

    async def steps(self, fiber: FiberContext) -> str:
        done = fiber.stashed or 0
        while done < fiber.payload:
            await asyncio.sleep(10)
            done += 1
            self.note(f"{fiber.name} {done}")
            fiber.stash(done)
        return "done"

    async def fail(self, fiber: FiberContext) -> None:
        raise ValueError("no luck")

    async def large(self, fiber: FiberContext) -> str:
        fiber.stash("x" * (fiber.payload - 2))
        return "kept"

    async def odd(self, fiber: FiberContext) -> Any:
        return object()

    async def odd_later(self, fiber: FiberContext) -> Any:
        await self.steps(fiber)
        return object()

    async def tidy(self, fiber: FiberContext) -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            self.note("tidied")

    async def on_error(self, connection: Any, error: Exception) -> None:
        self.note(f"error {error}")


class Careful(Researcher):
    """Decides itself about its fibers."""

    async def on_fiber_recovered(self, fiber: FiberContext) -> Any:
        current = current_agent()
        assert current is not None
        assert current.work is fiber
        self.note(["recovered", fiber.name, fiber.stashed, fiber.interruptions])
        if fiber.name == "function":
            return await self.steps(fiber)
        raise FiberInterrupted("not wanted any more")


def test_a_fiber_runs_and_is_kept(tmp_path: Path) -> None:
    """It begins at once; how it stands and how it ended can be asked, with its stash and its result."""
    with world(tmp_path, Researcher) as w:
        researcher = w.get(Researcher)
        fiber_id = researcher.begin("search", "steps", 2)
        w.advance(10_000)
        fiber = researcher.ask("inspect_fiber", fiber_id)
        assert (fiber.name, fiber.status, fiber.stash, fiber.result) == ("search", "running", 1, None)
        w.advance(10_000)
        fiber = researcher.ask("inspect_fiber", fiber_id)
        assert (fiber.status, fiber.stash, fiber.result) == ("completed", 2, "done")
        assert (fiber.created_ms, fiber.ended_ms) == (START_MS, START_MS + 20_000)
        failed = researcher.begin("search", "fail")
        w.settle()
        assert researcher.ask("inspect_fiber", failed).error == "ValueError: no luck"
        assert researcher.notes()[-1] == "error no luck"
        assert [item.id for item in researcher.ask("list_fibers")] == [failed, fiber_id]
        assert [item.id for item in researcher.ask("list_fibers", "failed")] == [failed]
        assert researcher.ask("delete_fiber", failed) is True
        assert researcher.ask("inspect_fiber", failed) is None
        w.hibernate(Researcher)


def test_a_key_begins_a_fiber_once(tmp_path: Path) -> None:
    """A second start with the key is given the first fiber, running or ended, until it is forgotten."""
    with world(tmp_path, Researcher) as w:
        researcher = w.get(Researcher)
        first = researcher.begin("a", "steps", 1, "order 7")
        assert researcher.begin("a", "steps", 1, "order 7") == first
        assert researcher.begin("a", "steps", 1, "order 8") != first
        w.kill()
        w.advance(10_000)
        researcher = w.get(Researcher)
        assert researcher.begin("a", "steps", 1, "order 7") == first
        w.advance(FIBER_KEEP_MS - 10_000)
        assert researcher.begin("a", "steps", 1, "order 7") == first, "it ended less than fiber_keep_ms ago"
        w.advance(10_000)
        assert researcher.begin("a", "steps", 1, "order 7") != first


def test_a_method_goes_on_after_a_kill(tmp_path: Path) -> None:
    """By itself, from the last stash; each crash is counted, a planned stop is not."""
    with world(tmp_path, Researcher, drain_ms_max=50) as w:
        fiber_id = w.get(Researcher).begin("search", "steps", 4)
        w.advance(15_000)
        w.kill()
        w.advance(12_000)
        w.restart()
        w.advance(25_000)
        researcher = w.get(Researcher)
        assert researcher.notes() == ["search 1", "search 2", "search 3", "search 4"]
        fiber = researcher.ask("inspect_fiber", fiber_id)
        assert (fiber.status, fiber.result, fiber.interruptions) == ("completed", "done", 1)


def test_the_application_decides_after_a_kill(tmp_path: Path) -> None:
    """`on_fiber_recovered` is called once for each interruption, with the last stash; it can leave the fiber."""
    with world(tmp_path, Careful) as w:
        fiber_id = w.get(Careful).begin("search", "steps", 3)
        w.loop.do(lambda: w.runtime.get(Careful, "a").run_function(3))
        w.advance(25_000)
        w.kill()
        w.settle()
        careful = w.get(Careful)
        assert careful.notes()[-2:] == [["recovered", "search", 2, 1], ["recovered", "function", 2, 1]]
        fiber = careful.ask("inspect_fiber", fiber_id)
        assert (fiber.status, fiber.error) == ("interrupted", "FiberInterrupted: not wanted any more")
        w.kill()
        w.advance(60_000)
        careful = w.get(Careful)
        assert careful.notes()[-2:] == [["recovered", "function", 2, 2], "function 3"]
        assert careful.ask("list_fibers", "running") == []
        w.kill()
        assert w.get(Careful).notes()[-1] == "function 3", "what has ended is not recovered"


def test_a_function_cannot_go_on_by_itself(tmp_path: Path) -> None:
    """It is gone after a crash: the fiber is left, unless the application does something about it."""
    with world(tmp_path, Researcher) as w:
        w.loop.do(lambda: w.runtime.get(Researcher, "a").run_function(3))
        w.advance(15_000)
        w.kill()
        w.advance(60_000)
        assert w.get(Researcher).notes() == ["function 1"]
        assert w.get(Researcher).ask("list_fibers") == []


def test_a_recovered_fiber_owes_nobody_json(tmp_path: Path) -> None:
    """What `run_fiber` ran may return anything, before a crash and after."""
    with world(tmp_path, Researcher) as w:
        w.loop.do(lambda: w.runtime.get(Researcher, "a").run("odd_later", 1))
        w.advance(5_000)
        w.kill()
        w.advance(60_000)
        assert w.get(Researcher).notes() == ["run 1"]
        assert w.get(Researcher).ask("list_fibers") == []


def test_a_caller_gets_what_its_fiber_gives(tmp_path: Path) -> None:
    """Its result, or its error; the row is gone then."""
    with world(tmp_path, Researcher) as w:
        researcher = w.get(Researcher)
        assert researcher.run("steps", 1) == "done"
        with pytest.raises(ValueError, match="no luck"):
            researcher.run("fail")
        assert repr(researcher.run("odd")).startswith("<object")
        assert researcher.ask("list_fibers") == []
        assert researcher.notes() == ["run 1"], "the caller was told, so nobody else is"


def test_a_fiber_outlives_its_caller(tmp_path: Path) -> None:
    """Who waits for it may be cancelled; the work goes on."""

    class Impatient(Researcher):
        @callable
        async def hurry(self) -> None:
            async with asyncio.timeout(5):
                await self.run("steps", 2)

    with world(tmp_path, Impatient) as w:
        with pytest.raises(TimeoutError):
            w.get(Impatient).hurry()
        w.advance(20_000)
        assert w.get(Impatient).notes() == ["run 1", "run 2"]


def test_a_fiber_is_cancelled(tmp_path: Path) -> None:
    """Its work may clean up; who waits is told; it is not recovered, also when a kill comes at once."""
    with world(tmp_path, Researcher) as w:
        researcher = w.get(Researcher)
        fiber_id = researcher.begin("a", "tidy")
        w.settle()
        assert researcher.ask("cancel_fiber", fiber_id) is True
        assert researcher.ask("cancel_fiber", fiber_id) is False
        w.settle()
        assert researcher.notes() == ["tidied"]
        waiting = w.loop.do(lambda: w.runtime.get(Researcher, "a").run("tidy"))
        w.settle()
        [running] = researcher.ask("list_fibers", "running")
        researcher.ask("cancel_fiber", running.id)
        with pytest.raises(FiberInterrupted, match="the fiber was cancelled"):
            w.finish(waiting)
        w.kill()
        w.advance(60_000)
        assert w.get(Researcher).ask("inspect_fiber", fiber_id).status == "cancelled"
        assert w.get(Researcher).notes() == ["tidied", "tidied"]


def test_a_fiber_is_cancelled_before_it_began(tmp_path: Path) -> None:
    """It never runs."""

    class Fickle(Researcher):
        @callable
        async def change_mind(self) -> str:
            fiber = self.start_fiber("a", self.tidy)
            self.cancel_fiber(fiber.id)
            return fiber.id

    with world(tmp_path, Fickle) as w:
        fiber_id = w.get(Fickle).change_mind()
        w.advance(10_000)
        assert w.get(Fickle).ask("inspect_fiber", fiber_id).status == "cancelled"
        assert w.get(Fickle).notes() == []
        w.hibernate(Fickle)


def test_a_fiber_that_kills_is_given_up(tmp_path: Path) -> None:
    """After `interruptions_max` crashes it is taken up; after one more it is left."""
    with world(tmp_path, Researcher) as w:
        fiber_id = w.get(Researcher).begin("bad", "steps", 100)
        for _ in range(INTERRUPTIONS_MAX):
            w.settle()
            w.kill()
        w.advance(10_000)
        assert w.get(Researcher).ask("inspect_fiber", fiber_id).status == "running"
        w.kill()
        w.advance(10_000)
        fiber = w.get(Researcher).ask("inspect_fiber", fiber_id)
        why = f"fiber 'bad' was interrupted by {INTERRUPTIONS_MAX + 1} crashes"
        assert (fiber.status, fiber.error) == ("interrupted", f"FiberInterrupted: {why}")
        assert w.get(Researcher).notes()[-1] == f"error {why}"


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stash_bytes_max`, `fibers_running_max` and `fibers_kept_max` are the last that fit; results are JSON."""
    assert (FIBERS_RUNNING_MAX, FIBERS_KEPT_MAX) == (1_000, 1_000)
    monkeypatch.setattr("perdure.agents.fibers.FIBERS_RUNNING_MAX", 2)
    monkeypatch.setattr("perdure.agents.fibers.FIBERS_KEPT_MAX", 3)
    with world(tmp_path, Researcher) as w:
        researcher = w.get(Researcher)
        assert researcher.run("large", STASH_BYTES_MAX) == "kept"
        with pytest.raises(LimitExceeded, match="stash_bytes_max"):
            researcher.run("large", STASH_BYTES_MAX + 1)
        running = [researcher.begin("a", "steps", 1) for _ in range(2)]
        with pytest.raises(Overloaded, match="fibers_running_max"):
            researcher.begin("a", "steps", 1)
        w.advance(10_000)
        odd = researcher.begin("a", "odd")
        w.settle()
        assert researcher.ask("inspect_fiber", odd).error.startswith("TypeError: a fiber's result must be JSON")
        last = [researcher.begin("a", "steps", 0) for _ in range(2)]
        w.settle()
        researcher.begin("a", "steps", 1)
        kept = [item.id for item in researcher.ask("list_fibers") if item.status != "running"]
        assert sorted(kept) == sorted([odd, *last])
        assert not set(kept) & set(running)
