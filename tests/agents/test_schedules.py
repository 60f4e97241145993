"""Schedules: at their times, over crashes and sleeps, beside the application's own alarm."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.agents.worlds import START_MS, World, world

from perdure import AlarmInfo, callable
from perdure.agents.agent import Agent
from perdure.agents.current import current_agent
from perdure.agents.retries import Retry
from perdure.agents.schedules import DELAY_MS_MAX, INTERVAL_MS_MIN, RUNS_AT_ONCE_MAX, SCHEDULES_MAX
from perdure.errors import LimitExceeded


class Order(msgspec.Struct):
    """A payload with a type."""

    dish: str
    count: int


class Planner(Agent):
    """Notes what ran, and when."""

    @callable
    async def plan(self, when: Any, callback: str = "note", payload: Any = None, **options: Any) -> str:
        return self.schedule(when, callback, payload, **options).id

    @callable
    async def every(self, interval: Any, callback: str = "note", payload: Any = None, **options: Any) -> str:
        return self.schedule_every(interval, callback, payload, **options).id

    @callable
    async def ask(self, name: str, *arguments: Any) -> Any:
        """Any method of the agent's own."""
        result = getattr(self, name)(*arguments)
        return await result if name in ("handle_alarm",) else result

    @callable
    async def notes(self) -> list[Any]:
        return list(self.storage.get("notes", []))

    @callable
    async def runs(self) -> list[str]:
        return list(self.storage.get("runs", []))

    def put(self, what: Any) -> None:
        self.storage.put("notes", [*self.storage.get("notes", []), [self.now_ms() - START_MS, what]])

    async def note(self, what: Any) -> None:
        self.put(what)

    def bare(self) -> None:
        self.put("bare")

    async def cook(self, order: Order) -> None:
        self.put(f"{order.count} {order.dish}")

    async def fail(self, what: Any) -> None:
        work = current_agent().work  # type: ignore[union-attr]
        self.put(f"try {work.attempts}")
        self.storage.put("runs", sorted({*self.storage.get("runs", []), f"{work.id} {work.planned_ms - START_MS}"}))
        raise ValueError(what)

    async def values(self, count: int) -> AsyncIterator[int]:
        yield count

    async def slow(self, seconds: float) -> None:
        self.put("begin")
        await asyncio.sleep(seconds)
        self.put("end")

    async def on_alarm(self, info: AlarmInfo) -> None:
        self.put(f"alarm {info.retry_count}")
        if self.storage.get("broken"):
            raise RuntimeError("broken")
        if self.storage.get("plan in alarm"):
            self.schedule(5, self.note, "from the alarm")
            if self.storage.get("then fail") and not info.is_retry:
                raise RuntimeError("broken once")


def test_a_delay_a_date_and_a_duration(tmp_path: Path) -> None:
    """Each runs once, at its time, with its payload; a method without parameters runs without."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        planner.plan(2, payload="two")
        planner.plan(timedelta(minutes=1), payload=["a minute"])
        planner.plan(datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC), payload={"at": 30})
        planner.plan(3, "bare")
        planner.plan(4, "cook", {"dish": "soup", "count": 2})
        w.advance(120_000)
        assert planner.notes() == [
            [2_000, "two"],
            [3_000, "bare"],
            [4_000, "2 soup"],
            [30_000, {"at": 30}],
            [60_000, ["a minute"]],
        ]
        assert planner.ask("list_schedules") == []


def test_a_schedule_wakes_the_agent_after_a_kill_and_after_a_sleep(tmp_path: Path) -> None:
    """What was planned before runs at its time, and at once where that has passed."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        planner.plan(60, payload="after a sleep")
        planner.plan(3_600, payload="after a kill")
        w.hibernate(Planner)
        w.advance(60_000)
        w.kill()
        w.now_ms += 4_000_000
        w.loop.advance(4_000)
        w.advance(0)
        assert w.get(Planner).notes() == [[60_000, "after a sleep"], [4_060_000, "after a kill"]]


