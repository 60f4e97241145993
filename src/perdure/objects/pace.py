"""How long small writes may gather: not at all when there is time, a few ms when there is not.

Each append costs its own commit, frame and system call. When the process is busy, waiting a
little lets the next token of the same answer join: fewer, larger writes, the same order. The
wait follows the load and is bounded, so an idle server shows every token at once and a busy
one stays within `WINDOW_MS_MAX` of that.
"""

from __future__ import annotations

import time
from collections.abc import Callable

WINDOW_MS_MAX = 21
"""Longest wait: two tokens of a model that speaks 50 a second meet in it."""

BUSY_FROM = 0.70
"""Share of one core from which on writes gather; at `BUSY_FULL` they wait the longest."""

BUSY_FULL = 0.92

SAMPLE_MS = 100
"""How often the load is measured (only while someone asks)."""


class Pace:
    """Measures the process's load when asked, at most every `SAMPLE_MS`."""

    def __init__(
        self, clock_s: Callable[[], float] = time.monotonic, cpu_clock_s: Callable[[], float] = time.process_time
    ) -> None:
        self._clock_s = clock_s
        self._cpu_clock_s = cpu_clock_s
        self._sampled_s = clock_s()
        self._sampled_cpu_s = cpu_clock_s()
        self._window_s = 0.0

    def window_s(self) -> float:
        """Seconds that a small write may wait for more of its kind, now; 0 when it may not."""
        now = self._clock_s()
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
