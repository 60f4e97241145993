"""Any story of plans, cancellations, sleeps and crashes ends as a model says that it must.

A callback here writes after its last await, so its writes and the end of its row are one commit: whatever
kills come between, it has taken effect exactly once, and so has each step of a fiber. Kills come after any callback
of the loop.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.agents.worlds import START_MS, World, world

from perdure import AlarmInfo, callable
from perdure.agents.agent import Agent
from perdure.agents.fibers import INTERRUPTIONS_MAX, FiberContext
from perdure.agents.retries import Retry

RETRY = Retry(attempts_max=3, base_delay_ms=500, delay_ms_max=2_000)

RESTART_MS = 2_000
"""More than a stop in order takes, and what follows it."""


class Diary(Agent):
    """Does what it is told to, and writes down when."""

    hibernate_after_ms = 700

    @callable
    async def once(self, key: str, delay_ms: int, job: dict[str, Any]) -> str:
        return self.schedule(delay_ms / 1000, self.do, {"key": key, **job}, retry=RETRY).id

    @callable
    async def every(self, key: str, interval_ms: int) -> str:
        return self.schedule_every(interval_ms / 1000, self.do, {"key": key, "sleep_ms": 0, "failures": 0}).id

    @callable
    async def line_up(self, key: str, job: dict[str, Any]) -> str:
        return self.queue(self.do, {"key": key, **job}, retry=RETRY)

    @callable
    async def work_long(self, key: str, steps: int) -> str:
        return self.start_fiber(key, self.step, steps, idempotency_key=key).id

    async def step(self, fiber: FiberContext) -> None:
        for number in range(fiber.stashed or 0, fiber.payload):
            await asyncio.sleep(0.7)
            self.storage.put(f"done {fiber.name}", [*self.storage.get(f"done {fiber.name}", []), number])
            fiber.stash(number + 1)

    @callable
    async def wind(self, delay_ms: int | None) -> None:
        if delay_ms is None:
            self.delete_alarm()
        else:
            self.set_alarm(self.now_ms() + delay_ms)
            self.storage.put("wound", self.now_ms() + delay_ms)

    @callable
    async def cancel(self, schedule_id: str) -> bool:
        return self.cancel_schedule(schedule_id) or self.dequeue(schedule_id)

    @callable
    async def stop_repeating(self) -> None:
        for item in self.list_schedules():
            if item.kind == "every":
                self.cancel_schedule(item.id)

    @callable
    async def told(self) -> dict[str, Any]:
        return {
            "done": self.storage.list("done "),
            "dead": sorted(letter.payload["key"] for letter in self.dead_letters()),
            "order": self.storage.get("order", []),
            "rang": self.storage.get("rang", []),
            "fibers": {fiber.name: fiber.status for fiber in self.list_fibers()},
            "left": [item.id for item in self.list_schedules()] + [item.id for item in self.get_queue()],
            "alarm": self.get_alarm(),
        }

    async def do(self, job: dict[str, Any]) -> None:
        key = job["key"]
        if job["sleep_ms"]:
            await asyncio.sleep(job["sleep_ms"] / 1000)
        failed = self.storage.get(f"failed {key}", 0)
        if failed < job["failures"]:
            self.storage.put(f"failed {key}", failed + 1)
            raise ValueError(key)
        self.storage.put(f"done {key}", [*self.storage.get(f"done {key}", []), self.now_ms()])
        self.storage.put("order", [*self.storage.get("order", []), key])

    async def on_alarm(self, info: AlarmInfo) -> None:
        self.storage.put("rang", [*self.storage.get("rang", []), [self.storage.get("wound"), self.now_ms()]])


@dataclass
class Plan:
    """What was asked for. ``sure``: the call returned; else a kill cut it off, and either may be so."""

    kind: str
    asked_ms: int
    time_ms: int
    job: dict[str, Any]
    sure: bool = False
    id: str | None = None
    cancelled: bool = False


@dataclass
class Story:
    """The world, and what it must come to."""

    world: World
    plans: dict[str, Plan] = field(default_factory=dict)
    windings: list[int | None] = field(default_factory=list)
    uneven: bool = False
    """Whether a stop in order has taken some time."""

    def ask(self, method: str, *arguments: Any, cut_after: int | None) -> Any:
        """Call the diary. With ``cut_after``, kill the server so many callbacks later: None, when it was cut off."""
        w = self.world
        if cut_after is None:
            return getattr(w.get(Diary), method)(*arguments)
        waiting = w.loop.do(lambda: getattr(w.runtime.get(Diary, "a"), method)(*arguments))
        for _ in range(cut_after):
            w.step(1)
        answer = waiting.result() if waiting.done() and waiting.exception() is None else None
        w.kill()
        return answer

    def tell(self, step: tuple[Any, ...]) -> None:
        """Do one thing of the story."""
        kind, *rest = step
        if kind in ("once", "queue", "every", "fiber"):
            time_ms, job, cut_after = rest
            key = f"{kind}{len(self.plans):03}"
            plan = self.plans[key] = Plan(kind, self.world.now_ms, time_ms, job)
            method, arguments = {
                "once": ("once", (key, time_ms, job)),
                "queue": ("line_up", (key, job)),
                "every": ("every", (key, max(time_ms, 3 * RESTART_MS))),
                "fiber": ("work_long", (key, time_ms)),
            }[kind]
            plan.id = self.ask(method, *arguments, cut_after=cut_after)
            plan.sure = plan.id is not None
        elif kind == "cancel":
            known = [plan for plan in self.plans.values() if plan.id is not None and plan.kind != "fiber"]
            if known:
                plan = known[rest[0] % len(known)]
                plan.cancelled = True
                self.ask("cancel", plan.id, cut_after=rest[1])
        elif kind == "wind":
            due_ms = None if rest[0] is None else self.world.now_ms + rest[0]
            self.ask("wind", rest[0], cut_after=None)
            self.windings.append(due_ms)
        elif kind == "advance":
            self.world.advance(rest[0])
        elif kind == "kill":
            for _ in range(rest[0]):
                self.world.step(1)
            self.world.kill()
        elif kind == "restart":
            self.uneven = True
            self.world.restart()

    def check(self) -> None:
        """Let everything come to its end; compare."""
        end_ms = self.world.now_ms
        self.ask("stop_repeating", cut_after=None)
        told = self.world.get(Diary).told()
        for _ in range(100):
            self.world.advance(5_000)
            told = self.world.get(Diary).told()
            if not told["left"] and told["alarm"] is None and "running" not in told["fibers"].values():
                break
        assert told["left"] == []
        dead = []
        for key, plan in self.plans.items():
            done = told["done"].get(f"done {key}", [])
            if plan.kind == "every":
                self._check_every(plan, done, end_ms)
                continue
            if plan.kind == "fiber":
                if self.world.kills <= INTERRUPTIONS_MAX and (plan.sure or key in told["fibers"]):
                    assert (told["fibers"][key], done) == ("completed", list(range(plan.time_ms))), key
                continue
            fails = plan.job["failures"] >= RETRY.attempts_max
            expected = 0 if fails else 1
            if plan.sure and not plan.cancelled:
                assert len(done) == expected, key
            else:
                assert len(done) <= expected, key
            if fails and key in told["dead"]:
                dead.append(key)
            assert not (fails and plan.sure and not plan.cancelled) or key in told["dead"], key
            self._check_time(plan, done)
        assert told["dead"] == sorted(dead)
        in_queue = [key for key in told["order"] if key.startswith("queue")]
        assert in_queue == sorted(in_queue), "in the order in which they came"
        self._check_alarm(told)

    def _check_time(self, plan: Plan, done: list[int]) -> None:
        due_ms = plan.asked_ms + (plan.time_ms if plan.kind == "once" else 0)
        for at_ms in done:
            assert at_ms >= due_ms
            if plan.kind == "once" and not plan.job["failures"] and not plan.job["sleep_ms"] and not self.uneven:
                assert at_ms == due_ms

    def _check_every(self, plan: Plan, done: list[int], end_ms: int) -> None:
        interval_ms = max(plan.time_ms, 3 * RESTART_MS)
        due = range(plan.asked_ms + interval_ms, self.world.now_ms, interval_ms)
        if not self.uneven:
            assert done == list(due)[: len(done)]
        assert all(later - earlier >= interval_ms - RESTART_MS for earlier, later in pairwise(done))
        if plan.sure and not plan.cancelled:
            wanted = [at_ms for at_ms in due if at_ms < end_ms - RESTART_MS]
            assert len(done) >= len(wanted)

    def _check_alarm(self, told: dict[str, Any]) -> None:
        """The last winding rang, not before its time; one that was replaced or deleted may have rung before that."""
        assert told["alarm"] is None
        assert all(at_ms >= wound_ms for wound_ms, at_ms in told["rang"])
        if self.windings and self.windings[-1] is not None:
            assert told["rang"][-1][0] == self.windings[-1]
        assert len(told["rang"]) <= len([due_ms for due_ms in self.windings if due_ms is not None])


CUTS = st.none() | st.integers(0, 12)

JOBS = st.fixed_dictionaries(
    {"sleep_ms": st.sampled_from([0, 0, 400, 5_000]), "failures": st.sampled_from([0, 0, 1, 2, 3])}
)

STEPS = st.one_of(
    st.tuples(st.just("once"), st.sampled_from([0, 1, 1_000, 1_000, 7_000, 30_000]), JOBS, CUTS),
    st.tuples(st.just("queue"), st.just(0), JOBS, CUTS),
    st.tuples(st.just("every"), st.sampled_from([6_000, 7_000, 20_000]), st.just({}), CUTS),
    st.tuples(st.just("fiber"), st.integers(0, 6), st.just({}), CUTS),
    st.tuples(st.just("cancel"), st.integers(0, 50), CUTS),
    st.tuples(st.just("wind"), st.none() | st.sampled_from([1, 1_000, 9_000])),
    st.tuples(st.just("advance"), st.sampled_from([0, 1, 500, 1_000, 5_000, 40_000])),
    st.tuples(st.just("kill"), st.integers(0, 25)),
    st.tuples(st.just("restart")),
)


FIBER_STEPS: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just("fiber"), st.integers(2, 6), st.just({}), CUTS),
    st.tuples(st.just("advance"), st.sampled_from([300, 700, 1_000])),
    st.tuples(st.just("kill"), st.integers(0, 25)),
    st.tuples(st.just("restart")),
)

STORIES = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink a story takes many minutes
)


def _tell(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder, world(Path(folder), Diary, drain_ms_max=50) as w:
        assert w.now_ms == START_MS
        story = Story(w)
        for step in steps:
            story.tell(step)
        story.check()


@pytest.mark.timeout(240)
@STORIES
@given(steps=st.lists(STEPS, min_size=1, max_size=14))
def test_any_story_ends_as_it_must(steps: list[tuple[Any, ...]]) -> None:
    """Each plan takes effect once, at its time, in its order; what fails for good is a dead letter."""
    _tell(steps)


@pytest.mark.timeout(240)
@STORIES
@given(steps=st.lists(FIBER_STEPS, min_size=3, max_size=10))
def test_each_step_of_a_fiber_is_done_once(steps: list[tuple[Any, ...]]) -> None:
    """Wherever it is cut off, it goes on from its last stash."""
    _tell(steps)
