"""When to try again: growing waits with jitter, what the server asks for, and when to give up.

Pure: the time and the randomness are arguments.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime

RETRY_FOR_S = 120.0
"""How long a client tries without an answer, by default."""

_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?")


class Backoff:
    """Waits that grow from ``first_ms`` by ``factor`` up to ``wait_ms_max``, each a random part of that."""

    def __init__(
        self,
        random: Callable[[], float],
        *,
        first_ms: float = 100,
        factor: float = 1.3,
        wait_ms_max: float = 60_000,
    ) -> None:
        self._random = random
        self._first_ms = first_ms
        self._factor = factor
        self._wait_ms_max = wait_ms_max
        self._longest_ms = first_ms

    def next_ms(self) -> float:
        """The next wait."""
        wait_ms = self._random() * self._longest_ms
        self._longest_ms = min(self._longest_ms * self._factor, self._wait_ms_max)
        return wait_ms

    def reset(self) -> None:
        """The next wait is a short one again."""
        self._longest_ms = self._first_ms


class Retry:
    """A backoff with an end: ``retry_for_s`` seconds after the first of the failures in a row, None for never.

    The last attempt is made when that time is over, not before. A server's demand is kept: where it
    is longer than the rest of the time, no attempt is left.
    """

    def __init__(self, random: Callable[[], float], retry_for_s: float | None = RETRY_FOR_S) -> None:
        self._backoff = Backoff(random)
        self._retry_for_ms = None if retry_for_s is None else retry_for_s * 1000
        self._failing_since_ms: float | None = None

    def succeeded(self) -> None:
        """There was progress: the next failure is the first one."""
        self._failing_since_ms = None
        self._backoff.reset()

    def next_wait_ms(self, now_ms: float, at_least_ms: float = 0) -> float | None:
        """After a failure: how long to wait before the next attempt, or None to give up."""
        wait_ms = max(self._backoff.next_ms(), at_least_ms)
        if self._failing_since_ms is None:
            self._failing_since_ms = now_ms
        if self._retry_for_ms is None:
            return wait_ms
        left_ms = self._failing_since_ms + self._retry_for_ms - now_ms
        if left_ms <= 0 or at_least_ms > left_ms:
            return None
        return min(wait_ms, left_ms)


def retry_after_ms(headers: Mapping[str, str], unix_s: float, *, retry_after_ms_max: float = 3_600_000) -> float:
    """What ``Retry-After`` asks for (seconds, or an HTTP date), 0 without one; RFC 9110 section 10.2.3.

    A date is read against the server's own ``Date`` where there is one: clocks differ. ``unix_s`` is
    the time here.
    """
    value = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value) * 1000, retry_after_ms_max)
    then_s = _unix_s(value)
    if then_s is None:
        return 0
    now_s = _unix_s(headers.get("date", ""))
    wait_ms = (then_s - (unix_s if now_s is None else now_s)) * 1000
    return min(max(wait_ms, 0), retry_after_ms_max)


def _unix_s(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
