"""The watchdog: reports a handler that blocks the event loop, with its stack."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback

import structlog

log = structlog.get_logger("perdure.watchdog")

CHECK_S = 1.0


class Watchdog:
    """A thread that asks the loop for a sign of life once a second."""

    def __init__(self, block_ms_max: int) -> None:
        self._block_s = block_ms_max / 1000
        self._stopped = threading.Event()
        self._answered = threading.Event()
        self.reports = 0
        self.lag_s = 0.0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch the loop that runs in this thread."""
        watched = threading.get_ident()
        threading.Thread(target=self._run, args=(loop, watched), name="perdure-watchdog", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self, loop: asyncio.AbstractEventLoop, watched: int) -> None:
        while not self._stopped.wait(CHECK_S):
            self._answered.clear()
            asked = time.monotonic()
            try:
                loop.call_soon_threadsafe(self._answered.set)
            except RuntimeError:
                return  # the loop is closed
            if not self._answered.wait(self._block_s) and not self._stopped.is_set():
                self.reports += 1
                frame = sys._current_frames().get(watched)
                stack = "".join(traceback.format_stack(frame)) if frame is not None else "unknown"
                log.error("the event loop is blocked", for_ms=int(self._block_s * 1000), stack=stack)
                self._answered.wait()
            self.lag_s = time.monotonic() - asked
