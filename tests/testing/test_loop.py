"""The simulated loop runs asyncio's own primitives, in an order that can be repeated."""

from __future__ import annotations

import asyncio
import threading

import pytest

from perdure.testing.loop import MANY_CALLBACKS, SimulatedLoop


def test_tasks_take_turns_in_order() -> None:
    """First come, first served; between two turns of one, all others have theirs."""
    loop, turns = SimulatedLoop(), list[str]()

    async def work(name: str) -> str:
        for _ in range(2):
            turns.append(name)
            await asyncio.sleep(0)
        return name

    tasks = [loop.create_task(work(name)) for name in "abc"]
    assert turns == []
    loop.run()
    assert turns == ["a", "b", "c", "a", "b", "c"]
    assert [task.result() for task in tasks] == ["a", "b", "c"]
    assert not loop.ready


def test_a_run_stops_after_so_many_callbacks() -> None:
    """And goes on from there with the next one."""
    loop, seen = SimulatedLoop(), list[int]()
    for number in range(5):
        loop.call_soon(seen.append, number)
    loop.run(2)
    assert (seen, loop.ready) == ([0, 1], True)
    loop.run()
    assert seen == [0, 1, 2, 3, 4]


def test_time_stands_until_it_is_moved() -> None:
    """Then timers ring in order of their times, and not before."""
    loop, rung = SimulatedLoop(100.0), list[tuple[str, float]]()

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        rung.append((name, loop.time()))

    for name, seconds in (("late", 3.0), ("early", 1.0), ("never", 9.0)):
        loop.create_task(sleeper(name, seconds))
    loop.run()
    assert (rung, loop.time(), loop.next_timer_s) == ([], 100.0, 101.0)
    loop.advance(3.0)
    loop.run()
    assert rung == [("early", 103.0), ("late", 103.0)]
    assert loop.next_timer_s == 109.0


def test_a_cancelled_timer_does_not_ring() -> None:
    """Nor is it waited for."""
    loop, rung = SimulatedLoop(), list[str]()
    loop.call_later(1, rung.append, "cancelled").cancel()
    loop.call_soon(rung.append, "cancelled").cancel()
    assert loop.next_timer_s is None
    loop.advance(2)
    loop.run()
    assert rung == []


def test_timeouts_and_gathering_work() -> None:
    """What is built on tasks, futures and timers works as it is."""
    loop = SimulatedLoop()

    async def both() -> list[str]:
        async def slow() -> str:
            try:
                async with asyncio.timeout(5):
                    await loop.create_future()
            except TimeoutError:
                return "slow"
            return "fast"

        return list(await asyncio.gather(slow(), slow()))

    task = loop.create_task(both())
    loop.run()
    assert not task.done()
    loop.advance(5)
    loop.run()
    assert task.result() == ["slow", "slow"]


def test_a_threads_work_is_done_on_the_spot() -> None:
    """On this thread, as if there were no loop; what it raises comes to whoever waits."""
    loop = SimulatedLoop()

    def beside() -> int:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return threading.get_ident()

    def fail() -> None:
        raise ValueError("no")

    async def work() -> int:
        with pytest.raises(ValueError, match="no"):
            await asyncio.to_thread(fail)
        assert asyncio.get_running_loop() is loop
        return await asyncio.to_thread(beside)

    task = loop.create_task(work())
    loop.run()
    assert task.result() == threading.get_ident()


def test_what_a_callback_raises_comes_out() -> None:
    """A failed check of a simulation is not swallowed; the rest can still be run."""
    loop, seen = SimulatedLoop(), list[str]()

    def fail() -> None:
        raise AssertionError("found")

    loop.call_soon(fail)
    loop.call_soon(seen.append, "after")
    with pytest.raises(AssertionError, match="found"):
        loop.run()
    loop.run()
    assert seen == ["after"]


def test_do_is_a_callback_before_all_others() -> None:
    """It has the loop, and gives its result at once."""
    loop, seen = SimulatedLoop(), list[str]()
    loop.call_soon(seen.append, "ready")
    assert loop.do(asyncio.get_running_loop) is loop
    assert seen == []


def test_running_in_circles_is_noticed() -> None:
    """A program that never rests fails the run."""
    loop = SimulatedLoop()

    def again() -> None:
        loop.call_soon(again)

    again()
    with pytest.raises(AssertionError, match="still busy"):
        loop.run()
    loop.run(MANY_CALLBACKS - 1)  # asked for, it may take as many


def test_it_is_not_run_inside_another_loop() -> None:
    """Two loops in one thread would mix."""

    async def inside() -> None:
        with pytest.raises(AssertionError, match="inside another"):
            SimulatedLoop().run()

    asyncio.run(inside())
