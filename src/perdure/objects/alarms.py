"""The alarm clock: one timer for the alarms of all objects.

It is only a cache of the node index: what it forgets in a crash is read again at the start.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from ..values import ObjectId

TIMER_MS_MAX = 60_000
"""Longest single timer: a jump of the wall clock is noticed within it."""


class AlarmClock:
    """Calls ``fire(object_id)`` when an object's alarm is due."""

    def __init__(self, fire: Callable[[ObjectId], None], now_ms: Callable[[], int]) -> None:
        self._fire = fire
        self._now_ms = now_ms
        self._due: dict[ObjectId, int] = {}
        self._heap: list[tuple[int, ObjectId]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def __len__(self) -> int:
        return len(self._due)

    def set(self, object_id: ObjectId, at_ms: int | None) -> None:
        """Set, move or (None) remove an object's alarm."""
        if at_ms is None:
            self._due.pop(object_id, None)
            return
        self._due[object_id] = at_ms
        heapq.heappush(self._heap, (at_ms, object_id))
        self._arm()

    def stop(self) -> None:
        """Fire no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap and not self._stopped:
            delay_ms = min(max(0, self._heap[0][0] - self._now_ms()), TIMER_MS_MAX)
            self._timer = asyncio.get_running_loop().call_later(delay_ms / 1000, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now_ms = self._now_ms()
        while self._heap and self._heap[0][0] <= now_ms:
            at_ms, object_id = heapq.heappop(self._heap)
            if self._due.get(object_id) == at_ms:
                del self._due[object_id]
                self._fire(object_id)
        self._arm()
