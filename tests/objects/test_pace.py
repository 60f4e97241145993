"""Small writes gather when the process is busy, and only then."""

from __future__ import annotations

import asyncio

import pytest
from tests.running import until

from perdure.objects.pace import SAMPLE_MS, SLOT_MS, WINDOW_MS_MAX, Pace

pytestmark = pytest.mark.anyio


class Clocks:
    """The time, and the processor time that the process has used."""

    def __init__(self) -> None:
        self.now = 100.0
        self.cpu = 0.0

    def pass_time(self, ms: float, *, load: float) -> None:
        self.now += ms / 1000
        self.cpu += ms / 1000 * load


def _pace(clocks: Clocks) -> Pace:
    return Pace(lambda: clocks.now, lambda: clocks.cpu)


def _window_ms(pace: Pace, clocks: Clocks, *, load: float, samples: int = 20) -> float:
    for _ in range(samples):
        clocks.pass_time(SAMPLE_MS, load=load)
        pace.window_s(clocks.now)
    return pace.window_s(clocks.now) * 1000


@pytest.mark.parametrize(("load", "window_ms"), [(0.0, 0), (0.69, 0), (0.81, 10), (0.92, 20), (1.0, 20)])
def test_the_wait_follows_the_load(load: float, window_ms: float) -> None:
    """Nothing below 70 % of a core, the longest from 92 % on."""
    clocks = Clocks()
    assert _window_ms(_pace(clocks), clocks, load=load) == pytest.approx(window_ms, abs=0.1)
    assert window_ms <= WINDOW_MS_MAX


def test_a_long_silence_says_nothing_about_now() -> None:
    """The first write after it waits less, not more."""
    clocks = Clocks()
    pace = _pace(clocks)
    assert _window_ms(pace, clocks, load=1.0) == pytest.approx(WINDOW_MS_MAX, abs=0.1)
    clocks.pass_time(5_000, load=1.0)
    assert pace.window_s(clocks.now) * 1000 == pytest.approx(WINDOW_MS_MAX / 2, abs=0.1)


async def test_an_idle_process_writes_in_the_next_round() -> None:
    """Each write by itself, in order."""
    written: list[int] = []
    pace = Pace()
    for number in range(3):
        pace.join(lambda number=number: written.append(number))  # type: ignore[misc]
    assert written == []
    await asyncio.sleep(0)
    assert written == [0, 1, 2]


async def test_a_busy_process_writes_a_slots_writes_together() -> None:
    """At the end of the wait; one that fails keeps none of the others."""
    clocks = Clocks()
    pace = _pace(clocks)
    _window_ms(pace, clocks, load=1.0)
    loop = asyncio.get_running_loop()
    written: list[tuple[int, float]] = []

    def write(number: int) -> None:
        if number == 1:
            raise ValueError("one room's write")
        written.append((number, loop.time()))

    began = loop.time()
    for number in range(4):
        pace.join(lambda number=number: write(number))  # type: ignore[misc]
    assert len(pace._slots) == 1
    await until(lambda: len(written) == 3)
    assert [number for number, _ in written] == [0, 2, 3]
    assert min(at for _, at in written) - began >= (WINDOW_MS_MAX - SLOT_MS - 1) / 1000
    assert pace._slots == {}
