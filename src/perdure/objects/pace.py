"""How long small writes may gather: not at all when there is time, a few ms when there is not.

Each append costs its own commit, frame and system call. When the process is busy, waiting a
little lets the next token of the same answer join: fewer, larger writes, the same order. The
wait follows the load and is bounded, so an idle server shows every token at once and a busy
one stays within `WINDOW_MS_MAX` and a slot of that.

Writes that wait come due in slots of `SLOT_MS`, all of a slot together: one timer, one round of
the loop and one journal group for many rooms.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

log = structlog.get_logger("perdure.objects")

WINDOW_MS_MAX = 20
"""Longest wait: two tokens of a model that speaks 50 a second meet in it."""

SLOT_MS = 2
"""Writes that come due within this time go together."""

BUSY_FROM = 0.70
"""Share of one core from which on writes gather; at `BUSY_FULL` they wait the longest."""

BUSY_FULL = 0.92

SAMPLE_MS = 100
"""How often the load is measured (only while someone asks)."""


class Pace:
    """Measures the process's load when asked, at most every `SAMPLE_MS`; lets small writes gather accordingly."""

    def __init__(
        self, clock_s: Callable[[], float] = time.monotonic, cpu_clock_s: Callable[[], float] = time.process_time
    ) -> None:
        self._clock_s = clock_s
        self._cpu_clock_s = cpu_clock_s
        self._sampled_s = clock_s()
        self._sampled_cpu_s = cpu_clock_s()
        self._window_s = 0.0
        self._slots: dict[int, list[Callable[[], None]]] = {}

    def join(self, write: Callable[[], None]) -> None:
        """Call ``write`` when it has waited for more of its kind: in the loop's next round, or some ms later."""
        now = self._clock_s()
        window_s = self.window_s(now)
        if not window_s:
            asyncio.get_running_loop().call_soon(write)
            return
        slot = int((now + window_s) * 1000 / SLOT_MS) + 1
        writes = self._slots.get(slot)
        if writes is None:
            writes = self._slots[slot] = []
            asyncio.get_running_loop().call_later(slot * SLOT_MS / 1000 - now, self._come_due, slot)
        writes.append(write)

    def _come_due(self, slot: int) -> None:
        for write in self._slots.pop(slot):
            try:
                write()
            except Exception as error:  # of one room; the others' writes wait for nothing
                log.error("a write failed", exc_info=error)

    def window_s(self, now: float) -> float:
        """Seconds that a small write may wait for more of its kind, now; 0 when it may not."""
        elapsed = now - self._sampled_s
        if elapsed * 1000 >= SAMPLE_MS:
            cpu = self._cpu_clock_s()
            # After a long silence the sample says nothing about now.
            load = (cpu - self._sampled_cpu_s) / elapsed if elapsed < 1 else 0.0
            share = min(1.0, max(0.0, (load - BUSY_FROM) / (BUSY_FULL - BUSY_FROM)))
            # Half the way at a time: the wait itself lowers the load, and must not swing with it.
            self._window_s += (share * WINDOW_MS_MAX / 1000 - self._window_s) / 2
            if self._window_s < 0.001:
                self._window_s = 0.0
            self._sampled_s, self._sampled_cpu_s = now, cpu
        return self._window_s