def test_a_run_that_a_kill_cuts_off_runs_again(tmp_path: Path) -> None:
    """At least once: what it wrote before stays, and it begins anew as soon as the server is back."""
    with world(tmp_path, Planner) as w:
        w.get(Planner).plan(1, "slow", 30)
        w.advance(11_000)
        w.kill()
        w.advance(0)
        assert w.get(Planner).notes() == [[1_000, "begin"], [11_000, "begin"]]
        w.advance(60_000)
        assert w.get(Planner).notes() == [[1_000, "begin"], [11_000, "begin"], [41_000, "end"]]
        assert w.get(Planner).ask("list_schedules") == []
        w.hibernate(Planner)


def test_a_planned_stop_is_like_a_kill(tmp_path: Path) -> None:
    """The run is parked and begins anew after the start."""
    with world(tmp_path, Planner, drain_ms_max=50) as w:
        w.get(Planner).plan(1, "slow", 30)
        w.advance(11_000)
        w.restart()
        w.advance(60_000)
        assert [what for _, what in w.get(Planner).notes()] == ["begin", "begin", "end"]


def test_intervals_do_not_overlap(tmp_path: Path) -> None:
    """A run that takes longer than its interval is not run beside itself; the times stay on their grid."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        planner.every(10, "slow", 25)
        planner.every(10, "note", "tick")
        w.advance(65_000)
        slow = [note for note in planner.notes() if note[1] in ("begin", "end")]
        assert slow == [[10_000, "begin"], [35_000, "end"], [40_000, "begin"], [65_000, "end"]]
        ticks = [at for at, what in planner.notes() if what == "tick"]
        assert ticks == [10_000, 20_000, 30_000, 40_000, 50_000, 60_000]


def test_missed_times_are_run_once(tmp_path: Path) -> None:
    """A server that was down for ten minutes runs a schedule of every minute once, then goes on on its grid."""
    with world(tmp_path, Planner) as w:
        w.get(Planner).every(60)
        w.advance(60_000)
        w.kill()
        w.now_ms += 615_000
        w.loop.advance(615)
        w.advance(60_000)
        assert [at for at, _ in w.get(Planner).notes()] == [60_000, 675_000, 720_000]


def test_cron(tmp_path: Path) -> None:
    """A cron text runs at its times, in its time zone; the same one planned again is the same schedule."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        first = planner.plan("0 9 * * *", payload="Berlin", time_zone="Europe/Berlin")
        assert planner.plan("0  9 * * *", payload="Berlin", time_zone="Europe/Berlin") == first
        assert planner.plan("0 9 * * *", payload="London", time_zone="Europe/London") != first
        assert planner.plan("0 9 * * *", payload="Berlin", time_zone="Europe/Berlin", idempotent=False) != first
        assert planner.ask("cancel_schedule", first) is True
        w.advance(24 * 3_600_000)
        assert planner.notes() == [[8 * 3_600_000, "Berlin"], [9 * 3_600_000, "London"]]
        assert [item.due_ms - START_MS for item in planner.ask("list_schedules")] == [32 * 3_600_000, 33 * 3_600_000]


def test_a_time_zone_that_is_gone(tmp_path: Path) -> None:
    """A schedule that cannot know its next time any more is a dead letter, after its last run."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        planner.plan("0 9 * * *", payload="last", time_zone="Europe/Berlin")
        planner.ask("sql", "UPDATE agent_schedules SET time_zone = 'Gone/Under'")
        w.advance(48 * 3_600_000)
        assert planner.notes() == [[8 * 3_600_000, "last"]]
        assert planner.ask("list_schedules") == []
        [letter] = planner.ask("dead_letters")
        assert letter.error == "ValueError: no time zone is named 'Gone/Under'"


def test_idempotent_schedules(tmp_path: Path) -> None:
    """Intervals are by themselves; a delay is where that is said, whatever its time."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        assert planner.every(60) == planner.every(60)
        assert planner.every(60) != planner.every(60, idempotent=False)
        assert planner.every(60) != planner.every(61)
        assert planner.plan(5, payload=1) != planner.plan(5, payload=1)
        assert planner.plan(5, payload=2, idempotent=True) == planner.plan(9, payload=2, idempotent=True)


def test_what_can_be_asked_and_cancelled(tmp_path: Path) -> None:
    """A schedule is found by id and by callback until it has run; a cancelled one never runs."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        soon, late = planner.plan(5, payload="soon"), planner.plan(9, "bare")
        assert planner.ask("get_schedule", soon).due_ms == START_MS + 5_000
        assert [item.id for item in planner.ask("list_schedules", "bare")] == [late]
        assert planner.ask("cancel_schedule", late) is True
        assert planner.ask("cancel_schedule", late) is False
        w.advance(20_000)
        assert planner.notes() == [[5_000, "soon"]]
        assert planner.ask("get_schedule", soon) is None


def test_failures_are_tried_again_and_then_kept(tmp_path: Path) -> None:
    """After as many attempts as it may a schedule is a dead letter; it can be tried again, or dropped."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        planner.plan(1, "fail", "no luck", retry=Retry(3, 1_000, 5_000))
        w.advance(60_000)
        assert [what for _, what in planner.notes()] == ["try 0", "try 1", "try 2"]
        assert planner.ask("list_schedules") == []
        [letter] = planner.ask("dead_letters")
        assert (letter.source, letter.callback, letter.payload) == ("schedule", "fail", "no luck")
        assert (letter.attempts, letter.error) == (3, "ValueError: no luck")
        assert planner.ask("retry_dead_letter", letter.id) is True
        assert planner.ask("retry_dead_letter", letter.id) is False
        w.advance(60_000)
        assert len(planner.notes()) == 6
        [again] = planner.ask("dead_letters")
        assert planner.ask("delete_dead_letter", again.id) is True
        assert planner.ask("dead_letters") == []


def test_a_schedule_that_repeats_outlives_its_failures(tmp_path: Path) -> None:
    """The time that failed is a dead letter; the next one comes as planned."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        planned = planner.every(60, "fail", "x", retry=Retry(2, 1_000, 1_000))
        w.advance(130_000)
        assert [what for _, what in planner.notes()] == ["try 0", "try 1"] * 2
        assert len(planner.ask("dead_letters")) == 2
        assert planner.runs() == [f"{planned} 120000", f"{planned} 60000"], "each time has a name of its own"


def test_only_so_many_run_at_once(tmp_path: Path) -> None:
    """Those that are due beyond `runs_at_once_max` wait for the end of one."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        for _ in range(RUNS_AT_ONCE_MAX + 1):
            planner.plan(1, "slow", 10)
        w.advance(1_000)
        assert len(planner.notes()) == RUNS_AT_ONCE_MAX
        w.advance(60_000)
        notes = planner.notes()
        assert notes.count([1_000, "begin"]) == notes.count([11_000, "end"]) == RUNS_AT_ONCE_MAX
        assert notes.count([11_000, "begin"]) == notes.count([21_000, "end"]) == 1


def test_bounds(tmp_path: Path) -> None:
    """`schedules_max` fit; intervals have `interval_ms_min` at least; times that cannot be are refused."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        planner.every(INTERVAL_MS_MIN / 1000)
        planner.plan(DELAY_MS_MAX / 1000)
        with pytest.raises(ValueError, match="hundred years"):
            planner.plan(DELAY_MS_MAX / 1000 + 0.001)
        wrong: Any
        for wrong in (INTERVAL_MS_MIN / 1000 - 0.001, -1, float("nan"), 1e12):
            with pytest.raises(ValueError, match=r"interval|seconds|hundred years"):
                planner.every(wrong)
        for wrong in (-1, float("inf"), datetime(2026, 1, 1), 1e12, "nonsense", "0 0 30 2 *"):
            with pytest.raises(ValueError, match=r"seconds|time zone|hundred years|cron text"):
                planner.plan(wrong)
        with pytest.raises(ValueError, match="no time zone"):
            planner.plan("0 0 * * *", time_zone="Atlantis/North")
        for wrong in ("missing", "__init__", "storage"):
            with pytest.raises(TypeError, match="no method"):
                planner.plan(1, wrong)
        with pytest.raises(TypeError, match="async generator"):
            planner.plan(1, "values")
        with pytest.raises(TypeError, match="a payload must be JSON"):
            planner.plan(1, payload=object())
        with pytest.raises(TypeError, match="takes no payload"):
            planner.plan(1, "bare", 1)


def test_a_largest_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`schedules_max` is the last that fits."""
    assert SCHEDULES_MAX == 10_000
    monkeypatch.setattr("perdure.agents.schedules.SCHEDULES_MAX", 3)
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        for _ in range(3):
            planner.plan(1)
        with pytest.raises(LimitExceeded, match="schedules_max"):
            planner.plan(1)


# --- the application's own alarm


def _alarms(w: World) -> list[Any]:
    return [note for note in w.get(Planner).notes() if str(note[1]).startswith("alarm")]


@pytest.mark.parametrize("alarm_first", [True, False])
def test_the_alarm_goes_on_beside_schedules(tmp_path: Path, alarm_first: bool) -> None:
    """It rings at its time, whichever was there first; deleting it deletes nothing else."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        if alarm_first:
            planner.ask("set_alarm", START_MS + 5_000)
        planner.plan(2, payload="two")
        planner.plan(9, payload="nine")
        if not alarm_first:
            planner.ask("set_alarm", START_MS + 5_000)
        assert planner.ask("get_alarm") == START_MS + 5_000
        w.kill()
        w.advance(6_000)
        planner = w.get(Planner)
        assert planner.notes() == [[2_000, "two"], [5_000, "alarm 0"]]
        assert planner.ask("get_alarm") is None
        planner.ask("set_alarm", START_MS + 8_000)
        planner.ask("delete_alarm")
        w.advance(10_000)
        assert planner.notes()[2:] == [[9_000, "nine"]]


def test_a_failing_alarm_is_tried_again_beside_schedules(tmp_path: Path) -> None:
    """Six retries, as alone; then it is a dead letter instead of a line in the log."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        planner.ask("put", "start")
        planner.plan(3_600, payload="late")
        w.finish(_set(w, "broken", True))
        planner.ask("set_alarm", START_MS + 1_000)
        w.advance(600_000)
        assert [what for _, what in _alarms(w)] == [f"alarm {n}" for n in range(7)]
        [letter] = planner.ask("dead_letters")
        assert (letter.source, letter.callback) == ("alarm", "on_alarm")
        w.finish(_set(w, "broken", False))
        assert planner.ask("retry_dead_letter", letter.id) is True
        w.advance(1_000)
        assert len(_alarms(w)) == 8
        assert planner.ask("dead_letters") == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_schedule_made_in_the_alarm(tmp_path: Path, fails: bool) -> None:
    """The first schedule of an agent may be made while the alarm rings: the alarm is still retried, and only then."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        w.finish(_set(w, "plan in alarm", True))
        w.finish(_set(w, "then fail", fails))
        planner.ask("set_alarm", START_MS + 1_000)
        w.advance(60_000)
        assert [what for _, what in _alarms(w)] == (["alarm 0", "alarm 1"] if fails else ["alarm 0"])
        assert [what for _, what in planner.notes()].count("from the alarm") == (2 if fails else 1)
        assert planner.ask("dead_letters") == planner.ask("list_schedules") == []


async def _set(w: World, key: str, value: Any) -> None:
    object_id = w.runtime.object_id(Planner, "a")

    async def put(instance: Any) -> None:
        instance.storage.put(key, value)

    await w.runtime.run_in(object_id, put)


def test_an_agent_without_schedules_has_a_plain_alarm(tmp_path: Path) -> None:
    """No table is made for it, and it is retried as an object's."""
    with world(tmp_path, Planner) as w:
        planner = w.get(Planner)
        w.finish(_set(w, "broken", True))
        planner.ask("set_alarm", START_MS + 1_000)
        w.advance(4_000)
        assert [what for _, what in _alarms(w)] == ["alarm 0", "alarm 1"]
        assert planner.ask("sql", "SELECT name FROM sqlite_schema WHERE name LIKE 'agent%'") == []


def test_an_undone_transaction_undoes_its_schedule(tmp_path: Path) -> None:
    """Also one that was due at once."""

    class Undoer(Planner):
        @callable
        async def undo(self) -> None:
            try:
                with self.storage.transaction():
                    self.schedule(0, self.note, "never")
                    self.queue(self.note, "never")
                    raise LookupError
            except LookupError:
                self.put("undone")

    with world(tmp_path, Undoer) as w:
        undoer = w.get(Undoer)
        undoer.undo()
        w.advance(10_000)
        assert undoer.notes() == [[0, "undone"]]
        w.hibernate(Undoer)
